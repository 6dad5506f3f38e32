"""Lua values as the simulated TSP instruments use them: tables, errors, conversions.

Written from the Lua 5.0 reference manual. Numbers are floats, strings are Latin-1. Codes and texts
of the instruments' errors as the public 2600 driver of the qkit project lists them. An instrument's
own tables are empty to `next`: what is in them stands in `Getters`, `Setters` and `Objects` of
their metatables, where the public driver keithley2600 2.1.0 looks for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

Value = Any
"""A Lua value: None, bool, float (int), str, LuaTable, or a callable."""
LONGEST_STRING = 1 << 24


class TspError(Exception):
    """An error of a command of the instrument: it goes into the error queue and the script goes on,
    the call giving nothing.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}, {text}")
        self.code = code
        self.text = text


class LuaError(Exception):
    """A run-time error of Lua: the chunk ends (-286) unless `pcall` holds it. `value` is what was
    raised.
    """

    def __init__(self, value: Value, line: int = 0) -> None:
        super().__init__(str(value))
        self.value = value
        self.line = line


class LuaSyntaxError(Exception):
    """Text that is no Lua; nothing of it runs (-285)."""

    def __init__(self, text: str, line: int) -> None:
        super().__init__(text)
        self.text = text
        self.line = line


class EndlessError(LuaError):
    """A chunk that does not end; `pcall` does not hold it."""


Attribute = tuple[Callable[[], Value] | None, Callable[[Value], None] | None]
"""How a computed attribute is read and set; without the second it is read-only, without the first
write-only.
"""


class LuaTable:
    """A Lua table: values by key; in one of an instrument's own (`is_native`) also attributes that
    are computed, perhaps callable.

    `sealed` refuses new names, as the instrument's own tables do, so that a misspelt setting is an
    error. `lua_type` is what the metatable of an instrument's own calls it.
    """

    lua_type = ""

    def __init__(
        self,
        values: dict[Any, Value] | None = None,
        attributes: dict[Any, Attribute] | None = None,
        *,
        sealed: bool = False,
    ) -> None:
        self.values: dict[Any, Value] = {}
        self.attributes = dict(attributes or {})
        self.sealed = False
        self.on_call: Callable[..., Value] | None = None
        self.is_native = False
        self.metatable: LuaTable | None = None
        self.fill(values or {})
        self.sealed = sealed

    def fill(self, values: dict[Any, Value]) -> None:
        """Set values, in order; see `set`."""
        for key, value in values.items():
            self.set(key, value)

    def define(
        self,
        name: Value,
        get: Callable[[], Value] | None = None,
        set: Callable[[Value], None] | None = None,  # noqa: A002
    ) -> None:
        """An attribute that is computed; without `set` it is read-only, without `get`
        write-only.
        """
        self.attributes[name] = (get, set)

    def get(self, key: Value) -> Value:
        """The value at a key, nil (None) where there is none. Raises `LuaError` where an attribute
        cannot be read.
        """
        if key in self.values:
            return self.values[key]
        attribute = self.attributes.get(key)
        if attribute is None:
            return None
        if attribute[0] is None:
            raise LuaError(f"attribute `{key}' cannot be read")
        return attribute[0]()

    def set(self, key: Value, value: Value) -> None:
        """Set the value at a key; nil removes it. Raises `LuaError` for what cannot be set and for
        a nil or NaN key.
        """
        attribute = self.attributes.get(key) if self.attributes else None
        if attribute is not None:
            if attribute[1] is None:
                raise LuaError(f"attribute `{key}' is read-only")
            attribute[1](value)
        elif self.sealed:
            raise LuaError(f"attempt to set undefined attribute `{key}'")
        elif key is None or key != key:
            raise LuaError(f"table index is {'nil' if key is None else 'NaN'}")
        elif value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def length(self) -> int:
        """What `table.getn` gives: field `n`, else how many values there are from 1 without a
        gap.
        """
        n = self.values.get("n")
        if isinstance(n, int | float) and not isinstance(n, bool):
            return int(n)
        count = len(self.values)
        if count and count in self.values and count + 1 not in self.values:
            return count
        count = 0
        while count + 1 in self.values:
            count += 1
        return count

    def pairs(self) -> Iterator[tuple[Value, Value]]:
        """Keys and values in a stable order; none of an instrument's own table."""
        if not self.is_native:
            yield from list(self.values.items())

    def shown_metatable(self) -> LuaTable | None:
        """What `getmetatable` gives."""
        if not self.is_native:
            return self.metatable
        return LuaTable(
            {
                "Getters": LuaTable({k: get for k, (get, _) in self.attributes.items() if get}),
                "Setters": LuaTable({k: put for k, (_, put) in self.attributes.items() if put}),
                "Objects": LuaTable(self.values),
                "luatype": self.lua_type or None,
            }
        )


def normal(result: Value) -> tuple[Value, ...]:
    """What a Python function returned, as the values of a call: None is none, a tuple is
    several.
    """
    return result if type(result) is tuple else () if result is None else (result,)


def or_nil(value: Value) -> Value:
    """A result that may be nil, which is something else than no result."""
    return (None,) if value is None else value


def equal(a: Value, b: Value) -> bool:
    """Lua's `==`: no number equals a boolean, tables and functions equal only themselves."""
    if type(a) is bool or type(b) is bool:
        return a is b
    return bool(a == b)


def type_name(value: Value) -> str:
    """What `type` says of a value."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "table" if isinstance(value, LuaTable) else "function" if callable(value) else "userdata"


def to_number(value: Value, base: int = 10) -> float | None:
    """A number, or a string that is one; None for everything else."""
    if type(value) is float:
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        try:
            if base != 10:
                return float(int(text, base))
            return (
                float(text)
                if re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", text)
                else None
            )
        except ValueError:
            return None
    return None


def to_string(value: Value) -> str:
    """What `tostring` and `..` make of a value; numbers with up to 14 digits, as Lua 5.0 does."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{float(value):.14g}"
    if isinstance(value, str):
        return value
    return f"{type_name(value)}: {id(value) & 0xFFFFFFFF:08x}"


def lua_next(table: Value, key: Value = None) -> tuple[Value, Value] | None:
    """The pair after a key, as `next` gives it."""
    if not isinstance(table, LuaTable):
        raise LuaError("bad argument #1 to `next' (table expected)")
    if table.is_native:
        return None
    keys = list(table.values)
    at = 0 if key is None else keys.index(key) + 1
    return (keys[at], table.values[keys[at]]) if at < len(keys) else None


PARAMETER_TOO_BIG = TspError(1101, "Parameter Too Big")
PARAMETER_TOO_SMALL = TspError(1102, "Parameter Too Small")


def number(value: Value, low: float = -math.inf, high: float = math.inf) -> float:
    """A value that a handler takes as a number. Raises `TspError` as the instrument does outside
    [low, high] or for no number.
    """
    converted = None if isinstance(value, str) else to_number(value)
    if converted is None:
        raise TspError(-104, "Data Type")
    if not low <= converted <= high:
        raise PARAMETER_TOO_SMALL if converted < low else PARAMETER_TOO_BIG
    return converted


def boolean(value: Value) -> bool:
    """A value that a handler takes as 0 or 1 (or a Lua boolean). Raises `TspError`."""
    return value if isinstance(value, bool) else number(value, 0, 1) != 0
