"""What the drivers of the single-channel Keithley source-meters (2400 and 2450 families) share:
tables of models, checks, read-back, readings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import (
    Accuracy,
    ChannelLimits,
    Function,
    ModelSheet,
    Readings,
    SourceMeter,
    SourceMeterConfig,
    SourceSetup,
)
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import number

from .scpi import ScpiInstrument, floats

OVERRANGE = 1.05
"""Source and meter go up to this much of a range; on the highest one up to the envelope, where that
is more.
"""
SHORTEST_NPLC, LONGEST_NPLC = 0.01, 10.0
LIST_WORDS = 100
"""Levels that one list command takes; more are appended."""
RESET_S = 2.0
POINT_S = 5e-3
"""Allowance for what an instrument does between the conversions of a point."""
CONVERSIONS = 6
"""Voltage and current, each with autozero's reference and zero."""
OFF_STATES = {"normal": "NORM", "zero": "ZERO", "high-impedance": "HIMP"}
SHORT = {Function.VOLTAGE: "VOLT", Function.CURRENT: "CURR"}
OTHER = {Function.VOLTAGE: "CURR", Function.CURRENT: "VOLT"}


@dataclass(frozen=True)
class Table:
    """What one model can do and what of that was checked: accuracy of each measuring range, which
    are the source's ranges too (V, A); envelope as in `ChannelLimits`. `states_accuracy` is False
    where no document gives it; the accuracies then name the ranges alone.
    """

    volts: tuple[Accuracy, ...]
    amps: tuple[Accuracy, ...]
    envelope: tuple[tuple[float, float], ...]
    smallest_compliance_a: float
    smallest_compliance_v: float
    settle_s: float
    sheet: ModelSheet
    shortest_s: float = 2e-3
    states_accuracy: bool = True
    least_limit: float = 0.1
    """Smallest compliance as part of a fixed measuring range, where the instrument would else raise
    it.
    """

    def limits(self, line_hz: float) -> ChannelLimits:
        """The same as the limits of a channel that counts apertures in cycles of the mains."""
        return ChannelLimits(
            voltage_ranges_v=tuple(a.range for a in self.volts),
            current_ranges_a=tuple(a.range for a in self.amps),
            envelope=self.envelope,
            shortest_s=self.shortest_s,
            shortest_aperture_s=SHORTEST_NPLC / line_hz,
            longest_aperture_s=LONGEST_NPLC / line_hz,
            smallest_compliance_a=self.smallest_compliance_a,
            smallest_compliance_v=self.smallest_compliance_v,
            settle_s=self.settle_s,
            measures_a=self.amps if self.states_accuracy else (),
            measures_v=self.volts if self.states_accuracy else (),
        )


class Keithley24xxConfig(SourceMeterConfig):
    """How a single-channel Keithley source-meter is reached. `arm` selects the terminals."""

    terminals: Literal["front", "rear"] = Field(default="front", description="where the wires are")


class Keithley24xx(ScpiInstrument, SourceMeter):
    """One channel, named "1"."""

    MAKER = "Keithley"
    Config = Keithley24xxConfig
    config: Keithley24xxConfig
    TABLES: ClassVar[Mapping[str, Table]]
    MOST_POINTS = 2500
    LONGEST_SETTLE_S = 9999.0
    SETTINGS: ClassVar[tuple[str, ...]]
    """Queries of everything that `settings` tells."""
    _setup: SourceSetup | None = None

    @abstractmethod
    def _apply(self, setup: SourceSetup, measure_range: float | None) -> SourceSetup:
        """Send all settings, level at zero, and read them back, in one message."""

    @abstractmethod
    def _sweep(
        self, setup: SourceSetup, commands: tuple[str, ...], start: str, points: int
    ) -> Readings:
        """Run what `commands` set up and `start` names; fetch `points` readings; level back at
        zero.
        """

    @abstractmethod
    def _told(self, reply: str) -> SourceSetup:
        """Settings out of the answers to `SETTINGS`."""

    @property
    @override
    def channels(self) -> tuple[str, ...]:
        return ("1",)

    @override
    def limits(self, channel: str) -> ChannelLimits:
        if channel not in self.channels:
            raise ConfigError(f"{self.name}: channel {channel!r}; there is only '1'")
        return self.TABLES[self.model].limits(self.config.line_hz)

    @override
    def settings(self, channel: str) -> SourceSetup:
        self.limits(channel)
        return self._told(self.ask(*self.SETTINGS))

    @override
    def configure(self, channel: str, setup: SourceSetup) -> None:
        """Set the channel up; the settings are read back and compared in the same message."""
        limits = self.limits(channel)
        asked = self._checked(setup, limits)
        self._setup = None
        held = self._apply(asked, asked.measure_range)
        self._compare(asked, held, limits)
        self._setup = asked

    @override
    def source(self, channel: str, level: float) -> None:
        setup = self._configured(channel)
        self._check_levels(setup, np.array([level]))
        self.send(f":SOUR:{SHORT[setup.function]}:LEV {number(level)}")

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch the output; verified by read-back."""
        if on:
            self._configured(channel)
        else:
            self.limits(channel)
        state = self.ask(f":OUTP {'ON' if on else 'OFF'}", ":OUTP?")
        if state != ("1" if on else "0"):
            raise InstrumentError(
                f"{self.name}: the output was switched {'on' if on else 'off'} and says {state!r}",
                command=":OUTP?",
            )

    @override
    def is_off(self) -> bool:
        state = self.dialog.query(":OUTP?")
        if state not in ("0", "1"):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {state[:60]!r} is no output state")
        return state == "0"

    @override
    def sweep(self, channel: str, start: float, stop: float, points: int) -> Readings:
        if points == 1:
            return self.list_sweep(channel, np.array([start]))
        setup = self._configured(channel)
        self._check_levels(setup, np.array([start, stop]))
        if not 1 <= points <= self.MOST_POINTS:
            raise ConfigError(f"{self.name}: {points} points; a sweep has 1 to {self.MOST_POINTS}")
        commands, run = self._staircase(setup, start, stop, points)
        return self._sweep(setup, commands, run, points)

    @override
    def list_sweep(self, channel: str, levels: FloatArray) -> Readings:
        setup = self._configured(channel)
        levels = np.asarray(levels, dtype=np.float64).ravel()
        if not 1 <= levels.size <= 2500:
            raise ConfigError(f"{self.name}: {levels.size} levels; a list has 1 to 2500")
        self._check_levels(setup, levels)
        head = f":SOUR:LIST:{SHORT[setup.function]}"
        parts = [levels[at : at + LIST_WORDS] for at in range(0, levels.size, LIST_WORDS)]
        commands = tuple(
            f"{head}{':APP' if at else ''} {','.join(number(v) for v in part)}"
            for at, part in enumerate(parts)
        )
        more, run = self._listed(setup, int(levels.size))
        return self._sweep(setup, (*commands, *more), run, int(levels.size))

    @abstractmethod
    def _staircase(
        self, setup: SourceSetup, start: float, stop: float, points: int
    ) -> tuple[tuple[str, ...], str]:
        """Commands that set a linear sweep up, and the mode or command that selects it."""

    @abstractmethod
    def _listed(self, setup: SourceSetup, points: int) -> tuple[tuple[str, ...], str]:
        """Commands behind a list of so many points, and the mode or command that selects it."""

    def takes_s(self, setup: SourceSetup, points: int) -> float:
        """How long `points` readings take at most (s); the timeout of a transaction follows it."""
        conversions = 1 if setup.one_conversion else CONVERSIONS
        conversions *= 1 if setup.measure_range is not None else 2
        return points * (setup.settle_s + conversions * setup.aperture_s + POINT_S)

    def nplc(self, aperture_s: float) -> float:
        """Integration time as the instrument counts it, in cycles of the mains."""
        return aperture_s * self.config.line_hz

    def replies(self, reply: str, count: int) -> list[str]:
        """The answers of a fused message. Raises `LinkError` where there are not `count`."""
        answers = reply.split(";")
        if len(answers) != count:
            self.dialog.out_of_step()
            raise LinkError(
                f"{self.name}: {count} answers expected, {len(answers)} came: {reply[:80]!r}"
            )
        return answers

    def table(self, reply: str, columns: int, points: int) -> FloatArray:
        """Readings of an ASCII reply, shape (points, columns); fewer where a sweep may end before
        its last point. Raises `LinkError` for another number of values.
        """
        try:
            values = floats(reply)
        except LinkError:
            self.dialog.out_of_step()
            raise
        rows, rest = divmod(values.size, columns)
        if rest or not (rows == points or (self.stop_at_compliance and 0 < rows < points)):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {columns * points} values expected, {values.size} came")
        return values.reshape(rows, columns)

    def ranges_told(self, answers: list[str], first: int) -> tuple[float | None, ...]:
        """Source and measuring ranges (V, A, V, A), None where automatic, from pairs of answers."""
        limits = self.limits("1")
        ranges = (
            (limits.voltage_ranges_v, limits.max_v),
            (limits.current_ranges_a, limits.max_a),
        ) * 2
        return tuple(
            None
            if answers[at] == "1"
            else full_scale(self.value(answers[at + 1]), fulls, most, "range told")
            for at, (fulls, most) in zip(range(first, first + 8, 2), ranges, strict=True)
        )

    def value(self, text: str) -> float:
        """One number of a reply. Raises `LinkError` where it is none."""
        try:
            return float(text)
        except ValueError:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {text[:60]!r} is no number") from None

    def check_mains(self, mains: str) -> None:
        """Refuse a line frequency other than the configured one. Raises `ConfigError`."""
        told = self.value(mains)
        if abs(told - self.config.line_hz) > 0.5:
            raise ConfigError(
                f"{self.name}: line_hz: {self.config.line_hz:g}, but the instrument counts {told:g}"
            )

    def _configured(self, channel: str) -> SourceSetup:
        self.limits(channel)
        if self._setup is None:
            raise ConfigError(
                f"{self.name}: channel {channel} is not configured since it was connected or reset"
            )
        return self._setup

    def _checked(self, setup: SourceSetup, limits: ChannelLimits) -> SourceSetup:
        """The setup with ranges as full scales. Raises `ConfigError`."""
        is_volts = setup.function is Function.VOLTAGE
        source, sense = (
            (limits.voltage_ranges_v, limits.max_v),
            (limits.current_ranges_a, limits.max_a),
        )
        smallest, unit = limits.smallest_compliance_a, "A"
        if not is_volts:
            source, sense = sense, source
            smallest, unit = limits.smallest_compliance_v, "V"
        where = f"{self.name}: "
        source_range = full_scale(setup.source_range, *source, f"{where}source_range")
        forced = 0.0 if source_range is None else source_range
        if not setup.compliance >= smallest:
            raise ConfigError(
                f"{where}compliance: {setup.compliance:g} {unit}; the smallest is {smallest:g}"
                f" {unit}"
            )
        if not limits.allows(
            *((forced, setup.compliance) if is_volts else (setup.compliance, forced))
        ):
            raise ConfigError(
                f"{where}compliance: {setup.compliance:g} {unit} with a source range of {forced:g}"
                f" is outside {limits.envelope}"
            )
        if (
            not limits.shortest_aperture_s * (1 - 1e-9)
            <= setup.aperture_s
            <= limits.longest_aperture_s * (1 + 1e-9)
        ):
            raise ConfigError(
                f"{where}aperture_s: {setup.aperture_s:g}; from {limits.shortest_aperture_s:g} to"
                f" {limits.longest_aperture_s:g}"
            )
        if not 0 <= setup.settle_s <= self.LONGEST_SETTLE_S:
            raise ConfigError(
                f"{where}settle_s: {setup.settle_s:g}; from 0 to {self.LONGEST_SETTLE_S:g}"
            )
        measure_range = full_scale(setup.measure_range, *sense, f"{where}measure_range")
        if measure_range is not None:
            # Nothing beyond the compliance can come, and no range beyond the compliance's own can
            # be set.
            measure_range = min(
                measure_range, full_scale(setup.compliance, *sense, where) or measure_range
            )
        return replace(setup, source_range=source_range, measure_range=measure_range)

    def _check_levels(self, setup: SourceSetup, levels: FloatArray) -> None:
        limits = self.limits("1")
        ranges, top = (
            (limits.voltage_ranges_v, limits.max_v)
            if setup.function is Function.VOLTAGE
            else (limits.current_ranges_a, limits.max_a)
        )
        if setup.source_range is not None:
            top = min(top, top_of(setup.source_range, ranges, top))
        level = float(levels[np.argmax(np.abs(levels))])  # NaN, where there is one
        pair = (
            (level, setup.compliance)
            if setup.function is Function.VOLTAGE
            else (setup.compliance, level)
        )
        if not (abs(level) <= top * (1 + 1e-9) and limits.allows(*pair)):
            raise ConfigError(
                f"{self.name}: level {level:g}: at most {top:g} on this range, and"
                f" {limits.envelope} (V, A) together"
            )

    def _compare(self, asked: SourceSetup, held: SourceSetup, limits: ChannelLimits) -> None:
        """Raise `InstrumentError` where the instrument holds something else than was asked for."""
        of_volts = asked.function is Function.VOLTAGE
        senses, most_sensed = (
            (limits.current_ranges_a, limits.max_a)
            if of_volts
            else (limits.voltage_ranges_v, limits.max_v)
        )
        resolution = 1e-4 * (full_scale(asked.compliance, senses, most_sensed, "compliance") or 0.0)
        most = {
            "compliance": max(resolution, 1e-3 * asked.compliance),
            "aperture_s": 0.01 * asked.aperture_s,
            "settle_s": 1e-4 + 0.01 * asked.settle_s,
        }
        pairs = {f.name: (getattr(asked, f.name), getattr(held, f.name)) for f in fields(asked)}
        wrong = [
            f"{name}: {wanted!r} asked for, {kept!r} held"
            for name, (wanted, kept) in pairs.items()
            if not (abs(wanted - kept) <= most[name] if name in most else wanted == kept)
        ]
        if wrong:
            raise InstrumentError(
                f"{self.name}: settings not taken: {'; '.join(wrong)}", command="configure"
            )


def full_scale(
    value: float | None, ranges: tuple[float, ...], most: float, what: str
) -> float | None:
    """The lowest range on which `value` fits, where the envelope ends at `most`; None stays None.
    Raises `ConfigError`.
    """
    if value is None:
        return None
    for full in ranges:
        if 0 < value <= top_of(full, ranges, most) * (1 + 1e-6):
            return full
    raise ConfigError(f"{what}: {value:g}; the ranges are {', '.join(f'{r:g}' for r in ranges)}")


def top_of(full: float, ranges: tuple[float, ...], most: float) -> float:
    """Largest value on a range, where the envelope ends at `most`."""
    return max(full * OVERRANGE, most if full == ranges[-1] else 0.0)
