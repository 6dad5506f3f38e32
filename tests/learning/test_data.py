"""The data sets, and what a damaged file says."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.learning import LabelledImages, digits, mnist
from rram_hil.learning.data import read_idx

NAME = "tiny-images-idx3-ubyte"
SHAPE = (3, 2, 4)


def idx(
    values: NDArray[np.uint8], shape: tuple[int, ...] | None = None, magic: bytes = b"\x00\x00\x08"
) -> bytes:
    shape = values.shape if shape is None else shape
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values.tobytes()


VALUES = np.arange(24, dtype=np.uint8).reshape(SHAPE)


def test_digits_are_split_in_proportion_and_the_same_for_the_same_seed() -> None:
    train, test = digits(seed=3)
    assert (len(train), len(test)) == (1300, 497)
    assert train.images.shape == (1300, 1, 8, 8)
    assert train.images.dtype == np.float32
    assert 0.0 <= train.images.min() < train.images.max() <= 1.0
    assert np.abs(np.bincount(test.labels) / 497 - 0.1).max() < 0.01
    assert np.array_equal(digits(seed=3)[1].images, test.images)
    assert not np.array_equal(digits(seed=4)[1].images, test.images)


def test_labels_must_match_the_images() -> None:
    with pytest.raises(DataError, match="n labels"):
        LabelledImages(np.zeros((3, 1, 8, 8), np.float32), np.zeros(2, np.int64))


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_is_read_plain_or_packed(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / (NAME + ".gz" if packed else NAME)
    path.write_bytes(gzip.compress(idx(VALUES)) if packed else idx(VALUES))
    assert np.array_equal(read_idx(tmp_path, NAME, SHAPE), VALUES)


@pytest.mark.parametrize(
    ("suffix", "content", "says"),
    [
        ("", b"", "begins with nothing"),
        ("", b"PK\x03\x04 something else", "begins with 504b0304"),
        ("", idx(VALUES, magic=b"\x00\x00\x0d"), "begins with 00000d03"),
        ("", idx(VALUES, shape=(3, 4, 2)), "declares 3 x 4 x 2"),
        ("", idx(VALUES)[:-1], "holds 23 values"),
        ("", idx(VALUES) + b"\x00", "holds 25 values"),
        (".gz", b"not a gzip file", "cannot be read"),
        (".gz", gzip.compress(idx(VALUES))[:-9], "cannot be read"),
    ],
    ids=["empty", "foreign", "floats", "shape", "short", "long", "not packed", "cut"],
)
def test_a_damaged_file_is_named_in_one_line(
    tmp_path: Path, suffix: str, content: bytes, says: str
) -> None:
    path = tmp_path / (NAME + suffix)
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_idx(tmp_path, NAME, SHAPE)
    message = str(refused.value)
    assert str(path) in message
    assert says in message
    assert "expected an IDX file of 3 x 2 x 4 unsigned bytes" in message
    assert "\n" not in message


def test_a_missing_mnist_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: not found.*60000 x 28 x 28"):
        mnist(tmp_path)


def test_mnist(mnist_folder: Path) -> None:
    train, test = mnist(mnist_folder)
    assert train.images.shape == (60000, 1, 28, 28)
    assert len(test) == 10000
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert train.images.max() == 1.0
