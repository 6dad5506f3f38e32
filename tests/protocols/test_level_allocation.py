"""Levels by the spread that cells really have after a rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from methods import Cells, a_setting, follow

from rram_hil.array import Geometry
from rram_hil.errors import ConfigError
from rram_hil.networks.mapping import Mapping
from rram_hil.networks.programmed_network import Programmed
from rram_hil.protocols.level_allocation import LevelAllocation, Levels
from rram_hil.protocols.parts.targets import Windows

CHIP = Geometry(1, 32, 64)
TARGET = np.tile(np.linspace(2e-6, 102e-6, 64), (1, 32, 1))


def allocated(
    sigma_s: np.ndarray, accepted: np.ndarray | None = None, lost_s: float = 1e-6, **keys: Any
) -> tuple[Any, Any, Levels]:
    """Levels for cells that lost `lost_s` and scatter by `sigma_s`."""
    rng = np.random.default_rng(2)
    found = (TARGET - lost_s + sigma_s * rng.standard_normal(TARGET.shape)).ravel()
    setting = a_setting(geometry=CHIP)
    mapping = Mapping(CHIP, (), TARGET, np.zeros(CHIP.shape, dtype=np.bool_))
    setting.share("network", Programmed(mapping, np.ones(CHIP.shape, dtype=np.bool_)))
    if accepted is not None:
        setting.share("windows", Windows(TARGET, TARGET, accepted))
        found = np.where(accepted.ravel(), found, 500e-6)
    asked = LevelAllocation(**keys)
    summary, saved = follow(asked, setting, Cells(found, lambda at, g, *_: g, CHIP))
    return summary, saved, setting.shared_by("levels", Levels)


def test_levels_lie_wider_where_cells_scatter_more() -> None:
    sigma = 0.3e-6 + 0.03 * TARGET
    summary, saved, levels = allocated(sigma, bits=2)
    assert levels.target_s.size == 4
    mean, at = levels.target_s - 1e-6, 0.3e-6 + 0.03 * levels.target_s
    below, above = levels.threshold_s - mean[:-1], mean[1:] - levels.threshold_s
    np.testing.assert_allclose(below / at[:-1], levels.separation, rtol=0.25)
    np.testing.assert_allclose(above / at[1:], levels.separation, rtol=0.25)
    assert np.all(np.diff(levels.target_s, 2) > 0)
    # Evenly spread ones are nearer to each other where it matters.
    even = np.linspace(2e-6, 102e-6, 4)
    least = np.min(np.diff(even) / (0.3e-6 + 0.03 * even[1:] + 0.3e-6 + 0.03 * even[:-1]))
    assert levels.separation > 1.2 * least
    for bits in range(1, 5):
        assert saved[f"levels_{bits}_bit"].shape == (1 << bits,)
        assert saved[f"thresholds_{bits}_bit"].shape == ((1 << bits) - 1,)
    assert summary.cells == CHIP.size


def test_how_many_bits_are_enough_is_told_by_the_cells() -> None:
    fine, _, _ = allocated(np.full(TARGET.shape, 1e-6), bits=4, most_error=0.01)
    # 16 levels over 100 uS are 6.7 apart: a threshold is 3.3 standard deviations away.
    assert fine.separation.value == pytest.approx(100 / 15 / 2, rel=0.1)
    assert fine.enough_bits == 4
    assert abs(fine.measured_error.value - fine.expected_error.value) < 0.004
    coarse, _, _ = allocated(np.full(TARGET.shape, 6e-6), bits=4, most_error=0.01)
    assert coarse.enough_bits == 2
    assert coarse.measured_error.value > 0.3


def test_cells_that_were_not_accepted_do_not_tell() -> None:
    accepted = np.ones(CHIP.shape, dtype=np.bool_)
    accepted[0, ::3] = False
    summary, _, levels = allocated(np.full(TARGET.shape, 1e-6), accepted, bits=3)
    assert summary.cells == accepted.sum()
    assert levels.separation == pytest.approx(100 / 7 / 2, rel=0.1)
    with pytest.raises(ConfigError, match="program more cells"):
        allocated(np.full(TARGET.shape, 1e-6), accepted & (np.arange(64) < 1))
    with pytest.raises(ConfigError, match="levels need room"):
        allocated(np.full(TARGET.shape, 1e-6), lowest_s=90e-6, highest_s=50e-6)


@pytest.mark.parametrize(
    "ends",
    [{"highest_s": 1.0}, {"highest_s": 106e-6}, {"lowest_s": 0.0}, {"lowest_s": 110e-6}],
)
def test_levels_lie_where_cells_were_measured(ends: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"2e-06 to 0.000102 S allow|levels need room"):
        allocated(np.full(TARGET.shape, 1e-6), **ends)


def test_by_default_levels_end_with_the_accepted_cells() -> None:
    accepted = np.broadcast_to(TARGET < 60e-6, CHIP.shape)
    _, _, levels = allocated(np.full(TARGET.shape, 1e-6), accepted)
    assert 50e-6 < levels.target_s.max() < 60e-6
    with pytest.raises(ConfigError, match=r"highest_s .* is beyond what was measured"):
        allocated(np.full(TARGET.shape, 1e-6), accepted, highest_s=100e-6)


def test_two_targets_are_too_few() -> None:
    accepted = np.broadcast_to(np.isin(np.arange(64), (0, 63)), CHIP.shape)
    with pytest.raises(ConfigError, match="no 3 targets have 8 or more"):
        allocated(np.full(TARGET.shape, 1e-6), accepted)


def test_no_threshold_lies_below_zero() -> None:
    _, saved, _ = allocated(np.full(TARGET.shape, 1e-6), lost_s=30e-6, bits=4)
    for bits in range(1, 5):
        thresholds = saved[f"thresholds_{bits}_bit"]
        assert thresholds.min() >= 0
        assert np.all(np.diff(thresholds) > 0)
