"""Base of the simulated instruments that run TSP: Lua with the instrument in it, scripts, printing,
the error queue.

After the Keithley Series 2600B reference manual 2600BS-901 (section 7, TSP command reference;
section 8, "Effects of errors on scripts"; pages read at manualshive.com and easymanua.ls): a syntax
error (-285) keeps a line or script from running, a run-time error (-286) ends it, every other error
goes into the queue and the script goes on. Codes and texts of errors as the public 2600 driver of
the qkit project lists them. Unverified: the length of the error queue, that an undefined attribute
is refused when set, the time a line takes, `printbuffer` beyond the end of a buffer.
"""

from __future__ import annotations

import math
import struct
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..array.terminals import Place
from ..server.instrument import SimulatedInstrument
from .lua_compiler import Machine
from .lua_library import install, number_at, text_at
from .lua_values import (
    LONGEST_STRING,
    Attribute,
    LuaError,
    LuaSyntaxError,
    LuaTable,
    TspError,
    Value,
    boolean,
    number,
    to_number,
    to_string,
    type_name,
)
from .services import bits, catalog, data_queue, user_strings
from .triggers import Events, Triggers

STEP_S = 2e-6
"""Virtual time of one loop turn or call, so that a script that waits by looking at a timer gets
there. Unverified.
"""
EPOCH_S = 1_700_000_000.0
"""What `os.time` gives when the rack is switched on."""

__all__ = ["LuaError", "LuaTable", "TspError", "TspInstrument", "Value", "boolean", "number"]


@dataclass(frozen=True)
class QueuedError:
    """One entry of the error queue."""

    code: int
    text: str
    severity: int
    node: int


class _ExitError(Exception):
    """`exit()`: the script ends without an error."""


class TspInstrument(SimulatedInstrument):
    """An instrument that runs Lua. A subclass fills `globals` in `build` and says in `reset` what
    `reset()` and `*RST` do.

    Handlers are plain Python callables in tables; they raise `TspError` for an error of the
    instrument.
    """

    QUEUE = 100
    """Errors that the queue holds; the last becomes -350 when one more comes."""
    FIRMWARE = "3.3.5"
    LEAST_PRECISION = 1
    """Least of `format.asciiprecision`."""

    def __init__(self, model: str, place: Place) -> None:
        super().__init__(model, place)
        self.globals = LuaTable()
        self.queue: deque[QueuedError] = deque()
        self.machine = Machine(self.globals, self.push_error, self._ran)
        self.esr = 128
        self.ese = 0
        self.sre = 0
        self.prompts = False
        self.prompts4882 = True
        self.showerrors = False
        self.precision = 6
        self.data_format = 1
        self.little_endian = True
        self.timer_start_s = 0.0
        self.description = f"Keithley {model}"
        self.scripts: dict[str, LuaTable] = {}
        self._output = bytearray()
        self._loading: tuple[str, bool, list[str]] | None = None
        self.events = Events(place.bus)
        install(self.machine)
        lua_own = frozenset(self.globals.values)
        self._build_base()
        self.triggers = Triggers(self)
        self.build()
        for name, value in self.globals.values.items():
            if name not in lua_own:
                _own(value)
        self.globals.get("script").get("user").get("scripts").is_native = False
        self.globals.set("_G", self.globals)
        self.reset()

    @abstractmethod
    def build(self) -> None:
        """Fill `globals` with what this instrument has."""

    @abstractmethod
    def reset(self) -> None:
        """What `reset()` and `*RST` do: outputs off (relays open), every setting at its default."""

    def _reset_all(self) -> None:
        self.precision, self.data_format, self.little_endian = 6, 1, True
        self.reset()

    def identification(self) -> str:
        """Reply to `*IDN?`."""
        return (
            f"Keithley Instruments Inc., Model {self.pretends or self.model}, {self.place.serial},"
            f" {self.FIRMWARE}"
        )

    def fail(self, error: LuaError | TspError) -> None:
        """Queue what went wrong beside a script, perhaps by another instrument's doing."""
        if isinstance(error, TspError):
            self.push_error(error.code, error.text)
        else:
            self.push_error(-286, f"TSP Runtime error: {error}")

    def wait_complete(self) -> None:
        """What `waitcomplete()` waits for: overlapped operations of this instrument."""

    @property
    def node_number(self) -> int:
        """Its number on TSP-Link; 1 where it is not on one."""
        return next((n for n, instrument in self.place.bus.nodes.items() if instrument is self), 1)

    # Time

    def elapse(self, seconds: float) -> None:
        """Let time pass, with that of the lines run so far; what is due meanwhile happens."""
        self.place.bus.give_way()
        self.machine.spend()
        self.place.bus.clock.advance(max(seconds, 0.0))

    def now_s(self) -> float:
        """The instrument's clock (virtual s)."""
        self.elapse(0.0)
        return self.place.bus.clock.now_s

    def _ran(self, turns: int) -> None:
        self.place.bus.clock.advance(turns * STEP_S)

    # Messages

    @override
    def message(self, line: str) -> str | bytes:
        self._output.clear()
        text = line.strip()
        if self._loading is not None and text != "endscript":
            if text == "abort":
                self._loading = None
            else:
                self._loading[2].append(line.rstrip("\r"))
        elif text == "endscript":
            self._end_script()
        elif text.split(" ")[0] in ("loadscript", "loadandrunscript"):
            word, _, name = text.partition(" ")
            self._loading = (name.strip(), word == "loadandrunscript", [])
        elif text.startswith("*"):
            self._common(text)
        elif text and text != "abort":
            self.execute(line)
        if self.showerrors:
            while self.queue:
                error = self.queue.popleft()
                self.write(f"{error.code}, {error.text}\n".encode("latin-1", "replace"))
        if self.prompts:
            prompt = ">>>>" if self._loading is not None else "TSP?" if self.queue else "TSP>"
            self.write(prompt.encode() + b"\n")
        return bytes(self._output[:-1] if self._output.endswith(b"\n") else self._output)

    @override
    def reply(self, line: str) -> bytes:
        # `print()` answers with an empty line, which is an answer.
        return super().reply(line) or (b"\n" if self._output == b"\n" else b"")

    def execute(self, source: str) -> None:
        """Compile and run a chunk; its errors go to the queue."""
        try:
            chunk = self.machine.compile(source)
        except LuaSyntaxError as error:
            self.push_error(-285, f"TSP Syntax error at line {error.line}: {error.text}")
            return
        self._run(chunk)

    def _run(self, chunk: Callable[..., Value]) -> None:
        self.machine.begin()
        try:
            self.machine.call(chunk, (), 0, "chunk")
        except LuaError as error:
            self.push_error(
                -286, f"TSP Runtime error at line {error.line}: {to_string(error.value)}"
            )
        except RecursionError:
            self.push_error(-286, f"TSP Runtime error at line {self.machine.line}: stack overflow")
        except _ExitError:
            pass
        self.elapse(0.0)

    def write(self, data: bytes) -> None:
        """Put data into the reply. Raises `LuaError` where it grows beyond belief."""
        if len(self._output) + len(data) > LONGEST_STRING:
            raise LuaError("not enough memory")
        self._output += data

    @override
    def clear(self) -> None:
        """A half-loaded script is dropped."""
        self._loading = None

    @override
    def overrun(self) -> None:
        self.push_error(-363, "Input buffer overrun")

    @override
    def fill_queue(self) -> None:
        while not (self.queue and self.queue[-1].code == -350):
            self.push_error(-285, "TSP Syntax error at line 1: unexpected symbol near `?'")

    def push_error(self, code: int, text: str) -> None:
        """Put an error into the queue and set its bit of the event status register."""
        self.esr |= {1: 32, 2: 16, 3: 8, 4: 4}.get(-code // 100, 8)
        if len(self.queue) < self.QUEUE:
            self.queue.append(QueuedError(code, text, 20, self.node_number))
        else:
            self.queue[-1] = QueuedError(-350, "Queue overflow", 20, self.node_number)

    # Scripts

    def _end_script(self) -> None:
        if self._loading is None:
            self.push_error(-285, "TSP Syntax error at line 1: `=' expected near `<eof>'")
            return
        name, run, lines = self._loading
        self._loading = None
        script = self.make_script("\n".join(lines), name)
        if script is not None and run and script.on_call is not None:
            self._run(script.on_call)

    def make_script(self, source: str, name: str = "") -> LuaTable | None:
        """A script as a callable table, global under its name (or `script.anonymous`); None where
        it does not compile.
        """
        try:
            chunk = self.machine.compile(source)
        except LuaSyntaxError as error:
            self.push_error(-285, f"TSP Syntax error at line {error.line}: {error.text}")
            return None

        script = LuaTable({"name": name, "source": source, "autorun": "no"})

        def run(*_: Value) -> tuple[Value, ...]:
            return chunk()

        script.on_call = run
        script.set("run", run)
        script.set("save", lambda *_: None)
        script.set("list", lambda *_: self.write(source.encode("latin-1", "replace") + b"\n"))
        scripts = self.globals.get("script")
        if name:
            self.scripts[name] = script
            self.globals.set(name, script)
            scripts.get("user").get("scripts").set(name, script)
        else:
            scripts.values["anonymous"] = script
        return script

    # Common commands

    def _common(self, text: str) -> None:
        word, _, argument = text.partition(" ")
        name = word.upper()
        replies: dict[str, Callable[[], str]] = {
            "*IDN?": self.identification,
            "*OPC?": self._complete,
            "*STB?": lambda: str(self.status_byte()),
            "*ESR?": lambda: str(self._take_esr()),
            "*ESE?": lambda: str(self.ese),
            "*SRE?": lambda: str(self.sre),
            "*TST?": lambda: "0",
        }
        if name in replies:
            self.write(replies[name]().encode("latin-1") + b"\n")
        elif name == "*CLS":
            self.queue.clear()
            self.esr = 0
        elif name == "*RST":
            self._reset_all()
        elif name in ("*ESE", "*SRE"):
            if not argument.strip().isdigit() or int(argument) > 255:
                self.push_error(-222, "Parameter data out of range")
            elif name == "*ESE":
                self.ese = int(argument)
            else:
                self.sre = int(argument) & ~64
        elif name == "*OPC":
            self._wait_complete()
            self.esr |= 1
        elif name == "*WAI":
            self._wait_complete()
        elif name == "*TRG":
            self.triggers.command.happen()
        else:
            self.push_error(-113, "Undefined header")

    def status_byte(self) -> int:
        """`*STB?`: error available (bit 2), event status (5), master summary (6)."""
        byte = (4 if self.queue else 0) | (32 if self.esr & self.ese else 0) | self.summary_bits()
        return byte | (64 if byte & self.sre else 0)

    def look(self) -> None:
        """Something that status registers keep has begun or ended."""

    def summary_bits(self) -> int:
        """Bits of the status byte that other registers set."""
        return 0

    def _take_esr(self) -> int:
        value, self.esr = self.esr, 0
        return value

    def _wait_complete(self) -> None:
        try:
            self.wait_complete()
        except LuaError as error:
            self.push_error(-286, f"TSP Runtime error at line 1: {error.value}")

    def _complete(self) -> str:
        self._wait_complete()
        return "1"

    # Printing

    def shown(self, value: Value) -> str:
        """A value as `print` shows it: numbers as 1.00000e+00, with `format.asciiprecision`
        digits.
        """
        if type_name(value) == "number":
            return f"{float(value):.{self.precision - 1}e}"
        return self.machine.text(value)

    def print_numbers(self, values: list[Value]) -> None:
        """What `printnumber` and `printbuffer` send: ASCII with commas, or a binary block ("#0",
        data, line feed).
        """
        if self.data_format == 1:
            self.write(", ".join(self.shown(v) for v in values).encode("latin-1") + b"\n")
            return
        order, size = "<" if self.little_endian else ">", "f" if self.data_format == 2 else "d"
        kind = f"{order}{len(values)}{size}"
        numbers = [math.nan if (n := to_number(v)) is None else n for v in values]
        if self.data_format == 2:
            most = 3.4028234663852886e38
            numbers = [
                n if math.isnan(n) or math.isinf(n) else max(-most, min(most, n)) for n in numbers
            ]
        self.write(b"#0" + struct.pack(kind, *numbers) + b"\n")

    def _print(self, *values: Value) -> None:
        self.write("\t".join(self.shown(v) for v in values).encode("latin-1", "replace") + b"\n")

    def _print_buffer(self, first: Value, last: Value, *buffers: Value) -> None:
        start, end = int(number(first)), int(number(last))
        tables = [b for b in buffers if isinstance(b, LuaTable)]
        if not tables or len(tables) != len(buffers):
            raise LuaError("bad argument #3 to `printbuffer' (reading buffer expected)")
        if start < 1 or end < start or any(end > t.length() for t in tables):
            raise TspError(-222, "Parameter Data Out of Range")
        self.print_numbers(
            [table.get(float(at)) for at in range(start, end + 1) for table in tables]
        )

    # Globals that every TSP instrument has

    def _build_base(self) -> None:
        def exit_() -> None:
            raise _ExitError

        def opc() -> None:
            self.wait_complete()
            self.esr |= 1

        self.globals.fill(
            {
                "print": self._print,
                "printnumber": lambda *values: self.print_numbers(
                    [number_at(v, 1, "printnumber") for v in values]
                ),
                "printbuffer": self._print_buffer,
                "delay": lambda seconds: self.elapse(number(seconds, 0.0, 100_000.0)),
                "waitcomplete": lambda _group=None: self.wait_complete(),
                "opc": opc,
                "reset": lambda _system=None: self._reset_all(),
                "exit": exit_,
                "makegetter": lambda table, name: lambda: table.get(name),
                "makesetter": lambda table, name: lambda value: table.set(name, value),
                "format": self._format_table(),
                "localnode": self._localnode_table(),
                "errorqueue": self._errorqueue_table(),
                "timer": self._timer_table(),
                "os": LuaTable({"time": self._time, "clock": self.now_s}),
                "bit": bits(),
                "userstring": user_strings(),
                "dataqueue": data_queue(self.elapse),
                "script": self._script_table(),
                "node": _Nodes(self),
                "tsplink": self._tsplink_table(),
            }
        )

    def _time(self, *_: Value) -> float:
        return float(math.floor(EPOCH_S + self.now_s()))

    def _format_table(self) -> LuaTable:
        def precision(value: Value) -> None:
            self.precision = int(number(value, self.LEAST_PRECISION, 16))

        def data(value: Value) -> None:
            self.data_format = int(number(value, 1, 3))

        def order(value: Value) -> None:
            self.little_endian = number(value, 0, 1) == 1

        return LuaTable(
            {
                "ASCII": 1.0,
                "SREAL": 2.0,
                "REAL32": 2.0,
                "REAL": 3.0,
                "DREAL": 3.0,
                "REAL64": 3.0,
                "NORMAL": 0.0,
                "NETWORK": 0.0,
                "BIGENDIAN": 0.0,
                "SWAPPED": 1.0,
                "LITTLEENDIAN": 1.0,
            },
            {
                "asciiprecision": (lambda: float(self.precision), precision),
                "data": (lambda: float(self.data_format), data),
                "byteorder": (lambda: float(self.little_endian), order),
            },
            sealed=True,
        )

    def _localnode_table(self) -> LuaTable:
        def flag(name: str) -> Attribute:
            def put(value: Value) -> None:
                setattr(self, name, boolean(value))

            return lambda: float(getattr(self, name)), put

        def describe(value: Value) -> None:
            self.description = text_at(value, 1, "description")

        return _LocalNode(
            self.globals,
            {
                "ENABLE": 1.0,
                "DISABLE": 0.0,
                "reset": self._reset_all,
            },
            {
                "description": (lambda: self.description, describe),
                "prompts": flag("prompts"),
                "prompts4882": flag("prompts4882"),
                "showerrors": flag("showerrors"),
                "model": (lambda: self.pretends or self.model, None),
                "serialno": (lambda: self.place.serial, None),
                "version": (lambda: self.FIRMWARE, None),
                "revision": (lambda: self.FIRMWARE, None),
                "linefreq": (lambda: self.place.line_hz, lambda value: None),
                "autolinefreq": (lambda: True, lambda value: None),
            },
        )

    def _errorqueue_table(self) -> LuaTable:
        def following() -> tuple[Value, ...]:
            if not self.queue:
                return 0.0, "Queue Is Empty", 0.0, 0.0
            error = self.queue.popleft()
            return float(error.code), error.text, float(error.severity), float(error.node)

        return LuaTable(
            {"next": following, "clear": lambda: self.queue.clear()},
            {"count": (lambda: float(len(self.queue)), None)},
            sealed=True,
        )

    def _timer_table(self) -> LuaTable:
        def restart() -> None:
            self.timer_start_s = self.now_s()

        return LuaTable(
            {
                "reset": restart,
                "measure": LuaTable({"t": lambda: self.now_s() - self.timer_start_s}),
            },
        )

    def _script_table(self) -> LuaTable:
        scripts = LuaTable()

        def new(source: Value, name: Value = "") -> Value:
            return self.make_script(text_at(source, 1, "new"), text_at(name, 2, "new"))

        def delete(name: Value) -> None:
            if self.scripts.pop(text_at(name, 1, "delete"), None) is None:
                raise TspError(-256, "File name not found")
            scripts.set(name, None)

        def run() -> tuple[Value, ...]:
            script = table.get("anonymous")
            if script is None:
                raise LuaError("attempt to call field `anonymous' (a nil value)")
            return self.machine.call(script, (), 0, "field `anonymous'")

        def new_autorun(source: Value, name: Value = "") -> Value:
            script = new(source, name)
            if script is not None:
                script.set("autorun", "yes")
                self._run(script.on_call)
            return script

        def restore(name: Value) -> None:
            script = self.scripts.get(text_at(name, 1, "restore"))
            if script is None:
                raise TspError(-256, "File name not found")
            self.globals.set(name, script)

        own = catalog(lambda: list(self.scripts))
        user = LuaTable({"scripts": scripts, "catalog": own, "delete": delete})
        table = LuaTable(
            {
                "new": new,
                "newautorun": new_autorun,
                "restore": restore,
                "delete": delete,
                "run": run,
                "user": user,
            }
        )
        return table

    def _tsplink_table(self) -> LuaTable:
        def reset(_expected: Value = None) -> float:
            return float(max(len(self.place.bus.nodes), 1))

        return LuaTable(
            {"reset": reset},
            {
                "state": (lambda: "online", None),
                "node": (lambda: float(self.node_number), lambda value: None),
                "master": (lambda: 1.0, None),
                "group": (lambda: 0.0, lambda value: None),
            },
        )


def _own(value: Value) -> None:
    """Mark an instrument's own table and those in it."""
    if isinstance(value, LuaTable) and not value.is_native:
        value.is_native = True
        for inner in value.values.values():
            _own(inner)


class _LocalNode(LuaTable):
    """`localnode`: its own attributes, and all that the instrument has."""

    def __init__(
        self,
        own: LuaTable,
        values: dict[Any, Value],
        attributes: dict[str, Attribute],
    ) -> None:
        super().__init__(values, attributes, sealed=True)
        self._own = own

    @override
    def get(self, key: Value) -> Value:
        value = super().get(key)
        return self._own.get(key) if value is None else value


class _Node(LuaTable):
    """`node[n]`: another instrument's globals and the attributes of its `localnode`."""

    def __init__(self, instrument: TspInstrument) -> None:
        super().__init__()
        self.instrument = instrument

    @override
    def get(self, key: Value) -> Value:
        own = self.instrument.globals
        if key == "execute":
            return lambda code: self.instrument.execute(text_at(code, 1, "execute"))
        if key == "getglobal":
            return lambda name: own.get(name)
        if key == "setglobal":
            return lambda name, value: own.set(name, value)
        local = own.get("localnode")
        return local.get(key) if key in local.attributes or key in local.values else own.get(key)

    @override
    def set(self, key: Value, value: Value) -> None:
        self.instrument.globals.get("localnode").set(key, value)


class _Nodes(LuaTable):
    """`node`: the instruments on TSP-Link by number; its own number always works."""

    def __init__(self, instrument: TspInstrument) -> None:
        super().__init__()
        self._instrument = instrument

    @override
    def get(self, key: Value) -> Value:
        """Nil for a number that nobody has."""
        if key == self._instrument.node_number:
            return _Node(self._instrument)
        instrument = (
            self._instrument.place.bus.nodes.get(int(key)) if isinstance(key, int | float) else None
        )
        return _Node(instrument) if isinstance(instrument, TspInstrument) else None

    @override
    def set(self, key: Value, value: Value) -> None:
        """Nodes are wired, not assigned. Raises `LuaError`."""
        raise LuaError("attempt to set `node'")
