"""The figures by which a device model is compared with measurements, and the tolerances that they
must keep.

Medians, thresholds and spreads of sweeps; moments and tails of relaxation; forming; cycling; read
noise; pulses of a write-verify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.types import FloatArray

from .measured_files import Measured

Figures = dict[str, float]
_WINDOWS, _FIFTHS = 8, 5
"""Different windows of a write-verify that are told apart, and bands of them where there are
more.
"""
_SHOWN = 5
"""Numbers of pulses, at most, whose medians are figures."""
AWAY_LN = 0.3
"""A sweep's threshold is where it has gone this far from its start, in ln G."""


@dataclass(frozen=True)
class Tolerance:
    """How far a prediction may be off: a part of the measured value, or an absolute amount, or the
    larger of both.
    """

    relative: float = 0.0
    absolute: float = 0.0

    def width(self, measured: float) -> float:
        """The allowed difference, in the figure's own unit."""
        return max(self.relative * abs(measured), self.absolute)


@dataclass(frozen=True, eq=False)
class Curves:
    """Sweeps on a common grid: `ln_g` (sweeps, volts) of G in uS, `cell` (sweeps,), `volts`
    (volts,), which are numbers of pulses of trains.
    """

    cell: FloatArray
    volts: FloatArray
    ln_g: FloatArray

    def of_rows(self, rows: NDArray[np.int64], cell: FloatArray | None = None) -> Curves:
        """Some of the sweeps (repeats allowed), under new cell numbers where given."""
        return Curves(self.cell[rows] if cell is None else cell, self.volts, self.ln_g[rows])


def curves(measured: Measured) -> Curves:
    """The sweeps of a file; a stopped sweep's last value is carried forward, a missing first one
    backward.
    """
    good = measured["r_after_ohm"] > 0
    v = measured.levels[good]
    g = 1e6 / measured["r_after_ohm"][good]
    volts, column = np.unique(v, return_inverse=True)
    key, row = np.unique(
        np.stack([measured["cell"][good], measured["sweep"][good]]), axis=1, return_inverse=True
    )
    table = np.full((key.shape[1], volts.size), np.nan)
    table[row.ravel(), column] = g
    return Curves(key[0], volts, np.log(np.maximum(_carried(table), 0.01)))


def _carried(table: FloatArray) -> FloatArray:
    """Fill NaN from the left, then from the right."""
    at = np.where(np.isfinite(table), np.arange(table.shape[1]), -1)
    last = np.maximum.accumulate(at, axis=1)
    filled = np.take_along_axis(table, np.maximum(last, 0), axis=1)
    first = np.argmax(np.isfinite(table), axis=1)
    start = table[np.arange(table.shape[0]), first]
    return np.where(last < 0, start[:, None], filled)


def sweep_figures(sweeps: Curves) -> Figures:
    """Start, end and extreme medians (uS), voltage half way, threshold and its spreads (V), spreads
    of ln G.
    """
    ln_g, v = sweeps.ln_g, sweeps.volts
    m = np.median(ln_g, axis=0)
    a = m[0]
    b = m.max() if m.max() - a > a - m.min() else m.min()
    half = (a + b) / 2
    beyond = m > half if b > a else m < half
    k = int(np.argmax(beyond))
    half_v = (
        float(v[k - 1] + (half - m[k - 1]) / (m[k] - m[k - 1]) * (v[k] - v[k - 1]))
        if k > 0
        else np.nan
    )
    away = np.abs(ln_g - ln_g[:, :1]) > AWAY_LN
    threshold = np.where(away.any(axis=1), v[np.argmax(away, axis=1)], np.nan)
    within, between = _spreads(threshold, sweeps.cell)
    return {
        "start_uS": float(np.exp(a)),
        "end_uS": float(np.exp(m[-1])),
        "extreme_uS": float(np.exp(b)),
        "half_v": half_v,
        "threshold_v": _median(threshold),
        "threshold_sd_c2c": within,
        "threshold_sd_d2d": between,
        "sd_lnG_end": _sd(ln_g[:, -1]),
        "sd_lnG_half": _sd(ln_g[:, min(k, v.size - 1)]),
    }


def train_figures(trains: Curves) -> Figures:
    """Medians (uS) after some numbers of pulses, the last over the first of them, spreads of ln G
    between trains, and of its change from one reading to the next.
    """
    ln_g, pulses = trains.ln_g, trains.volts
    shown = np.unique(np.geomspace(1, pulses.size, _SHOWN).astype(np.int64)) - 1
    found = {f"G@{pulses[k]:g}": float(np.exp(np.median(ln_g[:, k]))) for k in shown}
    if pulses.size > 1:
        found["last/first"] = float(np.exp(np.median(ln_g[:, -1] - ln_g[:, 0])))
        found["sd_lnG_step"] = _sd(np.diff(ln_g, axis=1).ravel())
    return found | {f"sd_lnG@{pulses[k]:g}": _sd(ln_g[:, k]) for k in {0, pulses.size - 1}}


def figures_of(measured: Measured) -> Callable[[Curves], Figures]:
    """The figures by which the curves of a sweep, or of trains of pulses, are judged."""
    return train_figures if measured.kind == "pulses" else sweep_figures


def _spreads(values: FloatArray, cell: FloatArray) -> tuple[float, float]:
    """Root of the mean variance within a cell, and sd of the cells' means; NaN values do not
    count.
    """
    good = np.isfinite(values)
    if not good.any():
        return np.nan, np.nan
    _, at = np.unique(cell[good], return_inverse=True)
    x = values[good]
    n = np.bincount(at)
    mean = np.bincount(at, x) / n
    square = np.bincount(at, (x - mean[at]) ** 2)
    several = n > 1
    within = np.sqrt(np.mean(square[several] / (n[several] - 1))) if several.any() else np.nan
    return float(within), _sd(mean)


def _sd(x: FloatArray) -> float:
    return float(np.std(x, ddof=1)) if x.size > 1 else float("nan")


def _median(x: FloatArray) -> float:
    good = x[np.isfinite(x)]
    return float(np.median(good)) if good.size else float("nan")


def relax_figures(
    time_s: FloatArray, initial_s: FloatArray, now_s: FloatArray, edges_us: FloatArray
) -> Figures:
    """Mean, sd, 99th percentile of |change| and robust sd (uS) at each time; sd at 1 s by bands of
    the initial conductance.
    """
    change = (now_s - initial_s) * 1e6
    found: Figures = {}
    for t in np.unique(time_s[time_s > 0]):
        x = change[time_s == t]
        found[f"mean@{t:g}s"] = float(x.mean())
        found[f"sd@{t:g}s"] = _sd(x)
        found[f"p99|dG|@{t:g}s"] = float(np.quantile(np.abs(x), 0.99))
        found[f"mad_sd@{t:g}s"] = float(1.4826 * np.median(np.abs(x - np.median(x))))
    one = time_s == 1.0
    for low, high in pairwise(edges_us):
        inside = one & (initial_s * 1e6 > low) & (initial_s * 1e6 <= high)
        if inside.sum() > 1:
            found[f"sd@1s G in ({low:.4g}, {high:.4g}]"] = _sd(change[inside])
    return found


def band_edges_us(time_s: FloatArray, initial_s: FloatArray) -> FloatArray:
    """Edges (uS) of the five equal bands of initial conductance at 1 s, the lowest a little lower
    so that it holds all.
    """
    g = initial_s[time_s == 1.0] * 1e6
    if g.size == 0:
        return np.zeros(0)
    edges = np.linspace(g.min(), g.max(), 6)
    edges[0] -= 0.001 * (g.max() - g.min())
    return edges


def form_figures(bl_v: FloatArray, r_after_ohm: FloatArray) -> Figures:
    """Mean, sd and 99th percentile of the forming volts, median resistance after, of the cells that
    formed.
    """
    return {
        "bl_mean": float(bl_v.mean()),
        "bl_sd": _sd(bl_v),
        "bl_p99": float(np.quantile(bl_v, 0.99)),
        "r_after": float(np.median(r_after_ohm)),
    }


def cycle_figures(r_hrs_ohm: FloatArray, r_lrs_ohm: FloatArray) -> Figures:
    """Medians (ohm) and sd of ln R of the high and the low state."""
    found: Figures = {}
    for name, r in (("r_hrs_ohm", r_hrs_ohm), ("r_lrs_ohm", r_lrs_ohm)):
        found[f"{name} median"] = float(np.median(r))
    for name, r in (("r_hrs_ohm", r_hrs_ohm), ("r_lrs_ohm", r_lrs_ohm)):
        found[f"{name} sd ln"] = _sd(np.log(r[r > 0]))
    return found


def noise_figures(g_s: FloatArray, noise_s: FloatArray) -> Figures:
    """Median of sd(G)/G of the lower and of the upper half of the cells by their conductance."""
    ratio, middle = noise_s / np.maximum(g_s, 1e-9), np.median(g_s)
    return {
        "noise/G, lower half": _median(ratio[g_s <= middle]),
        "noise/G, upper half": _median(ratio[g_s > middle]),
    }


def bands_of(low_ohm: FloatArray) -> FloatArray:
    """The window under whose name each one is counted: itself, and of more than eight different
    ones the lowest of its fifth.
    """
    each = np.unique(low_ohm)
    if each.size <= _WINDOWS:
        return low_ohm
    lowest = each[(np.arange(_FIFTHS) * each.size) // _FIFTHS]
    return np.asarray(lowest[np.searchsorted(lowest, low_ohm, side="right") - 1])


def verify_figures(low_ohm: FloatArray, pulses: FloatArray, success: FloatArray) -> Figures:
    """Of each window (named by its lower end): part of failures; mean, median and 95th percentile
    of the pulses of those that succeeded.
    """
    found: Figures = {}
    for low in np.unique(low_ohm):
        here = low_ohm == low
        good = here & (success == 1)
        found[f"failures[{low:g}]"] = float(1 - np.mean(success[here] == 1))
        mine = pulses[good] if good.any() else np.full(1, np.nan)
        found[f"mean pulses[{low:g}]"] = float(np.mean(mine))
        found[f"median pulses[{low:g}]"] = float(np.median(mine))
        found[f"p95 pulses[{low:g}]"] = float(np.quantile(mine, 0.95))
    return found


_TOLERANCES: dict[str, Tolerance] = {
    "start_uS": Tolerance(0.05),
    "end_uS": Tolerance(0.05),
    "extreme_uS": Tolerance(0.05),
    "half_v": Tolerance(absolute=0.1),
    "threshold_v": Tolerance(absolute=0.1),
    "threshold_sd": Tolerance(0.35, 0.005),
    "sd_lnG": Tolerance(0.35),
    "G@": Tolerance(0.05),
    "last/first": Tolerance(0.10),
    "mean@": Tolerance(0.10, 0.1),
    "sd@1s G in": Tolerance(0.20),
    "sd@": Tolerance(0.10),
    "mad_sd@": Tolerance(0.10),
    "p99|dG|": Tolerance(0.15),
    "bl_mean": Tolerance(0.02),
    "bl_sd": Tolerance(0.20),
    "r_hrs_ohm median": Tolerance(0.10),
    "r_lrs_ohm median": Tolerance(0.05),
    "r_hrs_ohm sd": Tolerance(0.15),
    "r_lrs_ohm sd": Tolerance(0.15),
    "noise/G": Tolerance(0.15),
    "failures": Tolerance(absolute=0.03),
    "mean pulses": Tolerance(0.20),
    "p95 pulses": Tolerance(0.20),
}


def tolerance(figure: str) -> Tolerance | None:
    """The tolerance of a figure; None for one that is only told."""
    return next((value for start, value in _TOLERANCES.items() if figure.startswith(start)), None)


Verdict = Literal["pass", "miss", "told"]


@dataclass(frozen=True)
class Compared:
    """One figure: measured, predicted, the allowed difference (tolerance or twice the standard
    error) and the verdict.
    """

    figure: str
    measured: float
    predicted: float
    allowed: float
    verdict: Verdict


def compare(measured: Figures, predicted: Figures, error: Figures) -> list[Compared]:
    """Judge each measured figure; `error` holds the standard errors of (predicted - measured)."""
    found = []
    for figure, value in measured.items():
        rule = tolerance(figure)
        guess = predicted.get(figure, float("nan"))
        twice = 2 * error.get(figure, 0.0)
        if rule is None or not np.isfinite(value):
            found.append(Compared(figure, value, guess, float("nan"), "told"))
            continue
        allowed = max(rule.width(value), twice if np.isfinite(twice) else 0.0)
        # Volts of a grid may lie apart by as much as is allowed, but for the last digit.
        is_near = abs(guess - value) <= allowed * (1 + 1e-9)
        found.append(Compared(figure, value, guess, allowed, "pass" if is_near else "miss"))
    return found
