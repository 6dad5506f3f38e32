"""Resistance of leads and contacts: from reads of known resistors or a short on the array, or
two-wire against four-wire.

What is found stands in series with every single reading of the bench.
"""

from __future__ import annotations

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

from .metrology.meters import opened, stay_within, swept
from .metrology.references import BOARD_RANGES_A, Ranges, Reference, fit_excess, told_of


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

    `method` "known" reads `references` on the array; "four-wire" forces `amps` through what
    hangs on a source-meter's channel, sensed at its own terminals and then at the load.

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
                f"{self.amps:g} A of both signs, {self.repeat} times",
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
                }

        arrays = yield from Compute("two-wire and four-wire", measure)
        # Of each pair of signs: offsets of the meter fall out.
        ohm = [
            (a[:, 0] - a[:, 1]) / (2 * self.amps) for a in (arrays["two_wire"], arrays["four_wire"])
        ]
        leads = ohm[0] - ohm[1]
        if not np.isfinite(leads).all():
            raise ConfigError(f"a reading at {self.amps:g} A is over range or at its limit")
        n = leads.size
        wide = float(stdtrit(n - 1, 0.975)) * float(np.std(leads, ddof=1)) / np.sqrt(n)
        return measured_value(float(leads.mean()), float(wide), "ohm")

    def _sensed(self, meter: SourceMeter, remote: bool) -> FloatArray:
        """Volts at plus and minus `amps`, shape (repeat, 2); NaN where a reading is not OK."""
        setup = SourceSetup(
            Function.CURRENT,
            self.compliance_v,
            self.amps,
            self.compliance_v,
            self.aperture_s,
            0.0,
            remote,
        )
        readings = swept(meter, self.channel, setup, np.tile([self.amps, -self.amps], self.repeat))
        return np.where(readings.status == Status.OK, readings.volts, np.nan).reshape(
            self.repeat, 2
        )
