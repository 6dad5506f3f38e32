"""`Catalog`: what it knows of files, when it reads them, and what it does with those that are
wrong.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import storage_scenarios as scenarios
from hypothesis import given
from hypothesis import strategies as st
from run_files import ENDED, PULSES, READS, copy_run, frames, write_run

from rram_hil import Catalog, ConfigError, DataError
from rram_hil.catalogue import index
from rram_hil.catalogue.catalog import short_ids
from rram_hil.catalogue.entry import CatalogEntry
from rram_hil.storage.frames import Close, Resume, StepEnd, StepStart
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_state import journal_of
from rram_hil.storage.run_writer import write_run_file
from rram_hil.watch.runs import Runs

OLDER = Path(__file__).parents[1] / "compatibility" / "files"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from here on."""
    names: list[str] = []
    real = index.read_facts

    def counted(path: Path) -> object:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(index, "read_facts", counted)
    return names


def index_files() -> list[Path]:
    return list(index.own_folder("cache").glob("*.sqlite"))


def only(catalog: Catalog) -> CatalogEntry:
    (entry,) = catalog
    return entry


def test_an_entry_says_what_the_run_file_says(data: Path) -> None:
    (data / "deep" / "er").mkdir(parents=True)
    path = write_run(data / "deep" / "er" / "run.h5")
    assert repr(Catalog(data)) == f"<Catalog of {data}: 1 run>"
    entry = only(Catalog(data))
    assert entry.path == path
    assert (entry.title, entry.chip_id, entry.bench) == ("r1", "T1", "board 7")
    assert (entry.status, entry.reason) == ("complete", "")
    assert entry.started == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (entry.ended_utc, entry.wall_s, entry.bench_s) == (ENDED, 60.0, 4.0)
    assert (entry.protocols, entry.steps) == (("read-map",), ("map",))
    assert (entry.pulses, entry.reads) == (PULSES, READS)
    assert entry.package_version == "0.1"
    assert (entry.tags, entry.note, entry.excluded) == ((), "", False)


def test_the_id_is_the_runs_own(data: Path) -> None:
    """A copy has it, the journal alone has it, another run has another."""
    write_run(data / "a.h5", journal=True)
    shutil.copy(data / "a.h5", data / "copy.h5")
    write_run(data / "b.h5", started_utc="2026-01-02T03:04:05.001Z")
    shutil.copy(journal_of(data / "a.h5"), journal_of(data / "alone.h5"))
    ids = {entry.path.name: entry.run_id for entry in Catalog(data)}
    assert ids["a.h5"] == ids["copy.h5"] == ids["alone.h5"] != ids["b.h5"]


@pytest.mark.parametrize(("folder", "status"), [("run", "complete"), ("cut", "interrupted")])
def test_files_of_the_first_version_are_catalogued(data: Path, folder: str, status: str) -> None:
    for packed in (OLDER / folder).glob("run.h5*.gz"):
        (data / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    entry = only(Catalog(data))
    assert (entry.status, len(entry.run_id)) == (status, 16)
    assert "write-verify" in entry.protocols
    with Catalog(data)[entry.run_id] as run:
        assert run.status == status
        if folder == "run":
            pulses = run.operations()["pulses"].sum()
            assert entry.pulses == pulses > 0


def test_a_run_under_way_is_told_from_one_that_was_cut(data: Path) -> None:
    path = data / "run.h5"
    with Journal.create(journal_of(path), scenarios.header()) as journal:
        assert only(Catalog(data)).status == "under way"
        assert [e.status for e in Catalog(data).search(status="running")] == ["under way"]
        for frame in frames(None)[1:]:
            journal.append(frame)
        entry = only(Catalog(data))
        assert (entry.status, entry.steps, entry.pulses) == ("under way", ("map",), None)
    # No file changed.
    assert only(Catalog(data)).status == "interrupted"


def test_the_journal_counts_where_it_is_further_than_the_file(data: Path) -> None:
    path = write_run(data / "run.h5", "aborted", journal=True)
    assert only(Catalog(data)).status == "aborted"
    with Journal.resume(journal_of(path)) as journal:
        journal.append(Resume("u", scenarios.BOARD))
    entry = only(Catalog(data))
    assert (entry.status, entry.ended_utc, entry.pulses) == ("interrupted", "", PULSES)
    with Journal.resume(journal_of(path)) as journal:
        journal.append(Close("complete", ENDED))
    entry = only(Catalog(data))
    assert (entry.status, entry.ended_utc, entry.reads) == ("complete", ENDED, READS)
    with Catalog(data)[path] as run:
        assert run.status == "complete"


def test_counts_of_a_run_file_that_is_a_step_behind_are_not_given(data: Path) -> None:
    path = write_run(data / "run.h5", None, journal=True)
    with Journal.resume(journal_of(path)) as journal:
        journal.append(StepStart(2, "more", "read-map", "1", 4.0))
        assert only(Catalog(data)).pulses == PULSES
        journal.append(StepEnd(2, 5.0))
    entry = only(Catalog(data))
    assert (entry.steps, entry.bench_s) == (("map", "more"), 5.0)
    assert (entry.pulses, entry.reads) == (None, None)


def test_a_journal_damaged_in_the_middle_is_listed_with_what_it_says_before(data: Path) -> None:
    path = write_run(data / "run.h5", journal=True)
    content = bytearray(journal_of(path).read_bytes())
    content[len(content) // 2] ^= 1
    journal_of(path).write_bytes(content)
    assert only(Catalog(data)).status == "complete", "the run file is whole"
    good = path.rename(data.parent / "good.h5")
    entry = only(Catalog(data))
    assert (entry.status, entry.title, entry.chip_id) == ("damaged", "r1", "T1")
    assert entry.reason.startswith("damaged at byte")
    good.rename(data / "copy.h5")
    assert Catalog(data).entry(entry.run_id).path.name == "copy.h5"


def test_a_damaged_file_is_listed_with_its_reason_and_the_others_are_as_well(data: Path) -> None:
    write_run(data / "good.h5")
    whole = (data / "good.h5").read_bytes()
    (data / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (data / "empty.h5").touch()
    (data / "text.hdf5").write_text("no such thing")
    journal_of(data / "torn.h5").write_bytes(b"RHJ1")
    with h5py.File(data / "newer.h5", "w") as file:
        file.attrs.update({"file_format": "rram_hil run", "file_format_version": 99})
    with h5py.File(data / "bare.h5", "w") as file:
        file.attrs.update({"file_format": "rram_hil run", "file_format_version": 1})
    damaged = Catalog(data).search(status="damaged")
    told = {entry.path.name: entry.reason for entry in damaged}
    assert told.keys() == {"cut.h5", "empty.h5", "text.hdf5", "torn.h5", "newer.h5", "bare.h5"}
    assert all(told.values())
    assert not any("\n" in reason or str(data) in reason for reason in told.values())
    assert told["newer.h5"].startswith("run file version 99")
    assert "never began" in told["torn.h5"]
    assert len(Catalog(data)) == 7


def test_links_that_lead_round_in_a_circle_are_no_run(data: Path) -> None:
    write_run(data / "a.h5", journal=True, file=False)
    (data / "a.h5").symlink_to(data / "a.h5")
    (data / "loop").symlink_to(data / "loop")
    assert only(Catalog(data)).status == "complete"
    with pytest.raises(DataError, match="loop/x': no run id"):
        Catalog(data).entry("loop/x")
    listed = Runs(data).listing()
    assert [run["name"] for run in listed] == ["a.h5"]
    followed = Runs(data).follower(listed[0]["key"])
    assert followed is not None
    followed.refresh()
    assert followed.state() == "complete"


def test_files_of_another_kind_are_left_out(data: Path, reads: list[str]) -> None:
    with h5py.File(data / "arrays.h5", "w") as file:
        file["x"] = np.zeros(3)
    (data / "system.journal").write_bytes(b"LPKSHHRH" + bytes(100))
    (data / "notes.txt").write_text("x")
    (data / "dir.h5").mkdir()
    (data / ".hidden.h5").touch()
    os.mkfifo(data / "pipe.h5")
    os.symlink(data / "gone.h5", data / "link.h5")
    os.symlink(data, data / "round")
    assert not list(Catalog(data))
    assert sorted(reads) == ["arrays.h5", "system"]
    assert not list(Catalog(data))
    assert len(reads) == 2


def test_a_run_file_of_another_name_is_found_by_its_journal(data: Path) -> None:
    write_run(data / "run.dat", journal=True)
    assert only(Catalog(data)).path.name == "run.dat"


def test_only_what_changed_is_read_again(data: Path, reads: list[str]) -> None:
    for name in "abc":
        write_run(data / f"{name}.h5", journal=True, run=name)
    Catalog(data)
    assert sorted(reads) == ["a.h5", "b.h5", "c.h5"]
    del reads[:]
    catalog = Catalog(data)
    assert (len(catalog), reads) == (3, [])
    journal_of(data / "a.h5").unlink()
    (data / "b.h5").unlink()
    os.utime(data / "c.h5", ns=(1, 1))
    catalog.refresh()
    assert sorted(reads) == ["a.h5", "b.h5", "c.h5"]
    assert {e.path.name: e.pulses for e in catalog} == {
        "a.h5": PULSES,
        "b.h5": None,
        "c.h5": PULSES,
    }


def test_nothing_is_written_into_the_folder(data: Path) -> None:
    write_run(data / "run.h5", None, journal=True)
    before = {p: p.read_bytes() for p in data.iterdir()}
    times = {p: p.stat().st_mtime_ns for p in before}
    catalog = Catalog(data)
    catalog.tag(data / "run.h5", "good")
    catalog.note(data / "run.h5", "the probe slipped")
    catalog.exclude(data / "run.h5")
    assert {p: p.read_bytes() for p in data.iterdir()} == before
    assert {p: p.stat().st_mtime_ns for p in data.iterdir()} == times


def test_labels_stay_with_a_run_that_moves_when_the_index_is_gone(data: Path) -> None:
    write_run(data / "run.h5")
    write_run(data / "other.h5", run="other")
    catalog = Catalog(data)
    key = catalog.entry(data / "run.h5").run_id
    catalog.tag(key, "good", "paper figure 3")
    catalog.tag(key[:8], "good")
    assert catalog.note(key, "first").note == "first"
    assert catalog.note(key, "the probe slipped\n'; DROP TABLE notes").tags == (
        "good",
        "paper figure 3",
    )
    assert catalog.exclude(key).excluded
    shutil.rmtree(index.own_folder("cache"))
    (data / "sub").mkdir()
    (data / "run.h5").rename(data / "sub" / "moved.h5")
    moved = Catalog(data)
    assert [e.title for e in moved] == ["other"]
    assert len(moved) == 1
    (entry,) = moved.search(tag="good", everything=True)
    assert (entry.path.name, entry.excluded) == ("moved.h5", True)
    assert entry.note == "the probe slipped\n'; DROP TABLE notes"
    assert moved.untag(key, "good").tags == ("paper figure 3",)
    assert moved.note(key, "").note == ""
    moved.include(key)
    assert len(moved) == 2


@pytest.mark.parametrize("tag", ["", " ", "a,b", "a\nb", "\x1b[31m", "x" * 61, "\ud800"])
def test_what_can_be_no_tag_is_refused(data: Path, tag: str) -> None:
    write_run(data / "run.h5")
    catalog = Catalog(data)
    with pytest.raises(ConfigError, match="tag '"):
        catalog.tag(data / "run.h5", "fine", tag)
    with pytest.raises(ConfigError, match="the run has it not; it has none"):
        catalog.untag(data / "run.h5", "fine")


def test_damaged_labels_are_told_and_left_as_they_are(data: Path) -> None:
    write_run(data / "run.h5")
    Catalog(data).tag(data / "run.h5", "good")
    path = index.own_folder("data") / "labels.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match=r"labels\.sqlite: tags and notes cannot be read"):
        Catalog(data)
    assert path.read_bytes() == b"not a database" * 100
    with closing(sqlite3.connect(":memory:")) as newer:
        newer.execute("PRAGMA user_version = 7")
        path.unlink()
        newer.execute("VACUUM INTO ?", (str(path),))
    with pytest.raises(DataError, match="of version 7; this rram_hil knows 1"):
        Catalog(data)


def test_labels_that_are_no_text_are_told(data: Path) -> None:
    path = index.own_folder("data") / "labels.sqlite"
    entry = write_run(data / "run.h5")
    for wrong in ("INSERT INTO tags VALUES ('a', x'ff')", "INSERT INTO notes VALUES ('a', NULL)"):
        Catalog(data).tag(entry, "good")
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(wrong)
        with pytest.raises(DataError, match=r"one of them is no text; if the file is damaged"):
            Catalog(data)
        path.unlink()


def test_labels_that_cannot_be_had_say_why_and_the_live_page_goes_without(data: Path) -> None:
    entry = write_run(data / "run.h5")
    Catalog(data).tag(entry, "good")
    path = index.own_folder("data") / "labels.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match="is locked; another program has the file open"):
            Catalog(data)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"; a folder, or a file that you may not open$"):
        Catalog(data)
    runs = Runs(data)
    assert [(run["name"], run["tags"]) for run in runs.listing()] == [("run.h5", [])]
    assert len(runs.unreadable) == 1
    path.rmdir()
    runs = Runs(data)
    assert (len(runs.listing()), runs.unreadable) == (1, ())


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write every file")
def test_labels_that_may_not_be_written_say_so(data: Path) -> None:
    entry = write_run(data / "run.h5")
    Catalog(data).tag(entry, "good")
    (index.own_folder("data") / "labels.sqlite").chmod(0o444)
    with pytest.raises(DataError, match="you may not write the file"):
        Catalog(data).tag(entry, "better")


def test_a_search_fits_all_that_is_given(data: Path) -> None:
    now = datetime.now(UTC)
    ago = {"new": now - timedelta(hours=2), "old": now - timedelta(days=40)}
    for name, when in ago.items():
        write_run(data / f"{name}.h5", run=name, started_utc=when.isoformat(), chip_id=name)
    write_run(data / "failed.h5", "error", run="failed", protocols={"./my own.py:Mine": "2"})
    write_run(data / "never.h5", run="never", started_utc="once upon a time")
    catalog = Catalog(data)

    def found(**given: Any) -> list[str]:
        return [entry.title for entry in catalog.search(**given)]

    assert found() == ["new", "old", "failed", "never"]
    assert found(since="3h") == ["new"]
    assert found(since="6w") == found(since=f"{ago['old']:%Y-%m-%d}") == ["new", "old"]
    assert found(since=ago["new"]) == ["new"]
    assert found(since="2026-01-02") == ["new", "old", "failed"]
    assert found(since="999999999w") == ["new", "old", "failed"]
    assert found(chip="old") == ["old"]
    assert found(protocol="./my own.py:Mine") == ["failed"]
    assert found(protocol="read-map", chip="T1") == ["never"]
    assert found(protocol="map", status="failed") == ["failed"]
    assert found(status="error", tag="x") == []
    for since in ("yesterday", "30", "-3d", "2026-13-01", "1.5d"):
        with pytest.raises(ConfigError, match=r"since '.*': must be a date \(2026-11-01\)"):
            catalog.search(since=since)
    with pytest.raises(ConfigError, match="did you mean complete"):
        catalog.search(status="completed")


def test_a_key_of_no_run_or_of_several_is_told(data: Path) -> None:
    first = write_run(data / "0.h5")
    for k in range(1, 40):
        copy_run(first, data / f"{k}.h5", run=f"run {k}")
    catalog = Catalog(data)
    ids = [entry.run_id for entry in catalog]
    assert len(set(ids)) == 40
    with pytest.raises(DataError, match=r"runs begin so: [0-9a-f]{6} \('run \d+'\), .*"):
        # Of 40 ids two begin alike in a digit of 16.
        catalog.entry(max("0123456789abcdef", key=lambda c: sum(i[0] == c for i in ids)))
    with pytest.raises(DataError, match=f"did you mean {ids[0]}"):
        catalog.entry(ids[0][:-1] + "z")
    with pytest.raises(DataError, match=r"no run id, beginning of one, or run file in .* 40 runs"):
        catalog[data / "gone.h5"]
    with catalog["7.h5"] as run:
        assert run.attributes["run"] == "run 7"


@given(st.lists(st.text("01", min_size=16, max_size=16), unique=True))
def test_a_shown_id_is_the_shortest_that_no_other_begins_with(ids: list[str]) -> None:
    short = short_ids([CatalogEntry(run_id=run) for run in ids])
    for run in ids:
        assert len(short[run]) >= 6
        assert [other for other in ids if other.startswith(short[run])] == [run]
        assert len(short[run]) == 6 or len([o for o in ids if o.startswith(short[run][:-1])]) > 1


@pytest.mark.parametrize(
    "name",
    [
        b"two\nlines.h5",
        b'it\'s "quoted"; DROP TABLE runs.h5',
        b"not \xff\xfe utf-8.h5",
        b"\x1b[31mred.h5",
        b"%s ? : *.h5",
    ],
)
def test_hostile_names_of_files(data: Path, name: bytes) -> None:
    plain = write_run(data / "plain.h5")
    shutil.copy(plain, os.path.join(os.fsencode(data), name))
    plain.unlink()
    path = data / os.fsdecode(name)
    assert [e.path for e in Catalog(data)] == [e.path for e in Catalog(data)] == [path]
    with Catalog(data)[path] as run:
        assert run.chip_id == "T1"
    path.write_bytes(b"")
    assert only(Catalog(data)).reason


def test_what_a_page_or_a_notebook_shows_is_escaped(data: Path) -> None:
    write_run(data / "run.h5", run="<script>alert(1)</script>\x1b[31m", chip_id="<b>&")
    catalog = Catalog(data)
    with catalog["run.h5"] as run:
        for html in (catalog._repr_html_(), catalog.search()._repr_html_(), run._repr_html_()):
            assert "<script>" not in html
            assert "&lt;script&gt;" in html
            assert "\x1b" not in html
            assert "&lt;b&gt;&amp;" in html
        assert "maps" in run._repr_html_()


def test_a_run_as_xarray_is_what_the_file_has(data: Path) -> None:
    write_run(data / "run.h5")
    with Catalog(data)["run.h5"] as run:
        tree = run.to_xarray()
        stack, saved = run.map("conductance"), run.result(1, "yield")
    conductance = tree["maps/conductance/conductance"]
    assert conductance.dims == ("map_time_s", "tile", "row", "column")
    assert conductance.attrs["units"] == "S"
    np.testing.assert_array_equal(conductance.values, stack.values)
    np.testing.assert_array_equal(conductance["map_time_s"].values, stack.time_s)
    result = tree["results/1_map/yield"]
    assert (result.dims, result.item()) == ((), saved.values)
    assert result.attrs["long_name"] == "cells that formed"
    assert tree.attrs["chip_id"] == "T1"


def test_a_folder_that_is_none_is_told(data: Path) -> None:
    with pytest.raises(ConfigError, match="gone: there is no such folder"):
        Catalog(data / "gone")
    with pytest.raises(ConfigError, match="a file, not a folder"):
        Catalog(write_run(data / "run.h5"))


def test_folders_that_overlap_name_a_run_once(data: Path) -> None:
    (data / "sub").mkdir()
    write_run(data / "sub" / "run.h5")
    assert len(Catalog(data, data / "sub", data)) == 1


def test_what_cannot_be_read_is_told_and_tried_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(data / "good.h5")
    write_run(data / "locked.h5")
    real = index.read_facts

    def refused(path: Path) -> object:
        if path.name == "locked.h5":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(index, "read_facts", refused)
    catalog = Catalog(data)
    assert [e.path.name for e in catalog] == ["good.h5"]
    assert catalog.unreadable == (f"{data / 'locked.h5'}: Permission denied",)
    monkeypatch.setattr(index, "read_facts", real)
    catalog.refresh()
    assert (len(catalog), catalog.unreadable) == (2, ())


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pages(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def changed(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(statement)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        garbage,
        half,
        pages,
        emptied,
        changed("DROP TABLE runs"),
        changed("ALTER TABLE runs RENAME COLUMN title TO name"),
        changed("PRAGMA user_version = 99"),
        changed("UPDATE runs SET protocols = '{'"),
        changed("UPDATE runs SET title = 3"),
    ],
)
def test_a_damaged_index_is_made_anew(
    data: Path, damage: Callable[[Path], None], reads: list[str]
) -> None:
    for name in "ab":
        write_run(data / f"{name}.h5", run=name)
    before = list(Catalog(data))
    (path,) = index_files()
    damage(path)
    del reads[:]
    assert list(Catalog(data)) == before
    assert len(reads) == 2
    assert list(Catalog(data)) == before
    assert len(reads) == 2


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_an_index_that_another_process_keeps_locked_is_done_without(
    data: Path, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_PATIENCE_S", 0.05)
    write_run(data / "a.h5", run="a")
    Catalog(data)
    (path,) = index_files()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(lock)
        write_run(data / "b.h5", run="b")
        assert sorted(e.title for e in Catalog(data)) == ["a", "b"]
        (data / "a.h5").unlink()
        assert [e.title for e in Catalog(data)] == ["b"]
    assert [e.title for e in Catalog(data)] == ["b"]


def test_a_cache_that_cannot_be_made_is_done_without(data: Path) -> None:
    write_run(data / "a.h5")
    index.own_folder("cache").parent.mkdir(parents=True)
    index.own_folder("cache").write_text("a file stands here")
    assert len(Catalog(data)) == 1


def test_two_processes_may_index_at_once(data: Path) -> None:
    first = write_run(data / "0.h5")
    for k in range(1, 30):
        copy_run(first, data / f"{k}.h5", run=str(k))
    code = (
        "import sys, rram_hil\n"
        "for k in range(3):\n"
        "    catalog = rram_hil.Catalog(sys.argv[1])\n"
        "    assert len(catalog) == 30, len(catalog)\n"
        "    catalog.tag('0.h5', sys.argv[2], f'{sys.argv[2]} {k}')\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, data, tag], stderr=subprocess.PIPE, text=True)
        for tag in ("one", "two")
    ]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    told = {"one", "two"} | {f"{name} {k}" for name in ("one", "two") for k in range(3)}
    assert set(Catalog(data).entry("0.h5").tags) == told


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a file of a folder may hold."""
    folder = tmp_path_factory.mktemp("contents")
    a = write_run(folder / "a.h5", "aborted", journal=True, run="a")
    b = write_run(folder / "b.h5", journal=True, run="b", started_utc="2026-05-01T00:00:00Z")
    with h5py.File(folder / "foreign", "w") as file:
        file["x"] = 1
    journal = journal_of(a).read_bytes()
    return {
        "a": a.read_bytes(),
        "b": b.read_bytes(),
        "cut": a.read_bytes()[:3000],
        "foreign": (folder / "foreign").read_bytes(),
        "journal of a": journal,
        "journal of a, torn": journal[:-40],
        "journal of b": journal_of(b).read_bytes(),
        "empty": b"",
    }


NAMES = ("1.h5", "1.h5.journal", "2.h5", "2.h5.journal", "3.dat", "3.dat.journal")
CONTENTS = ("a", "b", "cut", "foreign", "empty", "journal of a", "journal of a, torn")


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("", "sub")),
            st.sampled_from(NAMES),
            st.sampled_from((*CONTENTS, "journal of b", None)),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_an_index_is_what_a_fresh_one_would_be(
    steps: list[tuple[str, str, str | None, bool]],
    contents: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """After any files that came, changed and went, with looks in between."""
    folder = tmp_path_factory.mktemp("law")
    (folder / "sub").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(index.FOLDER_VARIABLE, str(folder / ".own"))
        for clock, (place, name, content, look) in enumerate(steps, 1):
            path = folder / place / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(contents[content])
                os.utime(path, ns=(clock, clock))
            if look:
                Catalog(folder)
        found = list(Catalog(folder))
        patch.setenv(index.FOLDER_VARIABLE, str(folder / ".fresh"))
        assert found == list(Catalog(folder))


def test_a_run_file_that_is_behind_is_shown_from_its_journal(data: Path) -> None:
    path = write_run(data / "run.h5", None, journal=True)
    with Journal.resume(journal_of(path)) as journal:
        journal.append(Close("complete", ENDED))
    with Catalog(data)["run.h5"] as run:
        shown = run.path
        assert run.status == "complete"
        assert shown != path
    assert not shown.exists()
    write_run_file(journal_of(path), path)
    with Catalog(data)["run.h5"] as run:
        assert run.path == path
