"""What a driver says is looked at before it is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Multiply,
    MultiplyResult,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Status,
    Step,
    WaitResult,
    read_step,
)
from rram_hil.array.result_checks import sound
from rram_hil.errors import InstrumentError

CELLS = Cells.of([(0, 0, 0), (0, 0, 1)])
APPLY = Apply(CELLS, (read_step(), Step(measure="gate")))
G = np.array([[1e-4, np.nan], [np.nan, np.nan]])
ANSWER = ApplyResult(
    np.full((2, 2), 1e-6),
    G,
    np.zeros((2, 2), np.uint8),
    np.zeros((2, 2)),
    np.zeros(2, int),
    np.ones(2, int),
)
TRAIN = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.1), 1e-7)
PROGRAM = Program(CELLS, np.full(2, 1e-5), np.full(2, 2e-5), TRAIN, TRAIN, read_step())
PROGRAMMED = ProgramResult(
    np.array([np.nan, 1.5e-5]),
    np.zeros(2, np.uint8),
    np.ones(2, bool),
    np.zeros(2, int),
    np.zeros(2, int),
    np.ones(2, int),
)
MULTIPLY = Multiply(0, 0, 0, 2, np.ones((3, 1), int), words=True)
PRODUCT = MultiplyResult(np.zeros((3, 2), np.int32), 1e-6, np.zeros((3, 2), np.int64))


def test_a_reading_that_is_no_number_is_not_ok_whatever_the_driver_says() -> None:
    result = sound(APPLY, ANSWER, 1)
    assert isinstance(result, ApplyResult)
    # A gate measurement has no conductance and stays OK.
    assert result.status.tolist() == [[Status.OK, Status.OK], [Status.NOT_A_NUMBER, Status.OK]]


def test_no_cell_is_inside_its_window_without_a_number() -> None:
    result = sound(PROGRAM, PROGRAMMED, 1)
    assert isinstance(result, ProgramResult)
    assert result.inside.tolist() == [False, True]
    assert result.status.tolist() == [Status.NOT_A_NUMBER, Status.OK]


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        (APPLY, WaitResult()),
        (APPLY, replace(ANSWER, current_a=np.zeros((2, 1)))),
        (APPLY, replace(ANSWER, conductance_s=np.zeros((1, 2)))),
        (APPLY, replace(ANSWER, pulses=np.array([0, -1]))),
        (APPLY, replace(ANSWER, pulses=np.zeros(2))),
        (APPLY, replace(ANSWER, reads=np.ones(3, int))),
        (APPLY, replace(ANSWER, status=np.full((2, 2), 7, np.uint8))),
        (PROGRAM, replace(PROGRAMMED, set_pulses=np.zeros(3, int))),
        (MULTIPLY, replace(PRODUCT, codes=np.zeros((2, 3), np.int32))),
        (MULTIPLY, replace(PRODUCT, word_sums=None)),
        (MULTIPLY, replace(PRODUCT, lsb_a=float("nan"))),
    ],
)
def test_an_answer_to_something_else_is_refused(operation: Any, answer: Any) -> None:
    with pytest.raises(InstrumentError, match="operation 5 does not belong to it"):
        sound(operation, answer, 5)


def test_a_sound_answer_is_left_as_it_is() -> None:
    assert sound(MULTIPLY, PRODUCT, 1) is PRODUCT
