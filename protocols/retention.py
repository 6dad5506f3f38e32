"""Retention: bring cells to states across the window, then read them at log-spaced times: drift,
relaxation and its spread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rram_hil.array import MAP, Cells, Wait, read
from rram_hil.engine.protocol import (
    CellChoice,
    Plan,
    Progress,
    Protocol,
    ReadTemperature,
    Save,
    Setting,
    Unselected,
)
from rram_hil.errors import ConfigError
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section
from rram_hil.report.step import RunStep
from rram_hil.statistics import (
    Figure,
    estimated,
    half_width,
    mean,
    median,
    proportion,
    quantiles,
    robust_spread,
    spread,
)
from rram_hil.types import FloatArray
from rram_hil.units import Seconds, Siemens, count, quantity
from rram_hil.validation import PositiveAmperes, PositiveSeconds, PositiveSiemens

from .parts.characterisation import (
    log_times,
    save_band,
    save_cells,
    save_figures,
    save_map,
)
from .parts.programming import ProgrammingSummary
from .parts.pulses import Pulses
from .parts.rounds import Course
from .parts.sections import BAND
from .write_verify import WriteVerify


@dataclass(frozen=True)
class RetentionSummary:
    """Cells, how many were brought to their levels and read, why the others were not, and the
    change of conductance from the first read to the last (S).

    Those that are not `kept` had spent their pulses or reversals before they reached their levels,
    or were `unreadable`, then or at the first read. All figures are over all kept cells together;
    by level they are in the run file. `drift` is the mean change of G in each decade of time.
    `moved` is the share of cells that left `moved_s` around their first reading by the last read.
    """

    cells: int
    kept: int
    out_of_pulses: int
    out_of_reversals: int
    unreadable: int
    last_time_s: Seconds
    mean_change: Figure
    median_change: Figure
    spread_of_change: Figure
    robust_spread_of_change: Figure
    drift: Figure
    moved: Figure


class Retention(Protocol[RetentionSummary]):
    """Program `levels_s` (cells take them in turn), read at once, then at `per_decade` times a
    decade from `first_s` to `last_s`.

    Without levels the cells are kept in the states that they have. Times count from the end of
    programming; the actual time of each reading, on the bench clock, is what is kept, and the
    temperature at it on a bench with a thermostat. The first reading is the reference of every
    change: what relaxed before it is not seen. A cell that did not reach its level is left out of
    the figures.
    """

    cells: CellChoice = CellChoice()
    levels_s: list[PositiveSiemens] = Field(default=[])
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tolerance_s: Annotated[Siemens, Field(ge=0)] = 1e-6
    set: Pulses | None = None
    reset: Pulses | None = None
    max_pulses: Annotated[int, Field(ge=1)] = 50
    max_reversals: Annotated[int, Field(ge=0)] = 10
    confirm: Annotated[int, Field(ge=0)] = 1
    first_s: PositiveSeconds = 1.0
    last_s: PositiveSeconds = 1e4
    per_decade: Annotated[int, Field(ge=1, le=50)] = 2
    repeat: Annotated[int, Field(ge=1, le=1000)] = 4
    moved_s: PositiveSiemens = 5e-6
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.levels_s and (self.set is None or self.reset is None):
            raise ValueError("levels_s needs set and reset, the pulses that bring cells to them")
        if not self.first_s < self.last_s:
            raise ValueError("first_s must lie below last_s")
        return self

    def run(self, setting: Setting) -> Plan[RetentionSummary]:
        """Yields write-verify, then reads and waits; saves conductances by cell and time, and their
        statistics by level.
        """
        cells = self.cells.cells(setting.geometry)
        n = len(cells)
        group: NDArray[np.int64] = np.zeros(n, dtype=np.int64)
        kept, reasons = np.ones(n, dtype=np.bool_), (0, 0)
        times = log_times(self.first_s, self.last_s, self.per_decade)
        setting.require(*(Wait(t) for t in times))
        if self.levels_s:
            group = np.arange(n) % len(self.levels_s)
            programmed = self._program(cells, np.asarray(self.levels_s)[group], setting)
            verified, course = yield from programmed
            kept = course.inside
            reasons = verified.out_of_pulses, verified.out_of_reversals
        if not kept.any():
            raise ConfigError(f"none of the {n} cells reached its level; look at set and reset")
        reading = read(cells, setting.read, repeat=self.repeat, label="retention")
        values, stamps, kelvins = [], [], []
        began_s = now_s = 0.0
        for number, planned_s in enumerate([0.0, *times]):
            yield Progress(number, 1 + len(times), f"{n} cells, {planned_s:g} s")
            if number:
                left_s = began_s + planned_s - now_s
                if left_s > 0:
                    waited = yield from Wait(left_s, label="retention")
                    now_s = waited.span.ended_s
            result = yield from reading
            if number == 0:
                began_s = result.span.started_s
            now_s = result.span.ended_s
            values.append(result.mean_s)
            stamps.append(
                mean(np.where(np.isfinite(result.time_s), result.time_s, np.nan).T) - began_s
            )
            kelvins.append((yield from ReadTemperature()))
        if np.isfinite(kelvins).any():
            yield Save("temperature", np.array(kelvins), ("reading",), "K")
        g, age = np.stack(values, axis=1), np.stack(stamps, axis=1)
        return (yield from self._results(cells, g, age, group, kept, reasons, setting))

    def _program(
        self, cells: Cells, target: FloatArray, setting: Setting
    ) -> Plan[tuple[ProgrammingSummary, Course]]:
        assert self.set is not None
        assert self.reset is not None
        verify = WriteVerify(
            tolerance=self.tolerance,
            tolerance_s=self.tolerance_s,
            set=self.set,
            reset=self.reset,
            max_pulses=self.max_pulses,
            max_reversals=self.max_reversals,
            confirm=self.confirm,
            unselected=self.unselected,
            compliance_a=self.compliance_a,
        )
        return (yield from verify.verify(cells, target, verify.windows(target), setting))

    def _results(
        self,
        cells: Cells,
        g: FloatArray,
        age: FloatArray,
        group: NDArray[np.int64],
        kept: NDArray[np.bool_],
        reasons: tuple[int, int],
        setting: Setting,
    ) -> Plan[RetentionSummary]:
        kept = kept & np.isfinite(g[:, 0])
        change = g - g[:, :1]
        levels = np.asarray(self.levels_s) if self.levels_s else np.array([float(median(g[:, 0]))])
        rng = setting.rng("bootstrap")
        yield from save_cells(cells)
        yield Save("conductance_by_time", g, ("cell", "reading"), "S")
        yield Save("age_s", age, ("cell", "reading"), "s")
        yield Save("level", levels, ("level",), "S")
        yield Save("level_of_cell", group, ("cell",))
        yield save_map("kept", cells, kept, "", setting)
        shape = (levels.size, g.shape[1])
        tables = {
            name: np.full(shape, np.nan)
            for name in ("mean", "sd", "robust_sd", "median", "low", "high", "sure")
        }
        mean_age = np.broadcast_to(mean(age[kept]), shape)
        for k in range(levels.size):
            here = kept & (group == k)
            if not here.any():
                continue
            tables["mean"][k], tables["sd"][k] = mean(change[here]), spread(change[here])
            tables["robust_sd"][k] = robust_spread(change[here])
            tables["low"][k], tables["median"][k], tables["high"][k] = quantiles(g[here])
            tables["sure"][k] = half_width(mean, change[here], rng)
        dims = ("level", "reading")
        yield Save("mean_age_s", np.array(mean_age), dims, "s")
        chart = Chart(
            "Median by level", "mean_age_s", log="x", label="conductance", dots=True, of="level"
        )
        band = tables["low"], tables["median"], tables["high"]
        yield from save_band("level", band, dims, "S", chart)
        chart = replace(chart, title="Mean change by level", label="change of G")
        yield Save("change_mean", tables["mean"], dims, "S", chart.attrs())
        yield Save("change_mean_uncertainty", tables["sure"], dims, "S")
        chart = replace(chart, title="Spread of the change by level", label="sd of change")
        yield Save("change_sd", tables["sd"], dims, "S", chart.attrs())
        yield Save("change_robust_sd", tables["robust_sd"], dims, "S")
        last = change[kept][:, -1]
        known = last[np.isfinite(last)]
        # The first reading lies too close to its reference for a decade of its own.
        decades = np.log10(mean(age[kept])[1:])

        def drift(samples: FloatArray) -> FloatArray:
            y = mean(samples)
            ok = np.isfinite(y) & np.isfinite(decades)
            return np.asarray(np.polyfit(decades[ok], y[ok], 1)[0] if ok.sum() > 1 else np.nan)

        return (
            yield from save_figures(
                RetentionSummary(
                    len(cells),
                    int(kept.sum()),
                    *reasons,
                    int(np.sum(~kept)) - sum(reasons),
                    float(mean(age[kept])[-1]),
                    estimated(mean, known, "S", rng),
                    estimated(median, known, "S", rng),
                    estimated(spread, known, "S", rng),
                    estimated(robust_spread, known, "S", rng),
                    estimated(drift, change[kept][:, 1:], "S/decade", rng),
                    proportion(int(np.sum(np.abs(known) > self.moved_s)), known.size),
                )
            )
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Conductance by level against time, each kept cell's in thin lines; mean and spread of its
        change.
        """
        age, group = step.values("mean_age_s"), step.values("level_of_cell").astype(np.int64)
        names = [quantity(float(v), "S") for v in step.values("level")]
        of_cell, times = step.values("conductance_by_time"), step.values("age_s")
        time = Axis("time since programming", "s", log=True)

        def lines(middle: str, low: str = "", high: str = "", sure: str = "") -> list[Line]:
            y = step.values(middle)
            half = step.values(sure) if sure else None
            ends = (step.values(low), step.values(high)) if low else None
            if half is not None:
                ends = (y - half, y + half)
            return [
                Line(
                    age[k],
                    y[k],
                    name,
                    None if ends is None else ends[0][k],
                    None if ends is None else ends[1][k],
                    "both",
                )
                for k, name in enumerate(names)
            ]

        kept, text = _kept(step, len(of_cell))
        thin = [
            Line(times[k], of_cell[k], names[group[k]], faint=True) for k in np.flatnonzero(kept)
        ]
        thick = lines("level_median", "level_low", "level_high")
        change = Axis("mean change since the first reading", "S")
        return Section(
            text,
            (
                Plot(
                    "Conductance by level",
                    time,
                    Axis("conductance", "S"),
                    (*thick, *thin),
                    f"Thin: kept cells. {BAND}",
                ),
                Plot(
                    "Mean change by level",
                    time,
                    change,
                    tuple(lines("change_mean", sure="change_mean_uncertainty")),
                    "Band: 95 % interval of the mean.",
                ),
                Plot(
                    "Spread of the change by level",
                    time,
                    Axis("standard deviation of the change", "S"),
                    tuple(lines("change_sd")),
                ),
            ),
        )


def _kept(step: RunStep, n: int) -> tuple[NDArray[np.bool_], str]:
    """Which of the `n` cells the figures are of, and what to say of the others."""
    at = tuple(step.values(name).astype(np.int64) for name in MAP)
    marks, inside = step.map("kept"), step.map("inside")
    kept = np.ones(n, dtype=np.bool_) if marks is None else marks[at] > 0
    left_out = []
    missed = 0 if inside is None else int(np.sum(inside[at] == 0))
    unread = int(np.sum(~kept)) - missed
    if missed:
        left_out.append(f"{count(missed)} did not reach their levels")
    if unread:
        left_out.append(f"{count(unread)} had no usable first reading")
    why = f": {', '.join(left_out)}" if left_out else ""
    return kept, f"{count(int(kept.sum()))} of {count(n)} cells are kept{why}."
