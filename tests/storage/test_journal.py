from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import storage_scenarios as scenarios
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Wait
from rram_hil.errors import DataError
from rram_hil.storage.codec import Record, operation_record
from rram_hil.storage.frames import Close, Frame, Header, Intent, Note, Outcome, Resume, Saved
from rram_hil.storage.journal import Journal, follow, holds_run, read_journal

HELPERS = Path(__file__).parents[1] / "helpers"


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, Record):
        return a == b
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    return bool(a == b)


def same_frames(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the example journal."""
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    scenarios.write_example(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def ends(whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Where each frame of the example ends."""
    path = tmp_path_factory.mktemp("ends") / "run.journal"
    path.write_bytes(whole)
    return [*(e.offset for e in read_journal(path).entries() if e.offset), len(whole)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "run.journal"


def test_every_kind_of_frame_comes_back_exactly(tmp_path: Path) -> None:
    scenarios.write_example(tmp_path / "j")
    reader = read_journal(tmp_path / "j")
    assert same_frames(list(reader), scenarios.example_frames())
    assert (reader.cut_bytes, reader.whole_bytes) == (0, (tmp_path / "j").stat().st_size)
    assert reader.header().recipe_hash == scenarios.header().recipe_hash


def test_every_truncation_reads_as_a_prefix(whole: bytes, ends: list[int], scratch: Path) -> None:
    frames = scenarios.example_frames()
    scratch.write_bytes(whole)
    for length in range(len(whole), -1, -1):
        if length % 11 and not any(abs(length - end) <= 1 for end in ends):
            continue
        os.truncate(scratch, length)
        reader = read_journal(scratch)
        with scratch.open("rb") as file:
            # Private: frames are counted without the cost of decoding them thousands of times.
            kept = sum(1 for _ in reader._raws(file))
        assert kept == sum(e <= length for e in ends)
        assert reader.cut_bytes == length - ([0, *ends][kept])
    scratch.write_bytes(whole[:-1])
    assert same_frames(list(read_journal(scratch)), frames[:-1])


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_as_data(
    whole: bytes, ends: list[int], scratch: Path, where: float, bit: int
) -> None:
    at = int(where * len(whole))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    scratch.write_bytes(damaged)
    before = sum(e <= at for e in ends)
    reader = read_journal(scratch)
    if before == len(ends) - 1 and len(ends) > 1:
        # The last frame: damage there cannot be told from a torn write.
        assert sum(1 for _ in reader) == before
        assert reader.cut_bytes > 0
    else:
        with pytest.raises(DataError, match=r"damaged at byte|not a journal"):
            list(reader)
        with pytest.raises(DataError, match=r"damaged at byte|not a journal"):
            Journal.resume(scratch)


def test_resuming_cuts_the_torn_end_and_goes_on(
    whole: bytes, ends: list[int], tmp_path: Path
) -> None:
    for end, extra in ((ends[4], 5), (ends[6], 40), (ends[-1], 0)):
        path = tmp_path / "j"
        path.write_bytes(whole[: end + extra])
        with Journal.resume(path) as journal:
            assert journal.cut_bytes == extra
            assert journal.header.chip_id == "T1"
            assert path.stat().st_size == end
            number = journal.append(Note("info", "here again", scenarios.UTC))
            assert number == ends.index(end) + 1
        frames = list(read_journal(path))
        assert len(frames) == number + 1
        assert isinstance(frames[-1], Note)


def test_a_torn_end_with_an_older_journals_bytes_in_it_is_still_torn(
    tmp_path: Path, whole: bytes
) -> None:
    with Journal.create(tmp_path / "j", scenarios.header()) as journal:
        inner = np.frombuffer(whole, dtype=np.uint8)
        journal.append(Saved(1, "bytes", inner, ("byte",)))
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content[:-1])
    assert len(list(read_journal(tmp_path / "j"))) == 1


@pytest.mark.parametrize(
    "content", [b"hello", b"\x89HDF\r\n\x1a\n" + bytes(500), b"RHJ0" + bytes(99)]
)
def test_a_foreign_file_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    for attempt in (
        lambda: list(read_journal(path)),
        lambda: Journal.resume(path),
        lambda: Journal.create(path, scenarios.header()),
        lambda: holds_run(path),
    ):
        with pytest.raises(DataError, match="not a journal"):
            attempt()
    assert path.read_bytes() == content


def test_a_missing_or_headless_journal_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        Journal.resume(tmp_path / "j")
    assert not holds_run(tmp_path / "j")
    (tmp_path / "j").write_bytes(b"")
    assert not holds_run(tmp_path / "j")
    with pytest.raises(DataError, match="no header"):
        Journal.resume(tmp_path / "j")
    Journal.create(tmp_path / "j", scenarios.header()).close()
    assert holds_run(tmp_path / "j")


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    scenarios.write_example(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(DataError, match="holds a run already"):
        Journal.create(tmp_path / "j", scenarios.header())
    assert (tmp_path / "j").read_bytes() == before


HOLDER = """
import sys, time
import storage_scenarios as scenarios
from rram_hil.storage.journal import Journal
journal = Journal.create(sys.argv[1], scenarios.header())
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    environment = os.environ | {"PYTHONPATH": str(HELPERS)}
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(DataError, match="in use by another run"):
            Journal.resume(path)
        with pytest.raises(DataError, match="in use by another run"):
            Journal.create(path, scenarios.header())
        assert len(list(read_journal(path))) == 1
        holder.kill()
        holder.wait()
    Journal.resume(path).close()


def test_a_short_write_is_undone_and_the_journal_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.create(tmp_path / "j", scenarios.header()) as journal:
        size = (tmp_path / "j").stat().st_size
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
        with pytest.raises(DataError, match="the disk is full"):
            journal.append(Note("info", "a", scenarios.UTC))
        assert (tmp_path / "j").stat().st_size == size
        monkeypatch.undo()
        assert journal.append(Note("info", "b", scenarios.UTC)) == 1
    assert [f.text for f in read_journal(tmp_path / "j") if isinstance(f, Note)] == ["b"]


def test_an_interrupt_in_the_middle_of_a_write_leaves_whole_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def interrupted(fd: int, data: bytes) -> int:
        real(fd, data)
        raise KeyboardInterrupt

    with Journal.create(tmp_path / "j", scenarios.header()) as journal:
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(Note("info", "a", scenarios.UTC))
        monkeypatch.undo()
        journal.append(Close("aborted", scenarios.UTC))
    assert [type(f) for f in read_journal(tmp_path / "j")] == [Header, Close]


def test_after_a_failed_sync_nothing_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with Journal.create(tmp_path / "j", scenarios.header()) as journal:
        # Private: the one call that brings bytes onto the disk.
        monkeypatch.setattr("rram_hil.storage.safe_files._flush", fails)
        with pytest.raises(DataError, match="cannot be brought onto the disk"):
            journal.sync()
        monkeypatch.undo()
        with pytest.raises(DataError, match="an earlier write failed"):
            journal.append(Note("info", "a", scenarios.UTC))


FILLS = """
import resource, signal, sys, numpy
import storage_scenarios as scenarios
from rram_hil.errors import DataError
from rram_hil.storage.journal import Journal
from rram_hil.storage.frames import Note, Saved
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
journal = Journal.create(sys.argv[1], scenarios.header())
try:
    while True:
        journal.append(Saved(1, "noise", numpy.random.default_rng(1).random(1000), ("x",)))
except DataError as error:
    print(error)
journal.append(Note("error", "the disk is full", scenarios.UTC))
journal.sync()
"""


@pytest.mark.skipif(
    sys.platform == "win32", reason="needs a limit on file sizes, which Windows has not"
)
def test_a_full_disk_is_one_line_and_leaves_whole_frames(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(HELPERS)}
    command = [sys.executable, "-B", "-c", FILLS, str(tmp_path / "j")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert "cannot be written" in done.stdout
    reader = read_journal(tmp_path / "j")
    assert [type(f) for f in reader] == [Header, Saved, Saved, Note]
    assert reader.cut_bytes == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_frame_that_finds_no_room_is_a_data_error(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "j", scenarios.header()) as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._fd)  # private: the disk below the open file is full
        os.close(full)
        with pytest.raises(DataError, match="No space left on device"):
            journal.append(Note("info", "a", scenarios.UTC))


def test_a_journal_that_cannot_begin_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(DataError, match="disk is full"):
        Journal.create(tmp_path / "j", scenarios.header())
    assert list(tmp_path.iterdir()) == []


def test_a_follower_sees_frames_as_they_come_and_ends_at_the_close(tmp_path: Path) -> None:
    head, *frames = scenarios.example_frames()
    assert isinstance(head, Header)
    seen: list[Frame] = []
    with Journal.create(tmp_path / "j", head) as journal:
        follower = threading.Thread(
            target=lambda: seen.extend(follow(tmp_path / "j", poll_s=0.002))
        )
        follower.start()
        for frame in frames:
            journal.append(frame)
        follower.join(10)
        assert not follower.is_alive()
        journal.append(Resume(scenarios.UTC, scenarios.BOARD))
    assert same_frames(seen, [head, *frames])
    *_, last = follow(tmp_path / "j", poll_s=0.001, stop=lambda: True, past_close=True)
    assert isinstance(last, Resume)


def test_a_follower_waits_at_a_torn_end_and_goes_on_after_the_resume(
    whole: bytes, ends: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "j"
    path.write_bytes(whole[: ends[3] + 9])
    stops = iter([False, False, False])
    follower = follow(path, poll_s=0.0, stop=lambda: next(stops, True))
    seen = [next(follower) for _ in range(4)]
    with Journal.resume(path) as journal:
        journal.append(Note("resumed", "", scenarios.UTC))
        seen += list(follower)
    assert len(seen) == 5
    assert isinstance(seen[-1], Note)


def test_a_follower_whose_journal_is_begun_anew_says_so(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(whole)
    follower = follow(path, poll_s=0.0, past_close=True)
    for _ in scenarios.example_frames():
        next(follower)
    path.unlink()
    scenarios.write_example(path)
    with pytest.raises(DataError, match="begun anew"):
        next(follower)


def test_a_follower_reports_damage(whole: bytes, ends: list[int], tmp_path: Path) -> None:
    damaged = bytearray(whole)
    damaged[ends[2] + 30] ^= 1
    (tmp_path / "j").write_bytes(damaged)
    with pytest.raises(DataError, match="damaged at byte"):
        list(follow(tmp_path / "j", poll_s=0.0))


@pytest.mark.parametrize(
    ("name", "dims", "attrs", "said"),
    [
        ("x", ("a",), {}, "each of 2 dimensions"),
        ("x", ("a", "a"), {}, "each of 2 dimensions"),
        ("a/b", ("a", "b"), {}, "plain words"),
        ("", ("a", "b"), {}, "plain words"),
        ("x", ("a", "b"), {"NAME": 1}, "'NAME' is the run file's own"),
    ],
)
def test_a_saved_array_that_no_file_can_hold_is_refused(
    name: str, dims: tuple[str, ...], attrs: dict[str, int], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        Saved(1, name, np.zeros((2, 2)), dims, "1", attrs)


def test_killed_at_any_write_nothing_committed_is_lost_and_the_ledger_is_never_low(
    crash_shim: Any, tmp_path: Path
) -> None:
    crashes = crash_shim.everywhere("pulses_with_journal_and_ledger", "kept.", tmp_path)
    assert len(crashes) > 30
    assert not crashes[-1].died
    for crash in crashes:
        path, committed = crash.folder / "kept.journal", crash.folder / "committed"
        synced = int(committed.read_text().split()[-1]) if committed.exists() else 0
        frames = list(read_journal(path)) if path.exists() else []
        assert len(frames) >= synced, crash
        ledger = crash.folder / "kept.ledger.npy"
        truth = scenarios.given_pulses(crash.folder)
        if truth.any() or ledger.exists():
            assert (np.load(ledger) >= truth).all(), crash

        scenarios.pulses_with_journal_and_ledger(crash.folder)
        frames = list(read_journal(path))
        intents = [f.operation for f in frames if isinstance(f, Intent)]
        outcomes = [f.operation for f in frames if isinstance(f, Outcome)]
        assert intents == sorted(set(intents)) == outcomes, crash
        assert isinstance(frames[-1], Close)
        truth, counted = scenarios.given_pulses(crash.folder), np.load(ledger)
        assert (counted >= truth).all(), crash
        # Each crash costs a cell at most one operation's charge.
        assert (counted <= truth + scenarios.BUDGET).all(), crash


def test_killed_at_random_times_the_journal_is_a_prefix(tmp_path: Path) -> None:
    script = """
import sys
import storage_scenarios as scenarios
from rram_hil.storage.journal import Journal
from rram_hil.storage.frames import Note
journal = Journal.create(sys.argv[1], scenarios.header())
for k in range(10**9):
    journal.append(Note("info", f"{k} " + "x" * (k % 999), "utc"))
"""
    environment = os.environ | {"PYTHONPATH": str(HELPERS)}
    for k in range(3):
        path = tmp_path / f"{k}"
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment)
        for frame in follow(path, poll_s=0.01) if _appears(path) else ():
            if isinstance(frame, Note) and frame.text.startswith(f"{50 * k + 50} "):
                break
        process.kill()
        process.wait()
        texts = [f.text for f in read_journal(path) if isinstance(f, Note)]
        assert len(texts) > 50 * k
        assert texts == [f"{i} " + "x" * (i % 999) for i in range(len(texts))]


def _appears(path: Path) -> bool:
    for _ in range(1000):
        if path.exists() and holds_run(path):
            return True
        threading.Event().wait(0.01)
    return False


def test_an_intent_keeps_its_operation_and_charge(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "j", scenarios.header()) as journal:
        journal.append(
            Intent(7, 2, operation_record(Wait(1.0, "rest")), np.zeros(0, dtype=np.int64), 3.5)
        )
    *_, intent = read_journal(tmp_path / "j")
    assert isinstance(intent, Intent)
    assert (intent.operation, intent.step, intent.time_s, intent.record.kind) == (7, 2, 3.5, "Wait")
