"""Cell-pulses a second of the compiled laws beside plain NumPy ones (`numpy_laws.py`), one thread.

A bank of cells takes RESET + read and SET + read in turns, both kinds of bank in the same rounds,
one after the other; medians of the rounds, and the median of the ratios within rounds.

    python benchmarks/cell_pulses.py [--cells 100000] [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
from numpy_laws import NumpyBank, numpy_model  # noqa: E402

from rram_hil.simulation import CellBank, cells_of  # noqa: E402

BARS = {
    ("hfo2-measured", "SET"): 4.5,
    ("hfo2-measured", "RESET"): 6.0,
    ("paper", "SET"): 5.0,
    ("paper", "RESET"): 5.0,
}


def seconds(bank: CellBank, pulse: str) -> float:
    """Processor time of one pulse on each cell and one reading."""
    started = time.process_time()
    if pulse == "SET":
        bank.apply(2.0, 0.0, np.linspace(1.9, 2.5, len(bank)), 200e-9)
    else:
        bank.apply(0.0, 2.8, 4.0, 200e-9)
    bank.read()
    return time.process_time() - started


def compare(preset: str, cells: int, rounds: int) -> None:
    """One line a kind of pulse."""
    banks = cells_of(preset, cells, seed=7), NumpyBank(numpy_model(preset), cells, seed=7)
    took: dict[str, list[tuple[float, float]]] = {"RESET": [], "SET": []}
    for _ in range(rounds + 1):
        for pulse, times in took.items():
            times.append((seconds(banks[0], pulse), seconds(banks[1], pulse)))
    for pulse, times in took.items():
        compiled, plain = np.asarray(times[1:]).T  # the first round compiles, or loads
        rate = cells / np.median(compiled) / 1e6, cells / np.median(plain) / 1e6
        ratio, bar = np.median(plain / compiled), BARS[preset, pulse]
        print(
            f"{preset:14} {pulse:5} + read: {rate[0]:5.1f} against {rate[1]:4.1f} million a second,"
            f" {ratio:4.1f} times (bar {bar}: {'reached' if ratio >= bar else 'NOT reached'})"
        )


def main() -> None:
    """Both presets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    for preset in ("hfo2-measured", "paper"):
        compare(preset, asked.cells, asked.rounds)


if __name__ == "__main__":
    main()
