"""The pairs of cells that training sees."""

from __future__ import annotations

import pytest
import torch

from rram_hil.errors import ConfigError
from rram_hil.learning import (
    DeviceNoise,
    KnownFaults,
    digits_net,
    draw_chip,
    forward,
    mapped_layers,
    weight_scale,
)
from rram_hil.learning.torch_device import realise

PERFECT = DeviceNoise(
    sigma=0.0, stuck_low_resistance=0.0, stuck_high_resistance=0.0, input_bits=None, clip=100.0
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_perfect_pairs_give_the_weights_to_half_a_level() -> None:
    weight = torch.randn(40, 30, generator=seeded())
    given = realise(weight, PERFECT, seeded())
    scale = weight_scale(weight, PERFECT)
    assert (given - weight).abs().max() <= 0.5 * scale / 7 + 1e-6
    assert len(torch.unique(torch.round(given / scale * 7))) <= 15


def test_variation_is_proportional_to_the_conductance() -> None:
    weight = torch.tensor([1.0, -4 / 7, 0.0]).repeat(4000, 1)
    noise = DeviceNoise(0.1, 0.0, 0.0, levels=8, clip=100.0)
    given = realise(weight, noise, seeded())
    spread = given.std(dim=0)
    assert spread[0] == pytest.approx(0.1 * weight_scale(weight, noise), rel=0.1)
    assert spread[1] == pytest.approx(0.1 * weight_scale(weight, noise) * 4 / 7, rel=0.1)
    assert spread[2] == 0.0


def test_a_lognormal_error_keeps_the_median_and_an_additive_one_is_the_same_at_every_level() -> (
    None
):
    weight = torch.tensor([1.0, 4 / 7, 0.0]).repeat(40_000, 1)
    law = DeviceNoise(0.5, 0.0, 0.0, levels=8, clip=100.0, error="lognormal")
    given = realise(weight, law, seeded())[:, :2]
    assert torch.log(given).mean(dim=0).exp().tolist() == pytest.approx([1.0, 4 / 7], rel=0.02)
    assert torch.log(given).std(dim=0).tolist() == pytest.approx([0.5, 0.5], rel=0.02)
    small = DeviceNoise(0.1, 0.0, 0.0, levels=8, clip=100.0, error="additive")
    given = realise(weight, small, seeded())
    # The second cell of each pair is asked for nothing: half of the normal is cut off.
    half = 0.1 * (0.5 - 0.5 / torch.pi) ** 0.5
    pair = (0.1**2 + half**2) ** 0.5
    wanted = [pair, pair, 2**0.5 * half]
    assert given.std(dim=0).tolist() == pytest.approx(wanted, rel=0.02)
    with pytest.raises(ConfigError, match="error 'gamma' must be one of normal, lognormal, add"):
        DeviceNoise(error="gamma")  # type: ignore[arg-type]


def test_stuck_cells_come_at_their_rates_and_add_or_remove_one_scale() -> None:
    weight = torch.full((300, 300), 0.5)
    noise = DeviceNoise(sigma=0.0, clip=100.0)
    given = realise(weight, noise, seeded()) / weight_scale(weight, noise)
    # All ask for a full plus cell: high resistance removes it, a minus cell at low resistance
    # cancels it.
    assert set(torch.unique(given.round()).tolist()) == {-1.0, 0.0, 1.0}
    high, low = noise.stuck_high_resistance, noise.stuck_low_resistance
    assert (given.round() == -1).float().mean() == pytest.approx(high * low, rel=0.2)
    assert (given.round() == 1).float().mean() == pytest.approx((1 - high) * (1 - low), rel=0.01)


def test_a_known_stuck_cell_is_made_up_for_by_its_partner() -> None:
    weight = torch.tensor([1.0, 3.0, -3.0, -7.0, 2.0])
    low = torch.tensor([True, True, True, False, False])
    none = torch.zeros(5, dtype=torch.bool)
    faults = KnownFaults(low, none, none, none)
    blind = realise(weight, PERFECT, seeded(), faults)
    aware = realise(weight, PERFECT, seeded(), faults, fault_aware=True)
    assert blind.tolist() == pytest.approx([7.0, 7.0, 4.0, -7.0, 2.0])
    assert aware.tolist() == pytest.approx([1.0, 3.0, 0.0, -7.0, 2.0])


def test_the_gradient_passes_straight_through() -> None:
    weight = torch.randn(5, 5, generator=seeded()).requires_grad_()
    realise(weight, DeviceNoise(), seeded()).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(5, 5))


def test_a_chip_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone() -> None:
    net, state = digits_net(seed=1), torch.random.get_rng_state()
    first, again, other = (draw_chip(net, DeviceNoise(), seeded(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_forward_with_the_models_own_weights_is_the_model() -> None:
    net = digits_net(seed=1).requires_grad_(False)
    images = torch.rand(7, 1, 8, 8, generator=seeded())
    weights = [layer.weight for layer in mapped_layers(net)]
    torch.testing.assert_close(forward(net, images, weights), net(images))
    eight = forward(net, images, weights, input_bits=8)
    assert 0.0 < float((eight - net(images)).abs().max()) < 0.02
    assert float((forward(net, images, weights, input_bits=2) - net(images)).abs().max()) > 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": -0.1},
        {"sigma": float("nan")},
        {"stuck_low_resistance": 0.95},
        {"levels": 1},
        {"clip": 0.0},
        {"input_bits": 1},
    ],
)
def test_impossible_devices_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).split("_")[0]):
        DeviceNoise(**wrong)  # type: ignore[arg-type]
