"""How well a fitted device model predicts cells that its fit has not seen: of each measured file a
random half of the cells is fitted, the other half checked; beside it, the measured half itself
taken as the prediction of the other, by the same rule.

    python benchmarks/device_fit_halves.py FILE... [--splits 3] [--seeds 5] [--model MODEL]

With `--model` nothing is fitted: that model is checked on each second half. A fit takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rram_hil.calibration.device_fit.fitting import fit
from rram_hil.calibration.device_fit.measured_files import Measured, read_measured
from rram_hil.calibration.device_fit.prediction import Checked, check_file, check_half, passed
from rram_hil.simulation.model import DeviceModel


def _group(file: Measured) -> str:
    """What a file counts to."""
    if file.kind == "sweep":
        return "RESET sweeps" if file.is_reset else "SET sweeps"
    if file.kind != "write-verify":
        return file.kind
    return "write-verify, fitted" if "wlstep" in file.name else "write-verify, never fitted"


def _halves(file: Measured, split: int) -> tuple[Measured, Measured]:
    """A random half of a file's cells, and the others; files of the same cells have the same."""
    order = np.random.default_rng(split).permutation(file.cells)
    seen = np.isin(file["cell"], order[: order.size // 2])
    return file.part(seen), file.part(~seen)


def main() -> None:
    """Print the figures that pass, a line for each kind of file: model and measured half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    files = [read_measured(path) for path in chosen.files]
    groups = list(dict.fromkeys(_group(file) for file in files))
    everything = {group: np.zeros(3) for group in (*groups, "all")}
    for split in range(1, chosen.splits + 1):
        seen, unseen = zip(*(_halves(file, split) for file in files), strict=True)
        if chosen.model is None:
            model = fit(list(seen), "half", lambda text: None)
        else:
            model = DeviceModel.load(chosen.model)
        found = {group: np.zeros(3) for group in everything}
        for k, (mine, other) in enumerate(zip(seen, unseen, strict=True)):
            checks = [
                passed([check_file(model, other, 71 + seed, unseen[:k])])
                for seed in range(chosen.seeds)
            ]
            half = Checked(other.name, other.kind, check_half(mine, other), {})
            row = [np.mean([good for good, _ in checks]), passed([half])[0], checks[0][1]]
            for group in (_group(other), "all"):
                found[group] += row
        print(f"split {split}: figures that pass, model, measured half, of")
        for group, row in found.items():
            everything[group] += row / chosen.splits
            _print(group, row)
    print(f"mean of {chosen.splits} splits")
    for group, row in everything.items():
        _print(group, row)


def _print(group: str, row: np.ndarray) -> None:
    model, half, judged = row
    print(
        f"  {group:28}{model:7.1f} ({model / judged:4.0%}){half:7.1f} ({half / judged:4.0%})"
        f"{judged:7.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
