"""How a board's converters are corrected: what a DAC really gives, and what current an ADC really
measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from rram_hil.corrections.calibration_file import CalibrationFile
from rram_hil.corrections.correction import UNIFORM
from rram_hil.corrections.kind import Sense, Source
from rram_hil.types import FloatArray


@dataclass(frozen=True, eq=False)
class Dac(Source):
    """A board's converter of one line."""

    file: CalibrationFile
    line: str

    @override
    def volts(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        f, line = self.file, self.line
        step = f.value("dac_step_v")
        given = np.rint(asked / step) * step if step > 0 else asked
        bend, bend_u = _bent(f, f"{line}_inl", given)
        true = given * (1 + f.value(f"{line}_gain")) + f.value(f"{line}_offset") + bend
        wide = np.sqrt(
            (given * f.half_width(f"{line}_gain")) ** 2
            + f.half_width(f"{line}_offset") ** 2
            + bend_u**2
        )
        return true, np.asarray(wide, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Adc(Sense):
    """The converter of a board's single readings: the lowest range that holds the reading was
    used.
    """

    file: CalibrationFile

    @override
    def current(self, told: FloatArray, rounding: bool = True) -> tuple[FloatArray, FloatArray]:
        """A reading at the end of a range that may as well be of the next one is wider by the
        difference.
        """
        ranges = self._ranges()
        at = np.minimum(np.searchsorted(ranges, np.abs(told) * (1 - 1e-9)), ranges.size - 1)
        true, wide = self._inverse(told, ranges[at], rounding)
        if ranges.size == 1:
            return true, wide
        above = np.minimum(at + 1, ranges.size - 1)
        other, other_wide = self._inverse(told, ranges[above], rounding)
        # Of the next range where its current would not have fitted into this one, and it is a whole
        # step there.
        step = ranges[above] * self.file.value("adc_step")
        whole = (
            np.abs(told - np.rint(told / step) * step) < 1e-3 * step
            if self.file.value("adc_step") > 0
            else True
        )
        of_next = (above > at) & whole & (np.abs(self._in_range(other, ranges[at])) > ranges[at])
        apart = np.where(of_next, np.abs(other - true), 0.0)
        return np.where(of_next, other, true), np.hypot(np.where(of_next, other_wide, wide), apart)

    def _inverse(
        self, told: FloatArray, scale: FloatArray, rounding: bool
    ) -> tuple[FloatArray, FloatArray]:
        """The current behind a reading in the range of this full scale, and its half-width."""
        f = self.file
        gain, offset = f.value("adc_gain"), f.value("adc_offset")
        x = told / scale
        part = x.copy()
        for _ in range(4):  # the deviation is small and smooth: each round gains two digits or more
            bend, bend_u = _bent(f, "adc_inl", part)
            part = (x - offset - bend) / (1 + gain)
        wide = scale * np.sqrt(
            (part * f.half_width("adc_gain")) ** 2
            + f.half_width("adc_offset") ** 2
            + bend_u**2
            + (UNIFORM * 0.5 * f.value("adc_step") * rounding) ** 2
        )
        return part * scale, np.asarray(wide / (1 + gain), dtype=np.float64)

    def _in_range(self, current: FloatArray, scale: FloatArray) -> FloatArray:
        """What a current reads as in the range of this full scale, also beyond its end."""
        f = self.file
        part = np.clip(current / scale, -1.0, 1.0)
        bend = _bent(f, "adc_inl", part)[0]
        return np.asarray(
            current * (1 + f.value("adc_gain")) + scale * (f.value("adc_offset") + bend)
        )

    @override
    def told(self, current: FloatArray) -> FloatArray:
        ranges = self._ranges()
        told = self._in_range(current[..., None], ranges)
        fits = np.abs(told) <= ranges
        at = np.where(fits.any(axis=-1), np.argmax(fits, axis=-1), ranges.size - 1)
        return np.asarray(
            np.take_along_axis(told, at[..., None], axis=-1)[..., 0], dtype=np.float64
        )

    def _ranges(self) -> FloatArray:
        ranges = self.file.list_of("adc_range")
        return np.ones(1) if ranges is None else ranges


def _bent(file: CalibrationFile, name: str, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Deviation from the straight line at `x` and its half-width; nothing where the file has
    none.
    """
    found, places = file.values.get(name), file.list_of(f"{name}_at")
    if found is None or places is None:
        return np.zeros_like(x), np.zeros_like(x)
    bend = np.interp(x, places, found.values)
    return np.asarray(bend), np.asarray(np.interp(x, places, found.half_widths))
