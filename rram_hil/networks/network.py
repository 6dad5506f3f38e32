"""A trained network as plain data: a graph of layers, float32 weights, one file; runs in NumPy and
needs no torch.

Only `Network.from_torch`, `Network.to_torch` and `tensors_from` of a module import torch, and only
files need safetensors; both come with the extra `rram-hil[torch]`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.array import drive
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.evaluation import Float32, Step, product, unfold, uses, walk
from rram_hil.networks.layers import (
    INPUT,
    AvgPool2d,
    BatchNorm,
    Constant,
    Conv1d,
    Conv2d,
    Embedding,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
    Weighted,
    products_of,
)

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "Flatten",
    "Float32",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Network",
    "NoLayersError",
    "ReLU",
    "Tanh",
    "Weighted",
    "extra",
    "finite_tensor",
    "forward",
    "product",
    "propagate",
    "run",
    "tensors_from",
    "unfold",
]

Result = Any
"""What a network gives: the name of a layer, a number, or a tuple, list or dict of results."""


def finite_tensor(name: str, values: ArrayLike, *, infinite: bool = False) -> Float32:
    """`values` as a read-only float32 array of its own. Raises `DataError` naming the tensor and
    the first NaN or inf, which may be in one that may be `infinite`.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, and is refused
        array = np.array(values, dtype=np.float32)
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape))
        raise DataError(
            f"tensor {name}: {array[at]} at index {at} ({int(bad.sum())} such); every weight must"
            " be finite"
        )
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Network:
    """A graph of layers with their weights and biases, both by the weight's name, which is the
    layer's own unless layers share it; `tensors` are what stays digital besides.

    `result` is what the network gives, by default its last layer. Raises `ConfigError` for repeated
    names and missing or surplus tensors, `DataError` for a wrong shape or a weight that is not
    finite.
    """

    layers: tuple[Layer, ...]
    weights: Mapping[str, Float32]
    biases: Mapping[str, Float32] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    inputs: int = 1
    result: Result = None

    def __post_init__(self) -> None:
        self._check_names()
        known = self.products
        for kind, given in (("weight", self.weights), ("bias", self.biases)):
            for name in given:
                if name not in known:
                    raise ConfigError(
                        f"network: a {kind} is given for {name!r}, but the layers with weights are"
                        f" {list(known)}"
                    )
        for name in known:
            if name not in self.weights:
                raise ConfigError(f"network: layer {name!r} has no weight")
        weights = {
            n: _of_shape(f"{n}.weight", self.weights[n], known[n].weight_shape) for n in known
        }
        biases = {
            n: _of_shape(f"{n}.bias", self.biases[n], (layer.outputs,))
            for n, layer in known.items()
            if n in self.biases
        }
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)
        object.__setattr__(self, "tensors", self._digital_tensors())

    def _check_names(self) -> None:
        seen = set(self._inputs)
        for layer in self.layers:
            if layer.name in seen:
                raise ConfigError(f"network: more than one layer is named {layer.name!r}")
            for name in uses(layer):
                if name not in seen:
                    raise ConfigError(
                        f"network: layer {layer.name!r} takes {name!r}, which is no layer before it"
                    )
            seen.add(layer.name)
        for name in names_in(self.result):
            if name not in seen:
                raise ConfigError(f"network: its result {name!r} is none of its layers")

    def _digital_tensors(self) -> dict[str, NDArray[Any]]:
        needed = dict.fromkeys(name for layer in self.layers for name in _tensors_of(layer))
        missing = [name for name in needed if name not in self.tensors]
        if missing:
            raise ConfigError(f"network: the digital tensor {missing[0]!r} is missing")
        kept = {}
        for name in (*needed, *sorted(set(self.tensors) - set(needed))):
            tensor = self.tensors[name]
            array = np.asarray(tensor)
            if array.dtype.kind == "f":
                array = finite_tensor(name, array, infinite=name in self._masks)
            kept[name] = array
        for layer in self.layers:
            if isinstance(layer, BatchNorm) and (kept[layer.tensor("running_var")] < 0).any():
                raise DataError(f"tensor {layer.tensor('running_var')}: a variance is negative")
        return kept

    @property
    def _masks(self) -> set[str]:
        """Constants, which may hold an infinity (a mask of attention)."""
        return {layer.tensor for layer in self.layers if isinstance(layer, Constant)}

    @property
    def _inputs(self) -> tuple[str, ...]:
        return (INPUT, *(f"{INPUT}_{k}" for k in range(1, self.inputs)))

    @property
    def weighted(self) -> tuple[Weighted, ...]:
        """The products that go to the array, in order, one for each weight."""
        return tuple(self.products.values())

    @cached_property
    def products(self) -> dict[str, Weighted]:
        """The products that go to the array by the weight's name, in order of first use."""
        found: dict[str, Weighted] = {}
        for own in (own for layer in self.layers for own in products_of(layer)):
            if not own.digital:
                found.setdefault(own.weight_name, own)
        return found

    @property
    def matrices(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight that goes to the array, in order of first use."""
        return {name: layer.weight_shape for name, layer in self.products.items()}

    @property
    def digital(self) -> dict[str, int]:
        """Parameters that stay off the array by name of the tensor, and how many: biases, digital
        weights, tables, normalisations.
        """
        return {f"{n}.bias": b.size for n, b in self.biases.items()} | {
            n: t.size for n, t in self.tensors.items()
        }

    @property
    def parameters(self) -> int:
        """Number of weights, biases and digital values."""
        return sum(w.size for w in self.weights.values()) + sum(self.digital.values())

    def with_weights(self, weights: Mapping[str, ArrayLike]) -> Network:
        """The same network with some weights replaced; (out, in) matrices are taken for
        convolutions too.
        """
        shapes = self.matrices
        new = {
            n: np.asarray(w, dtype=np.float32).reshape(shapes.get(n, np.shape(w)))
            for n, w in weights.items()
        }
        return replace(self, weights={**self.weights, **new})

    def with_biases(self, biases: Mapping[str, ArrayLike]) -> Network:
        """The same network with some biases replaced or added."""
        return replace(
            self,
            biases={
                **self.biases,
                **{n: np.asarray(b, dtype=np.float32) for n, b in biases.items()},
            },
        )

    @classmethod
    def from_torch(
        cls, module: nn.Module, *, inputs: int = 1, allow_digital: Collection[str] = ()
    ) -> Network:
        """A network from any module that torch.fx can trace; docs/networks.md says what maps.

        Layers are named as their modules, with "_" for ".". A batch norm right after a layer is
        folded into it with its running statistics. `allow_digital` names the weights (or the
        modules that have them) that may stay off the array. Raises `ConfigError` naming what is not
        supported.
        """
        from rram_hil.networks.torch_bridge import from_torch

        return from_torch(module, inputs, allow_digital)

    def to_torch(self) -> nn.Module:
        """The same network as a torch module in evaluation mode: a plain chain of layers as an
        `nn.Sequential`, its modules named as the layers.
        """
        from rram_hil.networks.torch_bridge import to_torch

        return to_torch(self)

    def save(self, path: str | Path) -> None:
        """Write one .safetensors file: see `network_file`."""
        from rram_hil.networks.network_file import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Network:
        """Read what `save` wrote. Raises `DataError` for a file that cannot be used, of the kind
        `NoLayersError` where its weights alone could be.
        """
        from rram_hil.networks.network_file import load

        return load(Path(path))

    @cached_property
    def schedule(self) -> tuple[Step, ...]:
        """The layers in order, each with what it takes and what nobody needs after it."""
        names = [INPUT, *(layer.name for layer in self.layers)]
        taken = [layer.of or (before,) for layer, before in zip(self.layers, names, strict=False)]
        last = {name: number for number, name in enumerate(names[1:])}
        last |= dict.fromkeys(self._inputs, 0)
        for number, (layer, of) in enumerate(zip(self.layers, taken, strict=True)):
            last |= dict.fromkeys((*of, *uses(layer)), number)
        kept = names_in(self.result) or [names[-1]]
        freed: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in kept:
                freed.setdefault(number, []).append(name)
        return tuple(
            Step(layer, of, tuple(freed.get(number, ())))
            for number, (layer, of) in enumerate(zip(self.layers, taken, strict=True))
        )


class NoLayersError(DataError):
    """A file of weights has no layer list that can be read: `tensors_from` still takes them."""


def _of_shape(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Float32:
    array = finite_tensor(name, values)
    if array.shape != shape:
        raise DataError(f"tensor {name}: shape {array.shape}, but its layer needs {shape}")
    return array


def names_in(result: Result) -> list[str]:
    """Names of the layers in a result."""
    if isinstance(result, str):
        return [result]
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, tuple | list):
        return [name for part in result for name in names_in(part)]
    return []


def _tensors_of(layer: Layer) -> list[str]:
    """Names of the digital tensors that a layer cannot do without."""
    match layer:
        case Constant() | Embedding():
            return [layer.tensor]
        case LayerNorm() | GroupNorm():
            return [name for name in (layer.weight, layer.bias) if name is not None]
        case BatchNorm():
            own = ("weight", "bias") if layer.affine else ()
            return [layer.tensor(what) for what in ("running_mean", "running_var", *own)]
    return [f"{own.weight_name}.weight" for own in products_of(layer) if own.digital]


def propagate(
    network: Network, *inputs: ArrayLike
) -> Generator[tuple[Weighted, Float32], Float32, Any]:
    """Walk a batch through the network, leaving the products of its weights to the caller.

    Yields each product as its layer with its input, (vectors, inputs) or (n, channels, h, w); is
    sent what the weight makes of it without bias, (vectors, outputs) or (n, outputs, out h, out w),
    and adds the bias to it in place. A one-dimensional convolution asks with a height of 1. Returns
    what the network gives, for a classifier the logits, (n, classes). Raises `DataError` naming the
    layer whose input does not fit.
    """
    if len(inputs) != network.inputs:
        raise DataError(f"network: takes {network.inputs} inputs, gets {len(inputs)}")
    values = {name: as_input(given) for name, given in zip(network._inputs, inputs, strict=True)}
    env = yield from walk(network.schedule, network.tensors, network.biases, values)
    if network.result is None:
        return env[network.layers[-1].name if network.layers else INPUT]
    return assembled(network.result, env)


def as_input(values: ArrayLike) -> NDArray[Any]:
    """`values` as a network takes them: float32, but truth values (a mask) as they are."""
    array = np.asarray(values)
    return array if array.dtype == np.bool_ else array.astype(np.float32, copy=False)


def assembled(result: Result, env: Mapping[str, Any]) -> Any:
    """A result with its values in place of the names."""
    if isinstance(result, str):
        return env[result]
    if isinstance(result, dict):
        return {key: assembled(part, env) for key, part in result.items()}
    if isinstance(result, tuple | list):
        return type(result)(assembled(part, env) for part in result)
    return result


def run(
    network: Network, images: ArrayLike, multiply: Callable[[Weighted, Float32], Float32]
) -> Any:
    """What the network gives for a batch, each product (see `propagate`) made by `multiply(layer,
    input)`.
    """
    return drive(propagate(network, images), lambda asked: multiply(*asked))


def forward(network: Network, images: ArrayLike, batch: int = 250) -> Float32:
    """Logits (n, classes) of float inference in NumPy, `batch` images at a time: the reference for
    the array.
    """
    values = as_input(images)
    if len(values) == 0:
        raise DataError("forward: no images")
    return joined(
        [
            run(
                network,
                part,
                lambda layer, x: product(layer, network.weights[layer.weight_name], x),
            )
            for part in parts_of(network, values, batch)
        ],
        len(values),
    )


def parts_of(network: Network, values: NDArray[Any], batch: int) -> list[NDArray[Any]]:
    """The inputs of a network, `batch` at a time, or whole where they belong together. Raises
    `ConfigError` for a network that takes or gives more than one array.
    """
    from rram_hil.networks.batches import is_batched

    if network.inputs != 1 or not (network.result is None or isinstance(network.result, str)):
        raise ConfigError(
            "network: takes or gives more than one array; run it with `attach` or `propagate`"
        )
    if len(values) <= max(batch, 2) or not is_batched(network, values):
        return [values]
    return [values[start : start + batch] for start in range(0, len(values), batch)]


def joined(parts: Sequence[Any], images: int) -> Float32:
    """What a network gave for `images`, part by part. Raises `DataError` where that is not one row
    an image.
    """
    if any(np.ndim(part) == 0 for part in parts) or sum(len(part) for part in parts) != images:
        raise DataError(
            f"network: gives {', '.join(str(np.shape(part)) for part in parts[:2])} for {images}"
            " images, and not one row an image; run it with `attach` or `propagate`"
        )
    return np.concatenate(parts)


def tensors_from(
    source: str | Path | nn.Module,
    *,
    inputs: int | None = None,
    allow_digital: Collection[str] = (),
) -> dict[str, Float32]:
    """Weights by layer name that go to the array, of a torch module or of a .safetensors file.

    A module is traced: its weights are those that its forward pass multiplies by. A file does not
    say: of it every tensor of 2 to 4 dimensions called `<layer>.weight` is taken. Every other
    weight of two dimensions or more must be named in `allow_digital` (itself, or the module that
    has it). Raises `DataError` for a weight that is not finite or a file that cannot be read,
    `ConfigError` where there is none, or one is left over.
    """
    if isinstance(source, str | Path):
        from rram_hil.networks.network_file import weights_in

        found, label = weights_in(Path(source), allow_digital), str(source)
    else:
        from rram_hil.networks.torch_bridge import weights_of

        found, label = weights_of(source, inputs, allow_digital), type(source).__name__
    if not found:
        raise ConfigError(f"{label}: no Linear or Conv2d weight in it")
    return {name: finite_tensor(f"{name}.weight", tensor) for name, tensor in found.items()}


def extra(module: str) -> Any:
    """A module of the extra `rram-hil[torch]`. Raises `ConfigError` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{module.split('.')[0]} is not installed; this needs it: pip install 'rram-hil[torch]'"
        ) from None
