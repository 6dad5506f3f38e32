"""Early stopping: a cell near enough to its target is left as it is, where one more write would
not be expected to bring it nearer by as much as a write must.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from rram_hil.engine.protocol import Setting
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import PositiveSiemens

from .fixed_pulses import FixedPolicy, FixedPulses
from .parts.pulses import Trains
from .parts.rounds import Course, Move, Reason

_MOST_WRITES = 1 << 16


class EarlyStop(FixedPulses):
    """Fixed pulses that stop where they no longer pay: the probabilistic termination of Meng, Sun,
    Qian, "Write or Not", DAC 2022, doi 10.1145/3489517.3530558.

    A write of a cell draws its conductance anew. How far writes of this batch fell from their
    targets is learnt, as a part of the target, from the first `learn_from` of them on. A cell off
    its target by e is written again while E[max(e - e', 0)], e' the error of a fresh write, is
    `least_gain_s` or more; else it is skipped: the optimal rule where a write costs as much. Cells
    whose targets are at or below `lowest_s` go on until they are inside.
    """

    least_gain_s: PositiveSiemens
    learn_from: Annotated[int, Field(ge=1)] = 30

    @override
    def policy(self, course: Course, setting: Setting) -> StoppingPolicy:
        return StoppingPolicy(self, Trains(*self.reach(course.target_s, setting)))


class StoppingPolicy(FixedPolicy):
    """Errors of the writes of this batch, as parts of their targets."""

    def __init__(self, asked: EarlyStop, trains: Trains) -> None:
        super().__init__(trains, asked.reset_first)
        self._asked = asked
        self.errors: FloatArray = np.zeros(0)

    @override
    def learn(
        self, course: Course, at: IntArray, move: Move, before_s: FloatArray, after_s: FloatArray
    ) -> None:
        """Where the SET pulses fell."""
        target = course.target_s[at]
        wrote = (move.polarity > 0) & (target > self._asked.lowest_s)
        if self.errors.size < _MOST_WRITES:
            fresh = np.abs(after_s[wrote] / target[wrote] - 1)
            self.errors = np.sort(np.concatenate([self.errors, fresh]))

    @override
    def gives_up(self, course: Course, at: IntArray) -> NDArray[np.int8]:
        """The cells that another write is not worth."""
        target = course.target_s[at]
        known = course.sets[at] > 0  # before its first write a cell has none to keep
        if self.errors.size < self._asked.learn_from:
            known[:] = False
        error = np.abs(course.last_s[at] - target)
        stops = known & (target > self._asked.lowest_s)
        stops[stops] = self.gain_s(target[stops], error[stops]) < self._asked.least_gain_s
        return np.where(stops, Reason.SKIPPED, Reason.GO_ON).astype(np.int8)

    def gain_s(self, target_s: FloatArray, error_s: FloatArray) -> FloatArray:
        """By how much (S) a fresh write is expected to bring cells nearer that are off by
        `error_s`, those that it takes farther away counted as 0.
        """
        part = error_s / target_s
        better = np.searchsorted(self.errors, part)
        sums = np.concatenate([[0.0], np.cumsum(self.errors)])
        gain: FloatArray = target_s * (part * better - sums[better]) / self.errors.size
        return gain
