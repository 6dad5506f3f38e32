"""Read a conductance map: every cell, several times, the mean kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rram_hil.array import MAP, read
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting, map_of
from rram_hil.units import Siemens

from .parts.characterisation import mean_conductance


@dataclass(frozen=True)
class MapSummary:
    """Cells read, cells without a usable reading, and the quartiles of the conductance (S)."""

    cells: int
    unreadable: int
    lower_quartile_s: Siemens
    median_s: Siemens
    upper_quartile_s: Siemens


class ReadMap(Protocol[MapSummary]):
    """Read cells `repeat` times and keep the mean of the usable readings as a map."""

    cells: CellChoice = CellChoice()
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1

    def run(self, setting: Setting) -> Plan[MapSummary]:
        """Yields one read of all cells; saves the map "conductance"."""
        cells = self.cells.cells(setting.geometry)
        yield Progress(0, 1, f"reading {len(cells)} cells")
        result = yield from read(cells, setting.read, repeat=self.repeat, label="read map")
        mean = mean_conductance(result)
        yield Save("conductance", map_of(cells, mean, setting.geometry), MAP, "S")
        usable = np.isfinite(mean)
        quartiles = (
            np.percentile(mean[usable], [25, 50, 75]) if usable.any() else np.full(3, np.nan)
        )
        return MapSummary(len(cells), int(np.sum(~usable)), *(float(q) for q in quartiles))
