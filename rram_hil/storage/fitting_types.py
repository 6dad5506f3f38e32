"""Whether a value that was read back is of the type that a dataclass's field says: a frame with the
right checksum may still hold a text where a number belongs.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np


@functools.cache
def field_types(cls: Any) -> dict[str, Any]:
    """The resolved types of the fields of a dataclass."""
    return typing.get_type_hints(cls)


@functools.cache
def _parts(wanted: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a type hint is made of; asked for each value of each frame."""
    return get_origin(wanted), get_args(wanted)


def fits(value: object, wanted: Any) -> bool:
    """Whether `value` is a `wanted`: a class, a union, a literal, a tuple, a mapping or an array of
    some kind of number. Integers pass for floats, booleans for neither.
    """
    origin, of = _parts(wanted)
    if wanted is Any:
        return True
    if origin is Annotated:
        return fits(value, of[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in of)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in of)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and _holds(value.dtype, of[-1])
    if origin is tuple:
        return isinstance(value, tuple) and _each(value, of)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, of[0]) and fits(v, of[1]) for k, v in value.items()
        )
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted in (bool, object)
    if wanted is float:
        return isinstance(value, int | float)
    return isinstance(value, wanted) if isinstance(wanted, type) else True


def _each(values: tuple[object, ...], of: tuple[Any, ...]) -> bool:
    if len(of) == 2 and of[1] is Ellipsis:
        return all(fits(one, of[0]) for one in values)
    return len(values) == len(of) and all(map(fits, values, of))


@functools.cache
def _holds(dtype: np.dtype[Any], wanted: Any) -> bool:
    """Whether elements of `dtype` can stand for those of a `numpy.dtype[...]` of a type hint."""
    (kind,) = get_args(wanted) or (Any,)
    if kind in (Any, np.generic) or not isinstance(kind, type):
        return True
    sorts = {np.floating: "fiu", np.integer: "iu", np.bool_: "b"}
    return any(issubclass(kind, base) and dtype.kind in sort for base, sort in sorts.items())
