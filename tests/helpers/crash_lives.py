"""Runs a recipe in one process after the other, killing each at a chosen moment; run under the
crash shim.

`crash_lives.py BASE RUNS`: RUNS is a JSON list of runs, each a list of the moments of death of its
processes: either {"match": TEXT, "at": N, "when": "before"/"half"/"after"}, the N-th call on files
whose path has TEXT, or {"after_s": SECONDS}. A last process runs to the end. Each run works in a
copy of BASE/prepared. Prints what every process left as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.plugins import driver_class, protocol_class
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.storage.journal import JournalReader, holds_run
from rram_hil.storage.run_state import journal_of


def live(folder: Path, death: dict[str, Any]) -> bool:
    """One process; whether it was killed."""
    run_file = folder / "run.h5"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.environ.update({f"CRASH_{k.upper()}": str(v) for k, v in death.items()})
            resume = journal_of(run_file).exists() and holds_run(journal_of(run_file))
            run_recipe(folder / "recipe.toml", folder / "bench.toml", run_file, resume=resume)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    timer = threading.Timer(death.get("after_s", 60.0), os.kill, (child, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    died = os.WIFSIGNALED(status)
    if not died and status != 0:
        raise SystemExit(f"a life ended with {status}")
    return died


def found(folder: Path) -> dict[str, Any]:
    """The chip's truth, the ledger and the journal as they are now."""
    bench = load_bench_file(folder / "bench.toml")
    assert bench.simulation is not None
    chip = SimulatedChip(
        bench.chip.geometry,
        bench.simulation,
        read_v=bench.limits.read_v,
        chip_id=bench.chip.id,
        folder=folder,
    )
    counts = (
        np.load(bench.ledger_path) if bench.ledger_path.exists() else np.zeros_like(chip.pulses)
    )
    told: dict[str, Any] = {
        "pulses": chip.pulses.tolist(),
        "ledger": counts.tolist(),
        "journal_bytes": 0,
    }
    journal = journal_of(folder / "run.h5")
    if journal.exists() and holds_run(journal):
        reader = JournalReader(journal)
        told["frames"] = [type(f).__name__ for f in reader]
        told["journal_bytes"] = reader.whole_bytes
        told["begins"] = journal.read_bytes()[: reader.whole_bytes].hex()
    return told


def main(base: Path, runs: list[list[dict[str, Any]]]) -> None:
    """Live and die; print what each life left."""
    for name in ("one-shot", "write-verify", "read-map"):
        protocol_class(name)
    for name in ("simulated-array", "test-chip-board"):
        driver_class(name)
    told = []
    for number, deaths in enumerate(runs, 1):
        folder = base / f"run{number}"
        shutil.copytree(base / "prepared", folder)
        lives = []
        for death in [*deaths, {}]:
            started = time.monotonic()
            died = live(folder, death)
            lives.append(
                found(folder) | {"died": died, "death": death, "took_s": time.monotonic() - started}
            )
            if not died:
                break
        told.append(lives)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
