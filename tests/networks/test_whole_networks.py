"""Networks of every kind that must map, from torch to the chip: with neither noise nor quantisation
it gives what torch gives, and of a chip of zeros nothing of the weights is left.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from rram_hil.array import Geometry, drive
from rram_hil.networks.inference import (
    StoredMap,
    calibrate_on,
    compute,
    effective_network,
    infer,
)
from rram_hil.networks.mapping import map_network
from rram_hil.networks.network import Network, forward, product, propagate, tensors_from

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from rram_hil.learning.chip_layers import attach, calibrate_module  # noqa: E402
from rram_hil.networks.pytorch.tracing import trace  # noqa: E402
from tests.helpers.whole_networks import NETWORKS, made  # noqa: E402

GEOMETRY = Geometry(24, 64, 64)
ONE_INPUT = [name for name, (_, shapes) in NETWORKS.items() if len(shapes) == 1]
every = pytest.mark.parametrize("name", NETWORKS)
classifiers = pytest.mark.parametrize("name", ONE_INPUT)


def arrays(given: Any) -> list[np.ndarray]:
    parts = given if isinstance(given, tuple | list) else (given,)
    return [p.numpy() if isinstance(p, torch.Tensor) else np.asarray(p) for p in parts]


def assert_close(got: Any, expected: Any, tolerance: float) -> None:
    for one, other in zip(arrays(got), arrays(expected), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=tolerance * max(1.0, np.abs(other).max()))


def zeroed(module: nn.Module, inputs: int) -> nn.Module:
    """The module with the parameters zero that its mapped weights are made of."""
    traced = trace(module, inputs=inputs)
    without = copy.deepcopy(module)
    parameters = dict(without.named_parameters())
    for name in traced.network.weights:
        source = traced.sources[f"{name}.weight"]
        assert source is not None
        parameters[source.parameter].data.zero_()
    left = [n for n, p in parameters.items() if p.ndim > 1 and p.squeeze().ndim > 1 and p.any()]
    assert left == []
    return without


@every
def test_its_graph_gives_what_torch_gives(name: str) -> None:
    module, inputs = made(name)
    network = Network.from_torch(module, inputs=len(inputs))
    with torch.no_grad():
        expected = module(*inputs)
    got = drive(
        propagate(network, *(x.numpy() for x in inputs)),
        lambda asked: product(asked[0], network.weights[asked[0].weight_name], asked[1]),
    )
    assert_close(got, expected, 1e-5)


@every
def test_the_array_at_its_targets_is_the_network(name: str) -> None:
    module, inputs = made(name)
    network = Network.from_torch(module, inputs=len(inputs))
    mapping = map_network(network.weights, GEOMETRY)
    held = effective_network(network, mapping, mapping.target_map_s)
    with torch.no_grad():
        expected = module(*inputs)
    got = drive(
        propagate(held, *(x.numpy() for x in inputs)),
        lambda asked: product(asked[0], held.weights[asked[0].weight_name], asked[1]),
    )
    assert_close(got, expected, 1e-5)


@every
def test_a_module_on_the_array_gives_what_torch_gives(name: str) -> None:
    module, inputs = made(name)
    mapping = map_network(tensors_from(module, inputs=len(inputs)), GEOMETRY)
    with torch.no_grad():
        expected = module(*inputs)
        for input_bits, adc_bits, tolerance in ((16, 24, 5e-4), (8, 14, 0.1)):
            encoding = calibrate_module(module, mapping, inputs, input_bits=input_bits)
            stored = StoredMap(mapping.target_map_s, adc_bits)
            with attach(module, mapping, encoding, stored) as counts:
                got = module(*inputs)
            assert_close(got, expected, tolerance)
            assert set(counts.vectors) == mapping.names
            assert counts.digital == set()
        assert_close(module(*inputs), expected, 0.0)


@every
def test_a_module_on_an_array_of_zeros_has_no_weights(name: str) -> None:
    module, inputs = made(name)
    mapping = map_network(tensors_from(module, inputs=len(inputs)), GEOMETRY)
    encoding = calibrate_module(module, mapping, inputs)
    zeros = StoredMap(np.zeros(GEOMETRY.shape))
    with torch.no_grad():
        with attach(module, mapping, encoding, zeros) as counts:
            got = module(*inputs)
        assert_close(got, zeroed(module, len(inputs))(*inputs), 1e-5)
    assert set(counts.vectors) == mapping.names


@classifiers
def test_a_network_on_an_array_of_zeros_has_no_weights(name: str) -> None:
    module, (images,) = made(name)
    network = Network.from_torch(module)
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate_on(network, mapping, [images.numpy()])
    with torch.no_grad():
        expected = zeroed(module, 1)(images)
    got = drive(
        infer(network, mapping, encoding, images.numpy(), batch=3),
        StoredMap(np.zeros(GEOMETRY.shape)),
    )
    assert_close(got.logits, expected, 1e-5)
    assert set(got.counts.vectors) == mapping.names


@classifiers
def test_parts_of_a_batch_are_the_same_as_the_whole(name: str) -> None:
    module, (images,) = made(name)
    network = Network.from_torch(module)
    with torch.no_grad():
        expected = module(images)
    for batch in (1, 3, 9):
        assert_close(forward(network, images.numpy(), batch=batch), expected, 1e-5)
    mapping = map_network(network.weights, GEOMETRY)
    encoding = calibrate_on(network, mapping, [images.numpy()], input_bits=12)
    stored = StoredMap(mapping.target_map_s, 20)
    whole = drive(compute(network, mapping, encoding, [images.numpy()]), stored)
    parts = drive(infer(network, mapping, encoding, images.numpy(), batch=2), stored)
    assert_close(parts.logits, whole, 1e-5)
    assert_close(parts.logits, expected, 0.01)


@every
def test_its_file_and_its_torch_form_give_the_same(name: str, tmp_path) -> None:
    module, inputs = made(name)
    network = Network.from_torch(module, inputs=len(inputs))
    network.save(tmp_path / "net.safetensors")
    loaded = Network.load(tmp_path / "net.safetensors")
    assert (loaded.layers, loaded.result, loaded.inputs) == (
        network.layers,
        network.result,
        network.inputs,
    )
    with torch.no_grad():
        assert_close(loaded.to_torch()(*inputs), module(*inputs), 1e-5)


def test_batch_norms_are_folded_or_stay_digital() -> None:
    module, _ = made("resnet18")
    kinds = [layer.kind for layer in Network.from_torch(module).layers]
    assert "batch_norm" not in kinds
    assert trace(module).network.layers[1].kind == "batch_norm"
    module, _ = made("dense")
    kinds = [layer.kind for layer in Network.from_torch(module).layers]
    assert kinds.count("batch_norm") == 3
