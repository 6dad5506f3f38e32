"""How a cell answers pulses and reads: a first model of filamentary RRAM, vectorised over cells.

A SET pulse brings a cell up to the conductance that its gate voltage (compliance) allows, a RESET
pulse down to the one that the voltage across it allows; a pulse that would allow less change than
the cell already has changes nothing. Numbers come from preset files (`presets/*.toml`); their
sources stand with the fields below. "RADAR" is Levy et al., IEEE TED 2021, doi
10.1109/TED.2021.3097975 (1T1R HfO2, 25 to 32,768 cells); "NeuRRAM" is Wan et al., Nature 2022.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError, model_validator
from scipy.special import ndtr, ndtri

from rram_hil.errors import ConfigError, near
from rram_hil.simulation import draws
from rram_hil.simulation.draws import Purpose
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Unit
from rram_hil.validation import (
    Finite,
    FiniteSiemens,
    FiniteVolts,
    Fraction,
    NotNegative,
    NotNegativeSiemens,
    NotNegativeVolts,
    Positive,
    PositiveOhms,
    PositiveSeconds,
    PositiveSiemens,
    PositiveVolts,
    StrictModel,
    parse_toml,
    refused,
)

VoltsPerDecade = Annotated[NotNegative, Unit("V/decade")]
PRESETS = (
    "hfo2",
    "paper",
    "paper-0.05",
    "paper-0.2",
    "paper-0.3",
    "paper-0.4",
    "paper-0.5",
    "paper-0.5-sound",
    "paper-additive",
    "paper-0.3-additive",
    "paper-0.5-additive",
    "paper-0.5-sound-additive",
)
"""Presets whose numbers come from published figures; one pulse of theirs never undoes what the one
before did. `paper-*` are `paper` with other errors: see docs/device-model.md.
"""
FITTED_PRESETS = ("hfo2-measured", "hfo2-measured-2bit")
"""Presets fitted to measured files by `rram-hil calibrate device-model`: see
docs/device-model.md.
"""
DEFAULT_PRESET = "hfo2-measured"
_GRID_V = 0.005
_LEAST_OHM = 1.0
_STIRRED = 1.1
"""Conductance, over that of the series resistance alone, up to which a stir can have brought it."""


def _monotone(x: list[float], conductance_s: list[float], at: FloatArray) -> FloatArray:
    """ln of a table's conductances along a monotone cubic; constant above its last row.

    Slopes after Fritsch and Butland (1984), three-point ones at the ends. The same numbers as
    scipy's `PchipInterpolator`, whose package takes longer to import than all else that a
    simulator starts with.
    """
    rows, values = np.asarray(x, dtype=np.float64), np.log(conductance_s)
    width = np.diff(rows)
    rise = np.diff(values) / width
    slope = np.full(rows.size, rise[0])
    if rows.size > 2:
        slope[1:-1] = _inner_slopes(width, rise)
        slope[0] = _end_slope(width[:2], rise[:2])
        slope[-1] = _end_slope(width[:-3:-1], rise[:-3:-1])
    bend = (slope[:-1] + slope[1:] - 2 * rise) / width
    square, cube = (rise - slope[:-1]) / width - bend, bend / width
    up_to = np.minimum(at, rows[-1])
    k = np.clip(np.searchsorted(rows, up_to, side="right") - 1, 0, width.size - 1)
    s = up_to - rows[k]
    found = values[k] + slope[k] * s + square[k] * (s * s) + cube[k] * (s * s * s)
    return np.asarray(found, dtype=np.float64)


def _inner_slopes(width: FloatArray, rise: FloatArray) -> FloatArray:
    """Weighted harmonic means of the rises on both sides; zero at an extremum."""
    before, after = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = rise[:-1] * rise[1:] > 0
    one, other = np.where(same, rise[:-1], 1.0), np.where(same, rise[1:], 1.0)
    mean = (before / one + after / other) / (before + after)
    return np.asarray(np.where(same, 1.0 / mean, 0.0), dtype=np.float64)


def _end_slope(width: FloatArray, rise: FloatArray) -> float:
    """Of the parabola through an end and its two neighbours, as far as that stays monotone."""
    slope = ((2 * width[0] + width[1]) * rise[0] - width[0] * rise[1]) / (width[0] + width[1])
    if np.sign(slope) != np.sign(rise[0]):
        return 0.0
    if np.sign(rise[0]) != np.sign(rise[1]) and abs(slope) > 3 * abs(rise[0]):
        return float(3 * rise[0])
    return float(slope)


def _skewed(z: ArrayLike, part: float) -> FloatArray:
    """Of standard normal draws, draws of mean 0 of which `part` is exponential: an end below, a
    tail above.
    """
    normal = np.asarray(z, dtype=np.float64)
    return np.asarray((1 - part) * normal + part * (-np.log(ndtr(-normal)) - 1.0), dtype=np.float64)


def _with_ohm(g_s: FloatArray, more_ohm: FloatArray) -> FloatArray:
    """Conductances (S) with `more_ohm` in series, or without it where that is below zero."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.maximum(1.0 / g_s + more_ohm, _LEAST_OHM), dtype=np.float64)


def _beyond_eighth(chance: FloatArray) -> FloatArray:
    """Of uniform draws: 0 for seven in eight, for the others exponential draws of mean 1."""
    return np.asarray(np.maximum(-np.log(chance) - np.log(8.0), 0.0), dtype=np.float64)


def _laid_over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables of a base with a model's own numbers in place of its."""
    tables = dict(base)
    for key, value in own.items():
        under = base.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        tables[key] = _laid_over(base[key], value) if both else value
    return tables


def _check_table(x: list[float], **columns: list[float]) -> None:
    if len(x) < 2 or any(b <= a for a, b in pairwise(x)):
        raise ValueError("a table's first column must rise and hold 2 or more points")
    for name, column in columns.items():
        if len(column) != len(x):
            raise ValueError(f"{name} must be as long as its table's first column ({len(x)})")


def _check_quantiles(values: list[float]) -> None:
    if len(values) < 2 or any(b < a for a, b in pairwise(values)):
        raise ValueError("quantiles must be 2 or more and must not fall")


class Virgin(StrictModel):
    """A cell before forming."""

    conductance_s: PositiveSiemens = Field(
        description="median; 100 Mohm class, below what the read resolves"
    )
    spread_ln: NotNegative


class Forming(StrictModel):
    """Forming: BL - SL at or above the cell's own threshold, gate open. RADAR: 3.12 to 3.17 V, sd
    0.19 to 0.29, WL 2 V.
    """

    threshold_v: PositiveVolts = Field(
        description="mean threshold of BL - SL at the reference width"
    )
    threshold_sd_v: NotNegativeVolts
    width_v_per_decade: VoltsPerDecade = Field(
        description="the threshold falls by this for ten times the width"
    )
    reference_width_s: PositiveSeconds
    gate_min_v: NotNegativeVolts = Field(
        description="gate over the lower of BL and SL below which nothing forms"
    )
    conductance_s: PositiveSiemens = Field(
        description="median after forming; RADAR: 7.2 to 7.8 kohm"
    )
    spread_ln: NotNegative
    quantile_v: list[PositiveVolts] | None = Field(
        default=None,
        description=(
            "thresholds at evenly spaced probabilities from 0 to 1; replace mean and sd where given"
        ),
    )

    @model_validator(mode="after")
    def _quantiles(self) -> Self:
        if self.quantile_v is not None:
            _check_quantiles(self.quantile_v)
        return self

    def thresholds(self, z: FloatArray) -> FloatArray:
        """Thresholds (V) of cells, from standard normal draws."""
        if self.quantile_v is None:
            return self.threshold_v + self.threshold_sd_v * z
        even = np.linspace(0, 1, len(self.quantile_v))
        return np.asarray(np.interp(ndtr(z), even, self.quantile_v), dtype=np.float64)


class Overdrive(StrictModel):
    """SET pulses that are too strong for a filament: they rearrange it instead of growing it.

    `part` of the cycles bear no more than `gate_v` gate volts where BL - SL is at least `bl_v`; a
    pulse beyond draws the filament's resistance anew (ohm, ln). Measured in ramps of WL; the law
    stands in docs/device-model.md.
    """

    gate_v: list[FiniteVolts]
    part: list[Fraction]
    bl_v: PositiveVolts
    own_ohm: PositiveOhms
    memory: Fraction
    spread_ln: NotNegative

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.gate_v, part=self.part)
        return self


class Creep(StrictModel):
    """Cells that creep towards what the strongest SETs give: in `part` of them a filament that
    grows after a RESET has more in series than `series_ohm`, evenly spread from none to `most_ohm`.
    """

    part: Annotated[Fraction, Field(gt=0)]
    most_ohm: PositiveOhms

    def more_ohm(self, chance: FloatArray) -> FloatArray:
        """What cells have more in series (ohm), from uniform draws; the low ones have most."""
        return np.asarray(
            self.most_ohm * np.maximum(1.0 - chance / self.part, 0.0), dtype=np.float64
        )


class Grow(StrictModel):
    """How a filament, in series with `series_ohm`, grows pulse by pulse, and is stirred.

    `power` joins what the pulses add; `cycle_*` are a cycle's own offsets (gate volts, ln), and
    `stir_ln` by `stir_s` what every SET pulse stirs (ln G by S). The law and what it was fitted to
    stand in docs/device-model.md.
    """

    series_ohm: PositiveOhms
    power: Positive
    cycle_sd_v: NotNegativeVolts
    cycle_sd_ln: NotNegative
    cycle_slow_ln: NotNegative
    stir_s: list[PositiveSiemens]
    stir_ln: list[NotNegative]
    overdrive: Overdrive | None = None
    creep: Creep | None = None

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.stir_s, stir_ln=self.stir_ln)
        return self

    def own_ohm(self, g_s: FloatArray) -> FloatArray:
        """Resistance (ohm) of the filaments alone of cells that read `g_s`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.maximum(1.0 / g_s - self.series_ohm, _LEAST_OHM), dtype=np.float64)

    def grown(
        self, before_s: FloatArray, single_s: FloatArray, widths: float | FloatArray
    ) -> FloatArray:
        """Conductance (S) of cells at `before_s` after a pulse that gives `single_s` to one from
        the high-resistance state.

        `widths`: the pulse's width in reference widths. Never below `before_s`, but that what a
        stir has put a little above 1 / `series_ohm` is not kept.
        """
        inverse = -1.0 / self.power
        both = self.own_ohm(before_s) ** inverse + widths * self.own_ohm(single_s) ** inverse
        after = 1.0 / (self.series_ohm + both ** (-self.power))
        return np.asarray(
            np.where(before_s > _STIRRED / self.series_ohm, before_s, after), dtype=np.float64
        )


class Set(StrictModel):
    """One SET pulse from the high-resistance state: conductance (S) by gate volts, ratio of it by
    BL - SL. Published figures behind the presets stand in docs/device-model.md.
    """

    gate_v: list[FiniteVolts] = Field(description="gate over the lower of BL and SL")
    conductance_s: list[PositiveSiemens]
    bl_v: list[PositiveVolts] = Field(description="BL - SL; below the first there is no SET")
    bl_ratio: list[Positive]
    reference_width_s: PositiveSeconds
    width_v_per_decade: VoltsPerDecade = Field(
        description="gate volts that ten times the width is worth"
    )
    offset_sd_v: NotNegativeVolts = Field(description="device-to-device, gate volts")
    gain_sd_ln: NotNegative = Field(description="device-to-device, ln G")
    jitter_sd_v: NotNegativeVolts = Field(description="cycle-to-cycle, gate volts")
    spread_sd_ln: NotNegative = Field(description="cycle-to-cycle, ln G")
    shift_sd_s: NotNegativeSiemens = Field(
        default=0.0, description="device-to-device, S: the same at every level"
    )
    spread_sd_s: NotNegativeSiemens = Field(
        default=0.0, description="cycle-to-cycle, S: the same at every level"
    )
    settled_gain_v: FiniteVolts = Field(
        default=0.0,
        description=(
            "gate volts more that a settled filament sees: one that is not grown from a RESET"
        ),
    )
    grow: Grow | None = None

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.gate_v, conductance_s=self.conductance_s)
        _check_table(self.conductance_s)
        _check_table(self.bl_v, bl_ratio=self.bl_ratio)
        if self.grow is not None and self.shifts:
            raise ValueError("shift_sd_s and spread_sd_s are not for filaments that grow")
        return self

    @property
    def shifts(self) -> bool:
        """Whether pulses are off by siemens, whatever the level."""
        return self.shift_sd_s > 0 or self.spread_sd_s > 0


class Shallow(StrictModel):
    """Cells that no RESET opens: `part` of them draw around no less than a conductance of their
    own, of the median `floor_s` and spread by `spread_ln`, whatever the volts.

    `link` is the correlation with `Creep`: cells that creep are those that do not open.
    """

    part: Annotated[Fraction, Field(gt=0)]
    floor_s: PositiveSiemens
    spread_ln: NotNegative
    link: Fraction

    def floor_ln(self, z: FloatArray) -> FloatArray:
        """The least ln G that a cell's RESETs draw around, -inf where it opens, from standard
        normal draws; the low ones are most shallow.
        """
        place = np.clip(ndtr(z) / self.part, 0.0, 1.0)
        floor = np.log(self.floor_s) - self.spread_ln * ndtri(np.clip(place, 1e-9, 1 - 1e-9))
        return np.asarray(np.where(place < 1, floor, -np.inf), dtype=np.float64)


class Redraw(StrictModel):
    """RESET as it is measured pulse by pulse: a threshold that the filament sets (`on_v` by
    `on_s`), beyond it a new draw of ln G by every pulse.

    Volts are SL - BL, at most `through_v` by `gate_v`; spreads are in ln G by `volts`. The law and
    what it was fitted to stand in docs/device-model.md.
    """

    gate_v: list[FiniteVolts]
    through_v: list[FiniteVolts]
    on_s: list[PositiveSiemens]
    on_v: list[PositiveVolts]
    heal: Fraction
    heal_from_v: PositiveVolts
    volts: list[PositiveVolts]
    white_ln: list[NotNegative]
    device_ln: list[NotNegative]
    cycle_sd_v: NotNegativeVolts
    lag: NotNegative
    skew: Fraction
    device_skew: Fraction
    offset_skew: Fraction = Field(
        description="the part of `offset_sd_v` that has an end towards low thresholds"
    )
    intact_s: PositiveSiemens
    break_v: NotNegativeVolts
    break_ln: NotNegative
    break_more_ln: Finite = Field(
        default=0.0, description="by how much ln G lies lower after the pulse that breaks"
    )
    reach_ln: Positive
    shallow: Shallow | None = None

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.gate_v, through_v=self.through_v)
        _check_table(self.on_s, on_v=self.on_v)
        _check_table(self.volts, white_ln=self.white_ln, device_ln=self.device_ln)
        return self

    def threshold_v(self, filament_s: ArrayLike) -> FloatArray:
        """Volts at which a filament of `filament_s` breaks."""
        return np.asarray(
            np.interp(np.log(filament_s), np.log(self.on_s), self.on_v), dtype=np.float64
        )


class Wear(StrictModel):
    """Cycles wear a cell: the RESET pulse that breaks its filament opens less, by `less_ln` (ln G)
    in the mean after many times `cycles`; those after it by `again_ln`, alike in all cells. The law
    and what was measured stand in docs/device-model.md.
    """

    cycles: Positive
    less_ln: NotNegative
    again_ln: NotNegative = 0.0


class Reset(StrictModel):
    """One RESET pulse: conductance (S) by SL - BL, which the gate limits to `gate_slope` x (gate -
    `gate_threshold_v`). Published figures behind the presets stand in docs/device-model.md.
    """

    sl_v: list[PositiveVolts]
    conductance_s: list[PositiveSiemens]
    spread_ln: list[NotNegative] = Field(
        description="sd of ln G at each point, devices and cycles together"
    )
    device_share: Fraction = Field(description="part of that variance that stays with the device")
    offset_sd_v: NotNegativeVolts = Field(description="device-to-device, volts")
    jitter_sd_v: NotNegativeVolts = Field(description="cycle-to-cycle, volts")
    reference_width_s: PositiveSeconds
    width_v_per_decade: VoltsPerDecade
    gate_threshold_v: FiniteVolts
    gate_slope: Positive
    floor_s: PositiveSiemens = Field(description="no RESET goes below")
    redraw: Redraw | None = None
    wear: Wear | None = None

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.sl_v, conductance_s=self.conductance_s, spread_ln=self.spread_ln)
        _check_table([-g for g in self.conductance_s])
        return self


class ReadNoise(StrictModel):
    """Noise of one read: Gaussian, sd = hypot(`fraction` x G, `floor_s`), and telegraph cells.

    A telegraph cell reads `telegraph_amplitude` x G lower in the part `telegraph_occupancy` of its
    reads. Measured on tech A at 400 Hz: sd 0.34 to 1.7 uS with telegraph outliers.
    """

    fraction: NotNegative
    floor_s: NotNegativeSiemens
    telegraph_cells: Fraction
    telegraph_occupancy: Fraction
    telegraph_amplitude: Fraction


class Relaxation(StrictModel):
    """Change of conductance with log10 of the seconds since programming, beyond the last point on
    its last slope.

    dG = weight(G / `g_max_s`) x (`body_s` x z1 + `tail_s` x z2^3 / sqrt(15) + `shift_s`) with z1,
    z2 standard normal, drawn once for each programming: heavy tails, robust and plain sd as
    measured. Tech B (Gmax 128 uS): sd 2.27, 3.49, 4.54, 7.78 uS and robust sd 0.53, 0.72, 0.90,
    1.75 uS at 0.01, 0.1, 1, 1e4 s. Tech C (Gmax 40 uS): sd 0.93, 1.56, 2.05, 3.64 uS at 0.01, 0.1,
    1, 1e5 s, mean -0.27 uS at 1 s and -1.45 uS at 1e5 s; its mean (scaled by the sds, 2.2) and its
    dependence on the level (largest in mid-range) are used where tech B has none. Published
    measurements of levels above Gmax are wanting: the weight stays as at Gmax there.
    """

    log10_s: list[Finite] = Field(description="before the first point nothing has relaxed")
    body_s: list[NotNegativeSiemens]
    tail_s: list[NotNegativeSiemens]
    shift_s: list[FiniteSiemens]
    g_max_s: PositiveSiemens
    g_ratio: list[NotNegative]
    weight: list[NotNegative]

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.log10_s, body_s=self.body_s, tail_s=self.tail_s, shift_s=self.shift_s)
        _check_table(self.g_ratio, weight=self.weight)
        return self

    def at(self, age_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Body, tail and shift (S) at an age in seconds."""
        x = np.log10(np.maximum(age_s, 1e-12))
        beyond = np.maximum(x - self.log10_s[-1], 0.0)
        run = self.log10_s[-1] - self.log10_s[-2]

        def column(values: list[float]) -> FloatArray:
            slope = (values[-1] - values[-2]) / run
            return np.asarray(np.interp(x, self.log10_s, values) + slope * beyond, dtype=np.float64)

        return column(self.body_s), column(self.tail_s), column(self.shift_s)


class Drift(StrictModel):
    """Relaxation as it is measured: the whole distribution of the change, by time and conductance.

    `change_s[i][j]` holds the change (S) at `log10_s[i]` and `g_s[j]`, at the probabilities
    `probability`. How it is read between and beyond these stands in docs/device-model.md.
    """

    log10_s: list[Finite]
    onset_decades: Positive
    g_s: list[PositiveSiemens]
    probability: list[Fraction]
    change_s: list[list[list[FiniteSiemens]]]

    @model_validator(mode="after")
    def _tables(self) -> Self:
        _check_table(self.log10_s)
        _check_table(self.g_s)
        _check_table(self.probability)
        shape = (len(self.log10_s), len(self.g_s), len(self.probability))
        if np.shape(self.change_s) != shape:
            raise ValueError(
                f"change_s must be {shape[0]} x {shape[1]} x {shape[2]} (times, conductances,"
                " probabilities)"
            )
        for at_time in self.change_s:
            for row in at_time:
                _check_quantiles(row)
        return self

    @cached_property
    def _table(self) -> FloatArray:
        return np.asarray(self.change_s, dtype=np.float64)

    def change(self, chance: FloatArray, g_s: FloatArray, age_s: FloatArray) -> FloatArray:
        """Change (S) of cells programmed to `g_s` after `age_s` seconds, each at its place `chance`
        in the distribution.
        """
        times = np.asarray(self.log10_s)
        x = np.log10(np.maximum(age_s, 1e-12))
        i = np.clip(np.searchsorted(times, x) - 1, 0, times.size - 2)
        part_t = (x - times[i]) / (times[i + 1] - times[i])
        early = np.clip(1 + (x - times[0]) / self.onset_decades, 0.0, 1.0)
        part_t = np.where(x < times[0], 0.0, part_t)
        places = np.asarray(self.g_s)
        held = np.clip(g_s, places[0], places[-1])
        j = np.clip(np.searchsorted(places, held) - 1, 0, places.size - 2)
        part_g = (held - places[j]) / (places[j + 1] - places[j])
        p = np.asarray(self.probability)
        k = np.clip(np.searchsorted(p, chance) - 1, 0, p.size - 2)
        part_p = np.clip((chance - p[k]) / (p[k + 1] - p[k]), 0.0, 1.0)
        found = np.zeros(np.shape(chance))
        for dt in (0, 1):
            for dg in (0, 1):
                for dp in (0, 1):
                    weight = (
                        (part_t if dt else 1 - part_t)
                        * (part_g if dg else 1 - part_g)
                        * (part_p if dp else 1 - part_p)
                    )
                    found += weight * self._table[i + dt, j + dg, k + dp]
        return np.asarray(found * early * np.minimum(g_s / places[0], 1.0), dtype=np.float64)


class Stuck(StrictModel):
    """Cells that no pulse moves. Stuck high-resistance cells never form.

    `hfo2`: 0.8 % in all, the upper end of the failures that NeuRRAM's write-verify reports (0.18 to
    0.77 %). `paper`: 1.75 % low, 9.04 % high, the rates commonly used with it.
    """

    low_resistance: Fraction
    high_resistance: Fraction
    low_resistance_s: PositiveSiemens
    low_resistance_spread_ln: NotNegative


@dataclass(frozen=True, eq=False)
class Traits:
    """What stays with each cell (device-to-device), shape (n,): its flat index and standard normal
    draws.
    """

    index: IntArray
    stuck: NDArray[np.int8]
    fixed_s: NDArray[np.float32]
    form_threshold_v: NDArray[np.float32]
    gate_offset_v: NDArray[np.float32]
    set_gain_ln: NDArray[np.float32]
    set_shift_s: NDArray[np.float32]
    reset_offset_v: NDArray[np.float32]
    reset_z: NDArray[np.float32]
    creep_ohm: NDArray[np.float32]
    floor_ln: NDArray[np.float32]
    telegraph: NDArray[np.bool_]

    def part(self, at: IntArray) -> Traits:
        """The traits of some of the cells."""
        return Traits(*(getattr(self, f.name)[at] for f in fields(self)))


class DeviceModel(StrictModel):
    """A device model; `load` reads a preset or a file. Everything about one chip follows from it
    and a seed.
    """

    name: str
    virgin: Virgin
    forming: Forming
    set: Set
    reset: Reset
    read: ReadNoise
    stuck: Stuck
    relaxation: Relaxation | None = None
    drift: Drift | None = Field(default=None, description="takes the place of `relaxation`")
    about: str = Field(default="", description="where the numbers come from")
    compliance_v: PositiveVolts = Field(
        default=0.5,
        description=(
            "a compliance current limits a SET to current / this (volts left across a formed cell)"
        ),
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        if self.set.shifts and self.reset.redraw is not None:
            raise ValueError("set.shift_sd_s and set.spread_sd_s do not go with reset.redraw")
        return self

    @classmethod
    def load(cls, name: str, folder: Path = Path(".")) -> DeviceModel:
        """A preset by name, or a TOML file (relative to `folder`), which may say `base = "paper"`:
        what it leaves out is that preset's. Raises `ConfigError` naming what is wrong.
        """
        try:
            return cls.model_validate(cls._tables(name, folder))
        except ValidationError as error:
            raise refused(error, f"device model {name}", cls) from None

    @classmethod
    def _tables(cls, name: str, folder: Path) -> dict[str, Any]:
        if name in (*PRESETS, *FITTED_PRESETS):
            text = (files("rram_hil.simulation") / "presets" / f"{name}.toml").read_text(
                encoding="utf-8"
            )
        else:
            try:
                text = (folder / name).read_text(encoding="utf-8-sig")
            except (OSError, ValueError) as error:
                presets = (*PRESETS, *FITTED_PRESETS)
                raise ConfigError(
                    f"device model {name!r} is neither a preset ({', '.join(presets)}) nor a file:"
                    f" {error}{near(name, presets)}"
                ) from None
        tables = parse_toml(text, f"device model {name}", "a device model")
        base = tables.pop("base", None)
        if base is None:
            return tables
        if base not in (presets := (*PRESETS, *FITTED_PRESETS)):
            raise ConfigError(
                f"device model {name}: base {base!r} is no preset ({', '.join(presets)})"
                f"{near(str(base), presets)}"
            )
        return _laid_over(cls._tables(base, folder), tables)

    @property
    def digest(self) -> str:
        """Hash of every number of the model. Numbers that a model does not use (added later, at
        their defaults) do not count.
        """
        content = self.model_dump()
        for *sections, key in (
            ("set", "grow", "overdrive"),
            ("set", "grow", "creep"),
            ("set", "grow"),
            ("set", "settled_gain_v"),
            ("set", "shift_sd_s"),
            ("set", "spread_sd_s"),
            ("reset", "redraw", "break_more_ln"),
            ("reset", "redraw", "shallow"),
            ("reset", "redraw"),
            ("reset", "wear", "again_ln"),
            ("reset", "wear"),
            ("forming", "quantile_v"),
            ("drift",),
            ("about",),
        ):
            part: dict[str, Any] | None = content
            for section in sections:
                part = None if part is None else part[section]
            if part is not None and not part[key]:
                del part[key]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def switches_from_v(self) -> float:
        """|BL - SL| (V) up to which no pulse of a usual width changes a cell: where the first of
        its laws begins.
        """
        return min(self.set.bl_v[0], self.reset.sl_v[0])

    @property
    def acts_from_v(self) -> float:
        """|BL - SL| (V) up to which nothing changes a cell, however long it stands or however often
        it comes: longer pulses are worth more volts in the laws.
        """
        return 0.6 * self.switches_from_v

    @property
    def relaxes(self) -> bool:
        """Whether the model has a relaxation."""
        return self.drift is not None or self.relaxation is not None

    @cached_property
    def _set_curve(self) -> tuple[FloatArray, FloatArray]:
        """Gate volts on a fine grid and ln G of the nominal SET there (monotone cubic through the
        table).
        """
        grid = np.arange(self.set.gate_v[0], self.set.gate_v[-1] + _GRID_V / 2, _GRID_V)
        return grid, _monotone(self.set.gate_v, self.set.conductance_s, grid)

    @cached_property
    def _reset_curve(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Volts on a fine grid, ln G of the nominal RESET there, and its spread."""
        grid = np.arange(self.reset.sl_v[0], self.reset.sl_v[-1] + _GRID_V / 2, _GRID_V)
        return (
            grid,
            _monotone(self.reset.sl_v, self.reset.conductance_s, grid),
            np.asarray(np.interp(grid, self.reset.sl_v, self.reset.spread_ln), dtype=np.float64),
        )

    def _set_ln(self, gate_v: ArrayLike, bl_v: ArrayLike, width_s: float) -> FloatArray:
        """ln of the conductance that a SET allows; -inf where there is no SET."""
        gate = np.asarray(gate_v, dtype=np.float64) + self._width_v(self.set, width_s)
        volts = np.asarray(bl_v, dtype=np.float64)
        level = np.interp(gate, *self._set_curve) + np.log(
            np.interp(volts, self.set.bl_v, self.set.bl_ratio)
        )
        works = (volts >= self.set.bl_v[0]) & (gate >= self.set.gate_v[0])
        return np.asarray(np.where(works, level, -np.inf), dtype=np.float64)

    def _reset_v(self, sl_v: ArrayLike, gate_v: ArrayLike, width_s: float) -> FloatArray:
        """Volts that reach the cell in a RESET, as the gate lets through, at the reference
        width.
        """
        if (law := self.reset.redraw) is not None:
            through = np.interp(np.asarray(gate_v, dtype=np.float64), law.gate_v, law.through_v)
        else:
            through = self.reset.gate_slope * (
                np.asarray(gate_v, dtype=np.float64) - self.reset.gate_threshold_v
            )
        limited = np.minimum(np.asarray(sl_v, dtype=np.float64), through)
        return np.asarray(limited + self._width_v(self.reset, width_s), dtype=np.float64)

    @staticmethod
    def _width_v(part: Set | Reset | Forming, width_s: float) -> float:
        return part.width_v_per_decade * float(np.log10(width_s / part.reference_width_s))

    def _nominal_ln(self, gate_v: ArrayLike, bl_v: ArrayLike, width_s: float) -> FloatArray:
        """ln G of one SET from the high-resistance state; -inf where there is no SET."""
        level = self._set_ln(gate_v, bl_v, width_s)
        if self.set.grow is None:
            return level
        low = np.full(level.shape, self.reset.conductance_s[-1])
        grown = self.set.grow.grown(low, np.exp(level), width_s / self.set.reference_width_s)
        return np.asarray(np.where(np.isfinite(level), np.log(grown), -np.inf), dtype=np.float64)

    def nominal_set_s(
        self, wl_v: ArrayLike, bl_v: ArrayLike = 2.0, width_s: float = 100e-9
    ) -> FloatArray:
        """Median conductance (S) after one SET from the high-resistance state: what
        characterisation would show.
        """
        return np.asarray(np.exp(self._nominal_ln(wl_v, bl_v, width_s)), dtype=np.float64)

    def nominal_set_gate_v(
        self, target_s: ArrayLike, bl_v: float = 2.0, width_s: float = 100e-9
    ) -> FloatArray:
        """Gate volts whose nominal SET gives `target_s`; held at the ends of the curve."""
        gate = self._set_curve[0]
        wl = gate - self._width_v(self.set, width_s)
        level = self._nominal_ln(wl + 1e-9, bl_v, width_s)
        rising = np.isfinite(level) & np.concatenate(([True], np.diff(level) > 0))
        if not rising.any():
            return np.full(np.shape(target_s), wl[-1])
        found = np.interp(np.log(np.asarray(target_s, dtype=np.float64)), level[rising], wl[rising])
        return np.asarray(found, dtype=np.float64)

    def nominal_set_table(
        self, bl_v: float = 2.0, width_s: float = 100e-9, points: int = 29
    ) -> tuple[FloatArray, FloatArray]:
        """(wl_v, conductance_s) of the nominal SET, evenly spaced in gate volts: the table that a
        recipe carries.
        """
        gate = np.linspace(self.set.gate_v[0], self.set.gate_v[-1], points)
        wl = gate - self._width_v(self.set, width_s)
        return wl, self.nominal_set_s(wl + 1e-12, bl_v, width_s)

    def nominal_reset_s(
        self, sl_v: ArrayLike, wl_v: ArrayLike = 3.5, width_s: float = 200e-9
    ) -> FloatArray:
        """Median conductance (S) to which one RESET brings a cell that is above it; infinite where
        it does nothing.
        """
        volts = self._reset_v(sl_v, wl_v, width_s)
        grid, level, _ = self._reset_curve
        found = np.where(volts < self.reset.sl_v[0], np.inf, np.exp(np.interp(volts, grid, level)))
        return np.asarray(found, dtype=np.float64)

    def nominal_reset_sl_v(self, target_s: ArrayLike, width_s: float = 200e-9) -> FloatArray:
        """SL volts (gate wide open) whose nominal RESET gives `target_s`; held at the ends of the
        curve.
        """
        grid, level, _ = self._reset_curve
        found = np.interp(np.log(np.asarray(target_s, dtype=np.float64)), level[::-1], grid[::-1])
        return np.asarray(found - self._width_v(self.reset, width_s), dtype=np.float64)

    def traits(self, seed: int, index: IntArray) -> Traits:
        """The device-to-device draws of cells, by their flat indices."""

        def z(purpose: Purpose) -> FloatArray:
            return draws.normal(seed, purpose, index)

        chance = draws.uniform(seed, Purpose.STUCK, index)
        low = chance < self.stuck.low_resistance
        high = ~low & (chance < self.stuck.low_resistance + self.stuck.high_resistance)
        virgin = self.virgin.conductance_s * np.exp(self.virgin.spread_ln * z(Purpose.VIRGIN))
        short = self.stuck.low_resistance_s * np.exp(
            self.stuck.low_resistance_spread_ln * z(Purpose.STUCK_LEVEL)
        )
        creep_ohm, floor_ln = self._hard_to_move(seed, index)
        single = np.float32
        return Traits(
            index=np.asarray(index, dtype=np.int64),
            stuck=low.astype(np.int8) - high.astype(np.int8),
            fixed_s=np.where(low, short, virgin).astype(single),
            form_threshold_v=self.forming.thresholds(z(Purpose.FORM_THRESHOLD)).astype(single),
            gate_offset_v=(self.set.offset_sd_v * z(Purpose.GATE_OFFSET)).astype(single),
            set_gain_ln=(self.set.gain_sd_ln * z(Purpose.SET_GAIN)).astype(single),
            set_shift_s=(self.set.shift_sd_s * z(Purpose.SET_SHIFT)).astype(single),
            reset_offset_v=self._reset_offsets(z(Purpose.RESET_OFFSET)).astype(single),
            reset_z=z(Purpose.RESET_GAIN).astype(single),
            creep_ohm=creep_ohm.astype(single),
            floor_ln=floor_ln.astype(single),
            telegraph=draws.uniform(seed, Purpose.TELEGRAPH_CELL, index)
            < self.read.telegraph_cells,
        )

    def _hard_to_move(self, seed: int, index: IntArray) -> tuple[FloatArray, FloatArray]:
        """What each cell has more in series (ohm), and the least ln G that its RESETs draw
        around.
        """
        creep = None if self.set.grow is None else self.set.grow.creep
        shallow = None if self.reset.redraw is None else self.reset.redraw.shallow
        more_ohm, floor_ln = np.zeros(index.shape), np.full(index.shape, -np.inf)
        if creep is not None or shallow is not None:
            chance = draws.uniform(seed, Purpose.CREEP, index)
            if creep is not None:
                more_ohm = creep.more_ohm(chance)
            if shallow is not None:
                z = draws.normal(seed, Purpose.DEPTH, index)
                own = np.sqrt(1 - shallow.link**2) * z
                floor_ln = shallow.floor_ln(shallow.link * ndtri(chance) + own)
        return more_ohm, floor_ln

    def _reset_offsets(self, z: FloatArray) -> FloatArray:
        """Volts by which RESET is easier for each cell, from standard normal draws."""
        skew = 0.0 if self.reset.redraw is None else self.reset.redraw.offset_skew
        if skew == 0:
            return self.reset.offset_sd_v * z
        return -self.reset.offset_sd_v * _skewed(-z, skew)

    def after_set(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        g_s: FloatArray,
        formed: NDArray[np.bool_],
        bl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: float | FloatArray = np.inf,
        settled_s: FloatArray | None = None,
        cycle: IntArray | None = None,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Conductance (S) and formed flag after a pulse with BL - SL = `bl_v` > 0 and the gate
        `gate_v` above SL.

        Never below `g_s` (but for what `Grow` stirs and `Overdrive` rearranges). `cap_s` is what a
        compliance current allows, one for all cells or one each. `settled_s` says of which cells
        the filament is settled, and how large it is (S; NaN: grown by these pulses), `cycle` which
        RESET it grows from (any number that changes with each; without it, each pulse counts as
        one). Stuck cells stay.
        """
        threshold = traits.form_threshold_v - self._width_v(self.forming, width_s)
        forms = (
            ~formed
            & (bl_v >= threshold)
            & (gate_v >= self.forming.gate_min_v)
            & (traits.stuck == 0)
        )
        after = np.array(g_s, dtype=np.float64)
        cap = np.broadcast_to(np.asarray(cap_s, dtype=np.float64), after.shape)
        if (at := np.flatnonzero(forms)).size:
            z = draws.normal(seed, Purpose.FORM_LEVEL, traits.index[at], event[at])
            level_s = self.forming.conductance_s * np.exp(self.forming.spread_ln * z)
            after[at] = np.maximum(after[at], np.minimum(level_s, cap[at]))
        if (at := np.flatnonzero(formed)).size:
            settled = np.full(at.size, np.nan) if settled_s is None else settled_s[at]
            when = event[at] if cycle is None else cycle[at]
            mine = (seed, traits.part(at), event[at])
            if self.set.grow is None:
                level_ln = self._set_level_ln(*mine, bl_v[at], gate_v[at], width_s)
                level_s = np.exp(level_ln + traits.set_gain_ln[at])
                if self.set.shifts:
                    shift = self._shift_s(seed, traits.part(at), when)
                    level_s = np.where(np.isfinite(level_ln), level_s + shift, level_s)
                after[at] = np.maximum(after[at], np.minimum(level_s, cap[at]))
            else:
                after[at] = self._grown(
                    *mine,
                    when,
                    after[at],
                    np.isnan(settled),
                    bl_v[at],
                    gate_v[at],
                    width_s,
                    cap[at],
                )
        return after, formed | forms

    def _shift_s(self, seed: int, traits: Traits, cycle: IntArray) -> FloatArray:
        """By how many siemens cells are off in a cycle, whatever they are programmed to."""
        z = draws.normal(seed, Purpose.CYCLE_SHIFT, traits.index, cycle)
        return np.asarray(traits.set_shift_s + self.set.spread_sd_s * z, dtype=np.float64)

    def _set_level_ln(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        bl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
    ) -> FloatArray:
        """ln G of a SET from the high-resistance state, with all but the cell's own gain."""
        gate = gate_v + traits.gate_offset_v
        if self.set.jitter_sd_v > 0:
            gate = gate + self.set.jitter_sd_v * draws.normal(
                seed, Purpose.SET_JITTER, traits.index, event
            )
        level = self._set_ln(gate, bl_v, width_s)
        if self.set.spread_sd_ln > 0:
            level = level + self.set.spread_sd_ln * draws.normal(
                seed, Purpose.SET_SPREAD, traits.index, event
            )
        return level

    def _grown(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        cycle: IntArray,
        before_s: FloatArray,
        grown: NDArray[np.bool_],
        bl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: FloatArray,
    ) -> FloatArray:
        """What one SET pulse makes of `before_s` (S) where filaments grow; `grown`: by these
        pulses, else a settled one.
        """
        grow = self.set.grow
        assert grow is not None
        index = traits.index
        own_v = grow.cycle_sd_v * draws.normal(seed, Purpose.CYCLE_OFFSET, index, cycle)
        own_ln = grow.cycle_sd_ln * draws.normal(seed, Purpose.CYCLE_GAIN, index, cycle)
        if grow.cycle_slow_ln > 0:
            own_ln = own_ln - grow.cycle_slow_ln * _beyond_eighth(
                draws.uniform(seed, Purpose.CYCLE_TAIL, index, cycle)
            )
        own_gate = gate_v + np.where(grown, own_v, self.set.settled_gain_v)
        single = np.exp(self._set_level_ln(seed, traits, event, bl_v, own_gate, width_s))
        strength = np.exp(
            (traits.set_gain_ln.astype(np.float64) + np.where(grown, own_ln, 0.0)) / grow.power
        )
        widths = strength * width_s / self.set.reference_width_s
        # What creeping cells have more in series is taken off, and put back below.
        more_ohm = np.where(grown, traits.creep_ohm, np.float32(0)).astype(np.float64)
        inner = before_s if grow.creep is None else _with_ohm(before_s, -more_ohm)
        after = grow.grown(inner, single, widths)
        if (law := grow.overdrive) is not None:
            chance = draws.uniform(seed, Purpose.OVERDRIVE, index, cycle)
            beyond = grown & (bl_v >= law.bl_v) & (chance < np.interp(gate_v, law.gate_v, law.part))
            once = grow.own_ohm(single) * widths ** (-grow.power)
            r = np.log(np.minimum(grow.own_ohm(inner), once) / law.own_ohm)
            z = draws.normal(seed, Purpose.OVERDRIVE_STEP, index, event)
            again = 1.0 / (
                grow.series_ohm + law.own_ohm * np.exp(law.memory * r + law.spread_ln * z)
            )
            after = np.where(beyond, again, after)
        if grow.creep is not None:
            after = np.where(after == inner, before_s, _with_ohm(after, more_ohm))
        capped = np.where(after > before_s, np.maximum(before_s, np.minimum(after, cap_s)), after)
        z = draws.normal(seed, Purpose.SET_STIR, index, event)
        sd = np.interp(np.log(capped), np.log(grow.stir_s), grow.stir_ln)
        stirred = np.minimum(capped * np.exp(sd * z), np.maximum(cap_s, before_s))
        return np.asarray(
            np.where((traits.stuck == 0) & (bl_v >= self.set.bl_v[0]), stirred, before_s),
            dtype=np.float64,
        )

    def after_reset(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        g_s: FloatArray,
        formed: NDArray[np.bool_],
        sl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        settled_s: FloatArray | None = None,
        cycle: IntArray | None = None,
        broken_s: FloatArray | None = None,
        cycles_done: IntArray | None = None,
    ) -> FloatArray:
        """Conductance (S) after a pulse with SL - BL = `sl_v` > 0 and the gate `gate_v` above BL.

        Never above `g_s` but where the model has a `Redraw`. `settled_s` and `cycle` as in
        `after_set`; `broken_s` is how large (S) the filament was that a RESET of this cycle broke,
        0 for one that is whole (see `broken_after`); `cycles_done` is how many such cycles the cell
        has behind it (`Wear`; without it, none).
        """
        if self.reset.redraw is not None:
            whole_s = g_s if settled_s is None else self._whole(g_s, settled_s)
            broken = np.zeros(g_s.shape) if broken_s is None else broken_s
            when = event if cycle is None else cycle
            worn = self._worn(seed, traits.index, broken, cycles_done)
            moved = self._redrawn(
                seed, traits, event, when, g_s, whole_s, broken, worn, sl_v, gate_v, width_s
            )
            return np.asarray(
                np.where(formed & (traits.stuck == 0) & (sl_v > 0), moved, g_s), dtype=np.float64
            )
        z = np.sqrt(self.reset.device_share) * traits.reset_z
        z = z + np.sqrt(1 - self.reset.device_share) * draws.normal(
            seed, Purpose.RESET_SPREAD, traits.index, event
        )
        volts = self._reset_v(sl_v, gate_v, width_s)
        works = volts >= self.reset.sl_v[0]
        volts = volts + traits.reset_offset_v
        if self.reset.jitter_sd_v > 0:
            volts = volts + self.reset.jitter_sd_v * draws.normal(
                seed, Purpose.RESET_JITTER, traits.index, event
            )
        grid, level, spread = self._reset_curve
        reached = np.exp(np.interp(volts, grid, level) + np.interp(volts, grid, spread) * z)
        if self.set.shifts:
            # Its event is the number of the cycle that it begins: the next SET is off by as much.
            left = np.maximum(self._shift_s(seed, traits, event), 0.0)
            whole = np.ones(g_s.shape) if broken_s is None else broken_s == 0
            reached = reached + np.where(whole, left, 0.0)
        after = np.minimum(g_s, np.maximum(reached, self.reset.floor_s))
        return np.asarray(np.where(works & formed, after, g_s), dtype=np.float64)

    def _redrawn(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        cycle: IntArray,
        g_s: FloatArray,
        whole_s: FloatArray,
        broken_s: FloatArray,
        worn_ln: float | FloatArray,
        sl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
    ) -> FloatArray:
        law = self.reset.redraw
        assert law is not None
        volts = self._reset_v(sl_v, gate_v, width_s) + traits.reset_offset_v
        volts = volts + law.cycle_sd_v * draws.normal(
            seed, Purpose.RESET_CYCLE, traits.index, cycle
        )
        broken = broken_s > 0
        filament = np.where(broken, broken_s, np.maximum(whole_s, 1e-12))
        on = law.threshold_v(filament)
        beyond = volts - law.lag * (on - law.threshold_v(law.intact_s))
        w = _skewed(draws.normal(seed, Purpose.RESET_SPREAD, traits.index, event), law.skew)
        own = np.interp(beyond, law.volts, law.device_ln) * _skewed(traits.reset_z, law.device_skew)
        grid, level, _ = self._reset_curve
        around = np.interp(beyond, grid, level) + own + np.where(broken, worn_ln, 0.0)
        around = np.maximum(around, traits.floor_ln)
        white = np.interp(beyond, law.volts, law.white_ln) * w
        drawn = around + white
        x = np.log(np.maximum(g_s, 1e-12))
        above = volts - on
        hard = np.clip(above / max(law.break_v, 1e-6), 0.0, 1.0) * (filament >= law.intact_s)
        z = draws.normal(seed, Purpose.RESET_BREAK, traits.index, event)
        drawn = np.where(
            broken, drawn, drawn + hard * (law.break_ln * z - law.break_more_ln + worn_ln)
        )
        drawn = np.maximum(drawn, traits.floor_ln + white)
        healed = x + np.where(volts >= law.heal_from_v, law.heal, 0.0) * np.maximum(
            np.log(filament) - x, 0.0
        )
        first = np.where(above >= 0, np.minimum(drawn, x), healed)
        again = np.where(
            around - x <= law.reach_ln, np.minimum(drawn, np.maximum(np.log(filament), x)), x
        )
        moved = np.where(broken, again, first)
        # A state that is left as it is must come back as the same number.
        after = np.where(moved == x, g_s, np.exp(np.maximum(moved, np.log(self.reset.floor_s))))
        return np.asarray(after, dtype=np.float64)

    def _worn(
        self, seed: int, index: IntArray, broken_s: FloatArray, cycles_done: IntArray | None
    ) -> float | FloatArray:
        """By how much (ln G) wear lets each cell's filament break less, or, where it is broken,
        lets a pulse open less.
        """
        law = self.reset.wear
        if law is None or cycles_done is None:
            return 0.0
        own = law.less_ln * -np.log(draws.uniform(seed, Purpose.WEAR, index))
        part = -np.expm1(-cycles_done / law.cycles)
        return np.asarray(np.where(broken_s > 0, law.again_ln, own) * part, dtype=np.float64)

    @staticmethod
    def _whole(g_s: FloatArray, settled_s: FloatArray) -> FloatArray:
        """Size (S) of filaments that are whole: the settled one's, else what the cell reads."""
        return np.where(np.isnan(settled_s), g_s, settled_s)

    def broken_after(
        self,
        polarity: int,
        before_s: FloatArray,
        after_s: FloatArray,
        broken_s: FloatArray,
        settled_s: FloatArray | None = None,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """How large (S) the filaments were that are broken after a pulse of a polarity (1: SET), 0
        where they are whole.

        Also, of which a cycle begins: with the first RESET that lowers a cell or, where a cycle's
        error is in siemens, with every RESET. A SET that raises one grows a new filament.
        `broken_s` and `settled_s` as in `after_reset`.
        """
        if polarity > 0:
            return np.where(after_s > before_s, 0.0, broken_s), np.zeros(
                before_s.shape, dtype=np.bool_
            )
        broke = (broken_s == 0) & (after_s < before_s)
        whole_s = before_s if settled_s is None else self._whole(before_s, settled_s)
        begins = np.ones(broke.shape, dtype=np.bool_) if self.set.shifts else broke
        return np.where(broke, whole_s, broken_s), begins

    def relaxed(
        self, seed: int, index: IntArray, event: IntArray, g_s: FloatArray, age_s: FloatArray
    ) -> FloatArray:
        """Conductance (S) `age_s` seconds after a programming to `g_s` that was event number
        `event` of each cell.
        """
        if self.drift is not None:
            if np.max(age_s, initial=0.0) <= 10.0 ** (
                self.drift.log10_s[0] - self.drift.onset_decades
            ):
                return np.array(g_s, dtype=np.float64)
            chance = draws.uniform(seed, Purpose.RELAX_PLACE, index, event)
            change = self.drift.change(
                chance, np.asarray(g_s, dtype=np.float64), np.asarray(age_s, dtype=np.float64)
            )
            return np.asarray(np.maximum(g_s + change, 0.05 * g_s), dtype=np.float64)
        law = self.relaxation
        if law is None:
            return g_s
        body, tail, shift = law.at(age_s)
        z1 = draws.normal(seed, Purpose.RELAX_BODY, index, event)
        z2 = draws.normal(seed, Purpose.RELAX_TAIL, index, event)
        weight = np.interp(g_s / law.g_max_s, law.g_ratio, law.weight)
        change = weight * (body * z1 + tail * z2**3 / np.sqrt(15.0) + shift)
        return np.asarray(np.maximum(g_s + change, 0.05 * g_s), dtype=np.float64)

    def noise_s(self, g_s: FloatArray) -> FloatArray:
        """Standard deviation (S) of the Gaussian noise of one read."""
        return np.asarray(np.hypot(self.read.fraction * g_s, self.read.floor_s), dtype=np.float64)

    def read_moments(
        self, telegraph: NDArray[np.bool_], g_s: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Mean (S) and variance (S^2) of what reads see of conductances (S) of cells of which
        `telegraph` switch.
        """
        mean, variance = g_s, (self.read.fraction * g_s) ** 2 + self.read.floor_s**2
        if self.read.telegraph_cells > 0:
            part = self.read.telegraph_occupancy
            step = np.where(telegraph, self.read.telegraph_amplitude * g_s, 0.0)
            mean, variance = g_s - part * step, variance + part * (1 - part) * step**2
        return mean, variance

    def as_read(self, seed: int, traits: Traits, event: IntArray, g_s: FloatArray) -> FloatArray:
        """What one read sees of a conductance (S): noise and telegraph steps."""
        seen = g_s + self.noise_s(g_s) * draws.normal(seed, Purpose.READ, traits.index, event)
        if self.read.telegraph_cells > 0:
            trapped = (
                draws.uniform(seed, Purpose.TELEGRAPH, traits.index, event)
                < self.read.telegraph_occupancy
            )
            seen = seen - np.where(
                trapped & traits.telegraph, self.read.telegraph_amplitude * g_s, 0.0
            )
        return np.asarray(seen, dtype=np.float64)
