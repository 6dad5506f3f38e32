from __future__ import annotations

import sys

import numpy as np
import pytest

from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.network import Conv2d, Linear, Network, ReLU, forward, tensors_from, unfold

torch = pytest.importorskip("torch")
nn = torch.nn


def lenet(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    ).eval()


def logits(module: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()


def some_images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(3).random((n, *shape), dtype=np.float32)


def test_float_inference_is_that_of_torch() -> None:
    module, images = lenet(), some_images(33, 1, 28, 28)
    network = Network.from_torch(module)
    assert network.parameters == 61706
    np.testing.assert_allclose(
        forward(network, images, batch=20), logits(module, images), atol=2e-6
    )


def test_strides_and_uneven_kernels_are_those_of_torch() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), (2, 1), (0, 3), bias=False),
        nn.MaxPool2d((3, 2), (2, 3)),
        nn.Flatten(),
    )
    images = some_images(40, 3, 13, 11)
    np.testing.assert_allclose(
        forward(Network.from_torch(module), images), logits(module, images), atol=2e-6
    )


def test_batch_norm_is_folded_into_the_layer_before_it() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(
        nn.Conv2d(2, 5, 3, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(180, 7),
        nn.BatchNorm1d(7),
    )
    for _ in range(3):
        module(torch.randn(16, 2, 8, 8))
    module.eval()
    images = some_images(5, 2, 8, 8)
    network = Network.from_torch(module)
    assert len(network.layers) == 4
    np.testing.assert_allclose(forward(network, images), logits(module, images), atol=1e-5)
    alone = Network.from_torch(nn.Sequential(nn.ReLU(), module[1]).eval())
    assert [layer.kind for layer in alone.layers] == ["relu", "batch_norm"]
    images = some_images(5, 5, 3, 3) - 0.5
    expected = logits(nn.Sequential(nn.ReLU(), module[1]).eval(), images)
    np.testing.assert_allclose(forward(alone, images), expected, atol=1e-6)


def test_torch_and_back_and_a_file_keep_the_network(tmp_path) -> None:
    module, images = lenet(), some_images(4, 1, 28, 28)
    network = Network.from_torch(module)
    network.save(tmp_path / "net.safetensors")
    state = torch.random.get_rng_state()
    for other in (
        Network.from_torch(network.to_torch()),
        Network.load(tmp_path / "net.safetensors"),
    ):
        assert other.layers == network.layers
        np.testing.assert_array_equal(forward(other, images), forward(network, images))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(p.requires_grad for p in network.to_torch().parameters())


def test_names_of_nested_modules_are_joined() -> None:
    module = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.Linear(3, 2))
    network = Network.from_torch(module)
    assert list(network.weights) == ["0_1", "1"]
    assert [name for name, _ in network.to_torch().named_children()] == [
        layer.name for layer in network.layers
    ]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 3)), "module 0: conv_transpose2d is not supp"),
        (nn.Sequential(nn.Conv3d(4, 4, 3)), "module 0: conv3d is not supported: .*volumes"),
        (nn.Sequential(nn.Hardshrink()), "module 0: hardshrink is not supported"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "max_pool2d_with_indices is not"),
        (nn.LSTM(3, 3, proj_size=2), "with proj_size"),
        (nn.LSTMCell(3, 3), "LSTMCell: its forward pass cannot be traced"),
        (nn.ModuleDict({"a": nn.Linear(3, 3)}), "ModuleDict: its forward pass cannot be traced"),
        (nn.Sequential(nn.Embedding(4, 3)), r"looks up in 0\.weight .*allow_digital"),
    ],
)
def test_what_a_network_has_not_is_refused_by_name(module, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Network.from_torch(module)


def test_a_weight_that_is_not_finite_is_refused_by_tensor_and_index(tmp_path) -> None:
    module = lenet()
    with torch.no_grad():
        module[3].weight[2, 1, 0, 4] = float("nan")
    with pytest.raises(DataError, match=r"tensor 3\.weight: nan at index \(2, 1, 0, 4\)"):
        Network.from_torch(module)
    with pytest.raises(DataError, match=r"tensor 3\.weight: nan at index \(2, 1, 0, 4\)"):
        tensors_from(module)


def test_wrong_descriptions_are_refused() -> None:
    linear = Linear(name="a", inputs=2, outputs=3)
    weight = np.zeros((3, 2))
    with pytest.raises(DataError, match=r"a\.weight: shape \(2, 3\).*needs \(3, 2\)"):
        Network((linear,), {"a": weight.T})
    with pytest.raises(DataError, match=r"a\.bias: shape"):
        Network((linear,), {"a": weight}, {"a": np.zeros(2)})
    with pytest.raises(ConfigError, match="'a' has no weight"):
        Network((linear,), {})
    with pytest.raises(ConfigError, match="a weight is given for 'b'"):
        Network((linear,), {"a": weight, "b": weight})
    with pytest.raises(ConfigError, match="more than one layer is named 'a'"):
        Network((linear, ReLU(name="a")), {"a": weight})


def test_images_that_do_not_fit_are_refused_by_layer() -> None:
    network = Network.from_torch(lenet())
    with pytest.raises(DataError, match=r"layer 0: takes 1 inputs of a 4-D batch"):
        forward(network, some_images(2, 3, 28, 28))
    with pytest.raises(DataError, match=r"layer 7: takes 400 inputs"):
        forward(network, some_images(2, 1, 32, 32))
    with pytest.raises(DataError, match="no images"):
        forward(network, some_images(0, 1, 28, 28))
    conv = Conv2d(name="c", inputs=1, outputs=1, kernel=(5, 5))
    with pytest.raises(DataError, match="3 x 3 is smaller than the 5 x 5 kernel"):
        forward(Network((conv,), {"c": np.zeros((1, 1, 5, 5))}), some_images(2, 1, 3, 3))


def test_files_that_cannot_be_used_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Network.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not a network at all")
    with pytest.raises(DataError, match=r"bad\.safetensors: not a safetensors file"):
        Network.load(tmp_path / "bad.safetensors")
    from safetensors.torch import save_file

    save_file(lenet().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(DataError, match="no layer list"):
        Network.load(tmp_path / "plain.safetensors")


def test_weights_of_any_module_and_any_file_are_found(tmp_path) -> None:
    from safetensors.torch import save_file

    module = lenet()
    save_file(module.state_dict(), tmp_path / "plain.safetensors")
    found, read = tensors_from(module), tensors_from(tmp_path / "plain.safetensors")
    assert list(found) == ["0", "3", "7", "10", "12"]
    assert set(read) == set(found)
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, read[name])
    save_file({"x.bias": torch.zeros(3)}, tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="no Linear or Conv2d weight"):
        tensors_from(tmp_path / "none.safetensors")
    save_file({"x.weight": torch.ones((2, 3), dtype=torch.float16)}, tmp_path / "half.safetensors")
    assert tensors_from(tmp_path / "half.safetensors")["x"].dtype == np.float32


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, tmp_path) -> None:
    network = Network.from_torch(lenet())
    for module in ("torch", "safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    for attempt in (
        network.to_torch,
        lambda: network.save(tmp_path / "a"),
        lambda: Network.load(tmp_path / "a"),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'rram-hil\[torch\]'"):
            attempt()


def test_unfolding_orders_rows_as_the_weight_does() -> None:
    images = np.arange(2 * 3 * 5 * 6).reshape(2, 3, 5, 6).astype(np.float32)
    expected = nn.functional.unfold(
        torch.from_numpy(images), (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)
    )
    rows = unfold(images, (3, 2), (2, 1), (1, 0), (1, 2))
    np.testing.assert_array_equal(rows.reshape(18, -1, 2).transpose(2, 0, 1), expected.numpy())
