"""The study of programming methods, from its file to its tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("joblib", reason="studies need the extra [study]")

from rram_hil.cli import main
from rram_hil.errors import ConfigError
from rram_hil.storage.safe_files import disk
from rram_hil.studies.jobs import Done
from rram_hil.studies.programming.figures import FIGURES, REASONS
from rram_hil.studies.programming.jobs import MethodRecord
from rram_hil.studies.programming.plan import Place, PlannedProgramming, plan_programming
from rram_hil.studies.programming.plots import draw_methods
from rram_hil.studies.programming.results import collect_methods, write_methods
from rram_hil.studies.programming.study import parse_programming, usual_study
from rram_hil.studies.programming.tables import methods_markdown
from rram_hil.studies.store import Store

PULSES = {"amplitude_v": 2.0, "gate_v": 1.8, "width_s": 2e-7}
ISPP = {
    "name": "ISPP",
    "protocol": "ispp",
    "set": PULSES | {"step_v": 0.1, "stop_v": 3.5},
    "reset": PULSES | {"amplitude_v": 3.0, "gate_v": 4.0},
}
WINDOWS = {"name": "x", "windows_ohm": [[0, 5e3], [8e3, 9e3]]}


def tables(**more: Any) -> dict[str, Any]:
    """A study of one method."""
    return {
        "chips": 2,
        "repeats": 2,
        "devices": ["hfo2", "A"],
        "targets": [
            {"name": "2-bit", "windows_ohm": [[0, 5e3], [8e3, 9e3]], "scale": {"A": 2.0}},
            {"name": "continuous"},
        ],
        "method": [ISPP],
    } | more


def planned(folder: Path = Path(), **more: Any) -> PlannedProgramming:
    return plan_programming(parse_programming(tables(**more), "here"), folder)


def test_every_method_meets_the_same_chips_and_targets() -> None:
    plan = planned(method=[ISPP, ISPP | {"name": "once more", "confirm": 3}])
    assert len(plan.table) == 2 * 2 * 2 * 2 * 2
    assert sum(job.kind == "forming" for job in plan.jobs) == 2 * 2
    for place, job in plan.table.items():
        twin = plan.table[place._replace(method="once more")]
        assert job.work.drawn == twin.work.drawn
        assert job.work.bench == twin.work.bench
        assert job.needs["formed.zip"].key == twin.needs["formed.zip"].key
        assert (job.key == twin.key) == (place.method == "once more")
    seeds = {job.work.drawn.seed for place, job in plan.table.items() if place.device == "A"}
    assert len(seeds) == 4


def test_windows_are_those_of_the_device() -> None:
    plan = planned()
    drawn = {d: plan.table[d, "2-bit", "ISPP", 1, 0].work.drawn for d in ("hfo2", "A")}
    assert drawn["hfo2"].low_s == pytest.approx((200e-6, 1 / 9e3))
    assert drawn["A"].low_s == pytest.approx((100e-6, 1 / 18e3))
    assert drawn["A"].high_s[0] is None
    assert plan.table["hfo2", "continuous", "ISPP", 1, 0].work.drawn.range_s == (20e-6, 200e-6)


def test_budgets_are_those_of_the_study_but_for_a_methods_own() -> None:
    plan = planned(max_pulses=77, method=[ISPP, ISPP | {"name": "own", "max_pulses": 5}])
    for method, pulses in (("ISPP", 77), ("own", 5)):
        recipe = plan.table["A", "2-bit", method, 1, 0].work.recipe
        assert re.findall(r"max_pulses = (\d+)", recipe) == [str(pulses)]


def test_a_method_knows_the_model_of_its_device(tmp_path: Path) -> None:
    file = "method.py"
    (tmp_path / file).write_text(
        "from rram_hil.protocols.ispp import Ispp\n\n\n"
        "class Knowing(Ispp):\n    model: str\n\n"
        "    def input_files(self):\n        return ('notes.txt', *super().input_files())\n"
    )
    (tmp_path / "notes.txt").write_text("mine")
    own = ISPP | {"protocol": f"./{file}:Knowing", "model": "device.model"}
    plan = planned(tmp_path, method=[own])
    job = plan.table["A", "2-bit", "ISPP", 1, 0]
    assert 'model = "paper"' in job.work.recipe
    assert set(job.inputs) == {file, "notes.txt"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": [ISPP | {"tolerances": 1}]}, r"method 'ISPP' \(ispp\): .*tolerances.*unknown"),
        ({"method": [ISPP | {"protocol": "isp"}]}, "did you mean ispp"),
        ({"method": [ISPP, ISPP]}, "method: 'ISPP' stands there more than once"),
        ({"devices": ["B2"]}, "devices: 'B2' is unknown"),
        ({"targets": [{"name": "x", "windows_ohm": [[0, 2], [1, 3]]}]}, "may not overlap"),
        ({"targets": [{"name": "x", "windows_ohm": [[2, 1], [3, 4]]}]}, "0 <= low < high"),
        ({"targets": [{"name": "x", "range_s": [2e-6, 1e-6]}]}, r"\[lowest, highest\] conductance"),
        *(
            ({"targets": [WINDOWS | {"scale": {"A": scale}}]}, r"targets\.0\.scale\.A: .* is wrong")
            for scale in (0.0, -1.0, np.nan, np.inf)
        ),
        ({"targets": [WINDOWS | {"scale": {"hfo": 2.0}}]}, "x, scale: 'hfo' is unknown.*mean hfo2"),
        ({"targets": [{"name": "x", "tolerance": 0, "tolerance_s": 0}]}, "may not both be 0"),
        *(
            ({"method": [ISPP | {key: 0.1}]}, rf"method\.0: {key} is no key of a method")
            for key in ("targets", "tolerance", "tolerance_s", "select")
        ),
    ],
)
def test_studies_that_cannot_be_are_refused_in_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        planned(**change)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """One method has its two runs on chip 1 of device A, of either target set."""
    plan = planned()
    with Store(tmp_path / "jobs") as store:
        for targets in ("2-bit", "continuous"):
            for run in (0, 1):
                figures = dict.fromkeys(FIGURES, 1.0 + run) | dict.fromkeys(REASONS, 0.0)
                figures |= {"inside": 0.9, "never_opened": 0.1}
                other = "rms_error_s" if targets == "2-bit" else "bit_error"
                figures = {k: v for k, v in figures.items() if not k.startswith(other)}
                record = MethodRecord(title="t", host_s=1.0, figures=figures)
                store.keep(plan.table[Place("A", targets, "ISPP", 1, run)], Done(record))
        yield store


def test_tables_show_means_of_the_runs_and_why_cells_are_not_inside(store: Store) -> None:
    text = methods_markdown(collect_methods(planned(), store))
    assert "hfo2" not in text
    assert text.count("| ISPP | 2 | 90.00 % | never opened 10.00 % | 150.00 % |") == 2
    assert "| method | bit errors | after 1 s |" in text
    assert "| method | rms error | after 1 s |" in text
    assert text.count("| ISPP | 1.5 | 1.5 | 1.5 | 1.5 | 1.5 | 1.5 | 1.5 | 1.5 |") == 2


def test_xarray_opens_the_results_of_methods(store: Store, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    write_methods(collect_methods(planned(), store), tmp_path / "results.h5")
    with xarray.open_dataset(tmp_path / "results.h5", engine="h5netcdf") as found:
        assert found.pulses_mean.dims == ("device", "targets", "method_name", "chip", "run")
        mine = found.sel(device="A", targets="2-bit", method_name="ISPP")
        np.testing.assert_array_equal(mine.pulses_mean, [[1, 2], [np.nan, np.nan]])
        assert np.isnan(mine.rms_error_s_at_once).all()
        assert found.energy_j.attrs["units"] == "J"
        assert np.isnan(found.inside.sel(device="hfo2")).all()


def test_plots_of_methods_are_pictures(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with disk(str(tmp_path)):
        (tmp_path / "errors-gone.png").touch()
    drawn = draw_methods(collect_methods(planned(), store), tmp_path)
    kinds = ("pulses-A-2-bit", "errors-A-2-bit", "pulses-A-continuous", "errors-A-continuous")
    assert [path.stem for path in drawn] == list(kinds)
    assert sorted(tmp_path.glob("*.png")) == sorted(drawn)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_study_of_the_package_can_be_planned_and_narrowed() -> None:
    whole = usual_study()
    names = [method.name for method in whole.method]
    assert plan_programming(whole).jobs
    some = usual_study(names[1:2], ["hfo2"], 3)
    assert ([m.name for m in some.method], some.devices, some.chips) == (names[1:2], ["hfo2"], 3)
    with pytest.raises(ConfigError, match="--methods: 'R-V' is unknown; there is: R-V-W, "):
        usual_study(["R-V"])


def test_commands_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('devices = ["A"]\n[[method]]\nname = "x"\nprotocol = "ispp"\n')
    for arguments, told in (
        (["programming", "--arms", "KD"], "--arms goes with `paper`"),
        (["programming", "--methods", "None"], "--methods: 'None' is unknown"),
        (["paper", "--model", "digits", "--methods", "ISPP"], "goes with `programming`"),
        ([str(mine), "--methods", "x"], "mine.toml says its own"),
        ([str(mine)], "targets: missing"),
        ([str(mine), "--data", str(tmp_path)], "needs none"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["study", *arguments, "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert told in line


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_study_of_the_page_runs_as_it_stands_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/studies.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(# mine\.toml\n.*?)```", page, re.DOTALL)
    Path("mine.toml").write_text(text)
    folder = tmp_path / "rram-hil-study-mine"

    def study(*more: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["study", "mine.toml", "--workers", "1", *more])
        assert not ended.value.code
        return capsys.readouterr().out

    # The forming alone, then the rest.
    assert "1 of 5 jobs are done: resume by the same command" in study("--minutes", "1e-3")
    assert "ISPP, read again" in study()
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(folder / "results.h5", engine="h5netcdf") as results:
        own = results.squeeze()
        assert (own.cells > 250).all()
        assert (own.inside > 0.8).all()
        assert (own.pulses_p99 <= 100).all()
        total = own.set_pulses_mean + own.reset_pulses_mean
        np.testing.assert_allclose(own.pulses_mean, total)
        once, again = (own.sel(method_name=name) for name in ("ISPP", "ISPP, read again"))
        # Every pulse is followed by a reading, and one comes before the first.
        np.testing.assert_allclose(once.reads_mean, once.pulses_mean + 1)
        assert (again.reads_mean > again.pulses_mean + 1.8).all()
        assert (again.moved_out < once.moved_out).all()
        reasons = sum(own[name] for name in REASONS)
        np.testing.assert_allclose(own.inside + reasons, 1)
        levels, continuous = (own.sel(targets=name) for name in ("2-bit", "continuous"))
        assert (levels.bit_error_rate_at_once < 0.05).all()
        assert (continuous.rms_error_s_at_once < 30e-6).all()
        assert np.isnan(levels.rms_error_s_at_once).all()
        assert (own.outside_after_1_day > own.outside_at_once).all()
        assert (own.disturbed < 0.01).all()
        assert (own.energy_j > 1e-12).all()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    table = (folder / "table.md").read_text(encoding="utf-8")
    study()
    assert {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()} == kept
    assert (folder / "table.md").read_text(encoding="utf-8") == table
