"""Write-verify schemes of published studies, carried out on a device model. Their constants stand
here and are fitted to nothing; after how many RESETs they give up a cell of the top window is read
off each file.

What a scheme does is public (Levy et al., IEEE TED 2021 and the descriptions beside its data: ISPP,
FPPV and RADAR at 2 bit/cell). ISPP's ramp begins at the highest gate voltage of the SET sweep that
does nothing yet (1.8 V) and ends after 18 pulses of 0.1 V, at 3.5 V. The full RESET is that of full
cycles. FPPV and RADAR set each window at the gate volts whose median SET falls in it: 3.0 V for the
lowest, the model's own curve for the others. RADAR's fine pulses ramp BL at that gate and SL at a
gate of 4 V; the study took the starts and steps of these ramps that needed the fewest pulses on its
chip, range by range, so here they are those that needed the fewest on the model
(benchmarks/radar_ramps.py), within the ranges that the study searched: BL in the lowest window,
which has no end to overshoot, and in the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rram_hil.simulation.bank import CellBank
from rram_hil.simulation.model import DeviceModel
from rram_hil.types import FloatArray, IntArray

from .measured_files import FULL_RESET, FULL_SET, Measured

ISPP_WL_V = (1.8, 3.5)
"""First and last WL of the SET ramp; BL stands at that of full cycles."""
MOST_RESETS = 200
"""RESETs after which a cell has failed: ISPP, and in a top window whose file does not tell."""
FINE_ATTEMPTS = 20
"""RADAR: changes of direction after which a cell has failed."""
FINE_BL_V = (1.2, 0.02, 3.0)
"""RADAR: first BL, step and last of the fine SET ramp, at the gate volts of the coarse SET."""
LOW_BL_V = (2.0, 0.22, 3.0)
"""RADAR: those of the lowest window."""
FINE_SL_V = (1.6, 0.18, 3.0)
"""RADAR: first SL, step and last of the fine RESET ramp, at `FINE_RESET_WL_V`."""
FINE_RESET_WL_V = 4.0
LOW_WL_V = 3.0
"""FPPV and RADAR: gate volts of the lowest window."""
FPPV_PULSES = 1000
WIDTH_S = 200e-9
OPEN_OHM = 1e6
"""A window that ends above this is the top one."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a scheme did, shape (n,): SET and RESET pulses, and whether the cell ended in its
    window.
    """

    sets: IntArray
    resets: IntArray
    success: IntArray

    @property
    def pulses(self) -> IntArray:
        """All pulses."""
        return self.sets + self.resets


class _Cells:
    """Cells on their way into windows of resistance."""

    def __init__(
        self, model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray, seed: int, cycles: int
    ) -> None:
        n = low_ohm.size
        self.low, self.high, self.top = low_ohm, high_ohm, high_ohm > OPEN_OHM
        self.bank = CellBank(model, n, seed)
        self.bank.wear(cycles)
        self.sets, self.resets = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.done, self.failed = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        self.ohm = np.full(n, np.nan)
        # What the cells were used for before: a full cycle.
        self.bank.apply(0.0, *FULL_RESET, WIDTH_S)
        self.bank.apply(FULL_SET[0], 0.0, FULL_SET[1], WIDTH_S)

    @property
    def active(self) -> IntArray:
        """Positions of the cells still under way."""
        return np.flatnonzero(~self.done & ~self.failed)

    def set_(self, at: IntArray, bl_v: FloatArray | float, wl_v: FloatArray | float) -> None:
        """One SET pulse."""
        self.bank.apply(bl_v, 0.0, wl_v, WIDTH_S, at=at)
        self.sets[at] += 1

    def reset(
        self,
        at: IntArray,
        sl_v: FloatArray | float = FULL_RESET[0],
        wl_v: FloatArray | float = FULL_RESET[1],
    ) -> None:
        """One RESET pulse."""
        self.bank.apply(0.0, sl_v, wl_v, WIDTH_S, at=at)
        self.resets[at] += 1

    def read(self, at: IntArray) -> None:
        """Verify: cells inside their window are done."""
        self.ohm[at] = 1.0 / np.maximum(self.bank.read(at), 1e-10)
        self.done[at] = (self.ohm[at] >= self.low[at]) & (self.ohm[at] <= self.high[at])

    def outcome(self) -> Outcome:
        """What was done."""
        return Outcome(self.sets, self.resets, self.done.astype(np.int64))


def ispp(
    model: DeviceModel,
    low_ohm: FloatArray,
    high_ohm: FloatArray,
    step_v: float,
    seed: int,
    cycles: int = 0,
    top_resets: int = MOST_RESETS,
) -> Outcome:
    """Incremental step pulses: a full RESET; SET with WL rising by `step_v`; beyond the window,
    RESET and from the start.
    """
    cells = _Cells(model, low_ohm, high_ohm, seed, cycles)
    ramp = np.zeros(low_ohm.size, dtype=np.int64)
    last = round((ISPP_WL_V[1] - ISPP_WL_V[0]) / step_v)
    everything = cells.active
    cells.reset(everything)
    cells.read(everything)
    while (at := cells.active).size:
        too_high = cells.ohm[at] > cells.high[at]
        ended = too_high & (ramp[at] > last)
        up, down = at[too_high & ~ended], at[~too_high | ended]
        most = np.where(cells.top[down], top_resets, MOST_RESETS)
        cells.failed[down[cells.resets[down] >= most]] = True
        down = down[~cells.failed[down]]
        if up.size:
            cells.set_(
                up, FULL_SET[0], np.asarray(ISPP_WL_V[0] + step_v * ramp[up], dtype=np.float64)
            )
            ramp[up] += 1
        if down.size:
            cells.reset(down)
            ramp[down] = 0
        cells.read(np.sort(np.concatenate([up, down])))
    return cells.outcome()


def _window_wl_v(model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray) -> FloatArray:
    """Gate volts whose nominal SET falls in the middle of each window; `LOW_WL_V` for one that
    begins at 0.
    """
    middle = 2.0 / (np.maximum(low_ohm, 1.0) + np.minimum(high_ohm, 1e9))
    return np.where(low_ohm <= 0, LOW_WL_V, model.nominal_set_gate_v(middle, FULL_SET[0], WIDTH_S))


def fppv(
    model: DeviceModel,
    low_ohm: FloatArray,
    high_ohm: FloatArray,
    seed: int,
    cycles: int = 0,
    top_resets: int = MOST_RESETS,
) -> Outcome:
    """Fixed pulses: a full RESET, then SET at the window's own WL until inside; beyond it, RESET
    again.
    """
    cells = _Cells(model, low_ohm, high_ohm, seed, cycles)
    wl = _window_wl_v(model, low_ohm, high_ohm)
    top = cells.top
    cells.reset(cells.active)
    cells.ohm[:] = np.inf
    while (at := cells.active).size:
        up = at[(cells.ohm[at] > cells.high[at]) & ~top[at]]
        down = np.setdiff1d(at, up)
        cells.reset(down) if down.size else None
        if up.size:
            cells.set_(up, FULL_SET[0], wl[up])
        cells.read(at)
        # A RESET is followed by its SET; only in the top window is it the pulse that counts.
        cells.failed[at] = ~cells.done[at] & (
            np.where(
                top[at],
                cells.resets[at] >= top_resets,
                cells.resets[at] + cells.sets[at] > FPPV_PULSES,
            )
        )
    return cells.outcome()


def radar(
    model: DeviceModel,
    low_ohm: FloatArray,
    high_ohm: FloatArray,
    seed: int,
    cycles: int = 0,
    top_resets: int = MOST_RESETS,
    fine_bl_v: tuple[float, float, float] = FINE_BL_V,
    low_bl_v: tuple[float, float, float] = LOW_BL_V,
    fine_sl_v: tuple[float, float, float] = FINE_SL_V,
) -> Outcome:
    """Coarse and fine: a full RESET, one SET at the window's own WL, then fine ramps of BL (SET)
    and SL (RESET) until inside.

    A ramp begins anew at each change of direction; one that ends without effect does so too. The
    top window takes full RESETs.
    """
    cells = _Cells(model, low_ohm, high_ohm, seed, cycles)
    top = cells.top
    wl = _window_wl_v(model, low_ohm, high_ohm)
    cells.reset(cells.active)
    cells.read(cells.active)
    coarse = cells.active[~top[cells.active]]
    if coarse.size:
        cells.set_(coarse, FULL_SET[0], wl[coarse])
        cells.read(coarse)
    direction, ramp, attempts = (np.zeros(low_ohm.size, dtype=np.int64) for _ in range(3))
    low_bl, other_bl = (np.array(ramp_v)[:, None] for ramp_v in (low_bl_v, fine_bl_v))
    first_bl, step_bl, last_bl = np.where(low_ohm <= 0, low_bl, other_bl)
    while (at := cells.active).size:
        wanted = np.where(cells.ohm[at] > cells.high[at], 1, -1)
        bl = first_bl[at] + step_bl[at] * ramp[at]
        sl = fine_sl_v[0] + fine_sl_v[1] * ramp[at]
        ended = np.where(wanted > 0, bl > last_bl[at] + 1e-9, sl > fine_sl_v[2] + 1e-9)
        anew = (wanted != direction[at]) | ended
        attempts[at] += anew
        direction[at], ramp[at] = wanted, np.where(anew, 0, ramp[at])
        cells.failed[at] = np.where(
            top[at], cells.resets[at] >= top_resets, attempts[at] > FINE_ATTEMPTS
        )
        at = at[~cells.failed[at]]
        if at.size == 0:
            break
        up, down = at[(direction[at] > 0) & ~top[at]], at[(direction[at] < 0) & ~top[at]]
        if top[at].any():
            cells.reset(at[top[at]])
        if up.size:
            cells.set_(up, first_bl[up] + step_bl[up] * ramp[up], wl[up])
        if down.size:
            cells.reset(
                down, fine_sl_v[0] + fine_sl_v[1] * ramp[down].astype(np.float64), FINE_RESET_WL_V
            )
        ramp[at] += 1
        cells.read(at)
    return cells.outcome()


Scheme = Callable[[DeviceModel, FloatArray, FloatArray, int, int, int], Outcome]


def scheme_of(name: str) -> Scheme | None:
    """The scheme that a file's name tells (ispp with its step, fppv, radar), which takes model,
    ends of the windows (ohm), seed, cycles before and the RESETs after which a cell of the top
    window has failed; None for another name.
    """
    text = name.lower()
    if "radar" in text:
        return radar
    if "fppv" in text:
        return fppv
    if "ispp" in text:
        step = 0.1
        _, found, rest = text.partition("step_")
        if found:
            step = float(rest.split("v")[0].replace("p", "."))
        return partial(_stepped, step)
    return None


def is_ispp(name: str) -> bool:
    """Whether a file's name tells incremental step pulses."""
    scheme = scheme_of(name)
    return scheme is not None and scheme not in (radar, fppv)


def _stepped(
    step_v: float,
    model: DeviceModel,
    low_ohm: FloatArray,
    high_ohm: FloatArray,
    seed: int,
    cycles: int,
    top_resets: int,
) -> Outcome:
    return ispp(model, low_ohm, high_ohm, step_v, seed, cycles, top_resets)


def top_resets_of(measured: Measured) -> int:
    """RESETs after which the cells of a file's top window that failed were given up; `MOST_RESETS`
    where none did.
    """
    failed = (measured["r_high_ohm"] > OPEN_OHM) & (measured["success"] != 1)
    return int(np.median(measured["resets"][failed])) if failed.any() else MOST_RESETS


def cycles_before(name: str) -> int:
    """Cycles that a file's cells had behind them, as its name tells: 8,000 for `after8k`; else
    none.
    """
    found = re.search(r"after(\d+)(k?)", name.lower())
    return 0 if found is None else int(found[1]) * (1000 if found[2] else 1)


def cycles_of(measured: Measured, earlier: Sequence[Measured] = ()) -> int:
    """Cycles that the cells of a file had behind them, in the mean over its rows: what its name
    tells, those in the rows before of the same cell, and those of `earlier` files of the very same
    cells.
    """
    own = _cycles(measured)
    order = np.argsort(measured["cell"], kind="stable")
    _, first, count = np.unique(measured["cell"][order], return_index=True, return_counts=True)
    so_far = np.cumsum(own[order]) - own[order]
    before = so_far - np.repeat(so_far[first], count)
    same = [
        one
        for one in earlier
        if one.kind == "write-verify" and np.array_equal(one.cells, measured.cells)
    ]
    others = sum(float(_cycles(one).sum()) / one.cells.size for one in same)
    return cycles_before(measured.name) + round(float(before.mean()) + others)


def _cycles(measured: Measured) -> FloatArray:
    """Cycles in each row: of its RESETs the first, and those that follow a SET."""
    return np.asarray(np.minimum(measured["resets"], measured["sets"] + 1), dtype=np.float64)
