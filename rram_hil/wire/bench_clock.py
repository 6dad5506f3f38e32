"""The clock of a simulated bench, asked at its control address: what a driver's `now_s` returns
there.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading

from rram_hil.errors import LinkError


def control_of(address: str) -> tuple[tuple[str, int], dict[str, str]]:
    """Host and port of the control address "host:port" or "token@host:port" of a simulated bench,
    and the keys that every request to it needs. Raises `ValueError` for what is none.
    """
    token, _, place = address.rpartition("@")
    host, _, port = place.rpartition(":")
    return (host, int(port)), {"token": token} if token else {}


class FarClock:
    """A connection to the control socket of a simulated bench. Safe for several threads."""

    def __init__(self, address: str) -> None:
        try:
            place, self._keys = control_of(address)
            self._socket = socket.create_connection(place, timeout=30)
        except (OSError, ValueError) as error:
            raise LinkError(
                f"clock of the simulated bench at {address!r}: cannot be reached: {error}"
            ) from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rwb")
        self._lock = threading.Lock()

    def now_s(self) -> float:
        """Seconds of the far side. Raises `LinkError` where it has ended."""
        return self._ask({"do": "status"})

    def advance(self, seconds: float) -> float:
        """Let the far side's time pass, as a wait does; returns its clock (s)."""
        return self._ask({"do": "advance", "seconds": seconds})

    def _ask(self, request: dict[str, object]) -> float:
        try:
            with self._lock:
                self._stream.write(json.dumps(request | self._keys).encode() + b"\n")
                self._stream.flush()
                line = self._stream.readline()
            return float(json.loads(line)["now_s"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LinkError(f"clock of the simulated bench: {error!r}") from None

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()
