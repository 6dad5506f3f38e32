"""Reading and programming 16 x 16 cells through each chain at 5 ms latency, beside the time that no
driver of that chain can go below.

The bound is transactions x latency + bytes / rate + cells x (relay + aperture + source settling).
Its transactions are the fewest that any correct driver needs: one a row where the chain has an
engine or lists, else two a cell, relays and reading; a whole array at once where the board takes
it in one message. A round of programming is one pulse and one read of every cell, and its bound
has the pulse's width besides.

    python benchmarks/chain_bounds.py [--size N] [CHAIN ...]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chain_benches import ARC_ONE, BOARD, CHAINS, PULSED, write_bench

from rram_hil import Apply, Bench, Step, pulse, read

LATENCY_S = 5e-3
RATE = 10e6
BYTES = 40.0
"""Bytes of one cell, there and back, in text."""
SIZE = 16
JOB_LINES = 5
"""Lines of ArC ONE's job of one pulse: code, word, bit, volts, seconds."""
BAR = 1.3
HOST = "2400 + 2450 + 707B"
SCRIPTED = ("2636B + 33522B + 707B",)
"""Chains with a generator whose readings are one script a row."""
AT_ONCE = (BOARD, ARC_ONE)
BY_ROW = tuple(chain for chain in CHAINS if chain != HOST)
ALL = (BOARD, *CHAINS, *PULSED, ARC_ONE)


@dataclass(frozen=True)
class Cost:
    """What an operation cost: turns on all links, seconds of the bench clock, and the bound for
    these with its own number of turns.
    """

    transactions: int
    bench_s: float
    least: int
    how: str
    bound_s: float

    @property
    def ratio(self) -> float:
        """Bench time in parts of the bound."""
        return self.bench_s / self.bound_s


def least_transactions(chain: str, size: int, *, gives: bool) -> tuple[int, str]:
    """The fewest transactions of any correct driver for `size` x `size` cells, and how they count;
    `gives` tells a round of programming from a map.
    """
    if chain in AT_ONCE:
        return 1, "1"
    if chain in PULSED:
        # The generator hangs on a row of its own: relays move between a pulse and its reading.
        pulses = 2 * size * size if gives else 0
        if chain in SCRIPTED:
            return size + pulses, "rows + 2 x cells" if gives else "rows"
        return 2 * size * size + pulses, "4 x cells" if gives else "2 x cells"
    if chain in BY_ROW:
        return size, "rows"
    return 2 * size * size, "2 x cells"


def each_s(chain: str, told: Mapping[str, float], width_s: float) -> float:
    """What the hardware takes for one read of a cell."""
    if chain == BOARD:
        return told["settle_s"] + told["conversion_s"] + width_s
    if chain == ARC_ONE:
        return told["read_s"]
    return told["relay_s"] + width_s + told["source_s"]


def pulse_width_s(chain: str) -> float:
    """A pulse that the chain can make."""
    return 1e-6 if chain in (*AT_ONCE, *PULSED) else 2e-3


def cost(bench: Bench, chain: str, operation: Apply, pulse_s: float) -> Cost:
    """Carry an operation out, and compare."""
    driver, width_s = bench.driver, bench.file.read.width_s
    cells = len(operation.cells)
    before, started_s = driver.transactions, driver.now_s()
    bench.apply(operation)
    turns, bench_s = driver.transactions - before, driver.now_s() - started_s
    told = driver.capabilities.timing
    least, how = least_transactions(chain, round(cells**0.5), gives=pulse_s > 0)
    hardware_s = each_s(chain, told, width_s) + pulse_s
    if chain in PULSED and pulse_s:
        hardware_s += told["relay_s"]
    bytes_s = BYTES / RATE
    if chain == ARC_ONE and pulse_s:
        # A job a pulse, in lines that the board takes one by one, with a reading of its own.
        bytes_s += JOB_LINES * told["line_s"] + told["read_s"]
    bound_s = least * LATENCY_S + cells * (bytes_s + hardware_s)
    return Cost(turns, bench_s, least, how, bound_s)


def costs(chain: str, size: int = SIZE, cell: str = "1T1R") -> dict[str, Cost]:
    """A map and a round of programming of a pristine array; word lines stand at the level of reads
    throughout.
    """
    cell = "1R" if chain == ARC_ONE else cell
    timing = f"link_s = {LATENCY_S}\nbytes_per_s = {RATE}"
    with tempfile.TemporaryDirectory() as folder:
        path = write_bench(Path(folder), chain, cell, size, timing=timing)
        with Bench.open(path) as bench:
            step: Step = bench.file.read.step
            width_s = pulse_width_s(chain)
            give = pulse(bench.cells(), bl_v=1.0, wl_v=step.wl_v, width_s=width_s, read=step)
            return {
                "map": cost(bench, chain, read(bench.cells(), step), 0.0),
                "round": cost(bench, chain, replace(give, label="round"), width_s),
            }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("chains", nargs="*", default=list(ALL))
    options = parser.parse_args()
    print("| chain | of | transactions | bench time | bound's transactions | bound | ratio |")
    print("|---|---|---|---|---|---|---|")
    for chain in options.chains:
        for name, found in costs(chain, options.size).items():
            missed = "" if found.ratio <= BAR else f" (bar {BAR})"
            print(
                f"| {chain} | {name} | {found.transactions} | {found.bench_s:.3f} s"
                f" | {found.how}: {found.least} | {found.bound_s:.3f} s"
                f" | {found.ratio:.2f}{missed} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
