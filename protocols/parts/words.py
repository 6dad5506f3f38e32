"""On-chip words and digital parameters: as arrays of a computation, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from rram_hil.engine.protocol import Arrays, Plan, Save
from rram_hil.networks.adapters import Adapter
from rram_hil.networks.mapping import LayerWords
from rram_hil.networks.word_costs import WordCosts


def flattened(words: Mapping[str, LayerWords]) -> Arrays:
    """The words of all layers as arrays, which a journal can keep."""
    return {
        f"{name}.{field}": np.asarray(value)
        for name, layer in words.items()
        for held in (layer, layer.adapter)
        if held is not None
        for field, value in vars(held).items()
        if field != "adapter"
    }


def restored(arrays: Arrays, names: Iterable[str]) -> dict[str, LayerWords]:
    """What `flattened` gave, of the layers of these names."""

    def held(name: str, kind: type[LayerWords] | type[Adapter]) -> dict[str, Any]:
        kept = {f.name: arrays.get(f"{name}.{f.name}") for f in fields(kind)}
        return {k: v if v.ndim else float(v) for k, v in kept.items() if v is not None}

    def layer(name: str) -> LayerWords:
        adapter = held(name, Adapter)
        return LayerWords(**held(name, LayerWords), adapter=Adapter(**adapter) if adapter else None)

    return {name: layer(name) for name in names}


def save_costs(cost: WordCosts) -> Plan[None]:
    """Keep what a network holds in digital memory, under the names by which it is asked for."""
    for field in fields(WordCosts):
        yield Save(f"on_chip_{field.name}", np.array(getattr(cost, field.name)), ())
