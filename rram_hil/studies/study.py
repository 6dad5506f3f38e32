"""Doing a study: its jobs, then its results, table and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rram_hil.errors import DataError
from rram_hil.studies.bars import Bars
from rram_hil.studies.durations import Durations
from rram_hil.studies.jobs import Job
from rram_hil.studies.models import load_images
from rram_hil.studies.plan import Planned, plan
from rram_hil.studies.plots import draw
from rram_hil.studies.results import collect
from rram_hil.studies.results_file import write_results
from rram_hil.studies.runner import Deadline, Workers, run_jobs
from rram_hil.studies.store import Store
from rram_hil.studies.study_file import Study
from rram_hil.studies.tables import markdown, show
from rram_hil.terminal.console import Output

TABLE, RESULTS = "table.md", "results.h5"
"""Files of a study's folder."""


@dataclass(frozen=True)
class Finished:
    """How far a study is: jobs done of all, and the folder with its files."""

    folder: Path
    done: int
    jobs: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left."""
        return self.done == self.jobs


def run_study(
    study: Study,
    folder: Path,
    *,
    beside: Path = Path(),
    workers: Workers | None = None,
    minutes: float | None = None,
    output: Output | None = None,
) -> Finished:
    """Do what is left of a study in `folder`, for about `minutes` (none: until it is whole), and
    write its results and table. Paths in the study are relative to `beside`.

    Raises `DataError` at the end where jobs failed, naming the first; all others are done by then.
    """
    output = output or Output()
    data = None if study.data is None else beside / study.data
    images = load_images(study.model_used, data, held_out=study.images == "held-out")
    planned = plan(study, images, beside)
    write = partial(_write, planned, folder=folder, output=output)
    return carry_out(planned.jobs, folder, write, workers=workers, minutes=minutes)


def carry_out(
    jobs: Sequence[Job],
    folder: Path,
    write: Callable[[Store], None],
    *,
    workers: Workers | None = None,
    minutes: float | None = None,
) -> Finished:
    """Do what is left of a study's jobs in `folder`, as `run_study`, and `write` what is done."""
    with Store(folder / "jobs") as store:
        durations = Durations(jobs, store)
        with Bars(jobs, store, durations) as bars:
            deadline = Deadline(minutes, durations)
            failed = run_jobs(jobs, store, workers or Workers(), deadline, bars.told)
        done = sum(map(store.has, jobs))
        write(store)
    if failed:
        job = next(job for job in jobs if job.key in failed)
        raise DataError(
            f"{len(failed)} of {len(jobs)} jobs failed; the first: {job.title}:"
            f" {failed[job.key].text}"
        )
    return Finished(folder, done, len(jobs))


def _write(planned: Planned, store: Store, folder: Path, output: Output) -> None:
    results = collect(planned, store)
    (folder / TABLE).write_text(markdown(results), encoding="utf-8")
    write_results(results, folder / RESULTS)
    draw(results, folder)
    show(results, output)
