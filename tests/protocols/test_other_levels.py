"""Recipes say levels of bodies and of unselected word lines wherever they describe a pulse, bench
files where they describe a read; every step of a run then stands at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil import Bench, read_run, run_recipe
from rram_hil.array import Apply, CodedRead, Multiply, Operation, Program, Result, Step
from rram_hil.bench.plugins import protocol_class
from rram_hil.errors import BenchError, ConfigError

BENCH = """
[chip]
id = "levels"
tiles = 1
rows = 4
columns = 4
cell = "1T1R"

[driver]
name = "simulated-array"

[limits]
bl_v = 4.0
sl_v = 4.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.2
half_select_v = 0.5
read_v = 0.25
current_a = 1e-3
energy_j = 1e-3
width_s = 0.1
pulses_per_cell = 1000000
body_v = 1.0
body_over_v = 0.1

[simulation]
device = "paper"
converters = false
"""
READ = """
[read]
body_v = -0.1
unselected_wl_v = -0.3
also_gate = true
"""
LEVELS = {"body_v": -0.2, "unselected_wl_v": -0.4}
SET = {"bl_v": 2.0, "wl_v": 2.6, "width_s": 1e-6} | LEVELS
RESET = {"sl_v": 2.0, "wl_v": 3.5, "width_s": 1e-6} | LEVELS
RAMPS: dict[str, Any] = {
    "set": {
        "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
        "gate_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.1},
        "width_s": 1e-6,
    }
    | LEVELS,
    "reset": {
        "amplitude_v": {"start_v": 1.0, "stop_v": 2.4, "step_v": 0.2},
        "gate_v": {"start_v": 3.5, "stop_v": 3.5},
        "width_s": 1e-6,
    }
    | LEVELS,
}
ADAPTIVE = {"least_step_v": 0.05, "most_step_v": 0.2, "width_s": 1e-6} | LEVELS
TARGETS = {"targets": {"map": "target.npy"}, "tolerance_s": 1e-5}
FEW = {"rows": [0, 1]}
BRANCH = {"start_v": 0.5, "stop_v": 1.5, "step_v": 0.5, "wl_v": 2.6} | LEVELS
ASKED: dict[str, dict[str, Any]] = {
    "forming": {"bl_v": {"start_v": 3.0, "stop_v": 3.8, "step_v": 0.2}} | LEVELS,
    "array-statistics": {"set": SET, "reset": RESET},
    "dc-sweep": {"set": BRANCH, "reset": BRANCH | {"wl_v": 3.5}, "width_s": 1e-6},
    "pulse-response": {
        "set": SET,
        "reset": RESET,
        "potentiation": {"pulses": 3} | SET,
        "depression": {"pulses": 3} | RESET,
    },
    "endurance": {"set": SET, "reset": RESET, "cycles": 3},
    "half-select-disturb": {
        "cells": FEW | {"columns": [0, 1]},
        "pulse": {"bl_v": 2.0, "sl_v": 0.0, "wl_v": 2.6, "width_s": 1e-6} | LEVELS,
        "pulses": 3,
    },
    "read-disturb": {"reads": 3, "bl_v": 0.4} | LEVELS,
    "pulse-curves": {
        "cells": FEW,
        "set_gate_v": {"start_v": 2.0, "stop_v": 3.0, "points": 3},
        "reset_sl_v": {"start_v": 1.0, "stop_v": 2.4, "points": 3},
    }
    | LEVELS,
    "one-shot": {
        "targets": {"map": "target.npy"},
        "reset": RESET,
        "set": {"gate": {"volts_v": [2.0, 3.0], "conductance_s": [1e-5, 1e-4]}} | LEVELS,
    },
    "write-verify": TARGETS | RAMPS | {"on_board": "never"},
    "fixed-pulses": TARGETS | RAMPS,
    "coarse-fine": TARGETS | {"coarse": RAMPS, "fine": RAMPS},
    "ispp": TARGETS
    | {
        "ramp": "gate",
        "set": {"amplitude_v": 2.0, "gate_v": 2.0, "step_v": 0.1, "stop_v": 3.0, "width_s": 1e-6}
        | LEVELS,
        "reset": {"amplitude_v": 2.0, "gate_v": 3.0, "step_v": 0.1, "stop_v": 3.5, "width_s": 1e-6}
        | LEVELS,
    },
    "adaptive-step": TARGETS
    | {
        "set": {"amplitude_v": 2.0, "gate_v": 2.0, "varied": "gate", "stop_v": 3.0} | ADAPTIVE,
        "reset": {"amplitude_v": 1.0, "gate_v": 3.5, "varied": "amplitude", "stop_v": 2.4}
        | ADAPTIVE,
    },
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A formed array whose bench reads at levels of its own."""
    np.save(tmp_path / "target.npy", np.full((1, 4, 4), 5e-5))
    (tmp_path / "bench.toml").write_text(BENCH + READ, encoding="utf-8")
    with Bench.open(tmp_path / "bench.toml") as opened:
        yield opened


def steps_of(operation: Operation) -> tuple[Step, ...]:
    if isinstance(operation, Program):
        return (*operation.extremes(), operation.read)
    return operation.steps if isinstance(operation, Apply) else ()


@pytest.mark.parametrize("name", ASKED)
def test_every_pulse_of_a_step_stands_at_its_levels_and_every_read_at_the_benchs(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[int, Step]] = []
    really = bench.driver.execute

    def execute(operation: Operation, number: int) -> Result:
        for step in steps_of(operation):
            seen.append((len(operation.cells), step))  # type: ignore[union-attr]
        return really(operation, number)

    if name != "forming":
        bench.run(protocol_class("forming").model_validate(ASKED["forming"]))
    monkeypatch.setattr(bench.driver, "execute", execute)
    monkeypatch.chdir(tmp_path)
    bench.run(protocol_class(name).model_validate(ASKED[name]))
    pulses = [s for n, s in seen if np.any(np.abs(s.cell_v(n)) > 0.25)]
    reads = [s for _, s in seen if s.measure == "current" and s not in pulses]
    assert pulses
    assert {(s.body_v, s.unselected_wl_v) for s in pulses} == {(-0.2, -0.4)}
    # One-shot looks at no cell.
    assert reads or name == "one-shot"
    assert {(s.body_v, s.unselected_wl_v) for s in reads} <= {(-0.1, -0.3)}


def test_set_and_reset_pulses_may_stand_at_levels_of_their_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Step] = []
    really = bench.driver.execute

    def execute(operation: Operation, number: int) -> Result:
        seen.extend(steps_of(operation))
        return really(operation, number)

    bench.run(protocol_class("forming").model_validate(ASKED["forming"]))
    monkeypatch.setattr(bench.driver, "execute", execute)
    monkeypatch.chdir(tmp_path)
    ramps = RAMPS | {"reset": RAMPS["reset"] | {"body_v": -0.6}}
    bench.run(protocol_class("fixed-pulses").model_validate(TARGETS | ramps))
    sets = {s.body_v for s in seen if np.any(np.asarray(s.bl_v) > 1)}
    resets = {s.body_v for s in seen if np.any(np.asarray(s.sl_v) >= 1)}
    assert (sets, resets) == ({-0.2}, {-0.6})


def test_ranges_whose_levels_differ_are_refused() -> None:
    fine = RAMPS | {"set": RAMPS["set"] | {"body_v": 0.0}}
    with pytest.raises(ConfigError, match=r"coarse\.set\.body_v and fine\.set\.body_v must be"):
        protocol_class("coarse-fine").model_validate(TARGETS | {"coarse": RAMPS, "fine": fine})


def test_a_run_keeps_gate_currents_in_its_file_and_in_a_map(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(BENCH + READ, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text('[[step]]\nprotocol = "read-map"\n', encoding="utf-8")
    run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", tmp_path / "run.h5")
    with read_run(tmp_path / "run.h5") as run:
        leak = np.full((1, 4, 4), 3e-12)
        np.testing.assert_allclose(run.map("gate_a").values[-1], leak)
        np.testing.assert_allclose(run.table("cells")["gate_a"], leak.ravel())


@pytest.mark.parametrize("by", ["codes", "either"])
def test_coded_reads_stand_at_the_levels_of_reads(
    bench: Bench, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Operation] = []
    really = bench.driver.execute

    def execute(operation: Operation, number: int) -> Result:
        seen.append(operation)
        return really(operation, number)

    monkeypatch.setattr(bench.driver, "execute", execute)
    bench.run(protocol_class("read-map").model_validate({"by": by}))
    assert {type(o) for o in seen} <= {CodedRead, Multiply}
    assert {(o.body_v, o.unselected_wl_v) for o in seen} == {(-0.1, -0.3)}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["body_v", "unselected_wl_v", "also_gate"])
def test_a_bench_without_them_refuses_by_name(tmp_path: Path, name: str) -> None:
    value = "true" if name == "also_gate" else "-0.1"
    text = BENCH + f"step_extras = []\n\n[read]\n{name} = {value}\n"
    (tmp_path / "bench.toml").write_text(text, encoding="utf-8")
    with (
        Bench.open(tmp_path / "bench.toml") as opened,
        pytest.raises(BenchError, match=f"{name}: .* is not available on this bench") as refused,
    ):
        opened.run(protocol_class("read-map").model_validate({}))
    assert "\n" not in str(refused.value)
