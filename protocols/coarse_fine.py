"""Coarse, then fine: far from its window a cell takes strong pulses, near it weak ones."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import OtherLevels, PulseTrain
from rram_hil.engine.protocol import Setting
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import StrictModel

from .parts.programming import ByRounds
from .parts.pulses import Pulses, Trains
from .parts.rounds import Course, Move, Plain


class RangePulses(StrictModel):
    """The pulses of one range, given as those of write-verify are."""

    set: Pulses
    reset: Pulses

    def trains(self, target_s: FloatArray, setting: Setting) -> Trains:
        """The same for cells with these targets (S)."""
        return Trains(self.set.train(target_s, setting), self.reset.train(target_s, setting))


class CoarseFine(ByRounds):
    """Ranges by distance, the idea of RADAR (range-dependent adaptive resistance tuning, Levy et
    al., IEEE TED 2021: a coarse SET at the gate of the window, then fine ramps of BL and SL).

    A cell whose conductance lies within a factor `fine_ratio` of its target takes `fine` pulses,
    any other `coarse` ones; a cell whose target is at or below `lowest_s` takes coarse RESETs only,
    however near it is. A ramp begins anew at each change of polarity or range. A cell begins with a
    coarse RESET (not with `reset_first` = false).
    """

    coarse: RangePulses
    fine: RangePulses
    fine_ratio: Annotated[float, Field(gt=1)] = 2.0
    reset_first: bool = True
    max_reversals: int = Field(default=20, ge=0)

    @model_validator(mode="after")
    def _one_pair_of_levels(self) -> Self:
        for name in ("set", "reset"):
            coarse, fine = getattr(self.coarse, name), getattr(self.fine, name)
            for key in OtherLevels.model_fields:
                if getattr(coarse, key) != getattr(fine, key):
                    raise ValueError(
                        f"coarse.{name}.{key} and fine.{name}.{key} must be the same: cells of both"
                        " ranges take their pulses together"
                    )
        return self

    @override
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        coarse, _ = self.reaches(target_s, setting)
        return coarse.sets, coarse.resets

    @override
    def reaches(self, target_s: FloatArray, setting: Setting) -> tuple[Trains, ...]:
        return tuple(part.trains(target_s, setting) for part in (self.coarse, self.fine))

    @override
    def policy(self, course: Course, setting: Setting) -> RangePolicy:
        return RangePolicy(self, self.reaches(course.target_s, setting), len(course.cells))


class RangePolicy(Plain):
    """The range of each cell's last pulse (0 coarse, 1 fine, -1 none yet), and its number in the
    ramp of that range and polarity; the same of the pulse that was chosen last, which counts when
    it is given.
    """

    def __init__(self, asked: CoarseFine, ranges: tuple[Trains, ...], n: int) -> None:
        self._asked, self._ranges = asked, ranges
        self.range_of: IntArray = np.full(n, -1, dtype=np.int64)
        self._number: IntArray = np.zeros(n, dtype=np.int64)
        self._chosen: IntArray = np.full((n, 2), -1, dtype=np.int64)

    def next(self, course: Course, at: IntArray) -> Move:
        """The next pulse of each cell's range."""
        asked = self._asked
        target, last = course.target_s[at], course.last_s[at]
        near = (last < target * asked.fine_ratio) & (last > target / asked.fine_ratio)
        first = (course.pulses[at] == 0) & asked.reset_first
        is_fine = near & ~first & (target > asked.lowest_s)
        polarity = np.where(first, np.int8(-1), course.wanted[at])
        same = (self.range_of[at] == is_fine) & (course.polarity[at] == polarity)
        number = np.where(same, self._number[at] + 1, 0)
        self._chosen[at] = np.stack([is_fine, number], axis=1)
        coarse, fine = (trains.move(at, polarity, number) for trains in self._ranges)
        columns = (
            np.where(is_fine, getattr(fine, name), getattr(coarse, name))
            for name in ("amplitude_v", "gate_v", "width_s")
        )
        return Move(at, polarity, *columns)

    @override
    def given(self, move: Move) -> None:
        """Ranges and numbers of the pulses that count."""
        self.range_of[move.at], self._number[move.at] = self._chosen[move.at].T
