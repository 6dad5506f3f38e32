"""DC sweep: current against voltage, up and down, in both polarities (butterfly), and the voltages
at which cells switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import MAP, Apply, Cells, Measured, OtherLevels, Scheme, Status, Step
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting, Unselected
from rram_hil.errors import ConfigError
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, between, estimated, mean, median, quantiles, spread, within
from rram_hil.types import FloatArray
from rram_hil.validation import (
    FiniteVolts,
    PositiveAmperes,
    PositiveSeconds,
    PositiveSiemens,
    PositiveVolts,
)

from .parts.characterisation import gate_v, log_ratio, save_band, save_cells, save_figures, save_map
from .parts.sections import spread_plot


class Branch(OtherLevels):
    """Volts of one polarity: from `start_v` to `stop_v` in steps of `step_v`, and back. `wl_v` is
    the gate meanwhile.
    """

    start_v: PositiveVolts
    stop_v: PositiveVolts
    step_v: PositiveVolts
    wl_v: FiniteVolts | None = None
    compliance_a: PositiveAmperes | None = None

    def up(self, key: str) -> FloatArray:
        """Rising levels (V), the last exactly `stop_v`. Raises `ConfigError` for a branch that does
        not rise.
        """
        if not self.start_v < self.stop_v:
            raise ConfigError(
                f"{key}: start_v of {self.start_v:g} V must lie below stop_v of {self.stop_v:g} V"
            )
        count = int(np.ceil((self.stop_v - self.start_v) / self.step_v - 1e-9))
        return np.asarray(
            np.minimum(self.start_v + self.step_v * np.arange(count + 1), self.stop_v),
            dtype=np.float64,
        )


@dataclass(frozen=True)
class DcSweepSummary:
    """Cells swept, how many were SET and RESET at least once, and the figures of those (V, S).

    `set_v` is where the current jumps up, `reset_v` where the conductance has fallen by
    `switch_ratio`: means over cells. A voltage between two levels is known to half their distance,
    which the uncertainty of `set_v` includes.
    """

    cells: int
    were_set: int
    were_reset: int
    set_v: Figure
    set_between_cells: Figure
    set_cycle_to_cycle: Figure
    reset_v: Figure
    reset_between_cells: Figure
    reset_cycle_to_cycle: Figure
    low_resistance_state: Figure
    high_resistance_state: Figure


class DcSweep(Protocol[DcSweepSummary]):
    """Sweep each cell: positive on the bit line up and down (`set`), then on the source line
    (`reset`), `cycles` times.

    `width_s` is how long each level stands and is integrated. With `measure` = "level" the current
    is measured at each level; with "after", after it at the read condition, for benches that
    measure no current above the read limit and for 1R arrays under schemes where half-selected
    cells would add theirs. `sample` takes so many of the chosen cells, by chance. Cells that do not
    come to conduct `conducts_above_s` count as never switched. A cell takes each sweep once: one
    that an interruption has met keeps no values for that cycle.
    """

    cells: CellChoice = CellChoice()
    sample: Annotated[int, Field(ge=1)] | None = None
    set: Branch
    reset: Branch
    cycles: Annotated[int, Field(ge=1, le=1000)] = 1
    width_s: PositiveSeconds
    measure: Literal["level", "after"] = "level"
    switch_ratio: Annotated[float, Field(gt=1)] = 2.0
    conducts_above_s: PositiveSiemens = 1e-6
    unselected: Unselected = "inhibit"

    def run(self, setting: Setting) -> Plan[DcSweepSummary]:
        """Yields one batch a cycle (two where the polarities have different compliances); saves
        curves and voltages.
        """
        cells = self.cells.cells(setting.geometry)
        if self.sample is not None and self.sample < len(cells):
            chosen = setting.rng("sample").choice(len(cells), self.sample, replace=False)
            cells = cells[np.sort(chosen)]
        if (
            setting.geometry.cell == "1R"
            and self.measure == "level"
            and self.unselected in ("half", "third", "floating")
        ):
            raise ConfigError(
                f"unselected: with lines {self.unselected!r} a 1R array adds half-selected cells'"
                ' currents to that at a level; use measure = "after"'
            )
        parts = self._parts(cells, setting)
        setting.require(*parts)
        rounds = []
        for cycle in range(self.cycles):
            yield Progress(
                cycle, self.cycles, f"sweep {cycle + 1} of {self.cycles}, {len(cells)} cells"
            )
            found = []
            for part in parts:
                found.append((yield from _once(part)))
            rounds.append(tuple(np.concatenate(kind, axis=1) for kind in zip(*found, strict=True)))
        amps, siemens = (np.stack([r[k] for r in rounds], axis=1) for k in (0, 1))
        return (yield from self._results(cells, amps, siemens, setting))

    def _parts(self, cells: Cells, setting: Setting) -> list[Apply]:
        """What one cycle is made of: a read before, between and after the two polarities."""
        at_level: Measured = "current" if self.measure == "level" else "no"
        after = () if self.measure == "level" else (setting.read,)

        def steps(branch: Branch, key: str, sign: int) -> list[Step]:
            up = branch.up(key)
            wl = gate_v(branch.wl_v, setting, f"{key}.wl_v")
            width_s = self.width_s
            volts = [float(v) for v in (*up, *up[-2::-1])]
            return [
                s
                for v in volts
                for s in (
                    branch.onto(Step(*((v, 0.0) if sign > 0 else (0.0, v)), wl, width_s, at_level)),
                    *after,
                )
            ]

        positive, negative = steps(self.set, "set", 1), steps(self.reset, "reset", -1)
        read, scheme = setting.read, Scheme(self.unselected)
        if self.set.compliance_a == self.reset.compliance_a:
            whole = (read, *positive, read, *negative, read)
            return [Apply(cells, whole, scheme, self.set.compliance_a, label="DC sweep")]
        return [
            Apply(
                cells, (read, *positive, read), scheme, self.set.compliance_a, label="DC sweep, SET"
            ),
            Apply(
                cells, (*negative, read), scheme, self.reset.compliance_a, label="DC sweep, RESET"
            ),
        ]

    def _results(
        self, cells: Cells, amps: FloatArray, siemens: FloatArray, setting: Setting
    ) -> Plan[DcSweepSummary]:
        """Take the curves (cells, cycles, points) apart into read, SET branch, read, RESET branch,
        read.
        """
        up, down = self.set.up("set"), self.reset.up("reset")
        k, m = up.size, down.size
        positive = slice(1, 2 * k)
        negative = slice(2 * k + 1, 2 * k + 2 * m)
        before, low_state, after = (siemens[:, :, i] for i in (0, 2 * k, 2 * k + 2 * m))
        set_v = _jump_v(before, siemens[:, :, positive][:, :, :k], up, self.switch_ratio)
        # A cell that never conducts only shows its noise.
        set_v[~(np.nan_to_num(siemens[:, :, positive]).max(axis=2) >= self.conducts_above_s)] = (
            np.nan
        )
        reset_v = _fall_v(low_state, siemens[:, :, negative][:, :, :m], down, self.switch_ratio)
        reset_v[~(low_state >= self.conducts_above_s)] = np.nan
        volts = np.concatenate([up, up[-2::-1], -down, -down[-2::-1]])
        curve = np.concatenate([amps[:, :, positive], amps[:, :, negative]], axis=2)
        yield from save_cells(cells)
        yield Save("voltage", volts, ("level",), "V")
        yield Save("current", curve, ("cell", "cycle", "level"), "A")
        # |I| of the first cycle: median and one-sigma band over the cells.
        chart = Chart("Butterfly, median of the first cycle", "voltage", log="y", label="|current|")
        yield from save_band("current", quantiles(np.abs(curve[:, 0])), ("level",), "A", chart)
        for name, values, unit in (
            ("set_voltage", set_v, "V"),
            ("reset_voltage", reset_v, "V"),
            ("low_resistance_conductance", low_state, "S"),
            ("high_resistance_conductance", after, "S"),
        ):
            yield Save(f"{name}_by_cycle", values, ("cell", "cycle"), unit)
            yield save_map(name, cells, mean(values.T), unit, setting)
        rng = setting.rng("bootstrap")

        def of(values: FloatArray) -> tuple[Figure, Figure, Figure]:
            here = values[np.isfinite(values).any(axis=1)]
            return (
                estimated(lambda s: np.asarray(mean(mean(s.T))), here, "V", rng),
                (
                    estimated(between, here, "V", rng)
                    if self.cycles > 1
                    else estimated(_spread_of_one, here, "V", rng)
                ),
                (
                    estimated(within, here, "V", rng)
                    if self.cycles > 1
                    else Figure(float("nan"), float("nan"), "V")
                ),
            )

        sets, resets = of(set_v), of(reset_v)
        coarse_v = self.set.step_v / np.sqrt(12)
        return (
            yield from save_figures(
                DcSweepSummary(
                    len(cells),
                    int(np.isfinite(set_v).any(axis=1).sum()),
                    int(np.isfinite(reset_v).any(axis=1).sum()),
                    sets[0].widened(self.set.step_v / 2),
                    sets[1].widened(coarse_v),
                    sets[2].widened(coarse_v),
                    *resets,
                    _state(low_state, set_v, rng),
                    _state(after, reset_v, rng),
                )
            )
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """The butterfly of every cell and cycle, that of one cell, and how switching voltages and
        states are distributed.
        """
        volts, amps = step.values("voltage"), np.abs(step.values("current"))
        jumps, falls = (step.values(f"{name}_voltage_by_cycle") for name in ("set", "reset"))
        cells, cycles = amps.shape[:2]
        flat = amps.reshape(-1, volts.size)
        many = [line for curve in flat for line in _wings(volts, curve, faint=True)]
        low, middle, high = quantiles(flat)
        # The jump of a median is smeared by cells that switch at other volts; one cell shows it.
        apart = np.abs(jumps - median(jumps.ravel()))
        one = int(np.argmin(np.where(np.isfinite(apart), apart, np.inf).min(axis=1)))
        address = ", ".join(str(int(step.values(name)[one])) for name in MAP)
        shown = np.unique(np.linspace(0, cycles - 1, min(cycles, 6)).astype(np.int64))
        axes = Axis("voltage (bit line +, source line −)", "V"), Axis("|current|", "A", log=True)
        median_note = "Thin: each cell and cycle. Thick: median; band: 16 to 84 % of them."
        return Section(
            f"{cells} cells, {cycles} cycle{'s' if cycles > 1 else ''}.",
            (
                Plot(
                    "Butterfly, every cell and cycle",
                    *axes,
                    (*many, *_wings(volts, middle, "median", low=low, high=high)),
                    median_note,
                ),
                Plot(
                    "Butterfly of one cell",
                    *axes,
                    tuple(
                        line
                        for k in shown
                        for line in _wings(volts, amps[one, k], f"cycle {k + 1}")
                    ),
                    f"Cell (tile, row, column) {address}, whose SET lies in the middle of all.",
                ),
                spread_plot("Switching voltages", {"SET": jumps, "RESET": falls}, "|voltage|", "V"),
                spread_plot(
                    "States",
                    {
                        "low resistance": step.values("low_resistance_conductance_by_cycle"),
                        "high resistance": step.values("high_resistance_conductance_by_cycle"),
                    },
                    "conductance",
                    "S",
                ),
            ),
        )


def _wings(
    volts: FloatArray,
    amps: FloatArray,
    name: str = "",
    *,
    low: FloatArray | None = None,
    high: FloatArray | None = None,
    faint: bool = False,
) -> list[Line]:
    """The two polarities of a sweep, which no line joins."""
    return [
        Line(
            volts[part],
            amps[part],
            name,
            None if low is None else low[part],
            None if high is None else high[part],
            faint=faint,
        )
        for part in (volts >= 0, volts < 0)
    ]


def _spread_of_one(samples: FloatArray) -> FloatArray:
    """Standard deviation between cells of samples with one cycle: cycle-to-cycle scatter is in
    it.
    """
    return spread(samples[:, 0])


def _state(values: FloatArray, switched_v: FloatArray, rng: np.random.Generator) -> Figure:
    """Median conductance of a state, over the cells that were switched into it."""
    here = np.where(np.isfinite(switched_v), values, np.nan)
    here = here[np.isfinite(here).any(axis=1)]
    return estimated(lambda s: median(s.ravel()), here, "S", rng)


def _once(operation: Apply) -> Plan[tuple[FloatArray, FloatArray]]:
    """Currents and conductances, shape (n, m): each cell takes the steps once; one met by an
    interruption is NaN.
    """
    n, m = len(operation.cells), operation.measurements
    amps, siemens = np.full((n, m), np.nan), np.full((n, m), np.nan)
    todo = np.arange(n)
    while todo.size:
        result = yield from operation.part(todo)
        if result.interrupted:
            todo = todo[result.pulses == 0]
            continue
        # In compliance the conductance is a lower bound, enough to see a cell switch.
        known = (result.status == Status.OK) | (result.status == Status.COMPLIANCE)
        amps[todo] = np.where(known, result.current_a, np.nan)
        siemens[todo] = np.where(known, result.conductance_s, np.nan)
        todo = todo[:0]
    return amps, siemens


def _jump_v(before: FloatArray, rising: FloatArray, volts: FloatArray, ratio: float) -> FloatArray:
    """Volts half way between the two levels where ln G rises most, shape (cells, cycles); NaN below
    a rise of `ratio`.

    `before` is the conductance at the read condition, with which the first level is compared.
    """
    logs = log_ratio(np.concatenate([before[:, :, None], rising], axis=2))
    rise = np.nan_to_num(np.diff(logs, axis=2), nan=-np.inf)
    at = np.argmax(rise, axis=2)
    levels = np.concatenate([[max(2 * volts[0] - volts[1], 0.0)], volts])
    middle = (levels[at] + levels[at + 1]) / 2
    return np.where(rise.max(axis=2) >= np.log(ratio), middle, np.nan)


def _fall_v(before: FloatArray, rising: FloatArray, volts: FloatArray, ratio: float) -> FloatArray:
    """Volts at which G first lies a factor `ratio` below `before`, interpolated in ln G; NaN where
    it never does.
    """
    depth = log_ratio(before)[:, :, None] - np.log(ratio) - log_ratio(rising)
    below: NDArray[np.bool_] = depth >= 0
    at = np.argmax(below, axis=2)
    here = np.take_along_axis(depth, at[:, :, None], axis=2)[:, :, 0]
    last = np.take_along_axis(depth, np.maximum(at - 1, 0)[:, :, None], axis=2)[:, :, 0]
    step = volts[at] - volts[np.maximum(at - 1, 0)]
    share = np.divide(here, here - last, out=np.zeros(here.shape), where=(here - last) > 0)
    return np.where(below.any(axis=2), volts[at] - step * share, np.nan)
