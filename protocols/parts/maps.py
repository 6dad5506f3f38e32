"""Reading a map: cell by cell, or all cells of a block at once by orthogonal codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rram_hil.array import MAP, Block, Cells, CodedRead, Status, read
from rram_hil.engine.protocol import Plan, Save, Setting, map_of
from rram_hil.networks.programmed_network import Programmed
from rram_hil.types import FloatArray

By = Literal["cells", "codes", "either"]
"""How a map is read: single readings; codes through the multiply, refused where the bench has none;
or codes where it has one, else single readings.
"""


@dataclass(frozen=True, eq=False)
class MapReading:
    """Conductance and standard uncertainty of each cell (S, shape (n,); NaN where there is none),
    and what it took: single readings and multiplied vectors. `gate_a` is the mean current into each
    cell's word line where the read condition asks for it.
    """

    conductance_s: FloatArray
    sigma_s: FloatArray
    reads: int
    vectors: int
    gate_a: FloatArray | None = None


def read_cells(
    cells: Cells,
    setting: Setting,
    *,
    by: By,
    repeat: int,
    label: str,
    blocks: tuple[Block, ...] | None = None,
) -> Plan[MapReading]:
    """Read `cells`, `repeat` times each, under the bench's read condition. Codes go over `blocks`,
    which hold all the cells; by default over rectangles around them.
    """
    if by == "cells":
        result = yield from read(cells, setting.read, repeat=repeat, label=label)
        reads = int(result.reads.sum())
        return MapReading(result.mean_s, result.mean_error_s, reads, 0, _mean_a(result.gate_a))
    gate = setting.read.levels("wl", 1)
    coded = CodedRead(
        Block.covering(cells) if blocks is None else blocks,
        float(np.abs(setting.read.cell_v(1)[0])),
        0.0 if gate is None else float(gate[0]),
        repeat,
        setting.read.without_gate() if by == "either" else None,
        label,
        setting.read.body_v,
        setting.read.unselected_wl_v,
    )
    found = yield from coded
    usable = found.status == Status.OK
    place = coded.cells.places_of(cells)
    return MapReading(
        np.where(usable, found.conductance_s, np.nan)[place],
        np.where(usable, found.sigma_s, np.nan)[place],
        found.reads,
        found.vectors,
    )


def _mean_a(gate_a: FloatArray | None) -> FloatArray | None:
    """Mean over each cell's readings (A), shape (n,); NaN where one is none or over range."""
    if gate_a is None:
        return None
    mean = gate_a.mean(axis=1)
    return np.where(np.isfinite(mean), mean, np.nan)


def read_network(
    programmed: Programmed, setting: Setting, *, by: By, repeat: int, label: str
) -> Plan[tuple[MapReading, int]]:
    """Read the cells of a network, `repeat` times each, for the map that it and the run file keep;
    the reading, and how many cells had none. Inputs and ADC ranges are to be chosen anew.
    """
    mapping = programmed.mapping
    found = yield from read_cells(
        mapping.cells, setting, by=by, repeat=repeat, label=label, blocks=mapping.rectangles
    )
    conductance = map_of(mapping.cells, found.conductance_s, setting.geometry)
    programmed.map_s, unreadable = mapping.fill(conductance)
    programmed.encoding = None
    yield Save("conductance", conductance, MAP, "S")
    return found, unreadable
