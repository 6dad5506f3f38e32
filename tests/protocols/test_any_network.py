"""Networks that are no chain of layers go the whole way on a bench: distilled, programmed once,
adapted, and run through the array.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compensated import accuracies, adapt, infer, run

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from rram_hil import learning, read_run  # noqa: E402
from rram_hil.networks.network import Network  # noqa: E402

pytestmark = pytest.mark.long


class MobileBlock(nn.Module):
    """A widened, depthwise convolved, narrowed path beside the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU6())
        self.inverted = nn.Sequential(
            nn.Conv2d(12, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 12, 1, bias=False), nn.BatchNorm2d(12),
        )  # fmt: skip
        self.head = nn.Linear(12 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.inverted(x)
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


class RowByRow(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 24, batch_first=True)
        self.out = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(x.squeeze(1))
        return self.out(hidden[-1])


class Rows(nn.Module):
    """A transformer encoder over the rows of an image, with a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.pos = nn.Parameter(0.02 * torch.randn(8, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.encoder(self.embed(x.squeeze(1)) + self.pos).mean(1))


@pytest.mark.parametrize(
    ("build", "digital", "least"),
    [(MobileBlock, (), 0.9), (RowByRow, (), 0.85), (Rows, ("pos",), 0.8)],
)
def test_networks_of_every_kind_are_recovered_by_words(
    tmp_path: Path, build: Callable[[], nn.Module], digital: tuple[str, ...], least: float
) -> None:
    torch.manual_seed(0)
    data, test = learning.digits(seed=0)
    teacher = learning.train_teacher(
        build(), data, epochs=20, batch=64, learning_rate=1e-2, augmentation=None, seed=1
    )
    student = learning.distil(
        teacher,
        learning.TracedModule(teacher, allow_digital=digital),
        data,
        learning.DeviceNoise(),
        epochs=10,
        batch=64,
        learning_rate=5e-3,
        augmentation=None,
        seed=1,
    )
    network = Network.from_torch(student, allow_digital=digital)
    network.save(tmp_path / "net.safetensors")
    for name, part in (("train", data), ("test", test)):
        np.savez(tmp_path / f"{name}.npz", images=part.images, labels=part.labels)
    _, path = run(
        tmp_path, infer("before") + adapt("adapt", fraction=0.1) + infer("after"), tiles=2
    )
    before, after = accuracies(path, "before", "after")
    assert before < after
    assert after > least
    with read_run(path) as file:
        vectors = file.result("after", "weight_vectors")
        assert vectors.values.min() > 0
        assert len(vectors.values) == len(network.matrices)
