"""The trainable low-rank adapter of one layer: see `rram_hil.networks.adapters`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rram_hil.learning.networks import straight_through
from rram_hil.networks.adapters import Adapter

Start = Literal["zero", "target"]
_HEADROOM = 2.0
"""Full scale of an adapter's values over the largest that it starts with."""


class TrainedAdapter:
    """The two matrices of an adapter of `rank`, in fractions of their full scales.

    `missing`, shape (out, in), is what the array lacks. From "target" they start as its best
    approximation of that rank (its largest singular values, both matrices sharing each alike);
    from "zero" the inward one is drawn by `generator` and the outward one is zero, so that the
    layer begins as the array is. `largest`, in weight units, is what a weight may have to change
    by.
    """

    def __init__(
        self,
        missing: Tensor,
        rank: int,
        bits: int,
        start: Start,
        largest: float,
        generator: torch.Generator,
    ) -> None:
        self._top = 2 ** (bits - 1) - 1
        # Where nothing is missing, values still need a scale to move in.
        least = (largest / max(missing.shape)) ** 0.5
        if start == "target":
            left, values, right = torch.linalg.svd(missing, full_matrices=False)
            root = values[:rank].sqrt()
            outward, inward = left[:, :rank] * root, root[:, None] * right[:rank]
        else:
            drawn = torch.rand((rank, missing.shape[1]), generator=generator) * 2.0 - 1.0
            inward = drawn.to(missing) * least
            outward = missing.new_zeros((len(missing), rank))
        self._scales = [
            max(_HEADROOM * float(values.abs().max()), least) for values in (inward, outward)
        ]
        self._inward = (inward / self._scales[0]).requires_grad_()
        self._outward = (outward / self._scales[1]).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """Both matrices."""
        return [self._inward, self._outward]

    def matrix(self) -> Tensor:
        """What is added to the layer's (out, in) matrix, as its bits have it."""
        inward, outward = (rounded(values, self._top) for values in self.parameters)
        scale = self._scales[0] * self._scales[1] / self._top**2
        made: Tensor = outward @ inward * scale
        return made

    def adapter(self) -> Adapter:
        """The adapter as it stands in digital memory."""
        inward, outward = (numbers(values, self._top) for values in self.parameters)
        return Adapter(inward, self._scales[0] / self._top, outward, self._scales[1] / self._top)


def rounded(fractions: Tensor, top: int) -> Tensor:
    """Fractions of a full scale as whole steps of it, `top` at most; straight-through gradient."""
    steps = fractions * top
    return straight_through(steps, torch.round(steps).clamp(-top, top))


def numbers(fractions: Tensor, top: int) -> NDArray[np.int32]:
    """The steps of `rounded` as they are stored."""
    return rounded(fractions, top).detach().cpu().to(torch.int32).numpy()
