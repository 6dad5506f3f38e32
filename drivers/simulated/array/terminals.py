"""What simulated instruments hang on: a virtual clock, terminals with a load behind them, trigger
wires, one lock a rack.

Nothing here knows an instrument's dialect, and no instrument knows what its terminals are wired to.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import override

from rram_hil.errors import BenchError

Pin = tuple[str, int]
"""An instrument of the rack by name, and one of its trigger (digital) lines."""


class VirtualClock:
    """Seconds that all simulated durations add up to, and what is due at which of them."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def now_s(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due meanwhile happens at its time, whoever lets it pass. Levels
        that stand stress what they stand on.
        """
        if self._due:
            end_s = self.now_s + seconds
            while self.run_next(end_s):
                pass
            seconds = end_s - self.now_s
        self._pass(seconds)

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Do something at a time to come (virtual s)."""
        heapq.heappush(self._due, (when_s, next(self._order), action))

    def run_next(self, until_s: float) -> bool:
        """Let time pass to the next thing that is due by `until_s` and do it; False where there is
        none.
        """
        if not self._due or self._due[0][0] > until_s:
            return False
        when_s, _, action = heapq.heappop(self._due)
        self._pass(when_s - self.now_s)
        action()
        return True

    def _pass(self, seconds: float) -> None:
        self._now_s += max(seconds, 0.0)


class FollowedClock(VirtualClock):
    """The clock of a bench, seen from an instrument beside it, whose own work takes no time of it.
    Where the bench cannot tell any more, time stands still.
    """

    def __init__(self, bench_s: Callable[[], float]) -> None:
        super().__init__()
        self._bench_s = bench_s

    @property
    @override
    def now_s(self) -> float:
        """Seconds on the bench clock."""
        with contextlib.suppress(BenchError):
            self._now_s = self._bench_s()
        return self._now_s

    @override
    def advance(self, seconds: float) -> None:
        """The bench's own operations let its time pass."""


@dataclass(frozen=True)
class Drive:
    """What a channel forces: `level` V or A; the other quantity stays within +-`limit` (A or V).
    "off" is an open terminal.
    """

    function: Literal["voltage", "current", "off"] = "off"
    level: float = 0.0
    limit: float = 0.0


@dataclass(frozen=True)
class Sensed:
    """What truly is at a terminal: volts against ground, amperes out of the channel, whether its
    limit holds it.
    """

    volts: float
    amps: float
    limited: bool


class Terminal(ABC):
    """One force terminal of a channel; the other is ground."""

    stretch_s = 0.0
    """How much later the end of a pulse comes than its beginning."""

    @abstractmethod
    def drive(self, drive: Drive) -> None:
        """Force this from now on (virtual time)."""

    @abstractmethod
    def sense(self) -> Sensed:
        """What is there now, without the instrument's own errors."""

    def was_limited(self) -> bool:
        """Whether its limit has held it since this was last asked, as far as anything was measured
        meanwhile.
        """
        return self.sense().limited


class Resistor(Terminal):
    """A plain resistor to ground; infinite ohms is an open terminal."""

    def __init__(self, ohm: float = float("inf")) -> None:
        self.siemens = 0.0 if ohm == float("inf") else 1.0 / ohm
        self._drive = Drive()

    @override
    def drive(self, drive: Drive) -> None:
        self._drive = drive

    @override
    def sense(self) -> Sensed:
        d, g = self._drive, self.siemens
        if d.function == "off":
            return Sensed(0.0, 0.0, False)
        if d.function == "voltage":
            amps = d.level * g
            if abs(amps) <= d.limit:
                return Sensed(d.level, amps, False)
            amps = d.limit if amps > 0 else -d.limit
            return Sensed(amps / g, amps, True)
        if abs(d.level) <= d.limit * g:
            return Sensed(d.level / g if g else 0.0, d.level, False)
        volts = d.limit if d.level > 0 else -d.limit
        return Sensed(volts, volts * g, True)


class Loads(Mapping[str, Terminal]):
    """A plain resistor of its own behind every channel, whatever the channels are called."""

    def __init__(self, ohm: float) -> None:
        self._ohm = ohm
        self._known: dict[str, Terminal] = {}

    @override
    def __getitem__(self, channel: str) -> Terminal:
        return self._known.setdefault(channel, Resistor(self._ohm))

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    @override
    def __len__(self) -> int:
        return len(self._known)


class Fabric(ABC):
    """What a switch matrix's relays join: its rows (letters) to its columns (numbers from 1)."""

    @abstractmethod
    def set_closed(self, points: frozenset[tuple[str, int]]) -> None:
        """From now on exactly these crosspoints are closed."""


class LooseFabric(Fabric):
    """A matrix with nothing wired to it."""

    @override
    def set_closed(self, points: frozenset[tuple[str, int]]) -> None:
        pass


GIVE_WAY_S = 1e-3
TURNS_AT_ONCE = 1000


class Bus:
    """What the instruments of a rack share: clock, lock, trigger wires, TSP-Link nodes."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock if clock is not None else VirtualClock()
        self.lock = threading.RLock()
        self._turns = 0
        self.nodes: dict[int, Any] = {}
        """TSP-Link: node number -> the simulated TSP instrument."""
        self._wires: dict[Pin, set[Pin]] = {}
        self._listeners: dict[Pin, list[Callable[[], None]]] = {}

    def give_way(self) -> None:
        """Called at each reading of what may take long to simulate: now and then the other
        instruments may answer their hosts meanwhile. Does nothing where nobody holds the lock.
        """
        self._turns += 1
        if self._turns % TURNS_AT_ONCE:
            return
        with contextlib.suppress(RuntimeError):
            self.lock.release()
            time.sleep(GIVE_WAY_S)
            self.lock.acquire()

    def wire(self, one: Pin, other: Pin) -> None:
        """Join two trigger lines."""
        self._wires.setdefault(one, set()).add(other)
        self._wires.setdefault(other, set()).add(one)

    def listen(self, pin: Pin, action: Callable[[], None]) -> None:
        """Call `action` whenever a pulse reaches this line from another instrument."""
        self._listeners.setdefault(pin, []).append(action)

    def pulse(self, pin: Pin) -> None:
        """An instrument pulses its own line: all listeners wired to it act, now, before this
        returns.
        """
        for other in sorted(self._wires.get(pin, ())):
            for action in self._listeners.get(other, ()):
                action()


@dataclass(frozen=True)
class Place:
    """Where an instrument stands: its name in the rack, the bus, what its terminals are wired to,
    its serial number.

    `terminals` holds one for each channel name; a channel without one is open. `fabric` is what a
    matrix's relays join.
    """

    name: str = "instrument"
    bus: Bus = field(default_factory=Bus)
    terminals: Mapping[str, Terminal] = field(default_factory=dict)
    fabric: Fabric = field(default_factory=LooseFabric)
    serial: str = "SIM0001"
    line_hz: float = 50.0

    def terminal(self, channel: str) -> Terminal:
        """What hangs on a channel."""
        return self.terminals.get(channel) or Resistor()
