"""Keithley 2450, 2460, 2461 and 2470 SourceMeters with their SCPI command set, over USB, LAN or
GPIB.

Checked against the Model 2450 Reference Manual 2450-901-01 Rev. B: READ? (6-6), binary formats
(6-29, 6-30), autozero, with references of its own for each aperture (6-46), limits (6-71), lists
(6-78, 6-79), sweeps (6-81 to 6-85), event log (6-101), source status bits (8-29), *LANG, kept in
nonvolatile memory (B-5). That another command set comes with the next start say the User's Manual
2450-900-01 Rev. E, 3-16 and 10-3, as the notes of a public program cite them. From the manuals of
the 2461 and 2470, same commands: measuring order and elements (2461: 2-100, 6-160), a fixed
measuring range raises a limit below 10.6 % of it without an error (2470: 12-78): below 10 % here
refused, below 10.6 % with the 2470, and every setting is read back. `SHEETS` says what of each
model was checked against what. Sweeps are taken to switch the output on and off by themselves: it
is asked for first unless it was seen within 2 s, asked for again in the same message, and switched
on again at zero. The pulses of the 2461 and its 10 A range, which is for pulses alone, are not
used.

Readings come in ASCII: the binary formats carry neither status (READ, REL and SOUR alone, 2461 page
6-160) nor a length (header "#0").
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import (
    NOT_A_READING,
    Accuracy,
    ChannelLimits,
    Function,
    ModelSheet,
    Readings,
    SourceSetup,
)
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import number

from .dialects.keithley_24xx import OFF_STATES, OTHER, RESET_S, SHORT, Keithley24xx, Table
from .dialects.makers import SERIES_2450

BUFFER = '"defbuffer1"'
ELEMENTS = "SOUR,READ,REL,STAT,SOURSTAT"
QUESTIONABLE = 1
LIMITED = 32
OUTPUT = 128
FRESH_S = 2.0
"""How long the instrument's word that its output is on is believed before a sweep, which would
switch it on (s).
"""
REFERENCE_S = 60.0
"""How long a measurement of zero and reference serves readings of one conversion (s)."""
ENTRIES = 32
"""Error entries asked for in one message."""
LIMIT = {"VOLT": "ILIM", "CURR": "VLIM"}
_ENTRY = re.compile(r'([+-]?\d+),"([^"]*)"')
_WHEN = re.compile(r';\d[;,][^"]*"?$')


_UNVERIFIED = (
    "shortest level in a sweep",
    "that sweeps switch the output",
    "that a sweep ended at the limit keeps the reading at the limit",
    "buffer size",
    "spelling of status elements and of autozero once",
)
_COMMANDS = "commands, status bits: reference manual 2450-901-01 Rev. B, sections 6 and 8"
_2450_VOLTS = (
    Accuracy(0.2, 0.012e-2, 200e-6),
    Accuracy(2.0, 0.012e-2, 300e-6),
    Accuracy(20.0, 0.015e-2, 1e-3),
    Accuracy(200.0, 0.015e-2, 10e-3),
)
_2450_AMPS = (
    Accuracy(1e-6, 0.025e-2, 300e-12),
    Accuracy(1e-5, 0.025e-2, 700e-12),
    Accuracy(1e-4, 0.02e-2, 6e-9),
    Accuracy(1e-3, 0.02e-2, 60e-9),
    Accuracy(1e-2, 0.02e-2, 600e-9),
    Accuracy(0.1, 0.025e-2, 6e-6),
    Accuracy(1.0, 0.03e-2, 500e-6),
)


def _high_current(sheet: ModelSheet) -> Table:
    """Of a 2460 or 2461."""
    volts, amps = (0.2, 2.0, 7.0, 10.0, 20.0, 100.0), (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    return Table(
        tuple(Accuracy(v, 0.0, 0.0) for v in volts),
        tuple(Accuracy(a, 0.0, 0.0) for a in (*amps, 4.0, 5.0, 7.0)),
        ((7.35, 7.35), (10.5, 5.25), (21.0, 4.2), (105.0, 1.05)),
        1e-6,
        0.2,
        200e-6,
        sheet,
        states_accuracy=False,
    )


TABLES: Mapping[str, Table] = {
    "2450": Table(
        (Accuracy(0.02, 0.100e-2, 150e-6), *_2450_VOLTS),
        (Accuracy(1e-8, 0.10e-2, 50e-12), Accuracy(1e-7, 0.060e-2, 100e-12), *_2450_AMPS),
        ((21.0, 1.05), (210.0, 0.105)),
        1e-9,
        0.02,
        200e-6,
        ModelSheet(
            (
                "ranges, accuracy, settling, smallest current limit: SPEC-2450 Rev. A, pages 2-4",
                _COMMANDS,
            ),
            ("envelope", "smallest voltage limit", *_UNVERIFIED),
        ),
    ),
    "2460": _high_current(
        ModelSheet(
            (_COMMANDS,),
            (
                "ranges, envelope, limits, settling (the 2461's; no accuracy is stated)",
                *_UNVERIFIED,
            ),
        )
    ),
    "2461": _high_current(
        ModelSheet(
            (
                "ranges, levels, limits, elements: reference manual 2461-901-01 Rev. A, 6-93 to"
                " 6-98, 6-160, 8-166",
                _COMMANDS,
            ),
            ("envelope, settling (no accuracy is stated)", *_UNVERIFIED),
        )
    ),
    "2470": Table(
        (*_2450_VOLTS, Accuracy(1000.0, 0.015e-2, 50e-3)),
        (Accuracy(1e-8, 0.10e-2, 250e-12), Accuracy(1e-7, 0.060e-2, 300e-12), *_2450_AMPS),
        ((21.0, 1.05), (210.0, 0.105), (1100.0, 0.021)),
        1.06e-9,
        0.0212,
        200e-6,
        ModelSheet(
            (
                "ranges, accuracy: specifications of the 2470 as a dealer prints them",
                "ranges, limits: reference manual 2470-901-01 Rev. A, 12-53, 12-78",
                _COMMANDS,
            ),
            ("envelope between 1.05 A and 1100 V", "settling", *_UNVERIFIED),
        ),
        least_limit=0.106,
    ),
}


class Keithley2450(Keithley24xx):
    """One of the family. The source value of a reading is read back, so that one at the limit tells
    the true voltage.
    """

    MAKERS = SERIES_2450
    MODELS: ClassVar[tuple[str, ...]] = tuple(TABLES)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {m: t.sheet for m, t in TABLES.items()}
    TABLES = TABLES
    NEAR = r"24[5-7]\d.*"
    SETTINGS = (
        ":SOUR:FUNC?",
        ":SENS:FUNC?",
        ":SOUR:VOLT:ILIM?",
        ":SOUR:CURR:VLIM?",
        ":SOUR:VOLT:RANG:AUTO?",
        ":SOUR:VOLT:RANG?",
        ":SOUR:CURR:RANG:AUTO?",
        ":SOUR:CURR:RANG?",
        ":SENS:VOLT:RANG:AUTO?",
        ":SENS:VOLT:RANG?",
        ":SENS:CURR:RANG:AUTO?",
        ":SENS:CURR:RANG?",
        ":SENS:CURR:NPLC?",
        ":SENS:VOLT:NPLC?",
        ":SOUR:VOLT:DEL?",
        ":SOUR:CURR:DEL?",
        ":SENS:CURR:RSEN?",
        ":SENS:VOLT:RSEN?",
        ":SOUR:VOLT:READ:BACK?",
        ":SOUR:CURR:READ:BACK?",
        ":SENS:CURR:AZER?",
        ":SENS:VOLT:AZER?",
    )
    MOST_POINTS = 100_000
    _seen_on_s = -math.inf
    _zeroed_s: Mapping[float, float] = {}
    """When zero and reference were last measured at each aperture."""
    _verified: frozenset[SourceSetup] = frozenset()
    """Settings that it has taken since it was armed."""

    @override
    def look(self) -> None:
        """Refuse a command set that is not SCPI, leaving it as it is. Raises `ConfigError`."""
        language = self.dialog.query("*LANG?")
        if language != "SCPI":
            raise ConfigError(
                f"{self.name}: the command set is {language[:20]!r}, and this driver speaks SCPI:"
                " send it *LANG SCPI (or choose SCPI in its menu, Settings), then switch it off and"
                " on"
            )

    @override
    def arm(self) -> None:
        """Reset and verify. Raises `ConfigError` for another line frequency than that of the bench
        file.
        """
        self._setup, self._zeroed_s, self._verified = None, {}, frozenset()
        self._saw_output("0")
        terminals = "REAR" if self.config.terminals == "rear" else "FRON"
        reply = self.ask(
            ":ABOR",
            "*CLS",
            "*RST",
            ":SYST:CLE",
            f":OUTP:VOLT:SMOD {OFF_STATES[self.output_off]}",
            f":OUTP:CURR:SMOD {OFF_STATES[self.output_off]}",
            f":ROUT:TERM {terminals}",
            ":FORM:DATA ASC",
            ":FORM:ASC:PREC 10",
            ":SENS:COUN 1",
            ":OUTP?",
            ":ROUT:TERM?",
            ":FORM:DATA?",
            ":SYST:LFR?",
            takes_s=RESET_S,
        )
        output, at, form, mains = self.replies(reply, 4)
        if (output, at, form) != ("0", terminals, "ASC"):
            raise InstrumentError(f"{self.name}: after a reset it says {reply!r}", command="*RST")
        self.check_mains(mains)

    @override
    def switch_off(self) -> None:
        """Off first, for that cannot fail; then both levels to zero."""
        self._saw_output("0")
        self._zeroed_s = {}
        self.send(":ABOR", ":OUTP OFF", ":SOUR:VOLT 0", ":SOUR:CURR 0")

    @override
    def errors(self) -> list[InstrumentError]:
        """The oldest entries of the log, which holds up to 1000; the rest are dropped."""
        reply = self.dialog.query(";".join([":SYST:ERR:COUN?", *[self.ERROR_QUERY] * ENTRIES]))
        count, entries = reply.partition(";")[0], _ENTRY.findall(reply)
        if not count.isdigit() or len(entries) != ENTRIES:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {reply[:60]!r} is no event log")
        if int(count) > ENTRIES and self.dialog.query(":SYST:CLE;:SYST:ERR:COUN?") != "0":
            raise LinkError(f"{self.name}: the event log cannot be emptied")
        return [self.error_of(f'{code},"{text}"', "") for code, text in entries if int(code) != 0]

    @override
    def error_of(self, entry: str, message: str) -> InstrumentError:
        """One entry of the log, without the kind and time at its end."""
        return super().error_of(_WHEN.sub('"', entry), message)

    @override
    def source(self, channel: str, level: float) -> None:
        setup = self._configured(channel)
        self._check_levels(setup, np.array([level]))
        self._saw_output(self.ask(f":SOUR:{SHORT[setup.function]}:LEV {number(level)}", ":OUTP?"))

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch the output; verified by read-back."""
        self._saw_output("0")
        super().output(channel, on)
        self._saw_output("1" if on else "0")

    @override
    def measure(self, channel: str) -> Readings:
        """One reading; its own status tells whether the output was on."""
        setup = self._configured(channel)
        reply = self.ask(
            ":FORM:DATA ASC", f":READ? {BUFFER},{ELEMENTS}", takes_s=self.takes_s(setup, 1)
        )
        return self._readings(setup, reply, 1)

    @override
    def _checked(self, setup: SourceSetup, limits: ChannelLimits) -> SourceSetup:
        asked = super()._checked(setup, limits)
        least = self.TABLES[self.model].least_limit * (asked.measure_range or 0.0)
        if not asked.compliance >= least * (1 - 1e-9):
            raise ConfigError(
                f"{self.name}: compliance: {asked.compliance:g} with a measure_range of"
                f" {asked.measure_range:g}; the instrument would raise it: at least {least:g}"
            )
        return asked

    @override
    def configure(self, channel: str, setup: SourceSetup) -> None:
        super().configure(channel, setup)
        self._verified = self._verified | {self._configured(channel)}

    @override
    def _apply(self, setup: SourceSetup, measure_range: float | None) -> SourceSetup:
        commands = self._settings(setup, measure_range)
        reply = self._asked(*commands, takes_s=2 * setup.aperture_s)
        return self._held(setup, reply)

    def _asked(self, *messages: str, takes_s: float) -> str:
        """As `ask`; where it fails, zero and reference count as not measured."""
        try:
            return self.ask(*messages, takes_s=takes_s)
        except BaseException:
            self._zeroed_s = {}
            raise

    def _settings(self, setup: SourceSetup, measure_range: float | None) -> tuple[str, ...]:
        """Commands that set everything, level at zero, and ask for it."""
        source, sense = SHORT[setup.function], OTHER[setup.function]
        limits = self.limits("1")
        lowest = (limits.voltage_ranges_v if source == "VOLT" else limits.current_ranges_a)[0]
        return (
            ":SOUR:VOLT 0",
            ":SOUR:CURR 0",
            # The measuring function first: choosing it may change the source's.
            f':SENS:FUNC "{sense}"',
            f":SOUR:FUNC {source}",
            f":SENS:{sense}:RANG:AUTO ON",
            f":SOUR:{source}:RANG {number(setup.source_range or lowest)}",
            *((f":SOUR:{source}:RANG:AUTO ON",) if setup.source_range is None else ()),
            f":SOUR:{source}:{LIMIT[source]} {number(setup.compliance)}",
            *(
                (f":SENS:{sense}:RANG {number(measure_range)}",)
                if measure_range is not None
                else ()
            ),
            f":SENS:{sense}:NPLC {number(self.nplc(setup.aperture_s))}",
            f":SENS:{sense}:AZER {'OFF' if setup.one_conversion else 'ON'}",
            *self._zeroing(setup),
            f":SOUR:{source}:DEL {number(setup.settle_s)}",
            f":SENS:{sense}:RSEN {'ON' if setup.remote_sense else 'OFF'}",
            f":SOUR:{source}:READ:BACK {'OFF' if setup.one_conversion else 'ON'}",
            *self.SETTINGS,
        )

    def _zeroing(self, setup: SourceSetup) -> tuple[str, ...]:
        """The command that measures zero and reference, where readings do not and it is time."""
        now_s = time.monotonic()
        fresh = now_s - self._zeroed_s.get(setup.aperture_s, -math.inf) < REFERENCE_S
        if fresh or not setup.one_conversion:
            return ()
        self._zeroed_s = {**self._zeroed_s, setup.aperture_s: now_s}
        return (":SENS:AZER:ONCE",)

    def _held(self, setup: SourceSetup, reply: str) -> SourceSetup:
        """What is in force after `_settings`. Raises `InstrumentError` for another function."""
        source, sense = SHORT[setup.function], OTHER[setup.function]
        answers = self.replies(reply, len(self.SETTINGS))
        read_back, zeroed = (answers[18], answers[20]) if source == "VOLT" else answers[19:22:2]
        if answers[1].strip('"').removesuffix(":DC") != sense or read_back != zeroed:
            raise InstrumentError(
                f"{self.name}: it measures {answers[1]} and not what was asked for",
                command=":SENS:FUNC",
            )
        return self._told(reply)

    @override
    def _told(self, reply: str) -> SourceSetup:
        answers = self.replies(reply, len(self.SETTINGS))
        is_volts = answers[0] == "VOLT"
        v_source, a_source, v_sense, a_sense = self.ranges_told(answers, 4)
        return SourceSetup(
            Function.VOLTAGE if is_volts else Function.CURRENT,
            compliance=self.value(answers[2] if is_volts else answers[3]),
            source_range=v_source if is_volts else a_source,
            measure_range=a_sense if is_volts else v_sense,
            aperture_s=self.value(answers[12] if is_volts else answers[13]) / self.config.line_hz,
            settle_s=self.value(answers[14] if is_volts else answers[15]),
            remote_sense=(answers[16] if is_volts else answers[17]) == "1",
            one_conversion=(answers[18] if is_volts else answers[19]) == "0",
        )

    @override
    def _staircase(
        self, setup: SourceSetup, start: float, stop: float, points: int
    ) -> tuple[tuple[str, ...], str]:
        ranging = "BEST" if setup.source_range is None else "FIX"
        name = SHORT[setup.function]
        levels = f"{number(start)},{number(stop)},{points},0,1,{ranging}"
        return (), f":SOUR:SWE:{name}:LIN {levels},{self._ends(points)},OFF,{BUFFER}"

    @override
    def _listed(self, setup: SourceSetup, points: int) -> tuple[tuple[str, ...], str]:
        name = SHORT[setup.function]
        return (), f":SOUR:SWE:{name}:LIST 1,0,1,{self._ends(points)},{BUFFER}"

    def _ends(self, points: int) -> str:
        """Whether a sweep is broken off at the limit (the instrument's own default); a single point
        has nothing to break off.
        """
        return "ON" if self.stop_at_compliance and points > 1 else "OFF"

    @override
    def list_sweeps(
        self, channel: str, runs: Sequence[tuple[SourceSetup, FloatArray]]
    ) -> list[Readings]:
        """In one transaction, where every list has a single level. Settings that are new are first
        sent and read back alone; those sent again are read back with the readings.
        """
        if self._setup is None or any(np.size(levels) != 1 for _, levels in runs):
            return super().list_sweeps(channel, runs)
        limits, asked = self.limits(channel), []
        for setup, levels in runs:
            asked.append(self._checked(setup, limits))
            self._check_levels(asked[-1], np.asarray(levels, dtype=np.float64).ravel())
        for new in (setup for setup in asked if setup not in self._verified):
            self.configure(channel, new)
        self._look_for_output()
        messages: list[str] = []
        before = self._setup
        for setup, (_, levels) in zip(asked, runs, strict=True):
            if setup != before:
                # After a list the level is zero already.
                settings = self._settings(setup, setup.measure_range)
                messages += settings[2:] if messages else settings
            level = float(np.ravel(levels)[0])
            command = f":SOUR:LIST:{SHORT[setup.function]} {number(level)}"
            messages += self._run(setup, (command,), self._listed(setup, 1)[1], 1)
            before = setup
        before, self._setup = self._setup, None
        takes_s = sum(self.takes_s(s, 1) + 2 * s.aperture_s for s in asked)
        reply, found = self._asked(*messages, takes_s=takes_s), []
        answers = self.replies(
            reply, sum(message.endswith("?") or "DATA? " in message for message in messages)
        )
        for setup in asked:
            if setup != before:
                told, answers = answers[: len(self.SETTINGS)], answers[len(self.SETTINGS) :]
                self._compare(setup, self._held(setup, ";".join(told)), limits)
            (state, data), answers = answers[:2], answers[2:]
            self._check_output(state, ":INIT")
            found.append(self._readings(setup, data, 1))
            before = setup
        self._setup = before
        self._saw_output("1")
        return found

    def _look_for_output(self) -> None:
        """Make sure that the output is on. A sweep would switch it on by itself."""
        if time.monotonic() - self._seen_on_s > FRESH_S:
            self._saw_output(self.ask(":OUTP?"))
        if self._seen_on_s == -math.inf:
            raise InstrumentError(f"{self.name}: the output is off: no sweep", command=":INIT")
        self._saw_output("0")

    def _check_output(self, state: str, start: str) -> None:
        """Raise `InstrumentError` where the output was off before a sweep."""
        if state != "1":
            self.switch_off()
            raise InstrumentError(
                f"{self.name}: the output was switched off meanwhile: nothing is read",
                command=start,
            )

    def _run(
        self, setup: SourceSetup, commands: tuple[str, ...], start: str, points: int
    ) -> tuple[str, ...]:
        """Commands of a sweep, with two answers: the output's state before, and the data."""
        return (
            ":OUTP?",
            ":FORM:DATA ASC",
            *commands,
            f":TRAC:CLE {BUFFER}",
            start,
            ":INIT",
            "*WAI",
            f":SOUR:{SHORT[setup.function]} 0",
            # ... and has switched it off again.
            ":OUTP ON",
            self._data(points) if self._ends(points) == "OFF" else f":TRAC:ACT? {BUFFER}",
        )

    @override
    def _sweep(
        self, setup: SourceSetup, commands: tuple[str, ...], start: str, points: int
    ) -> Readings:
        self._look_for_output()
        reply = self.ask(
            *self._run(setup, commands, start, points), takes_s=self.takes_s(setup, points)
        )
        before, data = self.replies(reply, 2)
        self._check_output(before, start)
        if self._ends(points) == "ON":
            # How many readings there are was not known before.
            taken = round(self.value(data))
            if not 1 <= taken <= points:
                raise InstrumentError(
                    f"{self.name}: {taken} readings of {points} points", command=start
                )
            data = self.ask(self._data(taken))
        readings = self._readings(setup, data, points).ended(points, self.name)
        self._saw_output("1")
        return readings

    @staticmethod
    def _data(points: int) -> str:
        return f":TRAC:DATA? 1,{points},{BUFFER},{ELEMENTS}"

    def _saw_output(self, state: str) -> None:
        self._seen_on_s = time.monotonic() if state == "1" else -math.inf

    def _readings(self, setup: SourceSetup, reply: str, points: int) -> Readings:
        source, reading, time_s, word, source_word = self.table(reply, 5, points).T
        status, source_status = (
            np.rint(word).astype(np.int64),
            np.rint(source_word).astype(np.int64),
        )
        if not np.all(source_status & OUTPUT):
            raise InstrumentError(f"{self.name}: the output is off: no reading", command=":READ?")
        reading = np.where(status & QUESTIONABLE, np.copysign(NOT_A_READING, reading), reading)
        volts, amps = (source, reading) if setup.function is Function.VOLTAGE else (reading, source)
        return Readings.of(volts, amps, (source_status & LIMITED) != 0, time_s)
