"""A SCPI parser for simulated instruments: compound messages, long and short forms, suffixes, the
error queue, common commands.

After IEEE 488.2 and SCPI-1999: headers in any case, optional nodes, an optional leading colon, ";"
chains that keep their path, a trailing ";", both quote styles, channel lists. A subclass lists its
commands as patterns in the manual's own notation.
"""

from __future__ import annotations

import math
import re
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import Any

from typing_extensions import override

from ..array.terminals import Place
from ..server.instrument import SimulatedInstrument


class ScpiError(Exception):
    """An error for the queue: a SCPI or instrument code, and the text that the manual gives it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f'{code},"{text}"')
        self.code = code
        self.text = text


PARAMETER = ScpiError(-222, "Parameter data out of range")
ILLEGAL = ScpiError(-224, "Illegal parameter value")
MISSING = ScpiError(-109, "Missing parameter")
EXECUTION = ScpiError(-200, "Execution error")
UNFORESEEN = (ArithmeticError, ValueError, LookupError, TypeError, struct.error)
"""What parameters that no check foresaw lead to: the instrument's own error, never the end of the
connection.
"""
CONFLICT = ScpiError(-221, "Settings conflict")


def not_simulated(what: str) -> ScpiError:
    """The error of something that the instrument can do and its simulator cannot."""
    return ScpiError(-200, f"Execution error; not simulated: {what}")


@dataclass(frozen=True)
class Call:
    """One command as it came: numeric suffixes of its pattern's `#` nodes (1 where left out), its
    parameters as text.
    """

    suffixes: tuple[int, ...]
    arguments: tuple[str, ...]

    def text(self, at: int = 0) -> str:
        """A parameter, quotes removed. Raises `ScpiError` -109 where it is missing."""
        if at >= len(self.arguments):
            raise MISSING
        word = self.arguments[at]
        if len(word) >= 2 and word[0] in "'\"" and word[-1] == word[0]:
            return word[1:-1]
        return word

    def number(
        self, at: int = 0, low: float = float("-inf"), high: float = float("inf"), **named: float
    ) -> float:
        """A numeric parameter, MINimum, MAXimum and DEFault included; `named` adds other words
        (short form in lower case).

        Raises `ScpiError` -222 outside [low, high], -224 for a word that is none.
        """
        word = self.text(at).strip()
        known = {"min": low, "max": high, "def": named.pop("default", low)} | named
        for name, value in known.items():
            if word.lower() in (
                name,
                {"min": "minimum", "max": "maximum", "def": "default"}.get(name, name),
            ):
                return value
        match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)", word)
        if not match:
            raise (
                ILLEGAL if re.fullmatch(r"[A-Za-z_]+", word) else ScpiError(-104, "Data type error")
            )
        value = float(match[1]) * _unit(match[2])
        if not (low <= value <= high and math.isfinite(value)):
            raise PARAMETER
        return value

    def switch(self, at: int = 0) -> bool:
        """A Boolean parameter: ON, OFF, or a number (0 is off)."""
        word = self.text(at).strip().upper()
        if word in ("ON", "OFF"):
            return word == "ON"
        try:
            return round(float(word)) != 0
        except OverflowError:
            raise PARAMETER from None
        except ValueError:
            raise ILLEGAL from None

    def choice(self, at: int, *words: str) -> str:
        """One of some words in the manual's notation ("VOLTage"); its short form in capitals.
        Raises `ScpiError` -224.
        """
        given = self.text(at).strip().upper()
        for word in words:
            short = "".join(c for c in word if not c.islower())
            if given in (word.upper(), short):
                return short
        raise ILLEGAL


_PREFIXES = {"": 1.0, "P": 1e-12, "N": 1e-9, "U": 1e-6, "M": 1e-3, "K": 1e3, "MA": 1e6, "G": 1e9}
_UNITS = ("VPP", "OHM", "HZ", "V", "A", "S")


def _unit(word: str) -> float:
    upper = word.upper()
    if upper in ("MAHZ", "MHZ"):
        return 1e6
    for unit in _UNITS:
        if upper.endswith(unit) and upper[: -len(unit)] in _PREFIXES:
            return _PREFIXES[upper[: -len(unit)]]
    if upper in _PREFIXES:
        return _PREFIXES[upper]
    raise ScpiError(-131, "Invalid suffix")


Handler = Callable[[Call], str | bytes | None]
"""Acts on one command; a query returns its reply. Raises `ScpiError`."""


def _node(word: str) -> str:
    """Regular expression of one node of a pattern: short or long form, "#" for an optional numeric
    suffix.
    """
    suffixed = word.endswith("#")
    name = word.rstrip("#")
    short = "".join(c for c in name if not c.islower())
    forms = name.upper() if short == name.upper() else f"(?:{name.upper()}|{short})"
    return forms + (r"(\d*)" if suffixed else "")


@cache  # hundreds for each instrument, the same for every one of a family
def compile_pattern(pattern: str) -> tuple[re.Pattern[str], ...]:
    """Regular expressions for a header in the manual's notation, such as
    `:SOURce#:VOLTage[:LEVel][:IMMediate]?`.

    One for each choice of the optional nodes; every one has a group for each "#", in order (absent
    ones count as empty).
    """
    if pattern.startswith("*"):
        return (re.compile(re.escape(pattern), re.IGNORECASE),)
    query = pattern.endswith("?")
    parts = re.findall(r"\[:[^\]]+\]|\[[^\]:]+:?\]|:?[^:\[\]]+", pattern.rstrip("?"))
    choices: list[list[str]] = []
    for part in parts:
        word = part.strip("[]").strip(":")
        here = ":" + _node(word)
        without = "()" if "#" in word else ""
        choices.append([here, without] if part.startswith("[") else [here])
    patterns = []
    for nodes in product(*choices):
        text = "".join(nodes)
        patterns.append(re.compile(text + (r"\?" if query else ""), re.IGNORECASE))
    return tuple(patterns)


def split_outside_quotes(text: str, separator: str) -> list[str]:
    """Split at a character that stands outside quotes and parentheses."""
    parts, depth, quote, start = [], 0, "", 0
    for at, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
        elif c == separator and depth <= 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def pair(
    pattern: str, put: Callable[[Call], None], get: Callable[[Call], str]
) -> dict[str, Handler]:
    """A command and its query."""
    return {pattern: put, f"{pattern}?": get}


class ScpiInstrument(SimulatedInstrument):
    """A SCPI instrument: `commands` maps patterns to handlers; the common commands and the error
    queue are here.

    `QUEUE` is how many errors the queue holds; the last is replaced by -350 when one more comes.
    `NO_ERROR` is its empty answer.
    """

    QUEUE = 10
    NO_ERROR = '0,"No error"'
    OVERFLOW = ScpiError(-350, "Queue overflow")
    OVERRUN = ScpiError(-363, "Input buffer overrun")
    SEPARATOR = ";"

    def __init__(self, model: str, place: Place) -> None:
        super().__init__(model, place)
        self.queue: deque[ScpiError] = deque()
        self.ese = 0
        self.sre = 0
        self.esr = 128  # power on
        self._table = [
            (p, handler)
            for text, handler in self._all_commands().items()
            for p in compile_pattern(text)
        ]
        self._find = lru_cache(maxsize=4096)(self._search)
        self.reset()

    def commands(self) -> dict[str, Handler]:
        """Patterns in the manual's notation and what they do."""
        raise AssertionError("a subclass lists its commands")

    def reset(self) -> None:
        """What `*RST` does: outputs off, every setting at its default."""
        raise AssertionError("a subclass knows its defaults")

    def identification(self) -> str:
        """Reply to `*IDN?`."""
        raise AssertionError("a subclass knows who it is")

    @override
    def message(self, line: str) -> str | bytes:
        replies: list[bytes] = []
        path = ""
        for unit in split_outside_quotes(line, ";"):
            text = unit.strip()
            if not text:
                continue
            header, _, rest = text.partition(" ")
            # Drivers in the wild send ":*RST", and instruments take it.
            header = header[1:] if header.startswith(":*") else header
            if not header.startswith("*"):
                header = header if header.startswith(":") else f"{path}:{header}"
                path = header.rpartition(":")[0]
            try:
                reply = self._unit(header, rest)
            except ScpiError as error:
                self.push(error)
                continue
            except UNFORESEEN:
                self.push(EXECUTION)
                continue
            if reply is not None:
                replies.append(reply if isinstance(reply, bytes) else reply.encode("latin-1"))
        return self.SEPARATOR.encode().join(replies)

    def _unit(self, header: str, rest: str) -> str | bytes | None:
        arguments = (
            tuple(a.strip() for a in split_outside_quotes(rest, ",")) if rest.strip() else ()
        )
        match = self._find(header.upper())
        if match is None:
            raise ScpiError(-113, "Undefined header")
        handler, suffixes = match
        return handler(Call(suffixes, arguments))

    def _search(self, header: str) -> tuple[Handler, tuple[int, ...]] | None:
        for pattern, handler in self._table:
            match = pattern.fullmatch(header)
            if match:
                return handler, tuple(int(s) if s else 1 for s in match.groups())
        return None

    def push(self, error: ScpiError) -> None:
        """Put an error into the queue and set its bit of the event status register."""
        first = -error.code // 100
        self.esr |= {1: 32, 2: 16, 3: 8, 4: 4}.get(first, 8)
        if len(self.queue) < self.QUEUE:
            self.queue.append(error)
        else:
            self.queue[-1] = self.OVERFLOW

    @override
    def fill_queue(self) -> None:
        while self.OVERFLOW not in self.queue:
            self.push(ScpiError(-113, "Undefined header"))

    @override
    def overrun(self) -> None:
        self.push(self.OVERRUN)

    def next_error(self, _: Call | None = None) -> str:
        """Take the oldest error, as text."""
        return str(self.queue.popleft()) if self.queue else self.NO_ERROR

    def all_errors(self, _: Call) -> str:
        """Take all errors, as text."""
        errors = ",".join(map(str, self.queue)) or self.NO_ERROR
        self.queue.clear()
        return errors

    def shown(self, value: object) -> str:
        """How a query tells a value that a command keeps."""
        return str(int(value)) if isinstance(value, bool) else str(value)

    def kept(
        self,
        pattern: str,
        owner: Callable[[Call], object],
        name: str,
        parse: Callable[[Call], object],
        *,
        key: str = "",
        asked: Callable[[Call], object] | None = None,
        then: Callable[[Any], None] | None = None,
    ) -> dict[str, Handler]:
        """A command whose parameter is kept, and its query.

        It is attribute `name` of `owner`, entry `key` of it where it is a dictionary; `then` acts
        on the owner of a new value. A query with a parameter (MIN, MAX) is answered by `asked`.
        """

        def put(call: Call) -> None:
            of = owner(call)
            value = parse(call)
            if key:
                getattr(of, name)[key] = value
            else:
                setattr(of, name, value)
            if then is not None:
                then(of)

        def get(call: Call) -> str:
            if asked is not None and call.arguments:
                return self.shown(asked(call))
            value = getattr(owner(call), name)
            return self.shown(value[key] if key else value)

        return pair(pattern, put, get)

    def status_byte(self) -> int:
        """`*STB?`: the summary bits, and the master summary (bit 6)."""
        byte = self.summary()
        return byte | (64 if byte & self.sre else 0)

    def summary(self) -> int:
        """Error queue (bit 2), event status (5); a subclass may add its own."""
        return (4 if self.queue else 0) | (32 if self.esr & self.ese else 0)

    def _all_commands(self) -> dict[str, Handler]:
        def clear(_: Call) -> None:
            self.queue.clear()
            self.esr = 0

        def set_ese(call: Call) -> None:
            self.ese = int(call.number(0, 0, 255))

        def set_sre(call: Call) -> None:
            self.sre = int(call.number(0, 0, 255)) & ~64

        def take_esr(_: Call) -> str:
            value, self.esr = self.esr, 0
            return str(value)

        def complete(_: Call) -> None:
            self.esr |= 1

        common: dict[str, Handler] = {
            "*IDN?": lambda _: self.identification(),
            "*RST": lambda _: self.reset(),
            "*CLS": clear,
            "*ESE": set_ese,
            "*ESE?": lambda _: str(self.ese),
            "*ESR?": take_esr,
            "*SRE": set_sre,
            "*SRE?": lambda _: str(self.sre),
            "*STB?": lambda _: str(self.status_byte()),
            "*OPC": complete,
            "*OPC?": lambda _: "1",
            "*WAI": lambda _: None,
            "*TST?": lambda _: "0",
            ":SYSTem:ERRor[:NEXT]?": self.next_error,
        }
        return common | self.commands()
