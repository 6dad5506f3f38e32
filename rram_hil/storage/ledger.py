"""The pulse ledger: how many pulses each cell of a chip ever took, over all runs.

The counts may be too high after a crash, never too low. That needs this order around each
operation: `charge` (on the disk when it returns), intent to the journal, the operation, result to
the journal and synced, `correct` once. A run that dies anywhere between leaves at most a surplus,
and a resumed run never corrects an operation whose result already stands in the journal.

The file is a plain `.npy` array (int64, shape (tiles, rows, columns); `numpy.load` reads it)
followed by a trailer: magic, length, JSON with chip id and geometry, CRC32. Beside it,
`<file>.lock` keeps a second process out.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.array import Cells, Geometry
from rram_hil.errors import DataError, LimitError
from rram_hil.storage.array_files import BROKEN
from rram_hil.storage.safe_files import BINARY, lock, replace, sync, write_all
from rram_hil.types import Closable, IntArray

_MAGIC = b"RHLEDGER"
_TRAILER = struct.Struct("<8sI")
_CRC = struct.Struct("<I")
_DTYPE = np.dtype("<i8")


class Ledger(Closable):
    """Pulses ever given to each cell of chip `chip_id`; a new file starts at zero (`created` is
    then True).

    `limit` is the number of pulses that a cell may take in its life. Raises `DataError` for a
    foreign or damaged file and where another process has the ledger.
    """

    def __init__(self, path: str | Path, geometry: Geometry, chip_id: str, *, limit: int) -> None:
        self.path = Path(path)
        self.geometry = geometry
        self.chip_id = chip_id
        self.limit = limit
        self._fds: list[int] = []
        try:
            self._fds.append(self._open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT))
            lock(self._fds[0], str(self.path))
            self.created = not self.path.exists()
            if self.created:
                self._create()
            self._fds.append(self._open(self.path))
            self._counts, self._data_at = self._load()
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path, flags: int = 0) -> int:
        try:
            return os.open(path, os.O_RDWR | BINARY | flags, 0o666)
        except OSError as error:
            raise DataError(f"{path}: ledger cannot be opened: {error.strerror or error}") from None

    def _identity(self) -> dict[str, str | list[int]]:
        return {
            "chip_id": self.chip_id,
            "shape": list(self.geometry.shape),
            "cell": self.geometry.cell,
        }

    def _create(self) -> None:
        """Write the whole file aside first: a ledger that exists is complete, so a short one is
        damage, not a new one.
        """
        content = io.BytesIO()
        np.lib.format.write_array(content, np.zeros(self.geometry.shape, dtype=_DTYPE))
        text = json.dumps(self._identity()).encode("utf-8")
        trailer = _TRAILER.pack(_MAGIC, len(text)) + text
        content.write(trailer + _CRC.pack(zlib.crc32(trailer)))
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            fd = self._open(temporary, os.O_CREAT | os.O_TRUNC)
            try:
                write_all(fd, content.getvalue(), str(temporary))
                sync(fd, str(temporary))
            finally:
                os.close(fd)
            replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _load(self) -> tuple[NDArray[np.int64], int]:
        content = io.BytesIO(self.path.read_bytes())
        try:
            counts = np.lib.format.read_array(content, allow_pickle=False)
            trailer = content.read()
            magic, length = _TRAILER.unpack_from(trailer)
            end = _TRAILER.size + length
            (crc,) = _CRC.unpack_from(trailer, end)
            if (
                magic != _MAGIC
                or len(trailer) != end + _CRC.size
                or crc != zlib.crc32(trailer[:end])
            ):
                raise ValueError("its trailer is wrong")
            kept = json.loads(trailer[_TRAILER.size : end])
            kept = dict(kept)
        except (*BROKEN, struct.error) as error:
            raise DataError(
                f"{self.path}: not a pulse ledger, or a damaged one: {error!s:.200}"
            ) from None
        if kept != self._identity():
            raise DataError(
                f"{self.path}: ledger of chip {kept.get('chip_id')!r}, shape {kept.get('shape')},"
                f" {kept.get('cell')}; this bench has chip {self.chip_id!r}, shape"
                f" {list(self.geometry.shape)}, {self.geometry.cell}",
                chip=str(kept.get("chip_id")),
            )
        if counts.dtype != _DTYPE or counts.shape != self.geometry.shape or (counts < 0).any():
            raise DataError(
                f"{self.path}: damaged pulse ledger: wrong type or shape, or negative counts"
            )
        return counts.reshape(-1), content.getbuffer().nbytes - len(trailer) - counts.nbytes

    @property
    def counts(self) -> IntArray:
        """Pulses that each cell took so far, shape (tiles, rows, columns); a copy."""
        return self._counts.reshape(self.geometry.shape).copy()

    def check(self, cells: Cells, pulses: ArrayLike) -> None:
        """Refuse pulses (one number or one a cell) that would pass the limit; counts nothing.

        Raises `LimitError` naming the first such cell, its count and the limit.
        """
        index = cells.index(self.geometry)
        more = self._per_cell(pulses, len(cells))
        over = more > self.limit - self._counts[index]
        # Reads charge nothing and stay allowed on a worn cell.
        over &= more > 0
        if over.any():
            at = int(np.argmax(over))
            raise LimitError(
                f"cell {cells.address(at)}: {int(self._counts[index[at]])} pulses so far and up to"
                f" {int(more[at])} more would pass the limit of {self.limit} pulses a cell (ledger"
                f" of chip {self.chip_id})",
                chip=self.chip_id,
                cell=cells.address(at),
                line="pulses",
                value=int(self._counts[index[at]] + more[at]),
                allowed=(0, self.limit),
            )

    def charge(self, cells: Cells, pulses: ArrayLike) -> None:
        """Count `pulses` (one number or one a cell, the worst case) before an operation; on the
        disk on return.

        Raises `LimitError` as `check`, and then changes nothing; `DataError` where the disk
        refuses.
        """
        more = self._per_cell(pulses, len(cells))
        if (more < 0).any():
            raise DataError(f"{self.path}: a charge cannot be negative")
        self.check(cells, more)
        if more.any():
            self._change(cells.index(self.geometry), more)
            sync(self._fds[1], str(self.path))

    def correct(self, cells: Cells, surplus: ArrayLike) -> None:
        """Give back `surplus` pulses (one number or one a cell) that were charged but not used,
        once, after the result is kept.

        A negative surplus counts pulses beyond the charge. Raises `DataError` where more would come
        back than was counted.
        """
        index = cells.index(self.geometry)
        back = self._per_cell(surplus, len(cells))
        under = back > self._counts[index]
        if under.any():
            at = int(np.argmax(under))
            raise DataError(
                f"{self.path}: cell {cells.address(at)}: {int(back[at])} pulses given back, "
                f"only {int(self._counts[index[at]])} counted"
            )
        if back.any():
            self._change(index, -back)
            if (back < 0).any():
                sync(self._fds[1], str(self.path))

    def _per_cell(self, pulses: ArrayLike, n: int) -> IntArray:
        array = np.asarray(pulses)
        if array.dtype.kind not in "iu" or array.shape not in ((), (n,)):
            raise DataError(
                f"{self.path}: one whole number of pulses, or one for each of the {n} cells, is"
                " needed"
            )
        return np.broadcast_to(array.astype(np.int64), (n,))

    def _change(self, index: IntArray, more: IntArray) -> None:
        """Write the span that holds the changed counts in one go; 8-byte counts never straddle a
        disk sector.
        """
        first, last = int(index.min()), int(index.max()) + 1
        span = self._counts[first:last].copy()
        span[index - first] += more
        if len(self._fds) < 2:
            raise DataError(f"{self.path}: the ledger is closed")
        os.lseek(self._fds[1], self._data_at + first * _DTYPE.itemsize, os.SEEK_SET)
        write_all(self._fds[1], span.tobytes(), str(self.path))
        self._counts[first:last] = span

    def close(self) -> None:
        """Give the ledger free for other processes. Safe to call twice."""
        while self._fds:
            os.close(self._fds.pop())
