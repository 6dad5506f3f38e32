"""The firmware byte by byte, as docs/board-protocol.md has it: as a process of this machine before
the simulated chip, and as the reference port in QEMU.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serial
from firmware_builds import host_board, needs
from reference_port import running

from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Limits,
    Operation,
    Step,
    Wait,
    pulse,
    read,
    read_step,
)
from rram_hil.drivers.dialects.board_codec import (
    ERROR,
    MORE,
    WORKING,
    Code,
    Frame,
    FrameReader,
    Kind,
    decode_abort,
    decode_error,
    decode_executed,
    decode_identify,
    decode_result,
    decode_status,
    encode_executed,
    encode_limits,
    encode_operation,
    encode_request,
)
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation

GEOMETRY = Geometry(1, 8, 8)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.0,
    half_select_v=4.0,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1e-3,
    width_s=1e-2,
    pulses_per_cell=100000,
)
SOME = Cells.all(GEOMETRY)[:8]
SET = pulse(SOME, bl_v=1.5, wl_v=2.0, width_s=1e-6, read=read_step())
SILENCE_S = 5.0

pytestmark = pytest.mark.firmware


class RefusedError(Exception):
    """An error reply."""

    def __init__(self, payload: bytes) -> None:
        code, self.number, text = decode_error(payload)
        super().__init__(text)
        self.code = Code(code)


@dataclass
class Wire:
    """A host that sends what it is told to."""

    port: Any
    reader: FrameReader = field(default_factory=FrameReader)
    sequence: int = 0
    notices: int = 0
    heard: list[Frame] = field(default_factory=list)

    def send(self, kind: int, payload: bytes = b"", *, boot: int = 0, size: int = 1024) -> int:
        self.sequence += 1
        for frame in encode_request(kind, payload, self.sequence, boot, size):  # type: ignore[arg-type]
            self.port.write(frame)
        return self.sequence

    def reply(self, sequence: int, *, keeps_alive: bool = False) -> bytes:
        """The reply to a message of this sequence. Raises `RefusedError`."""
        message, end_s = b"", time.monotonic() + SILENCE_S
        while time.monotonic() < end_s:
            if not self.heard:
                self.heard += self.reader.feed(self.port.read(4096))
                if keeps_alive:
                    self.send(Kind.KEEP_ALIVE)
                continue
            frame, end_s = self.heard.pop(0), time.monotonic() + SILENCE_S
            self.notices += bool(frame.flags & WORKING)
            if frame.sequence != sequence or frame.flags & WORKING:
                continue
            message += frame.payload
            if frame.flags & ERROR:
                raise RefusedError(message)
            if not frame.flags & MORE:
                return message
        raise AssertionError("no reply")

    def ask(self, kind: int, payload: bytes = b"", **how: Any) -> bytes:
        return self.reply(self.send(kind, payload, **how))

    def refused(self, kind: int, payload: bytes = b"", **how: Any) -> Code:
        """The error that this message is refused with."""
        with pytest.raises(RefusedError) as error:
            self.ask(kind, payload, **how)
        return error.value.code

    def status(self) -> Any:
        return decode_status(self.ask(Kind.STATUS))

    def arm(self) -> None:
        self.ask(Kind.LIMITS, encode_limits(LIMITS))
        self.ask(Kind.ARM)

    def operation(self, operation: Operation) -> tuple[int, int, bytes]:
        """Its number, the next one, its type and its request."""
        number = self.status().last + 1
        return (number, *encode_operation(operation, number, GEOMETRY))

    def execute(self, operation: Operation) -> Any:
        number, kind, payload = self.operation(operation)
        return decode_result(self.ask(kind, payload), operation, number)


@pytest.fixture(
    scope="module",
    params=[
        "host",
        pytest.param("qemu", marks=[needs("arm-none-eabi-gcc", "qemu-system-arm", "make")]),
    ],
)
def port(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "qemu":
        with running() as place, serial.Serial(place, 115200, timeout=0.02) as opened:
            yield opened
        return
    made = Simulation(firmware=str(host_board()), pace=1.0)
    far = launch(FarSideRequest(made, GEOMETRY, LIMITS, "c1", Path(".")))
    try:
        with serial.serial_for_url(far.settings["port"], timeout=0.02) as opened:
            yield opened
    finally:
        far.stop()


@pytest.fixture
def wire(port: Any) -> Wire:
    made = Wire(port, sequence=int(time.monotonic() * 1e3) & 0xFFFFFF)
    made.ask(Kind.SAFE_OFF)
    made.ask(Kind.WATCHDOG, struct.pack("<I", 2000))
    return made


def test_it_says_what_it_is(wire):
    told = decode_identify(wire.ask(Kind.IDENTIFY), 1, "x")
    assert (told.geometry.rows, told.geometry.columns) == (8, 8)
    assert told.capabilities.program
    assert told.capabilities.counters
    assert not wire.status().outputs_on


def test_limits_come_back_bit_for_bit_and_disarm(wire):
    wire.arm()
    assert wire.status().armed
    wanted = encode_limits(LIMITS.model_copy(update={"bl_v": 1.2345678901}))
    assert wire.ask(Kind.LIMITS, wanted) == wanted
    assert wire.ask(Kind.LIMITS) == wanted
    assert not wire.status().armed
    beyond = encode_limits(LIMITS.model_copy(update={"wl_v": 9.0}))
    assert wire.refused(Kind.LIMITS, beyond) is Code.LIMIT
    assert wire.ask(Kind.LIMITS) == wanted


def test_nothing_moves_before_it_is_armed(wire):
    number, kind, payload = wire.operation(read(SOME))
    assert wire.refused(kind, payload) is Code.NOT_ARMED
    assert wire.status().last == number - 1


def test_a_pulse_is_given_once_and_its_reply_is_kept(wire):
    wire.arm()
    number, kind, payload = wire.operation(SET)
    first = wire.ask(kind, payload)
    assert (decode_result(first, SET, number).pulses == 1).all()
    assert wire.ask(kind, payload) == first
    assert wire.refused(kind, payload[:-1] + bytes([payload[-1] ^ 1])) is Code.NUMBER_REUSED
    assert wire.refused(kind, struct.pack("<I", number - 1) + payload[4:]) is Code.NUMBER_PAST
    executed, _ = decode_executed(
        wire.ask(Kind.EXECUTED, encode_executed(number, SOME, GEOMETRY)), number, len(SOME)
    )
    assert (executed == 1).all()


def test_a_reading_is_current_over_volts_and_no_pulse(wire):
    wire.arm()
    result = wire.execute(read(SOME, repeat=2))
    assert (result.pulses == 0).all()
    assert (result.reads == 2).all()
    np.testing.assert_allclose(result.conductance_s, result.current_a / 0.2, rtol=1e-12)
    assert (np.diff(result.time_s.ravel()) > 0).all()


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(4.5, 0.0, 2.0, 1e-6), Code.LIMIT),
        (Step(0.0, 0.0, 4.0001, 1e-6), Code.LIMIT),
        (Step(-2.0, 2.5, 0.0, 1e-6), Code.LIMIT),
        (Step(1.0, None, 2.0, 1e-6), Code.LIMIT),
        (Step(1.0, 0.0, 2.0, 2e-2), Code.LIMIT),
        (Step(1.0, 0.0, 2.0, 1e-9), Code.RANGE),
    ],
)
def test_what_passes_a_limit_is_refused_before_it_moves(wire, step, code):
    wire.arm()
    number, kind, payload = wire.operation(Apply(SOME, (step,)))
    assert wire.refused(kind, payload) is code
    assert wire.status().last == number - 1


def test_requests_that_make_no_sense_are_refused(wire):
    wire.arm()
    number, kind, payload = wire.operation(SET)
    assert wire.refused(kind, payload[:-1]) is Code.BAD_REQUEST
    assert wire.refused(kind, payload + b"x") is Code.BAD_REQUEST
    assert wire.refused(kind, payload[:3]) is Code.BAD_REQUEST
    twice = payload.replace(struct.pack("<2I", 0, 1), struct.pack("<2I", 1, 1))
    assert twice != payload
    assert wire.refused(kind, twice) is Code.BAD_REQUEST
    off = payload.replace(struct.pack("<2I", 0, 1), struct.pack("<2I", 64, 1))
    assert wire.refused(kind, off) is Code.RANGE
    assert wire.refused(0x77) is Code.UNKNOWN_TYPE
    assert wire.refused(Kind.STATUS, boot=1 << 31) is Code.STALE_BOOT
    assert wire.status().last == number - 1


def test_another_version_is_answered_and_damage_too(wire):
    (frame,) = encode_request(Kind.STATUS, b"x" * 8, 9, 0, 1024)
    wire.port.write(frame[:-1] + bytes([frame[-1] ^ 1]))
    with pytest.raises(RefusedError) as error:
        wire.reply(9)
    assert error.value.code is Code.CRC
    assert wire.status()


def test_a_message_in_parts_is_joined_and_a_missing_one_told(wire):
    wire.arm()
    number, kind, payload = wire.operation(SET)
    frames = list(encode_request(kind, payload, 5, 0, 40))
    wire.port.write(b"".join(frames[:1] + frames[2:]))
    with pytest.raises(RefusedError) as error:
        wire.reply(5)
    assert error.value.code is Code.INCOMPLETE
    assert decode_result(wire.ask(kind, payload, size=40), SET, number).reads.sum() == len(SOME)


def test_an_abort_is_answered_in_the_middle(wire):
    wire.arm()
    number, kind, payload = wire.operation(Wait(1000.0))
    working = wire.send(kind, payload)
    time.sleep(0.4)
    assert decode_status(wire.ask(Kind.STATUS)).under_way == number
    again = wire.send(kind, payload)
    with pytest.raises(RefusedError) as error:
        wire.reply(again)
    assert error.value.code is Code.BUSY
    aborting = wire.send(Kind.ABORT)
    with pytest.raises(RefusedError) as error:
        wire.reply(working)
    assert error.value.code is Code.ABORTED
    stopped, outputs_on = decode_abort(wire.reply(aborting))
    assert (stopped, outputs_on) == (number, False)
    assert wire.notices > 0
    assert wire.status().armed


def test_the_watchdog_stops_a_board_whose_host_is_silent(wire):
    wire.arm()
    wire.ask(Kind.WATCHDOG, struct.pack("<I", 300))
    trips = wire.status().trips
    _, kind, payload = wire.operation(Wait(1000.0))
    with pytest.raises(RefusedError) as error:
        wire.ask(kind, payload)
    assert error.value.code is Code.WATCHDOG
    status = wire.status()
    assert (status.trips, status.armed, status.tripped) == (trips + 1, False, True)
    assert not status.outputs_on


def test_whoever_keeps_it_alive_is_waited_for(wire):
    wire.arm()
    wire.ask(Kind.WATCHDOG, struct.pack("<I", 300))
    number, kind, payload = wire.operation(Wait(0.8))
    reply = wire.reply(wire.send(kind, payload), keeps_alive=True)
    span = decode_result(reply, Wait(0.8), number).span
    assert span.ended_s - span.started_s >= 0.8
