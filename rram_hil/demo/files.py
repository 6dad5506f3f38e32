"""The files of the demonstration: a bench file and a recipe like those a user writes, for either
device preset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rram_hil.networks.mapping import Faults
from rram_hil.studies.devices import DEVICES, Conditions

Device = Literal["paper", "hfo2"]


CONDITIONS: dict[Device, Conditions] = {
    "paper": DEVICES["A"].conditions,
    "hfo2": DEVICES["hfo2"].conditions,
}


@dataclass(frozen=True)
class Plan:
    """One chip of the demonstration: its id, geometry, device, driver and seed, and what is trained
    and tested on it.
    """

    chip: str
    device: Device
    driver: str
    tiles: int
    rows: int
    columns: int
    sample: int
    """Side of the corner of spare cells on which the pulse curves are measured."""
    seed: int
    levels: int
    clip_rms: float
    faults: Faults
    word_fraction: float
    adaptation_steps: int
    adaptation_batch: int
    learning_rate: float
    word_seed: int | None
    """Where the student was trained knowing the places of its words: the seed that says where."""
    log: Literal["all", "summary"]

    @property
    def inputs(self) -> str:
        """Where the networks and images lie, from the chip's folder."""
        return "." if self.chip == FIRST else ".."

    def folder(self, demo: Path) -> Path:
        """The chip's folder: the first chip has the demonstration's own."""
        return demo if self.chip == FIRST else demo / self.chip


FIRST = "paper-1"
WORD_FRACTION, WORD_SEED = 0.03, 0
"""MNIST's words and biases over weights, and the seed that chooses the words: the student is
trained knowing them.
"""
IMAGES = "train.npz"
"""Is written after the test images."""
AWAITED = {"float": "teacher.safetensors", "program student": "student.safetensors"}
"""The first step that needs a network, which is still trained while the chips begin."""
CHECK_IMAGES = 32
"""Training images that are sent through the array to check an arm."""


def plans(seed: int, *, mnist: bool) -> list[Plan]:
    """The chips: one of each preset for the digits, three of `paper` and one of `hfo2` for
    MNIST.
    """
    first = Plan(
        chip=FIRST,
        device="paper",
        driver="simulated-array" if mnist else "test-chip-board",
        tiles=9 if mnist else 3,
        rows=256 if mnist else 128,
        columns=256 if mnist else 128,
        sample=16,
        seed=seed,
        levels=8,
        clip_rms=1.5,
        faults="partner",
        word_fraction=WORD_FRACTION if mnist else 0.05,
        adaptation_steps=1500 if mnist else 400,
        adaptation_batch=128 if mnist else 64,
        learning_rate=0.02 if mnist else 0.05,
        word_seed=WORD_SEED if mnist else None,
        log="summary" if mnist else "all",
    )
    hfo2 = replace(first, chip="hfo2-1", device="hfo2")
    if not mnist:
        return [first, hfo2]
    more = [replace(first, chip=f"paper-{k}", seed=seed + k - 1) for k in (2, 3)]
    # Words for the accuracy of the verified student on held-out training images, on the average of
    # chips; docs/compensation.md says what the test images say.
    return [first, *more, replace(hfo2, word_fraction=0.1, learning_rate=0.005)]


def bench_toml(plan: Plan, *, read_noise: bool = True, driver: str | None = None) -> str:
    """The bench file of a plan: a simulated bench; take `[simulation]` out and give a port, and it
    is a real one.
    """
    return f"""\
[chip]
id = "{plan.chip}"
tiles = {plan.tiles}
rows = {plan.rows}
columns = {plan.columns}
cell = "1T1R"
source_lines = "row"

[driver]
name = "{driver or plan.driver}"

[limits]            # nothing on this bench may pass these
bl_v = 4.5
sl_v = 3.0
wl_v = 4.0
cell_v = 4.5
gate_over_v = 4.0
half_select_v = 0.3
read_v = 0.3        # at or below this a step is a read and wears nothing
current_a = 1e-3
energy_j = 1e-8
width_s = 1e-5
pulses_per_cell = 1000
conductance_s = [0.0, 300e-6]

[read]
bl_v = 0.2
wl_v = 3.0
width_s = 1e-6

[simulation]        # stands in for the hardware
device = "{plan.device}"
seed = {plan.seed}
state = "{plan.chip}.state"
read_noise = {str(read_noise).lower()}

[simulation.timing] # how long the board takes (s); the bench clock adds these up
edge_s = 20e-9
settle_s = 10e-6
conversion_s = 10e-6
multiply_s = 2e-6
word_s = 10e-9
link_s = 1e-3
bytes_per_s = 10e6
"""


def recipe_toml(plan: Plan, *, baselines: bool = True) -> str:
    """The recipe: form and read the array, program the teacher as the baselines do, then the
    student, adapt it, and at last verify it as well. Without `baselines` only the student is
    programmed, on all tiles but the first, and adapted.
    """
    known = CONDITIONS[plan.device]
    third = plan.tiles // 3
    tiles = [list(range(k * third, (k + 1) * third)) for k in range(3)]
    train, test = f"{plan.inputs}/train.npz", f"{plan.inputs}/test.npz"

    def one_shot(name: str, tag: str, network: str, tiles: list[int]) -> str:
        options = (
            f'{{ tiles = {tiles}, levels = {plan.levels}, clip = "rms", rms = {plan.clip_rms},'
            f' faults = "{plan.faults}", g_min_s = {known.g_min_s}, g_max_s = {known.g_max_s} }}'
        )
        return f"""
[[step]]
name = "{name}"
protocol = "one-shot"
tag = "{tag}"
targets = {{ network = "{plan.inputs}/{network}.safetensors", options = {options} }}
reset = {{ sl_v = {known.reset_sl_v}, wl_v = 3.5, width_s = 200e-9 }}

[step.set]          # one pulse; the gate that belongs to each target is taken from the curve measured above
bl_v = 2.0
width_s = 100e-9
"""  # noqa: E501

    def infer(name: str, tag: str, words: bool = True) -> str:
        return f"""
[[step]]
name = "{name}"
protocol = "infer"
tag = "{tag}"
images = "{test}"
calibration = "{train}"
words = {str(words).lower()}
"""

    def check(name: str, tag: str) -> str:
        return f"""
[[step]]            # what a look through the array costs, for every arm
name = "{name}"
protocol = "forward-check"
tag = "{tag}"
data = "{train}"
images = {CHECK_IMAGES}
"""

    head = f"""\
title = "demonstration on {plan.device}, chip {plan.chip}"
seed = {plan.seed}
log = "{plan.log}"

[[step]]
name = "form"
protocol = "forming"
bl_v = {{ start_v = 2.4, stop_v = 4.0, step_v = 0.1 }}
wl_v = [2.0, 2.4]
width_s = 1e-6
formed_above_s = 30e-6

[[step]]
name = "read the formed array"
protocol = "read-map"
by = "codes"

[[step]]
name = "measure pulse curves"
protocol = "pulse-curves"
cells = {{ tiles = [0], rows = [0, {plan.sample - 1}], columns = [{plan.columns - plan.sample}, {plan.columns - 1}] }}
set_gate_v = {{ start_v = {known.set_gate_v[0]}, stop_v = {known.set_gate_v[1]}, points = 31 }}
reset_sl_v = {{ start_v = {known.reset_from_v}, stop_v = {known.reset_sl_v}, points = 31 }}

[[step]]
name = "float"
protocol = "reference"
network = "{plan.inputs}/teacher.safetensors"
images = "{test}"
"""  # noqa: E501
    adapt = f"""
[[step]]
name = "adapt student"
protocol = "sparse-adaptation"
tag = "student"
data = "{train}"
teacher = "{plan.inputs}/teacher.safetensors"
fraction = {plan.word_fraction}
steps = {plan.adaptation_steps}
batch = {plan.adaptation_batch}
learning_rate = {plan.learning_rate}
map_by = "codes"
"""
    if plan.word_seed is not None:
        adapt += f"word_seed = {plan.word_seed}\n"
    own = tiles[2] if baselines else list(range(1, plan.tiles))
    student = one_shot("program student", "student", "student", own)
    if not baselines:
        parts = infer("infer student", "student"), adapt, infer("infer adapted", "student")
        return "".join((head, student, *parts))
    return "".join(
        (
            head,
            one_shot("program teacher", "teacher", "teacher", tiles[0]),
            infer("infer one-shot", "teacher"),
            baseline(plan.device, "verify teacher", "teacher", "cells"),
            check("check verified", "teacher"),
            infer("infer verified", "teacher"),
            one_shot("program teacher again", "again", "teacher", tiles[1]),
            baseline(plan.device, "verify teacher by codes", "again", "codes"),
            infer("infer verified by codes", "again"),
            student,
            infer("infer student", "student"),
            adapt,
            check("check adapted", "student"),
            infer("infer adapted", "student"),
            baseline(plan.device, "verify student", "student", "cells"),
            infer("infer verified student", "student", words=False),
        )
    )


def baseline(device: Device, name: str, tag: str, by: Literal["cells", "codes"]) -> str:
    """The step that compensation is compared with, frozen: read-verify-write of all cells, with one
    single reading after each pulse (R-V-W) or with one coded reading of all of them (coded R-V-W).
    """
    known = CONDITIONS[device]
    return f"""
[[step]]
name = "{name}"
protocol = "write-verify"
tag = "{tag}"
tolerance = 0.05
tolerance_s = 0.5e-6
lowest_s = {known.accept_below_s}
max_pulses = {known.max_pulses}
max_reversals = {known.max_reversals}
verify_by = "{by}"

[step.set]          # each cell starts a little below its target, then 20 mV more a pulse
amplitude_v = {{ start_v = 2.0, stop_v = 2.0 }}
width_s = 100e-9
gate_v = {{ start_v = 1.5, stop_v = 3.2, step_v = 0.02, aim = 0.8, curve = "set" }}

[step.reset]
gate_v = {{ start_v = 3.5, stop_v = 3.5 }}
width_s = 200e-9
amplitude_v = {{ start_v = 0.4, stop_v = 2.4, step_v = 0.02, aim = 1.3, curve = "reset" }}
"""
