"""What `-v` and `--log-file` tell: what happens, every operation, and the links only when asked."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ([A-Z]+) (rram_hil\.[\w.]+): ")
RUN = ("run", "recipe.toml", "--bench", "wire.toml")


@pytest.fixture
def wired(here: Any) -> Any:
    here.bench('name = "simulated-array"', 'name = "test-chip-board"', "wire.toml")
    return here


def told(text: str) -> set[str]:
    """The levels and loggers of a log."""
    return {f"{found[1]} {found[2]}" for line in text.splitlines() if (found := LINE.match(line))}


def test_without_a_word_nothing_is_told(wired: Any) -> None:
    assert not told(wired.command(*RUN).err)


@pytest.mark.parametrize(
    ("option", "operations", "links"),
    [("-v", False, False), ("-vv", True, False), ("-vvv", True, True)],
)
def test_each_v_tells_more(wired: Any, option: str, operations: bool, links: bool) -> None:
    found = told(wired.command(option, *RUN).err)
    assert {"INFO rram_hil.engine.engine", "INFO rram_hil.wire.link"} <= found
    assert ("DEBUG rram_hil.engine.engine" in found) == operations
    assert ("DEBUG rram_hil.wire.traffic" in found) == links


@pytest.mark.long
def test_a_log_file_grows_by_every_run_and_holds_no_traffic(wired: Any) -> None:
    assert wired.command("--log-file", "log.txt", *RUN).status == 0
    first = (wired.folder / "log.txt").read_text(encoding="utf-8")
    assert "operation 1: " in first
    assert "traffic" not in first
    assert all(LINE.match(line) for line in first.splitlines())
    wired.command("--log-file", "log.txt", *RUN)  # refused: the run file exists
    wired.command("--log-file", "log.txt", "check", "wire.toml")
    assert (wired.folder / "log.txt").read_text(encoding="utf-8").startswith(first)
    (kept,) = logging.getLogger("rram_hil").handlers
    assert isinstance(kept, logging.NullHandler)


def test_a_log_file_that_cannot_be_is_one_line(here: Any) -> None:
    assert "--log-file nowhere/log: No such file" in here.refused(
        "--log-file", "nowhere/log", "check", "bench.toml"
    )


def test_what_an_instrument_says_cannot_act_on_the_terminal(
    here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from rram_hil.terminal.logs import logs

    with logs(1, None):
        logging.getLogger("rram_hil.wire.link").warning("told %s", "\x1b[2J\nnext")
    assert capsys.readouterr().err.rstrip().endswith("told \\x1b[2J next")
