"""The commands that set the blocks of a Keithley 2450's trigger model: `:TRIGger:BLOCk`.

Sources as of `trigger_model`. What a block would need that is not simulated (timers, LAN, TSP-Link,
the front panel's key, digitizing, endless measuring, limits of the math subsystem) is refused when
it is set.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .digital_lines import DigitalLines
from .instrument import CONFLICT, ILLEGAL, Call, Handler, ScpiError, not_simulated
from .trigger_model import MOST_BLOCKS, Act, ConfigLists, TriggerModel, Wait

NOTES, LINES = 8, 6
EVENTS = ("COMMand", "DIGio", "NOTify", "SLIMit")
ELSEWHERE = ("DISPlay", "TSPLink", "LAN", "BLENder", "TIMer")


class Host(Protocol):
    """The instrument, as its blocks see it."""

    model_blocks: TriggerModel
    lines: DigitalLines
    config_lists: dict[str, ConfigLists]

    def wait(self, seconds: float) -> None:
        """Let virtual time pass."""

    def switch(self, on: bool) -> None:
        """Turn the output on or off."""

    def buffer(self, call: Call, at: int) -> Any:
        """The buffer that a command names. Raises `ScpiError`."""

    def take(self, buffer: Any, count: int) -> None:
        """Make readings."""

    def user_delay_s(self, word: str) -> float:
        """A delay that `MEASure<n>` or `SOURce<n>` names. Raises `ScpiError`."""

    def log(self, code: int, text: str, kind: str) -> None:
        """Put an entry into the event log."""

    def is_limited(self) -> bool:
        """Whether the source is at its limit."""


class Blocks:
    """Sets blocks as commands say."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._measured: dict[int, Any] = {}
        self._counts: dict[int, int] = {}

    def clear(self) -> None:
        """No blocks."""
        self.host.model_blocks.clear()
        self._measured, self._counts = {}, {}

    def commands(self) -> dict[str, Handler]:
        """The subsystem."""
        table: dict[str, Handler] = {
            ":BUFFer:CLEar": self._clear_buffer,
            ":MEASure": self._measure,
            ":SOURce:STATe": self._source_state,
            ":DELay:CONStant": self._delay,
            ":DELay:DYNamic": self._user_delay,
            ":BRANch:ALWays": self._always,
            ":BRANch:COUNter": self._counter,
            ":BRANch:DELTa": self._delta,
            ":BRANch:EVENt": self._on_event,
            ":BRANch:LIMit:CONStant": self._limit,
            ":BRANch:ONCE": partial(self._once, True),
            ":BRANch:ONCE:EXCLuded": partial(self._once, False),
            ":CONFig:RECall": self._recall,
            ":CONFig:NEXT": partial(self._step_list, 1),
            ":CONFig:PREVious": partial(self._step_list, -1),
            ":DIGital:IO": self._digital,
            ":LOG:EVENt": self._log,
            ":NOP": lambda c: self._put(c, lambda: None),
            ":NOTify": self._notify,
            ":WAIT": self._wait,
            ":DIGitize": _refused("digitizing"),
            ":MDIGitize": _refused("digitizing"),
            ":BRANch:LIMit:DYNamic": _refused("limits of the math subsystem"),
        }
        queries: dict[str, Handler] = {
            ":TRIGger:BLOCk:BRANch:COUNter:COUNt?": self._count,
            ":TRIGger:BLOCk:LIST?": _refused("the list of blocks"),
        }
        return {f":TRIGger:BLOCk{name}": act for name, act in table.items()} | queries

    def event(self, name: str) -> None:
        """An event of the instrument: blocks wait for it, and lines are pulsed by it."""
        self.host.lines.stimulate(name)
        self.host.model_blocks.event(name)

    def _put(self, call: Call, act: Act, begin: Callable[[], None] = lambda: None) -> None:
        self.host.model_blocks.put(_number(call, 0), act, begin)

    def _clear_buffer(self, call: Call) -> None:
        buffer = self.host.buffer(call, 1)
        self._put(call, lambda: buffer.readings.clear())

    def _measure(self, call: Call) -> None:
        number, buffer = _number(call, 0), self.host.buffer(call, 1)
        if len(call.arguments) > 2 and call.text(2).upper().startswith("INF"):
            raise not_simulated("endless measuring in the background")
        count = round(call.number(2, 0, 300_000)) if len(call.arguments) > 2 else 1
        self._measured[number] = buffer

        def act() -> None:
            self.host.take(buffer, count)
            if self.host.is_limited():
                self.event("SLIM")

        self._put(call, act)

    def _source_state(self, call: Call) -> None:
        on = call.switch(1)
        self._put(call, lambda: self.host.switch(on))

    def _delay(self, call: Call) -> None:
        seconds = call.number(1, 0, 1e5)
        self._put(call, lambda: self.host.wait(seconds))

    def _user_delay(self, call: Call) -> None:
        word = call.text(1)
        self.host.user_delay_s(word)
        self._put(call, lambda: self.host.wait(self.host.user_delay_s(word)))

    def _always(self, call: Call) -> None:
        to = _number(call, 1)
        self._put(call, lambda: to)

    def _counter(self, call: Call) -> None:
        number, target, to = _number(call, 0), round(call.number(1, 1, 1e9)), _number(call, 2)

        def act() -> int | None:
            # A new round begins where the last one has ended.
            self._counts[number] = self._counts[number] % target + 1
            return to if self._counts[number] < target else None

        self._put(call, act, lambda: self._counts.update({number: 0}))

    def _count(self, call: Call) -> str:
        return str(self._counts.get(_number(call, 0), 0))

    def _once(self, first: bool, call: Call) -> None:
        number, to = _number(call, 0), _number(call, 1)

        def act() -> int | None:
            self._counts[number] += 1
            return to if (self._counts[number] == 1) is first else None

        self._put(call, act, lambda: self._counts.update({number: 0}))

    def _values(self, call: Call, at: int) -> Callable[[], list[float]]:
        """Readings of the measure block that a command names; left out or 0, the one before its
        own.
        """
        number = _number(call, 0)
        named = round(call.number(at, 0, MOST_BLOCKS)) if len(call.arguments) > at else 0

        def values() -> list[float]:
            before = [n for n in self._measured if n < number]
            buffer = self._measured.get(named or max(before, default=0))
            if buffer is None or not buffer.readings:
                raise CONFLICT
            return [reading.value for reading in buffer.readings]

        return values

    def _delta(self, call: Call) -> None:
        difference, to, values = call.number(1), _number(call, 2), self._values(call, 3)

        def act() -> int | None:
            before, last = ([0.0, *values()])[-2:]
            return to if before - last <= difference else None

        self._put(call, act)

    def _limit(self, call: Call) -> None:
        kind = call.choice(1, "ABOVe", "BELow", "INside", "OUTside")
        a, b, to, values = call.number(2), call.number(3), _number(call, 4), self._values(call, 5)
        low, high = min(a, b), max(a, b)

        def act() -> int | None:
            value = values()[-1]
            is_met = {
                "ABOV": value > b,
                "BEL": value < a,
                "IN": low <= value <= high,
                "OUT": not low <= value <= high,
            }[kind]
            return to if is_met else None

        self._put(call, act)

    def _on_event(self, call: Call) -> None:
        event, to = event_of(call, 1), _number(call, 2)
        self._put(call, lambda: to if self.host.model_blocks.take_event(event) else None)

    def _lists_of(self, call: Call, *at: int) -> list[tuple[ConfigLists, str]]:
        """The lists that a command names, at most one of the source and one of measuring."""
        found = []
        for place in at:
            if len(call.arguments) <= place:
                continue
            name = call.text(place)
            found.append(
                next((s for s in self.host.config_lists.values() if name in s.lists), None)
            )
            if found[-1] is None or found[-1] in found[:-1]:
                raise ILLEGAL
        return [
            (lists, call.text(place))
            for lists, place in zip(found, at, strict=False)
            if lists is not None
        ]

    def _recall(self, call: Call) -> None:
        named = self._lists_of(call, 1, 3)
        indexes = [
            round(call.number(at, 1, 1e6)) if len(call.arguments) > at else 1 for at in (2, 4)
        ]

        def act() -> None:
            for (lists, name), index in zip(named, indexes, strict=False):
                lists.recall(name, index)

        self._put(call, act, self._begin_lists)

    def _step_list(self, by: int, call: Call) -> None:
        named = self._lists_of(call, 1, 2)

        def act() -> None:
            for lists, name in named:
                lists.step(name, by)

        self._put(call, act, self._begin_lists)

    def _begin_lists(self) -> None:
        for lists in self.host.config_lists.values():
            lists.begin()

    def _digital(self, call: Call) -> None:
        bits = round(call.number(1, 0, 63))
        mask = round(call.number(2, 0, 63)) if len(call.arguments) > 2 else 63
        self._put(call, lambda: self.host.lines.write(bits, mask))

    def _log(self, call: Call) -> None:
        match = re.fullmatch(r"(INFO|WARN(?:ING)?|ERR(?:OR)?)([1-4])", call.text(1).upper())
        if match is None:
            raise ILLEGAL
        kind, text = match[1][:3], call.text(2)[:32]
        self._put(call, lambda: self.host.log(1003, text, kind))

    def _notify(self, call: Call) -> None:
        note = round(call.number(1, 1, NOTES))
        self._put(call, lambda: self.event(f"NOT{note}"))

    def _wait(self, call: Call) -> None:
        given = call.arguments
        forgets = len(given) > 2 and call.choice(2, "ENTer", "NEVer") == "ENT"
        needs_all = len(given) > 3 and call.choice(3, "AND", "OR") == "AND"
        places = (1, *range(4, len(given)))
        wait = Wait(frozenset(event_of(call, at) for at in places), needs_all, forgets)
        self._put(call, lambda: wait)


def event_of(call: Call, at: int) -> str:
    """The event that a command names, as the simulator calls it. Raises `ScpiError`."""
    match = re.fullmatch(r"([A-Za-z]+)(\d*)", call.text(at))
    if match is None:
        raise ILLEGAL
    named = Call((), (match[1],))
    try:
        word = named.choice(0, *EVENTS)
    except ScpiError:
        named.choice(0, *ELSEWHERE)
        raise not_simulated(f"event {match[0]}") from None
    most = {"DIG": LINES, "NOT": NOTES}.get(word, 0)
    if (not most and match[2]) or (most and not 1 <= int(match[2] or 0) <= most):
        raise ILLEGAL
    return word + match[2]


def _number(call: Call, at: int) -> int:
    return round(call.number(at, 1, MOST_BLOCKS))


def _refused(what: str) -> Handler:
    def act(_: Call) -> None:
        raise not_simulated(what)

    return act
