"""The journal of a run: an append-only file of frames, from which a run is resumed, followed,
replayed and projected.

A frame on the disk, little-endian: magic "RHJ1", length of the payload (4 bytes), id of the journal
(8 random bytes), sequence number (8 bytes, from 0), kind (4 bytes), the payload (an encoded record,
see codec.py), CRC32 of all that (4 bytes). Each payload also repeats which ledger counted the
chip's pulses when it was written, and how far that was (`Stamp`). A frame is written by one call,
so a crash leaves whole frames and at most one torn frame at the end, which reading leaves out and
resuming cuts off. Damage anywhere else is an error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rram_hil.errors import DataError
from rram_hil.storage.codec import AnyArray, decode, encode, flatten_fields, restore_fields
from rram_hil.storage.frames import (
    _KINDS,
    _NUMBERS,
    Close,
    Frame,
    Header,
    Intent,
    Resume,
    Stamp,
    StepEnd,
    StepStart,
)
from rram_hil.storage.safe_files import (
    BINARY,
    disk,
    lock,
    release,
    remove,
    sync,
    sync_folder,
    unlock,
    write_all,
)
from rram_hil.types import Closable

_log = logging.getLogger(__name__)

MAGIC = b"RHJ1"
_HEAD = struct.Struct("<4sI8sQI")
_CRC = struct.Struct("<I")
_STAMP = "ledger"
_LONGEST = 1 << 30  # one write call takes 2 GiB at most
_AT_ONCE = 256
_COURSE = frozenset(_NUMBERS[kind] for kind in (Header, StepStart, StepEnd, Resume, Close))


@dataclass(frozen=True, eq=False)
class Entry:
    """A frame and where it stands in the file."""

    sequence: int
    offset: int
    frame: Frame


@dataclass(frozen=True)
class _Raw:
    """A whole frame whose CRC is right, not yet decoded."""

    journal_id: bytes
    sequence: int
    kind: int
    payload: bytes
    offset: int
    end: int
    crc: bytes

    def stands_in(self, file: BinaryIO) -> bool:
        """Whether a file has this frame at its place, as its ends show."""
        file.seek(self.offset)
        head = file.read(_HEAD.size)
        file.seek(self.end - _CRC.size)
        length = self.end - self.offset - _HEAD.size - _CRC.size
        mine = _HEAD.pack(MAGIC, length, self.journal_id, self.sequence, self.kind)
        return head == mine and file.read(_CRC.size) == self.crc


def _payload(frame: Frame, stamp: Stamp | None) -> bytes:
    arrays: dict[str, AnyArray] = {}
    meta = flatten_fields(frame, "", arrays)
    if stamp is not None:
        meta[_STAMP] = [stamp.ledger, stamp.count]
    return encode(type(frame).__name__, meta, arrays)


def _frame(raw: _Raw, path: Path) -> Frame:
    cls = _KINDS.get(raw.kind)
    if cls is None:
        raise DataError(
            f"frame {raw.sequence} is of unknown kind {raw.kind}; written by a newer version?",
            where=str(path),
        )
    try:
        record = decode(raw.payload)
        record.meta.pop(_STAMP, None)
        frame: Frame = restore_fields(cls, record.meta, "", record.arrays)
    except DataError as error:
        raise DataError(f"frame {raw.sequence}: {error}", where=str(path)) from None
    return frame


def _stamp(raw: _Raw) -> Stamp | None:
    """The ledger's stamp in a frame; None in journals of earlier versions."""
    told: Any = decode(raw.payload).meta.get(_STAMP)
    if told is None:
        return None
    try:
        return Stamp(str(told[0]), int(told[1]))
    except (TypeError, ValueError, LookupError):
        raise DataError(f"frame {raw.sequence}: damaged record: the ledger's stamp") from None


def _raw_at(file: BinaryIO, offset: int) -> _Raw | None:
    """The whole frame at `offset`; None where there is none (end of file, torn, damaged)."""
    file.seek(offset)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, length, journal_id, sequence, kind = _HEAD.unpack(head)
    if magic != MAGIC or length > _LONGEST:
        return None
    body = file.read(length + _CRC.size)
    if len(body) < length + _CRC.size:
        return None
    payload = body[:length]
    if _CRC.unpack_from(body, length)[0] != zlib.crc32(payload, zlib.crc32(head)):
        return None
    end = offset + _HEAD.size + length + _CRC.size
    return _Raw(journal_id, sequence, kind, payload, offset, end, body[length:])


def _charged(raw: _Raw) -> int:
    """The number of the change with which the ledger was charged for the operation that this frame
    announces; 0 for any other frame.
    """
    if raw.kind != _NUMBERS[Intent] or not np.any(decode(raw.payload).arrays.get("charge", 0)):
        return 0
    stamp = _stamp(raw)
    return 0 if stamp is None else stamp.count


class JournalReader:
    """Iterates over the whole frames of a journal, in order; safe beside a writer, takes no lock.

    After an iteration, `frames` is the number of frames, `whole_bytes` where the last one ends and
    `cut_bytes` how many bytes of a torn tail were left out. Iterating raises `DataError` for a file
    that is no journal and for damage before the end.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.frames = 0
        self.whole_bytes = 0
        self.cut_bytes = 0

    def __iter__(self) -> Iterator[Frame]:
        for entry in self.entries():
            yield entry.frame

    def entries(self) -> Iterator[Entry]:
        """The frames with their places."""
        with self._open() as file:
            for raw in self._raws(file):
                yield Entry(raw.sequence, raw.offset, _frame(raw, self.path))

    def frame_at(self, offset: int) -> Frame:
        """The frame at an entry's offset. Raises `DataError` where there is none."""
        with self._open() as file:
            raw = _raw_at(file, offset)
        if raw is None:
            raise DataError(f"{self.path}: no whole frame at byte {offset}")
        return _frame(raw, self.path)

    def header(self) -> Header:
        """The first frame. Raises `DataError` where it is torn or missing."""
        for frame in self:
            if isinstance(frame, Header):
                return frame
            break
        raise DataError("the journal has no header; the run never began", where=str(self.path))

    def course(self) -> Iterator[Frame]:
        """The frames that tell the course of the run: header, begin and end of steps, resumptions,
        ends. Of the others only the checksums are looked at.

        Raises `DataError` as iterating does.
        """
        with self._open() as file:
            for raw in self._raws(file):
                if raw.kind in _COURSE:
                    yield _frame(raw, self.path)

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with disk(f"{self.path}: journal cannot be read"), self.path.open("rb") as file:
            yield file

    def _raws(self, file: BinaryIO) -> Iterator[_Raw]:
        self.frames = self.whole_bytes = self.cut_bytes = 0
        journal_id = b""
        while (raw := _raw_at(file, self.whole_bytes)) is not None:
            if self.frames == 0:
                journal_id = raw.journal_id
            if raw.journal_id != journal_id or raw.sequence != self.frames:
                break
            self.frames += 1
            self.whole_bytes = raw.end
            yield raw
        self.check_tail(file, journal_id)

    def check_tail(self, file: BinaryIO, journal_id: bytes) -> None:
        """Count the bytes after the last whole frame. Raises `DataError` where more than a torn
        frame stands there.
        """
        self.cut_bytes = os.fstat(file.fileno()).st_size - self.whole_bytes
        if self.cut_bytes == 0:
            return
        file.seek(self.whole_bytes)
        begins = file.read(len(MAGIC))
        if self.frames == 0 and not MAGIC.startswith(begins):
            raise DataError(
                "not a journal of rram_hil (or its first bytes are damaged)", where=str(self.path)
            )
        for at in _find_magic(file, self.whole_bytes):
            later = _raw_at(file, at)
            if later is not None and (self.frames == 0 or later.journal_id == journal_id):
                raise DataError(
                    f"damaged at byte {self.whole_bytes}, after {self.frames} whole"
                    f" frames: frame {later.sequence} follows whole at byte {at}; this is no torn"
                    " end, restore the file from a copy",
                    where=str(self.path),
                )


def _find_magic(file: BinaryIO, start: int) -> Iterator[int]:
    """Every place from `start` on where a frame may begin."""
    kept = b""
    while True:
        file.seek(start + len(kept))
        chunk = kept + file.read(1 << 20)
        at = chunk.find(MAGIC)
        while at >= 0:
            yield start + at
            at = chunk.find(MAGIC, at + 1)
        if len(chunk) == len(kept):
            return
        kept = chunk[-(len(MAGIC) - 1) :]
        start += len(chunk) - len(kept)


def read_journal(path: str | Path) -> JournalReader:
    """A reader of the journal at `path`; see `JournalReader`."""
    return JournalReader(path)


def holds_run(path: str | Path) -> bool:
    """Whether a journal stands at `path` that `Journal.resume` can open; False for a missing, empty
    or headless file.

    Raises `DataError` for a file that is no journal.
    """
    path = Path(path)
    if not path.exists():
        return False
    reader = JournalReader(path)
    with reader._open() as file:
        return any(True for _ in reader._raws(file))


class JournalTail:
    """The frames of a journal as they come: each `look` hands over those that are whole by then.

    The file is opened anew at each look and no lock is taken, so the writer is never disturbed and
    the file may be replaced or removed meanwhile. `frames` and `whole_bytes` say how far it is.
    Where what was read no longer stands there (the last frame was taken back, or another run begun
    under this name), it begins at the first frame again and `restarts` grows by one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.restarts = 0
        self._reader = JournalReader(path)
        self._begin()

    @property
    def frames(self) -> int:
        """Frames handed over since the first one."""
        return self._reader.frames

    @property
    def whole_bytes(self) -> int:
        """Where the last of them ends."""
        return self._reader.whole_bytes

    def _begin(self) -> None:
        self._reader.frames = self._reader.whole_bytes = 0
        self._last: _Raw | None = None
        self._seen_bytes = self._checked_bytes = -1

    def look(self, most: int = sys.maxsize) -> list[Entry]:
        """The next whole frames, `most` at the most; none where no further one is whole yet.

        Raises `DataError` for a missing file, one that is no journal, and damage before the end.
        """
        reader = self._reader
        found: list[Entry] = []
        with reader._open() as file:
            if self._last is not None and not self._last.stands_in(file):
                self.restarts += 1
                self._begin()
            while len(found) < most and (raw := _raw_at(file, reader.whole_bytes)) is not None:
                ours = self._last is None or raw.journal_id == self._last.journal_id
                if not ours or raw.sequence != reader.frames:
                    break
                found.append(Entry(raw.sequence, raw.offset, _frame(raw, self.path)))
                self._last = raw
                reader.frames += 1
                reader.whole_bytes = raw.end
            if not found:
                self._check(file)
            elif self._last is not None:
                self._last = replace(self._last, payload=b"")  # which may be large
        return found

    def _check(self, file: BinaryIO) -> None:
        """Look for damage, once for a length of the file: where the same bytes stand twice in a
        row, no frame is on its way, and whole frames after them mean damage.
        """
        size = os.fstat(file.fileno()).st_size
        if size == self._seen_bytes != self._checked_bytes:
            self._reader.check_tail(file, b"" if self._last is None else self._last.journal_id)
            self._checked_bytes = size
        self._seen_bytes = size


def follow(
    path: str | Path,
    *,
    poll_s: float = 0.1,
    stop: Callable[[], bool] = lambda: False,
    past_close: bool = False,
) -> Iterator[Frame]:
    """The frames of a journal as they come, from any process, until its close frame (on and on with
    `past_close`).

    Looks every `poll_s` wall seconds and ends when `stop()` says so. Takes no lock and never
    disturbs the writer. Raises `DataError` for a file that is no journal, and where frames that it
    gave are no longer there.
    """
    tail = JournalTail(path)
    while True:
        found = tail.look(_AT_ONCE)
        if tail.restarts:
            raise DataError("the journal was begun anew meanwhile", where=str(path))
        for entry in found:
            yield entry.frame
            if isinstance(entry.frame, Close) and not past_close:
                return
        if not found:
            if stop():
                return
            time.sleep(poll_s)


class Journal(Closable):
    """A journal open for writing, by this process alone. Use `create` or `resume`; one thread at a
    time.

    `header` is its first frame, `sequence` the next frame's number, `cut_bytes` what `resume`
    removed from a torn end. `found` is how many whole frames `resume` met, `stamp` the ledger's
    stamp in the last of them, `charged` the number of the last change to the ledger that an intent
    in it tells of (0: none); `synced` how many frames are surely on the disk.
    """

    def __init__(
        self,
        path: Path,
        fd: int,
        journal_id: bytes,
        header: Header,
        end: int,
        sequence: int,
        cut_bytes: int = 0,
        held: Path | None = None,
    ) -> None:
        self.path = path
        self.header = header
        self.cut_bytes = cut_bytes
        self._fd = fd
        self._id = journal_id
        self._tail = (end, sequence)
        self._failed = False
        self._held = held
        self._counted: Callable[[], Stamp] | None = None
        self.found = self.synced = sequence
        self.stamp: Stamp | None = None
        self.charged = 0

    @classmethod
    def create(
        cls, path: str | Path, header: Header, counted: Callable[[], Stamp] | None = None
    ) -> Journal:
        """Begin a journal; on the disk, header included, on return. `counted` tells the stamp of
        the chip's ledger, which every frame repeats.

        Raises `DataError` where the file holds a journal already (or anything else), is in use, or
        the disk refuses.
        """
        path = Path(path)
        fd, held = _open_locked(path, os.O_CREAT)
        begun = False
        try:
            if holds_run(path):
                raise DataError(f"{path}: holds a run already; resume it or choose another file")
            # No whole frame: a run that died before its header was written. Nothing is lost by
            # beginning again.
            with disk(f"{path}: journal cannot be begun"):
                os.ftruncate(fd, 0)
            begun = True
            journal = cls(path, fd, os.urandom(8), header, 0, 0, held=held)
            journal.repeat(counted)
            journal.append(header)
            journal.sync()
            sync_folder(path.resolve().parent)
        except BaseException:
            release(fd)
            unlock(held)
            if begun:
                remove(path)
            raise
        return journal

    @classmethod
    def resume(cls, path: str | Path) -> Journal:
        """Open a journal to go on writing: every frame is checked and a torn end is cut off.

        Raises `DataError` for a missing, foreign or damaged file, one without a header, and one in
        use.
        """
        path = Path(path)
        fd, held = _open_locked(path, 0)
        try:
            reader = JournalReader(path)
            last, charged = None, 0
            with reader._open() as file:
                for raw in reader._raws(file):
                    last = raw
                    charged = _charged(raw) or charged
            end, frames, cut_bytes = reader.whole_bytes, reader.frames, reader.cut_bytes
            header = reader.header()
            assert last is not None
            journal = cls(path, fd, last.journal_id, header, end, frames, cut_bytes, held)
            journal.stamp, journal.charged = _stamp(last), charged
            if cut_bytes:
                _log.warning("%s: %d bytes of a torn end are cut off", path, cut_bytes)
            with disk(f"{path}: the torn end of the journal cannot be cut off"):
                os.ftruncate(fd, end)
                os.lseek(fd, end, os.SEEK_SET)
            journal.sync()
        except BaseException:
            release(fd)
            unlock(held)
            raise
        return journal

    def repeat(self, counted: Callable[[], Stamp] | None) -> None:
        """From here on every frame carries the stamp that `counted` tells."""
        self._counted = counted

    @property
    def run_id(self) -> str:
        """What every frame of this run carries, hexadecimal."""
        return self._id.hex()

    @property
    def sequence(self) -> int:
        """Number of the next frame."""
        return self._tail[1]

    def append(self, frame: Frame) -> int:
        """Write one frame and give its sequence number; it outlives this process, and after `sync`
        also the machine.

        Raises `DataError` for a full disk: the frame is then not in the journal, whole or in part,
        and the journal is usable.
        """
        self._usable()
        payload = _payload(frame, None if self._counted is None else self._counted())
        if len(payload) > _LONGEST:
            raise DataError(
                f"{self.path}: a {type(frame).__name__} of {len(payload)} bytes is too long; "
                f"the most is {_LONGEST}: save it in parts"
            )
        end, sequence = self._tail
        head = _HEAD.pack(MAGIC, len(payload), self._id, sequence, _NUMBERS[type(frame)])
        data = b"".join((head, payload, _CRC.pack(zlib.crc32(payload, zlib.crc32(head)))))
        try:
            write_all(self._fd, data, str(self.path))
            self._tail = (end + len(data), sequence + 1)
        except BaseException:
            # Also for Ctrl-C between the two lines: what raised is not in the journal.
            self._cut()
            raise
        return sequence

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._tail[0])
            os.lseek(self._fd, self._tail[0], os.SEEK_SET)
        except OSError:
            self._failed = True

    def sync(self) -> None:
        """Commit: bring all frames onto the disk. Raises `DataError`; what was written may then be
        lost, so writing ends.
        """
        self._usable()
        try:
            sync(self._fd, str(self.path))
        except DataError:
            self._failed = True
            raise
        self.synced = self.sequence

    def _usable(self) -> None:
        if self._fd < 0:
            raise DataError(f"{self.path}: the journal is closed")
        if self._failed:
            raise DataError(
                f"{self.path}: an earlier write failed; resume the run from the journal"
            )

    def close(self) -> None:
        """Give the file free. Safe to call twice."""
        if self._fd >= 0:
            release(self._fd)
            self._fd = -1
            unlock(self._held)


def _open_locked(path: Path, flags: int) -> tuple[int, Path | None]:
    try:
        fd = os.open(path, os.O_RDWR | BINARY | flags, 0o666)
    except OSError as error:
        raise DataError(f"{path}: journal cannot be opened: {error.strerror or error}") from None
    try:
        return fd, lock(fd, path)
    except BaseException:
        release(fd)
        raise
