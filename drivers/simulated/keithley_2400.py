"""A simulated SourceMeter of the Keithley Series 2400.

Written from the Series 2400 SourceMeter User's Manual 2400S-900-01 (Rev. K: section 11 trigger
model, 15 status, 17 signal oriented commands, 18 command reference, appendix B messages), the
specifications SPEC-2400 Rev. H, SPEC-2420, SPEC-2425 and SPEC-2440 Rev. C, SPEC-2430 Rev. D, and
the reading limits in the service manuals of the 2410 and 2430. The pulse mode of the 2430 is
refused. Unverified, for no page was opened: times of auto delay and of autozero (three conversions
a measurement), the error codes of a level below a new range and of too many counts, the reply of
`:SENS:FUNC?`, that a message goes on after an error in it, that `*RCL` switches the output off,
what `*OPT?` tells without options, the codes of what an endless arm count does not allow.
"""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from .array.terminals import Drive, Place
from .scpi.instrument import (
    CONFLICT,
    MISSING,
    PARAMETER,
    Call,
    Handler,
    ScpiError,
    not_simulated,
    pair,
)
from .scpi.keithley_limits import NEXT, LimitTests, limit_commands
from .scpi.keithley_smu import (
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

NOT_MEASURED = 9.91e37
BUFFER = 2500
ELEMENTS = ("VOLT", "CURR", "RES", "TIME", "STAT")
TOO_SMALL = ScpiError(822, "Too small for sense range")
WITH_READBACK = ScpiError(823, "Invalid with source read-back on")
BEYOND_COMPLIANCE = ScpiError(824, "Cannot exceed compliance range")
POWER = ScpiError(826, "Attempt to exceed power limit")
OUTPUT_OFF = ScpiError(803, "Not permitted with OUTPUT off")
STORAGE = ScpiError(800, "Illegal with storage active")
AUTO_DELAY_S = 1e-3
SETUPS, LOCATIONS = 5, 100
"""Setups that `*SAV` keeps, and those of a source memory sweep."""
FREE = "FREE"
"""What an endless trigger model waits for between its passes: nothing but the host."""
WHILE_RUNNING = frozenset(
    {":ABOR", ":ABORT", "*RST", "*RCL", "*TRG", ":SYST:PRES", ":SYSTEM:PRESET"}
)
"""Commands that are executed while the trigger model is not idle (page 16-3)."""
LIMITED = 1 << 3 | 1 << 16
"""Bits of a reading at the compliance that was set, or at that of a fixed measuring range."""
OHMS = ((2e2, 1e-2), (2e3, 1e-3), (2e4, 1e-4), (2e5, 1e-5), (2e6, 1e-6), (2e7, 1e-6), (2e8, 1e-7))
"""Ohms ranges and their test currents, SPEC-2400 page 2."""


@dataclass(frozen=True)
class Family:
    """Ranges and envelope of one model, its largest ohms, and the volts up to which its
    overvoltage protection can be set: above, there is none (page 18-81).
    """

    volts: tuple[Scale, ...]
    amps: tuple[Scale, ...]
    envelope: Envelope
    most_ohms: float = 2.1e8
    protects_to_v: float = 20.0


LOW_VOLTS = (Scale(0.2, 1e-6, 1.2e-4, 300e-6), Scale(2.0, 10e-6, 1.2e-4, 300e-6))
VOLTS = (*LOW_VOLTS, Scale(20.0, 100e-6, 1.5e-4, 1.5e-3), Scale(200.0, 1e-3, 1.5e-4, 10e-3))
HIGH_VOLTS = (*LOW_VOLTS, Scale(20.0, 100e-6, 1.5e-4, 1e-3))
AMPS = (
    Scale(1e-6, 10e-12, 2.9e-4, 300e-12),
    Scale(1e-5, 100e-12, 2.7e-4, 700e-12),
    Scale(1e-4, 1e-9, 2.5e-4, 6e-9),
    Scale(1e-3, 10e-9, 2.7e-4, 60e-9),
    Scale(1e-2, 100e-9, 3.5e-4, 600e-9),
    Scale(1e-1, 1e-6, 5.5e-4, 6e-6),
    Scale(1.0, 10e-6, 2.2e-3, 570e-6),
)
HIGH_AMPS = (*AMPS[1:6], Scale(1.0, 10e-6, 6e-4, 570e-6), Scale(3.0, 10e-6, 5.2e-4, 1.71e-3))
_20_V = ((21.0, 1.05),)
_2425 = Family(
    (*HIGH_VOLTS, Scale(100.0, 1e-3, 1.5e-4, 5e-3)),
    HIGH_AMPS,
    ((21.0, 3.15), (105.0, 1.05)),
    2.1e7,
    80.0,
)
FAMILIES = {
    "2400": Family(VOLTS, AMPS, (*_20_V, (210.0, 0.105)), protects_to_v=160.0),
    "2400-LV": Family(VOLTS[:3], AMPS, _20_V),
    "2401": Family(VOLTS[:3], AMPS, _20_V),
    "2410": Family(
        (*HIGH_VOLTS, Scale(1000.0, 10e-3, 1.5e-4, 50e-3, over=1.1)),
        (*AMPS[:4], Scale(0.02, 100e-9, 3.5e-4, 1.2e-6), *AMPS[5:]),
        (*_20_V, (1100.0, 0.021)),
        protects_to_v=500.0,
    ),
    "2420": Family(
        (*HIGH_VOLTS, Scale(60.0, 1e-3, 1.5e-4, 3e-3)),
        HIGH_AMPS,
        ((21.0, 3.15), (63.0, 1.05)),
        2.1e7,
        48.0,
    ),
    "2425": _2425,
    "2430": _2425,
    "2440": Family(
        (*LOW_VOLTS, Scale(10.0, 100e-6, 1.5e-4, 750e-6), Scale(40.0, 1e-3, 1.5e-4, 3e-3)),
        (*HIGH_AMPS[:-1], Scale(5.0, 10e-6, 1e-3, 3.42e-3)),
        ((10.5, 5.25), (42.0, 1.05)),
        2.1e7,
        32.0,
    ),
}


@dataclass(frozen=True)
class Reading:
    """One line of the sample buffer."""

    VOLT: float
    CURR: float
    RES: float
    TIME: float
    STAT: int


class Simulated2400(KeithleySmu):
    """One of the Series 2400 with GPIB or RS-232 behind a server; trigger link lines 1 to 4 are
    pins of the rack's bus.
    """

    MODELS: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    SETTLE_S = 250e-6
    AZERO = ":SYSTem:AZERo[:STATe]"
    RANGING = ":SOURce#:SWEep:RANGing"
    RSENSE = ":SYSTem:RSENse"
    DELAY_AUTO = ":SOURce#:DELay:AUTO"
    CLEAR_AUTO = ":SOURce#:CLEar:AUTO"
    CLEAR_MODE = ":SOURce#:CLEar:AUTO:MODE"
    POINTS = ":SOURce#:SWEep:POINts"
    SPACING = ":SOURce#:SWEep:SPACing"
    DIRECTION = ":SOURce#:SWEep:DIRection"
    ABORT = ":SOURce#:SWEep:CABort"
    CONCURRENT = "[:SENSe#]:FUNCtion:CONCurrent"
    FILTER = "[:SENSe#]:AVERage[:STATe]"
    FILTER_COUNT = "[:SENSe#]:AVERage:COUNt"
    FILTER_TYPE = "[:SENSe#]:AVERage:TCONtrol"
    OHMS_MODE = "[:SENSe#]:RESistance:MODE"
    ARM_SOURCE = ":ARM[:SEQuence#][:LAYer#]:SOURce"
    ARM_TIMER = ":ARM[:SEQuence#][:LAYer#]:TIMer"
    ARM_ILINE = ":ARM[:SEQuence#][:LAYer#]:ILINe"
    ARM_OLINE = ":ARM[:SEQuence#][:LAYer#]:OLINe"
    ARM_OUTPUT = ":ARM[:SEQuence#][:LAYer#]:OUTPut"
    ARM_DIRECTION = ":ARM[:SEQuence#][:LAYer#]:DIRection"
    TRIGGER_SOURCE = ":TRIGger[:SEQuence#]:SOURce"
    TRIGGER_DELAY = ":TRIGger[:SEQuence#]:DELay"
    TRIGGER_ILINE = ":TRIGger[:SEQuence#]:ILINe"
    TRIGGER_OLINE = ":TRIGger[:SEQuence#]:OLINe"
    TRIGGER_DIRECTION = ":TRIGger[:SEQuence#]:DIRection"
    TRIGGER_OUTPUT = ":TRIGger[:SEQuence#]:OUTPut"
    FORMAT = ":FORMat[:DATA]"
    BORDER = ":FORMat:BORDer"
    OFF_STATE = ":OUTPut#:SMODe"
    STAMP = ":TRACe:TSTamp:FORMat"
    STATISTIC = ":CALCulate3:FORMat"
    GUARD = ":SYSTem:GUARd"
    TIME_AUTO = ":SYSTem:TIME:RESet:AUTO"
    MEASUREMENT_ENABLE = ":STATus:MEASurement:ENABle"
    SETTINGS = (
        Setting(AZERO, "ON", words=("ON", "OFF", "ONCE", "0", "1")),
        Setting(RSENSE, False),
        Setting(DELAY_AUTO, True),
        Setting(CLEAR_AUTO, False),
        Setting(CLEAR_MODE, "ALW", words=("ALWays", "TCOunt")),
        Setting(SPACING, "LIN", words=("LINear", "LOGarithmic")),
        Setting(DIRECTION, "UP", words=("UP", "DOWN")),
        Setting(RANGING, "BEST", words=("BEST", "AUTO", "FIXed")),
        Setting(ABORT, "NEV", words=("NEVer", "EARLy", "LATE")),
        Setting(CONCURRENT, True),
        Setting(FILTER, False),
        Setting(FILTER_COUNT, 10.0, 1, 100, is_integer=True),
        Setting(FILTER_TYPE, "REP", words=("REPeat", "MOVing")),
        Setting(OHMS_MODE, "AUTO", words=("MANual", "AUTO")),
        Setting("[:SENSe#]:RESistance:OCOMpensated", False),
        Setting("[:SENSe#]:RESistance:RANGe:AUTO", True),
        Setting(
            ARM_SOURCE,
            "IMM",
            words=("IMMediate", "TLINk", "TIMer", "MANual", "BUS", "NSTest", "PSTest", "BSTest"),
        ),
        Setting(ARM_TIMER, 0.1, 1e-3, 99999.99),
        Setting(ARM_ILINE, 1.0, 1, 4, is_integer=True),
        Setting(ARM_OLINE, 2.0, 1, 4, is_integer=True),
        Setting(ARM_OUTPUT, "NONE", words=("TENTer", "TEXit", "NONE")),
        Setting(ARM_DIRECTION, "ACC", words=("SOURce", "ACCeptor")),
        Setting(TRIGGER_SOURCE, "IMM", words=("IMMediate", "TLINk")),
        Setting(TRIGGER_DELAY, 0.0, 0, 999.9999),
        Setting(TRIGGER_ILINE, 1.0, 1, 4, is_integer=True),
        Setting(TRIGGER_OLINE, 2.0, 1, 4, is_integer=True),
        Setting(TRIGGER_OUTPUT, "NONE", words=("SOURce", "DELay", "SENSe", "NONE")),
        Setting(TRIGGER_DIRECTION, "ACC", words=("SOURce", "ACCeptor")),
        Setting(BORDER, "NORM", words=("NORMal", "SWAPped")),
        Setting(OFF_STATE, "NORM", words=("HIMPedance", "NORMal", "ZERO", "GUARd")),
        Setting(":OUTPut#:ENABle[:STATe]", False),
        Setting(STAMP, "ABS", words=("ABSolute", "DELTa")),
        Setting(STATISTIC, "MEAN", words=("MEAN", "SDEViation", "MAXimum", "MINimum", "PKPK")),
        Setting(MEASUREMENT_ENABLE, 0.0, 0, 65535, is_integer=True),
        Setting(":STATus:OPERation:ENABle", 0.0, 0, 65535, is_integer=True),
        Setting(":STATus:QUEStionable:ENABle", 0.0, 0, 65535, is_integer=True),
        Setting(":SYSTem:LFRequency:AUTO", True),
        Setting(":SYSTem:BEEPer:STATe", True),
        Setting(GUARD, "OHMS", words=("OHMS", "CABLe")),
        Setting(TIME_AUTO, False),
        Setting(":DISPlay:ENABle", True),
        Setting(":DISPlay[:WINDow#]:TEXT:STATe", False),
        Setting(":DISPlay:DIGits", 5.0, 4, 7, is_integer=True),
    )

    OF_A_LOCATION = (
        AZERO,
        RSENSE,
        DELAY_AUTO,
        CONCURRENT,
        FILTER,
        FILTER_COUNT,
        FILTER_TYPE,
        OHMS_MODE,
        TRIGGER_DELAY,
        GUARD,
    )
    """Settings that a location of a source memory sweep keeps, beside the attributes below (table
    10-2; its first page was not opened).
    """
    ATTRIBUTES_OF_A_LOCATION = (
        "function",
        "levels",
        "source_scale",
        "source_auto",
        "sense_scale",
        "sense_auto",
        "compliance",
        "delay_s",
        "nplc",
        "sensed",
        "tests",
    )
    ATTRIBUTES_OF_A_SETUP = (
        *ATTRIBUTES_OF_A_LOCATION,
        "values",
        "lists",
        "mode",
        "starts",
        "stops",
        "points",
        "elements",
        "arm_count",
        "trigger_count",
        "format",
        "protection",
        "ohms_range",
        "terminals",
        "is_memory",
        "memory_points",
        "memory_start",
    )
    """What `*SAV` keeps: what `*RST` affects, but for readings."""

    def __init__(self, model: str, place: Place) -> None:
        self.setups: dict[int, dict[str, Any]] = {}
        self.locations: dict[int, dict[str, Any]] = {}
        self.held: list[tuple[str, str]] = []
        self.started_s = place.bus.clock.now_s
        self.family = FAMILIES[model]
        super().__init__(model, place)
        for line in range(1, 5):
            place.bus.listen((place.name, line), partial(self._proceed, f"TLIN{line}"))

    @override
    def make_meters(self, model: str, seed: int) -> dict[str, Meter]:
        return {"VOLT": Meter(self.family.volts, seed), "CURR": Meter(self.family.amps, seed + 1)}

    @override
    def identification(self) -> str:
        name = self.pretends or f"MODEL {self.model}"
        return (
            f"KEITHLEY INSTRUMENTS INC.,{name},{self.place.serial},C32   Oct  4 2010 14:20:11/A02 "
            " /K/J"
        )

    @override
    def reset(self) -> None:
        first = {"VOLT": self.family.volts[2], "CURR": self.meters["CURR"].fitting(1e-4)}
        self.source_scale, self.sense_scale = dict(first), dict(first)
        self.compliance = {quantity: scale.top for quantity, scale in first.items()}
        self.start_compliance = dict(self.compliance)
        self.protection = self.family.volts[-1].top
        self.ohms_range = 2.1e5
        self.mode = {"VOLT": "FIX", "CURR": "FIX"}
        self.starts, self.stops = {"VOLT": 0.0, "CURR": 0.0}, {"VOLT": 0.0, "CURR": 0.0}
        self.points = BUFFER
        self.triggered: dict[str, float] = {}
        self.delay_s = 0.0
        self.nplc = 1.0
        self.sensed = {"CURR"}
        self.elements: tuple[str, ...] = ELEMENTS
        self.arm_count: float = 1
        self.trigger_count: float = 1
        self.next_location = NEXT
        self.syncs_range = False
        self.tests = LimitTests()
        self.is_memory, self.memory_points, self.memory_start = False, 1, 1
        self.format = "ASC"
        self.samples: list[Reading] = []
        self.store: list[Reading] = []
        self.store_size, self.storing = 100, "NEV"
        self.measurement_event = 0
        self.running: Iterator[str] | None = None
        self.waits_for = ""
        super().reset()

    @override
    def protection_v(self) -> float:
        """Unverified: that any value is a limit, not one of a few steps."""
        return self.protection if self.protection <= self.family.protects_to_v else math.inf

    @override
    def limit_now(self) -> float:
        """The lower of the compliance and the top of a fixed measuring range ("range
        compliance").
        """
        quantity = OTHER[self.function]
        return min(self.compliance[quantity], self._range_limit(quantity))

    @override
    def resting(self) -> Drive:
        """Manual section 13, output-off states."""
        state = self.values[self.OFF_STATE]
        if state == "HIMP":
            return Drive()
        if state == "GUAR":
            return Drive("current", 0.0, 0.005 * self.source_scale["VOLT"].full)
        low = 0.005 * self.sense_scale["CURR"].full
        return Drive(
            "voltage",
            0.0,
            self.compliance["CURR"] if state == "ZERO" and self.function == "VOLT" else low,
        )

    @override
    def push(self, error: ScpiError) -> None:
        """800-series errors are execution errors."""
        super().push(error)
        if 800 <= error.code < 900:
            self.esr |= 16

    @override
    def summary(self) -> int:
        """Bit 0 is the measurement summary."""
        enabled = int(float(self.values[self.MEASUREMENT_ENABLE]))
        return super().summary() | (1 if self.measurement_event & enabled else 0)

    @override
    def clear(self) -> None:
        self.running, self.waits_for = None, ""

    @override
    def _unit(self, header: str, rest: str) -> str | bytes | None:
        """Act on one command; one that comes while an endless trigger model runs waits for its end
        (page 16-3).
        """
        if self.waits_for == FREE and header.upper() not in WHILE_RUNNING:
            self.held.append((header, rest))
            self._proceed(FREE)
            return None
        reply = super()._unit(header, rest)
        replies = [] if reply is None else [reply]
        while self.held and self.waits_for != FREE:
            late = super()._unit(*self.held.pop(0))
            replies += [] if late is None else [late]
        return (
            b";".join(r if isinstance(r, bytes) else r.encode("latin-1") for r in replies) or None
        )

    @override
    def actions(self) -> dict[str, Handler]:
        most = self.family.volts[-1].top
        table: dict[str, Handler] = {
            "*TRG": lambda _: self._proceed("BUS"),
            "*OPT?": lambda _: "0",
            "*SAV": self._save_setup,
            "*RCL": self._recall_setup,
            ":SOURce#:FUNCtion[:MODE]": self._set_function,
            ":SOURce#:FUNCtion[:MODE]?": lambda _: "MEM" if self.is_memory else self.function,
            ":SOURce#:MEMory:SAVE": self._save_location,
            ":SOURce#:MEMory:RECall": lambda c: self._recall_location(_location(c)),
            **self.own(":SOURce#:MEMory:POINts", "memory_points", _location),
            **self.own(":SOURce#:MEMory:STARt", "memory_start", _location),
            ":SYSTem:MEMory:INITialize": lambda _: self.locations.clear(),
            **limit_commands(self, lambda: self.tests, self._check_finite),
            ":SOURce#:DELay": self._set_delay,
            ":SOURce#:DELay?": lambda c: self.number_reply(c, self._delay(), 0, 9999.999, 0),
            ":SOURce#:CLEar[:IMMediate]": lambda _: self._output(False),
            **self.own(
                self.POINTS, "points", lambda c: round(c.number(0, 2, BUFFER, default=BUFFER))
            ),
            **self.own(
                ":SOURce#:VOLTage:PROTection[:LEVel]",
                "protection",
                lambda c: abs(c.number(0, -most, most, default=most)),
                asked=lambda c: c.number(0, -most, most, default=most),
                applies=True,
            ),
            **self.own(
                "[:SENSe#]:RESistance:RANGe[:UPPer]",
                "ohms_range",
                lambda c: c.number(0, 0, self.family.most_ohms, default=2.1e5),
                asked=lambda c: c.number(0, 0, self.family.most_ohms, default=2.1e5),
            ),
            "[:SENSe#]:FUNCtion[:ON]": self._sense_on,
            "[:SENSe#]:FUNCtion[:ON]?": lambda _: self._told(self.sensed),
            "[:SENSe#]:FUNCtion[:ON]:ALL": lambda _: self.sensed.update({"VOLT", "CURR", "RES"}),
            "[:SENSe#]:FUNCtion[:ON]:COUNt?": lambda _: str(len(self.sensed)),
            "[:SENSe#]:FUNCtion:OFF": self._sense_off,
            "[:SENSe#]:FUNCtion:OFF?": lambda _: self._told({"VOLT", "CURR", "RES"} - self.sensed),
            "[:SENSe#]:FUNCtion:OFF:ALL": lambda _: self.sensed.clear(),
            "[:SENSe#]:FUNCtion:STATe?": lambda c: str(int(function_word(c.text()) in self.sensed)),
            "[:SENSe#]:DATA[:LATest]?": lambda _: self._told_readings(self.samples[-1:]),
            **self.own(
                ":ARM[:SEQuence#][:LAYer#]:COUNt",
                "arm_count",
                lambda c: self._count(c, self.trigger_count, inf=math.inf, infinite=math.inf),
            ),
            **self.own(
                ":TRIGger[:SEQuence#]:COUNt",
                "trigger_count",
                lambda c: self._count(c, self.arm_count),
            ),
            ":TRIGger[:SEQuence#]:CLEar": lambda _: None,
            **pair(":TRIGger[:SEQuence#]:INPut", _set_input, lambda _: "SOUR"),
            ":INITiate[:IMMediate]": lambda _: self._initiate(),
            ":ABORt": lambda _: self.clear(),
            ":READ?": lambda _: self._read(),
            ":FETCh?": lambda _: self._fetch(),
            ":MEASure?": partial(self._measure, ""),
            ":CONFigure?": lambda _: self._told(self.sensed),
            ":FORMat[:DATA]": self._set_format,
            ":FORMat[:DATA]?": lambda _: self.format,
            ":FORMat:ELEMents[:SENSe#]": self._set_elements,
            ":FORMat:ELEMents[:SENSe#]?": lambda _: ",".join(self.elements),
            **pair(":FORMat:SREGister", _set_registers, lambda _: "ASC"),
            ":OUTPut#[:STATe]": lambda c: self._output(c.switch()),
            ":OUTPut#[:STATe]?": lambda _: str(int(self.is_on)),
            ":OUTPut#:ENABle:TRIPped?": lambda _: "0",
            ":ROUTe:TERMinals": self.set_terminals,
            ":ROUTe:TERMinals?": lambda _: self.terminals,
            ":CALCulate3:DATA?": lambda _: self._statistics(),
            ":SYSTem:LOCal": lambda _: None,
            ":SYSTem:REMote": lambda _: None,
            ":SYSTem:RWLock": lambda _: None,
            ":SYSTem:PRESet": lambda _: self.reset(),
            ":SYSTem:LFRequency": partial(_check, 50, 60),
            ":SYSTem:LFRequency?": lambda _: f"{self.place.line_hz:.0f}",
            ":SYSTem:BEEPer[:IMMediate]": partial(_check, 65, 2e6),
            ":SYSTem:TIME?": lambda _: f"{self._time():.6E}",
            ":SYSTem:TIME:RESet": self._reset_time,
            ":SYSTem:VERSion?": lambda _: "1996.0",
            ":SYSTem:CLEar": lambda _: self.queue.clear(),
            ":SYSTem:ERRor:COUNt?": lambda _: str(len(self.queue)),
            ":SYSTem:ERRor:ALL?": self.all_errors,
            ":SYSTem:ERRor:CODE[:NEXT]?": lambda _: self.next_error().partition(",")[0],
            ":STATus:PRESet": lambda _: self._status_preset(),
            ":STATus:QUEue[:NEXT]?": self.next_error,
            ":STATus:QUEue:CLEar": lambda _: self.queue.clear(),
            ":STATus:MEASurement[:EVENt]?": lambda _: self._take_event(),
            ":STATus:MEASurement:CONDition?": lambda _: str(self.measurement_event),
            ":STATus:OPERation[:EVENt]?": lambda _: "0",
            ":STATus:OPERation:CONDition?": lambda _: str(1024 if self.running is None else 64),
            ":STATus:QUEStionable[:EVENt]?": lambda _: "0",
            ":STATus:QUEStionable:CONDition?": lambda _: "0",
            ":DISPlay[:WINDow#]:TEXT[:DATA]": lambda _: None,
            ":DISPlay:CNDisplay": lambda _: None,
        }
        if self.model == "2430":
            table |= pair(":SOURce#:FUNCtion:SHAPe", self._set_shape, lambda _: "DC")
        for root in (":TRACe", ":DATA"):
            table |= {
                f"{root}:DATA?": lambda _: self._told_readings(self._stamped()),
                f"{root}:CLEar": lambda _: self._clear_store(),
                f"{root}:FREE?": lambda _: (
                    f"{(self.store_size - len(self.store)) * 32}, {len(self.store) * 32}"
                ),
                f"{root}:POINts": self._set_store_size,
                f"{root}:POINts?": lambda _: str(self.store_size),
                f"{root}:POINts:ACTual?": lambda _: str(len(self.store)),
                **pair(f"{root}:FEED", _set_feed, lambda _: "SENS"),
                f"{root}:FEED:CONTrol": self._set_storing,
                f"{root}:FEED:CONTrol?": lambda _: self.storing,
            }
        for word in ("VOLTage", "CURRent"):
            table |= self._of_quantity(word)
        for word in ("VOLTage[:DC]", "CURRent[:DC]", "RESistance"):
            short = word[:4] if word[0] != "R" else "RES"
            table |= self.own(
                f"[:SENSe#]:{word}:NPLCycles",
                "nplc",
                lambda c: c.number(0, 0.01, 10.0, default=1.0),
                asked=lambda c: c.number(0, 0.01, 10.0, default=1.0),
            )
            table[f"{self.AZERO}?"] = lambda _: str(int(self.values[self.AZERO] in ("ON", "1")))
            table[f":MEASure:{word}?"] = partial(self._measure, short)
            table[f":CONFigure:{word}"] = partial(self._configure, short)
        return table

    def _of_quantity(self, word: str) -> dict[str, Handler]:
        """Source and sense commands of "VOLTage" or "CURRent"."""
        q = word[:4]
        source, sense = f":SOURce#:{word}", f"[:SENSe#]:{word}[:DC]"
        top = self.meters[q].scales[-1].top
        return self.source_commands(word) | {
            **self.own(f"{sense}:PROTection:RSYNchronize", "syncs_range", lambda c: c.switch()),
            f"{source}[:LEVel]:TRIGgered[:AMPLitude]": lambda c: self._set_triggered(c, q),
            f"{source}[:LEVel]:TRIGgered[:AMPLitude]?": lambda c: self.number_reply(
                c, self.triggered.get(q, self.levels[q]), -top, top, 0
            ),
            **self.own(
                f"{source}:MODE",
                "mode",
                lambda c: c.choice(0, "FIXed", "SWEep", "LIST"),
                key=q,
                applies=True,
            ),
            f"{source}:RANGe[:UPPer]": lambda c: self.set_source_range(c, q),
            f"{source}:RANGe[:UPPer]?": lambda c: self.number_reply(
                c, self.source_scale[q].top, -top, top, top
            ),
            **self.own(
                f"{source}:STARt",
                "starts",
                lambda c: self.level_of(c, q, None),
                key=q,
                asked=lambda c: c.number(0, -top, top, default=0.0),
            ),
            **self.own(
                f"{source}:STOP",
                "stops",
                lambda c: self.level_of(c, q, None),
                key=q,
                asked=lambda c: c.number(0, -top, top, default=0.0),
            ),
            f"{source}:STEP": lambda c: self._set_step(c, q),
            f"{source}:STEP?": lambda _: (
                f"{(self.stops[q] - self.starts[q]) / (self.points - 1):.6E}"
            ),
            f"{sense}:RANGe[:UPPer]": lambda c: self._set_sense_range(c, q),
            f"{sense}:RANGe[:UPPer]?": lambda c: self.number_reply(
                c, self.sense_scale_now(q).top, -top, top, top
            ),
            f"{sense}:RANGe:AUTO:ULIMit?": lambda _: (
                f"{self.meters[q].fitting(self.compliance[q]).top:.6E}"
            ),
            f"{sense}:PROTection[:LEVel]": lambda c: self._set_compliance(c, q),
            f"{sense}:PROTection[:LEVel]?": lambda c: self.number_reply(
                c, self.compliance[q], -top, top, self.start_compliance[q]
            ),
            f"{sense}:PROTection:TRIPped?": lambda _: str(
                int(self.is_on and q != self.function and self.sense().limited)
            ),
        }

    # Source

    @override
    def set_level(self, call: Call, quantity: str) -> None:
        if self.mode[quantity] != "FIX":
            raise CONFLICT
        super().set_level(call, quantity)
        self.triggered.pop(quantity, None)

    def _set_triggered(self, call: Call, q: str) -> None:
        self.triggered[q] = self.level_of(
            call, q, None if self.source_auto[q] else self.source_scale[q]
        )

    @override
    def take_source_scale(self, quantity: str, scale: Scale) -> None:
        """Change the range; one on which the compliance is outside the envelope is refused."""
        most = most_beside(self.family.envelope, quantity, scale.full)
        if quantity == self.function and self.compliance[OTHER[quantity]] > most * (1 + 1e-9):
            raise POWER
        self.source_scale[quantity] = scale

    def _set_shape(self, call: Call) -> None:
        if call.choice(0, "DC", "PULSe") == "PULS":
            raise not_simulated("pulse mode")

    def _set_delay(self, call: Call) -> None:
        self.delay_s = call.number(0, 0, 9999.999, default=0.0)
        self.values[self.DELAY_AUTO] = False

    def _delay(self) -> float:
        return AUTO_DELAY_S if self.values[self.DELAY_AUTO] else self.delay_s

    def _set_step(self, call: Call, q: str) -> None:
        step = self.level_of(call, q, None)
        width = self.stops[q] - self.starts[q]
        if step == 0 or width / step < 0:
            raise PARAMETER
        points = math.floor(width / step + 1e-6) + 1
        if not 2 <= points <= BUFFER:
            raise PARAMETER
        self.points = points

    def _output(self, on: bool) -> None:
        if not on:
            self.clear()
        self.switch(on)

    # Sense

    def _range_limit(self, q: str) -> float:
        return math.inf if self.sense_auto[q] else self.sense_scale[q].top

    def _set_sense_range(self, call: Call, q: str) -> None:
        top = self.meters[q].scales[-1].top
        scale = self.meters[q].fitting(call.number(0, -top, top, default=top))
        if q == self.function:
            raise WITH_READBACK
        if scale.full > self.meters[q].fitting(self.compliance[q]).full:
            raise BEYOND_COMPLIANCE
        if self.compliance[q] < 1e-3 * scale.full * (1 - 1e-9):
            raise TOO_SMALL
        self.sense_scale[q], self.sense_auto[q] = scale, False
        self.apply()

    @override
    def set_sense_auto(self, call: Call, quantity: str) -> None:
        super().set_sense_auto(call, quantity)
        self.apply()

    def _set_compliance(self, call: Call, q: str) -> None:
        top = self.meters[q].scales[-1].top * (1 + 1e-9)
        value = abs(call.number(0, -top, top, default=self.start_compliance[q]))
        scale = self.meters[q].scales[0] if self.sense_auto[q] else self.sense_scale[q]
        if self.syncs_range and not self.sense_auto[q]:
            scale = self.meters[q].fitting(value)
        if value < 1e-3 * scale.full * (1 - 1e-9):
            raise TOO_SMALL
        most = most_beside(self.family.envelope, OTHER[q], self.source_scale[OTHER[q]].full)
        if q != self.function and value > most * (1 + 1e-9):
            raise POWER
        self.compliance[q] = value
        if self.syncs_range and not self.sense_auto[q]:
            self.sense_scale[q] = scale
        self.apply()

    def _sense_on(self, call: Call) -> None:
        names = {
            function_word(name)
            for at in range(len(call.arguments))
            for name in call.text(at).split(",")
        }
        if not names:
            raise MISSING
        if not self.values[self.CONCURRENT]:
            if len(names) > 1:
                raise CONFLICT
            self.sensed.clear()
        self.sensed |= names

    def _sense_off(self, call: Call) -> None:
        self.sensed -= {
            function_word(name)
            for at in range(len(call.arguments))
            for name in call.text(at).split(",")
        }

    def _told(self, functions: set[str]) -> str:
        names = {"VOLT": "VOLT:DC", "CURR": "CURR:DC", "RES": "RES"}
        return ",".join(f'"{name}"' for word, name in names.items() if word in functions) or '""'

    # Trigger model

    def _count(self, call: Call, other: float, **words: float) -> float:
        """A count of the trigger model, whole but for an endless one."""
        count = call.number(0, 1, BUFFER, default=1.0, **words)
        if math.isfinite(count * other) and round(count) * other > BUFFER:
            raise CONFLICT
        return round(count) if math.isfinite(count) else count

    def _check_finite(self) -> None:
        """What an endless arm count leaves nothing to be read of (page 18-118)."""
        if math.isinf(self.arm_count):
            raise CONFLICT

    def _initiate(self) -> None:
        if not self.is_on and not self.values[self.CLEAR_AUTO]:
            raise OUTPUT_OFF
        if self.running is not None:
            raise ScpiError(-213, "Init ignored")
        if self.is_memory and self.trigger_count != self.memory_points:
            raise CONFLICT
        if self.values[self.TIME_AUTO]:
            self.started_s = self.now_s
        self.samples = []
        self.tests.begin()
        self.running = self._cycle()
        self._proceed("")

    def _proceed(self, event: str) -> None:
        """Go on where the trigger model waits for this event; "" starts it."""
        if self.running is None or event != self.waits_for:
            return
        try:
            self.waits_for = next(self.running)
        except StopIteration:
            self.clear()

    def _cycle(self) -> Iterator[str]:
        """The arm and trigger layers; yields what it waits for."""
        levels = self._sweep_levels()
        ranging, meter = str(self.values[self.RANGING]), self.meters[self.function]
        if levels and ranging == "BEST":
            # One range for the whole sweep, which holds its largest level.
            self.take_source_scale(self.function, meter.fitting(max(levels, key=abs)))
        at = 0
        is_endless = math.isinf(self.arm_count)
        for armed in count() if is_endless else range(round(self.arm_count)):
            yield from self._arm(armed)
            location = str(self.memory_start)
            for fired in range(round(self.trigger_count)):
                if self.values[self.TRIGGER_SOURCE] == "TLIN" and not (
                    fired == 0 and self.values[self.TRIGGER_DIRECTION] == "SOUR"
                ):
                    yield f"TLIN{float(self.values[self.TRIGGER_ILINE]):.0f}"
                if self.is_memory:
                    self._recall_location(int(location))
                self.wait(float(self.values[self.TRIGGER_DELAY]))
                reading = self._source_delay_measure(levels[at % len(levels)] if levels else None)
                at += 1
                if reading is None or (
                    levels and reading.STAT & LIMITED and self.values[self.ABORT] == "LATE"
                ):
                    return
                location = (
                    str(int(location) + 1) if self.next_location == NEXT else self.next_location
                )
            self._signal_arm("TEX")
            if self.values[self.CLEAR_AUTO] and self.values[self.CLEAR_MODE] == "TCO":
                self.switch(False)
            if is_endless:
                yield FREE

    def _arm(self, armed: int) -> Iterator[str]:
        """The event of the arm layer; yields what it waits for."""
        source = str(self.values[self.ARM_SOURCE])
        is_bypassed = armed == 0 and self.values[self.ARM_DIRECTION] == "SOUR"
        if source == "TIM" and armed:
            self.wait(float(self.values[self.ARM_TIMER]))
        elif source == "TLIN" and not is_bypassed:
            yield f"TLIN{float(self.values[self.ARM_ILINE]):.0f}"
        elif source not in ("IMM", "TIM", "TLIN"):
            yield source
        self._signal_arm("TENT")

    def _signal_arm(self, event: str) -> None:
        if self.values[self.ARM_OUTPUT] == event:
            self.place.bus.pulse((self.place.name, round(float(self.values[self.ARM_OLINE]))))

    def _sweep_levels(self) -> list[float]:
        """Levels that the source steps through; empty where it is fixed."""
        q = self.function
        if self.is_memory:
            return []
        if self.mode[q] == "LIST":
            if not self.lists[q]:
                raise CONFLICT
            return self.lists[q]
        if self.mode[q] == "FIX":
            return []
        start, stop = self.starts[q], self.stops[q]
        if self.values[self.DIRECTION] == "DOWN":
            start, stop = stop, start
        if self.values[self.SPACING] == "LIN":
            return [float(v) for v in np.linspace(start, stop, self.points)]
        if start * stop <= 0:
            raise CONFLICT
        return [
            float(v)
            for v in math.copysign(1, start) * np.geomspace(abs(start), abs(stop), self.points)
        ]

    def _source_delay_measure(self, level: float | None) -> Reading | None:
        """One cycle; None where its sweep ends at compliance before it has measured (manual page
        10-13).
        """
        q = self.function
        if self.values[self.CLEAR_AUTO]:
            self.switch(True)
        if level is None and q in self.triggered:
            level = self.triggered.pop(q)
        elif level is not None and self.values[self.RANGING] == "AUTO":
            self.take_source_scale(q, self.meters[q].fitting(level))
        elif level is not None:
            level = math.copysign(min(abs(level), self.source_scale[q].top), level)
        if level is not None:
            self.force(level)
        if self.mode[q] != "FIX" and self.values[self.ABORT] == "EARL" and self.sense().limited:
            return None
        self._signal("SOUR")
        self.wait(self._delay())
        self._signal("DEL")
        reading = self._convert()
        self._signal("SENS")
        if self.values[self.CLEAR_AUTO] and self.values[self.CLEAR_MODE] == "ALW":
            self.switch(False)
        self.samples = [*self.samples[1 - BUFFER :], reading]
        if self.storing != "NEV" and len(self.store) < self.store_size:
            self.store.append(reading)
            self.measurement_event |= 256 if len(self.store) >= 2 else 0
            if len(self.store) == self.store_size:
                self.measurement_event |= 512
                self.storing = "NEV"
        return reading

    def _signal(self, event: str) -> None:
        if self.values[self.TRIGGER_OUTPUT] == event:
            self.place.bus.pulse((self.place.name, round(float(self.values[self.TRIGGER_OLINE]))))

    def _convert(self) -> Reading:
        """Integrate each function that is on, and tell the rest as the manual says (18-50)."""
        repeats = 1
        if self.values[self.FILTER] and self.values[self.FILTER_TYPE] == "REP":
            repeats = round(float(self.values[self.FILTER_COUNT]))
        phases = 1 if self.values[self.AZERO] in ("OFF", "0") else 3
        if "RES" in self.sensed and self.values[self.OHMS_MODE] == "AUTO":
            self._force_ohms()
        wanted = {"VOLT", "CURR"} if "RES" in self.sensed else self.sensed
        self.wait(phases * repeats * len(wanted) * self.nplc / self.place.line_hz)
        truth = self.sense()
        true = {"VOLT": truth.volts, "CURR": truth.amps}
        readings: dict[str, float] = {}
        for q, value in true.items():
            if q not in wanted:
                readings[q] = self.levels[q] if q == self.function else NOT_MEASURED
                continue
            if self.sense_auto[q] and q != self.function:
                self.sense_scale[q] = self.meters[q].fitting(min(abs(value), self.compliance[q]))
            readings[q] = float(
                np.mean(
                    [self.meters[q].read(value, self.sense_scale_now(q)) for _ in range(repeats)]
                )
            )
            readings[q] = OVERFLOW if abs(readings[q]) >= OVERFLOW else readings[q]
        ohms = NOT_MEASURED
        if "RES" in self.sensed:
            ohms = (
                readings["VOLT"] / readings["CURR"]
                if readings["CURR"] and OVERFLOW not in readings.values()
                else OVERFLOW
            )
        status = self._status_word(truth.limited, readings)
        events, self.next_location = self.tests.look(readings | {"RES": ohms}, truth.limited)
        self.measurement_event |= events | (
            64 | (128 if status & 1 else 0) | (1 << 14 if truth.limited else 0)
        )
        return Reading(readings["VOLT"], readings["CURR"], ohms, self._time(), status)

    def _status_word(self, is_limited: bool, readings: dict[str, float]) -> int:
        """The 24 bits of manual page 18-50."""
        q = OTHER[self.function]
        by_range = self._range_limit(q) < self.compliance[q]
        auto_ohms = "RES" in self.sensed and self.values[self.OHMS_MODE] == "AUTO"
        bits = {
            0: OVERFLOW in readings.values(),
            1: bool(self.values[self.FILTER]),
            2: self.terminals == "FRON",
            3: is_limited and not by_range,
            10: auto_ohms,
            11: "VOLT" in self.sensed,
            12: "CURR" in self.sensed,
            13: "RES" in self.sensed,
            14: self.function == "VOLT",
            15: self.function == "CURR",
            16: is_limited and by_range,
            22: bool(self.values[self.RSENSE]),
        }
        return sum(1 << bit for bit, is_set in bits.items() if is_set)

    def _force_ohms(self) -> None:
        """Auto ohms: the test current of the lowest range that the resistance fits."""
        self.function = "CURR"
        for full, amps in reversed([o for o in OHMS if o[0] <= self.family.most_ohms]):
            self.compliance["VOLT"] = self.start_compliance["VOLT"]
            self.force(amps)
            ohms = self.sense().volts / amps
            if ohms > full / 10 or full == OHMS[0][0]:
                return

    # Setups

    def _set_function(self, call: Call) -> None:
        chosen = call.choice(0, "VOLTage", "CURRent", "MEMory")
        self.is_memory = chosen == "MEM"
        if not self.is_memory:
            self.function = chosen
        self.apply()

    def _kept(self, attributes: tuple[str, ...]) -> dict[str, Any]:
        return copy.deepcopy({name: getattr(self, name) for name in attributes})

    def _take_back(self, kept: dict[str, Any]) -> None:
        for name, value in copy.deepcopy(kept).items():
            setattr(self, name, value)
        self.apply()

    def _save_setup(self, call: Call) -> None:
        at = round(call.number(0, 0, SETUPS - 1))
        self.setups[at] = self._kept(self.ATTRIBUTES_OF_A_SETUP)

    def _recall_setup(self, call: Call) -> None:
        """Take a setup back, the factory's where none was saved; the output is off (unverified)."""
        at = round(call.number(0, 0, SETUPS - 1))
        self.reset()
        self._take_back(self.setups.get(at, {}))

    def _save_location(self, call: Call) -> None:
        kept = self._kept(self.ATTRIBUTES_OF_A_LOCATION)
        self.locations[_location(call)] = kept | {
            "values": {name: self.values[name] for name in self.OF_A_LOCATION}
        }

    def _recall_location(self, at: int) -> None:
        """Take the settings of a location; one never saved has those of now. Limit tests keep their
        results.
        """
        if at > LOCATIONS:
            raise CONFLICT
        kept = dict(self.locations.get(at, {}))
        values = self.values | kept.pop("values", {})
        tests = self.tests
        self._take_back(kept)
        self.values = values
        self.tests.take_results(tests)

    def _time(self) -> float:
        return (self.now_s - self.started_s) % 99999.999

    def _reset_time(self, _: Call) -> None:
        self.started_s = self.now_s

    # Readings out

    def _read(self) -> str | bytes | None:
        self._check_finite()
        self.clear()
        self._initiate()
        # With a trigger still to come the instrument holds its answer back; here there is none
        # until `:FETCh?`.
        return self._fetch() if self.running is None else None

    def _fetch(self) -> str | bytes:
        self._check_finite()
        if not self.samples:
            raise ScpiError(-230, "Data corrupt or stale")
        return self._told_readings(self.samples)

    def _configure(self, q: str, _: Call | None = None) -> None:
        self.sensed = {q}
        self.nplc = 1.0
        if q in self.sense_auto:
            # What belongs to the function is as after a reset, its limit too.
            self.sense_auto[q] = True
            self.compliance[q] = self.start_compliance[q]
            self.apply()
        self.arm_count = self.trigger_count = 1
        self.values[self.ARM_SOURCE] = self.values[self.TRIGGER_SOURCE] = "IMM"
        if not self.values[self.CLEAR_AUTO]:
            self.switch(True)

    def _measure(self, q: str, _: Call | None = None) -> str | bytes | None:
        self._check_finite()
        self._configure(q or next(iter(self.sensed & {"VOLT", "CURR"}), "CURR"))
        return self._read()

    def _set_format(self, call: Call) -> None:
        if call.text().upper() == "REAL" and len(call.arguments) == 2 and call.number(1) == 32:
            self.format = "SRE"
            return
        self.format = call.choice(0, "ASCii", "REAL", "SREal").replace("REAL", "SRE")

    def _set_elements(self, call: Call) -> None:
        words = [
            call.choice(at, "VOLTage", "CURRent", "RESistance", "TIME", "STATus")
            for at in range(len(call.arguments))
        ]
        if not words:
            raise MISSING
        # Whatever the order asked for, they are sent in this one (manual figure 18-1).
        self.elements = tuple(e for e in ELEMENTS if e in words)

    def _told_readings(self, readings: list[Reading]) -> str | bytes:
        numbers = [float(getattr(r, e)) for r in readings for e in self.elements]
        if self.format == "ASC":
            return ",".join(f"{v:+.6E}" for v in numbers)
        order = ">" if self.values[self.BORDER] == "NORM" else "<"
        return b"#0" + struct.pack(f"{order}{len(numbers)}f", *numbers)

    def _stamped(self) -> list[Reading]:
        """The trace buffer with times from its first reading, or from the one before."""
        if not self.store:
            return []
        before = [self.store[0].TIME] * len(self.store)
        if self.values[self.STAMP] == "DELT":
            before = [self.store[0].TIME, *(r.TIME for r in self.store[:-1])]
        return [
            Reading(r.VOLT, r.CURR, r.RES, r.TIME - t, r.STAT)
            for r, t in zip(self.store, before, strict=True)
        ]

    def _clear_store(self) -> None:
        self.store = []
        self.measurement_event &= ~768

    def _set_store_size(self, call: Call) -> None:
        if self.storing != "NEV":
            raise STORAGE
        self.store_size = round(call.number(0, 1, BUFFER, default=100.0))
        self._clear_store()

    def _set_storing(self, call: Call) -> None:
        self.storing = call.choice(0, "NEXT", "NEVer")
        if self.storing == "NEXT":
            self._clear_store()

    def _statistics(self) -> str:
        if not self.store:
            raise ScpiError(-230, "Data corrupt or stale")
        table = np.array([[r.VOLT, r.CURR, r.RES] for r in self.store])
        how: dict[str, Callable[..., Any]] = {
            "MEAN": np.mean,
            "SDEV": np.std,
            "MAX": np.max,
            "MIN": np.min,
            "PKPK": np.ptp,
        }
        values = how[str(self.values[self.STATISTIC])](table, axis=0)
        return ",".join(
            f"{NOT_MEASURED if column[0] >= OVERFLOW else v:+.6E}"
            for v, column in zip(values, table.T, strict=True)
        )

    # Status

    def _take_event(self) -> str:
        event, self.measurement_event = self.measurement_event, 0
        return str(event | (1 << 14 if self.is_on and self.terminal.was_limited() else 0))

    def _status_preset(self) -> None:
        self.values |= dict.fromkeys((p for p in self.values if p.startswith(":STATus:")), 0.0)


def _check(low: float, high: float, call: Call) -> None:
    """A command of which only the parameter's range matters here."""
    call.number(0, low, high)


def _location(call: Call) -> int:
    """A location of the source memory, from 1."""
    return round(call.number(0, 1, LOCATIONS, default=1.0))


def _set_input(call: Call) -> None:
    """Events of the trigger layer that wait for an input trigger: the source's alone here."""
    if call.choice(0, "SOURce", "DELay", "SENSe", "NONE") != "SOUR" or len(call.arguments) > 1:
        raise not_simulated("input triggers of delay and measure")


def _set_feed(call: Call) -> None:
    """What goes into the data store: raw readings alone here."""
    if call.choice(0, "SENSe", "SENSe1", "CALCulate1", "CALCulate2") not in ("SENS", "SENS1"):
        raise not_simulated("a data store of calculated values")


def _set_registers(call: Call) -> None:
    """How status registers are told: in decimal alone here."""
    if call.choice(0, "ASCii", "HEXadecimal", "OCTal", "BINary") != "ASC":
        raise not_simulated("status registers that are not decimal")
