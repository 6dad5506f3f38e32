"""The calibration file: a small versioned TOML that says what an instrument does wrong, how well
that is known, and for how long.

Long arrays stand in an HDF5 file beside it, named and digested in the TOML. See
docs/calibration.md.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import h5py  # type: ignore[import-untyped]
import numpy as np
import tomlkit
from pydantic import Field, ValidationError, field_validator, model_validator
from tomlkit.items import Array, Item, Trivia, Whitespace

from rram_hil.errors import ConfigError, DataError
from rram_hil.hardware.driver import Identity
from rram_hil.plugins import names
from rram_hil.types import FloatArray
from rram_hil.units import Unit
from rram_hil.validation import StrictModel, parse_toml, read_toml, refused

VERSION = 1
LONGEST = 64
"""Arrays of more values stand in the HDF5 file beside."""
KINDS = "rram_hil.calibration_kinds"
"""Entry-point group of the kinds of calibration: the names that `kind` may have."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Width = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Value(StrictModel):
    """One quantity: a number or a list, with the half-width of its 95 % interval (same length) and
    its unit ("1" for none).
    """

    value: Number | Annotated[list[Number], Field(min_length=1)]
    half_width: Width | Annotated[list[Width], Field(min_length=1)]
    unit: str

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        one, other = self.value, self.half_width
        if isinstance(one, list) != isinstance(other, list) or (
            isinstance(one, list) and isinstance(other, list) and len(one) != len(other)
        ):
            raise ValueError("value and half_width must have the same length")
        return self

    @property
    def values(self) -> FloatArray:
        """The value or values, shape (n,)."""
        return np.atleast_1d(np.asarray(self.value, dtype=np.float64))

    @property
    def half_widths(self) -> FloatArray:
        """Half-widths of the 95 % intervals, shape (n,)."""
        return np.atleast_1d(np.asarray(self.half_width, dtype=np.float64))

    def scalar(self) -> float:
        """The value where there is only one."""
        return float(self.values[0])


class Belongs(StrictModel):
    """Whose calibration it is: instrument or board by model and serial number, channel, chip; empty
    where it does not matter.
    """

    model: str = ""
    serial: str = ""
    channel: str = ""
    chip: str = ""

    def __str__(self) -> str:
        parts = [
            self.model,
            self.serial and f"serial {self.serial}",
            self.channel and f"channel {self.channel}",
            self.chip and f"chip {self.chip}",
        ]
        return ", ".join(p for p in parts if p)


class CalibrationFile(StrictModel):
    """A whole calibration. `print` gives its text, `parse` takes it; both are exact."""

    kind: Name
    version: Annotated[int, Field(ge=1, le=VERSION)] = VERSION
    date: datetime
    validity_days: Annotated[float, Unit("d"), Field(gt=0, allow_inf_nan=False)]
    operator: str = ""
    method: str = ""
    reference: str = ""
    instrument: Belongs
    conditions: dict[Name, str | Number] = Field(default={})
    values: Annotated[dict[Name, Value], Field(min_length=1)]

    @field_validator("date")
    @classmethod
    def _in_utc(cls, date: datetime) -> datetime:
        if date.tzinfo is None:
            raise ValueError("the date needs its time zone, as in 2026-05-01T12:00:00Z")
        try:
            return date.astimezone(UTC)
        except OverflowError:
            raise ValueError("the date is out of the calendar") from None

    @property
    def expires(self) -> datetime:
        """When its validity ends (UTC)."""
        try:
            return self.date + timedelta(days=self.validity_days)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)

    def value(self, name: str) -> float:
        """A value that is one number; 0 where the file has none of that name."""
        return self.values[name].scalar() if name in self.values else 0.0

    def half_width(self, name: str) -> float:
        """Half-width of `value`; 0 where the file has none."""
        return float(self.values[name].half_widths[0]) if name in self.values else 0.0

    def list_of(self, name: str) -> FloatArray | None:
        """Values of a list, None where the file has none of that name."""
        return self.values[name].values if name in self.values else None

    def print(self) -> str:
        """The file as TOML with every array in it."""
        return _printed(self, set(), {})

    @property
    def digest(self) -> str:
        """SHA-256 of `print`, hexadecimal: the same wherever the arrays stand."""
        return hashlib.sha256(self.print().encode()).hexdigest()

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the TOML at `path`; arrays of more than `LONGEST` values go to `<stem>.arrays.h5`
        beside it.

        Raises `ConfigError` where a file is there and `force` is False, `DataError` where the disk
        refuses.
        """
        long = {n for n, v in self.values.items() if v.values.size > LONGEST}
        beside = arrays_beside(path)
        for target in (path, *([beside] if long else [])):
            if target.exists() and not force:
                raise ConfigError(f"{target} exists; give another file")
        arrays: dict[str, str] = {}
        try:
            if long:
                with h5py.File(beside, "w") as file:
                    for name in sorted(long):
                        value = self.values[name]
                        group = file.create_group(name)
                        for part in ("values", "half_widths"):
                            data = group.create_dataset(part, data=getattr(value, part))
                            data.attrs["units"] = value.unit
                digest = hashlib.sha256(beside.read_bytes()).hexdigest()
                arrays = {"arrays": beside.name, "arrays_sha256": digest}
            aside = path.with_name(f"{path.name}.new")
            aside.write_text(_printed(self, long, arrays), encoding="utf-8")
            aside.replace(path)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be written: {error}") from None


def arrays_beside(path: Path) -> Path:
    """Where the long arrays of a calibration file at `path` stand."""
    return path.with_name(f"{path.stem}.arrays.h5")


def parse(text: str, where: str = "calibration", folder: Path = Path()) -> CalibrationFile:
    """A calibration from its text; arrays beside it are looked for in `folder`. Raises
    `ConfigError` naming what is wrong.
    """
    return _validated(parse_toml(text, where), where, folder)


def load(path: Path) -> CalibrationFile:
    """Read a calibration file. Raises `ConfigError` naming file, key, value and what is allowed."""
    tables, _ = read_toml(path, "a calibration file")
    return _validated(tables, str(path), path.parent)


def is_calibration(path: Path) -> bool:
    """Whether a calibration file of any kind stands at `path`."""
    try:
        load(path)
    except ConfigError:
        return False
    return True


def _validated(tables: dict[str, Any], where: str, folder: Path) -> CalibrationFile:
    tables = dict(tables)
    version = tables.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(f"{where}: version {version}; this rram_hil reads up to {VERSION}")
    kind = tables.get("kind")
    if isinstance(kind, str) and kind not in (known := names(KINDS)):
        there = ", ".join(known) or "none"
        raise ConfigError(f"{where}: kind: {kind!r} is unknown; there is: {there}")
    name, digest = tables.pop("arrays", ""), tables.pop("arrays_sha256", "")
    if name:
        tables["values"] = _with_arrays(
            tables.get("values"), folder / str(name), str(digest), where
        )
    try:
        return CalibrationFile.model_validate(tables)
    except ValidationError as error:
        raise refused(error, where, CalibrationFile) from None


def _with_arrays(values: Any, path: Path, digest: str, where: str) -> Any:
    """The values with those that stand in the HDF5 file in their places."""
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ConfigError(
                f"{where}: arrays: {path} is not the file that belongs to it (its SHA-256 differs)"
            )
        found = dict(values)
        with h5py.File(path) as file:
            for name, value in found.items():
                if value.get("stored"):
                    arrays = {k: file[name][f"{k}s"][()].tolist() for k in ("value", "half_width")}
                    found[name] = {"unit": value.get("unit", ""), **arrays}
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: arrays: {path} cannot be read: {error}") from None
    return found


def _printed(file: CalibrationFile, stored: set[str], arrays: dict[str, str]) -> str:
    """The file as TOML, without the values that are `stored` in the HDF5 file that `arrays` names.
    The text is what `digest` is taken of: not one byte of it may change.
    """
    tables = file.model_dump(exclude={"instrument", "conditions", "values"}) | arrays
    date = file.date.replace(tzinfo=None).isoformat(timespec="microseconds")
    tables["date"] = tomlkit.value(f"{date}Z")
    tables["instrument"] = {name: one for name, one in file.instrument.model_dump().items() if one}
    if file.conditions:
        tables["conditions"] = file.conditions
    tables["values"] = {
        name: {"stored": True, "unit": value.unit}
        if name in stored
        else {part: _numbers(one) for part, one in value.model_dump().items()}
        for name, value in file.values.items()
    }
    return tomlkit.dumps(tables)


def _numbers(value: object) -> object:
    """Lists as TOML arrays, made at once: appending counts all numbers before."""
    if not isinstance(value, list):
        return value
    items: list[Item] = [
        one for number in value for one in (tomlkit.item(number), Whitespace(", "))
    ]
    return Array(items[:-1], Trivia())


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What a calibration found: a calibration file but for what only the bench knows (`complete`).

    `channel` is the calibrated channel's own name; `identity` the instrument's where it is not the
    bench's own; `file` where a recipe wants it.
    """

    kind: str
    values: dict[str, Value]
    method: str
    reference: str
    validity_days: float
    file: str = ""
    channel: str = ""
    identity: Identity | None = None
    conditions: dict[str, str | float] = field(default_factory=dict)
    of_chip: bool = False
    """Whether it belongs to the chip alone, whatever reads it."""
    with_chip: bool = False
    """Whether it belongs to the instrument with this chip in its socket."""

    def complete(
        self,
        identity: Identity,
        chip_id: str,
        date: datetime,
        operator: str = "",
        temperature_k: float | None = None,
    ) -> CalibrationFile:
        """The calibration file, of the bench that `identity` and `chip_id` name."""
        mine = self.identity if self.identity is not None else identity
        chip = chip_id if self.of_chip or self.with_chip else ""
        names = ("", "") if self.of_chip else (mine.model, mine.serial)
        conditions = dict(self.conditions)
        if temperature_k is not None:
            conditions["temperature_k"] = temperature_k
        return CalibrationFile(
            kind=self.kind,
            date=date,
            validity_days=self.validity_days,
            operator=operator,
            method=self.method,
            reference=self.reference,
            instrument=Belongs(model=names[0], serial=names[1], channel=self.channel, chip=chip),
            conditions=conditions,
            values=self.values,
        )

    def __str__(self) -> str:
        rows = []
        for name, value in self.values.items():
            unit = "" if value.unit == "1" else f" {value.unit}"
            if value.values.size == 1:
                rows.append(f"{name} = {value.scalar():.6g} +- {value.half_widths[0]:.2g}{unit}")
            else:
                low, high, wide = value.values.min(), value.values.max(), value.half_widths.max()
                rows.append(
                    f"{name} = {low:.4g} .. {high:.4g} +- {wide:.2g}{unit}"
                    f" ({value.values.size} values)"
                )
        return "; ".join(rows)


def measured_value(value: float, half_width: float, unit: str) -> Value:
    """One value. Raises `ConfigError` where it is no number: then nothing was measured."""
    if not (math.isfinite(value) and math.isfinite(half_width)):
        raise ConfigError(
            f"the calibration found {value:g} +- {half_width:g} {unit}: too few usable readings"
        )
    return Value(value=float(value), half_width=float(half_width), unit=unit)


def measured_values(values: FloatArray, half_widths: FloatArray, unit: str) -> Value:
    """A list of values. Raises as `measured_value`."""
    if not (np.isfinite(values).all() and np.isfinite(half_widths).all()):
        raise ConfigError(
            "the calibration found no number for some of its values: too few usable readings"
        )
    return Value(
        value=[float(v) for v in values], half_width=[float(v) for v in half_widths], unit=unit
    )
