"""Fitting the device model: distributions taken over where a file shows them, the rest by matching
simulated experiments.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from rram_hil.errors import DataError
from rram_hil.simulation.model import DeviceModel
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import counted

from .experiments import (
    CyclePlan,
    SweepPlan,
    cycle_on_model,
    cycle_plan,
    form_plan,
    sweep_on_model,
    sweep_plan,
)
from .key_figures import (
    Curves,
    Figures,
    curves,
    cycle_figures,
    figures_of,
    tolerance,
    verify_figures,
)
from .measured_files import COLUMNS, Kind, Measured
from .read_verify_write import is_told, without_stuck
from .start_values import AGAIN_LN, CREEP, SHALLOW, start
from .write_verify_schemes import (
    OPEN_OHM,
    Scheme,
    cycles_before,
    cycles_of,
    is_ispp,
    scheme_of,
    top_resets_of,
)

_SEED = 20210
_COPIES = 4
_PROBABILITY = (
    0.0,
    0.002,
    0.01,
    0.03,
    0.08,
    0.16,
    0.26,
    0.38,
    0.5,
    0.62,
    0.74,
    0.84,
    0.92,
    0.97,
    0.99,
    0.998,
    1.0,
)
_FORM_POINTS = 201
_BANDS, _IN_A_BAND = 10, 100
"""Bands of conductance, at most, and programmed cells of one, at least, of which relaxation is told
apart.
"""
_AT_A_LEVEL = 25
"""Programmed cells of a level, at least, of which relaxation is told apart."""
_ONSET_DECADES = 2.0
_MOST_SEEN = 0.75
"""Of the change at the first time, the largest part that is taken to have come before the reading
that it is counted from.
"""
_BROKEN_US = 130.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Knob:
    """One number that is fitted: where it stands in the model's content, and its bounds; `log` fits
    its logarithm.
    """

    path: tuple[str | int, ...]
    low: float
    high: float
    log: bool = False

    def get(self, content: dict[str, Any]) -> float:
        """Its value as the optimiser sees it."""
        value: Any = content
        for key in self.path:
            value = value[key]
        return math.log(value) if self.log else float(value)

    def put(self, content: dict[str, Any], seen: float) -> None:
        """Set it from what the optimiser sees."""
        place: Any = content
        for key in self.path[:-1]:
            place = place[key]
        place[self.path[-1]] = math.exp(seen) if self.log else float(seen)

    @property
    def bounds(self) -> tuple[float, float]:
        """As the optimiser sees them."""
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


def _set_knobs(content: dict[str, Any], swept: set[str]) -> list[Knob]:
    part = content["set"]
    knobs = [
        Knob(("set", "conductance_s", k), 1e-7, 2.5e-4, log=True)
        for k in range(len(part["gate_v"]))
    ]
    if "pulse" in swept:
        knobs.append(Knob(("set", "grow", "power"), 0.2, 4.0, log=True))
    if "bl_v" in swept:
        knobs += [
            Knob(("set", "bl_ratio", k), 0.02, 1.0, log=True) for k in range(len(part["bl_v"]) - 1)
        ]
    return [
        *knobs,
        Knob(("set", "offset_sd_v"), 0.002, 0.3),
        Knob(("set", "gain_sd_ln"), 0.01, 1.0),
        Knob(("set", "jitter_sd_v"), 0.002, 0.3),
        Knob(("set", "settled_gain_v"), -0.3, 0.4),
        Knob(("set", "grow", "cycle_slow_ln"), 0.0, 4.0),
        *(
            Knob(("set", "grow", "stir_ln", k), 0.0, 0.2)
            for k in range(len(part["grow"]["stir_s"]))
        ),
        Knob(("set", "grow", "cycle_sd_v"), 0.0, 0.2),
        Knob(("set", "grow", "cycle_sd_ln"), 0.0, 1.0),
        Knob(("set", "grow", "series_ohm"), 1000.0, 4500.0, log=True),
        *(
            Knob(("set", "grow", "overdrive", "part", k), 0.0, 1.0)
            for k in range(1, len(part["grow"]["overdrive"]["part"]))
        ),
        Knob(("set", "grow", "overdrive", "own_ohm"), 200.0, 3000.0, log=True),
        Knob(("set", "grow", "overdrive", "spread_ln"), 0.05, 1.0),
    ]


def _reset_knobs(content: dict[str, Any], gate: bool) -> list[Knob]:
    part = content["reset"]
    law = part["redraw"]
    knobs = [
        Knob(("reset", "conductance_s", k), 1e-6, 3e-4, log=True) for k in range(len(part["sl_v"]))
    ]
    if gate:
        knobs += [
            Knob(("reset", "redraw", "through_v", k), 0.2, 4.0)
            for k in range(1, len(law["gate_v"]))
        ]
    knobs += [Knob(("reset", "redraw", "on_v", k), 0.2, 3.0) for k in range(len(law["on_v"]))]
    for name, low, high in (("white_ln", 0.02, 1.0), ("device_ln", 0.02, 1.5)):
        knobs += [Knob(("reset", "redraw", name, k), low, high) for k in range(len(law["volts"]))]
    return [
        *knobs,
        Knob(("reset", "offset_sd_v"), 0.01, 0.5),
        Knob(("reset", "redraw", "cycle_sd_v"), 0.01, 0.5),
        Knob(("reset", "redraw", "lag"), 0.0, 1.0),
        Knob(("reset", "redraw", "skew"), 0.0, 1.0),
        Knob(("reset", "redraw", "device_skew"), 0.0, 1.0),
        Knob(("reset", "redraw", "offset_skew"), 0.0, 1.0),
        Knob(("reset", "redraw", "heal"), 0.0, 0.4),
        Knob(("reset", "redraw", "break_v"), 0.05, 3.0),
        Knob(("reset", "redraw", "break_ln"), 0.05, 1.2),
        Knob(("reset", "redraw", "break_more_ln"), -0.5, 1.0),
        Knob(("reset", "wear", "cycles"), 3.0, 300.0, log=True),
        Knob(("reset", "wear", "less_ln"), 0.0, 2.0),
    ]


def _shallow_knobs() -> list[Knob]:
    """What cycles tell of cells that do not open."""
    shallow = ("reset", "redraw", "shallow")
    return [
        Knob((*shallow, "part"), 0.005, 0.5),
        Knob((*shallow, "floor_s"), 5e-6, 2e-4, log=True),
    ]


def _verify_knobs(content: dict[str, Any]) -> list[Knob]:
    """What write-verify tells beside sweeps: cells that creep and that do not open, and spreads."""
    creep, shallow = ("set", "grow", "creep"), ("reset", "redraw", "shallow")
    gates = content["set"]["gate_v"]
    strong = [k for k, gate in enumerate(gates) if gate > _CREEP_FROM_V]
    return [
        *(Knob(("set", "conductance_s", k), 1e-7, 2.5e-4, log=True) for k in strong),
        Knob(("set", "grow", "series_ohm"), 1000.0, 4500.0, log=True),
        Knob((*creep, "part"), 0.02, 1.0),
        Knob((*creep, "most_ohm"), 100.0, 1500.0, log=True),
        Knob(("set", "offset_sd_v"), 0.002, 0.3),
        Knob(("set", "gain_sd_ln"), 0.01, 1.0),
        Knob(("set", "jitter_sd_v"), 0.002, 0.3),
        *(Knob(("set", "grow", "overdrive", "part", k), 0.0, 1.0) for k in (3, 4)),
        Knob((*shallow, "part"), 0.005, 0.5),
        Knob((*shallow, "floor_s"), 5e-6, 2e-4, log=True),
        Knob((*shallow, "spread_ln"), 0.05, 1.5),
        Knob((*shallow, "link"), 0.0, 0.99),
        Knob(("reset", "redraw", "device_ln", 3), 0.02, 1.5),
        Knob(("reset", "redraw", "device_skew"), 0.0, 1.0),
        Knob(("reset", "redraw", "break_more_ln"), -0.5, 1.0),
        Knob(("reset", "wear", "again_ln"), 0.0, 1.5),
    ]


def _ordered(content: dict[str, Any]) -> dict[str, Any]:
    """A copy whose monotone tables are monotone: what the optimiser may cross on its way."""
    made = {
        **content,
        "set": {**content["set"]},
        "reset": {**content["reset"], "redraw": {**content["reset"]["redraw"]}},
    }
    rising = np.maximum.accumulate(np.log(made["set"]["conductance_s"]) + 0.0)
    made["set"]["conductance_s"] = [
        float(g) for g in np.exp(rising + 1e-4 * np.arange(rising.size))
    ]
    falling = np.minimum.accumulate(np.log(made["reset"]["conductance_s"]))
    made["reset"]["conductance_s"] = [
        float(g) for g in np.exp(falling - 1e-4 * np.arange(falling.size))
    ]
    over = made["set"]["grow"]["overdrive"]
    rising_part = [float(p) for p in np.maximum.accumulate(over["part"])]
    made["set"]["grow"] = {**made["set"]["grow"], "overdrive": {**over, "part": rising_part}}
    made["set"]["bl_ratio"] = [float(r) for r in np.maximum.accumulate(made["set"]["bl_ratio"])]
    for name in ("through_v", "on_v"):
        made["reset"]["redraw"][name] = [
            float(v) for v in np.maximum.accumulate(made["reset"]["redraw"][name])
        ]
    return made


@dataclass(frozen=True, eq=False)
class _Target:
    """A measured sweep, or trains of pulses, to be matched: the plan, and what is compared."""

    plan: SweepPlan
    make: Callable[[Curves], Figures]
    figures: Figures
    left: FloatArray
    spreads: FloatArray
    bands: list[FloatArray]

    @classmethod
    def of(cls, file: Measured) -> _Target:
        plan, found, make = sweep_plan(file), curves(file), figures_of(file)
        figures = make(found)
        spreads = _spreads([found], plan, figures)
        return cls(plan, make, figures, _left(found, plan), spreads, _bands([found]))


@dataclass(frozen=True, eq=False)
class _Cycles:
    """One state of measured full cycles to be matched: figures, the sd between cells, median and sd
    of each of `_TURNS`; the part `never` of the `cells` that no cycle brought above `open_ohm`, and
    how high half of these came (`most_ln`, ln ohm).
    """

    name: str
    plan: CyclePlan
    figures: Figures
    between: float
    turns: list[tuple[float, float]]
    open_ohm: float
    never: float
    most_ln: float
    cells: int

    @classmethod
    def of(cls, file: Measured, high: bool) -> _Cycles:
        name = "r_hrs_ohm" if high else "r_lrs_ohm"
        x = np.log(np.maximum(file[name], 1.0))
        _, at, count = np.unique(file["cell"], return_inverse=True, return_counts=True)
        between = float(np.std(np.bincount(at, x) / count, ddof=1)) if count.size > 1 else 0.0
        turns = []
        if high and file.rows_per_cell >= _WEARING and "cycles_before" not in file.columns:
            order = np.argsort(at, kind="stable")
            turn = (
                np.arange(at.size) - np.repeat(np.cumsum(count) - count, count)
            ) / file.rows_per_cell
            for begin, end in _TURNS:
                mine = order[(turn >= begin) & (turn < end)]
                turns.append(_level_and_spread(x[mine], at[mine]))
        figures = cycle_figures(file["r_hrs_ohm"], file["r_lrs_ohm"])
        open_ohm = _OPEN * float(np.exp(np.median(x)))
        most = np.full(count.size, -np.inf)
        np.maximum.at(most, at, x)
        shut = most < math.log(open_ohm)
        never, most_ln = float(np.mean(shut)), float(np.median(most[shut])) if shut.any() else 0.0
        plan = cycle_plan(file, _CYCLES)
        return cls(name, plan, figures, between, turns, open_ohm, never, most_ln, count.size)

    def shut_on(self, model: DeviceModel) -> tuple[float, float]:
        """The part of a model's cells that no cycle brings above `open_ohm`, and how high half of
        these come (ln ohm).
        """
        high, _ = cycle_on_model(model, _SEED, _CYCLED, self.plan)
        most = high.max(axis=1)
        shut = most < self.open_ohm
        return float(shut.mean()), float(np.log(np.median(most[shut]))) if shut.any() else 0.0


@dataclass(frozen=True, eq=False)
class _Verified:
    """A measured write-verify of fresh cells to be matched: its windows (ohm), its figures,
    `_DECILES` of the pulses in each window, and by how much (ln) cells that do not open take more
    SETs up to the lowest window; NaN where its cells do not meet both ends.
    """

    scheme: Scheme
    cycles: int
    top_resets: int
    windows: FloatArray
    figures: Figures
    deciles: FloatArray
    slower_ln: float

    @classmethod
    def of(cls, file: Measured, earlier: list[Measured]) -> _Verified:
        scheme = scheme_of(file.name)
        assert scheme is not None
        low, success = file["r_low_ohm"], file["success"]
        pulses = file["sets"] + file["resets"]
        cells, at = np.unique(file["cell"], return_inverse=True)
        top = file["r_high_ohm"] > OPEN_OHM
        met, failed = (
            np.bincount(at[rows], minlength=cells.size) for rows in (top, top & (success != 1))
        )
        lowest = (low == low.min()) & (success == 1) & (met[at] > 0)
        return cls(
            scheme,
            cycles_of(file, earlier),
            top_resets_of(file),
            np.unique(np.stack([low, file["r_high_ohm"]]), axis=1),
            verify_figures(low, pulses, success),
            _deciles(low, pulses, success),
            _slower_ln(file["sets"][lowest], (2 * failed > met)[at[lowest]]),
        )


def _deciles(low_ohm: FloatArray, pulses: FloatArray, success: FloatArray) -> FloatArray:
    """`_DECILES` of ln of the pulses of cells that succeeded, one row a window."""
    x = np.log(np.maximum(pulses, 1.0))
    return np.array(
        [
            np.quantile(x[here], _DECILES)
            if (here := (low_ohm == low) & (success == 1)).any()
            else np.full(len(_DECILES), np.nan)
            for low in np.unique(low_ohm)
        ]
    )


def _slower_ln(sets: FloatArray, shut: NDArray[np.bool_]) -> float:
    """Median of ln of the SETs of cells that do not open, less that of the others."""
    if min(shut.sum(), (~shut).sum()) < _FEWEST_SHUT:
        return float("nan")
    x = np.log(np.maximum(sets, 1.0))
    return float(np.median(x[shut]) - np.median(x[~shut]))


_CURVE_WEIGHT = 0.25
_SMOOTH = 0.4
_SMOOTH_SINGLE = 1.5
"""Ramps tell the sum of their pulses better than each: what single SET pulses give must be
smooth.
"""
_REST = 100.0
"""Where the optimiser begins: it takes its steps as parts of where it is, and far from 0 they are
all alike.
"""
_STEP = 1.0
"""Width of the differences by which it judges a slope: the figures of few cells jump in the
small.
"""
_CURVES = (("set", "conductance_s"), ("set", "bl_ratio"))
"""Tables of SET that medians of many sweeps show: another device may lie far from the start."""
_PULL_CURVE, _PULL, _FEW_CELLS = 0.15, 0.5, 25
"""Pull to the start, of these tables and of all else: spreads, tails and thresholds, of which so
few cells tell little; less where there are more.
"""
_CYCLES = 20
"""Cycles that a model cell takes where a file does not say which were read."""
_WEARING = 50
"""Cycles a cell from which a file shows wear."""
_TURNS = ((0.0, 0.1), (0.5, 1.0))
"""Parts of a file's cycles between which wear is seen."""
_LEAST = 1e-3
"""Differences (of spreads in ln or V, as few cells may have none) below which none is wrong."""
_QUANTILES = (0.15, 0.5, 0.85)
_DECILES = (0.2, 0.4, 0.6, 0.8, 0.9)
_CREEP_FROM_V = 2.6
"""Gate volts beyond which cells that creep lie behind the others."""
_STILL_OVERDRIVEN = 0.3
"""Part of what sweeps alone put down to overdrive that is left where cells creep."""
_FEWEST_SHUT = 5
"""Cells that do not open, and that do, below which a file does not tell how they differ."""
_VERIFY_WEIGHT = 2.0
"""Weight of write-verify: its files hold ten times the cells of a sweep."""
_EACH = 250
"""Cells of the model in each window of a write-verify."""


def _sweep_residuals(model: DeviceModel, target: _Target) -> FloatArray:
    """Differences of the figures in tolerances, and of the curves' quantiles in steps of 5 %,
    lighter.
    """
    copies = sweep_on_model(model, target.plan, _SEED, _COPIES)
    figures = [target.make(one) for one in copies]
    parts = []
    for name, value in target.figures.items():
        rule = tolerance(name)
        if rule is None or name == "extreme_uS" or not np.isfinite(value):
            continue
        guesses = np.array([f[name] for f in figures])
        guess = float(np.nanmean(guesses)) if np.isfinite(guesses).any() else 3 * value
        parts.append((guess - value) / max(rule.width(value), _LEAST))
    if target.left.size:
        guess_left = np.mean([_left(one, target.plan) for one in copies], axis=0)
        parts += list((guess_left - target.left) / (0.08, 0.12))
    spreads = _spreads(copies, target.plan, target.figures)
    off = (spreads - target.spreads) / np.maximum(0.1 * target.spreads, _LEAST)
    parts += list(np.where(np.isfinite(off), off, 0.0))
    difference = [made - wanted for made, wanted in zip(_bands(copies), target.bands, strict=True)]
    shape = np.concatenate(difference) / 0.05 * _CURVE_WEIGHT / math.sqrt(target.bands[0].size / 10)
    return np.concatenate([np.array(parts), np.tanh(shape / 5) * 5])


def _bands(found: list[Curves]) -> list[FloatArray]:
    """`_QUANTILES` of all sweeps at each of the volts."""
    pooled = np.concatenate([one.ln_g for one in found])
    return [np.quantile(pooled, q, axis=0) for q in _QUANTILES]


def _left(found: Curves, plan: SweepPlan) -> FloatArray:
    """Part of the sweeps that never reach the stop, and its sd over the cells; empty where there is
    no stop.
    """
    if plan.stop_ohm is None:
        return np.zeros(0)
    side = 1 if plan.reset else -1
    left = (side * (found.ln_g[:, -1] - math.log(1e6 / plan.stop_ohm)) > 1e-4).astype(np.float64)
    _, at = np.unique(found.cell, return_inverse=True)
    share = np.bincount(at, left) / np.bincount(at)
    return np.array([left.mean(), share.std()])


def _spreads(found: list[Curves], plan: SweepPlan, figures: Figures) -> FloatArray:
    """Of RESETs the spread from one reading to the next, of more than a few cells that between
    them: in thirds of the volts from half way on, or of the pulses of trains.
    """
    from_v = figures.get("half_v", 0.0)
    steps = _steps(found, from_v) if plan.reset else np.zeros(0)
    is_known = np.unique(plan.cell).size > _FEW_CELLS
    return np.concatenate([steps, _between(found, from_v) if is_known else np.zeros(0)])


def _between(found: list[Curves], from_v: float) -> FloatArray:
    """Spread between the cells' means of ln G, in thirds of the volts, or of the pulses of
    trains.
    """
    _, at, count = np.unique(found[0].cell, return_inverse=True, return_counts=True)
    columns = np.array_split(np.flatnonzero(found[0].volts >= from_v), 3)
    means = [
        [np.bincount(at, one.ln_g[:, part].mean(axis=1)) / count for one in found]
        for part in columns
        if part.size
    ]
    return np.array([np.std(copies, axis=1).mean() for copies in means])


def _steps(found: list[Curves], from_v: float) -> FloatArray:
    """Spread of the change from one reading to the next, of cells that are broken and not stopped,
    in thirds of the volts, or of the pulses of trains.
    """
    before = np.concatenate([one.ln_g[:, :-1] for one in found])
    change = np.diff(np.concatenate([one.ln_g for one in found]), axis=1)
    moving = (before < math.log(_BROKEN_US)) & (change != 0)
    columns = np.flatnonzero((moving.sum(axis=0) > 0) & (found[0].volts[1:] >= from_v))
    return np.array(
        [
            float(np.std(change[:, part][moving[:, part]]))
            if moving[:, part].sum() > 20
            else float("nan")
            for part in np.array_split(columns, 3)
        ]
    )


def _cycle_residuals(model: DeviceModel, target: _Cycles) -> FloatArray:
    """Median, sd of ln R, its part between cells, and early and late cycles apart, in
    tolerances.
    """
    n_model, n_cycles = 300, target.plan.before.size
    high, low = cycle_on_model(model, _SEED, n_model, target.plan)
    predicted = cycle_figures(high, low)
    made = np.log(high if target.name == "r_hrs_ohm" else low)
    parts = []
    for figure in (f"{target.name} median", f"{target.name} sd ln"):
        rule, value = tolerance(figure), target.figures[figure]
        assert rule is not None
        parts.append(2 * (predicted[figure] - value) / max(rule.width(value), _LEAST))
    parts.append(
        (float(made.mean(axis=1).std()) - target.between) / (0.15 * max(target.between, 1e-3))
    )
    for (begin, end), (level, spread) in zip(_TURNS, target.turns, strict=False):
        some = made[:, round(begin * n_cycles) : round(end * n_cycles)]
        guess = _level_and_spread(some.ravel(), np.repeat(np.arange(n_model), some.shape[1]))
        parts += [(guess[0] - level) / 0.1, (guess[1] - spread) / max(0.15 * spread, _LEAST)]
    return np.array(parts)


def _verify_residuals(model: DeviceModel, target: _Verified) -> FloatArray:
    """Figures and deciles of the pulses, in tolerances; deciles lighter."""
    low, high = np.repeat(target.windows, _EACH, axis=1)
    found = target.scheme(without_stuck(model), low, high, _SEED, target.cycles, target.top_resets)
    pulses, success = found.pulses.astype(np.float64), found.success.astype(np.float64)
    made = verify_figures(low, pulses, success)
    parts = []
    for name, value in target.figures.items():
        if (rule := tolerance(name)) is not None:
            parts.append((made[name] - value) / max(rule.width(value), _LEAST))
    shape = (_deciles(low, pulses, success) - target.deciles) / 0.2 * _CURVE_WEIGHT
    lowest = (low == low.min()) & (found.success == 1)
    shut = model.traits(_SEED, np.flatnonzero(lowest)).floor_ln > -np.log(low.max())
    slower = (_slower_ln(found.sets[lowest].astype(np.float64), shut) - target.slower_ln) / 0.15
    off = np.nan_to_num(np.array([*parts, *shape.ravel(), slower]))
    return np.asarray(_VERIFY_WEIGHT * np.clip(off, -5.0, 5.0), dtype=np.float64)


def _level_and_spread(x: FloatArray, cell: IntArray) -> tuple[float, float]:
    """Median, and the sd between the cells' means."""
    _, at = np.unique(cell, return_inverse=True)
    return float(np.median(x)), float(np.std(np.bincount(at, x) / np.bincount(at)))


def _match(
    content: dict[str, Any],
    knobs: list[Knob],
    residuals: Callable[[DeviceModel], FloatArray],
    rounds: int,
    cells: int,
) -> dict[str, Any]:
    """Least squares over the knobs, beginning at `content`, a mild pull to where they began: the
    milder, the more cells were measured.
    """
    begin = np.array([knob.get(content) for knob in knobs])
    low, high = np.array([knob.bounds for knob in knobs]).T
    begin = np.clip(begin, low + 1e-9, high - 1e-9)
    scale = np.array(
        [
            0.15 if knob.log else max(0.15 * abs(b), 0.01)
            for knob, b in zip(knobs, begin, strict=True)
        ]
    )

    def build(x: FloatArray) -> DeviceModel:
        for knob, value in zip(knobs, x, strict=True):
            knob.put(content, value)
        return DeviceModel.model_validate(_ordered(content))

    single = ("set", "conductance_s")
    pairs = [
        k
        for k in range(1, len(knobs))
        if isinstance(knobs[k].path[-1], int) and knobs[k].path[:-1] == knobs[k - 1].path[:-1]
    ]

    known = min(_FEW_CELLS / cells, 1.0)
    pull = known * np.array([_PULL_CURVE if knob.path[:2] in _CURVES else _PULL for knob in knobs])
    smooth = np.array([_SMOOTH_SINGLE if knobs[k].path[:2] == single else _SMOOTH for k in pairs])

    def wrong(x: FloatArray) -> FloatArray:
        # Neighbours in a table change together: what data do not ask for stays smooth.
        y = x - _REST
        return np.concatenate(
            [residuals(build(begin + scale * y)), pull * y, smooth * np.diff(y, prepend=0.0)[pairs]]
        )

    found = least_squares(
        wrong,
        np.full(begin.size, _REST),
        bounds=((low - begin) / scale + _REST - 1e-9, (high - begin) / scale + _REST + 1e-9),
        diff_step=[_STEP / _REST] * begin.size,
        x_scale=1.0,
        max_nfev=rounds,
        loss="soft_l1",
        f_scale=2.0,
    )
    build(begin + scale * (found.x - _REST))
    return _ordered(content)


_OPEN = 0.7
"""A cell has opened where its resistance is above this part of the median of all."""
_ENOUGH_CYCLES = 8
"""Measured cycles of a cell below which it may have been by chance that it never opened."""
_CYCLED = 600
"""Cells of a model that are cycled to see how many never open."""
_NEVER_SD, _MOST_SD_LN = 0.02, 0.1
"""What the part of cells that never open, and how high they come, may be off by."""
_ROUNDS = 10
"""Rounds of the optimiser."""
_REWEIGHED = 4
"""How often the weights of the law of read noise are taken from the law itself."""
_FEWEST_FORMED = 20
"""Formed cells below which there is no distribution of thresholds."""
_AT_PULSES = " at the volts of its pulses"
_FROM_HFO2 = ("forming", "relaxation", "stuck and virgin cells")
_FROM_CURVES = ("SET", "RESET", "read noise")
"""Parts of a model, by where their numbers come from where no file shows them: the preset, or the
published curves that a fit starts from.
"""


def fit(files: list[Measured], name: str, tell: Tell, rounds: int = _ROUNDS) -> DeviceModel:
    """A device model from measured files. What no file shows keeps the numbers of the start
    (docs/device-model.md), which `about` of the model says.

    Of write-verify files those by ISPP on fresh cells are used, beside sweeps; the others are for
    the check. Raises `DataError` where no file can be fitted.
    """
    content = start()
    content["name"] = name
    by_kind: dict[Kind, list[Measured]] = {}
    for file in files:
        by_kind.setdefault(file.kind, []).append(file)
    sweeps = by_kind.get("sweep", []) + by_kind.get("pulses", [])
    cycling = by_kind.get("cycling", [])
    verified = [
        file
        for file in by_kind.get("write-verify", [])
        if sweeps and not is_told(file) and is_ispp(file.name) and cycles_before(file.name) == 0
    ]
    used = [file for file in files if file.kind not in ("write-verify", "cycling")]
    if not used:
        told = " (cycles are fitted together with sweeps only)" if cycling else ""
        raise DataError(
            "nothing to fit: no sweep, train of pulses, relaxation, forming or read noise is among"
            " what is given" + told
        )
    determined = _fit_apart(content, by_kind, tell)
    if verified:
        content["reset"]["redraw"]["shallow"] = dict(SHALLOW)
        content["reset"]["wear"]["again_ln"] = AGAIN_LN
    both = {
        is_reset: [_Target.of(file) for file in sweeps if file.is_reset is is_reset]
        for is_reset in (False, True)
    }
    states = {is_reset: [_Cycles.of(file, high=is_reset) for file in cycling] for is_reset in both}

    def residuals(model: DeviceModel, is_reset: bool) -> FloatArray:
        parts = [_sweep_residuals(model, target) for target in both[is_reset]]
        return np.concatenate(parts + [_cycle_residuals(model, one) for one in states[is_reset]])

    for is_reset, part in ((False, "SET"), (True, "RESET")):
        targets = both[is_reset]
        if not targets:
            continue
        swept = {target.plan.swept for target in targets}
        determined.append(part if swept != {"pulse"} else part + _AT_PULSES)
        tell(
            f"{part}: matching {counted(len(targets), 'sweep')}"
            + (f" and {counted(len(cycling), 'file')} of cycles" if cycling else "")
        )
        knobs = _reset_knobs(content, "wl_v" in swept) if is_reset else _set_knobs(content, swept)
        begin, cells = copy.deepcopy(content), _cells_of(targets)
        wrong = partial(residuals, is_reset=is_reset)
        content = _match(content, knobs, wrong, rounds, cells)
        if is_reset and not verified and _never_open(content, states[True]):
            determined.append("cells that do not open")
            tell(f"RESET: again, for {states[True][0].never:.0%} of the cycled cells never opened")
            content = _match_shut(begin, knobs, wrong, states[True], rounds, cells)
    if verified:
        determined.append("cells that creep or do not open")
        # Only here: of sweeps alone, what cells have more in series would go over into all cells'.
        content["set"]["grow"]["creep"] = dict(CREEP)
        over = content["set"]["grow"]["overdrive"]
        over["part"] = [_STILL_OVERDRIVEN * part for part in over["part"]]
        _tell_of("write-verify: matching the pulses", verified, "cells", tell)
        content = _match(
            content,
            _verify_knobs(content),
            _all_residuals(residuals, both, verified),
            math.ceil(rounds / 2),
            _cells_of(both[False] + both[True]),
        )
    if cycling and not sweeps:
        tell("cycles: left alone, for they are fitted together with sweeps only")
    summary = _summary(determined)
    tell(summary)
    seen = used + verified + (cycling if sweeps else [])
    content["about"] = (
        "fitted by rram-hil calibrate device-model to "
        + ", ".join(sorted({f.name for f in seen}))
        + f"; {summary}"
    )
    return DeviceModel.model_validate(content)


def _fit_apart(
    content: dict[str, Any], by_kind: dict[Kind, list[Measured]], tell: Tell
) -> list[str]:
    """What needs no matching: read noise, forming and relaxation; which of them there is."""
    determined = []
    if noise := by_kind.get("read-noise"):
        determined.append("read noise")
        _tell_of("read noise: law", noise, "cells", tell)
        _fit_noise(content["read"], noise)
    if forming := by_kind.get("forming"):
        determined.append("forming")
        _tell_of("forming: thresholds", forming, "cells", tell)
        _fit_forming(content, forming)
    if relaxation := by_kind.get("relaxation"):
        determined.append("relaxation")
        content["drift"] = _drift_of(_of_one_grid(relaxation, tell), content["read"])
        content["relaxation"] = None
    return determined


def _match_shut(
    content: dict[str, Any],
    knobs: list[Knob],
    residuals: Callable[[DeviceModel], FloatArray],
    cycles: list[_Cycles],
    rounds: int,
    cells: int,
) -> dict[str, Any]:
    """Match RESETs with cells that do not open among the rest. From the beginning: where there is
    no such law, a spread between cells has taken its place.
    """
    content["reset"]["redraw"]["shallow"] = dict(SHALLOW)

    def wrong(model: DeviceModel) -> FloatArray:
        told = []
        for one in cycles:
            never, most_ln = one.shut_on(model)
            told += [(never - one.never) / _NEVER_SD, (most_ln - one.most_ln) / _MOST_SD_LN]
        return np.append(residuals(model), told)

    return _match(content, [*knobs, *_shallow_knobs()], wrong, rounds, cells)


def _never_open(content: dict[str, Any], cycles: list[_Cycles]) -> bool:
    """Whether more cells never opened in any cycle than a model without such cells has."""
    model = DeviceModel.model_validate(content)
    return any(
        one.plan.before.size >= _ENOUGH_CYCLES
        and one.never - one.shut_on(model)[0]
        > 2 * math.sqrt(one.never * (1 - one.never) / one.cells)
        for one in cycles
    )


def _cells_of(targets: list[_Target]) -> int:
    """Cells of a measurement, in the mean."""
    return round(float(np.mean([np.unique(target.plan.cell).size for target in targets])))


def _all_residuals(
    residuals: Callable[[DeviceModel, bool], FloatArray],
    both: dict[bool, list[_Target]],
    verified: list[Measured],
) -> Callable[[DeviceModel], FloatArray]:
    """Residuals of a model: of both kinds of sweeps, as far as there are, and of write-verify."""
    targets = [_Verified.of(file, verified[:k]) for k, file in enumerate(verified)]

    def found(model: DeviceModel) -> FloatArray:
        sweeps = [residuals(model, is_reset) for is_reset, some in both.items() if some]
        return np.concatenate(sweeps + [_verify_residuals(model, one) for one in targets])

    return found


def _tell_of(what: str, files: list[Measured], rows: str, tell: Tell) -> None:
    names = ", ".join(file.name for file in files)
    tell(f"{what} of {sum(file.rows for file in files)} {rows} ({names})")


def _summary(determined: list[str]) -> str:
    """Which parts were determined, and which kept from where."""
    told = ["determined: " + ", ".join(determined)]
    for source, parts in (("hfo2", _FROM_HFO2), ("published curves", _FROM_CURVES)):
        kept = [part for part in parts if part not in determined]
        kept = [f"{p} at other volts" if f"{p}{_AT_PULSES}" in determined else p for p in kept]
        if kept:
            told.append(f"kept from {source}: " + ", ".join(kept))
    return "; ".join(told)


def _fit_forming(content: dict[str, Any], files: list[Measured]) -> None:
    """Thresholds and conductances of the formed cells of all files, at the width of the first."""
    part, width_s = content["forming"], form_plan(files[0]).width_s
    thresholds, resistances = [], []
    for file in files:
        good = (file["success"] == 1) & (file["r_after_ohm"] > 0)
        bl, ohm = file["bl_v"][good], file["r_after_ohm"][good]
        if bl.size < _FEWEST_FORMED:
            raise DataError(f"{file.name}: {bl.size} formed cells are too few for a distribution")
        plan = form_plan(file)
        # A cell that formed at a volt has its threshold anywhere in the step below it.
        below = plan.step_v * (np.arange(bl.size) * 0.6180339887 % 1.0)
        worth = part["width_v_per_decade"] * math.log10(plan.width_s / width_s)
        thresholds.append(np.sort(bl) - below + worth)
        resistances.append(ohm)
    spread, ohm = np.sort(np.concatenate(thresholds)), np.concatenate(resistances)
    even = np.linspace(0, 1, _FORM_POINTS)
    part["quantile_v"] = [float(v) for v in np.quantile(spread, even)]
    part["threshold_v"], part["threshold_sd_v"] = float(spread.mean()), float(spread.std(ddof=1))
    part["reference_width_s"] = width_s
    part["conductance_s"] = float(1 / np.median(ohm))
    low, high = np.quantile(np.log(ohm), [0.16, 0.84])
    part["spread_ln"] = float((high - low) / 2)


def _fit_noise(read: dict[str, Any], files: list[Measured]) -> None:
    """The law sd^2 = floor^2 + (fraction G)^2 of the cells of all files, least squares of the
    variances, each weighed by the law's own.
    """
    g, sd = (np.concatenate([file[name] for file in files]) for name in ("g_s", "noise_s"))
    # Variances of micro-siemens: of a size that the solver likes.
    terms, variance = np.stack([np.ones(g.size), (g * 1e6) ** 2], axis=1), (sd * 1e6) ** 2
    weight = 1.0 / np.maximum(terms[:, 1], 1e-6)
    found = np.zeros(2)
    for _ in range(_REWEIGHED):
        found, _ = nnls(terms * weight[:, None], variance * weight)
        weight = 1.0 / np.maximum(terms @ found, 1e-12)
    read["floor_s"], read["fraction"] = float(np.sqrt(found[0])) * 1e-6, float(np.sqrt(found[1]))


def _of_one_grid(files: list[Measured], tell: Tell) -> Measured:
    """The relaxation files that were read from the same time on and at the times of one of them,
    those with the most rows, as one: cells of each under numbers of their own.
    """
    times = [np.unique(file["time_bin_s"][file["time_bin_s"] > 0]) for file in files]

    def of_grid(grid: FloatArray) -> list[Measured]:
        return [
            file
            for file, its in zip(files, times, strict=True)
            if its[:1] == grid[:1] and np.isin(its, grid).all()
        ]

    used = max(map(of_grid, times), key=lambda group: sum(file.rows for file in group))
    _tell_of("relaxation: distributions", used, "readings", tell)
    if others := [file.name for file in files if file not in used]:
        tell(f"relaxation: read at other times, and left alone: {', '.join(others)}")
    columns = {
        name: np.concatenate([file[name] for file in used]) for name in COLUMNS["relaxation"]
    }
    if all("level_s" in file.columns for file in used):
        columns["level_s"] = np.concatenate([file["level_s"] for file in used])
    columns["initial_age_s"] = np.concatenate(
        [file.columns.get("initial_age_s", np.zeros(file.rows)) for file in used]
    )
    spans = [int(file["cell"].max()) + 1 for file in used]
    columns["cell"] += np.repeat(np.cumsum([0, *spans[:-1]]), [file.rows for file in used])
    return Measured(used[0].name, "relaxation", columns)


def _seen(age_s: FloatArray, first_s: float) -> float:
    """How much of the change at the first time cells had behind them when they were first read,
    `age_s` after programming: as much as the model's onset, which is linear in the logarithm of the
    time.
    """
    with np.errstate(divide="ignore"):
        early = 1 + np.log10(age_s / first_s) / _ONSET_DECADES
    return float(np.median(np.clip(early, 0.0, _MOST_SEEN)))


def _bands_of_relaxation(
    file: Measured, at_first: NDArray[np.bool_]
) -> Iterator[NDArray[np.bool_]]:
    """Rows of each band of conductance, from low to high: the level that cells were programmed to
    where the file tells it, else equal parts of the cells by their first reading.

    What a cell was first read at holds some of its relaxation: a part of a level by that reading
    would be a part of the distribution.
    """
    if "level_s" in file.columns:
        levels, cells = np.unique(file["level_s"][at_first], return_counts=True)
        if (known := levels[cells >= _AT_A_LEVEL]).size > 0:
            yield from (file["level_s"] == level for level in known)
            return
    initial = file["g_initial_s"]
    bands = int(np.clip(at_first.sum() // _IN_A_BAND, 2, _BANDS))
    for low, high in pairwise(np.quantile(initial[at_first], np.linspace(0, 1, bands + 1))):
        yield (initial >= low) & (initial <= high)


def _drift_of(file: Measured, read: dict[str, Any]) -> dict[str, Any]:
    """Quantiles of the change by time and conductance; what a reading's noise adds is taken off the
    spread.
    """
    times = np.unique(file["time_bin_s"])
    times = times[times > 0]
    if times.size < 2:
        raise DataError(
            f"{file.name}: relaxation needs readings at 2 or more times after programming"
        )
    initial, change = file["g_initial_s"], file["g_s"] - file["g_initial_s"]
    at_first = file["time_bin_s"] == times[0]
    centres: list[float] = []
    table: list[list[list[float]]] = [[] for _ in times]
    for mine in _bands_of_relaxation(file, at_first):
        if mine.sum() < 50:
            continue
        centres.append(float(np.median(initial[mine])))
        noise = math.hypot(read["fraction"] * centres[-1], read["floor_s"])
        since = np.array(
            [_quantiles_of(change[mine & (file["time_bin_s"] == t)], noise) for t in times]
        )
        # A cell keeps its place in the distribution: what came before adds up by quantiles.
        seen = _seen(file["initial_age_s"][mine], float(times[0]))
        for row, quantiles in zip(table, since + seen / (1 - seen) * since[0], strict=True):
            row.append(quantiles.tolist())
    if len(centres) == 1 and "level_s" in file.columns:
        # A single level says the same of all: a table has two.
        centres.append(1.01 * centres[0])
        for row in table:
            row.append(row[0])
    if len(centres) < 2:
        raise DataError(
            f"{file.name}: {at_first.sum()} cells, {times.size} readings after programming and"
            f" {np.unique(initial[at_first]).size} conductances are too few for distributions of"
            " relaxation"
        )
    return {
        "log10_s": [float(np.log10(t)) for t in times],
        "onset_decades": _ONSET_DECADES,
        "g_s": centres,
        "probability": list(_PROBABILITY),
        "change_s": table,
    }


def _quantiles_of(x: FloatArray, noise: float) -> list[float]:
    """Quantiles such that linear interpolation between them has the mean and the sd of `x` less the
    noise.
    """
    p = np.asarray(_PROBABILITY)
    q = np.quantile(x, p)
    middle = q[p.size // 2]
    robust = 1.4826 * float(np.median(np.abs(x - np.median(x))))
    shrink = math.sqrt(max(1 - (noise / robust) ** 2, 0.1)) if robust > 0 else 1.0
    body = np.abs(np.arange(p.size) - p.size // 2) <= 5
    q = np.where(body, middle + shrink * (q - middle), q)
    wide = np.diff(p)
    for _ in range(20):
        # Between two quantiles the straight line has a mean and a square of its own: scale the
        # tails until both agree.
        a, b = q[:-1], q[1:]
        mean = float(np.sum(wide * (a + b) / 2))
        square = float(np.sum(wide * (a * a + a * b + b * b) / 3)) - mean**2
        wanted = max(float(x.var()) - noise**2, 1e-30)
        tail = ~body
        q = np.where(tail, middle + (q - middle) * np.clip(math.sqrt(wanted / square), 0.9, 1.1), q)
    return [float(v) for v in np.maximum.accumulate(q)]
