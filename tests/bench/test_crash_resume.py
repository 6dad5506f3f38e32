"""Real runs, really killed: at chosen writes by the crash shim, and at arbitrary times, on both
simulated benches.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bench import PULSES, bench_toml

from rram_hil.bench.bench import Bench
from rram_hil.protocols.forming import Forming
from rram_hil.storage.run_reader import read_run

LIVES = Path(__file__).parents[1] / "helpers" / "crash_lives.py"
ROWS, COLUMNS = 6, 6
BUDGET = 15
RECIPE = f"""\
[[step]]
protocol = "one-shot"
targets.map = "top.npy"
set.gate = {{ volts_v = [2.0, 3.0], conductance_s = [10e-6, 100e-6] }}

[[step]]
protocol = "write-verify"
targets.map = "bottom.npy"
max_pulses = {BUDGET}
{PULSES}
[[step]]
protocol = "read-map"
"""
TOP = np.full((1, ROWS, COLUMNS), np.nan)
TOP[0, :3] = np.linspace(20e-6, 90e-6, 3 * COLUMNS).reshape(3, COLUMNS)
TOP[0, 0, 0] = 0.0
BOTTOM = np.full((1, ROWS, COLUMNS), np.nan)
BOTTOM[0, 3:5] = np.linspace(20e-6, 90e-6, 2 * COLUMNS).reshape(2, COLUMNS)
ONE_SHOT = np.where(np.isnan(TOP), 0, np.where(TOP > 0, 2, 1))
"""Pulses of a finished one-shot step: a RESET each, and a SET where the target is above the table's
lowest entry.
"""
BOTH = pytest.mark.parametrize(
    "driver", ["simulated-array", pytest.param("test-chip-board", marks=pytest.mark.long)]
)


Lives = list[dict[str, Any]]


class Bed:
    """A folder with a formed chip, copied for every run that is to be killed."""

    def __init__(self, base: Path, driver: str) -> None:
        self.prepared, self.base = base / "prepared", base
        self.prepared.mkdir()
        text = bench_toml("c1", ROWS, COLUMNS, 400, driver=f'name = "{driver}"')
        (self.prepared / "bench.toml").write_text(
            text.replace(driver, "simulated-array"), encoding="utf-8"
        )
        with Bench.open(self.prepared / "bench.toml") as bench:
            bench.run(Forming())
            self.before = bench.driver.chip.pulses  # type: ignore[attr-defined]
        (self.prepared / "bench.toml").write_text(text, encoding="utf-8")
        (self.prepared / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        np.save(self.prepared / "top.npy", TOP)
        np.save(self.prepared / "bottom.npy", BOTTOM)

    def run(
        self, environment: dict[str, str], runs: list[list[dict[str, Any]]]
    ) -> list[tuple[Path, Lives]]:
        """For each run its folder and what its processes left: they end at the given moments, the
        last one by itself.
        """
        base = self.base / f"batch{len(list(self.base.iterdir()))}"
        shutil.copytree(self.prepared, base / "prepared")
        command = [sys.executable, "-P", str(LIVES), str(base), json.dumps(runs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
        return [(base / f"run{k}", lives) for k, lives in enumerate(json.loads(done.stdout), 1)]

    def check(self, folder: Path, lives: Lives) -> None:
        """What must hold after every death, and at the end."""
        assert not lives[-1]["died"]
        kept = ""
        for life in lives:
            pulses, ledger = np.array(life["pulses"]), np.array(life["ledger"])
            given = pulses - self.before
            assert np.all(given[:, :3] <= ONE_SHOT[:, :3]), life["death"]
            assert given[:, 3:5].max() <= BUDGET, life["death"]
            assert not given[:, 5].any(), life["death"]
            assert np.all(ledger >= pulses), life["death"]
            assert life.get("begins", kept).startswith(kept), (
                f"a committed frame was lost by {life['death']}"
            )
            kept = life.get("begins", kept)
        # The bench counts what each cell took, so nothing is left out either.
        np.testing.assert_array_equal(given[:, :3], ONE_SHOT[:, :3])
        run = read_run(folder / "run.h5")
        assert run.status == "complete"
        frames = lives[-1]["frames"]
        assert frames.count("StepStart") == frames.count("StepEnd") == 3
        assert frames.count("Intent") == frames.count("Outcome")
        assert frames[-1] == "Close"


@pytest.fixture
def bed(tmp_path: Path) -> Callable[[str], Bed]:
    return lambda driver: Bed(tmp_path, driver)


def deaths_at_writes(bed: Bed, shim: Any, every: int) -> Lives:
    """Each `every`-th call on journal and ledger of a run that is not killed, writes also half
    done, and some on its run file.
    """
    log = bed.base / "calls"
    bed.run(
        shim.environment(""), [[{"match": "/run1/", "at": 0, "when": "before", "log": str(log)}]]
    )
    made = [line.split(" ", 2)[1:] for line in log.read_text().splitlines()]
    deaths: Lives = []
    # HDF5 writes the run file, aside, in hundreds of small pieces.
    for match, stride in ((".journal", every), (".ledger.npy", every), ("/.run.h5.", 30 * every)):
        here = [call for call, path in made if match in path]
        assert here
        if stride > every:
            # Their number depends on how times are printed: the last few may not come again.
            here = here[:-30]
        for number in range(1, len(here) + 1, stride):
            moments = ("before", "half") if here[number - 1] in ("write", "pwrite") else ("before",)
            deaths += [{"match": match, "at": number, "when": when} for when in moments]
    return deaths


@pytest.mark.parametrize(
    "every",
    [
        pytest.param(16, marks=pytest.mark.long),
        pytest.param(10, marks=pytest.mark.long),
        pytest.param(2, marks=pytest.mark.slow),
    ],
)
def test_killed_at_a_write_boundary_and_resumed(
    bed: Callable[[str], Bed], crash_shim: Any, every: int
) -> None:
    here = bed("simulated-array")
    deaths = deaths_at_writes(here, crash_shim, every)
    assert len(deaths) > 8
    for folder, lives in here.run(crash_shim.environment(""), [[death] for death in deaths]):
        assert lives[0]["died"]
        here.check(folder, lives)


@pytest.mark.long
@BOTH
def test_killed_again_and_again_until_it_is_done(
    bed: Callable[[str], Bed], crash_shim: Any, driver: str
) -> None:
    here = bed(driver)
    deaths = [
        {"match": ".journal", "at": at, "when": when}
        for at in range(3, 13)
        for when in ("half", "after")
    ]
    ((folder, lives),) = here.run(
        crash_shim.environment(""), [deaths if driver == "simulated-array" else deaths[8::4]]
    )
    assert sum(life["died"] for life in lives) >= 3
    here.check(folder, lives)


@BOTH
@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_any_time_and_resumed(
    bed: Callable[[str], Bed], crash_shim: Any, driver: str, many: bool
) -> None:
    here = bed(driver)
    ((_, (whole,)),) = here.run(crash_shim.environment(""), [[]])
    count = (5 if driver == "simulated-array" else 2) * 3 if many else 2
    seconds = np.random.default_rng(1).uniform(0.2, 0.95, count) * whole["took_s"]
    for folder, lives in here.run(
        crash_shim.environment(""), [[{"after_s": float(s)}] * 2 for s in seconds]
    ):
        here.check(folder, lives)
