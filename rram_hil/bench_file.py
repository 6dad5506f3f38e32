"""The bench file: one TOML that describes a bench, and the messages that say what is wrong with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rram_hil.cells import Geometry
from rram_hil.device.config import Simulation
from rram_hil.errors import ConfigError
from rram_hil.limits import Limits
from rram_hil.operations import Step, read_step

Count = Annotated[int, Field(ge=1, le=1 << 20)]


class Section(BaseModel):
    """Base of every section: unknown keys and guessing coercions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Chip(Section):
    """Section `[chip]`: which chip is in the socket."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        description="names the chip in its ledger and run files"
    )
    tiles: Count
    rows: Count
    columns: Count
    cell: Literal["1T1R", "1R"]
    source_lines: Literal["row", "column", "common"] = Field(default="row", description="what the source lines follow")
    die: str = ""
    lot: str = ""
    temperature_k: Annotated[float, Field(gt=0)] | None = None
    ledger: str | None = Field(default=None, description="file that counts pulses over the chip's life")

    @property
    def geometry(self) -> Geometry:
        """The array of this chip."""
        return Geometry(self.tiles, self.rows, self.columns, self.cell, self.source_lines)


class Read(Section):
    """Section `[read]`: the read condition of this bench."""

    bl_v: Annotated[float, Field(allow_inf_nan=False)] = 0.2
    wl_v: Annotated[float, Field(allow_inf_nan=False)] = 3.0
    width_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6

    @property
    def step(self) -> Step:
        """The step that reads under this condition."""
        return read_step(self.bl_v, self.wl_v, self.width_s)


class CalibrationSection(Section):
    """Section `[calibration]`: the calibration files in force, relative to the bench file."""

    files: list[str] = []
    accept_expired: bool = Field(default=False, description="use expired calibrations too; the run file says so")


class DriverSection(BaseModel):
    """Section `[driver]`: the driver's name, or "./file.py:Class", and the settings that the driver itself describes."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the name, as given."""
        return dict(self.model_extra or {})


class BenchFile(Section):
    """A whole bench file."""

    chip: Chip
    driver: DriverSection
    limits: Limits
    read: Read = Read()
    calibration: CalibrationSection = CalibrationSection()
    simulation: Simulation | None = None
    operator: str = ""

    @model_validator(mode="after")
    def _reads_stress_nothing(self) -> Self:
        if not abs(self.read.bl_v) <= self.limits.read_v:
            raise ValueError(
                f"read.bl_v of {self.read.bl_v:g} V is above limits.read_v of {self.limits.read_v:g} V: each read would count "
                "as a pulse"
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
        """File of the chip's ledger: as given, else `<chip id>.ledger.npy` beside the bench file."""
        return self.folder / (self.chip.ledger or f"{self.chip.id}.ledger.npy")


def describe(error: ValidationError, where: str) -> str:
    """One line for the first problem that pydantic found (and how many more): key, value, what is allowed."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
    if first["type"] == "extra_forbidden":
        text = "unknown key"
    elif first["type"] == "missing":
        text = "missing; it is required"
    else:
        text = re.sub(r"^Value error, ", "", first["msg"])
        if not isinstance(first["input"], dict):
            text = f"{first['input']!r} is wrong: {text[0].lower()}{text[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {key}: {text}{more}"


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """The tables of a TOML file and its text. Raises `ConfigError` with the line that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def load_bench_file(path: str | Path) -> BenchFile:
    """Read and validate a bench file. Raises `ConfigError` naming file, key, value and what is allowed."""
    path = Path(path)
    tables, text = read_toml(path)
    return parse_bench_file(tables, text, path)


def parse_bench_file(tables: dict[str, Any], text: str = "", path: Path = Path("bench.toml")) -> BenchFile:
    """Validate the tables of a bench file that is already in memory."""
    try:
        bench = BenchFile.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(describe(error, str(path))) from None
    bench._text = text
    bench._path = path
    return bench
