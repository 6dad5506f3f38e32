"""Conformance of oscilloscopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from rram_hil.errors import InstrumentError

from .station import SCREEN, Station, near, raised, say, sends_nothing

WAIT_S = 0.05


def _keeps_settings(station: Station) -> None:
    scope = station.instrument
    for channel in scope.channels:
        for input_ohm in scope.limits(channel).inputs:
            asked = replace(SCREEN, coupling="AC", input_ohm=input_ohm, probe=10.0)
            scope.configure(channel, asked)
            told = scope.settings(channel)
            near(told.range_v, asked.range_v, 1e-3, 0.0, "screen (V)")
            near(told.offset_v, asked.offset_v, 1e-3, 0.0, "middle of the screen (V)")
            near(told.probe, asked.probe, 1e-3, 0.0, "probe")
            say((told.coupling, told.input_ohm) == ("AC", input_ohm), f"settings {told}")


def _refuses_settings(station: Station) -> None:
    scope, limits = station.instrument, station.instrument.limits(station.channel)
    for wrong in (
        replace(SCREEN, range_v=math.nan),
        replace(SCREEN, range_v=1.1 * limits.largest_range_v),
        replace(SCREEN, range_v=0.9 * limits.smallest_range_v),
        replace(SCREEN, offset_v=math.inf),
        replace(SCREEN, input_ohm=75.0),
        replace(SCREEN, probe=0.0),
    ):
        sends_nothing(station, f"{wrong}", partial(scope.configure, station.channel, wrong))
    sends_nothing(station, "a channel", partial(scope.configure, "9", SCREEN))
    say(0 < limits.rise_s < 1e-6 and limits.most_samples >= 1000, f"limits {limits}")


def _says_that_nothing_came(station: Station) -> None:
    station.on()
    take = partial(station.instrument.record, station.channel, 1000, WAIT_S)
    error = raised(InstrumentError, take, "a record without a trigger")
    say("never triggered" in str(error), f"what is said of no trigger: {error}")
    say(station.instrument.is_off(), "it still waits after it was given up")


OSCILLOSCOPE: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("keeps its settings", _keeps_settings),
    ("refuses settings that it has not", _refuses_settings),
    ("says that no trigger came", _says_that_nothing_came),
)
