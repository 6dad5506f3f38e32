"""Adaptive steps: the next pulse of a cell is as much stronger as its error asks, by the slope that
the cell itself showed.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import OtherLevels, PulseTrain, Ramp
from rram_hil.engine.protocol import Setting
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import FiniteVolts, PositiveSeconds, PositiveVolts

from .parts.programming import ByRounds
from .parts.rounds import Course, Move, Plain

_LEAST_SLOPE = 1e-9
"""A cell that responds less (S/V) takes the largest step."""


class AdaptivePulse(OtherLevels):
    """The first pulse of one polarity, amplitude on BL (SET) or SL (RESET). `varied` rises until
    `stop_v`, in steps of `least_step_v` to `most_step_v`.
    """

    amplitude_v: FiniteVolts
    gate_v: FiniteVolts
    width_s: PositiveSeconds
    varied: Literal["gate", "amplitude"]
    stop_v: FiniteVolts
    least_step_v: PositiveVolts
    most_step_v: PositiveVolts

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stop_v < self.start_v:
            raise ValueError(f"stop_v must not lie below {self.varied}_v, where the ramp begins")
        if self.most_step_v < self.least_step_v:
            raise ValueError("most_step_v must not lie below least_step_v")
        return self

    @property
    def start_v(self) -> float:
        """Where what is varied begins (V)."""
        return self.gate_v if self.varied == "gate" else self.amplitude_v

    def train(self) -> PulseTrain:
        """Its ends as an operation takes them."""
        ends = {"amplitude": self.amplitude_v, "gate": self.gate_v} | {self.varied: self.stop_v}
        return PulseTrain(
            Ramp(self.amplitude_v, ends["amplitude"]),
            Ramp(self.gate_v, ends["gate"]),
            self.width_s,
            self.body_v,
            self.unselected_wl_v,
        )


class AdaptiveStep(ByRounds):
    """Steps that follow the error and the cell's own slope (Alibart et al., Nanotechnology 23
    075201, 2012, tune by pulses that grow while the cell stays behind, and turn where it passed).

    Each cell keeps, for SET and for RESET, the level of its last pulse, the conductance that it
    left, and the slope (S/V) that two pulses in a row showed, averaged with what was known. The
    next level is the last one and `share` of what is missing over the slope, `least_step_v` to
    `most_step_v` more; after a change of polarity it may lie as much below. Until a slope is known
    steps are the least.
    """

    set: AdaptivePulse
    reset: AdaptivePulse
    share: Annotated[float, Field(gt=0, le=2)] = 0.7
    max_reversals: int = Field(default=100, ge=0)

    @override
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        return self.set.train(), self.reset.train()

    @override
    def policy(self, course: Course, setting: Setting) -> AdaptivePolicy:
        return AdaptivePolicy(self, len(course.cells))


class AdaptivePolicy(Plain):
    """What each cell showed, arrays (n,) by polarity: level of the last pulse (V), conductance
    after it (S), slope in the direction of the pulse (S/V); NaN where it is not known.
    """

    def __init__(self, asked: AdaptiveStep, n: int) -> None:
        self._asked = asked
        self.level_v, self.after_s, self.slope = (
            {polarity: np.full(n, np.nan) for polarity in (1, -1)} for _ in range(3)
        )
        self._rose_v = np.full(n, np.nan)

    def next(self, course: Course, at: IntArray) -> Move:
        """The next level of each cell."""
        columns = np.zeros((3, at.size))
        wanted = course.wanted[at]
        for polarity, pulse in ((1, self._asked.set), (-1, self._asked.reset)):
            mine = wanted == polarity
            level = self._next_v(course, at[mine], polarity, pulse)
            fixed = pulse.amplitude_v if pulse.varied == "gate" else pulse.gate_v
            columns[0, mine], columns[1, mine] = (
                (fixed, level) if pulse.varied == "gate" else (level, fixed)
            )
            columns[2, mine] = pulse.width_s
        return Move(at, wanted, *columns)

    def _next_v(
        self, course: Course, at: IntArray, polarity: int, pulse: AdaptivePulse
    ) -> FloatArray:
        """Next level (V) of cells that take this polarity."""
        last_v, slope = self.level_v[polarity][at], self.slope[polarity][at]
        goes_on = course.polarity[at] == polarity
        missing = polarity * (course.target_s[at] - self.after_s[polarity][at])
        step = self._asked.share * missing / np.maximum(slope, _LEAST_SLOPE)
        # Where nothing is known yet, carefully.
        step = np.where(np.isnan(step), pulse.least_step_v, step)
        least = np.where(goes_on, pulse.least_step_v, -pulse.most_step_v)
        level = last_v + np.clip(step, least, pulse.most_step_v)
        level = np.clip(
            np.where(np.isnan(last_v), pulse.start_v, level), pulse.start_v, pulse.stop_v
        )
        self._rose_v[at] = np.where(goes_on, level - last_v, np.nan)
        return level

    @override
    def given(self, move: Move) -> None:
        """Levels of the pulses that count."""
        for polarity, pulse in ((1, self._asked.set), (-1, self._asked.reset)):
            mine = move.polarity == polarity
            level_v = move.gate_v if pulse.varied == "gate" else move.amplitude_v
            self.level_v[polarity][move.at[mine]] = level_v[mine]

    @override
    def learn(
        self, course: Course, at: IntArray, move: Move, before_s: FloatArray, after_s: FloatArray
    ) -> None:
        """Conductance after a pulse and, of a second one in a row, the slope."""
        for polarity in (1, -1):
            mine = move.polarity == polarity
            here, rose_v = at[mine], self._rose_v[at[mine]]
            self.after_s[polarity][here] = after_s[mine]
            steeper = np.full(here.size, np.nan)
            moved = polarity * (after_s - before_s)[mine]
            np.divide(moved, rose_v, out=steeper, where=rose_v > 0)
            known = np.isfinite(steeper)
            old, new = self.slope[polarity][here[known]], np.maximum(steeper[known], 0.0)
            self.slope[polarity][here[known]] = np.where(np.isnan(old), new, (old + new) / 2)
