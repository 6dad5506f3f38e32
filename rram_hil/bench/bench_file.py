"""The bench file: one TOML that describes a bench, and the messages that say what is wrong with
it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema

from rram_hil.array import Geometry, Limits, OtherLevels, Selector, Step, read_step
from rram_hil.bench.ledgers import ledger_path
from rram_hil.errors import ConfigError
from rram_hil.plugins import load
from rram_hil.validation import (
    FiniteVolts,
    PositiveKelvins,
    PositiveSeconds,
    PositiveVolts,
    StrictModel,
    read_toml,
    refused,
)

USUAL_READ_V = 0.5
"""Largest `limits.read_v` that needs no reason: filaments of oxide cells begin to move above it."""

Count = Annotated[int, Field(ge=1, le=1 << 20)]


class Chip(StrictModel):
    """Section `[chip]`: which chip is in the socket."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        description="names the chip in its ledger and run files"
    )
    tiles: Count
    rows: Count
    columns: Count
    cell: Literal["1T1R", "1R"]
    source_lines: Literal["row", "column", "common"] = Field(
        default="row", description="what the source lines follow"
    )
    selector: Selector = Field(
        default="nmos",
        description=(
            "kind of the transistors that select cells: an nmos conducts with its gate above the"
            " lower of BL and SL, a pmos with it below the higher"
        ),
    )
    switch_v: PositiveVolts | None = Field(
        default=None, description="lowest |BL - SL| that may change a cell, where it is known"
    )
    die: str = ""
    lot: str = ""
    temperature_k: PositiveKelvins | None = None
    ledger: str | None = Field(
        default=None,
        description=(
            "file that counts pulses over the chip's life; by default one a chip and machine"
        ),
    )

    @property
    def geometry(self) -> Geometry:
        """The array of this chip."""
        size = self.tiles, self.rows, self.columns
        return Geometry(*size, self.cell, self.source_lines, self.selector)

    @model_validator(mode="after")
    def _only_selectors_have_a_kind(self) -> Self:
        if self.cell == "1R" and self.selector != "nmos":
            raise ValueError(f'selector = "{self.selector}" says of what a 1R array has not')
        return self


class Read(OtherLevels):
    """Section `[read]`: the read condition of this bench."""

    bl_v: FiniteVolts = 0.2
    wl_v: FiniteVolts = 3.0
    width_s: PositiveSeconds = 1e-6
    also_gate: bool = Field(
        default=False, description="measure the gate's current beside each reading"
    )

    @property
    def step(self) -> Step:
        """The step that reads under this condition."""
        step = self.onto(read_step(self.bl_v, self.wl_v, self.width_s))
        return replace(step, also_gate=self.also_gate)


class CalibrationSection(StrictModel):
    """Section `[calibration]`: the calibration files in force, relative to the bench file."""

    files: list[str] = Field(default=[], description="paths of calibration files")
    accept_expired: bool = Field(
        default=False, description="use expired calibrations too; the run file says so"
    )


class DriverSection(BaseModel):
    """Section `[driver]`: the driver's name, or "./file.py:Class", and the settings that the driver
    itself describes.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the name, as given."""
        return dict(self.model_extra or {})


class ThermostatSection(BaseModel):
    """Section `[thermostat]`: what keeps the chip at a temperature, as an instrument of its own:
    its kind, the temperatures that the chip and its surroundings stand, and the settings that the
    instrument itself describes.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    kind: str = Field(description="entry point of the instrument, such as lakeshore-336")
    lowest_k: PositiveKelvins = Field(description="a recipe may ask for no less")
    highest_k: PositiveKelvins = Field(description="a recipe may ask for no more")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lowest_k <= self.highest_k:
            raise ValueError(
                f"lowest_k of {self.lowest_k:g} K lies above highest_k of {self.highest_k:g} K"
            )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The instrument's own settings, its kind among them, as given."""
        return {"kind": self.kind, **(self.model_extra or {})}


@dataclass(frozen=True)
class _FromEntryPoint:
    """Annotates a section whose model is a plug-in: the core has no simulated chip of its own."""

    name: str

    def __get_pydantic_core_schema__(
        self, _source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handler.generate_schema(section_model(self.name))


def section_model(name: str) -> type[BaseModel]:
    """The model of a section that a plug-in describes, by entry points `rram_hil.bench_sections`.
    Raises `ConfigError`.
    """
    found = load("rram_hil.bench_sections", name, "section")
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise ConfigError(f"section {name!r} is not described by a pydantic model")
    return found


class BenchFile(StrictModel):
    """A whole bench file."""

    chip: Chip
    driver: DriverSection
    limits: Limits
    read: Read = Read()
    thermostat: ThermostatSection | None = None
    calibration: CalibrationSection = CalibrationSection()
    simulation: Annotated[BaseModel, _FromEntryPoint("simulation")] | None = None
    operator: str = ""

    @model_validator(mode="after")
    def _reads_switch_nothing(self) -> Self:
        """What is called a read uses up no budget and may be repeated without end."""
        limits, switch_v = self.limits, self.chip.switch_v
        bounds = ((USUAL_READ_V, "where cells may begin to switch"), (switch_v, "chip.switch_v"))
        for most_v, what in bounds:
            if most_v is not None and limits.read_v > most_v and not limits.read_v_reason.strip():
                raise ValueError(
                    f"limits.read_v of {limits.read_v:g} V lies above {most_v:g} V, {what}; steps"
                    " up to it count as reads and use up no budget: lower it, or say in"
                    " limits.read_v_reason why it may be"
                )
        return self

    @model_validator(mode="after")
    def _reads_stress_nothing(self) -> Self:
        if not abs(self.read.bl_v) <= self.limits.read_v:
            raise ValueError(
                f"read.bl_v of {self.read.bl_v:g} V is above limits.read_v of"
                f" {self.limits.read_v:g} V: each read would count as a pulse"
            )
        return self

    _text: str = ""
    _path: Path = Path("bench.toml")

    @property
    def text(self) -> str:
        """The file as given."""
        return self._text

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self._path

    @property
    def folder(self) -> Path:
        """Where relative paths in the file start."""
        return self._path.resolve().parent

    @property
    def ledger_path(self) -> Path:
        """File of the chip's ledger (rram_hil.bench.ledgers). Raises `DataError` where the chip has
        two.
        """
        return ledger_path(self)


def load_bench_file(path: str | Path) -> BenchFile:
    """Read and validate a bench file. Raises `ConfigError` naming file, key, value and what is
    allowed.
    """
    path = Path(path)
    tables, text = read_toml(path, "a bench file")
    return parse_bench_file(tables, text, path)


def parse_bench_file(
    tables: dict[str, Any], text: str = "", path: Path = Path("bench.toml")
) -> BenchFile:
    """Validate the tables of a bench file that is already in memory."""
    try:
        bench = BenchFile.model_validate(tables)
    except ValidationError as error:
        raise refused(error, str(path), BenchFile) from None
    bench._text = text
    bench._path = path
    return bench
