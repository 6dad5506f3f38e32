"""`rram-hil board-test`: a sound board keeps every rule; one that breaks a rule is found out by
that rule.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from boards import GEOMETRY, LIMITS

from rram_hil import cli
from rram_hil.drivers.board_test import RULES, examine
from rram_hil.drivers.simulated import test_chip_board as simulated
from rram_hil.drivers.simulated.board.codec import RefusalError
from rram_hil.errors import LinkError
from rram_hil.hardware.examination import Drive, Outcome, Port, Verdict
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

READS = Drive(cells=(0, 5), read_v=0.1, gate_v=2.0, pulse_v=0.6)


@pytest.fixture
def serve() -> Iterator[Callable[[], Port]]:
    """A board in this process, so that a test can break it."""
    boards: list[simulated.Board] = []

    def begin(**simulation: Any) -> Port:
        chip = SimulatedChip(
            GEOMETRY,
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
    """The outcome of the one rule whose text has this in it."""
    (rule,) = [rule for rule in RULES if text in rule.text]
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
    assert sum(one.verdict is Verdict.NOT_ASKED for one in found) == 6
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


SET_LIMITS, OPERATION = simulated.Board._set_limits, simulated.Board._operation
TAKE, MESSAGE = simulated.Board._take, simulated.Board._message


@pytest.mark.parametrize(
    ("method", "broken", "rule", "told"),
    [
        ("_check", _no_limits, "volts beyond the limits", "as if it were right"),
        ("_set_limits", _stays_armed, "setting limits disarms", "stays armed"),
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
    refusing = RefusalError("HARDWARE", "the gate driver is missing")

    def refuse(*_: object) -> None:
        raise refusing

    monkeypatch.setattr(simulated.Board, "_plain", refuse)
    with pytest.raises(LinkError, match="the gate driver is missing"):
        list(examine(serve(), Drive()))


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
