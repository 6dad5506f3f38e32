"""The tables of a run file: columns, units, codes; how a table is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike

from rram_hil.array.operations import Status
from rram_hil.storage.codec import AnyArray

FORMAT = "rram_hil run"
FORMAT_VERSION = 1
KINDS = ("Apply", "Program", "Multiply", "WriteWords", "Wait")
OUTCOMES = ("done", "interrupted", "no_result")
EVENTS = ("info", "interrupted", "resumed", "aborted", "error")
MAP_DIMS = ("tile", "row", "column")

_LONG_CHUNK = 1 << 15
_SHORT_CHUNK = 1 << 8
_TEXT = h5py.string_dtype()
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
_FILTERS: dict[str, Any] = {
    "compression": "gzip",
    "compression_opts": 1,
    "shuffle": True,
    "fletcher32": True,
}


@dataclass(frozen=True)
class _Column:
    name: str
    dtype: Any
    long_name: str
    units: str = ""
    flags: tuple[str, ...] = ()


_ADDRESS = (
    _Column("tile", np.int32, "tile of the cell, from 0"),
    _Column("row", np.int32, "row (word line) of the cell, from 0"),
    _Column("column", np.int32, "column (bit line) of the cell, from 0"),
)
_OPERATIONS = (
    _Column("operation", np.int64, "number of the operation"),
    _Column("step", np.int32, "step of the recipe, 0 outside one"),
    _Column("kind", np.uint8, "kind of operation", flags=KINDS),
    _Column("label", _TEXT, "label given by the protocol"),
    _Column("settings", np.int32, "row of the group settings that says what was done"),
    _Column("outcome", np.uint8, "how the operation ended", flags=OUTCOMES),
    _Column("started_s", np.float64, "start on the bench clock", "s"),
    _Column("ended_s", np.float64, "end on the bench clock", "s"),
    _Column(
        "away_s", np.float64, "time for which the bench was alone, of an interrupted operation", "s"
    ),
    _Column("cells", np.int64, "cells addressed", "1"),
    _Column("charged", np.int64, "pulses charged beforehand, worst case, all cells", "1"),
    _Column("pulses", np.int64, "pulses given, all cells", "1"),
    _Column("reads", np.int64, "measurements taken, all cells", "1"),
    _Column("not_ok", np.int64, "values kept whose status is not ok", "1"),
    _Column("vectors", np.int64, "input vectors of a multiply", "1"),
    _Column("saturated", np.int64, "clipped ADC codes of a multiply", "1"),
    _Column("lsb_a", np.float64, "current of one ADC code step of a multiply", "A"),
    _Column("emulated", np.uint8, "1: the multiply was made of single reads"),
)
_CELLS = (
    _Column("operation", np.int64, "number of the operation"),
    *_ADDRESS,
    _Column(
        "measurement", np.int32, "place among the operation's measurements of this cell, from 0"
    ),
    _Column("current_a", np.float64, "measured current, raw", "A"),
    _Column("conductance_s", np.float64, "conductance, calibrated", "S"),
    _Column(
        "status", np.uint8, "what the value is worth", flags=tuple(s.name.lower() for s in Status)
    ),
    _Column("time_s", np.float64, "time of the measurement on the bench clock", "s"),
    _Column(
        "pulses", np.int32, "pulses given in this operation, in the cell's first row, else 0", "1"
    ),
    _Column("set_pulses", np.int32, "SET pulses of a Program, else 0", "1"),
    _Column("reset_pulses", np.int32, "RESET pulses of a Program, else 0", "1"),
    _Column(
        "reads",
        np.int32,
        "measurements taken in this operation, in the cell's first row, else 0",
        "1",
    ),
    _Column("inside", np.int8, "accepted in its window by a Program: 1 yes, 0 no; -1: no Program"),
)
_CODES = (
    _Column("operation", np.int64, "number of the operation"),
    _Column("vector", np.int32, "input vector of the multiply, from 0"),
    _Column("column", np.int32, "column of the multiply's block, from 0"),
    _Column("code", np.int32, "ADC code; times lsb_a of the operation it is a current"),
    _Column("word_sum", np.int64, "sum of input code x on-chip word; 0 where words were not used"),
)
_STEPS = (
    _Column("step", np.int32, "number of the step"),
    _Column("name", _TEXT, "name of the step"),
    _Column("protocol", _TEXT, "protocol"),
    _Column("version", _TEXT, "version of the protocol"),
    _Column("started_s", np.float64, "start on the bench clock", "s"),
    _Column("ended_s", np.float64, "end on the bench clock, NaN where the step did not end", "s"),
    _Column("operations", np.int64, "operations with a result", "1"),
    _Column("pulses", np.int64, "pulses given", "1"),
    _Column("reads", np.int64, "measurements taken", "1"),
)
_NOTES = (
    _Column("event", np.uint8, "kind of note", flags=EVENTS),
    _Column("text", _TEXT, "what happened"),
    _Column("utc", _TEXT, "UTC time, ISO 8601"),
    _Column("time_s", np.float64, "time on the bench clock", "s"),
)
_SETTINGS = (
    _Column(
        "text", _TEXT, "settings of operations as JSON, SI units; a per-cell value as its extremes"
    ),
)


def _describe(dataset: h5py.Dataset, long_name: str, units: str) -> None:
    if long_name:
        dataset.attrs["long_name"] = long_name
    if units:
        dataset.attrs["units"] = units


class _Table:
    """A group of equally long columns that grows in whole chunks; `dim` is one of them or a
    dimension without values.
    """

    def __init__(
        self,
        file: h5py.File,
        name: str,
        dim: str,
        columns: tuple[_Column, ...],
        chunk: int = _SHORT_CHUNK,
    ) -> None:
        group = file.create_group(name)
        self._columns = columns
        self._chunk = chunk
        self._waiting: list[dict[str, AnyArray]] = []
        self._waiting_rows = 0
        self.rows = 0
        self._data: dict[str, h5py.Dataset] = {}
        for column in columns:
            filters = {} if column.dtype is _TEXT else _FILTERS
            data = group.create_dataset(
                column.name, (0,), column.dtype, maxshape=(None,), chunks=(chunk,), **filters
            )
            _describe(data, column.long_name, column.units)
            if column.flags:
                data.attrs["flag_values"] = np.arange(len(column.flags), dtype=column.dtype)
                data.attrs["flag_meanings"] = " ".join(column.flags)
            self._data[column.name] = data
        if dim in self._data:
            self._scale = self._data[dim]
            self._scale.make_scale(dim)
        else:
            self._scale = group.create_dataset(
                dim, (0,), np.float32, maxshape=(None,), chunks=(chunk,)
            )
            self._scale.make_scale(f"{_NO_VARIABLE}{0:10d}")
        for data in self._data.values():
            if data != self._scale:
                data.dims[0].attach_scale(self._scale)

    def add(self, rows: int, **values: ArrayLike) -> None:
        """Append `rows` rows: for each column one value or one a row."""
        if rows == 0:
            return
        block = {}
        for column in self._columns:
            dtype = object if column.dtype is _TEXT else column.dtype
            block[column.name] = np.broadcast_to(
                np.asarray(values[column.name], dtype=dtype), (rows,)
            )
        self._waiting.append(block)
        self._waiting_rows += rows
        if self._waiting_rows >= self._chunk:
            self._write(self._waiting_rows - self._waiting_rows % self._chunk)

    def _write(self, rows: int) -> None:
        """Write the first `rows` waiting rows: chunks are compressed once, when they are full."""
        for column in self._columns:
            whole = np.concatenate([block[column.name] for block in self._waiting])
            data = self._data[column.name]
            data.resize((self.rows + rows,))
            data[self.rows :] = whole[:rows]
            for block in self._waiting[1:]:
                del block[column.name]
            self._waiting[0][column.name] = whole[rows:]
        del self._waiting[1:]
        self._waiting_rows -= rows
        self.rows += rows
        self._scale.resize((self.rows,))

    def finish(self) -> None:
        """Write what waits."""
        if self._waiting_rows:
            self._write(self._waiting_rows)
