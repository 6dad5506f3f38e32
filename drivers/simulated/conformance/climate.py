"""Conformance of thermostats."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .station import WARM_K, Station, near, say, sends_nothing

LONG_S = 3600.0


def _holds(station: Station) -> None:
    thermostat = station.instrument
    cold_k = thermostat.temperature_k()
    station.on()
    near(thermostat.set_point_k(), WARM_K, 0.0, 0.1, "set point read back (K)")
    say(not thermostat.is_off(), "is_off says off while a temperature is held")
    with station.simulator.place.bus.lock:
        station.simulator.place.bus.clock.advance(LONG_S)
    near(thermostat.temperature_k(), WARM_K, 0.0, 0.5, "temperature after an hour (K)")
    station.make_safe()
    with station.simulator.place.bus.lock:
        station.simulator.place.bus.clock.advance(LONG_S)
    near(thermostat.temperature_k(), cold_k, 0.0, 0.5, "temperature an hour after it went off (K)")


def _refuses_temperatures(station: Station) -> None:
    thermostat = station.instrument
    low_k, high_k = thermostat.range_k
    say(0 < low_k < high_k < math.inf, f"a range of {low_k} to {high_k} K")
    for kelvin in (math.nan, math.inf, low_k - 1.0, high_k + 1.0):
        sends_nothing(station, f"{kelvin} K", partial(thermostat.hold, kelvin))
    say(thermostat.is_off(), "a refused temperature is held")


def _other_temperature(station: Station) -> None:
    """A second temperature takes the place of the first, with no power off between."""
    station.on()
    station.instrument.hold(WARM_K + 10.0)
    near(station.instrument.set_point_k(), WARM_K + 10.0, 0.0, 0.1, "second set point (K)")
    say(station.outputs_on, "the power is off after a second temperature")
    station.make_safe()


THERMOSTAT: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("holds a temperature and tells it", _holds),
    ("refuses temperatures that it has not", _refuses_temperatures),
    ("goes from one temperature to the next", _other_temperature),
)
