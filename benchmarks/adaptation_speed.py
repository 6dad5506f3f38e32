"""What LeNet-5 costs here as a multiple of what it costs in plain torch, each with its bar, on one
thread.

Every ratio is of medians over alternating runs, in seconds of processor time, so that what else the
machine does hardly counts:

- "word step": one step of `train_words` on the host (128 images, 5 % of words, with the teacher's
  classes, inputs of 8 bits) over one step that trains all weights in torch: the same network, batch
  and loss, fused Adam, torch's usual memory layout. Both compute the teacher's classes once for
  each image, here in a quarter of the steps.
- "stored map": inference through a `StoredMap` over the torch module's own forward, batches of 250.
- "noisy chip": the same through the simulated chip with read noise.

Where aihwkit is installed (it is no dependency), its inference tile without and with noise follows.
"""

from __future__ import annotations

import copy
import importlib
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
import torch

from rram_hil.array import Geometry, Operation, Result, drive
from rram_hil.learning import LabelledImages, choose_words, lenet5, train_words
from rram_hil.learning.train import distillation_loss
from rram_hil.networks.inference import StoredMap, calibrate, infer
from rram_hil.networks.mapping import MappingOptions, map_network
from rram_hil.networks.network import Network
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

IMAGES, BATCH, STEPS, ROUNDS = 1000, 128, 40, 7
SEEN = 10 * BATCH
BARS = {"word step": 1.5, "stored map": 1.3, "noisy chip": 3.0}


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(plain: Callable[[], object], *others: Callable[[], object]) -> list[float]:
    """Medians (s) of alternating runs, `plain` first."""
    runs = [[seconds(work) for work in (plain, *others)] for _ in range(ROUNDS + 1)]
    return [statistics.median(column) for column in zip(*runs[1:], strict=True)]


def steps() -> tuple[Callable[[], object], Callable[[], object]]:
    """`STEPS` steps in plain torch, and as many of `train_words`."""
    random = np.random.default_rng(0)
    data = LabelledImages(
        random.random((SEEN, 1, 28, 28), dtype=np.float32), random.integers(0, 10, SEEN)
    )
    student, teacher = lenet5(0), lenet5(1)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    measured = [layer.weight.detach().numpy() for layer in student if hasattr(layer, "weight")]
    masks = choose_words(student, 0.05)

    def plain() -> None:
        model = copy.deepcopy(student)
        optimiser = torch.optim.Adam(model.parameters(), fused=True)
        with torch.no_grad():
            wanted = torch.cat([teacher(part) for part in images.split(BATCH)])
        for _ in range(STEPS):
            chosen = torch.randperm(len(data))[:BATCH]
            loss = distillation_loss(
                model(images[chosen]), wanted[chosen], labels[chosen], temperature=4.0
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def words() -> None:
        train_words(student, measured, masks, data, teacher=teacher, steps=STEPS, batch=BATCH)

    return plain, words


def inference() -> tuple[Callable[[], object], ...]:
    """The module's own forward, through a stored map, and through the noisy chip."""
    geometry = Geometry(3, 256, 256)
    module = lenet5()
    network = Network.from_torch(module)
    mapping = map_network(network.weights, geometry, MappingOptions(g_min_s=1e-6, g_max_s=100e-6))
    images = np.random.default_rng(0).random((IMAGES, 1, 28, 28), dtype=np.float32)
    encoding = calibrate(network, mapping, images[:64])
    stored = StoredMap(np.nan_to_num(mapping.target_map_s))
    chip = SimulatedChip(
        geometry, Simulation(device="paper"), read_v=0.3, chip_id="bench", folder=Path()
    )
    number = 0

    def on_chip(operation: Operation) -> Result:
        nonlocal number
        number += 1
        return chip.execute(operation, number)

    def own() -> None:
        with torch.inference_mode():
            for batch in torch.from_numpy(images).split(250):
                module(batch)

    return (
        own,
        lambda: drive(infer(network, mapping, encoding, images), stored),
        lambda: drive(infer(network, mapping, encoding, images), on_chip),
    )


def in_aihwkit() -> dict[str, Callable[[], object]]:
    """LeNet-5's forward on aihwkit's inference tiles, ideal and noisy."""
    convert = importlib.import_module("aihwkit.nn.conversion").convert_to_analog
    configs = importlib.import_module("aihwkit.simulator.configs")
    images = torch.from_numpy(
        np.random.default_rng(0).random((IMAGES, 1, 28, 28), dtype=np.float32)
    )
    works: dict[str, Callable[[], object]] = {}
    for name, is_perfect in (("aihwkit, ideal tile", True), ("aihwkit, noisy tile", False)):
        config = configs.InferenceRPUConfig()
        config.forward.is_perfect = is_perfect
        module = convert(lenet5(), config).eval()

        def forward(module: torch.nn.Module = module) -> None:
            with torch.inference_mode():
                for batch in images.split(250):
                    module(batch)

        works[name] = forward
    return works


def main() -> None:
    torch.set_num_threads(1)
    plain, words = compare(*steps())
    own, stored, noisy = compare(*inference())
    print(f"a step in torch {plain / STEPS * 1e3:.1f} ms; forward of {IMAGES} {own * 1e3:.0f} ms")
    ratios = {"word step": words / plain, "stored map": stored / own, "noisy chip": noisy / own}
    for name, ratio in ratios.items():
        verdict = "met" if ratio <= BARS[name] else "missed"
        print(f"{name:20s} {ratio:5.2f} x torch, bar {BARS[name]} x: {verdict}")
    if find_spec("aihwkit") is None:
        print("aihwkit is not installed: not compared")
        return
    for name, work in in_aihwkit().items():
        own, other = compare(inference()[0], work)
        print(f"{name:20s} {other / own:5.2f} x torch")


if __name__ == "__main__":
    main()
