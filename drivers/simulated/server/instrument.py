"""Base of the simulated instruments that take lines of text, and the server that puts one behind a
TCP port with its faults.

A simulated instrument is written from its manual with its own parser; it shares no code with the
driver that faces it.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import SimulatedFarSide
from rram_hil.simulation.config import Timing

from ..array.terminals import Bus, FollowedClock, Loads, Place
from .control import FaultQueue, Injected, LinkFault
from .listening import connections, in_thread

LONGEST_LINE = 1 << 20
SLOWEST_HOST_S = 10.0
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Where there is such a thing (Linux), hosts that send several lines do not wait 40 ms for each."""
BEFORE = frozenset(
    {
        LinkFault.DISCONNECT_REQUEST,
        LinkFault.DROP_REQUEST,
        LinkFault.STUCK,
        LinkFault.LINE_OVERRUN,
        LinkFault.QUEUE_FULL,
        LinkFault.LEFT_OVER,
    }
)
AFTER = frozenset(
    {
        LinkFault.DELAY_REPLY,
        LinkFault.DROP_REPLY,
        LinkFault.HALF_REPLY,
        LinkFault.GARBAGE,
        LinkFault.DISCONNECT_REPLY,
    }
)
EARLIER = b"+5.000000E+00,+5.000000E-04,+9.910000E+37\n1.00000e+00\n"
"""Replies to what an earlier program had asked for."""
NOISE = bytes([0xFF, 0xFE, 0x00, 0x80]) + b"#!garbage\n"


class SimulatedInstrument(ABC):
    """One instrument: messages in, replies out, state between. Called with the rack's lock held.

    `MAKER` and `MODELS` are what `rram-hil simulate --model "MAKER MODEL"` takes. Durations go to
    `place.bus.clock`.
    """

    MAKER: ClassVar[str] = ""
    MODELS: ClassVar[tuple[str, ...]] = ()
    ALONE: ClassVar[Sequence[str] | None] = None
    """Models in the slots of one that is started alone; None: as in a bench."""
    INPUT_BUFFER: ClassVar[int] = LONGEST_LINE
    """Bytes of one message that the instrument takes."""

    def __init__(self, model: str, place: Place) -> None:
        self.model = model
        self.place = place
        self.pretends = ""
        """Another model's name that the identification tells, as while a wrong-model fault is
        acted out.
        """

    @abstractmethod
    def message(self, line: str) -> str | bytes:
        """Act on one message (ending removed); its reply without ending, empty for none. Never
        raises on bad input.
        """

    def reply(self, line: str) -> bytes:
        """The bytes that answer a message, their ending with them; none where it has no answer."""
        told = self.message(line)
        data = told.encode("latin-1") if isinstance(told, str) else told
        return data + b"\n" if data else b""

    @abstractmethod
    def overrun(self) -> None:
        """A message longer than the input buffer came: it is lost, the instrument's own error says
        so.
        """

    @abstractmethod
    def fill_queue(self) -> None:
        """Fill the error queue to its last place with errors, its own overflow entry last."""

    @property
    @abstractmethod
    def outputs_on(self) -> bool:
        """Ground truth: whether any output is on, or any relay closed."""

    @classmethod
    def start_alone(
        cls,
        model: str,
        load_ohm: float = math.inf,
        port: int = 0,
        modules: Sequence[str] | None = None,
    ) -> SimulatedFarSide:
        """Serve one instrument of this class on a TCP port (0: any), a resistor behind every
        channel (infinite: nothing). `modules` are the models in its slots, from the first, "" in an
        empty one (None: its usual ones).

        Raises `ConfigError` where the port is taken, and for modules that it does not take.
        """
        place = cls.place_alone(load_ohm)
        held = cls.ALONE if modules is None else modules
        one = cls(model, place) if held is None else cls.with_modules(model, place, held)
        return one.serve_alone(place.name, port)

    @classmethod
    def place_alone(cls, load_ohm: float) -> Place:
        """Where an instrument stands that is started alone."""
        return Place(terminals=Loads(load_ohm))

    @classmethod
    def with_modules(cls, model: str, place: Place, modules: Sequence[str]) -> Self:
        """One with these models in its slots. Raises `ConfigError` for what it does not take."""
        raise ConfigError(f"--modules: {model} has no slots for modules")

    @classmethod
    def start_beside(
        cls, model: str, now_s: Callable[[], float], pretends: str = ""
    ) -> SimulatedFarSide:
        """Serve one instrument that lives on the clock `now_s` of a bench (s), nothing wired to
        it. `pretends` is a model that it tells instead of its own.
        """
        instrument = cls(model, Place(bus=Bus(FollowedClock(now_s))))
        instrument.pretends = pretends
        return instrument.serve_alone(model)

    def serve_alone(self, name: str, port: int = 0) -> SimulatedFarSide:
        """Serve this instrument, called `name`, on a TCP port (0: any). Raises `ConfigError` where
        the port is taken.
        """
        try:
            server = InstrumentServer(self, Timing(), port)
        except OSError as error:
            raise ConfigError(f"port {port}: cannot be used: {error.strerror}") from None
        lines = ((name, f"{self.MAKER} {self.model}", server.resource),)
        return SimulatedFarSide({}, "", server.stop, lines)

    def act_at_panel(self, answers: Sequence[object], keys: Sequence[object]) -> None:
        """What a person does at the front panel: answers to dialogs, keys by name.

        Raises `ConfigError` where there is nothing to act on.
        """
        raise ConfigError(f"{self.place.name}: its front panel is not simulated")

    def power_cycle(self) -> None:
        """What switching it off and on again does. Raises `ConfigError` where that is not
        simulated.
        """
        raise ConfigError(f"{self.place.name}: its power switch is not simulated")

    def line_end(self, pending: bytearray) -> int:
        """Where the first message in `pending` ends: the place of its line feed, -1 where it is not
        whole yet.
        """
        return pending.find(b"\n")

    def clear(self) -> None:  # noqa: B027 (most have nothing to drop)
        """Device clear, or a new connection: what was half done is dropped. Outputs stay as they
        are.
        """


class InstrumentServer:
    """One simulated instrument behind a TCP port on 127.0.0.1; lines end with "\\n" or "\\r\\n".
    Threads are daemons.

    Every turn of the host (its first message after a reply) costs `timing.link_s` of the virtual
    clock, and every byte its time.
    """

    def __init__(self, instrument: SimulatedInstrument, timing: Timing, port: int = 0) -> None:
        self.instrument = instrument
        self.faults = FaultQueue()
        self.transactions = 0
        self.connections = 0
        self._timing = timing
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.resource = f"TCPIP::127.0.0.1::{self.port}::SOCKET"
        self._hosts: set[socket.socket] = set()
        threading.Thread(
            target=self._accept, name=f"serve {instrument.place.name}", daemon=True
        ).start()

    def stop(self) -> None:
        """Take no further connection and close those that are."""
        with contextlib.suppress(OSError):
            # Closing alone does not wake the thread that waits in accept: it would take one more
            # connection.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def power_cycle(self) -> None:
        """Switch the instrument off and on again; every connection breaks. Raises as it does."""
        with self.instrument.place.bus.lock:
            self.instrument.power_cycle()
        self.drop()

    def drop(self) -> None:
        """Break every connection."""
        for host in list(self._hosts):
            with contextlib.suppress(OSError):
                host.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        for host in connections(self._listener):
            self.connections += 1
            self._hosts.add(host)
            in_thread(self._serve, host)

    def _serve(self, host: socket.socket) -> None:
        with self.instrument.place.bus.lock:
            self.instrument.clear()
        turn = _Turn()
        pending = bytearray()
        try:
            while data := host.recv(1 << 16):
                if QUICK_ACK is not None:
                    host.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
                pending += data
                if turn.is_overrun:
                    turn.is_overrun = not _cut_to_next_line(pending)
                while not turn.is_overrun and (end := self.instrument.line_end(pending)) >= 0:
                    line = bytes(pending[:end]).rstrip(b"\r")
                    del pending[: end + 1]
                    if not self._message(host, line, turn):
                        return
                if len(pending) > LONGEST_LINE:
                    with self.instrument.place.bus.lock:
                        self.instrument.overrun()
                    turn.is_overrun = not _cut_to_next_line(pending)
                # What came together with a line already answered was sent without waiting: the same
                # turn.
                turn.is_new = turn.is_new or (turn.is_answered and not pending)
                turn.is_answered = turn.is_answered and not turn.is_new
        except OSError:
            pass
        finally:
            self._hosts.discard(host)
            host.close()

    def _message(self, host: socket.socket, line: bytes, turn: _Turn) -> bool:
        """Act on one line; False ends the connection."""
        text = line.decode("latin-1")
        if turn.is_stuck:
            return True
        before = self.faults.take(BEFORE, text)
        if before is not None:
            if before.kind is LinkFault.DISCONNECT_REQUEST:
                return False
            if before.kind is LinkFault.STUCK:
                turn.is_stuck = True
                return True
            if before.kind is LinkFault.DROP_REQUEST:
                return True
            if before.kind is LinkFault.LEFT_OVER:
                host.sendall(EARLIER)
        with self.instrument.place.bus.lock:
            clock = self.instrument.place.bus.clock
            if turn.is_new:
                self.transactions += 1
                clock.advance(self._timing.link_s)
            turn.is_new = False
            clock.advance((len(line) + 1) / self._timing.bytes_per_s)
            if before is not None and before.kind is LinkFault.QUEUE_FULL:
                self.instrument.fill_queue()
            if len(line) > self.instrument.INPUT_BUFFER or (
                before is not None and before.kind is LinkFault.LINE_OVERRUN
            ):
                self.instrument.overrun()
                return True
            names = "IDN" in text.upper()
            wrong = self.faults.take(frozenset({LinkFault.WRONG_MODEL}), text) if names else None
            name = self.instrument.pretends
            self.instrument.pretends = "ESPRESSO" if wrong else name
            reply = self.instrument.reply(text)
            self.instrument.pretends = name
            if reply:
                clock.advance(len(reply) / self._timing.bytes_per_s)
        if not reply:
            return True
        turn.is_answered = True
        return self._reply(host, reply, self.faults.take(AFTER, text))

    def _reply(self, host: socket.socket, reply: bytes, fault: Injected | None) -> bool:
        kind = None if fault is None else fault.kind
        if kind is LinkFault.DISCONNECT_REPLY:
            return False
        if fault is not None and kind is LinkFault.DELAY_REPLY:
            time.sleep(fault.seconds)
        if kind is LinkFault.DROP_REPLY:
            return True
        if kind is LinkFault.HALF_REPLY:
            reply = reply[: len(reply) // 2]
        if kind is LinkFault.GARBAGE:
            reply = NOISE + reply
        # A host that does not read must not hold the process for ever; the time runs anew with
        # every piece that goes.
        left = memoryview(reply)
        host.settimeout(SLOWEST_HOST_S)
        while left:
            left = left[host.send(left) :]
        host.settimeout(None)
        return True


def check_modules(model: str, modules: Sequence[str], slots: int, known: Sequence[str]) -> None:
    """Refuse modules that a model has no slots for, or that are not simulated. Raises
    `ConfigError`.
    """
    if len(modules) > slots:
        raise ConfigError(f"--modules: {len(modules)} of them; {model} has {slots}")
    for slot, name in enumerate(modules, 1):
        if name and name not in known:
            raise ConfigError(
                f"--modules: {name!r} in slot {slot} is wrong: one of {', '.join(known)}, or"
                " nothing"
            )


def _cut_to_next_line(pending: bytearray) -> bool:
    """Drop what belongs to a message that is longer than any may be; whether its end was in it."""
    end = pending.find(b"\n")
    del pending[: end + 1 if end >= 0 else len(pending)]
    return end >= 0


class _Turn:
    """Where one connection stands: whether the next message begins a new turn, whether this one has
    had a reply, whether nothing is answered any more, whether bytes up to the next line feed belong
    to a message that is lost.
    """

    def __init__(self) -> None:
        self.is_new = True
        self.is_answered = False
        self.is_stuck = False
        self.is_overrun = False
