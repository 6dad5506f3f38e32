"""What one-shot programming leaves on simulated devices, and what verifying them takes, by the
protocols of a bench.

    python benchmarks/one_shot_errors.py [DEVICE ...]

A simulated array of 128 x 128 cells is formed, its pulse curves are measured on a corner of
32 x 32, and the other cells are programmed once to six targets and read; then all are verified,
each cell read after each pulse. Cells that forming found stuck do not count.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from small_bench import WHOLE, bench_toml

from rram_hil import Bench
from rram_hil.calibration.pulse_curves import MeasurePulseCurves
from rram_hil.protocols.forming import Forming
from rram_hil.protocols.one_shot import OneShot
from rram_hil.protocols.parts.targets import Condition
from rram_hil.protocols.write_verify import WriteVerify
from rram_hil.types import FloatArray

DEVICES = ("paper", "paper-0.3", "paper-0.5", *(f"paper{s}-additive" for s in ("", "-0.3", "-0.5")))
TARGETS_S = np.array([1e-6, 5e-6, 15e-6, 30e-6, 60e-6, 100e-6])
CORNER = {"tiles": [0], "rows": [0, 31], "columns": [96, 127]}
FORMING = {
    "bl_v": {"start_v": 2.4, "stop_v": 4.0, "step_v": 0.1},
    "wl_v": [2.0, 2.4],
    "formed_above_s": 30e-6,
}
CURVES = {
    "cells": CORNER,
    "set_gate_v": {"start_v": 1.75, "stop_v": 3.3, "points": 32},
    "reset_sl_v": {"start_v": 0.6, "stop_v": 2.0, "points": 29},
}
SHOT = {"reset": {"sl_v": 2.0, "wl_v": 3.5, "width_s": 200e-9}, "set": {}}
VERIFY = {
    "tolerance": 0.05,
    "tolerance_s": 0.5e-6,
    "lowest_s": 1.5e-6,
    "set": {
        "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
        "width_s": 100e-9,
        "gate_v": {"start_v": 1.5, "stop_v": 3.5, "step_v": 0.02, "aim": 0.8, "curve": "set"},
    },
    "reset": {
        "gate_v": {"start_v": 3.5, "stop_v": 3.5},
        "width_s": 200e-9,
        "amplitude_v": {
            "start_v": 0.4,
            "stop_v": 2.4,
            "step_v": 0.02,
            "aim": 1.3,
            "curve": "reset",
        },
    },
}
BUDGETS = ((30, 10), (60, 20), (120, 40), (240, 80))
"""Pulses and reversals a cell."""


def main() -> None:
    """Print both tables of each device."""
    for device in sys.argv[1:] or DEVICES:
        with TemporaryDirectory() as folder:
            bench = Path(folder) / "bench.toml"
            limits = f"{WHOLE}conductance_s = [0.0, 300e-6]\n"
            simulation = f'seed = 1\ndevice = "{device}"'
            text = bench_toml("one-shot", 128, 128, life=2000, limits=limits, simulation=simulation)
            bench.write_text(text, encoding="utf-8")
            with Bench.open(bench) as open_bench:
                show(device, open_bench)


def show(device: str, bench: Bench) -> None:
    """Measure one device and print what was found."""
    bench.run(Forming.model_validate(FORMING))
    curves = bench.run(MeasurePulseCurves.model_validate(CURVES))
    low, high = curves.set_lowest_s * 1e6, curves.set_highest_s * 1e6
    print(f"{device}: SET curve from {low:.2f} to {high:.0f} uS")
    wanted = np.resize(TARGETS_S, bench.geometry.shape)
    wanted[:, :32, 96:] = np.nan
    shot = OneShot.model_validate({"targets": wanted, **SHOT})
    bench.run(shot)
    show_errors(wanted, bench)
    for pulses, reversals in BUDGETS:
        budget = {"max_pulses": pulses, "max_reversals": reversals}
        bench.run(shot)
        found = bench.run(WriteVerify.model_validate({**VERIFY, **budget}))
        print(
            f"  at most {pulses} pulses and {reversals} reversals:"
            f" {found.inside / found.cells:.2%} inside, {found.mean_pulses:.1f} pulses a cell"
        )


def show_errors(wanted: FloatArray, bench: Bench) -> None:
    """Print mean and spread of what cells of each target (S) conduct."""
    condition = bench.setting.shared_by("condition", Condition)
    works = ~(condition.stuck_low_resistance | condition.stuck_high_resistance)
    found = bench.read_map()
    for target in TARGETS_S:
        g = found[works & (wanted == target)]
        print(
            f"  {target * 1e6:3.0f} uS: {g.size} cells, median {np.median(g) * 1e6:6.2f}, mean"
            f" {g.mean() * 1e6:6.2f}, sd {g.std() * 1e6:5.2f} uS, sd of ln {np.log(g).std():.3f}"
        )


if __name__ == "__main__":
    main()
