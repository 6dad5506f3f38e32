"""Incremental step pulse programming (ISPP) as published: one quantity of the SET pulse rises until
the cell is inside its window; beyond it, a RESET, and from the start.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import OtherLevels, PulseTrain, Ramp
from rram_hil.engine.protocol import Setting
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import FiniteVolts, Positive, PositiveSeconds

from .parts.programming import ByRounds
from .parts.pulses import Trains
from .parts.rounds import Course, Move, Plain

Ramped = Literal["gate", "amplitude", "width"]


class SteppedPulse(OtherLevels):
    """The first pulse of one polarity, amplitude on BL (SET) or SL (RESET), and how the ramped
    quantity goes on: volts by `step_v` until `stop_v`, the width by `factor` until `stop_s`.

    Without `step_v` or `factor` every pulse is as the first.
    """

    amplitude_v: FiniteVolts
    gate_v: FiniteVolts
    width_s: PositiveSeconds
    step_v: FiniteVolts | None = None
    stop_v: FiniteVolts | None = None
    factor: Positive | None = Field(default=None, gt=1)
    stop_s: PositiveSeconds | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.step_v is None) != (self.stop_v is None):
            raise ValueError("step_v and stop_v belong together")
        if (self.factor is None) != (self.stop_s is None):
            raise ValueError("factor and stop_s belong together")
        return self

    def levels(self, ramp: Ramped) -> int:
        """Pulses until the ramp has ended; 0 where there is none."""
        if ramp == "width":
            if self.factor is None or self.stop_s is None:
                return 0
            steps = np.log(self.stop_s / self.width_s) / np.log(self.factor)
            return 1 + int(np.floor(steps + 1e-9))
        if not self.step_v or self.stop_v is None:
            return 0
        start_v = self.gate_v if ramp == "gate" else self.amplitude_v
        return 1 + int(np.floor((self.stop_v - start_v) / self.step_v + 1e-9))

    def pulse(self, ramp: Ramped, k: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Amplitude, gate (V) and width (s) of pulse number `k` of the ramp, held at its end."""
        k = np.minimum(k, max(self.levels(ramp) - 1, 0))
        amplitude, gate, width = (
            np.full(k.shape, value) for value in (self.amplitude_v, self.gate_v, self.width_s)
        )
        if ramp == "width":
            width = width * (self.factor or 1.0) ** k
        else:
            rising = gate if ramp == "gate" else amplitude
            rising += k * (self.step_v or 0.0)
        return amplitude, gate, width

    def trains(self, ramp: Ramped) -> tuple[PulseTrain, PulseTrain]:
        """The volts that the ramp reaches, at its shortest and at its longest width."""
        ends = self.pulse(ramp, np.array([0, max(self.levels(ramp) - 1, 0)]))
        amplitude, gate = (Ramp(float(v[0]), float(v[1])) for v in ends[:2])
        others = self.body_v, self.unselected_wl_v
        shortest, longest = (PulseTrain(amplitude, gate, float(s), *others) for s in ends[2])
        return shortest, longest


class Ispp(ByRounds):
    """Incremental step pulses (ISPP, as Levy et al., IEEE TED 2021, and most since NAND flash have
    it).

    A cell begins with a RESET (not with `reset_first` = false), then takes SET pulses of which
    `ramp`, the gate, the amplitude or the width, rises from pulse to pulse. Beyond the window, and
    where the ramp has ended below it, a RESET follows and the ramp begins anew. RESET pulses may
    rise in the same way.
    """

    ramp: Ramped = "gate"
    set: SteppedPulse
    reset: SteppedPulse
    reset_first: bool = True
    max_reversals: int = Field(default=1000, ge=0)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        key, other = ("factor", "step_v") if self.ramp == "width" else ("step_v", "factor")
        for name, pulse in (("set", self.set), ("reset", self.reset)):
            if getattr(pulse, other) is not None:
                raise ValueError(f'{name}.{other} has no meaning with ramp = "{self.ramp}"')
            if getattr(pulse, key) and pulse.levels(self.ramp) < 1:
                raise ValueError(f"{name}: the ramp must not end before its first pulse")
        if getattr(self.set, key) is None:
            raise ValueError(
                f'set.{key} is missing: with ramp = "{self.ramp}" it says how it rises'
            )
        return self

    @override
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        return self.set.trains(self.ramp)[1], self.reset.trains(self.ramp)[1]

    @override
    def reaches(self, target_s: FloatArray, setting: Setting) -> tuple[Trains, ...]:
        shortest, longest = zip(
            self.set.trains(self.ramp), self.reset.trains(self.ramp), strict=True
        )
        return Trains(*shortest), Trains(*longest)

    @override
    def policy(self, course: Course, setting: Setting) -> SteppedPolicy:
        return SteppedPolicy(self)


class SteppedPolicy(Plain):
    """The pulses of an `Ispp`."""

    def __init__(self, asked: Ispp) -> None:
        self._asked = asked

    def next(self, course: Course, at: IntArray) -> Move:
        """The next pulse of each cell's ramp."""
        asked = self._asked
        wanted = course.wanted[at]
        number = course.level(at, wanted)
        ends = asked.set.levels(asked.ramp)
        again = (wanted > 0) & (number >= ends) & (ends > 0)
        first = (course.pulses[at] == 0) & asked.reset_first
        polarity = np.where(again | first, np.int8(-1), wanted)
        return stepped(asked, at, polarity, course.level(at, polarity))


def stepped(asked: Ispp, at: IntArray, polarity: NDArray[np.int8], number: IntArray) -> Move:
    """Pulse `number` (m,) of the ramps of these polarities."""
    sets, resets = (p.pulse(asked.ramp, number) for p in (asked.set, asked.reset))
    columns = [np.where(polarity > 0, a, b) for a, b in zip(sets, resets, strict=True)]
    return Move(at, polarity, *columns)
