"""How long a folder of run files takes to be indexed, indexed again and searched.

Makes the folder: runs on a 64 x 64 array with 200 operations of a row each and a map, in folders of
100; every 50th is cut short, every 50th a run under way, every 50th a journal whose run was killed.
Bars for 1,000 files: 60 s, 2 s and 0.2 s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from rram_hil import Catalog
from rram_hil.array import ApplyResult, Cells, Geometry, Span, pulse
from rram_hil.catalogue.index import FOLDER_VARIABLE
from rram_hil.hardware.driver import Identity
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import Close, Frame, Header, Intent, Outcome, Saved, StepEnd, StepStart
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_state import journal_of
from rram_hil.storage.run_writer import write_run_file

T = TypeVar("T")
GEOMETRY = Geometry(1, 64, 64)
OPERATIONS = 200
EVERY = 50
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def header(number: int) -> Header:
    return Header(
        run=f"run {number}",
        chip_id=f"W{number % 7}",
        geometry=GEOMETRY,
        bench="[chip]\n" * 20,
        recipe="[[step]]\n" * 20,
        started_utc=(BEGAN + timedelta(minutes=number)).isoformat(),
        clock="virtual",
        instrument=Identity("board", "7"),
        package_version="0.1.0",
        protocols={"forming": "1", "read-map": "1"},
    )


def frames() -> list[Frame]:
    noise = np.random.default_rng(1)
    told: list[Frame] = [StepStart(1, "forming", "forming", "1", 0.0)]
    for number in range(1, OPERATIONS + 1):
        cells = Cells.from_index(np.arange(64) + 64 * (number % 64), GEOMETRY)
        operation = operation_record(pulse(cells, bl_v=2.0, wl_v=2.0, width_s=1e-7))
        current = noise.normal(1e-5, 1e-6, (64, 1))
        result = ApplyResult(
            current,
            current / 0.2,
            np.zeros((64, 1), np.uint8),
            np.full((64, 1), float(number)),
            np.ones(64, np.int64),
            np.ones(64, np.int64),
            Span(float(number), number + 1.0),
        )
        told += [
            Intent(number, 1, operation, np.ones(64, np.int64)),
            Outcome(number, result_record(result)),
        ]
    conductance = noise.normal(5e-5, 1e-5, GEOMETRY.shape)
    told += [
        Saved(1, "conductance", conductance, ("tile", "row", "column"), "S", {}, 1.0),
        StepEnd(1, OPERATIONS + 1.0),
    ]
    return told


def make(folder: Path, count: int, held: ExitStack) -> None:
    """Write the folder; the journals of the runs under way stay open in `held`."""
    told = frames()
    template = folder / "template"
    with Journal.create(journal_of(template), header(0)) as journal:
        for frame in (*told, Close("complete", BEGAN.isoformat())):
            journal.append(frame)
    write_run_file(journal_of(template), template)
    for number in range(count):
        path = folder / f"{number // 100:02d}" / f"run-{number}.h5"
        path.parent.mkdir(exist_ok=True)
        if number % EVERY in (1, 2):
            journal = held.enter_context(Journal.create(journal_of(path), header(number)))
            for frame in told:
                journal.append(frame)
            if number % EVERY == 2:
                journal.close()
            continue
        shutil.copyfile(template, path)
        with h5py.File(path, "r+") as file:
            one = header(number)
            file.attrs.update(
                run=one.run, chip_id=one.chip_id, started_utc=one.started_utc, status="complete"
            )
        if number % EVERY == 0:
            os.truncate(path, path.stat().st_size // 2)
    size = template.stat().st_size
    for left in (template, journal_of(template)):
        left.unlink()
    print(f"{count} runs of {size / 1e3:.0f} kB")


def timed(what: str, work: Callable[[], T]) -> T:
    wall, processor = time.perf_counter(), sum(os.times()[:4])
    result = work()
    wall, processor = time.perf_counter() - wall, sum(os.times()[:4]) - processor
    print(f"{what:32s} {wall:7.3f} s, {processor:7.3f} s of processor time")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as place, ExitStack() as held:
        folder = Path(place) / "data"
        folder.mkdir()
        os.environ[FOLDER_VARIABLE] = str(Path(place) / "own")
        make(folder, count, held)
        catalog = timed("indexed", lambda: Catalog(folder))
        timed("indexed again", lambda: Catalog(folder))
        chosen = timed(
            "searched",
            lambda: catalog.search(
                chip="W3", since="2026-01-01T01:00", protocol="forming", status="complete"
            ),
        )
        timed("searched for nothing", catalog.search)
        command = [sys.executable, "-m", "rram_hil.cli", "runs", str(folder), "--chip", "W3"]
        timed("the command, imports and all", lambda: subprocess.run(command, capture_output=True))
        states = Counter(entry.status for entry in catalog)
        print(f"{len(chosen)} fit; of all: {dict(states)}")


if __name__ == "__main__":
    main()
