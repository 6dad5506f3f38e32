"""Limit tests of the Keithley Series 2400: subsystem `CALCulate2`.

Written from the Series 2400 SourceMeter User's Manual 2400S-900-01 Rev. K, pages 18-4 to 18-7 and
18-34 to 18-42. The digital output port is not simulated: patterns for it are refused. Unverified:
the bits of the measurement event register (limit 1, lower and upper limit 2, lower and upper limit
3, all passed: 0 to 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from .instrument import Call, Handler, ScpiError, ScpiInstrument, not_simulated

NUMBERS = (2, 3, *range(5, 13))
"""Limit tests of the software; 1 is that of the compliance, 4 belongs to the contact check."""
MOST = 9.999999e20
STALE = ScpiError(-230, "Data corrupt or stale")
NEXT = "NEXT"
"""Stands for the next location of a source memory sweep."""


@dataclass
class Limit:
    """One test: lower and upper limit, whether it is on, whether it has failed."""

    lower: float = -1.0
    upper: float = 1.0
    is_on: bool = False
    has_failed: bool = False


@dataclass
class LimitTests:
    """All tests of one instrument. `feed` is the quantity that they look at."""

    feed: str = "VOLT"
    offset: float = 0.0
    is_null: bool = False
    acquires: bool = False
    fails: str = "IN"
    clears_itself: bool = True
    limits: dict[int, Limit] = field(default_factory=lambda: {n: Limit() for n in (1, *NUMBERS)})
    on_pass: str = NEXT
    on_fail: str = NEXT
    values: list[float] = field(default_factory=list)

    @property
    def is_on(self) -> bool:
        """Whether any test is on."""
        return any(limit.is_on for limit in self.limits.values())

    def begin(self) -> None:
        """The trigger model leaves idle."""
        self.values = []
        if self.clears_itself:
            self.clear()

    def clear(self) -> None:
        """Forget the results."""
        for limit in self.limits.values():
            limit.has_failed = False

    def look(self, readings: Mapping[str, float], is_limited: bool) -> tuple[int, str]:
        """Test one reading: bits of the measurement event register, and where a source memory
        sweep goes on.
        """
        if not (self.is_on or self.is_null):
            return 0, NEXT
        if self.acquires:
            self.offset, self.acquires = readings[self.feed], False
        value = readings[self.feed] - (self.offset if self.is_null else 0.0)
        self.values.append(value)
        events, has_failed = 0, False
        for number, limit in self.limits.items():
            if not limit.is_on:
                continue
            low = number != 1 and value < limit.lower
            high = number != 1 and value > limit.upper
            failed = is_limited == (self.fails == "IN") if number == 1 else low or high
            limit.has_failed |= failed
            has_failed |= failed
            if number in (2, 3):
                events |= (low | high << 1) << (1 if number == 2 else 3)
            events |= int(failed and number == 1)
        if self.is_on and not has_failed:
            events |= 1 << 5
        return events, (self.on_fail if has_failed else self.on_pass) if self.is_on else NEXT

    def take_results(self, before: LimitTests) -> None:
        """Have the results of others."""
        self.values = before.values
        for number, limit in self.limits.items():
            limit.has_failed = before.limits[number].has_failed

    def limit(self, number: int) -> Limit:
        """One of the tests. Raises `ScpiError` where there is none of that number."""
        if number not in self.limits:
            raise ScpiError(-114, "Header suffix out of range")
        return self.limits[number]

    def bounded(self, call: Call) -> Limit:
        """The test of the software that a command names. Raises `ScpiError`."""
        if call.suffixes[0] == 1:
            raise ScpiError(-113, "Undefined header")
        return self.limit(call.suffixes[0])


def limit_commands(
    instrument: ScpiInstrument, tests: Callable[[], LimitTests], refuse: Callable[[], None]
) -> dict[str, Handler]:
    """The subsystem of an instrument; `refuse` raises where the results may not be read."""
    root, kept = ":CALCulate2", instrument.kept

    def of(_: Call) -> LimitTests:
        return tests()

    def limit(call: Call) -> Limit:
        return tests().limit(call.suffixes[0])

    def read(_: Call) -> list[float]:
        refuse()
        if not tests().values:
            raise STALE
        return tests().values

    table: dict[str, Handler] = {
        f"{root}:NULL:ACQuire": lambda _: setattr(tests(), "acquires", True),
        f"{root}:DATA?": lambda c: _told(read(c)),
        f"{root}:DATA:LATest?": lambda c: _told(read(c)[-1:]),
        f"{root}:CLIMits:CLEar[:IMMediate]": lambda _: tests().clear(),
        f"{root}:LIMit#:FAIL?": lambda c: str(int(limit(c).has_failed)),
        **kept(f"{root}:FEED", of, "feed", _feed),
        **kept(f"{root}:NULL:OFFSet", of, "offset", lambda c: c.number(0, -MOST, MOST, default=0)),
        **kept(f"{root}:NULL:STATe", of, "is_null", lambda c: c.switch()),
        **kept(f"{root}:CLIMits:CLEar:AUTO", of, "clears_itself", lambda c: c.switch()),
        **kept(f"{root}:LIMit#:COMPliance:FAIL", of, "fails", lambda c: c.choice(0, "IN", "OUT")),
        **kept(f"{root}:LIMit#:STATe", limit, "is_on", lambda c: c.switch()),
        **kept(f"{root}:CLIMits:PASS:SMLocation", of, "on_pass", _location),
        **kept(f"{root}:CLIMits:FAIL:SMLocation", of, "on_fail", _location),
    }
    for word, name, default in (("UPPer", "upper", 1.0), ("LOWer", "lower", -1.0)):
        bound = partial(_bound, default)
        table |= kept(
            f"{root}:LIMit#:{word}[:DATA]", lambda c: tests().bounded(c), name, bound, asked=bound
        )
    for pattern in (
        "LIMit#:COMPliance:SOURce2",
        "LIMit#:UPPer:SOURce2",
        "LIMit#:LOWer:SOURce2",
        "LIMit#:PASS:SOURce2",
        "CLIMits:PASS:SOURce2",
        "CLIMits:FAIL:SOURce2",
        "CLIMits:MODE",
        "CLIMits:BCONtrol",
    ):
        table[f"{root}:{pattern}"] = _refused
    return table


def _told(values: list[float]) -> str:
    return ",".join(f"{value:+.6E}" for value in values)


def _feed(call: Call) -> str:
    feed = call.choice(0, "CALCulate", "CALCulate1", "VOLTage", "CURRent", "RESistance")
    if feed.startswith("CALC"):
        raise not_simulated("math expressions")
    return feed


def _location(call: Call) -> str:
    """A location of a source memory sweep, or the next one."""
    return call.text().upper() if call.text().upper() == NEXT else f"{call.number(0, 1, 100):.0f}"


def _bound(default: float, call: Call) -> float:
    return call.number(0, -MOST, MOST, default=default)


def _refused(_: Call) -> None:
    raise not_simulated("digital output port")
