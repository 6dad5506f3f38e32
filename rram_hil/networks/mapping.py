"""Where the weights of a network go on the array, and which weights an array with given
conductances holds.

Each weight is a differential pair of cells in adjacent columns: with plus cell G+ at column 2j of
its block and minus cell G- at column 2j + 1, weight = sign x (G+ - G-) x `weight_per_s`. Rows are
inputs (of a convolution: channel, kernel row, kernel column), column pairs are outputs. A matrix
that is larger than a tile is cut into blocks; the parts that share outputs are summed digitally.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from rram_hil.array import Block as Rectangle
from rram_hil.array import Cells, Geometry, WriteWords
from rram_hil.array.coded_read import PILOTS, code_order
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.adapters import Adapter
from rram_hil.networks.fault_mapping import Number, Order, Window, permuted, swapped
from rram_hil.networks.network import Float32, finite_tensor
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import (
    NotNegativeSiemens,
    Positive,
    PositiveSiemens,
    StrictModel,
)

CELLS_A_VECTOR = 10
"""A vector of a multiply takes about as long as so many cells take on the link (2 us, 10 MB/s)."""
SCALE_RANGE = 0.5
"""A digital scale can change an output by so much: errors of many weights hardly change more."""
Missing = Literal["target", "zero", "refuse"]
"""What stands in for a reading that is not a number: the cell's target, no conductance, or a
`DataError`.
"""
Faults = Literal["none", "partner", "flip", "permute"]
"""What is done about cells known to be stuck; see `MappingOptions`."""


class MappingOptions(StrictModel):
    """How weights become conductances.

    `levels` evenly spaced conductances from `g_min_s` to `g_max_s` (0: any conductance between
    them). A layer's weights are clipped at its `clips` entry or else at `clip`: "max" (its largest
    |weight|), "percentile" (the `percentile` of its |weights|), "rms" (`rms` times their root mean
    square, at most the largest) or a number in weight units; the clip maps to a difference of
    `g_max_s` - `g_min_s`. `tiles`: the tiles that may be used, all of them by default. `faults`
    says what is done about cells known to be stuck: "none"; "partner" gives the other cell of the
    pair the conductance that makes the best difference; "flip" also swaps the parts of plus and
    minus cell for whole columns of a block where that lowers the error; "permute" also puts the
    inputs of a block on other rows of it, and its outputs on other pairs of columns.

    The default window lies within the high state (about 100 kohm) and a SET at moderate gate (about
    134 uS) of the RADAR chips.
    """

    g_min_s: NotNegativeSiemens = 10e-6
    g_max_s: PositiveSiemens = 120e-6
    levels: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    clip: Literal["max", "percentile", "rms"] | Positive = "max"
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.9
    rms: Positive = 2.0
    clips: dict[str, Positive] = Field(default_factory=dict)
    tiles: list[Annotated[int, Field(ge=0)]] | None = None
    faults: Faults = "none"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.g_min_s < self.g_max_s:
            raise ValueError("g_min_s must be below g_max_s")
        if self.levels == 1:
            raise ValueError("levels must be 0 (any conductance) or at least 2")
        if self.tiles is not None and (not self.tiles or len(set(self.tiles)) < len(self.tiles)):
            raise ValueError("tiles must name at least one tile, each once")
        return self


@dataclass(frozen=True, eq=False)
class Block:
    """A rectangle of one tile that holds a rectangle of one layer's (out, in) matrix.

    Rows `row` .. hold inputs `input_start` .. of `inputs`; columns `column` .. hold `outputs` pairs
    from `output_start` on. `order` says which input is on which of the rows, which output on which
    of the pairs, and for which outputs plus and minus cell are swapped.
    """

    tile: int
    row: int
    column: int
    input_start: int
    inputs: int
    output_start: int
    outputs: int
    order: Order

    @property
    def signs(self) -> NDArray[np.int8]:
        """For each output 1 or, where plus and minus cell are swapped, -1."""
        return self.order.signs

    @property
    def input_slice(self) -> slice:
        """Inputs of the layer that this block holds."""
        return slice(self.input_start, self.input_start + self.inputs)

    @property
    def output_slice(self) -> slice:
        """Outputs of the layer that this block holds."""
        return slice(self.output_start, self.output_start + self.outputs)

    @property
    def place(self) -> tuple[int, slice, slice]:
        """Index of the block's cells into a map of the chip."""
        return (
            self.tile,
            slice(self.row, self.row + self.inputs),
            slice(self.column, self.column + 2 * self.outputs),
        )

    def driven(self, inputs: NDArray[Number]) -> NDArray[Number]:
        """What the block's rows get of the layer's `inputs`, (inputs, ...) to (rows, ...)."""
        own = inputs[self.input_slice]
        return own if self.order.rows_as_they_come else own[self.order.inputs]

    def pairs_of(self, start: int, stop: int) -> tuple[int, int, slice | IntArray]:
        """Where the layer's outputs `start` to `stop`, which are the block's, are: the first of the
        run of pairs that holds them all, how many pairs that has, and where each output is in it.
        """
        own = slice(start - self.output_start, stop - self.output_start)
        if self.order.pairs_as_they_come:
            return own.start, stop - start, slice(None)
        at = self.order.pairs[own]
        first = int(at.min())
        return first, int(at.max()) + 1 - first, at - first


@dataclass(frozen=True, eq=False)
class Piece:
    """Outputs `start` to `stop` of a layer in a block: those of one group of its inputs."""

    block: Block
    group: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class LayerMap:
    """One layer on the array: the shape of its weight, weight units per siemens, the clip in weight
    units, its blocks.
    """

    name: str
    shape: tuple[int, ...]
    weight_per_s: float
    clip: float
    blocks: tuple[Block, ...]

    @property
    def outputs(self) -> int:
        """Rows of the (out, in) weight matrix."""
        return self.shape[0]

    @property
    def inputs(self) -> int:
        """Columns of the (out, in) weight matrix."""
        return math.prod(self.shape[1:])

    def pieces(self, groups: int = 1) -> tuple[Piece, ...]:
        """The parts of the blocks that work together: a block each or, of a grouped convolution,
        what each group has in each block, group by group.
        """
        size = self.outputs // groups
        found = []
        for group in range(groups):
            for block in self.blocks:
                start = max(group * size, block.output_start)
                stop = min((group + 1) * size, block.output_slice.stop)
                if start < stop:
                    found.append(Piece(block, group, start, stop))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class LayerWords:
    """On-chip words of one layer: word i adds `values[i]` x `step` to the weight at flat index
    `indices[i]` of (out, in). What an `adapter` makes of the input is added as well.

    The layer's biases, which are digital too, become `bias_values` x `bias_step`; none where the
    layer has no bias. What array, words and adapter give each output together, before the bias, is
    multiplied by 1 + `scale_values` x `scale_step`; nothing is multiplied where there are none.
    """

    indices: IntArray
    values: NDArray[np.int32]
    step: float
    bias_values: NDArray[np.int32]
    bias_step: float
    scale_values: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    scale_step: float = 0.0
    adapter: Adapter | None = None

    @property
    def count(self) -> int:
        """Words, and values of the adapter."""
        return self.values.size + (0 if self.adapter is None else self.adapter.size)

    @property
    def biases(self) -> Float32:
        """The layer's biases."""
        return (self.bias_values * self.bias_step).astype(np.float32)

    @property
    def scales(self) -> Float32 | None:
        """What each output is multiplied by, shape (outputs,); none where nothing is."""
        if self.scale_values.size == 0:
            return None
        return (1.0 + self.scale_values * self.scale_step).astype(np.float32)

    @property
    def digital(self) -> int:
        """Digital parameters that were trained beside the words."""
        return self.bias_values.size + self.scale_values.size

    def add_to(self, matrix: Float32) -> None:
        """Make of an array's (out, in) matrix, in place, what array, words, adapter and scales are
        together.
        """
        places = np.unravel_index(self.indices, matrix.shape)
        matrix[places] += (self.values * self.step).astype(np.float32)
        if self.adapter is not None:
            matrix += self.adapter.matrix
        if self.scales is not None:
            matrix *= self.scales[:, None]


@dataclass(frozen=True, eq=False)
class Mapping:
    """The placement of all layers and the target of every cell they use.

    `target_map_s` (shape `geometry.shape`) is NaN at unused cells. `stuck_map` marks cells that are
    known to be stuck: their target is the conductance that they were measured at, and they are not
    to be programmed.
    """

    geometry: Geometry
    layers: tuple[LayerMap, ...]
    target_map_s: FloatArray
    stuck_map: NDArray[np.bool_]

    @cached_property
    def cells(self) -> Cells:
        """The cells in use, by tile, row, column."""
        return Cells.from_index(np.flatnonzero(np.isfinite(self.target_map_s)), self.geometry)

    @cached_property
    def rectangles(self) -> tuple[Rectangle, ...]:
        """The blocks of all layers as rectangles of cells. Those beside each other from the same
        row on are one where a coded read of both saves more time in vectors than the cells between
        cost on the link.
        """
        places = sorted(
            (b.tile, b.row, b.column, b.inputs, 2 * b.outputs)
            for layer in self.layers
            for b in layer.blocks
        )
        joined: list[Rectangle] = []
        for tile, row, column, rows, columns in places:
            here = Rectangle(tile, row, rows, column, columns)
            if joined and (joined[-1].tile, joined[-1].row) == (tile, row):
                left = joined[-1]
                whole = Rectangle(
                    tile, row, max(left.rows, rows), left.column, left.columns + columns
                )
                saved = code_order(min(left.rows, rows)) + PILOTS
                idle = whole.size - left.size - here.size
                if left.column + left.columns == column and idle <= CELLS_A_VECTOR * saved:
                    joined[-1] = whole
                    continue
            joined.append(here)
        return tuple(joined)

    @cached_property
    def target_s(self) -> FloatArray:
        """Target conductance of each of `cells`, in S."""
        return self.target_map_s.ravel()[self.cells.index(self.geometry)]

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """Which of `cells` can be programmed, i.e. are not known to be stuck."""
        return ~self.stuck_map.ravel()[self.cells.index(self.geometry)]

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the layers."""
        return frozenset(layer.name for layer in self.layers)

    def layer(self, name: str) -> LayerMap:
        """The layer of that name. Raises `ConfigError` listing the names there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ConfigError(
            f"layer {name!r} is not on the array; mapped are"
            f" {', '.join(x.name for x in self.layers)}"
        )

    def fill(self, map_s: ArrayLike, missing: Missing = "target") -> tuple[FloatArray, int]:
        """A conductance map without gaps, and how many cells in use had no finite reading. See
        `Missing`.
        """
        read = np.asarray(map_s, dtype=np.float64)
        if read.shape != self.geometry.shape:
            raise DataError(
                f"a conductance map of this chip has shape {self.geometry.shape}, not {read.shape}"
            )
        good, used = np.isfinite(read), np.isfinite(self.target_map_s)
        gaps = used & ~good
        count = int(gaps.sum())
        if count and missing == "refuse":
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(gaps)), gaps.shape))
            raise DataError(
                f"cell {at}: no finite conductance in the map ({count} cells in use have none)"
            )
        substitute = np.where(used, self.target_map_s, 0.0) if missing == "target" else 0.0
        return np.where(good, read, substitute), count

    def effective_weights(
        self,
        map_s: ArrayLike,
        missing: Missing = "target",
        words: Table[str, LayerWords] | None = None,
    ) -> dict[str, Float32]:
        """The weights that an array with conductances `map_s` (S, shape `geometry.shape`) really
        holds, in each layer's shape.

        Readings that are not finite are replaced as `missing` says; `fill` counts them. On-chip
        `words` are added where given.
        """
        filled, _ = self.fill(map_s, missing)
        weights = {}
        for layer in self.layers:
            matrix = np.empty((layer.outputs, layer.inputs), dtype=np.float32)
            for block in layer.blocks:
                part = filled[block.place]
                difference = block.order.taken(part[:, 0::2] - part[:, 1::2])
                held = difference * (block.signs * layer.weight_per_s)
                matrix[block.output_slice, block.input_slice] = held.T
            if words is not None and layer.name in words:
                words[layer.name].add_to(matrix)
            weights[layer.name] = matrix.reshape(layer.shape)
        return weights

    def target_weights(self) -> dict[str, Float32]:
        """The weights of an array that is exactly at its targets: clipped and quantised."""
        return self.effective_weights(self.target_map_s)

    def clipped(self, weights: Table[str, Float32]) -> dict[str, Float32]:
        """These weights with each layer on the array cut at its clip, not quantised."""
        cut = {
            layer.name: np.clip(weights[layer.name], -layer.clip, layer.clip)
            for layer in self.layers
        }
        return {**weights, **cut}

    def pair_index(self, name: str) -> tuple[IntArray, IntArray]:
        """Flat indices into `geometry.shape` of the first and the second cell of every pair, each
        of shape (out, in).
        """
        layer = self.layer(name)
        index = np.arange(self.geometry.size).reshape(self.geometry.shape)
        first = np.empty((layer.outputs, layer.inputs), dtype=np.int64)
        second = np.empty_like(first)
        for block in layer.blocks:
            part, order = index[block.place], block.order
            first[block.output_slice, block.input_slice] = order.taken(part[:, 0::2]).T
            second[block.output_slice, block.input_slice] = order.taken(part[:, 1::2]).T
        return first, second

    @property
    def order_bits(self) -> int:
        """Bits of digital memory that say where the inputs and outputs of the blocks are, and which
        pairs are swapped; none for what is as it comes.
        """
        return sum(block.order.bits for layer in self.layers for block in layer.blocks)

    def weight_map(self) -> IntArray:
        """Which weight each cell is of, shape `geometry.shape`: 1 + its flat index in (out, in) for
        a plus cell, less than 0 for a minus cell, 0 for a cell that is not in use.
        """
        held = np.zeros(self.geometry.shape, dtype=np.int64)
        for layer in self.layers:
            number = 1 + np.arange(layer.outputs * layer.inputs).reshape(layer.outputs, -1)
            for block in layer.blocks:
                own = number[block.output_slice, block.input_slice].T * block.signs
                lying = block.order.placed(own)
                held[block.place] = np.stack([lying, -lying], axis=-1).reshape(len(lying), -1)
        return held

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as arrays for a run file: one a column of the layer and block tables, and the
        two maps.
        """
        blocks = [(k, block) for k, layer in enumerate(self.layers) for block in layer.blocks]
        none = np.zeros(0, dtype=np.int64)
        shapes = np.zeros((len(self.layers), 4), dtype=np.int64)
        for k, layer in enumerate(self.layers):
            shapes[k, : len(layer.shape)] = layer.shape
        columns = {
            field: np.array([getattr(b, field) for _, b in blocks], dtype=np.int64)
            for field in _BLOCK_FIELDS
        }
        return {
            "layer_name": np.array([layer.name.encode() for layer in self.layers], dtype=np.bytes_),
            "layer_shape": shapes,
            "layer_weight_per_s": np.array([layer.weight_per_s for layer in self.layers]),
            "layer_clip": np.array([layer.clip for layer in self.layers]),
            "block_layer": np.array([k for k, _ in blocks], dtype=np.int64),
            **{f"block_{field}": column for field, column in columns.items()},
            "signs": np.concatenate([np.zeros(0, dtype=np.int8), *(b.signs for _, b in blocks)]),
            "rows": np.concatenate([none, *(b.order.rows for _, b in blocks)]),
            "pairs": np.concatenate([none, *(b.order.pairs for _, b in blocks)]),
            "target_s": self.target_map_s,
            "stuck": self.stuck_map.astype(np.uint8),
        }

    @classmethod
    def from_arrays(cls, geometry: Geometry, arrays: Table[str, NDArray[np.generic]]) -> Mapping:
        """What `to_arrays` gave. Raises `DataError` where an array is missing or of another chip's
        shape.
        """
        needed = [
            "layer_name",
            "layer_shape",
            "layer_weight_per_s",
            "layer_clip",
            "block_layer",
            "signs",
            "target_s",
            "stuck",
        ]
        for name in needed + [f"block_{column}" for column in _BLOCK_FIELDS]:
            if name not in arrays:
                raise DataError(f"mapping: array {name!r} is missing")
        if arrays["target_s"].shape != geometry.shape or arrays["stuck"].shape != geometry.shape:
            raise DataError(
                f"mapping: it is of a chip of shape {arrays['target_s'].shape}, not"
                f" {geometry.shape}"
            )
        table = {
            field: np.asarray(arrays[f"block_{field}"], dtype=np.int64) for field in _BLOCK_FIELDS
        }
        orders = _orders(table["inputs"], table["outputs"], arrays)
        blocks = [
            Block(**{f: int(table[f][b]) for f in _BLOCK_FIELDS}, order=order)
            for b, order in enumerate(orders)
        ]
        owner = np.asarray(arrays["block_layer"], dtype=np.int64)
        scales = np.asarray(arrays["layer_weight_per_s"], dtype=np.float64)
        clips = np.asarray(arrays["layer_clip"], dtype=np.float64)
        layers = tuple(
            LayerMap(
                bytes(name).decode(),
                tuple(int(n) for n in shape if n),
                float(scales[k]),
                float(clips[k]),
                tuple(blocks[b] for b in np.flatnonzero(owner == k)),
            )
            for k, (name, shape) in enumerate(
                zip(arrays["layer_name"], arrays["layer_shape"], strict=True)
            )
        )
        target = np.array(arrays["target_s"], dtype=np.float64)
        return cls(geometry, layers, target, np.array(arrays["stuck"], dtype=np.bool_))


def _orders(
    inputs: IntArray, outputs: IntArray, arrays: Table[str, NDArray[np.generic]]
) -> list[Order]:
    """The order of each block; arrays from before there were orders have only signs."""
    signs = np.split(np.asarray(arrays["signs"], dtype=np.int8), np.cumsum(outputs)[:-1])
    found = [
        replace(Order.plain(rows, pairs), signs=sign)
        for rows, pairs, sign in zip(inputs, outputs, signs, strict=False)
    ]
    if "rows" in arrays and "pairs" in arrays:
        rows = np.split(np.asarray(arrays["rows"], dtype=np.int64), np.cumsum(inputs)[:-1])
        pairs = np.split(np.asarray(arrays["pairs"], dtype=np.int64), np.cumsum(outputs)[:-1])
        found = [Order(r, p, one.signs) for r, p, one in zip(rows, pairs, found, strict=False)]
    return found


_BLOCK_FIELDS = ("tile", "row", "column", "input_start", "inputs", "output_start", "outputs")


_ORDERS = {"flip": swapped, "permute": permuted}


@dataclass(frozen=True)
class _Piece:
    """A rectangle of a layer's matrix that is to be placed."""

    layer: int
    input_start: int
    inputs: int
    output_start: int
    outputs: int


@dataclass
class _Shelf:
    """Rows of a tile that are filled with pieces from left to right."""

    tile: int
    row: int
    height: int
    used_pairs: int


def map_network(
    weights: Table[str, ArrayLike],
    geometry: Geometry,
    options: MappingOptions | None = None,
    stuck_s: ArrayLike | None = None,
) -> Mapping:
    """Place the weights, (out, in), (out, in, kw) or (out, in, kh, kw) by layer name, on the array.

    `stuck_s` (shape `geometry.shape`) holds the measured conductance of each cell that is known to
    be stuck and NaN elsewhere; it is used as `options.faults` says. Raises `DataError` for a weight
    that is not finite, `ConfigError` where the layers do not fit or an option names a layer or tile
    that does not exist.
    """
    options = options or MappingOptions()
    tensors = {name: finite_tensor(name, tensor) for name, tensor in weights.items()}
    for name, tensor in tensors.items():
        if tensor.ndim not in (2, 3, 4) or tensor.size == 0:
            raise ConfigError(
                f"layer {name}: a weight must be (out, in), (out, in, kw) or (out, in, kh, kw), not"
                f" {tensor.shape}"
            )
    for name in options.clips:
        if name not in tensors:
            raise ConfigError(
                f"clips: there is no layer {name!r}; the layers are {', '.join(tensors)}"
            )
    if not tensors:
        raise ConfigError("there is no layer to map")
    matrices = [tensor.reshape(len(tensor), -1) for tensor in tensors.values()]
    placed = _place([(m.shape[1], m.shape[0]) for m in matrices], geometry, options)

    stuck = (
        np.full(geometry.shape, np.nan)
        if stuck_s is None
        else np.asarray(stuck_s, dtype=np.float64)
    )
    if stuck.shape != geometry.shape:
        raise DataError(
            f"stuck_s: a map of this chip has shape {geometry.shape}, not {stuck.shape}"
        )
    if options.faults == "none":
        stuck = np.full(geometry.shape, np.nan)
    window = Window(options.g_min_s, options.g_max_s, options.levels)
    target = np.full(geometry.shape, np.nan)
    layers = []
    for k, (name, matrix) in enumerate(zip(tensors, matrices, strict=True)):
        clip = _clip(name, matrix, options)
        per_s = clip / (options.g_max_s - options.g_min_s)
        blocks = []
        for piece, shelf, pair in placed:
            if piece.layer != k:
                continue
            block = Block(
                shelf.tile,
                shelf.row,
                2 * pair,
                piece.input_start,
                piece.inputs,
                piece.output_start,
                piece.outputs,
                Order.plain(piece.inputs, piece.outputs),
            )
            part = matrix[block.output_slice, block.input_slice].T.astype(np.float64)
            difference, own = np.clip(part, -clip, clip) / per_s, stuck[block.place]
            if options.faults in _ORDERS:
                order = _ORDERS[options.faults](difference, own, window)
                block = replace(block, order=order)
            target[block.place] = block.order.cells(difference, own, window)
            blocks.append(block)
        layers.append(LayerMap(name, tensors[name].shape, per_s, clip, tuple(blocks)))
    return Mapping(geometry, tuple(layers), target, np.isfinite(stuck) & np.isfinite(target))


def _clip(name: str, matrix: Float32, options: MappingOptions) -> float:
    """The |weight| that takes the whole conductance window, in weight units."""
    magnitude = np.abs(matrix)
    if name in options.clips:
        return options.clips[name]
    if isinstance(options.clip, float):
        return options.clip
    largest = float(magnitude.max())
    if options.clip == "percentile":
        clip = float(np.percentile(magnitude, options.percentile))
    elif options.clip == "rms":
        clip = min(
            options.rms * float(np.sqrt(np.mean(np.square(magnitude, dtype=np.float64)))), largest
        )
    else:
        clip = largest
    # A layer of zeros, or one whose percentile is zero, still needs a scale.
    return clip or largest or 1.0


def _place(
    sizes: list[tuple[int, int]], geometry: Geometry, options: MappingOptions
) -> list[tuple[_Piece, _Shelf, int]]:
    """Pack matrices of (inputs, outputs) into the allowed tiles: each piece, its shelf and its
    first pair of columns.
    """
    tiles = list(range(geometry.tiles)) if options.tiles is None else options.tiles
    for tile in tiles:
        if tile >= geometry.tiles:
            raise ConfigError(
                f"tiles: there is no tile {tile}; this chip has tiles 0..{geometry.tiles - 1}"
            )
    pairs = geometry.columns // 2
    if pairs < 1:
        raise ConfigError("a chip with a single column cannot hold differential pairs")
    pieces = [
        _Piece(k, i, min(geometry.rows, inputs - i), o, min(pairs, outputs - o))
        for k, (inputs, outputs) in enumerate(sizes)
        for i in range(0, inputs, geometry.rows)
        for o in range(0, outputs, pairs)
    ]
    pieces.sort(key=lambda p: (-p.inputs, -p.outputs, p.layer, p.input_start, p.output_start))
    for splitting in (False, True):
        placed = _pack(pieces, tiles, geometry.rows, pairs, splitting)
        if placed is not None:
            return placed
    needed = 2 * sum(inputs * outputs for inputs, outputs in sizes)
    available = len(tiles) * geometry.rows * 2 * pairs
    why = (
        ""
        if needed > available
        else (
            f", but not as rectangles: the largest block is {pieces[0].inputs} rows x"
            f" {2 * pieces[0].outputs} columns"
        )
    )
    raise ConfigError(
        f"the network does not fit: it needs {needed} cells, and {available} are available on"
        f" {len(tiles)} tile(s) of {geometry.rows} x {geometry.columns}{why}"
    )


def _pack(
    pieces: list[_Piece], tiles: list[int], tile_rows: int, tile_pairs: int, splitting: bool
) -> list[tuple[_Piece, _Shelf, int]] | None:
    """First-fit shelf packing, tallest first; with `splitting`, pieces are cut between outputs to
    fill shelves up.
    """
    shelves: list[_Shelf] = []
    used_rows = dict.fromkeys(tiles, 0)
    placed: list[tuple[_Piece, _Shelf, int]] = []
    waiting = pieces[::-1]
    while waiting:
        piece = waiting.pop()
        enough = 1 if splitting else piece.outputs
        open_shelves = (
            s for s in shelves if s.height >= piece.inputs and tile_pairs - s.used_pairs >= enough
        )
        shelf = next(open_shelves, None)
        if shelf is None:
            tile = next((t for t in tiles if tile_rows - used_rows[t] >= piece.inputs), None)
            if tile is None:
                return None
            shelf = _Shelf(tile, used_rows[tile], piece.inputs, 0)
            used_rows[tile] += piece.inputs
            shelves.append(shelf)
        taken = min(piece.outputs, tile_pairs - shelf.used_pairs)
        placed.append(
            (
                _Piece(piece.layer, piece.input_start, piece.inputs, piece.output_start, taken),
                shelf,
                shelf.used_pairs,
            )
        )
        shelf.used_pairs += taken
        if taken < piece.outputs:
            rest = piece.outputs - taken
            waiting.append(
                _Piece(
                    piece.layer, piece.input_start, piece.inputs, piece.output_start + taken, rest
                )
            )
    return placed


def word_operation(mapping: Mapping, words: Table[str, LayerWords], bits: int = 8) -> WriteWords:
    """Erase all words of the chip and store these: each at the first cell of its weight's pair.

    Raises `DataError` naming the layer where an index is off the layer, stands twice, or a value
    has more than `bits` bits.
    """
    top = (1 << (bits - 1)) - 1
    index, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int32)]
    for name, layer_words in words.items():
        first, _ = mapping.pair_index(name)
        where = np.asarray(layer_words.indices, dtype=np.int64)
        if where.ndim != 1 or where.shape != np.shape(layer_words.values):
            raise DataError(
                f"words of layer {name}: index and values must be 1-D and of one length"
            )
        if where.size and (
            where.min() < 0 or where.max() >= first.size or np.unique(where).size < where.size
        ):
            raise DataError(
                f"words of layer {name}: indices must differ and lie in 0..{first.size - 1}"
            )
        if where.size and int(np.abs(layer_words.values).max()) > top:
            raise DataError(f"words of layer {name}: {bits}-bit values must lie in -{top}..{top}")
        index.append(first.ravel()[where])
        values.append(np.asarray(layer_words.values, dtype=np.int32))
    cells = Cells.from_index(np.concatenate(index), mapping.geometry)
    return WriteWords(cells, np.concatenate(values), clear=True, label="words")
