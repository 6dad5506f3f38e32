"""The demonstration: the main job end to end, without hardware: `rram-hil demo`.

It trains a teacher and a student, writes bench files and recipes as a user would, runs them on
simulated chips, and reads every number of its table back from the run files.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from rram_hil.demo.chips import side_by_side
from rram_hil.demo.files import plans
from rram_hil.demo.present import Demo, prepare_page, show, write_page, write_summary
from rram_hil.demo.progress import Bars
from rram_hil.demo.training import load, teach, write_network
from rram_hil.errors import ConfigError
from rram_hil.terminal.console import Output

WIRE_IMAGES = 1000


def run_demo(
    out: Path | None = None,
    data: Path | None = None,
    seed: int = 1,
    output: Output | None = None,
    threads: int | None = None,
) -> Demo:
    """Run the demonstration into `out` (default: a new folder), on scikit-learn's digits or on
    MNIST's IDX files in `data`.

    The digits' chips stand behind the simulated board's wire. MNIST's are simulated in the process,
    and 1,000 of its images also go through the wire. Training uses `threads`, by default as many as
    it is worth. Raises `ConfigError` where `out` is not empty,
    `DataError` for unusable data.
    """
    output = output or Output()
    started = time.monotonic()
    folder = _new_folder(out)
    is_mnist = data is not None
    chips, wire_images = plans(seed, mnist=is_mnist), WIRE_IMAGES if is_mnist else 0
    with (
        Bars() as bars,
        side_by_side(chips, folder, wire_images, bars.step, threads or 1) as running,
    ):

        def told(fraction: float, text: str) -> None:
            bars.training(fraction, text)
            running.look()

        images = load(data)
        images.write(folder)
        teach(images, seed, partial(write_network, folder), told, threads)
        prepare_page()
        runs = running.results()
    demo = Demo(
        folder,
        images.name,
        len(images.test),
        seed,
        tuple(runs),
        time.monotonic() - started,
    )
    write_summary(demo)
    write_page(demo)
    show(demo, output)
    return demo


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
