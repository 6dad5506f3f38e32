"""What each kind of layer computes, in torch: a network is walked layer by layer, and the products
of weights that are on the array are left to the caller.

The definitions are those of `layers`; `evaluation` computes the same in NumPy. Only here do layers
learn: in training, dropout drops and batch norms take, and keep, the statistics of their batches.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.layers import (
    INPUT,
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
    Entry,
    Expand,
    Flatten,
    Full,
    GroupNorm,
    Index,
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
from rram_hil.networks.network import Network, assembled

Multiply = Callable[[Weighted, Tensor], Tensor]
"""multiply(layer, its input) -> its output, the bias included. The input of a linear layer may have
any dimensions before the features; that of a Conv1d is (n, channels, length).
"""


def walk(
    network: Network,
    tensors: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    multiply: Multiply,
    *,
    training: bool = False,
    frozen: Collection[str] = (),
) -> Any:
    """What `network` makes of its inputs, in the structure of its `result`.

    `tensors` are those of `network.tensors`, and the biases of digital weights, by name. In
    training they are written to: batch norms, but those that are `frozen`, keep their running
    statistics there.
    """
    return _Walk(network, tensors, inputs, multiply, training, frozen).result()


def product(layer: Weighted, activity: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `layer` makes of its input with this weight and bias (of the weight's whole outputs)."""
    if isinstance(layer, Linear):
        if layer.rows is not None:
            weight = weight[layer.taken]
            bias = None if bias is None else bias[layer.taken]
        return functional.linear(activity, weight, bias)
    if isinstance(layer, Conv1d):
        _, stride = layer.stride
        _, padding = layer.padding
        _, dilation = layer.dilation
        return functional.conv1d(activity, weight, bias, stride, padding, dilation, layer.groups)
    return functional.conv2d(
        activity, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


class _Walk:
    """One pass of a batch through a network."""

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        multiply: Multiply,
        training: bool,
        frozen: Collection[str],
    ) -> None:
        if len(inputs) != network.inputs:
            raise DataError(f"the network takes {network.inputs} inputs, not {len(inputs)}")
        self._network, self._tensors, self._multiply = network, tensors, multiply
        self.training, self.frozen = training, frozen
        self._values: dict[str, Any] = {
            f"{INPUT}_{k}" if k else INPUT: value for k, value in enumerate(inputs)
        }
        floating = (t for t in (*inputs, *tensors.values()) if t.is_floating_point())
        self.like = next(floating, torch.zeros(0))

    def result(self) -> Any:
        """Walk all layers and gather the result."""
        network, values = self._network, self._values
        for step in network.schedule:
            values[step.layer.name] = _OPERATIONS[type(step.layer)](
                self, step.layer, *(values[name] for name in step.of)
            )
            for name in step.freed:
                del values[name]
        if network.result is None:
            return values[network.layers[-1].name if network.layers else INPUT]
        return assembled(network.result, values)

    def multiply(self, layer: Weighted, activity: Tensor) -> Tensor:
        """The product and bias of one layer: by the caller, or here where it stays digital."""
        if not layer.digital:
            return self._multiply(layer, activity)
        weight, bias = f"{layer.weight_name}.weight", f"{layer.weight_name}.bias"
        given = self.tensor(bias, activity) if layer.biased and bias in self._tensors else None
        return product(layer, activity, self.tensor(weight, activity), given)

    def stored(self, name: str) -> Tensor | None:
        """A tensor as it is stored, where there is one of this name."""
        return self._tensors.get(name)

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """A tensor where `like` is and, if both are floating point, in its type."""
        stored = self._tensors[name]
        if stored.is_floating_point() and like.is_floating_point():
            return stored.to(like.device, like.dtype)
        return stored.to(like.device)

    def size(self, size: Size) -> int:
        """A size, by its own number or that of the layer named."""
        return int(self._values[size]) if isinstance(size, str) else size

    def sizes(self, sizes: Sequence[Size]) -> list[int]:
        """Several sizes."""
        return [self.size(size) for size in sizes]


# Products.


def _recurrent(walk: _Walk, layer: Recurrent, x: Tensor, *first: Tensor) -> tuple[Tensor, ...]:
    last: list[tuple[Tensor, ...]] = []
    zeros = x.new_zeros((len(x), layer.hidden))
    states = 2 if layer.cell == "lstm" else 1
    for depth in range(layer.layers):
        ways = []
        for direction in range(layer.directions):
            state = tuple(s[len(last)] for s in first) or (zeros,) * states
            outputs, state = _scan(walk, layer, depth, direction, x, state)
            ways.append(outputs)
            last.append(state)
        x = torch.cat(ways, -1)
        if depth + 1 < layer.layers:
            x = functional.dropout(x, layer.dropout, walk.training)
    return (x, *(torch.stack(parts) for parts in zip(*last, strict=True)))


def _scan(
    walk: _Walk,
    layer: Recurrent,
    depth: int,
    direction: int,
    x: Tensor,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All outputs of one layer in one direction, and its last state."""
    of_input, of_hidden = layer.pair(depth, direction)
    step, given = _CELLS[layer.cell], walk.multiply(of_input, x)
    outputs = []
    times = range(x.shape[1])
    for time in reversed(times) if direction else times:
        state = step(given[:, time], walk.multiply(of_hidden, state[0]), *state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if direction else outputs, 1), state


def _lstm(x: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    entered, kept, new, shown = (x + recurrent).chunk(4, -1)
    cell = torch.sigmoid(kept) * cell + torch.sigmoid(entered) * torch.tanh(new)
    return torch.sigmoid(shown) * torch.tanh(cell), cell


def _gru(x: Tensor, recurrent: Tensor, hidden: Tensor) -> tuple[Tensor]:
    reset, update, new = x.chunk(3, -1)
    of_reset, of_update, of_new = recurrent.chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
    return (new + torch.sigmoid(update + of_update) * (hidden - new),)


_CELLS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "lstm": _lstm,
    "gru": _gru,
    "tanh": lambda x, recurrent, hidden: (torch.tanh(x + recurrent),),
    "relu": lambda x, recurrent, hidden: (torch.relu(x + recurrent),),
}


def _matmul(walk: _Walk, layer: MatMul, left: Tensor, right: Tensor) -> Tensor:
    return left @ right


def _einsum(walk: _Walk, layer: Einsum, *operands: Tensor) -> Tensor:
    return torch.einsum(layer.equation, *operands)


def _attention(
    walk: _Walk, layer: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    dropout = layer.dropout if walk.training else 0.0
    if mask is not None:
        mask = mask != layer.hides if mask.dtype == torch.bool else mask.to(q.dtype)
    if layer.causal:
        seen = torch.ones((q.shape[-2], k.shape[-2]), dtype=torch.bool, device=q.device).tril()
        if mask is None or mask.dtype == torch.bool:
            mask = seen if mask is None else mask & seen
        else:
            mask = mask.masked_fill(~seen, -math.inf)
    if layer.gives == "values":
        return functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=layer.scale)
    scale = 1 / math.sqrt(q.shape[-1]) if layer.scale is None else layer.scale
    scores = (q * scale) @ k.transpose(-1, -2)
    if mask is not None:
        hidden = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -math.inf) if hidden else scores + mask
    return functional.dropout(functional.softmax(scores, -1), dropout)


# Functions of each value.

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "celu": functional.celu,
    "selu": functional.selu,
    "clamp": torch.clamp,
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "mish": functional.mish,
    "logsigmoid": functional.logsigmoid,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": abs,
    "neg": operator.neg,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
    "not": lambda x: torch.logical_not(x) if isinstance(x, Tensor) else not x,
}


def _elementwise(walk: _Walk, layer: Elementwise, x: Any) -> Any:
    return _FUNCTIONS[layer.function](x, *layer.parameters)


def _extremum(of_tensors: Callable[[Tensor, Tensor], Tensor], of_numbers: Any) -> Any:
    def choose(left: Any, right: Any) -> Any:
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return of_tensors(torch.as_tensor(left), torch.as_tensor(right))
        return of_numbers(left, right)

    return choose


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "maximum": _extremum(torch.maximum, max),
    "minimum": _extremum(torch.minimum, min),
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
}


def _arithmetic(walk: _Walk, layer: Arithmetic, left: Any, right: Any = None) -> Any:
    if layer.scalar is not None:
        left, right = (layer.scalar, left) if layer.swapped else (left, layer.scalar)
    return _OPERATORS[layer.operator](left, right)


def _where(walk: _Walk, layer: Where, truth: Tensor, *rest: Tensor) -> Tensor:
    if layer.value is not None:
        return rest[0].masked_fill(truth, layer.value)
    return torch.where(truth, rest[0], rest[1])


def _dropout(walk: _Walk, layer: Dropout, x: Tensor) -> Tensor:
    if not layer.channels:
        return functional.dropout(x, layer.p, walk.training)
    # torch drops whole channels of anything with a batch, channels and places.
    return torch.feature_dropout(x, layer.p, walk.training)


def _softmax(walk: _Walk, layer: Softmax, x: Tensor) -> Tensor:
    return (functional.log_softmax if layer.log else functional.softmax)(x, layer.dim)


def _reduce(walk: _Walk, layer: Reduce, x: Tensor) -> Tensor:
    dims = layer.dims or tuple(range(x.ndim))
    if layer.function == "var":
        return torch.var(x, dims, correction=layer.correction, keepdim=layer.keepdim)
    if layer.function == "std":
        return torch.std(x, dims, correction=layer.correction, keepdim=layer.keepdim)
    given: Tensor = _REDUCTIONS[layer.function](x, dims, keepdim=layer.keepdim)
    return given


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "amax": torch.amax,
    "amin": torch.amin,
}


# Norms.


def _batch_norm(walk: _Walk, layer: BatchNorm, x: Tensor) -> Tensor:
    mean, var = (walk.tensor(layer.tensor(f"running_{what}"), x) for what in ("mean", "var"))
    weight, bias = (
        walk.tensor(layer.tensor(what), x) if layer.affine else None for what in ("weight", "bias")
    )
    if not walk.training or layer.name in walk.frozen:
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, layer.eps)
    momentum = _momentum(walk, layer)
    given = functional.batch_norm(x, mean, var, weight, bias, True, momentum, layer.eps)
    with torch.no_grad():
        for what, new in (("running_mean", mean), ("running_var", var)):
            stored = walk.stored(layer.tensor(what))
            if stored is not None and stored is not new:
                stored.copy_(new)
    return given


def _momentum(walk: _Walk, layer: BatchNorm) -> float:
    """Count the batch; without a momentum each counts as much as any before it."""
    batches = walk.stored(layer.tensor("num_batches_tracked"))
    if batches is not None:
        batches.add_(1)
    if layer.momentum is not None:
        return layer.momentum
    if batches is None:
        raise ConfigError(
            f"layer {layer.name}: its batch norm has no momentum, and how many batches it has seen"
            f" is not known: it needs the tensor {layer.tensor('num_batches_tracked')}"
        )
    return 1.0 / float(batches)


def _affine(
    walk: _Walk, layer: LayerNorm | GroupNorm, x: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    weight, bias = (
        None if name is None else walk.tensor(name, x) for name in (layer.weight, layer.bias)
    )
    return weight, bias


def _layer_norm(walk: _Walk, layer: LayerNorm, x: Tensor) -> Tensor:
    weight, bias = _affine(walk, layer, x)
    if not layer.rms:
        return functional.layer_norm(x, x.shape[-layer.dims :], weight, bias, layer.eps)
    # torch has a function for it from 2.4 on only.
    dims = tuple(range(-layer.dims, 0))
    given = x * torch.rsqrt(x.square().mean(dims, keepdim=True) + layer.eps)
    given = given if weight is None else given * weight
    return given if bias is None else given + bias


def _group_norm(walk: _Walk, layer: GroupNorm, x: Tensor) -> Tensor:
    return functional.group_norm(x, layer.groups or x.shape[1], *_affine(walk, layer, x), layer.eps)


# Pools.


def _max_pool(walk: _Walk, layer: MaxPool2d, x: Tensor) -> Tensor:
    return functional.max_pool2d(
        x, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    )


def _avg_pool(walk: _Walk, layer: AvgPool2d, x: Tensor) -> Tensor:
    return functional.avg_pool2d(
        x,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.ceil_mode,
        layer.count_include_pad,
        layer.divisor,
    )


def _adaptive_pool(walk: _Walk, layer: AdaptivePool2d, x: Tensor) -> Tensor:
    mean = layer.function == "mean"
    pool = functional.adaptive_avg_pool2d if mean else functional.adaptive_max_pool2d
    return pool(x, layer.size)  # type: ignore[arg-type]


# Shapes and parts.


def _constant(walk: _Walk, layer: Constant, before: Any) -> Tensor:
    return walk.tensor(layer.tensor, walk.like)


def _full(walk: _Walk, layer: Full, before: Any) -> Tensor:
    return walk.like.new_full(walk.sizes(layer.shape), layer.value)


def _flatten(walk: _Walk, layer: Flatten, x: Tensor) -> Tensor:
    return x.flatten(layer.start, layer.end)


def _reshape(walk: _Walk, layer: Reshape, x: Tensor) -> Tensor:
    return x.reshape(walk.sizes(layer.shape))


def _unflatten(walk: _Walk, layer: Unflatten, x: Tensor) -> Tensor:
    given: Tensor = x.unflatten(layer.dim, walk.sizes(layer.shape))  # type: ignore[no-untyped-call]
    return given


def _permute(walk: _Walk, layer: Permute, x: Tensor) -> Tensor:
    return x.permute(layer.dims)


def _transpose(walk: _Walk, layer: Transpose, x: Tensor) -> Tensor:
    if layer.rank not in (None, x.ndim):
        raise DataError(
            f"layer {layer.name}: takes {layer.rank} dimensions, gets the shape {tuple(x.shape)}"
        )
    return x.transpose(*layer.dims)


def _squeeze(walk: _Walk, layer: Squeeze, x: Tensor) -> Tensor:
    return x.squeeze(layer.dims) if layer.dims else x.squeeze()


def _unsqueeze(walk: _Walk, layer: Unsqueeze, x: Tensor) -> Tensor:
    return x.unsqueeze(layer.dim)


def _expand(walk: _Walk, layer: Expand, x: Tensor) -> Tensor:
    return x.expand(walk.sizes(layer.shape))


def _repeat(walk: _Walk, layer: Repeat, x: Tensor) -> Tensor:
    return x.repeat(walk.sizes(layer.counts))


def _concat(walk: _Walk, layer: Concat, *parts: Tensor) -> Tensor:
    return (torch.stack if layer.new else torch.cat)(parts, layer.dim)


def _chunk(walk: _Walk, layer: Chunk, x: Tensor) -> Tensor:
    return x.chunk(layer.chunks, layer.dim)[layer.index]


def _narrow(walk: _Walk, layer: Narrow, x: Tensor) -> Tensor:
    start, size = walk.size(layer.start), x.shape[layer.dim]
    start = start + size if start < 0 else min(start, size)
    return x.narrow(layer.dim, start, min(walk.size(layer.length), size - start))


def _select(walk: _Walk, layer: Select, x: Tensor) -> Tensor:
    return x.select(layer.dim, walk.size(layer.index))


def _index(walk: _Walk, layer: Index, x: Tensor) -> Tensor:
    def entry(given: Entry) -> Any:
        if isinstance(given, tuple):
            return slice(*(None if part is None else walk.size(part) for part in given))
        return {"...": Ellipsis, "new": None}[given] if isinstance(given, str) else given

    return x[tuple(entry(given) for given in layer.entries)]


def _part(walk: _Walk, layer: Part, parts: Sequence[Any]) -> Any:
    return parts[layer.index]


def _size_of(walk: _Walk, layer: SizeOf, x: Tensor) -> int:
    return x.shape[layer.dim]


def _pad(walk: _Walk, layer: Pad, x: Tensor) -> Tensor:
    value = layer.value if layer.mode == "constant" else None
    return functional.pad(x, list(layer.amounts), layer.mode, value)


def _embedding(walk: _Walk, layer: Embedding, numbers: Tensor) -> Tensor:
    return functional.embedding(numbers.long(), walk.tensor(layer.tensor, numbers), layer.padding)


def _upsample(walk: _Walk, layer: Upsample, x: Tensor) -> Tensor:
    height, width = layer.scale
    return x.repeat_interleave(height, -2).repeat_interleave(width, -1)


_OPERATIONS: dict[type[Any], Callable[..., Any]] = {
    **dict.fromkeys((Linear, Conv1d, Conv2d), _Walk.multiply),
    Recurrent: _recurrent,
    ReLU: lambda walk, layer, x: functional.relu(x),
    Tanh: lambda walk, layer, x: torch.tanh(x),
    Elementwise: _elementwise,
    Arithmetic: _arithmetic,
    Constant: _constant,
    MatMul: _matmul,
    Einsum: _einsum,
    Attention: _attention,
    Softmax: _softmax,
    Reduce: _reduce,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    GroupNorm: _group_norm,
    MaxPool2d: _max_pool,
    AvgPool2d: _avg_pool,
    AdaptivePool2d: _adaptive_pool,
    Flatten: _flatten,
    Reshape: _reshape,
    Unflatten: _unflatten,
    Permute: _permute,
    Transpose: _transpose,
    Squeeze: _squeeze,
    Unsqueeze: _unsqueeze,
    Expand: _expand,
    Repeat: _repeat,
    Concat: _concat,
    Chunk: _chunk,
    Narrow: _narrow,
    Select: _select,
    Index: _index,
    Part: _part,
    SizeOf: _size_of,
    Pad: _pad,
    Embedding: _embedding,
    Where: _where,
    Dropout: _dropout,
    Full: _full,
    Upsample: _upsample,
}
