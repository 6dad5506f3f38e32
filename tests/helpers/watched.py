"""Made-up runs for the live page, and the page's server as a process."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from rram_hil.array import MAP, ApplyResult, Cells, Geometry, Span, read
from rram_hil.hardware.driver import Identity
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import Frame, Header, Intent, Note, Outcome, Saved, StepStart
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_state import journal_of

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
BENCH = """\
[chip]
id = "M1"
[driver]
name = "test-chip-board"
[limits]
bl_v = 4.0
conductance_s = [0.0, 300e-6]
"""
RECIPE = '[[step]]\nprotocol = "read-map"\n'


def header(geometry: Geometry, **changes: object) -> Header:
    """Who, when and what of a made-up run."""
    given: dict[str, object] = {
        "run": "made up",
        "chip_id": "M1",
        "geometry": geometry,
        "bench": BENCH,
        "recipe": RECIPE,
        "started_utc": "2026-01-02T03:04:05+00:00",
        "clock": "wall",
        "instrument": Identity("board", "7"),
        "package_version": "0.1",
    }
    return Header(**(given | changes))  # type: ignore[arg-type]


def reading(
    number: int,
    cells: Cells,
    conductance_s: np.ndarray,  # type: ignore[type-arg]
    step: int = 1,
) -> list[Frame]:
    """A read of cells, announced and done."""
    n = len(cells)
    value = conductance_s[:, None]
    result = ApplyResult(
        value * 0.2,
        value,
        np.zeros((n, 1), np.uint8),
        np.full((n, 1), float(number)),
        np.zeros(n, np.int64),
        np.ones(n, np.int64),
        Span(float(number), number + 1.0),
    )
    asked = operation_record(read(cells, label="read map"))
    return [
        Intent(number, step, asked, np.zeros(0, np.int64), float(number)),
        Outcome(number, result_record(result)),
    ]


def map_frames(geometry: Geometry, parts: int) -> list[Frame]:
    """The frames after the header of a run that reads a whole map in so many parts; not ended."""
    noise = np.random.default_rng(1)
    target = np.broadcast_to(np.linspace(2e-5, 1.4e-4, geometry.columns), geometry.shape)
    frames: list[Frame] = [
        StepStart(1, "read-map", "read-map", "1", 0.0),
        Saved(1, "target", target.copy(), MAP, "S"),
        Note("info", "begun", "2026-01-02T03:04:06+00:00"),
    ]
    for number, index in enumerate(np.array_split(np.arange(geometry.size), parts), 1):
        cells = Cells.from_index(index, geometry)
        frames += reading(number, cells, target.ravel()[index] * noise.normal(1, 0.1, len(index)))
    return frames


@contextlib.contextmanager
def under_way(path: Path, geometry: Geometry, parts: int, **changes: object) -> Iterator[Journal]:
    """A run under way, its map read, whose journal may be written further."""
    with Journal.create(journal_of(path), header(geometry, **changes)) as journal:
        for frame in map_frames(geometry, parts):
            journal.append(frame)
        yield journal


@contextlib.contextmanager
def served(place: Path, errors: IO[str] | None = None) -> Iterator[str]:
    """The address of `rram-hil watch` on a folder or run; it writes its standard error to
    `errors`.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "rram_hil.cli",
        "watch",
        str(place),
        "--no-open",
        "--port=0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
    assert process.returncode == 0
