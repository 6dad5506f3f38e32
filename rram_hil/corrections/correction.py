"""The calibration in force: which files, whether they belong to this bench, and the one place where
they are applied.

The engine passes every result of the driver through `Correction.incoming`: raw currents stay raw,
conductances and codes become calibrated. Bounds that the hardware itself compares with raw readings
go through `Correction.outgoing` first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    Result,
    Status,
    Stop,
)
from rram_hil.corrections.calibration_file import CalibrationFile, Value
from rram_hil.corrections.kind import CalibrationKind, Sense, Series, Source, Wires
from rram_hil.errors import ConfigError
from rram_hil.hardware.arrival import Arrival
from rram_hil.hardware.driver import ReadingPath
from rram_hil.types import FloatArray

FINER = 16
"""A calibrated code of a multiply is this many times as fine as the ADC's."""
UNIFORM = 0.95
"""95 % of what a converter rounds away lie within this part of half a step."""

Paths = Callable[[Apply], list[ReadingPath]]
"""What a bench measures through: `Driver.reading_paths`."""


@dataclass(frozen=True)
class InForce:
    """One calibration of a bench: its name in the bench file and what it is; a remark where it has
    expired.
    """

    name: str
    kind: CalibrationKind
    remark: str = ""

    @property
    def file(self) -> CalibrationFile:
        """What it says."""
        return self.kind.file


class Correction:
    """All calibrations of a bench. Raises `ConfigError` where two correct the same thing."""

    def __init__(self, files: Sequence[InForce] = ()) -> None:
        self.files = tuple(files)
        self._sources: dict[str, Source] = {}
        self._senses: dict[str, Sense] = {}
        self._resistances: list[Series] = []
        self._columns: tuple[Value, Value] | None = None
        self._wires: Wires | None = None
        self.arrivals: dict[str, Arrival] = {}
        """How pulses arrive, by the generator's channel."""
        # By kind, so that sums do not depend on the order in the bench file.
        for entry in sorted(files, key=lambda e: e.file.kind):
            pieces = entry.kind.pieces()
            twice = sorted(
                {*self._sources} & {*pieces.sources}
                | {*self._senses} & {*pieces.senses}
                | {*self.arrivals} & {*pieces.arrivals}
            )
            if self._columns is not None and pieces.columns is not None:
                twice.append("columns")
            if twice:
                raise ConfigError(f"{entry.name}: another calibration corrects {twice[0]} as well")
            self._sources |= pieces.sources
            self._senses |= pieces.senses
            self.arrivals |= pieces.arrivals
            self._resistances += [] if pieces.series is None else [pieces.series]
            self._columns = pieces.columns or self._columns
            self._wires = pieces.wires or self._wires

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
        return bool(self._sources or self._senses or self._resistances)

    def outgoing(self, operation: Operation, paths: Paths) -> Operation:
        """The operation with the bounds that its hardware compares with raw readings: stop
        conditions, windows.

        Where a batch measures at several levels, bounds are those of the first.
        """
        if isinstance(operation, Program) and operation.verify == "coded":
            return self._coded_windows(operation)
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
        if isinstance(operation, CodedRead) and isinstance(result, CodedReadResult):
            return self.freed_of_wires(operation, self._decoded(operation, result))
        if isinstance(operation, Program) and operation.verify == "coded":
            return self._coded_ends(operation, result)
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

    def _decoded(self, operation: CodedRead, result: CodedReadResult) -> CodedReadResult:
        """What a board decoded, with the gain of each column; their offsets are on no cell."""
        if self._columns is None:
            return result
        gain = 1 + self._columns[0].values[operation.cells.column]
        return replace(
            result, conductance_s=result.conductance_s / gain, sigma_s=result.sigma_s / gain
        )

    def freed_of_wires(self, operation: CodedRead, result: CodedReadResult) -> CodedReadResult:
        """A map read by codes, freed of what its wires and transistors did to it; single readings
        are each freed already.

        A block that no conductances explain is not a number.
        """
        if self._wires is None or result.way == "cells":
            return result
        siemens, sigma = result.conductance_s.copy(), result.sigma_s.copy()
        status = result.status.copy()
        first = 0
        for block in operation.blocks:
            part = slice(first, first + block.size)
            first += block.size
            seen = result.conductance_s[part]
            if not np.isfinite(seen).all():
                continue
            found, explained = self._wires.freed(
                block, operation.wl_v, seen.reshape(block.rows, block.columns)
            )
            siemens[part] = found.ravel() if explained else np.nan
            if not explained:
                status[part] = Status.NOT_A_NUMBER
            # A cell behind a resistance: dG/dA = (G/A)^2; of cells that hardly conduct, 1.
            least = 5 * sigma[part]
            ratio = (np.abs(found.ravel()) + least) / (np.abs(seen) + least)
            sigma[part] *= np.maximum(ratio, 1.0) ** 2
        return replace(result, conductance_s=siemens, sigma_s=sigma, status=status)

    def _coded_windows(self, operation: Program) -> Program:
        """Windows as a board compares them with what it decodes."""
        if self._wires is not None:
            raise ConfigError(
                "coded verify on the board compares maps that are not freed of the wires' drops, as"
                ' calibration lines is in force; use on_board = "never" or verify = "single"'
            )
        if self._columns is None:
            return operation
        gain = 1 + self._columns[0].values[operation.cells.column]
        return replace(operation, low_s=operation.low_s * gain, high_s=operation.high_s * gain)

    def _coded_ends(self, operation: Program, result: Result) -> Result:
        if self._columns is None or not isinstance(result, ProgramResult):
            return result
        gain = 1 + self._columns[0].values[operation.cells.column]
        return replace(result, conductance_s=result.conductance_s / gain)

    def _amplifiers(
        self, operation: Multiply, lsb_a: float
    ) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray], float]:
        """Gain and offset (of the full scale) of the block's columns with their half-widths, and
        the full scale in codes.
        """
        assert self._columns is not None
        part = slice(operation.column, operation.column + operation.columns)
        gain, offset = self._columns
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
            true, wide = self._sources.get(name, Source()).volts(asked)
            drop = drop + sign * true
            square = square + wide**2
        return drop, np.sqrt(square)

    def _series(self, cells: Cells, path: ReadingPath) -> tuple[FloatArray, FloatArray]:
        """Ohms in series with each cell that a single reading sees beside it, and their
        half-widths, shape (n,).
        """
        ohm, square = np.zeros(len(cells)), np.zeros(len(cells))
        for series in self._resistances:
            for part, wide in series(cells, path):
                ohm = ohm + part
                square = square + wide**2
        return ohm, np.sqrt(square)

    def _conductance(
        self, cells: Cells, path: ReadingPath, raw_a: FloatArray, rounding: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Conductance (S) from raw currents of shape (n, m), and half-widths; NaN where no volts
        are left for the cell.
        """
        drop, drop_u = (a[:, None] for a in self._drop(path))
        ohm, ohm_u = (a[:, None] for a in self._series(cells, path))
        amps, amps_u = self._senses.get(path.sense, Sense()).current(raw_a * path.sign, rounding)
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
        told = self._senses.get(path.sense, Sense()).told(amps * path.sign) * path.sign
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
