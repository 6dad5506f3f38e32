from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import storage_scenarios as scenarios

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Multiply,
    MultiplyResult,
    Status,
    read,
    read_step,
)
from rram_hil.errors import DataError
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import Aside, Close, Frame, Intent, Outcome, Resume, Saved
from rram_hil.storage.hdf5 import Column, Table
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_reader import read_run
from rram_hil.storage.run_writer import write_run_file

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of the example journal."""
    folder = tmp_path_factory.mktemp("run")
    scenarios.write_example(folder / "run.journal")
    write_run_file(folder / "run.journal", folder / "run.h5")
    assert sorted(p.name for p in folder.iterdir()) == ["run.h5", "run.journal"]
    return folder / "run.h5"


def project(folder: Path, frames: list[Frame], **changes: object) -> Path:
    with Journal.create(folder / "j", scenarios.header(**changes)) as journal:
        for frame in frames:
            journal.append(frame)
    write_run_file(folder / "j", folder / "run.h5")
    return folder / "run.h5"


def test_who_when_and_what_stand_at_the_root(run: Path) -> None:
    with h5py.File(run) as file:
        said = dict(file.attrs)
    header = scenarios.header()
    assert said["Conventions"].startswith("CF-")
    for name in (
        "chip_id",
        "die",
        "lot",
        "operator",
        "temperature_k",
        "bench",
        "recipe",
        "seed",
        "git_revision",
        "clock",
    ):
        assert said[name] == getattr(header, name)
    assert said["status"] == "complete"
    assert said["started_utc"] == said["ended_utc"] == scenarios.UTC
    assert said["recipe_sha256"] == header.recipe_hash
    assert said["protocols"] == "read-map 1"
    assert (said["instrument_model"], said["instrument_serial"]) == ("board", "7")
    assert said["calibration_smu"] == "2026-01-01"
    assert said["version_numpy"] == np.__version__
    assert said["resumed"] == 1


def test_the_status_follows_the_last_close(tmp_path: Path) -> None:
    frames: list[Frame] = []
    expected = {0: "interrupted", 1: "aborted", 2: "interrupted", 3: "complete"}
    for k, frame in enumerate(
        [None, Close("aborted", "u"), Resume("u", scenarios.BOARD), Close("complete", "u")]
    ):
        frames += [frame] if frame else []
        folder = tmp_path / str(k)
        folder.mkdir()
        with read_run(project(folder, frames)) as file:
            assert file.status == expected[k]


def test_every_operation_is_one_row(run: Path) -> None:
    with read_run(run) as file:
        table = file.operations()
        settings = file.table("settings")["text"]
    assert table["operation"].tolist() == list(range(1, 9))
    assert table["kind"].tolist() == [
        *["Apply"] * 3,
        "Program",
        "Multiply",
        "Multiply",
        "WriteWords",
        "Apply",
    ]
    assert table["label"].tolist()[:4] == ["read", "noise", "kick", "rvw"]
    assert table["outcome"].tolist() == [*["done"] * 7, "no_result"]
    assert table["cells"].tolist() == [24, 2, 2, 2, 12, 12, 2, 2]
    assert table["charged"].tolist() == [0, 0, 2, 60, 0, 0, 0, 2]
    assert table["pulses"].tolist() == [0, 4, 2, 3, 0, 0, 0, 0]
    assert table["reads"].tolist() == [24, 6, 0, 3, 0, 0, 0, 0]
    assert table["saturated"][4] == 1
    assert table["lsb_a"][4] == 1e-9
    assert np.isnan(table["ended_s"][-1])
    assert '"bl_v": 0.2' in settings[table["settings"][0]]
    assert table["settings"][2] == table["settings"][7]


def test_cells_lists_every_measured_value_and_every_pulse(run: Path) -> None:
    with read_run(run) as file:
        table = file.table("cells")
        assert file.rows("cells") == table["row"].size == 24 + 4 + 2 + 2
        part = file.table("cells", slice(24, 28), ["operation", "measurement"])
    assert part["operation"].tolist() == [2, 2, 2, 2]
    assert part["measurement"].tolist() == [0, 1, 2, 0]
    first = table["operation"] == 1
    np.testing.assert_array_equal(table["current_a"][first], np.arange(24) * 1e-6)
    np.testing.assert_array_equal(table["row"][first], Cells.all(scenarios.GEOMETRY).row)
    kick = table["operation"] == 3
    assert table["status"][kick].tolist() == ["not_run", "not_run"]
    programmed = table["operation"] == 4
    assert table["set_pulses"][programmed].tolist() == [0, 1]
    assert table["reset_pulses"][programmed].tolist() == [0, 2]
    assert table["inside"][programmed].tolist() == [1, 0]
    with read_run(run) as file:
        pulses = file.operations()["pulses"]
    for number in range(1, 5):
        assert table["pulses"][table["operation"] == number].sum() == pulses[number - 1]


def test_codes_list_the_multiplications_that_were_kept_in_full(run: Path) -> None:
    with read_run(run) as file:
        codes = file.table("codes")
    assert set(codes["operation"]) == {5}
    assert codes["code"].tolist() == list(range(8))
    assert codes["word_sum"].tolist() == [10 * k for k in range(8)]
    assert codes["vector"].tolist() == [0] * 4 + [1] * 4


def test_maps_are_stacked_over_time(run: Path) -> None:
    with read_run(run) as file:
        assert file.map_names == ("conductance", "window_high", "window_low")
        stack = file.map("conductance")
    assert stack.values.shape == (2, 2, 3, 4)
    assert stack.time_s.tolist() == [1.0, 2.0]
    assert stack.step.tolist() == [1, 1]
    assert stack.units == "S"
    np.testing.assert_array_equal(stack.values[1], np.arange(24.0).reshape(2, 3, 4) * 1e-6 + 1)


def test_windows_of_a_program_are_maps(run: Path) -> None:
    """Of each cell, where the settings tell the extremes of all; NaN elsewhere."""
    with read_run(run) as file:
        cells = file.table("cells")
        mine = cells["operation"] == 4
        at = tuple(cells[name][mine] for name in ("tile", "row", "column"))
        for name, value in (("window_low", 1e-5), ("window_high", 2e-5)):
            stack = file.map(name)
            assert (stack.units, stack.step.tolist()) == ("S", [2])
            assert np.all(stack.values[0][at] == value)
            assert np.isfinite(stack.values).sum() == mine.sum()


def test_saved_arrays_keep_their_dims_units_and_attributes(run: Path) -> None:
    with read_run(run) as file:
        assert set(file.result_names) == {("2_rest", n) for n in ("accuracy", "logits", "labels")}
        accuracy = file.result("rest", "accuracy")
        assert accuracy.values.tolist() == [0.5, 0.75]
        assert accuracy.dims == ("accuracy_time_s",)
        assert file.result(2, "accuracy_epoch").values.tolist() == [0, 1]
        logits = file.result("2_rest", "logits")
        assert logits.dims == ("image", "class")
        assert logits.values.dtype == np.float32
        assert (logits.units, logits.attributes["data"], logits.attributes["time_s"]) == (
            "1",
            "digits",
            9.0,
        )
        assert file.result("rest", "labels").dims == ("image_3",)
        with pytest.raises(
            DataError, match="no result 'x' of step 'rest'; there are: 2_rest/accuracy"
        ):
            file.result("rest", "x")


def test_words_are_those_at_the_end(run: Path) -> None:
    with read_run(run) as file:
        words = file.words()
    assert words is not None
    assert words[1, 2, 3] == 5
    assert words[0, 1, 0] == -6
    assert np.count_nonzero(words) == 2


def test_steps_and_notes(run: Path) -> None:
    with read_run(run) as file:
        steps, notes = file.table("steps"), file.table("notes")
    assert steps["name"].tolist() == ["map", "rest"]
    assert steps["ended_s"].tolist() == [2.0, 11.0]
    assert steps["operations"].tolist() == [1, 6]
    assert steps["pulses"].tolist() == [0, 9]
    assert notes["event"].tolist() == ["interrupted", "resumed"]


def test_xarray_opens_every_group_with_named_dimensions(run: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    groups = ["/"]
    with h5py.File(run) as file:
        file.visititems(
            lambda name, item: groups.append(name) if isinstance(item, h5py.Group) else None
        )
        for name in groups:
            for variable in file[name].values():
                assert isinstance(variable, h5py.Group) or variable.dtype.names is None
    assert "results/2_rest" in groups
    for name in groups:
        with xarray.open_dataset(run, group=name, engine="h5netcdf") as data:
            assert not [d for d in data.sizes if str(d).startswith("phony")]
            data.load()
    with xarray.open_dataset(run, group="maps/conductance", engine="h5netcdf") as data:
        assert data.conductance.dims == ("map_time_s", "tile", "row", "column")
        assert data.conductance.attrs["units"] == "S"
        assert float(data.conductance.sel(map_time_s=2.0)[1, 2, 3]) == pytest.approx(1 + 23e-6)
    with xarray.open_dataset(run, group="results/2_rest", engine="h5netcdf") as data:
        assert data.logits.dims == ("image", "class")


def test_names_that_meet_are_told_apart(tmp_path: Path) -> None:
    whole = np.zeros(scenarios.GEOMETRY.shape)
    saves: list[Frame] = [
        Saved(1, "row", whole, ("tile", "row", "column")),
        Saved(1, "step", whole, ("tile", "row", "column")),
        Saved(1, "conductance", whole, ("tile", "row", "column"), "S"),
        Saved(1, "conductance", whole, ("tile", "row", "column"), "uS"),
        Saved(1, "image", np.arange(5), ("image",)),
        Saved(1, "logits", np.zeros((5, 2)), ("image", "class")),
        Saved(1, "class", np.zeros((2, 2)), ("class", "x")),
        Saved(1, "loss", np.zeros(3), ("epoch",)),
        Saved(1, "loss", np.zeros(4), ("epoch",)),
        Saved(1, "none", np.zeros(0), ("nothing",)),
        Saved(1, "flags", np.array([True, False]), ("class",)),
        Saved(1, "half", np.ones(2, np.float16), ("class",)),
        Saved(1, "note", np.array(1), (), "", {"of": "a"}),
        Saved(1, "note", np.array(2), (), "", {"of": "b"}),
    ]
    path = project(tmp_path, saves)
    with read_run(path) as file:
        assert set(file.map_names) == {"row", "step", "conductance", "conductance_2"}
        for name in file.map_names:
            assert file.map(name).values.shape == (1, *scenarios.GEOMETRY.shape)
        names = {n for _, n in file.result_names}
        assert names == {
            "image",
            "logits",
            "class_values",
            "loss",
            "loss_2",
            "none",
            "flags",
            "half",
            "note",
        }
        assert file.result(1, "loss_2").values.shape == (4,)
        assert file.result(1, "flags").values.tolist() == [True, False]
        assert file.result(1, "note_of").values.tolist() == ["a", "b"]
        assert file.result(1, "none").values.size == 0
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path, group="results/1", engine="h5netcdf") as data:
        assert data.logits.dims == ("image", "class")
        assert data.image.values.tolist() == list(range(5))
        assert data.flags.dtype == np.dtype(bool)


def test_a_summary_run_lists_operations_but_no_cells(tmp_path: Path) -> None:
    with read_run(project(tmp_path, scenarios.example_frames()[1:], log="summary")) as file:
        assert "cells" not in file.tables
        assert "codes" not in file.tables
        assert file.rows("operations") == 8
        assert file.operations()["pulses"][3] == 3


def test_operations_of_a_computation_are_listed(tmp_path: Path) -> None:
    operation = Multiply(0, 0, 0, 4, np.zeros((5, 3), np.int16))
    result = MultiplyResult(np.zeros((5, 4), np.int32), 1e-9, saturated=2)
    aside = Aside(
        3,
        1,
        "train",
        operation_record(operation, summary=True),
        result_record(result, summary=True),
    )
    with read_run(project(tmp_path, [aside])) as file:
        table = file.operations()
        assert (table["vectors"][0], table["saturated"][0], table["outcome"][0]) == (5, 2, "done")
        assert file.rows("codes") == 0


def test_an_interrupted_operation_is_marked(tmp_path: Path) -> None:
    cells = Cells.of([(0, 0, 0)])
    nan = np.full((1, 1), np.nan)
    unknown = np.full((1, 1), Status.UNKNOWN, np.uint8)
    lost = ApplyResult(
        nan, nan, unknown, nan, np.array([4]), np.array([0]), interrupted=True, away_s=60.0
    )
    frames: list[Frame] = [
        Intent(1, 0, operation_record(read(cells)), np.array([4])),
        Outcome(1, result_record(lost)),
    ]
    with read_run(project(tmp_path, frames)) as file:
        table = file.operations()
        assert (
            table["outcome"][0],
            table["away_s"][0],
            table["pulses"][0],
            table["not_ok"][0],
        ) == (
            "interrupted",
            60,
            4,
            1,
        )
        assert file.table("cells")["status"].tolist() == ["unknown"]


def test_gate_currents_have_a_column_where_they_were_asked_for_and_only_then(
    tmp_path: Path,
) -> None:
    cells = Cells.all(scenarios.GEOMETRY)
    n = len(cells)
    plain, gates = scenarios.applied(n, 1, 0.0), np.arange(2.0 * n).reshape(n, 2) * 1e-12
    gates[:, 0] = np.nan
    both = replace(scenarios.applied(n, 2, 1.0), gate_a=gates)
    asked = Apply(cells, (read_step(), replace(read_step(), also_gate=True)))
    none = np.zeros(n, dtype=np.int64)
    frames: list[Frame] = [
        Intent(1, 0, operation_record(read(cells)), none),
        Outcome(1, result_record(plain)),
        Intent(2, 0, operation_record(asked), none),
        Outcome(2, result_record(both)),
        Intent(3, 0, operation_record(read(cells)), none),
        Outcome(3, result_record(plain)),
    ]
    with read_run(project(tmp_path, frames)) as file:
        table = file.table("cells")
        nothing = np.full(n, np.nan)
        np.testing.assert_array_equal(
            table["gate_a"], np.concatenate([nothing, gates.ravel(), nothing])
        )
        assert file.units("cells")["gate_a"] == "A"
        assert "also_gate" in file.table("settings")["text"][1]
        assert "also_gate" not in file.table("settings")["text"][0]
    (tmp_path / "plain").mkdir()
    with read_run(project(tmp_path / "plain", frames[:2])) as file:
        assert "gate_a" not in file.table("cells")


def test_an_optional_column_begins_anywhere_in_a_long_table(tmp_path: Path) -> None:
    columns = Column("k", np.int64, "place"), Column("x", np.float64, "late", optional=True)
    for begins in (0, 1, 7, 256, 300, 512, 600):
        with h5py.File(tmp_path / f"{begins}.h5", "w") as file:
            table = Table(file, "t", "row", columns)
            for k in range(600):
                table.add({"k": k} | ({"x": k / 2} if k >= begins and k % 3 else {}))
            table.finish()
            whole = np.arange(600)
            there = (whole >= begins) & (whole % 3 > 0)
            np.testing.assert_array_equal(file["t/k"][:], whole)
            assert ("x" in file["t"]) == bool(there.any())
            if there.any():
                np.testing.assert_array_equal(file["t/x"][:], np.where(there, whole / 2, np.nan))


def test_long_tables_are_written_in_blocks(tmp_path: Path) -> None:
    geometry = Geometry(1, 200, 250)
    cells = Cells.all(geometry)
    n = len(cells)
    frames: list[Frame] = []
    for number in (1, 2, 3):
        current = (np.arange(n) * number * 1e-9)[:, None]
        status = np.zeros((n, 1), np.uint8)
        one = np.ones(n, dtype=np.int64)
        result = ApplyResult(current, current, status, current, 0 * one, one)
        frames += [
            Intent(number, 0, operation_record(read(cells)), 0 * one),
            Outcome(number, result_record(result)),
        ]
    with read_run(project(tmp_path, frames, geometry=geometry)) as file:
        table = file.table("cells")
        assert table["operation"].tolist() == [1] * n + [2] * n + [3] * n
        expected = np.concatenate([np.arange(n) * k * 1e-9 for k in (1, 2, 3)])
        np.testing.assert_array_equal(table["current_a"], expected)
    assert (tmp_path / "run.h5").stat().st_size < 6 * expected.nbytes


def test_the_same_journal_gives_the_same_content(run: Path, tmp_path: Path) -> None:
    scenarios.write_example(tmp_path / "j")
    write_run_file(tmp_path / "j", tmp_path / "run.h5")
    write_run_file(tmp_path / "j", tmp_path / "run.h5")
    with read_run(run) as one, read_run(tmp_path / "run.h5") as two:
        assert one.attributes == two.attributes
        for name in one.tables:
            for column, values in one.table(name).items():
                np.testing.assert_array_equal(values, two.table(name)[column])


def test_a_torn_journal_gives_a_run_file_of_its_whole_frames(tmp_path: Path) -> None:
    scenarios.write_example(tmp_path / "j")
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content[: len(content) // 2])
    write_run_file(tmp_path / "j", tmp_path / "run.h5")
    with read_run(tmp_path / "run.h5") as file:
        assert file.status == "interrupted"
        assert int(file.attributes["journal_cut_bytes"]) > 0


def test_foreign_missing_and_damaged_files_are_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_run(tmp_path / "no.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="not a run file, or a damaged one"):
        read_run(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="not a run file of rram_hil"):
        read_run(tmp_path / "other.h5")
    content = run.read_bytes()
    (tmp_path / "short.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged") as told:
        read_run(tmp_path / "short.h5")
    assert "\n" not in str(told.value)
    with read_run(run) as file:
        file.require_chip("T1")
        with pytest.raises(DataError, match="a run of chip 'T1', not of 'T9'"):
            file.require_chip("T9")
        with pytest.raises(DataError, match="no 'x' in it"):
            file.map("x")
        with pytest.raises(DataError, match=r"run\.result\('2_rest', 'accuracy'\)"):
            file.map("accuracy")
        assert repr(file) == f"<RunFile {run}: {file.attributes['run']!r} on chip T1, complete>"
        with pytest.raises(DataError, match="no column 'x'"):
            file.table("cells", columns=["x"])


def test_damaged_data_in_a_run_file_are_found(run: Path, tmp_path: Path) -> None:
    content = bytearray(run.read_bytes())
    with h5py.File(run) as file:
        chunk = file["cells/conductance_s"].id.get_chunk_info(0)
    content[chunk.byte_offset + chunk.size // 2] ^= 4
    (tmp_path / "run.h5").write_bytes(content)
    with (
        read_run(tmp_path / "run.h5") as file,
        pytest.raises(DataError, match="damaged at /cells/conductance_s"),
    ):
        file.table("cells")


def test_a_damaged_journal_leaves_the_old_run_file_alone(run: Path, tmp_path: Path) -> None:
    scenarios.write_example(tmp_path / "j")
    content = bytearray((tmp_path / "j").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "j").write_bytes(content)
    (tmp_path / "run.h5").write_bytes(b"old")
    with pytest.raises(DataError, match="damaged"):
        write_run_file(tmp_path / "j", tmp_path / "run.h5")
    assert (tmp_path / "run.h5").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


FILLS = """
import resource, signal, sys
from rram_hil.errors import DataError
from rram_hil.storage.run_writer import write_run_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_run_file(sys.argv[1], sys.argv[2])
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(
    sys.platform == "win32", reason="needs a limit on file sizes, which Windows has not"
)
@pytest.mark.parametrize("limit", [50, 5_000, 60_000, 150_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_run_file(
    run: Path, tmp_path: Path, limit: int
) -> None:
    (tmp_path / "run.h5").write_bytes(b"old")
    command = [
        sys.executable,
        "-B",
        "-c",
        FILLS,
        str(run.with_name("run.journal")),
        str(tmp_path / "run.h5"),
        str(limit),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r".*run\.h5\S*: cannot be written: .*\n", done.stdout), done.stdout
    assert done.stderr == ""
    assert (tmp_path / "run.h5").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]


@pytest.mark.long
def test_killed_at_any_write_the_run_file_is_the_old_or_the_new_one(
    crash_shim: Any, tmp_path: Path
) -> None:
    crashes = crash_shim.everywhere("projection", "kept.h5", tmp_path, writes=6)
    assert "rename" in {c.call for c in crashes}
    assert len(crashes) > 12
    for crash in crashes:
        with read_run(crash.folder / "kept.h5") as file:
            assert file.status == "complete"
            assert file.rows("cells") == len(file.table("cells")["row"]) == 32


def blocks(language: str) -> list[str]:
    text = (HERE.parents[1] / "docs" / "run-file.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_examples_of_the_documentation_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5netcdf")
    shutil.copy(run, tmp_path / "run.h5")
    monkeypatch.chdir(tmp_path)
    examples = blocks("python")
    assert len(examples) >= 3
    assert any("import h5py" in e for e in examples)
    assert any("import xarray" in e for e in examples)
    for example in examples:
        exec(compile(example, "run-file.md", "exec"), {})


def test_the_documentation_names_every_column_and_attribute(run: Path) -> None:
    text = (HERE.parents[1] / "docs" / "run-file.md").read_text(encoding="utf-8")
    with h5py.File(run) as file:
        for table in ("operations", "cells", "codes", "steps", "notes", "settings"):
            for column in file[table]:
                if column not in ("event", "note", "reading", "setting"):
                    assert f"`{column}`" in text, (table, column)
        for name in file.attrs:
            if not name.startswith(("instrument_", "version_", "calibration_")):
                assert f"`{name}`" in text, name
