"""A board's own firmware before a simulated chip: the program of firmware/host, in a process.

The host's bytes go to its standard input, its own to the host; faults of the link are acted out in
between. What it asks of its hardware (firmware/host/main.c says how) is answered from the chip, so
that the same seed gives the same cells as the simulated board's. A loss of power kills the process.
Where the process ends by itself, every request is answered with that.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from typing_extensions import override

from rram_hil import __version__
from rram_hil.array import (
    Cells,
    Geometry,
    Limits,
    Multiply,
    MultiplyResult,
    Program,
    Scheme,
    Wait,
    WriteWords,
)
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.simulation.board_envelope import board_envelope
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.shots import FLOATING, SHOT, Shots
from rram_hil.types import IntArray

from ..server.control import Injected, LinkFault
from .codec import (
    COMMANDS,
    Parser,
    Part,
    RefusalError,
    body_limits_reply,
    identify_reply,
    limits_reply,
    parse_operation,
    reply_frames,
)
from .far_side import MAGIC, MODEL, STRANGE_MAGIC, BoardSide
from .host_links import HostLink
from .link_faults import ON_OPERATION, ON_REPLY, ON_REQUEST, flipped, spoiled

SCHEMES = (Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING, Scheme.HALF, Scheme.THIRD)
APPLY, PROGRAM, READ_BLOCKS = 0x10, 0x11, 0x15
DRIVING = (APPLY, PROGRAM, 0x12, READ_BLOCKS)
KEEP_ALIVE = 0x07
MORE, ERROR, WORKING = 2, 4, 8
HEADER = 36
ABILITIES = 88
"""Offset in the reply of IDENTIFY."""
STUCK_S = 0.002
START_S = 30.0
"""How long a program may take until it has told its state for the first time."""
BY_SHOTS, BY_CONVERSIONS, STICKY_SWITCHES, THREE_LINES = 1, 2, 4, 8
WAY = "RRAM_HIL_FIRMWARE_WAY"
"""Environment variable: a sum of `BY_SHOTS` (the firmware asks for line after line),
`BY_CONVERSIONS` (and for products cell by cell) and `THREE_LINES` (its hooks for bodies, unselected
word lines and both currents are missing), as boards do that have no better, and `STICKY_SWITCHES`
(what has been closed once does not open again).
"""


class _PowerLossError(Exception):
    """The firmware is gone in the middle of what it asked for."""


@dataclass(eq=False)
class _Job:
    """An operation that the firmware carries out; `shots` where it takes any."""

    number: int
    kind: int
    cells: IntArray
    fault: Injected | None
    shots: Shots | None
    given: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    most: IntArray | None = None
    """Pulses that each cell of the chip takes before a loss of power; None: half of the cells."""

    @property
    def fault_kind(self) -> LinkFault | None:
        return None if self.fault is None else self.fault.kind


@dataclass(eq=False)
class _Running:
    """One life of the firmware: its process and the array's end of the socket; whether it is known
    to work or not, whether it was killed or ended by itself, and the last line of its errors.
    """

    process: subprocess.Popen[bytes]
    array: socket.socket
    is_decided: threading.Event = field(default_factory=threading.Event)
    is_killed: bool = False
    has_ended: bool = False
    last_line: str = ""

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen, name="firmware", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Pass on what the process writes as errors."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            self.last_line = line.decode(errors="replace").strip() or self.last_line

    def ended(self) -> str:
        """How the process ended, once it has."""
        status = self.process.wait()
        self._listener.join(1.0)
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        said = f": {self.last_line}" if self.last_line else ""
        return f"the firmware's process ended by itself ({how}){said}"

    @property
    def input(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def kill(self) -> None:
        self.is_killed = True
        self.process.kill()
        self.process.wait()
        self.array.close()
        with contextlib.suppress(OSError):
            self.input.close()


class FirmwareBoard(BoardSide):
    """The firmware, its link and its chip. Raises `ConfigError` where it does not start."""

    def __init__(self, link: HostLink, chip: SimulatedChip, limits: Limits, program: Path) -> None:
        super().__init__(link, chip)
        if sys.platform == "win32":
            raise ConfigError("simulation.firmware: not on Windows; leave it out")
        self._program, self._own_limits = program, limits
        self._can = board_envelope(chip.capabilities, chip.geometry)
        self._parser, self._parts = Parser(), list[Part]()
        self._request = b""
        self._unanswered: dict[int, int] = {}
        """Type of each request, by its sequence."""
        self._boot, self._executions = 0, 0
        self._state = dict.fromkeys(("last", "trips", "armed"), 0)
        self._job: _Job | None = None
        self._is_closed = threading.Event()
        self._write_lock = threading.Lock()
        self._hooks: dict[bytes, Callable[[bytes], bytes]] = {
            b"H": self._hello,
            b"C": lambda _: b"",
            b"T": self._tell,
            b"B": self._begin,
            b"R": self._run,
            b"M": self._multiply,
            b"W": self._rest,
            b"S": self._store,
            b"E": self._end,
        }
        self._power_up()
        self._wait_until_it_works()

    # The process

    def _power_up(self) -> None:
        here, there = socket.socketpair()
        self._boot = (self._boot + secrets.randbelow(0xFFFFFFFE)) % 0xFFFFFFFF + 1
        self._state |= {"trips": 0, "armed": 0}
        self._unanswered.clear()
        try:
            process = subprocess.Popen(
                [self._program, str(there.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(there.fileno(),),
            )
        except OSError as error:
            raise ConfigError(f"simulation.firmware: {self._program}: {error.strerror}") from None
        there.close()
        self._running = running = _Running(process, here)
        for work in (self._answer_hooks, self._pass_replies):
            threading.Thread(target=work, args=(running,), name="firmware", daemon=True).start()

    def _wait_until_it_works(self) -> None:
        running = self._running
        if not running.is_decided.wait(START_S):
            running.kill()
            raise ConfigError(
                f"simulation.firmware: {self._program}: it does not ask its hardware as a board of"
                f" firmware/ does within {START_S:g} s"
            )
        if running.has_ended:
            raise ConfigError(f"simulation.firmware: {self._program}: {running.ended()}")

    def _lose_power(self) -> None:
        """Power-cycle the board; the chip is held."""
        if self._job is not None and self._job.shots is not None:
            self._job.shots.end()
        self._job = None
        self._running.kill()
        self._power_up()

    # The link

    @override
    def serve(self) -> None:
        while not self._is_closed.is_set():
            data = self._link.read(0.02)
            if data:
                self._take(data)
        self._link.close()

    def _take(self, data: bytes) -> None:
        if self.faults.take(frozenset({LinkFault.CORRUPT_REQUEST}), ""):
            data = flipped(data)
        for item in self._parser.push(data):
            if isinstance(item, Part) and self._is_lost(item):
                return
        running = self._running
        # A firmware that has just lost its power loses what comes meanwhile.
        with contextlib.suppress(OSError, ValueError):
            running.input.write(data)
            running.input.flush()
        if running.has_ended:
            self._answer_for(running)

    def _is_lost(self, part: Part) -> bool:
        """Note a whole request; whether a fault loses it."""
        self._parts = [*self._parts, part] if part.part else [part]
        if part.more:
            return False
        self._request = b"".join(p.payload for p in self._parts)
        if part.command != KEEP_ALIVE:
            self._unanswered[part.sequence] = part.command
        fault = self.faults.take(ON_REQUEST, COMMANDS.get(part.command, ""))
        if fault is None:
            return False
        if fault.kind is LinkFault.DELAY_REQUEST:
            time.sleep(fault.seconds)
        elif fault.kind is LinkFault.LEFT_OVER:
            self._write(
                reply_frames(
                    part.command,
                    part.sequence ^ 1,
                    self._boot,
                    self.chip.now_s,
                    b"of an earlier program",
                )
            )
        elif fault.kind is LinkFault.CRASH:
            os._exit(3)
        elif fault.kind is LinkFault.REBOOT_BEFORE:
            self.reboot(drop_link=False)
        elif fault.kind is LinkFault.DISCONNECT_REQUEST:
            self._link.drop()
        return fault.kind not in (LinkFault.DELAY_REQUEST, LinkFault.LEFT_OVER)

    def _write(self, frames: Any) -> None:
        with self._write_lock:
            for frame in frames:
                self._link.write(frame)

    def _pass_replies(self, running: _Running) -> None:
        """Frames of the firmware to the host, with the faults that wait for them."""
        waiting: dict[int, tuple[Injected | None, list[bytes]]] = {}
        while len(head := running.output.read(HEADER)) == HEADER:
            command, flags = head[5], head[6]
            sequence, _, part, length = struct.unpack_from("<4I", head, 8)
            frame = head + running.output.read(length + 4)
            if running is not self._running or len(frame) < HEADER + length + 4:
                break
            if flags & WORKING:
                self._write([frame])
                continue
            if part == 0:
                name = COMMANDS.get(command, "")
                waiting[sequence] = self.faults.take(ON_REPLY, name), []
            fault, frames = waiting[sequence]
            frames.append(self._pretending(frame) if command == 0x01 else frame)
            if fault is None:
                self._write([frames.pop()])
            if not flags & MORE:
                del waiting[sequence]
                self._unanswered.pop(sequence, None)
                if fault is not None:
                    self._spoil(frames, fault)
        if not running.is_killed:
            running.ended()
            running.has_ended = True
            self._answer_for(running)
        running.is_decided.set()

    def _answer_for(self, running: _Running) -> None:
        """Answer for a firmware that is gone, so that the host need not guess at a bad link."""
        gone = RefusalError("HARDWARE", f"{self._program}: {running.ended()}")
        for sequence, command in list(self._unanswered.items()):
            del self._unanswered[sequence]
            now_s, payload = self.chip.now_s, gone.payload()
            self._write(reply_frames(command, sequence, self._boot, now_s, payload, flags=ERROR))

    def _spoil(self, frames: list[bytes], fault: Injected) -> None:
        if fault.kind is LinkFault.DELAY_REPLY:
            time.sleep(fault.seconds)
        if fault.kind is LinkFault.DISCONNECT_REPLY:
            self._link.drop()
        elif fault.kind is not LinkFault.DROP_REPLY:
            self._write(spoiled(frames, fault))

    def _pretending(self, frame: bytes) -> bytes:
        """A reply of IDENTIFY, as another device's where that fault waits."""
        if self.faults.take(frozenset({LinkFault.WRONG_MODEL}), "IDENTIFY") is None:
            return frame
        sequence, boot, _, length = struct.unpack_from("<4I", frame, 8)
        payload = frame[HEADER : HEADER + length].replace(MAGIC, STRANGE_MAGIC)
        (made,) = reply_frames(0x01, sequence, boot, self.chip.now_s, payload, size=length)
        return made

    # The hardware

    def _answer_hooks(self, running: _Running) -> None:
        """Answer what one life of the firmware asks of its hardware, until it ends."""
        with contextlib.suppress(OSError, _PowerLossError), running.array.makefile("rb") as asked:
            while len(head := asked.read(5)) == 5:
                payload = asked.read(int.from_bytes(head[:4], "little"))
                with self.chip_lock:
                    if running is not self._running:
                        return
                    answer = self._hooks[head[4:]](payload)
                    now_s = struct.pack("<d", self.chip.now_s)
                running.array.sendall(struct.pack("<I", 8 + len(answer)) + now_s + answer)

    def _hello(self, _: bytes) -> bytes:
        """Boot number, the way, envelope, limits and what the board's nonvolatile memory holds."""
        chip, every = self.chip, Cells.all(self._geometry)
        numbers = chip.last_numbers(every)
        pulses = chip.latest_pulses()
        way = int(os.environ.get(WAY, "0"))
        return b"".join(
            (
                struct.pack("<II", self._boot, way),
                self._envelope(),
                limits_reply(self._own_limits),
                body_limits_reply(self._own_limits),
                struct.pack("<I", chip.last_number),
                numbers.astype("<u4").tobytes(),
                pulses.astype("<u4").tobytes(),
                chip.words.ravel().astype("<i4").tobytes(),
            )
        )

    def _envelope(self) -> bytes:
        can, geometry, timing = self._can, self._geometry, self._timing
        cell = {"1T1R": 0, "1R": 1}[geometry.cell]
        if geometry.selector == "pmos":
            cell = 2
        source = {"row": 0, "column": 1, "common": 2}[geometry.source_lines]
        texts = (MODEL, f"SIM-{self.chip.chip_id}", __version__, self.chip.chip_id)
        encoded = [text.encode()[:200] for text in texts]
        return b"".join(
            (
                struct.pack("<5I", cell, source, geometry.tiles, geometry.rows, geometry.columns),
                *(
                    struct.pack("<3i", *_microvolts(span))
                    for span in (can.bl_v, can.sl_v, can.wl_v)
                ),
                struct.pack("<I", sum(1 << k for k, s in enumerate(SCHEMES) if s in can.schemes)),
                struct.pack("<3Q", *_picoseconds(can.width_s)),
                struct.pack("<I", _abilities(can, geometry)),
                struct.pack("<2I", can.max_cells, can.max_steps),
                struct.pack("<3I", can.max_vectors, can.words, can.max_words),
                struct.pack("<3I", can.word_bits, can.input_bits, can.adc_bits),
                struct.pack("<I", round(can.abort_s * 1e6)),
                struct.pack("<2d", timing.bytes_per_s, self.chip.simulation.pace),
                struct.pack("<3d", timing.edge_s, timing.settle_s, timing.conversion_s),
                struct.pack("<3d", timing.multiply_s, timing.word_s, timing.link_s),
                *(struct.pack("<I", len(text)) + text for text in encoded),
            )
        )

    def _tell(self, payload: bytes) -> bytes:
        last, trips, armed, _, self.chip.read_v = struct.unpack("<4Id", payload)
        self._state |= {"last": last, "trips": trips, "armed": armed}
        self._running.is_decided.set()
        return b""

    def _begin(self, payload: bytes) -> bytes:
        number, kind, scheme, decides, compliance_a, size, n = struct.unpack_from(
            "<IBBBxdII", payload
        )
        cells = np.frombuffer(payload, "<u4", n, 32).astype(np.int64)
        self.chip.note_number(number)
        self.chip.advance(self._message_s(size) + self._timing.link_s)
        fault = self.faults.take(ON_OPERATION, COMMANDS[kind])
        shots = None
        if kind not in (0x13, 0x14):
            # Products that are sums of conversions read cells that are not listed.
            compliance = None if math.isnan(compliance_a) else compliance_a
            index = cells if kind in (APPLY, PROGRAM) else np.arange(self._geometry.size)
            shots = Shots(
                self.chip,
                number,
                index,
                SCHEMES[scheme],
                compliance,
                decides=bool(decides),
                programs=kind == PROGRAM,
            )
        self._job = _Job(number, kind, cells, fault, shots)
        if self._job.fault_kind is LinkFault.REBOOT_DURING and kind == PROGRAM:
            operation = parse_operation(kind, self._request, self._geometry)
            if isinstance(operation, Program) and operation.verify == "coded":
                self._job.given = np.zeros(self._geometry.size, dtype=np.int64)
                self._job.most = np.zeros(self._geometry.size, dtype=np.int64)
                self._job.most[cells] = (operation.budget() + 1) // 2
        return b""

    def _run(self, payload: bytes) -> bytes:
        job, shots = self._job, np.frombuffer(payload, SHOT)
        assert job is not None
        assert job.shots is not None
        if job.fault_kind is LinkFault.STUCK:
            time.sleep(STUCK_S)
            return bytes(4)
        left = len(shots)
        if job.fault_kind is LinkFault.REBOOT_DURING:
            left = _until_half(job, shots)
        readings = job.shots.take(shots[:left])
        if left < len(shots):
            self._lose_power()
            raise _PowerLossError
        return len(shots).to_bytes(4, "little") + readings.tobytes()

    def _multiply(self, payload: bytes) -> bytes:
        job = self._job
        assert job is not None
        if job.fault_kind is LinkFault.STUCK:
            time.sleep(STUCK_S)
            return bytes(8)
        tile, row, rows, column, columns, read_uv, wl_uv, bits, full_scale_a, vectors, *levels = (
            struct.unpack_from("<5I2iIdI2i", payload)
        )
        inputs = np.frombuffer(payload, "<i2", vectors * rows, 52).reshape(vectors, rows)
        body, idle = (None if uv == FLOATING else uv / 1e6 for uv in levels)
        operation = Multiply(
            *(tile, row, column, columns, inputs, bits, read_uv / 1e6, wl_uv / 1e6, full_scale_a),
            body_v=body,
            unselected_wl_v=idle,
        )
        result = self.chip.execute(operation, job.number)
        assert isinstance(result, MultiplyResult)
        head = struct.pack("<iI", vectors, result.saturated)
        return head + result.codes.astype("<i4").tobytes()

    def _rest(self, payload: bytes) -> bytes:
        assert self._job is not None
        (seconds,) = struct.unpack("<d", payload)
        self.chip.execute(Wait(seconds), self._job.number)
        return b""

    def _store(self, payload: bytes) -> bytes:
        assert self._job is not None
        n, clear = struct.unpack_from("<II", payload)
        index = np.frombuffer(payload, "<u4", n, 8).astype(np.int64)
        values = np.frombuffer(payload, "<i4", n, 8 + 4 * n)
        cells = Cells.from_index(index, self._geometry)
        self.chip.execute(WriteWords(cells, values, bool(clear)), self._job.number)
        return b""

    def _end(self, payload: bytes) -> bytes:
        job = self._job
        assert job is not None
        self._executions += 1
        if job.fault_kind in (LinkFault.REBOOT_DURING, LinkFault.REBOOT_AFTER):
            self._lose_power()
            raise _PowerLossError
        if job.shots is not None:
            job.shots.end()
        self.chip.advance(self._message_s(int.from_bytes(payload, "little")))
        self._job = None
        return b""

    # Control

    @override
    def close(self) -> None:
        self._is_closed.set()
        self._running.kill()
        super().close()

    @override
    def reboot(self, *, drop_link: bool) -> None:
        """A loss of power: the process is killed between two shots; then a fresh one."""
        with self.chip_lock:
            self._lose_power()
        if drop_link:
            self._link.drop()

    @override
    def status(self) -> dict[str, Any]:
        job = self._job
        return {
            "outputs_on": job is not None and job.kind in DRIVING,
            "armed": bool(self._state["armed"]),
            "busy": job is not None,
            "trips": self._state["trips"],
            "boot": f"{self._boot:08x}",
            "last": self._state["last"],
            "now_s": self.chip.now_s,
            "executions": self._executions,
            "waiting_faults": len(self.faults),
        }


def _microvolts(span: Span) -> tuple[int, int, int]:
    low, high, step = (round(v * 1e6) for v in (span.low, span.high, span.step))
    return low, high, step


def _picoseconds(span: Span) -> tuple[int, int, int]:
    low, high, step = (round(s * 1e12) for s in (span.low, span.high, span.step))
    return low, high, step


def _abilities(can: Capabilities, geometry: Geometry) -> int:
    """As the reply of IDENTIFY tells them."""
    names = ("", "", "", "")
    told = identify_reply(can, geometry, names, max_message=0, rate=1.0, pace=0.0)
    return int.from_bytes(told[ABILITIES : ABILITIES + 4], "little")


def _until_half(job: _Job, shots: Any) -> int:
    """How many shots come before a loss of power in the middle of an operation: half of its cells,
    or of a coded write-verify, which treats all in turn, half of their pulses.
    """
    cells = shots["cell"].astype(np.int64)
    if job.most is not None:
        job.given[cells] += 1
        late = job.given[cells] > job.most[cells]
    else:
        late = np.isin(cells, job.cells[(job.cells.size + 1) // 2 :])
    return int(np.argmax(late)) if late.any() else len(shots)
