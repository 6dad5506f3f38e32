"""Maps behind wires, and back: the correction inverts the exact model."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Apply, Cells, Geometry, Step
from rram_hil.crossbar.ir_drop import Lines, Scheme, apparent_map, correct_map
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.wire_drops import block_transfer, lower_ohm, series_ohm
from rram_hil.types import FloatArray

SCHEMES: tuple[Scheme, ...] = ("alone", "row", "grounded", "floating")


@settings(max_examples=40, deadline=None)
@given(
    scheme=st.sampled_from(SCHEMES),
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    ohm=st.sampled_from([0.0, 0.5, 2.5, 10.0]),
    spread=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_corrected_map_is_the_true_one(
    scheme: Scheme, rows: int, columns: int, ohm: float, spread: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    low = 1e-7 if spread else 1e-6
    g = np.exp(rng.uniform(np.log(low), np.log(2e-4), (rows, columns)))
    lines = Lines.of(ohm, column=int(rng.integers(0, 20)), rows_below=int(rng.integers(0, 20)))
    found, converged = correct_map(apparent_map(g, lines, scheme), lines, scheme)
    assert converged
    np.testing.assert_allclose(found, g, rtol=1e-6)


@pytest.mark.parametrize(("ohm", "low"), [(1.0, 1e-6), (2.5, 1e-6), (2.5, 1e-8)])
def test_a_map_of_shared_wires_is_corrected_where_half_of_it_is_lost(
    ohm: float, low: float
) -> None:
    rng = np.random.default_rng(2)
    g = np.exp(rng.uniform(np.log(low), np.log(2e-4), (48, 64)))
    lines = Lines(ohm, ohm, 20.0, 20.0)
    apparent = apparent_map(g, lines, "grounded")
    assert (apparent / g).min() < 0.8
    found, converged = correct_map(apparent, lines, "grounded")
    assert converged
    np.testing.assert_allclose(found, g, rtol=1e-6)


def test_schemes_are_what_the_simulated_array_does() -> None:
    geometry = Geometry(1, 12, 9)
    g = np.random.default_rng(5).uniform(1e-6, 200e-6, (12, 9))
    alone = g / (1 + g * series_ohm(np.arange(108), geometry, 2.0).reshape(12, 9))
    np.testing.assert_allclose(apparent_map(g, Lines.of(2.0), "alone"), alone, rtol=1e-13)
    np.testing.assert_allclose(
        apparent_map(g, Lines.of(2.0), "grounded"),
        block_transfer(g, 0, 0, geometry, 2.0),
        rtol=1e-9,
    )
    block = block_transfer(g[:4, :5], 3, 2, geometry, 2.0)
    np.testing.assert_allclose(
        apparent_map(g[:4, :5], Lines.of(2.0, column=2, rows_below=5), "grounded"), block, rtol=1e-9
    )


def test_one_row_alone_is_a_row_of_closed_gates() -> None:
    # With zero conductance in all other rows, the grounded scheme is the row scheme.
    g = np.random.default_rng(6).uniform(1e-6, 200e-6, (6, 5))
    lines = Lines(2.0, 3.0, 5.0, 7.0)
    by_row = apparent_map(g, lines, "row")
    for row in range(6):
        only = np.zeros_like(g)
        only[row] = g[row]
        np.testing.assert_allclose(
            apparent_map(only, lines, "grounded")[row], by_row[row], rtol=1e-9
        )


def test_schemes_agree_where_wires_are_ideal_and_sneak_paths_do_not() -> None:
    g = np.random.default_rng(6).uniform(10e-6, 100e-6, (5, 5))
    for scheme in ("alone", "row", "grounded"):
        np.testing.assert_allclose(apparent_map(g, Lines(0.0, 0.0), scheme), g, rtol=1e-12)
    floating = apparent_map(g, Lines(0.0, 0.0), "floating")
    assert (floating > 1.3 * g).any()
    assert (floating > g).all()


@pytest.mark.parametrize("scheme", ["alone", "row", "grounded"])
def test_readings_at_or_below_zero_stay_and_count_as_zero(scheme: Scheme) -> None:
    g = np.random.default_rng(8).uniform(10e-6, 100e-6, (4, 5))
    g[1, 2] = 0.0
    lines = Lines.of(2.0)
    apparent = apparent_map(g, lines, scheme)
    apparent[1, 2] = -1e-12
    found, converged = correct_map(apparent, lines, scheme)
    assert converged
    assert found[1, 2] == pytest.approx(-1e-12, rel=1e-2)
    others = np.ones(g.shape, dtype=bool)
    others[1, 2] = False
    np.testing.assert_allclose(found[others], g[others], rtol=1e-6)


@pytest.mark.parametrize("scheme", ["alone", "row", "grounded"])
def test_more_than_the_wires_let_through_is_no_map(scheme: Scheme) -> None:
    # 200 ohm of lead let no more than 5 mS through.
    found, converged = correct_map(np.array([[1e-5, 6e-3]]), Lines(1.0, 1.0, 100.0, 100.0), scheme)
    assert not converged
    assert scheme == "grounded" or np.isnan(found[0, 1])


def test_wrong_maps_are_refused() -> None:
    lines = Lines.of(1.0)
    with pytest.raises(ValueError, match="finite"):
        correct_map(np.array([[1e-6, np.nan]]), lines, "alone")
    with pytest.raises(ValueError, match="scheme"):
        correct_map(np.ones((2, 2)), lines, "sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1024 cells"):
        correct_map(np.ones((33, 32)), lines, "floating")
    with pytest.raises(ValueError, match="zero or more"):
        apparent_map(np.array([[-1e-6]]), lines, "alone")
    with pytest.raises(ValueError, match="resistances"):
        Lines(-1.0, 0.0)


def a_chip(line_ohm: float, cell: Literal["1T1R", "1R"] = "1T1R") -> SimulatedChip:
    simulation = Simulation(device="paper", line_ohm=line_ohm, read_noise=False, converters=False)
    return SimulatedChip(Geometry(1, 24, 20, cell), simulation, read_v=0.3, chip_id="W1")


def pulsed(
    chip: SimulatedChip,
    number: int,
    *,
    bl_v: FloatArray | float,
    sl_v: FloatArray | float,
    wl_v: float,
) -> None:
    cells = Cells.all(chip.geometry)
    step = Step(bl_v, sl_v, wl_v, width_s=1e-6)
    chip.execute(Apply(cells, (step,)), number)


@pytest.mark.parametrize("cell", ["1T1R", "1R"])
@pytest.mark.parametrize("polarity", [1, -1])
def test_a_pulse_acts_with_the_volts_that_reach_the_cell(
    polarity: int, cell: Literal["1T1R", "1R"]
) -> None:
    wired, ideal = a_chip(8.0, cell), a_chip(0.0, cell)
    far = a_chip(0.0, cell)
    for chip in (wired, ideal, far):
        pulsed(chip, 1, bl_v=4.5, sl_v=0.0, wl_v=2.0)
        assert chip.formed.mean() > 0.85
    np.testing.assert_array_equal(wired.conductance_s(), ideal.conductance_s())
    # A strong RESET first where a SET is asked about, from which it has a long way to go.
    high, low, gate = (1.6, 0.0, 2.4) if polarity > 0 else (0.0, 1.3, 3.5)
    if polarity > 0:
        for chip in (wired, ideal, far):
            chip.cells.simulation = chip.simulation.model_copy(update={"line_ohm": 0.0})
            pulsed(chip, 2, bl_v=0.0, sl_v=2.4, wl_v=3.5)
        wired.cells.simulation = wired.simulation.model_copy(update={"line_ohm": 8.0})
    before = wired.conductance_s().ravel()
    np.testing.assert_array_equal(before, far.conductance_s().ravel())
    pulsed(wired, 3, bl_v=high, sl_v=low, wl_v=gate)
    pulsed(ideal, 3, bl_v=high, sl_v=low, wl_v=gate)
    found, without = wired.conductance_s().ravel(), ideal.conductance_s().ravel()
    changed = found != before
    assert changed.mean() > 0.5
    assert (polarity * (without - found) >= -1e-12).all(), "wires never help"
    # A SET of a 1R array is flat in its volts.
    assert np.abs(found / without - 1)[changed].max() > 0.005 or (polarity > 0 and cell == "1R")
    # The same chip without wires, given at each cell's lines what reaches it, ends with the same
    # conductances.
    index = np.arange(found.size)
    drop = abs(high - low)
    current = drop * found / (1 + found * series_ohm(index, wired.geometry, 8.0))
    lifted = current * lower_ohm(index, wired.geometry, 8.0, polarity)
    reaches = drop - current * series_ohm(index, wired.geometry, 8.0)
    sides = (
        {"bl_v": lifted + reaches, "sl_v": lifted}
        if polarity > 0
        else {"bl_v": lifted, "sl_v": lifted + reaches}
    )
    pulsed(far, 3, **sides, wl_v=gate)
    again = far.conductance_s().ravel()
    same = np.abs(again / found - 1) < 1e-3
    assert same[changed].mean() > 0.97
