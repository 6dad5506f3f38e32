"""The wire's cost: a map read and a multiply through the simulated board, beside the same chip in
the process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from rram_hil import Bench, Multiply, read
from rram_hil.bench.bench_file import parse_bench_file

ROUNDS = 5
LIMITS = {
    "bl_v": 4.0, "sl_v": 3.0, "wl_v": 4.0, "cell_v": 4.0, "gate_over_v": 4.0, "half_select_v": 0.3, "read_v": 0.25,
    "current_a": 1e-3, "energy_j": 1e-8, "width_s": 1e-5, "pulses_per_cell": 1000,
}  # fmt: skip


def bench(driver: str, folder: Path) -> Bench:
    tables = {
        "chip": {"id": driver, "tiles": 1, "rows": 256, "columns": 256, "cell": "1T1R"},
        "driver": {"name": driver},
        "limits": LIMITS,
        "simulation": {"device": "paper", "seed": 1, "read_noise": False},
    }
    return Bench.open(parse_bench_file(tables, path=folder / "bench.toml"))


def timed(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        bench("simulated-array", Path(folder)) as direct,
        bench("test-chip-board", Path(folder)) as wire,
    ):
        codes = np.random.default_rng(0).integers(-127, 128, size=(20_000, 256)).astype(np.int16)
        works = {
            "read 65,536 cells": lambda b: b.do(read(b.cells())),
            "multiply 20,000 x 256 by 256 x 128": lambda b: b.do(Multiply(0, 0, 0, 128, codes)),
        }
        print(f"{'':36s} {'in process':>12s} {'wire':>12s} {'ratio':>8s}")
        for name, work in works.items():
            pairs = [
                (timed(partial(work, direct)), timed(partial(work, wire))) for _ in range(ROUNDS)
            ]
            here, there = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"{name:36s} {here * 1e3:9.0f} ms {there * 1e3:9.0f} ms {ratio:8.2f}")


if __name__ == "__main__":
    main()
