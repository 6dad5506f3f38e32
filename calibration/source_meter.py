"""A source-meter channel against a reference resistor or a second meter: offset and gain of current
and voltage in every range.

Two setups: with the terminals open ("zero": the current that each range tells when there is none),
then with a reference resistor ("gain": its volts over its ohms is the current), where a second
meter beside the resistor says what the volts really are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from scipy.special import stdtrit
from typing_extensions import override

from rram_hil.array import Status
from rram_hil.corrections.calibration_file import Calibrated, CalibrationFile, load, measured_values
from rram_hil.corrections.correction import UNIFORM
from rram_hil.corrections.kind import CalibrationKind, Pieces, Quantity, Sense, Source
from rram_hil.engine.calibration import Calibration, saved
from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import Accuracy, ChannelLimits, Function, SourceMeter, SourceSetup
from rram_hil.types import FloatArray
from rram_hil.validation import (
    NotNegativeOhms,
    NotNegativeVolts,
    PositiveAmperes,
    PositiveOhms,
    PositiveSeconds,
    PositiveVolts,
)

from .metrology.gum import NORMAL, mean_of, refuse_bent, rounding_variance, solve
from .metrology.meters import opened, stay_within, swept

Word = Annotated[str, Field(min_length=1)]
LEAST = 0.05
"""A range's gain is told by currents from this part of it on."""


@dataclass(frozen=True, eq=False)
class Channel(Source):
    """A source-meter's channel that forces volts."""

    file: CalibrationFile

    @override
    def volts(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The range is that which holds all levels of the operation."""
        ranges = self.file.list_of("range_v")
        if ranges is None:
            return asked, np.zeros_like(asked)
        at = int(np.searchsorted(ranges, np.max(np.abs(asked), initial=0.0) * (1 - 1e-9)))
        if at >= ranges.size:
            return asked, np.zeros_like(asked)
        gain, offset = self.file.values["gain_v"], self.file.values["offset_v"]
        true = asked * (1 + gain.values[at]) + offset.values[at]
        return true, np.hypot(asked * gain.half_widths[at], offset.half_widths[at])


@dataclass(frozen=True, eq=False)
class Meter(Sense):
    """A source-meter's channel that measures amperes and chooses its range by itself."""

    file: CalibrationFile

    @override
    def current(self, told: FloatArray, rounding: bool = True) -> tuple[FloatArray, FloatArray]:
        at, held = self._range(told)
        gain, offset = self.file.values["gain_a"], self.file.values["offset_a"]
        true = np.where(held, (told - offset.values[at]) / (1 + gain.values[at]), told)
        wide = np.hypot(true * gain.half_widths[at], offset.half_widths[at]) / (1 + gain.values[at])
        return true, np.where(held, wide, 0.0)

    @override
    def told(self, current: FloatArray) -> FloatArray:
        at, held = self._range(current)
        gain, offset = self.file.values["gain_a"], self.file.values["offset_a"]
        return np.where(held, current * (1 + gain.values[at]) + offset.values[at], current)

    def _range(self, told: FloatArray) -> tuple[FloatArray, FloatArray]:
        ranges = self.file.list_of("range_a")
        assert ranges is not None
        at = np.searchsorted(ranges, np.abs(told) * (1 - 1e-9))
        return np.minimum(at, ranges.size - 1), at < ranges.size  # type: ignore[return-value]


class ChannelErrors(CalibrationKind):
    """Kind `source-meter`: a channel's volts as forced and amperes as measured, range by range. Of
    one instrument of the bench.
    """

    VALUES: ClassVar[dict[str, Quantity]] = {
        name: quantity
        for letter, unit in (("a", "A"), ("v", "V"))
        for name, quantity in {
            f"range_{letter}": Quantity(unit, 0.0, needed=letter == "a"),
            f"offset_{letter}": Quantity(unit, -1.0, 1.0, needed=letter == "a"),
            f"gain_{letter}": Quantity("1", -0.99, 99.0, needed=letter == "a"),
        }.items()
    }

    @override
    def owners(self) -> Iterable[Identity]:
        """Any instrument of the bench."""
        return self.bench.parts.values()

    def pieces(self) -> Pieces:
        """The channel of every instrument that is this one."""
        mine = self.file.instrument
        names = [
            f"{name}.{mine.channel}"
            for name, identity in self.bench.parts.items()
            if (identity.model, identity.serial) == (mine.model, mine.serial)
        ]
        return Pieces(
            dict.fromkeys(names, Channel(self.file)), dict.fromkeys(names, Meter(self.file))
        )


class SourceMeterCalibration(Calibration):
    """A channel against a reference resistor or a second meter.

    `part` "zero" or "gain". `instrument` is the name of one of the bench's own, or the section
    of one reached for this alone.

    "gain" needs `ohm` with `half_width_ohm`, and `zero`, the file that "zero" wrote. `meter` is the
    second meter, between the same terminals, with `meter_fraction` and `meter_offset_v`: the
    half-width of its reading of volts. Without it the channel's volts are taken as its documents
    state them. Levels reach up to `most_v` volts and `most_a` amperes.
    """

    part: Literal["zero", "gain"]
    instrument: Word | dict[str, Any]
    channel: Word
    ohm: PositiveOhms | None = None
    half_width_ohm: NotNegativeOhms = 0.0
    zero: str = ""
    meter: Word | dict[str, Any] | None = None
    meter_channel: str = ""
    meter_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    meter_offset_v: NotNegativeVolts = 0.0
    most_v: PositiveVolts = 2.0
    most_a: PositiveAmperes = 1e-3
    levels: Annotated[int, Field(ge=4, le=200)] = 16
    repeat: Annotated[int, Field(ge=4, le=200)] = 8
    aperture_s: PositiveSeconds = 0.02

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.part == "gain" and (self.ohm is None or not self.zero):
            raise ValueError('ohm and zero are needed for part = "gain"')
        if self.meter is not None and not self.meter_channel:
            raise ValueError("meter_channel is needed with meter")
        return self

    def run(self, setting: Setting) -> Plan[Calibrated]:
        """Yields one computation that talks to the instruments; no cell is touched."""
        reached = self.most_v if self.part == "gain" else 0.0
        stay_within(
            setting,
            reached,
            self.most_a if self.part == "gain" else 0.0,
            self.instrument,
            self.meter or "",
        )
        before = None if self.part == "zero" else load(setting.folder / self.zero)
        yield Progress(0, 1, self.part)

        def measure(_: Do) -> Arrays:
            with opened(setting, self.instrument, "instrument") as meter:
                if self.channel not in meter.channels:
                    raise ConfigError(
                        f"channel {self.channel!r}: there is {', '.join(meter.channels)}"
                    )
                return self._zero(meter) if before is None else self._gain(setting, meter, before)

        arrays = yield from Compute(self.part, measure)
        identity = _identity(arrays)
        if before is not None and (
            before.instrument.model,
            before.instrument.serial,
            before.instrument.channel,
        ) != (
            identity.model,
            identity.serial,
            self.channel,
        ):
            raise ConfigError(f"zero: {self.zero} is a calibration of {before.instrument}")
        values = {
            "range_a": measured_values(arrays["range_a"], np.zeros_like(arrays["range_a"]), "A"),
            "offset_a": measured_values(arrays["offset_a"], arrays["offset_a_u"], "A"),
            "gain_a": measured_values(arrays["gain_a"], arrays["gain_a_u"], "1"),
            "range_v": measured_values(arrays["range_v"], np.zeros_like(arrays["range_v"]), "V"),
            "offset_v": measured_values(arrays["offset_v"], arrays["offset_v_u"], "V"),
            "gain_v": measured_values(arrays["gain_v"], arrays["gain_v_u"], "1"),
        }
        return (
            yield from saved(
                Calibrated(
                    "source-meter",
                    values,
                    method=self._method(),
                    reference=(
                        "open terminals"
                        if self.ohm is None
                        else f"{self.ohm:.9g} ohm +- {self.half_width_ohm:.2g}"
                    ),
                    validity_days=self.validity_days,
                    file=self.file,
                    channel=self.channel,
                    identity=identity,
                    conditions={"aperture_s": self.aperture_s},
                )
            )
        )

    def _method(self) -> str:
        if self.part == "zero":
            return (
                f"{self.repeat} readings in each range, terminals open, output at 0 V; gains and"
                " volts as documents state"
            )
        volts = "a second meter" if self.meter is not None else "its documents"
        return (
            f"{self.levels} levels of both signs, {self.repeat} times; volts from {volts}; other"
            " ranges as documents state"
        )

    def _zero(self, meter: SourceMeter) -> Arrays:
        limits = meter.limits(self.channel)
        found = _as_stated(meter, self.channel, limits)
        for k, range_a in enumerate(found["range_a"]):
            amps = self._amps(
                meter, limits, np.zeros(1), float(range_a), float(found["range_v"][0])
            )[0]
            found["offset_a"][k], found["offset_a_u"][k] = _mean_and_width(amps)
        return found

    def _gain(self, setting: Setting, meter: SourceMeter, zero: CalibrationFile) -> Arrays:
        limits = meter.limits(self.channel)
        assert self.ohm is not None
        found = _as_stated(meter, self.channel, limits)
        offsets = zero.values["offset_a"]
        if offsets.values.size != found["range_a"].size:
            raise ConfigError(f"zero: {self.zero} has other ranges than this instrument")
        found["offset_a"], found["offset_a_u"] = offsets.values.copy(), offsets.half_widths.copy()
        top_v = min(self.most_v, self.most_a * self.ohm)
        if self.meter is not None:
            for k, range_v in enumerate(found["range_v"]):
                if k and top_v <= 1.001 * float(found["range_v"][k - 1]):
                    break  # a higher range would never be used for these volts
                self._volts_of_range(setting, meter, limits, found, k, min(top_v, float(range_v)))
        for k, range_a in enumerate(found["range_a"]):
            most = min(float(range_a), self.most_a, top_v / self.ohm)
            at = int(np.searchsorted(found["range_v"], most * self.ohm * (1 - 1e-9)))
            # What is not known of 0 V, over this resistor, must be small in the range: else it
            # takes a larger resistor.
            if (
                most >= 4 * LEAST * range_a
                and 3 * found["offset_v_u"][at] / self.ohm <= LEAST * range_a
            ):
                self._gain_of_range(setting, meter, limits, found, k, at, most)
        return found

    def _volts_of_range(
        self,
        setting: Setting,
        meter: SourceMeter,
        limits: ChannelLimits,
        found: Arrays,
        k: int,
        most_v: float,
    ) -> None:
        """Offset and gain of one range of source volts from the second meter's readings."""
        assert self.meter is not None
        assert self.ohm is not None
        levels = _both_signs(most_v, self.levels)
        readings = np.empty((levels.size, self.repeat))
        with opened(setting, self.meter, "meter") as second:
            second.configure(
                self.meter_channel,
                SourceSetup(Function.CURRENT, 1.5 * most_v, None, 1.2 * most_v, self.aperture_s),
            )
            meter.configure(
                self.channel, self._setup(limits, float(found["range_v"][k]), None, self.most_a)
            )
            second.output(self.meter_channel, True)
            meter.output(self.channel, True)
            try:
                for i, level in enumerate(levels):
                    meter.source(self.channel, float(level))
                    for r in range(self.repeat):
                        one = second.measure(self.meter_channel)
                        readings[i, r] = (
                            one.volts[0]
                            if one.status[0] in (Status.OK, Status.COMPLIANCE)
                            else np.nan
                        )
            finally:
                meter.source(self.channel, 0.0)
                meter.output(self.channel, False)
                second.output(self.meter_channel, False)
        if not np.isfinite(readings).all():
            raise ConfigError(
                f"the second meter has no reading at up to {most_v:g} V; is it connected?"
            )
        mean, noise, _ = mean_of(readings)
        # Unknown: offset, gain error, and the second meter's own gain and offset within what is
        # known of it.
        design = np.column_stack((np.ones(levels.size), levels, levels, np.ones(levels.size)))
        spread = np.array(
            [np.inf, np.inf, max(self.meter_fraction, 1e-12), max(self.meter_offset_v, 1e-15)]
        )
        spread[2:] /= NORMAL
        pooled = np.full(levels.size, float(noise.mean()) + rounding_variance(readings))
        fit = solve(design, mean - levels, pooled, spread, float(levels.size * (self.repeat - 1)))
        name = f"the second meter at up to {most_v:g} V"
        refuse_bent(mean - levels, design @ fit.found, most_v, name)
        values, widths = fit.of(np.eye(4)[:2])
        found["offset_v"][k], found["gain_v"][k] = values
        found["offset_v_u"][k], found["gain_v_u"][k] = widths

    def _gain_of_range(
        self,
        setting: Setting,
        meter: SourceMeter,
        limits: ChannelLimits,
        found: Arrays,
        k: int,
        at: int,
        most_a: float,
    ) -> None:
        """Gain of one range of measured amperes from known volts over known ohms."""
        assert self.ohm is not None
        # Around the true zero of the volts, so that all currents fit into the range.
        asked = _both_signs(most_a * self.ohm * (1 - LEAST), self.levels) - found["offset_v"][at]
        told = self._amps(
            meter, limits, asked, float(found["range_a"][k]), float(found["range_v"][at])
        )
        if not np.isfinite(told).all():
            raise ConfigError(
                f"a reading in the range {found['range_a'][k]:g} A is over"
                f" range or at its limit; is {self.ohm:g} ohm connected?"
            )
        mean, noise, _ = mean_of(told)
        amps = (asked * (1 + found["gain_v"][at]) + found["offset_v"][at]) / self.ohm
        # Unknown: gain error, offset within what "zero" told, and the references' errors.
        one = np.ones(asked.size)
        design = np.column_stack((amps, one, amps, asked / self.ohm, one / self.ohm))
        spread = np.array(
            [
                np.inf,
                found["offset_a_u"][k],
                self.half_width_ohm / self.ohm,
                found["gain_v_u"][at],
                found["offset_v_u"][at],
            ]
        )
        spread = np.maximum(spread, [1.0, 1e-18, 1e-12, 1e-12, 1e-12]) / NORMAL
        spread[0] = np.inf
        pooled = np.full(asked.size, float(noise.mean()) + rounding_variance(told))
        seen = mean - amps - found["offset_a"][k]
        fit = solve(design, seen, pooled, spread, float(asked.size * (self.repeat - 1)))
        name = f"the resistor of {self.ohm:g} ohm, in the range {found['range_a'][k]:g} A,"
        refuse_bent(seen, design @ fit.found, float(np.max(np.abs(amps))), name)
        values, widths = fit.of(np.eye(5)[:1])
        found["gain_a"][k], found["gain_a_u"][k] = values[0], widths[0]

    def _setup(
        self, limits: ChannelLimits, range_v: float, range_a: float | None, amps: float
    ) -> SourceSetup:
        most = max((a for v, a in limits.envelope if range_v <= v), default=limits.max_a)
        compliance = min(max(1.2 * amps, limits.smallest_compliance_a, range_a or 0.0), most)
        return SourceSetup(Function.VOLTAGE, compliance, range_v, range_a, self.aperture_s)

    def _amps(
        self,
        meter: SourceMeter,
        limits: ChannelLimits,
        levels: FloatArray,
        range_a: float,
        range_v: float,
    ) -> FloatArray:
        """Amperes told at levels (V), shape (levels, repeat); NaN where a reading is not OK."""
        readings = swept(
            meter,
            self.channel,
            self._setup(limits, range_v, range_a, range_a),
            np.repeat(levels, self.repeat),
        )
        return np.where(readings.status == Status.OK, readings.amps, np.nan).reshape(
            levels.size, self.repeat
        )


def _both_signs(most: float, levels: int) -> FloatArray:
    half = np.linspace(LEAST, 1.0, max(levels // 2, 2)) * most * 0.98
    return np.concatenate((-half[::-1], half))


def _mean_and_width(readings: FloatArray) -> tuple[float, float]:
    mean, variance, freedom = mean_of(readings)
    if not np.isfinite(mean) or freedom < 1:
        return float("nan"), float("nan")
    # Where nothing scatters, the reading's own digit hides the rest.
    wide = np.hypot(
        stdtrit(freedom, 0.975) * np.sqrt(variance),
        UNIFORM * np.sqrt(3 * rounding_variance(readings)),
    )
    return float(mean), float(wide)


def _stated(
    accuracies: tuple[Accuracy, ...], ranges: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """Stated fraction and offset of each range; those of the nearest range that is stated."""
    fraction, offset = np.zeros(len(ranges)), np.zeros(len(ranges))
    for k, full in enumerate(ranges):
        if accuracies:
            near = min(accuracies, key=lambda a: abs(np.log(a.range / full)))
            fraction[k], offset[k] = near.fraction, near.offset * full / near.range
    return fraction, offset


def _as_stated(meter: SourceMeter, channel: str, limits: ChannelLimits) -> Arrays:
    """No error in any range, within what the instrument's documents state; and who it is."""
    if not limits.measures_a or not limits.measures_v:
        raise ConfigError(
            f"{meter.name}: no accuracy of channel {channel!r} is known to this driver"
        )
    fraction_a, offset_a = _stated(limits.measures_a, limits.current_ranges_a)
    fraction_v, offset_v = _stated(limits.measures_v, limits.voltage_ranges_v)
    identity = meter.identity  # type: ignore[attr-defined]
    told = f"{identity.model}\n{identity.serial}".encode()
    return {
        "range_a": np.array(limits.current_ranges_a),
        "offset_a": np.zeros(len(limits.current_ranges_a)),
        "offset_a_u": offset_a,
        "gain_a": np.zeros(len(limits.current_ranges_a)),
        "gain_a_u": fraction_a,
        "range_v": np.array(limits.voltage_ranges_v),
        "offset_v": np.zeros(len(limits.voltage_ranges_v)),
        "offset_v_u": offset_v,
        "gain_v": np.zeros(len(limits.voltage_ranges_v)),
        "gain_v_u": fraction_v,
        "identity": np.frombuffer(told, dtype=np.uint8),
    }


def _identity(arrays: Arrays) -> Identity:
    model, _, serial = bytes(arrays["identity"]).decode().partition("\n")
    return Identity(model, serial)
