"""What the simulated single-channel Keithley source-meters share: stored settings, ranges with
errors of their own, the output.

Each model's dialect, registers and trigger model are its own. Physics: a source within its
programmed limit, a meter that adds a fixed offset and gain error and noise (all inside the stated
accuracy), rounds to its resolution and overflows above 105 % of range.
"""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from ..array.terminals import Drive, Place, Sensed
from .instrument import ILLEGAL, PARAMETER, Call, Handler, ScpiInstrument

OVERFLOW = 9.9e37
OVERRANGE = 1.05
"""Source and meter go up to this much of a range."""
OTHER = {"VOLT": "CURR", "CURR": "VOLT"}


@dataclass(frozen=True)
class Span:
    """One range: full scale, resolution of a reading, accuracy as fraction of reading and
    offset.
    """

    full: float
    resolution: float
    fraction: float
    offset: float

    @property
    def top(self) -> float:
        """Largest value on this range."""
        return self.full * OVERRANGE


class Meter:
    """The ranges of one quantity, each with a gain and an offset error drawn once."""

    def __init__(self, spans: tuple[Span, ...], seed: int) -> None:
        self.spans = spans
        self._noise = np.random.default_rng(seed)
        self._gain = [1 + s.fraction * self._noise.uniform(-0.3, 0.3) for s in spans]
        self._offset = [s.offset * self._noise.uniform(-0.3, 0.3) for s in spans]

    def fitting(self, value: float) -> Span:
        """The lowest range that holds `value`. Raises `ScpiError` -222 where none does."""
        for span in self.spans:
            if abs(value) <= span.top * (1 + 1e-9):
                return span
        raise PARAMETER

    def read(self, true: float, span: Span) -> float:
        """A reading on this range."""
        if abs(true) > span.top * (1 + 1e-9):
            return math.copysign(OVERFLOW, true)
        at = self.spans.index(span)
        value = (
            true * self._gain[at] + self._offset[at] + self._noise.normal(0.0, 0.05 * span.offset)
        )
        return float(round(value / span.resolution) * span.resolution)


@dataclass(frozen=True)
class Setting:
    """A command whose parameter is kept and told by its query: a number within [low, high], a
    switch, or one of `words`.
    """

    pattern: str
    default: float | bool | str
    low: float = -math.inf
    high: float = math.inf
    words: tuple[str, ...] = ()
    is_integer: bool = False

    def parse(self, call: Call) -> float | bool | str:
        """The parameter of a command. Raises `ScpiError`."""
        if self.words:
            return call.choice(0, *self.words)
        if isinstance(self.default, bool):
            return call.switch()
        return call.number(0, self.low, self.high, default=float(self.default))

    def answer(self, value: float | bool | str) -> str:
        """The reply of the query."""
        if isinstance(value, str):
            return value
        if isinstance(value, bool) or self.is_integer:
            return str(int(value))
        return f"{value:.6E}"


class KeithleySmu(ScpiInstrument):
    """One source-meter channel behind a SCPI front.

    A subclass lists its plain settings in `SETTINGS` (kept in `values` by pattern) and everything
    else in `actions`.
    """

    MAKER = "Keithley"
    SETTINGS: tuple[Setting, ...] = ()
    SETTLE_S = 200e-6
    """The source's own settling after a change of level."""

    def __init__(self, model: str, place: Place) -> None:
        self.values: dict[str, float | bool | str] = {}
        self.meters = self.make_meters(model, zlib.crc32(f"{place.name} {place.serial}".encode()))
        self.terminal = place.terminal("1")
        self.is_on = False
        self.function = "VOLT"
        self.levels = {"VOLT": 0.0, "CURR": 0.0}
        super().__init__(model, place)

    @abstractmethod
    def make_meters(self, model: str, seed: int) -> dict[str, Meter]:
        """The ranges of the model, by "VOLT" and "CURR"."""

    @abstractmethod
    def actions(self) -> dict[str, Handler]:
        """Commands that do more than keep a value."""

    @abstractmethod
    def limit_now(self) -> float:
        """What holds the other quantity at this moment (A or V)."""

    @abstractmethod
    def resting(self) -> Drive:
        """What the terminal does while the output is off."""

    @override
    def commands(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        for setting in self.SETTINGS:
            table[setting.pattern] = self._setter(setting)
            table[f"{setting.pattern}?"] = self._getter(setting)
        return table | self.actions()

    @override
    def reset(self) -> None:
        self.values = {s.pattern: s.default for s in self.SETTINGS}
        self.function = "VOLT"
        self.levels = {"VOLT": 0.0, "CURR": 0.0}
        self.is_on = False
        self.apply()

    @property
    @override
    def outputs_on(self) -> bool:
        return self.is_on

    @property
    def now_s(self) -> float:
        """The virtual clock."""
        return self.place.bus.clock.now_s

    def wait(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.place.bus.clock.advance(seconds)

    def apply(self) -> None:
        """Put on the terminal what the settings say now."""
        level = self.levels[self.function]
        if self.is_on:
            self.terminal.drive(
                Drive("voltage" if self.function == "VOLT" else "current", level, self.limit_now())
            )
        else:
            self.terminal.drive(self.resting())

    def force(self, level: float) -> None:
        """Change the level of the active source and let it settle."""
        self.levels[self.function] = level
        self.apply()
        if self.is_on:
            self.wait(self.SETTLE_S)

    def switch(self, on: bool) -> None:
        """Turn the output on or off."""
        self.is_on = on
        self.apply()
        self.wait(self.SETTLE_S)

    def sense(self) -> Sensed:
        """What is at the terminal."""
        return self.terminal.sense()

    def level_of(self, call: Call, quantity: str, span: Span | None) -> float:
        """A source level: within its manual range, or (None) within the widest. Raises `ScpiError`
        -222.
        """
        top = (span or self.meters[quantity].spans[-1]).top * (1 + 1e-9)
        return call.number(0, -top, top, default=0.0)

    def number_reply(
        self, call: Call, value: float, low: float, high: float, default: float
    ) -> str:
        """The reply of a numeric query, which may ask for MINimum, MAXimum or DEFault."""
        if call.arguments:
            value = call.number(0, low, high, default=default)
        return f"{value:.6E}"

    def _setter(self, setting: Setting) -> Handler:
        def act(call: Call) -> None:
            self.values[setting.pattern] = setting.parse(call)

        return act

    def _getter(self, setting: Setting) -> Handler:
        def act(call: Call) -> str:
            if call.arguments and not setting.words and not isinstance(setting.default, bool):
                return setting.answer(
                    call.number(0, setting.low, setting.high, default=float(setting.default))
                )
            return setting.answer(self.values[setting.pattern])

        return act


def function_word(text: str, *more: str) -> str:
    """A function name in any of its forms ("VOLT:DC", "current"), as short form. Raises `ScpiError`
    -224.
    """
    name = text.strip().upper().removesuffix(":DC")
    for word in ("VOLTage", "CURRent", "RESistance", *more):
        short = "".join(c for c in word if not c.islower())
        if name in (word.upper(), short):
            return short
    raise ILLEGAL
