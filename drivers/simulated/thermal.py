"""What simulated thermostats share: a body that they heat or cool, and whose time it is."""

from __future__ import annotations

import math
import time
from typing import ClassVar

from typing_extensions import override

from .array.terminals import Bus, FollowedClock, Place, VirtualClock
from .scpi.instrument import Handler, ScpiInstrument


class Stage:
    """A body with one time constant: it goes to where it is driven, else to room temperature."""

    ROOM_K: ClassVar[float] = 295.0
    DRIVEN_S, FREE_S = 60.0, 300.0

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._goal_k: float | None = None
        self._kelvin, self._then_s = self.ROOM_K, clock.now_s

    @property
    def kelvin(self) -> float:
        """Its temperature now (K)."""
        now_s = self._clock.now_s
        goal_k, slow_s = (
            (self.ROOM_K, self.FREE_S) if self._goal_k is None else (self._goal_k, self.DRIVEN_S)
        )
        left = math.exp(-max(0.0, now_s - self._then_s) / slow_s)
        self._kelvin, self._then_s = goal_k + (self._kelvin - goal_k) * left, now_s
        return self._kelvin

    def drive(self, goal_k: float | None) -> None:
        """Take it to a temperature (K) from now on; None leaves it alone."""
        _ = self.kelvin
        self._goal_k = goal_k


class ThermalInstrument(ScpiInstrument):
    """A thermostat. One that is started alone lives on this computer's time: nothing else there
    would let the body warm.
    """

    @override
    @classmethod
    def place_alone(cls, load_ohm: float) -> Place:
        return Place(bus=Bus(FollowedClock(time.monotonic)))

    @override
    def _all_commands(self) -> dict[str, Handler]:
        return {
            pattern: handler
            for pattern, handler in super()._all_commands().items()
            if not pattern.startswith(":SYST")
        }
