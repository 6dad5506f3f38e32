"""What read disturb and half-select disturb have in common: conductances of victims against a count
of stresses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.array import Apply, Cells, read
from rram_hil.engine.protocol import Plan, Progress, Save, Setting
from rram_hil.report.plots import Chart
from rram_hil.report.section import Axis, Line, Plot, Section, band_of
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, estimated, mean, median, proportion, quantiles, slope
from rram_hil.types import FloatArray

from .characterisation import (
    log_counts,
    repeated,
    save_band,
    save_cells,
    save_figures,
    save_map,
)


@dataclass(frozen=True)
class DisturbSummary:
    """Victims, those that conduct enough for a change to be told, stresses each took, and the
    change of G since before the first, as a part of it.

    `change_per_decade` is the mean slope against log10 of the count; `disturbed` is the share of
    victims whose G has changed by more than `disturbed_fraction` at the end.
    """

    cells: int
    conducting: int
    stresses: int
    median_change: Figure
    mean_change: Figure
    change_per_decade: Figure
    disturbed: Figure


def against_count(
    cells: Cells,
    stress: Apply,
    *,
    most: int,
    per_decade: int,
    repeat: int,
    disturbed_fraction: float,
    conducts_above_s: float,
    what: str,
    setting: Setting,
) -> Plan[DisturbSummary]:
    """Read, then give `stress` and read again at log-spaced counts up to `most`; saves the
    curves. Refuses at once a stress that limits forbid.
    """
    counts = log_counts(most, per_decade)
    reading = read(cells, setting.read, repeat=repeat, label=f"{what}, read")
    setting.require(stress, reading)
    yield Progress(0, most, f"reading {len(cells)} cells")
    values = [(yield from reading).mean_s]
    given = 0
    for count in counts:
        yield Progress(given, most, f"{len(cells)} cells, {count} times")
        more = np.full(len(stress.cells), count - given, dtype=np.int64)
        yield from repeated(stress, more, setting)
        given = count
        values.append((yield from reading).mean_s)
    g = np.stack(values, axis=1)
    first = g[:, :1]
    usable = g[:, 0] >= conducts_above_s
    change = np.divide(g - first, first, out=np.full(g.shape, np.nan), where=usable[:, None])
    yield from save_cells(cells)
    yield Save("count", np.array([0, *counts]), ("count",))
    yield Save("conductance_by_count", g, ("cell", "count"), "S")
    yield from _save_picture(counts, change[usable], what)
    yield save_map("change", cells, change[:, -1], "", setting)
    rng = setting.rng("bootstrap")
    decades = np.log10(np.array(counts, dtype=np.float64))
    last = change[usable][:, -1]
    last = last[np.isfinite(last)]
    steep = slope(decades, change[usable][:, 1:]) if len(counts) > 1 else np.zeros(0)
    return (
        yield from save_figures(
            DisturbSummary(
                len(cells),
                int(usable.sum()),
                most,
                estimated(median, last, "", rng),
                estimated(mean, last, "", rng),
                estimated(mean, steep[np.isfinite(steep)], "", rng),
                proportion(int(np.sum(np.abs(last) > disturbed_fraction)), last.size),
            )
        )
    )


def _save_picture(counts: list[int], change: FloatArray, what: str) -> Plan[None]:
    if change.size == 0:
        return
    yield Save("stressed_count", np.array(counts), ("stressed",))
    title = f"{what.capitalize()}: change of G"
    chart = Chart(title, "stressed_count", log="x", label="change / G", dots=True)
    yield from save_band("change", quantiles(change[:, 1:]), ("stressed",), "", chart)


def disturb_section(step: RunStep, stress: str) -> Section | None:
    """Change of every victim's conductance against the count of stresses, and where it ended."""
    count, g = step.values("count"), step.values("conductance_by_count")
    if not step.has("stressed_count"):
        return Section(f"None of the {len(g)} victims conducts enough for a change to be told.")
    first = g[:, :1]
    change = np.divide(g - first, first, out=np.full(g.shape, np.nan), where=first > 0)
    at, axis = step.values("stressed_count"), Axis(stress, "", log=True)
    band = band_of(
        "median", at, [step.values(f"change_{end}") for end in ("low", "median", "high")]
    )
    thin = [Line(count[1:], row[1:], faint=True) for row in change]
    states = quantiles(g[np.isfinite(first[:, 0]) & (first[:, 0] > 0)])
    return Section(
        "",
        (
            Plot(
                "Change of conductance",
                axis,
                Axis("ΔG / G before"),
                (band, *thin),
                "Thin: victims. Line: median; band: 16 to 84 % of those that conduct.",
            ),
            Plot(
                "Conductance of the victims",
                axis,
                Axis("conductance", "S"),
                (band_of("", count[1:], [part[1:] for part in states]),),
                "Line: median; band: 16 to 84 %.",
            ),
        ),
    )
