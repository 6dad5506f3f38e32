from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Apply, Cells, Geometry, Step
from rram_hil.errors import ConfigError
from rram_hil.simulation import cells_of
from rram_hil.simulation.bank import CellBank
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.simulation.model import (
    DEFAULT_PRESET,
    PRESETS,
    Creep,
    DeviceModel,
    Shallow,
)

MODEL = DeviceModel.load(DEFAULT_PRESET)


def _average() -> DeviceModel:
    """The model without any spread, and without pulses that rearrange a filament."""
    tables = MODEL.model_dump()
    tables["set"] |= {"offset_sd_v": 0.0, "gain_sd_ln": 0.0, "jitter_sd_v": 0.0}
    none = {"cycle_sd_v": 0.0, "cycle_sd_ln": 0.0, "cycle_slow_ln": 0.0, "overdrive": None}
    tables["set"]["grow"] |= none | {"creep": None, "stir_ln": [0.0] * len(MODEL.set.grow.stir_s)}
    return DeviceModel.model_validate(tables)


AVERAGE = _average()


def test_the_default_of_the_simulated_bench_is_the_fitted_preset() -> None:
    assert Simulation().device == DEFAULT_PRESET
    assert MODEL.reset.redraw is not None
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


@pytest.mark.parametrize("power", [0.05, 0.8, 10.0])
def test_a_gate_below_all_sets_grows_nothing(power: float) -> None:
    tables = AVERAGE.model_dump() | {"drift": None}
    tables["set"]["grow"]["power"] = power
    bank = cells_of(DeviceModel.model_validate(tables), 40, 2)
    bank.apply(0.0, 2.8, 4.0)
    before = bank.conductance_s
    bank.apply(2.0, 0.0, 1.0, 1e-3)
    np.testing.assert_allclose(bank.conductance_s, before, rtol=1e-12)


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
    chip = SimulatedChip(
        geometry, Simulation(seed=9, read_noise=False, converters=False), read_v=0.3, chip_id="T"
    )
    still = MODEL.model_copy(update={"drift": None})
    chip.cells.model = still
    # Private: the same draws need the chip's own seed.
    bank = cells_of(still, 36, chip._seed, formed=False)
    cells = Cells.all(geometry)
    for number, (bl, sl, wl) in enumerate(
        [(4.2, 0.0, 2.5), (0.0, 2.8, 4.0), (2.0, 0.0, 2.4), (2.0, 0.0, 2.5)]
    ):
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


@settings(max_examples=50, deadline=None)
@given(
    before=st.floats(1e-6, 2.4e-4),
    gate=st.floats(1.85, 3.5),
    first=st.floats(0.1, 5),
    second=st.floats(0.1, 5),
)
def test_two_set_pulses_do_what_one_of_their_widths_together_does_and_none_lowers_a_cell(
    before: float, gate: float, first: float, second: float
) -> None:
    width_s = MODEL.set.reference_width_s
    cells = {"index": np.arange(1), "stuck": np.zeros(1, dtype=np.int8)}
    traits = replace(AVERAGE.traits(1, np.arange(1)), **cells)

    def after(g: np.ndarray, widths: float) -> np.ndarray:
        return AVERAGE.after_set(
            *(1, traits, np.ones(1, dtype=np.int64), g, np.ones(1, dtype=np.bool_)),
            *(np.array([2.0]), np.array([gate]), widths * width_s),
        )[0]

    twice = after(after(np.array([before]), first), second)
    np.testing.assert_allclose(twice, after(np.array([before]), first + second), rtol=1e-6)
    assert twice[0] >= before * (1 - 1e-12)
    assert twice[0] <= max(before, 1 / MODEL.set.grow.series_ohm)


def test_a_weak_reset_does_not_undo_a_strong_one() -> None:
    bank = cells_of(MODEL, 400, 6)
    bank.place(200e-6)
    bank.apply(0.0, 3.0, 4.0)
    strong = bank.conductance_s
    for _ in range(5):
        bank.apply(0.0, 0.9, 4.0)
    deep = bank.responsive & (strong < 15e-6)
    assert deep.sum() > 100
    np.testing.assert_allclose(bank.conductance_s[deep], strong[deep])


def test_repeated_resets_draw_anew_around_each_cells_own_level() -> None:
    bank = cells_of(MODEL.model_copy(update={"drift": None}), 1500, 7)
    bank.place(200e-6)
    read = []
    for _ in range(60):
        bank.apply(0.0, 3.0, 4.0)
        read.append(np.log(bank.conductance_s[bank.responsive]))
    x = np.array(read)[1:]
    own = x - x.mean(axis=0)
    lag = (own[1:] * own[:-1]).mean() / (own**2).mean()
    assert abs(lag) < 0.1
    assert x.mean(axis=0).std() > 1.3 * own.std()
    assert np.median(x[-10:]) == pytest.approx(np.median(x[:10]), abs=0.1)
    never = np.mean(x.min(axis=0) > np.log(1 / 80e3))
    assert 0.03 < never < 0.25


def test_a_set_makes_a_broken_filament_whole_so_that_its_threshold_counts_again() -> None:
    bank = cells_of(MODEL, 300, 8)
    bank.place(200e-6)
    bank.apply(0.0, 3.0, 4.0)
    bank.apply(2.0, 0.0, 3.0)
    grown = bank.conductance_s
    bank.apply(0.0, 0.45, 4.0)
    assert np.mean(bank.conductance_s == grown) > 0.98


def test_wear_makes_the_first_reset_shallower_and_fewer_cells_give_up_than_that_says() -> None:
    def resets(cycles: int) -> tuple[float, float]:
        bank = cells_of(MODEL.model_copy(update={"drift": None}), 3000, 5)
        bank.place(200e-6)
        bank.wear(cycles)
        reached = np.zeros(3000, dtype=bool)
        first = 0.0
        for k in range(100):
            bank.apply(0.0, 3.0, 4.0)
            reached |= bank.conductance_s < 1 / 80e3
            first = first if k else float(reached[bank.responsive].mean())
        return first, float(reached[bank.responsive].mean())

    fresh, worn, very_worn = resets(0), resets(200), resets(8000)
    assert 0.6 < fresh[0] < 0.8
    assert 0.35 < worn[0] < 0.5
    assert very_worn[0] == pytest.approx(worn[0], abs=0.03)
    assert fresh[1] > 0.85
    assert fresh[1] - worn[1] < 0.05


def test_a_cycle_is_counted_when_a_reset_breaks_a_filament_and_not_again_before_the_next_set() -> (
    None
):
    geometry = Geometry(1, 6, 6)
    chip = SimulatedChip(
        geometry, Simulation(seed=9, read_noise=False, converters=False), read_v=0.3, chip_id="T"
    )
    cells = Cells.all(geometry)
    steps = [Step(4.2, 0.0, 2.5, 200e-9)] + 2 * [Step(0.0, 3.0, 4.0, 200e-9)]
    chip.execute(Apply(cells, tuple(steps)), 1)
    state = chip._state  # private: what a reading cannot tell
    formed = state.formed
    assert formed.sum() > 25
    assert np.all(state.cycles_done[formed] == 1)
    chip.execute(Apply(cells, (Step(2.0, 0.0, 2.6, 200e-9), Step(0.0, 3.0, 4.0, 200e-9))), 2)
    assert np.all(state.cycles_done[formed & (state.broken_s > 0)] == 2)


def test_a_gate_too_high_for_a_new_filament_leaves_cells_wandering_and_settled_ones_alone() -> None:
    still = MODEL.model_copy(update={"drift": None})
    grow = still.set.grow
    assert grow is not None
    assert grow.overdrive is not None

    def ramped(model: DeviceModel, settled: bool) -> np.ndarray:
        bank = cells_of(model, 2000, 11)
        if settled:
            bank.place(1 / 6000, settled_s=1 / 6000)
        else:
            bank.place(200e-6)
            bank.apply(0.0, 3.0, 4.0)
        for wl in np.arange(1.8, 3.51, 0.05):
            bank.apply(2.0, 0.0, wl)
        return np.asarray(1 / bank.conductance_s[bank.responsive])

    calm = still.model_copy(
        update={
            "set": still.set.model_copy(
                update={"grow": grow.model_copy(update={"overdrive": None})}
            )
        }
    )
    high = 1.12 * grow.series_ohm
    assert np.mean(ramped(calm, settled=False) > high) < 0.03
    assert 0.1 < np.mean(ramped(still, settled=False) > high) < 0.5
    assert np.mean(ramped(still, settled=True) > high) < 0.03
    assert np.median(ramped(still, settled=False)) < high


def test_what_a_set_stirs_above_the_series_resistance_does_not_add_up() -> None:
    still = MODEL.model_copy(update={"drift": None})
    assert still.set.grow is not None
    bank = cells_of(still, 300, 4)
    bank.place(1 / 4200, settled_s=1 / 4200)
    for _ in range(300):
        bank.apply(2.0, 0.0, 3.5)
    end = bank.conductance_s[bank.responsive] * still.set.grow.series_ohm
    assert np.all(end < 1.1)
    assert np.median(end) == pytest.approx(1.0, abs=0.02)


CREEP = Creep(part=0.5, most_ohm=1000.0)
SHALLOW = Shallow(part=0.2, floor_s=1 / 20e3, spread_ln=0.3, link=0.9)


def _without_drift(creep: Creep | None, shallow: Shallow | None) -> DeviceModel:
    """The fitted preset, with these in place of its own."""
    grow, redraw = MODEL.set.grow, MODEL.reset.redraw
    assert grow is not None
    assert redraw is not None
    grow, redraw = (
        grow.model_copy(update={"creep": creep}),
        redraw.model_copy(update={"shallow": shallow}),
    )
    return MODEL.model_copy(
        update={
            "drift": None,
            "set": MODEL.set.model_copy(update={"grow": grow}),
            "reset": MODEL.reset.model_copy(update={"redraw": redraw}),
        }
    )


def _opened(bank: CellBank) -> np.ndarray:
    """Which cells passed 80 kohm in one of 100 full RESETs after a full SET."""
    bank.apply(2.0, 0.0, 2.7)
    opened = np.zeros(len(bank), dtype=bool)
    for _ in range(100):
        bank.apply(0.0, 3.0, 4.0)
        opened |= bank.conductance_s < 1 / 80e3
    return opened


def test_cells_that_do_not_open_are_the_same_in_every_cycle_and_the_others_are_as_they_were() -> (
    None
):
    bank, other = (cells_of(_without_drift(None, one), 1000, 5) for one in (SHALLOW, None))
    index = np.arange(1000)
    shallow = np.isfinite(bank.model.traits(5, index).floor_ln)
    assert 0.17 < shallow.mean() < 0.23
    first, second = _opened(bank), _opened(bank)
    assert np.mean(first[shallow & bank.responsive]) < 0.1
    assert np.mean(first[~shallow & bank.responsive]) > 0.9
    assert np.mean(first != second) < 0.03
    _opened(other), _opened(other)
    np.testing.assert_array_equal(bank.conductance_s[~shallow], other.conductance_s[~shallow])


def test_a_floor_is_the_middle_of_what_the_resets_of_its_cell_leave() -> None:
    bank = cells_of(_without_drift(None, SHALLOW.model_copy(update={"part": 1.0})), 500, 6)
    floor_ln = bank.model.traits(6, np.arange(500)).floor_ln
    bank.place(200e-6)
    left = []
    for _ in range(40):
        bank.apply(0.0, 3.0, 4.0)
        left.append(np.log(bank.conductance_s))
    high = bank.responsive & (floor_ln > np.log(1 / 15e3)) & (floor_ln < np.log(1 / 8e3))
    off = np.median(left, axis=0)[high] - floor_ln[high]
    assert np.abs(np.median(off)) < 0.1


def test_cells_that_creep_come_up_to_the_common_curve_late_and_are_those_that_do_not_open() -> None:
    bank = cells_of(_without_drift(CREEP, SHALLOW), 2000, 7)
    traits = bank.model.traits(7, np.arange(2000))
    creeps, shallow = traits.creep_ohm > 0, np.isfinite(traits.floor_ln)
    assert 0.46 < creeps.mean() < 0.54
    assert traits.creep_ohm.max() <= 1000
    assert np.mean(creeps[shallow]) > 0.95
    # Before and after a RESET: what a cell has more is of the filament that grows anew.
    bank.place(1 / 6000, settled_s=1 / 6000)
    for _ in range(15):
        bank.apply(2.0, 0.0, 3.0)
    settled = 1 / bank.conductance_s
    bank.place(8e-6)
    for _ in range(15):
        bank.apply(2.0, 0.0, 3.0)
    grown = 1 / bank.conductance_s
    most = bank.responsive & (traits.creep_ohm > 800)
    none = bank.responsive & ~creeps
    assert np.median(settled[most]) - np.median(settled[none]) < 100
    assert 600 < np.median(grown[most]) - np.median(grown[none]) < 1100


def test_wear_lets_later_resets_open_less_where_a_model_says_so() -> None:
    def after(again_ln: float, pulses: int) -> np.ndarray:
        wear = MODEL.reset.wear
        assert wear is not None
        model = _without_drift(None, None)
        reset = model.reset.model_copy(
            update={"wear": wear.model_copy(update={"again_ln": again_ln})}
        )
        bank = cells_of(model.model_copy(update={"reset": reset}), 2000, 8)
        bank.wear(8000)
        bank.place(200e-6)
        for _ in range(pulses):
            bank.apply(0.0, 3.0, 4.0)
        return np.asarray(np.log(bank.conductance_s[bank.responsive]))

    np.testing.assert_array_equal(after(0.0, 1), after(0.5, 1))
    # Cells that an earlier pulse opened far deeper stay there.
    assert 0.3 < np.median(after(0.5, 5)) - np.median(after(0.0, 5)) < 0.5


@pytest.mark.parametrize("name", PRESETS)
def test_published_presets_have_no_cells_that_creep_or_do_not_open(name: str) -> None:
    traits = DeviceModel.load(name).traits(3, np.arange(200))
    assert np.all(traits.creep_ohm == 0)
    assert np.all(np.isneginf(traits.floor_ln))


def test_wrong_use_of_a_bank_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        cells_of(MODEL, 0)
    bank = cells_of(MODEL, 3)
    with pytest.raises(ConfigError, match="time cannot"):
        bank.advance(-1.0)
    with pytest.raises(ConfigError, match="above zero"):
        bank.place(0.0)
    with pytest.raises(ConfigError, match="fewer than 0"):
        bank.wear(-1)


def test_a_copy_of_a_model_with_other_numbers_forgets_what_was_worked_out_of_the_old() -> None:
    used = DeviceModel.load("paper")
    pulsed = cells_of(used, 50, 1)
    pulsed.apply(2.0, 0.0, 2.6)
    tables = used.set.model_copy(update={"conductance_s": [g / 2 for g in used.set.conductance_s]})
    bank = cells_of(used.model_copy(update={"set": tables}), 50, 1)
    bank.place(1e-7)
    bank.apply(2.0, 0.0, 2.6)
    pulsed.place(1e-7)
    pulsed.apply(2.0, 0.0, 2.6)
    responsive = bank.responsive
    ratio = np.median(bank.conductance_s[responsive]) / np.median(pulsed.conductance_s[responsive])
    assert ratio == pytest.approx(0.5, rel=0.1)
