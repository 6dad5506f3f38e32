"""Which converter a function or a module of torch has, and what of torch is known and refused."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import fx
from torch.nn import functional

from rram_hil.networks.pytorch.tracing import (
    Conversion,
    Value,
)

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


def converted(c: Conversion, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, bool, bool]:
    """What a node becomes; whether it may be a view of its input; whether it changes its input."""
    if node.op == "call_module":
        module = c.module.get_submodule(c.module_path())
        return _MODULES[type(module)](c, module, *args, **kwargs), False, False
    name, in_place = name_of(node)
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


def name_of(node: fx.Node) -> tuple[str, bool]:
    """The name that a function or method is known by here, and whether it works in place."""
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.startswith("_"):
            return name.removesuffix("_"), True
        return name, False
    names, in_place = _known_functions()
    return names.get(node.target, ""), node.target in in_place


@cache
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


def takes(*names: str) -> Callable[[AnyConverter], AnyConverter]:
    """The converter of functions and methods of these names."""

    def register(converter: AnyConverter) -> AnyConverter:
        for name in names:
            _CONVERTERS[name] = converter
        return converter

    return register


def takes_module(*kinds: type) -> Callable[[AnyConverter], AnyConverter]:
    """The converter of modules of these classes, which are taken whole."""

    def register(converter: AnyConverter) -> AnyConverter:
        for kind in kinds:
            _MODULES[kind] = converter
        return converter

    return register
