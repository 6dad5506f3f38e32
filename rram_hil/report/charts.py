"""The charts of a report: accuracies as bars, and the distribution of the programming error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rram_hil.report.drawing import BLUE, CARD, CURVE, DASHED, GOAL, INK, Picture, new_axes, svg
from rram_hil.report.maps import MapCells
from rram_hil.report.model import Bar, BarChart, mean
from rram_hil.types import FloatArray
from rram_hil.units import minus, number, per_cent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHIPS: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 6.5,
    "markerfacecolor": CARD,
    "markeredgecolor": INK,
    "clip_on": False,
    "zorder": 3,
}


def bar_chart(chart: BarChart) -> Picture:
    """Accuracies as bars below their names, reference accuracies as dashed lines."""
    known = [v for bar in chart.bars for v in bar.accuracy if math.isfinite(v)]
    if not known:
        return Picture(chart.title, "", "No accuracy was measured.")
    start, end = accuracy_range(min(known), max(known))
    bars = [bar for bar in chart.bars if not bar.reference]
    with new_axes(size=(400, 52 + 42 * len(bars)), margins=(18, 60, 26, 26)) as axes:
        axes.set(xlim=(start, end), ylim=(len(bars) - 0.4, -0.6), yticks=[])
        axes.grid(axis="x")
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, place: f"{value * 100:.6g} %")
        for place, bar in enumerate(bars):
            _bar(axes, place, start, bar, chart.images)
        for bar in chart.bars:
            if bar.reference and math.isfinite(mean(bar.accuracy)):
                _goal(axes, mean(bar.accuracy), f"{_short(bar.name, 30)} {_text(bar, chart)}")
        alt = "; ".join(f"{bar.name} {_text(bar, chart)}" for bar in chart.bars)
        picture = svg(axes, f"{chart.title}. {alt}")
    note = "The axis begins at 0."
    if start > 0:
        note = (
            f"The axis begins at {start * 100:.6g} %, not at 0: compare the ends of the bars, not"
            " their lengths."
        )
    if any(len(bar.accuracy) > 1 for bar in bars):
        note += " Each dot is one chip; a bar ends at their mean."
    return Picture(f"Accuracy: {chart.title}", picture, note)


def _bar(axes: Axes, place: int, start: float, bar: Bar, images: int) -> None:
    accuracy, middle = mean(bar.accuracy), place + 0.1
    name: dict[str, Any] = {"color": INK, "fontsize": 13}
    axes.text(start, place - 0.2, _short(bar.name, 40), **name)
    beside = axes.get_yaxis_transform()
    text = per_cent(accuracy, images)
    axes.text(1.17, middle, text, ha="right", va="center", transform=beside, **name)
    if math.isfinite(accuracy):
        axes.barh(middle, accuracy - start, 0.31, left=start, color=BLUE)
        if start > 0:
            axes.text(start, middle, " ∕∕", color=CARD, weight="bold", va="center")
    if len(bar.accuracy) > 1:
        axes.plot(bar.accuracy, [middle] * len(bar.accuracy), **_CHIPS)


def _goal(axes: Axes, accuracy: float, text: str) -> None:
    axes.axvline(accuracy, **DASHED)
    side: Literal["left", "right"] = "right" if accuracy > sum(axes.get_xlim()) / 2 else "left"
    axes.text(accuracy, -0.75, text, ha=side, color=GOAL, weight="bold")


def _text(bar: Bar, chart: BarChart) -> str:
    return per_cent(mean(bar.accuracy), chart.images)


def accuracy_range(low: float, high: float) -> tuple[float, float]:
    """From 0 where a bar is short anyway, else from a round number that leaves the shortest bar a
    visible length.
    """
    if low < 0.5:
        return 0.0, 1.0
    spread = max(high - low, 0.005)
    step = 10.0 ** math.floor(math.log10(spread))
    step *= 2 if spread < 4 * step else 5
    start = math.floor((low - 0.3 * step) / step) * step
    return max(round(start, 10), 0.0), min(math.ceil(high / step - 1e-9) * step, 1.0)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True, eq=False)
class ErrorSummary:
    """The programming error of a panel's cells: its statistics and their pictures, none where all
    cells have one error.
    """

    size: int
    mean_text: str = ""
    sigma: float = math.nan
    median: float = math.nan
    worst: float = math.nan
    pictures: tuple[Picture, ...] = ()

    @classmethod
    def of(cls, cells: MapCells) -> ErrorSummary:
        """The summary of the counted cells."""
        error = cells.error
        if error.size < 2:
            return cls(error.size)
        middle, sigma, size = float(error.mean()), float(error.std()), np.abs(error)
        # One error for all, but for rounding: there is no distribution to draw.
        pictures = (
            (_histogram(error, middle, sigma), _tail(error, middle, sigma), _by_level(cells))
            if sigma >= 1e-9 * (1 + abs(middle))
            else ()
        )
        # The mean has as many decimals as its sigma printed to 3 digits.
        text = (
            minus(f"{middle:.{max(2 - math.floor(math.log10(sigma)), 0)}f}")
            if sigma > 0
            else number(middle)
        )
        return cls(error.size, text, sigma, float(np.median(size)), float(size.max()), pictures)


def _histogram(error: FloatArray, middle: float, sigma: float) -> Picture:
    reach = 4.5 * sigma
    low = max(middle - reach, min(float(error.min()), middle - sigma))
    high = min(middle + reach, max(float(error.max()), middle + sigma))
    counts, edges = np.histogram(
        error, bins=int(np.clip(math.sqrt(error.size), 12, 60)), range=(low, high)
    )
    width = float(edges[1] - edges[0])
    outside = int(error.size - counts.sum())
    x = np.linspace(low, high, 121)
    normal = np.exp(-0.5 * ((x - middle) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    with new_axes("G programmed / G target − 1", "cells in a bin") as axes:
        axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.4)
        axes.stairs(counts, edges, color=BLUE)
        axes.plot(x, error.size * width * normal, **DASHED)
        axes.set(xlim=(low, high), ylim=(0, None))
        alt = (
            f"Histogram of the programming error: mean {number(middle)}, sigma {number(sigma)},"
            f" {error.size} cells"
        )
        note = (
            f"Bins of {number(width, 2)}. Line: the normal curve of the same mean and sigma."
            f" {f'{number(outside)} cells lie' if outside else 'No cell lies'} beyond the axis."
        )
        return Picture("Histogram of the error", svg(axes, alt), note)


def _tail(error: FloatArray, middle: float, sigma: float) -> Picture:
    size = np.sort(np.abs(error))
    n = size.size
    # Every cell of the far tail, the crowd before it thinned evenly: the line is the same to the
    # eye.
    at = np.unique(np.r_[np.linspace(0, n - 1, min(n, 200)), max(n - 200, 0) : n].astype(np.int64))
    lowest = 10.0 ** math.floor(math.log10(1.0 / n))
    high = max(float(size[-1]), 4 * sigma) * 1.02
    x = np.linspace(0, high, 200)
    root = sigma * math.sqrt(2)
    normal = [0.5 * (math.erfc((v - middle) / root) + math.erfc((v + middle) / root)) for v in x]
    with new_axes("x", "cells with |error| ≥ x", log="y") as axes:
        axes.plot(x, normal, **DASHED)
        axes.plot(size[at], 1.0 - at / n, **CURVE)
        axes.set(xlim=(0, high), ylim=(lowest, 1.0))
        alt = (
            "Share of cells whose error is at least x, on a logarithmic scale; largest error"
            f" {number(float(size[-1]))}"
        )
        note = "Solid: measured cells, to the very last. Dashed: the normal curve."
        return Picture("Tails of the error", svg(axes, alt), note)


def _by_level(cells: MapCells) -> Picture:
    target = cells.target_s[cells.counted] * 1e6
    error = cells.programmed_s[cells.counted] * 1e6 / target - 1.0
    levels, group = np.unique(np.round(target, 6), return_inverse=True)
    what = f"{len(levels)} target levels above the lowest."
    if levels.size > 32:
        what = "Targets in 16 groups of equal size."
        edges = np.quantile(target, np.linspace(0, 1, 17))
        group = np.clip(np.searchsorted(edges, target, side="right") - 1, 0, 15)
    parts = [error[group == k] for k in np.unique(group)]
    x = [float(target[group == k].mean()) for k in np.unique(group)]
    with new_axes("target, uS", "error: mean ± sigma") as axes:
        axes.axhline(0.0, **DASHED)
        axes.errorbar(
            x,
            [p.mean() for p in parts],
            [p.std() for p in parts],
            fmt="o",
            color=BLUE,
            elinewidth=2,
            markersize=7,
        )
        axes.set_xlim(0.0, max(x) * 1.05)
        alt = f"Mean and sigma of the programming error by target conductance, {len(x)} points"
        return Picture("Error by target", svg(axes, alt), f"{what} Dot: mean; line: ± one sigma.")
