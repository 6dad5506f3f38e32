"""The maps of a run: how each looks, how it changed from save to save, and what it was to be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rram_hil.report.drawing import Picture, svg
from rram_hil.report.maps import PICTURE_CELLS, UNUSED, image, map_axes, painting
from rram_hil.report.model import MapPanel
from rram_hil.report.step import RunStep
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_reader import MapStack, RunFile
from rram_hil.types import FloatArray
from rram_hil.units import count, duration, micro, prefix_of, quantity, scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILES_SHOWN = 2
"""Tiles of a map that are drawn on a page; numbers cover all."""
SAVES_LISTED = 40
"""Of more saves of a map only the last so many are in its table."""
MARKED = "#d55e00"
UNMARKED = "#e4e7ea"
"""Colours of the cells that a map of marks marks, and of the others."""
COLUMNS = (
    ">step",
    ">saved at",
    ">cells",
    ">min",
    ">25 %",
    ">median",
    ">75 %",
    ">max",
    "unit",
    ">median change",
    ">sd of change",
)
"""Of the table of a map's saves."""


@dataclass(frozen=True, eq=False)
class MapView:
    """One map of a run as a page shows it."""

    name: str
    rows: tuple[tuple[str, ...], ...]
    pictures: tuple[Picture, ...]
    note: str = ""
    changed: bool = False


def is_marks(values: AnyArray) -> bool:
    """Whether a map holds nothing but 0 and 1."""
    whole = values.dtype.kind in "biu" and values.size > 0
    return bool(whole and values.min() >= 0 and values.max() <= 1)


def map_views(run: RunFile) -> list[MapView]:
    """Every map of the run: those that were saved more than once with their change, first."""
    views = [_view(name, run.map(name)) for name in run.map_names]
    return sorted(views, key=lambda view: not view.changed)


def _view(name: str, stack: MapStack) -> MapView:
    words, values = name.replace("_", " "), stack.values
    more = values.shape[1] - TILES_SHOWN
    notes = [f"{TILES_SHOWN} of {values.shape[1]} tiles are drawn."] if more > 0 else []
    last = values[-1]
    if is_marks(values):
        marked = f"{count(int(last.sum()))} of {count(last.size)} cells"
        pictures = map_pictures(words, last, "", where=marked)
        return MapView(name, (), tuple(pictures), " ".join(notes))
    rows = _rows(stack)
    if len(values) == 1:
        return MapView(name, rows, tuple(map_pictures(words, last, stack.units)), " ".join(notes))
    ends = scale_of(np.stack([values[0], last]))
    pictures = [
        *map_pictures(f"{words}, first (step {stack.step[0]})", values[0], stack.units, ends),
        *map_pictures(f"{words}, last (step {stack.step[-1]})", last, stack.units, ends),
        *map_pictures(
            f"{words}: last − first", change_of(values[0], last), stack.units, is_change=True
        ),
    ]
    return MapView(name, rows, tuple(pictures), " ".join(notes), changed=True)


def change_of(before: AnyArray, after: AnyArray) -> FloatArray:
    """What was added, shape (tiles, rows, columns); NaN where either is not known."""
    return np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)


def _rows(stack: MapStack) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = []
    for k in range(max(0, len(stack.values) - SAVES_LISTED), len(stack.values)):
        change: Iterable[str] = ("", "")
        if k:
            moved = change_of(stack.values[k - 1], stack.values[k])
            moved = moved[np.isfinite(moved)]
            if moved.size:
                spread = float(moved.std()) if moved.size > 1 else math.nan
                told = (float(np.median(moved)), spread)
                change = (micro(quantity(v, stack.units)) for v in told)
        rows.append(
            (
                str(stack.step[k]),
                duration(float(stack.time_s[k])),
                *spread_of(stack.values[k], stack.units),
                *change,
            )
        )
    return tuple(rows)


def spread_of(values: AnyArray, units: str) -> tuple[str, ...]:
    """Number of cells with a value, lowest, quartiles, highest, and their unit, as words."""
    known = values[np.isfinite(values)].astype(np.float64)
    if known.size == 0:
        return ("0", *["-"] * 5, "")
    texts, unit = scaled([float(c) for c in np.percentile(known, [0, 25, 50, 75, 100])], units)
    return (count(known.size), *texts, micro(unit))


def scale_of(values: AnyArray, *, is_change: bool = False) -> tuple[float, float]:
    """The ends of a scale that holds the values but for 1 % of outliers, never empty."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if is_change:
        end = float(np.percentile(np.abs(known), 99)) if known.size else 0.0
        return (-end, end) if end > 0 else (-1e-9, 1e-9)
    low, high = (float(v) for v in np.percentile(known, [0.5, 99.5])) if known.size else (0.0, 0.0)
    if not high - low > 1e-9 * abs(high):
        low, high = low - 0.5 * abs(low), high + 0.5 * abs(high)
    return (low, high) if high > low else (0.0, 1.0)


def map_pictures(
    title: str,
    values: AnyArray,
    units: str,
    ends: tuple[float, float] | None = None,
    *,
    is_change: bool = False,
    where: str = "",
) -> list[Picture]:
    """A picture of each of the first tiles of a map (tiles, rows, columns)."""
    ends = ends or scale_of(values, is_change=is_change)
    pictures = []
    for tile in range(min(len(values), TILES_SHOWN)):
        of = f"{title}, tile {tile}" if len(values) > 1 else title
        with drawn_map(values[tile], units, ends, is_change=is_change) as axes:
            rows, columns = values.shape[1:]
            alt = f"Map of {of}, {rows} rows by {columns} columns"
            pictures.append(Picture(of, svg(axes, alt), where))
    return pictures


@contextmanager
def drawn_map(
    values: AnyArray,
    units: str,
    ends: tuple[float, float],
    *,
    is_change: bool = False,
    origin: tuple[int, int] = (0, 0),
    labels: tuple[str, str] = ("column", "row"),
) -> Iterator[Axes]:
    """One tile (rows, columns) drawn; cells without a value are grey, marks have a colour of their
    own. `origin` is the (row, column) of its first cell.
    """
    shown = np.asarray(values, dtype=np.float64)
    shown = np.where(np.isfinite(shown), shown, np.nan)
    block = math.ceil(max(shown.shape) / PICTURE_CELLS)
    marks: list[tuple[Any, str]] = [(np.isnan(shown), UNUSED)]
    unit, factor = "" if units == "1" else units, 1.0
    if is_marks(values):
        ends = (0.0, 1.0)
        marks += [(shown == 0, UNMARKED), (shown == 1, MARKED)]
    elif units not in ("", "1"):
        prefix, factor = prefix_of(max(abs(ends[0]), abs(ends[1])))
        unit = micro(prefix + units)
    paint = painting(*ends, is_change=is_change)
    rgb = image(shown, marks, paint, block)
    shape = shown.shape[0], shown.shape[1]
    with map_axes(rgb, shape, paint, ends, factor, unit, origin) as axes:
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if is_marks(values):
            axes.child_axes[0].remove()
        yield axes


def panels_of(run: RunFile) -> list[MapPanel]:
    """Target and programmed conductance of the network or map that the run programmed last, where
    it programmed one and read it afterwards.
    """
    names = run.map_names
    if "target" not in names or "conductance" not in names:
        return []
    target, found = run.map("target"), run.map("conductance")
    after = np.flatnonzero(found.step >= target.step[-1])
    if not after.size:
        return []
    read_by = int(found.step[after[-1]])
    faults = RunStep(run, read_by, "").faults()
    return [
        MapPanel(
            "Target and programmed",
            target.values[-1].astype(np.float64),
            found.values[after[-1]].astype(np.float64),
            faults.get("stuck_low_resistance"),
            faults.get("stuck_high_resistance"),
            f"The target is of step {target.step[-1]}, the reading of step {read_by}.",
            faults.get("not_formed"),
        )
    ]
