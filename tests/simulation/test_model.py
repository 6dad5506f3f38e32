from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from rram_hil.errors import ConfigError
from rram_hil.simulation.model import PRESETS, DeviceModel, _monotone

SEED = 11
MODELS = {name: DeviceModel.load(name) for name in PRESETS}


@pytest.mark.parametrize("name", PRESETS)
def test_the_nominal_set_curve_can_be_inverted(name: str) -> None:
    model = MODELS[name]
    low, high = (5e-6, 235e-6) if name == "hfo2" else (1e-6, 100e-6)
    target = np.geomspace(low, high, 50)
    for bl_v, width_s in ((2.0, 100e-9), (2.0, 1e-6)):
        gate = model.nominal_set_gate_v(target, bl_v, width_s)
        np.testing.assert_allclose(model.nominal_set_s(gate, bl_v, width_s), target, rtol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_the_nominal_set_table_rises_and_gives_the_nominal_curve_back(name: str) -> None:
    model = MODELS[name]
    wl, g = model.nominal_set_table()
    assert np.all(np.diff(wl) > 0)
    assert np.all(np.diff(g) > 0)
    np.testing.assert_allclose(model.nominal_set_s(wl[1:-1]), g[1:-1], rtol=1e-3)


def test_the_nominal_curves_of_hfo2_pass_the_measured_points() -> None:
    model = MODELS["hfo2"]
    np.testing.assert_allclose(
        model.nominal_set_s([2.35, 2.49, 2.63]), [74e-6, 134e-6, 170e-6], rtol=1e-3
    )
    np.testing.assert_allclose(
        model.nominal_reset_s([0.9, 1.2, 1.5]), [105e-6, 37e-6, 22e-6], rtol=1e-3
    )
    np.testing.assert_allclose(
        model.nominal_set_s(3.0, [0.8, 1.0, 1.4]), [175e-6, 195e-6, 232e-6], rtol=0.1
    )
    assert model.nominal_set_s(3.0, 0.6) == 0
    assert model.nominal_reset_s(0.5) == np.inf
    assert model.nominal_reset_s(1.5, 2.6) > 2 * model.nominal_reset_s(1.5, 3.5)


def test_width_acts_through_its_logarithm_and_weakly() -> None:
    model = MODELS["hfo2"]
    g = (
        model.nominal_set_s(2.49, 2.0, 1e-7),
        model.nominal_set_s(2.49, 2.0, 1e-6),
        model.nominal_set_s(2.49, 2.0, 1e-5),
    )
    assert g[0] < g[1] < g[2] < 1.3 * g[0]
    assert model.nominal_reset_s(1.2, 3.5, 2e-6) < model.nominal_reset_s(1.2, 3.5, 2e-7)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(PRESETS),
    volts=st.floats(0.1, 5.0),
    gate=st.floats(-1.0, 5.0),
    width=st.floats(1e-8, 1e-2),
    event=st.integers(1, 10**6),
)
def test_set_never_lowers_and_reset_never_raises(
    name: str, volts: float, gate: float, width: float, event: int
) -> None:
    model = MODELS[name]
    index = np.arange(64)
    traits = model.traits(SEED, index)
    formed = (index % 3 > 0) & (traits.stuck == 0)
    g = np.geomspace(1e-9, 1e-3, 64)
    events = np.full(64, event)
    after, now_formed = model.after_set(
        SEED, traits, events, g, formed, np.full(64, volts), np.full(64, gate), width
    )
    assert np.all(after >= g)
    assert np.all(np.isfinite(after))
    assert np.all(now_formed >= formed)
    after = model.after_reset(
        SEED, traits, events, g, formed, np.full(64, volts), np.full(64, gate), width
    )
    assert np.all(after <= g)
    assert np.all(after > 0)
    assert np.array_equal(after[~formed], g[~formed])


def test_relaxation_has_the_measured_spread_robust_spread_and_tails() -> None:
    """Tech B, sd and robust sd in uS; see `Relaxation`."""
    model = MODELS["hfo2"]
    index = np.arange(300_000)
    g = np.linspace(2e-6, 126e-6, index.size)
    for seconds, sd, robust in (
        (0.01, 2.27, 0.53),
        (0.1, 3.49, 0.72),
        (1.0, 4.54, 0.90),
        (1e4, 7.78, 1.75),
    ):
        change = 1e6 * (
            model.relaxed(SEED, index, np.ones_like(index), g, np.full(g.size, seconds)) - g
        )
        assert change.std() == pytest.approx(sd, rel=0.12)
        assert 1.4826 * np.median(np.abs(change - np.median(change))) == pytest.approx(
            robust, rel=0.2
        )
        middle = (g > 25e-6) & (g < 70e-6)
        assert change[middle].std() > 1.2 * change[g > 115e-6].std()
    assert np.array_equal(
        model.relaxed(SEED, index, np.ones_like(index), g, np.full(g.size, 1e-5)), g
    )


def test_relaxation_is_one_path_a_programming() -> None:
    model = MODELS["hfo2"]
    index, g = np.arange(1000), np.full(1000, 60e-6)
    first = model.relaxed(SEED, index, np.full(1000, 1), g, np.full(1000, 1.0))
    assert np.array_equal(
        first, model.relaxed(SEED, index, np.full(1000, 1), g, np.full(1000, 1.0))
    )
    later = model.relaxed(SEED, index, np.full(1000, 1), g, np.full(1000, 100.0))
    other = model.relaxed(SEED, index, np.full(1000, 2), g, np.full(1000, 1.0))
    assert np.corrcoef(first, later)[0, 1] > 0.95
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2


def test_read_noise_is_as_stated_and_telegraph_cells_stand_out() -> None:
    model = MODELS["hfo2"]
    index = np.arange(100_000)
    traits = model.traits(SEED, index)
    g = np.full(index.size, 100e-6)
    seen = model.as_read(SEED, traits, np.ones_like(index), g)
    quiet = ~traits.telegraph
    assert seen[quiet].std() == pytest.approx(np.hypot(0.5e-6, 0.1e-6), rel=0.02)
    trapped = seen < 97.5e-6
    assert trapped.mean() == pytest.approx(0.05 * 0.1, rel=0.15)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("paper", 0.0175, 0.0904),
        ("hfo2", 0.002, 0.006),
        ("paper-0.3", 0.0175, 0.0904),
        ("paper-0.5-additive", 0.0175, 0.0904),
    ],
)
def test_stuck_cells_come_at_the_rates_of_the_preset(name: str, low: float, high: float) -> None:
    stuck = MODELS[name].traits(SEED, np.arange(400_000)).stuck
    assert np.mean(stuck == 1) == pytest.approx(low, rel=0.1)
    assert np.mean(stuck == -1) == pytest.approx(high, rel=0.1)


@pytest.mark.parametrize("name", ["paper-0.5-sound", "paper-0.5-sound-additive"])
def test_sound_presets_have_no_stuck_cells_and_are_else_the_same(name: str) -> None:
    assert not MODELS[name].traits(SEED, np.arange(10_000)).stuck.any()
    whole = MODELS[name.replace("-sound", "")]
    others = {"name", "stuck"}
    assert MODELS[name].model_dump(exclude=others) == whole.model_dump(exclude=others)


def test_a_model_with_a_base_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "name = 'mine'\nbase = 'paper'\n[set]\ngain_sd_ln = 0.16\nspread_sd_ln = 0.12\n"
    )
    model, base = DeviceModel.load("mine.toml", tmp_path), MODELS["paper"]
    assert (model.set.gain_sd_ln, model.set.spread_sd_ln) == (0.16, 0.12)
    wider = base.set.model_copy(update={"gain_sd_ln": 0.16, "spread_sd_ln": 0.12})
    assert model == base.model_copy(update={"name": "mine", "set": wider})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base = 'mine.toml'", "base 'mine.toml' is no preset"),
        ("base = 3", "base 3 is no preset"),
        ("base = 'paper'\nset = 3", "set"),
        ("base = 'hfo2-measured'\n[set]\nshift_sd_s = 1e-6", "not for filaments that grow"),
        ("base = 'hfo2-measured'\n[set.grow]\npower = 100.0", r"set\.grow\.power: 100\.0"),
        ("base = 'hfo2-measured'\n[set.grow]\npower = 0.01", r"set\.grow\.power: 0\.01"),
    ],
)
def test_a_wrong_base_or_what_does_not_go_with_it_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "mine.toml").write_text(f"name = 'mine'\n{text}\n")
    with pytest.raises(ConfigError, match=says):
        DeviceModel.load("mine.toml", tmp_path)


def test_a_model_that_is_wrong_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'nothing' is neither a preset"):
        DeviceModel.load("nothing", tmp_path)
    (tmp_path / "mine.toml").write_text("name = 'x'\nvolts = 3\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: "):
        DeviceModel.load("mine.toml", tmp_path)
    (tmp_path / "mine.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        DeviceModel.load("mine.toml", tmp_path)


@given(
    steps=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=10),
    seed=st.integers(0, 2**32 - 1),
)
def test_curves_through_a_table_are_scipys_to_the_last_digit(steps: list[float], seed: int) -> None:
    x = np.concatenate(([0.5], 0.5 + np.cumsum(steps)))
    conductance_s = 10 ** np.random.default_rng(seed).uniform(-7, -4, x.size)
    at = np.concatenate((np.linspace(x[0], x[-1] + 0.1, 200), x))
    wanted = PchipInterpolator(x, np.log(conductance_s))(np.minimum(at, x[-1]))
    # Private: what both curves of a model are made with.
    found = _monotone(x.tolist(), conductance_s.tolist(), at)
    np.testing.assert_array_equal(found, wanted)
