"""Simulated Keithley 3706A-SNFP or 3706-SNFP (no multimeter) with 3730 cards of 6x16; see
`.tsp.switch` for what it was written from.

Names are slot, row, two-digit column ("1101"); relays 911 to 916 of a slot join its rows to the
analog backplane, and are kept open while the card's interlock is. Attributes beyond those of
`channel` and `slot` as the source of QCoDeS 0.58 asks for them: `gpib`, `comm`, `lan.status`,
`memory`. Unverified: code and text of the interlock's error.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from .tsp.instrument import LuaTable, TspError, Value, boolean, number
from .tsp.lua_library import text_at
from .tsp.switch import WRONG_TYPE, CardType, Relay, SimulatedTspSwitch


class Simulated3706A(SimulatedTspSwitch):
    """A 3706A-SNFP or 3706-SNFP; by default with a 3730 in every slot. `interlocks` is each slot's
    interlock state, 3: both engaged.
    """

    MODELS = ("3706A", "3706")
    FIRMWARE = "01.56a"
    CARDS: ClassVar[tuple[CardType, ...]] = (
        CardType("3730", "6x16 High Density Matrix", 6, 16, 4e-3, (911, 912, 913, 914, 915, 916)),
    )
    SLOTS: ClassVar[dict[str, int]] = {"3706A": 6, "3706": 6}
    ROWS = "ABCDEF"
    COLUMNS = 16
    PACES_ITSELF = False

    @override
    def identification(self) -> str:
        model = self.pretends or f"{self.model}-SNFP"
        return f"KEITHLEY INSTRUMENTS INC.,MODEL {model},{self.place.serial},{self.FIRMWARE}"

    @override
    def point_name(self, slot: int, row: int, column: int) -> str:
        return f"{slot}{row}{column:02d}"

    @override
    def check_closable(self, relay: Relay) -> None:
        """A backplane relay needs its card's interlock."""
        if relay.row == 0 and not self.interlocks[relay.slot]:
            raise TspError(1117, "Parameter error hardware interlock disengaged")

    @override
    def build(self) -> None:
        self.interlocks = dict.fromkeys(self.slots, 3)
        super().build()
        self._gpib_address = 16.0
        buses = {"gpib": True, "lan": True}

        def bus(name: str) -> LuaTable:
            def enable(value: Value) -> None:
                buses[name] = boolean(value)

            table = LuaTable()
            table.define("enable", lambda: buses[name], enable)
            return table

        def set_address(value: Value) -> None:
            self._gpib_address = float(int(number(value, 0, 30)))

        gpib = LuaTable()
        gpib.define("address", lambda: self._gpib_address, set_address)
        self.globals.set("gpib", gpib)
        self.globals.set("comm", LuaTable({name: bus(name) for name in buses}))
        self.globals.set(
            "lan", LuaTable({"status": LuaTable({"ipaddress": "127.0.0.1"}), "reset": lambda: None})
        )
        self.globals.set("memory", LuaTable({"available": lambda: "51.56, 92.84, 100.00, 100.00"}))

    @override
    def slot_table(self, slot: int) -> LuaTable:
        table = super().slot_table(slot)
        card = self.cards.get(slot)
        if card is not None:
            interlock = LuaTable()
            interlock.define("state", lambda: float(self.interlocks[slot]))
            parts = {"rows": card.rows, "columns": card.columns}
            table.values |= {
                name: LuaTable({"matrix": float(count)}) for name, count in parts.items()
            }
            table.values["interlock"] = interlock
        return table

    @override
    def channel_table(self) -> LuaTable:
        table = super().channel_table()

        def set_backplane(channels: Value, relays: Value) -> None:
            points = self._crosspoints(channels, self._listed(channels, "setbackplane"))
            names = [
                self._relay(word).name
                for word in text_at(relays, 2, "setbackplane").split(",")
                if word.strip()
            ]
            if any(self.relays[name].row for name in names):
                raise WRONG_TYPE
            for point in points:
                point.backplane = names

        def get_backplane(channels: Value) -> tuple[Value, ...]:
            try:
                points = self._crosspoints(channels, self._listed(channels, "getbackplane"))
            except TspError as error:
                self.push_error(error.code, error.text)
                return (None,)
            return (";".join(",".join(point.backplane) for point in points) or None,)

        table.set("setbackplane", set_backplane)
        table.set("getbackplane", get_backplane)
        return table
