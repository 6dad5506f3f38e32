"""Files that survive a crash: one writer at a time, data on the disk at commit points, whole files
or none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rram_hil.errors import DataError

if sys.platform == "win32":
    import msvcrt

    BINARY = os.O_BINARY

    def _take(fd: int) -> None:
        # A Windows lock bars readers from the locked byte, so the byte lies where no data ever
        # comes.
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, 1 << 40, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(fd, position, os.SEEK_SET)

    def _flush(fd: int) -> None:
        os.fsync(fd)

else:
    import fcntl

    BINARY = 0

    def _take(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _flush(fd: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there leaves the data in the drive's cache
        else:
            os.fdatasync(fd)


def lock(fd: int, what: str) -> None:
    """Take the file for this process alone until it is closed or the process ends, killed or not.

    Raises `DataError` where another process (or another open of this one) holds it; `what` names
    the file.
    """
    try:
        _take(fd)
    except OSError:
        raise DataError(f"{what}: in use by another run; wait for it or stop it first") from None


def sync(fd: int, what: str) -> None:
    """Bring everything written so far onto the disk. Raises `DataError` where the disk fails."""
    try:
        _flush(fd)
    except OSError as error:
        raise DataError(
            f"{what}: cannot be brought onto the disk: {error.strerror or error}"
        ) from None


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries onto the disk, so that a new file in it outlives a power cut (no-op
    on Windows).
    """
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass  # some network file systems have no fsync of folders; the file itself is on the disk
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview, what: str) -> None:
    """Write `data` with one call. Raises `DataError` for a full disk, a quota, a file-size limit or
    any other failure.

    After an error part of `data` may stand in the file; the caller, who knows where it began, cuts
    it.
    """
    try:
        written = os.write(fd, data)
    except OSError as error:
        raise DataError(f"{what}: cannot be written: {error.strerror or error}") from None
    if written != len(data):
        raise DataError(
            f"{what}: cannot be written: the disk is full ({written} of {len(data)} bytes went in)"
        )


class HeldError(DataError):
    """Another program has the file open, which on Windows keeps it from being replaced."""


def replace(temporary: Path, path: Path) -> None:
    """Put a finished temporary file in the place of `path`, in one step. Raises `DataError`,
    `HeldError` where another program holds the file.
    """
    try:
        os.replace(temporary, path)
    except PermissionError as error:
        raise HeldError(
            f"{path}: cannot be replaced: {error.strerror or error}; close what has it open"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be replaced: {error.strerror or error}; close what has it open"
        ) from None
    sync_folder(path.parent)
