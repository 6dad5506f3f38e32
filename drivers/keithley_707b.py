"""Driver of the Keithley 707B (6 slots) and 708B (1 slot) switching matrices, with cards of 12
columns a slot.

Checked against the 707B-901-01 reference manual, rev. A and B (pages of sections 2, 5 and 7:
channel identification "slot, row letter, two-digit column", channel lists, connection rules,
sequential connection, `slot[X].idn`), and the TSP toolkit's command documentation 70xB
(`channel.*`, `digio.trigger[N].*`, `slot[X].idn`, `localnode.*`): a command that opens or closes
returns when the relays have settled; `channel.getclose` answers names with ";" between or nil;
`channel.getcount` with ",". `scan.*` and `channel.pattern.*` exist and are not used here: a loaded
script gives each step its own trigger pulse.

Unverified: relay settling times of the cards, the description that each card gives in
`slot[X].idn` (seen: "7173,4x12 Hi Freq Matrix AAAA,02.01a,99999999" and pseudocard "7072,Pseudo
8x12 SemiMatrix,00.00a,????????").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

from rram_hil.errors import LinkError
from rram_hil.hardware.instrument import Crosspoint, ModelSheet

from .dialects.makers import SERIES_700
from .dialects.tsp_switch import Card, TspSwitch

_SHEET = ModelSheet(
    (
        "channel names, lists, connection rules, slot[X].idn: 707B-901-01 rev. A and B, sections"
        " 2, 5 and 7",
        "trigger model, digital lines 1 to 14: 707B-901-01 rev. B, 3-3 and 7-153",
        "slots: 707B-901-01 rev. A, 5-6",
        "channel.*: TSP toolkit, command documentation 70xB",
    ),
    (
        "relay settling of the cards (7174A 2 ms, others 15 ms)",
        "what a real 7174A says of itself",
        "longest line",
    ),
)


class Keithley707B(TspSwitch):
    """A 707B or 708B. Rows A to H; column 1 is slot 1 column 01, column 13 slot 2 column 01."""

    MAKERS = SERIES_700
    MODELS = ("707B", "708B")
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {"707B": _SHEET, "708B": _SHEET}
    NEAR = r"70[78][B-Z]"
    SLOTS: ClassVar[dict[str, int]] = {"707B": 6, "708B": 1}
    ROWS = "ABCDEFGH"
    COLUMNS = 12
    SETTLE_S: ClassVar[dict[str, float]] = {"7174A": 2e-3, "7174": 2e-3, "": 15e-3}
    """Unverified; the longest known (7072) for cards not named."""

    @override
    def look(self) -> None:
        """Read which cards there are. Changes nothing."""
        slots = self.SLOTS[self.model]
        lines = self.peek(f"for i = 1, {slots} do print(slot[i].idn) end")
        if len(lines) != slots:
            raise LinkError(f"{self.name}: {len(lines)} answers for {slots} slots")
        self.cards = tuple(
            card for slot, idn in enumerate(lines, 1) if (card := _card(slot, idn)) is not None
        )

    @override
    def point_name(self, slot: int, row: int, column: int) -> str:
        """The name of a crosspoint, such as 1A01."""
        return f"{slot}{self.ROWS[row - 1]}{column:02d}"

    @override
    def point_of(self, name: str) -> Crosspoint | None:
        """The crosspoint of a relay's name. Raises `LinkError` for what names none."""
        match = re.fullmatch(r"([1-6])([A-Ha-h])(\d\d)", name)
        if match is None:
            raise LinkError(f"{self.name}: {name[:20]!r} names no crosspoint")
        return match[2].upper(), (int(match[1]) - 1) * self.COLUMNS + int(match[3])


def _card(slot: int, idn: str) -> Card | None:
    """The matrix card that `slot[X].idn` tells of: model, then a description such as "8x12 ...";
    None for no such card.
    """
    model, _, rest = idn.partition(",")
    size = re.search(r"(\d+)\s*x\s*(\d+)", rest)
    return None if size is None else Card(slot, model.strip(), int(size[1]), int(size[2]))
