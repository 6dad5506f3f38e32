"""Training the teacher in floating point, and distilling the student through the devices'
faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rram_hil.errors import ConfigError, DataError, first_line
from rram_hil.learning.data import LabelledImages
from rram_hil.learning.networks import (
    M,
    TracedModule,
    channels_last,
    check_finite,
    copied,
    duplicate,
    evaluating,
)
from rram_hil.learning.threads import threads_for
from rram_hil.learning.torch_device import DeviceNoise, realise

Progress = Callable[[float, str], None]
"""progress(fraction done in 0..1, what is being done)."""


@dataclass(frozen=True)
class Augmentation:
    """Random affine changes of each training image, each drawn uniformly in +- the amount given;
    with `flip` half of the images are mirrored besides.
    """

    shift: float = 2.0
    """Pixels."""
    rotation: float = 10.0
    """Degrees."""
    zoom: float = 0.1
    """Fraction, along each axis on its own."""
    shear: float = 0.1
    """Pixels across for each pixel down."""
    flip: bool = False
    """Left and right change places."""


def train_teacher(
    model: M,
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
) -> M:
    """A copy of `model` trained on `data` in floating point with the cross-entropy, in evaluation
    mode.

    Any module from images to class scores, on its own device and in its own type; `model` itself
    stays as it is. `threads` are torch's, by default as many as the work is worth.
    """
    teacher = duplicate(model)

    def loss(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return functional.cross_entropy(class_scores(teacher, teacher(images)), labels)

    recipe = _Recipe(epochs, batch, learning_rate, weight_decay, augmentation, seed, threads)
    _fit(teacher, data, loss, recipe, progress, "teacher")
    return teacher


def distil(
    teacher: nn.Module | None,
    student: M | TracedModule[M],
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
) -> M:
    """A copy of `student`, in evaluation mode, taught by `teacher` while every batch meets another
    chip drawn from `noise` (none: in floating point).

    Hinton et al. 2015: the student learns the teacher's classes softened by `temperature`. A
    student that starts as the teacher itself learns fastest. Without a teacher it learns from the
    labels alone (variation-aware training). All of the student that can be trained is, what stays
    digital too; a weight used more than once is one weight on the chip. `words` (see
    `choose_words`) are the weights that will own an on-chip word: they are exact on every chip.
    With `fault_aware` the stuck cells of each chip are known before it is programmed (see
    `realise`), as with a mapping whose `faults` are "partner". Both modules given stay as they are.
    """
    teaching = None if teacher is None else _teaching(teacher)
    learner, graph = _learning(student, data)
    exact = _exact(graph, words)

    def scores(images: Tensor, generator: torch.Generator) -> Tensor:
        if noise is None:
            return class_scores(learner, learner(images))
        own = graph.weights
        weights = [realise(weight, noise, generator, fault_aware=fault_aware) for weight in own]
        weights = [
            weight if mask is None else torch.where(mask, exactly, weight)
            for weight, mask, exactly in zip(weights, exact, own, strict=True)
        ]
        return class_scores(learner, graph.forward(images, weights, input_bits=noise.input_bits))

    def loss(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        if teaching is None:
            return functional.cross_entropy(scores(images, generator), labels)
        with torch.no_grad():
            wanted = class_scores(teaching, teaching(like_parameters(teaching, images)))
        return distillation_loss(scores(images, generator), wanted, labels, temperature)

    recipe = _Recipe(epochs, batch, learning_rate, weight_decay, augmentation, seed, threads)
    _fit(learner, data, loss, recipe, progress, "student")
    return learner


def _teaching(teacher: nn.Module) -> nn.Module:
    """A copy of `teacher` that only answers."""
    teacher = duplicate(teacher).eval()
    check_finite(teacher)
    _lay_out(teacher, torch.channels_last)
    return teacher


def _learning(student: M | TracedModule[M], data: LabelledImages) -> tuple[M, TracedModule[M]]:
    """A copy of `student`, and what it computes in training."""
    graph = copied(student)
    graph.refuse_computed()
    learner, kind = graph.module, type(graph.module).__name__
    check_fits(learner, data)
    check_agrees(graph, data)
    _check_learns(graph, data)
    training = TracedModule(learner, training=True, allow_digital=graph.allow_digital)
    if training.places != graph.places:
        raise ConfigError(f"{kind}: multiplies by other weights in training than in use")
    return learner, training


def _exact(
    graph: TracedModule[M], words: Sequence[NDArray[np.bool_]] | None
) -> list[Tensor | None]:
    """Which weights of each mapped layer own a word."""
    if words is None:
        return [None] * len(graph.names)
    shapes = [tuple(mask.shape) for mask in words]
    if shapes != list(graph.network.matrices.values()):
        raise DataError(
            f"words: masks of the shapes {shapes} are not of the mapped layers"
            f" {graph.network.matrices}"
        )
    return [torch.from_numpy(mask).to(graph.device) for mask in words]


def class_scores(module: nn.Module, given: object) -> Tensor:
    """What `module` gave, if it is one score for each class. Raises `ConfigError` if not."""
    if isinstance(given, Tensor) and given.ndim == 2:
        return given
    what = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
    raise ConfigError(
        f"{type(module).__name__}: must give scores of shape (images, classes), gives {what}"
    )


def check_fits(module: nn.Module, data: LabelledImages) -> None:
    """Raise `ConfigError` where `module` cannot take these images, or does not give a score for
    each of their classes; `DataError` where it is not finite.
    """
    check_finite(module)
    if len(data) == 0:
        raise DataError("no images to learn from")
    kind = type(module).__name__
    with torch.no_grad(), evaluating(module):
        try:
            given = module(like_parameters(module, torch.from_numpy(data.images[:2])))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(
                f"{kind}: cannot take images of shape {data.images.shape[1:]}:"
                f" {first_line(str(error))}"
            ) from error
    classes, labels = class_scores(module, given).shape[1], data.labels
    if labels.min() < 0 or labels.max() >= classes:
        raise ConfigError(
            f"{kind}: gives scores of {classes} classes, but the labels are"
            f" {labels.min()} to {labels.max()}"
        )


def check_agrees(graph: TracedModule[M], data: LabelledImages) -> None:
    """Raise `ConfigError` where a traced module gives other scores than the module itself."""
    images = graph.here(torch.from_numpy(data.images[:2]))
    with torch.no_grad(), evaluating(graph.module):
        wanted, given = graph.module(images), graph.forward(images, graph.weights)
    allowed = math.sqrt(torch.finfo(wanted.dtype).eps) * max(1.0, float(wanted.abs().max()))
    if wanted.shape != given.shape or not float((given - wanted).abs().max()) <= allowed:
        raise ConfigError(
            f"{type(graph.module).__name__}: what was traced of it gives other scores than it does"
        )


def _check_learns(graph: TracedModule[M], data: LabelledImages) -> None:
    """Raise `ConfigError` for a parameter that the module itself learns otherwise than what was
    traced of it: which takes no more than what was computed from it, or more than it should.
    """
    kind = type(graph.module).__name__
    images = graph.here(torch.from_numpy(data.images[:2]))
    with evaluating(graph.module):
        own = _gradients(graph.module, graph.module(images))
        given = _gradients(graph.module, graph.forward(images, graph.weights))
    for name, wanted in own.items():
        if name not in given:
            raise ConfigError(
                f"{kind}: {name} cannot be trained with the array, since others are computed from"
                " it; make them plain parameters or freeze it"
            )
        allowed = (
            10 * math.sqrt(torch.finfo(wanted.dtype).eps) * max(1.0, float(wanted.abs().max()))
        )
        if not float((given[name] - wanted).abs().max()) <= allowed:
            raise ConfigError(f"{kind}: {name} has another gradient in what was traced of it")
    for name in given:
        if name not in own:
            raise ConfigError(f"{kind}: {name} has a gradient only in what was traced of it")


def _check_trains(module: nn.Module, data: LabelledImages) -> None:
    """Raise `ConfigError` where training would change nothing."""
    with evaluating(module):
        scores = module(like_parameters(module, torch.from_numpy(data.images[:2])))
    if not _gradients(module, scores):
        raise ConfigError(
            f"{type(module).__name__}: none of its parameters can be trained: all are frozen, or"
            " its forward pass takes others than its own"
        )


def _gradients(module: nn.Module, scores: Tensor) -> dict[str, Tensor]:
    """Gradients to the parameters that the scores depend on, by their names."""
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not (trained and scores.requires_grad):
        return {}
    # Classes count differently, since the sum of a softmax would have no gradient.
    weights = torch.linspace(-1.0, 1.0, scores.shape[1]).to(scores)
    found = torch.autograd.grad((scores * weights).sum(), list(trained.values()), allow_unused=True)
    return {name: own for name, own in zip(trained, found, strict=True) if own is not None}


def like_parameters(module: nn.Module, images: Tensor) -> Tensor:
    """`images` on the device and in the floating-point type of a module's parameters."""
    like = next((p for p in module.parameters() if p.is_floating_point()), images)
    return images.to(like.device, like.dtype)


def distillation_loss(given: Tensor, wanted: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Half the cross-entropy with the labels, half the divergence from the teacher's softened
    classes. `wanted` and `labels` may be on another device, and `wanted` of another type.
    """
    if wanted.shape != given.shape:
        raise ConfigError(
            f"the teacher gives scores of shape {tuple(wanted.shape)}, the student of"
            f" {tuple(given.shape)}: both must know the same classes"
        )
    wanted, labels = wanted.to(given.device, given.dtype), labels.to(given.device)
    soft = functional.kl_div(
        functional.log_softmax(given / temperature, dim=1),
        functional.log_softmax(wanted / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.5 * functional.cross_entropy(given, labels) + 0.5 * temperature**2 * soft


def accuracy(model: Callable[[Tensor], Tensor], data: LabelledImages, batch: int = 1000) -> float:
    """The fraction of `data` that `model`, anything from images to class scores, classes
    rightly. A module does so in evaluation mode, on its own device and in its own type.
    """
    right = 0
    module = model if isinstance(model, nn.Module) else None
    with torch.no_grad(), nullcontext() if module is None else evaluating(module):
        for start in range(0, len(data), batch):
            images = torch.from_numpy(data.images[start : start + batch])
            if module is not None:
                images = like_parameters(module, images)
            scores = model(images)
            classes = (scores if module is None else class_scores(module, scores)).argmax(1).cpu()
            right += int((classes == torch.from_numpy(data.labels[start : start + batch])).sum())
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
    if images.ndim != 4:
        raise ConfigError(
            "augmentation: moves the pixels of images (n, channels, height, width), not of"
            f" {tuple(images.shape)}; give none"
        )
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
    matrix = torch.stack(rows, dim=1)
    if amount.flip:
        matrix[:, :, 0] *= torch.randint(0, 2, (count, 1), generator=generator) * 2 - 1
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
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
    model: nn.Module,
    data: LabelledImages,
    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    recipe: _Recipe,
    progress: Progress | None,
    what: str,
) -> None:
    """Train `model` itself, and leave it in evaluation mode without gradients."""
    check_fits(model, data)
    _check_trains(model, data)
    threads = threads_for(model, data.images.shape[1:], recipe.batch, recipe.threads)
    with threads, _seeded(model, recipe.seed):
        _descend(model, data, loss, recipe, progress, what)
    model.zero_grad(set_to_none=True)
    try:
        check_finite(model)
    except DataError as error:
        raise DataError(f"{what}: training diverged, lower its learning rate: {error}") from None


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Dropout draws from torch's generators of the device only: borrow them and put them back."""
    device = next(model.parameters()).device
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights of two-dimensional convolutions out in memory; no value changes."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _descend(
    model: nn.Module,
    data: LabelledImages,
    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    recipe: _Recipe,
    progress: Progress | None,
    what: str,
) -> None:
    generator = torch.Generator().manual_seed(recipe.seed)
    model.train()
    # Channels last is the layout in which the convolutions are fastest on a CPU.
    _lay_out(model, torch.channels_last)
    rate = recipe.learning_rate
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=recipe.weight_decay, fused=True
    )
    total = recipe.epochs * max(len(data) // recipe.batch, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=total, pct_start=0.15
    )
    done = 0
    for epoch in range(recipe.epochs):
        for images, labels in batches(data, recipe.batch, recipe.augmentation, generator):
            images = like_parameters(model, images)
            value = loss(images, labels.to(images.device), generator)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            if progress is not None and done % 50 == 0:
                progress(done / total, f"{what}, epoch {epoch + 1} of {recipe.epochs}")
    _lay_out(model, torch.contiguous_format)
    model.eval()
    if progress is not None:
        progress(1.0, f"{what} trained")
