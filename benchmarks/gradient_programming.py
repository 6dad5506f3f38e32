"""Gradient-descent programming beside read-verify-write at equal pulses: how far the products of
one layer of 120 inputs and 50 outputs are from what they should be (docs/compensation.md).

    python benchmarks/gradient_programming.py [paper] [hfo2]

Every run starts from the same one-shot programming of a simulated chip, and ends with a look of
4096 fresh random vectors. Read-verify-write gets budgets of 1 to all pulses a cell, verified by
codes; the gradient's errors and pulses are those of its rounds, between which it is interpolated.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import torch
from small_bench import AIMED_PULSES, WHOLE, bench_toml
from torch import nn

from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.networks.network import Network
from rram_hil.protocols.gradient_programming import GradientSummary
from rram_hil.protocols.parts.programming import ProgrammingSummary
from rram_hil.storage.run_reader import read_run
from rram_hil.studies.devices import DEVICES as STUDIED

DEVICES = {"paper": STUDIED["A"].conditions, "hfo2": STUDIED["hfo2"].conditions}
BUDGETS = (1, 2, 3, 5, 10, 20, 30, 60)
TOLERANCES = ((0.05, 0.5e-6), (0.03, 0.3e-6))
RECIPE = """
title = "products"
seed = 1
log = "summary"
[[step]]
protocol = "forming"
bl_v = {{ start_v = 2.4, stop_v = 4.0, step_v = 0.1 }}
wl_v = [2.0, 2.4]
width_s = 1e-6
formed_above_s = 30e-6
[[step]]
protocol = "pulse-curves"
cells = {{ tiles = [0], rows = [0, 15], columns = [112, 127] }}
set_gate_v = {{ start_v = {gates[0]}, stop_v = {gates[1]}, points = 31 }}
reset_sl_v = {{ start_v = 0.6, stop_v = {known.reset_sl_v}, points = 31 }}
[[step]]
protocol = "one-shot"
reset = {{ sl_v = {known.reset_sl_v}, wl_v = 3.5, width_s = 200e-9 }}
set = {{ bl_v = 2.0, width_s = 100e-9 }}
[step.targets]
network = "net.safetensors"
options = {{ clip = "rms", faults = "partner", g_min_s = {known.g_min_s}, g_max_s = {known.g_max_s} }}
[[step]]
name = "programming"
protocol = "{protocol}"
tolerance = {tolerance}
tolerance_s = {tolerance_s}
lowest_s = {known.accept_below_s}
{keys}
{pulses}
[[step]]
name = "look"
protocol = "gradient-programming"
rounds = 0
vectors = 4096
{pulses}
"""  # noqa: E501


def run(
    device: str, protocol: str, keys: str, tolerance: tuple[float, float]
) -> tuple[object, float, np.ndarray, np.ndarray]:
    """The summary of the programming, the error in the look after it, and of each round of the
    gradient the pulses a cell before it and its error.
    """
    known = DEVICES[device]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        Network.from_torch(nn.Sequential(nn.Linear(120, 50))).save(folder / "net.safetensors")
        simulation = f'device = "{device}"\nseed = 1'
        bench = parse_bench_file(
            tomllib.loads(
                bench_toml("c", 128, 128, life=1000, limits=WHOLE, simulation=simulation)
            ),
            path=folder / "bench.toml",
        )
        text = RECIPE.format(
            known=known,
            gates=known.set_gate_v,
            protocol=protocol,
            keys=keys,
            pulses=AIMED_PULSES,
            tolerance=tolerance[0],
            tolerance_s=tolerance[1],
        )
        (folder / "recipe.toml").write_text(text, encoding="utf-8")
        outcome = run_recipe(folder / "recipe.toml", bench, folder / "run.h5")
        (_, summary), (_, look) = outcome.steps[-2:]
        assert isinstance(look, GradientSummary)
        pulses = errors = np.zeros(0)
        if isinstance(summary, GradientSummary):
            with read_run(folder / "run.h5") as file:
                pulses = file.result("programming", "pulses_before_round").values / summary.cells
                errors = file.result("programming", "product_error").values
    return summary, look.error_after, pulses, errors


def main() -> None:
    """Print a table a preset and tolerance."""
    torch.set_num_threads(1)
    for device in sys.argv[1:] or DEVICES:
        known = DEVICES[device]
        for tolerance in TOLERANCES:
            keys = f"max_pulses = {known.max_pulses}"
            gradient, end, pulses, errors = run(device, "gradient-programming", keys, tolerance)
            assert isinstance(gradient, GradientSummary)
            print(
                f"{device}, tolerance {tolerance[0]:.0%}: one-shot {errors[0]:.4f}; gradient"
                f" {end:.4f} after {gradient.rounds} rounds, {gradient.mean_pulses:.2f} pulses a"
                f" cell, {gradient.vectors} vectors"
            )
            for budget in (b for b in BUDGETS if b <= known.max_pulses):
                keys = (
                    f'verify_by = "codes"\nmax_pulses = {budget}'
                    f"\nmax_reversals = {known.max_reversals}"
                )
                verified, error, _, _ = run(device, "write-verify", keys, tolerance)
                assert isinstance(verified, ProgrammingSummary)
                given = verified.mean_pulses
                reached = float(np.interp(given, pulses, errors))
                ended = "" if given <= pulses[-1] else " (had ended)"
                print(
                    f"  budget {budget:2}: {given:5.2f} pulses a cell, {verified.vectors:6}"
                    f" vectors, R-V-W {error:.4f}, gradient {reached:.4f}{ended},"
                    f" ratio {error / reached:.2f}"
                )


if __name__ == "__main__":
    main()
