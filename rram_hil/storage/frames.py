"""The frames of a journal: what one append keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from rram_hil.array import Geometry
from rram_hil.array.cells import LATER
from rram_hil.errors import (
    BenchError,
    ConfigError,
    DataError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import Identity
from rram_hil.storage.codec import AnyArray, Record
from rram_hil.types import IntArray

TEMPERATURE = "temperature_k"
"""Attribute of a saved array: what the bench's thermostat read when it was saved."""
_RESERVED = frozenset(
    (
        "units",
        "time_s",
        "auxiliary",
        "dtype",
        "CLASS",
        "NAME",
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "_FillValue",
    )
)

Scalar: TypeAlias = str | int | float
ClockKind = Literal["virtual", "wall"]
LogKind = Literal["all", "summary"]
NoteEvent = Literal["info", "interrupted", "resumed", "aborted", "error"]
EndStatus = Literal["complete", "aborted", "error"]


def text_hash(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Stamp:
    """Which ledger counts a chip's pulses, and how many changes it had taken."""

    ledger: str
    count: int


@dataclass(frozen=True, eq=False)
class Header:
    """Who, when and what: always the first frame. `log` says whether the run file lists every
    cell's events.

    `recipe` is empty for a run without one (a notebook). `protocols` gives the version of each
    protocol of the run (a resumed run needs the same), `versions` those of other software,
    `calibration` what is in force, `thermostat` who holds the temperature.
    """

    run: str
    chip_id: str
    geometry: Geometry
    bench: str
    recipe: str
    started_utc: str
    clock: ClockKind
    instrument: Identity
    package_version: str
    protocols: Mapping[str, str] = field(default_factory=dict)
    git_revision: str = ""
    seed: int | None = None
    die: str = ""
    lot: str = ""
    operator: str = ""
    temperature_k: float | None = None
    log: LogKind = "all"
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, str] = field(default_factory=dict)
    thermostat: str = field(default="", metadata=LATER)

    @property
    def bench_hash(self) -> str:
        """SHA-256 of the bench file's text, hexadecimal."""
        return text_hash(self.bench)

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the recipe's text, hexadecimal."""
        return text_hash(self.recipe)


@dataclass(frozen=True)
class StepStart:
    """Step `step` (from 1) of the recipe begins, at `time_s` on the bench clock."""

    step: int
    name: str
    protocol: str
    version: str
    time_s: float = 0.0


@dataclass(frozen=True)
class StepEnd:
    """Step `step` is over, at `time_s` on the bench clock."""

    step: int
    time_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Intent:
    """Operation `operation` is about to run; `charge` is its worst case in pulses a cell, shape
    (n,), or (0,) for none.

    `time_s` is the bench clock when it was written.
    """

    operation: int
    step: int
    record: Record
    charge: IntArray
    time_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of operation `operation`."""

    operation: int
    record: Record


@dataclass(frozen=True, eq=False)
class Saved:
    """An array that a protocol saved by name, one name a dimension; `time_s` on the bench clock."""

    step: int
    name: str
    values: AnyArray
    dims: tuple[str, ...]
    units: str = ""
    attrs: Mapping[str, Scalar] = field(default_factory=dict)
    time_s: float = 0.0

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if len(self.dims) != values.ndim or len(set(self.dims)) != len(self.dims):
            raise DataError(
                f"saved {self.name!r}: dims {self.dims} must name each of {values.ndim} dimensions"
                " once"
            )
        if not self.name or any(
            "/" in word or word in ("", ".", "..") for word in (self.name, *self.dims)
        ):
            raise DataError(
                f"saved {self.name!r}: its name and dims {self.dims} must be plain words"
                " without '/'"
            )
        if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
            raise DataError(
                f"saved {self.name!r}: values must be numbers or booleans, not {values.dtype}"
            )
        if taken := _RESERVED.intersection(self.attrs):
            raise DataError(
                f"saved {self.name!r}: the attribute {min(taken)!r} is the run file's own; choose"
                " another name"
            )
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, eq=False)
class Computed:
    """What a computation of a protocol gave, so that a resumed run does not compute it again."""

    step: int
    name: str
    arrays: Mapping[str, AnyArray]


@dataclass(frozen=True)
class Failed:
    """Operation `operation` ended in an error of the class `error`; 0: it was refused before it had
    a number.

    `data` are the attributes of the error as JSON; empty in journals of earlier versions.
    """

    operation: int
    error: str
    text: str
    data: str = ""

    @classmethod
    def of(cls, operation: int, error: BenchError) -> Failed:
        """What is kept of an error."""
        return cls(operation, type(error).__name__, error.message, error.data())

    def restored(self) -> BenchError:
        """The error as the protocol met it; of a class that a driver made, its attributes alone."""
        kind = _ERRORS.get(self.error, LinkError)
        known = {f.name for f in fields(kind)}
        try:
            kept = json.loads(self.data or "{}").items()
        except (ValueError, AttributeError, RecursionError) as error:
            raise DataError(f"damaged journal: the error of an operation: {error}") from None
        data: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in kept if k in known
        }
        return kind(self.text, **data)


_ERRORS: dict[str, type[BenchError]] = {
    k.__name__: k
    for k in (ConfigError, LimitError, InstrumentError, LinkError, UnknownOutcomeError)
}


@dataclass(frozen=True, eq=False)
class Aside:
    """An operation done within the computation `computation`, with its result, both as summaries.

    It stresses no cell and is not replayed: the computation is either in the journal as a whole or
    repeated.
    """

    operation: int
    step: int
    computation: str
    record: Record
    result: Record


@dataclass(frozen=True)
class Note:
    """Something to remember: an interruption, an abort, an error, a remark."""

    event: NoteEvent
    text: str
    utc: str
    time_s: float = 0.0


@dataclass(frozen=True)
class Resume:
    """The run goes on after an interruption; all that comes back is compared with the header."""

    utc: str
    instrument: Identity
    operator: str = ""
    package_version: str = ""
    time_s: float = 0.0


@dataclass(frozen=True)
class Close:
    """The run is over. An aborted run may still be resumed: then frames follow."""

    status: EndStatus
    utc: str
    time_s: float = 0.0


Frame = (
    Header
    | StepStart
    | StepEnd
    | Intent
    | Outcome
    | Saved
    | Computed
    | Note
    | Resume
    | Close
    | Aside
    | Failed
)
_KINDS: dict[int, type[Any]] = dict(
    enumerate(
        (
            Header,
            StepStart,
            StepEnd,
            Intent,
            Outcome,
            Saved,
            Computed,
            Note,
            Resume,
            Close,
            Aside,
            Failed,
        ),
        start=1,
    )
)
_NUMBERS = {cls: number for number, cls in _KINDS.items()}
