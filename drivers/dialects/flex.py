"""What a driver of FLEX instruments reads: elements of measurement data, entries of the error
queue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from rram_hil.errors import LinkError
from rram_hil.types import FloatArray

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

    def of(self, chosen: np.ndarray) -> Elements:
        """The elements that a mask (bool, shape (n,)) chooses."""
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


def packed(commands: tuple[str, ...]) -> list[str]:
    """Commands joined by ";" into as few messages as the input buffer allows, in order."""
    messages: list[str] = []
    for command in commands:
        if messages and len(messages[-1]) + 1 + len(command) <= MOST_CHARACTERS:
            messages[-1] += f";{command}"
        else:
            messages.append(command)
    return messages
