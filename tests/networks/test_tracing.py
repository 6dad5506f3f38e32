"""What is traced is what a module computes, or it is refused: every way in which a module can hide,
share, change or skip something.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rram_hil.array import drive
from rram_hil.errors import BenchError, ConfigError, DataError
from rram_hil.networks.network import Network, forward, product, propagate, tensors_from

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

from rram_hil.networks.pytorch.tracing import trace  # noqa: E402

Function = Callable[[Any, Tensor], Any]


class Module(nn.Module):
    """A module with these children (or parameters, buffers, attributes), and this forward pass."""

    def __init__(self, run: Function, **children: Any) -> None:
        super().__init__()
        self.run = run
        for name, child in children.items():
            if isinstance(child, Tensor) and not isinstance(child, nn.Parameter):
                self.register_buffer(name, child)
            else:
                setattr(self, name, child)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Loose(Module):
    """As `Module`, with whatever arguments there are."""

    def forward(self, *given: Any) -> Any:
        return self.run(self, *given)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3)))


def linear(inputs: int = 6, outputs: int = 6, **options: Any) -> nn.Linear:
    torch.manual_seed(inputs + 7 * outputs)
    return nn.Linear(inputs, outputs, **options)


def some(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def evaluated(network: Network, *inputs: Tensor) -> Any:
    return drive(
        propagate(network, *(x.numpy() for x in inputs)),
        lambda asked: product(asked[0], network.weights[asked[0].weight_name], asked[1]),
    )


def assert_same(module: nn.Module, *inputs: Tensor, allow: tuple[str, ...] = ()) -> Network:
    """Torch and the traced network agree, and the module is as it was."""
    state = {name: vars(m).copy() for name, m in module.named_modules()}
    generator = torch.random.get_rng_state()
    network = Network.from_torch(module.eval(), inputs=len(inputs), allow_digital=allow)
    assert torch.equal(generator, torch.random.get_rng_state())
    for name, child in module.named_modules():
        now = vars(child)
        assert now.keys() == state[name].keys()
        for key in now.keys() - {"training"}:
            assert now[key] is state[name][key], f"{name}.{key}"
    with torch.no_grad():
        expected = module(*(x.clone() for x in inputs))
    got = evaluated(network, *inputs)
    pairs = zip(
        got if isinstance(got, tuple) else (got,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    )
    for one, other in pairs:
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other.numpy(), atol=1e-5)
    return network


def scaled(module: nn.Module, factor: float = 3.0) -> nn.Module:
    module.register_forward_hook(lambda m, given, out: out * factor)
    return module


def before(module: nn.Module, factor: float = 3.0) -> nn.Module:
    module.register_forward_pre_hook(lambda m, given: (given[0] * factor, *given[1:]))
    return module


def patched(module: nn.Module, run: Callable[..., Any]) -> nn.Module:
    module.forward = run  # type: ignore[method-assign]
    return module


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def parametrized(module: nn.Module, name: str) -> nn.Module:
    parametrize.register_parametrization(module, name, Doubled())
    return module


class Residual(nn.Sequential):
    """A Sequential that does more than one."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class OwnLinear(nn.Linear):
    """A linear layer that does more than one."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) + 1


class Straight(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def compiled() -> nn.Module:
    """What torch.compile gives, without compiling."""
    from torch._dynamo import OptimizedModule

    return OptimizedModule(nn.Sequential(linear()), lambda f: f)


SHARED = linear()
RELU = nn.ReLU()


def tied() -> nn.Module:
    one, other = linear(), linear(bias=False)
    other.weight = one.weight
    return nn.Sequential(other, nn.ReLU(), one, nn.Tanh(), other)


CONTAINERS: dict[str, Callable[[], nn.Module]] = {
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Sequential(linear()), nn.ReLU()), linear()),
    "list": lambda: Module(
        lambda s, x: s.layers[1](torch.relu(s.layers[0](x))),
        layers=nn.ModuleList([linear(), linear()]),
    ),
    "dict with odd names": lambda: Module(
        lambda s, x: s.d["x/y"](s.d["a b"](x)),
        d=nn.ModuleDict({"a b": linear(), "x/y": linear(), "é": nn.ReLU()}),
    ),
    "subclass of Sequential": lambda: nn.Sequential(Residual(linear(), nn.ReLU()), linear()),
    "subclass of Linear": lambda: nn.Sequential(OwnLinear(6, 4)),
    "forward of an instance": lambda: nn.Sequential(
        patched(linear(), lambda x: x * 2), linear()
    ).requires_grad_(False),
    "hook": lambda: nn.Sequential(scaled(linear()), nn.ReLU()),
    "hook on the root": lambda: scaled(nn.Sequential(linear(), nn.ReLU())),
    "hook before": lambda: nn.Sequential(before(linear()), nn.ReLU()),
    "parametrized weight": lambda: nn.Sequential(parametrized(linear(), "weight")),
    "parametrized bias": lambda: nn.Sequential(parametrized(linear(), "bias")),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(linear())),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(linear())),
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(linear())),
    "data parallel": lambda: nn.DataParallel(nn.Sequential(linear())),
    "data parallel inside": lambda: nn.Sequential(nn.DataParallel(linear())),
    "compiled": lambda: compiled(),
    "traced by torch.fx": lambda: torch.fx.symbolic_trace(nn.Sequential(linear(), nn.ReLU())),
    "no gradient": lambda: Module(torch.no_grad()(lambda s, x: s.l(x)), l=linear()),
    "shared module": lambda: nn.Sequential(SHARED, RELU, SHARED, RELU, SHARED),
    "shared weight": tied,
    "shared with its transpose": lambda: Module(
        lambda s, x: functional.linear(torch.relu(s.l(x)), s.l.weight.t()), l=linear(6, 4)
    ),
    "shared batch norm": lambda: (lambda norm: nn.Sequential(linear(), norm, RELU, linear(), norm))(
        nn.BatchNorm1d(6)
    ),
    "function of its own": lambda: Module(lambda s, x: s.l(Straight.apply(x)), l=linear()),
    "W @ x": lambda: Module(lambda s, x: (s.w @ x.t()).t(), w=weight(4, 6)),
    "x @ W": lambda: Module(lambda s, x: x @ s.w, w=weight(6, 4)),
    "x @ W.t()": lambda: Module(lambda s, x: x @ s.w.t(), w=weight(4, 6)),
    "x @ w of one dimension": lambda: Module(lambda s, x: x @ s.w, w=weight(6)),
    "w @ x.t() of one dimension": lambda: Module(lambda s, x: s.w @ x.t(), w=weight(6)),
    "addmm": lambda: Module(lambda s, x: torch.addmm(s.b, x, s.w), w=weight(6, 4), b=weight(4)),
    "computed weight": lambda: Module(
        lambda s, x: functional.linear(x, s.w * s.m), w=weight(4, 6), m=torch.eye(6)[:4]
    ),
    "weights of two": lambda: Module(
        lambda s, x: functional.linear(x, torch.cat([s.a.weight, s.b.weight]), s.c),
        a=linear(6, 2, bias=False),
        b=linear(6, 2, bias=False),
        c=weight(4),
    ),
    "slices of a weight": lambda: Module(
        lambda s, x: functional.linear(x, s.w[:2]) - functional.linear(x, s.w[2:]), w=weight(4, 6)
    ),
    "weight that is a buffer": lambda: Module(lambda s, x: x @ s.w, w=some(6, 4)),
    "tensor that is an attribute": lambda: Module(lambda s, x: x @ s.w[0], w=[some(6, 4)]),
    "weight made of the input": lambda: Module(
        lambda s, x: functional.linear(x, s.l(x)), l=linear()
    ),
    "names that fall together": lambda: Module(
        lambda s, x: s.a_b(torch.relu(s.a["b"](s.n_b(torch.relu(s.n["b"](x)))))),
        a_b=linear(),
        a=nn.ModuleDict({"b": linear(6, 6, bias=False)}),
        n=nn.ModuleDict({"b": nn.BatchNorm1d(6, eps=0.1)}),
        n_b=nn.BatchNorm1d(6, eps=1.0),
    ),
    "layers named as inputs": lambda: named(
        {"input": linear(), "input_1": nn.ReLU(), "a#2": linear()}
    ),
}


def named(modules: dict[str, nn.Module]) -> nn.Module:
    made = nn.Sequential()
    for name, module in modules.items():
        made.add_module(name, module)
    return made


def with_statistics(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(11)
    for name, tensor in module.named_buffers():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        if name.endswith("running_mean"):
            tensor.normal_(generator=generator)
    return module


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_module_is_what_it_computes(kind: str) -> None:
    module = with_statistics(CONTAINERS[kind]())
    allow = ("0",) if kind == "forward of an instance" else ()
    assert_same(module, some(5, 6), allow=allow)
    assert tensors_from(module, allow_digital=allow)


def in_place(*statements: str) -> Function:
    """A forward pass of statements on `x`, and `y`, which is a linear layer of it."""
    source = "\n    ".join(["def run(s, x):", "y = s.l(x)", *statements])
    scope: dict[str, Any] = {"torch": torch, "F": functional}
    exec(source, scope)
    return scope["run"]  # type: ignore[no-any-return]


IN_PLACE = {
    "+=": ("z = y", "y += x", "return y * z"),
    "-=": ("z = y", "y -= x", "return y * z"),
    "*=": ("z = y", "y *= 3", "return y * z"),
    "/=": ("z = y", "y /= 3", "return y * z"),
    "//=": ("z = y", "y //= 0.3", "return y + z"),
    "%=": ("z = y", "y %= 0.3", "return y + z"),
    "**=": ("z = y", "y **= 2", "return y * z"),
    "&=": ("m = y > 0", "n = m", "m &= x > 0", "return torch.where(n, y, x)"),
    "|=": ("m = y > 0", "n = m", "m |= x > 0", "return torch.where(n, y, x)"),
    "a method": ("z = y", "y.mul_(2)", "return y + z"),
    "a function": ("z = y", "torch.relu_(y)", "return y + z"),
    "inplace=True": ("z = F.relu(y, inplace=True)", "return y + z"),
    "a clone": ("z = y.clone()", "y.relu_()", "return y + z"),
    "a mask": ("z = y.masked_fill_(y > 0, -1.0)", "return y + z"),
    "a list": ("z = [y]", "z[0] += 1", "return y"),
    "new zeros": ("z = x.new_zeros(x.shape[0], 6)", "z += y", "return z"),
    "clamp_": ("y.clamp_(min=0)", "return y"),
    "unsqueeze_": ("y.unsqueeze_(1)", "return y"),
    "a size": ("n = x.shape[1]", "n //= 2", "return y[:, :n]"),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_is_changed_in_place_is_changed_for_all(kind: str) -> None:
    assert_same(Module(in_place(*IN_PLACE[kind]), l=linear()), some(5, 6))


@pytest.mark.parametrize(
    "statements",
    [
        ("v = y.view(-1)", "v.relu_()", "return y"),
        ("y[:, :3].relu_()", "return y"),
        ("y[:, 0] = 0", "return y"),
        ("y[y > 0] = 0", "return y"),
        ("a, b = y.chunk(2, 1)", "a.relu_()", "return y"),
        ("a, b = y.chunk(2, 1)", "y.relu_()", "return a + b"),
        ("z = y.T", "z += 1", "return y"),
        ("z = y.mT", "z += 1", "return y"),
        ("y.data.relu_()", "return y"),
        ("y.detach().relu_()", "return y"),
        ("z = y.contiguous()", "y.relu_()", "return z"),
        ("z = torch.einsum('ij->ji', y)", "z.relu_()", "return y"),
        ("z = F.dropout2d(y, 0.5, False)", "z.relu_()", "return y"),
        ("z = y.double()", "z.relu_()", "return y"),
        ("y.copy_(x)", "return y"),
        ("y.zero_()", "return y"),
        ("torch.add(x, y, out=y)", "return y"),
        ("s.b.add_(1)", "return y + s.b"),
        ("z = torch.zeros(5, 6)", "z += y", "return z"),
    ],
)
def test_what_other_views_would_show_is_refused(statements: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        Network.from_torch(Module(in_place(*statements), l=linear(), b=torch.zeros(6)).eval())


def counting(s: Any, x: Tensor) -> Tensor:
    s.calls += 1
    return s.l(x) * s.calls


def averaging(s: Any, x: Tensor) -> Tensor:
    s.mean = 0.9 * s.mean + 0.1 * s.l(x).mean(0)
    return s.l(x) - s.mean


def remembering(s: Any, x: Tensor) -> Tensor:
    s.state = s.l(x + s.state)
    return s.state


def swallowing(s: Any, x: Tensor) -> Tensor:
    try:
        if x.sum() > 0:
            return s.l(x) * 2
    except Exception:
        return s.l(x) * 3
    return s.l(x)


def in_bfloat16(s: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return s.l(x).float()


HIDDEN = linear()
AGAIN = "its forward pass is another one the second time"

REFUSED: dict[str, tuple[Function, str]] = {
    "a counter": (counting, AGAIN),
    "a buffer that is kept": (averaging, AGAIN),
    "a state that is kept": (remembering, AGAIN),
    "random of Python": (lambda s, x: s.l(x) * random.random(), AGAIN),
    "random of NumPy": (lambda s, x: s.l(x) + float(np.random.rand()), AGAIN),
    "random of torch": (lambda s, x: s.l(x) + torch.rand(6), "draws random numbers"),
    "rand_like": (lambda s, x: s.l(x) + torch.rand_like(x), "rand_like is not supported"),
    "dropout that does not stop": (
        lambda s, x: functional.dropout(s.l(x), 0.5),
        "dropout is not supported in evaluation: it drops at random",
    ),
    "dropout of attention": (
        lambda s, x: functional.scaled_dot_product_attention(s.l(x), x, x, dropout_p=0.5),
        "with dropout in evaluation",
    ),
    "if on a value": (lambda s, x: s.l(x) if x.sum() > 0 else x, "cannot be traced"),
    "if on a shape": (lambda s, x: s.l(x) if x.shape[0] > 1 else x, "cannot be traced"),
    "if, and except": (swallowing, "cannot be traced"),
    "item": (lambda s, x: s.l(x) * x.sum().item(), "item is not supported"),
    "NumPy": (lambda s, x: torch.from_numpy(s.l(x).numpy()), "cannot be traced"),
    "a module in a closure": (lambda s, x: s.l(HIDDEN(x)), "Linear: the forward pass cannot"),
    "a module made on the way": (lambda s, x: nn.Linear(6, 6)(s.l(x)), "no part of the module"),
    "half precision": (lambda s, x: s.l(x).half().float(), r"to torch\.float16: it rounds"),
    "bfloat16": (lambda s, x: s.l(x).to(torch.bfloat16).float(), r"to torch\.bfloat16: it rounds"),
    "autocast": (in_bfloat16, "autocast"),
    "whole numbers": (lambda s, x: s.l(x).long().float(), "it cuts fractions off"),
    "whole numbers by name": (
        lambda s, x: s.l(x).type("torch.LongTensor").float(),
        r"to torch\.LongTensor",
    ),
    "whole numbers as another": (lambda s, x: s.l(x).to(torch.tensor(1)).float(), "fractions"),
    "a weight of three dimensions": (lambda s, x: (x[:, None] @ s.w3)[0], "multiplies by w3"),
    "einsum with a weight": (
        lambda s, x: torch.einsum("bi,oi->bo", s.l(x), s.w),
        r"einsum multiplies by w of shape \(6, 6\)",
    ),
    "einsum with a buffer": (
        lambda s, x: torch.einsum("bi,oi->bo", s.l(x), s.b2),
        "einsum multiplies by b2",
    ),
    "a weight added": (lambda s, x: s.l(x) + s.w[:5], r"parameter w of shape \(5, 6\)"),
    "a weight left out": (lambda s, x: s.l(x), "does not use w of shape"),
    "a table": (lambda s, x: s.l(s.e(x)), r"looks up in e\.weight"),
    "a dict of inputs": (lambda s, x: s.l(x["a"]), "of a dict of inputs"),
    "keys that are no text": (lambda s, x: {0: s.l(x)}, "keys are not all text"),
    "numbers of a computed size": (lambda s, x: s.l(x) + torch.arange(x.shape[1]), "arange"),
    "indices of extremes": (lambda s, x: s.l(x).max(1).indices, "the places of the extremes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_another_network_is_refused(kind: str) -> None:
    run, message = REFUSED[kind]
    children: dict[str, Any] = {"l": linear(), "calls": 0, "mean": torch.zeros(6)}
    children |= {"state": 0.0, "b2": torch.ones(6, 6)}
    if kind in ("a weight of three dimensions",):
        children |= {"w3": weight(5, 6, 6)}
    if kind in ("einsum with a weight", "a weight added", "a weight left out"):
        children |= {"w": weight(6, 6)}
    if kind == "a table":
        children |= {"e": nn.Embedding(6, 6)}
    with pytest.raises(ConfigError, match=message) as error:
        Network.from_torch(Module(run, **children).eval())
    assert "\n" not in str(error.value)


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(linear()).eval())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lazy, r"module 1: LazyLinear does not know its shape yet; run the module once first"),
        (scripted, "scripted modules hide what they compute"),
        (lambda: nn.Sequential(scripted()), "module 0: scripted modules hide"),
        (
            lambda: nn.Sequential(torch.compile(linear(), backend="eager")),
            r"module 0 \(OptimizedModule\): its forward pass cannot be traced",
        ),
        (lambda: nn.Sequential(nn.utils.weight_norm(linear())), "WeightNorm of torch.nn.utils"),
        (lambda: nn.Sequential(nn.utils.spectral_norm(linear())), "SpectralNorm of torch"),
        (
            lambda: nn.Sequential(
                prune.l1_unstructured(linear(), "weight", 0.5)  # type: ignore[no-untyped-call]
            ),
            "L1Unstructured of torch",
        ),
        (
            lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(linear()), {nn.Linear}),
            "is no tensor of the module",
        ),
        (
            lambda: nn.Sequential(parametrized(nn.LSTM(6, 4), "weight_ih_l0")),
            r"module 0 \(ParametrizedLSTM\)",
        ),
        (lambda: nn.Sequential(scaled(nn.BatchNorm1d(6))), r"module 0 \(BatchNorm1d\)"),
        (
            lambda: nn.Sequential(before(encoder())),
            r"module 0 \(TransformerEncoder\): its forward pass cannot be traced",
        ),
        (lambda: nn.LSTMCell(6, 4), "LSTMCell: its forward pass cannot be traced"),
        (lambda: nn.Sequential(nn.Bilinear(6, 6, 4)), "cannot be traced"),
    ],
)
def test_modules_that_hide_what_they_compute_are_refused(
    build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Network.from_torch(build().eval())


def encoder(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


def test_hooks_for_all_modules_are_refused() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda m, given, out: None)
    try:
        with pytest.raises(ConfigError, match="hooks are registered for all modules"):
            Network.from_torch(nn.Sequential(linear()).eval())
    finally:
        handle.remove()
    assert Network.from_torch(nn.Sequential(linear()).eval()).weights


def test_a_tensor_that_is_asked_for_its_kind_is_one() -> None:
    for run in (
        lambda s, x: s.l(x) if isinstance(x, Tensor) else x,
        lambda s, x: s.l(x) if torch.is_tensor(x) else x,
        lambda s, x: s.l(x) if isinstance(x, (list, Tensor)) else x,
        lambda s, x: s.l(x) if not hasattr(x, "names_of_mine") else x,
        lambda s, x: s.l(x) if not s.training else x,
    ):
        assert_same(Module(run, l=linear()), some(5, 6))
    assert isinstance(torch.zeros(1), Tensor)


MASKS: dict[str, Function] = {
    "number": lambda s, x: s.l(x) * ((x > 0).float() + (x > -1).float()),
    "type_as": lambda s, x: s.l(x) * ((x > 0).type_as(x) + (x > -1).type_as(x)),
    "reshaped": lambda s, x: (
        s.l(x) * ((x > 0)[:, None].float() + (x > -1)[:, None].float()).squeeze(1)
    ),
    "both": lambda s, x: s.l(x) * ((x > 0) * (x > -1)).float() * -(x > 1).float(),
    "less": lambda s, x: s.l(x) * (1 - (x > 0).float()),
    "not": lambda s, x: s.l(x).masked_fill(~(x > 0), -2.0),
    "infinity": lambda s, x: s.l(x).masked_fill(x < x.mean(1, True), float("-inf")).softmax(1),
    "where": lambda s, x: torch.where((x > 0) | (x < -1), s.l(x), 0.5),
    "count": lambda s, x: s.l(x) / (x > -9).sum(1, keepdim=True),
}


@pytest.mark.parametrize("kind", MASKS)
def test_truth_values_count_as_numbers_where_they_are_made_some(kind: str) -> None:
    assert_same(Module(MASKS[kind], l=linear()), some(5, 6))


def test_truth_values_as_an_input_count_as_numbers() -> None:
    def run(s: Any, x: Tensor, mask: Tensor) -> Tensor:
        wide = mask.unsqueeze(1).float()
        return s.l(x) * (mask.float() + mask.float()) + (wide + wide).squeeze(1)

    assert_same(Loose(run, l=linear()), some(5, 6), some(5, 6) > 0)


def test_recurrent_layers_share_what_they_share() -> None:
    torch.manual_seed(0)
    one, other = (nn.LSTM(6, 6, batch_first=True) for _ in range(2))
    other.weight_ih_l0 = one.weight_ih_l0
    module = Module(lambda s, x: s.b(s.a(x)[0])[0], a=one, b=other)
    assert_same(module, some(3, 4, 6))
    other.weight_hh_l0 = one.weight_hh_l0
    assert_same(module, some(3, 4, 6))
    twice = assert_same(Module(lambda s, x: s.a(s.a(x)[0])[0], a=one), some(3, 4, 6))
    assert len(twice.weights) == 2


def test_recurrent_layers_whose_names_fall_together_stay_apart() -> None:
    torch.manual_seed(0)
    inner = nn.ModuleDict({"b": nn.GRU(6, 6, batch_first=True)})
    module = Module(
        lambda s, x: s.a_b(s.a["b"](x)[0])[0], a=inner, a_b=nn.GRU(6, 6, batch_first=True)
    )
    assert len(assert_same(module, some(3, 4, 6)).weights) == 4


MASKED: dict[str, Function] = {
    "causal": lambda s, x: s.a(x, x, x, attn_mask=s.causal, is_causal=True, need_weights=False)[0],
    "causal, by its word": lambda s, x: s.a(
        x, x, x, attn_mask=torch.zeros(4, 4), is_causal=True, need_weights=False
    )[0],
    "of truth values": lambda s, x: s.a(x, x, x, attn_mask=s.hidden)[0],
    "for each head": lambda s, x: s.a(x, x, x, attn_mask=s.heads)[0],
    "padding": lambda s, x: s.a(x, x, x, key_padding_mask=x[:, :, 0] > 0.4)[0],
    "weights of each head": lambda s, x: s.a(x, x, x, average_attn_weights=False),
}


@pytest.mark.parametrize("kind", MASKED)
def test_masks_of_attention_are_those_of_torch(kind: str) -> None:
    torch.manual_seed(0)
    module = Module(
        MASKED[kind],
        a=nn.MultiheadAttention(8, 2, batch_first=True),
        causal=nn.Transformer.generate_square_subsequent_mask(4),
        hidden=torch.triu(torch.ones(4, 4), 1).bool(),
        heads=some(6, 4, 4),
    )
    assert_same(module, some(3, 4, 8))


def test_what_sees_nothing_is_zero_as_in_torch() -> None:
    def run(s: Any, x: Tensor, mask: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(s.l(x), x, x, attn_mask=mask)

    assert_same(Loose(run, l=linear()), some(2, 3, 6), torch.ones(3, 3).triu(1).bool())


@pytest.mark.parametrize("batch_first", [True, False])
def test_masks_of_an_encoder_are_those_of_its_layers(batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first)
    run = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    hidden = torch.tensor([[False, False, True], [False, False, False]])
    x = some(2, 3, 8) if batch_first else some(3, 2, 8)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert_same(Loose(lambda s, x, p: s.e(x, src_key_padding_mask=p), e=run), x, hidden)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert_same(
        Loose(lambda s, x, m: s.e(x, mask=m), e=run), x, torch.triu(torch.ones(3, 3), 1).bool()
    )
    both = Loose(lambda s, x, m, p: s.e(x, mask=m, src_key_padding_mask=p), e=run).eval()
    with pytest.raises(ConfigError, match="with two masks at once"):
        Network.from_torch(both, inputs=3)


def test_tensors_that_are_not_finite_are_refused() -> None:
    bad = torch.tensor([0.0, float("nan"), 0, 0, 0, 0])
    for module in (
        Module(lambda s, x: s.l(x) + s.b, l=linear(), b=bad),
        Module(lambda s, x: s.l(x) + s.b, l=linear(), b=nn.Parameter(bad)),
        Module(lambda s, x: s.l(x) + s.b, l=linear(), b=nn.Parameter(bad.nan_to_num() - torch.inf)),
    ):
        with pytest.raises(DataError, match="tensor b: "):
            Network.from_torch(module.eval())
    masked = Module(
        lambda s, x: (s.l(x) + s.b).softmax(1), l=linear(), b=bad.nan_to_num(float("-inf"))
    )
    assert_same(masked, some(5, 6))
    norm = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(6), linear()).eval()
    norm[1].running_var[2] = -1
    for look in (Network.from_torch, tensors_from):
        with pytest.raises(DataError, match=r"tensor 1\.running_var: a variance is negative"):
            look(norm)


def test_a_norm_is_folded_only_into_what_it_follows_value_by_value() -> None:
    torch.manual_seed(0)
    for channels, shape in ((6, (5, 6, 6)), (4, (5, 4, 6))):
        module = with_statistics(nn.Sequential(linear(), nn.BatchNorm1d(channels)))
        network = assert_same(module, some(*shape))
        assert [layer.kind for layer in network.layers] == ["linear", "batch_norm"]
    module = with_statistics(nn.Sequential(nn.Flatten(), linear(), nn.ReLU(), linear()))
    module.append(with_statistics(nn.BatchNorm1d(6)))
    network = assert_same(module, some(5, 2, 3))
    assert "batch_norm" not in [layer.kind for layer in network.layers]
    for run in (
        lambda s, x: s.n(s.l(x.flatten(1))) + s.l(x.flatten(1)),
        lambda s, x: (lambda y: s.n(y) + y)(s.l(x.flatten(1))),
        lambda s, x: (lambda y: s.n(y) + torch.relu_(y))(s.l(x.flatten(1))),
    ):
        shared = Module(run, l=linear(), n=with_statistics(nn.BatchNorm1d(6)))
        assert_same(shared, some(5, 6))


MIXED: dict[str, Function] = {
    "mean(-2)": lambda s, x: s.l(x - x.mean(-2)),
    "mean(0)": lambda s, x: s.l(x - x.mean(0)),
    "softmax(-2)": lambda s, x: s.l(torch.softmax(x, -2)),
    "max": lambda s, x: s.l(x / x.abs().max()),
    "gram": lambda s, x: x @ (s.l(x).mT @ x),
    "attention": lambda s, x: functional.scaled_dot_product_attention(x, s.l(x), x),
    "einsum": lambda s, x: torch.einsum("nd,md->nd", x, s.l(x)),
    "layer norm": lambda s, x: functional.layer_norm(s.l(x), (7, 6)),
    "count": lambda s, x: s.l(x) / x.shape[0],
    "first": lambda s, x: s.l(x) + x[..., 0, :],
    "select": lambda s, x: s.l(x) + x.select(-2, 0),
    "rolled": lambda s, x: s.l(torch.cat([x[1:], x[:1]])),
    "shifted": lambda s, x: s.l(functional.pad(x, (0, 0, 1, -1))),
    "scrambled": lambda s, x: s.l(x.reshape(x.shape[1], x.shape[0]).t()),
    "numbered": lambda s, x: s.l(x) + s.places[: x.shape[0]],
    "squeezed": lambda s, x: s.l(x[:, None]).squeeze()[:, :3],
    "weighed by the batch": lambda s, x: s.l(x) * torch.ones(x.shape[0], 1).sum(),
}


@pytest.mark.parametrize("kind", MIXED)
def test_images_that_belong_together_stay_together(kind: str) -> None:
    module = Module(MIXED[kind], l=linear(), places=some(7, 6)).eval()
    network, x = Network.from_torch(module), some(7, 6)
    with torch.no_grad():
        expected = module(x).numpy()
    for batch in (1, 2, 3, 7):
        np.testing.assert_allclose(forward(network, x.numpy(), batch=batch), expected, atol=1e-5)


@pytest.mark.parametrize(
    "run",
    [
        lambda s, x: s.l(x).T,
        lambda s, x: s.l(x).mean(),
        lambda s, x: s.l(x).repeat(2, 1),
        lambda s, x: s.l(x).view(-1, 3),
        lambda s, x: s.l(x)[1:],
        lambda s, x: torch.stack([s.l(x), x]),
    ],
)
def test_a_result_that_is_not_one_row_an_image_is_refused(run: Function) -> None:
    network = Network.from_torch(Module(run, l=linear()).eval())
    with pytest.raises(DataError, match="and not one row an image"):
        forward(network, some(5, 6).numpy(), batch=2)


def test_layers_are_found_again_in_the_module() -> None:
    module = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(linear()), nn.GRU(6, 4))
    module.append(Module(lambda s, x: x[0] @ s.w, w=weight(4, 2)))
    traced = trace(module)
    assert list(traced.network.weights) == ["1", "2.ih_l0", "2.hh_l0", "3.w"]
    sources = {name: traced.sources[f"{name}.weight"] for name in traced.network.weights}
    assert sources["1"] is None
    assert sources["2.hh_l0"].parameter == "2.weight_hh_l0"  # type: ignore[union-attr]
    assert sources["3.w"].transposed  # type: ignore[union-attr]


def test_everything_that_is_refused_is_refused_as_bad_input() -> None:
    with pytest.raises(BenchError, match="0 tensors as inputs; it must be 1 to 6"):
        trace(linear(), inputs=0)
    with pytest.raises(BenchError, match="7 tensors as inputs"):
        trace(linear(), inputs=7)
    with pytest.raises(ConfigError, match="list: not a torch module"):
        Network.from_torch([linear()])  # type: ignore[arg-type]
