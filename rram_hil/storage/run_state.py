"""A run file beside its journal: which of the two is further, and whether the run is under way."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rram_hil.errors import DataError
from rram_hil.storage.journal import MAGIC
from rram_hil.storage.run_reader import RunFile, read_run, undamaged
from rram_hil.storage.run_writer import write_run_file
from rram_hil.storage.safe_files import BINARY, lock, unlock

HDF5 = b"\x89HDF\r\n\x1a\n"
JOURNAL = ".journal"
"""What the name of a journal has more than that of its run file."""
INTERRUPTED, UNDER_WAY = "interrupted", "under way"
"""States of a run that has not ended: nobody, or a process, holds its journal."""


def journal_of(run_file: Path) -> Path:
    """The journal beside a run file."""
    return run_file.with_name(run_file.name + JOURNAL)


def is_record(path: Path) -> bool:
    """Whether a file is HDF5 or a journal, by how it begins: what nothing but a run writes to."""
    return _begins(path, HDF5, MAGIC)


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by how it begins."""
    return _begins(path, HDF5)


def _begins(path: Path, *how: bytes) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(HDF5)).startswith(how)
    return False


def holds_all_of(run: RunFile, journal: Path) -> bool:
    """Whether a run file has all that is in its journal, `journal` being a file."""
    return bool(journal.stat().st_size == run.attributes.get("journal_bytes"))


def is_whole(run_file: Path, journal: Path) -> bool:
    """Whether a run file can be read and has all that is in its journal."""
    with contextlib.suppress(DataError, OSError), read_run(run_file) as run, undamaged(run_file):
        return holds_all_of(run, journal)
    return False


class _FromJournal(RunFile):
    """What a journal holds now, as a run file that is gone when it is closed."""

    def __init__(self, journal: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rram_hil_show_")
        try:
            newer = Path(self._folder.name) / "run.h5"
            write_run_file(journal, newer)
            super().__init__(newer)
        except BaseException:
            self._folder.cleanup()
            raise

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def open_newest(path: Path) -> RunFile:
    """The run file at `path`, or what its journal holds where that is further (a run under way, or
    one that was cut); close it or use `with`.

    Raises `DataError` for what is no run file, and where there is neither file nor journal.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder, not a run file")
    journal = path if path.suffix == JOURNAL else journal_of(path)
    if path != journal and path.exists():
        run = read_run(path)
        if not journal.exists() or holds_all_of(run, journal):
            return run
        run.close()
    elif not journal.exists():
        raise DataError(f"{path}: no such file")
    return _FromJournal(journal)


@contextlib.contextmanager
def newest(path: Path) -> Iterator[RunFile]:
    """`open_newest` for a `with` statement; what damage leads to within it becomes a `DataError` of
    one line.
    """
    with open_newest(path) as run, undamaged(path):
        yield run


def is_under_way(journal: Path) -> bool:
    """Whether another process holds a journal. False where that cannot be known: no file, or not
    this user's to write.
    """
    with contextlib.suppress(OSError):
        fd = os.open(journal, os.O_RDWR | BINARY)
        try:
            unlock(lock(fd, journal))
        except DataError:
            return True
        finally:
            os.close(fd)
    return False


def state_of(status: str, path: Path) -> str:
    """What the run at `path`, whose file says `status`, is now: complete, aborted, error,
    `INTERRUPTED`, or `UNDER_WAY` while another process holds the journal.
    """
    journal = path if path.suffix == JOURNAL else journal_of(path)
    return UNDER_WAY if status == INTERRUPTED and is_under_way(journal) else status
