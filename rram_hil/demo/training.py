"""What the demonstration trains: a teacher in floating point and a student distilled through the
devices' faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rram_hil.demo.files import WORD_FRACTION, WORD_SEED
from rram_hil.networks.network import Float32, Network
from rram_hil.types import IntArray

Progress = Callable[[float, str], None]
MNIST_ROUNDS = ((12, 2e-3, 1.0), (4, 1e-3, 0.5))
"""Rounds of teaching MNIST's student: epochs, learning rate, and the changes of its images as a
share of the teacher's.
"""
KEPT_TRAINING_IMAGES = 20_000
"""More than adaptation looks at; the rest need not be written into the folder."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Both networks, and the images that the recipe needs: training ones for adaptation, test ones
    for the table.
    """

    name: str
    teacher: Network
    student: Network
    train_images: Float32
    train_labels: IntArray
    test_images: Float32
    test_labels: IntArray

    def write(self, folder: Path) -> None:
        """Write teacher.safetensors, student.safetensors, train.npz and test.npz."""
        self.teacher.save(folder / "teacher.safetensors")
        self.student.save(folder / "student.safetensors")
        for name, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            pixels = np.rint(images * 255).astype(np.uint8)
            np.savez_compressed(folder / f"{name}.npz", images=pixels, labels=labels)


def train(
    mnist_folder: Path | None,
    seed: int,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Trained:
    """Train on scikit-learn's digits, or LeNet-5 on the MNIST of a folder. Raises `DataError` for
    unusable files.
    """
    from rram_hil import learning

    noise = learning.DeviceNoise()
    if mnist_folder is None:
        data, test = learning.digits(seed=0)
        # Digits of 8 x 8 pixels bear less change than MNIST's, and so few of them more rounds.
        changes = learning.Augmentation(shift=0.6, rotation=8.0, zoom=0.08, shear=0.08)
        net = learning.digits_net(seed)
        teacher = learning.train_teacher(
            net,
            data,
            epochs=60,
            batch=64,
            learning_rate=1e-2,
            augmentation=changes,
            seed=seed,
            threads=threads,
            progress=progress,
        )
        student = learning.distil(
            teacher,
            teacher,
            data,
            noise,
            epochs=60,
            batch=128,
            learning_rate=2e-2,
            augmentation=changes,
            seed=seed,
            threads=threads,
            progress=progress,
        )
        name = f"scikit-learn's handwritten digits: {len(data)} training, {len(test)} test images"
    else:
        data, test = learning.mnist(mnist_folder)
        teacher = learning.train_teacher(
            learning.lenet5(seed), data, seed=seed, threads=threads, progress=progress
        )
        words = learning.choose_words(teacher, WORD_FRACTION, WORD_SEED)
        student = teacher
        # Images nearer to the real ones at last: on chips the student is too small to learn all.
        for later, (epochs, rate, share) in enumerate(MNIST_ROUNDS):
            student = learning.distil(
                teacher,
                student,
                data,
                noise,
                epochs=epochs,
                learning_rate=rate,
                augmentation=learning.Augmentation(
                    shift=2.0 * share,
                    rotation=10.0 * share,
                    zoom=0.1 * share,
                    shear=0.1 * share,
                ),
                seed=seed + later,
                words=words,
                fault_aware=True,
                threads=threads,
                progress=progress,
            )
        name = f"MNIST with LeNet-5: {len(data)} training, {len(test)} test images"
    kept = slice(KEPT_TRAINING_IMAGES)
    return Trained(
        name,
        Network.from_torch(teacher),
        Network.from_torch(student),
        data.images[kept],
        data.labels[kept],
        test.images,
        test.labels,
    )
