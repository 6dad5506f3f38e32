"""Simulated Keithley 2450, 2460, 2461 and 2470 SourceMeters with their SCPI command set.

Written from the Model 2450 Reference Manual 2450-901-01 Rev. B (section 6, appendix B), the 2461
and 2470 manuals' section on the same commands, and SPEC-2450 Rev. A. Trigger blocks, lists of
settings and digital lines are in `scpi/`. Unverified, for no page was opened: ranges, accuracy and
envelope of the 2460 and 2461 (limits are those of the 2461, page 6-94); that a sweep clears its
buffer, switches the output on before its first point and off behind its last; times of auto delay
and autozero; the codes of warnings; how numbers of status elements are written; the blocks of the
templates `ConfigList` and `LogicTrigger`; which settings lists of them hold beside those of
2450-901-01 page 3-36.
"""

from __future__ import annotations

import copy
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from .array.terminals import Drive, Place
from .scpi.digital_lines import DigitalLines
from .scpi.instrument import (
    EXECUTION,
    ILLEGAL,
    PARAMETER,
    UNFORESEEN,
    Call,
    Handler,
    ScpiError,
    not_simulated,
)
from .scpi.keithley_smu import (
    LIST_LENGTH,
    OTHER,
    OVERFLOW,
    Envelope,
    KeithleySmu,
    Meter,
    Scale,
    Setting,
    function_word,
    most_beside,
)
from .scpi.trigger_blocks import Blocks, event_of
from .scpi.trigger_model import ConfigLists, State, TriggerModel
from .tsp.smu_2450 import Tsp2450

EPOCH = datetime(2026, 1, 1)
AUTO_DELAY_S = 1e-3
ELEMENT = ScpiError(1133, "Parameter 4, Syntax error, expected valid name parameters")
WARNING = 2
COUNT = "[:SENSe#]:COUNt"
PROTECTION = ":SOURce#:VOLTage:PROTection[:LEVel]"
FUNCTIONS = ("VOLTage", "CURRent", "RESistance")
BINARY_ELEMENTS = ("READ", "REL", "SOUR")
QUESTIONABLE, FRONT = 1, 8
PROTECTED, READ_BACK, LIMITED, FOUR_WIRE, OUTPUT = 4, 8, 32, 64, 128


@dataclass(frozen=True)
class Family:
    """Ranges, envelope (V, A) and limits of one model."""

    volts: tuple[Scale, ...]
    amps: tuple[Scale, ...]
    envelope: Envelope
    least: dict[str, float]
    """Smallest limit of the quantity."""
    start: dict[str, float]
    """Limit of the quantity after a reset."""
    least_part: float = 0.1
    """A limit below this part of a fixed measuring range is not kept (SPEC-2450 page 3; 2470-901-01
    page 12-78).
    """


VOLTS = (
    Scale(0.2, 100e-9, 1.2e-4, 200e-6),
    Scale(2.0, 1e-6, 1.2e-4, 300e-6),
    Scale(20.0, 10e-6, 1.5e-4, 1e-3),
    Scale(200.0, 100e-6, 1.5e-4, 10e-3),
)
AMPS = (
    Scale(1e-6, 1e-12, 2.5e-4, 300e-12),
    Scale(1e-5, 10e-12, 2.5e-4, 700e-12),
    Scale(1e-4, 100e-12, 2e-4, 6e-9),
    Scale(1e-3, 1e-9, 2e-4, 60e-9),
    Scale(1e-2, 10e-9, 2e-4, 600e-9),
    Scale(0.1, 100e-9, 2.5e-4, 6e-6),
    Scale(1.0, 1e-6, 3e-4, 500e-6),
)
_20_W = ((21.0, 1.05), (210.0, 0.105))
_2460 = Family(
    volts=(
        Scale(0.2, 100e-9, 1.2e-4, 200e-6),
        Scale(2.0, 1e-6, 1.2e-4, 300e-6),
        Scale(7.0, 10e-6, 1.5e-4, 1e-3),
        Scale(10.0, 10e-6, 1.5e-4, 1e-3),
        Scale(20.0, 10e-6, 1.5e-4, 1e-3),
        Scale(100.0, 100e-6, 1.5e-4, 5e-3),
    ),
    amps=(
        Scale(1e-6, 1e-12, 2.5e-4, 700e-12),
        Scale(1e-5, 10e-12, 2.5e-4, 1.5e-9),
        Scale(1e-4, 100e-12, 2e-4, 15e-9),
        Scale(1e-3, 1e-9, 2e-4, 150e-9),
        Scale(1e-2, 10e-9, 2e-4, 1.5e-6),
        Scale(0.1, 100e-9, 2.5e-4, 15e-6),
        Scale(1.0, 1e-6, 5e-4, 500e-6),
        Scale(4.0, 10e-6, 1e-3, 5e-3),
        Scale(5.0, 10e-6, 1e-3, 5e-3),
        Scale(7.0, 10e-6, 1.5e-3, 5e-3),
    ),
    envelope=((7.35, 7.35), (10.5, 5.25), (21.0, 4.2), (105.0, 1.05)),
    least={"CURR": 1e-6, "VOLT": 0.2},
    start={"CURR": 1.05e-4, "VOLT": 7.35},
)
FAMILIES = {
    "2450": Family(
        volts=(Scale(0.02, 10e-9, 1e-3, 150e-6), *VOLTS),
        amps=(Scale(1e-8, 10e-15, 1e-3, 50e-12), Scale(1e-7, 100e-15, 6e-4, 100e-12), *AMPS),
        envelope=_20_W,
        least={"CURR": 1e-9, "VOLT": 0.02},
        start={"CURR": 1.05e-4, "VOLT": 21.0},
    ),
    "2460": _2460,
    "2461": _2460,
    "2470": Family(
        volts=(*VOLTS, Scale(1000.0, 10e-3, 1.5e-4, 50e-3, over=1.1)),
        amps=(Scale(1e-8, 10e-15, 1e-3, 250e-12), Scale(1e-7, 100e-15, 6e-4, 300e-12), *AMPS),
        envelope=(*_20_W, (1100.0, 0.021)),
        least={"CURR": 1.06e-9, "VOLT": 0.0212},
        start={"CURR": 1.05e-4, "VOLT": 0.21},
        least_part=0.106,
    ),
}


class Event(ScpiError):  # noqa: N818 (the manual calls it so)
    """An entry of the event log: error (1), warning (2) or information (4), and when (s of the
    virtual clock).
    """

    def __init__(self, code: int, text: str, kind: int, at_s: float) -> None:
        super().__init__(code, text)
        self.kind = kind
        self.at_s = at_s

    @override
    def __str__(self) -> str:
        stamp = f"{_stamp(self.at_s):%Y/%m/%d %H:%M:%S}.{_fraction(self.at_s)[:3]}"
        return f'{self.code},"{self.text};{self.kind};{stamp}"'


@dataclass(frozen=True)
class Reading:
    """One reading of a buffer."""

    value: float
    source: float
    at_s: float
    status: int
    source_status: int
    unit: str
    source_unit: str


@dataclass
class Buffer:
    """A reading buffer; `size` readings, then it fills from the start again."""

    size: int = 100_000
    readings: list[Reading] = field(default_factory=list)

    def add(self, reading: Reading) -> None:
        """Store a reading."""
        self.readings.append(reading)
        del self.readings[: max(0, len(self.readings) - self.size)]


def _settings() -> tuple[Setting, ...]:
    listed = [
        Setting(":FORMat[:DATA]", "ASC", words=("ASCii", "REAL", "SREal")),
        Setting(":FORMat:BORDer", "SWAP", words=("NORMal", "SWAPped")),
        Setting(":FORMat:ASCii:PRECision", 0.0, 0, 16, is_integer=True),
        Setting(COUNT, 1.0, 1, 300_000, is_integer=True),
        Setting(":SYSTem:BEEPer:STATe", True),
        Setting(
            ":DISPlay:LIGHt:STATe",
            "ON50",
            words=("ON100", "ON75", "ON50", "ON25", "OFF", "BLACkout"),
        ),
    ]
    for word in FUNCTIONS:
        sense = f"[:SENSe#]:{word}[:DC]" if word[0] != "R" else f"[:SENSe#]:{word}"
        listed += [
            Setting(f"{sense}:NPLCycles", 1.0, 0.01, 10.0),
            Setting(f"{sense}:RSENse", False),
            Setting(f"{sense}:AZERo[:STATe]", True),
            Setting(f"{sense}:AVERage[:STATe]", False),
            Setting(f"{sense}:AVERage:COUNt", 10.0, 1, 100, is_integer=True),
            Setting(f"{sense}:AVERage:TCONtrol", "REP", words=("REPeat", "MOVing")),
            Setting(
                f"{sense}:UNIT",
                {"V": "VOLT", "C": "AMP", "R": "OHM"}[word[0]],
                words=("VOLT", "AMP", "OHM", "WATT"),
            ),
            *(Setting(f"{sense}:DELay:USER{n}", 0.0, 0, 1e4) for n in range(1, 6)),
        ]
        if word[0] == "R":
            listed += [
                Setting(f"{sense}:RANGe[:UPPer]", 2.1e8, 0, 2.1e8),
                Setting(f"{sense}:RANGe:AUTO", True),
                Setting(f"{sense}:OCOMpensated", False),
            ]
            continue
        source = f":SOURce#:{word}"
        listed += [
            Setting(f"{source}:DELay:AUTO", True),
            Setting(f"{source}:READ:BACK", True),
            Setting(f"{source}:HIGH:CAPacitance", False),
            Setting(
                f":OUTPut#:{word}:SMODe", "NORM", words=("NORMal", "HIMPedance", "ZERO", "GUARd")
            ),
            *(Setting(f"{source}:DELay:USER{n}", 0.0, 0, 1e4) for n in range(1, 6)),
        ]
    guards = (2, 5, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180)
    protection = Setting(
        PROTECTION,
        "NONE",
        words=(*(f"PROT{volts}" for volts in guards), "NONE"),
    )
    return (*listed, protection)


class Simulated2450(KeithleySmu):
    """One of the family with the command set SCPI; `language` says which one it was switched on
    with.
    """

    MODELS: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    QUEUE = 1000
    NO_ERROR = '0,"No error;0;0 0"'
    SETTINGS = _settings()

    def __init__(self, model: str, place: Place) -> None:
        self.family = FAMILIES[model]
        self.language = self.next_language = "SCPI"
        self.model_blocks = TriggerModel()
        self.blocks = Blocks(self)
        self.lines = DigitalLines(place, self._on_event)
        self.config_lists = {
            "source": ConfigLists(self._source_settings, self._take_settings),
            "measure": ConfigLists(self._measure_settings, self._take_settings),
        }
        super().__init__(model, place)

    @override
    def make_meters(self, model: str, seed: int) -> dict[str, Meter]:
        return {"VOLT": Meter(self.family.volts, seed), "CURR": Meter(self.family.amps, seed + 1)}

    @override
    def identification(self) -> str:
        name = self.pretends or f"MODEL {self.model}"
        return f"KEITHLEY INSTRUMENTS INC.,{name},{self.place.serial},1.7.12b"

    @override
    def message(self, line: str) -> str | bytes:
        """Answer a message in the command set that it was switched on with."""
        if line.lstrip().startswith("*") or self.language == "SCPI":
            return self.scpi(line)
        if self.language == "TSP":
            return self.tsp.message(line)
        self.push(ScpiError(-113, "Undefined header; SCPI2400 is not simulated"))
        return ""

    def scpi(self, line: str) -> str | bytes:
        """Answer a message in SCPI."""
        if self.model_blocks.state is State.RUNNING:
            self._guarded(self.model_blocks.go_on)
        return super().message(line)

    @override
    def power_cycle(self) -> None:
        """The command set that `*LANG` chose is the one that it comes back with."""
        self.language = self.next_language
        self.__dict__.pop("tsp", None)
        self.reset()
        self.queue.clear()

    @cached_property
    def tsp(self) -> Tsp2450:
        """What it is with the command set TSP."""
        return Tsp2450(self)

    @override
    def reset(self) -> None:
        first = {"VOLT": self.family.volts[1], "CURR": self.meters["CURR"].fitting(1e-4)}
        self.source_scale, self.sense_scale = dict(first), dict(first)
        self.limits = dict(self.family.start)
        self.delays_s = {"VOLT": 0.0, "CURR": 0.0}
        self.sensed = "CURR"
        self.buffers = {"defbuffer1": Buffer(), "defbuffer2": Buffer()}
        self.loaded: Callable[[], None] | None = None
        self.blocks.clear()
        self.lines.clear()
        for lists in self.config_lists.values():
            lists.clear()
        super().reset()

    @override
    def protection_v(self) -> float:
        level = str(self.values[PROTECTION])
        return math.inf if level == "NONE" else float(level.removeprefix("PROT"))

    def _set_protection(self, call: Call) -> None:
        self._put(next(s for s in self.SETTINGS if s.pattern == PROTECTION), call)
        self.apply()

    def _is_protected(self) -> bool:
        """Whether the overvoltage protection holds the output."""
        most = self.protection_v()
        if self.function == "VOLT":
            return self.is_on and abs(self.levels["VOLT"]) > most
        return most < self.limits["VOLT"] and self.is_limited()

    @override
    def limit_now(self) -> float:
        return self.limits[OTHER[self.function]]

    @override
    def resting(self) -> Drive:
        """Manual page 2-82, output-off states."""
        word = "VOLTage" if self.function == "VOLT" else "CURRent"
        state = self.values[f":OUTPut#:{word}:SMODe"]
        if state == "HIMP":
            return Drive()
        if state == "GUAR":
            return Drive("current", 0.0, 0.1 * self.source_scale["VOLT"].full)
        return Drive(
            "voltage",
            0.0,
            0.1 * self.sense_scale["CURR"].full if state == "NORM" else self.limits["CURR"],
        )

    @override
    def push(self, error: ScpiError) -> None:
        super().push(Event(error.code, error.text, 1, self.now_s))

    def warn(self, code: int, text: str) -> None:
        """Put a warning into the event log; `:SYST:ERR?` does not tell it."""
        if len(self.queue) < self.QUEUE:
            self.queue.append(Event(code, text, WARNING, self.now_s))

    @override
    def next_error(self, _: Call | None = None) -> str:
        """The next error of the log; what is older is passed over."""
        while self.queue:
            entry = self.queue.popleft()
            if not isinstance(entry, Event):
                return str(Event(entry.code, entry.text, 1, self.now_s))
            if entry.kind == 1:
                return str(entry)
        return self.NO_ERROR

    @override
    def summary(self) -> int:
        """Warnings set no bit."""
        return super().summary() & ~4 | (4 if self._error_count() else 0)

    @override
    def actions(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {
            "*LANG": self._set_language,
            "*LANG?": lambda _: self.language,
            "*TRG": lambda _: self._on_event("COMM"),
            ":SOURce#:FUNCtion[:MODE]": self._set_function,
            ":SOURce#:FUNCtion[:MODE]?": lambda _: self.function,
            PROTECTION: self._set_protection,
            f"{PROTECTION}:TRIPped?": lambda _: str(int(self._is_protected())),
            "[:SENSe#]:FUNCtion[:ON]": self._set_sense,
            "[:SENSe#]:FUNCtion[:ON]?": lambda _: (
                '"RES"' if self.sensed == "RES" else f'"{self.sensed}:DC"'
            ),
            "[:SENSe#]:AZERo:ONCE": lambda _: self._zero(),
            ":READ?": self._read,
            ":MEASure?": self._read,
            ":FETCh?": self._fetch,
            ":INITiate[:IMMediate]": lambda _: self._initiate(),
            ":ABORt": lambda _: self.model_blocks.abort(),
            ":TRIGger:LOAD": self._load,
            ":TRIGger:STATe?": lambda _: self._told_state(),
            **self.blocks.commands(),
            **self.lines.commands(event_of),
            **self.config_lists["source"].commands(":SOURce#"),
            **self.config_lists["measure"].commands("[:SENSe#]"),
            ":TRACe:MAKE": self._make_buffer,
            ":TRACe:DELete": self._delete_buffer,
            ":TRACe:CLEar": lambda c: self.buffer(c, 0).readings.clear(),
            ":TRACe:POINts": self._set_points,
            ":TRACe:POINts?": lambda c: str(self.buffer(c, 0).size),
            ":TRACe:ACTual?": lambda c: str(len(self.buffer(c, 0).readings)),
            ":TRACe:TRIGger": lambda c: self.take(
                self.buffer(c, 0), round(float(self.values[COUNT]))
            ),
            ":TRACe:DATA?": self._data,
            ":OUTPut#[:STATe]": lambda c: self.switch(c.switch()),
            ":OUTPut#[:STATe]?": lambda _: str(int(self.is_on)),
            ":OUTPut#:INTerlock:TRIPped?": lambda _: "0",
            ":ROUTe:TERMinals": self.set_terminals,
            ":ROUTe:TERMinals?": lambda _: self.terminals,
            ":SYSTem:LFRequency?": lambda _: f"{self.place.line_hz:.0f}",
            ":SYSTem:VERSion?": lambda _: "1996.0",
            ":SYSTem:TIME?": lambda _: (
                f"{(_stamp(self.now_s) - datetime(1970, 1, 1)).total_seconds():.0f}"
            ),
            ":SYSTem:BEEPer[:IMMediate]": self._beep,
            ":SYSTem:CLEar": lambda _: self.queue.clear(),
            ":SYSTem:ERRor:COUNt?": lambda _: str(self._error_count()),
            ":SYSTem:ERRor:CODE[:NEXT]?": lambda _: self.next_error().partition(",")[0],
            ":SYSTem:EVENtlog:NEXT?": lambda _: (
                str(self.queue.popleft()) if self.queue else '0,"No error;0,0,0"'
            ),
            ":SYSTem:EVENtlog:COUNt?": lambda _: str(len(self.queue)),
            ":SYSTem:EVENtlog:POST": lambda c: self._post(c),
            ":STATus:PRESet": lambda _: None,
            ":STATus:CLEar": lambda _: None,
            ":STATus:OPERation[:EVENt]?": lambda _: "0",
            ":STATus:OPERation:CONDition?": lambda _: "0",
            ":STATus:QUEStionable[:EVENt]?": lambda _: "0",
            ":STATus:QUEStionable:CONDition?": lambda _: "0",
            ":DISPlay:SCReen": lambda _: None,
            ":DISPlay:CLEar": lambda _: None,
            ":DISPlay:USER#:TEXT[:DATA]": lambda _: None,
        }
        for how, of in (
            ("AVERage", np.mean),
            ("MAXimum", np.max),
            ("MINimum", np.min),
            ("STDDev", np.std),
        ):
            table[f":TRACe:STATistics:{how}?"] = partial(self._statistic, of)
        for word in FUNCTIONS:
            short = "RES" if word[0] == "R" else word[:4]
            dc = "" if word[0] == "R" else "[:DC]"
            table[f":MEASure:{word}{dc}?"] = partial(self._measured, short)
            if short != "RES":
                table |= self._of_quantity(word)
        return table

    def _of_quantity(self, word: str) -> dict[str, Handler]:
        """Source and sense commands of "VOLTage" or "CURRent"."""
        q = word[:4]
        other = OTHER[q]
        source, sense = f":SOURce#:{word}", f"[:SENSe#]:{word}[:DC]"
        limit = f"{source}:{'I' if q == 'VOLT' else 'V'}LIMit[:LEVel]"
        top = self.meters[q].scales[-1].top
        most = self.meters[other].scales[-1].top
        return self.source_commands(word) | {
            f"{source}:RANGe": lambda c: self.set_source_range(c, q),
            f"{source}:RANGe?": lambda c: self.number_reply(
                c, self.source_scale[q].full, 0, top, top
            ),
            f"{source}:DELay": lambda c: self._set_delay(c, q, word),
            f"{source}:DELay?": lambda c: self.number_reply(c, self._delay(q), 0, 1e4, 0),
            limit: lambda c: self._set_limit(c, q),
            f"{limit}?": lambda c: self.number_reply(
                c, self.limits[other], self.family.least[other], most, self.family.start[other]
            ),
            f"{limit}:TRIPped?": lambda _: str(
                int(self.is_on and self.function == q and self.sense().limited)
            ),
            f":SOURce#:SWEep:{word}:LINear": lambda c: self._set_sweep(c, q, "LIN"),
            f":SOURce#:SWEep:{word}:LINear:STEP": lambda c: self._set_sweep(c, q, "STEP"),
            f":SOURce#:SWEep:{word}:LOG": lambda c: self._set_sweep(c, q, "LOG"),
            f":SOURce#:SWEep:{word}:LIST": lambda c: self._set_list_sweep(c, q),
            f"{sense}:RANGe[:UPPer]": lambda c: self._set_sense_range(c, q),
            f"{sense}:RANGe[:UPPer]?": lambda c: self.number_reply(
                c, self.sense_scale_now(q).full, 0, top, top
            ),
        }

    # Source

    def _set_language(self, call: Call) -> None:
        self.next_language = call.choice(0, "SCPI", "TSP", "SCPI2400")

    def _set_function(self, call: Call) -> None:
        self.function = function_word(call.text())
        if self.function == "RES":
            self.function = "CURR"
            raise ILLEGAL
        self.apply()

    @override
    def take_source_scale(self, quantity: str, scale: Scale) -> None:
        """Change the range; a limit outside the envelope of the new one is lowered, and the event
        log says so.
        """
        self.source_scale[quantity] = scale
        most = self._most_limit(quantity)
        if self.limits[OTHER[quantity]] > most * (1 + 1e-9):
            self.limits[OTHER[quantity]] = most
            self.warn(5078, "Source limit was changed to fit the source range")

    def _most_limit(self, q: str) -> float:
        """Largest limit beside the present source range of a quantity."""
        return most_beside(self.family.envelope, q, self.source_scale[q].full)

    def _set_delay(self, call: Call, q: str, word: str) -> None:
        self.delays_s[q] = call.number(0, 0, 1e4, default=0.0)
        self.values[f":SOURce#:{word}:DELay:AUTO"] = False

    def _delay(self, q: str) -> float:
        word = "VOLTage" if q == "VOLT" else "CURRent"
        return AUTO_DELAY_S if self.values[f":SOURce#:{word}:DELay:AUTO"] else self.delays_s[q]

    def _set_limit(self, call: Call, q: str) -> None:
        other = OTHER[q]
        least, most = self.family.least[other], self._most_limit(q)
        value = abs(
            call.number(0, -most * (1 + 1e-9), most * (1 + 1e-9), default=self.family.start[other])
        )
        if value < least * (1 - 1e-9):
            raise PARAMETER
        if not self.sense_auto[other] and value < self.family.least_part * self.sense_scale[
            other
        ].full * (1 - 1e-9):
            raise PARAMETER
        self.limits[other] = value
        self.apply()

    # Sense

    def _set_sense(self, call: Call) -> None:
        self.sensed = function_word(call.text())
        for buffer in self.buffers.values():
            buffer.readings.clear()

    def _set_sense_range(self, call: Call, q: str) -> None:
        top = self.meters[q].scales[-1].top
        scale = self.meters[q].fitting(call.number(0, -top, top, default=top))
        self.sense_scale[q], self.sense_auto[q] = scale, False
        if self.limits[q] < self.family.least_part * scale.full * (1 - 1e-9):
            # The manuals of the family: the limit is changed to one that is appropriate to the
            # range.
            self.limits[q] = self.family.least_part * scale.full
            self.warn(5079, "Source limit was changed to fit the measure range")
        self.apply()

    def take(self, buffer: Buffer, count: int) -> None:
        """Make readings."""
        for _ in range(count):
            buffer.add(self._convert())

    def _zero(self) -> None:
        """Measure zero and reference once, at the present aperture."""
        nplc = float(self.values[f"[:SENSe#]:{_SENSED[self.sensed]}:NPLCycles"])
        self.wait(2 * nplc / self.place.line_hz)

    def _convert(self) -> Reading:
        sense = f"[:SENSe#]:{_SENSED[self.sensed]}"
        source = ":SOURce#:VOLTage" if self.function == "VOLT" else ":SOURce#:CURRent"
        repeats = 1
        if (
            self.values[f"{sense}:AVERage[:STATe]"]
            and self.values[f"{sense}:AVERage:TCONtrol"] == "REP"
        ):
            repeats = round(float(self.values[f"{sense}:AVERage:COUNt"]))
        is_read_back = bool(self.values[f"{source}:READ:BACK"])
        quantities = 2 if is_read_back or self.sensed == "RES" else 1
        phases = 3 if self.values[f"{sense}:AZERo[:STATe]"] else 1
        aperture_s = float(self.values[f"{sense}:NPLCycles"]) / self.place.line_hz
        self.wait(phases * repeats * quantities * aperture_s)
        truth = self.sense()
        measured = {
            "VOLT": self._measure("VOLT", truth.volts, repeats),
            "CURR": self._measure("CURR", truth.amps, repeats),
        }
        forced = measured[self.function] if is_read_back else self.levels[self.function]
        if self.sensed == "RES":
            bad = OVERFLOW in np.abs(list(measured.values())) or not measured["CURR"]
            value = OVERFLOW if bad else measured["VOLT"] / measured["CURR"]
        else:
            value = measured[self.sensed]
        status = (FRONT if self.terminals == "FRON" else 0) | (
            QUESTIONABLE if abs(value) >= OVERFLOW else 0
        )
        source_status = (
            (READ_BACK if is_read_back else 0)
            | (PROTECTED if self._is_protected() else 0)
            | (LIMITED if self.is_on and truth.limited else 0)
            | (FOUR_WIRE if self.values[f"{sense}:RSENse"] else 0)
            | (OUTPUT if self.is_on else 0)
        )
        units = {"VOLT": "Volt DC", "CURR": "Amp DC", "RES": "Ohm"}
        return Reading(
            value,
            forced,
            self.now_s,
            status,
            source_status,
            units[self.sensed],
            units[self.function],
        )

    def _measure(self, q: str, true: float, repeats: int) -> float:
        if q == OTHER[self.function] and self.sense_auto[q]:
            self.sense_scale[q] = self.meters[q].fitting(
                min(abs(true), self.meters[q].scales[-1].top)
            )
        values = [self.meters[q].read(true, self.sense_scale_now(q)) for _ in range(repeats)]
        return (
            float(np.mean(values))
            if max(np.abs(values)) < OVERFLOW
            else math.copysign(OVERFLOW, true)
        )

    # Trigger model

    def _set_sweep(self, call: Call, q: str, kind: str) -> None:
        top = self.meters[q].scales[-1].top * (1 + 1e-9)
        start, stop = call.number(0, -top, top), call.number(1, -top, top)
        if kind == "STEP":
            step = call.number(2, 0, top)
            if step == 0:
                raise PARAMETER
            points = math.floor(abs(stop - start) / step + 1e-6) + 1
        else:
            points = round(call.number(2, 2, 1e6))
        if kind == "LOG":
            if start * stop <= 0:
                raise PARAMETER
            levels = math.copysign(1, start) * np.geomspace(abs(start), abs(stop), points)
        else:
            levels = np.linspace(start, stop, points)
        given = len(call.arguments)
        delay_s = call.number(3, -1, 1e4) if given > 3 else -1.0
        count = round(call.number(4, 0, 268435455)) if given > 4 else 1
        ranging = call.choice(5, "AUTO", "BEST", "FIXed") if given > 5 else "BEST"
        is_aborting = call.switch(6) if given > 6 else True
        if given > 7 and call.switch(7):
            levels = np.concatenate([levels, levels[::-1]])
        buffer = self.buffer(call, 8)
        self._set_model(q, [float(v) for v in levels], delay_s, count, ranging, is_aborting, buffer)

    def _set_list_sweep(self, call: Call, q: str) -> None:
        given = len(call.arguments)
        first = round(call.number(0, 1, LIST_LENGTH)) if given else 1
        delay_s = call.number(1, 0, 1e4) if given > 1 else 0.0
        count = round(call.number(2, 0, 268435455)) if given > 2 else 1
        is_aborting = call.switch(3) if given > 3 else True
        levels = self.lists[q][first - 1 :]
        if not levels:
            raise ScpiError(-221, "Settings conflict")
        ranging = "AUTO" if self.source_auto[q] else "FIX"
        self._set_model(q, list(levels), delay_s, count, ranging, is_aborting, self.buffer(call, 4))

    def _set_model(
        self,
        q: str,
        levels: list[float],
        delay_s: float,
        count: int,
        ranging: str,
        is_aborting: bool,
        buffer: Buffer,
    ) -> None:
        if count < 1:
            raise ScpiError(
                -221, "Settings conflict"
            )  # an endless sweep would never let a message end here

        def run() -> None:
            scales = self.meters[q]
            if ranging == "FIX" and max(map(abs, levels)) > self.source_scale[q].top * (1 + 1e-9):
                raise PARAMETER
            if ranging == "BEST":
                self.take_source_scale(q, scales.fitting(max(levels, key=abs)))
            self.function = q
            buffer.readings.clear()
            self.levels[q] = levels[0]
            self.switch(True)
            for level in levels * count:
                if ranging == "AUTO":
                    self.take_source_scale(q, scales.fitting(level))
                self.force(level)
                self.wait(self._delay(q) + max(0.0, delay_s))
                reading = self._convert()
                buffer.add(reading)
                if is_aborting and reading.source_status & LIMITED:
                    break
            self.switch(False)

        self.blocks.clear()
        self.loaded = run

    def _load(self, call: Call) -> None:
        template = call.text().upper()
        loops: dict[str, Callable[[Call], Callable[[], None] | None]] = {
            "EMPTY": lambda _: None,
            "SIMPLELOOP": partial(self._loop, False),
            "DURATIONLOOP": partial(self._loop, True),
            "CONFIGLIST": self._list_loop,
            "LOGICTRIGGER": self._line_loop,
        }
        if template in ("LOOPUNTILEVENT", "GRADEBINNING", "SORTBINNING"):
            raise not_simulated(f"template {template}")
        if template not in loops:
            raise ILLEGAL
        self.blocks.clear()
        self.loaded = loops[template](call)

    def _loop(self, lasts: bool, call: Call) -> Callable[[], None]:
        """So many readings, or as many as fit into a time."""
        much = call.number(1, 0, 1e9)
        delay_s = call.number(2, 0, 1e4) if len(call.arguments) > 2 else 0.0
        buffer = self.buffer(call, 3)

        def run() -> None:
            start_s, at = self.now_s, 0
            while self.now_s - start_s < much if lasts else at < much:
                self.wait(delay_s)
                buffer.add(self._convert())
                at += 1

        return run

    def _list_loop(self, call: Call) -> None:
        """Go once through a list of each kind, which are of equal length; the output goes on and
        off.
        """
        measure, source = call.text(1), call.text(2)
        size = len(self.config_lists["source"].entries(source))
        if size == 0 or size != len(self.config_lists["measure"].entries(measure)):
            raise ScpiError(-221, "Settings conflict")
        delay = call.arguments[3] if len(call.arguments) > 3 else "0"
        self.buffer(call, 4)
        named = call.arguments[4] if len(call.arguments) > 4 else '"defbuffer1"'
        self._set_blocks(
            f"CONF:REC 1,{call.arguments[1]},1,{call.arguments[2]},1",
            f"BUFF:CLE 2,{named}",
            "SOUR:STAT 3,1",
            f"DEL:CONS 4,{delay}",
            f"MEAS 5,{named}",
            f"CONF:NEXT 6,{call.arguments[1]},{call.arguments[2]}",
            f"BRAN:COUN 7,{size},4",
            "SOUR:STAT 8,0",
        )

    def _line_loop(self, call: Call) -> None:
        """A reading for each edge on one line, told on another."""
        into, out = round(call.number(1, 1, 6)), round(call.number(2, 1, 6))
        count, clear = round(call.number(3, 1, 1e6)), call.choice(4, "ENTer", "NEVer")
        delay = call.arguments[5] if len(call.arguments) > 5 else "0"
        named = call.arguments[6] if len(call.arguments) > 6 else '"defbuffer1"'
        self.lines.lines[out].stimulus = "NOT1"
        self._set_blocks(
            f"WAIT 1,DIG{into},{clear}",
            f"DEL:CONS 2,{delay}",
            f"MEAS 3,{named}",
            "NOT 4,1",
            f"BRAN:COUN 5,{count},1",
        )

    def _set_blocks(self, *blocks: str) -> None:
        for block in blocks:
            header, _, rest = block.partition(" ")
            self._unit(f":TRIG:BLOC:{header}", rest)

    def _initiate(self) -> None:
        if self.model_blocks.state is not State.EMPTY:
            self.model_blocks.start()
        elif self.loaded is not None:
            self.loaded()
        else:
            raise ScpiError(-221, "Settings conflict")

    def _told_state(self) -> str:
        model = self.model_blocks
        state = State.IDLE if model.state is State.EMPTY and self.loaded else model.state
        return f"{state};{state};{model.last}"

    def _on_event(self, name: str) -> None:
        """Something outside the host's messages; what fails then goes into the event log."""
        self._guarded(lambda: self.blocks.event(name))

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except ScpiError as error:
            self.push(error)
        except UNFORESEEN:
            self.push(EXECUTION)

    def user_delay_s(self, word: str) -> float:
        """A delay that `MEASure<n>` or `SOURce<n>` names, of the function in use."""
        match = re.fullmatch(r"(MEAS(?:URE)?|SOUR(?:CE)?)([1-5])", word.upper())
        if match is None:
            raise ILLEGAL
        if match[1].startswith("MEAS"):
            root = f"[:SENSe#]:{_SENSED[self.sensed]}"
        else:
            root = f":SOURce#:{'VOLTage' if self.function == 'VOLT' else 'CURRent'}"
        return float(self.values[f"{root}:DELay:USER{match[2]}"])

    def is_limited(self) -> bool:
        """Whether the output is at its limit."""
        return self.is_on and self.sense().limited

    def log(self, code: int, text: str, kind: str) -> None:
        """An entry of a block in the event log."""
        kinds = {"ERR": 1, "WAR": WARNING, "INF": 4}
        self.queue.append(Event(code, f"User: {text}", kinds[kind], self.now_s))

    # Lists of settings

    def _source_settings(self) -> dict[str, Any]:
        kept = ("function", "levels", "source_scale", "source_auto", "limits", "delays_s")
        return self._settings(kept, (":SOURce#:", ":OUTPut#:"))

    def _measure_settings(self) -> dict[str, Any]:
        return self._settings(("sensed", "sense_scale", "sense_auto"), ("[:SENSe#]:",))

    def _settings(self, kept: tuple[str, ...], starts: tuple[str, ...]) -> dict[str, Any]:
        values = {k: v for k, v in self.values.items() if k.startswith(starts) and k != COUNT}
        return {name: copy.deepcopy(getattr(self, name)) for name in kept} | {"values": values}

    def _take_settings(self, kept: dict[str, Any]) -> None:
        for name, value in kept.items():
            setattr(self, name, self.values | value if name == "values" else value)
        if "levels" in kept:
            self.force(self.levels[self.function])

    # Buffers and readings out

    def buffer(self, call: Call, at: int) -> Buffer:
        """The buffer that a command names, or the first."""
        name = call.text(at) if len(call.arguments) > at else "defbuffer1"
        if name not in self.buffers:
            raise ILLEGAL
        return self.buffers[name]

    def _make_buffer(self, call: Call) -> None:
        name = call.text(0)
        if name in self.buffers:
            raise ILLEGAL
        self.buffers[name] = Buffer(round(call.number(1, 1, 10_000_000)))

    def _delete_buffer(self, call: Call) -> None:
        if call.text(0) not in self.buffers or call.text(0).startswith("defbuffer"):
            raise ILLEGAL
        del self.buffers[call.text(0)]

    def _set_points(self, call: Call) -> None:
        size = round(call.number(0, 1, 10_000_000))
        buffer = self.buffer(call, 1)
        buffer.size = size
        buffer.readings.clear()

    def _read(self, call: Call) -> str | bytes:
        self.take(self.buffer(call, 0), round(float(self.values[COUNT])))
        return self._fetch(call)

    def _measured(self, function: str, call: Call) -> str | bytes:
        self.sensed = function
        return self._read(call)

    def _fetch(self, call: Call) -> str | bytes:
        buffer = self.buffer(call, 0)
        if not buffer.readings:
            raise ScpiError(-230, "Data corrupt or stale")
        return self._told(buffer, buffer.readings[-1:], self._elements(call, 1))

    def _data(self, call: Call) -> str | bytes:
        buffer = self.buffer(call, 2)
        first = round(call.number(0, 1, 1e9))
        last = round(call.number(1, first, 1e9))
        if last > len(buffer.readings):
            raise PARAMETER
        return self._told(buffer, buffer.readings[first - 1 : last], self._elements(call, 3))

    def _elements(self, call: Call, at: int) -> tuple[str, ...]:
        names = tuple(call.choice(n, *_ELEMENTS) for n in range(at, len(call.arguments)))
        if len(names) > 14:
            raise ScpiError(-108, "Parameter not allowed")
        if self.values[":FORMat[:DATA]"] != "ASC" and any(n not in BINARY_ELEMENTS for n in names):
            raise ELEMENT
        return names or ("READ",)

    def _told(self, buffer: Buffer, readings: list[Reading], names: tuple[str, ...]) -> str | bytes:
        start_s = buffer.readings[0].at_s
        if self.values[":FORMat[:DATA]"] == "ASC":
            return ",".join(self._text(r, name, start_s) for r in readings for name in names)
        numbers = [
            {"READ": r.value, "SOUR": r.source, "REL": r.at_s - start_s}[name]
            for r in readings
            for name in names
        ]
        order = "<" if self.values[":FORMat:BORDer"] == "SWAP" else ">"
        kind = "d" if self.values[":FORMat[:DATA]"] == "REAL" else "f"
        return b"#0" + struct.pack(f"{order}{len(numbers)}{kind}", *numbers)

    def _text(self, r: Reading, name: str, start_s: float) -> str:
        at = _stamp(r.at_s)
        words = {
            "DATE": f"{at:%m/%d/%Y}",
            "TIME": f"{at:%H:%M:%S}",
            "TST": f"{at:%m/%d/%Y %H:%M:%S}.{_fraction(r.at_s)}",
            "SEC": f"{(at - datetime(1970, 1, 1)).total_seconds():.0f}",
            "FRAC": f"0.{_fraction(r.at_s)}",
            "FORM": f"{r.value:+.6E} {r.unit[0]}",
            "UNIT": r.unit,
            "SOURFORM": f"{r.source:+.6E} {r.source_unit[0]}",
            "SOURUNIT": r.source_unit,
        }
        if name in words:
            return words[name]
        digits = round(float(self.values[":FORMat:ASCii:PRECision"])) or 7
        value = {
            "READ": r.value,
            "SOUR": r.source,
            "REL": r.at_s - start_s,
            "STAT": r.status,
            "SOURSTAT": r.source_status,
        }
        return f"{value[name]:.{digits - 1}E}"

    def _statistic(self, of: Callable[[list[float]], float], call: Call) -> str:
        values = [r.value for r in self.buffer(call, 0).readings]
        if not values:
            raise ScpiError(-230, "Data corrupt or stale")
        return f"{of(values):.6E}"

    # System

    def _beep(self, call: Call) -> None:
        call.number(0, 20, 8000)
        call.number(1, 0.001, 100)

    def _error_count(self) -> int:
        return sum(not isinstance(e, Event) or e.kind == 1 for e in self.queue)

    def _post(self, call: Call) -> None:
        kind = (
            call.choice(1, "ERRor", "WARNing", "INFormational")
            if len(call.arguments) > 1
            else "INF"
        )
        self.queue.append(
            Event(1003, f"User: {call.text(0)}", {"ERR": 1, "WARN": 2, "INF": 4}[kind], self.now_s)
        )


_SENSED = {"VOLT": "VOLTage[:DC]", "CURR": "CURRent[:DC]", "RES": "RESistance"}
_ELEMENTS = (
    "DATE",
    "FORMatted",
    "FRACtional",
    "READing",
    "RELative",
    "SEConds",
    "SOURce",
    "SOURFORMatted",
    "SOURSTATus",
    "SOURUNIT",
    "STATus",
    "TIME",
    "TSTamp",
    "UNIT",
)


def _stamp(at_s: float) -> datetime:
    return EPOCH + timedelta(seconds=math.floor(at_s))


def _fraction(at_s: float) -> str:
    """Nine digits of the fraction of a second."""
    return f"{min(999_999_999, round((at_s - math.floor(at_s)) * 1e9)):09d}"
