"""Which weights get a word: within the budget, the ones that matter, and what their costs allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rram_hil.errors import ConfigError, DataError
from rram_hil.learning import (
    choose_words,
    important_words,
    low_rank_adapters,
    small_layers_first,
)
from rram_hil.networks.network import Network
from rram_hil.networks.word_costs import multiplies

IMAGE = np.zeros((1, 1, 6, 6), dtype=np.float32)


def network() -> nn.Sequential:
    """Layers of 9, 32 and 48 weights, the first used at 16 places; 12 biases, 12 outputs."""
    return nn.Sequential(
        nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 4), nn.Linear(4, 5)
    )


SIZES = (9, 32, 8, 20)
USES = (16, 1, 1, 1)
DIGITAL = 1 + 2 + 4 + 5


def test_uses_are_places_of_an_image() -> None:
    assert tuple(multiplies(Network.from_torch(network()), IMAGE).values()) == USES


@pytest.mark.parametrize("scales", [False, True])
def test_a_fraction_pays_for_the_digital_parameters_first(scales: bool) -> None:
    digital = DIGITAL * (2 if scales else 1)
    for choose in (choose_words, small_layers_first):
        masks = choose(network(), 0.6, scales=scales)
        assert sum(int(mask.sum()) for mask in masks) == int(0.6 * sum(SIZES)) - digital
        with pytest.raises(ConfigError, match="scales" if scales else "biases alone"):
            choose(network(), (digital - 1) / sum(SIZES), scales=scales)


def test_small_layers_come_whole_and_the_rest_from_the_next() -> None:
    masks = small_layers_first(network(), (DIGITAL + 8 + 9 + 5) / sum(SIZES))
    assert [int(mask.sum()) for mask in masks] == [9, 0, 8, 5]
    again = small_layers_first(network(), (DIGITAL + 8 + 9 + 5) / sum(SIZES), seed=1)
    assert not np.array_equal(masks[3], again[3])


def test_a_small_layer_that_would_do_too_much_of_the_work_gets_a_part() -> None:
    whole = sum(size * uses for size, uses in zip(SIZES, USES, strict=True))
    masks = small_layers_first(
        network(), (DIGITAL + 17) / sum(SIZES), image=IMAGE, mac_share=(8 + 3 * 16) / whole
    )
    assert [int(mask.sum()) for mask in masks] == [3, 0, 8, 0]


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.1), st.floats(0.01, 1.0))
def test_important_words_keep_to_both_bounds_and_none_left_out_is_better_at_its_cost(
    seed: int, fraction: float, mac_share: float
) -> None:
    random = np.random.default_rng(seed)
    model = network()
    importance = [random.exponential(size=tuple(p.shape)) for p in model.parameters() if p.ndim > 1]
    masks = important_words(model, importance, fraction, image=IMAGE, mac_share=mac_share)
    count = [int(mask.sum()) for mask in masks]
    words = int(fraction * sum(SIZES)) - DIGITAL
    whole = sum(size * uses for size, uses in zip(SIZES, USES, strict=True))
    assert sum(count) <= words
    assert sum(n * uses for n, uses in zip(count, USES, strict=True)) <= mac_share * whole + 1e-9
    for mask, value in zip(masks, importance, strict=True):
        if mask.any() and not mask.all():
            assert value[mask].min() >= value[~mask].max()
    if mac_share == 1.0:
        assert sum(count) == words


def test_importance_must_fit_and_be_no_less_than_zero() -> None:
    with pytest.raises(DataError, match="the mapped layers have"):
        important_words(network(), [np.ones(3)], 0.5)
    bad = [np.ones(size) for size in SIZES]
    bad[1][4] = -1.0
    with pytest.raises(DataError, match="not negative"):
        important_words(network(), bad, 0.5)


WIDE = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(128, 24), nn.Linear(24, 4))
WIDE_SIZES, WIDE_SIDES, WIDE_USES = (72, 3072, 96), (17, 152, 28), (16, 1, 1)
WIDE_DIGITAL = 8 + 24 + 4
WIDE_WHOLE = sum(size * uses for size, uses in zip(WIDE_SIZES, WIDE_USES, strict=True))


@given(st.floats(0.012, 1.0), st.floats(0.01, 1.0))
def test_adapters_keep_to_both_bounds_and_no_layer_could_have_a_higher_rank(
    fraction: float, mac_share: float
) -> None:
    ranks, masks = low_rank_adapters(WIDE, fraction, image=IMAGE, mac_share=mac_share)
    whole = [bool(mask.all()) for mask in masks]
    assert [bool(mask.any()) for mask in masks] == whole, "all of a layer or none"

    def cost(ranks: list[int]) -> tuple[int, int]:
        """Values, and multiply-accumulates, where an adapter is never more than its layer."""
        values = [
            min(rank * side, size) if not all_ else size
            for rank, side, size, all_ in zip(ranks, WIDE_SIDES, WIDE_SIZES, whole, strict=True)
        ]
        return sum(values), sum(n * uses for n, uses in zip(values, WIDE_USES, strict=True))

    values, macs = cost(ranks)
    left = int(fraction * sum(WIDE_SIZES)) - WIDE_DIGITAL
    assert values <= left
    assert macs <= mac_share * WIDE_WHOLE
    for k, is_whole in enumerate(whole):
        assert ranks[k] * WIDE_SIDES[k] < WIDE_SIZES[k]
        if not is_whole:
            more = cost([rank + (k == own) for own, rank in enumerate(ranks)])
            assert more[0] > left or more[1] > mac_share * WIDE_WHOLE


def test_all_layers_have_the_rank_that_is_asked_for_or_are_refused() -> None:
    ranks, masks = low_rank_adapters(WIDE, 0.5, image=IMAGE, rank=4)
    assert ranks == [4, 4, 0]
    assert [int(mask.sum()) for mask in masks] == [0, 0, 96], "4 x 28 values are more than 96"
    with pytest.raises(ConfigError, match=r"rank: adapters of rank 4 take more than fraction 0\.1"):
        low_rank_adapters(WIDE, 0.1, image=IMAGE, rank=4)
    with pytest.raises(ConfigError, match=r"or mac_share 0\.2 of"):
        low_rank_adapters(WIDE, 0.5, image=IMAGE, rank=4, mac_share=0.2)
