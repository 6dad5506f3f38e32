"""Following one run: its journal while it grows, its run file where the journal is gone; and what
is to be said of a run from which nothing comes.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rram_hil.errors import BenchError, DataError
from rram_hil.storage.frames import Frame
from rram_hil.storage.journal import JournalTail
from rram_hil.storage.run_reader import read_run, undamaged
from rram_hil.storage.run_state import (
    INTERRUPTED,
    JOURNAL,
    UNDER_WAY,
    is_whole,
    journal_of,
    state_of,
)
from rram_hil.watch.finished import pictured
from rram_hil.watch.picture import Picture, StepPicture

WAITING, SILENT, STALLED, GONE, DAMAGED = "waiting", "bench silent", "stalled", "gone", "damaged"
"""States beside those of `run_state`: not begun; under way, but an operation has no result, or
nothing comes, for long; neither file is there any more; what is there cannot be read.
"""
AT_ONCE = 200
BUDGET_S = 0.25
"""One look takes no longer than about this: a long journal is read in several."""
FRESH_S = 2.0
"""A run of which something came so long ago is under way: nobody looks at its lock."""
LOCK_EVERY_S = 1.0
QUIET_S = 5.0
USUAL_TIMES = 5.0
"""Nothing for `USUAL_TIMES` the usual interval, and `QUIET_S` at least, is told."""
RATE_OVER_S = 4.0
LEFT_OVER_S = 30.0


@dataclass(frozen=True)
class Sample:
    """How far a run was at a time of this machine's monotonic clock (s)."""

    at_s: float
    pulses: int
    reads: int
    label: str
    done: int


class Pace:
    """How quickly a run goes on by the watching machine's clock, from what came while it was
    followed.
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=200)
        self._gaps: deque[float] = deque(maxlen=50)
        self._came_s: float | None = None

    def came(self, now_s: float, picture: Picture) -> None:
        """Something new came."""
        if self._came_s is not None:
            self._gaps.append(now_s - self._came_s)
        self._came_s = now_s
        reach = next((s.reach for s in reversed(picture.steps.values()) if s.reach), None)
        label, done = ("", 0) if reach is None else (reach.label, reach.done)
        pulses, reads = picture.totals["pulses"], picture.totals["reads"]
        self._samples.append(Sample(now_s, pulses, reads, label, done))

    def quiet_limit_s(self) -> float:
        """Seconds without anything new after which that is worth telling."""
        usual = statistics.quantiles(self._gaps, n=10)[-1] if len(self._gaps) > 1 else 0.0
        return max(QUIET_S, USUAL_TIMES * usual)

    def rates(self, now_s: float) -> tuple[float, float] | None:
        """Pulses and reads a second of late; None where nothing came of late."""
        late = [s for s in self._samples if s.at_s > now_s - RATE_OVER_S]
        if len(late) < 2 or late[-1].at_s - late[0].at_s < 0.2:
            return None
        first, last = late[0], late[-1]
        spent_s = now_s - first.at_s
        return (last.pulses - first.pulses) / spent_s, (last.reads - first.reads) / spent_s

    def left_s(self, step: StepPicture, now_s: float) -> float | None:
        """Seconds until the cells that the step's operations of this label have not reached are
        reached at the pace of late; None where that cannot be told.
        """
        reach = step.reach
        if reach is None or reach.total is None or not 0 < reach.done < reach.total:
            return None
        since = now_s - LEFT_OVER_S
        late = [s for s in self._samples if s.label == reach.label and s.at_s > since]
        if len(late) < 3 or late[-1].done <= late[0].done or late[0].done > reach.done:
            return None
        pace = (late[-1].done - late[0].done) / (now_s - late[0].at_s)
        return (reach.total - reach.done) / pace


class RunFollower:
    """One run, by the name of its run file; `refresh` brings `picture` up to now.

    `is_behind` says that there is more to read than one look took, `behind_bytes` how much.

    It reads and never writes. Whether a process holds the journal is asked only where nothing came
    for `FRESH_S`, and not again once nobody does, until the file changes: so a run that is resumed
    never meets a look at its lock. One thread at a time; `lock` is for those who share it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name.removesuffix(JOURNAL))
        self.lock = threading.Lock()
        self.picture = Picture()
        self.pace = Pace()
        self.reason = ""
        self.behind_bytes, self.is_behind = 1, True
        self._spoiled = ""
        self._journal = journal_of(self.path)
        self._tail = JournalTail(self._journal)
        self._restarts = self._resumed = 0
        self._finished: Iterator[None] | None = None
        self._read_file: tuple[int, int] | None = None
        self._damaged: tuple[int, int] | None = None
        self._grew_s = time.monotonic()
        self._size = -1
        self._standing = UNDER_WAY
        self._asked_s = -1.0
        self._is_gone = False

    def refresh(self) -> None:
        """Read what is new, for `BUDGET_S` at most."""
        until = time.monotonic() + BUDGET_S
        try:
            if self._journal.is_file() and _stamp(self._journal) != self._damaged:
                self._follow(until)
                self.reason = self._spoiled
            else:
                self._take_run_file(until)
        except (DataError, OSError) as error:
            # A file that is gone since is looked for again at the next look.
            if self._journal.is_file() or self.path.is_file():
                self.reason = error.message if isinstance(error, DataError) else str(error)
            if (
                isinstance(error, DataError)
                and self._damaged is None
                and is_whole(self.path, self._journal)
            ):
                # Shown instead, as long as the journal stays as it is.
                self._damaged, self.reason, self.is_behind = _stamp(self._journal), "", True
                self._anew()

    def _follow(self, until: float) -> None:
        self._is_gone = False
        self._finished, self._read_file, self._damaged = None, None, None
        self._notice()
        is_live = not self.is_behind
        came, self.is_behind = False, True
        while time.monotonic() < until:
            entries = self._tail.look(AT_ONCE)
            if self._tail.restarts != self._restarts or (entries and not entries[0].sequence):
                self._restarts = self._tail.restarts
                self._anew()
            if not entries:
                self.is_behind = False
                break
            if not self._spoiled:
                self._take([entry.frame for entry in entries])
            came = True
        self.behind_bytes = max(self._size - self._tail.whole_bytes, 0)
        if self.picture.resumed != self._resumed:
            # What the run did before it was cut says nothing of how it goes on.
            self._resumed, self.pace = self.picture.resumed, Pace()
        if came and is_live:
            self.pace.came(time.monotonic(), self.picture)

    def _take(self, frames: list[Frame]) -> None:
        """Frames with right checksums that are no run's leave the picture as far as it came."""
        try:
            with undamaged(self._journal):
                self.picture.take(frames)
        except BenchError as error:
            self._spoiled = error.message

    def _anew(self) -> None:
        self.picture, self.pace, self._spoiled = Picture(self.picture.version), Pace(), ""

    def _notice(self) -> None:
        """Whether the journal grew, and when."""
        found = self._journal.stat()
        if found.st_size == self._size:
            return
        now = time.monotonic()
        ago = max(time.time() - found.st_mtime, 0.0) if self._size < 0 else 0.0
        self._grew_s = now - ago
        self._size = found.st_size
        self._standing = UNDER_WAY

    def _take_run_file(self, until: float) -> None:
        """The run file, where there is no journal: a picture of the journal stays where it has the
        run's end.
        """
        if not self.path.is_file():
            self._is_gone = True
            return
        self._is_gone, self.behind_bytes, self.is_behind = False, 0, False
        if self.picture.about is not None and self.picture.status != INTERRUPTED:
            return
        stamp = _stamp(self.path)
        if self._finished is None and stamp != self._read_file:
            self._anew()
            self._finished = self._from_file()
            self._read_file = stamp
        while self._finished is not None and time.monotonic() < until:
            if next(self._finished, self) is self:
                self._finished = None

    def _from_file(self) -> Iterator[None]:
        with read_run(self.path) as run, undamaged(self.path):
            yield from pictured(run, self.picture)

    @property
    def silent_s(self) -> float:
        """Seconds since the journal grew."""
        return time.monotonic() - self._grew_s

    def state(self) -> str:
        """What the run is now: complete, aborted, error, `UNDER_WAY`, `INTERRUPTED` (not ended, and
        no process holds its journal), or a state of this module.
        """
        picture = self.picture
        if self.reason:
            return DAMAGED
        if picture.about is None:
            return GONE if self._is_gone and self._size >= 0 else WAITING
        if picture.status != INTERRUPTED:
            return picture.status
        if self._is_gone:
            return GONE
        if not self._journal.is_file():
            return INTERRUPTED
        return self._under_way()

    def _under_way(self) -> str:
        """The state of a run whose journal is not closed."""
        silent_s = self.silent_s
        if silent_s < FRESH_S:
            return UNDER_WAY
        if self._standing == UNDER_WAY and time.monotonic() - self._asked_s > LOCK_EVERY_S:
            self._asked_s = time.monotonic()
            self._standing = state_of(self.picture.status, self._journal)
        if self._standing != UNDER_WAY and os.access(self._journal, os.W_OK):
            return self._standing
        flight = self.picture.in_flight
        limit_s = self.pace.quiet_limit_s()
        about = self.picture.about
        if flight is not None and flight.wait_s > 0 and about is not None and about.clock == "wall":
            limit_s += flight.wait_s
        if silent_s < limit_s:
            return UNDER_WAY
        return SILENT if flight is not None else STALLED


def _stamp(path: Path) -> tuple[int, int]:
    """Time of change and size of a file."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
