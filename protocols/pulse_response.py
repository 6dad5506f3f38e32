"""Pulse response: which conductance one SET or RESET leaves against amplitude, gate and width, and
what trains of pulses do.

Every point starts from a known state: a full RESET before each SET, a full SET before each RESET.
Repeats tell what stays with the cell from what changes from cycle to cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rram_hil.array import Apply, Cells, OtherLevels, Scheme, Step
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting, Unselected
from rram_hil.errors import ConfigError
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Plot, Section, band_of
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, between, estimated, half_width, median, quantiles, within
from rram_hil.types import FloatArray
from rram_hil.validation import (
    FiniteVolts,
    PositiveAmperes,
    PositiveSeconds,
    PositiveSiemens,
    StrictModel,
)

from .parts.characterisation import (
    ResetPulse,
    SetPulse,
    applied,
    gate_v,
    log_ratio,
    save_band,
    save_cells,
    save_figures,
    save_map,
    usable,
)
from .parts.sections import BAND

AXES = {
    "set_wl_v": "gate during SET",
    "set_bl_v": "bit line during SET",
    "set_width_s": "width of the SET",
    "reset_sl_v": "source line during RESET",
    "reset_wl_v": "gate during RESET",
    "reset_width_s": "width of the RESET",
}
"""What each curve varies."""
Points = Annotated[int, Field(ge=2, le=200)]
Count = Annotated[int, Field(ge=1, le=1000)]


class VoltSpan(StrictModel):
    """Volts from `start_v` to `stop_v` in `points` even steps."""

    start_v: FiniteVolts
    stop_v: FiniteVolts
    points: Points = 13

    def levels(self) -> FloatArray:
        """The levels (V)."""
        return np.linspace(self.start_v, self.stop_v, self.points)


class WidthSpan(StrictModel):
    """Widths from `start_s` to `stop_s` in `points` even ratios."""

    start_s: PositiveSeconds
    stop_s: PositiveSeconds
    points: Points = 7

    def levels(self) -> FloatArray:
        """The levels (s)."""
        return np.geomspace(self.start_s, self.stop_s, self.points)


class Potentiation(OtherLevels):
    """A train of `pulses` SET pulses after a full RESET, a read after each; gate and amplitude may
    rise from pulse to pulse.
    """

    pulses: Count
    bl_v: FiniteVolts
    bl_step_v: FiniteVolts = 0.0
    wl_v: FiniteVolts | None = None
    wl_step_v: FiniteVolts = 0.0
    width_s: PositiveSeconds

    def steps(self, setting: Setting) -> list[Step]:
        """The pulses in order."""
        wl = gate_v(self.wl_v, setting, "potentiation.wl_v")
        rise = self.wl_step_v if setting.geometry.cell == "1T1R" else 0.0
        return [
            self.onto(Step(self.bl_v + k * self.bl_step_v, 0.0, wl + k * rise, self.width_s))
            for k in range(self.pulses)
        ]


class Depression(OtherLevels):
    """A train of `pulses` RESET pulses after a full SET, a read after each; gate and amplitude may
    rise from pulse to pulse.
    """

    pulses: Count
    sl_v: FiniteVolts
    sl_step_v: FiniteVolts = 0.0
    wl_v: FiniteVolts | None = None
    wl_step_v: FiniteVolts = 0.0
    width_s: PositiveSeconds

    def steps(self, setting: Setting) -> list[Step]:
        """The pulses in order."""
        wl = gate_v(self.wl_v, setting, "depression.wl_v")
        rise = self.wl_step_v if setting.geometry.cell == "1T1R" else 0.0
        return [
            self.onto(Step(0.0, self.sl_v + k * self.sl_step_v, wl + k * rise, self.width_s))
            for k in range(self.pulses)
        ]


@dataclass(frozen=True)
class PulseResponseSummary:
    """Cells, those that respond; medians (S) at the ends of all curves; spread of ln G between
    cells and from cycle to cycle.

    Spreads are pooled over the points of the curves of each polarity at which the cells respond;
    NaN where a polarity has no curve, and from cycle to cycle where `cycles` is 1. Ratios are last
    over first conductance of a train.
    """

    cells: int
    responding: int
    set_lowest: Figure
    set_highest: Figure
    reset_lowest: Figure
    reset_highest: Figure
    set_between_cells: Figure
    set_cycle_to_cycle: Figure
    reset_between_cells: Figure
    reset_cycle_to_cycle: Figure
    potentiation_ratio: Figure
    depression_ratio: Figure


@dataclass(frozen=True, eq=False)
class _Curve:
    """One curve: its key, the unit and levels of what is varied, and the full pulse and the pulse
    of each point.
    """

    key: str
    unit: str
    polarity: Literal["set", "reset"]
    levels: FloatArray
    pairs: list[tuple[Step, Step]]

    @property
    def name(self) -> str:
        """The key without its unit."""
        return self.key[:-2]


class PulseResponse(Protocol[PulseResponseSummary]):
    """Measure curves and trains on sample cells. At least one curve or train is needed.

    `set` and `reset` are the full pulses: each curve varies one quantity of its polarity's pulse
    and leaves the others. Cells that never conduct `conducts_above_s`, or whose conductances never
    differ by `responds_ratio`, are left out of all figures: they are unformed or stuck.
    """

    cells: CellChoice = CellChoice()
    set: SetPulse
    reset: ResetPulse
    set_wl_v: VoltSpan | None = None
    set_bl_v: VoltSpan | None = None
    set_width_s: WidthSpan | None = None
    reset_sl_v: VoltSpan | None = None
    reset_wl_v: VoltSpan | None = None
    reset_width_s: WidthSpan | None = None
    potentiation: Potentiation | None = None
    depression: Depression | None = None
    cycles: Annotated[int, Field(ge=1, le=1000)] = 3
    responds_ratio: Annotated[float, Field(gt=1)] = 3.0
    conducts_above_s: PositiveSiemens = 1e-6
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        spans = ("set_wl_v", "set_bl_v", "set_width_s", "reset_sl_v", "reset_wl_v", "reset_width_s")
        if all(getattr(self, name) is None for name in (*spans, "potentiation", "depression")):
            raise ValueError(f"give at least one of {', '.join(spans)}, potentiation, depression")
        return self

    def run(self, setting: Setting) -> Plan[PulseResponseSummary]:
        """Yields one batch a cycle of each curve and train. Raises `ConfigError` for gate curves of
        an array without gates.
        """
        cells = self.cells.cells(setting.geometry)
        curves = self._curves(setting)
        full_set, full_reset = self.set.step(setting), self.reset.step(setting)
        trains: list[tuple[str, Step, list[Step]]] = []
        if self.potentiation is not None:
            trains.append(("potentiation", full_reset, self.potentiation.steps(setting)))
        if self.depression is not None:
            trains.append(("depression", full_set, self.depression.steps(setting)))
        works = [
            self._batch(cells, c.name, [s for p in c.pairs for s in (*p, setting.read)])
            for c in curves
        ]
        works += [
            self._batch(
                cells,
                name,
                [first, setting.read, *(s for step in steps for s in (step, setting.read))],
            )
            for name, first, steps in trains
        ]
        setting.require(*works)
        total = self.cycles * len(works)
        cubes: list[FloatArray] = []
        for number, work in enumerate(works):
            rounds = []
            for cycle in range(self.cycles):
                done = number * self.cycles + cycle
                yield Progress(
                    done,
                    total,
                    f"{work.label}, cycle {cycle + 1} of {self.cycles}, {len(cells)} cells",
                )
                rounds.append(usable((yield from applied(work))))
            cubes.append(np.stack(rounds, axis=1))
        responds = _respond(cubes, self.responds_ratio, self.conducts_above_s)
        if not responds.any():
            raise ConfigError(f"none of the {len(cells)} cells responds to the pulses")
        yield from save_cells(cells)
        yield save_map("responds", cells, responds, "", setting)
        rng = setting.rng("bootstrap")
        for curve, cube in zip(curves, cubes, strict=False):
            yield from _save_curve(curve, cube, responds, rng)
        for (name, _, steps), cube in zip(trains, cubes[len(curves) :], strict=True):
            yield from _save_train(name, len(steps), cube, responds)
        return (
            yield from save_figures(
                self._summary(curves, [t[0] for t in trains], cubes, responds, rng)
            )
        )

    def _batch(self, cells: Cells, name: str, steps: list[Step]) -> Apply:
        label = f"pulse response, {name.replace('_', ' ')}"
        return Apply(cells, tuple(steps), Scheme(self.unselected), self.compliance_a, label=label)

    def _curves(self, setting: Setting) -> list[_Curve]:
        full_set, full_reset = self.set.step(setting), self.reset.step(setting)
        found: list[_Curve] = []
        wanted: tuple[tuple[str, Literal["set", "reset"], str], ...] = (
            ("set_wl_v", "set", "wl_v"),
            ("set_bl_v", "set", "bl_v"),
            ("set_width_s", "set", "width_s"),
            ("reset_sl_v", "reset", "sl_v"),
            ("reset_wl_v", "reset", "wl_v"),
            ("reset_width_s", "reset", "width_s"),
        )
        for key, polarity, what in wanted:
            span = getattr(self, key)
            if span is None:
                continue
            if what == "wl_v" and setting.geometry.cell == "1R":
                raise ConfigError(f"{key}: a gate is not available on this bench: its array is 1R")
            first, pulse = (full_reset, full_set) if polarity == "set" else (full_set, full_reset)
            changes: list[dict[str, Any]] = [{what: float(v)} for v in span.levels()]
            pairs = [(first, replace(pulse, **change)) for change in changes]
            found.append(
                _Curve(key, "s" if what == "width_s" else "V", polarity, span.levels(), pairs)
            )
        return found

    def _summary(
        self,
        curves: list[_Curve],
        trains: list[str],
        cubes: list[FloatArray],
        responds: np.ndarray[Any, Any],
        rng: np.random.Generator,
    ) -> PulseResponseSummary:
        nan = float("nan")
        told: dict[str, Figure] = {}
        for polarity in ("set", "reset"):
            mine = [
                cube[responds]
                for curve, cube in zip(curves, cubes, strict=False)
                if curve.polarity == polarity
            ]
            names = [
                f"{polarity}_{n}" for n in ("lowest", "highest", "between_cells", "cycle_to_cycle")
            ]
            told |= dict(zip(names, (Figure(nan, nan, u) for u in ("S", "S", "", "")), strict=True))
            if not mine:
                continue
            points = np.concatenate(mine, axis=2)
            levels = median(points.reshape(-1, points.shape[2]))
            low, high = int(np.nanargmin(levels)), int(np.nanargmax(levels))
            told[names[0]] = estimated(_median_of_all, points[:, :, [low]], "S", rng)
            told[names[1]] = estimated(_median_of_all, points[:, :, [high]], "S", rng)
            # Where a pulse does nothing yet, the spread is that of the state before it.
            moved = _moved(points, polarity)
            if moved.any():
                logs = log_ratio(points[:, :, moved])
                told[names[2]] = (
                    estimated(between, logs, "", rng) if self.cycles > 1 else Figure(nan, nan)
                )
                told[names[3]] = (
                    estimated(within, logs, "", rng) if self.cycles > 1 else Figure(nan, nan)
                )
        for name in ("potentiation", "depression"):
            told[f"{name}_ratio"] = Figure(nan, nan)
            if name in trains:
                train = cubes[len(curves) + trains.index(name)][responds]
                ratio = np.exp(log_ratio(train[:, :, -1]) - log_ratio(train[:, :, 0]))
                told[f"{name}_ratio"] = estimated(_median_of_all, ratio, "", rng)
        return PulseResponseSummary(cells=responds.size, responding=int(responds.sum()), **told)

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Conductance against what each curve varies, and along the trains of pulses."""

        def plot(title: str, x: Axis, lines: dict[str, tuple[str, str]]) -> Plot:
            made = tuple(
                band_of(name, step.values(at), [step.values(f"{of}_{b}") for b in BANDS])
                for name, (at, of) in lines.items()
            )
            return Plot(title, x, Axis("conductance", "S", log=True), made, BAND)

        plots = []
        for key, what in AXES.items():
            if step.has(key):
                polarity, unit = key.partition("_")[0].upper(), "s" if key.endswith("_s") else "V"
                axis = Axis(what, unit, unit == "s")
                plots.append(
                    plot(
                        f"{polarity} against {what.split(' during')[0].split(' of')[0]}",
                        axis,
                        {"": (key, key[:-2])},
                    )
                )
        trains = [n for n in ("potentiation", "depression") if step.has(f"{n}_median")]
        if trains:
            lines = {name: (f"{name}_pulse", name) for name in trains}
            plots.append(plot("Trains of pulses", Axis("pulses given"), lines))
        return Section("", tuple(plots)) if plots else None


BANDS = ("low", "median", "high")


def _median_of_all(samples: FloatArray) -> FloatArray:
    return median(samples.ravel())


def _median_by_point(samples: FloatArray) -> FloatArray:
    """Median over cells and cycles of samples (cells, cycles, points)."""
    return median(samples.reshape(-1, samples.shape[-1]))


def _respond(
    cubes: list[FloatArray], ratio: float, above_s: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which cells conduct `above_s` at times, and a factor `ratio` less at others."""
    every = np.concatenate([c.reshape(len(c), -1) for c in cubes], axis=1)
    high = np.where(np.isfinite(every), every, -np.inf).max(axis=1)
    low = np.where(np.isfinite(every), every, np.inf).min(axis=1)
    return np.asarray(
        np.isfinite(high)
        & np.isfinite(low)
        & (high > ratio * np.maximum(low, 0.0))
        & (high >= above_s)
    )


def _moved(points: FloatArray, polarity: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Points whose median lies a factor of 2 from the state before the pulse: the lowest of SET,
    the highest of RESET curves.
    """
    levels = _median_by_point(points)
    start = np.nanmin(levels) if polarity == "set" else np.nanmax(levels)
    return np.asarray(levels > 2 * start if polarity == "set" else levels < start / 2)


def _save_curve(
    curve: _Curve, cube: FloatArray, responds: Any, rng: np.random.Generator
) -> Plan[None]:
    x = curve.key
    samples = cube[responds]
    log = "xy" if curve.unit == "s" else "y"
    title = (
        f"{curve.polarity.upper()} against"
        f" {'width' if curve.unit == 's' else curve.name.split('_')[1].upper()}"
    )
    chart = Chart(title, x, log=log, label="conductance", dots=True)
    yield Save(x, curve.levels, (x,), curve.unit)
    yield Save(f"{curve.name}_conductance", cube, ("cell", "cycle", x), "S")
    band = quantiles(samples.reshape(-1, samples.shape[2]))
    yield from save_band(curve.name, band, (x,), "S", chart)
    sure = half_width(_median_by_point, samples, rng)
    yield Save(f"{curve.name}_median_uncertainty", sure, (x,), "S")


def _save_train(name: str, pulses: int, cube: FloatArray, responds: Any) -> Plan[None]:
    x = f"{name}_pulse"
    samples = cube[responds]
    yield Save(x, np.arange(pulses + 1), (x,))
    yield Save(f"{name}_conductance", cube, ("cell", "cycle", x), "S")
    chart = Chart(name.capitalize(), x, log="y", label="conductance", dots=True)
    yield from save_band(name, quantiles(samples.reshape(-1, samples.shape[2])), (x,), "S", chart)
