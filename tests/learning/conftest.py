"""Digits, a teacher and a student trained once for all tests of the learning package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rram_hil.learning import DeviceNoise, LabelledImages, digits, digits_net, distil, train_teacher


@pytest.fixture(scope="session")
def data() -> tuple[LabelledImages, LabelledImages]:
    return digits(seed=0)


@pytest.fixture(scope="session")
def noise() -> DeviceNoise:
    return DeviceNoise()


@pytest.fixture(scope="session")
def teacher(data: tuple[LabelledImages, LabelledImages]) -> torch.nn.Sequential:
    return train_teacher(
        digits_net(seed=0), data[0], epochs=12, batch=64, learning_rate=1e-2, augmentation=None
    )


@pytest.fixture(scope="session")
def student(
    teacher: torch.nn.Sequential, data: tuple[LabelledImages, LabelledImages], noise: DeviceNoise
) -> torch.nn.Sequential:
    return distil(
        teacher, teacher, data[0], noise, epochs=12, batch=64, learning_rate=1e-2, augmentation=None
    )


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    repository = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("RRAM_HIL_MNIST", repository.parent / "shared" / "data" / "mnist"))
    if not folder.is_dir():
        pytest.skip(
            f"MNIST is not at {folder}: set RRAM_HIL_MNIST to the folder of its four IDX files"
        )
    return folder
