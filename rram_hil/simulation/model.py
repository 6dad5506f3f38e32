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
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError, model_validator

from rram_hil.errors import ConfigError, near
from rram_hil.simulation import draws
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
if TYPE_CHECKING:
    from rram_hil.simulation.kernels import DriftLaw, ReadLaw, ResetLaw, SetLaw, TraitsLaw

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


def _table(x: ArrayLike, y: ArrayLike) -> FloatArray:
    """Rows x, y and slopes, as the kernels read a table."""
    rows, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return np.stack([rows, values, np.append(np.diff(values) / np.diff(rows), 0.0)])


_NO_TABLE = _table([0.0, 1.0], [0.0, 0.0])


def _column(values: ArrayLike, shape: tuple[int, ...], kind: Any = np.float64) -> NDArray[Any]:
    """One value a cell, as the kernels take them."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype=kind), shape))


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


class Grow(StrictModel):
    """How a filament, in series with `series_ohm`, grows pulse by pulse, and is stirred.

    `power` joins what the pulses add; `cycle_*` are a cycle's own offsets (gate volts, ln), and
    `stir_ln` by `stir_s` what every SET pulse stirs (ln G by S). The law and what it was fitted to
    stand in docs/device-model.md.
    """

    series_ohm: PositiveOhms
    power: Annotated[Positive, Field(ge=0.05, le=10)]
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


_TRAITS: dict[str, type[np.generic]] = {
    name: {"stuck": np.int8, "telegraph": np.bool_}.get(name, np.float32)
    for name in (f.name for f in fields(Traits))
    if name != "index"
}
"""What the columns of `Traits` after the index are made of."""


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

    # The model's numbers as the compiled laws take them.

    @cached_property
    def _traits_law(self) -> TraitsLaw:
        from rram_hil.simulation.kernels import TraitsLaw

        quantiles = self.forming.quantile_v
        law = self.reset.redraw
        creep = None if self.set.grow is None else self.set.grow.creep
        shallow = None if law is None else law.shallow
        return TraitsLaw(
            stuck_low=self.stuck.low_resistance,
            stuck_high=self.stuck.high_resistance,
            stuck_s=self.stuck.low_resistance_s,
            stuck_spread_ln=self.stuck.low_resistance_spread_ln,
            virgin_s=self.virgin.conductance_s,
            virgin_spread_ln=self.virgin.spread_ln,
            threshold_v=self.forming.threshold_v,
            threshold_sd_v=self.forming.threshold_sd_v,
            threshold=_NO_TABLE
            if quantiles is None
            else _table(np.linspace(0, 1, len(quantiles)), quantiles),
            has_quantiles=quantiles is not None,
            gate_sd_v=self.set.offset_sd_v,
            gain_sd_ln=self.set.gain_sd_ln,
            shift_sd_s=self.set.shift_sd_s,
            offset_sd_v=self.reset.offset_sd_v,
            offset_skew=0.0 if law is None else law.offset_skew,
            reset_skew=0.0 if law is None else law.device_skew,
            creeps=creep is not None,
            creep_part=1.0 if creep is None else creep.part,
            creep_ohm=0.0 if creep is None else creep.most_ohm,
            shallow=shallow is not None,
            shallow_part=1.0 if shallow is None else shallow.part,
            shallow_s=1.0 if shallow is None else shallow.floor_s,
            shallow_spread_ln=0.0 if shallow is None else shallow.spread_ln,
            link=0.0 if shallow is None else shallow.link,
            telegraph_cells=self.read.telegraph_cells,
        )

    @cached_property
    def _any_set_law(self) -> SetLaw:
        """For pulses of the reference widths."""
        from rram_hil.simulation.kernels import SetLaw

        grow = self.set.grow
        over = None if grow is None else grow.overdrive
        series_ohm = 0.0 if grow is None else grow.series_ohm
        return SetLaw(
            form_width_v=0.0,
            gate_min_v=self.forming.gate_min_v,
            form_s=self.forming.conductance_s,
            form_spread_ln=self.forming.spread_ln,
            width_v=0.0,
            widths=1.0,
            gate=_table(*self._set_curve),
            bl=_table(self.set.bl_v, self.set.bl_ratio),
            jitter_sd_v=self.set.jitter_sd_v,
            spread_sd_ln=self.set.spread_sd_ln,
            shifts=self.set.shifts,
            shift_spread_s=self.set.spread_sd_s,
            grows=grow is not None,
            settled_gain_v=self.set.settled_gain_v,
            series_ohm=series_ohm,
            least_ohm=_LEAST_OHM,
            stirred_s=_STIRRED / series_ohm if series_ohm > 0 else np.inf,
            power=1.0 if grow is None else grow.power,
            cycle_sd_v=0.0 if grow is None else grow.cycle_sd_v,
            cycle_sd_ln=0.0 if grow is None else grow.cycle_sd_ln,
            cycle_slow_ln=0.0 if grow is None else grow.cycle_slow_ln,
            stir=_NO_TABLE if grow is None else _table(np.log(grow.stir_s), grow.stir_ln),
            creeps=grow is not None and grow.creep is not None,
            overdrives=over is not None,
            part=_NO_TABLE if over is None else _table(over.gate_v, over.part),
            over_bl_v=0.0 if over is None else over.bl_v,
            over_ohm=1.0 if over is None else over.own_ohm,
            memory=0.0 if over is None else over.memory,
            over_spread_ln=0.0 if over is None else over.spread_ln,
        )

    def _set_law(self, width_s: float) -> SetLaw:
        return self._any_set_law._replace(
            form_width_v=self._width_v(self.forming, width_s),
            width_v=self._width_v(self.set, width_s),
            widths=width_s / self.set.reference_width_s,
        )

    @cached_property
    def _any_reset_law(self) -> ResetLaw:
        """For pulses of the reference width."""
        from rram_hil.simulation.kernels import ResetLaw

        reset, law = self.reset, self.reset.redraw
        grid, level, spread = self._reset_curve
        threshold = (
            ([0.0, 1.0], [0.0, 0.0]) if law is None else (np.log(law.on_s), np.asarray(law.on_v))
        )
        return ResetLaw(
            width_v=0.0,
            first_v=reset.sl_v[0],
            curve=_table(grid, level),
            spread=_table(grid, spread),
            own_share=float(np.sqrt(reset.device_share)),
            white_share=float(np.sqrt(1 - reset.device_share)),
            jitter_sd_v=reset.jitter_sd_v,
            gate_threshold_v=reset.gate_threshold_v,
            gate_slope=reset.gate_slope,
            floor_s=reset.floor_s,
            shifts=self.set.shifts,
            shift_spread_s=self.set.spread_sd_s,
            redraws=law is not None,
            through=_NO_TABLE if law is None else _table(law.gate_v, law.through_v),
            threshold=_table(*threshold),
            intact_v=0.0 if law is None else float(np.interp(np.log(law.intact_s), *threshold)),
            heal=0.0 if law is None else law.heal,
            heal_from_v=0.0 if law is None else law.heal_from_v,
            white=_NO_TABLE if law is None else _table(law.volts, law.white_ln),
            device=_NO_TABLE if law is None else _table(law.volts, law.device_ln),
            cycle_sd_v=0.0 if law is None else law.cycle_sd_v,
            lag=0.0 if law is None else law.lag,
            skew=0.0 if law is None else law.skew,
            intact_s=0.0 if law is None else law.intact_s,
            break_v=0.0 if law is None else law.break_v,
            break_ln=0.0 if law is None else law.break_ln,
            break_more_ln=0.0 if law is None else law.break_more_ln,
            reach_ln=1.0 if law is None else law.reach_ln,
            wear_cycles=1.0 if reset.wear is None else reset.wear.cycles,
            wear_ln=0.0 if reset.wear is None else reset.wear.less_ln,
            wear_again_ln=0.0 if reset.wear is None else reset.wear.again_ln,
        )

    def _reset_law(self, width_s: float) -> ResetLaw:
        return self._any_reset_law._replace(width_v=self._width_v(self.reset, width_s))

    @cached_property
    def _drift_law(self) -> DriftLaw:
        from rram_hil.simulation.kernels import DriftLaw

        drift, law = self.drift, self.relaxation
        even = np.array([0.0, 1.0])
        columns = [[0.0, 0.0]] * 3 if law is None else [law.body_s, law.tail_s, law.shift_s]
        x = even if law is None else np.asarray(law.log10_s)
        tables = [_table(x, column) for column in columns]
        return DriftLaw(
            drifts=drift is not None,
            from_s=-1.0 if drift is None else 10.0 ** (drift.log10_s[0] - drift.onset_decades),
            log10_s=even if drift is None else np.asarray(drift.log10_s),
            onset_decades=1.0 if drift is None else drift.onset_decades,
            place_s=even if drift is None else np.asarray(drift.g_s),
            probability=even if drift is None else np.asarray(drift.probability),
            change_s=np.zeros((1, 1, 1)) if drift is None else np.asarray(drift.change_s),
            body=tables[0],
            tail=tables[1],
            shift=tables[2],
            beyond=np.array([table[2, -2] for table in tables]),
            g_max_s=1.0 if law is None else law.g_max_s,
            weight=_NO_TABLE if law is None else _table(law.g_ratio, law.weight),
        )

    @cached_property
    def _read_law(self) -> ReadLaw:
        from rram_hil.simulation.kernels import ReadLaw

        read = self.read
        return ReadLaw(
            fraction=read.fraction,
            floor_s=read.floor_s,
            telegraphs=read.telegraph_cells > 0,
            occupancy=read.telegraph_occupancy,
            amplitude=read.telegraph_amplitude,
        )

    @staticmethod
    def _width_v(part: Set | Reset | Forming, width_s: float) -> float:
        return part.width_v_per_decade * float(np.log10(width_s / part.reference_width_s))

    def _nominal_ln(self, gate_v: ArrayLike, bl_v: ArrayLike, width_s: float) -> FloatArray:
        """ln G of one SET from the high-resistance state; -inf where there is no SET."""
        from rram_hil.simulation import kernels

        gate, bl = np.broadcast_arrays(np.asarray(gate_v, dtype=np.float64), bl_v)
        found = np.empty(gate.shape)
        kernels.nominal_ln(
            self._set_law(width_s),
            self.reset.conductance_s[-1],
            _column(gate.ravel(), (gate.size,)),
            _column(bl.ravel(), (gate.size,)),
            found.reshape(-1),
        )
        return found

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
        from rram_hil.simulation import kernels

        sl, gate = np.broadcast_arrays(np.asarray(sl_v, dtype=np.float64), wl_v)
        volts, level = np.empty(sl.shape), np.empty(sl.shape)
        kernels.reset_volts(
            self._reset_law(width_s),
            _column(sl.ravel(), (sl.size,)),
            _column(gate.ravel(), (sl.size,)),
            volts.reshape(-1),
            level.reshape(-1),
        )
        found = np.where(volts < self.reset.sl_v[0], np.inf, np.exp(level))
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
        from rram_hil.simulation import kernels

        cells = np.ascontiguousarray(index, dtype=np.int64)
        columns = [np.empty(cells.size, dtype=kind) for kind in _TRAITS.values()]
        kernels.traits(self._traits_law, draws.key(seed), cells, *columns)
        return Traits(cells, *columns)

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
        from rram_hil.simulation import kernels

        shape = (traits.index.size,)
        law, when = self._set_law(width_s), _column(event, shape, np.int64)
        cycles = when if cycle is None else _column(cycle, shape, np.int64)
        before, was_formed = _column(g_s, shape), _column(formed, shape, np.bool_)
        volts = _column(bl_v, shape), _column(gate_v, shape), _column(cap_s, shape)
        after, now_formed = np.empty(shape), np.empty(shape, dtype=np.bool_)
        mine = law, draws.key(seed), traits.index, when
        kernels.form(
            *mine,
            traits.stuck,
            traits.form_threshold_v,
            before,
            was_formed,
            *volts,
            after,
            now_formed,
        )
        if not was_formed.any():
            return after, now_formed
        spreads = traits.gate_offset_v, traits.set_gain_ln
        if self.set.grow is None:
            kernels.set_to_level(
                *mine, cycles, *spreads, traits.set_shift_s, before, was_formed, *volts, after
            )
        else:
            settled = _column(np.nan if settled_s is None else settled_s, shape)
            kernels.grow(
                *mine,
                cycles,
                traits.stuck,
                *spreads,
                traits.creep_ohm,
                before,
                was_formed,
                *volts,
                settled,
                after,
            )
        return after, now_formed

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
        from rram_hil.simulation import kernels

        shape = (traits.index.size,)
        law, when = self._reset_law(width_s), _column(event, shape, np.int64)
        mine = law, draws.key(seed), traits.index, when
        state = _column(g_s, shape), _column(formed, shape, np.bool_)
        volts = _column(sl_v, shape), _column(gate_v, shape)
        broken = _column(0.0 if broken_s is None else broken_s, shape)
        after = np.empty(shape)
        if self.reset.redraw is None:
            kernels.reset_to_level(
                *mine,
                traits.reset_offset_v,
                traits.reset_z,
                traits.set_shift_s,
                *state,
                *volts,
                broken,
                after,
            )
        else:
            kernels.redraw(
                *mine,
                when if cycle is None else _column(cycle, shape, np.int64),
                traits.stuck,
                traits.reset_offset_v,
                traits.reset_z,
                traits.floor_ln,
                *state,
                *volts,
                _column(np.nan if settled_s is None else settled_s, shape),
                broken,
                _column(0 if cycles_done is None else cycles_done, shape, np.int64),
                after,
            )
        return after

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
        from rram_hil.simulation import kernels

        shape = before_s.shape
        now_broken, broke = np.empty(shape), np.empty(shape, dtype=np.bool_)
        kernels.broken_after(
            polarity > 0,
            _column(before_s, shape),
            _column(after_s, shape),
            _column(broken_s, shape),
            _column(np.nan if settled_s is None else settled_s, shape),
            now_broken,
            broke,
        )
        if self.set.shifts:
            broke[:] = polarity < 0
        return now_broken, broke

    def prepare(self) -> None:
        """Have every law ready. The first time on a machine they are compiled, which takes some ten
        seconds, and no pulse on a bench is to wait for that.
        """
        index = np.zeros(1, dtype=np.int64)
        g, none, formed = np.full(1, 1e-6), np.zeros(1), np.ones(1, dtype=np.bool_)
        traits = self.traits(0, index)
        pulse = (0, traits, index, g, formed, none, none, 1e-7)
        self.broken_after(1, g, self.after_set(*pulse)[0], none)
        self.after_reset(*pulse)
        self.as_read(0, traits, index, self.relaxed(0, index, index, g, none))

    def relaxed(
        self, seed: int, index: IntArray, event: IntArray, g_s: FloatArray, age_s: FloatArray
    ) -> FloatArray:
        """Conductance (S) `age_s` seconds after a programming to `g_s` that was event number
        `event` of each cell; `g_s` itself where that is 0: never programmed.
        """
        if not self.relaxes:
            return g_s
        from rram_hil.simulation import kernels

        shape = index.shape
        found = np.empty(shape)
        kernels.relaxed(
            self._drift_law,
            draws.key(seed),
            _column(index, shape, np.int64),
            _column(event, shape, np.int64),
            _column(g_s, shape),
            _column(age_s, shape),
            found,
        )
        return found

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
        from rram_hil.simulation import kernels

        shape = traits.index.shape
        seen = np.empty(shape)
        kernels.readings(
            self._read_law,
            draws.key(seed),
            traits.index,
            _column(event, shape, np.int64),
            traits.telegraph,
            _column(g_s, shape),
            seen,
        )
        return seen
