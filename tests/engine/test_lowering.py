from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Result,
    Scheme,
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
from rram_hil.engine.lowering import lower
from rram_hil.errors import ConfigError, DataError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

CHIP = Geometry(1, 6, 6)
LIMITS = Limits(
    bl_v=5.0,
    sl_v=5.0,
    wl_v=5.0,
    cell_v=5.0,
    gate_over_v=5.0,
    half_select_v=5.0,
    read_v=0.25,
    current_a=1e-2,
    energy_j=1.0,
    width_s=1.0,
    pulses_per_cell=1000,
)
FORM = [2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6, 3.8]
SET, RESET = (
    PulseTrain(Ramp(1.6, 2.4, 0.1), Ramp(2.0, 3.0, 0.05), 1e-7),
    PulseTrain(Ramp(1.6, 2.8, 0.1), Ramp(3.0, 3.5, 0.05), 1e-7),
)


def a_chip(formed: bool = True, **simulation: Any) -> SimulatedChip:
    made = SimulatedChip(
        CHIP, Simulation(device="paper", **simulation), read_v=LIMITS.read_v, chip_id="c"
    )
    if formed:
        made.execute(sweep(Cells.all(CHIP), "bl", FORM, wl_v=2.0, width_s=1e-6), 1)
    return made


def carry_out(
    operation: Operation,
    can: Capabilities,
    execute: Callable[[Operation, int], Result],
    spoil: Callable[[int, Result], Result] = lambda _, result: result,
) -> tuple[Any, list[Operation]]:
    """Lower and execute; every native operation has to fit the envelope."""
    natives: list[Operation] = []
    lowered = lower(operation, can, LIMITS)
    try:
        native = next(lowered)
        while True:
            natives.append(native)
            if isinstance(native, Apply | Program):
                assert len(native.cells) <= can.max_cells
            if isinstance(native, Apply):
                assert len(native.steps) * native.repeat <= can.max_steps
                for step in native.steps:
                    for levels in (
                        step.levels("bl", len(native.cells)),
                        step.levels("wl", len(native.cells)),
                    ):
                        assert can.per_cell_bias or levels is None or np.ptp(levels) == 0
            if isinstance(native, Multiply):
                assert len(native.inputs) <= can.max_vectors
            native = lowered.send(spoil(len(natives), execute(native, 100 + len(natives))))
    except StopIteration as stop:
        return stop.value, natives


def assert_same(a: Any, b: Any, *fields: str) -> None:
    for name in fields:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


MEASURED = ("current_a", "conductance_s", "status", "pulses", "reads", "gate_a")


@st.composite
def _applies(draw: st.DrawFn) -> Apply:
    cells = Cells.from_index(
        draw(st.lists(st.integers(0, 35), min_size=1, max_size=12, unique=True)), CHIP
    )
    n = len(cells)
    levels = st.one_of(
        st.sampled_from([1.6, 2.0]),
        st.lists(st.sampled_from([1.6, 2.0, 2.4]), min_size=n, max_size=n).map(np.array),
    )
    pulses = st.builds(
        Step,
        levels,
        st.just(0.0),
        levels,
        st.just(1e-7),
        st.sampled_from(["no", "current", "gate"]),
    )
    reads = st.sampled_from([read_step(), read_step(), replace(read_step(), also_gate=True)])
    steps = tuple(draw(st.lists(st.one_of(pulses, reads), min_size=1, max_size=4)))
    stop = None
    if any(s.measure == "current" for s in steps):
        stop = draw(
            st.sampled_from(
                [None, Stop(above_s=60e-6), Stop(below_s=20e-6), Stop(np.linspace(1e-5, 9e-5, n))]
            )
        )
    return Apply(cells, steps, stop=stop, repeat=draw(st.integers(1, 4)))


@settings(max_examples=60, deadline=None)
@given(_applies(), st.integers(1, 12), st.integers(1, 7), st.booleans())
def test_a_split_batch_equals_the_whole(
    operation: Apply, max_cells: int, max_steps: int, per_cell_bias: bool
) -> None:
    whole, split = a_chip(), a_chip()
    narrow = replace(
        split.capabilities, max_cells=max_cells, max_steps=max_steps, per_cell_bias=per_cell_bias
    )
    expected, once = carry_out(operation, whole.capabilities, whole.execute)
    found, _ = carry_out(operation, narrow, split.execute)
    assert len(once) == 1
    assert_same(found, expected, *MEASURED)
    np.testing.assert_array_equal(split.pulses, whole.pulses)
    np.testing.assert_array_equal(split.conductance_s(), whole.conductance_s())


def test_a_stopped_cell_takes_no_step_of_later_chunks() -> None:
    whole, split = a_chip(formed=False), a_chip(formed=False)
    ramp = sweep(
        Cells.all(CHIP),
        "bl",
        FORM,
        wl_v=2.0,
        width_s=1e-6,
        read=read_step(),
        stop=Stop(above_s=20e-6),
    )
    expected, _ = carry_out(ramp, whole.capabilities, whole.execute)
    for max_steps in (1, 2, 3, 5):
        split = a_chip(formed=False)
        found, natives = carry_out(
            ramp, replace(split.capabilities, max_steps=max_steps), split.execute
        )
        assert len(natives[-1].cells) < len(ramp.cells)  # type: ignore[union-attr]
        assert_same(found, expected, *MEASURED)
    assert len(set(expected.pulses.tolist())) > 2


def test_a_cell_over_range_has_met_its_upper_stop_in_every_chunk() -> None:
    ramp = sweep(
        Cells.of([(0, 0, 0), (0, 0, 1)]),
        "bl",
        [1.0, 1.5],
        wl_v=2.0,
        width_s=1e-6,
        stop=Stop(above_s=1e-4),
    )
    asked: list[int] = []

    def execute(operation: Operation, _: int) -> Result:
        assert isinstance(operation, Apply)
        n = len(operation.cells)
        asked.append(n)
        status = np.zeros((n, 1), np.uint8)
        if n == 2:
            status[0] = Status.OVER_RANGE
        values = np.where(status == Status.OK, 1e-6, np.nan)
        return ApplyResult(
            values, values, status, values, np.ones(n, np.int64), np.ones(n, np.int64)
        )

    result, _ = carry_out(ramp, replace(a_chip().capabilities, max_steps=1), execute)
    assert asked == [2, 1]
    assert result.pulses.tolist() == [1, 2]
    assert result.last_status.tolist() == [Status.OVER_RANGE, Status.OK]


def _program(**changes: Any) -> Program:
    cells = Cells.all(CHIP)
    target = np.linspace(20e-6, 90e-6, len(cells))
    made = Program(cells, target - 4e-6, target + 4e-6, SET, RESET, read_step(), 25, 6)
    return replace(made, **changes)


@pytest.mark.parametrize(
    "changes", [{}, {"confirm": 3}, {"max_pulses": np.arange(36) % 7}, {"compliance_a": 2e-5}]
)
def test_host_driven_write_verify_equals_the_boards_own(changes: dict[str, Any]) -> None:
    native, hosted, cut = a_chip(), a_chip(), a_chip()
    expected, operations = carry_out(_program(**changes), native.capabilities, native.execute)
    assert [type(o) for o in operations] == [Program]
    never = _program(**changes, on_board="never")
    found, operations = carry_out(never, hosted.capabilities, hosted.execute)
    assert {type(o) for o in operations} == {Apply}
    without = replace(cut.capabilities, program=False, max_cells=5, max_steps=1)
    in_parts, _ = carry_out(_program(**changes), without, cut.execute)
    for result in (found, in_parts):
        assert_same(
            result,
            expected,
            "conductance_s",
            "status",
            "inside",
            "set_pulses",
            "reset_pulses",
            "reads",
        )
    assert expected.inside.sum() > 0 or "compliance_a" in changes
    np.testing.assert_array_equal(hosted.pulses, native.pulses)


def test_cells_that_an_interrupted_pulse_did_not_reach_are_not_forgotten() -> None:
    chip = a_chip()
    target = np.full(6, 60e-6)
    operation = Program(
        Cells.block(0, [0], range(6)),
        target - 6e-6,
        target + 6e-6,
        SET,
        RESET,
        read_step(),
        60,
        20,
        on_board="never",
    )
    lost: list[int] = []

    def execute(operation: Operation, number: int) -> Result:
        assert isinstance(operation, Apply)
        result = chip.execute(operation, number) if operation.measurements or lost else None
        if result is not None:
            return result
        # The first pulse batch: the link breaks before any cell is reached.
        n = len(operation.cells)
        lost.append(n)
        nothing, zero = np.full((n, 0), np.nan), np.zeros(n, np.int64)
        return ApplyResult(
            nothing,
            nothing,
            np.zeros((n, 0), np.uint8),
            nothing,
            zero,
            zero,
            interrupted=True,
            away_s=3.0,
        )

    result, _ = carry_out(operation, chip.capabilities, execute)
    responsive = chip.stuck[0, 0] == 0
    assert lost
    assert result.interrupted
    assert result.away_s == 3.0
    assert result.inside[responsive].all()


def test_an_interrupted_chunk_ends_a_step_list_and_counts_what_ran() -> None:
    chip = a_chip()
    operation = pulse(
        Cells.block(0, [0], range(4)), bl_v=2.0, wl_v=2.5, width_s=1e-7, read=read_step()
    )
    operation = replace(operation, repeat=3)

    def second_is_lost(number: int, result: Result) -> Result:
        assert isinstance(result, ApplyResult)
        return replace(result, interrupted=True, away_s=7.0) if number == 2 else result

    result, natives = carry_out(
        operation, replace(chip.capabilities, max_steps=2), chip.execute, second_is_lost
    )
    assert len(natives) == 2
    assert result.interrupted
    assert result.away_s == 7.0
    assert result.pulses.tolist() == [2, 2, 2, 2]
    assert result.status.shape == (4, 3)
    assert np.all(result.status[:, 2] == Status.NOT_RUN)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_an_emulated_multiply_agrees_with_the_native_one_within_1_lsb(data: st.DataObject) -> None:
    chip = a_chip(read_noise=False, converters=False)
    row, column = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    rows, columns = data.draw(st.integers(1, 6 - row)), data.draw(st.integers(1, 6 - column))
    vectors = data.draw(st.integers(1, 4))
    inputs = np.array(
        data.draw(
            st.lists(st.integers(-127, 127), min_size=rows * vectors, max_size=rows * vectors)
        )
    )
    full_scale_a = data.draw(st.sampled_from([5e-6, 5e-5, 2e-4]))
    wl_v, body_v = data.draw(st.sampled_from([(3.0, None), (1.2, None), (1.2, -1.0)]))
    idle_v = data.draw(st.sampled_from([None, -0.5, 0.0]))
    operation = Multiply(
        *(0, row, column, columns, inputs.reshape(vectors, rows)),
        full_scale_a=full_scale_a,
        wl_v=wl_v,
        body_v=body_v,
        unselected_wl_v=idle_v,
    )
    native, _ = carry_out(operation, chip.capabilities, chip.execute)
    emulated, natives = carry_out(
        operation, replace(chip.capabilities, multiply=False, max_cells=7), chip.execute
    )
    assert not native.emulated
    assert emulated.emulated
    assert {type(o) for o in natives} == {Apply}
    said = {(s.body_v, s.unselected_wl_v) for o in natives for s in getattr(o, "steps", ())}
    assert said == {(body_v, idle_v)}
    assert native.lsb_a == emulated.lsb_a
    assert np.max(np.abs(native.codes - emulated.codes)) <= 1
    assert abs(native.saturated - emulated.saturated) <= native.codes.size


def test_vectors_and_words_in_parts_are_as_the_whole() -> None:
    chip = a_chip(read_noise=False)
    rng = np.random.default_rng(1)
    cells = Cells.all(CHIP)
    words = WriteWords(cells, rng.integers(-100, 100, len(cells)), clear=True)
    chip.execute(WriteWords(cells, np.ones(len(cells), int)), 2)
    narrow = replace(chip.capabilities, max_vectors=3, max_words=7)
    written, parts = carry_out(words, narrow, chip.execute)
    assert written.written == 36
    assert [len(p.cells) for p in parts] == [7, 7, 7, 7, 7, 1]  # type: ignore[union-attr]
    np.testing.assert_array_equal(chip.words.ravel(), words.values)
    multiply = Multiply(0, 0, 0, 6, rng.integers(-127, 127, (8, 6)), words=True)
    expected, _ = carry_out(multiply, chip.capabilities, chip.execute)
    found, parts = carry_out(multiply, narrow, chip.execute)
    assert len(parts) == 3
    assert isinstance(found, MultiplyResult)
    assert_same(found, expected, "codes", "word_sums", "lsb_a", "saturated")


def test_nothing_to_do_is_done_without_the_hardware() -> None:
    chip, none = a_chip(), Cells.of([])
    result, natives = carry_out(read(none), chip.capabilities, chip.execute)
    assert natives == []
    assert result.conductance_s.shape == (0, 1)
    program = Program(none, np.zeros(0), np.zeros(0), SET, RESET, read_step(), on_board="never")
    done, natives = carry_out(program, chip.capabilities, chip.execute)
    assert isinstance(done, ProgramResult)
    assert natives == []


SOME = Cells.block(0, [0], [0, 1])


@pytest.mark.parametrize(
    ("operation", "lacks", "says"),
    [
        (read(SOME, Step(0.2, 0.0, 3.0, 1e-6, "gate")), {"gate_current": False}, "gate current"),
        (
            read(SOME, replace(read_step(), also_gate=True)),
            {"step_extras": frozenset({"body_v"})},
            "also_gate: the gate's current beside each reading is not available .* say body_v here",
        ),
        (
            pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-6, body_v=0.0),
            {"step_extras": frozenset()},
            "body_v: a level of the selectors' bodies is not available .* say nothing here",
        ),
        (
            pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-6, unselected_wl_v=-1.0),
            {"step_extras": frozenset()},
            "unselected_wl_v: a level of the unselected word lines is not available",
        ),
        (
            _program(set_pulses=replace(SET, body_v=-1.0)),
            {"step_extras": frozenset()},
            "body_v: a level of the selectors' bodies",
        ),
        (
            pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-6, body_v=-6.0),
            {},
            "body of -6 V is not available on this bench; it has -5 to 5 V",
        ),
        (pulse(SOME, bl_v=6.0, wl_v=2.0, width_s=1e-6), {}, r"BL of 6 V .* it has -5 to 5 V"),
        (pulse(SOME, sl_v=-6.0, wl_v=2.0, width_s=1e-6), {}, "SL of -6 V"),
        (pulse(SOME, bl_v=1.0, wl_v=np.array([1.0, 7.0]), width_s=1e-6), {}, "WL of 1 to 7 V"),
        (pulse(SOME, bl_v=float("nan"), wl_v=2.0, width_s=1e-6), {}, "BL of nan"),
        (pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-9), {}, "a width of 1e-09"),
        (
            pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-6, unselected=Scheme.THIRD),
            {"schemes": frozenset({Scheme.INHIBIT, Scheme.GROUNDED})},
            "'third' are not available on this bench; it has grounded, inhibit",
        ),
        (
            pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-6, compliance_a=1e-5),
            {"compliance": False},
            "compliance",
        ),
        (_program(on_board="required"), {"program": False}, "on-board programming is required"),
        (_program(set_pulses=replace(SET, amplitude_v=Ramp(1.0, 5.5, 0.1))), {}, "BL of 5.5"),
        (
            _program(
                on_board="never", reset_pulses=replace(RESET, amplitude_v=Ramp(1.0, 5.5, 0.1))
            ),
            {},
            "SL of 5.5",
        ),
        (
            _program(on_board="never", set_pulses=replace(SET, gate_v=Ramp(1.0, 5.5, 0.1))),
            {},
            "WL of 5.5",
        ),
        (
            _program(on_board="never", unselected=Scheme.HALF),
            {"schemes": frozenset({Scheme.INHIBIT})},
            "'half'",
        ),
        (
            Multiply(0, 0, 0, 1, np.ones((1, 1), int), words=True),
            {"words": 0},
            "on-chip words are not available",
        ),
        (
            Multiply(0, 0, 0, 1, np.ones((1, 1), int), words=True),
            {"multiply": False},
            "need a native multiply",
        ),
        (
            Multiply(0, 0, 0, 1, np.ones((1, 1), int), input_bits=10),
            {},
            "10-bit inputs .* it has 8 bits",
        ),
        (
            Multiply(0, 0, 0, 1, np.ones((1, 1), int), body_v=0.0),
            {"step_extras": frozenset({"unselected_wl_v"})},
            "body_v: a level of the selectors' bodies is not available",
        ),
        (
            CodedRead((Block(0, 0, 2, 0, 2),), unselected_wl_v=0.0),
            {"step_extras": frozenset()},
            "unselected_wl_v: a level of the unselected word lines is not available",
        ),
        (WriteWords(SOME, np.array([1, 128])), {}, r"8 bits: values must lie in -127..127"),
        (WriteWords(SOME, np.array([1, 2])), {"words": 1}, "more than the 1 of this bench"),
    ],
)
def test_a_missing_capability_is_named_before_anything_runs(
    operation: Operation, lacks: dict[str, Any], says: str
) -> None:
    can = replace(a_chip(formed=False).capabilities, **lacks)
    with pytest.raises(ConfigError, match=says):
        next(lower(operation, can, LIMITS))


def test_an_emulated_multiply_without_a_usable_reading_is_refused() -> None:
    chip = a_chip()

    def spoil(_: int, result: Result) -> Result:
        assert isinstance(result, ApplyResult)
        result.status[2] = Status.OVER_RANGE
        return result

    operation = Multiply(0, 0, 0, 2, np.ones((1, 2), int))
    without = replace(chip.capabilities, multiply=False)
    with pytest.raises(DataError, match=r"cell \(0, 1, 0\) has no usable reading \(over_range\)"):
        carry_out(operation, without, chip.execute, spoil)


def test_a_wait_passes_as_it_is() -> None:
    chip = a_chip(formed=False)
    before = chip.now_s
    result, natives = carry_out(Wait(3600.0), chip.capabilities, chip.execute)
    assert len(natives) == 1
    assert result.span.ended_s - result.span.started_s == pytest.approx(3600.0)
    assert chip.now_s == pytest.approx(before + 3600.0)


def test_a_span_does_not_hold_a_number_that_is_none() -> None:
    assert Span(0.0, 1.0).holds(0.0, 1.0)
    assert not Span(0.0, 1.0).holds(float("nan"), 1.0)
    assert not Span(0.0, 1.0).holds(0.0, float("nan"))
