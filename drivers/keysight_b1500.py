"""Keysight (Agilent) B1500A semiconductor device analyser with HRSMU, MPSMU and HPSMU modules, in
FLEX.

Documents opened: "Agilent B1500A/B1505A Programming Guide", edition 11: command input and data
output format (1-22 to 1-53, time stamps 1-20 and 1-26), staircase sweep (2-9), pulsed spot (2-5),
parallel measurement (2-48), `AIT` (4-38 f., table 4-21: apertures), `ERRX?` (4-101: code and text;
`ERRX? 1`: the code), `IN` and `INTLKVTH` (4-109), `TDV` (4-194: parameters of a voltage output),
`TTIV` (4-209), `WI` (4-217: up to 10001 steps), `WNX` (4-225: `MM` 16 and 28); "Keysight
E5260/E5270 Programming Guide", edition 4: elements and statuses (1-25 to 1-28), `FMT` (4-60), size
of the data buffer (1-22), `PT` (4-90: widths from 0.5 ms to 2 s, periods from 5 ms to 5 s);
"Agilent B1500A User's Guide", edition 10, tables 4-7 and 4-8: HPSMU. Ranges of HRSMU and MPSMU,
`*LRN?` and `CMM` 4 were checked against the source of PyMeasure 0.16; parameters of `PV`, `PI`,
`PWV`, `PWI`, `WNX`, `MCPT`, `MCPNT`, `MCPNX`, `MCPWS`, `MCPWNX`, and the codes of `ERMOD` and
`ERSSP`, against that of QCoDeS 0.58 (message_builder.py, constants.py). The pulse generator:
`dialects.b1500_spgu`.

`unverified`: envelope, smallest compliance, shortest level, settling of HRSMU and MPSMU (no
accuracy is stated for them); smallest compliance, shortest level and settling of the HPSMU; that
the data buffer is as large as the E5260's; that `ST` replaces a stored program, and that the memory
takes a program that long; that `CN` sets what `IN` sets; that a line of data and the reply of a
query of the same message both come (in any order); that `PT` takes the E5260's widths and periods
and `MCPT`, `MCPNT` the same, time stamps in pulsed modes and what `MM` 27 and 28 send of sources.

A WGFMU (B1530A) is driven through Keysight's own library (wgfmu.dll) alone: no command of FLEX
reaches its waveforms. It is refused by name where a channel of its slot is asked for.

FLEX is no IEEE 488.2. What follows from it:

* A message has at most 256 characters, and a query is its last command: `ERRX?` is fused to the end
  of every batch.
* A refused measurement sends no data. So every measurement is followed by `TSQ`, whose time always
  comes, and `ERRX?`: one transaction, complete when both have come, wherever the instrument puts
  the reply of the query among the lines of data.
* Format 11 is pinned: text, each value with status, channel and type, read strictly. The binary
  format 13 holds the same, but no length and no end mark that a damaged reply could be told by.
* There is no list sweep. A list is a program in the instrument's memory (`ST` ... `END`), run by
  one `DO`.
* A channel keeps no output settings while its switch is open, and closing it (`CN`) sets 0 V with
  100 uA. The driver keeps them and sends them with the switch: `settings` of a channel that is off
  tells the source's from there, the rest from the instrument.
* The integration time belongs to the mainframe, not to the channel: it goes out again with every
  measurement.
* Four wires are a matter of cables; no command says so, and `remote_sense` is told back as it was
  given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.array import Status
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.abilities import PulsedSourceMeter, WithGenerator
from rram_hil.hardware.instrument import (
    NOT_A_READING,
    Accuracy,
    ChannelLimits,
    Function,
    InstrumentConfig,
    ModelSheet,
    Readings,
    SourceMeterConfig,
    SourceSetup,
)
from rram_hil.types import FloatArray
from rram_hil.wire.recording import Traffic

from .dialects.b1500_spgu import SPGU_MODULE, Spgu
from .dialects.flex import Elements, FlexMainframe, flex_number, joined
from .dialects.makers import B1500
from .dialects.setups import until_compliance

VOLTS: Mapping[int, float] = {
    5: 0.5,
    20: 2.0,
    50: 5.0,
    200: 20.0,
    400: 40.0,
    1000: 100.0,
    2000: 200.0,
}
"""Code of a voltage range -> its full scale; a minus sign fixes a measuring range."""
AMPS: Mapping[int, float] = {code: float(f"1e{code - 20}") for code in range(9, 21)}
"""Code of a current range -> its full scale: 11 is 1 nA, 20 is 1 A."""
MOST_POINTS = 34034 // 4
"""Of one sweep or list: a point is at most time, current, volts and source, and the data buffer
holds 34034 data at least.
"""
PROGRAM = 1
OVERHEAD_S = 2e-3
"""What a reading takes at most beside its aperture, on a fixed range."""
RELAY_S = 0.1
SHORTEST_PULSE_S, LONGEST_PULSE_S = 0.5e-3, 2.0
LEAST_REST_S = 2e-3
"""Of a pulse's period beside its width."""
AUTO_RANGES = 8.0
"""Automatic ranging may measure once on each range."""


def _at_ten_volts(range_a: float, percent: float, offset_a: float, per_volt_a: float) -> Accuracy:
    """An entry of table 4-8 with its part that goes with the output voltage taken at 10 V."""
    return Accuracy(range_a, percent / 100, offset_a + 10 * per_volt_a)


_SMALL_VOLTS = (0.5, 2.0, 5.0, 20.0, 40.0, 100.0)
_HRSMU = ChannelLimits(
    voltage_ranges_v=_SMALL_VOLTS,
    current_ranges_a=tuple(AMPS[code] for code in range(9, 20)),
    envelope=((20.0, 0.1), (40.0, 0.05), (100.0, 0.02)),
    shortest_s=500e-6,
    shortest_aperture_s=2e-6,
    longest_aperture_s=2.0,
    smallest_compliance_a=1e-12,
    smallest_compliance_v=1e-3,
    settle_s=300e-6,
)
_MPSMU = replace(_HRSMU, current_ranges_a=tuple(AMPS[code] for code in range(11, 20)))
_HPSMU = replace(
    _HRSMU,
    voltage_ranges_v=(2.0, 20.0, 40.0, 100.0, 200.0),
    current_ranges_a=tuple(AMPS[code] for code in range(11, 21)),
    envelope=((20.0, 1.0), (40.0, 0.5), (100.0, 0.125), (200.0, 0.05)),
    measures_a=(
        _at_ten_volts(1e-9, 0.25, 3e-13, 1e-15),
        _at_ten_volts(1e-8, 0.25, 2e-12, 1e-14),
        _at_ten_volts(1e-7, 0.1, 2e-11, 1e-13),
        _at_ten_volts(1e-6, 0.1, 2e-10, 1e-12),
        _at_ten_volts(1e-5, 0.05, 2e-9, 1e-11),
        _at_ten_volts(1e-4, 0.05, 2e-8, 1e-10),
        _at_ten_volts(1e-3, 0.04, 2e-7, 1e-9),
        _at_ten_volts(1e-2, 0.04, 2e-6, 1e-8),
        _at_ten_volts(0.1, 0.1, 2e-5, 1e-7),
        _at_ten_volts(1.0, 0.5, 3e-4, 1e-6),
    ),
    measures_v=(
        Accuracy(2.0, 1e-4, 0.7e-3),
        Accuracy(20.0, 1e-4, 4e-3),
        Accuracy(40.0, 1.5e-4, 8e-3),
        Accuracy(100.0, 2e-4, 20e-3),
        Accuracy(200.0, 3.5e-4, 40e-3),
    ),
)
MODULES: Mapping[str, ChannelLimits] = {
    "B1517A": _HRSMU,
    "B1511A": _MPSMU,
    "B1511B": _MPSMU,
    "B1510A": _HPSMU,
}
"""Module -> its limits: HRSMU, MPSMU (two makes), HPSMU. Other modules of a mainframe are left
alone.
"""

Selected = Literal["open", "source-meter", "generator"]
SELECTED: Mapping[Selected, int] = {"open": 0, "source-meter": 1, "generator": 2}
"""What an output of a 16440A selector is joined to -> its code in `ERSSP`."""
NOT_DRIVEN = "which this driver has no commands for"
ELSEWHERE: Mapping[str, str] = {
    "B1530A": "a WGFMU, whose waveforms only Keysight's own library (wgfmu.dll) reaches",
    SPGU_MODULE: "a pulse generator, whose channels are those of `generator`",
}
"""Module that is no source-meter -> why it is refused as one."""


def sre_probe(nonce: int) -> tuple[str, str]:
    """The service-request mask written and read back; its bit 6 does not exist, so bit 7 stands for
    it. `arm` clears it.
    """
    mask = (nonce & 63) | (128 if nonce & 64 else 0)
    return f"*SRE {mask};*SRE?", str(mask)


SHEET = ModelSheet(
    (
        "commands: B1500A/B1505A Programming Guide, edition 11, 1-20 to 1-53, 2-5, 2-9, 2-48,"
        " 4-38, 4-101, 4-109, 4-194, 4-209, 4-217, 4-225",
        "elements, statuses, data buffer, times of pulses: E5260/E5270 Programming Guide,"
        " edition 4, 1-22 to 1-28, 4-60, 4-90",
        "HPSMU: B1500A User's Guide, edition 10, tables 4-7 and 4-8",
        "ranges of HRSMU and MPSMU: the source of PyMeasure 0.16",
        "SPGU: data sheet, page 19; programming guide, 2-54, 4-173, 4-189; commands: sources of"
        " PyMeasure 0.16 and QCoDeS 0.58",
    ),
    (
        "envelope, smallest compliance, shortest level, settling and accuracy of HRSMU and MPSMU",
        "smallest compliance, shortest level and settling of the HPSMU",
        "data buffer size",
        "program memory length",
        "that PT, MCPT and MCPNT take the E5260's times",
        "source data of pulsed modes",
        "that SIM 0 takes SPGU channels to 0 V, *LRN? 0 lists them and SRP starts all that are on",
        "how SPGU edges limit widths",
    ),
)


@dataclass
class _Channel:
    """What the driver keeps of one channel: its settings, the commands of one reading with them,
    its level, whether it is switched on.
    """

    setup: SourceSetup
    reading: tuple[str, str]
    level: float = 0.0
    on: bool = False


class KeysightB1500Config(SourceMeterConfig):
    """How a B1500A is reached. Its outputs that are off are open, always."""

    output_off: Literal["high-impedance"] = Field(
        default="high-impedance", description="what an output that is off does: opens its relay"
    )


class KeysightB1500(FlexMainframe, PulsedSourceMeter, WithGenerator):
    """A B1500A; a channel is named by the slot of its module ("1" to "10"). `modules` tells which
    source-measure module is where, `generator` has the channels of pulse generator modules.
    """

    MAKER: ClassVar[str] = "Keysight"
    MAKERS: ClassVar[Mapping[str, str]] = B1500
    MODELS: ClassVar[tuple[str, ...]] = ("B1500A",)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {"B1500A": SHEET}
    NEAR = r"B150[05]A?"
    Config: ClassVar[type[InstrumentConfig]] = KeysightB1500Config

    def __init__(self, config: InstrumentConfig, traffic: Traffic | None = None) -> None:
        super().__init__(config, traffic)
        self.modules: dict[str, str] = {}
        self._channels: dict[str, _Channel] = {}
        self._others: dict[str, str] = {}
        self._stored: tuple[str, ...] = ()
        self._spgu = Spgu(self)

    @property
    @override
    def generator(self) -> Spgu:
        """The channels of the pulse generator modules (B1525A): "501" and "502" in slot 5."""
        return self._spgu

    @override
    def probe(self, nonce: int) -> tuple[str, str]:
        return sre_probe(nonce)

    @override
    def question(self, nonce: int) -> tuple[str, Callable[[str], bool]]:
        # Of a message the mainframe answers one query. The mask moves no output; `arm` clears it.
        query, answer = sre_probe(nonce)
        return query, answer.__eq__

    @override
    def look(self) -> None:
        """Which module is in which slot. A mainframe without a module of `MODULES` is refused."""
        self._channels.clear()
        self._spgu.forget()
        slots = self.dialog.query("UNT?").split(";")
        if not all(re.fullmatch(r"[\w/]+,\d+", slot.strip()) for slot in slots):
            raise LinkError(f"{self.name}: {slots!r} is no list of modules")
        names = [slot.partition(",")[0].strip() for slot in slots]
        self.modules = {str(slot): name for slot, name in enumerate(names, 1) if name in MODULES}
        self._others = {
            str(slot): name
            for slot, name in enumerate(names, 1)
            if name not in MODULES and name != "0"
        }
        self._spgu.channels = tuple(
            f"{slot}0{k}"
            for slot, name in self._others.items()
            if name == SPGU_MODULE
            for k in (1, 2)
        )
        if not self.modules:
            raise ConfigError(
                f"{self.config.resource}: no slot holds one of {', '.join(MODULES)}; it has {names}"
            )

    @property
    @override
    def channels(self) -> tuple[str, ...]:
        """The slots with a source-measure module."""
        return tuple(self.modules)

    @override
    def limits(self, channel: str) -> ChannelLimits:
        """Ranges and envelope; above 42 V the interlock must be closed."""
        if channel not in self.modules:
            held = self._others.get(channel, "")
            other = f"slot {channel} holds a {held}, {ELSEWHERE.get(held, NOT_DRIVEN)}; "
            raise ConfigError(
                f"{self.name}: channel {channel!r}: {other if held else ''}there is"
                f" {', '.join(self.modules)}"
            )
        return _limits(self.modules[channel], self.config.line_hz)

    @override
    def arm(self) -> None:
        """Reset and verify; then format 11 with source data, high-speed converters, no service
        requests.
        """
        self._stored = ()
        self.safe_off()
        self.errors()
        self._channels.clear()
        self._spgu.forget()
        # In one message: a reset that was lost is then no reply, not a silence that passes for
        # success.
        self.send("*RST", "FMT 11,1", "TM 1", "*SRE 0", takes_s=1.0)
        if "FMT11,1" not in self.dialog.query("*LRN? 31").replace(" ", "").split(";"):
            raise InstrumentError(
                f"{self.name}: the data format is not the one that was set", command="FMT 11,1"
            )
        if not self.is_off():
            raise InstrumentError(
                f"{self.name}: an output is still on after a reset", command="*RST"
            )

    @override
    def is_off(self) -> bool:
        return not self._closed(self.dialog.query("*LRN? 0"))

    @override
    def configure(self, channel: str, setup: SourceSetup) -> None:
        """Set a channel up; one that is off gets its source settings when it is switched on."""
        self._check(channel, setup)
        known = self._channels.get(channel)
        reading = self._integration(setup), self._spot(channel, setup)
        kept = _Channel(setup, reading, on=known is not None and known.on)
        current, volts = self._measuring(channel, setup)
        commands = [
            f"AAD {channel},0",
            self._integration(setup),
            f"CMM {channel},4",
            f"RI {channel},{current}",
            f"RV {channel},{volts}",
        ]
        if kept.on:
            commands.append(self._force(channel, setup, 0.0))
        self.send(*commands)
        self._channels[channel] = kept

    @override
    def settings(self, channel: str) -> SourceSetup:
        """The settings read back; `settle_s` and `remote_sense` are none of the instrument: as
        configured.
        """
        kept = self._kept(channel)
        is_volts = kept.setup.function is Function.VOLTAGE
        try:
            code = int(self._learned(32, "RI" if is_volts else "RV", channel)[0])
            mode, n = self._learned(56, "AIT", "0")
            aperture_s = {"2": float(n) / self.config.line_hz, "3": float(n)}[mode]
            measure_range = (AMPS if is_volts else VOLTS)[abs(code)] if code else None
            read = replace(kept.setup, measure_range=measure_range, aperture_s=aperture_s)
            if not kept.on:
                return read
            source, _, limit, *_ = self._learned(int(channel), "DV" if is_volts else "DI", channel)
            source_range = (VOLTS if is_volts else AMPS)[int(source)] if int(source) else None
            return replace(read, compliance=abs(float(limit)), source_range=source_range)
        except (LookupError, ValueError) as error:
            self.dialog.out_of_step()
            raise InstrumentError(
                f"{self.name}: channel {channel}: its settings are not of the kind that was sent"
                f" ({error})",
                command="*LRN?",
            ) from None

    @override
    def source(self, channel: str, level: float) -> None:
        """Set a level; that of a channel that is off is sent when it is switched on."""
        kept = self._kept(channel)
        self._check_levels(channel, kept.setup, np.array([level]))
        if kept.on:
            wait = self._wait(kept.setup)
            self.send(self._force(channel, kept.setup, level), *wait, takes_s=kept.setup.settle_s)
        kept.level = level

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch a channel on at zero with the configured compliance first, then the level, or off
        from zero.
        """
        self.limits(channel)
        if not on:
            # DZ is refused where the switch is open already; CL alone would open it at whatever the
            # channel forces.
            if channel in self._closed(self.dialog.query("*LRN? 0")):
                self.send(f"DZ {channel}", f"CL {channel}", takes_s=RELAY_S)
            if channel in self._channels:
                self._channels[channel].on = False
            return
        kept = self._kept(channel)
        commands = [f"CN {channel}", self._force(channel, kept.setup, 0.0)]
        if kept.level:
            commands.append(self._force(channel, kept.setup, kept.level))
        self.send(*commands, *self._wait(kept.setup), takes_s=RELAY_S + kept.setup.settle_s)
        kept.on = True

    @override
    def measure(self, channel: str) -> Readings:
        """Current and volts of one `TTIV`, the compliance side first. One transaction."""
        kept = self._switched_on(channel)
        lines = self.measured(*kept.reading, takes_s=self._takes_s(kept.setup))
        return self._readings(channel, lines, 1)

    @override
    def sweep(self, channel: str, start: float, stop: float, points: int) -> Readings:
        """A staircase of the instrument, set up and run in two transactions, all data in the
        second.

        It goes on at compliance (`WM` 1), where each reading says so itself, or ends there (`WM`
        2), as it then also does where it oscillates or another channel is limited.
        """
        kept = self._switched_on(channel)
        setup = kept.setup
        self._check_levels(channel, setup, np.array([start, stop]))
        self._check_count(points)
        code = self._source_code(channel, setup, max(abs(start), abs(stop)))
        ends = f"{flex_number(start)},{flex_number(stop)},{points},{flex_number(setup.compliance)}"
        with self.dialog.lock:
            self.send(
                self._integration(setup),
                f"WT 0,{flex_number(setup.settle_s)}",
                f"WM {2 if self.stop_at_compliance else 1},1",
                f"W{self._letter(setup)} {channel},1,{code},{ends}",
                f"MM 2,{channel}",
                "TSC 1",
            )
            kept.level = 0.0
            lines = self.measured(
                "TSR",
                "XE",
                self._force(channel, setup, 0.0),
                takes_s=points * self._takes_s(setup, settles=True),
            )
        readings = self._readings(channel, lines, points, in_one_line=True)
        return self._cut(readings) if self.stop_at_compliance else readings

    def _cut(self, readings: Readings) -> Readings:
        """A staircase without the data that only fill it up after its end. Raises `InstrumentError`
        where it went on.
        """
        points, ends = len(readings), np.flatnonzero(readings.status != Status.OK)
        taken = int(ends[0]) + 1 if ends.size else points
        if np.any(readings.status[taken:] != Status.OVER_RANGE):
            raise InstrumentError(f"{self.name}: a sweep went on at compliance", command="WM 2,1")
        return readings.part(slice(taken)).ended(points, self.name)

    @override
    def list_sweep(self, channel: str, levels: FloatArray) -> Readings:
        """Store the list as a program, where it is not the one that is stored, and run it; all data
        come in the transaction that runs it. No program can end at compliance: then the levels are
        taken one by one.

        Readings of one conversion are of the current alone (`TTI`).
        """
        return self.list_sweep_beside(channel, levels, ())[channel]

    @override
    def list_sweep_beside(
        self, channel: str, levels: FloatArray, others: Sequence[str]
    ) -> dict[str, Readings]:
        """The program's run and a `TTIV` of each other channel: one message."""
        kept = self._switched_on(channel)
        setup = kept.setup
        levels = np.asarray(levels, dtype=np.float64)
        self._check_count(levels.size)
        self._check_levels(channel, setup, levels)
        code, letter = (
            self._source_code(channel, setup, float(np.max(np.abs(levels)))),
            self._letter(setup),
        )
        spot, wait = self._spot(channel, setup), self._wait(setup)
        once = setup.one_conversion and setup.function is Function.VOLTAGE

        def take(level: float) -> Readings:
            force = f"D{letter} {channel},{code},{flex_number(level)}"
            takes_s = self._takes_s(setup, settles=True)
            return self._readings(channel, self.measured(force, *wait, spot, takes_s=takes_s), 1)

        if self.stop_at_compliance and levels.size > 1:
            rest = partial(self.send, self._force(channel, setup, 0.0))
            with self.dialog.lock:
                self.send(self._integration(setup), self._force(channel, setup, 0.0), "TSR")
                kept.level = 0.0
                swept = until_compliance(levels, take, rest, self.name)
                return {channel: swept} | {other: self.measure(other) for other in others}
        if once:
            spot = f"TTI {channel},{self._measuring(channel, setup)[0]}"
        forces = [f"D{letter} {channel},{code},{flex_number(v)}" for v in levels]
        steps = [c for force in forces for c in (force, *wait, spot)]
        program = ("TSR", *steps, self._force(channel, setup, 0.0))
        beside = [self._switched_on(other) for other in others]
        with self.dialog.lock:
            if program != self._stored:
                self._stored = ()
                self.send(f"ST {PROGRAM}", *program, "END")
            kept.level, self._stored = 0.0, ()
            lines = self.measured(
                self._integration(setup),
                f"DO {PROGRAM}",
                *(command for other in beside for command in other.reading),
                takes_s=levels.size * self._takes_s(setup, settles=True)
                + sum(self._takes_s(other.setup) for other in beside),
            )
            self._stored = program
        # A reading is a line: those of the list, then one of each other channel.
        mine = len(lines) - len(others)
        swept = self._readings(channel, lines[:mine], levels.size, forced=levels if once else None)
        return {channel: swept} | {
            other: self._readings(other, [line], 1)
            for other, line in zip(others, lines[mine:], strict=True)
        }

    def select(self, output: int, to: Selected) -> None:
        """Join an output (1 to 4) of 16440A selectors on the digital port to the source-measure
        unit or the pulse generator that is wired to it, or to nothing; verified by read-back. Its
        relays switch dry where both stand at zero, which is the caller's to see to.
        """
        if not 1 <= output <= 4:
            raise ConfigError(f"{self.name}: selector output {output}: 1 to 4")
        code = SELECTED[to]
        self.send("ERMOD 1", f"ERSSP {output - 1},{code}", takes_s=RELAY_S)
        told = self.dialog.query(f"ERSSP? {output - 1}").strip()
        if told != str(code):
            raise InstrumentError(
                f"{self.name}: selector output {output} is {told!r}, not {code} ({to})",
                command=f"ERSSP {output - 1},{code}",
            )

    @override
    def pulse(
        self,
        levels: Mapping[str, float],
        *,
        width_s: float,
        period_s: float = 0.0,
        base: float = 0.0,
    ) -> Mapping[str, Readings]:
        """One channel by `MM` 3, several by `MM` 27."""
        self._check_pulses({c: (v, v) for c, v in levels.items()}, base, width_s, period_s)
        if len(levels) == 1:
            [(channel, level)] = levels.items()
            head = f"P{self._letter(self._kept(channel).setup)} {channel}"
            pulses = [
                f"PT 0,{flex_number(width_s)},{flex_number(period_s)}",
                f"{head},{self._top(channel, base, level)}",
                f"MM 3,{channel}",
            ]
        else:
            pulses = [
                f"MCPT 0,{flex_number(period_s)}",
                *(f"MCPNT {channel},0,{flex_number(width_s)}" for channel in levels),
                *(
                    f"MCPNX {n},{channel},{self._kind(channel)},{self._top(channel, base, level)}"
                    for n, (channel, level) in enumerate(levels.items(), 1)
                ),
                f"MM 27,{','.join(levels)}",
            ]
        tops = {channel: np.array([level]) for channel, level in levels.items()}
        return self._executed(pulses, tops, max(period_s, width_s + LEAST_REST_S))

    @override
    def pulsed_sweep(
        self,
        ends: Mapping[str, tuple[float, float]],
        points: int,
        *,
        width_s: float,
        period_s: float = 0.0,
        base: float = 0.0,
    ) -> Mapping[str, Readings]:
        """One channel by `MM` 4, several by `MM` 28."""
        self._check_count(points)
        self._check_pulses(ends, base, width_s, period_s)
        if len(ends) == 1:
            [(channel, (start, stop))] = ends.items()
            head = f"PW{self._letter(self._kept(channel).setup)} {channel},1"
            pulses = [
                f"PT 0,{flex_number(width_s)},{flex_number(period_s)}",
                f"{head},{self._top(channel, base, start, stop, points=points)}",
                f"MM 4,{channel}",
            ]
        else:
            pulses = [
                f"MCPT 0,{flex_number(period_s)}",
                f"MCPWS 1,{points}",
                *(f"MCPNT {channel},0,{flex_number(width_s)}" for channel in ends),
                *(
                    f"MCPWNX {n},{channel},{self._kind(channel)},{self._top(channel, base, *both)}"
                    for n, (channel, both) in enumerate(ends.items(), 1)
                ),
                f"MM 28,{','.join(ends)}",
            ]
        tops = {channel: np.linspace(*both, points) for channel, both in ends.items()}
        lasts_s = points * max(period_s, width_s + LEAST_REST_S)
        return self._executed([f"WM {1 + self.stop_at_compliance},1", *pulses], tops, lasts_s)

    @override
    def joint_sweep(
        self, ends: Mapping[str, tuple[float, float]], points: int
    ) -> Mapping[str, Readings]:
        """By `MM` 16: the first channel is the primary sweep source."""
        self._check_count(points * max(1, len(ends)))
        for channel, both in ends.items():
            self._check_levels(channel, self._switched_on(channel).setup, np.array(both))
        if not ends:
            raise ConfigError(f"{self.name}: a sweep of no channel")
        sources = []
        for n, (channel, (start, stop)) in enumerate(ends.items(), 1):
            setup = self._kept(channel).setup
            code = self._source_code(channel, setup, max(abs(start), abs(stop)))
            limit, both_ends = flex_number(setup.compliance), f"{_join(start, stop)}"
            sources.append(
                f"W{self._letter(setup)} {channel},1,{code},{both_ends},{points},{limit}"
                if n == 1
                else f"WNX {n},{channel},{self._kind(channel)},{code},{both_ends},{limit}"
            )
        setups = [self._kept(channel).setup for channel in ends]
        settle_s = max(setup.settle_s for setup in setups)
        head = [f"WT 0,{flex_number(settle_s)}", f"WM {1 + self.stop_at_compliance},1"]
        tops = {channel: np.linspace(*both, points) for channel, both in ends.items()}
        lasts_s = points * sum(self._takes_s(setup, settles=True) for setup in setups)
        return self._executed([*head, *sources, f"MM 16,{','.join(ends)}"], tops, lasts_s)

    def _check_pulses(
        self,
        ends: Mapping[str, tuple[float, float]],
        base: float,
        width_s: float,
        period_s: float,
    ) -> None:
        """Raise `ConfigError` for pulses that these channels do not make, `InstrumentError` where
        one is off.
        """
        if not ends:
            raise ConfigError(f"{self.name}: a pulse on no channel")
        for channel, both in ends.items():
            self._check_levels(channel, self._switched_on(channel).setup, np.array([*both, base]))
        if not SHORTEST_PULSE_S * (1 - 1e-9) <= width_s <= LONGEST_PULSE_S:
            raise ConfigError(
                f"{self.name}: width_s {width_s:g}: {SHORTEST_PULSE_S:g} to {LONGEST_PULSE_S:g} s;"
                " shorter ones are those of its pulse generator"
            )
        rest_s = LEAST_REST_S if width_s <= 0.1 else 5 * LEAST_REST_S
        if period_s and not max(5e-3, width_s + rest_s) * (1 - 1e-9) <= period_s <= 5.0:
            raise ConfigError(
                f"{self.name}: period_s {period_s:g}: 0, or from {max(5e-3, width_s + rest_s):g} s"
                " to 5 s"
            )

    def _kind(self, channel: str) -> int:
        """What the commands of several channels call a source of volts (1) or of amperes (2)."""
        return 1 if self._kept(channel).setup.function is Function.VOLTAGE else 2

    def _top(self, channel: str, base: float, *tops: float, points: int | None = None) -> str:
        """Range, base, tops, steps and compliance of a pulsed source."""
        setup = self._kept(channel).setup
        code = self._source_code(channel, setup, max(map(abs, (base, *tops))))
        steps = "" if points is None else f"{points},"
        return f"{code},{_join(base, *tops)},{steps}{flex_number(setup.compliance)}"

    def _executed(
        self, commands: list[str], tops: Mapping[str, FloatArray], takes_s: float
    ) -> Mapping[str, Readings]:
        """Set up, run and fetch, channels to zero: three transactions."""
        setups = {channel: self._kept(channel).setup for channel in tops}
        first = next(iter(setups.values()))
        with self.dialog.lock:
            # In a pulse each channel measures once: its compliance side.
            once = [f"CMM {channel},0" for channel in tops]
            self.send(
                self._integration(first), self._within_pulses(first), *once, "TSC 1", *commands
            )
            lines = self.measured("TSR", "XE", takes_s=takes_s)
            zero = [self._force(channel, setup, 0.0) for channel, setup in setups.items()]
            self.send(*zero, *(f"CMM {channel},4" for channel in tops))
            for channel in tops:
                self._channels[channel].level = 0.0
        try:
            return self._split(lines, tops)
        except LinkError:
            self.dialog.out_of_step()
            raise

    def _within_pulses(self, setup: SourceSetup) -> str:
        """The aperture of the converters in pulses: a time, whatever the others count in."""
        return f"AIT 2,3,{flex_number(float(np.clip(setup.aperture_s, 2e-6, 20e-3)))}"

    def _split(
        self, lines: list[Elements], tops: Mapping[str, FloatArray]
    ) -> Mapping[str, Readings]:
        """Readings by channel from one line of data. Raises `LinkError` for another number of
        them.
        """
        if len(lines) != 1:
            raise LinkError(f"{self.name}: {len(lines)} lines of data came, not one")
        data, readings = lines[0], {}
        sourced = np.isin(data.status, [b"W", b"E"])
        for channel, levels in tops.items():
            mine = (data.channel == "ABCDEFGHIJ"[int(channel) - 1].encode()) & ~sourced
            is_volts = self._kept(channel).setup.function is Function.VOLTAGE
            found = data.of(mine & (data.kind == (b"I" if is_volts else b"V")))
            times = data.of(mine & (data.kind == b"T"))
            if not len(found) == len(times) == levels.size:
                raise LinkError(f"{self.name}: {len(data)} data came, not those of the pulses")
            asked = replace(
                found, status=np.full(levels.size, b"N"), value=np.asarray(levels, dtype=np.float64)
            )
            pair = (found, asked) if is_volts else (asked, found)
            reading = _judged(*pair, times.value)
            readings[channel] = self._cut(reading) if self.stop_at_compliance else reading
        return readings

    @override
    def switch_off(self) -> None:
        """An operation under way aborted, levels to zero, switches open."""
        self.dialog.write("AB")
        closed = self._closed(self.dialog.query("*LRN? 0"))
        # CL alone would open a switch at whatever level the channel forces.
        meters = [channel for channel in closed if channel in self.modules]
        zero = [f"DZ {','.join(meters)}"] if meters else []
        if has_generator := bool(self._spgu.channels):
            # Whether that reply names the generator's channels is unverified, and whether one that
            # is off refuses these: they are sent always, and what is said of them is not heard.
            self.dialog.write(";".join(self._spgu.ZERO))
            self.errors()
        self.send(*zero, *(["CL"] if closed or has_generator else []), takes_s=RELAY_S)
        for kept in self._channels.values():
            kept.on, kept.level = False, 0.0
        self._spgu.forget()

    def _closed(self, reply: str) -> list[str]:
        """The channels that are on, from the reply to `*LRN? 0`. Raises `LinkError` where it is
        none.
        """
        if re.fullmatch(r"CL\s*", reply):
            return []
        if re.fullmatch(r"CN\s*\d+(,\s*\d+)*", reply):
            return re.findall(r"\d+", reply)
        self.dialog.out_of_step()
        raise LinkError(f"{self.name}: {reply[:60]!r} does not tell which outputs are on")

    def _learned(self, topic: int, command: str, first: str) -> list[str]:
        """What `*LRN?` tells of one command: its parameters behind the first, which names channel
        or converter.

        Raises `KeyError` where the command is not among its settings.
        """
        reply = self.dialog.query(f"*LRN? {topic}")
        for part in reply.split(";"):
            head, *rest = (word.strip() for word in part.split(","))
            if head.replace(" ", "") == f"{command}{first}":
                return rest
        raise KeyError(f"no {command} {first} in {reply[:60]!r}")

    def _kept(self, channel: str) -> _Channel:
        kept = self._channels.get(channel)
        if kept is None:
            self.limits(channel)  # refuses what is no channel at all
            raise ConfigError(f"{self.name}: channel {channel}: configure it first")
        return kept

    def _switched_on(self, channel: str) -> _Channel:
        kept = self._kept(channel)
        if not kept.on:
            raise InstrumentError(f"{self.name}: channel {channel}: its output is off")
        return kept

    @staticmethod
    def _letter(setup: SourceSetup) -> str:
        return "V" if setup.function is Function.VOLTAGE else "I"

    def _check(self, channel: str, setup: SourceSetup) -> None:
        """Raise `ConfigError` for what the channel cannot do."""
        limits = self.limits(channel)
        is_volts = setup.function is Function.VOLTAGE
        least = limits.smallest_compliance_a if is_volts else limits.smallest_compliance_v
        own, other = (
            (limits.voltage_ranges_v, limits.current_ranges_a)
            if is_volts
            else (limits.current_ranges_a, limits.voltage_ranges_v)
        )
        level = setup.source_range if setup.source_range is not None else 0.0
        scale = next((r for r in own if r >= level * (1 - 1e-9)), None)
        where = f"{self.name}: channel {channel} ({self.modules[channel]})"
        if scale is None:
            raise ConfigError(f"{where}: source_range {level:g} is beyond {own[-1]:g}")
        if not (
            least <= setup.compliance
            and (
                limits.allows(scale, setup.compliance)
                if is_volts
                else limits.allows(setup.compliance, scale)
            )
        ):
            pairs = ", ".join(f"{v:g} V with {a:g} A" for v, a in limits.envelope)
            raise ConfigError(
                f"{where}: compliance {setup.compliance:g} on range {scale:g}: at least {least:g};"
                f" {pairs}"
            )
        if setup.measure_range is not None and not 0 < setup.measure_range <= other[-1] * (
            1 + 1e-9
        ):
            raise ConfigError(
                f"{where}: measure_range {setup.measure_range:g} is beyond {other[-1]:g}"
            )
        if not 0 <= setup.settle_s <= 65.535:
            raise ConfigError(f"{where}: settle_s {setup.settle_s:g}: 0 to 65.535")
        self._integration(setup)

    def _check_levels(self, channel: str, setup: SourceSetup, levels: FloatArray) -> None:
        limits = self.limits(channel)
        largest = float(np.max(np.abs(levels))) if np.all(np.isfinite(levels)) else float("nan")
        own = (
            limits.voltage_ranges_v
            if setup.function is Function.VOLTAGE
            else limits.current_ranges_a
        )
        scale = next((r for r in own if r >= largest), float("nan"))
        fits = limits.allows(
            *(
                (scale, setup.compliance)
                if setup.function is Function.VOLTAGE
                else (setup.compliance, scale)
            )
        )
        most = setup.source_range if setup.source_range is not None else own[-1]
        most = next((r for r in own if r >= most * (1 - 1e-9)), own[-1])
        if not (fits and largest <= most):
            raise ConfigError(
                f"{self.name}: channel {channel}: level {largest:g} with compliance"
                f" {setup.compliance:g}: the range goes to {most:g}, and"
                f" {', '.join(f'{v:g} V with {a:g} A' for v, a in limits.envelope)}"
            )

    def _check_count(self, points: int) -> None:
        if not 1 <= points <= MOST_POINTS:
            raise ConfigError(
                f"{self.name}: {points} points: 1 to {MOST_POINTS}, what the data buffer holds"
            )

    def _source_code(self, channel: str, setup: SourceSetup, largest: float) -> int:
        """The code of the range that a level is forced on; 0 lets the instrument choose."""
        if setup.source_range is None:
            return 0
        limits = self.limits(channel)
        is_volts = setup.function is Function.VOLTAGE
        scales = limits.voltage_ranges_v if is_volts else limits.current_ranges_a
        return _code(VOLTS if is_volts else AMPS, scales, max(setup.source_range, largest))

    def _measuring(self, channel: str, setup: SourceSetup) -> tuple[int, int]:
        """Codes of the current and the voltage range to measure on: fixed (minus), or 0 for
        automatic.
        """
        if setup.measure_range is None:
            return 0, 0
        is_volts = setup.function is Function.VOLTAGE
        limits = self.limits(channel)
        scales = limits.current_ranges_a if is_volts else limits.voltage_ranges_v
        code = _code(AMPS if is_volts else VOLTS, scales, setup.measure_range)
        return (-code, 0) if is_volts else (0, -code)

    def _integration(self, setup: SourceSetup) -> str:
        """The command for an aperture: whole power line cycles where it is such, else a time.
        Raises `ConfigError`.
        """
        cycles = setup.aperture_s * self.config.line_hz
        if (
            0.5 < cycles < 101
            and 1 <= round(cycles) <= 100
            and abs(cycles - round(cycles)) < 1e-6 * cycles
        ):
            return f"AIT 0,2,{round(cycles)}"
        if not 2e-6 <= setup.aperture_s <= 20e-3:
            raise ConfigError(
                f"{self.name}: aperture_s {setup.aperture_s:g}: 2e-6 to 0.02, or 1 to 100 whole"
                f" cycles of {self.config.line_hz:g} Hz"
            )
        return f"AIT 0,3,{flex_number(setup.aperture_s)}"

    def _force(self, channel: str, setup: SourceSetup, level: float) -> str:
        """The command that forces a level, with everything that goes with it."""
        code = self._source_code(channel, setup, abs(level))
        values = _join(level, setup.compliance)
        return f"D{self._letter(setup)} {channel},{code},{values},0,0"

    def _spot(self, channel: str, setup: SourceSetup) -> str:
        current, volts = self._measuring(channel, setup)
        return f"TTIV {channel},{current},{volts}"

    @staticmethod
    def _wait(setup: SourceSetup) -> list[str]:
        return [f"PA {flex_number(setup.settle_s)}"] if setup.settle_s > 0 else []

    @staticmethod
    def _takes_s(setup: SourceSetup, *, settles: bool = False) -> float:
        """How long one point takes at most."""
        tries = AUTO_RANGES if setup.measure_range is None else 1.0
        return (setup.settle_s if settles else 0.0) + 2 * tries * (setup.aperture_s + OVERHEAD_S)

    def _readings(
        self,
        channel: str,
        lines: list[Elements],
        points: int,
        *,
        in_one_line: bool = False,
        forced: FloatArray | None = None,
    ) -> Readings:
        """Readings from lines of data; `forced` are volts that were not measured. Raises
        `LinkError` for another channel's data or another number of them.
        """
        try:
            if len(lines) != (1 if in_one_line else points):
                raise LinkError(f"{self.name}: {len(lines)} lines of data came for {points} points")
            data = joined(lines)
            letter = "ABCDEFGHIJ"[int(channel) - 1].encode()
            parts = _by_kind(data, points)
            times = parts.pop("T", [])
            unmeasured = None if "V" in parts else forced
            if (
                len(times) not in (1, 2)
                or {kind: len(where) for kind, where in parts.items()}
                != {"I": 1}
                | ({"V": 1} if unmeasured is None else {})
                | ({"S": 1} if in_one_line else {})
                or any(data.channel[at].tobytes().strip(letter) for [at] in parts.values())
            ):
                raise LinkError(
                    f"{self.name}: {len(data)} data came, which are not readings of {points} points"
                    f" of channel {channel}"
                )
        except LinkError:
            self.dialog.out_of_step()
            raise
        amps = data.of(parts["I"][0])
        volts = (
            data.of(parts["V"][0])
            if unmeasured is None
            else replace(amps, value=unmeasured, status=np.full(points, b"N"))
        )
        return _judged(amps, volts, data.value[times[0]])


@cache
def _limits(module: str, line_hz: float) -> ChannelLimits:
    return replace(MODULES[module], longest_aperture_s=100 / line_hz)


def _join(*values: float) -> str:
    return ",".join(map(flex_number, values))


def _code(table: Mapping[int, float], scales: tuple[float, ...], value: float) -> int:
    """The code of the smallest of a channel's ranges that `value` fits."""
    scale = next(s for s in scales if s >= value * (1 - 1e-9))
    return next(code for code, full in table.items() if full == scale)


def _by_kind(data: Elements, points: int) -> dict[str, list[slice]]:
    """Where the data of points that are alike are, by what they are (T, I, V; S: of a source), each
    in the order of the points; nothing where points are not alike.
    """
    # As bytes: of a single reading, comparing arrays costs more than all the rest.
    said, kinds = data.status.tobytes(), data.kind.tobytes()
    if b"W" in said or b"E" in said:
        kinds = np.where(np.isin(data.status, [b"W", b"E"]), b"S", data.kind).tobytes()
    point = kinds[: len(data) // points]
    if kinds != point * points:
        return {}
    parts: dict[str, list[slice]] = {}
    for k, kind in enumerate(point.decode()):
        parts.setdefault(kind, []).append(slice(k, None, len(point)))
    return parts


def _judged(amps: Elements, volts: Elements, time_s: FloatArray) -> Readings:
    """Readings with their status from the letters: V over range, C compliance, N good, any other
    (T, X, F, G, S) unknown.

    T says that another channel is at its compliance, X that something oscillates or has not
    settled, F that the source is saturated: the value may be true, but it is not what the levels
    say.
    """
    if not (amps.status.tobytes() + volts.status.tobytes()).strip(b"N"):
        return Readings.of(volts.value, amps.value, np.zeros(len(amps), dtype=np.bool_), time_s)
    good = (amps.status == b"N") & (volts.status == b"N")
    over_v, over_a = volts.status == b"V", amps.status == b"V"
    limited = (amps.status == b"C") | (volts.status == b"C")
    readings = Readings.of(
        np.where(over_v, NOT_A_READING * 10, volts.value),
        np.where(over_a, NOT_A_READING * 10, amps.value),
        limited,
        time_s,
    )
    # What is not N, C or V on either side is doubtful; the last two have a status already.
    readings.status[~good & (readings.status == Status.OK)] = Status.UNKNOWN
    return readings
