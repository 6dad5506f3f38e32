"""How much the loss minds a change of each weight: what says which weights deserve a verified cell,
an on-chip word or a better place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from rram_hil.errors import ConfigError
from rram_hil.learning.data import LabelledImages
from rram_hil.learning.networks import M, TracedModule, copied
from rram_hil.learning.threads import threads_for
from rram_hil.learning.train import check_agrees, check_fits, class_scores
from rram_hil.types import FloatArray

Kind = Literal["second derivative", "fisher"]
"""Of the cross-entropy, its mean over images: the second derivative to each weight, or the mean
square of the first with the images' own labels (the diagonal of the empirical Fisher information).
"""

_NUMBERS = 1 << 24
"""Gradients held at once where `batch` does not say how many images are taken together."""


def weight_sensitivities(
    model: M | TracedModule[M],
    data: LabelledImages,
    kind: Kind = "second derivative",
    *,
    images: int = 512,
    batch: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> list[FloatArray]:
    """The sensitivity of the loss to each weight: one array a mapped layer, float64, none below 0,
    of its weight's shape, in units of loss over weight squared.

    `images` of `data`, drawn with `seed`, are passed through the network in evaluation mode,
    `batch` at a time (by default as many as little memory holds). The second derivative is what
    SWIM (Yan et al., DAC 2022) ranks weights by. It finds that in one backward pass that leaves
    out how the units of a layer act on each other; here one pass a class keeps it, so that it is
    exact where scores are linear in each weight by itself, as with ReLU and pooling between layers
    that each use a weight once. Elsewhere the part that the curvature of the scores adds is left
    out (Gauss-Newton), as it vanishes on average for a network that knows how sure it may be.
    `threads` are torch's, by default as many as the work is worth. Raises `ConfigError` and
    `DataError` for what does not fit together.
    """
    if images < 1 or (batch is not None and batch < 1):
        raise ConfigError(f"sensitivities: images {images} and batch {batch} must be at least 1")
    graph = copied(model)
    check_fits(graph.module, data)
    check_agrees(graph, data)
    graph.module.requires_grad_(False)
    weights = [weight.detach() for weight in graph.weights]
    chosen = np.random.default_rng(seed).permutation(len(data))[:images]
    taken = graph.here(torch.from_numpy(data.images[chosen]))
    labels = torch.from_numpy(data.labels[chosen]).to(taken.device)
    held = sum(weight.numel() for weight in weights)
    together = min(64, max(1, _NUMBERS // held)) if batch is None else batch

    def scores(given: Sequence[Tensor], image: Tensor) -> Tensor:
        return class_scores(graph.module, graph.forward(image[None], given))[0]

    def loss(given: Sequence[Tensor], image: Tensor, label: Tensor) -> Tensor:
        return functional.cross_entropy(scores(given, image), label)

    def slopes(image: Tensor, label: Tensor) -> list[Tensor]:
        found: Sequence[Tensor] = grad(loss)(weights, image, label)
        return [slope.square() for slope in found]

    def curvatures(image: Tensor, label: Tensor) -> list[Tensor]:
        given, back = vjp(lambda own: scores(own, image), weights)  # type: ignore[misc]
        chances = functional.softmax(given, 0)
        # The loss curves by diag(chances) - chances x chances: the sum of these rows' squares.
        rows = chances.sqrt()[:, None] * (torch.eye(len(chances)).to(chances) - chances)
        total = [torch.zeros_like(weight) for weight in weights]
        for row in rows.unbind():
            (found,) = back(row)
            total = [sum_ + slope.square() for sum_, slope in zip(total, found, strict=True)]
        return total

    each = vmap(slopes if kind == "fisher" else curvatures)
    sums = [torch.zeros(weight.shape, dtype=torch.float64) for weight in weights]
    with (
        threads_for(graph.module, data.images.shape[1:], together, threads),
        sdpa_kernel(SDPBackend.MATH),  # attention's other kernels take no batch of gradients
    ):
        for start in range(0, len(chosen), together):
            part = slice(start, start + together)
            for total, found in zip(sums, each(taken[part], labels[part]), strict=True):
                total += found.sum(0, dtype=torch.float64).cpu()
    return [(total / len(chosen)).numpy() for total in sums]
