"""What every simulated bench does for its control socket."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from numpy.typing import NDArray

from rram_hil.array import Cells
from rram_hil.errors import ConfigError
from rram_hil.simulation.chip import Fault, SimulatedChip
from rram_hil.simulation.config import FaultEntry
from rram_hil.validation import shown

from .control import pack_array

LONGEST_S = 1e10
"""Of one advance of the clock: centuries."""


def _seconds(given: object) -> float:
    """How far a clock is to go on. Raises `ConfigError` for what is no time, or goes back."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LONGEST_S:
        raise ConfigError(f"seconds: {shown(given)}: must be a number from 0 to {LONGEST_S:g}")
    return float(given)


class FarSide(ABC):
    """A simulated bench before one `SimulatedChip`, which `chip_lock` guards.

    `addresses` tells the parent where its parts can be reached.
    """

    TRUTHS: ClassVar[tuple[str, ...]] = ("pulses", "words", "formed", "stuck")
    """Attributes of the chip that the control socket shows, besides "conductance_s"."""

    def __init__(self, chip: SimulatedChip, chip_lock: AbstractContextManager[object]) -> None:
        self.chip, self.chip_lock = chip, chip_lock
        self.addresses: dict[str, Any] = {}

    @abstractmethod
    def serve(self) -> None:
        """Answer the host until the process ends."""

    @abstractmethod
    def inject(self, entry: FaultEntry | dict[str, Any]) -> None:
        """Let a fault happen. Raises `ConfigError` for one that this bench does not know."""

    @abstractmethod
    def clear_faults(self) -> None:
        """Forget the faults that have not happened."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """What the control socket says of outputs, clock, counters and waiting faults."""

    def advance(self, seconds: float) -> float:
        """Let virtual time pass; the clock after it (s)."""
        self.chip.advance(seconds)
        return self.chip.now_s

    def truth(self, name: str) -> NDArray[Any]:
        """Ground truth by its name. Raises `ConfigError` for another."""
        if name == "conductance_s":
            return self.chip.conductance_s()
        if name not in self.TRUTHS:
            raise ConfigError(f"no ground truth {name!r}")
        shown: NDArray[Any] = getattr(self.chip, name)
        return shown

    def damage(self, fault: Fault, cells: Cells) -> None:
        """Give cells a fault."""
        self.chip.inject(fault, cells)

    def reboot(self, *, drop_link: bool) -> None:
        """A loss of power. Raises `ConfigError` where nothing here can be rebooted."""
        raise ConfigError("'reboot' is not known")

    def close(self) -> None:
        """Bring the chip's state to the disk."""
        self.chip.close()

    def control(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the control socket. Raises `ConfigError` for an unknown one."""
        do = request["do"]
        if do == "advance":
            with self.chip_lock:
                return {"now_s": self.advance(_seconds(request["seconds"]))}
        if do == "truth":
            with self.chip_lock:
                return {"npy": pack_array(self.truth(request["name"]))}
        if do == "status":
            return self.status()
        if do == "damage":
            with self.chip_lock:
                cells = Cells.from_index(request["cells"], self.chip.geometry)
                self.damage(Fault(request["fault"]), cells)
        elif do == "inject":
            self.inject(request)
        elif do == "clear":
            self.clear_faults()
        elif do == "reboot":
            self.reboot(drop_link=bool(request["drop_link"]))
        elif do == "quit":
            self.close()
            threading.Timer(0.05, os._exit, (0,)).start()
        else:
            raise ConfigError(f"{do!r} is not known")
        return {}
