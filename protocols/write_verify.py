"""Read-verify-write: bring every cell into its own conductance window, within a budget of
pulses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rram_hil.array import MAP, Cells, Program, PulseTrain, Ramp, Scheme, Status, read
from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.engine.protocol import (
    Plan,
    Progress,
    Protocol,
    Remark,
    Save,
    Setting,
    Unselected,
    map_of,
)
from rram_hil.networks.programmed_network import Programmed
from rram_hil.report.section import Axis, Plot, Section, cumulative
from rram_hil.report.step import RunStep
from rram_hil.types import FloatArray
from rram_hil.units import Siemens, count, quantity
from rram_hil.validation import FiniteVolts, Positive, PositiveAmperes, PositiveSeconds, StrictModel

from .parts.characterisation import save_map
from .parts.sections import programmed_plots
from .parts.selection import Selection
from .parts.targets import (
    Condition,
    Targets,
    Windows,
    load_targets,
    save_targets,
    target_files,
    to_program,
)

SILENT_S = 1e-7
"""Less than this a formed cell hardly conducts: 10 Mohm, as a look takes it for an open (S)."""
UNFORMED = (
    "where the array was never formed, these pulses stress it for nothing: `forming` comes before"
    " them, or `recall` with the run that formed it"
)


class RampChoice(StrictModel):
    """Volts of successive pulses: `start_v`, then `step_v` more each, held at `stop_v`.

    With `curve` each cell starts at the volts that the curve gives for `aim` x its target, but not
    below `start_v`: the ramp then need not walk through what the chip's characterisation already
    knows. "set" and "reset" are the curves that an earlier step of the run measured.
    """

    start_v: FiniteVolts
    stop_v: FiniteVolts
    step_v: FiniteVolts = 0.0
    curve: Curve | Literal["set", "reset"] | None = None
    aim: Positive = 1.0

    def ramp(self, target_s: FloatArray, setting: Setting) -> Ramp:
        """The same as an operation takes it, for cells with these targets (S)."""
        if self.curve is None:
            return Ramp(self.start_v, self.stop_v, self.step_v)
        curve = self.curve
        if not isinstance(curve, Curve):
            measured = setting.shared_by("pulse curves", PulseCurves)
            curve = measured.set_gate if curve == "set" else measured.reset_sl
        known = curve.volts(self.aim * target_s)
        return Ramp(np.clip(known, self.start_v, self.stop_v), self.stop_v, self.step_v)


class Pulses(StrictModel):
    """Incremental step pulses of one polarity: amplitude on BL (SET) or SL (RESET), gate, width."""

    amplitude_v: RampChoice
    gate_v: RampChoice
    width_s: PositiveSeconds

    def train(self, target_s: FloatArray, setting: Setting) -> PulseTrain:
        """The same as an operation takes it, for cells with these targets (S)."""
        return PulseTrain(
            self.amplitude_v.ramp(target_s, setting),
            self.gate_v.ramp(target_s, setting),
            self.width_s,
        )


@dataclass(frozen=True)
class WriteVerifySummary:
    """Cells, how many were accepted inside their windows, pulses and reads spent, mean pulses a
    cell, and vectors multiplied by a coded verify.

    `inside` is that of the instant: of each cell's last reading, before the others had their
    pulses. With `read_after`, `inside_afterwards` are inside in a map read when all was done, and
    `moved_out` cells were accepted and are not; a later read-map says the same. Cells that were not
    accepted had spent their pulses (`out_of_pulses`) or reversals (`out_of_reversals`), or were
    `unreadable`; `not_conducting` of them conduct less than 0.1 uS, whatever their targets (None
    if no cell does). Where these are most cells the array was never formed. `weights` were
    selected, where the step selects.
    """

    cells: int
    inside: int
    pulses: int
    reads: int
    mean_pulses: float
    vectors: int = 0
    inside_afterwards: int | None = None
    moved_out: int | None = None
    out_of_pulses: int = 0
    out_of_reversals: int = 0
    unreadable: int = 0
    weights: int | None = None
    not_conducting: int | None = None


class WriteVerify(Protocol[WriteVerifySummary]):
    """Read, and pulse towards the window until every cell is inside or has spent its budget
    (NeuRRAM, RADAR: ISPP).

    The window is target +- the larger of `tolerance_s` and `tolerance` x target; a target at or
    below `lowest_s` accepts anything up to `lowest_s` + tolerance. `targets` places a network (or
    map); without it the network that an earlier step left under `tag` is verified. `verify_by` says
    whether each cell is read singly after its pulse, or all cells at once by codes
    (docs/coded-reads.md). `select` says which of the network's weights are verified; the cells of
    the others are neither pulsed nor read.
    """

    targets: Targets | None = None
    tag: str = "network"
    select: Selection = Selection()
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tolerance_s: Annotated[Siemens, Field(ge=0)] = 1e-6
    lowest_s: Annotated[Siemens, Field(ge=0)] = 0.0
    set: Pulses
    reset: Pulses
    max_pulses: Annotated[int, Field(ge=1)] = 30
    max_reversals: Annotated[int, Field(ge=0)] = 10
    confirm: Annotated[int, Field(ge=0)] = 1
    on_board: Literal["never", "allowed", "required"] = "allowed"
    verify_by: Literal["cells", "codes"] = "cells"
    read_after: bool = Field(
        default=False, description="read a map at the end: accepted cells relax and are disturbed"
    )
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    @model_validator(mode="after")
    def _some_width(self) -> Self:
        if self.tolerance == 0 and self.tolerance_s == 0:
            raise ValueError(
                "tolerance and tolerance_s may not both be 0: no cell could ever be accepted"
            )
        return self

    def input_files(self) -> tuple[str, ...]:
        """Those of its targets and of the images that rank weights."""
        return (*target_files(self.targets), *filter(None, (self.select.data,)))

    def run(self, setting: Setting) -> Plan[WriteVerifySummary]:
        """Yields `Program` operations; an interrupted one is followed by a read and the rest of the
        budget.
        """
        if self.targets is None:
            programmed = setting.shared_by(self.tag, Programmed)
        else:
            programmed = load_targets(self.targets, setting)
            setting.share(self.tag, programmed)
        yield from save_targets(programmed)
        cells, target = to_program(programmed)
        selected = yield from self.select.cells(programmed, setting)
        taken = selected.ravel()[cells.index(setting.geometry)]
        cells, target = cells[taken], target[taken]
        summary, inside = yield from self.verify(cells, target, setting)
        if self.select.by != "all":
            yield Save("selected", selected, MAP)
            summary = replace(summary, weights=int(selected.sum()) // 2)
        low, high = self._windows(target)
        geometry = setting.geometry
        windows = Windows(
            # As the verify takes them: what hardly conducts reads below 0 as often as above.
            map_of(cells, np.where(low > 0, low, -high), geometry),
            map_of(cells, high, geometry),
            map_of(cells, inside, geometry, False),
        )
        setting.share("windows", windows)
        if self.read_after and len(cells):
            result = yield from read(cells, setting.read, label="after write-verify")
            found = np.where(result.last_status == Status.OK, result.last_s, np.nan)
            afterwards = windows.inside(map_of(cells, found, geometry))
            yield save_map("conductance_afterwards", cells, found, "S", setting)
            yield Save("inside_afterwards", afterwards, MAP)
            summary = replace(
                summary,
                inside_afterwards=int(afterwards.sum()),
                moved_out=int((windows.accepted & ~afterwards).sum()),
            )
        return summary

    def _windows(self, target: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest conductance (S) that these targets accept."""
        width = np.maximum(self.tolerance * target, self.tolerance_s)
        is_low = target <= self.lowest_s
        high = np.where(is_low, self.lowest_s, target) + width
        return np.where(is_low, 0.0, np.maximum(target - width, 0.0)), high

    def verify(
        self, cells: Cells, target: FloatArray, setting: Setting
    ) -> Plan[tuple[WriteVerifySummary, NDArray[np.bool_]]]:
        """Bring `cells` to `target` (S), shape (n,), with these pulses and windows; saves maps of
        what came of it, and tells which cells ended inside, shape (n,).
        """
        low, high = self._windows(target)
        n = len(cells)
        yield from _remark_on_look(cells, setting)
        readable = np.ones(n, dtype=np.bool_)
        conductance, inside = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        sets, resets, reads = (np.zeros(n, dtype=np.int64) for _ in range(3))
        vectors = 0
        todo = np.arange(n)
        while todo.size:
            yield Progress(n - todo.size, n, f"write-verify of {todo.size} cells")
            batch = Program(
                cells[todo],
                low[todo],
                high[todo],
                self.set.train(target[todo], setting),
                self.reset.train(target[todo], setting),
                setting.read,
                self.max_pulses - (sets + resets)[todo],
                self.max_reversals,
                self.confirm,
                Scheme(self.unselected),
                self.compliance_a,
                on_board=self.on_board,
                verify="coded" if self.verify_by == "codes" else "single",
                label="write-verify",
            )
            result = yield from batch
            sets[todo] += result.set_pulses
            resets[todo] += result.reset_pulses
            reads[todo] += result.reads
            vectors += result.vectors
            known = (result.status != Status.UNKNOWN) | (not result.interrupted)
            conductance[todo[known]], inside[todo[known]] = (
                result.conductance_s[known],
                result.inside[known],
            )
            readable[todo[known]] = result.status[known] == Status.OK
            todo = todo[~known]
            if result.interrupted and todo.size:
                again = yield from read(cells[todo], setting.read, label="after interruption")
                reads[todo] += again.reads
                conductance[todo] = again.last_s
                ok = again.last_status == Status.OK
                readable[todo] = ok
                inside[todo] = ok & (again.last_s >= low[todo]) & (again.last_s <= high[todo])
                todo = todo[~inside[todo] & ((sets + resets)[todo] < self.max_pulses)]
        yield save_map("conductance", cells, conductance, "S", setting)
        for name, values in (("inside", inside), ("set_pulses", sets), ("reset_pulses", resets)):
            yield save_map(name, cells, values, "", setting)
        pulses = int((sets + resets).sum())
        silent = ~inside & readable & (low > SILENT_S) & (conductance < SILENT_S)
        if silent.sum() > 0.5 * n:
            yield Remark(
                f"{count(int(silent.sum()))} of {count(n)} cells conduct less than"
                f" {quantity(SILENT_S, 'S')} after their pulses; {UNFORMED}"
            )
        is_spent = ~inside & readable & (sets + resets >= self.max_pulses)
        summary = WriteVerifySummary(
            n,
            int(inside.sum()),
            pulses,
            int(reads.sum()),
            pulses / max(n, 1),
            vectors,
            out_of_pulses=int(is_spent.sum()),
            out_of_reversals=int((~inside & readable & ~is_spent).sum()),
            unreadable=int((~inside & ~readable).sum()),
            not_conducting=int(silent.sum()) or None,
        )
        return summary, inside

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Accepted cells against the pulses that they took, pulses by polarity, and what became of
        the targets: as accepted, and read afterwards where the step did.
        """
        return verified(step)


def _remark_on_look(cells: Cells, setting: Setting) -> Plan[None]:
    """Say so where a look of this run saw most of these cells not conduct, and nothing since told
    that they were formed. No refusal: there are devices whose reset cells conduct as little.
    """
    silent = setting.shared.get("not conducting")
    if not isinstance(silent, np.ndarray) or isinstance(setting.shared.get("condition"), Condition):
        return
    here = int(silent.ravel()[cells.index(setting.geometry)].sum())
    if here > 0.5 * len(cells):
        yield Remark(
            f"the look saw {count(here)} of {count(len(cells))} cells not conduct; {UNFORMED}"
        )


def verified(step: RunStep) -> Section | None:
    """The section of any step that saved what `WriteVerify.verify` saves; None where it did not."""
    found, inside = step.map("conductance"), step.map("inside")
    sets, resets = step.map("set_pulses"), step.map("reset_pulses")
    if found is None or inside is None or sets is None or resets is None:
        return None
    pulses, is_inside = sets + resets, inside > 0
    # What was neither accepted nor pulsed nor read was not asked for.
    asked = is_inside | (pulses > 0) | np.isfinite(found)
    n = int(asked.sum())
    text = (
        f"{count(int(is_inside.sum()))} of {count(n)} cells were accepted inside their windows,"
        f" after {count(int(pulses.sum()))} pulses."
    )
    plots = [
        Plot(
            "Accepted cells against pulses",
            Axis("pulses that a cell took"),
            Axis("share of cells accepted"),
            (cumulative(pulses[is_inside], of=n),),
            "Band: 95 % interval (Wilson). What is missing at the end was not accepted.",
        ),
        Plot(
            "Pulses of a cell",
            Axis("pulses"),
            Axis("share of cells"),
            (cumulative(sets[asked], "SET"), cumulative(resets[asked], "RESET")),
            "Cells that took at most so many. Bands: 95 % interval (Wilson).",
        ),
    ]
    target = step.map("target")
    if target is not None:
        found_here = np.where(asked, found, np.nan)
        plots += programmed_plots(target, found_here, "as last read", step)
        later = step.map("conductance_afterwards")
        if later is not None:
            errors = {"as accepted": found - target, "read afterwards": later - target}
            plots.append(
                Plot(
                    "Error as accepted and afterwards",
                    Axis("|conductance − target|", "S"),
                    Axis("share of cells"),
                    tuple(cumulative(np.abs(v[asked]), name) for name, v in errors.items()),
                    "Bands: 95 % interval (Wilson).",
                )
            )
    return Section(text, tuple(plots))
