"""Write network.safetensors, the network of recipe-gradient.toml: one layer of 24 inputs and 12
outputs with random weights.
"""

from pathlib import Path

import numpy as np

from rram_hil.networks.layers import Linear
from rram_hil.networks.network import Network

OUTPUTS, INPUTS = 12, 24
weights = np.random.default_rng(1).normal(size=(OUTPUTS, INPUTS)).astype(np.float32)
layer = Linear(name="layer", inputs=INPUTS, outputs=OUTPUTS)
Network((layer,), {"layer": weights}).save(Path(__file__).with_name("network.safetensors"))
