"""A kind of calibration is a plug-in: what its files may hold, and what two of them may not both
correct.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rram_hil import Bench
from rram_hil.bench.bench_file import BenchFile
from rram_hil.corrections.calibration_file import KINDS
from rram_hil.corrections.kind import CalibrationKind, Pieces, Quantity, Sense, kind_class
from rram_hil.errors import ConfigError
from rram_hil.plugins import names

MakeBench = Callable[..., BenchFile]
MakeFile = Callable[..., str]


def test_the_kinds_are_those_of_the_calibrations_that_come_with_the_package() -> None:
    assert {"board-converters", "leads", "lines", "source-meter"} <= set(names(KINDS))
    for name in names(KINDS):
        assert all(q.unit for q in kind_class(name).VALUES.values())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('unit = "ohm"', 'unit = "kohm"', "values.series_ohm: in 'kohm'; it must be 'ohm'"),
        ("[values.series_ohm]", "[values.serie_ohm]", "values.series_ohm: missing; a calibration"),
        (
            "[values.series_ohm]",
            '[values.ohm]\nvalue = 1.0\nhalf_width = 0.0\nunit = "ohm"\n[values.series_ohm]',
            "values.ohm: leads has no such value; there is: series_ohm",
        ),
        (
            'kind = "leads"',
            'kind = "thermometer"',
            "kind: 'thermometer' is unknown; there is: board-converters, leads",
        ),
    ],
)
def test_what_a_kind_does_not_know_is_refused_in_one_line(
    bench_file: MakeBench, calibration: MakeFile, tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = tmp_path / calibration("leads", {"series_ohm": (40.0, 0.5)})
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {told}")) as refused:
        Bench.open(bench_file({"files": [path.name]}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("gain", [-1.5, float("1e6")])
def test_a_number_out_of_its_range_is_refused(
    bench_file: MakeBench, calibration: MakeFile, gain: float
) -> None:
    name = calibration("board-converters", {"bl_gain": (gain, 0.0)})
    with pytest.raises(ConfigError, match=r"values\.bl_gain: .* is out of range: allowed -0\.99"):
        Bench.open(bench_file({"files": [name]}))


class AdcOffset(CalibrationKind):
    """A kind of a third party that corrects what `board-converters` corrects too."""

    VALUES = {"offset_a": Quantity("A", needed=True)}  # noqa: RUF012 (as a third party may write)

    def pieces(self) -> Pieces:
        return Pieces(senses={"adc": Sense()})


def test_two_kinds_do_not_correct_one_thing(
    bench_file: MakeBench, calibration: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rram_hil.bench import calibrations

    def found(name: str) -> type[CalibrationKind]:
        return AdcOffset if name == "leads" else kind_class(name)

    monkeypatch.setattr(calibrations, "kind_class", found)
    adc: dict[str, Any] = {"adc_range": ([1e-6, 1e-2], [0.0] * 2), "adc_step": (1 / 2047, 0.0)}
    board = calibration("board-converters", adc)
    other = calibration("leads", {"offset_a": (0.0, 0.0)})
    path = bench_file().folder / other
    path.write_text(path.read_text().replace('unit = "1"', 'unit = "A"'))
    with pytest.raises(ConfigError, match=r"leads\.toml: another calibration corrects adc as well"):
        Bench.open(bench_file({"files": [board, other]}))
