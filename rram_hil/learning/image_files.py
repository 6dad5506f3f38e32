"""Images from whatever a folder or archive holds: MNIST's IDX files, class folders of pictures,
CIFAR's binary batches.
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError, first_line, printable
from rram_hil.learning.data import LabelledImages, mnist

PARTS = ("train", "test")
_PICTURES = (".png", ".jpg", ".jpeg")
_IDX = tuple(
    f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
)
_EXPECTED = (
    "expected MNIST's four IDX files, class folders of pictures (train/CLASS/*.png or *.jpg and"
    " test/CLASS/*), or the binary batches of CIFAR-10 or CIFAR-100, in a folder or, but for MNIST,"
    " a .tar archive"
)
_MOST_PIXELS = 1024
_MOST_BYTES = 4 << 30
"""Of one archive's files, unpacked."""
_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error)
"""What Pillow raises for pictures that are none."""


def read_images(path: Path | str) -> tuple[LabelledImages, LabelledImages]:
    """(Training, test) images of a folder, or of a .tar archive, packed or not, of one; what is in
    it is told by its names. A folder around it does not matter.

    Class folders: classes are numbered in the order of their names, and pictures come from each
    class in turn, so that a part of them holds every class. All are of one size; they are grey
    (n, 1, height, width) if every one is, else of three colours. They need Pillow, in the extra
    `[study]`. CIFAR's batches keep their order; of CIFAR-100 the fine classes count. Raises
    `DataError`, in one line that names the file and what was expected.
    """
    path = Path(path)
    files = _of_folder(path) if path.is_dir() else _of_archive(path)
    tops = {name.split("/")[0] for name in files.names}
    readers: dict[str, Callable[[_Files], tuple[LabelledImages, LabelledImages]]] = {}
    if any(top.startswith(_IDX) for top in tops):
        readers["MNIST's IDX files"] = _mnist
    if any(top == "test_batch.bin" or top.startswith("data_batch_") for top in tops):
        readers["CIFAR-10's batches"] = _cifar10
    if tops & {"train.bin", "test.bin"}:
        readers["CIFAR-100's batches"] = _cifar100
    if tops & set(PARTS):
        readers["class folders"] = _class_folders
    if len(readers) == 1:
        return next(iter(readers.values()))(files)
    held = " and ".join(readers) or ", ".join(sorted(tops)[:3]) or "nothing"
    raise DataError(f"{path}: holds {printable(held)}; {_EXPECTED}")


@dataclass(frozen=True, eq=False)
class _Files:
    """The files of a folder or of an archive, by their names from there, with "/"."""

    where: Path
    names: list[str]
    content: Callable[[str], bytes]

    def path(self, name: str) -> str:
        """How a message names a file."""
        return printable(f"{self.where}/{name}")


def _of_folder(folder: Path) -> _Files:
    try:
        inside = _seen(folder)
        while len(inside) == 1 and inside[0].is_dir() and inside[0].name not in PARTS:
            folder, inside = inside[0], _seen(inside[0])
        # Only what may be ours is looked through: the folder may be anybody's home.
        found = [*inside, *(p for top in inside if top.name in PARTS for p in top.glob("*/*"))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
    shown = (p for p in found if p.is_file() and not p.name.startswith("."))
    names = [p.relative_to(folder).as_posix() for p in shown]

    def content(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error.strerror}") from None

    return _Files(folder, names, content)


def _seen(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _of_archive(path: Path) -> _Files:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for name, member in _members(archive, path):
                file = archive.extractfile(member)
                contents[name] = b"" if file is None else file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such folder or archive; {_EXPECTED}") from None
    except (tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: no .tar archive, or damaged ({first_line(str(error))}); {_EXPECTED}"
        ) from None
    while len(tops := {name.partition("/")[0] for name in contents}) == 1:
        if not tops.isdisjoint(PARTS) or any("/" not in name for name in contents):
            break
        contents = {name.partition("/")[2]: content for name, content in contents.items()}
    return _Files(path, list(contents), contents.__getitem__)


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The archive's plain files, with their names; nothing is ever unpacked to the disk."""
    size = 0
    for member in archive:
        name = member.name.removeprefix("./")
        if not member.isreg() or any(part.startswith(".") for part in name.split("/")):
            continue
        size += member.size
        if size > _MOST_BYTES:
            raise DataError(f"{path}: holds more than {_MOST_BYTES >> 30} GiB")
        yield name, member


def _mnist(files: _Files) -> tuple[LabelledImages, LabelledImages]:
    if not files.where.is_dir():
        raise DataError(f"{files.where}: holds MNIST's IDX files; unpack it and give the folder")
    return mnist(files.where)


def _cifar10(files: _Files) -> tuple[LabelledImages, LabelledImages]:
    names = [f"data_batch_{k}.bin" for k in range(1, 6)]
    return _batches(files, names, 1, 10), _batches(files, ["test_batch.bin"], 1, 10)


def _cifar100(files: _Files) -> tuple[LabelledImages, LabelledImages]:
    return _batches(files, ["train.bin"], 2, 100), _batches(files, ["test.bin"], 2, 100)


def _batches(files: _Files, names: list[str], labels: int, classes: int) -> LabelledImages:
    """Records of `labels` bytes, of which the last is the class, and 3 x 32 x 32 pixels."""
    size = labels + 3 * 32 * 32
    expected = f"expected records of {size} bytes, the class below {classes} in byte {labels}"
    found = []
    for name in names:
        if name not in files.names:
            raise DataError(f"{files.path(name)}: not found; {expected}")
        content = files.content(name)
        if len(content) % size or not content:
            raise DataError(f"{files.path(name)}: holds {len(content)} bytes; {expected}")
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
        if (most := records[:, labels - 1].max()) >= classes:
            raise DataError(f"{files.path(name)}: holds the class {most}; {expected}")
        found.append(records)
    records = np.concatenate(found)
    pixels = records[:, labels:].reshape(-1, 3, 32, 32)
    return _labelled(pixels, records[:, labels - 1])


def _labelled(pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> LabelledImages:
    # One pass: the float32 copy of CIFAR-10 alone is 600 MB.
    images = np.divide(pixels, np.float32(255), dtype=np.float32)
    return LabelledImages(images, labels.astype(np.int64))


def _class_folders(files: _Files) -> tuple[LabelledImages, LabelledImages]:
    parts = {part: _by_class(files, part) for part in PARTS}
    classes = {name: k for k, name in enumerate(sorted(parts["train"]))}
    for name in parts["test"]:
        if name not in classes:
            raise DataError(f"{files.path(f'test/{name}')}: a class that train/ does not have")
    return _pictures(files, parts["train"], classes), _pictures(files, parts["test"], classes)


def _by_class(files: _Files, part: str) -> dict[str, list[str]]:
    """The names of a part's pictures, in order, by their classes."""
    found: dict[str, list[str]] = {}
    for name in sorted(files.names):
        top, _, below = name.partition("/")
        kind, _, picture = below.partition("/")
        if top == part and picture.lower().endswith(_PICTURES):
            found.setdefault(kind, []).append(name)
    if not found:
        raise DataError(f"{files.path(part)}: holds no pictures; {_EXPECTED}")
    return found


def _pictures(
    files: _Files, by_class: dict[str, list[str]], classes: dict[str, int]
) -> LabelledImages:
    turns = sorted(
        (turn, classes[kind], name)
        for kind, names in by_class.items()
        for turn, name in enumerate(names)
    )
    pictures = [_picture(files, name) for *_, name in turns]
    first = pictures[0].shape[:2]
    for (*_, name), picture in zip(turns, pictures, strict=True):
        if picture.shape[:2] != first:
            raise DataError(
                f"{files.path(name)}: of {_size(picture)} pixels; expected {_size(pictures[0])},"
                " as the others have"
            )
    if any(picture.shape[2] == 3 for picture in pictures):
        pictures = [np.broadcast_to(picture, (*first, 3)) for picture in pictures]
    pixels = np.stack([picture.transpose(2, 0, 1) for picture in pictures])
    return _labelled(pixels, np.array([label for _, label, _ in turns]))


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def _picture(files: _Files, name: str) -> NDArray[np.uint8]:
    """One picture, of shape (height, width, 1 or 3)."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError(
            f"{files.where}: reading pictures needs Pillow: pip install 'rram-hil[study]'"
        ) from None
    expected = f"expected a PNG or JPEG of 8 bits a colour and at most {_MOST_PIXELS} pixels a side"
    try:
        with Image.open(io.BytesIO(files.content(name)), formats=("PNG", "JPEG")) as picture:
            if max(picture.size) > _MOST_PIXELS or picture.mode.startswith(("I", "F")):
                what = f"{picture.size[0]} x {picture.size[1]} pixels in mode {picture.mode}"
                raise DataError(f"{files.path(name)}: {what}; {expected}")
            is_grey = picture.mode in ("1", "L", "LA")
            pixels = np.asarray(picture.convert("L" if is_grey else "RGB"), dtype=np.uint8)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        why = (
            "of another kind"
            if isinstance(error, UnidentifiedImageError)
            else first_line(str(error))
        )
        raise DataError(f"{files.path(name)}: cannot be read ({why}); {expected}") from None
    return pixels[:, :, None] if is_grey else pixels
