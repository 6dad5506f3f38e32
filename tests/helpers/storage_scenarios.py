"""Small programs to be killed, and the example journal that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Result,
    Span,
    Status,
    WordsResult,
    WriteWords,
    pulse,
    read,
    read_step,
)
from rram_hil.hardware.driver import Identity
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import (
    Close,
    Computed,
    Frame,
    Header,
    Intent,
    Note,
    Outcome,
    Resume,
    Saved,
    StepEnd,
    StepStart,
)
from rram_hil.storage.journal import Journal, holds_run, read_journal
from rram_hil.storage.ledger import Ledger
from rram_hil.storage.run_writer import write_run_file

GEOMETRY = Geometry(2, 3, 4)
BUDGET = 5
OPERATIONS = 3
UTC = "2026-01-02T03:04:05Z"
BOARD = Identity("board", "7", "1.0", "1", "boot-1", "T1")


def header(**changes: object) -> Header:
    """Who, when and what of the examples."""
    given: dict[str, object] = {
        "run": "r1",
        "chip_id": "T1",
        "geometry": GEOMETRY,
        "bench": "[chip]\nid = 'T1'\n",
        "recipe": "µ = 1\n",
        "started_utc": UTC,
        "clock": "virtual",
        "instrument": BOARD,
        "package_version": "0.1",
        "protocols": {"read-map": "1"},
        "git_revision": "abc",
        "seed": 3,
        "die": "d4",
        "lot": "L1",
        "operator": "Ada",
        "temperature_k": 300.0,
        "versions": {"numpy": np.__version__},
        "calibration": {"smu": "2026-01-01"},
    }
    return Header(**(given | changes))  # type: ignore[arg-type]


def applied(n: int, m: int, start_s: float, pulses: int = 0) -> ApplyResult:
    """An invented result of n cells and m values."""
    current = np.arange(n * m, dtype=np.float64).reshape(n, m) * 1e-6
    counts = np.full(n, pulses)
    times = start_s + np.arange(n * m, dtype=np.float64).reshape(n, m) * 1e-6
    status = np.zeros((n, m), np.uint8)
    return ApplyResult(
        current, current / 0.2, status, times, counts, np.full(n, m), Span(start_s, start_s + 1.0)
    )


def program(cells: Cells) -> tuple[Program, ProgramResult]:
    """An invented write-verify."""
    n = len(cells)
    train = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(1.5, 1.5), 1e-6)
    operation = Program(
        cells, np.full(n, 1e-5), np.full(n, 2e-5), train, train, read_step(), 30, label="rvw"
    )
    counts = np.arange(n)
    flags = np.zeros(n, np.uint8)
    return operation, ProgramResult(
        np.full(n, 1.5e-5), flags, counts % 2 == 0, counts, 2 * counts, counts + 1, Span(5.0, 6.0)
    )


def example_frames() -> list[Frame]:
    """A run with one of everything."""
    every = Cells.all(GEOMETRY)
    some = Cells.of([(1, 2, 3), (0, 1, 0)])
    frames: list[Frame] = [header(), StepStart(1, "map", "read-map", "1", 0.0)]
    number = 0

    def did(
        step: int,
        operation: Operation,
        result: Result | None,
        charge: int = 0,
        summary: bool = False,
    ) -> None:
        nonlocal number
        number += 1
        n = len(operation.cells) if isinstance(operation, Apply | Program) else 0
        frames.append(
            Intent(number, step, operation_record(operation, summary=summary), np.full(n, charge))
        )
        if result is not None:
            frames.append(Outcome(number, result_record(result, summary=summary)))

    did(1, read(every), applied(24, 1, 0.0))
    for k in range(2):
        values = np.arange(24.0).reshape(GEOMETRY.shape) * 1e-6 + k
        frames.append(
            Saved(
                1,
                "conductance",
                values,
                ("tile", "row", "column"),
                "S",
                {"long_name": "conductance"},
                1.0 + k,
            )
        )
    frames += [
        Computed(1, "train", {"w": np.ones(3)}),
        StepEnd(1, 2.0),
        StepStart(2, "rest", "sparse", "1", 2.0),
    ]
    stopped = applied(2, 3, 3.0, 2)
    stopped.status[1, 1:] = Status.NOT_RUN
    did(2, read(some, repeat=3, label="noise"), stopped)
    did(
        2,
        pulse(some, bl_v=1.0, wl_v=2.0, width_s=1e-6, label="kick"),
        applied(2, 0, 4.0, 1),
        charge=1,
    )
    did(2, *program(some), charge=30)
    inputs = np.arange(6, dtype=np.int16).reshape(2, 3)
    codes = np.arange(8, dtype=np.int32).reshape(2, 4)
    did(
        2,
        Multiply(0, 0, 0, 4, inputs, words=True),
        MultiplyResult(codes, 1e-9, codes.astype(np.int64) * 10, 1),
    )
    did(2, Multiply(0, 0, 0, 4, inputs), MultiplyResult(codes, 1e-9), summary=True)
    did(2, WriteWords(some, np.array([5, -6]), clear=True), WordsResult(2, Span(7.0, 8.0)))
    for k, accuracy in enumerate((0.5, 0.75)):
        frames.append(Saved(2, "accuracy", np.array(accuracy), (), "1", {"epoch": k}, 8.0 + k))
    frames.append(
        Saved(
            2,
            "logits",
            np.ones((2, 10), np.float32),
            ("image", "class"),
            "1",
            {"data": "digits"},
            9.0,
        )
    )
    frames.append(Saved(2, "labels", np.arange(3), ("image",), "1", {}, 9.0))
    did(2, pulse(some, bl_v=1.0, wl_v=2.0, width_s=1e-6), None, charge=1)
    frames += [Note("interrupted", "power cut", UTC, 9.5), Resume(UTC, BOARD, "Ada", "0.1", 10.0)]
    frames += [StepEnd(2, 11.0), Close("complete", UTC, 11.0)]
    return frames


def write_example(path: Path) -> None:
    """The example run as a journal."""
    head, *frames = example_frames()
    assert isinstance(head, Header)
    with Journal.create(path, head) as journal:
        for frame in frames:
            journal.append(frame)
        journal.sync()


def _remember(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")


def pulses_with_journal_and_ledger(folder: Path) -> None:
    """Give each cell of the chip pulses, an operation at a time, in the order that ledger.py asks
    for; goes on after a crash.

    The chip is the file "chip": a line for each executed operation. "committed" says how far the
    journal was synced.
    """
    path = folder / "kept.journal"
    cells = Cells.block(0, [0, 1], [0, 1, 2])
    with Ledger(folder / "kept.ledger.npy", GEOMETRY, "T1", limit=1000) as ledger:
        begun = holds_run(path)
        frames = list(read_journal(path)) if begun else []
        with Journal.resume(path) if begun else Journal.create(path, header()) as journal:
            if begun:
                journal.append(Resume(UTC, BOARD))
            finished = {frame.operation for frame in frames if isinstance(frame, Outcome)}
            seen = [frame.operation for frame in frames if isinstance(frame, Intent)]
            chip = (folder / "chip").read_text().split() if (folder / "chip").exists() else []
            number = max(seen, default=0)
            used = np.arange(len(cells)) % (BUDGET + 1)
            if number and number not in finished:
                # Interrupted: the chip says what it really got.
                really = used if str(number) in chip else np.zeros_like(used)
                _finish(folder, journal, ledger, number, cells, really)
                finished.add(number)
            while len(finished) < OPERATIONS:
                number += 1
                ledger.charge(cells, BUDGET)
                operation = pulse(cells, bl_v=1.0, wl_v=2.0, width_s=1e-6)
                journal.append(
                    Intent(number, 1, operation_record(operation), np.full(len(cells), BUDGET))
                )
                journal.sync()
                _remember(folder / "committed", str(journal.sequence))
                _remember(folder / "chip", str(number))
                _finish(folder, journal, ledger, number, cells, used)
                finished.add(number)
            journal.append(Close("complete", UTC))
            journal.sync()
            _remember(folder / "committed", str(journal.sequence))


def _finish(
    folder: Path, journal: Journal, ledger: Ledger, number: int, cells: Cells, used: np.ndarray
) -> None:
    result = applied(len(cells), 0, float(number))
    journal.append(Outcome(number, result_record(result)))
    journal.sync()
    _remember(folder / "committed", str(journal.sequence))
    ledger.correct(cells, BUDGET - used)


def given_pulses(folder: Path) -> np.ndarray:
    """Pulses that each cell of the scenario above really got, shape of the chip."""
    lines = (folder / "chip").read_text().split() if (folder / "chip").exists() else []
    truth = np.zeros(GEOMETRY.size, dtype=np.int64)
    cells = Cells.block(0, [0, 1], [0, 1, 2])
    truth[cells.index(GEOMETRY)] = len(lines) * (np.arange(len(cells)) % (BUDGET + 1))
    return truth.reshape(GEOMETRY.shape)


def projection(folder: Path) -> None:
    """Write a run file over an older one."""
    write_example(folder / "run.journal")
    write_run_file(folder / "run.journal", folder / "old.h5")
    (folder / "kept.h5").hardlink_to(folder / "old.h5")
    write_run_file(folder / "run.journal", folder / "kept.h5")
