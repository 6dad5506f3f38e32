"""A simulated board behind a real link, with a driver and the control socket, for every test of this folder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rram_hil.drivers import test_chip_board as board
from rram_hil.drivers.simulated.control import BoardControl
from rram_hil.drivers.simulated.test_chip_board import launch

from rram_hil.cells import Geometry
from rram_hil.device.config import Simulation, Timing
from rram_hil.errors import BenchError
from rram_hil.limits import Limits
from rram_hil.simulation import SimulatedFarSide

GEOMETRY = Geometry(2, 16, 24)
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
FREE_LINK = Timing(link_s=0.0, bytes_per_s=math.inf)


@dataclass
class BoardBench:
    """A running board; `driver()` makes an armed driver for it, which the fixture closes."""

    far: SimulatedFarSide
    control: BoardControl
    drivers: list[Any] = field(default_factory=list)

    def driver(
        self, *, geometry: Geometry = GEOMETRY, limits: Limits = LIMITS, arm: bool = True, **settings: Any
    ) -> Any:
        self.rest()
        config = {"timeout_s": 0.3, **self.far.settings, **settings}
        made = board.TestChipBoard(board.TestChipBoardConfig(**config), geometry, limits)
        self.drivers.append(made)
        if arm:
            made.connect()
            made.arm()
        return made

    def rest(self) -> None:
        """Close all drivers and forget faults, for the next test."""
        self.control.clear()
        for made in self.drivers:
            made.close()
        self.drivers.clear()


Start = Callable[..., BoardBench]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start a simulated board: `start(pace=..., transport=..., folder=..., seed=...)`."""
    running: list[BoardBench] = []

    def begin(folder: Path = Path("."), **simulation: Any) -> BoardBench:
        far = launch(Simulation(**{"timing": FREE_LINK, **simulation}), GEOMETRY, LIMITS, "c1", folder)
        running.append(BoardBench(far, BoardControl(far.control)))
        return running[-1]

    yield begin
    for bench in running:
        # A test may have ended this board.
        with contextlib.suppress(BenchError, ValueError):
            bench.rest()
        bench.control.close()
        bench.far.stop()
