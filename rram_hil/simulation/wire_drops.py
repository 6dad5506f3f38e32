"""Wire resistance of the array: what of a cell's conductance is left at the terminals.

Source lines are driven at column 0, bit lines are held at virtual ground below the last row; one
cell pitch of either line has `line_ohm`. Word lines carry no current.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Geometry
from rram_hil.crossbar.solver import Crossbar
from rram_hil.types import FloatArray, IntArray

_SETTLES = 20


def series_ohm(index: IntArray, geometry: Geometry, line_ohm: float) -> FloatArray:
    """Wire in series with each cell (ohm) when it alone conducts: exact for single reads with all
    other gates closed.
    """
    row = index // geometry.columns % geometry.rows
    column = index % geometry.columns
    return np.asarray(line_ohm * (column + 1 + geometry.rows - row), dtype=np.float64)


def lower_ohm(index: IntArray, geometry: Geometry, line_ohm: float, polarity: int) -> FloatArray:
    """The part of `series_ohm` that lifts a cell's lower side in a pulse: its source line's in a
    SET, else its bit line's.
    """
    column = index % geometry.columns
    below = geometry.rows - index // geometry.columns % geometry.rows
    return np.asarray(line_ohm * (column + 1 if polarity > 0 else below), dtype=np.float64)


def behind_wires(
    respond: Callable[[FloatArray, FloatArray], tuple[FloatArray, NDArray[np.bool_]]],
    polarity: int,
    before_s: FloatArray,
    formed: NDArray[np.bool_],
    volts: FloatArray,
    over: FloatArray,
    series: FloatArray,
    lower: FloatArray,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """A pulse on cells behind their wires: conductance (S) and formed flag after it, as `respond`
    gives them for ideal lines.

    `respond` takes |BL - SL| and the gate over the lower of them, as they are at the cells. A SET
    goes up until the drop of the current that the cell then draws lets it no higher, a RESET begins
    with the drop of the cell as it was and comes down as the drop gives way. A cell that forms does
    so at the volts before, and to its own level.
    """

    def after(g_s: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        current = volts * g_s / (1 + g_s * series)
        return respond(volts - current * series, over - current * lower)

    found, now_formed = after(before_s)
    forming = now_formed & ~formed
    if polarity < 0:
        for _ in range(_SETTLES):
            last, found = found, np.minimum(found, after(found)[0])
            if np.array_equal(last, found):
                break
        return found, now_formed
    # What still is reached with the drop of the end needs no search.
    up = (found > before_s) & ~forming & (after(found)[0] < found)
    if not up.any():
        return found, now_formed
    # The more the cell conducts, the less the pulse would bring it to: one solution, halved in on.
    low, high = before_s, found
    for _ in range(_SETTLES):
        middle = 0.5 * (low + high)
        rises = after(middle)[0] > middle
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    return np.where(up, low, found), now_formed


def block_transfer(
    g_s: FloatArray, row: int, column: int, geometry: Geometry, line_ohm: float
) -> FloatArray:
    """Effective conductances (S) of a block with wires, shape of `g_s`: column currents = inputs
    (V) @ this.

    The exact nodal solution of the linear network of the block's source and bit lines, driven at
    their ends; lines outside the block carry no current (their gates are closed or their bit lines
    float) and only add length. By reciprocity a vector for each row or each column does, whichever
    are fewer (`Crossbar`).
    """
    rows, columns = g_s.shape
    drive, sense = line_ohm * (column + 1), line_ohm * (geometry.rows - (row + rows) + 1)
    network = Crossbar(g_s, line_ohm, line_ohm, left_ohm=drive, bottom_ohm=sense).prepare()
    if rows < columns:
        return -network.solve(left_v=np.eye(rows), nodes=False).bottom_a
    return -network.solve(bottom_v=np.eye(columns), nodes=False).left_a.T
