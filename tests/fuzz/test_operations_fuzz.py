"""Random operations on simulated benches: whatever is asked, no limit is passed at any cell, and
what was given is counted.

`python -m pytest -m fuzz tests/fuzz/test_operations_fuzz.py` takes about a minute (`.ci/run` does);
by hand, with `--hypothesis-profile=long`, about ten.
"""

from __future__ import annotations

import contextlib
import math
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import CHAINS, bench_text
from far_side_judge import Judge, MatrixJudge
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    Stop,
    Wait,
    WriteWords,
    read_step,
)
from rram_hil.drivers.matrix.wiring import columns_of
from rram_hil.drivers.simulated import test_chip_board as far_board
from rram_hil.drivers.simulated.array.terminals import Drive
from rram_hil.drivers.simulated.rack import Rack
from rram_hil.drivers.simulated.server.control import ControlServer
from rram_hil.drivers.simulated_array import SimulatedArray, SimulatedArrayConfig, launch
from rram_hil.drivers.smu_matrix import SmuMatrix
from rram_hil.drivers.test_chip_board import TestChipBoard, TestChipBoardConfig
from rram_hil.engine.engine import Engine
from rram_hil.errors import BenchError
from rram_hil.hardware.driver import Driver
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation
from rram_hil.storage.ledger import Ledger

# Hypothesis takes up to five minutes to make what it found smaller.
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

LIMITS = Limits(
    bl_v=4.2, sl_v=2.8, wl_v=3.6, cell_v=4.1, gate_over_v=3.7, half_select_v=0.7, read_v=0.25,
    current_a=4e-4, energy_j=2e-9, width_s=1e-5, pulses_per_cell=40, read_width_s=1e-3, wait_s=1e5,
)  # fmt: skip
LIMITS = LIMITS.model_copy(
    update={"conductance_s": [0.0, 4e-4], "body_v": 2.0, "body_over_v": 0.25}
)
RACK_LIMITS = LIMITS.model_copy(
    update={"width_s": 1e-2, "read_width_s": 0.1, "energy_j": 6e-6, "pulses_per_cell": 12}
)
GEOMETRIES = [
    Geometry(2, 3, 4),
    Geometry(1, 3, 4, source_lines="common"),
    Geometry(1, 3, 3, source_lines="column"),
    Geometry(1, 3, 4, "1R"),
    Geometry(1, 3, 4, selector="pmos"),
    Geometry(1, 3, 3, source_lines="common", selector="pmos"),
]
BEHIND_A_MATRIX = Geometry(1, 3, 3, source_lines="common")
WITH_HELD = " + held levels"
HELD_CHAINS = [chain + WITH_HELD for chain in [*CHAINS][::2]]
"""A row of one script, and the host between, each with sources of bodies and other word lines."""
BESIDE_LINES = {
    "body": {"channel": "aux.a", "row": "E", "columns": "60"},
    "unselected_wl": {"channel": "aux.b", "row": "F"},
}
MATRIX_PART = 12
"""One in so many examples is tried behind each matrix."""
SIMULATION = Simulation(converters=False)


class Lab:
    """A bench under the judge: engine and ledger before a driver, its far side in this process."""

    def __init__(
        self,
        driver: Driver,
        judge: Judge,
        folder: Path,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self.driver, self.judge, self.chip, self._end = driver, judge, judge.chip, end
        driver.connect()
        driver.arm()
        path = folder / "chip.ledger"
        path.unlink(missing_ok=True)
        limits, geometry = judge.limits, judge.geometry
        self.ledger = Ledger(path, geometry, "fuzz", limit=limits.pulses_per_cell)
        self.engine = Engine(driver, geometry, limits, self.ledger)

    def do(self, operation: Operation) -> bool:
        """Ask it; whether it was carried out. A refusal is a `BenchError` of one short line."""
        before = self.judge.given.copy()
        try:
            result = self.engine.do(operation)
        except BenchError as error:
            text = str(error)
            if "\n" in text or len(text) > 400:
                self.judge.say("refusal", text)
            result = None
        told = None
        if isinstance(result, ApplyResult | ProgramResult):
            told = np.zeros(self.judge.geometry.shape, dtype=np.int64)
            cells = operation.cells  # type: ignore[union-attr]
            told[cells.tile, cells.row, cells.column] = result.pulses
        self.judge.settle(self.ledger.counts, told, before)
        return result is not None

    def close(self) -> None:
        self.ledger.close()
        self.driver.close()
        self._end()


def direct(geometry: Geometry, folder: Path) -> Lab:
    """The array in the process."""
    side = launch(FarSideRequest(SIMULATION, geometry, LIMITS, "fuzz", folder))
    driver = SimulatedArray(SimulatedArrayConfig.model_validate(side.settings), geometry, LIMITS)
    driver.connect()
    return Lab(driver, Judge(geometry, LIMITS, driver.chip), folder)


def over_a_link(geometry: Geometry, folder: Path) -> Lab:
    """The board behind its protocol, served by a thread."""
    board = far_board.board(FarSideRequest(SIMULATION, geometry, LIMITS, "fuzz", folder))
    threading.Thread(target=board.serve, daemon=True).start()
    config = TestChipBoardConfig(port=str(board.addresses["resource"]))
    judge = Judge(geometry, LIMITS, board.chip)
    return Lab(TestChipBoard(config, geometry, LIMITS), judge, folder, board.close)


def behind_a_matrix(geometry: Geometry, folder: Path, chain: str) -> Lab:
    """Source-meters and a matrix: a rack in this process."""
    text = bench_text(chain.removesuffix(WITH_HELD), size=geometry.rows)
    driver = tomllib.loads(text)["driver"]
    del driver["name"]
    if chain.endswith(WITH_HELD):
        driver["instruments"]["aux"] = {"kind": "keithley-2600b", "model": "2636B"}
        driver["wiring"] |= BESIDE_LINES
    rack = Rack(FarSideRequest(SIMULATION, geometry, RACK_LIMITS, "fuzz", folder, driver))
    for name, _, resource in rack.addresses["instruments"]:
        driver["instruments"][name] |= {"resource": resource, "timeout_s": 10.0}
    control = ControlServer(rack.control)
    config = SmuMatrix.Config.model_validate(driver | {"clock": control.address})
    judge = MatrixJudge(
        geometry,
        RACK_LIMITS,
        rack.chip,
        world=rack.world,
        ground=driver["wiring"]["ground"],
        lines={kind: list(columns_of(driver["wiring"][kind])) for kind in ("bl", "sl", "wl")}
        | ({"body": [60]} if chain.endswith(WITH_HELD) else {}),
    )

    def end() -> None:
        for server in rack.servers.values():
            server.stop()

    return Lab(SmuMatrix(config, geometry, RACK_LIMITS), judge, folder, end)


BENCHES: dict[str, Callable[[Geometry, Path], Lab]] = {
    "direct": direct,
    "board": over_a_link,
    **{chain: partial(behind_a_matrix, chain=chain) for chain in (*CHAINS, *HELD_CHAINS)},
}

VOLTS = st.one_of(
    st.sampled_from(
        [0.0, 0.2, 0.25, -0.2, 0.4, -0.4, 0.6, 1.2, 2.0, 2.4, 2.8, 3.2, 4.0, 4.1, -1.0, -2.0]
    ),
    st.floats(-5, 5),
    st.sampled_from([math.nan, math.inf, 1e300, -4.2]),
)
USUAL_V = st.sampled_from([0.0, 0.2, 1.2, 2.0, 2.4, 2.8, 3.4, 4.0])
BODY_V = st.sampled_from([None, 0.0, -0.5, -2.0, 0.2, 0.5, 2.0, 3.0, math.nan])
IDLE_V = st.sampled_from([None, 0.0, -1.0, 0.5, 2.0, 2.8, 3.5, -3.7, math.nan])
WIDTHS = st.one_of(
    st.sampled_from([1e-7, 1e-6, 1e-5]), st.floats(0, 1e-2), st.sampled_from([0.0, -1e-6, 1e9])
)
LONG_WIDTHS = st.one_of(st.sampled_from([1e-3, 2e-3, 1e-2]), WIDTHS)
"""For instruments, whose shortest step is a millisecond."""
COUNTS = st.one_of(st.integers(1, 6), st.sampled_from([0, 39, 41, 2**40, 2**62, 10**30]))


def some_cells(draw: st.DrawFn, geometry: Geometry) -> Cells:
    at = draw(st.lists(st.integers(0, geometry.size - 1), min_size=1, max_size=5, unique=True))
    return Cells.from_index(np.array(at), geometry)


def a_step(draw: st.DrawFn, n: int, is_slow: bool, is_wired: bool) -> Step:
    volts = USUAL_V if draw(st.integers(0, 9 if is_slow else 2)) else VOLTS
    level = st.one_of(volts, st.none(), st.lists(volts, min_size=n, max_size=n).map(np.array))
    kind = draw(st.sampled_from(["pulse", "pulse", "any"]))
    measure = draw(st.sampled_from(["no", "current", "gate"]))
    usual_s = st.sampled_from([1e-3, 2e-3] if is_slow else [1e-7, 1e-6])
    width = draw(usual_s if kind == "pulse" else LONG_WIDTHS if is_slow else WIDTHS)
    # Instruments know these where they are wired.
    beside = None, None, False
    if is_wired and draw(st.booleans()):
        both = not is_slow and measure == "current" and draw(st.booleans())
        beside = draw(BODY_V), draw(IDLE_V), both
    if kind == "any":
        return Step(draw(level), draw(level), draw(level), width, measure, *beside)
    line = draw(st.sampled_from(["bl", "sl"]))
    levels = {"bl": 0.0, "sl": 0.0, line: draw(volts)}
    return Step(levels["bl"], levels["sl"], draw(volts), width, measure, *beside)


@st.composite
def operations(
    draw: st.DrawFn, geometry: Geometry, *, is_slow: bool = False, is_wired: bool = True
) -> Operation | None:
    """One operation; None where it is refused when it is made. `is_slow` is for instruments,
    `is_wired` where steps may say levels beside their lines.
    """
    with contextlib.suppress(BenchError):
        return _operation(draw, geometry, is_slow, is_wired)
    return None


def _operation(draw: st.DrawFn, geometry: Geometry, is_slow: bool, is_wired: bool) -> Operation:
    cells = some_cells(draw, geometry)
    n = len(cells)
    scheme = draw(st.sampled_from(list(Scheme)))
    compliance = draw(st.sampled_from([None, None, 1e-4, 4e-4, 1e-2, 0.0, math.nan]))
    kinds = ["apply", "apply", "apply", "program", "multiply", "coded", "rest"]
    # An example costs instruments seconds, a refusal nothing: most are to be carried out.
    kinds += ["apply"] * (7 if is_slow else 0)
    kind = draw(st.sampled_from(kinds))
    if kind == "apply":
        steps = tuple(a_step(draw, n, is_slow, is_wired) for _ in range(draw(st.integers(1, 3))))
        stop = draw(st.sampled_from([None, None, Stop(above_s=1e-5)]))
        stop = stop if any(s.measure == "current" for s in steps) else None
        return Apply(cells, steps, scheme, compliance, stop, draw(COUNTS))
    if kind == "program":
        volts = USUAL_V if draw(st.booleans()) else VOLTS
        trains = [
            PulseTrain(
                Ramp(draw(volts), draw(volts), draw(st.sampled_from([0.0, 0.1, -0.1, 1.0]))),
                Ramp(draw(volts), draw(volts), draw(st.sampled_from([0.0, 0.1]))),
                draw(LONG_WIDTHS if is_slow else WIDTHS),
            )
            for _ in range(2)
        ]
        low = draw(st.sampled_from([0.0, 2e-5, 1e-4, 1e-2]))
        verify = draw(st.sampled_from(["single", "single", "coded"]))
        on_board = draw(st.sampled_from(["never", "allowed"]))
        read = replace(read_step(), bl_v=draw(st.sampled_from([0.2, 0.2, 0.25, 0.3, -0.2])))
        read = replace(read, width_s=2e-3) if is_slow else read
        return Program(
            cells, low, low * 1.2 + 1e-6, trains[0], trains[1], read, draw(COUNTS),
            unselected=scheme, compliance_a=compliance, on_board=on_board, verify=verify,
        )  # fmt: skip
    read_v = draw(st.sampled_from([0.2, 0.2, 0.25, 0.3, 2.4, -0.2, math.nan]))
    wl_v = draw(USUAL_V)
    beside = {} if is_slow else {"body_v": draw(BODY_V), "unselected_wl_v": draw(IDLE_V)}
    if kind == "multiply":
        rows = draw(st.integers(1, geometry.rows))
        inputs = draw(st.lists(st.integers(-127, 127), min_size=2 * rows, max_size=2 * rows))
        scale = draw(st.sampled_from([1e-3, 1e-5, 1e-300, 1e300]))
        return Multiply(
            draw(st.integers(0, geometry.tiles)), draw(st.integers(-1, 1)), 0,
            draw(st.integers(0, geometry.columns)), np.array(inputs).reshape(2, rows), 8, read_v,
            wl_v, scale, **beside,
        )  # fmt: skip
    if kind == "coded":
        block = Block(0, 0, geometry.rows, 0, draw(st.integers(1, geometry.columns + 1)))
        repeat = draw(st.sampled_from([1, 2, 10**30]))
        return CodedRead((block,), read_v, wl_v, repeat, **beside)
    words = draw(st.sampled_from([1, 127, 128, -(2**31)]))
    if draw(st.booleans()):
        return WriteWords(cells, np.full(n, words))
    return Wait(draw(st.sampled_from([0.0, 1.0, 1e6, math.nan])))


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Callable[[str, Geometry], Lab]]:
    """Benches, each closed at the end."""
    made: list[Lab] = []

    def make(name: str, geometry: Geometry) -> Lab:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(BENCHES[name](geometry, folder))
        return made[-1]

    yield make
    for lab in made:
        with contextlib.suppress(BenchError):
            lab.close()


@pytest.mark.parametrize(
    "geometry", GEOMETRIES, ids=lambda g: f"{g.cell}-{g.source_lines}-{g.selector}"
)
@pytest.mark.parametrize("bench", ["direct", "board"])
def test_no_operation_passes_a_limit_at_any_cell(
    labs: Callable[[str, Geometry], Lab], bench: str, geometry: Geometry
) -> None:
    _try_operations(lambda: labs(bench, geometry), geometry, settings().max_examples)


@pytest.mark.parametrize("chain", [*CHAINS, *HELD_CHAINS])
def test_no_operation_of_instruments_passes_a_limit_at_any_cell(
    labs: Callable[[str, Geometry], Lab], chain: str
) -> None:
    """Few examples: what takes a board microseconds takes instruments thousands of messages."""
    _try_operations(
        lambda: labs(chain, BEHIND_A_MATRIX),
        BEHIND_A_MATRIX,
        max(1, settings().max_examples // MATRIX_PART),
        is_slow=True,
        is_wired=chain.endswith(WITH_HELD),
    )


def _try_operations(
    make: Callable[[], Lab],
    geometry: Geometry,
    examples: int,
    *,
    is_slow: bool = False,
    is_wired: bool = True,
) -> None:
    formed = pulse_that_forms(geometry, 1e-3 if is_slow else 1e-6)
    sizes = {"min_size": 6, "max_size": 24} if is_slow else {"min_size": 1, "max_size": 12}
    asked_of = st.lists(operations(geometry, is_slow=is_slow, is_wired=is_wired), **sizes)

    @settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=examples)
    @given(asked_of, st.booleans())
    def try_them(asked: list[Operation | None], form: bool) -> None:
        lab = make()
        try:
            if form:
                lab.do(formed)
            for operation in asked:
                if operation is not None:
                    done = lab.do(operation)
                    event(f"{type(operation).__name__} {'done' if done else 'refused'}")
                assert not lab.judge.verdicts, operation
        finally:
            lab.close()

    try_them()


def pulse_that_forms(geometry: Geometry, width_s: float = 1e-6) -> Apply:
    """Makes most cells conduct, within the limits of a 1T1R array."""
    step = Step(4.0, 0.0, 2.0, width_s)
    return Apply(Cells.all(geometry), (step,), Scheme.INHIBIT)


# What the judge would see of each kind of fault


def at_far_side(lab: Lab, change: Callable[[Operation], Operation]) -> None:
    """Let something between the host's checks and the chip change operations, or do them twice."""
    really = lab.chip.execute

    def execute(operation: Operation, number: int, cancel: Any = None) -> Any:
        told = really(change(operation), number, cancel)
        if change is twice:
            really(operation, number, cancel)
        return told

    lab.chip.execute = execute


def stepped(**changes: Any) -> Callable[[Operation], Operation]:
    """Changes every step of an `Apply`; a number is a factor on the level."""

    def change(operation: Operation) -> Operation:
        if not isinstance(operation, Apply):
            return operation
        steps = tuple(
            replace(s, **{k: getattr(s, k) * v for k, v in changes.items()})
            for s in operation.steps
        )
        return replace(operation, steps=steps)

    return change


def without_compliance(operation: Operation) -> Operation:
    return replace(operation, compliance_a=None) if isinstance(operation, Apply) else operation


def twice(operation: Operation) -> Operation:
    """The name of a fault that tells of the first time only."""
    return operation


def grounded(operation: Operation) -> Operation:
    return (
        replace(operation, unselected=Scheme.GROUNDED)
        if isinstance(operation, Apply)
        else operation
    )


def strong(operation: Operation) -> Operation:
    return replace(operation, read_v=2.4) if isinstance(operation, Multiply) else operation


ONE = Cells.of([(0, 0, 0)])
SET = Apply(ONE, (Step(2.0, 0.0, 2.4, 1e-6),))
RESET = Apply(ONE, (Step(0.0, 2.0, 3.4, 1e-6),))
READ = Apply(ONE, (read_step(),))
BODY, FORWARD, IDLE = (
    replace(READ, steps=(replace(read_step(), wl_v=2.5, **{name: volts}),))
    for name, volts in (("body_v", -1.0), ("body_v", 0.2), ("unselected_wl_v", 1.5))
)
HELD = Apply(ONE, (Step(0.5, 0.5, 2.5, 1e-6, unselected_wl_v=1.0),))
PRODUCT = Multiply(0, 0, 0, 2, np.full((1, 3), 127), read_v=0.2)
PLANTED: dict[str, tuple[Operation, Callable[[Operation], Operation]]] = {
    "bl volts": (SET, stepped(bl_v=2.2)),
    "sl volts": (RESET, stepped(sl_v=1.5)),
    "wl volts": (SET, stepped(wl_v=1.6)),
    "cell volts": (SET, stepped(bl_v=2.08)),
    "gate volts": (SET, stepped(wl_v=1.55)),
    "half-selected": (RESET, grounded),
    "width": (SET, stepped(width_s=20.0)),
    "energy": (SET, stepped(width_s=9.0)),
    "current": (SET, without_compliance),
    "ledger": (SET, twice),
    "told pulses": (SET, twice),
    "life": (replace(SET, repeat=15), twice),
    "multiply volts": (PRODUCT, strong),
    "body volts": (BODY, stepped(body_v=3.0)),
    "body junction": (FORWARD, stepped(body_v=3.0)),
    "unselected word line": (IDLE, stepped(unselected_wl_v=2.5)),
    "unselected gate volts": (IDLE, stepped(unselected_wl_v=2.5)),
    "unselected width": (HELD, stepped(width_s=20.0)),
}  # fmt: skip


@pytest.mark.parametrize("bench", ["direct", "board"])
@pytest.mark.parametrize("check", PLANTED)
def test_each_check_of_the_judge_sees_its_fault(
    labs: Callable[[str, Geometry], Lab], bench: str, check: str
) -> None:
    lab = labs(bench, Geometry(1, 3, 4))
    lab.do(pulse_that_forms(lab.judge.geometry))
    assert lab.judge.verdicts == []
    operation, change = PLANTED[check]
    lab.do(operation)
    assert lab.judge.verdicts == []
    at_far_side(lab, change)
    if check == "current":
        lab.chip._state.conductance_s[:] = 5e-4
    lab.do(operation)
    assert any(verdict.startswith(f"{check}: ") for verdict in lab.judge.verdicts), (
        lab.judge.verdicts
    )


SLOW_SET = Apply(ONE, (Step(2.0, 0.0, 2.4, 2e-3),))
SLOW_RESET = Apply(ONE, (Step(0.0, 2.0, 3.4, 2e-3),))


def _louder(row: str, factor: float) -> Callable[[Lab], None]:
    """A channel that gives more than it is told."""

    def plant(lab: Lab) -> None:
        really = lab.judge.world.drive  # type: ignore[attr-defined]

        def drive(at: str, wanted: Drive) -> None:
            really(at, replace(wanted, level=wanted.level * factor) if at == row else wanted)

        lab.judge.world.drive = drive  # type: ignore[attr-defined]

    return plant


def _without_limit(lab: Lab) -> None:
    """A compliance that does not hold, and a cell that conducts more than any should."""
    really = lab.judge.world.drive  # type: ignore[attr-defined]
    lab.judge.world.drive = lambda at, wanted: really(  # type: ignore[attr-defined]
        at, replace(wanted, limit=1.0)
    )
    lab.chip._state.conductance_s[:] = 5e-4


def _slower(lab: Lab) -> None:
    """Levels that stand ten times as long."""
    really = lab.judge.world.advance  # type: ignore[attr-defined]
    lab.judge.world.advance = lambda seconds: really(10 * seconds)  # type: ignore[attr-defined]


def _repeated(lab: Lab) -> None:
    """A driver that does everything twice and tells of the first time."""
    really = lab.driver.execute

    def execute(operation: Operation, number: int) -> Any:
        told = really(operation, number)
        really(operation, number)
        return told

    lab.driver.execute = execute  # type: ignore[method-assign]


def _stuck_at_ground(lab: Lab) -> None:
    """Relays that put the bit lines that are not selected on ground, whatever the script says."""
    judge = lab.judge
    assert isinstance(judge, MatrixJudge)
    really = judge.world.set_closed

    def set_closed(points: frozenset[tuple[str, int]]) -> None:
        others = judge.lines["bl"][1:]
        kept = {p for p in points if p[1] not in others}
        really(frozenset(kept | ({(judge.ground, c) for c in others} if points else set())))

    judge.world.set_closed = set_closed
    set_closed(judge.world._closed)


PLANTED_BEHIND_A_MATRIX: dict[str, tuple[Operation, Callable[[Lab], None]]] = {
    "bl volts": (SLOW_SET, _louder("A", 2.2)),
    "sl volts": (SLOW_RESET, _louder("A", 1.5)),
    "wl volts": (SLOW_SET, _louder("B", 1.6)),
    "gate volts": (SLOW_SET, _louder("B", 1.6)),
    "cell volts": (SLOW_SET, _louder("A", 2.08)),
    "current": (SLOW_SET, _without_limit),
    "width": (SLOW_SET, _slower),
    "energy": (SLOW_SET, _slower),
    "ledger": (SLOW_SET, _repeated),
    "told pulses": (SLOW_SET, _repeated),
    "life": (replace(SLOW_SET, repeat=5), _repeated),
    "half-selected": (SLOW_RESET, _stuck_at_ground),
}


@pytest.mark.parametrize("check", PLANTED_BEHIND_A_MATRIX)
def test_each_check_of_the_judge_of_a_matrix_sees_its_fault(
    labs: Callable[[str, Geometry], Lab], check: str
) -> None:
    lab = labs(next(iter(CHAINS)), BEHIND_A_MATRIX)
    assert lab.do(pulse_that_forms(lab.judge.geometry, 1e-3))
    operation, plant = PLANTED_BEHIND_A_MATRIX[check]
    assert lab.do(operation)
    assert lab.judge.verdicts == []
    plant(lab)
    lab.do(operation)
    assert any(verdict.startswith(f"{check}: ") for verdict in lab.judge.verdicts), (
        lab.judge.verdicts
    )


def test_the_judge_sees_a_refusal_of_many_lines(labs: Callable[[str, Geometry], Lab]) -> None:
    lab = labs("direct", Geometry(1, 3, 4))

    def refuse(*_: Any) -> Any:
        raise BenchError("one\ntwo")

    lab.engine.do = refuse  # type: ignore[method-assign]
    lab.do(READ)
    assert lab.judge.verdicts == ["refusal: one\ntwo"]
