"""Running a recipe on a bench into a run file: start, resume, abort, always leaving a whole journal
and a valid file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
import subprocess
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from rram_hil import __version__
from rram_hil.bench.bench import Bench, off_after
from rram_hil.bench.bench_file import BenchFile, load_bench_file
from rram_hil.bench.calibrations import utc_now
from rram_hil.bench.recipe import Recipe, load_recipe
from rram_hil.corrections.calibration_file import Calibrated, arrays_beside, is_calibration
from rram_hil.engine.calibration import Calibration
from rram_hil.engine.engine import Watcher
from rram_hil.engine.replay import Replay
from rram_hil.errors import AbortedError, ConfigError, DataError, told_with_frames
from rram_hil.storage.frames import Close, EndStatus, Header, Note, Resume, Stamp
from rram_hil.storage.journal import Journal, JournalReader, holds_run, read_journal
from rram_hil.storage.run_state import is_whole, journal_of
from rram_hil.storage.run_writer import write_run_file
from rram_hil.storage.safe_files import HeldError
from rram_hil.wire.recording import Traffic

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOutcome:
    """What a finished run left: its run file; for each step its name and what its protocol
    returned; what steps shared.
    """

    run_file: Path
    steps: tuple[tuple[str, object], ...]
    shared: Mapping[str, object]


def run_recipe(
    recipe: str | Path | Recipe,
    bench: str | Path | BenchFile,
    run_file: str | Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    traffic: Traffic | None = None,
    threads: int | None = None,
    force: bool = False,
    awaits: Collection[Path] = (),
) -> RunOutcome:
    """Run every step of a recipe; keep everything in `run_file` and its journal.

    To resume a run that is complete gives back what its steps returned; `is_complete` tells before.

    `traffic` records what goes over the links, or plays such a recording back instead of the
    hardware. `threads` is how many the host's computations may use, by default as many as the work
    is worth. `awaits` are files that are there only when a step needs them. `force` lets
    calibration steps write outside the recipe's folder and over files that are no calibrations.

    Raises `ConfigError` where the run file exists (or, on resume, does not), the recipe or bench
    changed, or board or chip are others; `DataError` where a file that a step names cannot be read;
    `AbortedError` after Ctrl-C; any `BenchError` of the run. In every case outputs are off and the
    file is valid.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    file = bench if isinstance(bench, BenchFile) else load_bench_file(bench)
    path = Path(run_file)
    watcher = watcher or Watcher()
    if not force:
        _check_outputs(recipe)
    if resume:
        return _resume(recipe, file, path, watcher, traffic, threads)
    _check_inputs(recipe, {path.resolve() for path in awaits})
    # A journal that died before its header holds nothing, and is begun again.
    for taken, is_taken in ((path, path.exists()), (journal_of(path), holds_run(journal_of(path)))):
        if is_taken:
            raise ConfigError(
                f"{taken} exists; give another --out, or --resume to go on with that run"
            )
    with (
        Bench.open(file, traffic=traffic) as opened,
        Journal.create(journal_of(path), _header(recipe, opened), _counted(opened)) as journal,
    ):
        remarks = [f"{e.name}: {e.remark}" for e in opened.correction.files if e.remark]
        for text in [t for t in (opened.ledger_warning, *remarks) if t]:
            watcher.note(text)
            journal.append(Note("info", text, _utc()))
        return _steps(recipe, opened, journal, None, path, watcher, threads)


def is_complete(recipe: Recipe, bench: BenchFile, run_file: str | Path) -> bool:
    """Whether this run ended complete, so that there is nothing to go on with. Its run file is
    written where that is behind (the run was killed after its last entry, or a viewer held the
    file); the journal stays as it is, and no bench is opened.

    Raises `ConfigError` where recipe or bench changed since, `DataError` for a journal that is
    damaged or in use, and where the run file cannot be written.
    """
    path = Path(run_file)
    if not holds_run(journal_of(path)):
        return False
    with Journal.resume(journal_of(path)) as journal:
        _same_run(journal.header, recipe, bench, journal.path)
        last = deque(JournalReader(journal.path).course(), maxlen=1)[0]
        if not (isinstance(last, Close) and last.status == "complete"):
            return False
        if not is_whole(path, journal.path):
            write_run_file(journal.path, path)
        return True


def _resume(
    recipe: Recipe,
    file: BenchFile,
    path: Path,
    watcher: Watcher,
    traffic: Traffic | None,
    threads: int | None,
) -> RunOutcome:
    if not holds_run(journal_of(path)):
        raise ConfigError(
            f"{journal_of(path)}: there is no run to resume; run without --resume to start"
        )
    with Journal.resume(journal_of(path)) as journal:
        _same_run(journal.header, recipe, file, journal.path)
        replay = Replay(read_journal(journal.path))
        with Bench.open(file, traffic=traffic) as opened:
            _same_chip(journal.header, replay, opened, journal.path)
            between = _same_history(journal, replay, opened)
            watcher.note(f"resuming: what {path} already holds is taken from its journal")
            journal.append(
                Resume(_utc(), opened.identity, file.operator, __version__, opened.driver.now_s())
            )
            if between:
                watcher.note(between)
                journal.append(Note("info", between, _utc()))
            return _steps(recipe, opened, journal, replay, path, watcher, threads)


def _steps(
    recipe: Recipe,
    bench: Bench,
    journal: Journal,
    replay: Replay | None,
    path: Path,
    watcher: Watcher,
    threads: int | None,
) -> RunOutcome:
    _log.info("run %s of %s: journal %s", journal.run_id, recipe.path, journal.path)
    keep = _Keeper(journal.path, path, watcher)
    keep.now()
    engine = bench.record(journal, replay, watcher)
    folder, seed = recipe.path.parent, recipe.head.seed
    setting = replace(bench.setting, folder=folder, seed=seed, threads=threads)
    done: list[tuple[str, object]] = []
    try:
        with engine.abortable():
            for number, step in enumerate(recipe.steps, 1):
                watcher.step(step.name, number, len(recipe.steps))
                plan = partial(step.protocol.run, replace(setting, step=step.name))
                outcome = engine.step(
                    number, step.name, step.protocol_name, step.protocol.version, plan
                )
                done.append((step.name, outcome))
                if isinstance(outcome, Calibrated) and outcome.file:
                    _write_calibration(outcome, recipe, bench, journal.header, watcher)
                if engine.replay is None:
                    keep.up()
    except BaseException as error:
        status: EndStatus = "aborted" if isinstance(error, AbortedError) else "error"
        # Outputs first, files after: a full disk must not keep a voltage on.
        try:
            off_after(error, bench)
            raise
        finally:
            # The first error is the one to tell: what cannot be written any more is in the journal
            # as far as it goes.
            with contextlib.suppress(DataError, OSError):
                if isinstance(error, AbortedError):
                    journal.append(Note("aborted", str(error), _utc()))
                elif isinstance(error, Exception):
                    journal.append(Note("error", told_with_frames(error), _utc()))
                _end(journal, status, keep)
    try:
        _end(journal, "complete", keep)
    except HeldError as error:
        watcher.note(f"done, but {error}: the run file will be written by --resume")
    _log.info("run %s: complete, %s", journal.run_id, path)
    return RunOutcome(path, tuple(done), setting.shared)


def _check_outputs(recipe: Recipe) -> None:
    """Refuse, before any output is on, a step that would write outside the recipe's folder or over
    a file that is no calibration. Raises `ConfigError`.
    """
    folder = recipe.path.parent.resolve()
    for number, step in enumerate(recipe.steps, 1):
        if not isinstance(step.protocol, Calibration) or not step.protocol.file:
            continue
        where = f"{recipe.path}: step {number}: file"
        path = (folder / step.protocol.file).resolve()
        if not path.is_relative_to(folder):
            raise ConfigError(
                f"{where}: {step.protocol.file!r} lies outside the recipe's folder {folder};"
                " --force lets it be written"
            )
        taken = [target for target in (path, arrays_beside(path)) if target.exists()]
        if taken and not is_calibration(path):
            raise ConfigError(
                f"{where}: {taken[0]} exists and is no calibration; give another name, or --force"
                " to write over it"
            )


def _check_inputs(recipe: Recipe, awaited: Collection[Path]) -> None:
    """Refuse, before the first step, a recipe of whose files one cannot be read, but for those that
    are awaited. Raises `DataError` naming step and file.
    """
    for number, step in enumerate(recipe.steps, 1):
        for name in step.protocol.input_files():
            path = recipe.path.parent / name
            if path.resolve() in awaited:
                continue
            try:
                path.open("rb").close()
            except OSError as error:
                refusal = DataError(f"{path}: cannot be read: {error.strerror or error}")
                refusal.step, refusal.step_name = number, step.name
                raise refusal from None


def _write_calibration(
    found: Calibrated, recipe: Recipe, bench: Bench, header: Header, watcher: Watcher
) -> None:
    """Write what a calibration found as a file, dated with the run's start: a resumed run writes
    the same again.
    """
    path = recipe.path.parent / found.file
    date = datetime.fromisoformat(header.started_utc)
    file = found.complete(
        bench.identity, header.chip_id, date, header.operator, header.temperature_k
    )
    file.write(path, force=True)
    watcher.note(f"calibration written: {path}")


def _end(journal: Journal, status: EndStatus, keep: _Keeper) -> None:
    journal.append(Close(status, _utc()))
    journal.sync()
    keep.now()


class _Keeper:
    """Keeps the run file up with the journal between steps, at no more than a fifth of the run's
    time.
    """

    def __init__(self, journal: Path, run_file: Path, watcher: Watcher) -> None:
        self._journal, self._run_file, self._watcher = journal, run_file, watcher
        self._took_s = self._written_at = 0.0

    def now(self) -> None:
        """Write the run file. Raises `DataError` where it cannot be written."""
        started = time.monotonic()
        write_run_file(self._journal, self._run_file)
        self._written_at = time.monotonic()
        self._took_s = self._written_at - started

    def up(self) -> None:
        """Write the run file if that is due; where it cannot be written (a viewer holds it), the
        run goes on.
        """
        if time.monotonic() - self._written_at < 5 * self._took_s:
            return
        try:
            self.now()
        except DataError as error:
            self._watcher.note(f"the run file is behind: {error}")


def _same_run(header: Header, recipe: Recipe, bench: BenchFile, path: Path) -> None:
    """Refuse to resume what is not the same run. Raises `ConfigError` in one line."""
    if header.chip_id != bench.chip.id:
        raise ConfigError(
            f"this run is of chip {header.chip_id!r}; the bench file has chip {bench.chip.id!r}",
            where=str(path),
            chip=header.chip_id,
        )
    if header.recipe != recipe.text:
        raise ConfigError(
            f"{path}: the recipe {recipe.path} changed since this run began; resume needs the same"
            " recipe"
        )
    if header.bench != bench.text:
        raise ConfigError(
            f"{path}: the bench file {bench.path} changed since this run began; resume needs the"
            " same bench"
        )
    if header.package_version != __version__:
        raise ConfigError(
            f"{path}: this run began with rram_hil {header.package_version}; this is {__version__}"
        )


def _same_chip(header: Header, replay: Replay, bench: Bench, path: Path) -> None:
    """Refuse to go on with another board, or on a chip that has forgotten what this run did to it.
    Raises `ConfigError`.
    """
    before, now = header.instrument, bench.identity
    if (before.model, before.serial) != (now.model, now.serial):
        raise ConfigError(
            f"{path}: this run began on {before.model} {before.serial}; the bench now has"
            f" {now.model} {now.serial}"
        )
    if dict(header.calibration) != bench.correction.texts:
        told = (
            ", ".join(n for n in header.calibration if f"{n}_sha256" in header.calibration)
            or "none"
        )
        raise ConfigError(
            f"{path}: this run began with other calibrations ({told}); put those back, or start a"
            " new run"
        )
    if bench.capabilities.counters and bench.driver.last_number() < replay.last_pulsed:
        raise ConfigError(
            f"{path}: the chip's own records end before operation {replay.last_pulsed} of this run:"
            " it is another chip, or its state is lost (a simulated chip outlives its process only"
            " with state = ... in [simulation]); start a new run"
        )


def _counted(bench: Bench) -> Callable[[], Stamp] | None:
    return None if bench.ledger is None else bench.ledger.stamp


def _same_history(journal: Journal, replay: Replay, bench: Bench) -> str:
    """What to say of runs that used the chip since this one. Raises `DataError` where ledger and
    journal are no one history of the chip.
    """
    if bench.ledger is None:
        return ""
    standing = bench.ledger.standing(journal, pulsed=replay.last_pulsed > 0)
    bench.ledger.begin(journal)
    if not standing.between:
        return ""
    return (
        f"the chip was touched between by {', '.join(standing.between)}: maps and `inside` that"
        " this run took before are older than that"
    )


def _utc() -> str:
    return utc_now().isoformat(timespec="milliseconds")


def _header(recipe: Recipe, bench: Bench) -> Header:
    chip = bench.file.chip
    return Header(
        run=recipe.head.title or recipe.path.stem,
        chip_id=chip.id,
        geometry=bench.geometry,
        bench=bench.file.text,
        recipe=recipe.text,
        started_utc=_utc(),
        clock=bench.capabilities.clock,
        instrument=bench.identity,
        package_version=__version__,
        protocols={s.protocol_name: str(s.protocol.version) for s in recipe.steps},
        git_revision=git_revision(),
        seed=recipe.head.seed,
        die=chip.die,
        lot=chip.lot,
        operator=recipe.head.operator or bench.file.operator,
        temperature_k=chip.temperature_k,
        log=recipe.head.log,
        versions=versions(),
        calibration=bench.correction.texts,
        thermostat="" if bench.climate is None else bench.climate.told,
    )


def versions() -> dict[str, str]:
    """Python and the packages that the numbers depend on, with their versions."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "h5py", "pydantic", "pyserial", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_revision() -> str:
    """Revision of the checkout that this package runs from; empty for an installed package."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return ""
    try:
        told = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip()
