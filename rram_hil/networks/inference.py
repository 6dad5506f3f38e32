"""Inference through the array: inputs to codes, codes through `Multiply` operations, ADC codes back
to weight units.

`infer` is a generator: whoever answers its operations decides whether a network runs on the chip (a
bench) or on a stored conductance map (`StoredMap`); all else is the same. With x = input code x
input step, V = input code / top x `read_v` and weight = (G+ - G-) x `weight_per_s`, an output is

    input step x top / read_v x weight_per_s x (I+ - I-)  +  input step x word step x word sum  +
    bias

Where a layer has an adapter, what that makes of x is added; where it has scales, they multiply all
but the bias.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.array import (
    Multiply,
    MultiplyResult,
    Operation,
    Result,
    WordsResult,
    WriteWords,
    drive,
)
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.mapping import LayerMap, LayerWords, Mapping, Missing
from rram_hil.networks.network import (
    Float32,
    Linear,
    Network,
    Weighted,
    as_input,
    joined,
    parts_of,
    product,
    propagate,
    unfold,
)
from rram_hil.types import FloatArray

Codes = NDArray[np.int16]
Steps = float | tuple[float, ...]
"""The value of one input code, or of one of each group of inputs."""

CHUNK_BYTES = 8 << 20
"""Largest size of one `Multiply` with its result, so that it stays near the processor's caches and
small on a link.
"""
_CACHED_VALUES = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """How vectors enter the array and how its currents are converted.

    `steps`: the value of one input code, by layer; of a grouped convolution one for each group.
    `full_scale_a`: ADC full scale of each of the layer's `pieces`. Inputs are signed `input_bits`
    codes at `read_v`, with gates at `wl_v`; `body_v` and `unselected_wl_v` as in a `Multiply`.
    """

    steps: dict[str, Steps]
    full_scale_a: dict[str, tuple[float, ...]]
    input_bits: int = 8
    read_v: float = 0.2
    wl_v: float = 3.0
    body_v: float | None = None
    unselected_wl_v: float | None = None

    @property
    def top(self) -> int:
        """The largest input code."""
        return (1 << (self.input_bits - 1)) - 1

    def steps_of(self, name: str) -> tuple[float, ...]:
        """Input steps of a layer, one for each group of its inputs."""
        try:
            steps = self.steps[name]
        except KeyError:
            raise ConfigError(
                f"layer {name!r} has no input step; calibrated are {', '.join(self.steps)}"
            ) from None
        return steps if isinstance(steps, tuple) else (steps,)

    def encode(self, name: str, values: Float32) -> tuple[Codes, int]:
        """Input codes of a layer, same shape, and how many were clipped. Raises `DataError` for NaN
        or inf.
        """
        steps = self.steps_of(name)
        if len(steps) == 1:
            scaled = values * np.float32(1 / steps[0])
        else:
            channels = np.repeat(1 / np.array(steps), values.shape[1] // len(steps))
            scaled = values * channels.astype(np.float32)[:, None, None]
        np.rint(scaled, out=scaled)
        peak = max(float(scaled.max()), -float(scaled.min())) if scaled.size else 0.0
        if not peak < float("inf"):
            raise DataError(f"layer {name}: its input holds a value that is not finite")
        clipped = 0
        if peak > self.top:
            clipped = int(np.count_nonzero(np.abs(scaled) > self.top))
            np.clip(scaled, -self.top, self.top, out=scaled)
        return scaled.astype(np.int16), clipped

    def decode(self, name: str, codes: Codes) -> Float32:
        """The inputs of a layer that its codes stand for, same shape."""
        values = codes.astype(np.float32)
        steps = np.array(self.steps_of(name), dtype=np.float32)
        if len(steps) == 1:
            values *= steps[0]
        else:
            values *= np.repeat(steps, codes.shape[1] // len(steps))[:, None, None]
        return values

    def to_arrays(self, mapping: Mapping) -> dict[str, NDArray[np.generic]]:
        """Everything as arrays for a run file: `input_step` by layer and group, `input_groups` by
        layer, `full_scale_a` by piece, the numbers that are given.
        """
        names = [layer.name for layer in mapping.layers]
        levels = {"body_v": self.body_v, "unselected_wl_v": self.unselected_wl_v}
        return {
            "input_step": np.concatenate([self.steps_of(name) for name in names]),
            "input_groups": np.array([len(self.steps_of(name)) for name in names]),
            "full_scale_a": np.concatenate([self.full_scale_a[name] for name in names]),
            "input_bits": np.array(self.input_bits),
            "read_v": np.array(self.read_v),
            "wl_v": np.array(self.wl_v),
            **{name: np.array(volts) for name, volts in levels.items() if volts is not None},
        }

    @classmethod
    def from_arrays(cls, mapping: Mapping, arrays: Table[str, NDArray[np.generic]]) -> Encoding:
        """What `to_arrays` gave, for the same mapping. Raises `DataError` where it is of another
        one.
        """
        ones = np.ones(len(mapping.layers), dtype=np.int64)  # files from before there were groups
        groups = np.asarray(arrays.get("input_groups", ones), dtype=np.int64)
        steps = np.asarray(arrays["input_step"], dtype=np.float64)
        scales = np.asarray(arrays["full_scale_a"], dtype=np.float64)
        fits = groups.shape == ones.shape and steps.shape == (groups.sum(),)
        counts = [
            len(layer.pieces(int(g))) for layer, g in zip(mapping.layers, groups, strict=fits)
        ]
        if not fits or scales.shape != (sum(counts),):
            raise DataError(
                "encoding: it is of another mapping (numbers of layers and blocks differ)"
            )
        own = np.split(steps, np.cumsum(groups)[:-1])
        parts = np.split(scales, np.cumsum(counts)[:-1])
        names = [layer.name for layer in mapping.layers]
        return cls(
            {name: _steps(part.tolist()) for name, part in zip(names, own, strict=True)},
            {name: tuple(part.tolist()) for name, part in zip(names, parts, strict=True)},
            int(np.asarray(arrays["input_bits"], dtype=np.int64)),
            float(np.asarray(arrays["read_v"], dtype=np.float64)),
            float(np.asarray(arrays["wl_v"], dtype=np.float64)),
            **{
                name: float(np.asarray(arrays[name], dtype=np.float64))
                for name in ("body_v", "unselected_wl_v")
                if name in arrays
            },
        )


def _steps(steps: list[float]) -> Steps:
    return steps[0] if len(steps) == 1 else tuple(steps)


@dataclass
class Counts:
    """What went through the array: vectors, conversions, ADC codes and input codes that clipped, by
    layer; and the weights that were multiplied by digitally, which were not on the array.
    """

    vectors: dict[str, int] = field(default_factory=dict)
    conversions: dict[str, int] = field(default_factory=dict)
    saturated: dict[str, int] = field(default_factory=dict)
    clipped_inputs: dict[str, int] = field(default_factory=dict)
    emulated: bool = False
    digital: set[str] = field(default_factory=set)

    def add(
        self,
        name: str,
        *,
        vectors: int = 0,
        conversions: int = 0,
        saturated: int = 0,
        clipped: int = 0,
    ) -> None:
        """Add to the counts of one layer."""
        for table, count in (
            (self.vectors, vectors),
            (self.conversions, conversions),
            (self.saturated, saturated),
            (self.clipped_inputs, clipped),
        ):
            table[name] = table.get(name, 0) + count


@dataclass(frozen=True, eq=False)
class Prediction:
    """Logits (images, classes), the class of each image, and what went through the array.

    `emulated` in the counts is True where the bench has no multiply of its own.
    """

    logits: Float32
    counts: Counts

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class with the largest logit, shape (images,)."""
        if self.logits.ndim != 2:
            raise DataError(
                f"the network gives an array of shape {self.logits.shape}, not scores (images,"
                " classes)"
            )
        classes: NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    def accuracy(self, labels: ArrayLike) -> float:
        """Fraction of images whose class is the label."""
        return float(np.mean(self.classes == np.asarray(labels)))


def multiply_layer(
    mapping: Mapping,
    encoding: Encoding,
    name: str,
    codes: Codes,
    *,
    word_step: float | None = None,
    outputs: slice | None = None,
    group: int = 0,
    counts: Counts | None = None,
) -> Generator[Multiply, Any, Float32]:
    """Multiply input codes (vectors, inputs) by a layer: (outputs, vectors) in units of weight
    times input.

    With `word_step` (weight units) the chip's on-chip words of this layer are added. `outputs`
    restricts the work to a run of outputs; of a grouped convolution, the work is that of one
    `group`.
    """
    layer = mapping.layer(name)
    if codes.ndim != 2 or codes.shape[1] != layer.inputs:
        raise DataError(
            f"layer {name}: takes vectors of {layer.inputs} inputs, gets codes of shape"
            f" {codes.shape}"
        )
    steps = encoding.steps_of(name)
    size = layer.outputs // len(steps)
    wanted = outputs or slice(group * size, (group + 1) * size)
    first, last, _ = wanted.indices(layer.outputs)
    result = np.zeros((last - first, len(codes)), dtype=np.float32)
    step = steps[group]
    volts_to_input = step * encoding.top / encoding.read_v
    pieces = layer.pieces(len(steps))
    for piece, full_scale_a in zip(pieces, encoding.full_scale_a[name], strict=True):
        block, start, stop = piece.block, max(first, piece.start), min(last, piece.stop)
        if start >= stop or piece.group != group:
            continue
        offset = start - block.output_start
        signs = block.signs[offset : offset + stop - start].astype(np.float32)
        pair, pairs, at = block.pairs_of(start, stop)
        bytes_a_vector = 6 * block.inputs + 20 * pairs
        for part in _chunks(len(codes), bytes_a_vector):
            operation = Multiply(
                tile=block.tile,
                row=block.row,
                column=block.column + 2 * pair,
                columns=2 * pairs,
                # The codes come unfolded with all vectors of one input together, and stay so.
                inputs=block.driven(codes[part].T).T,
                input_bits=encoding.input_bits,
                read_v=encoding.read_v,
                wl_v=encoding.wl_v,
                full_scale_a=full_scale_a,
                words=word_step is not None,
                label=name,
                body_v=encoding.body_v,
                unselected_wl_v=encoding.unselected_wl_v,
            )
            answer = _multiplied((yield from operation), operation)
            converted = answer.codes.T
            amperes_to_output = volts_to_input * layer.weight_per_s * answer.lsb_a
            scale = signs[:, None] * np.float32(amperes_to_output)
            sums = result[start - first : stop - first, part]
            # Differences of codes are exact in float32, which passes over half the memory.
            difference = (converted[0::2] - converted[1::2])[at].astype(np.float32)
            difference *= scale
            sums += difference
            if word_step is not None:
                assert answer.word_sums is not None
                sums += answer.word_sums.T[0::2][at] * np.float32(step * word_step)
            if counts is not None:
                counts.add(name, conversions=answer.codes.size, saturated=answer.saturated)
                counts.emulated |= answer.emulated
    if counts is not None:
        counts.add(name, vectors=len(codes))
    return result


def _chunks(count: int, bytes_each: int) -> Iterator[slice]:
    size = max(1, CHUNK_BYTES // bytes_each)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _multiplied(answer: Result, operation: Multiply) -> MultiplyResult:
    if not isinstance(answer, MultiplyResult):
        raise DataError(
            f"layer {operation.label}: a multiply was answered by {type(answer).__name__}"
        )
    expected = (len(operation.inputs), operation.columns)
    if answer.codes.shape != expected or (operation.words and answer.word_sums is None):
        raise DataError(
            f"layer {operation.label}: a multiply of shape {expected} was answered with"
            f" {answer.codes.shape}"
        )
    return answer


def multiply_images(
    mapping: Mapping,
    encoding: Encoding,
    name: str,
    codes: Codes,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    word_step: float | None = None,
    counts: Counts | None = None,
) -> Generator[Multiply, Any, Float32]:
    """Convolve input codes (n, channels, h, w) by a layer: (n, outputs, out h, out w), unfolding a
    few images at a time.
    """
    layer = mapping.layer(name)
    n, channels, height, width = codes.shape
    in_group, out_group = channels // groups, layer.outputs // groups
    pixels = (height + 2 * padding[0]) * (width + 2 * padding[1])
    places = -(-pixels // (stride[0] * stride[1]))
    result: Float32 | None = None
    for part in _chunks(n, places * (6 * layer.inputs + 20 * layer.outputs)):
        for group in range(groups):
            taken = codes[part, group * in_group : (group + 1) * in_group]
            rows = unfold(taken, kernel, stride, padding, dilation)
            made = slice(group * out_group, (group + 1) * out_group)
            vectors = rows.reshape(len(rows), -1).T
            values = yield from multiply_layer(
                mapping, encoding, name, vectors, word_step=word_step, group=group, counts=counts
            )
            if result is None:
                result = np.empty((layer.outputs, *rows.shape[1:3], n), dtype=np.float32)
            result[made, ..., part] = values.reshape(out_group, *rows.shape[1:])
    if result is None:
        raise DataError(f"layer {name}: no images")
    return result.transpose(3, 0, 1, 2)


def infer(
    network: Network,
    mapping: Mapping,
    encoding: Encoding,
    images: ArrayLike,
    words: Table[str, LayerWords] | None = None,
    *,
    batch: int = 250,
) -> Generator[Multiply, Any, Prediction]:
    """Classify images (n, channels, h, w) or (n, features) through the array, `batch` images at a
    time.

    `words` (already on the chip: see `mapping.word_operation`) are multiplied along, their
    adapters beside the chip, and their biases replace the network's. Yields `Multiply` operations
    only. Raises `DataError` where images, network and mapping do not fit each other.
    """
    pictures = as_input(images)
    if len(pictures) == 0:
        raise DataError("inference: no images")
    for name in network.matrices:
        mapping.layer(name)  # a network in a recipe is on the array as a whole
    network, counts, logits = _with_words(network, words), Counts(), []
    for part in parts_of(network, pictures, batch):
        made = yield from _compute(network, mapping, encoding, (part,), words or {}, counts)
        logits.append(made)
    return Prediction(joined(logits, len(pictures)), counts)


def compute(
    network: Network,
    mapping: Mapping,
    encoding: Encoding,
    inputs: Sequence[ArrayLike],
    words: Table[str, LayerWords] | None = None,
    counts: Counts | None = None,
) -> Generator[Multiply, Any, Any]:
    """What a network gives for `inputs` as a whole, every product of a mapped weight made on the
    array; see `infer`. Weights that are not mapped are multiplied by digitally, and counted so.
    """
    counts = Counts() if counts is None else counts
    network = _with_words(network, words)
    return (yield from _compute(network, mapping, encoding, inputs, words or {}, counts))


def _with_words(network: Network, words: Table[str, LayerWords] | None) -> Network:
    """The network with the biases that were trained with the words."""
    biases = {name: w.biases for name, w in (words or {}).items() if w.bias_values.size}
    return network.with_biases(biases) if biases else network


def _compute(
    network: Network,
    mapping: Mapping,
    encoding: Encoding,
    inputs: Sequence[ArrayLike],
    words: Table[str, LayerWords],
    counts: Counts,
) -> Generator[Multiply, Any, Any]:
    for name, shape in network.matrices.items():
        if name in mapping.names and mapping.layer(name).shape != shape:
            raise DataError(
                f"layer {name}: weight {shape}, on the array {mapping.layer(name).shape}"
            )
    for name in words:
        mapping.layer(name)  # words beside weights that are not on the array would be left out
    walk = propagate(network, *inputs)
    try:
        layer, values = next(walk)
        while True:
            name = layer.weight_name
            if name in mapping.names:
                own = words.get(name)
                sums = yield from multiply_values(mapping, encoding, layer, values, own, counts)
                sums = _scaled(layer, sums, own)
            else:
                counts.digital.add(name)
                sums = product(layer, network.weights[name], values)
            layer, values = walk.send(sums)
    except StopIteration as done:
        return done.value


def multiply_values(
    mapping: Mapping,
    encoding: Encoding,
    layer: Weighted,
    values: Float32,
    words: LayerWords | None,
    counts: Counts,
) -> Generator[Multiply, Any, Float32]:
    """The product of one layer of a `Network` with its float input, of array, on-chip words and
    adapter: without bias and digital scales, in the shape that `propagate` asks for.
    """
    name = layer.weight_name
    codes, clipped = encoding.encode(name, values)
    counts.add(name, clipped=clipped)
    sums = yield from _through_array(mapping, encoding, layer, codes, _word_step(words), counts)
    if words is not None and words.adapter is not None:
        # One dense product is as fast here as two thin ones.
        sums += product(layer, words.adapter.matrix, encoding.decode(name, codes))
    return sums


def _through_array(
    mapping: Mapping,
    encoding: Encoding,
    layer: Weighted,
    codes: Codes,
    word_step: float | None,
    counts: Counts,
) -> Generator[Multiply, Any, Float32]:
    """What array and on-chip words make of one layer's input codes."""
    name = layer.weight_name
    if isinstance(layer, Linear):
        sums = yield from multiply_layer(
            mapping, encoding, name, codes, word_step=word_step, outputs=layer.taken, counts=counts
        )
        return sums.T
    return (
        yield from multiply_images(
            mapping,
            encoding,
            name,
            codes,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            word_step=word_step,
            counts=counts,
        )
    )


def _scaled(layer: Weighted, sums: Float32, words: LayerWords | None) -> Float32:
    """Outputs of a layer, shape (..., outputs) or (n, outputs, height, width), by their digital
    scales.
    """
    scales = None if words is None else words.scales
    if scales is None:
        return sums
    if isinstance(layer, Linear):
        return sums * scales[layer.taken]
    return sums * scales[:, None, None]


def _word_step(words: LayerWords | None) -> float | None:
    return words.step if words is not None and words.values.size else None


def multiply_from_map(
    operation: Multiply,
    conductance_s: NDArray[np.floating],
    adc_bits: int = 12,
    words: NDArray[np.int32] | None = None,
) -> MultiplyResult:
    """Answer a `Multiply` from a conductance map (S) and a map of on-chip words, both of shape
    `geometry.shape`.

    An ADC code is the column current over full scale / (2**(adc_bits - 1) - 1), rounded and
    clipped: no noise, no wires.
    """
    place = _place(operation)
    matrix = _codes_of_inputs(operation, conductance_s[place], adc_bits)
    return _multiply_codes(operation, matrix, adc_bits, None if words is None else words[place])


def _place(operation: Multiply) -> tuple[int, slice, slice]:
    """Index of the cells of a multiply into a map of the chip."""
    return (
        operation.tile,
        slice(operation.row, operation.row + operation.rows),
        slice(operation.column, operation.column + operation.columns),
    )


def _codes_of_inputs(
    operation: Multiply, block_s: NDArray[np.floating], adc_bits: int
) -> NDArray[np.float32]:
    """The matrix (columns, rows) that makes ADC codes, not yet rounded, of input codes."""
    if not np.isfinite(block_s).all():
        raise DataError(
            f"multiply on tile {operation.tile}: the conductance map has gaps there; fill them"
            " first"
        )
    top_in, top_out = (1 << (operation.input_bits - 1)) - 1, (1 << (adc_bits - 1)) - 1
    lsb_a = operation.full_scale_a / top_out
    return (block_s.T * (operation.read_v / top_in / lsb_a)).astype(np.float32)


def _multiply_codes(
    operation: Multiply,
    matrix: NDArray[np.float32],
    adc_bits: int,
    words: NDArray[np.int32] | None,
) -> MultiplyResult:
    top_in, top_out = (1 << (operation.input_bits - 1)) - 1, (1 << (adc_bits - 1)) - 1
    # The codes come unfolded with all vectors of one row together: kept so, neither product needs a
    # transposed copy.
    inputs = operation.inputs.T
    codes = np.empty((operation.columns, inputs.shape[1]), dtype=np.int32)
    saturated = 0
    # A few vectors at a time in memory used again, so that all of it stays in the cache.
    width = max(64, _CACHED_VALUES // operation.rows)
    x = np.empty((operation.rows, min(width, inputs.shape[1])), dtype=np.float32)
    y = np.empty((operation.columns, x.shape[1]), dtype=np.float32)
    for start in range(0, inputs.shape[1], width):
        part = inputs[:, start : start + width]
        values = x[:, : part.shape[1]]
        np.copyto(values, part)
        levels = np.matmul(matrix, values, out=y[:, : part.shape[1]])
        np.rint(levels, out=levels)
        if levels.size and max(float(levels.max()), -float(levels.min())) > top_out:
            saturated += int(np.count_nonzero(np.abs(levels) > top_out))
            np.clip(levels, -top_out, top_out, out=levels)
        codes[:, start : start + width] = levels
    sums: NDArray[np.int64] | None = None
    if operation.words:
        if words is None:
            sums = np.zeros((len(operation.inputs), operation.columns), dtype=np.int64)
        else:
            sums = _word_sums(words, inputs.astype(np.float32), top_in)
    return MultiplyResult(codes.T, operation.full_scale_a / top_out, sums, saturated)


def _word_sums(words: NDArray[np.int32], inputs: Float32, top_in: int) -> NDArray[np.int64]:
    """Exact sums of input code x word, (vectors, columns), through the floating type that holds
    them exactly.
    """
    largest = int(np.abs(words).sum(axis=0).max()) * top_in if words.size else 0
    exact = np.float32 if largest < 1 << 24 else np.float64
    sums = words.T.astype(exact) @ inputs.astype(exact, copy=False)
    return np.asarray(sums, dtype=np.int64).T


class StoredMap:
    """Answers `Multiply` and `WriteWords` from a stored conductance map, as a chip without noise
    and wires would.
    """

    def __init__(self, conductance_s: ArrayLike, adc_bits: int = 12) -> None:
        self._conductance_s = np.asarray(conductance_s, dtype=np.float64)
        self._adc_bits = adc_bits
        self._words = np.zeros(self._conductance_s.shape, dtype=np.int32)
        self._matrices: dict[tuple[object, ...], NDArray[np.float32]] = {}

    def _multiply(self, operation: Multiply) -> MultiplyResult:
        place = _place(operation)
        # The same blocks come again for every few vectors.
        where = (operation.tile, operation.row, operation.rows, operation.column, operation.columns)
        key = (*where, operation.input_bits, operation.read_v, operation.full_scale_a)
        matrix = self._matrices.get(key)
        if matrix is None:
            matrix = _codes_of_inputs(operation, self._conductance_s[place], self._adc_bits)
            self._matrices[key] = matrix
        return _multiply_codes(operation, matrix, self._adc_bits, self._words[place])

    def __call__(self, operation: Operation) -> Result:
        """The result of one operation. Raises `ConfigError` for any other kind."""
        if isinstance(operation, Multiply):
            return self._multiply(operation)
        if isinstance(operation, WriteWords):
            if operation.clear:
                self._words[:] = 0
            cells = operation.cells
            self._words[cells.tile, cells.row, cells.column] = operation.values
            return WordsResult(len(cells))
        raise ConfigError(
            f"a stored map answers Multiply and WriteWords, not {type(operation).__name__}"
        )


def input_step(values: Float32, input_bits: int, percentile: float = 100.0) -> float:
    """The value of one input code, so that `percentile` % of |values| are within the codes."""
    magnitude = np.abs(values)
    if not magnitude.size:
        return 1.0
    peak = float(magnitude.max() if percentile >= 100 else np.percentile(magnitude, percentile))
    return (peak or float(magnitude.max()) or 1.0) / ((1 << (input_bits - 1)) - 1)


def calibrate_inputs(
    network: Network, images: ArrayLike, input_bits: int = 8, percentile: float = 100.0
) -> dict[str, Steps]:
    """Input step of every layer, from what its inputs are for `images` (training data) in floating
    point.
    """
    return _input_steps(network, (_some(images),), input_bits, percentile)


def _input_steps(
    network: Network, inputs: Sequence[ArrayLike], input_bits: int, percentile: float
) -> dict[str, Steps]:
    """The largest step that any use of each weight asks for, group by group."""
    steps: dict[str, NDArray[np.float64]] = {}

    def multiply(layer: Weighted, values: Float32) -> Float32:
        name = layer.weight_name
        parts = np.split(values, layer.groups, axis=1) if layer.groups > 1 else [values]
        found = np.array([input_step(part, input_bits, percentile) for part in parts])
        steps[name] = np.maximum(found, steps.get(name, found))
        return product(layer, network.weights[name], values)

    drive(propagate(network, *inputs), lambda asked: multiply(*asked))
    return {name: _steps(found.tolist()) for name, found in steps.items()}


def effective_network(
    network: Network,
    mapping: Mapping,
    map_s: ArrayLike,
    words: Table[str, LayerWords] | None = None,
    missing: Missing = "target",
) -> Network:
    """The network that an array with conductances `map_s` (S) and on-chip `words` really is, biases
    included.
    """
    held = network.with_weights(
        {
            name: weight
            for name, weight in mapping.effective_weights(map_s, missing, words).items()
            if name in network.weights
        }
    )
    return _with_words(held, words)


class CalibrationOptions(TypedDict, total=False):
    """How `calibrate` looks at an array; `calibrate_on` has the defaults."""

    map_s: ArrayLike | None
    words: Table[str, LayerWords] | None
    missing: Missing
    input_bits: int
    input_percentile: float
    read_v: float
    wl_v: float
    margin: float
    body_v: float | None
    unselected_wl_v: float | None


def calibrate(
    network: Network,
    mapping: Mapping,
    images: ArrayLike,
    **options: Unpack[CalibrationOptions],
) -> Encoding:
    """Input steps and ADC full scales from training `images`, as `calibrate_on` finds them."""
    return calibrate_on(network, mapping, (_some(images),), **options)


def calibrate_on(
    network: Network,
    mapping: Mapping,
    inputs: Sequence[ArrayLike],
    *,
    map_s: ArrayLike | None = None,
    words: Table[str, LayerWords] | None = None,
    missing: Missing = "target",
    input_bits: int = 8,
    input_percentile: float = 100.0,
    read_v: float = 0.2,
    wl_v: float = 3.0,
    margin: float = 1.25,
    body_v: float | None = None,
    unselected_wl_v: float | None = None,
) -> Encoding:
    """Input steps and ADC full scales from training `inputs`, an array for each input of the
    network, walked through the array as `map_s` and `words` say it is.

    `map_s` is a measured map (S), by default the targets; `missing` is for its gaps, see
    `Mapping.fill`. The full scale of a block, or of a group's part of it, is the largest column
    current that its inputs cause, times `margin`. Weights that are not mapped are left out.
    """
    if any(np.size(given) == 0 for given in inputs):
        raise DataError("calibration: no images")
    filled, _ = mapping.fill(mapping.target_map_s if map_s is None else map_s, missing)
    held = effective_network(network, mapping, filled, words)
    every = _input_steps(held, inputs, input_bits, input_percentile)
    steps = {name: step for name, step in every.items() if name in mapping.names}
    encoding = Encoding(steps, {}, input_bits, read_v, wl_v, body_v, unselected_wl_v)
    scales: dict[str, NDArray[np.float64]] = {}

    def multiply(layer: Weighted, values: Float32) -> Float32:
        name = layer.weight_name
        if name in steps:
            codes, _ = encoding.encode(name, values)
            found = _full_scales(layer, mapping.layer(name), filled, codes, encoding, margin)
            scales[name] = np.maximum(found, scales.get(name, found))
        return product(layer, held.weights[name], values)

    drive(propagate(held, *inputs), lambda asked: multiply(*asked))
    found = {name: tuple(scale.tolist()) for name, scale in scales.items()}
    return replace(encoding, full_scale_a=found)


def _full_scales(
    layer: Weighted,
    on_array: LayerMap,
    conductance_s: FloatArray,
    codes: Codes,
    encoding: Encoding,
    margin: float,
) -> NDArray[np.float64]:
    """ADC full scale of each piece of a layer: its largest column current, times `margin`.

    At least 1 nA, so that a piece whose inputs are all zero has one.
    """
    pieces = on_array.pieces(layer.groups)
    peaks = np.zeros(len(pieces))
    matrices = [conductance_s[p.block.place].astype(np.float32).T for p in pieces]
    for group, vectors in _vectors(layer, codes):
        inputs = vectors.astype(np.float32)
        for k, (piece, matrix) in enumerate(zip(pieces, matrices, strict=True)):
            if piece.group != group:
                continue
            pair, pairs, _ = piece.block.pairs_of(piece.start, piece.stop)
            currents = matrix[2 * pair : 2 * (pair + pairs)] @ piece.block.driven(inputs)
            peaks[k] = max(peaks[k], float(np.abs(currents).max(initial=0)))
    volts = encoding.read_v / encoding.top
    return np.maximum(peaks * volts * margin, 1e-9)


def _vectors(layer: Weighted, codes: Codes) -> Iterator[tuple[int, Codes]]:
    """The vectors that a layer's input codes become, (inputs, vectors), a few images at a time,
    with the group that they are of.
    """
    if isinstance(layer, Linear):
        yield 0, codes.T
        return
    size = layer.inputs // layer.groups
    for start in range(0, len(codes), 16):
        for group in range(layer.groups):
            taken = codes[start : start + 16, group * size : (group + 1) * size]
            rows = unfold(taken, layer.kernel, layer.stride, layer.padding, layer.dilation)
            yield group, rows.reshape(len(rows), -1)


def _some(images: ArrayLike) -> Float32:
    values = as_input(images)
    if len(values) == 0:
        raise DataError("calibration: no images")
    return values
