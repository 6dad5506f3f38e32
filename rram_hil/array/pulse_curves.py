"""A curve from the characterisation of a chip: which volts of one line give which conductance."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from rram_hil.errors import DataError
from rram_hil.types import FloatArray
from rram_hil.validation import FiniteVolts, PositiveSiemens, StrictModel


class Curve(StrictModel):
    """A table of volts and conductances, interpolated in ln G; conductances rise (SET) or fall
    (RESET) with the volts.
    """

    volts_v: list[FiniteVolts] = Field(min_length=2)
    conductance_s: list[PositiveSiemens] = Field(min_length=2)

    @model_validator(mode="after")
    def _monotonic(self) -> Self:
        if len(self.volts_v) != len(self.conductance_s):
            raise ValueError("volts_v and conductance_s must have the same length")
        volts, conductance = np.diff(self.volts_v), np.diff(self.conductance_s)
        if not (np.all(volts > 0) and (np.all(conductance > 0) or np.all(conductance < 0))):
            raise ValueError(
                "volts_v must rise, and conductance_s rise or fall, from entry to entry"
            )
        return self

    def volts(self, target_s: FloatArray) -> FloatArray:
        """Volts for target conductances (S), held at the ends of the table."""
        order = np.argsort(self.conductance_s)
        known = np.log(np.asarray(self.conductance_s)[order])
        return np.asarray(
            np.interp(np.log(np.maximum(target_s, 1e-12)), known, np.asarray(self.volts_v)[order])
        )

    @classmethod
    def measured(cls, volts_v: ArrayLike, conductance_s: ArrayLike, *, rising: bool) -> Curve:
        """A curve through measured points, volts rising: points that go against the slope are left
        out.

        Raises `DataError` where fewer than two points are left.
        """
        volts, measured = (
            np.asarray(volts_v, dtype=np.float64),
            np.asarray(conductance_s, dtype=np.float64),
        )
        slope = measured if rising else -measured
        usable = np.isfinite(measured) & (measured > 0)
        best = np.maximum.accumulate(np.where(usable, slope, -np.inf))
        kept = usable & np.append(True, slope[1:] > best[:-1])
        if kept.sum() < 2:
            raise DataError(
                f"no {'rising' if rising else 'falling'} curve: of {volts.size} measured points"
                f" {int(kept.sum())} can be used"
            )
        return cls(volts_v=volts[kept].tolist(), conductance_s=measured[kept].tolist())


class PulseCurves(StrictModel):
    """What one pulse does on this chip: conductance by gate volts of a SET, and by source-line
    volts of a RESET.
    """

    set_gate: Curve
    reset_sl: Curve
