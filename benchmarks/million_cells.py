"""A chip of 1024 x 1024 cells formed, read and programmed by read-verify-write on a whole bench:
engine, limits, ledger and journal, with the simulated chip in the process and a summary log.

Prints time, peak memory of the process tree and the size of the journal beside their bars: 5
minutes, 2 GB, 2 GB.

    python benchmarks/million_cells.py [--side 1024] [--device hfo2-measured] [--on-board never]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from small_bench import WHOLE, bench_toml

RECIPE = """\
title = "a million cells"
seed = 1
log = "summary"

[[step]]
protocol = "forming"
bl_v = {{ start_v = 2.4, stop_v = 4.2, step_v = 0.2 }}
wl_v = [2.0, 2.3]
width_s = 1e-6

[[step]]
protocol = "read-map"

[[step]]
protocol = "write-verify"
targets = {{ map = "target.npy" }}
tolerance = 0.05
tolerance_s = 3e-6
max_pulses = 60
max_reversals = 12
on_board = "{on_board}"
[step.set]
amplitude_v = {{ start_v = 2.0, stop_v = 2.0 }}
gate_v = {{ start_v = 2.0, stop_v = 3.0, step_v = 0.05 }}
width_s = 100e-9
[step.reset]
amplitude_v = {{ start_v = 0.6, stop_v = 2.5, step_v = 0.05 }}
gate_v = {{ start_v = 3.5, stop_v = 3.5 }}
width_s = 200e-9
"""
BARS = {"seconds": 300.0, "peak GB": 2.0, "journal GB": 2.0}


def resident_bytes(pid: int) -> int:
    """Memory of a process and of all that it has started."""
    parents: dict[int, list[int]] = {}
    size: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                pages = int((folder / "statm").read_text().split()[1])
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
            size[int(folder.name)] = pages * os.sysconf("SC_PAGE_SIZE")
    due, found = [pid], 0
    while due:
        one = due.pop()
        found += size.get(one, 0)
        due += parents.get(one, [])
    return found


def run(folder: Path, side: int, device: str, on_board: str) -> dict[str, float]:
    """One run of a fresh chip."""
    bench = bench_toml(
        "million", side, side, 2000, limits=WHOLE, simulation=f'device = "{device}"\nseed = 1'
    )
    (folder / "bench.toml").write_text(bench)
    (folder / "recipe.toml").write_text(RECIPE.format(on_board=on_board))
    levels = np.random.default_rng(1).integers(0, 8, (1, side, side))
    np.save(folder / "target.npy", 20e-6 + 15e-6 * levels)
    command = [sys.executable, "-P", "-m", "rram_hil.cli", "run", "recipe.toml"]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen([*command, "-b", "bench.toml", "-o", "run.h5"], cwd=folder)
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.2)
    if process.returncode != 0:
        raise SystemExit(f"the run ended with {process.returncode}")
    return {
        "seconds": time.monotonic() - started,
        "peak GB": peak / 1e9,
        "journal GB": (folder / "run.h5.journal").stat().st_size / 1e9,
    }


def main() -> None:
    """Print each figure and its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--device", default="hfo2-measured")
    parser.add_argument("--on-board", default="allowed", choices=("never", "allowed", "required"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), asked.side, asked.device, asked.on_board)
    for name, value in found.items():
        print(f"{name:10} {value:8.2f}  (bar {BARS[name]:g})")


if __name__ == "__main__":
    main()
