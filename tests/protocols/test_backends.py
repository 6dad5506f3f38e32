"""Every characterisation protocol runs on every array backend, or refuses naming what is missing before anything moves."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_benches import ARC_ONE, BOARD, CHAINS
from chain_recipes import ARRAY, Steps, backend_text, steps_of, toml

from rram_hil.run import RunOutcome, run_recipe

SIZE = 3
EVERY = [(cell, chain) for cell in ("1T1R", "1R") for chain in (ARRAY, BOARD, *CHAINS)] + [("1R", ARC_ONE)]


def run_steps(folder: Path, chain: str, cell: str, steps: Steps, size: int = SIZE) -> RunOutcome:
    (folder / "bench.toml").write_text(backend_text(chain, cell, size), encoding="utf-8")
    (folder / "recipe.toml").write_text(toml(steps), encoding="utf-8")
    return run_recipe(folder / "recipe.toml", folder / "bench.toml", folder / "run.h5")


@pytest.mark.parametrize(("cell", "chain"), EVERY)
def test_every_protocol_runs(tmp_path: Path, cell: str, chain: str) -> None:
    steps = steps_of(chain, cell)
    outcome = run_steps(tmp_path, chain, cell, steps)
    summaries = dict(outcome.steps)
    print(summaries)
