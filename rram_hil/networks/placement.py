"""Which weights of a network are where: on which tile, rows and columns, or digital."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rram_hil.networks.mapping import Mapping
from rram_hil.networks.network import Network
from rram_hil.types import IntArray

DIGITAL, UNPLACED = -1, -2
"""The tiles of what is on none, and of what no array was given for."""


@dataclass(frozen=True)
class Place:
    """A part of a weight on a tile (rows and columns from the first to the one after the last), or
    a tensor that stays digital.
    """

    name: str
    values: int
    tile: int = DIGITAL
    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)

    @property
    def is_digital(self) -> bool:
        """Whether it is off the array."""
        return self.tile == DIGITAL

    def __str__(self) -> str:
        if self.is_digital:
            return "digital"
        if self.tile == UNPLACED:
            return "array"
        (top, bottom), (left, right) = self.rows, self.columns
        return f"tile {self.tile}, rows {top}-{bottom - 1}, columns {left}-{right - 1}"


def places(mapping: Mapping, network: Network | None = None) -> tuple[Place, ...]:
    """Every block of every weight on the array, then what of `network` stays digital."""
    on_array = [
        Place(
            layer.name,
            block.inputs * block.outputs,
            block.tile,
            (block.row, block.row + block.inputs),
            (block.column, block.column + 2 * block.outputs),
        )
        for layer in mapping.layers
        for block in layer.blocks
    ]
    if network is None:
        return tuple(on_array)
    off = {
        f"{name}.weight": weight.size
        for name, weight in network.weights.items()
        if name not in mapping.names
    }
    rest = [Place(name, size) for name, size in (off | network.digital).items()]
    return (*on_array, *rest)


def unplaced(network: Network) -> tuple[Place, ...]:
    """What of a network goes to an array, wherever that is, and what stays digital."""
    on_array = [Place(name, weight.size, UNPLACED) for name, weight in network.weights.items()]
    return (*on_array, *(Place(name, size) for name, size in network.digital.items()))


FIELDS = ("weight", "values", "tile", "first row", "end row", "first column", "end column")
"""Columns of the table of places in a run file; `weight` counts its list of names."""


def to_table(placed: Sequence[Place]) -> tuple[IntArray, str]:
    """The places as a table of `FIELDS` for a run file, and the names of the weights as JSON."""
    names = list(dict.fromkeys(place.name for place in placed))
    rows = [(names.index(p.name), p.values, p.tile, *p.rows, *p.columns) for p in placed]
    return np.array(rows, dtype=np.int64).reshape(-1, len(FIELDS)), json.dumps(names)


def from_table(table: IntArray, names: str) -> tuple[Place, ...]:
    """What `to_table` gave."""
    weights = json.loads(names)
    return tuple(
        Place(weights[weight], values, tile, (top, bottom), (left, right))
        for weight, values, tile, top, bottom, left, right in table.tolist()
    )


def rows_of(placed: Sequence[Place], most: int = 2) -> list[tuple[str, str, str]]:
    """The places as rows of a table: weight, values, where; one row a weight or tensor, and one
    for the biases of the weights on the array.
    """
    by_name: dict[str, list[Place]] = {}
    weights = {place.name for place in placed if not place.is_digital}
    for place in placed:
        is_bias = place.is_digital and place.name.removesuffix(".bias") in weights
        by_name.setdefault("their biases" if is_bias else place.name, []).append(place)
    rows = []
    for name, own in by_name.items():
        shown = list(dict.fromkeys(map(str, own)))
        where = "; ".join(shown[:most])
        left = len(shown) - most
        rows.append(
            (
                name,
                str(sum(place.values for place in own)),
                where + (f"; and {left} more blocks" if left > 0 else ""),
            )
        )
    return rows
