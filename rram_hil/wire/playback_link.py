"""A link that a recording answers, where the hardware was."""

from __future__ import annotations

import time

from rram_hil.errors import LinkError
from rram_hil.wire.link import SLICE_S, Link
from rram_hil.wire.recording import Playback


class PlaybackLink(Link):
    """Stands for a link of a recording: sends are compared with it, replies come from it.

    A silence takes as long as it took, up to `SLICE_S`: long enough for a driver that counts time
    to give up.
    """

    def __init__(self, resource: str, playback: Playback) -> None:
        super().__init__(resource)
        self._playback = playback

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._playback.is_open(self.resource)

    def receive(self, most: int, timeout_s: float, until: bytes = b"") -> bytes:
        """What came then. Raises `LinkError` where the link failed then, `DataError` where the
        recording has no reply.
        """
        return self._receive(most, timeout_s, until)

    def _open(self) -> None:
        self._playback.opened(self.resource)

    def _close(self) -> None:
        self._playback.closed(self.resource)

    def _send(self, data: bytes) -> None:
        self._playback.sent(self._opened(), data)

    def _receive(self, most: int, timeout_s: float, until: bytes) -> bytes:
        data = self._playback.received(self._opened(), most, until)
        if not data:
            time.sleep(min(timeout_s, SLICE_S))
        return data

    def _drain(self) -> None:
        self._playback.drained(self._opened())

    def _opened(self) -> str:
        if not self.is_open:
            raise LinkError("the link is not open", where=self.resource)
        return self.resource
