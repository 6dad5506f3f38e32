"""Every kind of layer as torch computes it itself: in torch, in NumPy, and in training."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from rram_hil.array import drive
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks import layers as kinds
from rram_hil.networks.network import Network, product, propagate

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from rram_hil.networks.pytorch.module import TorchNetwork  # noqa: E402
from rram_hil.networks.pytorch.operations import walk  # noqa: E402

Layers = tuple[Any, ...]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(layers: Layers, inputs: int = 1, result: Any = None, **tensors: Any) -> Network:
    """A network with random weights, biases and digital tensors."""
    blank = {
        name: np.zeros(shape, np.float32)
        for layer in layers
        if not isinstance(layer, kinds.Recurrent) and hasattr(layer, "weight_shape")
        for name, shape in ((layer.weight_name, layer.weight_shape),)
        if not layer.digital
    }
    for layer in layers:
        if isinstance(layer, kinds.Recurrent) and not layer.digital:
            blank |= {p.name: np.zeros(p.weight_shape, np.float32) for p in layer.products}
    weights = {n: values(*w.shape, seed=len(n)).numpy() / 3 for n, w in blank.items()}
    biases = {n: values(len(w), seed=9).numpy() for n, w in weights.items()}
    arrays = {name.replace("__", "."): np.asarray(tensor) for name, tensor in tensors.items()}
    return Network(layers, weights, biases, arrays, inputs, result)


def in_torch(net: Network, *inputs: Tensor, training: bool = False) -> Any:
    module = TorchNetwork(net).train(training)
    return module(*inputs)


def in_numpy(net: Network, *inputs: Tensor) -> Any:
    return drive(
        propagate(net, *(value.numpy() for value in inputs)),
        lambda asked: product(asked[0], net.weights[asked[0].weight_name], asked[1]),
    )


def check(net: Network, expected: Any, *inputs: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(in_torch(net, *inputs), expected, rtol=1e-5, atol=1e-5)
    for got, wanted in zip(parts(in_numpy(net, *inputs)), parts(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def parts(tree: Any) -> list[Any]:
    if isinstance(tree, tuple | list):
        return [part for branch in tree for part in parts(branch)]
    return [tree.numpy() if isinstance(tree, Tensor) else tree]


IMAGES, SIGNAL, MATRIX = (3, 4, 9, 7), (3, 4, 11), (5, 6)


def named(kind: str, **fields: Any) -> Any:
    return getattr(kinds, kind)(name="layer", **fields)


# Layers of one input and no weight: the layer, the input's shape, what torch makes of it.
CASES: list[tuple[Any, tuple[int, ...], Callable[[Tensor], Any]]] = [
    (named("ReLU"), MATRIX, torch.relu),
    (named("Tanh"), MATRIX, torch.tanh),
    (named("Softmax", dim=-1), MATRIX, lambda x: x.softmax(-1)),
    (named("Softmax", dim=0, log=True), MATRIX, lambda x: x.log_softmax(0)),
    (named("Reduce", function="mean"), IMAGES, lambda x: x.mean()),
    (named("Reduce", function="mean", dims=(2, 3)), IMAGES, lambda x: x.mean((2, 3))),
    (named("Reduce", function="sum", dims=(-1,), keepdim=True), IMAGES, lambda x: x.sum(-1, True)),
    (named("Reduce", function="amax", dims=(1,)), IMAGES, lambda x: x.amax(1)),
    (named("Reduce", function="amin", dims=(0, 1)), IMAGES, lambda x: x.amin((0, 1))),
    (named("Reduce", function="var", dims=(1,)), IMAGES, lambda x: x.var(1)),
    (named("Reduce", function="std", correction=0.0), IMAGES, lambda x: x.std(correction=0)),
    (
        named("MaxPool2d", kernel=(3, 2), stride=(2, 1), padding=(1, 1), dilation=(2, 1)),
        IMAGES,
        nn.MaxPool2d((3, 2), (2, 1), (1, 1), (2, 1)),
    ),
    (
        named("MaxPool2d", kernel=(2, 2), stride=(2, 2), ceil_mode=True),
        IMAGES,
        nn.MaxPool2d(2, ceil_mode=True),
    ),
    (
        named("AvgPool2d", kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
        IMAGES,
        nn.AvgPool2d(3, 2, 1),
    ),
    (
        named(
            "AvgPool2d",
            kernel=(3, 2),
            stride=(2, 2),
            padding=(1, 0),
            ceil_mode=True,
            count_include_pad=False,
        ),
        IMAGES,
        nn.AvgPool2d((3, 2), 2, (1, 0), True, False),
    ),
    (
        named("AvgPool2d", kernel=(2, 2), stride=(2, 2), divisor=3),
        IMAGES,
        nn.AvgPool2d(2, divisor_override=3),
    ),
    (named("AdaptivePool2d", function="mean", size=(4, 3)), IMAGES, nn.AdaptiveAvgPool2d((4, 3))),
    (
        named("AdaptivePool2d", function="max", size=(None, 2)),
        IMAGES,
        nn.AdaptiveMaxPool2d((None, 2)),
    ),
    (named("Flatten"), IMAGES, nn.Flatten()),
    (named("Flatten", start=-2, end=3), IMAGES, nn.Flatten(2)),
    (named("Reshape", shape=(-1, 12)), (3, 4, 6), lambda x: x.reshape(-1, 12)),
    (named("Unflatten", dim=-1, shape=(2, -1)), MATRIX, lambda x: x.unflatten(-1, (2, -1))),
    (named("Permute", dims=(2, 0, 1)), SIGNAL, lambda x: x.permute(2, 0, 1)),
    (named("Transpose", dims=(-1, 1)), SIGNAL, lambda x: x.transpose(-1, 1)),
    (named("Squeeze"), (3, 1, 4, 1), lambda x: x.squeeze()),
    (named("Squeeze", dims=(1,)), (3, 1, 4, 1), lambda x: x.squeeze(1)),
    (named("Unsqueeze", dim=-1), MATRIX, lambda x: x.unsqueeze(-1)),
    (named("Expand", shape=(3, -1, 6)), (5, 1), lambda x: x.expand(3, -1, 6)),
    (named("Repeat", counts=(2, 1, 3)), MATRIX, lambda x: x.repeat(2, 1, 3)),
    (named("Concat", dim=1, of=("input", "input")), MATRIX, lambda x: torch.cat((x, x), 1)),
    (
        named("Concat", dim=1, of=("input", "input"), new=True),
        MATRIX,
        lambda x: torch.stack((x, x), 1),
    ),
    (named("Chunk", chunks=3, dim=1, index=2), (2, 7), lambda x: x.chunk(3, 1)[2]),
    (named("Narrow", dim=1, start=2, length=3), MATRIX, lambda x: x[:, 2:5]),
    (named("Narrow", dim=1, start=4, length=30), MATRIX, lambda x: x[:, 4:]),
    (named("Narrow", dim=-1, start=-2, length=1), MATRIX, lambda x: x[:, -2:-1]),
    (named("Select", dim=1, index=-2), MATRIX, lambda x: x[:, -2]),
    (
        named("Index", entries=("...", "new", (1, None, 2), 3)),
        IMAGES,
        lambda x: x[..., None, 1::2, 3],
    ),
    (named("Pad", amounts=(1, -2, 0, 3)), IMAGES, lambda x: functional.pad(x, (1, -2, 0, 3))),
    (named("Pad", amounts=(1, 2), value=0.5), SIGNAL, nn.ConstantPad1d((1, 2), 0.5)),
    (named("Pad", amounts=(1, 2, 2, 1), mode="reflect"), IMAGES, nn.ReflectionPad2d((1, 2, 2, 1))),
    (named("Pad", amounts=(3, 1), mode="replicate"), SIGNAL, nn.ReplicationPad1d((3, 1))),
    (named("Pad", amounts=(3, 1), mode="circular"), SIGNAL, nn.CircularPad1d((3, 1))),
    (named("Dropout", p=0.5), MATRIX, lambda x: x),
    (named("Upsample", scale=(2, 3)), IMAGES, nn.Upsample(scale_factor=(2.0, 3.0))),
    (named("GroupNorm", groups=2, eps=1e-3), IMAGES, nn.GroupNorm(2, 4, 1e-3, affine=False)),
    (named("GroupNorm", groups=0, eps=1e-5), IMAGES, nn.InstanceNorm2d(4)),
    (named("LayerNorm", dims=2, eps=1e-5), IMAGES, nn.LayerNorm((9, 7), elementwise_affine=False)),
    (
        named("Einsum", equation="ij,kj->ik", of=("input", "input")),
        MATRIX,
        lambda x: torch.einsum("ij,kj->ik", x, x),
    ),
    (named("Embedding", tensor="table"), (2, 3), lambda x: TABLE[x.long()]),
]  # fmt: skip
TABLE = values(10, 4)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"), CASES, ids=lambda c: getattr(c, "kind", "")
)
def test_each_kind_is_what_torch_computes(
    layer: Any, shape: tuple[int, ...], expected: Callable[[Tensor], Any]
) -> None:
    table = isinstance(layer, kinds.Embedding)
    x = torch.arange(6.0).reshape(shape) if table else values(*shape)
    check(network((layer,), **({"table": TABLE} if table else {})), expected(x), x)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, ...]]] = {
    "sigmoid": (torch.sigmoid, ()),
    "gelu": (functional.gelu, ()),
    "gelu_tanh": (nn.GELU("tanh"), ()),
    "silu": (functional.silu, ()),
    "leaky_relu": (nn.LeakyReLU(0.2), (0.2,)),
    "elu": (nn.ELU(0.7), (0.7,)),
    "celu": (nn.CELU(0.7), (0.7,)),
    "selu": (functional.selu, ()),
    "clamp": (nn.Hardtanh(-0.5, 0.8), (-0.5, 0.8)),
    "hardswish": (functional.hardswish, ()),
    "hardsigmoid": (functional.hardsigmoid, ()),
    "softplus": (nn.Softplus(2.0, 1.0), (2.0, 1.0)),
    "softsign": (functional.softsign, ()),
    "mish": (functional.mish, ()),
    "logsigmoid": (functional.logsigmoid, ()),
    "exp": (torch.exp, ()),
    "log": (lambda x: x.abs().log(), ()),
    "sqrt": (lambda x: x.abs().sqrt(), ()),
    "rsqrt": (lambda x: x.abs().rsqrt(), ()),
    "abs": (torch.abs, ()),
    "neg": (torch.neg, ()),
    "sin": (torch.sin, ()),
    "cos": (torch.cos, ()),
    "erf": (torch.erf, ()),
    "square": (torch.square, ()),
    "reciprocal": (torch.reciprocal, ()),
    "not": (lambda x: ~(x > 0), ()),
}


@pytest.mark.parametrize("function", get_args(kinds.Function))
def test_functions_of_each_value_are_those_of_torch(function: str) -> None:
    expected, parameters = FUNCTIONS[function]
    before: Layers = ()
    if function in ("log", "sqrt", "rsqrt"):
        before = (kinds.Elementwise(name="before", function="abs"),)
    if function == "not":
        before = (kinds.Arithmetic(name="before", operator="gt", scalar=0.0),)
    x = 3 * values(4, 50)
    layer = kinds.Elementwise(name="layer", function=function, parameters=parameters)
    check(network((*before, layer)), expected(x), x)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "pow": lambda a, b: a**b,
    "maximum": lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b)),
    "minimum": lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b)),
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_take_layers_and_numbers_on_either_side(operator: Any) -> None:
    x, y = values(4, 5).abs() + 0.5, values(5, seed=1).abs() + 0.5
    of_two = kinds.Arithmetic(name="layer", operator=operator, of=("input", "input_1"))
    check(network((of_two,), inputs=2), OPERATORS[operator](x, y), x, y)
    for swapped in (False, True):
        layer = kinds.Arithmetic(name="layer", operator=operator, scalar=1.5, swapped=swapped)
        sides = (1.5, x) if swapped else (x, 1.5)
        check(network((layer,)), OPERATORS[operator](*sides), x)


def test_truth_values_are_joined_and_choose() -> None:
    x, y = values(6, 6), values(6, 6, seed=1)
    truths = (
        kinds.Arithmetic(name="high", operator="gt", scalar=0.0, of=("input",)),
        kinds.Arithmetic(name="low", operator="lt", scalar=0.0, of=("input_1",)),
    )
    for operator, joined in (("and", (x > 0) & (y < 0)), ("or", (x > 0) | (y < 0))):
        both = kinds.Arithmetic(name="both", operator=operator, of=("high", "low"))
        chosen = kinds.Where(name="chosen", of=("both", "input", "input_1"))
        check(network((*truths, both, chosen), inputs=2), torch.where(joined, x, y), x, y)
        filled = kinds.Where(name="filled", of=("both", "input"), value=-3.0)
        check(network((*truths, both, filled), inputs=2), x.masked_fill(joined, -3.0), x, y)


ALL = (None, None, None)


def test_sizes_are_known_when_it_runs() -> None:
    x = values(3, 4, 10)
    layers = (
        kinds.SizeOf(name="length", dim=2),
        kinds.Arithmetic(name="half", operator="floordiv", scalar=2),
        kinds.Arithmetic(name="last", operator="sub", scalar=1),
        kinds.Full(name="ones", shape=("half", 1), value=1.0),
        kinds.Narrow(name="start", dim=2, start=0, length="half", of=("input",)),
        kinds.MatMul(name="sums", of=("start", "ones")),
        kinds.Select(name="value", dim=2, index="last", of=("input",)),
        kinds.Index(name="rest", entries=(ALL, 0, ("half", None, None)), of=("input",)),
        kinds.Reshape(name="flat", shape=(-1, "half"), of=("rest",)),
    )  # fmt: skip
    net = network(layers, result=("sums", "value", "flat", "half"))
    check(net, (x[..., :5].sum(2, True), x[:, :, 4], x[:, 0, 5:], 5), x)
    check(net, (x[..., :4].sum(2, True), x[:, :, 3], x[:, 0, 4:8], 4), x[..., :8])


def test_constants_and_nested_results() -> None:
    shift = values(5, seed=3)
    layers = (
        kinds.Constant(name="shift", tensor="position.shift"),
        kinds.Arithmetic(name="moved", operator="add", of=("input", "shift")),
    )
    net = network(layers, result={"moved": "moved", "all": ("input", "shift", 7)},
                  position__shift=shift)  # fmt: skip
    x = values(2, 5)
    got = in_torch(net, x)
    assert torch.equal(got["moved"], x + shift)
    assert torch.equal(got["all"][0], x)
    assert torch.equal(got["all"][1], shift)
    assert got["all"][2] == 7


def filled(module: nn.Module, net: Network, names: dict[str, str]) -> nn.Module:
    """`module` with the tensors of `net`, by the module's names."""
    tensors = {f"{n}.weight": w for n, w in net.weights.items()}
    tensors |= {f"{n}.bias": b for n, b in net.biases.items()} | dict(net.tensors)
    state = {own: torch.tensor(tensors[name]) for own, name in names.items()}
    module.load_state_dict(state, strict=True)
    return module


PRODUCTS: list[tuple[Any, nn.Module, tuple[int, ...]]] = [
    (kinds.Linear(name="w", inputs=6, outputs=4), nn.Linear(6, 4), (5, 6)),
    (kinds.Linear(name="w", inputs=6, outputs=4), nn.Linear(6, 4), (2, 3, 5, 6)),
    (kinds.Linear(name="w", inputs=6, outputs=4), nn.Linear(6, 4), (6,)),
    (
        kinds.Conv2d(name="w", inputs=4, outputs=6, kernel=(3, 2), stride=(2, 1), padding=(1, 0)),
        nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0)),
        IMAGES,
    ),
    (
        kinds.Conv2d(name="w", inputs=4, outputs=8, kernel=(3, 3), dilation=(2, 1), groups=4),
        nn.Conv2d(4, 8, 3, dilation=(2, 1), groups=4),
        IMAGES,
    ),
    (
        kinds.Conv1d(
            name="w",
            inputs=4,
            outputs=6,
            kernel=(1, 3),
            stride=(1, 2),
            padding=(0, 1),
            dilation=(1, 2),
            groups=2,
        ),
        nn.Conv1d(4, 6, 3, 2, 1, 2, 2),
        SIGNAL,
    ),
]


@pytest.mark.parametrize(("layer", "module", "shape"), PRODUCTS)
@pytest.mark.parametrize("digital", [False, True])
def test_products_are_those_of_torch(
    layer: Any, module: nn.Module, shape: tuple[int, ...], digital: bool
) -> None:
    net = network((layer,))
    module = filled(module, net, {"weight": "w.weight", "bias": "w.bias"})
    if digital:
        off = layer.model_copy(update={"digital": True})
        net = Network((off,), {}, {}, {"w.weight": net.weights["w"], "w.bias": net.biases["w"]})
        assert not net.matrices
    x = values(*shape)
    with torch.no_grad():
        check(net, module(x), x)


def test_layers_share_a_weight_by_its_rows() -> None:
    whole = {"inputs": 6, "outputs": 9, "weight": "all"}
    layers = (
        kinds.Linear(name="a", rows=(0, 3), **whole),
        kinds.Linear(name="b", rows=(3, 9), biased=False, of=("input",), **whole),
    )
    net = network(layers, result=("a", "b"))
    x, weight, bias = (
        values(2, 6),
        torch.tensor(net.weights["all"]),
        torch.tensor(net.biases["all"]),
    )
    check(net, (x @ weight[:3].T + bias[:3], x @ weight[3:].T), x)


RECURRENT = [
    ("lstm", nn.LSTM, {}),
    ("gru", nn.GRU, {}),
    ("tanh", nn.RNN, {}),
    ("relu", nn.RNN, {"nonlinearity": "relu"}),
]


def recurrent(
    cell: Any, build: Any, options: dict[str, Any], **fields: Any
) -> tuple[Network, nn.Module]:
    layer = kinds.Recurrent(name="r", cell=cell, inputs=5, hidden=4, layers=2, **fields)
    net = network((layer,))
    two = layer.directions == 2
    dropout = fields.get("dropout", 0.0)
    module = build(5, 4, 2, batch_first=True, bidirectional=two, dropout=dropout, **options)
    names = {}
    for product_layer in layer.products:
        which, _, end = product_layer.name.removeprefix("r.").partition("_")
        for what in ("weight", "bias"):
            names[f"{what}_{which}_{end}"] = f"{product_layer.name}.{what}"
    return net, filled(module, net, names)


@pytest.mark.parametrize(("cell", "build", "options"), RECURRENT)
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_networks_are_those_of_torch(
    cell: Any, build: Any, options: dict[str, Any], directions: int
) -> None:
    net, module = recurrent(cell, build, options, directions=directions)
    x = values(3, 7, 5)
    states = (values(2 * directions, 3, 4, seed=1), values(2 * directions, 3, 4, seed=2))
    for first in ((), states[: 2 if cell == "lstm" else 1]):
        of = ("input", *(f"input_{k + 1}" for k in range(len(first))))
        graph = (
            net.layers[0].model_copy(update={"of": of}),
            *(kinds.Part(name=f"part{k}", index=k, of=("r",)) for k in range(2)),
        )
        taking = Network(graph, net.weights, net.biases, {}, 1 + len(first), ("part0", "part1"))
        with torch.no_grad():
            given = module(x, (first if cell == "lstm" else first[0]) if first else None)
            outputs, last = given
            check(taking, (outputs, last[0] if cell == "lstm" else last), x, *first)
            if cell == "lstm":
                torch.testing.assert_close(in_torch(net, x)[2].shape, last[1].shape)


@pytest.mark.parametrize(("cell", "build", "options"), RECURRENT)
def test_gradients_of_recurrent_networks_are_those_of_torch(
    cell: Any, build: Any, options: dict[str, Any]
) -> None:
    # A dropout of 1 between the layers leaves no chance to chance.
    net, module = recurrent(cell, build, options, dropout=1.0)
    walked, x = TorchNetwork(net).train(), values(3, 6, 5)
    walked(x)[0].square().sum().backward()
    module.train()(x)[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        what, which, end = name.split("_", 2)
        got = walked.named_tensors()[f"r.{which}_{end}.{what}"].grad
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-5)


def attention(**fields: Any) -> Network:
    of = ("input", "input_1", "input_2", "input_3")
    return network((named("Attention", of=of, **fields),), inputs=4)


def test_attention_is_that_of_torch() -> None:
    q, k, v = (values(2, 3, 5, 8, seed=seed) for seed in range(3))
    added, seen = values(5, 5, seed=4), values(2, 1, 5, 5, seed=5) > -0.7
    assert not seen.all()
    assert seen.any(-1).all()
    sdpa = functional.scaled_dot_product_attention
    check(attention(), sdpa(q, k, v, added), q, k, v, added)
    check(attention(scale=0.2), sdpa(q, k, v, seen, scale=0.2), q, k, v, seen)
    check(attention(hides=True), sdpa(q, k, v, seen), q, k, v, ~seen)
    early = torch.ones(5, 5, dtype=torch.bool).tril()
    diagonal = seen | torch.eye(5, dtype=torch.bool)
    check(attention(causal=True), sdpa(q, k, v, diagonal & early), q, k, v, diagonal)
    later = torch.zeros(5, 5).masked_fill(~early, -torch.inf)
    check(attention(causal=True), sdpa(q, k, v, added + later), q, k, v, added)
    weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5 + added, -1)
    check(attention(gives="weights"), weights, q, k, v, added)
    plain = network(
        (named("Attention", of=("input", "input_1", "input_2"), causal=True),), inputs=3
    )
    check(plain, sdpa(q, k, v, is_causal=True), q, k, v)


def test_norms_have_their_tensors() -> None:
    x, weight, bias = values(*IMAGES), values(4, seed=1), values(4, seed=2)
    tensors = {"w": weight, "b": bias}
    check(
        network((named("GroupNorm", groups=2, eps=1e-5, weight="w", bias="b"),), **tensors),
        functional.group_norm(x, 2, weight, bias),
        x,
    )
    last = x.permute(0, 2, 3, 1).contiguous()
    check(
        network((named("LayerNorm", dims=1, eps=1e-4, weight="w", bias="b"),), **tensors),
        functional.layer_norm(last, (4,), weight, bias, 1e-4),
        last,
    )
    check(
        network((named("LayerNorm", dims=1, eps=1e-4, weight="w", rms=True),), w=weight),
        functional.rms_norm(last, (4,), weight, 1e-4),
        last,
    )


def batch_norm(
    channels: int = 4, momentum: float | None = 0.1, affine: bool = True
) -> tuple[Network, dict[str, str]]:
    layer = kinds.BatchNorm(
        name="norm", channels=channels, eps=1e-3, momentum=momentum, affine=affine
    )
    tensors = {
        "norm__running_mean": values(channels, seed=1),
        "norm__running_var": values(channels, seed=2).abs() + 0.1,
        "norm__num_batches_tracked": torch.tensor(3),
    }
    if affine:
        tensors |= {
            "norm__weight": values(channels, seed=3),
            "norm__bias": values(channels, seed=4),
        }
    own = [name.removeprefix("norm__") for name in tensors]
    return network((layer,), **tensors), {name: f"norm.{name}" for name in own}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [IMAGES, (6, 4), SIGNAL])
def test_batch_norms_run_and_learn_as_those_of_torch(
    momentum: float | None, affine: bool, shape: tuple[int, ...]
) -> None:
    net, names = batch_norm(4, momentum, affine)
    build = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    module = filled(build(4, 1e-3, momentum, affine), net, names).eval()
    x = values(*shape)
    with torch.no_grad():
        check(net, module(x), x)
    walked = TorchNetwork(net).train()
    module.train()
    for seed in (5, 6):
        mine, theirs = (values(*shape, seed=seed).requires_grad_() for _ in range(2))
        got, expected = walked(mine), module(theirs)
        torch.testing.assert_close(got, expected)
        got.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad)
    state = module.state_dict()
    for name, tensor in walked.named_tensors().items():
        torch.testing.assert_close(tensor.detach(), state[name.removeprefix("norm.")])


def test_a_batch_norm_that_cannot_know_its_share_says_so() -> None:
    net, _ = batch_norm(momentum=None)
    tensors = {n: t for n, t in net.tensors.items() if not n.endswith("tracked")}
    walked = TorchNetwork(Network(net.layers, {}, {}, tensors)).train()
    with pytest.raises(ConfigError, match=r"norm\.num_batches_tracked"):
        walked(values(*IMAGES))


def test_dropout_drops_values_or_channels_in_training_only() -> None:
    x = torch.ones(8, 10, 6, 6)
    for channels, drop in ((False, nn.Dropout(0.3)), (True, nn.Dropout2d(0.3))):
        net = network((named("Dropout", p=0.3, channels=channels),))
        torch.manual_seed(0)
        expected = drop(x)
        torch.manual_seed(0)
        got = in_torch(net, x, training=True)
        assert torch.equal(got, expected)
        assert torch.equal(in_torch(net, x), x)


def mixture() -> Network:
    """A bit of everything that has tensors or constants of its own."""
    norm, _ = batch_norm()
    layers = (
        kinds.Conv2d(name="conv", inputs=4, outputs=4, kernel=(3, 3), padding=(1, 1)),
        *norm.layers,
        kinds.Permute(name="last", dims=(0, 2, 3, 1)),
        kinds.Constant(name="shift", tensor="shift"),
        kinds.Arithmetic(name="moved", operator="add", of=("last", "shift")),
        kinds.LayerNorm(name="ln", dims=1, eps=1e-5, weight="w", bias="b"),
        kinds.Reshape(name="words", shape=(3, -1, 4)),
        kinds.Attention(name="attention", of=("words", "words", "words"), causal=True),
        kinds.Full(name="half", shape=(1,), value=0.5),
        kinds.Arithmetic(name="smaller", operator="mul", of=("attention", "half")),
        kinds.Recurrent(name="gru", cell="gru", inputs=4, hidden=3),
        kinds.Part(name="outputs", index=0),
        kinds.Linear(name="off", inputs=3, outputs=2, digital=True),
    )
    tensors = {n.replace(".", "__"): t for n, t in norm.tensors.items()}
    return network(
        layers,
        **tensors,
        shift=values(4, seed=6),
        w=values(4, seed=7),
        b=values(4, seed=8),
        off__weight=values(2, 3),
        off__bias=values(2),
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.15)])
def test_activations_of_other_types_meet_float32_tensors(
    dtype: Any, tolerance: float, training: bool
) -> None:
    net, x = mixture(), values(*IMAGES)
    expected = TorchNetwork(net).train(training)
    wanted = expected(x)
    own = TorchNetwork(net)
    tensors = own.named_tensors()

    def multiply(layer: Any, activity: Tensor) -> Tensor:
        assert activity.dtype == dtype
        from rram_hil.networks.pytorch.operations import product as torch_product

        weight, bias = (
            tensors[f"{layer.weight_name}.{what}"].to(dtype) for what in ("weight", "bias")
        )
        return torch_product(layer, activity, weight, bias)

    got = walk(net, tensors, [x.to(dtype)], multiply, training=training)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), wanted, rtol=tolerance, atol=tolerance)
    converted = TorchNetwork(net).to(dtype).train(training)
    torch.testing.assert_close(
        converted(x.to(dtype)).float(), wanted, rtol=tolerance, atol=tolerance
    )
    statistics = [name for name in tensors if "running" in name]
    for name in statistics:
        torch.testing.assert_close(
            tensors[name], expected.named_tensors()[name], rtol=tolerance, atol=tolerance
        )


def test_values_are_freed_once_nothing_takes_them() -> None:
    layers = (
        kinds.ReLU(name="first"),
        kinds.Tanh(name="second"),
        kinds.Linear(name="third", inputs=4, outputs=4),
    )
    net, seen = network(layers), []
    names = iter(("first", "second"))

    def multiply(layer: Any, activity: Tensor) -> Tensor:
        assert next(names) == "first"
        assert [reference() is None for reference in seen] == [True, False]
        return activity

    import rram_hil.networks.pytorch.operations as operations

    original = dict(operations._OPERATIONS)
    try:
        for kind in (kinds.ReLU, kinds.Tanh):

            def noted(walk_: Any, layer: Any, x: Tensor, kind: Any = kind) -> Tensor:
                given = original[kind](walk_, layer, x)
                seen.append(weakref.ref(given))
                return given

            operations._OPERATIONS[kind] = noted
        with torch.no_grad():
            walk(net, {}, [values(2, 4)], multiply)
    finally:
        operations._OPERATIONS.update(original)


def test_an_input_of_another_rank_and_number_is_refused() -> None:
    net = network((named("Transpose", dims=(0, 1), rank=2),))
    with pytest.raises(DataError, match="layer: takes 2 dimensions"):
        in_torch(net, values(2, 2, 2))
    with pytest.raises(DataError, match="takes 1 inputs, not 2"):
        in_torch(net, values(2, 2), values(2, 2))


def test_every_kind_of_layer_is_compared_with_torch() -> None:
    compared = {type(layer) for layer, *_ in (*CASES, *PRODUCTS)} | {
        kinds.Recurrent, kinds.Part, kinds.Elementwise, kinds.Arithmetic, kinds.Where, kinds.SizeOf,
        kinds.Full, kinds.MatMul, kinds.Constant, kinds.Attention, kinds.BatchNorm,
    }  # fmt: skip
    assert compared == set(get_args(kinds.Layer))


def test_a_torch_network_is_the_network_with_its_names() -> None:
    net = mixture()
    state = torch.random.get_rng_state()
    module = TorchNetwork(net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module.training
    names = set(module.state_dict())
    assert {"tensors.conv.weight", "tensors.gru.hh_l0.bias", "tensors.norm.running_var"} <= names
    trained = {name for name, _ in module.named_parameters()}
    assert not any("running" in name or "tracked" in name for name in trained)
    with torch.no_grad():
        module.tensors.conv.weight.add_(1.0)
    later = copy.deepcopy(module).double().network()
    assert np.allclose(later.weights["conv"], net.weights["conv"] + 1)
    assert later.tensors["norm.num_batches_tracked"].dtype.kind == "i"
    assert later.layers == net.layers
    assert all(np.array_equal(later.tensors[name], net.tensors[name]) for name in net.tensors)


def test_layers_may_have_the_names_of_methods() -> None:
    layers = tuple(
        kinds.Linear(name=name, inputs=3, outputs=3) for name in ("half", "train", "forward.to")
    )
    net, x = network(layers), values(2, 3)
    expected = x
    for name in net.weights:
        expected = expected @ torch.tensor(net.weights[name]).T + torch.tensor(net.biases[name])
    torch.testing.assert_close(TorchNetwork(net).double().eval()(x.double()).float(), expected)
