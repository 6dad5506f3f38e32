"""Cells of a device model in Python, without a bench: pulses, readings, time. See
docs/device-model.md.

    cells = cells_of("hfo2-measured", 1000, seed=7)
    cells.apply(0.0, 2.8, 4.0, 200e-9)            # RESET: SL 2.8 V, WL 4 V
    cells.apply(2.0, 0.0, np.linspace(1.9, 2.5, 1000), 200e-9)
    g = cells.read()                              # S, shape (1000,)
    cells.advance(1.0)                            # relaxation

The laws and draws are those of a simulated chip, whose own seed follows from that of its bench and
the chip's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.errors import ConfigError
from rram_hil.simulation import draws
from rram_hil.simulation.draws import Purpose
from rram_hil.simulation.model import DeviceModel, Traits
from rram_hil.types import FloatArray, IntArray


def cells_of(
    model: DeviceModel | str | Path, n: int, seed: int = 1, *, formed: bool = True
) -> CellBank:
    """`n` cells of a model (a `DeviceModel`, a preset's name or the path of a model file), all
    draws from `seed`.

    `formed`: freshly formed cells (stuck ones stay as they are), else virgin ones. Raises
    `ConfigError` for a wrong model.
    """
    if not isinstance(model, DeviceModel):
        model = DeviceModel.load(str(model))
    return CellBank(model, n, seed, formed=formed)


class CellBank:
    """`n` cells and their clock; made by `cells_of`. All arrays have shape (n,), or that of `at`
    where it is given.

    `at` names some of the cells: positions or a mask; without it, all.
    """

    def __init__(self, model: DeviceModel, n: int, seed: int, *, formed: bool = True) -> None:
        if n < 1:
            raise ConfigError(f"a bank of cells needs 1 or more of them, not {n}")
        self.model = model
        self.seed = seed
        self.now_s = 0.0
        self._index: IntArray = np.arange(n, dtype=np.int64)
        self._traits = model.traits(seed, self._index)
        self._event: IntArray = np.zeros(n, dtype=np.int64)
        self._programming: IntArray = np.zeros(n, dtype=np.int64)
        self._programmed_s: FloatArray = np.zeros(n)
        self._settled_s: FloatArray = np.full(n, np.nan)
        self._cycle: IntArray = np.zeros(n, dtype=np.int64)
        self._broken_s: FloatArray = np.zeros(n)
        self._cycles_done: IntArray = np.zeros(n, dtype=np.int64)
        self._g: FloatArray = self._traits.fixed_s.astype(np.float64)
        self._formed: NDArray[np.bool_] = np.zeros(n, dtype=np.bool_)
        if formed:
            self._formed = self._traits.stuck == 0
            z = draws.normal(seed, Purpose.FORM_LEVEL, self._index)
            level = model.forming.conductance_s * np.exp(model.forming.spread_ln * z)
            self._g = np.where(self._formed, level, self._g)

    def __len__(self) -> int:
        return int(self._index.size)

    @property
    def responsive(self) -> NDArray[np.bool_]:
        """Which cells are formed and not stuck, shape (n,)."""
        return np.asarray(self._formed & (self._traits.stuck == 0))

    @property
    def conductance_s(self) -> FloatArray:
        """The cells' conductances now (S), shape (n,), without read noise."""
        return self._now(self._index).copy()

    def apply(
        self,
        bl_v: ArrayLike,
        sl_v: ArrayLike,
        wl_v: ArrayLike,
        width_s: ArrayLike = 200e-9,
        at: ArrayLike | None = None,
    ) -> None:
        """One pulse a cell: volts on BL, SL and WL and its width, each one value or one a cell.

        BL above SL is a SET (or forms), SL above BL a RESET; where they are equal nothing happens.
        """
        chosen = self._chosen(at)
        bl, sl, wl = (np.asarray(v, dtype=np.float64) for v in (bl_v, sl_v, wl_v))
        width = np.broadcast_to(np.asarray(width_s, dtype=np.float64), chosen.shape)
        drop = np.broadcast_to(bl - sl, chosen.shape)
        gate = np.broadcast_to(wl - np.minimum(bl, sl), chosen.shape)
        longest = float(width.max(initial=0.0))
        for one in [longest] if np.all(width == longest) else np.unique(width):
            for sign in (1.0, -1.0):
                now = np.flatnonzero((drop * sign > 0) & (width == one))
                if now.size == chosen.size:
                    self._pulse(chosen, sign, np.abs(drop), gate, float(one))
                elif now.size:
                    self._pulse(chosen[now], sign, np.abs(drop[now]), gate[now], float(one))
        self.now_s += longest

    def _pulse(
        self, k: IntArray, sign: float, volts: FloatArray, gate: FloatArray, width_s: float
    ) -> None:
        from rram_hil.simulation import kernels

        self._event[k] += 1
        event, settled, cycle = self._of(k, self._event, self._settled_s, self._cycle)
        before, (formed,) = self._now(k), self._of(k, self._formed)
        pulse = (self.seed, self._traits_of(k), event, before, formed, volts, gate, width_s)
        if sign > 0:
            after, self._formed[k] = self.model.after_set(*pulse, settled_s=settled, cycle=cycle)
        else:
            broken, done = self._of(k, self._broken_s, self._cycles_done)
            after = self.model.after_reset(
                *pulse, settled_s=settled, cycle=cycle, broken_s=broken, cycles_done=done
            )
        kernels.keep(
            sign > 0,
            self.model.set.shifts,
            k,
            event,
            self.now_s + width_s,
            before,
            after,
            self._g,
            self._programmed_s,
            self._programming,
            self._cycle,
            self._settled_s,
            self._broken_s,
            self._cycles_done,
        )

    def read(self, at: ArrayLike | None = None) -> FloatArray:
        """One reading of each cell (S), with its noise."""
        chosen = self._chosen(at)
        self._event[chosen] += 1
        (event,) = self._of(chosen, self._event)
        return self.model.as_read(self.seed, self._traits_of(chosen), event, self._now(chosen))

    def advance(self, seconds: float) -> None:
        """Let time pass: the cells relax. Raises `ConfigError` where time would run back."""
        if not seconds >= 0:
            raise ConfigError(f"time cannot go by {seconds} s")
        self.now_s += seconds

    def place(
        self,
        conductance_s: ArrayLike,
        at: ArrayLike | None = None,
        *,
        settled_s: ArrayLike | None = None,
    ) -> None:
        """Put cells into a state, as if just programmed there: conductance in S. Stuck cells stay.

        `settled_s` (S, NaN for none): the cells' filaments are settled ones of that size (as after
        a write-verify and some rest, or a stronger SET than the reading shows), not grown by the
        pulses before.
        """
        chosen = self._chosen(at)
        chosen_ok = self._traits.stuck[chosen] == 0
        self._event[chosen] += 1
        g = np.broadcast_to(np.asarray(conductance_s, dtype=np.float64), chosen.shape)
        if not np.all(g > 0):
            raise ConfigError("a conductance to place cells at must be above zero")
        settled = (
            np.full(chosen.shape, np.nan)
            if settled_s is None
            else np.broadcast_to(np.asarray(settled_s), chosen.shape)
        )
        k = chosen[chosen_ok]
        self._formed[k] = True
        self._g[k], self._programmed_s[k], self._programming[k] = (
            g[chosen_ok],
            self.now_s,
            self._event[k],
        )
        self._settled_s[k], self._cycle[k], self._broken_s[k] = (
            settled[chosen_ok],
            self._event[k],
            0.0,
        )

    def wear(self, cycles: ArrayLike, at: ArrayLike | None = None) -> None:
        """Put `cycles` RESET and SET cycles behind cells, one number or one a cell, without
        changing their states.
        """
        chosen = self._chosen(at)
        done = np.broadcast_to(np.asarray(cycles, dtype=np.int64), chosen.shape)
        if np.any(done < 0):
            raise ConfigError("cells cannot have fewer than 0 cycles behind them")
        self._cycles_done[chosen] += done

    def _chosen(self, at: ArrayLike | None) -> IntArray:
        return self._index if at is None else self._index[np.asarray(at)]

    def _traits_of(self, k: IntArray) -> Traits:
        return self._traits if k is self._index else self._traits.part(k)

    def _of(self, k: IntArray, *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """The cells' part of what is kept of all: the whole columns, not copies, for all cells."""
        return columns if k is self._index else tuple(column[k] for column in columns)

    def _now(self, k: IntArray) -> FloatArray:
        event, since_s, g_s = self._of(k, self._programming, self._programmed_s, self._g)
        return self.model.relaxed(self.seed, k, event, g_s, self.now_s - since_s)
