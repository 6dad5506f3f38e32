"""IR drop of whole maps: what an array's wires leave of its cells' conductances when it is read,
and back again.

A map is read with a voltage on the rows (source lines in a 1T1R array, word lines without gates),
driven at column 0, and the columns (bit lines) at virtual ground below the last row; an apparent
conductance is current over voltage. Which other cells conduct meanwhile, and where their lines are,
is the scheme:

- `alone`: the cell alone conducts (1T1R, all other gates closed or bit lines floating): its wires
  are in series with it;
- `row`: all cells of one row conduct, all columns are sensed at once: they share the row's wire;
- `grounded`: all cells conduct, one row is driven, the other rows and all columns are grounded at
  their ends, all columns are sensed (a multiply's matrix, a read of a 1R array): all wires are
  shared;
- `floating`: all cells conduct, one row is driven, one column grounded and sensed, all other lines
  float (sneak paths).

Back from apparent to true conductances: in `alone` G = A / (1 - A R). In `row` the measured
currents themselves give the drops, and the conductances follow by Ohm's law. In the others G is
sought whose predictions, exact solutions of `Crossbar`, are the measured: by Newton's steps in
`floating`, by steps with the slope of each cell by itself alone, accelerated after Anderson, in
`grounded`. Slopes come from reciprocity: that of a transfer conductance by any cell's is the cell's
drop from the one end, at one volt, times its drop from the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rram_hil.crossbar.solver import Crossbar, Prepared
from rram_hil.types import FloatArray, IntArray

Scheme = Literal["alone", "row", "grounded", "floating"]

FLOATING_CELLS = 1024
"""A map read with floating lines is corrected up to this size: its equations are dense."""
AGREES = 1e-9
"""Predicted and measured agree to this part of the measured (and of the map's median, for smaller
ones).
"""
_ROUNDS = 60
_DEPTH = 5
_SECOND_LOOK = 2
_NODES = 1 << 17


@dataclass(frozen=True)
class Lines:
    """Resistances (ohm): a segment of a row and of a column between neighbouring cells, and the
    leads to the outermost cells.

    `driver_ohm` is from a row's driver to column 0, `sense_ohm` from the last row to a column's
    amplifier. `of` gives those of a block of an array whose every pitch, leads included, has
    `line_ohm`, as `lines.block_transfer`.
    """

    row_ohm: float
    column_ohm: float
    driver_ohm: float = 0.0
    sense_ohm: float = 0.0

    def __post_init__(self) -> None:
        ohms = (self.row_ohm, self.column_ohm, self.driver_ohm, self.sense_ohm)
        if not all(np.isfinite(ohm) and ohm >= 0 for ohm in ohms):
            raise ValueError("lines: resistances must be finite and zero or more")

    @classmethod
    def of(cls, line_ohm: float, *, column: int = 0, rows_below: int = 0) -> Lines:
        """Lines of a block that begins at `column` and has `rows_below` rows of the array below
        it.
        """
        return cls(line_ohm, line_ohm, line_ohm * (column + 1), line_ohm * (rows_below + 1))

    def network(self, g_s: FloatArray) -> Crossbar:
        """The crossbar of these conductances with every row driven and every column sensed."""
        return Crossbar(
            g_s, self.row_ohm, self.column_ohm, left_ohm=self.driver_ohm, bottom_ohm=self.sense_ohm
        )

    def series_ohm(self, shape: tuple[int, int]) -> FloatArray:
        """Wire in series with each cell when it alone conducts."""
        row, column = np.arange(shape[0])[:, None], np.arange(shape[1])
        along = (
            self.driver_ohm
            + self.row_ohm * column
            + self.column_ohm * (shape[0] - 1 - row)
            + self.sense_ohm
        )
        return np.asarray(along, dtype=np.float64)


def apparent_map(g_s: FloatArray, lines: Lines, scheme: Scheme) -> FloatArray:
    """What a reading of the map `g_s` (S, shape (rows, columns)) shows (S). Raises `ValueError` for
    conductances below zero.
    """
    g = _checked(g_s, scheme)
    if (g < 0).any():
        raise ValueError("apparent_map: conductances must be zero or more")
    if scheme == "alone":
        return np.asarray(g / (1 + g * lines.series_ohm(g.shape)), dtype=np.float64)
    if scheme == "row":
        return _row_by_row(g, lines)
    if scheme == "grounded":
        return _grounded(g, lines)
    return _floating(g, lines)[0]


def correct_map(
    apparent_s: FloatArray, lines: Lines, scheme: Scheme, *, below_zero: bool = False
) -> tuple[FloatArray, bool]:
    """True conductances (S) of a measured map, shape (rows, columns), and whether they reproduce
    it.

    Where they do not (more current than the wires let through, no agreement within 60 rounds) the
    result is not to be used; cells that no conductance explains are NaN. Readings at or below zero,
    which noise makes of cells that hardly conduct, count as zero for the others and stay as they
    are; in `grounded`, `below_zero` frees them as all others. There results may be below zero, too.
    Raises `ValueError` for readings that are not finite and, with floating lines, for maps
    of more than 1024 cells.
    """
    a = _checked(apparent_s, scheme)
    if scheme == "alone":
        left = 1 - a * lines.series_ohm(a.shape)
        found = np.divide(a, left, out=np.full(a.shape, np.nan), where=left > 0)
        return found, bool((left > 0).all())
    if scheme == "row":
        return _from_row_currents(a, lines)
    found, converged = (
        _follow(a, lines) if scheme == "grounded" else _newton(np.maximum(a, 0.0), lines)
    )
    return np.where((a > 0) | below_zero, found, a), converged


def _checked(values: FloatArray, scheme: Scheme) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme must be one of {', '.join(get_args(Scheme))}, not {scheme!r}")
    if found.ndim != 2 or found.size == 0 or not np.isfinite(found).all():
        raise ValueError("a map must be a matrix of finite conductances")
    if scheme == "floating" and found.size > FLOATING_CELLS:
        raise ValueError(
            f"a map read with floating lines may have {FLOATING_CELLS} cells, not {found.size}"
        )
    return found


def _row_by_row(g: FloatArray, lines: Lines) -> FloatArray:
    """Rows as crossbars of one row each: its columns' wires in series with its cells, all rows side
    by side.
    """
    rows = g.shape[0]
    below = lines.sense_ohm + lines.column_ohm * (rows - 1 - np.arange(rows))[:, None]
    cell = g / (1 + g * below)
    # All sensed ends are at one potential, so the rows are independent rows of one crossbar with
    # ideal columns.
    network = Crossbar(cell, lines.row_ohm, 0.0, left_ohm=lines.driver_ohm, bottom_ohm=0.0)
    current = network.solve(left_v=1.0).cell_a
    assert current is not None
    return np.asarray(current[0], dtype=np.float64)


def _from_row_currents(a: FloatArray, lines: Lines) -> tuple[FloatArray, bool]:
    rows, columns = a.shape
    passing = np.cumsum(a[:, ::-1], axis=1)[:, ::-1]
    fall = lines.row_ohm * passing
    fall[:, 0] = lines.driver_ohm * passing[:, 0]
    row_v = 1.0 - np.cumsum(fall, axis=1)
    column_v = a * (lines.sense_ohm + lines.column_ohm * (rows - 1 - np.arange(rows))[:, None])
    left = row_v - column_v
    found = np.divide(a, left, out=np.full((rows, columns), np.nan), where=left > 0)
    return found, bool((left > 0).all())


def _grounded(g: FloatArray, lines: Lines) -> FloatArray:
    """One vector for each row or each column, whichever are fewer: the network is reciprocal."""
    network = lines.network(g).prepare()
    if g.shape[0] < g.shape[1]:
        return -network.solve(left_v=np.eye(g.shape[0]), nodes=False).bottom_a
    return -network.solve(bottom_v=np.eye(g.shape[1]), nodes=False).left_a.T


def row_drops(network: Prepared, rows: IntArray) -> FloatArray:
    """Drop (row - column, V) of each cell of these rows with its row alone at one volt, shape
    (len(rows), columns).
    """
    found = np.empty((rows.size, network.crossbar.g_s.shape[1]))
    for part in _parts(network, rows.size):
        solved = network.solve(left_v=np.eye(network.crossbar.g_s.shape[0])[rows[part]])
        k, row = np.arange(rows[part].size), rows[part]
        found[part] = solved.row_v[k, row] - solved.column_v[k, row]  # type: ignore[index]
    return found


def column_drops(network: Prepared, columns: IntArray) -> FloatArray:
    """Drop (column - row, V) of each cell of these columns with its column alone at one volt, shape
    (len(columns), rows).
    """
    found = np.empty((columns.size, network.crossbar.g_s.shape[0]))
    for part in _parts(network, columns.size):
        solved = network.solve(bottom_v=np.eye(network.crossbar.g_s.shape[1])[columns[part]])
        k, column = np.arange(columns[part].size), columns[part]
        found[part] = solved.column_v[k, :, column] - solved.row_v[k, :, column]  # type: ignore[index]
    return found


def _parts(network: Prepared, vectors: int) -> list[slice]:
    """Vectors in parts, so that the potentials of all their nodes take a few MB."""
    size = max(_NODES // network.crossbar.g_s.size, 1)
    return [slice(k, k + size) for k in range(0, vectors, size)]


def _slopes(g: FloatArray, lines: Lines) -> FloatArray:
    """Slope of each cell's apparent conductance by its own: its drop with its row at one volt times
    that with its column.
    """
    network = lines.network(g).prepare()
    rows, columns = (np.arange(n) for n in g.shape)
    return row_drops(network, rows) * column_drops(network, columns).T


def _follow(measured: FloatArray, lines: Lines) -> tuple[FloatArray, bool]:
    """All cells at once. Noise and the shared drops may leave less at a cell that hardly conducts
    than no conductance at all explains: below zero it counts by its slope alone.
    """
    usual = np.median(measured[measured > 0]) if (measured > 0).any() else 0.0
    if usual == 0:
        return measured.copy(), True
    g = measured.copy()
    slope = _slopes(np.maximum(g, 0.0), lines)
    gs: list[FloatArray] = []
    steps: list[FloatArray] = []
    for k in range(_ROUNDS):
        predicted = _grounded(np.maximum(g, 0.0), lines) + slope * np.minimum(g, 0.0)
        if (np.abs(predicted - measured) <= AGREES * np.maximum(measured, 1e-3 * usual)).all():
            return g, True
        if k == _SECOND_LOOK:
            slope, gs, steps = _slopes(np.maximum(g, 0.0), lines), [], []
        here = g.ravel()
        step = ((measured - predicted) / slope).ravel()
        gs, steps = [*gs, here][-_DEPTH - 1 :], [*steps, step][-_DEPTH - 1 :]
        there = here + step
        if len(steps) > 1:
            df = np.stack([b - c for b, c in zip(steps[1:], steps, strict=False)], axis=1)
            dx = np.stack([b - c for b, c in zip(gs[1:], gs, strict=False)], axis=1)
            there = there - (dx + df) @ np.linalg.lstsq(df, step, rcond=1e-10)[0]
        size = np.maximum(np.abs(here), 0.1 * usual)
        g = np.clip(there, here - 0.8 * size, here + 4 * size).reshape(g.shape)
    return g, False


def _floating(g: FloatArray, lines: Lines) -> tuple[FloatArray, FloatArray]:
    """Apparent conductances, and their slopes by all conductances, (cells, cells)."""
    rows, columns = g.shape
    apparent, slopes = np.empty(g.shape), np.empty((g.size, g.size))
    for row in range(rows):
        for column in range(columns):
            driver, sense = np.full(rows, np.inf), np.full(columns, np.inf)
            driver[row], sense[column] = lines.driver_ohm, lines.sense_ohm
            volts = np.zeros(rows)
            volts[row] = 1.0
            found = Crossbar(
                g, lines.row_ohm, lines.column_ohm, left_ohm=driver, bottom_ohm=sense
            ).solve(left_v=volts)
            assert found.row_v is not None
            assert found.column_v is not None
            apparent[row, column] = found.left_a[0, row]
            slopes[row * columns + column] = np.square(found.row_v - found.column_v).ravel()
    return apparent, slopes


def _newton(measured: FloatArray, lines: Lines) -> tuple[FloatArray, bool]:
    at = (measured > 0).ravel()
    if not at.any():
        return np.zeros(measured.shape), True
    g = measured.copy()
    flat = g.reshape(-1)
    # A cell reads no less than without the sneak paths, so the search begins from above and is kept
    # above zero.
    for _ in range(_ROUNDS):
        predicted, slopes = _floating(g, lines)
        if _agree(predicted.ravel()[at], measured.ravel()[at]):
            return g, True
        off = (measured - predicted).ravel()[at]
        try:
            step = np.linalg.solve(slopes[np.ix_(at, at)], off)
        except np.linalg.LinAlgError:
            return g, False
        flat[at] = np.clip(flat[at] + step, 0.2 * flat[at], 5 * flat[at])
    return g, False


def _agree(predicted: FloatArray, wanted: FloatArray) -> bool:
    return bool(
        (np.abs(predicted - wanted) <= AGREES * np.maximum(wanted, 1e-3 * np.median(wanted))).all()
    )
