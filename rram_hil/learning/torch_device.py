"""The devices as training sees them: pairs of cells with few levels, variation and stuck cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rram_hil.errors import ConfigError
from rram_hil.learning.networks import M, TracedModule, straight_through, traced

ErrorLaw = Literal["normal", "lognormal", "additive"]


@dataclass(frozen=True)
class DeviceNoise:
    """What separates a weight asked for from the weight that a differential pair of cells gives.

    A weight w of a layer with scale s asks its two cells for max(w, 0) / s and max(-w, 0) / s, each
    in 0..1 and rounded to one of `levels` conductances (8 a cell are the signed 4 bits of Charan et
    al. 2020). Each cell then gives its value times (1 + sigma n), n being normal; with the `error`
    "lognormal" times exp(sigma n); with "additive" its value plus sigma n, but nothing below 0. Or
    it gives 1 if it is stuck at low resistance, or 0 if at high resistance. The default rates of
    stuck cells are the measured ones of Chen et al., IEEE Trans. Comput. 2015.
    """

    sigma: float = 0.1
    stuck_low_resistance: float = 0.0175
    stuck_high_resistance: float = 0.0904
    levels: int = 8
    input_bits: int | None = 8
    clip: float = 1.5
    """The layer's scale in root-mean-square weights. A cell stuck at low resistance adds one whole
    scale, so a smaller scale makes it hurt less, at the price of cutting the largest weights.
    """
    error: ErrorLaw = "normal"

    def __post_init__(self) -> None:
        rates = (self.stuck_low_resistance, self.stuck_high_resistance)
        if not (self.sigma >= 0 and min(rates) >= 0 and sum(rates) <= 1):
            raise ConfigError(
                f"DeviceNoise: sigma {self.sigma} must be >= 0, stuck rates {rates} >= 0 and their"
                " sum <= 1"
            )
        if self.levels < 2 or not self.clip > 0:
            raise ConfigError(
                f"DeviceNoise: levels {self.levels} must be >= 2 and clip {self.clip} > 0"
            )
        if self.input_bits is not None and self.input_bits < 2:
            raise ConfigError(f"DeviceNoise: input_bits {self.input_bits} must be >= 2, or none")
        if self.error not in get_args(ErrorLaw):
            known = ", ".join(get_args(ErrorLaw))
            raise ConfigError(f"DeviceNoise: error {self.error!r} must be one of {known}")


@dataclass(frozen=True)
class KnownFaults:
    """Which cells of a layer's pairs are stuck: four boolean tensors of the weight's shape."""

    positive_low: Tensor
    positive_high: Tensor
    negative_low: Tensor
    negative_high: Tensor

    def to(self, device: torch.device) -> KnownFaults:
        """The same on another device."""
        return KnownFaults(
            self.positive_low.to(device),
            self.positive_high.to(device),
            self.negative_low.to(device),
            self.negative_high.to(device),
        )


def weight_scale(weight: Tensor, noise: DeviceNoise) -> float:
    """The weight that one cell at full conductance stands for: `clip` rms weights or the largest if
    less.
    """
    size = _precise(weight)
    return float(
        torch.minimum(size.abs().max(), noise.clip * size.square().mean().sqrt()).clamp_min(1e-12)
    )


def draw_faults(
    shape: Sequence[int], noise: DeviceNoise, generator: torch.Generator
) -> KnownFaults:
    """Stuck cells for the pairs of one layer, every cell on its own."""
    draws = torch.rand((2, *shape), generator=generator, device=generator.device)
    low = draws < noise.stuck_low_resistance
    high = draws > 1.0 - noise.stuck_high_resistance
    return KnownFaults(low[0], high[0], low[1], high[1])


def realise(
    weight: Tensor,
    noise: DeviceNoise,
    generator: torch.Generator,
    faults: KnownFaults | None = None,
    fault_aware: bool = False,
) -> Tensor:
    """The weights that pairs of cells give when programmed once with `weight`; straight-through
    gradient.

    Without `faults` new ones are drawn. With `fault_aware` the stuck cells were known before
    programming (forming finds them), and the working cell of each such pair is set to what makes up
    for its partner, as far as it goes.
    """
    scale = weight_scale(weight, noise)
    faults = draw_faults(weight.shape, noise, generator) if faults is None else faults
    faults = faults.to(weight.device)
    top = noise.levels - 1
    wanted = _precise(weight).clamp(-scale, scale) / scale
    positive, negative = wanted.clamp_min(0.0), (-wanted).clamp_min(0.0)
    if fault_aware:
        negative = torch.where(faults.positive_low, (1.0 - wanted).clamp(0.0, 1.0), negative)
        positive = torch.where(faults.negative_low, (1.0 + wanted).clamp(0.0, 1.0), positive)
    drawn = torch.randn((2, *weight.shape), generator=generator, device=generator.device)
    off = drawn.mul_(noise.sigma).to(weight.device)
    positive = _varied(torch.round(positive * top) / top, off[0], noise.error)
    negative = _varied(torch.round(negative * top) / top, off[1], noise.error)
    positive = positive.masked_fill(faults.positive_high, 0.0).masked_fill(faults.positive_low, 1.0)
    negative = negative.masked_fill(faults.negative_high, 0.0).masked_fill(faults.negative_low, 1.0)
    given = (positive - negative) * scale
    return straight_through(weight, given.to(weight.dtype))


def _varied(value: Tensor, off: Tensor, error: ErrorLaw) -> Tensor:
    """What cells give that are asked for `value` and are off by `off`; changes `off`."""
    if error == "additive":
        return off.add_(value).clamp_min_(0.0)
    return off.exp_().mul_(value) if error == "lognormal" else off.add_(1.0).mul_(value)


def _precise(weight: Tensor) -> Tensor:
    """The values of a weight in float32 at least: half precision has no room for the levels."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def draw_chip(
    model: M | TracedModule[M],
    noise: DeviceNoise,
    generator: torch.Generator,
    fault_aware: bool = False,
) -> list[Tensor]:
    """The weights of every mapped layer on one chip drawn at random: what a read-back of it would
    give.
    """
    return [
        realise(weight.detach(), noise, generator, fault_aware=fault_aware)
        for weight in traced(model).weights
    ]
