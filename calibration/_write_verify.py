"""Write-verify schemes of published studies, carried out on a device model. Their constants stand here and are fitted to nothing.

What a scheme does is public (Levy et al., IEEE TED 2021: ISPP, FPPV and RADAR at 2 bit/cell); the volts of their steps are not
published with the data. ISPP's ramp begins at the highest gate voltage of the SET sweep that does nothing yet (1.8 V) and ends
after 18 pulses of 0.1 V, at 3.5 V. The full RESET is that of full cycles. The others are the simplest reading of the scheme.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rram_hil.cells import IntArray
from rram_hil.device.bank import CellBank
from rram_hil.device.model import DeviceModel
from rram_hil.operations import FloatArray

from ._experiments import FULL_RESET, FULL_SET

ISPP_WL_V = (1.8, 3.5)
"""First and last WL of the SET ramp; BL stands at that of full cycles."""
ISPP_RESETS = 200
"""RESET pulses after which a cell has failed."""
FINE_ATTEMPTS = 20
"""RADAR: changes of direction, and RESET pulses of the top window, after which a cell has failed."""
FINE_BL_V = (0.4, 0.1, 2.0)
"""RADAR: first BL, step and last of the fine SET ramp, at the gate volts that the coarse SET ended with."""
FINE_SL_V = (0.5, 0.1, 2.0)
"""RADAR: first SL, step and last of the fine RESET ramp, at `FINE_RESET_WL_V`."""
FINE_RESET_WL_V = 3.5
COARSE_WL_STEP_V = 0.1
COARSE_RATIO = 0.85
"""RADAR: the coarse SET aims, by the model's nominal curve, at this part of the window's middle conductance."""
FPPV_LOW_WL_V = 3.0
FPPV_TRIES = 10
FPPV_PULSES = 400
WIDTH_S = 200e-9


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a scheme did, shape (n,): SET and RESET pulses, and whether the cell ended in its window."""

    sets: IntArray
    resets: IntArray
    success: IntArray

    @property
    def pulses(self) -> IntArray:
        """All pulses."""
        return self.sets + self.resets


class _Cells:
    """Cells on their way into windows of resistance."""

    def __init__(self, model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray, seed: int) -> None:
        n = low_ohm.size
        self.low, self.high = low_ohm, high_ohm
        self.bank = CellBank(model, n, seed)
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
        self, at: IntArray, sl_v: FloatArray | float = FULL_RESET[0], wl_v: FloatArray | float = FULL_RESET[1]
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


def ispp(model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray, step_v: float, seed: int) -> Outcome:
    """Incremental step pulses: a full RESET; SET with WL rising by `step_v`; beyond the window, RESET and from the start."""
    cells = _Cells(model, low_ohm, high_ohm, seed)
    ramp = np.zeros(low_ohm.size, dtype=np.int64)
    last = round((ISPP_WL_V[1] - ISPP_WL_V[0]) / step_v)
    everything = cells.active
    cells.reset(everything)
    cells.read(everything)
    while (at := cells.active).size:
        too_high = cells.ohm[at] > cells.high[at]
        ended = too_high & (ramp[at] > last)
        up, down = at[too_high & ~ended], at[~too_high | ended]
        cells.failed[down[cells.resets[down] >= ISPP_RESETS]] = True
        down = down[~cells.failed[down]]
        if up.size:
            cells.set_(up, FULL_SET[0], np.asarray(ISPP_WL_V[0] + step_v * ramp[up], dtype=np.float64))
            ramp[up] += 1
        if down.size:
            cells.reset(down)
            ramp[down] = 0
        cells.read(np.sort(np.concatenate([up, down])))
    return cells.outcome()


def fppv(model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray, seed: int) -> Outcome:
    """Fixed pulses: a full RESET, then SET at the window's own WL until inside; beyond it, RESET again."""
    cells = _Cells(model, low_ohm, high_ohm, seed)
    middle = 2.0 / (np.maximum(low_ohm, 1.0) + np.minimum(high_ohm, 1e9))
    wl = np.where(low_ohm <= 0, FPPV_LOW_WL_V, model.nominal_set_gate_v(middle, FULL_SET[0], WIDTH_S))
    top = high_ohm > 1e6
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
            np.where(top[at], cells.resets[at] > FPPV_TRIES, cells.resets[at] + cells.sets[at] > FPPV_PULSES)
        )
    return cells.outcome()


def radar(model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray, seed: int) -> Outcome:
    """Coarse and fine: a full RESET, a coarse SET by WL, then fine ramps of BL (SET) and SL (RESET) until inside.

    A SET ramp that ends without effect, fine or coarse, is followed by a full RESET and a coarse SET again.
    """
    cells = _Cells(model, low_ohm, high_ohm, seed)
    n = low_ohm.size
    top = high_ohm > 1e6
    floor = np.maximum(low_ohm, 1.0)
    aim = np.where(low_ohm <= 0, 1.0 / high_ohm, COARSE_RATIO * 2.0 / (floor + np.minimum(high_ohm, 1e9)))
    first_wl = model.nominal_set_gate_v(aim, FULL_SET[0], WIDTH_S)
    wl = first_wl.copy()
    cells.reset(cells.active)
    cells.read(cells.active)
    coarse = np.ones(n, dtype=np.bool_)
    direction, ramp, attempts = (np.zeros(n, dtype=np.int64) for _ in range(3))
    while (at := cells.active).size:
        up = cells.ohm[at] > cells.high[at]
        wanted = np.where(up, 1, -1)
        turned = (wanted != direction[at]) & ~coarse[at]
        ramp[at] = np.where(turned, 0, ramp[at])
        direction[at] = wanted
        bl, sl = FINE_BL_V[0] + FINE_BL_V[1] * ramp[at], FINE_SL_V[0] + FINE_SL_V[1] * ramp[at]
        ended = np.where(
            up, np.where(coarse[at], wl[at] > ISPP_WL_V[1], bl > FINE_BL_V[2] + 1e-9), sl > FINE_SL_V[2] + 1e-9
        )
        attempts[at] += turned | top[at] | ended
        cells.failed[at[attempts[at] > FINE_ATTEMPTS]] = True
        left = ~cells.failed[at]
        at, up, ended, bl, sl = at[left], up[left], ended[left], bl[left], sl[left]
        if at.size == 0:
            break
        anew = top[at] | ended
        again = at[anew]
        if again.size:
            cells.reset(again)
            coarse[again], wl[again], ramp[again] = True, first_wl[again], 0
        for chosen in (up & ~anew, ~up & ~anew):
            mine = at[chosen]
            if mine.size == 0:
                continue
            if up[chosen].all():
                first = coarse[mine]
                cells.set_(mine, np.where(first, FULL_SET[0], bl[chosen]), wl[mine])
                wl[mine] += np.where(first, COARSE_WL_STEP_V, 0.0)
            else:
                cells.reset(mine, np.asarray(sl[chosen], dtype=np.float64), FINE_RESET_WL_V)
            ramp[mine] += 1
        cells.read(at)
        near = coarse[at] & ~anew & (cells.ohm[at] < cells.high[at] / COARSE_RATIO)
        ramp[at[near]] = 0
        coarse[at[near]] = False
    return cells.outcome()


def scheme_of(name: str) -> Callable[[DeviceModel, FloatArray, FloatArray, int], Outcome] | None:
    """The scheme that a file's name tells (ispp with its step, fppv, radar); None for another name."""
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

        def stepped(model: DeviceModel, low_ohm: FloatArray, high_ohm: FloatArray, seed: int) -> Outcome:
            return ispp(model, low_ohm, high_ohm, step, seed)

        return stepped
    return None
