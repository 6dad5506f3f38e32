"""Reading a run file."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import ConfigError, DataError
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.frames import TEMPERATURE, Scalar
from rram_hil.storage.hdf5 import NO_VARIABLE
from rram_hil.storage.run_layout import FORMAT, FORMAT_VERSION
from rram_hil.types import Closable

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SavedData:
    """A dataset of a run file: its values, the name of each dimension, unit and attributes."""

    values: AnyArray
    dims: tuple[str, ...]
    units: str
    attributes: Mapping[str, Scalar]

    def _repr_html_(self) -> str:
        """What a notebook shows: type, shape, unit, and the spread of the numbers."""
        from rram_hil.storage.run_html import saved_html

        return saved_html(self)


@dataclass(frozen=True, eq=False)
class MapStack:
    """A map over time: `values` of shape (saves, tiles, rows, columns), `time_s` and `step` of each
    save, and its `temperature_k` where the bench had a thermostat.
    """

    values: AnyArray
    time_s: NDArray[np.float64]
    step: NDArray[np.int64]
    units: str
    name: str = "map"
    temperature_k: NDArray[np.float64] | None = None

    def place(self, save: int | None = None) -> int:
        """Index of a save, counted from 1; None: the last. Raises `ConfigError` for one that there
        is not.
        """
        count = len(self.values)
        if save is None:
            return count - 1
        if not 1 <= save <= count:
            raise ConfigError(
                f"save {save} of map {self.name!r}: must lie in 1..{count}", key="save", value=save
            )
        return save - 1

    def plot(self, save: int | None = None, *, tile: int = 0, axes: Axes | None = None) -> Axes:
        """Draw one tile of a save (counted from 1; default: the last) with matplotlib, in the style
        that is set, into `axes` or a figure of its own; returns the axes.

        Raises `ConfigError` for a save or tile that there is not, and where matplotlib is missing.
        """
        from rram_hil.storage.run_plots import plot_map

        return plot_map(self, self.place(save), tile, axes)

    def _repr_html_(self) -> str:
        """What a notebook shows: the last save as a picture, and the numbers of every save."""
        from rram_hil.storage.run_html import map_html

        return map_html(self)


class ForeignFileError(DataError):
    """A sound HDF5 file that is no run file."""


_DAMAGE: tuple[type[Exception], ...] = (
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
"""What h5py, NumPy and code that takes values from a file for what they should be may raise where
the file is damaged.
"""


@contextlib.contextmanager
def undamaged(path: Path, *also: type[Exception]) -> Iterator[None]:
    """For code that reads a run file: what a damaged one leads to becomes a `DataError` of one
    line, `also` these errors. (`--debug` shows where it arose.)
    """
    try:
        yield
    except (*_DAMAGE, *also) as error:
        raise DataError(
            f"damaged, or not a whole run file: {type(error).__name__}: {error}",
            where=str(path),
        ) from error


class _Attributes(dict[str, Scalar]):
    """Attributes of a run file by name. A name that is not there raises `DataError`."""

    def __init__(self, path: Path, data: h5py.File) -> None:
        super().__init__(_attributes(data))
        self._path = path

    def __missing__(self, name: str) -> Scalar:
        raise DataError(f"damaged run file: it has no attribute {name!r}", where=str(self._path))


def _guarded(method: Callable[Concatenate[RunFile, P], T]) -> Callable[Concatenate[RunFile, P], T]:
    """A method of `RunFile` within `undamaged`."""

    @functools.wraps(method)
    def guarded(self: RunFile, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with undamaged(self.path, OSError):
            return method(self, *args, **kwargs)

    return guarded


class RunFile(Closable):
    """A run file open for reading; close it or use `with`. Every method raises `DataError` for
    damaged content.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except FileNotFoundError:
            raise DataError("no such file", where=str(self.path)) from None
        except OSError as error:
            raise DataError(
                f"not a run file, or a damaged one: {error}", where=str(self.path)
            ) from None
        try:
            with undamaged(self.path, OSError):
                self.attributes: Mapping[str, Scalar] = _Attributes(self.path, self._file)
        except DataError:
            self.close()
            raise
        version = self.attributes.get("file_format_version")
        if self.attributes.get("file_format") != FORMAT or not isinstance(version, int):
            self.close()
            raise ForeignFileError(
                "an HDF5 file, but not a run file of rram_hil", where=str(self.path)
            )
        if version > FORMAT_VERSION:
            self.close()
            raise DataError(
                f"run file version {version}; this rram_hil reads up to {FORMAT_VERSION}",
                where=str(self.path),
            )

    @property
    def status(self) -> str:
        """complete, aborted, error, or interrupted (not closed: cut, or still under way when the
        file was written).
        """
        return str(self.attributes["status"])

    @property
    def chip_id(self) -> str:
        """The chip that was in the socket."""
        return str(self.attributes["chip_id"])

    def require_chip(self, chip_id: str) -> None:
        """Raise `DataError` where this is a run of another chip."""
        if self.chip_id != chip_id:
            raise DataError(
                f"a run of chip {self.chip_id!r}, not of {chip_id!r}", where=str(self.path)
            )

    @property
    @_guarded
    def calibrations(self) -> Mapping[str, str]:
        """The calibration files in force during the run: their texts by name."""
        return {
            name: str(self._read(data)) for name, data in self._file.get("calibration", {}).items()
        }

    @property
    @_guarded
    def tables(self) -> tuple[str, ...]:
        """Names for `table`: operations, steps, notes, settings and, where the run logged
        everything, cells and codes.
        """
        names = ("operations", "steps", "notes", "settings", "cells", "codes")
        return tuple(n for n in names if n in self._file)

    @_guarded
    def rows(self, name: str) -> int:
        """Rows of a table."""
        columns = self._group(name)
        return 0 if not len(columns) else int(columns[next(iter(columns))].shape[0])

    @_guarded
    def table(
        self, name: str, rows: slice = slice(None), columns: Iterable[str] | None = None
    ) -> dict[str, AnyArray]:
        """Columns of a table, each of shape (rows,): flags as their words, text as str. Reads only
        the rows of the slice.
        """
        group = self._group(name)
        wanted = (
            list(columns) if columns is not None else [n for n in group if _is_variable(group[n])]
        )
        return {n: self._column(group, n, rows) for n in wanted}

    @_guarded
    def units(self, name: str) -> dict[str, str]:
        """Unit of each column of a table that has one."""
        group = self._group(name)
        return {n: str(group[n].attrs["units"]) for n in group if "units" in group[n].attrs}

    def operations(self) -> dict[str, AnyArray]:
        """Columns of the table of operations."""
        return self.table("operations")

    @property
    @_guarded
    def map_names(self) -> tuple[str, ...]:
        """Names of the maps."""
        return tuple(self._group("maps"))

    @_guarded
    def map(self, name: str) -> MapStack:
        """A map over time, by name ("conductance")."""
        is_map = name in self._group("maps")
        steps = [] if is_map else [step for step, saved in self.result_names if saved == name]
        if steps:
            raise DataError(
                f"no map {name!r}; it is a result: run.result({steps[-1]!r}, {name!r})",
                where=str(self.path),
            )
        group = self._group(f"maps/{name}")
        # A dataset may bear another name than its map only where the plain one is a dimension's.
        data = next(d for d in map(group.get, group) if d.ndim == 4)
        time, step = self._read(group["map_time_s"]), self._read(group["step"])
        units = str(data.attrs.get("units", ""))
        kelvin = f"{name}_{TEMPERATURE}"
        temperature_k = self._read(group[kelvin]) if kelvin in group else None
        return MapStack(self._read(data), time, step.astype(np.int64), units, name, temperature_k)

    @property
    @_guarded
    def result_names(self) -> tuple[tuple[str, str], ...]:
        """(step, name) of every saved array that is no map; the step as its group's name,
        "2_program".
        """
        results = self._group("results")
        steps = sorted(results, key=_step_number)
        return tuple(
            (s, n) for s in steps for n, d in results[s].items() if "auxiliary" not in d.attrs
        )

    @_guarded
    def result(self, step: str | int, name: str) -> SavedData:
        """A saved array, by step (number, name, or both as in `result_names`) and name."""
        groups = [g for g in self._group("results") if str(step) in (g, *g.split("_", 1))]
        found = [g for g in groups if name in self._group(f"results/{g}")]
        if len(found) != 1:
            known = ", ".join(f"{s}/{n}" for s, n in self.result_names) or "none"
            problem = "no" if not found else "more than one"
            raise DataError(
                f"{problem} result {name!r} of step {step!r}; there are: {known}",
                where=str(self.path),
            )
        return self._saved(self._file[f"results/{found[0]}/{name}"], name)

    @_guarded
    def to_xarray(self) -> xarray.DataTree:
        """Maps and results as xarray: a group each map ("maps/conductance") and each step with
        results ("results/2_program"), in them the file's variables with their dimensions, units and
        attributes; the file's own attributes at the root. All is read into memory.

        Raises `ConfigError` where xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise ConfigError("to_xarray needs xarray: pip install 'rram-hil[xarray]'") from None
        groups = [f"{kind}/{name}" for kind in ("maps", "results") for name in self._group(kind)]
        trees = {"/": xarray.Dataset(attrs=self.attributes)}
        for name in groups:
            group = self._group(name)
            saved = {n: self._saved(group[n], n) for n in group if _is_variable(group[n])}
            trees[name] = xarray.Dataset(
                {
                    n: (
                        s.dims,
                        s.values,
                        {**s.attributes, **({"units": s.units} if s.units else {})},
                    )
                    for n, s in saved.items()
                }
            )
        return xarray.DataTree.from_dict(trees)

    def plot(self, name: str = "conductance", *, tile: int = 0) -> Figure:
        """Draw a map with matplotlib: its last save, and where it was saved before the first and
        the change since, side by side; returns the figure. Raises `DataError` for no such map,
        `ConfigError` where matplotlib is missing.
        """
        from rram_hil.storage.run_plots import plot_stack

        return plot_stack(self.map(name), tile)

    def __repr__(self) -> str:
        told = self.attributes.get
        return (
            f"<RunFile {self.path}: {told('run', '')!r} on chip {told('chip_id', '')},"
            f" {told('status', '')}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: who, when, what; steps, maps and results."""
        from rram_hil.storage.run_html import run_html

        return run_html(self)

    def _saved(self, data: h5py.Dataset, name: str) -> SavedData:
        dims = tuple(str(d[0].name).rsplit("/", 1)[1] if len(d) else name for d in data.dims)
        attributes = {k: v for k, v in _attributes(data).items() if k not in _HDF5_ATTRIBUTES}
        return SavedData(self._read(data), dims, str(attributes.pop("units", "")), attributes)

    @_guarded
    def words(self) -> NDArray[np.int32] | None:
        """On-chip words at the end of the run, shape of the chip; None where none was written."""
        return self._read(self._file["words/words"]) if "words" in self._file else None

    def _group(self, name: str) -> h5py.Group:
        group = self._file.get(name)
        if not isinstance(group, h5py.Group) or group.name != f"/{name}":
            # What was asked for may hold slashes of its own.
            first, _, rest = name.partition("/")
            known = ", ".join(self._file[first if rest else "/"]) or "none"
            raise DataError(f"no {rest or first!r} in it; there are: {known}", where=str(self.path))
        return group

    def _column(self, group: h5py.Group, name: str, rows: slice) -> AnyArray:
        if name not in group:
            raise DataError(
                f"no column {name!r} in {group.name}; there are: {', '.join(group)}",
                where=str(self.path),
            )
        values = self._read(group[name], rows)
        meanings = group[name].attrs.get("flag_meanings")
        return np.array(str(meanings).split())[values] if meanings is not None else values

    def _read(self, data: h5py.Dataset, rows: slice | tuple[()] = ()) -> AnyArray:
        try:
            source = data.asstr() if h5py.check_string_dtype(data.dtype) else data
            values = np.asarray(source[rows])
        except (OSError, RuntimeError) as error:
            raise DataError(f"damaged at {data.name}: {error}", where=str(self.path)) from None
        return values.astype(bool) if data.attrs.get("dtype") == "bool" else values

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()


_HDF5_ATTRIBUTES = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "dtype")


def _step_number(group: str) -> tuple[int, str]:
    """How the groups of steps are sorted: 2 before 10, names without a number last."""
    number = group.partition("_")[0]
    return (int(number), group) if number.isdecimal() else (sys.maxsize, group)


def _is_variable(data: h5py.Dataset) -> bool:
    name = data.attrs.get("NAME", b"")
    return not (name.decode() if isinstance(name, bytes) else str(name)).startswith(NO_VARIABLE)


def _attributes(data: h5py.File | h5py.Dataset) -> dict[str, Scalar]:
    kept = {}
    for name in data.attrs:
        if name not in _HDF5_ATTRIBUTES:
            value = data.attrs[name]
            kept[name] = value.item() if isinstance(value, np.generic) else value
    return kept


def read_run(path: str | Path) -> RunFile:
    """Open a run file. Raises `DataError`, in one line, for a missing, foreign or damaged one."""
    return RunFile(path)
