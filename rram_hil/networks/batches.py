"""Whether a network makes of many images what it makes of each: then they may come in parts.

That depends on how many dimensions a tensor has (`x - x.mean(-2)` mixes images if there are two),
which the graph does not say. So the network runs on two and on three images, and the dimension that
grew is that of the images in every value; what each layer does along it is known by its kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import drive
from rram_hil.errors import DataError
from rram_hil.networks.evaluation import product, uses, walk
from rram_hil.networks.layers import (
    INPUT,
    AdaptivePool2d,
    Attention,
    AvgPool2d,
    Chunk,
    Concat,
    Conv1d,
    Conv2d,
    Einsum,
    Flatten,
    GroupNorm,
    Index,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    Narrow,
    Pad,
    Part,
    Recurrent,
    Repeat,
    Reshape,
    Select,
    SizeOf,
    Softmax,
    Squeeze,
    Unflatten,
    Upsample,
)

if TYPE_CHECKING:
    from rram_hil.networks.network import Network


@dataclass(frozen=True)
class _Place:
    """Where the images of a value are: on which of its `rank` dimensions, behind how many `outer`
    values of the dimensions before it.
    """

    axis: int
    rank: int
    outer: int


class _MixedError(Exception):
    """Images are mixed, or may be."""


def is_batched(network: Network, images: NDArray[Any]) -> bool:
    """Whether `network` makes of `images` (three at least; one input, one output) what it makes of
    any part of them, one result an image.
    """
    try:
        few, many = _values(network, images[:2]), _values(network, images[:3])
    except DataError:  # so few do not fit; all may
        return False
    places: dict[str, _Place | None] = {INPUT: _Place(0, images.ndim, 1)}
    try:
        for step in network.schedule:
            layer, of = step.layer, step.of
            if isinstance(layer, Recurrent):
                _check_recurrent(*(places[name] for name in of))
                places[layer.name] = places[of[0]]
                continue
            taken = [places[name] for name in of if not isinstance(few[name], int)]
            if not isinstance(layer, SizeOf):
                _check_sizes(of, few, many)
            found = _place(few[layer.name], many[layer.name])
            named = [places.get(name) for name in uses(layer)]
            if isinstance(layer, Narrow | Index | Select) and any(
                few[name] != many[name] for name in uses(layer)[len(layer.of) :]
            ):
                raise _MixedError  # which values are taken depends on how many images there are
            is_of_images = any(place is not None for place in (*taken, *named))
            if found is None and is_of_images and not isinstance(few[layer.name], int):
                raise _MixedError
            for place in taken:
                if place is not None:
                    _MIXES.get(type(layer), _keeps)(layer, place, found)
            places[layer.name] = found
        result = places[network.result or [INPUT, *places][-1]]
    except _MixedError:
        return False
    return result is not None and result.axis == 0


def _values(network: Network, images: NDArray[Any]) -> dict[str, Any]:
    """The values of all layers for some images."""
    kept = [replace(step, freed=()) for step in network.schedule]
    return drive(
        walk(kept, network.tensors, network.biases, {INPUT: images}),
        lambda asked: product(asked[0], network.weights[asked[0].weight_name], asked[1]),
    )


def _place(few: Any, many: Any) -> _Place | None:
    """Where the images are in a value of two images and one of three; nowhere if it is the same for
    both.
    """
    one, other = np.shape(few), np.shape(many)
    grown = [axis for axis, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    if len(one) != len(other) or len(grown) > 1:
        raise _MixedError
    if not grown:
        return None
    (axis,) = grown
    if 3 * one[axis] != 2 * other[axis] or one[axis] % 2:
        raise _MixedError
    return _Place(axis, len(one), math.prod(one[:axis]))


def _check_sizes(of: tuple[str, ...], few: dict[str, Any], many: dict[str, Any]) -> None:
    """The number of images may say how large something is, and not be counted with."""
    arrays = any(isinstance(few[name], np.ndarray) for name in of)
    if arrays and any(
        not isinstance(few[name], np.ndarray | tuple) and few[name] != many[name] for name in of
    ):
        raise _MixedError


def _check_recurrent(values: _Place | None, *states: _Place | None) -> None:
    if values is None or values.axis != 0 or any(s is not None and s.axis != 1 for s in states):
        raise _MixedError


def _refuse_if(mixes: bool) -> None:
    if mixes:
        raise _MixedError


def _keeps(layer: Any, place: _Place, made: _Place | None) -> None:
    """Whatever such a layer does, the dimension that grew is that of the images."""


def _first(layer: Any, place: _Place, made: _Place | None) -> None:
    _refuse_if(place.axis != 0)


def _not_last(dims: int) -> Callable[[Any, _Place, _Place | None], None]:
    """Layers that work on the last dimensions."""
    return lambda layer, place, made: _refuse_if(place.axis >= place.rank - dims)


def _along(layer: Any, place: _Place, made: _Place | None) -> None:
    """Layers that work along `dim`."""
    _refuse_if(layer.dim % place.rank == place.axis)


def _concat(layer: Concat, place: _Place, made: _Place | None) -> None:
    _refuse_if(not layer.new and layer.dim % place.rank == place.axis)


def _reshape(layer: Any, place: _Place, made: _Place | None) -> None:
    _refuse_if(made is None or made.outer != place.outer)


def _squeeze(layer: Squeeze, place: _Place, made: _Place | None) -> None:
    _refuse_if(not layer.dims or place.axis in {dim % place.rank for dim in layer.dims})


def _repeat(layer: Repeat, place: _Place, made: _Place | None) -> None:
    before = place.rank - place.axis
    _refuse_if(len(layer.counts) >= before and layer.counts[-before] != 1)


def _pad(layer: Pad, place: _Place, made: _Place | None) -> None:
    from_end = 2 * (place.rank - 1 - place.axis)
    _refuse_if(any(layer.amounts[from_end : from_end + 2]))


def _index(layer: Index, place: _Place, made: _Place | None) -> None:
    """The images must be taken whole."""
    entries = [entry for entry in layer.entries if entry != "new"]
    if "..." in entries:
        at = entries.index("...")
        entries[at : at + 1] = [(None, None, None)] * (place.rank - len(entries) + 1)
    if place.axis < len(entries):
        entry = entries[place.axis]
        _refuse_if(not isinstance(entry, tuple) or entry[:2] != (None, None))
        _refuse_if(isinstance(entry, tuple) and entry[2] not in (None, 1))


def _einsum(layer: Einsum, place: _Place, made: _Place | None) -> None:
    """The letter of the images must be in the result; whose it is, is not looked at."""
    sides = layer.equation.replace(" ", "").split("->")
    _refuse_if(len(sides) != 2 or "." in layer.equation)
    for letters in sides[0].split(","):
        if len(letters) == place.rank:
            _refuse_if(letters[place.axis] not in sides[1])


_MIXES: dict[type[Layer], Callable[[Any, _Place, _Place | None], None]] = {
    Linear: _not_last(1),
    Conv1d: _first,
    Conv2d: _first,
    MaxPool2d: _first,
    AvgPool2d: _first,
    AdaptivePool2d: _not_last(2),
    Upsample: _not_last(2),
    GroupNorm: _first,
    Attention: _not_last(2),
    LayerNorm: lambda layer, place, made: _refuse_if(place.axis >= place.rank - layer.dims),
    Softmax: _along,
    Chunk: _along,
    Narrow: _along,
    Concat: _concat,
    Reshape: _reshape,
    Flatten: _reshape,
    Unflatten: _reshape,
    Squeeze: _squeeze,
    Repeat: _repeat,
    Pad: _pad,
    Index: _index,
    Einsum: _einsum,
    Part: _keeps,
}
