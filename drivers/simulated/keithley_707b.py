"""Simulated Keithley 707B (6 slots) and 708B (1 slot) with 8x12 cards; see `.tsp.switch` for what
it was written from.

Names are slot, row letter, two-digit column ("1A01"). Firmware and serial numbers as in the
manual's examples.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from .tsp.instrument import LuaTable
from .tsp.switch import CardType, SimulatedTspSwitch


class Simulated707B(SimulatedTspSwitch):
    """A 707B or 708B; by default with a 7174A in every slot."""

    MODELS = ("707B", "708B")
    FIRMWARE = "01.10h"
    CARDS: ClassVar[tuple[CardType, ...]] = (
        CardType("7174A", "8x12 High Speed Matrix", 8, 12, 2e-3),
        CardType("7072", "8x12 SemiMatrix", 8, 12, 15e-3),
        CardType("7173", "4x12 Hi Freq Matrix", 4, 12, 15e-3),
    )
    SLOTS: ClassVar[dict[str, int]] = {"707B": 6, "708B": 1}
    ROWS = "ABCDEFGH"
    COLUMNS = 12
    PACES_ITSELF = True

    @override
    def point_name(self, slot: int, row: int, column: int) -> str:
        return f"{slot}{self.ROWS[row - 1]}{column:02d}" if 1 <= row <= len(self.ROWS) else ""

    @override
    def build(self) -> None:
        super().build()
        self.globals.set("memory", LuaTable({"available": lambda: "51.56, 92.84, 100.00"}))
