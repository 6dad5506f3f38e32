"""How long the jobs of a study take their hosts, reckoned from those that are done."""

from __future__ import annotations

from collections.abc import Iterable

from rram_hil.studies.jobs import Job, TakeFloat
from rram_hil.studies.store import Store


class Durations:
    """Mean seconds of the jobs of a row, else of a kind, else of all."""

    def __init__(self, jobs: Iterable[Job], store: Store) -> None:
        """From the jobs that are done."""
        self._took_s: dict[str, list[float]] = {}
        for job in jobs:
            if store.has(job):
                self.learn(job, store.record(job).host_s)

    def learn(self, job: Job, seconds: float) -> None:
        """A job took so long."""
        for name in _names(job):
            self._took_s.setdefault(name, []).append(seconds)

    def of(self, job: Job) -> float:
        """What a job may take; 0 where nothing is known."""
        for name in _names(job):
            if name in self._took_s:
                return sum(self._took_s[name]) / len(self._took_s[name])
        return 0.0


def _names(job: Job) -> tuple[str, ...]:
    row = f"{job.kind}: {job.row}"
    # An arm without a chip is done at once and tells nothing of the others.
    return (row,) if isinstance(job.work, TakeFloat) else (row, job.kind, "")
