"""The Lua of simulated TSP instruments: the language, its library, errors and the queue, scripts,
printing, time.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.drivers.simulated.array.terminals import Bus, Place
from rram_hil.drivers.simulated.tsp.instrument import (
    LuaTable,
    TspError,
    TspInstrument,
    Value,
    number,
)


class Probe(TspInstrument):
    """The smallest TSP instrument: one level with limits, one function that fails, one that gives
    two values.
    """

    MODELS = ("9000",)
    level = 0.0

    def build(self) -> None:
        source = LuaTable({"ON": 1.0})
        source.define("level", lambda: self.level, self._put)
        source.define("busy", lambda: False)
        source.sealed = True
        self.globals.set(
            "unit", LuaTable({"source": source, "both": lambda: (1.0, 2.0), "fail": self._fail})
        )

    def _put(self, value: Value) -> None:
        self.level = number(value, -10.0, 10.0)

    def _fail(self, *_: Value) -> None:
        raise TspError(5007, "Operation would exceed safe operating area of the instrument")

    def reset(self) -> None:
        self.level = 0.0

    @property
    def outputs_on(self) -> bool:
        return self.level != 0.0


@pytest.fixture
def unit() -> Probe:
    return Probe("9000", Place())


def lines(unit: Probe, *messages: str) -> list[str]:
    """What the messages print, line by line."""
    found: list[str] = []
    for message in messages:
        reply = unit.message(message)
        assert isinstance(reply, bytes)
        found += reply.decode("latin-1").split("\n") if reply else []
    return found


def value(unit: Probe, code: str) -> str:
    """The one line that code prints, with no error."""
    (line,) = lines(unit, code)
    assert not unit.queue, list(unit.queue)
    return line


def error(unit: Probe) -> tuple[int, str]:
    """The oldest error, which must be the only one."""
    (only,) = unit.queue
    unit.queue.clear()
    return only.code, only.text


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("1", "1.00000e+00"),
        ("-1e-9", "-1.00000e-09"),
        (".5 + 2", "2.50000e+00"),
        ("2^3^2", "5.12000e+02"),
        ("-2^2", "-4.00000e+00"),
        ("2^-1", "5.00000e-01"),
        ("1 + 2 * 3 - 4 / 2", "5.00000e+00"),
        ("1 .. 2 .. 'a'", "12a"),
        ("0.1 .. ''", "0.1"),
        ("'10' + 1", "1.10000e+01"),
        ("1 < 2 == true", "true"),
        ("1 ~= 1", "false"),
        ("not nil", "true"),
        ("nil and 1", "nil"),
        ("false or 'x'", "x"),
        ("0 and 'zero is true'", "zero is true"),
        ("nil == false", "false"),
        ("1 == true", "false"),
        ("'b' > 'a'", "true"),
        ("(unit.both())", "1.00000e+00"),
        ("unit.both()", "1.00000e+00\t2.00000e+00"),
        ("unit.both(), 3", "1.00000e+00\t3.00000e+00"),
        ("type(unit), type(print), type(nil), type('')", "table\tfunction\tnil\tstring"),
        ("tostring(12), tonumber(' 0x'), tonumber('1e3')", "12\tnil\t1.00000e+03"),
        ("tonumber('ff', 16)", "2.55000e+02"),
        (
            "math.max(1, 3, 2), math.floor(-1.5), math.mod(7, 3)",
            "3.00000e+00\t-2.00000e+00\t1.00000e+00",
        ),
        ("math.sqrt(-1)", "nan"),
        ("math.pow(-8, 1 / 3), (-8) ^ (1 / 3), math.pow(-2, 3)", "nan\tnan\t-8.00000e+00"),
        ("math.pow(0, -1), math.pow(-10, 401), math.pow(-10, 400)", "inf\t-inf\tinf"),
        ("1 / 0, -1 / 0", "inf\t-inf"),
        ("string.format('%5.2f|%d|%s|%e|%%', 1.234, 7, 'q', 1e-9)", " 1.23|7|q|1.000000e-09|%"),
        ("string.sub('hello', 2, -2), string.len('abc')", "ell\t3.00000e+00"),
        ("string.find('a=5', '(%a)=(%d)')", "1.00000e+00\t3.00000e+00\ta\t5"),
        ("string.gsub('1,2,3', ',', ';', 1)", "1;2,3\t1.00000e+00"),
        ("string.upper('ab') .. string.rep('-', 3)", "AB---"),
        ("table.getn({4, 5, 6}), table.concat({1, 2}, '+')", "3.00000e+00\t1+2"),
        ("unpack({1, 2})", "1.00000e+00\t2.00000e+00"),
        ("({a = {b = 7}}).a.b", "7.00000e+00"),
        ("({[1] = 'x', 'y'})[1]", "y"),
        ("bit.bitand(6, 3), bit.test(4, 3)", "2.00000e+00\ttrue"),
        ("[[long\nstring]] .. '\\65\\n'", "long"),
    ],
)
def test_an_expression_prints_as_the_instrument_prints_it(
    unit: Probe, expression: str, shown: str
) -> None:
    assert lines(unit, f"print({expression})")[0] == shown
    assert not unit.queue


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("local a, b, c = 1, 2 print(a, b, c)", "1.00000e+00\t2.00000e+00\tnil"),
        ("a, b = 1, 2 a, b = b, a print(a, b)", "2.00000e+00\t1.00000e+00"),
        (
            "local t = {1, 2} local i = 1 i, t[i] = 2, 9 print(t[1], t[2])",
            "9.00000e+00\t2.00000e+00",
        ),
        ("s = 0 for i = 1, 10 do s = s + i end print(s)", "5.50000e+01"),
        ("s = '' for i = 3, 1, -1 do s = s .. i end print(s)", "321"),
        ("s = 0 for k, v in pairs({a = 1, b = 2}) do s = s + v end print(s)", "3.00000e+00"),
        ("s = '' for i, v in ipairs({'x', 'y', nil, 'z'}) do s = s .. i .. v end print(s)", "1x2y"),
        ("s = 0 for k, v in {5, 6} do s = s + v end print(s)", "1.10000e+01"),
        ("i = 0 while true do i = i + 1 if i > 4 then break end end print(i)", "5.00000e+00"),
        ("i = 0 repeat i = i + 1 until i == 3 print(i)", "3.00000e+00"),
        ("x = 2 if x == 1 then print('a') elseif x == 2 then print('b') else print('c') end", "b"),
        (
            "function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end print(f(12))",
            "1.44000e+02",
        ),
        (
            "local function g(a, ...) return arg.n, arg[2] end print(g(1, 2, 3))",
            "2.00000e+00\t3.00000e+00",
        ),
        (
            "t = {n = 1} function t:add(k) self.n = self.n + k end t:add(4) print(t.n)",
            "5.00000e+00",
        ),
        ("t = {u = {}} function t.u.f(x) return x end print(t.u.f('y'))", "y"),
        ("do local x = 1 end print(x)", "nil"),
        (
            (
                "local fs = {} for i = 1, 3 do fs[i] = function() return i end end print(fs[1](),"
                " fs[3]())"
            ),
            "1.00000e+00\t3.00000e+00",
        ),
        (
            (
                "local function c() local n = 0 return function() n = n + 1 return n end end local"
                " k = c() k() print(k())"
            ),
            "2.00000e+00",
        ),
        ("print(pcall(function() error('no') end))", "false\tno"),
        ("print(pcall(function(a) return a end, 4))", "true\t4.00000e+00"),
        (
            "local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) print(t[1], t[3])",
            "3.00000e+00\t1.00000e+00",
        ),
        (
            (
                "local t = {} table.insert(t, 'a') table.insert(t, 1, 'b') print(table.remove(t),"
                " t[1])"
            ),
            "a\tb",
        ),
        ("x = 1 -- comment\nprint(x) --[[ long\n[[nested]] comment ]]", "1.00000e+00"),
        ("f = loadstring('return 1 + 1') print(f())", "2.00000e+00"),
        (
            (
                "f = makegetter(unit.source, 'level') g = makesetter(unit.source, 'level') g(3)"
                " print(f())"
            ),
            "3.00000e+00",
        ),
    ],
)
def test_a_chunk_runs_as_lua_runs_it(unit: Probe, code: str, shown: str) -> None:
    assert value(unit, code) == shown


@pytest.mark.parametrize(
    "code",
    [
        "print(1 +",
        "x = = 1",
        "for i = 1 do end",
        "if x then",
        "print('open)",
        "break",
        "f(",
        "print(#t)",
        "5 % 2",
        "x",
        "goto a",
    ],
)
def test_what_is_no_lua_of_this_instrument_runs_not_at_all(unit: Probe, code: str) -> None:
    assert lines(unit, f"print('before') {code}") == []
    number_, text = error(unit)
    assert number_ == -285
    assert text.startswith("TSP Syntax error at line 1: ")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("smuc.source.levelv = 1", "attempt to index global `smuc' (a nil value)"),
        ("unit.nothing()", "attempt to call field `nothing' (a nil value)"),
        ("unit.source.levl = 1", "attempt to set undefined attribute `levl'"),
        ("unit.source.busy = true", "attribute `busy' is read-only"),
        ("x = nil + 1", "attempt to perform arithmetic on a nil value"),
        ("x = 'a' .. {}", "attempt to concatenate a table value"),
        ("x = 1 < 'a'", "attempt to compare number with string"),
        ("error('mine')", "mine"),
        ("local t = {} t[nil] = 1", "table index is nil"),
    ],
)
def test_a_run_time_error_ends_the_chunk_and_names_its_cause(
    unit: Probe, code: str, text: str
) -> None:
    assert lines(unit, f"print('before') {code} print('after')") == ["before"]
    assert error(unit) == (-286, f"TSP Runtime error at line 1: {text}")


def test_an_error_of_a_command_goes_to_the_queue_and_the_script_goes_on(unit: Probe) -> None:
    assert lines(unit, "unit.source.level = 99 print(unit.source.level) print(unit.fail())") == [
        "0.00000e+00",
        "",
    ]
    assert [(e.code, e.text) for e in unit.queue] == [
        (1101, "Parameter Too Big"),
        (5007, "Operation would exceed safe operating area of the instrument"),
    ]
    assert lines(unit, "print(errorqueue.count)", "print(errorqueue.next())") == [
        "2.00000e+00",
        "1.10100e+03\tParameter Too Big\t2.00000e+01\t1.00000e+00",
    ]
    assert lines(unit, "errorqueue.clear() print(errorqueue.next())") == [
        "0.00000e+00\tQueue Is Empty\t0.00000e+00\t0.00000e+00"
    ]


def test_an_endless_loop_ends_in_an_error(unit: Probe) -> None:
    assert lines(unit, "pcall(function() while true do end end) print('never')") == []
    assert error(unit)[0] == -286


def test_a_recursion_without_end_ends_in_an_error(unit: Probe) -> None:
    lines(unit, "function f() return 1 + f() end f()")
    assert error(unit) == (-286, "TSP Runtime error at line 1: stack overflow")


def test_the_queue_is_bounded_and_says_so(unit: Probe) -> None:
    unit.fill_queue()
    assert len(unit.queue) == unit.QUEUE
    assert unit.queue[-1].code == -350
    assert lines(unit, "*STB?") == ["4"]


def test_the_line_of_an_error_is_told(unit: Probe) -> None:
    lines(unit, "loadandrunscript", "local a = {}", "", "a.b.c = 2", "endscript")
    assert error(unit) == (
        -286,
        "TSP Runtime error at line 3: attempt to index field `b' (a nil value)",
    )


def test_scripts_are_loaded_named_run_and_aborted(unit: Probe) -> None:
    assert (
        lines(
            unit,
            "loadscript greet",
            "function hello(who)",
            "print('hello ' .. who)",
            "end",
            "endscript",
        )
        == []
    )
    assert lines(unit, "hello('a')") == []
    assert error(unit)[0] == -286
    assert lines(unit, "greet() hello('a')", "greet.run() hello('b')") == ["hello a", "hello b"]
    assert lines(unit, "print(script.user.scripts.greet.name)") == ["greet"]
    assert lines(unit, "loadandrunscript", "print('now')", "endscript", "script.run()") == [
        "now",
        "now",
    ]
    assert lines(unit, "loadscript lost", "print('never')", "abort", "print('free')") == ["free"]
    assert lines(unit, "loadscript bad", "x = = 1", "endscript") == []
    assert error(unit)[0] == -285
    lines(unit, "loadscript half", "x = 1")
    unit.clear()
    assert lines(unit, "print('a new connection')") == ["a new connection"]


def test_numbers_print_with_the_precision_and_format_chosen(unit: Probe) -> None:
    assert value(unit, "format.asciiprecision = 10 print(1/3)") == "3.333333333e-01"
    assert value(unit, "format.asciiprecision = 3 printnumber(1, 2e-7)") == "1.00e+00, 2.00e-07"
    assert (
        value(unit, "printbuffer(2, 3, {5, 6, 7}, {1, 2, 3})")
        == "6.00e+00, 2.00e+00, 7.00e+00, 3.00e+00"
    )
    for name, kind, order in (
        ("REAL32", "f", "LITTLEENDIAN"),
        ("REAL64", "d", "BIGENDIAN"),
        ("SREAL", "f", "SWAPPED"),
        ("DREAL", "d", "NORMAL"),
    ):
        code = f"format.data = format.{name} format.byteorder = format.{order} printnumber(1.5, -2)"
        sign = "<" if order in ("LITTLEENDIAN", "SWAPPED") else ">"
        assert unit.message(code) == b"#0" + struct.pack(f"{sign}2{kind}", 1.5, -2.0)
    assert lines(unit, "reset() print(format.asciiprecision, format.data)") == [
        "6.00000e+00\t1.00000e+00"
    ]


def test_a_buffer_is_not_printed_beyond_its_end(unit: Probe) -> None:
    assert lines(unit, "printbuffer(1, 4, {5, 6, 7})") == []
    assert error(unit) == (-222, "Parameter Data Out of Range")


def test_common_commands(unit: Probe) -> None:
    assert lines(unit, "*IDN?") == ["Keithley Instruments Inc., Model 9000, SIM0001, 3.3.5"]
    assert lines(unit, "*ESE 36", "*ESE?", "*SRE 32", "*SRE?", "*OPC?", "*TST?") == [
        "36",
        "32",
        "1",
        "0",
    ]
    assert lines(unit, "*CLS", "*OPC", "*ESR?", "*ESR?") == ["1", "0"]
    lines(unit, "unit.source.level = 1", "*RST")
    assert unit.level == 0.0
    lines(unit, "*NOPE")
    assert error(unit) == (-113, "Undefined header")
    assert lines(unit, "x = = 1", "*STB?") == [
        "100"
    ]  # error available, event summary, master summary
    unit.queue.clear()
    unit.pretends = "ESPRESSO"
    assert lines(unit, "print(localnode.model)") == ["ESPRESSO"]


def test_prompts_and_shown_errors(unit: Probe) -> None:
    lines(unit, "localnode.prompts = 1")
    assert lines(unit, "print(1)") == ["1.00000e+00", "TSP>"]
    assert lines(unit, "x = = 1") == ["TSP?"]
    assert lines(unit, "loadscript a") == [">>>>"]
    assert lines(unit, "endscript", "localnode.prompts = 0 errorqueue.clear()") == ["TSP?"]
    lines(unit, "localnode.showerrors = 1")
    assert lines(unit, "unit.source.level = 99") == ["1101, Parameter Too Big"]
    assert not unit.queue


def test_time_is_virtual(unit: Probe) -> None:
    assert float(
        value(unit, "timer.reset() delay(3600) print(timer.measure.t())")
    ) == pytest.approx(3600, abs=1e-3)
    assert (
        float(value(unit, "format.asciiprecision = 16 a = os.time() delay(2) print(os.time() - a)"))
        == 2.0
    )
    # A script that waits by looking at the clock gets there.
    assert (
        value(unit, "timer.reset() repeat until timer.measure.t() > 0.05 print('there')") == "there"
    )


def test_a_timer_fires_its_events_in_virtual_time(unit: Probe) -> None:
    code = (
        "trigger.timer[1].delay = 0.5 trigger.timer[1].count = 3 trigger.timer[1].stimulus ="
        " trigger.generator[1].EVENT_ID timer.reset() trigger.generator[1].assert()"
        " print(trigger.timer[1].wait(1)) print(timer.measure.t())"
        " print(trigger.timer[1].wait(0.2), trigger.timer[1].wait(1), trigger.timer[1].wait(1),"
        " trigger.timer[1].wait(1))"
    )
    came, at_s, waits = lines(unit, code)
    assert (came, float(at_s)) == ("true", pytest.approx(0.5, abs=1e-3))
    assert waits == "false\ttrue\ttrue\tfalse"


def test_another_node_is_reached_over_tsp_link() -> None:
    bus = Bus()
    one, two = (
        Probe("9000", Place(name="one", bus=bus)),
        Probe("9000", Place(name="two", bus=bus, serial="77")),
    )
    bus.nodes = {1: one, 5: two}
    assert (
        value(
            one, "node[5].unit.source.level = 4 print(node[5].unit.source.level, node[5].serialno)"
        )
        == "4.00000e+00\t77"
    )
    assert (one.level, two.level) == (0.0, 4.0)
    assert (
        value(one, "print(tsplink.node, node[1].model, tsplink.reset())")
        == "1.00000e+00\t9000\t2.00000e+00"
    )
    assert value(two, "print(tsplink.node)") == "5.00000e+00"
    lines(one, "node[9].unit.source.level = 1")
    assert error(one)[0] == -286


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="()[]{}=+-*/^.,;:<>~'\"\\ \n0123456789eEabxnd#%", max_size=60))
def test_no_text_brings_the_instrument_down(text: str) -> None:
    unit = Probe("9000", Place())
    for line in text.split("\n"):
        unit.message(line)
    unit.queue.clear()
    unit.clear()
    assert lines(unit, "print('alive')")[-1] == "alive"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e30, 1e30, allow_subnormal=False), min_size=1, max_size=20))
def test_numbers_pass_through_lua_and_binary_unchanged(values: list[float]) -> None:
    unit = Probe("9000", Place())
    listed = ", ".join(repr(v) for v in values)
    reply = unit.message(
        f"format.data = format.REAL64 local t = {{{listed}}} printbuffer(1, {len(values)}, t)"
    )
    assert isinstance(reply, bytes)
    assert not unit.queue
    assert list(struct.unpack(f"<{len(values)}d", reply[2:])) == values


def test_a_reply_without_end_ends_in_an_error(unit: Probe) -> None:
    unit.message("local s = string.rep('x', 100000) while true do print(s) end")
    assert error(unit) == (-286, "TSP Runtime error at line 1: not enough memory")
