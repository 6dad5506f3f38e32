import numpy as np

from rram_hil.array import Cells, Program, PulseTrain, Ramp, Span, Status, read_step
from rram_hil.array.write_verify_rules import WriteVerify


def program(**changes: object) -> Program:
    settings: dict[str, object] = {
        "cells": Cells.of([(0, 0, 0)]),
        "low_s": np.array([10e-6]),
        "high_s": np.array([20e-6]),
        "set_pulses": PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.1), 1e-7),
        "reset_pulses": PulseTrain(Ramp(1.0, 2.0, 0.5), Ramp(3.5, 3.5), 2e-7),
        "read": read_step(),
    }
    return Program(**(settings | changes))  # type: ignore[arg-type]


def play(
    operation: Program, readings: list[float], status: list[Status] | None = None
) -> tuple[WriteVerify, list[tuple[float, float, float]]]:
    """Feed readings to the rules of one cell; the pulses (BL, SL, WL) that it took."""
    rules, taken = WriteVerify(operation), []
    codes = status if status is not None else [Status.OK] * len(readings)
    for g, code in zip(readings, codes, strict=True):
        at = rules.reading()
        assert at.tolist() == [0]
        rules.take(at, np.array([g]), np.array([code], dtype=np.uint8))
        for polarity in (1, -1):
            due, step = rules.pulses(polarity)  # type: ignore[arg-type]
            if due.size:
                levels = [step.levels(line, 1) for line in ("bl", "sl", "wl")]  # type: ignore[arg-type]
                taken.append(tuple(float(v[0]) for v in levels if v is not None))
                rules.given(due, polarity)  # type: ignore[arg-type]
    return rules, taken  # type: ignore[return-value]


def test_a_cell_below_climbs_the_ramp_and_is_confirmed_by_a_second_read() -> None:
    rules, taken = play(program(), [1e-6, 5e-6, 12e-6, 13e-6])
    assert taken == [(2.0, 0.0, 2.0), (2.0, 0.0, 2.1)]
    result = rules.result(Span())
    assert result.inside.tolist() == [True]
    assert (result.set_pulses[0], result.reset_pulses[0], result.reads[0]) == (2, 0, 4)
    assert rules.reading().size == 0


def test_a_reversal_restarts_the_ramp() -> None:
    _, taken = play(program(), [1e-6, 2e-6, 30e-6, 25e-6, 5e-6, 15e-6])
    assert [t[0] > 0 for t in taken] == [True, True, False, False, True]
    assert [t[1] for t in taken[2:4]] == [1.0, 1.5]
    assert taken[4][2] == 2.0


def test_a_confirming_read_outside_the_window_goes_on() -> None:
    rules, taken = play(program(), [15e-6, 21e-6, 15e-6, 15e-6])
    assert len(taken) == 1
    assert rules.inside.all()


def test_the_budget_of_pulses_and_reversals_ends_a_cell() -> None:
    rules, taken = play(program(max_pulses=2), [1e-6, 1e-6, 1e-6])
    assert len(taken) == 2
    assert rules.reading().size == 0
    assert not rules.inside.any()
    rules, taken = play(program(max_pulses=0), [1e-6])
    assert taken == []
    rules, taken = play(program(max_reversals=1), [1e-6, 30e-6, 1e-6])
    assert len(taken) == 2
    assert rules.reading().size == 0


def test_over_range_counts_as_above_and_no_number_ends_the_cell() -> None:
    _, taken = play(program(), [np.nan, 15e-6, 15e-6], [Status.OVER_RANGE, Status.OK, Status.OK])
    assert taken == [(0.0, 1.0, 3.5)]
    rules, taken = play(program(), [np.nan], [Status.NOT_A_NUMBER])
    assert taken == []
    assert rules.status.tolist() == [Status.NOT_A_NUMBER]
    assert rules.reading().size == 0


def test_a_window_from_zero_on_takes_readings_below_zero_as_noise() -> None:
    window = {"low_s": np.array([0.0]), "high_s": np.array([2e-6])}
    rules, taken = play(program(**window), [-0.3e-6, -0.1e-6])
    assert taken == []
    assert rules.inside.all()
    _, taken = play(program(**window), [-2.1e-6, 0.1e-6, 0.1e-6])
    assert taken == [(2.0, 0.0, 2.0)]
