"""Networks of the kinds that people put on arrays, small: each with a batch of its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ResNetBlock(nn.Module):
    """Two convolutions and a path around them, added in place."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """ResNet-18's topology at a width of `width`."""

    def __init__(self, width: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage in range(4):
            outputs = width << stage
            blocks = [
                ResNetBlock(inputs, outputs, 2 if stage else 1),
                ResNetBlock(outputs, outputs, 1),
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: wider, depthwise, narrower, around which its input goes."""

    def __init__(self, channels: int = 4, expansion: int = 3) -> None:
        super().__init__()
        hidden = channels * expansion
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def vgg() -> nn.Module:
    """A VGG with batch norms, the last after a linear layer."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (4, "M", 6, 6, "M"):
        if isinstance(outputs, str):
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        inputs = outputs
    head = [nn.Linear(24, 10), nn.BatchNorm1d(10), nn.ReLU(True), nn.Dropout(), nn.Linear(10, 5)]
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)


class LSTMClassifier(nn.Module):
    """An LSTM whose first states are zeros of the batch's size, and a head on its last output."""

    def __init__(self, *, batch_first: bool, layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, layers, batch_first=batch_first, bidirectional=bidirectional)
        self.states = layers * (2 if bidirectional else 1)
        self.fc = nn.Linear(8 if bidirectional else 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.lstm.batch_first:
            x = x.transpose(0, 1)
        n = x.size(0) if self.lstm.batch_first else x.size(1)
        states = torch.zeros(self.states, n, 4).to(x.device), x.new_zeros(self.states, n, 4)
        out, _ = self.lstm(x, states)
        return self.fc(out[:, -1] if self.lstm.batch_first else out[-1])


class GRUClassifier(nn.Module):
    """Two layers of a GRU, and a head on its last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 4, 2, batch_first=True, dropout=0.5)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, hidden = self.gru(x)
        return self.fc(hidden[-1])


class Encoder(nn.Module):
    """A transformer encoder with a class token and positions."""

    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            8, 2, 12, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer("positions", torch.randn(7, 8))
        self.encoder = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False
        )
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.encoder(x + self.positions[: x.shape[1]])
        return self.fc(x[:, 0])


class CausalAttention(nn.Module):
    """Attention as it is written by hand, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.attn(x).split(8, dim=2)
        q, k, v = (part.view(b, t, 2, c // 2).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * k.size(-1) ** -0.5
        scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = torch.softmax(scores, dim=-1) @ v
        return self.proj(y.transpose(1, 2).contiguous().view(b, t, c)).mean(1)


class CrossAttention(nn.Module):
    """Queries of one input, keys and values of another."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True)
        self.same = nn.MultiheadAttention(8, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        seen, weights = self.attention(x, y[..., :6], y[..., 6:])
        turned = seen.transpose(0, 1)
        return self.same(turned, x.transpose(0, 1), turned, need_weights=False)[0], weights


class Dense(nn.Module):
    """Concatenation as in DenseNet, and of branches as in Inception."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(3 + 2 * k), nn.ReLU(), nn.Conv2d(3 + 2 * k, 2, 3, padding=1)
            )
            for k in range(3)
        )
        self.branches = nn.ModuleDict(
            {
                "1x1": nn.Conv2d(9, 2, 1),
                "3x3": nn.Conv2d(9, 2, 3, padding="same", dilation=2),
                "pool": nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(9, 2, 1)),
            }
        )

    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        features = [x] if isinstance(x, Tensor) else x
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        joined = torch.cat(features, 1)
        return torch.cat([branch(joined) for branch in self.branches.values()], 1).mean((2, 3))


def convolutions() -> nn.Module:
    """Dilation, strides, padding modes, groups, and norms that stay digital."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=2, dilation=2, padding_mode="reflect"),
        nn.GroupNorm(3, 6),
        nn.SiLU(),
        nn.Conv2d(6, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=3, padding_mode="circular"),
        nn.InstanceNorm2d(6, affine=True),
        nn.PReLU(6),
        nn.ReflectionPad2d(1),
        nn.Conv2d(6, 8, 3, padding=1, padding_mode="replicate"),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.AdaptiveMaxPool2d((3, 2)),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


def sound() -> nn.Module:
    """One-dimensional convolutions, one of them depthwise."""
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, stride=2, padding=2),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Conv1d(6, 6, 3, padding="same", groups=6, bias=False),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 4, 3, padding=1, padding_mode="circular"),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


Shapes = tuple[tuple[int, ...], ...]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shapes]] = {
    "resnet18": (ResNet18, ((4, 3, 32, 32),)),
    "mobilenet block": (InvertedResidual, ((4, 4, 6, 6),)),
    "vgg": (vgg, ((4, 3, 12, 12),)),
    "lstm": (lambda: LSTMClassifier(batch_first=True), ((4, 6, 5),)),
    "lstm, time first, bidirectional": (
        lambda: LSTMClassifier(batch_first=False, layers=2, bidirectional=True),
        ((4, 5, 5),),
    ),
    "gru": (GRUClassifier, ((4, 6, 5),)),
    "encoder": (lambda: Encoder(norm_first=False), ((4, 5, 8),)),
    "encoder, norm first": (lambda: Encoder(norm_first=True), ((4, 5, 8),)),
    "causal attention": (CausalAttention, ((4, 6, 8),)),
    "cross attention": (CrossAttention, ((4, 3, 8), (4, 5, 11))),
    "transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 12, batch_first=True),
        ((4, 3, 8), (4, 5, 8)),
    ),
    "dense": (Dense, ((4, 3, 7, 7),)),
    "convolutions": (convolutions, ((4, 3, 9, 8),)),
    "sound": (sound, ((4, 2, 24),)),
}
"""Each with the shapes of a batch of its inputs."""


def made(name: str) -> tuple[nn.Module, list[Tensor]]:
    """A network in evaluation mode, its norms having seen other statistics than they begin with,
    and inputs for it.
    """
    build, shapes = NETWORKS[name]
    torch.manual_seed(sum(name.encode()))
    module = build().eval()
    for tensor_name, tensor in (*module.named_parameters(), *module.named_buffers()):
        kind = tensor_name.rpartition(".")[2]
        if kind == "running_var":
            tensor.uniform_(0.5, 1.5)
        elif kind == "running_mean" or (kind == "bias" and tensor.ndim == 1):
            nn.init.normal_(tensor, std=0.2)
    return module, [torch.randn(shape) for shape in shapes]
