"""Commands of the simulated Series 2600B beside sourcing and measuring: the global table and
metatables, what is not simulated, the front panel, status registers, strings, queues, setups.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rram_hil.drivers.simulated.array.terminals import Bus, Place, Resistor
from rram_hil.drivers.simulated.keithley_2600b import Simulated2600B
from rram_hil.drivers.simulated.tsp.command_index import SERIES_2600B, entries, expanded
from rram_hil.drivers.simulated.tsp.lua_values import LuaTable
from rram_hil.errors import ConfigError

Told = Callable[..., list[str]]


@pytest.fixture
def unit() -> Simulated2600B:
    return Simulated2600B("2602B", Place("smu", Bus(), {"a": Resistor(1e4), "b": Resistor(1e5)}))


def run(unit: Simulated2600B, *messages: str) -> list[str]:
    """What the messages print, line by line."""
    told: list[str] = []
    for message in messages:
        reply = unit.message(message.replace("\n", " "))
        assert isinstance(reply, bytes)
        told += reply.decode("latin-1").split("\n") if reply else []
    return told


def said(unit: Simulated2600B, *messages: str) -> list[str]:
    """The same, and no error came."""
    told = run(unit, *messages)
    assert not unit.queue, list(unit.queue)
    return told


def error(unit: Simulated2600B) -> str:
    """Text of the only error."""
    (only,) = unit.queue
    unit.queue.clear()
    return only.text


# The language


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("t = setmetatable({}, {__index = function(_, k) return k .. '!' end}) print(t.a)", "a!"),
        ("t = setmetatable({}, {__index = {a = {b = 'deep'}}}) print(t.a.b)", "deep"),
        ("s = {} t = setmetatable({}, {__newindex = s}) t.a = 'x' print(rawget(t, 'a'), s.a)",
         "nil\tx"),
        (
            "t = setmetatable({}, {__newindex = function(t, k, v) rawset(t, k, v .. v) end})"
            " t.a = 'x' print(t.a)",
            "xx",
        ),
        ("t = setmetatable({}, {__call = function(self, a) return a end}) print(t('y'))", "y"),
        ("m = {__add = function(a, b) return 'sum' end} print(setmetatable({}, m) + 1)", "sum"),
        ("m = {__unm = function(a) return 'minus' end} print(-setmetatable({}, m))", "minus"),
        ("m = {__concat = function(a, b) return 'cat' end} print('a' .. setmetatable({}, m))",
         "cat"),
        (
            "m = {__eq = function() return true end} print(setmetatable({}, m) =="
            " setmetatable({}, m), setmetatable({}, m) ~= setmetatable({}, {}))",
            "true\ttrue",
        ),
        (
            "m = {__lt = function(a, b) return a.n < b.n end} a, b = setmetatable({n = 1}, m),"
            " setmetatable({n = 2}, m) print(a < b, a > b, a <= b, b <= a)",
            "true\tfalse\ttrue\tfalse",
        ),
        ("t = setmetatable({}, {__tostring = function() return 'me' end}) print(t, tostring(t))",
         "me\tme"),
        ("print(getmetatable(setmetatable({}, {__metatable = 'locked'})))", "locked"),
        ("c = {} c.__index = c function c:hi() return self.n end"
         " print(setmetatable({n = 'o'}, c):hi())", "o"),
        ("print(xpcall(function() error('no') end, function(e) return e .. '?' end))",
         "false\tno?"),
        ("print(string.find('f(a(b)c)d', '%b()'))", "2.00000e+00\t8.00000e+00"),
        ("print(string.gsub('hello hello', '(h)(e)(l+)', '%3%2%1'))", "lleho lleho\t2.00000e+00"),
        ("print(string.find('say \"it\"', '([\"\\'])(.-)%1'))", '5.00000e+00\t8.00000e+00\t"\tit'),
        ("print(string.gsub('  trim me ', '^%s*(.-)%s*$', '%1'))", "trim me\t1.00000e+00"),
        ("for w in string.gfind('a1 b22', '%a(%d+)') do print(w) end", "1"),
        ("print(string.find('abc', '()b()'))",
         "2.00000e+00\t2.00000e+00\t2.00000e+00\t3.00000e+00"),
        ("print(string.gsub('abc', '%w', {'x'} and '<%0>'))", "<a><b><c>\t3.00000e+00"),
        ("print(string.gsub('x = 1', '[^%w=]+', ''))", "x=1\t2.00000e+00"),
    ],
)  # fmt: skip
def test_lua_has_metatables_and_patterns(unit: Simulated2600B, code: str, shown: str) -> None:
    assert said(unit, code)[0] == shown


@pytest.mark.parametrize(
    "code",
    [
        "string.find('a', '(a')",
        "string.find('a', '[a')",
        "string.find('a', '%')",
        "string.find('a', 'a)')",
        "setmetatable(smua, {})",
        "setmetatable(setmetatable({}, {__metatable = 1}), {})",
        "print({} < {})",
        "print(setmetatable({}, {}) + 1)",
    ],
)
def test_what_lua_refuses_ends_the_chunk(unit: Simulated2600B, code: str) -> None:
    assert run(unit, code + " print('after')") == []
    assert error(unit).startswith("TSP Runtime error")


def test_print_of_nothing_is_an_empty_line(unit: Simulated2600B) -> None:
    assert unit.reply("print()") == b"\n"
    assert unit.reply("print() print()") == b"\n\n"
    assert unit.reply("x = 1") == b""


# The global table and what is not simulated


def test_the_global_table_is_a_table(unit: Simulated2600B) -> None:
    assert said(unit, "x = 5 print(_G.x, _G._G == _G, _G.smua == smua)") == [
        "5.00000e+00\ttrue\ttrue"
    ]
    assert said(unit, "_G['y'] = 'z' print(y, rawget(_G, 'never'))") == ["z\tnil"]
    names = said(unit, "for name in _G do print(name) end")
    assert {"smua", "smub", "print", "status", "lan", "tspnet", "SweepVLinMeasureI"} <= set(names)


def test_an_instruments_own_table_shows_itself_in_its_metatable(unit: Simulated2600B) -> None:
    assert said(unit, "print(next(smua), next(smua.source))") == ["nil\tnil"]
    shown = said(unit, "for _, part in {'Getters', 'Setters', 'Objects'} do"
                 " print(next(getmetatable(smua)[part]) ~= nil) end")  # fmt: skip
    assert shown == ["true"] * 3
    code = "m = getmetatable(smua.source) print(type(m.Getters.levelv), type(m.Setters.levelv),"
    assert said(unit, code + " type(m.Setters.compliance), m.Objects.levelv)") == [
        "function\tfunction\tnil\tnil"
    ]
    assert said(unit, "print(getmetatable(smua.nvbuffer1).luatype)") == ["reading_buffer"]
    assert said(unit, "m.Setters.levelv(2) print(smua.source.levelv, m.Getters.levelv())") == [
        "2.00000e+00\t2.00000e+00"
    ]
    assert said(unit, "print(getmetatable({}), getmetatable('s'))") == ["nil\tnil"]


def has(table: LuaTable, parts: list[str]) -> bool:
    """Whether a name is there, or the indexed table that holds it is refused as a whole."""
    first, *rest = parts
    key = first.removesuffix("()").partition("[")[0]
    if key in table.attributes:
        return not rest or "[" in first
    inner = table.values.get(key)
    if not rest:
        return inner is not None
    members = list(inner.values.values())[:1] if "[" in first else [inner]
    return all(isinstance(each, LuaTable) and has(each, rest) for each in members)


@pytest.mark.parametrize("model", ["2602B", "2636B", "2611B"])
def test_every_name_of_the_makers_index_is_there(model: str) -> None:
    unit = Simulated2600B(model, Place())
    missing = []
    for entry in entries(SERIES_2600B):
        if entry.startswith(("bufferVar", "scriptVar", "node[N]")):
            continue
        if entry.rpartition(".")[2] in ("SMUB", "SMUA_SMUB") and "b" not in unit.smus:
            continue
        missing += [n for n in expanded(entry, unit.smus) if not has(unit.globals, n.split("."))]
    assert missing == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("smua.cal.unlock('KI0026XX')", "smua.cal.unlock()"),
        ("print(smub.cal.state)", "smub.cal.state"),
        ("smua.cal.date = 1", "smua.cal.date"),
        ("smua.measure.calibratev(1, 2, 3, 4, 5)", "smua.measure.calibratev()"),
        ("fs.mkdir('x')", "fs.mkdir()"),
        ("tspnet.connect('1.2.3.4')", "tspnet.connect()"),
        ("print(lan.trigger[1].EVENT_ID)", "lan.trigger[N].EVENT_ID"),
        ("gm_isweep()", "gm_isweep()"),
        ("print(display.ANNUNCIATOR_4_WIRE)", "display.ANNUNCIATOR_4_WIRE"),
    ],
)
def test_what_is_not_simulated_says_so(unit: Simulated2600B, code: str, name: str) -> None:
    run(unit, code)
    assert "not simulated: " in (told := error(unit))
    assert told.rpartition(": ")[2].split(".")[0] == name.split(".")[0]


def test_a_name_that_nobody_has_is_nil_as_in_lua(unit: Simulated2600B) -> None:
    assert said(unit, "print(smuc, smua.nothing, display.nothing)") == ["nil\tnil\tnil"]
    without = Simulated2600B("2614B", Place())
    assert said(without, "print(digio, tsplink, node, smua.contact)") == ["nil\tnil\tnil\tnil"]


# The front panel


def test_text_on_the_display(unit: Simulated2600B) -> None:
    said(unit, "display.clear() display.settext('Test $$1$N$Bsecond') display.setcursor(1, 6)")
    said(unit, "display.settext('two')")
    assert unit.panel.text == ("Test two", "second")
    assert said(unit, "print(display.getcursor()) print(display.gettext(false, 2, 1, 6))") == [
        "1.00000e+00\t9.00000e+00\t0.00000e+00",
        "second",
    ]


def test_a_person_answers_dialogs(unit: Simulated2600B) -> None:
    unit.act_at_panel(answers=["0.7", "smub", "", "EXIT", 3])
    told = said(
        unit,
        "print(display.prompt('0.00', 'V', 'Input 0 to +2V', 0.5, 0, 2))",
        "print(display.menu('Channel', 'smua smub'))",
        "print(display.inputvalue('+0.0', 1.5, -2, 2))",
        "print(display.prompt('0', ' W', 'leave me'))",
        "print(display.prompt('0', ' A', 'how many'))",
    )
    assert told == ["7.00000e-01", "smub", "1.50000e+00", "nil", "3.00000e+00"]
    run(unit, "display.menu('Who', 'a b')")
    assert "waits for an answer" in error(unit)
    unit.act_at_panel(answers=["5"])
    run(unit, "display.inputvalue('0.0', 1, 0, 2)")
    assert "'5' cannot be entered: a number from 0 to 2" in error(unit)
    unit.act_at_panel(keys=["menu", "Enter"])
    assert said(unit, "print(display.waitkey() == display.KEY_MENU, display.getlastkey() =="
                " display.KEY_ENTER)") == ["true\ttrue"]  # fmt: skip
    with pytest.raises(ConfigError, match="key 'ANY' is not one of"):
        unit.act_at_panel(keys=["any"])


def test_the_trig_key_starts_a_sweep(unit: Simulated2600B) -> None:
    sweep = (
        "smua.reset() smua.source.output = 1 smua.trigger.source.linearv(1, 3, 3)"
        " smua.trigger.source.action = 1 smua.trigger.measure.i(smua.nvbuffer1)"
        " smua.trigger.measure.action = 1 smua.trigger.count = 3"
        " smua.trigger.arm.stimulus = display.trigger.EVENT_ID smua.trigger.initiate()"
    )
    run(unit, sweep + " waitcomplete()")
    assert "never comes" in error(unit)
    run(unit, "smua.abort()")
    unit.act_at_panel(keys=["TRIG"])
    assert said(unit, sweep + " waitcomplete() print(smua.nvbuffer1.n)") == ["3.00000e+00"]
    said(unit, sweep)
    unit.act_at_panel(keys=["TRIG"])
    assert said(unit, "waitcomplete() print(smua.nvbuffer1.n)") == ["3.00000e+00"]
    assert said(unit, "timer.reset() print(display.trigger.wait(60))")[0] == "true"
    assert said(unit, "print(display.trigger.wait(60), timer.measure.t() > 60)") == ["false\ttrue"]


# Status


def test_a_sweep_shows_in_the_operation_registers(unit: Simulated2600B) -> None:
    said(
        unit,
        "status.reset() status.operation.sweeping.enable = status.operation.sweeping.SMUB"
        " status.operation.enable = status.operation.SWEEPING status.request_enable = status.OSB",
    )
    assert said(unit, "print(status.operation.sweeping.condition)", "*STB?") == ["0.00000e+00", "0"]
    said(
        unit,
        "smub.source.output = 1 smub.measure.nplc = 1 smub.trigger.source.linearv(0, 1, 5)"
        " smub.trigger.source.action = 1 smub.trigger.measure.v(smub.nvbuffer1)"
        " smub.trigger.measure.action = 1 smub.trigger.count = 5 smub.trigger.initiate()",
    )
    assert said(unit, "print(status.operation.sweeping.condition)", "*STB?") == [
        "4.00000e+00",
        "192",
    ]
    said(unit, "waitcomplete()")
    code = "print(status.operation.sweeping.condition, status.operation.sweeping.event)"
    assert said(unit, code, code) == ["0.00000e+00\t4.00000e+00", "0.00000e+00\t0.00000e+00"]


def test_a_limit_that_came_and_went_is_kept_as_an_event(unit: Simulated2600B) -> None:
    said(unit, "status.reset() status.measurement.current_limit.enable = 2"
         " smua.source.limiti = 1e-4 smua.source.output = 1")  # fmt: skip
    said(unit, "smua.source.levelv = 5 smua.measure.i() smua.source.levelv = 0 smua.measure.i()")
    limits = "status.measurement.instrument.smua"
    assert said(unit, f"print({limits}.condition, {limits}.event == {limits}.ILMT)") == [
        "0.00000e+00\ttrue"
    ]
    summary = "print(status.measurement.condition)"
    assert said(unit, summary) == ["2.00000e+00"]
    assert said(unit, "print(status.measurement.current_limit.event)") == ["2.00000e+00"]
    assert said(unit, summary) == ["0.00000e+00"]
    said(unit, "status.operation.user.condition = status.operation.user.BIT3")
    assert said(unit, "print(status.operation.user.event)") == ["8.00000e+00"]
    assert said(unit, "print(status.standard.OPC, status.MSS, status.system2.NODE15)") == [
        "1.00000e+00\t6.40000e+01\t2.00000e+00"
    ]


# What is kept


def test_strings_queues_setups_and_scripts(unit: Simulated2600B) -> None:
    said(unit, "userstring.add('asset', '77') userstring.add('who', 'me')")
    assert said(unit, "print(userstring.get('asset'), userstring.get('none'))") == ["77\tnil"]
    assert said(unit, "for name in userstring.catalog() do print(name) end") == ["asset", "who"]
    run(unit, "userstring.delete('none')")
    assert error(unit) == "Illegal Parameter Value"

    said(unit, "t = {1, {2}} dataqueue.add(t) t[2][1] = 9 dataqueue.add('b')")
    assert said(unit, "print(dataqueue.count, dataqueue.next()[2][1], dataqueue.next())") == [
        "2.00000e+00\t2.00000e+00\tb"
    ]
    assert said(unit, "timer.reset() print(dataqueue.next(2), timer.measure.t() > 1.9)") == [
        "nil\ttrue"
    ]
    code = (
        "while dataqueue.count < dataqueue.CAPACITY do dataqueue.add(1) end print(dataqueue.add(1))"
    )
    assert said(unit, code, "print(dataqueue.count)") == ["false", "1.28000e+02"]

    said(unit, "smua.source.levelv = 3 smua.measure.nplc = 5 setup.save(1) reset()")
    assert said(unit, "setup.recall(1) print(smua.source.levelv, smua.measure.nplc)") == [
        "3.00000e+00\t5.00000e+00"
    ]
    assert not unit.outputs_on
    run(unit, "setup.recall(2)")
    assert error(unit) == "File name not found"

    said(
        unit, "loadscript one", "print('one ran')", "endscript", "two = script.new('x = 2', 'two')"
    )
    assert said(unit, "for name in script.user.catalog() do print(name) end") == ["one", "two"]
    assert said(unit, "for name, s in script.user.scripts do print(name, s.autorun) end") == [
        "one\tno",
        "two\tno",
    ]
    assert said(unit, "one.run() script.delete('one')") == ["one ran"]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("print(bit.toggle(10, 3), bit.getfield(13, 2, 3))", "1.40000e+01\t6.00000e+00"),
        ("print(bit.setfield(15, 2, 3, 5), bit.bitxor(10, 9))", "1.10000e+01\t3.00000e+00"),
        ("print(bit.set(8, 1), bit.clear(9, 4), bit.get(10, 4), bit.test(10, 2))",
         "9.00000e+00\t1.00000e+00\t8.00000e+00\ttrue"),
        ("print(lan.status.ipaddress, lan.config.dns.address[1])", "127.0.0.1\t0.0.0.0"),
        ("print(gpib.address, eventlog.count, eventlog.next())", "2.60000e+01\t0.00000e+00\tnil"),
        ("localnode.description = 'bench 3' print(localnode.description)", "bench 3"),
        ("smua.contact.threshold = 100 print(smua.contact.check(), smua.contact.r() < 100)",
         "true\ttrue"),
    ],
)  # fmt: skip
def test_small_services(unit: Simulated2600B, code: str, shown: str) -> None:
    assert said(unit, code) == [shown]


@pytest.mark.parametrize("code", ["lan.config.ipaddress = '1.2.3.4'", "gpib.address = 5"])
def test_network_settings_are_read_only(unit: Simulated2600B, code: str) -> None:
    run(unit, code)
    assert "read-only" in error(unit)
