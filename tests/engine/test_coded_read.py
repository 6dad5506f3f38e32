"""Maps read by codes: the chip's own, the host's over multiplies, and cell by cell agree with the
truth as their uncertainties say; write-verify by codes.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Result,
    Status,
    Wait,
    pulse,
    read,
    read_step,
)
from rram_hil.array.coded_read import code_order
from rram_hil.engine.lowering import lower
from rram_hil.errors import AbortedError, ConfigError
from rram_hil.hardware.driver import Capabilities
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.converters import ADC_RANGES_A, DAC_STEP_V

FloatArray = NDArray[np.float64]
LIMITS = Limits(
    bl_v=5.0,
    sl_v=5.0,
    wl_v=5.0,
    cell_v=5.0,
    gate_over_v=5.0,
    half_select_v=5.0,
    read_v=0.3,
    current_a=1e-2,
    energy_j=1.0,
    width_s=1.0,
    pulses_per_cell=1000,
)
NEVER = 1e-9
"""Chance with which a law that holds is found broken; the draws are the same each time."""


class Lab:
    """A chip of one tile, formed, all its cells set to conductances of their own, at rest."""

    def __init__(self, rows: int, columns: int, device: str = "paper", **simulation: Any) -> None:
        self.geometry = Geometry(1, rows, columns)
        settings = Simulation(device=device, **simulation)
        self.chip = SimulatedChip(self.geometry, settings, read_v=0.3, chip_id="c")
        self.can: Capabilities = self.chip.capabilities
        self.cells = Cells.all(self.geometry)
        self.number = 0
        self.natives: list[Operation] = []
        gate = np.random.default_rng(settings.seed).uniform(1.9, 2.8, len(self.cells))
        self.do(pulse(self.cells, bl_v=3.8, wl_v=2.4, width_s=1e-6))
        self.do(pulse(self.cells, bl_v=2.0, wl_v=gate, width_s=1e-7))
        self.do(Wait(1e5))

    def do(self, operation: Operation) -> Any:
        lowered = lower(operation, self.can, LIMITS)
        try:
            native = next(lowered)
            while True:
                self.natives.append(native)
                self.number += 1
                result: Result = self.chip.execute(native, self.number)
                native = lowered.send(result)
        except StopIteration as stop:
            return stop.value

    @property
    def truth_s(self) -> FloatArray:
        """What very many readings give in the mean, telegraph steps included."""
        g = self.chip.conductance_s().ravel()
        if not self.chip.simulation.read_noise:
            return np.asarray(g)
        return self.chip.cells.read_moments(np.arange(g.size), g)[0]

    def lacking(self, way: str) -> Lab:
        """The same with less on the board."""
        if way != "board":
            self.can = replace(self.can, coded_read=False)
        if way == "cells":
            top = (1 << (self.can.adc_bits - 1)) - 1
            self.can = replace(
                self.can,
                multiply=False,
                read_fraction=DAC_STEP_V / 2 / 0.2 + 10 * 0.5 / top,
                read_floor_a=0.5 * ADC_RANGES_A[0] / top,
            )
        return self


def assert_as_uncertain_as_they_say(z: FloatArray, freedom: int) -> None:
    """Columns of `z`, shape (rows, columns), have one sigma each, of `freedom` degrees of freedom:
    their mean squares are F-distributed.
    """
    rows, columns = z.shape
    squares = np.mean(z**2, axis=0)
    above = stats.f.sf(squares, rows, freedom)
    assert NEVER / columns < above.min()
    assert above.max() < 1 - NEVER / columns or rows == 1
    # All columns together (Fisher).
    evidence = -2 * np.log(above).sum()
    low, high = stats.chi2.ppf([NEVER, 1 - NEVER], 2 * columns)
    assert low < evidence < high


noisy = st.fixed_dictionaries(
    {
        "device": st.sampled_from(["paper", "hfo2", "hfo2-measured"]),
        "adc_bits": st.integers(12, 16),
        "seed": st.integers(1, 1000),
        "signed_inputs": st.booleans(),
    }
)


@settings(max_examples=40, derandomize=True)
@given(noisy, st.integers(1, 100), st.integers(1, 40), st.floats(0.1, 0.3), st.integers(1, 3))
@pytest.mark.parametrize("way", ["board", "multiply"])
def test_coded_maps_are_as_uncertain_as_they_say(
    way: Literal["board", "multiply"],
    keys: dict[str, Any],
    rows: int,
    columns: int,
    read_v: float,
    repeat: int,
) -> None:
    lab = Lab(rows, columns, **keys).lacking(way)
    operation = CodedRead((Block(0, 0, rows, 0, columns),), read_v, repeat=repeat)
    found: CodedReadResult = lab.do(operation)
    assert found.way == way
    assert (found.status == Status.OK).all()
    z = ((found.conductance_s - lab.truth_s) / found.sigma_s).reshape(rows, columns)
    assert_as_uncertain_as_they_say(z, code_order(rows) - 1 - rows)


@settings(max_examples=40, derandomize=True)
@given(noisy, st.integers(1, 40), st.integers(1, 20), st.integers(2, 20))
def test_cells_read_singly_are_at_least_as_certain_as_they_say(
    keys: dict[str, Any], rows: int, columns: int, repeat: int
) -> None:
    lab = Lab(rows, columns, **keys).lacking("cells")
    block = Block(0, 0, rows, 0, columns)
    found: CodedReadResult = lab.do(CodedRead((block,), repeat=repeat, cell_read=read_step()))
    assert found.way == "cells"
    assert found.reads == rows * columns * repeat
    z = np.abs(found.conductance_s - lab.truth_s) / found.sigma_s
    # What the instrument states is no scatter: readings are better than that, and never worse.
    beyond = stats.t.sf(z, repeat - 1)
    assert beyond.min() > NEVER / z.size
    assert np.mean(z**2 > 1) < 0.5


@pytest.mark.long
@settings(max_examples=60, derandomize=True)
@given(
    noisy,
    st.integers(6, 16),
    st.booleans(),
    st.integers(1, 100),
    st.sampled_from([0.05, 0.2]),
    st.sampled_from(["board", "multiply"]),
)
def test_coarse_converters_and_no_noise_are_not_hidden(
    keys: dict[str, Any], adc_bits: int, noise: bool, rows: int, read_v: float, way: str
) -> None:
    lab = Lab(rows, 60, **keys | {"adc_bits": adc_bits, "read_noise": noise}).lacking(way)
    found: CodedReadResult = lab.do(CodedRead((Block(0, 0, rows, 0, 60),), read_v))
    z = (found.conductance_s - lab.truth_s) / found.sigma_s
    # Rounding errors of few rows are not Gaussian and sigma errs on the safe side there: the square
    # of z has the mean 16/14 at most, of which 60 columns leave some uncertainty.
    assert 0.3 < np.sqrt(np.mean(z**2)) < 1.4
    assert np.abs(z).max() < 12


def test_all_ways_read_the_same_map() -> None:
    found = {}
    for way in ("board", "multiply", "cells"):
        lab = Lab(64, 32, "hfo2").lacking(way)
        operation = CodedRead((Block(0, 0, 64, 0, 32),), cell_read=read_step(), repeat=4)
        found[way] = lab.do(operation)
    for a, b in (("board", "multiply"), ("board", "cells"), ("multiply", "cells")):
        off = found[a].conductance_s - found[b].conductance_s
        z = off / np.hypot(found[a].sigma_s, found[b].sigma_s)
        assert np.sqrt(np.mean(z**2)) < 1.3


def test_codes_from_the_host_are_the_chips_own() -> None:
    own, hosted = Lab(40, 12), Lab(40, 12).lacking("multiply")
    operation = CodedRead((Block(0, 0, 40, 0, 5), Block(0, 3, 20, 5, 7)))
    a, b = own.do(operation), hosted.do(operation)
    for name in ("conductance_s", "sigma_s", "status", "full_scale_a", "vectors"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert own.chip.now_s == pytest.approx(hosted.chip.now_s, rel=1e-12)
    assert {type(o) for o in hosted.natives[3:]} == {Multiply}


def test_blocks_too_large_for_the_board_go_in_parts_or_by_the_host() -> None:
    whole, parts, hosted = Lab(20, 12), Lab(20, 12), Lab(20, 12)
    parts.can = replace(parts.can, max_coded_cells=100)
    hosted.can = replace(hosted.can, max_coded_cells=79)
    operation = CodedRead(tuple(Block(0, 0, 20, 4 * k, 4) for k in range(3)))
    expected = whole.do(operation)
    for lab, way in ((parts, "board"), (hosted, "multiply")):
        found = lab.do(operation)
        assert found.way == way
        assert np.array_equal(found.conductance_s, expected.conductance_s)
    assert len(parts.natives) == 3 + 3


@pytest.mark.parametrize("device", ["hfo2", "hfo2-measured"])
def test_cells_that_still_relax_are_read_as_they_are_meanwhile(device: str) -> None:
    lab = Lab(64, 40, device)
    lab.do(pulse(lab.cells, bl_v=2.0, wl_v=2.4, width_s=1e-7))
    before = lab.truth_s
    found = lab.do(CodedRead((Block(0, 0, 64, 0, 40),), repeat=20))
    after = lab.truth_s
    low, high = np.minimum(before, after), np.maximum(before, after)
    beyond = np.maximum(found.conductance_s - high, low - found.conductance_s)
    assert np.sqrt(np.mean(np.maximum(beyond / found.sigma_s, 0) ** 2)) < 1.1


def test_without_a_multiply_a_coded_read_says_what_it_needs() -> None:
    lab = Lab(4, 4).lacking("cells")
    with pytest.raises(ConfigError, match="a coded read needs a multiply"):
        lab.do(CodedRead((Block(0, 0, 4, 0, 4),)))
    with pytest.raises(ConfigError, match="coded verify needs a multiply"):
        lab.do(program(lab.cells))


SET, RESET = (
    PulseTrain(Ramp(1.6, 2.4, 0.1), Ramp(2.0, 3.0, 0.05), 1e-7),
    PulseTrain(Ramp(1.6, 2.8, 0.1), Ramp(3.0, 3.5, 0.05), 1e-7),
)


def program(cells: Cells, verify: Literal["single", "coded"] = "coded", **more: Any) -> Program:
    target = np.linspace(20e-6, 90e-6, len(cells))
    made = Program(cells, target - 4e-6, target + 4e-6, SET, RESET, read_step(), 40, 12)
    return replace(made, verify=verify, **more)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"confirm": 3},
        {"max_pulses": 3},
        {"max_pulses": np.arange(160) % 7},
        {"max_reversals": 0},
    ],
)
def test_write_verify_by_codes_is_the_same_on_the_board_and_from_the_host(
    more: dict[str, Any],
) -> None:
    own, hosted, multiplied = Lab(16, 10), Lab(16, 10), Lab(16, 10).lacking("multiply")
    found: ProgramResult = own.do(program(own.cells, **more))
    never: ProgramResult = hosted.do(program(hosted.cells, on_board="never", **more))
    lowered: ProgramResult = multiplied.do(program(multiplied.cells, **more))
    assert [type(o) for o in own.natives[3:]] == [Program]
    assert {type(o) for o in hosted.natives[3:]} == {CodedRead, Apply}
    assert {type(o) for o in multiplied.natives[3:]} == {Multiply, Apply}
    for other in (never, lowered):
        for name in ("conductance_s", "status", "inside", "set_pulses", "reset_pulses", "reads"):
            assert np.array_equal(getattr(found, name), getattr(other, name)), name
        assert found.vectors == other.vectors > 0
    assert np.array_equal(own.chip.pulses, hosted.chip.pulses)
    # Budgets, confirmations and reversals as with single reads.
    single: ProgramResult = Lab(16, 10).do(program(own.cells, "single", **more))
    assert (found.pulses <= np.broadcast_to(more.get("max_pulses", 40), found.pulses.shape)).all()
    assert (found.reads > more.get("confirm", 0))[found.inside].all()
    assert abs(int(found.inside.sum()) - int(single.inside.sum())) <= 20
    if "max_reversals" in more:
        assert (np.minimum(found.set_pulses, found.reset_pulses) == 0).all()
    elif "max_pulses" not in more:
        responsive = own.chip.stuck.ravel() == 0
        assert found.inside[responsive].mean() > 0.5
        assert not found.inside[~responsive & (found.pulses > 0)].any()


def test_cells_that_codes_put_inside_are_inside() -> None:
    lab = Lab(32, 16, "hfo2-measured")
    asked = program(lab.cells)
    found: ProgramResult = lab.do(asked)
    sigma = lab.do(CodedRead((Block(0, 0, 32, 0, 16),))).sigma_s
    g = lab.chip.conductance_s().ravel()
    off = np.maximum(asked.low_s - g, g - asked.high_s)[found.inside]
    assert found.inside.mean() > 0.8
    assert (off < 8 * sigma[found.inside] + 1e-6).mean() > 0.95


class Late(threading.Event):
    """Is set once it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", [0, 1, 3, 5, 20, 40, 80, 200])
def test_counters_are_right_wherever_a_coded_verify_is_cancelled(looks: int) -> None:
    lab = Lab(16, 10)
    before = lab.chip.pulses.ravel().copy()
    found = lab.chip.execute(program(lab.cells), 7, Late(looks))
    assert isinstance(found, ProgramResult)
    given = lab.chip.pulses.ravel() - before
    assert np.array_equal(found.pulses, given)
    assert np.array_equal(lab.chip.executed(7, lab.cells), given)
    assert (found.status[found.reads == 0] == Status.NOT_RUN).all()


def test_a_cancelled_coded_read_changes_nothing() -> None:
    lab = Lab(16, 10)
    before = lab.chip.conductance_s().copy()
    with pytest.raises(AbortedError):
        lab.chip.execute(CodedRead((Block(0, 0, 16, 0, 10),)), 9, Late(0))
    assert np.array_equal(lab.chip.conductance_s(), before)


def test_a_chip_without_negative_inputs_refuses_them_and_is_lowered_to() -> None:
    lab, plain = Lab(8, 4, signed_inputs=False), Lab(8, 4)
    inputs = np.array([[-5, 4, 3, -2, 1, 0, 127, -127]], dtype=np.int16)
    asked = Multiply(0, 0, 0, 4, inputs, full_scale_a=1e-4)
    with pytest.raises(ConfigError, match="may not be negative"):
        lab.chip.execute(asked, 50)
    assert np.abs(lab.do(asked).codes - plain.do(asked).codes).max() <= 12


def test_one_reading_of_each_cell_has_no_scatter_to_tell() -> None:
    lab = Lab(3, 3).lacking("cells")
    found = lab.do(CodedRead((Block(0, 0, 3, 0, 3),), cell_read=read_step()))
    assert np.isnan(found.sigma_s).all()
    assert found.conductance_s == pytest.approx(lab.do(read(lab.cells)).last_s, rel=0.1)


@pytest.mark.parametrize("way", ["board", "multiply"])
@pytest.mark.parametrize("wl_v", [-1.0, 0.0, 0.95])
def test_gates_let_codes_through_as_they_let_single_reads(way: str, wl_v: float) -> None:
    lab = Lab(16, 4).lacking(way)
    found = lab.do(CodedRead((Block(0, 0, 16, 0, 4),), wl_v=wl_v))
    single = lab.do(read(lab.cells, read_step(wl_v=wl_v))).last_s
    assert found.conductance_s == pytest.approx(single, abs=1e-6)
    assert (np.abs(found.conductance_s).max() < 1e-9) == (wl_v <= 0.7)


@pytest.mark.parametrize(
    ("cell", "source_lines", "drives_rows"),
    [
        ("1T1R", "row", True),
        ("1T1R", "column", False),
        ("1T1R", "common", False),
        ("1R", "common", True),
    ],
)
def test_only_rows_with_lines_of_their_own_take_codes(
    cell: Literal["1T1R", "1R"], source_lines: Literal["row", "column", "common"], drives_rows: bool
) -> None:
    geometry = Geometry(1, 4, 4, cell, source_lines)
    can = SimulatedChip(geometry, Simulation(), read_v=0.3, chip_id="c").capabilities
    assert can.multiply == drives_rows
    assert can.coded_read == drives_rows
    if not drives_rows:
        with pytest.raises(ConfigError, match="needs a multiply"):
            next(lower(CodedRead((Block(0, 0, 4, 0, 4),)), can, LIMITS))


def test_a_coded_verify_from_the_host_lasts_until_its_last_reading() -> None:
    lab = Lab(8, 4).lacking("multiply")
    # Some cells are not formed and read a little below 0: no pulse mends that.
    wide = replace(program(lab.cells), low_s=np.zeros(32), high_s=np.full(32, 1e-3))
    found: ProgramResult = lab.do(wide)
    assert found.inside.all()
    assert found.pulses.sum() == 0
    assert found.span.started_s < found.span.ended_s == lab.chip.now_s


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"repeat": 2.5}, "repeat must be 1 or more, whole"),
        ({"blocks": Block(0, 0, 1, 0, 1)}, "blocks must be several"),
        ({"cell_read": replace(read_step(), measure="no")}, "must measure the current"),
    ],
)
def test_a_coded_read_that_cannot_be_meant_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        CodedRead(**{"blocks": (Block(0, 0, 1, 0, 1),)} | wrong)
