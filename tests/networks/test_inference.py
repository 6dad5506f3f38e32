from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shuffled import shuffled

from rram_hil.array import Cells, Geometry, Multiply, MultiplyResult, Wait, drive, pulse
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.inference import (
    Encoding,
    StoredMap,
    calibrate,
    calibrate_inputs,
    effective_network,
    infer,
    multiply_from_map,
    multiply_layer,
)
from rram_hil.networks.mapping import LayerWords, MappingOptions, map_network, word_operation
from rram_hil.networks.network import Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU, forward
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

GEOMETRY = Geometry(3, 40, 32)


def small_network(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    layers = (
        Conv2d(name="conv1", inputs=1, outputs=5, kernel=(3, 3), padding=(1, 1)),
        ReLU(name="relu1"),
        MaxPool2d(name="pool1", kernel=(2, 2), stride=(2, 2)),
        Conv2d(name="conv2", inputs=5, outputs=8, kernel=(3, 3), stride=(1, 1)),
        ReLU(name="relu2"),
        Flatten(name="flat"),
        Linear(name="fc", inputs=72, outputs=6),
    )
    shapes = {layer.name: layer.weight_shape for layer in layers if hasattr(layer, "weight_shape")}
    weights = {n: rng.normal(0, np.prod(s[1:]) ** -0.5, s) for n, s in shapes.items()}
    return Network(layers, weights, {n: rng.normal(0, 0.1, s[0]) for n, s in shapes.items()})


def some_images(n: int = 30, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 1, 10, 10)).astype(np.float32)


def random_words(network: Network, seed: int = 5) -> dict[str, LayerWords]:
    rng = np.random.default_rng(seed)
    words = {}
    for name, weight in network.weights.items():
        index = np.sort(rng.choice(weight.size, weight.size // 10, replace=False))
        values = rng.integers(-127, 128, index.size, dtype=np.int32)
        bias = rng.integers(-127, 128, len(weight), dtype=np.int32)
        scale = rng.integers(-127, 128, len(weight), dtype=np.int32)
        words[name] = LayerWords(index, values, 0.003, bias, 0.001, scale, 0.004)
    return words


def test_an_array_at_its_targets_computes_the_network() -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate(network, mapping, images, input_bits=12)
    got = drive(
        infer(network, mapping, encoding, images, batch=7),
        StoredMap(mapping.target_map_s, adc_bits=20),
    )
    expected = forward(network, images)
    np.testing.assert_allclose(got.logits, expected, atol=0.005 * np.abs(expected).max())
    assert got.accuracy(expected.argmax(axis=1)) == 1.0
    assert sum(got.counts.saturated.values()) == sum(got.counts.clipped_inputs.values()) == 0
    assert got.counts.vectors == {"conv1": 30 * 100, "conv2": 30 * 9, "fc": 30}


def test_inference_follows_the_map_that_was_measured() -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY, MappingOptions(levels=16))
    measured = mapping.target_map_s * np.random.default_rng(0).normal(1, 0.2, GEOMETRY.shape)
    encoding = calibrate(network, mapping, images, map_s=measured, input_bits=12)
    filled, _ = mapping.fill(measured)
    got = drive(infer(network, mapping, encoding, images), StoredMap(filled, adc_bits=20))
    real = forward(network.with_weights(mapping.effective_weights(measured)), images)
    np.testing.assert_allclose(got.logits, real, atol=0.01 * np.abs(real).max())


@pytest.mark.parametrize("faults", ["flip", "permute"])
def test_swapped_and_permuted_pairs_compute_the_same(faults) -> None:
    network, images = small_network(), some_images()
    stuck = np.where(np.random.default_rng(2).random(GEOMETRY.shape) < 0.05, 120e-6, np.nan)
    mapping = map_network(network.weights, GEOMETRY, MappingOptions(faults=faults), stuck)
    assert any((block.signs < 0).any() for layer in mapping.layers for block in layer.blocks)
    assert (faults == "permute") == any(
        not block.order.rows_as_they_come for layer in mapping.layers for block in layer.blocks
    )
    encoding = calibrate(network, mapping, images, input_bits=12)
    got = drive(
        infer(network, mapping, encoding, images), StoredMap(mapping.target_map_s, adc_bits=20)
    )
    real = forward(network.with_weights(mapping.target_weights()), images)
    np.testing.assert_allclose(got.logits, real, atol=0.01 * np.abs(real).max())


def test_words_and_biases_are_added_to_what_the_array_gives_and_scales_multiply_it() -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    words = random_words(network)
    encoding = calibrate(network, mapping, images, words=words, input_bits=12)
    stored = StoredMap(mapping.target_map_s, adc_bits=20)
    assert stored(word_operation(mapping, words)).written == sum(
        w.values.size for w in words.values()
    )
    got = drive(infer(network, mapping, encoding, images, words), stored)
    weights = {n: w.copy() for n, w in network.weights.items()}
    for name, w in words.items():
        weights[name].reshape(-1)[w.indices] += w.values * w.step
        gains = 1 + w.scale_values * w.scale_step
        weights[name] *= gains.reshape(-1, *[1] * (weights[name].ndim - 1))
    both = network.with_weights(weights).with_biases({n: w.biases for n, w in words.items()})
    expected = forward(both, images)
    np.testing.assert_allclose(got.logits, expected, atol=0.005 * np.abs(expected).max())
    modelled = forward(effective_network(network, mapping, mapping.target_map_s, words), images)
    np.testing.assert_allclose(modelled, expected, atol=1e-4)


@pytest.fixture
def programmed_chip(tmp_path) -> SimulatedChip:
    """A formed and pulsed chip without read noise: its conductances are what its cells do, not the
    targets.
    """
    chip = SimulatedChip(
        GEOMETRY, Simulation(read_noise=False, seed=4), read_v=0.3, chip_id="c", folder=tmp_path
    )
    cells = Cells.all(GEOMETRY)
    chip.execute(pulse(cells, bl_v=3.8, wl_v=2.0, width_s=1e-6), 1)
    gate = np.random.default_rng(0).uniform(2.2, 2.7, len(cells))
    chip.execute(pulse(cells, sl_v=1.5, wl_v=3.5, width_s=2e-7), 2)
    chip.execute(pulse(cells, bl_v=2.0, wl_v=gate, width_s=1e-7), 3)
    return chip


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_chip_and_stored_map_agree_within_one_lsb(tmp_path_factory, data) -> None:
    chip = SimulatedChip(
        GEOMETRY,
        Simulation(device="paper", read_noise=False, seed=data.draw(st.integers(0, 99))),
        read_v=0.3,
        chip_id="c",
        folder=tmp_path_factory.getbasetemp(),
    )
    conductance = chip.conductance_s()
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 32))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = rng.integers(-127, 128, (data.draw(st.integers(1, 20)), rows)).astype(np.int16)
    peak = np.abs(codes @ conductance[1, 40 - rows :, 32 - columns :] * 0.2 / 127).max()
    full_scale_a = max(peak * data.draw(st.sampled_from([0.5, 1.1])), 1e-9)
    operation = Multiply(1, 40 - rows, 32 - columns, columns, codes, full_scale_a=full_scale_a)
    real = chip.execute(operation, 1)
    stored = multiply_from_map(operation, conductance, chip.capabilities.adc_bits)
    assert isinstance(real, MultiplyResult)
    assert np.abs(real.codes - stored.codes).max() <= 1
    assert stored.lsb_a == pytest.approx(real.lsb_a)


def test_a_network_runs_alike_on_chip_and_from_its_map(programmed_chip) -> None:
    chip, network, images = programmed_chip, small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    conductance = chip.conductance_s()
    assert np.unique(conductance.round(7)).size > 100
    words = random_words(network)
    encoding = calibrate(network, mapping, images, map_s=conductance, words=words)
    chip.execute(word_operation(mapping, words), 8)
    worst = 0

    def both(operation):
        nonlocal worst
        # The cells relax as the chip's clock runs: the map must be of the same moment.
        stored = multiply_from_map(
            operation, chip.conductance_s(), chip.capabilities.adc_bits, chip.words
        )
        real = chip.execute(operation, 9)
        worst = max(worst, int(np.abs(real.codes - stored.codes).max()))
        np.testing.assert_array_equal(real.word_sums, stored.word_sums)
        return real

    prediction = drive(infer(network, mapping, encoding, images, words), both)
    assert worst <= 1
    assert prediction.logits.shape == (30, 6)


def test_clipped_codes_are_counted() -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate(network, mapping, images[:1], input_percentile=50.0, margin=0.1)
    got = drive(infer(network, mapping, encoding, images), StoredMap(mapping.target_map_s))
    assert got.counts.saturated["conv1"] > 0
    assert got.counts.clipped_inputs["conv1"] > 0
    assert got.counts.saturated["conv1"] < got.counts.conversions["conv1"]


def test_large_batches_are_cut_into_operations_of_bounded_size(monkeypatch) -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate(network, mapping, images)
    stored = StoredMap(mapping.target_map_s)
    whole = drive(infer(network, mapping, encoding, images), stored)
    monkeypatch.setattr("rram_hil.networks.inference.CHUNK_BYTES", 2000)
    sizes = []

    def answer(operation):
        sizes.append(operation.inputs.size * 6 + len(operation.inputs) * operation.columns * 10)
        return stored(operation)

    parts = drive(infer(network, mapping, encoding, images), answer)
    np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-5, atol=1e-6)
    assert len(sizes) > 50
    assert max(sizes) <= 2000


def test_part_of_the_outputs_is_the_same_part_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    mapping = map_network({"a": rng.normal(size=(50, 60))}, Geometry(9, 40, 32))
    assert len({b.output_start for b in mapping.layers[0].blocks}) > 2
    encoding = Encoding({"a": 0.01}, {"a": (1e-3,) * len(mapping.layers[0].blocks)})
    codes = rng.integers(-127, 128, (4, 60)).astype(np.int16)
    stored = StoredMap(mapping.target_map_s)
    whole = drive(multiply_layer(mapping, encoding, "a", codes), stored)
    part = drive(multiply_layer(mapping, encoding, "a", codes, outputs=slice(13, 37)), stored)
    np.testing.assert_array_equal(part, whole[13:37])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_products_do_not_depend_on_the_order_on_the_array(data) -> None:
    """Sound cells, no noise: whole, in part, by groups, and with words."""
    seed, groups = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([1, 2, 4]))
    rng = np.random.default_rng(seed)
    outputs, inputs = 4 * data.draw(st.integers(1, 6)), data.draw(st.integers(1, 50))
    plain = map_network({"a": rng.normal(size=(outputs, inputs))}, Geometry(9, 40, 32))
    other = shuffled(plain, seed)
    count = len(plain.layers[0].pieces(groups))
    steps = 0.01 if groups == 1 else (0.01,) * groups
    # All columns share a scale, so that a step of a code is the same for all.
    encoding = Encoding({"a": steps}, {"a": (1e-3,) * count})
    codes = rng.integers(-127, 128, (5, inputs)).astype(np.int16)
    stop = data.draw(st.integers(1, outputs)) if groups == 1 else None
    index = np.sort(rng.choice(outputs * inputs, outputs, replace=False))
    none = np.zeros(0, dtype=np.int32)
    words = {"a": LayerWords(index, rng.integers(-9, 10, outputs, dtype=np.int32), 0.1, none, 1.0)}
    products = []
    for mapping in (plain, other):
        stored = StoredMap(mapping.target_map_s, adc_bits=16)
        stored(word_operation(mapping, words))
        for group in range(groups):
            part = slice(stop // 2, stop) if stop else None
            plan = multiply_layer(
                mapping, encoding, "a", codes, word_step=0.1, outputs=part, group=group
            )
            products.append(drive(plan, stored))
    lsb = 0.01 * 127 / 0.2 * plain.layers[0].weight_per_s * 1e-3 / 32767
    blocks = len(plain.layers[0].blocks)
    for one, two in zip(products[:groups], products[groups:], strict=True):
        # Sums of another order may round to the next code.
        np.testing.assert_allclose(one, two, atol=2.1 * lsb * blocks, rtol=1e-4)


def test_a_network_of_groups_and_parts_works_on_a_permuted_array() -> None:
    rng = np.random.default_rng(3)
    layers = (
        Conv2d(name="conv", inputs=4, outputs=8, kernel=(3, 3), groups=4),
        ReLU(name="relu"),
        Flatten(name="flat"),
        Linear(name="fc", inputs=8 * 64, outputs=6),
    )
    weights = {"conv": rng.normal(size=(8, 1, 3, 3)), "fc": rng.normal(0, 0.05, size=(6, 512))}
    network = Network(layers, weights, {})
    images = rng.normal(size=(10, 4, 10, 10)).astype(np.float32)
    geometry = Geometry(15, 40, 32)
    mapping = shuffled(map_network(network.weights, geometry), 1)
    encoding = calibrate(network, mapping, images, input_bits=12)
    got = drive(
        infer(network, mapping, encoding, images), StoredMap(mapping.target_map_s, adc_bits=20)
    )
    expected = forward(network, images)
    np.testing.assert_allclose(got.logits, expected, atol=0.01 * np.abs(expected).max())
    assert sum(got.counts.saturated.values()) == 0


def test_an_encoding_comes_back_from_its_arrays() -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate(network, mapping, images, input_bits=7, read_v=0.15)
    assert Encoding.from_arrays(mapping, encoding.to_arrays(mapping)) == encoding
    other = map_network({"fc": network.weights["fc"]}, GEOMETRY)
    with pytest.raises(DataError, match="of another mapping"):
        Encoding.from_arrays(other, encoding.to_arrays(mapping))


def test_input_steps_cover_the_training_data() -> None:
    network, images = small_network(), some_images()
    steps = calibrate_inputs(network, images)
    assert steps["conv1"] == pytest.approx(np.abs(images).max() / 127)
    assert set(steps) == {"conv1", "conv2", "fc"}
    assert calibrate_inputs(network, images, percentile=99.0)["conv1"] < steps["conv1"]


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    network, images = small_network(), some_images()
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate(network, mapping, images)
    stored = StoredMap(mapping.target_map_s)
    bad = images.copy()
    bad[3, 0, 2, 2] = np.nan
    with pytest.raises(DataError, match="layer conv1: its input holds a value that is not finite"):
        drive(infer(network, mapping, encoding, bad), stored)
    with pytest.raises(DataError, match="no images"):
        drive(infer(network, mapping, encoding, images[:0]), stored)
    with pytest.raises(ConfigError, match="'conv1' is not on the array"):
        drive(
            infer(network, map_network({"fc": network.weights["fc"]}, GEOMETRY), encoding, images),
            stored,
        )
    other = map_network(network.weights | {"fc": np.ones((6, 70))}, GEOMETRY)
    with pytest.raises(DataError, match=r"layer fc: weight \(6, 72\), on the array \(6, 70\)"):
        drive(infer(network, other, encoding, images), stored)
    with pytest.raises(ConfigError, match="not Wait"):
        stored(Wait(1.0))
    with pytest.raises(DataError, match="has gaps"):
        drive(infer(network, mapping, encoding, images), StoredMap(np.full(GEOMETRY.shape, np.nan)))
