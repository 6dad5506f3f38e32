"""Resistance of the array's wires and access transistors, from reads of resistors at known places.

A single read sees a cell, its transistor, and the wire from the source line's driver and to the bit
line's amplifier: for places at different distances the excess over the resistor's own value is a
straight line in the number of cell pitches.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from rram_hil.corrections.calibration_file import Calibrated, quantity
from rram_hil.corrections.correction import pitches_of
from rram_hil.engine.protocol import Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.validation import Positive

from .metrology.gum import NORMAL, freedom_of, solve
from .metrology.references import (
    BOARD_RANGES_A,
    Calibration,
    Ranges,
    Reference,
    cells_of,
    excess_of,
    saved,
    told_of,
)


class Lines(Calibration):
    """Read references at several levels and places; find wire resistance of a pitch and the
    transistor's at the read gate.

    1T1R arrays only: in a 1R array the current of other cells shares the wires
    (`rram_hil.crossbar.solver`). Converters and leads are to be calibrated before, and in force; a
    calibration of lines must not be.
    """

    references: Annotated[list[Reference], Field(min_length=2)]
    levels: Annotated[int, Field(ge=2, le=256)] = 32
    repeat: Annotated[int, Field(ge=2, le=1000)] = 4
    lowest_v: Positive = 0.05
    adc_range_a: Ranges = BOARD_RANGES_A

    def run(self, setting: Setting) -> Plan[Calibrated]:
        """Yields one batch of reads; no cell is stressed."""
        if setting.geometry.cell != "1T1R":
            raise ConfigError(
                f"step {setting.step!r}: lines are calibrated in 1T1R arrays; this chip is 1R"
            )
        if "lines" in setting.correction.kinds:
            raise ConfigError(
                f"step {setting.step!r}: take the calibration of lines out of [calibration] first"
            )
        yield Progress(0, 1, f"{len(self.references)} references")
        excess, noise, sure, shared, freedom = yield from excess_of(
            setting, self.references, self.levels, self.repeat, self.lowest_v, self.adc_range_a
        )
        cells = cells_of(self.references, setting.geometry, setting.step)
        n, k = excess.shape
        pitches = np.repeat(pitches_of(cells, setting.geometry), k)
        own = np.repeat(np.eye(n), k, axis=0)
        # Unknowns: wire, transistor, each reference's error, the readings' common error.
        design = np.column_stack((pitches, np.ones(n * k), own, shared.ravel()))
        spread = np.array(
            [
                np.inf,
                np.inf,
                *(max(r.half_width_ohm / NORMAL, 1e-12 * r.ohm) for r in self.references),
                1.0,
            ]
        )
        variance = (noise + sure).ravel()
        good = np.isfinite(excess.ravel()) & np.isfinite(variance)
        if not shared.any():
            design, spread = design[:, :-1], spread[:-1]
        freedom_now = freedom_of(noise.ravel()[good], sure.ravel()[good], freedom)
        fit = solve(design[good], excess.ravel()[good], variance[good], spread, freedom_now)
        values, widths = fit.of(np.eye(design.shape[1])[:2])
        assert isinstance(setting.read.wl_v, float)
        found = Calibrated(
            "lines",
            {
                "line_ohm": quantity(float(values[0]), float(widths[0]), "ohm"),
                "access_ohm": quantity(float(values[1]), float(widths[1]), "ohm"),
            },
            method=(
                f"single reads at {k} levels, {self.repeat} times; least squares over {n} places"
            ),
            reference=told_of(self.references),
            validity_days=self.validity_days,
            file=self.file,
            conditions={"wl_v": setting.read.wl_v, "width_s": setting.read.width_s},
            of_chip=True,
        )
        return (yield from saved(found))
