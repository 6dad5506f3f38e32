"""Norm recalibration on the simulated bench: biases and scales without a pulse."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the network is trained with the extra [torch]")

from compensated import (
    BENCH,
    PROGRAMMED,
    accuracies,
    adapt,
    infer,
    run,
    step_counts,
    train_digits,
)

from rram_hil.array import Operation, Result
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.forecast import plan_recipe
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.engine.engine import Watcher
from rram_hil.errors import AbortedError, ConfigError
from rram_hil.networks.programmed_network import Programmed
from rram_hil.protocols.norm_recalibration import NormRecalibration, RecalibrationSummary
from rram_hil.storage.run_reader import read_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of the digits and its images."""
    return train_digits(tmp_path_factory.mktemp("digits"))


def norms(name: str, **more: object) -> str:
    keys = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f"""
[[step]]
name = "{name}"
protocol = "norm-recalibration"
data = "train.npz"
{keys}"""


def kinds(path: Path, step: str) -> list[str]:
    with read_run(path) as file:
        table = file.operations()
        number = [str(name) for name in file.table("steps")["name"]].index(step) + 1
        return [str(kind) for kind in table["kind"][table["step"] == number]]


def test_each_spread_repairs_a_chip_without_pulse_or_training(trained: Path) -> None:
    spreads = ("l2", "l1", "topk")
    recipe = infer("before")
    for spread in spreads:
        recipe += norms(spread, spread=f'"{spread}"', images=400) + infer(f"after {spread}")
    outcome, path = run(trained, recipe)
    before, *after = accuracies(path, "before", *(f"after {spread}" for spread in spreads))
    assert min(after) > before
    for spread in spreads:
        assert step_counts(path)[spread] == {"pulses": 0, "reads": 0, "operations": 1}
        assert kinds(path, spread) == ["CodedRead"]
        found = dict(outcome.steps)[spread]
        assert isinstance(found, RecalibrationSummary)
        assert (found.digital, found.bits) == (92, 92 * 8)
        assert found.map_vectors > 0 == found.forward_vectors
    with read_run(path) as file:
        assert int(file.result("l1", "on_chip_words").values) == 0
        assert int(file.result("l1", "on_chip_digital").values) == 2 * (12 + 24 + 10)
        assert int(file.result("l1", "on_chip_bits").values) == 92 * 8
        assert int(file.result("l1", "forward_images").values) == 400
        scales = [np.asarray(file.result(s, "scales_0").values) for s in spreads]
    assert scales[0].any()
    assert not np.array_equal(scales[0], scales[1])
    assert not np.array_equal(scales[1], scales[2])


def test_the_clipped_network_is_aimed_at_where_the_mapping_clips(trained: Path) -> None:
    clipped = PROGRAMMED.replace("g_min_s", 'clip = "rms", rms = 1.0, g_min_s')
    recipe = clipped + "".join(
        norms(aim, aim=f'"{aim}"', images=400) for aim in ("clipped", "trained")
    )
    _, path = run(trained, recipe, programmed="")
    with read_run(path) as file:
        near, far = (
            np.abs(np.asarray(file.result(aim, "scales_6").values)).mean()
            for aim in ("clipped", "trained")
        )
    assert near < far, "a layer cut to its root mean square is smaller, not wrong"


def test_the_array_itself_shows_offsets_that_the_map_does_not(trained: Path) -> None:
    ways = {"map": '"map"', "array": '"array"'}
    recipe = "".join(
        norms(f"by {way}", forward=word, images=100) + infer(f"after {way}")
        for way, word in ways.items()
    )
    outcome, path = run(trained, recipe, offset=0.05)
    by_map, by_array = accuracies(path, "after map", "after array")
    assert by_array > by_map
    found = dict(outcome.steps)["by array"]
    assert isinstance(found, RecalibrationSummary)
    assert found.forward_vectors == 100 * (8 * 8 + 2 * 2 + 1)
    assert set(kinds(path, "by array")) == {"CodedRead", "Multiply"}


def test_words_that_are_there_stay_and_are_measured_with_the_array(trained: Path) -> None:
    outcome, path = run(trained, adapt("adapt") + norms("norms", images=200) + infer("after"))
    network = outcome.shared["network"]
    assert isinstance(network, Programmed)
    assert network.words is not None
    with read_run(path) as file:
        for name, words in network.words.items():
            kept = file.result("adapt", f"words_{name}").values
            np.testing.assert_array_equal(words.values, kept)
            assert words.values.size > 0
            assert words.scales is not None
        words_then, words_now = (
            int(file.result(step, "on_chip_words").values) for step in ("adapt", "norms")
        )
    assert words_now == words_then
    assert kinds(path, "norms") == ["CodedRead"], "no word is written again"


class Cut(Watcher):
    """Ends the run after so many operations of a step."""

    def __init__(self, step: str, after: int) -> None:
        self.at, self.left, self.now = step, after, ""

    def step(self, name: str, index: int, total: int) -> None:
        self.now = name

    def operation(self, operation: Operation, result: Result, charge: object) -> None:
        self.left -= self.now == self.at
        if self.left == 0:
            raise AbortedError("cut")


@pytest.mark.long
def test_it_is_forecast_and_goes_on_after_a_cut(trained: Path) -> None:
    steps = norms("norms", forward='"array"', images=60) + infer("after")
    (trained / "cut.toml").write_text(PROGRAMMED + steps, encoding="utf-8")
    tables = tomllib.loads(BENCH)
    tables["chip"]["id"] = "cut"
    tables["simulation"]["state"] = "cut.state"
    bench = parse_bench_file(tables, path=trained / "cut-bench.toml")
    forecast = {step.name: step for step in plan_recipe(trained / "cut.toml", bench).steps}["norms"]
    assert forecast.pulses == forecast.worst_pulses == 0
    assert isinstance(forecast.outcome, RecalibrationSummary)
    assert forecast.vectors == forecast.outcome.map_vectors + forecast.outcome.forward_vectors > 0

    files = (trained / "cut.toml", bench, trained / "cut.h5")
    # Within the map, within the images through the array, and when both are done.
    for resumed, (step, after) in enumerate((("norms", 1), ("norms", 2), ("after", 1))):
        with pytest.raises(AbortedError):
            run_recipe(*files, resume=resumed > 0, watcher=Cut(step, after))
    outcome = run_recipe(*files, resume=True)
    found = dict(outcome.steps)["norms"]
    assert isinstance(found, RecalibrationSummary)
    assert found.forward_vectors == forecast.outcome.forward_vectors
    assert found.digital == 92
    # The computation that was cut began anew; what was done stood in the journal.
    assert kinds(files[2], "norms").count("CodedRead") == 1


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"spread": "l3"}, "spread"),
        ({"largest": 0.2}, 'largest: goes with spread = "topk", not "l2"'),
        ({"spread": "topk", "largest": 0.0}, "largest"),
        ({"images": 1}, "images"),
        ({"steps": 10}, "steps"),
    ],
)
def test_keys_that_cannot_be_are_refused_in_one_line(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        NormRecalibration(data="train.npz", **keys)
    assert "\n" not in str(refused.value)


def test_nothing_programmed_is_told_in_one_line(trained: Path) -> None:
    with pytest.raises(ConfigError, match="'other' was not made by an earlier step"):
        run(trained, norms("norms", tag='"other"'))
