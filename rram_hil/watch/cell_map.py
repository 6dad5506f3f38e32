"""The map of a run as it fills: what each cell conducts now, what it shall, and what it took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    ApplyResult,
    CodedReadResult,
    Geometry,
    ProgramResult,
    Status,
)
from rram_hil.report.maps import blocks, round_up
from rram_hil.types import FloatArray, IntArray, StatusArray

Float32Array = NDArray[np.float32]
What = Literal["now", "target"]
MOST_CELLS = 1 << 25
"""A chip with more has no map here: its arrays would take half a gigabyte."""
SAMPLE = 1 << 16
"""Cells by which the ends of a scale are chosen."""
UNREADABLE, OVER_RANGE = -np.inf, np.inf
"""What stands in a map for a cell whose last reading is none, and for one beyond the range."""


@dataclass(frozen=True)
class Part:
    """A part of a map, for the wire.

    `values` are all of the part, row by row, shape (rows, columns) of means over squares of `block`
    x `block` cells; or, where `at` is given, those alone that changed: `at` is the flat index of
    each in the part.
    """

    values: Float32Array
    block: int
    at: NDArray[np.uint32] | None = None


def last_conductance(
    result: ApplyResult | ProgramResult | CodedReadResult,
) -> tuple[FloatArray, StatusArray]:
    """What an operation measured last at each cell (S), and its status, each of shape (n,)."""
    if isinstance(result, ApplyResult):
        if result.status.shape[1] == 1:  # the most frequent by far
            return result.conductance_s[:, 0], result.status[:, 0]
        return result.last_s, result.last_status
    return result.conductance_s, result.status


def last_time_s(result: ApplyResult | ProgramResult | CodedReadResult) -> FloatArray:
    """When each cell was measured last (s, bench clock), shape (n,), as the run file has it: the
    operation's end where the result has no times.
    """
    if not isinstance(result, ApplyResult) or result.status.shape[1] == 0:
        return np.full(len(result.status), result.span.ended_s)
    if result.status.shape[1] == 1:
        return result.time_s[:, 0]
    last_s = result.last_time_s
    # Where nothing was measured the table of cells has the first column.
    return np.where(np.isnan(last_s), result.time_s[:, 0], last_s)


class CellMap:
    """Arrays over a chip's cells, flat in the order tile, row, column.

    `now_s` and `target_s` (S) are NaN where nothing is known; `UNREADABLE` and `OVER_RANGE` stand
    in `now_s`. `pulses` counts those of this run. `version` grows with every change, and `changed`
    says with which one each cell's `now_s` changed last; both go on from `version` given.
    """

    def __init__(self, geometry: Geometry, version: int) -> None:
        self.geometry = geometry
        self.now_s = np.full(geometry.size, np.nan, np.float32)
        self.target_s: Float32Array | None = None
        self.pulses = np.zeros(geometry.size, np.int64)
        self.version = self.target_version = version + 1
        self.changed = np.full(geometry.size, self.version, np.int64)
        self._scales = (-1, 0.0, 0.0)

    def took(self, cell: IntArray, pulses: Any) -> None:
        """Cells (n,) took pulses; one may stand there more than once."""
        np.add.at(self.pulses, cell, pulses)

    def measured(self, cell: IntArray, conductance_s: FloatArray, status: StatusArray) -> None:
        """What was read at cells, of one that stands there more than once last; what did not run,
        and what is no conductance, changes nothing.
        """
        over, not_run = int(Status.OVER_RANGE), int(Status.NOT_RUN)
        known = (status == int(Status.OK)) | (status == int(Status.COMPLIANCE))
        value = np.where(known, conductance_s, np.where(status == over, OVER_RANGE, UNREADABLE))
        new = (status != not_run) & ~np.isnan(value)
        self._put(cell[new], value[new])

    def saved(self, values: NDArray[Any]) -> None:
        """A whole map of conductance that a protocol saved: its means count more than the last
        reading.
        """
        flat = values.ravel()
        (known,) = np.nonzero(np.isfinite(flat))
        self._put(known, flat[known])

    def _put(self, cell: IntArray, value: NDArray[Any]) -> None:
        if len(cell):
            self.version += 1
            self.now_s[cell] = value
            self.changed[cell] = self.version

    def aimed(self, target_s: NDArray[Any]) -> None:
        """The map of targets that a protocol saved; NaN where a cell has none."""
        self.version += 1
        self.target_version = self.version
        self.target_s = target_s.ravel().astype(np.float32)

    @property
    def known(self) -> int:
        """Cells of which something was read."""
        return int(np.count_nonzero(~np.isnan(self.now_s)))

    def scales_s(self) -> tuple[float, float]:
        """Upper ends (S) of the scales of conductance and of error, by a sample of the cells."""
        version, top_s, error_s = self._scales
        if version != self.version:
            stride = math.ceil(self.geometry.size / SAMPLE)
            now = self.now_s[::stride]
            seen = now[np.isfinite(now)]
            top_s = float(np.percentile(seen, 99.5)) if seen.size else 0.0
            error_s = 0.0
            if self.target_s is not None:
                target = self.target_s[::stride]
                aimed = target[np.isfinite(target)]
                top_s = max(top_s, float(aimed.max()) if aimed.size else 0.0)
                both = np.isfinite(now) & np.isfinite(target)
                if both.any():
                    error_s = float(np.percentile(np.abs(now[both] - target[both]), 99))
            self._scales = (self.version, top_s, error_s)
        return round_up(top_s), round_up(error_s)

    def part(
        self, what: What, tile: int, rows: slice, columns: slice, most: int, since: int = -1
    ) -> Part:
        """A rectangle of one tile, of at most about `most` x `most` values: larger ones as means
        over square blocks. Where few cells changed after version `since`, those alone.
        """
        source = self.now_s if what == "now" else self.target_s
        if source is None:
            source = np.full_like(self.now_s, np.nan)
        shape = self.geometry.shape
        values = source.reshape(shape)[tile, rows, columns]
        block = max(1, math.ceil(max(values.shape) / most))
        if block == 1 and what == "now" and since >= 0:
            changed = self.changed.reshape(shape)[tile, rows, columns].ravel()
            at = np.flatnonzero(changed > since)
            if at.size < values.size // 3:
                return Part(values.ravel()[at], 1, at.astype(np.uint32))
        if block > 1:
            finite = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
            values = blocks(finite, block).astype(np.float32)
        return Part(values, block)
