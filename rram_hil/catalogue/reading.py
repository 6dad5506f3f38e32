"""What a run file and its journal say of the run, without opening an array."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from rram_hil.catalogue.entry import DAMAGED, RunFacts, run_id_of
from rram_hil.errors import DataError, first_line, printable, shortened
from rram_hil.storage.frames import Close, Header, Resume, StepEnd, StepStart
from rram_hil.storage.journal import read_journal
from rram_hil.storage.run_reader import ForeignFileError, RunFile, read_run, undamaged
from rram_hil.storage.run_state import INTERRUPTED, holds_all_of, journal_of

SUFFIXES = (".h5", ".hdf5")
"""Files of these names are run files or say why not; of others only those beside a journal are."""


def read_facts(path: Path) -> RunFacts | None:
    """What the run file at `path` or its journal says, whichever is further; None for a file of
    another kind. A file that is damaged has that status and its reason; nothing is raised for it.

    Raises `OSError` where a file cannot be read, whatever is in it.
    """
    journal = journal_of(path)
    there = [file for file in (path, journal) if file.is_file()]
    for file in there:
        file.open("rb").close()
    if not there:
        return None  # gone since it was found
    try:
        return _of_file(path, journal) if path in there else _of_journal(journal)[0]
    except ForeignFileError:
        return None
    except DataError as error:
        if path.suffix.lower() not in SUFFIXES:
            return None
        return RunFacts(reason=_reason(error))


def _of_file(path: Path, journal: Path) -> RunFacts:
    with read_run(path) as run, undamaged(path):
        facts = _of_run(run)
        if not journal.is_file() or holds_all_of(run, journal):
            return facts
        ended = int(np.count_nonzero(~np.isnan(run.table("steps")["ended_s"])))
    try:
        further, ended_since = _of_journal(journal)
    except DataError:
        return facts  # another program's journal: the run file is whole
    if further.run_id != facts.run_id:
        return further
    if further.reason:
        return facts  # the run file is whole
    if ended_since > ended:
        return further
    return replace(further, pulses=facts.pulses, reads=facts.reads)


def _of_run(run: RunFile) -> RunFacts:
    a = run.attributes
    started, chip, title = str(a["started_utc"]), run.chip_id, str(a["run"])
    steps = run.table("steps", columns=("name", "started_s", "ended_s", "pulses", "reads"))
    return RunFacts(
        run_id=run_id_of(
            started,
            chip,
            title,
            str(a["bench_sha256"]),
            str(a["recipe_sha256"]),
            str(a.get("instrument_boot", "")),
        ),
        title=_clean(title),
        status=_clean(run.status),
        chip_id=_clean(chip),
        bench=_bench(a.get("instrument_model", ""), a.get("instrument_serial", "")),
        started_utc=_clean(started),
        ended_utc=_clean(str(a["ended_utc"])),
        bench_s=_lasted(zip(steps["started_s"], steps["ended_s"], strict=True)),
        protocols=tuple(_protocols(_clean(str(a["protocols"])))),
        steps=tuple(_clean(str(name)) for name in steps["name"] if name),
        package_version=_clean(str(a["package_version"])),
        pulses=int(np.sum(steps["pulses"])),
        reads=int(np.sum(steps["reads"])),
        frames=None if (frames := a.get("journal_frames")) is None else int(frames),
    )


def _protocols(text: str) -> Iterator[str]:
    """The names in "forming 1, read-map 2"."""
    for part in filter(None, text.split(", ")):
        yield part.rpartition(" ")[0] or part


def _of_journal(path: Path) -> tuple[RunFacts, int]:
    """What a journal says by itself, up to where it is damaged, and how many steps have ended; it
    knows no counts without its results. Raises `DataError` where it has no header.
    """
    reader = read_journal(path)
    frames = reader.course()
    header = next(frames, None)
    if not isinstance(header, Header):
        raise DataError("the journal has no header; the run never began", where=str(path))
    status, ended_utc, reason, steps = INTERRUPTED, "", "", []
    began: dict[int, float] = {}
    times: list[tuple[float, float]] = []
    try:
        for frame in frames:
            match frame:
                case StepStart():
                    steps.append(_clean(frame.name))
                    began[frame.step] = frame.time_s
                case StepEnd():
                    times.append((began.get(frame.step, math.nan), frame.time_s))
                case Close():
                    status, ended_utc = frame.status, frame.utc
                case Resume():
                    status, ended_utc = INTERRUPTED, ""
    except DataError as error:
        status, ended_utc, reason = DAMAGED, "", _reason(error)
    facts = RunFacts(
        run_id=run_id_of(
            header.started_utc,
            header.chip_id,
            header.run,
            header.bench_hash,
            header.recipe_hash,
            header.instrument.boot,
        ),
        title=_clean(header.run),
        status=status,
        reason=reason,
        chip_id=_clean(header.chip_id),
        bench=_bench(header.instrument.model, header.instrument.serial),
        started_utc=_clean(header.started_utc),
        ended_utc=_clean(ended_utc),
        bench_s=_lasted(times),
        protocols=tuple(map(_clean, header.protocols)),
        steps=tuple(dict.fromkeys(steps)),
        package_version=_clean(header.package_version),
        frames=reader.frames,
    )
    return facts, len(times)


def _reason(error: DataError) -> str:
    return _clean(printable(first_line(error.message)))


def _lasted(times: Iterable[tuple[float, float]]) -> float | None:
    """The sum of what ended, but where its clock began anew meanwhile; None for nothing."""
    known = [float(ended - began) for began, ended in times if began <= ended < math.inf]
    return sum(known) if known else None


def _bench(model: object, serial: object) -> str:
    return _clean(f"{model} {serial}".strip())


def _clean(text: str) -> str:
    """Text that a database takes: no halves of surrogates, and not without end."""
    return shortened(text.encode("utf-8", "backslashreplace").decode("utf-8"))
