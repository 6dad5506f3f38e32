"""One value for many."""

from __future__ import annotations

from typing import Any

import torch

from rram_hil.networks.layers import (
    Arithmetic,
    Elementwise,
    Reduce,
)
from rram_hil.networks.pytorch.converters.arguments import need, to_dims, to_tensor
from rram_hil.networks.pytorch.converters.arithmetic import arithmetic
from rram_hil.networks.pytorch.converters.elementwise import numbered
from rram_hil.networks.pytorch.converters.registry import Converter, takes
from rram_hil.networks.pytorch.tracing import (
    Const,
    Conversion,
    Derived,
    Value,
)


def _reduction(name: str) -> Converter:
    def convert(
        c: Conversion, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Value:
        return c.emit(
            Reduce, to_tensor(c, input), function=name, dims=to_dims(c, dim), keepdim=keepdim
        )

    return convert


for _name in ("mean", "sum", "amax", "amin"):
    takes(_name)(_reduction(_name))


def _extreme(name: str, pairwise: str) -> Converter:
    def convert(c: Conversion, input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, Value | Const):
            return arithmetic(c, pairwise, input, dim)
        made = c.emit(
            Reduce, to_tensor(c, input), function=name, dims=to_dims(c, dim), keepdim=keepdim
        )
        return made if dim is None else (made, Unsupported("the places of the extremes"))

    return convert


class Unsupported(Derived):
    """Part of an answer that no layer gives; using it is refused."""

    def __init__(self, what: str) -> None:
        self.what = what


takes("max")(_extreme("amax", "maximum"))


takes("min")(_extreme("amin", "minimum"))


def _spread(name: str) -> Converter:
    def convert(
        c: Conversion,
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
            Reduce, to_tensor(c, input), function=name, dims=to_dims(c, dim), keepdim=keepdim,
            correction=float(less),
        )  # fmt: skip

    return convert


takes("var")(_spread("var"))


takes("std")(_spread("std"))


@takes("normalize")
def _normalize(
    c: Conversion, input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None
) -> Value:
    need(c, p == 2 and isinstance(dim, int), "with another norm than the second")
    x = to_tensor(c, input)
    square = c.emit(Elementwise, x, function="square")
    total = c.emit(Reduce, square, function="sum", dims=(dim,), keepdim=True)
    length = numbered(c, "clamp", c.emit(Elementwise, total, function="sqrt"), eps, torch.inf)
    return c.emit(Arithmetic, x, length, operator="div")
