"""Numbers, summaries and progress as people read them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Annotated

import pytest
from rich.console import Console

from rram_hil.statistics import Figure
from rram_hil.terminal.console import Output, ProgressWatcher, outcome_text
from rram_hil.units import Seconds, Siemens, Unit, Volts


@dataclass(frozen=True)
class _Summary:
    cells: int
    median_s: Siemens
    settle_time_s: Seconds
    median_v: Volts
    accuracy: float
    places: tuple[int, ...] = ()


def test_a_summary_tells_its_units() -> None:
    text = outcome_text(_Summary(4096, 1.3e-4, 2.0, 3.2, 0.96251))
    assert text == "4 096 cells, median 130 uS, settle time 2 s, median 3.2 V, accuracy 0.9625"
    assert outcome_text(None) == ""


@dataclass(frozen=True)
class _ThirdParty:
    settling_s: Annotated[float, Unit("s")]
    conductance_s: Annotated[float | None, Unit("S")]
    unsaid_s: float
    gate_v: Annotated[Figure, Unit("V")]
    unit_v: Figure
    dose_kh: Annotated[int, Unit("Kh")]


def test_a_units_field_decides_and_a_name_never_does() -> None:
    told = _ThirdParty(1.5, 1.5, 1.5, Figure(1.5, 0.1), Figure(1.5, 0.1, "mV/step"), 2)
    assert outcome_text(told) == (
        "settling 1.5 s, conductance 1.5 S, unsaid s 1.5, gate 1.50 ± 0.10 V,"
        " unit v 1.50 ± 0.10 mV/step, dose 2 Kh"
    )
    assert outcome_text(_ThirdParty(90.0, None, 1.5, *[Figure(0.0, 0.0)] * 2, 0)).startswith(
        "settling 1 min 30 s, unsaid s 1.5"
    )


def test_a_summary_whose_annotations_cannot_be_resolved_is_printed_in_plain_numbers() -> None:
    @dataclass(frozen=True)
    class Odd:
        settling_s: Annotated[Missing, Unit("s")]  # type: ignore[name-defined]  # noqa: F821

    assert outcome_text(Odd(1.5)) == "settling s 1.5"


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


@pytest.mark.parametrize("fails", [False, True])
def test_the_bar_of_a_step_that_is_done_is_full_and_of_one_that_failed_is_not(fails: bool) -> None:
    text = io.StringIO()
    console = Console(
        file=text, width=120, force_terminal=True, color_system=None, legacy_windows=False
    )
    with contextlib.suppress(ArithmeticError), ProgressWatcher(console) as watcher:
        watcher.step("one", 1, 2)
        watcher.progress(90, 100, "cells")
        watcher.step("two", 2, 2)
        watcher.progress(90, 100, "cells")
        if fails:
            raise ArithmeticError
    one, two = (
        [line for line in text.getvalue().splitlines() if name in line][-1]
        for name in ("1/2 one", "2/2 two")
    )
    assert "100%" in one
    assert (" 90%" if fails else "100%") in two


@pytest.mark.parametrize("silent_s", [0.0, 60.0])
def test_what_does_not_last_breaks_a_long_silence_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, silent_s: float
) -> None:
    monkeypatch.setattr("rram_hil.terminal.console._SILENT_S", silent_s)
    text = io.StringIO()
    with ProgressWatcher(Console(file=text, color_system=None), lasting=False) as watcher:
        watcher.step("forming", 1, 1)
        watcher.progress(1, 4, "cells")
        watcher.step("other chip", 2, 5)
    told = "step 1/1 forming\nstep 1/1 forming: cells (25%)\nstep 2/5 other chip\n"
    assert text.getvalue() == ("" if silent_s else told)


def test_tables_keep_within_80_columns() -> None:
    text = io.StringIO()
    output = Output(Console(file=text, width=80, color_system=None))
    output.heading("Heading", "remark")
    output.table(("name", ">value"), [("x" * 100, "1"), ("[b]y", "2")])
    assert max(len(line.rstrip()) for line in text.getvalue().splitlines()) <= 80
    assert "[b]y" in text.getvalue()
