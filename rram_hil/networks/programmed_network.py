"""A network on the array, as the steps of a run hand it on to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import ConfigError
from rram_hil.networks.inference import Encoding
from rram_hil.networks.mapping import LayerWords, Mapping
from rram_hil.networks.network import Network
from rram_hil.types import FloatArray


@dataclass
class Programmed:
    """A network (or a bare map of targets) on the array, shared between the steps of a run under
    its tag.

    `responsive` (shape `geometry.shape`) marks the cells that no forming of this run found stuck;
    `windows_s` are lowest and highest conductances (S, same shape) where targets came with them.
    Later steps fill in what they learn: the map read last (S), the encoding of inputs, the on-chip
    words, and of these what was trained on the map, where a look through the array has changed
    biases since.
    """

    mapping: Mapping
    responsive: NDArray[np.bool_]
    network: Network | None = None
    windows_s: tuple[FloatArray, FloatArray] | None = None
    map_s: FloatArray | None = None
    encoding: Encoding | None = None
    words: dict[str, LayerWords] | None = None
    trained: dict[str, LayerWords] | None = None

    def topology(self) -> Network:
        """The network with its layers. Raises `ConfigError` where the file held weights alone."""
        if self.network is None:
            raise ConfigError(
                "the weights were given without layers; save them with `Network.save`"
            )
        return self.network
