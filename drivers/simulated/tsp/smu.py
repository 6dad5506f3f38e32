"""One channel of the simulated Series 2600B: source, limit, ranges, measurement, as `smuX` shows
them.

Written from the reference manual 2600BS-901-01 and the specifications SPEC-2602B (see
`keithley_2600b`). The reading is what the terminal truly carries, with a gain and an offset error
of each range drawn once from the serial number, noise, the range's resolution, and 9.91e37 above
102 % of the range. The errors drawn stay well below the specified ones.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..array.terminals import Drive, Sensed
from .buffer import (
    AUTORANGED,
    COMPLIANCE,
    FILTERED,
    RELATIVE,
    REMOTE_SENSE,
    SOURCE_AUTORANGED,
    Buffer,
    Entry,
)
from .lua_values import (
    PARAMETER_TOO_BIG,
    PARAMETER_TOO_SMALL,
    Attribute,
    LuaTable,
    TspError,
    Value,
    boolean,
    number,
)
from .triggers import Process

if TYPE_CHECKING:
    from .instrument import TspInstrument

OVERFLOW = 9.91e37
HEADROOM = 1.01
"""Largest level over the full scale of its range."""
OVER_RANGE = 1.02
"""Largest reading over the full scale of its range. Unverified."""
MOST_COUNT = 1_000_000
CONTACT_OHM = 0.5
CONTACT_S = (1e-3, 5e-3, 20e-3)
"""What a contact check finds, and how long one takes by its speed. Unverified."""
AUTOMATIC_S = 1e-3
"""How long automatic delays are. Unverified."""
BUSY = TspError(5042, "Invalid while overlapped measure")
CONSTANTS = {
    "OUTPUT_OFF": 0.0,
    "OUTPUT_ON": 1.0,
    "OUTPUT_HIGH_Z": 2.0,
    "OUTPUT_NORMAL": 0.0,
    "OUTPUT_ZERO": 1.0,
    "OUTPUT_DCAMPS": 0.0,
    "OUTPUT_DCVOLTS": 1.0,
    "AUTORANGE_OFF": 0.0,
    "AUTORANGE_ON": 1.0,
    "AUTORANGE_FOLLOW_LIMIT": 2.0,
    "SENSE_LOCAL": 0.0,
    "SENSE_REMOTE": 1.0,
    "SENSE_CALA": 3.0,
    "AUTOZERO_OFF": 0.0,
    "AUTOZERO_ONCE": 1.0,
    "AUTOZERO_AUTO": 2.0,
    "DELAY_OFF": 0.0,
    "DELAY_AUTO": -1.0,
    "FILTER_OFF": 0.0,
    "FILTER_ON": 1.0,
    "FILTER_MOVING_AVG": 0.0,
    "FILTER_REPEAT_AVG": 1.0,
    "FILTER_MEDIAN": 2.0,
    "REL_OFF": 0.0,
    "REL_ON": 1.0,
    "SETTLE_SMOOTH": 0.0,
    "SETTLE_FAST_RANGE": 1.0,
    "SETTLE_FAST_POLARITY": 2.0,
    "SETTLE_DIRECT_IRANGE": 3.0,
    "SETTLE_SMOOTH_100NA": 4.0,
    "SETTLE_FAST_ALL": 128.0,
    "OE_NONE": 0.0,
    "OE_OUTPUT_OFF": 1.0,
    "DISABLE": 0.0,
    "ENABLE": 1.0,
    "ASYNC": 2.0,
    "CONTACT_FAST": 0.0,
    "CONTACT_MEDIUM": 1.0,
    "CONTACT_SLOW": 2.0,
    "FILL_ONCE": 0.0,
    "FILL_WINDOW": 1.0,
    "SOURCE_IDLE": 0.0,
    "SOURCE_HOLD": 1.0,
    "LIMIT_AUTO": "auto",
}


@dataclass(frozen=True)
class Abilities:
    """What a family of models can do: ranges (ascending), (V, A) pairs that it gives together,
    smallest limits, defaults.
    """

    volts: tuple[float, ...]
    amps: tuple[float, ...]
    measured_amps: tuple[float, ...]
    envelope: tuple[tuple[float, float], ...]
    smallest_limit_v: float
    smallest_limit_a: float
    default_limit_v: float
    default_limit_a: float
    measure_delay: float = 0.0

    def allows(self, volts: float, amps: float) -> bool:
        """Whether it gives this voltage and this current together."""
        return any(volts <= v * HEADROOM and amps <= a * HEADROOM for v, a in self.envelope)


@dataclass(frozen=True)
class Taken:
    """One measurement of both quantities, before relative offsets: values or 9.91e37, ranges used,
    whether the limit held.
    """

    volts: float
    amps: float
    range_v: float
    range_a: float
    limited: bool
    time_s: float


class Smu:
    """A channel: its state and its table `smuX`."""

    def __init__(self, instrument: TspInstrument, name: str, abilities: Abilities) -> None:
        self.instrument = instrument
        self.name = name
        self.abilities = abilities
        self.terminal = instrument.place.terminal(name)
        self.buffers = (Buffer(), Buffer())
        self.condition = 0
        self.rises = [0] * 16
        """How often each bit of the condition has come to be set."""
        self.is_sweeping = False
        self.overruns = 0
        """Stimuli of its trigger model that were overrun, as bits: arm 1, source 2, measure 3, end
        of pulse 4.
        """
        self._noise = random.Random(f"{instrument.place.serial} {name} noise")
        self._errors: dict[tuple[str, float], tuple[float, float]] = {}
        self._driven = Drive()
        self.overlapped = Process(instrument.events, instrument.fail)
        """A measurement that goes on beside the script."""
        self.default()
        self.table = self._table()

    # State

    def default(self) -> None:
        """Every setting as after a reset, output off."""
        a = self.abilities
        self.output = 0
        self.volts_mode = True
        self.level = {"v": 0.0, "i": 0.0}
        self.limit = {"v": a.default_limit_v, "i": a.default_limit_a, "p": 0.0}
        self.source_auto = {"v": True, "i": True}
        self.source_range = {"v": a.volts[0], "i": a.amps[0]}
        self.source_low = {"v": a.volts[0], "i": a.amps[0]}
        self.measure_auto = {"v": 1.0, "i": 1.0}
        self.measure_range = {"v": a.volts[0], "i": a.measured_amps[0]}
        self.measure_low = {"v": a.volts[0], "i": a.measured_amps[0]}
        self.relative = dict.fromkeys("virp", 0.0)
        self.relative_on = dict.fromkeys("virp", False)
        self.override: float | None = None
        """Level of a sweep in progress."""
        self.plain: dict[str, float] = {
            "nplc": 1.0,
            "count": 1.0,
            "interval": 0.0,
            "measure delay": a.measure_delay,
            "delay factor": 1.0,
            "autozero": 2.0,
            "filter": 0.0,
            "filter count": 1.0,
            "filter type": 1.0,
            "source delay": 0.0,
            "settling": 0.0,
            "highc": 0.0,
            "sink": 0.0,
            "sense": 0.0,
            "off mode": 0.0,
            "off function": 1.0,
            "off limit i": 1e-3,
            "off limit v": 40.0,
            "output enable": 0.0,
            "analog filter": 1.0,
            "high c delay": 10.0,
            "contact speed": 0.0,
            "contact threshold": 50.0,
        }
        self.condition = 0
        self.overlapped.stop()
        for buffer in self.buffers:
            buffer.default()
        self.apply()

    SETTINGS = (
        "volts_mode",
        "level",
        "limit",
        "source_auto",
        "source_range",
        "source_low",
        "measure_auto",
        "measure_range",
        "measure_low",
        "relative",
        "relative_on",
        "plain",
    )
    """What a saved setup holds of a channel; its output is off when one is recalled."""

    def settings(self) -> dict[str, Any]:
        """Every setting as it is now."""
        return copy.deepcopy({name: getattr(self, name) for name in self.SETTINGS})

    def restore(self, settings: dict[str, Any]) -> None:
        """Every setting as `settings` gave it."""
        for name, value in copy.deepcopy(settings).items():
            setattr(self, name, value)
        self.apply()

    @property
    def sourced(self) -> str:
        """What it forces: "v" or "i"."""
        return "v" if self.volts_mode else "i"

    def apply(self) -> None:
        """Let the terminal know what is forced now."""
        if self.output == 1:
            kind = self.sourced
            level = self.level[kind] if self.override is None else self.override
            limit = self.limit["i" if self.volts_mode else "v"]
            if self.limit["p"] and level:
                limit = min(limit, self.limit["p"] / abs(level))
            drive = Drive("voltage" if self.volts_mode else "current", self._given(level), limit)
        elif self.output == 2 or self.plain["off mode"] == 2:
            drive = Drive()
        elif self.plain["off function"] == 0 and self.plain["off mode"] == 0:
            drive = Drive("current", 0.0, self.plain["off limit v"])
        else:
            drive = Drive("voltage", 0.0, self.plain["off limit i"])
        if drive != self._driven:
            self._driven = drive
            self.terminal.drive(drive)

    def _given(self, level: float) -> float:
        """The level as the source's converter gives it: in steps, with the errors of its range."""
        kind = self.sourced
        scale = self._range_for_source(level)
        step = (5e-5 if kind == "v" else 2e-5) * 10.0 ** math.floor(math.log10(scale) + 1e-9)
        gain, offset = self._error(f"source {kind}", scale)
        return round(level / step) * step * (1 + gain) + (offset * scale if level else 0.0)

    def _range_for_source(self, level: float) -> float:
        kind = self.sourced
        if self.source_auto[kind]:
            return self.fitting(kind, level, self.source_low[kind])
        return self.source_range[kind]

    def _error(self, what: str, scale: float) -> tuple[float, float]:
        """Gain and offset error (fraction of the range) of one range, the same for ever."""
        key = (what, scale)
        if key not in self._errors:
            draw = random.Random(f"{self.instrument.place.serial} {self.name} {what} {scale:g}")
            self._errors[key] = (draw.uniform(-2e-5, 2e-5), draw.uniform(-1e-5, 1e-5))
        return self._errors[key]

    def ranges(self, kind: str, *, measured: bool = False) -> tuple[float, ...]:
        """Full scales of one quantity, ascending."""
        a = self.abilities
        return a.volts if kind == "v" else a.measured_amps if measured else a.amps

    def fitting(
        self, kind: str, value: float, lowest: float = 0.0, *, measured: bool = False
    ) -> float:
        """The lowest range from `lowest` on that holds a value; the highest where none does."""
        ranges = self.ranges(kind, measured=measured)
        return next(
            (r for r in ranges if r >= lowest * (1 - 1e-9) and abs(value) <= r * HEADROOM),
            ranges[-1],
        )

    def source_scale(self, kind: str) -> float:
        """The source range in use."""
        return (
            self.fitting(kind, self.level[kind], self.source_low[kind])
            if self.source_auto[kind]
            else self.source_range[kind]
        )

    # Settings with a meaning

    def set_level(self, kind: str, value: Value) -> None:
        """`source.levelY`. Raises `TspError` beyond the range or the operating area."""
        level = number(value)
        self.check_level(kind, level)
        self.level[kind] = level
        if kind == self.sourced and self.output == 1:
            self.override = None
            self.apply()
            self.instrument.elapse(self.delay_s("source delay"))
        self.apply()

    def check_level(self, kind: str, level: float) -> None:
        """Refuse a level that does not fit: `TspError` 1101, 5005, 5007."""
        if math.isnan(level):
            raise TspError(-224, "Illegal Parameter Value")
        if abs(level) > self.ranges(kind)[-1] * HEADROOM:
            raise PARAMETER_TOO_BIG if level > 0 else PARAMETER_TOO_SMALL
        if not self.source_auto[kind] and abs(level) > self.source_range[kind] * HEADROOM:
            raise TspError(5005, "Value too big for range")
        other = self.limit["i" if kind == "v" else "v"]
        if kind == self.sourced:
            self._check_area(*((abs(level), other) if kind == "v" else (other, abs(level))))

    def _check_area(self, volts: float, amps: float) -> None:
        if not self.abilities.allows(volts, amps):
            raise TspError(5007, "Operation would exceed safe operating area of the instrument")

    def set_limit(self, kind: str, value: Value) -> None:
        """`source.limitY`. Raises `TspError` outside what the model allows."""
        a = self.abilities
        smallest = a.smallest_limit_v if kind == "v" else a.smallest_limit_a
        limit = number(value, smallest * (1 - 1e-9), self.ranges(kind)[-1] * HEADROOM)
        if kind != self.sourced:
            level = abs(self.level[self.sourced])
            self._check_area(*((level, limit) if kind == "i" else (limit, level)))
        self.limit[kind] = limit
        self.apply()

    def set_function(self, value: Value) -> None:
        """`source.func`: 0 is current, 1 voltage."""
        volts_mode = number(value, 0, 1) == 1
        if volts_mode != self.volts_mode:
            pair = (
                (abs(self.level["v"]), self.limit["i"])
                if volts_mode
                else (self.limit["v"], abs(self.level["i"]))
            )
            self._check_area(*pair)
        self.volts_mode = volts_mode
        self.apply()

    def set_source_range(self, kind: str, value: Value) -> None:
        """`source.rangeY`: the lowest range that holds the value; automatic choice ends."""
        wanted = abs(number(value))
        if wanted > self.ranges(kind)[-1] * HEADROOM:
            raise PARAMETER_TOO_BIG
        scale = self.fitting(kind, wanted)
        if abs(self.level[kind]) > scale * HEADROOM:
            raise TspError(5005, "Value too big for range")
        self.source_range[kind] = scale
        self.source_auto[kind] = False
        self.apply()

    def set_source_auto(self, kind: str, value: Value) -> None:
        """`source.autorangeY`; switched off, the range in use stays."""
        self.source_range[kind] = self.source_scale(kind)
        self.source_auto[kind] = boolean(value)
        self.apply()

    def set_measure_range(self, kind: str, value: Value) -> None:
        """`measure.rangeY`: the lowest range that holds the value; automatic choice ends."""
        wanted = abs(number(value))
        if wanted > self.ranges(kind, measured=True)[-1] * HEADROOM:
            raise PARAMETER_TOO_BIG
        self.measure_range[kind] = self.fitting(kind, wanted, measured=True)
        self.measure_auto[kind] = 0.0

    def set_output(self, value: Value) -> None:
        """`source.output`: 0 off, 1 on, 2 off and open."""
        self.output = int(number(value, 0, 2))
        self.override = None
        self.apply()

    def delay_s(self, name: str) -> float:
        """One of its delays (s); an automatic one is 1 ms."""
        seconds = self.plain[name]
        return AUTOMATIC_S if seconds < 0 else seconds

    # Measuring

    def sense(self) -> Sensed:
        """What the terminal carries now; sets the limit bits of the condition register."""
        sensed = self.terminal.sense()
        on = self.output == 1
        held = (2 if self.volts_mode else 1) if on and sensed.limited else 0
        self._mark(3, held)
        return sensed

    def _mark(self, bits: int, now: int) -> None:
        """Set these bits of the condition as they are now, and count those that come to be set."""
        risen = now & ~self.condition
        self.condition = self.condition & ~bits | now
        if risen:
            for bit in range(risen.bit_length()):
                self.rises[bit] += risen >> bit & 1

    @property
    def condition_bits(self) -> int:
        """Limits, overflow, readings in the dedicated buffers."""
        return self.condition | (256 if any(buffer.entries for buffer in self.buffers) else 0)

    @property
    def is_measuring(self) -> bool:
        """Whether an overlapped measurement is under way."""
        return self.overlapped.is_running

    @property
    def in_compliance(self) -> bool:
        """`source.compliance`: whether the limit holds the output now."""
        return self.output == 1 and self.sense().limited

    def measuring_s(self) -> float:
        """How long one measurement takes: delay and aperture."""
        times = int(self.plain["filter count"]) if self.plain["filter"] else 1
        aperture_s = self.plain["nplc"] / self.instrument.place.line_hz
        return self.delay_s("measure delay") + aperture_s * times

    def take(self) -> Taken:
        """One measurement of both quantities, at the end of its aperture."""
        sensed = self.sense()
        volts, range_v = self._reading("v", sensed.volts)
        amps, range_a = self._reading("i", sensed.amps)
        self._mark(128, 128 if OVERFLOW in (abs(volts), abs(amps)) else 0)
        limited = self.output == 1 and sensed.limited
        return Taken(volts, amps, range_v, range_a, limited, self.instrument.place.bus.clock.now_s)

    def measure_scale(self, kind: str, value: float | None = None) -> float:
        """The measuring range: that of the source where it forces the same, else the one chosen or
        found.
        """
        if kind == self.sourced and self.output == 1:
            level = self.level[kind] if self.override is None else self.override
            return self._range_for_source(level)
        if not self.measure_auto[kind]:
            return self.measure_range[kind]
        if self.measure_auto[kind] == 2:
            return self.fitting(kind, self.limit[kind], self.measure_low[kind], measured=True)
        if value is None:
            return self.measure_range[kind]
        return self.fitting(kind, value, self.measure_low[kind], measured=True)

    def _reading(self, kind: str, true: float) -> tuple[float, float]:
        scale = self.measure_scale(kind, true)
        if self.measure_auto[kind]:
            self.measure_range[kind] = scale
        gain, offset = self._error(f"measure {kind}", scale)
        averaged = self.plain["nplc"] * (
            self.plain["filter count"] if self.plain["filter"] else 1.0
        )
        noise = self._noise.gauss(0.0, 2e-6 * min(5.0, 1 / math.sqrt(averaged)))
        value = true * (1 + gain) + (offset + noise) * scale
        if abs(value) > scale * OVER_RANGE:
            return math.copysign(OVERFLOW, value), scale
        step = scale * 1e-6
        return round(value / step) * step, scale

    def value(self, taken: Taken, kind: str) -> float:
        """Volts, amperes, ohms or watts of a measurement, relative offset taken away."""
        volts, amps = taken.volts, taken.amps
        if kind in "vi":
            result = volts if kind == "v" else amps
        elif OVERFLOW in (abs(volts), abs(amps)):
            result = OVERFLOW
        elif kind == "r":
            result = volts / amps if amps else OVERFLOW
        else:
            result = volts * amps
        if self.relative_on[kind] and abs(result) < OVERFLOW:
            result -= self.relative[kind]
        return result

    def entry(self, taken: Taken, kind: str) -> Entry:
        """A measurement as a buffer keeps it."""
        level = self.level[self.sourced] if self.override is None else self.override
        status = COMPLIANCE if taken.limited else 0
        if self.measure_auto.get(kind, 0.0) and kind != self.sourced:
            status |= AUTORANGED
        if self.source_auto[self.sourced]:
            status |= SOURCE_AUTORANGED
        status |= REMOTE_SENSE if self.plain["sense"] == 1 else 0
        status |= RELATIVE if self.relative_on[kind] else 0
        status |= FILTERED if self.plain["filter"] else 0
        names = {"v": "Voltage", "i": "Current", "r": "Resistance", "p": "Power"}
        return Entry(
            self.value(taken, kind),
            taken.time_s,
            level,
            status,
            taken.range_v if kind == "v" else taken.range_a,
            self._range_for_source(level),
            names[kind],
            names[self.sourced],
            "On" if self.output == 1 else "Off",
        )

    def measure(self, kinds: str, buffers: tuple[Value, ...]) -> tuple[float, ...]:
        """`measure.v()` and its like: `count` measurements, the last one returned, all stored in
        the buffers given.
        """
        given = self._begun(kinds, buffers)
        course = self.readings(kinds, given)
        while True:
            try:
                self.instrument.elapse(next(course))
            except StopIteration as end:
                return tuple(self.value(end.value, kind) for kind in kinds)

    def readings(self, kinds: str, buffers: list[Buffer]) -> Generator[float, None, Taken]:
        """`count` measurements, `interval` apart where that is longer, stored in the buffers; the
        last one. Stops at each time (s) that they take.
        """
        measuring_s = self.measuring_s()
        for left in reversed(range(int(self.plain["count"]))):
            yield measuring_s
            taken = self.take()
            self.keep(taken, kinds, buffers)
            if left and self.plain["interval"] > measuring_s:
                yield self.plain["interval"] - measuring_s
        return taken

    def keep(self, taken: Taken, kinds: str, buffers: list[Buffer]) -> None:
        """Store a measurement: one quantity in each buffer."""
        for kind, buffer in zip(kinds, buffers, strict=False):
            if buffer in self.buffers and not buffer.entries:
                self.rises[8] += 1
            buffer.store(self.entry(taken, kind))

    def buffer(self, value: Value) -> Buffer:
        """A reading buffer that a script names. Raises `TspError` 5033 for what is none."""
        if not isinstance(value, Buffer):
            raise TspError(5033, "Reading buffer not found within device")
        return value

    # The tables

    def _table(self) -> LuaTable:
        return LuaTable(
            {
                **CONSTANTS,
                "nvbuffer1": self.buffers[0],
                "nvbuffer2": self.buffers[1],
                "makebuffer": lambda size: Buffer(int(number(size, 1, WITHOUT_LIMIT))),
                "savebuffer": lambda buffer: None,
                "buffer": LuaTable(
                    {
                        "getstats": lambda buffer: self.buffer(buffer).statistics(),
                        "recalculatestats": lambda buffer: self.buffer(buffer) and None,
                    },
                    sealed=True,
                ),
                "contact": self._contact_table(),
                "reset": self.default,
                "source": self._source_table(),
                "measure": self._measure_table(),
                **{
                    f"measure{kinds}andstep": partial(self._and_step, kinds)
                    for kinds in ("v", "i", "r", "p", "iv")
                },
                "trigger": LuaTable(),
                "abort": lambda: None,
            },
            self._plain("sense", "sense", 0, 3),
        )

    def _and_step(self, kinds: str, *arguments: Value) -> tuple[float, ...]:
        if not arguments:
            raise TspError(-109, "Missing Parameter")
        readings = self.measure(kinds, arguments[:-1])
        self.set_level(self.sourced, arguments[-1])
        return readings

    def _plain(
        self, name: str, key: str, low: float, high: float, *, whole: bool = True
    ) -> dict[str, Attribute]:
        """A setting that is a number between two limits."""

        def put(value: Value) -> None:
            setting = float(value) if isinstance(value, bool) else number(value, low, high)
            self.plain[key] = float(round(setting)) if whole else setting
            self.apply()

        return {name: (lambda: self.plain[key], put)}

    def _contact_table(self) -> LuaTable:
        """`contact`: the loads behind simulated terminals have contacts of one resistance."""

        def resistances() -> tuple[float, float]:
            self.instrument.elapse(CONTACT_S[int(self.plain["contact speed"])])
            return CONTACT_OHM, CONTACT_OHM

        return LuaTable(
            {
                "r": resistances,
                "check": lambda: max(resistances()) < self.plain["contact threshold"],
            },
            {
                **self._plain("speed", "contact speed", 0, 2),
                **self._plain("threshold", "contact threshold", 0.0, 1e37, whole=False),
            },
            sealed=True,
        )

    def _source_table(self) -> LuaTable:
        return LuaTable(
            attributes={
                **self._sources("v"),
                **self._sources("i"),
                "limitp": (lambda: self.limit["p"], self._set_power_limit),
                "func": (lambda: float(self.volts_mode), self.set_function),
                "output": (lambda: float(self.output), self.set_output),
                "compliance": (lambda: self.in_compliance, None),
                **self._plain("delay", "source delay", -1.0, 100_000.0, whole=False),
                **self._plain("settling", "settling", 0, 128),
                **self._plain("highc", "highc", 0, 1),
                **self._plain("sink", "sink", 0, 1),
                **self._plain("offmode", "off mode", 0, 2),
                **self._plain("offfunc", "off function", 0, 1),
                **self._plain("outputenableaction", "output enable", 0, 1),
            },
            sealed=True,
        )

    def _sources(self, kind: str) -> dict[str, Attribute]:
        """Attributes of `source` that are there for each quantity."""
        most = self.ranges(kind)[-1] * HEADROOM
        return {
            f"level{kind}": (lambda: self.level[kind], partial(self.set_level, kind)),
            f"limit{kind}": (lambda: self.limit[kind], partial(self.set_limit, kind)),
            f"range{kind}": (
                lambda: self.source_scale(kind),
                partial(self.set_source_range, kind),
            ),
            f"autorange{kind}": (
                lambda: float(self.source_auto[kind]),
                partial(self.set_source_auto, kind),
            ),
            **self._lowest(self.source_low, kind, measured=False),
            **self._plain(f"offlimit{kind}", f"off limit {kind}", 0.0, most, whole=False),
        }

    def _set_power_limit(self, value: Value) -> None:
        self.limit["p"] = number(value, 0.0, 1e3)
        self.apply()

    def _lowest(self, kept: dict[str, float], kind: str, *, measured: bool) -> dict[str, Attribute]:
        def put(value: Value) -> None:
            kept[kind] = self.fitting(kind, abs(number(value)), measured=measured)

        return {f"lowrange{kind}": (lambda: kept[kind], put)}

    def _measure_table(self) -> LuaTable:
        values: dict[str, Value] = {}
        for kinds in ("v", "i", "r", "p", "iv"):
            values[kinds] = lambda *buffers, k=kinds: self.measure(k, buffers)
            values[f"overlapped{kinds}"] = partial(self._overlapped, kinds)
        values |= {"filter": self._filter_table(), "rel": self._relative_table()}
        return LuaTable(
            values,
            {
                **self._measures("v"),
                **self._measures("i"),
                **self._plain("nplc", "nplc", 0.001, 25.0, whole=False),
                **self._plain("count", "count", 1, MOST_COUNT),
                **self._plain("interval", "interval", 0.0, 1.0, whole=False),
                **self._plain("delay", "measure delay", -1.0, 100_000.0, whole=False),
                **self._plain("delayfactor", "delay factor", 0.0, 1e3, whole=False),
                **self._plain("autozero", "autozero", 0, 2),
                **self._plain("analogfilter", "analog filter", 0, 1),
                **self._plain("highcrangedelayfactor", "high c delay", 1.0, 99.0, whole=False),
            },
            sealed=True,
        )

    def _measures(self, kind: str) -> dict[str, Attribute]:
        """Attributes of `measure` that are there for volts and for amperes."""
        return {
            f"range{kind}": (
                lambda: self.measure_scale(kind),
                partial(self.set_measure_range, kind),
            ),
            f"autorange{kind}": (
                lambda: self.measure_auto[kind],
                partial(self._set_measure_auto, kind),
            ),
            **self._lowest(self.measure_low, kind, measured=True),
        }

    def _begun(self, kinds: str, buffers: tuple[Value, ...]) -> list[Buffer]:
        """The buffers that a measurement is about to fill."""
        if self.overlapped.is_running:
            raise BUSY
        given = [self.buffer(b) for b in buffers if b is not None]
        if len(given) > len(kinds):
            raise TspError(-108, "Parameter Not Allowed")
        for buffer in given:
            buffer.begin()
        return given

    def _overlapped(self, kinds: str, *buffers: Value) -> None:
        self.overlapped.start(self.readings(kinds, self._begun(kinds, buffers)))

    def _set_measure_auto(self, kind: str, value: Value) -> None:
        self.measure_range[kind] = self.measure_scale(kind)
        self.measure_auto[kind] = (
            float(value) if isinstance(value, bool) else float(int(number(value, 0, 2)))
        )

    def _filter_table(self) -> LuaTable:
        return LuaTable(
            attributes={
                **self._plain("enable", "filter", 0, 1),
                **self._plain("count", "filter count", 1, 100),
                **self._plain("type", "filter type", 0, 2),
            },
            sealed=True,
        )

    def _relative_table(self) -> LuaTable:
        return LuaTable(
            attributes={name: it for kind in "virp" for name, it in self._relatives(kind).items()},
            sealed=True,
        )

    def _relatives(self, kind: str) -> dict[str, Attribute]:
        """Attributes of `measure.rel` that are there for each quantity."""

        def level(value: Value) -> None:
            self.relative[kind] = number(value)

        def enable(value: Value) -> None:
            self.relative_on[kind] = boolean(value)

        return {
            f"level{kind}": (lambda: self.relative[kind], level),
            f"enable{kind}": (lambda: float(self.relative_on[kind]), enable),
        }


WITHOUT_LIMIT = 1_000_000
"""Largest dynamic buffer that is made; the instrument's memory sets the limit."""
