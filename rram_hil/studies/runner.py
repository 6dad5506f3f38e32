"""Running the jobs of a study in many processes, by joblib: on this machine, or on a Dask cluster.

Results come back to this process, which alone writes them. So workers need no shared disk, a lost
one loses no finished job, and a study goes on after any end of this process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rram_hil.errors import ConfigError, DataError
from rram_hil.studies.jobs import Done, Failed, Job, perform
from rram_hil.studies.store import Store

LOST = 3
"""How often in a row a worker may be lost before any job is done."""
Told = Callable[[Job, Done | Failed], None]


@dataclass(frozen=True)
class Workers:
    """Who does the jobs: `count` processes of this machine (none: one a processor), or the Dask
    scheduler at an address.
    """

    count: int | None = None
    scheduler: str = ""


class Deadline:
    """When to begin no more jobs: so that those under way end after about `minutes` (none:
    never).
    """

    def __init__(self, minutes: float | None) -> None:
        self._end_s = None if minutes is None else time.monotonic() + 60 * minutes
        self._took_s: dict[str, list[float]] = {}

    def learn(self, job: Job, seconds: float) -> None:
        """A job of this kind took so long."""
        self._took_s.setdefault(job.kind, []).append(seconds)

    def allows(self, job: Job) -> bool:
        """Whether the job may begin: half of what its kind takes on average may lie beyond the
        end.
        """
        if self._end_s is None:
            return True
        took = self._took_s.get(job.kind, [0.0])
        return time.monotonic() + sum(took) / len(took) / 2 < self._end_s


def run_jobs(
    jobs: Sequence[Job], store: Store, workers: Workers, deadline: Deadline, told: Told
) -> dict[str, Failed]:
    """Do what is not done yet, wave by wave: each job after those that it needs. Returns the jobs
    that failed, by their keys; others may be left where the deadline came, or where what they need
    failed.

    Raises `ConfigError` where there are no workers, `DataError` where they are lost again and
    again, or the disk refuses a record.
    """
    failed: dict[str, Failed] = {}
    lost = 0
    with _pool(workers) as parallel:
        while ready := _ready(jobs, store, failed, deadline):
            done = 0
            by_key = {job.key: job for job in ready}
            try:
                for key, outcome in parallel(_calls(ready, store, deadline)):
                    job, done = by_key[key], done + 1
                    if isinstance(outcome, Failed):
                        failed[key] = outcome
                    else:
                        store.keep(job, outcome)
                        deadline.learn(job, outcome.record.host_s)
                    told(job, outcome)
            except _lost_worker() as error:
                lost = 0 if done else lost + 1
                if lost == LOST:
                    raise DataError(
                        f"a worker was lost {LOST} times before any job was done: out of memory, or"
                        f" killed? ({type(error).__name__})"
                    ) from None
    return failed


def _ready(
    jobs: Iterable[Job], store: Store, failed: dict[str, Failed], deadline: Deadline
) -> list[Job]:
    return [
        job
        for job in jobs
        if not store.has(job)
        and job.key not in failed
        and all(store.has(needed) for needed in job.needs.values())
        and deadline.allows(job)
    ]


def _calls(jobs: list[Job], store: Store, deadline: Deadline) -> Iterator[Any]:
    from joblib import delayed  # type: ignore[import-untyped]

    call = delayed(perform)
    for job in jobs:
        # Asked when a worker is free: what would end too late is not begun.
        if deadline.allows(job):
            yield call(job.key, job.work, store.files(job))


@contextmanager
def _pool(workers: Workers) -> Iterator[Callable[[Iterator[Any]], Iterator[Any]]]:
    """What does calls in other processes, and gives their results as they come."""
    try:
        from joblib import Parallel, parallel_config
    except ImportError as error:
        raise ConfigError(f'studies need {error.name}: pip install "rram-hil[study]"') from None
    # One job at a time and worker, each handed out when a worker is free.
    options = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": "n_jobs"}
    if workers.scheduler:
        with _cluster(workers.scheduler), parallel_config(backend="dask"):
            yield lambda calls: Parallel(n_jobs=-1, **options)(calls)
        return
    count = workers.count or os.cpu_count() or 1
    with parallel_config(backend="loky", n_jobs=count, inner_max_num_threads=1):
        yield lambda calls: Parallel(**options)(calls)


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """A client of a Dask scheduler. Raises `ConfigError` where there is none, or its workers would
    do more than one job at a time in a process.
    """
    try:
        from distributed import Client  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f'--scheduler needs {error.name}: pip install "rram-hil[study]"'
        ) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--scheduler {address}: no scheduler answers: {error}") from None
    with client:
        shared = [a for a, threads in client.nthreads().items() if threads > 1]
        if shared:
            raise ConfigError(
                f"--scheduler {address}: the worker {shared[0]} has more than one thread, and the"
                " seeds of torch belong to a process: start workers with --nthreads 1"
            )
        yield


def _lost_worker() -> tuple[type[Exception], ...]:
    """What says that a worker process is gone, and its job with it."""
    try:
        from distributed import KilledWorker
    except ImportError:
        return (BrokenProcessPool,)
    return BrokenProcessPool, KilledWorker
