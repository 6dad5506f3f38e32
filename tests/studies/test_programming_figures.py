"""Figures of programming methods: levels and bits by hand, and what a run of known pulses spent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.storage.run_reader import read_run
from rram_hil.studies.devices import DEVICES
from rram_hil.studies.plan import Shape, bench_text, recipe_text
from rram_hil.studies.programming.figures import (
    FIGURES,
    REASONS,
    Asked,
    Spent,
    bounds_between,
    figures_of,
)
from rram_hil.studies.programming.targets import Drawn

US = 1e-6
LOW = np.array([200, 166, 107, 0]) * US
HIGH = np.array([np.inf, 173 * US, 117 * US, 12.5 * US])

BY_HAND = '''\
"""Pulses by hand on the first two cells, as a programming step saves what it did."""

from dataclasses import dataclass

import numpy as np

from rram_hil.array import MAP, Apply, Cells, Step
from rram_hil.engine.protocol import Protocol, Save

TARGETS = [(0, 0, 0), (0, 0, 1)]


@dataclass(frozen=True)
class Told:
    out_of_pulses: int


class ByHand(Protocol[Told]):
    def run(self, setting):
        cells = Cells.of(TARGETS)
        # The first cell takes SET, SET, RESET; the second RESET, none, SET.
        for first, second in ((2.0, -1.5), (2.1, 0.0), (-1.4, 1.9)):
            volts = np.array([first, second])
            pulse = Step(np.maximum(volts, 0), np.maximum(-volts, 0), np.array([2.5, 3.5]), 2e-7)
            result = yield from Apply(cells, (pulse, setting.read))
        shape = setting.geometry.shape
        inside, found = np.zeros(shape), np.full(shape, np.nan)
        inside[0, 0, 0] = 1
        found[0, 0, :2] = result.last_s
        yield Save("inside", inside, MAP)
        yield Save("conductance", found, MAP, "S")
        return Told(1)
'''


def asked(target_us: list[float]) -> Asked:
    """A row of cells with these targets, each in the window of its level."""
    target = np.array(target_us).reshape(1, 1, -1) * US
    level = np.searchsorted(-bounds_between(LOW, HIGH), -target)
    return Asked(target, LOW[level], HIGH[level], bounds_between(LOW, HIGH))


def test_a_cell_is_outside_where_its_window_does_not_hold_its_reading() -> None:
    found = np.array([[[250, 199, 170, 12, 13, -1, np.nan]]]) * US
    cells = asked([220, 220, 170, 6, 6, 6, 110])
    assert cells.outside(found).tolist() == [[[False, True, False, False, True, False, True]]]


def test_bits_are_gray_coded_so_that_a_neighbouring_level_costs_one() -> None:
    cells = asked([220, 220, 220, 220, 170, 110, 6])
    found = np.array([[[220, 170, 110, 6, 172, np.nan, 140]]]) * US
    # Levels 00, 01, 11, 10; 140 uS is nearer to the second.
    assert cells.wrong_bits(found).tolist() == [[[0, 0.5, 1, 0.5, 0, 1, 1]]]


@given(st.integers(2, 9), st.integers(0, 2**31))
def test_every_level_reads_as_itself(levels: int, seed: int) -> None:
    ends = np.sort(np.random.default_rng(seed).uniform(1, 300, 2 * levels))[::-1] * US
    high, low = ends[::2], ends[1::2]
    drawn = Drawn(rows=4, columns=8, seed=seed, low_s=tuple(low), high_s=tuple(high)).asked()
    programmed = np.isfinite(drawn.target_s)
    assert programmed[0, :, :4].all()
    assert not programmed[0, :, 4:].any()
    assert drawn.wrong_bits(drawn.target_s)[programmed].max() == 0
    assert not drawn.outside(drawn.target_s)[programmed].any()


def test_levels_are_spread_evenly_and_the_same_for_the_same_seed() -> None:
    def drawn(seed: int) -> Asked:
        low, high = tuple(LOW), (None, *(float(end) for end in HIGH[1:]))
        return Drawn(rows=16, columns=32, seed=seed, low_s=low, high_s=high).asked()

    values, counts = np.unique(drawn(1).target_s[0, :, :16], return_counts=True)
    assert counts.tolist() == [64] * 4
    np.testing.assert_allclose(values, np.array([6.25, 112, 169.5, 220]) * US)
    np.testing.assert_array_equal(drawn(1).target_s, drawn(1).target_s)
    assert (drawn(1).target_s != drawn(2).target_s)[0, :, :16].any()


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A run of `ByHand` between maps on a small chip."""
    (tmp_path / "by_hand.py").write_text(BY_HAND, encoding="utf-8")
    steps = [
        {"name": "before", "protocol": "read-map"},
        {"name": "program", "protocol": "./by_hand.py:ByHand"},
        {"name": "at once", "protocol": "read-map"},
        {"name": "rest", "protocol": "wait", "seconds": 1.0},
        {"name": "after 1 s", "protocol": "read-map"},
        {"name": "after 1 day", "protocol": "read-map"},
    ]
    (tmp_path / "bench.toml").write_text(bench_text(DEVICES["A"], 1, Shape(1, 2, 4)))
    (tmp_path / "recipe.toml").write_text(
        recipe_text("by hand", 1, steps).replace('"summary"', '"all"')
    )
    run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", tmp_path / "run.h5", threads=1)
    return tmp_path / "run.h5"


def test_what_a_step_spent_is_what_its_pulses_and_readings_were(run_file: Path) -> None:
    with read_run(run_file) as run:
        spent = Spent.in_step(run, 2)
        cells = run.table("cells")
        step = run.operations()["step"][cells["operation"] - 1]
    assert spent.sets.tolist() == [2, 1] + [0] * 6
    assert spent.resets.tolist() == [1, 1] + [0] * 6
    assert spent.reversals.tolist() == [1, 1] + [0] * 6
    assert spent.reads.tolist() == [3, 3] + [0] * 6

    def energy(column: int, volts: list[float]) -> float:
        mine = (cells["row"] == 0) & (cells["column"] == column)
        before = cells["conductance_s"][mine & (step == 1)]
        during = cells["conductance_s"][mine & (step == 2)]
        readings = np.concatenate([before, during])
        pulses = sum(v**2 * max(readings[k], readings[k + 1]) * 2e-7 for k, v in enumerate(volts))
        return float(pulses + 0.2 * np.abs(cells["current_a"][mine & (step == 2)]).sum() * 1e-6)

    expected = [energy(0, [2.0, 2.1, -1.4]), energy(1, [-1.5, 0.0, 1.9])]
    np.testing.assert_allclose(spent.energy_j[:2], expected)
    assert not spent.energy_j[2:].any()


def test_what_the_bench_programmed_by_itself_is_counted_and_its_energy_is_not_known(
    tmp_path: Path,
) -> None:
    target = np.full((1, 2, 4), np.nan)
    target[0, :, :2] = 50 * US
    gentle = {"amplitude_v": {"start_v": 2.0, "stop_v": 2.0}, "width_s": 2e-7}
    step = {
        "name": "program",
        "protocol": "write-verify",
        "targets": {"map": "target.npy"},
        "set": gentle | {"gate_v": {"start_v": 1.8, "stop_v": 3.0, "step_v": 0.1}},
        "reset": gentle | {"gate_v": {"start_v": 3.0, "stop_v": 4.0, "step_v": 0.1}},
    }
    spent = {}
    for on_board in ("never", "required"):
        folder = tmp_path / on_board
        folder.mkdir()
        np.save(folder / "target.npy", target)
        (folder / "bench.toml").write_text(bench_text(DEVICES["A"], 1, Shape(1, 2, 4)))
        recipe = recipe_text(on_board, 1, [step | {"on_board": on_board}])
        (folder / "recipe.toml").write_text(recipe)
        run_recipe(folder / "recipe.toml", folder / "bench.toml", folder / "run.h5", threads=1)
        with read_run(folder / "run.h5") as run:
            spent[on_board] = Spent.in_step(run, 1)
    by_host, by_bench = spent["never"], spent["required"]
    assert (by_host.sets + by_host.resets).max() > 0
    for name in ("sets", "resets", "reads"):
        np.testing.assert_array_equal(getattr(by_bench, name), getattr(by_host, name))
    pulsed = by_bench.sets + by_bench.resets > 0
    np.testing.assert_array_equal(np.isnan(by_bench.reversals), pulsed)
    np.testing.assert_array_equal(np.isnan(by_bench.energy_j), by_bench.reads > 0)
    assert np.isfinite(by_host.energy_j).all()


def test_figures_of_a_run_are_those_of_its_cells(run_file: Path) -> None:
    target = np.full((1, 2, 4), np.nan)
    target[0, 0, :2] = 50 * US
    goal = Asked(target, target - 5 * US, target + 5 * US)
    with read_run(run_file) as run:
        found = figures_of(run, goal, {"out_of_pulses": 1, "never_opened": None})
        later = run.map("conductance").values[2][0, 0, :2]
    assert list(found) == list(FIGURES)
    told = {k: found[k] for k in ("cells", "inside", "pulses_mean", "set_pulses_mean", "reads_p50")}
    assert told == {
        "cells": 2,
        "inside": 0.5,
        "pulses_mean": 2.5,
        "set_pulses_mean": 1.5,
        "reads_p50": 3,
    }
    assert found["inside_pulses_mean"] == 3
    assert [found[name] for name in REASONS] == [0.5] + [0] * (len(REASONS) - 1)
    assert found["rms_error_s_at_once"] == pytest.approx(np.sqrt(np.mean((later - 50e-6) ** 2)))
    assert np.isnan(found["bit_error_rate_at_once"])
    assert found["outside_at_once"] == np.mean(np.abs(later - 50e-6) > 5e-6)
    assert found["neighbours"] == 6
    assert found["disturbed"] == 0
    assert found["bench_s"] > 0
