"""HDF5 as run files need it: files on disks that may be full, tables that grow, variables with
named dimensions.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike

from rram_hil.errors import DataError
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.safe_files import BINARY, release, sync, write_all

LONG_CHUNK = 1 << 15
SHORT_CHUNK = 1 << 8
TEXT = h5py.string_dtype()
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
_FILTERS: dict[str, Any] = {
    "compression": "gzip",
    "compression_opts": 1,
    "shuffle": True,
    "fletcher32": True,
}


class DiskFile(io.RawIOBase):
    """The file under an HDF5 file being written; keeps the first error of the disk instead of
    showing it to HDF5.

    HDF5 crashes the process when a write fails while it closes. So what follows the first error
    stays in memory, where HDF5 finds it again, and `check` raises the error outside of HDF5.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY, 0o666)
        self._path = path
        self._at = 0
        self._size = 0
        self._error: DataError | None = None
        self._unwritten: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the `DataError` of a write that failed since the beginning."""
        if self._error is not None:
            raise self._error

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def write(self, data: Any) -> int:
        """Write at the position, on the disk as long as that has room."""
        content = bytes(data)
        if self._error is None:
            try:
                os.lseek(self._fd, self._at, os.SEEK_SET)
                write_all(self._fd, content, str(self._path))
            except DataError as error:
                self._error = error
        if self._error is not None:
            self._unwritten.append((self._at, content))
        self._at += len(content)
        self._size = max(self._size, self._at)
        return len(content)

    def readinto(self, buffer: Any) -> int:
        """Read back at the position."""
        view = memoryview(buffer).cast("B")
        found = b""
        try:
            os.lseek(self._fd, self._at, os.SEEK_SET)
            found = os.read(self._fd, len(view))
        except OSError as error:
            self._error = self._error or DataError(
                f"{self._path}: cannot be read back: {error.strerror or error}"
            )
        view[: len(found)] = found
        view[len(found) :] = bytes(len(view) - len(found))
        for start, content in self._unwritten:
            first, last = max(start, self._at), min(start + len(content), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = content[first - start : last - start]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        self._size = self._at if size is None else size
        if self._error is None:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError as error:
                self._error = DataError(
                    f"{self._path}: cannot be written: {error.strerror or error}"
                )
        return self._size

    def sync(self) -> None:
        """Bring the file onto the disk. Raises `DataError` for this and for every earlier
        failure.
        """
        self.check()
        sync(self._fd, str(self._path))

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            release(self._fd)
        super().close()


@dataclass(frozen=True)
class Column:
    """A column of a table; `flags` are the words that its numbers from 0 stand for. An `optional`
    one, of floats, is there from the first rows on that have it, NaN in all others.
    """

    name: str
    dtype: Any
    long_name: str
    units: str = ""
    flags: tuple[str, ...] = ()
    optional: bool = False


def describe(dataset: h5py.Dataset, long_name: str, units: str) -> None:
    """Say what a dataset is and its unit, where they are given."""
    if long_name:
        dataset.attrs["long_name"] = long_name
    if units:
        dataset.attrs["units"] = units


class Table:
    """A group of equally long columns that grows in whole chunks; `dim` is one of them or a
    dimension without values.
    """

    def __init__(
        self,
        file: h5py.File,
        name: str,
        dim: str,
        columns: tuple[Column, ...],
        chunk: int = SHORT_CHUNK,
    ) -> None:
        group = self._group = file.create_group(name)
        self._columns = [c for c in columns if not c.optional]
        self._optional = {c.name: c for c in columns if c.optional}
        self._chunk = chunk
        self._waiting: dict[str, list[AnyArray]] = {c.name: [] for c in self._columns}
        self._waiting_rows = 0
        self.rows = 0
        self._data: dict[str, h5py.Dataset] = {}
        for column in self._columns:
            self._data[column.name] = self._made(column)
        if dim in self._data:
            self._scale = self._data[dim]
            self._scale.make_scale(dim)
        else:
            self._scale = group.create_dataset(
                dim, (0,), np.float32, maxshape=(None,), chunks=(chunk,)
            )
            self._scale.make_scale(f"{NO_VARIABLE}{0:10d}")
        for data in self._data.values():
            if data != self._scale:
                data.dims[0].attach_scale(self._scale)

    def _made(self, column: Column) -> h5py.Dataset:
        """The dataset of a column, with as many rows as the table has, all NaN of an optional
        one.
        """
        filters = {} if column.dtype is TEXT else _FILTERS
        filters = filters | {"fillvalue": np.nan} if column.optional else filters
        data = self._group.create_dataset(
            column.name,
            (self.rows,),
            column.dtype,
            maxshape=(None,),
            chunks=(self._chunk,),
            **filters,
        )
        describe(data, column.long_name, column.units)
        if column.flags:
            data.attrs["flag_values"] = np.arange(len(column.flags), dtype=column.dtype)
            data.attrs["flag_meanings"] = " ".join(column.flags)
        return data

    def _begin(self, name: str) -> None:
        """An optional column's first values have come."""
        column = self._optional.pop(name)
        data = self._data[name] = self._made(column)
        data.dims[0].attach_scale(self._scale)
        self._columns.append(column)
        self._waiting[name] = [np.full(self._waiting_rows, np.nan, dtype=column.dtype)]

    def add(self, values: Mapping[str, ArrayLike] | None) -> None:
        """Append rows: for each column one value, or one a row; a row where all are single."""
        if values is None:
            return
        for name in [n for n in self._optional if n in values]:
            self._begin(name)
        block = {
            c.name: np.atleast_1d(
                np.asarray(
                    values.get(c.name, np.nan) if c.optional else values[c.name],
                    dtype=object if c.dtype is TEXT else c.dtype,
                )
            )
            for c in self._columns
        }
        (rows,) = np.broadcast_shapes(*(column.shape for column in block.values()))
        for name, column in block.items():
            self._waiting[name].append(np.broadcast_to(column, (rows,)))
        self._waiting_rows += rows
        if self._waiting_rows >= self._chunk:
            self._write(self._waiting_rows - self._waiting_rows % self._chunk)

    def _write(self, rows: int) -> None:
        """Write the first `rows` waiting rows: chunks are compressed once, when they are full."""
        for name, data in self._data.items():
            whole = np.concatenate(self._waiting[name])
            data.resize((self.rows + rows,))
            data[self.rows :] = whole[:rows]
            self._waiting[name] = [whole[rows:]]
        self._waiting_rows -= rows
        self.rows += rows
        self._scale.resize((self.rows,))

    def finish(self) -> None:
        """Write what waits."""
        if self._waiting_rows:
            self._write(self._waiting_rows)


def free_name(group: h5py.Group, name: str) -> str:
    """The name, or the first of name_2, name_3 ... that the group has not."""
    names = (name, *(f"{name}_{i}" for i in range(2, len(group) + 3)))
    return next(n for n in names if n not in group)


def _dimension(group: h5py.Group, name: str, length: int) -> h5py.Dataset:
    """The scale of a dimension; of another length it gets a name of its own ("image_50")."""
    if name in group and group[name].shape != (length,):
        name = f"{name}_{length}"
    if name not in group:
        scale = group.create_dataset(name, (length,), np.int32, data=np.arange(length))
        scale.attrs["long_name"] = f"{name}, from 0"
        scale.attrs["auxiliary"] = 1
        scale.make_scale(name)
    return group[name]


def dataset(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dims: tuple[str, ...],
) -> h5py.Dataset:
    """A dataset with named dimensions, compressed and checksummed; a coordinate where it bears its
    only dimension's name.
    """
    stored: Any = {"b": np.dtype(np.uint8), "O": TEXT}.get(dtype.kind, dtype)
    if dtype == np.float16:
        stored = np.dtype(np.float32)  # netCDF has no half precision
    filters = _FILTERS if math.prod(shape) > 16 and dtype.kind != "O" else {}
    chunks = (
        (1, *shape[1:]) if filters and len(shape) > 3 and math.prod(shape[1:]) <= 1 << 22 else None
    )
    data = group.create_dataset(name, shape, stored, chunks=chunks, **filters)
    if dtype.kind == "b":
        data.attrs["dtype"] = "bool"  # xarray's convention
    if dims == (name,):
        data.make_scale(name)
    else:
        for axis, (dim, length) in enumerate(zip(dims, shape, strict=True)):
            data.dims[axis].attach_scale(_dimension(group, dim, length))
    return data


def variable(
    group: h5py.Group,
    name: str,
    values: ArrayLike,
    dims: tuple[str, ...],
    long_name: str = "",
    units: str = "",
) -> None:
    """A dataset with named dimensions and its values."""
    array = np.asarray(values)
    data = dataset(group, name, array.shape, array.dtype, dims)
    data[()] = array
    describe(data, long_name, units)


def beside(
    group: h5py.Group,
    name: str,
    values: ArrayLike,
    dims: tuple[str, ...],
    long_name: str,
    units: str = "",
) -> None:
    """A variable that describes saved arrays and was not itself saved."""
    variable(group, name, values, dims, long_name, units)
    group[name].attrs["auxiliary"] = 1
