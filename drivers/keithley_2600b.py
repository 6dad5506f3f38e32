"""Driver of the Keithley Series 2600B source-meters 2601B, 2602B, 2604B, 2611B, 2612B, 2614B,
2634B, 2635B, 2636B and of their predecessors 2601A, 2602A, 2611A, 2612A, 2635A, 2636A (TSP).

What each stands on is in `SHEETS`; beside that: bits of the buffer status (reference manual
2600BS-901-01 Rev. F, p. 3-15), shortest pulse (datasheet of the 2601B-PULSE, whose SMU it is, p.
14). The ranges that QCoDeS 0.58 lists for the 2634B to 2636B misprint 10 mA as 10 uA.

Unverified: what a source range does to the smallest limit; how long the relay of a high-impedance
output takes. Outputs that are off are open (`OUTPUT_HIGH_Z`), not held at 0 V as the instrument's
own default would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from rram_hil.array import Status
from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.hardware.abilities import ScriptedSourceMeter
from rram_hil.hardware.instrument import (
    Accuracy,
    ChannelLimits,
    Function,
    InstrumentConfig,
    ModelSheet,
    Readings,
    SourceSetup,
)
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import number
from rram_hil.wire.recording import Traffic

from .dialects.makers import SERIES_2600
from .dialects.setups import SetupSourceMeter
from .dialects.tsp import TspInstrument, numbers

OFF_MODES = {
    "normal": "OUTPUT_NORMAL",
    "zero": "OUTPUT_ZERO",
    "high-impedance": "OUTPUT_HIGH_Z",
}
MOST_POINTS = 60_000
"""Readings that a dedicated buffer holds with time stamps."""
OVERHEAD_S = 5e-3
"""Allowance for one point in timeouts: range changes, steps of the trigger model."""
AT_COMPLIANCE = 0x40
COMPLIANCE_BIT = 7
"""The same as Lua's `bit` counts, from 1."""
SHORTEST_NPLC, LONGEST_NPLC = 0.001, 25.0
LIST_LINE = 40
"""Numbers of a list in one line of code."""


@dataclass(frozen=True)
class _Family:
    """What a group of models can do."""

    volts: tuple[Accuracy, ...]
    amps: tuple[Accuracy, ...]
    lowest_source_a: float
    envelope: tuple[tuple[float, float], ...]
    smallest_v: float
    smallest_a: float
    settle_s: float


_CURRENT = (
    Accuracy(1e-7, 5e-4, 100e-12),
    Accuracy(1e-6, 2.5e-4, 500e-12),
    Accuracy(1e-5, 2.5e-4, 1.5e-9),
    Accuracy(1e-4, 2e-4, 25e-9),
    Accuracy(1e-3, 2e-4, 200e-9),
    Accuracy(1e-2, 2e-4, 2.5e-6),
    Accuracy(0.1, 2e-4, 20e-6),
    Accuracy(1.0, 3e-4, 1.5e-3),
)
_FINE_CURRENT = (
    Accuracy(1e-9, 1.5e-3, 240e-15),
    Accuracy(1e-8, 1.5e-3, 3e-12),
    Accuracy(1e-7, 6e-4, 40e-12),
    Accuracy(1e-6, 2.5e-4, 400e-12),
    *_CURRENT[2:],
    Accuracy(1.5, 5e-4, 3.5e-3),
)
_LOW_VOLTS = (
    Accuracy(0.1, 1.5e-4, 150e-6),
    Accuracy(1.0, 1.5e-4, 200e-6),
    Accuracy(6.0, 1.5e-4, 1e-3),
    Accuracy(40.0, 1.5e-4, 8e-3),
)
_HIGH_VOLTS = (
    Accuracy(0.2, 1.5e-4, 225e-6),
    Accuracy(2.0, 2e-4, 350e-6),
    Accuracy(20.0, 1.5e-4, 5e-3),
    Accuracy(200.0, 1.5e-4, 50e-3),
)
_HIGH_ENVELOPE = ((200.0, 0.101), (20.0, 1.515))
_LOW = _Family(
    _LOW_VOLTS,
    (*_CURRENT, Accuracy(3.0, 5e-4, 3.5e-3)),
    1e-7,
    ((40.0, 1.0), (6.0, 3.0)),
    10e-3,
    10e-9,
    150e-6,
)
_HIGH = _Family(
    _HIGH_VOLTS,
    (*_CURRENT, Accuracy(1.5, 5e-4, 3.5e-3)),
    1e-7,
    _HIGH_ENVELOPE,
    20e-3,
    10e-9,
    110e-6,
)
_FINE = _Family(_HIGH_VOLTS, _FINE_CURRENT, 1e-9, _HIGH_ENVELOPE, 20e-3, 100e-12, 110e-6)
_FINEST = _Family(
    _HIGH_VOLTS,
    (Accuracy(1e-10, 1.5e-3, 120e-15), *_FINE_CURRENT),
    1e-9,
    _HIGH_ENVELOPE,
    20e-3,
    100e-12,
    110e-6,
)
_FAMILIES = {
    "2601B": _LOW,
    "2602B": _LOW,
    "2604B": _LOW,
    "2611B": _HIGH,
    "2612B": _HIGH,
    "2614B": _HIGH,
    "2634B": _FINE,
    "2635B": _FINEST,
    "2636B": _FINEST,
    "2601A": _LOW,
    "2602A": _LOW,
    "2611A": _HIGH,
    "2612A": _HIGH,
    "2635A": _FINEST,
    "2636A": _FINEST,
}
_SINGLE = frozenset({"2601B", "2611B", "2635B", "2601A", "2611A", "2635A"})
_ALL_UNVERIFIED = (
    "relay time of a high-impedance output",
    "how exact Lua's delay is below 1 ms",
    "what a source range does to the smallest limit",
)
_BITS = "commands, status bits: reference manual 2600BS-901-01 Rev. F, 3-15"
_IDENTITY = (
    "identification: 2600BS-901-01 Rev. C, D-3; source of keithley2600 2.1.0 and QCoDeS 0.58"
)
_READS = "readings overflow at 102 % of a range: 2600BS-901-01 Rev. F, 2-44"
_LOW_SHEET = ModelSheet(
    (
        "ranges, smallest limits, accuracy, source settling, buffer size: SPEC-2602B Rev. B,"
        " pages 2, 5, 11",
        "accuracy: data sheet of the 2636B, page 10",
        "operating boundaries: 2600BS-901-01 Rev. F, section 5",
        _READS,
        _BITS,
        _IDENTITY,
    ),
    _ALL_UNVERIFIED,
)
_HIGH_SHEET = ModelSheet(
    (
        "operating boundaries: 2600BS-901-01 Rev. B, 4-13",
        "ranges, smallest limits: source of QCoDeS 0.58",
        "current accuracy at 0.9 uA (2611B, 2612B, 2614B): 2600BS-901-01 Rev. F, 10-10",
        "the 100 pA range only measures and is not on the 2634B: 2600BS-901-01 Rev. F, 2-44",
        _READS,
        _BITS,
        _IDENTITY,
    ),
    (
        "accuracy but for that point, voltage included",
        "source settling",
        "buffer size",
        *_ALL_UNVERIFIED,
    ),
)
_OLD_LOW_SHEET = ModelSheet(
    (
        "ranges: Series 2600 manual 2600S-901-01 Rev. A, table 6-1 (2601, 2602)",
        "channels, operating boundaries, 102 %: 2600AS-901-01 Rev. B, 3-5 and 6-3",
        "ranges, smallest limits of the 2602A: source of QCoDeS 0.58",
        "buffers: 2600AS-901-01 Rev. B, 7-6",
    ),
    (
        "accuracy, source settling, buffer size, shortest pulse (those of the B model)",
        "identification, but for that of the 2636A in public programs",
        *_ALL_UNVERIFIED,
    ),
)
_OLD_HIGH_SHEET = ModelSheet(
    (
        "ranges from 100 nA: Series 2600 manual 2600S-901-01 Rev. A, table 6-1 (2611, 2612)",
        "operating boundaries: 2600S-901-01 Rev. C, 8-11 (2611, 2612, 2635, 2636)",
        "channels, 102 %: 2600AS-901-01 Rev. B, 3-5 and 6-3",
        "buffers: 2600AS-901-01 Rev. B, 7-6",
        "identification of the 2636A: sources of two public programs",
    ),
    (
        "accuracy, source settling, smallest limits, buffer size, shortest pulse (those of the B"
        " model)",
        "ranges below 100 nA of the 2635A and 2636A",
        *_ALL_UNVERIFIED,
    ),
)
_SHEETS = {
    (True, True): _LOW_SHEET,
    (True, False): _HIGH_SHEET,
    (False, True): _OLD_LOW_SHEET,
    (False, False): _OLD_HIGH_SHEET,
}
"""By whether a model is a B model, and whether one of 40 V."""


class Keithley2600B(TspInstrument, SetupSourceMeter, ScriptedSourceMeter):
    """One or two channels "a", "b". Sweeps and lists run in the trigger model and come back as one
    binary block.

    A driver of an array may send Lua of its own with `run`, `ask`, `lines` and `load`; channels are
    `smua` and `smub` there.
    """

    MAKER = "Keithley"
    MAKERS = SERIES_2600
    MODELS: ClassVar[tuple[str, ...]] = tuple(_FAMILIES)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {
        model: _SHEETS[model.endswith("B"), family is _LOW] for model, family in _FAMILIES.items()
    }
    NEAR = r"26[0-4]\d[AB](?:-\w+)?"
    LONGEST_SETTLE_S = 1000.0

    def __init__(self, config: InstrumentConfig, traffic: Traffic | None = None) -> None:
        super().__init__(config, traffic)
        self._line_hz = config.line_hz

    @override
    def look(self) -> None:
        """The mains frequency that the instrument counts apertures in."""
        lines = self.peek("print(localnode.linefreq)")
        self._line_hz = float(numbers(lines[0])[0]) if len(lines) == 1 else self.config.line_hz
        if not 45.0 <= self._line_hz <= 65.0:
            raise ConfigError(
                f"{self.name}: a mains frequency of {self._line_hz:g} Hz is not believed"
            )

    @property
    @override
    def channels(self) -> tuple[str, ...]:
        return ("a",) if self.model in _SINGLE else ("a", "b")

    @property
    def line_hz(self) -> float:
        """The mains frequency that the instrument counts apertures in."""
        return self._line_hz

    @override
    def lua_name(self, channel: str) -> str:
        return f"smu{channel}"

    @override
    def limits(self, channel: str) -> ChannelLimits:
        """Ranges and envelope; the 100 pA range of `measures_a` is for measuring only."""
        self._known(channel)
        family = _FAMILIES[self.model]
        return ChannelLimits(
            voltage_ranges_v=tuple(a.range for a in family.volts),
            current_ranges_a=tuple(
                a.range for a in family.amps if a.range >= family.lowest_source_a
            ),
            envelope=family.envelope,
            shortest_s=100e-6,
            shortest_aperture_s=SHORTEST_NPLC / self._line_hz,
            longest_aperture_s=LONGEST_NPLC / self._line_hz,
            smallest_compliance_a=family.smallest_a,
            smallest_compliance_v=family.smallest_v,
            settle_s=family.settle_s,
            measures_a=family.amps,
            measures_v=family.volts,
        )

    @override
    def arm(self) -> None:
        self._setups = {}
        self.run(
            "\n".join(["errorqueue.clear()", *self._off(), "reset()", *self._off()]), takes_s=2.0
        )
        if not self.is_off():
            raise InstrumentError(f"{self.name}: an output is on after a reset")

    @override
    def switch_off(self) -> None:
        """Sweeps given up, levels zero, outputs off and open."""
        self.run("\n".join(self._off()))

    def _off(self) -> list[str]:
        return [
            line
            for c in self.channels
            for line in (
                f"smu{c}.abort()",
                f"smu{c}.source.levelv = 0 smu{c}.source.leveli = 0",
                f"smu{c}.source.offmode = smu{c}.{OFF_MODES[self.output_off]}",
                f"smu{c}.source.output = smu{c}.OUTPUT_OFF",
            )
        ]

    @override
    def is_off(self) -> bool:
        states = numbers(
            self.ask(f"print({', '.join(f'smu{c}.source.output' for c in self.channels)})")
        )
        return bool(states.size == len(self.channels) and (states == 0.0).all())

    @override
    def configure(self, channel: str, setup: SourceSetup) -> None:
        self._check(channel, setup)
        smu = f"smu{channel}"
        force, sense = ("v", "i") if setup.function is Function.VOLTAGE else ("i", "v")
        function = "OUTPUT_DCVOLTS" if force == "v" else "OUTPUT_DCAMPS"
        source_range = (
            f"{smu}.source.autorange{force} = {smu}.AUTORANGE_ON"
            if setup.source_range is None
            else f"{smu}.source.range{force} = {number(setup.source_range)}"
        )
        measure_range = (
            f"{smu}.measure.autorange{sense} = {smu}.AUTORANGE_ON"
            if setup.measure_range is None
            else f"{smu}.measure.range{sense} = {number(setup.measure_range)}"
        )
        self._setups.pop(channel, None)
        self.run(
            "\n".join(
                [
                    f"{smu}.abort()",
                    f"{smu}.source.levelv = 0",
                    f"{smu}.source.leveli = 0",
                    f"{smu}.source.func = {smu}.{function}",
                    f"{smu}.source.limit{sense} = {number(setup.compliance)}",
                    source_range,
                    measure_range,
                    f"{smu}.source.offmode = {smu}.{OFF_MODES[self.output_off]}",
                    f"{smu}.source.delay = 0",
                    f"{smu}.measure.delay = {number(setup.settle_s)}",
                    f"{smu}.measure.nplc = {number(setup.aperture_s * self._line_hz)}",
                    f"{smu}.measure.count = 1",
                    f"{smu}.measure.interval = 0",
                    f"{smu}.measure.filter.enable = 0",
                    f"{smu}.measure.rel.enablei = 0",
                    f"{smu}.measure.rel.enablev = 0",
                    (
                        f"{smu}.sense ="
                        f" {smu}.{'SENSE_REMOTE' if setup.remote_sense else 'SENSE_LOCAL'}"
                    ),
                ]
            )
        )
        self._setups[channel] = setup

    @override
    def settings(self, channel: str) -> SourceSetup:
        self._known(channel)
        smu = f"smu{channel}"
        words = [f"{smu}.source.func"]
        for kind in ("v", "i"):
            words += [
                f"{smu}.source.limit{kind}",
                f"{smu}.source.autorange{kind}",
                f"{smu}.source.range{kind}",
                f"{smu}.measure.autorange{kind}",
                f"{smu}.measure.range{kind}",
            ]
        words += [f"{smu}.measure.nplc", f"{smu}.measure.delay", f"{smu}.sense"]
        values = numbers(self.ask(f"format.asciiprecision = 10\nprint({', '.join(words)})"))
        if values.size != len(words):
            raise InstrumentError(
                f"{self.name}: {values.size} settings came where {len(words)} were asked for"
            )
        volts, amps = values[1:6], values[6:11]
        forced, sensed = (volts, amps) if values[0] == 1.0 else (amps, volts)
        return SourceSetup(
            function=Function.VOLTAGE if values[0] == 1.0 else Function.CURRENT,
            compliance=float(sensed[0]),
            source_range=None if forced[1] else float(forced[2]),
            measure_range=None if sensed[3] else float(sensed[4]),
            aperture_s=float(values[11] / self._line_hz),
            settle_s=float(values[12]),
            remote_sense=bool(values[13] == 1.0),
        )

    @override
    def source(self, channel: str, level: float) -> None:
        self._check_levels(channel, np.array([level], dtype=np.float64))
        name = f"smu{channel}.source.level{self._forces(channel)}"
        # Read back in the same line: where that is lost on its way, nothing is printed.
        told = float(numbers(self.ask(f"{name} = {number(level)} print({name})"))[0])
        if not abs(told - level) <= 1e-4 * abs(level) + 1e-12:
            raise InstrumentError(
                f"{self.name}: a level of {level:g} was asked for, {told:g} is set", command=name
            )

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch the output; verified by read-back in the same message."""
        self._known(channel)
        if on:
            self._setup(channel)
        smu = f"smu{channel}"
        state = "OUTPUT_ON" if on else "OUTPUT_OFF"
        reply = self.ask(f"{smu}.source.output = {smu}.{state}\nprint({smu}.source.output)")
        if numbers(reply).tolist() != [1.0 if on else 0.0]:
            raise InstrumentError(
                f"{self.name}: output {channel} did not go {'on' if on else 'off'}: {reply!r}"
            )

    @override
    def measure(self, channel: str) -> Readings:
        """One reading (V, A): the wait of the setup, then one integration, with the level as it
        stands.
        """
        setup = self._setup(channel)
        smu = f"smu{channel}"
        take = [f"{smu}.measure.iv({smu}.nvbuffer1, {smu}.nvbuffer2)"]
        return self._readings(channel, 1, take, setup.settle_s + setup.aperture_s)

    @override
    def sweep(self, channel: str, start: float, stop: float, points: int) -> Readings:
        if not 1 <= points <= MOST_POINTS:
            raise ConfigError(
                f"points: {points} are not 1 to {MOST_POINTS}, which is what {self.name} holds"
            )
        self._check_levels(channel, np.array([start, stop], dtype=np.float64))
        kind = self._forces(channel)
        ramp = (
            f"smu{channel}.trigger.source.linear{kind}({number(start)}, {number(stop)}, {points})"
        )
        return self._staircase(channel, np.linspace(start, stop, points), [ramp])

    @override
    def list_sweep(self, channel: str, levels: FloatArray) -> Readings:
        levels = np.asarray(levels, dtype=np.float64)
        if levels.ndim != 1 or not 1 <= levels.size <= MOST_POINTS:
            raise ConfigError(
                f"levels: shape {levels.shape} is not 1 to {MOST_POINTS} levels, which {self.name}"
                " holds"
            )
        self._check_levels(channel, levels)
        kind = self._forces(channel)
        return self._staircase(
            channel,
            levels,
            [*_lua_table(levels), f"smu{channel}.trigger.source.list{kind}(levels)"],
        )

    def _staircase(self, channel: str, asked: FloatArray, levels: list[str]) -> Readings:
        """Run a sweep in the trigger model, whose idle level, to which it returns, is zero; level
        by level where it ends at compliance. Raises `InstrumentError` where it forced other levels
        or did not end: a line of the script was lost.
        """
        setup, points = self._setup(channel), asked.size
        stops = self.stop_at_compliance and points > 1
        code = (
            self._until_compliance(channel, asked)
            if stops
            else self._triggered(channel, points, levels)
        )
        readings = self._readings(
            channel, points, code, points * (setup.settle_s + setup.aperture_s + OVERHEAD_S)
        )
        of_volts = setup.function is Function.VOLTAGE
        forced, offset = (readings.volts, 5e-3) if of_volts else (readings.amps, 1e-7)
        wrong = np.abs(forced - asked) > 0.05 * np.max(np.abs(asked)) + offset
        if np.any(wrong & (readings.status == Status.OK)):
            raise InstrumentError(
                f"{self.name}: channel {channel} forced other levels than it was asked for",
                command="sweep",
            )
        limited = np.flatnonzero(readings.status == Status.COMPLIANCE)
        if stops and limited.size and np.any(readings.status[limited[0] + 1 :] != Status.NOT_RUN):
            raise InstrumentError(
                f"{self.name}: channel {channel} went on at compliance", command="sweep"
            )
        return readings

    def _until_compliance(self, channel: str, levels: FloatArray) -> list[str]:
        """Code that takes levels one by one: the trigger model does not look at the limit."""
        smu, kind = f"smu{channel}", self._forces(channel)
        return [
            *_lua_table(levels),
            "for k = 1, table.getn(levels) do",
            f"{smu}.source.level{kind} = levels[k]",
            f"{smu}.measure.iv({smu}.nvbuffer1, {smu}.nvbuffer2)",
            f"if bit.test({smu}.nvbuffer1.statuses[k], {COMPLIANCE_BIT}) then break end",
            "end",
            f"{smu}.source.level{kind} = 0",
        ]

    def _triggered(self, channel: str, points: int, levels: list[str]) -> list[str]:
        smu = f"smu{channel}"
        trigger = f"{smu}.trigger"
        return [
            f"{smu}.source.level{self._forces(channel)} = 0",
            *levels,
            f"{trigger}.source.action = {smu}.ENABLE",
            (
                f"{trigger}.source.limit{'i' if self._forces(channel) == 'v' else 'v'} ="
                f" {smu}.LIMIT_AUTO"
            ),
            f"{trigger}.measure.iv({smu}.nvbuffer1, {smu}.nvbuffer2)",
            f"{trigger}.measure.action = {smu}.ENABLE",
            f"{trigger}.endpulse.action = {smu}.SOURCE_HOLD",
            f"{trigger}.endsweep.action = {smu}.SOURCE_IDLE",
            *(
                f"{trigger}.{layer}.stimulus = 0"
                for layer in ("arm", "source", "measure", "endpulse")
            ),
            f"{trigger}.arm.count = 1",
            f"{trigger}.count = {points}",
            f"{trigger}.initiate()",
            "waitcomplete()",
        ]

    def _readings(self, channel: str, points: int, take: list[str], takes_s: float) -> Readings:
        """Run code that fills both buffers, if the output is on, and fetch them: one transaction.

        Raises `InstrumentError` where the output is off or another number of readings comes.
        """
        smu = f"smu{channel}"
        buffers = [
            line
            for n in (1, 2)
            for line in (
                f"{smu}.nvbuffer{n}.clear()",
                f"{smu}.nvbuffer{n}.appendmode = 1",
                f"{smu}.nvbuffer{n}.collectsourcevalues = 0",
                f"{smu}.nvbuffer{n}.collecttimestamps = 1",
            )
        ]
        code = [
            *buffers,
            f"if {smu}.source.output == {smu}.OUTPUT_ON then",
            *take,
            "end",
            # Time stamps count from the first reading of a buffer.
            f"local base, first = {{}}, {smu}.nvbuffer1.basetimestamp",
            f"for k = 1, {smu}.nvbuffer1.n do base[k] = first end",
        ]
        columns = ", ".join(
            [
                f"{smu}.nvbuffer2.readings",
                f"{smu}.nvbuffer1.readings",
                f"{smu}.nvbuffer1.statuses",
                f"{smu}.nvbuffer1.timestamps",
                "base",
            ]
        )
        # Of both: one that a lost line has not cleared holds earlier readings before these.
        held = f"math.max({smu}.nvbuffer1.n, {smu}.nvbuffer2.n)"
        rows = self.ask_buffers("\n".join(code), columns, held, takes_s=takes_s)
        if len(rows) == 0:
            raise InstrumentError(
                f"{self.name}: the output of channel {channel} is off; nothing was measured"
            )
        if len(rows) > points or (len(rows) < points and not self.stop_at_compliance):
            raise InstrumentError(f"{self.name}: {len(rows)} readings came where {points} should")
        limited = (rows[:, 2].astype(np.int64) & AT_COMPLIANCE) != 0
        readings = Readings.of(rows[:, 0], rows[:, 1], limited, rows[:, 3] + rows[:, 4])
        return readings.ended(points, self.name)

    def _forces(self, channel: str) -> str:
        return "v" if self._setup(channel).function is Function.VOLTAGE else "i"


def _lua_table(levels: FloatArray) -> list[str]:
    """Lines of code that make the table `levels`."""
    words = [number(float(v)) for v in levels]
    lines = [", ".join(words[at : at + LIST_LINE]) + "," for at in range(0, len(words), LIST_LINE)]
    return ["local levels = {", *lines, "}"]
