"""Conformance of switch matrices and pulse generators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from rram_hil.errors import BenchError
from rram_hil.hardware.instrument import PulseSetup

from .station import Station, corners, near, pulse_setup, raised, say, sends_nothing


def _switches(station: Station) -> None:
    matrix = station.instrument
    points = corners(matrix)
    before = matrix.counts(points)
    say(before.shape == (4,), f"counts of 4 crosspoints have the shape {before.shape}")
    turns = station.server.transactions
    matrix.switch(close=points)
    say(station.server.transactions - turns == 1, "switch takes more than one transaction")
    say(
        matrix.closed() == frozenset(points),
        f"closed {points}, read back {sorted(matrix.closed())}",
    )
    say((matrix.counts(points) == before + 1).all(), "the relay counts did not grow by one")
    matrix.switch(close=[points[0]], open=points[1:])
    say(
        matrix.closed() == {points[0]},
        f"{points[0]} alone should be closed: {sorted(matrix.closed())}",
    )
    say(not matrix.is_off(), "is_off with a relay closed")
    say(
        list(matrix.counts(points[::-1]))[:3] == list(before[::-1] + 1)[:3],
        "counts are not in the order asked for",
    )
    matrix.open_all()
    say(
        not matrix.closed() and matrix.is_off() and not station.outputs_on,
        "open_all left a relay closed",
    )
    say(matrix.settle_s > 0, "relays that settle at once")
    before_s = station.simulator.place.bus.clock.now_s
    matrix.switch(close=[points[0]])
    took_s = station.simulator.place.bus.clock.now_s - before_s
    say(
        took_s >= 0.2 * matrix.settle_s,
        f"a relay took {took_s} s, the driver says that it settles in {matrix.settle_s}",
    )
    station.make_safe()


def _refuses_crosspoints(station: Station) -> None:
    matrix = station.instrument
    for point in (
        ("", 1),
        ("Z", 1),
        ("AB", 1),
        (matrix.rows[0], 0),
        (matrix.rows[0], -1),
        (matrix.rows[0], 10**6),
    ):
        sends_nothing(station, f"crosspoint {point}", partial(matrix.switch, close=[point]))
        sends_nothing(station, f"crosspoint {point}", partial(matrix.counts, [point]))
    matrix.switch()
    say(matrix.is_off(), "a relay closed by itself")


SWITCH_MATRIX: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("switches what it is told", _switches),
    ("refuses crosspoints that it has not", _refuses_crosspoints),
)


def _pulses_keep_precision(station: Station) -> None:
    generator = station.instrument
    for channel in generator.channels:
        limits = generator.limits(channel)
        shortest = PulseSetup(
            0.123456789,
            -0.0234567891,
            limits.shortest_s,
            max(limits.shortest_period_s, 4 * limits.shortest_s, 1.23456789e-6),
            limits.shortest_edge_s,
        )
        for setup in (shortest, replace(shortest, load_ohm=50.0), pulse_setup(generator, channel)):
            generator.configure(channel, setup)
            held = generator.settings(channel)
            for name in ("high_v", "low_v"):
                near(
                    getattr(held, name),
                    getattr(setup, name),
                    1e-3,
                    1e-4,
                    f"channel {channel}: {name}",
                )
            for name in ("width_s", "period_s", "edge_s"):
                near(
                    getattr(held, name),
                    getattr(setup, name),
                    1e-5,
                    1e-12,
                    f"channel {channel}: {name}",
                )
            same = held.load_ohm == setup.load_ohm or abs(held.load_ohm / setup.load_ohm - 1) < 1e-6
            say(same, f"channel {channel}: load {held.load_ohm}, should be {setup.load_ohm}")
            say(not station.outputs_on, f"channel {channel}: configure switched the output on")
    station.make_safe()


def _refuses_pulses(station: Station) -> None:
    generator, channel = station.instrument, station.channel
    limits, good = generator.limits(channel), pulse_setup(generator, channel)
    generator.configure(channel, good)
    for what, setup in {
        "level NaN": replace(good, high_v=math.nan),
        "level too high": replace(good, high_v=2.1 * limits.max_open_v),
        "level too high into 50 ohm": replace(
            good, high_v=1.5 * limits.max_50_ohm_v, load_ohm=50.0
        ),
        "width too short": replace(good, width_s=limits.shortest_s / 2),
        "width NaN": replace(good, width_s=math.nan),
        "width longer than the period": replace(good, width_s=2 * good.period_s),
        "edge too short": replace(good, edge_s=limits.shortest_edge_s / 2),
        "edge too long": replace(good, edge_s=limits.longest_edge_s * 2),
    }.items():
        error = sends_nothing(station, what, partial(generator.configure, channel, setup))
        for name in (generator.config.resource, f"channel {channel}"):
            say(name in str(error), f"{what}: the refusal does not name {name}: {error}")
    generator.output(channel, True)
    for count in (0, -1, limits.most_pulses + 1):
        sends_nothing(station, f"{count} pulses", partial(generator.fire, channel, count))
    station.make_safe()


def _fires(station: Station) -> None:
    station.on()
    generator, channel = station.instrument, station.channel
    setup = pulse_setup(generator, channel)
    clock = station.simulator.place.bus.clock
    before_s = clock.now_s
    generator.fire(channel, 1000)
    say(
        clock.now_s - before_s >= 999 * setup.period_s,
        "fire returned before the last pulse was over",
    )
    generator.output(channel, False)
    raised(BenchError, lambda: generator.fire(channel, 1), "fire with the output off")
    station.make_safe()


PULSE_GENERATOR: tuple[tuple[str, Callable[[Station], None]], ...] = (
    ("settings keep full precision", _pulses_keep_precision),
    ("refuses before it sends", _refuses_pulses),
    ("fires a counted number of pulses", _fires),
)
