"""Frames and messages of docs/board-protocol.md on the board's side, written from the document.

Shares nothing with the driver's codec, so that the two check each other.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rram_hil.array import (
    FORWARD_V,
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Limits,
    Measured,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Result,
    Scheme,
    Status,
    Step,
    Stop,
    Volts,
    Wait,
    WordsResult,
    WriteWords,
)
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import refused

PROTOCOL = 1
OVERHEAD = 40
"""Bytes of a frame beside its payload."""
LARGEST_PAYLOAD = 1048576

COMMANDS = {
    0x01: "IDENTIFY",
    0x02: "STATUS",
    0x03: "LIMITS",
    0x04: "ARM",
    0x05: "SAFE_OFF",
    0x06: "WATCHDOG",
    0x07: "KEEP_ALIVE",
    0x08: "ABORT",
    0x09: "SELF_TEST",
    0x0A: "EXECUTED",
    0x0B: "BODY_LIMITS",
    0x10: "APPLY",
    0x11: "PROGRAM",
    0x12: "MULTIPLY",
    0x13: "WRITE_WORDS",
    0x14: "WAIT",
    0x15: "READ_BLOCKS",
}
ERRORS = {
    "BAD REQUEST": 1,
    "UNKNOWN TYPE": 2,
    "VERSION": 3,
    "STALE BOOT": 4,
    "BUSY": 5,
    "NOT ARMED": 6,
    "LIMIT": 7,
    "RANGE": 8,
    "NUMBER PAST": 9,
    "NUMBER REUSED": 10,
    "ALREADY EXECUTED": 11,
    "ABORTED": 12,
    "WATCHDOG": 13,
    "HARDWARE": 14,
    "INCOMPLETE": 15,
    "WORDS LOST": 16,
    "CRC": 17,
}
_SCHEMES = {
    0: Scheme.INHIBIT,
    1: Scheme.GROUNDED,
    2: Scheme.FLOATING,
    3: Scheme.HALF,
    4: Scheme.THIRD,
}
_MEASURES: dict[int, Measured] = {0: "no", 1: "current", 2: "gate"}
_VERIFIES: dict[int, Literal["single", "coded"]] = {0: "single", 1: "coded"}
_FLOATS = np.int32(-2147483648)
_STEP = np.dtype(
    [
        ("width_ps", "<u8"),
        ("measure", "u1"),
        ("per_cell", "u1"),
        ("others", "u1"),
        ("_", "u1"),
        ("uv", "<i4", (3,)),
    ]
)
_START_OF_FRAME = bytes.fromhex("a552425a")


class RefusalError(Exception):
    """An error reply: its name in `ERRORS`, its text, and the operation number that it is about."""

    def __init__(self, name: str, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.name = name
        self.number = number

    def payload(self) -> bytes:
        """The payload of the error reply."""
        return struct.pack("<II", ERRORS[self.name], self.number) + _string(str(self))


@dataclass(frozen=True)
class Part:
    """One sound frame of the host."""

    version: int
    command: int
    more: bool
    sequence: int
    boot: int
    part: int
    payload: bytes


@dataclass(frozen=True)
class Damaged:
    """A frame whose header was sound and whose payload was not."""

    command: int
    sequence: int


class Parser:
    """Cuts the host's bytes into frames, whatever stands between them."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._enough = 0

    @property
    def is_inside(self) -> bool:
        """Whether bytes are waiting for the rest of their frame."""
        return bool(self._pending)

    def push(self, data: bytes) -> list[Part | Damaged]:
        """Take bytes that came; return what is complete."""
        self._pending += data
        return self._cut() if len(self._pending) >= self._enough else []

    def timeout(self) -> list[Part | Damaged]:
        """No byte came for 200 ms: give up the frame that has begun, look for others behind its
        start.
        """
        del self._pending[:1]
        return self._cut()

    def _cut(self) -> list[Part | Damaged]:
        items: list[Part | Damaged] = []
        position = 0
        while True:
            start = self._pending.find(_START_OF_FRAME, position)
            if start < 0:
                # A start of frame may be cut at the end of what has come so far.
                position = max(position, len(self._pending) - 3)
                self._enough = 0
                break
            position = start
            size, item = self._frame(start)
            if start + size > len(self._pending):
                self._enough = size
                break
            if item is not None:
                items.append(item)
            position += size
        del self._pending[:position]
        return items

    def _frame(self, start: int) -> tuple[int, Part | Damaged | None]:
        """How many bytes to move on from `start` (or to wait for) and what was there."""
        head = bytes(self._pending[start : start + 36])
        if len(head) < 36:
            return 36, None
        version, command, flags, _, sequence, boot, part, length, _, check = struct.unpack(
            "<4xBBBBIIIIdI", head
        )
        if binascii.crc32(head[:32]) != check or length > LARGEST_PAYLOAD:
            return 1, None
        end = start + 36 + length
        if len(self._pending) < end + 4:
            return 40 + length, None
        payload = bytes(self._pending[start + 36 : end])
        if binascii.crc32(payload, binascii.crc32(head[:32])) != int.from_bytes(
            self._pending[end : end + 4], "little"
        ):
            return 1, Damaged(command, sequence)
        return 40 + length, Part(version, command, bool(flags & 2), sequence, boot, part, payload)


def reply_frames(
    command: int,
    sequence: int,
    boot: int,
    clock_s: float,
    message: bytes,
    *,
    flags: int = 0,
    size: int = 1024,
) -> Iterator[bytes]:
    """The frames of one reply or notice, `size` bytes of payload in each. `flags`: 4 error, 8
    working notice.
    """
    pieces = [message[k : k + size] for k in range(0, len(message), size)] or [b""]
    for number, piece in enumerate(pieces):
        more = 0 if number == len(pieces) - 1 else 2
        fixed = (
            PROTOCOL,
            command,
            1 | more | flags,
            0,
            sequence,
            boot,
            number,
            len(piece),
            clock_s,
        )
        head = _START_OF_FRAME + struct.pack("<BBBBIIIId", *fixed)
        check = binascii.crc32(head)
        yield (
            head
            + struct.pack("<I", check)
            + piece
            + struct.pack("<I", binascii.crc32(piece, check))
        )


def _string(text: str) -> bytes:
    data = text.encode()[:255].decode("utf-8", "ignore").encode()
    return bytes([len(data)]) + data


# Requests


class _Fields:
    """A request's payload, read from its start; a `RefusalError` where it is too short or too
    long.
    """

    def __init__(self, payload: bytes) -> None:
        self.rest = memoryview(payload)

    def bytes_(self, size: int) -> memoryview:
        if len(self.rest) < size:
            raise RefusalError(
                "BAD REQUEST", f"the message ends {size - len(self.rest)} bytes too early"
            )
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def numbers(self, layout: str) -> tuple[Any, ...]:
        layout = "<" + layout
        return struct.unpack(layout, self.bytes_(struct.calcsize(layout)))

    def array(self, kind: Any, count: int) -> NDArray[Any]:
        kind = np.dtype(kind)
        return np.frombuffer(self.bytes_(kind.itemsize * count), kind)

    def done(self) -> None:
        if len(self.rest):
            raise RefusalError("BAD REQUEST", f"the message has {len(self.rest)} bytes too many")


def operation_number(payload: bytes) -> int:
    """The operation number that a request begins with."""
    return int(_Fields(payload).numbers("I")[0])


def parse_operation(command: int, payload: bytes, geometry: Geometry) -> Operation:
    """The operation that a request asks for. Raises `RefusalError` for lengths and fields that make
    no sense.
    """
    fields = _Fields(payload)
    try:
        operation = _OPERATIONS[command](fields, geometry)
    except ConfigError as error:
        raise RefusalError("BAD REQUEST", str(error)) from None
    fields.done()
    return operation


def _cells(fields: _Fields, n: int, geometry: Geometry) -> Cells:
    index = fields.array("<u4", n)
    if n and int(index.max()) >= geometry.size:
        raise RefusalError(
            "RANGE", f"cell index {int(index.max())} is off the chip of {geometry.size} cells"
        )
    return Cells.from_index(index.astype(np.int64), geometry)


def _known(table: dict[int, Any], key: int, what: str) -> Any:
    if key not in table:
        raise RefusalError("BAD REQUEST", f"{what} {key} is not one of {sorted(table)}")
    return table[key]


def _steps(fields: _Fields, heads: NDArray[Any], n: int) -> tuple[Step, ...]:
    """Steps from their heads and from the columns that stand next in the message."""
    steps = []
    for head in heads:
        volts: list[Volts] = []
        for line in range(3):
            if head["per_cell"] >> line & 1:
                column = fields.array("<i4", n)
                if np.any(column == _FLOATS):
                    raise RefusalError(
                        "BAD REQUEST", "a column of volts must not hold the floating value"
                    )
                volts.append(column / 1e6)
            else:
                shared = head["uv"][line]
                volts.append(None if shared == _FLOATS else int(shared) / 1e6)
        both = int(head["measure"]) == 3
        kinds = _MEASURES | {3: "current"}
        measure: Measured = _known(kinds, int(head["measure"]), "measure")
        body, idle = _others(fields, int(head["others"]))
        width_s = int(head["width_ps"]) / 1e12
        steps.append(Step(volts[0], volts[1], volts[2], width_s, measure, body, idle, both))
    return tuple(steps)


def _others(fields: _Fields, bits: int) -> tuple[float | None, float | None]:
    """Levels of the body and of unselected word lines that stand next in the message, as the bits
    say.
    """
    if bits > 3:
        raise RefusalError("BAD REQUEST", f"others {bits} is none of 0 to 3")
    levels = [int(fields.array("<i4", 1)[0]) / 1e6 if bits >> k & 1 else None for k in range(2)]
    return levels[0], levels[1]


def _optional(value: float) -> float | None:
    return None if np.isnan(value) else value


def _apply(fields: _Fields, geometry: Geometry) -> Apply:
    _, n, count, repeat, scheme, above, below, compliance, above_s, below_s = fields.numbers(
        "IIIIBBBxddd"
    )
    heads = fields.array(_STEP, count)
    cells = _cells(fields, n, geometry)
    bounds: list[float | FloatArray | None] = []
    for kind, shared in ((above, above_s), (below, below_s)):
        kinds = _known({0: "none", 1: "shared", 2: "column"}, kind, "kind of stop condition")
        bounds.append(
            {"none": None, "shared": shared}[kinds] if kinds != "column" else fields.array("<f8", n)
        )
    steps = _steps(fields, heads, n)
    stop = None if above == below == 0 else Stop(bounds[0], bounds[1])
    return Apply(
        cells, steps, _known(_SCHEMES, scheme, "scheme"), _optional(compliance), stop, repeat
    )


def _program(fields: _Fields, geometry: Geometry) -> Program:
    _, n, confirm, reversals, scheme, per_cell, verify, others, compliance = fields.numbers(
        "IIIIBBBBd"
    )
    if others > 15:
        raise RefusalError("BAD REQUEST", f"others {others} is none of 0 to 15")
    trains = []
    for _ in range(2):
        (width_ps,) = fields.numbers("Q")
        trains.append((width_ps / 1e12, fields.numbers("iii"), fields.numbers("iii")))
    heads = fields.array(_STEP, 1)
    cells = _cells(fields, n, geometry)
    low, high = fields.array("<f8", n), fields.array("<f8", n)
    budget = fields.array("<u4", n).astype(np.int64)
    ramps_of = []
    for polarity, (_, *ramps) in enumerate(trains):
        made = []
        for k, (start, stop, step) in enumerate(ramps):
            column = per_cell >> (2 * polarity + k) & 1
            made.append(
                Ramp(
                    fields.array("<i4", n) / 1e6 if column else start / 1e6, stop / 1e6, step / 1e6
                )
            )
        ramps_of.append(made)
    pulses = [
        PulseTrain(made[0], made[1], width_s, *_others(fields, others >> 2 * polarity & 3))
        for polarity, (made, (width_s, *_)) in enumerate(zip(ramps_of, trains, strict=True))
    ]
    (read,) = _steps(fields, heads, n)
    return Program(
        cells=cells,
        low_s=low,
        high_s=high,
        set_pulses=pulses[0],
        reset_pulses=pulses[1],
        read=read,
        max_pulses=budget,
        max_reversals=reversals,
        confirm=confirm,
        unselected=_known(_SCHEMES, scheme, "scheme"),
        compliance_a=_optional(compliance),
        verify=_known(_VERIFIES, verify, "verify"),
    )


def _multiply(fields: _Fields, _: Geometry) -> Multiply:
    _, vectors, tile, row, rows, column, columns, read_uv, wl_uv, bits, words, others, scale_a = (
        fields.numbers("IIIIIIIiiBBBxd")
    )
    if not 2 <= bits <= 16:
        raise RefusalError("RANGE", f"{bits}-bit inputs; allowed are 2 to 16 bits")
    body, idle = _others(fields, others)
    codes = fields.array("i1" if bits <= 8 else "<i2", vectors * rows).reshape(vectors, rows)
    return Multiply(
        *(tile, row, column, columns, codes, bits, read_uv / 1e6, wl_uv / 1e6, scale_a),
        bool(words),
        body_v=body,
        unselected_wl_v=idle,
    )


def _write_words(fields: _Fields, geometry: Geometry) -> WriteWords:
    _, n, clear = fields.numbers("IIBxxx")
    return WriteWords(_cells(fields, n, geometry), fields.array("<i4", n), bool(clear))


def _wait(fields: _Fields, _: Geometry) -> Wait:
    return Wait(fields.numbers("IId")[2])


def _read_blocks(fields: _Fields, geometry: Geometry) -> CodedRead:
    _, n, read_uv, wl_uv, repeat = fields.numbers("IIiiI")
    taken = np.zeros(geometry.shape, dtype=np.bool_)
    blocks = []
    for tile, row, rows, column, columns in fields.array("<u4", 5 * n).reshape(n, 5).tolist():
        place = f"tile {tile}, {rows} rows from {row}, {columns} columns from {column}"
        if (
            tile >= geometry.tiles
            or row + rows > geometry.rows
            or column + columns > geometry.columns
        ):
            raise RefusalError("RANGE", f"block of {place} is off the chip of {geometry.shape}")
        region = taken[tile, row : row + rows, column : column + columns]
        if region.any():
            raise RefusalError("RANGE", f"block of {place} shares a cell with another")
        region[:] = True
        blocks.append(Block(tile, row, rows, column, columns))
    others = int(fields.numbers("I")[0]) if fields.rest else 0
    body, idle = _others(fields, others)
    volts = read_uv / 1e6, wl_uv / 1e6
    return CodedRead(tuple(blocks), *volts, repeat, body_v=body, unselected_wl_v=idle)


_OPERATIONS: dict[int, Callable[[_Fields, Geometry], Operation]] = {
    0x10: _apply,
    0x11: _program,
    0x12: _multiply,
    0x13: _write_words,
    0x14: _wait,
    0x15: _read_blocks,
}


def parse_limits(payload: bytes) -> Limits:
    """The limits of a LIMITS request. Raises `RefusalError` for what is no limit (NaN, not above
    0).
    """
    fields = _Fields(payload)
    bl, sl, wl, cell, gate, half, read, current, energy, width, read_width, wait, low, high = (
        fields.numbers("14d")
    )
    (pulses,) = fields.numbers("Q")
    fields.done()
    try:
        return Limits(
            bl_v=bl,
            sl_v=sl,
            wl_v=wl,
            cell_v=cell,
            gate_over_v=gate,
            half_select_v=half,
            read_v=read,
            current_a=current,
            energy_j=energy,
            width_s=width,
            read_width_s=read_width,
            wait_s=wait,
            conductance_s=[low, high],
            pulses_per_cell=pulses,
        )
    except ValidationError as error:
        raise RefusalError("LIMIT", str(refused(error, "not limits"))) from None


def limits_reply(now: Limits) -> bytes:
    """The limits in force."""
    lines = struct.pack(
        "<6d", now.bl_v, now.sl_v, now.wl_v, now.cell_v, now.gate_over_v, now.half_select_v
    )
    cell = struct.pack(
        "<6d", now.read_v, now.current_a, now.energy_j, now.width_s, now.read_width_s, now.wait_s
    )
    return lines + cell + struct.pack("<2dQ", *now.conductance_s, now.pulses_per_cell)


def parse_body_limits(payload: bytes) -> tuple[float, float]:
    """Largest level and forward bias of the body (V) of a BODY LIMITS request. Raises
    `RefusalError` for what is no limit.
    """
    fields = _Fields(payload)
    values = fields.numbers("2d")
    fields.done()
    if not all(0 <= value < float("inf") for value in values):
        raise RefusalError("LIMIT", f"limits of the body {values} V must be 0 or more and finite")
    if values[1] > FORWARD_V:
        text = f"limit body_over_v {values[1]} V: beyond {FORWARD_V} V a body's junctions conduct"
        raise RefusalError("LIMIT", text)
    return values[0], values[1]


def body_limits_reply(now: Limits) -> bytes:
    """The limits of the body in force."""
    return struct.pack("<2d", now.body_v, now.body_over_v)


def parse_watchdog(payload: bytes) -> int:
    """Milliseconds of a WATCHDOG request."""
    fields = _Fields(payload)
    (milliseconds,) = fields.numbers("I")
    fields.done()
    if not 100 <= milliseconds <= 60000:
        raise RefusalError("RANGE", f"watchdog {milliseconds} ms; allowed are 100 to 60000 ms")
    return int(milliseconds)


def parse_executed(payload: bytes, geometry: Geometry) -> tuple[int, Cells]:
    """Operation number and cells of an EXECUTED request."""
    fields = _Fields(payload)
    number, n = fields.numbers("II")
    cells = _cells(fields, n, geometry)
    fields.done()
    return int(number), cells


# Replies


def identify_reply(
    can: Capabilities,
    geometry: Geometry,
    names: tuple[str, str, str, str],
    *,
    max_message: int,
    rate: float,
    pace: float,
    magic: bytes = b"RRAMTCB\0",
) -> bytes:
    """Identity and envelope; `names` are model, serial number, firmware and chip id."""

    def volts(span: Span) -> bytes:
        return struct.pack("<3i", *(round(v * 1e6) for v in (span.low, span.high, span.step)))

    cell = {"1T1R": 0, "1R": 1}[geometry.cell]
    if geometry.selector == "pmos":
        cell = 2
    lines = {"row": 0, "column": 1, "common": 2}[geometry.source_lines]
    abilities = (
        can.per_cell_bias,
        can.program,
        can.multiply,
        can.gate_current,
        can.compliance,
        can.counters,
        can.clock == "virtual",
        can.coded_read,
        not can.signed_inputs,
        "body_v" in can.step_extras,
        "unselected_wl_v" in can.step_extras,
        "also_gate" in can.step_extras,
    )
    flags = sum(1 << bit for bit, there in enumerate(abilities) if there)
    schemes = sum(1 << bit for bit, scheme in _SCHEMES.items() if scheme in can.schemes)
    width = struct.pack(
        "<3Q", *(round(s * 1e12) for s in (can.width_s.low, can.width_s.high, can.width_s.step))
    )
    sizes = struct.pack(
        "<6I", flags, can.max_cells, can.max_steps, can.max_vectors, can.words, can.max_words
    )
    bits = struct.pack("<4B", can.word_bits, can.input_bits, can.adc_bits, 0)
    link = struct.pack("<3I2d", LARGEST_PAYLOAD, max_message, round(can.abort_s * 1e6), rate, pace)
    fixed = struct.pack(
        "<8s4B3I",
        magic,
        PROTOCOL,
        PROTOCOL,
        cell,
        lines,
        geometry.tiles,
        geometry.rows,
        geometry.columns,
    )
    ranges = (
        volts(can.bl_v) + volts(can.sl_v) + volts(can.wl_v) + struct.pack("<I", schemes) + width
    )
    timing = b"".join(
        _string(name) + struct.pack("<d", seconds) for name, seconds in can.timing.items()
    )
    texts = b"".join(_string(name) for name in names)
    return fixed + ranges + sizes + bits + link + texts + bytes([len(can.timing)]) + timing


def status_reply(
    flags: tuple[bool, ...], last: int, under_way: int, watchdog_ms: int, trips: int
) -> bytes:
    """`flags`: outputs on, armed, operation under way, tripped, limits set, words lost."""
    bits = sum(1 << bit for bit, there in enumerate(flags) if there)
    return struct.pack("<BxxxIIII", bits, last, under_way, watchdog_ms, trips)


def executed_reply(number: int, pulses: IntArray, last: IntArray) -> bytes:
    """Pulses of one operation and the last operation of each cell."""
    return (
        struct.pack("<II", number, pulses.size)
        + pulses.astype("<u4").tobytes()
        + last.astype("<u4").tobytes()
    )


def self_test_reply(findings: list[tuple[bool, float, str, str]]) -> bytes:
    """Findings: passed, value, name, unit."""
    lines = [
        struct.pack("<Bd", ok, value) + _string(name) + _string(unit)
        for ok, value, name, unit in findings
    ]
    return bytes([len(lines)]) + b"".join(lines)


def result_reply(number: int, operation: Operation, result: Result, adc_bits: int) -> bytes:
    """The reply of an operation."""

    def start(n: int) -> bytes:
        return struct.pack("<IIdd", number, n, result.span.started_s, result.span.ended_s)

    def column(values: NDArray[Any], kind: str) -> bytes:
        return values.astype(kind).tobytes()

    if isinstance(result, ApplyResult):
        n, m = result.status.shape
        counts = column(result.pulses, "<u4") + column(result.reads, "<u4")
        measured = (
            column(v, "<f8") for v in (result.current_a, result.conductance_s, result.time_s)
        )
        gates = b"" if result.gate_a is None else column(result.gate_a, "<f8")
        head, status = struct.pack("<II", m, 0), column(result.status, "u1")
        return b"".join((start(n), head, counts, *measured, status, gates))
    if isinstance(result, ProgramResult):
        counts = b"".join(
            column(c, "<u4") for c in (result.set_pulses, result.reset_pulses, result.reads)
        )
        ends = column(result.status, "u1") + column(result.inside, "u1")
        coded = isinstance(operation, Program) and operation.verify == "coded"
        vectors = struct.pack("<I", result.vectors) if coded else b""
        cells = column(result.conductance_s, "<f8") + counts + ends
        return start(result.status.size) + cells + vectors
    if isinstance(result, CodedReadResult) and isinstance(operation, CodedRead):
        return start(result.status.size) + _conductances(operation.blocks, result)
    if isinstance(result, MultiplyResult):
        return start(result.codes.shape[0]) + _products(result, 2 if adc_bits <= 16 else 4)
    return start(result.written if isinstance(result, WordsResult) else 0)


def _conductances(blocks: tuple[Block, ...], result: CodedReadResult) -> bytes:
    """What the codes gave, in 16 bits a cell: each column of a block has a scale of its own."""
    scales, sigmas, codes, first = [], [], [], 0
    for block in blocks:
        cells, shape = slice(first, first + block.size), (block.rows, block.columns)
        first += block.size
        value = result.conductance_s[cells].reshape(shape)
        known = (result.status[cells].reshape(shape) == Status.OK) & np.isfinite(value)
        value = np.where(known, value, 0.0)
        scale = np.abs(value).max(axis=0) / 32767
        steps = np.rint(np.divide(value, scale, out=np.zeros(shape), where=scale > 0))
        # Rounding to a step is an error of its own, evenly spread over the step.
        sigma = np.hypot(result.sigma_s[cells].reshape(shape)[0], scale / np.sqrt(12))
        scales.append(scale)
        sigmas.append(np.where(known.any(axis=0) & np.isfinite(sigma), sigma, 0.0))
        codes.append(np.where(known, np.clip(steps, -32767, 32767), -32768))
    head = struct.pack("<II", result.vectors, result.saturated)
    columns = [result.full_scale_a, *scales, *sigmas]
    return (
        head
        + b"".join(c.astype("<f8").tobytes() for c in columns)
        + b"".join(c.astype("<i2").tobytes() for c in codes)
    )


def _products(result: MultiplyResult, code_bytes: int) -> bytes:
    sums, sum_bytes, sum_column = result.word_sums, 0, b""
    if sums is not None:
        fits = sums.size == 0 or (bool(sums.min() >= -(1 << 31)) and bool(sums.max() < 1 << 31))
        sum_bytes = 4 if fits else 8
        sum_column = sums.astype(f"<i{sum_bytes}").tobytes()
    head = struct.pack(
        "<IIdBB6x", result.codes.shape[1], result.saturated, result.lsb_a, code_bytes, sum_bytes
    )
    return head + result.codes.astype(f"<i{code_bytes}").tobytes() + sum_column
