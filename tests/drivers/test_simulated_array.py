import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rram_hil.array import (
    ApplyResult,
    Cells,
    Geometry,
    Limits,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    pulse,
    read,
    read_step,
)
from rram_hil.drivers.simulated_array import SimulatedArray, SimulatedArrayConfig, launch
from rram_hil.engine.lowering import lower
from rram_hil.errors import LinkError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation

GEOMETRY = Geometry(1, 12, 10)
LIMITS = Limits(
    bl_v=4.5,
    sl_v=3.0,
    wl_v=4.0,
    cell_v=4.5,
    gate_over_v=4.0,
    half_select_v=0.5,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1e-8,
    width_s=1e-5,
    pulses_per_cell=1000,
)


def array(device: str, folder: Path) -> SimulatedArray:
    side = launch(FarSideRequest(Simulation(device=device), GEOMETRY, LIMITS, "T2", folder))
    driver = SimulatedArray(SimulatedArrayConfig.model_validate(side.settings), GEOMETRY, LIMITS)
    driver.connect()
    driver.arm()
    return driver


def carry_out(
    driver: SimulatedArray, operation: Operation, number: int, **narrow: object
) -> tuple[object, int]:
    """Run an operation as the core would on hardware that is narrower than this: its result, and
    operations used.
    """
    lowered = lower(operation, replace(driver.capabilities, **narrow), LIMITS)  # type: ignore[arg-type]
    step = next(lowered)
    while True:
        number += 1
        try:
            step = lowered.send(driver.execute(step, number))
        except StopIteration as end:
            return end.value, number


def prepared(driver: SimulatedArray) -> tuple[Program, int]:
    cells = Cells.all(GEOMETRY)
    driver.execute(pulse(cells, bl_v=4.0, wl_v=2.0, width_s=1e-6), 1)
    driver.execute(pulse(cells, sl_v=2.0, wl_v=3.5, width_s=2e-7), 2)
    target = np.geomspace(2e-6, 90e-6, len(cells))
    model = driver.chip.model
    train_up = PulseTrain(
        Ramp(2.0, 2.0), Ramp(model.nominal_set_gate_v(target * 0.8), 3.2, 0.02), 1e-7
    )
    train_down = PulseTrain(
        Ramp(model.nominal_reset_sl_v(target * 1.3), 2.4, 0.02), Ramp(3.5, 3.5), 2e-7
    )
    return Program(
        cells, target * 0.95, target * 1.05, train_up, train_down, read_step(), max_pulses=40
    ), 2


def test_programming_from_the_host_ends_exactly_as_on_the_board(tmp_path: Path) -> None:
    board, host = array("paper", tmp_path), array("paper", tmp_path)
    program, number = prepared(board)
    prepared(host)
    on_board, _ = carry_out(board, program, number)
    from_host, used = carry_out(host, program, number, program=False, max_cells=50)
    assert isinstance(on_board, ProgramResult)
    assert isinstance(from_host, ProgramResult)
    assert used > number + 10
    for name in ("conductance_s", "status", "inside", "set_pulses", "reset_pulses", "reads"):
        np.testing.assert_array_equal(getattr(on_board, name), getattr(from_host, name))
    np.testing.assert_array_equal(board.chip.conductance_s(), host.chip.conductance_s())


def test_the_driver_identifies_counts_and_lets_go(tmp_path: Path) -> None:
    driver = array("paper", tmp_path)
    identity = driver.connect()
    assert identity.chip == "T2"
    assert str(os.getpid()) in identity.boot
    cells = Cells.of([(0, 0, 1), (0, 3, 3)])
    result = driver.execute(pulse(cells, bl_v=1.0, wl_v=2.0, width_s=1e-6, read=read_step()), 5)
    assert isinstance(result, ApplyResult)
    counted = driver.executed(5, cells)
    assert counted is not None
    assert counted.tolist() == [1, 1]
    assert driver.last_number() == 5
    assert driver.now_s() > 0
    driver.safe_off()
    driver.close()
    driver.close()
    with pytest.raises(LinkError, match="not connected"):
        driver.execute(read(cells), 6)


def test_the_direct_array_does_everything_natively(tmp_path: Path) -> None:
    can = array("hfo2", tmp_path).capabilities
    assert can.program
    assert can.multiply
    assert can.counters
    assert can.bl_v.holds(0.0, 4.5)
    assert can.width_s.holds(100e-9, 1e-3)
