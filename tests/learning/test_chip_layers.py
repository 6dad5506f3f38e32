from __future__ import annotations

import numpy as np
import pytest

from rram_hil.array import Geometry
from rram_hil.errors import ConfigError
from rram_hil.networks.inference import StoredMap
from rram_hil.networks.mapping import LayerWords, map_network, word_operation
from rram_hil.networks.network import tensors_from

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from rram_hil.learning.chip_layers import attach, calibrate_module  # noqa: E402


class Residual(nn.Module):
    """Skip connections, batch norm, a grouped, a dilated and a reflecting convolution, a layer used
    twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2, padding_mode="reflect")
        self.down = nn.Conv2d(8, 8, 1, stride=2)
        self.head = nn.Linear(8, 8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.grouped(x))
        x = torch.relu(x + self.wide(x))
        x = self.down(x).flatten(2).transpose(1, 2)
        x = x + torch.tanh(self.head(x))
        return self.out(self.head(x).mean(1))


GEOMETRY = Geometry(4, 40, 32)


def residual() -> tuple[Residual, torch.Tensor]:
    torch.manual_seed(0)
    module = Residual()
    images = torch.randn(12, 3, 8, 8)
    module(images)
    return module.eval(), images


def test_any_module_runs_through_the_array() -> None:
    module, images = residual()
    mapping = map_network(tensors_from(module), GEOMETRY)
    encoding = calibrate_module(module, mapping, images, input_bits=12)
    with torch.no_grad():
        expected = module(images)
        with attach(
            module, mapping, encoding, StoredMap(mapping.target_map_s, adc_bits=20)
        ) as counts:
            got = module(images)
        after = module(images)
    assert torch.equal(after, expected)
    assert float((got - expected).abs().max()) < 0.01 * float(expected.abs().max())
    assert counts.vectors["grouped"] == 12 * 64 * 4
    assert counts.vectors["head"] == 12 * 16 * 2
    assert sum(counts.saturated.values()) == 0


def test_words_are_added_and_replace_the_bias() -> None:
    module, images = residual()
    mapping = map_network(tensors_from(module), GEOMETRY)
    bias = np.arange(5, dtype=np.int32)
    words = {
        "out": LayerWords(np.array([3, 17]), np.array([50, -90], dtype=np.int32), 0.01, bias, 0.1)
    }
    encoding = calibrate_module(module, mapping, images, words=words, input_bits=12)
    stored = StoredMap(mapping.target_map_s, adc_bits=20)
    stored(word_operation(mapping, words))
    with torch.no_grad():
        with attach(module, mapping, encoding, stored, words):
            got = module(images)
        module.out.weight.view(-1)[torch.tensor([3, 17])] += torch.tensor([0.5, -0.9])
        module.out.bias.copy_(torch.from_numpy(words["out"].biases))
        expected = module(images)
    assert float((got - expected).abs().max()) < 0.01 * float(expected.abs().max())


def test_layers_that_are_not_mapped_stay_digital() -> None:
    module, images = residual()
    weights = tensors_from(module)
    mapping = map_network({"out": weights["out"]}, GEOMETRY)
    encoding = calibrate_module(module, mapping, images, input_bits=12)
    with (
        torch.no_grad(),
        attach(module, mapping, encoding, StoredMap(mapping.target_map_s)) as counts,
    ):
        module(images)
    assert list(counts.vectors) == ["out"]


def test_a_module_in_training_or_of_another_shape_is_refused() -> None:
    module, images = residual()
    mapping = map_network(tensors_from(module), GEOMETRY)
    encoding = calibrate_module(module, mapping, images)
    stored = StoredMap(mapping.target_map_s)
    with (
        pytest.raises(ConfigError, match="evaluation mode"),
        attach(module.train(), mapping, encoding, stored),
    ):
        pass
    module.eval()
    module.out = nn.Linear(8, 6)
    with (
        pytest.raises(ConfigError, match=r"layer out: weight \(6, 8\)"),
        attach(module, mapping, encoding, stored),
    ):
        pass
    del module.stem
    with (
        pytest.raises(ConfigError, match="'stem' is on the array"),
        attach(module, mapping, encoding, stored),
    ):
        pass


def test_an_error_inside_puts_the_layers_back() -> None:
    module, images = residual()
    mapping = map_network(tensors_from(module), GEOMETRY)
    encoding = calibrate_module(module, mapping, images)
    stored = StoredMap(mapping.target_map_s)
    with pytest.raises(RuntimeError, match="stop"), attach(module, mapping, encoding, stored):
        raise RuntimeError("stop")
    assert all("forward" not in vars(child) for child in module.modules())
    with attach(module, mapping, encoding, stored):
        with (
            pytest.raises(ConfigError, match="already replaced"),
            attach(module, mapping, encoding, stored),
        ):
            pass
        module(images)


def test_a_forward_pass_of_the_instance_is_what_runs() -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    wrapped = nn.Sequential(nn.Linear(8, 8))
    wrapped.attention = module
    wrapped.forward = lambda x: wrapped.attention(*[wrapped[0](x)] * 3)[0]  # type: ignore[method-assign]
    wrapped.eval()
    mapping = map_network(tensors_from(wrapped), GEOMETRY)
    assert mapping.names == {"0", "attention.in_proj", "attention.out_proj"}
    x = torch.randn(2, 4, 8)
    encoding = calibrate_module(wrapped, mapping, x, input_bits=12)
    with torch.no_grad():
        expected = wrapped(x)
        with attach(wrapped, mapping, encoding, StoredMap(mapping.target_map_s, 20)) as counts:
            got = wrapped(x)
        assert torch.equal(wrapped(x), expected)
    assert set(counts.vectors) == mapping.names
    assert float((got - expected).abs().max()) < 0.01 * float(expected.abs().max())


def test_a_mapped_weight_that_the_module_never_multiplies_by_is_refused() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    module = Unused().eval()
    with pytest.raises(ConfigError, match=r"does not use other\.weight of shape \(4, 4\)"):
        tensors_from(module)
    weights = {n: getattr(module, n).weight.detach().numpy() for n in ("used", "other")}
    mapping = map_network(weights, GEOMETRY)
    with pytest.raises(ConfigError, match="'other' is on the array, but the weights that the"):
        calibrate_module(module, mapping, torch.randn(2, 4), allow_digital=["other"])


def test_a_part_of_an_attached_module_cannot_be_called() -> None:
    module, images = residual()
    mapping = map_network(tensors_from(module), GEOMETRY)
    encoding = calibrate_module(module, mapping, images)
    with attach(module, mapping, encoding, StoredMap(mapping.target_map_s)):
        with pytest.raises(ConfigError, match="Conv2d: only the module that is attached"):
            module.stem(images)
        module(images)
    module.stem(images)
