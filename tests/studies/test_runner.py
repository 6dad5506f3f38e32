"""The order of jobs, what fails, what is lost, and when no more are begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from small_studies import Note

pytest.importorskip("joblib", reason="studies need the extra [study]")

from rram_hil import __version__
from rram_hil.errors import ConfigError, DataError
from rram_hil.studies.bars import Bars
from rram_hil.studies.durations import Durations
from rram_hil.studies.jobs import Done, Failed, Input, Job
from rram_hil.studies.runner import Deadline, Workers, check_workers, run_jobs
from rram_hil.studies.store import Store


def note(text: str, *, row: str = "", **needs: Job) -> Job:
    return Job("training", text, Note(text), needs, {}, row)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "jobs") as opened:
        yield opened


@dataclass
class Run:
    """Runs jobs, and keeps what it was told."""

    store: Store
    told: list[str] = field(default_factory=list)

    def __call__(
        self, jobs: list[Job], workers: int = 1, minutes: float | None = None
    ) -> dict[str, Failed]:
        deadline = Deadline(minutes, Durations(jobs, self.store))
        return run_jobs(jobs, self.store, Workers(workers), deadline, self.tell)

    def tell(self, job: Job, outcome: Done | Failed) -> None:
        self.told.append(job.title)


@pytest.fixture
def run(store: Store) -> Run:
    return Run(store)


def test_a_job_is_done_after_those_it_needs_and_gets_their_files(run: Run, store: Store) -> None:
    first = note("a")
    left, right = note("b", one=first), note("c", one=first)
    last = note("d", left=left, right=right)
    assert not run([last, right, left, first])
    assert run.told[0] == "a"
    assert set(run.told[1:3]) == {"b", "c"}
    assert run.told[3:] == ["d"]
    assert store.file(last) == b"abacd"
    run.told.clear()
    assert not run([last, right, left, first])
    assert run.told == [], "nothing is done twice"


def test_what_fails_leaves_what_needs_it_undone_and_no_other(run: Run, store: Store) -> None:
    bad, good = note("fails"), note("a")
    after = note("b", one=bad)
    failed = run([bad, good, after])
    assert failed == {bad.key: Failed("it fails")}
    assert store.has(good)
    assert not store.has(after)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_job_that_ends_its_worker_again_and_again_ends_the_study(run: Run, store: Store) -> None:
    good, bad = note("a"), note("gone")
    with pytest.raises(DataError, match="a worker was lost 3 times before any job was done"):
        run([good, note("b", one=good), bad], workers=2)


def test_one_job_is_begun_in_any_case_and_none_that_ends_too_late(run: Run) -> None:
    jobs = [note(text) for text in "abc"]
    assert not run(jobs, minutes=1e-3)
    # Each took a second: half of it goes beyond the end.
    assert run.told == ["a"]
    assert not run(jobs, minutes=1.0)
    assert run.told == ["a", "b", "c"]


def test_durations_are_those_of_the_row_then_the_kind_then_all(store: Store) -> None:
    known = Durations([], store)
    job, same, other = note("a", row="x"), note("b", row="x"), note("c", row="y")
    forming = Job("forming", "f", Note("f"))
    assert known.of(job) == 0.0
    known.learn(job, 1.0)
    known.learn(other, 4.0)
    assert known.of(same) == 1.0
    assert known.of(note("d")) == known.of(forming) == 2.5
    known.learn(forming, 10.0)
    assert (known.of(note("d")), known.of(forming)) == (2.5, 10.0)


def test_without_a_terminal_every_job_that_ends_is_a_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    done, last, bad = note("done"), note("last"), note("bad")
    outcome = Note("done").run({}, store.scratch)
    store.keep(done, outcome)
    jobs = [done, last, bad]
    with Bars(jobs, store, Durations(jobs, store)) as bars:
        bars.told(bad, Failed("no luck"))
        bars.told(last, outcome)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "1 of 3 jobs are done already",
        "bad: failed: no luck",
        "3 of 3 jobs, none left; last: last",
    ]


def test_inputs_tell_jobs_apart() -> None:
    keys = {
        Job("training", "t", Note("a"), {}, {"x": Input(digest, b"")}).key for digest in ("1", "2")
    }
    assert len(keys) == 2


@dataclass
class Cluster:
    """What a client of Dask tells of its workers: their threads, and what they have installed."""

    threads: dict[str, int]
    version: str = __version__

    def wait_for_workers(self, count: int, timeout: float) -> None:
        if len(self.threads) < count:
            raise TimeoutError

    def nthreads(self) -> dict[str, int]:
        return self.threads

    def run(self, function: Callable[[], str]) -> dict[str, str]:
        assert function() == __version__
        return dict.fromkeys(self.threads, self.version)


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        (Cluster({}), "no worker came in 30 s; start some"),
        (Cluster({"one": 1, "two": 4}), "the worker two has 4 threads.*--nthreads 1"),
        (Cluster({"one": 1}, "0.0.1"), "the worker one has rram_hil 0.0.1; here it is"),
    ],
)
def test_a_cluster_that_would_do_other_things_is_refused(cluster: Cluster, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^here: {told}"):
        check_workers(cluster, "here")
    check_workers(Cluster({"one": 1, "two": 1}), "here")


def test_trainings_come_first(run: Run) -> None:
    assert not run([Job("arm", "a", Note("a")), note("t")])
    assert run.told == ["t", "a"]
