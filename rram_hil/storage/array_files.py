"""Arrays of other people's files, `.npy` and `.npz`: read without pickles, and whatever may be
wrong with such a file told in one line.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError

BROKEN = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    SyntaxError,
    RuntimeError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What NumPy and what it is made of raise for a file that is damaged, empty, encrypted, packed in
an unknown way, or declares arrays larger than the memory.
"""


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file. Raises `DataError` with the path and what is wrong."""
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("several arrays (.npz) where one (.npy) is wanted")
        return found
    except BROKEN as error:
        raise _unreadable(path, error) from None


def read_npz(path: Path, names: Iterable[str]) -> list[NDArray[Any]]:
    """The arrays of these names of a `.npz` file. Raises `DataError` with the path and what is
    wrong.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("one array (.npy) where several (.npz) are wanted")
        with found:
            return [found[name] for name in names]
    except BROKEN as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    told = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        told = error.strerror
    return DataError(f"{path}: cannot be read: {told:.200}")
