"""What the drivers of SCPI instruments share: fused messages, the error queue read and raised after
every batch.
"""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from rram_hil.errors import InstrumentError, LinkError
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import ese_probe

from .text import QueueInstrument, number_in


class ScpiInstrument(QueueInstrument):
    """An instrument with `*IDN?`, `:SYSTem:ERRor?` and the other common commands.

    `send` and `ask` read the error queue in the same message, so that knowing costs no transaction.
    """

    @override
    def probe(self, nonce: int) -> tuple[str, str]:
        return ese_probe(nonce)

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

    @override
    def error_of(self, entry: str, message: str) -> InstrumentError:
        code, _, text = entry.partition(",")
        try:
            number = int(number_in(code, self.name))
        except LinkError:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {entry[:60]!r} is no entry of an error queue") from None
        text = text.strip().strip('"')
        where = f", after {message[:120]!r}" if message else ""
        return InstrumentError(
            f"{self.name}: error {number}, {text!r}{where}", code=number, command=message
        )


def floats(text: str) -> FloatArray:
    """Comma-separated numbers of an ASCII reply. Raises `LinkError` where one is none."""
    try:
        return np.array([float(word) for word in text.split(",")], dtype=np.float64)
    except ValueError:
        raise LinkError(f"the reply {text[:60]!r} is not a list of numbers") from None
