"""Recall: what an earlier run on this chip learnt, so that a new run need not form it again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.engine.protocol import Plan, Protocol, Setting
from rram_hil.errors import ConfigError
from rram_hil.storage.run_reader import RunFile, read_run

from .parts.targets import Condition


@dataclass(frozen=True)
class RecallSummary:
    """Cells that the earlier run found stuck at low resistance, those that it did not form, and
    whether its pulse curves were taken over, too.
    """

    stuck_low_resistance: int
    not_formed: int
    pulse_curves: bool


class Recall(Protocol[RecallSummary]):
    """Take the stuck cells that a forming found, and the pulse curves where some were measured,
    from `run_file`, a run of the same chip. No operation goes to the bench.

    What is recalled is as old as that run: cells that got stuck since are not known.
    """

    run_file: str

    def input_files(self) -> tuple[str, ...]:
        """The earlier run."""
        return (self.run_file,)

    def run(self, setting: Setting) -> Plan[RecallSummary]:
        """Yields nothing; shares "condition" as forming does, and "pulse curves"."""
        yield from ()
        with read_run(setting.folder / self.run_file) as run:
            condition = _condition(run, setting)
            curves = _curves(run)
        setting.share("condition", condition)
        if curves is not None:
            setting.share("pulse curves", curves)
        return RecallSummary(
            int(condition.stuck_low_resistance.sum()),
            int(condition.stuck_high_resistance.sum()),
            curves is not None,
        )


def _condition(run: RunFile, setting: Setting) -> Condition:
    """What the first forming of that run found. Raises `ConfigError` where there was none, or not
    on a chip of this shape.
    """
    if not {"forming_gate", "stuck_low_resistance", "pristine"} <= set(run.map_names):
        raise ConfigError(f"run_file: {run.path} holds no forming; there are: {run.map_names}")
    gate_v, pristine_s = (run.map(name).values[0] for name in ("forming_gate", "pristine"))
    if pristine_s.shape != setting.geometry.shape:
        raise ConfigError(
            f"run_file: {run.path} is of a chip of shape {pristine_s.shape}, not"
            f" {setting.geometry.shape}"
        )
    low = run.map("stuck_low_resistance")
    is_low = np.asarray(low.values[0] > 0)
    # Forming visits a cell where it says so; what it visited, and did not form, conducts never.
    is_visited = np.isfinite(pristine_s) | is_low | np.isfinite(gate_v)
    conductance = run.map("conductance")
    formed_s = conductance.values[list(conductance.step).index(int(low.step[0]))]
    return Condition(is_low, is_visited & ~is_low & np.isnan(gate_v), formed_s.astype(np.float64))


def _curves(run: RunFile) -> PulseCurves | None:
    """The pulse curves that the run measured last, None where it measured none."""
    steps = [step for step, name in run.result_names if name == "set_gate_v"]
    if not steps:
        return None

    def curve(volts: str, conductance: str, *, rising: bool) -> Curve:
        saved = (run.result(steps[-1], name).values for name in (volts, conductance))
        return Curve.measured(*saved, rising=rising)

    return PulseCurves(
        set_gate=curve("set_gate_v", "set_conductance", rising=True),
        reset_sl=curve("reset_sl_v", "reset_conductance", rising=False),
    )
