"""From a torch module to a `Network`: what its forward pass really does, as torch.fx records it.

Everything is traced down to functions of tensors, so that it makes no difference how modules are
nested, shared or subclassed; `converters` says what each function becomes. What cannot be traced or
has no kind of layer is refused by name. docs/networks.md is the list for users.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.evaluation import uses
from rram_hil.networks.layers import (
    INPUT,
    Arithmetic,
    BatchNorm,
    Chunk,
    Concat,
    Constant,
    Conv1d,
    Conv2d,
    Expand,
    Flatten,
    Index,
    Layer,
    Linear,
    Narrow,
    Permute,
    Repeat,
    Reshape,
    Select,
    Squeeze,
    Transpose,
    Unflatten,
    Unsqueeze,
    Where,
    products_of,
)
from rram_hil.networks.network import Network
from rram_hil.networks.network_file import allowed_digital
from rram_hil.networks.pytorch.module import TorchNetwork
from rram_hil.networks.pytorch.recording import (
    Call,
    Recording,
    Slot,
    UnsupportedModuleError,
    is_hooked,
    record,
)

Kept = Literal["weight", "bias"]
OF_A_WEIGHT: tuple[Kept, ...] = ("weight", "bias")
"""What the module may hold for one weight of the array."""
_MOST_INPUTS = 6
_SHOW = (
    Chunk, Concat, Expand, Flatten, Index, Narrow, Permute, Repeat, Reshape, Select, Squeeze,
    Transpose, Unflatten, Unsqueeze, Where,
)  # fmt: skip
"""Layers that give values of their inputs, truth values too."""


@dataclass(frozen=True)
class Source:
    """Where a tensor of the network lives in its module: a parameter or a buffer, transposed or
    not.
    """

    parameter: str
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Traced:
    """A network and where its tensors live in the module: `sources` by "<weight>.weight",
    "<weight>.bias" and the names of digital tensors; none for one computed from several parameters.
    """

    network: Network
    sources: Mapping[str, Source | None]


class Derived:
    """Something that follows from the inputs."""


@dataclass(frozen=True)
class Value(Derived):
    """The output of a layer: a tensor, which may hold truth values, or a size."""

    name: str
    is_size: bool = False
    is_truth: bool = False


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor that no input has to do with, and the parameters that it is made of."""

    tensor: Tensor
    parameters: frozenset[str] = frozenset()
    source: Source | None = None
    name: str | None = None
    """What it is called where it has no source."""

    @property
    def label(self) -> str | None:
        """Its name in the module, if it has one."""
        return self.name if self.source is None else self.source.parameter

    @property
    def is_weight(self) -> bool:
        """Whether it could be meant for the array: trained, and of two dimensions or more."""
        return bool(self.parameters) and sum(size > 1 for size in self.tensor.shape) > 1


@dataclass(frozen=True)
class Shape(Derived):
    """The shape of a value as a whole."""

    of: Value


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside those that only run another one."""
    while isinstance(module, nn.Module) and not isinstance(module, torch.jit.ScriptModule):
        if isinstance(module, DataParallel | DistributedDataParallel) and not is_hooked(module):
            module = module.module
        elif isinstance(inner := vars(module).get("_modules", {}).get("_orig_mod"), nn.Module):
            module = inner  # what torch.compile wrapped
        else:
            break
    return module


def trace(
    module: nn.Module,
    *,
    training: bool = False,
    inputs: int | Call = 1,
    allow_digital: Collection[str] = (),
    separator: str = ".",
) -> Traced:
    """The network that `module` computes from its first `inputs` arguments, all of them tensors, or
    in a call, in evaluation mode or, with `training`, in training mode.

    `separator` stands between modules in the names of layers. Neither the module nor the random
    state changes. Raises `ConfigError` naming what cannot be mapped, `DataError` for a tensor that
    is not finite.
    """
    module = unwrapped(module)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{type(module).__name__}: not a torch module")
    if isinstance(inputs, int):
        inputs = Call(tuple(Slot(number) for number in range(inputs)), count=inputs)
    count = inputs.count
    if not 1 <= count <= _MOST_INPUTS:
        raise ConfigError(
            f"{type(module).__name__}: {count} tensors as inputs; it must be 1 to {_MOST_INPUTS}"
        )
    if type(module) is TorchNetwork and not is_hooked(module):
        return _of_network(module, count)
    recording = record(module, inputs, training)
    with torch.no_grad():
        conversion = Conversion(module, recording, training, allow_digital, separator)
        return conversion.traced(count)


def _of_network(module: TorchNetwork, inputs: int) -> Traced:
    network = module.network()
    if network.inputs != inputs:
        raise ConfigError(f"TorchNetwork: takes {network.inputs} inputs, not {inputs}")
    return Traced(network, {name: Source(f"tensors.{name}") for name in module.named_tensors()})


def path_of(node: fx.Node) -> tuple[str, Any]:
    """The innermost module that a node was recorded in: its path in the traced module, and its
    class.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("inner", nn.Module)
    return path.removeprefix("inner").removeprefix("."), kind


class Conversion:
    """One graph of torch.fx on its way to being a network. `converters` work with it."""

    def __init__(
        self,
        module: nn.Module,
        recording: Recording,
        training: bool,
        allow_digital: Collection[str],
        separator: str,
    ) -> None:
        self._separator = separator
        self.module, self.training = module, training
        self._whole, graph = recording.whole, recording.graph
        self._computed = recording.computed
        self.layers: list[Layer] = []
        self._graph, self._allow = graph, tuple(allow_digital)
        self._env: dict[fx.Node, Any] = {}
        self._family: dict[fx.Node, fx.Node] = {}
        self._order = {node: k for k, node in enumerate(graph.nodes)}
        self._node: fx.Node = next(iter(graph.nodes))
        self._names = {INPUT, *(f"{INPUT}_{k}" for k in range(1, _MOST_INPUTS))}
        self._tensors: dict[str, Tensor] = {}
        self._sources: dict[str, Source | None] = {}
        self._weights: dict[str, Tensor] = {}
        self._biases: dict[str, Tensor] = {}
        self._named: dict[tuple[int, bool], str] = {}
        self._constants: dict[int, Value] = {}
        self._keep: list[Tensor | Const] = []
        self._used: set[str] = set()
        self._prefixes: dict[int, str] = {}
        self.recurrent: dict[tuple[int, ...], str] = {}
        """Prefix of the weights of recurrent modules, by the identities of all of these."""
        self._tensor_names = {
            id(t): n for n, t in (*module.named_buffers(), *module.named_parameters())
        }

    def traced(self, inputs: int) -> Traced:
        """The network of the whole graph."""
        from rram_hil.networks.pytorch.converters import converted

        result: Any = None
        names = iter((INPUT, *(f"{INPUT}_{k}" for k in range(1, inputs))))
        for node in self._graph.nodes:
            self._node = node
            if node.op == "placeholder":
                self._env[node] = Value(next(names), is_truth=True)
            elif node.op == "get_attr":
                self._env[node] = self._tensor(node)
            elif node.op == "output":
                result = self._result(self._values(node.args[0]))
            else:
                self._env[node] = self._called(node, converted)
        if not self.training:
            self._refuse_unused()
        return self._network(inputs, result)

    def _called(self, node: fx.Node, converted: Callable[..., Any]) -> Any:
        args, kwargs = self._values(node.args), self._values(node.kwargs)
        given = _flat((args, kwargs))
        if not any(isinstance(v, Derived) for v in given):
            own = [v for v in given if isinstance(v, Const)]
            return self._folded(node, args, kwargs, own)
        made, is_view, mutated = converted(self, node, args, kwargs)
        base = next(iter(node.all_input_nodes), node)
        self._family[node] = self._family.get(base, base) if is_view or mutated else node
        if mutated:
            self._mutate(node, made)
        return made

    def _mutate(self, node: fx.Node, made: Any) -> None:
        """An operation in place: whoever took the value before sees the new one, which views of it
        would do too.
        """
        target = node.all_input_nodes[0]
        if not isinstance(self._env[target], Value):
            raise self.refusal("changes one of its own tensors in place")
        here = self._order[node]
        family = self._family.get(target, target)
        for other, head in self._family.items():
            if head is family and other not in (target, node) and other in self._env:
                self._refuse_later_use(other, here)
        if family is not target:
            self._refuse_later_use(family, here)
        self._env[target] = made

    def _refuse_later_use(self, node: fx.Node, here: int) -> None:
        if any(self._order[user] > here for user in node.users):
            raise self.refusal(
                "changes in place what another view of the same tensor shows afterwards; use the"
                " operation that is not in place"
            )

    def _values(self, arguments: Any) -> Any:
        """Arguments of a node with values in place of nodes."""
        if isinstance(arguments, fx.Node):
            return self._env[arguments]
        if isinstance(arguments, dict):
            return {key: self._values(value) for key, value in arguments.items()}
        if isinstance(arguments, tuple | list):
            return type(arguments)(self._values(value) for value in arguments)
        if isinstance(arguments, slice):
            return slice(
                *(self._values(p) for p in (arguments.start, arguments.stop, arguments.step))
            )
        return arguments

    def _tensor(self, node: fx.Node) -> Const:
        path = str(node.target).removeprefix("inner.")
        value: Any = self._whole
        for part in str(node.target).split("."):
            value = getattr(value, part, None)
        if not isinstance(value, Tensor):
            raise self.refusal(f"uses {path}, which is no tensor of the module")
        if id(value) in self._computed:
            name, parameters = self._computed[id(value)]
            self._used |= parameters
            return Const(value.detach(), parameters, name=name)
        name = self._tensor_names.get(id(value), path)
        self._used.add(name)
        is_trained = isinstance(value, nn.Parameter)
        return Const(value.detach(), frozenset({name} if is_trained else ()), Source(name))

    def _folded(self, node: fx.Node, args: Any, kwargs: Any, given: list[Any]) -> Any:
        """An operation on tensors alone is done now."""
        parameters = frozenset(p for v in given for p in v.parameters)
        plain_args, plain_kwargs = _plain(args), _plain(kwargs)
        if node.op == "call_module":
            raise self.refusal("works on no input of the network")
        if node.op == "call_method":
            if str(node.target).endswith("_") and not str(node.target).startswith("_"):
                raise self.refusal("changes one of its own tensors in place")
            made = getattr(plain_args[0], str(node.target))(*plain_args[1:], **plain_kwargs)
        else:
            made = node.target(*plain_args, **plain_kwargs)  # type: ignore[operator]
        first = given[0] if given else None
        source = None
        if isinstance(first, Const) and first.source is not None and isinstance(made, Tensor):
            source = _same_numbers(first, made)
        return _constants_of(made, parameters, source)

    def emit(self, kind: type[Layer], *of: Value, name: str | None = None, **fields: Any) -> Value:
        """Add a layer that takes `of` and give its output. Its name follows from the module."""
        layer = kind(
            name=self._unique(name or self._path()), of=tuple(v.name for v in of), **fields
        )
        self.layers.append(layer)
        return Value(layer.name, is_truth=kind in _SHOW and any(v.is_truth for v in of))

    @property
    def node(self) -> fx.Node:
        """The node that is being converted."""
        return self._node

    def module_path(self) -> str:
        """The path of the module that is called as a whole."""
        return str(self._node.target).removeprefix("inner").removeprefix(".")

    def prefix_of(self, module: nn.Module, path: str) -> str:
        """What the names of a module's tensors begin with: its path, if no other has it."""
        known = self._prefixes.get(id(module))
        if known is None:
            known = self.label(path)
            while known in self._prefixes.values():
                known += "'"
            self._prefixes[id(module)] = known
        return known

    def keep_tensor(self, name: str, tensor: Tensor, parameter: str) -> None:
        """Keep a digital tensor of a module that is taken whole."""
        self._tensors[name] = tensor.detach()
        self._sources[name] = Source(parameter)

    def _path(self) -> str:
        path, kind = path_of(self._node)
        if self._node.op == "call_module":
            return self.module_path() or "module"
        own = self._function_name().strip("_")
        is_plain = isinstance(kind, type) and kind.__module__.startswith("torch.nn.modules")
        if path and is_plain and not issubclass(kind, nn.Sequential):
            return path
        return f"{path}.{own}" if path else own

    def _function_name(self) -> str:
        """The name of the function or method of the node at hand."""
        target = self._node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        # torch chooses between some functions by an inner one that is called so.
        return self._node.name if name == "fn" else name

    def label(self, path: str) -> str:
        """A path in the module as the name of a layer; what is digital has a mark in files."""
        name = path.replace(".", self._separator).replace("/", "_")
        return name.replace(":", "_", 1) if name.startswith("digital:") else name

    def _unique(self, name: str) -> str:
        name = wanted = self.label(name)
        number = 1
        while name in self._names:
            number += 1
            name = f"{wanted}#{number}"
        self._names.add(name)
        return name

    def weighted(
        self,
        kind: type[Linear | Conv1d | Conv2d],
        x: Value,
        weight: Const,
        bias: Any,
        **fields: Any,
    ) -> Value:
        """A product with a weight of the module, and its bias."""
        name = self.register(weight)
        digital = self.is_allowed(name, weight)
        self.keep(name, "weight", weight, digital)
        biased, rest = self._bias(name, bias, digital, len(weight.tensor))
        layer_name = self._unique(name)
        layer = kind(
            name=layer_name,
            of=(x.name,),
            weight=None if layer_name == name else name,
            biased=biased,
            digital=digital,
            **fields,
        )
        self.layers.append(layer)
        made = Value(layer_name)
        return made if rest is None else self.biased(made, rest, kind is not Linear)

    def biased(self, x: Value, bias: Any, is_convolution: bool) -> Value:
        """A bias that is not its weight's own, as an addition."""
        if isinstance(bias, Const) and is_convolution:
            bias = Const(bias.tensor.reshape(-1, 1, 1), bias.parameters)
        return self.emit(Arithmetic, x, self.as_value(bias), operator="add")

    def _bias(self, name: str, bias: Any, digital: bool, outputs: int) -> tuple[bool, Any]:
        """Whether the layer adds its weight's bias, and what has to be added besides."""
        if bias is None:
            return False, None
        if not isinstance(bias, Const) or bias.tensor.shape != (outputs,):
            return False, bias
        key = f"{name}.bias"
        known = self._tensors.get(key) if digital else self._biases.get(name)
        if known is None and key not in self._sources:
            self.keep(name, "bias", bias, digital)
            self._keep.append(bias.tensor)
            return True, None
        is_same = known is not None and _are_one(known, bias.tensor)
        return (True, None) if is_same else (False, bias)

    def register(self, weight: Const) -> str:
        """The name of a weight: that of its parameter, or of the module that computes it."""
        source = weight.source
        key = (weight.tensor.data_ptr(), bool(source and source.transposed))
        if key in self._named and self._weights_like(self._named[key], weight):
            return self._named[key]
        name = weight.label or self._path()
        if source is not None and source.transposed and self._is_named(name):
            name += ".T"
        name = self.label(name.removesuffix(".weight").removesuffix("_weight"))
        while name in self._named.values() and not self._weights_like(name, weight):
            name += "'"
        self._named[key] = name
        self._keep.append(weight.tensor)
        return name

    def _is_named(self, parameter: str) -> bool:
        return any(
            source is not None and source.parameter == parameter and not source.transposed
            for source in self._sources.values()
        )

    def _weights_like(self, name: str, weight: Const) -> bool:
        known = self._weights.get(name, self._tensors.get(f"{name}.weight"))
        return known is not None and _are_one(known, weight.tensor)

    def keep(self, name: str, what: Kept, const: Const, digital: bool) -> None:
        """Keep a weight for the network, or the bias of one."""
        if digital:
            self._tensors[f"{name}.{what}"] = const.tensor
        else:
            (self._weights if what == "weight" else self._biases)[name] = const.tensor
        self._sources[f"{name}.{what}"] = const.source

    def is_allowed(self, name: str, weight: Const) -> bool:
        """Whether a weight may stay digital."""
        names = {name, weight.label or name, *weight.parameters}
        return any(allowed_digital(given, self._allow) for given in names)

    def digital_tensor(self, const: Const, what: str, *, is_weight: bool = False) -> str:
        """Keep a tensor that stays digital, and give its name. Raises `UnsupportedModuleError` for
        a weight that is not allowed to, `DataError` for a parameter that is not finite.
        """
        name = const.label or self._path()
        if (const.is_weight or is_weight) and not self.is_allowed(name, const):
            raise self.refusal(
                f"{what} {' and '.join(sorted(const.parameters)) or name} of shape"
                f" {tuple(const.tensor.shape)}, which no array can multiply by; name it in"
                " allow_digital if it stays digital"
            )
        tensor = const.tensor
        if const.parameters and not bool(tensor.isfinite().all()):
            raise DataError(f"tensor {name}: every parameter must be finite")
        if const.source is not None and const.source.transposed:
            name += ".T"
        while name in self._tensors and not _are_one(self._tensors[name], tensor):
            name += "'"
        self._tensors[name] = tensor
        self._sources[name] = const.source
        return name

    def as_value(self, given: Any, *, is_factor: bool = False) -> Value:
        """A value; a tensor of the module becomes a constant of the network. As a factor of a
        product it is a weight, whether it is trained or not.
        """
        if isinstance(given, Value):
            return given
        if not isinstance(given, Const):
            raise self.refusal(f"takes {type(given).__name__} where a tensor is expected")
        known = self._constants.get(id(given))
        if known is None:
            what = "multiplies by" if is_factor else "adds or multiplies by the parameter"
            tensor = self.digital_tensor(given, what, is_weight=is_factor)
            known = self.emit(Constant, name=f"constant:{tensor}", tensor=tensor)
            self._constants[id(given)] = known
            self._keep.append(given)  # or another one could be given its identity
        return known

    def refusal(self, why: str) -> UnsupportedModuleError:
        """The error for the node at hand."""
        path, _ = path_of(self._node)
        label = self._function_name()
        if self._node.op in ("call_module", "get_attr"):
            label = self.module_path()
            child = dict(self.module.named_modules()).get(label)
            label = f"{label} ({type(child).__name__})"
            path = ""
        place = f"module {path}: {label}" if path else f"{type(self.module).__name__}: {label}"
        return UnsupportedModuleError(f"{place} {why}")

    def _result(self, value: Any) -> Any:
        if isinstance(value, Value | Const):
            return self.as_value(value).name
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise self.refusal("gives a dict whose keys are not all text")
            return {key: self._result(part) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return type(value)(self._result(part) for part in value)
        if value is None or isinstance(value, bool | int | float):
            return value
        raise UnsupportedModuleError(
            f"{type(self.module).__name__}: gives {type(value).__name__}, which is no tensor"
        )

    def _refuse_unused(self) -> None:
        used = {id(t) for n, t in self.module.named_parameters() if n in self._used}
        for name, tensor in self.module.named_parameters(remove_duplicate=False):
            if id(tensor) in used or allowed_digital(name, self._allow):
                continue
            if sum(size > 1 for size in tensor.shape) > 1:
                raise UnsupportedModuleError(
                    f"{type(self.module).__name__}: the forward pass does not use {name} of shape"
                    f" {tuple(tensor.shape)}; name it in allow_digital if that is right"
                )

    def mark_used(self, path: str) -> None:
        """All tensors of a module that is taken whole are used."""
        for name, _ in (*self.module.named_parameters(remove_duplicate=False),):
            if name.startswith(f"{path}." if path else ""):
                self._used.add(name)

    def _network(self, inputs: int, result: Any) -> Traced:
        layers = _needed(self.layers, result)
        wanted = {tensor for layer in layers for tensor in _held(layer, self._tensors)}
        products = {own.weight_name for layer in layers for own in products_of(layer)}
        layers = [_plainer(layer, self._biases) for layer in layers]
        simple = result if not layers or result != layers[-1].name else None
        network = Network(
            _chained(layers),
            {n: _array(w) for n, w in self._weights.items() if n in products},
            {n: _array(b) for n, b in self._biases.items() if n in products},
            {n: _array(t) for n, t in self._tensors.items() if n in wanted},
            inputs,
            simple,
        )
        return Traced(network, dict(self._sources))


def _are_one(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers at the same place in memory."""
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )


_DIGITAL = ("tensor", *OF_A_WEIGHT)
"""Fields of layers that name digital tensors."""


def _held(layer: Layer, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the digital tensors of a layer."""
    if isinstance(layer, BatchNorm):
        return [name for name in tensors if name.rpartition(".")[0] == layer.prefix]
    if made := products_of(layer):
        names = [f"{own.weight_name}.{k}" for own in made if own.digital for k in OF_A_WEIGHT]
        return [name for name in names if name in tensors]
    return [n for n in (getattr(layer, k, None) for k in _DIGITAL) if isinstance(n, str)]


def _array(tensor: Tensor) -> Any:
    held = tensor.detach().cpu()
    if held.dtype == torch.bool or not held.is_floating_point():
        return held.numpy()
    # float64 goes through float32 in Network, which refuses what does not fit.
    return held.double().numpy()


def _plainer(layer: Layer, biases: Mapping[str, Tensor]) -> Layer:
    """Without `biased` where there is no bias that could be added."""
    if not isinstance(layer, Linear | Conv1d | Conv2d) or layer.digital:
        return layer
    return layer if layer.weight_name in biases else layer.model_copy(update={"biased": True})


def _chained(layers: list[Layer]) -> tuple[Layer, ...]:
    """Layers that take the one before them say nothing of it."""
    names = [INPUT, *(layer.name for layer in layers)]
    return tuple(
        layer.model_copy(update={"of": ()}) if layer.of == (before,) else layer
        for layer, before in zip(layers, names, strict=False)
    )


def _needed(layers: list[Layer], result: Any) -> list[Layer]:
    """The layers that the result depends on."""
    wanted = {v for v in _flat(result) if isinstance(v, str)}
    kept = []
    for layer in reversed(layers):
        if layer.name in wanted:
            kept.append(layer)
            wanted.update(uses(layer))
    return kept[::-1]


def _flat(values: Any) -> list[Any]:
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, slice):
        values = (values.start, values.stop, values.step)
    if isinstance(values, tuple | list):
        return [v for part in values for v in _flat(part)]
    return [values]


def _plain(arguments: Any) -> Any:
    if isinstance(arguments, Const):
        return arguments.tensor
    if isinstance(arguments, dict):
        return {key: _plain(value) for key, value in arguments.items()}
    if isinstance(arguments, tuple | list):
        return type(arguments)(_plain(value) for value in arguments)
    return arguments


def _same_numbers(const: Const, made: Tensor) -> Source | None:
    """The source of a tensor that is its source itself, or its transpose."""
    old, source = const.tensor, const.source
    assert source is not None
    if made.data_ptr() != old.data_ptr() or made.ndim != old.ndim:
        return None
    if made.shape == old.shape and made.stride() == old.stride():
        return source
    if old.ndim == 2 and made.shape == old.t().shape and made.stride() == old.t().stride():
        return Source(source.parameter, not source.transposed)
    return None


def _constants_of(made: Any, parameters: frozenset[str], source: Source | None) -> Any:
    if isinstance(made, Tensor):
        return Const(made, parameters, source)
    if isinstance(made, tuple | list):
        return tuple(_constants_of(part, parameters, None) for part in made)
    return made
