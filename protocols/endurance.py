"""Endurance: cycle cells between their two states, read at log-spaced counts, and stop each cell
when its window has closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import MAP, Apply, Cells, Scheme
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting, Unselected
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section, band_of
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, estimated, median, proportion, quantiles, wilson, within
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import TOLD
from rram_hil.validation import Fraction, PositiveAmperes, PositiveSiemens

from .parts.characterisation import (
    ResetPulse,
    SetPulse,
    applied,
    listed,
    log_counts,
    log_ratio,
    repeated,
    save_band,
    save_cells,
    save_figures,
    save_map,
    usable,
)
from .parts.sections import BAND


@dataclass(frozen=True)
class EnduranceSummary:
    """Cells, those that never cycled, cycles given, how many cells failed that had cycled, first
    failure and the figures of the cells that cycle.

    `first_failure` is the count of cycles of the first read at which a cell that had cycled was
    found to fail, 0 where none did: it failed after the read before. `surviving` is the share of
    cycling cells whose window was still open at the last read. Windows are the median of G after
    SET over G after RESET; medians in S; spreads of ln G are from read to read of one cell.
    """

    cells: int
    never_cycled: int
    cycles: int
    failures: int
    first_failure: int = field(metadata={TOLD: "first failure at {} cycles"})
    surviving: Figure
    window_at_start: Figure
    window_at_end: Figure
    set_median: Figure
    set_cycle_to_cycle: Figure
    reset_median: Figure
    reset_cycle_to_cycle: Figure
    failed: str


class Endurance(Protocol[EnduranceSummary]):
    """RESET and SET every cell `cycles` times; at about `per_decade` counts a decade read after
    each of the two.

    A cell fails where G after SET is less than `conducts_above_s` or `least_window` x G after
    RESET, or cannot be read, in `confirm` + 1 cycles in a row; it then takes no further pulse. The
    step ends early once `stop_fraction` of the cells that cycled at first have failed.
    """

    cells: CellChoice = CellChoice()
    set: SetPulse
    reset: ResetPulse
    cycles: Annotated[int, Field(ge=1, le=10**9)]
    per_decade: Annotated[int, Field(ge=1, le=50)] = 3
    least_window: Annotated[float, Field(gt=1)] = 2.0
    conducts_above_s: PositiveSiemens = 1e-6
    confirm: Annotated[int, Field(ge=0, le=10)] = 1
    stop_fraction: Fraction = 1.0
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    def run(self, setting: Setting) -> Plan[EnduranceSummary]:
        """Yields a batch of cycles and a batch of a measured one for each read; saves both states
        against the count.
        """
        cells = self.cells.cells(setting.geometry)
        n = len(cells)
        reset, set_ = self.reset.step(setting), self.set.step(setting)
        scheme = Scheme(self.unselected)
        cycling = Apply(cells, (reset, set_), scheme, self.compliance_a, label="endurance, cycles")
        measured = Apply(
            cells,
            (reset, setting.read, set_, setting.read),
            scheme,
            self.compliance_a,
            label="endurance, measured cycle",
        )
        setting.require(cycling, measured)
        counts = log_counts(self.cycles, self.per_decade)
        low, high = np.full((n, len(counts)), np.nan), np.full((n, len(counts)), np.nan)
        alive = np.ones(n, dtype=np.bool_)
        failed_at, taken = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        started = 0
        for number, count in enumerate(counts):
            yield Progress(count, self.cycles, f"{int(alive.sum())} cells, {count} cycles")
            # The measured cycle is one of the count, unless confirming has already given more.
            due = np.where(alive, np.maximum(count - 1 - taken, 0), 0)
            taken += yield from repeated(cycling, due, setting)
            for _ in range(self.confirm + 1):
                at = np.flatnonzero(alive & ~self._is_open(low[:, number], high[:, number]))
                if at.size == 0:
                    break
                read = usable((yield from applied(measured.part(at))))
                low[at, number], high[at, number] = read[:, 0], read[:, 1]
                taken[at] += 1
            now = alive & ~self._is_open(low[:, number], high[:, number])
            failed_at[now] = count
            alive &= ~now
            started = int(alive.sum()) if number == 0 else started
            if not alive.any() or (
                number and started - alive.sum() >= self.stop_fraction * started
            ):
                counts = counts[: number + 1]
                break
        reads = len(counts)
        return (
            yield from self._results(
                cells, counts, low[:, :reads], high[:, :reads], failed_at, taken, setting
            )
        )

    def _is_open(self, low: FloatArray, high: FloatArray) -> NDArray[np.bool_]:
        """Whether a cell was read in both states and they lie far enough apart; False for NaN."""
        return np.asarray(
            np.isfinite(low)
            & (high > self.least_window * np.maximum(low, 0.0))
            & (high >= self.conducts_above_s)
        )

    def _results(
        self,
        cells: Cells,
        counts: list[int],
        low: FloatArray,
        high: FloatArray,
        failed_at: IntArray,
        taken: IntArray,
        setting: Setting,
    ) -> Plan[EnduranceSummary]:
        cycled = failed_at != counts[0]
        later = failed_at[cycled & (failed_at > 0)]
        surviving = [
            float(np.mean((failed_at[cycled] == 0) | (failed_at[cycled] > c)))
            if cycled.any()
            else np.nan
            for c in counts
        ]
        yield from save_cells(cells)
        yield Save("cycle", np.array(counts), ("cycle",))
        for name, values in (("set", high), ("reset", low)):
            band = (
                quantiles(values[cycled]) if cycled.any() else (np.full(len(counts), np.nan),) * 3
            )
            yield Save(f"{name}_conductance", values, ("cell", "cycle"), "S")
            title = f"After {name.upper()}"
            chart = Chart(title, "cycle", log="xy", label="conductance", dots=True)
            yield from save_band(f"{name}_state", band, ("cycle",), "S", chart)
        chart = Chart("Surviving cells", "cycle", log="x", label="share of cells", dots=True)
        yield Save("surviving_share", np.array(surviving), ("cycle",), "", chart.attrs())
        yield save_map("cycles_taken", cells, taken, "", setting)
        yield save_map("failed_at", cells, failed_at, "", setting)
        rng = setting.rng("bootstrap")
        left = cycled & (failed_at == 0)

        def state(values: FloatArray) -> tuple[Figure, Figure]:
            here = values[left]
            spread = (
                estimated(within, log_ratio(here), "", rng)
                if len(counts) > 1
                else Figure(np.nan, np.nan)
            )
            return estimated(lambda s: median(s.ravel()), here, "S", rng), spread

        ratio = np.exp(log_ratio(high) - log_ratio(low))
        return (
            yield from save_figures(
                EnduranceSummary(
                    len(cells),
                    int(np.sum(~cycled)),
                    int(taken.sum()),
                    int(later.size),
                    int(later.min()) if later.size else 0,
                    proportion(int(left.sum()), int(cycled.sum())),
                    estimated(median, ratio[cycled][:, 0], "", rng),
                    estimated(median, ratio[left][:, -1], "", rng),
                    *state(high),
                    *state(low),
                    listed(cells[cycled & (failed_at > 0)]),
                )
            )
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Both states and the window against cycles, and the share of cells that survive."""
        cycle = step.values("cycle")
        high, low = step.values("set_conductance"), step.values("reset_conductance")
        failed_at = step.map("failed_at")
        axis = Axis("cycles", "", cycle.size > 1)
        states = [
            band_of(name, cycle, [step.values(f"{key}_state_{end}") for end in BANDS])
            for name, key in (("after SET", "set"), ("after RESET", "reset"))
        ]
        ratio = np.exp(log_ratio(high) - log_ratio(low))
        share = step.values("surviving_share")
        address = tuple(step.values(name).astype(np.int64) for name in MAP)
        cycled = 0 if failed_at is None else int(np.sum(failed_at[address] != cycle[0]))
        ends = wilson(share * cycled, cycled) if cycled else (share, share)
        if not cycled:
            return Section(
                f"None of the {len(high)} cells cycled: no window was open at the first read.",
                (
                    Plot(
                        "Both states of every cell",
                        axis,
                        Axis("conductance", "S"),
                        (
                            Line(_flat(cycle, high), high.ravel(), "after SET", look="dots"),
                            Line(_flat(cycle, low), low.ravel(), "after RESET", look="dots"),
                        ),
                    ),
                ),
            )
        surviving = Line(cycle, share, "", *ends, "both")
        failures = int(np.sum(failed_at[address] > cycle[0])) if failed_at is not None else 0
        return Section(
            f"{cycled} of {len(high)} cells cycled; {failures} of these failed.",
            (
                Plot("Both states", axis, Axis("conductance", "S", log=True), tuple(states), BAND),
                Plot(
                    "Window",
                    axis,
                    Axis("G after SET / G after RESET", "", log=True),
                    (band_of("", cycle, quantiles(ratio)),),
                    BAND,
                ),
                Plot(
                    "Surviving cells",
                    axis,
                    Axis("share of the cells that cycled at first"),
                    (surviving,),
                    "Band: 95 % interval (Wilson).",
                ),
            ),
        )


BANDS = ("low", "median", "high")


def _flat(cycle: FloatArray, values: FloatArray) -> FloatArray:
    return np.broadcast_to(cycle, values.shape).ravel()
