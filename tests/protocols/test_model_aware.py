"""Programming by the chip's twin: what it learns of a cell, and when it leaves one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bank_cells import BankCells
from methods import CHIP, Cells, a_setting, follow, method
from typing_extensions import override

from rram_hil.array import Cells as Addresses
from rram_hil.array import Geometry
from rram_hil.errors import ConfigError
from rram_hil.protocols.model_aware import FEWEST_RESETS, MOST_WORTH, ByTwin, ModelAware
from rram_hil.protocols.parts.rounds import Course, Move, Reason, Rules, programmed_by
from rram_hil.simulation.bank import CellBank
from rram_hil.simulation.model import DeviceModel

MODEL = DeviceModel.load("hfo2-measured")
KEYS: dict[str, Any] = {
    "model": "hfo2-measured",
    "virtual_cells": 64,
    "set": {
        "amplitude_v": 2.0,
        "gate_v": {"start_v": 1.8, "stop_v": 3.5, "step_v": 0.05},
        "width_s": 2e-7,
    },
    "reset": {
        "amplitude_v": {"start_v": 0.8, "stop_v": 3.0, "step_v": 0.2},
        "gate_v": 4.0,
        "width_s": 2e-7,
    },
}


def a_method(**keys: Any) -> ModelAware:
    """The protocol for cells of the fitted preset."""
    return ModelAware.model_validate(KEYS | {"confirm": 0} | keys)


def one_target(target_s: float, cells: int = 1) -> Any:
    """A map of the small chip of which only the first cells have a target."""
    target = np.full(CHIP.shape, np.nan)
    target.ravel()[:cells] = target_s
    return target


class Kept(ByTwin):
    """The policy, and what it expected of each SET: change of ln G, and the noise of a reading."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.expected: list[np.ndarray] = []
        self.noise: list[np.ndarray] = []

    @override
    def next(self, course: Course, at: Any) -> Move:
        move = super().next(course, at)
        k = at[(move.polarity > 0) & (self._pulse[at] < self.twin.set_pulses.gate_v.size - 1)]
        x = self.twin.ln(course.last_s[k])
        mean, _ = self.twin.expected(self.twin.by_set, self.belief.weight(k), x)
        self.expected.append(mean[np.arange(k.size), self._pulse[k]] - x)
        self.noise.append(self.twin.noise_ln(course.last_s[k]))
        return move


def on_bank(n: int, policy: type[ByTwin], low_s: float, high_s: float) -> tuple[Any, Course, Any]:
    """Cells of the preset in one window: policy, course and what answered."""
    cells, asked = BankCells(CellBank(MODEL, n, seed=3)), a_method()
    everything = cells.geometry.size
    course = Course.of(
        cell_row(everything), np.full(n, low_s), np.full(n, high_s), np.full(n, low_s)
    )
    setting = a_setting(geometry=cells.geometry)
    twin = asked.policy(course, setting).twin
    made = policy(twin, course, asked.doubtful_resets, asked.least_chance)
    cells.carry_out(programmed_by(made, course, setting, Rules(60, 30, 0)))
    return made, course, cells


def cell_row(n: int) -> Any:
    """All cells of a chip of one row."""
    return Addresses.block(0, np.array([0]), np.arange(n))


def test_most_cells_are_inside_a_narrow_window_after_few_pulses() -> None:
    made, course, cells = on_bank(200, Kept, 1 / 9310, 1 / 8510)
    assert course.inside.mean() > 0.95
    assert np.mean(course.pulses[course.inside]) < 8
    # A round is one operation: the first reading, and as many as the slowest cell took pulses.
    assert cells.operations <= 1 + course.pulses.max()
    expected, noise = np.concatenate(made.expected), np.concatenate(made.noise)
    assert expected.size > 300
    assert np.all(expected > noise)


def test_what_a_cell_answered_decides_its_next_pulse() -> None:
    """Two cells stand at the same conductance; the one that needed more gate for it gets more."""
    asked = a_method()
    cells = cell_row(2)
    course = Course.of(cells, np.full(2, 160e-6), np.full(2, 175e-6), np.full(2, 167e-6))
    policy = asked.policy(course, a_setting())
    gates = policy.twin.set_pulses.gate_v
    pulse = np.array([np.argmin(np.abs(gates - v)) for v in (2.05, 2.45)])
    policy.belief.broken[:] = True
    before, after = np.full(2, 10e-6), np.full(2, 60e-6)
    policy.belief.learn(np.arange(2), 1, pulse, before, after)
    course.took(np.arange(2), after, np.zeros(2, dtype=np.uint8), 0)
    move = policy.next(course, np.arange(2))
    assert move.polarity.tolist() == [1, 1]
    assert move.gate_v[1] > move.gate_v[0] + 0.1


def test_a_cell_that_answers_to_nothing_is_left_after_a_few_pulses() -> None:
    cells = Cells([150e-6, 3e-6, 0, 0, 0, 0], lambda at, g, *_: g)
    for k, target, reason in (
        (0, 20e-6, Reason.STUCK_LOW_RESISTANCE),
        (1, 100e-6, Reason.STUCK_HIGH_RESISTANCE),
    ):
        cells.pulses[:] = 0
        targets = np.full(CHIP.shape, np.nan)
        targets.ravel()[k] = target
        _, saved = follow(a_method(targets=targets), a_setting(), cells)
        assert saved["reason"].ravel()[k] == reason
        assert cells.pulses[k] <= 6


def again_at(level_s: float, other_s: float, polarity: int, spread: float) -> Cells:
    """A cell that pulses of a polarity leave at a level again and again, a little more or less, and
    those of the other one at `other_s`.
    """
    turn = iter(np.exp(spread * np.random.default_rng(5).standard_normal(1000)))

    def respond(at: Any, g: Any, volts: Any, *_: Any) -> Any:
        return np.where(polarity * volts > 0, level_s * next(turn), other_s)

    return Cells(other_s, respond)


def test_a_cell_without_hope_to_open_is_left_after_a_few_resets() -> None:
    """RESETs leave it at 40 uS, and the window ends at 3 uS."""
    asked = a_method(targets=one_target(2e-6), tolerance_s=1e-6, doubtful_resets=50)
    summary, saved = follow(asked, a_setting(), again_at(40e-6, 200e-6, -1, 0.02))
    assert summary.never_opened == 1
    assert FEWEST_RESETS <= saved["reset_pulses"].ravel()[0] <= 5


@pytest.mark.parametrize("worth", [2, 6])
def test_a_doubtful_cell_that_may_yet_open_takes_five_times_its_worth(worth: int) -> None:
    asked = a_method(targets=one_target(10e-6), tolerance_s=2e-6, doubtful_resets=worth)
    asked = asked.model_copy(update={"least_chance": 0.2})
    summary, saved = follow(asked, a_setting(), again_at(20e-6, 200e-6, -1, 0.02))
    assert summary.never_opened == 1
    assert saved["reset_pulses"].ravel()[0] == MOST_WORTH * worth


def test_a_cell_that_the_strongest_sets_leave_below_its_window_is_left_as_never_closed() -> None:
    """By the spread of its own readings, of 2 %: 6 % below the window it has hope, 15 % not."""
    pulses = []
    for level_s in (188e-6, 170e-6):
        cells = again_at(level_s, 8e-6, 1, 0.02)
        asked = a_method(targets=one_target(220e-6), tolerance_s=20e-6, max_pulses=60)
        _, saved = follow(asked, a_setting(), cells)
        assert saved["reason"].ravel()[0] == Reason.NEVER_CLOSED
        pulses.append(saved["set_pulses"].ravel()[0])
    assert pulses[1] < 25 < pulses[0]


def test_a_chip_that_is_not_as_its_model_has_it_is_learnt() -> None:
    """Its SETs give 0.6 of what the preset says, all cells alike."""
    curve = MODEL.nominal_set_s

    def respond(at: Any, g: Any, volts: Any, gate: Any, width_s: float) -> Any:
        return np.where(volts > 0, np.maximum(g, 0.6 * curve(gate, 2.0, 2e-7)), 8e-6)

    cells = Cells(8e-6, respond)
    summary, _ = follow(a_method(targets=one_target(80e-6, 6)), a_setting(), cells)
    assert summary.inside == 6
    assert summary.mean_pulses < 12


def test_keys_that_make_no_sense_are_refused() -> None:
    pulses = KEYS["set"] | {"gate_v": 2.0}
    with pytest.raises(ConfigError, match="one of amplitude_v and gate_v must be a range"):
        method("model-aware", set=pulses)
    backwards = KEYS["set"] | {"gate_v": {"start_v": 2.0, "stop_v": 1.0, "step_v": 0.1}}
    with pytest.raises(ConfigError, match=r"stop_v .* must not lie below start_v"):
        method("model-aware", set=backwards)
    nameless = a_method(model="nowhere.toml", targets=one_target(1e-6))
    assert nameless.input_files() == ("nowhere.toml",)
    assert a_method().input_files() == ()
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        follow(nameless, a_setting(), Cells(1e-6, lambda at, g, *_: g))


def test_a_cell_that_was_once_below_its_window_is_not_told_as_never_opened() -> None:
    """SETs leave it above a narrow window, RESETs below it: it has spent its pulses, no more."""
    cells = Cells(8e-6, lambda at, g, volts, *_: np.where(volts > 0, 60e-6, 8e-6))
    asked = a_method(
        targets=one_target(40e-6), tolerance=0.01, doubtful_resets=3, max_reversals=1000
    )
    _, saved = follow(asked, a_setting(), cells)
    assert saved["reason"].ravel()[0] not in (Reason.NEVER_OPENED, Reason.INSIDE)
    assert "doubted_after_resets" not in saved


def test_cells_that_were_never_formed_are_told_so_whatever_the_noise() -> None:
    noise = np.random.default_rng(4)
    cells = Cells(1e-9, lambda at, g, *_: noise.normal(1e-9, 1e-7, at.size))
    for asked in (a_method(), method("ispp", max_pulses=20)):
        asked = asked.model_copy(update={"targets": None})
        setting = a_setting()
        told = type(asked).model_validate(asked.model_dump() | {"targets": one_target(80e-6, 6)})
        summary, _ = follow(told, setting, cells)
        assert summary.not_formed == 6


def test_pulses_of_which_the_model_knows_no_set_are_refused() -> None:
    weak = KEYS["set"] | {"gate_v": {"start_v": 0.1, "stop_v": 0.5, "step_v": 0.1}}
    asked = a_method(targets=one_target(80e-6), set=weak)
    with pytest.raises(ConfigError, match="no SET of these pulses gives more"):
        follow(asked, a_setting(), Cells(1e-6, lambda at, g, *_: g))


def test_an_array_without_gates_is_taken_as_wide_open() -> None:
    gates = {"gate_v": {"start_v": 0.0, "stop_v": 0.0, "step_v": 0.1}}
    ranged = {"start_v": 0.8, "stop_v": 2.0, "step_v": 0.1}
    passive = Geometry(1, 2, 3, cell="1R")
    asked = a_method(
        model="paper",
        targets=one_target(80e-6),
        set=KEYS["set"] | gates | {"amplitude_v": ranged},
        reset=KEYS["reset"] | {"gate_v": 0.0},
    )
    policy = asked.policy(
        Course.of(cell_row(3), *np.full((3, 3), 80e-6)), a_setting(geometry=passive)
    )
    assert np.all(np.isfinite(policy.twin.start_ln))
