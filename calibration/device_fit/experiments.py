"""The measured experiments, carried out on a device model: the same volts, the same starts, the
same rule for stopping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rram_hil.simulation.model import DeviceModel, Traits
from rram_hil.types import FloatArray, IntArray

from .key_figures import AWAY_LN, Curves
from .measured_files import Measured

CLOSED_S = 60e-6
"""Sweeps whose median start is above this begin on a settled filament, the others on one that their
pulses grow.
"""
FULL_RESET = (3.0, 4.0)
"""SL and WL (V) of the RESET of a full cycle."""
FULL_SET = (2.0, 2.7)
"""BL and WL (V) of the SET of a full cycle."""
_ROUND = 1000


def traits_of(model: DeviceModel, seed: int, cell: IntArray) -> Traits:
    """The traits of cells that respond: the experiments on single cells were done on such."""
    traits = model.traits(seed, cell)
    return replace(traits, stuck=np.zeros_like(traits.stuck))


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """A sweep experiment as measured: lines and volts, and cell, number and start (S) of each
    sweep, shape (sweeps,).

    `stop_ohm`: a sweep ends once its reading is at or beyond it; None where none ended early.
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

    @property
    def settled_s(self) -> FloatArray:
        """Size (S) of the settled filament that each sweep starts on; NaN where its pulses grow
        one.

        One size for all: measured, the RESET threshold follows how a file's cells were prepared and
        not what each then reads.
        """
        middle = float(np.median(self.start_s))
        if middle < CLOSED_S:
            return np.full(self.start_s.shape, np.nan)
        return np.full(self.start_s.shape, middle)


def sweep_plan(measured: Measured) -> SweepPlan:
    """What was done in a measured sweep, read off the file."""
    cells, cell = np.unique(measured["cell"], return_inverse=True)
    v = np.rint(measured[measured.swept] * 20) / 20
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
        still = np.abs(np.log(after / before)) < AWAY_LN
    start = np.where(still, after, before)
    good = start > 0
    last = np.zeros(key.shape[1], dtype=np.int64)
    np.maximum.at(last, row, np.arange(row.size))
    end_ohm, end_v = measured["r_after_ohm"][last], v[last]
    stopped = (end_v < v.max() - 1e-9) & (end_ohm > 0)
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
    return SweepPlan(
        reset=measured.is_reset,
        swept=measured.swept,
        volts=np.unique(v),
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
    )


def sweep_on_model(model: DeviceModel, plan: SweepPlan, seed: int, copies: int) -> list[Curves]:
    """The experiment on `copies` times as many cells, one `Curves` a copy, each with the measured
    starts.
    """
    cells = int(plan.cell.max()) + 1
    cell = np.concatenate([plan.cell + k * cells for k in range(copies)])
    event = np.tile(plan.number * _ROUND + 1, copies)
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
    ln_g = np.log(np.maximum(seen * 1e6, 0.01))
    n = plan.cell.size
    return [
        Curves(plan.cell.astype(np.float64), plan.volts, ln_g[k * n : (k + 1) * n])
        for k in range(copies)
    ]


def form_on_model(
    model: DeviceModel, first_v: float, step_v: float, seed: int, n: int
) -> tuple[FloatArray, FloatArray]:
    """BL at which each cell formed (V) and its resistance after (ohm): BL ramped from `first_v` at
    WL 2 V.
    """
    cell = np.arange(n, dtype=np.int64)
    traits = traits_of(model, seed, cell)
    g = traits.fixed_s.astype(np.float64)
    formed = np.zeros(n, dtype=np.bool_)
    bl, ohm = np.full(n, np.nan), np.full(n, np.nan)
    for k, volts in enumerate(np.arange(first_v, 4.6, step_v)):
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
            np.full(at.size, 2.0),
            200e-9,
        )
        g[at], formed[at] = after, now
        done = at[now]
        bl[done] = volts
        ohm[done] = 1 / np.maximum(
            model.as_read(seed, traits.part(done), np.full(done.size, 2 * k + 2), g[done]), 1e-9
        )
    good = formed
    return bl[good], ohm[good]


def cycle_on_model(
    model: DeviceModel, seed: int, cells: int, cycles: int, of: int
) -> tuple[FloatArray, FloatArray]:
    """High and low state (ohm) of full cycles, each shape (cells, cycles): `FULL_RESET`, read,
    `FULL_SET`, read.

    The cycles are evenly spread over `of` that each cell takes.
    """
    number = np.tile(((np.arange(cycles) + 0.5) * of / cycles).astype(np.int64), cells)
    cell = np.repeat(np.arange(cells, dtype=np.int64), cycles)
    event = np.tile(np.arange(cycles, dtype=np.int64) * 8 + 9, cells)
    traits = traits_of(model, seed, cell)
    n = cell.size
    formed = np.ones(n, dtype=np.bool_)

    def reset(g: FloatArray, when: IntArray) -> FloatArray:
        sl, wl = (np.full(n, volts) for volts in FULL_RESET)
        return model.after_reset(
            seed, traits, when, g, formed, sl, wl, 200e-9, cycle=when, cycles_done=number
        )

    def set_(g: FloatArray, when: IntArray) -> FloatArray:
        bl, wl = (np.full(n, volts) for volts in FULL_SET)
        return model.after_set(seed, traits, when, g, formed, bl, wl, 200e-9, cycle=when)[0]

    g = set_(np.full(n, 10e-6), event)
    high = reset(g, event + 1)
    read_high = model.as_read(seed, traits, event + 2, high)
    low = set_(high, event + 3)
    read_low = model.as_read(seed, traits, event + 4, low)
    high_ohm, low_ohm = (
        1 / np.maximum(read, 1e-9).reshape(cells, cycles) for read in (read_high, read_low)
    )
    return high_ohm, low_ohm


def relax_on_model(
    model: DeviceModel,
    time_s: FloatArray,
    initial_s: FloatArray,
    cell: FloatArray,
    seconds: FloatArray,
    seed: int,
) -> FloatArray:
    """Conductances read (S) `seconds` after a programming to `initial_s`, for each row of a
    relaxation file.
    """
    _, index = np.unique(cell, return_inverse=True)
    index = index.astype(np.int64)
    event = np.ones(index.size, dtype=np.int64)
    g = np.maximum(initial_s, 1e-9)
    now = model.relaxed(seed, index, event, g, np.where(time_s > 0, seconds, 0.0))
    traits = traits_of(model, seed, index)
    when = 10 + np.searchsorted(np.unique(time_s), time_s)
    return model.as_read(seed, traits, when.astype(np.int64), now)
