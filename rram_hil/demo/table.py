"""The table of the demonstration, every number taken from the run file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rram_hil.report.maps import programming_error
from rram_hil.report.model import Cost, CostPart, MapPanel
from rram_hil.storage.run_reader import RunFile, read_run


@dataclass(frozen=True)
class Row:
    """One way of bringing the network onto the chip: what it reaches and what it costs after
    forming.

    `accuracy` is a fraction; pulses and reads count programming and compensation, not the
    inference; `bench_seconds` is the bench clock over the same.
    """

    name: str
    accuracy: float
    pulses: int
    reads: int
    bench_seconds: float
    on_chip_words: int


@dataclass(frozen=True)
class Programming:
    """How well one-shot programming hit its targets: mean and sigma of G / target - 1 over `cells`
    responsive cells.
    """

    mean: float
    sigma: float
    cells: int


@dataclass(frozen=True)
class ChipResult:
    """All that the table needs of one run file."""

    path: Path
    rows: tuple[Row, ...]
    cost: Cost
    programming: Programming


_ROWS = (
    ("float", "float", ()),
    ("one-shot", "infer one-shot", ("program teacher",)),
    ("R-V-W", "infer verified", ("program teacher", "verify teacher")),
    ("KD, one-shot", "infer student", ("program student",)),
    ("KD+RSA", "infer adapted", ("program student", "adapt student")),
)


def chip_result(path: Path) -> ChipResult:
    """Read one run file of the demonstration. Raises `DataError` where it is not one or is not
    complete.
    """
    with read_run(path) as run:
        steps = _steps(run)
        words = int(run.result("adapt student", "on_chip_words").values)
        rows = tuple(
            Row(
                name,
                float(run.result(result, "accuracy").values),
                int(sum(steps[s]["pulses"] for s in spent)),
                int(sum(steps[s]["reads"] for s in spent)),
                float(sum(steps[s]["seconds"] for s in spent)),
                words if name == "KD+RSA" else 0,
            )
            for name, result, spent in _ROWS
        )
        return ChipResult(path, rows, _cost(run, steps), programming(run))


def _steps(run: RunFile) -> dict[str, dict[str, float]]:
    table = run.table("steps")
    return {
        str(name): {
            "step": int(table["step"][k]),
            "pulses": int(table["pulses"][k]),
            "reads": int(table["reads"][k]),
            "seconds": float(table["ended_s"][k] - table["started_s"][k]),
        }
        for k, name in enumerate(table["name"])
    }


def _cost(run: RunFile, steps: dict[str, dict[str, float]]) -> Cost:
    table = run.operations()
    seconds = table["ended_s"] - table["started_s"]

    def part(step: str, kind: str, name: str, count: str) -> CostPart:
        chosen = (table["step"] == steps[step]["step"]) & (table["kind"] == kind)
        return CostPart(name, int(np.sum(table[count][chosen])), float(np.sum(seconds[chosen])))

    def link(step: str, parts: tuple[CostPart, ...]) -> CostPart:
        rest = steps[step]["seconds"] - sum(p.seconds for p in parts)
        return CostPart(
            "link: operations sent",
            int(np.sum(table["step"] == steps[step]["step"])),
            max(rest, 0.0),
        )

    verify = (part("verify teacher", "Program", "read-verify-write: pulses", "pulses"),)
    adaptation = (
        part("adapt student", "Apply", "map read: cells", "reads"),
        part("adapt student", "Multiply", "forward passes: vectors", "vectors"),
        part("adapt student", "WriteWords", "on-chip words written", "cells"),
    )
    timing = tomllib.loads(str(run.attributes["bench"])).get("simulation", {}).get("timing", {})
    return Cost(
        title="R-V-W against RSA",
        verify=(*verify, link("verify teacher", verify)),
        adaptation=(*adaptation, link("adapt student", adaptation)),
        clock="virtual",
        durations=tuple((str(name), float(value)) for name, value in timing.items()),
    )


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
    """The rows of several chips, averaged."""
    rows = []
    for same in zip(*(chip.rows for chip in chips), strict=True):
        rows.append(
            Row(
                same[0].name,
                float(np.mean([r.accuracy for r in same])),
                round(float(np.mean([r.pulses for r in same]))),
                round(float(np.mean([r.reads for r in same]))),
                float(np.mean([r.bench_seconds for r in same])),
                round(float(np.mean([r.on_chip_words for r in same]))),
            )
        )
    return tuple(rows)
