"""The pulse ledger: how many pulses each cell of a chip ever took, over all runs.

The counts may be too high after a crash, never too low. That needs this order around each
operation: `charge` (on the disk when it returns), intent to the journal, the operation, result to
the journal and synced, `correct` once. A run that dies anywhere between leaves at most a surplus,
and a resumed run never corrects an operation whose result already stands in the journal.

Its changes are numbered, and it knows whose they are: a journal repeats in every frame how far the
ledger was, so that either can tell whether the other is of the same chip's one history
(`Ledger.standing`). The file is described in ledger_file.py. Beside it, `<file>.lock` keeps a
second process out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rram_hil.array import Cells, Geometry
from rram_hil.errors import DataError, LimitError
from rram_hil.storage.frames import Stamp
from rram_hil.storage.journal import Journal
from rram_hil.storage.ledger_file import (
    Content,
    LedgerFile,
    Session,
    open_file,
    parse,
    write_whole,
)
from rram_hil.storage.safe_files import disk, lock, release, unlock
from rram_hil.types import Closable, IntArray

_PAST_MOST = 64


@dataclass(frozen=True)
class Standing:
    """How a chip's ledger and the journal of a run that goes on stand to each other.

    `between` are the runs that changed the chip since. `charged` is the number of an operation that
    was charged although the journal has no intent of it (it may have been carried out); 0: none.
    """

    between: tuple[str, ...] = ()
    charged: int = 0


class Ledger(Closable):
    """Pulses ever given to each cell of chip `chip_id`; a new file starts at zero.

    `created` says that nothing was ever entered in it. `limit` is the number of pulses that a cell
    may take in its life. `operation` is the number of the operation that `charge` is for, which the
    engine sets; `seen` is that of the last one on the chip, which `close` keeps (0: not known).
    Raises `DataError` for a foreign or damaged file and where another process has the ledger.
    """

    def __init__(self, path: str | Path, geometry: Geometry, chip_id: str, *, limit: int) -> None:
        self.path = Path(path)
        self.geometry = geometry
        self.chip_id = chip_id
        self.limit = limit
        self.operation = 0
        self._session = _by_hand("a session without a journal", 0)
        self._synced: Callable[[], int] = int
        # A ledger by another name is the same ledger: its file is locked too.
        self._real = Path(os.path.realpath(self.path))
        self._fds: list[int] = []
        self._held: list[Path | None] = []
        self._file: LedgerFile | None = None
        try:
            self._lock(self._real.with_name(self._real.name + ".lock"), os.O_CREAT)
            self._begin_file()
            fd = self._lock(self._real)
            self._file = LedgerFile(self._real, fd, chip_id, geometry)
        except BaseException:
            self._give_back()
            raise
        self._counts = self._file.content.counts
        self.seen = self._file.content.seen
        self.created = self._file.content.count == 0

    def _lock(self, path: Path, flags: int = 0) -> int:
        fd = open_file(path, flags)
        self._fds.append(fd)
        self._held.append(lock(fd, path))
        return fd

    def _begin_file(self) -> None:
        """Make the file, or bring it up to date."""
        if not self._real.exists():
            write_whole(self._real, Content.new(self.chip_id, self.geometry))
            return
        with disk(f"{self._real}: ledger cannot be read"):
            data = self._real.read_bytes()
        content, past_end, _ = parse(data, self._real, self.chip_id, self.geometry)
        if past_end == 0 or len(content.past) > _PAST_MOST:
            write_whole(self._real, content)

    @property
    def content(self) -> Content:
        """Everything that the file holds. Raises `DataError` after `close`."""
        return self._opened.content

    @property
    def _opened(self) -> LedgerFile:
        if self._file is None:
            raise DataError(f"{self.path}: the ledger is closed")
        return self._file

    @property
    def counts(self) -> IntArray:
        """Pulses that each cell took so far, shape (tiles, rows, columns); a copy."""
        return self._counts.reshape(self.geometry.shape).copy()

    def stamp(self) -> Stamp:
        """Which ledger this is, and the number of its last change."""
        return Stamp(self.content.id, self.content.count)

    def begin(self, journal: Journal) -> None:
        """From here on changes are those of this journal's run, whose frames repeat the stamp."""
        self._session = Session(journal.run_id, journal.path.name, 0, 0, _utc())
        self._synced = lambda: journal.synced
        journal.repeat(self.stamp)

    def use(self) -> None:
        """The chip is used from here on: until `close` it is not known what its board has seen."""
        if self.seen:
            self.seen = 0
            self._opened.settle(0)

    def enter(self) -> None:
        """Enter that the chip is known from here on: the ledger is then no new one."""
        self._commit(self._counts, (0, 0), charged=False)
        self.created = False

    def standing(self, journal: Journal, *, pulsed: bool) -> Standing:
        """How the ledger stands to a journal just resumed; `pulsed` says that this run gave pulses.

        Raises `DataError` where one of the two does not know what the other does: then they are no
        one history of a chip.
        """
        content, told = self.content, journal.stamp
        is_known = told is not None and told.ledger == content.id
        if self.created and not is_known and (pulsed or told is not None):
            raise self._refused("is new, but this run knows the chip from before")
        if told is None:
            return Standing()  # a journal of an earlier version
        if told.ledger not in (content.id, *content.ids):
            raise self._refused("is another one than this run counted in")
        if told.ledger == content.id and told.count > content.count:
            raise self._behind(told.count, content.count)
        own = [s for s in content.sessions if s.run == journal.run_id]
        charged = journal.charged
        if charged and not any(s.first <= charged + s.offset <= s.last for s in own):
            raise self._behind(charged, max((s.last - s.offset for s in own), default=0))
        if not own:
            return Standing(self._since(told))
        last = own[-1]
        if last.synced > journal.found:
            raise DataError(
                f"{journal.path}: the journal lost its end: it has {journal.found} frames, the"
                f" chip's ledger ({self.path}) knows of {last.synced}; cells took pulses that it"
                " does not tell of: put a whole copy of it back, or start a new run"
            )
        later = (s.name for s in content.sessions if s.first > own[0].last and s.run != last.run)
        is_unknown = last.charged and last.last - last.offset > charged
        return Standing(tuple(dict.fromkeys(later)), last.operation if is_unknown else 0)

    def _since(self, told: Stamp) -> tuple[str, ...]:
        """Runs that changed the chip since a journal that has not changed it."""
        content = self.content
        if told.ledger != content.id:
            return tuple(dict.fromkeys(s.name for s in content.sessions))
        later = [s for s in content.sessions if s.first > told.count]
        if content.count > told.count and not (later and later[0].first == told.count + 1):
            raise self._refused("was changed by runs that it does not name")
        return tuple(dict.fromkeys(s.name for s in later))

    def _behind(self, told: int, known: int) -> DataError:
        return self._refused(
            f"is behind: the run knows of its change {told}, it of none of this run after {known}"
        )

    def _refused(self, why: str) -> DataError:
        return DataError(
            f"{self.path}: this chip's ledger {why}; put the right one back (`rram-hil ledger"
            " adopt`, `merge`; `show` says what it holds), or start a new run"
        )

    def check(self, cells: Cells, pulses: ArrayLike) -> None:
        """Refuse pulses (one number or one a cell) that would pass the limit; counts nothing.

        Raises `LimitError` naming the first such cell, its count and the limit.
        """
        index = cells.index(self.geometry)
        more = self._per_cell(pulses, len(cells))
        over = more > self.limit - self._counts[index]
        # Reads charge nothing and stay allowed on a worn cell.
        over &= more > 0
        if over.any():
            at = int(np.argmax(over))
            raise LimitError(
                f"cell {cells.address(at)}: {int(self._counts[index[at]])} pulses so far and up to"
                f" {int(more[at])} more would pass the limit of {self.limit} pulses a cell (ledger"
                f" of chip {self.chip_id})",
                chip=self.chip_id,
                cell=cells.address(at),
                line="pulses",
                value=int(self._counts[index[at]]) + int(more[at]),
                allowed=(0, self.limit),
            )

    def charge(self, cells: Cells, pulses: ArrayLike) -> None:
        """Count `pulses` (one number or one a cell, the worst case) before an operation; on the
        disk on return.

        Raises `LimitError` as `check`, and then changes nothing; `DataError` where the disk
        refuses.
        """
        more = self._per_cell(pulses, len(cells))
        if (more < 0).any():
            raise DataError(f"{self.path}: a charge cannot be negative")
        self.check(cells, more)
        if more.any():
            self._change(cells.index(self.geometry), more, charged=True)

    def correct(self, cells: Cells, surplus: ArrayLike) -> None:
        """Give back `surplus` pulses (one number or one a cell) that were charged but not used,
        once, after the result is kept.

        A negative surplus counts pulses beyond the charge. Raises `DataError` where more would come
        back than was counted.
        """
        index = cells.index(self.geometry)
        back = self._per_cell(surplus, len(cells))
        under = back > self._counts[index]
        if under.any():
            at = int(np.argmax(under))
            raise DataError(
                f"{self.path}: cell {cells.address(at)}: {int(back[at])} pulses given back, "
                f"only {int(self._counts[index[at]])} counted"
            )
        if back.any():
            self._change(index, -back, charged=False)

    def _per_cell(self, pulses: ArrayLike, n: int) -> IntArray:
        array = np.asarray(pulses)
        if array.dtype.kind not in "iu" or array.shape not in ((), (n,)):
            raise DataError(
                f"{self.path}: one whole number of pulses, or one for each of the {n} cells, is"
                " needed"
            )
        return np.broadcast_to(array.astype(np.int64), (n,))

    def _change(self, index: IntArray, more: IntArray, *, charged: bool) -> None:
        counts = self._counts.copy()
        counts[index] += more
        self._commit(counts, (int(index.min()), int(index.max()) + 1), charged=charged)

    def _commit(self, counts: IntArray, span: tuple[int, int], *, charged: bool) -> None:
        file = self._opened
        self._still_there(file)
        number = file.content.count + 1
        session = replace(
            self._session,
            first=number,
            last=number,
            operation=self.operation,
            charged=charged,
            synced=self._synced(),
        )
        try:
            file.change(counts, span, session)
        finally:
            # Where the disk fails after the change is kept, it counts all the same.
            self._counts = file.content.counts

    def _still_there(self, file: LedgerFile) -> None:
        """Put the ledger back where it was deleted or moved. Raises `DataError` then."""
        if file.is_current(self._real):
            return
        path = self._real
        if path.exists():
            path = path.with_name(f"{path.name}.{self._session.run}")
        write_whole(path, file.content)
        self._file = None  # the open file is no longer the chip's
        raise DataError(
            f"{self.path}: the ledger was deleted, moved or replaced while this run counts in it;"
            f" written anew as it stood: {path}; "
            + (
                "go on from there (--resume)"
                if path == self._real
                else "add it to the other one: rram-hil ledger merge"
            )
        )

    def close(self) -> None:
        """Give the ledger free for other processes. Safe to call twice.

        Raises `DataError` where the file is gone (it is then written anew) or the disk fails; the
        ledger is free all the same.
        """
        try:
            if self._file is not None:
                self._still_there(self._file)
                self._file.settle(self.seen)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        self._file = None
        while self._fds:
            release(self._fds.pop())
        while self._held:
            unlock(self._held.pop())


def merged(one: Content, other: Content, *, unrelated: bool = False) -> Content:
    """One ledger out of two that were copies of each other and then both went on: what each counted
    since the common stamp is added.

    `unrelated` adds all of both, for ledgers that began apart. Raises `DataError` where the common
    stamp, or the counts there, are not known.
    """
    common, base = (0, np.zeros_like(one.counts)) if unrelated else _parting(one, other)
    offset = one.count - common
    added = tuple(
        replace(
            s,
            first=max(s.first, common + 1) + offset,
            last=s.last + offset,
            offset=s.offset + offset,
        )
        for s in other.sessions
        if s.last > common
    )
    had = {(s.run, s.utc) for s in one.sessions if s.last > common}
    if not unrelated and had & {(s.run, s.utc) for s in added}:
        raise DataError(f"ledger {other.id} was added before: both know the same runs after it")
    number = one.count + other.count - common + 1
    note = _by_hand(f"merged with ledger {other.id}", number)
    return replace(
        one,
        counts=one.counts + other.counts - base,
        count=number,
        sessions=(*one.sessions, *added, note),
        ids=tuple(dict.fromkeys((*one.ids, *other.ids, other.id))),
        past={**one.past, one.count: Content.packed(one.counts)},
        seen=0,
    )


def with_more(content: Content, pulses: int) -> Content:
    """A ledger with `pulses` more for every cell, which no ledger knows of."""
    number = content.count + 1
    note = _by_hand(f"{pulses} pulses a cell added by hand", number)
    return replace(
        content,
        counts=content.counts + pulses,
        count=number,
        sessions=(*content.sessions, note),
        past={**content.past, content.count: Content.packed(content.counts)},
        seen=0,
    )


def _by_hand(what: str, number: int) -> Session:
    return Session(os.urandom(8).hex(), what, number, number, _utc())


def _parting(one: Content, other: Content) -> tuple[int, IntArray]:
    """Where two ledgers parted: the number of the last change that both know, the counts there."""
    if one.id != other.id:
        raise DataError(
            "the two ledgers began apart: no count is in both (or it cannot be known which);"
            " --unrelated adds all of both"
        )
    common = _common(one, other)
    for content in (one, other):
        counts = content.counts_at(common)
        if counts is not None:
            return common, counts
    raise DataError(
        f"the two ledgers parted after change {common}, and neither knows the counts of then any"
        " more; --unrelated adds all of both: too high, never too low"
    )


def _common(one: Content, other: Content) -> int:
    """The number of the last change that both ledgers know alike. Raises `DataError` where their
    histories do not reach back that far.
    """
    known = {(s.run, s.first, s.utc): s.last for s in one.sessions}
    for s in reversed(other.sessions):
        if (s.run, s.first, s.utc) in known:
            return min(known[s.run, s.first, s.utc], s.last)
    begun = [c.sessions[0].first - 1 if c.sessions else c.count for c in (one, other)]
    if begun[0] != begun[1]:
        raise DataError(
            "the two ledgers parted before the oldest run that both still name; --unrelated adds"
            " all of both: too high, never too low"
        )
    return begun[0]


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
