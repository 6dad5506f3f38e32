"""One-shot programming: every cell is brought to the high-resistance state and gets one SET pulse, and is never looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rram_hil.cells import Cells, IntArray
from rram_hil.operations import ApplyResult, FloatArray, pulse
from rram_hil.protocol import Plan, Progress, Protocol, Setting

from .programmed import TargetChoice, cells_of, save_targets

Volt = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ResetPulse(BaseModel):
    """The pulse that brings a cell to its high-resistance state. Source: NI-RRAM and RADAR conditions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sl_v: Volt = 2.5
    wl_v: Volt = 3.5
    width_s: Positive = 1e-6


class SetCurve(BaseModel):
    """One SET pulse: the gate volts that give each conductance, a table from the characterisation of the chip."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    bl_v: Volt = 2.0
    width_s: Positive = 100e-9
    wl_v: list[Volt] = Field(min_length=2)
    conductance_s: list[Positive] = Field(min_length=2)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.wl_v) != len(self.conductance_s):
            raise ValueError("wl_v and conductance_s must have the same length")
        for name, column in (("wl_v", self.wl_v), ("conductance_s", self.conductance_s)):
            if np.any(np.diff(column) <= 0):
                raise ValueError(f"{name} must rise from entry to entry")
        return self

    def gate_v(self, target_s: FloatArray) -> FloatArray:
        """Gate volts for target conductances, interpolated in ln G, held at the ends of the table."""
        return np.interp(np.log(target_s), np.log(self.conductance_s), self.wl_v)


@dataclass(frozen=True)
class OneShotSummary:
    """Cells reset, cells set, and cells left alone because an interruption left it open whether they had their pulse."""

    reset: int
    set: int
    left_alone: int


class OneShot(Protocol):
    """RESET every cell of a network (or map) once, then SET each once with the gate that belongs to its target.

    Targets below the lowest entry of the SET table stay reset. No cell takes a second pulse of either kind, also after an
    interruption: then a cell is pulsed only if the bench's own counters say that it was not reached.
    """

    targets: TargetChoice
    tag: str = "network"
    reset: ResetPulse = ResetPulse()
    set: SetCurve

    def run(self, setting: Setting) -> Plan[OneShotSummary]:
        """Yields two pulse batches; shares the placement under `tag`."""
        programmed = self.targets.load(setting)
        yield from save_targets(programmed)
        cells = cells_of(programmed)
        target = programmed.mapping.target_s[programmed.mapping.free]
        yield Progress(0, 2, f"resetting {len(cells)} cells")
        reset = yield from self._once(cells, np.zeros(len(cells)), setting, resetting=True)
        conducting = np.flatnonzero(target >= self.set.conductance_s[0])
        yield Progress(1, 2, f"setting {conducting.size} cells")
        done = yield from self._once(cells[conducting], target[conducting], setting, resetting=False)
        setting.share(self.tag, programmed)
        return OneShotSummary(reset, done, len(cells) - reset + conducting.size - done)

    def _once(self, cells: Cells, target_s: FloatArray, setting: Setting, *, resetting: bool) -> Plan[int]:
        """Give each cell its one pulse; how many certainly had it."""
        todo: IntArray = np.arange(len(cells))
        certain = 0
        while todo.size:
            batch = cells[todo]
            if resetting:
                shot = pulse(
                    batch,
                    sl_v=self.reset.sl_v,
                    wl_v=self.reset.wl_v,
                    width_s=self.reset.width_s,
                    label="one-shot reset",
                )
            else:
                gate = self.set.gate_v(target_s[todo])
                shot = pulse(batch, bl_v=self.set.bl_v, wl_v=gate, width_s=self.set.width_s, label="one-shot set")
            result = cast(ApplyResult, (yield shot))
            if not result.interrupted:
                return certain + todo.size
            # Charged cells had their pulse, or may have had it: they are not touched again.
            certain += int(np.sum(result.pulses > 0))
            todo = todo[result.pulses == 0]
        return certain
