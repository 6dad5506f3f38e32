"""The clock of the simulated array is that of the simulated board: each operation costs its link
time and the bytes of its messages on both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import GEOMETRY, LIMITS
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    CodedReadResult,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Scheme,
    Span,
    Step,
    Stop,
    Volts,
    Wait,
    WaitResult,
    WordsResult,
    WriteWords,
    read,
)
from rram_hil.drivers.dialects.board_codec import result_bytes
from rram_hil.drivers.simulated.board.codec import result_reply
from rram_hil.drivers.simulated_array import SimulatedArray, SimulatedArrayConfig, launch
from rram_hil.engine.lowering import lower
from rram_hil.hardware.driver import Driver
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation, Timing

LINKS = {
    "default": Timing(),
    "many frames a message": Timing(link_s=3e-4, bytes_per_s=1.5e4),
    "free": Timing(link_s=0.0, bytes_per_s=math.inf),
}
ALL = Cells.all(GEOMETRY)
SCHEMES = st.sampled_from(list(Scheme))


@dataclass
class Pair:
    """The same chip behind a board and in the process, and the operations that both have seen."""

    board: Driver
    array: SimulatedArray
    number: int = 0

    def carry_out(self, operation: Operation) -> None:
        """Run an operation on both, cut as the core cuts it for each; results and clocks agree."""
        parts = lower(operation, self.board.capabilities, LIMITS)
        same = lower(operation, self.array.capabilities, LIMITS)
        part, twin = next(parts), next(same)
        while True:
            self.number += 1
            found = self.board.execute(part, self.number)
            expected = self.array.execute(twin, self.number)
            assert_same(found, expected)
            assert self.array.now_s() == pytest.approx(self.board.now_s(), rel=1e-9)
            part, ended = _next(parts, found)
            twin, twin_ended = _next(same, expected)
            assert ended == twin_ended
            if ended:
                return


def _next(lowered: Any, result: Any) -> tuple[Any, bool]:
    try:
        return lowered.send(result), False
    except StopIteration:
        return None, True


def assert_same(found: Any, expected: Any) -> None:
    """Two results agree: times and decoded values to rounding, everything else exactly."""
    assert type(found) is type(expected)
    for field in fields(found):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, Span):
            times = (one.started_s, one.ended_s)
            assert times == pytest.approx((other.started_s, other.ended_s), rel=1e-9)
        elif field.name == "time_s":
            np.testing.assert_allclose(one, other, rtol=1e-9)
        elif isinstance(found, ProgramResult) and field.name == "conductance_s":
            # Codes are decoded in another order of sums by the firmware.
            np.testing.assert_allclose(one, other, rtol=1e-11)
        elif isinstance(found, CodedReadResult) and field.name in ("conductance_s", "sigma_s"):
            # 16 bits for each column.
            atol = np.abs(expected.conductance_s).max(initial=0.0) / 65534
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1.00001 * atol)
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other, err_msg=field.name)
        else:
            assert one == other, field.name


@pytest.fixture(scope="module", params=list(LINKS))
def pair(start: Any, request: pytest.FixtureRequest) -> Iterator[Pair]:
    timing = LINKS[request.param]
    bench = start(timing=timing)
    side = launch(FarSideRequest(Simulation(timing=timing), GEOMETRY, LIMITS, "c1", Path(".")))
    array = SimulatedArray(SimulatedArrayConfig.model_validate(side.settings), GEOMETRY, LIMITS)
    array.connect()
    yield Pair(bench.driver(timeout_s=20.0, watchdog_s=60.0), array)
    array.close()


@st.composite
def batches(draw: st.DrawFn) -> tuple[Cells, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([1, 2, 7, 100, len(ALL)]))
    return ALL[rng.permutation(len(ALL))[:n]], rng


def levels(draw: st.DrawFn, rng: np.random.Generator, n: int, low: float, high: float) -> Volts:
    """One level for all cells or one a cell, in whole microvolts as the board takes them."""
    if draw(st.booleans()):
        return np.round(rng.uniform(low, high, n), 6)
    return round(rng.uniform(low, high), 6)


def pulse_width(draw: st.DrawFn) -> float:
    return draw(st.integers(10, 10_000)) * 1e-9


@st.composite
def applies(draw: st.DrawFn) -> Operation:
    cells, rng = draw(batches())
    n = len(cells)
    steps = []
    every = ["set", "reset", "read", "gate", "both", "open"]
    for kind in draw(st.lists(st.sampled_from(every), max_size=4)):
        width_s = pulse_width(draw)
        if kind == "set":
            steps.append(
                Step(levels(draw, rng, n, 1.0, 3.5), 0.0, levels(draw, rng, n, 1.5, 2.5), width_s)
            )
        elif kind == "reset":
            steps.append(Step(0.0, levels(draw, rng, n, 0.8, 2.0), 3.5, width_s))
        elif kind == "read":
            steps.append(Step(levels(draw, rng, n, 0.1, 0.3), 0.0, 3.0, width_s, "current"))
        elif kind == "both":
            volts = levels(draw, rng, n, 0.1, 0.3)
            steps.append(Step(volts, 0.0, 3.0, width_s, "current", None, 0.5, True))
        elif kind == "gate":
            steps.append(Step(0.1, 0.0, levels(draw, rng, n, 1.0, 3.0), width_s, "gate"))
        else:
            steps.append(Step(0.2, None, 3.0, width_s, "current"))
    steps.append(Step(0.2, 0.0, 3.0, 1e-6, "current"))
    bounds = {"none": None, "shared": 6e-5, "column": rng.uniform(2e-5, 9e-5, n)}
    above = bounds[draw(st.sampled_from(list(bounds)))]
    below = bounds[draw(st.sampled_from(list(bounds)))]
    return Apply(
        cells,
        tuple(steps),
        draw(SCHEMES),
        draw(st.sampled_from([None, 1e-4])),
        None if above is None and below is None else Stop(above, below),
        draw(st.sampled_from([1, 2, 5, 30])),
    )


@st.composite
def programs(draw: st.DrawFn) -> Operation:
    cells, rng = draw(batches())
    n = len(cells)
    low = rng.uniform(1e-5, 8e-5, n)
    sets = PulseTrain(
        Ramp(levels(draw, rng, n, 1.2, 1.6), 3.0, 0.1),
        Ramp(levels(draw, rng, n, 1.8, 2.2), 2.4, 0.05),
        pulse_width(draw),
    )
    resets = PulseTrain(
        Ramp(levels(draw, rng, n, 0.8, 1.2), 2.5, 0.1),
        Ramp(levels(draw, rng, n, 3.0, 3.5), 3.5),
        pulse_width(draw),
    )
    coded = draw(st.booleans())
    read_v = round(rng.uniform(0.1, 0.2), 6) if coded else levels(draw, rng, n, 0.1, 0.2)
    return Program(
        cells,
        low,
        low + 1e-5,
        sets,
        resets,
        Step(read_v, 0.0, 3.0, 1e-6, "current"),
        max_pulses=rng.integers(0, 12, n),
        max_reversals=draw(st.integers(0, 4)),
        confirm=draw(st.integers(0, 2)),
        unselected=draw(SCHEMES),
        verify="coded" if coded else "single",
    )


@st.composite
def coded_reads(draw: st.DrawFn) -> Operation:
    row, column = draw(st.integers(1, GEOMETRY.rows - 1)), draw(st.integers(1, 23))
    above = Block(draw(st.integers(0, 1)), 0, row, 0, column)
    below = Block(draw(st.integers(0, 1)), row, GEOMETRY.rows - row, column - 1, 24 - column)
    blocks = draw(st.sampled_from([(), (above,), (below,), (above, below)]))
    return CodedRead(blocks, 0.15, 3.0, draw(st.integers(1, 3)))


@st.composite
def multiplies(draw: st.DrawFn) -> Operation:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.integers(2, 8))
    top = (1 << (bits - 1)) - 1
    rows, columns = draw(st.integers(1, GEOMETRY.rows)), draw(st.integers(1, GEOMETRY.columns))
    vectors = draw(st.sampled_from([1, 3, 400]))
    return Multiply(
        draw(st.integers(0, GEOMETRY.tiles - 1)),
        GEOMETRY.rows - rows,
        GEOMETRY.columns - columns,
        columns,
        rng.integers(-top, top + 1, (vectors, rows)).astype(np.int16),
        bits,
        full_scale_a=draw(st.sampled_from([1e-5, 1e-3])),
        words=draw(st.booleans()),
    )


@st.composite
def words(draw: st.DrawFn) -> Operation:
    cells, rng = draw(batches())
    values = rng.integers(-127, 128, len(cells)).astype(np.int32)
    return WriteWords(cells, values, clear=draw(st.booleans()))


waits = st.sampled_from([0.0, 1e-6, 0.25, 1000.1]).map(Wait)
operations = st.one_of(applies(), programs(), multiplies(), coded_reads(), words(), waits)


@settings(max_examples=12, deadline=None)
@given(sequence=st.lists(operations, min_size=1, max_size=5))
def test_the_array_answers_and_takes_time_as_the_board(
    pair: Pair, sequence: list[Operation]
) -> None:
    for operation in sequence:
        pair.carry_out(operation)


def test_the_array_takes_at_once_what_the_board_takes(pair: Pair) -> None:
    board, array = pair.board.capabilities, pair.array.capabilities
    for field in fields(board):
        one, other = getattr(board, field.name), getattr(array, field.name)
        if field.name in ("bl_v", "sl_v", "wl_v", "width_s"):
            # The board tells them in whole microvolts and picoseconds.
            ends = (other.low, other.high, other.step)
            assert (one.low, one.high, one.step) == pytest.approx(ends, rel=1e-12, abs=5e-7)
        elif field.name not in ("link", "read_fraction", "read_floor_a"):
            assert one == other, field.name


def test_a_link_costs_its_turn_and_the_bytes_of_both_messages(pair: Pair) -> None:
    timing = pair.array.chip.simulation.timing
    began_s = pair.array.now_s()
    pair.carry_out(Wait(0.0))
    # A request of 16 bytes, a reply of 24, and 40 more around each.
    wanted_s = timing.link_s + (16 + 40 + 24 + 40) / timing.bytes_per_s
    assert pair.array.now_s() - began_s == pytest.approx(wanted_s, rel=1e-6, abs=1e-9)


def test_the_length_of_a_reply_is_known_without_writing_it() -> None:
    span = Span(1.0, 2.0)
    for n, m in ((1, 0), (5, 3)):
        grid, counts = np.zeros((n, m)), np.zeros(n, dtype=np.int64)
        status = np.zeros((n, m), dtype=np.uint8)
        applied = ApplyResult(grid, grid, status, grid, counts, counts, span)
        apply = read(ALL[:n], repeat=m) if m else Apply(ALL[:n], (Step(0.0, 0.0, 3.0, 1e-6),))
        assert result_bytes(apply, applied, 12) == len(result_reply(7, apply, applied, 12))
        train = PulseTrain(Ramp(1.0, 2.0), Ramp(2.0, 2.0), 1e-7)
        program = Program(
            ALL[:n], np.zeros(n), np.ones(n), train, train, Step(0.2, 0.0, 3.0, 1e-6, "current")
        )
        programmed = ProgramResult(
            np.zeros(n), status[:, :0].any(axis=1).astype(np.uint8), counts > 0, *[counts] * 3, span
        )
        assert result_bytes(program, programmed, 12) == len(
            result_reply(7, program, programmed, 12)
        )
        coded = replace(program, verify="coded")
        assert result_bytes(coded, programmed, 12) == len(result_reply(7, coded, programmed, 12))
    blocks = CodedRead((Block(0, 0, 2, 0, 3), Block(1, 0, 1, 0, 1)))
    reading = CodedReadResult(
        np.zeros(7), np.zeros(7), np.zeros(7, dtype=np.uint8), np.ones(2), 40, span=span
    )
    assert result_bytes(blocks, reading, 12) == len(result_reply(7, blocks, reading, 12))
    block = Multiply(0, 0, 0, 3, np.zeros((2, 4), dtype=np.int16))
    codes = np.zeros((2, 3), dtype=np.int32)
    for sum_ in (None, 0, (1 << 31) - 1, 1 << 31, -(1 << 31), -(1 << 31) - 1):
        sums = None if sum_ is None else np.full((2, 3), sum_, dtype=np.int64)
        for adc_bits in (12, 16, 17):
            product = MultiplyResult(codes, 1e-9, sums, 0, False, span)
            assert result_bytes(block, product, adc_bits) == len(
                result_reply(7, block, product, adc_bits)
            )
    stored, waited = WordsResult(3, span), WaitResult(span)
    write = WriteWords(ALL[:3], np.zeros(3, dtype=np.int32))
    assert result_bytes(write, stored, 12) == len(result_reply(7, write, stored, 12))
    assert result_bytes(Wait(1.0), waited, 12) == len(result_reply(7, Wait(1.0), waited, 12))
