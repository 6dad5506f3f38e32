"""What keeping an operation costs: a frame appended, a sync, a ledger charge with its
correction.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rram_hil.array import Cells, Geometry, read
from rram_hil.hardware.driver import Identity
from rram_hil.storage.codec import operation_record
from rram_hil.storage.frames import Header, Intent
from rram_hil.storage.journal import Journal
from rram_hil.storage.ledger import Ledger

ROUNDS = 50


def median_s(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    geometry = Geometry(1, 256, 256)
    header = Header(
        run="benchmark",
        chip_id="x",
        geometry=geometry,
        bench="",
        recipe="",
        started_utc="",
        clock="virtual",
        instrument=Identity("none", "0"),
        package_version="",
    )
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.create(Path(folder) / "run.journal", header)
        ledger = Ledger(Path(folder) / "x.ledger.npy", geometry, "x", limit=1 << 40)
        for count in (16, 4096, 65536):
            cells = Cells.from_index(np.arange(count), geometry)
            frame = Intent(1, 1, operation_record(read(cells)), np.zeros(count, dtype=np.int64))
            append = median_s(lambda: journal.append(frame))  # noqa: B023
            synced = median_s(lambda: (journal.append(frame), journal.sync()))  # noqa: B023
            charged = median_s(lambda: (ledger.charge(cells, 1), ledger.correct(cells, 1)))  # noqa: B023
            print(
                f"{count:6d} cells: append {append * 1e6:7.0f} us, append and sync"
                f" {synced * 1e6:7.0f} us, ledger charge and correct {charged * 1e6:7.0f} us"
            )
        journal.close()
        ledger.close()


if __name__ == "__main__":
    main()
