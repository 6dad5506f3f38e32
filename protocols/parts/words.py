"""On-chip words and digital parameters: as arrays of a computation, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from rram_hil.engine.protocol import Arrays, Plan, Save
from rram_hil.networks.mapping import LayerWords
from rram_hil.networks.word_costs import WordCosts


def flattened(words: Mapping[str, LayerWords]) -> Arrays:
    """The words of all layers as arrays, which a journal can keep."""
    return {
        f"{name}.{field.name}": np.asarray(getattr(layer, field.name))
        for name, layer in words.items()
        for field in fields(LayerWords)
    }


def restored(arrays: Arrays, names: Iterable[str]) -> dict[str, LayerWords]:
    """What `flattened` gave, of the layers of these names."""

    def layer(name: str) -> LayerWords:
        kept: Arrays = {f.name: arrays[f"{name}.{f.name}"] for f in fields(LayerWords)}
        values: dict[str, Any] = {k: v if v.ndim else float(v) for k, v in kept.items()}
        return LayerWords(**values)

    return {name: layer(name) for name in names}


def save_costs(cost: WordCosts) -> Plan[None]:
    """Keep what a network holds in digital memory, under the names by which it is asked for."""
    for field in fields(WordCosts):
        yield Save(f"on_chip_{field.name}", np.array(getattr(cost, field.name)), ())
