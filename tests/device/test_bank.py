import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.cells import Cells, Geometry
from rram_hil.device import cells_of
from rram_hil.device.chip import SimulatedChip
from rram_hil.device.config import Simulation
from rram_hil.device.model import DEFAULT_PRESET, DeviceModel
from rram_hil.errors import ConfigError
from rram_hil.operations import Apply, Step

MODEL = DeviceModel.load(DEFAULT_PRESET)


def test_the_default_of_the_simulated_bench_is_the_fitted_preset() -> None:
    assert Simulation().device == DEFAULT_PRESET
    assert MODEL.reset.walk is not None
    assert MODEL.drift is not None


def test_the_same_seed_gives_the_same_cells_and_another_seed_others() -> None:
    def worked(seed: int) -> np.ndarray:
        bank = cells_of(MODEL, 50, seed)
        bank.apply(0.0, 2.8, 4.0)
        bank.apply(2.0, 0.0, np.linspace(2.0, 2.6, 50), 200e-9)
        bank.advance(3.0)
        return bank.read()

    assert np.array_equal(worked(4), worked(4))
    assert not np.array_equal(worked(4), worked(5))


def test_pulses_on_some_cells_leave_the_others_alone() -> None:
    bank = cells_of(MODEL, 40, 2)
    before = bank.conductance_s
    some = np.arange(0, 40, 3)
    bank.apply(0.0, 2.8, 4.0, at=some)
    after = bank.conductance_s
    others = np.setdiff1d(np.arange(40), some)
    assert np.array_equal(before[others], after[others])
    assert np.median(after[some]) < 0.4 * np.median(before[some])


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 29), wl=st.floats(1.8, 3.2))
def test_a_pulse_on_all_cells_is_a_pulse_on_each_part_of_them(cut: int, wl: float) -> None:
    whole, parts = cells_of(MODEL, 30, 8), cells_of(MODEL, 30, 8)
    whole.apply(0.0, 2.5, 4.0)
    whole.apply(2.0, 0.0, wl)
    for at in (np.arange(cut), np.arange(cut, 30)):
        parts.apply(0.0, 2.5, 4.0, at=at)
        parts.apply(2.0, 0.0, wl, at=at)
    assert np.array_equal(whole.conductance_s, parts.conductance_s)


def test_cells_of_a_bank_answer_as_those_of_a_chip_of_the_same_draws() -> None:
    geometry = Geometry(1, 6, 6)
    chip = SimulatedChip(geometry, Simulation(seed=9, read_noise=False, converters=False), read_v=0.3, chip_id="T")
    still = MODEL.model_copy(update={"drift": None})
    chip.model = still
    bank = cells_of(still, 36, chip._seed, formed=False)
    cells = Cells.all(geometry)
    for number, (bl, sl, wl) in enumerate([(4.2, 0.0, 2.5), (0.0, 2.8, 4.0), (2.0, 0.0, 2.4), (2.0, 0.0, 2.5)]):
        chip.execute(Apply(cells, (Step(bl, sl, wl, 200e-9),)), number + 1)
        bank.apply(bl, sl, wl, 200e-9)
    np.testing.assert_allclose(chip.conductance_s().ravel(), bank.conductance_s, rtol=1e-4)


def test_a_weak_reset_leaves_a_filament_alone_and_no_pulse_leaves_the_physical_range() -> None:
    bank = cells_of(MODEL, 500, 3)
    bank.place(220e-6)
    bank.apply(0.0, 0.4, 4.0)
    np.testing.assert_allclose(bank.conductance_s[bank.responsive], 220e-6)
    rng = np.random.default_rng(1)
    for _ in range(60):
        bank.apply(rng.choice([0.0, 2.0], 500), rng.choice([0.0, 2.8], 500), rng.uniform(0, 4, 500))
        g = bank.conductance_s
        assert np.all(np.isfinite(g))
        assert np.all((g > 0) & (g < 1e-3))


def test_wrong_use_of_a_bank_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        cells_of(MODEL, 0)
    bank = cells_of(MODEL, 3)
    with pytest.raises(ConfigError, match="time cannot"):
        bank.advance(-1.0)
    with pytest.raises(ConfigError, match="above zero"):
        bank.place(0.0)
