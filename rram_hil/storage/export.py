"""A run file's tables as CSV and its arrays as one .npz, for programs that read no HDF5."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.errors import ConfigError, DataError
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import is_record
from rram_hil.storage.safe_files import replace

ROWS_AT_ONCE = 1 << 16
_FIRST = (
    "operation",
    "step",
    "note",
    "setting",
    "name",
    "kind",
    "label",
    "tile",
    "row",
    "column",
    "measurement",
)


def export_csv(run: RunFile, folder: Path, *, force: bool = False) -> list[Path]:
    """Write every table as `<folder>/<table>.csv`: the header "name [unit]", NaN as an empty field.

    All of them are written aside first, then put in place. Raises `ConfigError` where one exists
    and `force` is False, `DataError` where the disk refuses; then nothing is changed.
    """
    targets = [folder / f"{name}.csv" for name in run.tables]
    refuse_existing(targets, force)
    with _written_aside(targets, folder) as parts:
        for name, part in zip(run.tables, parts, strict=True):
            with part.open("w", newline="", encoding="utf-8") as file:
                _write_table(run, name, csv.writer(file))
    return targets


def _write_table(run: RunFile, name: str, writer: Any) -> None:
    units = run.units(name)
    columns = sorted(
        run.table(name, slice(0, 0)), key=lambda c: _FIRST.index(c) if c in _FIRST else len(_FIRST)
    )
    writer.writerow(f"{c} [{units[c]}]" if units.get(c, "1") != "1" else c for c in columns)
    for start in range(0, run.rows(name), ROWS_AT_ONCE):
        part = run.table(name, slice(start, start + ROWS_AT_ONCE), columns)
        writer.writerows(zip(*(_fields(part[c]) for c in columns), strict=True))


def _fields(values: AnyArray) -> list[Any]:
    fields: list[Any] = values.tolist()
    return ["" if math.isnan(f) else f for f in fields] if values.dtype.kind == "f" else fields


def export_npz(run: RunFile, path: Path, *, force: bool = False) -> Path:
    """Write every array into one .npz: "maps/<name>" (saves, tiles, rows, columns),
    "results/<step>/<name>", "words".

    `about` in it is JSON: unit and dimensions of each array and the run's attributes. One array is
    in memory at a time. Raises as `export_csv`.
    """
    refuse_existing([path], force)
    about: dict[str, Any] = {}
    with (
        _written_aside([path], path.parent) as (part,),
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
    ):
        for name, values, told in _arrays(run):
            about[name] = told
            _add(archive, name, values)
        text = json.dumps(
            {"arrays": about, "run": {k: _plain(v) for k, v in run.attributes.items()}}
        )
        _add(archive, "about", np.array(text))
    return path


def _arrays(run: RunFile) -> Iterator[tuple[str, AnyArray, dict[str, Any]]]:
    for name in run.map_names:
        stack = run.map(name)
        dims = ["save", "tile", "row", "column"]
        yield f"maps/{name}", stack.values, {"units": stack.units, "dims": dims}
        yield f"maps/{name}.time_s", stack.time_s, {"units": "s", "dims": ["save"]}
        yield f"maps/{name}.step", stack.step, {"units": "", "dims": ["save"]}
    for step, name in run.result_names:
        saved = run.result(step, name)
        told = {k: _plain(v) for k, v in saved.attributes.items()}
        yield (
            f"results/{step}/{name}",
            saved.values,
            {"units": saved.units, "dims": list(saved.dims), **told},
        )
    words = run.words()
    if words is not None:
        yield "words", words, {"units": "", "dims": ["tile", "row", "column"]}


def _plain(value: object) -> object:
    """A value that JSON has."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _add(archive: zipfile.ZipFile, name: str, values: AnyArray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)


def export_map_csv(
    run: RunFile, name: str, path: Path, *, save: int | None = None, force: bool = False
) -> Path:
    """Write one map as a CSV file: a row a cell, `save` counted from 1 (default: the last). Raises
    as `export_csv`, and `ConfigError` for a save that there is not.
    """
    refuse_existing([path], force)
    stack = run.map(name)
    values = stack.values[stack.place(save)]
    unit = stack.units if stack.units not in ("", "1") else ""
    with (
        _written_aside([path], path.parent) as (part,),
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("tile", "row", "column", f"{name} [{unit}]" if unit else name))
        address = np.indices(values.shape).reshape(3, -1)
        writer.writerows(zip(*address.tolist(), _fields(values.ravel()), strict=True))
    return path


def refuse_existing(targets: list[Path], force: bool) -> None:
    """Raise `ConfigError` where a file exists and `force` does not say to overwrite it, or it is a
    run file or journal.
    """
    for target in targets:
        if is_record(target):
            raise ConfigError(f"{target} is a run file or journal; nothing overwrites one")
        if target.exists() and not force:
            raise ConfigError(f"{target} exists; give --force to overwrite it")


@contextlib.contextmanager
def _written_aside(targets: list[Path], folder: Path) -> Iterator[list[Path]]:
    """Temporary names for `targets`, put in their place once all are written; else nothing is left
    behind.
    """
    parts = [t.with_name(f".{t.name}.{os.getpid()}.tmp") for t in targets]
    made = False
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        yield parts
        for part, target in zip(parts, targets, strict=True):
            replace(part, target)
        made = False
    except OSError as error:
        place = targets[0] if len(targets) == 1 else folder
        raise DataError(f"{place}: export cannot be written: {error.strerror or error}") from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
