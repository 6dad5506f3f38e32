"""What a driver returned is held against the operation, the limits and itself before it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Result,
    Scheme,
    Status,
    Step,
    Stop,
    WriteWords,
    pulse,
    read,
    read_step,
)
from rram_hil.engine.engine import Watcher
from rram_hil.engine.plausible import plausible
from rram_hil.errors import BenchError, ImpossibleResultError

PULSES = 12


def answered(lab: Any, change: Callable[[Any], Result]) -> Callable[[Operation, int], Result]:
    return lambda operation, number: change(lab.chip.execute(operation, number))


def told(result: ApplyResult, g_s: float) -> ApplyResult:
    g = np.full(result.status.shape, g_s)
    return replace(result, conductance_s=g, current_a=0.2 * g, status=result.status * 0)


def a_train(lab: Any) -> Apply:
    return Apply(lab.cells, (Step(0.0, 1.2, 3.0, 1e-7), read_step()), repeat=PULSES)


def a_program(lab: Any) -> Program:
    train = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.1), 1e-7)
    low, high = np.full(6, 40e-6), np.full(6, 60e-6)
    return Program(lab.cells, low, high, train, train, read_step(), max_pulses=5)


IMPOSSIBLE: dict[str, tuple[Callable[[Any], Operation], Callable[[Any], Result], str]] = {
    "no pulse of 12": (a_train, lambda r: replace(r, pulses=r.pulses * 0), "0 pulses, but"),
    "a pulse too many": (a_train, lambda r: replace(r, pulses=r.pulses + 1), "13 pulses, but"),
    "a reading too many": (a_train, lambda r: replace(r, reads=r.reads + 1), "13 readings"),
    "G below zero": (
        lambda lab: read(lab.cells),
        lambda r: told(r, -5e-5),
        "negative conductance",
    ),
    "1e9 S": (
        lambda lab: read(lab.cells),
        lambda r: told(r, 1e9),
        "more than any cell conducts",
    ),
    "G a thousand times I / V": (
        lambda lab: read(lab.cells),
        lambda r: replace(r, conductance_s=r.conductance_s * 1e3, current_a=r.current_a + 1e-8),
        "S told with",
    ),
    "beyond the compliance, and OK": (
        lambda lab: Apply(lab.cells, (read_step(),), compliance_a=1e-6),
        lambda r: told(r, 1e-4),
        "beyond the compliance",
    ),
    "50 pulses on a budget of 5": (
        a_program, lambda r: replace(r, set_pulses=r.set_pulses * 0 + 50), "budget of 5",
    ),
    "inside with G outside": (
        a_program,
        lambda r: replace(r, inside=r.inside | True, conductance_s=r.conductance_s * 0 + 1e-4),
        "inside its window",
    ),
    "outside, never pulsed": (
        a_program,
        lambda r: replace(
            r,
            inside=r.inside & False,
            conductance_s=r.conductance_s * 0 + 1e-6,
            set_pulses=r.set_pulses * 0,
            reset_pulses=r.reset_pulses * 0,
        ),
        "not one pulse",
    ),
    "codes beyond full scale": (
        lambda lab: Multiply(0, 0, 0, 3, np.ones((2, 2), int)),
        lambda r: replace(r, codes=r.codes + 5000),
        "code 5",
    ),
    "a code's worth of another range": (
        lambda lab: Multiply(0, 0, 0, 3, np.ones((2, 2), int)),
        lambda r: replace(r, lsb_a=r.lsb_a * 1e3),
        "a code is worth",
    ),
    "no word of six": (
        lambda lab: WriteWords(lab.cells, np.arange(6)),
        lambda r: replace(r, written=0),
        "0 of 6 words",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_what_cannot_be_ends_the_run_and_is_charged_at_its_worst(lab: Any, kind: str) -> None:
    make, change, text = IMPOSSIBLE[kind]
    operation = make(lab)
    lab.engine(journal=False).do(pulse(lab.cells, bl_v=4.0, wl_v=2.5, width_s=1e-5))
    lab.instead = answered(lab, change)

    def plan() -> Any:
        try:
            yield operation
        except BenchError:
            yield read(lab.cells)

    with pytest.raises(ImpossibleResultError, match=text) as refused:
        lab.engine().run(plan())
    assert "\n" not in str(refused.value)
    assert np.all(lab.ledger_counts() >= lab.chip.pulses)
    if isinstance(operation, Apply):
        worst = 1 + sum(s.cell_v(1)[0] < -0.25 for s in operation.steps) * operation.repeat
        assert np.all(lab.ledger_counts() >= worst)


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_what_the_chip_really_answers_is_believed(lab: Any, kind: str) -> None:
    lab.engine(journal=False).do(pulse(lab.cells, bl_v=4.0, wl_v=2.5, width_s=1e-5))
    lab.engine().do(IMPOSSIBLE[kind][0](lab))


def test_what_an_abort_cut_short_has_fewer_pulses() -> None:
    chip = Cells.all(Geometry(1, 1, 2))
    operation = Apply(chip, (Step(0.0, 1.2, 3.0, 1e-7), read_step()), Scheme.INHIBIT, repeat=2)
    nothing = np.full((2, 2), np.nan)
    status = np.full((2, 2), Status.NOT_RUN, dtype=np.uint8)
    status[0, 0], zero = Status.NOT_A_NUMBER, np.zeros(2, dtype=np.int64)
    result = ApplyResult(nothing, nothing, status, nothing, zero, zero)
    from tests.engine.test_wrong_numbers import CAN, LIMITS

    assert plausible(operation, result, 1, LIMITS, CAN, is_cut=True) == (result, "")
    with pytest.raises(ImpossibleResultError, match=r"\(0, 0, 0\): 0 pulses, but its steps gave 1"):
        plausible(operation, result, 1, LIMITS, CAN)


def test_a_cell_that_met_its_stop_takes_no_more_pulses(make_lab: Any) -> None:
    lab = make_lab(rows=4, columns=4)
    ramp = tuple(
        step for v in np.arange(2.0, 4.0, 0.1) for step in (Step(v, 0.0, 2.5, 1e-5), read_step())
    )
    result = lab.engine().do(Apply(lab.cells, ramp, stop=Stop(above_s=1e-5)))
    assert 1 < result.pulses.min() < result.pulses.max() <= 20


class Notes(Watcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def constant(value_a: float, at: slice) -> Callable[[Any], Result]:
    def change(result: Any) -> Result:
        current = result.current_a.copy()
        current[at] = value_a
        return replace(result, current_a=current, conductance_s=current / 0.2)

    return change


def test_one_value_of_many_cells_is_stuck_and_said(make_lab: Any) -> None:
    """100 cells and 8 readings each, all the same: nothing that measures does that."""
    lab = make_lab(rows=10, columns=20)
    lab.engine(journal=False).do(pulse(lab.cells, bl_v=4.0, wl_v=2.5, width_s=1e-5))
    lab.instead = answered(lab, constant(1.234e-5, slice(0, 100)))
    engine = lab.engine()
    engine.watcher = Notes()
    result = engine.do(read(lab.cells, repeat=8))
    assert np.all(result.status[:100] == Status.STUCK)
    assert np.all(result.status[100:] == Status.OK)
    assert np.all(np.isnan(result.mean_s[:100]))
    assert len(engine.watcher.notes) == 1
    assert "100 cells" in engine.watcher.notes[0]


@pytest.mark.parametrize(
    ("value_a", "cells"),
    [(0.0, 200), (0.9e-9, 200), (1e-3, 200), (1.234e-5, 64)],
    ids=["zero", "a step from zero", "the rail", "too few"],
)
def test_the_ends_of_a_converter_and_a_few_cells_are_no_sign(
    make_lab: Any, value_a: float, cells: int
) -> None:
    lab = make_lab(rows=10, columns=20)
    lab.instead = answered(lab, constant(value_a, slice(0, cells)))
    assert np.all(lab.engine().do(read(lab.cells)).status == Status.OK)


def test_a_large_array_on_few_bits_is_no_sign(make_lab: Any) -> None:
    """A virgin array, whose cells share some codes of the converter's lowest range."""
    lab = make_lab(rows=128, columns=128, limits={"half_select_v": 0.5}, device="hfo2-measured")
    result = lab.engine().do(read(lab.cells, repeat=2))
    assert np.all(result.status == Status.OK)
