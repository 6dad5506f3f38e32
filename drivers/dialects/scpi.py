"""What the drivers of SCPI instruments share: fused messages, the error queue read and raised after
every batch.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from typing_extensions import override

from rram_hil.errors import BenchError, InstrumentError, LinkError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import Instrument
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import Dialog, ese_probe
from rram_hil.wire.open_link import make_link

MOST_ERRORS = 64
"""Entries after which an error queue is not believed to be one."""


class ScpiInstrument(Instrument):
    """An instrument with `*IDN?`, `:SYSTem:ERRor?` and the other common commands.

    `send` and `ask` read the error queue in the same message, so that knowing costs no transaction.
    `identity` is what `connect` found.
    """

    ERROR_QUERY = ":SYST:ERR?"
    IDN_QUERY = "*IDN?"
    identity: Identity

    @override
    def connect(self) -> Identity:
        config = self.config
        self.dialog = Dialog(
            make_link(config.resource, self.traffic, baud=config.baud),
            ese_probe,
            timeout_s=config.timeout_s,
        )
        try:
            self.dialog.open()
            told = self.dialog.query(self.IDN_QUERY)
            maker, model, serial, firmware = ([p.strip() for p in told.split(",")] + [""] * 4)[:4]
            model = self.plain_model(model)
            self.accept(f"{maker} {model}", model)
            self.identity = Identity(model, serial, firmware)
        except BaseException:
            self.dialog.close()
            raise
        return self.identity

    def send(self, *commands: str, takes_s: float = 0.0) -> None:
        """Send commands as one message, then raise what the error queue holds: one transaction.

        Raises `InstrumentError` with code, text and these commands.
        """
        self.ask(*commands, takes_s=takes_s)

    def ask(self, *commands: str, takes_s: float = 0.0) -> str:
        """Like `send` for commands with queries among them; returns their replies, joined by
        ";".
        """
        message = ";".join(c if c.startswith((":", "*")) else f":{c}" for c in commands)
        reply = self.dialog.query(f"{message};{self.ERROR_QUERY}", takes_s=takes_s)
        value, error = self.split_error(reply)
        self.raise_error(error, message)
        return value

    def ask_block(self, *commands: str, takes_s: float = 0.0) -> bytes:
        """Like `ask` where the last command is a query answered by a binary block."""
        message = ";".join(c if c.startswith((":", "*")) else f":{c}" for c in commands)
        data, error = self.dialog.query_block_and_line(
            f"{message};{self.ERROR_QUERY}", takes_s=takes_s
        )
        self.raise_error(error, message)
        return data

    def split_error(self, reply: str) -> tuple[str, str]:
        """A fused reply cut into the values and the error entry (code, comma, quoted text) at its
        end.
        """
        head, quote, _ = reply.rstrip('"').rpartition('"')
        value, _, code = head.rpartition(";")
        if not quote or "," not in (code or head):
            raise LinkError(
                f"{self.name}: the reply {reply[:80]!r} does not end with an error entry"
            )
        return value, reply[len(value) :].lstrip(";")

    def raise_error(self, entry: str, message: str) -> None:
        """Raise an error entry unless it says that there is none; the rest of the queue is emptied
        and told along.
        """
        error = self.error_of(entry, message)
        if error.code == 0:
            return
        more = self.errors()
        text = f"{error}" + (
            f" (and {len(more)} more: {'; '.join(str(e.code) for e in more[:5])})" if more else ""
        )
        raise InstrumentError(text, code=error.code, command=message)

    def error_of(self, entry: str, message: str) -> InstrumentError:
        """An error entry as an exception. Raises `LinkError` where it is none."""
        code, _, text = entry.partition(",")
        try:
            number = int(float(code))
        except ValueError:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {entry[:60]!r} is no entry of an error queue") from None
        text = text.strip().strip('"')
        where = f", after {message[:120]!r}" if message else ""
        return InstrumentError(
            f"{self.name}: error {number}, {text!r}{where}", code=number, command=message
        )

    @override
    def errors(self) -> list[InstrumentError]:
        found: list[InstrumentError] = []
        for _ in range(MOST_ERRORS):
            error = self.error_of(self.dialog.query(self.ERROR_QUERY), "")
            if error.code == 0:
                return found
            found.append(error)
        raise LinkError(f"{self.name}: more than {MOST_ERRORS} errors and no end")

    @override
    def safe_off(self) -> None:
        """All outputs off; once more on a drained link where the first try fails."""
        try:
            self.switch_off()
        except BenchError:
            self.dialog.out_of_step()
            if not self.dialog.link.is_open:
                self.dialog.open()
            self.switch_off()
        if not self.is_off():
            raise InstrumentError(f"{self.name}: an output is still on after it was switched off")

    @abstractmethod
    def switch_off(self) -> None:
        """Send what takes all outputs to zero and off; `safe_off` verifies. Must not depend on the
        instrument's settings.
        """


def floats(text: str) -> FloatArray:
    """Comma-separated numbers of an ASCII reply. Raises `LinkError` where one is none."""
    try:
        return np.array([float(word) for word in text.split(",")], dtype=np.float64)
    except ValueError:
        raise LinkError(f"the reply {text[:60]!r} is not a list of numbers") from None
