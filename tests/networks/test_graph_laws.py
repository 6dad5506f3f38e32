"""Small networks drawn out of all that maps: torch, the traced graph in NumPy, its file, its torch
form and the array agree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rram_hil.array import Geometry, drive
from rram_hil.networks.inference import StoredMap
from rram_hil.networks.mapping import map_network
from rram_hil.networks.network import Network, forward, product, propagate, tensors_from

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from rram_hil.learning.chip_layers import attach, calibrate_module  # noqa: E402
from rram_hil.networks.pytorch.tracing import trace  # noqa: E402

IMAGES = 5
GEOMETRY = Geometry(40, 40, 32)
Step = Callable[["Program", list[Tensor]], Tensor]


class Program(nn.Module):
    """Steps, each of which makes a value of those before it; modules that they use are `parts`."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        self.weights = nn.ParameterList()
        self.steps: list[Step] = []

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            values.append(step(self, values))
        return values[-1]


class Drawing:
    """A program that is being drawn, with the values that it has for some images."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.program = Program().eval()
        self.values: list[Tensor] = []

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def choice(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    @property
    def last(self) -> Tensor:
        return self.values[-1]

    def part(self, module: nn.Module) -> int:
        """Keep a module, its norms with other statistics than they begin with."""
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif name.endswith(("running_mean", "bias")):
                nn.init.normal_(tensor.detach(), std=0.3)
        self.program.parts.append(module.eval())
        return len(self.program.parts) - 1

    def add(self, step: Step) -> None:
        """Add a step that takes the last value (or others by their number)."""
        with torch.no_grad():
            self.values.append(step(self.program, list(self.values)))
        self.program.steps.append(step)

    def of_last(self, function: Callable[[Tensor], Tensor]) -> None:
        at = len(self.values) - 1
        self.add(lambda p, v: function(v[at]))

    def through(self, module: nn.Module, take: Callable[[Any], Tensor] | None = None) -> None:
        """The last value through a module."""
        part, at = self.part(module), len(self.values) - 1
        if take is None:
            self.add(lambda p, v: p.parts[part](v[at]))
        else:
            self.add(lambda p, v: take(p.parts[part](v[at])))

    def alike(self, *, but: int | None = None) -> list[int]:
        """Numbers of the earlier values of the last one's shape, but for one dimension."""

        def shape(value: Tensor) -> list[int]:
            return [n for d, n in enumerate(value.shape) if d != but]

        return [
            k
            for k, value in enumerate(self.values[:-1])
            if value.ndim == self.last.ndim and shape(value) == shape(self.last)
        ]


ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU,
    nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.PReLU, nn.Dropout,
    nn.Tanhshrink, nn.Identity, lambda: nn.LeakyReLU(0.2), lambda: nn.GELU("tanh"),
    lambda: nn.Hardtanh(-0.5, 0.7), lambda: nn.CELU(0.7), lambda: nn.ReLU(inplace=True),
)  # fmt: skip


def activation(d: Drawing) -> None:
    module = d.choice(ACTIVATIONS)()
    if getattr(module, "inplace", False):  # others must not see it change
        d.of_last(lambda x: x * 1.5)
    d.through(module)


def arithmetic(d: Drawing) -> None:
    others, at = d.alike(), len(d.values) - 1
    other = d.choice(others) if others else at
    how = d.number(0, 5)
    if how == 0:
        d.add(lambda p, v: v[at] + v[other])
    elif how == 1:
        d.add(lambda p, v: v[at] * torch.sigmoid(v[other]))
    elif how == 2:
        d.add(lambda p, v: torch.where(v[at] > v[other], v[at], 0.5))
    elif how == 3:
        d.add(lambda p, v: torch.maximum(v[at], v[other]) - 0.25)
    elif how == 4:
        d.add(lambda p, v: v[at] / (1 + v[other].abs()))
    else:
        d.of_last(lambda x: x.masked_fill(x > 1, -0.5) * x.shape[-1] ** -0.5)


def concatenation(d: Drawing) -> None:
    dim = d.number(1, d.last.ndim - 1)
    others, at = d.alike(but=dim), len(d.values) - 1
    other = d.choice(others) if others else at
    if d.values[other].shape[dim] + d.last.shape[dim] > 12:
        return
    by_end = dim - d.last.ndim if d.number(0, 1) else dim
    d.add(lambda p, v: torch.cat([v[other], v[at]], by_end))


def swapped(x: Tensor, sizes: list[int], dim: int) -> Tensor:
    first, second = x.split(sizes, dim)
    return torch.cat([second, first], dim)


def parts(d: Drawing) -> None:
    dim = d.number(1, d.last.ndim - 1)
    size = d.last.shape[dim]
    if size < 2:
        return
    how, first = d.number(0, 4), d.number(1, size - 1)
    if how == 0:
        d.of_last(lambda x: swapped(x, [first, size - first], dim))
    elif how == 1:
        d.of_last(lambda x: x.chunk(2, dim)[0] * 2)
    elif how == 2:
        d.of_last(lambda x: x.narrow(dim, size - first, first))
    elif how == 3:
        index = (slice(None),) * dim + (slice(0, first),)
        d.of_last(lambda x: x[index])
    else:
        d.of_last(lambda x: x.select(dim, first).unsqueeze(dim))


def norm(d: Drawing) -> None:
    width = d.last.shape[-1]
    kind = d.number(0, 2)
    if kind == 0:
        d.through(nn.LayerNorm(width, eps=0.01))
    elif kind == 1:
        d.through(nn.RMSNorm(width, eps=0.01))
    else:
        dim = d.number(1, d.last.ndim - 1) - d.last.ndim
        d.of_last(lambda x: torch.softmax(x, dim))


def linear(d: Drawing) -> None:
    width = d.last.shape[-1]
    kind, at = d.number(0, 3), len(d.values) - 1
    known = [
        k
        for k, part in enumerate(d.program.parts)
        if isinstance(part, nn.Linear) and part.in_features == width
    ]
    if known and kind == 0:
        part = d.choice(known)
        d.add(lambda p, v: p.parts[part](v[at]))
    elif known and kind == 1:
        part = d.choice(known)
        d.add(lambda p, v: functional.linear(v[at], p.parts[part].weight) + 0.5)
    elif kind == 2:
        d.program.weights.append(nn.Parameter(torch.randn(width, d.number(1, 6)) / width**0.5))
        weight = len(d.program.weights) - 1
        d.add(lambda p, v: v[at] @ p.weights[weight])
    else:
        d.through(nn.Linear(width, d.number(1, 6), bias=bool(d.number(0, 1))))


def to_three(d: Drawing) -> None:
    size = d.last.shape[1]
    step = d.choice([k for k in range(1, size + 1) if size % k == 0])
    if d.number(0, 1):
        d.of_last(lambda x: x.view(x.size(0), step, -1))
    else:
        d.of_last(lambda x: x.unflatten(1, (-1, step)))


def norm_of_channels(d: Drawing) -> None:
    channels = d.last.shape[1]
    if d.last.ndim == 4:
        kinds = [nn.BatchNorm2d(channels), nn.GroupNorm(1, channels, eps=0.01)]
        if d.last.shape[2] * d.last.shape[3] > 1:
            kinds.append(nn.InstanceNorm2d(channels, eps=0.01, affine=bool(d.number(0, 1))))
    else:
        kinds = [nn.BatchNorm1d(channels, affine=bool(d.number(0, 1)))]
    d.through(d.choice(kinds))


def recurrent(d: Drawing) -> None:
    features, batch_first = d.last.shape[2], bool(d.number(0, 1))
    kind = d.choice([nn.LSTM, nn.GRU, nn.RNN])
    module = kind(
        features, d.number(1, 3), d.number(1, 2), batch_first=batch_first,
        bidirectional=bool(d.number(0, 1)), bias=bool(d.number(0, 1)),
    )  # fmt: skip
    if batch_first and d.number(0, 1):
        d.through(module, lambda out: (out[1] if kind is not nn.LSTM else out[1][0])[-1])
        return
    if not batch_first:
        d.of_last(lambda x: x.transpose(0, 1))
    d.through(module, lambda out: out[0])
    if not batch_first:
        d.of_last(lambda x: x.transpose(0, 1))


def attention(d: Drawing) -> None:
    width, length = d.last.shape[2], d.last.shape[1]
    heads = d.choice([h for h in (1, 2, 3) if width % h == 0])
    kind, at = d.number(0, 4), len(d.values) - 1
    if kind == 0:
        layer = nn.TransformerEncoderLayer(
            width, heads, 4, batch_first=True, norm_first=bool(d.number(0, 1))
        )
        for inner in layer.modules():
            if isinstance(inner, nn.LayerNorm):
                inner.eps = 0.01
        d.through(layer)
    elif kind == 1:
        shapes = [tuple(value.shape) for value in d.values]
        of_images = [k for k, s in enumerate(shapes) if (s[0], len(s)) == (IMAGES, 3)]
        other = d.choice([k for k in of_images if shapes[k][2] == width])
        part = d.part(nn.MultiheadAttention(width, heads, batch_first=True))
        d.add(lambda p, v: p.parts[part](v[at], v[other], v[other], need_weights=False)[0])
    elif kind == 2:
        causal = bool(d.number(0, 1))
        d.of_last(lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=causal))
    elif kind == 3:
        mask = torch.triu(torch.ones(length, length), 1).bool()
        part = d.part(nn.MultiheadAttention(width, heads, batch_first=True))
        d.add(lambda p, v: p.parts[part](v[at], v[at], v[at], attn_mask=mask)[0])
    else:
        d.of_last(lambda x: torch.softmax(x @ x.transpose(-2, -1) / x.shape[-1], -1) @ x)


def conv1d(d: Drawing) -> None:
    channels, length = d.last.shape[1], d.last.shape[2]
    kernel = d.number(1, min(3, length))
    groups = d.choice([g for g in range(1, channels + 1) if channels % g == 0])
    padding = d.number(0, 1)
    d.through(
        nn.Conv1d(
            channels, groups * d.number(1, 2), kernel, d.number(1, 2), padding, groups=groups,
            padding_mode=d.choice(["zeros", "replicate", "circular"]),
        )
    )  # fmt: skip


def from_three(d: Drawing) -> None:
    kind = d.number(0, 5)
    if kind == 0:
        d.of_last(lambda x: x.transpose(1, 2))
    elif kind == 1:
        d.of_last(lambda x: x.mean(1))
    elif kind == 2:
        d.of_last(lambda x: x[:, -1])
    elif kind == 3:
        d.of_last(lambda x: x.flatten(1))
    elif kind == 4:
        d.through(nn.AdaptiveAvgPool1d(d.number(1, 3)))
    else:
        d.of_last(lambda x: x.reshape(x.shape[0], -1))


def conv2d(d: Drawing) -> None:
    channels, height, width = d.last.shape[1:]
    groups = d.choice([g for g in range(1, channels + 1) if channels % g == 0])
    kernel = d.number(1, min(3, height)), d.number(1, min(3, width))
    padding = d.choice([0, 1, "same"])
    dilation = d.choice([1, 2])
    reach = [dilation * (k - 1) for k in kernel]
    if padding != "same" and (height + 2 * padding <= reach[0] or width + 2 * padding <= reach[1]):
        dilation = 1
    stride = 1 if padding == "same" else d.number(1, 2)
    mode = d.choice(["zeros", "replicate"])
    d.through(
        nn.Conv2d(
            channels, groups * d.number(1, max(1, 6 // groups)), kernel, stride, padding, dilation,
            groups, bool(d.number(0, 1)), mode,
        )
    )  # fmt: skip
    if d.number(0, 2) == 0:
        norm_of_channels(d)


def pooling(d: Drawing) -> None:
    height, width = d.last.shape[2:]
    if height < 2 or width < 2:
        return
    kind, ceil = d.number(0, 4), bool(d.number(0, 1))
    if kind == 0:
        d.through(nn.MaxPool2d(2, d.number(1, 2), d.number(0, 1), ceil_mode=ceil))
    elif kind == 1:
        include = bool(d.number(0, 1))
        d.through(nn.AvgPool2d(2, d.number(1, 2), d.number(0, 1), ceil, include))
    elif kind == 2:
        d.through(nn.AdaptiveAvgPool2d((d.number(1, 3), d.number(1, 3))))
    elif kind == 3:
        d.through(nn.AdaptiveMaxPool2d((d.number(1, 3), d.number(1, 3))))
    else:
        d.of_last(lambda x: functional.pad(x, (1, 0, 0, 1), value=0.5))


def from_four(d: Drawing) -> None:
    kind = d.number(0, 4)
    if kind == 0:
        d.of_last(lambda x: torch.flatten(x, 1))
    elif kind == 1:
        d.of_last(lambda x: x.mean((-2, -1)))
    elif kind == 2:
        d.of_last(lambda x: x.flatten(2).transpose(1, 2))
    elif kind == 3:
        d.of_last(lambda x: x.permute(0, 2, 3, 1))
    else:
        d.of_last(lambda x: x.amax(dim=3))


ANY = (activation, arithmetic, concatenation, parts, norm, linear)
STEPS: dict[int, tuple[Callable[[Drawing], None], ...]] = {
    2: (*ANY, norm_of_channels, to_three),
    3: (*ANY, norm_of_channels, recurrent, attention, conv1d, from_three),
    4: (*ANY, norm_of_channels, conv2d, conv2d, pooling, from_four),
}
SHAPES = ((6,), (4, 6), (3, 5, 4))


@st.composite
def programs(draw: Any) -> tuple[Program, Tensor]:
    """A network and images for it."""
    torch.manual_seed(draw(st.integers(0, 999)))
    drawing = Drawing(draw)
    drawing.values.append(torch.randn(IMAGES, *drawing.choice(SHAPES)))
    images = drawing.values[0].clone()
    linear(drawing)
    for _ in range(drawing.number(1, 7)):
        drawing.choice(STEPS[drawing.last.ndim])(drawing)
        if drawing.last[0].numel() > 200:
            drawing.of_last(lambda x: x.flatten(1)[:, :30])
    return drawing.program, images


def assert_close(got: Any, expected: np.ndarray, tolerance: float = 2e-4) -> None:
    assert got.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, atol=tolerance * scale)


def run(network: Network, images: Tensor) -> Any:
    return drive(
        propagate(network, images.numpy()),
        lambda asked: product(asked[0], network.weights[asked[0].weight_name], asked[1]),
    )


several = settings(
    deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True
)


@several
@given(programs())
def test_torch_numpy_files_and_parts_agree(drawn: tuple[Program, Tensor]) -> None:
    module, images = drawn
    with torch.no_grad():
        expected = module(images).numpy()
    network = Network.from_torch(module)
    assert_close(run(network, images), expected)
    assert_close(run(trace(module).network, images), expected)
    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "n.safetensors")
        loaded = Network.load(Path(folder) / "n.safetensors")
    assert loaded.layers == network.layers
    with torch.no_grad():
        assert_close(loaded.to_torch()(images).numpy(), expected)
    for batch in (1, 2):
        assert_close(forward(loaded, images.numpy(), batch=batch), expected)


@pytest.mark.long
@settings(several, max_examples=25)
@given(programs())
def test_the_array_holds_all_weights(drawn: tuple[Program, Tensor]) -> None:
    module, images = drawn
    weights = tensors_from(module)
    mapping = map_network(weights, GEOMETRY)
    encoding = calibrate_module(module, mapping, images, input_bits=16)
    network = trace(module).network
    without = network.with_weights({n: np.zeros_like(w) for n, w in weights.items()})
    with torch.no_grad():
        expected = module(images)
        for stored, wanted, tolerance in (
            (StoredMap(mapping.target_map_s, 24), expected.numpy(), 5e-3),
            (StoredMap(0 * mapping.target_map_s, 8), run(without, images), 2e-4),
        ):
            with attach(module, mapping, encoding, stored) as counts:
                got = module(images).numpy()
            assert_close(got, wanted, tolerance)
            assert set(counts.vectors) == mapping.names
            assert not counts.digital
        assert torch.equal(module(images), expected)
