"""What pulses do to the cells that share a line with the selected one, on the simulated chip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import Apply, Cells, Geometry, Scheme, Step, half_selected_v
from rram_hil.simulation.cell_array import gate_opening
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import BodyEffect, Simulation
from rram_hil.simulation.half_select import Across, Beside, Exposure, across
from rram_hil.simulation.selectors import Selectors

GRID = Geometry(1, 4, 5, "1R")
volts = st.floats(-4, 4).map(lambda v: round(v, 3))


def a_chip(geometry: Geometry = GRID, device: str = "paper", **settings: Any) -> SimulatedChip:
    """A chip whose responsive cells are formed, and reset far below what half of a SET reaches."""
    simulation = Simulation(
        device=device, **({"read_noise": False, "converters": False, "seed": 4} | settings)
    )
    chip = SimulatedChip(geometry, simulation, read_v=0.3, chip_id="H1")
    every = Cells.all(geometry)
    chip.execute(Apply(every, (Step(4.5, 0.0, 2.0, 1e-6), Step(0.0, 2.4, 3.5, 1e-6))), 1)
    return chip


def one(row: int, column: int) -> Cells:
    return Cells.of([(0, row, column)])


@given(
    bl_v=volts,
    sl_v=volts,
    wl_v=volts,
    body_v=st.one_of(st.none(), volts),
    idle_v=st.one_of(st.none(), volts),
    cell=st.sampled_from(["1R", "1T1R"]),
    source_lines=st.sampled_from(["row", "column", "common"]),
    selector=st.sampled_from(["nmos", "pmos"]),
    scheme=st.sampled_from([Scheme.HALF, Scheme.THIRD, Scheme.GROUNDED]),
)
def test_no_cell_feels_more_than_the_limits_check_says(
    bl_v: float,
    sl_v: float,
    wl_v: float,
    body_v: float | None,
    idle_v: float | None,
    cell: Any,
    source_lines: Any,
    selector: Any,
    scheme: Scheme,
) -> None:
    geometry = Geometry(1, 4, 5, cell, source_lines, selector)
    beside = Beside(body_v, Selectors(selector, BodyEffect()).idle_wl_v(idle_v))
    found = across(bl_v, sl_v, wl_v, scheme, geometry, beside)
    step = Step(bl_v, sl_v, wl_v, 1e-6, body_v=body_v, unselected_wl_v=idle_v)
    said = half_selected_v(step, 1, scheme, geometry)[0]
    places = [
        (found.row_v, found.row_gate_v),
        (found.column_v, found.column_gate_v),
        (found.other_v, found.other_gate_v),
    ]
    # A gate that is closed lets nothing through, whatever stands across its cell.
    felt = [abs(drop) for drop, gate in places if cell == "1R" or gate_opening(np.array(gate)) > 0]
    assert max(felt, default=0.0) <= said + 1e-12


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
    scheme=st.sampled_from([Scheme.HALF, Scheme.THIRD, Scheme.GROUNDED]),
)
def test_every_cell_feels_the_pulses_of_later_cells_that_share_its_line(
    shape: tuple[int, int, int], data: st.DataObject, scheme: Scheme
) -> None:
    geometry = Geometry(*shape, "1R")
    size = geometry.size
    chosen = np.array(data.draw(st.permutations(range(size))))[: data.draw(st.integers(1, size))]
    times = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=chosen.size, max_size=chosen.size))
    )
    exposure = Exposure(chosen, geometry, scheme, 0.3)
    bl, sl = 1.6, -0.8
    for k in range(3):
        at = np.flatnonzero(times > k)
        exposure.note(
            at, np.full(at.size, bl), np.full(at.size, sl), np.zeros(at.size), 1e-6, np.inf
        )
    found: dict[tuple[int, float], int] = {}
    for dose in exposure.doses():
        for cell in dose.index.tolist():
            found[cell, dose.drop_v] = found.get((cell, dose.drop_v), 0) + dose.count
    expected: dict[tuple[int, float], int] = {}
    beside = across(bl, sl, 0.0, scheme, geometry)
    place = np.stack(np.unravel_index(np.arange(size), geometry.shape), axis=1)
    for k, selected in enumerate(chosen):
        for other in range(size):
            if other in chosen[k:] or place[other, 0] != place[selected, 0]:
                continue
            same_row, same_column = place[other, 1:] == place[selected, 1:]
            drop = beside.row_v if same_row else beside.column_v if same_column else beside.other_v
            if abs(drop) > 0.3 and times[k] > 0:
                expected[other, drop] = expected.get((other, drop), 0) + int(times[k])
    assert found == expected


def test_half_of_a_set_acts_as_a_pulse_of_half_the_volts_on_row_and_column_alone() -> None:
    chip, twin = a_chip(), a_chip()
    before = chip.conductance_s()[0]
    chip.execute(Apply(one(1, 2), (Step(2.0, 0.0, 0.0, 1e-6),), Scheme.HALF), 2)
    row_and_column = np.zeros(before.shape, dtype=np.bool_)
    row_and_column[1], row_and_column[:, 2] = True, True
    row_and_column[1, 2] = False
    victims = Cells.from_index(np.flatnonzero(row_and_column), GRID)
    twin.execute(Apply(victims, (Step(1.0, 0.0, 0.0, 1e-6),)), 2)
    found = chip.conductance_s()[0]
    np.testing.assert_array_equal(found[row_and_column], twin.conductance_s()[0][row_and_column])
    responsive = chip.stuck[0] == 0
    assert np.all(found[row_and_column & responsive] > before[row_and_column & responsive])
    rest = ~row_and_column
    rest[1, 2] = False
    np.testing.assert_array_equal(found[rest], before[rest])
    assert chip.pulses[0].sum() == 2 * GRID.size + 1, "the selected cell's pulses count"


def test_many_pulses_act_as_one_that_lasts_as_long() -> None:
    chip, twin = a_chip(), a_chip()
    chip.execute(Apply(one(1, 2), (Step(2.0, 0.0, 0.0, 1e-6),), Scheme.HALF, repeat=100), 2)
    twin.execute(Apply(one(1, 3), (Step(1.0, 0.0, 0.0, 1e-4),)), 2)
    assert chip.conductance_s()[0, 1, 3] == twin.conductance_s()[0, 1, 3]


def test_a_third_reaches_every_cell_the_other_way_round_where_no_line_is_shared() -> None:
    beside = across(3.0, 0.0, 0.0, Scheme.THIRD, GRID)
    assert beside == Across(1.0, 0.0, 1.0, -1.0)
    chip = a_chip()
    chip.execute(Apply(Cells.all(GRID), (Step(1.6, 0.0, 0.0, 1e-6),)), 2)
    before = chip.conductance_s()[0]
    chip.execute(Apply(one(0, 0), (Step(4.2, 0.0, 0.0, 1e-6),), Scheme.THIRD), 3)
    fallen = chip.conductance_s()[0] < before
    responsive = chip.stuck[0] == 0
    assert fallen[1:, 1:][responsive[1:, 1:]].mean() > 0.8
    assert not fallen[0].any()
    assert not fallen[:, 0].any()


def test_a_reset_whose_row_stands_at_ground_resets_the_row_and_inhibit_spares_it() -> None:
    geometry = Geometry(1, 4, 5, "1T1R", "row")
    step = Step(0.0, 2.0, 3.5, 1e-6)
    for scheme, is_spared in ((Scheme.GROUNDED, False), (Scheme.INHIBIT, True)):
        chip = a_chip(geometry)
        chip.execute(Apply(Cells.all(geometry), (Step(2.0, 0.0, 2.6, 1e-6),)), 2)
        before = chip.conductance_s()[0]
        chip.execute(Apply(one(2, 0), (step,), scheme), 3)
        after = chip.conductance_s()[0]
        others = (chip.stuck[0, 2] == 0) & (np.arange(5) != 0)
        assert np.all((after[2] == before[2])[others]) == is_spared
        np.testing.assert_array_equal(after[[0, 1, 3]], before[[0, 1, 3]])


def test_compliance_limits_what_half_selected_cells_reach_too() -> None:
    chip = a_chip()
    chip.execute(Apply(one(1, 2), (Step(4.0, 0.0, 0.0, 1e-6),), Scheme.HALF, compliance_a=20e-6), 2)
    beside = [0, 1, 3, 4]
    found = chip.conductance_s()[0, 1, beside][chip.stuck[0, 1, beside] == 0]
    assert found == pytest.approx(20e-6 / chip.model.compliance_v, rel=1e-6)


def test_volts_within_the_read_limit_disturb_nothing_and_draw_nothing() -> None:
    chip = a_chip()
    state = chip._state  # private: how many draws a cell has had shows nowhere else
    events = state.event.copy()
    chip.execute(Apply(one(1, 2), (Step(0.6, 0.0, 0.0, 1e-6),), Scheme.HALF), 2)
    assert np.flatnonzero(state.event != events).tolist() == [1 * 5 + 2]
