"""Read disturb: what many reads do to the state of a cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from rram_hil.array import Apply, Scheme
from rram_hil.engine.protocol import CellChoice, Plan, Protocol, Setting, Unselected
from rram_hil.report.section import Section
from rram_hil.report.step import RunStep
from rram_hil.validation import FiniteVolts, Fraction, PositiveSeconds, PositiveSiemens

from .parts.characterisation import gate_v
from .parts.disturb import DisturbSummary, against_count, disturb_section


class ReadDisturb(Protocol[DisturbSummary]):
    """Read every cell `reads` times, and see at about `per_decade` counts a decade what has become
    of it.

    The disturbing reads are at the bench's read condition, or at `bl_v`, `wl_v`, `width_s`,
    `body_v` and `unselected_wl_v`. Beyond the bench's read limit they are pulses: they use up the
    cells' budgets, and limits hold as for any pulse. The reads that look are always at the read
    condition, `repeat` of them averaged.
    """

    cells: CellChoice = CellChoice()
    reads: Annotated[int, Field(ge=1, le=10**9)] = 10_000
    per_decade: Annotated[int, Field(ge=1, le=50)] = 2
    repeat: Annotated[int, Field(ge=1, le=1000)] = 16
    bl_v: FiniteVolts | None = None
    wl_v: FiniteVolts | None = None
    width_s: PositiveSeconds | None = None
    body_v: FiniteVolts | None = None
    unselected_wl_v: FiniteVolts | None = None
    disturbed_fraction: Fraction = 0.05
    conducts_above_s: PositiveSiemens = 1e-6
    unselected: Unselected = "inhibit"

    def run(self, setting: Setting) -> Plan[DisturbSummary]:
        """Yields batches of reads that measure nothing, and reads that do."""
        cells = self.cells.cells(setting.geometry)
        step = replace(setting.read.without_gate(), measure="no")
        if self.bl_v is not None:
            step = replace(step, bl_v=self.bl_v)
        if self.wl_v is not None:
            step = replace(step, wl_v=gate_v(self.wl_v, setting))
        if self.width_s is not None:
            step = replace(step, width_s=self.width_s)
        if self.body_v is not None:
            step = replace(step, body_v=self.body_v)
        if self.unselected_wl_v is not None:
            step = replace(step, unselected_wl_v=self.unselected_wl_v)
        stress = Apply(cells, (step,), Scheme(self.unselected), label="read disturb")
        return (
            yield from against_count(
                cells,
                stress,
                most=self.reads,
                per_decade=self.per_decade,
                repeat=self.repeat,
                disturbed_fraction=self.disturbed_fraction,
                conducts_above_s=self.conducts_above_s,
                what="read disturb",
                setting=setting,
            )
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Change of the victims' conductance against the count."""
        return disturb_section(step, "reads")
