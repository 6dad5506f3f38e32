"""What the simulated Keithley switch mainframes share: cards in slots, the `channel` commands,
relay counts, settling.

After the command documentation of the TSP toolkit (70xB and 37XX, `channel.*`, `slot[X].*`) and the
reference manuals 707B-901-01 rev. A and B (sections 2, 5, 7) and 3700AS-901-01 rev. D (section 5).
Channel lists: names, ranges with ":", "slotX", "allslots", commas or semicolons between; a command
that finds an error changes nothing, and a query then gives nil. Opening and closing return when the
relays have settled: relays of one command together, or one after another with
`channel.connectsequential`. `scan.*` is in `.scan`; a mainframe is a node of TSP-Link with three
trigger lines (707B-901-01 rev. A, 7-224) and commands other nodes as `node[N]` (5-28). Left out:
`channel.pattern.*`, `channel.trigger[N]`, labels, `setup.*`, the multimeter.

Unverified: codes and texts of the errors but 1115, settling times, the descriptions of the cards,
that relays of several cards settle together.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from typing_extensions import override

from ..array.terminals import Place
from ..server.instrument import check_modules
from .instrument import LuaTable, TspError, TspInstrument, Value, number
from .lua_library import text_at
from .scan import Scan

NO_SUCH = "Parameter error invalid channel in channel list"
WRONG_TYPE = TspError(1115, "Parameter error invalid channel type in channel list")
EMPTY_LIST = TspError(1114, "Parameter error empty channel list")
FORBIDDEN = TspError(1116, "Parameter error forbidden channel in channel list")
RULES = {"OFF": 0.0, "BREAK_BEFORE_MAKE": 1.0, "MAKE_BEFORE_BREAK": 2.0}


@dataclass(frozen=True)
class CardType:
    """A model of matrix card: what `slot[X].idn` says of it, its size, how long its relays settle,
    its backplane relays.
    """

    model: str
    description: str
    rows: int
    columns: int
    settle_s: float
    backplane: tuple[int, ...] = ()


@dataclass
class Relay:
    """One relay: a crosspoint, or of the analog backplane (row 0)."""

    name: str
    slot: int
    row: int
    column: int
    settle_s: float
    is_closed: bool = False
    closures: int = 0
    delay_s: float = 0.0
    is_forbidden: bool = False
    backplane: list[str] = field(default_factory=list)


class SimulatedTspSwitch(TspInstrument):
    """A switch mainframe. `cards` names a card for each slot ("" for an empty one); by default
    every slot holds the first.
    """

    MAKER = "Keithley"
    CARDS: ClassVar[tuple[CardType, ...]]
    SLOTS: ClassVar[dict[str, int]]
    ROWS: ClassVar[str]
    COLUMNS: ClassVar[int]
    """Columns of a slot: those of the fabric are numbered from 1 over all slots."""
    PACES_ITSELF: ClassVar[bool]
    """Whether a scan's steps wait for the channel ready event by default."""

    def __init__(self, model: str, place: Place, cards: Sequence[str] | None = None) -> None:
        types = {card.model: card for card in self.CARDS}
        slots = self.SLOTS[model]
        chosen = [self.CARDS[0].model] * slots if cards is None else list(cards)
        self.cards = {slot: types[name] for slot, name in enumerate(chosen[:slots], 1) if name}
        self.relays: dict[str, Relay] = {}
        self.slots: dict[int, list[str]] = {slot: [] for slot in range(1, slots + 1)}
        for slot, card in self.cards.items():
            for relay in self._relays_of(slot, card):
                self.relays[relay.name] = relay
                self.slots[slot].append(relay.name)
        self._order = {name: at for at, name in enumerate(self.relays)}
        self._points: set[tuple[str, int]] = set()
        super().__init__(model, place)

    @override
    @classmethod
    def with_modules(cls, model: str, place: Place, modules: Sequence[str]) -> Self:
        check_modules(model, modules, cls.SLOTS[model], [card.model for card in cls.CARDS])
        return cls(model, place, modules)

    @abstractmethod
    def point_name(self, slot: int, row: int, column: int) -> str:
        """Name of a crosspoint, all from 1."""

    def _relays_of(self, slot: int, card: CardType) -> Iterable[Relay]:
        for row in range(1, card.rows + 1):
            for column in range(1, card.columns + 1):
                yield Relay(self.point_name(slot, row, column), slot, row, column, card.settle_s)
        for relay in card.backplane:
            yield Relay(f"{slot}{relay}", slot, 0, 0, card.settle_s)

    @override
    def identification(self) -> str:
        return (
            "KEITHLEY INSTRUMENTS INC.,MODEL"
            f" {self.pretends or self.model},{self.place.serial},{self.FIRMWARE}"
        )

    @property
    @override
    def outputs_on(self) -> bool:
        return any(relay.is_closed for relay in self.relays.values())

    @override
    def reset(self) -> None:
        """All open, every channel and the digital port at its defaults."""
        self.rule = RULES["BREAK_BEFORE_MAKE"]
        self.is_sequential = False
        self.scan.reset()
        self._reset_channels(self.relays.values())
        self.triggers.reset()

    def _reset_channels(self, relays: Iterable[Relay]) -> None:
        relays = list(relays)
        self._act(relays, False)
        for relay in relays:
            relay.delay_s, relay.is_forbidden, relay.backplane = 0.0, False, []

    def _listed(self, channels: Value, function: str, *, slots: bool = True) -> list[Relay]:
        """The relays that a channel list names, each once, in its order. Raises `TspError`."""
        relays: dict[str, Relay] = {}
        words = [
            word.strip() for word in text_at(channels, 1, function).replace(";", ",").split(",")
        ]
        if words == [""]:
            raise EMPTY_LIST
        for word in words:
            if word.lower() == "allslots" or word.lower().startswith("slot"):
                if not slots:
                    raise TspError(1107, NO_SUCH)
                names = self._of_slots(word.lower())
            elif ":" in word:
                first, _, last = word.partition(":")
                start, end = (self._order[self._relay(name).name] for name in (first, last))
                names = list(self.relays)[start : end + 1]
                if not names:
                    raise TspError(1107, NO_SUCH)
            else:
                names = [self._relay(word).name]
            relays.update((name, self.relays[name]) for name in names)
        if not relays:
            raise TspError(1107, NO_SUCH)
        return list(relays.values())

    def _of_slots(self, word: str) -> list[str]:
        if word == "allslots":
            return list(self.relays)
        slot = word.removeprefix("slot")
        if not slot.isdigit() or int(slot) not in self.slots:
            raise TspError(1107, NO_SUCH)
        return self.slots[int(slot)]

    def _relay(self, name: str) -> Relay:
        relay = self.relays.get(name.strip().upper())
        if relay is None:
            raise TspError(1107, NO_SUCH)
        return relay

    def _act(self, relays: Iterable[Relay], closed: bool) -> None:
        """Open or close relays and wait until they have settled."""
        self.elapse(self._move(list(relays), closed))

    def _move(self, relays: list[Relay], closed: bool) -> float:
        """Open or close relays now; how long (s) they need to settle, with the longest delay that
        the user set for one that closes.
        """
        if not relays:
            return 0.0
        for relay in relays:
            relay.closures += closed and not relay.is_closed
            relay.is_closed = closed
            if relay.row:
                point = (self.ROWS[relay.row - 1], (relay.slot - 1) * self.COLUMNS + relay.column)
                (self._points.add if closed else self._points.discard)(point)
        self.place.fabric.set_closed(frozenset(self._points))
        settle = math.fsum if self.is_sequential else max
        return settle([r.settle_s for r in relays]) + closed * max(r.delay_s for r in relays)

    # What a scan moves

    def scannable(self, channels: Value, function: str) -> list[str]:
        """The channels of a list, as a scan takes them. Raises `TspError`, also for a backplane
        relay.
        """
        relays = self._listed(channels, function)
        return [relay.name for relay in self._crosspoints(channels, relays)]

    def closable(self, channel: str) -> list[str]:
        """A channel and the backplane relays that go with it. Raises `TspError`."""
        return [relay.name for relay in self._closable(channel, "scan")]

    def closed(self) -> list[str]:
        """Names of all relays that are closed."""
        return [relay.name for relay in self.relays.values() if relay.is_closed]

    def move(self, channels: list[str], is_closed: bool) -> float:
        """Open or close relays by name, now; how long (s) they need to settle."""
        return self._move([self.relays[name] for name in channels], is_closed)

    @override
    def wait_complete(self) -> None:
        """Let time pass until no scan is under way. Raises `LuaError` where one would wait for
        ever.
        """
        self.scan.run()

    def _with_backplane(self, relays: Iterable[Relay]) -> list[Relay]:
        """The relays and the backplane relays that go with them."""
        by_name: dict[str, Relay] = {}
        for relay in relays:
            by_name[relay.name] = relay
            by_name.update((name, self.relays[name]) for name in relay.backplane)
        return list(by_name.values())

    def _closable(self, channels: Value, function: str) -> list[Relay]:
        relays = self._with_backplane(self._listed(channels, function, slots=False))
        if any(relay.is_forbidden for relay in relays):
            raise FORBIDDEN
        for relay in relays:
            self.check_closable(relay)
        return relays

    def check_closable(self, relay: Relay) -> None:
        """Raise `TspError` for a relay that cannot close now."""

    def _close(self, channels: Value) -> None:
        self._act(self._closable(channels, "close"), True)

    def _open(self, channels: Value) -> None:
        self._act(self._with_backplane(self._listed(channels, "open")), False)

    def _exclusive(self, channels: Value, slots_only: bool) -> None:
        """Close these and open all others, of the instrument or of the slots named, in the order of
        the connection rule.
        """
        text = text_at(channels, 1, "exclusiveclose")
        closing = (
            []
            if not text.strip() and not slots_only
            else self._closable(channels, "exclusiveclose")
        )
        slots = {relay.slot for relay in closing} if slots_only else set(self.slots)
        names = {relay.name for relay in closing}
        opening = [
            r
            for r in self.relays.values()
            if r.is_closed and r.slot in slots and r.name not in names
        ]
        new = [r for r in closing if not r.is_closed]
        if self.rule == RULES["MAKE_BEFORE_BREAK"]:
            self._act(new, True)
            self._act(opening, False)
        else:
            self._act(opening, False)
            self._act(new, True)

    @override
    def build(self) -> None:
        self.triggers.add_digital_lines()
        self.triggers.add_link_lines()
        self.scan = Scan(self, self.PACES_ITSELF)
        channel = self.channel_table()
        channel.sealed = True
        slots = {float(slot): self.slot_table(slot) for slot in self.slots}
        self.globals.fill(
            {
                "channel": channel,
                "slot": LuaTable(slots, sealed=True),
                "scan": self.scan.table,
            }
        )

    def slot_table(self, slot: int) -> LuaTable:
        """`slot[X]`."""
        card = self.cards.get(slot)
        identity = (
            f"{card.model},{card.description},01.00a,{self.place.serial}{slot}"
            if card
            else "Empty Slot"
        )
        return LuaTable(attributes={"idn": (lambda: identity, None)}, sealed=True)

    def channel_table(self) -> LuaTable:
        """`channel`."""

        def listing(
            name: str, between: str, show: Callable[[Relay], str | None]
        ) -> dict[str, Value]:
            def query(channels: Value, *_: Value) -> tuple[Value, ...]:
                try:
                    relays = self._listed(channels, name)
                except TspError as error:
                    self.push_error(error.code, error.text)
                    return (None,)
                return (
                    between.join(told for relay in relays if (told := show(relay)) is not None)
                    or None,
                )

            return {name: query}

        def set_rule(value: Value) -> None:
            self.rule = float(int(number(value, 0, 2)))

        def set_sequential(value: Value) -> None:
            self.is_sequential = number(value, 0, 1) == 1

        def set_delay(channels: Value, seconds: Value) -> None:
            relays, delay_s = self._listed(channels, "setdelay"), number(seconds, 0.0)
            for relay in self._crosspoints(channels, relays):
                relay.delay_s = delay_s

        def forbid(channels: Value, is_forbidden: bool) -> None:
            for relay in self._listed(channels, "setforbidden"):
                relay.is_forbidden = is_forbidden

        def specifier(slot: Value, row: Value, column: Value) -> str:
            return self._relay(
                self.point_name(int(number(slot)), int(number(row)), int(number(column)))
            ).name

        return LuaTable(
            {
                **RULES,
                "ON": 1.0,
                "TYPE_SWITCH": 1.0,
                "TYPE_BACKPLANE": 2.0,
                "IND_CLOSED": 1.0,
                "close": self._close,
                "open": self._open,
                "exclusiveclose": lambda channels: self._exclusive(channels, False),
                "exclusiveslotclose": lambda channels: self._exclusive(channels, True),
                "reset": lambda channels: self._reset_channels(self._listed(channels, "reset")),
                "setdelay": set_delay,
                "setforbidden": lambda channels: forbid(channels, True),
                "clearforbidden": lambda channels: forbid(channels, False),
                "createspecifier": specifier,
                **listing("getclose", ";", lambda r: r.name if r.is_closed else None),
                **listing("getcount", ",", lambda r: str(r.closures)),
                **listing("getstate", ",", lambda r: str(int(r.is_closed))),
                **listing("gettype", ",", lambda r: "1" if r.row else "2"),
                **listing("getdelay", ",", lambda r: f"{r.delay_s:.5e}" if r.row else None),
                **listing("getforbidden", ",", lambda r: r.name if r.is_forbidden else None),
            },
            {
                "connectrule": (lambda: self.rule, set_rule),
                "connectsequential": (lambda: float(self.is_sequential), set_sequential),
            },
        )

    def _crosspoints(self, channels: Value, relays: Iterable[Relay]) -> list[Relay]:
        """Those that are no backplane relays. Raises `TspError` where one of these is named by
        itself.
        """
        if any(
            self.relays[w].row == 0
            for w in text_at(channels, 1, "").replace(" ", "").split(",")
            if w in self.relays
        ):
            raise WRONG_TYPE
        return [relay for relay in relays if relay.row]
