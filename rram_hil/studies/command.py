"""`rram-hil study`: what the command line says, as a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rram_hil.errors import ConfigError
from rram_hil.plugins import need_extra
from rram_hil.studies.paper import paper_study
from rram_hil.studies.runner import Workers
from rram_hil.studies.study import RESULTS, TABLE, run_study
from rram_hil.studies.study_file import Study, load_study
from rram_hil.terminal.console import Output

PAPER = "paper"


@dataclass(frozen=True)
class Options:
    """The options of the command, as given."""

    model: str | None
    data: Path | None
    out: Path | None
    arms: list[str]
    devices: list[str]
    chips: int | None
    minutes: float | None
    scheduler: str
    workers: int | None


def run_command(what: str, given: Options) -> None:
    """Run `paper` or a study file, and say what came of it. Raises `ConfigError`, `DataError`."""
    packages = {"joblib": "joblib", "torch": "torch", "scikit-learn": "sklearn"}
    need_extra("study", "study", packages)
    study, name, beside = _study(what, given)
    folder = given.out or Path(f"rram-hil-study-{name}")
    output = Output()
    try:
        finished = run_study(
            study,
            folder,
            beside=beside,
            workers=Workers(given.workers, given.scheduler),
            minutes=given.minutes,
            output=output,
        )
    except KeyboardInterrupt:
        output.line(f"stopped; jobs that are done stay in {folder}: resume by the same command")
        raise
    output.heading("files", f"in {folder}")
    output.facts(
        (
            ("tables", str(folder / TABLE)),
            ("numbers", str(folder / RESULTS)),
            ("plots", ", ".join(path.name for path in sorted(folder.glob("*.png")))),
        )
    )
    if not finished.is_whole:
        output.line(f"{finished.done} of {finished.jobs} jobs are done: resume by the same command")


def _study(what: str, given: Options) -> tuple[Study, str, Path]:
    """The study, a name for its folder, and where its relative paths begin."""
    if what == PAPER:
        if given.model is None:
            raise ConfigError("study paper: give --model, such as digits or lenet5")
        made = paper_study(given.model, given.data, given.arms, given.devices, given.chips)
        return made, f"paper-{given.model}", Path()
    for name in ("model", "arms", "devices"):
        if getattr(given, name):
            raise ConfigError(f"study: --{name} goes with `paper`; {what} says its own")
    path = Path(what)
    study = load_study(path)
    changes: dict[str, object] = {}
    if given.data is not None:
        changes["data"] = str(given.data.resolve())
    if given.chips is not None:
        changes["chips"] = given.chips
    return study.model_copy(update=changes), path.stem, path.parent
