"""What the demonstration trains: a teacher in floating point and a student distilled through the
devices' faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rram_hil.demo.files import IMAGES, WORD_FRACTION, WORD_SEED
from rram_hil.networks.network import Network

if TYPE_CHECKING:
    from rram_hil.learning import LabelledImages

Progress = Callable[[float, str], None]
MNIST_ROUNDS = ((12, 2e-3, 1.0), (4, 1e-3, 0.5))
"""Rounds of teaching MNIST's student: epochs, learning rate, and the changes of its images as a
share of the teacher's.
"""
KEPT_TRAINING_IMAGES = 20_000
"""More than adaptation looks at; the rest need not be written into the folder."""


@dataclass(frozen=True, eq=False)
class Images:
    """What both networks learn from and are tested on."""

    name: str
    is_mnist: bool
    train: LabelledImages
    test: LabelledImages

    def write(self, folder: Path) -> None:
        """Write test.npz and then train.npz."""
        kept = slice(KEPT_TRAINING_IMAGES)
        for name, images, labels in (
            ("test.npz", self.test.images, self.test.labels),
            (IMAGES, self.train.images[kept], self.train.labels[kept]),
        ):
            pixels = np.rint(images * 255).astype(np.uint8)
            with _whole(folder / name) as unfinished, unfinished.open("wb") as file:
                np.savez_compressed(file, images=pixels, labels=labels)


@dataclass(frozen=True, eq=False)
class Trained:
    """Both networks and their images."""

    images: Images
    teacher: Network
    student: Network

    def write(self, folder: Path) -> None:
        """Write teacher.safetensors, student.safetensors, train.npz and test.npz."""
        self.images.write(folder)
        write_network(folder, "teacher", self.teacher)
        write_network(folder, "student", self.student)


def write_network(folder: Path, name: str, network: Network) -> None:
    """Write `<name>.safetensors`."""
    with _whole(folder / f"{name}.safetensors") as unfinished:
        network.save(unfinished)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write a file that chips wait for: it has its name only when it is whole."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


def train(
    mnist_folder: Path | None,
    seed: int,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Trained:
    """Load the images and train both networks. Raises `DataError` for unusable files."""
    images = load(mnist_folder)
    found: dict[str, Network] = {}
    teach(images, seed, found.__setitem__, progress, threads)
    return Trained(images, found["teacher"], found["student"])


def load(mnist_folder: Path | None) -> Images:
    """Scikit-learn's digits, or the MNIST of a folder. Raises `DataError` for unusable files."""
    from rram_hil import learning

    is_mnist = mnist_folder is not None
    data, test = learning.digits(seed=0) if mnist_folder is None else learning.mnist(mnist_folder)
    name = "MNIST with LeNet-5" if is_mnist else "scikit-learn's handwritten digits"
    told = f"{name}: {len(data)} training, {len(test)} test images"
    return Images(told, is_mnist, data, test)


def teach(
    images: Images,
    seed: int,
    keep: Callable[[str, Network], None],
    progress: Progress | None = None,
    threads: int | None = None,
) -> None:
    """Train the teacher and then its student; `keep` takes each of them as soon as it is trained,
    with its name.
    """
    if images.is_mnist:
        _teach_mnist(images.train, seed, keep, progress, threads)
    else:
        _teach_digits(images.train, seed, keep, progress, threads)


def _teach_digits(
    data: LabelledImages,
    seed: int,
    keep: Callable[[str, Network], None],
    progress: Progress | None,
    threads: int | None,
) -> None:
    from rram_hil import learning

    # Digits of 8 x 8 pixels bear less change than MNIST's, and so few of them more rounds.
    changes = learning.Augmentation(shift=0.6, rotation=8.0, zoom=0.08, shear=0.08)
    teacher = learning.train_teacher(
        learning.digits_net(seed),
        data,
        epochs=60,
        batch=64,
        learning_rate=1e-2,
        augmentation=changes,
        seed=seed,
        threads=threads,
        progress=progress,
    )
    keep("teacher", Network.from_torch(teacher))
    student = learning.distil(
        teacher,
        teacher,
        data,
        learning.DeviceNoise(),
        epochs=60,
        batch=128,
        learning_rate=2e-2,
        augmentation=changes,
        seed=seed,
        threads=threads,
        progress=progress,
    )
    keep("student", Network.from_torch(student))


def _teach_mnist(
    data: LabelledImages,
    seed: int,
    keep: Callable[[str, Network], None],
    progress: Progress | None,
    threads: int | None,
) -> None:
    from rram_hil import learning

    teacher = learning.train_teacher(
        learning.lenet5(seed), data, seed=seed, threads=threads, progress=progress
    )
    keep("teacher", Network.from_torch(teacher))
    words = learning.choose_words(teacher, WORD_FRACTION, WORD_SEED)
    student = teacher
    # Images nearer to the real ones at last: on chips the student is too small to learn all.
    for later, (epochs, rate, share) in enumerate(MNIST_ROUNDS):
        student = learning.distil(
            teacher,
            student,
            data,
            learning.DeviceNoise(),
            epochs=epochs,
            learning_rate=rate,
            augmentation=learning.Augmentation(
                shift=2.0 * share, rotation=10.0 * share, zoom=0.1 * share, shear=0.1 * share
            ),
            seed=seed + later,
            words=words,
            fault_aware=True,
            threads=threads,
            progress=progress,
        )
    keep("student", Network.from_torch(student))
