"""A simulated board behind a real link, with a driver and the control socket, for every test of
this folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boards import GEOMETRY, LIMITS

from rram_hil.array import Geometry, Limits
from rram_hil.drivers import test_chip_board as board
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.simulation.config import Simulation, Timing

FREE_LINK = Timing(link_s=0.0, bytes_per_s=math.inf)


@dataclass
class BoardBench:
    """A running board. `driver()` makes an armed driver for it, or takes the last one again if
    nothing differs.
    """

    far: SimulatedFarSide
    control: BoardControl
    last: tuple[Any, Any] = (None, None)

    def driver(
        self,
        *,
        geometry: Geometry = GEOMETRY,
        limits: Limits = LIMITS,
        arm: bool = True,
        **settings: Any,
    ) -> Any:
        self.control.clear()
        config = board.TestChipBoardConfig(**{"timeout_s": 0.25, **self.far.settings, **settings})
        key, made = self.last
        if key != (config, geometry, limits) or not arm:
            self.close()
            made = board.TestChipBoard(config, geometry, limits)
            self.last = ((config, geometry, limits) if arm else "not armed", made)
            if not arm:
                return made
            made.connect()
        made.cancel.clear()
        made.arm()
        return made

    def close(self) -> None:
        """Close the driver; the board serves one host at a time."""
        key, made = self.last
        self.last = (None, None)
        if key is not None:
            made.close()


Start = Callable[..., BoardBench]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start a simulated board: `start(pace=..., transport=..., folder=..., seed=...)`; `geometry`
    and `limits` are those of this folder unless given.
    """
    running: list[BoardBench] = []

    def begin(
        folder: Path = Path("."),
        geometry: Geometry = GEOMETRY,
        limits: Limits = LIMITS,
        **simulation: Any,
    ) -> BoardBench:
        far = launch(
            FarSideRequest(
                Simulation(**{"timing": FREE_LINK, **simulation}), geometry, limits, "c1", folder
            )
        )
        running.append(BoardBench(far, BoardControl(far.control)))
        return running[-1]

    yield begin
    for bench in running:
        bench.close()
        bench.control.close()
        bench.far.stop()
