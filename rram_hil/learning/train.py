"""Training the teacher in floating point, and distilling the student through the devices'
faults.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rram_hil.learning.data import LabelledImages
from rram_hil.learning.descent import Adam, one_cycle
from rram_hil.learning.networks import channels_last, forward, mapped_layers
from rram_hil.learning.threads import threads_for
from rram_hil.learning.torch_device import DeviceNoise, realise

Progress = Callable[[float, str], None]
"""progress(fraction done in 0..1, what is being done)."""


@dataclass(frozen=True)
class Augmentation:
    """Random affine changes of each training image, each drawn uniformly in +- the amount given."""

    shift: float = 2.0
    """Pixels."""
    rotation: float = 10.0
    """Degrees."""
    zoom: float = 0.1
    """Fraction, along each axis on its own."""
    shear: float = 0.1
    """Pixels across for each pixel down."""


def train_teacher(
    model: nn.Sequential,
    data: LabelledImages,
    *,
    epochs: int = 14,
    batch: int = 128,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.01,
    augmentation: Augmentation | None = Augmentation(),
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> nn.Sequential:
    """A copy of `model` trained on `data` in floating point with the cross-entropy.

    `threads` are torch's, by default as many as the work is worth.
    """
    teacher = copy.deepcopy(model)

    def loss(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return functional.cross_entropy(teacher(images), labels)

    recipe = _Recipe(epochs, batch, learning_rate, weight_decay, augmentation, seed, threads)
    _fit(teacher, data, loss, recipe, progress, "teacher")
    return teacher


def distil(
    teacher: nn.Sequential,
    student: nn.Sequential,
    data: LabelledImages,
    noise: DeviceNoise | None,
    temperature: float = 2.0,
    *,
    epochs: int = 6,
    batch: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.0,
    augmentation: Augmentation | None = Augmentation(),
    seed: int = 0,
    words: Sequence[NDArray[np.bool_]] | None = None,
    fault_aware: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> nn.Sequential:
    """A copy of `student` taught by `teacher` while every batch meets another chip drawn from
    `noise` (none: in floating point).

    Hinton et al. 2015: the student learns the teacher's classes softened by `temperature`. A
    student that starts as the teacher itself learns fastest. `words` (see `choose_words`) are the
    weights that will own an on-chip word: they are exact on every chip. With `fault_aware` the
    stuck cells of each chip are known before it is programmed (see `realise`), as with a mapping
    whose `faults` are "partner".
    """
    student = copy.deepcopy(student)
    teacher = copy.deepcopy(teacher).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layers = mapped_layers(student)
    exact = [None] * len(layers) if words is None else [torch.from_numpy(mask) for mask in words]

    def scores(images: Tensor, generator: torch.Generator) -> Tensor:
        if noise is None:
            given: Tensor = student(images)
            return given
        weights = [
            realise(layer.weight, noise, generator, fault_aware=fault_aware) for layer in layers
        ]
        weights = [
            weight if mask is None else torch.where(mask, layer.weight, weight)
            for weight, mask, layer in zip(weights, exact, layers, strict=True)
        ]
        return forward(student, images, weights, input_bits=noise.input_bits)

    def loss(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            wanted = teacher(images)
        return distillation_loss(scores(images, generator), wanted, labels, temperature)

    recipe = _Recipe(epochs, batch, learning_rate, weight_decay, augmentation, seed, threads)
    _fit(student, data, loss, recipe, progress, "student")
    return student


def distillation_loss(given: Tensor, wanted: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Half the cross-entropy with the labels, half the divergence from the teacher's softened
    classes.
    """
    soft = functional.kl_div(
        functional.log_softmax(given / temperature, dim=1),
        functional.log_softmax(wanted / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.5 * functional.cross_entropy(given, labels) + 0.5 * temperature**2 * soft


def accuracy(model: Callable[[Tensor], Tensor], data: LabelledImages, batch: int = 1000) -> float:
    """The fraction of `data` that `model`, anything from images to class scores, classes
    rightly.
    """
    right = 0
    with torch.no_grad():
        for start in range(0, len(data), batch):
            scores = model(torch.from_numpy(data.images[start : start + batch]))
            right += int(
                (scores.argmax(dim=1) == torch.from_numpy(data.labels[start : start + batch])).sum()
            )
    return right / len(data)


def batches(
    data: LabelledImages, batch: int, augmentation: Augmentation | None, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of `data` in random order, in whole batches (a smaller `data` is one batch)."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    for chosen in choices(len(data), batch, generator):
        picked = images[chosen]
        if augmentation is not None:
            picked = _augment(picked, augmentation, generator)
        yield channels_last(picked), labels[chosen]


def choices(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """One epoch of the numbers below `count` in random order, in whole batches."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, max(count - batch, 0) + 1, batch):
        yield order[start : start + batch]


def _augment(images: Tensor, amount: Augmentation, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    draw = torch.rand((6, count), generator=generator) * 2.0 - 1.0
    angle = draw[0] * math.radians(amount.rotation)
    wide, tall = 1.0 + amount.zoom * draw[1], 1.0 + amount.zoom * draw[2]
    shear = amount.shear * draw[3]
    # grid_sample's coordinates run from -1 to 1 across the image.
    right, down = draw[4] * amount.shift * 2.0 / width, draw[5] * amount.shift * 2.0 / height
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack((cos * wide, shear * cos - sin, right), dim=1),
        torch.stack((sin, (cos + shear * sin) * tall, down), dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True)
class _Recipe:
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    augmentation: Augmentation | None
    seed: int
    threads: int | None


def _fit(
    model: nn.Sequential,
    data: LabelledImages,
    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    recipe: _Recipe,
    progress: Progress | None,
    what: str,
) -> None:
    with threads_for(model, data.images.shape[1:], recipe.batch, recipe.threads):
        _descend(model, data, loss, recipe, progress, what)


def _descend(
    model: nn.Sequential,
    data: LabelledImages,
    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    recipe: _Recipe,
    progress: Progress | None,
    what: str,
) -> None:
    generator = torch.Generator().manual_seed(recipe.seed)
    model.train()
    # Channels last is the layout in which the convolutions are fastest on a CPU.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = Adam(list(model.parameters()), recipe.weight_decay)
    total = recipe.epochs * max(len(data) // recipe.batch, 1)
    done = 0
    for epoch in range(recipe.epochs):
        for images, labels in batches(data, recipe.batch, recipe.augmentation, generator):
            rate, momentum = one_cycle(done, total, recipe.learning_rate)
            adam.step(loss(images, labels, generator), rate, momentum)
            done += 1
            if progress is not None and done % 50 == 0:
                progress(done / total, f"{what}, epoch {epoch + 1} of {recipe.epochs}")
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.eval()
    if progress is not None:
        progress(1.0, f"{what} trained")
