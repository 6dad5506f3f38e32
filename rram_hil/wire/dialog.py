"""Whole transactions with text instruments over a link: one lock, and command and reply in step."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator

from rram_hil.errors import LinkError
from rram_hil.wire.link import LARGEST_REPLY, Link
from rram_hil.wire.serial_port import SerialLink

Probe = Callable[[int], tuple[str, str]]
"""probe(nonce in 1..127) -> (query, its reply): a question whose reply nobody can have asked for
before.
"""
Question = Callable[[int], tuple[str, Callable[[str], bool]]]
"""question(nonce in 1..127) -> (query, whether a line is its reply): it changes nothing at all in
the instrument.
"""
MOST_NONCES = 127
PROOFS = 3
"""How often a link is asked to prove itself."""
MOST_LEFT_OVER = 10_000
"""Lines of earlier replies that are thrown away before the link counts as one that never stops."""


class Dialog:
    """Whole transactions with an instrument that takes lines of text; one lock around each.

    `probe` makes the question that proves the link in step after a timeout. `transactions` counts
    the turns on the link, `sent` and `received` bytes. A reply is awaited for `timeout_s` and
    `slack` times as long as the instrument says that it works.
    """

    slack = 1.5

    def __init__(
        self,
        link: Link,
        probe: Probe,
        *,
        timeout_s: float = 2.0,
        ending: bytes = b"\n",
    ) -> None:
        self.link = link
        self.lock = threading.RLock()
        self.timeout_s = timeout_s
        self.transactions = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self._probe = probe
        self._nonce = 0
        self._ending = ending
        self._in_step = True

    def open(self) -> None:
        """Open the link."""
        with self.lock:
            self.link.open()
            self._in_step = True

    def reopen(self, within_s: float) -> None:
        """Open a link that is gone, waiting for it as long as `within_s`; it is proved before its
        next use. Raises `LinkError`.
        """
        with self.lock:
            self.link.reopen(within_s)
            self._in_step = False

    def prove(self, question: Question, nonce: int) -> None:
        """Ask until the answer to this very question comes; what an earlier program had asked for,
        and what is left of it, is thrown away. Raises `LinkError` where it does not come.
        """
        with self.lock:
            last = b""
            for turn in range(PROOFS):
                query, is_answer = question((nonce + turn) % MOST_NONCES + 1)
                self.transactions += 1
                self._send(query)
                for _ in range(MOST_LEFT_OVER):
                    data = self.link.receive(LARGEST_REPLY, self.timeout_s, b"\n")
                    if is_answer(data.decode("latin-1").strip()):
                        self._in_step = True
                        return
                    if not data:
                        break
                    last = data
            said = f"it says {last[:60]!r}" if last else "it is silent"
            raise LinkError(
                f"what is there does not answer {query.splitlines()[-1]!r} as an instrument of this"
                f" family: {said}",
                where=self.link.resource,
            )

    def close(self) -> None:
        """Close the link. Never raises."""
        with self.lock:
            self.link.close()

    def write(self, command: str) -> None:
        """Send one message that has no reply. Raises `LinkError`."""
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            self._send(command)

    def query(self, command: str, *, takes_s: float = 0.0) -> str:
        """Send one message and return its one-line reply, endings stripped.

        `takes_s` is how long the instrument works before it answers; the timeout follows it. Raises
        `LinkError` for a timeout (the link is then brought back into step before its next use) or a
        reply that is no text.
        """
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                return self._line(command, takes_s)

    def query_block(self, command: str, *, takes_s: float = 0.0) -> bytes:
        """Send one message and return the data of its IEEE 488.2 definite-length block ("#",
        digits, length, data).
        """
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                return self._block(command, takes_s)

    def query_block_and_line(self, command: str, *, takes_s: float = 0.0) -> tuple[bytes, str]:
        """Like `query_block` for a message with two queries: the block, and the text that follows
        it behind ";".
        """
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                data = self._block(command, takes_s, last=False)
                return data, self._line(command, 0.0).lstrip(";")

    def query_lines(
        self,
        command: str,
        last: str | Callable[[str], bool],
        *,
        takes_s: float = 0.0,
        block_of: int = 0,
        quotes: bool = False,
    ) -> tuple[bytes, list[str]]:
        """Send one message of several lines and return the lines of its reply up to the one that
        begins with `last`, included.

        `last` may also be a function that is called once with each line and tells whether it is the
        last one. With `block_of`, a first line that is a number n may be followed by an
        indefinite-length block ("#0", n values of `block_of` bytes, line feed), whose data come
        first; else they are empty. `quotes`: lines may quote what the instrument was sent, which
        need not have been text; bytes that are none then stand as their escapes. Raises as `query`.
        """
        with self.lock:
            self._get_in_step()
            self.transactions += 1
            with self._out_of_step_on_error():
                self._send(command)
                lines = [self._line(command, takes_s, quotes=quotes)]
                data = b""
                if block_of and lines[0].isdigit() and int(lines[0]):
                    size = int(lines[0]) * block_of
                    if size > LARGEST_REPLY:
                        raise LinkError(
                            f"a data block of {size} bytes is not believed",
                            where=self.link.resource,
                        )
                    if (head := self._exactly(2, command)) == b"#0":
                        data = self._exactly(size, command)
                        self.bytes_received += size + 3
                        self._exactly(1, command)
                    else:
                        lines.append(
                            (head + self._line(command, 0.0).encode("latin-1")).decode("latin-1")
                        )
                while not (last(lines[-1]) if callable(last) else lines[-1].startswith(last)):
                    lines.append(self._line(command, takes_s, quotes=quotes))
                return data, lines

    def _send(self, command: str) -> None:
        data = command.encode("latin-1") + self._ending
        self.link.send(data)
        self.bytes_sent += len(data)

    def _line(self, command: str, takes_s: float, *, quotes: bool = False) -> str:
        timeout_s = self.timeout_s + self.slack * takes_s
        data = self.link.receive(LARGEST_REPLY, timeout_s, b"\n")
        self.bytes_received += len(data)
        if not data.endswith(b"\n"):
            # A message interface (GPIB, USB) may end a reply without a line feed.
            if (
                data
                and not isinstance(self.link, SerialLink)
                and not self.link.resource.upper().endswith("SOCKET")
            ):
                return data.decode("latin-1").strip()
            raise self._silent(command, timeout_s, data)
        try:
            return data.decode("ascii", "backslashreplace" if quotes else "strict").strip()
        except UnicodeDecodeError:
            raise LinkError(
                f"the reply to {command[:60]!r} is no text: {data[:40]!r}",
                where=self.link.resource,
            ) from None

    def _block(self, command: str, takes_s: float, *, last: bool = True) -> bytes:
        timeout_s = self.timeout_s + self.slack * takes_s
        head = self.link.receive(2, timeout_s)
        if len(head) < 2:
            raise self._silent(command, timeout_s, head)
        if head[:1] != b"#" or not head[1:].isdigit() or head == b"#0":
            raise LinkError(
                f"the reply to {command[:60]!r} is no data block: it begins {head!r}",
                where=self.link.resource,
            )
        digits = self._exactly(int(head[1:]), command)
        if not digits.isdigit() or int(digits) > LARGEST_REPLY:
            raise LinkError(
                f"a data block of {digits!r} bytes is not believed", where=self.link.resource
            )
        data = self._exactly(int(digits), command)
        self.bytes_received += len(head) + len(digits) + len(data)
        if last:
            self._exactly(1, command)
        return data

    def _exactly(self, count: int, command: str) -> bytes:
        data = b""
        while len(data) < count:
            part = self.link.receive(count - len(data), self.timeout_s)
            if not part:
                raise self._silent(command, self.timeout_s, data)
            data += part
        return data

    def _silent(self, command: str, timeout_s: float, data: bytes) -> LinkError:
        what = f"only {data[:40]!r} came" if data else "no reply"
        return LinkError(
            f"{what} to {command[:60]!r} within {timeout_s:.3g} s", where=self.link.resource
        )

    @contextlib.contextmanager
    def _out_of_step_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._in_step = False
            raise

    def out_of_step(self) -> None:
        """Say that the link may hold a reply that nobody waits for: it is drained and proved before
        its next use.
        """
        self._in_step = False

    def _get_in_step(self) -> None:
        """After a timeout: drain, then ask until the answer is the one to this very question."""
        if not self.link.is_open:
            raise LinkError("the link is not open", where=self.link.resource)
        if self._in_step:
            return
        self.link.drain()
        for _ in range(3):
            self._nonce = self._nonce % 127 + 1
            query, expected = self._probe(self._nonce)
            self.transactions += 1
            self._send(query)
            reply = (
                self.link.receive(LARGEST_REPLY, self.timeout_s, b"\n").decode("latin-1").strip()
            )
            if reply == expected:
                self._in_step = True
                return
            self.link.drain()
        raise LinkError(
            f"the instrument does not answer in step; last reply {reply[:60]!r}",
            where=self.link.resource,
        )


def number(value: float) -> str:
    """A number as commands carry it: ten significant digits, never rounded to nothing (%f turns 100
    nA into 0.000000).
    """
    return f"{value:.9e}"


def ese_probe(nonce: int) -> tuple[str, str]:
    """A probe for instruments with the IEEE 488.2 common commands: the event-status enable register
    written and read back.
    """
    return f"*ESE {nonce};*ESE?", str(nonce)


def count_question(nonce: int) -> tuple[str, Callable[[str], bool]]:
    """A question for instruments with the IEEE 488.2 common commands that changes nothing: the
    event-status enable register asked for as often as the nonce says (3 to 9 times).
    """
    count = 3 + nonce % 7
    answer = re.compile(r"\+?(\d+)(?:;\+?\1){" + str(count - 1) + "}")
    return ";".join(["*ESE?"] * count), lambda line: answer.fullmatch(line) is not None
