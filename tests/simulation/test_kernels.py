"""The compiled laws and draws beside the same ones in plain NumPy (`benchmarks/numpy_laws.py`)."""

from __future__ import annotations

import numpy as np
import numpy_laws
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_laws import NumpyBank, NumpyModel, numpy_model

from rram_hil.simulation import CellBank, DeviceModel, draws
from rram_hil.simulation.draws import Purpose
from rram_hil.simulation.model import FITTED_PRESETS, PRESETS, Traits

PULSES = ((2.0, 0.0, 2.4), (0.0, 2.8, 4.0), (0.0, 1.3, 4.0), (3.3, 0.0, 2.0), (2.0, 0.0, 3.6))
"""BL, SL, WL (V): each makes cells do something else."""


@pytest.fixture(scope="module", params=(*PRESETS, *FITTED_PRESETS, "every law"))
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DeviceModel, NumpyModel]:
    """A model by both laws; "every law" has what no preset has."""
    if request.param != "every law":
        return DeviceModel.load(request.param), numpy_model(request.param)
    tables = DeviceModel.load("hfo2-measured").model_dump()
    tables["set"]["spread_sd_ln"] = 0.05
    tables["set"]["width_v_per_decade"] = 0.03
    tables["set"]["grow"]["creep"] = {"part": 0.3, "most_ohm": 5000.0}
    tables["reset"]["redraw"]["shallow"] = {
        "part": 0.2,
        "floor_s": 3e-5,
        "spread_ln": 0.2,
        "link": 0.7,
    }
    tables["reset"]["wear"] |= {"again_ln": 0.3}
    tables["read"] |= {"telegraph_cells": 0.3, "telegraph_occupancy": 0.2}
    return DeviceModel.model_validate(tables), NumpyModel.model_validate(tables)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    purpose=st.sampled_from(Purpose),
    cell=st.integers(0, 2**40),
    event=st.integers(0, 2**32 - 1),
)
def test_draws_are_those_of_numpy(seed: int, purpose: Purpose, cell: int, event: int) -> None:
    cells = cell + np.arange(3000, dtype=np.int64)
    np.testing.assert_array_equal(
        draws.uniform(seed, purpose, cells, event), numpy_laws.uniform(seed, purpose, cells, event)
    )
    np.testing.assert_allclose(
        draws.normal(seed, purpose, cells, event),
        numpy_laws.normal(seed, purpose, cells, event),
        rtol=1e-14,
        atol=1e-16,
    )


def test_the_rarest_draws_are_right() -> None:
    cells = np.arange(3_000_000)
    found = draws.normal(5, Purpose.READ, cells)
    assert np.abs(found).max() > 4.5
    np.testing.assert_allclose(found, numpy_laws.normal(5, Purpose.READ, cells), rtol=1e-14)


def test_a_draw_does_not_depend_on_how_a_batch_is_split() -> None:
    cells = np.arange(10_000)
    whole = draws.normal(9, Purpose.READ, cells, 3)
    parts = [draws.normal(9, Purpose.READ, part, 3) for part in np.split(cells, [1, 2, 9, 777])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_cells_have_the_same_traits(both: tuple[DeviceModel, NumpyModel]) -> None:
    compiled, plain = (model.traits(3, np.arange(20_000)) for model in both)
    redraw = both[0].reset.redraw
    skew = 0.0 if redraw is None else redraw.device_skew
    for name in Traits.__dataclass_fields__:
        found, expected = getattr(compiled, name), getattr(plain, name)
        if name == "reset_z":
            expected = numpy_laws._skewed(expected, skew)
        assert found.dtype == getattr(plain, name).dtype
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7, err_msg=name)


def test_a_life_of_pulses_and_readings_is_the_same(both: tuple[DeviceModel, NumpyModel]) -> None:
    n = 5000
    banks = CellBank(both[0], n, 11, formed=False), NumpyBank(both[1], n, 11, formed=False)
    rng = np.random.default_rng(4)
    for k in range(40):
        bl, sl, wl = rng.permutation(np.resize(np.asarray(PULSES), (n, 3))).T
        width = rng.choice([50e-9, 200e-9, 1e-6], n)
        wl = wl + rng.uniform(-0.6, 0.3, n)
        for bank in banks:
            bank.apply(bl, sl, wl, width)
            if k % 4 == 3:
                bank.advance(10.0 ** (k % 7 - 3))
        compiled, plain = (bank.read() for bank in banks)
        # Single precision of traits; at a threshold a cell may have gone the other way.
        same = np.isclose(compiled, plain, rtol=1e-5, atol=1e-13)
        assert same.mean() > 0.999, k
        for bank in banks:
            bank.place(5e-5, at=~same)
    assert np.array_equal(banks[0].responsive, banks[1].responsive)
