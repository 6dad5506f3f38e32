"""Driver for RRAM test-chip controller boards that speak the protocol of docs/board-protocol.md
over a serial link.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    Result,
    Step,
    Wait,
    WriteWords,
    check,
    stresses_cells,
)
from rram_hil.array.coded_read import code_order
from rram_hil.array.write_verify_rules import coded_verify
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import Capabilities, Driver, DriverConfig, Identity, check_extras
from rram_hil.types import IntArray
from rram_hil.units import Amperes, Seconds, Unit
from rram_hil.wire.link import Link
from rram_hil.wire.link_keys import LinkKeys
from rram_hil.wire.open_link import make_link
from rram_hil.wire.recording import Traffic

from .dialects.board_codec import (
    ERROR,
    MORE,
    REPLY,
    VERSION,
    WORKING,
    BoardStatus,
    Code,
    Envelope,
    Finding,
    Frame,
    FrameReader,
    Kind,
    MalformedError,
    decode_abort,
    decode_error,
    decode_executed,
    decode_identify,
    decode_result,
    decode_self_test,
    decode_status,
    encode_body_limits,
    encode_executed,
    encode_limits,
    encode_operation,
    encode_request,
)

POLL_S = 0.05
"""How often a waiting driver looks at its cancel event."""
GAP_S = 0.2
"""Silence inside a frame after which its beginning is dropped."""
ABORT_WAIT_S = 0.5
"""How long an aborting driver waits for the board's confirmation."""
RECONNECTS = 2
"""How often one transaction may open a lost link again."""

T = TypeVar("T")


class TestChipBoardConfig(LinkKeys, DriverConfig):
    """Section `[driver]` of a bench with `name = "test-chip-board"`."""

    __test__: ClassVar[bool] = False
    ADDRESS: ClassVar[str] = "port"

    baud: Annotated[int, Unit("Bd"), Field(ge=300)] = Field(
        default=115200, description="line rate; USB boards ignore it"
    )
    timeout_s: Annotated[Seconds, Field(ge=0.25, le=60)] = Field(
        default=1.0, description="longest silence of the board"
    )
    retries: Annotated[int, Field(ge=0, le=20)] = Field(
        default=3, description="how often a message is repeated"
    )
    watchdog_s: Annotated[Seconds, Field(ge=0.1, le=60)] = Field(
        default=2.0,
        description=(
            "the board switches off when the host is silent for this long inside an operation"
        ),
    )
    patience_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=60.0,
        description="how much longer than expected an operation may take before it is stopped",
    )
    read_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description=(
            "a current reading is right within this fraction of it, as the board's maker states"
        ),
    )
    read_floor_a: Annotated[Amperes, Field(ge=0)] = Field(
        default=0.0, description="and within these amperes"
    )


class _LostError(LinkError):
    """The link broke, or the board is silent: opening it again may help."""


class _SilentError(_LostError):
    """The board did not answer as often as it was asked."""


class _RebootedError(LinkError):
    """The board that answers was booted after the last IDENTIFY."""


class _AgainError(LinkError):
    """No sound reply came; the request may be sent again."""


class _BoardError(InstrumentError):
    """An error reply, before it is known what it means for the caller."""


class _Port:
    """The serial port: whole frames out, whole frames in; a link that fails is a `_LostError` that
    names the port.
    """

    def __init__(self, config: TestChipBoardConfig) -> None:
        self._config = config
        self._link: Link | None = None
        self._heard_s = 0.0
        self.reader = FrameReader()

    @property
    def is_open(self) -> bool:
        return self._link is not None and self._link.is_open

    def open(
        self, traffic: Traffic | None, *, is_known: bool, is_cancelled: Callable[[], bool]
    ) -> None:
        """Open it; wait for one that was open before (`is_known`). Raises `LinkError`."""
        if self._link is None:
            self._link = make_link(self._config.port, traffic, **self._config.link_settings())
        try:
            if is_known:
                self._link.reopen(self._config.reconnect_s, is_cancelled)
            else:
                self._link.open()
        except ConfigError as error:
            raise ConfigError(f"driver.port: {error}") from None
        self.reader.clear()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    def send(self, frame: bytes) -> None:
        try:
            self._opened().send(frame)
        except LinkError as error:
            raise _LostError(error.message, where=error.where) from None

    def receive(self) -> list[Frame]:
        """Frames that came within `POLL_S`; returns as soon as one is complete."""
        try:
            data = self._opened().receive(self.reader.wanted, POLL_S)
        except LinkError as error:
            raise _LostError(error.message, where=error.where) from None
        now = time.monotonic()
        if data:
            self._heard_s = now
            return self.reader.feed(data)
        return self.reader.give_up() if now - self._heard_s > GAP_S else []

    def _opened(self) -> Link:
        if self._link is None or not self._link.is_open:
            raise _LostError(f"{self._config.port}: the link is not open")
        return self._link


@dataclass
class _Wait:
    """What one transaction is waiting for, and how long it may still go on."""

    kind: Kind
    what: str
    is_operation: bool
    deadline_s: float
    sequences: set[int]
    parts: dict[int, list[bytes]]
    silent_until_s: float = 0.0
    failures: int = 0


class TestChipBoard(Driver):
    """A test-chip board behind a serial port, a pseudo-terminal or a TCP socket.

    One lock is held around each transaction. The watchdog is fed from inside `execute`, the only
    time at which outputs may be on. `connect`, `arm` and `execute` look at `cancel` every 50 ms;
    the rest does not, so that a cancelled bench can still be made safe and asked what it did.
    """

    __test__: ClassVar[bool] = False
    Config: ClassVar[type[DriverConfig]] = TestChipBoardConfig
    KEEPS_MODEL_TIMES: ClassVar[bool] = True

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        super().__init__(config, geometry, limits)
        assert isinstance(config, TestChipBoardConfig)
        self._settings = config
        if not config.port:
            raise ConfigError(
                "driver.port: missing; give a serial port such as COM3 or /dev/ttyACM0, or"
                " socket://host:port, or add a [simulation] section"
            )
        self._port = _Port(config)
        self._lock = threading.RLock()
        self._sequence = 0
        self._transactions = 0
        self._asked = 0
        self._may_abort = False
        self._envelope: Envelope | None = None
        self._boot = 0
        self._armed = False
        self._clock_s = (0.0, time.monotonic())

    @classmethod
    @override
    def identify_at(cls, port: str) -> Identity | None:
        """Identify the board at a port, whatever chip is in its socket."""
        # Neither geometry nor limits matter before a board is armed.
        config = TestChipBoardConfig(port=port, timeout_s=0.5, retries=0)
        board = _AnyBoard(config, Geometry(1, 1, 1), Limits.model_construct())
        try:
            return board.connect()
        except BenchError:
            return None
        finally:
            board.close()

    @override
    def connect(self) -> Identity:
        """Open the port and identify; change no output.

        Raises `LinkError` for a port that does not open or a silent board, `ConfigError` for
        another device, another protocol version, or a chip of another geometry than the bench
        file's.
        """
        with self._lock:
            self._port.close()
            self._envelope, self._armed = None, False
            try:
                with self._abortable():
                    return self._again(self._identify).identity
            except BenchError:
                self._port.close()
                raise

    @property
    @override
    def capabilities(self) -> Capabilities:
        """What the connected board can do. Raises `LinkError` before `connect`."""
        settings = self._settings
        return replace(
            self._connected().capabilities,
            read_fraction=settings.read_fraction,
            read_floor_a=settings.read_floor_a,
        )

    @property
    @override
    def transactions(self) -> int:
        return self._transactions

    @override
    def arm(self) -> None:
        """Switch off, set limits and watchdog and read them back, arm, verify.

        Raises `LimitError` for limits beyond the board's own, `InstrumentError` where a read-back
        differs.
        """
        with self._lock:
            self._connected()
            self.check_limits()
            with self._abortable():
                self._again(self._arm)
            self._armed = True

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out one operation, at most once, over retries, reconnections and reboots of the
        board.

        Raises `LimitError` for what the envelope or the board's limits refuse, `AbortedError` when
        cancelled, `UnknownOutcomeError` where cells may have been pulsed and no reply tells the
        result (ask `executed`), `LinkError` where the link failed and no cell can have been pulsed,
        `InstrumentError` for the board's own faults.
        """
        with self._lock:
            envelope = self._connected()
            can = envelope.capabilities
            self._check(operation, can)
            check(operation, self.geometry, self.limits, bounds_current=can.compliance)
            kind, payload = encode_operation(operation, number, self.geometry)
            what = (
                f"operation {number}"
                f" ({kind.name}{f', {operation.label}' if operation.label else ''})"
            )
            if len(payload) > envelope.max_message:
                raise self.refuse(
                    f"{what} of {len(payload)} bytes",
                    f"messages of at most {envelope.max_message} bytes",
                )
            if self.cancel.is_set():
                raise AbortedError(f"{what} was not started: the run is being aborted")
            with self._abortable():
                reply = self._exactly_once(operation, number, kind, payload, what)
            return self._decoded(what, lambda: decode_result(reply, operation, number))

    @override
    def executed(self, number: int, cells: Cells) -> IntArray | None:
        """Pulses that operation `number` gave each cell, from the board's nonvolatile records; None
        where it has none.

        -1 for a cell whose record a later operation has replaced.
        """
        with self._lock:
            if not self._connected().capabilities.counters:
                return None
            pulses, last = self._records(number, cells)
            return np.where(last > number, -1, pulses)

    def last_numbers(self, cells: Cells) -> IntArray:
        """The last operation that pulsed each cell, shape (n,); 0 for a cell never pulsed."""
        with self._lock:
            return self._records(0, cells)[1]

    @override
    def last_number(self) -> int:
        """The highest operation number that the board has accepted, or remembers from before its
        boot.
        """
        return self.status().last

    def status(self) -> BoardStatus:
        """Outputs, arming, watchdog and operation numbers, as the board reads them back."""
        with self._lock:
            self._connected()
            return self._again(self._status)

    def self_test(self) -> tuple[Finding, ...]:
        """The board's test of itself; drives no line of the chip."""
        with self._lock:
            self._connected()
            reply = self._again(lambda: self._transact(Kind.SELF_TEST))
            return self._decoded("SELF_TEST", lambda: decode_self_test(reply))

    @override
    def safe_off(self) -> None:
        """Outputs off and disarmed, verified by STATUS on the same connection. Raises if not
        verified.
        """
        with self._lock:
            self._connected()
            self._armed = False
            self._again(self._off)

    @override
    def close(self) -> None:
        """Close the port."""
        with self._lock:
            self._port.close()

    @override
    def now_s(self) -> float:
        """The board's clock: as of its last message where it is virtual, running on where it is
        real.
        """
        clock_s, at_s = self._clock_s
        if self._envelope is None or self._envelope.capabilities.clock == "virtual":
            return clock_s
        return clock_s + time.monotonic() - at_s

    # Transactions

    @contextlib.contextmanager
    def _abortable(self) -> Iterator[None]:
        """Inside, every wait for the board ends with `AbortedError` when `cancel` is set."""
        self._may_abort = True
        try:
            yield
        finally:
            self._may_abort = False

    def _exactly_once(
        self, operation: Operation, number: int, kind: Kind, payload: bytes, what: str
    ) -> bytes:
        stresses = self._stresses(operation)
        length_s = self._expected_s(operation)
        failure: LinkError | None = None
        sent_under = self._boot
        for _ in range(RECONNECTS + 1):
            try:
                if failure is not None:
                    self._recover(operation, number, what, stresses, sent_under)
                    sent_under = self._boot
                return self._transact(kind, payload, what=what, length_s=length_s)
            except (_LostError, _RebootedError) as error:
                failure = error
            except _BoardError as error:
                raise self._meaning(error, what) from None
            except UnknownOutcomeError:
                raise
            except LinkError as error:  # the port has not come back
                failure = error
                break
        if stresses:
            raise UnknownOutcomeError(
                f"{failure}; {what} may have been carried out: ask the board before going on"
            )
        raise LinkError(f"{failure}; {what} gives no pulse and may be repeated")

    def _recover(
        self, operation: Operation, number: int, what: str, stresses: bool, sent_under: int
    ) -> None:
        """Find the board again; return only if repeating operation `number` can pulse no cell
        twice.

        `sent_under` is the boot under which it was sent: only that boot's memory of it, or the
        records, can tell.
        """
        try:
            self._identify()
        except ConfigError as error:
            raise UnknownOutcomeError(f"{error}; {what} may have been carried out") from None
        if self._boot == sent_under:
            return
        given = 0
        if stresses:
            assert isinstance(operation, Apply | Program)
            if not self._connected().capabilities.counters:
                raise UnknownOutcomeError(
                    f"{self._settings.port}: the board was rebooted during {what}; it keeps no"
                    " records"
                )
            given = sum(
                int(self._executed(number, part)[0].sum()) for part in self._parts(operation.cells)
            )
        if self._armed:
            self._arm()
        if given:
            raise UnknownOutcomeError(
                f"{self._settings.port}: the board was rebooted during {what}, which had given"
                f" {given} pulses: ask it how many each cell took and read the cells again"
            )

    def _again(self, action: Callable[[], T]) -> T:
        """Do something that may be repeated, again on a fresh link where the link breaks or the
        board was rebooted.
        """
        failure: LinkError | None = None
        for _ in range(RECONNECTS + 1):
            try:
                if failure is not None:
                    self._identify()
                return action()
            except _SilentError as error:
                failure = error
                if self._envelope is None:  # asked often enough, and nobody was ever there
                    break
            except (_LostError, _RebootedError) as error:
                failure = error
            except _BoardError as error:
                raise self._meaning(error, error.command) from None
        assert failure is not None
        raise LinkError(failure.message, where=failure.where) from None

    def _transact(
        self, kind: Kind, payload: bytes = b"", *, what: str = "", length_s: float | None = None
    ) -> bytes:
        """Send one message and return its reply, repeating it as often as allowed.

        `length_s` marks an operation: its expected length on the wall clock; the watchdog is then
        kept fed. Raises `_LostError`, `_RebootedError`, `_BoardError`, `AbortedError`.
        """
        operation = length_s is not None
        deadline_s = time.monotonic() + (length_s or 0.0) + self._settings.patience_s
        wait = _Wait(kind, what or kind.name, operation, deadline_s, set(), {})
        while wait.failures <= self._settings.retries:
            self._transactions += 1
            self._send(kind, payload, wait)
            try:
                return self._await(wait)
            except _AgainError:
                wait.failures += 1
        times = self._settings.retries + 1
        self._port.close()
        raise _SilentError(
            f"{self._settings.port}: no sound reply to {wait.what} in {times} attempts of"
            f" {self._settings.timeout_s:g} s; check the board's power, the cable and the baud rate"
        )

    def _send(self, kind: Kind, payload: bytes, wait: _Wait | None = None) -> int:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        if wait is not None:
            self._asked = self._sequence
            wait.sequences.add(self._sequence)
        boot = 0 if kind is Kind.IDENTIFY else self._boot
        size = self._envelope.frame_bytes if self._envelope is not None else 1024
        for frame in encode_request(kind, payload, self._sequence, boot, size):
            if wait is not None and self._may_abort and self.cancel.is_set():
                self._abort(wait.what)
            self._port.send(frame)
        return self._sequence

    def _await(self, wait: _Wait) -> bytes:
        """The reply to any attempt of a transaction. Raises `_AgainError` if it must be sent
        again.
        """
        now_s = time.monotonic()
        wait.silent_until_s = now_s + self._settings.timeout_s
        keep_alive_s = now_s + self._settings.watchdog_s / 5
        while True:
            for frame in self._port.receive():
                if frame.sequence in wait.sequences and frame.kind == wait.kind:
                    reply = self._reply(frame, wait)
                    if reply is not None:
                        return reply
            now_s = time.monotonic()
            if self._may_abort and self.cancel.is_set():
                self._abort(wait.what)
            if now_s > wait.deadline_s:
                self._stuck(wait)
            if now_s > wait.silent_until_s:
                raise _AgainError("silence")
            if wait.is_operation and now_s > keep_alive_s:
                self._send(Kind.KEEP_ALIVE, b"")
                keep_alive_s = now_s + self._settings.watchdog_s / 5

    def _reply(self, frame: Frame, wait: _Wait) -> bytes | None:
        """The whole reply once this frame completes it, None while the board is still at it.

        Raises `_AgainError`, `_RebootedError`, `_BoardError`.
        """
        if not frame.flags & REPLY:
            raise ConfigError(
                f"{self._settings.port}: what answers is no test-chip board but an echo: it"
                " sends back what it gets"
            )
        self._accept(frame, wait)
        wait.silent_until_s = time.monotonic() + self._settings.timeout_s
        if frame.flags & WORKING:
            wait.failures = 0
            return None
        payload = self._joined(frame, wait)
        if payload is None or not frame.flags & ERROR:
            return payload
        code, _, text = self._decoded(wait.what, partial(decode_error, payload))
        if code in (Code.CRC, Code.INCOMPLETE, Code.BUSY) and frame.sequence != self._asked:
            # It answers an earlier attempt, and the last one may still succeed.
            return None
        if code in (Code.CRC, Code.INCOMPLETE):
            raise _AgainError(text)
        if code == Code.BUSY:
            wait.failures = 0
            pause_s = self._settings.timeout_s if wait.is_operation else 2 * POLL_S
            wait.silent_until_s = time.monotonic() + pause_s
            return None
        if code == Code.STALE_BOOT:
            raise _RebootedError(
                f"{self._settings.port}: the board was rebooted before {wait.what}: {text}"
            )
        raise _BoardError(
            f"{wait.what}: {text} (error {code})",
            where=self._settings.port,
            code=code,
            command=wait.what,
        )

    def _accept(self, frame: Frame, wait: _Wait) -> None:
        if frame.version != VERSION:
            raise ConfigError(
                f"{self._settings.port}: the board speaks version {frame.version} of the test-chip"
                f" board protocol, this driver version {VERSION}; update one of them"
            )
        if wait.kind is Kind.IDENTIFY:
            self._boot = frame.boot
        elif frame.boot != self._boot:
            raise _RebootedError(
                f"{self._settings.port}: the board was rebooted before {wait.what}"
            )
        self._clock_s = (frame.clock_s, time.monotonic())

    def _joined(self, frame: Frame, wait: _Wait) -> bytes | None:
        """The whole message once its last part is here; a message with a part missing is
        forgotten.
        """
        parts = wait.parts.setdefault(frame.sequence, [])
        if frame.part != len(parts):
            parts.clear()
            if frame.part:
                return None
        parts.append(frame.payload)
        return None if frame.flags & MORE else b"".join(wait.parts.pop(frame.sequence))

    def _abort(self, what: str) -> None:
        """Stop the board; always raises `AbortedError`, which says whether the board confirmed that
        outputs are off.
        """
        if self._stopped():
            raise AbortedError(
                f"{what} was aborted; the board confirms that outputs are off", outputs_off=True
            )
        raise AbortedError(
            f"{what} was aborted, but the board at {self._settings.port} did not confirm that"
            " outputs are off; its watchdog switches them off within"
            f" {self._settings.watchdog_s:g} s",
            outputs_off=False,
        )

    def _stuck(self, wait: _Wait) -> None:
        """The board works on and on: stop it and give up."""
        off = "outputs are off" if self._stopped() else "that outputs are off is not confirmed"
        text = (
            f"{self._settings.port}: the board is still busy with {wait.what}"
            f" {self._settings.patience_s:g} s after it should have ended; it was stopped, {off}"
        )
        raise UnknownOutcomeError(text) if wait.is_operation else LinkError(text)

    def _stopped(self) -> bool:
        """Send ABORT; whether its reply came in time and says that outputs are off."""
        with contextlib.suppress(LinkError, MalformedError):
            sequence = self._send(Kind.ABORT, b"")
            end_s = time.monotonic() + ABORT_WAIT_S
            while time.monotonic() < end_s:
                for frame in self._port.receive():
                    if (
                        frame.kind == Kind.ABORT
                        and frame.sequence == sequence
                        and not frame.flags & ERROR
                    ):
                        return not decode_abort(frame.payload)[1]
        return False

    # Commands

    def _identify(self) -> Envelope:
        """Open the port if need be, identify, and check that it is the board and chip of the bench
        file.
        """
        known = self._envelope
        # A sequence that no earlier session used, so that its late replies are not taken for ours.
        self._sequence = secrets.randbits(31) if self.traffic is None else self.traffic.nonce()
        if not self._port.is_open:
            self._port.open(
                self.traffic,
                is_known=known is not None,
                is_cancelled=lambda: self._may_abort and self.cancel.is_set(),
            )
        try:
            reply = self._transact(Kind.IDENTIFY)
        except _LostError:
            said = self._port.reader.garbage
            if said and known is None:
                raise ConfigError(
                    f"{self._settings.port}: what answers is no test-chip board: it says {said!r};"
                    " are port and baud rate right?"
                ) from None
            raise
        except _BoardError as error:
            raise self._meaning(error, "IDENTIFY") from None
        try:
            envelope = decode_identify(reply, self._boot, self._settings.port)
        except MalformedError as error:
            raise ConfigError(
                f"{self._settings.port}: what answers is no test-chip board of this protocol:"
                f" {error}"
            ) from None
        self._check_board(envelope, known)
        self._envelope = envelope
        return envelope

    def _check_board(self, envelope: Envelope, known: Envelope | None) -> None:
        name, board = self._settings.port, envelope.identity
        if not envelope.versions[0] <= VERSION <= envelope.versions[1]:
            raise ConfigError(
                f"{name}: {board.model} speaks {board.protocol}, this driver version {VERSION}"
            )
        if envelope.geometry != self.geometry:
            raise ConfigError(
                f"{name}: {board.model} {board.serial} holds a chip of {_words(envelope.geometry)};"
                f" [chip] of the bench file says {_words(self.geometry)}"
            )
        if known is not None and (known.identity.model, known.identity.serial) != (
            board.model,
            board.serial,
        ):
            raise ConfigError(
                f"{name}: {board.model} {board.serial} answers where {known.identity.model}"
                f" {known.identity.serial} was"
            )

    def _arm(self) -> None:
        self._off()
        wanted = encode_limits(self.limits)
        try:
            stored = [self._transact(Kind.LIMITS, wanted), self._transact(Kind.LIMITS)]
            watchdog = round(self._settings.watchdog_s * 1e3).to_bytes(4, "little")
            reply = self._transact(Kind.WATCHDOG, watchdog)
            if "body_v" in self._connected().capabilities.step_extras:
                self._set_body_limits()
            self._transact(Kind.ARM)
        except _BoardError as error:
            raise self._meaning(error, "arming") from None
        status = self._status()
        if any(s != wanted for s in stored) or reply != watchdog:
            raise InstrumentError(
                f"{self._settings.port}: the board reads back other limits or another watchdog than"
                " were sent; it was not armed",
                command="LIMITS",
            )
        if status.outputs_on or not status.armed or not status.limits_set:
            raise InstrumentError(
                f"{self._settings.port}: the board did not arm with outputs off: {status}",
                command="ARM",
            )

    def _set_body_limits(self) -> None:
        """Of a board that drives the body; another one is never sent these."""
        wanted = encode_body_limits(self.limits)
        stored = [self._transact(Kind.BODY_LIMITS, wanted), self._transact(Kind.BODY_LIMITS)]
        if any(s != wanted for s in stored):
            raise InstrumentError(
                f"{self._settings.port}: the board reads back other limits of the body than were"
                " sent; it was not armed",
                command="BODY_LIMITS",
            )

    def _off(self) -> None:
        self._transact(Kind.SAFE_OFF)
        status = self._status()
        if status.outputs_on or status.armed or status.busy:
            raise InstrumentError(
                f"{self._settings.port}: outputs are not confirmed off ({status}); switch the"
                " board's supply off",
                command="SAFE_OFF",
            )

    def _status(self) -> BoardStatus:
        reply = self._transact(Kind.STATUS)
        return self._decoded("STATUS", lambda: decode_status(reply))

    def _records(self, number: int, cells: Cells) -> tuple[IntArray, IntArray]:
        """Pulses of operation `number` and last operation of each cell, asked in batches that the
        board takes.
        """
        none = np.zeros(0, dtype=np.int64)
        records = [
            self._again(partial(self._executed, number, part)) for part in self._parts(cells)
        ]
        return np.concatenate([none, *(p for p, _ in records)]), np.concatenate(
            [none, *(n for _, n in records)]
        )

    def _executed(self, number: int, cells: Cells) -> tuple[IntArray, IntArray]:
        reply = self._transact(Kind.EXECUTED, encode_executed(number, cells, self.geometry))
        return self._decoded("EXECUTED", lambda: decode_executed(reply, number, len(cells)))

    def _parts(self, cells: Cells) -> list[Cells]:
        return [part for _, part in cells.batches(self._connected().capabilities.max_cells)]

    def _connected(self) -> Envelope:
        if self._envelope is None:
            raise LinkError(f"{self._settings.port}: not connected; call connect() first")
        return self._envelope

    def _decoded(self, what: str, decode: Callable[[], T]) -> T:
        try:
            return decode()
        except MalformedError as error:
            raise InstrumentError(
                f"{self._settings.port}: the board's reply to {what} is malformed: {error}",
                command=what,
            ) from None

    def _meaning(self, error: _BoardError, what: str) -> BenchError:
        """The error that a refusal or fault of the board is to the caller."""
        text, where = error.message, error.where
        if error.code in (Code.LIMIT, Code.RANGE):
            return LimitError(text, where=where)
        if error.code == Code.VERSION:
            return ConfigError(text, where=where)
        if error.code in (Code.ALREADY_EXECUTED, Code.ABORTED, Code.WATCHDOG):
            if error.code == Code.WATCHDOG:
                self._armed = False
            return UnknownOutcomeError(
                f"{text}; ask the board how many pulses each cell took", where=where
            )
        return InstrumentError(text, where=where, code=error.code, command=what)

    # What the envelope allows

    def _check(self, operation: Operation, can: Capabilities) -> None:
        """Refuse what this board cannot do, before anything is sent."""
        check_extras(operation, can)
        if isinstance(operation, Apply):
            self._check_batch(operation, can)
            if len(operation.steps) * operation.repeat > can.max_steps:
                raise self.refuse(
                    f"{len(operation.steps)} steps x {operation.repeat}",
                    f"at most {can.max_steps} steps",
                )
            for step in operation.steps:
                self._check_step(step, operation.cells, can)
        elif isinstance(operation, Program):
            self._check_batch(operation, can)
            if not can.program:
                raise self.refuse("on-board write-verify", "single steps")
            for step in (operation.read, *operation.extremes()):
                self._check_step(step, operation.cells, can)
            if operation.verify == "coded":
                self._check_coded(coded_verify(operation, np.arange(len(operation.cells))), can)
        elif isinstance(operation, Multiply):
            self._check_multiply(operation, can)
        elif isinstance(operation, CodedRead):
            self._check_coded(operation, can)
            size = sum(block.size for block in operation.blocks)
            if size > can.max_coded_cells:
                raise self.refuse(
                    f"a coded read of {size} cells", f"at most {can.max_coded_cells} cells"
                )
        elif isinstance(operation, WriteWords):
            self._check_words(operation, can)

    def _check_batch(self, operation: Apply | Program, can: Capabilities) -> None:
        if len(operation.cells) > can.max_cells:
            raise self.refuse(
                f"a batch of {len(operation.cells)} cells", f"at most {can.max_cells} cells"
            )
        if operation.unselected not in can.schemes:
            names = ", ".join(sorted(can.schemes))
            raise self.refuse(f"scheme {operation.unselected!s} for unselected lines", names)
        if operation.compliance_a is not None and not can.compliance:
            raise self.refuse("a compliance", "none")

    def _check_step(self, step: Step, cells: Cells, can: Capabilities) -> None:
        n = len(cells)
        for line, span in (("bl", can.bl_v), ("sl", can.sl_v), ("wl", can.wl_v)):
            volts = step.levels(line, n)  # type: ignore[arg-type]
            if volts is None or n == 0:
                continue
            good = (volts >= span.low) & (volts <= span.high)
            if not np.all(good):
                at = int(np.argmin(good))
                raise LimitError(
                    f"cell {cells.address(at)}: {line.upper()} {volts[at]:g} V is outside this"
                    f" board's range of {span.low:g} to {span.high:g} V",
                    cell=cells.address(at),
                    line=line.upper(),
                    value=float(volts[at]),
                    allowed=(span.low, span.high),
                )
            if not can.per_cell_bias and np.ptp(volts) > 0:
                raise self.refuse(
                    f"{line.upper()} volts that differ from cell to cell", "one level for all cells"
                )
        if not can.width_s.holds(step.width_s, step.width_s):
            raise LimitError(
                f"width {step.width_s:g} s is outside this board's range of {can.width_s.low:g} to"
                f" {can.width_s.high:g} s",
                line="width",
                value=step.width_s,
                allowed=(can.width_s.low, can.width_s.high),
            )
        if step.measure == "gate" and not can.gate_current:
            raise self.refuse("a gate current measurement", "bit-line current only")

    def _check_multiply(self, operation: Multiply, can: Capabilities) -> None:
        if not can.multiply:
            raise self.refuse("a multiply", "single steps")
        if operation.inputs.shape[0] > can.max_vectors:
            raise self.refuse(
                f"a multiply of {operation.inputs.shape[0]} vectors",
                f"at most {can.max_vectors} vectors",
            )
        if operation.input_bits > can.input_bits:
            raise self.refuse(
                f"{operation.input_bits}-bit inputs", f"inputs of at most {can.input_bits} bits"
            )
        if operation.words and not can.words:
            raise self.refuse("on-chip words", "none")
        if not can.signed_inputs and bool((operation.inputs < 0).any()):
            raise self.refuse("inputs below 0", "inputs of 0 and above")
        self._check_reading("multiply", operation.read_v, operation.wl_v, can)

    def _check_coded(self, operation: CodedRead, can: Capabilities) -> None:
        if not can.coded_read:
            raise self.refuse("a coded read", "multiplies")
        self._check_reading("coded read", operation.read_v, operation.wl_v, can)
        if can.signed_inputs:
            self._check_reading("coded read", -operation.read_v, operation.wl_v, can)

    def _check_reading(self, what: str, read_v: float, wl_v: float, can: Capabilities) -> None:
        for name, volts, span in (
            ("read", read_v, can.sl_v),
            ("WL", wl_v, can.wl_v),
        ):
            if not span.holds(volts, volts):
                raise LimitError(
                    f"{what}: {name} {volts:g} V is outside this board's range of {span.low:g} to"
                    f" {span.high:g} V",
                    line=name,
                    value=volts,
                    allowed=(span.low, span.high),
                )

    def _check_words(self, operation: WriteWords, can: Capabilities) -> None:
        top = (1 << (can.word_bits - 1)) - 1
        if len(operation.cells) > can.max_words:
            raise self.refuse(
                f"a batch of {len(operation.cells)} words", f"at most {can.max_words} words"
            )
        if operation.values.size and int(np.abs(operation.values.astype(np.int64)).max()) > top:
            raise self.refuse(
                "a word this large", f"words of {can.word_bits} bits, -{top} to {top}"
            )

    def _stresses(self, operation: Operation) -> bool:
        """Whether any cell may take a pulse."""
        if isinstance(operation, Apply):
            return stresses_cells(operation, self.geometry, self.limits)
        return isinstance(operation, Program) and bool(np.any(operation.budget() > 0))

    def _expected_s(self, operation: Operation) -> float:
        """The longest that the board may need for an operation, in seconds of the wall clock."""
        envelope = self._connected()
        can = envelope.capabilities
        spent: dict[str, Any] = can.timing
        settle_s = 2 * spent.get("edge_s", 0.0) + spent.get("settle_s", 0.0)
        convert_s = spent.get("conversion_s", 0.0)
        if isinstance(operation, Apply):
            a_cell_s = sum(
                settle_s + s.width_s + convert_s * ((s.measure != "no") + s.also_gate)
                for s in operation.steps
            )
            length_s = len(operation.cells) * operation.repeat * a_cell_s
        elif isinstance(operation, CodedRead):
            vectors = sum(_code_vectors(b, operation.repeat, can) for b in operation.blocks)
            length_s = vectors * (settle_s + spent.get("multiply_s", 0.0))
        elif isinstance(operation, Program) and operation.verify == "coded":
            # Rounds of readings: at worst cells of every column wait on rows far from each other.
            blocks = Block.around(operation.cells)
            vectors = sum(b.columns * _code_vectors(b, 1, can) for b in blocks)
            round_s = vectors * (settle_s + spent.get("multiply_s", 0.0))
            rounds = (1 + int(operation.budget().max(initial=0))) * (1 + operation.confirm)
            pulse_s = settle_s + max(operation.set_pulses.width_s, operation.reset_pulses.width_s)
            length_s = rounds * round_s + int(operation.budget().sum()) * pulse_s
        elif isinstance(operation, Program):
            read_s = (settle_s + operation.read.width_s + convert_s) * (1 + operation.confirm)
            pulse_s = settle_s + max(operation.set_pulses.width_s, operation.reset_pulses.width_s)
            pulses = int(operation.budget().sum())
            length_s = pulses * (pulse_s + read_s) + len(operation.cells) * read_s
        elif isinstance(operation, Multiply):
            length_s = operation.inputs.shape[0] * (settle_s + spent.get("multiply_s", 0.0))
        elif isinstance(operation, Wait):
            length_s = operation.seconds
        else:
            length_s = len(operation.cells) * spent.get("word_s", 0.0)
        return length_s * envelope.pace if math.isfinite(length_s) else 0.0


class _AnyBoard(TestChipBoard):
    """A board with whatever chip in its socket, for `identify_at`."""

    @override
    def _check_board(self, envelope: Envelope, known: Envelope | None) -> None:
        return


def _code_vectors(block: Block, repeat: int, can: Capabilities) -> int:
    """Vectors that a board may need at most to read a block by codes."""
    vectors = 128 + (repeat + 2) * code_order(block.rows)
    return vectors if can.signed_inputs else 2 * vectors


def _words(geometry: Geometry) -> str:
    return (
        f"{geometry.tiles} x {geometry.rows} x {geometry.columns} {geometry.cell} cells "
        f"(tiles x rows x columns, source lines: {geometry.source_lines}, selectors:"
        f" {geometry.selector})"
    )
