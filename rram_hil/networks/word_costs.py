"""What compensation keeps in digital memory, counted the same way everywhere.

A limit in per cent is words plus trained digital parameters (biases and the like) over the weights
of the network; the values of adapters are words, too. Bits are the words' own and what says where
they sit, and where the mapping put inputs and outputs elsewhere than in a row. The share of
multiply-accumulates is what the words do beside the array: a word of a convolution works at every
place of its images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from rram_hil.networks.mapping import LayerWords
from rram_hil.networks.network import Float32, Network, Weighted, product, run
from rram_hil.units import Unit


@dataclass(frozen=True)
class WordCosts:
    """Words, digital parameters that were trained with them, and their fraction of all weights;
    bits of both with the words' places and the mapping's order; share of the multiply-accumulates
    that the words take.
    """

    words: int
    digital: int
    fraction: float
    bits: Annotated[int, Unit("bit")]
    mac_share: float


def word_costs(
    network: Network,
    words: Table[str, LayerWords],
    image_shape: tuple[int, ...],
    bits: int,
    *,
    seeded: bool,
    order_bits: int = 0,
) -> WordCosts:
    """Count the words of a network of which one image has `image_shape`. `seeded`: their places
    follow from a seed and take no bits; nor do those of a layer that has a word for every weight.
    `order_bits` are the mapping's.
    """
    sizes = {name: math.prod(shape) for name, shape in network.matrices.items()}
    image = np.zeros((1, *image_shape), dtype=np.float32)
    uses, thin = multiplies(network, image), adapter_multiplies(network, image)
    count = {name: words[name].values.size if name in words else 0 for name in sizes}
    adapters = {name: own.adapter for name, own in words.items() if own.adapter is not None}
    digital = sum(w.digital for w in words.values())
    index = 0
    for name, size in sizes.items():
        if count[name] and not seeded and count[name] < size:
            index += min(size, count[name] * math.ceil(math.log2(size)))
    taken = sum(count[name] * uses[name] for name in sizes)
    taken += sum(own.rank * thin[name] for name, own in adapters.items())
    whole = sum(size * uses[name] for name, size in sizes.items())
    total, weights = sum(own.count for own in words.values()), sum(sizes.values())
    return WordCosts(
        total,
        digital,
        (total + digital) / weights,
        (total + digital) * bits + index + order_bits,
        taken / whole,
    )


def multiplies(network: Network, image: ArrayLike) -> dict[str, int]:
    """How often one image uses each weight of a layer: once for every vector, at every place of a
    convolution, and in every layer that shares it.
    """
    made = _made(network, image)
    return {name: -(-made[name][1] // shape[0]) for name, shape in network.matrices.items()}


def adapter_multiplies(network: Network, image: ArrayLike) -> dict[str, int]:
    """The multiply-accumulates that an adapter of rank 1 would take of one image, by layer: inputs
    and outputs of the layer's matrix for each of its uses. Of a grouped convolution every group's
    inputs go through the adapter.
    """
    made = _made(network, image)
    return {
        name: math.prod(shape[1:]) * made[name][0] + made[name][1]
        for name, shape in network.matrices.items()
    }


def _made(network: Network, image: ArrayLike) -> dict[str, tuple[int, int]]:
    """The vectors that go into each layer's weight, group by group, and the outputs they make."""
    made = dict.fromkeys(network.matrices, (0, 0))

    def multiply(layer: Weighted, values: Float32) -> Float32:
        given = product(layer, network.weights[layer.weight_name], values)
        vectors, outputs = made[layer.weight_name]
        vectors += layer.groups * given.size // given.shape[1]
        made[layer.weight_name] = vectors, outputs + given.size
        return given

    run(network, image, multiply)
    return made
