"""Half-select disturb: what pulses on one cell do to the cells that share a line with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rram_hil.array import Apply, Cells, OtherLevels, Scheme, Step, half_selected_v, unselected_bl_v
from rram_hil.engine.protocol import CellChoice, Plan, Protocol, Setting, Unselected
from rram_hil.errors import ConfigError
from rram_hil.report.section import Section
from rram_hil.report.step import RunStep
from rram_hil.validation import (
    FiniteVolts,
    Fraction,
    PositiveAmperes,
    PositiveSeconds,
    PositiveSiemens,
)

from .parts.characterisation import gate_v
from .parts.disturb import DisturbSummary, against_count, disturb_section


class AnyPulse(OtherLevels):
    """The pulse of the selected cells: volts on bit line or source line, gate, width."""

    bl_v: FiniteVolts = 0.0
    sl_v: FiniteVolts = 0.0
    wl_v: FiniteVolts | None = None
    width_s: PositiveSeconds

    @model_validator(mode="after")
    def _some_volts(self) -> Self:
        if self.bl_v == self.sl_v:
            raise ValueError("bl_v and sl_v must differ, or there is no pulse")
        return self


class HalfSelectDisturb(Protocol[DisturbSummary]):
    """Stress the victims `cells` as half-selected cells `pulses` times, and see at log-spaced
    counts what has become of them.

    `mode` = "neighbours": `pulse` goes to another cell of each victim's row (`share` = "row") or
    column ("column") under the scheme `unselected`, and the bench itself half-selects the victims.
    "pulses": each victim takes the volts that the scheme leaves across a half-selected cell of its
    row, as pulses of its own; the worst over row and column in a 1R array.
    """

    cells: CellChoice
    mode: Literal["neighbours", "pulses"] = "neighbours"
    share: Literal["row", "column"] = "row"
    pulse: AnyPulse
    pulses: Annotated[int, Field(ge=1, le=10**9)] = 1000
    per_decade: Annotated[int, Field(ge=1, le=50)] = 2
    repeat: Annotated[int, Field(ge=1, le=1000)] = 16
    disturbed_fraction: Fraction = 0.05
    conducts_above_s: PositiveSiemens = 1e-6
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    def run(self, setting: Setting) -> Plan[DisturbSummary]:
        """Yields batches of pulses, and reads of the victims. Raises `ConfigError` where no cell is
        left to take the pulses.
        """
        victims = self.cells.cells(setting.geometry)
        wl_v = gate_v(self.pulse.wl_v, setting, "pulse.wl_v")
        lines = self.pulse.bl_v, self.pulse.sl_v, wl_v
        step = self.pulse.onto(Step(*lines, self.pulse.width_s))
        scheme = Scheme(self.unselected)
        if self.mode == "neighbours":
            at = self._aggressors(victims, setting)
            stress = Apply(
                at, (step,), scheme, self.compliance_a, label="half-select disturb, neighbours"
            )
        else:
            own = self._as_half_selected(step, scheme, setting)
            stress = Apply(
                victims, (own,), scheme, self.compliance_a, label="half-select disturb, own pulses"
            )
        return (
            yield from against_count(
                victims,
                stress,
                most=self.pulses,
                per_decade=self.per_decade,
                repeat=self.repeat,
                disturbed_fraction=self.disturbed_fraction,
                conducts_above_s=self.conducts_above_s,
                what="half-select disturb",
                setting=setting,
            )
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Change of the victims' conductance against the count."""
        return disturb_section(step, "pulses on the neighbours or victims")

    def _aggressors(self, victims: Cells, setting: Setting) -> Cells:
        """One cell that is no victim on each line that has victims: the first there is."""
        is_free = np.ones(setting.geometry.shape, dtype=np.bool_)
        is_free[victims.tile, victims.row, victims.column] = False
        if self.share == "column":
            is_free = is_free.transpose(0, 2, 1)
        lines = np.unique(np.stack([victims.tile, getattr(victims, self.share)], axis=1), axis=0)
        free = is_free[lines[:, 0], lines[:, 1]]
        if not np.all(free.any(axis=1)):
            tile, line = lines[int(np.argmin(free.any(axis=1)))]
            raise ConfigError(
                f"cells: all cells of tile {tile}, {self.share} {line} are victims: none is left"
                " there to take the pulses"
            )
        other = np.argmax(free, axis=1)
        row, column = (lines[:, 1], other) if self.share == "row" else (other, lines[:, 1])
        return Cells(lines[:, 0], row, column)

    def _as_half_selected(self, step: Step, scheme: Scheme, setting: Setting) -> Step:
        """What a half-selected cell of the same row sees of `step`, as a pulse."""
        if scheme is Scheme.FLOATING:
            raise ConfigError(
                "unselected: the volts of floating lines are not known beforehand; use mode ="
                ' "neighbours"'
            )
        drop = float(step.cell_v(1)[0])
        if setting.geometry.cell == "1R":
            seen = float(np.sign(drop) * half_selected_v(step, 1, scheme, setting.geometry)[0])
        elif setting.geometry.source_lines == "column":
            seen = 0.0
        else:
            levels = step.levels("sl", 1)
            assert levels is not None
            seen = float(unselected_bl_v(step, 1, scheme)[0] - levels[0])
        if seen == 0:
            raise ConfigError(
                f"unselected: {scheme.value!r} puts 0 V across the half-selected cells of this"
                ' array, so there is no stress to give; use mode = "neighbours" to see that on the'
                " array itself"
            )
        return replace(step, bl_v=max(seen, 0.0), sl_v=max(-seen, 0.0))
