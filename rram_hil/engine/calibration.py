"""Base of the calibrations that run on a bench and end in a calibration file.

One is found by its entry point in the group `rram_hil.calibration`: a recipe names it as a step,
and `rram-hil calibrate NAME` runs it alone. See docs/adding-a-calibration.md.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from rram_hil.corrections.calibration_file import Calibrated
from rram_hil.engine.protocol import Plan, Protocol, Save
from rram_hil.statistics import UNCERTAINTY
from rram_hil.units import Unit


class Calibration(Protocol[Calibrated]):
    """Base of these calibrations. `file` is where a recipe's step writes what it finds, relative to
    the recipe. The docstring's first paragraph is what `rram-hil calibrate` says of it.
    """

    file: str = ""
    validity_days: Annotated[float, Unit("d"), Field(gt=0, allow_inf_nan=False)] = 365.0


def saved(found: Calibrated) -> Plan[Calibrated]:
    """Keep every value of a calibration in the run file, and return it."""
    for name, value in found.values.items():
        if isinstance(value.value, list):
            yield Save(name, value.values, (f"{name}_index",), value.unit)
            yield Save(f"{name}_half_width", value.half_widths, (f"{name}_index",), value.unit)
        else:
            attrs = {UNCERTAINTY: float(value.half_widths[0])}
            yield Save(name, np.asarray(value.scalar()), (), value.unit, attrs)
    return found
