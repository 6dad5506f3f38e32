"""Beginning a simulated chip anew: what it was and how many pulses it took is kept beside it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.ledgers import ledger_path
from rram_hil.errors import ConfigError, DataError
from rram_hil.storage.ledger import Ledger


def reset_chip(file: BenchFile) -> tuple[int, tuple[Path, ...]]:
    """Begin a new generation of a bench's simulated chip: as its seed makes it, untouched, with a
    ledger at zero. Its state and ledger so far are renamed `.chapter-N`; returns N and these files,
    none for a chip that was never used.

    Raises `ConfigError` for a real bench, whose cells keep what they went through, and `DataError`
    where a process has the chip, or the disk refuses.
    """
    if file.simulation is None:
        raise ConfigError(
            f"{file.path}: chip reset is for simulated chips; {file.chip.id} is a real one, whose"
            " cells keep what they went through"
        )
    ledger = ledger_path(file)
    state = getattr(file.simulation, "state", None)
    files = [ledger] if state is None else [file.folder / state, ledger]
    there = [path for path in files if path.exists()]
    number = next(
        n for n in itertools.count(1) if not any(chapter(path, n).exists() for path in there)
    )
    if not there:
        return number, ()
    if ledger.exists():
        # Whoever uses the chip holds its ledger.
        Ledger(ledger, file.chip.geometry, file.chip.id, limit=file.limits.pulses_per_cell).close()
    for (
        path
    ) in there:  # the state first: a new chip may have too many pulses counted, never too few
        _rename(path, chapter(path, number))
    return number, tuple(chapter(path, number) for path in there)


def chapter(path: Path, number: int) -> Path:
    """The name of a state or ledger file of an earlier generation; the first is 1."""
    return path.with_name(f"{path.name}.chapter-{number}")


def _rename(path: Path, new: Path) -> None:
    try:
        os.rename(path, new)
    except OSError as error:
        raise DataError(f"{path}: cannot be renamed: {error.strerror or error}") from None
