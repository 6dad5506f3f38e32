"""What the drivers of TSP instruments (Lua inside) share: code sent with a question for its errors,
scripts, binary buffers.

A message is one or more lines. The instrument compiles each line as a chunk of its own, and an
error ends that chunk alone. So the last line of every message asks for the length of the error
queue, and is answered whatever became of the lines before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.abilities import RunsScripts
from rram_hil.types import FloatArray

from .text import TextInstrument, combined, number_in

LONGEST_LINE = 1000
"""Characters of one line. No manual that was opened gives the limit (unverified); longer ones are
refused, nothing is sent.
"""
MOST_ERRORS = 200
"""Entries after which an error queue is not believed to be one."""
END = "errors"
"""First word of the line that ends every reply."""
COUNT_ERRORS = f'print("{END}", errorqueue.count)'
PROMPTS = frozenset({"TSP>", "TSP?", ">>>>"})
"""Lines that an instrument with `localnode.prompts` on sends between the replies: ready, ready with
errors, more script.
"""


class TspInstrument(TextInstrument, RunsScripts):
    """An instrument that runs Lua. `run` and `ask` are one transaction, errors included; `look`
    asks with `peek`.
    """

    @override
    def probe(self, nonce: int) -> tuple[str, str]:
        # `abort` first: a script that is still running would keep the answer back.
        return f'abort\nprint("step {nonce}")', f"step {nonce}"

    @override
    def question(self, nonce: int) -> tuple[str, Callable[[str], bool]]:
        answer = f"here {nonce}"
        # Prompts stand before an answer, on its own line or on one of theirs.
        return f'print("{answer}")', lambda line: line.removeprefix("TSP>").strip() == answer

    def run(self, code: str, *, takes_s: float = 0.0) -> None:
        """Run code that prints nothing, then raise what the error queue holds: one transaction.

        Code of several lines is one script, which an error ends. `takes_s` is how long it works.
        Raises `InstrumentError` with the error's code and text and this code; `LinkError` where it
        prints something.
        """
        printed = self.lines(code, takes_s=takes_s)
        if printed:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {code[:60]!r} was answered by {printed[0][:60]!r}")

    def ask(self, code: str, *, takes_s: float = 0.0) -> str:
        """Like `run` for code that prints one line: that line."""
        printed = self.lines(code, takes_s=takes_s)
        if len(printed) != 1:
            self.dialog.out_of_step()
            raise LinkError(
                f"{self.name}: {code[:60]!r} was answered by {len(printed)} lines, not 1"
            )
        return printed[0]

    def lines(self, code: str, *, takes_s: float = 0.0) -> list[str]:
        """Like `run` for code that prints any number of lines: those lines."""
        message = _message(code)
        _, replies = self.dialog.query_lines(message, END, takes_s=takes_s)
        return self.checked(replies, code)

    def peek(self, code: str) -> list[str]:
        """The lines that code prints, the error queue left as it is: what `connect` may do."""
        _, replies = self.dialog.query_lines(_message(code), END)
        return [line for line in replies[:-1] if line not in PROMPTS]

    def ask_buffers(
        self, code: str, buffers: str, readings: str, *, takes_s: float = 0.0
    ) -> FloatArray:
        """Run `code` (may be empty, prints nothing), then fetch reading buffers as binary: one
        transaction.

        `buffers` are the Lua names as `printbuffer` takes them, comma-separated (m of them);
        `readings` is a Lua expression for the number n of readings in each. Returns shape (n, m).
        Raises as `run`.
        """
        names = [name.strip() for name in buffers.split(",")]
        fetch = (
            f"local n = {readings}\n"
            f'print(string.format("%d", n * {len(names)}))\n'
            "format.byteorder = format.LITTLEENDIAN\n"
            "format.data = format.REAL64\n"
            f"if n > 0 then printbuffer(1, n, {', '.join(names)}) end\n"
            "format.data = format.ASCII"
        )
        data, replies = self.dialog.query_lines(
            _message(f"{code}\n{fetch}"), END, takes_s=takes_s, block_of=8
        )
        left = self.checked(replies, code or fetch)
        values = np.frombuffer(data, dtype="<f8").astype(np.float64)
        if len(left) != 1 or not left[0].isdigit() or int(left[0]) != values.size:
            self.dialog.out_of_step()
            raise LinkError(
                f"{self.name}: {values.size} values came where the instrument counts {left[:1]}"
            )
        return values.reshape(-1, len(names))

    def load(self, name: str, script: str) -> None:
        """Load a script as the global `name` and run it once, so that what it defines is there; it
        is never saved.

        Raises `InstrumentError` for what the instrument does not compile or run.
        """
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"script name {name!r}: it must be a Lua name")
        body = "\n".join(line for line in script.splitlines() if line.strip())
        message = _checked_lines(f"loadscript {name}\n{body}\nendscript\n{name}()\n{COUNT_ERRORS}")
        _, replies = self.dialog.query_lines(message, END)
        if self.checked(replies, f"loadscript {name}"):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: the script {name} prints where it should only define")

    def checked(self, replies: list[str], code: str) -> list[str]:
        """The printed lines of a reply, its last line (the error count) and prompts taken away;
        raises what the queue holds.
        """
        errors = self.errors() if _count(replies[-1], self.name) else []
        if errors:
            raise combined(errors, f"{errors[0]}, after {code[:120]!r}", code)
        return [line for line in replies[:-1] if line not in PROMPTS]

    @override
    def errors(self) -> list[InstrumentError]:
        """The whole error queue in one transaction."""
        code = (
            f"for i = 1, math.min(errorqueue.count, {MOST_ERRORS}) do print(errorqueue.next()) end"
        )
        _, replies = self.dialog.query_lines(f"{code}\n{COUNT_ERRORS}", END, quotes=True)
        if _count(replies[-1], self.name):
            raise LinkError(f"{self.name}: more than {MOST_ERRORS} errors and no end")
        return [self.error_of(line) for line in replies[:-1] if line not in PROMPTS]

    def error_of(self, line: str) -> InstrumentError:
        """An entry of the error queue (code, text, severity, node, with TABs between) as an
        exception.
        """
        fields = line.split("\t")
        try:
            number = int(number_in(fields[0], self.name))
        except LinkError:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {line[:60]!r} is no entry of an error queue") from None
        return InstrumentError(
            f"{self.name}: error {number}, {' '.join(fields[1:2])!r}", code=number
        )


def _message(code: str) -> str:
    """Code and the question for its errors: one line as it is, several as one anonymous script."""
    lines = [line for line in code.splitlines() if line.strip()]
    if len(lines) > 1:
        lines = ["loadandrunscript", *lines, "endscript"]
    return _checked_lines("\n".join([*lines, COUNT_ERRORS]))


def _checked_lines(message: str) -> str:
    longest = max(message.split("\n"), key=len)
    if len(longest) > LONGEST_LINE:
        raise ConfigError(
            f"a line of {len(longest)} characters, {longest[:60]!r}...: at most {LONGEST_LINE};"
            " send it as a script of several"
        )
    return message


def _count(line: str, name: str) -> int:
    try:
        return int(number_in(line.split("\t")[1], name))
    except (LinkError, IndexError):
        raise LinkError(f"{name}: {line[:60]!r} does not count errors") from None


def numbers(text: str) -> FloatArray:
    """Numbers of a printed line, with TABs (`print`) or commas (`printbuffer`) between. Raises
    `LinkError` where one is none.
    """
    try:
        return np.array(
            [float(word) for word in re.split(r"[\t,]\s*", text.strip())], dtype=np.float64
        )
    except ValueError:
        raise LinkError(f"the reply {text[:60]!r} is not a list of numbers") from None
