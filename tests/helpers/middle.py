"""A man in the middle of a link over TCP: one fault, at one exchange, between a driver and the
simulator that faces it. It knows no protocol but where a message ends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

REPLY_FAULTS = (
    "reply duplicated",
    "reply late",
    "reply very late",
    "reply lost",
    "reply half",
    "reply half, then closed",
    "reply swapped with the next",
    "previous reply instead",
    "previous reply before",
    "garbage before the reply",
    "false head before the reply",
    "reply byte by byte",
    "reply with a bit flipped",
    "closed at the reply",
)
REQUEST_FAULTS = (
    "request lost",
    "request doubled",
    "request half",
    "request late",
    "garbage before the request",
    "request with a bit flipped",
    "closed before the request",
    "closed after the request",
    "dead from here on",
    "port gone from here on",
)
FAULTS = REPLY_FAULTS + REQUEST_FAULTS
GONE = frozenset({"dead from here on", "port gone from here on"})
"""Faults after which nobody can reach the far side any more."""
LATE = {"reply late": 1.7, "reply very late": 6.7, "request late": 1.7}
"""How late, in timeouts of the link (0.5 s and 2 s where it is 0.3 s)."""
GATHER_S = 0.03
"""Silence after which a reply counts as whole."""
GARBAGE = bytes([0xFF, 0x00, 0x80, 0x55]) + b"~garbage"


class Middle:
    """Listens on `port` and passes on to `target`; `at` counts the host's messages from 0, over all
    connections. `lines`: a message of the host is a line, else what it sends at once. `timeout_s`
    is that of the link.
    """

    def __init__(
        self, target: int, fault: str, at: int, *, lines: bool, head: bytes, timeout_s: float
    ) -> None:
        self._target, self._fault, self._at = target, fault, at
        self._late_s = LATE.get(fault, 0.0) * timeout_s
        self._lines, self._head = lines, head
        self.messages = 0
        self.happened = False
        self._reply_due = self._is_dead = False
        self._previous = b""
        self._held = b""
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._place: socket.socket | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End everything."""
        self._stop_listening()
        if self._place is not None:
            self._place.close()

    def _stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    def _leave_the_port(self) -> None:
        """Refuse connections from here on; nobody else gets the port meanwhile."""
        self._stop_listening()
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", self.port))

    def _hang_up(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open = []

    def _accept(self) -> None:
        while True:
            try:
                host, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for one in (host, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [host, far]
            for work in (self._upward, self._downward):
                threading.Thread(target=self._guarded, args=(work, host, far), daemon=True).start()

    def _guarded(self, work: object, host: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            work(host, far)  # type: ignore[operator]
        for one in (host, far):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _upward(self, host: socket.socket, far: socket.socket) -> None:
        pending = b""
        while data := host.recv(1 << 16):
            pending += data
            while pending:
                size = pending.find(b"\n") + 1 if self._lines else len(pending)
                if not size:
                    break
                message, pending = pending[:size], pending[size:]
                self._request(message, far)

    def _request(self, message: bytes, far: socket.socket) -> None:
        number, self.messages = self.messages, self.messages + 1
        if self._is_dead:
            return
        if number != self._at:
            far.sendall(message)
            return
        if self._fault in REPLY_FAULTS:
            self._reply_due = True
            far.sendall(message)
            return
        self.happened = True
        if self._fault == "closed before the request":
            self._hang_up()
        elif self._fault == "closed after the request":
            far.sendall(message)
            self._hang_up()
        elif self._fault == "dead from here on":
            self._is_dead = True
        elif self._fault == "port gone from here on":
            self._leave_the_port()
        elif self._fault == "request late":
            time.sleep(self._late_s)
            far.sendall(message)
        else:
            body = message[:-1] if self._lines else message
            spoiled = {
                "request lost": b"",
                "request doubled": message * 2,
                "request half": message[: len(message) // 2],
                "garbage before the request": GARBAGE + message,
                "request with a bit flipped": _flipped(body) + message[len(body) :],
            }
            far.sendall(spoiled[self._fault])

    def _downward(self, host: socket.socket, far: socket.socket) -> None:
        while data := far.recv(1 << 16):
            if self._is_dead:
                continue
            if not self._reply_due and not self._held:
                self._previous = data
                host.sendall(data)
                continue
            while select.select([far], [], [], GATHER_S)[0] and (more := far.recv(1 << 16)):
                data += more
            if self._held:
                data, self._held = data + self._held, b""
                host.sendall(data)
                continue
            self._reply_due, self.happened = False, True
            self._reply(data, host)

    def _reply(self, data: bytes, host: socket.socket) -> None:
        fault = self._fault
        if self._late_s:
            time.sleep(self._late_s)
        elif fault == "reply lost":
            return
        elif fault == "reply swapped with the next":
            self._held = data
            return
        elif fault == "reply byte by byte":
            for at in range(min(len(data), 200)):
                host.sendall(data[at : at + 1])
                time.sleep(1e-3)
            data = data[200:]
        half = data[: len(data) // 2]
        spoiled = {
            "reply duplicated": data * 2,
            "reply half": half,
            "reply half, then closed": half,
            "previous reply instead": self._previous,
            "previous reply before": self._previous + data,
            "garbage before the reply": GARBAGE + data,
            "false head before the reply": self._head + data,
            "reply with a bit flipped": _flipped(data),
            "closed at the reply": b"",
        }
        host.sendall(spoiled.get(fault, data))
        if "closed" in fault:
            self._hang_up()


def _flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :] if data else data
