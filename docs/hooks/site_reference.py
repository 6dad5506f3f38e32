"""Pages of the site that are made from the code: keys of recipes and bench files, the command line,
the run file's columns, the API.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import rram_hil
from rram_hil.bench.bench_file import BenchFile, section_model
from rram_hil.bench.plugins import driver_class, protocol_class
from rram_hil.bench.recipe import Head
from rram_hil.cli import add_calibrate_commands, app
from rram_hil.hardware.instrument import instrument_class
from rram_hil.plugins import names
from rram_hil.storage import run_layout
from rram_hil.storage.hdf5 import TEXT, Column
from rram_hil.units import Unit

WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    dict: "table",
    np.ndarray: "array (in Python)",
}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
API = {
    "Drivers and instruments": (
        "rram_hil.hardware.driver",
        "rram_hil.hardware.instrument",
        "rram_hil.hardware.thermostat",
    ),
    "Operations, results, limits": (
        "rram_hil.array.cells",
        "rram_hil.array.operations",
        "rram_hil.array.results",
        "rram_hil.array.limits",
    ),
    "Protocols": ("rram_hil.engine.protocol", "rram_hil.statistics", "rram_hil.units"),
    "Networks": (
        "rram_hil.networks.network",
        "rram_hil.networks.layers",
        "rram_hil.networks.mapping",
        "rram_hil.networks.placement",
        "rram_hil.networks.inference",
        "rram_hil.networks.programmed_network",
    ),
    "Learning": (
        "rram_hil.learning.train",
        "rram_hil.learning.adapt",
        "rram_hil.learning.chip_layers",
    ),
    "Simulation": (
        "rram_hil.simulation.bank",
        "rram_hil.simulation.model",
        "rram_hil.simulation.chip",
    ),
    "Runs": ("rram_hil.storage.run_reader", "rram_hil.catalogue.catalog"),
    "Errors": ("rram_hil.errors",),
    "In tests": ("rram_hil.pytest_plugin",),
}
"""Pages of the API beside the front door: the modules that a user's code names."""


def keys(model: type[BaseModel], level: int, shown: set[type[BaseModel]]) -> str:
    """A table of a model's keys, and one for each table among them that is not in `shown` yet."""
    inner: list[type[BaseModel]] = []
    rows = []
    for name, field in model.model_fields.items():
        marks = [*field.metadata]
        what = _words(field.annotation, marks, inner)
        unit = next((mark.symbol for mark in marks if isinstance(mark, Unit)), "")
        rows.append((f"`{name}`", what, unit, _default(field), field.description or ""))
    parts = [table(("key", "what", "unit", "default", "remark"), rows)] if rows else []
    for one in dict.fromkeys(inner):
        if one not in shown:
            shown.add(one)
            head = f"{'#' * level} `{one.__name__}` {{ #{anchor(one)} }}"
            parts += [head, inspect.cleandoc(one.__doc__ or ""), keys(one, level, shown)]
    return "\n\n".join(parts)


def anchor(model: type[BaseModel]) -> str:
    """Where a table of keys stands on its page: models of two modules may have one name."""
    return f"{model.__module__.rpartition('.')[2]}-{model.__name__}".lower().replace("_", "-")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in lines
    )


def _words(hint: Any, marks: list[Any], inner: list[type[BaseModel]]) -> str:
    """A type as a reader of TOML knows it. What is said beside the type goes into `marks`, models
    into `inner`.
    """
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        own = [m for mark in inside[1:] for m in _flat(mark)]
        marks += own
        return _words(inside[0], own, inner) if get_origin(inside[0]) else _bounded(inside[0], own)
    if origin in (Union, UnionType):
        kinds = (_words(kind, marks, inner) for kind in inside if kind is not type(None))
        return " or ".join(dict.fromkeys(kinds))
    if origin is Literal:
        return " or ".join(f"`{value_text(value)}`" for value in inside)
    if origin is list:
        return f"list of {_words(inside[0], marks, inner)}{_lengths(marks)}"
    if origin is tuple:
        return f"[{', '.join(_words(kind, marks, inner) for kind in inside)}]"
    if inspect.isclass(origin or hint) and issubclass(origin or hint, BaseModel):
        inner.append(hint)
        return f"[`{hint.__name__}`](#{anchor(hint)})"
    return _bounded(origin or hint, marks)


def _flat(mark: Any) -> list[Any]:
    return list(mark.metadata) if isinstance(mark, FieldInfo) else [mark]


def _bounded(kind: Any, marks: list[Any]) -> str:
    """A plain type and its bounds."""
    bounds = [
        f"{word} {value_text(getattr(mark, name))}"
        for mark in marks
        for name, word in BOUNDS.items()
        if getattr(mark, name, None) is not None
    ]
    return ", ".join([WORDS.get(kind, getattr(kind, "__name__", str(kind))), *bounds])


def _lengths(marks: list[Any]) -> str:
    least, most = (
        next((getattr(m, name) for m in marks if hasattr(m, name)), None)
        for name in ("min_length", "max_length")
    )
    if least is None and most is None:
        return ""
    return f" ({least} of them)" if least == most else f" ({least or 0} or more of them)"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value == "" else f"`{value_text(value)}`"


def value_text(value: Any) -> str:
    """A value as it stands in TOML."""
    if isinstance(value, BaseModel):
        inside = {
            k: getattr(value, k) for k in type(value).model_fields if k in value.model_fields_set
        }
        given = [f"{k} = {value_text(v)}" for k, v in inside.items() if v is not None]
        return f"{{ {', '.join(given)} }}" if given else "{}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, int) and value >= 1 << 40:
        return f"2^{value.bit_length() - 1}"
    return (
        f'"{value}"'
        if isinstance(value, str)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def recipes(page: str) -> str:
    """docs/recipes.md with a table of keys below what it says of each protocol."""
    shown: set[type[BaseModel]] = set()
    first, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    known = {*names("rram_hil.protocols"), *names("rram_hil.calibration")}
    parts = [first, "### Keys above the steps\n\n", keys(Head, 4, shown), "\n\n"]
    for section in sections:
        name = section.partition("\n")[0].removeprefix("## ").strip()
        parts.append(section)
        if name in known:
            parts += ["\n\n", keys(protocol_class(name), 3, shown), "\n\n"]
    return "".join(parts)


def bench_file() -> str:
    """Every key of a bench file, drivers' and instruments' own sections among them."""
    shown: set[type[BaseModel]] = set()
    parts = [
        "# Bench file",
        "Every section and key, made from the code that reads them. `rram-hil check BENCH` says"
        " what is wrong with a file.",
    ]
    for name in ("chip", "limits", "read", "calibration"):
        model = BenchFile.model_fields[name].annotation
        assert inspect.isclass(model)
        parts += _section(f"[{name}]", model, shown)
    parts += _section("[simulation]", section_model("simulation"), shown)
    for name in names("rram_hil.drivers"):
        parts += _section(f'[driver] of `name = "{name}"`', driver_class(name).Config, shown)
    for kind in names("rram_hil.instruments"):
        parts += _section(f'Instrument of `kind = "{kind}"`', instrument_class(kind).Config, shown)
    return "\n\n".join(parts)


def _section(title: str, model: type[BaseModel], shown: set[type[BaseModel]]) -> list[str]:
    return [f"## {title}", inspect.cleandoc(model.__doc__ or ""), keys(model, 3, shown)]


def command_line() -> str:
    """Every command, its arguments and options."""
    add_calibrate_commands()
    parts = [
        "# Command line",
        "Made from the commands themselves; `rram-hil COMMAND --help` prints the same.",
    ]
    for path, command in _commands(["rram-hil"], typer.main.get_command(app)):
        parts += [f"## {' '.join(path)}", inspect.cleandoc(command.help or "")]
        rows = [
            (f"`{_spelling(one)}`", one.help or "", _needed(one))
            for one in command.params
            if one.name != "help"
        ]
        if rows:
            parts.append(table(("argument or option", "what", "default"), rows))
    return "\n\n".join(parts)


def _spelling(parameter: Any) -> str:
    """An option's names and value, an argument's name."""
    if not parameter.opts[0].startswith("-"):
        return str(parameter.metavar or parameter.name)
    value = "" if parameter.is_flag else f" {parameter.metavar or 'N'}"
    return f"{', '.join(parameter.opts)}{value}"


def _needed(parameter: Any) -> str:
    """Whether a parameter is required, else its default where there is one."""
    given = parameter.default
    return "required" if parameter.required else "" if given in (None, False, "") else f"`{given}`"


def _commands(path: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    yield path, command
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _commands([*path, name], inner)


def run_file() -> str:
    """The tables of a run file, column by column."""
    parts = [
        "# Run file, column by column",
        f"Format `{run_layout.FORMAT}`, version {run_layout.FORMAT_VERSION}; what the"
        " tables mean and how maps and results are laid out: [the run file](../run-file.md).",
    ]
    for name in ("operations", "cells", "codes", "steps", "notes", "settings"):
        columns: tuple[Column, ...] = getattr(run_layout, name.upper())
        rows = [
            (
                f"`{c.name}`",
                "text" if c.dtype is TEXT else np.dtype(c.dtype).name,
                c.units,
                c.long_name
                + (
                    f": {', '.join(f'{k} {word}' for k, word in enumerate(c.flags))}"
                    if c.flags
                    else ""
                ),
            )
            for c in columns
        ]
        parts += [f"## /{name}", table(("column", "type", "unit", "what"), rows)]
    parts += [
        "## Frames of the journal",
        "What the run file is made from, append by append.",
        "::: rram_hil.storage.frames",
    ]
    return "\n\n".join(parts)


def api() -> dict[str, str]:
    """Pages of the API: file name -> text."""
    front = [name for name in rram_hil.__all__ if not name.endswith("Error")]
    pages = {
        "rram_hil": "# rram_hil\n\nThe names of daily work, all in `rram_hil`.\n\n"
        + "\n\n".join(f"::: rram_hil.{name}" for name in front)
    }
    for title, modules in API.items():
        body = "\n\n".join(f"::: {module}" for module in modules)
        pages[title.lower().replace(",", "").replace(" ", "-")] = f"# {title}\n\n{body}"
    return pages
