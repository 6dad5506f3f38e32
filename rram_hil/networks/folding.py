"""Batch norms folded into the products right before them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from rram_hil.networks.evaluation import uses
from rram_hil.networks.layers import (
    INPUT,
    AvgPool2d,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dropout,
    Elementwise,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
    products_of,
)
from rram_hil.networks.network import Network, assembled, names_in


def folded(network: Network) -> Network:
    """The same network with each batch norm right after a product in its weights and biases, where
    nothing else takes the product or the weight.
    """
    takers = Counter(names_in(network.result))
    for step in network.schedule:
        takers.update((*step.of, *uses(step.layer)[len(step.layer.of) :]))
    users = Counter(own.weight_name for layer in network.layers for own in products_of(layer))
    by_name = {layer.name: layer for layer in network.layers}
    ranks = _ranks(network)
    weights, biases = dict(network.weights), dict(network.biases)
    instead: dict[str, str] = {}
    for step in network.schedule:
        layer, taken = step.layer, by_name.get(step.of[0])
        if not isinstance(layer, BatchNorm):
            continue
        if not isinstance(taken, Linear | Conv1d | Conv2d) or taken.digital:
            continue
        name, is_alone = taken.weight_name, takers[taken.name] == 1
        # Of more dimensions, a linear layer makes the last one, and a norm works on the second.
        apart = isinstance(taken, Linear) and (taken.rows is not None or ranks[taken.name] != 2)
        if not is_alone or users[name] > 1 or apart or not taken.biased:
            continue
        weights[name], biases[name] = _with_norm(network, layer, weights[name], biases.get(name))
        instead[layer.name] = taken.name
    return _without(network, instead, weights, biases)


def _ranks(network: Network) -> dict[str, int | None]:
    """How many dimensions each value has, where its layer says it."""
    ranks: dict[str, int | None] = {}
    for step in network.schedule:
        layer = step.layer
        match layer:
            case Flatten() if (layer.start, layer.end) == (1, -1):
                rank: int | None = 2
            case Conv2d() | MaxPool2d() | AvgPool2d():
                rank = 4
            case Conv1d():
                rank = 3
            case Linear() | BatchNorm() | ReLU() | Tanh() | Elementwise() | Dropout():
                rank = ranks.get(step.of[0])
            case _:
                rank = None
        ranks[layer.name] = rank
    return ranks


def _with_norm(network: Network, norm: BatchNorm, weight: Any, bias: Any) -> tuple[Any, Any]:
    def tensor(what: str) -> Any:
        return network.tensors[norm.tensor(what)].astype(np.float64)

    gain = 1 / np.sqrt(tensor("running_var") + norm.eps)
    shift: Any = 0.0
    if norm.affine:
        gain, shift = gain * tensor("weight"), tensor("bias")
    scaled = weight.astype(np.float64) * gain.reshape(-1, *([1] * (weight.ndim - 1)))
    held = 0.0 if bias is None else bias.astype(np.float64)
    return scaled, (held - tensor("running_mean")) * gain + shift


def _without(
    network: Network, instead: dict[str, str], weights: dict[str, Any], biases: dict[str, Any]
) -> Network:
    """The network with some layers left out and others taken in their place."""
    layers: list[Layer] = []
    last = INPUT
    for step in network.schedule:
        if step.layer.name not in instead:
            taken = tuple(instead.get(name, name) for name in step.of)
            of = () if taken == (last,) else taken
            layers.append(step.layer.model_copy(update={"of": of}))
            last = step.layer.name
    norms = [layer for layer in network.layers if isinstance(layer, BatchNorm)]
    gone = {norm.prefix for norm in norms if norm.name in instead}
    gone -= {norm.prefix for norm in norms if norm.name not in instead}
    tensors = {n: t for n, t in network.tensors.items() if n.rpartition(".")[0] not in gone}
    names = {name: instead.get(name, name) for name in names_in(network.result)}
    result = assembled(network.result, names)
    return Network(tuple(layers), weights, biases, tensors, network.inputs, result)
