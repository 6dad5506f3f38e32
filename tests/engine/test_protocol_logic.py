"""Protocols as pure logic: their generators driven by hand with invented results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    ApplyResult,
    Geometry,
    Limits,
    Operation,
    Program,
    ProgramResult,
    Result,
    Status,
    read,
    read_step,
)
from rram_hil.engine.protocol import CellChoice, Progress, Protocol, Remark, Save, Setting, map_of
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.protocols.forming import Condition, Forming, Levels
from rram_hil.protocols.one_shot import OneShot
from rram_hil.protocols.read_map import ReadMap
from rram_hil.protocols.write_verify import WriteVerify
from rram_hil.terminal.console import outcome_text

CHIP = Geometry(1, 2, 3)
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
SPAN = Span(-5.0, 5.0)
TARGET = np.array([[[20e-6, 40e-6, 60e-6], [80e-6, 0.0, np.nan]]])


def a_setting(folder: Path = Path(), counters: bool = True, geometry: Geometry = CHIP) -> Setting:
    can = Capabilities(SPAN, SPAN, SPAN, Span(1e-8, 1.0), counters=counters)
    return Setting(geometry, LIMITS, read_step(), can, folder)


Followed = tuple[Any, list[Operation], dict[str, Any]]


def follow(protocol: Protocol, setting: Setting, answer: Callable[[Operation], Result]) -> Followed:
    """Run a protocol on invented results: what it returned, asked for and saved."""
    asked: list[Operation] = []
    saved: dict[str, Any] = {}
    plan = protocol.run(setting)
    reply: object = None
    try:
        while True:
            message = plan.send(reply)
            reply = None
            if isinstance(message, Save):
                saved[message.name] = message.values
            elif not isinstance(message, Progress | Remark):
                asked.append(message)  # type: ignore[arg-type]
                reply = answer(message)  # type: ignore[arg-type]
    except StopIteration as stop:
        return stop.value, asked, saved


def measured(
    operation: Apply, values: np.ndarray, status: int | np.ndarray = 0, pulses: Any = None
) -> ApplyResult:
    n, m = len(operation.cells), operation.measurements
    table = np.broadcast_to(
        np.asarray(values, float).reshape(n, -1) if n else np.zeros((0, m)), (n, m)
    ).copy()
    stressed = (
        sum(bool(np.any(np.abs(s.cell_v(n)) > 0.25)) for s in operation.steps) * operation.repeat
    )
    given = np.full(n, stressed) if pulses is None else np.asarray(pulses)
    flags = np.broadcast_to(np.asarray(status, np.uint8), (n, m)).copy()
    return ApplyResult(table * 0.2, table, flags, table, given, np.full(n, m))


def lost(operation: Apply | Program, pulses: Any) -> Result:
    n = len(operation.cells)
    pulses = np.asarray(pulses, dtype=np.int64)
    if isinstance(operation, Program):
        nothing = np.full(n, np.nan)
        zero = np.zeros(n, np.int64)
        unknown = np.full(n, Status.UNKNOWN, np.uint8)
        return ProgramResult(
            nothing, unknown, np.zeros(n, bool), pulses, zero, zero, interrupted=True, away_s=9.0
        )
    m = operation.measurements
    nothing = np.full((n, m), np.nan)
    unknown = np.full((n, m), Status.UNKNOWN, np.uint8)
    return ApplyResult(
        nothing,
        nothing,
        unknown,
        nothing,
        pulses,
        np.zeros(n, np.int64),
        interrupted=True,
        away_s=9.0,
    )


# Forming


class Array:
    """Six cells that form at given volts (inf: never), the gate above `needs_gate_v` (V)."""

    def __init__(self, forms_at_v: list[float], needs_gate_v: float = 0.0) -> None:
        self.forms_at_v, self.needs_gate_v = np.array(forms_at_v), needs_gate_v
        self.formed = self.forms_at_v == 0

    def __call__(self, operation: Operation) -> ApplyResult:
        assert isinstance(operation, Apply)
        n, m = len(operation.cells), operation.measurements
        at = operation.cells.index(CHIP)
        values, status = np.full((n, m), np.nan), np.full((n, m), Status.NOT_RUN, np.uint8)
        pulses = np.zeros(n, np.int64)
        running = np.ones(n, bool)
        column = 0
        for step in operation.steps:
            volts, gate = step.cell_v(n), step.levels("wl", n)
            assert gate is not None
            if np.any(volts > 0.25):
                pulses += running
                self.formed[at] |= (
                    running & (volts >= self.forms_at_v[at]) & (gate > self.needs_gate_v)
                )
            if step.measure == "current":
                values[running, column] = np.where(self.formed[at], 50e-6, 1e-8)[running]
                status[running, column] = Status.OK
                if operation.stop is not None:
                    running &= ~self.formed[at]
                column += 1
        return ApplyResult(values * 0.2, values, status, values, pulses, (status == 0).sum(axis=1))


FORMING = Forming.model_validate(
    {"bl_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.5}, "wl_v": [1.0, 2.0]}
)


def test_forming_sorts_cells_into_formed_and_stuck() -> None:
    setting = a_setting()
    summary, asked, saved = follow(FORMING, setting, Array([2.0, 2.4, 3.0, 0.0, np.inf, 2.5]))
    assert (
        summary.cells,
        summary.formed,
        summary.stuck_low_resistance,
        summary.stuck_high_resistance,
    ) == (6, 4, 1, 1)
    np.testing.assert_array_equal(
        saved["forming_voltage"], [[[2.0, 2.5, 3.0], [np.nan, np.nan, 2.5]]]
    )
    assert summary.median_v == 2.5
    # The cell that conducted takes no pulse; only the cell that did not form sees the second gate.
    assert [len(o.cells) for o in asked] == [6, 5, 1]  # type: ignore[union-attr]
    condition = setting.shared_by("condition", Condition)
    assert condition.stuck_low_resistance.tolist() == [
        [[False, False, False], [True, False, False]]
    ]
    assert condition.stuck_high_resistance.tolist() == [
        [[False, False, False], [False, True, False]]
    ]


def test_forming_repeats_the_hard_cells_with_a_higher_gate() -> None:
    summary, asked, saved = follow(FORMING, a_setting(), Array([2.0] * 6, needs_gate_v=1.5))
    assert summary.formed == 6
    assert [o.steps[0].wl_v for o in asked[1:]] == [1.0, 2.0]  # type: ignore[union-attr]
    assert np.all(saved["forming_voltage"] == 2.0)


def test_a_second_gate_is_told_of_only_where_a_cell_needs_it() -> None:
    told, reply, array, plan = [], None, Array([2.0] * 6), FORMING.run(a_setting())
    with suppress(StopIteration):
        while True:
            message = plan.send(reply)
            told += [message.text] if isinstance(message, Progress) else []
            reply = array(message) if isinstance(message, Apply) else None
    assert told == ["reading 6 pristine cells", "forming 6 cells at WL 1 V"]


def test_a_cell_that_forms_beyond_the_range_of_the_meter_counts_as_formed() -> None:
    array = Array([2.0] * 6)

    def answer(operation: Operation) -> Result:
        result = array(operation)
        over = result.conductance_s > 1e-6
        result.conductance_s[over] = np.nan
        result.status[over] = Status.OVER_RANGE
        return result

    summary, asked, saved = follow(FORMING, a_setting(), answer)
    assert summary.formed == 6
    assert len(asked) == 2
    assert np.all(saved["forming_voltage"] == 2.0)


def test_an_interrupted_ramp_is_taken_by_the_cells_that_were_not_reached_and_by_no_other() -> None:
    array = Array([2.0] * 4 + [np.inf, 2.0])
    ramps: list[list[int]] = []

    def answer(operation: Operation) -> Result:
        assert isinstance(operation, Apply)
        if operation.label == "forming":
            ramps.append(operation.cells.index(CHIP).tolist())
            if len(ramps) == 1:
                array(operation.part(slice(0, 3)))
                return lost(operation, [1, 1, 1, 0, 0, 0])
        return array(operation)

    summary, _, saved = follow(FORMING, a_setting(), answer)
    assert ramps == [[0, 1, 2, 3, 4, 5], [3, 4, 5], [4]]
    assert (summary.formed, summary.stuck_high_resistance) == (5, 1)
    np.testing.assert_array_equal(
        np.isfinite(saved["forming_voltage"]).ravel(), [False] * 3 + [True, False, True]
    )


def test_cells_that_a_lost_reply_left_unformed_go_on_with_the_ramp() -> None:
    array = Array([2.0, 3.0, 3.0, 2.0, 2.0, 3.0])
    ramps: list[tuple[list[int], float]] = []

    def answer(operation: Operation) -> Result:
        assert isinstance(operation, Apply)
        if operation.label == "forming":
            first_v = float(np.max(operation.steps[0].bl_v))
            ramps.append((operation.cells.index(CHIP).tolist(), first_v))
            if len(ramps) == 1:
                # Cell 0 is told of, 1 and 2 may have had their first two pulses, 3 all of them.
                told = array(replace(operation.part(slice(0, 1)), stop=None))
                result = lost(operation, [3, 2, 2, 3, 0, 0])
                result.conductance_s[0] = told.conductance_s[0]
                result.status[0] = Status.OK
                return result
        return array(operation)

    summary, _, saved = follow(FORMING, a_setting(), answer)
    assert ramps == [([0, 1, 2, 3, 4, 5], 2.0), ([3, 4, 5], 2.0), ([1, 2], 3.0)]
    assert summary.formed == 6
    np.testing.assert_array_equal(saved["forming_voltage"].ravel(), [2.0, 3.0, 3.0, 2.0, 2.0, 3.0])


def test_a_ramp_whose_replies_are_always_lost_ends() -> None:
    array = Array([np.inf] * 6)
    ramps: list[int] = []

    def answer(operation: Operation) -> Result:
        assert isinstance(operation, Apply)
        if operation.label == "forming":
            ramps.append(len(operation.cells))
            return lost(operation, [len(operation.steps) // 2] * 6)
        return array(operation)

    summary, _, _ = follow(FORMING, a_setting(), answer)
    assert ramps == [6] * 6  # three for each gate
    assert summary.formed == 0


def test_forming_an_array_where_nothing_forms_says_so() -> None:
    summary, _, saved = follow(FORMING, a_setting(), Array([np.inf] * 6))
    assert (summary.formed, summary.stuck_high_resistance, summary.not_formed) == (0, 0, 6)
    assert summary.up_to_v == 3.0
    assert "6 not formed" in outcome_text(summary)
    assert np.isnan(summary.median_v)
    assert np.all(np.isnan(saved["forming_voltage"]))


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0.01, 1))
def test_levels_rise_from_start_to_exactly_stop(start: float, more: float, step: float) -> None:
    volts = Levels(start_v=start, stop_v=start + more, step_v=step).volts()
    assert volts[-1] == start + more
    assert np.all(np.diff(volts) > 0)
    assert np.all(np.diff(volts) <= step * (1 + 1e-6) + 1e-9)


def test_levels_that_fall_are_refused() -> None:
    with pytest.raises(ConfigError, match="must not end below"):
        Levels(start_v=2.0, stop_v=1.0, step_v=0.1).volts()


# One-shot


def one_shot(folder: Path) -> OneShot:
    np.save(folder / "target.npy", TARGET)
    gate = {"volts_v": [1.0, 3.0], "conductance_s": [10e-6, 100e-6]}
    return OneShot.model_validate({"targets": {"map": "target.npy"}, "set": {"gate": gate}})


def test_one_shot_resets_every_cell_and_sets_each_with_its_own_gate(tmp_path: Path) -> None:
    summary, asked, saved = follow(
        one_shot(tmp_path), a_setting(tmp_path), lambda o: measured(o, np.zeros((len(o.cells), 0)))
    )  # type: ignore[union-attr,arg-type]
    reset, set_ = asked
    assert isinstance(reset, Apply)
    assert isinstance(set_, Apply)
    assert reset.cells.index(CHIP).tolist() == [0, 1, 2, 3, 4]
    assert set_.cells.index(CHIP).tolist() == [0, 1, 2, 3]
    gate = set_.steps[0].levels("wl", 4)
    assert gate is not None
    np.testing.assert_allclose(
        gate, np.interp(np.log([20, 40, 60, 80]), np.log([10, 100]), [1.0, 3.0])
    )
    assert (summary.reset, summary.set, summary.left_alone) == (5, 4, 0)
    np.testing.assert_array_equal(saved["target"], TARGET)


@pytest.mark.parametrize("counters", [True, False])
def test_one_shot_never_pulses_twice_even_when_interrupted_again_and_again(
    tmp_path: Path, counters: bool
) -> None:
    given = {"one-shot reset": np.zeros(6, int), "one-shot set": np.zeros(6, int)}
    cuts = iter([2, 0, 1, 2, 1])

    def answer(operation: Operation) -> Result:
        assert isinstance(operation, Apply)
        at = operation.cells.index(CHIP)
        reached = next(cuts, None)
        given[operation.label][at[:reached]] += 1
        if reached is None:
            return measured(operation, np.zeros((len(at), 0)))
        told = (np.arange(len(at)) < reached).astype(int)
        return lost(operation, told if counters else np.ones(len(at), int))

    summary, _, _ = follow(one_shot(tmp_path), a_setting(tmp_path, counters), answer)
    assert max(given["one-shot reset"].max(), given["one-shot set"].max()) == 1
    if counters:
        assert (summary.reset, summary.set, summary.left_alone) == (5, 4, 0)
        assert given["one-shot reset"].tolist() == [1, 1, 1, 1, 1, 0]
        assert given["one-shot set"].tolist() == [1, 1, 1, 1, 0, 0]
    else:
        assert (summary.reset, summary.set, summary.left_alone) == (0, 0, 9)


def test_a_ramp_that_ends_too_low_calls_no_cell_stuck() -> None:
    """Thresholds go on beyond its end: what is left is most likely sound."""
    ramp = {"bl_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.5}, "wl_v": [1.0]}
    protocol = Forming.model_validate(ramp)
    summary, _, saved = follow(protocol, a_setting(), Array([2.4, 2.9, 2.9, 3.4, 3.4, np.inf]))
    assert (summary.formed, summary.stuck_high_resistance, summary.not_formed) == (3, 0, 3)
    assert not saved["stuck_high_resistance"].any()


# Write-verify


def write_verify(folder: Path, **changes: Any) -> WriteVerify:
    np.save(folder / "target.npy", TARGET)
    amplitude = {"start_v": 1.0, "stop_v": 2.0, "step_v": 0.1}
    pulses = {"amplitude_v": amplitude, "gate_v": {"start_v": 2.0, "stop_v": 2.0}, "width_s": 1e-7}
    given = {
        "targets": {"map": "target.npy"},
        "set": pulses,
        "reset": pulses,
        "max_pulses": 10,
        "tolerance_s": 2e-6,
    }
    return WriteVerify.model_validate(given | changes)


def reached(
    operation: Program, sets: Any = 1, resets: Any = 0, inside: Any = True
) -> ProgramResult:
    n = len(operation.cells)
    counts = [
        np.broadcast_to(np.asarray(c, dtype=np.int64), (n,)).copy() for c in (sets, resets, 3)
    ]
    flags = np.broadcast_to(np.asarray(inside), (n,)).copy()
    return ProgramResult(
        (operation.low_s + operation.high_s) / 2, np.zeros(n, np.uint8), flags, *counts
    )


def test_windows_are_the_larger_of_both_tolerances_and_open_below_the_lowest(
    tmp_path: Path,
) -> None:
    protocol = write_verify(tmp_path, tolerance=0.1, tolerance_s=3e-6, lowest_s=5e-6)
    summary, asked, saved = follow(protocol, a_setting(tmp_path), reached)  # type: ignore[arg-type]
    (program,) = asked
    assert isinstance(program, Program)
    np.testing.assert_allclose(program.low_s, [17e-6, 36e-6, 54e-6, 72e-6, 0.0])
    np.testing.assert_allclose(program.high_s, [23e-6, 44e-6, 66e-6, 88e-6, 8e-6])
    assert (summary.cells, summary.inside, summary.pulses, summary.reads, summary.mean_pulses) == (
        5,
        5,
        5,
        15,
        1.0,
    )
    assert saved["set_pulses"].tolist() == [[[1, 1, 1], [1, 1, 0]]]
    assert np.isnan(saved["conductance"][0, 1, 2])


def test_cells_that_failed_are_told_and_not_tried_again(tmp_path: Path) -> None:
    inside = [True, False, True, True, True]
    summary, asked, saved = follow(
        write_verify(tmp_path), a_setting(tmp_path), lambda o: reached(o, 4, 6, inside)
    )  # type: ignore[arg-type]
    assert len(asked) == 1
    assert summary.inside == 4
    assert saved["inside"].ravel().tolist() == [1, 0, 1, 1, 1, 0]
    # What a user negates.
    assert (~saved["inside"]).sum() == 2


def remarks(protocol: WriteVerify, setting: Setting, conductance_s: float) -> list[str]:
    """What a write-verify says on an array whose cells conduct so much whatever they are given."""

    def answer(operation: Operation) -> Result:
        result = reached(operation, 4, 6, False)  # type: ignore[arg-type]
        result.conductance_s[:] = conductance_s
        return result

    told, reply, plan = [], None, protocol.run(setting)
    with suppress(StopIteration):
        while True:
            message = plan.send(reply)
            told += [message.text] if isinstance(message, Remark) else []
            reply = answer(message) if isinstance(message, Program) else None
    return told


def test_write_verify_on_an_array_that_does_not_conduct_says_that_it_was_never_formed(
    tmp_path: Path,
) -> None:
    protocol, setting = write_verify(tmp_path), a_setting(tmp_path)
    (said,) = remarks(protocol, setting, 9e-9)
    assert "4 of 5 cells conduct less than 100 nS after their pulses" in said
    assert "never formed" in said
    # What only misses its windows is formed.
    assert remarks(protocol, setting, 1e-6) == []
    # A look has seen it before any pulse, but not where cells were formed since.
    setting.share("not conducting", np.ones(CHIP.shape, dtype=bool))
    assert "the look saw 5 of 5 cells not conduct" in remarks(protocol, setting, 9e-9)[0]
    nothing = np.zeros(CHIP.shape, dtype=bool)
    setting.share("condition", Condition(nothing, nothing, np.full(CHIP.shape, 50e-6)))
    assert remarks(protocol, setting, 50e-6) == []


def test_after_an_interruption_only_the_rest_of_each_budget_is_spent(tmp_path: Path) -> None:
    asked_budgets: list[list[int]] = []
    answers = iter([[0, 3, 10, 4, 1], [2, 6], None])

    def answer(operation: Operation) -> Result:
        if isinstance(operation, Apply):
            # The first cell is where it should be already, the others are not.
            where = np.where(operation.cells.index(CHIP) == 0, 20e-6, 1e-6)
            return measured(operation, where[:, None])
        assert isinstance(operation, Program)
        asked_budgets.append(operation.budget().tolist())
        pulses = next(answers)
        return reached(operation, 1) if pulses is None else lost(operation, pulses)

    protocol = write_verify(tmp_path, lowest_s=5e-6, tolerance_s=2e-6)
    summary, asked, saved = follow(protocol, a_setting(tmp_path), answer)
    # Cell 0 and (target 0) cell 4 read inside; cell 2 has nothing left; cells 1 and 3 go on with
    # what they have.
    assert asked_budgets == [[10] * 5, [7, 6], [5]]
    total = (saved["set_pulses"] + saved["reset_pulses"]).ravel()
    assert total.max() <= 10
    assert saved["inside"].ravel()[[0, 4]].tolist() == [1, 1]
    assert isinstance(asked[1], Apply)
    assert summary.pulses == total.sum()


def test_inside_is_told_of_the_instant_and_of_the_map_afterwards(tmp_path: Path) -> None:
    """Cell 1 spent its pulses, cell 2 its reversals, cell 3 moved out, cell 4 hardly conducts."""

    def answer(operation: Operation) -> Result:
        if isinstance(operation, Apply):
            return measured(operation, np.array([20e-6, 1e-6, 1e-6, 90e-6, -1e-6])[:, None])
        inside = [True, False, False, True, True]
        return reached(operation, [1, 10, 4, 1, 1], 0, inside)  # type: ignore[arg-type]

    protocol = write_verify(tmp_path, read_after=True, lowest_s=1e-6)
    summary, asked, saved = follow(protocol, a_setting(tmp_path), answer)
    assert len(asked) == 2
    assert (summary.inside, summary.inside_afterwards, summary.moved_out) == (3, 2, 1)
    assert (summary.out_of_pulses, summary.out_of_reversals, summary.unreadable) == (1, 1, 0)
    assert saved["inside"].ravel().tolist() == [1, 0, 0, 1, 1, 0]
    assert saved["inside_afterwards"].ravel().tolist() == [1, 0, 0, 0, 1, 0]
    setting = a_setting(tmp_path)
    follow(write_verify(tmp_path, lowest_s=1e-6), setting, answer)
    g = np.array([[20e-6], [1e-6], [60e-6], [90e-6], [-1e-6], [5e-6]])
    later, _, _ = follow(ReadMap(), setting, lambda o: measured(o, g))  # type: ignore[arg-type]
    assert (later.inside_windows, later.moved_out) == (3, 1)
    text = outcome_text(summary)
    for part in ("3 inside", "2 inside afterwards", "1 moved out", "1 out of pulses"):
        assert part in text


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_cell_is_ever_asked_to_take_more_than_its_budget(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("laws", numbered=True)
    budget = data.draw(st.integers(1, 12))
    protocol = write_verify(folder, max_pulses=budget)
    given_pulses = np.zeros(6, int)
    rounds = 0

    def answer(operation: Operation) -> Result:
        nonlocal rounds
        n = len(operation.cells)  # type: ignore[union-attr]
        at = operation.cells.index(CHIP)  # type: ignore[union-attr]
        if isinstance(operation, Apply):
            readings = data.draw(
                st.lists(
                    st.sampled_from([0.0, 1e-6, 20e-6, 40e-6, 60e-6, np.nan, 1.0]),
                    min_size=n,
                    max_size=n,
                )
            )
            return measured(operation, np.array(readings)[:, None])
        assert isinstance(operation, Program)
        assert np.all(given_pulses[at] + operation.budget() <= budget)
        rounds += 1
        really = np.array([data.draw(st.integers(0, int(b))) for b in operation.budget()])
        given_pulses[at] += really
        if data.draw(st.booleans()) and rounds < 20:
            # The bench knows, or does not know and says the worst: never less than was given.
            known = data.draw(st.booleans())
            return lost(operation, really if known else operation.budget())
        return reached(operation, really, 0, data.draw(st.booleans()))

    summary, _, saved = follow(protocol, a_setting(folder), answer)
    assert np.all(given_pulses <= budget)
    assert np.all((saved["set_pulses"] + saved["reset_pulses"]).ravel() >= given_pulses)
    assert summary.cells == 5


# Read map


def test_a_map_is_the_mean_of_the_usable_readings() -> None:
    values = (
        np.array([[1.0, 3.0], [5.0, 7.0], [2.0, 2.0], [4.0, 4.0], [np.nan, np.nan], [6.0, 8.0]])
        * 1e-6
    )
    status = np.array([[0, 0], [0, 2], [0, 0], [1, 1], [3, 3], [0, 5]], np.uint8)
    summary, asked, saved = follow(
        ReadMap(repeat=2), a_setting(), lambda o: measured(o, values, status)
    )  # type: ignore[arg-type]
    expected = np.array([2.0, 5.0, 2.0, np.nan, np.nan, 6.0]) * 1e-6
    np.testing.assert_allclose(saved["conductance"].ravel(), expected)
    assert (summary.cells, summary.unreadable) == (6, 2)
    assert summary.median_s == pytest.approx(3.5e-6)
    assert asked[0].measurements == 2  # type: ignore[union-attr]


def test_a_map_without_any_usable_reading_has_no_quartiles() -> None:
    summary, _, saved = follow(
        ReadMap(), a_setting(), lambda o: measured(o, np.full((6, 1), 9.9e37), 2)
    )  # type: ignore[arg-type]
    assert summary.unreadable == 6
    assert np.isnan(summary.median_s)
    assert np.all(np.isnan(saved["conductance"]))


def test_9_9e37_is_never_a_conductance() -> None:
    operation = read(CellChoice(rows=(0, 0)).cells(CHIP), repeat=2)
    values = np.array([[9.9e37, 1e-6], [9.9e37, 9.9e37], [1e-6, 3e-6]])
    status = np.where(values > 1, Status.OVER_RANGE, Status.OK).astype(np.uint8)
    np.testing.assert_allclose(measured(operation, values, status).mean_s, [1e-6, np.nan, 2e-6])


# The setting


def test_randomness_depends_on_seed_step_and_purpose_alone() -> None:
    setting = a_setting()
    first = setting.rng("words").integers(1 << 60)
    assert setting.rng("words").integers(1 << 60) == first
    others = [
        setting.rng("batches"),
        replace(setting, seed=1).rng("words"),
        replace(setting, step="x").rng("words"),
    ]
    assert all(o.integers(1 << 60) != first for o in others)


def test_what_an_earlier_step_did_not_leave_is_named() -> None:
    setting = a_setting()
    setting.share("a", 1)
    assert setting.shared_by("a", int) == 1
    with pytest.raises(
        ConfigError, match="'b' was not made by an earlier step of this run; there is: a"
    ):
        setting.shared_by("b", int)
    with pytest.raises(ConfigError, match="there is: none"):
        setting.shared_by("a", str)


def test_map_of_fills_the_rest_of_the_chip() -> None:
    cells = CellChoice(rows=(1, 1), columns=(0, 1)).cells(CHIP)
    np.testing.assert_array_equal(
        map_of(cells, np.array([1.0, 2.0]), CHIP), [[[np.nan] * 3, [1.0, 2.0, np.nan]]]
    )
    assert map_of(cells, np.array([1, 2]), CHIP, 0).tolist() == [[[0, 0, 0], [1, 2, 0]]]
