"""Arguments of torch's functions as layers take them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rram_hil.networks.pytorch.tracing import (
    Const,
    Conversion,
    Shape,
    Source,
    Value,
)


def to_size(c: Conversion, value: Any) -> Any:
    """A size: a number, or the name of the layer that gives it."""
    if isinstance(value, Value) and value.is_size:
        return value.name
    if isinstance(value, bool) or not isinstance(value, int):
        raise c.refusal(f"takes {type(value).__name__} where a size is expected")
    return int(value)


def to_sizes(c: Conversion, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes, given one by one or as one tuple."""
    if len(given) == 1 and isinstance(given[0], tuple | list | torch.Size):
        given = tuple(given[0])
    if len(given) == 1 and isinstance(given[0], Shape):
        raise c.refusal("takes a whole shape; name its sizes one by one")
    return tuple(to_size(c, size) for size in given)


def to_dims(c: Conversion, dim: Any) -> tuple[int, ...]:
    """Dimensions; none for all."""
    if dim is None:
        return ()
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    if not all(isinstance(d, int) for d in dims):
        raise c.refusal("takes dimensions that are no plain numbers")
    return dims


def to_pair(value: Any) -> tuple[int, int]:
    """A number for height and width, or one for each."""
    if isinstance(value, int):
        return value, value
    first, second = (*value, *value)[:2] if len(value) == 1 else value
    return int(first), int(second)


def to_single(value: Any) -> int:
    """A number, or the one of a tuple."""
    return int(value if isinstance(value, int) else value[0])


def to_tensor(c: Conversion, x: Any) -> Value:
    """A tensor as a value; a size is none."""
    value = c.as_value(x)
    if value.is_size:
        raise c.refusal("takes a size where a tensor is expected")
    return value


def need(c: Conversion, allowed: bool, why: str) -> None:
    """Refuse the function at hand unless it is `allowed`."""
    if not allowed:
        raise c.refusal(f"is not supported {why}")


def to_factor(c: Conversion, given: Any) -> Value:
    """A side of a digital product. A constant there would be a weight."""
    return c.as_value(given, is_factor=True) if isinstance(given, Const) else to_tensor(c, given)


def parameter(tensor: Tensor | None, name: str) -> Any:
    """A parameter of a module that is taken whole, if it has it."""
    return None if tensor is None else Const(tensor.detach(), frozenset({name}), Source(name))
