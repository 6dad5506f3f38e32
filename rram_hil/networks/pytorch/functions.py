"""What each function of torch becomes in a `Network`.

A converter has the signature of torch's function (or method) of its name, after the conversion `c`;
tensors arrive as `Value`, tensors that no input has to do with as `Const`. One converter is one
decorated function here.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from rram_hil.networks.layers import (
    AdaptivePool2d,
    Arithmetic,
    Attention,
    AvgPool2d,
    BatchNorm,
    Chunk,
    Concat,
    Conv1d,
    Conv2d,
    Dropout,
    Einsum,
    Elementwise,
    Embedding,
    Expand,
    Flatten,
    Full,
    Function,
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
    SizeOf,
    Softmax,
    Squeeze,
    Tanh,
    Transpose,
    Unflatten,
    Unsqueeze,
    Upsample,
    Where,
)
from rram_hil.networks.pytorch.tracing import Const, Derived, Shape, Source, Value, _Conversion

Converter = Callable[..., Any]
AnyConverter = TypeVar("AnyConverter", bound=Converter)
_CONVERTERS: dict[str, Converter] = {}
_MODULES: dict[type, Converter] = {}
_VIEWS = {
    "view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "permute", "t", "T", "mT",
    "squeeze", "unsqueeze", "expand", "chunk", "split", "unbind", "narrow", "select", "getitem",
    "contiguous", "to", "detach", "float", "type_as", "dropout", "getattr", "expand_as", "view_as",
    "movedim", "cpu", "double", "half", "bfloat16", "type", "swapdims", "dropout1d", "dropout2d",
    "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "dropout3d", "einsum",
}  # fmt: skip
"""Functions that may show the memory of their input."""


def converted(c: _Conversion, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, bool, bool]:
    """What a node becomes; whether it may be a view of its input; whether it changes its input."""
    if node.op == "call_module":
        module = c.module.get_submodule(c.module_path())
        return _MODULES[type(module)](c, module, *args, **kwargs), False, False
    name, in_place = _name_of(node)
    converter = _CONVERTERS.get(name)
    if converter is None:
        raise c.refusal(f"is not supported{_REASONS.get(name, '')}")
    try:
        bound = inspect.signature(converter).bind(c, *args, **kwargs)
    except TypeError as error:
        raise c.refusal(f"is not supported with these arguments: {error}") from None
    # Sizes are plain numbers: `count += 1` changes no tensor.
    first = args[0] if args else None
    is_size = isinstance(first, Value) and first.is_size
    in_place = (in_place or bound.arguments.get("inplace") is True) and not is_size
    return converter(*bound.args, **bound.kwargs), name in _VIEWS, in_place


def _name_of(node: fx.Node) -> tuple[str, bool]:
    """The name that a function or method is known by here, and whether it works in place."""
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.startswith("_"):
            return name.removesuffix("_"), True
        return name, False
    return _FUNCTION_NAMES.get(node.target, ""), node.target in _IN_PLACE


def _known_functions() -> tuple[dict[Any, str], set[Any]]:
    """Torch's and Python's own functions by the name of their converter; a user's function of the
    same name is none of them.
    """
    names: dict[Any, str] = {}
    in_place = set()
    wanted = {*_CONVERTERS, *_REASONS}
    places = (torch, functional, torch._C._nn, operator, torch.special, torch.linalg)
    for place in places:
        for name in dir(place):
            function = getattr(place, name)
            plain = name.strip("_")
            if not callable(function) or isinstance(function, type) or plain not in wanted:
                continue
            try:
                names.setdefault(function, plain)
            except TypeError:
                continue
            if place is not operator and name.endswith("_"):
                in_place.add(function)
    names[getattr] = "getattr"
    names[math.sqrt] = "sqrt"
    return names, in_place


def _takes(*names: str) -> Callable[[AnyConverter], AnyConverter]:
    def register(converter: AnyConverter) -> AnyConverter:
        for name in names:
            _CONVERTERS[name] = converter
        return converter

    return register


def _module(*kinds: type) -> Callable[[AnyConverter], AnyConverter]:
    def register(converter: AnyConverter) -> AnyConverter:
        for kind in kinds:
            _MODULES[kind] = converter
        return converter

    return register


def _whole(c: _Conversion, value: Any) -> Any:
    """A size: a number, or the name of the layer that gives it."""
    if isinstance(value, Value) and value.is_size:
        return value.name
    if isinstance(value, bool) or not isinstance(value, int):
        raise c.refusal(f"takes {type(value).__name__} where a size is expected")
    return int(value)


def _sizes(c: _Conversion, given: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(given) == 1 and isinstance(given[0], tuple | list | torch.Size):
        given = tuple(given[0])
    if len(given) == 1 and isinstance(given[0], Shape):
        raise c.refusal("takes a whole shape; name its sizes one by one")
    return tuple(_whole(c, size) for size in given)


def _dims(c: _Conversion, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return ()
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    if not all(isinstance(d, int) for d in dims):
        raise c.refusal("takes dimensions that are no plain numbers")
    return dims


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = (*value, *value)[:2] if len(value) == 1 else value
    return int(first), int(second)


def _single(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])


def _tensor(c: _Conversion, x: Any) -> Value:
    value = c.as_value(x)
    if value.is_size:
        raise c.refusal("takes a size where a tensor is expected")
    return value


def _need(c: _Conversion, allowed: bool, why: str) -> None:
    if not allowed:
        raise c.refusal(f"is not supported {why}")


# Products of weights


@_takes("linear")
def _linear(c: _Conversion, input: Any, weight: Any, bias: Any = None) -> Value:
    x = _tensor(c, input)
    if not isinstance(weight, Const):
        made = c.emit(MatMul, x, c.emit(Transpose, weight, dims=(-1, -2)))
        return made if bias is None else c.biased(made, bias, False)
    _need(c, weight.tensor.ndim == 2, f"with a weight of shape {tuple(weight.tensor.shape)}")
    outputs, inputs = weight.tensor.shape
    return c.weighted(Linear, x, weight, bias, inputs=inputs, outputs=outputs)


@_takes("matmul", "mm", "bmm", "mv")
def _matmul(c: _Conversion, input: Any, mat2: Any) -> Value:
    if isinstance(mat2, Const) and mat2.tensor.ndim == 2:
        return _linear(c, input, _turned(mat2))
    if isinstance(mat2, Const) and mat2.tensor.ndim == 1:
        return c.emit(Squeeze, _linear(c, input, _as_row(mat2)), dims=(-1,))
    if isinstance(input, Const) and input.tensor.ndim in (1, 2):
        _need(c, isinstance(mat2, Value), "on constants")
        if _name_of(c.node)[0] == "mv":
            return _linear(c, mat2, input)
        turned = c.emit(Transpose, _tensor(c, mat2), dims=(-1, -2))
        if input.tensor.ndim == 1:
            return c.emit(Squeeze, _linear(c, turned, _as_row(input)), dims=(-1,))
        return c.emit(Transpose, _linear(c, turned, input), dims=(-1, -2))
    return c.emit(MatMul, _factor(c, input), _factor(c, mat2))


def _factor(c: _Conversion, given: Any) -> Value:
    """A side of a digital product. A constant there would be a weight."""
    return c.as_value(given, is_factor=True) if isinstance(given, Const) else _tensor(c, given)


def _as_row(const: Const) -> Const:
    return Const(const.tensor[None], const.parameters, name=const.label)


def _turned(const: Const) -> Const:
    source = const.source
    turned = None if source is None else Source(source.parameter, not source.transposed)
    return Const(const.tensor.t(), const.parameters, turned, const.label)


@_takes("addmm")
def _addmm(
    c: _Conversion, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1
) -> Value:
    _need(c, beta == 1 and alpha == 1, "with beta or alpha")
    if isinstance(mat2, Const) and isinstance(input, Const):
        return _linear(c, mat1, _turned(mat2), input)
    return _add(c, _matmul(c, mat1, mat2), input)


@_takes("conv2d")
def _conv2d(
    c: _Conversion,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    return _convolution(
        c,
        Conv2d,
        input,
        weight,
        bias,
        _pair(stride),
        padding if isinstance(padding, str) else _pair(padding),
        _pair(dilation),
        groups,
    )


@_takes("conv1d")
def _conv1d(
    c: _Conversion,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    around = padding if isinstance(padding, str) else (0, _single(padding))
    return _convolution(
        c, Conv1d, input, weight, bias, (1, _single(stride)), around, (1, _single(dilation)), groups
    )


def _convolution(
    c: _Conversion,
    kind: Any,
    input: Any,
    weight: Any,
    bias: Any,
    stride: tuple[int, int],
    padding: Any,
    dilation: tuple[int, int],
    groups: int,
) -> Value:
    dims = 4 if kind is Conv2d else 3
    _need(c, isinstance(weight, Const) and weight.tensor.ndim == dims, "with a computed weight")
    x = _tensor(c, input)
    outputs, in_group, *own = weight.tensor.shape
    kernel = (own[0], own[1]) if len(own) == 2 else (1, own[0])
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        _need(c, stride == (1, 1), 'with padding "same" and a stride')
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        padding = (totals[0] // 2, totals[1] // 2)
        after = totals[0] % 2, totals[1] % 2
        if any(after):  # torch puts the odd one after the image
            x = c.emit(Pad, x, amounts=(0, after[1], 0, after[0])[: 2 * (dims - 2)])
    return c.weighted(
        kind,
        x,
        weight,
        bias,
        inputs=in_group * groups,
        outputs=outputs,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


@_takes("embedding")
def _embedding(
    c: _Conversion,
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: Any = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    _need(c, max_norm is None and isinstance(weight, Const), "with max_norm or a computed table")
    _need(c, not (c.training and scale_grad_by_freq), "with scale_grad_by_freq in training")
    table = c.digital_tensor(weight, "looks up in")
    return c.emit(Embedding, _tensor(c, input), tensor=table, padding=padding_idx)


@_module(nn.LSTM, nn.GRU, nn.RNN)
def _recurrent(c: _Conversion, module: Any, input: Any, hx: Any = None) -> Any:
    own = c.module_path() or "module"
    path = c.prefix_of(module, own)
    _need(c, module.proj_size == 0, "with proj_size")
    cell = {"LSTM": "lstm", "GRU": "gru"}.get(module.mode, module.mode.removeprefix("RNN_").lower())
    digital = c.is_allowed(own, Const(torch.zeros(0)))
    c.mark_used("" if own == "module" else own)
    prefix = _recurrent_weights(c, module, path, digital)
    x = _tensor(c, input)
    if not module.batch_first:
        x = c.emit(Transpose, x, name=f"{path}.batch_first", dims=(0, 1), rank=3)
    states = () if hx is None else tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    made = c.emit(
        Recurrent, x, *(_tensor(c, s) for s in states), name=path, cell=cell,
        inputs=module.input_size, hidden=module.hidden_size, layers=module.num_layers,
        directions=2 if module.bidirectional else 1, dropout=float(module.dropout), weights=prefix,
        digital=digital,
    )  # fmt: skip
    out = c.emit(Part, made, name=f"{path}.outputs", index=0)
    if not module.batch_first:
        out = c.emit(Transpose, out, name=f"{path}.time_first", dims=(0, 1))
    hidden = c.emit(Part, made, name=f"{path}.hidden", index=1)
    if cell != "lstm":
        return out, hidden
    return out, (hidden, c.emit(Part, made, name=f"{path}.cell", index=2))


def _recurrent_weights(c: _Conversion, module: Any, path: str, digital: bool) -> str:
    """Keep the weights of a recurrent module, once for those that share them all, and give the
    prefix of their names.
    """
    own_path = c.module_path()
    stem = f"{own_path}." if own_path else ""
    kept = []
    for layer in range(module.num_layers):
        for end in ("", "_reverse") if module.bidirectional else ("",):
            for which in ("ih", "hh"):
                for kind, keep in (("weight", c.keep_weight), ("bias", c.keep_bias)):
                    own = f"{kind}_{which}_l{layer}{end}"
                    tensor = getattr(module, own, None)
                    if isinstance(tensor, Tensor):
                        kept.append((keep, f"{path}.{which}_l{layer}{end}", own, tensor))
    identity = tuple(id(tensor) for *_, tensor in kept)
    prefix = c.recurrent.setdefault(identity, path)
    if prefix != path:
        return prefix
    for keep, name, own, tensor in kept:
        keep(name, Const(tensor.detach(), frozenset({own}), Source(stem + own)), digital)
    return path


@_module(nn.MultiheadAttention)
def _attention(
    c: _Conversion,
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    path = c.module_path() or "module"
    plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
    _need(c, plain, "with bias_kv or add_zero_attn")
    _need(c, key_padding_mask is None or attn_mask is None, "with two masks at once")
    _need(c, not is_causal or attn_mask is not None, "with is_causal and no mask")
    c.mark_used("" if path == "module" else path)
    stem = "" if path == "module" else f"{path}."
    taken = [_tensor(c, x) for x in (query, key, value)]
    if not module.batch_first:
        turned = {
            x: c.emit(Transpose, x, name=f"{path}.batch_first", dims=(0, 1), rank=3)
            for x in dict.fromkeys(taken)
        }
        taken = [turned[x] for x in taken]
    heads = [
        c.emit(
            Transpose,
            c.emit(
                Unflatten,
                x,
                name=f"{path}.heads",
                dim=-1,
                shape=(module.num_heads, module.head_dim),
            ),
            name=f"{path}.head_first",
            dims=(-3, -2),
        )
        for x in _projected(c, module, path, stem, taken)
    ]
    # Without weights and padding, torch takes a causal mask at its word.
    causal = bool(is_causal) and not need_weights and key_padding_mask is None
    if causal:
        attn_mask = None
    elif isinstance(attn_mask, Const) and attn_mask.tensor.ndim == 3:  # one for each head
        apart = torch.unflatten(attn_mask.tensor, 0, (-1, module.num_heads))
        attn_mask = Const(apart, attn_mask.parameters, name=attn_mask.label)
    mask = _attention_mask(c, path, key_padding_mask, attn_mask)
    fields: dict[str, Any] = {"hides": True, "dropout": float(module.dropout), "causal": causal}
    if need_weights:  # torch multiplies by the weights that it gives, dropped ones included
        fields["gives"] = "weights"
        weights = c.emit(Attention, *heads, *mask, name=f"{path}.weights", **fields)
        seen = c.emit(MatMul, weights, heads[2], name=f"{path}.attention")
    else:
        seen = c.emit(Attention, *heads, *mask, name=f"{path}.attention", **fields)
    joined = c.emit(Transpose, seen, name=f"{path}.joined", dims=(-3, -2))
    joined = c.emit(Flatten, joined, name=f"{path}.flat", start=-2, end=-1)
    out = _parameter(module.out_proj.weight, f"{stem}out_proj.weight")
    bias = _parameter(module.out_proj.bias, f"{stem}out_proj.bias")
    outputs, inputs = module.out_proj.weight.shape
    made = c.weighted(Linear, joined, out, bias, inputs=inputs, outputs=outputs)
    if not module.batch_first:
        made = c.emit(Transpose, made, name=f"{path}.time_first", dims=(0, 1))
    if not need_weights:
        return made, None
    if average_attn_weights:
        weights = c.emit(Reduce, weights, name=f"{path}.mean", function="mean", dims=(-3,))
    return made, weights


def _parameter(tensor: Tensor | None, name: str) -> Any:
    return None if tensor is None else Const(tensor.detach(), frozenset({name}), Source(name))


def _projected(
    c: _Conversion, module: Any, path: str, stem: str, taken: list[Value]
) -> list[Value]:
    """Query, key and value, each through its part of the weights of the projection."""
    size, bias = module.embed_dim, _parameter(module.in_proj_bias, f"{stem}in_proj_bias")
    if module.in_proj_weight is None:
        parts = []
        for k, which in enumerate("qkv"):
            name = f"{which}_proj_weight"
            weight = _parameter(getattr(module, name), stem + name)
            own = None
            if bias is not None:
                own = Const(bias.tensor[k * size : (k + 1) * size], bias.parameters)
            inputs = weight.tensor.shape[1]
            parts.append(c.weighted(Linear, taken[k], weight, own, inputs=inputs, outputs=size))
        return parts
    weight = _parameter(module.in_proj_weight, f"{stem}in_proj_weight")
    fields = {"inputs": size, "outputs": 3 * size}
    if taken[0] == taken[1] == taken[2]:
        whole = c.weighted(Linear, taken[0], weight, bias, **fields)
        return [
            c.emit(Chunk, whole, name=f"{path}.{which}", chunks=3, dim=-1, index=k)
            for k, which in enumerate(("query", "key", "value"))
        ]
    rows = [(k * size, (k + 1) * size) for k in range(3)]
    return [
        c.weighted(Linear, x, weight, bias, rows=own, **fields)
        for x, own in zip(taken, rows, strict=True)
    ]


def _attention_mask(c: _Conversion, path: str, padding: Any, mask: Any) -> tuple[Value, ...]:
    if mask is not None:
        return (_tensor(c, mask),)
    if padding is None:
        return ()
    wide = c.emit(Unsqueeze, _tensor(c, padding), name=f"{path}.mask", dim=1)
    return (c.emit(Unsqueeze, wide, name=f"{path}.mask", dim=1),)


@_takes("scaled_dot_product_attention")
def _dot_product_attention(
    c: _Conversion,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Value:
    _need(c, not enable_gqa, "with grouped queries")
    _need(c, scale is None or isinstance(scale, int | float), "with a computed scale")
    _need(c, c.training or not dropout_p, "with dropout in evaluation: it drops at random")
    mask = () if attn_mask is None else (_tensor(c, attn_mask),)
    return c.emit(
        Attention, *(_tensor(c, x) for x in (query, key, value)), *mask,
        causal=is_causal, scale=None if scale is None else float(scale), dropout=float(dropout_p),
    )  # fmt: skip


# Functions of each value


@_takes("relu")
def _relu(c: _Conversion, input: Any, inplace: bool = False) -> Value:
    return c.emit(ReLU, _tensor(c, input))


@_takes("tanh")
def _tanh(c: _Conversion, input: Any) -> Value:
    return c.emit(Tanh, _tensor(c, input))


def _plain_function(name: str) -> Converter:
    def convert(c: _Conversion, input: Any, inplace: bool = False) -> Value:
        if isinstance(input, Value) and input.is_size:
            _need(c, name == "sqrt", "of a size")
            return _arithmetic(c, "pow", input, 0.5)
        made = c.emit(Elementwise, _tensor(c, input), function=name)
        return Value(made.name, is_truth=name == "not")

    return convert


_WITH_PARAMETERS = {"gelu_tanh", "gelu", "leaky_relu", "elu", "celu", "clamp", "softplus", "not"}
for _name in set(get_args(Function)) - _WITH_PARAMETERS:
    _takes(_name)(_plain_function(_name))
_takes("negative")(_plain_function("neg"))
_takes("absolute")(_plain_function("abs"))
_takes("invert", "logical_not", "bitwise_not")(_plain_function("not"))


def _numbered(c: _Conversion, name: str, x: Any, *numbers: Any) -> Value:
    if not all(isinstance(n, int | float) for n in numbers):
        raise c.refusal("is not supported with computed numbers")
    plain = tuple(float(n) for n in numbers)
    return c.emit(Elementwise, _tensor(c, x), function=name, parameters=plain)


@_takes("gelu")
def _gelu(c: _Conversion, input: Any, *, approximate: str = "none") -> Value:
    name = "gelu" if approximate == "none" else "gelu_tanh"
    return c.emit(Elementwise, _tensor(c, input), function=name)


@_takes("leaky_relu")
def _leaky_relu(
    c: _Conversion, input: Any, negative_slope: Any = 0.01, inplace: bool = False
) -> Value:
    return _numbered(c, "leaky_relu", input, negative_slope)


@_takes("elu")
def _elu(c: _Conversion, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    return _numbered(c, "elu", input, alpha)


@_takes("celu")
def _celu(c: _Conversion, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    return _numbered(c, "celu", input, alpha)


@_takes("softplus")
def _softplus(c: _Conversion, input: Any, beta: Any = 1.0, threshold: Any = 20.0) -> Value:
    return _numbered(c, "softplus", input, beta, threshold)


@_takes("hardtanh")
def _hardtanh(
    c: _Conversion, input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False
) -> Value:
    return _numbered(c, "clamp", input, min_val, max_val)


@_takes("relu6")
def _relu6(c: _Conversion, input: Any, inplace: bool = False) -> Value:
    return _numbered(c, "clamp", input, 0, 6)


@_takes("clamp", "clip")
def _clamp(c: _Conversion, input: Any, min: Any = None, max: Any = None) -> Value:
    low, high = -torch.inf if min is None else min, torch.inf if max is None else max
    return _numbered(c, "clamp", input, low, high)


@_takes("clamp_min")
def _clamp_min(c: _Conversion, input: Any, min: Any) -> Value:
    return _numbered(c, "clamp", input, min, torch.inf)


@_takes("clamp_max")
def _clamp_max(c: _Conversion, input: Any, max: Any) -> Value:
    return _numbered(c, "clamp", input, -torch.inf, max)


@_takes("prelu")
def _prelu(c: _Conversion, input: Any, weight: Any) -> Value:
    x = _tensor(c, input)
    below = _numbered(c, "clamp", x, -torch.inf, 0)
    if isinstance(weight, Const) and weight.tensor.numel() == 1:
        scaled = c.emit(Arithmetic, below, c.as_value(weight), operator="mul")
    else:  # the slopes are the channels', dimension 1 of any number
        last = c.emit(Transpose, below, dims=(1, -1))
        last = c.emit(Arithmetic, last, c.as_value(weight), operator="mul")
        scaled = c.emit(Transpose, last, dims=(1, -1))
    return c.emit(Arithmetic, c.emit(ReLU, x), scaled, operator="add")


@_takes("tanhshrink")
def _tanhshrink(c: _Conversion, input: Any) -> Value:
    x = _tensor(c, input)
    return c.emit(Arithmetic, x, c.emit(Tanh, x), operator="sub")


@_takes("glu")
def _glu(c: _Conversion, input: Any, dim: int = -1) -> Value:
    x = _tensor(c, input)
    first, gate = (c.emit(Chunk, x, chunks=2, dim=dim, index=k) for k in (0, 1))
    open_ = c.emit(Elementwise, gate, function="sigmoid")
    return c.emit(Arithmetic, first, open_, operator="mul")


@_takes("softmax")
def _softmax(
    c: _Conversion, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    _need(c, isinstance(dim, int), "without a dimension")
    return c.emit(Softmax, _tensor(c, input), dim=dim)


@_takes("log_softmax")
def _log_softmax(
    c: _Conversion, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    _need(c, isinstance(dim, int), "without a dimension")
    return c.emit(Softmax, _tensor(c, input), dim=dim, log=True)


@_takes("dropout", "dropout1d", "dropout2d", "feature_dropout")
def _dropout(
    c: _Conversion, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    x = _tensor(c, input)
    if not training or p == 0:
        return x
    _need(c, c.training, "in evaluation: it drops at random")
    return c.emit(Dropout, x, p=float(p), channels=_name_of(c.node)[0] != "dropout")


@_takes("rrelu")
def _rrelu(
    c: _Conversion,
    input: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Value:
    _need(c, not training, "in training")
    return _numbered(c, "leaky_relu", input, (lower + upper) / 2)


@_takes("alpha_dropout", "feature_alpha_dropout", "dropout3d")
def _other_dropout(
    c: _Conversion,
    input: Any,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
) -> Value:
    _need(c, not training, "in training")
    return _tensor(c, input)


# Arithmetic


def _arithmetic(c: _Conversion, name: str, left: Any, right: Any) -> Value:
    truth = name in ("gt", "ge", "lt", "le", "eq", "ne", "and", "or")
    sized = all(isinstance(v, int) or (isinstance(v, Value) and v.is_size) for v in (left, right))
    if not sized:
        left, right = (_number_or(c, v) for v in (left, right))
    if isinstance(left, Value) and isinstance(right, Value):
        made = c.emit(Arithmetic, left, right, operator=name)
    elif isinstance(left, Value):
        made = c.emit(Arithmetic, left, operator=name, scalar=right)
    else:
        made = c.emit(Arithmetic, right, operator=name, scalar=left, swapped=True)
    truth = truth or all(isinstance(v, Value) and v.is_truth for v in (left, right))
    return Value(made.name, is_size=sized and name != "div", is_truth=truth and not sized)


def _number_or(c: _Conversion, given: Any) -> Any:
    """A number, or a value; truth values become numbers where they are counted with."""
    if isinstance(given, bool):
        return int(given)
    if isinstance(given, int | float):
        return given
    if isinstance(given, Const) and given.tensor.ndim == 0 and not given.parameters:
        return given.tensor.item()
    return c.as_value(given)


def _operator_of(name: str) -> Converter:
    def convert(c: _Conversion, input: Any, other: Any) -> Value:
        return _arithmetic(c, name, input, other)

    return convert


for _operator, _names in {
    "mul": ("mul", "multiply"),
    "floordiv": ("floordiv", "floor_divide"),
    "mod": ("mod", "remainder"),
    "pow": ("pow",),
    "maximum": ("maximum",),
    "minimum": ("minimum",),
    "gt": ("gt", "greater"),
    "ge": ("ge", "greater_equal"),
    "lt": ("lt", "less"),
    "le": ("le", "less_equal"),
    "eq": ("eq",),
    "ne": ("ne", "not_equal"),
    "and": ("and", "logical_and", "bitwise_and"),
    "or": ("or", "logical_or", "bitwise_or"),
}.items():
    _takes(*_names)(_operator_of(_operator))


@_takes("add")
def _add(c: _Conversion, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    return _arithmetic(c, "add", input, other if alpha == 1 else _scaled(c, other, alpha))


@_takes("sub", "subtract")
def _sub(c: _Conversion, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    return _arithmetic(c, "sub", input, other if alpha == 1 else _scaled(c, other, alpha))


@_takes("rsub")
def _rsub(c: _Conversion, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    return _arithmetic(c, "sub", other, input if alpha == 1 else _scaled(c, input, alpha))


def _scaled(c: _Conversion, given: Any, factor: Any) -> Any:
    return _arithmetic(c, "mul", given, factor)


@_takes("div", "divide", "true_divide", "truediv")
def _div(c: _Conversion, input: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    _need(c, rounding_mode in (None, "floor"), "with that rounding")
    return _arithmetic(c, "floordiv" if rounding_mode else "div", input, other)


@_takes("addcmul")
def _addcmul(c: _Conversion, input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Value:
    made = _arithmetic(c, "mul", tensor1, tensor2)
    return _add(c, input, made, alpha=value)


@_takes("lerp")
def _lerp(c: _Conversion, input: Any, end: Any, weight: Any) -> Value:
    return _add(c, input, _arithmetic(c, "mul", weight, _sub(c, end, input)))


@_takes("where")
def _where(c: _Conversion, condition: Any, input: Any, other: Any) -> Value:
    truth = _tensor(c, condition)
    if isinstance(input, int | float):
        return c.emit(Where, truth, _tensor(c, other), value=float(input))
    if isinstance(other, int | float):
        opposite = c.emit(Elementwise, truth, function="not")
        return c.emit(Where, opposite, _tensor(c, input), value=float(other))
    return c.emit(Where, truth, _tensor(c, input), _tensor(c, other))


@_takes("masked_fill")
def _masked_fill(c: _Conversion, input: Any, mask: Any, value: Any) -> Value:
    _need(c, isinstance(value, int | float), "with a computed value")
    return c.emit(Where, _tensor(c, mask), _tensor(c, input), value=float(value))


@_takes("einsum")
def _einsum(c: _Conversion, equation: str, *operands: Any) -> Value:
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    return c.emit(Einsum, *(_factor(c, x) for x in operands), equation=equation)


# One value for many


def _reduction(name: str) -> Converter:
    def convert(
        c: _Conversion, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Value:
        return c.emit(Reduce, _tensor(c, input), function=name, dims=_dims(c, dim), keepdim=keepdim)

    return convert


for _name in ("mean", "sum", "amax", "amin"):
    _takes(_name)(_reduction(_name))


def _extreme(name: str, pairwise: str) -> Converter:
    def convert(c: _Conversion, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, Value | Const):
            return _arithmetic(c, pairwise, input, dim)
        made = c.emit(Reduce, _tensor(c, input), function=name, dims=_dims(c, dim), keepdim=keepdim)
        return made if dim is None else (made, _Unsupported("the places of the extremes"))

    return convert


class _Unsupported(Derived):
    """Part of an answer that no layer gives; using it is refused."""

    def __init__(self, what: str) -> None:
        self.what = what


_takes("max")(_extreme("amax", "maximum"))
_takes("min")(_extreme("amin", "minimum"))


def _spread(name: str) -> Converter:
    def convert(
        c: _Conversion,
        input: Any,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        *,
        correction: Any = None,
    ) -> Value:
        if isinstance(dim, bool):  # var(unbiased)
            dim, unbiased = None, dim
        less = correction if correction is not None else 0 if unbiased is False else 1
        return c.emit(
            Reduce, _tensor(c, input), function=name, dims=_dims(c, dim), keepdim=keepdim,
            correction=float(less),
        )  # fmt: skip

    return convert


_takes("var")(_spread("var"))
_takes("std")(_spread("std"))


@_takes("normalize")
def _normalize(
    c: _Conversion, input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None
) -> Value:
    _need(c, p == 2 and isinstance(dim, int), "with another norm than the second")
    x = _tensor(c, input)
    square = c.emit(Elementwise, x, function="square")
    total = c.emit(Reduce, square, function="sum", dims=(dim,), keepdim=True)
    length = _numbered(c, "clamp", c.emit(Elementwise, total, function="sqrt"), eps, torch.inf)
    return c.emit(Arithmetic, x, length, operator="div")


# Normalisations


@_module(nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
def _batch_norm(c: _Conversion, module: Any, input: Any) -> Value:
    path = c.module_path()
    _need(c, module.running_var is not None, "without running statistics")
    affine = module.weight is not None
    c.mark_used(path)
    name = c.prefix_of(module, path or "module")
    for what in ("running_mean", "running_var", *(("weight", "bias") if affine else ())):
        c.keep_tensor(f"{name}.{what}", getattr(module, what), f"{path}.{what}".lstrip("."))
    if module.num_batches_tracked is not None:
        tracked = f"{name}.num_batches_tracked"
        c.keep_tensor(
            tracked, module.num_batches_tracked, f"{path}.num_batches_tracked".lstrip(".")
        )
    return c.emit(
        BatchNorm, _tensor(c, input), name=name, channels=module.num_features,
        eps=float(module.eps), momentum=module.momentum, affine=affine, tensors=name,
    )  # fmt: skip


@_module(nn.InstanceNorm1d, nn.InstanceNorm2d)
def _instance_norm(c: _Conversion, module: Any, input: Any) -> Value:
    _need(c, not module.track_running_stats, "with running statistics")
    path = c.module_path()
    return _normalised_groups(
        c,
        input,
        0,
        _parameter(module.weight, f"{path}.weight".lstrip(".")),
        _parameter(module.bias, f"{path}.bias".lstrip(".")),
        module.eps,
    )


@_takes("group_norm")
def _group_norm(
    c: _Conversion,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    return _normalised_groups(c, input, num_groups, weight, bias, eps)


def _normalised_groups(
    c: _Conversion, input: Any, groups: int, weight: Any, bias: Any, eps: float
) -> Value:
    return c.emit(
        GroupNorm, _tensor(c, input), groups=groups, eps=float(eps), weight=_scale(c, weight),
        bias=_scale(c, bias),
    )  # fmt: skip


def _scale(c: _Conversion, given: Any) -> str | None:
    """The name of a digital tensor that scales or shifts what is normalised."""
    if given is None:
        return None
    _need(c, isinstance(given, Const), "with a computed scale")
    scale = Const(given.tensor, frozenset(), given.source)  # it multiplies value by value
    return c.digital_tensor(scale, "normalises by")


@_takes("layer_norm")
def _layer_norm(
    c: _Conversion,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    return c.emit(
        LayerNorm, _tensor(c, input), dims=len(tuple(normalized_shape)), eps=float(eps),
        weight=_scale(c, weight), bias=_scale(c, bias),
    )  # fmt: skip


@_takes("rms_norm")
def _rms_norm(
    c: _Conversion, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Value:
    dtype = weight.tensor.dtype if isinstance(weight, Const) else torch.float32
    return c.emit(
        LayerNorm, _tensor(c, input), dims=len(tuple(normalized_shape)), rms=True,
        eps=float(torch.finfo(dtype).eps if eps is None else eps), weight=_scale(c, weight),
    )  # fmt: skip


# Pooling


@_takes("max_pool2d")
def _max_pool2d(
    c: _Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    _need(c, not return_indices, "with return_indices")
    return c.emit(
        MaxPool2d, _tensor(c, input), kernel=_pair(kernel_size),
        stride=_pair(stride or kernel_size), padding=_pair(padding), dilation=_pair(dilation),
        ceil_mode=ceil_mode,
    )  # fmt: skip


@_takes("avg_pool2d")
def _avg_pool2d(
    c: _Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Value:
    return c.emit(
        AvgPool2d, _tensor(c, input), kernel=_pair(kernel_size),
        stride=_pair(stride or kernel_size), padding=_pair(padding), ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, divisor=divisor_override,
    )  # fmt: skip


def _as_image(c: _Conversion, input: Any, pool: Callable[[Value], Value]) -> Value:
    """Pooling of (n, channels, length) as of images with a height of 1."""
    return c.emit(Squeeze, pool(c.emit(Unsqueeze, _tensor(c, input), dim=-2)), dims=(-2,))


@_takes("max_pool1d")
def _max_pool1d(
    c: _Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    stride = kernel_size if stride is None or stride == [] else stride
    size, by, around, apart = (_single(v) for v in (kernel_size, stride, padding, dilation))
    return _as_image(
        c,
        input,
        lambda x: _max_pool2d(
            c, x, (1, size), (1, by), (0, around), (1, apart), ceil_mode, return_indices
        ),
    )


@_takes("avg_pool1d")
def _avg_pool1d(
    c: _Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    size, by = _single(kernel_size), _single(stride or kernel_size)
    around = _single(padding)
    return _as_image(
        c,
        input,
        lambda x: _avg_pool2d(c, x, (1, size), (1, by), (0, around), ceil_mode, count_include_pad),
    )


def _adaptive(name: Any) -> Converter:
    def convert(
        c: _Conversion, input: Any, output_size: Any, return_indices: bool = False
    ) -> Value:
        _need(c, not return_indices, "with return_indices")
        size = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        return c.emit(AdaptivePool2d, _tensor(c, input), function=name, size=tuple(size))

    return convert


def _adaptive1d(name: Any) -> Converter:
    def convert(
        c: _Conversion, input: Any, output_size: Any, return_indices: bool = False
    ) -> Value:
        _need(c, not return_indices, "with return_indices")
        size = output_size[0] if isinstance(output_size, tuple | list) else output_size
        return _as_image(
            c, input, lambda x: c.emit(AdaptivePool2d, x, function=name, size=(None, size))
        )

    return convert


_takes("adaptive_avg_pool2d")(_adaptive("mean"))
_takes("adaptive_max_pool2d")(_adaptive("max"))
_takes("adaptive_avg_pool1d")(_adaptive1d("mean"))
_takes("adaptive_max_pool1d")(_adaptive1d("max"))


@_takes("interpolate")
def _interpolate(
    c: _Conversion,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    scale = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor,) * 2
    plain = mode == "nearest" and size is None and len(scale) == 2
    plain = plain and all(s is not None and float(s).is_integer() for s in scale)
    _need(c, plain, "but to the nearest pixel, by whole factors, of images")
    return c.emit(Upsample, _tensor(c, input), scale=(int(scale[0]), int(scale[1])))


@_takes("pad")
def _pad(c: _Conversion, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    return c.emit(
        Pad, _tensor(c, input), amounts=tuple(int(p) for p in pad), mode=mode,
        value=float(value or 0),
    )  # fmt: skip


# Shapes


@_takes("view", "reshape")
def _reshape(c: _Conversion, input: Any, *shape: Any) -> Value:
    _need(c, not (shape and isinstance(shape[0], torch.dtype)), "to another type")
    return c.emit(Reshape, _tensor(c, input), shape=_sizes(c, shape))


@_takes("flatten")
def _flatten(c: _Conversion, input: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    return c.emit(Flatten, _tensor(c, input), start=start_dim, end=end_dim)


@_takes("unflatten")
def _unflatten(c: _Conversion, input: Any, dim: int, sizes: Any) -> Value:
    return c.emit(Unflatten, _tensor(c, input), dim=dim, shape=_sizes(c, (sizes,)))


@_takes("transpose", "swapaxes", "swapdims")
def _transpose(c: _Conversion, input: Any, dim0: int, dim1: int) -> Value:
    return c.emit(Transpose, _tensor(c, input), dims=(dim0, dim1))


@_takes("t")
def _t(c: _Conversion, input: Any) -> Value:
    return c.emit(Transpose, _tensor(c, input), dims=(0, 1), rank=2)


@_takes("permute")
def _permute(c: _Conversion, input: Any, *dims: Any) -> Value:
    return c.emit(Permute, _tensor(c, input), dims=_sizes(c, dims))


@_takes("squeeze")
def _squeeze(c: _Conversion, input: Any, dim: Any = None) -> Value:
    return c.emit(Squeeze, _tensor(c, input), dims=_dims(c, dim))


@_takes("unsqueeze")
def _unsqueeze(c: _Conversion, input: Any, dim: int) -> Value:
    return c.emit(Unsqueeze, _tensor(c, input), dim=dim)


@_takes("expand")
def _expand(c: _Conversion, input: Any, *shape: Any) -> Value:
    return c.emit(Expand, _tensor(c, input), shape=_sizes(c, shape))


@_takes("repeat", "tile")
def _repeat(c: _Conversion, input: Any, *counts: Any) -> Value:
    return c.emit(Repeat, _tensor(c, input), counts=_sizes(c, counts))


@_takes("cat", "concat", "concatenate")
def _cat(c: _Conversion, tensors: Any, dim: int = 0) -> Value:
    return c.emit(Concat, *(_tensor(c, x) for x in tensors), dim=dim)


@_takes("stack")
def _stack(c: _Conversion, tensors: Any, dim: int = 0) -> Value:
    return c.emit(Concat, *(_tensor(c, x) for x in tensors), dim=dim, new=True)


class _Parts(Derived):
    """Parts of a value, of which the graph does not know how many there are."""

    def __init__(self, part: Callable[[int], Value]) -> None:
        self.part = part


@_takes("chunk")
def _chunk(c: _Conversion, input: Any, chunks: int, dim: int = 0) -> _Parts:
    x = _tensor(c, input)
    return _Parts(lambda k: c.emit(Chunk, x, chunks=chunks, dim=dim, index=k))


@_takes("split")
def _split(c: _Conversion, input: Any, split_size_or_sections: Any, dim: int = 0) -> _Parts:
    x, size = _tensor(c, input), split_size_or_sections
    if isinstance(size, tuple | list):
        lengths = _sizes(c, (size,))
        _need(c, all(isinstance(n, int) for n in lengths), "into computed sizes")
        starts = [sum(lengths[:k]) for k in range(len(lengths))]
        return _Parts(lambda k: c.emit(Narrow, x, dim=dim, start=starts[k], length=lengths[k]))
    _need(c, isinstance(size, int), "into parts of a computed size")

    def part(k: int) -> Value:
        _need(c, k >= 0, "with parts counted from the end")
        return c.emit(Narrow, x, dim=dim, start=k * size, length=size)

    return _Parts(part)


@_takes("unbind")
def _unbind(c: _Conversion, input: Any, dim: int = 0) -> _Parts:
    x = _tensor(c, input)
    return _Parts(lambda k: c.emit(Select, x, dim=dim, index=k))


@_takes("narrow")
def _narrow(c: _Conversion, input: Any, dim: int, start: Any, length: Any) -> Value:
    return c.emit(
        Narrow, _tensor(c, input), dim=dim, start=_whole(c, start), length=_whole(c, length)
    )


@_takes("select")
def _select(c: _Conversion, input: Any, dim: int, index: Any) -> Value:
    return c.emit(Select, _tensor(c, input), dim=dim, index=_whole(c, index))


@_takes("getitem")
def _getitem(c: _Conversion, input: Any, index: Any) -> Any:
    if isinstance(input, Shape):
        _need(c, isinstance(index, int), "of several sizes at once; name them one by one")
        return Value(c.emit(SizeOf, input.of, dim=index).name, is_size=True)
    if isinstance(input, _Parts):
        _need(c, isinstance(index, int), "of several parts at once")
        return input.part(index)
    if isinstance(input, tuple | list | dict):
        found = input[index]
        if isinstance(found, _Unsupported):
            raise c.refusal(f"takes {found.what}, which no layer gives")
        return found
    entries = index if isinstance(index, tuple | list) else (index,)
    return c.emit(Index, _tensor(c, input), entries=tuple(_entry(c, e) for e in entries))


def _entry(c: _Conversion, entry: Any) -> Any:
    if entry is None:
        return "new"
    if entry is Ellipsis:
        return "..."
    if isinstance(entry, slice):
        ends = [None if e is None else _whole(c, e) for e in (entry.start, entry.stop)]
        _need(c, entry.step is None or isinstance(entry.step, int), "with a computed step")
        return (*ends, entry.step)
    _need(c, not isinstance(entry, str), "of a dict of inputs; give its tensors as arguments")
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise c.refusal("is not supported with tensors as an index")
    return entry


@_takes("size")
def _size(c: _Conversion, input: Any, dim: Any = None) -> Any:
    if dim is None:
        return Shape(_tensor(c, input))
    return Value(c.emit(SizeOf, _tensor(c, input), dim=dim).name, is_size=True)


@_takes("getattr")
def _getattr(c: _Conversion, input: Any, name: str) -> Any:
    if isinstance(input, tuple) and name in ("values", "indices"):
        return _getitem(c, input, ("values", "indices").index(name))
    if name == "shape":
        return Shape(_tensor(c, input))
    if name in ("T", "mT"):
        last = (-2, -1) if name == "mT" else (0, 1)
        return c.emit(Transpose, _tensor(c, input), dims=last, rank=2 if name == "T" else None)
    if name in ("device", "dtype"):
        return None  # where and how it computes is the bench's affair
    if name == "data":
        return input
    raise c.refusal(f"takes {name!r} of a tensor, which is not supported")


@_takes("contiguous", "detach", "cpu", "requires_grad", "clone")
def _same(c: _Conversion, input: Any, *args: Any, **kwargs: Any) -> Value:
    return _tensor(c, input)


@_takes("float", "double")
def _as_floats(c: _Conversion, input: Any) -> Value:
    x = _tensor(c, input)
    return c.emit(Arithmetic, x, operator="mul", scalar=1.0) if x.is_truth else x


@_takes("half", "bfloat16")
def _as_short_floats(c: _Conversion, input: Any) -> Value:
    kind = torch.float16 if _name_of(c.node)[0] == "half" else torch.bfloat16
    return _cast(c, input, kind)


def _cast(c: _Conversion, input: Any, kind: Any) -> Value:
    """A tensor in another type: it may only be one that holds the same numbers."""
    if not kind.is_floating_point:
        return _as_integers(c, input)
    rounds = kind.itemsize < 4 and all(p.dtype != kind for p in c.module.parameters())
    _need(c, not rounds, f"to {kind}: it rounds")
    return _as_floats(c, input)


@_takes("to", "type", "type_as")
def _to(c: _Conversion, input: Any, *args: Any, **kwargs: Any) -> Value:
    given = (*args, *kwargs.values())
    for kind in given:
        if isinstance(kind, torch.dtype):
            return _cast(c, input, kind)
        if isinstance(kind, Const):
            return _cast(c, input, kind.tensor.dtype)
        named = isinstance(kind, str) and kind.startswith("torch.")
        _need(c, not named, f"to {kind}; give a torch.dtype")
    return _as_floats(c, input)


@_takes("long", "int")
def _as_integers(c: _Conversion, input: Any) -> Value:
    looks_up = all(_name_of(user)[0] == "embedding" for user in c.node.users)
    _need(c, looks_up, "but to look up in an embedding: it cuts fractions off")
    return _tensor(c, input)


@_takes("new_zeros", "new_ones", "new_full")
def _new(c: _Conversion, input: Any, *size: Any, **kwargs: Any) -> Value:
    return _full(c, *size, **kwargs)


@_takes("zeros", "ones", "full")
def _full(c: _Conversion, *size: Any, **kwargs: Any) -> Value:
    name = _name_of(c.node)[0]
    kind = kwargs.get("dtype")
    _need(c, kind is None or kind.is_floating_point, "of numbers that are not floating point")
    if "size" in kwargs:
        size = (kwargs["size"], *size)
    if name.endswith("full"):
        shape, value = size[0], size[1] if len(size) > 1 else kwargs.get("fill_value")
        if not isinstance(value, int | float):
            raise c.refusal("is not supported of a computed value")
    else:
        shape, value = size, float(name.endswith("ones"))
    given = shape if isinstance(shape, tuple | list) else (shape,)
    return c.emit(Full, shape=_sizes(c, tuple(given)), value=float(value))


@_takes("zeros_like", "ones_like")
def _like(c: _Conversion, input: Any, **kwargs: Any) -> Value:
    x = _tensor(c, input)
    never = c.emit(Arithmetic, x, x, operator="ne")
    zeros = c.emit(Where, never, x, value=0.0)
    # x where it is a number, so that what is left is zero without 0 x inf.
    same = c.emit(Arithmetic, zeros, zeros, operator="eq")
    return c.emit(Where, same, zeros, value=float(_name_of(c.node)[0] == "ones_like"))


_REASONS = {
    "arange": " of computed sizes: keep the numbers in a buffer, and take the first ones of it",
    "empty": ": it holds no numbers yet; use zeros",
    "conv3d": ": an array multiplies images, not volumes",
    "conv_transpose1d": ": transposed convolutions are not mapped",
    "conv_transpose2d": ": transposed convolutions are not mapped",
    "conv_transpose3d": ": transposed convolutions are not mapped",
    "bilinear": ": its weight has three dimensions",
    "embedding_bag": ": use an embedding and a mean",
    "multi_head_attention_forward": ": use nn.MultiheadAttention or scaled_dot_product_attention",
    "batch_norm": ": use nn.BatchNorm1d or nn.BatchNorm2d itself",
    "instance_norm": ": use nn.InstanceNorm1d or nn.InstanceNorm2d itself",
    "local_response_norm": "",
    "cumsum": "",
    "topk": "",
    "sort": "",
    "argmax": ": give the scores; classes are taken from them",
    "fold": "",
    "unfold": "",
    "pixel_shuffle": "",
    "grid_sample": "",
    "baddbmm": "",
}
"""Functions that are known and refused, with what to say."""

_FUNCTION_NAMES, _IN_PLACE = _known_functions()
