"""Biases and scales that give every output its mean and spread in floating point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, Recurrent, ReLU
from rram_hil.networks.mapping import SCALE_RANGE, LayerWords
from rram_hil.networks.network import Float32, Network, Weighted, forward, product, run
from rram_hil.networks.recalibration import Spread, moments, recalibrate

SPREADS = get_args(Spread)
IMAGES = np.random.default_rng(7).normal(size=(200, 2, 6, 6)).astype(np.float32)
spreads = pytest.mark.parametrize("spread", SPREADS)


def small_network(seed: int = 0) -> Network:
    """Two convolutions, one of them in groups, and a linear layer."""
    rng = np.random.default_rng(seed)
    layers = (
        Conv2d(name="a", inputs=2, outputs=4, kernel=(3, 3), padding=(1, 1)),
        ReLU(name="ra"),
        Conv2d(name="b", inputs=4, outputs=6, kernel=(3, 3), groups=2),
        MaxPool2d(name="p", kernel=(2, 2), stride=(2, 2)),
        ReLU(name="rb"),
        Flatten(name="f"),
        Linear(name="c", inputs=24, outputs=5),
    )
    shapes = {"a": (4, 2, 3, 3), "b": (6, 2, 3, 3), "c": (5, 24)}
    return Network(
        layers,
        {n: rng.normal(size=shape).astype(np.float32) / 3 for n, shape in shapes.items()},
        {n: rng.normal(size=shape[0]).astype(np.float32) / 5 for n, shape in shapes.items()},
    )


def columns_off(
    network: Network, gains: dict[str, NDArray[np.float64]], shifts: dict[str, NDArray[np.float64]]
) -> Callable[[Weighted, Float32], Float32]:
    """A chip whose outputs are scaled and shifted."""

    def multiply(layer: Weighted, values: Float32) -> Float32:
        name = layer.weight_name
        made = product(layer, network.weights[name], values)
        places = (-1, *[1] * (made.ndim - 2))
        off = made * gains[name].reshape(places) + shifts[name].reshape(places)
        return off.astype(np.float32)

    return multiply


def exact(network: Network) -> Callable[[Weighted, Float32], Float32]:
    ones = {n: np.ones(w.shape[0]) for n, w in network.weights.items()}
    return columns_off(network, ones, {n: 0 * one for n, one in ones.items()})


def corrected(
    network: Network,
    words: dict[str, LayerWords],
    multiply: Callable[[Weighted, Float32], Float32],
) -> Float32:
    """What the chip gives with the biases and scales."""

    def scaled(layer: Weighted, values: Float32) -> Float32:
        made = multiply(layer, values)
        scales = words[layer.weight_name].scales
        assert scales is not None
        return made * scales.reshape(-1, *[1] * (made.ndim - 2))

    biases = {n: w.biases for n, w in words.items()}
    return np.asarray(run(network.with_biases(biases), IMAGES, scaled))


@spreads
@given(seed=st.integers(0, 100))
def test_an_exact_array_keeps_its_biases_and_scales(spread: Spread, seed: int) -> None:
    network = small_network(seed)
    for name, words in recalibrate(network, IMAGES, exact(network), spread=spread).items():
        assert not words.scale_values.any()
        assert words.values.size == words.indices.size == 0
        np.testing.assert_allclose(
            words.biases, network.biases[name], atol=0.5001 * words.bias_step
        )


@spreads
@given(seed=st.integers(0, 1000))
def test_columns_that_are_off_are_repaired_to_rounding(spread: Spread, seed: int) -> None:
    network, rng = small_network(seed), np.random.default_rng(seed)
    gains = {n: rng.uniform(0.7, 1.9, w.shape[0]) for n, w in network.weights.items()}
    shifts = {n: rng.normal(size=w.shape[0]) for n, w in network.weights.items()}
    chip = columns_off(network, gains, shifts)
    words = recalibrate(network, IMAGES, chip, spread=spread, bits=16)
    for name, own in words.items():
        assert own.scales is not None
        np.testing.assert_allclose(own.scales * gains[name], 1, atol=3e-4)
    wanted = forward(network, IMAGES)
    np.testing.assert_allclose(corrected(network, words, chip), wanted, atol=3e-3 * wanted.std())
    coarse = recalibrate(network, IMAGES, chip, spread=spread)
    first = coarse["a"]  # later layers are measured behind the rounding of this one
    scales = first.scale_values * first.scale_step + 1
    np.testing.assert_allclose(scales, 1 / gains["a"], atol=0.51 * SCALE_RANGE / 127)
    lacks = corrected(network, coarse, chip) - wanted
    assert np.sqrt(np.mean(lacks**2)) < 0.05 * wanted.std()


@given(seed=st.integers(0, 100))
def test_a_chip_that_holds_the_weights_aimed_at_is_left_as_it_is(seed: int) -> None:
    network = small_network(seed)
    aim = {name: np.clip(weight, -0.3, 0.3) for name, weight in network.weights.items()}
    clipped = exact(replace(network, weights=aim))
    assert not any(
        words.scale_values.any()
        for words in recalibrate(network, IMAGES, clipped, aim=aim).values()
    )
    own = recalibrate(network, IMAGES, clipped)
    assert all(words.scale_values.any() for words in own.values())


def test_scales_end_where_the_format_does() -> None:
    network = small_network()
    gains = {n: np.full(w.shape[0], 10.0) for n, w in network.weights.items()}
    gains["a"][0] = 0.01
    shifts = {n: np.zeros(w.shape[0]) for n, w in network.weights.items()}
    words = recalibrate(network, IMAGES, columns_off(network, gains, shifts))
    assert words["a"].scale_values.tolist() == [127, -127, -127, -127]
    assert np.isfinite(words["a"].biases).all()


def test_a_constant_output_is_shifted_and_not_scaled() -> None:
    network = small_network()
    weights = {n: np.array(w) for n, w in network.weights.items()}
    weights["a"][1] = 0
    dead = network.with_weights(weights)
    noise = np.random.default_rng(0)

    def noisy(layer: Weighted, values: Float32) -> Float32:
        made = product(layer, dead.weights[layer.weight_name], values)
        return (made + 0.3 + noise.normal(scale=1e-3, size=made.shape)).astype(np.float32)

    words = recalibrate(dead, IMAGES, noisy)["a"]
    assert words.scale_values[1] == 0
    assert words.biases[1] == pytest.approx(network.biases["a"][1] - 0.3, abs=words.bias_step)


@pytest.mark.parametrize("count", [0, 1])
def test_images_without_a_spread_are_refused(count: int) -> None:
    network = small_network()
    with pytest.raises(DataError, match="fewer than two images have no spread"):
        recalibrate(network, IMAGES[:count], exact(network))


def test_a_layer_without_biases_is_only_scaled() -> None:
    network = small_network()
    bare = Network(network.layers, network.weights, {n: network.biases[n] for n in ("a", "c")})
    gains = {n: np.full(w.shape[0], 1.25) for n, w in network.weights.items()}
    shifts = {n: np.zeros(w.shape[0]) for n, w in network.weights.items()}
    words = recalibrate(bare, IMAGES, columns_off(bare, gains, shifts))
    assert words["b"].bias_values.size == 0
    np.testing.assert_allclose(words["b"].scale_values * words["b"].scale_step, -0.2, atol=0.01)


VECTORS = np.random.default_rng(3).normal(size=(300, 4)).astype(np.float32)


def test_parts_of_one_weight_are_corrected_each_for_itself() -> None:
    """As attention uses the weight of its three projections."""
    whole = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    layers: list[Layer] = [
        Linear(name="low", inputs=4, outputs=6, weight="w", rows=(0, 4)),
        Linear(name="high", of=("low",), inputs=4, outputs=6, weight="w", rows=(2, 6)),
    ]
    biases = {"w": np.zeros(6, np.float32)}
    shared = Network(tuple(layers), {"w": whole}, biases)
    with pytest.raises(ConfigError, match="layer high: its weight w is used more than once"):
        recalibrate(shared, VECTORS, exact(shared))
    layers[1] = layers[1].model_copy(update={"rows": (4, 6)})
    parted = Network(tuple(layers), {"w": whole}, biases)
    gains = {"w": np.linspace(0.8, 1.2, 6)}

    def of_parts(layer: Weighted, values: Float32) -> Float32:
        assert isinstance(layer, Linear)
        own = np.asarray(gains["w"][layer.taken])
        return (product(layer, whole, values) * own).astype(np.float32)

    words = recalibrate(parted, VECTORS, of_parts, bits=16)["w"]
    np.testing.assert_allclose(1 + words.scale_values * words.scale_step, 1 / gains["w"], atol=1e-4)


def test_a_recurrent_layer_is_refused() -> None:
    layer = Recurrent(name="r", inputs=3, hidden=2, cell="tanh", layers=1)
    names = [own.weight_name for own in layer.pair(0, 0)]
    rng = np.random.default_rng(0)
    sizes = zip(names, (3, 2), strict=True)
    weights = {name: rng.normal(size=(2, size)).astype(np.float32) for name, size in sizes}
    network = Network((layer,), weights)
    series = rng.normal(size=(5, 4, 3)).astype(np.float32)
    with pytest.raises(ConfigError, match="no recurrent or shared layer"):
        recalibrate(network, series, exact(network))


def test_a_stuck_conversion_moves_the_mean_deviation_least() -> None:
    values = np.random.default_rng(0).normal(size=(1, 1000))
    stuck = values.copy()
    stuck[0, 17] = 100.0
    moved = {}
    for spread in SPREADS:
        clean, with_outlier = (moments(x, spread)[1, 0] for x in (values, stuck))
        moved[spread] = with_outlier / clean
    assert 1 < moved["l1"] < moved["topk"] < moved["l2"]
    assert moved["l1"] < 1.2
    assert moved["l2"] > 3


def test_a_stuck_conversion_spoils_a_scale_least_by_the_mean_deviation() -> None:
    network = small_network()
    right = exact(network)
    errors = {}
    for spread in SPREADS:

        def stuck(layer: Weighted, values: Float32) -> Float32:
            made = right(layer, values)
            if layer.name == "c":
                made[3, 0] = 20 * made[:, 0].std()
            return made

        words = recalibrate(network, IMAGES, stuck, spread=spread, largest=0.3)["c"]
        assert not words.scale_values[1:].any()
        errors[spread] = abs(int(words.scale_values[0]))
    assert errors["l1"] < errors["topk"] < errors["l2"]
    assert errors["l1"] < 40


def test_the_largest_deviations_are_a_share_of_the_samples() -> None:
    values = np.array([[0.0, 1.0, 2.0, 3.0, 14.0]])  # mean 4; deviations 4, 3, 2, 1, 10
    assert moments(values, "topk", 0.4).tolist() == [[4.0], [7.0]]
    assert moments(values, "topk", 0.01).tolist() == [[4.0], [10.0]]
    assert moments(values, "topk", 1.0).tolist() == moments(values, "l1").tolist()
    assert moments(values, "l2")[1, 0] == pytest.approx(values.std())
