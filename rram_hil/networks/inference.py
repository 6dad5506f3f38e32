"""Inference through the array: inputs to codes, codes through `Multiply` operations, ADC codes back
to weight units.

`infer` is a generator: whoever answers its operations decides whether a network runs on the chip (a
bench) or on a stored conductance map (`StoredMap`); all else is the same. With x = input code x
input step, V = input code / top x `read_v` and weight = (G+ - G-) x `weight_per_s`, an output is

    input step x top / read_v x weight_per_s x (I+ - I-)  +  input step x word step x word sum  +
    bias
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.array import Multiply, MultiplyResult, Operation, Result, WordsResult, WriteWords
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.mapping import LayerMap, LayerWords, Mapping, Missing
from rram_hil.networks.network import (
    Float32,
    Linear,
    Network,
    Weighted,
    product,
    propagate,
    run,
    unfold,
)
from rram_hil.types import FloatArray

Codes = NDArray[np.int16]

CHUNK_BYTES = 8 << 20
"""Largest size of one `Multiply` with its result, so that it stays near the processor's caches and
small on a link.
"""
_CACHED_VALUES = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """How vectors enter the array and how its currents are converted.

    `steps`: the value of one input code, by layer. `full_scale_a`: ADC full scale of each block of
    a layer, in the order of the mapping. Inputs are signed `input_bits` codes at `read_v`, with
    gates at `wl_v`.
    """

    steps: dict[str, float]
    full_scale_a: dict[str, tuple[float, ...]]
    input_bits: int = 8
    read_v: float = 0.2
    wl_v: float = 3.0

    @property
    def top(self) -> int:
        """The largest input code."""
        return (1 << (self.input_bits - 1)) - 1

    def encode(self, name: str, values: Float32) -> tuple[Codes, int]:
        """Input codes of a layer, same shape, and how many were clipped. Raises `DataError` for NaN
        or inf.
        """
        try:
            step = self.steps[name]
        except KeyError:
            raise ConfigError(
                f"layer {name!r} has no input step; calibrated are {', '.join(self.steps)}"
            ) from None
        scaled = values * np.float32(1 / step)
        np.rint(scaled, out=scaled)
        peak = max(float(scaled.max()), -float(scaled.min())) if scaled.size else 0.0
        if not peak < float("inf"):
            raise DataError(f"layer {name}: its input holds a value that is not finite")
        clipped = 0
        if peak > self.top:
            clipped = int(np.count_nonzero(np.abs(scaled) > self.top))
            np.clip(scaled, -self.top, self.top, out=scaled)
        return scaled.astype(np.int16), clipped

    def to_arrays(self, mapping: Mapping) -> dict[str, NDArray[np.generic]]:
        """Everything as arrays for a run file: `input_step` by layer, `full_scale_a` by block, the
        three numbers.
        """
        return {
            "input_step": np.array([self.steps[layer.name] for layer in mapping.layers]),
            "full_scale_a": np.concatenate(
                [self.full_scale_a[layer.name] for layer in mapping.layers]
            ),
            "input_bits": np.array(self.input_bits),
            "read_v": np.array(self.read_v),
            "wl_v": np.array(self.wl_v),
        }

    @classmethod
    def from_arrays(cls, mapping: Mapping, arrays: Table[str, NDArray[np.generic]]) -> Encoding:
        """What `to_arrays` gave, for the same mapping. Raises `DataError` where it is of another
        one.
        """
        counts = [len(layer.blocks) for layer in mapping.layers]
        steps = np.asarray(arrays["input_step"], dtype=np.float64)
        scales = np.asarray(arrays["full_scale_a"], dtype=np.float64)
        if steps.shape != (len(counts),) or scales.shape != (sum(counts),):
            raise DataError(
                "encoding: it is of another mapping (numbers of layers and blocks differ)"
            )
        parts = np.split(scales, np.cumsum(counts)[:-1])
        names = [layer.name for layer in mapping.layers]
        return cls(
            dict(zip(names, steps.tolist(), strict=True)),
            {name: tuple(part.tolist()) for name, part in zip(names, parts, strict=True)},
            int(np.asarray(arrays["input_bits"], dtype=np.int64)),
            float(np.asarray(arrays["read_v"], dtype=np.float64)),
            float(np.asarray(arrays["wl_v"], dtype=np.float64)),
        )


@dataclass
class Counts:
    """What went through the array: vectors, conversions, ADC codes and input codes that clipped, by
    layer.
    """

    vectors: dict[str, int] = field(default_factory=dict)
    conversions: dict[str, int] = field(default_factory=dict)
    saturated: dict[str, int] = field(default_factory=dict)
    clipped_inputs: dict[str, int] = field(default_factory=dict)
    emulated: bool = False

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
    counts: Counts | None = None,
) -> Generator[Multiply, Any, Float32]:
    """Multiply input codes (vectors, inputs) by a layer: (outputs, vectors) in units of weight
    times input.

    With `word_step` (weight units) the chip's on-chip words of this layer are added. `outputs`
    restricts the work to a run of outputs (a group of a grouped convolution).
    """
    layer = mapping.layer(name)
    if codes.ndim != 2 or codes.shape[1] != layer.inputs:
        raise DataError(
            f"layer {name}: takes vectors of {layer.inputs} inputs, gets codes of shape"
            f" {codes.shape}"
        )
    first, last, _ = (outputs or slice(None)).indices(layer.outputs)
    result = np.zeros((last - first, len(codes)), dtype=np.float32)
    step = encoding.steps[name]
    volts_to_input = step * encoding.top / encoding.read_v
    for block, full_scale_a in zip(layer.blocks, encoding.full_scale_a[name], strict=True):
        start, stop = max(first, block.output_start), min(last, block.output_slice.stop)
        if start >= stop:
            continue
        offset = start - block.output_start
        signs = block.signs[offset : offset + stop - start].astype(np.float32)
        bytes_a_vector = 6 * block.inputs + 20 * (stop - start)
        for part in _chunks(len(codes), bytes_a_vector):
            operation = Multiply(
                tile=block.tile,
                row=block.row,
                column=block.column + 2 * offset,
                columns=2 * (stop - start),
                inputs=codes[part, block.input_slice],
                input_bits=encoding.input_bits,
                read_v=encoding.read_v,
                wl_v=encoding.wl_v,
                full_scale_a=full_scale_a,
                words=word_step is not None,
                label=name,
            )
            answer = _multiplied((yield from operation), operation)
            converted = answer.codes.T
            amperes_to_output = volts_to_input * layer.weight_per_s * answer.lsb_a
            scale = signs[:, None] * np.float32(amperes_to_output)
            sums = result[start - first : stop - first, part]
            # Differences of codes are exact in float32, which passes over half the memory.
            difference = (converted[0::2] - converted[1::2]).astype(np.float32)
            difference *= scale
            sums += difference
            if word_step is not None:
                assert answer.word_sums is not None
                sums += answer.word_sums.T[0::2] * np.float32(step * word_step)
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
    places = (height + 2 * padding[0]) * (width + 2 * padding[1]) // (stride[0] * stride[1])
    result: Float32 | None = None
    for part in _chunks(n, places * (6 * layer.inputs + 20 * layer.outputs)):
        for group in range(groups):
            taken = codes[part, group * in_group : (group + 1) * in_group]
            rows = unfold(taken, kernel, stride, padding, dilation)
            made = slice(group * out_group, (group + 1) * out_group)
            vectors = rows.reshape(len(rows), -1).T
            values = yield from multiply_layer(
                mapping, encoding, name, vectors, word_step=word_step, outputs=made, counts=counts
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

    `words` (already on the chip: see `mapping.word_operation`) are multiplied along and their
    biases replace the network's. Yields `Multiply` operations only. Raises `DataError` where
    images, network and mapping do not fit each other.
    """
    pictures = np.asarray(images, dtype=np.float32)
    if len(pictures) == 0:
        raise DataError("inference: no images")
    for layer in network.weighted:
        if mapping.layer(layer.name).shape != layer.weight_shape:
            raise DataError(
                f"layer {layer.name}: weight {layer.weight_shape}, on the array"
                f" {mapping.layer(layer.name).shape}"
            )
    words = words or {}
    network = network.with_biases(
        {name: w.biases for name, w in words.items() if w.bias_values.size}
    )
    counts = Counts()
    logits = []
    for start in range(0, len(pictures), batch):
        walk = propagate(network, pictures[start : start + batch])
        try:
            layer, values = next(walk)
            while True:
                sums = yield from _multiply(
                    mapping, encoding, layer, values, _word_step(words.get(layer.name)), counts
                )
                layer, values = walk.send(sums)
        except StopIteration as done:
            logits.append(done.value)
    return Prediction(np.concatenate(logits), counts)


def _multiply(
    mapping: Mapping,
    encoding: Encoding,
    layer: Weighted,
    values: Float32,
    word_step: float | None,
    counts: Counts,
) -> Generator[Multiply, Any, Float32]:
    """The product of one layer of a `Network` with its float input, through the array."""
    codes, clipped = encoding.encode(layer.name, values)
    counts.add(layer.name, clipped=clipped)
    if isinstance(layer, Linear):
        sums = yield from multiply_layer(
            mapping, encoding, layer.name, codes, word_step=word_step, counts=counts
        )
        return sums.T
    return (
        yield from multiply_images(
            mapping,
            encoding,
            layer.name,
            codes,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            word_step=word_step,
            counts=counts,
        )
    )


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
    place = (
        operation.tile,
        slice(operation.row, operation.row + operation.rows),
        slice(operation.column, operation.column + operation.columns),
    )
    top_in, top_out = (1 << (operation.input_bits - 1)) - 1, (1 << (adc_bits - 1)) - 1
    lsb_a = operation.full_scale_a / top_out
    block = conductance_s[place]
    if not np.isfinite(block).all():
        raise DataError(
            f"multiply on tile {operation.tile}: the conductance map has gaps there; fill them"
            " first"
        )
    matrix = (block.T * (operation.read_v / top_in / lsb_a)).astype(np.float32)
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
            sums = _word_sums(words[place], inputs.astype(np.float32), top_in)
    return MultiplyResult(codes.T, lsb_a, sums, saturated)


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

    def __call__(self, operation: Operation) -> Result:
        """The result of one operation. Raises `ConfigError` for any other kind."""
        if isinstance(operation, Multiply):
            return multiply_from_map(operation, self._conductance_s, self._adc_bits, self._words)
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
    peak = float(magnitude.max() if percentile >= 100 else np.percentile(magnitude, percentile))
    return (peak or float(magnitude.max()) or 1.0) / ((1 << (input_bits - 1)) - 1)


def calibrate_inputs(
    network: Network, images: ArrayLike, input_bits: int = 8, percentile: float = 100.0
) -> dict[str, float]:
    """Input step of every layer, from what its inputs are for `images` (training data) in floating
    point.
    """
    steps: dict[str, float] = {}

    def multiply(layer: Weighted, values: Float32) -> Float32:
        steps[layer.name] = input_step(values, input_bits, percentile)
        return product(layer, network.weights[layer.name], values)

    run(network, _some(images), multiply)
    return steps


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
    held = network.with_weights(mapping.effective_weights(map_s, missing, words))
    return held.with_biases(
        {name: w.biases for name, w in (words or {}).items() if w.bias_values.size}
    )


def calibrate(
    network: Network,
    mapping: Mapping,
    images: ArrayLike,
    *,
    map_s: ArrayLike | None = None,
    words: Table[str, LayerWords] | None = None,
    missing: Missing = "target",
    input_bits: int = 8,
    input_percentile: float = 100.0,
    read_v: float = 0.2,
    wl_v: float = 3.0,
    margin: float = 1.25,
) -> Encoding:
    """Input steps and ADC full scales from training `images`, walked through the array as `map_s`
    and `words` say it is.

    `map_s` is a measured map (S), by default the targets; `missing` is for its gaps, see
    `Mapping.fill`. A block's full scale is the largest column current that its inputs cause, times
    `margin`.
    """
    filled, _ = mapping.fill(mapping.target_map_s if map_s is None else map_s, missing)
    held = effective_network(network, mapping, filled, words)
    steps: dict[str, float] = {}
    scales: dict[str, tuple[float, ...]] = {}

    def multiply(layer: Weighted, values: Float32) -> Float32:
        name = layer.name
        steps[name] = input_step(values, input_bits, input_percentile)
        codes, _ = Encoding(steps, {}, input_bits, read_v, wl_v).encode(name, values)
        scales[name] = full_scales(
            mapping.layer(name), filled, _vectors(layer, codes), input_bits, read_v, margin
        )
        return product(layer, held.weights[name], values)

    run(held, _some(images), multiply)
    return Encoding(steps, scales, input_bits, read_v, wl_v)


def _vectors(layer: Weighted, codes: Codes) -> Iterator[Codes]:
    """The vectors that a layer's input codes become, (vectors, inputs), a few images at a time."""
    if isinstance(layer, Linear):
        yield codes
        return
    for start in range(0, len(codes), 16):
        rows = unfold(codes[start : start + 16], layer.kernel, layer.stride, layer.padding)
        yield rows.reshape(len(rows), -1).T


def _some(images: ArrayLike) -> Float32:
    values = np.asarray(images, dtype=np.float32)
    if len(values) == 0:
        raise DataError("calibration: no images")
    return values


def full_scales(
    layer: LayerMap,
    conductance_s: FloatArray,
    vectors: Iterator[Codes],
    input_bits: int,
    read_v: float,
    margin: float = 1.25,
) -> tuple[float, ...]:
    """ADC full scale of each block: its largest column current over batches of codes (vectors,
    inputs), times `margin`.

    At least 1 nA, so that a block whose inputs are all zero has one.
    """
    volts = read_v / ((1 << (input_bits - 1)) - 1)
    peaks = np.zeros(len(layer.blocks))
    matrices = [conductance_s[block.place].astype(np.float32).T for block in layer.blocks]
    for codes in vectors:
        inputs = codes.T.astype(np.float32)
        for b, block in enumerate(layer.blocks):
            currents = matrices[b] @ inputs[block.input_slice]
            peaks[b] = max(peaks[b], float(np.abs(currents).max()) * volts)
    return tuple(float(max(peak * margin, 1e-9)) for peak in peaks)
