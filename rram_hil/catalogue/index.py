"""What run files say, kept in SQLite: a file is read again only when it changed.

An index is a cache of one folder's files. It lies in this user's cache folder, so that the folder
itself may be read-only, and it is never needed: without it, or while another process keeps it
locked, the files are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from rram_hil.catalogue.entry import RunFacts
from rram_hil.catalogue.reading import SUFFIXES, read_facts
from rram_hil.errors import first_line, printable
from rram_hil.storage.run_state import JOURNAL

FOLDER_VARIABLE = "RRAM_HIL_CATALOGUE"
"""Names a folder for the indexes and for tags and notes, instead of this user's own."""
APP = "rram-hil"
_VERSION = 2
"""Of the table below and of what is read from a file: another one's index is made anew."""
_PATIENCE_S = 2.0
"""How long to wait for another process that writes the index."""
_BATCH = 200
"""So many files are read before what they say is kept: Ctrl-C loses no more."""
_NAMES = tuple(f.name for f in fields(RunFacts))
_COLUMNS = ", ".join(_NAMES)
_LISTS = ("protocols", "steps")
_KINDS: dict[str, tuple[type, ...]] = {
    "bench_s": (float, type(None)),
    "pulses": (int, type(None)),
    "reads": (int, type(None)),
    "frames": (int, type(None)),
}
_NOT_TO_BE_HAD = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
    )
)
"""What SQLite answers where nothing is wrong with the index itself."""


@dataclass(frozen=True)
class Kept:
    """What a file said (None: it is of another kind) when it had that signature: size, time of
    change and inode, its own and its journal's.
    """

    signature: str
    facts: RunFacts | None


@dataclass(frozen=True)
class Contents:
    """The runs of a folder by the paths of their files, and what could not be read at all."""

    runs: Mapping[Path, RunFacts]
    unreadable: tuple[str, ...]


def contents_of(folder: Path) -> Contents:
    """Every run of a folder and those below it, from its index where the files have not changed;
    the index is brought up to date.

    Hidden files and folders are left out, and links to folders are not followed.
    """
    index = _Index(folder)
    known = index.load()
    unreadable: list[str] = []
    found = dict(_run_files(folder, unreadable))
    index.forget(known.keys() - found.keys())
    now: dict[bytes, Kept] = {}
    fresh: dict[bytes, Kept] = {}
    for name, signature in found.items():
        kept = known.get(name)
        if kept is None or kept.signature != signature:
            path = folder / os.fsdecode(name)
            try:
                kept = Kept(signature, read_facts(path))
            except OSError as error:  # may be another time: it is not kept
                unreadable.append(_told(path, error))
                index.forget({name} & known.keys())
                continue
            fresh[name] = kept
        now[name] = kept
        if len(fresh) == _BATCH:
            index.keep(fresh)
            fresh = {}
    index.keep(fresh)
    runs = {folder / os.fsdecode(n): k.facts for n, k in now.items() if k.facts is not None}
    return Contents(runs, tuple(unreadable))


def own_folder(kind: str) -> Path:
    """Where the catalogue keeps its files of this user: "cache", what can be made again, or "data",
    what cannot.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named) / kind
    place = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_data_path
    return place(APP, appauthor=False) / "catalogue"


def _told(path: Path, error: OSError) -> str:
    return printable(first_line(f"{path}: {error.strerror or error}"))


def _run_files(folder: Path, unreadable: list[str]) -> Iterator[tuple[bytes, str]]:
    """Paths below the folder of what may be run files, with their signatures; a name is bytes,
    whatever they stand for.
    """
    todo = [folder]
    while todo:
        here = todo.pop()
        files: dict[str, os.DirEntry[str]] = {}
        try:
            with os.scandir(here) as listing:
                for entry in listing:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(here / entry.name)
                    elif entry.name.lower().endswith((*SUFFIXES, JOURNAL)):
                        files[entry.name] = entry
        except OSError as error:
            unreadable.append(_told(here, error))
        names = {n.removesuffix(JOURNAL) for n in files}
        for name in sorted(names):
            path = here / name
            signature = " ".join((_signature(path), _signature(here / (name + JOURNAL))))
            if signature != " ":
                yield os.fsencode(path.relative_to(folder)), signature


def _signature(path: Path) -> str:
    """Empty for what is no file."""
    try:
        found = path.stat()
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return ""
    return f"{found.st_size}/{found.st_mtime_ns}/{found.st_ino}"


class _Index:
    """The SQLite file of one folder. Whatever goes wrong with it, the files are read instead."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        self._path = own_folder("cache") / f"{name}.sqlite"
        self._usable = True
        self._is_new = False

    def load(self) -> dict[bytes, Kept]:
        """What is kept, by path. A damaged index is begun anew."""
        rows: list[tuple[Any, ...]] | None = None
        while rows is None and self._usable:
            with self._guard():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                rows = self._rows()
        kept = {}
        for path, signature, *values in rows or ():
            with contextlib.suppress(ValueError, TypeError, RecursionError):  # it is read again
                kept[bytes(path)] = Kept(str(signature), _facts(values))
        return kept

    def _rows(self) -> list[tuple[Any, ...]]:
        with contextlib.closing(self._connect()) as database:
            if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                self._begin(database)
            return database.execute(f"SELECT path, signature, {_COLUMNS} FROM runs").fetchall()

    def keep(self, fresh: Mapping[bytes, Kept]) -> None:
        """Add or replace what files say."""
        rows = [(name, kept.signature, *_values(kept.facts)) for name, kept in fresh.items()]
        marks = ", ".join("?" * (2 + len(_NAMES)))
        self._write(f"INSERT OR REPLACE INTO runs VALUES ({marks})", rows)

    def forget(self, names: set[bytes]) -> None:
        """Leave out files that are gone."""
        self._write("DELETE FROM runs WHERE path = ?", [(name,) for name in names])

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows and self._usable:
            with self._guard(), contextlib.closing(self._connect()) as database, database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany(statement, rows)

    def _begin(self, database: sqlite3.Connection) -> None:
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DROP TABLE IF EXISTS runs")
            database.execute(
                f"CREATE TABLE runs (path BLOB PRIMARY KEY, signature TEXT, {_COLUMNS})"
            )
            database.execute(f"PRAGMA user_version = {_VERSION}")

    def _connect(self) -> sqlite3.Connection:
        # Not WAL: that needs memory shared by all who have the file open, which a home folder on a
        # network drive has not.
        database = sqlite3.connect(self._path, timeout=_PATIENCE_S)
        # What a power cut spoils is made again: nothing has to wait for the disk.
        database.execute("PRAGMA synchronous = OFF")
        return database

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Whatever SQLite or the disk refuses within is no error: the index is left alone from then
        on. A damaged one is taken away, once.
        """
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            self._usable = code & 0xFF not in _NOT_TO_BE_HAD and self._take_away()
        except OSError:
            self._usable = False

    def _take_away(self) -> bool:
        """Delete a damaged index; whether there may be a new one."""
        if self._is_new:
            return False
        self._is_new = True
        with contextlib.suppress(OSError):
            # The rollback journal first: of another database it would spoil the next one.
            self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            return True
        return False


def _values(facts: RunFacts | None) -> list[Any]:
    """A row's columns from `run_id` on; all empty for a file of another kind."""
    if facts is None:
        return [None] * len(_NAMES)
    values = {name: getattr(facts, name) for name in _NAMES}
    return [json.dumps(v) if n in _LISTS else v for n, v in values.items()]


def _facts(values: list[Any]) -> RunFacts | None:
    """The other way. Raises `ValueError` or `TypeError` for what cannot be it."""
    if all(v is None for v in values):
        return None
    told = dict(zip(_NAMES, values, strict=True))
    for name in _LISTS:
        told[name] = tuple(str(part) for part in json.loads(told[name]))
    for name, value in told.items():
        kinds = _KINDS.get(name, (str, tuple))
        if not isinstance(value, kinds):
            raise TypeError(name)
    return RunFacts(**told)
