"""The demonstration: the main job end to end, without hardware: `rram-hil demo`.

It trains a teacher and a student, writes a bench file and a recipe as a user would, runs the recipe on a simulated
chip, and reads the table back from the run file.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rram_hil.bench import Bench
from rram_hil.bench_file import parse_bench_file
from rram_hil.cells import IntArray
from rram_hil.demo.files import Device, Plan, bench_toml, recipe_toml
from rram_hil.demo.table import ChipResult, chip_result, mean_rows
from rram_hil.engine import Watcher
from rram_hil.errors import ConfigError
from rram_hil.inference import drive, infer
from rram_hil.mapping import word_operation
from rram_hil.network import Float32, Network
from rram_hil.programmed import Programmed
from rram_hil.run import RunOutcome, run_recipe

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What the recipe needs from training."""

    name: str
    teacher: Network
    student: Network
    train_images: Float32
    train_labels: IntArray
    test_images: Float32
    test_labels: IntArray


@dataclass(frozen=True)
class WireCheck:
    """Inference of the same images through the wire and in the process, on the same chip state, read noise off."""

    images: int
    same_predictions: int
    wire_seconds: float


@dataclass(frozen=True)
class Demo:
    """What a demonstration found, by device preset, and where its files are."""

    folder: Path
    data: str
    results: dict[Device, list[ChipResult]]
    wire: WireCheck | None
    seconds: float


def run_demo(
    out: Path | None = None,
    data: Path | None = None,
    seed: int = 1,
    *,
    watcher: Callable[[], Watcher] = Watcher,
    training: Callable[[float, str], None] | None = None,
    tell: Tell = print,
) -> Demo:
    """Run the demonstration into `out` (default: a new folder), with the digits of scikit-learn or MNIST from `data`.

    Raises `ConfigError` where `out` is not empty, `DataError` for unusable data.
    """
    started = time.monotonic()
    folder = _new_folder(out)
    trained = _train(data, seed, training)
    _write_inputs(folder, trained)
    results: dict[Device, list[ChipResult]] = {}
    wire: WireCheck | None = None
    for plan in plans(trained, seed, mnist=data is not None):
        chip_folder = folder if plan.chip == "demo-paper-1" else folder / plan.chip
        chip_folder.mkdir(exist_ok=True)
        if chip_folder != folder:
            _write_inputs(chip_folder, trained)
        tell(
            f"\nchip {plan.chip}: {plan.tiles} tiles of {plan.rows} x {plan.columns}, device {plan.device}, {plan.driver}"
        )
        (chip_folder / "bench.toml").write_text(bench_toml(plan), encoding="utf-8")
        (chip_folder / "recipe.toml").write_text(recipe_toml(plan), encoding="utf-8")
        run_file = chip_folder / "run.h5"
        outcome = run_recipe(chip_folder / "recipe.toml", chip_folder / "bench.toml", run_file, watcher=watcher())
        results.setdefault(plan.device, []).append(chip_result(run_file))
        if data is not None and wire is None:
            wire = _check_wire(chip_folder, plan, outcome, trained, tell)
    demo = Demo(folder, trained.name, results, wire, time.monotonic() - started)
    write_summary(demo, seed)
    return demo


def plans(trained: Trained, seed: int, *, mnist: bool) -> list[Plan]:
    """The chips of the demonstration: one of each preset for the digits, three of `paper` and one of `hfo2` for MNIST."""
    first = Plan(
        chip="demo-paper-1",
        device="paper",
        driver="simulated-array" if mnist else "test-chip-board",
        tiles=6 if mnist else 2,
        rows=256 if mnist else 128,
        columns=256 if mnist else 128,
        seed=seed,
        levels=8,
        clip_rms=1.5,
        faults="none",
        word_fraction=0.05,
        adaptation_steps=100 if mnist else 20,
        adaptation_batch=128 if mnist else 64,
        learning_rate=0.02 if mnist else 0.05,
        log="summary" if mnist else "all",
    )
    more = [replace(first, chip=f"demo-paper-{k}", seed=seed + k - 1) for k in (2, 3)] if mnist else []
    return [first, *more, replace(first, chip="demo-hfo2-1", device="hfo2")]


def _check_wire(
    folder: Path, plan: Plan, outcome: RunOutcome, trained: Trained, tell: Tell, images: int = 1000
) -> WireCheck:
    """Infer the same images in the process and through the simulated board, on the chip as the run left it."""
    programmed = outcome.shared["student"]
    assert isinstance(programmed, Programmed)
    network, encoding, words = programmed.network, programmed.encoding, programmed.words
    assert network is not None
    assert encoding is not None
    assert words is not None
    found, wire_seconds = [], 0.0
    for driver in ("simulated-array", "test-chip-board"):
        tables = tomllib.loads(bench_toml(plan, read_noise=False, driver=driver))
        tell(f"inference of {images} images, read noise off, driver {driver}")
        started = time.monotonic()
        with Bench.open(parse_bench_file(tables, path=folder / "bench.toml")) as bench:
            bench.do(word_operation(programmed.mapping, words))
            work = infer(network, programmed.mapping, encoding, trained.test_images[:images], words)
            found.append(drive(work, bench.do))
        wire_seconds = time.monotonic() - started
    return WireCheck(images, int(np.sum(found[0].classes == found[1].classes)), wire_seconds)


def _new_folder(out: Path | None) -> Path:
    if out is None:
        number = 1
        while (folder := Path(f"rram-hil-demo-{number}")).exists():
            number += 1
    else:
        folder = out
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"--out {folder}: exists and is not an empty folder; give another")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _train(data: Path | None, seed: int, progress: Callable[[float, str], None] | None) -> Trained:
    from rram_hil import learning

    noise = learning.DeviceNoise()
    if data is None:
        train, test = learning.digits(seed=0)
        # Digits of 8 x 8 pixels bear less change than MNIST's, and so few of them more rounds.
        changes = learning.Augmentation(shift=0.6, rotation=8.0, zoom=0.08, shear=0.08)
        teacher = learning.train_teacher(
            learning.digits_net(seed),
            train,
            epochs=60,
            batch=32,
            learning_rate=5e-3,
            augmentation=changes,
            seed=seed,
            progress=progress,
        )
        student = learning.distil(
            teacher,
            teacher,
            train,
            noise,
            epochs=60,
            batch=64,
            learning_rate=1e-2,
            augmentation=changes,
            seed=seed,
            progress=progress,
        )
        name = f"scikit-learn digits, {len(train)} training and {len(test)} test images"
    else:
        train, test = learning.mnist(data)
        teacher = learning.train_teacher(learning.lenet5(seed), train, seed=seed, progress=progress)
        student = learning.distil(teacher, teacher, train, noise, seed=seed, progress=progress)
        name = f"MNIST, {len(train)} training and {len(test)} test images, LeNet-5"
    networks = {"teacher": Network.from_torch(teacher), "student": Network.from_torch(student)}
    keep = 20_000
    return Trained(
        name,
        networks["teacher"],
        networks["student"],
        train.images[:keep],
        train.labels[:keep],
        test.images,
        test.labels,
    )


def _write_inputs(folder: Path, trained: Trained) -> None:
    trained.teacher.save(folder / "teacher.safetensors")
    trained.student.save(folder / "student.safetensors")
    for name, images, labels in (
        ("train", trained.train_images, trained.train_labels),
        ("test", trained.test_images, trained.test_labels),
    ):
        np.savez_compressed(folder / f"{name}.npz", images=np.rint(images * 255).astype(np.uint8), labels=labels)


def write_summary(demo: Demo, seed: int) -> None:
    """Write summary.json: `rows` of the preset `paper` (mean over its chips), and everything by preset and chip."""
    devices = {}
    for device, chips in demo.results.items():
        devices[device] = {
            "rows": [row.plain() for row in mean_rows(chips)],
            "chips": [
                {
                    "run_file": str(chip.path.relative_to(demo.folder)),
                    "rows": [row.plain() for row in chip.rows],
                    "one_shot_sigma": chip.programming.sigma,
                    "one_shot_mean_error": chip.programming.mean,
                    "compensation": {
                        "write_verify_s": chip.cost.write_verify_s,
                        "adaptation_s": chip.cost.adaptation_s,
                        "map_read_s": chip.cost.map_read_s,
                        "forward_s": chip.cost.forward_s,
                        "word_write_s": chip.cost.word_write_s,
                        "forward_images": chip.cost.forward_images,
                        "forward_vectors": chip.cost.forward_vectors,
                        "ratio": chip.cost.ratio,
                    },
                }
                for chip in chips
            ],
        }
    summary = {
        "data": demo.data,
        "seed": seed,
        "clock": "virtual",
        "rows": devices["paper"]["rows"],
        "devices": devices,
        "wire_check": None if demo.wire is None else vars(demo.wire),
    }
    (demo.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
