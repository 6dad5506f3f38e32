"""Where cells are: the geometry of a chip and batches of cell addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.errors import ConfigError
from rram_hil.types import IntArray

MAP = ("tile", "row", "column")
"""Names of a map's dimensions."""
LATER = {"later": True}
"""Of a field that records of older versions have not: at its default it is left out of records, so
that those of what does not use it stay the same to the byte.
"""


Selector = Literal["nmos", "pmos"]
"""Kinds of the transistors that select cells."""


@dataclass(frozen=True)
class Geometry:
    """Size and kind of an array: `tiles` arrays of `rows` x `columns` cells.

    Word lines run along the rows and bit lines along the columns. `source_lines` says what the
    source lines follow: "row" (they carry the inputs of a multiply), "column" (beside the bit
    lines) or "common" (one plate). A "1R" array has no gate: its word-line volts are ignored and
    its source lines are the rows. `selector` is the kind of the transistors of a "1T1R" array: an
    NMOS conducts with its gate above the lower of BL and SL, a PMOS with it below the higher.
    """

    tiles: int
    rows: int
    columns: int
    cell: Literal["1T1R", "1R"] = "1T1R"
    source_lines: Literal["row", "column", "common"] = "row"
    selector: Selector = field(default="nmos", metadata=LATER)

    @property
    def polarity(self) -> int:
        """1 for NMOS selectors, -1 for PMOS: what their rules multiply volts with, which are the
        same but for the sign.
        """
        return -1 if self.selector == "pmos" else 1

    @property
    def size(self) -> int:
        """Cells on the chip."""
        return self.tiles * self.rows * self.columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """(tiles, rows, columns), the shape of every map of this chip."""
        return (self.tiles, self.rows, self.columns)


@dataclass(frozen=True, eq=False)
class Cells:
    """A batch of cell addresses, unique, in the order in which results come back.

    `tile`, `row` and `column` are integer arrays of one shape (n,), counted from 0. Raises
    `ConfigError` for negative or repeated addresses.
    """

    tile: IntArray
    row: IntArray
    column: IntArray

    def __post_init__(self) -> None:
        arrays = [np.atleast_1d(np.asarray(a)) for a in (self.tile, self.row, self.column)]
        if any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays):
            raise ConfigError("cell addresses: tile, row and column must be 1-D and of one length")
        for name, array in zip(("tile", "row", "column"), arrays, strict=True):
            if array.size and array.dtype.kind not in "iu":
                raise ConfigError(f"cell addresses: {name} must be integers, not {array.dtype}")
            frozen = np.array(array, dtype=np.int64)
            if frozen.size and (frozen.min() < 0 or frozen.max() >= 1 << 20):
                raise ConfigError(f"cell addresses: {name} must lie in 0..{(1 << 20) - 1}")
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        keys = self._keys
        # Most batches come in order, and looking at that costs far less than sorting them.
        if not (keys[1:] > keys[:-1]).all() and np.unique(keys).size != keys.size:
            values, counts = np.unique(keys, return_counts=True)
            twice = int(values[counts > 1][0])
            where = (twice >> 40, (twice >> 20) & 0xFFFFF, twice & 0xFFFFF)
            raise ConfigError(f"cell {where} stands more than once in one batch")

    @classmethod
    def of(cls, addresses: Iterable[tuple[int, int, int]]) -> Cells:
        """Cells from (tile, row, column) triples."""
        table = np.array(list(addresses)).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    @classmethod
    def block(cls, tile: int, rows: ArrayLike, columns: ArrayLike) -> Cells:
        """Every crossing of `rows` and `columns` (index lists) on one tile, row by row."""
        r, c = np.meshgrid(rows, columns, indexing="ij")
        return cls(np.full(r.size, tile, dtype=np.int64), r.ravel(), c.ravel())

    @classmethod
    def all(cls, geometry: Geometry) -> Cells:
        """Every cell of the chip, tile by tile, row by row."""
        return cls.from_index(np.arange(geometry.size), geometry)

    @classmethod
    def from_index(cls, index: ArrayLike, geometry: Geometry) -> Cells:
        """Cells from flat indices into `geometry.shape`. Raises `ConfigError` for an index off the
        chip.
        """
        flat = np.atleast_1d(np.asarray(index))
        if flat.size and (
            flat.dtype.kind not in "iu" or flat.min() < 0 or flat.max() >= geometry.size
        ):
            raise ConfigError(f"cell indices must be integers in 0..{geometry.size - 1}")
        tile, row, column = np.unravel_index(flat.astype(np.int64), geometry.shape)
        return cls(tile.astype(np.int64), row.astype(np.int64), column.astype(np.int64))

    def index(self, geometry: Geometry) -> IntArray:
        """Flat index of each cell into `geometry.shape`. Raises `ConfigError` for a cell off the
        chip.
        """
        for name, array, size in (
            ("tile", self.tile, geometry.tiles),
            ("row", self.row, geometry.rows),
            ("column", self.column, geometry.columns),
        ):
            if array.size and int(array.max()) >= size:
                at = int(np.argmax(array))
                raise ConfigError(
                    f"cell {self.address(at)}: {name} must lie in 0..{size - 1} on this chip"
                )
        return (self.tile * geometry.rows + self.row) * geometry.columns + self.column

    def address(self, position: int) -> tuple[int, int, int]:
        """(tile, row, column) of the cell at one position of the batch."""
        return (int(self.tile[position]), int(self.row[position]), int(self.column[position]))

    def __len__(self) -> int:
        return int(self.tile.size)

    def __getitem__(self, which: NDArray[np.bool_] | IntArray | slice) -> Cells:
        """The part of the batch that a mask, an index array or a slice selects."""
        return Cells(self.tile[which], self.row[which], self.column[which])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cells):
            return NotImplemented
        pairs = ((self.tile, other.tile), (self.row, other.row), (self.column, other.column))
        return all(np.array_equal(a, b) for a, b in pairs)

    def places_of(self, wanted: Cells) -> IntArray:
        """Where each of `wanted` stands in this batch, which holds them all, shape (n,)."""
        order = np.argsort(self._keys)
        found = order[np.searchsorted(self._keys[order], wanted._keys)]
        return np.asarray(found, dtype=np.int64)

    @property
    def _keys(self) -> IntArray:
        """A number of its own for each address, growing by tile, row, column."""
        return (self.tile << 40) | (self.row << 20) | self.column

    def batches(self, size: int) -> Iterator[tuple[slice, Cells]]:
        """Consecutive parts of at most `size` cells, each with its place in this batch."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self[part]

    def __repr__(self) -> str:
        if len(self) == 0:
            return "Cells(none)"
        ends = (
            f"{self.address(0)}"
            if len(self) == 1
            else f"{self.address(0)} .. {self.address(len(self) - 1)}"
        )
        return f"Cells({len(self)}: {ends})"
