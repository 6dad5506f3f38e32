"""Files that are damaged, empty, deep, huge or of another kind: one `DataError` or `ConfigError` of
one short line, and disks that refuse never hide why.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import storage_scenarios as scenarios
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rram_hil.errors import BenchError, DataError
from rram_hil.storage.array_files import read_npy, read_npz
from rram_hil.storage.fitting_types import fits
from rram_hil.storage.journal import Journal, JournalReader, read_journal
from rram_hil.storage.run_reader import read_run
from rram_hil.storage.run_writer import write_run_file
from rram_hil.terminal.console import Output
from rram_hil.terminal.show import show_run
from rram_hil.wire.recording import read_traffic


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    scenarios.write_example(path)
    return path


@pytest.fixture
def run(journal: Path, tmp_path: Path) -> Path:
    write_run_file(journal, tmp_path / "run.h5")
    return tmp_path / "run.h5"


def shown(path: Path) -> str:
    text = io.StringIO()
    show_run(path, Output(Console(file=text, width=200)))
    return text.getvalue()


def refusal(call: Callable[[], object]) -> str:
    """The text with which a call refuses; empty where it does not."""
    try:
        call()
    except BenchError as error:
        return str(error)
    return ""


# Arrays


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8',\xb3", b"x"],
)
def test_a_damaged_array_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    for reader in (read_npy, lambda p: read_npz(p, ("images",))):
        with pytest.raises(DataError, match=r"a\.npz: cannot be read: .+"):
            reader(path)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_of_an_npz_is_data_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, images=np.arange(48.0).reshape(3, 4, 4), labels=np.arange(3))
    data = bytearray(content.getvalue())
    data[at % len(data)] ^= 1 << bit
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(data)
    assert "\n" not in refusal(lambda: read_npz(path, ("images", "labels")))


def test_an_array_that_declares_more_than_there_is_memory_for_is_refused(tmp_path: Path) -> None:
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        read_npy(path)


# Journals whose checksums are right


def rewritten(
    journal: Path, target: Path, change: Callable[[str, dict[str, object]], None]
) -> Path:
    """A journal in which `change` was made to each frame's header; every checksum is right."""
    source, at, frames = journal.read_bytes(), 0, []
    head = struct.Struct("<4sI8sQI")
    while at < len(source):
        magic, size, name, number, kind = head.unpack_from(source, at)
        payload = source[at + head.size : at + head.size + size]
        length = int.from_bytes(payload[:4], "little")
        record = json.loads(payload[4 : 4 + length])
        change(record["kind"], record["meta"])
        text = json.dumps(record).encode()
        payload = len(text).to_bytes(4, "little") + text + payload[4 + length :]
        begun = head.pack(magic, len(payload), name, number, kind)
        frames.append(begun + payload + struct.pack("<I", zlib.crc32(payload, zlib.crc32(begun))))
        at += head.size + size + 4
    target.write_bytes(b"".join(frames))
    return target


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("Header", "geometry", "none"),
        ("Header", "seed", "3"),
        ("Header", "clock", "sundial"),
        ("StepStart", "name", 7),
        ("StepStart", "step", 1.5),
        ("Saved", "values", 3.0),
        ("Saved", "dims", "xyz"),
        ("Outcome", "record", None),
        ("Intent", "charge", [1, 2]),
        ("Close", "status", "fine"),
        ("Note", "text", ["a"]),
    ],
)
def test_a_frame_of_a_wrong_type_is_one_line(
    journal: Path, tmp_path: Path, kind: str, field: str, value: object
) -> None:
    def change(of: str, meta: dict[str, object]) -> None:
        if of == kind:
            meta[field] = value

    path = rewritten(journal, tmp_path / "j", change)
    with pytest.raises(DataError, match=rf"j: frame \d+: .*{field}") as told:
        list(read_journal(path))
    assert "\n" not in str(told.value)
    with pytest.raises(DataError):
        write_run_file(path, tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()


def test_the_journal_that_is_written_again_unchanged_is_read(journal: Path, tmp_path: Path) -> None:
    path = rewritten(journal, tmp_path / "j", lambda kind, meta: None)
    assert len(list(read_journal(path))) == len(list(read_journal(journal)))


def test_types_of_fields() -> None:
    assert fits(1, float)
    assert not fits(True, int)
    assert not fits(1.0, int)
    assert not fits(None, str)
    assert fits(None, str | None)
    assert fits((1, 2), tuple[int, ...])
    assert not fits((1, "2"), tuple[int, ...])
    assert not fits([1], tuple[int, ...])
    assert fits({"a": 1.5}, dict[str, float])
    assert not fits({"a": "b"}, dict[str, float])


# Run files


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 7)), min_size=2, max_size=2))
def test_a_run_file_with_two_flipped_bits_is_shown_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    scenarios.write_example(folder / "j")
    write_run_file(folder / "j", folder / "run.h5")
    data = bytearray((folder / "run.h5").read_bytes())
    for at, bit in places:
        data[at % len(data)] ^= 1 << bit
    (folder / "run.h5").write_bytes(data)
    assert "\n" not in refusal(lambda: shown(folder / "run.h5"))


def test_a_run_file_without_an_attribute_says_which(run: Path) -> None:
    with h5py.File(run, "a") as file:
        del file.attrs["chip_id"]
    with pytest.raises(DataError, match="no attribute 'chip_id'"):
        shown(run)


def test_steps_are_sorted_as_numbers(run: Path) -> None:
    with h5py.File(run, "a") as file:
        first = next(iter(file["results"]))
        for name in ("10_late", "9_early", "unnumbered"):
            file["results"].copy(first, name)
    with read_run(run) as opened:
        steps = list(dict.fromkeys(step for step, _ in opened.result_names))
    assert steps == [first, "9_early", "10_late", "unnumbered"]
    text = shown(run)
    assert text.index("9 early") < text.index("10 late")


# Recordings


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"t": 1e999, "link": "a", "do": "send", "data": ""}',
        '{"t": NaN, "link": "a", "do": "send", "data": ""}',
        '{"t": 1' + "0" * 400 + ', "link": "a", "do": "send", "data": ""}',
        '{"t": 0, "link": "a", "do": ["send"], "data": ""}',
        '{"t": 0, "link": "a", "do": "send", "data": "\\u20ac"}',
    ],
)
def test_a_line_that_is_no_event_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    head = json.dumps({"format": "rram-hil traffic", "version": 1, "seed": 1})
    path.write_text(f"{head}\n{line}\n")
    with pytest.raises(DataError, match="line 2") as told:
        read_traffic(path)
    assert len(str(told.value)) < 400


# Disks that refuse


def _refusing(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_read_only_disk_at_the_end_does_not_hide_the_cause(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file cannot be removed either: what is told is why it was to be."""
    damaged = tmp_path / "j"
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    monkeypatch.setattr(Path, "unlink", _refusing)
    with pytest.raises(DataError, match="damaged at byte"):
        write_run_file(damaged, tmp_path / "run.h5")


@pytest.mark.parametrize("call", ["ftruncate", "fdatasync", "fsync", "write"])
def test_a_journal_on_a_disk_that_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    if not hasattr(os, call):
        pytest.skip(f"no {call} here")
    monkeypatch.setattr(os, call, _refusing)
    told = refusal(lambda: Journal.create(tmp_path / "j", scenarios.header()).close())
    assert not told or "Read-only" in told


def test_a_torn_journal_that_cannot_be_cut_is_one_line(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    shutil.copy(journal, path)
    with path.open("ab") as file:
        file.write(b"RHJ1torn")
    monkeypatch.setattr(os, "ftruncate", _refusing)
    with pytest.raises(DataError, match="the torn end of the journal cannot be cut off: Read-only"):
        Journal.resume(path)
    monkeypatch.undo()
    with Journal.resume(path) as opened:  # nothing holds it
        assert opened.cut_bytes > 0


def test_a_journal_whose_disk_dies_while_it_is_read_is_one_line(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rram_hil.storage.journal._raw_at", _refusing)
    with pytest.raises(DataError, match="journal cannot be read: Read-only"):
        list(JournalReader(journal))
