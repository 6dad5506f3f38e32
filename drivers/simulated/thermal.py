"""A body that simulated thermostats heat or cool."""

from __future__ import annotations

import math
from typing import ClassVar

from .array.terminals import VirtualClock


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
