"""Random sparse adaptation: training the few words of on-chip memory beside an array that is never
written again.

Mohanty et al., IEDM 2017, and Charan et al., JXCDC 2020: a small random fraction of the weights
also owns a word of on-chip memory, whose product is added to the array's. After one programming,
faults and all, only those words and the biases, which are digital too, are trained, through the
array as it really is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rram_hil.errors import ConfigError, DataError
from rram_hil.learning.data import LabelledImages
from rram_hil.learning.descent import Adam, falling
from rram_hil.learning.networks import (
    channels_last,
    linear,
    mapped_layers,
    quantise_input,
    run,
    straight_through,
)
from rram_hil.learning.threads import threads_for
from rram_hil.learning.train import Progress, choices, distillation_loss
from rram_hil.networks.mapping import LayerWords

ArrayMultiply = Callable[[int, NDArray[np.float32]], NDArray[np.floating]]
"""array_multiply(index of the mapped layer, vectors of shape (n, inputs)) -> (n, outputs), in units
of weight times input, without the words and the bias. A convolution's inputs are its unfolded
patches, ordered (channel, row, column).
"""


Start = Literal["zero", "target"]


@dataclass(frozen=True, eq=False)
class Words:
    """All on-chip words of a network, one entry a mapped layer, and what finding them cost."""

    layers: tuple[LayerWords, ...]
    bits: int
    forward_images: int
    """Images sent through the array (or its measured map) while training."""

    @property
    def count(self) -> int:
        """Words in the on-chip memory, the biases included."""
        return sum(layer.values.size + layer.bias_values.size for layer in self.layers)


def choose_words(model: nn.Sequential, fraction: float, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Which weights own an on-chip word: one boolean mask a mapped layer, of its weight's shape.

    `fraction` is words and biases over weights, as `rram_hil.networks.word_costs` counts it. It
    pays for the biases first, since they are trained too; the rest is drawn uniformly over all
    weights. Raises `ConfigError` where the fraction does not pay for the biases.
    """
    layers = mapped_layers(model)
    sizes = [layer.weight.numel() for layer in layers]
    biases = sum(0 if layer.bias is None else layer.bias.numel() for layer in layers)
    words = int(fraction * sum(sizes)) - biases
    if not 0 <= words <= sum(sizes):
        least, most = biases / sum(sizes), 1 + biases / sum(sizes)
        raise ConfigError(
            f"on-chip words: fraction {fraction} is not {least:.4f} (biases alone) to {most:.4f}"
        )
    mask = np.zeros(sum(sizes), dtype=np.bool_)
    mask[np.random.default_rng(seed).choice(mask.size, size=words, replace=False)] = True
    parts = np.split(mask, np.cumsum(sizes)[:-1])
    return [
        part.reshape(tuple(layer.weight.shape)) for part, layer in zip(parts, layers, strict=True)
    ]


def train_words(
    student: nn.Sequential,
    measured: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[np.bool_]],
    data: LabelledImages,
    *,
    teacher: nn.Sequential | None = None,
    temperature: float = 4.0,
    word_bits: int = 8,
    input_bits: int | None = 8,
    steps: int = 100,
    batch: int = 128,
    learning_rate: float = 0.02,
    seed: int = 0,
    start: Start = "zero",
    array_multiply: ArrayMultiply | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Words:
    """Train the on-chip words of a programmed array; neither `student` nor any cell changes.

    `measured` holds what each mapped layer's pairs really give, in weight units, as read back;
    `masks` the weights that own a word (`choose_words`). The words start at zero, or at "target",
    where they restore the student's weights. With a `teacher` its classes, softened by
    `temperature`, are learnt besides the labels. `learning_rate` is in full scales of a word. With
    `array_multiply` the forward pass comes from the array itself and only the gradient from the
    measured map. `input_bits` are those of the array's inputs, `threads` torch's, by default as
    many as the work is worth.
    """
    memories = [
        _Memory(
            layer, torch.from_numpy(np.array(weights, dtype=np.float32)), mask, word_bits, start
        )
        for layer, weights, mask in zip(mapped_layers(student), measured, masks, strict=True)
    ]

    def multiply(index: int, layer: nn.Linear | nn.Conv2d, activity: Tensor) -> Tensor:
        memory, activity = memories[index], quantise_input(activity, input_bits)
        given = linear(layer, activity, memory.weight(), memory.bias())
        if array_multiply is None:
            return given
        with torch.no_grad():
            modelled = linear(layer, activity, memory.measured, None)
            real = _through_array(layer, activity, lambda vectors: array_multiply(index, vectors))
        return given + (real - modelled)

    adam = Adam([p for memory in memories for p in memory.parameters])
    lessons = _Lessons(data, teacher, temperature)
    images_used = 0
    with threads_for(student, data.images.shape[1:], batch, threads):
        for step, chosen in enumerate(_forever(len(data), batch, steps, seed), 1):
            loss = lessons.loss(run(student, lessons.images(chosen), multiply), chosen)
            adam.step(loss, falling(step - 1, steps, learning_rate))
            images_used += len(chosen)
            if progress is not None:
                progress(step / steps, f"on-chip words, step {step} of {steps}")
    return Words(tuple(memory.words() for memory in memories), word_bits, images_used)


def apply_words(
    student: nn.Sequential, measured: Sequence[NDArray[np.floating]], words: Words
) -> nn.Sequential:
    """A copy of `student` with the weights that array and words give together, and the words'
    biases.
    """
    adapted = copy.deepcopy(student)
    for layer, weights, found in zip(mapped_layers(adapted), measured, words.layers, strict=True):
        total = np.array(weights, dtype=np.float32).reshape(-1)
        total[found.indices] += (found.values * found.step).astype(np.float32)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(total).view_as(layer.weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(found.biases))
    return adapted


class _Memory:
    """The trainable words of one layer, in fractions of their full scale, and the array's fixed
    weights.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        measured: Tensor,
        mask: NDArray[np.bool_],
        bits: int,
        start: Start,
    ) -> None:
        if measured.shape != layer.weight.shape or mask.shape != tuple(layer.weight.shape):
            raise DataError(
                f"measured weights {tuple(measured.shape)} and mask {mask.shape} must have the"
                f" layer's shape {tuple(layer.weight.shape)}"
            )
        if not torch.isfinite(measured).all():
            raise DataError(
                f"measured weights of a {tuple(measured.shape)} layer are not all finite"
            )
        bias = torch.zeros(0) if layer.bias is None else layer.bias.detach()
        self.measured = measured
        self._indices = torch.from_numpy(np.flatnonzero(mask))
        self._top = 2 ** (bits - 1) - 1
        # A word must be able to cancel a stuck cell, and to make up for a weight that the pair had
        # to clip.
        self._full_scale = max(
            float(measured.abs().max()), float(layer.weight.detach().abs().max()), 1e-12
        )
        self._bias_full_scale = max([self._full_scale, *(2.0 * bias.abs()).tolist()])
        missing = (layer.weight.detach() - measured).reshape(-1)[self._indices]
        if start == "zero":
            missing.zero_()
        self._fractions = (missing / self._full_scale).clamp_(-1.0, 1.0).requires_grad_()
        self._bias_fractions = (bias / self._bias_full_scale).requires_grad_()
        self._has_bias = layer.bias is not None

    @property
    def parameters(self) -> list[Tensor]:
        return [self._fractions, self._bias_fractions] if self._has_bias else [self._fractions]

    def weight(self) -> Tensor:
        corrections = self._rounded(self._fractions) * (self._full_scale / self._top)
        flat = self.measured.view(-1)
        return flat.index_add(0, self._indices, corrections).view_as(self.measured)

    def bias(self) -> Tensor | None:
        if not self._has_bias:
            return None
        given: Tensor = self._rounded(self._bias_fractions) * (self._bias_full_scale / self._top)
        return given

    def words(self) -> LayerWords:
        return LayerWords(
            self._indices.numpy().copy(),
            self._rounded(self._fractions).detach().numpy().astype(np.int32),
            self._full_scale / self._top,
            self._rounded(self._bias_fractions).detach().numpy().astype(np.int32),
            self._bias_full_scale / self._top,
        )

    def _rounded(self, fractions: Tensor) -> Tensor:
        steps = fractions * self._top
        return straight_through(steps, torch.round(steps).clamp(-self._top, self._top))


def _through_array(
    layer: nn.Linear | nn.Conv2d,
    activity: Tensor,
    multiply: Callable[[NDArray[np.float32]], NDArray[np.floating]],
) -> Tensor:
    """What the array gives for one layer's input: a convolution goes through it one patch at a
    time.
    """
    if isinstance(layer, nn.Linear):
        return torch.from_numpy(np.asarray(multiply(activity.numpy()), dtype=np.float32))
    if layer.groups != 1 or isinstance(layer.padding, str):
        raise ConfigError(
            "a convolution on the array must have one group and its padding given in pixels"
        )
    patches = functional.unfold(
        activity.contiguous(), layer.kernel_size, layer.dilation, layer.padding, layer.stride
    )
    count, inputs, places = patches.shape
    vectors = patches.transpose(1, 2).reshape(-1, inputs).contiguous().numpy()
    given = torch.from_numpy(np.asarray(multiply(vectors), dtype=np.float32))
    height = _places(layer, activity, 0)
    return (
        given.view(count, places, -1).transpose(1, 2).reshape(count, -1, height, places // height)
    )


def _places(layer: nn.Conv2d, activity: Tensor, axis: int) -> int:
    padding = layer.padding[axis]
    assert isinstance(padding, int)
    reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
    return int((activity.shape[2 + axis] + 2 * padding - reach) // layer.stride[axis] + 1)


def _forever(count: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Which of `count` images each of `steps` batches takes, in random order epoch after epoch."""
    generator = torch.Generator().manual_seed(seed)
    epochs = iter(lambda: choices(count, batch, generator), None)
    return islice(chain.from_iterable(epochs), steps)


class _Lessons:
    """The images and what is to be learnt of each; the teacher sees each image once."""

    def __init__(
        self, data: LabelledImages, teacher: nn.Sequential | None, temperature: float
    ) -> None:
        self._images, self._labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
        self._teacher, self._temperature = teacher, temperature
        self._scores = torch.zeros(0)
        self._is_known = torch.zeros(len(data), dtype=torch.bool)

    def images(self, chosen: Tensor) -> Tensor:
        return channels_last(self._images[chosen])

    def loss(self, given: Tensor, chosen: Tensor) -> Tensor:
        labels = self._labels[chosen]
        if self._teacher is None:
            return functional.cross_entropy(given, labels)
        unknown = chosen[~self._is_known[chosen]]
        if len(unknown):
            with torch.no_grad():
                scores = self._teacher(self.images(unknown))
            if not len(self._scores):
                self._scores = torch.zeros((len(self._labels), scores.shape[1]))
            self._scores[unknown], self._is_known[unknown] = scores, True
        return distillation_loss(given, self._scores[chosen], labels, self._temperature)
