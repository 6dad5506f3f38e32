"""What every simulated board is before its chip, whoever speaks for it: link, faults, truths."""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from rram_hil.array import Cells
from rram_hil.errors import ConfigError
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import FaultEntry

from ..server.control import FaultQueue, checked_fault
from ..server.far_side import FarSide
from .codec import COMMANDS, LARGEST_PAYLOAD, OVERHEAD
from .host_links import HostLink
from .link_faults import BOARD_FAULTS

MODEL, STRANGE_MODEL = "rram_hil simulated test-chip board", "Espresso machine"
MAGIC, STRANGE_MAGIC = b"RRAMTCB\0", b"COFFEE!\0"


class BoardSide(FarSide):
    """A board before one `SimulatedChip`, with the faults of its link."""

    def __init__(self, link: HostLink, chip: SimulatedChip) -> None:
        super().__init__(chip, threading.RLock())
        self.addresses["resource"] = link.resource
        self._link, self._geometry, self._timing = link, chip.geometry, chip.simulation.timing
        self._frame_bytes = int(min(LARGEST_PAYLOAD, max(1024.0, 0.05 * self._timing.bytes_per_s)))
        self.faults = FaultQueue()

    def _message_s(self, size: int) -> float:
        """What a message of so many bytes costs on the link (s), its frames included."""
        frames = -(-max(1, size) // self._frame_bytes)
        return (size + frames * OVERHEAD) / self._timing.bytes_per_s

    @override
    def inject(self, entry: FaultEntry | dict[str, Any]) -> None:
        """Let a fault happen. Raises `ConfigError` for one that the board does not know."""
        _, faults = checked_fault(entry, ["board"], BOARD_FAULTS)
        for fault in faults:
            if fault.on and fault.on not in COMMANDS.values():
                raise ConfigError(
                    f"{fault.on!r} is no command; commands are {', '.join(COMMANDS.values())}"
                )
            self.faults.add(fault)

    @override
    def clear_faults(self) -> None:
        self.faults.clear()

    @override
    def truth(self, name: str) -> NDArray[Any]:
        if name == "numbers":
            numbers = self.chip.last_numbers(Cells.all(self._geometry))
            return numbers.reshape(self._geometry.shape)
        return super().truth(name)
