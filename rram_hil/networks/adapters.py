"""Low-rank adapters: two thin matrices of digital values beside a layer that stays on the array as
it is. What they make of the layer's input is added to what the array gives.

Li et al., arXiv 2411.17367 (AHWA-LoRA), and Wu et al., arXiv 2502.19747 (HaLoRA), keep them in
digital memory beside analog arrays, as `LayerWords` keeps words, biases and scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rram_hil.networks.network import Float32

LEAST_BITS = 3
"""Of an adapter's values: its training begins at half of their full scale, which rounds to zero
with fewer, and two matrices of zeros have no gradient.
"""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What is added to a layer's (out, in) matrix: B A, in weight units.

    A, shape (rank, inputs), is `inward` x `inward_step`; B, shape (outputs, rank), is `outward` x
    `outward_step`. Of a convolution A has the layer's kernel and B is 1 x 1; of a grouped one every
    group of inputs goes through the same A.
    """

    inward: NDArray[np.int32]
    inward_step: float
    outward: NDArray[np.int32]
    outward_step: float

    @property
    def rank(self) -> int:
        """Values between A and B, for each vector."""
        return len(self.inward)

    @property
    def size(self) -> int:
        """How many values it has."""
        return self.inward.size + self.outward.size

    @property
    def matrix(self) -> Float32:
        """B A, shape (out, in), in weight units."""
        inward = (self.inward * self.inward_step).astype(np.float32)
        outward = (self.outward * self.outward_step).astype(np.float32)
        made: Float32 = outward @ inward
        return made
