"""The networks of the examples, and running one with other weights than its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Multiply = Callable[[int, nn.Linear | nn.Conv2d, Tensor], Tensor]
"""multiply(index of the mapped layer, the layer, its input) -> its output, the bias included."""


def lenet5(seed: int = 0) -> nn.Sequential:
    """LeNet-5 for 1x28x28 images: 6 and 16 kernels of 5x5, then 120, 84 and 10 units; 61,706
    parameters.

    LeCun et al., Proc. IEEE 1998, with ReLU and maximum pooling in place of the sigmoid and the
    average.
    """
    # Pooling first gives the same numbers as ReLU first, and a quarter of the work.
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(),
            nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, 10),
        ),
    )  # fmt: skip


def digits_net(seed: int = 0) -> nn.Sequential:
    """A small network for 1x8x8 digits, so few weights that a serial link programs them in
    seconds.
    """
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(12, 24, 3), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 10),
        ),
    )  # fmt: skip


def _seeded(seed: int, build: Callable[[], nn.Sequential]) -> nn.Sequential:
    # torch initialises layers from its global generator only: borrow it and put it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def mapped_layers(model: nn.Sequential) -> list[nn.Linear | nn.Conv2d]:
    """The layers whose weights go to the array, in order; every layer index in this package counts
    these.
    """
    return [layer for layer in model if isinstance(layer, nn.Linear | nn.Conv2d)]


def run(model: nn.Sequential, images: Tensor, multiply: Multiply) -> Tensor:
    """The model's output for `images`, with `multiply` in place of its own linear and convolution
    layers.
    """
    activity, index = images, 0
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            activity = multiply(index, layer, activity)
            index += 1
        else:
            activity = layer(activity)
    return activity


def forward(
    model: nn.Sequential,
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    input_bits: int | None = None,
) -> Tensor:
    """The model's output with other `weights` (one a mapped layer) and, where given, other
    `biases`.

    With `input_bits`, each layer's input is rounded to that many signed bits first, as the array's
    converters do.
    """

    def multiply(index: int, layer: nn.Linear | nn.Conv2d, activity: Tensor) -> Tensor:
        bias = layer.bias if biases is None else biases[index]
        return linear(layer, quantise_input(activity, input_bits), weights[index], bias)

    return run(model, images, multiply)


def linear(
    layer: nn.Linear | nn.Conv2d, activity: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """What `layer` computes, with another weight and bias."""
    if isinstance(layer, nn.Linear):
        return functional.linear(activity, weight, bias)
    padding = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
    return functional.conv2d(
        activity, weight, bias, layer.stride, padding, layer.dilation, layer.groups
    )


def quantise_input(activity: Tensor, bits: int | None) -> Tensor:
    """`activity` rounded to signed `bits` of each image's largest value; straight-through
    gradient.
    """
    if bits is None:
        return activity
    steps = 2 ** (bits - 1) - 1
    with torch.no_grad():
        step = (
            activity.abs().amax(dim=tuple(range(1, activity.ndim)), keepdim=True).clamp_min(1e-12)
            / steps
        )
        rounded = torch.round(activity / step) * step
    return straight_through(activity, rounded)


def straight_through(value: Tensor, given: Tensor) -> Tensor:
    """The value of `given` with the gradient of `value`."""
    result: Tensor = value + (given - value).detach() if value.requires_grad else given
    return result
