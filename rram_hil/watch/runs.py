"""Which runs a page shows: all of a folder and those below it, or one; each known by a key that
says nothing of where its file lies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from rram_hil.catalogue.catalog import Catalog
from rram_hil.catalogue.entry import CatalogEntry
from rram_hil.errors import BenchError, ConfigError
from rram_hil.storage.journal import holds_run
from rram_hil.storage.run_state import JOURNAL, is_hdf5, journal_of
from rram_hil.watch.follow import RunFollower
from rram_hil.watch.picture import told

MOST_LISTED = 500
"""The page lists the newest so many runs."""
LIST_EVERY_S = 3.0
LIST_SHARE = 20.0
"""A folder that takes long to look through is looked through less often."""
KEPT_S = 120.0
"""A run that no page asked for so long is no longer kept in memory."""


class Runs:
    """The runs of `place`: a folder, or the run file or journal of one run, which need not be there
    yet with `wait`. Safe to use from several threads. `unreadable` says, a line each, what of a
    folder could not be read at all; without the labels runs have no tags, and none is left out.

    Raises `ConfigError` for a place that is not there and for a file that is no run's, `DataError`
    for what is no journal.
    """

    def __init__(self, place: Path, *, wait: bool = False) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._due_s = 0.0
        self._listed: list[dict[str, Any]] = []
        self._paths: dict[str, Path] = {}
        self._followers: dict[str, RunFollower] = {}
        self._asked_s: dict[str, float] = {}
        self._catalog: Catalog | None = None
        self.unreadable: tuple[str, ...] = ()
        if place.is_dir():
            self._catalog = Catalog(place, needs_labels=False)
            self.unreadable = self._catalog.unreadable
        else:
            run = place.with_name(place.name.removesuffix(JOURNAL))
            if not wait:
                _require_run(place, run)
            self._paths[key_of(run)] = run
        self.listing()

    def listing(self) -> list[dict[str, Any]]:
        """Of each run, newest first: `key`, `title`, `chip`, `began` (UTC), `status`, `tags`, and
        the `name` of its file.
        """
        with self._lock:
            if self._catalog is None:
                return [{"key": key, "name": told(p.name)} for key, p in self._paths.items()]
            began_s = time.monotonic()
            if began_s >= self._due_s:
                with contextlib.suppress(
                    BenchError
                ):  # the list stays as it was until it can be had
                    self._catalog.refresh()
                self._list(self._catalog)
                took_s = time.monotonic() - began_s
                self._due_s = time.monotonic() + max(LIST_EVERY_S, LIST_SHARE * took_s)
            return self._listed

    def _list(self, catalog: Catalog) -> None:
        found = catalog.search()[:MOST_LISTED]
        self._paths = {key_of(e.path): e.path for e in found}
        self._listed = [_row(e, self.place) for e in found]

    def follower(self, key: str) -> RunFollower | None:
        """What follows the run of that key; None for none."""
        now = time.monotonic()
        with self._lock:
            path = self._paths.get(key)
            if path is None:
                return None
            self._asked_s[key] = now
            for old in [k for k, at in self._asked_s.items() if now - at > KEPT_S]:
                del self._asked_s[old]
                self._followers.pop(old, None)
            if key not in self._followers:
                self._followers[key] = RunFollower(path)
            return self._followers[key]

    def is_behind(self, key: str) -> bool:
        """Whether the next look at a run need not wait for something new."""
        run = self._followers.get(key)
        return run is not None and run.is_behind


def _require_run(place: Path, run: Path) -> None:
    """Refuse what is neither a run file nor a journal. Raises `ConfigError` or `DataError`."""
    journal = journal_of(run)
    if run.is_file() and is_hdf5(run):
        return
    if journal.is_file():
        holds_run(journal)  # one that has just begun may hold nothing yet
    elif run.is_file():
        raise ConfigError(f"{place}: neither a run file nor the journal of a run")
    else:
        raise ConfigError(f"{place}: there is no such folder, run file or journal")


def key_of(path: Path) -> str:
    """The key of a run file: a digest of its place."""
    # Unlike `Path.resolve` it takes links that lead round in a circle.
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]


def _row(entry: CatalogEntry, folder: Path) -> dict[str, Any]:
    try:
        name = entry.path.relative_to(folder)
    except ValueError:
        name = entry.path
    return {
        "key": key_of(entry.path),
        "name": told(name),
        "title": told(entry.title),
        "chip": told(entry.chip_id),
        "began": told(entry.started_utc),
        "status": entry.status,
        "tags": [told(tag) for tag in entry.tags],
    }
