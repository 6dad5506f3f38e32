"""A mapping whose inputs and outputs are anywhere on their blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rram_hil.networks.fault_mapping import Order
from rram_hil.networks.mapping import Mapping


def shuffled(mapping: Mapping, seed: int) -> Mapping:
    """The same weights in the same blocks by chance on rows and pairs, half of the pairs swapped;
    `mapping` is as it comes.
    """
    rng = np.random.default_rng(seed)
    target = mapping.target_map_s.copy()
    layers = []
    for layer in mapping.layers:
        blocks = []
        for block in layer.blocks:
            signs = rng.choice(np.array([-1, 1], dtype=np.int8), block.outputs)
            order = Order(rng.permutation(block.inputs), rng.permutation(block.outputs), signs)
            cells = mapping.target_map_s[block.place]
            plus, minus = cells[:, 0::2], cells[:, 1::2]
            target[block.place][:, 0::2] = order.placed(np.where(signs > 0, plus, minus))
            target[block.place][:, 1::2] = order.placed(np.where(signs > 0, minus, plus))
            blocks.append(replace(block, order=order))
        layers.append(replace(layer, blocks=tuple(blocks)))
    return Mapping(mapping.geometry, tuple(layers), target, mapping.stuck_map)
