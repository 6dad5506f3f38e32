"""A simulated board's end of the link: a TCP port, or a pseudo-terminal."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import time
from typing import Protocol

from typing_extensions import override

from rram_hil.errors import ConfigError

from ..server.listening import accepted


class HostLink(Protocol):
    """The board's end of the link."""

    resource: str

    def read(self, timeout_s: float) -> bytes:
        """Bytes of the host that came within the time; empty if none."""

    def write(self, data: bytes) -> None:
        """Send to the host; lost if there is none."""

    def drop(self) -> None:
        """Break the connection, if the link knows connections."""

    def close(self) -> None:
        """Be gone for good."""


class SocketLink(HostLink):
    """One host at a time on 127.0.0.1; the next is taken when the last has gone."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._host: socket.socket | None = None
        self.resource = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"

    @override
    def read(self, timeout_s: float) -> bytes:
        host = self._host
        ready, _, _ = select.select([host or self._listener], [], [], timeout_s)
        if not ready:
            return b""
        if host is None:
            self._host = accepted(self._listener)
            if self._host is not None:
                self._host.settimeout(5.0)
            return b""
        try:
            data = host.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._host = None
            host.close()
        return data

    @override
    def write(self, data: bytes) -> None:
        host = self._host
        if host is not None:
            # A host that has gone is noticed by the next read.
            with contextlib.suppress(OSError):
                host.sendall(data)

    @override
    def drop(self) -> None:
        host = self._host
        if host is not None:
            # The reading thread meets the end of the stream and closes; it may be waiting on this
            # socket now.
            with contextlib.suppress(OSError):
                host.shutdown(socket.SHUT_RDWR)

    @override
    def close(self) -> None:
        self._listener.close()
        if self._host is not None:
            self._host.close()


class PtyLink(HostLink):
    """A pseudo-terminal, on systems that have them; it cannot be dropped, like a UART."""

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise ConfigError(
                'simulation.transport: "pty" is not available on Windows; use "socket"'
            )
        import pty
        import tty

        self._board, self._host = pty.openpty()
        tty.setraw(self._host)
        os.set_blocking(self._board, False)
        self.resource = os.ttyname(self._host)

    @override
    def read(self, timeout_s: float) -> bytes:
        ready, _, _ = select.select([self._board], [], [], timeout_s)
        return os.read(self._board, 1 << 16) if ready else b""

    @override
    def write(self, data: bytes) -> None:
        left, end_s = memoryview(data), time.monotonic() + 5.0
        while left and time.monotonic() < end_s:
            _, ready, _ = select.select([], [self._board], [], 0.1)
            if ready:
                try:
                    left = left[os.write(self._board, left) :]
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EINTR):
                        return

    @override
    def drop(self) -> None:
        """A UART knows no connections."""

    @override
    def close(self) -> None:
        os.close(self._board)
        os.close(self._host)
