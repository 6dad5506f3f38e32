"""A bench of one kind of chip, and the recipe that forms it, measures its pulses and programs
`net.safetensors` on it once.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
from small_bench import WHOLE, bench_toml

from rram_hil.bench.bench_file import BenchFile, parse_bench_file
from rram_hil.bench.recipe_runner import RunOutcome, run_recipe
from rram_hil.networks.network import Network
from rram_hil.storage.run_reader import read_run

BENCH = bench_toml(
    "c",
    128,
    128,
    life=1000,
    limits=f"{WHOLE}conductance_s = [0.0, 300e-6]\nwait_s = 1e9\n",
    simulation='device = "hfo2"\nseed = 1',
)
PROGRAMMED = """
title = "t"
seed = 1
log = "summary"
[[step]]
protocol = "forming"
bl_v = { start_v = 2.4, stop_v = 4.0, step_v = 0.1 }
wl_v = [2.0, 2.4]
width_s = 1e-6
[[step]]
protocol = "pulse-curves"
cells = { tiles = [0], rows = [0, 15], columns = [112, 127] }
set_gate_v = { start_v = 2.0, stop_v = 3.0, points = 31 }
reset_sl_v = { start_v = 0.6, stop_v = 2.2, points = 31 }
[[step]]
protocol = "one-shot"
targets = { network = "net.safetensors", options = { faults = "partner", g_min_s = 20e-6, g_max_s = 200e-6 } }
reset = { sl_v = 2.2, wl_v = 3.5, width_s = 200e-9 }
set = { bl_v = 2.0, width_s = 100e-9 }
"""  # noqa: E501


def train_digits(folder: Path) -> Path:
    """The folder, with a network of the digits and its images."""
    from rram_hil import learning  # needs torch, which users of the rest may lack

    data, test = learning.digits(seed=0)
    changes = learning.Augmentation(shift=0.6, rotation=8.0, zoom=0.08, shear=0.08)
    net = learning.train_teacher(
        learning.digits_net(1),
        data,
        epochs=20,
        batch=64,
        learning_rate=1e-2,
        augmentation=changes,
        seed=1,
    )
    Network.from_torch(net).save(folder / "net.safetensors")
    for name, part in (("train", data), ("test", test)):
        np.savez(folder / f"{name}.npz", images=part.images, labels=part.labels)
    return folder


def adapt(name: str, **more: object) -> str:
    keys = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f"""
[[step]]
name = "{name}"
protocol = "sparse-adaptation"
data = "train.npz"
steps = 150
batch = 64
{keys}"""


def infer(name: str) -> str:
    return f"""
[[step]]
name = "{name}"
protocol = "infer"
images = "test.npz"
calibration = "train.npz"
"""


def run(
    folder: Path,
    recipe: str,
    *,
    offset: float = 0.0,
    tiles: int = 1,
    programmed: str = PROGRAMMED,
) -> tuple[RunOutcome, Path]:
    """Program the network, then do `recipe`; column amplifiers are off by `offset` full scales."""
    files = prepared(folder, programmed + recipe, offset=offset, tiles=tiles)
    return run_recipe(*files), files[2]


def prepared(
    folder: Path, recipe: str, *, offset: float = 0.0, tiles: int = 1, state: str | None = None
) -> tuple[Path, BenchFile, Path]:
    """The files of a run of `recipe`: that, bench file and where its run file goes. With a file for
    its `state` the chip outlives the run.
    """
    path = folder / f"run-{len(list(folder.glob('run-*.h5')))}.h5"
    (path.with_suffix(".toml")).write_text(recipe)
    tables = tomllib.loads(BENCH)
    tables["chip"] |= {"id": path.stem, "tiles": tiles}
    tables["simulation"]["errors"] = {"column_offset": [offset, 0.0] * 64} if offset else {}
    if state is not None:
        tables["simulation"]["state"] = state
    bench = parse_bench_file(tables, path=folder / f"{path.stem}-bench.toml")
    return path.with_suffix(".toml"), bench, path


def accuracies(path: Path, *steps: str) -> list[float]:
    with read_run(path) as file:
        return [float(file.result(step, "accuracy").values) for step in steps]


def step_counts(path: Path) -> dict[str, dict[str, int]]:
    with read_run(path) as file:
        steps = file.table("steps")
        return {
            str(name): {what: int(steps[what][k]) for what in ("pulses", "reads", "operations")}
            for k, name in enumerate(steps["name"])
        }
