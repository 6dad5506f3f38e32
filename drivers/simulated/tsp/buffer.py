"""Reading buffers of the simulated Series 2600B: what each reading keeps, and how scripts see it.

After the reference manual 2600BS-901-01 (section 3, "Reading buffers": bits of the status, p. 3-15
at easymanua.ls; capacities in the specifications SPEC-2602B Rev. B p. 11; fill modes and counts,
Rev. F pages 9-24 and 9-25; statistics, Rev. F page 3-13). Unverified: that source values are not
collected after a reset, which errors come beyond the ends of a buffer, the finest resolution of
time stamps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import stdev

from typing_extensions import override

from .lua_values import LuaTable, TspError, Value, boolean, number, to_number

AUTORANGED = 0x04
SOURCE_AUTORANGED = 0x08
REMOTE_SENSE = 0x10
RELATIVE = 0x20
COMPLIANCE = 0x40
FILTERED = 0x80
WITHOUT_SOURCE = 140_000
WITH_SOURCE = 60_000
"""Readings that a dedicated buffer holds, with time stamps and source values (specified as "more
than").
"""
_COLUMNS = (
    "readings",
    "timestamps",
    "sourcevalues",
    "statuses",
    "measureranges",
    "sourceranges",
    "measurefunctions",
    "sourcefunctions",
    "sourceoutputstates",
)


@dataclass(frozen=True)
class Entry:
    """One reading as a buffer keeps it; `time_s` is the virtual clock."""

    reading: float
    time_s: float
    source: float
    status: int
    measure_range: float
    source_range: float
    measured: str
    sourced: str
    output: str

    def column(self, name: str, base_s: float) -> Value:
        """Its value in the sub-table of this name."""
        return {
            "readings": self.reading,
            "timestamps": self.time_s - base_s,
            "sourcevalues": self.source,
            "statuses": float(self.status),
            "measureranges": self.measure_range,
            "sourceranges": self.source_range,
            "measurefunctions": self.measured,
            "sourcefunctions": self.sourced,
            "sourceoutputstates": self.output,
        }[name]


class Buffer(LuaTable):
    """A reading buffer. Index it for readings; its sub-tables hold the rest. `most` is its
    capacity; 0 for a dedicated one.
    """

    lua_type = "reading_buffer"

    def __init__(self, most: int = 0) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.most = most
        self.base_s = 0.0
        self.append_mode = False
        self.source_values = False
        self.time_stamps = True
        self.cache = True
        self.window = False
        self.fill_count = 0
        self.resolution_s = 1e-6
        self.last = 0
        """How many readings have come since it was empty."""
        self.is_native = True
        for name in _COLUMNS:
            self.values[name] = Column(self, name)
        self.values |= {
            "FILL_ONCE": 0.0,
            "FILL_WINDOW": 1.0,
            "clear": self.clear,
            "clearcache": lambda: None,
        }
        self.attributes = {
            "n": (lambda: float(len(self.entries)), None),
            "capacity": (lambda: float(self.capacity), None),
            "basetimestamp": (lambda: self.base_s, None),
            "appendmode": (lambda: float(self.append_mode), self._put_append),
            "collectsourcevalues": (lambda: float(self.source_values), self._put_source),
            "collecttimestamps": (lambda: float(self.time_stamps), self._put_time),
            "cachemode": (lambda: float(self.cache), self._put_cache),
            "fillmode": (lambda: float(self.window), self._put_mode),
            "fillcount": (lambda: float(self.fill_count), self._put_count),
            "timestampresolution": (lambda: self.resolution_s, self._put_resolution),
        }
        self.sealed = True

    @property
    def capacity(self) -> int:
        """Readings that fit."""
        return self.most or (WITH_SOURCE if self.source_values else WITHOUT_SOURCE)

    def begin(self) -> None:
        """A measurement command is about to store: without append mode the buffer is emptied
        first.
        """
        if not self.append_mode:
            self.clear()

    @property
    def _round(self) -> int:
        """Readings after which the next goes to the first place; 0 where none does."""
        return min(self.fill_count or self.capacity, self.capacity) if self.window else 0

    def store(self, entry: Entry) -> None:
        """Keep one more reading: of a full buffer the oldest one goes, or the new one is lost, by
        its fill mode.
        """
        if not self.entries:
            self.base_s = entry.time_s
        at = self.last % self._round if self._round else self.last
        if at < len(self.entries):
            self.entries[at] = entry
        elif at < self.capacity:
            self.entries.append(entry)
        else:
            return
        self.last += 1

    def statistics(self) -> LuaTable:
        """What `smuX.buffer.getstats` gives."""
        table = LuaTable({"n": float(len(self.entries))})
        if self.entries:
            readings = [entry.reading for entry in self.entries]
            table.set("mean", math.fsum(readings) / len(readings))
            if len(readings) > 1:
                table.set("stddev", stdev(readings))
            for name, choose in (("min", min), ("max", max)):
                table.set(name, self._one(choose(self.entries, key=lambda each: each.reading)))
        return table

    def _one(self, entry: Entry) -> LuaTable:
        singular = {name: name.removesuffix("s") for name in _COLUMNS} | {"statuses": "status"}
        left_out = {
            *(() if self.source_values else ("sourcevalues",)),
            *(() if self.time_stamps else ("timestamps",)),
        }
        return LuaTable(
            {
                one: entry.column(name, self.base_s)
                for name, one in singular.items()
                if name not in left_out
            }
        )

    def clear(self) -> None:
        """Empty it."""
        self.entries.clear()
        self.last = 0

    def default(self) -> None:
        """Settings and contents after a reset."""
        self.clear()
        self.append_mode = self.source_values = self.window = False
        self.time_stamps = self.cache = True
        self.fill_count, self.resolution_s = 0, 1e-6

    @override
    def get(self, key: Value) -> Value:
        """A number gives a reading. Raises `TspError` beyond the last."""
        if isinstance(key, int | float) and not isinstance(key, bool):
            column: Column = self.values["readings"]
            return column.get(key)
        return super().get(key)

    @override
    def length(self) -> int:
        return len(self.entries)

    def _put_append(self, value: Value) -> None:
        self.append_mode = self._while_empty(value, self.append_mode)

    def _put_source(self, value: Value) -> None:
        self.source_values = self._while_empty(value, self.source_values)

    def _put_time(self, value: Value) -> None:
        self.time_stamps = self._while_empty(value, self.time_stamps)

    def _put_mode(self, value: Value) -> None:
        self.window = boolean(value)

    def _put_count(self, value: Value) -> None:
        self.fill_count = int(number(value, 0, self.capacity))

    def _put_resolution(self, value: Value) -> None:
        self.resolution_s = number(value, 1e-6, 1.0)

    def _put_cache(self, value: Value) -> None:
        self.cache = boolean(value)

    def _while_empty(self, value: Value, now: bool) -> bool:
        wanted = boolean(value)
        if self.entries and wanted != now:
            raise TspError(5032, "Cannot change this setting unless buffer is cleared")
        return wanted


class Column(LuaTable):
    """A sub-table of a buffer: one value of each reading."""

    lua_type = "synchronous_table"

    def __init__(self, buffer: Buffer, name: str) -> None:
        super().__init__()
        self._buffer = buffer
        self._name = name
        self.is_native = True
        self.define("n", lambda: float(self.length()))
        self.values["getreading"] = self.get

    @override
    def length(self) -> int:
        """A column that is not collected is empty."""
        buffer = self._buffer
        collected = {"timestamps": buffer.time_stamps, "sourcevalues": buffer.source_values}.get(
            self._name, True
        )
        return len(buffer.entries) if collected else 0

    @override
    def get(self, key: Value) -> Value:
        """Raises `TspError` 4900 beyond the last reading."""
        at = to_number(key)
        if at is None or isinstance(key, str):
            return super().get(key)
        if not 1 <= at <= self.length():
            raise TspError(4900, f"Reading buffer index {at:g} is invalid")
        return self._buffer.entries[int(at) - 1].column(self._name, self._buffer.base_s)

    @override
    def set(self, key: Value, value: Value) -> None:
        """Readings are not written by scripts. Raises `TspError`."""
        raise TspError(-203, "Command protected")
