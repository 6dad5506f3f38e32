"""An adapter is two thin products beside a layer, and costs what two thin products cost."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import Geometry, drive
from rram_hil.networks.adapters import Adapter
from rram_hil.networks.inference import StoredMap, calibrate, effective_network, infer
from rram_hil.networks.mapping import LayerWords, map_network
from rram_hil.networks.network import Conv2d, Linear, Network, forward, product
from rram_hil.networks.word_costs import WordCosts, multiplies, word_costs

NONE = np.zeros(0, dtype=np.int32)


def adapter_of(shape: tuple[int, ...], rank: int, seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    inward = rng.integers(-127, 128, (rank, math.prod(shape[1:])), dtype=np.int32)
    return Adapter(inward, 1e-3, rng.integers(-127, 128, (shape[0], rank), dtype=np.int32), 2e-3)


def beside(adapter: Adapter, scale_values: np.ndarray = NONE) -> LayerWords:
    return LayerWords(np.zeros(0, np.int64), NONE, 0.1, NONE, 0.1, scale_values, 0.01, adapter)


def of_one_layer(layer: Conv2d | Linear, seed: int) -> Network:
    weight = np.random.default_rng(seed).normal(0, 0.3, layer.weight_shape)
    return Network((layer,), {layer.name: weight})


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 2**16)
)
def test_an_adapter_is_a_convolution_to_its_rank_and_one_by_one_to_the_outputs(
    groups: int, rank: int, of_group: int, scaled: bool, seed: int
) -> None:
    made = of_group + 1
    layer = Conv2d(
        name="c",
        inputs=groups * of_group,
        outputs=groups * made,
        kernel=(3, 2),
        stride=(1, 2),
        padding=(1, 0),
        groups=groups,
    )
    network = of_one_layer(layer, seed)
    adapter = adapter_of(layer.weight_shape, rank, seed)
    rng = np.random.default_rng(seed)
    scales = rng.integers(-50, 50, layer.outputs, dtype=np.int32) if scaled else NONE
    words = {"c": beside(adapter, scales)}
    images = rng.normal(size=(4, layer.inputs, 5, 6)).astype(np.float32)
    mapping = map_network(network.weights, Geometry(3, 40, 32))
    encoding = calibrate(network, mapping, images, words=words, input_bits=16)
    chip = StoredMap(mapping.target_map_s, adc_bits=24)
    got = drive(infer(network, mapping, encoding, images, words), chip).logits

    # A, the same for every group of inputs, then B a group's outputs at a time.
    inward = np.tile(adapter.inward * adapter.inward_step, (groups, 1)).astype(np.float32)
    thin = layer.model_copy(update={"outputs": groups * rank})
    between = product(thin, inward, images).reshape(4, groups, rank, *got.shape[2:])
    outward = (adapter.outward * adapter.outward_step).reshape(groups, made, rank)
    added = np.einsum("gor,ngrhw->ngohw", outward, between).reshape(got.shape)
    gains = 1 + scales * 0.01 if scaled else np.ones(layer.outputs)
    expected = (forward(network, images) + added) * gains[:, None, None]
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())

    held = effective_network(network, mapping, mapping.target_map_s, words)
    np.testing.assert_allclose(forward(held, images), expected, atol=1e-4 * np.abs(expected).max())


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**16))
def test_an_adapter_adds_b_a_to_the_matrix(outputs: int, inputs: int, rank: int, seed: int) -> None:
    adapter = adapter_of((outputs, inputs), rank, seed)
    before = np.random.default_rng(seed).normal(size=(outputs, inputs)).astype(np.float32)
    for order in ("C", "F"):  # memory may lie in either order
        matrix = np.array(before, order=order)
        words = LayerWords(np.array([0]), np.array([7], np.int32), 0.5, NONE, 0.1, adapter=adapter)
        words.add_to(matrix)
        expected = before + 2e-6 * (adapter.outward @ adapter.inward)
        expected[0, 0] += 3.5
        np.testing.assert_allclose(matrix, expected, atol=1e-5)
    assert adapter.size == rank * (inputs + outputs)
    assert adapter.rank == rank


def costs(network: Network, adapter: Adapter, *shape: int) -> WordCosts:
    (name,) = network.matrices
    return word_costs(network, {name: beside(adapter)}, shape, 8, seeded=True)


def test_an_adapters_values_are_words_and_work_at_every_use_of_the_layer() -> None:
    layer = Conv2d(name="c", inputs=4, outputs=10, kernel=(3, 3))
    network = of_one_layer(layer, 0)
    found = costs(network, adapter_of(layer.weight_shape, 2), 4, 6, 6)
    assert (found.words, found.digital, found.bits) == (2 * (36 + 10), 0, 8 * 2 * (36 + 10))
    assert found.fraction == 2 * 46 / 360
    assert found.mac_share == 2 * 46 / 360
    assert multiplies(network, np.zeros((1, 4, 6, 6), np.float32)) == {"c": 16}


def test_every_group_of_a_convolution_goes_through_its_adapter() -> None:
    layer = Conv2d(name="c", inputs=8, outputs=12, kernel=(3, 3), groups=4)
    found = costs(of_one_layer(layer, 0), adapter_of(layer.weight_shape, 1), 8, 3, 3)
    assert found.words == 18 + 12
    assert found.mac_share == (4 * 18 + 12) / (12 * 18)


def test_a_weight_that_is_used_in_parts_takes_its_inputs_for_each() -> None:
    parts = tuple(
        Linear(
            name=f"part{k}", inputs=6, outputs=9, weight="w", rows=(3 * k, 3 * k + 3), of=("input",)
        )
        for k in range(3)
    )
    network = Network(parts, {"w": np.ones((9, 6))}, result=tuple(x.name for x in parts))
    found = costs(network, adapter_of((9, 6), 1), 6)
    assert multiplies(network, np.zeros((1, 6), np.float32)) == {"w": 1}
    assert found.words == 15
    assert found.mac_share == (3 * 6 + 9) / 54
