"""`rram-hil plan` against runs that follow: the bench time of each step on other chips of a model.

For every chain of instruments the steps of a recipe are planned on five chips and run on five
others. The table of docs/recipes.md is what this prints.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from chain_benches import ARC_ONE, BOARD, CHAINS
from chain_recipes import ARRAY, Steps, backend_text, steps_of, toml

from rram_hil.bench.forecast import plan_recipe
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.storage.run_reader import read_run
from rram_hil.units import duration

BACKENDS = [("1T1R", chain) for chain in (ARRAY, BOARD, *CHAINS)] + [("1R", ARC_ONE)]
LEFT_OUT = {"retention", "read-disturb", "half-select-disturb"}
"""Retention waits, which takes what it says; the others pulse and read as those that are here."""


def steps(chain: str, cell: str) -> Steps:
    """Forming, write-verify, a map, and what characterises cells."""
    found = {k: v for k, v in steps_of(chain, cell).items() if k not in LEFT_OUT}
    retention = steps_of(chain, cell)["retention"]
    verify = {k: retention[k] for k in ("set", "reset", "unselected", "max_pulses")}
    verify |= {"targets": {"map": "target.npy"}, "tolerance": 0.2}
    return {
        "forming": found.pop("forming"),
        "write-verify": verify,
        "read-map": {"repeat": 4},
        **found,
    }


def rows_of(chain: str, cell: str, size: int, chips: int) -> list[tuple[str, ...]]:
    """Of each step: p5 and p95 as planned, the median of the runs, by how much the plan's median is
    off.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "target.npy", np.full((1, size, size), 70e-6))
        recipe = folder / "recipe.toml"
        recipe.write_text(toml(steps(chain, cell)), encoding="utf-8")
        took = []
        for seed in range(1, chips + 2):
            bench = folder / f"{seed}.toml"
            text = backend_text(chain, cell, size, seed=seed)
            bench.write_text(text.replace('"test"', f'"test-{seed}"'), encoding="utf-8")
            if seed == 1:
                planned = plan_recipe(recipe, bench, chips=chips)
                continue
            outcome = run_recipe(recipe, bench, folder / f"{seed}.h5")
            with read_run(outcome.run_file) as run:
                table = run.table("steps")
                took.append(table["ended_s"] - table["started_s"])
    rows = []
    for step, seconds in enumerate(np.median(took, axis=0)):
        forecast = np.median([one[step].bench_s for one in planned.others])
        low, high = planned.spread("bench_s", step) or (forecast, forecast)
        rows.append(
            (
                chain,
                planned.steps[step].name,
                f"{duration(low)} to {duration(high)}",
                duration(float(seconds)),
                f"{100 * (forecast / seconds - 1):+.1f} %",
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8, help="rows and columns")
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--chain", action="append", help="one chain alone")
    given = parser.parse_args()
    print("| bench | step | planned, p5 to p95 | runs, median | off |\n|---|---|---|---|---|")
    for cell, chain in BACKENDS:
        if given.chain is None or chain in given.chain:
            for row in rows_of(chain, cell, given.size, given.chips):
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
