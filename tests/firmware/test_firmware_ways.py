"""The firmware before hardware that does less: line by line, and products as sums of conversions.
On the same cells it finds what the direct chip finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import GEOMETRY, LIMITS
from chains import program
from firmware_builds import host_board

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
    Stop,
    pulse,
    read,
    read_step,
)
from rram_hil.drivers.dialects.board_codec import (
    Code,
    Kind,
    encode_multiply,
    encode_operation,
)
from rram_hil.drivers.simulated.board.firmware import (
    BY_CONVERSIONS,
    BY_SHOTS,
    STICKY_SWITCHES,
    THREE_LINES,
    WAY,
)
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.drivers.test_chip_board import TestChipBoard, TestChipBoardConfig
from rram_hil.errors import InstrumentError, LimitError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation, Timing
from rram_hil.simulation.converters import ADC_RANGES_A

pytestmark = pytest.mark.firmware

FREE = Timing(link_s=0.0, bytes_per_s=math.inf)
ALL = Cells.all(GEOMETRY)
SOME = ALL[40:70]
BODY = LIMITS.model_copy(update={"body_v": 2.0, "body_over_v": 0.2})
PMOS = replace(GEOMETRY, selector="pmos")
FORM = Apply(SOME, (Step(3.4, 0.0, 2.0, 1e-6), read_step()), stop=Stop(above_s=6e-5), repeat=3)


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a firmware that does things in a way: `wired(way, **simulation)`."""
    opened: list[Any] = []

    def start(
        way: int, limits: Limits = LIMITS, geometry: Geometry = GEOMETRY, **simulation: Any
    ) -> TestChipBoard:
        monkeypatch.setenv(WAY, str(way))
        made = Simulation(timing=FREE, firmware=str(host_board()), **simulation)
        far = launch(FarSideRequest(made, geometry, limits, "c1", Path(".")))
        board = TestChipBoard(TestChipBoardConfig(timeout_s=2.0, **far.settings), geometry, limits)
        opened.append((board, far))
        board.connect()
        board.arm()
        return board

    yield start
    for board, far in opened:
        board.close()
        far.stop()


def direct(geometry: Geometry = GEOMETRY, **simulation: Any) -> SimulatedChip:
    made = Simulation(timing=FREE, **simulation)
    return SimulatedChip(geometry, made, read_v=LIMITS.read_v, chip_id="c1")


def same(found: Any, wanted: Any) -> None:
    """Equal but for the rounding of times."""
    for f in fields(wanted):
        one, other = getattr(found, f.name), getattr(wanted, f.name)
        if f.name == "time_s":
            np.testing.assert_allclose(one, other, rtol=1e-12)
        elif isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other, err_msg=f.name)


@pytest.mark.parametrize("way", [0, BY_SHOTS])
def test_a_chips_life_is_the_same_line_by_line(wired, way):
    up = PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(2.2, 2.2), 100e-9)
    down = PulseTrain(Ramp(1.0, 3.0, 0.1), Ramp(3.5, 3.5), 200e-9)
    window = np.full(len(SOME), 5e-5), np.full(len(SOME), 7e-5)
    half = pulse(SOME, bl_v=1.2, wl_v=2.0, width_s=1e-7, read=read_step(), unselected=Scheme.HALF)
    life: list[Operation] = [
        FORM,
        read(ALL[:60], repeat=2),
        half,
        Program(SOME, *window, up, down, read_step(), 10, unselected=Scheme.THIRD),
        Apply(SOME[:3], (Step(0.2, None, 3.0, 1e-6, "current"), Step(0.1, 0.0, 2.0, 1e-6, "gate"))),
        read(SOME),
    ]
    board, chip = wired(way), direct()
    for number, operation in enumerate(life, 1):
        same(board.execute(operation, number), chip.execute(operation, number))
        np.testing.assert_array_equal(
            board.executed(number, operation.cells), chip.executed(number, operation.cells)
        )


def lives(board: TestChipBoard, chip: SimulatedChip, life: list[Operation]) -> None:
    """Both go through these operations, with the same results and the same cells at the end."""
    for number, operation in enumerate(life, 1):
        same(board.execute(operation, number), chip.execute(operation, number))
    wanted = chip.execute(read(Cells.all(chip.geometry)), len(life) + 1)
    same(board.execute(read(Cells.all(chip.geometry)), len(life) + 1), wanted)


@pytest.mark.parametrize("way", [0, BY_SHOTS])
def test_bodies_other_gates_and_both_currents_are_those_of_the_chip(wired, way):
    """Other gates that open in writing leave something on cells of other rows."""
    reading = replace(read_step(), body_v=-0.5)
    both = replace(reading, also_gate=True)
    up = PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(2.2, 2.2), 100e-9, -0.5, 1.1)
    down = PulseTrain(Ramp(1.0, 3.0, 0.1), Ramp(3.5, 3.5), 200e-9, None, 1.0)
    window = np.full(len(SOME), 5e-5), np.full(len(SOME), 7e-5)
    stopped = Apply(SOME, (Step(2.0, 0.0, 2.0, 1e-6, "no", -1.5, 1.5), both), stop=Stop(6e-5))
    life: list[Operation] = [
        FORM,
        read(SOME, replace(both, unselected_wl_v=0.6), repeat=2),
        Apply(SOME, (replace(both, wl_v=3.0), Step(0.1, 0.0, 2.0, 1e-6, "gate"), read_step())),
        stopped,
        Program(SOME, *window, up, down, reading, 10, unselected=Scheme.THIRD),
    ]
    lives(wired(way, BODY), direct(), life)


@pytest.mark.parametrize("way", [0, BY_SHOTS])
def test_pmos_selectors_are_those_of_the_chip(wired, way):
    up = PulseTrain(Ramp(1.2, 3.0, 0.1), Ramp(-0.5, -0.5), 100e-9)
    down = PulseTrain(Ramp(1.0, 3.0, 0.1), Ramp(-1.0, -1.0), 200e-9, 3.0, 3.0)
    reading = Step(0.2, 0.0, -2.5, 1e-6, "current", unselected_wl_v=1.0)
    window = np.full(len(SOME), 5e-5), np.full(len(SOME), 7e-5)
    life: list[Operation] = [
        Apply(SOME, (Step(3.4, 0.0, 0.5, 1e-6), reading), stop=Stop(above_s=6e-5), repeat=3),
        Program(SOME, *window, up, down, reading, 10, unselected=Scheme.HALF),
        read(SOME, replace(reading, unselected_wl_v=None)),
        CodedRead((Block(0, 0, 4, 0, 6),), wl_v=-3.0),
    ]
    limits = BODY.model_copy(update={"body_v": 3.0})
    board = wired(way, limits, PMOS)
    lives(board, direct(PMOS), life[:-1])
    found = board.execute(life[-1], 9)
    assert np.isfinite(found.conductance_s).all()


def test_a_hook_that_is_missing_takes_its_ability_away(wired):
    board = wired(BY_SHOTS | THREE_LINES, BODY)
    assert board.capabilities.step_extras == frozenset()
    levels = (replace(read_step(), body_v=-0.5), replace(read_step(), unselected_wl_v=0.5))
    for step in (*levels, replace(read_step(), also_gate=True)):
        kind, payload = encode_operation(read(SOME, step), 1, GEOMETRY)
        with pytest.raises(InstrumentError, match="is not available on this board") as refused:
            board._transact(kind, payload)
        assert refused.value.code == Code.RANGE
    with pytest.raises(InstrumentError, match="no command of type 11"):
        board._transact(Kind.BODY_LIMITS)
    assert board.execute(read(SOME), 1).status.shape == (30, 1)


def test_outputs_that_stay_on_are_told_and_disarm_the_board(wired):
    board = wired(STICKY_SWITCHES)
    with pytest.raises(InstrumentError, match="OUTPUTS ARE STILL ON"):
        board.execute(read(SOME), 1)
    status = board.status()
    assert (status.outputs_on, status.armed) == (True, False)
    with pytest.raises(InstrumentError, match="not armed"):
        board.execute(read(SOME), 2)
    with pytest.raises(InstrumentError, match="outputs are not confirmed off"):
        board.arm()


ON_THEIR_WAY = [
    (Step(1.1, 1.0, 3.0, 1e-6, "current"), "SL, which stands alone before BL rises, 1 V"),
    (Step(-1.1, -1.0, 1.0, 1e-6), "SL, which stands alone before BL rises, -1 V"),
    (Step(1.5, 0.2, 4.1, 1e-6), "WL above lines that are still at 0 V 4.1 V"),
    (
        Step(-0.1, 0.0, -0.9, 1e-6, "no", -4.5, -1.0),
        "gates at 0 V above the body, which stands alone first, 4.5 V",
    ),
]


def test_what_lines_would_do_on_their_way_is_refused_where_they_rise_one_by_one(wired):
    limits = BODY.model_copy(update={"gate_over_v": 4.0, "body_v": 5.0})
    board = wired(BY_SHOTS, limits)
    for step, what in ON_THEIR_WAY:
        with pytest.raises(LimitError, match=what):
            board.execute(Apply(SOME[:2], (step,)), 1)
    assert board.last_number() == 0
    together = wired(0, limits)
    for number, (step, _) in enumerate(ON_THEIR_WAY, 1):
        assert together.execute(Apply(SOME[:2], (step,)), number).pulses.shape == (2,)


def test_a_product_with_floating_gates_is_refused(wired):
    board = wired(BY_CONVERSIONS)
    request = bytearray(encode_multiply(Multiply(0, 0, 0, 2, np.ones((1, 2), dtype=np.int16)), 1))
    request[32:36] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(Exception, match=r"WL -2147\.48 V is beyond the limit of 5 V"):
        board._transact(Kind.MULTIPLY, bytes(request))


def test_a_sum_of_conversions_is_a_product(wired):
    board, chip = wired(BY_CONVERSIONS, read_noise=False), direct(read_noise=False)
    assert board.execute(FORM, 1).status.shape == chip.execute(FORM, 1).status.shape
    codes = np.random.default_rng(3).integers(-127, 128, (6, 16)).astype(np.int16)
    for number, words in ((2, False), (3, True)):
        operation = Multiply(0, 0, 3, 5, codes, full_scale_a=2e-4, words=words)
        found, wanted = board.execute(operation, number), chip.execute(operation, number)
        # Half a step of each conversion and of each level, and that of the sum itself.
        step_a = ADC_RANGES_A[2] / 2047
        steps = (16 * step_a / 2 + 16 * 6e-4 * 1e-4) / found.lsb_a + 1
        assert np.abs(found.codes - wanted.codes).max() <= steps
        np.testing.assert_array_equal(found.word_sums, wanted.word_sums)


@pytest.mark.parametrize("way", [0, BY_SHOTS | BY_CONVERSIONS])
def test_a_body_below_its_lines_holds_products_back(wired, way):
    board, chip = wired(way, BODY, read_noise=False), direct(read_noise=False)
    assert board.execute(FORM, 1).status.shape == chip.execute(FORM, 1).status.shape
    inputs = np.full((1, 16), 127, dtype=np.int16)
    free = Multiply(0, 0, 3, 5, inputs, wl_v=1.0, full_scale_a=2e-4)
    held = replace(free, body_v=-1.5, unselected_wl_v=-0.2)
    seen = []
    for number, operation in enumerate((free, held), 2):
        found, wanted = board.execute(operation, number), chip.execute(operation, number)
        assert np.abs(found.codes - wanted.codes).max() <= (0 if way == 0 else 16)
        seen.append(np.abs(wanted.codes).max())
    assert seen[1] < 0.9 * seen[0]


def test_bodies_that_stand_alone_before_conversions_are_refused(wired):
    limits = BODY.model_copy(update={"gate_over_v": 1.6})
    product = Multiply(0, 0, 0, 2, np.ones((1, 2), np.int16), wl_v=-0.4, body_v=-1.8)
    low = replace(product, unselected_wl_v=-0.4)
    with pytest.raises(LimitError, match=r"gates at 0 V above the body, which stands alone first"):
        wired(BY_SHOTS | BY_CONVERSIONS, limits).execute(low, 1)
    assert wired(0, limits).execute(low, 1).codes.shape == (1, 2)


def test_blocks_are_read_by_sums_of_conversions(wired):
    board = wired(BY_CONVERSIONS)
    board.execute(FORM, 1)
    found = board.execute(CodedRead((Block(0, 1, 2, 2, 4),)), 2)
    singly = board.execute(read(found_cells := Block(0, 1, 2, 2, 4).cells, repeat=20), 3)
    mean = singly.conductance_s.mean(axis=1)
    assert len(found_cells) == 8
    assert (np.abs(found.conductance_s - mean) < 0.01 * mean + 8 * found.sigma_s + 1e-7).all()


def test_the_target_recipe_ends_inside_its_windows():
    found = program("board", "1T1R", 16, firmware=host_board())
    assert found.cells == 235
    assert found.inside >= 0.994
