"""Models that refuse what they do not know, and the one line that says what is wrong with an
input.
"""

from __future__ import annotations

import codecs
import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from rram_hil.errors import ConfigError, near
from rram_hil.units import Unit

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FiniteVolts = Annotated[Finite, Unit("V")]
PositiveVolts = Annotated[Positive, Unit("V")]
NotNegativeVolts = Annotated[NotNegative, Unit("V")]
PositiveSeconds = Annotated[Positive, Unit("s")]
NotNegativeSeconds = Annotated[NotNegative, Unit("s")]
PositiveKelvins = Annotated[Positive, Unit("K")]
PositiveSiemens = Annotated[Positive, Unit("S")]
FiniteSiemens = Annotated[Finite, Unit("S")]
NotNegativeSiemens = Annotated[NotNegative, Unit("S")]
PositiveAmperes = Annotated[Positive, Unit("A")]
PositiveOhms = Annotated[Positive, Unit("ohm")]
NotNegativeOhms = Annotated[NotNegative, Unit("ohm")]


def _beside_the_bench_file(name: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return str(Path(folder) / name) if name and folder is not None else name


FileOfBench = Annotated[str, AfterValidator(_beside_the_bench_file)]
"""A file that a bench file names: relative to its own folder (`folder` of the context)."""


class StrictModel(BaseModel):
    """Base of every model: unknown keys and guessing coercions are refused, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but what was worked out of the old fields and kept (`cached_property`)
        stays with the old model.
        """
        made = super().model_copy(update=update, deep=deep)
        for name in [name for name in vars(made) if name not in type(made).model_fields]:
            del vars(made)[name]
        return made


def refused(
    error: ValidationError, where: str, model: type[BaseModel] | None = None
) -> ConfigError:
    """The first problem that pydantic found (and how many more) in one line: key, value, what is
    allowed; with the `model` also the key that was probably meant.
    """
    problems = error.errors()
    # A misspelt required key shows as unknown and as missing: what stands there says more.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    if isinstance(first["input"], list):
        # Where one number or a list may stand, the problem is that of an item of the list.
        whole = first["loc"][:-1]
        first = next(
            (p for p in problems if p["loc"][:-2] == whole and isinstance(p["loc"][-1], int)), first
        )
    # pydantic puts the kind of list that it tried among the keys.
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("list["))
    if first["type"] == "extra_forbidden":
        text = f"unknown key{_meant(first['loc'], problems, model)}"
    elif first["type"] == "missing":
        text = "missing; it is required"
    elif first["type"] == "list_type" and isinstance(first["input"], dict):
        text = f"one table, where a list is wanted: [...], or of tables [[{key}]]"
    elif first["type"] in ("model_type", "dict_type"):
        text = f"{shown(first['input'])} is wrong: a table is wanted"
        if isinstance(first["input"], list):
            text = f"a list, where one table is wanted; write [{key}]"
    else:
        text = re.sub(r"^Value error, ", "", first["msg"])
        if not isinstance(first["input"], dict):
            text = f"{shown(first['input'])} is wrong: {text[0].lower()}{text[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = f"{key and f'{key}: '}{text}{more}"
    return ConfigError(message, where=where, key=key, value=first["input"])


def _meant(
    place: tuple[int | str, ...], problems: Sequence[Any], model: type[BaseModel] | None
) -> str:
    """The remark that names the key which an unknown one is nearest to, empty for none."""
    *parents, name = place
    known = [
        p["loc"][-1] for p in problems if p["type"] == "missing" and [*p["loc"][:-1]] == parents
    ]
    for part in parents:
        model = None if model is None or isinstance(part, int) else _model_of(model, part)
    known += list(model.model_fields) if model is not None else []
    return near(str(name), map(str, known))


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a field, None where it has none or more than one."""
    field = model.model_fields.get(name)
    kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
    found = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    return found[0] if len(found) == 1 else None


def shown(value: object) -> str:
    """A value of an input for a message: its `repr`, cut where it is long or deep."""
    try:
        return _SHORT.repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12
_SHORT.maxlong = 60
_SHORT.maxlevel = 4


def read_toml(path: Path, what: str = "") -> tuple[dict[str, Any], str]:
    """The tables of a TOML file and its text. Raises `ConfigError` with the line that is wrong, and
    where the file is plainly another kind than `what`, one of `KINDS`.
    """
    text = read_text(path)
    return parse_toml(text, str(path), what), text


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without the byte-order mark that editors on Windows put before
    it. Raises `ConfigError`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a zero byte in the path
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(
            f"{path}: cannot be read: it is UTF-16, as PowerShell's `>` does; save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}; save it as UTF-8") from None


def parse_toml(text: str, where: str, what: str = "") -> dict[str, Any]:
    """The tables of a TOML text; raises as `read_toml`, naming `where`."""
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where}: not valid TOML: {_TOO_DEEP}") from None
    except ValueError as error:  # also a whole number of thousands of digits
        raise ConfigError(f"{where}: not valid TOML: {error}{_path_help(text)}") from None
    if _is_deep(tables):
        raise ConfigError(f"{where}: {_TOO_DEEP}")
    other = next((kind for kind, keys in KINDS.items() if keys <= set(tables)), what)
    if what and other != what and not KINDS[what] & set(tables):
        raise ConfigError(f"{where}: {other}, where {what} is wanted")
    return tables


_BACKSLASH = re.compile(
    r'"[^"\n]*?\\(?:[^btnfr"\\uU]|u(?![0-9A-Fa-f]{4})|U(?![0-9A-Fa-f]{8}))[^"\n]*"'
)
"""A string in double quotes with a backslash that begins no escape, as a Windows path has."""


def _path_help(text: str) -> str:
    """How a path with backslashes is written, where there is one in double quotes; else empty."""
    found = _BACKSLASH.search(text)
    if found is None:
        return ""
    literal = found[0].replace('"', "'")
    return f"; a path with backslashes stands in single quotes: {literal:.200}"


KINDS: dict[str, frozenset[str]] = {
    "a bench file": frozenset({"chip", "driver"}),
    "a recipe": frozenset({"step"}),
    "a calibration file": frozenset({"kind", "values"}),
    "a device model": frozenset({"forming", "set", "reset"}),
}
"""Files of this package, and the keys above which each of them has."""
DEEPEST = 64
_TOO_DEEP = f"nested more than {DEEPEST} deep"


def _is_deep(tables: object) -> bool:
    """Whether a value is nested more than `DEEPEST` deep; dotted keys nest without recursion."""
    level: list[object] = [tables]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True
