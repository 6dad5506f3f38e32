"""What the scheme for unselected lines puts across the cells that share a line with a selected one.

A selected cell's pulse leaves volts on the cells of its row, of its column and, with V/3 or where
the word lines of other rows open their gates, on all the others. Cells of one operation are
selected one after the other: each of them feels what those after it were given; what it felt before
its own pulses is overwritten by them and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rram_hil.array import Geometry, Scheme, Step, unselected_bl_v
from rram_hil.simulation.config import BodyEffect
from rram_hil.simulation.selectors import THRESHOLD_V, Selectors
from rram_hil.types import FloatArray, IntArray


@dataclass(frozen=True)
class Across:
    """BL - SL and how far their gates are open (V) of cells beside a selected one; gates do not
    count in a 1R array.
    """

    row_v: float
    row_gate_v: float
    column_v: float
    other_v: float
    column_gate_v: float = 0.0
    other_gate_v: float = 0.0

    @property
    def worst_v(self) -> float:
        """The largest |V| of them."""
        return max(abs(self.row_v), abs(self.column_v), abs(self.other_v))


@dataclass(frozen=True)
class Beside:
    """What a step says of cells beside the selected ones: the level of their bodies, None where
    each is tied to its source, and that of word lines that are not selected, None where their gates
    are closed.
    """

    body_v: float | None = None
    idle_wl_v: float | None = None


def across(
    bl_v: float,
    sl_v: float,
    wl_v: float,
    scheme: Scheme,
    geometry: Geometry,
    beside: Beside = Beside(),
    selectors: Selectors | None = None,
) -> Across:
    """What stands across the cells beside one at these levels.

    Nothing where lines float (they are taken to follow), and with `inhibit` in a 1R array, whose
    cells then count as isolated. `selectors` are NMOS of a usual body effect where none are given.
    """
    drop = bl_v - sl_v
    nothing = Across(0.0, 0.0, 0.0, 0.0)
    if geometry.cell == "1R":
        if scheme is Scheme.FLOATING:
            return nothing
        return {
            Scheme.HALF: Across(drop / 2, 0.0, drop / 2, 0.0),
            Scheme.THIRD: Across(drop / 3, 0.0, drop / 3, -drop / 3),
            # Bit lines run along the columns, source lines along the rows.
            Scheme.GROUNDED: Across(-sl_v, 0.0, bl_v, 0.0),
        }.get(scheme, nothing)
    transistors = selectors or Selectors(geometry.selector, BodyEffect())

    def opened_v(gate_v: float, line_v: float, source_v: float) -> float:
        levels = np.array(gate_v), np.array(line_v), np.array(source_v)
        return float(transistors.gate_v(*levels, beside.body_v))

    def felt(line_v: float, source_v: float, gate_v: float | None) -> tuple[float, float]:
        """BL - SL and gate of a cell between these lines; nothing where its gate is closed."""
        if gate_v is None:
            return 0.0, 0.0
        over = opened_v(gate_v, line_v, source_v)
        return (line_v - source_v, over) if over > THRESHOLD_V else (0.0, 0.0)

    # Source lines of the same row stand at the selected one's level, those of other rows at 0 V.
    source_v = 0.0 if geometry.source_lines == "row" else sl_v
    column_v, column_gate_v = felt(bl_v, source_v, beside.idle_wl_v)
    if scheme is Scheme.FLOATING or geometry.source_lines == "column":
        # Lines that float follow, and both lines of an unselected column stand alike.
        return Across(0.0, 0.0, column_v, 0.0, column_gate_v)
    others = float(unselected_bl_v(Step(bl_v, sl_v, wl_v, 1.0), 1, scheme)[0])
    row_gate_v = opened_v(wl_v, others, sl_v)
    other_v, other_gate_v = felt(others, source_v, beside.idle_wl_v)
    return Across(others - sl_v, row_gate_v, column_v, other_v, column_gate_v, other_gate_v)


@dataclass(frozen=True)
class Dose:
    """Pulses that cells beside selected ones felt: flat indices, BL - SL and gate (V), one's width
    (s), cap (S), how many.
    """

    index: IntArray
    drop_v: float
    gate_v: float
    width_s: float
    cap_s: float
    count: int


class Exposure:
    """Pulses that the cells of one operation take in their turn, collected by the volts that they
    leave on others.

    `index` holds these cells (flat, in their order); what is at most `least_v` disturbs nothing.
    """

    def __init__(
        self,
        index: IntArray,
        geometry: Geometry,
        scheme: Scheme,
        least_v: float,
        selectors: Selectors | None = None,
    ) -> None:
        self.scheme = scheme
        self.disturbs = scheme not in (Scheme.INHIBIT, Scheme.FLOATING)
        """Whether the scheme leaves anything on others at all."""
        self._index, self._geometry, self._least_v = index, geometry, least_v
        self._selectors = selectors
        self._counts: dict[tuple[Across, float, float], IntArray] = {}

    def note(
        self,
        at: IntArray,
        bl_v: FloatArray,
        sl_v: FloatArray,
        wl_v: FloatArray,
        width_s: float,
        cap_s: float,
        beside: Beside = Beside(),
    ) -> None:
        """One pulse of the cells at positions `at` with these levels (V), shape of `at`; `cap_s` as
        in `after_set`.
        """
        levels, which = np.unique(np.stack([bl_v, sl_v, wl_v]), axis=1, return_inverse=True)
        for k, (bl, sl, wl) in enumerate(levels.T):
            lines = float(bl), float(sl), float(wl)
            found = across(*lines, self.scheme, self._geometry, beside, self._selectors)
            if found.worst_v > self._least_v:
                key = (found, width_s, cap_s)
                counts = self._counts.setdefault(key, np.zeros(self._index.size, dtype=np.int64))
                counts[at[which.ravel() == k]] += 1

    def doses(self) -> Iterator[Dose]:
        """What the cells of the chip felt, in the order in which the levels were first given."""
        place = np.arange(self._geometry.size)
        row, column = np.divmod(place, self._geometry.columns)
        tile = row // self._geometry.rows
        column = tile * self._geometry.columns + column
        for (found, width_s, cap_s), counts in self._counts.items():
            in_row, in_column = self._felt(row, counts), self._felt(column, counts)
            felt: dict[tuple[float, float], IntArray] = {}
            for drop, gate, number in (
                (found.row_v, found.row_gate_v, in_row),
                (found.column_v, found.column_gate_v, in_column),
                (
                    found.other_v,
                    found.other_gate_v,
                    self._felt(tile, counts) - in_row - in_column,
                ),
            ):
                if abs(drop) > self._least_v:
                    felt[drop, gate] = felt.get((drop, gate), np.zeros_like(number)) + number
            for (drop, gate), number in felt.items():
                order = np.argsort(number, kind="stable")
                order = order[np.searchsorted(number[order], 1) :]
                for index in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
                    if index.size:
                        yield Dose(index, drop, gate, width_s, cap_s, int(number[index[0]]))

    def _felt(self, group: IntArray, counts: IntArray) -> IntArray:
        """For each cell of the chip, pulses on others of its group; for a selected cell, on those
        after it.
        """
        mine = group[self._index]
        total = np.bincount(mine, counts, minlength=int(group.max()) + 1).astype(np.int64)
        order = np.argsort(mine, kind="stable")
        until = np.cumsum(counts[order])
        first = np.searchsorted(mine[order], mine[order])
        before = until[first] - counts[order][first]
        later = np.empty(counts.size, dtype=np.int64)
        later[order] = total[mine[order]] - (until - before)
        found = total[group]
        found[self._index] = later
        return found
