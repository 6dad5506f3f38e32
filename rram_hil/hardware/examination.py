"""What an examination of a person's own board reports: one outcome for each rule of its protocol.

An examination is found by its entry point in the group `rram_hil.board_tests`, named after the
driver of such boards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from rram_hil.wire.recording import Traffic


class Verdict(StrEnum):
    """How a rule came out."""

    KEPT = "kept"
    BROKEN = "broken"
    LEFT_OUT = "left out"
    NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Outcome:
    """One rule: the section of the protocol that it stands in, whether the smallest board must keep
    it, and what came out. `told` says what was seen, or why it was not looked at.
    """

    rule: str
    section: str
    required: bool
    verdict: Verdict
    told: str = ""


@dataclass(frozen=True)
class Drive:
    """What an examination may do to the chip; by itself it drives no line.

    `cells` (index over all tiles, rows and columns) are read at `read_v` on the bit line and
    `gate_v` on the word line (V) for `width_s`; the first takes one pulse of `pulse_v` where that
    is not 0.
    """

    cells: tuple[int, ...] = ()
    read_v: float = 0.1
    gate_v: float = 0.0
    pulse_v: float = 0.0
    width_s: float = 1e-6


@dataclass(frozen=True)
class Port:
    """Where the board is: serial port or URL, its line rate (baud), and how long it may be silent
    (s).
    """

    address: str
    baud: int = 115200
    silence_s: float = 1.0
    traffic: Traffic | None = field(default=None, repr=False)


class BoardTest(Protocol):
    """An examination: takes the board at a port through its protocol, rule by rule.

    Raises `LinkError` where nothing answers. Leaves the board with its outputs off.
    """

    def __call__(self, port: Port, drive: Drive) -> Iterator[Outcome]:
        """The outcomes, each as soon as it is known."""
