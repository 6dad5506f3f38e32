"""Images from class folders, archives and CIFAR's batches, and what is said of wrong ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rram_hil.errors import DataError
from rram_hil.learning import read_images

RNG = np.random.default_rng(1)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def colour(height: int = 6, width: int = 5) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def packed(path: Path, files: dict[str, bytes], mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


CAT, DOG, OWL = colour(), colour(), colour()
PETS = {
    "train/dog/1.png": encoded(DOG),
    "train/cat/0.png": encoded(CAT),
    "train/cat/1.png": encoded(OWL),
    "train/dog/0.png": encoded(DOG),
    "test/cat/9.PNG": encoded(CAT),
}


def check_pets(path: Path) -> None:
    train, test = read_images(path)
    assert train.labels.tolist() == [0, 1, 0, 1]  # each class in its turn
    wanted = np.stack([CAT, DOG, OWL, DOG]).transpose(0, 3, 1, 2) / np.float32(255)
    assert np.array_equal(train.images, wanted.astype(np.float32))
    assert train.images.dtype == np.float32
    assert test.labels.tolist() == [0]
    assert test.images.shape == (1, 3, 6, 5)


@pytest.mark.parametrize("around", ["", "pets/", "a/b/"])
def test_class_folders_are_read_whatever_folder_is_around_them(tmp_path: Path, around: str) -> None:
    write(tmp_path, {around + name: content for name, content in PETS.items()})
    write(
        tmp_path, {around + "train/.hidden.png": b"", around + "train/cat/._0.png": b"no picture"}
    )
    check_pets(tmp_path)


@pytest.mark.parametrize("around", ["", "./", "pets/"])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_is_read_as_its_folder_would_be(tmp_path: Path, mode: str, around: str) -> None:
    files = {around + name: content for name, content in PETS.items()}
    before = set(tmp_path.iterdir())
    check_pets(packed(tmp_path / "pets.tar", files, mode))
    assert {*before, tmp_path / "pets.tar"} == set(tmp_path.iterdir())  # nothing was unpacked


def test_pictures_are_grey_only_if_all_are(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
    files = {"train/a/0.jpg": encoded(grey, "JPEG"), "test/a/0.png": encoded(grey)}
    train, test = read_images(write(tmp_path, files))
    assert train.images.shape == test.images.shape == (1, 1, 6, 5)
    assert np.array_equal(np.rint(test.images[0, 0] * 255), grey)
    mixed, _ = read_images(write(tmp_path, {"train/b/0.png": encoded(CAT)}))
    assert mixed.images.shape == (2, 3, 6, 5)
    assert np.array_equal(mixed.images[0, 0], mixed.images[0, 2])


def records(count: int, labels: int, classes: int) -> bytes:
    made = RNG.integers(0, 256, (count, labels + 3072), dtype=np.uint8)
    made[:, :labels] %= classes
    return made.tobytes()


CIFAR10 = {f"data_batch_{k}.bin": records(2, 1, 10) for k in range(1, 6)}
CIFAR10 |= {"test_batch.bin": records(3, 1, 10), "batches.meta.txt": b"airplane\n"}
CIFAR100 = {"train.bin": records(4, 2, 20), "test.bin": records(2, 2, 20)}


@pytest.mark.parametrize("is_packed", [False, True])
def test_cifar10s_batches_follow_each_other(tmp_path: Path, is_packed: bool) -> None:
    files = {f"cifar-10-batches-bin/{name}": content for name, content in CIFAR10.items()}
    path = packed(tmp_path / "c.tar.gz", files, "w:gz") if is_packed else write(tmp_path, files)
    train, test = read_images(path)
    assert (train.images.shape, len(test)) == ((10, 3, 32, 32), 3)
    third = np.frombuffer(CIFAR10["data_batch_3.bin"], np.uint8)
    assert train.labels[4] == third[0]
    assert np.array_equal(np.rint(train.images[4].ravel() * 255), third[1:3073])


def test_the_fine_classes_of_cifar100_count(tmp_path: Path) -> None:
    train, test = read_images(write(tmp_path, CIFAR100))
    first = np.frombuffer(CIFAR100["train.bin"], np.uint8)
    assert train.labels[0] == first[1]
    assert np.array_equal(np.rint(train.images[0].ravel() * 255), first[2:3074])
    assert (len(train), len(test)) == (4, 2)


def test_mnist_is_told_by_its_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: not found"):
        read_images(write(tmp_path / "folder", {"t10k-labels-idx1-ubyte.gz": b""}))
    with pytest.raises(DataError, match="unpack it"):
        read_images(packed(tmp_path / "m.tar", {"train-images-idx3-ubyte": b""}))


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds nothing; expected MNIST"),
        ({"a.txt": b"", "b.npy": b""}, "holds a.txt, b.npy; expected MNIST"),
        (PETS | CIFAR100, "holds CIFAR-100's batches and class folders; expected MNIST"),
        (without(PETS, "test/cat/9.PNG"), "test: holds no pictures"),
        (PETS | {"test/owl/0.png": encoded(OWL)}, "test/owl: a class that train/ does not have"),
        (PETS | {"train/dog/2.png": encoded(colour(7, 5))}, "train/dog/2.png: of 5 x 7 pixels"),
        (PETS | {"train/dog/2.png": b"GIF89a"}, r"train/dog/2.png: cannot be read \(of another"),
        (PETS | {"train/dog/2.png": encoded(DOG)[:60]}, "train/dog/2.png: cannot be read"),
        (
            PETS | {"train/dog/2.png": encoded(np.zeros((1, 1025), np.uint8))},
            "at most 1024 pixels a side",
        ),
        (without(CIFAR10, "data_batch_4.bin"), "data_batch_4.bin: not found; expected records"),
        (CIFAR10 | {"data_batch_2.bin": b"\x00" * 3072}, "data_batch_2.bin: holds 3072 bytes"),
        (CIFAR10 | {"test_batch.bin": b"\x0a" * 3073}, "test_batch.bin: holds the class 10"),
        (CIFAR100 | {"train.bin": b""}, "train.bin: holds 0 bytes"),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(
    tmp_path: Path, files: dict[str, bytes], says: str, is_packed: bool
) -> None:
    tmp_path.joinpath("data").mkdir()
    path = packed(tmp_path / "data.tar", files) if is_packed else write(tmp_path / "data", files)
    with pytest.raises(DataError, match=says) as refused:
        read_images(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"\xfd7zXZ\x00 no archive"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.tar.xz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar\.xz: .*expected MNIST"):
        read_images(tmp_path / "a.tar.xz")


@pytest.fixture(scope="module")
def in_one_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    path = tmp_path_factory.mktemp("cut") / "a.tar.xz"

    def kept(content: bytes) -> Path:
        path.write_bytes(content)
        return path

    return kept


@settings(deadline=None)
@given(data=st.data())
def test_a_cut_or_flipped_archive_is_read_whole_or_refused(
    in_one_file: Callable[[bytes], Path], data: st.DataObject
) -> None:
    whole = packed(in_one_file(b""), PETS).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    is_cut = data.draw(st.booleans())
    wrong = whole[:at] if is_cut else whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]
    try:
        found = "{} and {} images".format(*map(len, read_images(in_one_file(wrong))))
    except DataError as error:
        found = str(error)
    assert found == "4 and 1 images" or (str(in_one_file(b"")) in found and "\n" not in found)
