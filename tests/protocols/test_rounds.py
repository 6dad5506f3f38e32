"""Programming methods as pure logic, on cells whose answers to pulses are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods import CHIP, METHODS, PULSES, Cells, a_setting, follow, method

from rram_hil.array import Apply, ApplyResult, Geometry, Operation, Status, Wait, WaitResult
from rram_hil.errors import ConfigError, LimitError
from rram_hil.networks.layers import Linear
from rram_hil.networks.network import Network
from rram_hil.networks.programmed_network import Programmed
from rram_hil.protocols.parts.rounds import Reason
from rram_hil.protocols.parts.targets import TargetChoice

TARGET = np.array([[[20e-6, 40e-6, 60e-6], [80e-6, 1e-6, np.nan]]])


def by_gate(
    _: Any, g: np.ndarray, volts: np.ndarray, gate: np.ndarray, width_s: float
) -> np.ndarray:
    """A SET leaves 100 uS for each volt of gate above 1.9 V, a RESET 1 uS."""
    return np.where(volts > 0, np.maximum(g, 100e-6 * (gate - 1.9)), 1e-6)


def by_curve(
    _: Any, g: np.ndarray, volts: np.ndarray, gate: np.ndarray, width_s: float
) -> np.ndarray:
    """A SET leaves what the curve of `ONE` has for its gate, a RESET 1 uS."""
    return np.where(volts > 0, np.maximum(g, 10e-6 * 11 ** (gate - 2.0)), 1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "pair-verify"])
def test_a_method_brings_cells_inside_and_counts_what_it_gave(name: str) -> None:
    cells = Cells(50e-6, by_curve)
    setting = a_setting()
    asked = method(name, targets=TARGET, tolerance=0.15, tolerance_s=5e-6, max_pulses=80)
    summary, saved = follow(asked, setting, cells)
    assert (summary.cells, summary.inside) == (5, 5)
    inside = saved["inside"].ravel()
    assert inside.tolist() == [True] * 5 + [False]
    given = (saved["set_pulses"] + saved["reset_pulses"]).ravel()
    np.testing.assert_array_equal(given, cells.pulses)
    assert np.all(saved["reason"].ravel()[:5] == Reason.INSIDE)
    assert saved["reason"].ravel()[5] == Reason.GO_ON
    error = np.abs(cells.g - TARGET.ravel())[:5]
    assert np.all(error <= np.maximum(0.15 * TARGET.ravel()[:5], 5e-6) * 1.0001)
    # All of a round, SETs and RESETs, are one operation.
    applied = [o for o in cells.asked if isinstance(o, Apply)]
    assert all(any(s.measure == "current" for s in o.steps) for o in applied)
    np.testing.assert_allclose(setting.shared["windows"].low_s[0, 0, 0], 15e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name not in ("ispp", "model-aware")))
        for name in METHODS
    ],
)
@given(data=st.data())
def test_no_cell_takes_more_than_its_budget(name: str, data: st.DataObject) -> None:
    """Whatever is read, and however often a batch is cut, with its pulses counted or not."""
    budget = data.draw(st.integers(1, 12))
    reverify = data.draw(st.integers(0, 2))
    asked = method(name, targets=TARGET, max_pulses=budget, reverify=reverify, tolerance_s=2e-6)
    given_pulses = np.zeros(6, dtype=np.int64)
    levels = st.sampled_from([0.0, -1e-7, 1e-6, 20e-6, 40e-6, 60e-6, 1.0, np.nan, np.inf])
    flags = st.sampled_from([*[Status.OK] * 6, Status.OVER_RANGE, Status.COMPLIANCE, Status.STUCK])
    cuts = 0

    def answer(operation: Operation) -> Any:
        nonlocal cuts
        if isinstance(operation, Wait):
            return WaitResult()
        assert isinstance(operation, Apply)
        n, m = len(operation.cells), operation.measurements
        at = operation.cells.index(CHIP)
        most = sum((np.abs(s.cell_v(n)) > 0.25).astype(int) for s in operation.steps)
        assert np.all(most <= 1)
        if most.any() and cuts < 20 and data.draw(st.booleans()):
            # The bench knows, or does not know and says the worst: never less than was given.
            cuts += 1
            really = most * np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
            given_pulses[at] += really
            nothing = np.full((n, m), np.nan)
            unknown = np.full((n, m), Status.UNKNOWN, dtype=np.uint8)
            told = really if data.draw(st.booleans()) else most
            zero = np.zeros(n, dtype=np.int64)
            return ApplyResult(nothing, nothing, unknown, nothing, told, zero, interrupted=True)
        given_pulses[at] += most
        drawn = data.draw(st.lists(levels, min_size=n * m, max_size=n * m))
        table = np.array(drawn).reshape(n, m)
        status = np.array(data.draw(st.lists(flags, min_size=n * m, max_size=n * m)), np.uint8)
        return ApplyResult(table, table, status.reshape(n, m), table, most, np.full(n, m))

    summary, saved = follow(asked, a_setting(), answer)
    assert np.all(given_pulses <= budget)
    counted = (saved["set_pulses"] + saved["reset_pulses"]).ravel()
    assert np.all((given_pulses <= counted) & (counted <= budget))
    reasons = saved["reason"].ravel()
    assert np.all(reasons[:5] != Reason.GO_ON)
    assert (reasons == Reason.INSIDE).sum() == summary.inside == saved["inside"].sum()
    told = (
        summary.inside, summary.out_of_pulses, summary.out_of_reversals, summary.unreadable,
        summary.stuck_low_resistance, summary.stuck_high_resistance, summary.not_formed,
        summary.never_opened, summary.never_closed, summary.skipped,
    )  # fmt: skip
    assert sum(filter(None, told)) == summary.cells == 5


def faulty(at: np.ndarray, g: np.ndarray, volts: np.ndarray, gate: np.ndarray, _: float) -> Any:
    """Cell 0 is fine; 1 stays conducting, 2 stays at 5 uS, 3 never conducts, 4 opens to 60 uS."""
    found = by_gate(at, g, volts, gate, 0.0)
    found = np.where(at == 1, 150e-6, np.where(at == 2, 5e-6, found))
    return np.where(at == 3, 0.0, np.where(at == 4, np.where(volts > 0, 160e-6, 60e-6), found))


def test_why_a_cell_is_not_inside_is_told() -> None:
    target = np.array([[[20e-6, 20e-6, 60e-6], [40e-6, 10e-6, np.nan]]])
    cells = Cells([20e-6, 150e-6, 5e-6, 0.0, 150e-6, 0.0], faulty)
    setting = a_setting()
    summary, saved = follow(method("ispp", targets=target, max_pulses=15), setting, cells)
    assert saved["reason"].ravel()[:5].tolist() == [
        Reason.INSIDE,
        Reason.STUCK_LOW_RESISTANCE,
        Reason.STUCK_HIGH_RESISTANCE,
        Reason.NOT_FORMED,
        Reason.NEVER_OPENED,
    ]
    assert summary.out_of_pulses == summary.out_of_reversals == summary.unreadable == 0
    assert (summary.not_formed, summary.up_to_v, summary.never_opened) == (1, 2.0, 1)
    assert (summary.stuck_low_resistance, summary.stuck_high_resistance) == (1, 1)
    # An accepted cell takes no pulse.
    assert cells.pulses.tolist() == [0, 15, 15, 15, 15, 0]


def test_accepted_cells_are_read_again_after_their_neighbours_had_their_pulses() -> None:
    """Cell 0 is moved by the fourth pulse of cell 3, when it was accepted."""

    def run(**keys: Any) -> Any:
        def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
            if 3 in at and len(cells.volts[3]) == 4:
                cells.g[0] = 35e-6
            return by_gate(at, g, volts, gate, width_s)

        cells = Cells([20e-6, 40e-6, 60e-6, 1e-6, 1e-6, 0.0], respond)
        widths = {"tolerance": 0.1, "tolerance_s": 5e-6, "read_after": True}
        return follow(method("ispp", targets=TARGET, **widths, **keys), a_setting(), cells)

    once, saved = run()
    assert (once.inside, once.inside_afterwards, once.moved_out) == (5, 4, 1)
    assert saved["reset_pulses"].ravel()[0] == 0
    again, saved = run(reverify=1)
    assert (again.inside, again.inside_afterwards, again.moved_out) == (5, 5, 0)
    assert saved["reset_pulses"].ravel()[0] == 1


def test_after_a_rest_cells_are_read_once_more() -> None:
    cells = Cells([20e-6, 40e-6, 60e-6, 80e-6, 1e-6, 0.0], by_gate)

    def answer(operation: Operation) -> Any:
        if isinstance(operation, Wait):
            cells.g[1] = 50e-6
        return cells(operation)

    summary, saved = follow(method("ispp", targets=TARGET, rest_s=100.0), a_setting(), answer)
    assert (summary.inside, summary.inside_afterwards, summary.moved_out) == (5, 4, 1)
    assert saved["inside_afterwards"].ravel().tolist() == [1, 0, 1, 1, 1, 0]
    assert [o.seconds for o in cells.asked if isinstance(o, Wait)] == [100.0]


def test_pulses_beyond_a_limit_are_refused_before_any_is_given() -> None:
    cells = Cells(50e-6, by_gate)
    keys = METHODS["ispp"]["set"] | {"stop_v": 4.6}
    with pytest.raises(LimitError, match=r"WL 4\.6 V"):
        follow(method("ispp", targets=TARGET, set=keys), a_setting(), cells)
    assert not cells.asked
    keys = METHODS["ispp"]["reset"] | {"amplitude_v": 0.2}
    with pytest.raises(LimitError, match="would be a read"):
        follow(method("ispp", targets=TARGET, reset=keys), a_setting(), cells)


def test_an_averaged_verify_decides_by_the_mean_of_its_reads() -> None:
    """Reads of a round are 6 uS off, by turns above and below."""
    target = np.full(CHIP.shape, np.nan)
    target[0, 0, 0] = 50e-6

    def run(average: int) -> Any:
        cells = Cells(50e-6, lambda at, g, *_: g)

        def answer(operation: Operation) -> Any:
            result = cells(operation)
            sign = np.where(np.arange(result.conductance_s.shape[1]) % 2, -1, 1)
            return replace(result, conductance_s=result.conductance_s + 6e-6 * sign)

        keys = {"targets": target, "tolerance_s": 3e-6, "tolerance": 0.0, "max_pulses": 4}
        asked = method("relaxation-aware", average=average, reverify=0, **keys)
        return follow(asked, a_setting(), answer)[0]

    assert (run(1).inside, run(1).pulses) == (0, 4)
    mean = run(4)
    assert (mean.inside, mean.pulses, mean.reads) == (1, 0, 8)


def test_an_averaged_verify_knows_a_cell_above_the_range_of_the_bench() -> None:
    """The range ends at 100 uS, the window of 95 uS at 99.75: reads scatter by 4 uS."""
    target = np.full(CHIP.shape, 95e-6)

    def accepted(start_s: float) -> int:
        cells, rng = Cells(start_s, lambda at, g, *_: g), np.random.default_rng(1)

        def answer(operation: Operation) -> Any:
            result = cells(operation)
            found = result.conductance_s + rng.normal(0, 4e-6, result.conductance_s.shape)
            over = found > 100e-6
            flags = np.where(over, Status.OVER_RANGE, Status.OK).astype(np.uint8)
            return replace(result, conductance_s=np.where(over, np.nan, found), status=flags)

        keys = {"targets": target, "tolerance_s": 0.0, "reset_first": False, "max_pulses": 1}
        summary, _ = follow(method("ispp", average=64, **keys), a_setting(), answer)
        assert summary.unreadable == 0
        return int(summary.inside)

    # Of a cell at 105 uS every tenth read is in range, and no mean of those tells where it is.
    assert accepted(105e-6) == accepted(101.5e-6) == 0
    assert accepted(95e-6) == 6


def cut_off(cells: Cells, rounds: set[int]) -> Any:
    """Answers of a bench that is cut at these of its rounds with pulses, before any is given."""
    pulsed = 0

    def answer(operation: Operation) -> Any:
        nonlocal pulsed
        assert isinstance(operation, Apply)
        n, m = len(operation.cells), operation.measurements
        pulsed += len(operation.steps) > 1
        if len(operation.steps) > 1 and pulsed in rounds:
            nothing, zero = np.full((n, m), np.nan), np.zeros(n, dtype=np.int64)
            lost = np.full((n, m), Status.UNKNOWN, dtype=np.uint8)
            return ApplyResult(nothing, nothing, lost, nothing, zero, zero, interrupted=True)
        return cells(operation)

    return answer


@pytest.mark.parametrize("name", ["adaptive-step", "coarse-fine"])
def test_a_pulse_that_was_not_given_does_not_move_a_ramp(name: str) -> None:
    target = np.full(CHIP.shape, np.nan)
    target[0, 0, 0] = 80e-6

    def given(rounds: set[int]) -> Any:
        cells = Cells(50e-6, lambda at, g, v, *_: g + 2e-6 * np.sign(v))
        keys = {"targets": target, "tolerance_s": 1.5e-6, "tolerance": 0.0, "max_pulses": 30}
        keys |= {"reset_first": False} if name == "coarse-fine" else {}
        follow(method(name, **keys), a_setting(), cut_off(cells, rounds))
        return cells.volts[0], cells.gates[0]

    whole = given(set())
    assert len(whole[0]) >= 10
    assert given({2, 3, 4, 7}) == whole


# What is asked about before anything moves


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "ispp",
            {
                "ramp": "width",
                "set": {
                    "amplitude_v": 2.0,
                    "gate_v": 2.5,
                    "width_s": 1e-9,
                    "factor": 2.0,
                    "stop_s": 1e-6,
                },
            },
        ),
        (
            "coarse-fine",
            {"fine": METHODS["coarse-fine"]["fine"] | {"set": PULSES["set"] | {"width_s": 1e-9}}},
        ),
    ],
)
def test_a_width_that_is_too_short_is_refused_before_anything_has_moved(
    name: str, keys: dict[str, Any]
) -> None:
    cells = Cells(50e-6, by_gate)
    with pytest.raises(ConfigError, match="a width of 1e-09 s is not available"):
        follow(method(name, targets=TARGET, **keys), a_setting(), cells)
    assert not cells.asked


@pytest.mark.parametrize("name", METHODS)
def test_a_map_without_targets_leaves_nothing_to_do(name: str) -> None:
    cells = Cells(50e-6, by_gate)
    summary, _ = follow(method(name, targets=np.full(CHIP.shape, np.nan)), a_setting(), cells)
    assert (summary.cells, summary.inside, summary.pulses) == (0, 0, 0)
    assert not cells.pulses.any()


# ISPP


def test_ispp_begins_its_ramp_anew_after_a_reset() -> None:
    """Cell 0 overshoots once, at its second pulse."""
    gone: list[int] = []

    def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
        found = by_gate(at, g, volts, gate, width_s)
        if 0 in at and len(cells.volts[0]) == 3 and not gone:
            gone.append(1)
            found[at == 0] = 90e-6
        return found

    target = np.full(CHIP.shape, np.nan)
    target[0, 0, 0] = 40e-6
    cells = Cells(200e-6, respond)
    summary, _ = follow(method("ispp", targets=target), a_setting(), cells)
    assert summary.inside == 1
    assert cells.volts[0] == [-2.0, 2.0, 2.0, -2.0, 2.0, 2.0, 2.0, 2.0]
    np.testing.assert_allclose(cells.gates[0], [3.5, 2.0, 2.1, 3.5, 2.0, 2.1, 2.2, 2.3])


def test_an_ispp_ramp_that_ended_below_the_window_begins_anew_with_a_reset() -> None:
    target = np.full(CHIP.shape, np.nan)
    target[0, 0, 0] = 80e-6
    cells = Cells(1e-6, lambda at, g, volts, gate, width_s: g * np.where(volts > 0, 1.1, 0.9))
    pulses = METHODS["ispp"]["set"] | {"stop_v": 2.2}
    follow(method("ispp", targets=target, set=pulses, max_pulses=9), a_setting(), cells)
    assert np.sign(cells.volts[0]).tolist() == [-1, 1, 1, 1, -1, 1, 1, 1, -1]
    np.testing.assert_allclose(cells.gates[0][1:4], [2.0, 2.1, 2.2])


@pytest.mark.parametrize(
    ("ramp", "keys", "told"),
    [
        ("amplitude", {"step_v": 0.1, "stop_v": 2.3}, [2.0, 2.1, 2.2, 2.3]),
        ("width", {"factor": 2.0, "stop_s": 8e-7}, [1e-7, 2e-7, 4e-7, 8e-7]),
    ],
)
def test_ispp_may_ramp_amplitude_or_width(ramp: str, keys: Any, told: list[float]) -> None:
    target = np.full(CHIP.shape, np.nan)
    target[0, 0, :] = 80e-6
    # Cell 1 is a pulse behind cell 0: their widths differ, and the round is one operation still.
    cells = Cells([1e-6, 200e-6, 80e-6, 0, 0, 0], lambda at, g, v, *_: np.where(v < 0, 1e-6, g))
    pulse = {"amplitude_v": 2.0, "gate_v": 2.5, "width_s": 1e-7} | keys
    asked = method("ispp", targets=target, ramp=ramp, set=pulse, reset_first=False, max_pulses=4)
    follow(asked, a_setting(), cells)
    seen = cells.volts[0] if ramp == "amplitude" else cells.widths[0]
    np.testing.assert_allclose(seen, told)
    assert cells.volts[1][0] == -2.0
    seen = cells.volts[1] if ramp == "amplitude" else cells.widths[1]
    np.testing.assert_allclose(seen[1:], told[:3])
    # The first reading of all, four rounds, and the second reading of the cell that was inside.
    assert len(cells.asked) == 5


def test_ispp_without_a_rising_quantity_is_refused() -> None:
    pulse = {"amplitude_v": 2.0, "gate_v": 2.5, "width_s": 1e-7}
    with pytest.raises(ConfigError, match=r"set\.step_v is missing"):
        method("ispp", set=pulse)
    with pytest.raises(ConfigError, match=r"set\.step_v has no meaning"):
        method("ispp", ramp="width", set=pulse | {"step_v": 0.1, "stop_v": 3.0})
    with pytest.raises(ConfigError, match="must not end before"):
        method("ispp", set=pulse | {"step_v": 0.1, "stop_v": 2.0})
    # Also where less than a step is missing.
    with pytest.raises(ConfigError, match="must not end before"):
        method("ispp", set=pulse | {"step_v": 0.1, "stop_v": 2.45})
    with pytest.raises(ConfigError, match="must not end before"):
        method("ispp", ramp="width", set=pulse | {"factor": 2.0, "stop_s": 0.6e-7})


# Fixed pulses


def test_fixed_pulses_take_the_gate_of_the_target_and_never_another() -> None:
    """Of cell 1 the first two writes fall beside its window."""

    def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
        found = np.where(volts > 0, 40e-6, 1e-6)
        late = (at == 1) & (volts > 0)
        number = len(cells.volts[1])
        return np.where(late, {2: 70e-6, 4: 20e-6}.get(number, 60e-6), found)

    target = np.full(CHIP.shape, np.nan)
    target[0, 0, :2] = 40e-6, 60e-6
    cells = Cells(200e-6, respond)
    summary, _ = follow(method("fixed-pulses", targets=target), a_setting(), cells)
    assert summary.inside == 2
    assert cells.volts[0] == [-1.5, 2.0]
    # Beyond the window a RESET, below it the same SET once more.
    assert cells.volts[1] == [-1.5, 2.0, -1.5, 2.0, 2.0]
    own = 2.0 + np.log(target[0, 0, :2] / 10e-6) / np.log(11)
    np.testing.assert_allclose(cells.gates[0][1:], own[0], atol=1e-6)
    np.testing.assert_allclose([g for g in cells.gates[1] if g != 3.5], own[1], atol=1e-6)


# Adaptive steps


def test_an_adaptive_step_follows_the_error_and_the_slope_of_the_cell() -> None:
    """Cell 0 gains 50 uS for each volt, cell 1 400 uS: each learns its own."""
    steep = np.array([50e-6, 400e-6])

    def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
        return np.where(volts > 0, steep[at] * (gate - 1.8), g)

    target = np.full(CHIP.shape, np.nan)
    target[0, 0, 0], target[0, 0, 1] = 60e-6, 200e-6
    cells = Cells(1e-6, respond)
    asked = method("adaptive-step", targets=target, tolerance=0.05)
    summary, _ = follow(asked, a_setting(), cells)
    assert summary.inside == 2
    for k, gates in enumerate(cells.gates[:2]):
        np.testing.assert_allclose(gates[:2], [2.0, 2.05])  # careful while no slope is known
        missing = target[0, 0, k] - steep[k] * (np.array(gates[1:-1]) - 1.8)
        wanted = np.clip(0.7 * missing / steep[k], 0.05, 0.3)
        room = 3.0 - np.array(gates[1:-1])
        np.testing.assert_allclose(np.diff(gates)[1:], np.minimum(wanted, room), atol=2e-6)
    # Steps of 0.05 V would have taken cell 0 twenty pulses.
    assert len(cells.gates[0]) <= 7
    assert len(cells.gates[1]) <= 6


def test_after_an_overshoot_an_adaptive_step_goes_back_by_what_it_learnt() -> None:
    """The cell passes its target of 50 uS at the third pulse, by a slope that it did not have."""

    def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
        return np.where(volts > 0, np.where(gate < 2.1, 10e-6, 400e-6 * (gate - 2.1)), 1e-6)

    target = np.full(CHIP.shape, np.nan)
    target[0, 0, 0] = 50e-6
    cells = Cells(1e-6, respond)
    keys = {"targets": target, "tolerance": 0.1, "confirm": 0}
    summary, _ = follow(method("adaptive-step", **keys), a_setting(), cells)
    assert summary.inside == 1
    gates = [g for g, v in zip(cells.gates[0], cells.volts[0], strict=True) if v > 0]
    assert gates[:3] == pytest.approx([2.0, 2.05, 2.35])
    assert cells.volts[0][3] < 0
    assert 2.1 < gates[3] < gates[2]
    with pytest.raises(ConfigError, match="must not lie below gate_v"):
        method("adaptive-step", set=METHODS["adaptive-step"]["set"] | {"stop_v": 1.0})


# Coarse and fine


def test_a_cell_takes_fine_pulses_near_its_target_and_coarse_ones_elsewhere() -> None:
    """A coarse SET leaves 60 uS, each fine one 3 uS more, a fine RESET 8 uS less."""

    def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
        up = np.where(volts >= 2.0, 60e-6, g + 3e-6)
        down = np.where(volts <= -1.5, 3e-6, g - 8e-6)
        found = np.where(volts > 0, up, down)
        return np.where((at == 1) & (len(cells.volts[1]) == 2), 150e-6, found)

    target = np.full(CHIP.shape, np.nan)
    target[0, 0, :] = 71e-6, 57e-6, 4e-6
    cells = Cells([1e-6, 1e-6, 7e-6, 0, 0, 0], respond)
    keys = {"targets": target, "tolerance": 0.0, "tolerance_s": 1.5e-6, "lowest_s": 0.5e-6}
    summary, _ = follow(method("coarse-fine", **keys), a_setting(), cells)
    assert summary.inside == 3
    assert cells.volts[0] == pytest.approx([-1.5, 2.0, 1.5, 1.55, 1.6, 1.65])
    # Its first write went beyond the range: a coarse RESET and SET, then fine RESETs and SETs, each
    # ramp from its start.
    assert cells.volts[1] == pytest.approx([-1.5, 2.0, -1.5, 2.0, -0.8, 1.5, 1.55])
    # Within a factor of its target from the beginning, this one begins with a RESET all the same.
    assert cells.volts[2] == pytest.approx([-1.5])
    cells = Cells([1e-6, 1e-6, 7e-6, 0, 0, 0], respond)
    low = keys | {"lowest_s": 4e-6, "reset_first": False}
    target[0, 0, :2] = np.nan
    follow(method("coarse-fine", **low), a_setting(), cells)
    assert cells.volts[2] == pytest.approx([-1.5])  # near, and no fine RESET


# Relaxation


def test_what_relaxed_out_of_its_window_is_brought_back_until_it_stays() -> None:
    """Cells 0 and 1 lose a fifth in the first wait, cell 1 in the second, too."""
    cells = Cells(1e-6, by_curve)
    waits: list[float] = []

    def answer(operation: Operation) -> Any:
        if isinstance(operation, Wait):
            waits.append(operation.seconds)
            cells.g[: {1: 2, 2: 2}.get(len(waits), 0)] *= 0.7
            cells.g[:1] /= 0.7 if len(waits) == 2 else 1.0
        return cells(operation)

    keys = {"targets": TARGET, "tolerance": 0.15, "tolerance_s": 3e-6, "wait_s": 10.0}
    summary, saved = follow(method("relaxation-aware", reverify=9, **keys), a_setting(), answer)
    assert summary.inside == 5
    # The third time all of them stayed.
    assert waits == [10.0] * 3
    error = np.abs(cells.g - TARGET.ravel())[:5]
    assert np.all(error <= np.maximum(0.15 * TARGET.ravel()[:5], 3e-6) * 1.0001)
    assert np.all(saved["inside"].ravel()[:5])


def test_a_guarded_window_is_narrower_by_the_noise_of_a_reading() -> None:
    target = np.full(CHIP.shape, np.nan)
    target[0, 0, :2] = 50e-6, 60e-6
    # Both read 3.5 uS beside their targets: inside of 4 uS, but not surely.
    cells = Cells([53.5e-6, 62.5e-6, 0, 0, 0, 0], by_curve)
    keys = {"targets": target, "tolerance_s": 4e-6, "tolerance": 0.0, "max_pulses": 30}
    plain, saved = follow(method("relaxation-aware", **keys), a_setting(), cells)
    assert (plain.inside, plain.pulses) == (2, 0)
    guard = {"floor_s": 0.6e-6, "fraction": 0.01, "sure": 1.0}
    setting = a_setting()
    _, saved = follow(method("relaxation-aware", guard=guard, **keys), setting, cells)
    pulses = (saved["set_pulses"] + saved["reset_pulses"]).ravel()
    assert pulses[0] > 0 == pulses[1]
    # What later maps are held against is the window as asked.
    np.testing.assert_allclose(setting.shared["windows"].high_s[0, 0, 0], 54e-6)  # type: ignore[attr-defined]


# Early stopping


def test_a_write_that_is_not_expected_to_pay_is_not_made() -> None:
    """Writes fall up to 20 % beside their target, evenly: with U(0, 0.2) a cell off by a part x
    expects x^2 / 0.4 of its target from another one.
    """
    chip = Geometry(1, 12, 12)
    target = np.full(chip.shape, 50e-6)

    def run(name: str, **keys: Any) -> tuple[Any, Any, Cells]:
        rng = np.random.default_rng(3)

        def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
            return np.where(volts > 0, 50e-6 * (1 + rng.uniform(-0.2, 0.2, at.size)), 1e-6)

        cells = Cells(1e-6, respond, chip)
        asked = method(name, targets=target, tolerance=0.02, tolerance_s=0.0, confirm=0, **keys)
        return *follow(asked, a_setting(geometry=chip), cells), cells

    stopped, saved, cells = run("early-stop", least_gain_s=0.5e-6)
    whole, _, _ = run("fixed-pulses")
    threshold = np.sqrt(0.4 * 0.5e-6 / 50e-6)
    error = np.abs(cells.g / 50e-6 - 1)
    skipped = saved["reason"].ravel() == Reason.SKIPPED
    assert stopped.skipped == skipped.sum() > 40
    assert stopped.skipped + stopped.inside == whole.inside == chip.size
    assert error[skipped].max() < 1.15 * threshold
    assert error[skipped].min() > 0.02
    # Errors of up to 6 % instead of 2 % for a third of the pulses.
    assert stopped.pulses < 0.45 * whole.pulses


# Pairs


def by_two(at: Any, g: np.ndarray, volts: np.ndarray, gate: Any, width_s: float) -> np.ndarray:
    """2 uS more or less with each pulse; cell 5 does not respond."""
    return np.where(at == 5, g, g + 2e-6 * np.sign(volts))


def test_of_a_pair_the_cell_is_moved_that_is_farther_off_where_the_pair_needs_it() -> None:
    """Column pairs: in row 0 the first cell is too high, in row 1 the second too low."""
    chip = Geometry(1, 2, 4)
    target = np.full(chip.shape, np.nan)
    target[0, :, :2] = 50e-6, 10e-6
    start = [60e-6, 11e-6, 0, 0, 49e-6, 1e-6, 0, 0]
    cells = Cells(start, lambda at, g, volts, *_: g + 2e-6 * np.sign(volts), chip)
    keys = {"targets": target, "tolerance": 0.0, "tolerance_s": 2e-6}
    setting = a_setting(geometry=chip)
    summary, saved = follow(method("pair-verify", **keys), setting, cells)
    assert summary.inside == 4
    assert saved["set_pulses"].ravel()[[0, 1, 4, 5]].tolist() == [0, 0, 0, 3]
    assert saved["reset_pulses"].ravel()[[0, 1, 4, 5]].tolist() == [4, 0, 0, 0]
    difference = cells.g[[0, 4]] - cells.g[[1, 5]]
    assert np.all(np.abs(difference - 40e-6) <= 2e-6)


def test_the_other_cell_of_a_pair_makes_up_for_one_that_does_not_respond() -> None:
    """Cell 5 stays at 20 uS and should be at 10: its budget once spent, cell 4 goes up instead."""
    chip = Geometry(1, 2, 4)
    target = np.full(chip.shape, np.nan)
    target[0, 1, :2] = 50e-6, 10e-6
    cells = Cells([0, 0, 0, 0, 49e-6, 20e-6, 0, 0], by_two, chip)
    keys = {"targets": target, "tolerance": 0.0, "tolerance_s": 2e-6, "max_pulses": 8}
    asked = method("pair-verify", read_after=True, **keys)
    summary, _ = follow(asked, a_setting(geometry=chip), cells)
    assert (summary.inside, summary.inside_afterwards, summary.moved_out) == (2, 2, 0)
    assert abs(cells.g[4] - cells.g[5] - 40e-6) <= 2e-6
    assert cells.pulses[[4, 5]].tolist() == [5, 8]
    single, _ = follow(method("relaxation-aware", **keys), a_setting(geometry=chip), cells)
    assert single.inside < 2
    # Neither cell of this pair responds: it is given up with its budgets spent.
    cells = Cells([0, 0, 0, 0, 49e-6, 20e-6, 0, 0], lambda *a: a[1], chip)
    summary, _ = follow(method("pair-verify", **keys), a_setting(geometry=chip), cells)
    assert (summary.inside, summary.out_of_pulses) == (0, 2)
    assert cells.pulses[[4, 5]].tolist() == [8, 8]


def test_the_pairs_of_a_network_are_those_of_its_weights(tmp_path: Path) -> None:
    layer = Linear(name="layer", inputs=2, outputs=1)
    weights = {"layer": np.array([[0.5, -1.0]], np.float32)}
    Network((layer,), weights).save(tmp_path / "net.safetensors")
    cells = Cells(30e-6, by_two)
    setting = a_setting(tmp_path)
    keys = {"targets": {"network": "net.safetensors"}, "tolerance_s": 2e-6, "tolerance": 0.0}
    summary, saved = follow(method("pair-verify", **keys), setting, cells)
    assert summary.inside == summary.cells == 4
    mapping = setting.shared_by("network", Programmed).mapping
    first, second = mapping.pair_index("layer")
    wanted = saved["target"].ravel()[first] - saved["target"].ravel()[second]
    assert np.all(np.abs(cells.g[first] - cells.g[second] - wanted) <= 2e-6 * 1.0001)
    assert np.abs(wanted).max() > 20e-6


def test_pairs_leave_no_windows_of_cells_and_take_none() -> None:
    cells = Cells(50e-6, by_gate)
    setting = a_setting()
    follow(method("ispp", targets=TARGET), setting, cells)
    assert "windows" in setting.shared
    follow(method("pair-verify", targets=TARGET, max_pulses=3), setting, cells)
    assert "windows" not in setting.shared
    with pytest.raises(ConfigError, match=r"guard: pair-verify accepts pairs.*leave it out"):
        method("pair-verify", targets=TARGET, guard={"floor_s": 1e-6})
    own = TargetChoice(map=TARGET, low=TARGET - 1e-6, high=TARGET + 1e-6)
    cells = Cells(50e-6, by_gate)
    with pytest.raises(ConfigError, match=r"targets: .*leave low and high out"):
        follow(method("pair-verify", targets=own), setting, cells)
    assert not cells.asked
