"""Every fault of link and board: a safe retry or a typed error with outputs off, and never a pulse
more than asked for.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Multiply,
    Program,
    PulseTrain,
    Ramp,
    Step,
    WriteWords,
    pulse,
    read,
    read_step,
)
from rram_hil.errors import BenchError, LinkError, UnknownOutcomeError

GEOMETRY = Geometry(2, 16, 24)
ALL = Cells.all(GEOMETRY)
SOME = ALL[100:130]
SET = pulse(SOME, bl_v=1.0, wl_v=2.0, width_s=1e-7, read=read_step())
VERIFY = Program(
    SOME,
    np.full(30, 5e-5),
    np.full(30, 6e-5),
    PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(2.2, 2.2), 100e-9),
    PulseTrain(Ramp(1.0, 3.0, 0.1), Ramp(3.5, 3.5), 200e-9),
    read_step(0.2, 3.0, 1e-6),
    max_pulses=5,
)
HARMLESS = [
    "drop-request",
    "corrupt-request",
    "drop-reply",
    "corrupt-reply",
    "half-reply",
    "garbage",
    "duplicate-reply",
]
BROKEN = ["disconnect-request", "disconnect-reply"]


@pytest.fixture(scope="module")
def boards(start):
    """One board a transport, started when first asked for."""
    return cache(lambda transport: start(transport=transport))


@pytest.fixture
def bench(boards):
    return boards("socket")


@pytest.fixture(params=["socket", "pty"])
def each_bench(boards, request):
    return boards(request.param)


@pytest.fixture
def wire(bench):
    return bench.driver()


def next_number(wire: Any) -> int:
    return int(wire.last_number()) + 1


def inject(bench: Any, fault: str, on: str, count: int = 1) -> None:
    bench.control.inject(fault, "" if fault == "corrupt-request" else on, count=count)


@pytest.mark.parametrize("fault", HARMLESS + BROKEN)
def test_a_pulse_is_given_once_and_its_result_arrives(each_bench, fault):
    bench, wire = each_bench, each_bench.driver()
    number, before = next_number(wire), bench.control.pulses()
    inject(bench, fault, "APPLY")
    result = wire.execute(SET, number)
    assert (result.pulses == 1).all()
    given = bench.control.pulses() - before
    assert given.sum() == len(SOME)
    assert given.max() == 1
    assert bench.control.status()["waiting_faults"] == 0
    assert not bench.control.status()["outputs_on"]


@pytest.mark.parametrize("fault", ["drop-reply", "corrupt-reply", "duplicate-reply"])
def test_a_write_verify_is_run_once_and_its_result_arrives(bench, wire, fault):
    number, before = next_number(wire), bench.control.pulses()
    executions = bench.control.status()["executions"]
    bench.control.inject(fault, "PROGRAM")
    result = wire.execute(VERIFY, number)
    assert bench.control.status()["executions"] == executions + 1
    np.testing.assert_array_equal((bench.control.pulses() - before).ravel()[100:130], result.pulses)


@pytest.mark.parametrize("fault", [f for f in HARMLESS if not f.endswith("-request")])
def test_every_command_survives_a_bad_link(each_bench, fault):
    bench = each_bench
    wire = bench.driver(arm=False)
    some, others = (
        ("IDENTIFY", "LIMITS", "SAFE_OFF", "EXECUTED"),
        ("STATUS", "ARM", "WATCHDOG", "SELF_TEST"),
    )
    for command in some if bench.far.settings["port"].startswith("socket") else others:
        bench.control.inject(fault, command)
    wire.connect()
    wire.arm()
    assert wire.status().armed
    assert wire.executed(next_number(wire), SOME).sum() == 0
    wire.self_test()
    wire.safe_off()
    assert bench.control.status()["waiting_faults"] == 0
    assert not bench.control.status()["armed"]


def test_a_late_reply_is_not_taken_for_the_next_one(bench, wire):
    number = next_number(wire)
    bench.control.inject("delay-reply", "APPLY", seconds=0.5)
    first = wire.execute(SET, number)
    second = wire.execute(read(SOME), number + 1)
    assert first.span.started_s < second.span.started_s
    assert second.pulses.sum() == 0
    assert wire.status().last == number + 1


def test_a_link_that_stays_bad_is_given_up_with_an_unknown_outcome(bench):
    wire = bench.driver(retries=0)
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject("drop-reply", "APPLY", count=20)
    with pytest.raises(UnknownOutcomeError, match="no sound reply to operation"):
        wire.execute(SET, number)
    assert (bench.control.pulses() - before).max() == 1
    bench.control.clear()
    assert (wire.executed(number, SOME) == 1).all()


def test_a_read_over_a_link_that_stays_bad_is_a_link_error(bench):
    wire = bench.driver(retries=0)
    number = next_number(wire)
    bench.control.inject("drop-reply", "APPLY", count=20)
    with pytest.raises(LinkError, match="no pulse") as error:
        wire.execute(read(SOME), number)
    assert not isinstance(error.value, UnknownOutcomeError)


def test_a_board_that_never_finishes_is_stopped(bench):
    wire = bench.driver(patience_s=0.6)
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject("stuck", "APPLY")
    with pytest.raises(UnknownOutcomeError, match=r"still busy .* outputs are off"):
        wire.execute(SET, number)
    assert not bench.control.status()["outputs_on"]
    assert (bench.control.pulses() == before).all()
    assert wire.executed(number, SOME).sum() == 0


def test_a_board_that_never_finishes_is_aborted(bench):
    wire = bench.driver(patience_s=600.0)
    bench.control.inject("stuck", "APPLY")
    threading.Timer(0.2, wire.cancel.set).start()
    with pytest.raises(BenchError, match="outputs are off"):
        wire.execute(SET, next_number(wire))


def test_a_reboot_before_the_operation_is_noticed_and_it_runs_once(bench, wire):
    number, before, boot = next_number(wire), bench.control.pulses(), bench.control.status()["boot"]
    bench.control.inject("reboot-before", "APPLY")
    assert (wire.execute(SET, number).pulses == 1).all()
    assert (bench.control.pulses() - before).sum() == len(SOME)
    assert bench.control.status()["boot"] != boot
    assert wire.status().armed


@pytest.mark.parametrize("drop_link", [False, True])
def test_a_reboot_between_operations_is_noticed_and_the_board_armed_again(bench, wire, drop_link):
    number = next_number(wire)
    wire.execute(SET, number)
    bench.control.reboot(drop_link=drop_link)
    assert (wire.execute(SET, number + 1).pulses == 1).all()
    assert wire.last_number() == number + 1
    bench.control.reboot(drop_link=drop_link)
    wire.safe_off()
    assert not bench.control.status()["armed"]


@pytest.mark.parametrize(("fault", "done"), [("reboot-during", 15), ("reboot-after", 30)])
def test_a_reboot_inside_an_operation_leaves_an_unknown_outcome_that_the_records_tell(
    each_bench, fault, done
):
    bench, wire = each_bench, each_bench.driver()
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject(fault, "APPLY")
    with pytest.raises(
        UnknownOutcomeError, match=f"rebooted during operation {number} .* given {done} pulses"
    ):
        wire.execute(SET, number)
    given = (bench.control.pulses() - before).ravel()[100:130]
    assert given.sum() == done
    np.testing.assert_array_equal(wire.executed(number, SOME), given)
    assert wire.last_number() == number
    with pytest.raises(UnknownOutcomeError, match="had given"):
        wire.execute(SET, number)
    assert (bench.control.pulses() - before).sum() == done
    assert not bench.control.status()["outputs_on"]
    wire.arm()
    wire.execute(read(SOME), number + 1)


def test_a_reboot_is_not_forgotten_when_the_link_fails_again_while_asking(bench):
    wire = bench.driver(retries=0)
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject("reboot-after", "APPLY")
    bench.control.inject("drop-reply", "EXECUTED")
    with pytest.raises(UnknownOutcomeError, match=f"rebooted during operation {number}"):
        wire.execute(SET, number)
    assert (bench.control.pulses() - before).max() == 1


def test_a_reboot_inside_a_write_verify_gives_no_cell_more_than_its_budget(bench, wire):
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject("reboot-during", "PROGRAM")
    with pytest.raises(UnknownOutcomeError):
        wire.execute(VERIFY, number)
    given = (bench.control.pulses() - before).ravel()[100:130]
    assert given.max() <= 5
    np.testing.assert_array_equal(wire.executed(number, SOME), given)


def test_what_gives_no_pulse_is_repeated_after_a_reboot(bench, wire):
    number, before = next_number(wire), bench.control.pulses()
    bench.control.inject("reboot-during", "APPLY")
    assert np.isfinite(wire.execute(read(SOME), number).current_a).all()
    bench.control.inject("reboot-after", "WRITE_WORDS")
    assert wire.execute(WriteWords(SOME, np.arange(30), clear=True), number + 1).written == 30
    bench.control.inject("reboot-after", "MULTIPLY")
    codes = np.ones((2, 16), dtype=np.int16)
    sums = wire.execute(Multiply(0, 0, 0, 24, codes, words=True), number + 2).word_sums
    assert sums is not None
    assert sums[0].sum() == np.arange(30).sum()
    assert (bench.control.pulses() == before).all()


def test_faults_at_random_never_give_a_pulse_too_many(each_bench):
    bench, wire = each_bench, each_bench.driver()
    rng = np.random.default_rng(11)
    asked = bench.control.pulses().ravel().astype(np.int64)
    faults = [*HARMLESS, *BROKEN, "reboot-before", "reboot-during", "reboot-after"]
    number = next_number(wire)
    for k in range(12):
        cells = ALL[np.sort(rng.choice(len(ALL), 5, replace=False))]
        operation = Apply(cells, (Step(1.0, 0.0, 2.0, 1e-7), read_step()), repeat=2)
        before = bench.control.pulses().ravel()[cells.index(GEOMETRY)]
        inject(bench, str(rng.choice(faults)), "APPLY")
        asked[cells.index(GEOMETRY)] += 2
        try:
            wire.execute(operation, number + k)
        except UnknownOutcomeError:
            wire.arm()
            given = bench.control.pulses().ravel()[cells.index(GEOMETRY)] - before
            np.testing.assert_array_equal(wire.executed(number + k, cells), given)
            asked[cells.index(GEOMETRY)] = before + given
    np.testing.assert_array_equal(bench.control.pulses().ravel(), asked)


def test_two_threads_on_one_driver_each_get_their_own_answers(bench, wire):
    number = next_number(wire)
    wrong: list[int] = []

    def ask() -> None:
        for _ in range(60):
            if wire.executed(number, SOME[:3]).size != 3:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for k in range(20):
        if len(wire.execute(read(SOME), number + k).pulses) != 30:
            wrong.append(2)
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("fault", [*BROKEN, *HARMLESS, "left-over"])
def test_a_fault_of_the_first_identify_is_retried(bench, fault):
    wire = bench.driver(arm=False)
    bench.control.inject(fault, "" if fault == "corrupt-request" else "IDENTIFY")
    assert wire.connect().chip == "c1"
    assert bench.control.status()["waiting_faults"] == 0
    wire.close()


@pytest.mark.long
@pytest.mark.parametrize("fault", ["disconnect-reply", "disconnect-request", "drop-request"])
def test_no_private_error_reaches_the_user(bench, fault):
    wire = bench.driver(arm=False, retries=0)
    bench.control.inject(fault, "", count=200)
    with pytest.raises(LinkError) as caught:
        wire.connect()
    assert type(caught.value) is LinkError
    bench.control.clear()
    wire.connect()
    wire.arm()
    bench.control.inject(fault, "", count=200)
    for act in (
        wire.safe_off,
        wire.status,
        wire.self_test,
        lambda: wire.last_numbers(SOME),
        lambda: wire.execute(read(SOME), 10**6),
        lambda: wire.execute(SET, 10**6),
    ):
        with pytest.raises(BenchError) as caught:
            act()
        assert type(caught.value) in (LinkError, UnknownOutcomeError)
    bench.control.clear()
    wire.safe_off()
    wire.close()
