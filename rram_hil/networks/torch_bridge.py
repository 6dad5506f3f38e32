"""Networks from torch and to torch; torch is imported when it is needed."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from rram_hil.networks.folding import folded
from rram_hil.networks.layers import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
)
from rram_hil.networks.network import Float32, Network, extra

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
