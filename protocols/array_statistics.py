"""Array statistics: how many cells work, which are stuck, how conductances are distributed, and
whether that has a trend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from rram_hil.array import Apply, Cells, Scheme, read
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting, Unselected
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section, normal_quantiles
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, estimated, median, proportion, robust_spread, spread
from rram_hil.types import FloatArray
from rram_hil.units import count
from rram_hil.validation import PositiveAmperes, PositiveSiemens

from .parts.characterisation import (
    ResetPulse,
    SetPulse,
    applied,
    listed,
    log_ratio,
    save_cells,
    save_figures,
    save_map,
)
from .parts.sections import spread_plot

SHARES = (0.01, 0.05, 0.16, 0.25, 0.5, 0.75, 0.84, 0.95, 0.99)


@dataclass(frozen=True)
class ArrayStatisticsSummary:
    """Counts, and figures of the cells that work: median (S) and spread of ln G, and the change of
    ln G from one line to the next.

    `working` of all cells are readable and not stuck. `high` is the state as found or, with pulses,
    after the SET, `low` that after the RESET. `normal_spread` takes the robust spread's place where
    ln G is normal: where the two differ, tails are heavy.
    """

    cells: int
    unreadable: int
    working: Figure
    stuck_low_share: Figure
    stuck_high_share: Figure
    high_median: Figure
    high_normal_spread: Figure
    high_robust_spread: Figure
    low_median: Figure
    low_normal_spread: Figure
    low_robust_spread: Figure
    row_trend: Figure
    column_trend: Figure
    stuck: str


class ArrayStatistics(Protocol[ArrayStatisticsSummary]):
    """Read every cell; with `set` and `reset` also after a RESET and after a SET, to find the cells
    that neither moves.

    A cell that conducts less than `conducts_above_s` after the SET is stuck at high resistance, one
    that conducts more but whose states differ by less than `responds_ratio` at low resistance.
    Without pulses nothing can be stuck; a cell below `conducts_above_s` then counts as not working.
    """

    cells: CellChoice = CellChoice()
    repeat: Annotated[int, Field(ge=1, le=1000)] = 4
    set: SetPulse | None = None
    reset: ResetPulse | None = None
    responds_ratio: Annotated[float, Field(gt=1)] = 3.0
    conducts_above_s: PositiveSiemens = 1e-6
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.set is None) != (self.reset is None):
            raise ValueError("give both set and reset, or neither")
        return self

    def run(self, setting: Setting) -> Plan[ArrayStatisticsSummary]:
        """Yields a read, or two pulses with a read after each; saves maps, distributions and
        figures.
        """
        cells = self.cells.cells(setting.geometry)
        n = len(cells)
        low: FloatArray = np.full(n, np.nan)
        if self.set is None or self.reset is None:
            yield Progress(0, 1, f"reading {n} cells")
            result = yield from read(
                cells, setting.read, repeat=self.repeat, label="array statistics"
            )
            high = result.mean_s
            readable = np.isfinite(high)
            stuck_low, stuck_high = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
            working = readable & (high >= self.conducts_above_s)
        else:
            work = [
                Apply(
                    cells,
                    (step, *[setting.read] * self.repeat),
                    Scheme(self.unselected),
                    self.compliance_a,
                    label=f"array statistics, {name}",
                )
                for name, step in (
                    ("RESET", self.reset.step(setting)),
                    ("SET", self.set.step(setting)),
                )
            ]
            setting.require(*work)
            yield Progress(0, 2, f"RESET of {n} cells")
            low = (yield from applied(work[0])).mean_s
            yield Progress(1, 2, f"SET of {n} cells")
            high = (yield from applied(work[1])).mean_s
            readable = np.isfinite(low) & np.isfinite(high)
            conducts = readable & (high >= self.conducts_above_s)
            still = readable & ~(conducts & (high > self.responds_ratio * np.maximum(low, 0.0)))
            stuck_low, stuck_high = still & conducts, still & ~conducts
            working = readable & ~still
        yield save_map("conductance", cells, high, "S", setting)
        if self.reset is not None:
            yield save_map("reset_conductance", cells, low, "S", setting)
        yield save_map("working", cells, working, "", setting)
        yield save_map("stuck_low_resistance", cells, stuck_low, "", setting)
        yield save_map("stuck_high_resistance", cells, stuck_high, "", setting)
        yield from save_cells(cells)
        yield Save("quantile_share", np.array(SHARES), ("quantile",))
        for name, values in (("high", high[working]), ("low", low[working])):
            known = np.sort(values[np.isfinite(values)])
            if known.size:
                yield from _save_distribution(name, known)
        yield from _save_lines(cells, np.where(working, high, np.nan), setting)
        rng = setting.rng("bootstrap")
        stuck = stuck_low | stuck_high
        trends = _trends(cells, log_ratio(np.where(working, high, np.nan)), rng)
        return (
            yield from save_figures(
                ArrayStatisticsSummary(
                    n,
                    int(np.sum(~readable)),
                    proportion(int(working.sum()), n),
                    proportion(int(stuck_low.sum()), n),
                    proportion(int(stuck_high.sum()), n),
                    *_figures(high[working], rng),
                    *_figures(low[working], rng),
                    *trends,
                    listed(cells[stuck]),
                )
            )
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Yield; both states' distributions, as shares and against those of a log-normal law;
        medians by line.
        """
        high, working = step.map("conductance"), step.map("working")
        stuck = [step.map(f"stuck_{name}_resistance") for name in ("low", "high")]
        if high is None or working is None:
            return None
        low = step.map("reset_conductance")
        states = {"after SET" if low is not None else "as found": high}
        if low is not None:
            states["after RESET"] = low
        states = {name: np.where(working > 0, v, np.nan) for name, v in states.items()}
        n = len(step.values("row"))
        lost = ", ".join(
            f"{count(int(np.sum(m)))} stuck at {name} resistance"
            for name, m in zip(("low", "high"), stuck, strict=True)
            if m is not None
        )
        lines = [
            Line(
                step.values(f"{name}_number"),
                step.values(f"{name}_median"),
                f"{name}s",
                look="both",
            )
            for name in ("row", "column")
        ]
        return Section(
            f"{count(int(np.sum(working > 0)))} of {count(n)} cells work; {lost}.",
            (
                spread_plot("Distribution of the states", states, "conductance", "S"),
                Plot(
                    "Against a log-normal law",
                    Axis("conductance", "S", log=True),
                    Axis("standard deviations from the middle"),
                    tuple(normal_quantiles(v, name) for name, v in states.items()),
                    "Working cells; a straight line where ln G is normal.",
                ),
                Plot(
                    "Medians by line",
                    Axis("number of the row or column"),
                    Axis("median conductance", "S"),
                    tuple(lines),
                ),
            ),
        )


def _figures(values: FloatArray, rng: np.random.Generator) -> tuple[Figure, Figure, Figure]:
    known = values[np.isfinite(values)]
    logs = log_ratio(known)
    logs = logs[np.isfinite(logs)]
    return (
        estimated(median, known, "S", rng),
        estimated(spread, logs, "", rng),
        estimated(robust_spread, logs, "", rng),
    )


def _trends(cells: Cells, logs: FloatArray, rng: np.random.Generator) -> tuple[Figure, Figure]:
    """Change of ln G from one row to the next and from one column to the next, fitted together."""
    known = np.isfinite(logs)
    place = np.stack(
        [np.ones(known.sum()), cells.row[known], cells.column[known], logs[known]], axis=1
    )

    def fit(samples: FloatArray, which: int) -> FloatArray:
        found, *_ = np.linalg.lstsq(samples[:, :3], samples[:, 3], rcond=None)
        return np.asarray(found[which])

    told = []
    for which, lines in ((1, cells.row), (2, cells.column)):
        if known.sum() < 4 or np.unique(lines[known]).size < 2:
            told.append(Figure(float("nan"), float("nan")))
        else:
            told.append(estimated(lambda samples, which=which: fit(samples, which), place, "", rng))  # type: ignore[misc]
    return told[0], told[1]


def _save_distribution(name: str, known: FloatArray) -> Plan[None]:
    dim = f"{name}_rank"
    share = (np.arange(known.size) + 0.5) / known.size
    chart = Chart(f"Distribution, {name} state", f"{name}_sorted", log="x", label="share of cells")
    yield Save(f"{name}_sorted", known, (dim,), "S")
    yield Save(f"{name}_share", share, (dim,), "", chart.attrs())
    yield Save(f"{name}_quantiles", np.quantile(known, SHARES), ("quantile",), "S")


def _save_lines(cells: Cells, values: FloatArray, setting: Setting) -> Plan[None]:
    """Median of each row and column over all tiles (S)."""
    for line, lines in (("row", setting.geometry.rows), ("column", setting.geometry.columns)):
        of = getattr(cells, line)
        table = np.full((lines, max(int(np.bincount(of).max()), 1)), np.nan)
        order = np.argsort(of, kind="stable")
        place = np.arange(of.size) - np.searchsorted(of[order], of[order])
        table[of[order], place] = values[order]
        chart = Chart(f"Median by {line}", f"{line}_number", label="conductance", dots=True)
        yield Save(f"{line}_number", np.arange(lines), (f"{line}_number",))
        yield Save(f"{line}_median", median(table.T), (f"{line}_number",), "S", chart.attrs())
