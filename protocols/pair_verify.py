"""Verify of differential pairs: what counts is the difference of a weight's two cells, and either
cell may be the one that is moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import Cells
from rram_hil.engine.protocol import Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.networks.mapping import Mapping
from rram_hil.networks.programmed_network import Programmed
from rram_hil.types import FloatArray, IntArray

from .parts.programming import ByPulses
from .parts.pulses import Ramps, Trains
from .parts.rounds import Course, Move, Reason, among, give
from .parts.targets import partners

_NEVER = 1 << 40
"""No cell is accepted by its own window."""
_NO_WINDOWS = "pair-verify accepts pairs, not cells in windows of their own"
_MOST_S = 1.0
"""What a reading over range counts as."""


class PairVerify(ByPulses):
    """Bring the difference of each pair's cells, not each cell, to what it should be; in each
    round the cell of a pair takes a pulse that is farther from its target in the direction that
    the pair needs (the choice of Büchel et al., IEDM 2022, made by readings of the cells).

    A pair is accepted where its difference lies within the larger of `tolerance_s` and `tolerance`
    x its larger target, in `confirm` + 1 readings in a row. Where one cell is known to be stuck,
    or has spent its pulses or reversals, the other makes up for it. A target at or below `lowest_s`
    takes no SET pulse. Pairs are those of the network; of a bare map the columns 2k and 2k + 1, a
    cell without a partner stands for itself. Pulses are the ramps of write-verify.
    """

    max_pulses: int = Field(default=100, ge=1)
    max_reversals: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _unguarded(self) -> Self:
        if self.guard is not None:
            raise ValueError(
                f"guard: {_NO_WINDOWS}; leave it out, and ask for tolerances that are narrower by"
                " the noise of a difference"
            )
        return self

    @override
    def cells_of(self, programmed: Programmed) -> tuple[Cells, FloatArray]:
        """All cells, those that do not respond too: their partners need to know of them."""
        if programmed.windows_s is not None:
            raise ConfigError(
                f"targets: {_NO_WINDOWS}; leave low and high out, tolerance and tolerance_s say how"
                " far a difference may be off"
            )
        return programmed.mapping.cells, programmed.mapping.target_s

    @override
    def policy(self, course: Course, setting: Setting) -> Ramps:
        return Ramps(Trains(*self.reach(course.target_s, setting)))

    @override
    def bringing(self, course: Course, setting: Setting) -> Callable[[], Plan[object]]:
        self.require(course, setting)
        pairs = _Pairs(self, course, setting)
        return partial(self._paired, pairs, course, setting)

    def _paired(self, pairs: _Pairs, course: Course, setting: Setting) -> Plan[None]:
        rules = replace(self.rules(setting), confirm=_NEVER)
        policy = self.policy(course, setting)
        move = Move.none(course.active)
        while move.at.size:
            yield from give(policy, move, course, setting, rules)
            move = pairs.due(course)
            done = len(course.cells) - move.at.size
            yield Progress(done, len(course.cells), f"{self.label} of {move.at.size} cells")

    @override
    def holds(self, course: Course, found_s: FloatArray, setting: Setting) -> NDArray[np.bool_]:
        return _Pairs(self, course, setting).inside(found_s)

    @override
    def share_windows(self, course: Course, setting: Setting) -> None:
        """A pair has no windows of its cells, and those of an earlier step hold no longer."""
        setting.shared.pop("windows", None)


class _Pairs:
    """The pairs of a course, arrays (n,): position of each cell's partner (its own without one),
    whether it may be pulsed, what the pair's difference may be off by (S), and readings in a row
    that found it inside.
    """

    def __init__(self, asked: PairVerify, course: Course, setting: Setting) -> None:
        self._asked = asked
        programmed = setting.shared_by(asked.tag, Programmed)
        mapping, index = programmed.mapping, course.cells.index(setting.geometry)
        self.worth = programmed.responsive.ravel()[index]
        self.partner = _partners(mapping, index)
        self._target = course.target_s
        larger = np.maximum(self._target, self._target[self.partner])
        self.tolerance = np.maximum(asked.tolerance * larger, asked.tolerance_s)
        self._trains = Trains(*asked.reach(self._target, setting))
        self._confirmed = np.zeros(len(index), dtype=np.int64)

    def missing(self, found_s: FloatArray) -> FloatArray:
        """By how much (S) each cell would have to rise for its pair to be right."""
        lacks = self._target - np.minimum(found_s, _MOST_S)
        alone = self.partner == np.arange(lacks.size)
        return lacks - np.where(alone, 0.0, lacks[self.partner])

    def inside(self, found_s: FloatArray) -> NDArray[np.bool_]:
        """Which cells' pairs are right."""
        return np.abs(self.missing(found_s)) <= self.tolerance

    def due(self, course: Course) -> Move:
        """The next round: a pulse for one cell of each pair that is not right. Ends the pairs that
        are, and those that nothing can bring there.
        """
        asked, partner = self._asked, self.partner
        lost = course.reason[partner] == Reason.UNREADABLE
        course.end(np.flatnonzero(lost & (course.reason == Reason.GO_ON)), Reason.UNREADABLE)
        readable = course.readable & course.readable[partner]
        inside = readable & self.inside(course.last_s)
        self._confirmed = np.where(inside, self._confirmed + 1, 0)
        active = course.reason == Reason.GO_ON
        accepted = active & (self._confirmed > asked.confirm)
        course.end(np.flatnonzero(accepted), Reason.INSIDE)
        self._confirmed[accepted] = 0
        outside = active & readable & ~inside
        missing = np.where(outside, self.missing(course.last_s), 0.0)
        wanted = np.sign(missing).astype(np.int8)
        turns = (course.polarity != 0) & (course.polarity != wanted)
        spent = course.pulses >= asked.max_pulses
        turned = turns & (course.reversals >= asked.max_reversals)
        is_low = (self._target <= asked.lowest_s) & (wanted > 0)
        can = outside & self.worth & ~spent & ~turned & ~is_low
        blame = np.where(can, wanted * (self._target - np.minimum(course.last_s, _MOST_S)), -np.inf)
        place = np.arange(blame.size)
        first = (blame > blame[partner]) | ((blame == blame[partner]) & (place <= partner))
        self._fail(course, outside & ~can & ~can[partner], spent, turned)
        at = np.flatnonzero(can & first)
        number = course.level(at, wanted[at])
        return among(course.active, self._trains.move(at, wanted[at], number))

    def _fail(
        self,
        course: Course,
        fails: NDArray[np.bool_],
        spent: NDArray[np.bool_],
        turned: NDArray[np.bool_],
    ) -> None:
        """Pairs of which no cell can be moved: a cell that was known as stuck, or may take no SET
        pulse, is left as it is.
        """
        reasons = np.select(
            [spent & self.worth, turned & self.worth],
            [Reason.OUT_OF_PULSES, Reason.OUT_OF_REVERSALS],
            Reason.SKIPPED,
        ).astype(np.int8)
        course.end(np.flatnonzero(fails), reasons[fails])


def _partners(mapping: Mapping, index: IntArray) -> IntArray:
    """Position of each cell's partner among those of these flat indices, rising; its own where it
    has none.
    """
    every = mapping.cells.index(mapping.geometry)
    if mapping.layers:
        other = every[partners(mapping)][np.searchsorted(every, index)]
    else:
        column = index % mapping.geometry.columns
        other = np.where(column % 2, index - 1, index + 1)
        beyond = (column % 2 == 0) & (column == mapping.geometry.columns - 1)
        other = np.where(beyond, index, other)
    place = np.minimum(np.searchsorted(index, other), index.size - 1)
    return np.where(index[place] == other, place, np.arange(index.size))
