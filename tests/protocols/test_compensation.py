"""Compensation over the bench: a map by codes, words from the host, no pulse; again as the array
relaxes.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="word training needs the extra [torch]")

from compensated import (
    PROGRAMMED,
    accuracies,
    adapt,
    infer,
    prepared,
    run,
    step_counts,
    train_digits,
)

from rram_hil import learning
from rram_hil.array import Operation, Result, WriteWords
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.engine.engine import Watcher
from rram_hil.errors import AbortedError, ConfigError
from rram_hil.networks.mapping import LayerWords
from rram_hil.networks.network import Conv2d, Flatten, Network
from rram_hil.networks.programmed_network import Programmed
from rram_hil.networks.word_costs import multiplies, word_costs
from rram_hil.protocols.forward_check import CheckSummary
from rram_hil.protocols.sparse_adaptation import SparseAdaptation
from rram_hil.storage.run_reader import read_run

CHECK = """
[[step]]
name = "look"
protocol = "forward-check"
data = "train.npz"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of the digits and its images."""
    return train_digits(tmp_path_factory.mktemp("digits"))


@pytest.mark.long
def test_adaptation_reads_by_codes_and_gives_no_pulse(trained: Path) -> None:
    recipe = infer("before") + adapt("adapt") + infer("after")
    _, path = run(trained, recipe)
    counts = step_counts(path)["adapt"]
    assert counts == {"pulses": 0, "reads": 0, "operations": 2}
    before, after = accuracies(path, "before", "after")
    assert after > before
    with read_run(path) as file:
        table = file.operations()
        step = [str(name) for name in file.table("steps")["name"]].index("adapt") + 1
        assert list(table["kind"][table["step"] == step]) == ["CodedRead", "WriteWords"]
        words = int(file.result("adapt", "on_chip_words").values)
        digital = int(file.result("adapt", "on_chip_digital").values)
        fraction = float(file.result("adapt", "on_chip_fraction").values)
    assert fraction == (words + digital) / 3660


@pytest.mark.long
def test_words_sit_where_the_recipe_says(trained: Path) -> None:
    ways: dict[str, dict[str, object]] = {
        "important": {"choice": '"importance"', "mac_share": 0.02, "scales": "true"},
        "layers": {"choice": '"layers"'},
        "none": {"choice": '"none"', "scales": "true"},
    }
    recipe = infer("before")
    for name, keys in ways.items():
        recipe += adapt(name, **keys) + infer(f"after {name}")
    _, path = run(trained, recipe)
    before, *after = accuracies(path, "before", *(f"after {name}" for name in ways))
    assert min(after) > before
    with read_run(path) as file:

        def result(step: str, name: str) -> np.ndarray:
            return np.asarray(file.result(step, name).values)

        assert 0 < result("important", "on_chip_mac_share") <= 0.02
        assert result("important", "on_chip_digital") == 2 * (12 + 24 + 10)
        assert result("layers", "words_0").size == 12 * 9
        assert result("layers", "on_chip_digital") == 12 + 24 + 10
        assert result("none", "on_chip_words") == 0
        assert result("none", "on_chip_mac_share") == 0


def test_random_words_cannot_do_less_than_their_share(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"mac_share: 0\.01 is below fraction 0\.05"):
        run(trained, adapt("adapt", mac_share=0.01))


@pytest.mark.long
def test_the_array_relaxes_and_is_adapted_again_without_a_pulse(trained: Path) -> None:
    recipe = adapt("adapt at once") + infer("at once")
    waits = {"1 s": 1, "1 hour": 3600, "1 day": 86400, "10 years": 315_360_000}
    for name, seconds in waits.items():
        recipe += f"""
[[step]]
name = "wait {name}"
protocol = "wait"
seconds = {seconds}
"""
        recipe += adapt(f"adapt {name}") + infer(f"after {name}")
    _, path = run(trained, recipe)
    counts = step_counts(path)
    assert all(counts[f"adapt {name}"]["pulses"] == 0 for name in waits)
    at_once, *later = accuracies(path, "at once", *(f"after {name}" for name in waits))
    assert min(later) > at_once - 0.03


def test_cells_are_read_singly_where_the_recipe_says_so(trained: Path) -> None:
    _, path = run(trained, adapt("adapt", map_by='"cells"'))
    assert step_counts(path)["adapt"]["reads"] == 7320


@pytest.mark.long
def test_a_look_through_the_array_finds_offsets_and_takes_them_into_the_biases(
    trained: Path,
) -> None:
    check = """
[[step]]
name = "{name}"
protocol = "forward-check"
data = "train.npz"
correct_biases = {correct}
"""
    recipe = (
        adapt("adapt")
        + check.format(name="look", correct="true")
        + check.format(name="look again", correct="false")
    )
    outcome, _ = run(trained, recipe, offset=0.02)
    looked, again = (summary for name, summary in outcome.steps if name.startswith("look"))
    assert isinstance(looked, CheckSummary)
    assert isinstance(again, CheckSummary)
    assert looked.corrected == 10
    assert again.difference < looked.difference


@pytest.mark.long
def test_adapting_one_network_leaves_the_words_of_another_on_the_chip(trained: Path) -> None:
    place = PROGRAMMED[PROGRAMMED.rindex("[[step]]") :]
    other = place.replace("options = {", "options = { tiles = [1],").replace(
        'protocol = "one-shot"', 'name = "program other"\nprotocol = "one-shot"\ntag = "other"'
    )
    again = place.replace(
        'protocol = "one-shot"', 'name = "program again"\nprotocol = "one-shot"\ntag = "again"'
    )
    look = """
[[step]]
name = "{name}"
protocol = "forward-check"
data = "train.npz"
"""
    recipe = adapt("adapt") + look.format(name="look") + other + adapt("adapt other", tag='"other"')
    # Programmed over: its words go with it.
    recipe += look.format(name="look again") + again + adapt("adapt again", tag='"again"')
    outcome, path = run(trained, recipe, tiles=2)
    looked, later = (summary for name, summary in outcome.steps if name.startswith("look"))
    assert isinstance(looked, CheckSummary)
    assert isinstance(later, CheckSummary)
    assert later.difference == pytest.approx(looked.difference, abs=0.02)
    with read_run(path) as file:
        table = file.operations()
        written = table["cells"][table["kind"] == "WriteWords"]
    assert list(written) == [written[0], 2 * written[0], 2 * written[0]]
    network, replaced = outcome.shared["network"], outcome.shared["other"]
    assert isinstance(network, Programmed)
    assert isinstance(replaced, Programmed)
    assert network.words is None
    assert replaced.words is not None


def test_words_are_counted_with_what_is_trained_beside_them() -> None:
    network = Network.from_torch(learning.lenet5(1))
    indices = np.arange(100)
    few = LayerWords(indices, np.ones(100, np.int32), 0.1, np.ones(6, np.int32), 0.1)
    names = [layer.name for layer in network.weighted]
    seeded = word_costs(network, {names[0]: few}, (1, 28, 28), 8, seeded=True)
    assert (seeded.words, seeded.digital) == (100, 6)
    assert seeded.fraction == 106 / 61_470
    assert seeded.bits == 106 * 8
    placed = word_costs(network, {names[0]: few}, (1, 28, 28), 8, seeded=False)
    assert placed.bits == 106 * 8 + 150, "a bitmap of 150 weights is smaller than 100 indices"
    uses = multiplies(network, np.zeros((1, 1, 28, 28), np.float32))
    whole = sum(int(np.prod(layer.weight_shape)) * uses[layer.name] for layer in network.weighted)
    assert seeded.mac_share == 100 * uses[names[0]] / whole
    assert uses[names[0]] == 28 * 28


def test_a_permuted_network_is_programmed_read_compensated_and_inferred(trained: Path) -> None:
    recipe = infer("before") + adapt("adapt", choice='"importance"') + infer("after")
    permuted = PROGRAMMED.replace('faults = "partner"', 'faults = "permute"')
    outcome, path = run(trained, recipe, programmed=permuted)
    before, after = accuracies(path, "before", "after")
    assert after > max(before, 0.8)
    on = outcome.shared["network"]
    assert isinstance(on, Programmed)
    assert on.map_s is not None
    order_bits = on.mapping.order_bits
    assert order_bits > 500
    words = dict(on.words or {})
    counted = word_costs(on.topology(), words, (1, 8, 8), 8, seeded=False)
    with read_run(path) as file:
        assert int(file.result("one-shot", "order_bits").values) == order_bits
        assert int(file.result("adapt", "on_chip_bits").values) == counted.bits + order_bits
        held = file.map("weight").values[-1]
        read = file.map("conductance").values[-1]
    assert on.mapping.names == set(words)
    for layer in on.mapping.layers:
        found = np.zeros(layer.outputs * layer.inputs)
        for block in layer.blocks:
            which = held[block.place]
            np.add.at(found, np.abs(which) - 1, np.sign(which) * np.nan_to_num(read[block.place]))
        wanted = on.mapping.effective_weights(read, "zero")[layer.name].ravel()
        np.testing.assert_allclose(found * layer.weight_per_s, wanted, atol=1e-4)


def test_adapters_repair_the_chip_and_are_counted(trained: Path) -> None:
    shapes = {"0": (12, 9), "3": (24, 108), "6": (10, 96)}
    adapters: dict[str, object] = {"choice": '"low-rank"', "fraction": 0.1}
    recipe = infer("before") + adapt("adapt", scales="true", **adapters) + infer("after") + CHECK
    recipe += adapt("zero", rank=1, start='"zero"', **adapters)
    outcome, path = run(trained, recipe)
    assert step_counts(path)["adapt"]["pulses"] == 0
    before, after = accuracies(path, "before", "after")
    assert after > before
    checked = dict(outcome.steps)["look"]
    assert isinstance(checked, CheckSummary)
    assert checked.difference < 0.1, "the host expects what the chip gives, adapters included"
    with read_run(path) as file:
        for step in ("adapt", "zero"):
            values = 0
            for name, (outputs, inputs) in shapes.items():
                assert file.result(step, f"words_{name}").values.size == 0
                inward = file.result(step, f"adapter_in_{name}").values
                outward = file.result(step, f"adapter_out_{name}").values
                assert inward.shape[1:] == (inputs,)
                assert outward.shape == (outputs, len(inward))
                assert max(np.abs(inward).max(), np.abs(outward).max()) <= 127
                values += inward.size + outward.size
            words = int(file.result(step, "on_chip_words").values)
            digital = int(file.result(step, "on_chip_digital").values)
            assert words == values
            assert int(file.result(step, "on_chip_bits").values) == 8 * (words + digital)
            assert float(file.result(step, "on_chip_fraction").values) == (words + digital) / 3660
        assert words == sum(outputs + inputs for outputs, inputs in shapes.values())
        uses = {"0": 64, "3": 4, "6": 1}
        whole = sum(math.prod(shapes[name]) * uses[name] for name in shapes)
        taken = sum(sum(shapes[name]) * uses[name] for name in shapes)
        assert float(file.result("zero", "on_chip_mac_share").values) == taken / whole


def test_a_rank_without_adapters_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match='rank: choice = "random" has no adapters'):
        run(trained, adapt("adapt", rank=1))


def test_adapters_of_two_bits_are_refused() -> None:
    with pytest.raises(ConfigError, match="word_bits: the values of adapters need at least 3 bits"):
        SparseAdaptation(data="train.npz", choice="low-rank", word_bits=2)
    SparseAdaptation(data="train.npz", choice="random", word_bits=2)


def test_a_grouped_convolution_is_not_trained_through_the_array(trained: Path) -> None:
    rng = np.random.default_rng(1)
    layers = (Conv2d(name="c", inputs=2, outputs=4, kernel=(3, 3), groups=2), Flatten(name="f"))
    weights = {"c": rng.normal(size=(4, 1, 3, 3)).astype(np.float32)}
    Network(layers, weights).save(trained / "grouped.safetensors")
    programmed = PROGRAMMED.replace("net.safetensors", "grouped.safetensors")
    with pytest.raises(ConfigError, match="no grouped convolution, as layer c is"):
        run(trained, adapt("adapt", forward='"array"'), programmed=programmed)


class StopAfterWords(Watcher):
    """Aborts as soon as the words are on the chip."""

    def operation(self, operation: Operation, result: Result, charge: object) -> None:
        if isinstance(operation, WriteWords):
            raise AbortedError("cut")


@pytest.mark.long
def test_a_resumed_run_takes_its_adapters_from_the_journal(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = adapt("adapt", choice='"low-rank"', fraction=0.1) + infer("after")
    for name in ("whole", "cut"):  # the same chip in both
        shutil.copytree(trained, tmp_path / name, ignore=shutil.ignore_patterns("run-*"))
    _, whole = run(tmp_path / "whole", recipe)
    files = prepared(tmp_path / "cut", PROGRAMMED + recipe, state="chip.state")
    with pytest.raises(AbortedError):
        run_recipe(*files, watcher=StopAfterWords())
    monkeypatch.delattr(learning, "train_words")
    run_recipe(*files, resume=True)
    with read_run(whole) as one, read_run(files[2]) as other:
        for name in ("adapter_in_3", "adapter_out_6", "on_chip_words"):
            np.testing.assert_array_equal(
                one.result("adapt", name).values, other.result("adapt", name).values
            )
        same = [file.result("after", "predictions").values for file in (one, other)]
        assert np.mean(same[0] == same[1]) > 0.99, "all but what read noise decides"
