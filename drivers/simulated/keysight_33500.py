"""A simulated Keysight 33500A, 33500B or 33600A waveform generator, as far as pulses and arbitrary
waveforms in counted bursts go.

Written from the "Agilent 33500 Series Operating and Service Guide": "Output Termination" (page 61:
1 ohm to 10 kohm or infinite; levels follow the setting, the output does not), "Pulse Waveforms"
(page 69: widths and edges), "BURSt Subsystem" (page 177), "DATA Subsystem", "FUNCtion Subsystem"
(page 219) and "TRIGger Subsystem" (page 318: sources, `*OPC?` at the end of a burst, timer).
Commands and spans were compared with what PyMeasure 0.16.0 and QCoDeS 0.58.0 send. Unverified: the
33600A's shortest times, the length of the error queue, texts behind ";" of -221 and -222, how edges
limit width and period. A continuous waveform is not played: the terminal stands at the low level
(pulse, arbitrary) or at the offset. Edges take no time of their own: a pulse stands for its width,
which counts from half to half.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from typing_extensions import override

from .array.terminals import Drive, Place
from .scpi.instrument import ILLEGAL, MISSING, Call, Handler, ScpiError, ScpiInstrument, pair

OUTPUT_OHM = 50.0
MOST_EMF_V = 10.0
INFINITY = 9.9e37
HERTZ = {
    "33509B": 20e6,
    "33510B": 20e6,
    "33511B": 20e6,
    "33512B": 20e6,
    "33519B": 30e6,
    "33520B": 30e6,
    "33521A": 30e6,
    "33522A": 30e6,
    "33521B": 30e6,
    "33522B": 30e6,
    "33611A": 80e6,
    "33612A": 80e6,
    "33621A": 120e6,
    "33622A": 120e6,
}
TWO_CHANNELS = ("33510B", "33512B", "33520B", "33522A", "33522B", "33612A", "33622A")
NO_ARBITRARY = ("33509B", "33510B", "33519B", "33520B")
FUNCTIONS = ("SINusoid", "SQUare", "TRIangle", "RAMP", "PULSe", "PRBS", "NOISe", "ARB", "DC")
TEXTS = {-222: "Data out of range"}
EDGE_SHARE = 0.625
SEPARATORS = (b"", b"\n", b"\r", b";", b",", b" ")
"""What may come after a block."""
BLOCK = re.compile(r"#([1-9])")


@dataclass
class _Channel:
    """One output at its reset values. Levels are those of the open terminal."""

    number: int
    is_on: bool = False
    function: str = "SIN"
    period_s: float = 1e-3
    high_v: float = 0.1
    low_v: float = -0.1
    unit: str = "VPP"
    load_ohm: float = 50.0
    polarity: str = "NORM"
    auto_range: bool = True
    width_s: float = 1e-4
    lead_s: float = 10e-9
    trail_s: float = 10e-9
    hold: str = "WIDT"
    phase: float = 0.0
    square_percent: float = 50.0
    ramp_percent: float = 100.0
    frequency_mode: str = "CW"
    burst_on: bool = False
    burst_mode: str = "TRIG"
    cycles: float = 1.0
    burst_phase: float = 0.0
    burst_period_s: float = 10e-3
    gate: str = "NORM"
    source: str = "IMM"
    slope: str = "POS"
    count: int = 1
    delay_s: float = 0.0
    timer_s: float = 1.0
    arb: str = ""
    rate: float = 40e3
    advance: str = "SRAT"
    smooth: str = "STEP"
    waves: dict[str, list[int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """What a load that is as set would see of the open-circuit voltage."""
        return 1.0 if self.load_ohm >= INFINITY else self.load_ohm / (self.load_ohm + OUTPUT_OHM)

    def levels(self) -> tuple[float, float]:
        """Open-circuit volts at rest and at the top of a pulse."""
        return (self.low_v, self.high_v) if self.polarity == "NORM" else (self.high_v, self.low_v)


class Simulated33500(ScpiInstrument):
    """One or two outputs that give counted pulses or arbitrary waveforms on a trigger, on the
    virtual clock.
    """

    MAKER = "Keysight"
    MODELS: ClassVar[tuple[str, ...]] = tuple(HERTZ)
    QUEUE = 20
    NO_ERROR = '+0,"No error"'
    OVERFLOW = ScpiError(-350, "Error queue overflow")

    def __init__(self, model: str, place: Place) -> None:
        self._fast = model.startswith("336")
        self._shortest_s, self._shortest_edge_s = (5e-9, 2.9e-9) if self._fast else (16e-9, 8.4e-9)
        self._count = 2 if model in TWO_CHANNELS else 1
        self._blocks: list[bytes | None] = []
        self._outputs: dict[int, _Channel] = {}
        super().__init__(model, place)

    @override
    def identification(self) -> str:
        return (
            "Agilent"
            f" Technologies,{self.pretends or self.model},{self.place.serial},4.00-1.19-2.00-58-00"
        )

    @override
    def reset(self) -> None:
        self._outputs = {c: _Channel(c) for c in range(1, self._count + 1)}
        if self._fast:
            for channel in self._outputs.values():
                channel.lead_s = channel.trail_s = 4e-9
        self._border = "NORM"
        self._sync_on = True
        self._sync_source = "CH1"
        self._trigger_out = False
        self._text = ""
        for channel in self._outputs.values():
            self._rest(channel)

    @property
    @override
    def outputs_on(self) -> bool:
        return any(channel.is_on for channel in self._outputs.values())

    @override
    def push(self, error: ScpiError) -> None:
        """Queue an error with this instrument's own text."""
        super().push(
            error if ";" in error.text else ScpiError(error.code, TEXTS.get(error.code, error.text))
        )

    @override
    def line_end(self, pending: bytearray) -> int:
        """A line feed inside a definite-length block ends no message. What no separator follows
        was no block: its message ends at the line feed, and is told as invalid.
        """
        at = 0
        while True:
            end = pending.find(b"\n", at)
            start = pending.find(b"#", at)
            if start < 0 or (0 <= end < start):
                return end
            digits = pending[start + 1 : start + 2]
            if not digits.isdigit() or digits == b"0":
                at = start + 1
                continue
            size = pending[start + 2 : start + 2 + int(digits)]
            if len(size) < int(digits) or not size.isdigit():
                return -1 if len(size) < int(digits) and end < 0 else end
            at = start + 2 + int(digits) + int(size)
            if at > len(pending):
                return -1
            if pending[at : at + 1] not in SEPARATORS:
                return end

    @override
    def message(self, line: str) -> str | bytes:
        """Answer a message. Blocks are taken out first: their bytes may look like anything."""
        self._blocks = []
        text, at = "", 0
        while match := BLOCK.search(line, at):
            size = line[match.end() : match.end() + int(match[1])]
            if not size.isdigit():
                text += line[at : match.end()]
                at = match.end()
                continue
            start = match.end() + int(match[1])
            text += line[at : match.start()] + f"#@{len(self._blocks)}"
            block = line[start : start + int(size)].encode("latin-1")
            self._blocks.append(block if len(block) == int(size) else None)
            at = start + int(size)
        return super().message(text + line[at:])

    # Output

    def _force(self, channel: _Channel, emf_v: float) -> None:
        """Put a voltage behind the output's 50 ohm onto the terminal."""
        terminal = self.place.terminal(str(channel.number))
        if not channel.is_on:
            terminal.drive(Drive())
            return
        most_a = MOST_EMF_V / OUTPUT_OHM
        terminal.drive(Drive("voltage", emf_v, most_a))
        sensed = terminal.sense()
        if sensed.amps:
            ohm = sensed.volts / sensed.amps
            terminal.drive(Drive("voltage", emf_v * ohm / (ohm + OUTPUT_OHM), most_a))

    def _rest(self, channel: _Channel) -> None:
        standing = channel.function in ("PULS", "ARB", "SQU")
        self._force(
            channel, channel.levels()[0] if standing else (channel.high_v + channel.low_v) / 2
        )

    def _trigger(self, chosen: list[_Channel]) -> None:
        """Play the bursts of these channels together."""
        events: list[tuple[float, int, Callable[[], None]]] = []
        end_s = 0.0
        for channel in chosen:
            if channel.cycles >= INFINITY or channel.function not in ("PULS", "ARB"):
                # An endless burst, or a waveform that is not simulated.
                raise ScpiError(-221, "Settings conflict; this burst is not simulated")
            low, high = channel.levels()
            at_s = channel.delay_s
            stands_s = channel.width_s + self.place.terminal(str(channel.number)).stretch_s
            for _ in range(int(channel.cycles)):
                if channel.function == "PULS":
                    steps = [(at_s, high), (at_s + stands_s, low)]
                    at_s += channel.period_s
                else:
                    wave = channel.waves[channel.arb]
                    middle, half = (low + high) / 2, (high - low) / 2
                    steps = [
                        (at_s + k / channel.rate, middle + half * v / 32767)
                        for k, v in enumerate(wave)
                    ]
                    at_s += len(wave) / channel.rate
                events += [
                    (step_s, len(events) + k, partial(self._force, channel, v))
                    for k, (step_s, v) in enumerate(steps)
                ]
            end_s = max(end_s, at_s)
        clock = self.place.bus.clock
        passed_s = 0.0
        for at_s, _, action in sorted(events, key=lambda e: e[:2]):
            if at_s > passed_s:
                clock.advance(at_s - passed_s)
                passed_s = at_s
            action()
        clock.advance(end_s - passed_s)
        for channel in chosen:
            self._rest(channel)

    def _bus(self, _: Call) -> None:
        waiting = [
            c
            for c in self._outputs.values()
            if c.burst_on and c.burst_mode == "TRIG" and c.source == "BUS"
        ]
        if not waiting:
            raise ScpiError(-211, "Trigger ignored")
        self._trigger(waiting)

    def _now(self, call: Call) -> None:
        channel = self._channel(call)
        if not channel.burst_on or channel.burst_mode != "TRIG":
            raise ScpiError(-211, "Trigger ignored")
        self._trigger([channel])

    # Parameters

    def _channel(self, call: Call, at: int = 0) -> _Channel:
        if call.suffixes[at] not in self._outputs:
            raise ScpiError(-114, "Header suffix out of range")
        return self._outputs[call.suffixes[at]]

    def _clipped(self, call: Call, low: float, high: float, default: float | None = None) -> float:
        """A number; one out of range is clipped, and the error queue says so."""
        words = {"inf": INFINITY, "infinity": INFINITY}
        text = call.text().strip().lower()
        if text in ("min", "minimum", "max", "maximum", "def", "default"):
            return call.number(0, low, high, default=low if default is None else default)
        value = call.number(0, **words)
        if value > high * (1 + 1e-12):
            self.push(ScpiError(-222, "Data out of range; value clipped to upper limit"))
        if value < low * (1 - 1e-12 if low > 0 else 1 + 1e-12):
            self.push(ScpiError(-222, "Data out of range; value clipped to lower limit"))
        return min(max(value, low), high)

    @override
    def shown(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return super().shown(value)
        return f"{value:+d}" if isinstance(value, int) else _text(value)

    def _number(
        self, pattern: str, name: str, low: float, high: float, kind: type[float] = float
    ) -> dict[str, Handler]:
        return self.kept(
            pattern,
            self._channel,
            name,
            lambda c: kind(self._clipped(c, low, high)),
            asked=lambda c: c.number(0, low, high),
        )

    def _word(self, pattern: str, name: str, *words: str) -> dict[str, Handler]:
        return self.kept(
            pattern, self._channel, name, lambda c: c.choice(0, *words), then=self._rest
        )

    def _flag(self, pattern: str, name: str) -> dict[str, Handler]:
        return self.kept(pattern, self._channel, name, Call.switch, then=self._rest)

    # Commands

    @override
    def commands(self) -> dict[str, Handler]:
        return self._voltages() | self._times() | self._bursts() | self._waves() | self._system()

    def _voltages(self) -> dict[str, Handler]:
        head = "[:SOURce#]:VOLTage"
        return {
            **pair(
                f"{head}[:LEVel][:IMMediate][:AMPLitude]",
                self._put_amplitude,
                self._in_load(lambda c: c.high_v - c.low_v),
            ),
            **pair(
                f"{head}[:LEVel][:IMMediate]:OFFSet",
                self._put_offset,
                self._in_load(lambda c: (c.high_v + c.low_v) / 2),
            ),
            **pair(
                f"{head}[:LEVel][:IMMediate]:HIGH",
                self._put_high,
                self._in_load(lambda c: c.high_v),
            ),
            **pair(
                f"{head}[:LEVel][:IMMediate]:LOW", self._put_low, self._in_load(lambda c: c.low_v)
            ),
            **self._word(f"{head}:UNIT", "unit", "VPP", "VRMS", "DBM"),
            **self._flag(f"{head}:RANGe:AUTO", "auto_range"),
            **pair(
                ":OUTPut#:LOAD", self._put_load, lambda call: _text(self._channel(call).load_ohm)
            ),
            **self._flag(":OUTPut#[:STATe]", "is_on"),
            **self._word(":OUTPut#:POLarity", "polarity", "NORMal", "INVerted"),
        }

    def _put_levels(self, channel: _Channel, high: float, low: float) -> None:
        """Levels of the open terminal; what does not fit is refused with nothing changed."""
        smallest = 2e-3
        if high - low < smallest * (1 - 1e-9) and channel.function != "DC":
            raise ScpiError(-221, "Settings conflict; high level must be above low level")
        if max(abs(high), abs(low)) > MOST_EMF_V * (1 + 1e-9):
            raise ScpiError(-222, "Data out of range; value clipped to upper limit")
        channel.high_v, channel.low_v = high, low
        self._rest(channel)

    def _put_high(self, call: Call) -> None:
        channel = self._channel(call)
        top = MOST_EMF_V * channel.share
        self._put_levels(channel, self._clipped(call, -top, top) / channel.share, channel.low_v)

    def _put_low(self, call: Call) -> None:
        channel = self._channel(call)
        top = MOST_EMF_V * channel.share
        self._put_levels(channel, channel.high_v, self._clipped(call, -top, top) / channel.share)

    def _put_amplitude(self, call: Call) -> None:
        channel = self._channel(call)
        if channel.unit != "VPP":
            raise ScpiError(-221, "Settings conflict; only VPP is simulated")
        middle = (channel.high_v + channel.low_v) / 2
        half = (
            self._clipped(call, 2e-3 * channel.share, 2 * MOST_EMF_V * channel.share)
            / channel.share
            / 2
        )
        self._put_levels(channel, middle + half, middle - half)

    def _put_offset(self, call: Call) -> None:
        channel = self._channel(call)
        half = (channel.high_v - channel.low_v) / 2
        top = MOST_EMF_V * channel.share
        middle = self._clipped(call, -top, top, 0.0) / channel.share
        self._put_levels(channel, middle + half, middle - half)

    def _in_load(self, value: Callable[[_Channel], float]) -> Callable[[Call], str]:
        return lambda call: _text(value(self._channel(call)) * self._channel(call).share)

    def _put_load(self, call: Call) -> None:
        channel = self._channel(call)
        word = call.text().strip().upper()
        channel.load_ohm = (
            INFINITY
            if word in ("INF", "INFINITY") or word.startswith("9.9E")
            else self._clipped(call, 1.0, 1e4, 50.0)
        )
        if channel.load_ohm >= INFINITY:
            channel.unit = "VPP"

    def _times(self) -> dict[str, Handler]:
        head = "[:SOURce#]:FUNCtion:PULSe"
        return {
            **pair(f"{head}:PERiod", self._put_period, self._attribute("period_s")),
            **pair(f"{head}:WIDTh", self._put_width, self._attribute("width_s")),
            **pair(
                f"{head}:DCYCle",
                self._put_share,
                lambda call: _text(
                    100 * self._channel(call).width_s / self._channel(call).period_s
                ),
            ),
            **self._word(f"{head}:HOLD", "hold", "WIDTh", "DCYCle"),
            **pair(
                f"{head}:TRANsition[:BOTH]",
                self._edge("lead_s", "trail_s"),
                self._attribute("lead_s"),
            ),
            **pair(f"{head}:TRANsition:LEADing", self._edge("lead_s"), self._attribute("lead_s")),
            **pair(
                f"{head}:TRANsition:TRAiling", self._edge("trail_s"), self._attribute("trail_s")
            ),
            **pair(
                "[:SOURce#]:FREQuency",
                self._put_frequency,
                lambda call: _text(1 / self._channel(call).period_s),
            ),
            **self._word(
                "[:SOURce#]:FREQuency:MODE", "frequency_mode", "CW", "LIST", "SWEep", "FIXed"
            ),
            **self._number("[:SOURce#]:PHASe", "phase", -360.0, 360.0),
            **self._number("[:SOURce#]:FUNCtion:SQUare:DCYCle", "square_percent", 0.01, 99.99),
            **self._number("[:SOURce#]:FUNCtion:RAMP:SYMMetry", "ramp_percent", 0.0, 100.0),
            "[:SOURce#]:PHASe:SYNChronize": lambda _: None,
        }

    def _fit(self, channel: _Channel) -> None:
        """Width and edges give way to the period, as the instrument tells in its queue."""
        edges = EDGE_SHARE * (channel.lead_s + channel.trail_s)
        most_s = channel.period_s - max(edges, self._shortest_s)
        if channel.width_s > most_s * (1 + 1e-9):
            channel.width_s = max(most_s, self._shortest_s)
            self.push(ScpiError(-221, "Settings conflict; pulse width decreased due to period"))
        if edges > channel.width_s * (1 + 1e-9) or (
            not self._fast and channel.width_s < 20e-9 * (1 - 1e-9)
        ):
            shortest_s = max(self._shortest_edge_s, channel.width_s / (2 * EDGE_SHARE))
            if channel.width_s < 20e-9 * (1 - 1e-9) and not self._fast:
                shortest_s = self._shortest_edge_s
            if max(channel.lead_s, channel.trail_s) > shortest_s * (1 + 1e-9):
                channel.lead_s = min(channel.lead_s, shortest_s)
                channel.trail_s = min(channel.trail_s, shortest_s)
                self.push(
                    ScpiError(-221, "Settings conflict; edge time decreased due to pulse width")
                )

    def _put_period(self, call: Call) -> None:
        channel = self._channel(call)
        channel.period_s = self._clipped(call, 1.0 / HERTZ[self.model], 1e6)
        self._fit(channel)

    def _put_frequency(self, call: Call) -> None:
        channel = self._channel(call)
        channel.period_s = 1.0 / self._clipped(call, 1e-6, HERTZ[self.model])
        if channel.function == "PULS":
            self._fit(channel)

    def _put_width(self, call: Call) -> None:
        channel = self._channel(call)
        channel.width_s = self._clipped(call, self._shortest_s, 1e6)
        self._fit(channel)

    def _put_share(self, call: Call) -> None:
        channel = self._channel(call)
        channel.width_s = max(
            self._shortest_s, self._clipped(call, 0.0, 100.0) / 100 * channel.period_s
        )
        self._fit(channel)

    def _edge(self, *names: str) -> Callable[[Call], None]:
        def put(call: Call) -> None:
            channel = self._channel(call)
            seconds = self._clipped(call, self._shortest_edge_s, 1e-6)
            for name in names:
                setattr(channel, name, seconds)
            self._fit(channel)

        return put

    def _attribute(self, name: str) -> Callable[[Call], str]:
        return lambda call: _text(getattr(self._channel(call), name))

    def _bursts(self) -> dict[str, Handler]:
        def put_function(call: Call) -> None:
            channel = self._channel(call)
            word = call.choice(0, *FUNCTIONS)
            if word == "ARB" and self.model in NO_ARBITRARY:
                raise ScpiError(-241, "Hardware missing")
            channel.function = word
            self._rest(channel)

        def put_cycles(call: Call) -> None:
            channel = self._channel(call)
            word = call.text().strip().upper()
            channel.cycles = (
                INFINITY
                if word in ("INF", "INFINITY")
                else float(round(self._clipped(call, 1, 1e8)))
            )

        head = "[:SOURce#]:BURSt"
        return {
            **pair("[:SOURce#]:FUNCtion", put_function, lambda call: self._channel(call).function),
            **self._flag(f"{head}:STATe", "burst_on"),
            **self._word(f"{head}:MODE", "burst_mode", "TRIGgered", "GATed"),
            **pair(f"{head}:NCYCles", put_cycles, lambda call: _text(self._channel(call).cycles)),
            **self._number(f"{head}:PHASe", "burst_phase", -360.0, 360.0),
            **self._number(f"{head}:INTernal:PERiod", "burst_period_s", 1e-6, 8000.0),
            **self._word(f"{head}:GATE:POLarity", "gate", "NORMal", "INVerted"),
            **self._word(":TRIGger#:SOURce", "source", "IMMediate", "EXTernal", "TIMer", "BUS"),
            **self._word(":TRIGger#:SLOPe", "slope", "POSitive", "NEGative"),
            **self._number(":TRIGger#:COUNt", "count", 1, 1000000, int),
            **self._number(":TRIGger#:DELay", "delay_s", 0.0, 1000.0),
            **self._number(":TRIGger#:TIMer", "timer_s", 1e-6, 8000.0),
            ":TRIGger#[:IMMediate]": self._now,
            "*TRG": self._bus,
            ":ABORt": lambda _: None,
        }

    def _waves(self) -> dict[str, Handler]:
        arb = "[:SOURce#]:FUNCtion:ARBitrary"
        most = 1e9 if self._fast else 250e6
        return {
            "[:SOURce#]:DATA:ARBitrary": lambda call: self._keep(call, 32767.0),
            "[:SOURce#]:DATA:ARBitrary:DAC": lambda call: self._keep(call, 1.0),
            "[:SOURce#]:DATA:VOLatile:CLEar": self._clear_waves,
            "[:SOURce#]:DATA:VOLatile:CATalog?": lambda call: (
                ",".join(f'"{name}"' for name in self._channel(call).waves) or '""'
            ),
            "[:SOURce#]:DATA:ATTRibute:POINts?": lambda call: str(len(self._named(call))),
            **pair(arb, self._select_wave, lambda call: f'"{self._channel(call).arb}"'),
            **self._number(f"{arb}:SRATe", "rate", 1e-6, most),
            **self._word(f"{arb}:ADVance", "advance", "TRIGger", "SRATe"),
            **self._word(f"{arb}:FILTer", "smooth", "NORMal", "STEP", "OFF"),
            **self.kept(
                ":FORMat:BORDer",
                lambda _: self,
                "_border",
                lambda c: c.choice(0, "NORMal", "SWAPped"),
            ),
        }

    def _keep(self, call: Call, scale: float) -> None:
        """A waveform: whole DAC codes (scale 1) or numbers up to 1 (scale 32767)."""
        channel = self._channel(call)
        if self.model in NO_ARBITRARY:
            raise ScpiError(-241, "Hardware missing")
        name = call.text().upper()
        if len(call.arguments) < 2:
            raise MISSING
        if name in channel.waves:
            raise ScpiError(786, "Specified arb waveform already exists")
        first = call.arguments[1]
        if first.startswith("#@"):
            order = ">" if self._border == "NORM" else "<"
            kind = np.dtype(f"{order}i2" if scale == 1 else f"{order}f4")
            data = self._blocks[int(first[2:])] if first[2:].isdigit() else None
            if data is None or len(data) % kind.itemsize:
                raise ScpiError(-161, "Invalid block data")
            values = np.frombuffer(data, kind).astype(np.float64)
        else:
            values = np.array([call.number(k) for k in range(1, len(call.arguments))])
        if values.size < 8:
            raise ScpiError(-109, "Missing parameter")
        if not (np.abs(values) * scale <= 32767).all():
            raise ScpiError(-222, "Data out of range")
        channel.waves[name] = [int(v) for v in np.round(values * scale)]

    def _clear_waves(self, call: Call) -> None:
        channel = self._channel(call)
        if channel.function == "ARB" and channel.arb:
            channel.function = "SIN"
        channel.waves.clear()
        channel.arb = ""

    def _select_wave(self, call: Call) -> None:
        name = call.text().upper()
        self._named(call)
        self._channel(call).arb = name

    def _named(self, call: Call) -> list[int]:
        channel = self._channel(call)
        name = call.text().upper() if call.arguments else channel.arb
        if name not in channel.waves:
            raise ScpiError(785, "Specified arb waveform does not exist")
        return channel.waves[name]

    def _system(self) -> dict[str, Handler]:
        def put_sync_source(call: Call) -> None:
            self._sync_source = call.choice(0, "CH1", "CH2")
            if self._count == 1 and self._sync_source == "CH2":
                raise ILLEGAL

        def put_text(call: Call) -> None:
            self._text = call.text()

        def clear_text(_: Call) -> None:
            self._text = ""

        return {
            **self.kept(":OUTPut:SYNC[:STATe]", lambda _: self, "_sync_on", Call.switch),
            **pair(":OUTPut:SYNC:SOURce", put_sync_source, lambda _: self._sync_source),
            **self.kept(":OUTPut:TRIGger[:STATe]", lambda _: self, "_trigger_out", Call.switch),
            **pair(":DISPlay:TEXT", put_text, lambda _: f'"{self._text}"'),
            ":DISPlay:TEXT:CLEar": clear_text,
            ":SYSTem:BEEPer[:IMMediate]": lambda _: None,
            ":SYSTem:VERSion?": lambda _: "1999.0",
        }


def _text(value: float) -> str:
    return f"{value:+.15E}"
