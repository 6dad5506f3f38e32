"""Resistance of the array's wires and access transistors, from reads of resistors at known places.

A single read sees a cell, its transistor, and the wire from the source line's driver and to the bit
line's amplifier: for places at different distances the excess over the resistor's own value is a
straight line in the number of cell pitches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.array import Cells
from rram_hil.corrections.calibration_file import Calibrated, measured_value
from rram_hil.corrections.correction import pitches_of
from rram_hil.corrections.kind import (
    SAME_GATE_V,
    CalibrationKind,
    Ohms,
    Pieces,
    Quantity,
    Wires,
)
from rram_hil.engine.calibration import Calibration, saved
from rram_hil.engine.protocol import Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import ReadingPath
from rram_hil.validation import PositiveVolts

from .metrology.references import BOARD_RANGES_A, Ranges, Reference, cells_of, fit_excess, told_of


class LineOhms(CalibrationKind):
    """Kind `lines`: the wire of each cell pitch, and the access transistor at one gate voltage. Of
    a 1T1R chip, whatever reads it.
    """

    VALUES: ClassVar[dict[str, Quantity]] = {
        "line_ohm": Quantity("ohm", -10.0, 1e5),
        "access_ohm": Quantity("ohm", -1e3, 1e7),
    }

    def pieces(self) -> Pieces:
        """By each cell's place and gate where it is read alone, by the whole block in codes."""
        wires = Wires(
            self.file.value("line_ohm"),
            self.file.value("access_ohm"),
            float(self.file.conditions["wl_v"]),
            self.bench.geometry.rows,
        )
        return Pieces(series=self._ohms, wires=wires)

    @override
    def check_owner(self) -> None:
        """The chip, its cells, and the gate of reads."""
        self.check_chip()
        cell, read_v = self.bench.geometry.cell, self.bench.gate_v
        if cell != "1T1R":
            raise ConfigError(
                f"series resistance of lines applies to 1T1R arrays; this chip is {cell}"
            )
        gate = self.file.conditions.get("wl_v")
        if not isinstance(gate, float | int) or not abs(gate - read_v) <= SAME_GATE_V:
            raise ConfigError(
                f"measured with the gate at {gate} V; this bench reads at {read_v:g} V"
            )

    def _ohms(self, cells: Cells, path: ReadingPath) -> Iterable[Ohms]:
        file, pitches = self.file, pitches_of(cells, self.bench.geometry)
        yield file.value("line_ohm") * pitches, file.half_width("line_ohm") * pitches
        is_open = np.abs(path.gate_v - float(file.conditions["wl_v"])) <= SAME_GATE_V
        ohm, wide = file.value("access_ohm"), file.half_width("access_ohm")
        yield np.where(is_open, ohm, 0.0), np.where(is_open, wide, 0.0)


class Lines(Calibration):
    """Wire and access transistors from resistors at known places.

    Read references at several levels and places; find wire resistance of a pitch and the
    transistor's at the read gate.

    1T1R arrays only: in a 1R array the current of other cells shares the wires
    (`rram_hil.crossbar.solver`). Converters and leads are to be calibrated before, and in force; a
    calibration of lines must not be.
    """

    references: Annotated[list[Reference], Field(min_length=2)]
    levels: Annotated[int, Field(ge=2, le=256)] = 32
    repeat: Annotated[int, Field(ge=2, le=1000)] = 4
    lowest_v: PositiveVolts = 0.05
    adc_range_a: Ranges = BOARD_RANGES_A

    def run(self, setting: Setting) -> Plan[Calibrated]:
        """Yields one batch of reads; no cell is stressed."""
        if setting.geometry.cell != "1T1R":
            raise ConfigError("lines are calibrated in 1T1R arrays; this chip is 1R")
        if "lines" in setting.correction.kinds:
            raise ConfigError("take the calibration of lines out of [calibration] first")
        yield Progress(0, 1, f"{len(self.references)} references")
        n = len(self.references)
        pitches = pitches_of(cells_of(self.references, setting.geometry), setting.geometry)
        # Unknown: wire, transistor.
        values, widths, k = yield from fit_excess(
            setting,
            self.references,
            np.column_stack((pitches, np.ones(n))),
            self.levels,
            self.repeat,
            self.lowest_v,
            self.adc_range_a,
        )
        assert isinstance(setting.read.wl_v, float)
        found = Calibrated(
            "lines",
            {
                "line_ohm": measured_value(float(values[0]), float(widths[0]), "ohm"),
                "access_ohm": measured_value(float(values[1]), float(widths[1]), "ohm"),
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
