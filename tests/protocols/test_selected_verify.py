"""Write-verify of some weights: which they are, and that no other cell is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="SWIM's second derivatives need the extra [torch]")

from compensated import run

from rram_hil import learning
from rram_hil.array import Geometry, Limits, read_step
from rram_hil.engine.protocol import Compute, Setting
from rram_hil.errors import BenchError, ConfigError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.networks.mapping import MappingOptions, map_network
from rram_hil.networks.network import Network
from rram_hil.networks.programmed_network import Programmed
from rram_hil.protocols.parts.programming import ProgrammingSummary
from rram_hil.protocols.parts.selection import Selection
from rram_hil.storage.run_reader import read_run

CHIP = Geometry(1, 128, 128)
SPAN = Span(-5.0, 5.0)
LIMITS = Limits(
    bl_v=4.0, sl_v=4.0, wl_v=4.0, cell_v=4.0, gate_over_v=4.2, half_select_v=0.5, read_v=0.25,
    current_a=1e-3, energy_j=1e-7, width_s=1e-5, pulses_per_cell=200,
)  # fmt: skip


def a_setting(folder: Path = Path(), seed: int = 0) -> Setting:
    can = Capabilities(SPAN, SPAN, SPAN, Span(1e-8, 1.0))
    return Setting(CHIP, LIMITS, read_step(), can, folder, seed=seed)


def programmed() -> Programmed:
    network = Network.from_torch(learning.digits_net(1))
    mapping = map_network(
        dict(network.weights), CHIP, MappingOptions(), np.full(CHIP.shape, np.nan)
    )
    return Programmed(mapping, np.ones(CHIP.shape, np.bool_), network)


def weights_of(chosen: np.ndarray, on: Programmed) -> np.ndarray:
    """Which weights have both cells among `chosen`, all layers in a row; none has just one."""
    found = []
    for layer in on.mapping.layers:
        first, second = (chosen.ravel()[index] for index in on.mapping.pair_index(layer.name))
        assert np.array_equal(first, second)
        found.append(first.ravel())
    together = np.concatenate(found)
    assert chosen.sum() == 2 * together.sum()
    return together


def selected(choice: Selection, on: Programmed, setting: Setting) -> np.ndarray:
    plan = choice.cells(on, setting)
    reply: Any = None
    try:
        while True:
            message = plan.send(reply)
            assert isinstance(message, Compute)
            reply = message.function(None)  # type: ignore[arg-type]
    except StopIteration as stop:
        return weights_of(stop.value, on)


@settings(max_examples=20, deadline=None)
@given(
    by=st.sampled_from(["magnitude", "random"]), parts=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
def test_a_smaller_fraction_is_part_of_a_larger_one(by: Any, parts: tuple[float, float]) -> None:
    on, setting = programmed(), a_setting()
    few, many = (
        selected(Selection(by=by, fraction=fraction), on, setting) for fraction in sorted(parts)
    )
    assert np.all(many[few])
    assert few.sum() == round(min(parts) * few.size)
    assert many.sum() == round(max(parts) * many.size)


def test_by_magnitude_the_largest_come_first() -> None:
    on = programmed()
    assert on.network is not None
    sizes = np.abs(np.concatenate([w.ravel() for w in on.network.weights.values()]))
    chosen = selected(Selection(by="magnitude", fraction=0.25), on, a_setting())
    assert sizes[chosen].min() >= sizes[~chosen].max()


def test_a_random_choice_is_the_seed_s() -> None:
    on, choice = programmed(), Selection(by="random", fraction=0.5)
    first, again, other = (selected(choice, on, a_setting(seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_swim_takes_the_weights_whose_error_of_conductance_costs_most(trained: Path) -> None:
    on, setting = programmed(), a_setting(trained)
    choice = Selection(by="swim", fraction=0.3, data="train.npz", images=64)
    chosen = selected(choice, on, setting)
    data, _ = learning.digits(seed=0)
    assert on.network is not None
    seed = int(setting.rng("sensitivities").integers(1 << 31))
    found = learning.weight_sensitivities(on.network.to_torch(), data, images=64, seed=seed)
    scale = [layer.weight_per_s for layer in on.mapping.layers]
    cost = np.concatenate([(h * s**2).ravel() for h, s in zip(found, scale, strict=True)])
    assert chosen.sum() == round(0.3 * chosen.size)
    assert cost[chosen].min() >= cost[~chosen].max()


@pytest.mark.parametrize(
    "choice",
    [
        {"fraction": 0.5},
        {"by": "swim"},
        {"by": "magnitude", "data": "train.npz"},
        {"by": "random", "fraction": 1.1},
    ],
)
def test_a_choice_that_contradicts_itself_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fraction|data"):
        Selection.model_validate(choice)


def test_a_bare_map_has_no_weights_to_rank() -> None:
    on = programmed()
    bare = Programmed(
        type(on.mapping)(CHIP, (), on.mapping.target_map_s, on.mapping.stuck_map), on.responsive
    )
    with pytest.raises(ConfigError, match="ranks the weights of a network"):
        selected(Selection(by="magnitude", fraction=0.5), bare, a_setting())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained network of the digits and its images."""
    folder = tmp_path_factory.mktemp("digits")
    data, _ = learning.digits(seed=0)
    Network.from_torch(learning.digits_net(1)).save(folder / "net.safetensors")
    np.savez(folder / "train.npz", images=data.images, labels=data.labels)
    return folder


VERIFY = """
[[step]]
name = "{name}"
protocol = "write-verify"
verify_by = "codes"
max_pulses = 40
read_after = true
select = {{ {select} }}
[step.set]
amplitude_v = {{ start_v = 2.0, stop_v = 2.0 }}
gate_v = {{ start_v = 2.0, stop_v = 3.0, step_v = 0.05 }}
width_s = 100e-9
[step.reset]
amplitude_v = {{ start_v = 0.6, stop_v = 2.5, step_v = 0.05 }}
gate_v = {{ start_v = 3.5, stop_v = 3.5 }}
width_s = 200e-9
"""


def test_only_selected_cells_that_respond_are_pulsed_on_a_chip(trained: Path) -> None:
    swim = 'by = "swim", fraction = 0.2, data = "train.npz", images = 64'
    recipe = VERIFY.format(name="some", select=swim)
    recipe += VERIFY.format(name="none", select='by = "random", fraction = 0.0')
    outcome, path = run(trained, recipe)
    some, none = (summary for name, summary in outcome.steps if name in ("some", "none"))
    assert isinstance(some, ProgrammingSummary)
    assert isinstance(none, ProgrammingSummary)
    on = outcome.shared["network"]
    assert isinstance(on, Programmed)
    with read_run(path) as file:
        pulses, chosen, inside = (
            file.map(name).values[0] for name in ("set_pulses", "selected", "inside")
        )
        pulses = pulses + file.map("reset_pulses").values[0]
    assert chosen.dtype == inside.dtype == np.bool_
    assert weights_of(chosen, on).sum() == some.weights == round(0.2 * 3660)
    assert not pulses[~chosen].any()
    assert not inside[~chosen].any()
    assert not pulses[~on.responsive].any()
    assert some.cells == (chosen & on.responsive).sum() < 2 * some.weights
    assert some.inside > 0.5 * some.cells
    assert (none.weights, none.cells, none.pulses, none.reads) == (0, 0, 0, 0)


def test_ranking_a_map_is_refused_before_anything_moves(trained: Path) -> None:
    np.save(trained / "map.npy", np.full(CHIP.shape, 50e-6))
    recipe = VERIFY.format(name="a map", select='by = "magnitude", fraction = 0.2')
    with pytest.raises(BenchError, match="a map of targets has none"):
        run(trained, recipe.replace("verify_by", 'targets = { map = "map.npy" }\nverify_by'))
