from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    Multiply,
    Program,
    PulseTrain,
    Ramp,
    Status,
    Step,
    Stop,
    Wait,
    WriteWords,
    pulse,
    read,
    read_step,
    sweep,
)
from rram_hil.errors import ConfigError

THREE = Cells.block(0, [0], [0, 1, 2])
TRAIN = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 2.0), 1e-6)


def test_read_pulse_and_sweep_build_applies() -> None:
    assert read(THREE, repeat=4).measurements == 4
    assert pulse(THREE, bl_v=2.0, wl_v=2.0, width_s=1e-7).measurements == 0
    assert pulse(THREE, bl_v=2.0, wl_v=2.0, width_s=1e-7, read=read_step()).measurements == 1
    ramp = sweep(THREE, "bl", [1.0, 1.5], wl_v=2.0, width_s=1e-6, read=read_step())
    assert [(s.bl_v, s.measure) for s in ramp.steps] == [
        (1.0, "no"),
        (0.2, "current"),
        (1.5, "no"),
        (0.2, "current"),
    ]
    at_level = sweep(THREE, "wl", [0.5, 1.0], bl_v=0.1, width_s=1e-6)
    assert [(s.wl_v, s.bl_v, s.measure) for s in at_level.steps] == [
        (0.5, 0.1, "current"),
        (1.0, 0.1, "current"),
    ]


def test_a_part_keeps_each_cells_own_levels() -> None:
    levels = np.array([1.0, 2.0, 3.0])
    stop = Stop(above_s=np.array([1e-5, 2e-5, 3e-5]))
    whole = Apply(THREE, (Step(levels, 0.0, 1.0, 1e-6, "current"),), stop=stop)
    part = whole.part(np.array([2, 0]))
    assert part.cells == THREE[np.array([2, 0])]
    assert part.steps[0].levels("bl", 2).tolist() == [3.0, 1.0]
    assert part.stop is not None
    assert np.asarray(part.stop.above_s).tolist() == [3e-5, 1e-5]


def test_a_ramp_never_leaves_the_range_between_its_ends() -> None:
    k = np.arange(40)
    for ramp in (
        Ramp(1.0, 2.0, 0.3),
        Ramp(-1.0, -2.0, -0.3),
        Ramp(2.0, 1.0, 0.1),
        Ramp(np.full(40, 1.5), 1.5, 0.1),
    ):
        low, high = sorted((float(np.min(ramp.start_v)), ramp.stop_v))
        assert np.all((ramp.level(k) >= low) & (ramp.level(k) <= high))
        assert np.all(np.abs(ramp.level(k)) <= ramp.extreme_v())


def test_the_extremes_of_a_program_bound_every_pulse() -> None:
    start = np.array([1.0, 1.2, 1.4])
    train = PulseTrain(Ramp(start, 2.0, 0.1), Ramp(1.0, 3.0, 0.2), 1e-6)
    steps = Program(THREE, np.zeros(3), np.ones(3), train, TRAIN, read_step()).extremes()
    assert max(float(s.levels("bl", 3).max()) for s in steps) == 2.0
    assert max(float(s.levels("sl", 3).max()) for s in steps) == 2.0
    assert max(float(s.levels("wl", 3).max()) for s in steps) == 3.0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Apply(THREE, ()), "at least one step"),
        (lambda: Apply(THREE, (read_step(),), repeat=0), "repeat must be 1 or more"),
        (lambda: Apply(THREE, (Step(np.ones(2)),)), "one value or one for each of the 3 cells"),
        (lambda: Apply(THREE, (Step(1.0),), stop=Stop(above_s=1.0)), "needs a step that measures"),
        (lambda: Apply(THREE, (read_step(),), stop=Stop(above_s=float("nan"))), "may not be NaN"),
        (
            lambda: Apply(THREE, (read_step(),), stop=Stop(below_s=np.ones(2))),
            "below_s: one value or one for each",
        ),
        (lambda: Program(THREE, 2e-6, 1e-6, TRAIN, TRAIN, read_step()), "low_s <= high_s"),
        (
            lambda: Program(THREE, float("nan"), 1e-6, TRAIN, TRAIN, read_step()),
            "neither may be NaN",
        ),
        (lambda: Program(THREE, 0.0, 1e-6, TRAIN, TRAIN, Step(0.2)), "read step must measure"),
        (lambda: Program(THREE, 0.0, 1e-6, TRAIN, TRAIN, read_step(), max_pulses=-1), "0 or more"),
        (lambda: Multiply(0, 0, 0, 1, np.array([[200]])), "must lie in -127..127"),
        (lambda: Multiply(0, 0, 0, 1, np.array([[0.5]])), "integer codes"),
        (
            lambda: Multiply(0, 0, 0, 1, np.array([[40000]]), input_bits=20),
            "input_bits must lie in 2..16",
        ),
        (
            lambda: Multiply(0, 0, 0, 1, np.array([[0]]), input_bits=1),
            "input_bits must lie in 2..16",
        ),
        (lambda: Multiply(0, 0, 0, 1, np.array([[1]]), full_scale_a=float("nan")), "full_scale_a"),
        (lambda: Multiply(0, 0, 0, 1, np.array([[1]]), full_scale_a=float("inf")), "full_scale_a"),
        (lambda: WriteWords(THREE, np.array([1, 2])), "one integer a cell"),
        (lambda: WriteWords(THREE, np.array([1.0, 2.0, 3.0])), "one integer a cell"),
        (lambda: Wait(float("nan")), "0 or more and finite"),
        (lambda: Wait(-1.0), "0 or more and finite"),
        (lambda: sweep(THREE, "gate", [1.0], width_s=1e-6), "line must be bl, sl or wl"),
    ],
)
def test_nonsense_is_refused_when_it_is_made(make, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_the_last_reading_of_a_stopped_cell_is_the_one_that_ran() -> None:
    status = np.array([[0, 0, 6], [0, 6, 6], [6, 6, 6]], dtype=np.uint8)
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [np.nan] * 3])
    zero = np.zeros(3, dtype=np.int64)
    result = ApplyResult(values, values, status, values, zero, zero)
    np.testing.assert_array_equal(result.last_s, [2.0, 3.0, np.nan])
    assert result.last_status.tolist() == [Status.OK, Status.OK, Status.NOT_RUN]


def test_only_the_first_part_of_a_write_clears_the_words() -> None:
    words = WriteWords(THREE, np.array([1, 2, 3]), clear=True)
    assert [words.part(slice(k, k + 1)).clear for k in range(3)] == [True, False, False]


CELLS = Cells.of([(0, 0, 0), (0, 0, 1)])
TRAIN = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.1), 1e-7)


def a_program(**changes: Any) -> Program:
    made = {"low_s": 1e-5, "high_s": 2e-5, "set_pulses": TRAIN, "reset_pulses": TRAIN}
    return Program(**({"cells": CELLS, "read": read_step()} | made | changes))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Apply(CELLS, (Step(),), repeat=10**30),
        lambda: Apply(CELLS, (Step(),), repeat=1.5),
        lambda: Apply(CELLS, (Step(),), repeat=True),
        lambda: Apply(CELLS, (Step(measure="current"),), repeat=(1 << 32) - 1),
        lambda: Apply(CELLS, (Step(),), unselected="sideways"),
        lambda: Apply(CELLS, (Step(),), compliance_a="much"),
        lambda: Apply(CELLS, ("step",)),
        lambda: Apply(CELLS, (Step(measure="current"),), stop=3),
        lambda: a_program(max_pulses=10**30),
        lambda: a_program(max_pulses="many"),
        lambda: a_program(max_pulses=np.array([1.5] * len(CELLS))),
        lambda: a_program(max_reversals=10**30),
        lambda: a_program(confirm=-1),
        lambda: a_program(unselected="sideways"),
        lambda: a_program(low_s="low"),
        lambda: a_program(low_s=[[1, 2], [3]]),
        lambda: a_program(read="read"),
        lambda: a_program(set_pulses=3),
        lambda: PulseTrain(Ramp(1.0, 2.0), Ramp(1.0, 2.0), "long"),
        lambda: Multiply(0, 0, 0, 1, [[1, 2], [3]]),
        lambda: Multiply(0, 0, 0, 1, np.ones((1, 2), np.int16), full_scale_a="big"),
        lambda: Multiply("0", 0, 0, 1, np.ones((1, 2), np.int16)),
        lambda: Multiply(0, 0, 0, 10**30, np.ones((1, 2), np.int16)),
        lambda: Multiply(0, 0, 0, 1, np.ones((1, 2), np.int16), input_bits=10**30),
        lambda: CodedRead(("block",)),
        lambda: CodedRead((Block(0, 0, 1, 0, 1),), repeat=10**30),
        lambda: Block(0, 0, "1", 0, 1),
        lambda: Wait("soon"),
        lambda: Ramp(None, 1.0),
    ],
)
def test_wrong_types_and_endless_numbers_are_refused_in_one_line(make: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200
