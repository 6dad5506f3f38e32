"""Pooling, padding and upsampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rram_hil.networks.layers import (
    AdaptivePool2d,
    AvgPool2d,
    MaxPool2d,
    Pad,
    Squeeze,
    Unsqueeze,
    Upsample,
)
from rram_hil.networks.pytorch.converters.arguments import need, to_pair, to_single, to_tensor
from rram_hil.networks.pytorch.converters.registry import Converter, takes
from rram_hil.networks.pytorch.tracing import (
    Conversion,
    Value,
)


@takes("max_pool2d")
def _max_pool2d(
    c: Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    need(c, not return_indices, "with return_indices")
    return c.emit(
        MaxPool2d, to_tensor(c, input), kernel=to_pair(kernel_size),
        stride=to_pair(stride or kernel_size), padding=to_pair(padding), dilation=to_pair(dilation),
        ceil_mode=ceil_mode,
    )  # fmt: skip


@takes("avg_pool2d")
def _avg_pool2d(
    c: Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Value:
    return c.emit(
        AvgPool2d, to_tensor(c, input), kernel=to_pair(kernel_size),
        stride=to_pair(stride or kernel_size), padding=to_pair(padding), ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, divisor=divisor_override,
    )  # fmt: skip


def _as_image(c: Conversion, input: Any, pool: Callable[[Value], Value]) -> Value:
    """Pooling of (n, channels, length) as of images with a height of 1."""
    return c.emit(Squeeze, pool(c.emit(Unsqueeze, to_tensor(c, input), dim=-2)), dims=(-2,))


@takes("max_pool1d")
def _max_pool1d(
    c: Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    stride = kernel_size if stride is None or stride == [] else stride
    size, by, around, apart = (to_single(v) for v in (kernel_size, stride, padding, dilation))
    return _as_image(
        c,
        input,
        lambda x: _max_pool2d(
            c, x, (1, size), (1, by), (0, around), (1, apart), ceil_mode, return_indices
        ),
    )


@takes("avg_pool1d")
def _avg_pool1d(
    c: Conversion,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    size, by = to_single(kernel_size), to_single(stride or kernel_size)
    around = to_single(padding)
    return _as_image(
        c,
        input,
        lambda x: _avg_pool2d(c, x, (1, size), (1, by), (0, around), ceil_mode, count_include_pad),
    )


def _adaptive(name: Any) -> Converter:
    def convert(c: Conversion, input: Any, output_size: Any, return_indices: bool = False) -> Value:
        need(c, not return_indices, "with return_indices")
        size = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        return c.emit(AdaptivePool2d, to_tensor(c, input), function=name, size=tuple(size))

    return convert


def _adaptive1d(name: Any) -> Converter:
    def convert(c: Conversion, input: Any, output_size: Any, return_indices: bool = False) -> Value:
        need(c, not return_indices, "with return_indices")
        size = output_size[0] if isinstance(output_size, tuple | list) else output_size
        return _as_image(
            c, input, lambda x: c.emit(AdaptivePool2d, x, function=name, size=(None, size))
        )

    return convert


takes("adaptive_avg_pool2d")(_adaptive("mean"))


takes("adaptive_max_pool2d")(_adaptive("max"))


takes("adaptive_avg_pool1d")(_adaptive1d("mean"))


takes("adaptive_max_pool1d")(_adaptive1d("max"))


@takes("interpolate")
def _interpolate(
    c: Conversion,
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    scale = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor,) * 2
    plain = mode == "nearest" and size is None and len(scale) == 2
    plain = plain and all(s is not None and float(s).is_integer() for s in scale)
    need(c, plain, "but to the nearest pixel, by whole factors, of images")
    return c.emit(Upsample, to_tensor(c, input), scale=(int(scale[0]), int(scale[1])))


@takes("pad")
def _pad(c: Conversion, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    return c.emit(
        Pad, to_tensor(c, input), amounts=tuple(int(p) for p in pad), mode=mode,
        value=float(value or 0),
    )  # fmt: skip
