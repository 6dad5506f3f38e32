"""The models of studies: networks, their images, how they are trained, and the chip that holds
them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import ConfigError
from rram_hil.studies.training import Changes, Training

if TYPE_CHECKING:
    from torch import nn

    from rram_hil.learning import LabelledImages


def _digits_net(seed: int) -> nn.Module:
    from rram_hil.learning import digits_net

    return digits_net(seed)


def _lenet5(seed: int) -> nn.Module:
    from rram_hil.learning import lenet5

    return lenet5(seed)


def _small_vgg(seed: int) -> nn.Module:
    from rram_hil.learning import vgg

    return vgg(seed, width=16, blocks=(2, 2, 2), units=())


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "digits-net": _digits_net,
    "lenet5": _lenet5,
    "small-vgg": _small_vgg,
}
"""Networks that a training may name: each makes one with first weights from a seed."""


def new_network(name: str, seed: int) -> nn.Module:
    """An untrained network. Raises `ConfigError` listing what there is."""
    if name not in NETWORKS:
        raise ConfigError(f"network {name!r} is unknown; there is: {', '.join(NETWORKS)}")
    return NETWORKS[name](seed)


Parts = tuple["LabelledImages", "LabelledImages"]
_CLASSES = 10
"""Of the images of every model."""


def _digits(folder: Path | None) -> Parts:
    from rram_hil.learning import digits

    if folder is not None:
        raise ConfigError("--data: the digits come with scikit-learn; give no folder")
    return digits(seed=0)


def _pictures(folder: Path | None, shape: tuple[int, ...], usual: str) -> Parts:
    """Images of `shape` from a folder or an archive."""
    from rram_hil.learning import read_images

    if folder is None:
        raise ConfigError(f"--data: missing; give the folder of {usual}, or class folders")
    parts = read_images(folder)
    for part in parts:
        if part.images.shape[1:] != shape:
            raise ConfigError(
                f"--data: {folder}: images of {part.images.shape[1:]} (channels, height, width);"
                f" the model takes {shape}"
            )
        if part.labels.max() >= _CLASSES:
            raise ConfigError(
                f"--data: {folder}: images of {part.labels.max() + 1} classes; the model tells"
                f" {_CLASSES}"
            )
    return parts


def _mnist(folder: Path | None) -> Parts:
    return _pictures(folder, (1, 28, 28), "MNIST's four IDX files")


def _cifar(folder: Path | None) -> Parts:
    return _pictures(folder, (3, 32, 32), "CIFAR-10's binary batches")


@dataclass(frozen=True)
class Adaptation:
    """How on-chip words are trained: steps, images a step, rate; on the first `images` of the
    training images.
    """

    steps: int
    batch: int
    learning_rate: float
    images: int = 20_000


@dataclass(frozen=True)
class Model:
    """A network with its images, trainings and chip.

    `load` gives training and test images from the folder of `--data`; choices are made on the last
    `held_out` training images. `teacher` trains in floating point, the rounds of `student` from the
    teacher on (`Case` says with which errors and teacher). The chip has `tiles` tiles, the first
    for pulse curves, the others for the network.
    """

    name: str
    title: str
    load: Callable[[Path | None], Parts]
    held_out: int
    tiles: int
    rows: int
    columns: int
    teacher: Training
    student: tuple[Training, ...]
    adaptation: Adaptation
    word_fraction: float


_DIGITS_CHANGES = Changes(shift=0.6, rotation=8.0, zoom=0.08, shear=0.08)
_LENET_TEACHER = Training(
    network="lenet5", epochs=14, batch=128, learning_rate=3e-3, weight_decay=0.01
)
# Pictures of things look the same from left and right, and seldom stand on their heads.
_PICTURE_CHANGES = Changes(shift=3.0, rotation=0.0, zoom=0.0, shear=0.0, flip=True)
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="digits",
            title="A small network on scikit-learn's handwritten digits",
            load=_digits,
            held_out=300,
            tiles=2,
            rows=128,
            columns=128,
            teacher=Training(
                network="digits-net",
                epochs=60,
                batch=64,
                learning_rate=1e-2,
                weight_decay=0.01,
                changes=_DIGITS_CHANGES,
            ),
            student=(
                Training(
                    network="digits-net",
                    epochs=60,
                    batch=128,
                    learning_rate=2e-2,
                    changes=_DIGITS_CHANGES,
                ),
            ),
            adaptation=Adaptation(steps=400, batch=64, learning_rate=0.05),
            word_fraction=0.05,
        ),
        Model(
            name="lenet5",
            title="LeNet-5 on MNIST",
            load=_mnist,
            held_out=10_000,
            tiles=4,
            rows=256,
            columns=256,
            teacher=_LENET_TEACHER,
            # Images nearer to the real ones at last: on chips it is too small to learn all.
            student=(
                Training(network="lenet5", epochs=12, learning_rate=2e-3),
                Training(
                    network="lenet5", epochs=4, learning_rate=1e-3, changes=Changes().times(0.5)
                ),
            ),
            adaptation=Adaptation(steps=1500, batch=128, learning_rate=0.02),
            word_fraction=0.03,
        ),
        Model(
            name="vgg",
            title="A small VGG on CIFAR-10",
            load=_cifar,
            held_out=5_000,
            tiles=3,
            rows=512,
            columns=512,
            teacher=Training(
                network="small-vgg",
                epochs=20,
                batch=128,
                learning_rate=5e-3,
                weight_decay=0.05,
                changes=_PICTURE_CHANGES,
            ),
            student=(
                Training(
                    network="small-vgg",
                    epochs=15,
                    learning_rate=3e-3,
                    changes=_PICTURE_CHANGES,
                ),
            ),
            adaptation=Adaptation(steps=600, batch=128, learning_rate=0.01),
            word_fraction=0.05,
        ),
    )
}
"""Models that a study may name."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images as bytes (n, channels, height, width) and their classes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, data: LabelledImages) -> Pictures:
        """Of images in 0..1."""
        return cls(np.rint(data.images * 255).astype(np.uint8), data.labels)

    def first(self, count: int) -> Pictures:
        """The first of them."""
        return Pictures(self.images[:count], self.labels[:count])

    @cached_property
    def file(self) -> bytes:
        """As a compressed .npz file, which travels to the machine that needs it."""
        file = io.BytesIO()
        np.savez_compressed(file, images=self.images, labels=self.labels)
        return file.getvalue()

    @classmethod
    def read(cls, file: bytes) -> Pictures:
        """What `file` gave."""
        with np.load(io.BytesIO(file)) as held:
            return cls(held["images"], held["labels"])

    def labelled(self) -> LabelledImages:
        """In 0..1, as networks take them."""
        from rram_hil.learning import LabelledImages

        return LabelledImages(self.images.astype(np.float32) / np.float32(255), self.labels)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a study: those to learn from, those for adaptation, and those to test on."""

    train: Pictures
    adaptation: Pictures
    test: Pictures

    @cached_property
    def digest(self) -> str:
        """Tells other images from these."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            for array in (part.images, part.labels):
                digest.update(repr((array.shape, array.dtype.str)).encode())
                digest.update(array.tobytes())
        return digest.hexdigest()


def load_images(model: Model, folder: Path | None, *, held_out: bool) -> Images:
    """The images of a model. With `held_out` the last training images stand in for the test images:
    what is chosen is chosen on them. Raises `ConfigError`, `DataError`.
    """
    train, test = map(Pictures.of, model.load(folder))
    if held_out:
        count = len(train.labels) - model.held_out
        if count < 1:
            raise ConfigError(
                f'images: "held-out" takes the last {model.held_out} training images of'
                f" {model.name}, and there are {len(train.labels)}"
            )
        test = Pictures(train.images[count:], train.labels[count:])
        train = train.first(count)
    return Images(train, train.first(model.adaptation.images), test)
