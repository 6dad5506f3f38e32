"""Tags, notes and exclusions given to runs afterwards, by run id: user data, kept apart from the
run files, which never change, and from the index, which may be deleted.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rram_hil.catalogue.index import own_folder
from rram_hil.errors import ConfigError, DataError, short
from rram_hil.storage.safe_files import disk

LONGEST_TAG, LONGEST_NOTE = 60, 2000
_VERSION = 1
_PATIENCE_S = 5.0
_TABLES = (
    "CREATE TABLE tags (run TEXT, tag TEXT, PRIMARY KEY (run, tag))",
    "CREATE TABLE notes (run TEXT PRIMARY KEY, note TEXT)",
    "CREATE TABLE excluded (run TEXT PRIMARY KEY)",
    f"PRAGMA user_version = {_VERSION}",
)
_DAMAGED = "if the file is damaged, put a copy back or move it away"
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program has the file open: try again when it has ended",
    sqlite3.SQLITE_LOCKED: "another program has the file open: try again when it has ended",
    sqlite3.SQLITE_READONLY: "you may not write the file, or its folder",
    sqlite3.SQLITE_PERM: "you may not write the file, or its folder",
    sqlite3.SQLITE_AUTH: "you may not write the file, or its folder",
    sqlite3.SQLITE_CANTOPEN: "a folder, or a file that you may not open",
    sqlite3.SQLITE_FULL: "there is no room on the disk",
    sqlite3.SQLITE_IOERR: "the disk, or the network drive, failed",
}
"""What to do by the kind of SQLite's error."""


@dataclass(frozen=True)
class Label:
    """What was said of a run."""

    tags: tuple[str, ...] = ()
    note: str = ""
    excluded: bool = False


class Labels:
    """The labels of this user's runs, in one SQLite file. Every method raises `DataError` where it
    cannot be read or written: what is in it is nowhere else.
    """

    def __init__(self) -> None:
        self.path = own_folder("data") / "labels.sqlite"

    def of_runs(self) -> dict[str, Label]:
        """What was said of each run of which anything was."""
        if not self.path.exists():
            return {}
        with self._open() as database:
            tags: defaultdict[str, list[str]] = defaultdict(list)
            for run, tag in self._texts(database, "SELECT run, tag FROM tags ORDER BY tag"):
                tags[run].append(tag)
            notes = dict(self._texts(database, "SELECT run, note FROM notes"))
            excluded = {run for (run,) in self._texts(database, "SELECT run FROM excluded")}
        return {
            run: Label(tuple(tags.get(run, ())), notes.get(run, ""), run in excluded)
            for run in {*tags, *notes, *excluded}
        }

    def _texts(self, database: sqlite3.Connection, query: str) -> list[Any]:
        """Rows of texts. Raises `DataError` where another program wrote something else."""
        rows = database.execute(query).fetchall()
        if not all(isinstance(value, str) for row in rows for value in row):
            raise DataError(f"{self.path}: tags and notes: one of them is no text; {_DAMAGED}")
        return rows

    def tag(self, run_id: str, tags: Sequence[str]) -> None:
        """Add tags. Raises `ConfigError` for what can be none."""
        for tag in tags:
            if not tag.isprintable() or tag != tag.strip() or "," in tag or not tag:
                raise ConfigError(f"tag {short(tag)}: must be words without commas")
            if len(tag) > LONGEST_TAG:
                raise ConfigError(f"tag {short(tag)}: longer than {LONGEST_TAG} characters")
        with self._open() as database:
            rows = [(run_id, tag) for tag in tags]
            database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", rows)

    def untag(self, run_id: str, tags: Sequence[str]) -> None:
        """Take tags away. Raises `ConfigError` for one that the run has not."""
        has = self.of_runs().get(run_id, Label()).tags
        for tag in tags:
            if tag not in has:
                raise ConfigError(
                    f"tag {short(tag)}: the run has it not; it has {', '.join(has) or 'none'}"
                )
        with self._open() as database:
            rows = [(run_id, tag) for tag in tags]
            database.executemany("DELETE FROM tags WHERE run = ? AND tag = ?", rows)

    def note(self, run_id: str, text: str) -> None:
        """Write the note of a run in the place of an earlier one; an empty text takes it away.
        Raises `ConfigError` for one that is too long.
        """
        if len(text) > LONGEST_NOTE:
            raise ConfigError(f"a note of {len(text)} characters: {LONGEST_NOTE} at most")
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        with self._open() as database:
            database.execute("DELETE FROM notes WHERE run = ?", (run_id,))
            if text.strip():
                database.execute("INSERT INTO notes VALUES (?, ?)", (run_id, text))

    def exclude(self, run_id: str, excluded: bool = True) -> None:
        """Leave a run out of listings, or (False) no longer."""
        with self._open() as database:
            if excluded:
                database.execute("INSERT OR IGNORE INTO excluded VALUES (?)", (run_id,))
            else:
                database.execute("DELETE FROM excluded WHERE run = ?", (run_id,))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database within one transaction; made where there is none."""
        with disk(f"{self.path}: the file of tags and notes cannot be made"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                contextlib.closing(sqlite3.connect(self.path, timeout=_PATIENCE_S)) as database,
                database,
            ):
                self._begin(database)
                yield database
        except sqlite3.Error as error:
            # The low byte says of which kind the error is.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            raise DataError(
                f"{self.path}: tags and notes cannot be read or written: {error};"
                f" {_ADVICE.get(code, _DAMAGED)}"
            ) from None

    def _begin(self, database: sqlite3.Connection) -> None:
        """Make the tables where there are none yet; two processes may be here at once."""
        if _version(database) == 0:
            database.execute("BEGIN IMMEDIATE")
            if _version(database) == 0:
                for statement in _TABLES:
                    database.execute(statement)
            database.commit()
        if (version := _version(database)) != _VERSION:
            raise DataError(
                f"{self.path}: tags and notes of version {version}; this rram_hil knows {_VERSION}"
            )


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])
