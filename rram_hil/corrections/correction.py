"""The calibration in force: which files, whether they belong to this bench, and the one place where
they are applied.

The engine passes every result of the driver through `Correction.incoming`: raw currents stay raw,
conductances and codes become calibrated. Bounds that the hardware itself compares with raw readings
go through `Correction.outgoing` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rram_hil.array.cells import Cells, Geometry
from rram_hil.array.operations import Apply, Multiply, Operation, Program, Status, Stop
from rram_hil.array.results import ApplyResult, MultiplyResult, ProgramResult, Result
from rram_hil.corrections.calibration_file import CalibrationFile
from rram_hil.hardware.driver import Identity, ReadingPath
from rram_hil.types import FloatArray

FINER = 16
"""A calibrated code of a multiply is this many times as fine as the ADC's."""
UNIFORM = 0.95
"""95 % of what a converter rounds away lie within this part of half a step."""
SAME_GATE_V = 1e-6
"""Gate volts closer than this are the same."""

Paths = Callable[[Apply], list[ReadingPath]]
"""What a bench measures through: `Driver.reading_paths`."""


class _Source:
    """What really stands on a line for the volts that were asked for. The base one is right."""

    def volts(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """True volts and the half-widths of their 95 % intervals."""
        return asked, np.zeros_like(asked)


@dataclass(frozen=True, eq=False)
class _Dac(_Source):
    """A board's converter of one line."""

    file: CalibrationFile
    line: str

    def volts(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `_Source`."""
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
class _Channel(_Source):
    """A source-meter's channel that forces volts."""

    file: CalibrationFile

    def volts(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `_Source`. The range is that which holds all levels of the operation."""
        ranges = self.file.list_of("range_v")
        if ranges is None:
            return asked, np.zeros_like(asked)
        at = int(np.searchsorted(ranges, np.max(np.abs(asked), initial=0.0) * (1 - 1e-9)))
        if at >= ranges.size:
            return asked, np.zeros_like(asked)
        gain, offset = self.file.values["gain_v"], self.file.values["offset_v"]
        true = asked * (1 + gain.values[at]) + offset.values[at]
        return true, np.hypot(asked * gain.half_widths[at], offset.half_widths[at])


class _Sense:
    """What current really flows when the instrument tells one. The base one is right."""

    def current(self, told: FloatArray, rounding: bool = True) -> tuple[FloatArray, FloatArray]:
        """True current and the half-width of its 95 % interval (A)."""
        return told, np.zeros_like(told)

    def told(self, current: FloatArray) -> FloatArray:
        """What the instrument tells of a true current (A)."""
        return current


@dataclass(frozen=True, eq=False)
class _Adc(_Sense):
    """The converter of a board's single readings: the lowest range that holds the reading was
    used.
    """

    file: CalibrationFile

    def current(self, told: FloatArray, rounding: bool = True) -> tuple[FloatArray, FloatArray]:
        """See `_Sense`. A reading at the end of a range that may as well be of the next one is
        wider by the difference.
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

    def told(self, current: FloatArray) -> FloatArray:
        """See `_Sense`."""
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


@dataclass(frozen=True, eq=False)
class _Meter(_Sense):
    """A source-meter's channel that measures amperes and chooses its range by itself."""

    file: CalibrationFile

    def current(self, told: FloatArray, rounding: bool = True) -> tuple[FloatArray, FloatArray]:
        """See `_Sense`."""
        at, held = self._range(told)
        gain, offset = self.file.values["gain_a"], self.file.values["offset_a"]
        true = np.where(held, (told - offset.values[at]) / (1 + gain.values[at]), told)
        wide = np.hypot(true * gain.half_widths[at], offset.half_widths[at]) / (1 + gain.values[at])
        return true, np.where(held, wide, 0.0)

    def told(self, current: FloatArray) -> FloatArray:
        """See `_Sense`."""
        at, held = self._range(current)
        gain, offset = self.file.values["gain_a"], self.file.values["offset_a"]
        return np.where(held, current * (1 + gain.values[at]) + offset.values[at], current)

    def _range(self, told: FloatArray) -> tuple[FloatArray, FloatArray]:
        ranges = self.file.list_of("range_a")
        assert ranges is not None
        at = np.searchsorted(ranges, np.abs(told) * (1 - 1e-9))
        return np.minimum(at, ranges.size - 1), at < ranges.size  # type: ignore[return-value]


def _bent(file: CalibrationFile, name: str, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Deviation from the straight line at `x` and its half-width; nothing where the file has
    none.
    """
    found, places = file.values.get(name), file.list_of(f"{name}_at")
    if found is None or places is None:
        return np.zeros_like(x), np.zeros_like(x)
    bend = np.interp(x, places, found.values)
    return np.asarray(bend), np.asarray(np.interp(x, places, found.half_widths))


@dataclass(frozen=True)
class InForce:
    """One calibration file of a bench: its name in the bench file and what it says; a remark where
    it has expired.
    """

    name: str
    file: CalibrationFile
    remark: str = ""


class Correction:
    """All calibrations of a bench. `parts` are its instruments by their names in the bench file."""

    def __init__(
        self,
        files: Sequence[InForce] = (),
        geometry: Geometry | None = None,
        parts: Mapping[str, Identity] | None = None,
    ) -> None:
        self.files = tuple(files)
        self._geometry = geometry
        self._sources: dict[str, _Source] = {}
        self._senses: dict[str, _Sense] = {}
        self._lead: CalibrationFile | None = None
        self._lines: CalibrationFile | None = None
        self._columns: CalibrationFile | None = None
        for entry in files:
            file = entry.file
            if file.kind == "board-converters":
                for line in ("bl", "sl"):
                    if f"{line}_gain" in file.values or f"{line}_offset" in file.values:
                        self._sources[line] = _Dac(file, line)
                if "adc_range" in file.values:
                    self._senses["adc"] = _Adc(file)
                self._columns = file if "column_gain" in file.values else None
            elif file.kind == "source-meter":
                for name, identity in (parts or {}).items():
                    if (identity.model, identity.serial) == (
                        file.instrument.model,
                        file.instrument.serial,
                    ):
                        channel = f"{name}.{file.instrument.channel}"
                        self._sources[channel] = _Channel(file)
                        self._senses[channel] = _Meter(file)
            elif file.kind == "leads":
                self._lead = file
            else:
                self._lines = file

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds in force; of a source-meter with its channel."""
        return tuple(e.file.kind for e in self.files)

    @property
    def texts(self) -> dict[str, str]:
        """For the run file: of every calibration its text, its digest and its remark, under names
        of their own.
        """
        told = {}
        for entry in self.files:
            told[entry.name] = entry.file.print()
            told[f"{entry.name}_sha256"] = entry.file.digest
            if entry.remark:
                told[f"{entry.name}_remark"] = entry.remark
        return told

    @property
    def reads(self) -> bool:
        """Whether single readings are corrected."""
        return bool(self._sources or self._senses or self._lead or self._lines)

    def outgoing(self, operation: Operation, paths: Paths) -> Operation:
        """The operation with the bounds that its hardware compares with raw readings: stop
        conditions, windows.

        Where a batch measures at several levels, bounds are those of the first.
        """
        if not self.reads:
            return operation
        if isinstance(operation, Program):
            (path,) = paths(Apply(operation.cells, (operation.read,)))
            low, high = (
                self._raw(operation.cells, path, b) for b in (operation.low_s, operation.high_s)
            )
            return replace(operation, low_s=np.minimum(low, high), high_s=np.maximum(low, high))
        if isinstance(operation, Apply) and operation.stop is not None:
            first = paths(operation)[0]
            stop = operation.stop
            bounds = [
                None
                if b is None
                else self._raw(operation.cells, first, np.broadcast_to(b, (len(operation.cells),)))
                for b in (stop.above_s, stop.below_s)
            ]
            return replace(operation, stop=Stop(*bounds))
        return operation

    def incoming(self, operation: Operation, result: Result, paths: Paths) -> Result:
        """The result with calibrated conductances or codes. `operation` as it was asked for,
        `result` as the driver gave it.
        """
        if isinstance(operation, Multiply) and isinstance(result, MultiplyResult):
            return self._multiplied(operation, result)
        if not self.reads:
            return result
        if isinstance(operation, Apply) and isinstance(result, ApplyResult):
            siemens, status = result.conductance_s.copy(), result.status.copy()
            for columns, path in _columns_of(operation, paths):
                part = np.s_[:, columns]
                usable = _usable(status[part])
                found, _ = self._conductance(operation.cells, path, result.current_a[part])
                beyond = usable & ~np.isfinite(found)
                siemens[part] = np.where(usable, found, siemens[part])
                status[part] = np.where(beyond, np.uint8(Status.OVER_RANGE), status[part])
            return replace(result, conductance_s=siemens, status=status)
        if isinstance(operation, Program) and isinstance(result, ProgramResult):
            (path,) = paths(Apply(operation.cells, (operation.read,)))
            usable = _usable(result.status)
            raw = result.conductance_s * path.asked_v
            found = self._conductance(operation.cells, path, raw[:, None])[0][:, 0]
            beyond = usable & ~np.isfinite(found)
            status = np.where(beyond, np.uint8(Status.OVER_RANGE), result.status)
            inside = result.inside & (status == Status.OK)
            return replace(
                result,
                conductance_s=np.where(usable, found, result.conductance_s),
                status=status,
                inside=inside,
            )
        return result

    def half_width_s(
        self, operation: Apply, result: ApplyResult, paths: Paths, *, rounding: bool = True
    ) -> FloatArray:
        """Half-widths (S) of the 95 % intervals of the calibrated conductances, shape of the
        result; 0 without calibration.

        Errors of the calibration and, with `rounding`, what the ADC rounds away; a cell's own noise
        is not in it.
        """
        wide = np.zeros_like(result.conductance_s)
        for columns, path in _columns_of(operation, paths):
            part = np.s_[:, columns]
            wide[part] = self._conductance(operation.cells, path, result.current_a[part], rounding)[
                1
            ]
        return wide

    def code_half_width(self, operation: Multiply, result: MultiplyResult) -> FloatArray:
        """Half-widths of the 95 % intervals of calibrated codes, in codes of `result`, same shape;
        rounding is in it.
        """
        if self._columns is None:
            return np.zeros(result.codes.shape)
        gain, offset, top = self._amplifiers(operation, result.lsb_a)
        wide = np.hypot(result.codes * gain[1], top * offset[1]) / (1 + gain[0])
        return np.asarray(np.hypot(wide, UNIFORM * 0.5 * FINER), dtype=np.float64)

    def _multiplied(self, operation: Multiply, result: MultiplyResult) -> MultiplyResult:
        if self._columns is None or result.emulated:
            return result
        gain, offset, top = self._amplifiers(operation, result.lsb_a)
        codes = (result.codes - top * offset[0]) / (1 + gain[0])
        return replace(
            result, codes=np.rint(codes * FINER).astype(np.int32), lsb_a=result.lsb_a / FINER
        )

    def _amplifiers(
        self, operation: Multiply, lsb_a: float
    ) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray], float]:
        """Gain and offset (of the full scale) of the block's columns with their half-widths, and
        the full scale in codes.
        """
        assert self._columns is not None
        part = slice(operation.column, operation.column + operation.columns)
        gain, offset = self._columns.values["column_gain"], self._columns.values["column_offset"]
        return (
            (gain.values[part], gain.half_widths[part]),
            (offset.values[part], offset.half_widths[part]),
            operation.full_scale_a / lsb_a,
        )

    def _drop(self, path: ReadingPath) -> tuple[FloatArray, FloatArray]:
        """True volts across cell and all that is in series with it, and the half-width, shape
        (n,).
        """
        drop, square = np.zeros_like(path.asked_v), np.zeros_like(path.asked_v)
        for name, sign, asked in path.sources:
            true, wide = self._sources.get(name, _Source()).volts(asked)
            drop = drop + sign * true
            square = square + wide**2
        return drop, np.sqrt(square)

    def _series(self, cells: Cells, path: ReadingPath) -> tuple[FloatArray, FloatArray]:
        """Ohms in series with each cell that a single reading sees beside it, and their
        half-widths, shape (n,).
        """
        n = len(cells)
        ohm, square = np.zeros(n), np.zeros(n)
        if self._lead is not None:
            ohm = ohm + self._lead.value("series_ohm")
            square = square + self._lead.half_width("series_ohm") ** 2
        if self._lines is not None:
            assert self._geometry is not None
            pitches = pitches_of(cells, self._geometry)
            ohm = ohm + self._lines.value("line_ohm") * pitches
            square = square + (self._lines.half_width("line_ohm") * pitches) ** 2
            gate = float(self._lines.conditions["wl_v"])
            open_as_then = np.abs(path.gate_v - gate) <= SAME_GATE_V
            ohm = ohm + np.where(open_as_then, self._lines.value("access_ohm"), 0.0)
            square = square + np.where(open_as_then, self._lines.half_width("access_ohm"), 0.0) ** 2
        return ohm, np.sqrt(square)

    def _conductance(
        self, cells: Cells, path: ReadingPath, raw_a: FloatArray, rounding: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Conductance (S) from raw currents of shape (n, m), and half-widths; NaN where no volts
        are left for the cell.
        """
        drop, drop_u = (a[:, None] for a in self._drop(path))
        ohm, ohm_u = (a[:, None] for a in self._series(cells, path))
        amps, amps_u = self._senses.get(path.sense, _Sense()).current(raw_a * path.sign, rounding)
        amps = amps * path.sign
        left = drop - amps * ohm
        sound = (np.sign(left) == np.sign(path.asked_v)[:, None]) & (left != 0)
        siemens = np.divide(amps, left, out=np.full(amps.shape, np.nan), where=sound)
        # d(1/G): of 1/G = drop / I - R
        wide = np.hypot(drop * amps_u, amps * drop_u)
        wide = np.divide(wide, left**2, out=np.full(amps.shape, np.nan), where=sound)
        return siemens, np.hypot(wide, siemens**2 * ohm_u)

    def _raw(self, cells: Cells, path: ReadingPath, bound_s: FloatArray) -> FloatArray:
        """The raw conductance, current over asked volts, of a calibrated one, shape (n,)."""
        drop, _ = self._drop(path)
        ohm, _ = self._series(cells, path)
        finite = np.isfinite(bound_s) & (path.asked_v != 0)
        g = np.where(finite, bound_s, 0.0)
        amps = drop * g / (1 + g * ohm)
        told = self._senses.get(path.sense, _Sense()).told(amps * path.sign) * path.sign
        return np.divide(told, path.asked_v, out=np.array(bound_s, dtype=np.float64), where=finite)


def pitches_of(cells: Cells, geometry: Geometry) -> FloatArray:
    """Cell pitches of wire in series with each cell: its source line from column 0, its bit line to
    below the last row.
    """
    return np.asarray(cells.column + 1 + geometry.rows - cells.row, dtype=np.float64)


def _usable(
    status: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray((status == Status.OK) | (status == Status.COMPLIANCE))


def _columns_of(operation: Apply, paths: Paths) -> list[tuple[list[int], ReadingPath]]:
    """Of every step that measures a current: its columns in the result, over all repeats, and its
    path.
    """
    measured = [s.measure for s in operation.steps if s.measure != "no"]
    places = [k for k, what in enumerate(measured) if what == "current"]
    return [
        ([r * len(measured) + k for r in range(operation.repeat)], path)
        for k, path in zip(places, paths(operation), strict=True)
    ]
