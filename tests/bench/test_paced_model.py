"""How long a bench's operations take, from trials on a few cells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import Apply, ApplyResult, Cells, Span, Step, Wait, pulse, read
from rram_hil.bench.paced_model import Cost, Pace


def done(operation: Apply) -> ApplyResult:
    """What an operation on which all cells ran left."""
    n, m = len(operation.cells), operation.measurements
    pulses = np.full(n, 0 if m else 1, np.int64)
    value = np.full((n, m), 1e-5)
    status = np.zeros((n, m), np.uint8)
    return ApplyResult(value, value, status, value, pulses, np.full(n, m, np.int64), Span())


class Instruments:
    """A driver whose operations take `cost`."""

    capabilities = None

    def __init__(self, cost: Cost) -> None:
        self.cost, self.clock_s, self.tried = cost, 100.0, 0

    def now_s(self) -> float:
        return self.clock_s

    def execute(self, operation: Any, number: int) -> Any:
        assert number > self.tried
        self.tried = number
        if isinstance(operation, Wait):
            self.clock_s += operation.seconds
            return None
        result = done(operation)
        visits = int((result.pulses + result.reads).sum())
        self.clock_s += self.cost.of(len(np.unique(operation.cells.row)), visits)
        return result


def pace_with(cost: Cost) -> tuple[Pace, Instruments]:
    instruments = Instruments(cost)
    twin: Any = SimpleNamespace(driver=instruments, identity=SimpleNamespace(model="some"))
    return Pace(twin), instruments


costs = st.builds(Cost, *[st.floats(1e-6, 1.0)] * 3)


@given(rows=st.lists(st.integers(0, 6), min_size=1, max_size=90), cost=costs)
def test_a_whole_batch_is_foretold_from_a_few_of_its_cells(rows: list[int], cost: Cost) -> None:
    operation = read(Cells.of([(0, row, k) for k, row in enumerate(rows)]))
    pace, _ = pace_with(cost)
    seconds = pace.seconds(operation, done(operation))
    assert seconds > 0
    counts = np.sort(np.unique(rows, return_counts=True)[1])
    if len(counts) > 1 and counts[-1] > 2:
        true_s = cost.of(len(counts), len(rows))
        assert seconds == pytest.approx(true_s, rel=1e-6)


def test_each_kind_of_operation_is_tried_once() -> None:
    pace, instruments = pace_with(Cost(0.1, 0.2, 0.3))
    cells = Cells.block(0, range(8), range(8))
    for _ in range(3):
        pace.seconds(read(cells), done(read(cells)))
    assert instruments.tried == 3
    kinds = (
        pulse(cells, bl_v=2.0, wl_v=2.0, width_s=1e-3),
        pulse(cells, bl_v=2.0, wl_v=2.0, width_s=2e-3),
        pulse(cells, sl_v=2.0, wl_v=2.0, width_s=1e-3),
        pulse(cells, bl_v=5.5, wl_v=2.0, width_s=1e-3),
        Apply(cells, (Step(0.2, 0.0, 3.0, 1e-3, "current"),), repeat=2),
    )
    for number, operation in enumerate(kinds, 2):
        pace.seconds(operation, done(operation))
        assert instruments.tried == 3 * number
    gentler = pulse(cells[:4], bl_v=1.8, wl_v=np.full(4, 1.1), width_s=1e-3)
    pace.seconds(gentler, done(gentler))
    assert instruments.tried == 3 * 6, "levels of the same ranges take alike"


def test_each_repeat_takes_as_long_as_the_one_before_it() -> None:
    pace, instruments = pace_with(Cost(0.1, 0.2, 0.3))
    cells = Cells.block(0, range(8), range(8))
    many = Apply(cells, (Step(0.2, 0.0, 3.0, 1e-3, "current"),), repeat=100)
    assert pace.seconds(many, done(many)) == pytest.approx(0.1 + 8 * 0.2 + 6400 * 0.3)
    assert instruments.tried == 6, "tried once and twice, not a hundred times"


def test_what_has_no_cells_is_tried_whole() -> None:
    pace, instruments = pace_with(Cost(0.1, 0.2, 0.3))
    waiting: Any = None
    assert pace.seconds(Wait(5.0), waiting) == pytest.approx(5.0)
    assert instruments.tried == 1
