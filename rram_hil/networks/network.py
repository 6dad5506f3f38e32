"""A trained network as plain data: layers, float32 weights, one file; runs in NumPy and needs no
torch.

Only `Network.from_torch`, `Network.to_torch` and `tensors_from` of a module import torch, and only
files need safetensors; both come with the extra `rram-hil[torch]`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, TypeAdapter, ValidationError

from rram_hil.array import drive
from rram_hil.errors import ConfigError, DataError
from rram_hil.validation import StrictModel

if TYPE_CHECKING:
    from torch import nn

Float32 = NDArray[np.float32]
Count = Annotated[int, Field(ge=1)]
Pair = tuple[Count, Count]
Padding = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]

_METADATA_KEY = "rram_hil.network"  # part of the file format, whatever this module is called
_UNFOLDED_IMAGES = 16


class _Layer(StrictModel):
    name: Annotated[str, Field(min_length=1, pattern=r"^[^./]+$")]


class Linear(_Layer):
    """outputs = weight (outputs, inputs) times the inputs, plus a bias where the network has one
    for this name.
    """

    kind: Literal["linear"] = "linear"
    inputs: Count
    outputs: Count

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of this layer's weight."""
        return (self.outputs, self.inputs)


class Conv2d(_Layer):
    """Two-dimensional convolution, zero padding; weight (outputs, inputs, kernel height, kernel
    width).
    """

    kind: Literal["conv2d"] = "conv2d"
    inputs: Count
    outputs: Count
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of this layer's weight."""
        return (self.outputs, self.inputs, *self.kernel)


class ReLU(_Layer):
    """max(x, 0)."""

    kind: Literal["relu"] = "relu"


class Tanh(_Layer):
    """tanh(x)."""

    kind: Literal["tanh"] = "tanh"


class MaxPool2d(_Layer):
    """Largest value of each window."""

    kind: Literal["max_pool2d"] = "max_pool2d"
    kernel: Pair
    stride: Pair


class AvgPool2d(_Layer):
    """Mean of each window."""

    kind: Literal["avg_pool2d"] = "avg_pool2d"
    kernel: Pair
    stride: Pair


class Flatten(_Layer):
    """(images, channels, height, width) to (images, features)."""

    kind: Literal["flatten"] = "flatten"


Weighted = Linear | Conv2d
Layer = Linear | Conv2d | ReLU | Tanh | MaxPool2d | AvgPool2d | Flatten

_LAYERS: TypeAdapter[tuple[Layer, ...]] = TypeAdapter(
    tuple[Annotated[Layer, Field(discriminator="kind")], ...]
)


def finite_tensor(name: str, values: ArrayLike) -> Float32:
    """`values` as a read-only float32 array of its own. Raises `DataError` naming the tensor and
    the first NaN or inf.
    """
    array = np.array(values, dtype=np.float32)
    bad = ~np.isfinite(array)
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
    """A chain of layers with their weights and biases, both by layer name.

    Raises `ConfigError` for repeated names and missing or surplus tensors, `DataError` for a wrong
    shape or a weight that is not finite.
    """

    layers: tuple[Layer, ...]
    weights: Mapping[str, Float32]
    biases: Mapping[str, Float32] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"network: more than one layer is named {name!r}")
        known = {layer.name: layer for layer in self.weighted}
        for kind, tensors in (("weight", self.weights), ("bias", self.biases)):
            for name in tensors:
                if name not in known:
                    raise ConfigError(
                        f"network: a {kind} is given for {name!r}, but Linear and Conv2d layers are"
                        f" {list(known)}"
                    )
        for name in known:
            if name not in self.weights:
                raise ConfigError(f"network: layer {name!r} has no weight")
        weights = {
            n: _of_shape(f"{n}.weight", self.weights[n], known[n].weight_shape) for n in known
        }
        biases = {n: _of_shape(f"{n}.bias", b, (known[n].outputs,)) for n, b in self.biases.items()}
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    @property
    def weighted(self) -> tuple[Weighted, ...]:
        """The layers that have weights, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Linear | Conv2d))

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(t.size for t in (*self.weights.values(), *self.biases.values()))

    def with_weights(self, weights: Mapping[str, ArrayLike]) -> Network:
        """The same network with some weights replaced; (out, in) matrices are taken for
        convolutions too.
        """
        shapes = {layer.name: layer.weight_shape for layer in self.weighted}
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
    def from_torch(cls, module: nn.Sequential) -> Network:
        """A network from an `nn.Sequential` (nested ones too: their names are joined with "_").

        Takes Linear, Conv2d, ReLU, Tanh, MaxPool2d, AvgPool2d and Flatten. BatchNorm is folded into
        the layer before it with its running statistics; Dropout and Identity are left out. Raises
        `ConfigError` naming any other module or setting.
        """
        from rram_hil.networks.torch_bridge import from_torch

        return from_torch(module)

    def to_torch(self) -> nn.Sequential:
        """The same network as an `nn.Sequential` in evaluation mode, its modules named as the
        layers.
        """
        from rram_hil.networks.torch_bridge import to_torch

        return to_torch(self)

    def save(self, path: str | Path) -> None:
        """Write one .safetensors file: tensors `<layer>.weight`, `<layer>.bias`, the layer list as
        JSON in its metadata.
        """
        safetensors = extra("safetensors.numpy")
        tensors = {f"{n}.weight": w for n, w in self.weights.items()} | {
            f"{n}.bias": b for n, b in self.biases.items()
        }
        layers = _LAYERS.dump_json(self.layers).decode()
        try:
            safetensors.save_file(tensors, str(path), metadata={_METADATA_KEY: layers})
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Network:
        """Read what `save` wrote. Raises `DataError` for a file that cannot be used, of the kind
        `NoLayersError` where its weights alone could be.
        """
        tensors, metadata = _read_safetensors(Path(path))
        if _METADATA_KEY not in metadata:
            raise NoLayersError(
                f"{path}: no layer list in its metadata; use `tensors_from` for weights without a"
                " topology"
            )
        try:
            layers = _LAYERS.validate_json(metadata[_METADATA_KEY])
        except ValidationError as error:
            raise NoLayersError(
                f"{path}: its layer list is wrong: {error.errors()[0]['msg']}"
            ) from None
        kinds = {"weight": dict[str, Any](), "bias": dict[str, Any]()}
        for name, tensor in tensors.items():
            layer, _, kind = name.rpartition(".")
            if kind not in kinds:
                raise DataError(f"{path}: unexpected tensor {name!r}")
            kinds[kind][layer] = tensor
        return cls(layers, kinds["weight"], kinds["bias"])


class NoLayersError(DataError):
    """A file of weights has no layer list that can be read: `tensors_from` still takes them."""


def _of_shape(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Float32:
    array = finite_tensor(name, values)
    if array.shape != shape:
        raise DataError(f"tensor {name}: shape {array.shape}, but its layer needs {shape}")
    return array


def unfold(
    images: NDArray[Any],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> NDArray[Any]:
    """im2col: (n, channels, h, w) of any type to (channels x kh x kw, out h, out w, n), zero
    padded.

    The row order is that of `weight.reshape(outputs, -1)`. The images of one place lie together, so
    every copy is of long runs.
    """
    n, channels, height, width = images.shape
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    out_h = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    out_w = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    if out_h < 1 or out_w < 1:
        raise DataError(f"an image of {height} x {width} is smaller than the {kh} x {kw} kernel")
    padded = np.zeros((channels, height + 2 * ph, width + 2 * pw, n), dtype=images.dtype)
    padded[:, ph : ph + height, pw : pw + width] = images.transpose(1, 2, 3, 0)
    rows = np.empty((channels, kh, kw, out_h, out_w, n), dtype=images.dtype)
    for i in range(kh):
        for j in range(kw):
            places = padded[:, i * dh : i * dh + sh * out_h : sh, j * dw : j * dw + sw * out_w : sw]
            rows[:, i, j] = places[:, :out_h, :out_w]
    return rows.reshape(channels * kh * kw, out_h, out_w, n)


def _pool(images: NDArray[Any], layer: MaxPool2d | AvgPool2d) -> NDArray[Any]:
    (kh, kw), (sh, sw) = layer.kernel, layer.stride
    out_h, out_w = (images.shape[2] - kh) // sh + 1, (images.shape[3] - kw) // sw + 1
    if out_h < 1 or out_w < 1:
        raise DataError(
            f"layer {layer.name}: an image of {images.shape[2]} x {images.shape[3]} is smaller than"
            " its window"
        )
    join = np.maximum if isinstance(layer, MaxPool2d) else np.add
    result: NDArray[Any] | None = None
    for i in range(kh):
        for j in range(kw):
            part = images[:, :, i : i + sh * out_h : sh, j : j + sw * out_w : sw][
                :, :, :out_h, :out_w
            ]
            # Layers hand images on with any of their axes innermost in memory: keep that order.
            result = part.copy(order="K") if result is None else join(result, part, out=result)
    assert result is not None
    return result if isinstance(layer, MaxPool2d) else result / np.float32(kh * kw)


def propagate(
    network: Network, images: ArrayLike
) -> Generator[tuple[Weighted, Float32], Float32, Float32]:
    """Walk a batch through the network, leaving the products to the caller: the one place that
    knows the topology.

    Yields each Linear or Conv2d layer with its input, (n, inputs) or (n, channels, h, w); is sent
    the product without bias, (n, outputs) or (n, outputs, out h, out w), and adds the bias to it in
    place; returns the logits, (n, classes). Raises `DataError` naming the layer whose input does
    not fit.
    """
    values: Float32 = np.asarray(images, dtype=np.float32)
    for layer in network.layers:
        if isinstance(layer, Linear | Conv2d):
            dims = 2 if isinstance(layer, Linear) else 4
            if values.ndim != dims or values.shape[1] != layer.inputs:
                raise DataError(
                    f"layer {layer.name}: takes {layer.inputs} inputs of a {dims}-D batch, gets an"
                    f" array of shape {values.shape}"
                )
            values = yield layer, values
            bias = network.biases.get(layer.name)
            if bias is not None:
                values += bias.reshape(-1, *([1] * (dims - 2)))
        elif isinstance(layer, ReLU):
            values = np.maximum(values, np.float32(0))
        elif isinstance(layer, Tanh):
            values = np.tanh(values)
        elif isinstance(layer, Flatten):
            values = values.reshape(values.shape[0], -1)
        elif values.ndim != 4:
            raise DataError(
                f"layer {layer.name}: pools a 4-D batch, gets an array of shape {values.shape}"
            )
        else:
            values = _pool(values, layer)
    return values


def product(layer: Weighted, weight: Float32, values: Float32) -> Float32:
    """What a layer's float weight makes of its input, without bias; shapes as in `propagate`."""
    matrix = weight.reshape(layer.outputs, -1)
    if isinstance(layer, Linear):
        return values @ matrix.T
    parts = []
    for start in range(0, len(values), _UNFOLDED_IMAGES):
        rows = unfold(
            values[start : start + _UNFOLDED_IMAGES], layer.kernel, layer.stride, layer.padding
        )
        parts.append((matrix @ rows.reshape(len(rows), -1)).reshape(layer.outputs, *rows.shape[1:]))
    return np.concatenate(parts, axis=3).transpose(3, 0, 1, 2)


def run(
    network: Network, images: ArrayLike, multiply: Callable[[Weighted, Float32], Float32]
) -> Float32:
    """Logits of a batch, each product (see `propagate`) made by `multiply(layer, input)`."""
    return drive(propagate(network, images), lambda asked: multiply(*asked))


def forward(network: Network, images: ArrayLike, batch: int = 250) -> Float32:
    """Logits (n, classes) of float inference in NumPy, `batch` images at a time: the reference for
    the array.
    """
    values = np.asarray(images, dtype=np.float32)
    if len(values) == 0:
        raise DataError("forward: no images")
    parts = (values[start : start + batch] for start in range(0, len(values), batch))
    return np.concatenate(
        [
            run(network, part, lambda layer, x: product(layer, network.weights[layer.name], x))
            for part in parts
        ]
    )


def tensors_from(source: str | Path | nn.Module) -> dict[str, Float32]:
    """Weights by layer name of every Linear and Conv2d of a torch module, or of a .safetensors
    file.

    Of a file, every 2-D and 4-D tensor called `<layer>.weight` is taken: it does not say which of
    them are embeddings. Raises `DataError` for a weight that is not finite or a file that cannot be
    read, `ConfigError` where there is none.
    """
    if isinstance(source, str | Path):
        tensors, _ = _read_safetensors(Path(source))
        found = {
            n.removesuffix(".weight"): t
            for n, t in tensors.items()
            if n.endswith(".weight") and t.ndim in (2, 4)
        }
        label = str(source)
    else:
        nn = extra("torch.nn")
        layers = {n: m for n, m in source.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        found = {n or "weight": m.weight.detach().float().cpu().numpy() for n, m in layers.items()}
        label = type(source).__name__
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


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    safetensors = extra("safetensors")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())
            return {
                name: np.asarray(file.get_tensor(name)) for name in names
            }, file.metadata() or {}
    except (OSError, TypeError, ValueError, AttributeError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: not a safetensors file of NumPy types: {error}") from None
