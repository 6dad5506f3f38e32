"""The results of a study: its table as numbers, from the records of its jobs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rram_hil.studies.jobs import ArmRecord, FormingRecord, Job, TrainingRecord
from rram_hil.studies.plan import Planned
from rram_hil.studies.store import Store


@dataclass(frozen=True, eq=False)
class Cell:
    """One arm on one chip, and its network in floating point on the same images."""

    arm: ArmRecord
    network: TrainingRecord

    @property
    def gap(self) -> float:
        """Accuracy on the chip minus that in floating point."""
        return self.arm.accuracy - self.network.accuracy


@dataclass(frozen=True, eq=False)
class Row:
    """An arm on the chips of one device that are done: mean and least accuracy, the mean gap to the
    network in floating point with the standard error of the paired difference over the images, and
    mean costs.
    """

    device: str
    arm: str
    cells: tuple[Cell, ...]

    @property
    def accuracy(self) -> float:
        """Mean of the chips."""
        return self.mean(lambda c: c.arm.accuracy)

    @property
    def least(self) -> float:
        """Of the worst chip."""
        return min(c.arm.accuracy for c in self.cells)

    @cached_property
    def _differences(self) -> NDArray[np.float64]:
        """For every image the difference to floating point (1, 0 or -1), mean of the chips."""
        each = [
            c.arm.right.values().astype(np.float64) - c.network.right.values() for c in self.cells
        ]
        return np.asarray(np.mean(each, axis=0))

    @property
    def gap(self) -> float:
        """Mean of chips and images."""
        return float(self._differences.mean())

    @property
    def gap_error(self) -> float:
        """Standard error of the gap."""
        values = self._differences
        return float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.nan

    def mean(self, of: Callable[[Cell], float]) -> float:
        """Mean over the chips."""
        return float(np.mean([of(c) for c in self.cells]))


@dataclass(frozen=True, eq=False)
class Results:
    """What is done of a study."""

    planned: Planned
    cells: dict[tuple[str, str, int], Cell]
    formings: dict[tuple[str, int], FormingRecord]

    def row(self, device: str, arm: str) -> Row | None:
        """A row of the table; None where no chip is done."""
        chips = self.planned.chips
        cells = [self.cells[at] for c in chips if (at := (device, arm, c)) in self.cells]
        return Row(device, arm, tuple(cells)) if cells else None


def collect(planned: Planned, store: Store) -> Results:
    """The results of the jobs that are done. Raises `DataError` for a damaged record."""
    cells, formings = {}, {}
    for place, job in planned.table.items():
        formed = job.needs.get("formed.zip")
        if formed is not None and store.has(formed):
            formings[place[0], place[2]] = cast(FormingRecord, store.record(formed))
        if store.has(job):
            arm = cast(ArmRecord, store.record(job))
            cells[place] = Cell(arm, _network(job, store))
    return Results(planned, cells, formings)


def _network(job: Job, store: Store) -> TrainingRecord:
    return cast(TrainingRecord, store.record(job.needs["student.safetensors"]))
