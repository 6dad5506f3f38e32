"""Pulses as recipes give them, ramps of amplitude and gate, and as a round takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import OtherLevels, PulseTrain, Ramp
from rram_hil.array.pulse_curves import Curve, PulseCurves
from rram_hil.engine.protocol import Setting
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import FiniteVolts, Positive, PositiveSeconds, StrictModel

from .rounds import Course, Move, Plain


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


class Pulses(OtherLevels):
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
            self.body_v,
            self.unselected_wl_v,
        )


@dataclass(frozen=True, eq=False)
class Trains:
    """Pulses of both polarities for the cells of a course."""

    sets: PulseTrain
    resets: PulseTrain

    def move(self, at: IntArray, polarity: NDArray[np.int8], number: IntArray) -> Move:
        """Pulse `number` (m,) of the ramp of each cell's polarity."""
        sets, resets, is_set = self.sets.part(at), self.resets.part(at), polarity > 0
        return Move(
            at,
            polarity,
            np.where(is_set, sets.amplitude_v.level(number), resets.amplitude_v.level(number)),
            np.where(is_set, sets.gate_v.level(number), resets.gate_v.level(number)),
            np.where(is_set, sets.width_s, resets.width_s),
        )


class Ramps(Plain):
    """A policy: the next pulse of the ramp of the polarity that a cell needs, from the start of it
    at each change of polarity, as write-verify gives them.
    """

    def __init__(self, trains: Trains) -> None:
        self._trains = trains

    def next(self, course: Course, at: IntArray) -> Move:
        """The next pulse of each cell."""
        wanted = course.wanted[at]
        return self._trains.move(at, wanted, course.level(at, wanted))
