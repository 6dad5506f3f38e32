"""Conformance of source-meters: settings, refusals, readings and their status, sweeps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from rram_hil.array import Status
from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.hardware.instrument import Function, Readings, SourceSetup
from rram_hil.types import FloatArray

from .station import (
    LOAD_OHM,
    VOLTS,
    Station,
    are_right,
    is_quiet,
    near,
    raised,
    say,
    sends_nothing,
    source_setup,
)


def _settings_keep_precision(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        limits = instrument.limits(channel)
        odd_s = min(max(1.2345678e-3, limits.shortest_aperture_s), limits.longest_aperture_s)
        for function, compliance, ranges, measures in (
            (
                Function.VOLTAGE,
                limits.smallest_compliance_a,
                limits.voltage_ranges_v,
                limits.current_ranges_a,
            ),
            (
                Function.CURRENT,
                limits.smallest_compliance_v,
                limits.current_ranges_a,
                limits.voltage_ranges_v,
            ),
        ):
            for aperture_s, settle_s in ((limits.shortest_aperture_s, 0.0), (odd_s, 1.2345678e-3)):
                setup = SourceSetup(
                    function, compliance, ranges[0], measures[0], aperture_s, settle_s
                )
                where = f"channel {channel}, {function} source"
                instrument.configure(channel, setup)
                held = instrument.settings(channel)
                say(
                    held.function == function,
                    f"{where}: the function reads back as {held.function}",
                )
                near(held.compliance, compliance, 1e-4, 0.0, f"{where}: smallest compliance")
                near(held.aperture_s, aperture_s, 0.01, 0.0, f"{where}: aperture")
                near(held.settle_s, settle_s, 0.01, 0.0, f"{where}: settling time")
                say(
                    held.source_range is not None,
                    f"{where}: the source range reads back as automatic",
                )
                near(
                    float(held.source_range or 0),
                    ranges[0],
                    1e-3,
                    0.0,
                    f"{where}: smallest source range",
                )
                if held.measure_range is not None:
                    say(
                        held.measure_range >= 0.999 * measures[0],
                        f"{where}: measuring range {held.measure_range}",
                    )
                level = 0.5123456789 * ranges[0]
                instrument.source(channel, level)
                instrument.output(channel, True)
                driven = station.driven(channel)
                say(
                    driven.function == function.value,
                    f"{where}: the terminal is driven as {driven}",
                )
                near(
                    driven.level,
                    level,
                    0.0,
                    5e-5 * ranges[0],
                    f"{where}: the level at the terminal",
                )
                near(driven.limit, compliance, 1e-3, 0.0, f"{where}: the limit at the terminal")
                instrument.output(channel, False)
                say(
                    is_quiet(station.driven(channel)),
                    f"{where}: the output is off, the terminal is driven",
                )
        sense = replace(source_setup(instrument, channel), remote_sense=True)
        instrument.configure(channel, sense)
        say(
            instrument.settings(channel).remote_sense,
            f"channel {channel}: four-wire sensing does not read back",
        )
        instrument.configure(channel, replace(sense, remote_sense=False))
        say(
            not instrument.settings(channel).remote_sense,
            f"channel {channel}: two-wire sensing does not read back",
        )
    station.make_safe()


def _automatic_ranges(station: Station) -> None:
    instrument, channel = station.instrument, station.channel
    instrument.configure(
        channel, replace(source_setup(instrument, channel), source_range=None, measure_range=None)
    )
    held = instrument.settings(channel)
    say(held.source_range is None, f"an automatic source range reads back as {held.source_range}")
    say(
        held.measure_range is None,
        f"an automatic measuring range reads back as {held.measure_range}",
    )
    instrument.source(channel, VOLTS)
    instrument.output(channel, True)
    are_right(instrument.measure(channel), VOLTS, "measure with automatic ranges")
    station.make_safe()


def _refuses_before_sending(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        limits, good = instrument.limits(channel), source_setup(instrument, channel)
        bad = {
            "compliance NaN": replace(good, compliance=math.nan),
            "no compliance": replace(good, compliance=0.0),
            "compliance too high": replace(good, compliance=2 * limits.max_a),
            "source range too high": replace(good, source_range=2 * limits.max_v),
            "aperture NaN": replace(good, aperture_s=math.nan),
            "aperture too short": replace(good, aperture_s=limits.shortest_aperture_s / 3),
            "aperture too long": replace(good, aperture_s=limits.longest_aperture_s * 3),
            "settling time below zero": replace(good, settle_s=-1.0),
            "compliance in volts too high": replace(
                good,
                function=Function.CURRENT,
                compliance=2 * limits.max_v,
                source_range=None,
                measure_range=None,
            ),
        }
        for what, setup in bad.items():
            sends_nothing(
                station,
                f"channel {channel}: {what}",
                partial(instrument.configure, channel, setup),
            )
        instrument.configure(channel, good)
        for level in (math.nan, math.inf, 2 * limits.max_v, -2 * limits.max_v):
            sends_nothing(
                station,
                f"channel {channel}: level {level}",
                partial(instrument.source, channel, level),
            )
    instrument.configure(station.channel, good)
    instrument.output(station.channel, True)
    for what, act in {
        "a channel that is none": lambda: instrument.configure("no such channel", good),
        "a list with a NaN": lambda: instrument.list_sweep(
            station.channel, np.array([0.0, math.nan])
        ),
        "a list beyond the range": lambda: instrument.list_sweep(
            station.channel, np.array([0.0, 2 * limits.max_v])
        ),
        "an empty list": lambda: instrument.list_sweep(station.channel, np.zeros(0)),
        "a sweep beyond the range": lambda: instrument.sweep(
            station.channel, 0.0, 2 * limits.max_v, 5
        ),
        "a sweep of no point": lambda: instrument.sweep(station.channel, 0.0, VOLTS, 0),
        "a sweep of too many points": lambda: instrument.sweep(station.channel, 0.0, VOLTS, 10**8),
    }.items():
        sends_nothing(station, what, act)
    station.make_safe()


def _reading_status(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        setup = source_setup(instrument, channel)
        instrument.configure(channel, setup)
        for level in (VOLTS, -VOLTS):
            instrument.source(channel, level)
            instrument.output(channel, True)
            are_right(instrument.measure(channel), level, f"channel {channel} at {level} V")
        compliance = VOLTS / LOAD_OHM / 4
        instrument.configure(
            channel, replace(setup, compliance=compliance, measure_range=compliance)
        )
        for sign in (1, -1):
            instrument.source(channel, sign * VOLTS)
            instrument.output(channel, True)
            reading = instrument.measure(channel)
            where = f"channel {channel} at compliance"
            say(
                reading.status[0] == Status.COMPLIANCE,
                f"{where}: status {reading.status}, {reading.amps} A",
            )
            near(float(reading.amps[0]), sign * compliance, 0.02, 1e-8, f"{where}: current")
            near(float(reading.volts[0]), sign * VOLTS / 4, 0.05, 2e-3, f"{where}: voltage")
        instrument.output(channel, False)
        # The current limits the resistor's voltage: compliance of a current source.
        current = SourceSetup(Function.CURRENT, 0.5, 1e-4, 1.0, setup.aperture_s)
        instrument.configure(channel, current)
        for level, status in ((VOLTS / LOAD_OHM, Status.OK), (1e-4, Status.COMPLIANCE)):
            instrument.source(channel, level)
            instrument.output(channel, True)
            reading = instrument.measure(channel)
            where = f"channel {channel}, current source of {level} A"
            say(reading.status[0] == status, f"{where}: status {reading.status}, {reading.volts} V")
            near(
                float(reading.volts[0]), min(level * LOAD_OHM, 0.5), 0.02, 2e-3, f"{where}: voltage"
            )
        instrument.output(channel, False)
    station.make_safe()


def _never_a_wrong_number(station: Station) -> None:
    """A current beyond the fixed measuring range: refused, or no OK reading, or a right one."""
    instrument, channel = station.instrument, station.channel
    low = next(r for r in instrument.limits(channel).current_ranges_a if r > 5e-7)
    try:
        instrument.configure(
            channel, replace(source_setup(instrument, channel), compliance=1e-3, measure_range=low)
        )
        instrument.source(channel, 1.0)
        instrument.output(channel, True)
        reading = instrument.measure(channel)
    except (ConfigError, InstrumentError):
        station.make_safe()
        return
    status, amps = Status(reading.status[0]), float(reading.amps[0])
    if status == Status.OVER_RANGE:
        say(math.isnan(amps), f"over range, but the current reads {amps}")
    elif status == Status.COMPLIANCE:
        say(abs(amps) <= 1.3e-3, f"at compliance with {amps} A")
    else:
        near(
            amps,
            1.0 / LOAD_OHM,
            0.01,
            0.0,
            f"a current beyond the measuring range, with status {status.name}",
        )
    station.make_safe()


def _output_off_is_no_reading(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        instrument.configure(channel, source_setup(instrument, channel))
        what = f"channel {channel}: a reading with the output off"
        raised(InstrumentError, partial(instrument.measure, channel), what)
        say(is_quiet(station.driven(channel)) and not station.outputs_on, f"{what} switched it on")
    station.make_safe()


def _output_off_state(station: Station) -> None:
    """Open relay or zero volts, as the bench file says; a state that the family has not is
    refused.
    """
    for state in ("high-impedance", "zero"):
        station.make_safe()
        station.instrument.close()
        try:
            station.instrument = station.driver(output_off=state)
        except ValueError:
            say(state != "high-impedance", "an output that is off cannot be open")
            continue
        station.instrument.connect()
        station.on()
        station.instrument.output(station.channel, False)
        driven = station.driven(station.channel)
        say(is_quiet(driven), f"{state}: an output that is off drives {driven}")
        say(
            (driven.function == "off") == (state == "high-impedance"),
            f"{state}: an output that is off is {driven}",
        )
    station.make_safe()


def _configure_leaves_the_output(station: Station) -> None:
    station.on()
    instrument, channel = station.instrument, station.channel
    instrument.configure(channel, source_setup(instrument, channel))
    drive = station.driven(channel)
    say(
        drive.level == 0.0 and drive.function == "voltage",
        f"after configure of a channel that is on it drives {drive}",
    )
    for other in instrument.channels[1:]:
        say(is_quiet(station.driven(other)), f"channel {other} was switched on with {channel}")
    station.make_safe()


def _sweeps(station: Station) -> None:
    instrument = station.instrument
    for channel in instrument.channels:
        instrument.configure(channel, source_setup(instrument, channel))
        instrument.output(channel, True)
        ramp = np.linspace(-VOLTS, VOLTS, 21)
        levels = VOLTS * np.cos(np.arange(31) * 2.0)
        single = np.array([VOLTS / 3])
        runs: tuple[tuple[str, Callable[[], Readings], FloatArray], ...] = (
            ("sweep", partial(instrument.sweep, channel, -VOLTS, VOLTS, 21), ramp),
            ("list", partial(instrument.list_sweep, channel, levels), levels),
            ("list of one", partial(instrument.list_sweep, channel, single), single),
            ("sweep down", partial(instrument.sweep, channel, VOLTS, -VOLTS, 21), -ramp),
        )
        for what, act, wanted in runs:
            turns = station.server.transactions
            readings = act()
            turns = station.server.transactions - turns
            where = f"channel {channel}: {what}"
            are_right(readings, wanted, where)
            say(
                (np.diff(readings.time_s) > 0).all(),
                f"{where}: times do not grow: {readings.time_s[:5]}",
            )
            say(
                turns <= 2,
                f"{where}: {turns} transactions, should be one to run and fetch, at most one to"
                " set up",
            )
            say(
                abs(station.driven(channel).level) == 0.0,
                f"{where}: afterwards {station.driven(channel)}",
            )
        instrument.output(channel, False)
    station.make_safe()


def _sweeps_cross_ranges(station: Station) -> None:
    """With automatic ranges a sweep or a list goes from the lowest ranges to higher ones."""
    instrument, channel = station.instrument, station.channel
    limits = instrument.limits(channel)
    top = min(5.0, max(v for v, a in limits.envelope if a >= 1e-3))
    setup = replace(
        source_setup(instrument, channel), source_range=None, measure_range=None, compliance=1e-3
    )
    instrument.configure(channel, setup)
    instrument.output(channel, True)
    ramp = np.linspace(0.0, top, 11)
    levels = top * np.array([0.01, -0.9, 0.02, 1.0, -0.005, 0.3])
    are_right(instrument.sweep(channel, 0.0, top, 11), ramp, "a sweep across ranges")
    are_right(instrument.list_sweep(channel, levels), levels, "a list across ranges")
    instrument.output(channel, False)
    instrument.configure(
        channel, SourceSetup(Function.CURRENT, 2 * top, aperture_s=setup.aperture_s)
    )
    instrument.output(channel, True)
    readings = instrument.sweep(channel, 0.0, top / LOAD_OHM, 11)
    are_right(readings, ramp, "a sweep of currents across ranges")
    station.make_safe()


def _compliance_inside_a_sweep(station: Station) -> None:
    instrument, channel = station.instrument, station.channel
    compliance = VOLTS / LOAD_OHM / 2
    setup = replace(
        source_setup(instrument, channel), compliance=compliance, measure_range=compliance
    )
    instrument.configure(channel, setup)
    instrument.output(channel, True)
    levels = np.array([0.1, 0.9, -0.2, -1.0, 0.3]) * VOLTS
    readings = instrument.list_sweep(channel, levels)
    limited = readings.status == Status.COMPLIANCE
    wanted = np.abs(levels) / LOAD_OHM > compliance
    say((limited == wanted).all(), f"compliance in a list: {readings.status}, should be {wanted}")
    say(
        np.allclose(np.abs(readings.amps[wanted]), compliance, rtol=0.02),
        f"currents at compliance: {readings.amps}",
    )
    station.make_safe()


def _stop_at_compliance(station: Station) -> None:
    """A sweep and a list end at their first reading at compliance, level at zero; a family that
    cannot do it refuses the key.
    """
    try:
        stopping = station.driver(stop_at_compliance=True)
    except ValueError:
        return
    station.make_safe()
    station.instrument.close()
    station.instrument = stopping
    stopping.connect()
    stopping.arm()
    for channel in stopping.channels:
        _ends_at_compliance(station, channel)
    station.make_safe()


def _ends_at_compliance(station: Station, channel: str) -> None:
    instrument, load = station.instrument, station.loads[channel]
    good = source_setup(instrument, channel)
    compliance = 0.55 * VOLTS / LOAD_OHM
    setup = replace(good, compliance=compliance, measure_range=compliance)
    # A voltage limit that every family can give is larger.
    currents = SourceSetup(Function.CURRENT, 5.5 * VOLTS, 1e-4, 1.0, setup.aperture_s)
    levels = np.array([0.1, -0.3, -0.9, 0.2, 1.0])
    ramp = np.linspace(0.0, 1.0, 11)
    list_of, sweep = partial(instrument.list_sweep, channel), partial(instrument.sweep, channel)
    runs: tuple[tuple[str, SourceSetup, Callable[[], Readings], FloatArray], ...] = (
        ("list", setup, partial(list_of, levels * VOLTS), levels),
        ("sweep", setup, partial(sweep, 0.0, VOLTS, 11), ramp),
        ("list of currents", currents, partial(list_of, 10 * levels * VOLTS / LOAD_OHM), levels),
        ("list that ends at once", setup, partial(list_of, ramp[::-1] * -VOLTS), -ramp[::-1]),
    )
    for what, chosen, act, parts in runs:
        where, of_amps = f"channel {channel}: {what}", chosen is currents
        instrument.configure(channel, chosen)
        instrument.output(channel, True)
        with station.simulator.place.bus.lock:
            load.largest = 0.0
        readings = act()
        taken = int(np.argmax(np.abs(parts) > 0.55)) + 1
        status = np.full(parts.size, Status.NOT_RUN)
        status[:taken] = Status.OK
        status[taken - 1] = Status.COMPLIANCE
        say(
            np.array_equal(readings.status, status),
            f"{where}: status {readings.status}, should be {status}",
        )
        limit_v = 0.55 * VOLTS * (10 if of_amps else 1)
        for name, limit in (("volts", limit_v), ("amps", limit_v / LOAD_OHM)):
            values = getattr(readings, name)
            say(np.isnan(values[taken:]).all(), f"{where}: {name} of points not taken: {values}")
            near(abs(float(values[taken - 1])), limit, 0.05, 2e-6, f"{where}: {name} at the end")
        forced_v = load.largest * (LOAD_OHM / 10 if of_amps else 1.0)
        wanted_v = float(np.abs(parts[:taken]).max()) * VOLTS
        near(forced_v, wanted_v, 0.01, 1e-4, f"{where}: the largest level that was forced")
        drive = station.driven(channel)
        say(drive.level == 0.0 and drive.function != "off", f"{where}: afterwards {drive}")
        instrument.output(channel, False)
    instrument.configure(channel, good)
    instrument.output(channel, True)
    whole = f"channel {channel}: no limit is met"
    are_right(list_of(levels * VOLTS), levels * VOLTS, f"{whole} in a list")
    are_right(sweep(0.0, VOLTS, 11), ramp * VOLTS, f"{whole} in a sweep")
    instrument.output(channel, False)


def _timeout_follows_the_work(station: Station) -> None:
    """What takes the instrument half a second takes longer than the timeout of the link."""
    station.on()
    instrument, channel = station.instrument, station.channel
    aperture_s = min(0.02, instrument.limits(channel).longest_aperture_s)
    points = math.ceil(0.5 / aperture_s)
    instrument.configure(channel, replace(source_setup(instrument, channel), aperture_s=aperture_s))
    instrument.output(channel, True)
    act, clock = station.simulator.message, station.simulator.place.bus.clock
    slow: list[str] = []

    def message(line: str) -> str | bytes:
        before_s = clock.now_s
        reply = act(line)
        if clock.now_s - before_s > 0.4:
            slow.append(line)
            time.sleep(0.5)
        return reply

    station.simulator.message = message  # type: ignore[method-assign]
    with station.hasty(0.45, instrument.dialog.slack):
        are_right(
            instrument.sweep(channel, 0.0, VOLTS, points),
            np.linspace(0.0, VOLTS, points),
            "a slow sweep",
        )
    say(slow, "a sweep of half a second took no time")
    station.simulator.message = act  # type: ignore[method-assign]
    station.make_safe()


SOURCE_METER: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("settings keep full precision", _settings_keep_precision),
    ("automatic ranges", _automatic_ranges),
    ("refuses before it sends", _refuses_before_sending),
    ("status of readings", _reading_status),
    ("never a wrong number beyond the range", _never_a_wrong_number),
    ("an output that is off is not read", _output_off_is_no_reading),
    ("output-off state", _output_off_state),
    ("configure leaves the output as it is", _configure_leaves_the_output),
    ("sweeps and lists in one transaction", _sweeps),
    ("sweeps and lists cross ranges", _sweeps_cross_ranges),
    ("compliance inside a list", _compliance_inside_a_sweep),
    ("stop at compliance", _stop_at_compliance),
    ("timeouts follow the work", _timeout_follows_the_work),
)
