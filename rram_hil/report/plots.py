"""Plots of a run: a protocol says with an array that it saves how to draw it; `rram-hil show RUN
--plots FILE.html` draws.

The saying is a few attributes of the array (`Chart.attrs`), so a run file carries its own plots and
a third party's protocol gets them like any other. Along its last dimension the array is a line;
each index of the dimensions before is a line of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.report.page import page
from rram_hil.report.picture import Axis, Plot, label
from rram_hil.statistics import UNCERTAINTY
from rram_hil.storage.run_reader import RunFile, SavedData
from rram_hil.storage.safe_files import replace
from rram_hil.terminal.console import figure_text, quantity
from rram_hil.types import FloatArray

LINES_SHOWN = 40
"""Of more lines only so many, evenly chosen, are drawn, thin."""
_HUES = 6


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
    parts = [f"<header>\n<h1>{escape(title)}</h1>\n</header>\n<main>"]
    for step in dict.fromkeys(step for step, _, _ in drawn):
        number, _, words = step.partition("_")
        parts.append(f"<section>\n<h2>{number} {escape(words)}</h2>")
        parts.append(_table(run, step))
        parts.append('<div class="three">')
        parts += [
            f'<figure class="card"><figcaption>{escape(name)}</figcaption>{svg}</figure>'
            for of, name, svg in drawn
            if of == step
        ]
        parts.append("</div>\n</section>")
    parts.append("</main>")
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(page(title, parts), encoding="utf-8", newline="\n")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    replace(temporary, path)
    return len(drawn)


def _table(run: RunFile, step: str) -> str:
    rows = []
    for of, name in run.result_names:
        saved = run.result(of, name) if of == step else None
        if saved is not None and saved.values.ndim == 0 and UNCERTAINTY in saved.attributes:
            text = figure_text(
                float(saved.values), float(saved.attributes[UNCERTAINTY]), saved.units
            )
            rows.append(
                f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(text)}</td></tr>"
            )
    if not rows:
        return ""
    head = "<thead><tr><th>figure</th><th>value ± 95 % half width</th></tr></thead>"
    return f'<table class="card">{head}<tbody>{"".join(rows)}</tbody></table>'


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
    x_axis, x_factor = _axis(x, _unit(run, step, chart.x), chart.x, "x" in chart.log)
    seen = np.concatenate([y.ravel(), low.ravel(), high.ravel()])
    y_axis, y_factor = _axis(seen, saved.units, chart.label or name, "y" in chart.log)
    plot = Plot(x_axis, y_axis)
    inside = []
    shown = np.unique(np.linspace(0, len(y) - 1, min(len(y), LINES_SHOWN)).astype(np.int64))
    names = _names(run, step, chart.of, len(y)) if len(y) > 1 else []
    for place, k in enumerate(shown):
        known = np.isfinite(x[k]) & np.isfinite(y[k])
        known &= (not x_axis.log) | (x[k] > 0)
        known &= (not y_axis.log) | (y[k] > 0)
        hue = place % _HUES if len(shown) <= _HUES else 0
        if len(bands) == 2:
            inside.append(
                _band(plot, x[k] / x_factor, low[k] / y_factor, high[k] / y_factor, known, hue)
            )
        style = f"curve hue{hue}" + (" thin" if len(shown) > _HUES else "")
        inside.append(plot.line(x[k][known] / x_factor, y[k][known] / y_factor, style))
        if chart.dots:
            across, up = plot.at_x(x[k][known] / x_factor), plot.at_y(y[k][known] / y_factor)
            inside += [
                f'<circle class="dot hue{hue}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>'
                for a, b in zip(across, up, strict=True)
            ]
        if names and len(shown) <= _HUES:
            inside.append(
                label(
                    plot.width - plot.right - 4,
                    plot.top + 14 + 15 * place,
                    names[k],
                    "end",
                    f"key hue{hue}",
                )
            )
    alt = f"{chart.title}: {y_axis.label} against {x_axis.label}"
    return plot.svg(alt, inside)


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


def _unit(run: RunFile, step: str, name: str) -> str:
    return run.result(step, name).units


def _band(
    plot: Plot, x: FloatArray, low: FloatArray, high: FloatArray, known: NDArray[np.bool_], hue: int
) -> str:
    known = known & np.isfinite(low) & np.isfinite(high)
    if plot.y.log:
        known &= (low > 0) & (high > 0)
    across = np.concatenate([plot.at_x(x[known]), plot.at_x(x[known])[::-1]])
    up = np.concatenate([plot.at_y(high[known]), plot.at_y(low[known])[::-1]])
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
    return f'<polygon class="band hue{hue}" points="{points}"/>'


def _axis(values: FloatArray, unit: str, name: str, log: bool) -> tuple[Axis, float]:
    """An axis around the values with its unit, and the factor that its prefix stands for."""
    known = values[np.isfinite(values)]
    known = known[known > 0] if log else known
    words = name.replace("_", " ")
    if known.size == 0:
        return Axis(1.0, 10.0, words, log) if log else Axis(0.0, 1.0, words), 1.0
    low, high = float(known.min()), float(known.max())
    factor, prefix = 1.0, ""
    if unit and unit != "1" and "/" not in unit:
        # Over decades the middle chooses the prefix, else the largest number.
        largest = math.sqrt(low * high) if log else max(abs(low), abs(high))
        steps = (
            (1e6, "M"),
            (1e3, "k"),
            (1.0, ""),
            (1e-3, "m"),
            (1e-6, "u"),
            (1e-9, "n"),
            (1e-12, "p"),
        )
        factor, prefix = next(((f, p) for f, p in steps if largest >= f), (1.0, ""))
    low, high = low / factor, high / factor
    text = f"{words}, {prefix}{unit}" if unit not in ("", "1") else words
    if log:
        pad = (high / low) ** 0.04 if high > low else 2.0
        low, high = low / pad, high * pad
        # At least one whole decade, so that there is a tick to read.
        if math.floor(math.log10(high)) < math.ceil(math.log10(low)) + 1:
            low, high = (
                min(low, 10.0 ** math.floor(math.log10(low))),
                max(high, 10.0 ** math.ceil(math.log10(high))),
            )
        return Axis(low, high, text, True), factor
    pad = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low - pad, high + pad, text), factor
