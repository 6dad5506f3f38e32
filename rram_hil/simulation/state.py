"""The state of a simulated chip: one array a quantity, in memory or in a memory-mapped file.

A write to the map is in the page cache at once, so a process killed at any point leaves the state
as it then was, and the next one meets the same chip. A single writer is assumed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Geometry
from rram_hil.errors import DataError
from rram_hil.types import IntArray

_MAGIC = b"rram-hil chip 4\n"
_OLDER = (b"rram-hil chip 1\n", b"rram-hil chip 2\n", b"rram-hil chip 3\n")
_HEADER = 4096
_CELL = {
    "conductance_s": np.float32,
    "programmed_s": np.float64,
    "programming": np.uint32,
    "event": np.uint32,
    "pulses": np.uint32,
    "number": np.uint64,
    "number_pulses": np.uint32,
    "formed": np.bool_,
    "fault": np.uint8,
    "word": np.int32,
    "cycle": np.uint32,
    "broken_s": np.float32,
    "cycles_done": np.uint32,
}
_PULSED = (
    "conductance_s",
    "programmed_s",
    "programming",
    "formed",
    "cycle",
    "broken_s",
    "cycles_done",
)
"""What a pulse changes of a cell."""


class ChipState:
    """Arrays of a chip, each of shape (geometry.size,) but `vectors` (tiles,), `now` (1,) and
    `last` (1,).

    Per cell: conductance just after its last programming (S), when that was (s) and which event,
    events so far, pulses ever, number of the last operation that touched it and the pulses it took
    in that one, formed, faults, on-chip word, and the event of the last RESET that broke the cell's
    filament: the cycle that it belongs to; and how large (S) the filament was, 0 for one that is
    whole; and how many such cycles it has behind it. `vectors` counts the multiply vectors of each
    tile, `now` is the virtual clock (s), `last` the highest operation number.
    """

    conductance_s: NDArray[np.float32]
    programmed_s: NDArray[np.float64]
    programming: NDArray[np.uint32]
    event: NDArray[np.uint32]
    pulses: NDArray[np.uint32]
    number: NDArray[np.uint64]
    number_pulses: NDArray[np.uint32]
    formed: NDArray[np.bool_]
    fault: NDArray[np.uint8]
    word: NDArray[np.int32]
    cycle: NDArray[np.uint32]
    broken_s: NDArray[np.float32]
    cycles_done: NDArray[np.uint32]
    vectors: NDArray[np.uint64]
    now: NDArray[np.float64]
    last: NDArray[np.uint64]

    def __init__(self, geometry: Geometry, path: Path | None, identity: dict[str, Any]) -> None:
        """Zeros for a new chip, or what `path` holds. Raises `DataError` where the file is of
        another chip or model.
        """
        shapes: dict[str, tuple[Any, int]] = {
            name: (kind, geometry.size) for name, kind in _CELL.items()
        }
        shapes |= {
            "vectors": (np.uint64, geometry.tiles),
            "now": (np.float64, 1),
            "last": (np.uint64, 1),
        }
        places: dict[str, int] = {}
        end = _HEADER
        for name, (kind, count) in shapes.items():
            places[name] = end
            end += -(-np.dtype(kind).itemsize * count // 64) * 64
        self.fresh = path is None or not path.exists()
        self._map: Any
        if path is None:
            self._map = np.zeros(end, dtype=np.uint8)
        else:
            if self.fresh:
                _create(path, end, identity)
            _check(path, end, identity)
            try:
                self._map = np.memmap(path, dtype=np.uint8, mode="r+", shape=(end,))
            except OSError as error:
                raise DataError(
                    f"{path}: the chip's state cannot be opened: {error.strerror or error}"
                ) from None
        for name, (kind, count) in shapes.items():
            size = np.dtype(kind).itemsize * count
            setattr(
                self, name, np.asarray(self._map)[places[name] : places[name] + size].view(kind)
            )

    def snapshot(self, index: IntArray) -> dict[str, NDArray[Any]]:
        """What a pulse may change of these cells, for `restore`."""
        return {name: getattr(self, name)[index] for name in _PULSED}

    def restore(self, index: IntArray, snapshot: dict[str, NDArray[Any]]) -> None:
        """Put these cells back to what they were."""
        for name, values in snapshot.items():
            getattr(self, name)[index] = values

    def flush(self) -> None:
        """Bring the file to the disk."""
        if isinstance(self._map, np.memmap):
            try:
                self._map.flush()
            except OSError as error:
                raise DataError(f"the chip's state cannot be kept: {error}") from None


def _create(path: Path, size: int, identity: dict[str, Any]) -> None:
    """A new state file, complete before it gets its name."""
    header = _MAGIC + json.dumps(identity, sort_keys=True).encode()
    if len(header) >= _HEADER:
        raise DataError(f"{path}: the chip's identity does not fit the header of a state file")
    partial = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(header)
            file.truncate(size)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path}: the chip's state cannot be created: {error}") from None


def _check(path: Path, size: int, identity: dict[str, Any]) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER).rstrip(b"\0")
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: the chip's state cannot be read: {error}") from None
    if header.startswith(_OLDER):
        raise DataError(
            f"{path}: state of an earlier version of rram-hil; remove it to start with a fresh chip"
        )
    if not header.startswith(_MAGIC):
        raise DataError(f"{path}: not the state of a simulated chip")
    try:
        found = dict(json.loads(header[len(_MAGIC) :]))
    except (ValueError, TypeError, RecursionError):
        raise DataError(f"{path}: the header of the chip's state is damaged") from None
    different = [key for key in identity if found.get(key) != identity[key]]
    if different:
        key = different[0]
        raise DataError(
            f"{path}: state of another simulated chip: its {key} is {found.get(key)!r}, this bench"
            f" has {identity[key]!r}; name another state file, or begin the chip anew"
            " (rram-hil chip reset), which keeps this one beside it"
        )
    if length != size:
        raise DataError(f"{path}: damaged: {length} bytes where this chip needs {size}")
