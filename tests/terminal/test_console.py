"""Numbers, summaries and progress as people read them."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rram_hil.terminal.console import (
    Output,
    ProgressWatcher,
    count,
    duration,
    outcome_text,
    quantity,
    ranges,
    scaled,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.25e-5, "S", "12.5 uS"),
        (999.96e-6, "S", "1 mS"),
        (0.0, "V", "0 V"),
        (-3.3e-27, "S", "0 S"),
        (-0.2, "V", "-200 mV"),
        (1e-9, "s", "1 ns"),
        (4e-15, "A", "0.004 pA"),
        (math.nan, "S", "-"),
        (math.inf, "S", "over range"),
        (2e12, "S", "2e+03 GS"),
    ],
)
def test_quantity(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


@given(st.floats(1e-12, 1e11))
def test_a_quantity_reads_back_as_its_value(value: float) -> None:
    number, unit = quantity(value, "S", 6).split()
    factor = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}[
        unit[:-1]
    ]
    assert float(number) * factor == pytest.approx(value, rel=1e-5)


def test_durations_and_counts() -> None:
    assert [duration(s) for s in (1.5e-3, 59.0, 61.0, 3600.0, 90000.0)] == [
        "1.5 ms",
        "59 s",
        "1 min 01 s",
        "1 h 00 min",
        "1 d 1 h",
    ]
    assert count(1234567) == "1 234 567"


def test_scaled_numbers_share_one_unit() -> None:
    assert scaled([0.0, -2e-7, 1.2e-4], "S") == (["0", "-0.2", "120"], "uS")
    assert scaled([0.0, 5.0], "1") == (["0", "5"], "")


@given(st.sets(st.integers(0, 200)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, ranges(sorted(numbers), most=1000).split(", ")):
        first, _, last = part.partition("-")
        named.extend(range(int(first), int(last or first) + 1))
    assert named == sorted(numbers)


def test_many_ranges_are_cut_short() -> None:
    assert ranges(list(range(0, 40, 2)), most=3) == "0, 2, 4 and 17 more"


@dataclass(frozen=True)
class _Summary:
    cells: int
    median_s: float
    settle_time_s: float
    median_v: float
    accuracy: float
    places: tuple[int, ...] = ()


def test_a_summary_tells_its_units() -> None:
    text = outcome_text(_Summary(4096, 1.3e-4, 2.0, 3.2, 0.96251))
    assert text == "4 096 cells, median 130 uS, settle time 2 s, median 3.2 V, accuracy 0.9625"
    assert outcome_text(None) == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_fits_its_width(width: int, terminal: bool) -> None:
    text = io.StringIO()
    console = Console(
        file=text, width=width, force_terminal=terminal, color_system=None, legacy_windows=False
    )
    with ProgressWatcher(console) as watcher:
        watcher.step("a step with a long name, for it is one", 1, 2)
        watcher.progress(
            0,
            3,
            "a text that is much too long to stand beside a bar on a terminal of the usual width",
        )
        watcher.note("something odd [not markup]")
        watcher.step("b", 2, 2)
    if terminal:
        assert "100%" in text.getvalue()
    else:
        assert "step 1/2 a step" in text.getvalue()
    assert "[not markup]" in text.getvalue()


def test_tables_keep_within_80_columns() -> None:
    text = io.StringIO()
    output = Output(Console(file=text, width=80, color_system=None))
    output.heading("Heading", "remark")
    output.table(("name", ">value"), [("x" * 100, "1"), ("[b]y", "2")])
    assert max(len(line.rstrip()) for line in text.getvalue().splitlines()) <= 80
    assert "[b]y" in text.getvalue()
