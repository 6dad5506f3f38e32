"""How an array hangs on instruments: sections of a `smu-matrix` bench file, read by its driver and
by its simulated rack.

[driver.instruments.smu]              # name of your choice
kind = "keithley-2600b"               # entry point of the family
model = "2636B"
resource = "TCPIP::192.168.1.10::5025::SOCKET"

[driver.instruments.matrix]
kind = "keithley-707b"
model = "707B"
resource = "TCPIP::192.168.1.11::5025::SOCKET"

[driver.wiring]
channels = { "smu.a" = "A", "smu.b" = "B" }   # instrument.channel = matrix row
ground = "C"                                  # the matrix row tied to the instruments' LO
wl = "1-32"                                   # matrix columns of word lines 0 .. 31
bl = "33-64"
sl = "65"
tsp_node = 2                                  # the matrix's node on the source-meter's TSP-Link
generators = { "pulser.1" = "D" }             # a pulse generator's channel = matrix row
probes = { "scope.1" = "pulser.1" }           # a scope's channel = whose pulses it sees at the pads

Bodies of the selectors and word lines that are not selected may have sources of their own:

[driver.wiring.body]
channel = "aux.1"
row = "E"                             # left out: it is wired straight to the body terminal
columns = "66"                        # matrix columns of the body terminals

[driver.wiring.unselected_wl]
channel = "aux.2"
row = "F"

One cell between two channels needs no matrix. The "rows" are then its two lines:

[driver.wiring]
channels = { "smu.1" = "sl" }
generators = { "smu.501" = "bl" }
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from rram_hil.array import Geometry
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import DriverConfig
from rram_hil.units import Unit

Lines = Annotated[str, Field(pattern=r"^\s*(\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*)?\s*$")]
"""Matrix columns in the order of the lines: "1-32", "65", "1-8, 13-36"; empty for none."""


def columns_of(lines: str) -> tuple[int, ...]:
    """The columns that a text such as "1-8, 13" names, in order."""
    columns: list[int] = []
    for part in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", lines):
        first, last = int(part[0]), int(part[1] or part[0])
        columns.extend(range(first, last + 1) if last >= first else range(first, last - 1, -1))
    return tuple(columns)


BL, SL = "bl", "sl"
"""Rows of a direct pair: the two lines of its one cell."""
BODY = "body"
"""Stands for the row of a channel that is wired straight to the body terminal."""
OUTPUT_OHM = 50.0
"""Of a pulse generator."""
DigitalLine = Annotated[int, Field(ge=1, le=14)]
"""A pin of an instrument's digital port."""


class Triggers(DriverConfig):
    """Digital lines between a source-meter and the matrix, where they advance each other."""

    smu: str = Field(description="name of the source-meter")
    smu_in: DigitalLine = Field(description="its line on which it is told to take the next level")
    smu_measure: DigitalLine = Field(description="its line on which it is told to measure")
    smu_out: DigitalLine = Field(description="its line on which it says that a point is measured")
    matrix_in: DigitalLine = Field(description="the matrix's line wired to smu_out")
    matrix_out: DigitalLine = Field(description="the matrix's line wired to smu_in")
    matrix_measure: DigitalLine = Field(description="the matrix's line wired to smu_measure")

    @model_validator(mode="after")
    def _one_task_a_line(self) -> Self:
        for lines in zip(*self.pairs, strict=True):
            twice = [line for line in lines if lines.count(line) > 1]
            if twice:
                raise ValueError(f"digital line {twice[0]} of one instrument has two tasks")
        return self

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(source-meter's line, matrix's line) of each wire."""
        return (
            (self.smu_in, self.matrix_out),
            (self.smu_measure, self.matrix_measure),
            (self.smu_out, self.matrix_in),
        )


class Body(DriverConfig):
    """Section `[driver.wiring.body]`: what drives the bodies of all selectors. Where no step says
    their level they stand at 0 V.
    """

    channel: str = Field(description="instrument.channel of the source-meter")
    row: str = Field(
        default="", description="its matrix row; without it, it is wired to the body terminal"
    )
    columns: Lines = Field(default="", description="matrix columns of the body terminals")

    @model_validator(mode="after")
    def _row_and_columns(self) -> Self:
        if bool(self.row) != bool(columns_of(self.columns)):
            raise ValueError("row and columns belong together: body terminals on a matrix row")
        return self


class UnselectedWordLines(DriverConfig):
    """Section `[driver.wiring.unselected_wl]`: what holds all word lines that are not selected,
    together, at a level that a step says; else they hang on the ground row.
    """

    channel: str = Field(description="instrument.channel of the source-meter")
    row: str = Field(min_length=1, description="its matrix row, where no other channel is")


class Wiring(DriverConfig):
    """Section `[driver.wiring]`: which channel hangs on which matrix row, which line of the array
    on which matrix column.

    A 1T1R array with source lines "common" has one `sl` column; else one for each row or column, as
    the chip says. A 1R array has no `wl`, and one `sl` column for each of its rows. A direct pair
    (one cell without a matrix) has nothing but `channels` and `generators`, on the rows "bl" and
    "sl".
    """

    channels: dict[str, str] = Field(
        description='instrument.channel = matrix row, such as "smu.a" = "A"'
    )
    generators: Annotated[dict[str, str], Field(max_length=1)] = Field(
        default={},
        description=(
            'pulse generator.channel = matrix row, such as "pulser.1" = "D": gives the pulses that'
            " are shorter than the source-meters time"
        ),
    )
    load_ohm: Annotated[float, Unit("ohm"), Field(ge=0, le=1e6)] = Field(
        default=0.0,
        description="what terminates the generator at the array; 0: nothing but the array",
    )
    probes: dict[str, str] = Field(
        default={},
        description=(
            "oscilloscope.channel = the generator whose pulses it sees where they arrive, such as"
            ' "scope.1" = "pulser.1"'
        ),
    )
    ground: str = Field(
        default="", description="matrix row tied to the LO terminals of all channels"
    )
    bl: Lines = ""
    sl: Lines = ""
    wl: Lines = ""
    tsp_node: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0,
        description="the matrix's TSP-Link node, seen from the source-meter; 0: not linked",
    )
    triggers: Triggers | None = None
    body: Body | None = None
    unselected_wl: UnselectedWordLines | None = None

    @property
    def held(self) -> dict[str, str]:
        """Channels that hold bodies and unselected word lines, with their matrix rows."""
        sources = (self.body, self.unselected_wl)
        return {one.channel: one.row or BODY for one in sources if one is not None}

    @property
    def sources(self) -> tuple[str, ...]:
        """All channels that something is wired to."""
        return (*self.channels, *self.generators, *self.held)

    @property
    def is_direct(self) -> bool:
        """Whether the channels hang on the two lines of one cell, without a matrix."""
        return bool({BL, SL} & {*self.channels.values(), *self.generators.values()})

    @property
    def generator(self) -> str:
        """The channel that gives pulses; empty for none."""
        return next(iter(self.generators), "")

    def open_v(self, volts: float) -> float:
        """What a generator set to `volts` at its load gives where that load is missing (V)."""
        return volts * (1 + OUTPUT_OHM / self.load_ohm) if self.load_ohm else volts

    @property
    def bl_columns(self) -> tuple[int, ...]:
        """Matrix column of each bit line."""
        return (1,) if self.is_direct else columns_of(self.bl)

    @property
    def sl_columns(self) -> tuple[int, ...]:
        """Matrix column of each source line."""
        return (2,) if self.is_direct else columns_of(self.sl)

    @property
    def wl_columns(self) -> tuple[int, ...]:
        """Matrix column of each word line; empty for a 1R array."""
        return columns_of(self.wl)

    @property
    def body_columns(self) -> tuple[int, ...]:
        """Matrix column of each body terminal."""
        return () if self.body is None else columns_of(self.body.columns)

    @property
    def columns(self) -> tuple[int, ...]:
        """Matrix columns of all lines."""
        return (*self.bl_columns, *self.sl_columns, *self.wl_columns, *self.body_columns)

    @property
    def rows(self) -> tuple[str, ...]:
        """Matrix rows of all channels and generators, and of the ground."""
        held = (row for row in self.held.values() if row != BODY)
        return (*self.channels.values(), *self.generators.values(), *held, self.ground)

    @model_validator(mode="after")
    def _probes_see_generators(self) -> Self:
        for probe, generator in self.probes.items():
            if generator not in self.generators:
                raise ValueError(f"probes: {probe!r} = {generator!r}, which is no generator here")
        return self

    @model_validator(mode="after")
    def _every_point_once(self) -> Self:
        twice = sorted({c for c in self.columns if self.columns.count(c) > 1})
        if self.is_direct:
            if sorted(self.rows) != ["", BL, SL] or self.bl or self.sl or self.wl or self.held:
                raise ValueError(
                    'one cell without a matrix has one channel on "bl" and one on "sl", and no'
                    " ground, bl, sl or wl"
                )
            return self
        if not self.ground:
            raise ValueError("ground is missing: the matrix row tied to the LO terminals")
        if twice:
            raise ValueError(f"matrix column {twice[0]} is given to two lines")
        held = (one.channel for one in (self.body, self.unselected_wl) if one is not None)
        named = [*self.channels, *self.generators, *held]
        if len(set(named)) < len(named):
            raise ValueError("body and unselected_wl need channels of their own")
        if len(set(self.rows)) != len(self.rows):
            raise ValueError("two channels, or a channel and the ground, are on one matrix row")
        return self

    def check(self, geometry: Geometry) -> None:
        """Refuse wiring that does not fit the array. Raises `ConfigError` naming the line, its
        count and what is needed.
        """
        if geometry.tiles != 1:
            raise ConfigError(
                f"driver.wiring: one tile can be wired to a matrix, this chip has {geometry.tiles}"
            )
        is_1r = geometry.cell == "1R"
        if is_1r and self.held:
            raise ConfigError(
                "driver.wiring: body and unselected_wl are of selectors, which a 1R array has not"
            )
        if self.is_direct and not (is_1r and geometry.size == 1):
            raise ConfigError(
                'driver.wiring.channels: "bl" and "sl" are the lines of one 1R cell; this chip has'
                f" {geometry.rows} x {geometry.columns} cells, {geometry.cell}, which need a matrix"
            )
        along = {"row": geometry.rows, "column": geometry.columns, "common": 1}[
            geometry.source_lines
        ]
        wanted = {
            "bl": geometry.columns,
            "sl": geometry.rows if is_1r else along,
            "wl": 0 if is_1r else geometry.rows,
        }
        for name, count in wanted.items():
            given = len(getattr(self, f"{name}_columns"))
            if given != count:
                raise ConfigError(
                    f"driver.wiring.{name}: {given} matrix columns, {count} are needed for this"
                    " array"
                )
