"""Whether a traced network gives what torch gives, on some real inputs: what a trace cannot see is
found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rram_hil.array import drive
from rram_hil.errors import BenchError, ConfigError, DataError, first_line
from rram_hil.networks.network import Network, product, propagate
from rram_hil.networks.pytorch.recording import SEE, Call, unfused, untouched

_IMAGES = 4
_TOLERANCES = {torch.float16: 0.05, torch.bfloat16: 0.3}
_TOLERANCE = 1e-3
"""Largest difference to torch, as a fraction of the largest value."""
_FLIPPED = 0.01
"""Fraction of the values that may be further off: a comparison may go the other way by rounding."""


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor as a network takes it. Raises `DataError` for complex numbers."""
    values = tensor.detach().cpu()
    if values.is_complex():
        raise DataError("input: complex numbers cannot enter an array")
    return np.asarray(values.numpy() if values.dtype == torch.bool else values.float().numpy())


def verify(module: nn.Module, network: Network, call: Call, inputs: Sequence[Tensor]) -> None:
    """Compare `network` with the call of `module` that it was traced from, on a few images of
    `inputs`. The module and the random state stay as they are. Raises `ConfigError` where the two
    differ.
    """
    before = torch.random.get_rng_state()
    try:
        with torch.no_grad(), untouched(module), unfused():
            few, wanted = _answered(module, call, inputs)
    finally:
        torch.random.set_rng_state(before)
    made = drive(
        propagate(network, *(array_of(x) for x in few)),
        lambda asked: product(asked[0], network.weights[asked[0].weight_name], asked[1]),
    )
    for one, other in zip(_leaves(wanted), _leaves(made), strict=False):
        difference = _difference(one, np.asarray(other))
        if difference:
            raise ConfigError(
                f"{type(module).__name__}: torch gives other numbers than the traced network"
                f" ({difference}): the forward pass goes by what a trace cannot see, such as the"
                f" type of a tensor or an earlier call; {SEE}"
            )


def _answered(module: nn.Module, call: Call, inputs: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
    """Some of the inputs, and what torch makes of them: all of them where some do not do."""
    whole = [x.detach().clone() for x in inputs]
    sizes = {len(x) if x.ndim else 0 for x in whole}
    if len(sizes) == 1 and min(sizes) > _IMAGES:
        few = [x[:_IMAGES].clone() for x in whole]
        try:
            return few, _call(module, call, few)
        except DataError:  # such as for a mask, whose first dimension is not that of images
            return whole, _call(module, call, whole)
    return whole, _call(module, call, whole)


def _call(module: nn.Module, call: Call, inputs: Sequence[Tensor]) -> Any:
    args, kwargs = call.filled([x.clone() for x in inputs])
    try:
        return module(*args, **kwargs)
    except BenchError:
        raise
    except Exception as error:
        first = first_line(str(error)) or type(error).__name__
        raise DataError(f"{type(module).__name__}: does not take these inputs: {first}") from error


def _leaves(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        return [leaf for part in values for leaf in _leaves(part)]
    return [] if values is None else [values]


def _difference(wanted: Any, made: NDArray[Any]) -> str:
    """How the two differ, in words; nothing where they are alike."""
    if not isinstance(wanted, Tensor):
        return ""
    tolerance = _TOLERANCES.get(wanted.dtype, _TOLERANCE)
    expected = wanted.detach().cpu().double().numpy()
    if expected.shape != made.shape:
        return f"of shape {expected.shape}, not {made.shape}"
    finite = np.isfinite(expected)
    scale = float(np.abs(expected[finite]).max(initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(made.astype(np.float64) - expected)
    off = ~(apart <= tolerance * scale) & (made != expected)
    off &= ~(np.isnan(expected) & np.isnan(made.astype(np.float64)))
    if float(off.mean() if off.size else 0.0) <= _FLIPPED:
        return ""
    return f"{int(off.sum())} of {off.size} values, by up to {float(apart[off].max()):.3g}"
