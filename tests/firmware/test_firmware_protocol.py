"""The firmware as a process of this machine before the simulated chip, and as the reference port in
QEMU: both keep every rule of the protocol, and do what the driver asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from firmware_builds import host_board, needs
from reference_port import running

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    read,
    read_step,
)
from rram_hil.drivers.board_test import examine
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.drivers.test_chip_board import TestChipBoard, TestChipBoardConfig
from rram_hil.errors import LimitError
from rram_hil.hardware.examination import Drive, Port, Verdict
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation

pytestmark = pytest.mark.firmware

GEOMETRY = Geometry(1, 8, 8)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=4.0,
    cell_v=3.0,
    gate_over_v=4.0,
    half_select_v=4.0,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1e-8,
    width_s=1e-3,
    pulses_per_cell=1000,
)
SOME = Cells.all(GEOMETRY)[:16]
MICROCONTROLLER = needs("arm-none-eabi-gcc", "qemu-system-arm", "make")
STEP_S = 1e-3 / 2047 / 0.2
"""A step of the reference port's converter, at the read volts."""


@pytest.fixture(scope="module", params=["host", pytest.param("qemu", marks=MICROCONTROLLER)])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the firmware is reached."""
    if request.param == "qemu":
        with running() as terminal:
            yield terminal
        return
    made = Simulation(firmware=str(host_board()), pace=1.0)
    far = launch(FarSideRequest(made, GEOMETRY, LIMITS, "c1", Path(".")))
    yield far.settings["port"]
    far.stop()


@pytest.fixture
def board(place: str) -> Iterator[TestChipBoard]:
    made = TestChipBoard(TestChipBoardConfig(port=place), GEOMETRY, LIMITS)
    made.connect()
    made.arm()
    yield made
    made.close()


def test_every_rule_of_the_protocol_is_kept(place: str) -> None:
    drive = Drive(cells=(0, 5), read_v=0.1, gate_v=2.0, pulse_v=1.0)
    # An emulated processor loses ticks of its clock where this machine has others to serve.
    found = list(examine(Port(place, silence_s=4.0), drive))
    broken = [one for one in found if one.verdict not in (Verdict.KEPT, Verdict.LEFT_OUT)]
    assert not broken, broken
    assert len(found) == 38


@pytest.mark.parametrize(
    ("step", "scheme", "what"),
    [
        (Step(4.5, 0.0, 4.0, 1e-6), Scheme.INHIBIT, "BL 4.5 V"),
        (Step(0.0, -4.001, 0.0, 1e-6), Scheme.INHIBIT, "SL -4.001 V"),
        (Step(0.0, 0.0, 4.0001, 1e-6), Scheme.INHIBIT, "WL 4.0001 V"),
        (Step(-1.5, 1.6, 0.0, 1e-6), Scheme.INHIBIT, "BL - SL -3.1 V"),
        (Step(1.0, None, 2.0, 1e-6), Scheme.INHIBIT, "BL beside a floating line 1 V"),
        (Step(-1.0, 0.0, 3.5, 1e-6), Scheme.INHIBIT, "WL above the lower of BL and SL 4.5 V"),
        (Step(1.0, 0.0, 2.0, 2e-3), Scheme.INHIBIT, "width 0.002 s|energy of a pulse"),
        (Step(2.0, 0.0, 2.0, 9e-4), Scheme.GROUNDED, "energy of a pulse (1.8|3.6)e-06 J"),
    ],
)
def test_what_passes_a_limit_is_refused_by_the_board(
    board: TestChipBoard, step: Step, scheme: Scheme, what: str
) -> None:
    number = board.last_number()
    with pytest.raises(LimitError, match=what):
        board.execute(Apply(SOME, (step,), scheme), number + 1)
    assert board.last_number() == number


@MICROCONTROLLER
def test_a_microcontroller_reads_programs_and_multiplies() -> None:
    with running() as terminal:
        board = TestChipBoard(TestChipBoardConfig(port=terminal), GEOMETRY, LIMITS)
        board.connect()
        board.arm()
        up = PulseTrain(Ramp(1.2, 2.0, 0.1), Ramp(1.0, 3.0, 0.1), 1e-6)
        down = PulseTrain(Ramp(0.8, 2.5, 0.05), Ramp(3.0, 3.0), 1e-6)
        window = np.full(16, 7e-5), np.full(16, 8e-5)
        written = board.execute(Program(SOME, *window, up, down, read_step(), 60), 1)
        assert written.inside.all()
        np.testing.assert_array_equal(board.executed(1, SOME), written.pulses)
        found = board.execute(read(SOME, repeat=2), 2).conductance_s
        assert ((found > 7e-5 - STEP_S) & (found < 8e-5 + STEP_S)).all()
        ones = np.full((1, 2), 127, dtype=np.int16)
        product = board.execute(Multiply(0, 0, 0, 8, ones), 3)
        columns = found[:, 0].reshape(2, 8).sum(axis=0) * 0.2
        assert (np.abs(product.codes[0] * product.lsb_a - columns) <= 2 * product.lsb_a).all()
        coded = board.execute(CodedRead((Block(0, 0, 2, 0, 8),)), 4)
        assert (np.abs(coded.conductance_s - found[:, 0]) <= STEP_S).all()
        board.close()
