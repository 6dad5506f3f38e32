"""A trigger model of numbered blocks, as the Keithley 2450 and its like have it, and lists of
settings that its blocks recall.

Written from the reference manuals 2450-901-01 Rev. B (3-97 to 3-109, 6-128 to 6-166), 2461-901-01
Rev. A (6-187 to 6-209) and 2470-901-01 Rev. A (12-146 to 12-159). A model runs beside the host's
commands: it goes on until it waits for an event, and one that never ends goes on with every message
that comes. Unverified: that numbers left out are blocks that do nothing, the highest number.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .instrument import ILLEGAL, PARAMETER, UNFORESEEN, Call, Handler, ScpiError

MOST_STEPS = 20_000
"""Blocks executed at one go."""
MOST_BLOCKS = 255


class State(StrEnum):
    """Of a trigger model, as `:TRIG:STAT?` tells it."""

    EMPTY = "EMPTY"
    BUILDING = "BUILDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    IDLE = "IDLE"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class Wait:
    """What a block waits for: one of the events, or all of them; `forgets` those that came
    before.
    """

    events: frozenset[str]
    needs_all: bool = False
    forgets: bool = False


Act = Callable[[], int | Wait | None]
"""What a block does; it tells the number of the block to go on with (None: the next), or what to
wait for.
"""


class TriggerModel:
    """Blocks by number, from 1, and where their execution stands."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """No blocks."""
        self._blocks: dict[int, Act] = {}
        self._begins: list[Callable[[], None]] = []
        self.state = State.EMPTY
        self.last = 0
        self._at = 0
        self._events: set[str] = set()
        self._wait: Wait | None = None

    def put(self, number: int, act: Act, begin: Callable[[], None] = lambda: None) -> None:
        """Set a block; `begin` is called whenever the model starts."""
        self._blocks[number] = act
        self._begins.append(begin)
        self.state = State.BUILDING

    @property
    def is_under_way(self) -> bool:
        """Whether it runs, or waits."""
        return self.state in (State.RUNNING, State.WAITING)

    def start(self) -> None:
        """Run from the first block until an event is waited for. Raises `ScpiError` as blocks
        do.
        """
        if self.is_under_way:
            raise ScpiError(-213, "Init ignored")
        for begin in self._begins:
            begin()
        self._events, self._wait, self._at = set(), None, 1
        self.go_on()

    def go_on(self) -> None:
        """Execute blocks. Raises `ScpiError` as they do; the model has failed then."""
        self.state = State.RUNNING
        try:
            for _ in range(MOST_STEPS):
                if not self.is_under_way or not self._step():
                    return
        except (ScpiError, *UNFORESEEN):
            self.state = State.FAILED
            raise

    def _step(self) -> bool:
        """One block, or the end of a wait; False where there is nothing to do for now."""
        if self._wait is not None:
            came = self._wait.events & self._events
            if came != self._wait.events if self._wait.needs_all else not came:
                self.state = State.WAITING
                return False
            self._events -= self._wait.events
            self._wait = None
            self.last, self._at = self._at, self._at + 1
            return True
        if self._at > max(self._blocks):
            self.state = State.IDLE
            return False
        outcome = self._blocks[self._at]() if self._at in self._blocks else None
        if isinstance(outcome, Wait):
            self._events -= outcome.events if outcome.forgets else frozenset()
            self._wait = outcome
            return True
        self.last, self._at = self._at, outcome or self._at + 1
        return True

    def event(self, name: str) -> None:
        """An event has come; it is remembered while the model is under way. Raises as `go_on`."""
        if self.is_under_way:
            self._events.add(name)
        if self.state is State.WAITING:
            self.go_on()

    def take_event(self, name: str) -> bool:
        """Whether an event has come since it was last asked for."""
        has_come = name in self._events
        self._events.discard(name)
        return has_come

    def abort(self) -> None:
        """Stop."""
        if self.is_under_way:
            self.state = State.ABORTED


class ConfigLists:
    """Named lists of the settings of source or measurement; `take` tells the settings in force,
    `put` sets them. Indexes count from 1.
    """

    def __init__(self, take: Callable[[], dict[str, Any]], put: Callable[[Any], None]) -> None:
        self._take, self._put = take, put
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self._recalled: dict[str, int] = {}

    def clear(self) -> None:
        """No lists."""
        self.lists, self._recalled = {}, {}

    def begin(self) -> None:
        """The trigger model starts: no index has been recalled yet."""
        self._recalled = {}

    def entries(self, name: str) -> list[dict[str, Any]]:
        """A list. Raises `ScpiError` where there is none of that name."""
        if name not in self.lists:
            raise ILLEGAL
        return self.lists[name]

    def recall(self, name: str, index: int) -> None:
        """Set what an entry holds. Raises `ScpiError` where there is none."""
        entries = self.entries(name)
        if not 1 <= index <= len(entries):
            raise PARAMETER
        self._recalled[name] = index
        self._put(copy.deepcopy(entries[index - 1]))

    def step(self, name: str, by: int) -> None:
        """Recall the next or the previous entry, round the ends. Raises `ScpiError`."""
        entries = self.entries(name)
        before = self._recalled.get(name, 0 if by > 0 else 1)
        self.recall(name, (before - 1 + by) % max(1, len(entries)) + 1)

    def commands(self, root: str) -> dict[str, Handler]:
        """The subsystem below `root`."""
        root = f"{root}:CONFiguration:LIST"
        return {
            f"{root}:CREate": self._create,
            f"{root}:DELete": self._delete,
            f"{root}:STORe": self._store,
            f"{root}:RECall": lambda c: self.recall(c.text(0), _index(c, 1)),
            f"{root}:SIZE?": lambda c: str(len(self.entries(c.text(0)))),
            f"{root}:CATalog?": lambda _: ",".join(f'"{name}"' for name in self.lists) or '""',
        }

    def _create(self, call: Call) -> None:
        if call.text(0) in self.lists or not call.text(0):
            raise ILLEGAL
        self.lists[call.text(0)] = []

    def _delete(self, call: Call) -> None:
        entries = self.entries(call.text(0))
        if len(call.arguments) < 2:
            del self.lists[call.text(0)]
            return
        if _index(call, 1) > len(entries):
            raise PARAMETER
        del entries[_index(call, 1) - 1]

    def _store(self, call: Call) -> None:
        entries = self.entries(call.text(0))
        index = _index(call, 1) if len(call.arguments) > 1 else len(entries) + 1
        if index > len(entries) + 1:
            raise PARAMETER
        entries[index - 1 : index] = [copy.deepcopy(self._take())]


def _index(call: Call, at: int) -> int:
    """An index that a command may leave out: the first then."""
    return round(call.number(at, 1, 1e6)) if len(call.arguments) > at else 1
