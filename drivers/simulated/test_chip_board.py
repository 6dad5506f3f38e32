"""A simulated test-chip board: the far side of docs/board-protocol.md in a process of its own,
before one `SimulatedChip`.

`launch` starts it; `python -m rram_hil.drivers.simulated.test_chip_board` is the process. It reads
its configuration as one line of JSON from its standard input, prints where it can be reached, and
ends when that input ends, so it never outlives its parent.

Virtual time: an operation costs its link time (`Timing.link_s` and the bytes of request and reply)
and its own duration. Commands that are no operation, keep-alives, notices and repeated replies
follow the host's real time, not the experiment, and cost none, so that the same experiment takes
the same virtual time. The watchdog runs on real time.
"""

from __future__ import annotations

import binascii
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from typing_extensions import override

from rram_hil import __version__
from rram_hil.array import (
    LINES,
    Apply,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    Step,
    WriteWords,
    check,
    stresses_cells,
)
from rram_hil.array.write_verify_rules import coded_verify
from rram_hil.errors import AbortedError, ConfigError, LimitError
from rram_hil.hardware.driver import check_extras
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.simulation.board_envelope import LARGEST_MESSAGE, board_envelope
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.converters import ADC_RANGES_A, DAC_STEP_V

from .board.codec import (
    COMMANDS,
    PROTOCOL,
    Damaged,
    Parser,
    Part,
    RefusalError,
    body_limits_reply,
    executed_reply,
    identify_reply,
    limits_reply,
    operation_number,
    parse_body_limits,
    parse_executed,
    parse_limits,
    parse_operation,
    parse_watchdog,
    reply_frames,
    result_reply,
    self_test_reply,
    status_reply,
)
from .board.far_side import MAGIC, MODEL, STRANGE_MAGIC, STRANGE_MODEL, BoardSide
from .board.firmware import FirmwareBoard
from .board.host_links import HostLink, PtyLink, SocketLink
from .board.link_faults import ON_OPERATION, ON_REPLY, ON_REQUEST, flipped, spoiled
from .server.control import Injected, LinkFault
from .server.process import GONE_S, serve, start

NOTICE_S = 0.1
GAP_S = 0.2
TICK_S = 0.02
WATCHDOG_MS = 2000
ERROR_FLAG, WORKING_FLAG = 4, 8
FIRST_OPERATION = 0x10
BODY_LIMITS = ("body_v", "body_over_v")
DRIVING = (Apply, Program, Multiply, CodedRead)
"""Operations during which outputs are on."""
WHILE_BUSY = frozenset({"IDENTIFY", "STATUS", "KEEP_ALIVE", "ABORT", "SAFE_OFF"})


@dataclass(eq=False)
class Job:
    """One operation under way. `stop` says why it was cancelled; `then` waits for its end; a silent
    job leaves no reply.
    """

    number: int
    command: int
    sequence: int
    operation: Operation
    digest: tuple[int, int]
    fault: Injected | None
    cancel: threading.Event = field(default_factory=threading.Event)
    stop: str = ""
    then: list[Callable[[], None]] = field(default_factory=list)
    is_silent: bool = False
    is_ended: bool = False


@dataclass(frozen=True)
class Kept:
    """The last operation's request (length and CRC) and its whole reply."""

    digest: tuple[int, int]
    message: bytes
    flags: int


class Board(BoardSide):
    """The board's firmware: frames in, frames out, one operation at a time on a thread of its own.

    `_lock` guards what the serving and the working thread share; `chip_lock` the chip;
    `_write_lock` one frame on the link.
    """

    def __init__(self, link: HostLink, chip: SimulatedChip, limits: Limits) -> None:
        super().__init__(link, chip)
        self._own_limits = limits
        self._can = board_envelope(chip.capabilities, chip.geometry)
        self._lock, self._write_lock = threading.RLock(), threading.Lock()
        self._work_list: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._executions = 0
        self._boot = 0
        self._is_closed = threading.Event()
        self._boot_up()
        threading.Thread(target=self._work, name="work", daemon=True).start()

    def _boot_up(self) -> None:
        """Everything that a reboot forgets; the chip with its records stays."""
        with self._lock:
            self._boot = (self._boot + secrets.randbelow(0xFFFFFFFE)) % 0xFFFFFFFF + 1
            # The body may not be driven before its limits are set.
            self._limits = self._own_limits.model_copy(update={"body_v": 0.0, "body_over_v": 0.0})
            self._limits_set, self._armed = False, False
            self._watchdog_ms, self._trips, self._tripped = WATCHDOG_MS, 0, False
            self._last = self.chip.last_number
            self._kept: Kept | None = None
            self._job: Job | None = None
            self._parser = Parser()
            self._parts: list[Part] = []
            self._heard_s = self._noticed_s = self._byte_s = time.monotonic()

    # Serving

    @override
    def serve(self) -> None:
        while not self._is_closed.is_set():
            data = self._link.read(TICK_S)
            now_s = time.monotonic()
            if data:
                self._byte_s = now_s
                if self.faults.take(frozenset({LinkFault.CORRUPT_REQUEST}), ""):
                    data = flipped(data)
                items = self._parser.push(data)
            elif self._parser.is_inside and now_s - self._byte_s > GAP_S:
                items = self._parser.timeout()
            else:
                items = []
            for item in items:
                self._take(item)
            self._tick()
        self._link.close()

    @override
    def close(self) -> None:
        self._is_closed.set()
        self._work_list.put(lambda: None)
        super().close()

    def _tick(self) -> None:
        """Working notices and the watchdog."""
        now_s = time.monotonic()
        with self._lock:
            job = self._job
            if job is None:
                return
            if now_s - self._heard_s > self._watchdog_ms / 1e3 and not job.cancel.is_set():
                self._trips, self._tripped, self._armed = self._trips + 1, True, False
                self._stop(job, "WATCHDOG")
            due = now_s - self._noticed_s > NOTICE_S
            if due:
                self._noticed_s = now_s
        if due:
            self._send(job.command, job.sequence, job.number.to_bytes(4, "little"), WORKING_FLAG)

    def _take(self, item: Part | Damaged) -> None:
        if isinstance(item, Damaged):
            self._refuse(item.command, item.sequence, RefusalError("CRC", "the frame was damaged"))
            return
        self._heard_s = time.monotonic()
        try:
            whole = self._joined(item)
            if whole is not None:
                self._message(item, whole)
        except RefusalError as refusal:
            self._refuse(item.command, item.sequence, refusal)

    def _joined(self, part: Part) -> bytes | None:
        """The message that this part completes."""
        if part.version != PROTOCOL:
            raise RefusalError(
                "VERSION", f"this board speaks version {PROTOCOL}, not {part.version}"
            )
        if part.part == 0 and not part.more:
            return part.payload
        if part.part == 0:
            self._parts = []
        same = self._parts[-1:] and self._parts[-1].sequence == part.sequence
        size = sum(len(p.payload) for p in self._parts) + len(part.payload)
        if part.part != len(self._parts) or (part.part and not same) or size > LARGEST_MESSAGE:
            self._parts = []
            raise RefusalError(
                "INCOMPLETE",
                f"part {part.part} does not continue a message of at most {LARGEST_MESSAGE} bytes",
            )
        self._parts.append(part)
        if part.more:
            return None
        parts, self._parts = self._parts, []
        return b"".join(p.payload for p in parts)

    def _message(self, request: Part, payload: bytes) -> None:
        name = COMMANDS.get(request.command)
        if name is None or (name == "BODY_LIMITS" and "body_v" not in self._can.step_extras):
            raise RefusalError("UNKNOWN TYPE", f"type {request.command:#04x} is not known")
        fault = self.faults.take(ON_REQUEST, name)
        if fault is not None and self._is_lost(fault, request):
            return
        if name != "IDENTIFY" and request.boot not in (0, self._boot):
            raise RefusalError(
                "STALE BOOT",
                f"this is boot {self._boot:08x}, the request is for {request.boot:08x}",
            )
        with self._lock:
            job = self._job
        if request.command >= FIRST_OPERATION:
            self._operation(request, payload)
        elif job is not None and name not in WHILE_BUSY:
            raise RefusalError("BUSY", f"operation {job.number} is under way", job.number)
        elif name in ("ABORT", "SAFE_OFF") and job is not None:
            with self._lock:
                if not job.is_ended:
                    self._stop(job, "ABORTED")
                    job.then.append(lambda: self._answer(request, name, payload, job.number))
                    return
            self._answer(request, name, payload, job.number)
        elif name != "KEEP_ALIVE":
            self._answer(request, name, payload, 0)

    def _is_lost(self, fault: Injected, request: Part) -> bool:
        """Let a fault of a request happen; whether the request is lost by it."""
        if fault.kind is LinkFault.DELAY_REQUEST:
            time.sleep(fault.seconds)
        elif fault.kind is LinkFault.LEFT_OVER:
            self._send(request.command, request.sequence ^ 1, b"of an earlier program")
        elif fault.kind is LinkFault.CRASH:
            os._exit(3)
        elif fault.kind is LinkFault.REBOOT_BEFORE:
            self.reboot(drop_link=False)
        elif fault.kind is LinkFault.DISCONNECT_REQUEST:
            self._link.drop()
        return fault.kind not in (LinkFault.DELAY_REQUEST, LinkFault.LEFT_OVER)

    def _stop(self, job: Job, why: str) -> None:
        job.stop = job.stop or why
        job.cancel.set()

    # Commands

    def _answer(self, request: Part, name: str, payload: bytes, stopped: int) -> None:
        """Carry out a command that is no operation and answer it."""
        try:
            if name == "LIMITS":
                message = self._set_limits(payload)
            elif name == "BODY_LIMITS":
                message = self._set_body_limits(payload)
            elif name == "EXECUTED":
                number, cells = parse_executed(payload, self._geometry)
                message = executed_reply(
                    number, self.chip.executed(number, cells), self.chip.last_numbers(cells)
                )
            elif name == "WATCHDOG":
                self._watchdog_ms = parse_watchdog(payload)
                message = payload
            else:
                if payload:
                    raise RefusalError("BAD REQUEST", f"{name} has no payload")
                message = self._plain(name, stopped)
        except RefusalError as refusal:
            self._refuse(request.command, request.sequence, refusal)
            return
        self._send(request.command, request.sequence, message)

    def _plain(self, name: str, stopped: int) -> bytes:
        if name == "IDENTIFY":
            return self._identity()
        if name == "ABORT":
            return stopped.to_bytes(4, "little") + bytes(4)
        if name == "SELF_TEST":
            return self_test_reply(
                [(True, 0.0, "memory errors", ""), (True, 0.0, "DAC to ADC loop error", "V")]
            )
        if name == "ARM":
            if not self._limits_set:
                raise RefusalError("NOT ARMED", "limits have not been set since boot")
            self._armed, self._tripped = True, False
        elif name == "SAFE_OFF":
            self._armed = False
        with self._lock:
            job = self._job
            driving = job is not None and isinstance(job.operation, DRIVING)
            flags = (driving, self._armed, job is not None, self._tripped, self._limits_set, False)
            return status_reply(
                flags, self._last, 0 if job is None else job.number, self._watchdog_ms, self._trips
            )

    def _identity(self) -> bytes:
        strange = self.faults.take(frozenset({LinkFault.WRONG_MODEL}), "IDENTIFY") is not None
        serial = f"SIM-{self.chip.chip_id}"
        model = STRANGE_MODEL if strange else MODEL
        return identify_reply(
            self._can,
            self._geometry,
            (model, serial, __version__, self.chip.chip_id),
            max_message=LARGEST_MESSAGE,
            rate=self._timing.bytes_per_s,
            pace=self.chip.simulation.pace,
            magic=STRANGE_MAGIC if strange else MAGIC,
        )

    def _set_limits(self, payload: bytes) -> bytes:
        if payload:
            wanted, own = parse_limits(payload), self._own_limits
            for name, value in wanted.model_dump(exclude={"read_v_reason"}).items():
                if name == "conductance_s":
                    bad = not (
                        own.conductance_s[0] <= value[0] and value[1] <= own.conductance_s[1]
                    )
                else:
                    bad = not value <= getattr(own, name)
                if bad:
                    raise RefusalError(
                        "LIMIT",
                        f"limit {name} {value} is beyond this board's own {getattr(own, name)}",
                    )
            body = {name: getattr(self._limits, name) for name in BODY_LIMITS}
            self._limits = wanted.model_copy(update=body)
            self._limits_set, self._armed = True, False
            self.chip.read_v = wanted.read_v
        return limits_reply(self._limits)

    def _set_body_limits(self, payload: bytes) -> bytes:
        if payload:
            wanted = dict(zip(BODY_LIMITS, parse_body_limits(payload), strict=True))
            for name, value in wanted.items():
                own = getattr(self._own_limits, name)
                if not value <= own:
                    text = f"limit {name} {value} is beyond this board's own {own}"
                    raise RefusalError("LIMIT", text)
            self._limits, self._armed = self._limits.model_copy(update=wanted), False
        return body_limits_reply(self._limits)

    # Operations

    def _operation(self, request: Part, payload: bytes) -> None:
        number, digest = operation_number(payload), (len(payload), binascii.crc32(payload))
        with self._lock:
            if self._job is not None:
                raise RefusalError(
                    "BUSY", f"operation {self._job.number} is under way", self._job.number
                )
            kept = self._kept
        if number == 0 or number < self._last:
            raise RefusalError(
                "NUMBER PAST", f"operation {number} is not above the last, {self._last}", number
            )
        if number == self._last and kept is not None:
            if kept.digest != digest:
                raise RefusalError("NUMBER REUSED", f"operation {number} was another one", number)
            # By the working thread, so that the board goes on reading while it sends.
            self._work_list.put(
                partial(self._send, request.command, request.sequence, kept.message, kept.flags)
            )
            return
        operation = parse_operation(request.command, payload, self._geometry)
        if number == self._last and isinstance(operation, Apply | Program):
            given = int(self.chip.executed(number, operation.cells).sum())
            if given:
                text = f"operation {number} had given {given} pulses before the reboot"
                raise RefusalError("ALREADY EXECUTED", text, number)
        if not self._armed:
            why = (
                "the watchdog has tripped"
                if self._tripped
                else "ARM has not been sent since boot or SAFE OFF"
            )
            raise RefusalError("NOT ARMED", f"the board is not armed: {why}", number)
        self._check(operation, number)
        fault = self.faults.take(ON_OPERATION, COMMANDS[request.command])
        job = Job(number, request.command, request.sequence, operation, digest, fault)
        with self._lock:
            self._job, self._last, self._noticed_s = job, number, time.monotonic()
        self._work_list.put(partial(self._run, job))

    def _check(self, operation: Operation, number: int) -> None:
        """The board's own look at an operation, after the host's: envelope, then limits."""
        can = self._can
        for name, value, most in self._sizes(operation):
            if value > most:
                raise RefusalError("RANGE", f"{name}: {value}, at most {most}", number)
        try:
            check_extras(operation, can)
        except ConfigError as error:
            raise RefusalError("RANGE", str(error), number) from None
        for step in _steps(operation):
            if not can.width_s.holds(step.width_s, step.width_s):
                raise RefusalError(
                    "RANGE",
                    f"width {step.width_s:g} s, {can.width_s.low:g} to {can.width_s.high:g} s",
                    number,
                )
        try:
            check(operation, self._geometry, self._limits)
        except LimitError as error:
            raise RefusalError("LIMIT", str(error), number) from None
        except ConfigError as error:
            raise RefusalError("RANGE", str(error), number) from None
        for line, lowest, highest in _reach(operation):
            # Bodies and word lines that are not selected have the converters of word lines.
            span = {"bl": can.bl_v, "sl": can.sl_v}.get(line, can.wl_v)
            if not span.holds(lowest, highest):
                text = (
                    f"{line.upper()} {lowest:g} to {highest:g} V, drivers reach {span.low:g} to"
                    f" {span.high:g} V"
                )
                raise RefusalError("RANGE", text, number)

    def _sizes(self, operation: Operation) -> list[tuple[str, int, int]]:
        """What an operation counts, with the most that the board takes."""
        can = self._can
        if isinstance(operation, Multiply):
            return [
                ("vectors", operation.inputs.shape[0], can.max_vectors),
                ("input bits", operation.input_bits, can.input_bits),
                *self._negative(operation),
            ]
        if isinstance(operation, CodedRead):
            return [("cells of blocks", sum(b.size for b in operation.blocks), can.max_coded_cells)]
        if isinstance(operation, WriteWords):
            largest = int(abs(operation.values.astype("i8")).max(initial=0))
            return [
                ("words", len(operation.cells), can.max_words),
                ("|word|", largest, (1 << (can.word_bits - 1)) - 1),
            ]
        if not isinstance(operation, Apply | Program):
            return []
        cells = ("cells", len(operation.cells), can.max_cells)
        if isinstance(operation, Program):
            return [cells]
        return [("steps", len(operation.steps) * operation.repeat, can.max_steps), cells]

    def _negative(self, operation: Multiply) -> list[tuple[str, int, int]]:
        if self._can.signed_inputs:
            return []
        return [("inputs below 0", int((operation.inputs < 0).sum()), 0)]

    def _work(self) -> None:
        """The working thread."""
        while not self._is_closed.is_set():
            self._work_list.get()()

    def _run(self, job: Job) -> None:
        kind = None if job.fault is None else job.fault.kind
        with self.chip_lock:
            try:
                self.chip.advance(self._message_s(job.digest[0]) + self._timing.link_s)
                message, flags = self._carried_out(job, kind), 0
            except RefusalError as refusal:
                message, flags = refusal.payload(), ERROR_FLAG
            self.chip.advance(self._message_s(len(message)))
        if kind in (LinkFault.REBOOT_DURING, LinkFault.REBOOT_AFTER):
            self._boot_up()
            return
        with self._lock:
            job.is_ended = True
            if job.is_silent:
                return
            self._kept, self._job = Kept(job.digest, message, flags), None
        self._send(job.command, job.sequence, message, flags)
        for action in job.then:
            action()

    def _carried_out(self, job: Job, kind: LinkFault | None) -> bytes:
        """The reply of an operation; a `RefusalError` where it was stopped."""
        operation = job.operation
        if kind is LinkFault.STUCK:
            job.cancel.wait()
        elif kind is LinkFault.REBOOT_DURING:
            operation = _first_half(operation)
        if not job.cancel.is_set():
            try:
                bounded = _bounded(operation, self._geometry, self._limits)
                result = self.chip.execute(bounded, job.number, job.cancel)
                self._executions += 1
            except AbortedError:
                job.stop = job.stop or "ABORTED"
            except Exception as error:
                # Whatever it is, the board goes on answering: SAFE OFF must never wait for it.
                text = f"{type(error).__name__}: {error}"
                raise RefusalError("HARDWARE", text, job.number) from None
        if job.cancel.is_set():
            why = "the host was silent" if job.stop == "WATCHDOG" else "it was told to stop"
            raise RefusalError(
                job.stop, f"operation {job.number} was stopped: {why}; outputs are off", job.number
            )
        return result_reply(job.number, operation, result, self._can.adc_bits)

    # Sending

    def _refuse(self, command: int, sequence: int, refusal: RefusalError) -> None:
        self._send(command, sequence, refusal.payload(), ERROR_FLAG)

    def _send(self, command: int, sequence: int, message: bytes, flags: int = 0) -> None:
        """Send a reply or notice, with the fault that waits for it."""
        name = COMMANDS.get(command, "")
        fault = None if flags & WORKING_FLAG else self.faults.take(ON_REPLY, name)
        kind = None if fault is None else fault.kind
        if kind is LinkFault.DROP_REPLY:
            return
        if fault is not None and kind is LinkFault.DELAY_REPLY:
            time.sleep(fault.seconds)
        if kind is LinkFault.DISCONNECT_REPLY:
            self._link.drop()
            return
        frames: Iterable[bytes] = reply_frames(
            command,
            sequence,
            self._boot,
            self.chip.now_s,
            message,
            flags=flags,
            size=self._frame_bytes,
        )
        if fault is not None:
            frames = spoiled(list(frames), fault)
        for frame in frames:
            with self._write_lock:
                self._link.write(frame)

    # Control

    @override
    def reboot(self, *, drop_link: bool) -> None:
        """A loss of power: the operation under way stops between cells and leaves no reply; then a
        fresh boot.
        """
        with self._lock:
            job = self._job
            if job is not None:
                job.is_silent = True
                self._stop(job, "ABORTED")
        with self.chip_lock:
            self._boot_up()
        if drop_link:
            self._link.drop()

    @override
    def status(self) -> dict[str, Any]:
        with self._lock:
            job = self._job
            return {
                "outputs_on": job is not None and isinstance(job.operation, DRIVING),
                "armed": self._armed,
                "busy": job is not None,
                "trips": self._trips,
                "boot": f"{self._boot:08x}",
                "last": self._last,
                "now_s": self.chip.now_s,
                "executions": self._executions,
                "waiting_faults": len(self.faults),
            }


def _first_half(operation: Operation) -> Operation:
    """What a loss of power in the middle leaves of an operation: half of its cells, which are
    treated one after the other; of a coded write-verify, which treats all in turn, half of the
    pulses.
    """
    if isinstance(operation, Program) and operation.verify == "coded":
        return replace(operation, max_pulses=(operation.budget() + 1) // 2)
    if isinstance(operation, Apply | Program):
        return operation.part(slice(0, (len(operation.cells) + 1) // 2))
    return operation


def _bounded(operation: Operation, geometry: Geometry, limits: Limits) -> Operation:
    """The operation under the limit's current where it gives pulses and asks for no compliance of
    its own.
    """
    if isinstance(operation, Apply) and not stresses_cells(operation, geometry, limits):
        return operation
    if isinstance(operation, Apply | Program) and operation.compliance_a is None:
        return replace(operation, compliance_a=limits.current_a)
    return operation


def _steps(operation: Operation) -> tuple[Step, ...]:
    """Every step that an operation may take."""
    if isinstance(operation, Program):
        return (operation.read, *operation.extremes())
    return operation.steps if isinstance(operation, Apply) else ()


def _reach(operation: Operation) -> list[tuple[str, float, float]]:
    """The lines that an operation drives, each with its lowest and highest level (V)."""
    reach: list[tuple[str, float, float]] = []
    if isinstance(operation, Multiply | CodedRead):
        read_v, wl_v = operation.read_v, operation.wl_v
        reach += [("sl", -read_v, read_v), ("wl", wl_v, wl_v), *_reach_beside(operation)]
    if not isinstance(operation, Apply | Program) or len(operation.cells) == 0:
        return reach
    for step in _steps(operation):
        for line in LINES:
            levels = step.levels(line, len(operation.cells))
            if levels is not None:
                reach.append((line, float(levels.min()), float(levels.max())))
        reach += _reach_beside(step)
    if isinstance(operation, Program) and operation.verify == "coded":
        reach += _reach(coded_verify(operation, np.arange(len(operation.cells))))
    return reach


def _reach_beside(said: Step | Multiply | CodedRead) -> list[tuple[str, float, float]]:
    levels = {"body": said.body_v, "unselected wl": said.unselected_wl_v}
    return [(name, volts, volts) for name, volts in levels.items() if volts is not None]


def launch(request: FarSideRequest) -> SimulatedFarSide:
    """Start a simulated board; `settings` of the answer reach it, `stop` ends it. Raises
    `ConfigError` if it does not start.
    """
    started = start(__name__, request, "board")
    answer = started.answer
    board = ("board", "rram_hil test-chip board", answer["resource"])
    link = {"port": answer["resource"], "reconnect_s": GONE_S}
    settings = link | _accuracy(request)
    return SimulatedFarSide(settings, answer["control"], started.stop, (board,), started.is_running)


def _accuracy(request: FarSideRequest) -> dict[str, float]:
    """What this board's data sheet would state of its readings: half a step of the DAC at the read
    limit, half one of the ADC.
    """
    simulation = Simulation.model_validate(request.simulation)
    if not simulation.converters:
        return {}
    top = (1 << (simulation.adc_bits - 1)) - 1
    # The lowest range that holds the current is used, so a reading is at least a tenth of its
    # range.
    fraction = DAC_STEP_V / 2 / request.limits.read_v + 10 * 0.5 / top
    return {"read_fraction": fraction, "read_floor_a": 0.5 * ADC_RANGES_A[0] / top}


def board(request: FarSideRequest) -> BoardSide:
    """The board of a bench, with the faults of its file waiting; where `simulation.firmware` names
    a program, that is the board. Raises `ConfigError` for what does not fit together.
    """
    simulation = Simulation.model_validate(request.simulation)
    link = SocketLink() if simulation.transport == "socket" else PtyLink()
    chip = SimulatedChip(
        request.geometry,
        simulation,
        read_v=request.limits.read_v,
        chip_id=request.chip_id,
        folder=request.folder,
    )
    made: BoardSide
    if simulation.firmware is None:
        made = Board(link, chip, request.limits)
    else:
        made = FirmwareBoard(link, chip, request.limits, request.folder / simulation.firmware)
    for fault in simulation.faults:
        made.inject(fault)
    return made


if __name__ == "__main__":
    serve(board)
