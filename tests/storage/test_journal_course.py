"""`JournalReader.course`: the few frames that tell how a run went, without decoding the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import storage_scenarios as scenarios

from rram_hil.errors import DataError
from rram_hil.storage.frames import Close, Frame, Header, Resume, StepEnd, StepStart
from rram_hil.storage.journal import JournalReader

COURSE = (Header, StepStart, StepEnd, Resume, Close)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("course") / "run.journal"
    scenarios.write_example(path)
    return path


def told(frames: list[Frame]) -> list[object]:
    """Frames so that they can be compared."""
    return [f.started_utc if isinstance(f, Header) else f for f in frames]


def test_it_is_what_reading_all_gives_wherever_the_journal_ends(
    example: Path, tmp_path: Path
) -> None:
    whole, cut = example.read_bytes(), tmp_path / "cut.journal"
    for end in range(len(whole), 40, -97):
        cut.write_bytes(whole[:end])
        full, quick = JournalReader(cut), JournalReader(cut)
        every = [frame for frame in full if isinstance(frame, COURSE)]
        assert told(list(quick.course())) == told(every)
        assert (quick.frames, quick.whole_bytes, quick.cut_bytes) == (
            full.frames,
            full.whole_bytes,
            full.cut_bytes,
        )


def test_damage_before_the_end_is_told_where_it_is_met(example: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.journal"
    whole = bytearray(example.read_bytes())
    second = whole.index(b"RHJ1", 4)
    whole[second] ^= 1
    damaged.write_bytes(whole)
    with pytest.raises(DataError, match="damaged at byte"):
        list(JournalReader(damaged).course())
    whole[second] ^= 1
    last = whole.rindex(b"RHJ1")
    for at in range(60, last, 211):  # within frames of every kind
        whole[at] ^= 1
        damaged.write_bytes(whole)
        with pytest.raises(DataError, match="damaged at byte"):
            list(JournalReader(damaged).course())
        whole[at] ^= 1
    damaged.write_bytes(b"LPKSHHRH" + bytes(100))
    with pytest.raises(DataError, match="not a journal of rram_hil"):
        list(JournalReader(damaged).course())
