"""How pulses of a generator arrive where they are meant to act, as far as a driver and the limits
must know it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from rram_hil.array import Step
from rram_hil.errors import ConfigError
from rram_hil.types import FloatArray


class Arrival(ABC):
    """What arrives of the pulses of one generator's channel. Levels (V) are from rest, of either
    sign, shape (n,).
    """

    @abstractmethod
    def to_set(self, volts: FloatArray, width_s: float) -> tuple[FloatArray, FloatArray]:
        """Levels and widths (s) to set so that these arrive, shape (n,) each.

        Raises `ConfigError` naming a pulse that cannot be made to arrive as asked.
        """

    def refuse(self, volts: FloatArray, width_s: float) -> None:
        """Refuse pulses that cannot be made to arrive with these levels, not 0, nor with the other
        sign, as which a generator on the other line gives them. Raises `ConfigError` as `to_set`.
        """
        try:
            self.to_set(volts, width_s)
        except ConfigError as error:
            try:
                self.to_set(-volts, width_s)
            except ConfigError:
                raise error from None

    @abstractmethod
    def swings_v(self, volts: FloatArray, width_s: float) -> tuple[FloatArray, FloatArray]:
        """By how many volts at most (95 %) a pulse that arrives with these levels goes beyond
        them, and beyond rest when it is over, shape (n,) each, not below 0.
        """

    def peaks(self, step: Step, n: int) -> tuple[Step, ...]:
        """What a step puts on its lines at the two worst moments: at the peak of the pulse, and
        when it swings through after it, the gate still up.
        """
        bl, sl = (self._moments(step.levels(line, n), step.width_s) for line in ("bl", "sl"))
        return tuple(replace(step, bl_v=bl[k], sl_v=sl[k]) for k in (0, 1))

    def _moments(
        self, volts: FloatArray | None, width_s: float
    ) -> tuple[FloatArray | None, FloatArray | None]:
        if volts is None:
            return None, None
        beyond, through = self.swings_v(volts, width_s)
        return volts + np.sign(volts) * beyond, -np.sign(volts) * through


@dataclass(frozen=True)
class StatedArrival(Arrival):
    """As the generator's documents have it, where nothing was measured: pulses arrive as they are
    set, and swing by at most `overshoot` of the level and `overshoot_v` more.
    """

    overshoot: float
    overshoot_v: float

    @override
    def to_set(self, volts: FloatArray, width_s: float) -> tuple[FloatArray, FloatArray]:
        """What is asked for."""
        return volts, np.full(volts.shape, width_s)

    @override
    def swings_v(self, volts: FloatArray, width_s: float) -> tuple[FloatArray, FloatArray]:
        """The same beyond the level and beyond rest."""
        most = np.where(volts != 0, np.abs(volts) * self.overshoot + self.overshoot_v, 0.0)
        return most, most
