"""Small run files, written from journals made up for the purpose."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import storage_scenarios as scenarios

from rram_hil.array import Cells, read
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import (
    Close,
    EndStatus,
    Frame,
    Intent,
    Outcome,
    Saved,
    StepEnd,
    StepStart,
)
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_state import journal_of
from rram_hil.storage.run_writer import write_run_file

ENDED = "2026-01-02T03:05:05Z"
"""A minute after `storage_scenarios.UTC`, when they begin."""
PULSES, READS = 48, 24
"""What every one of them took."""


def frames(status: EndStatus | None = "complete", **header: object) -> list[Frame]:
    """A run of one step that maps the chip; not ended where `status` is None."""
    every = Cells.all(scenarios.GEOMETRY)
    conductance = np.arange(24.0).reshape(scenarios.GEOMETRY.shape) * 1e-6
    told: list[Frame] = [
        scenarios.header(**header),
        StepStart(1, "map", "read-map", "1", 0.0),
        Intent(1, 1, operation_record(read(every)), np.full(24, 2)),
        Outcome(1, result_record(scenarios.applied(24, 1, 0.0, pulses=2))),
        Saved(1, "conductance", conductance, ("tile", "row", "column"), "S", {}, 1.0),
        Saved(1, "yield", np.array(0.5), (), "1", {"long_name": "cells that formed"}, 1.0),
        StepEnd(1, 4.0),
    ]
    return told if status is None else [*told, Close(status, ENDED)]


def write_run(
    path: Path,
    status: EndStatus | None = "complete",
    *,
    journal: bool = False,
    file: bool = True,
    **header: object,
) -> Path:
    """Write a run file, and leave its journal beside it or alone."""
    with Journal.create(journal_of(path), scenarios.header(**header)) as written:
        for frame in frames(status, **header)[1:]:
            written.append(frame)
    if file:
        write_run_file(journal_of(path), path)
    if not journal:
        journal_of(path).unlink()
    return path


def copy_run(run: Path, path: Path, /, **attributes: object) -> Path:
    """Another run like `run`, with these attributes of the root: much quicker than writing one."""
    shutil.copyfile(run, path)
    with h5py.File(path, "r+") as file:
        file.attrs.update(attributes)
    return path
