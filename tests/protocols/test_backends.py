"""Every characterisation protocol runs on every array backend, or refuses naming what is missing
before anything moves.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import ARC_ONE, BOARD, CHAINS
from chain_recipes import ARRAY, Steps, backend_text, steps_of, toml

from rram_hil.bench.bench import Bench
from rram_hil.bench.recipe_runner import RunOutcome, run_recipe
from rram_hil.errors import BenchError, ConfigError
from rram_hil.report.plot_drawing import draw
from rram_hil.report.plots import charted
from rram_hil.report.step import steps_of as reported_steps
from rram_hil.statistics import Figure
from rram_hil.storage.run_reader import read_run

SIZE = 2
TSP, TRIGGERED, PLAIN = CHAINS
QUICK = [("1R", ARRAY)]
LONGER = [("1T1R", ARRAY), ("1T1R", BOARD), ("1T1R", TSP), ("1R", ARC_ONE)]
STUDIES = [
    ("1R", BOARD),
    ("1R", TSP),
    ("1T1R", TRIGGERED),
    ("1R", TRIGGERED),
    ("1T1R", PLAIN),
    ("1R", PLAIN),
]
EVERY = [
    *QUICK,
    *(pytest.param(*pair, marks=pytest.mark.long) for pair in LONGER),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in STUDIES),
]
ONLY_READ = ("read-noise", "read-disturb")


def run_steps(folder: Path, chain: str, cell: str, steps: Steps, size: int = SIZE) -> RunOutcome:
    (folder / "bench.toml").write_text(backend_text(chain, cell, size), encoding="utf-8")
    (folder / "recipe.toml").write_text(toml(steps), encoding="utf-8")
    return run_recipe(folder / "recipe.toml", folder / "bench.toml", folder / "run.h5")


def schemes_of(folder: Path, chain: str, cell: str) -> set[str]:
    (folder / "bench.toml").write_text(backend_text(chain, cell, SIZE), encoding="utf-8")
    with Bench.open(folder / "bench.toml", arm=False) as bench:
        return {s.value for s in bench.capabilities.schemes}


@pytest.mark.parametrize(("cell", "chain"), EVERY)
def test_every_protocol_runs(tmp_path: Path, cell: str, chain: str) -> None:
    steps = steps_of(chain, cell)
    scheme = "inhibit" if cell == "1T1R" else "half"
    if scheme not in schemes_of(tmp_path, chain, cell):
        # Without V/2 no 1R array is to be programmed: each protocol that would says so, those that
        # only read run.
        for name in steps:
            if name not in ONLY_READ:
                refused(
                    tmp_path,
                    chain,
                    cell,
                    {name: steps[name]},
                    "unselected lines 'half' are not available",
                )
        steps = {name: steps[name] for name in ONLY_READ}
    outcome = run_steps(tmp_path, chain, cell, steps)
    summaries: dict[str, Any] = dict(outcome.steps)
    assert list(summaries) == list(steps)
    with read_run(outcome.run_file) as run:
        assert run.status == "complete"
        kept = {name for _, name in run.result_names}
        drawn = {
            step.group.split("_", 1)[1].replace("_", "-")
            for step in reported_steps(run)
            for plot in charted(step)
            if 'class="curve"' in draw(plot).svg
        }
        operations = run.operations()
    for name, summary in summaries.items():
        assert summary.cells in (SIZE * SIZE, SIZE)
        figures = {f.name for f in fields(summary) if isinstance(getattr(summary, f.name), Figure)}
        assert figures
        assert figures <= kept
        # An array that was never formed shows no change of anything.
        assert name in drawn or (name == "read-disturb" and not summary.conducting)
    assert np.all(operations["outcome"] == "done")
    if "forming" in steps:
        assert summaries["forming"].formed >= SIZE
        assert summaries["pulse-response"].responding >= 1
        assert summaries["dc-sweep"].were_reset >= 1
        assert summaries["endurance"].cycles >= SIZE
        assert summaries["retention"].last_time_s == pytest.approx(20.0, rel=0.3)
    assert summaries["read-noise"].readable == SIZE * SIZE


def refused(folder: Path, chain: str, cell: str, steps: Steps, text: str) -> None:
    """The run ends with an error that says `text`, and no output has moved for it."""
    for path in folder.glob("run.h5*"):
        path.unlink()
    with pytest.raises(BenchError, match=text):
        run_steps(folder, chain, cell, steps)
    with read_run(folder / "run.h5") as run:
        assert run.rows("operations") == 0
        assert run.status == "error"
    for path in folder.glob("run.h5*"):
        path.unlink()


def changed(chain: str, cell: str, name: str, **keys: Any) -> Steps:
    return {name: steps_of(chain, cell)[name] | keys}


GATES = {"start_v": 2.0, "stop_v": 3.0, "points": 3}
SHORT = {"bl_v": 2.0, "wl_v": 2.6, "width_s": 1e-6}
REFUSALS: list[tuple[str, str, str, dict[str, Any], str]] = [
    (
        ARRAY,
        "1R",
        "pulse-response",
        {"set_wl_v": GATES},
        "set_wl_v: a gate is not available on this bench",
    ),
    (ARRAY, "1T1R", "endurance", {"set": {"bl_v": 2.0, "width_s": 1e-6}}, "wl_v: missing"),
    (ARRAY, "1T1R", "half-select-disturb", {"cells": {}}, "none is left there to take the pulses"),
    (ARRAY, "1T1R", "half-select-disturb", {"mode": "pulses"}, "'inhibit' puts 0 V across"),
    (ARRAY, "1R", "dc-sweep", {"measure": "level"}, "adds half-selected cells' currents"),
    (TSP, "1T1R", "endurance", {"set": SHORT}, "a width of 1e-06 s is not available"),
    (
        TSP,
        "1T1R",
        "read-disturb",
        {"unselected": "third"},
        "unselected lines 'third' are not available",
    ),
    (
        ARC_ONE,
        "1R",
        "dc-sweep",
        {"measure": "level", "unselected": "inhibit"},
        "a current measured above the read limit",
    ),
    (
        ARC_ONE,
        "1R",
        "array-statistics",
        {"compliance_a": 1e-4},
        "a compliance current is not available",
    ),
    (ARRAY, "1T1R", "forming", {"wl_v": [2.0, 5.0]}, "WL 5 V is beyond the limit"),
    (
        ARRAY,
        "1T1R",
        "pulse-response",
        {"potentiation": SHORT | {"bl_step_v": 0.3, "pulses": 20}},
        "BL .* beyond the limit",
    ),
    (ARRAY, "1T1R", "read-disturb", {"bl_v": 4.5}, "BL 4.5 V is beyond the limit"),
    (ARRAY, "1T1R", "retention", {"last_s": 1e9}, "wait of"),
]


@pytest.mark.parametrize(
    ("chain", "cell", "name", "keys", "text"),
    REFUSALS,
    ids=[f"{r[0]}-{r[2]}-{r[4][:12]}" for r in REFUSALS],
)
def test_what_a_bench_lacks_is_refused_before_anything_moves(
    tmp_path: Path, chain: str, cell: str, name: str, keys: dict[str, Any], text: str
) -> None:
    refused(tmp_path, chain, cell, changed(chain, cell, name, **keys), text)


def test_what_makes_no_sense_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    for name, keys, text in (
        (
            "pulse-response",
            {"set": SHORT, "reset": {"sl_v": 1.0, "width_s": 1e-6}},
            "give at least one of",
        ),
        ("array-statistics", {"set": SHORT}, "give both set and reset"),
        ("retention", {"levels_s": [1e-5]}, "needs set and reset"),
        ("retention", {"first_s": 10.0, "last_s": 1.0}, "first_s must lie below"),
        (
            "half-select-disturb",
            {"cells": {}, "pulse": {"width_s": 1e-6}},
            "bl_v and sl_v must differ",
        ),
    ):
        with pytest.raises(ConfigError, match=text):
            run_steps(tmp_path, ARRAY, "1T1R", {name: keys})
