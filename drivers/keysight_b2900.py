"""Keysight (Agilent) B2900A, B2900B and B2900BL precision source/measure units (SCPI): B2901A,
B2902A, B2911A, B2912A, the same with B, B2901BL and B2910BL. What each stands on is in `SHEETS`.

Limits are from the B2900A data sheet, page 16 (measuring ranges, accuracy at 1 PLC, over-range),
page 17 (trigger interval 20 us, 10 us for the B291x), the "B2900 User's Guide", Edition 2, 2-20
(shortest pulse 50 us), Edition 5, 2-14 (current ranges), and the "Source Output Ranges" table (2-36
of the B2961A/B2962A SCPI Command Reference, which shares these outputs). Commands, the order of two
channels' data, not-a-number and infinity, and the status bits are from the "Agilent B2900 SCPI
Command Reference", Edition 2 (1-12 to 1-14, 4-28, 4-68, 4-93 to 4-105). Digital-line triggers were
compared with public programs for the B2900. Of the B and BL models no document was found; their
names are in the list of the maker's IVI driver (MathWorks, "Keysight B29xx"). No command ends a
sweep at compliance; the output protection (4-67 of the B2961A reference) switches the output off
there, so `stop_at_compliance` takes levels one by one. Unverified: smallest compliance (taken as 1
% of the lowest range), source settling (50, 110, 700 us by range), that the level returns to the
immediate one after a list (checked at run time: every reading's forced level is compared with the
list), the limit that both channels of a two-channel model share (not checked here).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.abilities import TriggeredSourceMeter
from rram_hil.hardware.instrument import (
    NOT_A_READING,
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

from .dialects.makers import B2900
from .dialects.scpi import ScpiInstrument, floats
from .dialects.setups import SetupSourceMeter, until_compliance

MOST_POINTS = 2500
"""Values of one list or sweep."""
OVERHEAD_S = 2e-3
"""Allowance for one point in timeouts: range changes and data compensation."""
SHORTEST_PULSE_S = 50e-6
VOLT_RANGES = (0.2, 2.0, 20.0, 200.0)
MEASURES_V = (
    Accuracy(0.2, 1.5e-4, 225e-6),
    Accuracy(2.0, 2e-4, 350e-6),
    Accuracy(20.0, 1.5e-4, 5e-3),
    Accuracy(200.0, 1.5e-4, 50e-3),
)
MEASURES_A = (
    Accuracy(1e-8, 1e-3, 50e-12),
    Accuracy(1e-7, 6e-4, 100e-12),
    Accuracy(1e-6, 2.5e-4, 500e-12),
    Accuracy(1e-5, 2.5e-4, 1.5e-9),
    Accuracy(1e-4, 2e-4, 25e-9),
    Accuracy(1e-3, 2e-4, 200e-9),
    Accuracy(1e-2, 2e-4, 2.5e-6),
    Accuracy(0.1, 2e-4, 20e-6),
    Accuracy(1.0, 3e-4, 1.5e-3),
    Accuracy(1.5, 5e-4, 3.5e-3),
    Accuracy(3.0, 4e-3, 7e-3),
)
FULL_ENVELOPE = ((6.0, 3.03), (21.0, 1.515), (210.0, 0.105))


@dataclass(frozen=True)
class _Model:
    """What a model has: channels, its lowest and highest current range (A), its highest voltage
    range (V), and its shortest interval between measurements (s).
    """

    channels: tuple[str, ...]
    lowest_a: float
    highest_a: float
    highest_v: float
    interval_s: float

    @property
    def volts(self) -> tuple[float, ...]:
        """Voltage ranges (V)."""
        return tuple(v for v in VOLT_RANGES if v <= self.highest_v)

    @property
    def amps(self) -> tuple[float, ...]:
        """Current ranges (A)."""
        return tuple(a.range for a in MEASURES_A if self.lowest_a <= a.range <= self.highest_a)

    @property
    def envelope(self) -> tuple[tuple[float, float], ...]:
        """What it gives together (V, A)."""
        return tuple(
            (v, a)
            for v, a in FULL_ENVELOPE
            if v <= 1.05 * self.highest_v and a <= 1.01 * self.highest_a
        )


_ONE, _TWO = ("1",), ("1", "2")
TABLE = {
    "B2901A": _Model(_ONE, 1e-7, 3.0, 200.0, 20e-6),
    "B2902A": _Model(_TWO, 1e-7, 3.0, 200.0, 20e-6),
    "B2911A": _Model(_ONE, 1e-8, 3.0, 200.0, 10e-6),
    "B2912A": _Model(_TWO, 1e-8, 3.0, 200.0, 10e-6),
    "B2901B": _Model(_ONE, 1e-7, 3.0, 200.0, 20e-6),
    "B2902B": _Model(_TWO, 1e-7, 3.0, 200.0, 20e-6),
    "B2911B": _Model(_ONE, 1e-8, 3.0, 200.0, 20e-6),
    "B2912B": _Model(_TWO, 1e-8, 3.0, 200.0, 20e-6),
    "B2901BL": _Model(_ONE, 1e-7, 1.5, 20.0, 50e-6),
    "B2910BL": _Model(_ONE, 1e-8, 1.5, 200.0, 50e-6),
}
_COMMANDS = (
    "commands, order of data, not-a-number, status bits: Agilent B2900 SCPI Command Reference,"
    " Edition 2, 1-12 to 1-14, 4-28, 4-68, 4-93 to 4-105"
)
_NOT_SEEN = (
    "smallest compliance (1 % of the lowest range)",
    "source settling (110 us)",
    "that the level returns to the immediate one after a list (checked at run time)",
    "input buffer size",
)
_A_SHEET = ModelSheet(
    (
        "ranges, accuracy at 1 PLC, over-range: B2900A data sheet, page 16",
        "shortest interval: B2900A data sheet, page 17",
        "current ranges: B2900 User's Guide, Edition 5, 2-14",
        "shortest pulse: B2900 User's Guide, Edition 2, 2-20",
        "envelope: B2961A/B2962A SCPI Command Reference, 2-36",
        _COMMANDS,
    ),
    _NOT_SEEN,
)
_TWO_SHEET = replace(
    _A_SHEET, unverified=(*_NOT_SEEN, "the limit that both channels share (not checked here)")
)
_B_SHEET = ModelSheet(
    ("name: list of the maker's IVI driver (MathWorks, Keysight B29xx)", _COMMANDS),
    (
        "all ranges, envelope and accuracy (taken from the A model of its number), shortest"
        " interval (the coarser of the A models)",
        *_NOT_SEEN,
    ),
)
_BL_SHEET = ModelSheet(
    (
        "name: list of the maker's IVI driver (MathWorks, Keysight B29xx)",
        "identification, 210 V, 1.5 A, no pulses, 50 us of the B2910BL: sources of two public"
        " programs",
        _COMMANDS,
    ),
    (
        "all ranges, envelope and accuracy of both models; 21 V of the B2901BL; that lists,"
        " digital lines and apertures are as on the B2900A",
        *_NOT_SEEN,
    ),
)
ELEMENTS = 5
"""Values of one reading as pinned here: volts, amperes, time, status, forced level."""
BINARY = (":FORM REAL,64", ":FORM:BORD NORM", ":FORM:ELEM:SENS VOLT,CURR,TIME,STAT,SOUR")
AT_COMPLIANCE = 2 | 4
OVER_RANGE = 8192
PROTECTED = {8: "over voltage", 16: "over current", 32: "high temperature"}


@dataclass(frozen=True)
class _Armed:
    """A triggered list that has been started: its channels' levels where it measures, shape (n,)
    each, and a point's time.
    """

    levels: Mapping[str, FloatArray]
    measured: tuple[str, ...]
    point_s: float


OFF_MODES = {"normal": "NORM", "zero": "ZERO", "high-impedance": "HIZ"}


class KeysightB2900(ScpiInstrument, SetupSourceMeter, TriggeredSourceMeter):
    """One or two channels "1", "2". Sweeps and lists run on the instrument and come back as one
    binary block.

    `arm_list` and `fetch` split a list in two for a matrix that sets the pace over digital lines;
    `run_list` plays levels of several channels at once against the timer, which makes pulses of 50
    us and more.
    """

    MAKER = "Keysight"
    MAKERS = B2900
    MODELS: ClassVar[tuple[str, ...]] = tuple(TABLE)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {
        model: _BL_SHEET
        if model.endswith("BL")
        else _B_SHEET
        if model.endswith("B")
        else _TWO_SHEET
        if has.channels == _TWO
        else _A_SHEET
        for model, has in TABLE.items()
    }
    NEAR = r"B29[0-6]\d[A-C]?L?"
    OVERRANGE = 1.05
    LONGEST_SETTLE_S = 1e5

    def __init__(self, config: InstrumentConfig, traffic: Traffic | None = None) -> None:
        super().__init__(config, traffic)
        self._armed: _Armed | None = None

    @property
    @override
    def channels(self) -> tuple[str, ...]:
        return TABLE[self.model].channels

    @property
    @override
    def most_points(self) -> int:
        return MOST_POINTS

    @override
    def limits(self, channel: str) -> ChannelLimits:
        self._known(channel)
        has = TABLE[self.model]
        return ChannelLimits(
            voltage_ranges_v=has.volts,
            current_ranges_a=has.amps,
            envelope=has.envelope,
            shortest_s=SHORTEST_PULSE_S,
            shortest_aperture_s=has.interval_s,
            longest_aperture_s=2.0,
            smallest_compliance_a=0.01 * has.lowest_a,
            smallest_compliance_v=0.01 * VOLT_RANGES[0],
            settle_s=110e-6,
            measures_a=tuple(a for a in MEASURES_A if a.range in has.amps),
            measures_v=tuple(v for v in MEASURES_V if v.range in has.volts),
        )

    @override
    def arm(self) -> None:
        """Reset and verify. Nothing switches an output on by itself afterwards (`:OUTP:ON:AUTO
        OFF`).
        """
        self._setups, self._armed = {}, None
        self.send("*CLS", *self._off())
        each = [
            command
            for c in self.channels
            for command in (
                f":OUTP{c}:ON:AUTO OFF",
                f":OUTP{c}:OFF:MODE {OFF_MODES[self.output_off]}",
                f":OUTP{c} OFF",
            )
        ]
        self.send("*RST", *each, takes_s=2.0)
        reply = self.ask(
            *(f":OUTP{c}:ON:AUTO?" for c in self.channels), *(f":OUTP{c}?" for c in self.channels)
        )
        if any(word.strip() != "0" for word in reply.split(";")):
            raise InstrumentError(
                f"{self.name}: an output is on, or goes on by itself, after a reset: {reply!r}"
            )

    @override
    def switch_off(self) -> None:
        """Sweeps given up, levels zero, outputs off."""
        self._armed = None
        self.send(*self._off())

    def _off(self) -> list[str]:
        both = f"(@{','.join(self.channels)})"
        return [
            f":ABOR {both}",
            *(c for n in self.channels for c in (*self._rest(n), f":OUTP{n} OFF")),
        ]

    @override
    def is_off(self) -> bool:
        reply = self.ask(*(f":OUTP{c}?" for c in self.channels))
        return all(word.strip() == "0" for word in reply.split(";"))

    @override
    def configure(self, channel: str, setup: SourceSetup) -> None:
        with self._setting_up({channel: setup}) as commands:
            self.send(*commands)

    def _configuring(self, channel: str, setup: SourceSetup) -> list[str]:
        """All settings of a channel, with both levels at zero. Raises `ConfigError` for what it
        cannot do.
        """
        self._check(channel, setup)
        force, sense = ("VOLT", "CURR") if setup.function is Function.VOLTAGE else ("CURR", "VOLT")
        c = channel
        source_range = (
            [f":SOUR{c}:{force}:RANG:AUTO ON"]
            if setup.source_range is None
            else [
                f":SOUR{c}:{force}:RANG:AUTO OFF",
                f":SOUR{c}:{force}:RANG {number(setup.source_range)}",
            ]
        )
        measure_range = (
            [f":SENS{c}:{sense}:RANG:AUTO ON", f":SENS{c}:{sense}:RANG:AUTO:LLIM MIN"]
            if setup.measure_range is None
            else [
                f":SENS{c}:{sense}:RANG:AUTO OFF",
                f":SENS{c}:{sense}:RANG {number(setup.measure_range)}",
            ]
        )
        return [
            f":OUTP{c}:ON:AUTO OFF",
            *self._rest(c),
            f":SOUR{c}:FUNC:MODE {force}",
            f":SOUR{c}:FUNC:SHAP DC",
            f":SOUR{c}:FUNC:TRIG:CONT OFF",
            f":SENS{c}:{sense}:PROT {number(setup.compliance)}",
            *source_range,
            f":SENS{c}:FUNC:OFF:ALL",
            f':SENS{c}:FUNC "VOLT","CURR"',
            *measure_range,
            f":SENS{c}:{force}:RANG:AUTO ON",
            f":SENS{c}:{sense}:APER {number(setup.aperture_s)}",
            f":SENS{c}:{force}:APER {number(setup.aperture_s)}",
            # The instrument's own waits are off: the only wait is the one that was asked for.
            f":SOUR{c}:WAIT OFF",
            f":SENS{c}:WAIT OFF",
            f":SENS{c}:REM {'ON' if setup.remote_sense else 'OFF'}",
            f":ARM{c}:ALL:COUN 1",
            f":ARM{c}:ALL:SOUR AINT",
            f":ARM{c}:ALL:DEL 0",
            f":TRIG{c}:TRAN:DEL 0",
            f":TRIG{c}:ACQ:DEL {number(setup.settle_s)}",
        ]

    @override
    def settings(self, channel: str) -> SourceSetup:
        self._known(channel)
        c = channel
        reply = self.ask(
            f":SOUR{c}:FUNC:MODE?",
            *(
                f":{node}{c}:{what}:{query}"
                for what in ("VOLT", "CURR")
                for node, query in (
                    ("SENS", "PROT?"),
                    ("SOUR", "RANG:AUTO?"),
                    ("SOUR", "RANG?"),
                    ("SENS", "RANG:AUTO?"),
                    ("SENS", "RANG?"),
                    ("SENS", "APER?"),
                )
            ),
            f":TRIG{c}:ACQ:DEL?",
            f":SENS{c}:REM?",
        ).split(";")
        if len(reply) != 15 or reply[0] not in ("VOLT", "CURR"):
            raise LinkError(f"{self.name}: the settings {reply!r} are not what was asked for")
        values = floats(",".join(reply[1:]))
        forced, sensed = (
            (values[:6], values[6:12]) if reply[0] == "VOLT" else (values[6:12], values[:6])
        )
        return SourceSetup(
            function=Function.VOLTAGE if reply[0] == "VOLT" else Function.CURRENT,
            compliance=float(sensed[0]),
            source_range=None if forced[1] else float(forced[2]),
            measure_range=None if sensed[3] else float(sensed[4]),
            aperture_s=float(sensed[5]),
            settle_s=float(values[12]),
            remote_sense=bool(values[13]),
        )

    @override
    def source(self, channel: str, level: float) -> None:
        self._check_levels(channel, np.array([level], dtype=np.float64))
        self.send(f":SOUR{channel}:{self._forces(channel)} {number(level)}")

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch the output; verified by read-back in the same message."""
        if on:
            self._setup(channel)
        self._known(channel)
        reply = self.ask(f":OUTP{channel} {'ON' if on else 'OFF'}", f":OUTP{channel}?")
        if reply.strip() != ("1" if on else "0"):
            raise InstrumentError(
                f"{self.name}: output {channel} did not go {'on' if on else 'off'}: {reply!r}"
            )

    @override
    def measure(self, channel: str) -> Readings:
        """One reading (V, A): the wait of the setup, then one integration, with the level as it
        stands.
        """
        return self._spot(channel)

    def _spot(self, channel: str, level: float | None = None) -> Readings:
        """One reading, at another level where one is given."""
        setup = self._setup(channel)
        forced = None if level is None else {channel: np.array([level])}
        commands = [
            *([] if level is None else [f":SOUR{channel}:{self._forces(channel)} {number(level)}"]),
            *BINARY,
            f":TRIG{channel}:ACQ:SOUR AINT",
            f":TRIG{channel}:ACQ:COUN 1",
            f":INIT:ACQ (@{channel})",
            "*WAI",
            f":FETC:ARR? (@{channel})",
        ]
        takes_s = setup.settle_s + setup.aperture_s
        return self._readings((channel,), 1, commands, [], takes_s, forced)[channel]

    @override
    def sweep(self, channel: str, start: float, stop: float, points: int) -> Readings:
        if not 1 <= points <= MOST_POINTS:
            raise ConfigError(
                f"points: {points} are not 1 to {MOST_POINTS}, which is what a sweep of {self.name}"
                " holds"
            )
        levels = np.linspace(start, stop, points)
        self._check_levels(channel, levels)
        head = f":SOUR{channel}:{self._forces(channel)}"
        return self._staircase(
            channel,
            levels,
            [
                f"{head}:MODE SWE",
                f"{head}:STAR {number(start)}",
                f"{head}:STOP {number(stop)}",
                f"{head}:POIN {points}",
                f":SOUR{channel}:SWE:DIR UP",
                f":SOUR{channel}:SWE:SPAC LIN",
                f":SOUR{channel}:SWE:STA SING",
            ],
        )

    @override
    def list_sweep(self, channel: str, levels: FloatArray) -> Readings:
        levels = self._list(channel, levels)
        return self._staircase(channel, levels, self._list_commands(channel, levels))

    def run_list(
        self,
        levels: Mapping[str, FloatArray],
        interval_s: float,
        measure_mask: NDArray[np.bool_] | None = None,
    ) -> dict[str, Readings]:
        """Play levels (V or A, shape (n,) each) on one or both channels at once, `interval_s` a
        step, then zero: one transaction.

        `measure_mask` (bool, shape (n,)) says which steps come back as readings, None all of them;
        where it is all False nothing is measured and a step may be as short as
        `limits(...).shortest_s`. Outputs must be on. Readings are those of the chosen steps, by
        channel. Raises `ConfigError` for more than 2499 steps, a step too short for settling and
        aperture, and with `stop_at_compliance`: nothing ends what the timer gives.
        """
        if self.stop_at_compliance:
            raise ConfigError(
                f"{self.name}: stop_at_compliance: levels that the timer gives go on at compliance;"
                " take it out, or use list_sweep"
            )
        lists = {c: self._list(c, values, most=MOST_POINTS - 1) for c, values in levels.items()}
        n = self._length(lists)
        mask = np.ones(n, dtype=bool) if measure_mask is None else np.asarray(measure_mask)
        if mask.shape != (n,) or mask.dtype != np.bool_:
            raise ConfigError(
                f"measure_mask: {n} booleans are needed, not shape {mask.shape} of {mask.dtype}"
            )
        names = tuple(sorted(lists))
        measures = bool(mask.any())
        need_s = (
            max(self._setup(c).settle_s + self._setup(c).aperture_s for c in names)
            if measures
            else 0.0
        )
        shortest_s = max([need_s] + [self.limits(c).shortest_s for c in names])
        if not shortest_s * (1 - 1e-9) <= interval_s <= 1e5:
            raise ConfigError(
                f"interval_s: {interval_s:g} s is not {shortest_s:g} s (settling, aperture) to"
                " 1e5 s"
            )
        chosen = f"(@{','.join(names)})"
        # One step of zero more: the last level is then held as long as all others.
        commands = [*BINARY]
        for c in names:
            commands += [
                *self._rest(c),
                *self._list_commands(c, np.append(lists[c], 0.0)),
                f":TRIG{c}:ALL:SOUR TIM",
                f":TRIG{c}:ALL:TIM {number(interval_s)}",
                f":TRIG{c}:ALL:COUN {n + 1}",
            ]
        after = [command for c in names for command in self._rest(c)]
        takes_s = (n + 1) * interval_s
        if measures:
            commands += [f":INIT {chosen}", "*WAI", f":FETC:ARR? {chosen}"]
            forced = {c: np.append(lists[c], 0.0) for c in names}
            readings = self._readings(names, n + 1, commands, after, takes_s, forced)
            keep = np.append(mask, False)
            return {c: r.part(keep) for c, r in readings.items()}
        reply = self.ask(
            *commands,
            f":INIT:TRAN {chosen}",
            "*OPC?",
            *after,
            *self._on_queries(names),
            takes_s=takes_s,
        )
        self._check_on(reply.split(";")[1:], names)
        nothing = np.zeros(0)
        return {c: Readings.of(nothing, nothing, nothing, nothing) for c in names}

    def arm_list(
        self,
        levels: Mapping[str, FloatArray],
        *,
        trigger_in: int,
        trigger_out: int,
        measure: Iterable[str] | None = None,
        measure_in: int = 0,
        measure_at: NDArray[np.bool_] | None = None,
        setups: Mapping[str, SourceSetup] = {},
        rising: bool = False,
    ) -> None:
        """Start lists on one or both channels that take one step (level, settling, measurement) a
        pulse on line `trigger_in`.

        With `measure_in`, a pulse on `trigger_in` moves the levels alone, and one on `measure_in`
        measures: `measure_at` (bool, shape (n,)) says at which points that will be. When a point
        has been measured line `trigger_out` is pulsed. One transaction, which does not wait;
        `fetch` brings the readings, `abort` gives up. `levels` are V or A, shape (n,) each;
        `measure` names the channels that measure (None: all of `levels`). Lines are pins 1 to 14 of
        the digital port; pulses are low-going unless `rising`. `setups` are settings of channels to
        be configured first. Outputs must be on. Raises `ConfigError` for what cannot be done,
        `InstrumentError` for an output that is off.
        """
        with self._setting_up(setups) as settings:
            lists = {c: self._list(c, values) for c, values in levels.items()}
            n = self._length(lists)
            names = tuple(sorted(lists))
            measured = tuple(sorted(set(names if measure is None else measure)))
            if not measured or not set(measured) <= set(names):
                raise ConfigError(
                    f"measure: {measured} are not one or more of the channels {names} of the lists"
                )
            _check_lines(
                {"trigger_in": trigger_in, "trigger_out": trigger_out}
                | ({"measure_in": measure_in} if measure_in else {})
            )
            at = np.ones(n, dtype=np.bool_) if measure_at is None else np.asarray(measure_at)
            if (
                at.shape != (n,)
                or at.dtype != np.bool_
                or not at.any()
                or (not measure_in and not at.all())
            ):
                raise ConfigError(
                    f"measure_at: {n} booleans, one True, are needed, and measure_in where one is"
                    " False"
                )
            takes_s = {c: self._setup(c).settle_s + self._setup(c).aperture_s for c in measured}
            # The channel whose measurement ends last tells that the point is over.
            last = max(measured, key=lambda c: (takes_s[c], c))
            edge = "POS" if rising else "NEG"
            commands = [
                *(
                    command
                    for line in (trigger_in, measure_in)
                    if line
                    for command in (
                        f":SOUR:DIG:EXT{line}:FUNC TINP",
                        f":SOUR:DIG:EXT{line}:POL {edge}",
                    )
                ),
                f":SOUR:DIG:EXT{trigger_out}:FUNC TOUT",
                f":SOUR:DIG:EXT{trigger_out}:POL {edge}",
                f":SOUR:DIG:EXT{trigger_out}:TOUT:TYPE EDGE",
                f":SOUR:DIG:EXT{trigger_out}:TOUT:POS AFT",
            ]
            for c in names:
                commands += [
                    *self._rest(c),
                    *self._list_commands(c, lists[c]),
                    f":TRIG{c}:ALL:SOUR EXT{trigger_in}",
                    f":TRIG{c}:ALL:COUN {n}",
                    *(
                        [f":TRIG{c}:ACQ:SOUR EXT{measure_in}", f":TRIG{c}:ACQ:COUN {at.sum()}"]
                        if measure_in
                        else []
                    ),
                    f":SOUR{c}:TOUT OFF",
                    f":SENS{c}:TOUT:SIGN EXT{trigger_out}",
                    f":SENS{c}:TOUT {'ON' if c == last else 'OFF'}",
                ]
            reply = self.ask(
                *settings,
                *commands,
                *self._on_queries(names),
                f":INIT:TRAN (@{','.join(names)})",
                f":INIT:ACQ (@{','.join(measured)})",
            )
            try:
                self._check_on(reply.split(";"), names)
            except InstrumentError:
                self.abort()
                raise
            self._armed = _Armed(
                {c: values[at] for c, values in lists.items()}, measured, max(takes_s.values())
            )

    @contextlib.contextmanager
    def _setting_up(self, setups: Mapping[str, SourceSetup]) -> Iterator[list[str]]:
        """The commands that set channels up, for a message of the caller's; what was known of the
        channels before comes back where that fails.
        """
        commands = [line for c, setup in setups.items() for line in self._configuring(c, setup)]
        before, self._setups = self._setups, {**self._setups, **setups}
        try:
            yield commands
        except BaseException:
            self._setups = before
            raise

    def fetch(self, points: int, *, takes_s: float | None = None) -> dict[str, Readings]:
        """All `points` readings of what `arm_list` started, by channel: one binary block, levels
        back at zero, one transaction.

        `takes_s` is how long the triggers may still take (None: as long as the measurements of all
        points). Raises `ConfigError` where another number was armed, `LinkError` where the list
        does not come to its end in time.
        """
        armed = self._armed
        if armed is None or points != next(iter(armed.levels.values())).size:
            raise ConfigError(f"points: no list of {points} was armed on {self.name}")
        wait_s = points * (armed.point_s + OVERHEAD_S) if takes_s is None else takes_s
        after = [command for c in armed.levels for command in self._rest(c)]
        commands = [*BINARY, f":FETC:ARR? (@{','.join(armed.measured)})"]
        readings = self._readings(armed.measured, points, commands, after, wait_s, armed.levels)
        self._armed = None
        return readings

    def abort(self) -> None:
        """Give up lists and sweeps; levels go to zero, outputs stay as they are."""
        self._armed = None
        both = f"(@{','.join(self.channels)})"
        self.send(f":ABOR {both}", *(command for c in self.channels for command in self._rest(c)))

    def _rest(self, channel: str) -> list[str]:
        """Commands that end a sweep or list and put both levels to zero, whatever the channel
        forces.
        """
        return [
            f":SOUR{channel}:{what}{command}"
            for what in ("VOLT", "CURR")
            for command in (":MODE FIX", " 0")
        ]

    def _staircase(self, channel: str, levels: FloatArray, shape: list[str]) -> Readings:
        setup = self._setup(channel)
        if self.stop_at_compliance and levels.size > 1:
            self.send(*self._rest(channel))
            rest = partial(self.send, *self._rest(channel))
            return until_compliance(levels, partial(self._spot, channel), rest, self.name)
        commands = [
            *BINARY,
            # The level to return to is zero.
            *self._rest(channel),
            *shape,
            f":TRIG{channel}:ALL:SOUR AINT",
            f":TRIG{channel}:ALL:COUN {levels.size}",
            f":INIT (@{channel})",
            "*WAI",
            f":FETC:ARR? (@{channel})",
        ]
        takes_s = levels.size * (setup.settle_s + setup.aperture_s + OVERHEAD_S)
        return self._readings(
            (channel,), levels.size, commands, self._rest(channel), takes_s, {channel: levels}
        )[channel]

    def _list_commands(self, channel: str, levels: FloatArray) -> list[str]:
        what = self._forces(channel)
        return [
            f":SOUR{channel}:{what}:MODE LIST",
            f":SOUR{channel}:LIST:{what} {','.join(number(float(v)) for v in levels)}",
        ]

    def _readings(
        self,
        channels: tuple[str, ...],
        points: int,
        commands: list[str],
        after: list[str],
        takes_s: float,
        forced: Mapping[str, FloatArray] | None = None,
    ) -> dict[str, Readings]:
        """Send `commands`, whose last is answered by the block of all readings, then `after`;
        outputs and errors are checked.

        `forced` are the levels that each reading must have been taken at.
        """
        message = ";".join(commands + after + self._on_queries(channels))
        data, rest = self.dialog.query_block_and_line(
            f"{message};{self.ERROR_QUERY}", takes_s=takes_s
        )
        states, error = self.split_error(rest)
        self.raise_error(error, message)
        self._check_on(states.split(";"), channels)
        if len(data) != 8 * ELEMENTS * points * len(channels):
            self.dialog.out_of_step()
            raise LinkError(
                f"{self.name}: {len(data)} bytes of readings instead of {points} points of"
                f" {len(channels)} channels"
            )
        # Point by point, and of each point one channel after the other.
        values = (
            np.frombuffer(data, dtype=">f8")
            .astype(np.float64)
            .reshape(points, len(channels), ELEMENTS)
        )
        return {
            c: self._judged(c, values[:, k, :], None if forced is None else forced[c])
            for k, c in enumerate(channels)
        }

    def _judged(self, channel: str, values: FloatArray, forced: FloatArray | None) -> Readings:
        volts, amps, time_s, status, level = values.T
        if np.count_nonzero(np.isfinite(status)) < status.size:
            raise InstrumentError(f"{self.name}: channel {channel} has not measured every point")
        bits = status.astype(np.int64)
        if forced is not None:
            self._check_forced(channel, level, forced)
        if np.count_nonzero(bits):
            self._refuse_protected(channel, bits)
            # The bit does not say which of the two is over its range; where both are numbers
            # neither is believed.
            over = (
                ((bits & OVER_RANGE) != 0)
                & (np.abs(volts) < NOT_A_READING)
                & (np.abs(amps) < NOT_A_READING)
            )
            volts, amps = (np.where(over, np.inf, value) for value in (volts, amps))
        return Readings.of(volts, amps, bits & AT_COMPLIANCE, time_s)

    def _refuse_protected(self, channel: str, bits: NDArray[np.int64]) -> None:
        """Raise `InstrumentError` where a protection has acted."""
        for bit, what in PROTECTED.items():
            if (bits & bit).any():
                raise InstrumentError(
                    f"{self.name}: {what} of channel {channel} during a measurement"
                )

    def _check_forced(self, channel: str, level: FloatArray, forced: FloatArray) -> None:
        """Raise `InstrumentError` where a reading was taken at another level than asked for."""
        wrong = ~(
            np.abs(level - forced) <= 1e-5 * np.abs(forced) + 2e-6 * np.abs(forced).max() + 1e-12
        )
        if wrong.any():
            k = int(np.argmax(wrong))
            raise InstrumentError(
                f"{self.name}: channel {channel} forced {level[k]:g} instead of {forced[k]:g}"
                f" at point {k}"
            )

    def _on_queries(self, channels: Iterable[str]) -> list[str]:
        return [f":OUTP{c}?" for c in channels]

    def _check_on(self, states: list[str], channels: Iterable[str]) -> None:
        """Raise `InstrumentError` unless every output said that it is on."""
        off = [c for c, word in zip(channels, states, strict=True) if word.strip() != "1"]
        if off:
            raise InstrumentError(
                f"{self.name}: output {' and '.join(off)} is off; nothing of this was a measurement"
            )

    def _forces(self, channel: str) -> str:
        return "VOLT" if self._setup(channel).function is Function.VOLTAGE else "CURR"

    def _list(self, channel: str, levels: ArrayLike, most: int = MOST_POINTS) -> FloatArray:
        values = np.array(levels, dtype=np.float64)
        if values.ndim != 1 or not 1 <= values.size <= most:
            raise ConfigError(
                f"levels: a list of 1 to {most} values is needed, not shape {values.shape}"
            )
        self._check_levels(channel, values)
        return values

    def _length(self, lists: Mapping[str, FloatArray]) -> int:
        sizes = {values.size for values in lists.values()}
        if len(sizes) != 1:
            raise ConfigError(f"levels: lists of one length are needed, not of {sorted(sizes)}")
        return int(sizes.pop())


def _check_lines(lines: dict[str, int]) -> None:
    """Raise `ConfigError` for what is no digital line, and for a line with two tasks."""
    for key, line in lines.items():
        if not 1 <= line <= 14:
            raise ConfigError(f"{key}: {line} is no digital line; there are 1 to 14")
    if len(set(lines.values())) != len(lines):
        raise ConfigError(f"trigger_out: one digital line has two tasks in {lines}")
