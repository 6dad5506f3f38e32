"""A study outlives its driver and its workers: the same table, no job twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from small_studies import JOBS, outcomes, write_small_study

pytest.importorskip("sklearn", reason="studies need the extra [study]")
pytest.importorskip("distributed", reason="studies need the extra [study]")
psutil = pytest.importorskip("psutil")

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
LIMIT_S = 300


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> dict[str, bytes]:
    """What the study leaves when nothing happens to it."""
    folder = study.parent / "undisturbed"
    with command(study, folder, "--workers", "2") as running:
        assert running.wait(LIMIT_S) == 0
    found = outcomes(folder)
    assert len(found) == JOBS + 1
    return found


@contextmanager
def command(study: Path, folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`rram-hil study` in a process of its own."""
    arguments = ["-m", "rram_hil.cli", "study", str(study), "--out", str(folder), *options]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        running = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log, text=True)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, f"waited for {what} in vain"
        time.sleep(0.05)


def records(folder: Path, kind: str = "arm") -> list[str]:
    return sorted(path.name for path in (folder / "jobs").glob(f"{kind}-*.json"))


def wait_for_arms(folder: Path, count: int) -> None:
    """Wait until `count` runs of arms are done."""
    wait_until(lambda: len(records(folder)) >= count, f"{count} records of arms")


def written(folder: Path) -> dict[str, int]:
    """When each record was written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "jobs").glob("*.json")}


def assert_kept(folder: Path, before: dict[str, int]) -> None:
    now = written(folder)
    assert {name: now.get(name) for name in before} == before, "a finished job was done again"


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_killed_is_gone_on_with(
    study: Path, undisturbed: dict[str, bytes], signal_number: signal.Signals
) -> None:
    folder = study.parent / signal_number.name
    with command(study, folder, "--workers", "2") as running:
        wait_for_arms(folder, 1)
        workers = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal_number)
        running.wait(30)
    before = written(folder)
    assert len(before) < JOBS
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive, "its workers outlive it"
    with command(study, folder, "--workers", "2") as running:
        assert running.wait(LIMIT_S) == 0
    assert_kept(folder, before)
    assert outcomes(folder) == undisturbed


def test_a_worker_of_this_machine_that_is_killed_is_replaced(
    study: Path, undisturbed: dict[str, bytes]
) -> None:
    folder = study.parent / "loky"
    with command(study, folder, "--workers", "2") as running:
        wait_for_arms(folder, 1)
        workers = [
            child
            for child in psutil.Process(running.pid).children()
            if any("loky" in part for part in child.cmdline())
            and not any("resource_tracker" in part for part in child.cmdline())
        ]
        workers[0].kill()
        before = written(folder)
        assert running.wait(LIMIT_S) == 0
    assert_kept(folder, before)
    assert outcomes(folder) == undisturbed


@contextmanager
def dask(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler or worker of Dask, as a user starts one."""
    running = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments, "--no-dashboard"], stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_one_of_two_workers_of_dask_is_killed(study: Path, undisturbed: dict[str, bytes]) -> None:
    folder, told = study.parent / "dask", study.parent / "scheduler.json"
    with ExitStack() as stack:
        scheduler = ("scheduler", "--host", "127.0.0.1", "--port", "0")
        stack.enter_context(dask(*scheduler, "--scheduler-file", str(told)))
        wait_until(told.exists, "the scheduler")
        worker = ("worker", "--scheduler-file", str(told), "--host", "127.0.0.1", "--no-nanny")
        local = ("--nthreads", "1", "--local-directory", str(study.parent))
        workers = [stack.enter_context(dask(*worker, *local)) for _ in range(2)]
        address = json.loads(told.read_text())["address"]
        running = stack.enter_context(command(study, folder, "--scheduler", address))
        wait_for_arms(folder, 1)
        os.kill(workers[0].pid, signal.SIGKILL)
        before = written(folder)
        assert running.wait(LIMIT_S) == 0
        assert workers[1].poll() is None
    assert_kept(folder, before)
    assert outcomes(folder) == undisturbed


def test_minutes_end_a_study_in_good_order(study: Path, undisturbed: dict[str, bytes]) -> None:
    folder = study.parent / "minutes"
    with command(study, folder, "--workers", "1", "--minutes", "0.0001") as running:
        assert running.wait(LIMIT_S) == 0
    told = (folder.parent / "minutes.log").read_text()
    assert f"1 of {JOBS} jobs are done: resume by the same command" in told
    before = written(folder)
    assert len(before) == 1
    with command(study, folder, "--workers", "2") as running:
        assert running.wait(LIMIT_S) == 0
    assert_kept(folder, before)
    assert outcomes(folder) == undisturbed
