"""Files that survive a crash: one writer at a time, data on the disk at commit points, whole files
or none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from rram_hil.errors import DataError

if sys.platform == "win32":
    import msvcrt

    BINARY = os.O_BINARY
    _TAKEN = (errno.EACCES, errno.EDEADLK)

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
    _TAKEN = (errno.EWOULDBLOCK,)

    def _take(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _flush(fd: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there leaves the data in the drive's cache
        else:
            os.fdatasync(fd)


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What a drive answers that has no file locks: NFS without lockd, Lustre without `-o flock`."""


def lock(fd: int, path: Path) -> Path | None:
    """Take the file at `path`, open as `fd`, for this process alone until it is closed or the
    process ends, killed or not.

    On a drive without file locks a file `<path>.held` stands for the lock: its path comes back, for
    `unlock` when the file is closed; else None. Raises `DataError` where another process (or
    another open of this one) holds it, and where it cannot be known.
    """
    try:
        _take(fd)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _in_use(path) from None
        if error.errno in _NO_LOCKS:
            return _hold(path)
        raise DataError(
            f"{path}: cannot be locked: {error.strerror or error}; use a folder on a drive of this"
            " machine"
        ) from None
    return None


def unlock(held: Path | None) -> None:
    """Take away the file that stood for a lock; None is fine."""
    if held is not None:
        remove(held)


def _in_use(path: Path, more: str = "") -> DataError:
    return DataError(f"{path}: in use by another run; wait for it or stop it first{more}")


def _hold(path: Path) -> Path:
    """Make `<path>.held`, which only one process can: creating a file is atomic on every drive."""
    held = path.with_name(path.name + ".held")
    me = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
    for _ in range(2):
        try:
            fd = os.open(held, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            _remove_stale(held, path)
            continue
        except OSError as error:
            raise DataError(f"{held}: cannot be made: {error.strerror or error}") from None
        try:
            write_all(fd, me, str(held))
        finally:
            os.close(fd)
        return held
    raise _in_use(path)


def _remove_stale(held: Path, path: Path) -> None:
    """Remove what a process of this machine left that is no more. Raises `DataError` for any
    other.
    """
    try:
        text = held.read_bytes()
        told = json.loads(text)
        host, pid = str(told["host"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        raise _in_use(path, f" (if none runs, delete {held})") from None
    if host != socket.gethostname() or _runs(pid):
        raise _in_use(path, f" (process {pid} on {host}; if it is gone, delete {held})")
    aside = held.with_name(f"{held.name}.{os.getpid()}")
    try:
        os.rename(held, aside)
        is_ours = aside.read_bytes() == text
        if not is_ours:
            os.rename(aside, held)  # another process was faster, and holds it now
    except OSError:
        raise _in_use(path) from None
    if not is_ours:
        raise _in_use(path)
    remove(aside)


def _runs(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there a signal of 0 would end it; and Windows has locks on every drive
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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
    # Some network file systems have no fsync of folders; the file itself is on the disk.
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
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


def remove(path: Path) -> None:
    """Take a temporary file away where it is there. A disk that refuses that as well must not hide
    why the file is to go, so nothing is raised.
    """
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def release(fd: int) -> None:
    """Close a file whose content is on the disk already, or is given up; raises nothing."""
    with contextlib.suppress(OSError):
        os.close(fd)


@contextlib.contextmanager
def disk(what: str) -> Iterator[None]:
    """Whatever the disk refuses within becomes a `DataError` that names the file `what`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{what}: {error.strerror or error}") from None


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
