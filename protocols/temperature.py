"""Bring the chip to a temperature and wait until it stays there: later steps are done at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from rram_hil.engine.protocol import HoldTemperature, Plan, Progress, Protocol, Save, Setting
from rram_hil.hardware.thermostat import ZERO_CELSIUS_K
from rram_hil.report.plots import Chart
from rram_hil.statistics import median
from rram_hil.units import Kelvins, Seconds, Unit
from rram_hil.validation import NotNegativeSeconds, PositiveKelvins, PositiveSeconds


@dataclass(frozen=True)
class TemperatureSummary:
    """The set point, how long it took until the temperature was steady there (s), and the median of
    the readings in the steady time (K).
    """

    set_point_k: Kelvins
    took_s: Seconds
    median_k: Kelvins


class Temperature(Protocol[TemperatureSummary]):
    """Bring the thermostat of the bench to `temperature_k`, or `temperature_c` in degrees Celsius,
    and go on when its reading has stayed within `tolerance_k` for `steady_s`. The run ends with an
    error where that takes longer than `at_most_s`.

    The temperature is held until another such step, or the end of the run, which leaves the
    thermostat off. A resumed run comes back to it before it goes on.
    """

    temperature_k: PositiveKelvins | None = None
    temperature_c: Annotated[float, Unit("degC"), Field(gt=-ZERO_CELSIUS_K)] | None = None
    tolerance_k: PositiveKelvins = 0.5
    steady_s: NotNegativeSeconds = 60.0
    at_most_s: PositiveSeconds = 3600.0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.temperature_k is None) == (self.temperature_c is None):
            raise ValueError("give one of temperature_k (K) and temperature_c (degrees Celsius)")
        if not self.steady_s <= self.at_most_s:
            raise ValueError("steady_s must not be above at_most_s")
        return self

    @property
    def kelvin(self) -> float:
        """The set point (K)."""
        if self.temperature_k is not None:
            return self.temperature_k
        assert self.temperature_c is not None
        return self.temperature_c + ZERO_CELSIUS_K

    def run(self, setting: Setting) -> Plan[TemperatureSummary]:
        """Yields the wait for the temperature; saves its course."""
        yield Progress(0, 1, f"to {self.kelvin:g} K")
        course = yield from HoldTemperature(
            self.kelvin, self.tolerance_k, self.steady_s, self.at_most_s
        )
        time_s, kelvin = course.time_s, course.temperature_k
        chart = Chart("Temperature", "temperature_time_s", label="temperature")
        yield Save("temperature_time_s", time_s, ("reading",), "s")
        yield Save("temperature", kelvin, ("reading",), "K", chart.attrs())
        took_s = float(time_s[-1])
        steady = kelvin[time_s >= took_s - self.steady_s]
        return TemperatureSummary(self.kelvin, took_s, float(median(steady)))
