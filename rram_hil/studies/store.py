"""What a study has done so far: one record a job, in a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import ValidationError

from rram_hil.errors import DataError
from rram_hil.storage.safe_files import disk, lock, release, replace, sync, unlock
from rram_hil.studies.jobs import (
    ArmRecord,
    Done,
    FormingRecord,
    Job,
    Kind,
    Record,
    TrainingRecord,
)
from rram_hil.studies.programming.jobs import MethodRecord
from rram_hil.types import Closable

_RECORDS: dict[Kind, type[Record]] = {
    "training": TrainingRecord,
    "forming": FormingRecord,
    "arm": ArmRecord,
    "method": MethodRecord,
}
_SUFFIX: dict[Kind, str] = {"training": ".safetensors", "forming": ".zip", "arm": "", "method": ""}


class Store(Closable):
    """The finished jobs of a folder. A record has its name only when it is whole and on the disk,
    after its file: what is cut at any point is as if it had not begun.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` where another process has the folder open, or the disk refuses it."""
        self._folder = folder
        lock_file = folder / ".lock"
        with disk(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._held = lock(self._fd, lock_file)
        except DataError:
            release(self._fd)
            raise
        # What workers left that were killed.
        shutil.rmtree(self.scratch, ignore_errors=True)
        with disk(str(folder)):
            self.scratch.mkdir()

    @property
    def scratch(self) -> Path:
        """Where jobs of this machine have their folders."""
        return self._folder / "scratch"

    def close(self) -> None:
        """Let others have the folder. Safe to call twice."""
        if self._fd >= 0:
            shutil.rmtree(self.scratch, ignore_errors=True)
            unlock(self._held)
            release(self._fd)
            self._fd = -1

    def has(self, job: Job) -> bool:
        """Whether the job is done."""
        return self._record(job).exists()

    def record(self, job: Job) -> Record:
        """The record of a job that is done. Raises `DataError` for a damaged one."""
        path = self._record(job)
        try:
            return _RECORDS[job.kind].model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path}: not a record of a study; delete it: {error}") from None

    def file(self, job: Job) -> bytes:
        """The file that a job made. Raises `DataError`."""
        path = self._file(job)
        with disk(str(path)):
            return path.read_bytes()

    def files(self, job: Job) -> dict[str, bytes]:
        """Everything that a job's work needs, by the names it knows."""
        made = {name: self.file(needed) for name, needed in job.needs.items()}
        return made | {name: given.content for name, given in job.inputs.items()}

    def keep(self, job: Job, done: Done) -> None:
        """Keep what a job gave. Raises `DataError` where the disk refuses it."""
        if done.file is not None:
            _write_whole(self._file(job), done.file)
        _write_whole(self._record(job), done.record.model_dump_json(indent=1).encode() + b"\n")

    def _record(self, job: Job) -> Path:
        return self._folder / f"{job.key}.json"

    def _file(self, job: Job) -> Path:
        return self._folder / f"{job.key}{_SUFFIX[job.kind]}"


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.unfinished")
    with disk(str(path)), temporary.open("wb") as file:
        file.write(content)
        file.flush()
        sync(file.fileno(), str(path))
    replace(temporary, path)
