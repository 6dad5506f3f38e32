"""Products with weights: linear layers, convolutions, recurrent networks, attention; embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rram_hil.networks.layers import (
    Attention,
    Chunk,
    Conv1d,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MatMul,
    Pad,
    Part,
    Recurrent,
    Reduce,
    Squeeze,
    Transpose,
    Unflatten,
    Unsqueeze,
)
from rram_hil.networks.pytorch.converters.arguments import (
    need,
    parameter,
    to_factor,
    to_pair,
    to_single,
    to_tensor,
)
from rram_hil.networks.pytorch.converters.arithmetic import add
from rram_hil.networks.pytorch.converters.registry import name_of, takes, takes_module
from rram_hil.networks.pytorch.tracing import (
    OF_A_WEIGHT,
    Const,
    Conversion,
    Source,
    Value,
)


@takes("linear")
def _linear(c: Conversion, input: Any, weight: Any, bias: Any = None) -> Value:
    x = to_tensor(c, input)
    if not isinstance(weight, Const):
        made = c.emit(MatMul, x, c.emit(Transpose, weight, dims=(-1, -2)))
        return made if bias is None else c.biased(made, bias, False)
    need(c, weight.tensor.ndim == 2, f"with a weight of shape {tuple(weight.tensor.shape)}")
    outputs, inputs = weight.tensor.shape
    return c.weighted(Linear, x, weight, bias, inputs=inputs, outputs=outputs)


@takes("matmul", "mm", "bmm", "mv")
def _matmul(c: Conversion, input: Any, mat2: Any) -> Value:
    if isinstance(mat2, Const) and mat2.tensor.ndim == 2:
        return _linear(c, input, _turned(mat2))
    if isinstance(mat2, Const) and mat2.tensor.ndim == 1:
        return c.emit(Squeeze, _linear(c, input, _as_row(mat2)), dims=(-1,))
    if isinstance(input, Const) and input.tensor.ndim in (1, 2):
        need(c, isinstance(mat2, Value), "on constants")
        if name_of(c.node)[0] == "mv":
            return _linear(c, mat2, input)
        turned = c.emit(Transpose, to_tensor(c, mat2), dims=(-1, -2))
        if input.tensor.ndim == 1:
            return c.emit(Squeeze, _linear(c, turned, _as_row(input)), dims=(-1,))
        return c.emit(Transpose, _linear(c, turned, input), dims=(-1, -2))
    return c.emit(MatMul, to_factor(c, input), to_factor(c, mat2))


def _as_row(const: Const) -> Const:
    return Const(const.tensor[None], const.parameters, name=const.label)


def _turned(const: Const) -> Const:
    source = const.source
    turned = None if source is None else Source(source.parameter, not source.transposed)
    return Const(const.tensor.t(), const.parameters, turned, const.label)


@takes("addmm")
def _addmm(
    c: Conversion, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1
) -> Value:
    need(c, beta == 1 and alpha == 1, "with beta or alpha")
    if isinstance(mat2, Const) and isinstance(input, Const):
        return _linear(c, mat1, _turned(mat2), input)
    return add(c, _matmul(c, mat1, mat2), input)


@takes("conv2d")
def _conv2d(
    c: Conversion,
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
        to_pair(stride),
        padding if isinstance(padding, str) else to_pair(padding),
        to_pair(dilation),
        groups,
    )


@takes("conv1d")
def _conv1d(
    c: Conversion,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    around = padding if isinstance(padding, str) else (0, to_single(padding))
    return _convolution(
        c,
        Conv1d,
        input,
        weight,
        bias,
        (1, to_single(stride)),
        around,
        (1, to_single(dilation)),
        groups,
    )


def _convolution(
    c: Conversion,
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
    need(c, isinstance(weight, Const) and weight.tensor.ndim == dims, "with a computed weight")
    x = to_tensor(c, input)
    outputs, in_group, *own = weight.tensor.shape
    kernel = (own[0], own[1]) if len(own) == 2 else (1, own[0])
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        need(c, stride == (1, 1), 'with padding "same" and a stride')
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


@takes("embedding")
def _embedding(
    c: Conversion,
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: Any = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    need(c, max_norm is None and isinstance(weight, Const), "with max_norm or a computed table")
    need(c, not (c.training and scale_grad_by_freq), "with scale_grad_by_freq in training")
    table = c.digital_tensor(weight, "looks up in")
    return c.emit(Embedding, to_tensor(c, input), tensor=table, padding=padding_idx)


@takes_module(nn.LSTM, nn.GRU, nn.RNN)
def _recurrent(c: Conversion, module: Any, input: Any, hx: Any = None) -> Any:
    own = c.module_path() or "module"
    path = c.prefix_of(module, own)
    need(c, module.proj_size == 0, "with proj_size")
    cell = {"LSTM": "lstm", "GRU": "gru"}.get(module.mode, module.mode.removeprefix("RNN_").lower())
    digital = c.is_allowed(own, Const(torch.zeros(0)))
    c.mark_used("" if own == "module" else own)
    prefix = _recurrent_weights(c, module, path, digital)
    x = to_tensor(c, input)
    if not module.batch_first:
        x = c.emit(Transpose, x, name=f"{path}.batch_first", dims=(0, 1), rank=3)
    states = () if hx is None else tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    made = c.emit(
        Recurrent, x, *(to_tensor(c, s) for s in states), name=path, cell=cell,
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


def _recurrent_weights(c: Conversion, module: Any, path: str, digital: bool) -> str:
    """Keep the weights of a recurrent module, once for those that share them all, and give the
    prefix of their names.
    """
    own_path = c.module_path()
    stem = f"{own_path}." if own_path else ""
    kept = []
    for layer in range(module.num_layers):
        for end in ("", "_reverse") if module.bidirectional else ("",):
            for which in ("ih", "hh"):
                for what in OF_A_WEIGHT:
                    own = f"{what}_{which}_l{layer}{end}"
                    tensor = getattr(module, own, None)
                    if isinstance(tensor, Tensor):
                        kept.append((f"{path}.{which}_l{layer}{end}", what, own, tensor))
    identity = tuple(id(tensor) for *_, tensor in kept)
    prefix = c.recurrent.setdefault(identity, path)
    if prefix != path:
        return prefix
    for name, what, own, tensor in kept:
        const = Const(tensor.detach(), frozenset({own}), Source(stem + own))
        c.keep(name, what, const, digital)
    return path


@takes_module(nn.MultiheadAttention)
def _attention(
    c: Conversion,
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
    need(c, plain, "with bias_kv or add_zero_attn")
    need(c, key_padding_mask is None or attn_mask is None, "with two masks at once")
    need(c, not is_causal or attn_mask is not None, "with is_causal and no mask")
    c.mark_used("" if path == "module" else path)
    stem = "" if path == "module" else f"{path}."
    taken = [to_tensor(c, x) for x in (query, key, value)]
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
    out = parameter(module.out_proj.weight, f"{stem}out_proj.weight")
    bias = parameter(module.out_proj.bias, f"{stem}out_proj.bias")
    outputs, inputs = module.out_proj.weight.shape
    made = c.weighted(Linear, joined, out, bias, inputs=inputs, outputs=outputs)
    if not module.batch_first:
        made = c.emit(Transpose, made, name=f"{path}.time_first", dims=(0, 1))
    if not need_weights:
        return made, None
    if average_attn_weights:
        weights = c.emit(Reduce, weights, name=f"{path}.mean", function="mean", dims=(-3,))
    return made, weights


def _projected(c: Conversion, module: Any, path: str, stem: str, taken: list[Value]) -> list[Value]:
    """Query, key and value, each through its part of the weights of the projection."""
    size, bias = module.embed_dim, parameter(module.in_proj_bias, f"{stem}in_proj_bias")
    if module.in_proj_weight is None:
        parts = []
        for k, which in enumerate("qkv"):
            name = f"{which}_proj_weight"
            weight = parameter(getattr(module, name), stem + name)
            own = None
            if bias is not None:
                own = Const(bias.tensor[k * size : (k + 1) * size], bias.parameters)
            inputs = weight.tensor.shape[1]
            parts.append(c.weighted(Linear, taken[k], weight, own, inputs=inputs, outputs=size))
        return parts
    weight = parameter(module.in_proj_weight, f"{stem}in_proj_weight")
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


def _attention_mask(c: Conversion, path: str, padding: Any, mask: Any) -> tuple[Value, ...]:
    if mask is not None:
        return (to_tensor(c, mask),)
    if padding is None:
        return ()
    wide = c.emit(Unsqueeze, to_tensor(c, padding), name=f"{path}.mask", dim=1)
    return (c.emit(Unsqueeze, wide, name=f"{path}.mask", dim=1),)


@takes("scaled_dot_product_attention")
def _dot_product_attention(
    c: Conversion,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Value:
    need(c, not enable_gqa, "with grouped queries")
    need(c, scale is None or isinstance(scale, int | float), "with a computed scale")
    need(c, c.training or not dropout_p, "with dropout in evaluation: it drops at random")
    mask = () if attn_mask is None else (to_tensor(c, attn_mask),)
    return c.emit(
        Attention, *(to_tensor(c, x) for x in (query, key, value)), *mask,
        causal=is_causal, scale=None if scale is None else float(scale), dropout=float(dropout_p),
    )  # fmt: skip
