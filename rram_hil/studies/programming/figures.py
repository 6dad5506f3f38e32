"""The figures of a programming method: from the run file of its run, and from its journal, which
has every pulse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    Apply,
    ApplyResult,
    CodedRead,
    CodedReadResult,
    Program,
    ProgramResult,
    Status,
)
from rram_hil.errors import DataError
from rram_hil.report.step import RunStep, steps_of
from rram_hil.storage.codec import operation_from, result_from
from rram_hil.storage.frames import Intent, Outcome
from rram_hil.storage.journal import read_journal
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import journal_of
from rram_hil.types import FloatArray, IntArray

PROGRAM, BEFORE = "program", "before"
AFTER = {"at_once": "at once", "after_1_s": "after 1 s", "after_1_day": "after 1 day"}
"""Names of the recipe's steps: programming, the map before it, and the maps after it by the names
of their figures.
"""
REASONS = {
    "out_of_pulses": "had spent their pulses",
    "out_of_reversals": "had spent their reversals",
    "never_opened": "never came below their windows",
    "never_closed": "never came above their windows",
    "stuck_low_resistance": "did not respond to RESET pulses",
    "stuck_high_resistance": "did not respond to SET pulses",
    "not_formed": "conducted nothing after their SET pulses",
    "unreadable": "could not be read",
    "skipped": "were left by the method",
}
"""Why cells were not accepted, as the summary of a programming step counts them."""
_COUNTED = {
    "pulses": "pulses a cell",
    "set_pulses": "SET pulses a cell",
    "reset_pulses": "RESET pulses a cell",
    "inside_pulses": "pulses a cell of those accepted",
    "reads": "single readings a cell",
    "reversals": "changes of polarity a cell",
}
PERCENTILES = {"mean": "mean", "p50": "median", "p95": "95th percentile", "p99": "99th percentile"}
"""What stands in figures of counts a cell: the mean, too."""
FIGURES: dict[str, tuple[str, str]] = {
    "cells": ("cells that were to be programmed", "1"),
    "inside": ("share of them that was accepted", "1"),
    **{name: (f"share of them that {told}", "1") for name, told in REASONS.items()},
    **{
        f"{name}_{key}": (f"{told}, {taken}", "1")
        for name, told in _COUNTED.items()
        for key, taken in PERCENTILES.items()
    },
    "vectors": ("multiplied vectors of coded readings", "1"),
    "bench_s": ("bench clock of the programming step", "s"),
    "energy_j": ("energy a cell of pulses and single readings, from what flows, mean", "J"),
    **{
        f"{name}_{key}": (f"{told}, {when}", units)
        for name, told, units in (
            ("outside", "share of the cells outside their windows", "1"),
            ("bit_error_rate", "wrong bits over bits, levels in Gray code", "1"),
            ("rms_error_s", "root mean square of conductance - target", "S"),
        )
        for key, when in AFTER.items()
    },
    "moved_out": ("share of the accepted cells that a map at once finds outside", "1"),
    "neighbours": ("cells that were left alone", "1"),
    "disturbed": ("share of them that moved by more than a tenth and 1 uS", "1"),
}
"""Every figure of a run: what it is and its unit."""
MOVED, MOVED_S = 0.1, 1e-6
"""A neighbour that moved by more than both was disturbed."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What cells were to be programmed to, maps of shape (tiles, rows, columns), NaN where they
    were left alone: target and window (S); `bounds_s` are the conductances that part the levels,
    falling, shape (levels - 1,), None for continuous targets.
    """

    target_s: FloatArray
    low_s: FloatArray
    high_s: FloatArray
    bounds_s: FloatArray | None = None

    def outside(self, map_s: FloatArray) -> NDArray[np.bool_]:
        """Which cells do not lie in their windows; those that could not be read do not."""
        # What hardly conducts reads below 0 as often as above.
        low = np.where(self.low_s > 0, self.low_s, -self.high_s)
        return ~((map_s >= low) & (map_s <= self.high_s))

    def wrong_bits(self, map_s: FloatArray) -> FloatArray:
        """Share of each cell's bits that are read wrong, all where it could not be read."""
        assert self.bounds_s is not None
        bits = max(int(self.bounds_s.size).bit_length(), 1)
        # Levels count from the most conductive one, so bounds fall.
        asked, read = (np.searchsorted(-self.bounds_s, -g) for g in (self.target_s, map_s))
        wrong = _gray(asked) ^ _gray(read)
        count = sum((wrong >> bit) & 1 for bit in range(bits))
        return np.where(np.isnan(map_s), 1.0, count / bits)


def _gray(level: IntArray) -> IntArray:
    return level ^ (level >> 1)


def bounds_between(low_s: FloatArray, high_s: FloatArray) -> FloatArray:
    """The conductances that part neighbouring levels: the geometric mean of the ends that face each
    other, (S), shape (levels - 1,).
    """
    return np.asarray(np.sqrt(low_s[:-1] * high_s[1:]))


@dataclass(eq=False)
class Spent:
    """What a step spent on each cell of a chip, arrays of shape (cells of the chip,): SET and RESET
    pulses, changes of polarity, single readings, energy (J).

    No bench measures the current of a pulse. What flows is reckoned as |V| x G, G the larger of the
    cell's readings before and after the pulse; a transistor that saturates lets less through. A
    bench that programs by itself tells how many pulses it gave and not which: reversals and energy
    of those cells are NaN.
    """

    sets: IntArray
    resets: IntArray
    reversals: FloatArray
    reads: IntArray
    energy_j: FloatArray

    @classmethod
    def in_step(cls, run: RunFile, number: int) -> Spent:
        """Of step `number` of a run that ended, from its journal. Raises `DataError`."""
        geometry = read_journal(journal_of(run.path)).header().geometry
        size = math.prod(geometry.shape)
        spent = cls.nothing(size)
        last_s, pending = np.full(size, np.nan), np.zeros(size)
        last_sign = np.zeros(size, dtype=np.int64)
        for intent, outcome in _operations(run):
            operation, result = operation_from(intent.record), result_from(outcome.record)
            if isinstance(operation, Apply) and isinstance(result, ApplyResult):
                at, status, found = (
                    operation.cells.index(geometry),
                    result.last_status,
                    result.last_s,
                )
                if intent.step == number:
                    spent._add(operation, result, at, pending, last_sign)
            elif isinstance(operation, CodedRead) and isinstance(result, CodedReadResult):
                at, status, found = (
                    operation.cells.index(geometry),
                    result.status,
                    result.conductance_s,
                )
            elif isinstance(operation, Program) and isinstance(result, ProgramResult):
                at, status, found = (
                    operation.cells.index(geometry),
                    result.status,
                    result.conductance_s,
                )
                if intent.step == number:
                    spent._add_program(result, at)
            else:
                continue
            ok = (status == Status.OK) & np.isfinite(found)
            at, found = at[ok], found[ok]
            # What was pending flowed between the reading before it and this one.
            spent.energy_j[at] += pending[at] * np.fmax(last_s[at], found)
            pending[at] = 0.0
            last_s[at] = found
        spent.energy_j += pending * np.nan_to_num(last_s)
        return spent

    @classmethod
    def nothing(cls, cells: int) -> Spent:
        """So many cells of which nothing was asked."""
        sets, resets, reads = np.zeros((3, cells), dtype=np.int64)
        return cls(sets, resets, np.zeros(cells), reads, np.zeros(cells))

    def _add(
        self,
        operation: Apply,
        result: ApplyResult,
        at: IntArray,
        pending: FloatArray,
        last_sign: IntArray,
    ) -> None:
        """Count an operation on cells `at`; `pending` (V^2 s) waits for what their pulses met."""
        measured = 0
        for step in operation.steps * operation.repeat:
            volts = step.cell_v(at.size)
            if step.measure != "no":
                current = np.nan_to_num(result.current_a[:, measured])
                self.energy_j[at] += np.abs(volts * current) * step.width_s
                self.reads[at] += 1
                measured += 1
                continue
            sign = np.sign(volts).astype(np.int64)
            self.sets[at] += sign > 0
            self.resets[at] += sign < 0
            before = last_sign[at]
            self.reversals[at] += (sign * before) < 0
            last_sign[at] = np.where(sign == 0, before, sign)
            pending[at] += volts**2 * step.width_s

    def _add_program(self, result: ProgramResult, at: IntArray) -> None:
        """Count what the bench did by itself with cells `at`."""
        self.sets[at] += result.set_pulses
        self.resets[at] += result.reset_pulses
        self.reads[at] += result.reads
        self.reversals[at[result.pulses > 0]] = np.nan
        self.energy_j[at[(result.pulses > 0) | (result.reads > 0)]] = np.nan


def _operations(run: RunFile) -> Iterator[tuple[Intent, Outcome]]:
    """The operations of a run that have a result, with it."""
    intent: Intent | None = None
    for frame in read_journal(journal_of(run.path)):
        if isinstance(frame, Intent):
            intent = frame
        elif isinstance(frame, Outcome) and intent is not None:
            yield intent, frame


def figures_of(run: RunFile, asked: Asked, ended: Mapping[str, int | None]) -> dict[str, float]:
    """All `FIGURES` of a run; `ended` counts cells that were not accepted by the `REASONS`. Raises
    `DataError` where the run lacks a step.
    """
    steps = {step.name: step for step in steps_of(run)}
    program = steps[PROGRAM]
    inside_map, found = _map(program, "inside"), _map(program, "conductance")
    spent = Spent.in_step(run, program.number)
    pulses = spent.sets + spent.resets
    # Known stuck cells are targets too, and are neither pulsed nor read.
    cells = (np.isfinite(found) | (inside_map > 0)).ravel() | (spent.reads > 0)
    n, inside = int(cells.sum()), (inside_map > 0).ravel() & cells
    counted: dict[str, IntArray | FloatArray] = {
        "pulses": pulses[cells],
        "set_pulses": spent.sets[cells],
        "reset_pulses": spent.resets[cells],
        "inside_pulses": pulses[inside],
        "reads": spent.reads[cells],
        "reversals": spent.reversals[cells],
    }
    table = program.operations("vectors", "started_s", "ended_s")
    maps = {key: _map(steps[name], "conductance") for key, name in AFTER.items()}
    left = np.isnan(asked.target_s).ravel()
    moved = _moved(_map(steps[BEFORE], "conductance"), maps["at_once"]).ravel()[left]
    figures: dict[str, float] = {
        "cells": n,
        "inside": inside.sum() / max(n, 1),
        **{name: (ended.get(name) or 0) / max(n, 1) for name in REASONS},
        "vectors": int(table["vectors"].sum()),
        "bench_s": _seconds(run, program.number),
        "energy_j": float(spent.energy_j[cells].mean()) if n else math.nan,
        "neighbours": int(left.sum()),
        "disturbed": float(moved.mean()) if left.any() else math.nan,
        "moved_out": float(asked.outside(maps["at_once"]).ravel()[inside].mean())
        if inside.any()
        else math.nan,
    }
    for name, values in counted.items():
        figures |= {f"{name}_{key}": value for key, value in _taken(values).items()}
    for key, map_s in maps.items():
        figures |= {f"{name}_{key}": v for name, v in _errors(map_s, asked, cells).items()}
    return {name: float(figures[name]) for name in FIGURES}


def _map(step: RunStep, name: str) -> FloatArray:
    found = step.map(name)
    if found is None:
        raise DataError(f"{step.run.path}: step {step.name!r} saved no map {name!r}")
    return found


def _seconds(run: RunFile, number: int) -> float:
    table = run.table("steps", columns=("step", "started_s", "ended_s"))
    mine = table["step"] == number
    return float((table["ended_s"] - table["started_s"])[mine].sum())


def _taken(values: IntArray | FloatArray) -> dict[str, float]:
    """Mean and percentiles of counts a cell; NaN where there are no cells, or one is not known."""
    if not values.size:
        return dict.fromkeys(PERCENTILES, math.nan)
    p50, p95, p99 = (float(p) for p in np.percentile(values, [50, 95, 99]))
    return {"mean": float(values.mean()), "p50": p50, "p95": p95, "p99": p99}


def _errors(map_s: FloatArray, asked: Asked, cells: NDArray[np.bool_]) -> dict[str, float]:
    """How far the cells of a map are off."""

    def mean(values: FloatArray | NDArray[np.bool_]) -> float:
        return float(np.mean(values.ravel()[cells])) if cells.any() else math.nan

    found = {"outside": mean(asked.outside(map_s))}
    if asked.bounds_s is not None:
        return found | {"bit_error_rate": mean(asked.wrong_bits(map_s)), "rms_error_s": math.nan}
    # What could not be read counts as not conducting.
    square = (np.nan_to_num(map_s) - np.nan_to_num(asked.target_s)) ** 2
    return found | {"bit_error_rate": math.nan, "rms_error_s": math.sqrt(mean(square))}


def _moved(before_s: FloatArray, after_s: FloatArray) -> NDArray[np.bool_]:
    change = np.abs(after_s - before_s)
    return np.asarray((change > MOVED * np.abs(before_s)) & (change > MOVED_S))
