"""The device model at the pace of a bench: what a forecast runs on where a bench's operations take
other times than the model's own board.

How long they take is asked of the simulated instruments of the bench, which keep the times of their
manuals: each kind of operation is tried there on a few cells.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from typing_extensions import override

from rram_hil.array import (
    LINES,
    Apply,
    ApplyResult,
    Operation,
    Program,
    ProgramResult,
    Result,
    Wait,
)
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import (
    BenchFile,
    CalibrationSection,
    DriverSection,
    section_model,
)
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, Driver, Identity
from rram_hil.plugins import names
from rram_hil.types import FloatArray, IntArray

MODEL_DRIVER = "simulated-array"
TRIED = 16
"""Cells of a row that are tried at most: what a cell more takes is then known."""
WHOLE, WHOLE_READ = 256, 1024
"""Pulses and readings of an operation that is tried as a whole; the same of reads alone."""
RANGES_V = tuple(f * 10.0**k for k in range(-2, 3) for f in (1, 2, 5))
"""Instruments change ranges, and with them what a step takes, at levels of this series at most."""
FREE = dict.fromkeys(
    ("edge_s", "settle_s", "conversion_s", "multiply_s", "word_s", "link_s"), 0.0
) | {"bytes_per_s": math.inf}
"""Times of a model whose operations take those of another bench."""


@dataclass(frozen=True)
class Cost:
    """What a kind of operation takes (s): at all, for each row of cells, for each pulse and
    reading.
    """

    whole_s: float
    row_s: float
    visit_s: float

    def of(self, rows: int, visits: int) -> float:
        """Seconds for so many rows with so many pulses and readings in all."""
        return self.whole_s + rows * self.row_s + visits * self.visit_s


class Pace:
    """How long operations take on the simulated instruments of a bench, each kind of operation
    tried once.
    """

    def __init__(self, twin: Bench) -> None:
        self._driver = twin.driver
        self.capabilities = twin.driver.capabilities
        self.instruments = twin.identity.model
        self._costs: dict[object, Cost] = {}
        self._number = 0

    def seconds(self, operation: Operation, result: Result) -> float:
        """How long the operation, which ended with this result on the model, takes on the bench.

        Raises what the bench's driver raises for an operation that it cannot carry out.
        """
        cells = getattr(operation, "cells", None)
        if not isinstance(operation, Apply | Program) or cells is None or not len(cells):
            return self._tried(operation)[0]
        assert isinstance(result, ApplyResult | ProgramResult)
        ran = result.pulses + result.reads
        rows, visits = len(np.unique(_rows(operation)[ran > 0])), int(ran.sum())
        if isinstance(operation, Apply) and operation.repeat > 2 and operation.stop is None:
            # Each repeat takes as long as the one before it.
            once, twice = (
                self._cost(replace(operation, repeat=k)).of(rows, k * visits // operation.repeat)
                for k in (1, 2)
            )
            return once + (operation.repeat - 1) * (twice - once)
        return self._cost(operation).of(rows, visits)

    def _cost(self, operation: Apply | Program) -> Cost:
        kind = _kind(operation)
        if kind not in self._costs:
            self._costs[kind] = self._found(operation)
        return self._costs[kind]

    def _found(self, operation: Apply | Program) -> Cost:
        """From half a row, a row, and two rows, or the whole batch where that is soon done."""
        points, took = [], []
        *samples, last = _samples(_rows(operation))
        for at in (*samples, np.arange(len(operation.cells)) if _is_short(operation) else last):
            part = operation.part(at)
            seconds, result = self._tried(part)
            assert isinstance(result, ApplyResult | ProgramResult)
            visits = int((result.pulses + result.reads).sum())
            points.append((1.0, len(np.unique(_rows(part))), visits))
            took.append(seconds)
        return Cost(*_not_negative(np.array(points), np.array(took)))

    def _tried(self, operation: Operation) -> tuple[float, Result]:
        self._number += 1
        began_s = self._driver.now_s()
        result = self._driver.execute(operation, self._number)
        return self._driver.now_s() - began_s, result


def _rows(operation: Apply | Program) -> IntArray:
    """The row that each cell is in, over all tiles."""
    cells = operation.cells
    index: IntArray = cells.tile.astype(np.int64) << 32 | cells.row
    return index


def _is_short(operation: Apply | Program) -> bool:
    """Whether all cells may be tried: instruments have shorter ways for reads of whole arrays."""
    if not isinstance(operation, Apply):
        return False
    visits = len(operation.cells) * len(operation.steps) * operation.repeat
    is_read = len(operation.steps) == 1 and operation.steps[0].measure == "current"
    return visits <= (WHOLE_READ if is_read else WHOLE)


def _samples(rows: IntArray) -> Iterator[IntArray]:
    """Positions of half a row, of a row, and of two rows, where there are so many; each of cells
    that no earlier one has changed, as far as possible.
    """
    _, row, counts = np.unique(rows, return_inverse=True, return_counts=True)
    longest = np.argsort(-counts, kind="stable")[:4]
    first, *others = (np.flatnonzero(row == k)[:TRIED] for k in longest)
    half, rest = np.split(first, [(first.size + 1) // 2])
    yield half
    if not others:
        yield rest if rest.size else half
        return
    yield others[0]
    yield np.union1d(rest if len(others) < 3 else others[-2], others[-1])


def _not_negative(points: FloatArray, took: FloatArray) -> tuple[float, float, float]:
    """The least squares' coefficients of the columns of `points`, where none may be negative."""
    found = np.zeros(points.shape[1])
    used = np.arange(points.shape[1])
    while used.size:
        told = np.linalg.lstsq(points[:, used], took)[0]
        if (told >= 0).all():
            found[used] = told
            break
        used = np.delete(used, np.argmin(told))
    whole, row, visit = found
    return float(whole), float(row), float(visit)


def _kind(operation: Apply | Program) -> object:
    """What operations have in common that take alike on a cell."""
    if isinstance(operation, Program):
        trains = (operation.set_pulses, operation.reset_pulses)
        return (operation.verify, *(train.width_s for train in trains), _step(operation.read, 1))
    steps = tuple(_step(step, len(operation.cells)) for step in operation.steps)
    stop = operation.stop
    ends = stop is not None and (stop.above_s is not None, stop.below_s is not None)
    return (steps, operation.repeat, operation.unselected, operation.compliance_a is None, ends)


def _step(step: Any, n: int) -> object:
    return (
        step.width_s,
        step.measure,
        *(_range_v(step.levels(line, n)) for line in LINES),
    )


def _range_v(levels: FloatArray | None) -> float:
    """The range that a line's levels need; 0 for one at ground, infinity for an open one."""
    if levels is None:
        return math.inf
    most = float(np.max(np.abs(levels), initial=0.0))
    return next((v for v in (0.0, *RANGES_V) if most <= v * (1 + 1e-9)), math.inf)


class PacedModel(Driver):
    """A device model (`model`) that does what the instruments of a bench can, and takes as long as
    they.
    """

    def __init__(self, model: Driver, pace: Pace) -> None:
        super().__init__(model.config, model.geometry, model.limits)
        self._model, self._pace = model, pace
        self.cancel = model.cancel

    @override
    def connect(self) -> Identity:
        return self._model.connect()

    @property
    @override
    def capabilities(self) -> Capabilities:
        return replace(self._pace.capabilities, clock="virtual")

    @override
    def arm(self) -> None:
        self._model.arm()

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry it out on the model, and let the time pass that it takes on the bench. Raises what
        either raises.
        """
        began_s = self.now_s()
        result = self._model.execute(operation, number)
        if not isinstance(operation, Wait):
            left_s = self._pace.seconds(operation, result) - (self.now_s() - began_s)
            if left_s > 0:
                self._model.execute(Wait(left_s), number)
        return result

    @override
    def safe_off(self) -> None:
        self._model.safe_off()

    @override
    def close(self) -> None:
        self._model.close()

    @override
    def now_s(self) -> float:
        return self._model.now_s()


@contextlib.contextmanager
def pace_of(file: BenchFile, kind: type[Driver]) -> Iterator[Pace | None]:
    """The pace of a bench, by simulated instruments that are started for it, also for a real bench,
    whose own are not touched; None where the model keeps the driver's times, or nothing stands in
    for its hardware.

    Raises `BenchError` for what a simulated bench itself would be refused for.
    """
    with contextlib.ExitStack() as held:
        pace = None
        if not kind.KEEPS_MODEL_TIMES and file.driver.name in names("rram_hil.simulators"):
            try:
                twin = held.enter_context(contextlib.closing(Bench.open(_fresh(file), arm=False)))
                twin.driver.arm()
                pace = Pace(twin)
            except ConfigError:
                # A real bench may have instruments that nothing stands in for.
                if file.simulation is not None:
                    raise
        yield pace


def model_of(file: BenchFile, **changes: object) -> BenchFile:
    """The bench with an ideal board and the device model of its `[simulation]` in its place;
    `changes` replace keys of that section.
    """
    return _fresh(file, **changes).model_copy(update={"driver": DriverSection(name=MODEL_DRIVER)})


def _fresh(file: BenchFile, **changes: object) -> BenchFile:
    """The bench with simulated instruments that are right, so that there is nothing to correct, no
    thermostat and a pristine chip; `changes` replace keys of `[simulation]`.
    """
    described = {} if file.simulation is None else file.simulation.model_dump()
    fresh: dict[str, object] = {"state": None, "pace": 0.0, "faults": [], "errors": {}}
    simulation = section_model("simulation").model_validate(described | fresh | changes)
    changed = {
        "simulation": simulation,
        "calibration": CalibrationSection(),
        "thermostat": None,
    }
    return file.model_copy(update=changed)
