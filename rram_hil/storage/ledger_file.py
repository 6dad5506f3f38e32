"""The file of a pulse ledger: of every page the old or the new state is whole, whatever cuts a
write.

It begins as a plain `.npy` array (int64, shape (tiles, rows, columns); `numpy.load` reads it), and
goes on, little-endian:

    trailer   magic, length, JSON (chip id, shape, cell, id of the ledger), CRC32 of these
    table     CRC32 of each page of 256 counts
    marks     two of (change number, 1 where closed in order, number of the last operation of the
              chip's board, CRC32), written in turn
    slots     two of (magic, change number, length of the JSON, first page, pages; JSON; pages;
              CRC32), written in turn, each with room for all pages
    past      any number of (magic, change number, length, compressed counts, CRC32): the counts as
              they stood when a run began to change them

A change goes into the slot that is not the newest, and onto the disk; only then into the array and
the table, and last its number into a mark. Opening puts the array right from the slots; what then
disagrees with its CRC is damage. After a close in order the slots are not needed, so that a bit
that flips later is seen, too.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Geometry
from rram_hil.errors import DataError
from rram_hil.storage.safe_files import BINARY, release, remove, sync, write_all
from rram_hil.storage.safe_files import replace as move
from rram_hil.types import IntArray

DTYPE = np.dtype("<i8")
PAGE = 256
_OLDER = b"RHLEDGER"
_MAGIC = b"RHLEDGE2"
_TRAILER = struct.Struct("<8sI")
_CRC = struct.Struct("<I")
_MARK_HEAD = struct.Struct("<QBQ")
_MARK = struct.Struct("<QBQI")
_SLOT = struct.Struct("<8sQIII")
_SLOT_MAGIC = b"RHCHANGE"
_PAST = struct.Struct("<8sQI")
_PAST_MAGIC = b"RHBEFORE"
_META = 1 << 13
_PAST_KEPT = 32
_SESSIONS_KEPT = 64
_NAME = 60


@dataclass(frozen=True)
class Session:
    """A run's changes in a row, numbered `first` to `last`.

    `operation` is the number of the operation of its last charge, `charged` that the last change is
    a charge, `synced` how many frames of its journal were then surely on the disk. `offset` is what
    a merge added to the numbers that the run's journal knows.
    """

    run: str
    name: str
    first: int
    last: int
    utc: str = ""
    operation: int = 0
    charged: bool = False
    synced: int = 0
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Content:
    """All that a ledger holds. `counts` is flat; `count` numbers the last change; `ids` are ledgers
    that were merged into it; `past` keeps earlier counts by the number of the change before them.
    `seen` is the number of the last operation on the chip when it was closed; 0: not known.
    """

    chip_id: str
    geometry: Geometry
    id: str
    counts: NDArray[np.int64]
    count: int = 0
    sessions: tuple[Session, ...] = ()
    ids: tuple[str, ...] = ()
    past: Mapping[int, bytes] = field(default_factory=dict)
    seen: int = 0

    @staticmethod
    def packed(counts: IntArray) -> bytes:
        """Counts as `past` keeps them."""
        return zlib.compress(counts.astype(DTYPE).tobytes(), 1)

    def counts_at(self, count: int) -> IntArray | None:
        """The counts (flat) after change `count`, where they are still known."""
        if count == self.count:
            return self.counts
        if count in self.past:
            return np.frombuffer(zlib.decompress(self.past[count]), dtype=DTYPE).astype(np.int64)
        return np.zeros(self.geometry.size, dtype=np.int64) if count == 0 else None

    @classmethod
    def new(cls, chip_id: str, geometry: Geometry) -> Content:
        """A ledger in which nothing was counted yet."""
        counts = np.zeros(geometry.size, dtype=np.int64)
        return cls(chip_id, geometry, os.urandom(8).hex(), counts)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a file stand, in bytes."""

    data: int
    size: int
    trailer: int

    @property
    def pages(self) -> int:
        return -(-self.size // PAGE)

    @property
    def table(self) -> int:
        return self.data + self.size * DTYPE.itemsize + self.trailer

    @property
    def marks(self) -> int:
        return self.table + self.pages * _CRC.size

    @property
    def slots(self) -> int:
        return self.marks + 2 * _MARK.size

    @property
    def slot(self) -> int:
        return _SLOT.size + _META + self.size * DTYPE.itemsize + _CRC.size

    @property
    def past(self) -> int:
        return self.slots + 2 * self.slot


@dataclass(frozen=True, eq=False)
class _Slot:
    count: int
    meta: dict[str, Any]
    first: int
    pages: int
    data: bytes


def encode(content: Content) -> bytes:
    """A whole file, closed in order."""
    out, layout = _front(content)
    table = _table(content.counts, 0, layout.pages)
    mark = _mark(content, closed=True)
    marks = bytearray(2 * _MARK.size)
    at = content.count % 2 * _MARK.size
    marks[at : at + _MARK.size] = mark
    slots = bytearray(2 * layout.slot)
    slot = _slot(content, 0, 0)
    at = content.count % 2 * layout.slot
    slots[at : at + len(slot)] = slot
    past = list(content.past.items())[-_PAST_KEPT:]
    return b"".join((out, table, marks, slots, *(_snapshot(n, c) for n, c in past)))


def _front(content: Content) -> tuple[bytes, _Layout]:
    out = io.BytesIO()
    shape = content.geometry.shape
    np.lib.format.write_array(out, content.counts.astype(DTYPE).reshape(shape))
    data = out.tell() - content.counts.size * DTYPE.itemsize
    identity = {
        "chip_id": content.chip_id,
        "shape": list(shape),
        "cell": content.geometry.cell,
        "id": content.id,
    }
    text = json.dumps(identity).encode("utf-8")
    trailer = _TRAILER.pack(_MAGIC, len(text)) + text
    out.write(trailer + _CRC.pack(zlib.crc32(trailer)))
    return out.getvalue(), _Layout(data, content.counts.size, len(trailer) + _CRC.size)


def _table(counts: NDArray[np.int64], first: int, pages: int) -> bytes:
    return b"".join(
        _CRC.pack(zlib.crc32(counts[at * PAGE : (at + 1) * PAGE].tobytes()))
        for at in range(first, first + pages)
    )


def _mark(content: Content, *, closed: bool) -> bytes:
    head = _MARK_HEAD.pack(content.count, closed, content.seen)
    return head + _CRC.pack(zlib.crc32(head))


def _slot(content: Content, first: int, pages: int) -> bytes:
    sessions = [
        astuple(replace(s, name=s.name[:_NAME])) for s in content.sessions[-_SESSIONS_KEPT:]
    ]
    while True:
        meta = {"sessions": sessions, "ids": content.ids[-_SESSIONS_KEPT:]}
        text = json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        if len(text) <= _META:
            break
        del sessions[0]
    data = content.counts[first * PAGE : (first + pages) * PAGE].tobytes()
    head = _SLOT.pack(_SLOT_MAGIC, content.count, len(text), first, pages)
    whole = head + text + data
    return whole + _CRC.pack(zlib.crc32(whole))


def _snapshot(count: int, packed: bytes) -> bytes:
    whole = _PAST.pack(_PAST_MAGIC, count, len(packed)) + packed
    return whole + _CRC.pack(zlib.crc32(whole))


class _Parsed:
    """What stands in the bytes of a file. Raises `DataError` where that is no whole ledger."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.path = path
        stream = io.BytesIO(data)
        try:
            counts = np.lib.format.read_array(stream, allow_pickle=False)
        except Exception as error:
            # NumPy evaluates the text of a damaged header: nearly any exception may come of it.
            raise self.damaged(str(error)) from None
        begin = stream.tell()
        try:
            magic, length = _TRAILER.unpack_from(data, begin)
            end = begin + _TRAILER.size + length
            if magic not in (_MAGIC, _OLDER) or _CRC.unpack_from(data, end)[0] != zlib.crc32(
                data[begin:end]
            ):
                raise ValueError("its trailer is wrong")
            self.identity: dict[str, Any] = dict(json.loads(data[begin + _TRAILER.size : end]))
        except (ValueError, TypeError, RecursionError, struct.error) as error:
            raise self.damaged(str(error)) from None
        self.is_older = magic == _OLDER
        if (
            counts.dtype != DTYPE
            or list(counts.shape) != self.identity.get("shape")
            or (self.is_older and (len(data) != end + _CRC.size or (counts < 0).any()))
        ):
            raise self.damaged("wrong type, shape or length, or negative counts")
        self.counts: NDArray[np.int64] = counts.reshape(-1).copy()
        self.layout = _Layout(
            begin - self.counts.size * DTYPE.itemsize, counts.size, end + _CRC.size - begin
        )
        self._data = data

    def damaged(self, why: str) -> DataError:
        return DataError(
            f"{self.path}: not a pulse ledger, or a damaged one: {why}; put a copy of it there, or"
            " see `rram-hil ledger adopt --help`"
        )

    def content(self, geometry: Geometry) -> tuple[Content, int, bool]:
        """What it holds, where the next snapshot goes, and whether it was closed in order."""
        identity = self.identity
        if self.is_older:
            name = f"{zlib.crc32(self._data):08x}{zlib.crc32(self._data, 1):08x}"
            content = Content(identity["chip_id"], geometry, name, self.counts, 1)
            return content, 0, True
        if len(self._data) < self.layout.past:
            raise self.damaged(f"{len(self._data)} bytes where {self.layout.past} are needed")
        mark, closed, seen = max(self._marks(), default=(-1, False, 0))
        slots = sorted(self._slots(), key=lambda slot: slot.count)
        newest = slots[-1].count if slots else -1
        if mark > newest or not slots:
            raise self.damaged("its last change cannot be read")
        closed = closed and mark == newest
        table = self._settled(() if closed else slots)
        self._check(table)
        past, end = self._past()
        meta = slots[-1].meta
        content = Content(
            identity["chip_id"],
            geometry,
            str(identity["id"]),
            self.counts,
            newest,
            tuple(Session(*s) for s in meta["sessions"]),
            tuple(meta["ids"]),
            past,
            seen if closed else 0,
        )
        return content, end, closed

    def _marks(self) -> Iterator[tuple[int, bool, int]]:
        for n in range(2):
            at = self.layout.marks + n * _MARK.size
            count, closed, seen, crc = _MARK.unpack_from(self._data, at)
            if crc == zlib.crc32(self._data[at : at + _MARK_HEAD.size]):
                yield count, bool(closed), seen

    def _slots(self) -> Iterator[_Slot]:
        for n in range(2):
            at = self.layout.slots + n * self.layout.slot
            magic, count, length, first, pages = _SLOT.unpack_from(self._data, at)
            if magic != _SLOT_MAGIC or length > _META or first + pages > self.layout.pages:
                continue
            begin = at + _SLOT.size + length
            size = len(self.counts[first * PAGE : (first + pages) * PAGE]) * DTYPE.itemsize
            if _CRC.unpack_from(self._data, begin + size)[0] == zlib.crc32(
                self._data[at : begin + size]
            ):
                meta = json.loads(self._data[at + _SLOT.size : begin])
                yield _Slot(count, meta, first, pages, self._data[begin : begin + size])

    def _settled(self, slots: list[_Slot] | tuple[()]) -> bytearray:
        """Put into the array what the slots hold; the table as it then must be."""
        layout = self.layout
        table = bytearray(self._data[layout.table : layout.marks])
        for slot in slots:
            values = np.frombuffer(slot.data, dtype=DTYPE)
            self.counts[slot.first * PAGE : slot.first * PAGE + len(values)] = values
            fresh = _table(self.counts, slot.first, slot.pages)
            table[slot.first * _CRC.size : slot.first * _CRC.size + len(fresh)] = fresh
        return table

    def _check(self, table: bytearray) -> None:
        right = _table(self.counts, 0, self.layout.pages)
        if right != table:
            wrong = next(
                n
                for n in range(self.layout.pages)
                if right[n * _CRC.size : (n + 1) * _CRC.size]
                != table[n * _CRC.size : (n + 1) * _CRC.size]
            )
            last = min((wrong + 1) * PAGE, self.counts.size) - 1
            raise self.damaged(f"the counts of cells {wrong * PAGE} to {last} are not those kept")

    def _past(self) -> tuple[dict[int, bytes], int]:
        found: dict[int, bytes] = {}
        at = self.layout.past
        while len(self._data) >= at + _PAST.size + _CRC.size:
            magic, count, length = _PAST.unpack_from(self._data, at)
            end = at + _PAST.size + length
            if (
                magic != _PAST_MAGIC
                or len(self._data) < end + _CRC.size
                or _CRC.unpack_from(self._data, end)[0] != zlib.crc32(self._data[at:end])
            ):
                break
            found[count] = self._data[at + _PAST.size : end]
            at = end + _CRC.size
        return found, at


def parse(data: bytes, path: Path, chip_id: str, geometry: Geometry) -> tuple[Content, int, bool]:
    """The ledger in these bytes, where its next snapshot goes (0: a file of an earlier version),
    whether it was closed in order. Raises `DataError` for damage, and for another chip's ledger.
    """
    parsed = _Parsed(data, path)
    kept = parsed.identity
    wanted = {"chip_id": chip_id, "shape": list(geometry.shape), "cell": geometry.cell}
    if {name: kept.get(name) for name in wanted} != wanted:
        raise DataError(
            f"{path}: ledger of chip {kept.get('chip_id')!r}, shape {kept.get('shape')},"
            f" {kept.get('cell')}; this bench has chip {chip_id!r}, shape"
            f" {list(geometry.shape)}, {geometry.cell}",
            chip=str(kept.get("chip_id")),
        )
    return parsed.content(geometry)


def read_ledger(path: Path, chip_id: str, geometry: Geometry) -> Content:
    """What the ledger at `path` holds, without a lock. Raises `DataError` where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path}: ledger cannot be read: there is none yet; a chip's begins at zero with its"
            " first run"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: ledger cannot be read: {error.strerror or error}") from None
    return parse(data, path, chip_id, geometry)[0]


def write_whole(path: Path, content: Content) -> None:
    """Write a ledger aside and put it in the place of `path`: a ledger that exists is complete, so
    a short one is damage, not a new one. Raises `DataError` where the disk refuses.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        fd = open_file(temporary, os.O_CREAT | os.O_TRUNC)
        try:
            write_all(fd, encode(content), str(temporary))
            sync(fd, str(temporary))
        finally:
            release(fd)
        move(temporary, path)
    finally:
        remove(temporary)


def open_file(path: Path, flags: int = 0) -> int:
    """A file descriptor for reading and writing. Raises `DataError`."""
    try:
        return os.open(path, os.O_RDWR | BINARY | flags, 0o666)
    except OSError as error:
        raise DataError(f"{path}: ledger cannot be opened: {error.strerror or error}") from None


class LedgerFile:
    """A ledger's open file, which keeps `content` on the disk; `lock` must be held."""

    def __init__(self, path: Path, fd: int, chip_id: str, geometry: Geometry) -> None:
        """Read the file; put right what a crash left half done. Raises `DataError`."""
        self._path, self._fd = path, fd
        self.content, self._past_end, closed = parse(_whole(fd), path, chip_id, geometry)
        self._layout = _front(self.content)[1]
        self._is_stale = False  # whether the slots hold a change that the array has not
        if not closed:
            self._write(self._layout.data, self.content.counts.tobytes())
            self._write(self._layout.table, _table(self.content.counts, 0, self._layout.pages))
            self.settle(0)

    def is_current(self, path: Path) -> bool:
        """Whether the file at `path` is still this one."""
        try:
            there = os.stat(path)
        except OSError:
            return False
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def change(self, counts: NDArray[np.int64], span: tuple[int, int], session: Session) -> None:
        """Count: `counts` (flat) differ from those kept in cells span[0] to span[1] - 1 only.

        On the disk on return. Raises `DataError` where the disk refuses; nothing is counted then.
        """
        if self._is_stale:
            raise DataError(f"{self._path}: an earlier write failed; open the ledger again")
        first, pages = span[0] // PAGE, -(-span[1] // PAGE) - span[0] // PAGE
        sessions = self.content.sessions
        if sessions and (sessions[-1].run, sessions[-1].utc) == (session.run, session.utc):
            sessions = (*sessions[:-1], replace(session, first=sessions[-1].first))
        else:
            self._remember()
            sessions = (*sessions, session)
        content = replace(
            self.content, counts=counts, count=session.last, sessions=sessions[-_SESSIONS_KEPT:]
        )
        self._write(
            self._layout.slots + session.last % 2 * self._layout.slot,
            _slot(content, first, pages),
        )
        sync(self._fd, str(self._path))
        self.content, self._is_stale = content, True
        changed = counts[first * PAGE : (first + pages) * PAGE]
        self._write(self._layout.data + first * PAGE * DTYPE.itemsize, changed.tobytes())
        self._write(self._layout.table + first * _CRC.size, _table(counts, first, pages))
        self._mark(closed=False)
        self._is_stale = False

    def _remember(self) -> None:
        """Keep the counts as they stand before another run changes them, for a later merge."""
        count = self.content.count
        if count == 0:
            return
        packed = Content.packed(self.content.counts)
        snapshot = _snapshot(count, packed)
        self._write(self._past_end, snapshot)
        self._past_end += len(snapshot)
        self.content = replace(self.content, past={**self.content.past, count: packed})

    def _mark(self, *, closed: bool) -> None:
        at = self._layout.marks + self.content.count % 2 * _MARK.size
        if closed:
            sync(self._fd, str(self._path))
        self._write(at, _mark(self.content, closed=closed))

    def _write(self, at: int, data: bytes) -> None:
        os.lseek(self._fd, at, os.SEEK_SET)
        write_all(self._fd, data, str(self._path))

    def settle(self, seen: int) -> None:
        """Everything onto the disk, so that whatever changes later is damage; `seen` is kept."""
        if not self._is_stale:
            self.content = replace(self.content, seen=seen)
            self._mark(closed=True)
            sync(self._fd, str(self._path))


def _whole(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(fd, 1 << 24), b""))
