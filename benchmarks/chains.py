"""One target recipe on a 32 x 32 array through every chain of instruments: how many cells end in
their windows, and at what cost.

The targets and windows are the same everywhere; widths and ramps are those that a chain can make. A
cell counts where its true conductance lies inside its window, give or take the chain's stated
uncertainty; stuck cells are left out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from chain_benches import ARC_ONE, BOARD, CHAINS, PULSED, write_bench

from rram_hil import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.plugins import protocol_class
from rram_hil.pytest_plugin import GroundTruth

LEVELS_S = (40e-6, 80e-6, 120e-6, 170e-6)
TOLERANCE, TOLERANCE_S = 0.10, 3e-6
ONE_LINE = "2400 + 2450 + 707B"
"""Times one line alone: no V/2, which a 1R array is formed with."""
UNSTATED = "B1500A SPGU + 707B"
"""States no accuracy (no document of its modules' was opened), so no resolution is allowed for: its
windows are narrowed by what a reading of the device scatters.
"""
ALL = [
    (cell, chain)
    for cell in ("1T1R", "1R")
    for chain in (BOARD, *CHAINS)
    if (cell, chain) != ("1R", ONE_LINE)
]
ALL += [("1R", ARC_ONE), *(("1T1R", chain) for chain in PULSED)]


@dataclass(frozen=True)
class Programmed:
    """What programming through one chain came to."""

    cells: int
    inside: float
    accepted: float
    pulses: float
    transactions: int
    bench_s: float
    wall_s: float
    uncertainty: str


def steps(chain: str, cell: str) -> dict[str, dict[str, object]]:
    """Forming and write-verify for a chain: the board, ArC ONE and pulse generators make
    microseconds, source-meters milliseconds.
    """
    width = 1e-6 if chain in (BOARD, ARC_ONE, *PULSED) else 2e-3 if chain == ONE_LINE else 1e-3
    forming: dict[str, object] = {
        "bl_v": {"start_v": 2.2, "stop_v": 3.8, "step_v": 0.1},
        "wl_v": [2.0],
        "width_s": width,
    }
    write: dict[str, object] = {
        "tolerance": TOLERANCE,
        "tolerance_s": TOLERANCE_S,
        "max_pulses": 200,
        "max_reversals": 60,
        "confirm": 1,
    }
    if chain == UNSTATED:
        write["guard"] = {"fraction": 0.002, "floor_s": 1e-8, "sure": 2.0}
    open_v = {"start_v": 3.5, "stop_v": 3.5}
    if cell == "1R":
        forming["unselected"] = write["unselected"] = "half"
        write["set"] = {
            "amplitude_v": {"start_v": 0.7, "stop_v": 1.0, "step_v": 0.05},
            "gate_v": open_v,
            "width_s": width,
        }
        write["reset"] = {
            "amplitude_v": {"start_v": 0.5, "stop_v": 1.0, "step_v": 0.02},
            "gate_v": open_v,
            "width_s": width,
        }
    else:
        gate = {"start_v": 2.0, "stop_v": 3.2, "step_v": 0.04}
        write["set"] = {
            "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
            "gate_v": gate,
            "width_s": width,
        }
        write["reset"] = {
            "amplitude_v": {"start_v": 0.5, "stop_v": 1.6, "step_v": 0.03},
            "gate_v": open_v,
            "width_s": width,
        }
    return {"forming": forming, "write-verify": write}


def program(
    chain: str, cell: str, size: int = 32, *, seed: int = 1, timing: str = "link_s = 5e-3"
) -> Programmed:
    """Form and program a fresh array; compare with the truth behind the instruments."""
    rng = np.random.default_rng(seed)
    target = rng.choice(LEVELS_S, size=(1, size, size))
    with tempfile.TemporaryDirectory() as folder:
        path = write_bench(Path(folder), chain, cell, size, timing=timing, seed=seed)
        np.save(Path(folder) / "target.npy", target)
        file = load_bench_file(path)
        started = time.perf_counter()
        with Bench.open(file) as bench:
            setting = replace(bench.setting, folder=Path(folder))
            before, began_s = bench.driver.transactions, bench.driver.now_s()
            for name, keys in steps(chain, cell).items():
                extra = {"targets": {"map": "target.npy"}} if name == "write-verify" else {}
                outcome = bench.run(protocol_class(name).model_validate(keys | extra).run(setting))
            truth = GroundTruth(bench)
            g, stuck = truth.conductance_s(), truth.named("stuck") != 0
            can = bench.capabilities
            read_v = abs(file.read.bl_v)
            slack = can.read_fraction * g + can.read_floor_a / read_v
            half = np.maximum(TOLERANCE * target, TOLERANCE_S)
            good = (g >= target - half - slack) & (g <= target + half + slack)
            return Programmed(
                int((~stuck).sum()),
                float(good[~stuck].mean()),
                float(outcome.inside / outcome.cells),  # type: ignore[attr-defined]
                float(truth.pulses()[~stuck].mean()),
                bench.driver.transactions - before,
                bench.driver.now_s() - began_s,
                time.perf_counter() - started,
                f"{can.read_fraction:.2%} + {can.read_floor_a / read_v * 1e6:.3f} uS",
            )


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    wanted = sys.argv[2:]
    print(
        f"{'cell':5s} {'chain':20s} {'cells':>6s} {'inside':>8s} {'pulses':>7s}"
        f" {'transactions':>12s} {'bench time':>12s} {'wall':>7s}  uncertainty"
    )
    for cell, chain in ALL:
        if wanted and chain not in wanted:
            continue
        f = program(chain, cell, size)
        print(
            f"{cell:5s} {chain:20s} {f.cells:6d} {f.inside:8.2%} {f.pulses:7.1f}"
            f" {f.transactions:12d} {f.bench_s:10.1f} s {f.wall_s:5.0f} s  {f.uncertainty}",
            flush=True,
        )


if __name__ == "__main__":
    main()
