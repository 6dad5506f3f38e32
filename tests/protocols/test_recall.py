"""What a run learns of its chip is there for the next one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bench import WHOLE, bench_toml

from rram_hil.array import Apply
from rram_hil.array.pulse_curves import PulseCurves
from rram_hil.bench.bench import Bench
from rram_hil.bench.plugins import protocol_class
from rram_hil.bench.recipe_runner import RunOutcome, run_recipe
from rram_hil.engine.engine import Watcher, unknown_result
from rram_hil.errors import AbortedError, ConfigError
from rram_hil.protocols.parts.targets import Condition

FORM = """
[[step]]
name = "form"
protocol = "forming"
bl_v = { start_v = 2.4, stop_v = 4.0, step_v = 0.2 }
wl_v = [2.0, 2.4]
formed_above_s = 30e-6
"""
CURVES = """
[[step]]
protocol = "pulse-curves"
cells = { rows = [0, 7], columns = [0, 7] }
set_gate_v = { start_v = 1.9, stop_v = 3.1, points = 11 }
reset_sl_v = { start_v = 0.6, stop_v = 2.0, points = 11 }
"""
RECALL = '[[step]]\nprotocol = "recall"\nrun_file = "{}.h5"\n'


def bench_file(folder: Path, rows: int = 24) -> Path:
    path = folder / f"bench-{rows}.toml"
    simulation = f'device = "paper"\nseed = 3\nstate = "chip-{rows}.state"'
    path.write_text(
        bench_toml(
            f"chip-{rows}", rows, 32, life=1000, tiles=2, limits=WHOLE, simulation=simulation
        )
    )
    return path


def run(folder: Path, name: str, steps: str, rows: int = 24) -> RunOutcome:
    (folder / f"{name}.toml").write_text(steps)
    return run_recipe(folder / f"{name}.toml", bench_file(folder, rows), folder / f"{name}.h5")


def assert_same(given: Any, wanted: Any) -> None:
    assert isinstance(given, Condition)
    assert isinstance(wanted, Condition)
    for name in ("stuck_low_resistance", "stuck_high_resistance", "conductance_s"):
        np.testing.assert_array_equal(
            getattr(given, name).astype(np.float32), getattr(wanted, name).astype(np.float32)
        )


def test_stuck_cells_and_pulse_curves_are_as_the_first_run_found_them(tmp_path: Path) -> None:
    first = run(tmp_path, "first", FORM + CURVES)
    second = run(tmp_path, "second", RECALL.format("first"))
    assert_same(second.shared["condition"], first.shared["condition"])
    condition: Any = first.shared["condition"]
    assert condition.stuck_low_resistance.any()
    assert condition.stuck_high_resistance.any()
    given, wanted = second.shared["pulse curves"], first.shared["pulse curves"]
    assert isinstance(given, PulseCurves)
    assert isinstance(wanted, PulseCurves)
    targets = np.geomspace(2e-6, 90e-6, 20)
    for curve in ("set_gate", "reset_sl"):
        np.testing.assert_allclose(
            getattr(given, curve).volts(targets), getattr(wanted, curve).volts(targets), rtol=1e-5
        )


def test_of_a_part_that_was_formed_only_that_part_is_known(tmp_path: Path) -> None:
    first = run(tmp_path, "first", f"{FORM}cells = {{ tiles = [1], rows = [2, 9] }}\n")
    second = run(tmp_path, "second", RECALL.format("first"))
    assert_same(second.shared["condition"], first.shared["condition"])
    assert "pulse curves" not in second.shared


def test_a_run_that_formed_nothing_or_another_shape_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "first", FORM)
    run(tmp_path, "map", '[[step]]\nprotocol = "read-map"\n')
    with pytest.raises(ConfigError, match=r"map\.h5 holds no forming; there are: .*conductance"):
        run(tmp_path, "second", RECALL.format("map"))
    with pytest.raises(ConfigError, match=r"shape \(2, 24, 32\), not \(2, 16, 32\)"):
        run(tmp_path, "third", RECALL.format("first"), rows=16)


class Cut(Watcher):
    """The operator stops the run at its pulse curves."""

    def step(self, name: str, index: int, total: int) -> None:
        if name == "pulse-curves":
            raise AbortedError("cut")


def test_a_run_that_was_cut_after_forming_is_recalled(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(FORM + CURVES)
    files = (tmp_path / "first.toml", bench_file(tmp_path), tmp_path / "first.h5")
    with pytest.raises(AbortedError):
        run_recipe(*files, watcher=Cut())
    second = run(tmp_path, "second", RECALL.format("first"))
    whole = run_recipe(*files, resume=True)
    assert_same(second.shared["condition"], whole.shared["condition"])
    assert "pulse curves" not in second.shared


def test_an_interrupted_curve_says_what_to_recall(tmp_path: Path) -> None:
    keys = tomllib.loads(CURVES)["step"][0]
    del keys["protocol"]
    with Bench.open(bench_file(tmp_path)) as bench:
        plan = protocol_class("pulse-curves").model_validate(keys).run(bench.setting)
        next(plan)
        operation = plan.send(None)
        assert isinstance(operation, Apply)
        nothing = np.zeros(len(operation.cells), dtype=np.int64)
        with pytest.raises(ConfigError, match="start a new run, whose step `recall` takes"):
            plan.send(unknown_result(operation, nothing, 0.0))
