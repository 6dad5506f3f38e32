"""Run files as measurements of the device model: what each protocol was told to do and read is what
a fit and a check are given.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import write_run
from small_bench import WHOLE, bench_toml

from rram_hil import cli
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.calibration.device_fit.fitting import fit
from rram_hil.calibration.device_fit.measured_files import Measured
from rram_hil.calibration.device_fit.prediction import check_file
from rram_hil.calibration.device_fit.run_files import _Batch, _pulses, _ramps, measured_of_run
from rram_hil.calibration.device_model import check_files, fit_files, passed
from rram_hil.errors import DataError
from rram_hil.simulation.model import DeviceModel
from rram_hil.storage.run_reader import read_run
from rram_hil.storage.run_state import journal_of
from rram_hil.storage.run_writer import write_run_file
from rram_hil.types import FloatArray

STUCK = """
name = "stuck"
base = "hfo2-measured"

[stuck]
low_resistance = 0.06
high_resistance = 0.06
"""
PULSES = """\
set = { bl_v = 2.0, wl_v = 2.7, width_s = 2e-7 }
reset = { sl_v = 3.0, wl_v = 4.0, width_s = 1e-7 }
"""
SWEEP = """
[[step]]
protocol = "dc-sweep"
cells = { rows = [0, 1] }
width_s = 2e-7
set = { start_v = 0.4, stop_v = 1.84, step_v = 0.12, wl_v = 3.0 }
reset = { start_v = 0.5, stop_v = 2.9, step_v = 0.2, wl_v = 4.0 }
"""
RECIPE = f"""
title = "a chip's own"
seed = 1

[[step]]
protocol = "forming"
bl_v = {{ start_v = 2.4, stop_v = 3.6, step_v = 0.1 }}
width_s = 5e-7
{SWEEP}cycles = 3
measure = "after"

[[step]]
protocol = "pulse-response"
cells = {{ rows = [2, 3] }}
cycles = 2
{PULSES}
potentiation = {{ pulses = 14, bl_v = 2.0, wl_v = 1.7, wl_step_v = 0.1, width_s = 1e-7 }}
depression = {{ pulses = 12, sl_v = 0.6, sl_step_v = 0.2, wl_v = 4.0, width_s = 2e-7 }}
set_wl_v = {{ start_v = 2.0, stop_v = 3.0, points = 3 }}

[[step]]
protocol = "endurance"
cells = {{ rows = [4, 6] }}
cycles = 30
{PULSES}

[[step]]
name = "keep"
protocol = "retention"
cells = {{ rows = [7, 12] }}
levels_s = [20e-6, 60e-6]
set.amplitude_v = {{ start_v = 2.0, stop_v = 2.0 }}
set.gate_v = {{ start_v = 1.8, stop_v = 3.2, step_v = 0.05 }}
set.width_s = 2e-7
reset.amplitude_v = {{ start_v = 0.5, stop_v = 3.0, step_v = 0.1 }}
reset.gate_v = {{ start_v = 4.0, stop_v = 4.0 }}
reset.width_s = 2e-7
last_s = 100

[[step]]
protocol = "read-noise"
cells = {{ rows = [8, 9] }}
reads = 64

[[step]]
name = "a train that does not rise"
protocol = "pulse-response"
cells = {{ rows = [2, 3] }}
{PULSES}
potentiation = {{ pulses = 4, bl_v = 2.0, wl_v = 2.0, width_s = 1e-7 }}
{SWEEP}name = "at the levels"
{SWEEP.replace(".0 }", ".0, compliance_a = 1e-4 }")}name = "under a compliance"
measure = "after"
"""
RESULTS = {
    "forming": "1 forming",
    "sweep SET": "2 dc-sweep, SET by BL",
    "sweep RESET": "2 dc-sweep, RESET by SL",
    "train SET": "3 pulse-response, SET by WL",
    "train RESET": "3 pulse-response, RESET by SL",
    "cycling": "4 endurance",
    "relaxation": "5 keep",
    "noise": "6 read-noise",
}
"""What the run above has for a fit: steps 7 to 9 are of no use."""


def ran(folder: Path, recipe: str, device: str = "hfo2-measured") -> Path:
    """The file of a run of a 16 x 16 chip."""
    told = f'device = "{device}"\nseed = 3'
    bench = bench_toml("own", 16, 16, 100_000, limits=WHOLE, simulation=told)
    (folder / "bench.toml").write_text(bench, encoding="utf-8")
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    return run_recipe(folder / "recipe.toml", folder / "bench.toml", folder / "run.h5").run_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe above on a chip some of whose cells are stuck."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "stuck.toml").write_text(STUCK, encoding="utf-8")
    return ran(folder, RECIPE, "stuck.toml")


@pytest.fixture(scope="module")
def found(run: Path) -> Mapping[str, Measured]:
    """What the fit is given of it, by the keys of `RESULTS`."""
    by_name = {one.name: one for one in measured_of_run(run)}
    return {key: by_name[f"run.h5 step {name}"] for key, name in RESULTS.items()}


def saved(run: Path, step: str, name: str) -> FloatArray:
    with read_run(run) as file:
        return np.asarray(file.result(step, name).values, dtype=np.float64)


def flat_map(run: Path, name: str, step: int) -> FloatArray:
    with read_run(run) as file:
        stack = file.map(name)
        values = stack.values[np.flatnonzero(stack.step == step)[-1]]
    return np.asarray(values, dtype=np.float64).ravel()


def stuck_cells(run: Path) -> set[float]:
    with read_run(run) as file:
        names = ("stuck_low_resistance", "stuck_high_resistance")
        marks = sum(file.map(name).values.sum(axis=0) for name in names)
    return set(np.flatnonzero(marks.ravel()).tolist())


def unformed_cells(run: Path) -> set[float]:
    return set(np.flatnonzero(np.isnan(flat_map(run, "forming_gate", 1))).tolist())


def cells_of(run: Path, step: str) -> FloatArray:
    return saved(run, step, "row") * 16 + saved(run, step, "column")


def table(of: Measured, column: str, cells: FloatArray) -> FloatArray:
    """A column as (cells, sweeps, pulses)."""
    rows = [of.of_cells(np.array([cell]))[column] for cell in cells]
    sweeps = np.unique(of["sweep"]).size
    return np.stack(rows).reshape(cells.size, sweeps, -1)


@pytest.mark.long
def test_each_step_of_use_is_a_measurement_under_its_name(
    run: Path, found: Mapping[str, Measured]
) -> None:
    made = measured_of_run(run)
    assert [one.name for one in made] == [f"run.h5 step {name}" for name in RESULTS.values()]
    assert [one.kind for one in made] == [
        "forming",
        *["sweep"] * 4,
        "cycling",
        "relaxation",
        "read-noise",
    ]
    assert found["train SET"].swept == "wl_v"
    assert found["sweep SET"].swept == "bl_v"
    assert found["sweep RESET"].swept == found["train RESET"].swept == "sl_v"


def _told(steps: list[dict[str, Any]], cells: int) -> _Batch:
    settings = {"steps": steps, "compliance_a": None, "stop": None, "repeat": 1}
    readings = sum(step["measure"] != "no" for step in steps)
    return _Batch(settings, np.arange(cells), np.ones((cells, readings)), follows=True)


@given(
    first_v=st.integers(2, 20),
    step_v=st.integers(1, 3),
    levels=st.integers(3, 30),
    line=st.sampled_from(["bl_v", "sl_v", "wl_v"]),
    piece=st.integers(1, 80),
    rounds=st.integers(1, 3),
)
def test_ramps_are_found_however_a_bench_cuts_them(
    first_v: int, step_v: int, levels: int, line: str, piece: int, rounds: int
) -> None:
    """A pulse of the other polarity, the ramp up and down again, a reading after each, in pieces of
    any length.
    """
    up = [round(0.05 * (first_v + k * step_v), 2) for k in range(levels)]
    is_reset = line == "sl_v"
    before = {"bl_v": 2.0, "sl_v": 0.0} if is_reset else {"bl_v": 0.0, "sl_v": 2.0}
    fixed = {"bl_v": 0.0, "sl_v": 0.0, "wl_v": 3.3} | ({"bl_v": 2.2} if line == "wl_v" else {})
    pulses = [before | {"wl_v": 2.0}, *(fixed | {line: v} for v in (*up, *up[-2::-1]))]
    reading = {"bl_v": 0.2, "sl_v": 0.0, "wl_v": 3.0, "width_s": 1e-6, "measure": "current"}
    once = [one for p in pulses for one in ({**p, "width_s": 1e-7, "measure": "no"}, reading)]
    steps = [reading, *once * rounds]
    batches = [_told(steps[k : k + piece], 2) for k in range(0, len(steps), piece)]
    ramps = _ramps(_pulses(batches))
    assert [ramp.swept for ramp in ramps] == [line] * rounds
    for k, ramp in enumerate(ramps):
        np.testing.assert_array_equal(ramp.column(line), up)
        after = [pulse.after for pulse in ramp.pulses]
        assert after == list(range(2 + k * len(pulses), 2 + k * len(pulses) + levels))


def test_forming_is_the_ramp_with_the_first_gate(run: Path, found: Mapping[str, Measured]) -> None:
    volts, gate = (flat_map(run, f"forming_{name}", 1) for name in ("voltage", "gate"))
    first = (gate == 2.0) & np.isfinite(volts)
    of = found["forming"]
    cell = of["cell"].astype(np.int64)
    np.testing.assert_array_equal(of["success"] == 1, first[cell])
    np.testing.assert_array_equal(of["bl_v"], np.where(first, volts, 3.6)[cell])
    np.testing.assert_allclose(
        of["r_after_ohm"][of["success"] == 1],
        1 / flat_map(run, "conductance", 1)[cell][first[cell]],
    )
    assert set(np.flatnonzero(first)) <= set(of["cell"]) <= set(range(256)) - stuck_cells(run)
    assert set(of["wl_v"]) == {2.0}
    assert of["pulse_width_ns"] == pytest.approx(500)


def test_sweeps_are_the_rising_branches_but_the_first_set(
    run: Path, found: Mapping[str, Measured]
) -> None:
    volts = saved(run, "2", "voltage")
    up = {"SET": volts[: np.argmax(volts) + 1], "RESET": -volts[volts < 0][:13]}
    low = saved(run, "2", "low_resistance_conductance_by_cycle")
    all_cells = cells_of(run, "2")
    for name, sweeps, column, wl_v in (("SET", 2, "bl_v", 3.0), ("RESET", 3, "sl_v", 4.0)):
        of = found[f"sweep {name}"]
        cells = of.cells
        assert of.rows == cells.size * sweeps * up[name].size
        np.testing.assert_allclose(table(of, column, cells)[0, 0], up[name])
        np.testing.assert_allclose(np.unique(of.levels), up[name])
        assert set(of["wl_v"]) == {wl_v}
        assert of["pulse_width_ns"] == pytest.approx(200)
        before, after = (table(of, f"r_{side}_ohm", cells) for side in ("before", "after"))
        np.testing.assert_array_equal(before[:, :, 1:], after[:, :, :-1])
        if name == "RESET":
            mine = np.isin(all_cells, cells)
            np.testing.assert_allclose(before[:, :, 0], 1 / low[mine])


def test_trains_that_rise_are_sweeps_of_the_cells_that_respond(
    run: Path, found: Mapping[str, Measured]
) -> None:
    cells = cells_of(run, "3")
    responds = flat_map(run, "responds", 3)[cells.astype(np.int64)] == 1
    responds &= ~np.isin(cells, list(unformed_cells(run)))
    for name, train, first_v, pulses in (
        ("SET", "potentiation", 1.7, 14),
        ("RESET", "depression", 0.6, 12),
    ):
        of = found[f"train {name}"]
        assert set(of.cells) == set(cells[responds])
        siemens = saved(run, "3", f"{train}_conductance")[responds]
        assert siemens.shape[1:] == (2, 1 + pulses)
        np.testing.assert_allclose(table(of, "r_after_ohm", of.cells), 1 / siemens[:, :, 1:])
        assert of.levels.min() == pytest.approx(first_v)


def test_cycles_are_those_that_endurance_read(run: Path, found: Mapping[str, Measured]) -> None:
    of, counts = found["cycling"], saved(run, "4", "cycle")
    assert set(of["cycles_before"] + 1) == set(counts)
    cells = cells_of(run, "4").tolist()
    at = [cells.index(cell) for cell in of["cell"]]
    when = np.searchsorted(counts, of["cycles_before"] + 1)
    for column, name in (("r_hrs_ohm", "reset"), ("r_lrs_ohm", "set")):
        np.testing.assert_allclose(of[column], 1 / saved(run, "4", f"{name}_conductance")[at, when])
    failed_at = flat_map(run, "failed_at", 4)
    late = failed_at[of["cell"].astype(np.int64)]
    assert np.all((late == 0) | (of["cycles_before"] + 1 < late))
    told = {name: set(of[name]) for name in ("reset_sl_v", "reset_wl_v", "set_bl_v", "set_wl_v")}
    assert told == {"reset_sl_v": {3.0}, "reset_wl_v": {4.0}, "set_bl_v": {2.0}, "set_wl_v": {2.7}}
    assert of["reset_width_ns"] == pytest.approx(100)
    assert of["set_width_ns"] == pytest.approx(200)


def test_relaxation_is_of_the_cells_that_were_kept(
    run: Path, found: Mapping[str, Measured]
) -> None:
    of = found["relaxation"]
    pulses = flat_map(run, "set_pulses", 5) + flat_map(run, "reset_pulses", 5)
    assert set(of.cells) == set(np.flatnonzero((flat_map(run, "kept", 5) == 1) & (pulses > 0)))
    assert set(of["time_bin_s"]) == {1.0, 3.2, 10.0, 32.0, 100.0}
    assert of["seconds"] == pytest.approx(of["time_bin_s"], rel=0.02)
    cells, g = cells_of(run, "5"), saved(run, "5", "conductance_by_time")
    for cell, initial in zip(of["cell"][::7], of["g_initial_s"][::7], strict=True):
        assert initial == g[cells == cell, 0]
    assert np.sort(of["g_s"]) == pytest.approx(np.sort(g[np.isin(cells, of.cells), 1:].ravel()))
    assert np.all((of["initial_age_s"] > 0) & (of["initial_age_s"] < 1))


def test_read_noise_is_that_of_the_cells_that_do_not_switch(
    run: Path, found: Mapping[str, Measured]
) -> None:
    of = found["noise"]
    cell = of["cell"].astype(np.int64)
    quiet = np.flatnonzero(flat_map(run, "telegraph", 6) == 0)
    assert set(of.cells) == (set(range(128, 160)) & set(quiet)) - stuck_cells(run) - unformed_cells(
        run
    )
    np.testing.assert_array_equal(of["g_s"], flat_map(run, "conductance", 6)[cell])
    np.testing.assert_array_equal(of["noise_s"], flat_map(run, "read_noise", 6)[cell])
    assert set(of["reads"]) == {64}
    told: list[str] = []
    model = fit([of], "noise", told.append)
    assert model.read.fraction == pytest.approx(0.004, rel=0.15)
    assert "determined: read noise; kept from" in told[-1]
    assert [one.verdict for one in check_file(model, of).figures] == ["pass", "pass"]


def test_cells_that_are_stuck_or_unformed_do_not_count(
    run: Path, found: Mapping[str, Measured]
) -> None:
    out = stuck_cells(run) | unformed_cells(run)
    assert len(out) > 15
    for key, of in found.items():
        assert not set(of.cells) & (stuck_cells(run) if key == "forming" else out), key


@pytest.mark.long
def test_a_fit_of_a_small_run_is_no_worse_a_twin_than_a_preset_and_says_what_it_kept(
    tmp_path: Path,
) -> None:
    steps = RECIPE.split("\n[[step]]")
    path = ran(tmp_path, "\n[[step]]".join(steps[:3]))
    told: list[str] = []
    model = fit_files([path], "twin", told.append, rounds=1)
    for text in (told[-1], model.about):
        assert "determined: forming, SET, RESET" in text
        assert "kept from hfo2: relaxation, stuck and virgin cells" in text
        assert "kept from published curves: read noise" in text
    assert "run.h5 step 2 dc-sweep, RESET by SL" in model.about
    assert model.relaxation == DeviceModel.load("hfo2").relaxation
    good, judged = passed(check_files(model, [path]))
    of_preset, _ = passed(check_files(DeviceModel.load("paper"), [path]))
    assert judged == 20
    assert good >= of_preset
    assert good > judged / 2


def cut(run: Path, folder: Path, part: float) -> Path:
    """The file of a run that was cut when a part of its journal was written."""
    whole, path = journal_of(run).read_bytes(), folder / "cut.h5"
    journal_of(path).write_bytes(whole[: int(len(whole) * part)])
    write_run_file(journal_of(path), path)
    return path


def test_run_files_and_csv_are_fitted_together(
    run: Path, found: Mapping[str, Measured], tmp_path: Path
) -> None:
    with h5py.File(copied(run, tmp_path / "summary.h5"), "r+") as file:
        del file["cells"]
    columns = found["forming"].columns
    lines = [
        ",".join(columns),
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    (tmp_path / "forming.csv").write_text("\n".join(lines), encoding="utf-8")
    told: list[str] = []
    files = [tmp_path / "forming.csv", tmp_path / "summary.h5"]
    model = fit_files(files, "both", told.append)
    rows = found["forming"].rows
    assert (
        f"forming: thresholds of {2 * rows} cells (forming.csv, summary.h5 step 1 forming)" in told
    )
    assert any(text.startswith("cycles: left alone") for text in told)
    assert "kept from published curves: SET, RESET" in model.about
    assert model.forming.reference_width_s == pytest.approx(500e-9)
    good = found["forming"]["success"] == 1
    mean_v = found["forming"]["bl_v"][good].mean() - 0.05
    assert model.forming.threshold_v == pytest.approx(mean_v, abs=0.01)
    assert [one.name for one in check_files(model, files)][:2] == [
        "forming.csv",
        "summary.h5 step 1 forming",
    ]


TWICE = """
title = "formed in two steps"

[[step]]
name = "low"
protocol = "forming"
bl_v = { start_v = 2.4, stop_v = 3.0, step_v = 0.2 }

[[step]]
name = "high"
protocol = "forming"
bl_v = { start_v = 3.0, stop_v = 3.6, step_v = 0.2 }
conducting_fraction = 1.0

[[step]]
protocol = "read-noise"
reads = 16
"""


def test_cells_of_every_forming_step_count(tmp_path: Path) -> None:
    run = ran(tmp_path, TWICE)
    formed = [set(np.flatnonzero(np.isfinite(flat_map(run, "forming_gate", k)))) for k in (1, 2)]
    assert formed[0] <= set(np.flatnonzero(flat_map(run, "stuck_low_resistance", 2)))
    forming, again, noise = measured_of_run(run)
    assert set(again["cell"][again["success"] == 1]) <= formed[1]
    assert set(noise.cells) == formed[0] | formed[1]
    assert set(forming["cell"][forming["success"] == 1]) <= formed[0]


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copyfile(run, to))


def refused(capsys: pytest.CaptureFixture[str], *files: Path) -> str:
    """What the check says on the error stream: one line."""
    with pytest.raises(SystemExit) as end:
        cli.main(["calibrate", "check", "paper", *map(str, files)])
    assert end.value.code == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    return err


def test_a_run_without_a_step_of_use_is_refused_with_what_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, write_run(tmp_path / "map.h5"))
    for text in ("map.h5", "dc-sweep with measure", "endurance", "(complete): read-map"):
        assert text in said


def test_without_single_readings_only_what_steps_saved_counts(run: Path, tmp_path: Path) -> None:
    with h5py.File(copied(run, tmp_path / "summary.h5"), "r+") as file:
        del file["cells"]
    kinds = [one.kind for one in measured_of_run(tmp_path / "summary.h5")]
    assert kinds == ["forming", "cycling", "relaxation", "read-noise"]


def test_of_an_interrupted_run_what_ended_counts(run: Path, tmp_path: Path) -> None:
    names = [one.name.replace("run", "cut") for one in measured_of_run(run)]
    kept = [one.name for one in measured_of_run(cut(run, tmp_path, 0.5))]
    assert 0 < len(kept) < len(names)
    assert kept == names[: len(kept)]
    with pytest.raises(DataError, match=r"The file holds \(interrupted\): forming"):
        measured_of_run(cut(run, tmp_path, 0.02))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _zero(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(content)


def _no_settings(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["settings"]


def _settings(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["settings/text"][:] = "{"


def _short_map(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["maps/forming_gate/forming_gate"]
        file["maps/forming_gate/forming_gate"] = np.zeros((1, 1, 2, 2))


def _text(path: Path) -> None:
    path.write_text("cell,r_hrs_ohm,r_lrs_ohm\n1,2,3\n", encoding="utf-8")


@pytest.mark.parametrize(
    "harm",
    [_cut, _zero, _no_settings, _settings, _short_map, _text],
    ids=lambda harm: harm.__name__,
)
def test_a_damaged_file_is_one_line(
    run: Path, harm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(copied(run, tmp_path / "harmed.h5"))
    assert "harmed.h5" in refused(capsys, tmp_path / "harmed.h5")


def test_a_run_file_is_known_by_its_content_too(run: Path, tmp_path: Path) -> None:
    check = check_files(DeviceModel.load("paper"), [copied(run, tmp_path / "run.hdf")])
    assert [one.name for one in check] == [f"run.hdf step {name}" for name in RESULTS.values()]
    with pytest.raises(DataError, match="no such file"):
        measured_of_run(tmp_path / "none.h5")
