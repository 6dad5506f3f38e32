"""`rram-hil board-test`: a sound board keeps every rule; one that breaks a rule is found out by
that rule.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from boards import GEOMETRY, LIMITS

from rram_hil import cli
from rram_hil.array import Apply, Geometry
from rram_hil.drivers.board_test import CELL_BYTES, REPLY_BYTES, RULES, Rule, examine
from rram_hil.drivers.simulated import test_chip_board as simulated
from rram_hil.drivers.simulated.board.codec import RefusalError
from rram_hil.errors import ConfigError, LinkError
from rram_hil.hardware.examination import Drive, Outcome, Port, Verdict
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

READS = Drive(cells=(0, 5), read_v=0.1, gate_v=2.0, pulse_v=0.6)


@pytest.fixture
def serve() -> Iterator[Callable[[], Port]]:
    """A board in this process, so that a test can break it."""
    boards: list[simulated.Board] = []

    def begin(geometry: Geometry = GEOMETRY, **simulation: Any) -> Port:
        chip = SimulatedChip(
            geometry,
            Simulation(**{"pace": 1.0, "read_noise": False, **simulation}),
            read_v=LIMITS.read_v,
            chip_id="c1",
        )
        link = simulated.SocketLink()
        boards.append(simulated.Board(link, chip, LIMITS))
        threading.Thread(target=boards[-1].serve, daemon=True).start()
        return Port(link.resource, silence_s=0.6)

    yield begin
    for board in boards:
        board.close()


def _found(port: Port, text: str, drive: Drive = READS) -> Outcome:
    """The outcome of the rule of this text, or of the one whose text has this in it."""
    exact = [rule for rule in RULES if rule.text == text]
    (rule,) = exact or [rule for rule in RULES if text in rule.text]
    *_, outcome = examine(port, drive, (RULES[0], rule))
    return outcome


@pytest.mark.long
def test_a_sound_board_keeps_every_rule(serve: Callable[[], Port]) -> None:
    found = list(examine(serve(), READS))
    assert {one.verdict for one in found} == {Verdict.KEPT}, [
        one for one in found if one.verdict is not Verdict.KEPT
    ]


def test_no_line_is_driven_unless_cells_are_given(
    serve: Callable[[], Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    parse = simulated.parse_operation

    def noted(command: int, payload: bytes, *rest: Any) -> Any:
        operation = parse(command, payload, *rest)
        asked.append(type(operation).__name__)
        return operation

    monkeypatch.setattr(simulated, "parse_operation", noted)
    quick = [r for r in RULES if r.section != "2" and "ends" not in r.text]
    found = list(examine(serve(), Drive(), quick))
    assert set(asked) == {"Wait"}
    assert sum(one.verdict is Verdict.NOT_ASKED for one in found) == 8
    assert not any(one.verdict is Verdict.BROKEN for one in found)


def _no_limits(board: simulated.Board, *_: object) -> None:
    """Checks nothing."""


def _stays_armed(self: simulated.Board, payload: bytes) -> bytes:
    armed = self._armed
    reply = SET_LIMITS(self, payload)
    self._armed = armed
    return reply


def _forgets(self: simulated.Board, request: Any, payload: bytes) -> None:
    self._kept, self._last = None, 0
    OPERATION(self, request, payload)


def _takes_all(self: simulated.Board, item: Any) -> None:
    if not isinstance(item, simulated.Damaged):
        TAKE(self, item)


def _obeys_anybody(self: simulated.Board, request: Any, payload: bytes) -> None:
    if request.command in simulated.COMMANDS:
        MESSAGE(self, request, payload)


def _drives_a_body_armed(self: simulated.Board, payload: bytes) -> bytes:
    armed = self._armed
    reply = SET_BODY_LIMITS(self, payload)
    self._armed = armed
    return reply


SET_BODY_LIMITS = simulated.Board._set_body_limits
SET_LIMITS, OPERATION = simulated.Board._set_limits, simulated.Board._operation
TAKE, MESSAGE = simulated.Board._take, simulated.Board._message


@pytest.mark.parametrize(
    ("method", "broken", "rule", "told"),
    [
        ("_check", _no_limits, "volts beyond the limits", "as if it were right"),
        ("_set_limits", _stays_armed, "setting limits disarms", "stays armed"),
        ("_set_body_limits", _drives_a_body_armed, "limits of the body", "stays armed"),
        ("_check", _no_limits, "a body beyond its limits", "as if it were right"),
        ("_operation", _forgets, "carried out once", "instead of|another reply|right"),
        ("_take", _takes_all, "damaged payload", "nothing came"),
        ("_message", _obeys_anybody, "an unknown type", "not answered"),
        ("_tick", _no_limits, "every 250 ms", "silent for"),
        ("_tick", _no_limits, "the watchdog ends", "no error"),
    ],
)
def test_a_broken_rule_is_found(
    method: str,
    broken: Callable[..., object],
    rule: str,
    told: str,
    serve: Callable[[], Port],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulated.Board, method, broken)
    outcome = _found(serve(), rule)
    assert outcome.verdict is Verdict.BROKEN
    assert any(part in outcome.told for part in told.split("|"))


def test_what_a_board_has_not_is_left_out(
    serve: Callable[..., Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _found(serve(pace=0.0), "every 250 ms").verdict is Verdict.LEFT_OUT
    plain = serve(step_extras=[])
    for text in ("limits of the body", "a body beyond its limits", "beside its lines is done"):
        assert _found(plain, text).verdict is Verdict.LEFT_OUT
    refusing = RefusalError("HARDWARE", "the gate driver is missing")

    def refuse(*_: object) -> None:
        raise refusing

    monkeypatch.setattr(simulated.Board, "_plain", refuse)
    with pytest.raises(LinkError, match="the gate driver is missing"):
        list(examine(serve(), Drive()))


def test_a_board_with_pmos_selectors_reads_beside_its_lines(serve: Callable[..., Port]) -> None:
    port = serve(geometry=replace(GEOMETRY, selector="pmos"))
    outcome = _found(port, "beside its lines is done", Drive((3,), gate_v=-2.5))
    assert outcome.verdict is Verdict.KEPT, outcome
    assert "uS, gate -2.5e-12 A" in outcome.told


def _answering(answer: Callable[[bytes], bytes]) -> Port:
    """A port where something else than a board answers the first thing that it hears."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, listener, contextlib.suppress(OSError):
            while heard := connection.recv(4096):
                connection.sendall(answer(heard))

    threading.Thread(target=serve, daemon=True).start()
    return Port(f"socket://127.0.0.1:{listener.getsockname()[1]}", silence_s=0.3)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda heard: b"", "it is silent"),
        (lambda heard: b"KEITHLEY,MODEL 2400,1,2\n", "it says b'KEITHLEY"),
        (lambda heard: heard, "nothing answers IDENTIFY"),
        (lambda heard: bytes(b ^ 0x5A for b in heard), "is --baud right"),
        (lambda heard: heard[:20], "nothing answers IDENTIFY"),
    ],
    ids=["silent", "an instrument", "an echo", "wrong baud", "half"],
)
def test_what_is_no_board_is_told_with_its_port_and_what_it_says(
    answer: Callable[[bytes], bytes], told: str
) -> None:
    port = _answering(answer)
    with pytest.raises(LinkError) as error:
        list(examine(port, Drive()))
    assert port.address in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("drive", "told"),
    [
        (Drive((0,), read_v=math.nan), "read_v: nan is no number"),
        (Drive((0,), pulse_v=math.inf), "pulse_v: inf is no number"),
        (Drive((0,), gate_v=math.nan), "gate_v: nan is no number"),
        (Drive((0,), width_s=0.0), "width_s: 0 is wrong"),
        (Drive((0,), read_v=0.0), "read_v: 0 reads nothing"),
        (Drive((10**9,)), "cell 1000000000 is not on this chip: 0 to"),
    ],
)
def test_what_cannot_be_driven_is_refused_and_drives_nothing(
    drive: Drive, told: str, serve: Callable[[], Port]
) -> None:
    with pytest.raises(ConfigError, match=told):
        list(examine(serve(), drive))


def test_a_cell_given_twice_is_read_once(serve: Callable[[], Port]) -> None:
    outcome = _found(serve(), "cells are read", Drive((3, 3), gate_v=2.0))
    assert outcome.verdict is Verdict.KEPT
    assert outcome.told.count("uS") == 1


def test_what_the_boards_limits_forbid_is_not_sent(serve: Callable[[], Port]) -> None:
    outcome = _found(serve(), "one pulse", Drive((0,), gate_v=2.0, pulse_v=50.0))
    assert outcome.verdict is Verdict.NOT_ASKED
    assert "limits in force forbid it" in outcome.told


def test_the_smallest_board_reads_and_pulses(
    serve: Callable[[], Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = simulated.parse_operation

    def one_step(command: int, payload: bytes, *rest: Any) -> Any:
        operation = parse(command, payload, *rest)
        if isinstance(operation, Apply) and (len(operation.steps), len(operation.cells)) != (1, 1):
            raise RefusalError("BAD_REQUEST", "one step on one cell")
        return operation

    monkeypatch.setattr(simulated, "parse_operation", one_step)
    drive = Drive((5,), gate_v=2.0, pulse_v=0.6)
    assert _found(serve(), "cells are read", drive).verdict is Verdict.KEPT
    assert _found(serve(), "one pulse", drive).verdict is Verdict.KEPT


def test_more_cells_than_fit_a_message_are_a_contradiction(
    serve: Callable[[], Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "LARGEST_MESSAGE", 64)
    outcome = _found(serve(), "all cells are read")
    assert outcome.verdict is Verdict.BROKEN
    assert "beyond its max_message of 64" in outcome.told


def test_the_reply_of_a_large_read_is_as_long_as_it_is_counted(serve: Callable[[], Port]) -> None:
    outcome = _found(serve(), "all cells are read")
    cells = int(outcome.told.split()[0])
    assert f"{REPLY_BYTES + CELL_BYTES * cells} bytes of reply" in outcome.told


def _waits(board: Any) -> None:
    """Something that takes longer than the longest silence; the board tells that it works."""
    board.armed()
    sent, _ = board.wait(1.5)
    assert board.reply(sent) is not None


def test_a_board_that_tells_that_it_works_is_not_silent(serve: Callable[[], Port]) -> None:
    *_, outcome = examine(serve(), Drive(), (RULES[0], Rule("it works long", "2", _waits)))
    assert outcome.verdict is Verdict.KEPT


def _goes(board: Any) -> None:
    board.link.close()
    board.status()


def test_a_board_that_goes_is_told_with_all_that_was_seen_before(
    serve: Callable[[], Port],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = (RULES[0], Rule("it stays", "2", _goes), RULES[17])
    monkeypatch.setattr("rram_hil.drivers.board_test.examine.__defaults__", (rules,))
    with pytest.raises(SystemExit) as ended:
        cli.main(["board-test", serve().address, "--json"])
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert "OUTPUTS MAY BE ON" in told.err
    assert [row["verdict"] for row in json.loads(told.out)] == ["kept", "broken"]
    assert "the rules behind this one were not looked at" in json.loads(told.out)[1]["told"]


def test_a_stop_by_the_operator_switches_off_and_closes_the_port(
    serve: Callable[[], Port],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Any] = []

    def stops(board: Any) -> None:
        seen.append(board)
        board.armed()
        board.wait(30.0)
        raise KeyboardInterrupt

    rules = (RULES[0], Rule("it is stopped", "2", stops))
    monkeypatch.setattr("rram_hil.drivers.board_test.examine.__defaults__", (rules,))
    port = serve()
    with pytest.raises(SystemExit) as ended:
        cli.main(["board-test", port.address])
    assert ended.value.code == 130
    assert "IDENTIFY is answered" in capsys.readouterr().out
    assert not seen[0].link.is_open
    *_, outcome = examine(port, Drive(), (RULES[0], Rule("now", "5", _is_idle)))
    assert outcome.verdict is Verdict.KEPT, outcome


def _is_idle(board: Any) -> None:
    status = board.status()
    assert (status.busy, status.armed, status.outputs_on) == (False, False, False)


def test_outputs_that_are_not_confirmed_off_at_the_end_are_told(
    serve: Callable[[], Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RefusalError("HARDWARE", "the gate driver hangs")

    seen = examine(serve(), Drive(), RULES[:1])
    assert next(seen).verdict is Verdict.KEPT
    monkeypatch.setattr(simulated.Board, "_plain", refuse)
    with pytest.raises(LinkError, match=r"the gate driver hangs.*OUTPUTS MAY BE ON") as error:
        next(seen)
    assert error.value.outputs_off is False


def test_the_command_says_what_it_saw_and_exits_by_it(
    serve: Callable[[], Port],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "rram_hil.drivers.board_test.examine.__defaults__", ((RULES[0], RULES[14], RULES[17]),)
    )
    port = serve()
    with pytest.raises(SystemExit) as ended:
        cli.main(["board-test", port.address])
    assert ended.value.code in (0, None)
    assert "The board keeps the protocol." in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        cli.main(["board-test", port.address, "--pulse-v", "1"])
    assert refused.value.code == 2
    assert "give the cell" in capsys.readouterr().err
