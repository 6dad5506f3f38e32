"""A 1R array on its wires: all of its cells conduct whenever one of them is read or pulsed.

Lines as in `lines.py`. A reading grounds all lines but the driven one, so that its cell shares the
row's wire with all cells of the row and its column's with what these let through. In a pulse the
scheme puts its levels on the other lines; what is left of the volts at the selected cell follows
from the cells' drops with each row, and each column, alone at one volt.
"""

from __future__ import annotations

import numpy as np

from rram_hil.array import Scheme
from rram_hil.crossbar.ir_drop import Lines, column_drops, row_drops
from rram_hil.types import FloatArray, IntArray


def read_s(g_s: FloatArray, at: IntArray, line_ohm: float) -> FloatArray:
    """What readings of the cells `at` (flat) of a tile of conductances `g_s` (S, shape (rows,
    columns)) show (S).
    """
    row, column = np.divmod(at, g_s.shape[1])
    rows, which = np.unique(row, return_inverse=True)
    found = Lines.of(line_ohm).network(g_s).solve(left_v=np.eye(g_s.shape[0])[rows], nodes=False)
    return np.asarray(-found.bottom_a[which, column], dtype=np.float64)


def pulse_v(
    g_s: FloatArray,
    at: IntArray,
    bl_v: FloatArray,
    sl_v: FloatArray,
    scheme: Scheme,
    line_ohm: float,
) -> FloatArray:
    """BL - SL (V) across the selected cells `at`, each in its turn, as they conduct now; levels of
    each, shape of `at`.

    For the schemes that hold all lines at levels: V/2, V/3 and `grounded`.
    """
    drop = bl_v - sl_v
    network = Lines.of(line_ohm).network(g_s).prepare()
    row, column = np.divmod(at, g_s.shape[1])
    rows, its_row = np.unique(row, return_inverse=True)
    columns, its_column = np.unique(column, return_inverse=True)
    by_row, by_column = (
        row_drops(network, rows)[its_row, column],
        column_drops(network, columns)[its_column, row],
    )
    if scheme is Scheme.GROUNDED:
        return np.asarray(bl_v * by_column - sl_v * by_row, dtype=np.float64)
    if scheme is Scheme.HALF:
        return np.asarray(drop / 2 * (by_column + by_row), dtype=np.float64)
    # V/3: the other bit lines stand at a third of the selected cell's volts, the other source lines
    # at two thirds.
    all_rows, all_columns = network.solve(left_v=1.0), network.solve(bottom_v=1.0)
    by_rows, by_columns = (
        sign * (one.row_v - one.column_v)[0, row, column]  # type: ignore[operator]
        for sign, one in ((1, all_rows), (-1, all_columns))
    )
    others = (by_columns - by_column) / 3 - 2 * (by_rows - by_row) / 3
    return np.asarray(drop * (by_column + others), dtype=np.float64)
