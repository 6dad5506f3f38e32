"""What compensation keeps in digital memory, counted the same way everywhere.

A limit in per cent is words plus trained digital parameters (biases and the like) over the weights
of the network. Bits are the words' own and what says where they sit, and where the mapping put
inputs and outputs elsewhere than in a row. The share of multiply-accumulates is what the words do
beside the array: a word of a convolution works at every place of its images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from rram_hil.networks.mapping import LayerWords
from rram_hil.networks.network import Float32, Linear, Network, Weighted, product, run
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
    uses = multiplies(network, np.zeros((1, *image_shape), dtype=np.float32))
    count = {name: words[name].values.size if name in words else 0 for name in sizes}
    digital = sum(w.digital for w in words.values())
    index = 0
    for name, size in sizes.items():
        if count[name] and not seeded and count[name] < size:
            index += min(size, count[name] * math.ceil(math.log2(size)))
    taken = sum(count[name] * uses[name] for name in sizes)
    whole = sum(size * uses[name] for name, size in sizes.items())
    total, weights = sum(count.values()), sum(sizes.values())
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
    uses = dict.fromkeys(network.matrices, 0)

    def multiply(layer: Weighted, values: Float32) -> Float32:
        made = product(layer, network.weights[layer.weight_name], values)
        vectors = len(made) if isinstance(layer, Linear) else math.prod(made.shape[2:])
        uses[layer.weight_name] += vectors
        return made

    run(network, image, multiply)
    return uses
