"""What a protocol says of its step in a report: plots, tables and words as plain frozen values.

A protocol makes them of what it saved (`rram_hil.report.step.RunStep`); nothing here knows how they
are drawn. Numbers are in SI units: whoever draws chooses prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rram_hil.errors import DataError
from rram_hil.statistics import quantiles, wilson
from rram_hil.types import FloatArray

Look = Literal["line", "dots", "both", "steps", "bars"]
"""How a line is drawn: joined, as dots, as both, as stairs that rise at each x, or as bars. The
band of dots and bars is drawn as the reach of each.
"""


@dataclass(frozen=True)
class Axis:
    """What an axis counts, in words, the unit of its numbers, and whether it is logarithmic."""

    label: str
    unit: str = ""
    log: bool = False


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a plot: `x` and `y` of one shape (n,), a band from `low` to `high` around it
    where both are given.

    Lines of one `name` share a colour and one entry of the legend; `faint` ones are thin, as one of
    many. `dashed` marks a law or a goal that the others are compared with. Raises `DataError` where
    the lengths differ.
    """

    x: FloatArray
    y: FloatArray
    name: str = ""
    low: FloatArray | None = None
    high: FloatArray | None = None
    look: Look = "line"
    faint: bool = False
    dashed: bool = False

    def __post_init__(self) -> None:
        for name in ("x", "y", "low", "high"):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value, dtype=np.float64)
            object.__setattr__(self, name, value)
            if value.ndim != 1 or value.shape != np.shape(self.x):
                raise DataError(
                    f"line {self.name!r}: {name} has shape {value.shape}, x {np.shape(self.x)}"
                )
        if (self.low is None) != (self.high is None):
            raise DataError(f"line {self.name!r}: a band needs both low and high")


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot: its axes and lines, and a note that says what the band is and of what it is."""

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Grid:
    """Whole numbers by row and column, shape (rows, columns), as a confusion matrix has them."""

    title: str
    row_label: str
    column_label: str
    values: Any
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of words, `columns` above it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Section:
    """A step's part of a report. The figures that the step saved are shown beside it anyway."""

    text: str = ""
    plots: tuple[Plot, ...] = ()
    grids: tuple[Grid, ...] = ()
    tables: tuple[Table, ...] = ()


def cumulative(
    values: FloatArray, name: str = "", *, of: int | None = None, dashed: bool = False
) -> Line:
    """The cumulative distribution of the numbers among `values`, as stairs that begin at 0: at each
    value the share of `of` (default: of themselves) that lies at or below it, with its Wilson
    interval as band.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    at, counts = np.unique(known[np.isfinite(known)], return_counts=True)
    if not at.size:
        return Line(at, at, name, look="steps", dashed=dashed)
    whole = int(counts.sum()) if of is None else of
    reached = np.concatenate([np.zeros(1), np.cumsum(counts)])
    at = np.concatenate([at[:1], at])
    low, high = wilson(reached, max(whole, 1))
    return Line(at, reached / max(whole, 1), name, low, high, "steps", dashed=dashed)


def band_of(name: str, x: FloatArray, band: Sequence[FloatArray], look: Look = "both") -> Line:
    """A line from (low, middle, high), as `statistics.quantiles` gives them."""
    return Line(x, band[1], name, band[0], band[2], look)


def histogram(values: FloatArray, name: str = "", bins: int = 40) -> Line:
    """Counts in even bins from the lowest to the highest number among `values`, at the middles of
    the bins; around the number where all are one, but for rounding.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    size = int(np.clip(np.sqrt(known.size), 5, bins))
    ends = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if not ends[1] - ends[0] > 1e-9 * max(abs(ends[0]), abs(ends[1])):
        # np.histogram would take 0.5 to either side, whatever the unit is.
        middle = (ends[0] + ends[1]) / 2
        reach = abs(middle) / 10 or 0.5
        ends = middle - reach, middle + reach
    counts, edges = np.histogram(known, size, range=ends)
    return Line((edges[:-1] + edges[1:]) / 2, counts, name, look="bars")


def normal_quantiles(values: FloatArray, name: str = "") -> Line:
    """Each number among `values`, sorted, against the standard deviations from the middle at which
    it lies in a normal distribution: a straight line where they are normal.
    """
    from scipy.special import ndtri

    known = np.sort(np.asarray(values, dtype=np.float64).ravel())
    known = known[np.isfinite(known)]
    return Line(known, ndtri((np.arange(known.size) + 0.5) / known.size), name, look="dots")


def by_level(target: FloatArray, values: FloatArray, name: str = "", groups: int = 16) -> Line:
    """Median and 16 to 84 % band of `values` by level of `target`: by each level where there are
    few, else by groups of equal size.
    """
    known = np.isfinite(target) & np.isfinite(values)
    x, y = target[known], values[known]
    levels, group = np.unique(x, return_inverse=True)
    if levels.size > 2 * groups:
        edges = np.quantile(x, np.linspace(0, 1, groups + 1))
        group = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, groups - 1)
    parts = [group == k for k in np.unique(group)]
    middles = np.array([x[part].mean() for part in parts])
    bands = [quantiles(y[part]) for part in parts]
    low, middle, high = (np.array([float(band[k]) for band in bands]) for k in range(3))
    return Line(middles, middle, name, low, high, "both")
