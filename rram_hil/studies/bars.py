"""Progress of a study on standard error: how many jobs are done, and the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rram_hil.studies.durations import Durations
from rram_hil.studies.jobs import Done, Failed, Job
from rram_hil.studies.store import Store
from rram_hil.terminal.console import make_console
from rram_hil.units import duration


class Bars:
    """A bar with the time left; plain lines, one a job, where there is no terminal.

    What is left is reckoned from how long jobs took their hosts so far, in this run and before it,
    and from how many of them end at a time.
    """

    def __init__(self, jobs: Sequence[Job], store: Store, durations: Durations) -> None:
        self._console = make_console(stderr=True)
        self._left = {job.key: job for job in jobs if not store.has(job)}
        self._durations = durations
        self._total, self._before = len(jobs), len(jobs) - len(self._left)
        self._worked_s = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[told]}"),
            console=self._console,
            refresh_per_second=2,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            "jobs", total=self._total, completed=self._before, told=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        if self._progress.disable and self._before:
            self._print(f"{self._before} of {self._total} jobs are done already")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def told(self, job: Job, outcome: Done | Failed) -> None:
        """A job ended."""
        del self._left[job.key]
        if isinstance(outcome, Done):
            self._worked_s += outcome.record.host_s
        elapsed_s = self._progress.tasks[0].elapsed or 0.0
        said = f"{self._left_text(elapsed_s)}; last: {job.title}"
        done = self._total - len(self._left)
        self._progress.update(self._task, completed=done, told=said)
        if isinstance(outcome, Failed):
            self._print(f"{job.title}: failed: {outcome.text}")
        elif self._progress.disable:
            self._print(f"{done} of {self._total} jobs, {said}")

    def _left_text(self, elapsed_s: float) -> str:
        """What the jobs left take their hosts, over how many hosts worked at a time so far."""
        if not self._left:
            return "none left"
        if not self._worked_s or not elapsed_s:
            return "time left not known yet"
        work_s = sum(map(self._durations.of, self._left.values()))
        return f"about {duration(work_s * elapsed_s / self._worked_s)} left"

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)
