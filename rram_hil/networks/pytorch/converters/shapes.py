"""Shapes, parts, sizes and types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rram_hil.networks.layers import (
    Arithmetic,
    Chunk,
    Concat,
    Expand,
    Flatten,
    Full,
    Index,
    Narrow,
    Permute,
    Repeat,
    Reshape,
    Select,
    SizeOf,
    Squeeze,
    Transpose,
    Unflatten,
    Unsqueeze,
    Where,
)
from rram_hil.networks.pytorch.converters.arguments import (
    need,
    to_dims,
    to_size,
    to_sizes,
    to_tensor,
)
from rram_hil.networks.pytorch.converters.reductions import Unsupported
from rram_hil.networks.pytorch.converters.registry import name_of, takes
from rram_hil.networks.pytorch.tracing import (
    Const,
    Conversion,
    Derived,
    Shape,
    Value,
)


@takes("view", "reshape")
def _reshape(c: Conversion, input: Any, *shape: Any) -> Value:
    need(c, not (shape and isinstance(shape[0], torch.dtype)), "to another type")
    return c.emit(Reshape, to_tensor(c, input), shape=to_sizes(c, shape))


@takes("flatten")
def _flatten(c: Conversion, input: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    return c.emit(Flatten, to_tensor(c, input), start=start_dim, end=end_dim)


@takes("unflatten")
def _unflatten(c: Conversion, input: Any, dim: int, sizes: Any) -> Value:
    return c.emit(Unflatten, to_tensor(c, input), dim=dim, shape=to_sizes(c, (sizes,)))


@takes("transpose", "swapaxes", "swapdims")
def _transpose(c: Conversion, input: Any, dim0: int, dim1: int) -> Value:
    return c.emit(Transpose, to_tensor(c, input), dims=(dim0, dim1))


@takes("t")
def _t(c: Conversion, input: Any) -> Value:
    return c.emit(Transpose, to_tensor(c, input), dims=(0, 1), rank=2)


@takes("permute")
def _permute(c: Conversion, input: Any, *dims: Any) -> Value:
    return c.emit(Permute, to_tensor(c, input), dims=to_sizes(c, dims))


@takes("squeeze")
def _squeeze(c: Conversion, input: Any, dim: Any = None) -> Value:
    return c.emit(Squeeze, to_tensor(c, input), dims=to_dims(c, dim))


@takes("unsqueeze")
def _unsqueeze(c: Conversion, input: Any, dim: int) -> Value:
    return c.emit(Unsqueeze, to_tensor(c, input), dim=dim)


@takes("expand")
def _expand(c: Conversion, input: Any, *shape: Any) -> Value:
    return c.emit(Expand, to_tensor(c, input), shape=to_sizes(c, shape))


@takes("repeat", "tile")
def _repeat(c: Conversion, input: Any, *counts: Any) -> Value:
    return c.emit(Repeat, to_tensor(c, input), counts=to_sizes(c, counts))


@takes("cat", "concat", "concatenate")
def _cat(c: Conversion, tensors: Any, dim: int = 0) -> Value:
    return c.emit(Concat, *(to_tensor(c, x) for x in tensors), dim=dim)


@takes("stack")
def _stack(c: Conversion, tensors: Any, dim: int = 0) -> Value:
    return c.emit(Concat, *(to_tensor(c, x) for x in tensors), dim=dim, new=True)


class _Parts(Derived):
    """Parts of a value, of which the graph does not know how many there are."""

    def __init__(self, part: Callable[[int], Value]) -> None:
        self.part = part


@takes("chunk")
def _chunk(c: Conversion, input: Any, chunks: int, dim: int = 0) -> _Parts:
    x = to_tensor(c, input)
    return _Parts(lambda k: c.emit(Chunk, x, chunks=chunks, dim=dim, index=k))


@takes("split")
def _split(c: Conversion, input: Any, split_size_or_sections: Any, dim: int = 0) -> _Parts:
    x, size = to_tensor(c, input), split_size_or_sections
    if isinstance(size, tuple | list):
        lengths = to_sizes(c, (size,))
        need(c, all(isinstance(n, int) for n in lengths), "into computed sizes")
        starts = [sum(lengths[:k]) for k in range(len(lengths))]
        return _Parts(lambda k: c.emit(Narrow, x, dim=dim, start=starts[k], length=lengths[k]))
    need(c, isinstance(size, int), "into parts of a computed size")

    def part(k: int) -> Value:
        need(c, k >= 0, "with parts counted from the end")
        return c.emit(Narrow, x, dim=dim, start=k * size, length=size)

    return _Parts(part)


@takes("unbind")
def _unbind(c: Conversion, input: Any, dim: int = 0) -> _Parts:
    x = to_tensor(c, input)
    return _Parts(lambda k: c.emit(Select, x, dim=dim, index=k))


@takes("narrow")
def _narrow(c: Conversion, input: Any, dim: int, start: Any, length: Any) -> Value:
    return c.emit(
        Narrow, to_tensor(c, input), dim=dim, start=to_size(c, start), length=to_size(c, length)
    )


@takes("select")
def _select(c: Conversion, input: Any, dim: int, index: Any) -> Value:
    return c.emit(Select, to_tensor(c, input), dim=dim, index=to_size(c, index))


@takes("getitem")
def _getitem(c: Conversion, input: Any, index: Any) -> Any:
    if isinstance(input, Shape):
        need(c, isinstance(index, int), "of several sizes at once; name them one by one")
        return Value(c.emit(SizeOf, input.of, dim=index).name, is_size=True)
    if isinstance(input, _Parts):
        need(c, isinstance(index, int), "of several parts at once")
        return input.part(index)
    if isinstance(input, tuple | list | dict):
        found = input[index]
        if isinstance(found, Unsupported):
            raise c.refusal(f"takes {found.what}, which no layer gives")
        return found
    entries = index if isinstance(index, tuple | list) else (index,)
    return c.emit(Index, to_tensor(c, input), entries=tuple(_entry(c, e) for e in entries))


def _entry(c: Conversion, entry: Any) -> Any:
    if entry is None:
        return "new"
    if entry is Ellipsis:
        return "..."
    if isinstance(entry, slice):
        ends = [None if e is None else to_size(c, e) for e in (entry.start, entry.stop)]
        need(c, entry.step is None or isinstance(entry.step, int), "with a computed step")
        return (*ends, entry.step)
    need(c, not isinstance(entry, str), "of a dict of inputs; give its tensors as arguments")
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise c.refusal("is not supported with tensors as an index")
    return entry


@takes("size")
def _size(c: Conversion, input: Any, dim: Any = None) -> Any:
    if dim is None:
        return Shape(to_tensor(c, input))
    return Value(c.emit(SizeOf, to_tensor(c, input), dim=dim).name, is_size=True)


@takes("getattr")
def _getattr(c: Conversion, input: Any, name: str) -> Any:
    if isinstance(input, tuple) and name in ("values", "indices"):
        return _getitem(c, input, ("values", "indices").index(name))
    if name == "shape":
        return Shape(to_tensor(c, input))
    if name in ("T", "mT"):
        last = (-2, -1) if name == "mT" else (0, 1)
        return c.emit(Transpose, to_tensor(c, input), dims=last, rank=2 if name == "T" else None)
    if name in ("device", "dtype"):
        return None  # where and how it computes is the bench's affair
    if name == "data":
        return input
    raise c.refusal(f"takes {name!r} of a tensor, which is not supported")


@takes("contiguous", "detach", "cpu", "requires_grad", "clone")
def _same(c: Conversion, input: Any, *args: Any, **kwargs: Any) -> Value:
    return to_tensor(c, input)


@takes("float", "double")
def _as_floats(c: Conversion, input: Any) -> Value:
    x = to_tensor(c, input)
    return c.emit(Arithmetic, x, operator="mul", scalar=1.0) if x.is_truth else x


@takes("half", "bfloat16")
def _as_short_floats(c: Conversion, input: Any) -> Value:
    kind = torch.float16 if name_of(c.node)[0] == "half" else torch.bfloat16
    return _cast(c, input, kind)


def _cast(c: Conversion, input: Any, kind: Any) -> Value:
    """A tensor in another type: it may only be one that holds the same numbers."""
    if not kind.is_floating_point:
        return _as_integers(c, input)
    rounds = kind.itemsize < 4 and all(p.dtype != kind for p in c.module.parameters())
    need(c, not rounds, f"to {kind}: it rounds")
    return _as_floats(c, input)


@takes("to", "type", "type_as")
def _to(c: Conversion, input: Any, *args: Any, **kwargs: Any) -> Value:
    given = (*args, *kwargs.values())
    for kind in given:
        if isinstance(kind, torch.dtype):
            return _cast(c, input, kind)
        if isinstance(kind, Const):
            return _cast(c, input, kind.tensor.dtype)
        named = isinstance(kind, str) and kind.startswith("torch.")
        need(c, not named, f"to {kind}; give a torch.dtype")
    return _as_floats(c, input)


@takes("long", "int")
def _as_integers(c: Conversion, input: Any) -> Value:
    looks_up = all(name_of(user)[0] == "embedding" for user in c.node.users)
    need(c, looks_up, "but to look up in an embedding: it cuts fractions off")
    return to_tensor(c, input)


@takes("new_zeros", "new_ones", "new_full")
def _new(c: Conversion, input: Any, *size: Any, **kwargs: Any) -> Value:
    return _full(c, *size, **kwargs)


@takes("zeros", "ones", "full")
def _full(c: Conversion, *size: Any, **kwargs: Any) -> Value:
    name = name_of(c.node)[0]
    kind = kwargs.get("dtype")
    need(c, kind is None or kind.is_floating_point, "of numbers that are not floating point")
    if "size" in kwargs:
        size = (kwargs["size"], *size)
    if name.endswith("full"):
        shape, value = size[0], size[1] if len(size) > 1 else kwargs.get("fill_value")
        if not isinstance(value, int | float):
            raise c.refusal("is not supported of a computed value")
    else:
        shape, value = size, float(name.endswith("ones"))
    given = shape if isinstance(shape, tuple | list) else (shape,)
    return c.emit(Full, shape=to_sizes(c, tuple(given)), value=float(value))


@takes("zeros_like", "ones_like")
def _like(c: Conversion, input: Any, **kwargs: Any) -> Value:
    x = to_tensor(c, input)
    never = c.emit(Arithmetic, x, x, operator="ne")
    zeros = c.emit(Where, never, x, value=0.0)
    # x where it is a number, so that what is left is zero without 0 x inf.
    same = c.emit(Arithmetic, zeros, zeros, operator="eq")
    return c.emit(Where, same, zeros, value=float(name_of(c.node)[0] == "ones_like"))
