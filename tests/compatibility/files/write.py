"""Writes the files of this folder: `python write.py FOLDER`, with the version that is to be kept.

Its imports are the addresses of 0.1.0 at commit 9a72aef.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from rram_hil import Bench
from rram_hil.calibration._toml import to_toml
from rram_hil.calibration.board_converters import BoardConverters
from rram_hil.calibration_file import CalibrationFile
from rram_hil.device.model import DeviceModel
from rram_hil.network import Linear, Network, ReLU
from rram_hil.run import run_recipe
from rram_hil.run_file import read_run

GROUPS = [g for g in entry_points().groups if g.startswith("rram_hil.")]
DATE = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = """
[limits]
bl_v = 4.0
sl_v = 4.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.2
half_select_v = 0.5
read_v = 0.25
current_a = 1e-3
energy_j = 1e-6
width_s = 1e-5
pulses_per_cell = 1000
read_width_s = 0.1
"""
CHIP = """\
operator = "a person"

[chip]
id = "{chip}"
tiles = 1
rows = 8
columns = 8
cell = "1T1R"
"""
OHMS = (1.1e6, 262e3, 187e3, 82e3, 47e3, 25.9e3, 13.3e3, 6.8e3, 3.9e3, 2.67e3, 1.3e3, 620.0)
LADDER = [{"row": 4 + k // 8, "column": k % 8, "ohm": ohm} for k, ohm in enumerate(OHMS)]
TEST_ROWS = [{"row": row, "column": c, "ohm": 8e3 + 500 * c} for row in (6, 7) for c in range(8)]
RECIPE = """\
title = "kept"
seed = 3

[[step]]
protocol = "forming"
cells = { rows = [0, 3], columns = [0, 3] }
bl_v = { start_v = 2.4, stop_v = 3.6, step_v = 0.2 }

[[step]]
name = "first map"
protocol = "read-map"
cells = { rows = [0, 3], columns = [0, 3] }

[[step]]
protocol = "write-verify"
targets = { map = "target.npy" }
tolerance_s = 5e-6
max_pulses = 30
on_board = "never"

[step.set]
amplitude_v = { start_v = 2.0, stop_v = 2.0 }
gate_v = { start_v = 2.0, stop_v = 3.0, step_v = 0.1 }
width_s = 100e-9

[step.reset]
amplitude_v = { start_v = 0.6, stop_v = 2.5, step_v = 0.1 }
gate_v = { start_v = 3.5, stop_v = 3.5 }
width_s = 200e-9

[[step]]
protocol = "dc-sweep"
cells = { rows = [0, 0], columns = [0, 1] }
width_s = 1e-6

[step.set]
start_v = 0.25
stop_v = 1.5
step_v = 0.25
wl_v = 2.0

[step.reset]
start_v = 0.25
stop_v = 1.5
step_v = 0.25
wl_v = 3.5

[[step]]
name = "last map"
protocol = "read-map"
cells = { rows = [0, 3], columns = [0, 3] }
"""


def table(entries: list[dict[str, float]]) -> str:
    """An array of inline tables."""
    rows = (", ".join(f"{key} = {value}" for key, value in entry.items()) for entry in entries)
    return "[\n" + "".join(f"  {{ {row} }},\n" for row in rows) + "]"


def bench(chip: str, driver: str, simulation: str, calibration: str = "") -> str:
    """A bench file of one simulated chip."""
    return (
        f'{CHIP.format(chip=chip)}\n[driver]\nname = "{driver}"\n{LIMITS}\n[simulation]\n'
        f'device = "hfo2-measured"\nseed = 5\n{simulation}\n{calibration}'
    )


def board(state: str) -> str:
    """A board whose converters are wrong in a known way."""
    errors = (
        "{ bl = { offset_v = 2e-3, gain = 4e-3 }, adc = { offset = 1e-3, gain = 8e-3 },"
        " column_gain = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, 0.02, 0.03] }"
    )
    return f"{state}errors = {errors}\nresistors = {table(LADDER + TEST_ROWS)}"


def command(folder: Path, *arguments: str) -> None:
    """One command of rram-hil in a folder."""
    subprocess.run(
        [str(Path(sys.executable).with_name("rram-hil")), *arguments], cwd=folder, check=True
    )


def calibrations(folder: Path) -> None:
    """One calibration file of each kind, and one with its arrays beside it."""
    folder.mkdir()
    (folder / "board.toml").write_text(bench("kept", "test-chip-board", board("")))
    keys = {
        "references": [r | {"half_width_ohm": 2e-4 * r["ohm"]} for r in LADDER],
        "columns": {"rows": [6, 7]},
        "validity_days": 36500.0,
    }
    with Bench.open(folder / "board.toml") as opened:
        found = opened.run(BoardConverters.model_validate(keys))
        found.complete(opened.identity, "kept", DATE, "a person").write(folder / "converters.toml")

    known = [{"row": 0, "column": 7, "ohm": 1000.0}, {"row": 7, "column": 0, "ohm": 1000.0}]
    told = table([k | {"half_width_ohm": 0.2} for k in known])
    (folder / "keys.toml").write_text(f"references = {told}\n")
    wires = f"line_ohm = 2.0\nerrors = {{ access_ohm = 1500.0 }}\nresistors = {table(known)}"
    leads = f"errors = {{ lead_ohm = 12.0 }}\nresistors = {table(known)}"
    for kind, simulation in (("lines", wires), ("leads", leads)):
        (folder / "bench.toml").write_text(bench("kept", "test-chip-board", simulation))
        command(
            folder, "calibrate", kind, "keys.toml", "--bench", "bench.toml", "-o", f"{kind}.toml"
        )

    rack = (
        '\n[driver.instruments.smu]\nkind = "keithley-2600b"\nmodel = "2636B"\n'
        '\n[driver.instruments.matrix]\nkind = "keithley-707b"\nmodel = "707B"\n'
        '\n[driver.wiring]\nchannels = { "smu.a" = "A", "smu.b" = "B" }\nground = "C"\n'
        'tsp_node = 2\nwl = "1-8"\nbl = "9-16"\nsl = "17"\n'
    )
    errors = 'errors = { source_meters."smu.a" = { offset_v = 1e-3, gain_a = 2e-3 } }'
    text = bench("kept", "smu-matrix", errors).replace(
        'cell = "1T1R"', 'cell = "1T1R"\nsource_lines = "common"'
    )
    (folder / "bench.toml").write_text(text.replace("\n[limits]", f"{rack}\n[limits]"))
    (folder / "keys.toml").write_text('part = "zero"\ninstrument = "smu"\nchannel = "a"\n')
    command(
        folder,
        "calibrate",
        "source-meter",
        "keys.toml",
        "--bench",
        "bench.toml",
        "-o",
        "source-meter.toml",
    )

    many = {"value": [1e-3 * k for k in range(80)], "half_width": [1e-4] * 80, "unit": "1"}
    one = {"value": 0.25, "half_width": 0.125, "unit": "1"}
    CalibrationFile.model_validate(
        {
            "kind": "board-converters", "date": DATE, "validity_days": 36500.0,
            "instrument": {"model": "a board", "serial": "7", "chip": "kept"},
            "values": {"adc_gain": one, "column_gain": many},
        }
    ).write(folder / "arrays-beside.toml")  # fmt: skip
    for path in (*folder.glob("*keys*"), *folder.glob("*bench*"), *folder.glob("*.journal"),
                 *folder.glob("*.ledger*"), folder / "board.toml"):  # fmt: skip
        path.unlink()
    for path in folder.glob("*.h5"):
        if not path.stem.endswith(".arrays"):
            path.unlink()


def prepare(folder: Path, text: str) -> None:
    """Bench file, recipe and targets of a run."""
    folder.mkdir()
    (folder / "bench.toml").write_text(text)
    (folder / "recipe.toml").write_text(RECIPE)
    targets = np.full((1, 8, 8), np.nan)
    targets[0, :4, :4] = np.linspace(10e-6, 90e-6, 16).reshape(4, 4)
    targets[0, 3, 3] = np.nan
    np.save(folder / "target.npy", targets)


def cut_off(folder: Path) -> None:
    """A run whose process is killed in the middle of write-verify."""
    child = os.fork()
    if child == 0:
        from rram_hil.engine import Watcher

        class Death(Watcher):
            seen = 0

            def operation(self, *_: object) -> None:
                self.seen += 1
                if self.seen == 30:
                    os.kill(os.getpid(), signal.SIGKILL)

        run_recipe(
            folder / "recipe.toml", folder / "bench.toml", folder / "run.h5", watcher=Death()
        )
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    """Everything, into `folder`."""
    calibrations(folder / "calibration")
    network = Network(
        (
            Linear(name="first", inputs=4, outputs=3),
            ReLU(name="on"),
            Linear(name="last", inputs=3, outputs=2),
        ),
        {"first": np.arange(12).reshape(3, 4) / 8, "last": np.arange(6).reshape(2, 3) / 4},
        {"first": np.arange(3) / 2, "last": np.arange(2) / 2},
    )
    network.save(folder / "network.safetensors")
    (folder / "model.toml").write_text(to_toml(DeviceModel.load("hfo2-measured")))

    run = folder / "run"
    in_force = '[calibration]\nfiles = ["../calibration/converters.toml"]\n'
    prepare(run, bench("kept", "test-chip-board", board('state = "kept.state"\n'), in_force))
    command(
        run,
        "run",
        "recipe.toml",
        "--bench",
        "bench.toml",
        "--out",
        "run.h5",
        "--record",
        "session.jsonl",
    )

    cut = folder / "cut"
    prepare(cut, bench("cut", "simulated-array", 'state = "cut.state"\nline_ohm = 1.0\n'))
    cut_off(cut)
    resumed = folder / "resumed"
    shutil.copytree(cut, resumed)
    command(resumed, "run", "recipe.toml", "--bench", "bench.toml", "--out", "run.h5", "--resume")
    (cut / "run.h5").unlink()

    told = {
        "run": figures(run / "run.h5", run / "kept.ledger.npy"),
        "resumed": figures(resumed / "run.h5", resumed / "cut.ledger.npy"),
        "entry_points": {g: sorted(entry_points(group=g).names) for g in GROUPS},
        "digests": {n: DeviceModel.load(n).digest for n in ("hfo2", "hfo2-measured", "paper")},
    }
    (folder / "figures.json").write_text(json.dumps(told, indent=1))
    shutil.rmtree(resumed)
    # What git is told to leave alone, and what is long, is kept compressed.
    for pattern in ("*.h5", "*.journal", "*.jsonl", "*.state", "*.ledger.npy"):
        for path in folder.rglob(pattern):
            packed = path.with_name(path.name + ".gz")
            packed.write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
            path.unlink()
    for path in folder.rglob("*.lock"):
        path.unlink()


def figures(path: Path, ledger: Path) -> dict[str, object]:
    """What a run file says, in JSON."""
    with read_run(path) as done:
        results = {f"{s}/{n}": done.result(s, n).values for s, n in done.result_names}
        numbers = {n: v for n, v in results.items() if v.dtype.kind in "fiub"}
        return {
            "status": done.status,
            "steps": done.table("steps")["name"].tolist(),
            "protocols": done.table("steps")["protocol"].tolist(),
            "rows": {name: done.rows(name) for name in done.tables},
            "maps_uS": (done.map("conductance").values[:, 0, :4, :4] * 1e6).round(6).tolist(),
            "sums": {n: [list(v.shape), float(np.nansum(v))] for n, v in numbers.items()},
            "texts": {n: v.tolist() for n, v in results.items() if n not in numbers},
            "pulses": np.load(ledger).reshape(8, 8)[:4, :4].tolist(),
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
