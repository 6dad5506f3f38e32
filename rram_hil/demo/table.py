"""The table of the demonstration, every number taken from the run file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rram_hil.networks.word_costs import WordCosts
from rram_hil.report.maps import programming_error
from rram_hil.report.model import Cost, CostArm, CostPart, MapPanel
from rram_hil.simulation.config import Timing
from rram_hil.storage.run_reader import RunFile, read_run

FLOAT, ONE_SHOT, SINGLE, CODED = "float", "one-shot", "R-V-W", "coded R-V-W"
KD_ONE_SHOT, KD_SINGLE, RSA = "KD, one-shot", "KD + R-V-W", "KD + RSA"


@dataclass(frozen=True)
class Row:
    """One way of bringing the network onto the chip: what it reaches and what it costs after
    forming.

    `accuracy` is a fraction; pulses, reads and vectors count programming and compensation, not the
    inference; `bench_seconds` is the bench clock over the same. `reference` rows run on the host.
    """

    name: str
    accuracy: float
    pulses: int
    reads: int
    vectors: int
    bench_seconds: float
    words: WordCosts | None = None

    @property
    def reference(self) -> bool:
        """Whether it does not run on the chip."""
        return self.name == FLOAT


@dataclass(frozen=True)
class Programming:
    """How well one-shot programming hit its targets: mean and sigma of G / target - 1 over `cells`
    responsive cells.
    """

    mean: float
    sigma: float
    cells: int


@dataclass(frozen=True, eq=False)
class ChipResult:
    """All that the table needs of one run file; `correct` says of each row on the chip which test
    images it classified as labelled.
    """

    path: Path
    rows: tuple[Row, ...]
    correct: dict[str, NDArray[np.bool_]]
    cost: Cost
    programming: Programming


@dataclass(frozen=True)
class Comparison:
    """Whether compensation is as accurate as the best read-verify-write: not below it by more than
    one standard error of the paired difference over the same images.
    """

    best: str
    difference: float
    standard_error: float

    @property
    def equal(self) -> bool:
        """Whether the compensation counts as equally accurate, or better."""
        return self.difference >= -self.standard_error


_ROWS = (
    (FLOAT, "float", ()),
    (ONE_SHOT, "infer one-shot", ("program teacher",)),
    (SINGLE, "infer verified", ("program teacher", "verify teacher")),
    (CODED, "infer verified by codes", ("program teacher again", "verify teacher by codes")),
    (KD_ONE_SHOT, "infer student", ("program student",)),
    (KD_SINGLE, "infer verified student", ("program student", "verify student")),
    (RSA, "infer adapted", ("program student", "adapt student")),
)


def chip_result(path: Path) -> ChipResult:
    """Read one run file of the demonstration. Raises `DataError` where it is not one or is not
    complete.
    """
    with read_run(path) as run:
        table = run.table("steps")
        seconds = {
            str(name): float(table["ended_s"][k] - table["started_s"][k])
            for k, name in enumerate(table["name"])
        }
        counts = _Operations(run)
        rows = tuple(
            Row(
                name,
                float(run.result(result, "accuracy").values),
                sum(counts.total(step, "pulses") for step in spent),
                sum(counts.total(step, "reads") for step in spent),
                sum(counts.total(step, "vectors") for step in spent),
                sum(seconds[step] for step in spent),
                _words(run) if name == RSA else None,
            )
            for name, result, spent in _ROWS
        )
        correct = {
            name: run.result(step, "predictions").values == run.result(step, "labels").values
            for name, step, spent in _ROWS
            if spent
        }
        return ChipResult(path, rows, correct, _cost(run, counts, seconds), programming(run))


_COUNTED = ("pulses", "reads", "vectors")


class _Operations:
    """The operations of a run by the names of their steps."""

    def __init__(self, run: RunFile) -> None:
        table = run.table("steps")
        self._step = {str(name): int(table["step"][k]) for k, name in enumerate(table["name"])}
        self._table = run.operations()
        self._seconds = self._table["ended_s"] - self._table["started_s"]

    def total(self, step: str, what: str, kind: str | None = None) -> int:
        """Sum of a column over the operations of a step, of one kind or all."""
        return int(np.sum(self._table[what][self._of(step, kind)]))

    def part(self, step: str, kind: str, name: str, count: str) -> CostPart:
        """What operations of one kind did in a step, and how long they took on the board."""
        took = float(np.sum(self._seconds[self._of(step, kind)]))
        return CostPart(name, self.total(step, count, kind), took)

    def count(self, step: str) -> int:
        """Operations of a step."""
        return int(np.sum(self._of(step, None)))

    def _of(self, step: str, kind: str | None) -> NDArray[np.bool_]:
        chosen = np.asarray(self._table["step"] == self._step[step])
        return chosen if kind is None else chosen & (self._table["kind"] == kind)


def _words(run: RunFile) -> WordCosts:
    def saved(name: str) -> float:
        return float(run.result("adapt student", f"on_chip_{name}").values)

    return WordCosts(
        int(saved("words")),
        int(saved("digital")),
        saved("fraction"),
        int(saved("bits")),
        saved("mac_share"),
    )


def _cost(run: RunFile, counts: _Operations, seconds: dict[str, float]) -> Cost:
    timing = tomllib.loads(str(run.attributes["bench"]))["simulation"]["timing"]

    def arm(name: str, step: str, *parts: CostPart, host_s: float = 0.0) -> CostArm:
        operations = counts.count(step)
        link_s = max(seconds[step] - sum(part.seconds for part in parts), 0.0)
        # The virtual clock charges a turn and the bytes of both ways for each operation.
        sent = (link_s - operations * timing["link_s"]) * timing["bytes_per_s"]
        return CostArm(name, parts, operations, max(round(sent), 0), link_s, host_s)

    def verified(name: str, step: str) -> CostArm:
        return arm(name, step, counts.part(step, "Program", "pulses and verification", "pulses"))

    def checked(name: str, step: str) -> CostArm:
        return arm(name, step, counts.part(step, "Multiply", "forward passes: vectors", "vectors"))

    adapt = "adapt student"
    return Cost(
        title="R-V-W against RSA",
        baselines=(
            verified(SINGLE, "verify teacher"),
            verified(CODED, "verify teacher by codes"),
        ),
        compensation=arm(
            RSA,
            adapt,
            counts.part(adapt, "CodedRead", "map read by codes: vectors", "vectors"),
            counts.part(adapt, "WriteWords", "on-chip words written", "cells"),
            host_s=float(run.result(adapt, "host_s").values),
        ),
        apart=(
            checked(f"check of {SINGLE}", "check verified"),
            checked(f"check of {RSA}", "check adapted"),
        ),
        durations=tuple((name, float(timing[name])) for name in Timing.model_fields),
    )


def compare(chips: list[ChipResult]) -> Comparison:
    """The compensation beside the best row of read-verify-write, over all chips."""
    means = {row.name: row.accuracy for row in mean_rows(chips)}
    best = max((SINGLE, CODED, KD_SINGLE), key=means.__getitem__)
    difference = np.mean(
        [chip.correct[RSA].astype(np.float64) - chip.correct[best] for chip in chips], axis=0
    )
    error = float(np.std(difference, ddof=1)) / math.sqrt(difference.size)
    return Comparison(best, float(difference.mean()), error)


def programming(run: RunFile) -> Programming:
    """The one-shot error of the student, from the map read before its adaptation."""
    error = programming_error(student_maps(run, ""))
    return Programming(float(np.mean(error)), float(np.std(error)), int(error.size))


def student_maps(run: RunFile, title: str) -> MapPanel:
    """Target and measured conductance of the student's cells, and which cells forming found stuck,
    on the tiles in use.
    """
    targets, maps = run.map("target"), run.map("conductance")
    table = run.table("steps")
    step = {str(name): int(table["step"][k]) for k, name in enumerate(table["name"])}
    target = np.asarray(
        targets.values[list(targets.step).index(step["program student"])], dtype=np.float64
    )
    measured = np.asarray(
        maps.values[list(maps.step).index(step["adapt student"])], dtype=np.float64
    )
    low, high = (run.map(f"stuck_{kind}_resistance").values[0] > 0 for kind in ("low", "high"))
    used = np.isfinite(target).any(axis=(1, 2))
    return MapPanel(title, target[used], measured[used], low[used], high[used], "Programmed once.")


def mean_rows(chips: list[ChipResult]) -> tuple[Row, ...]:
    """The rows of several chips, averaged; words are the same on all."""
    rows = []
    for same in zip(*(chip.rows for chip in chips), strict=True):
        counts = (round(float(np.mean([getattr(r, what) for r in same]))) for what in _COUNTED)
        rows.append(
            replace(
                same[0],
                accuracy=float(np.mean([r.accuracy for r in same])),
                **dict(zip(_COUNTED, counts, strict=True)),
                bench_seconds=float(np.mean([r.bench_seconds for r in same])),
            )
        )
    return tuple(rows)
