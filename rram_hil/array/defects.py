"""What a look at a chip finds: shorts, opens and leaky gates, as `rram-hil check` reports them.

The protocol "look" measures and returns a `LookSummary`; it stresses no cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.types import IntArray
from rram_hil.units import TOLD, Siemens

FindingKind = Literal[
    "short", "conducts with the gate closed", "open", "gate leak", "no usable reading"
]
Place = Literal["tile", "row", "column", "cell"]


@dataclass(frozen=True, eq=False)
class Finding:
    """Places of one tile with the same defect.

    `index` holds the rows or columns, shape (k,), or (row, column) of single cells, shape (k, 2);
    it is empty for a whole tile. `value` is the median over the cells meant: siemens, for a gate
    leak amperes; NaN without a reading, inf over range.
    """

    kind: FindingKind
    tile: int
    place: Place
    index: IntArray
    value: float


@dataclass(frozen=True, eq=False)
class LookSummary:
    """Cells looked at, how many have each defect (those of bad rows and columns included), and the
    median conductance (S).

    `pristine_tiles` are those in which too few cells conduct to tell an open line from an unformed
    one. `leaky_gates` counts rows, None where the bench does not measure gate currents.
    """

    cells: int
    shorted: int
    conducting_gate_closed: int
    open: int
    no_usable_reading: int
    leaky_gates: int | None
    pristine_tiles: tuple[int, ...] = field(metadata={TOLD: "pristine or all open: tile {}"})
    median_s: Siemens
    findings: tuple[Finding, ...] = field(default=())


def grouped(
    kind: FindingKind,
    bad: NDArray[np.bool_],
    other: NDArray[np.bool_],
    values: NDArray[np.float64],
    line_fraction: float,
) -> list[Finding]:
    """Defective cells, maps of shape (tiles, rows, columns), gathered into whole tiles, rows,
    columns and single cells.

    A line is named once at least `line_fraction` of its cells are bad, those with an `other` defect
    (where a bad line of another kind crosses it) left out, and at least half of all.
    """
    found: list[Finding] = []
    _, rows, columns = bad.shape
    for tile in np.flatnonzero(bad.any(axis=(1, 2))):
        here, seen = bad[tile], values[tile]
        sound = ~other[tile] | here
        bad_rows = (
            _mostly(here, sound, 1, line_fraction)
            if columns > 1
            else np.zeros(rows, dtype=np.bool_)
        )
        bad_columns = (
            _mostly(here, sound, 0, line_fraction)
            if rows > 1
            else np.zeros(columns, dtype=np.bool_)
        )
        if here.mean() >= line_fraction:
            found.append(
                Finding(kind, int(tile), "tile", np.zeros(0, dtype=np.int64), _median(seen[here]))
            )
            continue
        if bad_rows.any():
            value = _median(seen[here & bad_rows[:, None]])
            found.append(Finding(kind, int(tile), "row", np.flatnonzero(bad_rows), value))
        if bad_columns.any():
            value = _median(seen[here & bad_columns[None, :]])
            found.append(Finding(kind, int(tile), "column", np.flatnonzero(bad_columns), value))
        single = here & ~bad_rows[:, None] & ~bad_columns[None, :]
        if single.any():
            found.append(
                Finding(kind, int(tile), "cell", np.argwhere(single), _median(seen[single]))
            )
    return found


def _mostly(
    bad: NDArray[np.bool_], counted: NDArray[np.bool_], axis: int, fraction: float
) -> NDArray[np.bool_]:
    """The lines along `axis` of which `fraction` of the counted cells, and half of all, are bad."""
    number = bad.sum(axis=axis)
    return np.asarray(
        (number >= fraction * counted.sum(axis=axis)) & (2 * number >= bad.shape[axis])
    )


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")
