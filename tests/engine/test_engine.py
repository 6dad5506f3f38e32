from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Result,
    Scheme,
    SoFar,
    Status,
    Step,
    Wait,
    WriteWords,
    pulse,
    read,
    read_step,
)
from rram_hil.engine.engine import Engine, Watcher
from rram_hil.engine.protocol import Compute, Message, Plan, Progress, Save
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    ImpossibleResultError,
    LimitError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.signals import stopping
from rram_hil.storage.codec import result_from
from rram_hil.storage.frames import Aside, Computed, Failed, Intent, Note, Outcome, Saved

Lab = Any


def a_pulse(cells: Cells, repeat: int = 1) -> Apply:
    return replace(pulse(cells, bl_v=1.5, wl_v=2.0, width_s=1e-7), repeat=repeat)


def a_program(cells: Cells, budget: int = 5) -> Program:
    train = PulseTrain(Ramp(1.5, 2.5, 0.1), Ramp(2.5, 2.5), 1e-7)
    return Program(cells, 30e-6, 60e-6, train, train, read_step(), budget)


def half_then(lab: Lab, error: BenchError) -> Callable[[Operation, int], Result | None]:
    """The first half of the cells is reached, then the link is lost."""

    def instead(operation: Operation, number: int) -> Result | None:
        assert isinstance(operation, Apply | Program)
        lab.chip.execute(operation.part(slice(0, len(operation.cells) // 2)), number)
        raise error

    return instead


def test_a_pulse_is_charged_and_announced_before_and_kept_after(lab: Lab) -> None:
    result = lab.engine().do(replace(a_program(lab.cells, budget=50), low_s=0.0))
    assert np.all(result.pulses < 50)
    assert lab.events == [
        "ledger charge",
        "journal Intent",
        "journal sync",
        "driver Program",
        "journal Outcome",
        "journal sync",
        "ledger correct",
    ]
    intent, outcome = lab.frames()[1:]
    assert isinstance(intent, Intent)
    assert isinstance(outcome, Outcome)
    assert intent.charge.tolist() == [50] * 6
    assert intent.operation == outcome.operation == lab.chip.last_number
    np.testing.assert_array_equal(lab.ledger_counts(), lab.chip.pulses)


def test_a_read_is_kept_without_waiting_for_the_disk(lab: Lab) -> None:
    lab.engine().do(read(lab.cells))
    assert lab.events == ["journal Intent", "driver Apply", "journal Outcome"]


def test_a_refused_operation_moves_nothing_and_charges_nothing(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(limits={"pulses_per_cell": 10})
    engine = lab.engine()
    for refused, error in (
        (pulse(lab.cells, bl_v=np.linspace(1, 9, 6), wl_v=2.0, width_s=1e-7), LimitError),
        (pulse(lab.cells, bl_v=float("nan"), wl_v=2.0, width_s=1e-7), LimitError),
        (a_pulse(lab.cells, repeat=11), LimitError),
        (a_program(lab.cells, budget=11), LimitError),
        (replace(a_program(lab.cells), on_board="never", max_pulses=11), LimitError),
        (a_pulse(Cells.of([(0, 0, 0), (0, 2, 0)])), ConfigError),
        (Multiply(0, 0, 0, 1, np.ones((1, 1), int), input_bits=12), ConfigError),
    ):
        with pytest.raises(error):
            engine.do(refused)
    # What the ledger refuses is kept, so that a resumed run is refused again; nothing else happens.
    assert set(lab.events) <= {"journal Failed", "journal sync"}
    assert not lab.chip.pulses.any()
    assert not lab.ledger_counts().any()


def test_a_worn_cell_is_named_with_its_count_and_can_still_be_read(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(limits={"pulses_per_cell": 3})
    engine = lab.engine()
    engine.do(a_pulse(Cells.of([(0, 1, 2)]), repeat=2))
    with pytest.raises(LimitError, match=r"cell \(0, 1, 2\): 2 pulses so far .* limit of 3 pulses"):
        engine.do(a_pulse(lab.cells, repeat=2))
    engine.do(read(lab.cells, repeat=50))
    assert lab.chip.pulses.sum() == 2


def test_an_error_is_thrown_into_the_protocol_which_may_handle_it(lab: Lab) -> None:
    def careful() -> Plan[str]:
        try:
            yield pulse(lab.cells, bl_v=9.0, wl_v=2.0, width_s=1e-7)
        except LimitError as error:
            yield a_pulse(lab.cells)
            return str(error)
        return "not refused"

    def careless() -> Plan[None]:
        yield pulse(lab.cells, bl_v=9.0, wl_v=2.0, width_s=1e-7)
        pytest.fail("went on after a refusal")

    engine = lab.engine()
    assert "BL 9 V" in engine.run(careful())
    with pytest.raises(LimitError, match="BL 9 V"):
        engine.run(careless())
    assert lab.chip.pulses.tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_a_protocol_is_closed_when_it_is_left(lab: Lab) -> None:
    left = []

    def plan() -> Plan[None]:
        try:
            yield read(lab.cells)
            yield pulse(lab.cells, bl_v=9.0, wl_v=2.0, width_s=1e-7)
        finally:
            left.append(True)

    with pytest.raises(LimitError):
        lab.engine().run(plan())
    assert left == [True]


def test_saves_and_progress_are_answered_with_none(lab: Lab) -> None:
    seen: list[tuple[float, float, str]] = []

    class Seeing(Watcher):
        def progress(self, done: float, total: float, text: str) -> None:
            seen.append((done, total, text))

    def plan() -> Plan[list[object]]:
        first = yield Progress(1, 2, "half")
        second = yield Save("answer", np.array(42), (), "1", {"why": "test"})
        return [first, second]

    engine = lab.engine()
    engine.watcher = Seeing()
    assert engine.run(plan()) == [None, None]
    assert seen == [(1, 2, "half")]
    saved = lab.frames()[-1]
    assert isinstance(saved, Saved)
    assert (saved.name, int(saved.values), saved.attrs["why"]) == ("answer", 42, "test")


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("make", [a_pulse, a_program])
def test_an_unknown_outcome_is_told_to_the_protocol(lab: Lab, make: Any, counters: bool) -> None:
    lab.counters = counters
    lab.instead = half_then(lab, UnknownOutcomeError("the cable fell out"))

    def plan() -> Plan[Any]:
        return (yield make(lab.cells))

    result = lab.engine().run(plan())
    worst = 5 if make is a_program else 1
    assert result.interrupted
    assert result.away_s == 0.0
    assert np.all(result.status == Status.UNKNOWN)
    if counters:
        np.testing.assert_array_equal(result.pulses, lab.chip.pulses.ravel())
    else:
        assert result.pulses.tolist() == [worst] * 6
    np.testing.assert_array_equal(lab.ledger_counts().ravel(), result.pulses)
    assert np.all(lab.ledger_counts() >= lab.chip.pulses)


def test_what_a_driver_was_told_before_the_link_failed_is_kept_and_the_rest_is_said(
    lab: Lab,
) -> None:
    def cut(operation: Operation, number: int) -> Result | None:
        assert isinstance(operation, Apply)
        told = lab.chip.execute(operation, number)
        assert isinstance(told, ApplyResult)
        told.status[2:], told.conductance_s[2:], told.current_a[2:] = Status.UNKNOWN, np.nan, np.nan
        error = UnknownOutcomeError("the cable fell out")
        in_doubt = np.array([0, 0, 1, 1, 0, 0])
        error.so_far = SoFar(replace(told, pulses=np.array([1, 1, 0, 0, 0, 0])), in_doubt)
        raise error

    lab.instead = cut
    result = lab.engine().do(Apply(lab.cells, (*a_pulse(lab.cells).steps, read_step())))
    assert result.interrupted
    assert result.pulses.tolist() == lab.ledger_counts().ravel().tolist() == [1, 1, 1, 1, 0, 0]
    assert np.all(np.isfinite(result.last_s[:2]))
    assert np.all(result.status[2:] == Status.UNKNOWN)
    [note] = [frame for frame in lab.frames() if isinstance(frame, Note)]
    assert note.event == "interrupted"
    assert "2 of 6 cells are charged with 2 pulses that may not have been given" in note.text


def test_a_cell_whose_record_is_gone_is_taken_at_its_worst(lab: Lab) -> None:
    def instead(operation: Operation, number: int) -> Result | None:
        lab.chip.execute(operation, number)
        lab.chip.execute(read(lab.cells[2:]), number + 5)
        raise UnknownOutcomeError("lost")

    lab.instead = instead
    result = lab.engine().do(a_program(lab.cells, budget=7))
    assert result.pulses[2:].tolist() == [7] * 4
    assert result.pulses[:2].tolist() == lab.chip.pulses.ravel()[:2].tolist()


def test_a_lost_multiply_ends_the_run_and_may_be_repeated(lab: Lab) -> None:
    def lost(operation: Operation, number: int) -> Result | None:
        raise UnknownOutcomeError("lost")

    lab.instead = lost
    with pytest.raises(UnknownOutcomeError, match="--resume"):
        lab.engine().do(Multiply(0, 0, 0, 3, np.ones((1, 2), int)))
    lab.instead = lambda operation, number: None
    result = lab.engine(resume=True).do(Multiply(0, 0, 0, 3, np.ones((1, 2), int)))
    assert result.codes.shape == (1, 3)


def test_pulses_beyond_the_charge_are_counted_too(lab: Lab) -> None:
    def too_many(operation: Operation, number: int) -> Result | None:
        result = lab.chip.execute(operation, number)
        lab.chip.execute(operation, number + 1)
        return replace(result, pulses=result.pulses * 2)

    lab.instead = too_many
    with pytest.raises(ImpossibleResultError, match="2 pulses, but its steps give 1"):
        lab.engine().do(a_pulse(lab.cells))
    np.testing.assert_array_equal(lab.ledger_counts(), lab.chip.pulses)


def test_a_computation_may_read_and_multiply_but_not_stress(lab: Lab) -> None:
    def harmless(do: Callable[[Operation], Result]) -> dict[str, np.ndarray]:
        do(WriteWords(lab.cells, np.arange(6)))
        result = do(read(lab.cells))
        do(Wait(1.0))
        return {
            "mean": np.array(result.conductance_s.mean()),
            "codes": do(Multiply(0, 0, 0, 3, np.ones((2, 2), int))).codes,
        }

    def harmful(do: Callable[[Operation], Result]) -> dict[str, np.ndarray]:
        do(a_pulse(lab.cells))
        return {}

    def plan(function: Any) -> Plan[Any]:
        return (yield Compute("c", function))

    engine = lab.engine()
    arrays = engine.run(plan(harmless))
    assert arrays["codes"].shape == (2, 3)
    frames = lab.frames()[1:]
    assert [type(f) for f in frames] == [Aside] * 4 + [Computed]
    with pytest.raises(ConfigError, match="would stress cells"):
        engine.run(plan(harmful))
    assert not lab.chip.pulses.any()


def test_what_an_abort_cut_short_is_not_taken_for_the_whole(lab: Lab) -> None:
    def stopped_after_two(operation: Operation, number: int) -> Result | None:
        assert isinstance(operation, Apply)
        if operation.label != aborted:
            return None
        part = lab.chip.execute(operation.part(slice(0, 2)), number)
        lab.driver.cancel.set()
        n, m = len(operation.cells), operation.measurements
        whole = ApplyResult(
            *(np.full((n, m), np.nan) for _ in range(2)),
            np.full((n, m), 6, np.uint8),
            np.full((n, m), np.nan),
            np.zeros(n, int),
            np.zeros(n, int),
        )
        for name in ("current_a", "conductance_s", "status", "pulses", "reads"):
            getattr(whole, name)[:2] = getattr(part, name)
        return whole

    def plan() -> Plan[list[ApplyResult]]:
        first = yield read(lab.cells)
        second = yield replace(a_pulse(lab.cells), label="pulse")
        return [first, second]

    lab.instead = stopped_after_two
    for label in ("read", "pulse"):
        aborted = label
        engine = lab.engine(resume=True)
        with pytest.raises(AbortedError):
            engine.run(plan())
    aborted = ""
    first, second = lab.engine(resume=True).run(plan())
    assert np.all(first.status == Status.OK)
    assert second.interrupted
    assert second.pulses.tolist() == [1, 1, 0, 0, 0, 0]
    np.testing.assert_array_equal(lab.ledger_counts(), lab.chip.pulses)


def test_an_abort_is_not_offered_to_the_protocol(lab: Lab) -> None:
    def stubborn() -> Plan[None]:
        while True:
            try:
                yield read(lab.cells)
                lab.driver.cancel.set()
            except BenchError:
                pytest.fail("the protocol could have gone on")

    with pytest.raises(AbortedError, match="outputs are off"):
        lab.engine().run(stubborn())


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("name", stopping())
@pytest.mark.parametrize("inside", ["driver", "protocol", "computation"])
def test_signals_abort_wherever_they_arrive(lab: Lab, name: signal.Signals, inside: str) -> None:
    def kill(*_: object) -> None:
        os.kill(os.getpid(), name)

    def in_driver(operation: Operation, number: int) -> Result | None:
        if inside == "driver":
            kill()
        return None

    lab.instead = in_driver
    reached: list[Message] = []

    def plan() -> Plan[None]:
        yield read(lab.cells)
        if inside == "protocol":
            kill()
        yield Compute("c", lambda do: kill() or {} if inside == "computation" else {})
        reached.append(Progress(1, 1))

    before = signal.getsignal(name)
    engine = lab.engine()
    with pytest.raises(AbortedError), engine.abortable():
        engine.run(plan())
    assert signal.getsignal(name) is before
    assert not reached
    assert engine.driver.cancel.is_set()


def test_operation_numbers_go_on_from_what_the_hardware_has_seen(lab: Lab) -> None:
    lab.chip.execute(read(lab.cells), 41)
    lab.engine().do(read(lab.cells))
    assert lab.chip.last_number == 42


def test_a_lost_link_ends_the_run_and_keeps_the_charge(lab: Lab) -> None:
    def lost(operation: Operation, number: int) -> Result | None:
        raise LinkError("gone")

    lab.instead = lost
    with pytest.raises(LinkError, match="gone"):
        lab.engine().do(a_pulse(lab.cells))
    assert np.all(lab.ledger_counts() == 1)
    intent, failed = lab.frames()[-2:]
    assert isinstance(intent, Intent)
    assert failed == Failed(intent.operation, "LinkError", "gone")


def test_results_in_the_journal_are_what_the_protocol_got(lab: Lab) -> None:
    engine: Engine = lab.engine()
    results = [
        engine.do(read(lab.cells)),
        engine.do(a_program(lab.cells)),
        engine.do(a_pulse(lab.cells)),
    ]
    kept = [result_from(f.record) for f in lab.frames() if isinstance(f, Outcome)]
    assert len(kept) == len(results)
    for a, b in zip(results, kept, strict=True):
        np.testing.assert_array_equal(a.pulses, b.pulses)
        np.testing.assert_array_equal(a.conductance_s, b.conductance_s)


@pytest.mark.parametrize("kind", [ConfigError, LimitError])
def test_what_the_driver_refuses_costs_no_pulses_of_a_cell_s_life(
    lab: Lab, kind: type[BenchError]
) -> None:
    engine = lab.engine()

    def refuse(operation: Operation, number: int) -> Result | None:
        raise kind("not on this bench")

    lab.instead = refuse
    with pytest.raises(kind, match="not on this bench"):
        engine.do(a_pulse(lab.cells))
    assert lab.ledger_counts().sum() == 0
    assert any(isinstance(frame, Failed) and frame.error == kind.__name__ for frame in lab.frames())


def test_an_error_after_the_driver_has_answered_keeps_the_pulses_charged(
    lab: Lab, mocker: Any
) -> None:
    engine = lab.engine()
    mocker.patch.object(
        engine.correction,
        "incoming",
        side_effect=ConfigError("a calibration that does not fit"),
        create=True,
    )
    with pytest.raises(ConfigError, match="does not fit"):
        engine.do(a_pulse(lab.cells))
    assert (lab.ledger_counts() == 1).all()


BESIDE = Step(-0.5, -0.5, 0.0, 1e-7)
"""Nothing across the selected cell, 0.5 V across others of its column: gates at 0 V are open there.
"""


def test_pulses_of_cells_that_were_not_selected_stay_charged(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(limits={"half_select_v": 1.0, "pulses_per_cell": 7})
    engine = lab.engine()
    one = Cells.of([(0, 0, 1)])
    result = engine.do(Apply(one, (BESIDE,), Scheme.GROUNDED, repeat=3))
    assert result.pulses.tolist() == [0]
    assert lab.events[:3] == ["ledger charge", "journal Intent", "journal sync"]
    engine.do(Apply(one, (BESIDE, replace(BESIDE, bl_v=0.0)), Scheme.GROUNDED))
    with pytest.raises(LimitError, match=r"cell \(0, 1, 1\): 4 pulses so far and up to 4 more"):
        engine.do(Apply(one, (BESIDE,), Scheme.GROUNDED, repeat=4))
    wanted = np.zeros(lab.geometry.shape, dtype=np.int64)
    wanted[0, :, 1] = 4
    wanted[0, 0, 1] = 1
    np.testing.assert_array_equal(lab.ledger_counts(), wanted)


def test_a_refusal_gives_back_what_was_charged_beside(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(limits={"half_select_v": 1.0})
    engine = lab.engine()

    def refuse(operation: Operation, number: int) -> Result | None:
        raise ConfigError("not on this bench")

    lab.instead = refuse
    with pytest.raises(ConfigError):
        engine.do(Apply(lab.cells, (BESIDE,), Scheme.GROUNDED))
    assert lab.ledger_counts().sum() == 0


def test_what_may_have_stressed_others_is_not_repeated(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(limits={"half_select_v": 1.0})
    lab.instead = half_then(lab, UnknownOutcomeError("the link is gone"))
    step = replace(BESIDE, measure="current")
    result = lab.engine().do(Apply(lab.cells, (step,), Scheme.GROUNDED))
    assert result.interrupted
    assert (result.status == Status.UNKNOWN).all()
    assert lab.events.count("driver Apply") == 1
    # Two rows: each cell is the other one's neighbour.
    assert (lab.ledger_counts() == 1).all()
