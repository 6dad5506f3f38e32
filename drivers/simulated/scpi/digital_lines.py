"""Six digital lines of a Keithley 2450, for plain control and for triggers.

Written from the reference manuals 2450-901-01 Rev. B (6-19 to 6-21, 6-149 to 6-153) and 2461-901-01
Rev. A (3-94, 6-35 to 6-38). Triggers are pulses on the rack's wires; levels are not carried to
other instruments, and an input that nothing drives is high. Unverified: the codes of errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..array.terminals import Place
from .instrument import CONFLICT, Call, Handler, ScpiError, not_simulated, pair

NUMBERS = range(1, 7)


@dataclass
class Line:
    """One line: its mode, its own level, what pulses it, whether an edge came."""

    mode: str = "DIG"
    direction: str = "IN"
    is_high: bool = True
    edge: str = "FALL"
    logic: str = "NEG"
    pulse_width_s: float = 10e-6
    stimulus: str = "NONE"

    @property
    def drives(self) -> bool:
        """Whether a level or a pulse of ours gets onto it."""
        return self.direction in ("OUT", "OPEN")


class DigitalLines:
    """The lines; an edge on one that is a trigger input is told to `on_event` as "DIG1" to
    "DIG6".
    """

    def __init__(self, place: Place, on_event: Callable[[str], None]) -> None:
        self._place, self._on_event = place, on_event
        self.clear()
        for number in NUMBERS:
            place.bus.listen((place.name, number), partial(self._edge, number))

    def clear(self) -> None:
        """All lines are digital inputs."""
        self.lines = {number: Line() for number in NUMBERS}

    def _edge(self, number: int) -> None:
        line = self.lines[number]
        if line.mode == "TRIG" and line.direction in ("IN", "OPEN"):
            self._on_event(f"DIG{number}")

    def stimulate(self, event: str) -> None:
        """Pulse the trigger outputs that this event stimulates."""
        for number, line in self.lines.items():
            if line.mode == "TRIG" and line.drives and line.stimulus == event:
                self._place.bus.pulse((self._place.name, number))

    def write(self, bits: int, mask: int = 63) -> None:
        """Set the levels of the lines in a mask (bit 0: line 1). Raises `ScpiError` where one of
        them is no digital line.
        """
        chosen = [n for n in NUMBERS if mask >> (n - 1) & 1]
        if any(self.lines[n].mode != "DIG" for n in chosen):
            raise CONFLICT
        for number in chosen:
            self.lines[number].is_high = bool(bits >> (number - 1) & 1)

    def read(self) -> int:
        """Levels of all lines. Raises `ScpiError` where one is no digital line."""
        if any(line.mode != "DIG" for line in self.lines.values()):
            raise CONFLICT
        return sum(
            1 << (n - 1) for n, line in self.lines.items() if line.is_high or not line.drives
        )

    def commands(self, event_of: Callable[[Call, int], str]) -> dict[str, Handler]:
        """The subsystems `DIGital` and `TRIGger:DIGital`."""
        root = ":TRIGger:DIGital#"
        return {
            **pair(":DIGital:LINE#:MODE", self._set_mode, self._told_mode),
            **pair(":DIGital:LINE#:STATe", self._set_state, self._told_state),
            ":DIGital:READ?": lambda _: str(self.read()),
            ":DIGital:WRITe": lambda c: self.write(round(c.number(0, 0, 63))),
            **self._kept(f"{root}:IN:EDGE", "edge", "FALLing", "RISing", "EITHer"),
            **self._kept(f"{root}:OUT:LOGic", "logic", "POSitive", "NEGative"),
            **pair(
                f"{root}:OUT:PULSewidth",
                lambda c: setattr(self._line(c), "pulse_width_s", c.number(0, 0, 1e5)),
                lambda c: f"{self._line(c).pulse_width_s:.6E}",
            ),
            **pair(
                f"{root}:OUT:STIMulus",
                lambda c: setattr(
                    self._line(c),
                    "stimulus",
                    "NONE" if c.text().upper() == "NONE" else event_of(c, 0),
                ),
                lambda c: self._line(c).stimulus,
            ),
        }

    def _kept(self, pattern: str, name: str, *words: str) -> dict[str, Handler]:
        return pair(
            pattern,
            lambda c: setattr(self._line(c), name, c.choice(0, *words)),
            lambda c: str(getattr(self._line(c), name)),
        )

    def _line(self, call: Call) -> Line:
        if call.suffixes[0] not in self.lines:
            raise ScpiError(-114, "Header suffix out of range")
        return self.lines[call.suffixes[0]]

    def _set_mode(self, call: Call) -> None:
        line = self._line(call)
        mode = call.choice(0, "DIGital", "TRIGger", "SYNChronous")
        if mode == "SYNC":
            raise not_simulated("synchronous trigger lines")
        line.direction = call.choice(1, "IN", "OUT", "OPENdrain")
        line.mode = mode

    def _told_mode(self, call: Call) -> str:
        line = self._line(call)
        return f"{line.mode},{line.direction}"

    def _set_state(self, call: Call) -> None:
        line = self._line(call)
        if line.mode != "DIG":
            raise CONFLICT
        line.is_high = call.number(0, 0, 1e9) != 0

    def _told_state(self, call: Call) -> str:
        line = self._line(call)
        return str(int(line.is_high or not line.drives))
