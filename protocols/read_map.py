"""Read a conductance map: every cell, several times, the mean kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rram_hil.array import MAP
from rram_hil.engine.protocol import CellChoice, Plan, Progress, Protocol, Save, Setting, map_of
from rram_hil.report.section import Axis, Plot, Section, by_level, histogram
from rram_hil.report.step import RunStep
from rram_hil.units import Siemens

from .parts.maps import By, read_cells
from .parts.sections import BAND, programmed_plots, spread_plot
from .parts.targets import Windows


@dataclass(frozen=True)
class MapSummary:
    """Cells read, cells without a usable reading, and the quartiles of the conductance (S).

    Where an earlier step verified cells, `inside_windows` of them lie in their windows now, and
    `moved_out` were accepted then and do not; None else.
    """

    cells: int
    unreadable: int
    lower_quartile_s: Siemens
    median_s: Siemens
    upper_quartile_s: Siemens
    inside_windows: int | None = None
    moved_out: int | None = None


class ReadMap(Protocol[MapSummary]):
    """Read cells `repeat` times and keep the mean of the usable readings as a map.

    `by` "codes" reads whole blocks at once through the multiply (docs/coded-reads.md), "either"
    does so where the bench has one.
    """

    cells: CellChoice = CellChoice()
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1
    by: By = "cells"

    def run(self, setting: Setting) -> Plan[MapSummary]:
        """Yields one read of all cells; saves the maps "conductance" and, where readings tell it,
        "conductance_sigma" and "gate_a", the current into each cell's word line.
        """
        cells = self.cells.cells(setting.geometry)
        yield Progress(0, 1, f"reading {len(cells)} cells")
        found = yield from read_cells(
            cells, setting, by=self.by, repeat=self.repeat, label="read map"
        )
        mean = found.conductance_s
        yield Save("conductance", map_of(cells, mean, setting.geometry), MAP, "S")
        if np.isfinite(found.sigma_s).any():
            sigma = map_of(cells, found.sigma_s, setting.geometry)
            yield Save("conductance_sigma", sigma, MAP, "S")
        if found.gate_a is not None:
            yield Save("gate_a", map_of(cells, found.gate_a, setting.geometry), MAP, "A")
        usable = np.isfinite(mean)
        quartiles = (
            np.percentile(mean[usable], [25, 50, 75]) if usable.any() else np.full(3, np.nan)
        )
        inside, moved_out = None, None
        windows = setting.shared.get("windows")
        if isinstance(windows, Windows):
            here = map_of(cells, np.ones(len(cells), dtype=np.bool_), setting.geometry, False)
            is_inside = windows.inside(map_of(cells, mean, setting.geometry))
            inside = int(is_inside.sum())
            moved_out = int((windows.accepted & here & ~is_inside).sum())
        low, median, high = (float(q) for q in quartiles)
        return MapSummary(len(cells), int(np.sum(~usable)), low, median, high, inside, moved_out)

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Histogram and distribution of the map; its error where the run has targets; its
        uncertainty where the readings tell one.
        """
        found = step.map("conductance")
        if found is None:
            return None
        plots = [
            Plot(
                "Histogram of the map",
                Axis("conductance", "S"),
                Axis("cells in a bin"),
                (histogram(found),),
            ),
            spread_plot("Distribution of the map", {"": found}, "conductance", "S"),
        ]
        sigma = step.map("conductance_sigma")
        if sigma is not None:
            line = by_level(found.ravel(), sigma.ravel())
            axes = Axis("conductance", "S"), Axis("standard error of the mean", "S")
            plots.append(Plot("Uncertainty of the map", *axes, (line,), BAND))
        target = step.map_before("target")
        if target is not None:
            plots += programmed_plots(target, found, "as this step read it", step)
        return Section("", tuple(plots))
