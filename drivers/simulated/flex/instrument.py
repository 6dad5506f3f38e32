"""A parser of Agilent's FLEX commands for simulated analysers: lines of commands, error queue, two
output buffers, programs.

After the "Agilent B1500A/B1505A Programming Guide", edition 11: "Command Input Format" (1-22),
"Data Output Format" (1-25 ff.), `ERRX?` (4-101), `*STB?` (4-189); data elements also after the
"Keysight E5260/E5270 Programming Guide", edition 4 (1-25 to 1-28, `FMT` 4-60). FLEX is no IEEE
488.2: `*CLS` and `*ESE` are undefined commands.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from ..array.terminals import Place
from ..server.instrument import SimulatedInstrument

TEXTS = {
    0: "No Error.",
    100: "Undefined GPIB command.",
    102: "Incorrect numeric data syntax.",
    103: "Incorrect terminator position.",
    120: "Incorrect parameter value.",
    121: "Channel number must be 1 to 10.",
    122: "Number of channels must be corrected.",
    123: "Compliance must be set correctly.",
    124: "Incorrect range value for this channel.",
    150: "Command input buffer is full.",
    160: "Incorrect ST execution.",
    161: "Incorrect program number.",
    200: "Channel output switch must be ON.",
    202: "Interlock circuit must be closed.",
    205: "DZ must be sent before RZ.",
    220: "Send MM before measurement trigger.",
    222: "Send WV or WI to set primary sweep source.",
    305: "Excess current in HPSMU.",
}
"""Code -> text. 305 and 0 are in the guide's `ERRX?`; 100, 121 and 200 were read from an E5270B
(PyMeasure's test with hardware); 102, 103, 120, 122 to 124 are in public E5270B software.
`unverified`: 121 as the B1500A words it, 150 to 222 other than 200.
"""
DUMMY = 199.999e99
"""What the data part says where it means nothing."""
MOST_PROGRAMS = 2000
MOST_STORED = 40000
_UNIT = re.compile(r"\s*(\*?[A-Za-z]+\??)\s*(.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class FlexError(Exception):
    """An error for the queue: its code, and what is told besides the code's own text."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail

    @override
    def __str__(self) -> str:
        """As `ERRX?` answers."""
        return f'{self.code:+d},"{TEXTS[self.code]}{"; " + self.detail if self.detail else ""}"'


@dataclass(frozen=True)
class Call:
    """One command: its header in capitals and its parameters."""

    header: str
    numbers: tuple[float, ...]

    def number(self, at: int, low: float, high: float) -> float:
        """A parameter. Raises `FlexError` 120 outside [low, high]."""
        if not low <= self.numbers[at] <= high:
            raise FlexError(120)
        return self.numbers[at]

    def integer(self, at: int, low: int, high: int, default: int | None = None) -> int:
        """An integer parameter, or `default` where it is left out. Raises `FlexError` 120."""
        if at >= len(self.numbers) and default is not None:
            return default
        value = self.number(at, low, high)
        if value != int(value):
            raise FlexError(120)
        return int(value)


@dataclass(frozen=True)
class Element:
    """One datum: channel (0: none), kind (V, I, T), value; `source` is W or E for what a sweep
    source forces, E at its end.
    """

    channel: int
    kind: str
    value: float
    over: bool = False
    limited: bool = False
    other_limited: bool = False
    source: str = ""


Handler = Callable[[Call], str | None]
"""Acts on one command; a query returns its reply. Raises `FlexError`."""


class FlexInstrument(SimulatedInstrument):
    """A FLEX instrument: `commands` gives for each header its handler and the least and most
    parameters it takes.

    Measurement data go to the data buffer, replies of queries to the query buffer, which holds one.
    Whoever reads gets the query buffer first where `query_first` (`unverified`). Over this
    transport both are read after every message.
    """

    INPUT_BUFFER = 254
    """256 characters with the two of the terminator (QCoDeS 0.58, message_builder)."""
    QUEUE = 30
    query_first = True

    def __init__(self, model: str, place: Place) -> None:
        super().__init__(model, place)
        self.queue: deque[FlexError] = deque()
        self.data: list[str] = []
        self.sre = 0
        self.format = (1, 0)
        self._reply = ""
        self._programs: dict[int, list[str]] = {}
        self._storing: int | None = None
        self._table = self._common() | self.commands()

    @abstractmethod
    def commands(self) -> dict[str, tuple[Handler, int, int]]:
        """Headers, what they do, and how many parameters they take at least and at most."""

    @abstractmethod
    def reset(self) -> None:
        """What `*RST` does: outputs off, every setting at its default."""

    @abstractmethod
    def identification(self) -> str:
        """Reply to `*IDN?`."""

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    def status_byte(self) -> int:
        """Bits of `*STB?` that are this instrument's own (no error, no request)."""

    @override
    def message(self, line: str) -> str:
        self.data.clear()
        self._reply = ""
        self._run(line)
        replies = [self._reply] if self._reply else []
        lines = [*replies, *self.data] if self.query_first else [*self.data, *replies]
        return "\r\n".join(lines) + "\r" if lines else ""

    @override
    def clear(self) -> None:
        """Buffers and a program half stored are dropped."""
        self.data.clear()
        self._reply = ""
        self._storing = None

    @override
    def overrun(self) -> None:
        self.push(FlexError(150))

    @override
    def fill_queue(self) -> None:
        """Fill the queue; it has no entry of its own for an overflow, what comes later is lost."""
        while len(self.queue) < self.QUEUE:
            self.push(FlexError(100))

    def push(self, error: FlexError) -> None:
        """Put an error into the queue if it has room."""
        if len(self.queue) < self.QUEUE:
            self.queue.append(error)

    def emit(self, elements: list[Element]) -> None:
        """Put one line of data into the data buffer, in the format that `FMT` chose."""
        self.data.append(",".join(self._text(element) for element in elements))

    def _text(self, element: Element) -> str:
        style = self.format[0]
        digits = 5 if style < 10 else 6
        value = (
            f"{DUMMY / 1e99:+.{digits - 2}f}E+99"
            if element.over
            else f"{element.value:+.{digits}E}"
        )
        if style in (2, 12, 22):
            return value
        letter = "Z" if element.channel == 0 else "ABCDEFGHIJ"[element.channel - 1]
        if style >= 20:
            bits = element.over * 1 + element.other_limited * 4 + element.limited * 8
            bits = (128 if element.source == "E" else 0) if element.source else bits
            kind = element.kind.lower() if element.source else element.kind
            return f"{bits:03d}{letter}{kind}{value}"
        status = (
            "V"
            if element.over
            else "C"
            if element.limited
            else "T"
            if element.other_limited
            else "N"
        )
        return f"{element.source or status}{letter}{element.kind}{value}"

    def _run(self, line: str) -> None:
        for unit in line.split(";"):
            if unit.strip():
                try:
                    self._unit(unit)
                except FlexError as error:
                    self.push(error)

    def _unit(self, unit: str) -> None:
        match = _UNIT.fullmatch(unit)
        if match is None:
            raise FlexError(100)
        header = match[1].upper()
        if self._storing is not None and header != "END":
            self._store(self._storing, header, unit)
            return
        if header not in self._table:
            raise FlexError(100)
        handler, least, most = self._table[header]
        words = [word.strip() for word in match[2].split(",")] if match[2] else []
        if not all(_NUMBER.fullmatch(word) for word in words):
            raise FlexError(102)
        if not least <= len(words) <= most:
            raise FlexError(103)
        numbers = tuple(float(word) for word in words)
        if not all(map(math.isfinite, numbers)):
            raise FlexError(120)
        try:
            reply = handler(Call(header, numbers))
        except (ArithmeticError, ValueError, LookupError, TypeError):
            raise FlexError(120) from None
        if reply is not None:
            self._reply = reply

    def _store(self, program: int, header: str, unit: str) -> None:
        if header.endswith("?") or header in ("ST", "DO", "RU", "SCR", "AB", "BC"):
            raise FlexError(160)
        if sum(len(stored) for stored in self._programs.values()) >= MOST_STORED:
            raise FlexError(160)
        self._programs[program].append(unit)

    def _common(self) -> dict[str, tuple[Handler, int, int]]:
        return {
            "*IDN?": (lambda _: self.identification(), 0, 0),
            "*RST": (self._reset, 0, 0),
            "*OPC?": (lambda _: "1", 0, 0),
            "*TST?": (lambda _: "0", 0, 1),
            "*SRE": (self._set_sre, 1, 1),
            "*SRE?": (lambda _: str(self.sre), 0, 0),
            "*STB?": (self._status, 0, 0),
            "ERR?": (self._first_errors, 0, 1),
            "ERRX?": (self._next_error, 0, 1),
            "EMG?": (self._error_text, 1, 1),
            "FMT": (self._set_format, 1, 2),
            "NUB?": (lambda _: str(sum(line.count(",") + 1 for line in self.data)), 0, 0),
            "BC": (self._empty_buffer, 0, 0),
            "AB": (self._abort, 0, 0),
            "PA": (self._wait, 0, 1),
            "ST": (self._start_program, 1, 1),
            "END": (self._end_program, 0, 0),
            "DO": (self._run_programs, 1, 8),
            "RU": (self._run_programs, 2, 2),
            "SCR": (self._scratch, 0, 1),
        }

    def _start_program(self, call: Call) -> None:
        number = call.integer(0, 1, MOST_PROGRAMS)
        self._programs[number] = []
        self._storing = number

    def _end_program(self, _: Call) -> None:
        if self._storing is None:
            raise FlexError(160)
        self._storing = None

    def _run_programs(self, call: Call) -> None:
        numbers = [int(n) for n in call.numbers]
        if call.header == "RU":
            numbers = [n for n in sorted(self._programs) if numbers[0] <= n <= numbers[1]]
        for number in numbers:
            if number not in self._programs:
                raise FlexError(161)
            for unit in self._programs[number]:
                self._run(unit)

    def _scratch(self, call: Call) -> None:
        if not call.numbers:
            self._programs.clear()
        elif self._programs.pop(int(call.numbers[0]), None) is None:
            raise FlexError(161)

    def _next_error(self, call: Call) -> str:
        error = str(self.queue.popleft() if self.queue else FlexError(0))
        return error.partition(",")[0] if call.integer(0, 0, 1, 0) else error

    def _first_errors(self, call: Call) -> str:
        codes = [error.code for error in self.queue]
        self.queue.clear()
        codes = (codes + [0] * 4)[: 1 if call.integer(0, 0, 1, 0) else 4]
        return ",".join(str(code) for code in codes)

    def _error_text(self, call: Call) -> str:
        return TEXTS.get(int(call.numbers[0]), "")

    def _set_format(self, call: Call) -> None:
        style = int(call.numbers[0])
        # The binary formats (3, 4, 13, 14) need a transport with an end of message and are not
        # simulated.
        if style not in (1, 2, 5, 11, 12, 15, 21, 22, 25):
            raise FlexError(120)
        self.format = (style, call.integer(1, 0, 10, 0))

    def _set_sre(self, call: Call) -> None:
        self.sre = call.integer(0, 0, 255) & ~64

    def _status(self, _: Call) -> str:
        byte = self.status_byte() | (32 if self.queue else 0)
        return str(byte | (64 if byte & self.sre else 0))

    def _reset(self, _: Call) -> None:
        self.format = (1, 0)
        self.data.clear()
        self.reset()

    def _empty_buffer(self, _: Call) -> None:
        self.data.clear()
        self._reply = ""

    def _abort(self, _: Call) -> None:
        """Nothing is ever under way between two messages here."""

    def _wait(self, call: Call) -> None:
        self.pause(call.number(0, 0, 99.9999) if call.numbers else 0.0)
