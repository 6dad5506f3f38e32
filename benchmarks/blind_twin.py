"""How near the twin of a chip comes whose parameters nothing else knows: characterised over the
wire, fitted from the run file, checked on other cells.

    python benchmarks/blind_twin.py [--base hfo2-measured] [SEED...]

Each seed draws a chip of its own around the preset `--base`. Its board is a simulator in a process
of its own; everything that is measured comes through the board's protocol. The true parameters get
what any model can get: the figures of 256 cells spread.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil import cli
from rram_hil.calibration.device_fit.toml_text import to_toml
from rram_hil.calibration.device_model import Checked, check_files, passed
from rram_hil.simulation.model import DeviceModel

EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPE = EXAMPLES / "recipe-characterise.toml"
LEVELS_S = (10e-6, 30e-6, 60e-6, 100e-6)
"""Targets of the write-verify; cells take them in turn."""
VERIFY = """
title = "read-verify-write of fresh cells"
seed = 1

[[step]]
protocol = "forming"
cells = { rows = [16, 23], columns = [0, 31] }
bl_v = { start_v = 2.4, stop_v = 3.8, step_v = 0.1 }
wl_v = [2.0]
width_s = 1e-6

[[step]]
protocol = "write-verify"
targets = { map = "target.npy" }
tolerance = 0.05
tolerance_s = 2e-6
max_pulses = 100
max_reversals = 20

[step.set]
amplitude_v = { start_v = 2.0, stop_v = 2.0 }
gate_v = { start_v = 1.8, stop_v = 3.2, step_v = 0.05 }
width_s = 200e-9

[step.reset]
amplitude_v = { start_v = 0.6, stop_v = 2.8, step_v = 0.1 }
gate_v = { start_v = 4.0, stop_v = 4.0 }
width_s = 200e-9
"""


def hidden_model(seed: int, base: str = "hfo2-measured") -> DeviceModel:
    """A device whose every number differs from the preset `base` by factors and volts of its own,
    drawn from the seed: thresholds, filaments, series resistance, spreads, wear, relaxation, noise.
    """
    rng = np.random.default_rng([seed, 1818])
    content = DeviceModel.load(base).model_dump()
    content["name"] = "hidden"

    def times(part: dict[str, Any], sd_ln: float, *names: str) -> None:
        for name in names:
            factor = float(np.exp(sd_ln * rng.standard_normal()))
            value = part[name]
            part[name] = [v * factor for v in value] if isinstance(value, list) else value * factor

    def shifted(part: dict[str, Any], sd_v: float, *names: str) -> None:
        for name in names:
            shift_v = float(sd_v * rng.standard_normal())
            value = part[name]
            part[name] = [v + shift_v for v in value] if isinstance(value, list) else value

    forming, set_, reset = content["forming"], content["set"], content["reset"]
    shifted(forming, 0.08, "quantile_v")
    times(forming, 0.1, "conductance_s")
    shifted(set_, 0.06, "gate_v")
    times(set_, 0.25, "offset_sd_v", "gain_sd_ln", "jitter_sd_v")
    if (grow := set_.get("grow")) is not None:
        filament_ohm = 1 / np.array(set_["conductance_s"]) - grow["series_ohm"]
        filament_ohm *= np.exp(0.1 * rng.standard_normal())
        times(grow, 0.08, "series_ohm")
        set_["conductance_s"] = (1 / (grow["series_ohm"] + filament_ohm)).tolist()
        times(grow, 0.25, "cycle_sd_v", "cycle_sd_ln", "cycle_slow_ln", "stir_ln")
    else:
        times(set_, 0.1, "conductance_s")
    times(reset, 0.1, "conductance_s")
    times(reset, 0.25, "offset_sd_v")
    if (law := reset.get("redraw")) is not None:
        times(law, 0.05, "through_v", "on_v")
        times(law, 0.25, "white_ln", "device_ln", "cycle_sd_v", "break_ln", "heal")
    else:
        times(reset, 0.25, "spread_ln", "jitter_sd_v")
    if reset.get("wear") is not None:
        times(reset["wear"], 0.3, "less_ln", "cycles")
    times(content["read"], 0.4, "fraction", "floor_s")
    if content["drift"] is not None:
        factor = float(np.exp(0.2 * rng.standard_normal()))
        content["drift"]["change_s"] = (np.array(content["drift"]["change_s"]) * factor).tolist()
    times(content["stuck"], 0.5, "low_resistance", "high_resistance")
    return DeviceModel.model_validate(content)


def elsewhere(recipe: str, rows: int) -> str:
    """The recipe `rows` rows further down the chip."""

    def lower(found: re.Match[str]) -> str:
        return f"rows = [{int(found[1]) + rows}, {int(found[2]) + rows}]"

    return re.sub(r"rows = \[(\d+), (\d+)\]", lower, recipe)


@dataclass(frozen=True)
class Twin:
    """What a chip was, what was fitted to it, and the other cells' figures on both."""

    truth: DeviceModel
    fitted: DeviceModel
    of_truth: list[Checked]
    of_fitted: list[Checked]
    seconds: tuple[float, float]

    @property
    def score(self) -> float:
        """Figures that the twin passes, over those that the true parameters pass."""
        return passed(self.of_fitted)[0] / passed(self.of_truth)[0]

    @property
    def pulses(self) -> tuple[float, float, float]:
        """Pulses a cell of the last write-verify: measured, of the true parameters, of the twin."""
        measured, truth, fitted = (
            float(np.mean(of[-1].drawn[what]))
            for of, what in (
                (self.of_truth, "measured"),
                (self.of_truth, "predicted"),
                (self.of_fitted, "predicted"),
            )
        )
        return measured, truth, fitted


def command(*words: str | Path) -> None:
    """`rram-hil` with these words. Raises `SystemExit` for a command that fails."""
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        if end.code not in (0, None):
            raise


def twin(truth: DeviceModel, folder: Path, tell: Callable[[str], None], recipe: str = "") -> Twin:
    """Characterise a chip of `truth` over the wire in `folder`, fit, and check on other cells."""
    recipe = recipe or RECIPE.read_text(encoding="utf-8")
    bench = (EXAMPLES / "bench-simulated.toml").read_text(encoding="utf-8")
    bench = bench.replace('device = "hfo2"', 'device = "hidden.toml"')
    target = np.full((1, 32, 32), np.nan)
    target[0, 16:24].flat = np.resize(LEVELS_S, 256)
    np.save(folder / "target.npy", target)
    for name, text in (
        ("hidden.toml", to_toml(truth)),
        ("bench.toml", bench),
        ("mine.recipe.toml", recipe),
        ("other.recipe.toml", elsewhere(recipe, 8)),
        ("verify.recipe.toml", VERIFY),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    began = time.monotonic()
    runs = [folder / f"{name}.h5" for name in ("mine", "other", "verify")]
    for run in runs:
        command(
            *("run", folder / f"{run.stem}.recipe.toml", "--bench", folder / "bench.toml"),
            *("--out", run, "--yes"),
        )
    measured = time.monotonic()
    command("calibrate", "device-model", runs[0], "-o", folder / "twin.toml")
    fitted_at = time.monotonic()
    fitted = DeviceModel.load(str(folder / "twin.toml"))
    checks = [check_files(model, runs[1:]) for model in (truth, fitted)]
    tell(f"{folder}: measured in {measured - began:.0f} s, fitted in {fitted_at - measured:.0f} s")
    return Twin(truth, fitted, *checks, (measured - began, fitted_at - measured))


def main() -> None:
    """Print a table of the chips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="hfo2-measured")
    parser.add_argument("--keep", type=Path, help="folder to work in")
    parser.add_argument("--misses", action="store_true", help="print what the twin misses")
    parser.add_argument("seeds", nargs="*", type=int, default=[1, 2, 3])
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        for seed in told.seeds:
            folder = (told.keep or Path(made)) / f"{told.base}-{seed}"
            folder.mkdir(parents=True)
            found = twin(hidden_model(seed, told.base), folder, print)
            (a, of), (b, _) = passed(found.of_truth), passed(found.of_fitted)
            measured, truth, fitted = found.pulses
            print(
                f"chip {seed}: true parameters {a} of {of}, twin {b}: {found.score:.1%}; pulses a"
                f" cell measured {measured:.2f}, true {truth:.2f}, twin {fitted:.2f}:"
                f" {fitted / truth - 1:+.1%}",
                flush=True,
            )
            for name, checked in (("true", found.of_truth), ("twin", found.of_fitted)):
                for file in checked:
                    for one in file.figures:
                        if told.misses and one.verdict == "miss":
                            print(
                                f"  {name} misses {file.name} {one.figure}: {one.measured:.4g},"
                                f" {one.predicted:.4g} +- {one.allowed:.2g}"
                            )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
