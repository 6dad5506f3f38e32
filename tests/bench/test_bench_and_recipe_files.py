from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.plugins import driver_class, protocol_class
from rram_hil.bench.recipe import load_recipe
from rram_hil.errors import ConfigError, DataError

BENCH = """\
[chip]
id = "t1"
tiles = 1
rows = 4
columns = 4
cell = "1T1R"

[driver]
name = "simulated-array"

[limits]
bl_v = 4.0
sl_v = 3.5
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.0
half_select_v = 0.5
read_v = 0.25
current_a = 1e-3
energy_j = 1e-7
width_s = 1e-5
pulses_per_cell = 1000

[simulation]
seed = 3
"""
RECIPE = """\
seed = 4

[[step]]
protocol = "forming"

[[step]]
name = "map"
protocol = "read-map"
repeat = 2
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_bench_file_says_what_it_says(write: Callable[[str, str], Path]) -> None:
    path = write("bench.toml", BENCH)
    bench = load_bench_file(path)
    assert bench.chip.geometry.shape == (1, 4, 4)
    assert bench.limits.sl_v == 3.5
    assert bench.text == BENCH
    assert bench.ledger_path == path.parent / "t1.ledger.npy"
    assert (bench.read.step.bl_v, bench.read.step.measure) == (0.2, "current")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "rows = 4",
            "rows = 0",
            r"chip.rows: 0 is wrong: input should be greater than or equal to 1",
        ),
        ("rows = 4", "rows = 4.0", r"chip.rows: 4.0 is wrong: input should be a valid integer"),
        ("rows = 4", 'rows = "4"', r"chip.rows: '4' is wrong"),
        ("rows = 4\n", "", r"chip.rows: missing; it is required"),
        ("rows = 4", "rows = 4\nrow = 5", r"chip.row: unknown key"),
        (
            'cell = "1T1R"',
            'cell = "2T2R"',
            r"chip.cell: '2T2R' is wrong: input should be '1T1R' or '1R'",
        ),
        ('id = "t1"', 'id = "../t1"', r"chip.id: '../t1' is wrong"),
        ("bl_v = 4.0", "bl_v = nan", r"limits.bl_v: nan is wrong: input should be"),
        ("bl_v = 4.0", "bl_v = inf", r"limits.bl_v: inf is wrong"),
        ("bl_v = 4.0", "bl_v = -4.0", r"limits.bl_v: -4.0 is wrong"),
        ("bl_v = 4.0", 'bl_v = "4 V"', r"limits.bl_v: '4 V' is wrong"),
        ("bl_v = 4.0", "bl_v = true", r"limits.bl_v: True is wrong"),
        (
            "pulses_per_cell = 1000",
            "pulses_per_cell = 1e3",
            r"limits.pulses_per_cell: 1000.0 is wrong",
        ),
        ("pulses_per_cell = 1000\n", "", r"limits.pulses_per_cell: missing; it is required"),
        (
            "width_s = 1e-5",
            "width_s = 1e-5\nconductance_s = [2e-4, 1e-4]",
            r"conductance_s must be \[lowest, highest\]",
        ),
        ("seed = 3", "seed = -1", r"simulation.seed: -1 is wrong"),
        ("seed = 3", "sed = 3", r"simulation.sed: unknown key"),
        (
            "[simulation]",
            "[read]\nbl_v = 0.3\n[simulation]",
            r"read.bl_v of 0.3 V is above limits.read_v of 0.25 V",
        ),
        ("[simulation]", "[read]\nbl_v = nan\n[simulation]", r"read.bl_v: nan is wrong"),
        ("[simulation]", "[read]\nwidth_s = inf\n[simulation]", r"read.width_s: inf is wrong"),
        ("rows = 4", "rows = 4\nrows = 5", r"not valid TOML: .* line 5"),
        ("[chip]", "thermostat = 300\n[chip]", r"thermostat: 300 is wrong: a table is wanted"),
        (
            "[limits]",
            '[[thermostat]]\nkind = "lakeshore-336"\n[limits]',
            r"thermostat: a list, where one table is wanted; write \[thermostat\]",
        ),
    ],
)
def test_a_wrong_bench_file_is_refused_in_one_line_naming_key_and_value(
    write: Callable[[str, str], Path], old: str, new: str, says: str
) -> None:
    assert BENCH.count(old) == 1
    path = write("bench.toml", BENCH.replace(old, new))
    with pytest.raises(ConfigError, match=says) as refusal:
        load_bench_file(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_a_bench_without_limits_does_not_start(write: Callable[[str, str], Path]) -> None:
    start, end = BENCH.index("[limits]"), BENCH.index("[simulation]")
    with pytest.raises(ConfigError, match=r"limits: missing; it is required"):
        Bench.open(write("bench.toml", BENCH[:start] + BENCH[end:]))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: no such file"):
        load_bench_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_bench_file(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("keithley", r"driver 'keithley' is unknown; there is: .*simulated-array.*test-chip-board"),
        ("./none.py:Board", r"there is no file"),
        ("./broken.py:Board", r"cannot be imported: ZeroDivisionError"),
        ("./local.py:Nothing", r"has no 'Nothing'"),
        ("./local.py:", r"has no ''"),
        ("./local.py:Strange", r"is not a complete subclass of rram_hil.hardware.driver.Driver"),
        ("./local.py:Half", r"is not a complete subclass of rram_hil.hardware.driver.Driver"),
    ],
)
def test_an_unknown_driver_is_refused_with_what_there_is(
    write: Callable[[str, str], Path], name: str, says: str
) -> None:
    write("broken.py", "1 / 0\n")
    write(
        "local.py",
        "from rram_hil.hardware.driver import Driver\nclass Strange: ...\nclass Half(Driver):\n   "
        " def close(self): ...\n",
    )
    bench = write(
        "bench.toml", BENCH.replace("simulated-array", name).replace("[simulation]\nseed = 3\n", "")
    )
    with pytest.raises(ConfigError, match=says):
        Bench.open(bench)


def test_a_local_driver_is_found_beside_the_bench_file(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write(
        "mine.py",
        "from rram_hil.drivers.simulated_array import SimulatedArray\nclass Mine(SimulatedArray):"
        " ...\n",
    )
    assert driver_class("./mine.py:Mine", tmp_path).__name__ == "Mine"
    text = BENCH.replace("simulated-array", "./mine.py:Mine").replace(
        "[simulation]\nseed = 3\n", ""
    )
    with Bench.open(write("bench.toml", text)) as bench:
        assert type(bench.driver).__name__ == "Mine"
        assert bench.read_map().shape == (1, 4, 4)
    with pytest.raises(
        ConfigError,
        match=r"\[simulation\]: driver './mine.py:Mine' has no simulator; those with one: ",
    ):
        Bench.open(write("bench.toml", text + "[simulation]\n"))


def test_unknown_driver_settings_are_refused(write: Callable[[str, str], Path]) -> None:
    path = write("bench.toml", BENCH.replace('"simulated-array"', '"simulated-array"\nbaud = 9600'))
    with pytest.raises(ConfigError, match=r"driver simulated-array: baud: unknown key"):
        Bench.open(path)


def test_a_closed_or_unarmed_bench_runs_nothing(write: Callable[[str, str], Path]) -> None:
    path = write("bench.toml", BENCH)
    with (
        Bench.open(path, arm=False) as bench,
        pytest.raises(ConfigError, match="closed or was opened with arm=False"),
    ):
        bench.read_map()
    with Bench.open(path) as bench:
        bench.read_map()
    assert bench.is_closed
    bench.close()
    with pytest.raises(ConfigError, match="closed or was opened with arm=False"):
        bench.read_map()


def test_a_chip_is_worked_on_by_one_process_at_a_time(write: Callable[[str, str], Path]) -> None:
    path = write("bench.toml", BENCH)
    with Bench.open(path) as bench, pytest.raises(DataError, match="in use"):
        Bench.open(path)
    assert bench.is_closed
    Bench.open(path).close()


def test_cells_of_a_bench_are_chosen_by_ranges(write: Callable[[str, str], Path]) -> None:
    with Bench.open(write("bench.toml", BENCH)) as bench:
        assert len(bench.cells()) == 16
        assert len(bench.cells(rows=(1, 2), columns=(0, 0))) == 2
        with pytest.raises(
            ConfigError, match=r"cells.rows: \[2, 4\] must be \[first, last\] within 0..3"
        ):
            bench.cells(rows=(2, 4))
        with pytest.raises(ConfigError, match=r"cells.tiles: 1 must lie in 0..0"):
            bench.cells(tiles=[1])


def test_a_recipe_says_what_it_says(write: Callable[[str, str], Path]) -> None:
    recipe = load_recipe(write("recipe.toml", RECIPE))
    assert [(s.name, s.protocol_name) for s in recipe.steps] == [
        ("forming", "forming"),
        ("map", "read-map"),
    ]
    assert recipe.head.seed == 4
    assert recipe.digest != load_recipe(write("other.toml", RECIPE + "# note\n")).digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"step: missing; it is required"),
        ("step = []", r"step: .* at least 1 item"),
        ("colour = 1\n[[step]]\nprotocol = 'forming'", r"colour: unknown key"),
        ("[[step]]\nname = 'x'", r"step 1: protocol: missing; give its name"),
        (
            "[[step]]\nprotocol = 'anneal'",
            r"step 1: protocol 'anneal' is unknown; there is: .*forming",
        ),
        (
            "[[step]]\nprotocol = 'forming'\n[[step]]\nprotocol = 'forming'",
            r"step 2: name 'forming' must be plain words",
        ),
        ("[[step]]\nprotocol = 'forming'\nname = 'a/b'", r"step 1: name 'a/b' must be plain words"),
        ("[[step]]\nprotocol = 'forming'\nname = ''", r"step 1: name '' must be plain words"),
        ("[[step]]\nprotocol = 'forming'\nname = '..'", r"step 1: name '..' must be plain words"),
        ("[[step]]\nprotocol = 'forming'\nname = 5", r"step 1: name 5 must be plain words"),
        (
            "[[step]]\nprotocol = 'forming'\nwidth_s = 'short'",
            r"step 1 \(forming\): width_s: 'short' is wrong",
        ),
        (
            "[[step]]\nprotocol = 'forming'\nwidth_s = nan",
            r"step 1 \(forming\): width_s: nan is wrong",
        ),
        (
            "[[step]]\nprotocol = 'forming'\nwidht_s = 1e-6",
            r"step 1 \(forming\): widht_s: unknown key",
        ),
        ("[[step]]\nprotocol = 'forming'\ncells = { rows = [0] }", r"cells.rows"),
        (
            "[[step]]\nprotocol = 'forming'\ncells = { tiles = [] }",
            r"cells.tiles: .* at least 1 item",
        ),
        (
            "[[step]]\nprotocol = './mine.py:Half'",
            r"is not a complete subclass of rram_hil.engine.protocol.Protocol",
        ),
        (
            "[[step]]\nprotocol = 'one-shot'",
            r"step 1 \(one-shot\): targets: missing; it is required",
        ),
        (
            (
                "[[step]]\nprotocol = 'one-shot'\ntargets = {}\nset.gate = { volts_v = [1.0, 2.0],"
                " conductance_s = [1e-6, 1e-5] }"
            ),
            r"targets: give either network .* or map",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line_naming_its_step(
    write: Callable[[str, str], Path], text: str, says: str
) -> None:
    write("mine.py", "from rram_hil.engine.protocol import Protocol\nclass Half(Protocol): ...\n")
    path = write("recipe.toml", text)
    with pytest.raises(ConfigError, match=says) as refusal:
        load_recipe(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_a_local_protocol_is_named_after_its_class(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write("mine.py", "from rram_hil.protocols.read_map import ReadMap\nclass Mine(ReadMap): ...\n")
    recipe = load_recipe(
        write("recipe.toml", "[[step]]\nprotocol = './mine.py:Mine'\nrepeat = 3\n")
    )
    assert recipe.steps[0].name == "Mine"
    assert protocol_class("./mine.py:Mine", tmp_path).__name__ == "Mine"


@pytest.mark.parametrize(("name", "text"), [("bench.toml", BENCH), ("recipe.toml", RECIPE)])
def test_files_from_windows_are_taken_or_get_help(tmp_path: Path, name: str, text: str) -> None:
    load: Callable[[Path], Any] = load_bench_file if text is BENCH else load_recipe
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(path).text == text
    path.write_text(text, encoding="utf-16")
    with pytest.raises(ConfigError, match=r"UTF-16.*save it as UTF-8"):
        load(path)
    path.write_text('operator = "C:\\data\\me"\n' + text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"single quotes: 'C:\\data\\me'"):
        load(path)
    path.write_bytes(text.replace("seed", "# K\u00f6ln\nseed").encode("cp1252"))
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load(path)
