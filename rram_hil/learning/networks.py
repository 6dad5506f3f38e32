"""The networks of the examples, and running one with other weights than its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rram_hil.networks.network import Network

Multiply = Callable[[int, nn.Linear | nn.Conv2d, Tensor], Tensor]
"""multiply(index of the mapped layer, the layer, its input) -> its output, the bias included."""


def lenet5(seed: int = 0, *, width: int = 1, batch_norm: bool = False) -> nn.Sequential:
    """LeNet-5 for 1x28x28 images: 6 and 16 kernels of 5x5, then 120, 84 and 10 units; 61,706
    parameters.

    LeCun et al., Proc. IEEE 1998, with ReLU and maximum pooling in place of the sigmoid and the
    average. `width` multiplies kernels and units, for a teacher. With `batch_norm` a normalisation
    follows each layer but the last; `folded` makes it part of the weights after training.
    """

    def layer(of: nn.Linear | nn.Conv2d) -> list[nn.Module]:
        if not batch_norm:
            return [of]
        if isinstance(of, nn.Conv2d):
            return [of, nn.BatchNorm2d(of.out_channels)]
        return [of, nn.BatchNorm1d(of.out_features)]

    # Pooling first gives the same numbers as ReLU first, and a quarter of the work.
    return _seeded(
        seed,
        lambda: nn.Sequential(
            *layer(nn.Conv2d(1, 6 * width, 5, padding=2)), nn.MaxPool2d(2), nn.ReLU(),
            *layer(nn.Conv2d(6 * width, 16 * width, 5)), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(),
            *layer(nn.Linear(400 * width, 120 * width)), nn.ReLU(),
            *layer(nn.Linear(120 * width, 84 * width)), nn.ReLU(),
            nn.Linear(84 * width, 10),
        ),
    )  # fmt: skip


def folded(model: nn.Sequential) -> nn.Sequential:
    """The same network in evaluation mode with its batch norms in the weights and biases before
    them.
    """
    return Network.from_torch(model).to_torch()


def channels_last(images: Tensor) -> Tensor:
    """`images` (n, channels, height, width) with the channels innermost in memory, the layout in
    which torch's convolutions and pooling are fastest on a CPU; anything else as it is.
    """
    if images.ndim != 4:
        return images
    if images.shape[1] > 1:
        return images.contiguous(memory_format=torch.channels_last)
    # One channel lies the same way in both layouts; torch tells them apart by the strides alone.
    images = images.contiguous()
    count, _, height, width = images.shape
    return images.as_strided((count, 1, height, width), (height * width, 1, width, 1))


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
        axes = tuple(range(1, activity.ndim))
        peak = torch.maximum(
            activity.amax(dim=axes, keepdim=True), -activity.amin(dim=axes, keepdim=True)
        )
        step = peak.clamp_min_(1e-12).div_(steps)
        rounded = (activity / step).round_().mul_(step)
    return straight_through(activity, rounded)


def straight_through(value: Tensor, given: Tensor) -> Tensor:
    """The value of `given` with the gradient of `value`."""
    if not value.requires_grad:
        return given
    result: Tensor = _StraightThrough.apply(value, given)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, value: Tensor, given: Tensor) -> Tensor:
        return given.view_as(given)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
