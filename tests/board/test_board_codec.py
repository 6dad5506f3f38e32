"""The two codecs of docs/board-protocol.md against each other, and both against garbage."""

from __future__ import annotations

import contextlib
import math
import re
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
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
    Scheme,
    Span,
    Status,
    Step,
    Stop,
    Wait,
    WaitResult,
    WordsResult,
    WriteWords,
)
from rram_hil.array.coded_read import code, row_signs
from rram_hil.array.coded_read import decode as decoded
from rram_hil.drivers.dialects import board_codec as host
from rram_hil.drivers.simulated.board import codec as far
from rram_hil.errors import LimitError
from rram_hil.simulation.board_envelope import most_coded_cells
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

GEOMETRY = Geometry(3, 7, 5)
DOCUMENT = Path(__file__).parents[2] / "docs" / "board-protocol.md"
quick = settings(max_examples=50, deadline=None)
u32 = st.integers(0, 2**32 - 1)
number = st.integers(1, 2**32 - 1)
kinds = st.sampled_from(list(host.Kind))
payloads = st.binary(max_size=300)
finite = st.floats(allow_nan=False, allow_infinity=False)


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    cut, at = [], 0
    for size in [*sizes, len(data)]:
        cut.append(data[at : at + size])
        at += size
    return cut


def heard_by_host(reader: host.FrameReader, parts: list[bytes]) -> list[host.Frame]:
    return [frame for part in parts for frame in reader.feed(part)]


def heard_by_board(parser: far.Parser, parts: list[bytes]) -> list[Any]:
    return [item for part in parts for item in parser.push(part)]


@quick
@given(kinds, payloads, u32, u32, st.integers(1, 60), st.lists(st.integers(0, 50)))
def test_what_the_host_sends_the_board_reads_however_it_is_cut(
    kind, payload, sequence, boot, size, sizes
):
    stream = b"".join(host.encode_request(kind, payload, sequence, boot, size))
    parts = heard_by_board(far.Parser(), chunks(stream, sizes))
    assert b"".join(p.payload for p in parts) == payload
    assert [p.part for p in parts] == list(range(len(parts)))
    assert [p.more for p in parts] == [True] * (len(parts) - 1) + [False]
    assert {(p.version, p.command, p.sequence, p.boot) for p in parts} == {
        (1, kind, sequence, boot)
    }


@quick
@given(kinds, payloads, u32, u32, finite, st.integers(1, 60), st.lists(st.integers(0, 50)))
def test_what_the_board_sends_the_host_reads_however_it_is_cut(
    kind, payload, sequence, boot, clock, size, sizes
):
    stream = b"".join(far.reply_frames(kind, sequence, boot, clock, payload, flags=4, size=size))
    frames = heard_by_host(host.FrameReader(), chunks(stream, sizes))
    assert b"".join(f.payload for f in frames) == payload
    assert [f.part for f in frames] == list(range(len(frames)))
    assert [bool(f.flags & host.MORE) for f in frames] == [True] * (len(frames) - 1) + [False]
    assert {(f.kind, f.flags & 13, f.sequence, f.boot, f.clock_s) for f in frames} == {
        (kind, 5, sequence, boot, clock)
    }


@quick
@given(
    st.binary(max_size=200) | st.just(host.SYNC * 9) | st.just(host.SYNC + b"\1\1\1" * 20), payloads
)
def test_a_frame_is_found_behind_garbage(noise, payload):
    (frame,) = host.encode_request(host.Kind.APPLY, payload, 7, 9, 1000)
    parser, reader = far.Parser(), host.FrameReader()
    parts = parser.push(noise + frame)
    while parser.is_inside:
        parts += parser.timeout()
    assert payload in [p.payload for p in parts if isinstance(p, far.Part)]
    (reply,) = far.reply_frames(0x10, 7, 9, 0.0, payload, size=1000)
    frames = reader.feed(noise + reply)
    for _ in range(len(noise) + len(reply)):
        frames += reader.give_up()
    assert payload in [f.payload for f in frames]


@quick
@given(payloads, st.data())
def test_a_damaged_frame_is_never_taken_and_the_next_one_is(payload, data):
    (bad,) = host.encode_request(host.Kind.APPLY, payload, 7, 9, 1000)
    (good,) = host.encode_request(host.Kind.STATUS, b"", 8, 9, 1000)
    at = data.draw(st.integers(0, len(bad) - 1))
    bad = bad[:at] + bytes([bad[at] ^ data.draw(st.integers(1, 255))]) + bad[at + 1 :]
    parser, reader = far.Parser(), host.FrameReader()
    parts, frames = parser.push(bad + good), reader.feed(bad + good)
    for _ in range(len(bad) + len(good)):
        parts, frames = parts + parser.timeout(), frames + reader.give_up()
    assert [p.sequence for p in parts if isinstance(p, far.Part)] == [8]
    assert [f.sequence for f in frames] == [8]


@quick
@given(payloads, payloads, st.integers(0, 400))
@example(b"\xeb\xa5\xfd", b"", 42)  # its last byte is the first of every frame
def test_after_half_a_frame_the_next_one_is_found_once_the_link_is_silent(payload, following, cut):
    (first,) = host.encode_request(host.Kind.APPLY, payload, 7, 9, 1000)
    (whole,) = host.encode_request(host.Kind.APPLY, following, 8, 9, 1000)
    stream = first[: cut % len(first)] + whole
    # Where the next frame begins with just the bytes that were cut off, a whole frame arrived: it
    # is right to take it, and what is left of the next one is the frame that is cut.
    arrived = [payload] if stream.startswith(first) else [following]
    parser, reader = far.Parser(), host.FrameReader()
    parts, frames = parser.push(stream), reader.feed(stream)
    for _ in range(len(stream)):
        parts, frames = parts + parser.timeout(), frames + reader.give_up()
    assert [p.payload for p in parts if isinstance(p, far.Part)] == arrived
    assert [f.payload for f in frames] == arrived


@quick
@given(st.binary(max_size=400), st.lists(st.integers(0, 40)))
def test_garbage_crashes_no_parser(noise, sizes):
    assert all(
        isinstance(p, far.Part | far.Damaged)
        for p in heard_by_board(far.Parser(), chunks(noise, sizes))
    )
    reader = host.FrameReader()
    assert all(isinstance(f, host.Frame) for f in heard_by_host(reader, chunks(noise, sizes)))
    assert reader.wanted >= 1


class Invented:
    """Random operations and results over the whole range of the encoding, from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def microvolts(self, n: int) -> Any:
        return self.rng.integers(-(2**31) + 1, 2**31, n) / 1e6

    def volts(self, n: int, *, floating: bool = True) -> Any:
        return self.pick(
            float(self.microvolts(1)[0]), self.microvolts(n), *([None] if floating else [])
        )

    def width_s(self) -> float:
        return int(10 ** self.rng.uniform(0, 15.3)) / 1e12

    def floats(self, *shape: int) -> Any:
        return self.rng.normal(size=shape) * 10.0 ** self.rng.integers(-200, 200, shape)

    def counts(self, *shape: int) -> Any:
        return self.rng.integers(0, 2**32, shape)

    def cells(self) -> Cells:
        index = self.rng.choice(GEOMETRY.size, self.rng.integers(1, 7), replace=False)
        return Cells.from_index(index, GEOMETRY)

    def step(self, n: int, measure: Any = None) -> Step:
        what = measure or self.pick("no", "current", "gate")
        lines = self.volts(n), self.volts(n), self.volts(n)
        both = what == "current" and bool(self.rng.integers(2))
        return Step(*lines, self.width_s(), what, *self.others(), both)

    def others(self) -> tuple[float | None, float | None]:
        """Levels of body and unselected word lines."""
        body, idle = (float(v) for v in self.microvolts(2))
        return self.pick(None, body), self.pick(None, idle)

    def compliance_a(self) -> float | None:
        return self.pick(None, float(self.floats(1)[0]))

    def apply(self) -> Apply:
        cells = self.cells()
        n = len(cells)
        steps = tuple(self.step(n) for _ in range(self.rng.integers(1, 5)))
        stop = None
        if any(s.measure == "current" for s in steps):
            bound, column = float(self.floats(1)[0]), self.floats(n)
            stop = self.pick(
                None,
                Stop(bound),
                Stop(below_s=bound),
                Stop(column, bound),
                Stop(bound, column),
                Stop(column),
            )
        return Apply(
            cells,
            steps,
            self.pick(*Scheme),
            self.compliance_a(),
            stop,
            int(self.rng.integers(1, 4)),
        )

    def train(self, n: int) -> PulseTrain:
        ramps = [
            Ramp(self.volts(n, floating=False), *(float(v) for v in self.microvolts(2)))
            for _ in range(2)
        ]
        return PulseTrain(ramps[0], ramps[1], self.width_s(), *self.others())

    def program(self) -> Program:
        cells = self.cells()
        n = len(cells)
        low, high = np.sort(self.floats(2, n), axis=0)
        reversals, confirm = (int(v) for v in self.rng.integers(0, 99, 2))
        read, budget = self.step(n, "current").without_gate(), self.counts(n)
        unselected, compliance_a = self.pick(*Scheme), self.compliance_a()
        pulses = self.train(n), self.train(n)
        return Program(
            cells, low, high, *pulses, read, budget, reversals, confirm, unselected, compliance_a
        )

    def coded_program(self) -> Program:
        operation = self.program()
        bl, sl, wl = (float(v) for v in self.microvolts(3))
        width_s = operation.read.width_s
        read = Step(bl, sl, self.pick(None, wl), width_s, "current", *self.others())
        return replace(operation, read=read, verify="coded")

    def coded_read(self) -> CodedRead:
        """Blocks one below the other or beside each other, on up to three tiles."""
        blocks = []
        for tile in range(int(self.rng.integers(0, GEOMETRY.tiles + 1))):
            cut = int(self.rng.integers(1, GEOMETRY.rows))
            columns = int(self.rng.integers(1, GEOMETRY.columns + 1))
            beside = Block(tile, 0, GEOMETRY.rows, columns, max(1, GEOMETRY.columns - columns))
            below = Block(tile, cut, GEOMETRY.rows - cut, 0, columns)
            if columns < GEOMETRY.columns:
                blocks.append(beside)
            blocks.append(self.pick(below, Block(tile, cut - 1, 1, columns - 1, 1)))
        read_v, wl_v = self.rng.integers(1, 2**31) / 1e6, float(self.microvolts(1)[0])
        repeat = int(self.rng.integers(1, 2**32))
        body_v, idle_v = self.others()
        return CodedRead(
            tuple(blocks), float(read_v), wl_v, repeat, body_v=body_v, unselected_wl_v=idle_v
        )

    def coded_result(self, operation: CodedRead) -> CodedReadResult:
        """Conductances of a column of a size, sigma one a column, a tenth without a value."""
        n = len(operation.cells)
        scale = 10.0 ** self.rng.integers(-9, -3)
        sigma = [
            np.tile(self.rng.uniform(1e-3, 1e-2, b.columns) * scale, b.rows)
            for b in operation.blocks
        ]
        status = np.where(self.rng.random(n) < 0.1, Status.OVER_RANGE, Status.OK)
        return CodedReadResult(
            self.rng.normal(size=n) * scale,
            np.concatenate([np.zeros(0), *sigma]),
            status.astype(np.uint8),
            self.rng.uniform(1e-6, 1e-3, len(operation.blocks)),
            int(self.counts(1)[0]),
            span=self.span(),
            saturated=int(self.counts(1)[0]),
        )

    def multiply(self) -> Multiply:
        bits = int(self.rng.integers(2, 17))
        top = (1 << (bits - 1)) - 1
        inputs = self.rng.integers(
            -top, top + 1, (self.rng.integers(0, 5), self.rng.integers(1, 6))
        )
        read_v, wl_v = (float(v) for v in self.microvolts(2))
        full_scale_a = float(abs(self.floats(1)[0]))
        words, (body_v, idle_v) = bool(self.rng.integers(2)), self.others()
        return Multiply(
            *(1, 2, 3, 4, inputs, bits, read_v, wl_v, full_scale_a, words),
            body_v=body_v,
            unselected_wl_v=idle_v,
        )

    def words(self) -> WriteWords:
        cells = self.cells()
        return WriteWords(
            cells, self.rng.integers(-(2**31), 2**31, len(cells)), bool(self.rng.integers(2))
        )

    def operation(self) -> Operation:
        wait = Wait(float(abs(self.floats(1)[0])))
        return self.pick(
            self.apply,
            self.program,
            self.coded_program,
            self.multiply,
            self.coded_read,
            self.words,
            lambda: wait,
        )()

    def span(self) -> Span:
        started_s, ended_s = (float(t) for t in self.floats(2))
        return Span(started_s, ended_s)


invented = st.integers(0, 2**63).map(Invented)


def same(a: Any, b: Any) -> bool:
    """Equal in every field, arrays value by value, NaN equal to NaN."""
    if hasattr(a, "__dataclass_fields__") and not isinstance(a, Cells):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.shape(a) == np.shape(b) and bool(
            np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")
        )
    return bool(a == b)


@settings(max_examples=200, deadline=None)
@given(invented, number)
def test_the_board_reads_exactly_the_operation_that_the_host_encoded(some: Invented, k: int):
    operation = some.operation()
    kind, payload = host.encode_operation(operation, k, GEOMETRY)
    assert far.operation_number(payload) == k
    assert same(far.parse_operation(kind, payload, GEOMETRY), operation)


@quick
@given(st.sampled_from([0x10, 0x11, 0x12, 0x13, 0x14, 0x15]), st.binary(max_size=300))
def test_a_senseless_request_is_refused_or_means_something(kind, payload):
    with contextlib.suppress(far.RefusalError):
        far.parse_operation(kind, payload, GEOMETRY)


@pytest.mark.parametrize("name", list(far.ERRORS))
def test_the_host_reads_every_error_of_the_board(name):
    payload = far.RefusalError(name, "cell (0, 0, 0): \u00b5V " + 300 * "x", 7).payload()
    code, about, text = host.decode_error(payload)
    assert host.Code(code).name == name.replace(" ", "_")
    assert about == 7
    assert text.startswith("cell (0, 0, 0): \u00b5V xxx")


@quick
@given(invented, st.data())
def test_a_request_that_is_cut_or_too_long_is_refused(some, data):
    kind, payload = host.encode_operation(some.operation(), 1, GEOMETRY)
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    for wrong in (cut, payload + b"x"):
        with pytest.raises(far.RefusalError):
            far.parse_operation(kind, wrong, GEOMETRY)


@quick
@given(invented)
def test_the_host_reads_exactly_the_apply_result_that_the_board_encoded(some):
    operation = some.apply()
    n, m = len(operation.cells), operation.measurements
    current, conductance, time = some.floats(3, n, m)
    current[some.rng.random((n, m)) < 0.3] = np.nan
    status = some.rng.integers(0, 7, (n, m), dtype=np.uint8)
    gate = some.floats(n, m) if operation.also_gate else None
    result = ApplyResult(
        current,
        conductance,
        status,
        time,
        some.counts(n),
        some.counts(n),
        some.span(),
        gate_a=gate,
    )
    reply = far.result_reply(5, operation, result, 12)
    assert host.result_bytes(operation, result, 12) == len(reply)
    assert same(
        host.decode_result(far.result_reply(5, operation, result, 12), operation, 5), result
    )


@quick
@given(invented)
def test_the_host_reads_exactly_the_program_result_that_the_board_encoded(some):
    operation = some.program()
    n = len(operation.cells)
    status, inside = some.rng.integers(0, 7, n, dtype=np.uint8), some.rng.random(n) < 0.5
    result = ProgramResult(some.floats(n), status, inside, *some.counts(3, n), some.span())
    assert same(
        host.decode_result(far.result_reply(5, operation, result, 12), operation, 5), result
    )


@quick
@given(invented, st.sampled_from([12, 16, 20, 32]), st.sampled_from([20, 31, 40, 62]))
def test_the_host_reads_exactly_the_products_that_the_board_encoded(some, adc_bits, sum_bits):
    operation = some.multiply()
    shape = (operation.inputs.shape[0], operation.columns)
    codes = some.rng.integers(-(1 << (adc_bits - 1)) + 1, 1 << (adc_bits - 1), shape).astype(
        np.int32
    )
    sums = some.rng.integers(-(1 << sum_bits), 1 << sum_bits, shape) if operation.words else None
    result = MultiplyResult(codes, float(some.floats(1)[0]), sums, 3, span=some.span())
    assert same(
        host.decode_result(far.result_reply(9, operation, result, adc_bits), operation, 9), result
    )


@quick
@given(invented)
def test_the_result_of_a_coded_write_verify_tells_its_vectors(some):
    operation = some.coded_program()
    n = len(operation.cells)
    status, inside = some.rng.integers(0, 7, n, dtype=np.uint8), some.rng.random(n) < 0.5
    counts, vectors = some.counts(3, n), int(some.counts(1)[0])
    result = ProgramResult(some.floats(n), status, inside, *counts, some.span(), vectors=vectors)
    reply = far.result_reply(5, operation, result, 12)
    assert same(host.decode_result(reply, operation, 5), result)
    with pytest.raises(host.MalformedError, match="4 bytes too many"):
        host.decode_result(reply, replace(operation, verify="single"), 5)


@quick
@given(invented)
def test_the_host_reads_the_conductances_of_blocks_to_half_a_step_of_16_bits(some):
    operation = some.coded_read()
    result = some.coded_result(operation)
    reply = far.result_reply(5, operation, result, 12)
    blocks = operation.blocks
    assert len(reply) == 32 + sum(8 + 16 * b.columns + 2 * b.size for b in blocks)
    found = host.decode_result(reply, operation, 5)
    assert isinstance(found, CodedReadResult)
    known, first = result.status == Status.OK, 0
    for block in blocks:
        cells, shape = slice(first, first + block.size), (block.rows, block.columns)
        first += block.size
        wanted = np.where(known, result.conductance_s, 0.0)[cells].reshape(shape)
        there = known[cells].reshape(shape)
        step = np.abs(wanted).max(axis=0) / 32767
        got = np.where(there, found.conductance_s[cells].reshape(shape), 0.0)
        assert (np.abs(got - wanted) <= step * 0.5000001).all()
        sigma = np.where(there.any(axis=0), np.hypot(result.sigma_s[cells][: block.columns], 0), 0)
        told = found.sigma_s[cells].reshape(shape)
        assert (told == told[0]).all()
        assert ((sigma <= told[0]) & (told[0] <= np.hypot(sigma, step))).all()
    assert (np.isnan(found.conductance_s) == ~known).all()
    plain = ("status", "full_scale_a", "vectors", "saturated", "span", "reads", "way")
    assert all(same(getattr(found, name), getattr(result, name)) for name in plain)


BLOCKS = CodedRead((Block(0, 0, 2, 0, 2), Block(1, 0, 2, 0, 1)))
READING = CodedReadResult(
    np.array([1e-5, 2e-5, -3e-7, 0.0, 4e-5, 5e-5]),
    np.array([1e-8, 2e-8, 1e-8, 2e-8, 3e-8, 3e-8]),
    np.zeros(6, dtype=np.uint8),
    np.array([1e-4, 2e-4]),
    60,
)


def test_a_column_of_zeros_and_a_value_that_is_none_travel_as_such():
    reading = replace(
        READING,
        conductance_s=np.array([0.0, np.nan, 0.0, 2e-5, 4e-5, np.inf]),
        sigma_s=np.array([1e-8, 2e-8, 1e-8, 2e-8, np.nan, np.nan]),
    )
    found = host.decode_result(far.result_reply(5, BLOCKS, reading, 12), BLOCKS, 5)
    assert isinstance(found, CodedReadResult)
    np.testing.assert_array_equal(found.conductance_s, [0, np.nan, 0, 2e-5, 4e-5, np.nan])
    np.testing.assert_array_equal(found.status, [0, 2, 0, 0, 0, 2])
    assert found.sigma_s[4] == 0


@pytest.mark.parametrize(
    ("offset", "layout", "value", "text"),
    [
        (0, "I", 6, "about"),
        (4, "I", 5, "about"),
        (32, "d", 0.0, "a full scale of 0"),
        (40, "d", float("nan"), "a full scale of nan"),
        (48, "d", float("nan"), "a scale of nan"),
        (64, "d", -1e-9, "a scale of -1e-09"),
        (56, "d", float("inf"), "a scale of inf"),
        (72, "d", float("nan"), "a sigma of nan"),
        (88, "d", -1e-9, "a sigma of -1e-09"),
    ],
)
def test_a_wrong_reply_of_read_blocks_is_malformed(offset, layout, value, text):
    reply = bytearray(far.result_reply(5, BLOCKS, READING, 12))
    struct.pack_into("<" + layout, reply, offset, value)
    with pytest.raises(host.MalformedError, match=text):
        host.decode_result(bytes(reply), BLOCKS, 5)
    for size, problem in ((-1, "too few"), (1, "too many")):
        whole = far.result_reply(5, BLOCKS, READING, 12)
        with pytest.raises(host.MalformedError, match=problem):
            host.decode_result(whole[:size] if size < 0 else whole + b"x", BLOCKS, 5)


@pytest.mark.parametrize(
    ("blocks", "error", "text"),
    [
        ([(3, 0, 1, 0, 1)], "RANGE", "off the chip"),
        ([(0, 6, 2, 0, 1)], "RANGE", "off the chip"),
        ([(0, 0, 1, 2**32 - 1, 2**32 - 1)], "RANGE", "off the chip"),
        ([(0, 0, 2, 0, 2), (1, 0, 2, 0, 2), (0, 1, 1, 1, 3)], "RANGE", "shares a cell"),
        ([(0, 0, 0, 0, 1)], "BAD REQUEST", "a row and a column"),
    ],
)
def test_blocks_that_are_none_are_refused(blocks, error, text):
    head = struct.pack("<2I2iI", 5, len(blocks), 200000, 3000000, 1)
    with pytest.raises(far.RefusalError, match=text) as refusal:
        far.parse_operation(0x15, head + np.array(blocks, "<u4").tobytes(), GEOMETRY)
    assert refusal.value.name == error


@pytest.mark.parametrize(("read_uv", "repeat"), [(0, 1), (-200000, 1), (200000, 0)])
def test_a_coded_read_without_volts_or_repeats_is_refused(read_uv, repeat):
    request = struct.pack("<2I2iI5I", 5, 1, read_uv, 3000000, repeat, 0, 0, 1, 0, 1)
    with pytest.raises(far.RefusalError) as refusal:
        far.parse_operation(0x15, request, GEOMETRY)
    assert refusal.value.name == "BAD REQUEST"


def test_a_verify_that_is_not_known_is_refused():
    payload = bytearray(host.encode_program(Invented(3).coded_program(), 1, GEOMETRY))
    assert payload[18] == 1
    payload[18] = 2
    with pytest.raises(far.RefusalError, match="verify 2"):
        far.parse_operation(0x11, bytes(payload), GEOMETRY)


def identified(**changes: Any) -> host.Envelope:
    can = replace(
        SimulatedChip(GEOMETRY, Simulation(), read_v=0.3, chip_id="c").capabilities, **changes
    )
    names = ("model", "serial", "1", "c")
    payload = far.identify_reply(can, GEOMETRY, names, max_message=1 << 16, rate=1e5, pace=1.0)
    return host.decode_identify(payload, 1, "x")


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_the_envelope_tells_of_codes_and_of_signs(coded, signed):
    can = identified(coded_read=coded, signed_inputs=signed).capabilities
    assert (can.coded_read, can.signed_inputs, can.clock) == (coded, signed, "virtual")


@given(st.integers(0, 1 << 24))
def test_both_sides_bound_the_cells_of_blocks_by_what_a_message_holds(max_message):
    cells = host.max_coded_cells(max_message)
    assert cells == most_coded_cells(max_message)
    assert cells == 0 or max(20 + 20 * cells, 32 + 26 * cells) <= max_message < 32 + 26 * (
        cells + 1
    )


def test_the_host_reads_words_and_waits():
    words, wait = WordsResult(1, Span(1.0, 2.0)), WaitResult(Span(1.0, 2.5))
    writing = WriteWords(Cells.of([(0, 0, 0)]), np.array([3]))
    assert same(host.decode_result(far.result_reply(2, writing, words, 12), writing, 2), words)
    assert same(host.decode_result(far.result_reply(2, Wait(1.5), wait, 12), Wait(1.5), 2), wait)


@quick
@given(st.binary(max_size=300), invented)
def test_a_senseless_reply_is_called_malformed(payload, some):
    operation = some.operation()
    for decode in (
        lambda: host.decode_result(payload, operation, 1),
        lambda: host.decode_identify(payload, 1, "x"),
        lambda: host.decode_identify(host.MAGIC + payload, 1, "x"),
        lambda: host.decode_status(payload),
        lambda: host.decode_executed(payload, 1, 3),
        lambda: host.decode_self_test(payload),
        lambda: host.decode_error(payload),
        lambda: host.decode_abort(payload),
    ):
        with contextlib.suppress(host.MalformedError):
            decode()


def test_a_reply_about_another_operation_is_malformed():
    with pytest.raises(host.MalformedError, match="about"):
        host.decode_result(far.result_reply(4, Wait(1.0), WaitResult(), 12), Wait(1.0), 5)


positive = st.floats(min_value=1e-12, max_value=1e9)


@quick
@given(st.lists(positive, min_size=12, max_size=12), st.integers(1, 2**40))
def test_limits_come_back_bit_for_bit(values, pulses):
    no_numbers = ("conductance_s", "pulses_per_cell", "read_v_reason", "body_v", "body_over_v")
    names = (n for n in Limits.model_fields if n not in no_numbers)
    limits = Limits(**dict(zip(names, values, strict=True)), pulses_per_cell=pulses)
    payload = host.encode_limits(limits)
    assert far.parse_limits(payload) == limits
    assert far.limits_reply(far.parse_limits(payload)) == payload


@quick
@given(st.integers(0, 13))
def test_a_limit_that_is_not_a_number_is_refused(place):
    payload = bytearray(np.ones(14).tobytes() + (1).to_bytes(8, "little"))
    payload[8 * place : 8 * place + 8] = np.array([np.nan]).tobytes()
    with pytest.raises(far.RefusalError):
        far.parse_limits(bytes(payload))


@pytest.mark.parametrize("volts_", [float("nan"), float("inf"), 2200.0, -2147.484])
def test_volts_that_the_link_cannot_carry_are_refused_before_sending(volts_):
    cells = Cells.of([(1, 2, 3), (1, 2, 4)])
    with pytest.raises(LimitError, match=r"cell \(1, 2, 4\): WL"):
        host.encode_apply(Apply(cells, (Step(wl_v=np.array([1.0, volts_])),)), 1, GEOMETRY)


@pytest.mark.parametrize("width", [float("nan"), 0.0, -1e-9, 4e-13, 2001.0])
def test_widths_that_the_link_cannot_carry_are_refused_before_sending(width):
    with pytest.raises(LimitError, match="width"):
        host.encode_apply(Apply(Cells.of([(0, 0, 0)]), (Step(width_s=width),)), 1, GEOMETRY)


@pytest.mark.parametrize("width", [1e-12, 1e-10, 90e-9, 1e-6, 3.3e-5, 1e-2])
def test_no_small_setting_is_truncated(width):
    operation = Apply(Cells.of([(0, 0, 0)]), (Step(1e-6, -1e-6, 0.3, width),), compliance_a=1e-9)
    assert same(
        far.parse_operation(0x10, host.encode_apply(operation, 1, GEOMETRY), GEOMETRY), operation
    )


def examples() -> list[bytes]:
    """The frames that the document shows."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return [bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f \n]+)```", text)]


def test_the_documents_examples_are_what_both_sides_speak():
    wait, apply, refusal, blocks = examples()
    kind, payload = host.encode_operation(Wait(1.5), 6, GEOMETRY)
    assert list(host.encode_request(kind, payload, 2, 1, 1024)) == [wait]
    step = Step(np.array([0.2, 0.15]), 0.0, 3.0, 90e-9, "current")
    kind, payload = host.encode_operation(
        Apply(Cells.of([(0, 0, 0), (0, 1, 0)]), (step,)), 7, GEOMETRY
    )
    assert list(host.encode_request(kind, payload, 3, 1, 1024)) == [apply]
    error = far.RefusalError("NOT ARMED", "not armed", 7).payload()
    assert list(far.reply_frames(kind, 3, 1, 0.5, error, flags=4)) == [refusal]
    reading = CodedRead((Block(0, 2, 3, 0, 2), Block(0, 0, 2, 4, 1)), 0.2, 3.0, 2)
    kind, payload = host.encode_operation(reading, 8, GEOMETRY)
    assert list(host.encode_request(kind, payload, 4, 1, 1024)) == [blocks]
    assert same(far.parse_operation(kind, payload, GEOMETRY), reading)


def test_the_documents_codes_are_what_the_code_makes():
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^row \d: ([+ -]+)$", text, re.MULTILINE)
    signs = np.array([[1 if mark == "+" else -1 for mark in row.split()] for row in rows]).T
    np.testing.assert_array_equal(signs, code(3))
    (told,) = re.findall(r"^((?:-?\d+ ){19}-?\d+)$", text, re.MULTILINE)
    currents_a = np.array([float(value) for value in told.split()])[:, None] * 1e-6
    conductance, sigma = decoded(currents_a, 3, 0.2)
    np.testing.assert_allclose(conductance[:, 0], [10e-6, 20e-6, 30e-6], rtol=1e-12)
    assert sigma[0] < 1e-18
    np.testing.assert_array_equal(np.flatnonzero(row_signs(16) < 0), [0, 2, 3, 7, 9, 10, 11])


def documented_code(rows: int) -> Any:
    """The code of a block as the document tells it, entry by entry: written from the document."""
    m = 4 * -(-(rows + 17) // 4)
    while not (found := doublings(m)):
        m += 4
    q, k = found
    h = [[paley(q, v, j) for j in range(q + 1)] for v in range(q + 1)]
    for _ in range(k):
        h = [[s * x for x in row for s in signs] for row in h for signs in ((1, 1), (1, -1))]
    # The same entry by entry, as a board without room for H makes it.
    for v, j in [(0, 0), (m - 1, m - 1), (m // 2, m - 3), (m // 3, 2), (m - 5, m // 2 + 1)]:
        first = paley(q, v >> k, j >> k)
        assert h[v][j] == first * (-1) ** (v & j & ((1 << k) - 1)).bit_count()
    place = [r + 1 for r in range(rows)]
    if 2 * rows < m:
        place = [1 + (r * (m - 2) // (rows - 1) if rows > 1 else 0) for r in range(rows)]
    sign = [(-1) ** (math.isqrt(5 * n**4) - n**2) for n in range(1, rows + 1)]
    return np.array([[sign[r] * h[v][place[r]] for r in range(rows)] for v in range(m)])


def paley(q: int, v: int, j: int) -> int:
    if v == 0 or j == 0:
        return 1
    return -1 if v == j or (j - v) % q in {x * x % q for x in range(1, q)} else 1


def doublings(m: int) -> tuple[int, int] | None:
    k = 0
    while m > 2:
        if m % 4 == 0 and all((m - 1) % d for d in range(2, m - 1)):
            return m - 1, k
        if m % 2:
            return None
        m, k = m // 2, k + 1
    return None


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16, 40, 47, 100, 128])
def test_a_code_made_after_the_document_is_the_code(rows):
    np.testing.assert_array_equal(documented_code(rows), code(rows))
