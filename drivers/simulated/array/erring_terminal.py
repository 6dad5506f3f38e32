"""What a source-meter's channel does wrong, put between its terminal and what hangs on it."""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import override

from rram_hil.simulation.config import SourceMeterErrors

from .terminals import Drive, Sensed, Terminal


class ErringTerminal(Terminal):
    """A terminal behind a channel whose scale of volts and amperes is wrong, when it sources as
    when it measures.
    """

    def __init__(self, terminal: Terminal, errors: SourceMeterErrors) -> None:
        self._terminal, self._errors = terminal, errors
        self._is_on = False

    @override
    def drive(self, drive: Drive) -> None:
        """What is really forced is what the channel takes for its level."""
        e = self._errors
        self._is_on = drive.function != "off"
        if drive.function == "voltage":
            level, limit = drive.level * (1 + e.gain_v) + e.offset_v, drive.limit / (1 + e.gain_a)
            drive = replace(drive, level=level, limit=limit)
        elif drive.function == "current":
            level, limit = (drive.level - e.offset_a) / (1 + e.gain_a), drive.limit * (1 + e.gain_v)
            drive = replace(drive, level=level, limit=limit)
        self._terminal.drive(drive)

    @override
    def sense(self) -> Sensed:
        """Volts and amperes as the channel takes them for."""
        sensed, e = self._terminal.sense(), self._errors
        volts = (sensed.volts - e.offset_v) / (1 + e.gain_v)
        amps = sensed.amps * (1 + e.gain_a) + e.offset_a if self._is_on else sensed.amps
        return Sensed(volts, amps, sensed.limited)

    @override
    def was_limited(self) -> bool:
        return self._terminal.was_limited()
