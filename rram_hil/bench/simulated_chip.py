"""Beginning a simulated chip anew: what it was and how many pulses it took is kept beside it."""

from __future__ import annotations

import itertools
from pathlib import Path

from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.ledgers import ledger_path, set_aside
from rram_hil.errors import ConfigError
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
    # The state first: a new chip may have too many pulses counted, never too few.
    files = [ledger] if state is None else [file.folder / state, ledger]
    there = [path for path in files if path.exists()]
    chapter = next(
        n
        for n in itertools.count(1)
        if not any(path.with_name(f"{path.name}.chapter-{n}").exists() for path in there)
    )
    if ledger.exists():
        # Whoever uses the chip holds its ledger.
        Ledger(ledger, file.chip.geometry, file.chip.id, limit=file.limits.pulses_per_cell).close()
    return chapter, tuple(set_aside(path, f"chapter-{chapter}") for path in there)
