"""Programs of others do with our simulators what docs/instrument-sheets.md says, at least."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from real_programs import PROGRAMS, counted

PAGE = Path(__file__).parents[2] / "docs" / "instrument-sheets.md"
ROW = re.compile(r"^\| (\w+) \| (\w+) \| (\d+) of \d+ \| \d+ \|", re.MULTILINE)
QUICK = {("PyMeasure", "33522B"), ("QCoDeS", "2602B"), ("tm_devices", "2400")}
"""What the default run counts."""
LONG = {
    ("keithley2600", "2614B"),
    ("PyMeasure", "2450"),
    ("QCoDeS", "2450"),
    ("tm_devices", "2602B"),
}
"""What the long tests count; the rest is slow, for what a program waits for in vain takes 1 s."""


def marks_of(pair: tuple[str, str]) -> list[pytest.MarkDecorator]:
    """When a program and model is counted."""
    return [] if pair in QUICK else [pytest.mark.long if pair in LONG else pytest.mark.slow]


def told() -> dict[tuple[str, str], int]:
    """(program, model) -> how many pass, as the page tells it."""
    section = (
        PAGE.read_text(encoding="utf-8").partition("## Real programs")[2].partition("\n## ")[0]
    )
    return {(program, model): int(passed) for program, model, passed in ROW.findall(section)}


def test_every_program_and_model_stands_on_the_page() -> None:
    assert told().keys() == PROGRAMS.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("program", "model"),
    [pytest.param(*pair, marks=marks_of(pair), id="-".join(pair)) for pair in PROGRAMS],
)
def test_no_fewer_pass_than_the_page_says(program: str, model: str) -> None:
    if program == "keithley2600":
        pytest.importorskip("keithley2600")
    count = counted(program, model)
    assert len(count.passed) >= told()[program, model], count.failed
