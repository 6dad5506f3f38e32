"""What is no conductance must not be taken for one, and what is no operation not for another."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Limits,
    Program,
    PulseTrain,
    Ramp,
    Status,
    Step,
    Stop,
    WriteWords,
    pulse,
    read,
    read_step,
    sweep,
)
from rram_hil.array.write_verify_rules import WriteVerify
from rram_hil.engine.lowering import lower
from rram_hil.engine.protocol import Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.protocols.forming import Forming

GEOMETRY = Geometry(1, 2, 3)
CELLS = Cells.all(GEOMETRY)
N = len(CELLS)
VOLTS = Span(-5.0, 5.0)
CAN = Capabilities(VOLTS, VOLTS, VOLTS, Span(1e-8, 1.0), words=N, word_bits=8)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.2,
    half_select_v=0.5,
    read_v=0.25,
    current_a=1e-3,
    energy_j=1e-7,
    width_s=1e-5,
    pulses_per_cell=200,
)


def program() -> Program:
    train = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.1), 1e-7)
    low, high = np.full(N, 40e-6), np.full(N, 60e-6)
    return Program(CELLS, low, high, train, train, read_step(), confirm=0)


@pytest.mark.parametrize(
    ("status", "conductance_s", "polarity"),
    [
        (Status.OK, 50e-6, 0),
        (Status.OK, 10e-6, 1),
        (Status.OVER_RANGE, np.nan, -1),
        (Status.COMPLIANCE, 100e-6, -1),
        (Status.COMPLIANCE, 50e-6, None),
        (Status.COMPLIANCE, 10e-6, None),
        (Status.STUCK, 50e-6, None),
        (Status.UNKNOWN, 10e-6, None),
        (Status.NOT_A_NUMBER, np.nan, None),
    ],
)
def test_only_an_ok_reading_puts_a_cell_inside_or_calls_for_a_set(
    status: Status, conductance_s: float, polarity: int | None
) -> None:
    rules = WriteVerify(program())
    at = rules.reading()
    rules.take(at, np.full(N, conductance_s), np.full(N, status, dtype=np.uint8))
    assert rules.inside.all() == (status is Status.OK and polarity == 0)
    assert rules.pulses(1)[0].size == (N if polarity == 1 else 0)
    assert rules.pulses(-1)[0].size == (N if polarity == -1 else 0)
    assert rules.reading().size == 0


@pytest.mark.parametrize("value", [2**31, 2**32 + 1, -(2**31), -(2**40)])
def test_a_word_that_no_32_bits_hold_is_refused_and_not_wrapped(value: int) -> None:
    with pytest.raises(ConfigError, match="values must lie in"):
        WriteWords(CELLS, np.full(N, value, dtype=np.int64))


def test_a_word_beyond_the_bits_of_the_bench_is_refused() -> None:
    for value in (128, -128, -(2**31) + 1):
        with pytest.raises(ConfigError, match="8 bits"):
            next(lower(WriteWords(CELLS, np.full(N, value)), CAN, LIMITS))


def test_lists_are_taken_as_arrays_and_cut_with_the_batch() -> None:
    levels = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    apply = Apply(CELLS, (Step(levels, 0.0, 2.0, measure="current"),), stop=Stop(above_s=levels))  # type: ignore[arg-type]
    part = apply.part(slice(2, 4))
    assert np.array_equal(part.steps[0].cell_v(2), [1.2, 1.3])
    assert part.stop is not None
    assert np.array_equal(cast(Any, part.stop.above_s), [1.2, 1.3])


def test_what_was_checked_cannot_be_changed_afterwards() -> None:
    volts = np.full(N, 1.0)
    step = Step(volts, 0.0, 2.0)
    volts[:] = 9.0
    assert np.all(step.cell_v(N) == 1.0)
    with pytest.raises(ValueError, match="read-only"):
        cast(Any, step.bl_v)[0] = 9.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: pulse(CELLS, bl_v="2", wl_v=2.0, width_s=1e-6),  # type: ignore[arg-type]
        lambda: pulse(CELLS, bl_v=2.0, wl_v=2.0, width_s="1e-6"),  # type: ignore[arg-type]
        lambda: pulse(CELLS, bl_v=True, wl_v=2.0, width_s=1e-6),
        lambda: Step(measure="volts"),  # type: ignore[arg-type]
        lambda: read([(0, 0, 0)]),  # type: ignore[arg-type]
        lambda: Ramp(1.0, None),  # type: ignore[arg-type]
        lambda: WriteWords([(0, 0, 0)], np.ones(1, int)),  # type: ignore[arg-type]
    ],
)
def test_operations_of_the_wrong_types_are_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


def test_forming_gives_no_pulse_to_a_cell_that_cannot_be_read(tmp_path: Any) -> None:
    setting = Setting(GEOMETRY, LIMITS, read_step(), CAN, tmp_path)
    plan = cast(Generator[Any, Any, Any], Forming().run(setting))
    message = next(plan)
    while not isinstance(message, Apply):
        message = plan.send(None)
    status = np.full((N, 1), Status.OK, dtype=np.uint8)
    status[2] = Status.NOT_A_NUMBER
    conductance = np.where(status == Status.OK, 1e-8, np.nan)
    zero = np.zeros(N, dtype=np.int64)
    message = plan.send(ApplyResult(conductance, conductance, status, conductance, zero, zero + 1))
    while not isinstance(message, Apply):
        message = plan.send(None)
    assert message.cells == CELLS[np.array([0, 1, 3, 4, 5])]


def test_a_sweep_over_a_float32_array_keeps_one_number_a_level() -> None:
    swept = sweep(
        CELLS, "bl", list(np.arange(0, 1, 0.25, dtype=np.float32)), wl_v=2.0, width_s=1e-6
    )
    assert [s.bl_v for s in swept.steps] == [0.0, 0.25, 0.5, 0.75]
