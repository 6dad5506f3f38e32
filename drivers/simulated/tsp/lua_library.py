"""The library of Lua 5.0 for simulated TSP instruments: base functions, string, table, math.

Left out: files, coroutines, `string.dump`.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable
from functools import cmp_to_key

from .lua_compiler import LuaFunction, Machine, compare
from .lua_patterns import Match, every, search
from .lua_values import (
    LONGEST_STRING,
    EndlessError,
    LuaError,
    LuaSyntaxError,
    LuaTable,
    Value,
    lua_next,
    or_nil,
    to_number,
    to_string,
    type_name,
)


def number_at(value: Value, at: int, function: str) -> float:
    """An argument that must be a number. Raises `LuaError` as the library does."""
    number = to_number(value)
    if number is None:
        given = "no value" if value is None else type_name(value)
        raise LuaError(f"bad argument #{at} to `{function}' (number expected, got {given})")
    return number


def text_at(value: Value, at: int, function: str) -> str:
    """An argument that must be a string or a number."""
    if type_name(value) not in ("string", "number"):
        given = "no value" if value is None else type_name(value)
        raise LuaError(f"bad argument #{at} to `{function}' (string expected, got {given})")
    return to_string(value)


def table_at(value: Value, at: int, function: str) -> LuaTable:
    """An argument that must be a table."""
    if not isinstance(value, LuaTable):
        given = "no value" if value is None else type_name(value)
        raise LuaError(f"bad argument #{at} to `{function}' (table expected, got {given})")
    return value


def install(machine: Machine) -> None:
    """Put the library into the machine's globals."""
    calling = _Calling(machine)
    for name, value in (_BASE | calling.base()).items():
        machine.globals.set(name, value)
    machine.globals.set("string", LuaTable(_STRING | {"gsub": calling.gsub}))
    machine.globals.set("table", LuaTable(_TABLE | calling.table()))
    machine.globals.set("math", _math())


class _Calling:
    """The functions that compile or call Lua, and so need the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def base(self) -> dict[str, Value]:
        return {
            "pcall": self.pcall,
            "xpcall": self.xpcall,
            "loadstring": self.loadstring,
            "tostring": lambda value=None: self.machine.text(value),
        }

    def table(self) -> dict[str, Value]:
        return {"sort": self.sort, "foreach": self.foreach, "foreachi": self.foreachi}

    def pcall(self, function: Value, *arguments: Value) -> tuple[Value, ...]:
        try:
            return True, *self.machine.call(function, arguments, self.machine.line, "")
        except EndlessError:
            raise
        except LuaError as error:
            return False, error.value

    def xpcall(self, function: Value, handler: Value) -> tuple[Value, ...]:
        done, *values = self.pcall(function)
        if done:
            return True, *values
        return False, *self.machine.call(handler, tuple(values), self.machine.line, "")

    def loadstring(self, source: Value, _name: Value = None) -> Value:
        try:
            return self.machine.compile(text_at(source, 1, "loadstring"))
        except LuaSyntaxError as wrong:
            return None, wrong.text

    def sort(self, table: Value, less: Value = None) -> None:
        items = table_at(table, 1, "sort")
        values = [items.get(at + 1) for at in range(items.length())]

        def compared(one: Value, other: Value) -> int:
            # Sorting asks only whether one value comes before another.
            return -1 if self._is_less(one, other, less) else 0

        for at, value in enumerate(sorted(values, key=cmp_to_key(compared))):
            items.set(at + 1, value)

    def _is_less(self, one: Value, other: Value, less: Value) -> bool:
        if less is not None:
            result = self.machine.call(less, (one, other), self.machine.line, "order function")
            return bool(result) and result[0] not in (None, False)
        return compare(self.machine, "<", one, other, self.machine.line)

    def foreach(self, table: Value, function: Value) -> Value:
        return self._until_one(function, table_at(table, 1, "foreach").pairs())

    def foreachi(self, table: Value, function: Value) -> Value:
        items = table_at(table, 1, "foreachi")
        numbers = range(1, items.length() + 1)
        return self._until_one(function, ((float(at), items.get(at)) for at in numbers))

    def _until_one(self, function: Value, pairs: Iterable[tuple[Value, ...]]) -> Value:
        """Call with each pair until a call returns something."""
        for pair in pairs:
            result = self.machine.call(function, pair, self.machine.line, "")
            if result and result[0] is not None:
                return result
        return None

    def gsub(self, text: Value, pattern: Value, by: Value, most: Value = None) -> tuple[str, float]:
        word = text_at(text, 1, "gsub")
        left = math.inf if most is None else int(number_at(most, 4, "gsub"))
        parts: list[str] = []
        at, count = 0, 0
        for match in every(text_at(pattern, 2, "gsub"), word):
            if count >= left:
                break
            count += 1
            parts += [word[at : match.start], self._replacement(match, word, by)]
            at = match.end
        return "".join([*parts, word[at:]]), float(count)

    def _replacement(self, match: Match, word: str, by: Value) -> str:
        whole = word[match.start : match.end]
        groups = match.captures or (whole,)
        if isinstance(by, LuaFunction) or callable(by):
            result = self.machine.call(by, groups, self.machine.line, "replacement")
            return to_string(result[0]) if result and result[0] is not None else ""

        def one(code: re.Match[str]) -> str:
            if not code[1].isdigit():
                return code[1]
            if int(code[1]) > len(groups):
                raise LuaError("invalid capture index")
            return to_string((whole, *groups)[int(code[1])])

        return re.sub(r"%(.)", one, text_at(by, 3, "gsub"), flags=re.DOTALL)


def _pairs(table: Value) -> tuple[Value, ...]:
    steps = table_at(table, 1, "pairs").pairs()
    return (lambda *_: next(steps, None)), table, None


def _ipairs(table: Value) -> tuple[Value, ...]:
    items = table_at(table, 1, "ipairs")

    def step(_: Value, at: Value) -> tuple[Value, ...] | None:
        value = items.get(at + 1)
        return None if value is None else (at + 1, value)

    return step, table, 0.0


def _error(value: Value = None, _level: Value = None) -> None:
    raise LuaError(value)


def _assert(
    value: Value = None, message: Value = "assertion failed!", *rest: Value
) -> tuple[Value, ...]:
    if value is None or value is False:
        raise LuaError(message)
    return (value, message, *rest)


def _unpack(table: Value) -> tuple[Value, ...]:
    items = table_at(table, 1, "unpack")
    return tuple(items.get(at + 1) for at in range(items.length()))


def _getmetatable(value: Value = None) -> Value:
    metatable = value.shown_metatable() if isinstance(value, LuaTable) else None
    guard = None if metatable is None else metatable.get("__metatable")
    return or_nil(metatable if guard is None else guard)


def _setmetatable(table: Value, metatable: Value = None) -> LuaTable:
    changed = table_at(table, 1, "setmetatable")
    if metatable is not None:
        table_at(metatable, 2, "setmetatable")
    before = changed.metatable
    if changed.is_native or (before is not None and before.get("__metatable") is not None):
        raise LuaError("cannot change a protected metatable")
    changed.metatable = metatable
    return changed


def _tonumber(value: Value, base: Value = 10.0) -> Value:
    return or_nil(to_number(value, int(base)))


_BASE: dict[str, Value] = {
    "pairs": _pairs,
    "ipairs": _ipairs,
    "next": lambda table, key=None: or_nil(lua_next(table, key)),
    "error": _error,
    "assert": _assert,
    "unpack": _unpack,
    "tonumber": _tonumber,
    "type": lambda value=None: type_name(value),
    "rawget": lambda table, key: or_nil(table_at(table, 1, "rawget").get(key)),
    "rawset": lambda table, key, value: table_at(table, 1, "rawset").set(key, value),
    "rawequal": lambda a, b: a is b or a == b,
    "getmetatable": _getmetatable,
    "setmetatable": _setmetatable,
    "collectgarbage": lambda *_: None,
    "gcinfo": lambda: (100.0, 1000.0),
    "_VERSION": "Lua 5.0",
}


def _insert(table: Value, *rest: Value) -> None:
    items = table_at(table, 1, "insert")
    size = items.length()
    at = size + 1 if len(rest) < 2 else int(number_at(rest[0], 2, "insert"))
    for place in range(size, at - 1, -1):
        items.set(place + 1, items.get(place))
    items.set(at, rest[-1])
    _resize(items, size + 1)


def _remove(table: Value, place: Value = None) -> Value:
    items = table_at(table, 1, "remove")
    size = items.length()
    if size == 0:
        return (None,)
    at = size if place is None else int(number_at(place, 2, "remove"))
    value = items.get(at)
    for here in range(at, size):
        items.set(here, items.get(here + 1))
    items.set(size, None)
    _resize(items, size - 1)
    return value


def _concat(table: Value, separator: Value = "", first: Value = 1.0, last: Value = None) -> str:
    items = table_at(table, 1, "concat")
    end = items.length() if last is None else int(last)
    return to_string(separator).join(
        text_at(items.get(at), 1, "concat") for at in range(int(first), end + 1)
    )


_TABLE: dict[str, Value] = {
    "insert": _insert,
    "remove": _remove,
    "concat": _concat,
    "getn": lambda table: float(table_at(table, 1, "getn").length()),
    "setn": lambda table, n: table_at(table, 1, "setn").set("n", n),
}


def _resize(table: LuaTable, size: int) -> None:
    if "n" in table.values:
        table.values["n"] = float(size)


def _math() -> LuaTable:
    draw = random.Random(0)

    def unary(name: str, work: Callable[[float], float]) -> Callable[..., float]:
        def run(value: Value = None) -> float:
            try:
                return float(work(number_at(value, 1, name)))
            except (ValueError, OverflowError):
                return math.nan

        return run

    def mod(a: Value = None, b: Value = None) -> float:
        x, y = number_at(a, 1, "mod"), number_at(b, 2, "mod")
        return math.fmod(x, y) if y and math.isfinite(x) else math.nan

    def rand(low: Value = None, high: Value = None) -> float:
        if low is None:
            return draw.random()
        first, last = (1.0, low) if high is None else (low, high)
        return float(draw.randint(int(first), int(last)))

    def whole(work: Callable[[float], float]) -> Callable[[float], float]:
        return lambda x: work(x) if math.isfinite(x) else x

    def power(a: Value, b: Value) -> float:
        base, exponent = number_at(a, 1, "pow"), number_at(b, 2, "pow")
        try:
            return math.pow(base, exponent)
        except ValueError:
            # As in C: no real number, or a pole at zero.
            return math.inf if base == 0 else math.nan
        except OverflowError:
            return -math.inf if base < 0 and exponent % 2 == 1 else math.inf

    def extreme(name: str, work: Callable[..., float]) -> Callable[..., float]:
        return lambda *values: float(
            work([number_at(v, at + 1, name) for at, v in enumerate(values)])
        )

    functions: dict[str, Value] = {
        "abs": unary("abs", abs),
        "floor": unary("floor", whole(math.floor)),
        "ceil": unary("ceil", whole(math.ceil)),
        "sqrt": unary("sqrt", math.sqrt),
        "exp": unary("exp", math.exp),
        "log": unary("log", math.log),
        "log10": unary("log10", math.log10),
        "sin": unary("sin", math.sin),
        "cos": unary("cos", math.cos),
        "tan": unary("tan", math.tan),
        "asin": unary("asin", math.asin),
        "acos": unary("acos", math.acos),
        "atan": unary("atan", math.atan),
        "atan2": lambda y, x: math.atan2(number_at(y, 1, "atan2"), number_at(x, 2, "atan2")),
        "deg": unary("deg", math.degrees),
        "rad": unary("rad", math.radians),
        "mod": mod,
        "max": extreme("max", max),
        "min": extreme("min", min),
        "pow": power,
        "frexp": lambda x: tuple(float(v) for v in math.frexp(number_at(x, 1, "frexp"))),
        "ldexp": lambda m, e: math.ldexp(number_at(m, 1, "ldexp"), int(e)),
        "random": rand,
        "randomseed": lambda seed=0.0: draw.seed(seed),
        "pi": math.pi,
    }
    return LuaTable(functions)


def _sub(text: Value, first: Value, last: Value = -1.0) -> str:
    word = text_at(text, 1, "sub")
    i, j = int(number_at(first, 2, "sub")), int(number_at(last, 3, "sub"))
    i = max(len(word) + i + 1, 1) if i < 0 else max(i, 1)
    j = len(word) + j + 1 if j < 0 else j
    return word[i - 1 : max(j, 0)]


def _rep(text: Value, count: Value) -> str:
    word, n = text_at(text, 1, "rep"), int(number_at(count, 2, "rep"))
    if len(word) * n > LONGEST_STRING:
        raise LuaError("not enough memory")
    return word * n


def _byte(text: Value, at: Value = 1.0) -> float | None:
    word = _sub(text, at, at)
    return float(ord(word)) if word else None


def _find(text: Value, pattern: Value, start: Value = 1.0, plain: Value = None) -> Value:
    word, wanted = text_at(text, 1, "find"), text_at(pattern, 2, "find")
    first = int(number_at(start, 3, "find"))
    first = max(len(word) + first, 0) if first < 0 else max(first - 1, 0)
    if plain not in (None, False):
        at = word.find(wanted, first)
        return (None,) if at < 0 else (at + 1.0, float(at + len(wanted)))
    match = search(wanted, word, first) if first <= len(word) else None
    return (None,) if match is None else (match.start + 1.0, float(match.end), *match.captures)


def _gfind(text: Value, pattern: Value) -> Value:
    word = text_at(text, 1, "gfind")
    matches = every(text_at(pattern, 2, "gfind"), word)

    def step(*_: Value) -> tuple[Value, ...] | None:
        match = next(matches, None)
        return None if match is None else match.captures or (word[match.start : match.end],)

    return step


def format_(pattern: Value, *arguments: Value) -> str:
    """`string.format` with C's directives."""
    at = 0

    def one(match: re.Match[str]) -> str:
        nonlocal at
        flags, kind = match[1], match[2]
        if kind == "%":
            return "%"
        if at >= len(arguments):
            raise LuaError(f"bad argument #{at + 2} to `format' (no value)")
        value, at = arguments[at], at + 1
        if kind in "di":
            return str(f"%{flags}d" % int(number_at(value, at + 1, "format")))
        if kind in "uoxX":
            return str(
                f"%{flags}{'d' if kind == 'u' else kind}"
                % (int(number_at(value, at + 1, "format")) & 0xFFFFFFFF)
            )
        if kind in "eEfgG":
            return str(f"%{flags}{kind}" % number_at(value, at + 1, "format"))
        if kind == "c":
            return chr(int(number_at(value, at + 1, "format")) & 255)
        if kind == "s":
            return str(f"%{flags}s" % text_at(value, at + 1, "format"))
        if kind == "q":
            text = text_at(value, at + 1, "format")
            return '"' + re.sub(r'(["\\\n])', r"\\\1", text) + '"'
        raise LuaError("invalid option in `format'")

    return re.sub(
        r"%([-+ #0]{0,5}\d{0,3}(?:\.\d{0,3})?)([A-Za-z%])", one, text_at(pattern, 1, "format")
    )


_STRING: dict[str, Value] = {
    "len": lambda text: float(len(text_at(text, 1, "len"))),
    "sub": _sub,
    "upper": lambda text: text_at(text, 1, "upper").upper(),
    "lower": lambda text: text_at(text, 1, "lower").lower(),
    "rep": _rep,
    "byte": _byte,
    "char": lambda *codes: "".join(
        chr(int(number_at(c, at + 1, "char")) & 255) for at, c in enumerate(codes)
    ),
    "format": format_,
    "find": _find,
    "gfind": _gfind,
}
