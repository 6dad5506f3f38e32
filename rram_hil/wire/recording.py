"""What goes over the links of a bench, kept in a file and played back: a lab sends a session, a
test repeats it without the gear.

One JSON object a line. The first says what the file is; every other is one event of one link:
`{"t": seconds, "link": resource, "do": "send" | "receive" | "open" | "close" | "drain" | "error",
"data": text}`. Bytes stand as Latin-1 text, so every byte value survives and commands stay
readable.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import secrets
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self, get_args

from rram_hil.errors import DataError, LinkError
from rram_hil.validation import shown

FORMAT = "rram-hil traffic"
VERSION = 1

Deed = Literal["open", "send", "receive", "drain", "error", "close"]


@dataclass(frozen=True)
class Event:
    """One thing that happened on a link: seconds since the recording began, link, deed, bytes (an
    error's text as bytes).
    """

    time_s: float
    link: str
    do: Deed
    data: bytes = b""


class _Seeded:
    """Random numbers that a playback repeats: a driver that begins a session with one takes it from
    here.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def nonce(self) -> int:
        """The next one, 0 .. 2**31 - 1."""
        return self._random.getrandbits(31)


class Recorder(_Seeded):
    """Writes events to a new file as they happen, each flushed: what was sent before a crash is in
    the file.

    `events` counts them. Raises `DataError` where the file exists or cannot be written. An error
    before the first event leaves no file behind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._started_s = time.monotonic()
        seed = secrets.randbits(31)
        super().__init__(seed)
        try:
            self._file: IO[str] | None = self.path.open("x", encoding="utf-8", newline="\n")
        except FileExistsError:
            raise DataError(
                f"{path} exists; a recording does not overwrite: give another file"
            ) from None
        except OSError as error:
            raise DataError(
                f"{path}: the recording cannot be written: {error.strerror or error}"
            ) from None
        self.events = 0
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
                self.events += "do" in entry
            except OSError as error:
                raise DataError(f"{self.path}: the recording cannot be written: {error}") from None

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            if self._file is not None:
                # Every event was flushed; what a disk refuses now was told when it came.
                with contextlib.suppress(OSError):
                    self._file.close()
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is not None and not self.events:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def read_traffic(path: str | Path) -> tuple[int, list[Event]]:
    """The seed of a recording and its events, in order. Raises `DataError` naming the line that is
    none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the recording cannot be read: {error}") from None
    if not lines:
        raise DataError(f"{path}: empty; not a recording of {FORMAT}")
    seed, events = 0, []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if number > 1:
                events.append(_event(entry))
            elif (entry["format"], entry["version"]) == (FORMAT, VERSION):
                seed = int(entry["seed"])
            else:
                raise DataError(f"{path}: not a recording of {FORMAT} version {VERSION}")
        except _NO_EVENT as error:
            raise DataError(f"{path}: line {number} is not an event: {error!r:.200}") from None
        if number > 1 and events[-1].do not in get_args(Deed):
            raise DataError(f"{path}: line {number}: unknown event {events[-1].do!r:.200}")
    return seed, events


_NO_EVENT = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What a line of JSON that is no event may lead to."""


def _event(entry: dict[str, Any]) -> Event:
    time_s = float(entry["t"])
    if not math.isfinite(time_s):
        raise ValueError(f"the time {time_s} is none")
    return Event(time_s, str(entry["link"]), entry["do"], entry["data"].encode("latin-1"))


class Playback(_Seeded):
    """Answers for the far side from a recording: what is sent must be what was sent then, and gets
    what came then.

    How often a driver looked before a reply came, and in which pieces it took one, may differ from
    the recording; what was sent, what came, and in which order, may not.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._events: dict[str, deque[Event]] = defaultdict(deque)
        self._open: set[str] = set()
        self._silent: set[str] = set()
        """Links on which the recording was silent when last looked at: there a driver may look
        again, or give up.
        """
        seed, events = read_traffic(path)
        super().__init__(seed)
        for event in events:
            self._events[event.link].append(event)

    def is_open(self, link: str) -> bool:
        """Whether a link was opened and neither closed nor lost."""
        return link in self._open

    def opened(self, link: str) -> None:
        """Take note that a link is opened. Raises `LinkError` where that failed then, `DataError`
        where it did not happen.
        """
        self._expect(link, "open")
        self._open.add(link)

    def closed(self, link: str) -> None:
        """Take note that a link is closed."""
        self._open.discard(link)

    def sent(self, link: str, data: bytes) -> None:
        """Take note of what is sent. Raises `DataError` where the recording has something else
        there.
        """
        self._expect(link, "send", data)

    def drained(self, link: str) -> None:
        """Take note that the link is drained; what came then and was not taken is gone. Raises
        `DataError` as `sent`.
        """
        while (then := self._next(link)) is not None and then.do == "receive":
            self._events[link].popleft()
        self._expect(link, "drain")

    def received(self, link: str, most: int, until: bytes) -> bytes:
        """What came then: at most `most` bytes, ending with `until` where that is given; empty for
        a silence.

        Raises `LinkError` where the link failed then, `DataError` where the recording has no reply.
        """
        data = b""
        while len(data) < most and not (until and data.endswith(until)):
            then = self._next(link)
            if data and (then is None or then.do != "receive" or not then.data):
                break
            if then is not None and then.do == "error":
                raise self._failed(link)
            if then is None or then.do != "receive":
                if then is not None and link in self._silent:
                    return b""
                raise self._differs(link, "a reply is awaited")
            self._events[link].popleft()
            self._silent.discard(link)
            if not then.data:
                self._silent.add(link)
                return b""
            at = then.data.find(until) if until else -1
            size = min(most - len(data), at + len(until) if at >= 0 else len(then.data))
            data += then.data[:size]
            if size < len(then.data):
                self._events[link].appendleft(Event(then.time_s, link, "receive", then.data[size:]))
        return data

    def left(self) -> int:
        """Events not used yet, silences and closings not counted; a test asserts 0 at its end."""
        return sum(
            not _may_be_left(event) for waiting in self._events.values() for event in waiting
        )

    def _next(self, link: str) -> Event | None:
        waiting = self._events[link]
        while waiting and waiting[0].do == "close":
            waiting.popleft()
        return waiting[0] if waiting else None

    def _expect(self, link: str, do: Deed, data: bytes = b"") -> None:
        while (then := self._next(link)) is not None and then.do == "receive" and not then.data:
            self._events[link].popleft()
        self._silent.discard(link)
        if then is not None and then.do == "error":
            raise self._failed(link)
        if then is None or then.do != do or then.data != data:
            raise self._differs(link, f"{do} {shown(data)}")
        self._events[link].popleft()

    def _failed(self, link: str) -> LinkError:
        waiting = self._events[link]
        text = waiting.popleft().data.decode("latin-1")
        if waiting and waiting[0].do == "close":  # the failure closed it
            self._open.discard(link)
        return LinkError(text)

    def _differs(self, link: str, what: str) -> DataError:
        then = self._next(link)
        if then is None:
            return DataError(f"{self.path}: {link}: {what} where the recording is used up")
        return DataError(
            f"{self.path}: {link}: {what} where the recording has, after {then.time_s:.6f} s,"
            f" {then.do} {shown(then.data)}"
        )


def _may_be_left(event: Event) -> bool:
    return event.do == "close" or (event.do == "receive" and not event.data)


Traffic = Recorder | Playback
"""What a link tells what it does: a recorder, or the playback that stands in for the far side."""
