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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from typing_extensions import override

from ..array.terminals import Drive, Place, Sensed
from .instrument import (
    ILLEGAL,
    MISSING,
    PARAMETER,
    Call,
    Handler,
    ScpiError,
    ScpiInstrument,
    pair,
)

OVERFLOW = 9.9e37
OVERRANGE = 1.05
"""Source and meter go up to this much of a range."""
LIST_WORDS, LIST_LENGTH = 100, 2500
"""Levels that one command takes, and that a list holds."""
OTHER = {"VOLT": "CURR", "CURR": "VOLT"}


@dataclass(frozen=True)
class Scale:
    """One range: full scale, resolution of a reading, accuracy as fraction of reading and
    offset; source and meter go up to `over` times the full scale.
    """

    full: float
    resolution: float
    fraction: float
    offset: float
    over: float = OVERRANGE

    @property
    def top(self) -> float:
        """Largest value on this range."""
        return self.full * self.over


Envelope = tuple[tuple[float, float], ...]
"""Pairs (V, A): at up to that many volts a source gives up to that many amperes."""


def most_beside(envelope: Envelope, quantity: str, full: float) -> float:
    """How much of the other quantity a source gives on the range `full` of "VOLT" or "CURR"."""
    at = 0 if quantity == "VOLT" else 1
    return max(pair[1 - at] for pair in envelope if pair[at] >= full)


class Meter:
    """The ranges of one quantity, each with a gain and an offset error drawn once."""

    def __init__(self, scales: tuple[Scale, ...], seed: int) -> None:
        self.scales = scales
        self._noise = np.random.default_rng(seed)
        self._gain = [1 + s.fraction * self._noise.uniform(-0.3, 0.3) for s in scales]
        self._offset = [s.offset * self._noise.uniform(-0.3, 0.3) for s in scales]

    def fitting(self, value: float) -> Scale:
        """The lowest range that holds `value`. Raises `ScpiError` -222 where none does."""
        for scale in self.scales:
            if abs(value) <= scale.top * (1 + 1e-9):
                return scale
        raise PARAMETER

    def read(self, true: float, scale: Scale) -> float:
        """A reading on this range."""
        if abs(true) > scale.top * (1 + 1e-9):
            return math.copysign(OVERFLOW, true)
        at = self.scales.index(scale)
        value = (
            true * self._gain[at] + self._offset[at] + self._noise.normal(0.0, 0.05 * scale.offset)
        )
        return float(round(value / scale.resolution) * scale.resolution)


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
        self.source_scale: dict[str, Scale] = {}
        self.sense_scale: dict[str, Scale] = {}
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

    @abstractmethod
    def take_source_scale(self, quantity: str, scale: Scale) -> None:
        """Change the source range of a quantity. Raises `ScpiError` where it does not fit."""

    @override
    def commands(self) -> dict[str, Handler]:
        table: dict[str, Handler] = {}
        for setting in self.SETTINGS:
            table |= pair(
                setting.pattern, partial(self._put, setting), partial(self._told_setting, setting)
            )
        return table | self.actions()

    @override
    def reset(self) -> None:
        self.values = {s.pattern: s.default for s in self.SETTINGS}
        self.source_auto = {"VOLT": True, "CURR": True}
        self.sense_auto = {"VOLT": True, "CURR": True}
        self.lists: dict[str, list[float]] = {"VOLT": [], "CURR": []}
        self.terminals = "FRON"
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
        self.place.bus.give_way()
        self.place.bus.clock.advance(seconds)

    def apply(self) -> None:
        """Put on the terminal what the settings say now."""
        level, limit, most = self.levels[self.function], self.limit_now(), self.protection_v()
        if not self.is_on:
            self.terminal.drive(self.resting())
        elif self.function == "VOLT":
            self.terminal.drive(Drive("voltage", max(-most, min(most, level)), limit))
        else:
            self.terminal.drive(Drive("current", level, min(limit, most)))

    def protection_v(self) -> float:
        """Overvoltage protection: volts that the output does not exceed."""
        return math.inf

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

    def source_commands(self, word: str) -> dict[str, Handler]:
        """Commands of "VOLTage" or "CURRent" that all models have: level, ranges, list."""
        q = word[:4]
        level, listed = f":SOURce#:{word}[:LEVel][:IMMediate][:AMPLitude]", f":SOURce#:LIST:{word}"
        top = self.meters[q].scales[-1].top
        return {
            level: lambda c: self.set_level(c, q),
            f"{level}?": lambda c: self.number_reply(c, self.levels[q], -top, top, 0),
            f":SOURce#:{word}:RANGe:AUTO": lambda c: self.source_auto.update({q: c.switch()}),
            f":SOURce#:{word}:RANGe:AUTO?": lambda _: str(int(self.source_auto[q])),
            f"[:SENSe#]:{word}[:DC]:RANGe:AUTO": lambda c: self.set_sense_auto(c, q),
            f"[:SENSe#]:{word}[:DC]:RANGe:AUTO?": lambda _: str(int(self.sense_auto[q])),
            listed: lambda c: self._set_list(c, q, []),
            f"{listed}?": lambda _: ",".join(f"{v:.6E}" for v in self.lists[q]),
            f"{listed}:APPend": lambda c: self._set_list(c, q, self.lists[q]),
            f"{listed}:POINts?": lambda _: str(len(self.lists[q])),
        }

    def set_level(self, call: Call, quantity: str) -> None:
        """The level of a quantity; an automatic range follows it."""
        is_auto = self.source_auto[quantity]
        level = self.level_of(call, quantity, None if is_auto else self.source_scale[quantity])
        if is_auto:
            self.take_source_scale(quantity, self.meters[quantity].fitting(level))
        if quantity == self.function:
            self.force(level)
        else:
            self.levels[quantity] = level

    def set_source_range(self, call: Call, quantity: str) -> None:
        """A fixed source range; the level stays within it."""
        top = self.meters[quantity].scales[-1].top
        scale = self.meters[quantity].fitting(call.number(0, -top, top, default=top))
        self.take_source_scale(quantity, scale)
        self.source_auto[quantity] = False
        level = self.levels[quantity]
        self.levels[quantity] = math.copysign(min(abs(level), scale.top), level)
        self.apply()

    def set_sense_auto(self, call: Call, quantity: str) -> None:
        """Automatic measuring range on or off."""
        self.sense_auto[quantity] = call.switch()

    def sense_scale_now(self, quantity: str) -> Scale:
        """The range that a quantity is measured on: its source's where it is forced."""
        return (self.source_scale if quantity == self.function else self.sense_scale)[quantity]

    def set_terminals(self, call: Call) -> None:
        """Front or rear terminals; a change switches the output off."""
        chosen = call.choice(0, "FRONt", "REAR")
        if chosen != self.terminals:
            self.clear()
            self.switch(False)
        self.terminals = chosen

    def _set_list(self, call: Call, quantity: str, before: list[float]) -> None:
        if not call.arguments:
            raise MISSING
        if len(call.arguments) > LIST_WORDS:
            raise ScpiError(-108, "Parameter not allowed")
        top = self.meters[quantity].scales[-1].top * (1 + 1e-9)
        values = before + [call.number(at, -top, top) for at in range(len(call.arguments))]
        if len(values) > LIST_LENGTH:
            raise PARAMETER
        self.lists[quantity] = values

    def sense(self) -> Sensed:
        """What is at the terminal."""
        return self.terminal.sense()

    def level_of(self, call: Call, quantity: str, scale: Scale | None) -> float:
        """A source level: within its manual range, or (None) within the widest. Raises `ScpiError`
        -222.
        """
        top = (scale or self.meters[quantity].scales[-1]).top * (1 + 1e-9)
        return call.number(0, -top, top, default=0.0)

    @override
    def shown(self, value: object) -> str:
        if not isinstance(value, float):
            return super().shown(value)
        return f"{OVERFLOW if math.isinf(value) else value:.6E}"

    def own(
        self,
        pattern: str,
        name: str,
        parse: Callable[[Call], object],
        *,
        key: str = "",
        asked: Callable[[Call], object] | None = None,
        applies: bool = False,
    ) -> dict[str, Handler]:
        """A command whose parameter is kept in attribute `name` of this instrument, and its query;
        see `kept`. With `applies` it reaches the terminal at once.
        """
        return self.kept(
            pattern,
            lambda _: self,
            name,
            parse,
            key=key,
            asked=asked,
            then=KeithleySmu.apply if applies else None,
        )

    def number_reply(
        self, call: Call, value: float, low: float, high: float, default: float
    ) -> str:
        """The reply of a numeric query, which may ask for MINimum, MAXimum or DEFault."""
        if call.arguments:
            value = call.number(0, low, high, default=default)
        return f"{value:.6E}"

    def _put(self, setting: Setting, call: Call) -> None:
        self.values[setting.pattern] = setting.parse(call)

    def _told_setting(self, setting: Setting, call: Call) -> str:
        asks = call.arguments and not setting.words and not isinstance(setting.default, bool)
        return setting.answer(setting.parse(call) if asks else self.values[setting.pattern])


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
