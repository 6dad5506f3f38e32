"""Relaxation-aware verify: what was accepted is read again after a while, and what left its window
is brought back.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import override

from rram_hil.array import Wait
from rram_hil.engine.protocol import Plan, Setting
from rram_hil.validation import PositiveSeconds

from .parts.programming import ByPulses
from .parts.pulses import Ramps, Trains
from .parts.rounds import Course


class RelaxationAware(ByPulses):
    """Accept, wait, read again, repair, as NeuRRAM (Wan et al., Nature 608, 2022) and "A Fully
    Digital Relaxation-Aware Analog Programming Technique for HfOx RRAM Arrays" (IEEE, 2024) do it.

    All cells are brought into their windows by the ramps of write-verify. Then, `reverify` times at
    most, `wait_s` pass, the accepted cells are read again, and those that left take pulses anew,
    from what is left of their budgets; it ends with a round in which none has to. What relaxed once
    and was repaired has a fresh filament, which relaxes too: the rounds pay as long as fewer leave
    each time.
    """

    wait_s: PositiveSeconds = 1.0
    reverify: Annotated[int, Field(ge=0, le=1000)] = 3
    max_pulses: int = Field(default=100, ge=1)
    max_reversals: int = Field(default=100, ge=0)

    @override
    def policy(self, course: Course, setting: Setting) -> Ramps:
        return Ramps(Trains(*self.reach(course.target_s, setting)))

    @override
    def settle(self) -> Plan[None]:
        yield from Wait(self.wait_s, label=self.label)
