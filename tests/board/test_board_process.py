"""The simulated board as a process: it starts, ends with its parent, and its chip outlives it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from firmware_builds import host_board

from rram_hil.array import Cells, Geometry, Limits, Wait, pulse, read, read_step
from rram_hil.bench.far_side import launcher
from rram_hil.drivers import test_chip_board as board
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.errors import ConfigError, InstrumentError, LinkError, UnknownOutcomeError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation, Timing

GEOMETRY = Geometry(1, 8, 8)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=5.0,
    cell_v=4.0,
    gate_over_v=5.0,
    half_select_v=4.0,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1e-3,
    width_s=1e-2,
    pulses_per_cell=100000,
)
CELLS = Cells.all(GEOMETRY)
SET = pulse(CELLS, bl_v=1.0, wl_v=2.0, width_s=1e-7, read=read_step())


def wired(port: str) -> Any:
    made = board.TestChipBoard(
        board.TestChipBoardConfig(port=port, timeout_s=0.25, retries=1, reconnect_s=0.5),
        GEOMETRY,
        LIMITS,
    )
    made.connect()
    made.arm()
    return made


def ends_within(control: BoardControl, seconds: float) -> bool:
    """Whether the board's process ends in time."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        try:
            control.status()
        except LinkError:
            return True
        time.sleep(0.02)
    return False


def test_the_entry_point_leads_to_launch():
    assert launcher("test-chip-board") is launch


def test_the_chip_outlives_a_board_that_crashed_in_an_operation(tmp_path):
    simulation = Simulation(state="chip.state", timing=Timing(link_s=0.0, bytes_per_s=math.inf))
    far = launch(FarSideRequest(simulation, GEOMETRY, LIMITS, "c7", tmp_path))
    control, wire = BoardControl(far.control), wired(far.settings["port"])
    wire.execute(SET, 1)
    control.inject("crash", "APPLY")
    with pytest.raises(UnknownOutcomeError):
        wire.execute(SET, 2)
    with pytest.raises(LinkError, match="ended"):
        control.status()
    control.close()
    wire.close()
    far.stop()
    again = launch(FarSideRequest(simulation, GEOMETRY, LIMITS, "c7", tmp_path))
    try:
        wire = wired(again.settings["port"])
        assert wire.last_number() == 1
        assert (wire.executed(1, CELLS) == 1).all()
        assert wire.executed(2, CELLS).sum() == 0
        wire.execute(SET, 2)
        with BoardControl(again.control) as control:
            np.testing.assert_array_equal(control.pulses(), np.full(GEOMETRY.shape, 2))
        wire.close()
    finally:
        again.stop()


def test_a_board_that_cannot_start_says_why_in_one_line(tmp_path):
    with pytest.raises(
        ConfigError, match=r"\[simulation\]: the simulated board did not start: .*nosuch"
    ) as error:
        launch(FarSideRequest(Simulation(device="nosuch"), GEOMETRY, LIMITS, "c1", tmp_path))
    assert "\n" not in str(error.value)


def test_a_firmware_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"simulation\.firmware: .*nosuch: No such file"):
        launch(FarSideRequest(Simulation(firmware="nosuch"), GEOMETRY, LIMITS, "c1", tmp_path))


def program(folder: Path, script: str) -> str:
    path = folder / "board"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo one >&2; echo 'no such socket' >&2; exit 7", r"\(exit status 7\): no such socket$"),
        ("kill -ABRT $$", r"\(signal SIGABRT\)$"),
        ("exit 0", r"\(exit status 0\)$"),
    ],
)
def test_a_firmware_that_ends_at_once_is_told_with_its_last_words(tmp_path, script, told):
    made = Simulation(firmware=program(tmp_path, script))
    with pytest.raises(ConfigError, match="the firmware's process ended by itself " + told):
        launch(FarSideRequest(made, GEOMETRY, LIMITS, "c1", tmp_path))


@pytest.mark.firmware
def test_a_firmware_that_ends_later_is_told_in_every_answer(tmp_path):
    script = f'echo $$ >"{tmp_path}/pid"; exec "{host_board()}" "$1"'
    made = Simulation(firmware=program(tmp_path, script), pace=1.0)
    far = launch(FarSideRequest(made, GEOMETRY, LIMITS, "c1", tmp_path))
    try:
        wire = wired(far.settings["port"])
        pid = int((tmp_path / "pid").read_text())
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        for ask in (lambda: wire.execute(Wait(60.0), 1), wire.status, wire.safe_off):
            with pytest.raises(InstrumentError, match=r"ended by itself \(signal SIGKILL\)"):
                ask()
        wire.close()
    finally:
        far.stop()


def test_stop_ends_the_process_and_may_be_called_twice(tmp_path):
    far = launch(FarSideRequest(Simulation(), GEOMETRY, LIMITS, "c1", tmp_path))
    far.stop()
    far.stop()
    with pytest.raises(LinkError):
        BoardControl(far.control)
    with pytest.raises(LinkError):
        wired(far.settings["port"])


def test_the_board_ends_when_its_parent_is_killed(tmp_path: Path):
    program = f"""
        import time
        from pathlib import Path
        from rram_hil.array import Geometry
        from rram_hil.simulation.config import Simulation
        from rram_hil.drivers.simulated.test_chip_board import launch
        from rram_hil.array import Limits
        from rram_hil.hardware.far_side import FarSideRequest
        limits = Limits.model_validate({LIMITS.model_dump()!r})
        folder = Path({str(tmp_path)!r})
        far = launch(FarSideRequest(Simulation(), Geometry(1, 8, 8), limits, "c1", folder))
        print(far.control, flush=True)
        time.sleep(60)
    """
    arguments = [sys.executable, "-P", "-c", textwrap.dedent(program)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address = parent.stdout.readline().strip()
        with BoardControl(address) as control:
            assert not control.status()["busy"]
            parent.kill()
            parent.wait()
            assert ends_within(control, 5.0)


def test_quit_ends_the_board_and_the_driver_says_that_it_is_gone(tmp_path):
    far = launch(FarSideRequest(Simulation(), GEOMETRY, LIMITS, "c1", tmp_path))
    wire = wired(far.settings["port"])
    with BoardControl(far.control) as control:
        with pytest.raises(ConfigError, match="not known"):
            control.ask("dance")
        with pytest.raises(ConfigError, match="no command"):
            control.inject("drop-reply", "DANCE")
        control.quit()
        time.sleep(0.3)
    with pytest.raises(LinkError):
        wire.execute(read(CELLS), 1)
    with pytest.raises(LinkError):
        wire.safe_off()
    wire.close()
    far.stop()
