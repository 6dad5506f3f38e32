"""The temperature that the chip is kept at: what the engine does with a bench's thermostat."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from typing_extensions import override

from rram_hil.array import Wait
from rram_hil.engine.protocol import Arrays, Do, HoldTemperature
from rram_hil.errors import InstrumentError, LimitError
from rram_hil.hardware.thermostat import Thermostat

POLLS = 20
"""Readings while a temperature must stay within its tolerance."""
SHORTEST_POLL_S, LONGEST_POLL_S = 0.5, 10.0
OVERSHOOT_K = 10.0
"""By how much a reading may pass the limits on its way, before a controller counts as run away."""


class Climate(ABC):
    """Something that brings the chip to temperatures from `lowest_k` to `highest_k` (K), the limits
    of the bench file.
    """

    def __init__(self, lowest_k: float, highest_k: float) -> None:
        self.lowest_k, self.highest_k = lowest_k, highest_k

    def check(self, wanted: HoldTemperature) -> None:
        """Refuse a temperature outside the limits. Raises `LimitError`."""
        if not self.lowest_k <= wanted.kelvin <= self.highest_k:
            raise LimitError(
                f"a temperature of {wanted.kelvin:g} K lies outside thermostat.lowest_k to"
                f" thermostat.highest_k, {self.lowest_k:g} to {self.highest_k:g} K",
                line="temperature",
                value=wanted.kelvin,
                allowed=(self.lowest_k, self.highest_k),
            )

    @abstractmethod
    def settle(self, wanted: HoldTemperature, do: Do, now_s: Callable[[], float]) -> Arrays:
        """Come to a temperature, waiting by `do`: `time_s` and `temperature_k`, shape (n,) each."""

    @abstractmethod
    def temperature_k(self) -> float:
        """The temperature now (K); NaN where nobody knows."""


class ThermostatClimate(Climate):
    """A connected thermostat."""

    def __init__(self, thermostat: Thermostat, lowest_k: float, highest_k: float) -> None:
        super().__init__(lowest_k, highest_k)
        self.thermostat = thermostat
        self._began_k: float | None = None  # where it stood when it was first told to go somewhere

    @override
    def check(self, wanted: HoldTemperature) -> None:
        """As `Climate.check`; raises `ConfigError` for what the instrument cannot do."""
        super().check(wanted)
        self.thermostat.check(wanted.kelvin)

    @override
    def settle(self, wanted: HoldTemperature, do: Do, now_s: Callable[[], float]) -> Arrays:
        """Raises `InstrumentError` where the temperature is not steady in time, or is no number or
        beyond the limits of the bench file.
        """
        now_k = self.temperature_k()
        if self._began_k is None:
            self._began_k = now_k
        self.thermostat.hold(wanted.kelvin)
        poll_s = min(max(wanted.steady_s / POLLS, SHORTEST_POLL_S), LONGEST_POLL_S)
        began_s = now_s()
        times: list[float] = []
        readings: list[float] = []
        inside_since_s: float | None = None
        while True:
            time_s, kelvin = now_s() - began_s, self.temperature_k()
            times.append(time_s)
            readings.append(kelvin)
            if not abs(kelvin - wanted.kelvin) <= wanted.tolerance_k:
                inside_since_s = None
            elif inside_since_s is None:
                inside_since_s = time_s
            if inside_since_s is not None and time_s - inside_since_s >= wanted.steady_s:
                return {"time_s": np.array(times), "temperature_k": np.array(readings)}
            if not time_s < wanted.at_most_s:
                raise InstrumentError(
                    f"{self.thermostat.name}: {wanted.kelvin:g} K +- {wanted.tolerance_k:g} K was"
                    f" not steady for {wanted.steady_s:g} s within {wanted.at_most_s:g} s; it reads"
                    f" {kelvin:g} K"
                )
            do(Wait(poll_s, label="temperature"))

    @override
    def temperature_k(self) -> float:
        """Raises `InstrumentError` for one that a chip may not have: a broken sensor or controller
        heats on.
        """
        kelvin = self.thermostat.temperature_k()
        began_k = kelvin if self._began_k is None else self._began_k
        low_k = min(self.lowest_k, began_k) - OVERSHOOT_K
        high_k = max(self.highest_k, began_k) + OVERSHOOT_K
        # An input that is off may read 0 K.
        if not (0 < kelvin < math.inf and low_k <= kelvin <= high_k):
            raise InstrumentError(
                f"{self.thermostat.name}: it reads {kelvin:g} K, and the chip was to stay within"
                f" thermostat.lowest_k and thermostat.highest_k, {self.lowest_k:g} to"
                f" {self.highest_k:g} K"
            )
        return kelvin


class PlannedClimate(Climate):
    """What a plan takes for a thermostat: it is at once where it shall be. How long a real one
    takes is not known; the plan counts the steady time.
    """

    def __init__(self, lowest_k: float, highest_k: float) -> None:
        super().__init__(lowest_k, highest_k)
        self._kelvin = np.nan

    @override
    def settle(self, wanted: HoldTemperature, do: Do, now_s: Callable[[], float]) -> Arrays:
        self._kelvin = wanted.kelvin
        do(Wait(wanted.steady_s, label="temperature"))
        ends = np.array([0.0, wanted.steady_s])
        return {"time_s": ends, "temperature_k": np.full(2, wanted.kelvin)}

    @override
    def temperature_k(self) -> float:
        return self._kelvin
