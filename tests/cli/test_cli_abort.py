"""Ctrl-C, SIGTERM, a closed terminal: the command is gone, outputs are off, the run can go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.far_side import launcher, request_of
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.hardware.far_side import SimulatedFarSide
from rram_hil.signals import stopping
from rram_hil.storage.run_reader import read_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
RUN = ("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")


@pytest.fixture
def board(here: Any) -> Iterator[SimulatedFarSide]:
    """A simulated board that takes 8 wall seconds for each second of its clock, and a bench file
    that has only its port.
    """
    here.bench("seed = 1", "seed = 1\npace = 8.0")
    file = load_bench_file("bench.toml")
    assert file.simulation is not None
    far = launcher("test-chip-board")(request_of(file))
    text = Path("bench.toml").read_text()
    text = text[: text.index("[simulation]")]
    port = f'"test-chip-board"\nport = "{far.settings["port"]}"'
    here.write("bench.toml", text.replace('"simulated-array"', port))
    here.write("recipe.toml", Path("recipe.toml").read_text() + "repeat = 300\n")
    yield far
    far.stop()


def _start(*options: str) -> subprocess.Popen[str]:
    code = "from rram_hil.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *RUN, *options], stderr=subprocess.PIPE, text=True
    )


def _stopped(process: subprocess.Popen[str], sent: signal.Signals) -> tuple[int, str]:
    process.send_signal(sent)
    _, err = process.communicate()
    return process.returncode, err


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(sent, marks=[pytest.mark.long] * (sent != signal.SIGTERM))
        for sent in stopping()
    ],
)
def test_abort_in_the_middle_of_a_run(
    here: Any, board: SimulatedFarSide, sent: signal.Signals
) -> None:
    process = _start()
    with BoardControl(board.control) as control:
        while not control.status()["outputs_on"]:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        status, err = _stopped(process, sent)
        assert status == 130, err
        line = err.splitlines()[-1]
        assert line.startswith("rram-hil: ")
        assert "aborted" in line
        assert "outputs are off" in line
        assert "--resume" in line
        assert "`recall` of a new run takes what forming found from r.h5" in line
        assert "Traceback" not in err
        told = control.status()
        assert not told["outputs_on"]
        assert not told["armed"]
        given = control.pulses()
    with read_run("r.h5") as run:
        assert run.status == "aborted"
        notes = run.table("notes")
    assert notes["event"].tolist() == ["aborted"]
    assert "outputs are off" in notes["text"][0]
    assert np.all(np.load(load_bench_file("bench.toml").ledger_path) >= given)
    assert here.command("show", "r.h5").out.startswith("r.h5  aborted")


@pytest.mark.long
def test_a_run_that_ignores_its_terminal_goes_on_without_it(
    here: Any, board: SimulatedFarSide
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = _start()
    finally:
        signal.signal(signal.SIGHUP, before)
    with BoardControl(board.control) as control:
        while not control.status()["outputs_on"]:
            assert process.poll() is None
            time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    status, err = _stopped(process, signal.SIGTERM)
    assert status == 130, err


def test_an_aborted_run_goes_on(here: Any) -> None:
    here.bench("seed = 1", "seed = 1\npace = 3.0")
    process = _start()
    while not Path("r.h5").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    status, err = _stopped(process, signal.SIGINT)
    assert status == 130, err
    assert "--resume" in err
    said = here.command(*RUN, "--resume")
    assert said.status == 0, said.err
    with read_run("r.h5") as run:
        assert run.status == "complete"
        assert run.attributes["resumed"] == 1
    assert np.load("c1.ledger.npy").max() <= 100


def test_stopped_before_the_engine_runs(here: Any) -> None:
    code = (
        "import time, rram_hil.bench.bench_file as b; from rram_hil.cli import main\n"
        "def slow(path): print('here', flush=True); time.sleep(30)\n"
        "b.load_bench_file = slow\nmain()"
    )
    command = [sys.executable, "-c", code, "check", "bench.toml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    status, err = _stopped(process, signal.SIGTERM)
    assert status == 130
    assert err == "rram-hil: stopped\n"
