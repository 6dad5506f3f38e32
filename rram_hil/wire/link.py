"""Links to instruments: bytes over VISA or a serial port, and whole transactions with text
instruments over them.

A `Link` moves bytes and knows nothing of their meaning; a `Dialog` holds one lock around each
transaction and keeps command and reply in step: after a timeout nothing is believed until the link
was drained and the instrument has answered a question that no old reply answers. Times are seconds
of the computer's clock. Every error is a `LinkError` that names the resource.
"""

from __future__ import annotations

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from rram_hil.errors import DataError, LinkError
from rram_hil.wire.recording import Recorder, Traffic

_log = logging.getLogger(__name__)
_traffic = logging.getLogger("rram_hil.wire.traffic")
"""Every message, for those who set its level: it is not heard otherwise."""
_traffic.setLevel(logging.WARNING)
_TOLD = 200
"""Bytes of a message that are told; a recording has all of them."""

SLICE_S = 0.05
"""Longest wait of one low-level read where a wait may be cut without losing what has come."""
REOPEN_S = 0.25
"""Pause between two tries to open a link that is gone."""
QUIET_S = 0.1
"""Silence after which a drained link counts as empty."""
LARGEST_REPLY = 1 << 24


class Link(ABC):
    """Bytes to and from one instrument. Not safe for several threads: `Dialog`, or a driver's own
    lock, sees to that.
    """

    slice_s = SLICE_S
    """Longest wait of one low-level read."""

    def __init__(self, resource: str, traffic: Traffic | None = None) -> None:
        self.resource = resource
        self._recorder = traffic if isinstance(traffic, Recorder) else None
        self._ahead = bytearray()
        self._is_whole = False
        """Whether what was received last ended with the message itself (GPIB, USB): nothing more
        belongs to it.
        """

    def open(self) -> None:
        """Open it. Raises `LinkError` where that fails, `ConfigError` for a resource that is
        none.
        """
        with self._noted_errors(opening=True):
            self._open()
        self._note("open")
        _log.info("opened %s", self.resource)

    def reopen(self, within_s: float, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Open a link that was open before and is gone; wait for it as long as `within_s`, as a USB
        port comes back seconds later.

        Raises as `open` where it does not come back, or `is_cancelled` says so.
        """
        _log.warning("%s is gone; opening it again, for %g s at most", self.resource, within_s)
        self.close()
        # Counted, not timed, so that a recording of it plays back.
        for left in range(int(within_s / REOPEN_S), -1, -1):
            try:
                self.open()
                return
            except LinkError:
                if not left or is_cancelled():
                    raise
                time.sleep(REOPEN_S)

    def close(self) -> None:
        """Give it back. Never raises; safe to call twice."""
        if self.is_open:
            with contextlib.suppress(LinkError, DataError):
                self._note("close")
            _log.info("closed %s", self.resource)
        self._ahead.clear()
        self._close()

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises `LinkError`."""
        with self._noted_errors():
            self._send(data)
        self._note("send", data)

    def receive(self, most: int, timeout_s: float, until: bytes = b"") -> bytes:
        """Up to `most` bytes, ending with the byte `until` where one is given; what came within the
        time, perhaps nothing.

        Raises `LinkError` where the far side is gone.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            at = self._ahead.find(until) if until else -1
            size = (
                at + 1
                if at >= 0
                else most
                if len(self._ahead) >= most
                else len(self._ahead) * self._is_whole
            )
            left_s = deadline_s - time.monotonic()
            if size or left_s <= 0:
                size = min(size or len(self._ahead), most)
                data = bytes(self._ahead[:size])
                del self._ahead[:size]
                self._note("receive", data)
                return data
            self._is_whole = False
            with self._noted_errors():
                came = self._receive(most - len(self._ahead), min(left_s, self.slice_s), until)
            self._ahead += came
            if not came and self.slice_s > left_s:
                deadline_s = time.monotonic()  # it has waited for the whole time

    def drain(self) -> None:
        """Throw away what has come and comes until the far side is quiet; device clear where the
        interface has one.
        """
        self._ahead.clear()
        with self._noted_errors():
            self._drain()
        self._note("drain")

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether it is open."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes: ...

    @abstractmethod
    def _drain(self) -> None: ...

    def _note(self, do: Any, data: bytes = b"") -> None:
        if _traffic.isEnabledFor(logging.DEBUG):
            _traffic.debug("%s: %s %d bytes %r", self.resource, do, len(data), data[:_TOLD])
        if self._recorder is not None:
            self._recorder.note(self.resource, do, data)

    @contextlib.contextmanager
    def _noted_errors(self, *, opening: bool = False) -> Iterator[None]:
        was_open = self.is_open
        try:
            yield
        except LinkError as error:
            if not (was_open or opening):
                raise
            self._note("error", str(error).encode("latin-1", "replace"))
            if not self.is_open:
                self._note("close")
            raise
