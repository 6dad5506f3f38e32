"""MNIST on chips of the preset `paper`, one-shot and with 3 % of words, beside the float networks.

A teacher and a student (LeNet-5) are trained as `rram-hil demo` trains them, or taken from the
cache folder. Every chip then runs the demonstration's own recipe without its baselines: forming,
pulse curves, one-shot programming, inference, adaptation from a map read by codes, inference. The
choices of that recipe were made on the last 5,000 training images; the test images are only for
this table.

    python benchmarks/mnist_chips.py MNIST_FOLDER CACHE_FOLDER [--chips 10] [--processes 1]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

# Chips share the processors as processes, not as threads.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
import torch
from numpy.typing import NDArray

from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.demo.files import bench_toml, plans, recipe_toml
from rram_hil.demo.training import train
from rram_hil.learning import LabelledImages, accuracy, forward, mnist
from rram_hil.networks.network import Network
from rram_hil.storage.run_reader import read_run

Weights = NDArray[np.float32]
BAR, LEAST_FLOAT = 0.20, 99.40
"""Points (the mean of the chips) below the float network, and what that must reach (per cent)."""
PLAN = replace(plans(1, mnist=True)[0], tiles=4)
"""The demonstration's plan on a smaller chip: one tile for the pulse curves, three for the student.
"""
TRAINED = ("teacher.safetensors", "student.safetensors", "train.npz", "test.npz")


@dataclass(frozen=True)
class Figures:
    """Of one chip: accuracies in per cent, words and biases trained with them, their share of the
    weights in per cent.
    """

    one_shot: float
    adapted: float
    words: int
    digital: int
    fraction: float


def prepare(mnist_folder: Path, cache: Path, seed: int) -> None:
    """Train into `cache` where it lacks a file of the training."""
    if all((cache / name).is_file() for name in TRAINED):
        return
    cache.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    train(mnist_folder, seed).write(cache)
    print(f"trained in {time.monotonic() - started:.0f} s")


def floats(mnist_folder: Path, cache: Path, clip_rms: float) -> dict[str, float]:
    """Accuracies (per cent) in floating point: the teacher, the student, and the student with its
    weights clipped as the mapping clips them.
    """
    _, test = mnist(mnist_folder)
    teacher, student = (Network.load(cache / f"{n}.safetensors") for n in ("teacher", "student"))
    return {
        "teacher": score(teacher, teacher.weights, test),
        "student": score(student, student.weights, test),
        "student, clipped": score(
            student, {n: clipped(w, clip_rms) for n, w in student.weights.items()}, test
        ),
    }


def clipped(weights: Weights, clip_rms: float) -> Weights:
    """Weights cut at `clip_rms` times their root mean square."""
    top = clip_rms * float(np.sqrt(np.mean(np.square(weights))))
    return np.clip(weights, -top, top)


def score(network: Network, weights: Mapping[str, Weights], test: LabelledImages) -> float:
    """Accuracy (per cent) of a network with other weights than its own."""
    model = network.to_torch()
    given = [torch.from_numpy(np.array(w)) for w in weights.values()]
    return 100 * accuracy(lambda images: forward(model, images, given), test)


def on_chip(cache: Path, seed: int) -> Figures:
    """Run the recipe on the chip of that seed; its files go away with their folder."""
    # No chip is called as the demonstration's first: the networks lie one folder up.
    plan = replace(PLAN, chip=f"chip-{seed}", seed=seed)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"{plan.chip}-") as name:
        here = Path(name)
        (here / "bench.toml").write_text(bench_toml(plan), encoding="utf-8")
        (here / "recipe.toml").write_text(recipe_toml(plan, baselines=False), encoding="utf-8")
        run_recipe(here / "recipe.toml", here / "bench.toml", here / "run.h5", threads=1)
        with read_run(here / "run.h5") as run:

            def value(step: str, result: str) -> float:
                return float(run.result(step, result).values)

            return Figures(
                100 * value("infer student", "accuracy"),
                100 * value("infer adapted", "accuracy"),
                int(value("adapt student", "on_chip_words")),
                int(value("adapt student", "on_chip_digital")),
                100 * value("adapt student", "on_chip_fraction"),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mnist", type=Path, help="folder of MNIST's four IDX files")
    parser.add_argument("cache", type=Path, help="folder of the trained networks, made if missing")
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the training")
    parser.add_argument("--processes", type=int, default=1, help="chips that run side by side")
    options = parser.parse_args()
    prepare(options.mnist, options.cache, options.seed)
    reference = floats(options.mnist, options.cache, PLAN.clip_rms)
    for name, value in reference.items():
        print(f"float, {name}: {value:.2f} %")

    print("differences of KD+RSA to: " + "; ".join(reference))
    print("chip  one-shot  KD+RSA  words + biases (of weights)")
    found = []
    seeds = range(1, options.chips + 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool:
        for seed, chip in zip(seeds, pool.map(partial(on_chip, options.cache), seeds), strict=True):
            found.append((chip.one_shot, chip.adapted))
            kept = f"{chip.words} + {chip.digital} ({chip.fraction:.2f} %)"
            gaps = (chip.adapted - value for value in reference.values())
            print(
                f"{seed:4d}  {chip.one_shot:8.2f}  {chip.adapted:6.2f}  {kept:27s}",
                *(f"{gap:+6.2f}" for gap in gaps),
                flush=True,
            )
    table = np.array(found)
    mean, error = table.mean(axis=0), table.std(axis=0, ddof=1) / np.sqrt(len(table))
    print(f"mean  {mean[0]:8.2f}  {mean[1]:6.2f}; standard errors {error[0]:.3f}, {error[1]:.3f}")
    for name in reference:
        own, gap = reference[name], mean[1] - reference[name]
        met = own >= LEAST_FLOAT - 1e-9 and gap >= -BAR - 1e-9
        print(
            f"bar against {name}: {gap:+.3f} point (at least {-BAR}), float {own:.2f} %"
            f" (at least {LEAST_FLOAT:.2f}): {'met' if met else 'missed'}"
        )


if __name__ == "__main__":
    main()
