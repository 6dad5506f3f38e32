"""A module on the array answers as it is now, from the array, or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from rram_hil.array import Geometry
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.adapters import Adapter
from rram_hil.networks.inference import Counts, Encoding, StoredMap
from rram_hil.networks.mapping import LayerWords, Mapping, map_network, word_operation
from rram_hil.networks.network import Network, tensors_from

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from rram_hil.learning.chip_layers import attach, calibrate_module  # noqa: E402

GEOMETRY = Geometry(12, 24, 20)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)).eval()


def images(*shape: int) -> Tensor:
    return torch.randn(shape or (5, 6), generator=torch.Generator().manual_seed(2))


def mapped(
    module: nn.Module, *inputs: Tensor, words: dict[str, LayerWords] | None = None
) -> tuple[Mapping, Encoding, StoredMap]:
    mapping = map_network(tensors_from(module, inputs=len(inputs)), GEOMETRY)
    encoding = calibrate_module(module, mapping, inputs, words=words, input_bits=16)
    stored = StoredMap(mapping.target_map_s, 24)
    stored(word_operation(mapping, words or {}))
    return mapping, encoding, stored


@contextmanager
def on_array(module: nn.Module, *inputs: Tensor) -> Iterator[Counts]:
    with torch.no_grad(), attach(module, *mapped(module, *inputs)) as counts:
        yield counts


def assert_close(one: Any, other: Any, tolerance: float = 1e-3) -> None:
    assert one.shape == other.shape
    assert float((one - other).abs().max()) <= tolerance * max(1.0, float(other.abs().max()))


def set_bias(module: Any) -> None:
    module[3].bias.data += 1


def set_activation(module: Any) -> None:
    module[1] = nn.Tanh()


def set_forward(module: Any) -> None:
    module[2].forward = lambda x: x / 2


def set_hook(module: Any) -> None:
    module[0].register_forward_hook(lambda m, given, out: out / 2)


@pytest.mark.parametrize("change", [set_bias, set_activation, set_forward, set_hook])
def test_what_changes_while_attached_counts(change: Callable[[Any], None]) -> None:
    module, x = network(), images()
    other = copy.deepcopy(module)
    with on_array(module, x):
        module(x)
        change(module)
        got = module(x)
    change(other)
    with torch.no_grad():
        assert_close(got, other(x))
        assert_close(module(x), other(x), 0.0)


def test_numbers_that_the_forward_pass_reads_elsewhere_count() -> None:
    class Gained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.gain = nn.Linear(6, 3), 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x) * self.gain

    module, x = Gained().eval(), images()
    with on_array(module, x):
        once = module(x)
        module.gain = 3.0
        assert_close(module(x), 3 * once)


def test_weights_that_change_while_attached_are_refused() -> None:
    module, x = network(), images()
    with on_array(module, x):
        module(x)
        with torch.no_grad():
            module[3].weight.mul_(2)
        with pytest.raises(ConfigError, match="layer 3: its weight has changed since"):
            module(x)


def test_training_mode_is_refused_at_every_call() -> None:
    module, x = network(), images()
    with on_array(module, x):
        module(x)
        module[2].train()
        with pytest.raises(ConfigError, match="module 2 is in training mode"):
            module(x)
        module.train()
        with pytest.raises(ConfigError, match="evaluation mode only"):
            module(x)


def test_only_the_whole_module_answers() -> None:
    module, x = network(), images()
    part = module[0]
    with on_array(module, x):
        for call in (part, part.forward):
            with pytest.raises(ConfigError, match="Linear: only the module that is attached"):
                call(x)
        module.forward(x)
    assert part(x).shape == (5, 8)
    assert all("forward" not in vars(child) for child in module.modules())


def test_a_module_on_the_array_is_not_traced_copied_or_attached_again() -> None:
    module, x = network(), images()
    outer = nn.Sequential(module, nn.Linear(3, 2)).eval()
    setting = mapped(outer, x)
    with on_array(module, x):
        for use in (
            lambda: Network.from_torch(module),
            lambda: tensors_from(outer),
            lambda: calibrate_module(module, setting[0], x),
        ):
            with pytest.raises(ConfigError, match="it is on the array; end `attach` before"):
                use()
        with pytest.raises(ConfigError, match="cannot be copied"):
            copy.deepcopy(module)
        with pytest.raises(ConfigError, match="it is on the array"), attach(outer, *setting):
            pass
    with torch.no_grad(), attach(outer, *setting) as counts:
        outer(x)
    assert set(counts.vectors) == {"0.0", "0.3", "1"}


def test_hooks_of_the_module_itself_would_run_twice() -> None:
    module, x = network(), images()
    module.register_forward_hook(lambda m, given, out: 2 * out)
    setting = mapped(module, x)
    with pytest.raises(ConfigError, match="hooks of its own, which would run twice"):
        attach(module, *setting).__enter__()
    around = nn.Sequential(module).eval()
    with torch.no_grad():
        expected = around(x)
        with attach(around, *mapped(around, x)):
            assert_close(around(x), expected)
    module = network()
    with on_array(module, x):
        module.register_forward_pre_hook(lambda m, given: None)
        with pytest.raises(ConfigError, match="hooks of its own"):
            module(x)


def test_what_a_trace_cannot_see_is_found_by_its_numbers() -> None:
    class Typed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x) * (2 if type(x) is Tensor else 1)

    module, x = Typed().eval(), images()
    mapping = map_network(tensors_from(module), GEOMETRY)
    with pytest.raises(ConfigError, match="torch gives other numbers than the traced network"):
        calibrate_module(module, mapping, x)
    full_scale_a = {"out": (1e-3,) * len(mapping.layer("out").blocks)}
    encoding = Encoding({"out": 0.01}, full_scale_a)
    with (
        torch.no_grad(),
        attach(module, mapping, encoding, StoredMap(mapping.target_map_s)),
        pytest.raises(ConfigError, match=r"\(12 of 12 values, by up to"),
    ):
        module(x)


class Kinds(nn.Module):
    """Convolution, norms, attention and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        return self.lstm(self.layer(x))[0][:, -1]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-3), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)],
)
def test_modules_of_other_precisions_answer_in_theirs(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    module, x = Kinds().eval().to(dtype), images(3, 2, 3, 3).to(dtype)
    with torch.no_grad():
        expected = module(x)
        with on_array(module, x) as counts:
            got = module(x)
    assert got.dtype == dtype
    assert_close(got.double(), expected.double(), tolerance)
    assert len(counts.vectors) == 7
    assert {p.dtype for p in module.parameters()} == {dtype}


class Called(nn.Module):
    """Every way of giving and taking tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, dict[str, Tensor]] | None = None,
        *,
        scale: float = 1.0,
        mask: Tensor | None = None,
    ) -> tuple[list[Tensor], dict[str, Any]]:
        out = self.b(torch.relu(self.a(x)))
        if state is not None:
            out = out + state[0] * state[1]["gain"]
        if mask is not None:
            out = out.masked_fill(mask, -1.0)
        return [out * scale], {"mean": out.mean(), "none": None, "width": out.shape[1]}


def test_arguments_of_every_kind_are_inputs_and_results() -> None:
    module, x = Called().eval(), images()
    state = images(5, 4), {"gain": images(4)}
    mask = images(5, 4) > 0
    with on_array(module, x):
        answers = [
            module(x),
            module(x, state),
            module(x, (state[0] + 1, state[1])),
            module(x, state, scale=2.0, mask=mask),
            module(x=x, mask=~mask),
        ]
    with torch.no_grad():
        expected = [
            module(x),
            module(x, state),
            module(x, (state[0] + 1, state[1])),
            module(x, state, scale=2.0, mask=mask),
            module(x=x, mask=~mask),
        ]
    for got, other in zip(answers, expected, strict=True):
        assert isinstance(got[0], list)
        assert_close(got[0][0], other[0][0])
        assert_close(got[1]["mean"], other[1]["mean"])
        assert got[1]["none"] is None
        assert got[1]["width"] == 4


def test_inputs_that_do_not_fit_are_refused() -> None:
    module, x = network(), images()
    with on_array(module, x):
        assert module(x[:0]).shape == (0, 3)
        with pytest.raises(DataError, match=r"does not take these inputs: .*5x7 and 6x8"):
            module(images(5, 7))
        module(x)
        with pytest.raises(DataError, match=r"takes 6 inputs of a 2-D batch, .* \(5, 7\)"):
            module(images(5, 7))
        with pytest.raises(DataError, match="complex numbers"):
            module(torch.ones(5, 6, dtype=torch.complex64))
        with pytest.raises(DataError, match="layer 0: its input holds a value that is not finite"):
            module(torch.full((5, 6), torch.nan))
        with pytest.raises(ConfigError, match="0 tensors as inputs"):
            module(x.numpy())
    mapping = map_network(tensors_from(module), GEOMETRY)
    with pytest.raises(DataError, match="calibration: no images"):
        calibrate_module(module, mapping, x[:0])


def words_of(shape: tuple[int, ...], biases: int = 0, seed: int = 0, rank: int = 0) -> LayerWords:
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    index = np.sort(rng.choice(count, min(20, count // 2), replace=False))
    values = rng.integers(-99, 100, index.size, dtype=np.int32)
    drawn = rng.integers(-9, 10, (rank, count // shape[0])), rng.integers(-9, 10, (shape[0], rank))
    adapter = Adapter(drawn[0].astype(np.int32), 0.05, drawn[1].astype(np.int32), 0.05)
    bias = np.arange(biases, dtype=np.int32)
    return LayerWords(index, values, 0.01, bias, 0.05, adapter=adapter if rank else None)


def add_words(weight: Tensor, words: LayerWords, bias: Tensor | None = None) -> None:
    added = torch.from_numpy(words.values * words.step).to(weight.dtype)
    weight.data.view(-1)[torch.from_numpy(words.indices)] += added
    if words.adapter is not None:
        weight.data += torch.from_numpy(words.adapter.matrix).to(weight).view_as(weight)
    if bias is not None:
        bias.data.copy_(torch.from_numpy(words.biases))


def tied() -> nn.Module:
    one, other = nn.Linear(6, 6), nn.Linear(6, 6)
    other.weight = one.weight
    return nn.Sequential(one, nn.ReLU(), other, nn.ReLU(), one)


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x[:, :3], x[:, 3:], x[:, 3:])[0]


def convolution(channels: int, groups: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, groups=groups))


def gru() -> nn.Module:
    return nn.Sequential(nn.GRU(6, 4, batch_first=True), First())


WORDS: dict[str, tuple[Callable[[], nn.Module], str, str, str | None, tuple[int, ...]]] = {
    "shared": (tied, "0", "0.weight", "0.bias", (5, 6)),
    "grouped": (convolution(8, 4), "0", "0.weight", "0.bias", (3, 8, 5, 5)),
    "depthwise": (convolution(8, 8), "0", "0.weight", None, (3, 8, 5, 5)),
    "grouped by three": (convolution(12, 3), "0", "0.weight", "0.bias", (3, 12, 4, 4)),
    "recurrent": (gru, "0.hh_l0", "0.weight_hh_l0", "0.bias_hh_l0", (3, 4, 6)),
    "projections": (
        Cross,
        "attention.in_proj",
        "attention.in_proj_weight",
        "attention.in_proj_bias",
        (3, 7, 8),
    ),
}


class First(nn.Module):
    def forward(self, x: tuple[Tensor, ...]) -> Tensor:
        return x[0]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kind", WORDS)
def test_words_and_adapters_are_added_to_weights_of_every_kind(kind: str, rank: int) -> None:
    build, layer, weight, bias, shape = WORDS[kind]
    torch.manual_seed(4)
    module, x = build().eval(), images(*shape)
    parameters = dict(module.named_parameters())
    biases = 0 if bias is None else parameters[bias].numel()
    words = {layer: words_of(tuple(parameters[weight].shape), biases, rank=rank)}
    mapping, encoding, stored = mapped(module, x, words=words)
    with torch.no_grad(), attach(module, mapping, encoding, stored, words):
        got = module(x)
    add_words(parameters[weight], words[layer], None if bias is None else parameters[bias])
    with torch.no_grad():
        assert_close(got, module(x))


def test_words_of_what_is_not_on_the_array_are_refused() -> None:
    module, x = network(), images()
    weights = tensors_from(module)
    mapping = map_network({"0": weights["0"]}, GEOMETRY)
    encoding = calibrate_module(module, mapping, x)
    stored = StoredMap(mapping.target_map_s)
    for name in ("3", "9"):
        words = {name: words_of((3, 8), 3)}
        with (
            torch.no_grad(),
            attach(module, mapping, encoding, stored, words),
            pytest.raises(ConfigError, match=f"'{name}'"),
        ):
            module(x)
