"""What each kind of layer computes, in NumPy; the products of weights are left to the caller.

`walk` is the one place that runs a network layer by layer. The functions agree with torch's of the
same names, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.networks.layers import (
    AdaptivePool2d,
    Arithmetic,
    Attention,
    AvgPool2d,
    BatchNorm,
    Chunk,
    Concat,
    Constant,
    Conv1d,
    Conv2d,
    Dropout,
    Einsum,
    Elementwise,
    Embedding,
    Expand,
    Flatten,
    Full,
    GroupNorm,
    Index,
    Layer,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool2d,
    Narrow,
    Pad,
    Part,
    Permute,
    Recurrent,
    Reduce,
    ReLU,
    Repeat,
    Reshape,
    Select,
    Size,
    SizeOf,
    Softmax,
    Squeeze,
    Tanh,
    Transpose,
    Unflatten,
    Unsqueeze,
    Upsample,
    Weighted,
    Where,
)

Float32 = NDArray[np.float32]
Values = Any
"""What a layer gives: an array, a size, or a tuple of these."""
Asked = Generator[tuple[Weighted, Float32], Float32, Values]
"""Yields products to be made: a layer and its input, (vectors, inputs) or (n, channels, h, w); is
sent what its weight makes of it without bias, (vectors, outputs) or (n, outputs, out h, out w).
"""

_UNFOLDED_IMAGES = 16


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


def product(layer: Weighted, weight: Float32, values: Float32) -> Float32:
    """What a layer's float weight makes of its input, without bias; shapes as in `Asked`."""
    matrix = weight.reshape(layer.outputs, -1)
    if isinstance(layer, Linear):
        return values @ matrix[layer.taken].T
    size, made = layer.inputs // layer.groups, layer.outputs // layer.groups
    parts = []
    for start in range(0, len(values), _UNFOLDED_IMAGES):
        images = values[start : start + _UNFOLDED_IMAGES]
        groups = []
        for group in range(layer.groups):
            rows = unfold(
                images[:, group * size : (group + 1) * size],
                layer.kernel,
                layer.stride,
                layer.padding,
                layer.dilation,
            )
            own = matrix[group * made : (group + 1) * made]
            groups.append((own @ rows.reshape(len(rows), -1)).reshape(made, *rows.shape[1:]))
        parts.append(groups[0] if layer.groups == 1 else np.concatenate(groups))
    return np.concatenate(parts, axis=3).transpose(3, 0, 1, 2)


@dataclass(frozen=True)
class Step:
    """A layer of a walk, the values that it takes, and those that nobody needs after it."""

    layer: Layer
    of: tuple[str, ...]
    freed: tuple[str, ...]


def walk(
    steps: Sequence[Step],
    tensors: Mapping[str, NDArray[Any]],
    biases: Mapping[str, Float32],
    inputs: Mapping[str, Values],
) -> Generator[tuple[Weighted, Float32], Float32, dict[str, Values]]:
    """Run layers on `inputs` (by name) and give what is still wanted at the end, by name. Raises
    `DataError` naming the layer whose input does not fit.
    """
    env = dict(inputs)
    scope = _Scope(tensors, env)
    for step in steps:
        layer, taken = step.layer, [env[name] for name in step.of]
        if isinstance(layer, Linear | Conv1d | Conv2d):
            env[layer.name] = yield from _weighted(layer, taken[0], tensors, biases)
        elif isinstance(layer, Recurrent):
            env[layer.name] = yield from _recurrent(layer, taken, tensors, biases)
        else:
            try:
                env[layer.name] = _OPERATIONS[type(layer)](layer, taken, scope)
            except (ValueError, IndexError, TypeError) as error:
                shapes = ", ".join(str(np.shape(value)) for value in taken)
                raise DataError(f"layer {layer.name}: cannot take {shapes}: {error}") from None
        for name in step.freed:
            del env[name]
    return env


def uses(layer: Layer) -> list[str]:
    """Names of the layers whose values a layer takes, those that it takes sizes from included, but
    not the one before it, where it names none.
    """
    sizes: list[Any] = []
    for field in ("shape", "counts", "start", "length", "index"):
        found = getattr(layer, field, ())
        sizes += found if isinstance(found, tuple) else (found,)
    for entry in getattr(layer, "entries", ()):
        sizes += entry if isinstance(entry, tuple) else ()
    return [*layer.of, *(size for size in sizes if isinstance(size, str))]


def _weighted(
    layer: Weighted,
    values: Values,
    tensors: Mapping[str, NDArray[Any]],
    biases: Mapping[str, Float32],
) -> Asked:
    """The product with its bias, for an input of any leading dimensions."""
    name = layer.weight_name
    bias = tensors.get(f"{name}.bias") if layer.digital else biases.get(name)
    shape = np.shape(values)
    if isinstance(layer, Linear):
        if len(shape) < 1 or shape[-1] != layer.inputs:
            raise DataError(
                f"layer {layer.name}: takes {layer.inputs} inputs of a 2-D batch, gets an array of"
                f" shape {shape}"
            )
        vectors = values.reshape(-1, layer.inputs)
    else:
        dims = 3 if isinstance(layer, Conv1d) else 4
        if len(shape) != dims or shape[1] != layer.inputs:
            raise DataError(
                f"layer {layer.name}: takes {layer.inputs} inputs of a {dims}-D batch, gets an"
                f" array of shape {shape}"
            )
        vectors = values[:, :, None] if dims == 3 else values
    if layer.digital:
        made = product(layer, tensors[f"{name}.weight"], vectors)
    else:
        made = yield layer, vectors
    if isinstance(layer, Linear):
        if layer.biased and bias is not None:
            made += bias[layer.taken]
        return made.reshape(*shape[:-1], made.shape[-1])
    if layer.biased and bias is not None:
        made += bias.reshape(-1, 1, 1)
    return made[:, :, 0] if isinstance(layer, Conv1d) else made


def _recurrent(
    layer: Recurrent,
    taken: Sequence[Values],
    tensors: Mapping[str, NDArray[Any]],
    biases: Mapping[str, Float32],
) -> Asked:
    values = taken[0]
    if values.ndim != 3 or values.shape[2] != layer.inputs:
        raise DataError(
            f"layer {layer.name}: takes (batch, time, {layer.inputs}), gets an array of shape"
            f" {values.shape}"
        )
    count, length, _ = values.shape
    first = np.zeros((layer.layers * layer.directions, count, layer.hidden), dtype=np.float32)
    hiddens = taken[1] if len(taken) > 1 else first
    cells = taken[2] if len(taken) > 2 else first
    last_hidden, last_cell = [], []
    for depth in range(layer.layers):
        ways = []
        for direction in range(layer.directions):
            at = depth * layer.directions + direction
            of_input, of_hidden = layer.pair(depth, direction)
            driven = yield from _weighted(of_input, values, tensors, biases)
            hidden, cell = hiddens[at], cells[at]
            out = np.empty((count, length, layer.hidden), dtype=np.float32)
            for time in range(length - 1, -1, -1) if direction else range(length):
                held = yield from _weighted(of_hidden, hidden, tensors, biases)
                hidden, cell = _CELLS[layer.cell](driven[:, time], held, hidden, cell)
                out[:, time] = hidden
            ways.append(out)
            last_hidden.append(hidden)
            last_cell.append(cell)
        values = np.concatenate(ways, axis=2) if len(ways) > 1 else ways[0]
    return values, np.stack(last_hidden), np.stack(last_cell)


_Cell = Callable[[Float32, Float32, Float32, Float32], tuple[Float32, Float32]]


def _lstm(driven: Float32, held: Float32, hidden: Float32, cell: Float32) -> Any:
    i, f, g, o = np.split(driven + held, 4, axis=1)
    new = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(new), new


def _gru(driven: Float32, held: Float32, hidden: Float32, cell: Float32) -> Any:
    (r, z, n), (held_r, held_z, held_n) = np.split(driven, 3, axis=1), np.split(held, 3, axis=1)
    reset, update = _sigmoid(r + held_r), _sigmoid(z + held_z)
    new = np.tanh(n + reset * held_n)
    return (1 - update) * new + update * hidden, cell


_CELLS: dict[str, _Cell] = {
    "lstm": _lstm,
    "gru": _gru,
    "tanh": lambda driven, held, hidden, cell: (np.tanh(driven + held), cell),
    "relu": lambda driven, held, hidden, cell: (np.maximum(driven + held, np.float32(0)), cell),
}


class _Scope:
    """Digital tensors, and sizes by the name of the layer that gives them."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], env: Mapping[str, Values]) -> None:
        self._tensors, self._env = tensors, env

    def tensor(self, name: str | None) -> Any:
        return None if name is None else self._tensors[name]

    def size(self, size: Size | None) -> Any:
        return int(self._env[size]) if isinstance(size, str) else size

    def sizes(self, sizes: Iterable[Size]) -> tuple[int, ...]:
        return tuple(self.size(size) for size in sizes)


def _sigmoid(x: Any) -> Any:
    # By the hyperbolic tangent, which overflows on neither side.
    half = np.float32(0.5)
    return half * np.tanh(half * x) + half


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    scaled = x * np.float32(beta)
    return np.where(scaled > threshold, x, np.logaddexp(scaled, np.float32(0)) / np.float32(beta))


def _erf(x: Any) -> Any:
    from scipy.special import erf  # 0.1 s to load, which few networks need

    return erf(x)


def _gelu(x: Any) -> Any:
    return x * np.float32(0.5) * (1 + _erf(x * np.float32(math.sqrt(0.5))))


def _gelu_tanh(x: Any) -> Any:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _elu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, 0)))


def _celu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, 0) / np.float32(alpha)))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": _sigmoid,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * _sigmoid(x),
    "leaky_relu": lambda x, slope=0.01: np.where(x >= 0, x, x * np.float32(slope)),
    "elu": _elu,
    "celu": _celu,
    "selu": lambda x: np.float32(_SELU_SCALE) * _elu(x, _SELU_ALPHA),
    "clamp": lambda x, low, high: np.clip(x, np.float32(low), np.float32(high)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / np.float32(6),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / np.float32(6),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "logsigmoid": lambda x: -_softplus(-x),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "abs": np.abs,
    "neg": np.negative,
    "sin": np.sin,
    "cos": np.cos,
    "erf": _erf,
    "square": np.square,
    "reciprocal": lambda x: 1 / x,
    "not": np.logical_not,
}

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
}


def _float32(x: Any) -> Any:
    """Results of whole numbers and of numbers in double precision as torch would have them."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float64 else x


def _elementwise(layer: Elementwise, of: list[Any], scope: _Scope) -> Any:
    return _float32(_FUNCTIONS[layer.function](of[0], *layer.parameters))


def _arithmetic(layer: Arithmetic, of: list[Any], scope: _Scope) -> Any:
    other = of[1] if layer.scalar is None else layer.scalar
    left, right = (other, of[0]) if layer.swapped else (of[0], other)
    made = _OPERATORS[layer.operator](left, right)
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return _float32(made)
    return made.item() if isinstance(made, np.generic) else made


def _attention(layer: Attention, of: list[Any], scope: _Scope) -> Any:
    q, k, v = of[:3]
    scale = layer.scale if layer.scale is not None else 1 / math.sqrt(q.shape[-1])
    scores = (q * np.float32(scale)) @ k.swapaxes(-1, -2)
    if layer.causal:
        seen = np.tri(*scores.shape[-2:]).astype(np.bool_)
        scores = np.where(seen, scores, np.float32(-np.inf))
    if len(of) > 3:
        mask = of[3]
        if mask.dtype == np.bool_:
            scores = np.where(mask != layer.hides, scores, np.float32(-np.inf))
        else:
            scores = scores + mask
    if layer.gives == "weights":
        return _softmax_of(scores, -1)
    hidden = (scores == -np.inf).all(axis=-1, keepdims=True)
    if not hidden.any():
        return _softmax_of(scores, -1) @ v
    # As torch has it: what sees nothing is zero.
    return np.where(hidden, np.float32(0), _softmax_of(np.where(hidden, 0, scores), -1)) @ v


def _softmax_of(x: Any, dim: int) -> Any:
    powers = np.exp(x - x.max(axis=dim, keepdims=True))
    powers /= powers.sum(axis=dim, keepdims=True)
    return powers


def _softmax(layer: Softmax, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    if not layer.log:
        return _softmax_of(x, layer.dim)
    shifted = x - x.max(axis=layer.dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=layer.dim, keepdims=True))


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "sum": np.sum,
    "amax": np.max,
    "amin": np.min,
}


def _reduce(layer: Reduce, of: list[Any], scope: _Scope) -> Any:
    x, dims = of[0], layer.dims or None
    if layer.function in ("var", "std"):
        count = x.size if dims is None else math.prod(x.shape[d] for d in dims)
        spread = x - x.mean(axis=dims, keepdims=True)
        total = np.square(spread).sum(axis=dims, keepdims=layer.keepdim)
        made = total / np.float32(count - layer.correction)
        return np.sqrt(made) if layer.function == "std" else made
    return np.asarray(_REDUCTIONS[layer.function](x, axis=dims, keepdims=layer.keepdim))


def _batch_norm(layer: BatchNorm, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    if x.ndim < 2 or x.shape[1] != layer.channels:
        raise DataError(
            f"layer {layer.name}: takes {layer.channels} channels, gets an array of shape {x.shape}"
        )
    gain = 1 / np.sqrt(scope.tensor(layer.tensor("running_var")) + np.float32(layer.eps))
    shift = -scope.tensor(layer.tensor("running_mean")) * gain
    if layer.affine:
        weight = scope.tensor(layer.tensor("weight"))
        gain, shift = gain * weight, shift * weight + scope.tensor(layer.tensor("bias"))
    places = (-1, *([1] * (x.ndim - 2)))
    return x * gain.reshape(places) + shift.reshape(places)


def _layer_norm(layer: LayerNorm, of: list[Any], scope: _Scope) -> Any:
    x, axes = of[0], tuple(range(-layer.dims, 0))
    if not layer.rms:
        x = x - x.mean(axis=axes, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + np.float32(layer.eps))
    if layer.weight is not None:
        x = x * scope.tensor(layer.weight)
    return x if layer.bias is None else x + scope.tensor(layer.bias)


def _group_norm(layer: GroupNorm, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    parts = x.reshape(len(x), layer.groups or x.shape[1], -1)
    parts = parts - parts.mean(axis=2, keepdims=True)
    parts /= np.sqrt(np.square(parts).mean(axis=2, keepdims=True) + np.float32(layer.eps))
    x, places = parts.reshape(x.shape), (-1, *([1] * (x.ndim - 2)))
    if layer.weight is not None:
        x = x * scope.tensor(layer.weight).reshape(places)
    return x if layer.bias is None else x + scope.tensor(layer.bias).reshape(places)


def _places(layer: MaxPool2d | AvgPool2d, size: int, axis: int, dilation: int = 1) -> int:
    """How many windows there are along an axis, the rule of `ceil_mode` being torch's."""
    kernel, stride, padding = layer.kernel[axis], layer.stride[axis], layer.padding[axis]
    left = size + 2 * padding - dilation * (kernel - 1) - 1
    if left < 0:
        raise DataError(f"layer {layer.name}: an image of {size} pixels is smaller than its window")
    if not layer.ceil_mode:
        return left // stride + 1
    count = -(-left // stride) + 1
    # The last window must begin in the image or in the padding before it.
    return count - 1 if (count - 1) * stride >= size + padding else count


def _pool(layer: MaxPool2d | AvgPool2d, of: list[Any], scope: _Scope) -> Any:
    images = of[0]
    if images.ndim != 4:
        raise DataError(
            f"layer {layer.name}: pools a 4-D batch, gets an array of shape {images.shape}"
        )
    height, width = images.shape[2:]
    is_max = isinstance(layer, MaxPool2d)
    dh, dw = layer.dilation if isinstance(layer, MaxPool2d) else (1, 1)
    out = _places(layer, height, 0, dh), _places(layer, width, 1, dw)
    (kh, kw), (sh, sw) = layer.kernel, layer.stride
    ends = (out[0] - 1) * sh + dh * (kh - 1) + 1, (out[1] - 1) * sw + dw * (kw - 1) + 1
    images = _padded_for_pool(images, layer.padding, ends, -np.inf if is_max else 0.0)
    join = np.maximum if is_max else np.add
    result: Any = None
    for i in range(0, kh * dh, dh):
        for j in range(0, kw * dw, dw):
            part = images[:, :, i : i + sh * out[0] : sh, j : j + sw * out[1] : sw]
            part = part[:, :, : out[0], : out[1]]
            # Layers hand images on with any of their axes innermost in memory: keep that order.
            result = part.copy(order="K") if result is None else join(result, part, out=result)
    if isinstance(layer, MaxPool2d):
        return result
    return result / _window_sizes(layer, (height, width), out)


def _padded_for_pool(
    images: Any, padding: tuple[int, int], ends: tuple[int, int], value: float
) -> Any:
    (ph, pw), (height, width) = padding, images.shape[2:]
    after = max(ends[0] - ph - height, 0), max(ends[1] - pw - width, 0)
    if not (ph or pw or any(after)):
        return images
    return np.pad(images, ((0, 0), (0, 0), (ph, after[0]), (pw, after[1])), constant_values=value)


def _window_sizes(layer: AvgPool2d, size: tuple[int, int], out: tuple[int, int]) -> Any:
    """What the sum of each window is divided by: all of it that lies in the image or, if it counts,
    in its padding.
    """
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel, layer.stride, layer.padding
    if layer.divisor is not None:
        return np.float32(layer.divisor)
    if not (ph or pw or layer.ceil_mode):
        return np.float32(kh * kw)
    spans = []
    for places, kernel, stride, padding, extent in zip(
        out, (kh, kw), (sh, sw), (ph, pw), size, strict=True
    ):
        begin = np.arange(places) * stride - padding
        end = np.minimum(begin + kernel, extent + padding)
        if not layer.count_include_pad:
            begin, end = np.maximum(begin, 0), np.minimum(end, extent)
        spans.append(end - begin)
    return np.multiply.outer(*spans).astype(np.float32)


def _adaptive_pool(layer: AdaptivePool2d, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    for axis, wanted in zip((-2, -1), layer.size, strict=True):
        size = x.shape[axis]
        count = size if wanted is None else wanted
        function = np.mean if layer.function == "mean" else np.max
        spans = [(k * size // count, -(-(k + 1) * size // count)) for k in range(count)]
        moved = np.moveaxis(x, axis, -1)
        pooled = [function(moved[..., a:b], axis=-1) for a, b in spans]
        x = np.moveaxis(np.stack(pooled, axis=-1), -1, axis)
    return x


def _flatten(layer: Flatten, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    start, end = layer.start % max(x.ndim, 1), layer.end % max(x.ndim, 1)
    joined = math.prod(x.shape[start : end + 1])
    return x.reshape(*x.shape[:start], joined, *x.shape[end + 1 :])


def _unflatten(layer: Unflatten, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    dim = layer.dim % x.ndim
    return x.reshape(*x.shape[:dim], *scope.sizes(layer.shape), *x.shape[dim + 1 :])


def _transpose(layer: Transpose, of: list[Any], scope: _Scope) -> Any:
    if layer.rank is not None and of[0].ndim != layer.rank:
        raise DataError(
            f"layer {layer.name}: takes {layer.rank} dimensions, gets an array of shape"
            f" {of[0].shape}"
        )
    return of[0].swapaxes(*layer.dims)


def _squeeze(layer: Squeeze, of: list[Any], scope: _Scope) -> Any:
    x = of[0]
    dims = layer.dims or range(x.ndim)
    return x.squeeze(tuple(d for d in dims if x.shape[d] == 1))


def _unsqueeze(layer: Unsqueeze, of: list[Any], scope: _Scope) -> Any:
    return np.expand_dims(of[0], layer.dim)


def _expand(layer: Expand, of: list[Any], scope: _Scope) -> Any:
    x, wanted = of[0], scope.sizes(layer.shape)
    own = (1,) * (len(wanted) - x.ndim) + x.shape
    return np.broadcast_to(x, tuple(o if w == -1 else w for o, w in zip(own, wanted, strict=True)))


def _concat(layer: Concat, of: list[Any], scope: _Scope) -> Any:
    return (np.stack if layer.new else np.concatenate)(of, axis=layer.dim)


def _chunk(layer: Chunk, of: list[Any], scope: _Scope) -> Any:
    size = of[0].shape[layer.dim]
    length = -(-size // layer.chunks)
    starts = range(0, size, length)
    return _along(of[0], layer.dim, starts[layer.index], length)


def _along(x: Any, dim: int, start: int, length: int) -> Any:
    start = start + x.shape[dim] if start < 0 else start
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, start + length)
    return x[tuple(index)]


def _narrow(layer: Narrow, of: list[Any], scope: _Scope) -> Any:
    return _along(of[0], layer.dim, scope.size(layer.start), scope.size(layer.length))


def _select(layer: Select, of: list[Any], scope: _Scope) -> Any:
    if isinstance(of[0], tuple):
        return of[0][scope.size(layer.index)]
    index = scope.size(layer.index)
    size = of[0].shape[layer.dim]
    if not -size <= index < size:
        raise DataError(f"layer {layer.name}: there is no value {index} of {size}")
    return np.take(of[0], index % size, axis=layer.dim)


_MARKS: dict[str, Any] = {"...": Ellipsis, "new": None}


def _index(layer: Index, of: list[Any], scope: _Scope) -> Any:
    entries: list[Any] = []
    for entry in layer.entries:
        if isinstance(entry, tuple):
            start, stop, step = entry
            entries.append(slice(scope.size(start), scope.size(stop), step))
        else:
            entries.append(entry if isinstance(entry, int) else _MARKS[entry])
    return of[0][tuple(entries)]


def _pad(layer: Pad, of: list[Any], scope: _Scope) -> Any:
    x, amounts = of[0], layer.amounts
    pairs = [(amounts[k], amounts[k + 1]) for k in range(0, len(amounts), 2)]
    cut = [
        slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape[::-1], strict=False)
    ]
    x = x[(Ellipsis, *cut[::-1])]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + [(max(b, 0), max(a, 0)) for b, a in pairs[::-1]]
    if layer.mode == "constant":
        return np.pad(x, widths, constant_values=layer.value)
    mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[layer.mode]
    return np.pad(x, widths, mode=mode)  # type: ignore[call-overload]


def _embedding(layer: Embedding, of: list[Any], scope: _Scope) -> Any:
    table = scope.tensor(layer.tensor)
    numbers = np.asarray(of[0])
    rows = numbers.astype(np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(table) and (rows == numbers).all()):
        raise DataError(f"layer {layer.name}: takes whole numbers of 0..{len(table) - 1}")
    return table[rows]


def _where(layer: Where, of: list[Any], scope: _Scope) -> Any:
    if layer.value is not None:
        return np.where(of[0], np.float32(layer.value), of[1])
    return np.where(*of)


def _upsample(layer: Upsample, of: list[Any], scope: _Scope) -> Any:
    if of[0].ndim != 4:
        raise DataError(
            f"layer {layer.name}: takes a 4-D batch, gets an array of shape {of[0].shape}"
        )
    return of[0].repeat(layer.scale[0], axis=-2).repeat(layer.scale[1], axis=-1)


_OPERATIONS: dict[type, Callable[[Any, list[Any], _Scope], Any]] = {
    ReLU: lambda layer, of, scope: np.maximum(of[0], np.float32(0)),
    Tanh: lambda layer, of, scope: np.tanh(of[0]),
    Elementwise: _elementwise,
    Arithmetic: _arithmetic,
    Constant: lambda layer, of, scope: scope.tensor(layer.tensor),
    MatMul: lambda layer, of, scope: of[0] @ of[1],
    Einsum: lambda layer, of, scope: np.einsum(layer.equation, *of, optimize=True),
    Attention: _attention,
    Softmax: _softmax,
    Reduce: _reduce,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    GroupNorm: _group_norm,
    MaxPool2d: _pool,
    AvgPool2d: _pool,
    AdaptivePool2d: _adaptive_pool,
    Flatten: _flatten,
    Reshape: lambda layer, of, scope: of[0].reshape(scope.sizes(layer.shape)),
    Unflatten: _unflatten,
    Permute: lambda layer, of, scope: of[0].transpose(layer.dims),
    Transpose: _transpose,
    Squeeze: _squeeze,
    Unsqueeze: _unsqueeze,
    Expand: _expand,
    Repeat: lambda layer, of, scope: np.tile(of[0], scope.sizes(layer.counts)),
    Concat: _concat,
    Chunk: _chunk,
    Narrow: _narrow,
    Select: _select,
    Index: _index,
    Part: lambda layer, of, scope: of[0][layer.index],
    SizeOf: lambda layer, of, scope: int(of[0].shape[layer.dim]),
    Pad: _pad,
    Embedding: _embedding,
    Where: _where,
    Dropout: lambda layer, of, scope: of[0],
    Full: lambda layer, of, scope: np.full(scope.sizes(layer.shape), np.float32(layer.value)),
    Upsample: _upsample,
}
