"""The compiler of Lua 5.0 as TSP instruments run it: source text becomes Python closures, which a
`Machine` calls.

Written from the Lua 5.0 reference manual and from "TSP Programming Fundamentals" of the Keithley
Series 2600 reference manual (2600S-901-01 Rev. A, p. 2-57 at manualslib.com: operators and their
precedence): there is no `#`, `%` or string method in this Lua. Left out: coroutines, `require`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from .lua_values import (
    LONGEST_STRING,
    EndlessError,
    LuaError,
    LuaSyntaxError,
    LuaTable,
    TspError,
    Value,
    equal,
    lua_next,
    normal,
    to_number,
    to_string,
    type_name,
)

Frame = list[Any]
Expression = Callable[[Frame], Value]
Statement = Callable[[Frame], Any]
MOST_STEPS = 2_000_000
"""Loop turns and calls of one message after which it is taken for endless."""
_KEYWORDS = frozenset(
    {
        "and",
        "break",
        "do",
        "else",
        "elseif",
        "end",
        "false",
        "for",
        "function",
        "if",
        "in",
        "local",
        "nil",
        "not",
        "or",
        "repeat",
        "return",
        "then",
        "true",
        "until",
        "while",
    }
)
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\f\v]+)|(?P<newline>\n)|(?P<comment>--(?!\[\[)[^\n]*)|(?P<long>(?:--)?\[\[)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"""|(?P<string>"(?:[^"\\\n]|\\.|\\\n)*"|'(?:[^'\\\n]|\\.|\\\n)*')"""
    r"|(?P<op>\.\.\.|\.\.|==|~=|<=|>=|[-+*/^=<>(){}\[\];:,.])",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": "\n"}


class LuaFunction:
    """A function written in Lua, closed over its variables."""

    __slots__ = ("cells", "code")

    def __init__(self, code: _Code, cells: list[tuple[int, list[Value]]]) -> None:
        self.code = code
        self.cells = cells

    def __call__(self, *arguments: Value) -> tuple[Value, ...]:
        """Run it with Lua values."""
        return self.code.run(self.cells, arguments)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    value: Value = None


@lru_cache(maxsize=256)  # every instrument of a family reads the same scripts
def _tokens(source: str) -> tuple[_Token, ...]:
    tokens: list[_Token] = []
    at, line = 0, 1
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            what = "unfinished string" if source[at] in "\"'" else "unexpected symbol"
            raise LuaSyntaxError(f"{what} near `{source[at]}'", line)
        kind, text = str(match.lastgroup), match.group()
        end = match.end()
        if kind == "long":
            depth, scan = 1, end
            while depth:
                step = re.compile(r"\[\[|\]\]").search(source, scan)
                if step is None:
                    raise LuaSyntaxError(
                        f"unfinished long {'comment' if text[0] == '-' else 'string'} near `<eof>'",
                        line,
                    )
                depth += 1 if step.group() == "[[" else -1
                scan = step.end()
            if text == "[[":
                body = source[end : scan - 2].replace("\r\n", "\n")
                tokens.append(_Token("string", "[[", line, body.removeprefix("\n")))
            line += source.count("\n", at, scan)
            at = scan
            continue
        if kind == "name":
            tokens.append(_Token("keyword" if text in _KEYWORDS else "name", text, line))
        elif kind == "number":
            tokens.append(_Token("number", text, line, float(text)))
        elif kind == "string":
            tokens.append(_Token("string", text, line, _unescape(text[1:-1])))
        elif kind == "op":
            tokens.append(_Token("op", text, line))
        line += source.count("\n", at, end)
        at = end
    tokens.append(_Token("end", "<eof>", line))
    return tuple(tokens)


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        word = match[1]
        return chr(int(word) & 255) if word.isdigit() else _ESCAPES.get(word, word)

    return re.sub(r"\\(\d{1,3}|.)", one, text, flags=re.DOTALL)


class _Break:
    """What a block gives back after `break`."""


_BREAK = _Break()


@dataclass(eq=False)
class _Local:
    """A local variable: its place in the frame; `boxed` once an inner function uses it, so that it
    outlives the block.
    """

    slot: int
    boxed: bool = False


@dataclass(eq=False)
class _Scope:
    """One function while it is compiled."""

    parent: _Scope | None
    slots: int = 0
    blocks: list[dict[str, _Local]] = field(default_factory=lambda: [{}])
    upvalues: dict[_Local, _Local] = field(default_factory=dict)

    def declare(self, name: str) -> _Local:
        local = _Local(self.slots)
        self.slots += 1
        self.blocks[-1][name] = local
        return local

    def find(self, name: str) -> _Local | None:
        for block in reversed(self.blocks):
            if name in block:
                return block[name]
        outer = self.parent.find(name) if self.parent else None
        if outer is None:
            return None
        outer.boxed = True
        if outer not in self.upvalues:
            self.upvalues[outer] = _Local(self.slots, boxed=True)
            self.slots += 1
        return self.upvalues[outer]


class _Code:
    """A compiled function."""

    def __init__(
        self, machine: Machine, scope: _Scope, parameters: list[_Local], rest: _Local | None
    ) -> None:
        self.machine = machine
        self.scope = scope
        self.parameters = parameters
        self.rest = rest
        self.body: Statement = _nothing

    def run(
        self, cells: list[tuple[int, list[Value]]], arguments: tuple[Value, ...]
    ) -> tuple[Value, ...]:
        self.machine.step()
        frame: Frame = [None] * self.scope.slots
        for slot, cell in cells:
            frame[slot] = cell
        given = len(arguments)
        for at, local in enumerate(self.parameters):
            value = arguments[at] if at < given else None
            frame[local.slot] = [value] if local.boxed else value
        if self.rest is not None:
            more = arguments[len(self.parameters) :]
            table = LuaTable({at + 1: v for at, v in enumerate(more)} | {"n": float(len(more))})
            frame[self.rest.slot] = [table] if self.rest.boxed else table
        result = self.body(frame)
        return result if type(result) is tuple else ()


def _nothing(_: Frame) -> None:
    return None


@dataclass
class _Node:
    """An expression while it is compiled: how to get its value; what it is, for calls, assignments
    and messages.
    """

    get: Expression
    line: int
    kind: str = "value"
    name: str = ""
    many: Callable[[Frame], tuple[Value, ...]] | None = None
    """All values of a call, where it is one."""
    set: Callable[[Frame, Value], None] | None = None
    pair: Callable[[Frame], tuple[Value, Value]] | None = None
    """Table and key of an index expression, for assignments that evaluate before they store."""

    @property
    def called(self) -> str:
        """How a message names it."""
        return f"{self.kind} `{self.name}'" if self.name else ""


class Machine:
    """Compiles and runs chunks over one table of globals. `push` takes the errors of commands;
    `step` is called each turn; `ran` lets the time of so many turns pass.
    """

    def __init__(
        self,
        global_table: LuaTable,
        push: Callable[[int, str], None],
        ran: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.globals = global_table
        self.push = push
        self.ran = ran
        self.steps = 0
        self._spent = 0
        self.line = 0

    def begin(self) -> None:
        """A new message: the count of steps starts again."""
        self.spend()
        self.steps = self._spent = 0

    def spend(self) -> None:
        """Let the time of the turns since the last time pass: before anything of the instrument is
        looked at, set or called.
        """
        if turns := self.steps - self._spent:
            self._spent = self.steps
            self.ran(turns)

    def step(self) -> None:
        """One loop turn or call. Raises `EndlessError`."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise EndlessError("script does not end: it was stopped", self.line)

    def compile(self, source: str) -> LuaFunction:
        """A chunk as a function without parameters. Raises `LuaSyntaxError`."""
        try:
            code = _Compiler(self, source).chunk()
        except RecursionError:
            raise LuaSyntaxError("chunk has too many syntax levels", 1) from None
        return LuaFunction(code, [])

    def index(self, table: Value, key: Value, line: int, called: str) -> Value:
        """`table[key]`, by way of `__index` where it has none."""
        while True:
            if not isinstance(table, LuaTable):
                raise LuaError(
                    f"attempt to index {called or 'a value'} (a {type_name(table)} value)", line
                )
            if table.attributes:
                self.spend()
            try:
                value = table.get(key)
            except TspError as error:
                self.push(error.code, error.text)
                return None
            except LuaError as error:
                error.line = error.line or line
                raise
            if value is not None or table.metatable is None:
                return value
            handler = table.metatable.get("__index")
            if handler is None:
                return None
            if not isinstance(handler, LuaTable):
                return _first(self.call(handler, (table, key), line, "`__index'"))
            table, called = handler, "`__index'"

    def store(self, table: Value, key: Value, value: Value, line: int, called: str) -> None:
        """`table[key] = value`, by way of `__newindex` where it has none."""
        while True:
            if not isinstance(table, LuaTable):
                raise LuaError(
                    f"attempt to index {called or 'a value'} (a {type_name(table)} value)", line
                )
            if table.metatable is None or key in table.values:
                _store(self, table, key, value, line)
                return
            handler = table.metatable.get("__newindex")
            if handler is None:
                _store(self, table, key, value, line)
                return
            if not isinstance(handler, LuaTable):
                self.call(handler, (table, key, value), line, "`__newindex'")
                return
            table, called = handler, "`__newindex'"

    def handled(self, event: str, x: Value, y: Value, line: int) -> tuple[Value, ...] | None:
        """What a metatable of one of two operands makes of an operation; None where none does."""
        for value in (x, y):
            if isinstance(value, LuaTable) and value.metatable is not None:
                handler = value.metatable.get(event)
                if handler is not None:
                    return self.call(handler, (x, y), line, f"`{event}'") or (None,)
        return None

    def text(self, value: Value) -> str:
        """What `tostring` gives, by way of `__tostring`."""
        made = self.handled("__tostring", value, None, self.line)
        return to_string(value if made is None else made[0])

    def call(
        self, function: Value, arguments: tuple[Value, ...], line: int, called: str
    ) -> tuple[Value, ...]:
        """Call a value; a command's own error goes to the queue and gives nothing."""
        if type(function) is LuaFunction:
            return function.code.run(function.cells, arguments)
        if isinstance(function, LuaTable):
            handler = function.metatable and function.metatable.get("__call")
            if handler is not None:
                return self.call(handler, (function, *arguments), line, "`__call'")
            function = function.on_call
        if not callable(function):
            raise LuaError(
                f"attempt to call {called or 'a value'} (a {type_name(function)} value)", line
            )
        self.line = line
        self.spend()
        try:
            return normal(function(*arguments))
        except TspError as error:
            self.push(error.code, error.text)
            return ()
        except LuaError as error:
            error.line = error.line or line
            raise
        except (TypeError, ValueError, OverflowError) as error:
            # What Python says of too few or too many arguments means nothing to who wrote the Lua.
            why = "" if isinstance(error, TypeError) else f": {error}"
            raise LuaError(f"bad argument to {called or 'a function'}{why}", line) from None


class _Compiler:
    """One chunk: a recursive descent over its tokens that gives closures."""

    LEVELS: tuple[tuple[str, ...], ...] = (("or",), ("and",), ("<", ">", "<=", ">=", "~=", "=="))

    def __init__(self, machine: Machine, source: str) -> None:
        self.machine = machine
        self.tokens = _tokens(source)
        self.at = 0
        self.scope = _Scope(None)
        self.loops = 0

    # The tokens

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def is_next(self, *texts: str) -> bool:
        token = self.token
        return token.kind in ("op", "keyword") and token.text in texts

    def take(self, *texts: str) -> bool:
        if self.is_next(*texts):
            self.at += 1
            return True
        return False

    def expect(self, text: str, opened: _Token | None = None) -> None:
        if not self.take(text):
            closing = (
                f" (to close `{opened.text}' at line {opened.line})"
                if opened and opened.line != self.token.line
                else ""
            )
            raise self.wrong(f"`{text}' expected{closing}")

    def expect_name(self) -> str:
        if self.token.kind != "name":
            raise self.wrong("<name> expected")
        self.at += 1
        return self.tokens[self.at - 1].text

    def wrong(self, text: str) -> LuaSyntaxError:
        return LuaSyntaxError(f"{text} near `{self.token.text}'", self.token.line)

    # Statements

    def chunk(self) -> _Code:
        code = _Code(self.machine, self.scope, [], None)
        code.body = self.block()
        if self.token.kind != "end":
            raise self.wrong("`<eof>' expected")
        return code

    def block(self) -> Statement:
        """Statements up to what ends a block, in a scope of their own."""
        self.scope.blocks.append({})
        body = self.statements()
        self.scope.blocks.pop()
        return body

    def statements(self) -> Statement:
        steps: list[Statement] = []
        while not self.is_next("end", "else", "elseif", "until") and self.token.kind != "end":
            last = self.is_next("return", "break")
            steps.append(self.statement())
            self.take(";")
            if last:
                break
        return _sequence(tuple(steps))

    def statement(self) -> Statement:
        token = self.token
        if token.kind == "keyword":
            do = {
                "if": self.if_,
                "while": self.while_,
                "do": self.do,
                "for": self.for_,
                "repeat": self.repeat,
                "function": self.function_statement,
                "local": self.local,
                "return": self.return_,
                "break": self.break_,
            }.get(token.text)
            if do is not None:
                self.at += 1
                return do(token)
        return self.call_or_assign()

    def do(self, opened: _Token) -> Statement:
        body = self.block()
        self.expect("end", opened)
        return body

    def if_(self, opened: _Token) -> Statement:
        cases: list[tuple[Expression, Statement]] = []
        otherwise: Statement | None = None
        condition = self.expression().get
        self.expect("then")
        cases.append((condition, self.block()))
        while True:
            if self.take("elseif"):
                condition = self.expression().get
                self.expect("then")
                cases.append((condition, self.block()))
            elif self.take("else"):
                otherwise = self.block()
                self.expect("end", opened)
                break
            else:
                self.expect("end", opened)
                break
        if len(cases) == 1:
            test, body = cases[0]
            other = otherwise or _nothing

            def single(frame: Frame) -> Any:
                value = test(frame)
                return other(frame) if value is None or value is False else body(frame)

            return single

        def run(frame: Frame) -> Any:
            for test, body in cases:
                value = test(frame)
                if value is not None and value is not False:
                    return body(frame)
            return otherwise(frame) if otherwise else None

        return run

    def while_(self, opened: _Token) -> Statement:
        test = self.expression().get
        self.expect("do")
        body = self.loop_block()
        self.expect("end", opened)
        step = self.machine.step

        def run(frame: Frame) -> Any:
            while (value := test(frame)) is not None and value is not False:
                step()
                result = body(frame)
                if result is not None:
                    if result is _BREAK:
                        return None
                    return result
            return None

        return run

    def repeat(self, opened: _Token) -> Statement:
        # In Lua 5.0 the condition does not see the locals of the body.
        body = self.loop_block()
        self.expect("until", opened)
        test = self.expression().get
        step = self.machine.step

        def run(frame: Frame) -> Any:
            while True:
                step()
                result = body(frame)
                if result is not None:
                    if result is _BREAK:
                        return None
                    return result
                value = test(frame)
                if value is not None and value is not False:
                    return None

        return run

    def loop_block(self) -> Statement:
        self.loops += 1
        body = self.block()
        self.loops -= 1
        return body

    def for_(self, opened: _Token) -> Statement:
        names = [self.expect_name()]
        if self.take("="):
            return self.for_numbers(names[0], opened)
        while self.take(","):
            names.append(self.expect_name())
        self.expect("in")
        given = self.expressions()
        self.expect("do")
        self.scope.blocks.append({})
        variables = [self.scope.declare(name) for name in names]
        body = self.loop_block()
        self.scope.blocks.pop()
        self.expect("end", opened)
        values = _values(given)
        machine, line = self.machine, opened.line

        def run(frame: Frame) -> Any:
            function, state, control = (*values(frame), None, None, None)[:3]
            if isinstance(function, LuaTable) and function.on_call is None:
                state, function = function, lua_next
            while True:
                machine.step()
                results = machine.call(function, (state, control), line, "for iterator")
                control = results[0] if results else None
                if control is None:
                    return None
                for at, variable in enumerate(variables):
                    value = results[at] if at < len(results) else None
                    frame[variable.slot] = [value] if variable.boxed else value
                result = body(frame)
                if result is not None:
                    return None if result is _BREAK else result

        return run

    def for_numbers(self, name: str, opened: _Token) -> Statement:
        first = self.expression().get
        self.expect(",")
        last = self.expression().get
        step = self.expression().get if self.take(",") else (lambda _: 1.0)
        self.expect("do")
        self.scope.blocks.append({})
        variable = self.scope.declare(name)
        body = self.loop_block()
        self.scope.blocks.pop()
        self.expect("end", opened)
        turn, line = self.machine.step, opened.line

        def run(frame: Frame) -> Any:
            at = to_number(first(frame))
            end = to_number(last(frame))
            by = to_number(step(frame))
            for value, what in ((at, "initial value"), (end, "limit"), (by, "step")):
                if value is None:
                    raise LuaError(f"`for' {what} must be a number", line)
            assert at is not None
            assert end is not None
            assert by is not None
            slot, boxed = variable.slot, variable.boxed
            while at <= end if by > 0 else at >= end:
                turn()
                frame[slot] = [at] if boxed else at
                result = body(frame)
                if result is not None:
                    return None if result is _BREAK else result
                at += by
            return None

        return run

    def function_statement(self, opened: _Token) -> Statement:
        target = self.variable(self.expect_name(), opened.line)
        method = False
        while self.is_next(".", ":"):
            method = self.take(":")
            if not method:
                self.at += 1
            target = self.index(
                target, _Node(_constant(name := self.expect_name()), opened.line), name
            )
            if method:
                break
        function = self.function_body(opened, method=method)
        store = target.set
        assert store is not None

        def run(frame: Frame) -> None:
            store(frame, function(frame))

        return run

    def local(self, opened: _Token) -> Statement:
        if self.take("function"):
            variable = self.scope.declare(self.expect_name())
            function = self.function_body(opened)

            def bind(frame: Frame) -> None:
                if variable.boxed:
                    frame[variable.slot] = cell = [None]
                    cell[0] = function(frame)
                else:
                    frame[variable.slot] = function(frame)

            return bind
        names = [self.expect_name()]
        while self.take(","):
            names.append(self.expect_name())
        given = self.expressions() if self.take("=") else []
        variables = [self.scope.declare(name) for name in names]
        if len(variables) == 1 and len(given) == 1:
            only, get = variables[0], given[0].get

            def one(frame: Frame) -> None:
                value = get(frame)
                frame[only.slot] = [value] if only.boxed else value

            return one
        values = _values(given)

        def run(frame: Frame) -> None:
            results = values(frame)
            for at, variable in enumerate(variables):
                value = results[at] if at < len(results) else None
                frame[variable.slot] = [value] if variable.boxed else value

        return run

    def return_(self, _: _Token) -> Statement:
        ended = self.is_next("end", "else", "elseif", "until", ";") or self.token.kind == "end"
        return _values([] if ended else self.expressions())

    def break_(self, token: _Token) -> Statement:
        if not self.loops:
            raise LuaSyntaxError("no loop to break near `break'", token.line)
        return lambda _: _BREAK

    def call_or_assign(self) -> Statement:
        line = self.token.line
        target = self.suffixed()
        if not self.is_next("=", ","):
            call = target.many
            if call is None:
                raise self.wrong("`=' expected" if target.set else "unexpected symbol")

            def run(frame: Frame) -> None:
                call(frame)

            return run
        targets = [target]
        while self.take(","):
            targets.append(self.suffixed())
        if any(t.set is None for t in targets):
            raise self.wrong("unexpected symbol")
        self.expect("=")
        given = self.expressions()
        if len(targets) == 1 and len(given) == 1:
            store, get = targets[0].set, given[0].get
            assert store is not None

            def one(frame: Frame) -> None:
                store(frame, get(frame))

            return one
        values = _values(given)
        machine = self.machine

        def several(frame: Frame) -> None:
            # Every table and key is evaluated before anything is stored.
            places = [t.pair(frame) if t.pair else None for t in targets]
            results = values(frame)
            for at in reversed(range(len(targets))):
                value = results[at] if at < len(results) else None
                place = places[at]
                if place is None:
                    store = targets[at].set
                    assert store is not None
                    store(frame, value)
                else:
                    machine.store(place[0], place[1], value, line, "")

        return several

    # Expressions

    def expressions(self) -> list[_Node]:
        nodes = [self.expression()]
        while self.take(","):
            nodes.append(self.expression())
        return nodes

    def expression(self, level: int = 0) -> _Node:
        if level == len(self.LEVELS):
            return self.concatenation()
        left = self.expression(level + 1)
        while self.is_next(*self.LEVELS[level]):
            token = self.token
            self.at += 1
            right = self.expression(level + 1)
            left = _binary(self.machine, left, right, token)
        return left

    def concatenation(self) -> _Node:
        left = self.arithmetic(("+", "-"))
        if self.is_next(".."):
            token = self.token
            self.at += 1
            left = _binary(self.machine, left, self.concatenation(), token)
        return left

    def arithmetic(self, operators: tuple[str, ...]) -> _Node:
        def operand() -> _Node:
            return self.arithmetic(("*", "/")) if operators == ("+", "-") else self.unary()

        left = operand()
        while self.is_next(*operators):
            token = self.token
            self.at += 1
            left = _binary(self.machine, left, operand(), token)
        return left

    def unary(self) -> _Node:
        token = self.token
        if self.take("not"):
            get = self.unary().get
            return _Node(lambda frame: (v := get(frame)) is None or v is False, token.line)
        if self.take("-"):
            inner = self.unary()
            get, machine = inner.get, self.machine

            def negative(frame: Frame) -> Value:
                value = get(frame)
                number = value if type(value) is float else to_number(value)
                if number is not None:
                    return -number
                made = machine.handled("__unm", value, value, token.line)
                if made is None:
                    raise _operand_error("perform arithmetic on", value, inner, token.line)
                return made[0]

            return _Node(negative, token.line)
        return self.power()

    def power(self) -> _Node:
        base = self.simple()
        if self.is_next("^"):
            token = self.token
            self.at += 1
            # The exponent may carry a sign and is right associative.
            base = _binary(self.machine, base, self.unary(), token)
        return base

    def simple(self) -> _Node:
        token = self.token
        if token.kind in ("number", "string"):
            self.at += 1
            return _Node(_constant(token.value), token.line)
        if self.take("nil"):
            return _Node(_constant(None), token.line)
        if self.take("true"):
            return _Node(_constant(True), token.line)
        if self.take("false"):
            return _Node(_constant(False), token.line)
        if self.take("function"):
            return _Node(self.function_body(token), token.line)
        if self.is_next("{"):
            return _Node(self.table(), token.line)
        return self.suffixed()

    def suffixed(self) -> _Node:
        token = self.token
        if token.kind == "name":
            self.at += 1
            node = self.variable(token.text, token.line)
        elif self.take("("):
            inner = self.expression()
            self.expect(")", token)
            node = _Node(inner.get, token.line)
        else:
            raise self.wrong("unexpected symbol")
        while True:
            token = self.token
            if self.take("."):
                name = self.expect_name()
                node = self.index(node, _Node(_constant(name), token.line), name)
            elif self.take("["):
                key = self.expression()
                self.expect("]", token)
                node = self.index(node, key, "")
            elif self.take(":"):
                node = self.method(node, self.expect_name(), token.line)
            elif self.is_next("(", "{") or token.kind == "string":
                node = self.call(node, self.arguments(), token.line)
            else:
                return node

    def arguments(self) -> list[_Node]:
        token = self.token
        if token.kind == "string":
            self.at += 1
            return [_Node(_constant(token.value), token.line)]
        if self.is_next("{"):
            return [_Node(self.table(), token.line)]
        self.expect("(")
        if self.take(")"):
            return []
        nodes = self.expressions()
        self.expect(")", token)
        return nodes

    def variable(self, name: str, line: int) -> _Node:
        local = self.scope.find(name)
        if local is None:
            table, machine = self.machine.globals, self.machine

            def get(_: Frame) -> Value:
                value = table.values.get(name)
                return machine.index(table, name, line, name) if value is None else value

            def put(_: Frame, value: Value) -> None:
                machine.store(table, name, value, line, name)

            return _Node(get, line, "global", name, set=put)
        slot = local.slot

        # Whether a later function uses the variable is known only when the whole text is read.
        def load(frame: Frame) -> Value:
            return frame[slot][0] if local.boxed else frame[slot]

        def store(frame: Frame, value: Value) -> None:
            if local.boxed:
                frame[slot][0] = value
            else:
                frame[slot] = value

        return _Node(load, line, "local", name, set=store)

    def index(self, table: _Node, key: _Node, name: str) -> _Node:
        owner, machine, line = table.get, self.machine, key.line
        of, called = key.get, table.called

        def get(frame: Frame) -> Value:
            table, key = owner(frame), of(frame)
            if type(table) is LuaTable and (value := table.values.get(key)) is not None:
                return value
            return machine.index(table, key, line, called)

        def store(frame: Frame, value: Value) -> None:
            machine.store(owner(frame), of(frame), value, line, called)

        return _Node(
            get, line, "field", name, set=store, pair=lambda frame: (owner(frame), of(frame))
        )

    def call(self, function: _Node, given: list[_Node], line: int) -> _Node:
        get, values, call, called = function.get, _values(given), self.machine.call, function.called

        def many(frame: Frame) -> tuple[Value, ...]:
            return call(get(frame), values(frame), line, called)

        def first(frame: Frame) -> Value:
            results = call(get(frame), values(frame), line, called)
            return results[0] if results else None

        return _Node(first, line, many=many)

    def method(self, owner: _Node, name: str, line: int) -> _Node:
        values, machine = _values(self.arguments()), self.machine
        get_owner, called = owner.get, owner.called

        def many(frame: Frame) -> tuple[Value, ...]:
            table = get_owner(frame)
            function = machine.index(table, name, line, called)
            return machine.call(function, (table, *values(frame)), line, f"method `{name}'")

        def first(frame: Frame) -> Value:
            results = many(frame)
            return results[0] if results else None

        return _Node(first, line, many=many)

    def table(self) -> Expression:
        opened = self.token
        self.expect("{")
        places: list[tuple[Expression, Expression]] = []
        listed: list[_Node] = []
        while not self.take("}"):
            token = self.token
            if self.take("["):
                key = self.expression().get
                self.expect("]", token)
                self.expect("=")
                places.append((key, self.expression().get))
            elif (
                token.kind == "name"
                and self.tokens[self.at + 1].text == "="
                and self.tokens[self.at + 1].kind == "op"
            ):
                self.at += 2
                places.append((_constant(token.text), self.expression().get))
            else:
                listed.append(self.expression())
            if not self.take(",", ";"):
                self.expect("}", opened)
                break
        values = _values(listed)

        def make(frame: Frame) -> LuaTable:
            table = LuaTable()
            for key, value in places:
                table.set(key(frame), value(frame))
            for at, item in enumerate(values(frame)):
                table.set(at + 1, item)
            return table

        return make

    def function_body(self, opened: _Token, *, method: bool = False) -> Expression:
        """Parameters and body of a function: an expression that gives the closure."""
        scope = self.scope = _Scope(self.scope)
        loops, self.loops = self.loops, 0
        parameters = [scope.declare("self")] if method else []
        rest: _Local | None = None
        self.expect("(")
        while not self.take(")"):
            if self.take("..."):
                rest = scope.declare("arg")
                self.expect(")")
                break
            parameters.append(scope.declare(self.expect_name()))
            if not self.take(","):
                self.expect(")")
                break
        code = _Code(self.machine, scope, parameters, rest)
        code.body = self.block()
        self.expect("end", opened)
        assert scope.parent is not None
        self.scope, self.loops = scope.parent, loops
        pairs = [(outer.slot, inner.slot) for outer, inner in scope.upvalues.items()]

        def make(frame: Frame) -> LuaFunction:
            return LuaFunction(code, [(inner, frame[outer]) for outer, inner in pairs])

        return make


def _sequence(statements: tuple[Statement, ...]) -> Statement:
    if not statements:
        return _nothing
    if len(statements) == 1:
        return statements[0]

    def run(frame: Frame) -> Any:
        for statement in statements:
            result = statement(frame)
            if result is not None:
                return result
        return None

    return run


def _constant(value: Value) -> Expression:
    return lambda _: value


def _values(nodes: list[_Node]) -> Callable[[Frame], tuple[Value, ...]]:
    """All values of a list of expressions: one each, all of the last where it is a call."""
    if not nodes:
        return lambda _: ()
    *heads, last = nodes
    gets = [node.get for node in heads]
    if last.many is not None:
        many = last.many
        if not gets:
            return many
        return lambda frame: (*[get(frame) for get in gets], *many(frame))
    every = [*gets, last.get]
    if len(every) == 1:
        only = every[0]
        return lambda frame: (only(frame),)
    return lambda frame: tuple([get(frame) for get in every])


def _first(values: tuple[Value, ...]) -> Value:
    return values[0] if values else None


def _store(machine: Machine, table: LuaTable, key: Value, value: Value, line: int) -> None:
    machine.line = line
    if table.attributes:
        machine.spend()
    try:
        table.set(key, value)
    except TspError as error:
        machine.push(error.code, error.text)
    except LuaError as error:
        error.line = error.line or line
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise LuaError(f"bad value for `{key}': {error}", line) from None


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _power(a: float, b: float) -> float:
    try:
        result = float(a) ** float(b)
    except OverflowError:
        return math.inf
    except ZeroDivisionError:
        return math.inf
    return math.nan if isinstance(result, complex) else result


def _operand_error(what: str, value: Value, node: _Node, line: int) -> LuaError:
    kind = f"a {type_name(value)} value"
    return LuaError(f"attempt to {what} {f'{node.called} ({kind})' if node.called else kind}", line)


def _and(_: Machine, left: _Node, right: _Node, __: int) -> Expression:
    a, b = left.get, right.get
    return lambda frame: b(frame) if (v := a(frame)) is not None and v is not False else v


def _or(_: Machine, left: _Node, right: _Node, __: int) -> Expression:
    a, b = left.get, right.get
    return lambda frame: v if (v := a(frame)) is not None and v is not False else b(frame)


def _is_equal(machine: Machine, x: Value, y: Value, line: int) -> bool:
    if equal(x, y):
        return True
    if not (isinstance(x, LuaTable) and isinstance(y, LuaTable)):
        return False
    if x.metatable is None or y.metatable is None:
        return False
    handler = x.metatable.get("__eq")
    if handler is None or handler is not y.metatable.get("__eq"):
        return False
    return _first(machine.call(handler, (x, y), line, "`__eq'")) not in (None, False)


def _equal(machine: Machine, left: _Node, right: _Node, line: int) -> Expression:
    a, b = left.get, right.get
    return lambda frame: _is_equal(machine, a(frame), b(frame), line)


def _unequal(machine: Machine, left: _Node, right: _Node, line: int) -> Expression:
    a, b = left.get, right.get
    return lambda frame: not _is_equal(machine, a(frame), b(frame), line)


def compare(machine: Machine, sign: str, x: Value, y: Value, line: int) -> bool:
    """`x < y` and its like. Raises `LuaError` for values that have no order."""
    kinds = type_name(x), type_name(y)
    if kinds[0] == kinds[1] and kinds[0] in ("number", "string"):
        return bool(_ORDER[sign](x, y))
    if sign in (">", ">="):
        return compare(machine, sign.replace(">", "<"), y, x, line)
    made = machine.handled("__lt" if sign == "<" else "__le", x, y, line)
    if made is None and sign == "<=":
        # As Lua 5.0 does: not y < x.
        made = machine.handled("__lt", y, x, line)
        made = made and (made[0] in (None, False),)
    if made is not None:
        return made[0] not in (None, False)
    if kinds[0] != kinds[1]:
        raise LuaError(f"attempt to compare {kinds[0]} with {kinds[1]}", line)
    raise LuaError(f"attempt to compare two {kinds[0]} values", line)


def _ordered(sign: str, machine: Machine, left: _Node, right: _Node, line: int) -> Expression:
    a, b = left.get, right.get
    work = _ORDER[sign]

    def run(frame: Frame) -> bool:
        x, y = a(frame), b(frame)
        if type(x) is float and type(y) is float:
            return bool(work(x, y))
        return compare(machine, sign, x, y, line)

    return run


def _joined(machine: Machine, left: _Node, right: _Node, line: int) -> Expression:
    a, b = left.get, right.get

    def run(frame: Frame) -> Value:
        x, y = a(frame), b(frame)
        for value, node in ((x, left), (y, right)):
            if type_name(value) not in ("number", "string"):
                made = machine.handled("__concat", x, y, line)
                if made is None:
                    raise _operand_error("concatenate", value, node, line)
                return made[0]
        text = to_string(x) + to_string(y)
        if len(text) > LONGEST_STRING:
            raise LuaError("not enough memory", line)
        return text

    return run


def _arithmetic(
    event: str,
    work: Callable[[float, float], float],
    machine: Machine,
    left: _Node,
    right: _Node,
    line: int,
) -> Expression:
    a, b = left.get, right.get

    def run(frame: Frame) -> Value:
        x, y = a(frame), b(frame)
        if type(x) is float and type(y) is float:
            return work(x, y)
        m, n = to_number(x), to_number(y)
        if m is None or n is None:
            made = machine.handled(event, x, y, line)
            if made is None:
                value, node = (x, left) if m is None else (y, right)
                raise _operand_error("perform arithmetic on", value, node, line)
            return made[0]
        return work(m, n)

    return run


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_BINARY: dict[str, Callable[[Machine, _Node, _Node, int], Expression]] = {
    "and": _and,
    "or": _or,
    "==": _equal,
    "~=": _unequal,
    "..": _joined,
    **{sign: partial(_ordered, sign) for sign in _ORDER},
    "+": partial(_arithmetic, "__add", operator.add),
    "-": partial(_arithmetic, "__sub", operator.sub),
    "*": partial(_arithmetic, "__mul", operator.mul),
    "/": partial(_arithmetic, "__div", _divide),
    "^": partial(_arithmetic, "__pow", _power),
}


def _binary(machine: Machine, left: _Node, right: _Node, token: _Token) -> _Node:
    return _Node(_BINARY[token.text](machine, left, right, token.line), token.line)
