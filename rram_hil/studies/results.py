"""The results of a study: its table as numbers, from the records of its jobs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rram_hil.studies.jobs import FORMED, ArmRecord, FormingRecord, Job, TrainingRecord
from rram_hil.studies.plan import Planned
from rram_hil.studies.store import Store


@dataclass(frozen=True, eq=False)
class Cell:
    """One arm on one chip, and its network in floating point on the same images."""

    arm: ArmRecord
    network: TrainingRecord

    def value(self, name: str) -> float:
        """A figure of `FIGURES` by its name."""
        return float(FIGURES[name].of(self))


@dataclass(frozen=True)
class Figure:
    """A figure of an arm on a chip: what it is, its unit, and how it is taken."""

    long_name: str
    units: str
    of: Callable[[Cell], float]


REACHED: dict[str, Figure] = {
    "accuracy": Figure("test images classified as labelled", "1", lambda c: c.arm.accuracy),
    "float_accuracy": Figure(
        "the same of the same network in floating point", "1", lambda c: c.network.accuracy
    ),
}
COSTS: dict[str, Figure] = {
    "words": Figure("on-chip words", "1", lambda c: c.arm.words),
    "digital": Figure("digital parameters trained with the words", "1", lambda c: c.arm.digital),
    "fraction": Figure("words and digital over weights", "1", lambda c: c.arm.fraction),
    "bits": Figure(
        "bits of words, digital parameters, places and order", "bit", lambda c: c.arm.bits
    ),
    "mac_share": Figure(
        "share of the multiply-accumulates that words do", "1", lambda c: c.arm.mac_share
    ),
    "pulses": Figure("pulses after forming", "1", lambda c: c.arm.costs.pulses),
    "reads": Figure("single readings after forming", "1", lambda c: c.arm.costs.reads),
    "vectors": Figure(
        "multiplied vectors, without the inference", "1", lambda c: c.arm.costs.vectors
    ),
    "bench_s": Figure(
        "bench clock after forming, without the inference", "s", lambda c: c.arm.costs.bench_s
    ),
    "host_s": Figure("seconds of the host, all in all", "s", lambda c: c.arm.host_s),
}
FIGURES = REACHED | COSTS


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
        return self.mean("accuracy")

    @property
    def float_accuracy(self) -> float:
        """Of the network in floating point."""
        return self.mean("float_accuracy")

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

    def mean(self, name: str) -> float:
        """Mean of a figure over the chips."""
        return float(np.mean([c.value(name) for c in self.cells]))


@dataclass(frozen=True, eq=False)
class Results:
    """What is done of a study."""

    planned: Planned
    cells: dict[tuple[str, str, int], Cell]
    formings: dict[tuple[str, int], FormingRecord]

    def row(self, device: str, arm: str) -> Row | None:
        """A row of the table; None where no chip is done."""
        chips = self.planned.study.seeds
        cells = [self.cells[at] for c in chips if (at := (device, arm, c)) in self.cells]
        return Row(device, arm, tuple(cells)) if cells else None


def collect(planned: Planned, store: Store) -> Results:
    """The results of the jobs that are done. Raises `DataError` for a damaged record."""
    cells, formings = {}, {}
    for place, job in planned.table.items():
        formed = job.needs.get(FORMED)
        if formed is not None and store.has(formed):
            formings[place[0], place[2]] = cast(FormingRecord, store.record(formed))
        if store.has(job):
            arm = cast(ArmRecord, store.record(job))
            cells[place] = Cell(arm, _network(job, store))
    return Results(planned, cells, formings)


def _network(job: Job, store: Store) -> TrainingRecord:
    return cast(TrainingRecord, store.record(job.needs["student.safetensors"]))
