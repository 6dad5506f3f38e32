"""A link to a GPIB instrument behind a Prologix or AR488 adapter, on a serial port or a socket."""

from __future__ import annotations

import time

from rram_hil.errors import LinkError
from rram_hil.wire.link import QUIET_S, Link
from rram_hil.wire.recording import Traffic

READ_S = 3.0
"""How long the adapter waits for the instrument at most; then it is asked again."""
ESCAPED = b"\r\n\x1b+"
SETTINGS = (
    "mode 1",
    "auto 0",
    "eoi 1",
    "eos 3",
    "eot_enable 0",
    f"read_tmo_ms {int(READ_S * 1e3)}",
)
"""Controller; reads only when asked to; a message ends with EOI and nothing is added to it."""


class GpibAdapterLink(Link):
    """Bytes to and from one GPIB address through the adapter that `adapter` reaches.

    A message to the instrument is one send. What it answers is asked for by `++read eoi` when it is
    awaited; a reply that ends with a line feed is whole.
    """

    def __init__(self, adapter: Link, gpib_address: int, traffic: Traffic | None = None) -> None:
        super().__init__(f"{adapter.resource} (GPIB {gpib_address})", traffic)
        self._adapter = adapter
        self._settings = (*SETTINGS, f"addr {gpib_address}")
        self._asked_s = -READ_S

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._adapter.is_open

    def _open(self) -> None:
        self._adapter.open()
        try:
            for command in self._settings:
                self._command(command)
            self._adapter.drain()
        except LinkError:
            self._adapter.close()
            raise

    def _close(self) -> None:
        self._adapter.close()

    def _send(self, data: bytes) -> None:
        escaped = b"".join(
            b"\x1b" + bytes([byte]) if byte in ESCAPED else bytes([byte]) for byte in data
        )
        self._adapter.send(escaped + b"\n")
        self._asked_s = -READ_S

    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes:
        if time.monotonic() - self._asked_s >= READ_S:
            self._command("read eoi")
            self._asked_s = time.monotonic()
        data = self._adapter.receive(most, timeout_s, until)
        if data.endswith(b"\n"):
            self._asked_s = -READ_S
        return data

    def _drain(self) -> None:
        self._command("clr")
        while self._adapter.receive(1 << 16, QUIET_S):
            pass
        self._asked_s = -READ_S

    def _command(self, command: str) -> None:
        self._adapter.send(f"++{command}\n".encode("ascii"))
