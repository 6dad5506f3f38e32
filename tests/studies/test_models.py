"""Which images the models of studies take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rram_hil.errors import ConfigError
from rram_hil.studies.models import MODELS, load_images

VGG = MODELS["vgg"]


def class_folders(
    folder: Path, classes: int, shape: tuple[int, ...] = (32, 32, 3), each: int = 2
) -> Path:
    """Class folders of pictures that differ."""
    rng = np.random.default_rng(1)
    for part in ("train", "test"):
        for kind in range(classes):
            own = folder / part / f"class-{kind:03}"
            own.mkdir(parents=True)
            for k in range(each):
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(own / f"{k}.png")
    return folder


def test_class_folders_may_stand_in_for_the_usual_images(tmp_path: Path) -> None:
    found = load_images(VGG, class_folders(tmp_path, 10), held_out=False)
    assert found.train.images.shape == found.test.images.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(found.test.labels, np.tile(np.arange(10), 2))


def test_images_that_the_model_cannot_take_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, folder, told in (
        ("size", class_folders(tmp_path / "size", 2, (28, 28, 3)), r"\(3, 28, 28\).*\(3, 32, 32\)"),
        ("grey", class_folders(tmp_path / "grey", 2, (32, 32)), r"\(1, 32, 32\).*\(3, 32, 32\)"),
        ("many", class_folders(tmp_path / "many", 11, each=1), "11 classes; the model tells 10"),
    ):
        with pytest.raises(ConfigError, match=f"{name}: images of {told}"):
            load_images(VGG, folder, held_out=False)


def test_as_many_images_as_are_held_out_leave_none_to_learn_from(tmp_path: Path) -> None:
    folder = class_folders(tmp_path, 2)
    with pytest.raises(ConfigError, match="the last 5000 training images of vgg, and there are 4"):
        load_images(VGG, folder, held_out=True)
    found = load_images(MODELS["digits"], None, held_out=True)
    assert (len(found.train.labels), len(found.test.labels)) == (1000, 300)
