"""The fuzz of every parser: its judge finds what it is there to find, and good inputs pass it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from mutations import TOKENS, mutated
from parser_fuzz import Target, judged, targets

from rram_hil.errors import DataError


def _raising(error: Exception) -> Target:
    def take(_: bytes) -> None:
        raise error

    return Target("planted", [b""], take, (KeyError,))


def test_the_judge_finds_planted_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(_raising(DataError("one clear line")), b"") == ""
    assert judged(_raising(KeyError("a refusal that this parser names")), b"") == ""
    assert "ZeroDivisionError" in judged(_raising(ZeroDivisionError()), b"")
    assert "RecursionError" in judged(_raising(RecursionError()), b"")

    class LoudError(DataError):
        def __str__(self) -> str:
            return "\x1b[2J"

    class LongError(DataError):
        def __str__(self) -> str:
            return "x" * 100_000

    assert "control characters" in judged(_raising(LoudError()), b"")
    assert "characters long" in judged(_raising(LongError()), b"")


def test_mutations_are_repeatable_and_nearly_always_change_something() -> None:
    data = b"bl_v = 4.0\nsl_v = 3.0\n"
    first = [mutated(random.Random(k), data, [data]) for k in range(300)]
    assert first == [mutated(random.Random(k), data, [data]) for k in range(300)]
    assert sum(one != data for one in first) > 250
    assert any(token in one for one in first for token in TOKENS[:5])


@pytest.mark.long
def test_every_parser_takes_its_good_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(targets(tmp_path))
    assert len(found) > 25
    for target in found:
        for data in target.good:
            assert judged(target, data) == "", target.name
