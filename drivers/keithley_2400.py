"""Keithley 2400 SourceMeter in SCPI, over GPIB or RS-232.

Checked against the Series 2400 SourceMeter User's Manual 2400S-900-01 (Rev. K, September 2011) and
SPEC-2400 Rev. H: ranges, accuracy, envelope, smallest compliance ("Min. 0.1 % of range", SPEC-2400
pages 1 and 2); 250 us of output recovery (page 3-4); commands, status word and 9.9E37 / 9.91E37
(pages 18-48 to 18-54); compliance and range rules (18-62, 18-68); abort on compliance (10-13);
lists of 100, 2500 in all (18-91, 18-92); counts (18-118); output must be on for `:READ?` (18-72).
Unverified: the shortest level in a sweep (2 ms; SPEC-2400 page 3 was not opened), that a level of
zero stands from the end of a sweep on, the RS-232 buffer. Models 2401 to 2440 are not included:
their limits differ.

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

from rram_hil.errors import InstrumentError
from rram_hil.hardware.instrument import (
    NOT_A_READING,
    Accuracy,
    ChannelLimits,
    Function,
    ModelSheet,
    Readings,
    SourceSetup,
)
from rram_hil.wire.dialog import number

from .dialects.keithley_24xx import OFF_STATES, OTHER, RESET_S, SHORT, Keithley24xx

ELEMENTS = "VOLT,CURR,RES,TIME,STAT"
OVERFLOWED = 1 << 0
COMPLIANCE = 1 << 3
RANGE_COMPLIANCE = 1 << 16
SMALLEST = {"VOLT": 0.2, "CURR": 1e-6}
"""Lowest range; as measuring range it fits under every compliance, and every legal compliance fits
on it.
"""


SHEET = ModelSheet(
    documents=(
        "ranges, accuracy, envelope, smallest compliance: SPEC-2400 Rev. H, pages 1 and 2",
        "commands, status word, recovery: User's Manual 2400S-900-01 Rev. K, sections 3, 10, 18",
    ),
    unverified=(
        "shortest level in a sweep (2 ms)",
        "that the level is zero at once after a sweep",
        "the RS-232 buffer",
    ),
)


class Keithley2400(Keithley24xx):
    """The 2400. Both voltage and current are measured, so that a reading at compliance tells the
    true voltage.
    """

    MODELS = ("2400",)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {"2400": SHEET}
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
    )

    @override
    def _limits(self) -> ChannelLimits:
        return ChannelLimits(
            voltage_ranges_v=(0.2, 2.0, 20.0, 200.0),
            current_ranges_a=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
            envelope=((21.0, 1.05), (210.0, 0.105)),
            shortest_s=2e-3,
            shortest_aperture_s=0.01 / self.config.line_hz,
            longest_aperture_s=10 / self.config.line_hz,
            smallest_compliance_a=1e-9,
            smallest_compliance_v=200e-6,
            settle_s=250e-6,
            measures_a=(
                Accuracy(1e-6, 0.029e-2, 300e-12),
                Accuracy(1e-5, 0.027e-2, 700e-12),
                Accuracy(1e-4, 0.025e-2, 6e-9),
                Accuracy(1e-3, 0.027e-2, 60e-9),
                Accuracy(1e-2, 0.035e-2, 600e-9),
                Accuracy(0.1, 0.055e-2, 6e-6),
                Accuracy(1.0, 0.22e-2, 570e-6),
            ),
            measures_v=(
                Accuracy(0.2, 0.012e-2, 300e-6),
                Accuracy(2.0, 0.012e-2, 300e-6),
                Accuracy(20.0, 0.015e-2, 1.5e-3),
                Accuracy(200.0, 0.015e-2, 10e-3),
            ),
        )

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
    def _apply(self, setup: SourceSetup, measure_range: float | None) -> SourceSetup:
        source, sense = SHORT[setup.function], OTHER[setup.function]
        # On its lowest measuring range the instrument takes every legal compliance, and with a
        # small compliance every source range: so the order below works from any state, and what
        # flows meanwhile is at most that range.
        low = min(setup.compliance, SMALLEST[sense])
        lowest = SMALLEST[source]
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
                f":SENS:{sense}:RANG {number(SMALLEST[sense])}",
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
