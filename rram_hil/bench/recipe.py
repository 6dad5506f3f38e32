"""The recipe: a TOML list of steps, each a protocol and its parameters."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rram_hil.bench.plugins import protocol_class
from rram_hil.engine.protocol import Protocol
from rram_hil.errors import ConfigError, near
from rram_hil.validation import StrictModel, read_toml, refused


class Head(StrictModel):
    """The keys of a recipe above its steps."""

    title: str = ""
    operator: str = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    log: Literal["all", "summary"] = Field(
        default="all", description="summary: the run file lists operations, not every cell of each"
    )
    step: Annotated[list[dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class RecipeStep:
    """One step: its name, its protocol's name, and the protocol with its parameters."""

    name: str
    protocol_name: str
    protocol: Protocol


@dataclass(frozen=True)
class Recipe:
    """A validated recipe. `digest` tells whether a resumed run has the same recipe."""

    path: Path
    text: str
    head: Head
    steps: tuple[RecipeStep, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a recipe. Raises `ConfigError` naming file, step, key, value and what is
    allowed.
    """
    path = Path(path)
    tables, text = read_toml(path, "a recipe")
    try:
        head = Head.model_validate(tables)
    except ValidationError as error:
        raise refused(error, str(path), Head) from None
    steps: list[RecipeStep] = []
    for number, table in enumerate(head.step, 1):
        parameters = dict(table)
        protocol_name = parameters.pop("protocol", None)
        if not isinstance(protocol_name, str):
            raise ConfigError(
                f"{path}: step {number}: protocol: missing; give its name, as in protocol ="
                f' "forming"{_misspelt(table)}'
            )
        name = parameters.pop("name", re.sub(r".*:", "", protocol_name))
        if (
            not isinstance(name, str)
            or not re.fullmatch(r"\w[\w .-]*", name)
            or any(name == s.name for s in steps)
        ):
            raise ConfigError(
                f"{path}: step {number}: name {name!r} must be plain words that no other step has;"
                " add name = ..."
            )
        where = f"{path}: step {number}"
        try:
            kind = protocol_class(protocol_name, path.parent)
            where = f"{where} ({protocol_name})"
            steps.append(RecipeStep(name, protocol_name, kind(**parameters)))
        except ConfigError as error:
            error.where = where
            raise
    return Recipe(path, text, head, tuple(steps))


def _misspelt(table: dict[str, Any]) -> str:
    """The remark that names the key of a step which was probably meant for `protocol`."""
    there = next((key for key in table if near(key, ["protocol"])), "")
    return f"; there is {there!r}" if there else ""
