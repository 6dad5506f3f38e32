"""Arithmetic, comparison and choice."""

from __future__ import annotations

from typing import Any

from rram_hil.networks.layers import (
    Arithmetic,
    Einsum,
    Elementwise,
    Where,
)
from rram_hil.networks.pytorch.converters.arguments import need, to_factor, to_tensor
from rram_hil.networks.pytorch.converters.registry import Converter, takes
from rram_hil.networks.pytorch.tracing import (
    Const,
    Conversion,
    Value,
)


def arithmetic(c: Conversion, name: str, left: Any, right: Any) -> Value:
    """left operator right, of values, sizes, constants and numbers."""
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


def _number_or(c: Conversion, given: Any) -> Any:
    """A number, or a value; truth values become numbers where they are counted with."""
    if isinstance(given, bool):
        return int(given)
    if isinstance(given, int | float):
        return given
    if isinstance(given, Const) and given.tensor.ndim == 0 and not given.parameters:
        return given.tensor.item()
    return c.as_value(given)


def _operator_of(name: str) -> Converter:
    def convert(c: Conversion, input: Any, other: Any) -> Value:
        return arithmetic(c, name, input, other)

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
    takes(*_names)(_operator_of(_operator))


@takes("add")
def add(c: Conversion, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    """input + alpha x other."""
    return arithmetic(c, "add", input, other if alpha == 1 else _scaled(c, other, alpha))


@takes("sub", "subtract")
def _sub(c: Conversion, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    return arithmetic(c, "sub", input, other if alpha == 1 else _scaled(c, other, alpha))


@takes("rsub")
def _rsub(c: Conversion, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    return arithmetic(c, "sub", other, input if alpha == 1 else _scaled(c, input, alpha))


def _scaled(c: Conversion, given: Any, factor: Any) -> Any:
    return arithmetic(c, "mul", given, factor)


@takes("div", "divide", "true_divide", "truediv")
def _div(c: Conversion, input: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    need(c, rounding_mode in (None, "floor"), "with that rounding")
    return arithmetic(c, "floordiv" if rounding_mode else "div", input, other)


@takes("addcmul")
def _addcmul(c: Conversion, input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Value:
    made = arithmetic(c, "mul", tensor1, tensor2)
    return add(c, input, made, alpha=value)


@takes("lerp")
def _lerp(c: Conversion, input: Any, end: Any, weight: Any) -> Value:
    return add(c, input, arithmetic(c, "mul", weight, _sub(c, end, input)))


@takes("where")
def _where(c: Conversion, condition: Any, input: Any, other: Any) -> Value:
    truth = to_tensor(c, condition)
    if isinstance(input, int | float):
        return c.emit(Where, truth, to_tensor(c, other), value=float(input))
    if isinstance(other, int | float):
        opposite = c.emit(Elementwise, truth, function="not")
        return c.emit(Where, opposite, to_tensor(c, input), value=float(other))
    return c.emit(Where, truth, to_tensor(c, input), to_tensor(c, other))


@takes("masked_fill")
def _masked_fill(c: Conversion, input: Any, mask: Any, value: Any) -> Value:
    need(c, isinstance(value, int | float), "with a computed value")
    return c.emit(Where, to_tensor(c, mask), to_tensor(c, input), value=float(value))


@takes("einsum")
def _einsum(c: Conversion, equation: str, *operands: Any) -> Value:
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    return c.emit(Einsum, *(to_factor(c, x) for x in operands), equation=equation)
