"""The ArC ONE driver against its simulator over both transports, and against a scripted port for
what no board shows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Limits,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Status,
    Step,
    Stop,
    Wait,
    pulse,
    read,
    sweep,
)
from rram_hil.bench.bench import Bench
from rram_hil.drivers import arc_one
from rram_hil.drivers.arc_one import (
    ArcOne,
    ArcOneConfig,
    Chronoamperometry,
    ConvergeToState,
    CurveTracer,
    Endurance,
    FormFinder,
    SwitchSeeker,
    Volatility,
    Waveform,
    spike_pair,
)
from rram_hil.drivers.dialects.arc_one_modules import conductance_of, is_terminator, status_of
from rram_hil.drivers.simulated.arc_one import launch, start_alone
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    InstrumentError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation
from rram_hil.wire.recording import Playback, Recorder

GEOMETRY = Geometry(1, 6, 5, "1R")
ALL = Cells.all(GEOMETRY)
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
    width_s=10.0,
    pulses_per_cell=100000,
)
READ = Step(0.2, 0.0, 0.0, 1e-6, "current")
QUIET = {"read_noise": False, "converters": False, "device": "paper"}


@dataclasses.dataclass
class Far:
    """A simulated board, its control, and the driver that is connected to it: the board serves one
    host at a time.
    """

    side: Any
    control: BoardControl
    last: ArcOne | None = None
    timeout_s: float = 0.5

    def driver(self, *, arm: bool = True) -> ArcOne:
        """A driver that is armed and has read once, the last one if it still is; or a new one that
        is not.
        """
        self.control.clear()
        made = self.last if arm else None
        if made is None:
            self.close()
            given = {"timeout_s": self.timeout_s, "version_s": 0.5} | self.side.settings
            self.last = made = ArcOne(ArcOneConfig(**given), GEOMETRY, LIMITS)
            made.connect()
        made.cancel.clear()
        # Private: a driver does not tell whether it is armed.
        if arm and not made._armed:
            made.arm()
        if arm:
            made.execute(read(ALL), 0)
        return made

    def close(self) -> None:
        if self.last is not None:
            self.last.close()
        self.last = None

    def stop(self) -> None:
        self.close()
        self.control.close()
        self.side.stop()


def begin(**simulation: Any) -> Far:
    side = launch(
        FarSideRequest(Simulation(**(QUIET | simulation)), GEOMETRY, LIMITS, "c1", Path("."))
    )
    return Far(side, BoardControl(side.control))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draining a link waits for less silence than with a real instrument."""
    monkeypatch.setattr("rram_hil.wire.link.QUIET_S", 0.02)


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    started = begin()
    yield started
    started.stop()


@pytest.fixture
def board(far: Far) -> ArcOne:
    return far.driver()


def formed(board: ArcOne, far: Far) -> None:
    """Bring every cell to a conductance that reads show."""
    # With V/3 the later cells' pulses would RESET the earlier ones that share no line with them.
    board.execute(pulse(ALL, bl_v=4.0, wl_v=0.0, width_s=1e-3, unselected=Scheme.HALF), 1)
    assert np.median(far.control.conductance_s()) > 1e-5
    board.execute(read(ALL), 0)


class Port:
    """A scripted port instead of a link: notes when lines come, answers as `reply` says."""

    resource = "scripted"

    def __init__(self, reply: Callable[[list[str]], bytes] = lambda lines: b"") -> None:
        self.lines: list[str] = []
        self.now_s = 0.0
        self.times: list[float] = []
        self.is_open = False
        self._reply = reply
        self._pending = b""

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def drain(self) -> None:
        self._pending = b""

    def send(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        assert data.count(b"\n") == 1
        assert b"\r" not in data
        self.lines.append(data[:-1].decode())
        self.times.append(self.now_s)
        self._pending += self._reply(self.lines)

    def receive(self, most: int, timeout_s: float, until: bytes = b"") -> bytes:
        if not self._pending:
            self.now_s += timeout_s
        data, self._pending = self._pending[:most], self._pending[most:]
        return data

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def scripted(monkeypatch: pytest.MonkeyPatch, port: Port, **keys: Any) -> ArcOne:
    monkeypatch.setattr(arc_one, "time", port)
    monkeypatch.setattr(arc_one, "make_link", lambda *_, **__: port)
    given = {"port": "scripted", "timeout_s": 0.1, "version_s": 0.05} | keys
    return ArcOne(ArcOneConfig(**given), GEOMETRY, LIMITS)


def confirms(lines: list[str]) -> bytes:
    """A board of old firmware: silent but for the confirmation of a session."""
    return b"1\n" if lines[-9:-7] == ["00", "0"] else b""


# Identity and sessions


def test_connect_identifies_and_touches_nothing(far: Far) -> None:
    board = far.driver(arm=False)
    before = far.control.status()
    identity = board.connect()
    after = far.control.status()
    assert (identity.model, identity.firmware) == ("ArC ONE", "3.2")
    assert after["resets"] == before["resets"]
    assert after["session"] == before["session"]
    far.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_the_version_is_told_over_a_pseudo_terminal_byte_by_byte() -> None:
    # 3 is Ctrl-C to a terminal that is not raw.
    side = start_alone(transport="pty")
    control = BoardControl(side.control)
    for _ in range(2):
        board = ArcOne(ArcOneConfig(**side.settings), GEOMETRY, LIMITS)
        assert board.connect().firmware == "3.2"
        assert control.status()["resets"] == 0
        board.close()
    control.close()
    side.stop()


def test_old_firmware_that_is_silent_is_taken_and_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port(confirms)
    monkeypatch.setattr(arc_one, "RESET_S", 0.05)
    board = scripted(monkeypatch, port)
    assert board.connect().firmware == "does not tell"
    assert port.lines == [*[arc_one.PADDING] * arc_one.MOST_ARGUMENTS, "999", "999"]
    asked = len(port.lines)
    board.arm()
    assert port.lines[asked:] == [
        "00",
        "0",
        "50.0",
        "6.0",
        "5.0",
        "2.0",
        "0.0",
        "0.0",
        "2.000000e-01",
    ]


def test_arm_refuses_a_silent_port_that_no_board_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arc_one, "RESET_S", 0.01)
    board = scripted(monkeypatch, Port())
    board.connect()
    with pytest.raises(LinkError, match="no ArC ONE confirmed a session"):
        board.arm()


@pytest.mark.parametrize("answer", [b"0\n", b"2\n", b"\x00\x00\x80\x3f", b"11\n"])
def test_anything_but_1_is_no_confirmation(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(arc_one, "RESET_S", 0.01)
    board = scripted(monkeypatch, Port(lambda lines: answer if confirms(lines) else b""))
    board.connect()
    with pytest.raises(LinkError):
        board.arm()


def test_another_instrument_is_refused_and_the_port_closed(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = far.driver(arm=False)
    far.control.inject("wrong-model", count=8)
    with pytest.raises(ConfigError, match="ESPRESSO"):
        board.connect()
    far.close()
    port = Port(lambda lines: lines[-1].encode() + b"\n")
    with pytest.raises(ConfigError, match="no ArC ONE"):
        scripted(monkeypatch, port).connect()
    assert not port.is_open


def test_replies_left_over_at_connect_are_thrown_away(far: Far) -> None:
    board = far.driver(arm=False)
    far.control.inject("left-over", "VERSION")
    assert board.connect().firmware == "3.2"
    assert far.control.status()["waiting_faults"] == 0
    far.close()


@pytest.mark.parametrize("sent", range(1, 5))
def test_half_a_pulse_of_a_killed_program_is_none_at_the_next_connect(far: Far, sent: int) -> None:
    board = far.driver()
    pulses, conductance = far.control.pulses(), far.control.conductance_s()
    # Private: what a program that is killed has sent of its job.
    board._send(*arc_one._lines("3", 2, 3, "2.000000e+00", "1.000000e-06")[:sent])
    far.close()
    assert far.driver(arm=False).connect().firmware == "3.2"
    np.testing.assert_array_equal(far.control.pulses(), pulses)
    np.testing.assert_array_equal(far.control.conductance_s(), conductance)
    far.close()


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 8, 10])
def test_half_a_waveform_of_a_killed_program_gives_no_more_than_was_sent_of_it(
    far: Far, cut: int
) -> None:
    board = far.driver()
    pulses = far.control.pulses().ravel()
    # One waveform of four points on one cell: word 2, bit 3.
    points = ["0.0", "0.0", "1e-6", "1.0", "3e-6", "-1.0", "4e-6", "0.0"]
    lines = arc_one._lines("40", 1, 2, 3, 1, 4, *points)
    sent = lines[: len(lines) - cut]
    board._send(*sent)
    far.close()
    assert far.driver(arm=False).connect().firmware == "3.2"
    taken = far.control.pulses().ravel() - pulses
    assert taken.sum() == taken[5 + 2] <= 2
    far.close()


@pytest.mark.parametrize("cut", range(4))
def test_half_a_talk_of_a_killed_program_hides_no_version(far: Far, cut: int) -> None:
    board = far.driver()
    lines = arc_one._lines("33", "1.0", "1e-6", 3, 2, 1, 1, 1, 0)
    board._send(*lines[: len(lines) - cut])
    far.close()
    assert far.driver(arm=False).connect().firmware == "3.2"
    far.close()


def test_a_real_port_is_opened_with_the_boards_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(arc_one, "make_link", lambda *_, **keys: seen.update(keys) or Port())
    ArcOne(ArcOneConfig(port="COM3", version_s=0.05), GEOMETRY, LIMITS).connect()
    assert seen == {"baud": 921600, "parity": "E"}


def test_settings_that_no_board_has_are_refused() -> None:
    for keys, geometry in (
        ({"port": ""}, GEOMETRY),
        ({"port": "x"}, Geometry(1, 33, 5, "1R")),
        ({"port": "x"}, Geometry(1, 6, 5, "1T1R")),
        ({"port": "x"}, Geometry(2, 6, 5, "1R")),
        ({"port": "x", "read_v": 0.5}, GEOMETRY),
        ({"port": "x", "read_v": math.nan}, GEOMETRY),
    ):
        with pytest.raises((ConfigError, ValueError)):
            ArcOne(ArcOneConfig(**keys), geometry, LIMITS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pace below 1"):
        ArcOneConfig(port="COM3", pace=0.0)


def test_safe_off_is_confirmed_offline_on_the_same_connection(far: Far, board: ArcOne) -> None:
    resets = far.control.status()["resets"]
    board.safe_off()
    told = far.control.status()
    assert told["offline"]
    assert not told["outputs_on"]
    assert told["resets"] == resets + 1
    with pytest.raises(InstrumentError, match="not armed"):
        board.execute(read(ALL), 1)
    board.arm()
    board.execute(read(ALL), 2)


def test_safe_off_says_so_when_the_board_does_not_confirm(far: Far, board: ArcOne) -> None:
    far.control.inject("drop-reply", "INIT", count=9)
    with pytest.raises(LinkError, match="confirmed"):
        board.safe_off()


# Reads


def test_a_whole_array_is_read_by_one_job_in_the_order_asked(far: Far, board: ArcOne) -> None:
    formed(board, far)
    truth = far.control.conductance_s()
    mixed = ALL[np.random.default_rng(1).permutation(len(ALL))]
    jobs, turns = far.control.status()["jobs"], board.transactions
    result = board.execute(read(mixed), 2)
    np.testing.assert_allclose(result.last_s, truth[0, mixed.row, mixed.column], rtol=1e-5)
    np.testing.assert_allclose(result.current_a[:, 0], 0.2 * result.last_s, rtol=1e-6)
    assert board.transactions == turns + 1
    assert far.control.status()["jobs"] == jobs + 1  # the read voltage stands
    assert np.all(result.reads == 1)
    assert not result.pulses.any()


def test_a_part_is_read_by_one_job_without_addresses(far: Far, board: ArcOne) -> None:
    formed(board, far)
    truth = far.control.conductance_s()
    for cells in (ALL[[27, 3, 11]], ALL[[29]]):
        jobs = far.control.status()["jobs"]
        result = board.execute(read(cells), 2)
        np.testing.assert_allclose(result.last_s, truth[0, cells.row, cells.column], rtol=1e-5)
        assert far.control.status()["jobs"] == jobs + 1


def test_volts_of_reads_that_differ_from_cell_to_cell_each_get_their_vread_and_mode(
    far: Far, board: ArcOne
) -> None:
    formed(board, far)
    truth = far.control.conductance_s().ravel()
    volts = np.where(np.arange(len(ALL)) % 2 == 0, 0.2, -0.1)
    result = board.execute(Apply(ALL, (Step(volts, 0.0, 0.0, 1e-6, "current"),)), 2)
    np.testing.assert_allclose(result.last_s, truth, rtol=1e-5)
    np.testing.assert_allclose(result.current_a[:, 0], volts * truth, rtol=1e-5)
    board.execute(Apply(ALL, (Step(0.0, 0.1, 0.0, 1e-6, "current"),)), 3)
    assert (far.control.status()["read_v"], far.control.status()["read_mode"]) == (-0.1, 3)
    board.execute(read(ALL), 4)
    assert (far.control.status()["read_v"], far.control.status()["read_mode"]) == (0.2, 2)


def test_a_resistance_that_is_none_is_no_conductance() -> None:
    ohm = np.array([1e4, -1e4, np.inf, -np.inf, np.nan, 0.0, 40.0, -3e7, 2e7])
    status = status_of(ohm, 50.0, None)
    ok, nan, over = int(Status.OK), int(Status.NOT_A_NUMBER), int(Status.OVER_RANGE)
    assert status.tolist() == [ok, nan, nan, nan, nan, over, over, nan, ok]
    assert np.isnan(conductance_of(ohm, status)).tolist() == [False, *[True] * 7, False]
    # Where the board's highest resistance is known, what lies beyond is no current, within that
    # resolution.
    status = status_of(ohm, 50.0, 1e7)
    assert status.tolist() == [ok, nan, ok, ok, nan, over, over, ok, ok]
    found = conductance_of(ohm, status)
    assert found[[2, 3, 7]].tolist() == [0.0, 0.0, 0.0]
    assert found[8] == pytest.approx(5e-8)
    assert not (found < 0).any()


def test_stated_uncertainty_covers_what_is_read_as_no_current(board: ArcOne) -> None:
    assert board.capabilities.read_floor_a >= 0.2 / 1e7


@pytest.mark.parametrize(
    "fault", ["drop-request", "drop-reply", "half-reply", "garbage", "line-overrun", "stuck"]
)
@pytest.mark.parametrize("cells", [ALL, ALL[:7], ALL[:1]], ids=["all", "part", "one"])
def test_a_read_is_repeated_after_a_reset_and_never_wrong(
    far: Far, board: ArcOne, fault: str, cells: Cells
) -> None:
    formed(board, far)
    truth = far.control.conductance_s()[0, cells.row, cells.column]
    resets = far.control.status()["resets"]
    far.control.inject(fault, "" if fault == "line-overrun" else "READ")
    result = board.execute(read(cells), 2)
    np.testing.assert_allclose(result.last_s, truth, rtol=1e-5)
    assert far.control.status()["waiting_faults"] == 0
    assert far.control.status()["resets"] >= resets + (fault != "line-overrun")


@pytest.mark.parametrize("fault", ["disconnect-request", "disconnect-reply"])
def test_a_lost_link_is_opened_again_for_a_read(far: Far, board: ArcOne, fault: str) -> None:
    formed(board, far)
    far.control.inject(fault, "READ ALL")
    result = board.execute(read(ALL), 2)
    np.testing.assert_allclose(result.last_s, far.control.conductance_s().ravel(), rtol=1e-5)


def test_a_read_that_keeps_failing_is_a_link_error_with_the_board_reset(
    far: Far, board: ArcOne
) -> None:
    far.control.inject("drop-reply", "READ ALL", count=9)
    with pytest.raises(LinkError, match="outputs are off") as caught:
        board.execute(read(ALL), 1)
    assert not isinstance(caught.value, UnknownOutcomeError)
    far.control.clear()
    board.execute(read(ALL), 2)


def test_latency_passes_unnoticed(far: Far, board: ArcOne) -> None:
    resets = far.control.status()["resets"]
    far.control.inject("delay-reply", "READ ALL", seconds=0.1)
    board.execute(read(ALL), 1)
    assert far.control.status()["resets"] == resets


# Pulses


def test_pulses_of_a_batch_are_one_burst_with_volts_of_their_own(far: Far, board: ArcOne) -> None:
    before = far.control.pulses().ravel()
    volts = np.linspace(-2.0, 4.0, len(ALL))
    turns = board.transactions
    steps = (Step(volts, 0.0, 0.0, 90e-9), READ)
    result = board.execute(Apply(ALL, steps, Scheme.HALF), 2)
    assert board.transactions == turns + 2  # the readings are a job of their own
    stressed = np.abs(volts) > LIMITS.read_v
    np.testing.assert_array_equal(result.pulses, stressed)
    np.testing.assert_array_equal(far.control.pulses().ravel() - before, stressed)
    assert far.control.status()["sneak_path"] == 1
    np.testing.assert_allclose(result.last_s, far.control.conductance_s().ravel(), rtol=1e-5)


def test_bl_minus_sl_is_what_the_cell_gets(far: Far, board: ArcOne) -> None:
    formed(board, far)
    high = far.control.conductance_s()
    board.execute(Apply(ALL, (Step(0.5, 2.5, 0.0, 1e-6),), Scheme.HALF), 3)
    assert np.median(far.control.conductance_s() / high) < 0.1


def test_with_a_stop_condition_a_cell_takes_no_pulse_after_it_was_met(far: Far) -> None:
    fresh = begin(seed=9)
    board = fresh.driver()
    levels = [2.4, 2.8, 3.2, 3.6, 4.0]
    ramp = sweep(
        ALL,
        "bl",
        levels,
        width_s=1e-6,
        read=READ,
        stop=Stop(above_s=20e-6),
        unselected=Scheme.THIRD,
    )
    result = board.execute(ramp, 1)
    met = result.conductance_s >= 20e-6
    assert met.any()
    first = np.where(met.any(axis=1), np.argmax(met, axis=1) + 1, len(levels))
    np.testing.assert_array_equal(result.pulses, first)
    np.testing.assert_array_equal(fresh.control.pulses().ravel(), first)
    np.testing.assert_array_equal(result.reads, first)
    later = np.arange(len(levels))[None] >= first[:, None]
    assert np.all(result.status[later] == Status.NOT_RUN)
    fresh.stop()


def test_pulses_without_a_reading_are_acknowledged_all_the_same(far: Far, board: ArcOne) -> None:
    before = far.control.pulses().ravel()
    steps = (Step(1.0, 0.0, 0.0, 1e-6), Step(-1.0, 0.0, 0.0, 1e-6))
    result = board.execute(Apply(ALL[:9], steps, Scheme.THIRD, repeat=3), 4)
    assert result.status.shape == (9, 0)
    assert np.all(result.pulses == 6)
    assert (far.control.pulses().ravel() - before)[:9].tolist() == [6] * 9


@pytest.mark.parametrize(
    "fault", ["drop-reply", "half-reply", "garbage", "stuck", "disconnect-reply", "drop-request"]
)
def test_a_pulse_whose_reply_is_lost_is_unknown_and_never_repeated(
    far: Far, board: ArcOne, fault: str, soon: Any
) -> None:
    before = far.control.pulses().ravel()
    far.control.inject(fault, "PULSE READ")
    with pytest.raises(UnknownOutcomeError, match="outputs are off"):
        board.execute(
            pulse(ALL, bl_v=1.0, wl_v=0.0, width_s=1e-6, read=READ, unselected=Scheme.HALF), 5
        )
    assert np.all(far.control.pulses().ravel() - before <= 1)
    assert not far.control.status()["outputs_on"]
    assert soon(lambda: not far.control.status()["busy"]), (
        "the board is still busy with the new session's settings"
    )
    board.execute(read(ALL), 6)


class Lossy:
    """Lines below a driver, of which the `at`-th is lost or sent twice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, board: ArcOne, fault: str, at: int):
        # Private: a line is lost below the driver.
        link = board._link
        assert link is not None
        self.lines: list[bytes] = []
        send = link.send

        def lossy(data: bytes) -> None:
            if len(self.lines) != at or fault != "lost":
                send(data)
            if len(self.lines) == at and fault == "doubled":
                send(data)
            self.lines.append(data)

        monkeypatch.setattr(link, "send", lossy)


CORNER = Cells.block(0, [1, 2, 5], [0, 3])
OPERATIONS = {
    "read": Apply(CORNER, (READ,)),
    "read at other volts": Apply(CORNER, (Step(-0.1, 0.0, 0.0, 1e-6, "current"), READ)),
    "pulse": Apply(CORNER, (Step(0.4, 0.0, 0.0, 90e-9), READ), Scheme.THIRD),
    "pulse of another scheme": Apply(CORNER, (Step(0.4, 0.0, 0.0, 90e-9), READ), Scheme.HALF),
}


@pytest.mark.parametrize("at", range(18))
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, "lost") for name in OPERATIONS),
        ("read", "doubled"),
        ("read at other volts", "doubled"),
    ],
)
def test_a_lost_or_doubled_line_gives_no_pulse_more_and_no_wrong_number(
    monkeypatch: pytest.MonkeyPatch, far: Far, board: ArcOne, name: str, fault: str, at: int
) -> None:
    operation = OPERATIONS[name]
    before = far.control.pulses().ravel()
    lossy = Lossy(monkeypatch, board, fault, at)
    with contextlib.suppress(LinkError):
        result = board.execute(operation, 7)
        truth = far.control.conductance_s()[0, CORNER.row, CORNER.column]
        told = result.status == Status.OK
        for column in range(operation.measurements):
            there = told[:, column]
            np.testing.assert_allclose(
                result.conductance_s[there, column], truth[there], rtol=1e-4, atol=2e-8
            )
        assert told.all() or fault == "doubled"
    assert len(lossy.lines) > 3
    extra = far.control.pulses().ravel() - before
    extra[CORNER.index(GEOMETRY)] -= "pulse" in name
    assert extra.max() <= 0
    monkeypatch.undo()
    board.execute(read(ALL), 8)


def test_nothing_but_the_first_line_of_a_job_is_spelled_like_one(
    monkeypatch: pytest.MonkeyPatch, far: Far, board: ArcOne
) -> None:
    lossy = Lossy(monkeypatch, board, "", -1)
    for operation in OPERATIONS.values():
        board.execute(operation, 7)
    board.curve_tracer(ALL, CurveTracer(0.4, 0.4, 0.1, 1e-4, v_start=0.2))
    board.safe_off()
    jobs = [line for line in lossy.lines if line.strip().isdigit()]
    assert {*jobs} == {b"0\n", b"00\n", b"011\n", b"2\n", b"3\n", b"201\n"}
    far.last = None
    board.close()


def test_a_link_that_breaks_before_the_first_line_gave_no_pulse(
    monkeypatch: pytest.MonkeyPatch, far: Far, board: ArcOne
) -> None:
    stress = pulse(ALL, bl_v=1.0, wl_v=0.0, width_s=1e-6, unselected=Scheme.THIRD)
    before = far.control.pulses().sum()
    # Private: a line is lost below the driver.
    link = board._link
    assert link is not None
    send, failures = link.send, [LinkError("unplugged")]

    def breaks(data: bytes) -> None:
        if failures:
            raise failures.pop()
        send(data)

    monkeypatch.setattr(link, "send", breaks)
    with pytest.raises(LinkError, match="gave no pulse") as caught:
        board.execute(stress, 1)
    assert not isinstance(caught.value, UnknownOutcomeError)
    assert far.control.pulses().sum() == before
    link.close()
    board.execute(stress, 2)
    assert far.control.pulses().sum() == before + len(ALL)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_any_exception_inside_a_burst_resets_the_board(
    monkeypatch: pytest.MonkeyPatch, far: Far, board: ArcOne, error: type[BaseException]
) -> None:
    resets = far.control.status()["resets"]
    # Private: the last step of a burst is no call of its own.
    monkeypatch.setattr(
        board, "_expect_silence", lambda what: (_ for _ in ()).throw(error("in the middle"))
    )
    with pytest.raises(error):
        board.execute(pulse(ALL, bl_v=1.0, wl_v=0.0, width_s=1e-6, unselected=Scheme.HALF), 1)
    told = far.control.status()
    assert told["resets"] == resets + 1
    assert not told["outputs_on"]
    assert told["selected"] is None


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step(1.0, 0.0, 0.0, 1e-6, "current"), ConfigError),
        (Step(0.0, 0.0, 0.0, 1e-6, "current"), ConfigError),
        (Step(0.2, 0.0, 0.0, 1e-6, "gate"), ConfigError),
        (Step(None, 0.0, 0.0, 1e-6), ConfigError),
        (Step(0.2, None, 0.0, 1e-6, "current"), ConfigError),
        (Step(1.0, 0.0, 0.0, 80e-9), ConfigError),
        (Step(4.1, 0.0, 0.0, 1e-6), LimitError),
        (Step(math.nan, 0.0, 0.0, 1e-6), LimitError),
        (Step(1.0, 0.0, 0.0, 11.0), LimitError),
    ],
)
def test_what_the_board_cannot_do_is_refused_before_anything_is_sent(
    far: Far, board: ArcOne, step: Step, kind: type[BenchError]
) -> None:
    lines = far.control.status()["lines"]
    with pytest.raises(kind):
        board.execute(Apply(ALL, (step,), Scheme.HALF), 1)
    with pytest.raises(ConfigError, match="compliance"):
        board.execute(Apply(ALL, (READ,), compliance_a=1e-4), 1)
    with pytest.raises(ConfigError, match="grounded"):
        board.execute(Apply(ALL, (READ,), Scheme.GROUNDED), 1)
    train = PulseTrain(Ramp(1.0, 1.0), Ramp(0.0, 0.0), 1e-6)
    with pytest.raises(ConfigError, match="Program"):
        board.execute(Program(ALL, np.zeros(30), np.ones(30), train, train, READ), 1)
    assert far.control.status()["lines"] == lines


def test_schemes_of_unselected_lines_are_sent_by_their_numbers(far: Far, board: ArcOne) -> None:
    for scheme, code in (
        (Scheme.HALF, 1),
        (Scheme.FLOATING, 256),
        (Scheme.THIRD, 0),
        (Scheme.INHIBIT, 0),
    ):
        board.execute(Apply(ALL, (READ,), scheme), 1)
        assert far.control.status()["sneak_path"] == code


# Time, aborting, threads


def test_lines_are_never_sent_faster_than_the_board_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arc_one, "RESET_S", 0.01)

    def reply(lines: list[str]) -> bytes:
        if len(lines) > 5 and lines[-5] == "3":
            return np.array([1e4], dtype="<f4").tobytes()
        if len(lines) > 4 and lines[-4] == "2":
            return np.full(20, 1e4, dtype="<f4").tobytes()
        return confirms(lines)

    port = Port(reply)
    board = scripted(monkeypatch, port)
    board.connect()
    board.arm()
    result = board.execute(pulse(ALL[10:20], bl_v=1.0, wl_v=0.0, width_s=90e-9, read=READ), 1)
    assert np.all(result.last_s == pytest.approx(1e-4))
    assert np.diff(port.times).min() >= 0.95e-3
    nothing = "0.000000e+00"
    assert port.lines[-11:-5] == ["3", "4.0", "5.0", "1.000000e+00", "9.000000e-08", nothing]
    assert port.lines[-5:] == ["2", "1.0", "4.0", "5.0", nothing]


def test_a_long_job_is_waited_for_and_a_silent_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # The peers' busy-wait would hang for ever here.
    monkeypatch.setattr(arc_one, "RESET_S", 0.01)
    port = Port(confirms)
    board = scripted(monkeypatch, port, retries=0)
    board.connect()
    board.arm()
    started_s = port.now_s
    with pytest.raises(UnknownOutcomeError):
        board.execute(pulse(ALL[:1], bl_v=1.0, wl_v=0.0, width_s=0.4), 1)
    assert 0.5 < port.now_s - started_s < 3.0


def test_the_clock_of_a_simulated_bench_is_the_boards(far: Far, board: ArcOne) -> None:
    before = board.now_s()
    assert board.capabilities.clock == "virtual"
    span = board.execute(Wait(3600.0), 1).span
    assert span.ended_s - span.started_s == pytest.approx(3600.0)
    assert board.now_s() - before >= 3600.0
    result = board.execute(read(ALL), 2)
    assert np.all(np.diff(result.time_s[:, 0]) > 0)
    assert result.span.ended_s - result.span.started_s >= len(ALL) * 50 * 10e-6


def test_an_abort_resets_a_stuck_board_at_once(far: Far, board: ArcOne) -> None:
    far.control.inject("stuck", "PULSE READ")
    threading.Timer(0.1, board.cancel.set).start()
    with pytest.raises(AbortedError, match="outputs are off"):
        board.execute(pulse(ALL, bl_v=1.0, wl_v=0.0, width_s=1e-6, unselected=Scheme.HALF), 1)
    assert not far.control.status()["outputs_on"]
    with pytest.raises(AbortedError):
        board.execute(read(ALL), 2)
    with pytest.raises(AbortedError):
        board.execute(Wait(1.0), 3)
    board.cancel.clear()
    board.execute(read(ALL), 4)


def test_two_threads_share_the_board_without_mixing_replies(far: Far, board: ArcOne) -> None:
    formed(board, far)
    truth = far.control.conductance_s().ravel()
    wrong: list[object] = []

    def ask(at: int) -> None:
        for _ in range(10):
            result = board.execute(read(ALL[[at, at + 7]]), 1)
            if not np.allclose(result.last_s, truth[[at, at + 7]], rtol=1e-5):
                wrong.append(result)

    threads = [threading.Thread(target=ask, args=(k,)) for k in (2, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_session_plays_back_without_the_board(far: Far, tmp_path: Path) -> None:
    far.close()

    def session(traffic: Any) -> Any:
        board = ArcOne(ArcOneConfig(**far.side.settings), GEOMETRY, LIMITS)
        board.traffic = traffic
        board.connect()
        board.arm()
        steps = (Step(1.0, 0.0, 0.0, 1e-6), READ)
        results = [board.execute(read(ALL), 1), board.execute(Apply(ALL, steps, Scheme.HALF), 2)]
        loops = board.curve_tracer(ALL[:2], CurveTracer(0.6, 0.6, 0.1, 1e-4, v_start=0.1))
        board.safe_off()
        board.close()
        return [r.conductance_s for r in results], loops.resistance_ohm

    with Recorder(tmp_path / "session") as recorder:
        first = session(recorder)
    playback = Playback(tmp_path / "session")
    again = session(playback)
    for a, b in zip(first[0], again[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first[1], again[1])
    assert playback.left() == 0


# Modules


def test_settings_of_modules_are_values_that_nobody_can_change() -> None:
    settings_ = FormFinder(0.5, 0.1, 1.0, 1e-6, 1e4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_.v_max = 5.0  # type: ignore[misc]
    assert FormFinder(0.5, 0.1, 1.0, 1e-6, 1e4) == settings_


def test_arguments_of_modules_stand_in_the_documented_order() -> None:
    finder = FormFinder(0.5, 0.1, 1.0, 90e-9, 1e4, longest_s=9e-7, series_ohm=10_000, pulses_each=3)
    numbers = [float(x) for x in finder.lines()[1:]]
    assert finder.lines()[0] == "14"
    wanted = [0.5, 0.1, 1.0001, 90e-9, 100.0, 9.00009e-7, 1e-3, 1e4, 0.0, 2, 3]
    assert numbers == pytest.approx(wanted)
    linear = dataclasses.replace(finder, widen_by="seconds", widen=1e-7)
    assert linear.lines()[0] == "141"
    assert linear.lines()[10] == "1"
    assert len(linear.lines()) == 13
    tracer = CurveTracer(
        1.0, 2.0, 0.1, 1e-3, v_start=0.1, cut_pos_a=10e-6, cut_neg_a=1e-4, cycles=3, halt=True
    )
    assert tracer.lines()[0] == "201"
    wanted = [1.0001, 2.0001, 0.1, 0.1, 1e-3, 1e-3, 10.1e-6, -1e-4, 3, 0, 0, 1]
    assert [float(x) for x in tracer.lines()[1:]] == pytest.approx(wanted)
    endurance = Endurance(1.0, -1.2, 1e-6, 3e-5, 7, cut_neg_a=1e-3, n_neg=2)
    assert endurance.lines()[0] == "191"
    wanted = [1.0, 1e-6, 0, -1.2, 3e-5, -1e-3, 1e-3, 1, 2, 7]
    assert [float(x) for x in endurance.lines()[1:]] == pytest.approx(wanted)
    assert endurance.lines()[8:] == ("1", "2", "7")
    converge = ConvergeToState(0.5, 0.1, 1.5, 1e-6, 2e4, longest_s=8e-6, polarity=-1)
    wanted = [0.5, 0.1, 1.5001, 1e-6, 100.0, 8.00008e-6, 1e-3, 2e4, 5, 5, 1, -1]
    assert [float(x) for x in converge.lines()[1:]] == pytest.approx(wanted)
    assert SwitchSeeker(0.5, 0.5, 1.0, 1e-6, 1e5, slow=True).lines()[0] == "152"
    assert Chronoamperometry(0.5, 1.0, 4).lines() == ("220", "5.000000e-01", "1.000000e+00", "4")
    assert Volatility(0.5, 1e-3, 4, 2).lines() == ("33", "5.000000e-01", "1.000000e-03", "4", "2")


@pytest.mark.parametrize(
    "make",
    [
        lambda: FormFinder(0.5, 0.3, 1.0, 1e-6, 1e4),
        lambda: FormFinder(0.5, 0.0, 1.0, 1e-6, 1e4),
        lambda: FormFinder(1.0, 0.1, 0.5, 1e-6, 1e4),
        lambda: FormFinder(0.5, 0.1, 13.0, 1e-6, 1e4),
        lambda: FormFinder(0.5, 0.1, 1.0, 80e-9, 1e4),
        lambda: FormFinder(0.5, 0.1, 1.0, 1e-6, 0.0),
        lambda: FormFinder(0.5, 0.1, 1.0, 1e-6, math.nan),
        lambda: FormFinder(0.5, 0.1, 1.0, 1e-6, 1e4, longest_s=1e-3, widen=0.0),
        lambda: FormFinder(0.5, 0.1, 1.0, 1e-6, 1e4, series_ohm=470),
        lambda: FormFinder(0.5, 0.1, 1.0, 1e-6, 1e4, pulses_each=0),
        lambda: CurveTracer(1.0, 1.0, 0.1, 1e-3, v_start=0.1, cut_pos_a=5e-6),
        lambda: CurveTracer(1.0, 1.0, 0.1, 1e-3, v_start=0.1, cut_pos_a=2e-3),
        lambda: CurveTracer(1.0, -1.0, 0.1, 1e-3, v_start=0.1),
        lambda: CurveTracer(1.0, 1.0, 0.1, 1e-3, v_start=0.1, span="both"),
        lambda: Endurance(1.0, 1.0, 1e-6, 1e-6, 5),
        lambda: Endurance(1.0, -1.0, 1e-6, 1e-6, 0),
        lambda: ConvergeToState(0.5, 0.1, 1.0, 1e-6, -5.0),
        lambda: Chronoamperometry(0.0, 1.0),
        lambda: Chronoamperometry(0.5, 1.0, 1),
        lambda: Endurance(1.0, -1.0, 20e-6, 1e-6, 5, cut_pos_a=1e-4),
        lambda: Volatility(13.0, 1e-6),
        lambda: Volatility(1.0, 1e-6, batches=0),
        lambda: Waveform(((0.0, 0.0),)),
        lambda: Waveform(((0.0, 1.0), (1e-6, 0.5))),
        lambda: Waveform(((1e-6, 1.0), (2e-6, 0.0))),
        lambda: Waveform(((0.0, 13.0), (1e-6, 0.0))),
        lambda: Waveform(((0.0, 1.0), (50e-9, 0.0))),
        lambda: Waveform(((0.0, 1.0), (math.nan, 0.0))),
        lambda: Waveform(((0.0, 1.0), (11.0, 0.0))),
        lambda: Waveform(tuple((k * 1e-6, 0.0) for k in range(25))),
    ],
)
def test_settings_that_the_board_would_misread_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_only_three_zeros_end_a_cell() -> None:
    def triplet(*values: float) -> np.ndarray:
        return np.array(values, dtype=np.float32)

    assert is_terminator(triplet(0, 0, 0))
    assert is_terminator(triplet(-0.0, 0, 0))
    for values in ((-5e6, 0.2, 1e-6), (0, 0.2, 0), (0, 0, 1e-6), (-1, 0, 0), (math.nan, 0, 0)):
        assert not is_terminator(triplet(*values))


@pytest.fixture(scope="module")
def resistor() -> Iterator[Far]:
    side = start_alone(load_ohm=2e4)
    # Nothing here is about a board that is late.
    started = Far(side, BoardControl(side.control), timeout_s=20.0)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def on_resistor(resistor: Far) -> ArcOne:
    return resistor.driver()


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.floats(0.01, 0.3), st.floats(0.05, 1.0))
def test_every_ramp_reaches_its_last_level_and_never_passes_it(
    on_resistor: ArcOne, count: int, step: float, first: float
) -> None:
    last = first + count * step
    if last > 3.9:
        return
    found = on_resistor.form_finder(ALL[:1], FormFinder(first, step, last, 1e-6, stop_ohm=1.0))
    assert len(found.volts_v) == 1 + count + 1
    assert found.volts_v[-1] == pytest.approx(last, rel=1e-5)
    loop = on_resistor.curve_tracer(
        ALL[:1], CurveTracer(last, 0.0, step, 1e-4, v_start=first, span="positive")
    )
    assert loop.volts_v.max() == pytest.approx(last, rel=1e-5)


def test_form_finder_ramps_each_cell_until_it_forms_and_counts_its_pulses() -> None:
    fresh = begin(seed=5)
    board = fresh.driver()
    finder = FormFinder(2.4, 0.2, 4.0, 1e-6, stop_ohm=5e4)
    found = board.form_finder(ALL, finder)
    np.testing.assert_array_equal(found.pulses, fresh.control.pulses().ravel())
    assert np.all(found.pulses <= finder.most_pulses)
    assert np.all(np.bincount(found.device, minlength=len(ALL)) == found.pulses + 1)
    stuck = fresh.control.truth("stuck").ravel()
    np.testing.assert_array_equal(
        found.last_s[stuck == 0] > 2e-5, fresh.control.truth("formed").ravel()[stuck == 0]
    )
    assert (found.last_s > 2e-5).mean() > 0.5
    one = found.of(int(np.argmax(found.pulses)))
    np.testing.assert_allclose(np.diff(one.volts_v[1:]), 0.2, rtol=1e-4)
    assert one.width_s[1:] == pytest.approx(1e-6)
    fresh.stop()


def test_form_finder_widens_before_it_raises_the_amplitude(on_resistor: ArcOne) -> None:
    finder = FormFinder(0.5, 0.5, 1.0, 1e-6, stop_ohm=1.0, longest_s=4e-6)
    found = on_resistor.form_finder(ALL[:1], finder)
    assert found.volts_v[1:] == pytest.approx([0.5] * 3 + [1.0] * 3)
    assert found.width_s[1:] == pytest.approx([1e-6, 2e-6, 4e-6] * 2)
    assert finder.most_pulses == 6
    linear = FormFinder(0.5, 0.5, 1.0, 1e-6, 1.0, longest_s=3e-6, widen=1e-6, widen_by="seconds")
    found = on_resistor.form_finder(ALL[:1], linear)
    assert found.width_s[1:] == pytest.approx([1e-6, 2e-6, 3e-6] * 2)


def test_curve_tracer_gives_every_cycle_of_every_cell_and_an_ohmic_line_on_a_resistor(
    on_resistor: ArcOne,
) -> None:
    loops = on_resistor.curve_tracer(
        ALL[:3], CurveTracer(1.0, 0.5, 0.1, 1e-4, v_start=0.1, cycles=4)
    )
    assert {(int(d), int(c)) for d, c in zip(loops.device, loops.cycle, strict=True)} == {
        (d, c) for d in range(3) for c in range(4)
    }
    assert loops.resistance_ohm == pytest.approx(2e4)
    assert loops.current_a == pytest.approx(loops.volts_v / 2e4)
    assert (loops.volts_v.max(), loops.volts_v.min()) == pytest.approx((1.0, -0.5))
    # 0.4 V to 1.0 V and back, 0.4 V to 0.5 V and back, four times.
    assert loops.pulses.tolist() == [4 * (13 + 3)] * 3


def test_limits_see_the_2_ms_that_a_curve_tracer_may_hold_a_level_longer(
    far: Far, board: ArcOne
) -> None:
    tracer = CurveTracer(1.0, 1.0, 0.1, 9e-3, v_start=0.1)
    assert {step.width_s for step in tracer.extremes()} == {11e-3}
    assert tracer.length_s == pytest.approx(38 * (9e-3 + 2e-3 + 1e-3))
    tight = ArcOne(
        ArcOneConfig(**far.side.settings), GEOMETRY, LIMITS.model_copy(update={"width_s": 10e-3})
    )
    with pytest.raises(LimitError, match=r"0\.011 s"):
        tight.curve_tracer(ALL[:1], tracer)


def test_a_cut_off_of_10_ua_halts_the_bias(on_resistor: ArcOne) -> None:
    tracer = CurveTracer(
        1.0, 1.0, 0.1, 1e-4, v_start=0.1, cut_pos_a=10e-6, cut_neg_a=10e-6, halt=True
    )
    loops = on_resistor.curve_tracer(ALL[:1], tracer)
    # 20 kohm: 10.1 uA are passed at 0.3 V, and nothing higher is driven.
    assert (loops.volts_v.max(), loops.volts_v.min()) == pytest.approx((0.3, -0.3))


def test_endurance_gives_a_triplet_a_pulse(on_resistor: ArcOne) -> None:
    found = on_resistor.endurance(ALL[:2], Endurance(1.0, -1.5, 1e-6, 2e-6, 5, n_pos=2))
    one = found.of(1)
    assert one.volts_v == pytest.approx([1.0, 1.0, -1.5] * 5)
    assert one.width_s == pytest.approx([1e-6, 1e-6, 2e-6] * 5)
    assert found.pulses.tolist() == [15, 15]


def test_converge_to_state_turns_when_the_cell_drifts_away_and_stays_within_its_worst_case(
    far: Far, board: ArcOne
) -> None:
    formed(board, far)
    before = far.control.pulses().ravel()
    settings_ = ConvergeToState(
        0.5, 0.1, 2.0, 1e-6, target_ohm=5e4, target_percent=8.0, polarity=-1
    )
    found = board.converge_to_state(ALL, settings_)
    taken = far.control.pulses().ravel() - before
    np.testing.assert_array_equal(found.pulses, taken)
    assert np.all(taken <= settings_.most_pulses)
    assert (found.volts_v < 0).any()
    assert (found.volts_v > 0).any()
    stuck = far.control.truth("stuck").ravel() != 0
    ended = np.abs(found.last_s * 5e4 - 1) < 0.09
    assert (ended | stuck | (taken == 0)).mean() > 0.5


def test_other_modules_stream_until_their_terminator(on_resistor: ArcOne) -> None:
    chrono = on_resistor.chronoamperometry(ALL[:2], Chronoamperometry(0.5, 1.0, 4))
    assert chrono.resistance_ohm == pytest.approx([2e4] * 8)
    assert chrono.pulses.tolist() == [4, 4]
    volatility = on_resistor.volatility(ALL[:2], Volatility(1.0, 1e-4, 6, 2, batches=3))
    assert np.bincount(volatility.device).tolist() == [1 + 18 + 1] * 2
    assert volatility.resistance_ohm == pytest.approx(2e4)
    one = volatility.of(1)
    assert (one.volts_v[0], one.width_s[0]) == (1.0, 1e-4)
    assert np.all(np.diff(one.width_s[1:-1]) > 0)
    assert volatility.pulses.tolist() == [1, 1]
    seeker = SwitchSeeker(0.5, 0.5, 1.5, 1e-6, 1e6, reads_each=1)
    found = on_resistor.switch_seeker(ALL[:1], seeker)
    assert found.volts_v[found.width_s > 0] == pytest.approx([0.5, -0.5, 1.0, -1.0, 1.5, -1.5])
    assert found.volts_v[found.width_s == 0] == pytest.approx([0.2] * 7)
    assert found.pulses.tolist() == [seeker.most_pulses]


def test_a_waveform_is_given_point_by_point_and_each_beyond_a_read_is_a_pulse(
    far: Far, board: ArcOne
) -> None:
    before = far.control.pulses().ravel()
    wave = Waveform(((0.0, 0.0), (1e-6, 1.0), (3e-6, -1.5), (4e-6, 0.2), (5e-6, 0.0)))
    found = board.waveform(ALL[[3, 8]], wave)
    taken = far.control.pulses().ravel() - before
    assert np.flatnonzero(taken).tolist() == [3, 8]
    np.testing.assert_array_equal(found.pulses, taken[[3, 8]])
    assert found.of(0).volts_v == pytest.approx([0.2, 0.2, -1.5, 0.2])
    assert found.of(0).width_s == pytest.approx([0, 0, 5e-6, 0])
    assert wave.most_pulses == 3
    with pytest.raises(LimitError):
        board.waveform(ALL, Waveform(((0.0, -4.2), (1e-6, 0.0))))


def test_a_pair_of_spikes_is_the_difference_of_what_stands_at_the_cells_ends() -> None:
    spike = ((0.0, 0.0), (1e-6, 1.0), (2e-6, 0.0))
    for delay_s, expected in (
        (3e-6, [(0, 0), (1, -1), (2, 0), (3, 0), (4, 1), (5, 0)]),
        (-1e-6, [(0, 0), (1, 1), (2, -1), (3, 0)]),
    ):
        made = spike_pair(spike, spike, delay_s)
        assert np.array(made.points) == pytest.approx(np.array(expected) * [1e-6, 1.0])


def test_jobs_that_cannot_be_bounded_are_refused_by_name(board: ArcOne) -> None:
    with pytest.raises(ConfigError, match=r"MultiStateSeeker \(jobs 161 to 165\)"):
        board.multi_state(ALL)
    with pytest.raises(ConfigError, match=r"MultiBias \(job 50\)"):
        board.multi_bias(ALL)


@pytest.mark.parametrize("keys", [{}, {"slow": True}, {"stage_two": -1}])
def test_a_switch_seeker_gives_no_pulse_more_than_it_is_charged(
    far: Far, board: ArcOne, keys: dict[str, Any]
) -> None:
    formed(board, far)
    before = far.control.pulses().ravel()
    seeker = SwitchSeeker(0.5, 0.5, 2.5, 1e-6, 1e6, cycles=3, reads_each=1, **keys)
    found = board.switch_seeker(ALL, seeker)
    taken = far.control.pulses().ravel() - before
    assert np.all(taken <= seeker.most_pulses)
    assert taken.max() > 5
    assert found.pulses.tolist() == [seeker.most_pulses] * len(ALL)


def test_a_switch_seeker_is_charged_as_the_makers_own_simulator_steps() -> None:
    # Five levels: each of either polarity, or (slow) a ramp of either for each; then 2 * (3 + 1).
    seeker = SwitchSeeker(0.5, 0.5, 2.5, 1e-6, 1e6, cycles=3, pulses_each=2)
    assert seeker.most_pulses == (2 * 5 + 8 * 5) * 2
    assert dataclasses.replace(seeker, slow=True).most_pulses == (5 * 6 + 8 * 5) * 2
    assert dataclasses.replace(seeker, stage_two=1).most_pulses == 8 * 5 * 2


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_a_triplet_that_is_missing_is_charged_as_the_worst_case(lost: int) -> None:
    finder = FormFinder(0.5, 0.1, 1.0, 1e-6, stop_ohm=1e4)
    triplets = np.array([(1e6, 0.2, 0.0), *((1e5, v, 1e-6) for v in (0.5, 0.6)), (9e3, 0.7, 1e-6)])
    assert finder.pulses([triplets], 0.3) == 3
    assert finder.pulses([np.delete(triplets, lost, axis=0)], 0.3) == finder.most_pulses == 6
    tracer = CurveTracer(0.3, 0.3, 0.1, 1e-4, v_start=0.1, cycles=2)
    # Volts are told as they were measured: the levels count, not they.
    loop = np.array([(1e5, v, 0.0) for v in (0.096, 0.197, 0.304, 0.203, 0.096)])
    whole = np.concatenate([loop, -loop])
    assert tracer.pulses([whole, whole], 0.2) == 4
    damaged = [whole, np.delete(whole, lost, axis=0)]
    assert tracer.pulses(damaged, 0.2) == tracer.most_pulses == 20
    endurance = Endurance(1.0, -1.0, 1e-6, 1e-6, 2)
    pairs = np.array([(1e5, 1.0, 1e-6), (1e5, -1.0, 1e-6)] * 2)
    assert endurance.pulses([np.delete(pairs, lost, axis=0)], 0.3) == 4
    converge = ConvergeToState(0.5, 0.1, 0.9, 1e-6, target_ohm=5e4)
    ramp = np.array([(9e4, 0.5, 1e-6), (7e4, 0.6, 1e-6), (5e4, 0.7, 1e-6)])
    assert converge.pulses([ramp], 0.3) == 3
    assert converge.pulses([np.delete(ramp, lost, axis=0)], 0.3) == converge.most_pulses
    assert converge.pulses([ramp[:0]], 0.3) == 1


def test_retention_reads_both_ends_and_stresses_nothing(far: Far, board: ArcOne) -> None:
    formed(board, far)
    before = far.control.pulses().sum()
    found = board.retention(ALL, step_s=0.1, duration_s=1.0)
    assert found.conductance_s.shape == (len(ALL), 11)
    assert found.time_s == pytest.approx(np.arange(11) * 0.1, abs=0.01)
    assert far.control.pulses().sum() == before
    with pytest.raises(ConfigError):
        board.retention(ALL, step_s=0.0, duration_s=1.0)


def test_a_module_beyond_the_limits_is_refused_before_anything_is_sent(
    far: Far, board: ArcOne
) -> None:
    lines = far.control.status()["lines"]
    with pytest.raises(LimitError, match="BL"):
        board.form_finder(ALL, FormFinder(3.0, 0.1, 4.2, 1e-6, 1e4))
    with pytest.raises(LimitError):
        board.endurance(ALL, Endurance(1.0, -4.2, 1e-6, 1e-6, 5))
    with pytest.raises(ConfigError, match="pulses_per_cell"):
        board.endurance(ALL, Endurance(1.0, -1.0, 1e-6, 1e-6, 50001))
    with pytest.raises(ConfigError, match="lie in"):
        board.endurance(Cells.of([(0, 6, 0)]), Endurance(1.0, -1.0, 1e-6, 1e-6, 5))
    assert far.control.status()["lines"] == lines


@pytest.mark.parametrize(
    "fault", ["drop-reply", "half-reply", "garbage", "stuck", "disconnect-reply", "drop-request"]
)
def test_a_module_that_loses_its_stream_is_unknown_and_the_board_reset(
    far: Far, board: ArcOne, fault: str, soon: Any
) -> None:
    resets = far.control.status()["resets"]
    far.control.inject(fault, "ENDURANCE")
    with pytest.raises(UnknownOutcomeError, match="charge each cell with 4 pulses"):
        board.endurance(ALL[:2], Endurance(1.0, -1.0, 1e-6, 1e-6, 2))
    assert far.control.status()["resets"] > resets
    assert soon(lambda: not far.control.status()["busy"]), (
        "the board is still busy with the new session's settings"
    )
    board.execute(read(ALL), 1)


# As a bench

BENCH = """
[chip]
id = "a1"
tiles = 1
rows = 32
columns = 32
cell = "1R"

[driver]
name = "arc-one"

[limits]
bl_v = 4.0
sl_v = 4.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.0
half_select_v = 4.0
read_v = 0.25
current_a = 1e-3
energy_j = 1e-4
width_s = 1e-2
pulses_per_cell = 100000

[simulation]
device = "paper"
transport = "TRANSPORT"

[simulation.timing]
link_s = 5e-3
"""


@pytest.mark.parametrize("transport", ["socket", "pty"])
def test_a_whole_map_is_one_job_of_a_bench_and_pulses_go_through_either_transport(
    tmp_path: Path, transport: str
) -> None:
    (tmp_path / "bench.toml").write_text(BENCH.replace("TRANSPORT", transport), encoding="utf-8")
    with Bench.open(tmp_path / "bench.toml") as bench:
        assert bench.far_side is not None
        control = BoardControl(bench.far_side.control)
        bench.read_map(bench.cells(rows=(0, 0)))
        before, turns, started = control.status(), bench.driver.transactions, bench.driver.now_s()
        bench.read_map()
        after = control.status()
        assert bench.driver.transactions == turns + 1
        assert after["turns"] == before["turns"] + 1
        took = bench.driver.now_s() - started
        # One turn, four lines and one behind, 11 bits a byte, and 50 samples of each cell.
        needed = 5e-3 + 5e-3 + 4096 * 11 / 921600 + 1024 * (50 * 10e-6 + 10e-6)
        assert needed <= took <= 1.05 * needed
        ramp = sweep(
            bench.cells(),
            "bl",
            [3.0, 3.6],
            width_s=1e-6,
            read=READ,
            stop=Stop(above_s=2e-5),
            unselected=Scheme.HALF,
        )
        result = bench.apply(ramp)
        np.testing.assert_array_equal(result.pulses, control.pulses().ravel())
        assert (result.last_s > 2e-5).mean() > 0.5
        control.close()
