"""Level allocation: which conductances to use as levels, and where to tell them apart, by how far
cells really lie from their targets after a rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.array import MAP, Status, read
from rram_hil.engine.protocol import Plan, Progress, Protocol, Save, Setting, map_of
from rram_hil.errors import ConfigError
from rram_hil.networks.programmed_network import Programmed
from rram_hil.report.section import Axis, Line, Plot, Section, by_level
from rram_hil.report.step import RunStep
from rram_hil.statistics import Figure, median, proportion, robust_spread
from rram_hil.types import FloatArray
from rram_hil.validation import NotNegativeSiemens, PositiveSiemens

from .parts.characterisation import save_figures
from .parts.targets import Windows, to_program

MOST_BITS = 4
_GROUPS = 16
_LEAST_CELLS = 8
_LEAST_TARGETS = 3
_GRID = 4001


@dataclass(frozen=True)
class LevelSummary:
    """Cells that tell, bits a cell, and how the levels lie: `separation` is by how many standard
    deviations the threshold between two neighbours is beyond the mean of each.

    `expected_error` is the share of cells that are taken for another level where errors are normal,
    `measured_error` the share of the measured cells that lie as far from what their targets come
    to; `enough_bits` is the most bits of 1 to 4 whose measured error is at most `most_error`.
    """

    cells: int
    bits: int
    enough_bits: int
    separation: Figure
    expected_error: Figure
    measured_error: Figure


class LevelAllocation(Protocol[LevelSummary]):
    """Read what the last programming step brought to its targets (a map of targets all over the
    range, and a rest behind it), and choose 2^`bits` levels between `lowest_s` and `highest_s`, by
    default the ends of the targets that were measured, which neither may leave by more than a
    standard deviation of the cells there.

    Mean and robust spread of the conductance are taken as functions of the target; levels and
    thresholds then lie so that each threshold is the same number of standard deviations from the
    means on its two sides, as many as fit (equal error of all levels, instead of equal distances).
    Only cells that the step accepted tell, if it was a verify: the others are known to be wrong.
    """

    tag: str = "network"
    bits: Annotated[int, Field(ge=1, le=MOST_BITS)] = 2
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1
    lowest_s: NotNegativeSiemens | None = None
    highest_s: PositiveSiemens | None = None
    most_error: Annotated[float, Field(gt=0, lt=1)] = 0.01

    @override
    def run(self, setting: Setting) -> Plan[LevelSummary]:
        """Yields one read; saves levels and thresholds of each number of bits."""
        cells, target = to_program(setting.shared_by(self.tag, Programmed))
        yield Progress(0, 1, f"reading {len(cells)} cells")
        reading = read(cells, setting.read, repeat=self.repeat, label="level-allocation")
        result = yield from reading
        found = np.where(result.last_status == Status.OK, result.mean_s, np.nan)
        yield Save("conductance", map_of(cells, found, setting.geometry), MAP, "S")
        yield Save("target", map_of(cells, target, setting.geometry), MAP, "S")
        known = np.isfinite(found)
        windows = setting.shared.get("windows")
        if isinstance(windows, Windows):
            known &= windows.accepted.ravel()[cells.index(setting.geometry)]
        spread = Spread.measured(target[known], found[known])
        ends = self._ends(spread)
        chosen: dict[int, Levels] = {}
        for bits in range(1, MOST_BITS + 1):
            chosen[bits] = levels = spread.levels(1 << bits, *ends)
            dims = (f"level_of_{bits}_bit",)
            yield Save(f"levels_{bits}_bit", levels.target_s, dims, "S")
            thresholds = (f"threshold_of_{bits}_bit",)
            yield Save(f"thresholds_{bits}_bit", levels.threshold_s, thresholds, "S")
        wrong = {
            bits: spread.beyond(target[known], found[known], levels.separation)
            for bits, levels in chosen.items()
        }
        enough = [bits for bits, error in wrong.items() if error.value <= self.most_error]
        levels = chosen[self.bits]
        setting.share("levels", levels)
        nan = float("nan")
        summary = LevelSummary(
            int(known.sum()),
            self.bits,
            max(enough, default=0),
            Figure(levels.separation, nan),
            Figure(levels.error, nan),
            wrong[self.bits],
        )
        return (yield from save_figures(summary))

    def _ends(self, spread: Spread) -> tuple[float, float]:
        low = spread.lowest_s if self.lowest_s is None else self.lowest_s
        high = spread.highest_s if self.highest_s is None else self.highest_s
        if not low < high:
            raise ConfigError(
                f"level-allocation: levels need room between lowest_s ({low:g} S) and highest_s"
                f" ({high:g} S); by default these are the ends of the measured targets"
            )
        least = max(spread.lowest_s - spread.sigma_s[0], 0.0)
        most = spread.highest_s + spread.sigma_s[-1]
        for name, end in (("lowest_s", low), ("highest_s", high)):
            if not least <= end <= most:
                raise ConfigError(
                    f"level-allocation: {name} ({end:g} S) is beyond what was measured; targets of"
                    f" {spread.lowest_s:g} to {spread.highest_s:g} S allow {least:g} to {most:g} S"
                )
        return low, high

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Conductance against target, and the levels and thresholds chosen for each number of
        bits.
        """
        target, found = step.map("target"), step.map("conductance")
        if target is None or found is None or not step.has("levels_1_bit"):
            return None
        known = np.isfinite(target) & np.isfinite(found)
        x, y = target[known], found[known]
        plots = [
            Plot(
                "Conductance against target",
                Axis("target conductance", "S"),
                Axis("conductance", "S"),
                (Line(x, y, "cells", look="dots"), by_level(x, y, "median, 16 to 84 %")),
            )
        ]
        lines = []
        for bits in range(1, MOST_BITS + 1):
            levels = step.values(f"levels_{bits}_bit")
            number = np.full(levels.size, float(bits))
            lines.append(Line(levels, number, f"{levels.size} levels", look="dots"))
        plots.append(Plot("Levels", Axis("conductance", "S"), Axis("bits a cell"), tuple(lines)))
        return Section("", tuple(plots))


@dataclass(frozen=True, eq=False)
class Levels:
    """Targets of levels (S), rising, the thresholds between them, and how many standard deviations
    each threshold is from the means beside it.
    """

    target_s: FloatArray
    threshold_s: FloatArray
    separation: float

    @property
    def error(self) -> float:
        """Share of cells, evenly on all levels, that normal errors take beyond a threshold."""
        n = self.target_s.size
        return (n - 1) / n * math.erfc(max(self.separation, 0.0) / math.sqrt(2))


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean error and robust standard deviation (S) of cells by target (S), interpolated between
    `lowest_s` and `highest_s`, the ends of their targets.
    """

    target_s: FloatArray
    bias_s: FloatArray
    sigma_s: FloatArray
    lowest_s: float
    highest_s: float

    @classmethod
    def measured(cls, target_s: FloatArray, found_s: FloatArray) -> Spread:
        """Of cells with these targets. Raises `ConfigError` where they are too few."""
        order = np.argsort(target_s, kind="stable")
        steps = np.flatnonzero(np.diff(target_s[order])) + 1
        many = steps.size >= _GROUPS
        parts = np.array_split(order, _GROUPS) if many else np.split(order, steps)
        groups = [g for g in parts if g.size >= _LEAST_CELLS]
        if len(groups) < _LEAST_TARGETS:
            raise ConfigError(
                f"level-allocation: of {target_s.size} accepted cells no {_LEAST_TARGETS}"
                f" targets have {_LEAST_CELLS} or more; program more cells, over the whole range"
            )
        error = found_s - target_s
        return cls(
            np.array([float(np.mean(target_s[g])) for g in groups]),
            np.array([float(median(error[g])) for g in groups]),
            np.array([max(float(robust_spread(error[g])), 1e-9) for g in groups]),
            float(np.min(target_s[groups[0]])),
            float(np.max(target_s[groups[-1]])),
        )

    def at(self, target_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (S) of cells with these targets."""
        bias, sigma = (
            np.interp(target_s, self.target_s, values) for values in (self.bias_s, self.sigma_s)
        )
        return target_s + bias, sigma

    def beyond(self, target_s: FloatArray, found_s: FloatArray, separation: float) -> Figure:
        """Share of cells so many standard deviations from the mean of their targets, or more."""
        mean, sigma = self.at(target_s)
        far = np.abs(found_s - mean) >= separation * sigma
        return proportion(int(far.sum()), far.size)

    def levels(self, count: int, low_s: float, high_s: float) -> Levels:
        """`count` levels, the first at `low_s`, none above `high_s`, as far apart as they can."""
        grid = np.linspace(low_s, high_s, _GRID)
        mean, sigma = self.at(grid)

        def chain(separation: float) -> list[int]:
            """Places on the grid of levels as near as this separation allows."""
            places = [0]
            while len(places) < count:
                # No threshold lies below 0, whatever cells that hardly conduct read.
                edge = max(mean[places[-1]] + separation * sigma[places[-1]], 0.0)
                free = mean - separation * sigma >= edge
                free[: places[-1] + 1] = False
                if not free.any():
                    break
                places.append(int(np.argmax(free)))
            return places

        least, most = 0.0, float((mean[-1] - mean[0]) / sigma.min())
        for _ in range(60):
            middle = (least + most) / 2
            least, most = (middle, most) if len(chain(middle)) == count else (least, middle)
        places = np.array(chain(least))
        if places.size < count:
            raise ConfigError(f"level-allocation: no room for {count} levels between the ends")
        mean, sigma = mean[places], sigma[places]
        threshold = np.maximum(mean[:-1] + least * sigma[:-1], 0.0)
        return Levels(grid[places], threshold, least)
