"""A simulated board's converters with the errors of `[simulation.errors]`, and what stands in
series with its cells.

Without errors every number is that of the plain converters, bit for bit.
"""

from __future__ import annotations

import numpy as np

from rram_hil.array import Geometry, Line
from rram_hil.errors import ConfigError
from rram_hil.simulation.config import AdcErrors, DacErrors, Simulation
from rram_hil.simulation.wire_drops import series_ohm
from rram_hil.types import FloatArray, IntArray

DAC_RANGE_V = 5.0
DAC_STEP_V = DAC_RANGE_V / 4096
"""Levels of single reads and pulses: 13 bits with sign, +-5 V."""
ADC_RANGES_A = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Full scales of single readings; the lowest that holds the current is used, beyond the last is
over-range.
"""


def _bent(x: FloatArray, deviations: list[float]) -> FloatArray:
    """Deviation at `x` (-1 to 1), given at evenly spaced places from -1 to 1."""
    if not deviations:
        return np.zeros_like(x)
    return np.asarray(
        np.interp(x, np.linspace(-1.0, 1.0, len(deviations)), deviations), dtype=np.float64
    )


class Converters:
    """DACs of the lines, ADC of single readings, column amplifiers, series resistances of one
    simulated board.

    Raises `ConfigError` where `column_gain` or `column_offset` has not one value a column, or a
    resistor is off the chip.
    """

    def __init__(self, simulation: Simulation, geometry: Geometry) -> None:
        errors = simulation.errors
        for name in ("column_gain", "column_offset"):
            count = len(getattr(errors, name))
            if count not in (0, geometry.columns):
                raise ConfigError(
                    f"simulation.errors.{name}: {count} values; one for each of {geometry.columns}"
                    " columns"
                )
        self._quantises = simulation.converters
        self._dac: dict[Line, DacErrors] = {"bl": errors.bl, "sl": errors.sl, "wl": errors.wl}
        self._adc = errors.adc
        self._bits = simulation.adc_bits
        self.column_gain = np.array(errors.column_gain) if errors.column_gain else None
        self.column_offset = np.array(errors.column_offset) if errors.column_offset else None
        self._geometry, self._line_ohm = geometry, simulation.line_ohm
        self.access_ohm = errors.access_ohm
        self.fixed_ohm = errors.access_ohm + errors.lead_ohm
        """In series with every single reading, wires apart."""
        self.resistors: tuple[IntArray, FloatArray] | None = None
        if simulation.resistors:
            for k, r in enumerate(simulation.resistors):
                if not (
                    r.tile < geometry.tiles
                    and r.row < geometry.rows
                    and r.column < geometry.columns
                ):
                    raise ConfigError(
                        f"simulation.resistors.{k}: ({r.tile}, {r.row}, {r.column}) is off the chip"
                    )
            index = [
                (r.tile * geometry.rows + r.row) * geometry.columns + r.column
                for r in simulation.resistors
            ]
            siemens = np.full(geometry.size, np.nan)
            siemens[index] = [1.0 / r.ohm for r in simulation.resistors]
            self.resistors = np.array(index, dtype=np.int64), siemens

    def fixed(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """Conductances with those of plain resistors in their places."""
        if self.resistors is None:
            return g_s
        own = self.resistors[1][index]
        return np.where(np.isnan(own), g_s, own)

    def level(self, volts: FloatArray | None, line: Line) -> FloatArray | None:
        """What the converter of a line really gives (V); None where it floats."""
        if volts is None:
            return None
        given = np.rint(volts / DAC_STEP_V) * DAC_STEP_V if self._quantises else volts
        errors = self._dac[line]
        if not errors.any:
            return given
        bent = _bent(given / DAC_RANGE_V, errors.inl_v)
        return np.asarray(given * (1 + errors.gain) + errors.offset_v + bent, dtype=np.float64)

    def reading(self, current: FloatArray) -> FloatArray:
        """What the ADC tells of currents (A) within the highest range."""
        scales = np.asarray(ADC_RANGES_A)
        if self._adc.any:
            told = self._told(current[:, None], scales)
            # The range is chosen by what the converter sees.
            fits = np.abs(told) <= scales
            at = np.where(fits.any(axis=1), np.argmax(fits, axis=1), scales.size - 1)
            scale = scales[at]
            current = np.clip(told[np.arange(current.size), at], -scale, scale)
        else:
            scale = scales[np.minimum(np.searchsorted(scales, np.abs(current)), scales.size - 1)]
        if not self._quantises:
            return current
        lsb = scale / ((1 << (self._bits - 1)) - 1)
        return np.asarray(np.rint(current / lsb) * lsb, dtype=np.float64)

    def _told(self, current: FloatArray, scales: FloatArray) -> FloatArray:
        errors: AdcErrors = self._adc
        part = np.clip(current / scales, -1.0, 1.0)
        return np.asarray(
            current * (1 + errors.gain) + scales * (errors.offset + _bent(part, errors.inl))
        )

    def behind(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """Conductances as single readings see them: wire, transistor, leads and contacts in
        series.
        """
        if self._line_ohm <= 0 and self.fixed_ohm <= 0:
            return g_s
        ohm = self.fixed_ohm + (
            series_ohm(index, self._geometry, self._line_ohm) if self._line_ohm > 0 else 0.0
        )
        return np.asarray(g_s / (1 + g_s * ohm), dtype=np.float64)
