"""How much the loss minds a change of each weight: what says which weights deserve a verified cell,
an on-chip word or a better place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rram_hil.errors import ConfigError
from rram_hil.learning.data import LabelledImages
from rram_hil.learning.networks import M, TracedModule, copied
from rram_hil.learning.threads import threads_for
from rram_hil.learning.train import check_agrees, check_fits, class_scores
from rram_hil.networks.layers import Linear, Weighted
from rram_hil.networks.pytorch.operations import product
from rram_hil.types import FloatArray

Kind = Literal["second derivative", "fisher"]
"""Of the cross-entropy, its mean over images: the second derivative to each weight, or the mean
square of the first with the images' own labels (the diagonal of the empirical Fisher information).
"""

_NUMBERS = 1 << 24
"""Gradients of single images held at once."""


def weight_sensitivities(
    model: M | TracedModule[M],
    data: LabelledImages,
    kind: Kind = "second derivative",
    *,
    images: int = 512,
    batch: int = 64,
    seed: int = 0,
    threads: int | None = None,
) -> list[FloatArray]:
    """The sensitivity of the loss to each weight: one array a mapped layer, float64, none below 0,
    of its weight's shape, in units of loss over weight squared.

    `images` of `data`, drawn with `seed`, are passed through the network in evaluation mode,
    `batch` at a time. The second derivative is what SWIM (Yan et al., DAC 2022) ranks weights by.
    It finds that in one backward pass that leaves out how the units of a layer act on each other;
    here one pass a class keeps it, so that it is exact where scores are linear in each weight by
    itself, as with ReLU and pooling between layers that each use a weight once. Elsewhere the part
    that the curvature of the scores adds is left out (Gauss-Newton), as it vanishes on average for
    a network that knows how sure it may be. `threads` are torch's, by default as many as the work
    is worth. Raises `ConfigError` and `DataError` for what does not fit together.
    """
    if images < 1 or batch < 1:
        raise ConfigError(f"sensitivities: images {images} and batch {batch} must be at least 1")
    graph = copied(model)
    check_fits(graph.module, data)
    check_agrees(graph, data)
    graph.module.requires_grad_(False)
    chosen = np.random.default_rng(seed).permutation(len(data))[:images]
    alone = not _images_first(graph, torch.from_numpy(data.images[chosen[[0, 0, 0]]]))
    together = 1 if alone else batch
    sums = [torch.zeros(weight.shape, dtype=torch.float64) for weight in graph.weights]
    with threads_for(graph.module, data.images.shape[1:], together, threads):
        for start in range(0, len(chosen), together):
            part = chosen[start : start + together]
            scores, uses = _forward(graph, torch.from_numpy(data.images[part]))
            outputs = [use.output for use in uses]
            for row in _rows(scores, torch.from_numpy(data.labels[part]), kind):
                slopes = torch.autograd.grad(
                    scores, outputs, row, retain_graph=True, allow_unused=True
                )
                _add(sums, uses, slopes, alone)
    return [(total / len(chosen)).numpy() for total in sums]


@dataclass(frozen=True, eq=False)
class _Use:
    """One product of a mapped weight: its index, what it does, its input, and its output."""

    index: int
    layer: Weighted
    activity: Tensor
    output: Tensor


def _forward(graph: TracedModule[M], images: Tensor) -> tuple[Tensor, list[_Use]]:
    """Scores of the images, and every use of a mapped weight on the way, its output with a
    gradient.
    """
    weights, biases = [weight.detach() for weight in graph.weights], graph.biases
    uses: list[_Use] = []

    def multiply(index: int, layer: Weighted, activity: Tensor) -> Tensor:
        output = product(layer, activity, weights[index], biases[index] if layer.biased else None)
        if not output.requires_grad:
            output.requires_grad_()
        uses.append(_Use(index, layer, activity.detach(), output))
        return output

    scores = class_scores(graph.module, graph.run(images, multiply, learns=False))
    return scores, uses


def _images_first(graph: TracedModule[M], three: Tensor) -> bool:
    """Whether the first dimension of what each weight multiplies counts the images, and nothing
    else: with other numbers of images it is that number.
    """
    return all(
        use.activity.shape[0] == count
        for count in (2, 3)
        for use in _forward(graph, three[:count])[1]
    )


def _rows(scores: Tensor, labels: Tensor, kind: Kind) -> list[Tensor]:
    """Vectors of the scores' shape: the squares of the gradients along them, added up, are what
    `kind` says.
    """
    chances = functional.softmax(scores.detach(), 1)
    one_hot = torch.eye(chances.shape[1]).to(chances)
    if kind == "fisher":
        return [chances - one_hot[labels.to(chances.device)]]
    # The loss curves by diag(chances) - chances x chances.
    return [chances[:, k, None].sqrt() * (one_hot[k] - chances) for k in range(chances.shape[1])]


def _add(
    sums: Sequence[Tensor], uses: Sequence[_Use], slopes: Sequence[Tensor | None], alone: bool
) -> None:
    """Add to the sum of each weight the squares of its gradients, image by image; of a single image
    `alone`, whatever the first dimension counts.
    """
    for index, total in enumerate(sums):
        own = [
            (use, slope)
            for use, slope in zip(uses, slopes, strict=True)
            if use.index == index and slope is not None
        ]
        if not own:
            continue
        use, slope = own[0]
        if not alone and len(own) == 1 and isinstance(use.layer, Linear) and slope.ndim == 2:
            squares = (slope.square().T @ use.activity.square()).double()
            total[use.layer.taken] += squares.cpu()
            continue
        count = len(slope)
        step = count if alone else max(1, _NUMBERS // total.numel())
        for part in (slice(start, start + step) for start in range(0, count, step)):
            each = sum(_gradients(u, s, part, total.shape, alone) for u, s in own)
            assert isinstance(each, Tensor)
            total += each.square().sum(0, dtype=torch.float64).cpu()


def _gradients(use: _Use, slope: Tensor, part: slice, shape: Sequence[int], alone: bool) -> Tensor:
    """Gradients to the weight, (images of `part`, *shape), from those to the output."""
    layer, activity, slope = use.layer, use.activity[part], slope[part]
    if isinstance(layer, Linear):
        count = len(slope)
        found = slope.new_zeros((count, *shape))
        inputs = activity.reshape(count, -1, layer.inputs)
        outputs = slope.reshape(count, -1, slope.shape[-1])
        found[:, layer.taken] = outputs.transpose(1, 2) @ inputs
    else:
        images = activity.unsqueeze(2) if activity.ndim == 3 else activity
        patches = functional.unfold(
            images, layer.kernel, layer.dilation, layer.padding, layer.stride
        )
        count, inputs_, places = patches.shape
        inputs = patches.view(count, layer.groups, inputs_ // layer.groups, places)
        outputs = slope.reshape(count, layer.groups, -1, places)
        found = (outputs @ inputs.transpose(2, 3)).reshape(count, *shape)
    return found.sum(0, keepdim=True) if alone else found
