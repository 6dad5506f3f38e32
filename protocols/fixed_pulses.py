"""Fixed pulses with verify (FPPV): every write of a cell is a RESET and the one SET pulse that
belongs to its target, until it falls inside its window.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.engine.protocol import Setting
from rram_hil.types import IntArray

from .parts.programming import ByPulses
from .parts.pulses import Trains
from .parts.rounds import Course, Move, Plain


class FixedPulses(ByPulses):
    """Fixed pulses (FPPV, as Levy et al., IEEE TED 2021, compare it): no ramp.

    A cell begins with a RESET (not with `reset_first` = false). Below its window it takes the SET
    pulse of its target, `start_v` of the ramps or what their `curve` gives; above it a RESET,
    always the same. A cell that a write leaves outside draws anew with the next: the method rests
    on the scatter from write to write.
    """

    reset_first: bool = True
    max_pulses: int = Field(default=100, ge=1)
    max_reversals: int = Field(default=1000, ge=0)

    @override
    def policy(self, course: Course, setting: Setting) -> FixedPolicy:
        return FixedPolicy(Trains(*self.reach(course.target_s, setting)), self.reset_first)


class FixedPolicy(Plain):
    """The first pulse of the ramp of each polarity, again and again."""

    def __init__(self, trains: Trains, reset_first: bool) -> None:
        self._trains, self._reset_first = trains, reset_first

    def next(self, course: Course, at: IntArray) -> Move:
        """A SET below the window, a RESET above it and at the beginning."""
        first = (course.pulses[at] == 0) & self._reset_first
        polarity = np.where(first, np.int8(-1), course.wanted[at])
        return self._trains.move(at, polarity, np.zeros_like(at))
