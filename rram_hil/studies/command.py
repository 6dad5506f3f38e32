"""`rram-hil study`: what the command line says, as a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rram_hil.errors import ConfigError
from rram_hil.plugins import need_extra
from rram_hil.studies.paper import paper_study
from rram_hil.studies.programming.run import run_programming
from rram_hil.studies.programming.study import parse_programming, usual_study
from rram_hil.studies.runner import Workers
from rram_hil.studies.study import RESULTS, TABLE, Finished, run_study
from rram_hil.studies.study_file import load_study
from rram_hil.terminal.console import Output
from rram_hil.validation import read_toml

PAPER, PROGRAMMING = "paper", "programming"
_GOES_WITH = {
    "model": (PAPER,),
    "arms": (PAPER,),
    "methods": (PROGRAMMING,),
    "devices": (PAPER, PROGRAMMING),
}
"""Options that say what a study file says itself."""


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
    methods: list[str]


def run_command(what: str, given: Options) -> None:
    """Run `paper`, `programming` or a study file, and say what came of it. Raises `ConfigError`,
    `DataError`.
    """
    output = Output()
    run, name = _asked(what, given)
    folder = given.out or Path(f"rram-hil-study-{name}")
    workers = Workers(given.workers, given.scheduler)
    try:
        finished = run(folder, workers=workers, minutes=given.minutes, output=output)
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


def _asked(what: str, given: Options) -> tuple[Callable[..., Finished], str]:
    """What runs the study in a folder, and a name for that."""
    path = Path(what)
    is_usual = what in (PAPER, PROGRAMMING)
    tables = {} if is_usual else read_toml(path, "a study file")[0]
    of_methods = what == PROGRAMMING or "method" in tables
    packages = {} if of_methods else {"torch": "torch", "scikit-learn": "sklearn"}
    need_extra("study", "study", {"joblib": "joblib"} | packages)
    _refuse_foreign(what, given)
    if what == PROGRAMMING:
        usual = usual_study(given.methods, given.devices, given.chips)
        return partial(run_programming, usual), what
    if what == PAPER:
        if given.model is None:
            raise ConfigError("study paper: give --model, such as digits or lenet5")
        paper = paper_study(given.model, given.data, given.arms, given.devices, given.chips)
        return partial(run_study, paper), f"paper-{given.model}"
    changes: dict[str, object] = {} if given.chips is None else {"chips": given.chips}
    if of_methods:
        if given.data is not None:
            raise ConfigError(f"study: --data is the folder of images; {what} needs none")
        methods = parse_programming(tables, what).model_copy(update=changes)
        return partial(run_programming, methods, beside=path.parent), path.stem
    if given.data is not None:
        changes["data"] = str(given.data.resolve())
    study = load_study(path).model_copy(update=changes)
    return partial(run_study, study, beside=path.parent), path.stem


def _refuse_foreign(what: str, given: Options) -> None:
    """Raise `ConfigError` for an option that goes with another study than `what`."""
    for name, goes_with in _GOES_WITH.items():
        if getattr(given, name) and what not in goes_with:
            others = " and ".join(f"`{one}`" for one in goes_with)
            says = f"; {what} says its own" if what not in (PAPER, PROGRAMMING) else ""
            raise ConfigError(f"study: --{name} goes with {others}{says}")
