"""Images a second of LeNet-5 through a stored map, and through the simulated chip without and with
read noise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rram_hil.array import Geometry, Operation, Result, drive
from rram_hil.learning import lenet5
from rram_hil.networks.inference import StoredMap, calibrate, infer
from rram_hil.networks.mapping import MappingOptions, map_network
from rram_hil.networks.network import Network
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

IMAGES, ROUNDS = 1000, 5


def main() -> None:
    geometry = Geometry(3, 256, 256)
    network = Network.from_torch(lenet5())
    mapping = map_network(network.weights, geometry, MappingOptions(g_min_s=1e-6, g_max_s=100e-6))
    images = np.random.default_rng(0).random((IMAGES, 1, 28, 28), dtype=np.float32)
    encoding = calibrate(network, mapping, images[:64])
    number = 0

    def on(chip: SimulatedChip) -> Callable[[Operation], Result]:
        def do(operation: Operation) -> Result:
            nonlocal number
            number += 1
            return chip.execute(operation, number)

        return do

    def chip(read_noise: bool) -> SimulatedChip:
        simulation = Simulation(device="paper", read_noise=read_noise)
        return SimulatedChip(geometry, simulation, read_v=0.3, chip_id="bench", folder=Path())

    answers = {
        "stored map": StoredMap(np.nan_to_num(mapping.target_map_s)),
        "chip, read noise off": on(chip(False)),
        "chip, read noise on": on(chip(True)),
    }
    for name, answer in answers.items():
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            drive(infer(network, mapping, encoding, images), answer)
            seconds.append(time.perf_counter() - started)
        print(
            f"{name:24s} {IMAGES / statistics.median(seconds):8.0f} images/s (median of {ROUNDS})"
        )


if __name__ == "__main__":
    main()
