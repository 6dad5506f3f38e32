"""What a block of pairs of cells is given where some of them are stuck, and in which order the
inputs and outputs of a layer go on its rows and pairs of columns, so that stuck cells meet weights
that they suit.

Wanted are differences of conductances, plus less minus cell, in S: a row an input, a column an
output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rram_hil.networks.network import Float32
from rram_hil.types import FloatArray, IntArray

Number = TypeVar("Number", bound=np.generic)

_LEAST_GAIN = 1e-3
"""Orders are no longer improved where a round gains less than this fraction of the error."""
_VALUES_AT_ONCE = 1 << 18
"""So many errors are worked out together, which stay in the processor's caches."""


@dataclass(frozen=True)
class Window:
    """The conductances that a cell may be given: from `g_min_s` to `g_max_s`, `levels` evenly
    spaced ones or, with 0, any.
    """

    g_min_s: float
    g_max_s: float
    levels: int

    def nearest(self, conductance_s: FloatArray) -> FloatArray:
        """The nearest conductance that a cell may be given."""
        inside = np.clip(conductance_s, self.g_min_s, self.g_max_s)
        if self.levels == 0:
            return inside
        step = (self.g_max_s - self.g_min_s) / (self.levels - 1)
        rounded: FloatArray = self.g_min_s + np.rint((inside - self.g_min_s) / step) * step
        return rounded


@dataclass(frozen=True, eq=False)
class Order:
    """Where the inputs and outputs of a block are: `rows` has the row of each input, `pairs` the
    pair of columns of each output, both counted from the block's first; `signs` is -1 for each
    output whose plus and minus cell are swapped, else 1.
    """

    rows: IntArray
    pairs: IntArray
    signs: NDArray[np.int8]

    @classmethod
    def plain(cls, inputs: int, outputs: int) -> Order:
        """As they come."""
        return cls(np.arange(inputs), np.arange(outputs), np.ones(outputs, dtype=np.int8))

    @cached_property
    def inputs(self) -> IntArray:
        """The input of each row."""
        return np.argsort(self.rows)

    @cached_property
    def rows_as_they_come(self) -> bool:
        """Whether each input is on the row of its own number."""
        return bool(np.all(np.diff(self.rows) == 1))

    @cached_property
    def pairs_as_they_come(self) -> bool:
        """Whether each output is on the pair of its own number."""
        return bool(np.all(np.diff(self.pairs) == 1))

    @property
    def bits(self) -> int:
        """Bits of digital memory that hold what is not as it comes: a list of rows, one of pairs,
        one of signs.
        """
        lists = ((self.rows, self.rows_as_they_come), (self.pairs, self.pairs_as_they_come))
        places = sum(o.size * math.ceil(math.log2(o.size)) for o, plain in lists if not plain)
        return places + (self.signs.size if np.any(self.signs < 0) else 0)

    def placed(self, values: NDArray[Number]) -> NDArray[Number]:
        """Values (inputs, outputs) as they lie on rows and pairs."""
        lying = np.empty_like(values)
        lying[self.rows[:, None], self.pairs] = values
        return lying

    def taken(self, lying: NDArray[Number]) -> NDArray[Number]:
        """Values that lie on rows and pairs as (inputs, outputs)."""
        return lying[self.rows[:, None], self.pairs]

    def cells(self, wanted_s: FloatArray, stuck_s: FloatArray, window: Window) -> FloatArray:
        """Targets (rows, 2 x pairs) of a block in this order: the healthy cell of a pair makes the
        best difference with its partner, which is stuck where `stuck_s` (S) is finite.
        """
        wanted = self.placed(wanted_s * self.signs)
        cells = np.empty(stuck_s.shape)
        first, second = stuck_s[:, 0::2], stuck_s[:, 1::2]
        cells[:, 0::2] = np.where(
            np.isfinite(second),
            window.nearest(second + wanted),
            window.nearest(window.g_min_s + np.maximum(wanted, 0)),
        )
        cells[:, 1::2] = np.where(
            np.isfinite(first),
            window.nearest(first - wanted),
            window.nearest(window.g_min_s + np.maximum(-wanted, 0)),
        )
        return np.where(np.isfinite(stuck_s), stuck_s, cells)

    def errors(self, wanted_s: FloatArray, stuck_s: FloatArray, window: Window) -> FloatArray:
        """Sum of the squared errors of each output's differences."""
        cells = self.cells(wanted_s, stuck_s, window)
        wanted = self.placed(wanted_s * self.signs)
        by_pair: FloatArray = np.sum((cells[:, 0::2] - cells[:, 1::2] - wanted) ** 2, axis=0)
        return by_pair[self.pairs]


def swapped(wanted_s: FloatArray, stuck_s: FloatArray, window: Window) -> Order:
    """Inputs and outputs as they come, plus and minus cells swapped for the outputs whose error
    that lowers.
    """
    plain = Order.plain(*wanted_s.shape)
    other = replace(plain, signs=-plain.signs)
    better = other.errors(wanted_s, stuck_s, window) < plain.errors(wanted_s, stuck_s, window)
    return replace(plain, signs=np.where(better, other.signs, plain.signs))


def permuted(wanted_s: FloatArray, stuck_s: FloatArray, window: Window) -> Order:
    """An order of inputs, outputs and signs of a small error, never one above that of `swapped`.

    By turns the outputs are assigned to pairs, each with its better sign, and the inputs to rows,
    each at the least error for the others as they are (Zhang et al., ASP-DAC 2019, doi
    10.1145/3287624.3287707, permute and flip to the same end).
    """
    best = swapped(wanted_s, stuck_s, window)
    if not np.isfinite(stuck_s).any():
        return best
    rows, pairs = _faults(stuck_s, window)
    wanted = (wanted_s / (window.g_max_s - window.g_min_s)).astype(np.float32)
    signs = best.signs.copy()
    at_row, at_pair = np.arange(wanted.shape[0]), np.arange(wanted.shape[1])
    error = np.inf
    while True:
        plain, other = (pairs.costs(sign * wanted[at_row]) for sign in (1, -1))
        at_pair, _ = _assigned(np.minimum(plain, other))
        lower = np.take_along_axis(other < plain, at_pair[:, None], axis=1)[:, 0]
        signs[at_pair] = np.where(lower, -1, 1)
        at_row, found = _assigned(rows.costs((wanted * signs)[:, at_pair].T))
        if error - found <= _LEAST_GAIN * abs(found):
            break
        error = found
    order = Order(np.argsort(at_row), np.argsort(at_pair), signs)
    before, after = (o.errors(wanted_s, stuck_s, window).sum() for o in (best, order))
    return order if after < before else best


def _assigned(costs: Float32) -> tuple[IntArray, float]:
    """Which input or output each line gets, and what all of them cost."""
    lines, chosen = linear_sum_assignment(costs)
    return chosen, float(costs[lines, chosen].sum(dtype=np.float64))


@dataclass(frozen=True, eq=False)
class _Faults:
    """The pairs that have a stuck cell, each by its `line` (one of `lines` rows, or pairs of
    columns) and where it is `across` that, line after line.

    In units of the window, from its lower end on, the healthy partner of a stuck cell is wanted at
    `offset` - `slope` x wanted difference, and may be given 0 to `top`: 0 where both are stuck.
    What is then left is the error. These three are (n, 1), for things beside each other.
    """

    lines: int
    line: IntArray
    across: IntArray
    offset: Float32
    slope: Float32
    top: Float32
    levels: int

    def costs(self, wanted: Float32) -> Float32:
        """By how much the squared error of each thing (input or output) is larger on each line than
        without stuck cells, (lines, things); `wanted` is (across, things), in units of the window.
        """
        costs = np.zeros((self.lines, wanted.shape[1]), dtype=np.float32)
        first = np.flatnonzero(np.diff(self.line, prepend=-1))
        sound = self._left(np.abs(wanted), np.float32(1))
        width = max(1, _VALUES_AT_ONCE // self.line.size)
        for start in range(0, wanted.shape[1], width):
            part = slice(start, start + width)
            errors = wanted[:, part][self.across]
            errors *= -self.slope
            errors += self.offset
            errors = self._left(errors, self.top)
            if self.levels:
                errors -= sound[:, part][self.across]
            costs[self.line[first], part] = np.add.reduceat(errors, first, axis=0)
        return costs

    def _left(self, wanted: Float32, top: Float32 | np.float32) -> Float32:
        """Squares of what a cell that may be given 0 to `top` leaves of what is wanted."""
        given = np.clip(wanted, 0, top)
        if self.levels:
            given *= self.levels - 1
            np.rint(given, out=given)
            given /= self.levels - 1
        given -= wanted
        given *= given
        return given


def _faults(stuck_s: FloatArray, window: Window) -> tuple[_Faults, _Faults]:
    """The stuck cells of a block by rows, and by pairs of columns."""
    scaled = (stuck_s - window.g_min_s) / (window.g_max_s - window.g_min_s)
    row, pair = np.nonzero(np.isfinite(stuck_s[:, 0::2]) | np.isfinite(stuck_s[:, 1::2]))
    first, second = scaled[row, 2 * pair], scaled[row, 2 * pair + 1]
    has_first = np.isfinite(first)
    both = has_first & np.isfinite(second)
    offset = np.where(both, first - second, np.where(has_first, first, second))
    values = np.stack([offset, np.where(has_first, 1, -1), np.where(both, 0, 1)], dtype=np.float32)

    def by(lines: int, line: IntArray, across: IntArray) -> _Faults:
        order = np.argsort(line, kind="stable")
        offsets, slopes, tops = values[:, order, None]
        return _Faults(lines, line[order], across[order], offsets, slopes, tops, window.levels)

    rows, columns = stuck_s.shape
    return by(rows, row, pair), by(columns // 2, pair, row)
