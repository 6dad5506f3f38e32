"""The pulse curves of a chip: which conductance one SET leaves at each gate, and one RESET at each
source-line voltage.

Measured on sample cells as medians, so that a few cells that never respond do not matter. Later
steps of the run take their programming volts from it; so does the recipe of another run, from the
printed table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rram_hil.array import Apply, Cells, Status, Step
from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting
from rram_hil.errors import ConfigError
from rram_hil.report.section import Axis, Line, Plot, Section
from rram_hil.report.step import RunStep
from rram_hil.types import FloatArray
from rram_hil.units import Siemens
from rram_hil.validation import FiniteVolts, PositiveSeconds, PositiveSiemens, StrictModel


class Sweep(StrictModel):
    """Volts from `start_v` to `stop_v` in `points` even steps."""

    start_v: FiniteVolts
    stop_v: FiniteVolts
    points: Annotated[int, Field(ge=2, le=200)] = 25

    def volts(self) -> FloatArray:
        """The levels."""
        return np.linspace(self.start_v, self.stop_v, self.points)


@dataclass(frozen=True)
class CurvesSummary:
    """Cells that answered, and the conductances (S) that the two curves span."""

    cells: int
    set_lowest_s: Siemens
    set_highest_s: Siemens
    reset_lowest_s: Siemens
    reset_highest_s: Siemens


class MeasurePulseCurves(Protocol[CurvesSummary]):
    """Measure both curves on sample cells: before every SET a full RESET, before every RESET a full
    SET.

    Each sample cell takes two pulses a point and curve. Cells that never come above
    `responds_above_s`, or hardly move, are left out: they are unformed or stuck and say nothing
    about the pulses.
    """

    cells: CellChoice
    set_gate_v: Sweep
    set_bl_v: FiniteVolts = 2.0
    set_width_s: PositiveSeconds = 100e-9
    reset_sl_v: Sweep
    reset_gate_v: FiniteVolts = 3.5
    reset_width_s: PositiveSeconds = 200e-9
    responds_above_s: PositiveSiemens = 5e-6
    body_v: FiniteVolts | None = None
    unselected_wl_v: FiniteVolts | None = None

    def run(self, setting: Setting) -> Plan[CurvesSummary]:
        """Yields two batches of pulses and reads; shares `PulseCurves` as "pulse curves"."""
        cells = self.cells.cells(setting.geometry)
        gates, sources = self.set_gate_v.volts(), self.reset_sl_v.volts()

        others = self.body_v, self.unselected_wl_v

        def set_step(gate_v: float) -> Step:
            return Step(self.set_bl_v, 0.0, gate_v, self.set_width_s, "no", *others)

        def reset_step(sl_v: float) -> Step:
            return Step(0.0, sl_v, self.reset_gate_v, self.reset_width_s, "no", *others)

        above = self.responds_above_s
        full_reset, full_set = reset_step(float(sources[-1])), set_step(float(gates[-1]))
        yield Progress(0, 2, f"SET curve on {len(cells)} cells")
        set_s, answered = yield from _medians(
            cells, [(full_reset, set_step(float(v))) for v in gates], above, setting
        )
        yield Progress(1, 2, f"RESET curve on {len(cells)} cells")
        reset_s, _ = yield from _medians(
            cells, [(full_set, reset_step(float(v))) for v in sources], above, setting
        )
        yield Save("set_gate_v", gates, ("set_point",), "V")
        yield Save("set_conductance", set_s, ("set_point",), "S")
        yield Save("reset_sl_v", sources, ("reset_point",), "V")
        yield Save("reset_conductance", reset_s, ("reset_point",), "S")
        curves = PulseCurves(
            set_gate=Curve.measured(gates, set_s, rising=True),
            reset_sl=Curve.measured(sources, reset_s, rising=False),
        )
        setting.share("pulse curves", curves)
        low, high = curves.set_gate.conductance_s, curves.reset_sl.conductance_s
        return CurvesSummary(answered, low[0], low[-1], high[-1], high[0])

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Both curves."""
        conductance = Axis("median conductance", "S")
        return Section(
            "",
            tuple(
                Plot(
                    title,
                    Axis(label, "V"),
                    conductance,
                    (Line(step.values(volts), step.values(found), look="both"),),
                )
                for title, label, volts, found in (
                    ("SET curve", "gate during SET", "set_gate_v", "set_conductance"),
                    ("RESET curve", "source line during RESET", "reset_sl_v", "reset_conductance"),
                )
            ),
        )


def _medians(
    cells: Cells, pairs: list[tuple[Step, Step]], responds_above_s: float, setting: Setting
) -> Plan[tuple[FloatArray, int]]:
    """Median conductance (S) after each pair of pulses over the cells that respond, and how many
    those are.
    """
    steps = tuple(step for pair in pairs for step in (*pair, setting.read))
    result = yield from Apply(cells, steps, label="pulse curve")
    if result.interrupted:
        raise ConfigError(
            "the pulse curve was interrupted and its pulses are not"
            " repeated on the same cells: start a new run, whose step `recall` takes what forming"
            " found from this one's run file"
        )
    measured = np.where(result.status == Status.OK, result.conductance_s, np.nan)
    highest, lowest = (
        np.nanmax(measured, axis=1, initial=0.0),
        np.nanmin(measured, axis=1, initial=np.inf),
    )
    moving = (highest > responds_above_s) & (highest > 3.0 * lowest)
    if not moving.any():
        raise ConfigError(f"none of the {len(cells)} sample cells responds to the pulses")
    return np.nanmedian(measured[moving], axis=0), int(moving.sum())
