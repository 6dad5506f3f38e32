"""Functions of each value: activations, softmax and dropout."""

from __future__ import annotations

from typing import Any, get_args

import torch

from rram_hil.networks.layers import (
    Arithmetic,
    Chunk,
    Dropout,
    Elementwise,
    Function,
    ReLU,
    Softmax,
    Tanh,
    Transpose,
)
from rram_hil.networks.pytorch.converters.arguments import need, to_tensor
from rram_hil.networks.pytorch.converters.arithmetic import arithmetic
from rram_hil.networks.pytorch.converters.registry import Converter, name_of, takes
from rram_hil.networks.pytorch.tracing import (
    Const,
    Conversion,
    Value,
)


@takes("relu")
def _relu(c: Conversion, input: Any, inplace: bool = False) -> Value:
    return c.emit(ReLU, to_tensor(c, input))


@takes("tanh")
def _tanh(c: Conversion, input: Any) -> Value:
    return c.emit(Tanh, to_tensor(c, input))


def _plain_function(name: str) -> Converter:
    def convert(c: Conversion, input: Any, inplace: bool = False) -> Value:
        if isinstance(input, Value) and input.is_size:
            need(c, name == "sqrt", "of a size")
            return arithmetic(c, "pow", input, 0.5)
        made = c.emit(Elementwise, to_tensor(c, input), function=name)
        return Value(made.name, is_truth=name == "not")

    return convert


_WITH_PARAMETERS = {"gelu_tanh", "gelu", "leaky_relu", "elu", "celu", "clamp", "softplus", "not"}


for _name in set(get_args(Function)) - _WITH_PARAMETERS:
    takes(_name)(_plain_function(_name))


takes("negative")(_plain_function("neg"))


takes("absolute")(_plain_function("abs"))


takes("invert", "logical_not", "bitwise_not")(_plain_function("not"))


def numbered(c: Conversion, name: str, x: Any, *numbers: Any) -> Value:
    """A function of each value that has plain numbers as parameters."""
    if not all(isinstance(n, int | float) for n in numbers):
        raise c.refusal("is not supported with computed numbers")
    plain = tuple(float(n) for n in numbers)
    return c.emit(Elementwise, to_tensor(c, x), function=name, parameters=plain)


@takes("gelu")
def _gelu(c: Conversion, input: Any, *, approximate: str = "none") -> Value:
    name = "gelu" if approximate == "none" else "gelu_tanh"
    return c.emit(Elementwise, to_tensor(c, input), function=name)


@takes("leaky_relu")
def _leaky_relu(
    c: Conversion, input: Any, negative_slope: Any = 0.01, inplace: bool = False
) -> Value:
    return numbered(c, "leaky_relu", input, negative_slope)


@takes("elu")
def _elu(c: Conversion, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    return numbered(c, "elu", input, alpha)


@takes("celu")
def _celu(c: Conversion, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    return numbered(c, "celu", input, alpha)


@takes("softplus")
def _softplus(c: Conversion, input: Any, beta: Any = 1.0, threshold: Any = 20.0) -> Value:
    return numbered(c, "softplus", input, beta, threshold)


@takes("hardtanh")
def _hardtanh(
    c: Conversion, input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False
) -> Value:
    return numbered(c, "clamp", input, min_val, max_val)


@takes("relu6")
def _relu6(c: Conversion, input: Any, inplace: bool = False) -> Value:
    return numbered(c, "clamp", input, 0, 6)


@takes("clamp", "clip")
def _clamp(c: Conversion, input: Any, min: Any = None, max: Any = None) -> Value:
    low, high = -torch.inf if min is None else min, torch.inf if max is None else max
    return numbered(c, "clamp", input, low, high)


@takes("clamp_min")
def _clamp_min(c: Conversion, input: Any, min: Any) -> Value:
    return numbered(c, "clamp", input, min, torch.inf)


@takes("clamp_max")
def _clamp_max(c: Conversion, input: Any, max: Any) -> Value:
    return numbered(c, "clamp", input, -torch.inf, max)


@takes("prelu")
def _prelu(c: Conversion, input: Any, weight: Any) -> Value:
    x = to_tensor(c, input)
    below = numbered(c, "clamp", x, -torch.inf, 0)
    if isinstance(weight, Const) and weight.tensor.numel() == 1:
        scaled = c.emit(Arithmetic, below, c.as_value(weight), operator="mul")
    else:  # the slopes are the channels', dimension 1 of any number
        last = c.emit(Transpose, below, dims=(1, -1))
        last = c.emit(Arithmetic, last, c.as_value(weight), operator="mul")
        scaled = c.emit(Transpose, last, dims=(1, -1))
    return c.emit(Arithmetic, c.emit(ReLU, x), scaled, operator="add")


@takes("tanhshrink")
def _tanhshrink(c: Conversion, input: Any) -> Value:
    x = to_tensor(c, input)
    return c.emit(Arithmetic, x, c.emit(Tanh, x), operator="sub")


@takes("glu")
def _glu(c: Conversion, input: Any, dim: int = -1) -> Value:
    x = to_tensor(c, input)
    first, gate = (c.emit(Chunk, x, chunks=2, dim=dim, index=k) for k in (0, 1))
    open_ = c.emit(Elementwise, gate, function="sigmoid")
    return c.emit(Arithmetic, first, open_, operator="mul")


@takes("softmax")
def _softmax(
    c: Conversion, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    need(c, isinstance(dim, int), "without a dimension")
    return c.emit(Softmax, to_tensor(c, input), dim=dim)


@takes("log_softmax")
def _log_softmax(
    c: Conversion, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    need(c, isinstance(dim, int), "without a dimension")
    return c.emit(Softmax, to_tensor(c, input), dim=dim, log=True)


@takes("dropout", "dropout1d", "dropout2d", "feature_dropout")
def _dropout(
    c: Conversion, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    x = to_tensor(c, input)
    if not training or p == 0:
        return x
    need(c, c.training, "in evaluation: it drops at random")
    return c.emit(Dropout, x, p=float(p), channels=name_of(c.node)[0] != "dropout")


@takes("rrelu")
def _rrelu(
    c: Conversion,
    input: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Value:
    need(c, not training, "in training")
    return numbered(c, "leaky_relu", input, (lower + upper) / 2)


@takes("alpha_dropout", "feature_alpha_dropout", "dropout3d")
def _other_dropout(
    c: Conversion,
    input: Any,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
) -> Value:
    need(c, not training, "in training")
    return to_tensor(c, input)
