"""Random sparse adaptation: training the few words of on-chip memory beside an array that is never
written again.

Mohanty et al., IEDM 2017, and Charan et al., JXCDC 2020: a small random fraction of the weights
also owns a word of on-chip memory, whose product is added to the array's. After one programming,
faults and all, only those words and the biases, which are digital too, are trained, through the
array as it really is. Low-rank adapters beside the layers are trained alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rram_hil.errors import ConfigError, DataError
from rram_hil.learning.adapters import Start, TrainedAdapter, numbers, rounded
from rram_hil.learning.data import LabelledImages
from rram_hil.learning.networks import (
    M,
    MappedLayer,
    TracedModule,
    channels_last,
    copied,
    duplicate,
    quantise_input,
)
from rram_hil.learning.threads import threads_for
from rram_hil.learning.train import (
    Progress,
    check_agrees,
    check_fits,
    choices,
    class_scores,
    distillation_loss,
    like_parameters,
)
from rram_hil.networks.adapters import LEAST_BITS
from rram_hil.networks.layers import Convolution, Linear, Weighted
from rram_hil.networks.mapping import SCALE_RANGE, LayerWords
from rram_hil.networks.pytorch.operations import product

ArrayMultiply = Callable[[int, NDArray[np.float32]], NDArray[np.floating]]
"""array_multiply(index of the mapped layer, vectors of shape (n, inputs)) -> (n, outputs), in units
of weight times input, without the words and the bias. A convolution's inputs are its unfolded
patches, ordered (channel, row, column). It is asked once for each use of the layer's weight: once a
time step for that of a hidden state, and once a group, all outputs of which but the group's go
unused, for a grouped convolution.
"""


@dataclass(frozen=True, eq=False)
class Words:
    """All on-chip words of a network, one entry a mapped layer, and what finding them cost."""

    layers: tuple[LayerWords, ...]
    bits: int
    forward_images: int
    """Images sent through the array (or its measured map) while training."""

    @property
    def count(self) -> int:
        """Words in the on-chip memory, values of adapters, biases and scales included."""
        return sum(layer.count + layer.digital for layer in self.layers)


def train_words(
    student: M | TracedModule[M],
    measured: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[np.bool_]],
    data: LabelledImages,
    *,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    word_bits: int = 8,
    input_bits: int | None = 8,
    steps: int = 100,
    batch: int = 128,
    learning_rate: float = 0.02,
    seed: int = 0,
    start: Start = "zero",
    scales: bool = False,
    ranks: Sequence[int] | None = None,
    array_multiply: ArrayMultiply | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Words:
    """Train the on-chip words of a programmed array; neither `student`, which runs as in evaluation
    mode, nor any cell changes.

    `measured` holds what each mapped layer's pairs really give, in weight units, as read back;
    `masks` the weights that own a word (`choose_words`). The words start at zero, or at "target",
    where they restore the student's weights. With `scales` a digital factor for each output is
    trained too, as the gain of a batch norm would be; with `ranks`, one a mapped layer, an adapter
    of that rank beside the layer, or none where it is 0 (`low_rank_adapters`). With a `teacher` its
    classes, softened by `temperature`, are learnt besides the labels. `learning_rate` is in full
    scales of a word. With `array_multiply` the forward pass comes from the array itself and only
    the gradient from the measured map. `input_bits` are those of the array's inputs, `threads`
    torch's, by default as many as the work is worth.
    """
    graph = copied(student)
    _check_counts(graph, measured, masks)
    ranks = [0] * len(masks) if ranks is None else ranks
    _check_counts(graph, measured, ranks)
    if any(ranks) and word_bits < LEAST_BITS:
        raise ConfigError(f"word_bits: adapters need at least {LEAST_BITS}, not {word_bits}")
    check_fits(graph.module, data)
    check_agrees(graph, data)
    generator = torch.Generator().manual_seed(seed)
    memories = [
        _Memory(layer, weights, mask, word_bits, start, scales, rank, generator)
        for layer, weights, mask, rank in zip(graph.layers, measured, masks, ranks, strict=True)
    ]

    def scores(images: Tensor) -> Tensor:
        # Once for all uses of a weight.
        weights = [memory.weight() for memory in memories]
        biases = [memory.bias() for memory in memories]

        def multiply(index: int, layer: Weighted, activity: Tensor) -> Tensor:
            activity = quantise_input(activity, input_bits)
            bias = biases[index] if layer.biased else None
            given = product(layer, activity, weights[index], bias)
            if array_multiply is None:
                return given
            with torch.no_grad():
                modelled = product(layer, activity, memories[index].measured, None)
                real = _through_array(
                    layer, activity, lambda vectors: array_multiply(index, vectors)
                )
            return given + _scaled(layer, real - modelled, memories[index].scales())

        return class_scores(graph.module, graph.run(images, multiply, learns=False))

    optimiser = torch.optim.Adam(
        [p for memory in memories for p in memory.parameters], lr=learning_rate, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    lessons = _Lessons(data, teacher, temperature)
    images_used = 0
    with threads_for(graph.module, data.images.shape[1:], batch, threads):
        for step, chosen in enumerate(_forever(len(data), batch, steps, seed), 1):
            loss = lessons.loss(scores(lessons.images(chosen)), chosen)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            images_used += len(chosen)
            if progress is not None:
                progress(step / steps, f"on-chip words, step {step} of {steps}")
    return Words(tuple(memory.words() for memory in memories), word_bits, images_used)


def apply_words(
    student: M | TracedModule[M], measured: Sequence[NDArray[np.floating]], words: Words
) -> M:
    """A copy of `student` with the weights that array and words give together, and the words'
    biases.
    """
    graph = copied(student)
    graph.refuse_computed()
    _check_counts(graph, measured, words.layers)
    totals = []
    for layer, weights, found in zip(graph.layers, measured, words.layers, strict=True):
        total = np.array(weights, dtype=np.float32, order="C").reshape(len(weights), -1)
        found.add_to(total)
        totals.append(torch.from_numpy(total).view(layer.weight.shape).to(layer.weight))
        with torch.no_grad():
            layer.weight.copy_(totals[-1])
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(found.biases))
    for name, weight, written in zip(graph.names, graph.weights, totals, strict=True):
        if not torch.equal(weight, written):
            raise ConfigError(
                f"{type(graph.module).__name__}: {name} shares its parameter with another mapped"
                " weight, so it cannot hold what the array does in its own place"
            )
    return graph.module


def _check_counts(
    graph: TracedModule[M], measured: Sequence[object], others: Sequence[object]
) -> None:
    if not len(graph.names) == len(measured) == len(others):
        raise DataError(
            f"{type(graph.module).__name__}: {len(graph.names)} mapped layers, but"
            f" {len(measured)} measured weights and masks or words of {len(others)}"
        )


class _Memory:
    """The trainable words and adapter of one layer, in fractions of their full scale, and the
    array's fixed weights.
    """

    def __init__(
        self,
        layer: MappedLayer,
        measured: NDArray[np.floating],
        mask: NDArray[np.bool_],
        bits: int,
        start: Start,
        scales: bool,
        rank: int,
        generator: torch.Generator,
    ) -> None:
        if measured.shape != layer.weight.shape or mask.shape != tuple(layer.weight.shape):
            raise DataError(
                f"measured weights {tuple(measured.shape)} and mask {mask.shape} must have the"
                f" layer's shape {tuple(layer.weight.shape)}"
            )
        if not np.isfinite(measured).all():
            raise DataError(
                f"measured weights of a {tuple(measured.shape)} layer are not all finite"
            )
        self._type: torch.dtype = layer.weight.dtype
        # Half precision has too few digits to train words of 8 bits.
        precise = torch.promote_types(self._type, torch.float32)
        weight = layer.weight.detach().to(precise)
        self._measured = torch.from_numpy(np.array(measured, dtype=np.float32)).to(weight)
        bias = weight.new_zeros(0) if layer.bias is None else layer.bias.detach().to(precise)
        self._indices = torch.from_numpy(np.flatnonzero(mask)).to(weight.device)
        self._top = 2 ** (bits - 1) - 1
        # A word must be able to cancel a stuck cell, and to make up for a weight that the pair had
        # to clip.
        self._full_scale = max(float(self._measured.abs().max()), float(weight.abs().max()), 1e-12)
        self._bias_full_scale = max([self._full_scale, *(2.0 * bias.abs()).tolist()])
        lacking = weight - self._measured
        self._adapter = (
            TrainedAdapter(
                lacking.reshape(len(lacking), -1), rank, bits, start, self._full_scale, generator
            )
            if rank
            else None
        )
        missing = lacking.reshape(-1)[self._indices]
        if start == "zero":
            missing.zero_()
        self._fractions = (missing / self._full_scale).clamp_(-1.0, 1.0).requires_grad_()
        self._bias_fractions = (bias / self._bias_full_scale).requires_grad_()
        self._has_bias = layer.bias is not None
        self._scale_fractions = weight.new_zeros(len(weight) if scales else 0).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        adapter = [] if self._adapter is None else self._adapter.parameters
        return [self._fractions, self._bias_fractions, self._scale_fractions, *adapter]

    @property
    def measured(self) -> Tensor:
        return self._measured.to(self._type)

    def weight(self) -> Tensor:
        corrections = rounded(self._fractions, self._top) * (self._full_scale / self._top)
        flat = self._measured.view(-1).index_add(0, self._indices, corrections)
        together = flat.view_as(self._measured)
        if self._adapter is not None:
            together = together + self._adapter.matrix().view_as(together)
        scales = self.scales()
        if scales is not None:
            together = together * scales.view(-1, *[1] * (together.ndim - 1))
        return together.to(self._type)

    def scales(self) -> Tensor | None:
        if not len(self._scale_fractions):
            return None
        given: Tensor = 1.0 + rounded(self._scale_fractions, self._top) * (SCALE_RANGE / self._top)
        return given

    def bias(self) -> Tensor | None:
        if not self._has_bias:
            return None
        steps = rounded(self._bias_fractions, self._top)
        given: Tensor = steps * (self._bias_full_scale / self._top)
        return given.to(self._type)

    def words(self) -> LayerWords:
        return LayerWords(
            self._indices.cpu().numpy().copy(),
            numbers(self._fractions, self._top),
            self._full_scale / self._top,
            numbers(self._bias_fractions, self._top),
            self._bias_full_scale / self._top,
            numbers(self._scale_fractions, self._top),
            SCALE_RANGE / self._top,
            None if self._adapter is None else self._adapter.adapter(),
        )


def _scaled(layer: Weighted, outputs: Tensor, scales: Tensor | None) -> Tensor:
    """Outputs of a layer by their digital scales."""
    if scales is None:
        return outputs
    if isinstance(layer, Linear):
        return outputs * scales[layer.taken]
    return outputs * scales.view(-1, *[1] * (outputs.ndim - 2))


def _through_array(
    layer: Weighted,
    activity: Tensor,
    multiply: Callable[[NDArray[np.float32]], NDArray[np.floating]],
) -> Tensor:
    """What the array gives for one layer's input, without the bias: a convolution goes through it
    one patch at a time, group by group.
    """

    def outputs(vectors: Tensor) -> Tensor:
        vectors = vectors.detach().cpu().float().contiguous()
        given = np.asarray(multiply(vectors.numpy()), dtype=np.float32)
        return torch.from_numpy(given).to(activity.device, activity.dtype)

    if isinstance(layer, Linear):
        given = outputs(activity.reshape(-1, layer.inputs))[:, layer.taken]
        return given.reshape(*activity.shape[:-1], -1)
    images = activity.unsqueeze(2) if activity.ndim == 3 else activity
    made = layer.outputs // layer.groups
    groups = []
    for group, part in enumerate(images.chunk(layer.groups, dim=1)):
        patches = functional.unfold(
            part.contiguous(), layer.kernel, layer.dilation, layer.padding, layer.stride
        )
        count, inputs, places = patches.shape
        given = outputs(patches.transpose(1, 2).reshape(-1, inputs))
        own = given[:, group * made : (group + 1) * made]
        groups.append(own.reshape(count, places, made).transpose(1, 2))
    height = _places(layer, images, 0)
    together = torch.cat(groups, dim=1)
    shape = (height, places // height) if activity.ndim == 4 else (places,)
    return together.reshape(count, layer.outputs, *shape)


def _places(layer: Convolution, images: Tensor, axis: int) -> int:
    reach = layer.dilation[axis] * (layer.kernel[axis] - 1) + 1
    return int((images.shape[2 + axis] + 2 * layer.padding[axis] - reach) // layer.stride[axis] + 1)


def _forever(count: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Which of `count` images each of `steps` batches takes, in random order epoch after epoch."""
    generator = torch.Generator().manual_seed(seed)
    epochs = iter(lambda: choices(count, batch, generator), None)
    return islice(chain.from_iterable(epochs), steps)


class _Lessons:
    """The images and what is to be learnt of each; the teacher sees each image once."""

    def __init__(self, data: LabelledImages, teacher: nn.Module | None, temperature: float) -> None:
        self._images, self._labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
        self._teacher: nn.Module | None = None
        self._temperature = temperature
        self._scores = torch.zeros(0)
        self._is_known = torch.zeros(len(data), dtype=torch.bool)
        if teacher is not None:
            self._teacher = duplicate(teacher).eval()
            check_fits(self._teacher, data)

    def images(self, chosen: Tensor) -> Tensor:
        return channels_last(self._images[chosen])

    def loss(self, given: Tensor, chosen: Tensor) -> Tensor:
        labels = self._labels[chosen]
        if self._teacher is None:
            return functional.cross_entropy(given, labels.to(given.device))
        unknown = chosen[~self._is_known[chosen]]
        if len(unknown):
            with torch.no_grad():
                scores = self._teacher(like_parameters(self._teacher, self.images(unknown))).cpu()
            if not len(self._scores):
                self._scores = scores.new_zeros((len(self._labels), scores.shape[1]))
            self._scores[unknown], self._is_known[unknown] = scores, True
        return distillation_loss(given, self._scores[chosen], labels, self._temperature)
