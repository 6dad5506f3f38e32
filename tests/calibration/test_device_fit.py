"""Fit and check of the device model: on files made by a model, everywhere; on measured ones, where
they are.
"""

import gzip
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil import cli
from rram_hil.calibration.device_fit import (
    experiments,
    key_figures,
    start_values,
    write_verify_schemes,
)
from rram_hil.calibration.device_fit.fitting import fit
from rram_hil.calibration.device_fit.measured_files import Measured, read_measured
from rram_hil.calibration.device_fit.prediction import check_half
from rram_hil.calibration.device_fit.report import device_report
from rram_hil.calibration.device_fit.toml_text import to_toml
from rram_hil.calibration.device_model import check_files, fit_files, passed
from rram_hil.errors import DataError
from rram_hil.simulation.bank import cells_of
from rram_hil.simulation.model import DEFAULT_PRESET, DeviceModel

SHARED = Path(__file__).parents[3] / "shared"
MEASURED = Path(os.environ.get("RRAM_HIL_MEASURED", SHARED / "data" / "measured"))
METRICS = SHARED / "tools" / "twin_metrics.py"
measured = pytest.mark.skipif(
    not MEASURED.is_dir(),
    reason=f"measured files are wanted in {MEASURED} (RRAM_HIL_MEASURED names another folder)",
)
SEED = 12


def _write(path: Path, columns: dict[str, Any]) -> Path:
    rows = np.column_stack(
        [np.broadcast_to(v, np.shape(columns["cell"])) for v in columns.values()]
    )
    lines = [",".join(columns), *(",".join(f"{x:.7g}" for x in row) for row in rows)]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _truth() -> DeviceModel:
    """A model that is not the start of a fit: shifted thresholds, other spreads, another
    relaxation.
    """
    content = start_values.start()
    content["set"]["gate_v"] = [v + 0.08 for v in content["set"]["gate_v"]]
    content["set"]["offset_sd_v"] = 0.07
    content["forming"] |= {
        "reference_width_s": 200e-9,
        "threshold_v": 2.9,
        "threshold_sd_v": 0.2,
        "conductance_s": 120e-6,
        "spread_ln": 0.2,
    }
    content["relaxation"] = DeviceModel.load("hfo2").relaxation.model_dump()  # type: ignore[union-attr]
    return DeviceModel.model_validate(content)


def _sweep(path: Path, model: DeviceModel, cells: int = 30, sweeps: int = 4) -> Path:
    volts = np.round(np.arange(1.5, 3.51, 0.05), 2)
    start = np.exp(np.random.default_rng(3).normal(math.log(8e-6), 0.6, cells * sweeps))
    plan = experiments.SweepPlan(
        reset=False,
        swept="wl_v",
        volts=volts,
        fixed={"bl_v": 2.0, "sl_v": 0.0},
        width_s=200e-9,
        cell=np.repeat(np.arange(cells), sweeps),
        number=np.tile(np.arange(sweeps), cells),
        start_s=start,
        stop_ohm=4100.0,
    )
    found = experiments.sweep_on_model(model, plan, SEED, 1)[0]
    after = 1e6 / np.exp(found.ln_g)
    going = np.concatenate([np.ones((after.shape[0], 1), dtype=bool), after[:, :-1] > 4100], axis=1)
    row, column = np.nonzero(np.logical_and.accumulate(going, axis=1))
    before = np.concatenate([1 / start[:, None], after[:, :-1]], axis=1)
    return _write(
        path,
        {
            "cell": plan.cell[row],
            "sweep": plan.number[row],
            "pulse_width_ns": 200,
            "bl_v": 2.0,
            "wl_v": volts[column],
            "r_before_ohm": before[row, column],
            "r_after_ohm": after[row, column],
        },
    )


def _reset_sweep(path: Path, model: DeviceModel, cells: int = 96, sweeps: int = 2) -> Path:
    """Ramps of the source line on filaments that were grown just before."""
    volts = np.round(np.arange(0.5, 2.91, 0.1), 2)
    n = cells * sweeps
    start = np.exp(np.random.default_rng(4).normal(math.log(150e-6), 0.2, n))
    plan = experiments.SweepPlan(
        reset=True,
        swept="sl_v",
        volts=volts,
        fixed={"bl_v": 0.0, "wl_v": 4.0},
        width_s=200e-9,
        cell=np.repeat(np.arange(cells), sweeps),
        number=np.tile(np.arange(sweeps), cells),
        start_s=start,
        stop_ohm=None,
        grown=True,
    )
    after = 1e6 / np.exp(experiments.sweep_on_model(model, plan, SEED, 1)[0].ln_g)
    return _write(
        path,
        {
            "cell": np.repeat(plan.cell, volts.size),
            "sweep": np.repeat(plan.number, volts.size),
            "pulse_width_ns": 200,
            "sl_v": np.tile(volts, n),
            "wl_v": 4.0,
            "grown": 1,
            "r_before_ohm": np.concatenate([1 / start[:, None], after[:, :-1]], axis=1).ravel(),
            "r_after_ohm": after.ravel(),
        },
    )


def _forming(path: Path, model: DeviceModel) -> Path:
    bl, ohm = experiments.form_on_model(model, experiments.FormPlan(2.0, 0.05), SEED, 3000)
    return _write(
        path,
        {"cell": np.arange(bl.size), "wl_v": 2.0, "bl_v": bl, "r_after_ohm": ohm, "success": 1},
    )


def _relaxation(path: Path, model: DeviceModel) -> Path:
    rng = np.random.default_rng(4)
    n = 4000
    g0 = rng.uniform(2e-6, 60e-6, n)
    times = np.array([0.01, 0.1, 1.0, 1e4])
    t = np.repeat(times, n)
    cell, start = np.tile(np.arange(n), times.size), np.tile(g0, times.size)
    g = experiments.relax_on_model(model, t, start, cell, t, SEED)
    return _write(
        path,
        {
            "cell": cell,
            "seconds": t,
            "r_ohm": 1 / g,
            "g_s": g,
            "g_initial_s": start,
            "level": 0,
            "time_bin_s": t,
        },
    )


def test_a_fit_on_a_models_own_forming_and_relaxation_finds_the_model_again(tmp_path: Path) -> None:
    truth = _truth()
    files = [
        _forming(tmp_path / "forming.csv", truth),
        _relaxation(tmp_path / "relaxation.csv.gz", truth),
    ]
    found = fit_files(files)
    assert found.forming.threshold_v == pytest.approx(2.9, abs=0.015)
    assert found.forming.threshold_sd_v == pytest.approx(0.2, rel=0.06)
    assert found.forming.conductance_s == pytest.approx(120e-6, rel=0.02)
    assert found.forming.spread_ln == pytest.approx(0.2, rel=0.1)
    again = check_files(found, files)
    assert [one.figure for file in again for one in file.figures if one.verdict == "miss"] == []


@pytest.mark.long
def test_a_fit_on_a_models_own_sweep_finds_its_curve_again_and_predicts_cells_that_it_has_not_seen(
    tmp_path: Path,
) -> None:
    truth = _truth()
    path = _sweep(tmp_path / "sweep.csv", truth)
    (file,) = read_measured(path)
    half = file.cells[::2]
    seen = file.of_cells(half)
    fitted = fit_files([_write(tmp_path / "seen.csv", seen.columns)])
    unseen = file.part(~np.isin(file["cell"], half))
    check = check_files(fitted, [_write(tmp_path / "unseen.csv", unseen.columns)])
    good, judged = passed(check)
    assert judged == 9
    assert good >= 8
    drawn = check[0].drawn
    found, wanted = (np.median(drawn[key], axis=0) for key in ("predicted", "measured"))
    assert np.abs(found - wanted).mean() < 0.06


def _cycles(path: Path, model: DeviceModel, cells: int = 60, cycles: int = 100) -> Path:
    plan = experiments.CyclePlan(experiments.evenly(cycles, cycles))
    high, low = experiments.cycle_on_model(model, SEED, cells, plan)
    return _write(
        path,
        {
            "cell": np.repeat(np.arange(cells), cycles),
            "cycle": np.tile(np.arange(cycles), cells),
            "r_hrs_ohm": high.ravel(),
            "r_lrs_ohm": low.ravel(),
        },
    )


def _verified(path: Path, model: DeviceModel) -> Path:
    low, high = (np.repeat(v, 60) for v in ([0.0, 80e3], [5000.0, 1e10]))
    found = write_verify_schemes.fppv(model, low, high, SEED)
    return _write(
        path,
        {
            "cell": np.arange(low.size),
            "sets": found.sets,
            "resets": found.resets,
            "reads": found.pulses,
            "r_low_ohm": low,
            "r_high_ohm": high,
            "success": found.success,
        },
    )


def _noise(path: Path, model: DeviceModel) -> Path:
    g = np.geomspace(1e-6, 200e-6, 50)
    noise = experiments.noise_on_model(model, g, 100, SEED)
    return _write(path, {"cell": np.arange(50), "g_s": g, "noise_s": noise, "reads": 100})


@pytest.mark.long
def test_the_report_draws_every_kind_of_file(tmp_path: Path) -> None:
    truth = _truth()
    makers = {
        "sweep": _sweep,
        "forming": _forming,
        "relaxation": _relaxation,
        "cycling": _cycles,
        "fppv": _verified,
        "noise": _noise,
    }
    files = check_files(
        truth, [make(tmp_path / f"{name}.csv", truth) for name, make in makers.items()]
    )
    assert [file.kind for file in files] == [
        "sweep",
        "forming",
        "relaxation",
        "cycling",
        "write-verify",
        "read-noise",
    ]
    page = device_report(truth, files)
    for file in files:
        assert file.name in page
    assert page.count("<svg") >= len(files)


def test_early_and_late_cycles_differ_by_the_models_wear() -> None:
    model = DeviceModel.load(DEFAULT_PRESET)
    plan = experiments.CyclePlan(experiments.evenly(30, 300))
    high, low = experiments.cycle_on_model(model, SEED, 1000, plan)
    early, late = (np.median(x) for x in (high[:, :3], high[:, -10:]))
    assert 90e3 < early < 140e3
    assert 1.4 < early / late < 2.2
    assert np.median(low[:, :3]) == pytest.approx(np.median(low[:, -10:]), rel=0.03)


def test_a_model_file_says_what_the_model_says(tmp_path: Path) -> None:
    model = DeviceModel.load(DEFAULT_PRESET)
    (tmp_path / "copy.toml").write_text(to_toml(model), encoding="utf-8")
    assert DeviceModel.load("copy.toml", tmp_path).digest == model.digest


@pytest.mark.long
@pytest.mark.parametrize(("preset", "part"), [("hfo2-measured-2bit", 0.18), ("hfo2-measured", 0.0)])
def test_cells_that_never_open_are_found_in_cycles(
    preset: str, part: float, tmp_path: Path
) -> None:
    truth = DeviceModel.load(preset)
    paths = [
        _reset_sweep(tmp_path / "reset.csv", truth),
        _cycles(tmp_path / "cycles.csv", truth, cells=96, cycles=40),
    ]
    told: list[str] = []
    files = [one for path in paths for one in read_measured(path)]
    model = fit(files, "twin", told.append, rounds=4)
    law = model.reset.redraw
    assert law is not None
    assert ("cells that do not open" in told[-1]) == bool(part)
    assert (0.0 if law.shallow is None else law.shallow.part) == pytest.approx(part, abs=0.08)


@pytest.mark.parametrize(
    ("name", "cycles"),
    [
        ("ispp_2bit_chip1_after8k.csv.gz", 8000),
        ("radar_after500.csv", 500),
        ("fppv_2bit_chip1_fresh.csv.gz", 0),
    ],
)
def test_a_files_name_tells_the_cycles_before(name: str, cycles: int) -> None:
    assert write_verify_schemes.cycles_before(name) == cycles


def _rows(name: str, **columns: list[float]) -> Measured:
    """A write-verify file of a few rows; `top`: 1 for the top window, 0 for the lowest."""
    table = {key: np.array(values, dtype=np.float64) for key, values in columns.items()}
    top = table.pop("top")
    table |= {"r_low_ohm": 80e3 * top, "r_high_ohm": np.where(top == 1, 1e10, 5e3)}
    return Measured(name, "write-verify", table)


def test_the_resets_that_a_scheme_gives_a_cell_are_read_off_the_failed_ones_of_the_top_window() -> (
    None
):
    file = _rows(
        "ispp.csv",
        cell=[1, 2, 3, 4, 5],
        sets=[0, 0, 0, 9, 900],
        resets=[50, 50, 3, 2, 200],
        top=[1, 1, 1, 0, 0],
        success=[0, 0, 1, 1, 0],
    )
    assert write_verify_schemes.top_resets_of(file) == 50
    none_failed = file.part(file["success"] == 1)
    assert write_verify_schemes.top_resets_of(none_failed) == write_verify_schemes.MOST_RESETS


@pytest.mark.parametrize("scheme", ["ispp", "fppv", "radar"])
def test_a_scheme_gives_up_a_cell_of_the_top_window_after_that_many_resets(scheme: str) -> None:
    run = write_verify_schemes.scheme_of(scheme)
    assert run is not None
    found = run(DeviceModel.load(DEFAULT_PRESET), np.full(300, 80e3), np.full(300, 1e10), 3, 0, 7)
    assert np.all(found.resets[found.success == 0] == 7)
    assert np.any(found.success == 0)
    assert np.all(found.resets <= 7)


def test_cycles_are_counted_over_the_rows_of_a_cell_and_over_files_of_the_same_cells() -> None:
    file = _rows(
        "ispp.csv",
        cell=[1, 1, 1, 1],
        sets=[9, 0, 30, 5],
        resets=[1, 60, 4, 2],
        top=[0, 1, 0, 0],
        success=[1, 1, 1, 1],
    )
    # Cycles 1, 1 (all its RESETs follow one another), 4, 2: before the rows lie 0, 1, 2 and 6.
    assert write_verify_schemes.cycles_of(file) == round(9 / 4)
    assert write_verify_schemes.cycles_of(file, [file]) == round(9 / 4 + 8)
    worn = Measured("ispp_after500.csv", file.kind, file.columns)
    assert write_verify_schemes.cycles_of(worn) == 500 + round(9 / 4)
    other = Measured("x", file.kind, file.columns | {"cell": np.full(4, 2.0)})
    assert write_verify_schemes.cycles_of(file, [other]) == round(9 / 4)


def test_a_measured_half_predicts_the_other_as_far_as_it_was_sampled(tmp_path: Path) -> None:
    (file,) = read_measured(_forming(tmp_path / "f.csv", _truth()))
    same = check_half(file, file)
    assert all(one.measured == one.predicted for one in same)
    halves = [file.part(file["cell"] % 2 == k) for k in (0, 1)]
    found = check_half(halves[0], halves[1])
    assert [one.verdict for one in found if one.verdict != "told"] == ["pass", "pass"]
    assert found[0].measured == pytest.approx(np.mean(halves[1]["bl_v"]))
    assert found[0].predicted == pytest.approx(np.mean(halves[0]["bl_v"]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ispp_on_fresh_cells_is_fitted_beside_sweeps_and_other_schemes_are_left_alone(
    tmp_path: Path,
) -> None:
    truth = _truth()
    low, high = (np.repeat(v, 30) for v in ([0.0, 80e3], [5000.0, 1e10]))
    found = write_verify_schemes.ispp(truth, low, high, 0.1, SEED)
    columns = {
        "cell": np.tile(np.arange(30), 2),
        "sets": found.sets,
        "resets": found.resets,
        "r_low_ohm": low,
        "r_high_ohm": high,
        "success": found.success,
    }
    files = [
        _sweep(tmp_path / "sweep.csv", truth, 10, 2),
        _write(tmp_path / "ispp.csv", columns),
        _write(tmp_path / "ispp_after8k.csv", columns),
        _write(tmp_path / "fppv.csv", columns),
    ]
    lines: list[str] = []
    fitted = fit_files(files, tell=lines.append, rounds=1)
    assert "ispp.csv" in fitted.about
    assert "after8k" not in fitted.about
    assert "fppv" not in fitted.about
    assert fitted.set.grow is not None
    assert fitted.set.grow.creep is not None
    assert fitted.reset.redraw is not None
    assert fitted.reset.redraw.shallow is not None
    assert "cells that creep or do not open" in lines[-1]


def test_kinds_of_files_are_told_by_their_columns_and_bad_ones_are_refused(tmp_path: Path) -> None:
    assert read_measured(_forming(tmp_path / "a.csv", _truth()))[0].kind == "forming"
    assert read_measured(_sweep(tmp_path / "b.csv.gz", _truth(), 4, 2))[0].kind == "sweep"
    for text, message in (
        ("x,y\n1,2\n", "no known kind"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n", "no rows"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,2\n", "3 names in the header, 2 columns"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,a,b\n", "line 2: r_hrs_ohm 'a' is no number"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,,\n", "holds no number"),
        ("cell,r_hrs_ohm,r_hrs_ohm,r_lrs_ohm\n1,1e6,1e6,1e4\n", "names r_hrs_ohm twice"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,1e6,1e4\n\n# x\n2,1.5k,1e4\n", "line 5: r_hrs_ohm '1.5k'"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,1000,1e4\n", "must be above r_lrs_ohm"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,1e6,-1e4\n", "r_lrs_ohm must be above 0"),
        ("cell,g_s,noise_s\n1,5e-5,0.1\n", "noise_s must be in S: its median of 0.1 S"),
        ("cell,g_s,noise_s\n1,5e-5,-1e-7\n", "noise_s must be 0 or more"),
        ("cell,bl_v,r_after_ohm,success\n1,3000,1e4,1\n", "bl_v must be a number below 100 V"),
        ("cell,g_s,g_initial_s,time_bin_s\n1,5e-5,5e-5,-1\n", "time_bin_s must be 0 or more"),
        (
            "cell,sets,resets,r_low_ohm,r_high_ohm,success\n1,-3,1,1e4,2e4,1\n",
            "sets must be a whole number, 0 or more",
        ),
        ("cell,sweep,wl_v,r_before_ohm,r_after_ohm\n1,1,1,1,1\n", "needs a column bl_v"),
        ("cell,r_hrs_ohm,r_lrs_ohm\n1,80,5.8\n", "r_lrs_ohm must be in ohm: its median of 5.8"),
        ("cell,pulse,polarity,g_s\n1,0,1,20\n1,1,1,40\n", "g_s must be in S: its median of 30"),
    ):
        # Spreadsheets put a byte-order mark before the header.
        (tmp_path / "bad.csv").write_text(text, encoding="utf-8-sig")
        with pytest.raises(DataError, match=message):
            read_measured(tmp_path / "bad.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_measured(tmp_path / "none.csv")


def _pulses(path: Path, rows: list[tuple[float, ...]], *more: str) -> Path:
    lines = [
        ",".join(("cell", "pulse", "polarity", "g_s", *more)),
        *(",".join(map(str, row)) for row in rows),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "starts"),
    [
        # From the reading of pulse 0; the numbers run on.
        ([(0, 1), (1, 1), (2, 1), (3, 1), (4, -1), (5, -1), (6, -1)], (0, 3)),
        # Each train counts from 1, the second from where the first ended.
        ([(0, 1), (1, 1), (2, 1), (3, 1), (1, -1), (2, -1), (3, -1)], (0, 3)),
        # Each from a reading of its own.
        ([(0, 1), (1, 1), (2, 1), (3, 1), (0, -1), (1, -1), (2, -1), (3, -1)], (0, 4)),
    ],
)
def test_trains_are_told_apart_by_polarity_and_number(
    rows: list[tuple[float, float]], starts: tuple[int, int], tmp_path: Path
) -> None:
    g = 1e-6 * (np.arange(len(rows)) + 1)
    table = [(cell, *row, g[k]) for cell in (4, 9) for k, row in enumerate(rows)]
    trains = read_measured(_pulses(tmp_path / "p.csv", table))
    by_polarity = {bool(one.is_reset): one for one in trains}
    for is_reset, start in zip((False, True), starts, strict=True):
        of = by_polarity[is_reset]
        assert of.kind == "pulses"
        assert of["pulse"].tolist() == [1, 2, 3] * 2
        assert of["cell"].tolist() == [4] * 3 + [9] * 3
        np.testing.assert_allclose(1 / of["r_before_ohm"][:3], g[start : start + 3])
        np.testing.assert_allclose(1 / of["r_after_ohm"][:3], g[start + 1 : start + 4])
        line, volts = ("sl_v", (3.0, 4.0)) if is_reset else ("bl_v", (2.0, 2.7))
        assert (of.fixed(line), of.fixed("wl_v")) == volts


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pulse_width_ns": 0}, r"row 2: pulse_width_ns must be 1 ns to 1 s, not 0"),
        ({"pulse_width_ns": 2e-7}, r"row 2: pulse_width_ns must be 1 ns to 1 s, not 2e-07"),
        ({"pulse_width_ns": 1e12}, r"row 2: pulse_width_ns must be 1 ns to 1 s"),
        ({"amplitude_v": 300}, r"row 2: amplitude_v must be a number below 100 V, not 300"),
        ({"amplitude_v": math.nan}, r"row 2: amplitude_v must be a number .*, not nan"),
        ({"wl_v": -1e3}, r"row 2: wl_v must be a number below 100 V"),
        ({"g_s": math.inf}, r"row 2: g_s must be a number, not inf"),
        ({"g_s": math.nan}, r"row 2: g_s must be a number, not nan"),
    ],
)
def test_impossible_pulses_are_refused_by_row(
    change: dict[str, float], told: str, tmp_path: Path
) -> None:
    usual = {"cell": 4, "pulse": 0, "polarity": 1, "g_s": 1e-6}
    usual |= {"amplitude_v": 2, "wl_v": 2.7, "pulse_width_ns": 200}
    rows = [usual, usual | {"pulse": 1} | change, usual | {"pulse": 2}]
    path = _pulses(tmp_path / "p.csv", [tuple(row.values()) for row in rows], *list(usual)[4:])
    with pytest.raises(DataError, match=told):
        read_measured(path)


def test_readings_that_only_some_trains_have_are_not_bridged(tmp_path: Path) -> None:
    table = [(cell, k, 1, 1e-5 * (k + 1)) for cell in (4, 9) for k in (0, 1, 2, 4)]
    (of,) = read_measured(_pulses(tmp_path / "p.csv", table))
    assert of["pulse"].tolist() == [1, 2, 4] * 2
    lacking = [row for row in table if row[:2] != (9, 2)]
    with pytest.raises(DataError, match=r"cell 9: a train has no reading after its pulse 2"):
        read_measured(_pulses(tmp_path / "p.csv", lacking))


def test_pulses_between_trains_that_were_not_read_are_of_no_known_polarity(tmp_path: Path) -> None:
    table = [(4, k, 1 if k < 4 else -1, 1e-5) for k in (0, 1, 2, 4, 5)]
    with pytest.raises(DataError, match=r"cell 4: pulse 4 follows pulse 2 of the other polarity"):
        read_measured(_pulses(tmp_path / "p.csv", table))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("2,1,1,9e3,8e3,1,10", r"row 2: r_low_ohm must be 0 to r_high_ohm, not 9000"),
        ("2,1,1,8e3,9e3,1,-1", r"row 2: max_pulses must be a whole number, 0 or more, not -1"),
    ],
)
def test_windows_and_budgets_that_cannot_be_are_refused_by_row(
    row: str, told: str, tmp_path: Path
) -> None:
    header = "cell,sets,resets,r_low_ohm,r_high_ohm,success,max_pulses"
    path = tmp_path / "rvw.csv"
    path.write_text(f"{header}\n1,1,1,8e3,9e3,1,10\n{row}\n")
    with pytest.raises(DataError, match=told):
        read_measured(path)


def test_without_a_reading_before_it_a_train_begins_at_its_first(tmp_path: Path) -> None:
    table = [(0, k, 1, 1e-5 * k) for k in (1, 2, 4, 8)]
    (of,) = read_measured(_pulses(tmp_path / "p.csv", table))
    assert of["pulse"].tolist() == [1, 3, 7]
    assert 1 / of["r_before_ohm"][0] == pytest.approx(1e-5)
    plan = experiments.sweep_plan(of)
    assert plan.volts.tolist() == [1, 2, 3, 4, 5, 6, 7]
    (made,) = experiments.sweep_on_model(_truth(), plan, SEED, 1)
    assert made.volts.tolist() == [1, 3, 7]
    assert made.ln_g.shape == (1, 3)


def test_trains_of_other_volts_are_apart_and_short_ones_do_not_count(tmp_path: Path) -> None:
    table = [
        (cell, k, 1, 1e-5, wl_v)
        for cell in range(6)
        for wl_v in (2.2, 2.4)
        for k in range(5 + (cell == 5) - 3 * (cell == 4))
    ]
    low, high = read_measured(_pulses(tmp_path / "p.csv", table, "wl_v"))
    assert (low.fixed("wl_v"), high.fixed("wl_v")) == (2.2, 2.4)
    for one in (low, high):
        assert set(one.cells) == {0, 1, 2, 3, 5}
        assert one["pulse"].max() == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, 1, 0, 1e-5, 2.2), "polarity must be 1"),
        ((0, 1.5, 1, 1e-5, 2.2), "a whole number from 0"),
        ((0, 2, 1, 1e-5, 2.3), "change within a train"),
    ],
)
def test_trains_that_are_none_are_refused(
    row: tuple[float, ...], message: str, tmp_path: Path
) -> None:
    table = [(0, 0, 1, 1e-5, 2.2), (0, 1, 1, 1e-5, 2.2), row]
    with pytest.raises(DataError, match=message):
        read_measured(_pulses(tmp_path / "p.csv", table, "wl_v"))


def _trains(path: Path, model: DeviceModel, seed: int) -> Path:
    """Three times 16 SET and 16 RESET pulses on 40 cells, each time after a full RESET."""
    cells, rows = cells_of(model, 40, seed), []
    working = np.flatnonzero(cells.responsive)
    for _ in range(3):
        cells.apply(0.0, 3.0, 4.0)
        for pulse in range(33):
            polarity = 1 if pulse <= 16 else -1
            volts = (2.0, 0.0, 2.2) if polarity > 0 else (0.0, 1.2, 4.0)
            if pulse:
                cells.apply(*volts)
            g = cells.read()
            rows += [(k, pulse, polarity, g[k], max(volts[:2]), volts[2]) for k in working]
    rows.sort(key=lambda row: row[0])
    return _pulses(path, rows, "amplitude_v", "wl_v")


@pytest.mark.long
def test_trains_of_pulses_are_fitted_and_predicted_on_other_cells(tmp_path: Path) -> None:
    content = _truth().model_dump()
    content["set"]["grow"]["power"] = 0.4
    content["reset"]["conductance_s"] = [1.3 * g for g in content["reset"]["conductance_s"]]
    truth = DeviceModel.model_validate(content)
    one, other = (_trains(tmp_path / f"{k}.csv", truth, k) for k in (1, 2))
    told: list[str] = []
    model = fit_files([one], "twin", told.append)
    assert model.set.grow is not None
    assert model.set.grow.power == pytest.approx(0.4, rel=0.15)
    assert "determined: SET at the volts of its pulses, RESET at the volts of its" in told[-1]
    assert "published curves: SET at other volts, RESET at other volts, read noise" in told[-1]
    scores = {
        name: passed(check_files(of, [other]))[0]
        for name, of in (
            ("truth", truth),
            ("twin", model),
            ("start", DeviceModel.model_validate(start_values.start())),
        )
    }
    assert scores["twin"] >= 0.9 * scores["truth"] > 14 > scores["start"]
    page = device_report(model, check_files(model, [other]))
    assert page.count("<svg") == 2
    assert "pulses" in page


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


def _late(model: DeviceModel, cells: int, levels_s: list[float], seed: int) -> Measured:
    """Relaxation of cells that were programmed into windows around levels, first read 0.1 s later:
    what they were read at holds some of the change.
    """
    rng, times = np.random.default_rng(seed), np.array([1.0, 10.0, 100.0])
    level = np.resize(levels_s, cells)
    made = level * (1 + 0.03 * rng.standard_normal(cells))
    index, event = np.arange(cells), np.ones(cells, dtype=np.int64)

    def after(age_s: float) -> Any:
        return model.relaxed(seed, index, event, made, np.full(cells, age_s))

    shape = (times.size, cells)
    columns = {
        "cell": np.broadcast_to(index, shape),
        "g_initial_s": np.broadcast_to(after(0.1), shape),
        "g_s": np.stack([after(0.1 + t) for t in times]),
        "time_bin_s": np.broadcast_to(times[:, None], shape),
        "initial_age_s": np.full(shape, 0.1),
        "level_s": np.broadcast_to(level, shape),
    }
    return Measured(
        "late", "relaxation", {n: np.array(v, dtype=np.float64).ravel() for n, v in columns.items()}
    )


@pytest.mark.parametrize("levels", [[10e-6, 40e-6, 100e-6], [30e-6]])
def test_relaxation_that_was_first_read_late_keeps_its_spread(levels: list[float]) -> None:
    truth = DeviceModel.load(DEFAULT_PRESET)
    file = _late(truth, 900, levels, 5)
    model = fit([file], "late", lambda text: None)
    others = [_late(of, 3000, levels, 6) for of in (truth, model)]
    for t in (1.0, 10.0, 100.0):
        true, fitted = (
            float(np.std((one["g_s"] - one["g_initial_s"])[one["time_bin_s"] == t]))
            for one in others
        )
        assert fitted == pytest.approx(true, rel=0.12)


def test_the_command_line_fits_checks_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = _truth()
    forming, relaxation = (
        _forming(tmp_path / "f.csv", truth),
        _relaxation(tmp_path / "r.csv.gz", truth),
    )
    model, page = tmp_path / "model.toml", tmp_path / "page.html"
    fitted = _run(
        ["calibrate", "device-model", str(forming), str(relaxation), "-o", str(model)], capsys
    )
    assert fitted[0] == 0
    assert "fitted in" in fitted[1]
    assert _run(["calibrate", "device-model", str(forming), "-o", str(model)], capsys)[0] == 2
    checked = ["calibrate", "check", str(model), str(forming), str(relaxation)]
    code, out, _ = _run([*checked, "--json", "--report", str(page)], capsys)
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "pass"
    assert found["passed"] >= 0.9 * found["judged"] > 10
    assert {file["kind"] for file in found["files"]} == {"forming", "relaxation"}
    drawn = page.read_text(encoding="utf-8")
    assert drawn.count("<svg") == 5
    assert "http" not in drawn.split("</head>")[1]
    code, out, _ = _run(checked, capsys)
    assert code == 0
    assert "bl_mean" in out
    assert "pass" in out.splitlines()[-1]
    before = model.read_text(encoding="utf-8")
    again = ["calibrate", "device-model", str(forming), "-o", str(model), "--force"]
    assert _run(again, capsys)[0] == 0
    assert model.read_text(encoding="utf-8") != before


def test_a_model_that_predicts_badly_fails_the_check_and_a_bad_file_gives_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forming = _forming(tmp_path / "f.csv", _truth())
    code, out, _ = _run(["calibrate", "check", "paper", str(forming)], capsys)
    assert code == 1
    assert "wanted): fail" in out
    assert "Misses by kind: forming " in out
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    code, _, err = _run(["calibrate", "check", "paper", str(tmp_path / "bad.csv")], capsys)
    assert code == 2
    assert len(err.strip().splitlines()) == 1


@measured
@pytest.mark.skipif(not METRICS.is_file(), reason="the figures' reference script is not here")
def test_the_figures_are_those_of_the_reference_script() -> None:
    pytest.importorskip("pandas")
    spec = importlib.util.spec_from_file_location("twin_metrics", METRICS)
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for path in sorted(MEASURED.glob("*.csv.gz")):
        (file,) = read_measured(path)
        if file.kind == "write-verify":
            continue
        if file.kind == "sweep":
            found = key_figures.sweep_figures(key_figures.curves(file))
        elif file.kind == "relaxation":
            t, g0 = file["time_bin_s"], file["g_initial_s"]
            found = key_figures.relax_figures(t, g0, file["g_s"], key_figures.band_edges_us(t, g0))
        elif file.kind == "forming":
            found = key_figures.form_figures(file["bl_v"], file["r_after_ohm"])
        else:
            found = key_figures.cycle_figures(file["r_hrs_ohm"], file["r_lrs_ohm"])
        np.testing.assert_allclose(
            list(found.values()), list(reference.figures(path).values()), rtol=1e-9
        )


@measured
def test_the_shipped_preset_predicts_the_measured_relaxation_and_forming() -> None:
    found = check_files(
        DeviceModel.load(DEFAULT_PRESET),
        [MEASURED / "relaxation_techC.csv.gz", MEASURED / "forming_chip1.csv.gz"],
    )
    good, judged = passed(found)
    assert judged == 27
    assert good >= 25


@pytest.mark.long
@measured
def test_the_preset_with_cells_that_do_not_open_predicts_the_write_verify_of_its_fit() -> None:
    found = check_files(
        DeviceModel.load("hfo2-measured-2bit"), sorted(MEASURED.glob("ispp_2bit_wlstep_*"))
    )
    good, judged = passed(found)
    assert judged == 36
    assert good >= 32


@pytest.mark.slow
@pytest.mark.timeout(600)
@measured
@pytest.mark.parametrize("seed", [1, 2])
def test_a_fit_on_half_of_the_cells_predicts_the_other_half(seed: int, tmp_path: Path) -> None:
    paths: dict[bool, list[Path]] = {True: [], False: []}
    for path in sorted(MEASURED.glob("*.csv.gz")):
        (file,) = read_measured(path)
        if file.kind == "write-verify" and "wlstep" not in path.name:
            continue
        chosen = np.random.default_rng(seed).permutation(file.cells)[: file.cells.size // 2]
        mine = np.isin(file["cell"], chosen)
        for seen, rows in ((True, mine), (False, ~mine)):
            part = file.part(rows)
            folder = tmp_path / str(seen)
            folder.mkdir(exist_ok=True)
            paths[seen].append(_write(folder / path.name, part.columns))
    good, judged = passed(check_files(fit_files(paths[True]), paths[False]))
    assert good >= 0.8 * judged
