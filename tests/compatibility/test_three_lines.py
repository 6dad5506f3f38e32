"""What does not use what steps may say beside their three lines stays as it was before: records,
payloads of the board's link, journals, and what the simulated chip does; all to the byte.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rram_hil.storage.codec import (
    Record,
    matches,
    operation_from,
    operation_record,
    result_from,
    result_record,
)
from rram_hil.storage.frames import Intent, Outcome
from rram_hil.storage.journal import read_journal

THEN = Path(__file__).parent / "files" / "three_lines"


def _written_then() -> ModuleType:
    spec = importlib.util.spec_from_file_location("three_lines", THEN / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


now = _written_then()


def _then(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((THEN / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_records_of_operations_and_results_are_the_same() -> None:
    assert now.records() == _then("records")


def test_records_of_then_are_read_as_what_they_were_and_match_the_same_operation() -> None:
    for name, operation in now.operations().items():
        record = Record.from_bytes(bytes.fromhex(_then("records")[name]))
        assert matches(record, operation)
        assert operation_record(operation_from(record)) == record
    record = Record.from_bytes(bytes.fromhex(_then("records")["result"]))
    assert result_record(result_from(record)) == record


def test_payloads_of_the_boards_link_are_the_same() -> None:
    assert {k: v for k, v in now.frames().items() if k != "identity"} == {
        k: v for k, v in _then("frames").items() if k != "identity"
    }


def test_a_journal_of_then_is_read_and_written_again_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (THEN / "journal").read_bytes()
    own_id = kept[8:16]  # after the magic and the length of the first frame
    monkeypatch.setattr("os.urandom", lambda _: own_id)
    now.write_journal(tmp_path / "journal")
    assert (tmp_path / "journal").read_bytes() == kept
    for frame in read_journal(THEN / "journal"):
        if isinstance(frame, Intent):
            assert operation_record(operation_from(frame.record)) == frame.record
        elif isinstance(frame, Outcome):
            assert result_record(result_from(frame.record)) == frame.record


def test_the_simulated_chip_does_the_same() -> None:
    done: dict[str, Any] = now.carried_out()
    assert done == _then("chip")
