"""The loop that programming methods share: read every cell, give each its next pulse, read again,
all of a batch in one operation a round.

A method is a `Policy`: it says which pulse each cell takes next, and may learn from what came of
it. Windows, budgets, reversals, repeated readings and interruptions are the loop's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Apply, ApplyResult, Cells, PulseTrain, Scheme, Status, Step, read
from rram_hil.engine.protocol import Plan, Progress, Setting
from rram_hil.types import FloatArray, IntArray, StatusArray

MOST_UNREAD = 3
"""So many readings in a row that are none end a cell's programming."""
MOST_IDLE = 100
"""So often in a row a policy may ask for one more reading of a cell outside its window."""
MOVED_RATIO = 1.5
"""A cell whose readings all lie within this factor did not respond to its pulses."""
SILENT_S = 1e-7
"""Less than this a formed cell hardly conducts: 10 Mohm, as a look takes it for an open (S)."""


class Reason(IntEnum):
    """Why a cell's programming ended; 0 while it goes on, and of cells that were not asked for.

    INSIDE: accepted in its window. OUT_OF_PULSES, OUT_OF_REVERSALS: these were spent.
    STUCK_LOW_RESISTANCE, STUCK_HIGH_RESISTANCE: it did not respond to RESET, or SET pulses.
    NOT_FORMED: it conducts nothing, whatever SET pulses it took. NEVER_OPENED: RESET pulses moved
    it, but never below the window's upper end. NEVER_CLOSED: SET pulses moved it, but never above
    the lower end. UNREADABLE: its readings are none. SKIPPED: the method left it, as not worth
    more.
    """

    GO_ON = 0
    INSIDE = 1
    OUT_OF_PULSES = 2
    OUT_OF_REVERSALS = 3
    STUCK_LOW_RESISTANCE = 4
    STUCK_HIGH_RESISTANCE = 5
    NOT_FORMED = 6
    NEVER_OPENED = 7
    UNREADABLE = 8
    SKIPPED = 9
    NEVER_CLOSED = 10


@dataclass(eq=False)
class Course:
    """Where each cell of a batch stands, arrays of shape (n,); made by `Course.of`.

    Windows (`asked_s`) and target (S) are as asked, `low_s` and `high_s` what is accepted; `last_s`
    is the last reading (NaN before the first, inf beyond the bench's range) and `before_s` the one
    before it. `wanted` is the polarity that the last reading asks for: 1 (SET) below the window, -1
    (RESET) above it, 0 inside or where there is no usable reading, which `readable` tells. `sets`,
    `resets` and `reversals` count pulses and changes of polarity, `polarity` is that of the last
    pulse (0 before the first), `in_a_row` how many of the same polarity ended with it, `most_set_v`
    the largest amplitude of a SET pulse (V).
    `least_s` and `most_s` are the extreme readings. `reason` tells which cells are done, and why;
    `doubted` is after how many RESETs a method that can tell first thought that the cell hardly
    ever opens, 0 where it did not. `vectors` counts those of coded readings.
    """

    cells: Cells
    asked_s: tuple[FloatArray, FloatArray]
    low_s: FloatArray
    high_s: FloatArray
    target_s: FloatArray
    last_s: FloatArray
    before_s: FloatArray
    least_s: FloatArray
    most_s: FloatArray
    most_set_v: FloatArray
    sets: IntArray
    resets: IntArray
    reversals: IntArray
    in_a_row: IntArray
    reads: IntArray
    polarity: NDArray[np.int8]
    wanted: NDArray[np.int8]
    readable: NDArray[np.bool_]
    reason: NDArray[np.int8]
    confirmed: IntArray
    unread: IntArray
    idle: IntArray
    doubted: IntArray
    vectors: int = 0

    @classmethod
    def of(
        cls,
        cells: Cells,
        low_s: FloatArray,
        high_s: FloatArray,
        target_s: FloatArray,
        margin_s: FloatArray | float = 0.0,
    ) -> Self:
        """Cells of which nothing is known yet; they are accepted by `margin_s` (S) within the ends
        of their windows, but for a lower end of 0.
        """
        n = len(cells)

        def counts() -> IntArray:
            return np.zeros(n, dtype=np.int64)

        def signs() -> NDArray[np.int8]:
            return np.zeros(n, dtype=np.int8)

        return cls(
            cells,
            (low_s, high_s),
            np.where(low_s > 0, low_s + margin_s, 0.0),
            np.asarray(high_s - margin_s, dtype=np.float64),
            np.array(target_s, dtype=np.float64),
            last_s=np.full(n, np.nan),
            before_s=np.full(n, np.nan),
            least_s=np.full(n, np.inf),
            most_s=np.full(n, -np.inf),
            most_set_v=np.zeros(n),
            sets=counts(),
            resets=counts(),
            reversals=counts(),
            in_a_row=counts(),
            reads=counts(),
            polarity=signs(),
            wanted=signs(),
            readable=np.zeros(n, dtype=np.bool_),
            reason=signs(),
            confirmed=counts(),
            unread=counts(),
            idle=counts(),
            doubted=counts(),
        )

    @property
    def pulses(self) -> IntArray:
        """Pulses that each cell took, or may have taken."""
        return self.sets + self.resets

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which cells were accepted in their windows."""
        return np.asarray(self.reason == Reason.INSIDE)

    @property
    def active(self) -> IntArray:
        """Positions of the cells that are not done."""
        return np.flatnonzero(self.reason == Reason.GO_ON)

    def level(self, at: IntArray, polarity: NDArray[np.int8]) -> IntArray:
        """Pulses of this polarity (one a cell) that these cells took in a row until now: the number
        of the next one in a ramp that begins anew at each change of polarity.
        """
        return np.where(self.polarity[at] == polarity, self.in_a_row[at], 0)

    def end(self, at: IntArray, reason: Reason | NDArray[np.int8]) -> None:
        """The programming of these cells is over."""
        self.reason[at] = reason

    def reopen(self, at: IntArray) -> None:
        """These cells, which were accepted, are to be looked after again: the next round reads
        them first.
        """
        self.reason[at] = Reason.GO_ON
        self.readable[at] = False
        self.wanted[at] = self.confirmed[at] = self.unread[at] = self.idle[at] = 0

    def gave(self, move: Move) -> None:
        """Note pulses (no polarity 0), given or perhaps given."""
        at, polarity = move.at, move.polarity
        here = self.polarity[at]
        self.reversals[at] += (here != 0) & (here != polarity)
        self.in_a_row[at] = np.where(here == polarity, self.in_a_row[at] + 1, 1)
        self.polarity[at] = polarity
        self.sets[at] += polarity > 0
        self.resets[at] += polarity < 0
        tried = np.where(polarity > 0, np.abs(move.amplitude_v), 0.0)
        self.most_set_v[at] = np.maximum(self.most_set_v[at], tried)

    def took(
        self, at: IntArray, conductance_s: FloatArray, status: StatusArray, confirm: int
    ) -> None:
        """Note a reading (S) of these cells, or a mean: over range, or at a compliance whose bound
        is above the window, counts as above it; a cell inside `confirm` + 1 times in a row is
        accepted.
        """
        low, high = self.low_s[at], self.high_s[at]
        over = status == Status.OVER_RANGE
        ok = (status == Status.OK) & np.isfinite(conductance_s)
        above = over | ((ok | (status == Status.COMPLIANCE)) & (conductance_s > high))
        # A cell that hardly conducts reads below 0 as often as above: no SET mends its noise.
        below = ok & (conductance_s < np.where(low > 0, low, -high))
        usable = ok | above
        self.before_s[at] = self.last_s[at]
        self.last_s[at] = np.where(over, np.inf, conductance_s)
        seen = np.where(over, np.inf, np.where(usable, conductance_s, np.nan))
        self.least_s[at] = np.fmin(self.least_s[at], seen)
        self.most_s[at] = np.fmax(self.most_s[at], seen)
        self.wanted[at] = below.astype(np.int8) - above.astype(np.int8)
        self.readable[at] = usable
        self.unread[at] = np.where(usable, 0, self.unread[at] + 1)
        self.confirmed[at] = np.where(usable & ~above & ~below, self.confirmed[at] + 1, 0)
        self.end(at[self.confirmed[at] > confirm], Reason.INSIDE)
        self.end(at[self.unread[at] >= MOST_UNREAD], Reason.UNREADABLE)

    def explained(self) -> NDArray[np.int8]:
        """The reasons, those of spent budgets told more closely where the readings were always on
        one side of the window, and of cells that take no SET where they conduct nothing.
        """
        spent = self.reason == Reason.OUT_OF_PULSES
        moved = self.most_s > MOVED_RATIO * np.maximum(self.least_s, SILENT_S)
        always_above = spent & (self.least_s > self.high_s) & (self.resets > 0)
        always_below = spent & (self.most_s < self.low_s) & (self.sets > 0)
        # What conducts nothing reads as far below 0 as above it.
        silent = self.most_s < 3 * np.maximum(SILENT_S, -self.least_s)
        unformed = (always_below | (self.reason == Reason.STUCK_HIGH_RESISTANCE)) & silent
        return np.select(
            [
                always_above & ~moved,
                always_above,
                unformed,
                always_below & ~moved,
                always_below,
            ],
            [
                Reason.STUCK_LOW_RESISTANCE,
                Reason.NEVER_OPENED,
                Reason.NOT_FORMED,
                Reason.STUCK_HIGH_RESISTANCE,
                Reason.NEVER_CLOSED,
            ],
            self.reason,
        ).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Move:
    """The next pulse of the cells at positions `at` of a course, all arrays (m,): polarity (1 SET,
    -1 RESET, 0 none: the cell is only read again), amplitude (on BL for SET, on SL for RESET) and
    gate (V), and the width (s), one for all or one a cell.
    """

    at: IntArray
    polarity: NDArray[np.int8]
    amplitude_v: FloatArray
    gate_v: FloatArray
    width_s: float | FloatArray

    @classmethod
    def none(cls, at: IntArray) -> Self:
        """Only one more reading of each."""
        m = at.size
        return cls(at, np.zeros(m, dtype=np.int8), np.zeros(m), np.zeros(m), np.zeros(m))

    def part(self, which: NDArray[np.bool_] | IntArray) -> Move:
        """The same for some of its cells."""
        widths = self.width_s[which] if isinstance(self.width_s, np.ndarray) else self.width_s
        return Move(
            self.at[which],
            self.polarity[which],
            self.amplitude_v[which],
            self.gate_v[which],
            widths,
        )

    def steps(self, polarities: tuple[int, ...] = (1, -1)) -> tuple[Step, ...]:
        """The pulses of these polarities as steps of one `Apply`, one a width, the other cells at
        0 V meanwhile. Whole microvolts and picoseconds, as boards take them: every bench then gives
        the same.
        """
        widths = np.broadcast_to(np.round(self.width_s, 12), self.at.shape)
        amplitude, gate = np.round(self.amplitude_v, 6), np.round(self.gate_v, 6)
        found = []
        due = np.isin(self.polarity, polarities)
        for width_s in np.unique(widths[due]):
            here = due & (widths == width_s)
            found.append(
                Step(
                    np.where(here & (self.polarity > 0), amplitude, 0.0),
                    np.where(here & (self.polarity < 0), amplitude, 0.0),
                    np.where(here, gate, 0.0),
                    float(width_s),
                )
            )
        return tuple(found)


class Policy(Protocol):
    """A method of programming. All arrays are over the positions `at` of cells of the course that
    are outside their windows, have a usable last reading and may still take a pulse.
    """

    def next(self, course: Course, at: IntArray) -> Move:
        """What each of these cells takes next, in the order of `at`."""

    def given(self, move: Move) -> None:
        """The part of the last move that was given, or may have been."""

    def learn(
        self, course: Course, at: IntArray, move: Move, before_s: FloatArray, after_s: FloatArray
    ) -> None:
        """What came of a round: of the cells whose reading after `move` is OK, that reading and the
        one before it (S). A cell whose pulse may have been given, or not, is left out.
        """

    def gives_up(self, course: Course, at: IntArray) -> NDArray[np.int8]:
        """Which of these cells are to be left as they are: a `Reason` for each, 0 to go on."""


class Plain:
    """A policy that learns nothing and never gives up: what most add nothing to."""

    def given(self, move: Move) -> None:
        """Nothing hangs on it."""

    def learn(
        self, course: Course, at: IntArray, move: Move, before_s: FloatArray, after_s: FloatArray
    ) -> None:
        """Nothing is learnt."""

    def gives_up(self, course: Course, at: IntArray) -> NDArray[np.int8]:
        """No cell is given up."""
        return np.zeros(at.size, dtype=np.int8)


@dataclass(frozen=True)
class Rules:
    """What holds for every method: pulses that a cell may take, reversals, more readings in a row
    that accept it, how many reads are averaged for one, and how pulses are given. Of `sets` and
    `resets` only the levels beside the lines count.
    """

    max_pulses: int
    max_reversals: int = 1 << 30
    confirm: int = 1
    average: int = 1
    unselected: Scheme = Scheme.INHIBIT
    compliance_a: float | None = None
    label: str = "programming"
    sets: PulseTrain | None = None
    resets: PulseTrain | None = None

    def steps(self, move: Move) -> tuple[Step, ...]:
        """The pulses of a move as steps, SETs and RESETs together where they stand at the same
        levels beside their lines.
        """
        set_levels, reset_levels = (
            (None, None) if train is None else (train.body_v, train.unselected_wl_v)
            for train in (self.sets, self.resets)
        )
        groups: list[tuple[tuple[int, ...], tuple[float | None, float | None]]] = [
            ((1, -1), set_levels)
        ]
        if set_levels != reset_levels:
            groups = [((1,), set_levels), ((-1,), reset_levels)]
        return tuple(
            replace(step, body_v=body_v, unselected_wl_v=idle_v)
            for polarities, (body_v, idle_v) in groups
            for step in move.steps(polarities)
        )


def programmed_by(policy: Policy, course: Course, setting: Setting, rules: Rules) -> Plan[Course]:
    """Bring the cells of a course that are not done into their windows, as `policy` says; the same
    course, every cell with its reason.

    Yields one `Apply` a round for all cells under way: their pulses, SETs and RESETs together, and
    a reading. After an interruption what may have been given counts as given, and the cells are
    read before anything else.
    """
    n = len(course.cells)
    unseen = course.active[~course.readable[course.active]]
    if unseen.size:
        yield from give(policy, Move.none(unseen), course, setting, rules)
    while course.active.size:
        move = _due(policy, course, rules)
        if move.at.size:
            done = n - move.at.size
            yield Progress(done, n, f"{rules.label} of {move.at.size} cells")
            yield from give(policy, move, course, setting, rules)
    course.reason = course.explained()
    return course


def _due(policy: Policy, course: Course, rules: Rules) -> Move:
    """The move of all cells under way; those that may not take one are done."""
    at = course.active
    asks = at[course.wanted[at] != 0]
    reasons = policy.gives_up(course, asks)
    spent = (course.pulses[asks] >= rules.max_pulses) | (course.idle[asks] >= MOST_IDLE)
    course.end(
        asks, np.where((reasons == Reason.GO_ON) & spent, np.int8(Reason.OUT_OF_PULSES), reasons)
    )
    asks = asks[course.reason[asks] == Reason.GO_ON]
    move = policy.next(course, asks) if asks.size else Move.none(asks)
    here = course.polarity[asks]
    turns = (move.polarity != 0) & (here != 0) & (move.polarity != here)
    ends = turns & (course.reversals[asks] >= rules.max_reversals)
    course.end(asks[ends], Reason.OUT_OF_REVERSALS)
    course.idle[asks] = np.where(move.polarity == 0, course.idle[asks] + 1, 0)
    return among(course.active, move.part(~ends))


def among(at: IntArray, move: Move) -> Move:
    """A move of all cells at these positions, rising: those that are not in `move` are only
    read.
    """
    place = np.searchsorted(at, move.at)
    whole = Move.none(at)
    for name in ("polarity", "amplitude_v", "gate_v", "width_s"):
        getattr(whole, name)[place] = getattr(move, name)
    return whole


def give(policy: Policy, move: Move, course: Course, setting: Setting, rules: Rules) -> Plan[None]:
    """Give a move and read its cells, in one `Apply`; one more reads those whose reading an
    interruption cost.
    """
    at = move.at
    result = yield from Apply(
        course.cells[at],
        (*rules.steps(move), *[setting.read] * rules.average),
        rules.unselected,
        rules.compliance_a,
        label=rules.label,
    )
    pulsed = move.polarity != 0
    if result.interrupted:
        # Where the bench cannot tell, `pulses` is the worst case: what may be counts as given.
        pulsed &= result.pulses > 0
    given = move.part(pulsed)
    course.gave(given)
    policy.given(given)
    g, status = _reading(result)
    course.reads[at] += result.reads
    lost = np.isin(status, (Status.UNKNOWN, Status.NOT_RUN))
    course.took(at[~lost], g[~lost], status[~lost], rules.confirm)
    ok = (status == Status.OK) & np.isfinite(g) & np.isfinite(course.before_s[at])
    if ok.any():
        known = at[ok]
        policy.learn(course, known, move.part(ok), course.before_s[known], course.last_s[known])
    if lost.any():
        cells = course.cells[at[lost]]
        again = yield from read(cells, setting.read, repeat=rules.average, label=rules.label)
        course.reads[at[lost]] += again.reads
        course.took(at[lost], *_reading(again), rules.confirm)


def _reading(result: ApplyResult) -> tuple[FloatArray, StatusArray]:
    """Mean of each cell's OK readings (S), or its last one where none is OK, and its status. Where
    some are over range the median, which those that the range cuts off do not draw down: over range
    where half of them are.
    """
    found = result.mean_s
    over = result.status == Status.OVER_RANGE
    ok = (result.status == Status.OK) & np.isfinite(result.conductance_s)
    cut = over.any(axis=1)
    readings = np.where(over, np.inf, np.where(ok, result.conductance_s, np.nan))
    found[cut] = np.nanmedian(readings[cut], axis=1)
    known = ~np.isnan(found)
    over_range = np.isposinf(found)
    status = np.where(known, np.uint8(Status.OK), result.last_status)
    status = np.where(over_range, np.uint8(Status.OVER_RANGE), status)
    return np.where(known, found, result.last_s), status
