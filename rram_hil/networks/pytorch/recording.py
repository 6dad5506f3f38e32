"""What the forward pass of a module does, recorded by torch.fx down to functions of tensors.

A recording holds for every input only if the forward pass decides nothing by what is in a tensor,
keeps nothing from one call for the next and draws nothing at random. What can be seen of that is
refused here by name; `verification` compares the rest with torch.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules import module as modules
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import parametrize

from rram_hil.errors import BenchError, ConfigError, first_line

_LEAVES = (
    nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
)  # fmt: skip
"""Modules taken whole, since their forward passes branch on what is in a tensor."""
_MAKERS = ("zeros", "ones", "full", "empty", "arange")
"""Functions that torch.fx cannot record where their first argument is a size."""
SEE = 'see docs/networks.md, "What is refused"'


class UnsupportedModuleError(ConfigError):
    """Something in a module that has no kind of layer."""


@dataclass(frozen=True)
class Slot:
    """Stands in arguments for an input of this number."""

    number: int


@dataclass(frozen=True)
class Call:
    """How a module is called: its arguments, in which each `Slot` stands for one of `count` inputs,
    which are tensors.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    count: int = 0

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Call, list[Tensor]]:
        """A call with these arguments, and the tensors in them: the same one is one input."""
        tensors: list[Tensor] = []

        def opened(given: Any) -> Any:
            if not isinstance(given, Tensor):
                return _mapped(given, opened)
            for number, known in enumerate(tensors):
                if known is given:
                    return Slot(number)
            tensors.append(given)
            return Slot(len(tensors) - 1)

        plain = opened(args), opened(dict(kwargs))
        return cls(*plain, len(tensors)), tensors

    def filled(self, given: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with inputs."""

        def closed(part: Any) -> Any:
            return given[part.number] if isinstance(part, Slot) else _mapped(part, closed)

        return closed(self.args), closed(dict(self.kwargs))


def _mapped(given: Any, change: Callable[[Any], Any]) -> Any:
    """Containers with each part changed."""
    if isinstance(given, dict):
        return {key: change(part) for key, part in given.items()}
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return type(given)(*(change(part) for part in given))
    if isinstance(given, tuple | list):
        return type(given)(change(part) for part in given)
    return given


@dataclass(frozen=True, eq=False)
class Recording:
    """The graph of a forward pass, and the module `whole` that it is of, which has the recorded
    one as `inner`. `computed` are the parametrized tensors by identity: their names, and those of
    the parameters that they are made from.
    """

    graph: fx.Graph
    whole: nn.Module
    computed: Mapping[int, tuple[str, frozenset[str]]] = field(default_factory=dict)


def record(module: nn.Module, call: Call, training: bool) -> Recording:
    """Record what `module` makes of the inputs of a call. Neither the module nor the random state
    changes. Raises `UnsupportedModuleError`.
    """
    _refuse_unreadable(module)
    before = torch.random.get_rng_state()
    try:
        with untouched(module), _plain_torch(), _parametrized(module) as computed:
            module.train(training)
            first = _recorded(module, _whole(module, call))
            drawn = not torch.equal(before, torch.random.get_rng_state())
            again = _repeated(module, _whole(module, call))
    finally:
        torch.random.set_rng_state(before)
    if drawn:
        raise UnsupportedModuleError(
            f"{type(module).__name__}: its forward pass draws random numbers"
        )
    if not _are_same(first, again):
        raise UnsupportedModuleError(
            f"{type(module).__name__}: its forward pass is another one the second time: it keeps"
            " something in the module from call to call, or draws random numbers"
        )
    return Recording(first.graph, first.whole, computed)


def _refuse_unreadable(module: nn.Module) -> None:
    if modules._global_forward_hooks or modules._global_forward_pre_hooks:
        raise UnsupportedModuleError(
            f"{type(module).__name__}: hooks are registered for all modules"
            " (register_module_forward_hook), which no trace sees; remove them first"
        )
    for path, child in module.named_modules():
        label = f"module {path}" if path else type(module).__name__
        if isinstance(child, torch.jit.ScriptModule):
            raise UnsupportedModuleError(
                f"{label}: scripted modules hide what they compute; give the module that it was"
                " made from"
            )
        for hook in child._forward_pre_hooks.values():
            if type(hook).__module__.startswith("torch.nn.utils"):
                raise UnsupportedModuleError(
                    f"{label}: {type(hook).__name__} of torch.nn.utils changes the weight behind"
                    " the trace; use torch.nn.utils.parametrizations instead, or remove it"
                )
        held = (*child._parameters.values(), *child._buffers.values())
        if any(isinstance(t, UninitializedParameter | UninitializedBuffer) for t in held):
            raise UnsupportedModuleError(
                f"{label}: {type(child).__name__} does not know its shape yet; run the module once"
                " first"
            )


def _recorded(module: nn.Module, whole: nn.Module) -> Recording:
    tracer = _Tracer()
    try:
        graph = tracer.trace(whole)
    except BenchError:
        raise
    except Exception as error:
        raise _untraceable(module, tracer, error) from error
    if tracer.error is not None:  # the forward pass went on without a word
        raise _untraceable(module, tracer, tracer.error) from tracer.error
    return Recording(graph, whole)


def _untraceable(
    module: nn.Module, tracer: _Tracer, error: BaseException
) -> UnsupportedModuleError:
    name = type(module).__name__
    if tracer.failed:
        path, kind = tracer.failed
        name = f"{name}: module {path} ({kind})"
    first = first_line(str(error))
    return UnsupportedModuleError(
        f"{name}: its forward pass cannot be traced: {type(error).__name__}: {first}; {SEE}"
    )


def _repeated(module: nn.Module, whole: nn.Module) -> Recording:
    """The second recording, with whatever the first one left in the module."""
    try:
        return _recorded(module, whole)
    except UnsupportedModuleError:
        return Recording(fx.Graph(), whole)  # the first one went well, so it is another one


def _are_same(first: Recording, second: Recording) -> bool:
    if len(first.graph.nodes) != len(second.graph.nodes):
        return False
    for one, other in zip(first.graph.nodes, second.graph.nodes, strict=True):
        if one.op == other.op == "get_attr":
            if not _are_equal(_attribute(first.whole, one), _attribute(second.whole, other)):
                return False
        elif _described(one) != _described(other):
            return False
    return True


def _described(node: fx.Node) -> tuple[Any, ...]:
    return node.op, node.name, node.target, repr((node.args, node.kwargs))


def _attribute(whole: nn.Module, node: fx.Node) -> Any:
    value: Any = whole
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value


def _are_equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)) or one.shape != other.shape:
        return False
    return one.dtype == other.dtype and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _whole(module: nn.Module, call: Call) -> nn.Module:
    """A module around another, with as many arguments as are inputs: torch.fx traces the forward
    of a class, and here it must be that of the instance, hooks included.
    """

    def run(self: Any, *given: Any) -> Any:
        args, kwargs = call.filled(given)
        return self.inner(*args, **kwargs)

    forwards: list[Callable[..., Any]] = [
        lambda self, a: run(self, a),
        lambda self, a, b: run(self, a, b),
        lambda self, a, b, c: run(self, a, b, c),
        lambda self, a, b, c, d: run(self, a, b, c, d),
        lambda self, a, b, c, d, e: run(self, a, b, c, d, e),
        lambda self, a, b, c, d, e, f: run(self, a, b, c, d, e, f),
    ]
    whole: nn.Module = type("Whole", (nn.Module,), {"forward": forwards[call.count - 1]})()
    whole.inner = module
    return whole


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Everything that the forward pass sets on modules is put back, and so is the mode of each."""
    kept = [(vars(child), vars(child).copy()) for child in module.modules()]
    for _, before in tuple(kept):
        kept += [(before[kind], before[kind].copy()) for kind in _REGISTERED]
    try:
        yield
    finally:
        for attributes, before in kept:
            attributes.clear()
            attributes.update(before)


_REGISTERED = ("_parameters", "_buffers", "_modules")
"""Where a module keeps what is registered in it."""
_is_really_instance = isinstance


def _is_instance(given: Any, kind: Any) -> bool:
    """What `isinstance` would say if a proxy were the tensor that it stands for; torch's own code,
    which would hand it on to C, hears the truth.
    """
    if type(given) is _Proxy:
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if not asking.startswith("torch.") and Tensor in (kind if type(kind) is tuple else (kind,)):
            return True
    return _is_really_instance(given, kind)


@contextmanager
def unfused() -> Iterator[None]:
    """Without torch's fused transformer layers, which give zeros where inputs are padding."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _plain_torch() -> Iterator[None]:
    """Without torch's fused attention and reduced precision; with functions of sizes that can be
    recorded, and with proxies that are tensors to whoever asks.
    """
    makers = {name: _recordable(getattr(torch, name)) for name in _MAKERS}
    with (
        unfused(),
        torch.autocast("cpu", enabled=False),
        _replaced(torch, makers),
        _replaced(builtins, {"isinstance": _is_instance}),
    ):
        yield


@contextmanager
def _replaced(owner: Any, instead: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in instead}
    try:
        for name, value in instead.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _recordable(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tracers: list[fx.Tracer] = []

        def found(given: Any) -> None:
            if isinstance(given, tuple | list):
                for part in given:
                    found(part)
            elif issubclass(type(given), fx.Proxy):
                tracers.append(given.tracer)

        found((args, *kwargs.values()))
        if tracers:
            return tracers[0].create_proxy("call_function", function, args, kwargs)
        return function(*args, **kwargs)

    return call


@contextmanager
def _parametrized(module: nn.Module) -> Iterator[dict[int, tuple[str, frozenset[str]]]]:
    """Parametrized tensors are computed once, in evaluation mode, and stand for themselves."""
    module.eval()
    computed: dict[int, tuple[str, frozenset[str]]] = {}
    with parametrize.cached():
        for path, child in module.named_modules():
            if not parametrize.is_parametrized(child):
                continue
            stem = f"{path}." if path else ""
            for name, made in child.parametrizations.items():
                with torch.no_grad():
                    tensor = getattr(child, name)
                originals = dict(made.named_parameters(prefix=f"{stem}parametrizations.{name}"))
                computed[id(tensor)] = (stem + name, frozenset(originals))
        yield computed


class _Proxy(fx.Proxy):
    """A proxy that has the attributes of a tensor only, and records in-place operators as such."""

    is_nested = False
    _is_param = False
    _is_buffer = False

    def __getattr__(self, name: str) -> Any:
        if name in ("T", "mT", "H", "mH", "data"):  # may show the same memory, and be written to
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        if not hasattr(Tensor, name):
            raise AttributeError(f"a tensor has no attribute {name!r}")
        return super().__getattr__(name)

    def __iadd__(self, other: Any) -> Any:
        return self._in_place("add_", other)

    def __isub__(self, other: Any) -> Any:
        return self._in_place("sub_", other)

    def __imul__(self, other: Any) -> Any:
        return self._in_place("mul_", other)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place("div_", other)

    def __ifloordiv__(self, other: Any) -> Any:
        return self._in_place("floor_divide_", other)

    def __imod__(self, other: Any) -> Any:
        return self._in_place("remainder_", other)

    def __ipow__(self, other: Any) -> Any:
        return self._in_place("pow_", other)

    def __iand__(self, other: Any) -> Any:
        return self._in_place("bitwise_and_", other)

    def __ior__(self, other: Any) -> Any:
        return self._in_place("bitwise_or_", other)

    def __ixor__(self, other: Any) -> Any:
        return self._in_place("bitwise_xor_", other)

    def _in_place(self, method: str, other: Any) -> Any:
        return self.tracer.create_proxy("call_method", method, (self, other), {})


class _Tracer(fx.Tracer):
    """Traces into every module but those of `_LEAVES`."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.error: Exception | None = None
        """What could not be traced, which the forward pass may have caught."""
        self.failed: tuple[str, str] | None = None
        """The innermost module that could not be traced: its path and its class."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if type(a) is _Proxy:  # before it passes for a tensor
            return a.node
        return super().create_arg(a)

    def create_proxy(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise UnsupportedModuleError(
                "autocast: the forward pass chooses a lower precision, which is not mapped; leave"
                " torch.autocast out"
            )
        return super().create_proxy(*args, **kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        try:
            return super().to_bool(obj)
        except Exception as error:
            self.error = error
            raise

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _LEAVES and not is_hooked(m)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            path = self.path_of_module(m)
        except NameError:
            raise UnsupportedModuleError(
                f"{type(m).__name__}: the forward pass cannot be traced: it calls this, which is no"
                " part of the module; make it an attribute, or part of an nn.ModuleList"
            ) from None
        made = None if is_hooked(m) else _PLAINLY.get(type(m))
        try:
            return super().call_module(m, made(m) if made else forward, args, kwargs)
        except Exception as error:
            if self.failed is None and path != "inner":
                self.failed = path.removeprefix("inner."), type(m).__name__
            self.error = error
            raise


def is_hooked(module: nn.Module) -> bool:
    """Whether calling a module does something else than the forward pass of its class."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _encoder(module: Any) -> Callable[..., Any]:
    def encode(
        src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Any:
        for layer in module.layers:
            src = layer(
                src,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
            )
        return src if module.norm is None else module.norm(src)

    return encode


def _encoder_layer(module: Any) -> Callable[..., Any]:
    def encode(
        src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Any:
        masks = (src_mask, src_key_padding_mask)
        if module.norm_first:
            src = src + module._sa_block(module.norm1(src), *masks, is_causal=is_causal)
            return src + module._ff_block(module.norm2(src))
        src = module.norm1(src + module._sa_block(src, *masks, is_causal=is_causal))
        return module.norm2(src + module._ff_block(src))

    return encode


def _decoder(module: Any) -> Callable[..., Any]:
    def decode(
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        for layer in module.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal,
            )
        return tgt if module.norm is None else module.norm(tgt)

    return decode


def _transformer(module: Any) -> Callable[..., Any]:
    def transform(
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        memory = module.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return module.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
            tgt_is_causal, memory_is_causal,
        )  # fmt: skip

    return transform


def _circular_pad(module: Any) -> Callable[..., Any]:
    return lambda x: functional.pad(x, module.padding, "circular")


_PLAINLY: dict[type, Callable[[Any], Callable[..., Any]]] = {
    nn.TransformerEncoder: _encoder,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerDecoder: _decoder,
    nn.Transformer: _transformer,
    nn.CircularPad1d: _circular_pad,
    nn.CircularPad2d: _circular_pad,
    nn.Softmax2d: lambda module: lambda x: functional.softmax(x, -3),
}
"""What these modules do; their own forward passes look at their masks or shapes before."""
