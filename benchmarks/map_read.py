"""Reading a 32 x 32 map through each chain at 5 ms latency: transactions, bench time, and what the
hardware needs anyway.

The bound is 1.2 x (transactions x latency + bytes / rate + cells x (relay settling + aperture +
source settling)).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from chain_benches import ARC_ONE, BOARD, CHAINS, write_bench

from rram_hil import Bench, read

LATENCY_S = 5e-3
RATE = 10e6
SIZE = 32


@dataclass(frozen=True)
class MapRead:
    """What one map cost: turns on all links, seconds of the bench clock, and the bound for
    those.
    """

    transactions: int
    bench_s: float
    bound_s: float


def measure(chain: str, cell: str, size: int = SIZE) -> MapRead:
    """Read one map of a pristine array through a chain."""
    with tempfile.TemporaryDirectory() as folder:
        timing = f"link_s = {LATENCY_S}\nbytes_per_s = {RATE}"
        path = write_bench(Path(folder), chain, cell, size, timing=timing)
        with Bench.open(path) as bench:
            before, started_s = bench.driver.transactions, bench.driver.now_s()
            result = bench.apply(read(bench.cells(), bench.file.read.step))
            turns, bench_s = bench.driver.transactions - before, bench.driver.now_s() - started_s
            assert (result.reads == 1).all()
            told = bench.driver.capabilities.timing
            width_s = bench.file.read.width_s
            if chain == BOARD:
                each_s = told["settle_s"] + told["conversion_s"] + width_s
            elif chain == ARC_ONE:
                each_s = told["read_s"]
            else:
                each_s = told["relay_s"] + width_s + told["source_s"]
            bytes_ = told.get("bytes", 40.0 * size * size)
            return MapRead(
                turns, bench_s, 1.2 * (turns * LATENCY_S + bytes_ / RATE + size * size * each_s)
            )


def main() -> None:
    print(
        f"{'chain':22s} {'cell':5s} {'transactions':>12s} {'a row':>6s} {'bench time':>11s}"
        f" {'bound':>9s} {'used':>6s}"
    )
    for cell in ("1T1R", "1R"):
        for chain in (BOARD, *CHAINS, ARC_ONE):
            if chain == ARC_ONE and cell == "1T1R":
                continue
            found = measure(chain, cell)
            print(
                f"{chain:22s} {cell:5s} {found.transactions:12d} {found.transactions / SIZE:6.2f}"
                f" {found.bench_s:9.3f} s {found.bound_s:7.3f} s"
                f" {found.bench_s / found.bound_s:6.2f}"
            )


if __name__ == "__main__":
    main()
