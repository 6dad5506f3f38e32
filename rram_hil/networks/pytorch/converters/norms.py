"""Normalisations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rram_hil.networks.layers import (
    BatchNorm,
    GroupNorm,
    LayerNorm,
)
from rram_hil.networks.pytorch.converters.arguments import need, parameter, to_tensor
from rram_hil.networks.pytorch.converters.registry import takes, takes_module
from rram_hil.networks.pytorch.tracing import (
    Const,
    Conversion,
    Value,
)


@takes_module(nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
def _batch_norm(c: Conversion, module: Any, input: Any) -> Value:
    path = c.module_path()
    need(c, module.running_var is not None, "without running statistics")
    affine = module.weight is not None
    c.mark_used(path)
    name = c.prefix_of(module, path or "module")
    for what in ("running_mean", "running_var", *(("weight", "bias") if affine else ())):
        c.keep_tensor(f"{name}.{what}", getattr(module, what), f"{path}.{what}".lstrip("."))
    if module.num_batches_tracked is not None:
        tracked = f"{name}.num_batches_tracked"
        c.keep_tensor(
            tracked, module.num_batches_tracked, f"{path}.num_batches_tracked".lstrip(".")
        )
    return c.emit(
        BatchNorm, to_tensor(c, input), name=name, channels=module.num_features,
        eps=float(module.eps), momentum=module.momentum, affine=affine, tensors=name,
    )  # fmt: skip


@takes_module(nn.InstanceNorm1d, nn.InstanceNorm2d)
def _instance_norm(c: Conversion, module: Any, input: Any) -> Value:
    need(c, not module.track_running_stats, "with running statistics")
    path = c.module_path()
    return _normalised_groups(
        c,
        input,
        0,
        parameter(module.weight, f"{path}.weight".lstrip(".")),
        parameter(module.bias, f"{path}.bias".lstrip(".")),
        module.eps,
    )


@takes("group_norm")
def _group_norm(
    c: Conversion,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    return _normalised_groups(c, input, num_groups, weight, bias, eps)


def _normalised_groups(
    c: Conversion, input: Any, groups: int, weight: Any, bias: Any, eps: float
) -> Value:
    return c.emit(
        GroupNorm, to_tensor(c, input), groups=groups, eps=float(eps), weight=_scale(c, weight),
        bias=_scale(c, bias),
    )  # fmt: skip


def _scale(c: Conversion, given: Any) -> str | None:
    """The name of a digital tensor that scales or shifts what is normalised."""
    if given is None:
        return None
    need(c, isinstance(given, Const), "with a computed scale")
    scale = Const(given.tensor, frozenset(), given.source)  # it multiplies value by value
    return c.digital_tensor(scale, "normalises by")


@takes("layer_norm")
def _layer_norm(
    c: Conversion,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    return c.emit(
        LayerNorm, to_tensor(c, input), dims=len(tuple(normalized_shape)), eps=float(eps),
        weight=_scale(c, weight), bias=_scale(c, bias),
    )  # fmt: skip


@takes("rms_norm")
def _rms_norm(
    c: Conversion, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Value:
    dtype = weight.tensor.dtype if isinstance(weight, Const) else torch.float32
    return c.emit(
        LayerNorm, to_tensor(c, input), dims=len(tuple(normalized_shape)), rms=True,
        eps=float(torch.finfo(dtype).eps if eps is None else eps), weight=_scale(c, weight),
    )  # fmt: skip
