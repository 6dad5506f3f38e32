"""Wire resistance of the array: what of a cell's conductance is left at the terminals.

Source lines are driven at column 0, bit lines are held at virtual ground below the last row; one cell pitch of either line
has `line_ohm`. Word lines carry no current.
"""

from __future__ import annotations

import numpy as np

from rram_hil.cells import Geometry, IntArray
from rram_hil.device.crossbar import Crossbar
from rram_hil.operations import FloatArray


def series_ohm(index: IntArray, geometry: Geometry, line_ohm: float) -> FloatArray:
    """Wire in series with each cell (ohm) when it alone conducts: exact for single reads with all other gates closed."""
    row = index // geometry.columns % geometry.rows
    column = index % geometry.columns
    return np.asarray(line_ohm * (column + 1 + geometry.rows - row), dtype=np.float64)


def block_transfer(g_s: FloatArray, row: int, column: int, geometry: Geometry, line_ohm: float) -> FloatArray:
    """Effective conductances (S) of a block with wires, shape of `g_s`: column currents = inputs (V) @ this.

    The exact nodal solution of the linear network of the block's source and bit lines, driven at their ends; lines outside
    the block carry no current (their gates are closed or their bit lines float) and only add length. By reciprocity a
    vector for each row or each column does, whichever are fewer (`Crossbar`).
    """
    rows, columns = g_s.shape
    drive, sense = line_ohm * (column + 1), line_ohm * (geometry.rows - (row + rows) + 1)
    network = Crossbar(g_s, line_ohm, line_ohm, left_ohm=drive, bottom_ohm=sense).prepare()
    if rows < columns:
        return -network.solve(left_v=np.eye(rows), nodes=False).bottom_a
    return -network.solve(bottom_v=np.eye(columns), nodes=False).left_a.T
