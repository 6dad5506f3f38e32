"""Doing the study: its jobs, then its results, tables and plots."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rram_hil.studies.programming.plan import PlannedProgramming, plan_programming
from rram_hil.studies.programming.plots import draw_methods
from rram_hil.studies.programming.results import collect_methods, write_methods
from rram_hil.studies.programming.study import ProgrammingStudy
from rram_hil.studies.programming.tables import methods_markdown, show_methods
from rram_hil.studies.runner import Workers
from rram_hil.studies.store import Store
from rram_hil.studies.study import RESULTS, TABLE, Finished, carry_out
from rram_hil.terminal.console import Output


def run_programming(
    study: ProgrammingStudy,
    folder: Path,
    *,
    beside: Path = Path(),
    workers: Workers | None = None,
    minutes: float | None = None,
    output: Output | None = None,
) -> Finished:
    """Do what is left of a study of methods; see `rram_hil.studies.study.run_study`."""
    planned = plan_programming(study, beside)
    write = partial(_write, planned, folder=folder, output=output or Output())
    return carry_out(planned.jobs, folder, write, workers=workers, minutes=minutes)


def _write(planned: PlannedProgramming, store: Store, folder: Path, output: Output) -> None:
    results = collect_methods(planned, store)
    (folder / TABLE).write_text(methods_markdown(results), encoding="utf-8")
    write_methods(results, folder / RESULTS)
    draw_methods(results, folder)
    show_methods(results, output)
