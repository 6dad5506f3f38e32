"""Networks in files: every kind of layer, every type of number, every age; and what is no such
file.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic_core import PydanticUndefined

from rram_hil.errors import DataError
from rram_hil.networks.layers import LAYERS, Elementwise, Full, Layer, Linear, Pad, ReLU, Where
from rram_hil.networks.network import Network, NoLayersError, forward, tensors_from
from rram_hil.networks.network_file import METADATA_KEY, read

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

FIELDS: dict[str, Any] = {
    "name": "a", "inputs": 4, "outputs": 3, "kernel": (3, 2), "cell": "lstm", "hidden": 5,
    "tensor": "t", "equation": "ij->ji", "function": None, "operator": "floordiv", "dim": -1,
    "channels": 3, "eps": 1e-5, "dims": (0, 1), "groups": 2, "stride": (2, 1), "size": (None, 2),
    "shape": (2, "n", -1), "counts": (1, "n"), "chunks": 3, "index": 1, "start": "n", "length": 2,
    "entries": (0, (None, "n", 2), "...", "new"), "amounts": (1, -1), "p": 0.5, "scale": (2, 3),
    "value": 2.5,
}  # fmt: skip
"""What a layer must be given, by the name of the field."""
FUNCTIONS = {"elementwise": "clamp", "reduce": "var", "adaptive_pool2d": "max"}


def example(kind: type[Layer]) -> Layer:
    given = {
        name: FIELDS[name]
        for name, field in kind.model_fields.items()
        if field.is_required() and field.default is PydanticUndefined
    }
    label = kind.model_fields["kind"].default
    if "function" in given:
        given["function"] = FUNCTIONS[label]
    if label == "layer_norm":
        given["dims"] = 2
    return kind(**given)


KINDS: tuple[type[Layer], ...] = Layer.__args__  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_layer_comes_back_from_json(kind: type[Layer]) -> None:
    layer = example(kind)
    assert LAYERS.validate_json(LAYERS.dump_json((layer,))) == (layer,)


def test_infinities_come_back(tmp_path) -> None:
    layers = (
        Where(name="a", of=("input", "input"), value=float("-inf")),
        Elementwise(name="b", function="clamp", parameters=(-1.0, float("inf"))),
        Pad(name="c", amounts=(1, 1), value=float("-inf")),
        Full(name="d", shape=(2,), value=float("inf")),
    )
    Network(layers, {}).save(tmp_path / "n.safetensors")
    assert Network.load(tmp_path / "n.safetensors").layers == layers


def test_names_of_every_kind_come_back(tmp_path) -> None:
    module = nn.Sequential()
    for name in ("digital:a", "a b", "é", "weight", "bias", "a#2", "a'", "x\n"):
        module.add_module(name, nn.Linear(4, 4))
    module.add_module("digital:n", nn.LayerNorm(4))
    network = Network.from_torch(module.eval())
    network.save(tmp_path / "n.safetensors")
    loaded = Network.load(tmp_path / "n.safetensors")
    assert list(loaded.weights) == list(network.weights)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(forward(loaded, x), expected, atol=1e-6)


def test_results_of_every_kind_come_back(tmp_path) -> None:
    layers = (Linear(name="a", inputs=2, outputs=2), ReLU(name="b"))
    result = {"both": ["a", "b"], "none": None, "number": 3, "nested": {"input": "input"}}
    network = Network(layers, {"a": np.eye(2)}, result=result)
    network.save(tmp_path / "n.safetensors")
    loaded = Network.load(tmp_path / "n.safetensors")
    assert loaded.result == result | {"both": ("a", "b")}


def test_files_of_version_1_are_chains(tmp_path) -> None:
    from safetensors.numpy import save_file

    layers = [
        {"name": "a", "kind": "linear", "inputs": 2, "outputs": 3},
        {"name": "b", "kind": "relu"},
    ]
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    tensors = {"a.weight": weight, "a.bias": np.ones(3, dtype=np.float32)}
    save_file(tensors, tmp_path / "old.safetensors", {METADATA_KEY: json.dumps(layers)})
    network = Network.load(tmp_path / "old.safetensors")
    assert network.layers == (Linear(name="a", inputs=2, outputs=3), ReLU(name="b"))
    np.testing.assert_array_equal(forward(network, np.eye(2)), np.eye(2) @ weight.T + 1)


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        ({"version": 3, "layers": []}, DataError, "its graph is of version 3"),
        ({"version": 2, "layers": [{"kind": "magic", "name": "a"}]}, NoLayersError, "layer list"),
        ({"version": 2, "layers": [], "more": 1}, NoLayersError, "its layer list is wrong"),
        ("nothing", NoLayersError, "its layer list is wrong"),
    ],
)
def test_graphs_that_cannot_be_read_are_refused(tmp_path, graph, error, message) -> None:
    from safetensors.numpy import save_file

    text = graph if isinstance(graph, str) else json.dumps(graph)
    save_file({"a.weight": np.ones((2, 2))}, tmp_path / "n.safetensors", {METADATA_KEY: text})
    with pytest.raises(error, match=message):
        Network.load(tmp_path / "n.safetensors")


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
        torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
        torch.bool,
    ],
    ids=str,
)  # fmt: skip
def test_numbers_of_every_type_are_read(tmp_path, dtype) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    numbers = (torch.randn(9, 8) * 3).to(dtype)
    save_file({"a.weight": numbers}, tmp_path / "n.safetensors")
    read_back = tensors_from(tmp_path / "n.safetensors")["a"]
    assert read_back.dtype == np.float32
    np.testing.assert_array_equal(read_back, numbers.float().numpy())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_every_8_bit_number_is_what_torch_says(tmp_path, dtype) -> None:
    from safetensors.torch import save_file

    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    save_file({"a": codes}, tmp_path / "n.safetensors")
    tensors, _ = read(tmp_path / "n.safetensors")
    np.testing.assert_array_equal(tensors["a"], codes.float().numpy())


def test_weights_that_float32_cannot_hold_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    save_file({"a.weight": torch.full((2, 2), 1e60, dtype=torch.float64)}, tmp_path / "n")
    with pytest.raises(DataError, match=r"tensor a\.weight: inf"):
        tensors_from(tmp_path / "n")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_torch_are_refused_with_advice(tmp_path, zipped: bool) -> None:
    state = nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "n.pt", _use_new_zipfile_serialization=zipped)
    for look in (Network.load, tensors_from):
        with pytest.raises(DataError, match=r"a pickle of torch, .*safetensors\.torch\.save_file"):
            look(tmp_path / "n.pt")


def test_a_header_whose_size_looks_like_a_pickle_is_read(tmp_path) -> None:
    from safetensors.numpy import save_file

    sizes = set()
    for length in range(0, 1500, 8):
        path = tmp_path / f"{length}.safetensors"
        save_file({"a.weight": np.eye(2)}, path, {"note": "x" * length})
        sizes.add(path.read_bytes()[:2])
        np.testing.assert_array_equal(tensors_from(path)["a"], np.eye(2))
    assert {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"} <= sizes


def test_files_that_are_cut_are_refused(tmp_path) -> None:
    Network((Linear(name="a", inputs=2, outputs=2),), {"a": np.eye(2)}).save(tmp_path / "n")
    content = (tmp_path / "n").read_bytes()
    for size in (0, 5, 8, 20, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(DataError, match="not a safetensors file"):
            Network.load(tmp_path / "cut")
