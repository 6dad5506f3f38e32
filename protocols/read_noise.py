"""Read noise: a time series of each cell at the read condition, its spectrum, and cells that switch
between two levels.

A random-telegraph cell is found by comparing one normal distribution of its readings with two of
one common width (expectation-maximisation): it is one where two are far better (Bayesian
information criterion), lie far enough apart for that width, and are both visited often enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import read
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section, cumulative
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, estimated, mean, median, proportion, quantiles, spread
from rram_hil.types import FloatArray
from rram_hil.units import Seconds
from rram_hil.validation import PositiveSiemens

from .parts.characterisation import save_cells, save_figures, save_map, usable

BETTER = 10.0
"""Difference of the information criterion that counts as decisive."""
CODES = 2.5
"""Levels less than so many of the smallest steps between readings apart may be codes of a
converter.
"""
ROUNDS = 60
"""Rounds of expectation-maximisation."""


@dataclass(frozen=True)
class ReadNoiseSummary:
    """Cells, those with enough readings, and figures of the noise.

    `noise` is the median of sd(G)/G over the quiet cells (no telegraph); `noise_fraction` and
    `noise_floor` (S) are the parts of sd^2 = floor^2 + (fraction x G)^2 over them, told apart where
    their conductances differ. `spectrum_exponent` is the slope of log power against log frequency:
    0 for white noise, -1 for 1/f. Telegraph figures are medians over telegraph cells: step / upper
    level, share of time at the lower level, and mean stays at either level (s).
    """

    cells: int
    readable: int
    interval_time_s: Seconds
    noise: Figure
    noise_fraction: Figure
    noise_floor: Figure
    spectrum_exponent: Figure
    telegraph_cells: Figure
    telegraph_step: Figure
    telegraph_low_share: Figure
    telegraph_low_stay: Figure
    telegraph_high_stay: Figure


@dataclass(frozen=True, eq=False)
class Telegraph:
    """Two levels of each cell, shape (n,): which cells switch, levels (S), share at the lower, mean
    stays in readings, moves.
    """

    switches: NDArray[np.bool_]
    low_s: FloatArray
    high_s: FloatArray
    low_share: FloatArray
    low_stay: FloatArray
    high_stay: FloatArray
    moves: NDArray[np.int64]


class ReadNoise(Protocol[ReadNoiseSummary]):
    """Read every cell `reads` times, in segments of `segment` readings without a pause between
    them.

    A segment is no longer than one operation of the bench; between segments of one cell the bench
    reads the others. Spectra and stays are taken within segments. A telegraph cell's levels lie at
    least `apart_sd` standard deviations apart, and it moves from one to the other at least
    `least_moves` times. `noise` and telegraph cells are of those that conduct `conducts_above_s`.
    """

    cells: CellChoice = CellChoice()
    reads: Annotated[int, Field(ge=16, le=10**6)] = 1024
    segment: Annotated[int, Field(ge=16)] | None = None
    apart_sd: Annotated[float, Field(gt=1)] = 4.0
    least_moves: Annotated[int, Field(ge=2)] = 6
    conducts_above_s: PositiveSiemens = 1e-6

    def run(self, setting: Setting) -> Plan[ReadNoiseSummary]:
        """Yields one read batch a segment; saves the series, spectra and levels."""
        cells = self.cells.cells(setting.geometry)
        length = max(min(self.reads, setting.capabilities.max_steps, self.segment or self.reads), 1)
        count = -(-self.reads // length)
        series, stamps = [], []
        for k in range(count):
            yield Progress(
                k, count, f"{len(cells)} cells, reading {k * length} of {count * length}"
            )
            result = yield from read(cells, setting.read, repeat=length, label="read noise")
            series.append(usable(result))
            stamps.append(result.time_s)
        g, time_s = np.stack(series, axis=1), np.stack(stamps, axis=1)
        flat = g.reshape(len(cells), -1)
        enough = np.isfinite(flat).sum(axis=1) >= max(16, flat.shape[1] // 2)
        interval = float(median(np.diff(time_s, axis=2).ravel())) if length > 1 else float("nan")
        found = telegraph(g, self.apart_sd, self.least_moves)
        frequency, power = spectrum(g, interval)
        rng = setting.rng("bootstrap")
        yield from save_cells(cells)
        yield Save("conductance_by_reading", g, ("cell", "segment", "reading"), "S")
        yield Save("time_s", time_s, ("cell", "segment", "reading"), "s")
        conducts = mean(flat.T) >= self.conducts_above_s
        switches = found.switches & enough & conducts
        yield save_map("conductance", cells, mean(flat.T), "S", setting)
        yield save_map("read_noise", cells, spread(flat.T), "S", setting)
        yield save_map("telegraph", cells, switches, "", setting)
        for name, values in (("telegraph_low", found.low_s), ("telegraph_high", found.high_s)):
            yield save_map(name, cells, np.where(switches, values, np.nan), "S", setting)
        for name, values in (
            ("telegraph_low_stay", found.low_stay),
            ("telegraph_high_stay", found.high_stay),
        ):
            yield save_map(name, cells, np.where(switches, values * interval, np.nan), "s", setting)
        quiet = enough & ~switches
        yield from _save_pictures(g, frequency, power, quiet, switches, interval)
        return (
            yield from save_figures(
                self._summary(flat, frequency, power, found, quiet, switches, interval, rng)
            )
        )

    def _summary(
        self,
        flat: FloatArray,
        frequency: FloatArray,
        power: FloatArray,
        found: Telegraph,
        quiet: NDArray[np.bool_],
        switches: NDArray[np.bool_],
        interval_s: float,
        rng: np.random.Generator,
    ) -> ReadNoiseSummary:
        level, sd = mean(flat[quiet].T), spread(flat[quiet].T)
        both = np.stack([level, sd], axis=1)

        def exponent(samples: FloatArray) -> FloatArray:
            # The mean over cells: the median of a few segments' power lies below it, and alike at
            # every frequency.
            known = frequency > 0
            y = np.log(mean(samples)[known])
            ok = np.isfinite(y)
            return np.asarray(
                np.polyfit(np.log(frequency[known][ok]), y[ok], 1)[0] if ok.sum() > 2 else np.nan
            )

        step = (found.high_s - found.low_s) / found.high_s

        def of(values: FloatArray, unit: str = "") -> Figure:
            return estimated(median, values[switches], unit, rng)

        n = flat.shape[0]
        return ReadNoiseSummary(
            n,
            int((quiet | switches).sum()),
            interval_s,
            estimated(median, (sd / level)[level >= self.conducts_above_s], "", rng),
            estimated(lambda s: _noise_law(s)[1], both, "", rng),
            estimated(lambda s: _noise_law(s)[0], both, "S", rng),
            estimated(exponent, power[quiet], "", rng),
            proportion(int(switches.sum()), int((quiet | switches).sum())),
            of(step),
            of(found.low_share),
            of(found.low_stay * interval_s, "s"),
            of(found.high_stay * interval_s, "s"),
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Noise of the cells and against their conductance, with the law fitted; spectrum; series
        of the cells that switch most, or of one.
        """
        level, sd, switches = (step.map(n) for n in ("conductance", "read_noise", "telegraph"))
        if level is None or sd is None or switches is None:
            return None
        known = np.isfinite(level) & np.isfinite(sd)
        quiet, moving = known & (switches == 0), known & (switches > 0)
        parts = {"quiet cells": quiet, "telegraph cells": moving}
        relative = Axis("sd(G) / |G|", "", log=True)
        dots = [
            Line(level[mask], sd[mask], name, look="dots")
            for name, mask in parts.items()
            if mask.any()
        ]
        law = [step.figures.get(name) for name in ("noise_floor", "noise_fraction")]
        if law[0] and law[1] and np.isfinite(law[0].value + law[1].value) and quiet.any():
            x = np.linspace(max(float(level[quiet].min()), 0.0), float(level[quiet].max()), 101)
            y = np.hypot(law[0].value, law[1].value * x)
            dots.append(Line(x, y, "law: floor and fraction of G", dashed=True))
        plots = [
            Plot(
                "Noise of the cells",
                relative,
                Axis("share of cells"),
                tuple(cumulative(sd[m] / np.abs(level[m]), n) for n, m in parts.items() if m.any()),
                "Bands: 95 % interval (Wilson).",
            ),
            Plot(
                "Noise against conductance",
                Axis("mean conductance", "S"),
                Axis("standard deviation", "S"),
                tuple(dots),
            ),
        ]
        if step.has("power_mean"):
            band = (step.values(f"power_{end}") for end in ("mean", "low", "high"))
            mean_, low, high = band
            plots.append(
                Plot(
                    "Power spectrum of quiet cells",
                    Axis("frequency", "Hz", log=True),
                    Axis("power density", "S^2/Hz", log=True),
                    (Line(step.values("frequency"), mean_, "", low, high),),
                    "Line: mean; band: 16 to 84 % of the cells.",
                )
            )
        trace = Line(step.values("trace_time_s"), step.values("trace"))
        title = "Readings of a cell that switches" if moving.any() else "Readings of one cell"
        plots.append(Plot(title, Axis("time", "s"), Axis("conductance", "S"), (trace,)))
        text = f"{int(moving.sum())} of {int(known.sum())} cells switch between two levels."
        return Section(text, tuple(plots))


def _noise_law(samples: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Floor (S) and fraction of sd^2 = floor^2 + (fraction x G)^2; `samples` are (G, sd) of each
    cell, shape (n, 2).
    """
    known = np.isfinite(samples).all(axis=1) & (samples[:, 1] > 0)
    if known.sum() < 3:
        return np.asarray(np.nan), np.asarray(np.nan)
    square, variance = np.square(samples[known, 0]), np.square(samples[known, 1])
    weight = np.full(square.shape, 1.0 / variance.mean())
    a = b = 0.0
    for _ in range(5):
        # The scatter of a measured variance goes with that variance: what the law says, not what
        # was measured, weighs.
        x = np.stack([weight, weight * square], axis=1)
        (a, b), *_ = np.linalg.lstsq(x, weight * variance, rcond=None)
        if a < 0 or b < 0:
            keep = 1 if a < 0 else 0
            only = x[:, keep]
            best = max(float(only @ (weight * variance) / (only @ only)), 0.0)
            a, b = (0.0, best) if keep else (best, 0.0)
        weight = 1.0 / np.maximum(a + b * square, 1e-3 * variance.mean())
    return np.sqrt(np.asarray(a)), np.sqrt(np.asarray(b))


def spectrum(g: FloatArray, interval_s: float) -> tuple[FloatArray, FloatArray]:
    """Frequencies (Hz) and power density (S^2/Hz) of each cell, shape (n, frequencies), of series
    (n, segments, length).

    Mean over pieces of at most 256 readings with a Hann window, their means taken off; pieces with
    a missing reading are left out. The lowest two frequencies, where the window and the mean reach,
    are left out.
    """
    n, _, length = g.shape
    size = min(length, 256)
    pieces = g[:, :, : length // size * size].reshape(n, -1, size)
    window = np.hanning(size)
    whole: NDArray[np.bool_] = np.asarray(np.isfinite(pieces).all(axis=2))
    centred = np.where(whole[:, :, None], pieces - pieces.mean(axis=2, keepdims=True), 0.0) * window
    power = (
        2 * np.square(np.abs(np.fft.rfft(centred, axis=2))) * interval_s / np.square(window).sum()
    )
    count = whole.sum(axis=1)
    averaged = np.divide(
        power.sum(axis=1),
        count[:, None],
        out=np.full((n, size // 2 + 1), np.nan),
        where=count[:, None] > 0,
    )
    frequency: FloatArray = np.asarray(np.fft.rfftfreq(size, interval_s), dtype=np.float64)
    inner = slice(2, -1)
    return frequency[inner], averaged[:, inner]


def telegraph(g: FloatArray, apart_sd: float, least_moves: int) -> Telegraph:
    """Two levels in the series of each cell, shape (n, segments, length); see the module for what
    counts as a telegraph cell.
    """
    n = g.shape[0]
    flat = g.reshape(n, -1)
    known = np.isfinite(flat)
    x = np.where(known, flat, 0.0)
    count = np.maximum(known.sum(axis=1), 1)
    centre = x.sum(axis=1) / count
    one = np.where(known, np.square(x - centre[:, None]), 0.0).sum(axis=1) / count
    low = np.where(known, flat, np.inf).min(axis=1)
    high = np.where(known, flat, -np.inf).max(axis=1)
    low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)
    share, variance = np.full(n, 0.5), np.maximum(one / 4, 1e-40)
    for _ in range(ROUNDS):
        log_low = np.log(share)[:, None] - np.square(x - low[:, None]) / (2 * variance[:, None])
        log_high = np.log1p(-share)[:, None] - np.square(x - high[:, None]) / (
            2 * variance[:, None]
        )
        is_low = np.where(known, 1.0 / (1.0 + np.exp(np.clip(log_high - log_low, -700, 700))), 0.0)
        is_high = np.where(known, 1.0 - is_low, 0.0)
        a, b = np.maximum(is_low.sum(axis=1), 1e-9), np.maximum(is_high.sum(axis=1), 1e-9)
        low, high = (is_low * x).sum(axis=1) / a, (is_high * x).sum(axis=1) / b
        squares = is_low * np.square(x - low[:, None]) + is_high * np.square(x - high[:, None])
        variance = np.maximum(squares.sum(axis=1) / count, np.maximum(one * 1e-6, 1e-40))
        share = np.clip(a / (a + b), 1e-6, 1 - 1e-6)
    root = np.sqrt(2 * np.pi * variance)[:, None]
    density = (
        share[:, None] * np.exp(-np.square(x - low[:, None]) / (2 * variance[:, None]))
        + (1 - share)[:, None] * np.exp(-np.square(x - high[:, None]) / (2 * variance[:, None]))
    ) / root
    log_two = np.where(known, np.log(np.maximum(density, 1e-300)), 0.0).sum(axis=1)
    log_one = -0.5 * count * (np.log(2 * np.pi * np.maximum(one, 1e-40)) + 1)
    gain = 2 * (log_two - log_one) - 2 * np.log(count)  # two more parameters
    at_low = (is_low > 0.5).reshape(g.shape)
    pairs = known.reshape(g.shape)[:, :, :-1] & known.reshape(g.shape)[:, :, 1:]
    down = (pairs & ~at_low[:, :, :-1] & at_low[:, :, 1:]).sum(axis=(1, 2))
    up = (pairs & at_low[:, :, :-1] & ~at_low[:, :, 1:]).sum(axis=(1, 2))
    from_low = (pairs & at_low[:, :, :-1]).sum(axis=(1, 2))
    from_high = (pairs & ~at_low[:, :, :-1]).sum(axis=(1, 2))
    moves = (down + up).astype(np.int64)
    apart = (high - low) / np.sqrt(variance)
    # A converter's code step makes two levels of any noise smaller than it.
    steps = np.diff(np.sort(flat, axis=1), axis=1)
    code = np.where(steps > 1e-6 * np.abs(high)[:, None], steps, np.inf).min(axis=1)
    coarse = np.isfinite(code) & (high - low < CODES * code)
    switches = (gain > BETTER) & (apart >= apart_sd) & (moves >= least_moves) & (high > 0) & ~coarse

    def stay(stays: FloatArray, left: NDArray[np.int64]) -> FloatArray:
        return np.asarray(
            np.divide(stays, left, out=np.full(n, np.nan), where=left > 0), dtype=np.float64
        )

    return Telegraph(switches, low, high, share, stay(from_low, up), stay(from_high, down), moves)


def _save_pictures(
    g: FloatArray,
    frequency: FloatArray,
    power: FloatArray,
    quiet: NDArray[np.bool_],
    switches: NDArray[np.bool_],
    interval_s: float,
) -> Plan[None]:
    yield Save("frequency", frequency, ("frequency",), "Hz")
    yield Save("power_density", power, ("cell", "frequency"), "S^2/Hz")
    if quiet.any():
        low, _, high = quantiles(power[quiet])
        yield Save("power_low", low, ("frequency",), "S^2/Hz")
        yield Save("power_high", high, ("frequency",), "S^2/Hz")
        chart = Chart(
            "Power spectrum, mean of quiet cells",
            "frequency",
            "power_low",
            "power_high",
            "xy",
            "power density",
        )
        yield Save("power_mean", mean(power[quiet]), ("frequency",), "S^2/Hz", chart.attrs())
    of = np.flatnonzero(switches) if switches.any() else np.arange(1)
    shown = min(g.shape[2], 400)
    yield Save("trace_time_s", np.arange(shown) * interval_s, ("trace",), "s")
    chart = Chart(
        "One cell that switches" if switches.any() else "One cell",
        "trace_time_s",
        label="conductance",
    )
    yield Save("trace", g[of[0], 0, :shown], ("trace",), "S", chart.attrs())
