"""Recalibrating the norms of a programmed network: biases and scales that give every output the
mean and the spread which it has in floating point. Nothing is trained.

Joshi et al., Nature Communications 11 (2020), doi 10.1038/s41467-020-16108-9, measure the
statistics of batch norms anew on the programmed chip. Here batch norms are part of the weights
before them, so a digital scale and bias of each output do the same, in any network. The spread is
the standard deviation or, as in the batch norms of Hoffer et al., NeurIPS 2018, arXiv 1803.01814,
the mean of all or of the largest absolute deviations. Their constants, which make normal numbers
have the spread 1, cancel in the ratio of two spreads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.mapping import SCALE_RANGE, LayerWords
from rram_hil.networks.network import Float32, Linear, Network, Weighted, product, run
from rram_hil.types import FloatArray

Spread = Literal["l2", "l1", "topk"]
"""How far the values of an output lie from their mean: "l2" is the standard deviation, "l1" the
mean of the absolute deviations, "topk" the mean of the largest of these.
"""
_CONSTANT = 1e-5
"""An output whose spread is so small a part of its largest value is constant but for rounding."""


def moments(values: NDArray[np.floating], spread: Spread, largest: float = 0.1) -> FloatArray:
    """Mean and spread, shape (2, outputs), of `values` (outputs, samples). "topk" takes the share
    `largest` of the samples, at least one. A spread is 0 where all values are the same.
    """
    mean = values.mean(axis=1, keepdims=True, dtype=np.float64)
    deviations = np.abs(values - mean.astype(values.dtype))
    constant = _CONSTANT * np.abs(values).max(axis=1)
    if spread == "l2":
        found = np.sqrt(np.square(deviations, out=deviations).mean(axis=1, dtype=np.float64))
    else:
        if spread == "topk":
            count = max(1, round(largest * deviations.shape[1]))
            deviations.partition(deviations.shape[1] - count, axis=1)
            deviations = deviations[:, -count:]
        found = deviations.mean(axis=1, dtype=np.float64)
    return np.stack([mean[:, 0], np.where(found > constant, found, 0.0)])


def recalibrate(
    network: Network,
    images: ArrayLike,
    multiply: Callable[[Weighted, Float32], Float32],
    *,
    aim: Mapping[str, Float32] | None = None,
    spread: Spread = "l2",
    largest: float = 0.1,
    bits: int = 8,
) -> dict[str, LayerWords]:
    """Biases and scales of `bits` by the weight's name, with no words, for a network whose products
    `multiply(layer, input)` really makes: without bias, shapes as `propagate` asks for.

    They give each output over `images` the mean and spread (see `moments`) that it has in floating
    point with the weights `aim` (by default the network's own), layer after layer, each measured
    with those before it corrected. A scale lies within
    `SCALE_RANGE` of 1, and is 1 where an output is constant; a layer without biases is only scaled.
    Raises `ConfigError` for a weight that is used twice for an image, as those of a recurrent or
    shared layer are: one correction cannot suit uses that differ; `DataError` for fewer than two
    images, which have no spread.
    """
    if len(np.asarray(images)) < 2:
        raise DataError("norms: fewer than two images have no spread")
    weights = network.weights if aim is None else aim
    top = 2 ** (bits - 1) - 1
    step = SCALE_RANGE / top
    wanted = {n: np.full((2, layer.outputs), np.nan) for n, layer in network.products.items()}
    scale_values = {n: np.zeros(own.shape[1], dtype=np.int32) for n, own in wanted.items()}
    biases = {n: bias.astype(np.float64) for n, bias in network.biases.items()}

    def ideal(layer: Weighted, values: Float32) -> Float32:
        name = layer.weight_name
        made = product(layer, weights[name], values)
        own = wanted[name][:, _taken(layer)]
        if np.isfinite(own).any():
            raise ConfigError(
                f"layer {layer.name}: its weight {name} is used more than once for an image; norms"
                " can only be recalibrated where each is used once (no recurrent or shared layer)"
            )
        own[:] = moments(_by_output(layer, made), spread, largest)
        return made

    def real(layer: Weighted, values: Float32) -> Float32:
        name, taken = layer.weight_name, _taken(layer)
        made = multiply(layer, values)
        mean, width = moments(_by_output(layer, made), spread, largest)
        wanted_mean, wanted_width = wanted[name][:, taken]
        varies = (width > 0) & (wanted_width > 0)
        ratio = np.divide(wanted_width, width, out=np.ones_like(width), where=varies)
        steps = np.rint((ratio - 1) / step).clip(-top, top)
        scales = 1 + steps * step
        scale_values[name][taken] = steps
        shifts = np.zeros_like(scales)
        if layer.biased and name in biases:
            shifts = biases[name][taken] + wanted_mean - scales * mean
            biases[name][taken] = shifts
        places = (-1, *[1] * (made.ndim - 2))
        gain, shift = (x.astype(np.float32).reshape(places) for x in (scales, shifts))
        return np.asarray(made * gain + shift)

    run(network, images, ideal)
    run(replace(network, biases={}), images, real)  # the shifts hold the biases
    none = np.zeros(0, dtype=np.int64)
    found = {}
    for name in wanted:
        bias = biases.get(name, np.zeros(0))
        bias_step = (float(np.abs(bias).max(initial=0.0)) or 1.0) / top
        bias_values = np.rint(bias / bias_step).astype(np.int32)
        found[name] = LayerWords(
            none, none.astype(np.int32), 0.0, bias_values, bias_step, scale_values[name], step
        )
    return found


def _taken(layer: Weighted) -> slice:
    """Which outputs of its weight a layer makes."""
    return layer.taken if isinstance(layer, Linear) else slice(None)


def _by_output(layer: Weighted, made: Float32) -> Float32:
    """A layer's outputs as (outputs, samples)."""
    if isinstance(layer, Linear):
        return made.T
    return np.moveaxis(made, 1, 0).reshape(layer.outputs, -1)
