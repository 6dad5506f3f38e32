"""Small runs with every protocol that has a section, on the simulated array, and their pages."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from small_bench import PULSES, WHOLE, bench_toml

from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.report.run_page import run_page
from rram_hil.report.sections import StepView, views_of
from rram_hil.storage.run_state import newest

BENCH = bench_toml("c1", 32, 32, 100_000, limits=WHOLE, simulation='device = "hfo2"\nseed = 3')
EXAMPLES = Path(__file__).parents[2] / "examples"
SET = "set = { bl_v = 2.0, wl_v = 2.6, width_s = 1e-7 }"
RESET = "reset = { sl_v = 2.2, wl_v = 3.5, width_s = 2e-7 }"
FORMING = """
title = "sections"
seed = 1

[[step]]
protocol = "forming"
bl_v = { start_v = 2.4, stop_v = 3.9, step_v = 0.1 }
"""
CHARACTERISED = f"""{FORMING}
[[step]]
protocol = "look"

[[step]]
protocol = "array-statistics"
{SET}
{RESET}

[[step]]
protocol = "dc-sweep"
sample = 4
cycles = 3
width_s = 1e-6
set = {{ start_v = 0.1, stop_v = 1.6, step_v = 0.1, wl_v = 2.6 }}
reset = {{ start_v = 0.1, stop_v = 2.0, step_v = 0.1, wl_v = 3.5 }}

[[step]]
protocol = "pulse-response"
cells = {{ rows = [0, 0] }}
{SET}
{RESET}
set_wl_v = {{ start_v = 2.2, stop_v = 3.0, points = 4 }}
reset_sl_v = {{ start_v = 0.8, stop_v = 2.2, points = 4 }}
potentiation = {{ pulses = 4, bl_v = 2.0, wl_v = 2.1, wl_step_v = 0.1, width_s = 1e-7 }}
depression = {{ pulses = 4, sl_v = 0.8, sl_step_v = 0.2, wl_v = 3.5, width_s = 2e-7 }}

[[step]]
protocol = "endurance"
cells = {{ rows = [0, 0] }}
cycles = 20
{SET}
{RESET}

[[step]]
protocol = "retention"
cells = {{ rows = [2, 4] }}
last_s = 100

[[step]]
protocol = "read-noise"
cells = {{ rows = [2, 4] }}
reads = 64

[[step]]
protocol = "read-disturb"
cells = {{ rows = [2, 4] }}
reads = 30

[[step]]
protocol = "half-select-disturb"
cells = {{ rows = [5, 6], columns = [1, 3] }}
pulse = {{ bl_v = 2.0, wl_v = 2.6, width_s = 1e-7 }}
pulses = 10
"""
PROGRAMMED = f"""{FORMING}
[[step]]
protocol = "pulse-curves"
cells = {{ rows = [0, 3] }}
set_gate_v = {{ start_v = 2.0, stop_v = 3.2 }}
reset_sl_v = {{ start_v = 0.8, stop_v = 2.2 }}

[[step]]
protocol = "one-shot"
targets = {{ network = "net.safetensors", options = {{ g_min_s = 20e-6, g_max_s = 150e-6 }} }}
set = {{ bl_v = 2.0, width_s = 1e-7 }}

[[step]]
protocol = "read-map"
repeat = 4

[[step]]
protocol = "reference"
network = "net.safetensors"
images = "images.npz"

[[step]]
protocol = "infer"
images = "images.npz"
calibration = "images.npz"

[[step]]
protocol = "sparse-adaptation"
data = "images.npz"
steps = 3
batch = 8

[[step]]
protocol = "norm-recalibration"
data = "images.npz"

[[step]]
protocol = "forward-check"
data = "images.npz"
images = 16

[[step]]
protocol = "gradient-programming"
rounds = 2
vectors = 64
{PULSES}

[[step]]
protocol = "write-verify"
max_pulses = 30
read_after = true
{PULSES}

[[step]]
protocol = "ispp"
max_pulses = 8
read_after = true
set = {{ amplitude_v = 2.0, gate_v = 2.0, width_s = 1e-7, step_v = 0.1, stop_v = 3.0 }}
reset = {{ amplitude_v = 2.0, gate_v = 3.5, width_s = 2e-7 }}

[[step]]
protocol = "level-allocation"
"""

SECTIONS = {
    "forming": ["Formed cells against voltage", "Conductance before and after"],
    "look": ["Conductances of the look"],
    "array-statistics": [
        "Distribution of the states",
        "Against a log-normal law",
        "Medians by line",
    ],
    "dc-sweep": [
        "Butterfly, every cell and cycle",
        "Butterfly of one cell",
        "Switching voltages",
        "States",
    ],
    "pulse-response": ["SET against gate", "RESET against source line", "Trains of pulses"],
    "endurance": ["Both states", "Window", "Surviving cells"],
    "retention": [
        "Conductance by level",
        "Mean change by level",
        "Spread of the change by level",
    ],
    "read-noise": [
        "Noise of the cells",
        "Noise against conductance",
        "Power spectrum of quiet cells",
    ],
    "read-disturb": ["Change of conductance", "Conductance of the victims"],
    "half-select-disturb": ["Change of conductance", "Conductance of the victims"],
    "pulse-curves": ["SET curve", "RESET curve"],
    "one-shot": ["Programmed against target", "Error by target", "Distribution of the error"],
    "read-map": ["Histogram of the map", "Distribution of the map", "Programmed against target"],
    "reference": ["Accuracy by class", "Which class was taken for which"],
    "infer": ["Accuracy by class", "Which class was taken for which"],
    "sparse-adaptation": ["Values of the words"],
    "norm-recalibration": ["Scales"],
    "forward-check": ["Outputs, array against host", "Difference of the outputs"],
    "gradient-programming": ["Error of the products", "Error against pulses"],
    "level-allocation": ["Conductance against target", "Levels"],
    "ispp": [
        "Accepted cells against pulses",
        "Pulses of a cell",
        "Programmed against target",
        "Error as accepted and afterwards",
    ],
    "write-verify": [
        "Accepted cells against pulses",
        "Pulses of a cell",
        "Programmed against target",
        "Error as accepted and afterwards",
    ],
}
"""Plots that each protocol's own section has at least."""


def write_run_of(folder: Path, recipe: str, bench: str = BENCH, name: str = "run.h5") -> Path:
    """The run file of a recipe in a folder that gets its files."""
    shutil.copyfile(EXAMPLES / "network.safetensors", folder / "net.safetensors")
    rng = np.random.default_rng(1)
    images = rng.random((40, 24)).astype(np.float32)
    np.savez(folder / "images.npz", images=images, labels=rng.integers(0, 12, 40))
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    (folder / "bench.toml").write_text(bench, encoding="utf-8")
    return run_recipe(folder / "recipe.toml", folder / "bench.toml", folder / name).run_file


def pages(path: Path) -> tuple[list[StepView], str]:
    """The sections of a run, and its whole page."""
    with newest(path) as run:
        views = views_of(run)
        return views, run_page(run, path, views)


VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Sees that every element is closed in order; keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def assert_alone(self) -> None:
        """Nothing is fetched from outside, nothing runs."""
        assert "script" not in self.tags
        for _, name, value in self.attributes:
            if name in ("src", "href", "xlink:href", "srcset"):
                assert value.startswith(("data:image/png;base64,", "data:text/csv;base64,", "#"))
            assert not name.startswith("on")
