"""What drivers of FLEX instruments share: messages, elements of measurement data, the error
queue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from rram_hil.errors import InstrumentError, LinkError
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import number

from .text import QueueInstrument

MOST_CHARACTERS = 250
"""Of one message: the input buffer takes 256 with the terminator."""
ENTRY = re.compile(r'([+-]?\d+),"(.*)"')
"""An entry of the error queue, as `ERRX?` answers."""
_WORD = r"[A-Z][A-Za-z][A-Z][+-]\d{1,3}\.\d{4,6}E[+-]\d\d"
_LINE = re.compile(f"{_WORD}(?:,{_WORD})*")
_FIELDS = np.dtype([("status", "S1"), ("channel", "S1"), ("kind", "S1"), ("value", "S13")])


@dataclass(frozen=True, eq=False)
class Elements:
    """Data elements of format 11, shape (n,) each: status letter, channel letter, type letter (S1),
    value.
    """

    status: np.ndarray
    channel: np.ndarray
    kind: np.ndarray
    value: FloatArray

    def __len__(self) -> int:
        return int(self.value.size)

    def of(self, chosen: np.ndarray | slice) -> Elements:
        """The elements that a mask (bool, shape (n,)) or a slice chooses."""
        return Elements(
            self.status[chosen], self.channel[chosen], self.kind[chosen], self.value[chosen]
        )


def elements(line: str) -> Elements:
    """A line of data in format 11: elements of 16 characters with a header, joined by commas.
    Raises `LinkError`.
    """
    raw = line.replace(",", "").encode("ascii", "replace")
    if (
        not _LINE.fullmatch(line)
        or len(raw) % _FIELDS.itemsize
        or len(line) != len(raw) + len(raw) // 16 - 1
    ):
        raise LinkError(f"the reply {line[:60]!r} is no line of data in format 11")
    fields = np.frombuffer(raw, dtype=_FIELDS)
    return Elements(
        fields["status"], fields["channel"], fields["kind"], fields["value"].astype(np.float64)
    )


def joined(lines: Sequence[Elements]) -> Elements:
    """The elements of one or more lines."""
    if len(lines) == 1:
        return lines[0]
    return Elements(
        *(np.concatenate([getattr(line, f) for line in lines]) for f in Elements.__annotations__)
    )


def flex_number(value: float) -> str:
    """A number as FLEX takes it."""
    return number(value).upper()


def packed(commands: tuple[str, ...]) -> list[str]:
    """Commands joined by ";" into as few messages as the input buffer allows, in order."""
    messages: list[str] = []
    for command in commands:
        if messages and len(messages[-1]) + 1 + len(command) <= MOST_CHARACTERS:
            messages[-1] += f";{command}"
        else:
            messages.append(command)
    return messages


class FlexMainframe(QueueInstrument):
    """An instrument that takes FLEX commands: messages, measurements, its error queue."""

    ERROR_QUERY = "ERRX?"
    ENDING = b"\r\n"

    def send(self, *commands: str, takes_s: float = 0.0) -> None:
        """Send commands in as few messages as they need, then raise what the error queue holds: one
        turn on the link.

        Raises `InstrumentError` with code, text and these commands.
        """
        *before, last = packed((*commands, self.ERROR_QUERY))
        with self.dialog.lock:
            for message in before:
                self.dialog.write(message)
            entry = self.dialog.query(last, takes_s=takes_s)
        self.raise_error(entry, ";".join(commands))

    def measured(self, *commands: str, takes_s: float = 0.0) -> list[Elements]:
        """Send commands that measure; the lines of data that they gave: one transaction. Raises as
        `send`.
        """
        message = ";".join((*commands, "TSQ", self.ERROR_QUERY))
        entry, is_timed = "", False

        def is_last(line: str) -> bool:
            nonlocal entry, is_timed
            if line[1:3] == "ZT":
                is_timed = True
            elif not entry and ENTRY.fullmatch(line):
                entry = line
            return is_timed and entry != ""

        _, lines = self.dialog.query_lines(message, is_last, takes_s=takes_s)
        self.raise_error(entry, ";".join(commands))
        try:
            return [elements(line) for line in lines if line != entry and line[1:3] != "ZT"]
        except LinkError:
            self.dialog.out_of_step()
            raise

    @override
    def error_of(self, entry: str, message: str) -> InstrumentError:
        match = ENTRY.fullmatch(entry)
        if match is None:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {entry[:60]!r} is no entry of an error queue")
        where = f", after {message[:120]!r}" if message else ""
        text = f"{self.name}: error {int(match[1])}, {match[2]!r}{where}"
        return InstrumentError(text, code=int(match[1]), command=message)
