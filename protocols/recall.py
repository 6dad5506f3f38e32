"""Recall: what an earlier run on this chip learnt, so that a new run need not form it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import MAP
from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.engine.protocol import Plan, Protocol, Save, Setting
from rram_hil.errors import ConfigError
from rram_hil.storage.run_reader import RunFile, read_run

from .parts.targets import Condition


@dataclass(frozen=True)
class RecallSummary:
    """Cells that the earlier run found stuck, those that it only did not form, and whether its
    pulse curves were taken over, too.
    """

    stuck_low_resistance: int
    stuck_high_resistance: int
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
        """Asks nothing of the bench; shares "condition" as forming does, and "pulse curves", and
        saves maps of the cells that are not to be programmed.
        """
        with read_run(setting.folder / self.run_file) as run:
            condition, stuck = _condition(run, setting)
            curves = _curves(run)
        yield Save("stuck_low_resistance", condition.stuck_low_resistance, MAP)
        yield Save("stuck_high_resistance", stuck, MAP)
        yield Save("not_formed", condition.stuck_high_resistance & ~stuck, MAP)
        setting.share("condition", condition)
        if curves is not None:
            setting.share("pulse curves", curves)
        return RecallSummary(
            int(condition.stuck_low_resistance.sum()),
            int(stuck.sum()),
            int((condition.stuck_high_resistance & ~stuck).sum()),
            curves is not None,
        )


def _condition(run: RunFile, setting: Setting) -> tuple[Condition, NDArray[np.bool_]]:
    """What the first forming of that run found, and which cells it took for stuck at high
    resistance. Raises `ConfigError` where there was none, or not on a chip of this shape.
    """
    if not {"forming_gate", "stuck_low_resistance", "pristine"} <= set(run.map_names):
        raise ConfigError(f"run_file: {run.path} holds no forming; there are: {run.map_names}")
    gate_v, pristine_s = (run.map(name).values[0] for name in ("forming_gate", "pristine"))
    if pristine_s.shape != setting.geometry.shape:
        raise ConfigError(
            f"run_file: {run.path} is of a chip of shape {pristine_s.shape}, not"
            f" {setting.geometry.shape}"
        )
    first = int(run.map("forming_gate").step[0])

    def found(name: str) -> NDArray[Any]:
        stack = run.map(name)
        return np.asarray(stack.values[list(stack.step).index(first)])

    is_low = found("stuck_low_resistance") > 0
    # Forming visits a cell where it says so; what it visited, and did not form, conducts never.
    is_visited = np.isfinite(pristine_s) | is_low | np.isfinite(gate_v)
    is_left = is_visited & ~is_low & np.isnan(gate_v)
    stuck = is_left & (found("stuck_high_resistance") > 0)
    return Condition(is_low, is_left, found("conductance").astype(np.float64)), stuck


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
