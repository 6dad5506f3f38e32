"""What the recipe of a run says of its steps beforehand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rram_hil.array import Geometry
from rram_hil.bench.plugins import protocol_class
from rram_hil.engine.protocol import CellChoice
from rram_hil.errors import ConfigError
from rram_hil.plugins import working
from rram_hil.validation import parse_toml


@dataclass(frozen=True)
class PlannedStep:
    """A step of the recipe; `cells` is how many cells it works on, None where the recipe does not
    say it.
    """

    name: str
    protocol: str
    cells: int | None


def get_ready() -> None:
    """Import the installed protocols, so that the first page need not wait for it."""
    working("rram_hil.protocols", protocol_class)


def planned_steps(recipe: str, geometry: Geometry) -> list[PlannedStep]:
    """The steps of a recipe's text, which may be any text; none where it has none."""
    try:
        tables = parse_toml(recipe, "recipe").get("step", [])
    except ConfigError:
        return []
    steps = []
    for table in tables if isinstance(tables, list) else []:
        if isinstance(table, dict) and isinstance(protocol := table.get("protocol"), str):
            name = str(table.get("name", re.sub(r".*:", "", protocol)))
            steps.append(PlannedStep(name, protocol, _cells(table, protocol, geometry)))
    return steps


def _cells(table: dict[str, Any], protocol: str, geometry: Geometry) -> int | None:
    """Only an installed protocol is asked: a recipe's local file is code that nobody asked to run
    here, so of that the recipe itself must say it.
    """
    try:
        if ":" not in protocol:
            field = protocol_class(protocol).model_fields.get("cells")
            if field is None or field.annotation is not CellChoice:
                return None
        elif "cells" not in table:
            return None
        choice = CellChoice.model_validate(table.get("cells", {}))
    except (ConfigError, ValidationError):
        return None
    tiles = geometry.tiles if choice.tiles is None else len(choice.tiles)
    spans = ((choice.rows, geometry.rows), (choice.columns, geometry.columns))
    rows, columns = (size if s is None else max(s[1] - s[0] + 1, 0) for s, size in spans)
    return tiles * rows * columns
