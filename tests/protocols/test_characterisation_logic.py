"""Characterisation protocols driven by invented cells: failures, interruptions, resumed runs, and
the arithmetic of figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_recipes import ARRAY, backend_text, steps_of, toml
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Limits,
    Operation,
    Result,
    Status,
    Step,
    pulses_of,
    read_step,
)
from rram_hil.bench.plugins import protocol_class
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.engine.engine import Watcher, unknown_result
from rram_hil.engine.protocol import Progress, ReadTemperature, Save, Setting
from rram_hil.errors import AbortedError, DataError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.protocols.parts.characterisation import log_counts, log_times, repeated
from rram_hil.protocols.read_noise import telegraph
from rram_hil.statistics import (
    Figure,
    between,
    half_width,
    mean,
    median,
    proportion,
    slope,
    spread,
    within,
)
from rram_hil.storage.run_reader import read_run
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
    energy_j=1e-3,
    width_s=0.1,
    pulses_per_cell=10**9,
)
WIDE = Span(-5.0, 5.0)
SETTING = Setting(
    CHIP, LIMITS, read_step(), Capabilities(WIDE, WIDE, WIDE, Span(1e-8, 1.0), compliance=True)
)
SET = {"bl_v": 2.0, "wl_v": 2.6, "width_s": 1e-7}
RESET = {"sl_v": 1.6, "wl_v": 3.5, "width_s": 2e-7}


class Switches:
    """Six cells of two states, 100 and 1 uS, that move no more after `lives` pulses; `cut` spoils
    operations by their number.
    """

    def __init__(
        self, lives: list[float], cut: Callable[[int, Apply], list[int] | None] = lambda k, o: None
    ) -> None:
        self.lives, self.cut = np.array(lives), cut
        self.g = np.full(6, 1e-6)
        self.pulses = np.zeros(6, np.int64)
        self.asked: list[Apply] = []

    def __call__(self, operation: Operation) -> Result:
        assert isinstance(operation, Apply)
        self.asked.append(operation)
        at = operation.cells.index(CHIP)
        told = self.cut(len(self.asked), operation)
        if told is not None:
            # So many of the cells took it whole, and nothing is known of what they measured.
            for k, pulses in enumerate(told):
                self._steps(operation.part(np.array([k])), at[[k]], pulses)
            return unknown_result(operation, np.array(told), 1.0)
        before = self.pulses[at].copy()
        values = self._steps(operation, at, None)
        status = np.zeros(values.shape, np.uint8)
        pulses = self.pulses[at] - before
        return ApplyResult(
            values * 0.2, values, status, values * 0, pulses, (status == 0).sum(axis=1)
        )

    def _steps(self, operation: Apply, at: Any, most: int | None) -> Any:
        values = []
        given = 0
        for step in operation.steps * operation.repeat:
            volts = step.cell_v(len(at))
            if abs(volts[0]) > 0.25:
                if most is not None and given >= most:
                    break
                given += 1
                self.pulses[at] += 1
                moving = self.pulses[at] <= self.lives[at]
                self.g[at] = np.where(moving, np.where(volts > 0, 100e-6, 1e-6), self.g[at])
            if step.measure == "current":
                values.append(self.g[at].copy())
        return np.stack(values, axis=1) if values else np.zeros((len(at), 0))


def follow(
    name: str, answer: Callable[[Operation], Result], **keys: Any
) -> tuple[Any, dict[str, Any]]:
    """Run a protocol on invented results: what it returned and saved."""
    saved: dict[str, Any] = {}
    plan = protocol_class(name).model_validate(keys).run(SETTING)
    reply: object = None
    try:
        while True:
            message: Any = plan.send(reply)
            reply = None
            if isinstance(message, Save):
                saved[message.name] = message.values
            elif isinstance(message, ReadTemperature):
                reply = math.nan
            elif not isinstance(message, Progress):
                reply = answer(message)
    except StopIteration as stop:
        return stop.value, saved


# Endurance


def test_a_cell_whose_window_closes_takes_no_further_pulse() -> None:
    # Two pulses a cycle: the third cell lives for 30 cycles, the fourth never cycles.
    cells = Switches([math.inf, math.inf, 60, 0, math.inf, math.inf])
    found, saved = follow("endurance", cells, set=SET, reset=RESET, cycles=100, per_decade=3)
    np.testing.assert_array_equal(saved["cycle"], [1, 2, 5, 10, 22, 46, 100])
    assert (found.cells, found.never_cycled, found.first_failure) == (6, 1, 46)
    assert saved["failed_at"].ravel().tolist() == [0, 0, 46, 1, 0, 0]
    # One more measured cycle confirms the failure.
    assert cells.pulses.tolist() == [200, 200, 94, 4, 200, 200]
    assert found.cycles == cells.pulses.sum() // 2
    np.testing.assert_allclose(saved["surviving_share"], [1, 1, 1, 1, 1, 0.8, 0.8])
    assert found.surviving.value == pytest.approx(0.8)
    assert found.failed == "(0, 0, 2)"
    text = outcome_text(found)
    assert "1 failures, first failure at 46 cycles, surviving 0.8" in text
    assert found.window_at_end.value == pytest.approx(100.0)


def test_endurance_stops_early_when_enough_cells_have_failed() -> None:
    cells = Switches([20, 20, 20, math.inf, math.inf, math.inf])
    found, saved = follow(
        "endurance", cells, set=SET, reset=RESET, cycles=1000, per_decade=1, stop_fraction=0.5
    )
    np.testing.assert_array_equal(saved["cycle"], [1, 10, 100])
    assert found.surviving.value == 0.5
    assert (found.failures, found.first_failure) == (3, 100)
    assert cells.pulses.tolist() == [202, 202, 202, 200, 200, 200]


def test_a_single_bad_reading_is_no_failure() -> None:
    cells = Switches([math.inf] * 6)

    def answer(operation: Operation) -> Result:
        result = cells(operation)
        assert isinstance(result, ApplyResult)
        if len(cells.asked) == 1:
            result.status[4] = Status.NOT_A_NUMBER
        return result

    found, _ = follow("endurance", answer, set=SET, reset=RESET, cycles=2)
    assert (found.never_cycled, found.first_failure) == (0, 0)
    assert len(cells.asked[1].cells) == 1


def test_interrupted_cycles_go_on_with_what_each_cell_lacks() -> None:
    # The second operation is the 8 plain cycles between counts 1 and 10: cut after 16, 16, 3 and 0
    # pulses.
    cells = Switches([math.inf] * 6, lambda k, o: [16, 16, 3, 0, 0, 0] if k == 2 else None)
    found, saved = follow("endurance", cells, set=SET, reset=RESET, cycles=10, per_decade=1)
    assert [len(o.cells) for o in cells.asked[1:4]] == [6, 1, 3]
    assert [o.repeat for o in cells.asked[1:4]] == [8, 7, 8]
    # Half a cycle more for the cell that was cut in the middle of one.
    assert cells.pulses.tolist() == [20, 20, 21, 20, 20, 20]
    assert np.all(saved["cycles_taken"] == 10)
    assert found.first_failure == 0
    assert "0 failures, surviving" in outcome_text(found)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_repeated_pulses_are_never_more_than_one_round_too_many(data: st.DataObject) -> None:
    times = np.array(data.draw(st.lists(st.integers(0, 7), min_size=6, max_size=6)))
    cuts = data.draw(st.integers(0, 2))

    def cut(k: int, operation: Apply) -> list[int] | None:
        if k > cuts:
            return None
        most = pulses_of(operation, LIMITS)
        return [data.draw(st.integers(0, int(m))) for m in most]

    cells = Switches([math.inf] * 6, cut)
    batch = Apply(Cells.all(CHIP), (Step(0.0, 1.6, 3.5, 1e-7), Step(2.0, 0.0, 2.6, 1e-7)))
    plan = repeated(batch, times, SETTING)
    answer: Any = None
    try:
        while True:
            answer = cells(plan.send(answer))  # type: ignore[arg-type]
    except StopIteration as stop:
        taken = stop.value
    np.testing.assert_array_equal(taken, times)
    assert np.all(cells.pulses >= 2 * times)
    assert np.all(cells.pulses <= 2 * times + cuts)


# Others


def test_a_sweep_that_was_cut_is_taken_by_the_cells_that_were_not_reached_alone() -> None:
    cells = Switches([math.inf] * 6, lambda k, o: [5, 2, 0, 0, 0, 0] if k == 1 else None)
    branch = {"start_v": 0.4, "stop_v": 1.0, "step_v": 0.2}
    found, saved = follow(
        "dc-sweep", cells, set={**branch, "wl_v": 2.6}, reset={**branch, "wl_v": 3.5}, width_s=1e-6
    )
    assert [len(o.cells) for o in cells.asked] == [6, 4]
    assert np.isnan(saved["current"][:2]).all()
    assert np.isfinite(saved["current"][2:]).all()
    assert (found.cells, found.were_set, found.were_reset) == (6, 4, 4)
    # The first level already switches: between 0.2 V, one step below it, and 0.4 V.
    assert found.set_v.value == pytest.approx(0.3)
    np.testing.assert_allclose(
        saved["voltage"],
        [0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, -0.4, -0.6, -0.8, -1.0, -0.8, -0.6, -0.4],
    )


def test_polarities_of_different_compliance_are_two_batches() -> None:
    cells = Switches([math.inf] * 6)
    branch = {"start_v": 0.4, "stop_v": 1.0, "step_v": 0.2, "wl_v": 3.0}
    found, _ = follow(
        "dc-sweep",
        cells,
        set={**branch, "compliance_a": 1e-4},
        reset=branch,
        width_s=1e-6,
        measure="after",
    )
    assert [o.compliance_a for o in cells.asked] == [1e-4, None]
    assert (found.were_set, found.were_reset) == (6, 6)


def test_a_sample_is_chosen_by_the_seed() -> None:
    cells = Switches([math.inf] * 6)
    branch = {"start_v": 0.4, "stop_v": 1.0, "step_v": 0.2, "wl_v": 3.0}
    first, second = (
        follow("dc-sweep", cells, set=branch, reset=branch, width_s=1e-6, sample=3)[1]
        for _ in range(2)
    )
    assert first["column"].size == 3
    np.testing.assert_array_equal(first["column"], second["column"])


def test_a_batch_that_starts_afresh_is_given_again_and_at_last_given_up() -> None:
    cells = Switches([math.inf] * 6, lambda k, o: [1] * 6 if k == 1 else None)
    found, _ = follow("array-statistics", cells, set=SET, reset=RESET)
    assert found.working.value == 1.0
    assert len(cells.asked) == 3
    broken = Switches([math.inf] * 6, lambda k, o: [1] * 6)
    with pytest.raises(DataError, match="interrupted 3 times in a row"):
        follow("array-statistics", broken, set=SET, reset=RESET)
    assert broken.pulses.max() == 3


def test_neighbours_take_the_pulses_and_victims_none() -> None:
    cells = Switches([math.inf] * 6)
    follow("half-select-disturb", cells, cells={"columns": [1, 2]}, pulse=SET, pulses=20)
    assert cells.pulses.tolist() == [20, 0, 0, 20, 0, 0]
    cells = Switches([math.inf] * 6)
    follow(
        "half-select-disturb", cells, cells={"rows": [0, 0]}, share="column", pulse=RESET, pulses=20
    )
    assert cells.pulses.tolist() == [0, 0, 0, 20, 20, 20]


@pytest.mark.parametrize(
    "mode", [{"mode": "pulses", "cells": {}}, {"mode": "neighbours", "cells": {"columns": [1, 3]}}]
)
@pytest.mark.parametrize(("set_v", "is_disturbed"), [(1.3, False), (1.5, True)])
def test_half_of_a_pulse_disturbs_where_it_reaches_the_threshold(
    open_array: Any, known_model: Any, set_v: float, is_disturbed: bool, mode: dict[str, Any]
) -> None:
    # Preset `paper` is SET from 0.7 V on; half of 1.5 V is more.
    bench = open_array(known_model(), 4, cell="1R")
    keys = {"unselected": "half", "pulses": 10, "pulse": {"bl_v": set_v, "width_s": 1e-6}}
    found: Any = bench.run(protocol_class("half-select-disturb").model_validate(keys | mode))
    assert (found.disturbed.value == 1.0) is is_disturbed
    assert found.disturbed.covers(1.0 if is_disturbed else 0.0)
    assert (found.median_change.value > 0.05) is is_disturbed


# A whole run, cut anywhere


class Cut(Watcher):
    """Aborts after so many operations."""

    def __init__(self, after: int) -> None:
        self.left = after

    def operation(self, operation: Operation, result: Result, charge: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise AbortedError("cut")


@pytest.mark.long
def test_a_resumed_run_says_what_an_uncut_one_says(tmp_path: Path) -> None:
    steps = steps_of(ARRAY, "1T1R")
    told = []
    for name, cuts in (("whole", ()), ("cut", (3, 14, 27))):
        folder = tmp_path / name
        folder.mkdir()
        bench = backend_text(ARRAY, "1T1R", 2) + '\nstate = "chip.state"\n'
        (folder / "bench.toml").write_text(bench, encoding="utf-8")
        (folder / "recipe.toml").write_text(toml(steps), encoding="utf-8")
        files = (folder / "recipe.toml", folder / "bench.toml", folder / "run.h5")
        done = 0
        for cut in cuts:
            with pytest.raises(AbortedError):
                run_recipe(*files, resume=done > 0, watcher=Cut(cut - done))
            done = cut
        outcome = run_recipe(*files, resume=done > 0)
        with read_run(outcome.run_file) as run:
            assert run.attributes["resumed"] == len(cuts)
            told.append(
                (repr(outcome.steps), run.rows("operations"), run.map("conductance").values)
            )
    assert told[0][:2] == told[1][:2]
    np.testing.assert_array_equal(told[0][2], told[1][2])


# Telegraph noise


def test_a_telegraph_cell_is_told_from_noise_drift_and_a_coarse_converter() -> None:
    rng = np.random.default_rng(1)
    n = 2000
    noise = rng.normal(0, 0.1e-6, (5, 1, n))
    state = np.zeros(n, dtype=bool)
    leave = rng.random(n)
    for k in range(1, n):
        state[k] = not state[k - 1] if leave[k] < (0.05 if state[k - 1] else 0.01) else state[k - 1]
    g = 50e-6 + noise
    g[0, 0] -= np.where(state, 2e-6, 0.0)
    g[2, 0] += np.linspace(-2e-6, 2e-6, n)
    g[3, 0] = np.round(g[3, 0] / 0.4e-6) * 0.4e-6
    g[4, 0, n // 2 :] += 2e-6
    found = telegraph(g, apart_sd=4.0, least_moves=6)
    assert found.switches.tolist() == [True, False, False, False, False]
    assert found.high_s[0] - found.low_s[0] == pytest.approx(2e-6, rel=0.01)
    assert found.low_share[0] == pytest.approx(state.mean(), abs=0.002)
    # Mean stays of 1/0.05 and 1/0.01 readings, from some 15 visits each.
    visits = np.sum(~state[:-1] & state[1:])
    assert found.low_stay[0] == pytest.approx(20, rel=3 / math.sqrt(visits))
    assert found.high_stay[0] == pytest.approx(100, rel=3 / math.sqrt(visits))
    assert found.moves[0] == np.sum(state[1:] != state[:-1])


# Arithmetic


@given(st.integers(1, 10**7), st.integers(1, 10))
def test_counts_rise_from_one_to_the_last(most: int, per_decade: int) -> None:
    counts = log_counts(most, per_decade)
    assert counts[0] == 1
    assert counts[-1] == most
    assert np.all(np.diff(counts) > 0)


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e6), st.integers(1, 10))
def test_times_rise_by_even_ratios(first_s: float, ratio: float, per_decade: int) -> None:
    times = log_times(first_s, first_s * ratio, per_decade)
    assert times[0] == pytest.approx(first_s)
    assert times[-1] == pytest.approx(first_s * ratio)
    steps = np.diff(np.log10(times))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert steps[0] <= (1 + 1e-6) / per_decade


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_share_is_never_certain(count: int, more: int) -> None:
    of = count + more
    figure = proportion(count, of)
    if of == 0:
        assert math.isnan(figure.value)
    else:
        assert figure.value == count / of
        assert figure.uncertainty > 0.9 / (of + 4)


def test_quantities_without_numbers_are_left_out() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan], [5.0, 2.0]])
    np.testing.assert_array_equal(median(values), [3.0, 2.0])
    np.testing.assert_array_equal(mean(values), [3.0, 2.0])
    np.testing.assert_allclose(spread(values), [2.0, np.nan])
    assert np.isnan(half_width(mean, values[:2, 0], np.random.default_rng(1)))
    rows = np.array([[1.0, 3.0, 5.0], [1.0, np.nan, 2.0], [1.0, np.nan, np.nan]])
    np.testing.assert_allclose(slope(np.array([0.0, 1.0, 2.0]), rows), [2.0, 0.5, np.nan])


def test_both_parts_of_a_variance_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    samples = rng.normal(0, 0.3, (4000, 1)) + rng.normal(0, 0.2, (4000, 3))
    assert between(samples) == pytest.approx(0.3, rel=0.03)
    assert within(samples) == pytest.approx(0.2, rel=0.03)
    assert between(samples[:, :1]) == pytest.approx(math.hypot(0.3, 0.2), rel=0.03)
    assert between(np.tile(rng.normal(0, 0.3, (4000, 1)), 3)) == pytest.approx(0.3, rel=0.03)


def test_a_figure_covers_what_lies_in_its_interval() -> None:
    figure = Figure(1.0, 0.3).widened(0.4)
    assert figure.uncertainty == pytest.approx(0.5)
    assert figure.covers(1.5)
    assert not figure.covers(1.51)
    assert not Figure(1.0, math.nan).covers(1.0)
    assert not figure.covers(math.nan)
