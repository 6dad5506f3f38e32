"""Writing a run file: what a journal holds, as HDF5 that h5py, MATLAB, HDFView and xarray read
(docs/run-file.md).

`write_run_file` is a pure projection: the same journal gives the same content, at any time, as
often as one likes. `run_reader.read_run` opens a run file again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np

from rram_hil.errors import DataError
from rram_hil.storage.frames import Aside, Close, Frame, Header, Intent, Outcome, Resume, Scalar
from rram_hil.storage.hdf5 import LONG_CHUNK, TEXT, DiskFile, Table
from rram_hil.storage.journal import JournalReader
from rram_hil.storage.run_layout import (
    CELLS,
    CODES,
    FORMAT,
    FORMAT_VERSION,
    NOTES,
    OPERATIONS,
    SETTINGS,
)
from rram_hil.storage.run_tables import (
    Columns,
    Execution,
    ProgramMaps,
    SavedArrays,
    StepRows,
    WordMaps,
    Writer,
    cell_rows,
    code_rows,
    note_row,
    operation_row,
)
from rram_hil.storage.safe_files import remove, replace


def write_run_file(journal_path: str | Path, run_path: str | Path) -> None:
    """Write what a journal holds as a run file: the whole new file takes the place of an older one,
    or nothing changes.

    May run at any time, also on the journal of a run under way (its `status` is then
    "interrupted"). Raises `DataError` for a foreign or damaged journal and where the disk refuses.
    """
    run_path = Path(run_path)
    temporary = run_path.with_name(f".{run_path.name}.{os.getpid()}.tmp")
    try:
        with DiskFile(temporary) as sink:
            with h5py.File(sink, "w") as file:
                _project(JournalReader(journal_path), file, sink)
            sink.sync()
        replace(temporary, run_path)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{run_path}: run file cannot be written: {error}") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{journal_path}: its frames do not belong together: {error!r}") from error
    finally:
        remove(temporary)


def _project(reader: JournalReader, file: h5py.File, sink: DiskFile) -> None:
    """One pass over a journal, every frame to every table and writer."""
    header = reader.header()
    settings: dict[str, int] = {}
    operations = Table(file, "operations", "operation", OPERATIONS)
    notes = Table(file, "notes", "note", NOTES)
    details: list[tuple[Table, Callable[[Execution], Columns | None]]] = []
    if header.log == "all":
        details = [
            (Table(file, "cells", "event", CELLS, LONG_CHUNK), cell_rows),
            (Table(file, "codes", "reading", CODES, LONG_CHUNK), code_rows),
        ]
    writers = (
        StepRows(),
        SavedArrays(reader, sink, header.geometry),
        ProgramMaps(header.geometry),
        WordMaps(header.geometry),
        _Root(reader, header),
    )
    for frame, offset in _executed(reader):
        sink.check()
        if isinstance(frame, Execution):
            operations.add(operation_row(frame, settings))
            for table, rows in details:
                table.add(rows(frame))
        notes.add(note_row(frame))
        for writer in writers:
            writer.take(frame, offset)
    choices = Table(file, "settings", "setting", SETTINGS)
    choices.add({"text": list(settings)})
    for table in (operations, notes, choices, *(table for table, _ in details)):
        table.finish()
    for writer in writers:
        writer.write(file)


def _executed(reader: JournalReader) -> Iterator[tuple[Frame | Execution, int]]:
    """The frames of a journal and where they stand, results together with their intents; last the
    intents without a result.
    """
    intents: dict[int, Intent] = {}
    for entry in reader.entries():
        match entry.frame:
            case Intent() as intent:
                intents[intent.operation] = intent
            case Outcome(operation, record):
                if operation not in intents:
                    raise DataError(
                        f"{reader.path}: a result of operation {operation} without its intent"
                    )
                yield Execution(intents.pop(operation), record), entry.offset
            case Aside() as aside:
                nothing = np.zeros(0, dtype=np.int64)
                intent = Intent(aside.operation, aside.step, aside.record, nothing)
                yield Execution(intent, aside.result), entry.offset
            case frame:
                yield frame, entry.offset
    for number in sorted(intents):
        yield Execution(intents[number], None), reader.whole_bytes


class _Root(Writer):
    """The attributes of the file, and the group of whole calibration files."""

    def __init__(self, reader: JournalReader, header: Header) -> None:
        self._reader = reader
        self._header = header
        self._status, self._ended_utc, self._resumed = "interrupted", "", 0

    def take(self, frame: Frame | Execution, offset: int) -> None:
        """How the run ended, if it did."""
        if isinstance(frame, Close):
            self._status, self._ended_utc = frame.status, frame.utc
        elif isinstance(frame, Resume):
            self._status, self._ended_utc = "interrupted", ""
            self._resumed += 1

    def write(self, file: h5py.File) -> None:
        """All attributes."""
        h, reader = self._header, self._reader
        # An attribute holds 64 KiB at most: whole calibration files are datasets of a group.
        calibration = file.create_group("calibration")
        attributes: dict[str, Scalar] = {
            "Conventions": "CF-1.11",
            "title": f"run {h.run} on chip {h.chip_id}",
            "source": f"rram_hil {h.package_version}",
            "file_format": FORMAT,
            "file_format_version": FORMAT_VERSION,
            "status": self._status,
            "run": h.run,
            "started_utc": h.started_utc,
            "ended_utc": self._ended_utc,
            "resumed": self._resumed,
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
            "journal_frames": reader.frames,
            "journal_bytes": reader.whole_bytes,
            "journal_cut_bytes": reader.cut_bytes,
        }
        attributes |= {} if h.seed is None else {"seed": h.seed}
        attributes |= {"thermostat": h.thermostat} if h.thermostat else {}
        attributes |= {f"instrument_{k}": v for k, v in vars(h.instrument).items()}
        attributes |= {f"version_{k}": v for k, v in h.versions.items()}
        for name, text in h.calibration.items():
            if "\n" in text:
                calibration.create_dataset(name, data=text, dtype=TEXT)
            else:
                attributes[f"calibration_{name}"] = text
        file.attrs.update(attributes)
