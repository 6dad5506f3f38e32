"""What simulated TSP instruments have beside measuring: user strings, the data queue, saved setups,
bits, and network settings that can be read.

After the reference manual 2600BS-901-01 (Rev. F page 9-50, Rev. C section 7 and the 2600A's
2600AS-901-01 Rev. B pages 19-29 and 19-30 at easymanua.ls). Unverified: how many user strings and
setups there may be, what the network settings of a new instrument are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .lua_library import text_at
from .lua_values import LuaTable, TspError, Value, number, or_nil, to_number

CAPACITY = 128
"""Entries of the data queue."""
SETUPS = 5
"""Setups in the instrument's own memory, from 1 on; 0 is the factory's."""


def catalog(names: Callable[[], list[str]]) -> Callable[[], Value]:
    """A function that gives an iterator over names, as `catalog()` of the instrument does."""

    def run() -> Value:
        left = iter(names())
        return lambda *_: next(left, None)

    return run


def user_strings() -> LuaTable:
    """`userstring`: texts by name that stay when the instrument is switched off."""
    kept: dict[str, str] = {}

    def add(name: Value, text: Value) -> None:
        kept[text_at(name, 1, "add")] = text_at(text, 2, "add")

    def delete(name: Value) -> None:
        if kept.pop(text_at(name, 1, "delete"), None) is None:
            raise TspError(-224, "Illegal Parameter Value")

    return LuaTable(
        {
            "add": add,
            "delete": delete,
            "get": lambda name: or_nil(kept.get(text_at(name, 1, "get"))),
            "catalog": catalog(lambda: list(kept)),
        },
        sealed=True,
    )


def copied(value: Value) -> Value:
    """A value with copies of the tables in it."""
    if not isinstance(value, LuaTable):
        return value
    return LuaTable({key: copied(each) for key, each in value.pairs()})


def data_queue(elapse: Callable[[float], None]) -> LuaTable:
    """`dataqueue`: first in, first out. Waiting for what cannot come lets time pass."""
    entries: deque[Value] = deque()

    def add(value: Value, timeout: Value = 0.0) -> bool:
        if len(entries) >= CAPACITY:
            elapse(number(timeout, 0.0))
            return False
        entries.append(copied(value))
        return True

    def following(timeout: Value = 0.0) -> Value:
        if not entries:
            elapse(number(timeout, 0.0))
            return (None,)
        return or_nil(entries.popleft())

    return LuaTable(
        {
            "CAPACITY": float(CAPACITY),
            "add": add,
            "next": following,
            "clear": lambda: entries.clear(),
        },
        {"count": (lambda: float(len(entries)), None)},
        sealed=True,
    )


def setups(
    reset: Callable[[], None], now: Callable[[], Any], restore: Callable[[Any], None]
) -> LuaTable:
    """`setup`: settings of the whole instrument, kept under numbers or names of files."""
    kept: dict[Value, Any] = {}
    power_on = 0.0

    def place(where: Value) -> Value:
        at = to_number(where)
        if at is None:
            return text_at(where, 1, "setup")
        return number(at, 1, SETUPS)

    def save(where: Value) -> None:
        kept[place(where)] = now()

    def recall(where: Value) -> None:
        if to_number(where) == 0:
            reset()
            return
        if (settings := kept.get(place(where))) is None:
            raise TspError(-256, "File name not found")
        reset()
        restore(settings)

    def put(value: Value) -> None:
        nonlocal power_on
        power_on = number(value, 0, SETUPS)

    return LuaTable(
        {"save": save, "recall": recall}, {"poweron": (lambda: power_on, put)}, sealed=True
    )


def event_log() -> LuaTable:
    """`eventlog`: LAN triggers that came; none ever do."""
    settings = {"enable": 1.0, "overwritemethod": 1.0}

    def put(name: str) -> Callable[[Value], None]:
        def run(value: Value) -> None:
            settings[name] = number(value, 0, 1)

        return run

    return LuaTable(
        {
            "DISABLE": 0.0,
            "ENABLE": 1.0,
            "DISCARD_NEWEST": 0.0,
            "DISCARD_OLDEST": 1.0,
            "all": lambda: None,
            "next": lambda: (None,),
            "clear": lambda: None,
        },
        {
            "count": (lambda: 0.0, None),
            **{name: (lambda name=name: settings[name], put(name)) for name in settings},  # type: ignore[misc]
        },
        sealed=True,
    )


def network() -> LuaTable:
    """`lan`: what a new instrument says of its network; it can be read, not changed."""

    def read_only(values: dict[str, Value]) -> LuaTable:
        tables = {k: v for k, v in values.items() if isinstance(v, LuaTable)}
        plain = {k: v for k, v in values.items() if k not in tables}
        return LuaTable(tables, {k: (lambda v=v: v, None) for k, v in plain.items()}, sealed=True)  # type: ignore[misc]

    servers = {1.0: "0.0.0.0", 2.0: "0.0.0.0"}
    addresses = {
        "duplex": 1.0,
        "gateway": "0.0.0.0",
        "ipaddress": "127.0.0.1",
        "speed": 100.0,
        "subnetmask": "255.255.255.0",
    }
    config = {
        **addresses,
        "method": 0.0,
        "dns": read_only(
            {
                "address": LuaTable(servers),
                "domain": "",
                "dynamic": 1.0,
                "hostname": "",
                "verify": 1.0,
            }
        ),
    }
    ports = {"dst": 5030.0, "rawsocket": 5025.0, "telnet": 23.0, "vxi11": 1024.0}
    status = {
        **addresses,
        "macaddress": "00:00:00:00:00:00",
        "dns": read_only({"address": LuaTable(servers), "name": ""}),
        "port": read_only(ports),
    }
    table = read_only(
        {
            "config": read_only(config),
            "status": read_only(status),
            "autoconnect": 1.0,
            "linktimeout": 20.0,
            "lxidomain": 0.0,
            "nagle": 0.0,
            "timedwait": 20.0,
        }
    )
    constants = ["DISABLE", "ENABLE", "AUTO", "MANUAL", "HALF", "FULL", "TCP", "UDP", "MULTICAST"]
    values = (0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 2.0)
    table.values |= dict(zip(constants, values, strict=True))
    return table


def bits() -> LuaTable:
    """`bit`: logic on the 32 bits of a number; bits are counted from 1."""

    def whole(value: Value) -> int:
        return int(number(value)) & 0xFFFFFFFF

    def place(index: Value) -> int:
        return int(number(index, 1, 32)) - 1

    def field(index: Value, width: Value) -> tuple[int, int]:
        """Where a field begins and a mask as wide as it."""
        start = place(index)
        return start, (1 << int(number(width, 1, 32 - start))) - 1

    def get_field(value: Value, index: Value, width: Value) -> float:
        start, mask = field(index, width)
        return float(whole(value) >> start & mask)

    def set_field(value: Value, index: Value, width: Value, wanted: Value) -> float:
        start, mask = field(index, width)
        return float(whole(value) & ~(mask << start) | int(number(wanted, 0, mask)) << start)

    return LuaTable(
        {
            "bitand": lambda a, b: float(whole(a) & whole(b)),
            "bitor": lambda a, b: float(whole(a) | whole(b)),
            "bitxor": lambda a, b: float(whole(a) ^ whole(b)),
            "test": lambda a, index: bool(whole(a) >> place(index) & 1),
            "set": lambda a, index: float(whole(a) | 1 << place(index)),
            "clear": lambda a, index: float(whole(a) & ~(1 << place(index))),
            "toggle": lambda a, index: float(whole(a) ^ 1 << place(index)),
            "get": lambda a, index: float(whole(a) & 1 << place(index)),
            "getfield": get_field,
            "setfield": set_field,
        }
    )
