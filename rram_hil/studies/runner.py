"""Running the jobs of a study in many processes, by joblib: on this machine, or on a Dask cluster.

Results come back to this process, which alone writes them. So workers need no shared disk, a lost
one loses no finished job, and a study goes on after any end of this process.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rram_hil import __version__
from rram_hil.errors import ConfigError, DataError
from rram_hil.studies.durations import Durations
from rram_hil.studies.jobs import Done, Failed, Files, Job, Work, perform
from rram_hil.studies.store import Store

WORKERS_S = 30
"""How long the first worker of a scheduler is waited for."""
LOST = 3
"""How often in a row a worker may be lost before any job is done."""
Told = Callable[[Job, Done | Failed], None]
Call = tuple[str, Work, Files, Path | None]
"""What `perform` takes."""


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

    def __init__(self, minutes: float | None, durations: Durations) -> None:
        self._end_s = None if minutes is None else time.monotonic() + 60 * minutes
        self.durations = durations
        self.is_begun = False
        """Whether a job was begun: the first one is in any case, so that there is progress."""

    def allows(self, job: Job) -> bool:
        """Whether the job may begin: half of what it may take may lie beyond the end."""
        if self._end_s is None or not self.is_begun:
            return True
        return time.monotonic() + self.durations.of(job) / 2 < self._end_s


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
    scratch = None if workers.scheduler else store.scratch.resolve()
    with _pool(workers) as pool:
        while ready := _ready(jobs, store, failed, deadline):
            done = 0
            by_key = {job.key: job for job in ready}
            try:
                for key, outcome in pool.outcomes(_calls(ready, store, deadline, scratch)):
                    job, done = by_key[key], done + 1
                    if isinstance(outcome, Failed):
                        failed[key] = outcome
                    else:
                        store.keep(job, outcome)
                        deadline.durations.learn(job, outcome.record.host_s)
                    told(job, outcome)
            except pool.lost as error:
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
    ready = [
        job
        for job in jobs
        if not store.has(job)
        and job.key not in failed
        and all(store.has(needed) for needed in job.needs.values())
        and deadline.allows(job)
    ]
    # Trainings take longest, so they come first, and most others wait for them.
    return sorted(ready, key=lambda job: job.kind != "training")


def _calls(
    jobs: list[Job], store: Store, deadline: Deadline, scratch: Path | None
) -> Iterator[Call]:
    for job in jobs:
        # Asked when a worker is free: what would end too late is not begun.
        if deadline.allows(job):
            deadline.is_begun = True
            yield job.key, job.work, store.files(job), scratch


@dataclass(frozen=True)
class _Pool:
    """What does calls in other processes; `lost` are the errors that say that one is gone, and its
    job with it.
    """

    parallel: Callable[[], Any]
    lost: tuple[type[Exception], ...]

    def outcomes(self, calls: Iterable[Call]) -> Iterator[tuple[str, Done | Failed]]:
        """What each call gives, as they come."""
        found: Iterator[tuple[str, Done | Failed]] = self.parallel()(
            (perform, call, {}) for call in calls
        )
        return found


@contextmanager
def _pool(workers: Workers) -> Iterator[_Pool]:
    joblib = package("joblib")
    # One job at a time and worker, each handed out when a worker is free.
    options = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": "n_jobs"}
    if workers.scheduler:
        distributed = package("distributed")
        with _client(workers.scheduler), joblib.parallel_config(backend="dask", n_jobs=-1):
            yield _Pool(partial(joblib.Parallel, **options), (distributed.KilledWorker,))
        return
    count = workers.count or os.cpu_count() or 1
    with joblib.parallel_config(
        backend="loky",
        n_jobs=count,
        inner_max_num_threads=1,
        initializer=_end_with,
        initargs=(os.getpid(),),
    ):
        yield _Pool(partial(joblib.Parallel, **options), (BrokenProcessPool,))


@contextmanager
def _client(address: str) -> Iterator[None]:
    """A client of a Dask scheduler. Raises `ConfigError` where there is none, or its workers would
    do more than one job at a time in a process.
    """
    try:
        client = package("distributed").Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--scheduler {address}: no scheduler answers: {error}") from None
    with client:
        check_workers(client, f"--scheduler {address}")
        yield


def check_workers(client: Any, where: str) -> None:
    """Raise `ConfigError` where a Dask client's scheduler has no worker, or one that would do more
    than one job at a time in its process, or has another version of this package.
    """
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError:
        raise ConfigError(f"{where}: no worker came in {WORKERS_S} s; start some") from None
    for worker, threads in client.nthreads().items():
        if threads > 1:
            raise ConfigError(
                f"{where}: the worker {worker} has {threads} threads, and the seeds of torch belong"
                " to a process: start workers with --nthreads 1"
            )
    for worker, version in client.run(_version).items():
        if version != __version__:
            raise ConfigError(
                f"{where}: the worker {worker} has rram_hil {version}; here it is {__version__}"
            )


def _version() -> str:
    """Of this package where this runs."""
    return __version__


def package(name: str) -> Any:
    """A package of the extra. Raises `ConfigError` that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f'studies need {name}: pip install "rram-hil[study]"') from None


def _end_with(driver: int) -> None:
    """End this process when the one that hands out the jobs is gone: a study that is killed leaves
    none behind.
    """

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
