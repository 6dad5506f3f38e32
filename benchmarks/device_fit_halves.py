"""How well a fitted device model predicts cells that its fit has not seen: of each measured file a
random half of the cells is fitted, the other half checked; beside it, the measured half itself
taken as the prediction of the other, by the same rule.

    python benchmarks/device_fit_halves.py FILE... [--splits 3] [--first 1] [--seeds 5]
        [--model MODEL] [--keep FOLDER] [--misses]

With `--model` nothing is fitted: that model is checked on each second half. A fit takes minutes;
with `--keep` each split's model is kept, and one that is there already is taken.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from rram_hil.calibration.device_fit.fitting import fit
from rram_hil.calibration.device_fit.measured_files import Measured, read_measured
from rram_hil.calibration.device_fit.prediction import Checked, check_file, check_half, passed
from rram_hil.calibration.device_fit.toml_text import to_toml
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


def _fitted(seen: list[Measured], split: int, keep: Path | None) -> DeviceModel:
    """The model of a split's first half."""
    kept = None if keep is None else keep / f"half-{split}.toml"
    if kept is not None and kept.exists():
        return DeviceModel.load(str(kept))
    model = fit(seen, "half", lambda text: None)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(to_toml(model), encoding="utf-8")
    return model


def main() -> None:
    """Print the figures that pass, a line for each kind of file: model and measured half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="number of the first split")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--keep", type=Path, help="folder of the splits' models")
    parser.add_argument("--misses", action="store_true", help="print what the model misses")
    chosen = parser.parse_args()
    files = [file for path in chosen.files for file in read_measured(path)]
    groups = list(dict.fromkeys(_group(file) for file in files))
    everything = {group: np.zeros(3) for group in (*groups, "all")}
    for split in range(chosen.first, chosen.first + chosen.splits):
        seen, unseen = zip(*(_halves(file, split) for file in files), strict=True)
        if chosen.model is None:
            model = _fitted(list(seen), split, chosen.keep)
        else:
            model = DeviceModel.load(chosen.model)
        found = {group: np.zeros(3) for group in everything}
        missed: list[str] = []
        for k, (mine, other) in enumerate(zip(seen, unseen, strict=True)):
            checks = [
                check_file(model, other, 71 + seed, unseen[:k]) for seed in range(chosen.seeds)
            ]
            missed += [
                f"{other.name} {one.figure}: {one.measured:.4g} measured"
                for check in checks
                for one in check.figures
                if one.verdict == "miss"
            ]
            half = Checked(other.name, other.kind, check_half(mine, other), {})
            good, judged = np.mean([passed([check]) for check in checks], axis=0)
            row = [good, passed([half])[0], judged]
            for group in (_group(other), "all"):
                found[group] += row
        print(f"split {split}: figures that pass, model, measured half, of")
        for group, row in found.items():
            everything[group] += row / chosen.splits
            _print(group, row)
        if chosen.misses:
            for what, times in Counter(missed).items():
                print(f"  missed by {times} of {chosen.seeds} seeds: {what}")
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
