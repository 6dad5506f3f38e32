"""Resistance of leads and contacts: from reads of known resistors or a short on the array, or
two-wire against four-wire.

What is found stands in series with every single reading of the bench.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from scipy.special import stdtrit

from rram_hil.array import Status
from rram_hil.corrections.calibration_file import Calibrated, Value, measured_value
from rram_hil.corrections.kind import CalibrationKind, Pieces, Quantity
from rram_hil.engine.calibration import Calibration, saved
from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.instrument import Function, SourceMeter, SourceSetup
from rram_hil.types import FloatArray
from rram_hil.validation import PositiveAmperes, PositiveSeconds, PositiveVolts

from .metrology.gum import NORMAL, rounding_variance
from .metrology.meters import opened, stay_within, swept
from .metrology.references import BOARD_RANGES_A, Ranges, Reference, fit_excess, told_of

MOST_CHANGE = 0.02
"""Leads that differ by more, as a part of them, from current to current or during the readings are
refused.
"""
CHANCE = 1e-6
"""Differences that chance makes more often are none."""


class LeadOhms(CalibrationKind):
    """Kind `leads`: one resistance in series with every single reading. Of the bench, which is all
    its instruments.
    """

    VALUES: ClassVar[dict[str, Quantity]] = {
        "series_ohm": Quantity("ohm", -100.0, 1e6, needed=True)
    }

    def pieces(self) -> Pieces:
        """The same for every cell."""
        ohm = self.file.value("series_ohm"), self.file.half_width("series_ohm")
        return Pieces(series=lambda cells, path: [ohm])


class Leads(Calibration):
    """Leads and contacts, from known resistors or four-wire.

    `method` "known" reads `references` on the array; "four-wire" forces `amps`, and half of it,
    through what hangs on a source-meter's channel, sensed at its own terminals, at the load, and at
    its own terminals again. Leads that are not ohmic, change meanwhile or come out below zero are
    refused.

    `instrument` is the name of one of the bench's own, or the section of one that is reached for
    this alone.
    """

    method: Literal["known", "four-wire"] = "known"
    references: list[Reference] = Field(default=[])
    levels: Annotated[int, Field(ge=2, le=256)] = 32
    repeat: Annotated[int, Field(ge=2, le=1000)] = 8
    lowest_v: PositiveVolts = 0.05
    adc_range_a: Ranges = BOARD_RANGES_A
    instrument: str | dict[str, Any] = ""
    channel: str = ""
    amps: PositiveAmperes = 1e-3
    compliance_v: PositiveVolts = 1.0
    aperture_s: PositiveSeconds = 0.02

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.method == "known" and not self.references:
            raise ValueError('references are needed for method = "known"')
        if self.method == "four-wire" and not (self.instrument and self.channel):
            raise ValueError('instrument and channel are needed for method = "four-wire"')
        if self.method == "four-wire" and self.references:
            raise ValueError('references are for method = "known"; four-wire needs none')
        if self.method == "known" and (self.instrument or self.channel):
            raise ValueError('instrument and channel are for method = "four-wire"')
        return self

    def run(self, setting: Setting) -> Plan[Calibrated]:
        """Yields reads of the references, or one computation that talks to the source-meter."""
        if "leads" in setting.correction.kinds:
            raise ConfigError("take the calibration of leads out of [calibration] first")
        yield Progress(0, 1, self.method)
        if self.method == "known":
            value = yield from self._from_references(setting)
            told, how = (
                told_of(self.references),
                f"single reads at {self.levels} levels, {self.repeat} times",
            )
        else:
            value = yield from self._from_four_wires(setting)
            told, how = (
                "the same channel, four-wire",
                f"{self.amps:g} A and half of it, both signs, {self.repeat} times",
            )
        return (
            yield from saved(
                Calibrated(
                    "leads",
                    {"series_ohm": value},
                    method=how,
                    reference=told,
                    validity_days=self.validity_days,
                    file=self.file,
                )
            )
        )

    def _from_references(self, setting: Setting) -> Plan[Value]:
        values, widths, _ = yield from fit_excess(
            setting,
            self.references,
            np.ones((len(self.references), 1)),
            self.levels,
            self.repeat,
            self.lowest_v,
            self.adc_range_a,
        )
        return measured_value(float(values[0]), float(widths[0]), "ohm")

    def _from_four_wires(self, setting: Setting) -> Plan[Value]:
        stay_within(setting, self.compliance_v, self.amps, self.instrument)

        def measure(_: Do) -> Arrays:
            with opened(setting, self.instrument, "instrument") as meter:
                return {
                    "two_wire": self._sensed(meter, False),
                    "four_wire": self._sensed(meter, True),
                    # Once more: what changed between the two must not pass for leads.
                    "two_wire_again": self._sensed(meter, False),
                }

        arrays = yield from Compute("two-wire and four-wire", measure)
        names = ("two_wire", "four_wire", "two_wire_again")
        before, sensed, after = (self._ohm(arrays[name]) for name in names)
        leads = (before + after) / 2 - sensed
        if not np.isfinite(leads).all():
            raise ConfigError(f"a reading at {self.amps:g} A is over range or at its limit")
        digits = [rounding_variance(arrays[name].T) for name in names]
        rounding = sum(digits) / (2 * self.amps**2)
        found = _mean(leads[:, 0], rounding)
        most = MOST_CHANGE * abs(found.ohm)
        halved = _mean(leads[:, 1], 4 * rounding)
        changed = _refused_change(
            found, halved, most, "at {:g} A", (self.amps, self.amps / 2), "is every contact ohmic?"
        )
        drifted = _refused_change(
            _mean(before[:, 0], rounding),
            _mean(after[:, 0], rounding),
            most,
            "two-wire {} the four-wire readings",
            ("before", "after"),
            "was anything touched, or is it warming up?",
        )
        if found.ohm < 0 and found.differs(_Mean(0.0, 0.0, np.inf)):
            raise ConfigError(
                f"four-wire reads {-found.ohm:.3g} ohm more than two-wire: are the sense leads"
                " connected, and at the load?"
            )
        # What changed and is not refused is known to lie between the two, no better.
        wide = np.hypot(found.half_width, NORMAL * np.hypot(changed, drifted) / np.sqrt(12))
        return measured_value(found.ohm, float(wide), "ohm")

    def _ohm(self, volts: FloatArray) -> FloatArray:
        """Resistance at `amps` and at half of it, shape (repeat, 2): of each pair of signs, so that
        offsets of the meter fall out.
        """
        return np.stack([volts[:, 0] - volts[:, 1], 2 * (volts[:, 2] - volts[:, 3])], axis=1) / (
            2 * self.amps
        )

    def _sensed(self, meter: SourceMeter, remote: bool) -> FloatArray:
        """Volts at plus and minus `amps`, then plus and minus half of it, shape (repeat, 4); NaN
        where a reading is not OK.
        """
        setup = SourceSetup(
            Function.CURRENT,
            self.compliance_v,
            self.amps,
            self.compliance_v,
            self.aperture_s,
            0.0,
            remote,
        )
        levels = self.amps * np.array([1.0, -1.0, 0.5, -0.5])
        readings = swept(meter, self.channel, setup, np.tile(levels, self.repeat))
        return np.where(readings.status == Status.OK, readings.volts, np.nan).reshape(
            self.repeat, 4
        )


@dataclass(frozen=True)
class _Mean:
    """A mean resistance, the variance of that mean (ohm^2), and the degrees of freedom of it."""

    ohm: float
    variance: float
    freedom: float

    @property
    def half_width(self) -> float:
        """Of a 95 % interval (ohm)."""
        return float(stdtrit(self.freedom, 0.975) * np.sqrt(self.variance))

    def differs(self, other: _Mean) -> bool:
        """Whether chance makes such a difference less than once in a million times."""
        freedom = min(self.freedom + other.freedom, 1e9)
        most = stdtrit(freedom, 1 - CHANCE / 2) * np.sqrt(self.variance + other.variance)
        return bool(abs(self.ohm - other.ohm) > most)


def _mean(ohm: FloatArray, rounding: float) -> _Mean:
    """Of repeated values, shape (n,); `rounding` is what digits leave out (ohm^2)."""
    n = ohm.size
    # Readings that all fall on one digit are rounded alike: repeating them averages nothing out.
    return _Mean(float(ohm.mean()), float(np.var(ohm, ddof=1)) / n + rounding, n - 1.0)


def _refused_change(
    one: _Mean, other: _Mean, most: float, where: str, names: tuple[object, object], advice: str
) -> float:
    """How far two means of one resistance are apart where that is no chance (ohm), else 0. Raises
    `ConfigError` beyond `most`.
    """
    change = abs(one.ohm - other.ohm)
    if not one.differs(other):
        return 0.0
    if not change <= most:
        places = [where.format(name) for name in names]
        raise ConfigError(
            f"the readings contradict each other: {one.ohm:.5g} ohm {places[0]},"
            f" {other.ohm:.5g} ohm {places[1]}; {advice}"
        )
    return change
