"""The run file: what a journal holds, as HDF5 that h5py, MATLAB, HDFView and xarray read
(docs/run-file.md).

`write_run_file` is a pure projection: the same journal gives the same content, at any time, as
often as one likes. `read_run` opens a run file again.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.array.operations import Status
from rram_hil.array.results import ApplyResult, ProgramResult
from rram_hil.errors import DataError
from rram_hil.storage.codec import Record, result_from
from rram_hil.storage.frames import (
    Aside,
    Close,
    Failed,
    Intent,
    Note,
    Outcome,
    Resume,
    Saved,
    Scalar,
    StepEnd,
    StepStart,
)
from rram_hil.storage.journal import JournalReader
from rram_hil.storage.run_layout import (
    _CELLS,
    _CODES,
    _FILTERS,
    _LONG_CHUNK,
    _NOTES,
    _OPERATIONS,
    _SETTINGS,
    _STEPS,
    _TEXT,
    EVENTS,
    FORMAT,
    FORMAT_VERSION,
    KINDS,
    MAP_DIMS,
    OUTCOMES,
    _describe,
    _Table,
)
from rram_hil.storage.safe_files import BINARY, replace, sync, write_all


class _Sink(io.RawIOBase):
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
        os.lseek(self._fd, self._at, os.SEEK_SET)
        found = os.read(self._fd, len(view))
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
            os.close(self._fd)
        super().close()


@dataclass
class _Step:
    name: str = ""
    protocol: str = ""
    version: str = ""
    started_s: float = math.nan
    ended_s: float = math.nan
    operations: int = 0
    pulses: int = 0
    reads: int = 0


@dataclass(frozen=True)
class _SaveKey:
    """Saves that can be stacked share all of this."""

    step: int
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    units: str


@dataclass(frozen=True)
class _SaveAt:
    offset: int
    step: int
    time_s: float
    attrs: Mapping[str, Scalar]


@dataclass
class _Projection:
    """One pass over a journal into an open HDF5 file; saved arrays are fetched again one at a time
    at the end.
    """

    reader: JournalReader
    file: h5py.File
    sink: _Sink
    steps: dict[int, _Step] = field(default_factory=dict)
    open: dict[int, Intent] = field(default_factory=dict)
    saves: dict[_SaveKey, list[_SaveAt]] = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)
    words: NDArray[np.int32] | None = None
    written: NDArray[np.uint8] | None = None
    status: str = "interrupted"
    ended_utc: str = ""
    resumed: int = 0

    def run(self) -> None:
        """Write everything."""
        header = self.reader.header()
        self.header = header
        calibration = self.file.create_group("calibration")
        for name, text in header.calibration.items():
            if "\n" in text:
                calibration.create_dataset(name, data=text, dtype=_TEXT)
        self.operations = _Table(self.file, "operations", "operation", _OPERATIONS)
        self.notes = _Table(self.file, "notes", "note", _NOTES)
        if header.log == "all":
            self.cells = _Table(self.file, "cells", "event", _CELLS, _LONG_CHUNK)
            self.codes = _Table(self.file, "codes", "reading", _CODES, _LONG_CHUNK)
        for entry in self.reader.entries():
            self.sink.check()
            match entry.frame:
                case StepStart() as f:
                    step = self._step(f.step)
                    step.name, step.protocol, step.version, step.started_s = (
                        f.name,
                        f.protocol,
                        f.version,
                        f.time_s,
                    )
                case StepEnd() as f:
                    self._step(f.step).ended_s = f.time_s
                case Intent() as f:
                    self.open[f.operation] = f
                case Outcome() as f:
                    self._outcome(self._intent_of(f.operation), f.record)
                case Aside() as f:
                    nothing = np.zeros(0, dtype=np.int64)
                    self._outcome(Intent(f.operation, f.step, f.record, nothing), f.result)
                case Saved() as f:
                    self._saved(f, entry.offset)
                case Failed() as f:
                    place = f"operation {f.operation}: " if f.operation else ""
                    text = f"{place}{f.error}: {f.restored()}"
                    self.notes.add(
                        1, event=EVENTS.index("error"), text=text, utc="", time_s=math.nan
                    )
                case Note() as f:
                    self.notes.add(
                        1, event=EVENTS.index(f.event), text=f.text, utc=f.utc, time_s=f.time_s
                    )
                case Resume() as f:
                    text = (
                        f"resumed by {f.operator or 'unknown'} on {f.instrument.model}"
                        f" {f.instrument.serial}"
                    )
                    self.notes.add(
                        1, event=EVENTS.index("resumed"), text=text, utc=f.utc, time_s=f.time_s
                    )
                    self.status, self.ended_utc, self.resumed = "interrupted", "", self.resumed + 1
                case Close() as f:
                    self.status, self.ended_utc = f.status, f.utc
        for number in sorted(self.open):
            self._row(self.open[number], OUTCOMES.index("no_result"))
        self._finish()

    def _step(self, number: int) -> _Step:
        return self.steps.setdefault(number, _Step())

    def _intent_of(self, operation: int) -> Intent:
        if operation not in self.open:
            raise DataError(
                f"{self.reader.path}: a result of operation {operation} without its intent"
            )
        return self.open.pop(operation)

    def _outcome(self, intent: Intent, record: Record) -> None:
        meta: dict[str, Any] = record.meta
        interrupted = bool(meta.get("interrupted", False))
        done = OUTCOMES.index("interrupted" if interrupted else "done")
        columns: dict[str, Any] = {
            "started_s": meta["span"]["started_s"],
            "ended_s": meta["span"]["ended_s"],
            "away_s": meta.get("away_s", 0.0),
        }
        if record.kind in ("ApplyResult", "ProgramResult"):
            result = result_from(record)
            assert isinstance(result, ApplyResult | ProgramResult)
            status = result.status[result.status != Status.NOT_RUN]
            columns["pulses"] = int(result.pulses.sum())
            columns["reads"] = int(result.reads.sum())
            columns["not_ok"] = int(np.count_nonzero(status != Status.OK))
            if self.header.log == "all":
                self._cell_events(intent, result)
        elif record.kind == "MultiplyResult":
            columns |= {name: meta[name] for name in ("saturated", "lsb_a", "emulated")}
            if self.header.log == "all" and not record.summary:
                self._code_events(intent.operation, record)
        elif record.kind == "WordsResult":
            self._write_words(intent.record)
        self._row(intent, done, **columns)
        step = self._step(intent.step)
        step.operations += 1
        step.pulses += columns.get("pulses", 0)
        step.reads += columns.get("reads", 0)

    def _row(self, intent: Intent, outcome: int, **columns: Any) -> None:
        record = intent.record
        meta: dict[str, Any] = record.meta
        inputs = record.shape("inputs") or (0, 0)
        block = inputs[1] * meta["columns"] if record.kind == "Multiply" else 0
        given = {c.name: math.nan if c.dtype is np.float64 else 0 for c in _OPERATIONS}
        given |= {
            "operation": intent.operation,
            "step": intent.step,
            "kind": KINDS.index(record.kind),
            "label": meta.get("label", ""),
            "settings": self.settings.setdefault(_settings(record), len(self.settings)),
            "outcome": outcome,
            "away_s": 0.0,
            "cells": record.arrays["cells.row"].size if "cells.row" in record.arrays else block,
            "charged": int(intent.charge.sum()),
            "vectors": inputs[0],
        }
        self.operations.add(1, **(given | columns))

    def _cell_events(self, intent: Intent, result: ApplyResult | ProgramResult) -> None:
        tile, row, column = (intent.record.arrays[f"cells.{name}"] for name in MAP_DIMS)
        if isinstance(result, ProgramResult):
            self.cells.add(
                tile.size,
                operation=intent.operation,
                tile=tile,
                row=row,
                column=column,
                measurement=0,
                current_a=np.nan,
                conductance_s=result.conductance_s,
                status=result.status,
                time_s=result.span.ended_s,
                pulses=result.pulses,
                set_pulses=result.set_pulses,
                reset_pulses=result.reset_pulses,
                reads=result.reads,
                inside=result.inside,
            )
            return
        n, m = result.status.shape
        if m == 0:
            result = ApplyResult(
                np.full((n, 1), np.nan),
                np.full((n, 1), np.nan),
                np.full((n, 1), Status.NOT_RUN, dtype=np.uint8),
                np.full((n, 1), result.span.ended_s),
                result.pulses,
                result.reads,
            )
        kept = result.status != Status.NOT_RUN
        kept[:, :1] = True
        cell, place = np.nonzero(kept)
        first = place == 0
        self.cells.add(
            cell.size,
            operation=intent.operation,
            tile=tile[cell],
            row=row[cell],
            column=column[cell],
            measurement=place,
            current_a=result.current_a[kept],
            conductance_s=result.conductance_s[kept],
            status=result.status[kept],
            time_s=result.time_s[kept],
            pulses=np.where(first, result.pulses[cell], 0),
            set_pulses=0,
            reset_pulses=0,
            reads=np.where(first, result.reads[cell], 0),
            inside=-1,
        )

    def _code_events(self, operation: int, record: Record) -> None:
        codes = record.arrays["codes"]
        vector, column = np.indices(codes.shape)
        sums = record.arrays.get("word_sums", np.zeros_like(codes))
        self.codes.add(
            codes.size,
            operation=operation,
            vector=vector.ravel(),
            column=column.ravel(),
            code=codes.ravel(),
            word_sum=sums.ravel(),
        )

    def _write_words(self, record: Record) -> None:
        if self.words is None or self.written is None or record.meta["clear"]:
            self.words = np.zeros(self.header.geometry.shape, dtype=np.int32)
            self.written = np.zeros(self.header.geometry.shape, dtype=np.uint8)
        cells = tuple(record.arrays[f"cells.{name}"] for name in MAP_DIMS)
        self.words[cells] = record.arrays["values"]
        self.written[cells] = 1

    def _saved(self, frame: Saved, offset: int) -> None:
        values = frame.values
        is_map = frame.dims == MAP_DIMS and values.shape == self.header.geometry.shape
        step = -1 if is_map else frame.step
        key = _SaveKey(step, frame.name, frame.dims, values.shape, values.dtype.str, frame.units)
        self.saves.setdefault(key, []).append(
            _SaveAt(offset, frame.step, frame.time_s, frame.attrs)
        )

    def _finish(self) -> None:
        file = self.file
        tables = [self.operations, self.notes] + (
            [self.cells, self.codes] if self.header.log == "all" else []
        )
        settings = _Table(file, "settings", "setting", _SETTINGS)
        settings.add(len(self.settings), text=list(self.settings))
        steps = _Table(file, "steps", "step", _STEPS)
        for number in sorted(self.steps):
            steps.add(1, step=number, **vars(self.steps[number]))
        for table in (*tables, settings, steps):
            table.finish()
        maps, results = file.create_group("maps"), file.create_group("results")
        for key in (k for k in self.saves if k.step < 0):
            self._write_saves(maps.create_group(_free(maps, key.name)), [key], stack=True)
        for step in sorted({k.step for k in self.saves if k.step >= 0}):
            name = self._step(step).name.replace("/", "_")
            group = results.create_group(f"{step}_{name}" if name else str(step))
            self._write_saves(group, [k for k in self.saves if k.step == step], stack=False)
        if self.words is not None and self.written is not None:
            group = file.create_group("words")
            _variable(
                group, "words", self.words, MAP_DIMS, "on-chip words at the end of the run", "1"
            )
            _variable(group, "written", self.written, MAP_DIMS, "1: this place holds a word")
        file.attrs.update(self._attributes())

    def _write_saves(self, group: h5py.Group, keys: list[_SaveKey], *, stack: bool) -> None:
        """Saved arrays of one group; several saves under one key are stacked along time, and maps
        always.
        """
        reserved = {d for key in keys for d in key.dims} | (
            {"map_time_s", "step"} if stack else set()
        )
        # Coordinates first: a dimension is the variable of its name where there is one.
        for key in sorted(keys, key=lambda k: k.dims != (k.name,)):
            at = self.saves[key]
            stacked = stack or len(at) > 1
            coordinate = key.dims == (key.name,) and not stacked
            taken = key.name in reserved and not coordinate
            name = _free(group, f"{key.name}_values" if taken else key.name)
            shape, dims = key.shape, key.dims
            if stacked:
                time = _free(group, "map_time_s" if stack else f"{name}_time_s")
                times = np.array([a.time_s for a in at])
                _beside(group, time, times, (time,), "time of saving on the bench clock", "s")
                shape, dims = (len(at), *shape), (time, *dims)
            dtype = np.dtype(key.dtype)
            data = _dataset(group, name, shape, dtype, dims)
            for i, save in enumerate(at):
                self.sink.check()
                frame = self.reader.frame_at(save.offset)
                assert isinstance(frame, Saved)
                data[(i, ...) if stacked else ()] = frame.values
            shared = {k: v for k, v in at[0].attrs.items() if all(a.attrs.get(k) == v for a in at)}
            _describe(data, "", key.units)
            data.attrs.update(shared)
            if stack:
                _beside(
                    group, "step", [a.step for a in at], dims[:1], "step of the recipe that saved"
                )
            if not stacked:
                data.attrs["time_s"] = at[0].time_s
            for attr in {k: None for a in at for k in a.attrs if k not in shared}:
                values = [a.attrs.get(attr, math.nan) for a in at]
                texts = any(isinstance(v, str) for v in values)
                column = (
                    np.array([str(v) for v in values], dtype=object) if texts else np.array(values)
                )
                _beside(
                    group,
                    _free(group, f"{name}_{attr}"),
                    column,
                    dims[:1],
                    f"{attr} of each save of {name}",
                )

    def _attributes(self) -> dict[str, Scalar]:
        h = self.header
        attributes: dict[str, Scalar] = {
            "Conventions": "CF-1.11",
            "title": f"run {h.run} on chip {h.chip_id}",
            "source": f"rram_hil {h.package_version}",
            "file_format": FORMAT,
            "file_format_version": FORMAT_VERSION,
            "status": self.status,
            "run": h.run,
            "started_utc": h.started_utc,
            "ended_utc": self.ended_utc,
            "resumed": self.resumed,
            "chip_id": h.chip_id,
            "die": h.die,
            "lot": h.lot,
            "tiles": h.geometry.tiles,
            "rows": h.geometry.rows,
            "columns": h.geometry.columns,
            "cell": h.geometry.cell,
            "source_lines": h.geometry.source_lines,
            "temperature_k": math.nan if h.temperature_k is None else h.temperature_k,
            "operator": h.operator,
            "bench": h.bench,
            "bench_sha256": h.bench_hash,
            "recipe": h.recipe,
            "recipe_sha256": h.recipe_hash,
            "protocols": ", ".join(f"{name} {version}" for name, version in h.protocols.items()),
            "package_version": h.package_version,
            "git_revision": h.git_revision,
            "clock": h.clock,
            "log": h.log,
            "journal_frames": self.reader.frames,
            "journal_bytes": self.reader.whole_bytes,
            "journal_cut_bytes": self.reader.cut_bytes,
        }
        attributes |= {} if h.seed is None else {"seed": h.seed}
        attributes |= {f"instrument_{k}": v for k, v in vars(h.instrument).items()}
        attributes |= {f"version_{k}": v for k, v in h.versions.items()}
        # An attribute holds 64 KiB at most: whole calibration files are datasets of /calibration.
        return attributes | {
            f"calibration_{k}": v for k, v in h.calibration.items() if "\n" not in v
        }


def _settings(record: Record) -> str:
    """What an operation does, as JSON: without its cells and label; a per-cell value as its
    extremes.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(v) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if not isinstance(value, dict):
            return value
        if "$array" in value:
            array = record.arrays[value["$array"]]
            if array.size == 0 or array.dtype.kind == "b":
                return {"shape": list(array.shape)}
            low, high = (plain(x.item()) for x in (np.min(array), np.max(array)))
            return {"low": low, "high": high, "shape": list(array.shape)}
        if "$digest" in value:
            return {"shape": value["$digest"][1], "crc32": value["$digest"][2]}
        if value.get("$") == "Scheme":
            return value["value"]
        return {k: plain(v) for k, v in value.items() if k != "$"}

    kept = {k: v for k, v in record.meta.items() if k not in ("cells", "label")}
    return json.dumps({"kind": record.kind} | plain(kept), ensure_ascii=False)


def _free(group: h5py.Group, name: str) -> str:
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


def _dataset(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dims: tuple[str, ...],
) -> h5py.Dataset:
    """A dataset with named dimensions, compressed and checksummed; a coordinate where it bears its
    only dimension's name.
    """
    stored: Any = {"b": np.dtype(np.uint8), "O": _TEXT}.get(dtype.kind, dtype)
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


def _variable(
    group: h5py.Group,
    name: str,
    values: ArrayLike,
    dims: tuple[str, ...],
    long_name: str = "",
    units: str = "",
) -> None:
    array = np.asarray(values)
    data = _dataset(group, name, array.shape, array.dtype, dims)
    data[()] = array
    _describe(data, long_name, units)


def _beside(
    group: h5py.Group,
    name: str,
    values: ArrayLike,
    dims: tuple[str, ...],
    long_name: str,
    units: str = "",
) -> None:
    """A variable that describes saved arrays and was not itself saved."""
    _variable(group, name, values, dims, long_name, units)
    group[name].attrs["auxiliary"] = 1


def write_run_file(journal_path: str | Path, run_path: str | Path) -> None:
    """Write what a journal holds as a run file: the whole new file takes the place of an older one,
    or nothing changes.

    May run at any time, also on the journal of a run under way (its `status` is then
    "interrupted"). Raises `DataError` for a foreign or damaged journal and where the disk refuses.
    """
    run_path = Path(run_path)
    temporary = run_path.with_name(f".{run_path.name}.{os.getpid()}.tmp")
    try:
        with _Sink(temporary) as sink:
            with h5py.File(sink, "w") as file:
                _Projection(JournalReader(journal_path), file, sink).run()
            sink.sync()
        replace(temporary, run_path)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{run_path}: run file cannot be written: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
