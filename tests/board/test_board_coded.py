"""Reading by codes over the wire: READ BLOCKS and a PROGRAM whose verify is coded, native, on
boards that have less, over bad links, aborted and through reboots.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from boards import GEOMETRY, LIMITS

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    CodedReadResult,
    Multiply,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Status,
    Step,
    Stop,
    drive,
    read_step,
)
from rram_hil.array.coded_read import code_order
from rram_hil.drivers import test_chip_board as board
from rram_hil.drivers.simulated import test_chip_board as far
from rram_hil.drivers.simulated.board.codec import RefusalError
from rram_hil.engine.lowering import lower
from rram_hil.errors import (
    AbortedError,
    ConfigError,
    InstrumentError,
    LimitError,
    UnknownOutcomeError,
)
from rram_hil.simulation import board_envelope
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation, Timing

ALL = Cells.all(GEOMETRY)
SOME = ALL[100:130]
FORM = Apply(
    ALL,
    (Step(3.4, 0.0, 2.0, 1e-6), read_step()),
    stop=Stop(above_s=6e-5),
    repeat=3,
)
WHOLE = CodedRead((Block(0, 0, 16, 0, 24), Block(1, 0, 16, 0, 24)))
PIECES = CodedRead((Block(0, 2, 3, 4, 5), Block(1, 0, 16, 23, 1), Block(0, 15, 1, 0, 9)), repeat=2)


def verify(cells: Cells, width_s: float = 100e-9, **changes: Any) -> Program:
    """A write-verify by codes."""
    plan: dict[str, Any] = {"max_pulses": 5, "verify": "coded"} | changes
    return Program(
        cells,
        np.full(len(cells), 5e-5),
        np.full(len(cells), 6e-5),
        PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(2.2, 2.2), width_s),
        PulseTrain(Ramp(1.0, 3.0, 0.1), Ramp(3.5, 3.5), width_s),
        read_step(0.2, 3.0, 1e-6),
        **plan,
    )


def never_inside(cells: Cells, width_s: float, max_pulses: int) -> Program:
    """A write-verify that gives every cell all its pulses: no cell conducts so much."""
    top = np.full(len(cells), 1e-3)
    return replace(verify(cells, width_s, max_pulses=max_pulses), low_s=top, high_s=top)


def direct_chip(folder: Any, **simulation: Any) -> SimulatedChip:
    """The board's chip in the process, with a link that costs no time."""
    free = Timing(link_s=0.0, bytes_per_s=math.inf)
    made = Simulation(timing=free, **simulation)
    return SimulatedChip(GEOMETRY, made, read_v=LIMITS.read_v, chip_id="c1", folder=folder)


def next_number(wire: Any) -> int:
    return int(wire.last_number()) + 1


def assert_same_reading(got: CodedReadResult, wanted: CodedReadResult, blocks: Any) -> None:
    """Equal up to the 16 bits of each column."""
    first = 0
    for block in blocks:
        cells, shape = slice(first, first + block.size), (block.rows, block.columns)
        first += block.size
        value, told = (r.conductance_s[cells].reshape(shape) for r in (wanted, got))
        step = np.abs(value).max(axis=0) / 32767
        assert (np.abs(told - value) <= 0.5000001 * step).all()
        sigma = wanted.sigma_s[cells].reshape(shape)
        told = got.sigma_s[cells].reshape(shape)
        np.testing.assert_allclose(told, np.hypot(sigma, step / math.sqrt(12)), rtol=1e-12)
        assert (step < sigma).all()
    for name in ("status", "full_scale_a"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    for name in ("vectors", "saturated", "way", "reads"):
        assert getattr(got, name) == getattr(wanted, name)
    times = (wanted.span.started_s, wanted.span.ended_s)
    assert (got.span.started_s, got.span.ended_s) == pytest.approx(times, rel=1e-12)


@pytest.mark.parametrize(
    ("transport", "signed"), [("socket", True), ("pty", True), ("socket", False)]
)
def test_coded_results_over_the_wire_are_those_of_the_direct_chip(
    start, transport, signed, tmp_path
):
    bench = start(transport=transport, signed_inputs=signed)
    wire, direct = bench.driver(timeout_s=2.0), direct_chip(tmp_path, signed_inputs=signed)
    assert wire.capabilities.coded_read
    assert wire.capabilities.signed_inputs == signed
    wire.execute(FORM, 1)
    direct.execute(FORM, 1)
    for number, reading in enumerate((WHOLE, PIECES, CodedRead(())), 2):
        got, wanted = wire.execute(reading, number), direct.execute(reading, number)
        assert isinstance(wanted, CodedReadResult)
        assert_same_reading(got, wanted, reading.blocks)
        assert wire.now_s() == pytest.approx(direct.now_s, rel=1e-12)
    writing = verify(ALL[::7])
    got, wanted = wire.execute(writing, 5), direct.execute(writing, 5)
    assert isinstance(wanted, ProgramResult)
    assert got.vectors == wanted.vectors > 0
    for name in ("status", "inside", "set_pulses", "reset_pulses", "reads"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), err_msg=name)
    np.testing.assert_allclose(got.conductance_s, wanted.conductance_s, rtol=1e-11)
    assert got.inside.any()
    assert got.pulses.any()
    np.testing.assert_allclose(bench.control.conductance_s(), direct.conductance_s(), rtol=1e-12)
    np.testing.assert_array_equal(wire.executed(5, ALL), direct.executed(5, ALL))


@pytest.fixture(scope="module")
def bench(start):
    return start()


@pytest.fixture
def wire(bench):
    return bench.driver()


def seen_otherwise(monkeypatch: Any, offset: int, change: Callable[[int], int]) -> None:
    """Let the host see an IDENTIFY with another u32 at an offset."""
    decode = board.decode_identify

    def changed(payload: bytes, boot: int, link: str) -> Any:
        (value,) = struct.unpack_from("<I", payload, offset)
        told = struct.pack("<I", change(value))
        return decode(payload[:offset] + told + payload[offset + 4 :], boot, link)

    monkeypatch.setattr(board, "decode_identify", changed)


ABILITIES, MAX_MESSAGE = 88, 120


def lowered(wire: Any, operation: Any) -> tuple[Any, list[Any]]:
    """What an operation gives on this board, and the native ones that it was made of."""
    done: list[Any] = []

    def answer(native: Any) -> Any:
        done.append(native)
        return wire.execute(native, next_number(wire))

    return drive(lower(operation, wire.capabilities, LIMITS), answer), done


def test_an_old_board_is_read_by_multiplies(bench, monkeypatch):
    wire = bench.driver()
    wire.execute(FORM, next_number(wire))
    native, done = lowered(wire, WHOLE)
    assert [native.blocks for native in done] == [WHOLE.blocks]
    bench.close()
    seen_otherwise(monkeypatch, ABILITIES, lambda abilities: abilities & ~128)
    wire = bench.driver()
    assert not wire.capabilities.coded_read
    with pytest.raises(ConfigError, match="a coded read"):
        wire.execute(WHOLE, next_number(wire))
    with pytest.raises(ConfigError, match="a coded read"):
        wire.execute(verify(SOME), next_number(wire))
    old, done = lowered(wire, WHOLE)
    assert {type(native) for native in done} == {Multiply}
    assert (old.way, native.way) == ("multiply", "board")
    error = np.abs(old.conductance_s - native.conductance_s)
    assert (error < 8 * np.hypot(old.sigma_s, native.sigma_s)).all()
    np.testing.assert_allclose(old.sigma_s.mean(), native.sigma_s.mean(), rtol=0.2)
    written, done = lowered(wire, verify(SOME))
    assert {type(native) for native in done} == {Multiply, Apply}
    assert written.vectors > 0
    bench.close()


def test_a_small_message_bounds_the_blocks_of_one_operation(bench, monkeypatch):
    bench.close()
    seen_otherwise(monkeypatch, MAX_MESSAGE, lambda _: 1024)
    wire = bench.driver()
    assert wire.capabilities.max_coded_cells == (1024 - 32) // 26 == 38
    columns = CodedRead(tuple(Block(0, 0, 16, column, 1) for column in range(5)))
    result, done = lowered(wire, columns)
    assert [len(native.blocks) for native in done] == [2, 2, 1]
    assert result.status.size == 80
    with pytest.raises(ConfigError, match=r"a coded read of 80 cells .* at most 38 cells"):
        wire.execute(columns, next_number(wire))
    bench.close()


@pytest.fixture
def unserved(tmp_path, monkeypatch):
    """A board that takes small messages only, for a look at what it refuses."""
    monkeypatch.setattr(board_envelope, "LARGEST_MESSAGE", 1024)
    return far.Board(far.SocketLink(), direct_chip(tmp_path), LIMITS)


def test_the_board_refuses_more_cells_than_a_message_holds(unserved):
    unserved._check(CodedRead((Block(0, 0, 2, 0, 19),)), 1)
    with pytest.raises(RefusalError, match="cells of blocks: 39, at most 38") as error:
        unserved._check(CodedRead((Block(0, 0, 13, 0, 3),)), 1)
    assert error.value.name == "RANGE"


def test_inputs_below_zero_are_refused_by_host_and_board(start, monkeypatch):
    bench = start(signed_inputs=False)
    wire = bench.driver()
    codes = np.array([[1, 0, -1, 1]], dtype=np.int16)
    with pytest.raises(ConfigError, match="inputs below 0"):
        wire.execute(Multiply(0, 0, 0, 4, codes), next_number(wire))
    wire.execute(Multiply(0, 0, 0, 4, np.abs(codes)), next_number(wire))
    bench.close()
    seen_otherwise(monkeypatch, ABILITIES, lambda abilities: abilities & ~256)
    wire = bench.driver()
    assert wire.capabilities.signed_inputs
    with pytest.raises(LimitError, match=r"inputs below 0: 1, at most 0 \(error 8\)"):
        wire.execute(Multiply(0, 0, 0, 4, codes), next_number(wire))


def test_what_limits_and_envelope_exclude_is_refused(bench, wire):
    number, executions = next_number(wire), bench.control.status()["executions"]
    with pytest.raises(LimitError, match="coded read: read 9 V is outside this board's range"):
        wire.execute(replace(WHOLE, read_v=9.0), number)
    with pytest.raises(LimitError, match="coded read: WL 9 V is outside this board's range"):
        wire.execute(replace(WHOLE, wl_v=9.0), number)
    with pytest.raises(LimitError, match=r"read voltage 0\.4 V is beyond the limit of 0\.3 V"):
        wire.execute(replace(WHOLE, read_v=0.4), number)
    with pytest.raises(LimitError, match=r"above the lower of BL and SL 5\.1 V"):
        wire.execute(replace(WHOLE, wl_v=4.9), number)
    with pytest.raises(LimitError, match=r"above the lower of BL and SL 5\.1 V"):
        # Read singly, no line is below 0 V; by codes source lines are.
        wire.execute(replace(verify(SOME), read=read_step(0.2, 4.9)), number)
    with pytest.raises(LimitError, match="off the chip"):
        wire.execute(CodedRead((Block(0, 15, 2, 0, 1),)), number)
    assert bench.control.status()["executions"] == executions
    assert wire.last_number() == number - 1


@pytest.mark.parametrize(
    "fault",
    [
        "drop-request",
        "corrupt-request",
        "drop-reply",
        "corrupt-reply",
        "half-reply",
        "garbage",
        "duplicate-reply",
        "disconnect-request",
        "disconnect-reply",
        "reboot-before",
        "reboot-during",
        "reboot-after",
    ],
)
def test_a_coded_read_arrives_over_a_bad_link_and_pulses_nothing(bench, wire, fault):
    before = bench.control.pulses()
    bench.control.inject(fault, "" if fault == "corrupt-request" else "READ_BLOCKS")
    result = wire.execute(PIECES, next_number(wire))
    assert (result.status == Status.OK).all()
    assert bench.control.status()["waiting_faults"] == 0
    assert not bench.control.status()["outputs_on"]
    np.testing.assert_array_equal(bench.control.pulses(), before)
    assert (wire.execute(PIECES, next_number(wire)).status == Status.OK).all()


def test_the_same_coded_read_again_returns_the_kept_reply(wire):
    number = next_number(wire)
    first, again = wire.execute(PIECES, number), wire.execute(PIECES, number)
    np.testing.assert_array_equal(first.conductance_s, again.conductance_s)
    assert first.span == again.span


@pytest.mark.parametrize("fault", ["drop-reply", "corrupt-reply", "duplicate-reply"])
def test_a_coded_write_verify_is_run_once_and_its_result_arrives(bench, wire, fault):
    number, before = next_number(wire), bench.control.pulses()
    executions = bench.control.status()["executions"]
    bench.control.inject(fault, "PROGRAM")
    result = wire.execute(verify(SOME), number)
    assert bench.control.status()["executions"] == executions + 1
    given = (bench.control.pulses() - before).ravel()[100:130]
    np.testing.assert_array_equal(given, result.pulses)
    np.testing.assert_array_equal(wire.executed(number, SOME), given)


def test_a_reboot_in_the_middle_of_a_coded_write_verify_leaves_what_the_records_tell(bench, wire):
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject("reboot-during", "PROGRAM")
    with pytest.raises(UnknownOutcomeError, match=f"rebooted during operation {number} "):
        wire.execute(never_inside(SOME, 1e-7, 6), number)
    given = (bench.control.pulses() - before).ravel()[100:130]
    assert (given == 3).all()
    np.testing.assert_array_equal(wire.executed(number, SOME), given)
    with pytest.raises(UnknownOutcomeError, match="had given"):
        wire.execute(never_inside(SOME, 1e-7, 6), number)
    assert (bench.control.pulses() - before).sum() == given.sum()
    wire.arm()
    wire.execute(PIECES, number + 1)


@pytest.fixture(scope="module")
def slow(start):
    """A board that spends real time: one virtual second is 200 real ones, a vector 0.4 ms."""
    return start(pace=200.0)


LONG = replace(WHOLE, repeat=60)
LONG_WRITING = never_inside(ALL[:20], 2e-6, 60)
"""Rounds of some 60 ms for reading and 20 ms for the pulses."""


@pytest.mark.long
def test_an_operation_by_codes_longer_than_timeout_and_watchdog_ends_well(slow):
    wire = slow.driver(watchdog_s=0.4, patience_s=0.2)
    started_s = time.monotonic()
    result = wire.execute(LONG, next_number(wire))
    assert time.monotonic() - started_s > 1.0
    assert result.vectors >= 2 * 60 * code_order(16)
    written = wire.execute(replace(LONG_WRITING, max_pulses=12), next_number(wire))
    assert (written.pulses == 12).all()
    assert wire.status().trips == 0


def test_outputs_are_on_inside_a_coded_read_and_off_behind_an_abort(slow):
    wire = slow.driver()
    number = next_number(wire)
    seen: list[dict[str, Any]] = []

    def look_and_abort() -> None:
        seen.append(slow.control.status())
        wire.cancel.set()

    threading.Timer(0.5, look_and_abort).start()
    with pytest.raises(AbortedError, match="outputs are off"):
        wire.execute(LONG, number)
    assert seen[0]["outputs_on"]
    assert seen[0]["busy"]
    status = slow.control.status()
    assert not status["outputs_on"]
    assert not status["busy"]
    assert status["armed"]
    wire.cancel.clear()
    assert (wire.execute(PIECES, number + 1).status == Status.OK).all()


def test_the_watchdog_stops_a_coded_read(slow, monkeypatch):
    wire = slow.driver(watchdog_s=0.3, timeout_s=5.0)
    number = next_number(wire)
    send = wire._send  # no public call falls silent in the middle of an operation
    monkeypatch.setattr(
        wire, "_send", lambda kind, *a: 0 if kind.name == "KEEP_ALIVE" else send(kind, *a)
    )
    with pytest.raises(UnknownOutcomeError, match="host was silent"):
        wire.execute(LONG, number)
    status = wire.status()
    assert status.tripped
    assert not status.armed
    assert not status.outputs_on
    with pytest.raises(InstrumentError, match="watchdog has tripped"):
        wire.execute(PIECES, number + 1)


@pytest.mark.parametrize("after_s", [0.05, 0.8, 1.3])
def test_an_abort_of_a_coded_write_verify_leaves_what_the_records_tell(slow, after_s):
    wire = slow.driver()
    number, before = next_number(wire), slow.control.pulses()
    threading.Timer(after_s, wire.cancel.set).start()
    with pytest.raises(AbortedError, match="outputs are off"):
        wire.execute(LONG_WRITING, number)
    given = (slow.control.pulses() - before).ravel()
    # All cells take their pulses in turn, so no cell is more than one ahead of another.
    assert given[:20].max() - given[:20].min() <= 1
    assert given[:20].max() < 60
    assert given[20:].sum() == 0
    if after_s > 0.5:
        assert given[:20].min() > 0
    assert not slow.control.status()["outputs_on"]
    np.testing.assert_array_equal(wire.executed(number, ALL), given)


def test_a_loss_of_power_inside_a_coded_write_verify_leaves_what_the_records_tell(slow):
    wire = slow.driver()
    number, before = next_number(wire), slow.control.pulses()
    cut = threading.Timer(0.8, lambda: slow.control.reboot(drop_link=False))
    cut.start()
    with pytest.raises(UnknownOutcomeError, match=f"rebooted during operation {number} "):
        wire.execute(LONG_WRITING, number)
    cut.join()
    given = (slow.control.pulses() - before).ravel()
    assert 0 < given[:20].min() <= given[:20].max() < 60
    np.testing.assert_array_equal(wire.executed(number, ALL), given)
    assert wire.status().armed
