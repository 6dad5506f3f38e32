"""Inference of LeNet-5 and of a VGG with batch norm from a stored map, as a multiple of torch's own
forward on one thread, each with its bar; and the same weights in NumPy in floating point.

Ratios are of medians over alternating runs, in seconds of processor time. A map is multiplied by in
twice the work of its weights, since both columns of a pair are converted on their own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
import torch
from torch import nn

from rram_hil.array import Geometry, drive
from rram_hil.learning import lenet5
from rram_hil.networks.inference import StoredMap, calibrate, infer
from rram_hil.networks.mapping import MappingOptions, map_network
from rram_hil.networks.network import Network, forward

ROUNDS = 7
BARS = {"LeNet-5": 1.3, "VGG": 1.5}


def vgg(widths: tuple[int, ...] = (64, 128, 256)) -> nn.Sequential:
    """Two convolutions of 3 x 3 with batch norm at each width, for 3 x 32 x 32 images."""
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        for inputs in (channels, width):
            convolution = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
    head = [nn.Flatten(), nn.Linear(16 * channels, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, *head).eval()


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(name: str, module: nn.Module, tiles: int, images: np.ndarray) -> None:
    """Print the ratios of one network."""
    network = Network.from_torch(module)
    options = MappingOptions(g_min_s=1e-6, g_max_s=100e-6)
    mapping = map_network(network.weights, Geometry(tiles, 256, 256), options)
    encoding = calibrate(network, mapping, images[:16])
    stored = StoredMap(np.nan_to_num(mapping.target_map_s))
    tensor = torch.from_numpy(images)

    def in_torch() -> None:
        with torch.no_grad():
            module(tensor)

    works: tuple[Callable[[], object], ...] = (
        in_torch,
        lambda: drive(infer(network, mapping, encoding, images), stored),
        lambda: forward(network, images),
    )
    runs = [[seconds(work) for work in works] for _ in range(ROUNDS + 1)]
    plain, mapped, floating = (statistics.median(c) for c in zip(*runs[1:], strict=True))
    print(
        f"{name:8s} torch {1e3 * plain / len(images):6.3f} ms an image; stored map"
        f" {mapped / plain:.2f} x (bar {BARS[name]}), NumPy in floating point"
        f" {floating / plain:.2f} x"
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    compare("LeNet-5", lenet5().eval(), 3, random.random((1000, 1, 28, 28), dtype=np.float32))
    compare("VGG", vgg(), 80, random.random((50, 3, 32, 32), dtype=np.float32))


if __name__ == "__main__":
    main()
