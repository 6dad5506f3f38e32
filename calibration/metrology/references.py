"""Resistors of known value in the places of cells, and how they are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from rram_hil.array import Apply, Cells, Geometry, Status
from rram_hil.engine.protocol import Plan, Setting
from rram_hil.errors import ConfigError
from rram_hil.types import FloatArray
from rram_hil.validation import NotNegativeOhms, PositiveAmperes, PositiveOhms, StrictModel

from .gum import NORMAL, freedom_of, mean_of, refuse_contradictions, solve


def _rising(values: list[float]) -> list[float]:
    if values != sorted(set(values)):
        raise ValueError("ranges must rise")
    return values


Ranges = Annotated[list[PositiveAmperes], Field(min_length=1), AfterValidator(_rising)]
BOARD_RANGES_A = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
"""Full scales of the test-chip board's single readings, ascending."""


class Reference(StrictModel):
    """A resistor of known value in the place of a cell: ohms between the terminals of the cell's
    place, 95 % half-width.
    """

    tile: Annotated[int, Field(ge=0)] = 0
    row: Annotated[int, Field(ge=0)]
    column: Annotated[int, Field(ge=0)]
    ohm: PositiveOhms
    half_width_ohm: NotNegativeOhms


def cells_of(references: list[Reference], geometry: Geometry) -> Cells:
    """The places of references. Raises `ConfigError` for one off the chip or named twice."""
    places = [(r.tile, r.row, r.column) for r in references]
    for k, (tile, row, column) in enumerate(places):
        if not (tile < geometry.tiles and row < geometry.rows and column < geometry.columns):
            raise ConfigError(f"references.{k}: ({tile}, {row}, {column}) is off the chip")
    if len(set(places)) != len(places):
        raise ConfigError("references: a place is given twice")
    return Cells.of(places)


def told_of(references: list[Reference]) -> str:
    """How a calibration file names its references."""
    return ", ".join(
        f"{r.ohm:.9g} ohm +- {r.half_width_ohm:.2g} at ({r.tile}, {r.row}, {r.column})"
        for r in references
    )


def excess_of(
    setting: Setting,
    references: list[Reference],
    levels: int,
    repeat: int,
    lowest_v: float,
    ranges_a: list[float],
) -> Plan[tuple[FloatArray, FloatArray, FloatArray, FloatArray, int]]:
    """Volts over current minus the resistor's own ohms, at `levels` levels of both signs up to the
    read limit.

    Returns, of shape (references, levels): the excess (ohm), the variance of its mean from the
    scatter, the variance of what the ADC rounds away, the common error of all readings (ohm, one
    standard deviation); and the scatter's degrees of freedom.
    """
    cells = cells_of(references, setting.geometry)
    volts = read_levels(setting, levels, lowest_v)
    steps = tuple(replace(setting.read.without_gate(), bl_v=float(v)) for v in volts)
    operation = Apply(cells, steps, repeat=repeat, label="references")
    result = yield from operation
    n, k = len(cells), volts.size
    siemens = np.where(result.status == Status.OK, result.conductance_s, np.nan)
    with np.errstate(divide="ignore"):
        ohm = (1 / siemens).reshape(n, repeat, k).transpose(0, 2, 1)
    if not np.isfinite(ohm).any(axis=2).all():
        bad = int(np.argmin(np.isfinite(ohm).any(axis=2).min(axis=1)))
        raise ConfigError(f"no usable reading of the reference at {cells.address(bad)}")
    mean, noise, freedom = mean_of(ohm)
    amps = np.abs(result.current_a.reshape(n, repeat, k)).mean(axis=1)
    step_s = resolution_a(setting, amps, ranges_a) / np.abs(volts)
    sure = (mean**2 * step_s) ** 2 / 12
    wide = setting.correction.half_width_s(
        operation, result, setting.paths, rounding=False
    ).reshape(n, repeat, k)[:, 0]
    shared = mean**2 * np.nan_to_num(wide) / NORMAL
    return mean - np.array([[r.ohm] for r in references]), noise, sure, shared, freedom


def fit_excess(
    setting: Setting,
    references: list[Reference],
    series: FloatArray,
    levels: int,
    repeat: int,
    lowest_v: float,
    ranges_a: list[float],
) -> Plan[tuple[FloatArray, FloatArray, int]]:
    """Resistances in series with references, from what these read in excess (see `excess_of`).

    `series` (references, p) says how often each of p unknown resistances lies before a reference.
    Returns their ohms, (p,), the half-widths of these, and at how many levels was read.
    """
    excess, noise, sure, shared, freedom = yield from excess_of(
        setting, references, levels, repeat, lowest_v, ranges_a
    )
    n, k = excess.shape
    unknown = series.shape[1]
    # Beside them unknown: each reference's error, the readings' common error.
    design = np.column_stack((np.repeat(np.hstack((series, np.eye(n))), k, axis=0), shared.ravel()))
    errors = [max(r.half_width_ohm / NORMAL, 1e-12 * r.ohm) for r in references]
    spread = np.array([np.inf] * unknown + errors + [1.0])
    if not shared.any():
        design, spread = design[:, :-1], spread[:-1]
    good = np.isfinite(excess) & np.isfinite(noise + sure)
    fit = solve(
        design[good.ravel()],
        excess[good],
        (noise + sure)[good],
        spread,
        freedom_of(noise[good], sure[good], freedom),
    )
    names = {
        unknown + i: f"{r.ohm:g} ohm at ({r.tile}, {r.row}, {r.column})"
        for i, r in enumerate(references)
    }
    refuse_contradictions(fit, spread, names, "is each what is said, in its place and connected?")
    values, widths = fit.of(np.eye(design.shape[1])[:unknown])
    return values, widths, k


def read_levels(setting: Setting, levels: int, lowest_v: float) -> FloatArray:
    """Rising levels of both signs from `lowest_v` to the read limit, on the converter's own steps,
    without 0 V.

    They are spread evenly, each drawn within its part of the span: at even distances, and at
    mirrored levels, what the ADC rounds away repeats, and no longer averages out. Raises
    `ConfigError` where these are fewer than two.
    """
    top, step = setting.limits.read_v, setting.capabilities.bl_v.step
    if not lowest_v < top:
        raise ConfigError(f"lowest_v of {lowest_v:g} V must lie below limits.read_v, {top:g} V")
    rng = setting.rng("levels")
    parts: list[FloatArray] = []
    for sign, count in ((-1, levels // 2), (1, levels - levels // 2)):
        edges = np.linspace(lowest_v, top, count + 1)
        drawn = rng.uniform(edges[:-1], edges[1:])
        drawn[-1] = top  # the whole span
        if step > 0:
            drawn = np.unique(np.floor(drawn / step + 1e-9)) * step
        parts.append(sign * drawn[drawn > 0])
    found = np.sort(np.concatenate(parts))
    if found.size < 2:
        raise ConfigError(f"the converter has no two levels between {lowest_v:g} V and {top:g} V")
    return found


def resolution_a(setting: Setting, amps: FloatArray, ranges_a: list[float]) -> FloatArray:
    """One step of the ADC in the range that holds each current (A), same shape; 0 on a rack, whose
    readings scatter.
    """
    if setting.instruments:
        return np.zeros_like(amps)
    top = (1 << (setting.capabilities.adc_bits - 1)) - 1
    ranges = np.asarray(ranges_a)
    scale = ranges[np.minimum(np.searchsorted(ranges, amps * (1 - 1e-9)), ranges.size - 1)]
    return np.asarray(scale / top, dtype=np.float64)
