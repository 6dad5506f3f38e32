"""The driver through a real link to the simulated board: same results as the direct chip, refusals,
arming, aborting.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from boards import GEOMETRY, LIMITS

from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    Stop,
    Wait,
    WriteWords,
    pulse,
    read,
    read_step,
    sweep,
)
from rram_hil.drivers import test_chip_board as board
from rram_hil.drivers.dialects.board_codec import Kind, encode_operation, encode_request
from rram_hil.errors import (
    AbortedError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation, Timing

ALL = Cells.all(GEOMETRY)
ONE = Cells.of([(0, 0, 0)])


def session() -> list[Operation]:
    """A chip's life: forming, reading, sweeping, programming, words, multiplying, relaxing."""
    rng = np.random.default_rng(5)
    some = ALL[rng.permutation(len(ALL))[:100]]
    form = Apply(
        some,
        (Step(np.round(rng.uniform(3.0, 3.6, 100), 6), 0.0, 2.0, 1e-6), read_step(0.2, 3.0, 90e-9)),
        stop=Stop(above_s=np.full(100, 6e-5)),
        repeat=3,
    )
    up = PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(2.2, 2.2), 100e-9)
    down = PulseTrain(
        Ramp(np.round(rng.uniform(0.8, 1.2, 60), 6), 3.0, 0.1), Ramp(3.5, 3.5), 200e-9
    )
    low = rng.uniform(2e-5, 8e-5, 60)
    program = Program(
        some[:60], low, low + 2e-5, up, down, read_step(0.2, 3.0, 1e-6), rng.integers(0, 20, 60), 4
    )
    inputs = rng.integers(-127, 128, (50, 12)).astype(np.int16)
    return [
        form,
        read(ALL, repeat=2),
        pulse(
            some, sl_v=1.4, wl_v=3.5, width_s=200e-9, read=read_step(), unselected=Scheme.GROUNDED
        ),
        sweep(some[:9], "wl", [0.0, 0.5, 1.0], width_s=1e-6, bl_v=0.2),
        Apply(
            ONE,
            (Step(0.2, None, 3.0, 1e-6, "current"), Step(0.1, 0.0, 2.0, 1e-6, "gate")),
            compliance_a=1e-4,
        ),
        program,
        WriteWords(some, rng.integers(-100, 100, 100).astype(np.int32), clear=True),
        Multiply(0, 2, 3, 20, inputs, words=True),
        Multiply(1, 0, 0, 24, inputs[:, :7] // 19, input_bits=4, full_scale_a=1e-5),
        Wait(1000.1),
        read(ALL),
    ]


def assert_same(a: Any, b: Any) -> None:
    """Equal; times to the rounding of their sums, which the firmware makes cell by cell."""
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if f.name == "time_s":
            np.testing.assert_allclose(x, y, rtol=1e-12)
        elif f.name == "span":
            assert (x.started_s, x.ended_s) == pytest.approx((y.started_s, y.ended_s), rel=1e-12)
        elif isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y, err_msg=f.name)
        else:
            assert x == y, f.name


@pytest.mark.parametrize("transport", ["socket", "pty"])
def test_results_over_the_wire_are_those_of_the_direct_chip(start, transport, tmp_path):
    bench = start(transport=transport)
    wire = bench.driver(timeout_s=2.0)
    free = Timing(link_s=0.0, bytes_per_s=math.inf)
    direct = SimulatedChip(
        GEOMETRY, Simulation(timing=free), read_v=LIMITS.read_v, chip_id="c1", folder=tmp_path
    )
    for k, operation in enumerate(session(), 1):
        assert_same(wire.execute(operation, k), direct.execute(operation, k))
        assert wire.now_s() == pytest.approx(direct.now_s, rel=1e-12)
    np.testing.assert_array_equal(bench.control.pulses(), direct.pulses)
    np.testing.assert_array_equal(bench.control.conductance_s(), direct.conductance_s())
    np.testing.assert_array_equal(bench.control.truth("words"), direct.words)
    last = len(session())
    np.testing.assert_array_equal(wire.executed(last, ALL), direct.executed(last, ALL))
    assert (wire.executed(last - 1, ALL) == -1).all()
    np.testing.assert_array_equal(wire.last_numbers(ALL), direct.last_numbers(ALL))
    assert wire.last_number() == direct.last_number == len(session())


def test_a_message_of_many_frames_arrives_whole(start):
    bench = start(timing=Timing(link_s=0.0, bytes_per_s=2e4))
    wire = bench.driver(timeout_s=2.0)
    result = wire.execute(read(ALL, repeat=3), 1)
    assert result.status.shape == (len(ALL), 3)
    assert not np.isnan(result.current_a).any()
    # 1024 bytes a frame at least, 20 kB/s: request and reply are paid for in virtual time.
    assert wire.now_s() > len(ALL) * (4 + 3 * 25 + 8) / 2e4


@pytest.fixture(scope="module")
def bench(start):
    return start()


def next_number(wire: Any) -> int:
    return int(wire.last_number()) + 1


def test_connect_identifies_and_changes_nothing(bench):
    wire = bench.driver(arm=False)
    identity = wire.connect()
    assert (identity.serial, identity.chip) == ("SIM-c1", "c1")
    status = wire.status()
    assert not status.armed
    assert not status.outputs_on
    assert identity.boot == bench.control.status()["boot"]
    can = wire.capabilities
    assert can.program
    assert can.multiply
    assert can.counters
    assert can.clock == "virtual"
    with pytest.raises(InstrumentError, match="not armed"):
        wire.execute(read(ONE), next_number(wire))


def test_arm_sends_limits_that_the_board_enforces_itself(bench):
    narrow = LIMITS.model_copy(update={"bl_v": 1.0})
    wire = bench.driver(limits=narrow)
    assert wire.status().armed
    before = bench.control.pulses().sum()
    number = next_number(wire)
    with pytest.raises(LimitError, match=r"BL 2 V is beyond the limit of 1 V"):
        wire.execute(pulse(ONE, bl_v=2.0, wl_v=2.0, width_s=1e-7), number)
    assert bench.control.pulses().sum() == before
    assert wire.last_number() == number - 1


def test_limits_beyond_the_boards_own_are_refused(bench):
    wire = bench.driver(limits=LIMITS.model_copy(update={"wl_v": 6.0}), arm=False)
    wire.connect()
    with pytest.raises(LimitError, match="wl_v"):
        wire.arm()
    assert not wire.status().armed


def test_safe_off_disarms_and_is_verified(bench):
    wire = bench.driver()
    wire.safe_off()
    status = bench.control.status()
    assert not status["armed"]
    assert not status["outputs_on"]


def test_the_boards_self_test_passes(bench):
    findings = bench.driver().self_test()
    assert findings
    assert all(f.passed for f in findings)


def test_what_the_envelope_excludes_is_refused_before_sending(bench):
    wire = bench.driver()
    number = next_number(wire)
    executions = bench.control.status()["executions"]
    big = Cells.all(GEOMETRY)
    refused: list[tuple[Operation, type[Exception], str]] = [
        (
            Apply(ONE, (Step(bl_v=7.0),)),
            LimitError,
            r"cell \(0, 0, 0\): BL 7 V is outside this board's range",
        ),
        (Apply(ONE, (Step(wl_v=float("nan")),)), LimitError, "WL nan V is outside"),
        (Apply(ONE, (Step(width_s=1e-9),)), LimitError, "width 1e-09 s"),
        (read(big, repeat=65), ConfigError, "at most 64 steps"),
        (
            Multiply(0, 0, 0, 4, np.zeros((2, 4), dtype=np.int16), input_bits=9),
            ConfigError,
            "9-bit inputs",
        ),
        (
            Multiply(0, 0, 0, 4, np.zeros((2, 4), dtype=np.int16), read_v=9.0),
            LimitError,
            "read 9 V",
        ),
        (WriteWords(ONE, np.array([1 << 20])), ConfigError, "8 bits"),
    ]
    for operation, error, text in refused:
        with pytest.raises(error, match=text):
            wire.execute(operation, number)
    with pytest.raises(ConfigError, match="number"):
        wire.execute(read(ONE), 1 << 32)
    assert bench.control.status()["executions"] == executions


def test_a_number_below_the_last_is_refused(bench):
    wire = bench.driver()
    number = next_number(wire)
    wire.execute(read(ONE), number + 5)
    with pytest.raises(InstrumentError, match="not above the last"):
        wire.execute(read(ONE), number)


def test_a_number_used_again_for_something_else_is_refused(bench):
    wire = bench.driver()
    number = next_number(wire)
    wire.execute(read(ONE), number)
    with pytest.raises(InstrumentError, match="was another one"):
        wire.execute(pulse(ONE, bl_v=1.0, wl_v=2.0, width_s=1e-7), number)


def test_the_same_operation_again_returns_the_kept_reply(bench):
    wire = bench.driver()
    number = next_number(wire)
    operation = pulse(ONE, bl_v=1.0, wl_v=2.0, width_s=1e-7, read=read_step())
    before = bench.control.pulses()[0, 0, 0]
    assert_same(wire.execute(operation, number), wire.execute(operation, number))
    assert bench.control.pulses()[0, 0, 0] == before + 1


def test_a_chip_of_another_geometry_is_named(bench):
    with pytest.raises(ConfigError, match=r"2 x 16 x 24 1T1R .* bench file says 2 x 16 x 25 1T1R"):
        bench.driver(geometry=Geometry(2, 16, 25))


def test_another_device_is_named(bench):
    wire = bench.driver(arm=False)
    bench.control.inject("wrong-model")
    with pytest.raises(ConfigError, match=r"no test-chip board .*COFFEE"):
        wire.connect()


def test_a_second_host_gets_no_answer_and_the_first_goes_on(bench):
    wire = bench.driver()
    other = board.TestChipBoard(
        board.TestChipBoardConfig(timeout_s=0.25, retries=0, **bench.far.settings), GEOMETRY, LIMITS
    )
    with pytest.raises(LinkError, match="no sound reply to IDENTIFY"):
        other.connect()
    other.close()
    assert wire.status().armed


def test_the_clock_runs_on_behind_the_drivers_back(bench):
    wire = bench.driver()
    now = bench.control.advance(3600.0)
    assert wire.execute(read(ONE), next_number(wire)).span.started_s == now


def answering(answer: Any) -> str:
    """A strange device: a TCP server that sends `answer(data)` for what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with server, connection:
            while data := connection.recv(4096):
                connection.sendall(answer(data))

    threading.Thread(target=serve, daemon=True).start()
    return f"socket://127.0.0.1:{server.getsockname()[1]}"


def strange(port: str, **settings: Any) -> Any:
    config = board.TestChipBoardConfig(port=port, timeout_s=0.25, retries=0, **settings)
    return board.TestChipBoard(config, GEOMETRY, LIMITS)


def test_a_device_that_talks_something_else_is_quoted():
    with pytest.raises(ConfigError, match=r"no test-chip board.*KEITHLEY"):
        strange(answering(lambda _: b"KEITHLEY INSTRUMENTS INC.,MODEL 2450\n")).connect()


def test_an_echo_is_no_board():
    with pytest.raises(ConfigError, match=r"echo"):
        strange(answering(lambda data: data)).connect()


def test_a_silent_device_is_a_link_error():
    with pytest.raises(LinkError, match="no sound reply to IDENTIFY"):
        strange(answering(lambda _: b"")).connect()


def test_a_missing_port_is_one_clear_line():
    with pytest.raises(
        ConfigError,
        match=r"^driver.port: missing; give a serial port such as COM3 or /dev/ttyACM0, or",
    ):
        board.TestChipBoard(board.TestChipBoardConfig(), GEOMETRY, LIMITS)


@pytest.mark.parametrize("port", ["/dev/ttyNONE7", "socket://127.0.0.1:9"])
def test_a_port_that_does_not_open_is_a_link_error_of_one_line(port):
    with pytest.raises(LinkError, match=port) as error:
        strange(port).connect()
    assert "\n" not in str(error.value)


def test_a_port_that_is_no_address_is_a_config_error():
    with pytest.raises(ConfigError, match=r"driver.port: 'tcpip://x'"):
        strange("tcpip://x").connect()


def test_a_driver_that_is_not_connected_says_so():
    wire = strange("socket://127.0.0.1:9")
    with pytest.raises(LinkError, match="not connected"):
        wire.execute(read(ONE), 1)
    wire.close()
    wire.close()


@pytest.fixture(scope="module")
def slow(start):
    """A board that spends real time: one virtual second is 200 real ones."""
    return start(pace=200.0)


LONG = pulse(Cells.all(GEOMETRY), bl_v=1.0, wl_v=2.0, width_s=1e-4, read=read_step())


def test_an_abort_stops_between_cells(slow):
    wire = slow.driver()
    number = next_number(wire)
    before = slow.control.pulses()
    threading.Timer(0.5, wire.cancel.set).start()
    with pytest.raises(AbortedError, match="outputs are off"):
        wire.execute(LONG, number)
    given = slow.control.pulses() - before
    assert 0 < given.sum() < len(LONG.cells)
    assert given.max() == 1
    status = slow.control.status()
    assert not status["outputs_on"]
    np.testing.assert_array_equal(wire.executed(number, LONG.cells), given.ravel())
    with pytest.raises(AbortedError, match="not started"):
        wire.execute(read(ONE), number + 1)
    wire.cancel.clear()
    assert wire.execute(read(ONE), number + 1).status[0, 0] == 0


ENDLESS = Program(
    Cells.all(GEOMETRY)[:16],
    np.full(16, 5.0e-5),
    np.full(16, 5.0001e-5),
    PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(2.2, 2.2), 1e-7),
    PulseTrain(Ramp(1.0, 2.9, 0.1), Ramp(3.5, 3.5), 2e-7),
    read_step(),
    max_pulses=LIMITS.pulses_per_cell,
    max_reversals=LIMITS.pulses_per_cell,
)
"""A write-verify of one batch that would take minutes."""


@pytest.mark.parametrize("way", ["ABORT", "SAFE_OFF", "watchdog"])
def test_a_write_verify_that_would_not_end_is_stopped_at_any_time(start, way):
    bench = start()
    wire = bench.driver(watchdog_s=0.3 if way == "watchdog" else 2.0)
    cells = ENDLESS.cells
    wire.execute(pulse(cells, bl_v=3.5, wl_v=2.0, width_s=1e-6), next_number(wire))
    number, before = next_number(wire), bench.control.pulses()
    host, port = bench.far.settings["port"].removeprefix("socket://").split(":")
    boot = int(wire.connect().boot, 16)
    wire.arm()
    wire.close()
    with socket.create_connection((host, int(port))) as other:
        kind, payload = encode_operation(ENDLESS, number, GEOMETRY)
        for frame in encode_request(kind, payload, 1, boot, 1024):
            other.sendall(frame)
        while np.array_equal(bench.control.pulses(), before):  # outputs are on before the first one
            time.sleep(0.02)
        if way != "watchdog":
            for frame in encode_request(Kind[way], b"", 2, boot, 1024):
                other.sendall(frame)
            other.settimeout(5.0)
            assert other.recv(1)  # a working notice or the answer: the board is still listening
        while (status := bench.control.status())["outputs_on"]:
            time.sleep(0.02)
    assert not status["busy"]
    given = (bench.control.pulses() - before).ravel()[cells.index(GEOMETRY)]
    wire = bench.driver()
    np.testing.assert_array_equal(wire.executed(number, cells), given)
    assert 0 < given.max() < LIMITS.pulses_per_cell


def test_an_aborted_wait_ends_at_once(slow):
    wire = slow.driver()
    threading.Timer(0.2, wire.cancel.set).start()
    before_s = slow.control.status()["now_s"]
    with pytest.raises(AbortedError):
        wire.execute(Wait(1e4), next_number(wire))
    assert slow.control.status()["now_s"] - before_s < 1e4


def test_an_operation_longer_than_the_timeout_and_the_watchdog_ends_well(slow):
    wire = slow.driver(watchdog_s=0.4)
    before_s = slow.control.status()["now_s"]
    wire.execute(Wait(0.006), next_number(wire))  # 1.2 s at this pace
    passed_s = slow.control.status()["now_s"] - before_s
    assert passed_s >= 0.006 * (1 - 1e-12)  # the rounding of a difference
    assert wire.status().trips == 0


def test_the_watchdog_switches_off_when_the_host_falls_silent(slow, monkeypatch):
    wire = slow.driver(watchdog_s=0.3, timeout_s=5.0)
    number = next_number(wire)
    before = slow.control.pulses()
    send = wire._send  # no public call falls silent in the middle of an operation
    monkeypatch.setattr(
        wire, "_send", lambda kind, *a: 0 if kind.name == "KEEP_ALIVE" else send(kind, *a)
    )
    with pytest.raises(UnknownOutcomeError, match="host was silent"):
        wire.execute(LONG, number)
    status = wire.status()
    assert status.tripped
    assert status.trips == 1
    assert not status.armed
    assert not status.outputs_on
    given = slow.control.pulses() - before
    assert 0 < given.sum() < len(LONG.cells)
    np.testing.assert_array_equal(wire.executed(number, LONG.cells), given.ravel())
    with pytest.raises(InstrumentError, match="watchdog has tripped"):
        wire.execute(read(ONE), number + 1)
    wire.arm()
    wire.execute(read(ONE), number + 1)


def test_a_host_that_dies_in_an_operation_leaves_outputs_off(slow):
    wire = slow.driver(watchdog_s=1.0)
    number, boot = next_number(wire), int(wire.connect().boot, 16)
    before = slow.control.pulses()
    wire.arm()
    wire.close()
    host, port = slow.far.settings["port"].removeprefix("socket://").split(":")
    with socket.create_connection((host, int(port))) as dying:
        kind, payload = encode_operation(LONG, number, GEOMETRY)
        for frame in encode_request(kind, payload, 1, boot, 1024):
            dying.sendall(frame)
        while np.array_equal(slow.control.pulses(), before):
            time.sleep(0.02)
    while (status := slow.control.status())["outputs_on"]:
        time.sleep(0.02)
    assert not status["armed"]
    assert 0 < slow.driver().executed(number, LONG.cells).sum() < len(LONG.cells)
