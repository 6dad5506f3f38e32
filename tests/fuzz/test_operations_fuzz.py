"""Random operations on simulated benches: whatever is asked, no limit is passed at any cell, and
what was given is counted.

`python -m pytest -m fuzz tests/fuzz/test_operations_fuzz.py` takes about a minute (`.ci/run` does);
by hand, with `--hypothesis-profile=long`, about ten.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from far_side_judge import Judge
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
from rram_hil.drivers.simulated import test_chip_board as far_board
from rram_hil.drivers.simulated_array import SimulatedArray, SimulatedArrayConfig, launch
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
LIMITS = LIMITS.model_copy(update={"conductance_s": [0.0, 4e-4]})
GEOMETRIES = [
    Geometry(2, 3, 4),
    Geometry(1, 3, 4, source_lines="common"),
    Geometry(1, 3, 3, source_lines="column"),
    Geometry(1, 3, 4, "1R"),
]
SIMULATION = Simulation(converters=False)


class Lab:
    """A bench under the judge: engine and ledger before a driver, its far side in this process."""

    def __init__(
        self,
        driver: Driver,
        chip: Any,
        geometry: Geometry,
        folder: Path,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self.driver, self.chip, self._end = driver, chip, end
        driver.connect()
        driver.arm()
        self.judge = Judge(geometry, LIMITS, chip)
        path = folder / "chip.ledger"
        path.unlink(missing_ok=True)
        self.ledger = Ledger(path, geometry, "fuzz", limit=LIMITS.pulses_per_cell)
        self.engine = Engine(driver, geometry, LIMITS, self.ledger)

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
    return Lab(driver, driver.chip, geometry, folder)


def over_a_link(geometry: Geometry, folder: Path) -> Lab:
    """The board behind its protocol, served by a thread."""
    board = far_board.board(FarSideRequest(SIMULATION, geometry, LIMITS, "fuzz", folder))
    threading.Thread(target=board.serve, daemon=True).start()
    config = TestChipBoardConfig(port=str(board.addresses["resource"]))
    return Lab(TestChipBoard(config, geometry, LIMITS), board.chip, geometry, folder, board.close)


BENCHES: dict[str, Callable[[Geometry, Path], Lab]] = {"direct": direct, "board": over_a_link}

VOLTS = st.one_of(
    st.sampled_from([0.0, 0.2, 0.25, -0.2, 0.6, 1.2, 2.0, 2.4, 2.8, 3.2, 4.0, 4.1, -1.0, -2.0]),
    st.floats(-5, 5),
    st.sampled_from([math.nan, math.inf, 1e300, -4.2]),
)
USUAL_V = st.sampled_from([0.0, 0.2, 1.2, 2.0, 2.4, 2.8, 3.4, 4.0])
WIDTHS = st.one_of(
    st.sampled_from([1e-7, 1e-6, 1e-5]), st.floats(0, 1e-2), st.sampled_from([0.0, -1e-6, 1e9])
)
COUNTS = st.one_of(st.integers(1, 6), st.sampled_from([0, 39, 41, 2**40, 2**62, 10**30]))


def some_cells(draw: st.DrawFn, geometry: Geometry) -> Cells:
    at = draw(st.lists(st.integers(0, geometry.size - 1), min_size=1, max_size=5, unique=True))
    return Cells.from_index(np.array(at), geometry)


def a_step(draw: st.DrawFn, n: int) -> Step:
    volts = USUAL_V if draw(st.integers(0, 2)) else VOLTS
    level = st.one_of(volts, st.none(), st.lists(volts, min_size=n, max_size=n).map(np.array))
    kind = draw(st.sampled_from(["pulse", "pulse", "any"]))
    measure = draw(st.sampled_from(["no", "current", "gate"]))
    width = draw(WIDTHS if kind == "any" else st.sampled_from([1e-7, 1e-6]))
    if kind == "any":
        return Step(draw(level), draw(level), draw(level), width, measure)
    line = draw(st.sampled_from(["bl", "sl"]))
    levels = {"bl": 0.0, "sl": 0.0, line: draw(volts)}
    return Step(levels["bl"], levels["sl"], draw(volts), width, measure)


@st.composite
def operations(draw: st.DrawFn, geometry: Geometry) -> Operation | None:
    """One operation; None where it is refused when it is made."""
    with contextlib.suppress(BenchError):
        return _operation(draw, geometry)
    return None


def _operation(draw: st.DrawFn, geometry: Geometry) -> Operation:
    cells = some_cells(draw, geometry)
    n = len(cells)
    scheme = draw(st.sampled_from(list(Scheme)))
    compliance = draw(st.sampled_from([None, None, 1e-4, 4e-4, 1e-2, 0.0, math.nan]))
    kinds = ["apply", "apply", "apply", "program", "multiply", "coded", "rest"]
    kind = draw(st.sampled_from(kinds))
    if kind == "apply":
        steps = tuple(a_step(draw, n) for _ in range(draw(st.integers(1, 3))))
        stop = draw(st.sampled_from([None, None, Stop(above_s=1e-5)]))
        stop = stop if any(s.measure == "current" for s in steps) else None
        return Apply(cells, steps, scheme, compliance, stop, draw(COUNTS))
    if kind == "program":
        volts = USUAL_V if draw(st.booleans()) else VOLTS
        trains = [
            PulseTrain(
                Ramp(draw(volts), draw(volts), draw(st.sampled_from([0.0, 0.1, -0.1, 1.0]))),
                Ramp(draw(volts), draw(volts), draw(st.sampled_from([0.0, 0.1]))),
                draw(WIDTHS),
            )
            for _ in range(2)
        ]
        low = draw(st.sampled_from([0.0, 2e-5, 1e-4, 1e-2]))
        verify = draw(st.sampled_from(["single", "single", "coded"]))
        on_board = draw(st.sampled_from(["never", "allowed"]))
        read = replace(read_step(), bl_v=draw(st.sampled_from([0.2, 0.2, 0.25, 0.3, -0.2])))
        return Program(
            cells, low, low * 1.2 + 1e-6, trains[0], trains[1], read, draw(COUNTS),
            unselected=scheme, compliance_a=compliance, on_board=on_board, verify=verify,
        )  # fmt: skip
    read_v = draw(st.sampled_from([0.2, 0.2, 0.25, 0.3, 2.4, -0.2, math.nan]))
    wl_v = draw(USUAL_V)
    if kind == "multiply":
        rows = draw(st.integers(1, geometry.rows))
        inputs = draw(st.lists(st.integers(-127, 127), min_size=2 * rows, max_size=2 * rows))
        scale = draw(st.sampled_from([1e-3, 1e-5, 1e-300, 1e300]))
        return Multiply(
            draw(st.integers(0, geometry.tiles)), draw(st.integers(-1, 1)), 0,
            draw(st.integers(0, geometry.columns)), np.array(inputs).reshape(2, rows), 8, read_v,
            wl_v, scale,
        )  # fmt: skip
    if kind == "coded":
        block = Block(0, 0, geometry.rows, 0, draw(st.integers(1, geometry.columns + 1)))
        return CodedRead((block,), read_v, wl_v, draw(st.sampled_from([1, 2, 10**30])))
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


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"{g.cell}-{g.source_lines}")
@pytest.mark.parametrize("bench", BENCHES)
def test_no_operation_passes_a_limit_at_any_cell(
    labs: Callable[[str, Geometry], Lab], bench: str, geometry: Geometry
) -> None:
    formed = pulse_that_forms(geometry)

    @settings(deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(operations(geometry), min_size=1, max_size=12), st.booleans())
    def try_them(asked: list[Operation | None], form: bool) -> None:
        lab = labs(bench, geometry)
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


def pulse_that_forms(geometry: Geometry) -> Apply:
    """Makes most cells conduct, within the limits of a 1T1R array."""
    step = Step(4.0, 0.0, 2.0, 1e-6)
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
}  # fmt: skip


@pytest.mark.parametrize("bench", BENCHES)
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


def test_the_judge_sees_a_refusal_of_many_lines(labs: Callable[[str, Geometry], Lab]) -> None:
    lab = labs("direct", Geometry(1, 3, 4))

    def refuse(*_: Any) -> Any:
        raise BenchError("one\ntwo")

    lab.engine.do = refuse  # type: ignore[method-assign]
    lab.do(READ)
    assert lab.judge.verdicts == ["refusal: one\ntwo"]
