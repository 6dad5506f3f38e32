"""The measured experiments, carried out on a device model: the same volts, the same starts, the
same rule for stopping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rram_hil.simulation.model import DeviceModel, Traits
from rram_hil.types import FloatArray, IntArray

from .key_figures import AWAY_LN, Curves
from .measured_files import FULL_RESET, FULL_SET, WIDTH_S, Measured

CLOSED_S = 60e-6
"""Sweeps whose median start is above this begin on a settled filament, the others on one that their
pulses grow.
"""
FORM_WL_V = 2.0
FORM_TO_V = 4.6
"""Gate and last volts of a forming ramp where a file does not tell them."""
_ROUND = 1000
"""Events of a sweep, at least."""


def traits_of(model: DeviceModel, seed: int, cell: IntArray) -> Traits:
    """The traits of cells that respond: the experiments on single cells were done on such."""
    traits = model.traits(seed, cell)
    return replace(traits, stuck=np.zeros_like(traits.stuck))


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """A sweep experiment as measured: lines and volts, and cell, number and start (S) of each
    sweep, shape (sweeps,).

    `stop_ohm`: a sweep ends once its reading is at or beyond it; None where none ended early.
    `grown`: the filaments were grown by SET pulses just before, none is a settled one. Of a train
    of equal pulses `swept` is "pulse", and `volts` are their numbers; `read` (volts,) says after
    which of them it is read.
    """

    reset: bool
    swept: str
    volts: FloatArray
    fixed: dict[str, float]
    width_s: float
    cell: IntArray
    number: IntArray
    start_s: FloatArray
    stop_ohm: float | None
    grown: bool = False
    read: NDArray[np.bool_] | None = None

    @property
    def settled_s(self) -> FloatArray:
        """Size (S) of the settled filament that each sweep starts on; NaN where its pulses grow
        one.

        One size for all: measured, the RESET threshold follows how a file's cells were prepared and
        not what each then reads.
        """
        middle = float(np.median(self.start_s))
        if self.grown or middle < CLOSED_S:
            return np.full(self.start_s.shape, np.nan)
        return np.full(self.start_s.shape, middle)


def sweep_plan(measured: Measured) -> SweepPlan:
    """What was done in a measured sweep or train of pulses, read off the file."""
    is_train = measured.kind == "pulses"
    cells, cell = np.unique(measured["cell"], return_inverse=True)
    v = measured.levels
    key, first, row = np.unique(
        np.stack([measured["cell"], measured["sweep"]]),
        axis=1,
        return_index=True,
        return_inverse=True,
    )
    row = row.ravel()
    # A sweep that was begun anew stands in the file with its first pulses twice: the last beginning
    # counts.
    begins = np.flatnonzero(np.isclose(v, v.min()))
    first[row[begins]] = begins
    # The first pulse is meant too weak to act, so the reading after it is the start; where it did
    # act, the one before is.
    before, after = measured["r_before_ohm"][first], measured["r_after_ohm"][first]
    with np.errstate(divide="ignore", invalid="ignore"):
        still = (np.abs(np.log(after / before)) < AWAY_LN) & (not is_train)
    start = np.where(still, after, before)
    good = start > 0
    last = np.zeros(key.shape[1], dtype=np.int64)
    np.maximum.at(last, row, np.arange(row.size))
    end_ohm, end_v = measured["r_after_ohm"][last], v[last]
    stopped = (end_v < v.max() - 1e-9) & (end_ohm > 0) & (not is_train)
    stop = None
    if stopped.mean() > 0.1:
        stop = float(end_ohm[stopped].min() if measured.is_reset else end_ohm[stopped].max())
    number = np.zeros(key.shape[1], dtype=np.int64)
    for k in range(cells.size):
        mine = cell[first] == k
        number[mine] = np.arange(mine.sum())
    width = (
        measured["pulse_width_ns"] if "pulse_width_ns" in measured.columns else np.array([200.0])
    )
    volts = np.arange(1.0, v.max() + 1) if is_train else np.unique(v)
    return SweepPlan(
        reset=measured.is_reset,
        swept=measured.swept,
        volts=volts,
        fixed={
            name: measured.fixed(name)
            for name in ("bl_v", "sl_v", "wl_v")
            if name != measured.swept
        },
        width_s=float(np.median(width)) * 1e-9,
        cell=cell[first][good],
        number=number[good],
        start_s=1.0 / start[good],
        stop_ohm=stop,
        grown=measured.fixed("grown") > 0,
        read=np.isin(volts, v) if is_train else None,
    )


def sweep_on_model(model: DeviceModel, plan: SweepPlan, seed: int, copies: int) -> list[Curves]:
    """The experiment on `copies` times as many cells, one `Curves` a copy, each with the measured
    starts.
    """
    cells = int(plan.cell.max()) + 1
    cell = np.concatenate([plan.cell + k * cells for k in range(copies)])
    event = np.tile(plan.number * max(_ROUND, 2 * plan.volts.size + 2) + 1, copies)
    g, settled = np.tile(plan.start_s, copies), np.tile(plan.settled_s, copies)
    number = np.tile(plan.number, copies)
    traits = traits_of(model, seed, cell)
    formed = np.ones(cell.size, dtype=np.bool_)
    going = np.ones(cell.size, dtype=np.bool_)
    seen = np.empty((cell.size, plan.volts.size))
    broken = np.zeros(cell.size)
    now = g.copy()
    for k, volts in enumerate(plan.volts):
        line = plan.fixed | {plan.swept: float(volts)}
        at = np.flatnonzero(going)
        if at.size:
            part, when = traits.part(at), event[at] + 2 * k
            drive = np.full(at.size, line["sl_v"] if plan.reset else line["bl_v"])
            gate = np.full(at.size, line["wl_v"])
            pulse = (seed, part, when, g[at], formed[at], drive, gate, plan.width_s)
            if plan.reset:
                after = model.after_reset(
                    *pulse,
                    settled_s=settled[at],
                    cycle=event[at],
                    broken_s=broken[at],
                    cycles_done=number[at],
                )
                broken[at], _ = model.broken_after(-1, g[at], after, broken[at], settled[at])
            else:
                after, _ = model.after_set(*pulse, settled_s=settled[at], cycle=event[at])
            g[at] = after
            now[at] = np.maximum(model.as_read(seed, part, when + 1, after), 1e-9)
            if plan.stop_ohm is not None:
                ohm = 1.0 / now[at]
                going[at] = ohm < plan.stop_ohm if plan.reset else ohm > plan.stop_ohm
        seen[:, k] = now
    read = slice(None) if plan.read is None else plan.read
    ln_g = np.log(np.maximum(seen[:, read] * 1e6, 0.01))
    n = plan.cell.size
    return [
        Curves(plan.cell.astype(np.float64), plan.volts[read], ln_g[k * n : (k + 1) * n])
        for k in range(copies)
    ]


@dataclass(frozen=True)
class FormPlan:
    """A forming ramp as measured: BL from `first_v` by `step_v` to below `to_v`, WL (V), width (s)
    of the pulses.
    """

    first_v: float
    step_v: float
    to_v: float = FORM_TO_V
    wl_v: float = FORM_WL_V
    width_s: float = WIDTH_S


def form_plan(measured: Measured) -> FormPlan:
    """What was done in a measured forming ramp: its steps are those between the volts at which
    cells formed, and it ends where cells that did not form say so.
    """
    formed = measured["success"] == 1
    bl = measured["bl_v"][formed]
    steps = np.diff(np.unique(np.round(bl, 4)))
    step_v = float(np.median(steps)) if steps.size else 0.05
    to_v = FORM_TO_V if formed.all() else float(measured["bl_v"].max()) + step_v / 2
    return FormPlan(
        float(bl.min()),
        step_v,
        to_v,
        measured.fixed("wl_v", FORM_WL_V),
        measured.fixed("pulse_width_ns", WIDTH_S * 1e9) * 1e-9,
    )


def form_on_model(
    model: DeviceModel, plan: FormPlan, seed: int, n: int
) -> tuple[FloatArray, FloatArray]:
    """BL at which each of `n` cells formed (V) and its resistance after (ohm), of those that
    formed.
    """
    cell = np.arange(n, dtype=np.int64)
    traits = traits_of(model, seed, cell)
    g = traits.fixed_s.astype(np.float64)
    formed = np.zeros(n, dtype=np.bool_)
    bl, ohm = np.full(n, np.nan), np.full(n, np.nan)
    for k, volts in enumerate(np.arange(plan.first_v, plan.to_v, plan.step_v)):
        at = np.flatnonzero(~formed)
        if at.size == 0:
            break
        when = np.full(at.size, 2 * k + 1)
        after, now = model.after_set(
            seed,
            traits.part(at),
            when,
            g[at],
            formed[at],
            np.full(at.size, volts),
            np.full(at.size, plan.wl_v),
            plan.width_s,
        )
        g[at], formed[at] = after, now
        done = at[now]
        bl[done] = volts
        ohm[done] = 1 / np.maximum(
            model.as_read(seed, traits.part(done), np.full(done.size, 2 * k + 2), g[done]), 1e-9
        )
    good = formed
    return bl[good], ohm[good]


@dataclass(frozen=True, eq=False)
class CyclePlan:
    """Full cycles as measured: how many each cell has behind it at the cycles that are read, shape
    (cycles,), and both pulses, each as (SL or BL, WL) in V and its width in s.
    """

    before: IntArray
    reset_v: tuple[float, float] = FULL_RESET
    set_v: tuple[float, float] = FULL_SET
    reset_width_s: float = WIDTH_S
    set_width_s: float = WIDTH_S


def evenly(cycles: int, of: int) -> IntArray:
    """`cycles` numbers of cycles, evenly spread over `of` that each cell takes."""
    return ((np.arange(cycles) + 0.5) * of / cycles).astype(np.int64)


def cycle_plan(measured: Measured, cycles: int) -> CyclePlan:
    """What was done in measured full cycles, as far as the file tells; `cycles` of them where it
    does not say which were read.
    """
    if "cycles_before" in measured.columns:
        before = np.unique(measured["cycles_before"]).astype(np.int64)
    else:
        before = evenly(cycles, measured.rows_per_cell)
    return CyclePlan(
        before,
        (measured.fixed("reset_sl_v", FULL_RESET[0]), measured.fixed("reset_wl_v", FULL_RESET[1])),
        (measured.fixed("set_bl_v", FULL_SET[0]), measured.fixed("set_wl_v", FULL_SET[1])),
        measured.fixed("reset_width_ns", WIDTH_S * 1e9) * 1e-9,
        measured.fixed("set_width_ns", WIDTH_S * 1e9) * 1e-9,
    )


def cycle_on_model(
    model: DeviceModel, seed: int, cells: int, plan: CyclePlan
) -> tuple[FloatArray, FloatArray]:
    """High and low state (ohm) of full cycles, each shape (cells, cycles): RESET, read, SET,
    read.
    """
    cycles = plan.before.size
    number = np.tile(plan.before, cells)
    cell = np.repeat(np.arange(cells, dtype=np.int64), cycles)
    event = np.tile(np.arange(cycles, dtype=np.int64) * 8 + 9, cells)
    traits = traits_of(model, seed, cell)
    n = cell.size
    formed = np.ones(n, dtype=np.bool_)

    def reset(g: FloatArray, when: IntArray) -> FloatArray:
        sl, wl = (np.full(n, volts) for volts in plan.reset_v)
        width_s = plan.reset_width_s
        return model.after_reset(
            seed, traits, when, g, formed, sl, wl, width_s, cycle=when, cycles_done=number
        )

    def set_(g: FloatArray, when: IntArray) -> FloatArray:
        bl, wl = (np.full(n, volts) for volts in plan.set_v)
        width_s = plan.set_width_s
        return model.after_set(seed, traits, when, g, formed, bl, wl, width_s, cycle=when)[0]

    g = set_(np.full(n, 10e-6), event)
    high = reset(g, event + 1)
    read_high = model.as_read(seed, traits, event + 2, high)
    low = set_(high, event + 3)
    read_low = model.as_read(seed, traits, event + 4, low)
    high_ohm, low_ohm = (
        1 / np.maximum(read, 1e-9).reshape(cells, cycles) for read in (read_high, read_low)
    )
    return high_ohm, low_ohm


def noise_on_model(model: DeviceModel, g_s: FloatArray, reads: int, seed: int) -> FloatArray:
    """Standard deviation (S) of `reads` readings of each of the cells that conduct `g_s`, shape of
    `g_s`; of cells that do not switch between two levels.
    """
    cell = np.arange(g_s.size, dtype=np.int64)
    traits = replace(traits_of(model, seed, cell), telegraph=np.zeros(g_s.size, dtype=np.bool_))
    readings = [
        model.as_read(seed, traits, np.full(g_s.size, event, dtype=np.int64), g_s)
        for event in range(reads)
    ]
    return np.asarray(np.std(readings, axis=0, ddof=1), dtype=np.float64)


def relax_on_model(
    model: DeviceModel,
    time_s: FloatArray,
    initial_s: FloatArray,
    cell: FloatArray,
    seconds: FloatArray,
    seed: int,
    initial_age_s: FloatArray | float = 0.0,
) -> FloatArray:
    """Conductances read (S) `seconds` after cells read `initial_s`, for each row of a relaxation
    file; at that reading they had been programmed for `initial_age_s`.
    """
    _, index = np.unique(cell, return_inverse=True)
    index = index.astype(np.int64)
    event = np.ones(index.size, dtype=np.int64)
    g = np.maximum(initial_s, 1e-9)
    age_s = np.broadcast_to(np.asarray(initial_age_s, dtype=np.float64), g.shape)
    now = model.relaxed(seed, index, event, g, age_s + np.where(time_s > 0, seconds, 0.0))
    if np.any(age_s > 0):
        now = np.maximum(now + g - model.relaxed(seed, index, event, g, age_s), 0.05 * g)
    traits = traits_of(model, seed, index)
    when = 10 + np.searchsorted(np.unique(time_s), time_s)
    return model.as_read(seed, traits, when.astype(np.int64), now)
