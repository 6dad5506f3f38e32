"""What a kind of calibration is: which values its file holds, whose it is, and how it corrects.

A kind is a class found by its entry point in the group `rram_hil.calibration_kinds`, under the name
that its files give as `kind`. See docs/adding-a-calibration.md.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from rram_hil.array import Block, Cells, Geometry
from rram_hil.corrections.calibration_file import KINDS, CalibrationFile, Value
from rram_hil.crossbar.ir_drop import Lines, correct_map
from rram_hil.errors import ConfigError
from rram_hil.hardware.arrival import Arrival
from rram_hil.hardware.driver import Identity, ReadingPath
from rram_hil.plugins import load_class
from rram_hil.types import FloatArray

SAME_GATE_V = 1e-6
"""Gate volts closer than this are the same."""


class Source:
    """What really stands on a line for the volts that were asked for. The base one is right."""

    def volts(self, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """True volts and the half-widths of their 95 % intervals."""
        return asked, np.zeros_like(asked)


class Sense:
    """What current really flows when the instrument tells one. The base one is right."""

    def current(self, told: FloatArray, rounding: bool = True) -> tuple[FloatArray, FloatArray]:
        """True current and the half-width of its 95 % interval (A), with `rounding` what the
        converter rounds away in it.
        """
        return told, np.zeros_like(told)

    def told(self, current: FloatArray) -> FloatArray:
        """What the instrument tells of a true current (A)."""
        return current


Ohms = tuple[FloatArray | float, FloatArray | float]
"""Ohms in series with each cell and the half-width of their 95 % interval; one number for all, or
shape (n,).
"""
Series = Callable[[Cells, ReadingPath], Iterable[Ohms]]
"""What stands in series with cells that are read singly over a path, one by one: independent parts
add.
"""


@dataclass(frozen=True)
class Wires:
    """What maps that are read with all rows at once see beside their cells: the wire of each cell
    pitch and the transistor open at `gate_v` (ohm), in an array of so many rows.
    """

    pitch_ohm: float
    access_ohm: float
    gate_v: float
    rows: int

    def freed(self, block: Block, gate_v: float, seen_s: FloatArray) -> tuple[FloatArray, bool]:
        """Conductances (S) of the cells of a block of which codes show these, same shape, and
        whether they explain what was seen.
        """
        lines = Lines.of(
            self.pitch_ohm, column=block.column, rows_below=self.rows - block.row - block.rows
        )
        found, explained = correct_map(seen_s, lines, "grounded", below_zero=True)
        access = self.access_ohm if abs(gate_v - self.gate_v) <= SAME_GATE_V else 0.0
        left = 1 - found * access
        explained &= bool((left > 0).all())
        return np.divide(found, left, out=np.full_like(found, np.nan), where=left > 0), explained


@dataclass(frozen=True, eq=False)
class Pieces:
    """What a calibration corrects; a piece that it says nothing about is left out.

    `sources` and `senses` go by the names that the driver's reading paths give them: "bl", "sl" and
    "adc" on a board, "smu.a" on a rack. `columns` are gain errors and offsets (of the full scale)
    of a multiply's columns, one value a column of the chip; `wires` stand between its cells.
    `arrivals` go by the pulse generator's channel as the bench's wiring names it, "pulser.1".
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    senses: Mapping[str, Sense] = field(default_factory=dict)
    series: Series | None = None
    columns: tuple[Value, Value] | None = None
    wires: Wires | None = None
    arrivals: Mapping[str, Arrival] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchFacts:
    """What a kind may know of the bench. `parts` are its instruments by their names in the bench
    file, `gate_v` the gate of its reads, `generators` the channels that give its pulses,
    "pulser.1".
    """

    geometry: Geometry
    chip_id: str = ""
    identity: Identity = field(default_factory=lambda: Identity("", ""))
    parts: Mapping[str, Identity] = field(default_factory=dict)
    gate_v: float = 0.0
    generators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantity:
    """What a value of a calibration must be: its unit ("1" for none) and its smallest and largest
    number; `needed` where a file without it says nothing.
    """

    unit: str
    least: float = -math.inf
    most: float = math.inf
    needed: bool = False


class CalibrationKind(ABC):
    """A calibration of this kind on a bench. A subclass says which `VALUES` its files hold and
    gives its `pieces`.
    """

    VALUES: ClassVar[Mapping[str, Quantity]]

    def __init__(self, file: CalibrationFile, bench: BenchFacts) -> None:
        self.file, self.bench = file, bench

    @abstractmethod
    def pieces(self) -> Pieces:
        """What it corrects."""

    def owners(self) -> Iterable[Identity]:
        """Whose it may be on this bench: the bench as a whole, which is all its instruments."""
        return (self.bench.identity,)

    def check_owner(self) -> None:
        """Refuse a calibration of something else than what is connected. Raises `ConfigError`."""
        self.check_chip()
        mine, there = self.file.instrument, list(self.owners())
        if not any((i.model, i.serial) == (mine.model, mine.serial) for i in there):
            told = "; ".join(f"{i.model}, serial {i.serial}" for i in there) or "no source-meter"
            raise ConfigError(f"a calibration of {mine}; connected is {told}")

    def check_chip(self) -> None:
        """Refuse a calibration that belongs to another chip. Raises `ConfigError`."""
        mine = self.file.instrument
        if mine.chip and mine.chip != self.bench.chip_id:
            raise ConfigError(f"a calibration of {mine}; the bench has chip {self.bench.chip_id!r}")

    def check_values(self) -> None:
        """Refuse a value that the kind does not know, another unit, a number out of range. Raises
        `ConfigError`.
        """
        kind, values = self.file.kind, self.file.values
        missing = [name for name, q in self.VALUES.items() if q.needed and name not in values]
        if missing:
            raise ConfigError(f"values.{missing[0]}: missing; a calibration of {kind} needs it")
        for name, value in values.items():
            quantity = self.VALUES.get(name)
            if quantity is None:
                known = ", ".join(self.VALUES)
                raise ConfigError(f"values.{name}: {kind} has no such value; there is: {known}")
            if value.unit != quantity.unit:
                raise ConfigError(f"values.{name}: in {value.unit!r}; it must be {quantity.unit!r}")
            beyond = (value.values < quantity.least) | (value.values > quantity.most)
            if beyond.any():
                raise ConfigError(
                    f"values.{name}: {value.values[beyond][0]:g} is out of range: allowed"
                    f" {quantity.least:g} to {quantity.most:g} {quantity.unit}"
                )


def kind_class(name: str) -> type[CalibrationKind]:
    """The kind that a calibration file names. Raises `ConfigError` listing what there is."""
    return load_class(KINDS, name, "calibration kind", CalibrationKind)
