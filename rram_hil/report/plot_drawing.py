"""Plots and grids of a section as pictures, and the numbers behind each as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rram_hil.report.drawing import (
    CURVE,
    DASHED,
    HUES,
    INK,
    Picture,
    new_axes,
    svg,
    whole_decade,
)
from rram_hil.report.section import Axis, Grid, Line, Plot
from rram_hil.types import FloatArray
from rram_hil.units import count, micro, prefix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_DRAWN = 20_000
"""Of a plot with more points only so many, evenly chosen, are drawn."""
LINES_DRAWN = 60
"""Of more faint lines only so many, evenly chosen, are drawn."""
LEAST_SPAN = 3.0
"""Factor from the lowest to the highest value below which an axis is not logarithmic."""
MANY_DOTS = 400
"""More dots than these are small, and drawn as one image."""
NUMBERED_GRID = 12
"""A grid with more columns shows colours alone, not the numbers."""
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS = "os^Dv*"
_WIDTH, _HEIGHT, _ROW = 420.0, 290.0, 19.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 16.0, 10.0, 46.0


def draw(plot: Plot) -> Picture:
    """The plot, with what tells its lines apart above it: colour and, for those who see few
    colours, dashes or marks.
    """
    lines, left_out = _drawn(plot.lines)
    lines = [_without_zeros(line, plot) for line in lines]
    lines = [line for line in lines if np.any(np.isfinite(line.x) & np.isfinite(line.y))]
    if not lines:
        return Picture(plot.title, "", "There is no value to draw.")
    plot = replace(plot, x=_scaled_axis(plot.x, [line.x for line in lines]))
    plot = replace(plot, y=_scaled_axis(plot.y, [line.y for line in lines]))
    x_factor, x_label = _scale([line.x for line in lines], plot.x)
    y_factor, y_label = _scale([v for line in lines for v in _heights(line)], plot.y)
    names = list(dict.fromkeys(line.name for line in lines if line.name))
    rows = _legend_rows(names)
    log = "x" * plot.x.log + "y" * plot.y.log
    size = (_WIDTH, _HEIGHT + rows * _ROW)
    margins = (_LEFT, _RIGHT, _TOP + rows * _ROW, _BOTTOM)
    with new_axes(x_label, y_label, log, size, margins) as axes:
        places = {name: k for k, name in enumerate(names)}
        for line in lines:
            _line(axes, line, places.get(line.name, 0), x_factor, y_factor)
        for name in ("x", "y"):
            if name in log and axes.has_data():
                whole_decade(axes, "x" if name == "x" else "y")
        _legend(axes, lines, names, rows)
        picture = svg(axes, f"{plot.title}: {y_label} against {x_label}")
    return Picture(plot.title, picture, micro(" ".join(filter(None, (plot.note, left_out)))))


def _scaled_axis(axis: Axis, values: list[FloatArray]) -> Axis:
    """A logarithmic axis only for values that span enough for one."""
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    spans = known.size > 0 and known.min() > 0 and known.max() >= LEAST_SPAN * known.min()
    return axis if spans else replace(axis, log=False)


def _drawn(lines: tuple[Line, ...]) -> tuple[list[Line], str]:
    """The lines that are drawn, thinned where there is too much of them, and what that left out."""
    faint = [k for k, line in enumerate(lines) if line.faint]
    shown = set(range(len(lines)))
    said = []
    if len(faint) > LINES_DRAWN:
        kept = {faint[int(k)] for k in np.linspace(0, len(faint) - 1, LINES_DRAWN)}
        shown -= set(faint) - kept
        said.append(f"{len(kept)} of {count(len(faint))} thin lines are drawn.")
    points = sum(lines[k].x.size for k in shown)
    step = math.ceil(points / POINTS_DRAWN)
    if step > 1:
        said.append(f"One point in {step} is drawn.")
    return [_thinned(lines[k], step) for k in sorted(shown)], " ".join(said)


def _thinned(line: Line, step: int) -> Line:
    if step <= 1 or not line.x.size:
        return line
    # The first and the last of all stay, so that a distribution keeps its ends.
    at = np.unique(np.r_[0 : line.x.size : step, line.x.size - 1])
    return _changed(line, ("x", "y", "low", "high"), lambda values: values[at])


def _without_zeros(line: Line, plot: Plot) -> Line:
    """No logarithm of what is not above zero."""
    names = ("x",) * plot.x.log + ("y", "low", "high") * plot.y.log
    return _changed(line, names, lambda values: np.where(values > 0, values, np.nan))


def _changed(line: Line, names: Iterable[str], change: Callable[[FloatArray], FloatArray]) -> Line:
    given = {name: getattr(line, name) for name in names}
    changed: dict[str, Any] = {n: change(v) for n, v in given.items() if v is not None}
    return replace(line, **changed)


def _heights(line: Line) -> list[FloatArray]:
    return [v for v in (line.y, line.low, line.high) if v is not None]


def _scale(parts: list[FloatArray], axis: Axis) -> tuple[float, str]:
    """The factor of the prefix that suits the values, and the label of their axis."""
    values = np.concatenate([np.zeros(0), *parts])
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if axis.unit in ("", "1") or not sizes.size:
        return 1.0, axis.label
    if "/" in axis.unit or "^" in axis.unit or axis.unit == "%":
        return 1.0, f"{axis.label} ({axis.unit})"
    if axis.log and axis.unit == "s":
        return 1.0, f"{axis.label} (s)"
    # Over decades the middle chooses the prefix, else the largest number.
    prefix, factor = prefix_of(float(np.median(sizes) if axis.log else sizes.max()))
    return factor, f"{axis.label} ({micro(prefix + axis.unit)})"


def _style_of(line: Line, place: int, *, few: bool) -> dict[str, Any]:
    """Colour, dashes and marks of the line whose name is the `place`-th."""
    style: dict[str, Any] = CURVE | {"color": HUES[place % len(HUES)], "markersize": 4.5}
    if line.look in ("dots", "both"):
        style["marker"] = _MARKERS[place % len(_MARKERS)]
    if line.look == "dots":
        style |= {"linestyle": "none", "markeredgewidth": 0}
        style |= {} if few else {"markersize": 2, "alpha": 0.5, "rasterized": True}
    elif line.dashed:
        style |= DASHED
    elif line.look == "bars":
        style |= {"linewidth": 8, "alpha": 0.75}
    else:
        style["linestyle"] = _DASHES[place % len(_DASHES)]
    if line.faint:
        style |= {"linewidth": 0.9, "alpha": 0.45, "linestyle": "solid", "markersize": 2.5}
        style["zorder"] = 1.8
    return style


def _line(axes: Axes, line: Line, place: int, x_factor: float, y_factor: float) -> None:
    x, y = line.x / x_factor, line.y / y_factor
    known = np.isfinite(x) & np.isfinite(y)
    style = _style_of(line, place, few=known.sum() <= MANY_DOTS)
    if line.look == "bars":
        width = 0.9 * float(np.diff(x).min()) if x.size > 1 else 0.8
        axes.bar(x[known], y[known], width, color=style["color"], alpha=0.75, gid="curve")
    elif line.look == "steps":
        axes.step(x[known], y[known], where="post", **style)
    else:
        axes.plot(x[known], y[known], **style)
    if line.low is None or line.high is None:
        return
    low, high = line.low / y_factor, line.high / y_factor
    if line.look in ("bars", "dots") or known.sum() == 1:
        reach = np.maximum(np.stack([y - low, high - y])[:, known], 0.0)
        axes.errorbar(x[known], y[known], reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2)
    else:
        stairs: Any = "post" if line.look == "steps" else None
        hue = style["color"]
        axes.fill_between(x, low, high, color=hue, alpha=0.2, linewidth=0, step=stairs)


def _legend_rows(names: list[str]) -> int:
    if len(names) < 2:
        return 0
    longest = max(len(name) for name in names)
    columns = max(1, min(len(names), int((_WIDTH - _LEFT) // (34 + 6.6 * longest))))
    return math.ceil(len(names) / columns)


def _legend(axes: Axes, lines: list[Line], names: list[str], rows: int) -> None:
    """Names above the axes, where they hide nothing."""
    from matplotlib.lines import Line2D

    if not rows:
        return
    firsts = [next(line for line in lines if line.name == name) for name in names]
    handles = [
        Line2D([], [], label=micro(line.name), **_style_of(line, place, few=True))
        for place, line in enumerate(firsts)
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=math.ceil(len(names) / rows),
        borderaxespad=0.1,
        columnspacing=1.2,
        handlelength=1.9,
        labelcolor=INK,
        fontsize=11,
    )


def draw_grid(grid: Grid) -> Picture:
    """The grid as a picture, darker where there is more; with its numbers where they fit."""
    values = np.asarray(grid.values, dtype=np.float64)
    rows, columns = values.shape
    height = min(max(300 * rows / max(columns, 1), 110.0), 420.0)
    with new_axes(grid.column_label, grid.row_label, size=(400, height + 60)) as axes:
        axes.imshow(values, cmap="Blues", aspect="auto", interpolation="none")
        axes.grid(visible=False)
        axes.locator_params(integer=True)
        if columns <= NUMBERED_GRID:
            half = float(values.max(initial=0.0)) / 2
            for row, column in np.ndindex(rows, columns):
                axes.text(
                    column,
                    row,
                    f"{values[row, column]:.6g}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if values[row, column] > half else "black",
                )
        return Picture(
            grid.title,
            svg(axes, f"{grid.title}: {grid.row_label} against {grid.column_label}"),
            grid.note,
        )


def csv_of(plot: Plot) -> str:
    """Every number of a plot in full precision, also those that are not drawn: a row a point, NaN
    an empty field.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    banded = any(line.low is not None for line in plot.lines)
    y = _head(plot.y)
    ends = [f"{which} of {y}" for which in ("low", "high")] if banded else []
    writer.writerow(("line", _head(plot.x), y, *ends))
    for k, line in enumerate(plot.lines, 1):
        none = np.full(line.x.size, np.nan)
        parts = [line.x, line.y]
        if banded:
            parts += [none if line.low is None else line.low]
            parts += [none if line.high is None else line.high]
        fields = [["" if math.isnan(v) else repr(v) for v in part.tolist()] for part in parts]
        # A spreadsheet would carry out what begins so.
        is_formula = line.name.startswith(("=", "+", "-", "@"))
        name = f"'{line.name}" if is_formula else line.name or str(k)
        writer.writerows([name, *row] for row in zip(*fields, strict=True))
    return out.getvalue()


def grid_csv(grid: Grid) -> str:
    """The numbers of a grid: rows and columns counted from 0."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    values = np.asarray(grid.values)
    writer.writerow((f"{grid.row_label} \\ {grid.column_label}", *range(values.shape[1])))
    writer.writerows([k, *row] for k, row in enumerate(values.tolist()))
    return out.getvalue()


def _head(axis: Axis) -> str:
    return f"{axis.label} [{axis.unit}]" if axis.unit not in ("", "1") else axis.label
