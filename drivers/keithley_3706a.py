"""Driver of the Keithley 3706A and 3706 system switches with 6x16 matrix cards (3730); their
multimeter, where they have one, is left alone.

Checked against the source of QCoDeS 0.58 (`Keithley_3706A`: names "slot, row, two-digit column",
backplane relays 911 to 916 of a slot, `slot[X].idn` with "Empty Slot", `slot[X].rows.matrix`,
`slot[X].columns.matrix`, `slot[X].interlock.state`), the 3700AS-901-01 reference manual rev. D
(section 5, channel lists; a 4-pole pair stands in parentheses) and the TSP toolkit's command
documentation 37XX (`channel.*`: opening "allslots" opens backplane relays too; a command returns
when the relays have settled).

Unverified: relay settling time of the 3730, that it has as many digital lines as a 707B.

The interlock of a card keeps its analog backplane relays from closing; its crosspoints move without
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import ClassVar

from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import Crosspoint, ModelSheet

from .dialects.makers import SERIES_3700
from .dialects.text import number_in
from .dialects.tsp_switch import Card, TspSwitch

CARDS_CODE = (
    'for i = 1, 6 do local s = slot[i] if s.idn == "Empty Slot" then print("empty") else '
    "print(s.idn, s.rows.matrix, s.columns.matrix) end end"
)


_SHEET = ModelSheet(
    (
        "channel names, backplane relays, slot[X], interlocks: source of QCoDeS 0.58",
        "channel lists, trigger model: 3700AS-901-01 rev. D, section 5",
        "channel.*: TSP toolkit, command documentation 37XX",
    ),
    ("relay settling of the 3730 (4 ms)", "number of digital lines"),
)
_OLD_SHEET = ModelSheet(
    ("TSP-Link, scans, channel names: 3700S-901-01 rev. C, sections 3, 8 and 13",),
    (
        "slot[X] and that channel.* are as on the 3706A",
        "relay settling of the 3730 (4 ms)",
        "number of digital lines",
    ),
)


class Keithley3706A(TspSwitch):
    """A 3706A or 3706 of any variant (-S, -SNFP, -NFP). Rows A to F are the instrument's 1 to 6;
    column 17 is slot 2 column 01.
    """

    MAKERS = SERIES_3700
    MODELS = ("3706A", "3706")
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {"3706A": _SHEET, "3706": _OLD_SHEET}
    NEAR = r"370\d[A-Z]?"
    SLOTS: ClassVar[dict[str, int]] = {"3706A": 6, "3706": 6}
    ROWS = "ABCDEF"
    COLUMNS = 16
    SETTLE_S: ClassVar[dict[str, float]] = {"": 4e-3}
    """Unverified."""

    @override
    def plain_model(self, told: str) -> str:
        """The model without the variant's suffix ("MODEL 3706A-SNFP" -> "3706A")."""
        return super().plain_model(told).partition("-")[0]

    @override
    def look(self) -> None:
        """Read which matrix cards there are. Changes nothing."""
        lines = self.peek(CARDS_CODE)
        if len(lines) != 6:
            raise LinkError(f"{self.name}: {len(lines)} answers for 6 slots")
        cards = []
        for slot, line in enumerate(lines, 1):
            idn, _, size = line.partition("\t")
            rows, _, columns = size.partition("\t")
            if rows not in ("", "nil") and columns not in ("", "nil"):
                sides = (int(number_in(side, self.name)) for side in (rows, columns))
                cards.append(Card(slot, idn.partition(",")[0].strip(), *sides))
        # Of a wider card no column could be told from the next slot's first.
        self.cards = tuple(card for card in cards if 0 < card.columns <= self.COLUMNS)

    @override
    def point_name(self, slot: int, row: int, column: int) -> str:
        """The name of a crosspoint, such as 1101."""
        return f"{slot}{row}{column:02d}"

    @override
    def point_of(self, name: str) -> Crosspoint | None:
        """The crosspoint of a relay's name, None for a backplane relay. Raises `LinkError` for what
        names no relay.
        """
        if re.fullmatch(r"[1-6]9\d\d", name):
            return None
        match = re.fullmatch(r"([1-6])([1-6])(\d\d)", name)
        if match is None:
            raise LinkError(f"{self.name}: {name[:20]!r} names no crosspoint")
        return self.ROWS[int(match[2]) - 1], (int(match[1]) - 1) * self.COLUMNS + int(match[3])

    def interlocks(self) -> dict[int, int | None]:
        """Interlock state of each matrix card by slot: 0 none engaged, 1 the first, 2 the second, 3
        both; None: there is none.
        """
        code = "\n".join(f"print(slot[{card.slot}].interlock.state)" for card in self.cards)
        lines = self.lines(code) if self.cards else []
        if len(lines) != len(self.cards):
            raise LinkError(
                f"{self.name}: {len(lines)} interlock states for {len(self.cards)} cards"
            )
        return {
            card.slot: None if state == "nil" else int(number_in(state, self.name))
            for card, state in zip(self.cards, lines, strict=True)
        }

    def switch_backplane(self, *, close: Iterable[str] = (), open: Iterable[str] = ()) -> None:  # noqa: A002
        """Open, then close analog backplane relays ("1911": slot 1, relay 911), read back in the
        same transaction.

        Raises `ConfigError` for other names, and where the interlock of a slot would keep its
        relays from closing.
        """
        close, open_first = list(close), list(open)
        slots = {card.slot for card in self.cards}
        for name in (*close, *open_first):
            if not re.fullmatch(r"[1-6]91[1-6]", name) or int(name[0]) not in slots:
                raise ConfigError(
                    f"{self.name}: {name!r} is no backplane relay of a matrix card; such as"
                    " '1911' is"
                )
        if close:
            locks = self.interlocks()
            locked = sorted({int(name[0]) for name in close if locks[int(name[0])] == 0})
            if locked:
                raise ConfigError(
                    f"{self.name}: the interlock of slot {locked[0]} is open: its backplane relays"
                    " cannot close"
                )
        code = [f'channel.open("{",".join(open_first)}")'] if open_first else []
        code += (
            [f'if errorqueue.count == 0 then channel.close("{",".join(close)}") end']
            if close
            else []
        )
        code.append('print(channel.getclose("allslots"))')
        now = set(self.ask("\n".join(code), takes_s=self.settle_s * 2).split(";"))
        wrong = [n for n in close if n not in now] + [
            n for n in open_first if n in now and n not in close
        ]
        if wrong:
            raise InstrumentError(
                f"{self.name}: not switched as told: {', '.join(wrong)}", command=code[0]
            )
