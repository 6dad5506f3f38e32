"""Plots that a run file carries: a protocol says with an array that it saves how to draw it.

The saying is a few attributes of the array (`Chart.attrs`), so a report draws them also where the
protocol is not installed. Along its last dimension the array is a line; each index of the
dimensions before is a line of its own. What such a plot cannot say, a protocol's `section` does
(`rram_hil.report.section`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.errors import DataError
from rram_hil.report.section import Axis, Line, Plot
from rram_hil.report.step import RunStep
from rram_hil.storage.run_reader import SavedData
from rram_hil.types import FloatArray
from rram_hil.units import quantity

FEW = 6
"""Of more lines none has a colour or a name of its own."""


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


def charted(step: RunStep) -> list[Plot]:
    """The plots that a step's arrays ask for. Raises `DataError` for an array that does not fit."""
    found = []
    for name in step.names:
        saved = step.saved(name)
        chart = Chart.of_saved(saved)
        if chart is not None and saved.values.size:
            found.append(_plot(step, name, chart, saved))
    return found


def _plot(step: RunStep, name: str, chart: Chart, saved: SavedData) -> Plot:
    y = np.atleast_1d(saved.values.astype(np.float64))
    shape = y.shape
    x = _beside(step, chart.x, shape)
    low, high = (
        _beside(step, n, shape) if chart.low and chart.high else None
        for n in (chart.low, chart.high)
    )
    y = y.reshape(-1, shape[-1])
    names = _names(step, chart.of, len(y)) if 1 < len(y) <= FEW else [""] * len(y)
    lines = tuple(
        Line(
            x[k],
            y[k],
            names[k],
            None if low is None else low[k],
            None if high is None else high[k],
            "both" if chart.dots else "line",
            faint=len(y) > FEW,
        )
        for k in range(len(y))
    )
    unit = step.saved(chart.x).units
    return Plot(
        chart.title,
        Axis(chart.x.replace("_", " "), unit, "x" in chart.log),
        Axis((chart.label or name).replace("_", " "), saved.units, "y" in chart.log),
        lines,
    )


def _beside(step: RunStep, name: str, shape: tuple[int, ...]) -> FloatArray:
    values = step.values(name)
    try:
        return np.asarray(np.broadcast_to(values, shape), dtype=np.float64).reshape(-1, shape[-1])
    except ValueError:
        raise DataError(
            f"{step.group}: {name} has shape {values.shape}, which does not go with a plot of"
            f" {shape}"
        ) from None


def _names(step: RunStep, of: str, lines: int) -> list[str]:
    saved = step.saved(of) if of else None
    if saved is None or saved.values.size != lines:
        return [""] * lines
    return [
        quantity(float(v), saved.units) if saved.values.dtype.kind in "fiu" else str(v)
        for v in saved.values.ravel()
    ]
