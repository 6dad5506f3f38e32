"""`scan` of the simulated switch mainframes: a list of steps that the trigger model runs.

After the 707B-901-01 reference manual rev. A (pages 3-1 to 3-9, with a list and its closures; 7-142
`scan.add`, 7-150 `scan.mode` and `scan.reset`, 7-152 `scan.state`, 7-157
`scan.trigger.channel.stimulus`) and rev. B (7-148, 7-153), 3700AS-901-01 rev. D (5-25 events,
11-326 `scan.state`) and 3700S-901-01 rev. C (8-5, 8-7, 13-232, 13-240); names as in the maker's
command index in tm_devices 3.7.0. The mainframes stand without a multimeter: a scan measures
nothing, and `scan.measurecount`, `scan.addwrite`, `scan.trigger.measure` and
`scan.trigger.sequence` are not there, nor is the mode that keeps backplane relays closed.

Unverified: what a detector holds when a scan starts (kept), that a step opens before it closes
whatever the connection rule, the largest scan count, the error of what is asked for while a scan
runs, that a 3706A's steps wait for nothing by default (as the public programs that were read need).
"""

from __future__ import annotations

from typing import Protocol

from .lua_compiler import MOST_STEPS
from .lua_library import text_at
from .lua_values import EndlessError, LuaError, LuaTable, TspError, Value, boolean, number
from .triggers import Course, Events, Process, Stimulus

EMPTY, BUILDING, RUNNING, ABORTED, FAILED, FAILED_INIT, SUCCESS = map(float, range(7))
STATES = {
    "EMPTY": EMPTY,
    "BUILDING": BUILDING,
    "RUNNING": RUNNING,
    "ABORTED": ABORTED,
    "FAILED": FAILED,
    "FAILED_INIT": FAILED_INIT,
    "SUCCESS": SUCCESS,
}
OPEN_ALL, OPEN_SELECTIVE = 0.0, 1.0
MODES = {"MODE_OPEN_ALL": OPEN_ALL, "MODE_OPEN_SELECTIVE": OPEN_SELECTIVE}
EVENTS = ("SCAN_READY", "SCAN_START", "CHANNEL_READY", "SCAN_COMP", "IDLE")
MOST_SCANS = 1_000_000_000
UNDER_WAY = TspError(-221, "Settings conflict; a scan is running")


class Mainframe(Protocol):
    """What a scan needs of the mainframe whose channels it moves. Channels go by their names."""

    events: Events

    def fail(self, error: LuaError | TspError) -> None:
        """Queue what went wrong beside a script."""

    def scannable(self, channels: Value, function: str) -> list[str]:
        """The channels of a channel list, in its order. Raises `TspError`."""

    def closable(self, channel: str) -> list[str]:
        """A channel with what closes with it. Raises `TspError` where it may not close."""

    def closed(self) -> list[str]:
        """What is closed."""

    def move(self, channels: list[str], is_closed: bool) -> float:
        """Move relays now; the time (s) until they have settled."""


class Scan:
    """The scan list and the trigger model. `paces_itself` says whether a step waits for the channel
    ready event of the one before it until scripts choose another stimulus; else for nothing.
    """

    def __init__(self, mainframe: Mainframe, paces_itself: bool) -> None:
        self._mainframe = mainframe
        self._events = mainframe.events
        self._paces_itself = paces_itself
        self._numbers = {name: self._events.new() for name in EVENTS}
        self._process = Process(self._events, self._failed)
        self._arm = Stimulus(self._events, self._process.look)
        self._channel = Stimulus(self._events, self._process.look)
        self.table = self._table()
        self.reset()

    def reset(self) -> None:
        """`scan.reset()`: no list, every setting at its default."""
        self._process.stop()
        self._steps: list[tuple[list[str], list[str]]] = []
        self._state = EMPTY
        self._scans = self._done = 0
        self._bypass = True
        self._mode = OPEN_ALL
        self._count = 1
        self._arm.set(0.0)
        ready = self._numbers["CHANNEL_READY"] if self._paces_itself else 0
        self._channel.set(float(ready))

    def run(self) -> None:
        """Let time pass until no scan is under way. Raises `LuaError` where one would wait for
        ever.
        """
        for _ in range(MOST_STEPS):
            if not self._process.is_running:
                return
            if not self._events.run_next(float("inf")):
                raise LuaError("a scan waits for a trigger that never comes")
        raise EndlessError("a scan does not end")

    # The list

    def _create(self, channels: Value = "", *_: Value) -> None:
        self._check_idle()
        self._steps = []
        self._state = EMPTY
        if text_at(channels, 1, "create").strip():
            self._add(channels)

    def _add(self, channels: Value, *_: Value) -> None:
        """A step for each channel; a forbidden one ends the list there."""
        self._check_idle()
        for name in self._mainframe.scannable(channels, "add"):
            self._steps.append(([name], self._mainframe.closable(name)))

    def _add_image(self, channels: Value, *_: Value) -> None:
        """One step of all the channels."""
        self._check_idle()
        names = self._mainframe.scannable(channels, "addimagestep")
        relays = [relay for name in names for relay in self._mainframe.closable(name)]
        self._steps.append((names, list(dict.fromkeys(relays))))

    def _check_idle(self) -> None:
        if self._process.is_running:
            raise UNDER_WAY

    def _list(self) -> str:
        """The list as `scan.list()` tells it: what each step opens and closes."""
        lines, before = ["Init) OPEN..."], list[str]()
        for at, (names, relays) in enumerate(self._steps, 1):
            lines.append(f"{at}) STEP: {','.join(names)}")
            for word, moved in (("OPEN", _without(before, relays)), ("CLOSE", relays)):
                if moved:
                    lines.append(f"\t{word}: {','.join(moved)}")
            before = relays
        return "\n".join(lines)

    # The trigger model

    def _start(self) -> None:
        """Leave idle, unless there is no list."""
        self._check_idle()
        self._scans = self._done = 0
        self._state = RUNNING if self._steps else EMPTY
        if self._steps:
            self._process.start(self._course())

    def _course(self) -> Course:
        """Open what the mode says, wait for the arm stimulus, then for each step for its own."""
        closed = self._mainframe.closed()
        if self._mode == OPEN_SELECTIVE:
            own = {relay for _, relays in self._steps for relay in relays}
            closed = [relay for relay in closed if relay in own]
        yield self._mainframe.move(closed, False)
        self._fire("SCAN_READY")
        before: list[str] = []
        while self._scans < self._count:
            yield from _event(self._arm)
            self._scans += 1
            self._fire("SCAN_START")
            for at, (_, closing) in enumerate(self._steps):
                if not (self._bypass and self._scans == 1 and at == 0):
                    yield from _event(self._channel)
                yield self._mainframe.move(_without(before, closing), False)
                yield self._mainframe.move(_without(closing, self._mainframe.closed()), True)
                before, self._done = closing, at + 1
                self._fire("CHANNEL_READY")
            self._fire("SCAN_COMP")
        self._state = SUCCESS
        self._fire("IDLE")

    def _failed(self, error: LuaError | TspError) -> None:
        self._state = FAILED
        self._mainframe.fail(error)

    def _fire(self, name: str) -> None:
        self._events.fire(self._numbers[name])

    # Commands

    def _told(self) -> tuple[Value, ...]:
        return self._state, float(self._scans), float(self._done)

    def _execute(self, *_: Value) -> tuple[Value, ...]:
        self._start()
        self.run()
        return self._told()

    def _background(self, *_: Value) -> tuple[Value, ...]:
        self._start()
        return self._told()

    def _abort(self) -> None:
        if self._process.is_running:
            self._process.stop()
            self._state = ABORTED

    def _table(self) -> LuaTable:
        def set_bypass(value: Value) -> None:
            self._bypass = boolean(value)

        def set_mode(value: Value) -> None:
            self._mode = float(int(number(value, 0, len(MODES) - 1)))

        def set_count(value: Value) -> None:
            self._count = int(number(value, 1, MOST_SCANS))

        def clear() -> None:
            self._arm.detected = self._channel.detected = False

        trigger = LuaTable(
            {
                **{f"EVENT_{name}": float(at) for name, at in self._numbers.items()},
                "arm": self._detector(self._arm),
                "channel": self._detector(self._channel),
                "clear": clear,
            },
            sealed=True,
        )
        return LuaTable(
            {
                **STATES,
                **MODES,
                "ON": 1.0,
                "OFF": 0.0,
                "create": self._create,
                "add": self._add,
                "addimagestep": self._add_image,
                "list": self._list,
                "execute": self._execute,
                "nobufferexecute": self._execute,
                "background": self._background,
                "nobufferbackground": self._background,
                "abort": self._abort,
                "reset": self.reset,
                "state": self._told,
                "trigger": trigger,
            },
            {
                "bypass": (lambda: float(self._bypass), set_bypass),
                "mode": (lambda: self._mode, set_mode),
                "scancount": (lambda: float(self._count), set_count),
                "stepcount": (lambda: float(len(self._steps)), None),
            },
            sealed=True,
        )

    def _detector(self, stimulus: Stimulus) -> LuaTable:
        def put() -> None:
            stimulus.detected = True
            self._process.look()

        def clear() -> None:
            stimulus.detected = False

        return LuaTable(
            {"set": put, "clear": clear},
            {"stimulus": (lambda: float(stimulus.number), stimulus.set)},
            sealed=True,
        )


def _event(stimulus: Stimulus) -> Course:
    """Its event, where one is chosen."""
    if stimulus.number:
        yield stimulus


def _without(relays: list[str], others: list[str]) -> list[str]:
    return [relay for relay in relays if relay not in others]
