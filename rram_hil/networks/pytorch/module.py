"""Any network as a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rram_hil.networks.layers import BatchNorm, Weighted
from rram_hil.networks.network import Network
from rram_hil.networks.pytorch.operations import product, walk


class TorchNetwork(nn.Module):
    """A network as a torch module, made in evaluation mode.

    Its weights, biases and digital tensors are parameters below `tensors`, under their names in the
    network; running statistics and tensors of whole numbers are buffers.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        self.tensors = nn.Module()
        statistics = {
            layer.tensor(what)
            for layer in network.layers
            if isinstance(layer, BatchNorm)
            for what in ("running_mean", "running_var", "num_batches_tracked")
        }
        owners = {"": self.tensors}
        for name, values in tensors_of(network).items():
            tensor = torch.from_numpy(np.array(values))
            path, _, last = name.rpartition(".")
            owner = _owner(owners, path)
            if tensor.is_floating_point() and name not in statistics:
                owner.register_parameter(last, nn.Parameter(tensor))
            else:
                owner.register_buffer(last, tensor)
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """What the network gives, in the structure of its `result`."""
        tensors = self.named_tensors()

        def multiply(layer: Weighted, activity: Tensor) -> Tensor:
            name = layer.weight_name
            bias = tensors.get(f"{name}.bias") if layer.biased else None
            return product(layer, activity, tensors[f"{name}.weight"], bias)

        return walk(self._network, tensors, inputs, multiply, training=self.training)

    def named_tensors(self) -> dict[str, Tensor]:
        """All tensors as they are now, by their names in the network."""
        return {**dict(self.tensors.named_parameters()), **dict(self.tensors.named_buffers())}

    def network(self) -> Network:
        """The network with its tensors as they are now."""
        now = {name: _array(tensor) for name, tensor in self.named_tensors().items()}
        network = self._network
        return replace(
            network,
            weights={name: now[f"{name}.weight"] for name in network.weights},
            biases={name: now[f"{name}.bias"] for name in network.biases},
            tensors={name: now[name] for name in network.tensors},
        )


def tensors_of(network: Network) -> Mapping[str, NDArray[Any]]:
    """All tensors of a network by name: `<weight's name>.weight`, `<weight's name>.bias`, and the
    digital ones.
    """
    return {
        **{f"{name}.weight": weight for name, weight in network.weights.items()},
        **{f"{name}.bias": bias for name, bias in network.biases.items()},
        **network.tensors,
    }


def _owner(owners: dict[str, nn.Module], path: str) -> nn.Module:
    """The module at a dotted path, made with those above it where it is not there yet."""
    if path not in owners:
        above, _, last = path.rpartition(".")
        owners[path] = nn.Module()
        # `add_module` would refuse the name of one of a module's methods, which a layer may have.
        setattr(_owner(owners, above), last, owners[path])
    return owners[path]


def _array(tensor: Tensor) -> NDArray[Any]:
    kept = tensor.detach().cpu()
    return (kept.float() if kept.is_floating_point() else kept).numpy().copy()
