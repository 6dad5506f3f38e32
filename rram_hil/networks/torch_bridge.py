"""Networks from torch and to torch; torch is imported when it is needed."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from rram_hil.networks.evaluation import uses
from rram_hil.networks.layers import (
    INPUT,
    AvgPool2d,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dropout,
    Elementwise,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
)
from rram_hil.networks.network import Float32, Network, Result, extra

if TYPE_CHECKING:
    from torch import nn


def from_torch(module: nn.Module, inputs: int, allow_digital: Collection[str]) -> Network:
    """What `Network.from_torch` gives."""
    extra("torch")
    from rram_hil.networks.pytorch.module import TorchNetwork
    from rram_hil.networks.pytorch.tracing import trace

    if isinstance(module, TorchNetwork):
        return module.network()
    traced = trace(module, inputs=inputs, allow_digital=allow_digital, separator="_")
    return folded(traced.network)


def weights_of(
    module: nn.Module, inputs: int | None, allow_digital: Collection[str]
) -> dict[str, Float32]:
    """The weights of a module that go to the array, by the names that `attach` knows them by."""
    extra("torch")
    from rram_hil.networks.pytorch.tracing import trace

    count = inputs or required_inputs(module)
    return dict(trace(module, inputs=count, allow_digital=allow_digital).network.weights)


def required_inputs(module: nn.Module) -> int:
    """How many arguments the forward pass of a module cannot do without."""
    parameters = inspect.signature(module.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty
    ]
    return max(len(needed), 1)


def folded(network: Network) -> Network:
    """The same network with each batch norm right after a product in its weights and biases, where
    nothing else takes the product or the weight.
    """
    takers = Counter(name for name, _ in _takings(network))
    users = Counter(
        layer.weight_name for layer in network.layers if isinstance(layer, Linear | Conv1d | Conv2d)
    )
    before = dict(zip((x.name for x in network.layers), network.layers, strict=True))
    ranks = _ranks(network)
    weights, biases = dict(network.weights), dict(network.biases)
    instead: dict[str, str] = {}
    for place, layer in enumerate(network.layers):
        if not isinstance(layer, BatchNorm):
            continue
        taken = before.get(_of(network, place)[0])
        if not isinstance(taken, Linear | Conv1d | Conv2d) or taken.digital:
            continue
        name, is_alone = taken.weight_name, takers[taken.name] == 1
        # Of more dimensions, a linear layer makes the last one, and a norm works on the second.
        apart = isinstance(taken, Linear) and (taken.rows is not None or ranks[taken.name] != 2)
        if not is_alone or users[name] > 1 or apart or not taken.biased:
            continue
        weights[name], biases[name] = _with_norm(network, layer, weights[name], biases.get(name))
        instead[layer.name] = taken.name
    return _without(network, instead, weights, biases)


def _ranks(network: Network) -> dict[str, int | None]:
    """How many dimensions each value has, where its layer says it."""
    ranks: dict[str, int | None] = {}
    for place, layer in enumerate(network.layers):
        of = _of(network, place)
        match layer:
            case Flatten() if (layer.start, layer.end) == (1, -1):
                rank: int | None = 2
            case Conv2d() | MaxPool2d() | AvgPool2d():
                rank = 4
            case Conv1d():
                rank = 3
            case Linear() | BatchNorm() | ReLU() | Tanh() | Elementwise() | Dropout():
                rank = ranks.get(of[0])
            case _:
                rank = None
        ranks[layer.name] = rank
    return ranks


def _with_norm(network: Network, norm: BatchNorm, weight: Any, bias: Any) -> tuple[Any, Any]:
    def tensor(what: str) -> Any:
        return network.tensors[norm.tensor(what)].astype(np.float64)

    gain = 1 / np.sqrt(tensor("running_var") + norm.eps)
    shift: Any = 0.0
    if norm.affine:
        gain, shift = gain * tensor("weight"), tensor("bias")
    scaled = weight.astype(np.float64) * gain.reshape(-1, *([1] * (weight.ndim - 1)))
    held = 0.0 if bias is None else bias.astype(np.float64)
    return scaled, (held - tensor("running_mean")) * gain + shift


def _of(network: Network, place: int) -> tuple[str, ...]:
    layer = network.layers[place]
    return layer.of or ((network.layers[place - 1].name,) if place else (INPUT,))


def _takings(network: Network) -> list[tuple[str, str]]:
    """Each value and a layer that takes it; the result takes some too."""
    pairs = [
        (name, layer.name)
        for place, layer in enumerate(network.layers)
        for name in (*_of(network, place), *uses(layer)[len(layer.of) :])
    ]
    return pairs + [(name, "") for name in _names(network.result)]


def _names(result: Result) -> list[str]:
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, tuple | list):
        return [name for part in result for name in _names(part)]
    return [result] if isinstance(result, str) else []


def _without(
    network: Network, instead: dict[str, str], weights: dict[str, Any], biases: dict[str, Any]
) -> Network:
    """The network with some layers left out and others taken in their place."""
    kept = [
        (layer, _of(network, place))
        for place, layer in enumerate(network.layers)
        if layer.name not in instead
    ]
    layers, last = [], INPUT
    for layer, of in kept:
        taken = tuple(instead.get(name, name) for name in of)
        layers.append(layer.model_copy(update={"of": () if taken == (last,) else taken}))
        last = layer.name
    gone = {
        layer.tensors or layer.name
        for layer in network.layers
        if isinstance(layer, BatchNorm) and layer.name in instead
    } - {x.tensors or x.name for x in layers if isinstance(x, BatchNorm)}
    tensors = {n: t for n, t in network.tensors.items() if n.rpartition(".")[0] not in gone}
    result = _renamed_result(network.result, instead)
    return Network(tuple(layers), weights, biases, tensors, network.inputs, result)


def _renamed_result(result: Result, names: dict[str, str]) -> Result:
    if isinstance(result, str):
        return names.get(result, result)
    if isinstance(result, dict):
        return {key: _renamed_result(part, names) for key, part in result.items()}
    if isinstance(result, tuple | list):
        return tuple(_renamed_result(part, names) for part in result)
    return result


_PLAIN: dict[type[Layer], str] = {ReLU: "ReLU", Tanh: "Tanh", Flatten: "Flatten"}


def to_torch(network: Network) -> nn.Module:
    """What `Network.to_torch` gives."""
    torch, nn = extra("torch"), extra("torch.nn")
    if not all(_is_plain(layer) for layer in network.layers) or network.result is not None:
        from rram_hil.networks.pytorch.module import TorchNetwork

        return TorchNetwork(network)

    def build(layer: Any) -> Any:
        match layer:
            case Linear():
                return nn.Linear(layer.inputs, layer.outputs, bias=layer.name in network.biases)
            case Conv2d():
                return nn.Conv2d(
                    layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding,
                    layer.dilation, layer.groups, bias=layer.name in network.biases,
                )  # fmt: skip
            case MaxPool2d():
                return nn.MaxPool2d(layer.kernel, layer.stride)
            case AvgPool2d():
                return nn.AvgPool2d(layer.kernel, layer.stride)
        return getattr(nn, _PLAIN[type(layer)])()

    # On the meta device nothing is initialised, so that torch's global random stream stays
    # untouched.
    with torch.device("meta"):
        result = nn.Sequential()
        for layer in network.layers:
            result.add_module(layer.name, build(layer))
    tensors = {f"{n}.weight": w for n, w in network.weights.items()} | {
        f"{n}.bias": b for n, b in network.biases.items()
    }
    result.load_state_dict({n: torch.tensor(t) for n, t in tensors.items()}, assign=True)
    result.eval()
    return result  # type: ignore[no-any-return]


def _is_plain(layer: Layer) -> bool:
    """Whether a module of torch of the same name, taking the one before, is the same."""
    if layer.of or "." in layer.name:
        return False
    match layer:
        case Linear():
            return (
                layer.weight is None and layer.rows is None and layer.biased and not layer.digital
            )
        case Conv2d():
            return layer.weight is None and layer.biased and not layer.digital
        case MaxPool2d():
            return layer == MaxPool2d(name=layer.name, kernel=layer.kernel, stride=layer.stride)
        case AvgPool2d():
            return layer == AvgPool2d(name=layer.name, kernel=layer.kernel, stride=layer.stride)
        case Flatten():
            return (layer.start, layer.end) == (1, -1)
    return isinstance(layer, ReLU | Tanh)
