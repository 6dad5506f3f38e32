"""Wrong input gets one clear line and exit status 2: no traceback, nothing half-written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.far_side import launcher, request_of

RUN = ("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")
CHECK = ("check", "bench.toml")
WRONG_BENCH = {
    "bad TOML": ("[chip]", "[chip", "not valid TOML"),
    "unknown key": ("tiles = 1", "tiles = 1\ntyles = 2", r"chip.tyles: unknown key"),
    "NaN limit": ("bl_v = 4.0", "bl_v = nan", r"limits.bl_v: nan is wrong: .*finite"),
    "text for a limit": ("bl_v = 4.0", 'bl_v = "4"', r"limits.bl_v: '4' is wrong"),
    "a limit is missing": ("cell_v = 4.0\n", "", r"limits.cell_v: missing"),
    "unknown driver": (
        '"simulated-array"',
        '"no-such"',
        r"driver 'no-such' is unknown; there is: .*simulated-array",
    ),
    "unknown driver setting": (
        '"simulated-array"',
        '"simulated-array"\nbaud = 3',
        r"baud: unknown key",
    ),
    "wrong device model": ('device = "hfo2"', 'device = "no-such"', r"no-such"),
    "misspelt device model": (
        'device = "hfo2"',
        'device = "hfo3"',
        r"device model 'hfo3' is neither .*; did you mean hfo2\?",
    ),
    "misspelt driver": ('"simulated-array"', '"simulated-aray"', "did you mean simulated-array"),
}


@pytest.mark.parametrize("case", WRONG_BENCH)
def test_wrong_bench_file(here: Any, case: str) -> None:
    old, new, told = WRONG_BENCH[case]
    here.bench(old, new)
    for command in (CHECK, RUN):
        line = here.refused(*command)
        assert re.search(told, line), line


@pytest.mark.parametrize(
    ("written", "meant"), [("read-mapp", "read-map"), ("pulse-curve", "pulse-curves")]
)
def test_a_misspelt_protocol_is_named_with_the_one_meant(
    here: Any, written: str, meant: str
) -> None:
    here.write("recipe.toml", f'[[step]]\nprotocol = "{written}"\n')
    assert f"did you mean {meant}?" in here.refused(*RUN)


def test_one_table_for_the_list_of_steps(here: Any) -> None:
    here.write("recipe.toml", '[step]\nprotocol = "read-map"\n')
    assert "step: one table, where a list is wanted: [...], or of tables [[step]]" in here.refused(
        *RUN
    )


def test_an_argument_that_is_missing_is_told_with_the_usage(here: Any) -> None:
    told = here.refused("new", "bench")
    assert told.startswith("rram-hil: Missing argument 'NAME'. Usage: rram-hil new [OPTIONS] ")


def test_missing_limits(here: Any) -> None:
    text = Path("bench.toml").read_text()
    start, end = text.index("[limits]"), text.index("[simulation]")
    here.write("bench.toml", text[:start] + text[end:])
    for command in (CHECK, RUN, ("plan", "recipe.toml", "-b", "bench.toml")):
        assert "bench.toml: limits: missing; it is required" in here.refused(*command)


def test_missing_files(here: Any) -> None:
    assert "nowhere.toml: no such file" in here.refused("check", "nowhere.toml")
    assert "nowhere.toml: no such file" in here.refused("run", "nowhere.toml", "-b", "bench.toml")
    assert "nowhere.h5: no such file" in here.refused("show", "nowhere.h5")
    assert "there is no folder" in here.refused(
        "run", "recipe.toml", "-b", "bench.toml", "-o", "no/r.h5"
    )


def _board(here: Any, driver_lines: str, rows: str = "16") -> None:
    text = here.folder.joinpath("bench.toml").read_text()
    text = text[: text.index("[simulation]")].replace("rows = 16", f"rows = {rows}")
    here.write(
        "bench.toml",
        text.replace('name = "simulated-array"', f'name = "test-chip-board"\n{driver_lines}'),
    )


def test_missing_port(here: Any) -> None:
    _board(here, "")
    assert "driver.port: missing" in here.refused(*CHECK)


@pytest.mark.parametrize("port", ["no_such_port", "socket://127.0.0.1:1"])
def test_port_that_does_not_exist(here: Any, port: str) -> None:
    _board(here, f'port = "{port}"')
    for command in (CHECK, RUN):
        line = here.refused(*command)
        assert f"{port}: cannot be opened" in line


def test_board_of_another_geometry(here: Any) -> None:
    file = load_bench_file("bench.toml")
    assert file.simulation is not None
    far = launcher("test-chip-board")(request_of(file))
    try:
        _board(here, f'port = "{far.settings["port"]}"', rows="32")
        for command in (CHECK, RUN):
            line = here.refused(*command)
            assert "16" in line
            assert "32" in line
    finally:
        far.stop()


def test_wrong_recipes(here: Any) -> None:
    for old, new, told in (
        (
            '"forming"',
            '"no-such"',
            "step 1: protocol 'no-such' is unknown; there is: adaptive-step, array-statistics",
        ),
        ('"forming"', '"forming"\nwidth_s = nan', "step 1 (forming): width_s: nan is wrong"),
        ('"forming"', '"forming"\nwydth_s = 1e-6', "step 1 (forming): wydth_s: unknown key"),
        ('protocol = "read-map"', "", "step 2: protocol: missing"),
        (
            '"read-map"',
            '"forming"',
            "step 2: name 'forming' must be plain words that no other step has",
        ),
    ):
        here.write("wrong.toml", Path("recipe.toml").read_text().replace(old, new))
        for command in ("plan", "run"):
            assert told in here.refused(command, "wrong.toml", "--bench", "bench.toml")


def test_weights_with_nan(here: Any) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    weight = np.full((4, 4), 0.5, dtype=np.float32)
    weight[1, 2] = np.nan
    safetensors.save_file({"fc.weight": weight}, "net.safetensors")
    here.write("wrong.toml", _one_shot('network = "net.safetensors"'))
    assert "fc.weight: nan at index (1, 2)" in here.refused(
        "plan", "wrong.toml", "--bench", "bench.toml"
    )
    said = here.command("run", "wrong.toml", "--bench", "bench.toml")
    assert said.status == 2
    assert "fc.weight: nan at index (1, 2)" in said.err.splitlines()[-1]
    # The attempt is on record, whole, and goes on once the weights are right.
    assert here.command("show", "wrong.h5").out.startswith("wrong.h5  error")
    safetensors.save_file({"fc.weight": np.nan_to_num(weight)}, "net.safetensors")
    assert here.command("run", "wrong.toml", "--bench", "bench.toml", "--resume").status == 0


def test_target_map_of_another_shape(here: Any) -> None:
    np.save("target.npy", np.ones((1, 8, 8)))
    here.write("wrong.toml", _one_shot('map = "target.npy"'))
    assert "shape (1, 16, 16)" in here.refused("plan", "wrong.toml", "--bench", "bench.toml")


def _one_shot(target: str) -> str:
    return f"""
[[step]]
protocol = "one-shot"
targets = {{ {target} }}
set = {{ gate = {{ volts_v = [2.0, 3.0], conductance_s = [10e-6, 100e-6] }} }}
"""


@pytest.mark.parametrize("command", ["plan", "run"])
def test_recipe_beyond_limits(here: Any, command: str) -> None:
    here.write(
        "wrong.toml",
        '[[step]]\nprotocol = "forming"\nname = "hot"\nbl_v = { start_v = 3, stop_v = 5, step_v ='
        " 0.5 }\n",
    )
    said = here.command(command, "wrong.toml", "--bench", "bench.toml")
    assert said.status == 2
    line = said.err.splitlines()[-1]
    for told in ("hot", "cell (0, 0, ", "BL 4.5 V is beyond the limit of 4 V"):
        assert told in line
    if command == "run":
        # What was refused is on record, and no pulse was given.
        assert here.command("show", "wrong.h5").out.startswith("wrong.h5  error")
        assert not np.load("c1.ledger.npy").any()


def test_recipe_beyond_the_pulses_left_in_the_ledger(here: Any) -> None:
    here.command(*RUN)
    counts = int(np.load("c1.ledger.npy").max())
    Path("c1.state").unlink()  # a formed array would be refused for that
    here.bench("pulses_per_cell = 100", f"pulses_per_cell = {counts + 10}")
    line = here.refused("plan", "recipe.toml", "-b", "bench.toml")
    assert f"would pass the limit of {counts + 10} pulses a cell" in line
    assert "step 1 (forming)" in line


def test_run_file_that_exists(here: Any) -> None:
    here.command(*RUN)
    before = Path("r.h5").read_bytes()
    assert "r.h5 exists" in here.refused(*RUN)
    assert Path("r.h5").read_bytes() == before


def test_resume_without_a_run(here: Any) -> None:
    assert "there is no run to resume" in here.refused(*RUN, "--resume")


RESUME = {
    "another chip": (
        "bench.toml",
        'id = "c1"',
        'id = "c2"',
        "this run is of chip 'c1'; the bench file has chip 'c2'",
    ),
    "a changed bench": (
        "bench.toml",
        "bl_v = 4.0",
        "bl_v = 3.9",
        "the bench file bench.toml changed",
    ),
    "a changed recipe": (
        "recipe.toml",
        '"read-map"',
        '"read-map"\nrepeat = 2',
        "the recipe recipe.toml changed",
    ),
}


@pytest.mark.parametrize("case", RESUME)
def test_resume_of_what_is_not_the_same_run(here: Any, case: str) -> None:
    here.command(*RUN)
    kept = Path("r.h5").read_bytes(), Path("r.h5.journal").read_bytes()
    name, old, new, told = RESUME[case]
    text = Path(name).read_text()
    assert old in text
    here.write(name, text.replace(old, new))
    assert told in here.refused(*RUN, "--resume")
    assert (Path("r.h5").read_bytes(), Path("r.h5.journal").read_bytes()) == kept


def test_ledger_of_another_chip(here: Any) -> None:
    here.command(*RUN)
    here.bench('id = "c1"', 'id = "c2"\nledger = "c1.ledger.npy"')
    here.write("bench.toml", Path("bench.toml").read_text().replace("c1.state", "c2.state"))
    for command in (
        CHECK,
        ("run", "recipe.toml", "-b", "bench.toml", "-o", "s.h5"),
        ("plan", "recipe.toml", "-b", "bench.toml"),
    ):
        said = here.command(*command)
        assert said.status == 2
        assert "ledger of chip 'c1'" in said.err.splitlines()[-1]
        assert "Traceback" not in said.err
    assert not Path("s.h5").exists()
    assert not Path("s.h5.journal").exists()


@pytest.mark.parametrize(
    "command", [("show",), ("export", "--csv", "tables"), ("export", "--npz", "a.npz")]
)
def test_a_file_that_is_no_run_file(here: Any, command: tuple[str, ...]) -> None:
    name, *options = command
    here.write("text.h5", "this is text, " * 100)
    Path("empty.h5").touch()
    with h5py.File("foreign.h5", "w") as file:
        file["x"] = [1, 2]
    for wrong in ("text.h5", "empty.h5", "bench.toml"):
        assert f"{wrong}: not a run file, or a damaged one" in here.refused(name, wrong, *options)
    assert "not a run file of rram_hil" in here.refused(name, "foreign.h5", *options)


def test_export_into_nothing_and_onto_a_file(here: Any) -> None:
    here.command(*RUN)
    assert "give --csv DIR, --npz FILE or both" in here.refused("export", "r.h5")
    here.write("taken", "")
    assert "export cannot be written" in here.refused("export", "r.h5", "--csv", "taken")


def test_wrong_usage_is_one_line_too(here: Any) -> None:
    assert "No such command 'frobnicate'" in here.refused("frobnicate")
    assert "--bench" in here.refused("run", "recipe.toml")
    assert "seed" in here.refused("demo", "--seed", "-1")


@pytest.mark.skipif(sys.platform == "win32", reason="no file-size limit there")
@pytest.mark.parametrize(
    "most",
    [
        pytest.param(20_000, marks=pytest.mark.long),
        60_000,
        pytest.param(150_000, marks=pytest.mark.long),
    ],
)
def test_full_disk(here: Any, most: int) -> None:
    # -B, here and below: the limit would cut Python's own compiled files in the middle.
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most},"
        " resource.getrlimit(resource.RLIMIT_FSIZE)[1]));from rram_hil.cli import main; main()"
    )
    said = subprocess.run(
        [sys.executable, "-B", "-c", code, *RUN],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    lines = [line for line in said.stderr.splitlines() if line.startswith("rram-hil: ")]
    assert len(lines) == 1
    assert "cannot be written" in lines[0]
    assert not [f for f in here.files() if f.endswith(".tmp")]
    # What the journal holds is whole, and the run goes on where there is room again.
    if Path("r.h5.journal").exists():
        assert here.command("show", "r.h5").status == 0
        assert here.command(*RUN, "--resume").status == 0
    else:
        assert here.command(*RUN).status == 0
    assert here.command("show", "r.h5").out.startswith("r.h5  complete")


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="no file-size limit there")
def test_full_disk_in_an_export_leaves_nothing(here: Any) -> None:
    here.command(*RUN)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000,"
        " resource.getrlimit(resource.RLIMIT_FSIZE)[1]));from rram_hil.cli import main; main()"
    )
    before = here.files()
    for options in (("--csv", "tables"), ("--npz", "a.npz")):
        command = [sys.executable, "-B", "-c", code, "export", "r.h5", *options]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert said.returncode == 2, said.stderr
        assert said.stderr.count("\n") == 1
        assert "File too large" in said.stderr
        assert here.files() == before


def test_a_device_file_is_no_run_file(here: Any) -> None:
    assert "not a run file" in here.refused("show", os.curdir)


@pytest.mark.parametrize(
    ("step", "missing"),
    [
        ('protocol = "one-shot"\ntargets = { map = "targt.npy" }\nset = {}', "targt.npy"),
        ('protocol = "recall"\nrun_file = "earlier.h5"', "earlier.h5"),
        ('protocol = "reference"\nnetwork = "n.safetensors"\nimages = "i.npz"', "n.safetensors"),
    ],
)
def test_a_file_that_is_not_there_is_told_before_the_first_step(
    here: Any, step: str, missing: str
) -> None:
    recipe = '[[step]]\nprotocol = "forming"\n\n[[step]]\nname = "later"\n'
    here.write("recipe.toml", recipe + step)
    line = here.refused("run", "recipe.toml", "--bench", "bench.toml")
    assert line == (
        f"rram-hil: step 2 (later): {missing}: cannot be read: No such file or directory"
    )
