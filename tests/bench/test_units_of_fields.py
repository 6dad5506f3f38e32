"""Every number of a bench file or a recipe that has a dimension says its unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from rram_hil.bench.bench_file import BenchFile, section_model
from rram_hil.plugins import entries
from rram_hil.simulation.model import DeviceModel
from rram_hil.units import units_of

SYMBOLS = {
    "v": {"V"},
    "volts": {"V"},
    "a": {"A"},
    "amps": {"A"},
    "ohm": {"ohm"},
    "s": {"s", "S"},  # seconds or siemens: the name alone does not tell
    "seconds": {"s"},
    "siemens": {"S"},
    "hz": {"Hz"},
    "k": {"K"},
    "j": {"J"},
    "days": {"d"},
}
NAMED_ALIKE = {"log10_s": "", "gain_v": "", "gain_a": "", "bytes_per_s": "B/s"}
"""Names that end like a unit and mean another: logarithms, gains, rates."""


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _models(model: type[BaseModel], found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """A model and all that its fields are made of."""
    found.add(model)
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in found:
                _models(part, found)
    return found


def _all_models() -> list[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    for model in (BenchFile, section_model("simulation"), DeviceModel):
        _models(model, found)
    for group in ("protocols", "calibration", "drivers", "instruments"):
        for entry in entries(f"rram_hil.{group}"):
            plugin = entry.load()
            _models(getattr(plugin, "Config", plugin), found)
    found.discard(BaseModel)  # stands for a section that a plug-in describes
    return sorted(found, key=lambda model: f"{model.__module__}.{model.__qualname__}")


MODELS = _all_models()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.__module__}.{m.__qualname__}")
def test_a_field_named_after_a_unit_has_that_unit(model: type[BaseModel]) -> None:
    units = units_of(model)
    for name, field in model.model_fields.items():
        suffix = name.rpartition("_")[2]
        if name in NAMED_ALIKE:
            assert units.get(name, "") == NAMED_ALIKE[name]
        elif suffix in SYMBOLS and {float, int} & set(_parts(field.annotation)):
            assert units.get(name) in SYMBOLS[suffix], f"{name}: {units.get(name)}"
        elif name in units:
            assert suffix not in SYMBOLS, f"{name}: a unit on something that is no number"


def test_one_name_has_one_unit_everywhere() -> None:
    told: dict[str, dict[str, list[str]]] = {}
    for model in MODELS:
        for name, unit in units_of(model).items():
            told.setdefault(name, {}).setdefault(unit, []).append(model.__qualname__)
    assert {name: of for name, of in told.items() if len(of) > 1} == {}
    assert {u for of in told.values() for u in of} >= {"V", "A", "ohm", "s", "S", "Hz", "K", "J"}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.__module__}.{m.__qualname__}")
def test_the_json_schema_says_the_same_units(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    properties = schema.get("properties") or schema["$defs"][model.__name__]["properties"]
    told = {n: set(re.findall(r"'unit': '([^']+)'", str(p))) for n, p in properties.items()}
    assert {name: unit for name, unit in told.items() if unit} == {
        name: {unit} for name, unit in units_of(model).items()
    }
