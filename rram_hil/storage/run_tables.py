"""The parts of a run file, a function or a class for each: every one is fed all frames of the
journal, operations with their results.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    MAP,
    ApplyResult,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Program,
    ProgramResult,
    Status,
)
from rram_hil.storage.codec import Record, operation_from, result_from
from rram_hil.storage.frames import (
    TEMPERATURE,
    Failed,
    Frame,
    Intent,
    Note,
    Resume,
    Saved,
    Scalar,
    StepEnd,
    StepStart,
)
from rram_hil.storage.hdf5 import (
    DiskFile,
    Table,
    beside,
    dataset,
    describe,
    free_name,
    variable,
)
from rram_hil.storage.journal import JournalReader
from rram_hil.storage.run_layout import (
    EVENTS,
    KINDS,
    OPERATIONS,
    OUTCOMES,
    STEPS,
)
from rram_hil.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Execution:
    """An operation as it was meant, with its result; None where the journal holds none."""

    intent: Intent
    record: Record | None

    @cached_property
    def result(self) -> ApplyResult | ProgramResult | CodedReadResult | None:
        """What an operation gave its cells; None for other operations."""
        kinds = ("ApplyResult", "ProgramResult", "CodedReadResult")
        if self.record is None or self.record.kind not in kinds:
            return None
        result = result_from(self.record)
        assert isinstance(result, ApplyResult | ProgramResult | CodedReadResult)
        return result

    @cached_property
    def cells(self) -> Cells | None:
        """The cells that an operation addresses; None where it names none."""
        record = self.intent.record
        if record.kind == "CodedRead":
            operation = operation_from(record)
            assert isinstance(operation, CodedRead)
            return operation.cells
        if "cells.row" not in record.arrays:
            return None
        return Cells(*(record.arrays[f"cells.{name}"] for name in MAP))

    @property
    def pulses(self) -> int:
        """Pulses given, all cells."""
        result = self.result
        return int(result.pulses.sum()) if isinstance(result, ApplyResult | ProgramResult) else 0

    @property
    def reads(self) -> int:
        """Measurements taken, all cells."""
        return 0 if self.result is None else int(np.sum(self.result.reads))


Columns = dict[str, Any]
"""Rows of a table: for each column one value or one a row."""


def operation_row(execution: Execution, settings: dict[str, int]) -> Columns:
    """The row of an operation; `settings` numbers what operations do, and gets what is new."""
    intent, record = execution.intent, execution.intent.record
    meta: dict[str, Any] = record.meta
    inputs = record.shape("inputs") or (0, 0)
    block = inputs[1] * meta["columns"] if record.kind == "Multiply" else 0
    nothing = {c.name: math.nan if c.dtype is np.float64 else 0 for c in OPERATIONS}
    meant = {
        "operation": intent.operation,
        "step": intent.step,
        "kind": KINDS.index(record.kind),
        "label": meta.get("label", ""),
        "settings": settings.setdefault(_settings(record), len(settings)),
        "cells": block if execution.cells is None else len(execution.cells),
        "charged": int(intent.charge.sum()),
        "vectors": inputs[0],
    }
    return nothing | meant | _came(execution)


def _came(execution: Execution) -> Columns:
    """Columns of an operation's row that its result fills."""
    record, result = execution.record, execution.result
    if record is None:
        return {"outcome": OUTCOMES.index("no_result"), "away_s": 0.0}
    meta: dict[str, Any] = record.meta
    columns = {
        "outcome": OUTCOMES.index("interrupted" if meta.get("interrupted", False) else "done"),
        "away_s": meta.get("away_s", 0.0),
        "started_s": meta["span"]["started_s"],
        "ended_s": meta["span"]["ended_s"],
        "pulses": execution.pulses,
        "reads": execution.reads,
    }
    if result is not None:
        ran = result.status[result.status != Status.NOT_RUN]
        columns["not_ok"] = int(np.count_nonzero(ran != Status.OK))
    if isinstance(result, ProgramResult | CodedReadResult) and result.vectors:
        columns["vectors"] = result.vectors
    if isinstance(result, CodedReadResult):
        columns["saturated"] = result.saturated
    if record.kind == "MultiplyResult":
        columns |= {name: meta[name] for name in ("saturated", "lsb_a", "emulated")}
    return columns


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


def note_row(frame: Frame | Execution) -> Columns | None:
    """The row of a remark, an error, an interruption or a resumption; None for other frames."""
    match frame:
        case Failed():
            where = f"operation {frame.operation}: " if frame.operation else ""
            said = "error", f"{where}{frame.error}: {frame.restored()}", "", math.nan
        case Note():
            said = frame.event, frame.text, frame.utc, frame.time_s
        case Resume():
            who, board = frame.operator or "unknown", frame.instrument
            text = f"resumed by {who} on {board.model} {board.serial}"
            said = "resumed", text, frame.utc, frame.time_s
        case _:
            return None
    return {"event": EVENTS.index(said[0]), "text": said[1], "utc": said[2], "time_s": said[3]}


def cell_rows(execution: Execution) -> Columns | None:
    """What an operation measured at every cell, a row for each measurement."""
    cells = execution.cells
    cell: Any = slice(None)
    match execution.result:
        case None:
            return None
        case ProgramResult() as result:
            columns = _programmed(result)
        case CodedReadResult() as result:
            columns = _decoded(result)
        case ApplyResult() as result:
            columns, cell = _measured(result)
    assert cells is not None
    address = {name: getattr(cells, name)[cell] for name in MAP}
    return columns | address | {"operation": execution.intent.operation}


def _programmed(result: ProgramResult) -> Columns:
    return {
        "measurement": 0,
        "current_a": np.nan,
        "conductance_s": result.conductance_s,
        "status": result.status,
        "time_s": result.span.ended_s,
        "pulses": result.pulses,
        "set_pulses": result.set_pulses,
        "reset_pulses": result.reset_pulses,
        "reads": result.reads,
        "inside": result.inside,
    }


def _decoded(result: CodedReadResult) -> Columns:
    return {
        "measurement": 0,
        "current_a": np.nan,
        "conductance_s": result.conductance_s,
        "status": result.status,
        "time_s": result.span.ended_s,
        "pulses": 0,
        "set_pulses": 0,
        "reset_pulses": 0,
        "reads": result.reads // max(result.status.size, 1),
        "inside": -1,
    }


def _measured(result: ApplyResult) -> tuple[Columns, IntArray]:
    """A row for each measurement that ran, and one for each cell that has none; whose they are."""
    n, m = result.status.shape
    if m == 0:
        none = np.full((n, 1), np.nan)
        result = replace(
            result,
            current_a=none,
            conductance_s=none,
            status=np.full((n, 1), Status.NOT_RUN, dtype=np.uint8),
            time_s=np.full((n, 1), result.span.ended_s),
        )
    kept = result.status != Status.NOT_RUN
    kept[:, :1] = True
    cell, place = np.nonzero(kept)
    first = place == 0
    gate = {} if result.gate_a is None else {"gate_a": result.gate_a[kept]}
    return gate | {
        "measurement": place,
        "current_a": result.current_a[kept],
        "conductance_s": result.conductance_s[kept],
        "status": result.status[kept],
        "time_s": result.time_s[kept],
        "pulses": np.where(first, result.pulses[cell], 0),
        "set_pulses": 0,
        "reset_pulses": 0,
        "reads": np.where(first, result.reads[cell], 0),
        "inside": -1,
    }, cell


def code_rows(execution: Execution) -> Columns | None:
    """A row for each code of a multiply; one kept as a summary has none."""
    record = execution.record
    if record is None or record.kind != "MultiplyResult" or record.summary:
        return None
    codes = record.arrays["codes"]
    vector, column = np.indices(codes.shape)
    return {
        "operation": execution.intent.operation,
        "vector": vector.ravel(),
        "column": column.ravel(),
        "code": codes.ravel(),
        "word_sum": record.arrays.get("word_sums", np.zeros_like(codes)).ravel(),
    }


class Writer(ABC):
    """Writes a part of a run file that is known at the end only."""

    @abstractmethod
    def take(self, frame: Frame | Execution, offset: int) -> None:
        """The next frame, which stands at `offset` in the journal. An operation comes as one
        `Execution`, when its result does or at the end.
        """

    @abstractmethod
    def write(self, file: h5py.File) -> None:
        """Write the part, after the last frame."""


class StepRows(Writer):
    """The table of the recipe's steps."""

    def __init__(self) -> None:
        self._steps: dict[int, Columns] = {}

    def take(self, frame: Frame | Execution, offset: int) -> None:
        """When steps began and ended, and what their operations did."""
        match frame:
            case StepStart():
                said = {k: getattr(frame, k) for k in ("name", "protocol", "version")}
                self._step(frame.step).update(said, started_s=frame.time_s)
            case StepEnd():
                self._step(frame.step)["ended_s"] = frame.time_s
            case Execution() if frame.record is not None:
                step = self._step(frame.intent.step)
                step["operations"] += 1
                step["pulses"] += frame.pulses
                step["reads"] += frame.reads

    def _step(self, number: int) -> Columns:
        nothing = {"name": "", "protocol": "", "version": "", "started_s": math.nan}
        nothing |= {"ended_s": math.nan, "operations": 0, "pulses": 0, "reads": 0}
        return self._steps.setdefault(number, nothing)

    def write(self, file: h5py.File) -> None:
        """The table, in the order of the steps' numbers."""
        table = Table(file, "steps", "step", STEPS)
        for number in sorted(self._steps):
            table.add({"step": number} | self._steps[number])
        table.finish()


class WordMaps(Writer):
    """The on-chip words at the end of the run."""

    def __init__(self, geometry: Geometry) -> None:
        self._shape = geometry.shape
        self._maps: tuple[NDArray[np.int32], NDArray[np.uint8]] | None = None

    def take(self, frame: Frame | Execution, offset: int) -> None:
        """Words that were written."""
        if isinstance(frame, Execution) and frame.record and frame.record.kind == "WordsResult":
            record = frame.intent.record
            if self._maps is None or record.meta["clear"]:
                self._maps = np.zeros(self._shape, np.int32), np.zeros(self._shape, np.uint8)
            cells = tuple(record.arrays[f"cells.{name}"] for name in MAP)
            self._maps[0][cells], self._maps[1][cells] = record.arrays["values"], 1

    def write(self, file: h5py.File) -> None:
        """The words, and which places hold one; nothing where none was ever written."""
        if self._maps is not None:
            group = file.create_group("words")
            title = "on-chip words at the end of the run"
            variable(group, "words", self._maps[0], MAP, title, "1")
            variable(group, "written", self._maps[1], MAP, "1: this place holds a word")


class ProgramMaps(Writer):
    """Each cell's window of a step that programmed cells, and the volts at which its ramps began
    where these are its own: of both, the settings tell the extremes.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._shape = geometry.shape
        self._maps: dict[tuple[str, str], dict[int, tuple[float, FloatArray]]] = {}

    def take(self, frame: Frame | Execution, offset: int) -> None:
        """What an operation was told; in a step the last one that named a cell counts."""
        if not isinstance(frame, Execution) or frame.intent.record.kind != "Program":
            return
        told = operation_from(frame.intent.record)
        assert isinstance(told, Program)
        found: dict[tuple[str, str], Any] = {
            ("window_low", "S"): told.low_s,
            ("window_high", "S"): told.high_s,
        }
        for polarity, train in (("set", told.set_pulses), ("reset", told.reset_pulses)):
            for line, ramp in (("amplitude", train.amplitude_v), ("gate", train.gate_v)):
                if isinstance(ramp.start_v, np.ndarray):
                    found[f"{polarity}_{line}_start", "V"] = ramp.start_v
        cells = tuple(getattr(told.cells, name) for name in MAP)
        time_s = float(_came(frame).get("started_s", math.nan))
        for key, values in found.items():
            steps = self._maps.setdefault(key, {})
            at_s, stood = steps.get(frame.intent.step, (time_s, np.full(self._shape, np.nan)))
            stood[cells] = values
            steps[frame.intent.step] = at_s, stood

    def write(self, file: h5py.File) -> None:
        """Maps, one a step, beside those that protocols saved."""
        maps = file.require_group("maps")
        for (name, units), steps in self._maps.items():
            group, dims = maps.create_group(free_name(maps, name)), ("map_time_s", *MAP)
            times = [at_s for at_s, _ in steps.values()]
            beside(
                group, dims[0], times, dims[:1], "begin of the operation on the bench clock", "s"
            )
            values = np.stack([map_ for _, map_ in steps.values()])
            variable(group, name, values, dims, _PROGRAM_MAPS[name], units)
            beside(group, "step", list(steps), dims[:1], "step of the recipe that programmed")


_PROGRAM_MAPS = {
    "window_low": "lowest conductance that a Program accepts",
    "window_high": "highest conductance that a Program accepts",
    "set_amplitude_start": "BL of the first SET pulse of each cell",
    "set_gate_start": "WL of the first SET pulse of each cell",
    "reset_amplitude_start": "SL of the first RESET pulse of each cell",
    "reset_gate_start": "WL of the first RESET pulse of each cell",
}


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


class SavedArrays(Writer):
    """The maps and the results of the steps: what protocols saved.

    Only where the arrays stand is kept on the way; at the end they are fetched again one at a
    time. `sink` says when the disk has refused.
    """

    def __init__(self, reader: JournalReader, sink: DiskFile, geometry: Geometry) -> None:
        self._reader = reader
        self._sink = sink
        self._shape = geometry.shape
        self._names: dict[int, str] = {}
        self._saves: dict[_SaveKey, list[_SaveAt]] = {}

    def take(self, frame: Frame | Execution, offset: int) -> None:
        """Where saved arrays stand, and the names of their steps."""
        if isinstance(frame, StepStart):
            self._names[frame.step] = frame.name.replace("/", "_")
        elif isinstance(frame, Saved):
            values = frame.values
            is_map = frame.dims == MAP and values.shape == self._shape
            step = -1 if is_map else frame.step
            dtype = values.dtype.str
            key = _SaveKey(step, frame.name, frame.dims, values.shape, dtype, frame.units)
            place = _SaveAt(offset, frame.step, frame.time_s, frame.attrs)
            self._saves.setdefault(key, []).append(place)

    def write(self, file: h5py.File) -> None:
        """Maps, stacked along time, then the other arrays, a group a step."""
        maps, results = file.create_group("maps"), file.create_group("results")
        for key in (k for k in self._saves if k.step < 0):
            self._write_group(maps.create_group(free_name(maps, key.name)), [key], stack=True)
        for step in sorted({k.step for k in self._saves if k.step >= 0}):
            name = self._names.get(step)
            group = results.create_group(f"{step}_{name}" if name else str(step))
            self._write_group(group, [k for k in self._saves if k.step == step], stack=False)

    def _write_group(self, group: h5py.Group, keys: list[_SaveKey], *, stack: bool) -> None:
        """Saved arrays of one group; several saves under one key are stacked along time, and maps
        always.
        """
        reserved = {d for key in keys for d in key.dims} | (
            {"map_time_s", "step"} if stack else set()
        )
        # Coordinates first: a dimension is the variable of its name where there is one.
        for key in sorted(keys, key=lambda k: k.dims != (k.name,)):
            at = self._saves[key]
            stacked = stack or len(at) > 1
            coordinate = key.dims == (key.name,) and not stacked
            taken = key.name in reserved and not coordinate
            name = free_name(group, f"{key.name}_values" if taken else key.name)
            shape, dims = key.shape, key.dims
            if stacked:
                time = free_name(group, "map_time_s" if stack else f"{name}_time_s")
                times = np.array([a.time_s for a in at])
                beside(group, time, times, (time,), "time of saving on the bench clock", "s")
                shape, dims = (len(at), *shape), (time, *dims)
            data = dataset(group, name, shape, np.dtype(key.dtype), dims)
            for i, place in enumerate(at):
                self._sink.check()
                saved = self._reader.frame_at(place.offset)
                assert isinstance(saved, Saved)
                data[(i, ...) if stacked else ()] = saved.values
            shared = {
                k: v
                for k, v in at[0].attrs.items()
                if all(a.attrs.get(k) == v for a in at) and not (stacked and k == TEMPERATURE)
            }
            describe(data, "", key.units)
            data.attrs.update(shared)
            if isinstance(words := shared.get("flag_meanings"), str) and key.dtype[1] in "iu":
                data.attrs["flag_values"] = np.arange(len(words.split()), dtype=key.dtype)
            if stack:
                steps = [a.step for a in at]
                beside(group, "step", steps, dims[:1], "step of the recipe that saved")
            if not stacked:
                data.attrs["time_s"] = at[0].time_s
            for attr in {k: None for a in at for k in a.attrs if k not in shared}:
                values = [a.attrs.get(attr, math.nan) for a in at]
                texts = any(isinstance(v, str) for v in values)
                column = np.array([str(v) for v in values], object) if texts else np.array(values)
                title = f"{attr} of each save of {name}"
                units = "K" if attr == TEMPERATURE else ""
                beside(group, free_name(group, f"{name}_{attr}"), column, dims[:1], title, units)
