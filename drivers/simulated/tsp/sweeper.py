"""The trigger model of one channel of the simulated Series 2600B: arm layer, trigger layer, source,
measure and pulse actions.

After the reference manual 2600BS-901-01 (section 4, "Using the remote trigger model", and the pages
of section 9 on `smuX.trigger.*` at easymanua.ls). A sweep is a generator that stops where the model
waits for an event. Asynchronous measuring happens where synchronous would. Unverified: what a
logarithmic asymptote does, that a count of 0 is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .buffer import Buffer
from .lua_values import LuaError, LuaTable, TspError, Value, number
from .smu import BUSY, Smu
from .triggers import Course, Process, Stimulus

EVENTS = (
    "SWEEPING",
    "ARMED",
    "SOURCE_COMPLETE",
    "MEASURE_COMPLETE",
    "PULSE_COMPLETE",
    "SWEEP_COMPLETE",
    "IDLE",
)
LAYERS = ("arm", "source", "measure", "endpulse")


class Sweeper:
    """The trigger model of a channel, put into `smuX.trigger`, `smuX.abort`."""

    def __init__(self, smu: Smu) -> None:
        self.smu = smu
        self.events = smu.instrument.events
        self.ids = {name: self.events.new() for name in EVENTS}
        self._process = Process(self.events, self._failed)
        self.stimuli = {name: Stimulus(self.events, self._came) for name in LAYERS}
        self.default()
        trigger = smu.table.get("trigger")
        self._fill(trigger)
        smu.table.set("abort", self.abort)
        smu.table.sealed = True

    def default(self) -> None:
        """Settings after a reset; a sweep in progress ends."""
        self.abort()
        self.levels: list[float] = []
        self.kind = "v"
        self.limits: dict[str, float | None] = {"v": None, "i": None}
        self.counts = {"arm": 1, "trigger": 1}
        self.actions = {"source": 0, "measure": 0, "endpulse": 1, "endsweep": 0}
        self.kinds = ""
        self.buffers: list[Buffer] = []
        self.autoclear = False
        for stimulus in self.stimuli.values():
            stimulus.set(0.0)

    @property
    def is_running(self) -> bool:
        """Whether a sweep has begun and not ended."""
        return self._process.is_running

    def initiate(self) -> None:
        """`initiate()`. Raises `TspError` where an action lacks its configuration or the output is
        off.
        """
        if self.is_running or self.smu.overlapped.is_running:
            raise BUSY
        if self.actions["source"] and not self.levels:
            raise TspError(5059, "trigger.source.action enabled without configuration")
        if self.actions["measure"] and not self.kinds:
            raise TspError(5060, "trigger.measure.action enabled without configuration")
        if self.actions["source"] and self.smu.output != 1:
            raise TspError(5061, "Operation not permitted while OUTPUT is off")
        if self.autoclear:
            for stimulus in self.stimuli.values():
                stimulus.detected = False
        for buffer in self.buffers:
            buffer.begin()
        self.smu.overruns = 0
        for stimulus in self.stimuli.values():
            stimulus.overrun = False
        self._process.start(self._sweep())

    def abort(self) -> None:
        """`abort()`: the sweep ends, the level goes back to idle."""
        if self.is_running:
            self._process.stop()
            self._mark(False)
            self._idle()

    def _came(self) -> None:
        self._process.look()
        self.smu.overruns = sum(
            self.stimuli[layer].overrun << at for at, layer in enumerate(LAYERS, start=1)
        )

    def _failed(self, error: LuaError | TspError) -> None:
        self._mark(False)
        self._idle()
        self.smu.instrument.fail(error)

    def _wait(self, layer: str) -> Course:
        stimulus = self.stimuli[layer]
        if stimulus.number:
            yield stimulus

    def _sweep(self) -> Course:
        smu, fire = self.smu, self.events.fire
        self._mark(True)
        fire(self.ids["SWEEPING"])
        step = 0
        for _ in range(self.counts["arm"] or 1_000_000):
            yield from self._wait("arm")
            fire(self.ids["ARMED"])
            for _ in range(self.counts["trigger"]):
                yield from self._wait("source")
                if self.actions["source"]:
                    self._step(step)
                    step += 1
                yield smu.delay_s("source delay") if self.actions["source"] else 0.0
                fire(self.ids["SOURCE_COMPLETE"])
                yield from self._wait("measure")
                if self.actions["measure"]:
                    yield from smu.readings(self.kinds, self.buffers)
                    fire(self.ids["MEASURE_COMPLETE"])
                yield from self._wait("endpulse")
                if self.actions["source"] and self.actions["endpulse"] == 0:
                    self._idle()
                fire(self.ids["PULSE_COMPLETE"])
            if self.actions["endsweep"] == 0:
                self._idle()
            fire(self.ids["SWEEP_COMPLETE"])
        self._mark(False)
        fire(self.ids["IDLE"])

    def _mark(self, is_sweeping: bool) -> None:
        self.smu.is_sweeping = is_sweeping
        self.smu.instrument.look()

    def _step(self, step: int) -> None:
        smu = self.smu
        level = self.levels[step % len(self.levels)]
        if self.kind != smu.sourced:
            raise TspError(5009, "Unknown sourcing function")
        limited = "i" if self.kind == "v" else "v"
        limit = self.limits[limited]
        before = smu.limit[limited]
        if limit is not None:
            smu.limit[limited] = limit
        try:
            smu.check_level(self.kind, level)
            smu.override = level
            smu.apply()
        finally:
            smu.limit[limited] = before

    def _idle(self) -> None:
        self.smu.override = None
        self.smu.apply()

    # The tables

    def _fill(self, trigger: LuaTable) -> None:
        for name, number_ in self.ids.items():
            trigger.set(f"{name}_EVENT_ID", float(number_))
        trigger.set("initiate", self.initiate)
        self._count(trigger, "count", "trigger", 1)
        trigger.define("autoclear", lambda: float(self.autoclear), self._set_autoclear)
        arm = LuaTable({"set": lambda: self._set_detected("arm")})
        self._count(arm, "count", "arm", 0)
        tables = {"arm": arm, "source": self._source_table(), "measure": self._measure_table()}
        tables["endpulse"] = LuaTable({"set": lambda: self._set_detected("endpulse")})
        tables["endsweep"] = LuaTable()
        for layer in LAYERS:
            stimulus = self.stimuli[layer]
            tables[layer].define("stimulus", lambda s=stimulus: float(s.number), stimulus.set)  # type: ignore[misc]
        for layer in ("source", "measure", "endpulse", "endsweep"):
            self._action(tables[layer], layer)
        for name, table in tables.items():
            table.sealed = True
            trigger.set(name, table)
        trigger.sealed = True

    def _set_detected(self, layer: str) -> None:
        self.stimuli[layer].detected = True
        self._process.look()

    def _set_autoclear(self, value: Value) -> None:
        self.autoclear = number(value, 0, 1) == 1

    def _count(self, table: LuaTable, name: str, key: str, least: int) -> None:
        def put(value: Value) -> None:
            self.counts[key] = int(number(value, least, 1_000_000))

        table.define(name, lambda: float(self.counts[key]), put)

    def _action(self, table: LuaTable, key: str) -> None:
        def put(value: Value) -> None:
            self.actions[key] = int(number(value, 0, 2 if key == "measure" else 1))

        table.define("action", lambda: float(self.actions[key]), put)

    def _source_table(self) -> LuaTable:
        table = LuaTable({"set": lambda: self._set_detected("source")})
        for kind in ("v", "i"):
            table.set(f"linear{kind}", self._configure(kind, _linear))
            table.set(f"log{kind}", self._configure(kind, _logarithmic))
            table.set(f"list{kind}", self._configure(kind, _listed))
            self._limit(table, kind)
        return table

    def _configure(self, kind: str, make: Callable[..., list[float]]) -> Callable[..., None]:
        def run(*arguments: Value) -> None:
            levels = make(*arguments)
            for level in levels:
                if abs(level) > self.smu.ranges(kind)[-1] * 1.01:
                    raise TspError(1101, "Parameter Too Big")
            self.levels, self.kind = levels, kind

        return run

    def _limit(self, table: LuaTable, kind: str) -> None:
        def put(value: Value) -> None:
            self.limits[kind] = (
                None if value == "auto" else number(value, 0.0, self.smu.ranges(kind)[-1] * 1.01)
            )

        table.define(
            f"limit{kind}", lambda: "auto" if self.limits[kind] is None else self.limits[kind], put
        )

    def _measure_table(self) -> LuaTable:
        table = LuaTable({"set": lambda: self._set_detected("measure")})

        def use(kinds: str) -> Callable[..., None]:
            def run(*buffers: Value) -> None:
                if len(buffers) != len(kinds):
                    raise TspError(1400, f"Expected at least {len(kinds)} parameters")
                self.kinds, self.buffers = kinds, [self.smu.buffer(b) for b in buffers]

            return run

        for kinds in ("v", "i", "r", "p", "iv"):
            table.set(kinds, use(kinds))
        return table


def _linear(start: Value, stop: Value, points: Value) -> list[float]:
    first, last, count = number(start), number(stop), int(number(points, 1, 1_000_000))
    if count == 1:
        return [first]
    return [first + (last - first) * n / (count - 1) for n in range(count)]


def _logarithmic(start: Value, stop: Value, points: Value, asymptote: Value = 0.0) -> list[float]:
    shift = number(asymptote)
    first, last, count = (
        number(start) - shift,
        number(stop) - shift,
        int(number(points, 1, 1_000_000)),
    )
    if first * last <= 0:
        raise TspError(-224, "Illegal Parameter Value")
    if count == 1:
        return [first + shift]
    ratio = math.log(last / first) / (count - 1)
    return [first * math.exp(ratio * n) + shift for n in range(count)]


def _listed(levels: Value) -> list[float]:
    if not isinstance(levels, LuaTable) or not levels.length():
        raise TspError(-224, "Illegal Parameter Value")
    return [number(levels.get(n + 1)) for n in range(levels.length())]
