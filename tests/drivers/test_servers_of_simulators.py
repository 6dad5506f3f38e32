"""Servers of simulated benches: they stay up and answer, whatever comes."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rram_hil.array import Geometry
from rram_hil.drivers.simulated.array.terminals import TURNS_AT_ONCE, Bus, Loads, Place
from rram_hil.drivers.simulated.keithley_2400 import Simulated2400
from rram_hil.drivers.simulated.keysight_33500 import Simulated33500
from rram_hil.drivers.simulated.keysight_b1500 import SimulatedB1500
from rram_hil.drivers.simulated.keysight_b2900 import SimulatedB2900
from rram_hil.drivers.simulated.server import listening
from rram_hil.drivers.simulated.server.control import BoardControl, ControlServer
from rram_hil.drivers.simulated.server.far_side import FarSide
from rram_hil.drivers.simulated.server.instrument import (
    LONGEST_LINE,
    InstrumentServer,
    SimulatedInstrument,
)
from rram_hil.errors import ConfigError
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import FaultEntry, Simulation, Timing
from rram_hil.wire.bench_clock import FarClock, control_of

WAIT_S = 20


class Host:
    """A program that speaks lines to a port."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.stream = self.socket.makefile("rwb")

    def ask(self, data: bytes) -> bytes:
        self.stream.write(data)
        self.stream.flush()
        return self.stream.readline()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[int], Host]]:
    hosts: list[Host] = []

    def made(port: int) -> Host:
        hosts.append(Host(port))
        return hosts[-1]

    yield made
    for host in hosts:
        host.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., InstrumentServer]]:
    servers: list[InstrumentServer] = []

    def made(
        kind: type[SimulatedInstrument], bus: Bus | None = None, model: str = ""
    ) -> InstrumentServer:
        place = Place(bus=bus or Bus(), terminals=Loads(1e4))
        servers.append(InstrumentServer(kind(model or kind.MODELS[0], place), Timing()))
        return servers[-1]

    yield made
    for server in servers:
        server.stop()


class _Far(FarSide):
    """A far side that keeps what it is told to inject."""

    def __init__(self) -> None:
        chip = SimulatedChip(Geometry(1, 2, 2), Simulation(), read_v=0.25, chip_id="c1")
        super().__init__(chip, threading.Lock())

    def serve(self) -> None:
        raise AssertionError("not here")

    def inject(self, entry: FaultEntry | dict[str, Any]) -> None:
        raise ConfigError("no fault is known here")

    def clear_faults(self) -> None:
        raise ConfigError("no fault is known here")

    def status(self) -> dict[str, Any]:
        return {"now_s": self.chip.now_s}


# File handles


class _Listener:
    """A listener that is out of file handles for a while."""

    def __init__(self, problems: list[int]) -> None:
        self.problems, (self.near, self.far) = problems, socket.socketpair()

    def accept(self) -> tuple[socket.socket, None]:
        if self.problems:
            number = self.problems.pop(0)
            raise OSError(number, os.strerror(number))
        return self.near, None


def test_connections_are_taken_again_once_there_are_file_handles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "RETRY_S", 0.0)
    listener = _Listener([errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOBUFS])
    taken: Any = listening.connections(listener)  # type: ignore[arg-type]
    assert next(taken) is listener.near
    listener.problems.append(errno.EBADF)  # closed
    assert list(taken) == []
    for end in (listener.near, listener.far):
        end.close()


# Lines


@pytest.mark.parametrize("kind", [Simulated2400, Simulated33500, SimulatedB1500])
def test_a_line_without_end_is_lost_and_told(
    serve: Callable[..., InstrumentServer],
    connect: Callable[[int], Host],
    kind: type[SimulatedInstrument],
) -> None:
    host = connect(serve(kind).port)
    for _ in range(3):
        host.socket.sendall(b"x" * LONGEST_LINE)
    host.socket.sendall(b"y\n")
    query = b"ERRX?\n" if kind is SimulatedB1500 else b":SYST:ERR?\n"
    assert host.ask(query)[:4] in (b"-363", b"+150")
    assert host.ask(b"*IDN?\n")


@pytest.mark.parametrize(
    ("kind", "model", "line", "query", "told"),
    [
        (SimulatedB1500, "", b"CN 1e999", b"ERRX?", b"+120"),
        (SimulatedB1500, "", b"FMT 1e999,1", b"ERRX?", b"+120"),
        (SimulatedB1500, "", b"RU 1,1e300", b"ERRX?", b"+0"),
        (Simulated2400, "", b":SYST:RSEN 1e999", b":SYST:ERR?", b"-222"),
        (Simulated2400, "", b":SOUR:VOLT -1e999", b":SYST:ERR?", b"-222"),
        (Simulated33500, "33511B", b":OUTP1 -1e999", b":SYST:ERR?", b"-222"),
        (Simulated33500, "33511B", b"SOUR1:DATA:ARB a,#15abcde", b"SYST:ERR?", b"-161"),
        (Simulated33500, "33511B", b"SOUR1:DATA:ARB:DAC a,#2147483648", b"SYST:ERR?", b"-161"),
        (Simulated33500, "33511B", b"SOUR1:DATA:ARB a,#@7", b"SYST:ERR?", b"-"),
        (SimulatedB2900, "B2902A", b":SOUR:VOLT 1e999", b":SYST:ERR?", b"-222"),
    ],
)
def test_odd_numbers_and_blocks_go_to_the_error_queue(
    serve: Callable[..., InstrumentServer],
    connect: Callable[[int], Host],
    kind: type[SimulatedInstrument],
    model: str,
    line: bytes,
    query: bytes,
    told: bytes,
) -> None:
    host = connect(serve(kind, model=model).port)
    host.socket.sendall(line + b"\n")
    assert host.ask(query + b"\n").startswith(told)


@pytest.mark.long
def test_a_count_of_the_most_holds_no_other_instrument_of_the_rack(
    serve: Callable[..., InstrumentServer], connect: Callable[[int], Host]
) -> None:
    """While one source-meter simulates readings without end another is asked and answers; then a
    second program aborts the first.
    """
    bus = Bus()
    server = serve(SimulatedB2900, bus, "B2902A")
    slow, other, abort = (
        connect(port) for port in (server.port, serve(Simulated2400, bus).port, server.port)
    )
    slow.socket.sendall(b":TRIG:COUN MAX;:ARM:COUN MAX;:OUTP ON;:INIT;*OPC?\n")
    while bus.clock.now_s < 5.0:  # questions alone take milliseconds
        assert other.ask(b"*IDN?\n").startswith(b"KEITHLEY")
    abort.socket.sendall(b":ABOR\n")
    assert slow.stream.readline() == b"1\n"


def test_a_bus_gives_way_now_and_then_and_only_where_it_is_held() -> None:
    bus = Bus()
    taken = threading.Event()

    def take() -> None:
        with bus.lock:
            taken.set()

    with bus.lock:
        thread = threading.Thread(target=take)
        thread.start()
        while not taken.is_set():
            bus.give_way()
    thread.join()
    for _ in range(2 * TURNS_AT_ONCE):
        bus.give_way()


# Control


@pytest.fixture
def far() -> _Far:
    return _Far()


@pytest.mark.parametrize(
    "request_",
    [
        b'{"do": "advance", "seconds": -5}',
        b'{"do": "advance", "seconds": NaN}',
        b'{"do": "advance", "seconds": Infinity}',
        b'{"do": "advance", "seconds": 1' + b"0" * 400 + b"}",
        b'{"do": "advance", "seconds": "1"}',
        b'{"do": "advance", "seconds": true}',
        b'{"do": "advance"}',
        b'{"do": ["advance"]}',
        b'{"do": "damage", "fault": 99, "cells": [0]}',
        b'{"do": "damage", "fault": 1, "cells": [99]}',
        b'{"do": "truth", "name": "chip"}',
        b'{"do": "inject", "kind": "rain"}',
        b"[" * 100_000,
        b"[]",
        b"7",
        b"\xff\xfe",
        b"",
    ],
)
def test_requests_that_make_no_sense_are_refused_and_change_nothing(
    far: _Far, connect: Callable[[int], Host], request_: bytes
) -> None:
    (_, port), _ = control_of(ControlServer(far.control).address)
    host = connect(port)
    answer = json.loads(host.ask(request_ + b"\n"))
    assert answer["ok"] is False
    assert len(answer["error"]) < 400
    assert json.loads(host.ask(b'{"do": "status"}\n')) == {"ok": True, "now_s": 0.0}


def test_the_clock_takes_what_is_finite_and_not_negative(far: _Far) -> None:
    with BoardControl(ControlServer(far.control).address) as control:
        assert control.advance(1.5) == 1.5
        assert control.advance(0) == 1.5
        with pytest.raises(ConfigError, match="must be a number from 0"):
            control.advance(math.inf)


def test_a_request_without_end_is_refused(far: _Far, connect: Callable[[int], Host]) -> None:
    (_, port), _ = control_of(ControlServer(far.control).address)
    host = connect(port)
    host.socket.sendall(b"x" * (1 << 22))
    assert json.loads(host.stream.readline())["ok"] is False
    assert host.stream.readline() == b""


def test_a_token_keeps_others_out(far: _Far, connect: Callable[[int], Host]) -> None:
    address = ControlServer(far.control, "secret").address
    place, keys = control_of(address)
    assert keys == {"token": "secret"}
    host = connect(place[1])
    for request in (b'{"do": "status"}\n', b'{"do": "status", "token": "other"}\n'):
        answer = json.loads(host.ask(request))
        assert not answer["ok"]
        assert "shared" in answer["error"]
    with BoardControl(address) as control:
        assert control.status()["now_s"] == 0.0
    clock = FarClock(address)
    assert clock.advance(2.0) == 2.0
    clock.close()


def test_when_a_token_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(listening.TOKEN, "mine")
    assert listening.control_token() == "mine"
    monkeypatch.setenv(listening.TOKEN, "")
    assert listening.control_token() == ""
    monkeypatch.delenv(listening.TOKEN)
    monkeypatch.setattr(listening, "_is_shared", lambda: True)
    assert len(listening.control_token()) == 32
    assert listening.control_token() != listening.control_token()
    monkeypatch.setattr(listening, "_is_shared", lambda: False)
    assert listening.control_token() == ""
