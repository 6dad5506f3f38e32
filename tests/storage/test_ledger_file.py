"""A ledger's file under power cuts, flipped bits, deletion and other names; and how two ledgers of
one chip become one.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Cells, Geometry, pulse
from rram_hil.errors import DataError
from rram_hil.hardware.driver import Identity
from rram_hil.storage import ledger_file, safe_files
from rram_hil.storage.codec import operation_record
from rram_hil.storage.frames import Header, Intent, Note
from rram_hil.storage.journal import Journal
from rram_hil.storage.ledger import Ledger, Standing, merged, with_more
from rram_hil.storage.ledger_file import Content, encode, parse, read_ledger

GEOMETRY = Geometry(1, 32, 24)
ALL = Cells.all(GEOMETRY)
SECTOR = 512
RECORD = operation_record(pulse(ALL, bl_v=2.0, wl_v=2.0, width_s=1e-7))


def opened(path: Path, limit: int = 10**6) -> Ledger:
    return Ledger(path, GEOMETRY, "T1", limit=limit)


def some(first: int, count: int) -> Cells:
    return Cells.from_index(list(range(first, min(first + count, GEOMETRY.size))), GEOMETRY)


class Disk:
    """What a drive does with writes: those before a sync stay, of the others each sector may be
    lost.
    """

    def __init__(self, image: bytes) -> None:
        self.image = bytearray(image)
        self.loose: list[tuple[int, bytes]] = []

    def write(self, at: int, data: bytes) -> None:
        while data:
            room = SECTOR - at % SECTOR
            self.loose.append((at, data[:room]))
            at, data = at + room, data[room:]

    def sync(self) -> None:
        self.image = self.after_a_cut([True] * len(self.loose))
        self.loose = []

    def after_a_cut(self, stays: list[bool]) -> bytearray:
        image = bytearray(self.image)
        for (at, data), kept in zip(self.loose, stays, strict=True):
            if kept:
                image.extend(bytes(max(0, at + len(data) - len(image))))
                image[at : at + len(data)] = data
        return image


@contextmanager
def on(disk: Disk, seen: Callable[[], None]) -> Iterator[None]:
    """Ledgers write to `disk` as well; `seen` is called after each write."""
    write, sync = ledger_file.write_all, ledger_file.sync

    def kept(fd: int, data: bytes, what: str) -> None:
        at = os.lseek(fd, 0, os.SEEK_CUR)
        write(fd, data, what)
        disk.write(at, bytes(data))
        seen()

    def synced(fd: int, what: str) -> None:
        sync(fd, what)
        disk.sync()

    ledger_file.write_all, ledger_file.sync = kept, synced
    try:
        yield
    finally:
        ledger_file.write_all, ledger_file.sync = write, sync


@given(
    st.lists(
        st.tuples(
            st.integers(0, GEOMETRY.size - 1),
            st.sampled_from([1, 3, 300, GEOMETRY.size]),
            st.integers(1, 400),
            st.integers(0, 400),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 2**32),
)
@settings(max_examples=25)
def test_whatever_a_power_cut_leaves_of_the_writes_the_counts_are_those_before_or_after_a_change(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int, int, int, bool]],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path, draw = folder / "l.npy", random.Random(seed)
    opened(path).close()
    disk = Disk(path.read_bytes())
    states = [np.zeros(GEOMETRY.size, dtype=np.int64)]

    def cut() -> None:
        for chance in (0.0, 0.5, 1.0):
            image = disk.after_a_cut([draw.random() < chance for _ in disk.loose])
            found = parse(bytes(image), path, "T1", GEOMETRY)[0].counts
            assert any(np.array_equal(found, state) for state in states[-2:])

    ledger = opened(path)
    with on(disk, cut):
        for first, count, charge, back, reopens in changes:
            cells = some(first, count)
            for more in (charge, -min(charge, back)):
                after = states[-1].copy()
                after[cells.index(GEOMETRY)] += more
                states.append(after)
                ledger.charge(cells, more) if more > 0 else ledger.correct(cells, -more)
                np.testing.assert_array_equal(ledger.counts.ravel(), after)
            if reopens:
                ledger.close()
                ledger = opened(path)
        ledger.close()
    assert np.array_equal(read_ledger(path, "T1", GEOMETRY).counts, states[-1])


def test_opening_after_a_cut_writes_what_is_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    opened(path).close()
    disk = Disk(path.read_bytes())
    with on(disk, lambda: None), opened(path) as ledger:
        ledger.charge(ALL, 5)
        left = bytes(disk.image)  # the change is in its slot; the array was not reached
    path.write_bytes(left)
    assert not np.load(path).any()
    with opened(path) as ledger:
        assert (ledger.counts == 5).all()
    assert (np.load(path) == 5).all()


def test_a_bit_that_flips_in_a_closed_ledger_is_seen_or_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    with opened(path) as ledger:
        ledger.charge(some(3, 100), 17)
    with opened(path) as ledger:
        ledger.charge(some(0, 5), 2)
    whole, right = path.read_bytes(), np.load(path)
    draw = random.Random(1)
    begins = 128 + GEOMETRY.size * 8 + 400
    places = {*range(0, begins, 5), *(draw.randrange(begins, len(whole)) for _ in range(300))}
    seen = 0
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        try:
            found = parse(bytes(flipped), path, "T1", GEOMETRY)[0].counts
        except DataError:
            seen += 1
        else:
            np.testing.assert_array_equal(found, right.ravel())
            assert not 128 <= place < 128 + right.nbytes
    assert seen > GEOMETRY.size * 8 / 5


def test_a_ledger_deleted_under_a_run_is_written_anew_and_the_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    with opened(path) as ledger:
        ledger.charge(ALL, 3)
        path.unlink()
        with pytest.raises(DataError, match="deleted, moved or replaced"):
            ledger.charge(ALL, 1)
    with opened(path) as ledger:
        assert (ledger.counts == 3).all()
    ledger = opened(path)
    ledger.charge(ALL, 1)
    path.unlink()
    with pytest.raises(DataError, match="written anew"):
        ledger.close()
    ledger.close()
    assert (np.load(path) == 4).all()


def test_a_file_put_in_the_place_of_a_ledger_under_a_run_stays(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    ledger = opened(path)
    ledger.charge(ALL, 3)
    path.unlink()
    path.write_bytes(encode(with_more(Content.new("T1", GEOMETRY), 9)))
    with pytest.raises(DataError, match="rram-hil ledger merge"):
        ledger.charge(ALL, 1)
    ledger.close()
    assert (np.load(path) == 9).all()
    (kept,) = [p for p in tmp_path.iterdir() if p.suffix not in (".npy", ".lock")]
    assert (np.load(kept) == 3).all()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_ledger_by_another_name_is_the_same_ledger(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    path, other = tmp_path / "there" / "l.npy", tmp_path / "here" / "m.npy"
    opened(path).close()
    link(path, other)
    with opened(path), pytest.raises(DataError, match="in use by another run"):
        opened(other)
    with opened(other) as ledger:
        ledger.charge(ALL, 2)
    assert (np.load(path) == 2).all()


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def answer(code: int) -> None:
        def refuse(fd: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(safe_files, "_take", refuse)

    return answer


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_drive_without_file_locks_gets_another_kind(
    tmp_path: Path, without_locks: Callable[[int], None], code: int
) -> None:
    without_locks(code)
    path = tmp_path / "l.npy"
    with opened(path) as ledger:
        ledger.charge(ALL, 1)
        with pytest.raises(DataError, match="in use by another run"):
            opened(path)
    assert not list(tmp_path.glob("*.held*"))
    with opened(path) as ledger:
        assert (ledger.counts == 1).all()


def test_what_a_killed_process_held_on_a_drive_without_locks_is_free(
    tmp_path: Path, without_locks: Callable[[int], None]
) -> None:
    without_locks(errno.ENOLCK)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    held = tmp_path / "l.npy.lock.held"
    here = safe_files.socket.gethostname()
    for host, pid, is_free in (
        (here, int(gone.stdout), True),
        (here, os.getpid(), False),
        ("another", int(gone.stdout), False),
    ):
        held.write_text(json.dumps({"host": host, "pid": pid}))
        if is_free:
            opened(tmp_path / "l.npy").close()
        else:
            with pytest.raises(DataError, match=rf"in use by another run.*delete .*{held.name}"):
                opened(tmp_path / "l.npy")
    held.write_text("")
    with pytest.raises(DataError, match="in use by another run"):
        opened(tmp_path / "l.npy")


def test_a_drive_that_fails_is_no_other_run(
    tmp_path: Path, without_locks: Callable[[int], None]
) -> None:
    without_locks(errno.EIO)
    with pytest.raises(DataError, match=r"cannot be locked: Input/output error") as said:
        opened(tmp_path / "l.npy")
    assert "another run" not in str(said.value)


def test_a_ledger_of_an_earlier_version_is_brought_up_to_date_with_its_counts(
    tmp_path: Path,
) -> None:
    older = Path(__file__).parents[1] / "compatibility" / "files" / "run"
    path = tmp_path / "kept.ledger.npy"
    path.write_bytes(gzip.decompress((older / "kept.ledger.npy.gz").read_bytes()))
    before = np.load(path)
    geometry = Geometry(*before.shape)
    with Ledger(path, geometry, "kept", limit=10**6) as ledger:
        np.testing.assert_array_equal(ledger.counts, before)
        assert not ledger.created
        ledger.charge(Cells.all(geometry), 1)
    np.testing.assert_array_equal(np.load(path), before + 1)
    again = read_ledger(path, "kept", geometry)
    assert again.count == 2


# A chip's ledger and the journal of a run.


def header() -> Header:
    return Header(
        "r", "T1", GEOMETRY, "", "", "2026-01-01T00:00:00Z", "virtual", Identity("lab", "1"), "0"
    )


class Run:
    """A run's journal beside a ledger, as the engine keeps them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.ledger_path, self.path = folder / "l.npy", folder / f"{name}.journal"
        with opened(self.ledger_path) as ledger:
            if ledger.created:
                ledger.enter()
            Journal.create(self.path, header(), ledger.stamp).close()

    def pulse(self, *, cells: Cells = ALL, used: int = 1, keeps: bool = True) -> None:
        """One operation; `keeps` says whether its frames come to be."""
        with opened(self.ledger_path) as ledger, Journal.resume(self.path) as journal:
            ledger.begin(journal)
            ledger.operation = 7
            journal.sync()
            ledger.charge(cells, 4)
            if keeps:
                journal.append(Intent(7, 1, RECORD, np.full(len(cells), 4)))
                journal.append(Note("info", "outcome", ""))
                journal.sync()
                ledger.correct(cells, 4 - used)

    def resume(self) -> None:
        """The run goes on, and is killed before it does anything to the chip."""
        with opened(self.ledger_path) as ledger, Journal.resume(self.path) as journal:
            ledger.begin(journal)
            journal.append(Note("info", "resumed", ""))

    def standing(self) -> Standing:
        with opened(self.ledger_path) as ledger, Journal.resume(self.path) as journal:
            return ledger.standing(journal, pulsed=True)

    def lose(self, frames: int) -> None:
        """The last frames of the journal are gone."""
        whole = self.path.read_bytes()
        at = len(whole)
        for _ in range(frames):
            at = whole.rindex(b"RHJ1", 0, at)
        self.path.write_bytes(whole[:at])


def test_a_run_that_had_the_chip_to_itself_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    assert run.standing() == Standing()
    run.pulse()
    run.pulse(used=4)
    assert run.standing() == Standing()
    run.pulse(keeps=False)
    assert run.standing() == Standing(charged=7)


def test_a_run_hears_who_used_the_chip_between(tmp_path: Path) -> None:
    first, second, third = (Run(tmp_path, name) for name in "abc")
    first.pulse()
    second.pulse()
    assert first.standing().between == ("b.journal",)
    assert third.standing().between == ("a.journal", "b.journal")
    first.pulse()
    # What it took before the other run stays older than that.
    assert first.standing().between == ("b.journal",)
    assert second.standing().between == ("a.journal",)
    second.resume()
    third.resume()
    assert first.standing() == Standing(("b.journal",))


def test_a_journal_that_lost_its_end_is_refused(tmp_path: Path) -> None:
    run, other = Run(tmp_path, "a"), Run(tmp_path, "b")
    run.pulse()
    run.pulse()
    other.pulse()
    run.lose(1)
    with pytest.raises(DataError, match="lost its end"):
        run.standing()
    run.lose(2)
    with pytest.raises(DataError, match="lost its end"):
        run.standing()


def test_an_operation_whose_frames_are_lost_counts_as_under_way(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    run.pulse()
    run.pulse(used=4)
    run.lose(2)
    for _ in range(2):
        assert run.standing() == Standing(charged=7)
        run.resume()


def test_a_ledger_that_is_older_than_the_run_or_another_or_gone_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    run.pulse()
    older = run.ledger_path.read_bytes()
    run.pulse()
    newer = run.ledger_path.read_bytes()
    for wrong, says in (
        (older, "is behind"),
        (encode(with_more(Content.new("T1", GEOMETRY), 9)), "is another one"),
        (encode(Content.new("T1", GEOMETRY)), "is new"),
    ):
        run.ledger_path.write_bytes(wrong)
        with pytest.raises(DataError, match=rf"{says}.*rram-hil ledger"):
            run.standing()
    run.ledger_path.unlink()
    with pytest.raises(DataError, match="is new"):
        run.standing()
    run.ledger_path.write_bytes(newer)
    assert run.standing() == Standing()


def test_a_journal_of_an_earlier_version_goes_on_with_a_ledger_and_not_without(
    tmp_path: Path,
) -> None:
    path = tmp_path / "older.journal"
    Journal.create(path, header()).close()
    with opened(tmp_path / "l.npy") as ledger, Journal.resume(path) as journal:
        assert journal.stamp is None
        assert ledger.standing(journal, pulsed=False) == Standing()
        with pytest.raises(DataError, match="is new"):
            ledger.standing(journal, pulsed=True)
        ledger.charge(ALL, 1)
    with opened(tmp_path / "l.npy") as ledger, Journal.resume(path) as journal:
        assert ledger.standing(journal, pulsed=True) == Standing()


def test_what_the_board_had_seen_is_known_of_a_ledger_closed_in_order_only(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    with opened(path) as ledger:
        ledger.charge(ALL, 1)
        ledger.seen = 12
        left = path.read_bytes()
    with opened(path) as ledger:
        assert ledger.seen == 12
        # A process that is killed without a pulse leaves what it read uncounted.
        ledger.use()
        assert read_ledger(path, "T1", GEOMETRY).seen == 0
    path.write_bytes(left)
    with opened(path) as ledger:
        assert ledger.seen == 0


def forked(folder: Path) -> tuple[Run, Run]:
    """One chip in two folders, with a copy of the ledger in each, after a first run."""
    folders = folder / "one", folder / "two"
    for there in folders:
        there.mkdir()
    first = Run(folders[0], "first")
    first.pulse(used=3)
    (folders[1] / "l.npy").write_bytes(first.ledger_path.read_bytes())
    return Run(folders[0], "left"), Run(folders[1], "right")


def content_of(run: Run) -> Content:
    return read_ledger(run.ledger_path, "T1", GEOMETRY)


def test_two_ledgers_of_one_chip_add_what_each_counted_since_they_parted(tmp_path: Path) -> None:
    left, right = forked(tmp_path)
    left.pulse(used=2)
    left.pulse(cells=some(0, 5), used=1)
    right.pulse(cells=some(3, 9), used=4)
    right.pulse(used=1)
    expected = 3 + (content_of(left).counts - 3) + (content_of(right).counts - 3)
    for one, other in ((left, right), (right, left)):
        both = merged(content_of(one), content_of(other))
        np.testing.assert_array_equal(both.counts, expected)
    left.ledger_path.write_bytes(encode(merged(content_of(left), content_of(right))))
    with pytest.raises(DataError, match="added before"):
        merged(content_of(left), content_of(right))
    # Both runs go on with it, and hear of each other.
    right.ledger_path = left.ledger_path
    assert right.standing().between == ("merged with ledger " + content_of(right).id,)
    assert "right.journal" in left.standing().between
    right.pulse(keeps=False)
    assert right.standing().charged == 7


def test_a_ledger_and_its_own_older_copy_are_the_ledger(tmp_path: Path) -> None:
    left, right = forked(tmp_path)
    left.pulse(used=2)
    for pair in ((left, right), (right, left)):
        both = merged(*map(content_of, pair))
        np.testing.assert_array_equal(both.counts, content_of(left).counts)


def test_ledgers_that_began_apart_are_added_only_when_asked(tmp_path: Path) -> None:
    one, other = (with_more(Content.new("T1", GEOMETRY), n) for n in (5, 6))
    with pytest.raises(DataError, match="--unrelated"):
        merged(one, other)
    assert (merged(one, other, unrelated=True).counts == 11).all()


@given(st.lists(st.tuples(st.sampled_from("lr"), st.integers(0, 170), st.integers(1, 4))))
@settings(max_examples=15)
def test_a_merge_never_forgets_a_pulse(
    tmp_path_factory: pytest.TempPathFactory, pulses: list[tuple[str, int, int]]
) -> None:
    left, right = forked(tmp_path_factory.mktemp("merge"))
    truth = np.full(GEOMETRY.size, 3)
    for side, first, used in pulses:
        cells = some(first, 20)
        {"l": left, "r": right}[side].pulse(cells=cells, used=used)
        truth[cells.index(GEOMETRY)] += used
    np.testing.assert_array_equal(merged(content_of(left), content_of(right)).counts, truth)


def test_a_journal_repeats_the_ledger_s_stamp_in_every_frame(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    stamps: list[Any] = []
    for _ in range(3):
        run.pulse()
        with Journal.resume(run.path) as journal:
            stamps.append(journal.stamp)
    assert {s.ledger for s in stamps} == {content_of(run).id}
    assert [s.count for s in stamps] == sorted({s.count for s in stamps})
