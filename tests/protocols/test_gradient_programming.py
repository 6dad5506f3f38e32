"""Gradient-descent programming: with an invented array that does what it is told, and beside
write-verify on simulated chips.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shuffled import shuffled
from small_bench import AIMED_PULSES, WHOLE, bench_toml

from rram_hil.array import Apply, ApplyResult, Geometry, Limits, Multiply, Status, read_step
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.recipe_runner import RunOutcome, run_recipe
from rram_hil.engine.protocol import Compute, Progress, Save, Setting
from rram_hil.errors import ConfigError, LimitError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.networks.inference import StoredMap
from rram_hil.networks.layers import Linear
from rram_hil.networks.mapping import Mapping, MappingOptions, map_network
from rram_hil.networks.network import Network
from rram_hil.networks.programmed_network import Programmed
from rram_hil.protocols.gradient_programming import GradientProgramming, GradientSummary
from rram_hil.protocols.parts.programming import ProgrammingSummary
from rram_hil.storage.run_reader import read_run

CHIP = Geometry(2, 24, 16)
SPAN = Span(-5.0, 5.0)
LIMITS = Limits(
    bl_v=4.0, sl_v=4.0, wl_v=4.0, cell_v=4.0, gate_over_v=4.2, half_select_v=0.5, read_v=0.25,
    current_a=1e-3, energy_j=1e-7, width_s=1e-5, pulses_per_cell=200,
)  # fmt: skip
CURVE = {"volts_v": [2.0, 3.0], "conductance_s": [10e-6, 100e-6]}
RESETS = {"volts_v": [1.0, 2.0], "conductance_s": [100e-6, 5e-6]}
PULSES: dict[str, Any] = {
    "set": {
        "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
        "gate_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.02, "curve": CURVE},
        "width_s": 1e-7,
    },
    "reset": {
        "amplitude_v": {"start_v": 1.0, "stop_v": 2.0, "step_v": 0.02, "curve": RESETS},
        "gate_v": {"start_v": 3.5, "stop_v": 3.5},
        "width_s": 1e-7,
    },
}
SETTING = Setting(
    CHIP, LIMITS, read_step(), Capabilities(SPAN, SPAN, SPAN, Span(1e-8, 1.0), multiply=True)
)


def step(**changes: Any) -> GradientProgramming:
    return GradientProgramming.model_validate(PULSES | {"vectors": 2048} | changes)


def programmed(seed: int, stuck: float = 0.0, order: int | None = None) -> Programmed:
    """Three blocks of random weights, some of their cells unresponsive and unknown to the map; in
    an order by chance where one is asked for.
    """
    rng = np.random.default_rng(seed)
    weights = {"a": rng.normal(size=(12, 20)), "b": rng.normal(size=(4, 8))}
    options = MappingOptions(g_min_s=10e-6, g_max_s=100e-6)
    mapping = map_network(
        {name: w.astype(np.float32) for name, w in weights.items()},
        CHIP, options, np.full(CHIP.shape, np.nan),
    )  # fmt: skip
    if order is not None:
        mapping = shuffled(mapping, order)
    return Programmed(mapping, rng.random(CHIP.shape) >= stuck)


class Array:
    """Cells that a pulse brings where its curve says, but for `spread` of them and the stuck."""

    def __init__(self, on: Programmed, start_s: np.ndarray, spread: float, seed: int = 0) -> None:
        self.g, self._responsive, self._spread = start_s.copy(), on.responsive, spread
        self._rng = np.random.default_rng(seed)
        self.sets, self.resets = (np.zeros(CHIP.shape, np.int64) for _ in range(2))
        self.vectors = 0

    def multiply(self, operation: Multiply) -> Any:
        self.vectors += len(operation.inputs)
        return StoredMap(self.g)(operation)

    def pulse(self, operation: Apply) -> ApplyResult:
        (one,), n = operation.steps, len(operation.cells)
        at = operation.cells.index(CHIP)
        sl, bl, gate = (one.levels(line, n) for line in ("sl", "bl", "wl"))
        assert sl is not None and bl is not None and gate is not None  # noqa: PT018
        is_set = bl > 0
        assert is_set.all() or not is_set.any()
        curve, volts = (CURVE, gate) if is_set.all() else (RESETS, sl)
        known = np.log(curve["conductance_s"])
        reached = np.exp(np.interp(volts, curve["volts_v"], known))
        reached *= np.exp(self._spread * self._rng.normal(size=n))
        kept = np.maximum if is_set.all() else np.minimum
        moves = self._responsive.ravel()[at]
        self.g.ravel()[at] = np.where(moves, kept(self.g.ravel()[at], reached), self.g.ravel()[at])
        (self.sets if is_set.all() else self.resets).ravel()[at] += 1
        nothing = np.zeros((n, 0))
        ones = np.ones(n, np.int64)
        return ApplyResult(nothing, nothing, nothing.astype(np.uint8), nothing, ones, 0 * ones)


def follow(
    protocol: GradientProgramming, on: Programmed, array: Array, setting: Setting = SETTING
) -> tuple[GradientSummary, dict[str, np.ndarray]]:
    """Run the protocol on the array: its summary and what it saved."""
    saved: dict[str, np.ndarray] = {}
    plan = protocol.run(replace(setting, shared={"network": on}))
    reply: Any = None
    try:
        while True:
            message, reply = plan.send(reply), None
            if isinstance(message, Save):
                saved[message.name] = message.values
            elif isinstance(message, Compute):
                reply = message.function(array.multiply)  # type: ignore[arg-type]
            elif isinstance(message, Apply):
                reply = array.pulse(message)
            else:
                assert isinstance(message, Progress)
    except StopIteration as stop:
        return stop.value, saved


def products_lack(mapping: Mapping, g: np.ndarray) -> float:
    """The exact root mean square error of the products of random signs, over that of the wanted."""
    lack = total = 0.0
    for layer in mapping.layers:
        for block in layer.blocks:
            wanted, found = mapping.target_map_s[block.place], g[block.place]
            pairs = wanted[:, 0::2] - wanted[:, 1::2]
            lack += np.square(pairs - (found[:, 0::2] - found[:, 1::2])).sum()
            total += np.square(pairs).sum()
    return float(np.sqrt(lack / total))


def off(on: Programmed, by: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    target = np.nan_to_num(on.mapping.target_map_s)
    return target * np.exp(by * rng.normal(size=CHIP.shape))


@pytest.mark.parametrize("order", [None, 5])
def test_the_products_come_to_what_they_should_be(order: int | None) -> None:
    on = programmed(1, order=order)
    array = Array(on, off(on, 0.3), 0.05)
    before = products_lack(on.mapping, array.g)
    summary, saved = follow(step(), on, array)
    assert summary.error_before == pytest.approx(before, rel=0.05)
    assert summary.error_after == pytest.approx(products_lack(on.mapping, array.g), rel=0.05)
    assert summary.error_after < 0.2 * summary.error_before
    assert summary.pulses == (array.sets + array.resets).sum()
    assert summary.vectors == array.vectors
    assert not summary.emulated
    np.testing.assert_array_equal(saved["set_pulses"], array.sets)
    np.testing.assert_array_equal(saved["reset_pulses"], array.resets)
    assert len(saved["product_error"]) == summary.rounds + 1
    assert np.all(np.diff(saved["pulses_before_round"]) > 0)


def test_an_array_that_is_right_takes_no_pulse() -> None:
    on = programmed(2)
    summary, _ = follow(step(), on, Array(on, off(on, 0.0), 0.05))
    assert (summary.pulses, summary.rounds, summary.vectors) == (0, 0, 3 * 2048)
    assert summary.error_before < 0.01


def test_without_rounds_the_products_are_only_measured() -> None:
    on = programmed(2)
    summary, _ = follow(step(rounds=0), on, Array(on, off(on, 0.3), 0.05))
    assert (summary.pulses, summary.rounds) == (0, 0)
    assert summary.error_after == summary.error_before > 0.1


def test_the_other_cell_of_a_pair_makes_up_for_one_that_is_stuck() -> None:
    on = programmed(3, stuck=0.3)
    array = Array(on, off(on, 0.4), 0.03)
    follow(step(max_pulses=60, rounds=100), on, array)
    given = array.sets + array.resets
    assert not given[~on.responsive].any()
    assert not given[np.isnan(on.mapping.target_map_s)].any()
    missing = (on.mapping.target_map_s - array.g).ravel()
    alone, pair = [], []
    for name in ("a", "b"):
        first, second = on.mapping.pair_index(name)
        moves, also = (on.responsive.ravel()[index] for index in (first, second))
        one = moves != also
        alone.append(missing[np.where(moves, second, first)[one]])
        pair.append((missing[first] - missing[second])[one])
    lacks, left = np.abs(np.concatenate(alone)), np.abs(np.concatenate(pair))
    # Not all: a partner cannot conduct less than it does at best.
    far = lacks > 10e-6
    assert far.sum() > 15
    assert np.mean(left[far] < 0.5 * lacks[far]) > 0.6


def test_low_cells_take_no_set_pulse_and_may_lie_below() -> None:
    on = programmed(4)
    low = on.mapping.target_map_s <= 12e-6
    start = off(on, 0.0)
    start[low] = 0.1e-6
    array = Array(on, start, 0.0)
    summary, _ = follow(step(lowest_s=12e-6, rounds=3), on, array)
    assert not array.sets[low].any()
    assert not array.resets[low].any()
    assert summary.error_before > 0.05


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), most=st.integers(1, 4), stuck=st.floats(0, 0.5))
def test_no_cell_takes_more_pulses_than_its_budget(seed: int, most: int, stuck: float) -> None:
    on = programmed(seed, stuck)
    array = Array(on, off(on, 1.0, seed), 0.5, seed)
    summary, _ = follow(step(max_pulses=most, vectors=64, rounds=20, sure=1.0), on, array)
    given = array.sets + array.resets
    assert given.max() <= most
    assert summary.out_of_pulses == (given >= most).sum()
    assert not given[~on.responsive].any()


def test_the_range_grows_until_no_code_is_clipped() -> None:
    on = programmed(5)
    array = Array(on, np.full(CHIP.shape, 3e-3), 0.0)
    summary, _ = follow(step(rounds=0), on, array)
    assert summary.saturated > 0
    assert summary.vectors > 3 * 2048
    assert summary.error_before == pytest.approx(products_lack(on.mapping, array.g), rel=0.05)


def test_an_interrupted_batch_counts_what_was_charged_and_goes_on() -> None:
    on = programmed(6)

    class Interrupted(Array):
        batches = 0

        def pulse(self, operation: Apply) -> ApplyResult:
            self.batches += 1
            if self.batches != 1:
                return super().pulse(operation)
            half = (len(operation.cells) + 1) // 2
            super().pulse(operation.part(np.arange(half)))
            pulses = np.zeros(len(operation.cells), np.int64)
            pulses[:half] = 1
            nothing = np.zeros((len(pulses), 0))
            flags = np.full((len(pulses), 0), Status.UNKNOWN, np.uint8)
            return ApplyResult(
                nothing, nothing, flags, nothing, pulses, 0 * pulses, interrupted=True
            )

    array = Interrupted(on, off(on, 0.3), 0.05)
    summary, saved = follow(step(), on, array)
    assert summary.pulses == (array.sets + array.resets).sum()
    np.testing.assert_array_equal(saved["set_pulses"], array.sets)
    assert summary.error_after < 0.2 * summary.error_before


def test_what_cannot_work_is_refused_by_name_before_anything_moves(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.full(CHIP.shape, 50e-6))
    bare = step(targets={"map": "map.npy"})
    with pytest.raises(ConfigError, match="a bare map of targets has no products"):
        next(bare.run(replace(SETTING, folder=tmp_path)))
    on = programmed(7)
    strong = step(set=PULSES["set"] | {"amplitude_v": {"start_v": 9.0, "stop_v": 9.0}})
    with pytest.raises(LimitError, match="9"):
        follow(strong, on, Array(on, off(on, 0.3), 0.0))
    weak = step(reset=PULSES["reset"] | {"amplitude_v": {"start_v": 0.1, "stop_v": 0.2}})
    with pytest.raises(LimitError, match="read"):
        follow(weak, on, Array(on, off(on, 0.3), 0.0))
    with pytest.raises(ConfigError, match="was not made by an earlier step"):
        next(step(tag="other").run(SETTING))


PROGRAMMED = """
title = "t"
seed = 1
log = "summary"
[[step]]
protocol = "forming"
bl_v = {{ start_v = 2.4, stop_v = 4.0, step_v = 0.1 }}
wl_v = [2.0, 2.4]
width_s = 1e-6
formed_above_s = 30e-6
[[step]]
protocol = "pulse-curves"
cells = {{ tiles = [0], rows = [0, 63], columns = [56, 63] }}
set_gate_v = {{ start_v = {gates[0]}, stop_v = {gates[1]}, points = 31 }}
reset_sl_v = {{ start_v = 0.6, stop_v = {reset_v}, points = 31 }}
[[step]]
protocol = "one-shot"
reset = {{ sl_v = {reset_v}, wl_v = 3.5, width_s = 200e-9 }}
set = {{ bl_v = 2.0, width_s = 100e-9 }}
[step.targets]
network = "net.safetensors"
options = {{ clip = "rms", faults = "partner", {window} }}
"""
PROGRAMMING = """
[[step]]
name = "{name}"
protocol = "{protocol}"
{keys}
lowest_s = {lowest_s}
"""
DEVICES: dict[str, dict[str, Any]] = {
    "paper": {
        "window": "g_min_s = 1e-6, g_max_s = 100e-6",
        "lowest_s": 1.5e-6,
        "gates": (1.9, 3.1),
        "reset_v": 2.0,
    },
    "hfo2": {
        "window": "g_min_s = 20e-6, g_max_s = 200e-6",
        "lowest_s": 22e-6,
        "gates": (2.0, 3.0),
        "reset_v": 2.2,
    },
}


def program(folder: Path, device: str, *steps: tuple[str, str, str]) -> tuple[RunOutcome, Path]:
    """Program a network once on a fresh chip, then do steps of (name, protocol, its keys)."""
    folder.mkdir()
    weights = np.random.default_rng(0).uniform(-1, 1, (20, 60)).astype(np.float32)
    network = Network((Linear(name="layer", inputs=60, outputs=20),), {"layer": weights})
    network.save(folder / "net.safetensors")
    known = DEVICES[device]
    text = PROGRAMMED.format(**known)
    for name, protocol, keys in steps:
        text += PROGRAMMING.format(
            name=name, protocol=protocol, keys=keys, lowest_s=known["lowest_s"]
        )
        text += AIMED_PULSES
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    simulation = f'device = "{device}"\nseed = 1'
    bench = parse_bench_file(
        tomllib.loads(bench_toml("c", 64, 64, life=1000, limits=WHOLE, simulation=simulation)),
        path=folder / "bench.toml",
    )
    return run_recipe(folder / "recipe.toml", bench, folder / "run.h5"), folder / "run.h5"


@pytest.mark.parametrize(
    ("device", "falls", "budget", "better"),
    [("paper", 2.5, 3, 1.2), pytest.param("hfo2", 4.0, 5, 1.5, marks=pytest.mark.long)],
)
def test_on_a_chip_the_products_come_nearer_than_by_as_many_pulses_of_write_verify(
    tmp_path: Path, device: str, falls: float, budget: int, better: float
) -> None:
    look = ("look", "gradient-programming", "rounds = 0\nvectors = 4096")
    keys = "vectors = 256\nmax_pulses = 60\ntolerance_s = 0.5e-6"
    outcome, path = program(
        tmp_path / "gradient", device, ("gradient", "gradient-programming", keys), look
    )
    summary, seen = (found for _, found in outcome.steps[-2:])
    assert isinstance(summary, GradientSummary)
    assert isinstance(seen, GradientSummary)
    with read_run(path) as file:
        errors, pulses = (
            file.result("gradient", name).values
            for name in ("product_error", "pulses_before_round")
        )
        steps = file.table("steps")
        at = list(steps["name"]).index("gradient")
        assert int(steps["pulses"][at]) == summary.pulses
        assert int(steps["reads"][at]) == 0
    assert errors[0] > falls * seen.error_after
    assert seen.error_after == pytest.approx(summary.error_after, rel=0.15)
    keys = f'verify_by = "codes"\nmax_pulses = {budget}\ntolerance_s = 0.5e-6'
    outcome, _ = program(tmp_path / "verify", device, ("verify", "write-verify", keys), look)
    verified, seen = (found for _, found in outcome.steps[-2:])
    assert isinstance(verified, ProgrammingSummary)
    assert isinstance(seen, GradientSummary)
    assert seen.error_after > better * np.interp(verified.pulses, pulses, errors)
