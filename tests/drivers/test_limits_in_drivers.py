"""Limits hold in drivers that are called by themselves, without the engine before them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Limits,
    Multiply,
    Program,
    PulseTrain,
    Ramp,
    Status,
    Step,
    read_step,
)
from rram_hil.drivers.simulated import test_chip_board as far_board
from rram_hil.drivers.simulated_array import SimulatedArray, SimulatedArrayConfig, launch
from rram_hil.drivers.test_chip_board import TestChipBoard, TestChipBoardConfig
from rram_hil.errors import BenchError, ConfigError, LimitError
from rram_hil.hardware.driver import Driver
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation

GEOMETRY = Geometry(1, 2, 3)
ALL = Cells.all(GEOMETRY)
LIMITS = Limits(
    bl_v=4.2, sl_v=2.8, wl_v=3.6, cell_v=4.1, gate_over_v=3.7, half_select_v=0.7, read_v=0.25,
    current_a=1e-3, energy_j=1e-7, width_s=1e-5, pulses_per_cell=5,
)  # fmt: skip
Make = Callable[[Limits], tuple[Driver, Any]]


@pytest.fixture(params=["simulated-array", "test-chip-board"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """A connected driver of each kind, and the chip behind it."""
    made: list[Driver] = []

    def start(limits: Limits) -> tuple[Driver, Any]:
        asked = FarSideRequest(Simulation(device="paper"), GEOMETRY, limits, "c1", tmp_path)
        driver: Driver
        if request.param == "simulated-array":
            config = SimulatedArrayConfig.model_validate(launch(asked).settings)
            driver = SimulatedArray(config, GEOMETRY, limits)
            driver.connect()
            chip = driver.chip
        else:
            board = far_board.board(asked)
            threading.Thread(target=board.serve, daemon=True).start()
            port = str(board.addresses["resource"])
            driver, chip = (
                TestChipBoard(TestChipBoardConfig(port=port), GEOMETRY, limits),
                board.chip,
            )
            driver.connect()
        made.append(driver)
        return driver, chip

    yield start
    for driver in made:
        driver.close()


TRAIN = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.1), 1e-7)
BEYOND = {
    "volts": Apply(ALL, (Step(4.3, 0.0, 2.0, 1e-7),)),
    "width": Apply(ALL, (Step(2.0, 0.0, 2.0, 1e-4),)),
    "life": Apply(ALL, (Step(2.0, 0.0, 2.0, 1e-7),), repeat=6),
    "max_pulses": Program(ALL, 1e-5, 2e-5, TRAIN, TRAIN, read_step(), max_pulses=1000),  # type: ignore[arg-type]
    "multiply": Multiply(0, 0, 0, 2, np.ones((1, 2), int), read_v=0.3),
    "full scale": Multiply(0, 0, 0, 2, np.ones((1, 2), int), full_scale_a=1e-300),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_is_beyond_a_limit_is_refused_and_gives_no_pulse(make: Make, what: str) -> None:
    driver, chip = make(LIMITS)
    driver.arm()
    with pytest.raises((LimitError, ConfigError)):
        driver.execute(BEYOND[what], 1)
    assert chip.pulses.sum() == 0
    driver.safe_off()


def test_a_pulsed_cell_carries_no_more_than_the_limits_say(make: Make) -> None:
    """A current measured in a pulse without a compliance of its own stands at the limit's."""
    limits = LIMITS.model_copy(update={"current_a": 4e-6, "conductance_s": [0.0, 1.5e-5]})
    driver, chip = make(limits)
    driver.arm()
    chip._state.conductance_s[:] = 1e-4
    chip._state.formed[:] = True
    result = driver.execute(Apply(ALL, (Step(0.6, 0.0, 3.0, 1e-6, "current"),)), 1)
    assert isinstance(result, ApplyResult)
    assert np.all(result.status == Status.COMPLIANCE)
    assert np.all(np.abs(result.current_a) <= 4.001e-6)


def test_a_current_that_cannot_be_kept_is_refused_when_armed(make: Make) -> None:
    driver, _ = make(LIMITS.model_copy(update={"current_a": 1e-7}))
    with pytest.raises(BenchError, match=r"current_a of 1e-07 A cannot be kept") as refused:
        driver.arm()
    assert "\n" not in str(refused.value)


def test_the_board_outlives_an_error_of_its_own(make: Make) -> None:
    driver, chip = make(LIMITS)
    driver.arm()

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("oops")

    really, chip.execute = chip.execute, broken
    if isinstance(driver, TestChipBoard):
        with pytest.raises(BenchError, match="ZeroDivisionError: oops"):
            driver.execute(Apply(ALL, (read_step(),)), 1)
        chip.execute = really
        driver.safe_off()
