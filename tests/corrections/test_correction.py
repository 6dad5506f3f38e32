"""The calibration in force: applied where results come in, kept in the run file, refused where it
is not this bench's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rram_hil import Bench
from rram_hil.array import (
    Apply,
    Cells,
    Multiply,
    MultiplyResult,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Status,
    Step,
    Stop,
    read,
    read_step,
)
from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.forecast import plan_recipe
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.cli import app
from rram_hil.corrections.correction import FINER, pitches_of
from rram_hil.crossbar.ir_drop import Lines
from rram_hil.errors import ConfigError
from rram_hil.storage.run_reader import read_run

MakeBench = Callable[..., BenchFile]
MakeFile = Callable[..., str]
OHM = [{"row": r, "column": c, "ohm": 1e4 * (1 + r + 8 * c)} for r in range(8) for c in range(8)]
ADC = {"adc_range": ([1e-6, 1e-5, 1e-4, 1e-3, 1e-2], [0.0] * 5), "adc_step": (1 / 2047, 0.0)}


def truth() -> np.ndarray:
    return np.array([1 / (1e4 * (1 + r + 8 * c)) for r in range(8) for c in range(8)])


def test_raw_currents_stay_raw_and_conductances_become_calibrated(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    errors = {
        "bl": {"offset_v": 4e-3, "gain": 0.01},
        "adc": {"offset": 2e-3, "gain": -0.02},
        "lead_ohm": 40.0,
    }
    name = calibration(
        "board-converters",
        {
            "bl_offset": (4e-3, 1e-5),
            "bl_gain": (0.01, 1e-4),
            "dac_step_v": (5 / 4096, 0.0),
            "adc_offset": (2e-3, 1e-5),
            "adc_gain": (-0.02, 1e-4),
            **ADC,
        },
    )
    leads = calibration("leads", {"series_ohm": (40.0, 0.5)})
    with Bench.open(bench_file(errors=errors, resistors=OHM)) as bench:
        raw = bench.apply(read(bench.cells()))
    with Bench.open(bench_file({"files": [name, leads]}, errors=errors, resistors=OHM)) as bench:
        operation = read(bench.cells())
        result = bench.apply(operation)
        wide = bench.correction.half_width_s(operation, result, bench.driver.reading_paths)
    assert np.array_equal(result.current_a, raw.current_a)
    assert np.mean(np.abs(raw.conductance_s[:, 0] / truth() - 1) > 0.01) > 0.9
    apart = np.abs(result.conductance_s[:, 0] - truth())
    assert np.mean(apart <= wide[:, 0]) >= 0.9
    assert np.all(apart <= 1.1 * wide[:, 0])
    assert np.all(wide[:, 0] < 0.006 * truth())


def test_lines_are_taken_off_by_each_cells_place(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    name = calibration("lines", {"line_ohm": (20.0, 0.1), "access_ohm": (2000.0, 1.0)})
    keys: dict[str, Any] = {
        "errors": {"access_ohm": 2000.0},
        "line_ohm": 20.0,
        "resistors": OHM,
        "converters": False,
    }
    with Bench.open(bench_file({"files": [name]}, **keys)) as bench:
        result = bench.apply(read(bench.cells()))
        half_open = bench.apply(read(bench.cells(), read_step(0.2, 1.15)))
    assert result.conductance_s[:, 0] == pytest.approx(truth(), rel=1e-9)
    # At another gate the transistor is another one: only the wire is known, and the gate's own
    # effect stays.
    assert np.all(half_open.conductance_s[:, 0] < truth())


def test_single_reads_are_corrected_as_maps_are(bench_file: MakeBench) -> None:
    geometry = bench_file().chip.geometry
    series = pitches_of(Cells.all(geometry), geometry).reshape(8, 8) * 3.0
    assert Lines.of(3.0).series_ohm((8, 8)) == pytest.approx(series)


def test_a_reading_that_leaves_nothing_for_the_cell_is_over_range(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    name = calibration("leads", {"series_ohm": (1e4, 1.0)})
    with Bench.open(bench_file({"files": [name]}, resistors=OHM, converters=False)) as bench:
        result = bench.apply(read(Cells.of([(0, 0, 0), (0, 1, 0)])))
    assert result.status[:, 0].tolist() == [Status.OVER_RANGE, Status.OK]
    assert np.isnan(result.conductance_s[0, 0])
    assert result.conductance_s[1, 0] == pytest.approx(1e-4)


def test_a_stop_condition_is_one_of_calibrated_conductance(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    name = calibration(
        "board-converters", {"adc_gain": (0.5, 1e-3), "adc_offset": (0.0, 0.0), **ADC}
    )
    cell = Cells.of([(0, 0, 0)])
    steps = tuple(read_step(0.2) for _ in range(3))

    def taken(bound_s: float) -> int:
        file = bench_file(
            {"files": [name]}, errors={"adc": {"gain": 0.49}}, resistors=OHM, converters=False
        )
        with Bench.open(file) as bench:
            return int(bench.apply(Apply(cell, steps, stop=Stop(above_s=bound_s))).reads[0])

    # The resistor has 100 uS, reads as 149 uS, and is corrected to 99.3 uS.
    assert taken(99e-6) == 1
    assert taken(120e-6) == 3


def test_windows_of_programming_on_the_board_are_calibrated_too(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    name = calibration(
        "board-converters", {"adc_gain": (0.3, 1e-3), "adc_offset": (0.0, 0.0), **ADC}
    )
    file = bench_file(
        {"files": [name]}, errors={"adc": {"gain": 0.3}}, resistors=OHM, converters=False
    )
    train = PulseTrain(Ramp(0.5, 0.5), Ramp(2.0, 2.0), 1e-6)
    cells = Cells.of([(0, 0, 0)])

    def inside(low_s: float, high_s: float) -> ProgramResult:
        with Bench.open(file) as bench:
            window = np.array([low_s]), np.array([high_s])
            found = bench.do(
                Program(
                    cells, *window, train, train, read_step(), max_pulses=0, on_board="required"
                )
            )
            assert isinstance(found, ProgramResult)
            return found

    found = inside(99e-6, 101e-6)
    assert found.inside.tolist() == [True]
    assert found.conductance_s == pytest.approx([100e-6], rel=1e-9)
    assert inside(129e-6, 131e-6).inside.tolist() == [False]


def test_codes_of_a_multiply_are_corrected_column_by_column(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    gain, offset = np.linspace(-0.05, 0.05, 8), np.linspace(0.004, -0.004, 8)
    errors = {"column_gain": gain.tolist(), "column_offset": offset.tolist()}
    name = calibration(
        "board-converters",
        {
            "column_gain": (gain.tolist(), [1e-3] * 8),
            "column_offset": (offset.tolist(), [1e-4] * 8),
        },
    )
    inputs = np.random.default_rng(1).integers(-127, 128, (200, 8)).astype(np.int16)
    operation = Multiply(0, 0, 2, 6, inputs, full_scale_a=2e-4)
    with Bench.open(bench_file({"files": [name]}, errors=errors, resistors=OHM)) as bench:
        result = bench.do(operation)
        assert isinstance(result, MultiplyResult)
        wide = bench.correction.code_half_width(operation, result)
    exact = inputs @ truth().reshape(8, 8)[:, 2:] * 0.2 / 127
    assert result.lsb_a == pytest.approx(2e-4 / 2047 / FINER)
    apart = np.abs(result.codes - exact / result.lsb_a)
    assert np.mean(apart <= wide) >= 0.95
    assert np.all(apart <= 0.5 / 0.95 * FINER + 1)


def test_without_calibration_a_bench_is_as_it_was(bench_file: MakeBench) -> None:
    read_s = []
    for file in (bench_file(), bench_file({"files": []})):
        with Bench.open(file) as bench:
            assert bench.correction.files == ()
            result = bench.apply(read(bench.cells()))
            assert np.array_equal(result.conductance_s, result.current_a / 0.2)
            read_s.append(result.conductance_s)
    assert np.array_equal(*read_s)


LEADS = {"series_ohm": (40.0, 0.5)}


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        (
            "leads",
            {"instrument": {"model": "simulated array (paper)", "serial": "seed-2"}},
            "serial seed-2; connected is",
        ),
        ("leads", {"instrument": {"model": "2450", "serial": "seed-1"}}, "a calibration of 2450"),
        (
            "board-converters",
            {"instrument": {"model": "simulated array (paper)", "serial": "seed-1", "chip": "B2"}},
            "chip B2; the bench has chip 'cal'",
        ),
        ("lines", {"instrument": {"chip": "B2"}}, "chip B2; the bench has chip 'cal'"),
        ("lines", {"conditions": {"wl_v": 2.5}}, "gate at 2.5 V; this bench reads at 3 V"),
        ("source-meter", {}, "connected is no source-meter"),
        (
            "leads",
            {"date": datetime(2020, 1, 1, tzinfo=UTC)},
            "of 2020-01-01 expired on 2020-01-31 (30 days)",
        ),
        ("leads", {"date": datetime.now(UTC) + timedelta(days=3)}, "is yet to come"),
    ],
)
def test_a_foreign_or_expired_calibration_is_refused(
    bench_file: MakeBench, calibration: MakeFile, kind: str, more: dict[str, Any], told: str
) -> None:
    name = calibration(kind, LEADS, **more)
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        Bench.open(bench_file({"files": [name]}))
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_calibrations_of_one_thing_are_refused(
    bench_file: MakeBench, calibration: MakeFile, tmp_path: Path
) -> None:
    name = calibration("leads", LEADS)
    (tmp_path / "again.toml").write_text((tmp_path / name).read_text())
    with pytest.raises(
        ConfigError,
        match=r"again\.toml: a second calibration of kind 'leads'.*leads\.toml is the first",
    ):
        Bench.open(bench_file({"files": [name, "again.toml"]}))


def test_a_missing_file_is_named(bench_file: MakeBench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'gone.toml'}: no such file")):
        Bench.open(bench_file({"files": ["gone.toml"]}))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('[[step]]\nprotocol = "read-map"\n')
    return path


def test_the_run_file_holds_what_was_in_force_and_show_tells_it(
    bench_file: MakeBench, calibration: MakeFile, recipe: Path, tmp_path: Path
) -> None:
    name = calibration("leads", LEADS)
    run_recipe(recipe, bench_file({"files": [name]}), tmp_path / "run.h5")
    with read_run(tmp_path / "run.h5") as run:
        assert run.calibrations == {name: (tmp_path / name).read_text()}
        digest = str(run.attributes[f"calibration_{name}_sha256"])
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run.h5")]).output
    assert f"leads.toml (leads of {datetime.now(UTC):%Y-%m-%d}, {digest[:12]})" in " ".join(
        shown.split()
    )


def test_an_expired_calibration_may_be_accepted_and_the_run_file_says_so(
    bench_file: MakeBench, calibration: MakeFile, recipe: Path, tmp_path: Path
) -> None:
    name = calibration("leads", LEADS, date=datetime(2020, 1, 1, tzinfo=UTC))
    run_recipe(recipe, bench_file({"files": [name], "accept_expired": True}), tmp_path / "run.h5")
    with read_run(tmp_path / "run.h5") as run:
        assert any(
            "leads.toml" in t and "expired on 2020-01-31" in t for t in run.table("notes")["text"]
        )
        assert "accepted" in str(run.attributes["calibration_leads.toml_remark"])
    assert "EXPIRED" in CliRunner().invoke(app, ["show", str(tmp_path / "run.h5")]).output


def test_a_run_does_not_go_on_with_another_calibration(
    bench_file: MakeBench, calibration: MakeFile, recipe: Path, tmp_path: Path
) -> None:
    name = calibration("leads", LEADS)
    file = bench_file({"files": [name]}, state="chip.state")
    run_recipe(recipe, file, tmp_path / "run.h5")
    calibration("leads", {"series_ohm": (41.0, 0.5)})
    with pytest.raises(ConfigError, match=r"began with other calibrations \(leads\.toml\)"):
        run_recipe(recipe, file, tmp_path / "run.h5", resume=True)


def test_planning_does_not_correct_a_model_that_is_right(
    bench_file: MakeBench, calibration: MakeFile, recipe: Path
) -> None:
    file = bench_file({"files": [calibration("leads", LEADS)]}, errors={"lead_ohm": 40.0})
    assert plan_recipe(recipe, file).steps[0].name == "read-map"


def test_gate_currents_and_steps_without_volts_are_left_alone(
    bench_file: MakeBench, calibration: MakeFile
) -> None:
    name = calibration("leads", LEADS)
    steps = (
        Step(0.0, 0.0, 3.0, 1e-6, "gate"),
        read_step(0.2),
        Step(0.0, 0.0, 3.0, 1e-6, "current"),
    )
    with Bench.open(bench_file({"files": [name]}, resistors=OHM, converters=False)) as bench:
        result = bench.apply(Apply(Cells.of([(0, 0, 0), (0, 3, 3)]), steps, repeat=2))
    assert np.isnan(result.conductance_s[:, [0, 2, 3, 5]]).all()
    assert (result.status[:, [2, 5]] == Status.NOT_A_NUMBER).all()
    expected = 1 / (1 / np.array([1e-4, 1 / 2.8e5]) - 40.0)
    assert result.conductance_s[:, [1, 4]] == pytest.approx(np.stack([expected] * 2, axis=1))
    assert result.current_a[0, 0] == pytest.approx(3e-12)
