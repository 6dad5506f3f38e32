"""The firmware's own look at an operation comes to the same verdict as the limits of the bench,
whatever the selectors and wherever bodies and unselected word lines stand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from firmware_builds import host_board
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    Volts,
    check,
)
from rram_hil.drivers.dialects.board_codec import Code, encode_operation
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.drivers.test_chip_board import TestChipBoard, TestChipBoardConfig
from rram_hil.errors import InstrumentError, LimitError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation, Timing

pytestmark = pytest.mark.firmware

LIMITS = Limits(
    bl_v=2.5,
    sl_v=2.0,
    wl_v=3.0,
    cell_v=2.2,
    gate_over_v=2.4,
    half_select_v=1.2,
    read_v=0.3,
    current_a=1e-3,
    energy_j=1e-8,
    width_s=1e-3,
    read_width_s=1e-4,
    pulses_per_cell=5,
    body_v=1.5,
    body_over_v=0.4,
)
CHIPS = [
    Geometry(2, 3, 4, source_lines="common"),
    Geometry(2, 3, 4, source_lines="row"),
    Geometry(2, 3, 4, source_lines="row", selector="pmos"),
    Geometry(2, 3, 4, source_lines="column", selector="pmos"),
]
SCHEMES = st.sampled_from(list(Scheme))
CELLS = Cells.of([(0, 0, 1), (0, 2, 3), (0, 2, 1), (1, 0, 1)])


def tenths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda tenth: tenth / 10)


BODIES = st.one_of(st.none(), tenths(-14, 14))
IDLE = st.one_of(st.none(), tenths(-24, 24))
WIDTHS = st.sampled_from([1e-6, 2e-6, 5e-5, 5e-4, 5e-3])


def volts(low: int, high: int) -> st.SearchStrategy[Volts]:
    """A line that floats, or one level for all cells, or one each."""
    each = st.lists(tenths(low, high), min_size=4, max_size=4).map(np.array)
    return st.one_of(st.none(), tenths(low, high), tenths(low, high), each)


STEPS = st.builds(
    Step,
    volts(-13, 13),
    volts(-9, 9),
    volts(-26, 26),
    WIDTHS,
    st.just("current"),
    BODIES,
    IDLE,
    st.booleans(),
)
APPLIES = st.builds(
    lambda steps, scheme, compliance_a, repeat: Apply(
        CELLS, tuple(steps), scheme, compliance_a, repeat=repeat
    ),
    st.lists(STEPS, min_size=1, max_size=2),
    SCHEMES,
    st.sampled_from([None, 1e-5]),
    st.integers(1, 3),
)


def trains(sign: int) -> st.SearchStrategy[PulseTrain]:
    amplitude = st.builds(Ramp, tenths(4, 8), tenths(8, 14), st.just(0.1))
    gate = st.builds(Ramp, tenths(6, 10), tenths(8, 24), st.just(0.1))
    signed = gate.map(lambda g: Ramp(sign * g.start_v, sign * g.stop_v, sign * g.step_v))
    width_s = st.sampled_from([1e-6, 5e-6])
    return st.builds(PulseTrain, amplitude, signed, width_s, BODIES, IDLE)


def programs(sign: int) -> st.SearchStrategy[Operation]:
    reads = st.builds(
        Step,
        st.sampled_from([0.2, np.array([0.1, 0.3, 0.2, 0.2])]),
        st.just(0.0),
        st.just(2.0 * sign),
        WIDTHS,
        st.just("current"),
        BODIES,
        IDLE,
    )
    return st.builds(
        lambda up, down, read, most, scheme: Program(
            CELLS, 2e-5, 4e-5, up, down, read, most, 3, 0, scheme
        ),
        trains(sign),
        trains(sign),
        reads,
        st.sampled_from([1, 3, np.array([0, 2, 5, 4])]),
        SCHEMES,
    )


def products() -> st.SearchStrategy[Operation]:
    """Of one block, by a multiply and by a coded read."""
    inputs = np.array([[127, -3], [0, 5]], dtype=np.int16)
    volts = tenths(1, 3), tenths(-24, 24), BODIES, IDLE
    multiplies = st.builds(
        lambda read_v, wl_v, body, idle: Multiply(
            *(0, 1, 2, 2, inputs, 8, read_v, wl_v), body_v=body, unselected_wl_v=idle
        ),
        *volts,
    )
    coded = st.builds(
        lambda read_v, wl_v, body, idle: CodedRead(
            (Block(0, 1, 2, 2, 2),), read_v, wl_v, body_v=body, unselected_wl_v=idle
        ),
        *volts,
    )
    return st.one_of(multiplies, coded)


@pytest.fixture(
    scope="module", params=CHIPS, ids=lambda chip: f"{chip.selector}-{chip.source_lines}"
)
def board(request: pytest.FixtureRequest) -> Iterator[TestChipBoard]:
    free = Timing(link_s=0.0, bytes_per_s=math.inf)
    made = Simulation(timing=free, firmware=str(host_board()))
    far = launch(FarSideRequest(made, request.param, LIMITS, "c1", Path(".")))
    wire = TestChipBoard(TestChipBoardConfig(**far.settings), request.param, LIMITS)
    wire.connect()
    wire.arm()
    yield wire
    wire.close()
    far.stop()


def is_allowed(operation: Operation, geometry: Geometry) -> bool:
    try:
        check(operation, geometry, LIMITS)
    except LimitError:
        return False
    return True


def verdict(board: TestChipBoard, operation: Operation) -> bool:
    """Whether an operation is allowed, by the limits of the bench and by the board."""
    kind, payload = encode_operation(operation, board.last_number() + 1, board.geometry)
    if is_allowed(operation, board.geometry):
        board._transact(kind, payload)  # past the driver's own look
        return True
    with pytest.raises(InstrumentError) as error:
        board._transact(kind, payload)
    assert error.value.code == Code.LIMIT, error.value
    return False


def test_pulses_on_rows_beside_are_counted(board: TestChipBoard) -> None:
    """0.5 V stand across no selected cell, but across others where not both lines stand alike."""
    chip = board.geometry
    sign = chip.polarity
    step = Step(0.5 * sign, 0.5 * sign, 1.5 * sign, 1e-6, "no", None, 0.9 * sign)
    cells = Cells.of([(0, 0, 1), (0, 1, 1)])
    for repeat, allowed in ((2, True), (3, chip.source_lines == "column")):
        operation = Apply(cells, (step,), Scheme.GROUNDED, repeat=repeat)
        assert verdict(board, operation) == allowed


def test_what_the_middle_of_a_ramp_leaves_on_other_columns_counts(board: TestChipBoard) -> None:
    chip = board.geometry
    sign = chip.polarity
    up = PulseTrain(Ramp(0.4, 0.4), Ramp(2.0 * sign, 2.0 * sign), 1e-6)
    down = replace(up, amplitude_v=Ramp(0.4, 1.2, 0.1), unselected_wl_v=0.5 * sign)
    reading = Step(0.2, 0.0, 2.0 * sign, 1e-6, "current")
    for row, allowed in ((0, True), (1, False)):
        cells = Cells.of([(0, 0, 0), (0, row, 1)][: 1 + row])
        operation = Program(cells, 2e-5, 4e-5, up, down, reading, 3, unselected=Scheme.HALF)
        told = verdict(board, operation)
        if chip.source_lines == "common":
            assert told == allowed


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_both_judges_come_to_the_same_verdict(board: TestChipBoard, data: st.DataObject) -> None:
    sign = board.geometry.polarity
    kinds = [APPLIES, programs(sign)]
    if board.geometry.source_lines == "row":  # others multiply nothing
        kinds.append(products())
    operation = data.draw(st.one_of(kinds))
    verdict(board, operation)
