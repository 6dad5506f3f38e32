"""Models that refuse what they do not know, and the one line that says what is wrong with an
input.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rram_hil.errors import ConfigError
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
PositiveSiemens = Annotated[Positive, Unit("S")]
FiniteSiemens = Annotated[Finite, Unit("S")]
NotNegativeSiemens = Annotated[NotNegative, Unit("S")]
PositiveAmperes = Annotated[Positive, Unit("A")]
PositiveOhms = Annotated[Positive, Unit("ohm")]
NotNegativeOhms = Annotated[NotNegative, Unit("ohm")]


class StrictModel(BaseModel):
    """Base of every model: unknown keys and guessing coercions are refused, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def refused(error: ValidationError, where: str) -> ConfigError:
    """The first problem that pydantic found (and how many more) in one line: key, value, what is
    allowed.
    """
    problems = error.errors()
    # A misspelt required key shows as unknown and as missing: what stands there says more.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = "unknown key"
    elif first["type"] == "missing":
        text = "missing; it is required"
    else:
        text = re.sub(r"^Value error, ", "", first["msg"])
        if not isinstance(first["input"], dict):
            text = f"{first['input']!r} is wrong: {text[0].lower()}{text[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = f"{key and f'{key}: '}{text}{more}"
    return ConfigError(message, where=where, key=key, value=first["input"])


_BACKSLASH = re.compile(
    r'"[^"\n]*?\\(?:[^btnfr"\\uU]|u(?![0-9A-Fa-f]{4})|U(?![0-9A-Fa-f]{8}))[^"\n]*"'
)
"""A string in double quotes with a backslash that begins no escape, as a Windows path has."""


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """The tables of a TOML file and its text, without the byte-order mark that editors on Windows
    put before it. Raises `ConfigError` with the line that is wrong.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(
            f"{path}: cannot be read: it is UTF-16, as PowerShell's `>` does; save it as UTF-8"
        )
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        return tomllib.loads(text), text
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        help_ = ""
        if path_like := _BACKSLASH.search(text):
            literal = path_like[0].replace('"', "'")
            help_ = f"; a path with backslashes stands in single quotes: {literal}"
        raise ConfigError(f"{path}: not valid TOML: {error}{help_}") from None
