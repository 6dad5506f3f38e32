"""Selectors of the simulated chip: polarity, body effect, other word lines, gate currents."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import (
    FORWARD_V,
    Apply,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Multiply,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    read,
    read_step,
)
from rram_hil.simulation.cell_array import gate_opening
from rram_hil.simulation.chip import FAULT_LEAK_S, GATE_LEAK_S, Fault, SimulatedChip
from rram_hil.simulation.config import BodyEffect, Simulation
from rram_hil.simulation.selectors import Selectors

ONE = Cells.of([(0, 1, 2)])
READ = read_step()
volts = st.floats(-4, 4)


def a_chip(*, formed: bool = True, timing: Any = None, **geometry: Any) -> SimulatedChip:
    """A chip without noise, its responsive cells formed and SET."""
    chip = SimulatedChip(
        Geometry(1, 4, 5, **geometry),
        Simulation(device="paper", seed=4, read_noise=False, converters=False),
        read_v=0.3,
        chip_id="S1",
    )
    if formed:
        is_nmos = chip.geometry.selector == "nmos"
        step = Step(4.5, 0.0, 2.0 if is_nmos else 2.5, 1e-6)
        step = step if is_nmos else replace(step, unselected_wl_v=4.5)
        chip.execute(Apply(Cells.all(chip.geometry), (step,)), 1)
    return chip


def conductance(chip: SimulatedChip, step: Step) -> float:
    return float(chip.execute(read(ONE, step), 2).conductance_s[0, 0])  # type: ignore[union-attr]


@given(volts, volts, volts, st.one_of(st.none(), volts))
def test_a_pmos_is_an_nmos_with_all_signs_changed(
    wl_v: float, bl_v: float, sl_v: float, body_v: float | None
) -> None:
    nmos, pmos = (Selectors(kind, BodyEffect()) for kind in ("nmos", "pmos"))  # type: ignore[arg-type]
    lines = [np.array(v) for v in (wl_v, bl_v, sl_v)]
    turned = pmos.gate_v(*(-v for v in lines), None if body_v is None else -body_v)  # type: ignore[arg-type]
    assert turned == nmos.gate_v(*lines, body_v)  # type: ignore[arg-type]


def test_the_threshold_follows_the_bodys_reverse_bias() -> None:
    selectors = Selectors("nmos", BodyEffect(gamma=0.5, surface_v=0.8))
    shift = selectors.threshold_shift_v(np.array([0.0, 1.0, 3.0, -0.8, -2.0]))
    root = math.sqrt(0.8)
    wanted = [0.0, math.sqrt(1.8) - root, math.sqrt(3.8) - root, -root, -root]
    np.testing.assert_allclose(shift, 0.5 * np.array(wanted), atol=1e-15)
    gate = selectors.gate_v(np.array(2.0), np.array(1.0), np.array(0.5), -1.0)
    assert gate == pytest.approx(1.5 - 0.5 * (math.sqrt(0.8 + 1.5) - root))


@given(
    st.floats(0, 0.6), st.floats(1e-6, 1.0), st.floats(0, FORWARD_V), st.sampled_from([1.0, -1.0])
)
def test_no_forward_bias_within_the_limit_opens_a_gate_at_its_source(
    gamma: float, surface_v: float, forward_v: float, sign: float
) -> None:
    selectors = Selectors(
        "nmos" if sign > 0 else "pmos", BodyEffect(gamma=gamma, surface_v=surface_v)
    )
    source, line = np.array(0.5 * sign), np.array(3.0 * sign)
    gate = selectors.gate_v(source, source, line, float(source) + sign * forward_v)
    assert gate_opening(gate) == 0.0


def test_a_body_below_the_source_lets_less_through_and_none_is_as_one_at_the_source() -> None:
    chip = a_chip()
    half_open = replace(READ, wl_v=1.0)
    plain = conductance(chip, half_open)
    assert conductance(chip, replace(half_open, body_v=0.0)) == plain
    seen = [conductance(chip, replace(half_open, body_v=v)) for v in (0.2, -0.5, -1.0, -3.0)]
    assert seen[0] > plain > seen[1] > seen[2] > seen[3] == 0.0


def test_a_driven_body_weakens_a_set_as_so_many_gate_volts() -> None:
    low, twin = a_chip(), a_chip()
    full_reset = Step(0.0, 2.4, 3.5, 1e-6)
    shift = float(low.cells.selectors.threshold_shift_v(np.array(1.5)))
    for chip, step in (
        (low, Step(2.0, 0.0, 2.6, 1e-6, body_v=-1.5)),
        (twin, Step(2.0, 0.0, 2.6 - shift, 1e-6)),
    ):
        chip.execute(Apply(Cells.all(chip.geometry), (full_reset, step)), 3)
    np.testing.assert_allclose(low.conductance_s(), twin.conductance_s(), rtol=1e-12)


def test_multiplies_and_coded_reads_stand_at_the_levels_that_they_say() -> None:
    chip = a_chip()
    shift = float(chip.cells.selectors.threshold_shift_v(np.array(1.0)))
    multiply = Multiply(0, 0, 0, 5, np.full((1, 4), 127, np.int16), wl_v=1.1, full_scale_a=1e-4)
    plain, lower, driven = (
        chip.execute(asked, 3).codes  # type: ignore[union-attr]
        for asked in (
            multiply,
            replace(multiply, wl_v=1.1 - shift),
            replace(multiply, body_v=-1.0, unselected_wl_v=-0.5),
        )
    )
    np.testing.assert_array_equal(driven, lower)
    assert (np.abs(driven) < np.abs(plain)).any()
    coded = CodedRead((Block(0, 0, 4, 0, 5),), wl_v=1.1 - shift)
    said = replace(coded, wl_v=1.1, body_v=-1.0)
    lower, driven = (chip.execute(asked, 4).conductance_s for asked in (coded, said))  # type: ignore[union-attr]
    np.testing.assert_array_equal(driven, lower)


@pytest.mark.parametrize(("source_lines", "part"), [("row", 1.0), ("common", 1.0), ("column", 1.0)])
def test_open_gates_of_other_rows_add_their_cells_to_the_bit_lines_current(
    source_lines: Any, part: float
) -> None:
    chip = a_chip(source_lines=source_lines)
    column = chip.conductance_s()[0, :, 2]
    assert conductance(chip, replace(READ, unselected_wl_v=0.5)) == pytest.approx(column[1])
    opened = conductance(chip, replace(READ, unselected_wl_v=3.0))
    assert opened == pytest.approx(part * column.sum())
    between = conductance(chip, replace(READ, unselected_wl_v=0.95))
    assert column[1] < between < opened


def test_word_lines_that_open_other_rows_let_pulses_act_there() -> None:
    geometry: dict[str, Any] = {"source_lines": "row"}
    full_reset = Step(0.0, 2.4, 3.5, 1e-6)
    pulse = Step(2.0, 0.0, 2.6, 1e-6)
    changed = {}
    for idle_v in (None, 0.0, 2.6):
        chip = a_chip(**geometry)
        chip.execute(Apply(Cells.all(chip.geometry), (full_reset,)), 2)
        before = chip.conductance_s()[0]
        chip.execute(Apply(ONE, (replace(pulse, unselected_wl_v=idle_v),), Scheme.INHIBIT), 3)
        changed[idle_v] = chip.conductance_s()[0] != before
        responsive = chip.stuck[0] == 0
    assert changed[None].sum() == changed[0.0].sum() == 1
    wanted = np.zeros((4, 5), dtype=np.bool_)
    wanted[:, 2] = responsive[:, 2]
    np.testing.assert_array_equal(changed[2.6], wanted)


def test_other_columns_feel_what_their_bit_lines_stand_at_where_other_rows_are_open() -> None:
    chip = a_chip()
    chip.execute(Apply(Cells.all(chip.geometry), (Step(2.0, 0.0, 2.6, 1e-6),)), 2)
    before = chip.conductance_s()[0]
    # INHIBIT holds the other bit lines at 2 V, and the source lines of other rows stand at 0 V.
    step = Step(0.0, 2.0, 3.5, 1e-6, unselected_wl_v=3.2)
    chip.execute(Apply(ONE, (step,), Scheme.INHIBIT), 3)
    after = chip.conductance_s()[0]
    assert np.all(after[1][[0, 1, 3, 4]] == before[1][[0, 1, 3, 4]])
    grown = (after > before)[[0, 2, 3]][:, [0, 1, 3, 4]]
    responsive = (chip.stuck[0] == 0)[[0, 2, 3]][:, [0, 1, 3, 4]]
    np.testing.assert_array_equal(grown, responsive)


def test_word_lines_at_0_v_are_open_for_lines_below_it() -> None:
    chip = a_chip(source_lines="common")
    chip.execute(Apply(Cells.all(chip.geometry), (Step(0.0, 2.4, 3.5, 1e-6),)), 2)
    before = chip.conductance_s()[0]
    # Its gate at -2 V closes the selected cell, not those of other rows.
    chip.execute(Apply(ONE, (Step(0.0, -2.0, -2.0, 1e-6),), Scheme.INHIBIT), 3)
    wanted = np.zeros_like(before, dtype=np.bool_)
    wanted[:, 2] = chip.stuck[0, :, 2] == 0
    np.testing.assert_array_equal((chip.conductance_s()[0] != before)[[0, 2, 3]], wanted[[0, 2, 3]])


def test_a_pmos_conducts_below_its_source_and_is_closed_at_it() -> None:
    chip = a_chip(selector="pmos")
    cell = chip.conductance_s()[0, 1, 2]
    assert chip.formed.sum() > 15
    assert conductance(chip, replace(READ, wl_v=0.2)) == 0.0
    assert conductance(chip, replace(READ, wl_v=-2.0)) == pytest.approx(cell)
    # The higher of BL and SL stands 1.2 V above the gate: just open.
    assert conductance(chip, Step(0.2, 0.0, -1.0, 1e-6, "current")) == pytest.approx(cell)
    products = chip.execute(
        Multiply(0, 0, 0, 5, np.full((1, 4), 127, np.int16), wl_v=-2.0, full_scale_a=1e-3), 3
    )
    assert (products.codes != 0).all()  # type: ignore[union-attr]


def test_word_lines_of_a_pmos_at_0_v_are_open_for_lines_above() -> None:
    chip = a_chip(selector="pmos")
    step = Step(1.5, 0.0, 0.0, 1e-6, "current")
    column = chip.conductance_s()[0, :, 2]
    assert conductance(chip, step) == pytest.approx(column.sum())
    closed = replace(step, unselected_wl_v=1.5)
    assert conductance(chip, closed) == pytest.approx(chip.conductance_s()[0, 1, 2])


def test_gate_currents_stand_beside_the_readings_that_ask_for_them() -> None:
    chip = a_chip()
    chip.inject(Fault.GATE_LEAK, ONE)
    both = replace(READ, also_gate=True)
    before_s = chip.now_s
    result = chip.execute(Apply(ONE, (READ, both, Step(1.0, 0.0, 2.0, 1e-6)), repeat=2), 2)
    leak_s = GATE_LEAK_S + FAULT_LEAK_S
    wanted = [[np.nan, 3.0 * leak_s] * 2]
    np.testing.assert_allclose(result.gate_a, wanted)  # type: ignore[union-attr]
    assert chip.execute(read(ONE), 3).gate_a is None  # type: ignore[union-attr]
    # One converter: two conversions.
    timing = chip.simulation.timing
    took_s = result.span.ended_s - before_s
    steps_s = 6 * (2 * timing.edge_s + timing.settle_s + 1e-6) + 6 * timing.conversion_s
    assert took_s == pytest.approx(steps_s)


def test_write_verify_pulses_stand_at_the_levels_of_their_train() -> None:
    chip, twin = a_chip(), a_chip()
    shift = float(chip.cells.selectors.threshold_shift_v(np.array(1.0)))
    reset = PulseTrain(Ramp(1.0, 2.4, 0.1), Ramp(3.5, 3.5), 1e-6)
    every = Cells.all(chip.geometry)
    for one, gate_v, body_v in ((chip, 2.0, -1.0), (twin, 2.0 - shift, None)):
        ramp = Ramp(gate_v, gate_v + 1.0, 0.1)
        train = PulseTrain(Ramp(2.0, 2.0), ramp, 1e-6, body_v)
        one.execute(Program(every, 3e-5, 5e-5, train, reset, READ, 20), 2)
    np.testing.assert_allclose(chip.conductance_s(), twin.conductance_s(), rtol=1e-9)
