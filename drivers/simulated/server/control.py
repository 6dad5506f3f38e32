"""The out-of-band control of a simulated bench: one JSON object a line over TCP on 127.0.0.1.

Tests use it to advance the virtual clock, to inject faults, to see the ground truth, to reboot and
to end the far side. A request is `{"do": NAME, ...}`; the answer `{"ok": true, ...}` or `{"ok":
false, "error": TEXT}`. Arrays travel as base64 of an .npy file.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import io
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rram_hil.errors import BenchError, ConfigError, LinkError
from rram_hil.simulation.config import FaultEntry
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import refused
from rram_hil.wire.bench_clock import control_of

from .listening import connections, in_thread


class LinkFault(StrEnum):
    """What can go wrong between a host and a simulated board or instrument; each is spent on one
    message.

    `LEFT_OVER` sends what an earlier program had asked for before the message is acted on.
    `QUEUE_FULL` and `LINE_OVERRUN` (the message is lost in the input buffer) are of instruments
    that take text.
    """

    DROP_REQUEST = "drop-request"
    CORRUPT_REQUEST = "corrupt-request"
    DELAY_REQUEST = "delay-request"
    DISCONNECT_REQUEST = "disconnect-request"
    REBOOT_BEFORE = "reboot-before"
    REBOOT_DURING = "reboot-during"
    REBOOT_AFTER = "reboot-after"
    LEFT_OVER = "left-over"
    STUCK = "stuck"
    CRASH = "crash"
    DROP_REPLY = "drop-reply"
    CORRUPT_REPLY = "corrupt-reply"
    HALF_REPLY = "half-reply"
    GARBAGE = "garbage"
    DUPLICATE_REPLY = "duplicate-reply"
    DELAY_REPLY = "delay-reply"
    DISCONNECT_REPLY = "disconnect-reply"
    WRONG_MODEL = "wrong-model"
    QUEUE_FULL = "queue-full"
    LINE_OVERRUN = "line-overrun"


@dataclass(frozen=True)
class Injected:
    """One injected fault: on the next message that fits `on` (empty: any); `seconds` where it is a
    delay.

    `on` is the type of a board's message; of an instrument's message any part of its text.
    """

    kind: LinkFault
    on: str = ""
    seconds: float = 0.0


def checked_fault(
    entry: FaultEntry | Mapping[str, Any], instruments: Sequence[str], kinds: Set[LinkFault]
) -> tuple[str, list[Injected]]:
    """An entry of `simulation.faults`, or a request to inject, as (instrument, faults to queue).

    Without a name it is the only instrument. Raises `ConfigError` for an unknown instrument or
    kind.
    """
    if not isinstance(entry, FaultEntry):
        given = {key: value for key, value in entry.items() if key not in ("do", "token")}
        try:
            entry = FaultEntry.model_validate(given)
        except ValidationError as error:
            raise refused(error, "fault", FaultEntry) from None
    name = entry.instrument or (instruments[0] if len(instruments) == 1 else "")
    if name not in instruments:
        raise ConfigError(
            f"fault {entry.kind!r}: instrument {entry.instrument!r} is not one of"
            f" {', '.join(instruments)}"
        )
    if entry.kind not in kinds:
        raise ConfigError(f"fault {entry.kind!r} is not one of {', '.join(sorted(kinds))}")
    return name, [Injected(LinkFault(entry.kind), entry.on, entry.seconds)] * entry.count


class FaultQueue:
    """Faults that wait for their message. Safe for several threads."""

    def __init__(self) -> None:
        self._waiting: deque[Injected] = deque()
        self._lock = threading.Lock()

    def add(self, fault: Injected) -> None:
        """Let a fault happen at the next message that fits it."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Forget the faults that have not happened."""
        with self._lock:
            self._waiting.clear()

    def take(self, kinds: frozenset[LinkFault], message: str) -> Injected | None:
        """The first waiting fault of these kinds whose `on` is in `message` (its type or text); it
        is spent.
        """
        with self._lock:
            for fault in self._waiting:
                if fault.kind in kinds and fault.on in message:
                    self._waiting.remove(fault)
                    return fault
        return None

    def __len__(self) -> int:
        return len(self._waiting)


Handler = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers one request; raises `BenchError` for what it does not understand."""


LONGEST_REQUEST = 1 << 22
"""Bytes of one request; a longer one is refused and ends its connection."""
_NOT_UNDERSTOOD = (
    BenchError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
"""What a request that makes no sense may lead to."""


class ControlServer:
    """Serves control requests, each connection in a thread of its own, until the process ends.

    `address` is "host:port", or "token@host:port" where every request must bring that `token`.
    """

    def __init__(self, handler: Handler, token: str = "") -> None:
        self._handler, self._token = handler, token
        self._listener = socket.create_server(("127.0.0.1", 0))
        place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.address = f"{token}@{place}" if token else place
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def _accept(self) -> None:
        for connection in connections(self._listener):
            in_thread(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            connection,
            connection.makefile("rwb") as stream,
        ):
            while line := stream.readline(LONGEST_REQUEST):
                is_whole = line.endswith(b"\n") or len(line) < LONGEST_REQUEST
                answer = self._answer(line if is_whole else b"")
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
                if not is_whole:
                    return

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ConfigError("a request is a JSON object")
            if self._token and not hmac.compare_digest(
                str(request.get("token", "")).encode(), self._token.encode()
            ):
                raise ConfigError("this machine is shared: give the token of the control address")
            return {"ok": True} | self._handler(request)
        except _NOT_UNDERSTOOD as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error!s:.300}"}


def pack_array(array: NDArray[Any]) -> str:
    """An array as base64 of its .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def unpack_array(text: str) -> NDArray[Any]:
    """The array that `pack_array` packed."""
    array: NDArray[Any] = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return array


class BoardControl:
    """The client: what a test may do behind the back of a board's link, or a rack's. `address` is
    "host:port" or "token@host:port".
    """

    def __init__(self, address: str) -> None:
        try:
            place, self._keys = control_of(address)
            self._socket = socket.create_connection(place, timeout=30)
        except (OSError, ValueError) as error:
            raise LinkError(f"control socket {address!r}: cannot be reached: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rwb")

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer. Raises `ConfigError` with what the far side did not like."""
        try:
            self._stream.write(json.dumps({"do": do} | self._keys | arguments).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError as error:
            raise LinkError(f"control socket: {error}") from None
        if not line:
            raise LinkError("control socket: the simulated board has ended")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise ConfigError(f"control: {do}: {answer['error']}")
        return answer

    def advance(self, seconds: float) -> float:
        """Let virtual time pass; returns the clock (s)."""
        return float(self.ask("advance", seconds=seconds)["now_s"])

    def inject(
        self,
        kind: LinkFault | str,
        on: str = "",
        *,
        count: int = 1,
        seconds: float = 0.0,
        instrument: str = "",
    ) -> None:
        """Let a fault happen at each of the next `count` messages of type `on` ("APPLY", "STATUS",
        ...; empty: any).

        In a rack `instrument` names the one, and `on` is any part of a message's text.
        """
        of = {"instrument": instrument} if instrument else {}
        for _ in range(count):
            self.ask("inject", kind=str(kind), on=on, seconds=seconds, **of)

    def panel(
        self, instrument: str, *, answers: Sequence[object] = (), keys: Sequence[str] = ()
    ) -> None:
        """What a person does at the front panel of an instrument of a rack: answers to the dialogs
        that its scripts open ("EXIT" leaves one), and keys by name ("TRIG", "ENTER" ...).
        """
        self.ask("panel", instrument=instrument, answers=list(answers), keys=list(keys))

    def clear(self) -> None:
        """Forget the faults that have not happened."""
        self.ask("clear")

    def status(self) -> dict[str, Any]:
        """Outputs, arming, clock, numbers, boot, faults still waiting, operations carried out since
        the process began.
        """
        return self.ask("status")

    def truth(self, name: str) -> NDArray[Any]:
        """Ground truth, shape geometry.shape: "pulses", "conductance_s", "words", "formed", "stuck"
        or "numbers".
        """
        return unpack_array(self.ask("truth", name=name)["npy"])

    def pulses(self) -> IntArray:
        """Pulses that each cell has ever taken."""
        return self.truth("pulses")

    def conductance_s(self) -> FloatArray:
        """What each cell conducts now (S)."""
        return self.truth("conductance_s")

    def damage(self, fault: int, cells: IntArray) -> None:
        """Give the cells at these flat indices a `rram_hil.simulation.chip.Fault`."""
        self.ask("damage", fault=int(fault), cells=[int(c) for c in cells])

    def reboot(self, *, drop_link: bool = False, instrument: str = "") -> None:
        """Power-cycle the board now; with `drop_link` the link goes too, as with a USB board. In a
        rack `instrument` names the one, and its link goes always.
        """
        of = {"instrument": instrument} if instrument else {}
        self.ask("reboot", drop_link=drop_link, **of)

    def quit(self) -> None:
        """End the process of the simulated board."""
        self.ask("quit")

    def close(self) -> None:
        """Close the control connection; safe to call twice."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
