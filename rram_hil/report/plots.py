"""Plots of a run: a protocol says with an array that it saves how to draw it; `rram-hil show RUN
--plots FILE.html` draws.

The saying is a few attributes of the array (`Chart.attrs`), so a run file carries its own plots and
a third party's protocol gets them like any other. Along its last dimension the array is a line;
each index of the dimensions before is a line of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rram_hil.errors import DataError
from rram_hil.report.drawing import CURVE, HUES, Picture, new_axes, svg, whole_decade
from rram_hil.report.page import render, write_page
from rram_hil.statistics import UNCERTAINTY
from rram_hil.storage.run_reader import RunFile, SavedData
from rram_hil.types import FloatArray
from rram_hil.units import figure_text, prefix_of, quantity

LINES_SHOWN = 40
"""Of more lines only so many, evenly chosen, are drawn, thin."""


@dataclass(frozen=True)
class Chart:
    """How to draw a saved array: title, the saved array that holds x, those of a band around the
    line, what is logarithmic.

    `x` has the length of the array's last dimension, or its shape. `log` is "", "x", "y" or "xy".
    `label` names the y axis; `dots` marks every point; `of` names the saved array whose values tell
    the lines apart.
    """

    title: str
    x: str
    low: str = ""
    high: str = ""
    log: str = ""
    label: str = ""
    dots: bool = False
    of: str = ""

    def attrs(self) -> dict[str, str | float | int]:
        """As attributes of a `Save`."""
        return {
            "plot": self.title,
            "plot_x": self.x,
            "plot_low": self.low,
            "plot_high": self.high,
            "plot_log": self.log,
            "plot_label": self.label,
            "plot_dots": int(self.dots),
            "plot_of": self.of,
        }

    @classmethod
    def of_saved(cls, saved: SavedData) -> Chart | None:
        """What the array's attributes say; None where it is not to be drawn."""
        a = saved.attributes
        if not a.get("plot"):
            return None
        title, x, low, high, log, words = (
            str(a.get(name, ""))
            for name in ("plot", "plot_x", "plot_low", "plot_high", "plot_log", "plot_label")
        )
        return cls(
            title, x, low, high, log, words, bool(a.get("plot_dots", 0)), str(a.get("plot_of", ""))
        )


def plots_of(run: RunFile) -> list[tuple[str, str, str]]:
    """(step, title, SVG) of every plot that the run's arrays ask for. Raises `DataError` for an
    array that does not fit.
    """
    drawn = []
    for step, name in run.result_names:
        saved = run.result(step, name)
        chart = Chart.of_saved(saved)
        if chart is not None and saved.values.size:
            drawn.append((step, chart.title, _draw(run, step, name, chart, saved)))
    return drawn


def write_plots(run: RunFile, path: Path, title: str) -> int:
    """Write every plot of a run on one HTML page and return how many. Raises `DataError` where
    there is none, or no place.
    """
    drawn = plots_of(run)
    if not drawn:
        raise DataError(f"{title}: no step of this run saved anything to plot")
    steps = [
        {
            "title": step.replace("_", " ", 1),
            "figures": _figures(run, step),
            "pictures": [Picture(name, text) for of, name, text in drawn if of == step],
        }
        for step in dict.fromkeys(step for step, _, _ in drawn)
    ]
    write_page(path, render("plots.html", title=title, steps=steps))
    return len(drawn)


def _figures(run: RunFile, step: str) -> list[tuple[str, str]]:
    """Name and text of every figure with an uncertainty that a step saved."""
    figures = []
    for of, name in run.result_names:
        saved = run.result(of, name) if of == step else None
        if saved is not None and saved.values.ndim == 0 and UNCERTAINTY in saved.attributes:
            value, uncertainty = float(saved.values), float(saved.attributes[UNCERTAINTY])
            figures.append((name.replace("_", " "), figure_text(value, uncertainty, saved.units)))
    return figures


def _beside(run: RunFile, step: str, name: str, shape: tuple[int, ...]) -> FloatArray:
    values = run.result(step, name).values.astype(np.float64)
    try:
        return np.asarray(np.broadcast_to(values, shape), dtype=np.float64).reshape(-1, shape[-1])
    except ValueError:
        raise DataError(
            f"{step}: {name} has shape {values.shape}, which does not go with a plot of {shape}"
        ) from None


def _draw(run: RunFile, step: str, name: str, chart: Chart, saved: SavedData) -> str:
    values = np.atleast_1d(saved.values.astype(np.float64))
    shape = values.shape
    y = values.reshape(-1, shape[-1])
    x = _beside(run, step, chart.x, shape)
    bands = [_beside(run, step, n, shape) for n in (chart.low, chart.high) if n]
    low, high = bands if len(bands) == 2 else (y, y)
    # No logarithm of what is not above zero.
    x, *parts = (
        np.where(part > 0, part, np.nan) if axis in chart.log else part
        for axis, part in (("x", x), ("y", y), ("y", low), ("y", high))
    )
    unit = run.result(step, chart.x).units
    x_factor, x_label = _scale(x, unit, chart.x, "x" in chart.log)
    y_factor, y_label = _scale(np.stack(parts), saved.units, chart.label or name, "y" in chart.log)
    x, (y, low, high) = x / x_factor, (part / y_factor for part in parts)
    with new_axes(x_label, y_label, chart.log) as axes:
        shown = np.unique(np.linspace(0, len(y) - 1, min(len(y), LINES_SHOWN)).astype(np.int64))
        few = len(shown) <= len(HUES)
        names = _names(run, step, chart.of, len(y)) if len(y) > 1 and few else []
        for place, k in enumerate(shown):
            known = np.isfinite(x[k]) & np.isfinite(y[k])
            if not known.any():
                continue
            hue = HUES[place] if few else HUES[0]
            style = CURVE | {"color": hue, "marker": "o" if chart.dots else "", "markersize": 5}
            thin = {} if few else {"linewidth": 1, "alpha": 0.5}
            label = names[k] if names else None
            axes.plot(x[k][known], y[k][known], label=label, **style | thin)
            if bands:
                axes.fill_between(x[k], low[k], high[k], color=hue, alpha=0.18, linewidth=0)
        for axis in ("x", "y"):
            if axis in chart.log:
                whole_decade(axes, "x" if axis == "x" else "y")
        if names and axes.lines:
            axes.legend(labelcolor="linecolor", handlelength=0, prop={"weight": "bold"})
        return svg(axes, f"{chart.title}: {y_label} against {x_label}")


def _names(run: RunFile, step: str, of: str, lines: int) -> list[str]:
    if not of:
        return []
    saved = run.result(step, of)
    flat = saved.values.ravel()
    if flat.size != lines:
        return []
    return [
        quantity(float(v), saved.units) if saved.values.dtype.kind in "fiu" else str(v)
        for v in flat
    ]


def _scale(values: FloatArray, unit: str, name: str, log: bool) -> tuple[float, str]:
    """The factor of the prefix that suits the values, and the label of their axis."""
    words = name.replace("_", " ")
    sizes = np.abs(values[np.isfinite(values)])
    if unit in ("", "1") or not sizes.any():
        return 1.0, words
    if "/" in unit:
        return 1.0, f"{words}, {unit}"
    # Over decades the middle chooses the prefix, else the largest number.
    largest = math.sqrt(float(sizes.min()) * float(sizes.max())) if log else float(sizes.max())
    prefix, factor = prefix_of(largest)
    return factor, f"{words}, {prefix}{unit}"
