"""A 1R array on its wires: all of its cells conduct whenever one of them is read or pulsed.

Lines as in `lines.py`. A reading grounds all lines but the driven one, so that its cell shares the row's wire with all cells
of the row and its column's with what these let through. In a pulse the scheme puts its levels on the other lines; what is
left of the volts at the selected cell follows from the cells' drops with each row, and each column, alone at one volt.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from rram_hil.cells import Geometry, IntArray
from rram_hil.device.crossbar import Prepared
from rram_hil.device.ir_drop import Lines, reach
from rram_hil.device.lines import block_transfer, series_ohm
from rram_hil.operations import FloatArray, Scheme


class PassiveTile:
    """One tile of a 1R array at the conductances `g_s` (S, shape (rows, columns)), exactly solved when first asked."""

    def __init__(self, g_s: FloatArray, geometry: Geometry, line_ohm: float) -> None:
        self._g, self._geometry, self._line_ohm = g_s, geometry, line_ohm

    @cached_property
    def _prepared(self) -> Prepared:
        return Lines.of(self._line_ohm).network(self._g).prepare()

    @cached_property
    def _alone(self) -> tuple[FloatArray, FloatArray]:
        """Volts across each cell with its row alone, and with its column alone, at one volt."""
        return reach(self._prepared)

    @cached_property
    def _together(self) -> tuple[FloatArray, FloatArray]:
        """The same with all rows, and with all columns, at one volt."""
        found = [self._prepared.solve(left_v=1.0), self._prepared.solve(bottom_v=1.0)]
        rows, columns = (np.asarray(one.row_v - one.column_v)[0] for one in found)  # type: ignore[operator]
        return rows, -columns

    @cached_property
    def read_share(self) -> FloatArray:
        """What part of each cell's conductance a reading shows, shape (rows, columns); that of its wires alone for none."""
        seen = block_transfer(self._g, 0, 0, self._geometry, self._line_ohm)
        return np.divide(seen, self._g, out=np.ones_like(seen), where=self._g > 0)

    def drop_v(self, at: IntArray, bl_v: FloatArray, sl_v: FloatArray, scheme: Scheme) -> FloatArray:
        """BL - SL (V) across the selected cells `at` (flat in the tile) as they are; levels of each, shape of `at`.

        With `inhibit` and with floating lines a cell counts as alone on its wires.
        """
        drop = bl_v - sl_v
        if scheme in (Scheme.INHIBIT, Scheme.FLOATING):
            return np.asarray(drop / (1 + self._g.ravel()[at] * series_ohm(at, self._geometry, self._line_ohm)))
        by_row, by_column = (part.ravel()[at] for part in self._alone)
        if scheme is Scheme.GROUNDED:
            return np.asarray(bl_v * by_column - sl_v * by_row, dtype=np.float64)
        if scheme is Scheme.HALF:
            return np.asarray(drop / 2 * (by_column + by_row), dtype=np.float64)
        all_rows, all_columns = (part.ravel()[at] for part in self._together)
        others = (all_columns - by_column) / 3 - 2 * (all_rows - by_row) / 3
        return np.asarray(drop * (by_column + others), dtype=np.float64)
