"""TSP mode of the simulated 2450 family (`*LANG TSP`): its commands in Lua, carried out by the same
simulated instrument as its SCPI commands.

After the reference manual 2450-901-01 Rev. B (section 8, TSP command reference; fill modes, page
8-19) and the scripts of its user's manual (github.com/tektronix/keithley, 2450-SMU): each attribute
is the SCPI command of the same meaning. Constants are texts that print as their own names. Names of
the maker's index that are not simulated raise so.
Unverified: how many digits numbers print with while `format.asciiprecision` is 0.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from typing_extensions import override

from ..array.terminals import Place
from .command_index import SERIES_2450, name_constants, stand_in
from .instrument import TspInstrument
from .lua_library import text_at
from .lua_values import Attribute, LuaError, LuaTable, TspError, Value, number, to_number, to_string
from .services import bits

ON, OFF = "smu.ON", "smu.OFF"
FUNCTIONS = {
    "smu.FUNC_DC_VOLTAGE": "VOLT",
    "smu.FUNC_DC_CURRENT": "CURR",
    "smu.FUNC_RESISTANCE": "RES",
}
OFF_MODES = {
    "smu.OFFMODE_NORMAL": "NORM",
    "smu.OFFMODE_ZERO": "ZERO",
    "smu.OFFMODE_HIGHZ": "HIMP",
    "smu.OFFMODE_GUARD": "GUAR",
}
TERMINALS = {"smu.TERMINALS_FRONT": "FRON", "smu.TERMINALS_REAR": "REAR"}
SENSES = {"smu.SENSE_2WIRE": "0", "smu.SENSE_4WIRE": "1"}
SWITCH = {OFF: "0", ON: "1"}
AVERAGES = {"smu.FILTER_REPEAT_AVG": "REP", "smu.FILTER_MOVING_AVG": "MOV"}
UNITS = {
    "smu.UNIT_VOLT": "VOLT",
    "smu.UNIT_AMP": "AMP",
    "smu.UNIT_OHM": "OHM",
    "smu.UNIT_WATT": "WATT",
}
PROTECTION = {f"smu.PROTECT_{v}V": f"PROT{v}" for v in (2, 5, 10, *range(20, 200, 20))}
PROTECTION["smu.PROTECT_NONE"] = "NONE"
RANGES = {"smu.RANGE_AUTO": "AUTO", "smu.RANGE_BEST": "BEST", "smu.RANGE_FIXED": "FIX"}
BLOCKS = {
    "BUFFER_CLEAR": "BUFF:CLE",
    "MEASURE": "MEAS",
    "MEASURE_DIGITIZE": "MEAS",
    "SOURCE_OUTPUT": "SOUR:STAT",
    "DELAY_CONSTANT": "DEL:CONS",
    "BRANCH_ALWAYS": "BRAN:ALW",
    "BRANCH_COUNTER": "BRAN:COUN",
    "BRANCH_ONCE": "BRAN:ONCE",
    "BRANCH_ONCE_EXCLUDED": "BRAN:ONCE:EXCL",
    "BRANCH_ON_EVENT": "BRAN:EVEN",
    "CONFIG_RECALL": "CONF:REC",
    "CONFIG_NEXT": "CONF:NEXT",
    "CONFIG_PREV": "CONF:PREV",
    "NOTIFY": "NOT",
    "NOP": "NOP",
    "WAIT": "WAIT",
}
"""Blocks of the trigger model: what follows `:TRIGger:BLOCk:`."""
EVENT = re.compile(r"trigger\.EVENT_(NOTIFY|DIGIO|COMMAND)(\d*)")
COLUMNS = {
    "readings": "READ",
    "sourcevalues": "SOUR",
    "relativetimestamps": "REL",
    "statuses": "STAT",
    "units": "UNIT",
    "sourceunits": "SOURUNIT",
    "sourcestatuses": "SOURSTAT",
    "formattedreadings": "FORM",
    "sourceformattedvalues": "SOURFORM",
    "dates": "DATE",
    "times": "TIME",
    "timestamps": "TST",
    "seconds": "SEC",
    "fractionalseconds": "FRAC",
}
"""Sub-tables of a buffer: the element of `:TRACe:DATA?`."""
ABSENT = ("extraformattedvalues", "extravalues", "extravalueunits", "fillmode", "logstate")
"""Names of a buffer that are not simulated."""


class Engine(Protocol):
    """The simulated instrument as its SCPI commands know it."""

    model: str
    place: Place
    function: str
    """What it forces: "VOLT" or "CURR"."""
    sensed: str
    queue: deque[Any]
    """Its errors, with `code` and `text`."""

    @property
    def outputs_on(self) -> bool:
        """Whether the output is on."""

    def identification(self) -> str:
        """Reply to `*IDN?`."""

    def scpi(self, line: str) -> str | bytes:
        """Answer a message in SCPI."""


class Tsp2450(TspInstrument):
    """What a simulated 2450 is while TSP is its command set. `engine` carries commands out."""

    LEAST_PRECISION = 0

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._buffers = 0
        super().__init__(engine.model, engine.place)

    @property
    @override
    def outputs_on(self) -> bool:
        return self.engine.outputs_on

    @override
    def identification(self) -> str:
        return self.engine.identification()

    @override
    def reset(self) -> None:
        self.precision = 0
        self.engine.scpi("*RST")
        self.triggers.reset()

    @override
    def wait_complete(self) -> None:
        self.engine.scpi("*WAI")

    @override
    def shown(self, value: Value) -> str:
        is_number = isinstance(value, float) and self.precision == 0
        return to_string(value) if is_number else super().shown(value)

    def ask(self, line: str) -> str:
        """What the SCPI command gives. Raises `TspError` with its first error."""
        reply = self.engine.scpi(line)
        errors = list(self.engine.queue)
        self.engine.queue.clear()
        if errors:
            raise TspError(errors[0].code, errors[0].text)
        return reply if isinstance(reply, str) else reply.decode("latin-1")

    @override
    def build(self) -> None:
        self.globals.set("smu", self._smu())
        for name in ("defbuffer1", "defbuffer2"):
            self.globals.set(name, Buffer2450(self, name))
        self.globals.set("buffer", LuaTable({"make": self._make, "delete": self._delete}))
        self.globals.set("bit", bits())
        self.globals.set("errorqueue", None)
        self.globals.set("eventlog", self._event_log())
        self.globals.set("display", self._display())
        self.globals.set("beeper", LuaTable({"beep": self._beep}))
        self.globals.set("gpib", LuaTable(attributes={"address": (lambda: 18.0, None)}))
        timer = self.globals.get("timer")
        timer.fill({"cleartime": timer.get("reset"), "gettime": timer.get("measure").get("t")})
        self.globals.get("trigger").set("model", self._trigger_model())
        self.globals.get("tsplink").set("initialize", self.globals.get("tsplink").get("reset"))
        self.globals.set("status", LuaTable({"clear": self._clear, "preset": self._clear}))
        name_constants(self.globals, SERIES_2450)
        stand_in(self.globals, SERIES_2450, ())

    # Attributes that are SCPI commands

    def _number(self, header: Callable[[], str]) -> Attribute:
        def put(value: Value) -> None:
            self.ask(f"{header()} {number(value)!r}")

        return lambda: float(self.ask(f"{header()}?")), put

    def _word(self, header: Callable[[], str], words: Mapping[str, str]) -> Attribute:
        """An attribute whose values are constants."""
        names = {word: name for name, word in words.items()}

        def get() -> str:
            told = self.ask(f"{header()}?").strip('"').partition(":")[0]
            return names.get(told, told)

        def put(value: Value) -> None:
            plain = to_number(value)
            wanted = words.get(value if isinstance(value, str) else "")
            if wanted is None and words is SWITCH and plain in (0.0, 1.0):
                wanted = f"{plain:g}"
            if wanted is None:
                raise TspError(1115, "Parameter error: Illegal parameter value")
            quote = '"' if header().endswith("FUNC") else ""
            self.ask(f"{header()} {quote}{wanted}{quote}")

        return get, put

    def _told(self, header: str) -> Attribute:
        """A flag that can only be read."""
        return lambda: ON if self.ask(header) == "1" else OFF, None

    def _source(self, tail: str = "") -> Callable[[], str]:
        return lambda: f":SOUR:{self.engine.function}{tail}"

    def _sense(self, tail: str = "") -> Callable[[], str]:
        return lambda: f":SENS:{self.engine.sensed}{tail}"

    def _delays(self, of: Callable[[str], Callable[[], str]]) -> LuaTable:
        numbers = {float(n): self._number(of(f":DEL:USER{n}")) for n in range(1, 6)}
        return LuaTable(attributes=numbers, sealed=True)

    # The tables

    def _smu(self) -> LuaTable:
        terminals = self._word(lambda: ":ROUT:TERM", TERMINALS)
        return LuaTable(
            {
                "source": self._source_table(),
                "measure": self._measure_table(terminals),
                "interlock": LuaTable(
                    attributes={"tripped": self._told(":OUTP:INT:TRIP?")}, sealed=True
                ),
                "reset": lambda: self.ask("*RST") and None,
            },
            {"terminals": terminals},
            sealed=True,
        )

    def _source_table(self) -> LuaTable:
        limits = {
            f"{kind}limit": LuaTable(
                attributes={
                    "level": self._number(lambda h=header: h),  # type: ignore[misc]
                    "tripped": self._told(f"{header}:TRIP?"),
                },
                sealed=True,
            )
            for kind, header in (("i", ":SOUR:VOLT:ILIM"), ("v", ":SOUR:CURR:VLIM"))
        }
        protect = LuaTable(
            attributes={
                "level": self._word(lambda: ":SOUR:VOLT:PROT", PROTECTION),
                "tripped": self._told(":SOUR:VOLT:PROT:TRIP?"),
            },
            sealed=True,
        )
        sources = {name: word for name, word in FUNCTIONS.items() if word != "RES"}
        mode = self._word(lambda: ":SOUR:FUNC", sources)
        return LuaTable(
            {
                **limits,
                "protect": protect,
                "userdelay": self._delays(self._source),
                "configlist": self._lists(":SOUR"),
                "sweeplinear": partial(self._sweep, "LIN"),
                "sweeplinearstep": partial(self._sweep, "LIN:STEP"),
                "sweeplog": partial(self._sweep, "LOG"),
            },
            {
                "func": mode,
                "level": self._number(self._source()),
                "range": self._number(self._source(":RANG")),
                "autorange": self._word(self._source(":RANG:AUTO"), SWITCH),
                "delay": self._number(self._source(":DEL")),
                "autodelay": self._word(self._source(":DEL:AUTO"), SWITCH),
                "readback": self._word(self._source(":READ:BACK"), SWITCH),
                "highc": self._word(self._source(":HIGH:CAP"), SWITCH),
                "offmode": self._word(lambda: f":OUTP:{self.engine.function}:SMOD", OFF_MODES),
                "output": self._word(lambda: ":OUTP", SWITCH),
            },
            sealed=True,
        )

    def _measure_table(self, terminals: Attribute) -> LuaTable:
        autozero = LuaTable(
            {"once": lambda: self.ask(":SENS:AZER:ONCE") and None},
            {"enable": self._word(self._sense(":AZER"), SWITCH)},
            sealed=True,
        )
        averages = LuaTable(
            attributes={
                "enable": self._word(self._sense(":AVER"), SWITCH),
                "count": self._number(self._sense(":AVER:COUN")),
                "type": self._word(self._sense(":AVER:TCON"), AVERAGES),
            },
            sealed=True,
        )
        return LuaTable(
            {
                "autozero": autozero,
                "filter": averages,
                "userdelay": self._delays(self._sense),
                "configlist": self._lists(":SENS"),
                "read": self._read,
                "readwithtime": self._read_with_time,
            },
            {
                "func": self._word(lambda: ":SENS:FUNC", FUNCTIONS),
                "terminals": terminals,
                "sense": self._word(self._sense(":RSEN"), SENSES),
                "nplc": self._number(self._sense(":NPLC")),
                "range": self._number(self._sense(":RANG")),
                "autorange": self._word(self._sense(":RANG:AUTO"), SWITCH),
                "count": self._number(lambda: ":SENS:COUN"),
                "unit": self._word(self._sense(":UNIT"), UNITS),
                "offsetcompensation": self._word(lambda: ":SENS:RES:OCOM", SWITCH),
            },
            sealed=True,
        )

    # Functions

    def _buffer(self, value: Value) -> str:
        if value is None:
            return "defbuffer1"
        if not isinstance(value, Buffer2450):
            raise TspError(1115, "Parameter error: a reading buffer is expected")
        return value.name

    def _read(self, buffer: Value = None) -> float:
        return float(self.ask(f':READ? "{self._buffer(buffer)}"'))

    def _read_with_time(self, buffer: Value = None) -> tuple[float, ...]:
        name = self._buffer(buffer)
        reading = self._read(buffer)
        last = self.ask(f':TRAC:ACT? "{name}"')
        seconds = self.ask(f':TRAC:DATA? {last}, {last}, "{name}", SEC, FRAC')
        return (reading, *(float(word) for word in seconds.split(",")))

    def _sweep(
        self,
        how: str,
        _name: Value,
        first: Value,
        last: Value,
        points: Value,
        delay: Value = None,
        count: Value = None,
        ranging: Value = None,
        *rest: Value,
    ) -> None:
        """A sweep as its SCPI command takes it; what is left out keeps its default."""
        words = [f"{number(value)!r}" for value in (first, last)]
        step = how == "LIN:STEP"
        words.append(f"{number(points)!r}" if step else f"{int(number(points))}")
        for value in (delay, count):
            if value is None:
                break
            seconds = number(value)
            words.append(f"{seconds:g}" if value is not count else f"{int(seconds)}")
        if ranging is not None and len(words) == 5:
            words.append(RANGES.get(ranging, to_string(ranging)))
        if any(each is not None for each in rest):
            raise TspError(1115, "Parameter error: arguments after the range are not simulated")
        self.ask(f":SOUR:SWE:{self.engine.function}:{how} {', '.join(words)}")

    def _lists(self, root: str) -> LuaTable:
        """Lists of settings of the source or of measuring."""

        def act(word: str, name: Value, *rest: Value) -> None:
            places = "".join(f", {int(number(value))}" for value in rest if value is not None)
            self.ask(f'{root}:CONF:LIST:{word} "{text_at(name, 1, word.lower())}"{places}')

        def size(name: Value) -> float:
            return float(self.ask(f'{root}:CONF:LIST:SIZE? "{text_at(name, 1, "size")}"'))

        words = {"create": "CRE", "delete": "DEL", "store": "STOR", "recall": "REC"}
        return LuaTable({name: partial(act, word) for name, word in words.items()} | {"size": size})

    def _set_block(self, place: Value, kind: Value, *arguments: Value) -> None:
        block = text_at(kind, 2, "setblock").removeprefix("trigger.BLOCK_")
        header = BLOCKS.get(block)
        if header is None:
            raise LuaError(f"not simulated: trigger.model.setblock() - {kind}")
        words = [f"{int(number(place))}", *(_argument(block, each) for each in arguments)]
        self.ask(f":TRIG:BLOC:{header} {', '.join(words)}")

    def _trigger_model(self) -> LuaTable:
        def load(name: Value, *rest: Value) -> None:
            words = [f'"{text_at(name, 1, "load")}"']
            for value in rest:
                words.append(
                    f'"{value.name}"' if isinstance(value, Buffer2450) else f"{number(value):g}"
                )
            self.ask(f":TRIG:LOAD {', '.join(words)}")

        def state() -> tuple[str, str, float]:
            one, other, block = self.ask(":TRIG:STAT?").split(";")
            return f"trigger.STATE_{one}", f"trigger.STATE_{other}", float(block)

        return LuaTable(
            {
                "load": load,
                "setblock": self._set_block,
                "initiate": lambda: self.ask(":INIT") and None,
                "abort": lambda: self.ask(":ABOR") and None,
                "state": state,
            }
        )

    def _make(self, size: Value, _style: Value = None) -> Buffer2450:
        self._buffers += 1
        name = f"tsp{self._buffers}"
        self.ask(f':TRAC:MAKE "{name}", {int(number(size))}')
        return Buffer2450(self, name)

    def _delete(self, buffer: Value) -> None:
        self.ask(f':TRAC:DEL "{self._buffer(buffer)}"')

    def _event_log(self) -> LuaTable:
        def following(_severity: Value = None) -> tuple[Value, ...]:
            if not self.queue:
                return 0.0, "No error", 0.0, 0.0, 0.0, 0.0
            entry = self.queue.popleft()
            return float(entry.code), entry.text, 1.0, float(entry.node), self.now_s(), 0.0

        return LuaTable(
            {
                "next": following,
                "getcount": lambda _severity=None: float(len(self.queue)),
                "clear": lambda: self.queue.clear(),
            }
        )

    def _clear(self) -> None:
        self.queue.clear()
        self.esr = 0

    def _display(self) -> LuaTable:
        self.texts: dict[str, str] = {}

        def text(line: Value, words: Value) -> None:
            self.texts[to_string(line)] = text_at(words, 2, "settext")

        return LuaTable(
            {
                "clear": lambda: self.texts.clear(),
                "changescreen": lambda _screen: None,
                "settext": text,
            }
        )

    def _beep(self, seconds: Value, frequency: Value) -> None:
        number(frequency, 20.0, 8000.0)
        self.elapse(number(seconds, 0.001, 100.0))


def _argument(block: str, value: Value) -> str:
    """An argument of a trigger block as SCPI has it. Raises `LuaError` for an event that is not
    simulated.
    """
    if isinstance(value, Buffer2450):
        return f'"{value.name}"'
    if not isinstance(value, str):
        return f"{number(value):g}"
    if value in SWITCH:
        return SWITCH[value]
    if not value.startswith("trigger.EVENT_"):
        return f'"{value}"'
    event = EVENT.fullmatch(value)
    if event is None:
        raise LuaError(f"not simulated: {value}")
    return event[2] if block == "NOTIFY" else f"{event[1]}{event[2]}"


class Buffer2450(LuaTable):
    """A reading buffer: index it for readings; its sub-tables hold the rest."""

    lua_type = "reading_buffer"

    def __init__(self, unit: Tsp2450, name: str) -> None:
        super().__init__()
        self.name = name
        self._unit = unit
        self.is_native = True
        self.values = {column: Column2450(self, word) for column, word in COLUMNS.items()}
        self.values["clear"] = lambda: unit.ask(f':TRAC:CLE "{name}"') and None
        self.attributes = {
            "n": (lambda: float(self.length()), None),
            "capacity": (lambda: float(unit.ask(f':TRAC:POIN? "{name}"')), self._resize),
            "startindex": (lambda: float(min(self.length(), 1)), None),
            "endindex": (lambda: float(self.length()), None),
            **{each: (partial(_absent, each), partial(_absent, each)) for each in ABSENT},
        }
        self.sealed = True

    def _resize(self, size: Value) -> None:
        self._unit.ask(f':TRAC:POIN {int(number(size))}, "{self.name}"')

    def at(self, place: float, word: str) -> Value:
        """One element of a reading. Raises `TspError` beyond the last."""
        index = int(place)
        told = self._unit.ask(f':TRAC:DATA? {index}, {index}, "{self.name}", {word}')
        value = to_number(told)
        return told if value is None else value

    @override
    def get(self, key: Value) -> Value:
        if isinstance(key, int | float) and not isinstance(key, bool):
            return self.at(key, "READ")
        return super().get(key)

    @override
    def length(self) -> int:
        return int(self._unit.ask(f':TRAC:ACT? "{self.name}"'))


def _absent(name: str, *_: Value) -> Value:
    raise LuaError(f"not simulated: bufferVar.{name}")


class Column2450(LuaTable):
    """One element of every reading of a buffer."""

    lua_type = "synchronous_table"

    def __init__(self, buffer: Buffer2450, word: str) -> None:
        super().__init__()
        self._buffer = buffer
        self._word = word
        self.is_native = True
        self.define("n", lambda: float(buffer.length()))

    @override
    def length(self) -> int:
        return self._buffer.length()

    @override
    def get(self, key: Value) -> Value:
        if isinstance(key, int | float) and not isinstance(key, bool):
            return self._buffer.at(key, self._word)
        return super().get(key)
