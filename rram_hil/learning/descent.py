"""Adam and its schedules, without the optimiser objects of torch.

Making one of those imports torch's compiler, which takes 2 s, as long as it takes to train a small
network. The function that does their arithmetic does not import it, and is public as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019) on `parameters`, which
    must all take part in the loss.
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.tensor(0.0) for _ in self._parameters]

    def step(self, loss: Tensor, rate: float, momentum: float = 0.9) -> None:
        """Move the parameters against the gradient of `loss`."""
        # Only what `backward` accumulates has the memory layout of its parameter, which the fused
        # function takes for granted.
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        for parameter in self._parameters:
            parameter.grad = None
        with torch.no_grad():
            adamw(
                self._parameters,
                gradients,
                self._means,
                self._squares,
                [],
                self._steps,
                fused=True,
                amsgrad=False,
                beta1=momentum,
                beta2=0.999,
                lr=rate,
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
            )


def one_cycle(step: int, total: int, top: float, warm: float = 0.15) -> tuple[float, float]:
    """Learning rate and momentum of one of `total` steps, counted from 0: up to the rate `top` for
    the share `warm` of them, then down to almost nothing (Smith and Topin 2019).
    """
    start, turn = top / 25, warm * total - 1
    if step <= turn:
        share = step / turn
        return _half_cosine(start, top, share), _half_cosine(0.95, 0.85, share)
    share = (step - turn) / (total - 1 - turn)
    return _half_cosine(top, start / 1e4, share), _half_cosine(0.85, 0.95, share)


def falling(step: int, total: int, top: float) -> float:
    """Learning rate of one of `total` steps, counted from 0: half a cosine from `top` to 0."""
    return _half_cosine(top, 0.0, step / total)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
