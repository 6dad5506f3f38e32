"""`Catalog`: the runs of one or more folders, to be listed, searched, opened and labelled."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from rram_hil.catalogue.entry import STATES, CatalogEntry, utc_time
from rram_hil.catalogue.index import contents_of
from rram_hil.catalogue.labels import Label, Labels
from rram_hil.errors import ConfigError, DataError, near, short
from rram_hil.notebook import html_table
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import UNDER_WAY, open_newest, state_of
from rram_hil.units import counted, duration

SHORTEST_ID = 6
"""Digits of a run id that are shown at least."""
CANDIDATES = 5
_AGES = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SYNONYMS = {"failed": "error", "running": UNDER_WAY}
_NEVER = datetime.min.replace(tzinfo=UTC)
COLUMNS = ("run", "began (UTC)", "chip", "title", "file", "status", "took", "tags")
"""Of the table of runs; `words` gives a row."""


class Runs(tuple[CatalogEntry, ...]):
    """Runs, newest first; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        ids = short_ids(self)
        return html_table(COLUMNS, [words(entry, ids) for entry in self])


class Catalog:
    """The runs of one or more folders and those below them, newest first; excluded ones are left
    out, but for `search` with `everything`.

    `catalog[key]` opens a run, by its id, the beginning of one, or its path. What is known of the
    files is kept in this user's cache folder, so that only what changed is read (`refresh`). Labels
    are kept by run id: they stay with a run that is moved, and with every copy of it. `unreadable`
    says, a line each, what could not be read at all.

    Raises `ConfigError` for a folder that is none, `DataError` where the labels cannot be read.
    With `needs_labels` False the runs go without them then, and `unreadable` says so first.
    """

    unreadable: tuple[str, ...]

    def __init__(self, *folders: str | Path, needs_labels: bool = True) -> None:
        self.folders = tuple(Path(folder) for folder in folders or (".",))
        for folder in self.folders:
            if not folder.is_dir():
                what = "a file, not a folder" if folder.exists() else "there is no such folder"
                raise ConfigError(f"{folder}: {what}")
        self._labels, self._needs_labels = Labels(), needs_labels
        self.refresh()

    def refresh(self) -> None:
        """Look again what is in the folders and what was said of it."""
        found: dict[Path, CatalogEntry] = {}
        unreadable: list[str] = []
        for folder in self.folders:
            contents = contents_of(folder)
            unreadable += contents.unreadable
            whole = Path(os.path.realpath(folder))
            for path, facts in contents.runs.items():
                # Whether a process holds the journal is no part of a file: it is asked each time.
                told = vars(facts) | {"status": state_of(facts.status, path)}
                found.setdefault(whole / path.relative_to(folder), CatalogEntry(**told, path=path))
        self.unreadable = tuple(unreadable)
        self._paths = {place: entry.path for place, entry in found.items()}
        entries = list(found.values())
        entries.sort(key=lambda entry: str(entry.path))
        entries.sort(key=lambda entry: entry.started or _NEVER, reverse=True)
        self._entries = Runs(entries)
        self._say()

    def _say(self) -> None:
        """Put the labels of now on the entries."""
        try:
            labels = self._labels.of_runs()
        except DataError as error:
            if self._needs_labels:
                raise
            labels, self.unreadable = {}, (error.message, *self.unreadable)
        told = [(entry, labels.get(entry.run_id, Label())) for entry in self._entries]
        self._entries = Runs(replace(entry, **vars(label)) for entry, label in told)

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.search())

    def __len__(self) -> int:
        return len(self.search())

    def __getitem__(self, key: str | Path) -> RunFile:
        """The run opened for reading, as far as its file or its journal goes; close it or use
        `with`. Raises `DataError` for a key of no run or of several, and for a damaged file.
        """
        return open_newest(self.entry(key).path)

    def search(
        self,
        *,
        chip: str = "",
        since: str | datetime = "",
        protocol: str = "",
        status: str = "",
        tag: str = "",
        everything: bool = False,
    ) -> Runs:
        """The runs that fit all that is given, newest first.

        `since` is a time (UTC where it says no zone), a date as "2026-11-01" or an age as "30d"
        (h, d or w); `protocol` one of those of the recipe, or the name of a step that began.
        `status` is one of `STATES`; "failed" is "error", "running" is "under way". `everything`
        adds the excluded ones. Raises `ConfigError` for a time or status that is none.
        """
        begin = _time(since) if since else None
        state = _state(status)
        return Runs(
            e
            for e in self._entries
            if (everything or not e.excluded)
            and (not chip or e.chip_id == chip)
            and (not protocol or protocol in (*e.protocols, *e.steps))
            and (not state or e.status == state)
            and (not tag or tag in e.tags)
            and (begin is None or (e.started is not None and e.started >= begin))
        )

    def entry(self, key: str | Path) -> CatalogEntry:
        """The one run with that id, beginning of an id, or path; excluded ones as well. Raises
        `DataError` for a key of none or of several.
        """
        if isinstance(key, str) and (found := self._by_id(key)) is not None:
            return found
        for place in (Path(key), *(folder / key for folder in self.folders)):
            # Unlike `Path.resolve` it takes links that lead round in a circle.
            path = self._paths.get(Path(os.path.realpath(place.parent)) / place.name)
            if path is not None:
                return next(entry for entry in self._entries if entry.path == path)
        where = ", ".join(map(str, self.folders))
        known = {e.run_id for e in self._entries if e.run_id}
        raise DataError(
            f"{short(str(key))}: no run id, beginning of one, or run file in {where}, which has"
            f" {counted(len(known), 'run')}{near(str(key), known)}"
        )

    def _by_id(self, key: str) -> CatalogEntry | None:
        """The furthest undamaged copy of the run that is meant; None for no id."""
        if not re.fullmatch("[0-9a-f]+", key):
            return None
        copies = [e for e in reversed(self._entries) if e.run_id.startswith(key)]
        runs = {e.run_id: e for e in sorted(copies, key=lambda e: (not e.reason, e.reach))}
        if len(runs) > 1:
            ids = short_ids(self._entries)
            told = [f"{ids[r]} ({short(runs[r].title, 30)})" for r in list(runs)[:CANDIDATES]]
            more = ", ..." if len(runs) > CANDIDATES else ""
            raise DataError(f"{key}: {len(runs)} runs begin so: {', '.join(told)}{more}")
        return next(iter(runs.values()), None)

    def tag(self, key: str | Path, *tags: str) -> CatalogEntry:
        """Add tags to a run; returns it as it is then. Raises `ConfigError` for what can be no
        tag.
        """
        return self._label(key, lambda run: self._labels.tag(run, tags))

    def untag(self, key: str | Path, *tags: str) -> CatalogEntry:
        """Take tags from a run. Raises `ConfigError` for one that it has not."""
        return self._label(key, lambda run: self._labels.untag(run, tags))

    def note(self, key: str | Path, text: str) -> CatalogEntry:
        """Give a run a note in the place of an earlier one; an empty text takes it away."""
        return self._label(key, lambda run: self._labels.note(run, text))

    def exclude(self, key: str | Path) -> CatalogEntry:
        """Leave a run out of listings. Its file stays as it is."""
        return self._label(key, lambda run: self._labels.exclude(run))

    def include(self, key: str | Path) -> CatalogEntry:
        """List a run again."""
        return self._label(key, lambda run: self._labels.exclude(run, False))

    def _label(self, key: str | Path, act: Callable[[str], None]) -> CatalogEntry:
        entry = self.entry(key)
        if not entry.run_id:
            raise DataError(f"{entry.path}: damaged, with no run id to label: {entry.reason}")
        act(entry.run_id)
        self._say()
        return next(e for e in self._entries if e.path == entry.path)

    def __repr__(self) -> str:
        runs = len(self)
        folders = ", ".join(map(str, self.folders))
        return f"<Catalog of {folders}: {runs} run{'' if runs == 1 else 's'}>"

    def _repr_html_(self) -> str:
        return self.search()._repr_html_()


def short_ids(entries: Iterable[CatalogEntry]) -> dict[str, str]:
    """Of each run id its beginning that no other one has, `SHORTEST_ID` digits or more."""
    ids = sorted({entry.run_id for entry in entries if entry.run_id})
    length = dict.fromkeys(ids, SHORTEST_ID)
    for one, two in pairwise(ids):
        apart = next(n for n, (a, b) in enumerate(zip(one, two, strict=False), 1) if a != b)
        length[one], length[two] = max(length[one], apart), max(length[two], apart)
    return {run: run[:n] for run, n in length.items()}


def words(entry: CatalogEntry, ids: Mapping[str, str]) -> tuple[str, ...]:
    """A row of the table of runs, `COLUMNS`, each word in one line; `ids` as from `short_ids`."""
    began, took = entry.started, entry.wall_s
    row = (
        ids.get(entry.run_id, "-"),
        "-" if began is None else f"{began:%Y-%m-%d %H:%M}",
        entry.chip_id or "-",
        entry.title or "-",
        str(entry.path),
        entry.status,
        "-" if took is None else duration(took),
        ", ".join((*(("excluded",) if entry.excluded else ()), *entry.tags)) or "-",
    )
    return tuple(map(in_line, row))


def in_line(text: str) -> str:
    """Text whose line ends stand as their escapes."""
    return text.replace("\n", "\\n")


def _time(since: str | datetime) -> datetime:
    """A time, or one so long ago. Raises `ConfigError`."""
    if isinstance(since, datetime):
        return since if since.tzinfo else since.replace(tzinfo=UTC)
    if age := re.fullmatch(r"(\d{1,9})([hdw])", since.strip()):
        try:
            return datetime.now(UTC) - int(age[1]) * _AGES[age[2]]
        except OverflowError:
            return _NEVER
    found = utc_time(since.strip())
    if found is None:
        raise ConfigError(
            f"since {short(since)}: must be a date (2026-11-01), a time (2026-11-01T09:30) or an"
            " age (12h, 30d, 4w)",
            key="since",
            value=since,
        )
    return found


def _state(status: str) -> str:
    """One of `STATES`, empty for any. Raises `ConfigError`."""
    known = (*STATES, *_SYNONYMS)
    if status and status not in known:
        raise ConfigError(
            f"status {short(status)}: must be one of {', '.join(known)}{near(status, known)}",
            key="status",
            value=status,
        )
    return _SYNONYMS.get(status, status)
