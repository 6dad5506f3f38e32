"""Small networks for 8 x 8 digits, one for each way in which a module can hold, hide or share its
layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class Residual(nn.Sequential):
    """A subclass of Sequential that does not do what one does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Blocks(nn.Module):
    """A ModuleList and a ModuleDict, walked by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(64, 16), nn.Linear(16, 16)])
        self.ends = nn.ModuleDict({"a": nn.Linear(16, 10), "b": nn.Linear(16, 10)})

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for step in self.steps:
            x = torch.relu(step(x))
        return self.ends["b"](x) + self.ends["a"](x)


class Own(nn.Module):
    """Weights that belong to no layer of torch, one of them stored transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, 64) / 8)
        self.v = nn.Parameter(torch.randn(16, 10) / 4)
        self.shift = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(functional.linear(x.reshape(x.shape[0], 64), self.w))
        return hidden @ self.v + self.shift


class Shared(nn.Module):
    """One layer and one activation that are used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x.flatten(1)))
        x = self.relu(self.middle(x))
        return self.last(self.relu(self.middle(x)))


class Recurrent(nn.Module):
    """A recurrent network over the rows of an image."""

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network, self.out = network, nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.network(x.squeeze(1))
        return self.out(outputs.mean(1))


class Encoder(nn.Module):
    """A transformer layer over the rows of an image."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout, batch_first=True)
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x.squeeze(1)).mean(1))


class Convolutions(nn.Module):
    """Depthwise, dilated and padded by reflection, with batch norms, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.depthwise = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
        self.wide = nn.Conv2d(6, 4, 3, dilation=2, padding=2, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(10, momentum=None)
        self.out = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(self.stem(x)))
        x = self.norm(torch.cat((x, self.wide(x)), 1))
        return self.out(functional.adaptive_avg_pool2d(functional.silu(x), 1).flatten(1))


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2),
        nn.Conv1d(1, 6, 5, stride=2, padding=2, dilation=2),
        nn.ReLU(),
        nn.Conv1d(6, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 28, 10),
    )


def nested() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(6, 8, 3), nn.Dropout(0.0))),
        nn.Flatten(),
        nn.Sequential(nn.Linear(8, 10)),
    )


def residual() -> nn.Module:
    inside = Residual(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    return nn.Sequential(nn.Flatten(), inside, nn.Linear(64, 10))


def computed() -> nn.Module:
    """A weight that is computed from two parameters."""
    return nn.Sequential(
        nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10)
    )


ZOO: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "nested": (nested, 3),
    "residual": (residual, 3),
    "blocks": (Blocks, 4),
    "own": (Own, 2),
    "shared": (Shared, 3),
    "conv1d": (conv1d, 3),
    "convolutions": (Convolutions, 4),
    "lstm": (lambda: Recurrent(nn.LSTM(8, 6, 2, batch_first=True), 6), 5),
    "gru": (lambda: Recurrent(nn.GRU(8, 6, batch_first=True, bidirectional=True), 12), 5),
    "encoder": (Encoder, 5),
}
"""Each with how many weights go to the array."""


def make(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ZOO[name][0]()
