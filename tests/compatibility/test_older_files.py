"""What 0.1.0 wrote before the modules moved into rooms still opens, and says what it said then.

`files/README.md` tells how the files were written; `files/figures.json` has the figures of then.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil import Bench, __version__, read, read_run, run_recipe
from rram_hil.array import Cells
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.plugins import driver_class, protocol_class
from rram_hil.bench.recipe import load_recipe
from rram_hil.cli import main
from rram_hil.corrections.calibration_file import load, parse
from rram_hil.networks.network import Network
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.model import DeviceModel
from rram_hil.storage.frames import Header, StepStart
from rram_hil.storage.journal import read_journal
from rram_hil.storage.ledger import Ledger
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_writer import write_run_file
from rram_hil.wire.recording import Playback, read_traffic

FILES = Path(__file__).parent / "files"
FIGURES: dict[str, Any] = json.loads((FILES / "figures.json").read_text(encoding="utf-8"))

same_version = pytest.mark.skipif(
    __version__ != "0.1.0", reason="a run goes on only with the version that began it"
)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The files of then, unpacked into a folder of the test's own."""
    folder = tmp_path / "older"
    shutil.copytree(FILES, folder)
    for packed in folder.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    return folder


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def assert_same(run: RunFile, then: dict[str, Any], notes: bool = True) -> None:
    """The run file says what it said then: steps, tables, maps and results."""
    assert run.status == then["status"]
    steps = run.table("steps")
    assert steps["name"].tolist() == then["steps"]
    assert steps["protocol"].tolist() == then["protocols"]
    rows = {name: run.rows(name) for name in run.tables}
    free = set() if notes else {"notes", "settings"}
    assert {n: c for n, c in rows.items() if n not in free} == {
        n: c for n, c in then["rows"].items() if n not in free
    }
    maps = run.map("conductance").values[:, 0, :4, :4]
    np.testing.assert_allclose(maps * 1e6, np.array(then["maps_uS"], float), rtol=1e-6, atol=1e-6)
    results = {f"{step}/{name}": run.result(step, name).values for step, name in run.result_names}
    assert set(results) == set(then["sums"])
    for name, (shape, total) in then["sums"].items():
        assert list(results[name].shape) == shape, name
        assert np.nansum(results[name]) == pytest.approx(total, rel=1e-6, abs=1e-12), name


def test_a_run_file_opens(older: Path) -> None:
    with read_run(older / "run" / "run.h5") as run:
        assert_same(run, FIGURES["run"])
        assert run.chip_id == "kept"
        assert list(run.calibrations) == ["converters.toml"]
        (text,) = run.calibrations.values()
        assert parse(text) == load(older / "calibration" / "converters.toml")


def test_show_and_export_take_a_run_file(
    older: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(older / "run")
    assert command("show", "run.h5") == 0
    shown = capsys.readouterr().out
    for word in ("complete", "kept", "3 write-verify", "4 dc-sweep", "converters.toml"):
        assert word in shown
    assert command("export", "run.h5", "--csv", "tables", "--npz", "arrays.npz") == 0
    then = FIGURES["run"]
    assert {p.stem for p in Path("tables").iterdir()} == set(then["rows"])
    with open("tables/cells.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == then["rows"]["cells"] + 1
    with np.load("arrays.npz", allow_pickle=False) as arrays:
        exported = arrays["maps/conductance"][:, 0, :4, :4] * 1e6
    np.testing.assert_allclose(exported, np.array(then["maps_uS"], float), rtol=1e-6, atol=1e-6)


def test_a_journal_gives_the_run_file_again(older: Path) -> None:
    journal = older / "run" / "run.h5.journal"
    write_run_file(journal, older / "again.h5")
    with read_run(older / "again.h5") as run:
        assert_same(run, FIGURES["run"])


@pytest.mark.parametrize("folder", ["run", "cut"])
def test_protocols_and_drivers_that_a_journal_names_are_there(older: Path, folder: str) -> None:
    frames = list(read_journal(older / folder / "run.h5.journal"))
    (header,) = (f for f in frames if isinstance(f, Header))
    assert header.package_version == "0.1.0"
    started = {f.protocol for f in frames if isinstance(f, StepStart)}
    assert started <= set(header.protocols) == set(FIGURES["run"]["protocols"])
    for name, version in header.protocols.items():
        assert str(protocol_class(name).version) == version
    bench = load_bench_file(older / folder / "bench.toml")
    assert bench.text == header.bench
    assert driver_class(bench.driver.name)
    recipe = load_recipe(older / folder / "recipe.toml")
    assert recipe.text == header.recipe
    assert [step.name for step in recipe.steps] == FIGURES["run"]["steps"]


@pytest.mark.parametrize("group", FIGURES["entry_points"])
def test_no_name_of_an_entry_point_is_gone(group: str) -> None:
    assert set(FIGURES["entry_points"][group]) <= set(entry_points(group=group).names)


@same_version
def test_a_run_that_was_cut_goes_on_to_its_end(
    older: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its journal holds is as it was then; what is run now takes the time of the link too, in
    which cells relax, and so gives other numbers.
    """
    monkeypatch.chdir(older / "cut")
    monkeypatch.setenv("COLUMNS", "100")
    assert command("show", "run.h5") == 0
    assert "interrupted" in capsys.readouterr().out
    assert (
        command("run", "recipe.toml", "--bench", "bench.toml", "--out", "run.h5", "--resume") == 0
    )
    then = FIGURES["resumed"]
    with read_run("run.h5") as run:
        assert run.status == then["status"]
        steps = run.table("steps")
        assert steps["name"].tolist() == then["steps"]
        maps = run.map("conductance").values[:2, 0, :4, :4]
        np.testing.assert_allclose(
            maps * 1e6, np.array(then["maps_uS"][:2], float), rtol=1e-6, atol=1e-6
        )
        for name, (shape, total) in then["sums"].items():
            step, saved = name.split("/")
            values = run.result(step, saved).values
            assert list(values.shape) == shape or not name.startswith("1_")
            assert np.nansum(values) == pytest.approx(total, rel=1e-6) or not name.startswith("1_")
        pulses = int(steps["pulses"].sum())
    assert int(np.load("cut.ledger.npy").sum()) == pulses


@same_version
def test_a_complete_run_is_answered_by_its_journal(older: Path) -> None:
    here = older / "run"
    run_recipe(here / "recipe.toml", here / "bench.toml", here / "run.h5", resume=True)
    with read_run(here / "run.h5") as run:
        assert_same(run, FIGURES["run"], notes=False)


def test_a_recording_plays_back(older: Path) -> None:
    here = older / "run"
    _, events = read_traffic(here / "session.jsonl")
    (port,) = {event.link for event in events}
    text = (here / "bench.toml").read_text(encoding="utf-8")
    head, _, rest = text.partition("[simulation]")
    name = '"test-chip-board"'
    real = head.replace(name, f'{name}\nport = "{port}"') + rest[rest.index("[calibration]") :]
    (here / "real.toml").write_text(real, encoding="utf-8")
    (here / "kept.ledger.npy").unlink()
    playback = Playback(here / "session.jsonl")
    run_recipe(here / "recipe.toml", here / "real.toml", here / "played.h5", traffic=playback)
    assert playback.left() == 0
    with read_run(here / "played.h5") as run:
        assert_same(run, FIGURES["run"])


@pytest.mark.parametrize(("folder", "chip"), [("run", "kept"), ("cut", "cut")])
def test_a_ledger_and_a_chip_s_state_open_and_agree(older: Path, folder: str, chip: str) -> None:
    bench = load_bench_file(older / folder / "bench.toml")
    assert bench.simulation is not None
    simulated = SimulatedChip(
        bench.chip.geometry,
        bench.simulation,
        read_v=bench.limits.read_v,
        chip_id=chip,
        folder=bench.folder,
    )
    with closing(Ledger(bench.ledger_path, bench.chip.geometry, chip, limit=1000)) as ledger:
        counts = np.asarray(ledger.counts).reshape(8, 8)
    pulses = np.asarray(simulated.pulses).reshape(8, 8)
    assert np.all(counts >= pulses)
    assert pulses.sum() > 100
    if folder == "run":
        assert counts[:4, :4].tolist() == pulses[:4, :4].tolist() == FIGURES["run"]["pulses"]


def test_a_bench_goes_on_with_ledger_state_and_calibration(older: Path) -> None:
    with Bench.open(older / "run" / "bench.toml") as bench:
        cells = Cells.of([(0, 1, 0), (0, 3, 1)])
        now = bench.do(read(cells)).last_s
    then = np.array(FIGURES["run"]["maps_uS"][-1], float)[[1, 3], [0, 1]]
    np.testing.assert_allclose(now * 1e6, then, rtol=0.1)


@pytest.mark.parametrize("name", FIGURES["digests"])
def test_the_digest_of_a_preset_is_what_it_was(name: str) -> None:
    assert DeviceModel.load(name).digest == FIGURES["digests"][name]


def test_a_model_file_opens(older: Path) -> None:
    model = DeviceModel.load("model.toml", older)
    assert model.digest == FIGURES["digests"]["hfo2-measured"]


CALIBRATIONS = {
    "converters": ("board-converters", "adc_gain", 0.013244775762348837),
    "arrays-beside": ("board-converters", "adc_gain", 0.25),
    "leads": ("leads", "series_ohm", 12.141943334175489),
    "lines": ("lines", "line_ohm", 2.010165602498958),
    "source-meter": ("source-meter", "offset_a", 4.1250000000000006e-15),
}


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_a_calibration_file_of_each_kind_opens(older: Path, name: str) -> None:
    kind, value, number = CALIBRATIONS[name]
    path = older / "calibration" / f"{name}.toml"
    file = load(path)
    assert (file.kind, file.version) == (kind, 1)
    assert file.value(value) == pytest.approx(number, rel=1e-12)
    if name == "arrays-beside":
        columns = file.list_of("column_gain")
        assert columns is not None
        np.testing.assert_allclose(columns, 1e-3 * np.arange(80))
        assert file.date == datetime(2026, 1, 1, tzinfo=UTC)
    else:
        assert file.print() == path.read_text(encoding="utf-8")


def test_a_network_opens(older: Path) -> None:
    pytest.importorskip("safetensors")
    network = Network.load(older / "network.safetensors")
    assert [layer.name for layer in network.layers] == ["first", "on", "last"]
    np.testing.assert_array_equal(network.weights["first"], np.arange(12).reshape(3, 4) / 8)
    np.testing.assert_array_equal(network.biases["last"], [0.0, 0.5])
