"""The on-chip words beside an array that is never written again."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rram_hil.errors import ConfigError, DataError
from rram_hil.learning import (
    DeviceNoise,
    LabelledImages,
    accuracy,
    apply_words,
    choose_words,
    digits_net,
    draw_chip,
    forward,
    low_rank_adapters,
    mapped_layers,
    train_words,
)

Data = tuple[LabelledImages, LabelledImages]
Matrix = NDArray[np.float32]
Chip = list[Matrix]


@pytest.fixture(scope="module")
def chip(student: torch.nn.Sequential, noise: DeviceNoise) -> Chip:
    return [
        weights.numpy() for weights in draw_chip(student, noise, torch.Generator().manual_seed(7))
    ]


def test_the_fraction_is_words_and_biases_over_weights() -> None:
    net = digits_net()
    weights = sum(layer.weight.numel() for layer in mapped_layers(net))
    biases = sum(layer.bias.numel() for layer in mapped_layers(net) if layer.bias is not None)
    masks = choose_words(net, 0.05, seed=1)
    assert sum(int(mask.sum()) for mask in masks) + biases == int(0.05 * weights)
    assert all(
        np.array_equal(a, b) for a, b in zip(masks, choose_words(net, 0.05, seed=1), strict=True)
    )
    assert not all(
        np.array_equal(a, b) for a, b in zip(masks, choose_words(net, 0.05, seed=2), strict=True)
    )
    with pytest.raises(ConfigError, match="biases alone"):
        choose_words(net, 0.001)


@pytest.mark.parametrize("word_bits", [3, 8])
def test_only_words_change_and_they_never_exceed_their_bits(
    student: torch.nn.Sequential, chip: Chip, data: Data, word_bits: int
) -> None:
    masks = choose_words(student, 0.05)
    kept, before = copy.deepcopy(chip), [p.clone() for p in student.parameters()]
    # A rate so high that the words run into both ends of their range.
    words = train_words(
        student, chip, masks, data[0], steps=10, learning_rate=1.0, word_bits=word_bits
    )
    adapted = apply_words(student, chip, words)

    assert all(np.array_equal(a, b) for a, b in zip(chip, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), before, strict=True))
    top = 2 ** (word_bits - 1) - 1
    for layer, mask, measured, found in zip(
        mapped_layers(adapted), masks, chip, words.layers, strict=True
    ):
        assert np.array_equal(layer.weight.detach().numpy()[~mask], measured[~mask])
        assert found.values.size == mask.sum()
        assert np.abs(found.values).max(initial=0) <= top
        assert np.abs(found.bias_values).max() <= top
    assert max(np.abs(found.values).max() for found in words.layers) == top
    assert words.count == int(0.05 * sum(layer.weight.numel() for layer in mapped_layers(student)))
    assert words.forward_images == 10 * 128


def test_words_repair_a_chip(teacher: torch.nn.Sequential, data: Data, noise: DeviceNoise) -> None:
    # The plain teacher is what a chip harms most.
    harmed = [
        weights.numpy() for weights in draw_chip(teacher, noise, torch.Generator().manual_seed(7))
    ]
    words = train_words(
        teacher, harmed, choose_words(teacher, 0.05), data[0], teacher=teacher, steps=60
    )
    before = accuracy(lambda x: forward(teacher, x, [torch.from_numpy(w) for w in harmed]), data[1])
    after = accuracy(apply_words(teacher, harmed, words), data[1])
    assert after > before + 0.03


def test_the_same_seed_gives_the_same_words(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    masks = choose_words(student, 0.05)
    first, again, other = (
        train_words(student, chip, masks, data[0], steps=3, seed=seed) for seed in (1, 1, 2)
    )
    same = [
        np.array_equal(a.values, b.values) for a, b in zip(first.layers, again.layers, strict=True)
    ]
    assert all(same)
    assert not all(
        np.array_equal(a.values, b.values) for a, b in zip(first.layers, other.layers, strict=True)
    )


def test_a_scale_makes_up_for_a_gain_of_the_outputs(
    student: torch.nn.Sequential, data: Data
) -> None:
    none = [np.zeros(tuple(layer.weight.shape), dtype=bool) for layer in mapped_layers(student)]
    gains = np.array([0.8, 1.25])
    harmed = [
        layer.weight.detach().numpy()
        * np.resize(gains, len(layer.weight)).reshape(-1, *[1] * (layer.weight.ndim - 1))
        for layer in mapped_layers(student)
    ]
    options: dict[str, Any] = {"teacher": student, "steps": 150, "learning_rate": 0.03}
    found = train_words(student, harmed, none, data[0], scales=True, **options)
    assert all(layer.scales is not None and len(layer.scales) for layer in found.layers)
    unscaled = train_words(student, harmed, none, data[0], **options)
    assert all(layer.scales is None for layer in unscaled.layers)

    def scores(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return cast("torch.Tensor", model(torch.from_numpy(data[1].images)))

    wanted = scores(student)
    with_scales, without = (
        (scores(apply_words(student, harmed, words)) - wanted).square().mean()
        for words in (found, unscaled)
    )
    assert with_scales < 0.5 * without


def test_adapters_start_as_near_to_what_is_missing_as_their_rank_allows(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    none = [np.zeros(weights.shape, dtype=bool) for weights in chip]
    words = train_words(
        student, chip, none, data[0], ranks=[2, 0, 3], steps=0, start="target", word_bits=16
    )
    for layer, measured, found, rank in zip(
        mapped_layers(student), chip, words.layers, (2, 0, 3), strict=True
    ):
        assert (0 if found.adapter is None else found.adapter.rank) == rank
        missing = (layer.weight.detach().numpy() - measured).reshape(len(measured), -1)
        left = missing if found.adapter is None else missing - found.adapter.matrix
        # The best approximation of a rank leaves the singular values beyond it.
        rest = np.linalg.svd(missing, compute_uv=False)[rank:]
        assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(rest), rel=1e-3)
    assert words.count == 2 * (12 + 9) + 3 * (10 + 96) + 12 + 24 + 10


def test_adapters_start_at_zero_where_they_are_to_and_repair_a_chip_from_either(
    teacher: torch.nn.Sequential, data: Data, noise: DeviceNoise
) -> None:
    harmed = [
        weights.numpy() for weights in draw_chip(teacher, noise, torch.Generator().manual_seed(7))
    ]
    ranks, masks = low_rank_adapters(teacher, 0.1, image=data[0].images[:1])
    assert min(ranks) > 0
    options: dict[str, Any] = {"teacher": teacher, "ranks": ranks}
    left = train_words(teacher, harmed, masks, data[0], steps=0, **options)
    assert all(
        found.adapter is not None and not found.adapter.matrix.any() for found in left.layers
    )
    before = accuracy(lambda x: forward(teacher, x, [torch.from_numpy(w) for w in harmed]), data[1])
    for start in ("zero", "target"):
        words = train_words(teacher, harmed, masks, data[0], steps=60, start=start, **options)
        assert accuracy(apply_words(teacher, harmed, words), data[1]) > before + 0.03


def test_adapters_never_exceed_their_bits_and_follow_the_seed(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    none = [np.zeros(weights.shape, dtype=bool) for weights in chip]
    options: dict[str, Any] = {"ranks": [1, 1, 1], "steps": 5, "learning_rate": 1.0, "word_bits": 3}
    first, again, other = (
        train_words(student, chip, none, data[0], seed=seed, **options).layers for seed in (1, 1, 2)
    )
    for one, same, differs in zip(first, again, other, strict=True):
        assert one.adapter is not None
        assert same.adapter is not None
        assert differs.adapter is not None
        assert max(np.abs(one.adapter.inward).max(), np.abs(one.adapter.outward).max()) == 3
        np.testing.assert_array_equal(one.adapter.matrix, same.adapter.matrix)
        assert not np.array_equal(one.adapter.matrix, differs.adapter.matrix)
    with pytest.raises(DataError, match="3 mapped layers, but"):
        train_words(student, chip, none, data[0], ranks=[1])


def test_adapters_have_the_bits_to_leave_zero(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    none = [np.zeros(tuple(layer.weight.shape), dtype=bool) for layer in mapped_layers(student)]
    options: dict[str, Any] = {"ranks": [1] * len(none), "steps": 20}
    with pytest.raises(ConfigError, match="adapters need at least 3, not 2"):
        train_words(student, chip, none, data[0], word_bits=2, **options)
    found = train_words(student, chip, none, data[0], word_bits=3, **options)
    for layer in found.layers:
        assert layer.adapter is not None
        assert np.abs(layer.adapter.matrix).max() > 0


def test_no_steps_leave_the_array_as_it_is(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    words = train_words(student, chip, choose_words(student, 0.2), data[0], steps=0)
    left = apply_words(student, chip, words)
    for layer, measured in zip(mapped_layers(left), chip, strict=True):
        assert np.array_equal(layer.weight.detach().numpy(), measured)
    assert words.forward_images == 0


def test_an_array_that_is_its_map_changes_nothing(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    calls: list[tuple[int, tuple[int, ...]]] = []

    def array_multiply(index: int, vectors: Matrix) -> Matrix:
        calls.append((index, vectors.shape))
        return vectors @ chip[index].reshape(len(chip[index]), -1).T

    masks = choose_words(student, 0.05)
    options: dict[str, Any] = {"steps": 4, "batch": 32, "scales": True, "ranks": [1, 0, 2]}
    modelled = train_words(student, chip, masks, data[0], **options)
    real = train_words(student, chip, masks, data[0], array_multiply=array_multiply, **options)
    for a, b in zip(modelled.layers, real.layers, strict=True):
        assert np.abs(a.values - b.values).max(initial=0) <= 1
        assert np.abs(a.scale_values - b.scale_values).max() <= 1
        assert (a.adapter is None) == (b.adapter is None)
        if a.adapter is not None and b.adapter is not None:
            assert np.abs(a.adapter.inward - b.adapter.inward).max() <= 1
            assert np.abs(a.adapter.outward - b.adapter.outward).max() <= 1
    inputs = [weights[0].size for weights in chip]
    assert [index for index, _ in calls] == [0, 1, 2] * 4
    assert [shape for _, shape in calls[:3]] == [
        (32 * 64, inputs[0]),
        (32 * 4, inputs[1]),
        (32, inputs[2]),
    ]


def test_the_words_make_up_for_what_the_map_does_not_show(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    # The array's last layer gives every class a wrong offset, of which the read-back knows nothing.
    offset = np.linspace(-8.0, 8.0, 10, dtype=np.float32)

    def array_multiply(index: int, vectors: Matrix) -> Matrix:
        given: Matrix = vectors @ chip[index].reshape(len(chip[index]), -1).T
        return given + offset if index == 2 else given

    def on_array(words_of: torch.nn.Sequential) -> float:
        return accuracy(lambda x: words_of(x) + torch.from_numpy(offset), data[1])

    masks = choose_words(student, 0.05)
    blind = train_words(student, chip, masks, data[0], steps=60, learning_rate=0.05)
    seeing = train_words(
        student, chip, masks, data[0], steps=60, learning_rate=0.05, array_multiply=array_multiply
    )
    assert (
        on_array(apply_words(student, chip, seeing))
        > on_array(apply_words(student, chip, blind)) + 0.1
    )


def test_a_map_that_does_not_fit_is_refused(
    student: torch.nn.Sequential, chip: Chip, data: Data
) -> None:
    masks = choose_words(student, 0.05)
    with pytest.raises(DataError, match="shape"):
        train_words(student, [chip[0], chip[1], chip[2].T], masks, data[0], steps=1)
    spoilt = [chip[0], chip[1], np.full_like(chip[2], np.nan)]
    with pytest.raises(DataError, match="finite"):
        train_words(student, spoilt, masks, data[0], steps=1)
