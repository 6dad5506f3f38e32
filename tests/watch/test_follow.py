"""Following a run: whatever happens to its files, the page has what they say."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import storage_scenarios as scenarios
import watched
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import ApplyResult, Cells, Geometry, Span, Status
from rram_hil.storage.frames import Close, Failed, Note, Resume, StepEnd, StepStart
from rram_hil.storage.journal import Journal, JournalTail, read_journal
from rram_hil.storage.run_state import INTERRUPTED, UNDER_WAY, journal_of
from rram_hil.storage.run_writer import write_run_file
from rram_hil.watch import follow
from rram_hil.watch.cell_map import last_time_s
from rram_hil.watch.follow import DAMAGED, GONE, SILENT, STALLED, WAITING, RunFollower
from rram_hil.watch.picture import Picture, Reach
from rram_hil.watch.planned import planned_steps
from rram_hil.watch.series import BINS, CellEvents, Rates
from rram_hil.watch.snapshot import bench_of, snapshot

GEOMETRY = Geometry(1, 4, 6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a journal with one of everything."""
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    scenarios.write_example(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "run.journal"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Where a run file would be."""
    return tmp_path / "run.h5"


def plain(picture: Picture) -> dict[str, Any]:
    """What a picture has, to be compared."""
    assert picture.map is not None
    target = picture.map.target_s
    return {
        "status": picture.status,
        "totals": picture.totals,
        "steps": [
            (s.number, s.name, s.operations, s.pulses, s.reads, s.not_ok, s.vectors, s.ended)
            for s in picture.steps.values()
        ],
        "notes": [(n["event"], n["text"]) for n in picture.notes],
        "now": picture.map.now_s.tolist(),
        "target": None if target is None else target.tolist(),
        "pulses": picture.map.pulses.tolist(),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal, where nothing is known in both as well."""
    return repr(one) == repr(other)


def whole_picture(path: Path) -> Picture:
    picture = Picture()
    picture.take(read_journal(path))
    return picture


@given(cuts=st.lists(st.floats(0, 1), max_size=12))
def test_however_the_bytes_arrive_the_frames_are_the_same(
    whole: bytes, scratch: Path, cuts: list[float]
) -> None:
    scratch.write_bytes(b"")
    tail = JournalTail(scratch)
    seen = []
    for length in [*sorted(int(cut * len(whole)) for cut in cuts), len(whole)]:
        scratch.write_bytes(whole[:length])
        seen += tail.look(3)
        seen += tail.look()
    assert [entry.sequence for entry in seen] == list(range(len(scenarios.example_frames())))
    told = Picture()
    told.take(entry.frame for entry in seen)
    assert same(plain(told), plain(whole_picture(scratch)))
    assert (tail.restarts, tail.whole_bytes) == (0, len(whole))


def test_a_torn_end_is_waited_for_and_may_be_cut_off(run: Path) -> None:
    with watched.under_way(run, GEOMETRY, 2):
        pass
    journal = journal_of(run)
    os.truncate(journal, journal.stat().st_size - 7)
    followed = RunFollower(run)
    followed.refresh()
    assert followed.picture.totals["operations"] == 1
    with Journal.resume(journal) as resumed:
        resumed.append(Resume(scenarios.UTC, scenarios.BOARD))
        followed.refresh()
        assert followed.picture.resumed == 1
        assert same(plain(followed.picture), plain(whole_picture(journal)))


def test_a_frame_that_is_taken_back_is_forgotten(run: Path) -> None:
    with watched.under_way(run, GEOMETRY, 3) as journal:
        before = journal_of(run).stat().st_size
        journal.append(Note("info", "taken back", scenarios.UTC))
        followed = RunFollower(run)
        followed.refresh()
        version = followed.picture.version
    os.truncate(journal_of(run), before)
    with Journal.resume(journal_of(run)) as again:
        again.append(Note("info", "in its place", scenarios.UTC))
    followed.refresh()
    assert [n["text"] for n in followed.picture.notes][-1] == "in its place"
    assert followed.picture.version > version
    assert same(plain(followed.picture), plain(whole_picture(journal_of(run))))


def test_another_run_under_the_same_name_is_shown_from_its_beginning(run: Path) -> None:
    with watched.under_way(run, GEOMETRY, 3):
        followed = RunFollower(run)
        followed.refresh()
    journal_of(run).unlink()
    with watched.under_way(run, Geometry(1, 2, 2), 1, run="the next"):
        followed.refresh()
        assert followed.picture.about is not None
        assert followed.picture.about.title == "the next"
        assert followed.picture.totals["reads"] == 4


def test_the_run_file_shows_what_its_journal_did(run: Path) -> None:
    scenarios.write_example(journal_of(run))
    write_run_file(journal_of(run), run)
    followed = RunFollower(run)
    followed.refresh()
    from_journal = followed.picture
    journal_of(run).unlink()
    fresh = RunFollower(run)
    fresh.refresh()
    assert fresh.state() == from_journal.status
    assert same(plain(fresh.picture), plain(from_journal))
    for cell in range(scenarios.GEOMETRY.size):
        ours, theirs = fresh.picture.events.of(cell), from_journal.events.of(cell)
        for name in ("conductance_s", "pulses", "step", "time_s"):
            assert np.array_equal(ours[name], theirs[name], equal_nan=name == "conductance_s"), (
                cell,
                name,
            )


def test_bench_times_are_those_of_the_steps_as_in_the_report(run: Path) -> None:
    with watched.under_way(run, GEOMETRY, 2) as journal:  # step 1 from 0 s, operations to 3 s
        followed = RunFollower(run)

        def told() -> tuple[float | None, list[float | None]]:
            followed.refresh()
            shown = snapshot(followed)
            return shown["about"]["bench_s"], [step["bench_s"] for step in shown["steps"]]

        assert told() == (3.0, [3.0])
        journal.append(StepEnd(1, 3.5))
        assert told() == (3.5, [3.5])
        # The clock begins anew.
        journal.append(Resume(scenarios.UTC, scenarios.BOARD))
        journal.append(StepStart(2, "again", "read-map", "1", 0.5))
        for frame in watched.reading(1, Cells.all(GEOMETRY), np.zeros(24), step=2):
            journal.append(frame)
        assert told() == (5.0, [3.5, 1.5])


def test_a_cell_has_the_time_of_its_own_last_reading() -> None:
    none, time_s = np.zeros((3, 2)), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    status = np.array([[Status.OK, Status.OK], [Status.OK, Status.NOT_RUN]], np.uint8)
    status = np.vstack([status, [[Status.NOT_RUN] * 2]])
    counts = np.zeros(3, np.int64)
    result = ApplyResult(none, none, status, time_s, counts, counts, Span(0.0, 9.0))
    assert last_time_s(result).tolist() == [2.0, 3.0, 5.0]
    one = replace(result, **{n: v[:, :1] for n, v in vars(result).items() if np.ndim(v) == 2})
    assert last_time_s(one).tolist() == [1.0, 3.0, 5.0]
    empty = replace(result, **{n: v[:, :0] for n, v in vars(result).items() if np.ndim(v) == 2})
    assert last_time_s(empty).tolist() == [9.0] * 3


def test_a_journal_that_is_removed_leaves_the_picture_or_the_run_file(run: Path) -> None:
    with watched.under_way(run, GEOMETRY, 2) as journal:
        write_run_file(journal_of(run), run)
        followed = RunFollower(run)
        followed.refresh()
        journal_of(run).unlink()
        followed.refresh()
        assert followed.state() == INTERRUPTED
        assert followed.picture.totals["reads"] == GEOMETRY.size
        run.unlink()
        followed.refresh()
        assert followed.state() == GONE
        del journal


def test_states_of_a_run_that_says_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(follow, "FRESH_S", 0.0)
    monkeypatch.setattr(follow, "QUIET_S", 0.0)
    monkeypatch.setattr(follow, "LOCK_EVERY_S", -1.0)
    told = follow.state_of

    def counted(status: str, path: Path) -> str:
        asked.append(told(status, path))
        return asked[-1]

    monkeypatch.setattr(follow, "state_of", counted)
    followed = RunFollower(run)
    followed.refresh()
    assert followed.state() == WAITING
    with watched.under_way(run, GEOMETRY, 2) as journal:
        followed.refresh()
        assert followed.state() == STALLED
        cells = Cells.all(GEOMETRY)
        journal.append(watched.reading(9, cells, np.zeros(24))[0])
        followed.refresh()
        assert followed.state() == SILENT
        assert "operation 9 (Apply read map on 24 cells)" in snapshot(followed)["said"]
        monkeypatch.setattr(follow, "QUIET_S", 1e9)
        assert followed.state() == UNDER_WAY
    assert followed.state() == INTERRUPTED
    count = len(asked)
    assert [followed.state() for _ in range(3)] == [INTERRUPTED] * 3
    assert len(asked) == count, "who resumes must not meet a look at the lock again and again"
    with Journal.resume(journal_of(run)) as journal:
        journal.append(Failed(9, "LinkError", "gone"))
        followed.refresh()
        assert followed.state() == UNDER_WAY
        journal.append(Close("error", scenarios.UTC))
        followed.refresh()
    assert followed.state() == "error"
    assert (followed.picture.errors, snapshot(followed)["said"]) == (1, "")


def test_a_file_that_is_no_journal_and_frames_that_are_no_run_are_told_in_one_line(
    run: Path,
) -> None:
    journal_of(run).write_bytes(b"hello, I am a letter")
    followed = RunFollower(run)
    for _ in range(3):
        followed.refresh()
    assert followed.state() == DAMAGED
    journal_of(run).unlink()
    with Journal.create(journal_of(run), watched.header(GEOMETRY)) as journal:
        journal.append(StepStart(1, "read-map", "read-map", "1"))
        for frame in watched.reading(1, Cells.of([(0, 99, 99)]), np.array([1e-5])):
            journal.append(frame)
        for _ in range(3):
            followed.refresh()
            assert followed.state() == DAMAGED
        said = snapshot(followed)["said"]
        assert "row must lie in 0..3" in said
        assert "\n" not in said


def test_a_whole_run_file_is_shown_where_its_journal_is_damaged(run: Path) -> None:
    scenarios.write_example(journal_of(run))
    write_run_file(journal_of(run), run)
    told = plain(whole_picture(journal_of(run)))
    content = bytearray(journal_of(run).read_bytes())
    content[len(content) // 2] ^= 1
    journal_of(run).write_bytes(content)
    followed = RunFollower(run)
    for _ in range(4):
        followed.refresh()
    version = followed.picture.version
    followed.refresh()
    assert (followed.state(), followed.picture.version) == (told["status"], version)
    assert same(plain(followed.picture), told)
    run.unlink()
    fresh = RunFollower(run)
    for _ in range(4):
        fresh.refresh()
    assert fresh.state() == DAMAGED


def test_progress_has_a_number_only_where_there_is_one() -> None:
    recipe = """
[[step]]
protocol = "read-map"
[[step]]
protocol = "read-map"
name = "part"
cells = { rows = [1, 2] }
[[step]]
protocol = "infer"
[[step]]
protocol = "./mine.py:Mine"
[[step]]
protocol = "./mine.py:Mine"
name = "a row"
cells = { rows = [0, 0] }
"""
    steps = planned_steps(recipe, GEOMETRY)
    assert [(s.name, s.cells) for s in steps] == [
        ("read-map", 24),
        ("part", 12),
        ("infer", None),
        ("Mine", None),
        ("a row", 6),
    ]
    assert planned_steps("no [ toml", GEOMETRY) == []
    assert planned_steps("step = 3", GEOMETRY) == []


def test_cells_that_are_reached_again_count_as_visits_and_not_as_cells() -> None:
    reach = Reach("SET", 6, np.zeros(6, np.bool_))
    reach.add(np.arange(6))
    reach.add(np.array([0, 1, 1]))
    assert (reach.done, reach.visits) == (6, 9)


def test_limits_are_told_with_their_units() -> None:
    picture = Picture()
    picture.take([watched.header(GEOMETRY)])
    assert bench_of(picture)["limits"] == [["bl", "4 V"], ["conductance", "0 S to 300 uS"]]
    assert ["chip id", "M1"] in bench_of(picture)["facts"]


@given(
    done=st.lists(
        st.tuples(st.floats(0, 1e9), st.floats(0, 1e6), st.integers(0, 1000), st.integers(0, 1000)),
        min_size=1,
        max_size=30,
    )
)
def test_rates_over_all_bins_are_all_that_was_done(
    done: list[tuple[float, float, int, int]],
) -> None:
    rates = Rates()
    for started_s, took_s, pulses, reads in done:
        rates.add(started_s, started_s + took_s, pulses, reads)
    series = rates.series()
    assert len(series["time_s"]) <= BINS
    assert rates._counts.sum(axis=1) == pytest.approx(
        [sum(one[2] for one in done), sum(one[3] for one in done)]
    )
    assert min(series["pulses"]) >= 0
    assert np.all(np.diff(series["time_s"]) > 0)


@pytest.mark.parametrize("far_s", [1e308, math.inf, math.nan, 1e13])
def test_times_that_can_be_none_are_left_out_of_the_rates(far_s: float) -> None:
    rates = Rates()
    rates.add(-far_s, far_s, 1, 1)
    rates.add(0.0, 1.0, 2, 3)
    rates.add(far_s, far_s, 1, 1)
    assert (rates.began_s, rates.now_s, rates.clock_s) == (0.0, 1.0, 1.0)
    assert rates._counts.sum(axis=1).tolist() == [2.0, 3.0]
    rates.add(-9e11, 9e11, 5, 5)
    rates.add(-9e11, 9e11, 5, 5)
    series = rates.series()
    assert np.isfinite(series["pulses"]).all()
    assert rates._counts.sum(axis=1) == pytest.approx([12.0, 13.0])


@given(
    batches=st.lists(st.lists(st.integers(0, 5), max_size=9, unique=True), max_size=40),
    most=st.integers(4, 40),
)
def test_events_of_a_cell_are_its_last_ones(batches: list[list[int]], most: int) -> None:
    events = CellEvents(most)
    told: list[tuple[int, int]] = []
    for number, batch in enumerate(batches):
        events.add(
            np.array(batch, np.int64),
            step=number,
            label=0,
            conductance_s=np.arange(len(batch)),
            time_s=0.0,
            pulses=1,
        )
        told += [(cell, number) for cell in batch]
    kept = told[events.dropped :]
    assert len(kept) >= min(len(told), most // 4)
    for cell in range(6):
        assert events.of(cell)["step"].tolist() == [n for c, n in kept if c == cell]
