"""Networks from torch and to torch; torch is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import ConfigError
from rram_hil.networks.network import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Tanh,
    Weighted,
    extra,
)

if TYPE_CHECKING:
    from torch import nn


def from_torch(module: nn.Sequential) -> Network:
    """What `Network.from_torch` gives."""
    if not isinstance(module, extra("torch.nn").Sequential):
        raise ConfigError(
            f"{type(module).__name__}: a Network is made from an nn.Sequential; map any other"
            " module with `tensors_from`"
        )
    chain = _Chain()
    chain.add("", module)
    return Network(tuple(chain.layers), chain.weights, chain.biases)


def to_torch(network: Network) -> nn.Sequential:
    """What `Network.to_torch` gives."""
    torch, nn = extra("torch"), extra("torch.nn")
    plain = {"relu": nn.ReLU, "tanh": nn.Tanh, "flatten": nn.Flatten}

    def build(layer: Layer) -> Any:
        match layer:
            case Linear():
                return nn.Linear(layer.inputs, layer.outputs, bias=layer.name in network.biases)
            case Conv2d():
                size = layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding
                return nn.Conv2d(*size, bias=layer.name in network.biases)
            case MaxPool2d():
                return nn.MaxPool2d(layer.kernel, layer.stride)
            case AvgPool2d():
                return nn.AvgPool2d(layer.kernel, layer.stride)
        return plain[layer.kind]()

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


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _array(tensor: Any) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return values


def _need(allowed: bool, name: str, child: Any, why: str) -> None:
    if not allowed:
        raise ConfigError(f"module {name} ({child}): {why}")


class _Chain:
    """The layers of a module, one converter for each kind of torch's modules."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.weights: dict[str, Any] = {}
        self.biases: dict[str, Any] = {}
        nn = extra("torch.nn")
        # A subclass of an activation may compute something else: these are taken by exact type.
        self._activations = {nn.ReLU: ReLU, nn.Tanh: Tanh}
        self._converters: dict[type, Callable[[str, Any], None]] = {
            nn.Sequential: self._add_parts,
            nn.Linear: self._add_linear,
            nn.Conv2d: self._add_conv2d,
            nn.BatchNorm1d: partial(self._fold, Linear),
            nn.BatchNorm2d: partial(self._fold, Conv2d),
            nn.MaxPool2d: partial(self._add_pool, MaxPool2d),
            nn.AvgPool2d: partial(self._add_pool, AvgPool2d),
            nn.Flatten: self._add_flatten,
            **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity), lambda name, child: None),
        }

    def add(self, name: str, child: Any) -> None:
        """Convert one module. Raises `ConfigError` where a Network cannot hold it."""
        if (activation := self._activations.get(type(child))) is not None:
            self.layers.append(activation(name=name))
            return
        kinds = [kind for kind in self._converters if isinstance(child, kind)]
        shown = type(child).__name__
        _need(bool(kinds), name or "(whole network)", shown, "is not supported in a Network")
        self._converters[kinds[0]](name, child)

    def _add_parts(self, name: str, child: Any) -> None:
        for part, grandchild in child.named_children():
            self.add(f"{name}_{part}" if name else part, grandchild)

    def _add_linear(self, name: str, child: Any) -> None:
        layer = Linear(name=name, inputs=child.in_features, outputs=child.out_features)
        self._add_weighted(layer, child)

    def _add_conv2d(self, name: str, child: Any) -> None:
        alone = child.groups == 1 and _pair(child.dilation) == (1, 1)
        _need(alone, name, child, "groups and dilation must be 1")
        zeros = not isinstance(child.padding, str) and child.padding_mode == "zeros"
        _need(zeros, name, child, "padding must be numbers, filled with zeros")
        layer = Conv2d(
            name=name,
            inputs=child.in_channels,
            outputs=child.out_channels,
            kernel=_pair(child.kernel_size),
            stride=_pair(child.stride),
            padding=_pair(child.padding),
        )
        self._add_weighted(layer, child)

    def _add_weighted(self, layer: Weighted, child: Any) -> None:
        self.layers.append(layer)
        self.weights[layer.name] = _array(child.weight)
        if child.bias is not None:
            self.biases[layer.name] = _array(child.bias)

    def _fold(self, fits: type[Weighted], name: str, norm: Any) -> None:
        before = self.layers[-1] if self.layers else None
        if not isinstance(before, fits):
            why = f"can only be folded into a {fits.__name__} right before it"
            raise ConfigError(f"module {name} ({norm}): {why}")
        _need(norm.running_var is not None, name, norm, "has no running statistics to fold")
        gain = 1 / np.sqrt(_array(norm.running_var) + norm.eps)
        gain = gain * _array(norm.weight) if norm.affine else gain
        shift = _array(norm.bias) if norm.affine else 0.0
        key, weight = before.name, self.weights[before.name]
        self.weights[key] = weight * gain.reshape(-1, *([1] * (weight.ndim - 1)))
        mean = _array(norm.running_mean)
        self.biases[key] = (self.biases.get(key, 0.0) - mean) * gain + shift

    def _add_pool(self, kind: type[MaxPool2d | AvgPool2d], name: str, child: Any) -> None:
        plain = _pair(child.padding) == (0, 0) and not child.ceil_mode
        plain = plain and _pair(getattr(child, "dilation", 1)) == (1, 1)
        plain = plain and getattr(child, "divisor_override", None) is None
        why = "padding, dilation, ceil_mode and divisor_override are not supported"
        _need(plain, name, child, why)
        kernel, stride = _pair(child.kernel_size), _pair(child.stride)
        self.layers.append(kind(name=name, kernel=kernel, stride=stride))

    def _add_flatten(self, name: str, child: Any) -> None:
        whole = (child.start_dim, child.end_dim) == (1, -1)
        _need(whole, name, child, "must flatten everything but the first dimension")
        self.layers.append(Flatten(name=name))
