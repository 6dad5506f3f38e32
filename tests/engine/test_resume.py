from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from methods import METHODS, method

from rram_hil.array import (
    Apply,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Result,
    Status,
    Wait,
    WriteWords,
    pulse,
    read,
    read_step,
)
from rram_hil.engine.engine import Engine
from rram_hil.engine.protocol import Compute, Message, Plan, Progress, Protocol, Save, Setting
from rram_hil.errors import DataError, LimitError, LinkError, UnknownOutcomeError
from rram_hil.networks.layers import Linear
from rram_hil.networks.network import Network
from rram_hil.protocols.forming import Forming
from rram_hil.protocols.gradient_programming import GradientProgramming
from rram_hil.protocols.one_shot import OneShot
from rram_hil.protocols.read_map import ReadMap
from rram_hil.protocols.write_verify import WriteVerify
from rram_hil.storage.codec import Record, operation_record
from rram_hil.storage.frames import (
    Aside,
    Computed,
    Frame,
    Intent,
    Outcome,
    Saved,
    StepEnd,
    StepStart,
)

Lab = Any
TARGETS = {"map": "target.npy"}
BUDGET = 12
FORMING = Forming.model_validate(
    {"bl_v": {"start_v": 2.6, "stop_v": 3.8, "step_v": 0.4}, "wl_v": [2.0, 2.4]}
)
ONE_SHOT = OneShot.model_validate(
    {"targets": TARGETS, "set": {"gate": {"volts_v": [2.0, 3.0], "conductance_s": [10e-6, 100e-6]}}}
)
PULSES = {
    "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
    "gate_v": {"start_v": 2.0, "stop_v": 3.0, "step_v": 0.1},
}
VERIFY = {
    "set": PULSES | {"width_s": 1e-7},
    "reset": {
        "amplitude_v": {"start_v": 1.0, "stop_v": 2.5, "step_v": 0.1},
        "gate_v": {"start_v": 3.5, "stop_v": 3.5},
        "width_s": 2e-7,
    },
    "max_pulses": BUDGET,
    "tolerance_s": 5e-6,
}


class Words(Protocol):
    """On-chip words, found in a computation that uses the array, and a multiplication with them."""

    def run(self, setting: Setting) -> Plan[None]:
        cells = FORMING.cells.cells(setting.geometry)

        def train(do: Callable[[Operation], Result]) -> dict[str, np.ndarray]:
            do(WriteWords(cells, np.ones(len(cells), int), clear=True))
            codes = do(Multiply(0, 0, 0, 3, np.ones((2, 2), int), words=True)).codes  # type: ignore[union-attr]
            return {"values": np.arange(len(cells)) + int(codes.size)}

        arrays = yield Compute("words", train)
        yield WriteWords(cells, arrays["values"], clear=True)
        yield Wait(5.0)
        result = yield Multiply(0, 0, 0, 3, np.ones((1, 2), int), words=True)
        yield Save("sums", result.word_sums[0], ("column",))


class Gates(Protocol):
    """Readings beside a driven body, each with the gate's current."""

    def run(self, setting: Setting) -> Plan[None]:
        cells = FORMING.cells.cells(setting.geometry)
        both = replace(read_step(), body_v=-0.5, unselected_wl_v=-0.2, also_gate=True)
        result = yield from read(cells, both, repeat=2)
        assert result.gate_a is not None
        yield Save("gate_a", result.gate_a, ("cell", "reading"), "A")


BESIDE = VERIFY | {"set": PULSES | {"width_s": 1e-7, "body_v": -0.5, "unselected_wl_v": -0.2}}
STEPS: list[tuple[str, Protocol]] = [
    ("forming", FORMING),
    ("one-shot", ONE_SHOT),
    ("write-verify", WriteVerify.model_validate(VERIFY)),
    ("by host", WriteVerify.model_validate(BESIDE | {"on_board": "never", "max_pulses": 3})),
    ("words", Words()),
    ("gates", Gates()),
    ("map", ReadMap()),
]
MOST = 2 * 4 + 2 + BUDGET + 3


@dataclass
class Session:
    """One life of the run: the operations that its protocols asked for, and what they got."""

    asked: list[Record]
    got: list[Any]


def watched(plan: Plan[Any], session: Session) -> Iterator[Message]:
    answer = None
    try:
        while True:
            message = plan.send(answer)
            is_operation = not isinstance(message, Save | Progress | Compute)
            if is_operation:
                session.asked.append(operation_record(message))
            answer = yield message
            if is_operation:
                session.got.append(answer)
    except StopIteration as stop:
        return stop.value


def run_steps(lab: Lab, engine: Engine, steps: list[tuple[str, Protocol]] = STEPS) -> Session:
    session = Session([], [])
    run_into(lab, engine, session, steps)
    return session


def run_into(
    lab: Lab, engine: Engine, session: Session, steps: list[tuple[str, Protocol]] = STEPS
) -> None:
    setting = lab.setting()
    for number, (name, protocol) in enumerate(steps, 1):
        here = replace(setting, step=name)
        engine.step(
            number,
            name,
            type(protocol).__name__,
            1,
            lambda p=protocol, s=here: watched(p.run(s), session),
        )  # type: ignore[misc]


@pytest.fixture
def prepared(make_lab: Callable[..., Lab]) -> Callable[[], Lab]:
    def make() -> Lab:
        lab = make_lab(limits={"pulses_per_cell": 1000})
        target = np.array([[[20e-6, 40e-6, 60e-6], [80e-6, 0.0, np.nan]]])
        np.save(lab.folder / "target.npy", target)
        return lab

    return make


def assert_ledger_never_too_low(lab: Lab) -> None:
    assert np.all(lab.ledger_counts() >= lab.chip.pulses)


def finished(frames: list[Frame]) -> tuple[list[str], list[str]]:
    return [f.name for f in frames if isinstance(f, Saved)], [
        f.name for f in frames if isinstance(f, StepStart)
    ]


def stresses(operation: Operation) -> bool:
    if isinstance(operation, Apply):
        return any(
            bool(np.any(np.abs(s.cell_v(len(operation.cells))) > 0.25)) for s in operation.steps
        )
    return isinstance(operation, Program)


def half_then_cut(lab: Lab, power_cut: type[BaseException], at_pulse: int) -> None:
    """Power is lost in the middle of the `at_pulse`-th operation that pulses."""
    count = 0

    def instead(operation: Operation, number: int) -> Result | None:
        nonlocal count
        if stresses(operation):
            count += 1
            if count == at_pulse:
                lab.chip.execute(operation.part(slice(0, (len(operation.cells) + 1) // 2)), number)
                raise power_cut
        return None

    lab.instead = instead


@pytest.mark.parametrize(
    "every",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.long), 13],
)
def test_killed_anywhere_and_resumed_the_run_ends_and_no_budget_is_passed(
    prepared: Callable[[], Lab], power_cut: type[BaseException], every: int
) -> None:
    lab = prepared()
    whole = run_steps(lab, lab.engine())
    expected, events = finished(lab.frames()), len(lab.events)
    np.testing.assert_array_equal(lab.ledger_counts(), lab.chip.pulses)
    assert events > 60
    for cut_at in range(0, events, every):
        lab = prepared()
        lab.cut_at = cut_at
        first = Session([], [])
        with pytest.raises(power_cut):
            run_into(lab, lab.engine(), first)
        assert_ledger_never_too_low(lab)
        lab.cut_at = -1
        second = run_steps(lab, lab.engine(resume=True))
        # A fresh generator fed from the journal asks for the same again, bit for bit.
        kept = len(first.got)
        assert second.asked[:kept] == first.asked[:kept]
        saved, steps = finished(lab.frames())
        assert steps == expected[1]
        if any(getattr(r, "interrupted", False) for r in second.got):
            # The readings of a forming ramp may be lost, and with them the distribution of its
            # voltages.
            told = [name for name in expected[0] if name not in ("formed_at", "formed_share")]
            assert saved in (expected[0], told)
        else:
            assert saved == expected[0]
        assert_ledger_never_too_low(lab)
        assert lab.chip.pulses.max() <= MOST
        frames = lab.frames()
        intents = [f.operation for f in frames if isinstance(f, Intent)]
        assert intents == [f.operation for f in frames if isinstance(f, Outcome)]
        assert len(set(intents)) == len(intents)
        # Nothing that was kept is done again: what the first life got is what the second got.
        for a, b in zip(first.got, second.got, strict=False):
            if hasattr(a, "pulses"):
                np.testing.assert_array_equal(a.pulses, b.pulses)
                np.testing.assert_array_equal(a.conductance_s, b.conductance_s)
    assert len(whole.asked) > 10


GRADIENT: list[tuple[str, Protocol]] = [
    ("forming", FORMING),
    (
        "gradient",
        GradientProgramming.model_validate(
            VERIFY | {"targets": {"network": "net.safetensors"}, "vectors": 64, "rounds": 6}
        ),
    ),
]


def with_network(lab: Lab) -> Lab:
    layer = Linear(name="layer", inputs=2, outputs=1)
    weights = {"layer": np.array([[0.5, -1.0]], np.float32)}
    Network((layer,), weights).save(lab.folder / "net.safetensors")
    return lab


@pytest.mark.long
@pytest.mark.parametrize("counters", [True, False])
def test_gradient_programming_goes_on_wherever_it_was_killed(
    make_lab: Callable[..., Lab], power_cut: type[BaseException], counters: bool
) -> None:
    def prepared() -> Lab:
        lab = with_network(make_lab(limits={"pulses_per_cell": 1000}))
        lab.counters = counters
        return lab

    lab = prepared()
    run_steps(lab, lab.engine(), GRADIENT)
    before = lab.events.index("driver Multiply")
    assert_goes_on(prepared, GRADIENT, power_cut, lab, range(before, len(lab.events), 3))


def assert_goes_on(
    fresh: Callable[[], Lab],
    steps: list[tuple[str, Protocol]],
    power_cut: type[BaseException],
    whole: Lab,
    cuts: range,
) -> None:
    """Cut at each of these events of the `whole` run and resumed, a run ends with the same results,
    and passes no budget.
    """
    expected = finished(whole.frames())
    for cut_at in cuts:
        lab = fresh()
        lab.cut_at = cut_at
        first = Session([], [])
        with pytest.raises(power_cut):
            run_into(lab, lab.engine(), first, steps)
        lab.cut_at = -1
        second = run_steps(lab, lab.engine(resume=True), steps)
        kept = len(first.got)
        assert second.asked[:kept] == first.asked[:kept]
        assert finished(lab.frames()) == expected
        assert_ledger_never_too_low(lab)
        assert lab.chip.pulses.max() <= 2 * 4 + BUDGET


@pytest.mark.parametrize(
    ("name", "counters"),
    [
        ("ispp", True),
        *(
            pytest.param(name, counters, marks=pytest.mark.long)
            for name in METHODS
            for counters in (True, False)
            if (name, counters) != ("ispp", True)
        ),
    ],
)
def test_a_programming_method_goes_on_wherever_it_was_killed(
    prepared: Callable[[], Lab], power_cut: type[BaseException], name: str, counters: bool
) -> None:
    asked = method(name, targets=TARGETS, max_pulses=BUDGET, tolerance_s=5e-6, reverify=1)
    steps: list[tuple[str, Protocol]] = [("forming", FORMING), (name, asked)]

    def fresh() -> Lab:
        lab = prepared()
        lab.counters = counters
        return lab

    lab = fresh()
    run_steps(lab, lab.engine(), steps)
    events = len(lab.events)
    before = events - 1 - lab.events[::-1].index("journal StepStart")
    assert events - before > 30
    # An odd stride comes upon each kind of event.
    cuts = range(before + 3, events, (events - before) // 8 | 1)
    assert_goes_on(fresh, steps, power_cut, lab, cuts)


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_replies_that_are_lost_cost_no_cell_more_than_its_budget(
    prepared: Callable[[], Lab], counters: bool, name: str
) -> None:
    """Of every third batch of pulses half is given, and no reply comes."""
    lab = formed(prepared)
    lab.counters = counters
    before, batches = lab.chip.pulses, 0

    def lost(operation: Operation, number: int) -> Result | None:
        nonlocal batches
        batches += stresses(operation)
        if not stresses(operation) or batches % 3:
            return None
        lab.chip.execute(operation.part(slice(0, (len(operation.cells) + 1) // 2)), number)
        raise UnknownOutcomeError("no reply came", where="link")

    lab.instead = lost
    asked = method(name, targets=TARGETS, max_pulses=BUDGET, tolerance_s=5e-6)
    run_steps(lab, lab.engine(), [(name, asked)])
    saved = {f.name: f.values for f in lab.frames() if isinstance(f, Saved)}
    counted = saved["set_pulses"] + saved["reset_pulses"]
    given = lab.chip.pulses - before
    # One of three is lost: the method that needs the fewest pulses meets it once.
    assert batches > 3
    assert np.all((given <= counted) & (counted <= BUDGET))
    if counters:
        np.testing.assert_array_equal(given, counted)
    assert_ledger_never_too_low(lab)


def test_gradient_programming_reads_its_cells_where_the_bench_does_not_multiply(lab: Lab) -> None:
    with_network(lab).can = replace(lab.can, multiply=False)
    engine = lab.engine()
    run_steps(lab, engine, GRADIENT[:1])
    (_, gradient) = GRADIENT[1]
    summary = engine.run(gradient.run(lab.setting()))
    assert summary.emulated
    assert summary.vectors == 64 * (summary.rounds + 1)
    assert summary.pulses > 0
    assert "driver Multiply" not in lab.events


def test_killed_in_the_middle_of_every_batch_of_pulses(
    prepared: Callable[[], Lab], power_cut: type[BaseException]
) -> None:
    for counters in (True, False):
        for at_pulse in range(1, 100):
            lab = prepared()
            lab.counters = counters
            half_then_cut(lab, power_cut, at_pulse)
            try:
                run_steps(lab, lab.engine())
                break
            except power_cut:
                lab.instead = lambda operation, number: None
            session = run_steps(lab, lab.engine(resume=True))
            assert any(getattr(r, "interrupted", False) for r in session.got)
            assert_ledger_never_too_low(lab)
            assert lab.chip.pulses.max() <= MOST
        assert at_pulse > 5


def formed(prepared: Callable[[], Lab]) -> Lab:
    lab = prepared()
    run_steps(lab, lab.engine(journal=False), STEPS[:1])
    lab.before = lab.chip.pulses
    return lab


@pytest.mark.parametrize("counters", [True, False])
def test_a_one_shot_cell_is_never_pulsed_twice(
    prepared: Callable[[], Lab], power_cut: type[BaseException], counters: bool
) -> None:
    step = [("one-shot", ONE_SHOT)]
    lab = formed(prepared)
    lab.events.clear()
    run_steps(lab, lab.engine(), step)
    events = len(lab.events)
    wanted = np.array([[[2, 2, 2], [2, 1, 0]]])
    np.testing.assert_array_equal(lab.chip.pulses - lab.before, wanted)
    cuts = [(cut_at, 0) for cut_at in range(events)] + [(-1, 1), (-1, 2)]
    for cut_at, at_pulse in cuts:
        lab = formed(prepared)
        lab.counters = counters
        lab.events.clear()
        lab.cut_at = cut_at
        if at_pulse:
            half_then_cut(lab, power_cut, at_pulse)
        with pytest.raises(power_cut):
            run_steps(lab, lab.engine(), step)
        lab.cut_at, lab.instead = -1, lambda operation, number: None
        run_steps(lab, lab.engine(resume=True), step)
        given = lab.chip.pulses - lab.before
        assert np.all(given <= wanted)
        if counters:
            # The counters tell which cells were reached: all the others get their pulse after all.
            np.testing.assert_array_equal(given, wanted)
        assert_ledger_never_too_low(lab)


def test_a_one_shot_cell_is_left_alone_where_another_run_has_touched_it_since(
    prepared: Callable[[], Lab], power_cut: type[BaseException]
) -> None:
    step = [("one-shot", ONE_SHOT)]
    lab = formed(prepared)
    half_then_cut(lab, power_cut, 1)
    with pytest.raises(power_cut):
        run_steps(lab, lab.engine(), step)
    lab.instead = lambda operation, number: None
    # Somebody looks at the chip before the run is resumed: the record of the lost operation is
    # gone.
    lab.engine(journal=False).do(read(lab.cells))
    session = run_steps(lab, lab.engine(resume=True), step)
    assert session.got[0].interrupted
    assert np.all(lab.chip.pulses - lab.before <= np.array([[[2, 2, 2], [2, 1, 0]]]))


def test_an_interrupted_operation_says_for_how_long_the_bench_was_alone(
    lab: Lab, power_cut: type[BaseException]
) -> None:
    def plan() -> Plan[Any]:
        result = yield pulse(lab.cells, bl_v=2.0, wl_v=2.5, width_s=1e-7, read=read_step())
        again = yield read(lab.cells)
        return result, again

    def cut(operation: Operation, number: int) -> Result | None:
        lab.chip.execute(operation.part(slice(0, 2)), number)
        raise power_cut

    lab.instead = cut
    with pytest.raises(power_cut):
        lab.engine().run(plan())
    lab.instead = lambda operation, number: None
    lab.chip.advance(100.0)
    result, again = lab.engine(resume=True).run(plan())
    assert result.interrupted
    assert result.away_s == pytest.approx(100.0, abs=0.01)
    assert np.all(result.status == Status.UNKNOWN)
    assert np.all(np.isnan(result.conductance_s))
    assert result.pulses.tolist() == [1, 1, 0, 0, 0, 0]
    assert np.all(again.status == Status.OK)
    # Resumed once more, the same is told again: it stands in the journal now.
    third, _ = lab.engine(resume=True).run(plan())
    assert third.interrupted
    assert third.away_s == result.away_s


def test_words_that_the_chip_lost_are_there_again_after_a_resume(
    lab: Lab, power_cut: type[BaseException]
) -> None:
    def plan() -> Plan[Any]:
        yield WriteWords(lab.cells, np.arange(6), clear=True)
        yield WriteWords(lab.cells[2:3], np.array([50]))
        return (yield Multiply(0, 0, 0, 3, np.ones((1, 2), int), words=True))

    lab.cut_at = 7
    with pytest.raises(power_cut):
        lab.engine().run(plan())
    assert lab.events[-1] == "journal Intent"
    lab.cut_at = -1
    lab.chip.execute(WriteWords(lab.cells, np.zeros(6, int), clear=True), lab.chip.last_number)
    result = lab.engine(resume=True).run(plan())
    assert result.word_sums.tolist() == [[3, 5, 55]]


def test_a_finished_computation_is_not_done_again(lab: Lab, power_cut: type[BaseException]) -> None:
    calls = []

    def train(do: Callable[[Operation], Result]) -> dict[str, np.ndarray]:
        calls.append(1)
        return {"mean": np.array(do(read(lab.cells)).conductance_s.mean())}  # type: ignore[union-attr]

    def plan() -> Plan[Any]:
        arrays = yield Compute("c", train)
        yield read(lab.cells)
        return float(arrays["mean"])

    for cut_at, wanted_calls in ((2, 2), (6, 1)):
        calls.clear()
        lab.events.clear()
        lab.leave()
        lab.journal_path.unlink(missing_ok=True)
        lab.cut_at = cut_at
        with pytest.raises(power_cut):
            lab.engine().run(plan())
        lab.cut_at = -1
        mean = lab.engine(resume=True).run(plan())
        assert len(calls) == wanted_calls
        assert next(f for f in lab.frames() if isinstance(f, Computed)).arrays["mean"] == mean
        assert any(isinstance(f, Aside) for f in lab.frames())


def test_a_finished_run_is_answered_from_its_journal_alone(prepared: Callable[[], Lab]) -> None:
    lab = prepared()
    first = run_steps(lab, lab.engine())
    frames = len(lab.frames())
    lab.events.clear()
    second = run_steps(lab, lab.engine(resume=True))
    assert lab.events == []
    assert len(lab.frames()) == frames
    assert second.asked == first.asked


def base(lab: Lab) -> Plan[None]:
    yield read(lab.cells)
    yield Save("map", np.arange(3.0), ("x",))
    yield Compute("c", lambda do: {})
    yield pulse(lab.cells, bl_v=2.0, wl_v=2.0, width_s=1e-7)


def another_operation(lab: Lab) -> Plan[None]:
    yield read(lab.cells, repeat=2)


def another_level(lab: Lab) -> Plan[None]:
    yield read(lab.cells)
    yield Save("map", np.arange(3.0), ("x",))
    yield Compute("c", lambda do: {})
    yield pulse(lab.cells, bl_v=2.0000001, wl_v=2.0, width_s=1e-7)


def another_save(lab: Lab) -> Plan[None]:
    yield read(lab.cells)
    yield Save("other", np.arange(3.0), ("x",))


def another_value(lab: Lab) -> Plan[None]:
    yield read(lab.cells)
    yield Save("map", np.array([0.0, 1.0, 2.1]), ("x",))


def another_computation(lab: Lab) -> Plan[None]:
    yield read(lab.cells)
    yield Save("map", np.arange(3.0), ("x",))
    yield Compute("d", lambda do: {})


def another_order(lab: Lab) -> Plan[None]:
    yield Save("map", np.arange(3.0), ("x",))


def a_shorter_plan(lab: Lab) -> Plan[None]:
    yield read(lab.cells)


@pytest.mark.parametrize(
    "changed",
    [
        another_operation,
        another_level,
        another_save,
        another_value,
        another_computation,
        another_order,
        a_shorter_plan,
    ],
)
def test_a_changed_protocol_is_refused_and_nothing_moves(
    lab: Lab, changed: Callable[[Lab], Plan[None]]
) -> None:
    engine = lab.engine()
    engine.step(1, "s", "p", 1, lambda: base(lab))
    lab.events.clear()
    before, counts = lab.chip.pulses, lab.ledger_counts()
    with pytest.raises(
        DataError, match=r"resume refused: at entry .* the recipe, the data or the package changed"
    ):
        lab.engine(resume=True).step(1, "s", "p", 1, lambda: changed(lab))
    assert lab.events == []
    np.testing.assert_array_equal(lab.chip.pulses, before)
    np.testing.assert_array_equal(lab.ledger_counts(), counts)


@pytest.mark.parametrize(
    "start", [(1, "t", "p", 1), (1, "s", "q", 1), (1, "s", "p", 2), (2, "s", "p", 1)]
)
def test_a_changed_step_is_refused(lab: Lab, start: tuple[int, str, str, int]) -> None:
    lab.engine().step(1, "s", "p", 1, lambda: base(lab))
    with pytest.raises(DataError, match="resume refused"):
        lab.engine(resume=True).step(*start, lambda: base(lab))


def test_a_longer_plan_than_the_journals_goes_on_live(lab: Lab) -> None:
    engine = lab.engine()
    engine.run(base(lab))

    def longer() -> Plan[Any]:
        yield from base(lab)
        return (yield read(lab.cells))

    lab.events.clear()
    result = lab.engine(resume=True).run(longer())
    assert lab.events == ["journal Intent", "driver Apply", "journal Outcome"]
    assert np.all(result.status == Status.OK)


def test_step_marks_are_written_once(lab: Lab, power_cut: type[BaseException]) -> None:
    lab.cut_at = 4
    with pytest.raises(power_cut):
        lab.engine().step(1, "s", "p", 1, lambda: base(lab))
    lab.cut_at = -1
    lab.engine(resume=True).step(1, "s", "p", 1, lambda: base(lab))
    kinds = [type(f) for f in lab.frames()[1:]]
    assert kinds == [StepStart, Intent, Outcome, Saved, Computed, Intent, Outcome, StepEnd]


def test_a_program_cut_by_the_host_is_finished_within_its_budget(
    prepared: Callable[[], Lab], power_cut: type[BaseException]
) -> None:
    train = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 3.0, 0.05), 1e-7)
    lab = formed(prepared)
    operation = Program(lab.cells, 90e-6, 95e-6, train, train, read_step(), 4, on_board="never")

    def plan() -> Plan[Any]:
        return (yield operation)

    for cut_at in range(0, 60, 5):
        lab = formed(prepared)
        lab.events.clear()
        lab.cut_at = cut_at
        with contextlib.suppress(power_cut):
            lab.engine().run(plan())
        lab.cut_at = -1
        lab.engine(resume=True).run(plan())
        assert np.max(lab.chip.pulses - lab.before) <= 4
        assert_ledger_never_too_low(lab)


def link_lost(*_: object) -> None:
    raise LinkError("the cable fell out")


def test_a_run_that_a_lost_link_ended_can_be_resumed_more_than_once(lab: Lab) -> None:
    def plan() -> Plan[Any]:
        first = yield pulse(lab.cells, bl_v=2.0, wl_v=2.0, width_s=1e-7)
        yield read(lab.cells)
        return first

    lab.instead = link_lost
    with pytest.raises(LinkError):
        lab.engine().run(plan())
    lab.instead = lambda operation, number: None
    for _ in range(3):
        result = lab.engine(resume=True).run(plan())
        assert result.interrupted
        assert result.pulses.tolist() == [0] * 6
    assert not lab.ledger_counts().any()


def test_an_error_that_a_protocol_handled_is_thrown_into_it_again_on_resume(
    lab: Lab, power_cut: type[BaseException]
) -> None:
    def plan() -> Plan[Any]:
        try:
            yield pulse(lab.cells, bl_v=2.0, wl_v=2.0, width_s=1e-7)
        except LinkError as error:
            yield read(lab.cells)
            result = yield read(lab.cells, repeat=2)
            return str(error), result.status.shape
        pytest.fail("no error was thrown")

    def lost_once(operation: Operation, number: int) -> Result | None:
        lab.instead = lambda operation, number: None
        return link_lost()

    lab.instead = lost_once
    whole = lab.engine().run(plan())
    events = len(lab.events)
    assert whole == ("the cable fell out", (6, 2))
    assert lab.engine(resume=True).run(plan()) == whole
    for cut_at in range(events - 5, events):
        lab.leave()
        lab.journal_path.unlink()
        lab.events.clear()
        lab.instead, lab.cut_at = lost_once, cut_at
        with pytest.raises(power_cut):
            lab.engine().run(plan())
        lab.cut_at = -1
        assert lab.engine(resume=True).run(plan()) == whole


def test_after_a_resume_a_worn_cell_is_refused_before_any_part_of_an_operation_runs(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(limits={"pulses_per_cell": 10})
    train = PulseTrain(Ramp(2.0, 2.0), Ramp(2.0, 2.0), 1e-7)
    operation = Program(lab.cells, 90e-6, 95e-6, train, train, read_step(), 8, on_board="never")

    def plan(more: bool) -> Plan[None]:
        yield replace(pulse(lab.cells, bl_v=2.0, wl_v=2.0, width_s=1e-7), repeat=3)
        if more:
            yield operation

    lab.engine().run(plan(False))
    for _ in range(2):
        with pytest.raises(LimitError, match="3 pulses so far and up to 8 more"):
            lab.engine(resume=True).run(plan(True))
        assert lab.chip.pulses.max() == lab.ledger_counts().max() == 3
