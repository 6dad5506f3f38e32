"""Numbers, quantities and durations as they are written, and the units that fields say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rram_hil.units import (
    Seconds,
    Siemens,
    Unit,
    count,
    duration,
    number,
    per_cent,
    quantity,
    ranges,
    scaled,
    units_of,
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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-8, "20 ns"),
        (2.2e-6, "2.2 us"),
        (0.41234, "412 ms"),
        (0.99999, "1 s"),
        (12.345, "12.3 s"),
        (150, "2 min 30 s"),
        (12_345.6, "3 h 25 min"),
        (math.nan, "-"),
        (math.inf, "over range"),
    ],
)
def test_durations_have_sensible_digits_and_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


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


def test_numbers_of_a_page_have_sensible_digits() -> None:
    values = [3085, 0.09974, 23.27, 12345.6, -0.5, 0, 1.5e-9, math.nan]
    assert [number(v) for v in values] == [
        "3,085",
        "0.0997",
        "23.3",
        "12,346",
        "−0.500",
        "0",
        "1.50e−09",
        "not known",
    ]
    assert [per_cent(0.5), per_cent(0.5, 999), per_cent(math.nan)] == [
        "50.00 %",
        "50.0 %",
        "not known",
    ]


class _Model(BaseModel):
    wait_s: Seconds
    floor_s: Siemens | None = None
    cells: int


@dataclass(frozen=True)
class _Derived:
    dose: Annotated[float, "a remark", Unit("J")]


def test_dataclasses_and_models_say_the_units_of_their_fields() -> None:
    assert units_of(_Model) == {"wait_s": "s", "floor_s": "S"}
    assert units_of(_Derived) == {"dose": "J"}
