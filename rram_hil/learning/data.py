"""Images to train and test on: scikit-learn's handwritten digits, and MNIST from its IDX files."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError

_IDX_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class LabelledImages:
    """Images, float32 in 0..1 of shape (n, channels, height, width), and their n classes, int64.

    Anything else that has classes will do: of shape (n, channels, length) for a Conv1d, (n, time,
    features) for a recurrent network.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim < 2 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"images must be (n, channels, height, width), or (n, ...), with n labels, "
                f"not {self.images.shape} with {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)


def digits(seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels as (1,300 to train, 497 to test), every
    class in proportion.

    Needs the extra `[demo]`; nothing is downloaded.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    found = load_digits()
    images = (found.data.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    labels = found.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=497, stratify=labels, random_state=seed, shuffle=True
    )
    return LabelledImages(images[train], labels[train]), LabelledImages(images[test], labels[test])


def mnist(folder: Path | str) -> tuple[LabelledImages, LabelledImages]:
    """MNIST as (60,000 to train, 10,000 to test) from its four IDX files in `folder`, plain or
    `.gz`.

    Raises `DataError`, in one line that names the file and what was expected, where one is missing
    or damaged.
    """
    folder = Path(folder)
    return _mnist_part(folder, "train", 60_000), _mnist_part(folder, "t10k", 10_000)


def _mnist_part(folder: Path, part: str, count: int) -> LabelledImages:
    images = read_idx(folder, f"{part}-images-idx3-ubyte", (count, 28, 28))
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", (count,))
    if labels.max() > 9:
        name = folder / f"{part}-labels-idx1-ubyte"
        raise DataError(f"{name}: holds the class {labels.max()}; expected 0 to 9")
    return LabelledImages(
        images[:, None].astype(np.float32) / np.float32(255.0), labels.astype(np.int64)
    )


def read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes of one IDX file: magic (0, 0, type, dimensions), big-endian 32-bit sizes, the
    values.
    """
    expected = f"an IDX file of {' x '.join(map(str, shape))} unsigned bytes"
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(f"{folder / name}: not found, plain or .gz; expected {expected}")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected {expected}") from error

    header = 4 + 4 * len(shape)
    if len(content) < header or content[:4] != bytes((0, 0, _IDX_UNSIGNED_BYTE, len(shape))):
        raise DataError(
            f"{path}: begins with {content[:4].hex() or 'nothing'}; expected {expected}"
        )
    found = struct.unpack(f">{len(shape)}I", content[4:header])
    if found != shape:
        raise DataError(f"{path}: declares {' x '.join(map(str, found))}; expected {expected}")
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if values.size != np.prod(shape):
        raise DataError(f"{path}: holds {values.size} values after its header; expected {expected}")
    return values.reshape(shape)
