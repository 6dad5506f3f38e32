"""What goes over the links of a bench, kept in a file and played back: a lab sends a session, a test repeats it without the gear.

One JSON object a line. The first says what the file is; every other is one event of one link:
`{"t": seconds, "link": resource, "do": "send" | "receive" | "open" | "close" | "drain" | "error", "data": text}`. Bytes stand as
Latin-1 text, so every byte value survives and commands stay readable.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Self, get_args

from rram_hil.errors import DataError, LinkError

FORMAT = "rram-hil traffic"
VERSION = 1

Deed = Literal["open", "send", "receive", "drain", "error", "close"]


@dataclass(frozen=True)
class Event:
    """One thing that happened on a link: seconds since the recording began, link, deed, bytes (an error's text as bytes)."""

    time_s: float
    link: str
    do: Deed
    data: bytes = b""


class _Seeded:
    """Random numbers that a playback repeats: a driver that begins a session with one takes it from here."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def nonce(self) -> int:
        """The next one, 0 .. 2**31 - 1."""
        return self._random.getrandbits(31)


class Recorder(_Seeded):
    """Writes events to a file as they happen, each flushed: what was sent before a crash is in the file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._started_s = time.monotonic()
        seed = secrets.randbits(31)
        super().__init__(seed)
        try:
            self._file: IO[str] | None = self.path.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise DataError(f"--record {path}: cannot be written: {error.strerror or error}") from None
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._line({"format": FORMAT, "version": VERSION, "seed": seed, "started": started})

    def note(self, link: str, do: Deed, data: bytes = b"") -> None:
        """Keep one event. Raises `DataError` where the disk does not take it."""
        elapsed = round(time.monotonic() - self._started_s, 6)
        self._line({"t": elapsed, "link": link, "do": do, "data": data.decode("latin-1")})

    def _line(self, entry: dict[str, object]) -> None:
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(json.dumps(entry) + "\n")
                self._file.flush()
            except OSError as error:
                raise DataError(f"{self.path}: the recording cannot be written: {error}") from None

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_traffic(path: str | Path) -> tuple[int, list[Event]]:
    """The seed of a recording and its events, in order. Raises `DataError` naming the line that is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the recording cannot be read: {error}") from None
    seed, events = 0, []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if number > 1:
                events.append(
                    Event(float(entry["t"]), str(entry["link"]), entry["do"], entry["data"].encode("latin-1"))
                )
            elif (entry["format"], entry["version"]) == (FORMAT, VERSION):
                seed = int(entry["seed"])
            else:
                raise DataError(f"{path}: not a recording of {FORMAT} version {VERSION}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: line {number} is not an event: {error!r}") from None
        if number > 1 and events[-1].do not in get_args(Deed):
            raise DataError(f"{path}: line {number}: unknown event {events[-1].do!r}")
    return seed, events


class Playback(_Seeded):
    """Answers for the far side from a recording: what is sent must be what was sent then, and gets what came then."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._events: dict[str, deque[Event]] = defaultdict(deque)
        seed, events = read_traffic(path)
        super().__init__(seed)
        for event in events:
            if event.do not in ("open", "close"):
                self._events[event.link].append(event)

    def sent(self, link: str, data: bytes) -> None:
        """Take note of what is sent. Raises `DataError` where the recording has something else there."""
        self._expect(link, "send", data)

    def drained(self, link: str) -> None:
        """Take note that the link is drained."""
        if self._events[link] and self._events[link][0].do == "drain":
            self._events[link].popleft()

    def received(self, link: str, most: int, until: bytes) -> bytes:
        """What came then: at most `most` bytes, ending with `until` where that is given; empty for a silence."""
        waiting = self._events[link]
        if not waiting:
            raise DataError(f"{self.path}: {link}: the recording is used up where a reply is awaited")
        event = waiting.popleft()
        if event.do == "error":
            raise LinkError(event.data.decode("latin-1"))
        if event.do != "receive":
            raise DataError(
                f"{self.path}: {link}: a reply is awaited where the recording has {event.do} {event.data!r}"
            )
        at = event.data.find(until) if until else -1
        size = min(most, at + len(until) if at >= 0 else len(event.data))
        if size < len(event.data):
            waiting.appendleft(Event(event.time_s, link, "receive", event.data[size:]))
        return event.data[:size]

    def left(self) -> int:
        """Events not used yet; a test asserts 0 at its end."""
        return sum(len(waiting) for waiting in self._events.values())

    def _expect(self, link: str, do: Deed, data: bytes) -> None:
        waiting = self._events[link]
        then = waiting.popleft() if waiting else None
        if then is not None and then.do == "error":
            raise LinkError(then.data.decode("latin-1"))
        if then is None or then.do != do or then.data != data:
            had = "nothing more" if then is None else f"{then.do} {then.data!r}"
            raise DataError(f"{self.path}: {link}: {do} {data!r} where the recording has {had}")


Traffic = Recorder | Playback
"""What a link tells what it does: a recorder, or the playback that stands in for the far side."""
