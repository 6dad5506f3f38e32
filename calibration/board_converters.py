"""A board's converters from a ladder of known resistors: offset, gain, integral nonlinearity of DAC
and ADC; column amplifiers.

The ladder's resistors stand in the places of cells, from a few hundred ohms to a megohm, so that
every part of the ADC's ranges is reached. A multiply's column amplifiers are compared with single
reads, a cell at a time: wires count equally there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Self, cast

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from rram_hil.array import Apply, ApplyResult, Cells, Multiply, Status
from rram_hil.corrections.calibration_file import (
    Belongs,
    Calibrated,
    CalibrationFile,
    Value,
    measured_value,
    measured_values,
)
from rram_hil.corrections.correction import Correction, InForce
from rram_hil.corrections.kind import BenchFacts, CalibrationKind, Pieces, Quantity
from rram_hil.engine.calibration import Calibration, saved
from rram_hil.engine.protocol import Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import board_paths
from rram_hil.types import FloatArray
from rram_hil.units import Unit
from rram_hil.validation import FiniteVolts, NotNegative, PositiveVolts, StrictModel

from .metrology.converter_fit import Curve, Seen, fit_converters
from .metrology.converters import Adc, Dac
from .metrology.gum import NORMAL, freedom_of, mean_of, refuse_contradictions, solve
from .metrology.references import BOARD_RANGES_A, Ranges, Reference, cells_of, read_levels, told_of

ERROR = Quantity("1", -0.99, 99.0)
"""Errors of gain."""


class ConverterErrors(CalibrationKind):
    """Kind `board-converters`: the DACs of bit and source lines, the ADC of single readings, the
    amplifiers of columns. Of one board, with the chip it was made on.
    """

    VALUES: ClassVar[dict[str, Quantity]] = {
        "dac_step_v": Quantity("V", 0.0),
        **{
            f"{line}_{name}": quantity
            for line, unit in (("bl", "V"), ("sl", "V"), ("adc", "full scale"))
            for name, quantity in {
                "offset": Quantity(unit, -1.0, 1.0),
                "gain": ERROR,
                "inl_at": Quantity(unit, -100.0, 100.0),
                "inl": Quantity(unit, -1.0, 1.0),
            }.items()
        },
        "adc_range": Quantity("A", 0.0),
        "adc_step": Quantity("full scale", 0.0),
        "column_gain": ERROR,
        "column_offset": Quantity("full scale", -1.0, 1.0),
    }

    def pieces(self) -> Pieces:
        """Sources "bl" and "sl", sense "adc", and columns, as far as they were calibrated."""
        values = self.file.values
        lines = [n for n in ("bl", "sl") if {f"{n}_gain", f"{n}_offset"} & {*values}]
        return Pieces(
            {line: Dac(self.file, line) for line in lines},
            {"adc": Adc(self.file)} if "adc_range" in values else {},
            columns=(values["column_gain"], values["column_offset"])
            if "column_gain" in values
            else None,
        )

    @override
    def check_values(self) -> None:
        """One value a column of the chip."""
        super().check_values()
        columns = self.bench.geometry.columns
        for name in ("column_gain", "column_offset"):
            value = self.file.values.get(name)
            if value is not None and value.values.size != columns:
                raise ConfigError(
                    f"{name} has {value.values.size} values; the chip has {columns} columns"
                )


class Voltmeter(StrictModel):
    """What a voltmeter read on a bit line at levels asked of its converter, and the half-width of
    each reading (V).
    """

    asked_v: Annotated[list[FiniteVolts], Field(min_length=1)]
    read_v: Annotated[list[FiniteVolts], Field(min_length=1)]
    half_width_v: PositiveVolts

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if len(self.asked_v) != len(self.read_v):
            raise ValueError("asked_v and read_v must have the same length")
        return self


class Columns(StrictModel):
    """Which cells the column amplifiers are measured with: all columns of rows `rows` ([first,
    last]) of `tile`.

    Each is read `repeat` times and multiplied by `vectors` inputs of both signs; `full_scale_a` 0:
    1.25 x the largest current.
    """

    tile: Annotated[int, Field(ge=0)] = 0
    rows: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
    repeat: Annotated[int, Field(ge=4, le=1000)] = 32
    vectors: Annotated[int, Field(ge=16, le=10000)] = 128
    full_scale_a: Annotated[NotNegative, Unit("A")] = 0.0


class BoardConverters(Calibration):
    """A board's DAC, ADC and column amplifiers from a ladder.

    Read a ladder of `references` at `levels` levels; with `columns`, compare every column
    amplifier with single reads.
    """

    references: Annotated[list[Reference], Field(min_length=2)]
    levels: Annotated[int, Field(ge=4, le=512)] = 64
    lowest_v: PositiveVolts = 0.005
    repeat: Annotated[int, Field(ge=2, le=1000)] = 4
    adc_points: Annotated[int, Field(ge=3, le=129)] = 33
    adc_range_a: Ranges = BOARD_RANGES_A
    voltmeter: Voltmeter | None = None
    columns: Columns | None = None

    def run(self, setting: Setting) -> Plan[Calibrated]:
        """Yields reads of the ladder and multiplications; no cell is stressed."""
        if setting.instruments:
            raise ConfigError("this bench has source-meters, no converters: use source-meter")
        if "board-converters" in setting.correction.kinds or "lines" in setting.correction.kinds:
            raise ConfigError(
                "take calibrations of converters and lines out of [calibration]"
                " first: they hide what is sought"
            )
        yield Progress(0, 2 if self.columns else 1, f"ladder of {len(self.references)}")
        values = yield from self._ladder(setting)
        if self.columns is not None:
            yield Progress(1, 2, "columns")
            values |= yield from self._columns(setting, values, self.columns)
        how = f"{self.levels} levels, {self.repeat} times, {len(self.references)} resistors"
        if self.voltmeter is None:
            how += (
                "; without a voltmeter: adc_gain is that of DAC and ADC together, bl_gain counts"
                " as 0"
            )
        reference = told_of(self.references)
        if self.voltmeter is not None:
            reference += f"; a voltmeter within {self.voltmeter.half_width_v:g} V"
        return (
            yield from saved(
                Calibrated(
                    "board-converters",
                    values,
                    method=how,
                    reference=reference,
                    validity_days=self.validity_days,
                    file=self.file,
                    conditions={"width_s": setting.read.width_s},
                    with_chip=True,
                )
            )
        )

    def _ladder(self, setting: Setting) -> Plan[dict[str, Value]]:
        cells = cells_of(self.references, setting.geometry)
        volts = read_levels(setting, self.levels, self.lowest_v)
        steps = tuple(replace(setting.read.without_gate(), bl_v=float(v)) for v in volts)
        result = yield from Apply(cells, steps, repeat=self.repeat, label="ladder")
        amps = np.where(result.status == Status.OK, result.current_a, np.nan)
        amps = amps.reshape(len(cells), self.repeat, volts.size).transpose(0, 2, 1)
        mean, noise, freedom = mean_of(amps)
        adc_step = 1.0 / ((1 << (setting.capabilities.adc_bits - 1)) - 1)
        ranges = np.asarray(self.adc_range_a)
        scale = ranges[np.minimum(np.searchsorted(ranges, np.abs(mean)), ranges.size - 1)]
        known = np.isfinite(noise)
        many = freedom_of(noise[known], (scale[known] * adc_step) ** 2 / 12, freedom)
        ohm = np.array([r.ohm for r in self.references])
        ohm_u = np.array([r.half_width_ohm for r in self.references]) / NORMAL
        meter = None
        if self.voltmeter is not None:
            v = self.voltmeter
            sure = np.full(len(v.asked_v), v.half_width_v / NORMAL)
            meter = np.array(v.asked_v), np.array(v.read_v), sure
        seen = Seen(volts, ohm, ohm_u, mean, noise, many)
        dac, adc = fit_converters(seen, ranges, adc_step, self.adc_points, meter)
        return {
            "dac_step_v": measured_value(setting.capabilities.bl_v.step, 0.0, "V"),
            **_values("bl", dac, "V", with_gain=meter is not None),
            "adc_range": measured_values(ranges, np.zeros(ranges.size), "A"),
            "adc_step": measured_value(adc_step, 0.0, "full scale"),
            **_values("adc", adc, "full scale", with_gain=True),
        }

    def _columns(
        self, setting: Setting, values: dict[str, Value], how: Columns
    ) -> Plan[dict[str, Value]]:
        geometry, can, read = setting.geometry, setting.capabilities, setting.read
        if not can.multiply:
            raise ConfigError("columns: this bench has no multiply of its own")
        first, last = how.rows
        if not (first <= last < geometry.rows and how.tile < geometry.tiles):
            raise ConfigError(f"columns: rows {how.rows} of tile {how.tile} are off the chip")
        rows = np.arange(first, last + 1)
        cells = Cells.block(how.tile, rows, np.arange(geometry.columns))
        operation = Apply(cells, (read,), repeat=how.repeat, label="columns: single reads")
        raw = yield from operation
        # As they will be read with this calibration, in which they are not in force yet.
        errors = ConverterErrors(_provisional(values), BenchFacts(geometry))
        correction = Correction([InForce("", errors)])
        found = cast(ApplyResult, correction.incoming(operation, raw, board_paths))
        siemens = np.where(found.status == Status.OK, found.conductance_s, np.nan)
        mean, noise, freedom = mean_of(siemens)
        rounded = correction.half_width_s(operation, found, board_paths)[:, 0]
        common = correction.half_width_s(operation, found, board_paths, rounding=False)[:, 0]
        own = noise + np.maximum(rounded**2 - common**2, 0.0) / NORMAL**2
        shape = (rows.size, geometry.columns)
        mean, own, common = mean.reshape(shape), own.reshape(shape), common.reshape(shape) / NORMAL
        assert isinstance(read.bl_v, float)
        assert isinstance(read.wl_v, float)
        read_v = abs(read.bl_v)
        full_a = how.full_scale_a or 1.25 * read_v * float(np.nanmax(mean))
        top = (1 << (can.input_bits - 1)) - 1
        ramp = np.unique(np.rint(np.linspace(-top, top, how.vectors)).astype(np.int16))
        inputs = np.zeros((rows.size * ramp.size, rows.size), dtype=np.int16)
        for k in range(rows.size):
            inputs[k * ramp.size : (k + 1) * ramp.size, k] = ramp
        gain, offset = np.empty((2, geometry.columns)), np.empty((2, geometry.columns))
        for column in range(geometry.columns):
            block = Multiply(
                how.tile,
                first,
                column,
                1,
                inputs,
                can.input_bits,
                read_v,
                read.wl_v,
                full_a,
                label="columns",
                body_v=read.body_v,
                unselected_wl_v=read.unselected_wl_v,
            )
            answer = yield from block
            volts = inputs.sum(axis=1) * (read_v / top)
            codes = answer.codes[:, 0].astype(np.float64)
            gain[:, column], offset[:, column] = _amplifier(
                codes,
                volts,
                answer.lsb_a,
                mean[:, column],
                own[:, column],
                common[:, column],
                freedom,
                full_a,
            )
        return {
            "column_gain": measured_values(gain[0], gain[1], "1"),
            "column_offset": measured_values(offset[0], offset[1], "full scale"),
        }


def _amplifier(
    codes: FloatArray,
    volts: FloatArray,
    lsb_a: float,
    siemens: FloatArray,
    own: FloatArray,
    common: FloatArray,
    freedom: int,
    full_a: float,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Gain error and offset (full scales) of one column, each with its half-width.

    `codes` and `volts` of every vector, row after row; of every row its cell's conductance, the
    variance of that, and the standard uncertainty that all cells share. Unknown are offset, gain
    and how far each conductance is off.
    """
    rows = siemens.size
    each = codes.size // rows
    row = np.repeat(np.arange(rows), each)
    good = np.isfinite(siemens)[row] & (np.abs(codes) < full_a / lsb_a * 0.999)
    if good.sum() < 8:
        return (float("nan"), float("nan")), (float("nan"), float("nan"))
    expected = volts * np.nan_to_num(siemens)[row] / lsb_a
    off = np.zeros((codes.size, rows))
    off[np.arange(codes.size), row] = volts / lsb_a
    shared = volts * np.nan_to_num(common)[row] / lsb_a
    design = np.column_stack((np.ones(codes.size), expected, off, shared))
    spread = np.array(
        [np.inf, np.inf, *np.sqrt(np.where(np.isfinite(own), np.maximum(own, 1e-30), 1e-30)), 1.0]
    )
    lively = np.append(np.ones(2, dtype=np.bool_), np.abs(design[good, 2:]).sum(axis=0) > 0)
    design, spread = design[:, lively], spread[lively]
    # Noise of the multiply and the rounding of its codes, from what is left of a first fit with one
    # line a row.
    separate = np.column_stack((np.ones(codes.size), off))[good]
    separate = separate[:, np.abs(separate).sum(axis=0) > 0]
    left = codes[good] - separate @ np.linalg.lstsq(separate, codes[good], rcond=None)[0]
    many = int(good.sum()) - separate.shape[1]
    variance = np.full(int(good.sum()), max(float(left @ left) / many, 1 / 12))
    fit = solve(
        design[good],
        codes[good],
        variance,
        spread,
        float(min(many, freedom)) if freedom else float(many),
    )
    places = np.flatnonzero(lively[2 : 2 + rows])
    names = {2 + i: f"the cell of row {row}" for i, row in enumerate(places)}
    refuse_contradictions(fit, spread, names, "are the cells what they read as, and undisturbed?")
    values, widths = fit.of(np.eye(design.shape[1])[:2])
    scale = full_a / lsb_a
    return (float(values[1] - 1), float(widths[1])), (
        float(values[0] / scale),
        float(widths[0] / scale),
    )


def _values(name: str, curve: Curve, unit: str, *, with_gain: bool) -> dict[str, Value]:
    found = {f"{name}_offset": measured_value(*curve.offset, unit)}
    if with_gain:
        found[f"{name}_gain"] = measured_value(*curve.gain, "1")
    found[f"{name}_inl_at"] = measured_values(curve.at, np.zeros(curve.at.size), unit)
    found[f"{name}_inl"] = measured_values(*curve.inl, unit)
    return found


def _provisional(values: dict[str, Value]) -> CalibrationFile:
    """The ladder's findings as a calibration file, to read cells with at once."""
    from datetime import UTC, datetime

    date = datetime(2000, 1, 1, tzinfo=UTC)
    return CalibrationFile(
        kind="board-converters", date=date, validity_days=1.0, instrument=Belongs(), values=values
    )
