"""Keithley Series 2400 SourceMeters (2400, 2400-LV, 2401, 2410, 2420, 2425, 2430, 2440) in SCPI,
over GPIB or RS-232.

Checked against the Series 2400 SourceMeter User's Manual 2400S-900-01 (Rev. K, September 2011):
250 us of output recovery (page 3-4); commands, status word and 9.9E37 / 9.91E37 (pages 18-48 to
18-54); compliance and range rules (18-62, 18-68); abort on compliance (10-13); lists of 100, 2500
in all (18-91, 18-92); counts (18-118); output must be on for `:READ?` (18-72). `SHEETS` says what
of each model was checked against what. The pulse mode of the 2430 is not used: `arm` selects DC.

Readings come in ASCII. The binary format (IEEE 754 single, header "#0") tells no length, so that a
reply cut short could not be told from a whole one, and nothing can be fused behind it; over RS-232
it does not exist (error +701). ASCII loses no digit of a 5 1/2 digit reading. RS-232: set 8 data
bits, no parity, flow control XON/XOFF off and the terminator <LF> on the front panel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from typing_extensions import override

from rram_hil.array import Status
from rram_hil.errors import InstrumentError
from rram_hil.hardware.instrument import (
    NOT_A_READING,
    Accuracy,
    Function,
    ModelSheet,
    Readings,
    SourceSetup,
)
from rram_hil.wire.dialog import number

from .dialects.keithley_24xx import OFF_STATES, OTHER, RESET_S, SHORT, Keithley24xx, Table
from .dialects.makers import SERIES_2400

ELEMENTS = "VOLT,CURR,RES,TIME,STAT"
OVERFLOWED = 1 << 0
COMPLIANCE = 1 << 3
RANGE_COMPLIANCE = 1 << 16
EVENTS = ":STAT:MEAS?"
HAS_BEEN_LIMITED = 1 << 14
"""Bit of the measurement event register, which asking for it clears (15-13, 15-14)."""
LIMITS = "smallest compliance, commands: User's Manual 2400S-900-01 Rev. K, 6-2, sections 10 and 18"
UNVERIFIED = (
    "shortest level in a sweep (2 ms)",
    "that the level is zero at once after a sweep",
    "the RS-232 buffer",
    "what autozero once leaves behind",
    "that the event register keeps a compliance between two readings",
)


def _sheet(documents: tuple[str, ...], *unverified: str) -> ModelSheet:
    return ModelSheet((*documents, LIMITS), (*unverified, *UNVERIFIED))


_FINE_VOLTS = (Accuracy(0.2, 1.2e-4, 300e-6), Accuracy(2.0, 1.2e-4, 300e-6))
_20_V = (*_FINE_VOLTS, Accuracy(20.0, 1.5e-4, 1e-3))
_MICROAMPS = (
    Accuracy(1e-5, 2.7e-4, 700e-12),
    Accuracy(1e-4, 2.5e-4, 6e-9),
    Accuracy(1e-3, 2.7e-4, 60e-9),
)
_LOW_AMPS = (Accuracy(1e-6, 2.9e-4, 300e-12), *_MICROAMPS)
_10_MA, _100_MA = Accuracy(1e-2, 3.5e-4, 600e-9), Accuracy(0.1, 5.5e-4, 6e-6)
_1_A = Accuracy(1.0, 2.2e-3, 570e-6)
_HIGH_AMPS = (*_MICROAMPS, _10_MA, _100_MA, Accuracy(1.0, 6e-4, 570e-6))
_3_A = Accuracy(3.0, 5.2e-4, 1.71e-3)
_LINE = "SourceMeter Line Specifications in the 2410's manual"
_TABLE_1_6 = (
    "currents at full scale: Model 2430 Service Manual, table 1-6; their fractions and offsets to"
    " 1 A: SPEC-2440 Rev. C, page 2"
)


def _table(
    volts: tuple[Accuracy, ...],
    amps: tuple[Accuracy, ...],
    envelope: tuple[tuple[float, float], ...],
    smallest_a: float,
    sheet: ModelSheet,
) -> Table:
    return Table(volts, amps, envelope, smallest_a, 200e-6, 250e-6, sheet)


_2400_VOLTS = (*_FINE_VOLTS, Accuracy(20.0, 1.5e-4, 1.5e-3))
_2400_AMPS = (*_LOW_AMPS, _10_MA, _100_MA, _1_A)
_2425 = (
    (*_20_V, Accuracy(100.0, 1.5e-4, 5e-3)),
    (*_HIGH_AMPS, _3_A),
    ((21.0, 3.15), (105.0, 1.05)),
    10e-9,
)
TABLES: Mapping[str, Table] = {
    "2400": _table(
        (*_2400_VOLTS, Accuracy(200.0, 1.5e-4, 10e-3)),
        _2400_AMPS,
        ((21.0, 1.05), (210.0, 0.105)),
        1e-9,
        _sheet(("ranges, accuracy, envelope: SPEC-2400 Rev. H, pages 1 and 2",)),
    ),
    "2400-LV": _table(
        _2400_VOLTS,
        _2400_AMPS,
        ((21.0, 1.05),),
        1e-9,
        _sheet(
            ("ranges, accuracy, envelope: SPEC-2400 Rev. H, pages 1 and 2",),
            "how it tells its name",
        ),
    ),
    "2401": _table(
        _2400_VOLTS,
        _2400_AMPS,
        ((21.0, 1.05),),
        1e-9,
        _sheet(
            ("ranges, envelope: User's Manual 2400S-900-01 Rev. K, 6-2, 18-62, 18-84",),
            "accuracy (that of the 2400-LV)",
        ),
    ),
    "2410": _table(
        (*_20_V, Accuracy(1000.0, 1.5e-4, 50e-3)),
        (*_LOW_AMPS, Accuracy(0.02, 3.5e-4, 1.2e-6), _100_MA, _1_A),
        ((21.0, 1.05), (1100.0, 0.021)),
        1e-9,
        _sheet(
            (
                "ranges: User's Manual 2400S-900-01, table 3-1; envelope: 18-62",
                f"accuracy of volts: {_LINE}",
                "currents at full scale: Model 2410 Service Manual, table 1-5; their fractions and"
                " offsets but for 20 mA: SPEC-2400 Rev. H, page 2",
            ),
            "which part of the 20 mA range's error is an offset",
        ),
    ),
    "2420": _table(
        (*_20_V, Accuracy(60.0, 1.5e-4, 3e-3)),
        (*_HIGH_AMPS, _3_A),
        ((21.0, 3.15), (63.0, 1.05)),
        10e-9,
        _sheet(
            ("ranges, envelope: SPEC-2420 Rev. C, page 1", f"accuracy of volts: {_LINE}"),
            "accuracy of currents (that of the 2430)",
        ),
    ),
    "2425": _table(
        *_2425,
        _sheet(
            ("ranges, envelope: SPEC-2425 Rev. C, page 1",),
            "accuracy (that of the 2430)",
        ),
    ),
    "2430": _table(
        *_2425,
        _sheet(
            (
                "ranges: SPEC-2430 Rev. D, page 1; envelope without pulses: User's Manual"
                " 2400S-900-01 Rev. K, 6-13",
                f"accuracy of volts to 20 V: {_LINE}",
                _TABLE_1_6,
            ),
            "accuracy of the 100 V range",
            "which part of the 3 A range's error is an offset",
        ),
    ),
    "2440": _table(
        (*_FINE_VOLTS, Accuracy(10.0, 1.5e-4, 750e-6), Accuracy(40.0, 1.5e-4, 3e-3)),
        (*_HIGH_AMPS, Accuracy(5.0, 1e-3, 3.42e-3)),
        ((10.5, 5.25), (42.0, 1.05)),
        10e-9,
        _sheet(
            ("ranges: User's Manual 18-75, accuracy: SPEC-2440 Rev. C, page 2",),
            "envelope between 5.25 A and 42 V",
        ),
    ),
}


class Keithley2400(Keithley24xx):
    """One of the Series 2400. Both voltage and current are measured, so that a reading at
    compliance tells the true voltage.
    """

    MAKERS = SERIES_2400
    MODELS: ClassVar[tuple[str, ...]] = tuple(TABLES)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {m: t.sheet for m, t in TABLES.items()}
    TABLES = TABLES
    NEAR = r"24[0-4]\d.*"
    SETTINGS = (
        ":SOUR:FUNC?",
        ":SENS:CURR:PROT?",
        ":SENS:VOLT:PROT?",
        ":SOUR:VOLT:RANG:AUTO?",
        ":SOUR:VOLT:RANG?",
        ":SOUR:CURR:RANG:AUTO?",
        ":SOUR:CURR:RANG?",
        ":SENS:VOLT:RANG:AUTO?",
        ":SENS:VOLT:RANG?",
        ":SENS:CURR:RANG:AUTO?",
        ":SENS:CURR:RANG?",
        ":SENS:CURR:NPLC?",
        ":SOUR:DEL?",
        ":SYST:RSEN?",
        ":SYST:AZER?",
    )

    @override
    def plain_model(self, told: str) -> str:
        """The model without the "-C" of one with contact check ("MODEL 2420-C" -> "2420")."""
        return super().plain_model(told).removesuffix("-C")

    @override
    def arm(self) -> None:
        """Reset and verify. Raises `ConfigError` for another line frequency than that of the bench
        file.
        """
        self._setup = None
        terminals = "REAR" if self.config.terminals == "rear" else "FRON"
        reply = self.ask(
            ":ABOR",
            "*CLS",
            "*RST",
            f":OUTP:SMOD {OFF_STATES[self.output_off]}",
            # Only the 2430 has another shape, and the command.
            *((":SOUR:FUNC:SHAP DC",) if self.model == "2430" else ()),
            ":SOUR:CLE:AUTO OFF",
            f":ROUT:TERM {terminals}",
            ":SYST:AZER ON",
            ":SENS:FUNC:CONC ON",
            ":SENS:FUNC 'VOLT:DC','CURR:DC'",
            ":SENS:FUNC:OFF 'RES'",
            ":FORM:DATA ASC",
            f":FORM:ELEM {ELEMENTS}",
            ":OUTP?",
            ":ROUT:TERM?",
            ":FORM:ELEM?",
            ":SYST:LFR?",
            takes_s=RESET_S,
        )
        output, at, elements, mains = self.replies(reply, 4)
        if (output, at, elements) != ("0", terminals, ELEMENTS):
            raise InstrumentError(f"{self.name}: after a reset it says {reply!r}", command="*RST")
        self.check_mains(mains)

    @override
    def switch_off(self) -> None:
        """Off first, for that cannot fail; then both levels to zero."""
        self.send(
            ":ABOR",
            ":OUTP OFF",
            ":SOUR:VOLT:MODE FIX",
            ":SOUR:CURR:MODE FIX",
            ":SOUR:VOLT 0",
            ":SOUR:CURR 0",
        )

    @override
    def measure(self, channel: str) -> Readings:
        """One reading; the instrument's error +803 says that the output is off."""
        setup = self._configured(channel)
        reply = self.ask(f":FORM:ELEM {ELEMENTS}", ":READ?", takes_s=self.takes_s(setup, 1))
        return self._readings(reply, 1)

    @override
    def source(self, channel: str, level: float) -> None:
        """Set the level; what the event register kept until then is forgotten."""
        setup = self._configured(channel)
        self._check_levels(setup, np.array([level]))
        self.ask(f":SOUR:{SHORT[setup.function]}:LEV {number(level)}", EVENTS)

    @override
    def held(self, channel: str) -> Readings:
        """As `SourceMeter.held`: the event register keeps that the source was in compliance."""
        setup = self._configured(channel)
        reply = self.ask(f":FORM:ELEM {ELEMENTS}", ":READ?", EVENTS, takes_s=self.takes_s(setup, 1))
        reading, events = self.replies(reply, 2)
        found = self._readings(reading, 1)
        if int(self.value(events)) & HAS_BEEN_LIMITED and found.status[0] == Status.OK:
            found.status[0] = Status.COMPLIANCE
        return found

    @override
    def _apply(self, setup: SourceSetup, measure_range: float | None) -> SourceSetup:
        source, sense = SHORT[setup.function], OTHER[setup.function]
        # On its lowest measuring range the instrument takes every legal compliance, and with a
        # small compliance every source range: so the order below works from any state, and what
        # flows meanwhile is at most that range.
        limits = self.limits("1")
        smallest = {"VOLT": limits.voltage_ranges_v[0], "CURR": limits.current_ranges_a[0]}
        low, lowest = min(setup.compliance, smallest[sense]), smallest[source]
        return self._told(
            self.ask(
                ":SOUR:VOLT:MODE FIX",
                ":SOUR:CURR:MODE FIX",
                ":SOUR:VOLT 0",
                ":SOUR:CURR 0",
                f":SOUR:FUNC {source}",
                ":SENS:FUNC:CONC ON",
                ":SENS:FUNC 'VOLT:DC','CURR:DC'",
                ":SENS:FUNC:OFF 'RES'",
                # What is not measured is told as it was set.
                *((f":SENS:FUNC:OFF '{source}:DC'",) if setup.one_conversion else ()),
                f":SENS:{sense}:RANG {number(smallest[sense])}",
                f":SENS:{sense}:PROT {number(low)}",
                _range("SOUR", source, setup.source_range or lowest),
                *((f":SOUR:{source}:RANG:AUTO ON",) if setup.source_range is None else ()),
                f":SENS:{sense}:PROT {number(setup.compliance)}",
                f":SENS:{sense}:RANG:AUTO ON"
                if measure_range is None
                else _range("SENS", sense, measure_range),
                f":SENS:{sense}:NPLC {number(self.nplc(setup.aperture_s))}",
                f":SOUR:DEL {number(setup.settle_s)}",
                f":SYST:RSEN {'ON' if setup.remote_sense else 'OFF'}",
                *((":SYST:AZER ONCE",) if setup.one_conversion else ()),
                f":SYST:AZER {'OFF' if setup.one_conversion else 'ON'}",
                ":ARM:COUN 1",
                ":TRIG:COUN 1",
                *self.SETTINGS,
            )
        )

    @override
    def _told(self, reply: str) -> SourceSetup:
        answers = self.replies(reply, len(self.SETTINGS))
        function = Function.VOLTAGE if answers[0] == "VOLT" else Function.CURRENT
        v_source, a_source, v_sense, a_sense = self.ranges_told(answers, 3)
        is_volts = function is Function.VOLTAGE
        return SourceSetup(
            function,
            compliance=self.value(answers[1] if is_volts else answers[2]),
            source_range=v_source if is_volts else a_source,
            measure_range=a_sense if is_volts else v_sense,
            aperture_s=self.value(answers[11]) / self.config.line_hz,
            settle_s=self.value(answers[12]),
            remote_sense=answers[13] == "1",
            one_conversion=answers[14] == "0",
        )

    @override
    def _staircase(
        self, setup: SourceSetup, start: float, stop: float, points: int
    ) -> tuple[tuple[str, ...], str]:
        name = SHORT[setup.function]
        return (
            f":SOUR:{name}:STAR {number(start)}",
            f":SOUR:{name}:STOP {number(stop)}",
            f":SOUR:SWE:POIN {points}",
            ":SOUR:SWE:SPAC LIN",
            ":SOUR:SWE:DIR UP",
        ), "SWE"

    @override
    def _listed(self, setup: SourceSetup, points: int) -> tuple[tuple[str, ...], str]:
        return (), "LIST"

    @override
    def _sweep(
        self, setup: SourceSetup, commands: tuple[str, ...], start: str, points: int
    ) -> Readings:
        name = SHORT[setup.function]
        reply = self.ask(
            f":FORM:ELEM {ELEMENTS}",
            # The fixed level is what stands after the sweep.
            f":SOUR:{name} 0",
            *commands,
            f":SOUR:SWE:RANG {'BEST' if setup.source_range is None else 'FIX'}",
            # Late: at the end of a point, which so has its reading.
            f":SOUR:SWE:CAB {'LATE' if self.stop_at_compliance else 'NEV'}",
            f":SOUR:{name}:MODE {start}",
            f":TRIG:COUN {points}",
            ":READ?",
            f":SOUR:{name}:MODE FIX",
            f":SOUR:{name} 0",
            ":TRIG:COUN 1",
            takes_s=self.takes_s(setup, points),
        )
        return self._readings(reply, points).ended(points, self.name)

    def _readings(self, reply: str, points: int) -> Readings:
        volts, amps, _, time_s, word = self.table(reply, 5, points).T
        status = np.rint(word).astype(np.int64)
        amps = np.where(status & OVERFLOWED, np.copysign(NOT_A_READING, amps), amps)
        return Readings.of(volts, amps, (status & (COMPLIANCE | RANGE_COMPLIANCE)) != 0, time_s)


def _range(root: str, name: str, full: float) -> str:
    return f":{root}:{name}:RANG {number(full)}"
