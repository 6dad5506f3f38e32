"""What the drivers of instruments without an error queue share: fused messages whose last query is
the event status register, which is raised where it tells of an error.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from rram_hil.errors import InstrumentError, LinkError
from rram_hil.wire.dialog import ese_probe

from .text import TextInstrument, combined, number_in

STATUS = "*ESR?"
EVENTS = {
    4: "query error",
    8: "device-dependent error",
    16: "execution error",
    32: "command error",
}
"""Bits of the event status register that are errors (IEEE 488.2)."""


class StatusInstrument(TextInstrument):
    """An instrument with the common commands of IEEE 488.2 and words of its own."""

    REGISTERS: ClassVar[dict[str, dict[int, str]]] = {STATUS: EVENTS}
    """Queries of registers, read with every message, and what their bits say is wrong."""
    CLEAR: ClassVar[str] = ""
    """What clears a register that its query does not clear."""

    @override
    def probe(self, nonce: int) -> tuple[str, str]:
        return ese_probe(nonce)

    def ask(self, *commands: str, answers: int) -> list[str]:
        """Send commands as one message and return the replies of its `answers` queries: one
        transaction. Raises `InstrumentError` with code, text and these commands for what the
        registers tell.
        """
        message = ";".join(commands)
        reply = self.dialog.query(";".join((message, *self.REGISTERS)))
        words = [word.strip() for word in reply.split(";")]
        if len(words) != answers + len(self.REGISTERS):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {reply[:80]!r} is no reply to {message!r}")
        errors = self._errors(words[answers:], message)
        if errors:
            raise combined(errors, str(errors[0]), message)
        return words[:answers]

    @override
    def errors(self) -> list[InstrumentError]:
        reply = self.dialog.query(";".join(self.REGISTERS))
        return self._errors(reply.split(";"), "")

    def _errors(self, values: list[str], message: str) -> list[InstrumentError]:
        if len(values) != len(self.REGISTERS):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {values!r} are no values of {', '.join(self.REGISTERS)}")
        after = f", after {message[:120]!r}" if message else ""
        errors = [
            InstrumentError(
                f"{self.name}: {query.rstrip('?')} {bit}, {text}{after}", code=bit, command=message
            )
            for (query, bits), value in zip(self.REGISTERS.items(), values, strict=True)
            for bit, text in bits.items()
            if self.whole(value) & bit
        ]
        if errors and self.CLEAR:
            self.dialog.write(self.CLEAR)
        return errors

    def whole(self, word: str) -> int:
        """A whole number in a reply. Raises `LinkError` where it is none."""
        value = number_in(word, self.name)
        if value != int(value):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {word[:60]!r} is no whole number")
        return int(value)
