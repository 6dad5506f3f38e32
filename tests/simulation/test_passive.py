"""A 1R array on its wires: what readings show and what pulses leave at a cell are those of the
whole network.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Apply, Cells, Geometry, Scheme, Step, read
from rram_hil.crossbar.ir_drop import Lines, apparent_map, correct_map
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Errors, Simulation
from rram_hil.simulation.passive import pulse_v
from rram_hil.types import FloatArray

GRID = Geometry(2, 6, 9, "1R")


def a_chip(line_ohm: float, **errors: float) -> SimulatedChip:
    simulation = Simulation(
        device="paper",
        line_ohm=line_ohm,
        read_noise=False,
        converters=False,
        seed=3,
        errors=Errors(**errors),
    )
    chip = SimulatedChip(GRID, simulation, read_v=0.3, chip_id="P1")
    steps = (Step(4.5, 0.0, 0.0, 1e-6), Step(0.0, 2.4, 0.0, 1e-6), Step(1.5, 0.0, 0.0, 1e-6))
    chip.execute(Apply(Cells.all(GRID), steps), 1)
    return chip


def seen(chip: SimulatedChip) -> FloatArray:
    found = chip.execute(read(Cells.all(GRID)), 2)
    return found.last_s.reshape(GRID.shape)  # type: ignore[union-attr]


def test_a_map_is_read_as_the_whole_array_shows_it_and_corrected_back() -> None:
    chip = a_chip(5.0)
    true = chip.conductance_s()
    for tile, found in enumerate(seen(chip)):
        np.testing.assert_allclose(
            found, apparent_map(true[tile], Lines.of(5.0), "grounded"), rtol=1e-9
        )
        corrected, agrees = correct_map(found, Lines.of(5.0), "grounded")
        assert agrees
        np.testing.assert_allclose(corrected, true[tile], rtol=1e-6)
    alone = apparent_map(true[0], Lines.of(5.0), "alone")
    assert np.median(seen(chip)[0] / alone) < 0.98, "a row's cells share its wire"


def test_leads_come_on_top_of_the_wires() -> None:
    without, with_leads = seen(a_chip(5.0)), seen(a_chip(5.0, lead_ohm=300.0))
    np.testing.assert_allclose(with_leads, without / (1 + without * 300.0), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    scheme=st.sampled_from([Scheme.HALF, Scheme.THIRD, Scheme.GROUNDED]),
    bl_v=st.sampled_from([0.0, 1.2, 2.0]),
    sl_v=st.sampled_from([0.0, 1.5]),
    line_ohm=st.sampled_from([0.1, 2.0, 20.0]),
    seed=st.integers(0, 100),
)
def test_what_reaches_a_selected_cell_is_the_nodal_solution_with_all_lines_at_their_levels(
    scheme: Scheme, bl_v: float, sl_v: float, line_ohm: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    g = rng.uniform(0, 300e-6, (GRID.rows, GRID.columns)) * (
        rng.random((GRID.rows, GRID.columns)) < 0.9
    )
    row, column = int(rng.integers(GRID.rows)), int(rng.integers(GRID.columns))
    at = np.array([row * GRID.columns + column])
    found = pulse_v(g, at, np.array([bl_v]), np.array([sl_v]), scheme, line_ohm)[0]
    drop = bl_v - sl_v
    selected, others = {
        Scheme.HALF: ((drop / 2, -drop / 2), (0.0, 0.0)),
        Scheme.THIRD: ((drop, 0.0), (drop / 3, 2 * drop / 3)),
        Scheme.GROUNDED: ((bl_v, sl_v), (0.0, 0.0)),
    }[scheme]
    rows, columns = np.full(GRID.rows, others[1]), np.full(GRID.columns, others[0])
    rows[row], columns[column] = selected[1], selected[0]
    solved = Lines.of(line_ohm).network(g).solve(left_v=rows, bottom_v=columns)
    assert solved.row_v is not None
    assert solved.column_v is not None
    assert found == pytest.approx(
        solved.column_v[0, row, column] - solved.row_v[0, row, column], abs=1e-9
    )


def test_a_pulse_finds_less_at_the_cell_the_more_its_neighbours_conduct() -> None:
    reached = []
    for line_ohm in (0.0, 5.0):
        chip = a_chip(line_ohm)
        # The far corner of a row: its wire carries the half-selected cells' currents.
        chip.execute(Apply(Cells.of([(0, 0, 8)]), (Step(0.0, 1.4, 0.0, 1e-6),), Scheme.HALF), 2)
        reached.append(chip.conductance_s()[0, 0, 8])
    assert reached[1] > 1.02 * reached[0], "a RESET that the wires weaken leaves more"


def test_wires_without_resistance_are_no_wires() -> None:
    np.testing.assert_allclose(seen(a_chip(1e-9)), seen(a_chip(0.0)), rtol=1e-6)
