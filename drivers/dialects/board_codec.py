"""Frames and messages of docs/board-protocol.md on the host's side: bytes in, bytes out, no link
and no clock.

The simulated board has a codec of its own; neither may import the other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Limits,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Result,
    Scheme,
    Selector,
    Status,
    Step,
    StepExtra,
    Wait,
    WaitResult,
    WordsResult,
    WriteWords,
)
from rram_hil.array import Span as TimeSpan
from rram_hil.errors import ConfigError, LimitError
from rram_hil.hardware.driver import Capabilities, Identity, Span
from rram_hil.types import FloatArray, IntArray

VERSION = 1
SYNC = b"\xa5RBZ"
MAGIC = b"RRAMTCB\0"
HEADER = struct.Struct("<4sBBBBIIIId")
CRC = struct.Struct("<I")
HEADER_SIZE = HEADER.size + CRC.size
OVERHEAD = HEADER_SIZE + CRC.size
"""Bytes of a frame beside its payload."""
MAX_PAYLOAD = 1 << 20
REPLY, MORE, ERROR, WORKING = 1, 2, 4, 8
FLOATING_UV = -(1 << 31)
MAX_V = 2147.483647
MAX_WIDTH_S = 2000.0
"""Up to here whole picoseconds and doubles turn into each other without loss."""

SCHEMES = (Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING, Scheme.HALF, Scheme.THIRD)
MEASURES = ("no", "current", "gate")
BOTH_CURRENTS = 3
"""The code of a step that measures the gate's current beside the bit line's."""
EXTRAS: tuple[tuple[int, StepExtra], ...] = (
    (1 << 9, "body_v"),
    (1 << 10, "unselected_wl_v"),
    (1 << 11, "also_gate"),
)
"""Ability bits of IDENTIFY, and what a step may say to a board that has them."""
LIMIT_FIELDS = (
    "bl_v",
    "sl_v",
    "wl_v",
    "cell_v",
    "gate_over_v",
    "half_select_v",
    "read_v",
    "current_a",
    "energy_j",
    "width_s",
    "read_width_s",
    "wait_s",
)
VERIFIES = ("single", "coded")
NO_VALUE = -(1 << 15)
"""The code of a cell without a value in the reply of a READ BLOCKS."""

# Replies of operations (section 6): fields in front, then columns with a value for each cell or for
# each of its readings, for each block or for each of its columns. Replies are decoded by these, and
# their lengths are known by them.
RESULT_HEAD = "2I2d"
APPLY_HEAD = "2I"
APPLY_OF_CELLS = ("u4", "u4")
APPLY_OF_READINGS = ("f8", "f8", "f8", "u1")
APPLY_GATES = "f8"
PROGRAM_OF_CELLS = ("f8", "u4", "u4", "u4", "u1", "u1")
CODED_PROGRAM_END = "I"
MULTIPLY_HEAD = "2Id2B6x"
READ_BLOCKS_HEAD = "2I"
READ_BLOCKS_OF_BLOCKS = ("f8",)
READ_BLOCKS_OF_COLUMNS = ("f8", "f8")
READ_BLOCKS_OF_CELLS = ("i2",)


class Kind(IntEnum):
    """Message types."""

    IDENTIFY = 0x01
    STATUS = 0x02
    LIMITS = 0x03
    ARM = 0x04
    SAFE_OFF = 0x05
    WATCHDOG = 0x06
    KEEP_ALIVE = 0x07
    ABORT = 0x08
    SELF_TEST = 0x09
    EXECUTED = 0x0A
    BODY_LIMITS = 0x0B
    APPLY = 0x10
    PROGRAM = 0x11
    MULTIPLY = 0x12
    WRITE_WORDS = 0x13
    WAIT = 0x14
    READ_BLOCKS = 0x15


class Code(IntEnum):
    """Error codes of the board."""

    BAD_REQUEST = 1
    UNKNOWN_TYPE = 2
    VERSION = 3
    STALE_BOOT = 4
    BUSY = 5
    NOT_ARMED = 6
    LIMIT = 7
    RANGE = 8
    NUMBER_PAST = 9
    NUMBER_REUSED = 10
    ALREADY_EXECUTED = 11
    ABORTED = 12
    WATCHDOG = 13
    HARDWARE = 14
    INCOMPLETE = 15
    WORDS_LOST = 16
    CRC = 17


class MalformedError(ValueError):
    """A message whose frames were sound says something that the protocol does not allow."""


@dataclass(frozen=True)
class Frame:
    """One frame with sound CRCs; `clock_s` is the board's clock in seconds."""

    kind: int
    flags: int
    sequence: int
    boot: int
    part: int
    clock_s: float
    payload: bytes
    version: int = VERSION


def encode_frame(frame: Frame) -> bytes:
    """The bytes of one frame."""
    head = HEADER.pack(
        SYNC,
        frame.version,
        frame.kind,
        frame.flags,
        0,
        frame.sequence,
        frame.boot,
        frame.part,
        len(frame.payload),
        frame.clock_s,
    )
    total = zlib.crc32(frame.payload, zlib.crc32(head))
    return b"".join((head, CRC.pack(zlib.crc32(head)), frame.payload, CRC.pack(total)))


def encode_request(
    kind: int, payload: bytes, sequence: int, boot: int, size: int
) -> Iterator[bytes]:
    """The frames of one request, with at most `size` bytes of payload in each."""
    parts = _parts(len(payload), size)
    for part in range(parts):
        more = MORE if part < parts - 1 else 0
        yield encode_frame(
            Frame(kind, more, sequence, boot, part, 0.0, payload[part * size : (part + 1) * size])
        )


def _parts(length: int, size: int) -> int:
    """How many frames of at most `size` bytes of payload a message of `length` bytes takes."""
    return max(1, -(-length // size))


def message_bytes(length: int, size: int) -> int:
    """Bytes on the link of a message of `length` bytes, cut as `encode_request` cuts it."""
    return length + _parts(length, size) * OVERHEAD


def frame_bytes(max_payload: int, link_bytes_per_s: float) -> int:
    """Payload of one frame so that it takes at most 50 ms on the link; 1024 is always allowed."""
    return int(min(max_payload, max(1024.0, 0.05 * link_bytes_per_s)))


class FrameReader:
    """Finds frames in a stream of bytes that may hold anything else as well.

    `garbage` keeps the first bytes that belonged to no frame, to name a stranger by what it says.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.garbage = b""

    @property
    def wanted(self) -> int:
        """How many bytes more the frame that has begun needs, at least 1."""
        if len(self._buffer) < HEADER_SIZE:
            return HEADER_SIZE - len(self._buffer)
        length: int = HEADER.unpack_from(self._buffer)[8]
        return max(1, HEADER_SIZE + length + CRC.size - len(self._buffer))

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames that are complete now."""
        self._buffer += data
        return self._collect()

    def give_up(self) -> list[Frame]:
        """The link has been silent inside a frame: drop its beginning, return what stood behind
        it.
        """
        if not self._buffer:
            return []
        self._drop(1)
        return self._collect()

    def clear(self) -> None:
        """Forget everything."""
        self._buffer.clear()
        self.garbage = b""

    def _collect(self) -> list[Frame]:
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _drop(self, count: int) -> None:
        self.garbage = (self.garbage + bytes(self._buffer[:count]))[:80]
        del self._buffer[:count]

    def _next(self) -> Frame | None:
        while True:
            at = self._buffer.find(SYNC)
            if at < 0:
                # The last bytes may be the beginning of a sync.
                keep = next((k for k in (3, 2, 1) if self._buffer.endswith(SYNC[:k])), 0)
                self._drop(len(self._buffer) - keep)
                return None
            if at:
                self._drop(at)
            if len(self._buffer) < HEADER_SIZE:
                return None
            fields = HEADER.unpack_from(self._buffer)
            (crc,) = CRC.unpack_from(self._buffer, HEADER.size)
            _, version, kind, flags, _, sequence, boot, part, length, clock_s = fields
            if crc != zlib.crc32(memoryview(self._buffer)[: HEADER.size]) or length > MAX_PAYLOAD:
                self._drop(1)
                continue
            end = HEADER_SIZE + length
            if len(self._buffer) < end + CRC.size:
                return None
            payload = bytes(memoryview(self._buffer)[HEADER_SIZE:end])
            (total,) = CRC.unpack_from(self._buffer, end)
            if total != zlib.crc32(payload, zlib.crc32(memoryview(self._buffer)[: HEADER.size])):
                self._drop(1)
                continue
            del self._buffer[: end + CRC.size]
            return Frame(kind, flags, sequence, boot, part, clock_s, payload, version)


class _Cursor:
    """Takes fields, columns and strings off a payload, checking its length."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Little-endian fields."""
        size = struct.calcsize("<" + layout)
        return struct.unpack("<" + layout, self._slice(size))

    def column(self, dtype: str, count: int) -> NDArray[Any]:
        """`count` values of one little-endian type, as a read-only view."""
        kind = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self._slice(kind.itemsize * count), kind)

    def columns(self, dtypes: Iterable[str], count: int) -> list[NDArray[Any]]:
        """One column of `count` values after the other, as `column`."""
        return [self.column(dtype, count) for dtype in dtypes]

    def text(self) -> str:
        """A string with its length byte."""
        (size,) = self.take("B")
        return self._slice(size).decode("utf-8", "replace")

    def end(self) -> None:
        """Raises `MalformedError` if bytes are left."""
        if self._at != len(self._payload):
            raise MalformedError(f"{len(self._payload) - self._at} bytes too many")

    def _slice(self, size: int) -> bytes:
        part = self._payload[self._at : self._at + size]
        if len(part) != size:
            raise MalformedError(f"{size - len(part)} bytes too few at offset {self._at}")
        self._at += size
        return part


@dataclass(frozen=True)
class Envelope:
    """What IDENTIFY says: who, which chip, what it can do, and the sizes and times of the link."""

    identity: Identity
    geometry: Geometry
    capabilities: Capabilities
    versions: tuple[int, int]
    max_payload: int
    max_message: int
    link_bytes_per_s: float
    pace: float

    @property
    def frame_bytes(self) -> int:
        """Payload of one frame on this board's link."""
        return frame_bytes(self.max_payload, self.link_bytes_per_s)


def _span(values: tuple[int, int, int], scale: float) -> Span:
    return Span(values[0] / scale, values[1] / scale, values[2] / scale)


def max_coded_cells(max_message: int) -> int:
    """Cells of a READ BLOCKS so that request and reply fit a message however the blocks are cut: a
    cell that is a block of its own has 26 bytes of the reply, and 20 of the request.
    """
    return max(0, max_message - 32) // 26


def decode_identify(payload: bytes, boot: int, link: str) -> Envelope:
    """The identity and envelope of a board. Raises `MalformedError` if it is no test-chip board."""
    cursor = _Cursor(payload)
    magic, lowest, highest, cell, lines = cursor.take("8sBBBB")
    if magic != MAGIC:
        raise MalformedError(f"magic {magic!r} instead of {MAGIC!r}")
    tiles, rows, columns = cursor.take("3I")
    bl, sl, wl = (_span(cursor.take("3i"), 1e6) for _ in range(3))
    (schemes,) = cursor.take("I")
    width = _span(cursor.take("3Q"), 1e12)
    abilities, max_cells, max_steps, max_vectors, words, max_words = cursor.take("6I")
    word_bits, input_bits, adc_bits, _ = cursor.take("4B")
    max_payload, max_message, abort_us, rate, pace = cursor.take("3I2d")
    model, serial, firmware, chip = (cursor.text() for _ in range(4))
    (count,) = cursor.take("B")
    timing = {cursor.text(): float(cursor.take("d")[0]) for _ in range(count)}
    cursor.end()
    if cell > 2 or lines > 2 or not 0 < max_payload <= MAX_PAYLOAD:
        raise MalformedError(f"cell {cell}, source lines {lines}, max_payload {max_payload}")
    kinds: tuple[tuple[Literal["1T1R", "1R"], Selector], ...] = (
        ("1T1R", "nmos"),
        ("1R", "nmos"),
        ("1T1R", "pmos"),
    )
    kind, selector = kinds[cell]
    along: tuple[Literal["row", "column", "common"], ...] = ("row", "column", "common")
    capabilities = Capabilities(
        bl_v=bl,
        sl_v=sl,
        wl_v=wl,
        width_s=width,
        schemes=frozenset(s for k, s in enumerate(SCHEMES) if schemes >> k & 1),
        max_cells=max_cells,
        max_steps=max_steps,
        per_cell_bias=bool(abilities & 1),
        program=bool(abilities & 2),
        multiply=bool(abilities & 4),
        coded_read=bool(abilities & 128),
        max_coded_cells=max_coded_cells(max_message),
        signed_inputs=not abilities & 256,
        input_bits=input_bits,
        adc_bits=adc_bits,
        max_vectors=max_vectors,
        words=words,
        word_bits=word_bits,
        max_words=max_words,
        gate_current=bool(abilities & 8),
        step_extras=frozenset(name for bit, name in EXTRAS if abilities & bit),
        selectors=frozenset({selector}),
        compliance=bool(abilities & 16),
        counters=bool(abilities & 32),
        abort_s=abort_us / 1e6,
        clock="virtual" if abilities & 64 else "wall",
        link=link,
        timing=timing,
    )
    identity = Identity(
        model,
        serial,
        firmware,
        f"test-chip board protocol {lowest} to {highest}",
        f"{boot:08x}",
        chip,
    )
    return Envelope(
        identity,
        Geometry(tiles, rows, columns, kind, along[lines], selector),
        capabilities,
        (lowest, highest),
        max_payload,
        max_message,
        rate,
        pace,
    )


@dataclass(frozen=True)
class BoardStatus:
    """What STATUS says; `last` and `under_way` are operation numbers, `trips` counts the watchdog
    since boot.
    """

    outputs_on: bool
    armed: bool
    busy: bool
    tripped: bool
    limits_set: bool
    words_lost: bool
    last: int
    under_way: int
    watchdog_s: float
    trips: int


def decode_status(payload: bytes) -> BoardStatus:
    """The reply of STATUS, ARM and SAFE OFF."""
    cursor = _Cursor(payload)
    flags, last, under_way, watchdog_ms, trips = cursor.take("B3x4I")
    cursor.end()
    on, armed, busy, tripped, limits_set, words_lost = (bool(flags >> k & 1) for k in range(6))
    watchdog_s = watchdog_ms / 1e3
    return BoardStatus(
        on, armed, busy, tripped, limits_set, words_lost, last, under_way, watchdog_s, trips
    )


def encode_limits(limits: Limits) -> bytes:
    """The request that sets the board's limits; a sound reply repeats it bit for bit."""
    values = [float(getattr(limits, name)) for name in LIMIT_FIELDS] + list(limits.conductance_s)
    return struct.pack("<14dQ", *values, limits.pulses_per_cell)


def encode_body_limits(limits: Limits) -> bytes:
    """The request that sets the limits of the body; a sound reply repeats it bit for bit."""
    return struct.pack("<2d", limits.body_v, limits.body_over_v)


def decode_abort(payload: bytes) -> tuple[int, bool]:
    """The operation number that ABORT stopped (0: none) and whether outputs are still on."""
    cursor = _Cursor(payload)
    number, on = cursor.take("IB3x")
    cursor.end()
    return int(number), bool(on)


@dataclass(frozen=True)
class Finding:
    """One line of a self-test."""

    name: str
    passed: bool
    value: float
    unit: str


def decode_self_test(payload: bytes) -> tuple[Finding, ...]:
    """The findings of SELF TEST."""
    cursor = _Cursor(payload)
    (count,) = cursor.take("B")
    parts = []
    for _ in range(count):
        passed, value = cursor.take("Bd")
        parts.append(Finding(cursor.text(), bool(passed), float(value), cursor.text()))
    cursor.end()
    return tuple(parts)


def decode_error(payload: bytes) -> tuple[int, int, str]:
    """Code, operation number and text of an error reply."""
    cursor = _Cursor(payload)
    code, number = cursor.take("2I")
    text = cursor.text()
    cursor.end()
    return int(code), int(number), text


def encode_executed(number: int, cells: Cells, geometry: Geometry) -> bytes:
    """Ask for the records of `cells` under operation `number`."""
    return struct.pack("<2I", number, len(cells)) + _cells(cells, geometry)


def decode_executed(payload: bytes, number: int, n: int) -> tuple[IntArray, IntArray]:
    """Pulses that the operation gave each cell, and the last operation that pulsed each, shape
    (n,).
    """
    cursor = _Cursor(payload)
    _expect(cursor.take("2I"), (number, n))
    pulses, last = cursor.column("u4", n), cursor.column("u4", n)
    cursor.end()
    return pulses.astype(np.int64), last.astype(np.int64)


def _expect(got: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if tuple(got) != wanted:
        raise MalformedError(f"it is about {tuple(got)}, not {wanted}")


def _cells(cells: Cells, geometry: Geometry) -> bytes:
    return cells.index(geometry).astype("<u4").tobytes()


def _microvolts(volts: float | FloatArray, what: str, cells: Cells) -> NDArray[np.int32]:
    """Volts as i32 microvolts. Raises `LimitError` naming the cell for NaN and for what i32 cannot
    hold.
    """
    values = np.atleast_1d(np.asarray(volts, dtype=np.float64))
    good = np.abs(values) <= MAX_V
    if not np.all(good):
        at = int(np.argmin(good))
        where = f"cell {cells.address(at)}: " if len(cells) > at else ""
        raise LimitError(
            f"{where}{what} {values[at]:g} V does not fit the board's link; allowed is up to"
            f" {MAX_V:g} V",
            cell=cells.address(at) if where else None,
            line=what,
            value=float(values[at]),
            allowed=(-MAX_V, MAX_V),
        )
    return np.rint(values * 1e6).astype("<i4")


def _picoseconds(width_s: float, what: str) -> int:
    """A width as whole picoseconds. Raises `LimitError` for NaN, for 0 after rounding and for what
    is too long.
    """
    if not 0 < width_s <= MAX_WIDTH_S or round(width_s * 1e12) == 0:
        raise LimitError(
            f"{what} {width_s:g} s does not fit the board's link; allowed is 1e-12 to"
            f" {MAX_WIDTH_S:g} s",
            line=what,
            value=width_s,
            allowed=(1e-12, MAX_WIDTH_S),
        )
    return round(width_s * 1e12)


def _step(step: Step, cells: Cells) -> tuple[bytes, bytes]:
    """A step's 24 bytes and its columns."""
    per_cell, shared, columns = 0, [], []
    for bit, (line, volts) in enumerate((("BL", step.bl_v), ("SL", step.sl_v), ("WL", step.wl_v))):
        if volts is None:
            shared.append(FLOATING_UV)
            continue
        codes = _microvolts(volts, line, cells)
        if np.ndim(volts):
            per_cell |= 1 << bit
            shared.append(0)
            columns.append(codes.tobytes())
        else:
            shared.append(int(codes[0]))
    width = _picoseconds(step.width_s, "width")
    measure = BOTH_CURRENTS if step.also_gate else MEASURES.index(step.measure)
    others, levels = _others(step, cells)
    head = struct.pack("<QBBBB3i", width, measure, per_cell, others, 0, *shared)
    return head, b"".join([*columns, levels])


def _others(step: Step | PulseTrain | Multiply | CodedRead, cells: Cells) -> tuple[int, bytes]:
    """Which levels of body and unselected word lines follow, as bits, and these levels."""
    bits, levels = 0, b""
    for bit, (what, volts) in enumerate(
        (("body", step.body_v), ("unselected WL", step.unselected_wl_v))
    ):
        if volts is not None:
            bits |= 1 << bit
            levels += _microvolts(volts, what, cells).tobytes()
    return bits, levels


def _bound(bound: float | FloatArray | None) -> tuple[int, float, bytes]:
    """Kind, shared value and column of one bound of a stop condition."""
    if bound is None:
        return 0, np.nan, b""
    if np.ndim(bound) == 0:
        return 1, float(bound), b""
    return 2, np.nan, np.asarray(bound, dtype="<f8").tobytes()


def _compliance(compliance_a: float | None) -> float:
    return np.nan if compliance_a is None else compliance_a


def encode_apply(operation: Apply, number: int, geometry: Geometry) -> bytes:
    """The request of an `Apply`."""
    stop = operation.stop
    above, above_s, above_column = _bound(None if stop is None else stop.above_s)
    below, below_s, below_column = _bound(None if stop is None else stop.below_s)
    steps = [_step(s, operation.cells) for s in operation.steps]
    head = struct.pack(
        "<4I4B3d",
        number,
        len(operation.cells),
        len(steps),
        operation.repeat,
        SCHEMES.index(operation.unselected),
        above,
        below,
        0,
        _compliance(operation.compliance_a),
        above_s,
        below_s,
    )
    cells = _cells(operation.cells, geometry)
    return b"".join(
        [head, *(h for h, _ in steps), cells, above_column, below_column, *(c for _, c in steps)]
    )


def _result(cursor: _Cursor, number: int) -> tuple[int, TimeSpan]:
    got, n, started_s, ended_s = cursor.take(RESULT_HEAD)
    _expect((got,), (number,))
    return int(n), TimeSpan(started_s, ended_s)


def decode_apply(payload: bytes, operation: Apply, number: int) -> ApplyResult:
    """The reply of an APPLY."""
    cursor = _Cursor(payload)
    n, span = _result(cursor, number)
    m, _ = cursor.take(APPLY_HEAD)
    _expect((n, m), (len(operation.cells), operation.measurements))
    pulses, reads = cursor.columns(APPLY_OF_CELLS, n)
    current, conductance, time, status = (
        column.reshape(n, m) for column in cursor.columns(APPLY_OF_READINGS, n * m)
    )
    gate = cursor.column(APPLY_GATES, n * m).reshape(n, m) if operation.also_gate else None
    cursor.end()
    counts = pulses.astype(np.int64), reads.astype(np.int64)
    return ApplyResult(current, conductance, status, time, *counts, span, gate_a=gate)


def _ramp(ramp: Ramp, what: str, cells: Cells) -> tuple[bytes, bytes]:
    """A ramp's 12 bytes and the column of its starts, empty if all cells start alike."""
    start = _microvolts(ramp.start_v, f"{what} start", cells)
    stop, step = (int(_microvolts(v, what, cells)[0]) for v in (ramp.stop_v, ramp.step_v))
    if np.ndim(ramp.start_v):
        return struct.pack("<3i", 0, stop, step), start.tobytes()
    return struct.pack("<3i", int(start[0]), stop, step), b""


def _train(train: PulseTrain, name: str, cells: Cells) -> tuple[bytes, list[bytes]]:
    amplitude, amplitude_column = _ramp(train.amplitude_v, f"{name} amplitude", cells)
    gate, gate_column = _ramp(train.gate_v, f"{name} gate", cells)
    width = struct.pack("<Q", _picoseconds(train.width_s, f"{name} width"))
    return width + amplitude + gate, [amplitude_column, gate_column]


def encode_program(operation: Program, number: int, geometry: Geometry) -> bytes:
    """The request of a `Program`."""
    cells = operation.cells
    set_train, set_columns = _train(operation.set_pulses, "SET", cells)
    reset_train, reset_columns = _train(operation.reset_pulses, "RESET", cells)
    read, read_columns = _step(operation.read, cells)
    ramps = set_columns + reset_columns
    set_bits, set_levels = _others(operation.set_pulses, cells)
    reset_bits, reset_levels = _others(operation.reset_pulses, cells)
    head = struct.pack(
        "<4I4Bd",
        number,
        len(cells),
        operation.confirm,
        operation.max_reversals,
        SCHEMES.index(operation.unselected),
        sum(1 << bit for bit, column in enumerate(ramps) if column),
        VERIFIES.index(operation.verify),
        set_bits | reset_bits << 2,
        _compliance(operation.compliance_a),
    )
    columns = [
        _cells(cells, geometry),
        operation.low_s.astype("<f8").tobytes(),
        operation.high_s.astype("<f8").tobytes(),
        operation.budget().astype("<u4").tobytes(),
    ]
    levels = set_levels + reset_levels
    return b"".join([head, set_train, reset_train, read, *columns, *ramps, levels, read_columns])


def decode_program(payload: bytes, operation: Program, number: int) -> ProgramResult:
    """The reply of a PROGRAM."""
    cursor = _Cursor(payload)
    n, span = _result(cursor, number)
    _expect((n,), (len(operation.cells),))
    conductance, *counts, status, inside = cursor.columns(PROGRAM_OF_CELLS, n)
    sets, resets, reads = (column.astype(np.int64) for column in counts)
    vectors = int(cursor.take(CODED_PROGRAM_END)[0]) if operation.verify == "coded" else 0
    cursor.end()
    return ProgramResult(
        conductance,
        status,
        inside.astype(np.bool_),
        sets,
        resets,
        reads,
        span,
        vectors=vectors,
    )


def encode_multiply(operation: Multiply, number: int) -> bytes:
    """The request of a `Multiply`."""
    corner = Cells.of([(operation.tile, operation.row, operation.column)])
    others, levels = _others(operation, corner)
    head = struct.pack(
        "<7I2i4Bd",
        number,
        operation.inputs.shape[0],
        operation.tile,
        operation.row,
        operation.rows,
        operation.column,
        operation.columns,
        int(_microvolts(operation.read_v, "read volts", corner)[0]),
        int(_microvolts(operation.wl_v, "WL", corner)[0]),
        operation.input_bits,
        operation.words,
        others,
        0,
        operation.full_scale_a,
    )
    kind = "<i1" if operation.input_bits <= 8 else "<i2"
    return head + levels + operation.inputs.astype(kind).tobytes()


def decode_multiply(payload: bytes, operation: Multiply, number: int) -> MultiplyResult:
    """The reply of a MULTIPLY."""
    cursor = _Cursor(payload)
    vectors, span = _result(cursor, number)
    columns, saturated, lsb_a, code_bytes, sum_bytes = cursor.take(MULTIPLY_HEAD)
    _expect((vectors, columns), (operation.inputs.shape[0], operation.columns))
    if code_bytes not in (2, 4) or sum_bytes not in ((4, 8) if operation.words else (0,)):
        raise MalformedError(f"codes of {code_bytes} bytes, sums of {sum_bytes} bytes")
    shape = (vectors, columns)
    codes = cursor.column(f"i{code_bytes}", vectors * columns).reshape(shape)
    sums = (
        cursor.column(f"i{sum_bytes}", vectors * columns).reshape(shape).astype(np.int64)
        if sum_bytes
        else None
    )
    cursor.end()
    return MultiplyResult(codes.astype(np.int32), lsb_a, sums, saturated, False, span)


def encode_write_words(operation: WriteWords, number: int, geometry: Geometry) -> bytes:
    """The request of a `WriteWords`."""
    head = struct.pack("<2IB3x", number, len(operation.cells), operation.clear)
    return head + _cells(operation.cells, geometry) + operation.values.astype("<i4").tobytes()


def encode_wait(operation: Wait, number: int) -> bytes:
    """The request of a `Wait`."""
    return struct.pack("<2Id", number, 0, operation.seconds)


def encode_coded_read(operation: CodedRead, number: int) -> bytes:
    """The request of a `CodedRead`."""
    blocks = [(b.tile, b.row, b.rows, b.column, b.columns) for b in operation.blocks]
    corner = Cells.of([(b.tile, b.row, b.column) for b in operation.blocks[:1]])
    head = struct.pack(
        "<2I2iI",
        number,
        len(blocks),
        int(_microvolts(operation.read_v, "read volts", corner)[0]),
        int(_microvolts(operation.wl_v, "WL", corner)[0]),
        operation.repeat,
    )
    others, levels = _others(operation, corner)
    end = struct.pack("<I", others) + levels if others else b""
    return head + np.array(blocks, dtype="<u4").tobytes() + end


def decode_coded_read(payload: bytes, operation: CodedRead, number: int) -> CodedReadResult:
    """The reply of a READ BLOCKS."""
    blocks = operation.blocks
    cells, columns = sum(b.size for b in blocks), sum(b.columns for b in blocks)
    cursor = _Cursor(payload)
    n, span = _result(cursor, number)
    _expect((n,), (cells,))
    vectors, saturated = cursor.take(READ_BLOCKS_HEAD)
    (full_scale,) = cursor.columns(READ_BLOCKS_OF_BLOCKS, len(blocks))
    scale, sigma = cursor.columns(READ_BLOCKS_OF_COLUMNS, columns)
    (codes,) = cursor.columns(READ_BLOCKS_OF_CELLS, cells)
    cursor.end()
    for name, values, good in (
        ("full scale", full_scale, full_scale > 0),
        ("scale", scale, scale >= 0),
        ("sigma", sigma, sigma >= 0),
    ):
        wrong = ~(good & np.isfinite(values))
        if wrong.any():
            raise MalformedError(f"a {name} of {values[int(np.argmax(wrong))]}")
    # Where each cell's column stands among the columns of all blocks.
    ends = np.cumsum([b.columns for b in blocks])
    places = [
        np.tile(np.arange(end - b.columns, end), b.rows)
        for b, end in zip(blocks, ends, strict=True)
    ]
    place = np.concatenate([np.zeros(0, dtype=np.int64), *places])
    known = codes != NO_VALUE
    return CodedReadResult(
        np.where(known, codes * scale[place], np.nan),
        sigma[place],
        np.where(known, np.uint8(Status.OK), np.uint8(Status.OVER_RANGE)),
        full_scale,
        vectors,
        span=span,
        saturated=saturated,
    )


def encode_operation(operation: Operation, number: int, geometry: Geometry) -> tuple[Kind, bytes]:
    """Message type and request of any operation. Raises `LimitError` for what the encoding cannot
    hold.
    """
    if not 0 < number < 1 << 32:
        raise ConfigError(
            f"operation number {number} does not fit the board's link; allowed is 1 to"
            f" {(1 << 32) - 1}"
        )
    if isinstance(operation, Apply):
        return Kind.APPLY, encode_apply(operation, number, geometry)
    if isinstance(operation, Program):
        return Kind.PROGRAM, encode_program(operation, number, geometry)
    if isinstance(operation, Multiply):
        return Kind.MULTIPLY, encode_multiply(operation, number)
    if isinstance(operation, CodedRead):
        return Kind.READ_BLOCKS, encode_coded_read(operation, number)
    if isinstance(operation, WriteWords):
        return Kind.WRITE_WORDS, encode_write_words(operation, number, geometry)
    return Kind.WAIT, encode_wait(operation, number)


def decode_result(payload: bytes, operation: Operation, number: int) -> Result:
    """The result of any operation. Raises `MalformedError` if the reply is not about it."""
    if isinstance(operation, Apply):
        return decode_apply(payload, operation, number)
    if isinstance(operation, Program):
        return decode_program(payload, operation, number)
    if isinstance(operation, Multiply):
        return decode_multiply(payload, operation, number)
    if isinstance(operation, CodedRead):
        return decode_coded_read(payload, operation, number)
    cursor = _Cursor(payload)
    n, span = _result(cursor, number)
    cursor.end()
    if isinstance(operation, WriteWords):
        return WordsResult(n, span)
    return WaitResult(span)


def result_bytes(operation: Operation, result: Result, adc_bits: int) -> int:
    """Length of the reply, as `decode_result` takes it off, in which a board whose ADC has
    `adc_bits` sends `result`.
    """
    head, columns = RESULT_HEAD, 0
    if isinstance(operation, Apply):
        n = len(operation.cells)
        head += APPLY_HEAD
        columns = n * _width(APPLY_OF_CELLS)
        columns += n * operation.measurements * _width(APPLY_OF_READINGS)
        if operation.also_gate:
            columns += n * operation.measurements * _width((APPLY_GATES,))
    elif isinstance(operation, Program):
        columns = len(operation.cells) * _width(PROGRAM_OF_CELLS)
        head += CODED_PROGRAM_END if operation.verify == "coded" else ""
    elif isinstance(operation, Multiply):
        assert isinstance(result, MultiplyResult)
        head += MULTIPLY_HEAD
        columns = result.codes.size * ((2 if adc_bits <= 16 else 4) + _sum_bytes(result.word_sums))
    elif isinstance(operation, CodedRead):
        head += READ_BLOCKS_HEAD
        columns = len(operation.blocks) * _width(READ_BLOCKS_OF_BLOCKS)
        columns += sum(b.columns for b in operation.blocks) * _width(READ_BLOCKS_OF_COLUMNS)
        columns += sum(b.size for b in operation.blocks) * _width(READ_BLOCKS_OF_CELLS)
    return struct.calcsize("<" + head) + columns


def _width(dtypes: Iterable[str]) -> int:
    return sum(np.dtype(dtype).itemsize for dtype in dtypes)


def _sum_bytes(sums: IntArray | None) -> int:
    """Bytes of one sum of on-chip words: the fewer that hold all of them."""
    if sums is None:
        return 0
    holds = np.iinfo(np.int32)
    small = sums.size == 0 or (holds.min <= int(sums.min()) and int(sums.max()) <= holds.max)
    return 4 if small else 8
