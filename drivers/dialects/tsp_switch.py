"""What the Keithley switch mainframes with TSP (707B, 708B, 3706A) share: crosspoints, read-back,
steps run by triggers.

Matrix columns are numbered from 1 over all slots, empty ones too, so that a card taken out does not
renumber the others: slot s, column c is column (s - 1) x columns of a card + c.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.abilities import ScriptedMatrix
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import Crosspoint, InstrumentConfig
from rram_hil.types import IntArray
from rram_hil.units import Seconds
from rram_hil.wire.dialog import number

from .text import number_in
from .tsp import TspInstrument

LIST_LENGTH = 800
"""Characters of one channel list; longer ones go out in several calls."""
TRIGGER_LINES = 14
"""Digital I/O lines of a mainframe (707B-901-01 rev. B, 7-153: events of lines 1 to 14)."""
STEPS_SCRIPT = """
rram = { out = 1, inp = 2, settle = 0, timeout = 1, done = 0, ok = true }
function rram.begin(out, inp, settle, timeout)
  rram.out = out
  rram.inp = inp
  rram.settle = settle
  rram.timeout = timeout
  rram.done = 0
  rram.ok = errorqueue.count == 0
  digio.trigger[inp].clear()
end
function rram.step(opened, closed)
  if not rram.ok then return end
  if opened ~= "" then channel.open(opened) end
  if errorqueue.count == 0 and closed ~= "" then channel.close(closed) end
  rram.ok = errorqueue.count == 0
  if not rram.ok then return end
  if rram.settle > 0 then delay(rram.settle) end
  digio.trigger[rram.out].assert()
  rram.ok = digio.trigger[rram.inp].wait(rram.timeout)
  if rram.ok then rram.done = rram.done + 1 end
end
"""
"""What `run_steps` calls. Errors of commands do not end a script on these instruments, so each step
looks at the error queue.
"""

Step = tuple[Iterable[Crosspoint], Iterable[Crosspoint]]
"""What one step of a triggered sequence opens, then closes."""


class TspSwitchConfig(InstrumentConfig):
    """Settings of a switch mainframe. The mainframe itself waits until its relays have settled;
    `settle_s` comes on top.
    """

    settle_s: Annotated[Seconds, Field(ge=0, le=10)] = Field(
        default=0.0, description="further wait after a change, in s"
    )


@dataclass(frozen=True)
class Card:
    """A matrix card: its slot from 1, model, rows and columns."""

    slot: int
    model: str
    rows: int
    columns: int


class TspSwitch(TspInstrument, ScriptedMatrix):
    """A switch mainframe. `connect` also reads which cards it holds; crosspoints that they have not
    are refused, nothing sent.
    """

    MAKER = "Keithley"
    Config = TspSwitchConfig
    SLOTS: ClassVar[dict[str, int]]
    """Slots of each model."""
    ROWS: ClassVar[str]
    COLUMNS: ClassVar[int]
    """Columns of one card."""
    SETTLE_S: ClassVar[dict[str, float]]
    """How long the relays of a card settle, by the card's model; "" for others."""
    config: TspSwitchConfig
    cards: tuple[Card, ...] = ()
    """Matrix cards found by `connect`."""

    @override
    def connect(self) -> Identity:
        self.cards = ()
        return super().connect()

    @property
    @override
    def rows(self) -> tuple[str, ...]:
        """Row letters."""
        return tuple(self.ROWS)

    @property
    @override
    def columns(self) -> int:
        """Columns of all slots, empty ones counted."""
        return self.SLOTS[self.model] * self.COLUMNS

    @property
    @override
    def settle_s(self) -> float:
        """How long the relays of the slowest card settle, and what the bench file adds."""
        cards = [self.SETTLE_S.get(card.model, self.SETTLE_S[""]) for card in self.cards]
        return max(cards, default=self.SETTLE_S[""]) + self.config.settle_s

    @property
    def further_settle_s(self) -> float:
        """What the bench file adds: commands return when the relays have settled."""
        return self.config.settle_s

    @abstractmethod
    def point_name(self, slot: int, row: int, column: int) -> str:
        """How the instrument names a crosspoint; all from 1."""

    @abstractmethod
    def point_of(self, name: str) -> Crosspoint | None:
        """The crosspoint of a name; None for a relay that is none (analog backplane)."""

    def name_of(self, point: Crosspoint) -> str:
        """How the instrument names a crosspoint. Raises `ConfigError` for one that no card has."""
        row, column = point
        slot, at = (column - 1) // self.COLUMNS + 1, (column - 1) % self.COLUMNS + 1
        card = next((c for c in self.cards if c.slot == slot), None)
        index = self.ROWS.find(row) + 1 if len(row) == 1 else 0
        if card is None or column < 1 or not 1 <= index <= card.rows or at > card.columns:
            held = (
                ", ".join(f"slot {c.slot}: {c.model} {c.rows}x{c.columns}" for c in self.cards)
                or "no matrix card"
            )
            raise ConfigError(
                f"{self.name}: there is no crosspoint {row}{column} (slot {slot}); it holds {held}"
            )
        return self.point_name(slot, index, at)

    def names(self, points: Iterable[Crosspoint]) -> list[str]:
        """Channel lists for the instrument's commands, cut so that each fits a line; none for no
        points.
        """
        lists: list[str] = []
        for name in dict.fromkeys(self.name_of(point) for point in points):
            if lists and len(lists[-1]) + len(name) < LIST_LENGTH:
                lists[-1] += f",{name}"
            else:
                lists.append(name)
        return lists

    @override
    def arm(self) -> None:
        """All relays open, reset, break before make."""
        self.errors()
        reply = self.ask(
            "localnode.prompts = 0\n"
            "localnode.showerrors = 0\n"
            'channel.open("allslots")\n'
            "reset()\n"
            "channel.connectrule = channel.BREAK_BEFORE_MAKE\n"
            'print(channel.connectrule, channel.getclose("allslots"))',
            takes_s=self._longest_s(1),
        )
        rule, _, now_closed = reply.partition("\t")
        if now_closed != "nil" or number_in(rule, self.name) != 1.0:
            raise InstrumentError(
                f"{self.name}: after the reset it says {reply!r}, not break before make and all"
                " open"
            )

    @override
    def switch(self, *, close: Iterable[Crosspoint] = (), open: Iterable[Crosspoint] = ()) -> None:
        """Open, then close relays; the state is read back in the same transaction.

        Nothing closes where opening was refused. Raises `InstrumentError` where a relay is not as
        told.
        """
        close, open_first = list(close), list(open)
        opened, closed = self.names(open_first), self.names(close)
        if not opened and not closed:
            return
        code = [f'channel.open("{names}")' for names in opened]
        code += [f'if errorqueue.count == 0 then channel.close("{names}") end' for names in closed]
        if self.config.settle_s:
            code.append(f"delay({number(self.config.settle_s)})")
        code.append('print(channel.getclose("allslots"))')
        now = self._points(
            self.ask("\n".join(code), takes_s=self._longest_s(len(open_first) + len(close)))
        )
        wrong = [p for p in close if p not in now] + [
            p for p in open_first if p in now and p not in close
        ]
        if wrong:
            what = ", ".join(f"{row}{column}" for row, column in wrong[:8])
            raise InstrumentError(f"{self.name}: not switched as told: {what}", command=code[0])

    @override
    def open_all(self) -> None:
        """Open everything, backplane relays too; read back in the same transaction."""
        reply = self.ask(
            'channel.open("allslots") print(channel.getclose("allslots"))',
            takes_s=self._longest_s(1),
        )
        if reply != "nil":
            raise InstrumentError(f"{self.name}: still closed after opening all: {reply[:80]}")

    @override
    def closed(self) -> frozenset[Crosspoint]:
        return self._points(self.ask('print(channel.getclose("allslots"))'))

    def closed_names(self) -> tuple[str, ...]:
        """The instrument's own names of all closed relays, those of the analog backplane too."""
        return _split(self.ask('print(channel.getclose("allslots"))'))

    @override
    def is_off(self) -> bool:
        return not self.closed_names()

    @override
    def switch_off(self) -> None:
        self.run('channel.open("allslots")', takes_s=self._longest_s(1))

    @override
    def counts(self, points: Iterable[Crosspoint]) -> IntArray:
        """Closures of each relay in one transaction. Some cards of the 707B count from their last
        power-on only.
        """
        points = list(points)
        names = [self.name_of(point) for point in points]
        if not names:
            return np.zeros(0, dtype=np.int64)
        asked = dict.fromkeys(names)
        lines = self.lines(
            "\n".join(f'print(channel.getcount("{part}"))' for part in self.names(points))
        )
        counts = [word for line in lines for word in line.split(",")]
        if len(counts) != len(asked):
            raise LinkError(f"{self.name}: {len(counts)} close counts came for {len(asked)} relays")
        by_name = {
            name: int(number_in(count, self.name))
            for name, count in zip(asked, counts, strict=True)
        }
        return np.array([by_name[name] for name in names], dtype=np.int64)

    def use_triggers(self, out_line: int, in_line: int, *, pulse_s: float = 10e-6) -> None:
        """Set up the digital lines for `run_steps` and load its script: falling edges, pulses of
        `pulse_s` on `out_line`.
        """
        for line in (out_line, in_line):
            if not 1 <= line <= TRIGGER_LINES:
                raise ConfigError(f"{self.name}: digital line {line}: allowed 1 to {TRIGGER_LINES}")
        if out_line == in_line:
            raise ConfigError(
                f"{self.name}: one digital line ({out_line}) cannot both tell and be told"
            )
        self.run(
            f"digio.trigger[{out_line}].mode = digio.TRIG_FALLING\n"
            f"digio.trigger[{out_line}].pulsewidth = {number(pulse_s)}\n"
            f"digio.trigger[{in_line}].mode = digio.TRIG_FALLING\n"
            f"digio.trigger[{out_line}].clear()\n"
            f"digio.trigger[{in_line}].clear()"
        )
        self.load("rram_steps", STEPS_SCRIPT)

    def run_steps(
        self,
        steps: Sequence[Step],
        *,
        out_line: int,
        in_line: int,
        timeout_s: float = 1.0,
        takes_s: float = 0.0,
    ) -> None:
        """A triggered sequence, run on the instrument in one transaction: after `use_triggers`.

        Each step opens, closes, waits until settled, pulses `out_line`, and waits up to `timeout_s`
        for a pulse on `in_line`. `takes_s` is how long the other side works between the pulses, all
        steps together. Raises `InstrumentError` where a pulse stays out; the relays are then as
        that step left them.
        """
        changed = 0
        code = [
            f"rram.begin({out_line}, {in_line}, {number(self.config.settle_s)},"
            f" {number(timeout_s)})"
        ]
        for opened, closed in steps:
            opened, closed = list(opened), list(closed)
            parts = self.names(opened), self.names(closed)
            if max(len(p) for p in parts) > 1 or sum(len(p[0]) for p in parts if p) > LIST_LENGTH:
                raise ConfigError(
                    f"{self.name}: a step of {len(opened) + len(closed)} crosspoints does not fit a"
                    " line"
                )
            code.append('rram.step("{}", "{}")'.format(*("".join(p) for p in parts)))
            changed += len(opened) + len(closed)
        code.append('print(string.format("%d", rram.done))')
        done = self.ask("\n".join(code), takes_s=takes_s + timeout_s + self._longest_s(changed))
        if done != str(len(steps)):
            raise InstrumentError(
                f"{self.name}: the pulse on digital line {in_line} stayed out for {timeout_s:g} s"
                f" after {done} of {len(steps)} steps",
                command=code[0],
            )

    def _longest_s(self, relays: int) -> float:
        """At most how long so many relays take, should they move one after another."""
        return 2 * max(relays, 1) * self.settle_s

    def _points(self, names: str) -> frozenset[Crosspoint]:
        return frozenset(
            point for name in _split(names) if (point := self.point_of(name)) is not None
        )


def _split(names: str) -> tuple[str, ...]:
    """Names in the answer of `channel.getclose`: semicolons between, "nil" for none, a paired
    channel in parentheses left out.
    """
    return (
        () if names == "nil" else tuple(name.partition("(")[0].strip() for name in names.split(";"))
    )
