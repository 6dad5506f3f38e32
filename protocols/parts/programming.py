"""What the programming protocols share: targets and windows, what they tell, save and report."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import MAP, Cells, Program, PulseTrain, Scheme, Status, Wait, read
from rram_hil.engine.protocol import (
    Plan,
    Protocol,
    Remark,
    Save,
    Setting,
    Unselected,
    map_of,
)
from rram_hil.networks.programmed_network import Programmed
from rram_hil.report.section import Axis, Plot, Section, Table, cumulative
from rram_hil.report.step import RunStep
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Siemens, Volts, count, quantity
from rram_hil.validation import (
    NotNegative,
    NotNegativeSeconds,
    NotNegativeSiemens,
    Positive,
    PositiveAmperes,
    StrictModel,
)

from .characterisation import save_map
from .pulses import Pulses, Trains
from .rounds import SILENT_S, Course, Policy, Reason, Rules, programmed_by
from .sections import programmed_plots
from .selection import Selection
from .targets import (
    Condition,
    Targets,
    Windows,
    load_targets,
    own_windows,
    save_targets,
    target_files,
    to_program,
)

UNFORMED = (
    "where the array was never formed, these pulses stress it for nothing: `forming` comes before"
    " them, or `recall` with the run that formed it"
)


@dataclass(frozen=True)
class ProgrammingSummary:
    """Cells, how many were accepted inside their windows, pulses and reads spent, mean pulses a
    cell, and vectors multiplied by a coded verify.

    `inside` is that of the instant: of each cell's last reading, before the others had their
    pulses. With `read_after` or a rest, `inside_afterwards` are inside in a map read then, and
    `moved_out` cells were accepted and are not; a later read-map says the same. Cells that were not
    accepted had spent their pulses (`out_of_pulses`) or reversals (`out_of_reversals`), were
    `unreadable`, or, where the method looks at it, did not respond to RESET
    (`stuck_low_resistance`) or SET pulses (`stuck_high_resistance`), conducted nothing after SET
    pulses up to `up_to_v` (`not_formed`), never came below their windows for all their RESET pulses
    (`never_opened`) or above them for all their SET pulses (`never_closed`), or were not worth more
    pulses (`skipped`); None where there are none.
    `not_conducting` of them conduct less than 0.1 uS, whatever their targets (None if no cell
    does). Where these are most cells the array was never formed. `weights` were selected, where the
    step selects.
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
    stuck_low_resistance: int | None = None
    stuck_high_resistance: int | None = None
    not_formed: int | None = None
    up_to_v: Volts | None = None
    never_opened: int | None = None
    never_closed: int | None = None
    skipped: int | None = None
    weights: int | None = None
    not_conducting: int | None = None


class ReadNoise(StrictModel):
    """What one reading scatters by: `fraction` of the conductance and `floor_s`, added as variances
    (what `read-noise` measures). Windows are narrowed by `sure` of it on each side, by three
    quarters of their half width at most.
    """

    fraction: NotNegative = 0.0
    floor_s: NotNegativeSiemens = 0.0
    sure: Positive = 1.0

    def margin(self, target_s: FloatArray, half_s: FloatArray, averaged: int) -> FloatArray:
        """By how much (S) windows of these half widths are narrowed on each side, for means of so
        many reads.
        """
        noise_s: FloatArray = np.hypot(self.fraction * target_s, self.floor_s) / averaged**0.5
        return np.minimum(self.sure * noise_s, 0.75 * half_s)


class Programming(Protocol[ProgrammingSummary]):
    """Base of the protocols that bring cells into windows around their targets.

    The window is target +- the larger of `tolerance_s` and `tolerance` x target; a target at or
    below `lowest_s` accepts anything up to `lowest_s` + tolerance; a map's own windows (`low` and
    `high` of `targets`) stand in place of these. `targets` places a network (or map); without it
    the network that an earlier step left under `tag` is verified. `select` says which of the
    network's weights are verified; the cells of the others are neither pulsed nor read. A cell
    takes `max_pulses` pulses and `max_reversals` changes of polarity at most, and is accepted where
    `confirm` more readings agree; with `guard` in a window that is narrower by the noise of a
    reading, so that what is accepted lies inside. With `reverify`, accepted cells are read again
    when all have had their pulses, so many times, and those that left are brought back with what is
    left of their budget: the pulses of neighbours disturb, and cells relax. `read_after` reads a
    map at the end, after `rest_s` if that is given.
    """

    targets: Targets | None = None
    tag: str = "network"
    select: Selection = Selection()
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tolerance_s: Annotated[Siemens, Field(ge=0)] = 1e-6
    lowest_s: Annotated[Siemens, Field(ge=0)] = 0.0
    max_pulses: Annotated[int, Field(ge=1)] = 30
    max_reversals: Annotated[int, Field(ge=0)] = 10
    confirm: Annotated[int, Field(ge=0)] = 1
    guard: ReadNoise | None = None
    reverify: Annotated[int, Field(ge=0, le=1000)] = 0
    read_after: bool = Field(
        default=False, description="read a map at the end: accepted cells relax and are disturbed"
    )
    rest_s: NotNegativeSeconds = Field(
        default=0.0, description="wait so long before the map at the end, which is then read"
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

    @abstractmethod
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        """SET and RESET pulses whose ends no pulse passes, for cells with these targets (S): what
        limits and the bench are asked about before any cell is pulsed.
        """

    def run(self, setting: Setting) -> Plan[ProgrammingSummary]:
        """Yields what `program` does, then a wait and a read where they are asked for."""
        if self.targets is None:
            programmed = setting.shared_by(self.tag, Programmed)
        else:
            programmed = load_targets(self.targets, setting)
            setting.share(self.tag, programmed)
        yield from save_targets(programmed)
        cells, target = self.cells_of(programmed)
        selected = yield from self.select.cells(programmed, setting)
        taken = selected.ravel()[cells.index(setting.geometry)]
        cells, target = cells[taken], target[taken]
        windows = own_windows(programmed, cells, setting) or self.windows(target)
        summary, course = yield from self.verify(cells, target, windows, setting)
        if self.select.by != "all":
            yield Save("selected", selected, MAP)
            summary = replace(summary, weights=int(selected.sum()) // 2)
        self.share_windows(course, setting)
        if (self.read_after or self.rest_s) and len(course.cells):
            if self.rest_s:
                yield from Wait(self.rest_s, label="rest")
            result = yield from read(course.cells, setting.read, label=f"after {self.label}")
            found = np.where(result.last_status == Status.OK, result.last_s, np.nan)
            afterwards = self.holds(course, found, setting)
            yield save_map("conductance_afterwards", course.cells, found, "S", setting)
            yield save_map("inside_afterwards", course.cells, afterwards, "", setting)
            summary = replace(
                summary,
                inside_afterwards=int(afterwards.sum()),
                moved_out=int((course.inside & ~afterwards).sum()),
            )
        return summary

    def cells_of(self, programmed: Programmed) -> tuple[Cells, FloatArray]:
        """The cells that it looks after, and their targets (S)."""
        return to_program(programmed)

    def holds(self, course: Course, found_s: FloatArray, setting: Setting) -> NDArray[np.bool_]:
        """Which cells are inside where they conduct `found_s` (S), NaN for no reading."""
        low, high = self._bounds(course)
        return (found_s >= low) & (found_s <= high)

    def share_windows(self, course: Course, setting: Setting) -> None:
        """Leave the windows to later steps that read maps."""
        low, high = self._bounds(course)
        cells, geometry = course.cells, setting.geometry
        windows = Windows(
            map_of(cells, low, geometry),
            map_of(cells, high, geometry),
            map_of(cells, course.inside, geometry, False),
        )
        setting.share("windows", windows)

    def _bounds(self, course: Course) -> tuple[FloatArray, FloatArray]:
        """Windows (S) as readings are held against them: what hardly conducts reads below 0 as
        often as above.
        """
        low, high = course.asked_s
        return np.where(low > 0, low, -high), high

    @property
    def averaged(self) -> int:
        """How many reads it averages before it decides."""
        return 1

    @property
    def label(self) -> str:
        """What its operations are called."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()

    def windows(self, target_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest conductance (S) that these targets accept."""
        width = np.maximum(self.tolerance * target_s, self.tolerance_s)
        is_low = target_s <= self.lowest_s
        high = np.where(is_low, self.lowest_s, target_s) + width
        return np.where(is_low, 0.0, np.maximum(target_s - width, 0.0)), high

    def verify(
        self,
        cells: Cells,
        target_s: FloatArray,
        windows_s: tuple[FloatArray, FloatArray],
        setting: Setting,
    ) -> Plan[tuple[ProgrammingSummary, Course]]:
        """Bring `cells` into their windows around `target_s` (S), all of shape (n,), by this
        method; saves maps of what came of it, and tells how each ended.
        """
        yield from _remark_on_look(cells, setting)
        low, high = windows_s
        margin = np.zeros(len(cells))
        if self.guard is not None:
            margin = self.guard.margin(target_s, (high - low) / 2, self.averaged)
        course = Course.of(cells, low, high, target_s, margin)
        yield from self.program(course, setting)
        conductance = np.where(np.isfinite(course.last_s), course.last_s, np.nan)
        yield save_map("conductance", cells, conductance, "S", setting)
        sets, resets = course.sets, course.resets
        for name, values in (
            ("inside", course.inside), ("set_pulses", sets), ("reset_pulses", resets),
        ):  # fmt: skip
            yield save_map(name, cells, values, "", setting)
        silent = (
            ~course.inside
            & (course.reason != Reason.UNREADABLE)
            & (course.low_s > SILENT_S)
            & (conductance < SILENT_S)
        )
        if silent.sum() > 0.5 * len(cells):
            yield Remark(
                f"{count(int(silent.sum()))} of {count(len(cells))} cells conduct less than"
                f" {quantity(SILENT_S, 'S')} after their pulses; {UNFORMED}"
            )
        return _summary(course, int(silent.sum())), course

    def program(self, course: Course, setting: Setting) -> Plan[None]:
        """Bring the cells of a course into their windows; each has its reason then."""
        bring = self.bringing(course, setting)
        yield from bring()
        for _ in range(self.reverify):
            yield from self.settle()
            spent = course.pulses.sum()
            course.reopen(np.flatnonzero(course.inside))
            yield from bring()
            if course.pulses.sum() == spent:
                break

    @abstractmethod
    def bringing(self, course: Course, setting: Setting) -> Callable[[], Plan[object]]:
        """What brings the cells of a course that are not done into their windows; it may be
        called again.
        """

    def settle(self) -> Plan[None]:
        """What happens before accepted cells are read once more: nothing."""
        yield from ()

    def batch(self, course: Course, at: IntArray, setting: Setting) -> Program:
        """What these cells of a course may still take, as one operation."""
        sets, resets = self.reach(course.target_s[at], setting)
        return Program(
            course.cells[at],
            course.low_s[at],
            course.high_s[at],
            sets,
            resets,
            setting.read.without_gate(),
            self.max_pulses - course.pulses[at],
            self.max_reversals,
            self.confirm,
            Scheme(self.unselected),
            self.compliance_a,
            on_board="never",
            label=self.label,
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Accepted cells against the pulses that they took, pulses by polarity, and what became of
        the targets: as accepted, and read afterwards where the step did.
        """
        return verified(step)


class ByRounds(Programming):
    """Base of the methods that are a `Policy`: a pulse and a reading of all cells in each round,
    the mean of `average` reads, their median where the range cuts some of them off.
    """

    average: Annotated[int, Field(ge=1, le=1000)] = 1

    @abstractmethod
    def policy(self, course: Course, setting: Setting) -> Policy:
        """What decides of the cells of this course, which has not begun."""

    @override
    def bringing(self, course: Course, setting: Setting) -> Callable[[], Plan[object]]:
        self.require(course, setting)
        policy = self.policy(course, setting)
        return partial(programmed_by, policy, course, setting, self.rules(setting))

    def reaches(self, target_s: FloatArray, setting: Setting) -> tuple[Trains, ...]:
        """The same as `reach`, once for each width where pulses have several."""
        return (Trains(*self.reach(target_s, setting)),)

    def require(self, course: Course, setting: Setting) -> None:
        """Refuse what limits or the bench forbid before anything has moved."""
        whole = self.batch(course, course.active, setting)
        for trains in self.reaches(course.target_s[course.active], setting):
            setting.require(replace(whole, set_pulses=trains.sets, reset_pulses=trains.resets))

    @override
    def program(self, course: Course, setting: Setting) -> Plan[None]:
        yield from super().program(course, setting)
        reason = save_map("reason", course.cells, course.reason, "", setting)
        words = " ".join(one.name.lower() for one in Reason)
        yield replace(reason, attrs={"long_name": "why programming ended", "flag_meanings": words})
        for name, ends_s in zip(("window_low", "window_high"), course.asked_s, strict=True):
            yield save_map(name, course.cells, ends_s, "S", setting)
        if course.doubted.any():
            yield save_map("doubted_after_resets", course.cells, course.doubted, "", setting)

    @property
    @override
    def averaged(self) -> int:
        return self.average

    def rules(self, setting: Setting) -> Rules:
        """Budgets, and how pulses are given."""
        sets, resets = self.reach(np.zeros(0), setting)
        return Rules(
            self.max_pulses,
            self.max_reversals,
            self.confirm,
            self.average,
            Scheme(self.unselected),
            self.compliance_a,
            self.label,
            sets,
            resets,
        )


class ByPulses(ByRounds):
    """Base of the methods whose pulses are given as those of write-verify are."""

    set: Pulses
    reset: Pulses

    @override
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        return self.set.train(target_s, setting), self.reset.train(target_s, setting)


def _summary(course: Course, silent: int) -> ProgrammingSummary:
    def ended(reason: Reason) -> int:
        return int((course.reason == reason).sum())

    n, pulses = len(course.cells), int(course.pulses.sum())
    unformed = course.reason == Reason.NOT_FORMED
    return ProgrammingSummary(
        n,
        ended(Reason.INSIDE),
        pulses,
        int(course.reads.sum()),
        pulses / max(n, 1),
        course.vectors,
        out_of_pulses=ended(Reason.OUT_OF_PULSES),
        out_of_reversals=ended(Reason.OUT_OF_REVERSALS),
        unreadable=ended(Reason.UNREADABLE),
        stuck_low_resistance=ended(Reason.STUCK_LOW_RESISTANCE) or None,
        stuck_high_resistance=ended(Reason.STUCK_HIGH_RESISTANCE) or None,
        not_formed=ended(Reason.NOT_FORMED) or None,
        up_to_v=float(course.most_set_v[unformed].max()) if unformed.any() else None,
        never_opened=ended(Reason.NEVER_OPENED) or None,
        never_closed=ended(Reason.NEVER_CLOSED) or None,
        skipped=ended(Reason.SKIPPED) or None,
        not_conducting=silent or None,
    )


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
    return Section(text, tuple(plots), tables=_reasons(step))


def _reasons(step: RunStep) -> tuple[Table, ...]:
    """Why cells are not inside, of a step that saved it."""
    reason = step.map("reason")
    if reason is None:
        return ()
    left_out = (Reason.GO_ON, Reason.INSIDE)
    counts = {r: int(np.sum(reason == r)) for r in Reason if r not in left_out}
    rows = tuple(
        (r.name.lower().replace("_", " "), count(number)) for r, number in counts.items() if number
    )
    return (Table("Not inside", ("why", ">cells"), rows),) if rows else ()
