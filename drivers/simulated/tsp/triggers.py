"""Triggers of simulated TSP instruments: events, detectors, timers, blenders, generators, digital
and TSP-Link lines.

After the Keithley Series 2600B reference manual 2600BS-901-01 (the pages of section 9 on
`smuX.trigger.*` at easymanua.ls). The event IDs of digital lines and of `*TRG` are those of
707B-901-01 rev. B, 7-153. Unverified: the numbers of all others (scripts use their names), how many
timers and blenders there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from typing_extensions import override

from ..array.terminals import Bus, Place
from .lua_compiler import MOST_STEPS
from .lua_values import (
    EndlessError,
    LuaError,
    LuaTable,
    TspError,
    Value,
    boolean,
    number,
    to_number,
)

TIMERS = 8
BLENDERS = 6
GENERATORS = 2
DIGITAL_LINES = 14
LINK_LINES = 3
COMMAND_EVENT = 40
"""`trigger.EVENT_ID`; those of digital lines are the numbers of the lines."""
FIRST_OTHER = 101
MODES = {
    "BYPASS": 0.0,
    "FALLING": 1.0,
    "RISING": 2.0,
    "EITHER": 3.0,
    "SYNCHRONOUSA": 4.0,
    "SYNCHRONOUS": 5.0,
    "SYNCHRONOUSM": 6.0,
    "RISINGA": 7.0,
    "RISINGM": 8.0,
}
SHORTEST_PULSE_S = 10e-6
"""Width of a trigger pulse after a reset. Unverified."""
SHORTEST_DELAY_S = 1e-6
"""Shortest time from one event of a timer to the next. Unverified."""


class Events:
    """Event IDs of one instrument, who listens to them, and what it does at times to come."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._numbers = itertools.count(FIRST_OTHER)
        self._listeners: dict[int, list[Callable[[], None]]] = {}
        self._generation = 0

    def new(self, number: int | None = None) -> int:
        """A new event ID: this one, or one that is left to us."""
        made = next(self._numbers) if number is None else number
        self._listeners[made] = []
        return made

    def knows(self, number: int) -> bool:
        """Whether there is such an event; 0 stands for none."""
        return number == 0 or number in self._listeners

    def listen(self, number: int, action: Callable[[], None]) -> None:
        """Call `action` at each event of this ID."""
        self._listeners[number].append(action)

    def forget(self, number: int, action: Callable[[], None]) -> None:
        """No longer call `action`."""
        if action in self._listeners.get(number, ()):
            self._listeners[number].remove(action)

    def fire(self, number: int) -> None:
        """The event happens now."""
        for action in list(self._listeners[number]):
            action()

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Do something at a time of the virtual clock."""
        generation = self._generation

        def due() -> None:
            if generation == self._generation:
                action()

        self._bus.clock.at(when_s, due)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something so much later."""
        self.at(self._bus.clock.now_s + seconds, action)

    def run_next(self, until_s: float) -> bool:
        """Let time pass to what is due next on the bus, if that is by `until_s`; False where
        nothing is.
        """
        return self._bus.clock.run_next(until_s)

    def drop_due(self) -> None:
        """Forget what this instrument was to do (a reset)."""
        self._generation += 1


class Stimulus:
    """What an object waits for: an event ID that may be changed, latched until it is used."""

    def __init__(self, events: Events, action: Callable[[], None] | None = None) -> None:
        self._events = events
        self._action = action
        self.number = 0
        self.detected = False
        self.overrun = False
        """Whether an event came while the one before it was not yet used."""

    def set(self, value: Value) -> None:
        """Choose the event; 0 for none. Raises `TspError` for an ID that is none."""
        number = to_number(value)
        if number is None or not self._events.knows(int(number)):
            raise TspError(-224, "Illegal Parameter Value")
        self._events.forget(self.number, self._came)
        self.number = int(number)
        self.detected = self.overrun = False
        if self.number:
            self._events.listen(self.number, self._came)

    def take(self) -> bool:
        """Whether the event has come since it was last taken; it is used up."""
        came, self.detected = self.detected, False
        return came

    def _came(self) -> None:
        self.overrun = self.overrun or self.detected
        self.detected = True
        if self._action is not None:
            self._action()


Course = Iterator["Stimulus | float"]
"""What is done beside a script: it stops at each stimulus that it waits for and at each time (s)
that it takes.
"""


class Process:
    """One course at a time beside the scripts of an instrument. `failed` hears what it raises."""

    def __init__(self, events: Events, failed: Callable[[LuaError | TspError], None]) -> None:
        self._events = events
        self._failed = failed
        self._course: Course | None = None
        self._waits_for: Stimulus | None = None

    @property
    def is_running(self) -> bool:
        """Whether a course has begun and not ended."""
        return self._course is not None

    def start(self, course: Course) -> None:
        """Begin, and go on until it first waits."""
        self._course = course
        self._go_on(course)

    def stop(self) -> None:
        """Leave the course where it is, if any."""
        self._course = self._waits_for = None

    def look(self) -> None:
        """A stimulus may have come: go on where it was waited for."""
        if self._course is not None and self._waits_for is not None and self._waits_for.take():
            self._go_on(self._course)

    def _go_on(self, course: Course) -> None:
        if course is not self._course:
            return  # it was stopped meanwhile
        self._waits_for = None
        try:
            for passed, stop in enumerate(course):
                if course is not self._course:
                    return
                if passed > MOST_STEPS:
                    raise EndlessError("a sweep does not end: it was stopped")
                if isinstance(stop, Stimulus):
                    if not stop.take():
                        self._waits_for = stop
                        return
                elif stop > 0:
                    self._events.after(stop, lambda: self._go_on(course))
                    return
            self.stop()
        except (LuaError, TspError) as error:
            self.stop()
            self._failed(error)


class Unit(Protocol):
    """What triggers need of the instrument that has them."""

    globals: LuaTable
    events: Events
    place: Place

    def now_s(self) -> float:
        """Its clock (s)."""

    def elapse(self, seconds: float) -> None:
        """Let time pass."""


class TriggerObject:
    """What all trigger objects have: an event of their own, and a detector that scripts can wait
    for and clear.
    """

    def __init__(self, instrument: Unit, event: int | None = None) -> None:
        self.instrument = instrument
        self.events = instrument.events
        self.event = self.events.new(event)
        self.overrun = False
        self.detected = False
        self.table = LuaTable(
            {"EVENT_ID": float(self.event), "wait": self.wait, "clear": self.clear}
        )
        self.table.define("overrun", lambda: self.overrun)

    def happen(self) -> None:
        """Its event happens."""
        self.overrun = self.detected
        self.detected = True
        self.events.fire(self.event)

    def clear(self) -> None:
        """Forget the event that was detected."""
        self.detected = self.overrun = False

    def wait(self, timeout: Value) -> bool:
        """Wait at most this long (s) for its event; time passes. True if it came."""
        end_s = self.instrument.now_s() + number(timeout, 0.0)
        while not self.detected and self.events.run_next(end_s):
            pass
        if not self.detected:
            self.instrument.elapse(end_s - self.instrument.now_s())
        came, self.detected = self.detected, False
        return came

    def add_stimulus(self, action: Callable[[], None]) -> Stimulus:
        """An attribute `stimulus` that calls `action`."""
        stimulus = Stimulus(self.events, action)
        self.table.define("stimulus", lambda: float(stimulus.number), stimulus.set)
        return stimulus

    def reset(self) -> None:
        """Settings at their defaults."""
        self.clear()


class Line(TriggerObject):
    """A digital or TSP-Link trigger line. `pulse` tells the world of a pulse that this instrument
    gives.
    """

    def __init__(
        self, instrument: Unit, pulse: Callable[[], None], event: int | None = None
    ) -> None:
        super().__init__(instrument, event)
        self._pulse = pulse
        self.mode = 0.0
        self.width_s = SHORTEST_PULSE_S
        self.level = True
        self._stimulus = self.add_stimulus(self.assert_)
        self.table.fill({"assert": self.assert_, "release": lambda: None, "reset": self.reset})

        def mode(value: Value) -> None:
            number = to_number(value)
            if number not in MODES.values():
                raise TspError(1800, "Invalid Digital Trigger Mode")
            self.mode = float(number or 0.0)

        def width(value: Value) -> None:
            self.width_s = number(value, 0.0, 20.0)

        self.table.define("mode", lambda: self.mode, mode)
        self.table.define("pulsewidth", lambda: self.width_s, width)
        self.table.sealed = True

    def assert_(self) -> None:
        """Pulse the line."""
        self._pulse()

    def came(self) -> None:
        """Another instrument has pulsed the line: both edges. In bypass mode nothing is
        detected.
        """
        if self.mode:
            self.happen()

    @override
    def reset(self) -> None:
        super().reset()
        self.mode, self.width_s = 0.0, SHORTEST_PULSE_S
        self._stimulus.set(0.0)


class Timer(TriggerObject):
    """`trigger.timer[N]`: after its stimulus, `count` events `delay` apart; with `passthrough` one
    at once too.
    """

    def __init__(self, instrument: Unit) -> None:
        super().__init__(instrument)
        self._stimulus = self.add_stimulus(self.start)
        self.table.set("reset", self.reset)
        self._default()

        def delay(value: Value) -> None:
            self.delays = [number(value, 0.0, 100_000.0)]

        def delays(value: Value) -> None:
            if not isinstance(value, LuaTable) or not value.length():
                raise TspError(-224, "Illegal Parameter Value")
            self.delays = [
                number(value.get(at + 1), 0.0, 100_000.0) for at in range(value.length())
            ]

        def count(value: Value) -> None:
            self.count = int(number(value, 0, 1_048_575))

        def passthrough(value: Value) -> None:
            self.passthrough = boolean(value)

        self.table.define("delay", lambda: self.delays[0], delay)
        self.table.define(
            "delaylist", lambda: LuaTable({n + 1: d for n, d in enumerate(self.delays)}), delays
        )
        self.table.define("count", lambda: float(self.count), count)
        self.table.define("passthrough", lambda: self.passthrough, passthrough)
        self.table.sealed = True

    def _default(self) -> None:
        self.delays = [SHORTEST_PULSE_S]
        self.count = 1
        self.passthrough = False

    def start(self) -> None:
        """The stimulus came. A count of 0 repeats until the timer is reset."""
        when_s = self.instrument.place.bus.clock.now_s
        if self.passthrough:
            self.happen()
        self._schedule(when_s, 0)

    def _schedule(self, from_s: float, done: int) -> None:
        if self.count and done >= self.count:
            return
        when_s = from_s + max(self.delays[done % len(self.delays)], SHORTEST_DELAY_S)
        generation = self._generation

        def due() -> None:
            if generation == self._generation:
                self.happen()
                self._schedule(when_s, done + 1)

        self.events.at(when_s, due)

    _generation = 0

    @override
    def reset(self) -> None:
        """Reset; what is due no longer happens."""
        super().reset()
        self._generation += 1
        self._default()
        self._stimulus.set(0.0)


class Blender(TriggerObject):
    """`trigger.blender[N]`: its event happens when any (`orenable`) or all of its four stimuli have
    come.
    """

    def __init__(self, instrument: Unit) -> None:
        super().__init__(instrument)
        self.either = False
        self._stimuli = [Stimulus(self.events, self._look) for _ in range(4)]
        self.table.set("stimulus", _StimulusTable(self._stimuli))
        self.table.set("reset", self.reset)

        def either(value: Value) -> None:
            self.either = boolean(value)

        self.table.define("orenable", lambda: self.either, either)
        self.table.sealed = True

    def _look(self) -> None:
        used = [s for s in self._stimuli if s.number]
        if used and (any if self.either else all)(s.detected for s in used):
            for stimulus in used:
                stimulus.detected = False
            self.happen()

    @override
    def reset(self) -> None:
        super().reset()
        self.either = False
        for stimulus in self._stimuli:
            stimulus.set(0.0)


class _StimulusTable(LuaTable):
    """`trigger.blender[N].stimulus[M]`."""

    def __init__(self, stimuli: list[Stimulus]) -> None:
        super().__init__()
        self._stimuli = stimuli

    def _find(self, key: Value) -> Stimulus:
        at = to_number(key)
        if at is None or not 1 <= at <= len(self._stimuli):
            raise TspError(-222, "Parameter Data Out of Range")
        return self._stimuli[int(at) - 1]

    @override
    def get(self, key: Value) -> Value:
        return float(self._find(key).number)

    @override
    def set(self, key: Value, value: Value) -> None:
        self._find(key).set(value)


class Triggers:
    """All trigger objects of one instrument, put into its globals: `trigger`, `digio`,
    `tsplink.trigger`.
    """

    def __init__(self, instrument: Unit) -> None:
        self.instrument = instrument
        self.command = TriggerObject(instrument, COMMAND_EVENT)
        self.timers = [Timer(instrument) for _ in range(TIMERS)]
        self.blenders = [Blender(instrument) for _ in range(BLENDERS)]
        self.generators = [self._generator() for _ in range(GENERATORS)]
        self.lines: list[Line] = []
        self.links: list[Line] = []
        trigger = self.command.table
        trigger.fill(
            {
                "timer": _listed(self.timers),
                "blender": _listed(self.blenders),
                "generator": _listed(self.generators),
            }
        )
        instrument.globals.set("trigger", trigger)

    def _generator(self) -> TriggerObject:
        made = TriggerObject(self.instrument)
        made.table.set("assert", made.happen)
        made.add_stimulus(made.happen)
        return made

    def add_digital_lines(self) -> None:
        """`digio`: lines wired through the bus, pins (name of the instrument, line)."""
        bus, name = self.instrument.place.bus, self.instrument.place.name
        for at in range(1, DIGITAL_LINES + 1):
            made = Line(self.instrument, lambda at=at: bus.pulse((name, at)), at)  # type: ignore[misc]
            bus.listen((name, at), made.came)
            self.lines.append(made)

        self.instrument.globals.set("digio", _port(LuaTable(), self.lines))

    def add_link_lines(self) -> None:
        """`tsplink.trigger`: three lines that all nodes share."""

        def pulse(at: int) -> None:
            for node in self.instrument.place.bus.nodes.values():
                if node is not self.instrument and node.triggers.links:
                    node.triggers.links[at].came()

        self.links = [Line(self.instrument, lambda at=at: pulse(at)) for at in range(LINK_LINES)]  # type: ignore[misc]
        _port(self.instrument.globals.get("tsplink"), self.links)

    def reset(self) -> None:
        """All settings at their defaults; what is due no longer happens."""
        self.instrument.events.drop_due()
        for each in (
            self.command,
            *self.timers,
            *self.blenders,
            *self.generators,
            *self.lines,
            *self.links,
        ):
            each.reset()


def _listed(objects: list[Line] | list[Timer] | list[Blender] | list[TriggerObject]) -> LuaTable:
    return LuaTable({at + 1: each.table for at, each in enumerate(objects)}, sealed=True)


def _port(table: LuaTable, lines: list[Line]) -> LuaTable:
    """Let a table have these lines: each as a trigger, all as the bits of a port."""
    protected = 0.0

    def line(at: Value) -> Line:
        number_ = to_number(at)
        if number_ is None or not 1 <= number_ <= len(lines):
            raise TspError(1801, "Invalid digital I/O Line")
        return lines[int(number_) - 1]

    def put(each: Line, level: bool) -> None:
        if not int(protected) >> lines.index(each) & 1:
            each.level = level

    def write_port(value: Value) -> None:
        whole = int(to_number(value) or 0.0)
        for n, each in enumerate(lines):
            put(each, bool(whole >> n & 1))

    def protect(value: Value) -> None:
        nonlocal protected
        protected = number(value, 0, (1 << len(lines)) - 1)

    table.fill(
        {
            **{f"TRIG_{name}": mode for name, mode in MODES.items()},
            "trigger": _listed(lines),
            "readbit": lambda at: float(line(at).level),
            "writebit": lambda at, value: put(line(at), to_number(value) not in (0.0, None)),
            "readport": lambda: float(sum(each.level << n for n, each in enumerate(lines))),
            "writeport": write_port,
        }
    )
    table.define("writeprotect", lambda: protected, protect)
    return table
