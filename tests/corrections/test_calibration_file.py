"""The calibration file: printing and reading, arrays beside it, and what is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.corrections.calibration_file import (
    KINDS,
    LONGEST,
    Belongs,
    Calibrated,
    CalibrationFile,
    Value,
    load,
    measured_value,
    parse,
)
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Identity
from rram_hil.plugins import names

finite = st.floats(allow_nan=False, allow_infinity=False)
width = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
name = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


@st.composite
def values(draw: st.DrawFn) -> Value:
    unit = draw(st.text(max_size=8))
    if draw(st.booleans()):
        return Value(value=draw(finite), half_width=draw(width), unit=unit)
    pairs = draw(st.lists(st.tuples(finite, width), min_size=1, max_size=6))
    return Value(value=[p[0] for p in pairs], half_width=[p[1] for p in pairs], unit=unit)


files = st.builds(
    CalibrationFile,
    kind=st.sampled_from(names(KINDS)),
    date=st.datetimes(timezones=st.just(UTC)),
    validity_days=st.floats(min_value=1e-6, max_value=1e6),
    operator=st.text(),
    method=st.text(),
    reference=st.text(),
    instrument=st.builds(
        Belongs, model=st.text(), serial=st.text(), channel=st.text(), chip=st.text()
    ),
    conditions=st.dictionaries(name, st.text() | finite, max_size=3),
    values=st.dictionaries(name, values(), min_size=1, max_size=4),
)


@pytest.mark.long
@given(files)
def test_what_is_printed_is_read_back_exactly(file: CalibrationFile) -> None:
    again = parse(file.print())
    assert again == file
    assert again.digest == file.digest


def example(count: int = 3) -> CalibrationFile:
    return CalibrationFile(
        kind="board-converters",
        date=datetime(2026, 5, 1, 12, tzinfo=UTC),
        validity_days=90.0,
        instrument=Belongs(model="board", serial="7", chip="A1"),
        values={
            "adc_gain": measured_value(0.01, 0.002, "1"),
            "column_gain": Value(
                value=[k / 7 for k in range(count)], half_width=[0.1] * count, unit="1"
            ),
        },
    )


def test_long_arrays_stand_beside_and_count_as_if_they_stood_in_the_file(tmp_path: Path) -> None:
    file = example(LONGEST + 1)
    file.write(tmp_path / "board.toml")
    text = (tmp_path / "board.toml").read_text()
    assert (tmp_path / "board.arrays.h5").exists()
    assert len(text) < 1000
    assert load(tmp_path / "board.toml") == file
    assert load(tmp_path / "board.toml").digest == file.digest


def test_the_digest_is_that_of_files_written_before() -> None:
    digests = [example(count).digest[:16] for count in (3, LONGEST + 1)]
    assert digests == ["131be4ca7d68c581", "2aaadbbbf23a5e6e"]


def test_short_arrays_need_no_second_file(tmp_path: Path) -> None:
    example().write(tmp_path / "board.toml")
    assert [p.name for p in tmp_path.iterdir()] == ["board.toml"]


def test_arrays_of_another_file_are_refused(tmp_path: Path) -> None:
    example(LONGEST + 1).write(tmp_path / "a.toml")
    example(LONGEST + 2).write(tmp_path / "b.toml")
    (tmp_path / "b.arrays.h5").replace(tmp_path / "a.arrays.h5")
    with pytest.raises(ConfigError, match=r"a\.arrays\.h5 is not the file that belongs to it"):
        load(tmp_path / "a.toml")


def test_a_file_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    example().write(tmp_path / "board.toml")
    with pytest.raises(ConfigError, match="exists"):
        example().write(tmp_path / "board.toml")
    example(4).write(tmp_path / "board.toml", force=True)
    assert load(tmp_path / "board.toml") == example(4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("version = 1", "version = 2"), "version 2; this rram_hil reads up to 1"),
        (("T12:00:00.000000Z", "T12:00:00.000000"), "needs its time zone"),
        (('kind = "board-converters"', 'kind = "thermometer"'), "kind"),
        (("half_width = 0.002", "half_width = -0.002"), "half_width"),
        (("half_width = 0.002", "half_width = nan"), "half_width"),
        (("half_width = 0.002\n", ""), "half_width: missing"),
        (("[0.1, 0.1, 0.1]", "[0.1, 0.1]"), "same length"),
        (("validity_days = 90.0", "validity_days = 0.0"), "validity_days"),
        (('operator = ""', 'operater = ""'), "operater: unknown key"),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], told: str) -> None:
    text = example().print()
    assert change[0] in text
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        parse(text.replace(*change), "board.toml")
    assert "board.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_dates_are_kept_in_utc() -> None:
    moved = example().model_dump() | {
        "date": datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    }
    assert CalibrationFile.model_validate(moved) == example()


def test_a_finding_without_a_number_is_no_calibration() -> None:
    with pytest.raises(ConfigError, match="too few usable readings"):
        measured_value(float("nan"), 1.0, "ohm")


def test_a_finding_belongs_to_what_was_measured() -> None:
    bench = Identity("board", "7")
    at = datetime(2026, 5, 1, tzinfo=UTC)
    values = {"x": measured_value(1.0, 0.1, "1")}

    def owner(**more: object) -> Belongs:
        kind = "lines" if more.get("of_chip") else "leads"
        return Calibrated(kind, values, "", "", 1.0, **more).complete(bench, "A1", at).instrument  # type: ignore[arg-type]

    assert owner() == Belongs(model="board", serial="7")
    assert owner(with_chip=True) == Belongs(model="board", serial="7", chip="A1")
    assert owner(of_chip=True) == Belongs(chip="A1")
    assert owner(identity=Identity("2450", "9"), channel="1") == Belongs(
        model="2450", serial="9", channel="1"
    )
