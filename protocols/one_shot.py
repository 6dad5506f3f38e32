"""One-shot programming: every cell is brought to the high-resistance state and gets one SET pulse,
and is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.array import Apply, OtherLevels, Scheme, pulse
from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.engine.protocol import Plan, Progress, Protocol, Setting, Unselected
from rram_hil.report.section import Axis, Plot, Section, histogram
from rram_hil.report.step import RunStep
from rram_hil.types import IntArray
from rram_hil.validation import FiniteVolts, PositiveSeconds

from .parts.sections import programmed_plots
from .parts.targets import Targets, load_targets, save_targets, target_files, to_program


class ResetPulse(OtherLevels):
    """The pulse that brings a cell to its high-resistance state. Source: NI-RRAM and RADAR
    conditions.
    """

    sl_v: FiniteVolts = 2.5
    wl_v: FiniteVolts = 3.5
    width_s: PositiveSeconds = 1e-6


class SetPulse(OtherLevels):
    """One SET pulse, its gate volts taken from the curve `gate`; by default the one that an earlier
    step measured.
    """

    bl_v: FiniteVolts = 2.0
    width_s: PositiveSeconds = 100e-9
    gate: Curve | None = None


@dataclass(frozen=True)
class OneShotSummary:
    """Cells reset, cells set, and cells left alone because an interruption left it open whether
    they had their pulse.
    """

    reset: int
    set: int
    left_alone: int


class OneShot(Protocol[OneShotSummary]):
    """RESET every cell of a network (or map) once, then SET each once with the gate that belongs to
    its target.

    Targets below the lowest entry of the SET table stay reset. No cell takes a second pulse of
    either kind, also after an interruption: then a cell is pulsed only if the bench's own counters
    say that it was not reached.
    """

    targets: Targets
    tag: str = "network"
    reset: ResetPulse = ResetPulse()
    set: SetPulse
    unselected: Unselected = "inhibit"

    def input_files(self) -> tuple[str, ...]:
        """The file of its targets."""
        return target_files(self.targets)

    def run(self, setting: Setting) -> Plan[OneShotSummary]:
        """Yields two pulse batches; shares the placement under `tag`."""
        programmed = load_targets(self.targets, setting)
        yield from save_targets(programmed)
        cells, target = to_program(programmed)
        curve = self.set.gate or setting.shared_by("pulse curves", PulseCurves).set_gate
        yield Progress(0, 2, f"resetting {len(cells)} cells")
        to_high = pulse(
            cells,
            sl_v=self.reset.sl_v,
            wl_v=self.reset.wl_v,
            width_s=self.reset.width_s,
            body_v=self.reset.body_v,
            unselected_wl_v=self.reset.unselected_wl_v,
            unselected=Scheme(self.unselected),
            label="one-shot reset",
        )
        reset = yield from _once(to_high, setting)
        conducting = np.flatnonzero(target >= min(curve.conductance_s))
        yield Progress(1, 2, f"setting {conducting.size} cells")
        to_target = pulse(
            cells[conducting],
            bl_v=self.set.bl_v,
            wl_v=curve.volts(target[conducting]),
            width_s=self.set.width_s,
            body_v=self.set.body_v,
            unselected_wl_v=self.set.unselected_wl_v,
            unselected=Scheme(self.unselected),
            label="one-shot set",
        )
        done = yield from _once(to_target, setting)
        setting.share(self.tag, programmed)
        # What an earlier step accepted holds no more.
        setting.shared.pop("windows", None)
        return OneShotSummary(reset, done, len(cells) - reset + conducting.size - done)

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """What became of the targets, as the first later step that read a map found it: this one
        looks at no cell.
        """
        target = step.map("target")
        if target is None:
            return None
        wanted = Plot(
            "Targets", Axis("conductance", "S"), Axis("cells in a bin"), (histogram(target),)
        )
        found = step.map_after("conductance")
        if found is None:
            return Section("No later step of the run read a map.", (wanted,))
        plots = programmed_plots(target, found, "as the next step read it", step)
        return Section("", (*plots, wanted))


def _once(shot: Apply, setting: Setting) -> Plan[int]:
    """Give each cell its one pulse; how many certainly had it."""
    todo: IntArray = np.arange(len(shot.cells))
    certain = 0
    while todo.size:
        result = yield from shot.part(todo)
        if not result.interrupted:
            return certain + todo.size
        # Charged cells had their pulse or, where the bench keeps no counters, may have had it:
        # neither is touched again.
        certain += int(np.sum(result.pulses > 0)) if setting.capabilities.counters else 0
        todo = todo[result.pulses == 0]
    return certain
