"""A simulated Keysight B2900A, B2900B or B2900BL: B2901A to B2912A, B2901B to B2912B, B2901BL and
B2910BL.

Written from the "Agilent B2900 SCPI Command Reference", Edition 2: "Data Output Format" (1-12 to
1-14: 9.91E+37 and infinity, status bits, table 1-2), ":FETCh:ARRay?" (4-28: the order of two
channels), "[:SOURce]:LIST" (4-105: 2500 values), "Source Output Ranges" and the status registers
(4-115, 4-116); from the "B2900 User's Guide", Edition 2, 6-27 (ARM-TRIGger model and its sources),
and the B2900A data sheet: page 16 (measuring ranges, over-range at 106 % or 102 %, accuracy) and
page 17 (trigger interval, digital I/O latency). Unverified: the length of the error queue, the
smallest compliance (1 % of the lowest range), voltage settling times, that the level returns to the
immediate one when both actions of a channel are over, that `:FETCh?` waits for the end of an
acquisition, and all figures of the B models (those of the A models, the coarser interval) and of
the BL models (210 V or 21 V, 1.5 A, no pulses, 50 us, as public programs for the B2910BL have it).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import ClassVar

import numpy as np
from typing_extensions import override

from .array.terminals import Drive, Place
from .scpi.instrument import (
    CONFLICT,
    ILLEGAL,
    PARAMETER,
    Call,
    Handler,
    ScpiError,
    ScpiInstrument,
    pair,
)

NAN_TEXT = 9.91e37
INFINITY_TEXT = 9.9e37
ELEMENTS = ("VOLT", "CURR", "RES", "TIME", "STAT", "SOUR")
"""Elements of one measurement in the order in which they are sent."""
LONG_ELEMENTS = ("VOLTage", "CURRent", "RESistance", "TIME", "STATus", "SOURce")
FUNCTIONS = ELEMENTS[:3]
VOLT_RANGES = (0.2, 2.0, 20.0, 200.0)
VOLT_ACCURACY = {
    0.2: (1.5e-4, 225e-6),
    2.0: (2e-4, 350e-6),
    20.0: (1.5e-4, 5e-3),
    200.0: (1.5e-4, 50e-3),
}
CURRENT_ACCURACY = {
    1e-8: (1e-3, 50e-12),
    1e-7: (6e-4, 100e-12),
    1e-6: (2.5e-4, 500e-12),
    1e-5: (2.5e-4, 1.5e-9),
    1e-4: (2e-4, 25e-9),
    1e-3: (2e-4, 200e-9),
    1e-2: (2e-4, 2.5e-6),
    0.1: (2e-4, 20e-6),
    1.0: (3e-4, 1.5e-3),
    1.5: (5e-4, 3.5e-3),
    3.0: (4e-3, 7e-3),
}
SETTLES_S = {0.2: 50e-6, 2.0: 50e-6, 20.0: 110e-6, 200.0: 700e-6}
MOST_LEVELS = 2500


@dataclass(frozen=True)
class _Abilities:
    """What a model has: channels, ranges (V, A), what it gives together, its shortest interval
    (s).
    """

    channels: int
    volts: tuple[float, ...]
    amps: tuple[float, ...]
    envelope: tuple[tuple[float, float], ...]
    shortest_s: float
    pulses: bool = True

    def most(self, what: str) -> float:
        """The largest level of a quantity."""
        return max(pair[what == "CURR"] for pair in self.envelope)


_FINE_AMPS = tuple(CURRENT_ACCURACY)
_AMPS = _FINE_AMPS[1:]
_FULL = ((6.0, 3.03), (21.0, 1.515), (210.0, 0.105))
ABILITIES = {
    "B2901A": _Abilities(1, VOLT_RANGES, _AMPS, _FULL, 20e-6),
    "B2902A": _Abilities(2, VOLT_RANGES, _AMPS, _FULL, 20e-6),
    "B2911A": _Abilities(1, VOLT_RANGES, _FINE_AMPS, _FULL, 10e-6),
    "B2912A": _Abilities(2, VOLT_RANGES, _FINE_AMPS, _FULL, 10e-6),
    "B2901B": _Abilities(1, VOLT_RANGES, _AMPS, _FULL, 20e-6),
    "B2902B": _Abilities(2, VOLT_RANGES, _AMPS, _FULL, 20e-6),
    "B2911B": _Abilities(1, VOLT_RANGES, _FINE_AMPS, _FULL, 20e-6),
    "B2912B": _Abilities(2, VOLT_RANGES, _FINE_AMPS, _FULL, 20e-6),
    "B2901BL": _Abilities(1, VOLT_RANGES[:3], _AMPS[:-1], _FULL[1:2], 50e-6, pulses=False),
    "B2910BL": _Abilities(1, VOLT_RANGES, _FINE_AMPS[:-1], _FULL[1:], 50e-6, pulses=False),
}
PINS = range(1, 15)
BAD_SUFFIX = ScpiError(-114, "Header suffix out of range")
INIT_IGNORED = ScpiError(-213, "Init ignored")
TEXTS = {-222: "Data out of range"}


class _HeldError(Exception):
    """A query waits for a trigger that has not come: nothing more is answered until device
    clear.
    """


_Event = tuple[float, int, Callable[[], set[int]]]
"""When (s), its place among those of one instant, and what happens: the lines that it pulses."""


@dataclass
class _Layer:
    """ARM and TRIGger layer of one action (source transient or acquisition) of one channel."""

    channel: int
    is_acquire: bool
    shortest_s: float
    arm_source: str = "AINT"
    arm_count: int = 1
    arm_delay_s: float = 0.0
    arm_timer_s: float = 0.0
    source: str = "AINT"
    count: int = 1
    delay_s: float = 0.0
    timer_s: float = 0.0
    out_on: bool = False
    out_pins: tuple[int, ...] = ()
    is_initiated: bool = False
    is_armed: bool = False
    is_busy: bool = False
    is_lost: bool = False
    taken: int = 0
    finished: int = 0

    def initiate(self) -> None:
        self.is_initiated, self.is_armed, self.is_busy, self.is_lost = True, False, False, False
        self.taken = self.finished = 0

    @property
    def total(self) -> int:
        return self.arm_count * self.count

    @property
    def left(self) -> int:
        """Triggers still to come before the next arm event."""
        return self.count - self.taken % self.count if self.taken < self.total else 0


@dataclass
class _Pin:
    function: str = "DIO"
    polarity: str = "NEG"
    position: str = "BOTH"
    width_s: float = 100e-6
    kind: str = "EDGE"


@dataclass
class _Output:
    """Source and measuring state of one channel, at its reset values."""

    number: int
    abilities: _Abilities
    line_s: float
    is_on: bool = False
    on_auto: bool = True
    off_auto: bool = False
    off_mode: str = "NORM"
    protects: bool = False
    function: str = "VOLT"
    shape: str = "DC"
    continuous: bool = False
    level: dict[str, float] = field(default_factory=lambda: {"VOLT": 0.0, "CURR": 0.0})
    triggered: dict[str, float] = field(default_factory=lambda: {"VOLT": 0.0, "CURR": 0.0})
    mode: dict[str, str] = field(default_factory=lambda: {"VOLT": "FIX", "CURR": "FIX"})
    source_auto: dict[str, bool] = field(default_factory=lambda: {"VOLT": True, "CURR": True})
    source_range: dict[str, float] = field(default_factory=lambda: {"VOLT": 2.0, "CURR": 1e-6})
    start: dict[str, float] = field(default_factory=lambda: {"VOLT": 0.0, "CURR": 0.0})
    stop: dict[str, float] = field(default_factory=lambda: {"VOLT": 0.0, "CURR": 0.0})
    points: dict[str, int] = field(default_factory=lambda: {"VOLT": 1, "CURR": 1})
    lists: dict[str, list[float]] = field(default_factory=lambda: {"VOLT": [0.0], "CURR": [0.0]})
    direction: str = "UP"
    spacing: str = "LIN"
    stair: str = "SING"
    pulse_delay_s: float = 0.0
    pulse_width_s: float = 50e-6
    limit: dict[str, float] = field(default_factory=lambda: {"VOLT": 2.0, "CURR": 1e-4})
    sense_auto: dict[str, bool] = field(default_factory=lambda: {"VOLT": True, "CURR": True})
    sense_range: dict[str, float] = field(default_factory=lambda: {"VOLT": 2.0, "CURR": 1e-4})
    sense_lowest: dict[str, float] = field(default_factory=lambda: {"VOLT": 0.2, "CURR": 1e-6})
    functions: set[str] = field(default_factory=lambda: {"VOLT", "CURR", "RES"})
    aperture_s: float = 0.0
    aperture_auto: bool = True
    is_remote: bool = False
    sense_waits: bool = True
    source_waits: bool = True
    source_out: bool = False
    source_pins: tuple[int, ...] = ()
    sense_out: bool = False
    sense_pins: tuple[int, ...] = ()
    now: float = 0.0
    data: list[tuple[float, ...]] = field(default_factory=list)
    trace: list[tuple[float, ...]] = field(default_factory=list)
    trace_points: int = 100000
    trace_control: str = "NEV"

    def __post_init__(self) -> None:
        self.aperture_s = 0.1 * self.line_s
        shortest_s = self.abilities.shortest_s
        self.tran = _Layer(
            self.number,
            False,
            shortest_s,
            timer_s=shortest_s,
            arm_timer_s=shortest_s,
        )
        self.acq = _Layer(self.number, True, shortest_s, timer_s=shortest_s, arm_timer_s=shortest_s)

    def other(self) -> str:
        """What the compliance limits."""
        return "CURR" if self.function == "VOLT" else "VOLT"

    def ranges(self, what: str) -> tuple[float, ...]:
        return self.abilities.volts if what == "VOLT" else self.abilities.amps

    def levels(self) -> list[float]:
        """All levels of the sweep or list that is selected."""
        what = self.function
        if self.mode[what] == "LIST":
            return list(self.lists[what])
        if self.mode[what] != "SWE":
            return [self.triggered[what]]
        one, other = self.start[what], self.stop[what]
        if self.spacing == "LOG":
            if one * other <= 0:
                raise CONFLICT
            up = [
                float(v)
                for v in np.sign(one) * np.geomspace(abs(one), abs(other), self.points[what])
            ]
        else:
            up = [float(v) for v in np.linspace(one, other, self.points[what])]
        up = up if self.direction == "UP" else up[::-1]
        return up if self.stair == "SING" else up + up[::-1]

    def range_for(self, value: float, what: str, margin: float = 1.05) -> float:
        """Smallest range that takes a value. Raises `ScpiError` -222 beyond the largest."""
        for full in self.ranges(what):
            if abs(value) <= full * (1.01 if full in (1.5, 3.0) else margin) * (1 + 1e-9):
                return full
        raise PARAMETER

    def settles_s(self) -> float:
        return SETTLES_S[self.range_for(self.now, "VOLT")] if self.function == "VOLT" else 250e-6


def _functions(call: Call) -> set[str]:
    return {call.choice(k, "VOLTage", "CURRent", "RESistance") for k in range(len(call.arguments))}


def _choice(words: tuple[str, ...], call: Call) -> str:
    return call.choice(0, *words)


class SimulatedB2900(ScpiInstrument):
    """One or two channels with ARM-TRIGger layers, digital lines, sweep and list memory and data
    buffers.
    """

    MAKER = "Keysight"
    MODELS: ClassVar[tuple[str, ...]] = tuple(ABILITIES)
    QUEUE = 30
    NO_ERROR = '+0,"No error"'

    def __init__(self, model: str, place: Place) -> None:
        self._abilities = ABILITIES[model]
        self._pending: deque[tuple[str, list[_Layer]]] = deque()
        self._is_running = False
        self._is_held = False
        self._random = np.random.default_rng(sum(map(ord, f"{place.name}{model}")))
        self._errors = {
            (c, what, full): self._random.uniform(-0.1, 0.1, 2)
            for c in (1, 2)
            for what in ("VOLT", "CURR")
            for full in (VOLT_RANGES if what == "VOLT" else CURRENT_ACCURACY)
        }
        self._outputs: dict[int, _Output] = {}
        super().__init__(model, place)
        for pin in PINS:
            place.bus.listen((place.name, pin), partial(self._external, pin))

    @override
    def identification(self) -> str:
        return (
            f"Keysight Technologies,{self.pretends or self.model},{self.place.serial},4.0.1818.4820"
        )

    @override
    def reset(self) -> None:
        self._outputs = {
            c: _Output(c, self._abilities, 1.0 / self.place.line_hz)
            for c in range(1, self._abilities.channels + 1)
        }
        self._pins = {n: _Pin() for n in PINS}
        self._format = "ASC"
        self._border = "NORM"
        self._elements: tuple[str, ...] = ELEMENTS
        self._zero_s = self.place.bus.clock.now_s
        self._beeps = True
        self._shows = True
        for output in self._outputs.values():
            self._drive(output)

    @property
    @override
    def outputs_on(self) -> bool:
        return any(output.is_on for output in self._outputs.values())

    @override
    def clear(self) -> None:
        """A query that waits is given up; triggers that are awaited stay so."""
        self._is_held = False

    @override
    def message(self, line: str) -> str | bytes:
        if self._is_held:
            return ""
        try:
            return super().message(line)
        except _HeldError:
            self._is_held = True
            return ""

    @override
    def push(self, error: ScpiError) -> None:
        """Queue an error with this instrument's own text."""
        super().push(ScpiError(error.code, TEXTS.get(error.code, error.text)))

    # Source and measurement

    def _drive(self, output: _Output) -> None:
        terminal = self.place.terminal(str(output.number))
        if not output.is_on:
            terminal.drive(Drive("voltage", 0.0, 0.1) if output.off_mode == "ZERO" else Drive())
        elif output.function == "VOLT":
            terminal.drive(Drive("voltage", output.now, output.limit["CURR"]))
        else:
            terminal.drive(Drive("current", output.now, output.limit["VOLT"]))

    def _go_to(self, output: _Output, level: float) -> None:
        output.now = level
        self._drive(output)

    def _check_level(self, output: _Output, what: str, level: float) -> None:
        """Refuse a level beyond a fixed range or beyond what the channel gives together with its
        compliance.
        """
        if not output.source_auto[what] and abs(level) > output.source_range[what] * 1.05 * (
            1 + 1e-9
        ):
            raise PARAMETER
        output.range_for(level, what)
        if what != output.function:
            return
        volts = abs(level) if what == "VOLT" else output.limit["VOLT"]
        amps = output.limit["CURR"] if what == "VOLT" else abs(level)
        if not any(volts <= v and amps <= a for v, a in self._abilities.envelope):
            raise CONFLICT

    def _switch(self, output: _Output, on: bool) -> None:
        if on and not output.is_on:
            output.now = output.level[output.function]
        output.is_on = on
        self._drive(output)

    def _measured(self, output: _Output, true: float, what: str) -> tuple[float, bool]:
        """What the instrument reads for a true value, and whether it is over the range: then
        infinity.
        """
        if what not in output.functions:
            return float("nan"), False
        if output.sense_auto[what]:
            top = (
                output.range_for(output.limit[what], what)
                if what == output.other()
                else output.ranges(what)[-1]
            )
            full = next(
                (
                    f
                    for f in output.ranges(what)
                    if f >= output.sense_lowest[what] and abs(true) <= 1.05 * f
                ),
                top,
            )
            full = min(full, top)
        else:
            full = output.sense_range[what]
        if abs(true) > full * (1.02 if full in (1.5, 3.0) else 1.06):
            return float(np.copysign(np.inf, true)), True
        fraction, offset = (VOLT_ACCURACY if what == "VOLT" else CURRENT_ACCURACY)[full]
        gain, zero = self._errors[(output.number, what, full)]
        slow = min(10.0, (output.line_s / output.aperture_s) ** 0.5)
        value = true * (1 + gain * fraction) + offset * (
            zero + 0.02 * slow * self._random.standard_normal()
        )
        step = full * (
            5e-7
            if what == "VOLT"
            else 1e-5 / 3
            if full == 3.0
            else 1e-6 / 1.5
            if full == 1.5
            else 1e-6
        )
        return round(value / step) * step, False

    def _sense(self, output: _Output, at_s: float) -> tuple[float, ...]:
        """One measurement: all elements in the order of `ELEMENTS`."""
        true = self.place.terminal(str(output.number)).sense()
        volts, over_v = self._measured(output, true.volts, "VOLT")
        amps, over_i = self._measured(output, true.amps, "CURR")
        is_limited = output.is_on and true.limited
        status = (output.function == "CURR") + 2 * is_limited + 8192 * (over_v or over_i)
        ohms = (
            float("nan")
            if "RES" not in output.functions or amps == 0 or over_v or over_i
            else volts / amps
        )
        if output.protects and is_limited:
            self._switch(output, False)
        return volts, amps, ohms, at_s - self._zero_s, float(status), output.now

    def _keep(self, output: _Output, values: tuple[float, ...]) -> None:
        output.data.append(values)
        if output.trace_control == "NEXT" and len(output.trace) < output.trace_points:
            output.trace.append(values)

    # Triggers

    def _external(self, pin: int) -> None:
        """A pulse has come on a digital line."""
        if self._pins[pin].function == "TINP":
            self._event(f"EXT{pin}")

    def _event(self, event: str, only: Iterable[_Layer] | None = None) -> None:
        """An event for all layers that wait for it; one whose action is under way loses it."""
        waiting = []
        for layer in only if only is not None else self._layers():
            if not layer.is_initiated:
                continue
            if only is None and event != (layer.source if layer.is_armed else layer.arm_source):
                continue
            if layer.is_busy:
                layer.is_lost = True
            else:
                waiting.append(layer)
        self._pending.append((event, waiting))
        # A pulse out may come back as the next pulse in before this one is done with: it waits in
        # line.
        if not self._is_running:
            while self._pending:
                self._go(*self._pending.popleft())

    def _layers(self) -> list[_Layer]:
        return [layer for o in self._outputs.values() for layer in (o.tran, o.acq)]

    def _go(self, event: str, waiting: list[_Layer]) -> None:
        """Carry out what an event starts ("" is the initiation itself), and all that follows by
        itself.
        """
        while True:
            now_s = self.place.bus.clock.now_s
            starts: list[tuple[_Layer, list[float]]] = []
            for layer in waiting:
                if not layer.is_initiated or layer.is_busy or not layer.left:
                    continue
                used = False
                if not layer.is_armed:
                    used = event != "" and layer.arm_source not in ("AINT", "TIM")
                    if not used and layer.arm_source not in ("AINT", "TIM"):
                        continue
                    layer.is_armed = True
                at_s = now_s + (layer.arm_delay_s if layer.taken % layer.count == 0 else 0.0)
                if layer.source in ("AINT", "TIM"):
                    every_s = (
                        layer.timer_s if layer.source == "TIM" else self._cycle_s(layer.channel)
                    )
                    starts.append((layer, [at_s + k * every_s for k in range(layer.left)]))
                elif event and not used:
                    starts.append((layer, [at_s]))
            event = ""
            if not starts:
                return
            self._run(starts)

    def _cycle_s(self, channel: int) -> float:
        """How long one source-delay-measure cycle of a channel takes where its layers trigger
        themselves.
        """
        o = self._outputs[channel]
        tran_s = o.tran.delay_s + (o.pulse_delay_s + o.pulse_width_s if o.shape == "PULS" else 0.0)
        acq_s = o.acq.delay_s + (o.settles_s() if o.sense_waits else 0.0) + o.aperture_s
        return max(
            [s for s, layer in ((tran_s, o.tran), (acq_s, o.acq)) if layer.is_initiated]
            + [o.abilities.shortest_s],
        )

    def _run(self, starts: list[tuple[_Layer, list[float]]]) -> None:
        """Carry out triggered actions in the order of their times; actions of one instant come
        before the pulses they give.
        """
        events = [
            (round(at_s * 1e9), order, action)  # ns: two sums that mean one instant are one
            for layer, times in starts
            for at_s, order, action in self._begun(layer, times)
        ]
        self._is_running = True
        clock = self.place.bus.clock
        try:
            turns = groupby(sorted(events, key=lambda e: e[:2]), key=lambda e: e[0])
            for at_ns, group in turns:
                self.place.bus.give_way()
                if not any(layer.is_initiated for layer, _ in starts):
                    break  # another host has aborted it
                if at_ns * 1e-9 > clock.now_s:
                    clock.advance(at_ns * 1e-9 - clock.now_s)
                pins: set[int] = set()
                for _, _, action in group:
                    pins |= action()
                for output in self._outputs.values():
                    self._finish(output)
                for pin in sorted(pins):
                    if self._pins[pin].function == "TOUT":
                        self.place.bus.pulse((self.place.name, pin))
        finally:
            self._is_running = False

    def _begun(self, layer: _Layer, times: list[float]) -> Iterator[_Event]:
        """What a layer that is triggered at these times (s) does, and when."""
        layer.is_busy = True
        output = self._outputs[layer.channel]
        first = layer.taken
        layer.taken += len(times)
        if layer.is_acquire:
            wait_s = layer.delay_s + (output.settles_s() if output.sense_waits else 0.0)
            for at_s in times:
                yield at_s + wait_s, 2, partial(self._given, layer, "BEF")
                acquire = partial(self._acquire, layer, at_s + wait_s)
                yield at_s + wait_s + output.aperture_s, 0, acquire
            return
        levels = output.levels()
        is_pulse = output.shape == "PULS"
        for k, at_s in enumerate(times, start=first):
            peak_s = at_s + layer.delay_s + (output.pulse_delay_s if is_pulse else 0.0)
            yield peak_s, 1, partial(self._step, layer, levels[k % len(levels)])
            if is_pulse:
                yield peak_s + output.pulse_width_s, 0, partial(self._base, layer)

    def _step(self, layer: _Layer, level: float) -> set[int]:
        output = self._outputs[layer.channel]
        self._go_to(output, level)
        if output.shape == "PULS":
            return self._given(layer, "BEF")
        self._count_up(layer)
        return self._given(layer, "BEF") | self._given(layer, "AFT")

    def _base(self, layer: _Layer) -> set[int]:
        """The end of a pulse."""
        output = self._outputs[layer.channel]
        self._go_to(output, output.level[output.function])
        self._count_up(layer)
        return self._given(layer, "AFT")

    def _acquire(self, layer: _Layer, at_s: float) -> set[int]:
        output = self._outputs[layer.channel]
        self._keep(output, self._sense(output, at_s))
        self._count_up(layer)
        return self._given(layer, "AFT")

    def _given(self, layer: _Layer, when: str) -> set[int]:
        """Lines that an action pulses before ("BEF") or after ("AFT") it."""
        output = self._outputs[layer.channel]
        on, pins = (
            (output.sense_out, output.sense_pins)
            if layer.is_acquire
            else (output.source_out, output.source_pins)
        )
        given = (set(pins) if on else set()) | (set(layer.out_pins) if layer.out_on else set())
        return {pin for pin in given if self._pins[pin].position in (when, "BOTH")}

    def _count_up(self, layer: _Layer) -> None:
        layer.finished += 1
        if layer.finished == layer.taken:
            layer.is_busy = False
            if layer.taken % layer.count == 0:
                layer.is_armed = False
        if layer.finished == layer.total:
            layer.is_initiated = False

    def _finish(self, output: _Output) -> None:
        """Both actions over: the source returns to its immediate level unless it is told to
        stay.
        """
        what = output.function
        if output.tran.is_initiated or output.acq.is_initiated or not output.tran.finished:
            return
        if output.mode[what] == "FIX":
            # A triggered level becomes the immediate one.
            output.level[what] = output.now
        elif not output.continuous:
            self._go_to(output, output.level[what])
        output.tran.finished = 0
        if output.off_auto:
            self._switch(output, False)

    def _initiate(self, chosen: list[_Output], which: str) -> None:
        for output in chosen:
            if which != "ACQ":
                for level in output.levels():
                    self._check_level(output, output.function, level)
        ready = []
        for layer in self._of(which, chosen):
            if layer.is_initiated:
                self.push(INIT_IGNORED)
                continue
            output = self._outputs[layer.channel]
            if layer.is_acquire:
                output.data.clear()
            if output.on_auto and not output.is_on:
                self._switch(output, True)
            layer.initiate()
            ready.append(layer)
        self._go("", ready)

    def _abort(self, chosen: list[_Output], which: str) -> None:
        for output in chosen:
            if which in ("ALL", "TRAN"):
                output.tran.is_initiated = output.tran.is_armed = False
                output.tran.finished = 0
                self._go_to(output, output.level[output.function])
            if which in ("ALL", "ACQ"):
                output.acq.is_initiated = output.acq.is_armed = False

    def _wait(self, layers: Iterable[_Layer]) -> None:
        """Let time pass until these have ended. Raises `_HeldError` where nothing that is due
        anywhere in the rack triggers them.
        """
        layers = list(layers)
        while any(layer.is_initiated for layer in layers):
            if not self.place.bus.clock.run_next(float("inf")):
                raise _HeldError

    # Replies

    def _chosen(self, call: Call, at: int = 0) -> list[_Output]:
        """Channels of a channel list parameter, (@1) where there is none; in ascending order."""
        if len(call.arguments) <= at:
            return [self._outputs[1]]
        text = call.arguments[at].replace(" ", "")
        if not (text.startswith("(@") and text.endswith(")")):
            raise ScpiError(-104, "Data type error")
        numbers: set[int] = set()
        for part in text[2:-1].split(","):
            one, _, other = part.partition(":")
            if not one.isdigit() or (other and not other.isdigit()):
                raise ILLEGAL
            numbers |= set(
                range(min(int(one), int(other or one)), max(int(one), int(other or one)) + 1)
            )
        if not numbers <= set(self._outputs):
            raise ILLEGAL
        return [self._outputs[n] for n in sorted(numbers)]

    def _output(self, call: Call, at: int = 0) -> _Output:
        if call.suffixes[at] not in self._outputs:
            raise BAD_SUFFIX
        return self._outputs[call.suffixes[at]]

    def _reply(self, values: list[float]) -> str | bytes:
        if self._format == "ASC":
            words = [
                NAN_TEXT if v != v else np.copysign(INFINITY_TEXT, v) if np.isinf(v) else v
                for v in values
            ]
            return ",".join(f"{v:+.6E}" for v in words)
        letter = "d" if self._format == "REAL,64" else "f"
        data = struct.pack(
            f"{'>' if self._border == 'NORM' else '<'}{len(values)}{letter}", *values
        )
        size = str(len(data))
        return f"#{len(size)}{size}".encode() + data

    def _rows(
        self,
        chosen: list[_Output],
        elements: tuple[str, ...],
        rows: Callable[[_Output], list[tuple[float, ...]]],
    ) -> list[float]:
        """Rows of several channels one after the other, point by point; what a channel lacks is not
        a number.
        """
        at = [ELEMENTS.index(e) for e in elements]
        held = [rows(o) for o in chosen]
        empty = (float("nan"),) * len(ELEMENTS)
        return [
            (data[k] if k < len(data) else empty)[i]
            for k in range(max([len(d) for d in held] + [1]))
            for data in held
            for i in at
        ]

    def _fetch(self, call: Call, elements: tuple[str, ...] | None, is_array: bool) -> str | bytes:
        chosen = self._chosen(call)
        self._wait(o.acq for o in chosen)
        wanted = elements or self._elements
        return self._reply(
            self._rows(chosen, wanted, lambda o: o.data if is_array else o.data[-1:])
        )

    def _read(self, call: Call, elements: tuple[str, ...] | None, is_array: bool) -> str | bytes:
        self._initiate(self._chosen(call), "ALL")
        return self._fetch(call, elements, is_array)

    def _spot(self, call: Call, elements: tuple[str, ...] | None) -> str | bytes:
        chosen = self._chosen(call)
        for output in chosen:
            if output.on_auto and not output.is_on:
                self._switch(output, True)
            if output.sense_waits:
                self.place.bus.clock.advance(output.settles_s())
        at_s = self.place.bus.clock.now_s
        self.place.bus.clock.advance(max(o.aperture_s for o in chosen))
        for output in chosen:
            output.data = [self._sense(output, at_s)]
        return self._reply(self._rows(chosen, elements or self._elements, lambda o: o.data))

    # Commands

    @override
    def commands(self) -> dict[str, Handler]:
        return (
            self._system()
            | self._source()
            | self._measure()
            | self._trigger()
            | self._digital()
            | self._readings()
        )

    @override
    def shown(self, value: object) -> str:
        if isinstance(value, tuple):
            return ",".join(f"EXT{n}" for n in value)
        return f"{value:+.8E}" if isinstance(value, float) else super().shown(value)

    def _number(
        self,
        pattern: str,
        name: str,
        low: float,
        high: float,
        key: str = "",
        default: float | None = None,
    ) -> dict[str, Handler]:
        """A number of a channel: attribute `name`, entry `key` of it where it is a dictionary."""
        words = {} if default is None else {"default": default}
        return self.kept(
            pattern,
            self._output,
            name,
            lambda c: c.number(0, low, high, **words),
            key=key,
            asked=lambda c: c.number(0, low, high),
            then=self._drive,
        )

    def _switch_setting(self, pattern: str, name: str, key: str = "") -> dict[str, Handler]:
        return self.kept(pattern, self._output, name, Call.switch, key=key)

    def _word(
        self, pattern: str, name: str, words: tuple[str, ...], key: str = ""
    ) -> dict[str, Handler]:
        return self.kept(pattern, self._output, name, partial(_choice, words), key=key)

    def _system(self) -> dict[str, Handler]:
        def put_format(call: Call) -> None:
            word = call.choice(0, "ASCii", "REAL")
            if word == "REAL":
                bits = int(call.number(1, 32, 64)) if len(call.arguments) > 1 else 64
                if bits not in (32, 64):
                    raise ILLEGAL
                word = f"REAL,{bits}"
            self._format = word

        def put_elements(call: Call) -> None:
            given = {call.choice(k, *LONG_ELEMENTS) for k in range(max(1, len(call.arguments)))}
            self._elements = tuple(e for e in ELEMENTS if e in given)

        def restart(_: Call) -> None:
            self._zero_s = self.place.bus.clock.now_s

        def complete(_: Call) -> str:
            self._wait(self._layers())
            return "1"

        return {
            **pair(":FORMat[:DATA]", put_format, lambda _: self._format),
            **self.kept(
                ":FORMat:BORDer",
                lambda _: self,
                "_border",
                partial(_choice, ("NORMal", "SWAPped")),
            ),
            **pair(":FORMat:ELEMents:SENSe", put_elements, lambda _: ",".join(self._elements)),
            ":SYSTem:TIME:TIMer:COUNt:RESet[:IMMediate]": restart,
            ":SYSTem:TIME:TIMer:COUNt?": lambda _: (
                f"{self.place.bus.clock.now_s - self._zero_s:+.6E}"
            ),
            ":SYSTem:ERRor:COUNt?": lambda _: str(len(self.queue)),
            ":SYSTem:ERRor:ALL?": self.all_errors,
            ":SYSTem:VERSion?": lambda _: "1999.0",
            ":SYSTem:LFRequency?": lambda _: f"{self.place.line_hz:.0f}",
            **self.kept(":SYSTem:BEEPer:STATe", lambda _: self, "_beeps", Call.switch),
            **self.kept(":DISPlay:ENABle", lambda _: self, "_shows", Call.switch),
            ":STATus:QUEStionable:CONDition?": lambda _: str(self._questionable()),
            ":STATus:MEASurement:CONDition?": lambda _: str(self._measurement()),
            "*WAI": lambda _: self._wait(self._layers()),
            "*OPC?": complete,
            "*TRG": lambda _: self._event("BUS"),
        }

    def _questionable(self) -> int:
        lost = [(1, False, 2048), (1, True, 4096), (2, False, 8192), (2, True, 16384)]
        layers = {(layer.channel, layer.is_acquire): layer for layer in self._layers()}
        return sum(bit for c, acq, bit in lost if (c, acq) in layers and layers[(c, acq)].is_lost)

    def _measurement(self) -> int:
        value = 0
        for c, output in self._outputs.items():
            over = bool(output.data) and bool(int(output.data[-1][4]) & 8192)
            bits = 2 * (bool(output.data) and not over) + 4 * over
            bits += 8 * bool(output.trace) + 16 * (len(output.trace) >= output.trace_points)
            value |= bits << (0 if c == 1 else 6)
        return value

    def _source(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        for name in ("VOLTage", "CURRent"):
            what, head = name[:4].upper(), f"[:SOURce#]:{name}"
            most = self._abilities.most(what)
            table |= {
                **self._levels(name, what, most),
                **self._word(f"{head}:MODE", "mode", ("FIXed", "SWEep", "LIST"), what),
                **self._switch_setting(f"{head}:RANGe:AUTO", "source_auto", what),
                **self._number(f"{head}:STARt", "start", -most, most, what, 0.0),
                **self._number(f"{head}:STOP", "stop", -most, most, what, 0.0),
                **self._number(
                    f"{head}[:LEVel]:TRIGgered[:AMPLitude]", "triggered", -most, most, what, 0.0
                ),
            }

        def put_output(call: Call) -> None:
            self._switch(self._output(call), call.switch())

        def put_function(call: Call) -> None:
            output = self._output(call)
            word = call.choice(0, "VOLTage", "CURRent")
            if word != output.function:
                # The other quantity may not be forced without a word about its level: the output
                # goes off.
                self._switch(output, False)
            output.function = word
            self._go_to(output, output.level[word])

        return {
            **table,
            **self._word(
                "[:SOURce#]:FUNCtion[:SHAPe]",
                "shape",
                ("DC", "PULSe") if self._abilities.pulses else ("DC",),
            ),
            **self._switch_setting("[:SOURce#]:FUNCtion:TRIGgered:CONTinuous", "continuous"),
            **self._word("[:SOURce#]:SWEep:DIRection", "direction", ("UP", "DOWN")),
            **self._word("[:SOURce#]:SWEep:SPACing", "spacing", ("LINear", "LOGarithmic")),
            **self._word("[:SOURce#]:SWEep:STAir", "stair", ("SINGle", "DOUBle")),
            **self._number("[:SOURce#]:PULSe:DELay", "pulse_delay_s", 0.0, 99999.9),
            **self._number("[:SOURce#]:PULSe:WIDTh", "pulse_width_s", 50e-6, 100000.0),
            **self._switch_setting("[:SOURce#]:WAIT[:STATe]", "source_waits"),
            **self._switch_setting(":OUTPut#:ON:AUTO", "on_auto"),
            **self._switch_setting(":OUTPut#:OFF:AUTO", "off_auto"),
            **self._switch_setting(":OUTPut#:PROTection[:STATe]", "protects"),
            **self._word(":OUTPut#:OFF:MODE", "off_mode", ("NORMal", "HIZ", "ZERO")),
            **pair(":OUTPut#[:STATe]", put_output, lambda c: str(int(self._output(c).is_on))),
            **pair("[:SOURce#]:FUNCtion:MODE", put_function, lambda c: self._output(c).function),
        }

    def _levels(self, name: str, what: str, most: float) -> dict[str, Handler]:
        """Level, range, sweep points and list of one quantity."""

        def put_level(call: Call) -> None:
            output = self._output(call)
            level = call.number(0, -most, most, default=0.0)
            self._check_level(output, what, level)
            output.level[what] = output.triggered[what] = level
            if output.function == what:
                self._go_to(output, level)

        def put_range(call: Call) -> None:
            output = self._output(call)
            full = output.range_for(call.number(0, output.ranges(what)[0], most), what)
            output.source_range[what], output.source_auto[what] = full, False

        def put_points(call: Call) -> None:
            self._output(call).points[what] = int(call.number(0, 1, MOST_LEVELS))

        def values(call: Call, held: int) -> list[float]:
            if not call.arguments:
                raise ScpiError(-109, "Missing parameter")
            if held + len(call.arguments) > MOST_LEVELS:
                raise ScpiError(-223, "Too much data")
            return [call.number(k, -most, most) for k in range(len(call.arguments))]

        def put_list(call: Call) -> None:
            self._output(call).lists[what] = values(call, 0)

        def append(call: Call) -> None:
            held = self._output(call).lists[what]
            held += values(call, len(held))

        return {
            **pair(
                f"[:SOURce#]:{name}[:LEVel][:IMMediate][:AMPLitude]",
                put_level,
                lambda c: f"{self._output(c).level[what]:+.8E}",
            ),
            **pair(
                f"[:SOURce#]:{name}:RANGe",
                put_range,
                lambda c: f"{self._output(c).source_range[what]:+.8E}",
            ),
            **pair(
                f"[:SOURce#]:{name}:POINts", put_points, lambda c: str(self._output(c).points[what])
            ),
            **pair(
                f"[:SOURce#]:LIST:{name}",
                put_list,
                lambda c: ",".join(f"{v:+.8E}" for v in self._output(c).lists[what]),
            ),
            f"[:SOURce#]:LIST:{name}:APPend": append,
            f"[:SOURce#]:LIST:{name}:POINts?": lambda c: str(len(self._output(c).lists[what])),
        }

    def _measure(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        for name in ("VOLTage", "CURRent"):
            what = name[:4].upper()
            most = self._abilities.most(what)
            lowest = 2e-3 if what == "VOLT" else 0.01 * self._abilities.amps[0]
            first = 2.0 if what == "VOLT" else 1e-4
            head = f":SENSe#:{name}[:DC]"
            limit = f"{head}:PROTection[:LEVel]"
            table |= {
                **self._number(limit, "limit", lowest, most, what, first),
                **self._number(f"{limit}:BOTH", "limit", lowest, most, what, first),
                f"{head}:PROTection:TRIPped?": partial(self._is_tripped, what),
                **self._switch_setting(f"{head}:RANGe:AUTO", "sense_auto", what),
                **self._sense_range(f"{head}:RANGe[:UPPer]", what, "sense_range"),
                **self._sense_range(f"{head}:RANGe:AUTO:LLIMit", what, "sense_lowest"),
                **self._aperture(f"{head}:APERture", 1.0),
                **self._aperture(f"{head}:NPLCycles", 1.0 / self.place.line_hz),
                **self._switch_setting(f"{head}:APERture:AUTO", "aperture_auto"),
            }

        def functions(call: Call) -> str:
            held = self._output(call).functions
            return ",".join(f'"{f}"' for f in FUNCTIONS if f in held) or '""'

        return {
            **table,
            **self._switch_setting(":SENSe#:REMote", "is_remote"),
            **self._switch_setting(":SENSe#:WAIT[:STATe]", "sense_waits"),
            ":SENSe#:FUNCtion[:ON]": lambda c: self._output(c).functions.update(_functions(c)),
            ":SENSe#:FUNCtion[:ON]?": functions,
            ":SENSe#:FUNCtion[:ON]:ALL": lambda c: self._output(c).functions.update(FUNCTIONS),
            ":SENSe#:FUNCtion:OFF": lambda c: self._output(c).functions.difference_update(
                _functions(c)
            ),
            ":SENSe#:FUNCtion:OFF:ALL": lambda c: self._output(c).functions.clear(),
        }

    def _is_tripped(self, what: str, call: Call) -> str:
        output = self._output(call)
        limited = self.place.terminal(str(output.number)).sense().limited
        return str(int(output.is_on and output.other() == what and limited))

    def _sense_range(self, pattern: str, what: str, name: str) -> dict[str, Handler]:
        def put(call: Call) -> None:
            output = self._output(call)
            ranges = output.ranges(what)
            full = output.range_for(
                call.number(0, 0.0, ranges[-1] * 1.05, default=ranges[-1]), what
            )
            getattr(output, name)[what] = full
            if name == "sense_range":
                output.sense_auto[what] = False

        return pair(pattern, put, lambda c: f"{getattr(self._output(c), name)[what]:+.8E}")

    def _aperture(self, pattern: str, unit_s: float) -> dict[str, Handler]:
        def put(call: Call) -> None:
            output = self._output(call)
            output.aperture_s = call.number(0, 8e-6 / unit_s, 2.0 / unit_s) * unit_s
            output.aperture_auto = False

        return pair(pattern, put, lambda c: f"{self._output(c).aperture_s / unit_s:+.8E}")

    def _trigger(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        actions = (("[:ALL]", "ALL"), (":TRANsient", "TRAN"), (":ACQuire", "ACQ"))
        settings: dict[str, tuple[str, Callable[[Call], object]]] = {
            "COUNt": ("count", lambda c: int(c.number(0, 1, 100000))),
            "DELay": ("delay_s", lambda c: c.number(0, 0.0, 100000.0)),
            "TIMer": ("timer_s", self._timer_of),
            "SOURce[:SIGNal]": ("source", self._source_of),
        }
        for node, which in actions:
            for head, prefix in ((":ARM#", "arm_"), (":TRIGger#", "")):
                for tail, (name, parse) in settings.items():
                    pattern = f"{head}{node}:{tail}"
                    table |= self._layer_setting(pattern, which, f"{prefix}{name}", parse)
            out = f":TRIGger#{node}:TOUTput"
            table |= {
                **self._layer_setting(f"{out}[:STATe]", which, "out_on", Call.switch),
                **self._layer_setting(f"{out}:SIGNal", which, "out_pins", self._pins_of),
                **self._actions(node, which),
            }
        return table

    def _actions(self, node: str, which: str) -> dict[str, Handler]:
        return {
            f":INITiate[:IMMediate]{node}": lambda c: self._initiate(self._chosen(c), which),
            f":ABORt{node}": lambda c: self._abort(self._chosen(c), which),
            f":IDLE{node}?": partial(self._idle_command, which),
            f":TRIGger{node}[:IMMediate]": lambda c: self._event(
                "NOW", self._of(which, self._chosen(c))
            ),
        }

    def _of(self, which: str, chosen: list[_Output]) -> list[_Layer]:
        return [
            layer
            for o in chosen
            for layer in (o.tran, o.acq)
            if which == "ALL" or (which == "ACQ") == layer.is_acquire
        ]

    def _idle_command(self, which: str, call: Call) -> str:
        self._wait(self._of(which, self._chosen(call)))
        return "1"

    def _layer_setting(
        self, pattern: str, which: str, name: str, parse: Callable[[Call], object]
    ) -> dict[str, Handler]:
        def put(call: Call) -> None:
            output = self._output(call)
            value = parse(call)
            for layer in self._of(which, [output]):
                setattr(layer, name, value)

        def get(call: Call) -> str:
            return self.shown(getattr(self._of(which, [self._output(call)])[0], name))

        return pair(pattern, put, get)

    def _timer_of(self, call: Call) -> float:
        return call.number(0, self._abilities.shortest_s, 100000.0)

    def _source_of(self, call: Call) -> str:
        words = (f"EXT{n}" for n in PINS)
        return call.choice(0, "AINT", "BUS", "TIMer", "INT1", "INT2", "LAN", *words)

    def _pins_of(self, call: Call) -> tuple[int, ...]:
        words = [f"EXT{n}" for n in PINS]
        return tuple(
            sorted({int(call.choice(k, *words)[3:]) for k in range(max(1, len(call.arguments)))})
        )

    def _digital(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        head = "[:SOURce]:DIGital:EXTernal#"
        words: list[tuple[str, str, tuple[str, ...]]] = [
            (f"{head}:FUNCtion", "function", ("DIO", "DINPut", "HVOL", "TINPut", "TOUTput")),
            (f"{head}:POLarity", "polarity", ("POSitive", "NEGative")),
            (f"{head}:TOUTput[:EDGE]:POSition", "position", ("BEFore", "AFTer", "BOTH")),
            (f"{head}:TOUTput:TYPE", "kind", ("EDGE", "LEVel")),
        ]
        for pattern, name, choices in words:
            table |= self.kept(pattern, self._pin, name, partial(_choice, choices))
        width = f"{head}:TOUTput[:EDGE]:WIDTh"
        source, sense = "[:SOURce#]:TOUTput", ":SENSe#:TOUTput"
        return {
            **table,
            **self.kept(width, self._pin, "width_s", lambda c: c.number(0, 10e-6, 10e-3)),
            **self._switch_setting(f"{source}[:STATe]", "source_out"),
            **self.kept(f"{source}:SIGNal", self._output, "source_pins", self._pins_of),
            **self._switch_setting(f"{sense}[:STATe]", "sense_out"),
            **self.kept(f"{sense}:SIGNal", self._output, "sense_pins", self._pins_of),
        }

    def _pin(self, call: Call) -> _Pin:
        if call.suffixes[-1] not in self._pins:
            raise BAD_SUFFIX
        return self._pins[call.suffixes[-1]]

    def _readings(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        kinds: dict[str, tuple[str, ...] | None] = {
            "": None,
            **{f":{name}": (short,) for name, short in zip(LONG_ELEMENTS, ELEMENTS, strict=True)},
        }
        for node, elements in kinds.items():
            for form, is_array in (("[:SCALar]", False), (":ARRay", True)):
                table[f":FETCh{form}{node}?"] = partial(
                    self._fetch, elements=elements, is_array=is_array
                )
                table[f":READ{form}{node}?"] = partial(
                    self._read, elements=elements, is_array=is_array
                )
            table[f":MEASure{node}?"] = partial(self._spot, elements=elements)

        return table | {
            ":SENSe#:DATA?": self._sensed,
            ":SENSe#:DATA:LATest?": lambda c: self._reply(
                self._rows([self._output(c)], self._elements, lambda o: o.data[-1:])
            ),
            ":SENSe#:DATA:CLEar": lambda c: self._output(c).data.clear(),
            ":TRACe#:DATA?": self._traced,
            ":TRACe#:CLEar": self._clear_trace,
            **pair(":TRACe#:POINts", self._put_points, lambda c: str(self._output(c).trace_points)),
            ":TRACe#:POINts:ACTual?": lambda c: str(len(self._output(c).trace)),
            **pair(":TRACe#:FEED", self._feed_source, lambda _: "SENS"),
            **self._word(":TRACe#:FEED:CONTrol", "trace_control", ("NEXT", "NEVer")),
        }

    def _sensed(self, call: Call) -> str | bytes:
        output = self._output(call)
        rows = output.data
        if call.arguments and call.text().upper() not in ("STAR", "START"):
            rows = rows[int(call.number(0, 0, max(0, len(rows)))) :]
        if len(call.arguments) > 1:
            rows = rows[: int(call.number(1, 1, 100000))]
        return self._reply(self._rows([output], self._elements, lambda _: rows))

    def _traced(self, call: Call) -> str | bytes:
        return self._reply(self._rows([self._output(call)], self._elements, lambda o: o.trace))

    def _clear_trace(self, call: Call) -> None:
        self._unfed(call).trace.clear()

    def _put_points(self, call: Call) -> None:
        output = self._unfed(call)
        output.trace_points = int(call.number(0, 1, 100000))

    def _unfed(self, call: Call) -> _Output:
        """A channel whose trace buffer is not being filled. Raises `ScpiError` -221 for others."""
        output = self._output(call)
        if output.trace_control == "NEXT":
            raise CONFLICT
        return output

    def _feed_source(self, call: Call) -> None:
        self._output(call)
        call.choice(0, "SENSe")
