"""How many threads torch gets while a network is trained: small ones are no faster with more."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rram_hil.errors import ConfigError

ONE_THREAD_BELOW = 2_000_000_000
"""Multiply-accumulates of a batch's forward pass below which one thread is used.

Threads wait for each other by spinning after every layer. Below this a second one gains nothing on
a quiet machine, and beside another busy process it costs ten times what it saves.
"""


@contextmanager
def threads_for(
    model: nn.Module, image_shape: Sequence[int], batch: int, count: int | None = None
) -> Iterator[None]:
    """While the context lasts, torch uses `count` threads, by default as many as the work is worth:
    one, or what the caller had set, which is restored at the end.

    The work is one pass of `batch` images of `image_shape` (channels, height, width) through
    `model`.
    """
    if count is not None and count < 1:
        raise ConfigError(f"threads: {count} must be at least 1")
    before = torch.get_num_threads()
    if count is None:
        work = batch * multiply_accumulates(model, image_shape)
        count = 1 if work < ONE_THREAD_BELOW else before
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def multiply_accumulates(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiplications of one image of `image_shape` by the weights of the layers that have any: to
    the digit for linear layers and convolutions, roughly for others.
    """
    total = 0

    def count(layer: nn.Module, _: object, given: object) -> None:
        nonlocal total
        given = given[0] if isinstance(given, tuple) else given
        if isinstance(given, Tensor) and not isinstance(layer, nn.Embedding):
            weights = [p for p in layer.parameters(recurse=False) if p.ndim > 1]
            total += sum(weight[0].numel() * given.numel() for weight in weights)

    # In evaluation mode, and on a copy: a batch norm must not take these images for its own. They
    # are two, since a norm without running statistics takes no single one.
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        layer.register_forward_hook(count)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    images = torch.zeros((2, *image_shape), device=like.device, dtype=like.dtype)
    # With gradients, since without them torch runs some layers whole, past their parts.
    model(images)
    return total // 2
