"""`rram-hil simulate` as any program meets it: printed lines, ports, how it ends, what it
refuses.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyvisa

from rram_hil.bench.standalone import serve, start_bench, start_model
from rram_hil.drivers.simulated.lakeshore_336 import SimulatedLakeShore336
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.hardware.far_side import SimulatedFarSide

RACK = """\
[chip]
id = "r1"
tiles = 1
rows = 4
columns = 4
cell = "1T1R"
source_lines = "common"

[driver]
name = "smu-matrix"

[driver.instruments.smu]
kind = "keithley-2600b"
model = "2636B"

[driver.instruments.matrix]
kind = "keithley-707b"
model = "707B"

[driver.wiring]
channels = { "smu.a" = "A", "smu.b" = "B" }
ground = "C"
wl = "1-4"
bl = "5-8"
sl = "9"

[limits]
bl_v = 4.0
sl_v = 3.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.0
half_select_v = 0.3
read_v = 0.25
current_a = 1e-3
energy_j = 1e-5
width_s = 1e-2
pulses_per_cell = 100

[simulation]
"""
BOARD = re.sub(
    r"\[driver\].*(?=\[limits\])", '[driver]\nname = "test-chip-board"\n\n', RACK, flags=re.DOTALL
)
ARC_ONE = re.sub(
    r'rows = 4\ncolumns = 4\ncell = "1T1R"', 'rows = 32\ncolumns = 32\ncell = "1R"', RACK
)
ARC_ONE = re.sub(
    r"\[driver\].*(?=\[limits\])", '[driver]\nname = "arc-one"\n\n', ARC_ONE, flags=re.DOTALL
)


class Running:
    """`rram-hil simulate` as a process; what it has printed, and how to end it."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        # New group: signals of the test reach this process alone, as a terminal's Ctrl-C does not.
        # Begun as a shell's background job is: with Ctrl-C ignored.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rram_hil.cli", "simulate", *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def lines(self, count: int) -> list[list[str]]:
        """The first lines, each split at its tabs; they come although the process goes on."""
        assert self.process.stdout is not None
        return [self.process.stdout.readline().rstrip("\n").split("\t") for _ in range(count)]

    def end(
        self, with_signal: int = signal.SIGTERM, *, group: bool = False
    ) -> tuple[int, str, str]:
        """Exit status and the rest of both outputs."""
        (os.killpg if group else os.kill)(self.process.pid, with_signal)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def simulate(*arguments: str, folder: Path) -> Iterator[Running]:
    running = Running(*arguments, folder=folder)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()


def port_of(resource: str) -> int:
    found = re.fullmatch(r"TCPIP::127\.0\.0\.1::(\d+)::SOCKET", resource)
    assert found, resource
    return int(found[1])


def ask(resource: str, line: str) -> str:
    """One question over a raw socket."""
    with socket.create_connection(("127.0.0.1", port_of(resource)), timeout=10) as link:
        link.sendall(line.encode() + b"\n")
        return link.makefile().readline().strip()


@pytest.mark.parametrize(
    ("with_signal", "group"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.long),
    ],
)
def test_a_bench_prints_a_line_for_each_instrument_and_runs_until_interrupted(
    tmp_path: Path, with_signal: int, group: bool
) -> None:
    (tmp_path / "bench.toml").write_text(RACK)
    with simulate("bench.toml", folder=tmp_path) as running:
        smu, matrix = running.lines(2)
        assert smu[:2] == ["smu", "Keithley 2636B"]
        assert matrix[:2] == ["matrix", "Keithley 707B"]
        assert " 2636B," in ask(smu[2], "*IDN?")
        assert " 707B," in ask(matrix[2], "*IDN?")
        status, out, err = running.end(with_signal, group=group)
    assert (status, out) == (0, ""), err
    assert re.fullmatch(r"control socket: 127\.0\.0\.1:\d+\n", err)
    with pytest.raises(OSError, match=r".+"):
        ask(smu[2], "*IDN?")


def test_one_instrument_alone_measures_its_load_through_pyvisa(tmp_path: Path) -> None:
    with simulate("--model", "keithley 2400", "--load", "1e4", folder=tmp_path) as running:
        ((_, model, resource),) = running.lines(1)
        assert model == "Keithley 2400"
        manager = pyvisa.ResourceManager("@py")
        try:
            meter = manager.open_resource(resource, read_termination="\n", write_termination="\n")
            assert isinstance(meter, pyvisa.resources.MessageBasedResource)
            assert "MODEL 2400" in meter.query("*IDN?")
            meter.write(
                ":SOUR:FUNC VOLT;:SOUR:VOLT 1;:SENS:FUNC 'CURR';:SENS:CURR:PROT 1e-3;:FORM:ELEM"
                " CURR;:OUTP ON"
            )
            assert float(meter.query(":READ?")) == pytest.approx(1e-4, rel=5e-3)
            meter.write(":OUTP OFF")
            meter.close()
        finally:
            manager.close()
        assert running.end() == (0, "", "")


@pytest.mark.long
def test_without_a_load_nothing_hangs_on_the_channels_and_the_port_may_be_chosen(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with simulate("--model", "B2902A", "--port", str(port), folder=tmp_path) as running:
        ((_, model, resource),) = running.lines(1)
        assert (model, port_of(resource)) == ("Keysight B2902A", port)
        ask(resource, ":SOUR1:VOLT 1;:OUTP1 ON;*OPC?")
        assert abs(float(ask(resource, ":MEAS:CURR? (@1)"))) < 1e-9
        second = subprocess.run(
            [
                sys.executable,
                "-m",
                "rram_hil.cli",
                "simulate",
                "--model",
                "B2902A",
                "--port",
                str(port),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (second.returncode, second.stdout) == (2, "")
        assert re.fullmatch(rf"rram-hil: port {port}: cannot be used: .+\n", second.stderr)
        assert running.end()[0] == 0


@pytest.mark.parametrize(
    ("name", "text", "model"),
    [("board", BOARD, "test-chip board"), ("arc-one", ARC_ONE, "ArC ONE")],
)
def test_boards_of_a_bench_are_started_too(
    tmp_path: Path, name: str, text: str, model: str
) -> None:
    (tmp_path / "bench.toml").write_text(text)
    with simulate("bench.toml", folder=tmp_path) as running:
        ((told, model_told, resource),) = running.lines(1)
        assert (told, model in model_told) == (name, True)
        host, _, port = resource.removeprefix("socket://").rpartition(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), timeout=10).close()
        status, out, err = running.end()
    assert (status, out) == (0, ""), err


@pytest.mark.parametrize(
    ("model", "modules", "question", "told"),
    [
        ("B1500A", None, "UNT?", "B1517A,0;B1517A,0;B1511B,0;B1511B,0;B1525A,0;0,0"),
        ("B1500A", ["B1517A", "", "B1525A"], "UNT?", "B1517A,0;0,0;B1525A,0;0,0"),
        ("707B", ["", "7072"], "print(slot[1].idn)", "Empty Slot"),
        ("707B", ["", "7072"], "print(slot[2].idn)", "7072,"),
    ],
)
def test_a_mainframe_alone_holds_the_modules_that_it_is_given(
    model: str, modules: list[str] | None, question: str, told: str
) -> None:
    alone = start_model(model, modules=modules)
    try:
        assert ask(alone.instruments[0][2], question).startswith(told)
    finally:
        alone.stop()


def test_the_thermostat_of_a_bench_is_served_on_the_clock_of_that_bench(tmp_path: Path) -> None:
    section = '[thermostat]\nkind = "lakeshore-336"\nlowest_k = 290\nhighest_k = 400\n\n[limits]'
    (tmp_path / "bench.toml").write_text(BOARD.replace("[limits]", section))
    far_side = start_bench(tmp_path / "bench.toml")
    try:
        (name, model, resource) = far_side.instruments[-1]
        assert (name, model) == ("thermostat", "Lake Shore 336")
        assert ask(resource, "*IDN?").startswith("LSCI,MODEL336,")
        assert ask(resource, "SETP 1,350;RANGE 1,1;KRDG? A") == "+295.0000"
        with BoardControl(far_side.control) as control:
            control.advance(1e4)
        assert ask(resource, "KRDG? A") == "+350.0000"
    finally:
        far_side.stop()
    with pytest.raises(OSError, match=r".+"):
        ask(resource, "*IDN?")


def test_a_thermostat_alone_lives_on_the_time_of_this_computer() -> None:
    clock = SimulatedLakeShore336.place_alone(1.0).bus.clock
    before_s = time.monotonic()
    assert before_s <= clock.now_s <= time.monotonic()


@pytest.mark.long
def test_arc_one_runs_alone(tmp_path: Path) -> None:
    with simulate("--model", "arc one", folder=tmp_path) as running:
        ((_, model, resource),) = running.lines(1)
        assert "ArC ONE" in model
        assert resource.startswith("socket://127.0.0.1:")
        assert running.end()[0] == 0


def test_ctrl_c_that_came_while_a_library_was_imported_is_not_lost() -> None:
    # An exception raised in the import system's own callbacks ends nothing.
    far_side = SimulatedFarSide({}, "", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        serve(far_side, is_stopped=lambda: True)


@pytest.mark.long
def test_a_bench_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(RACK)
    with simulate("bench.toml", folder=tmp_path) as running:
        running.lines(2)
        assert running.process.stderr is not None
        with BoardControl(running.process.stderr.readline().split()[-1]) as control:
            control.quit()
        _, err = running.process.communicate(timeout=30)
        assert running.process.returncode == 2
        assert err == "rram-hil: the simulated bench has ended by itself\n"


def test_it_does_not_outlive_a_killed_command(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(RACK)
    with simulate("bench.toml", folder=tmp_path) as running:
        smu, _ = running.lines(2)
        running.process.kill()
        running.process.wait(10)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port_of(smu[2])), timeout=1).close()
            except OSError:
                return
            time.sleep(0.05)
    pytest.fail("the instruments are still there")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a bench file, or --model"),
        (("bench.toml", "--model", "2400"), "give a bench file, or --model"),
        (("--model", "espresso"), "'espresso': there is no such simulator; there are "),
        (("--model", "Keithley 2637B"), "there is no such simulator; did you mean 263"),
        (("--model", "Keithley 2657A"), "there is no such simulator; a 2606B"),
        (("--model", "2400", "--load", "0"), "--load 0: the resistance must be above 0 ohm"),
        (("--model", "2400", "--load", "nan"), "--load nan: the resistance must be above 0 ohm"),
        (("bench.toml", "--port", "5025"), "--port and --modules go with --model"),
        (("bench.toml", "--modules", "B1525A"), "and --modules go with --model"),
        (("--model", "2400", "--modules", "1"), "--modules: 2400 has no slots for modules"),
        (("--model", "arc one", "--modules", "1"), "--modules: ArC ONE has no slots"),
        (
            ("--model", "B1500A", "--modules", "B1517A,B1525"),
            "'B1525' in slot 2 is wrong: one of B1",
        ),
        (("--model", "708B", "--modules", "7072,7072"), "2 of them; 708B has 1"),
        (("bench.toml",), "nothing to connect to"),
        (("real.toml",), "describes a real bench"),
        (("none.toml",), "no such file"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(
    here, arguments: tuple[str, ...], told: str
) -> None:  # type: ignore[no-untyped-def]
    text = (here.folder / "bench.toml").read_text()
    here.write("real.toml", text[: text.index("[simulation]")])
    assert told in here.refused("simulate", *arguments)


def test_the_list_of_simulators_names_every_model(here) -> None:  # type: ignore[no-untyped-def]
    line = here.refused("simulate", "--model", "?")
    told = {
        maker: models.split(", ")
        for words in line.partition("there are ")[2].split("; ")
        for maker in ("Keithley", "Keysight", "ArC Instruments", "Lake Shore", "Temptronic")
        if (models := words.removeprefix(f"{maker} ")) != words
    }
    assert {"2400", "2450", "2636B", "707B", "3706A"} <= set(told["Keithley"])
    assert {"B1500A", "B2902A", "33511B"} <= set(told["Keysight"])
    assert (told["ArC Instruments"], told["Lake Shore"][0]) == (["ArC ONE"], "336")
    assert "TP04310A" in told["Temptronic"]
