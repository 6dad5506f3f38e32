"""The twin of a chip whose parameters nothing else knows: measured over the board's wire, fitted by
the command, and as good on other cells as the true parameters are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blind_twin import RECIPE, elsewhere, hidden_model, twin

from rram_hil.calibration.device_model import passed


@pytest.mark.parametrize("base", ["hfo2-measured", "hfo2"])
def test_a_hidden_chip_is_its_seeds_own(base: str) -> None:
    models = [hidden_model(seed, base) for seed in (1, 1, 2)]
    assert models[0].digest == models[1].digest != models[2].digest


def test_the_recipe_asks_the_same_elsewhere() -> None:
    recipe = RECIPE.read_text(encoding="utf-8")
    assert elsewhere(recipe, 0) == recipe
    assert "rows = [8, 15]" in elsewhere(recipe, 8)
    assert "rows = [0, 7]" not in elsewhere(recipe, 8)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_quick_look_at_few_cells_already_gives_a_twin(tmp_path: Path) -> None:
    """32 cells each for the ramps; the whole recipe is the business of the slow test."""
    recipe = RECIPE.read_text(encoding="utf-8")
    for whole, few in (("[0, 2]", "[0, 0]"), ("[3, 5]", "[3, 3]"), ("[6, 7]", "[6, 6]")):
        recipe = recipe.replace(f"rows = {whole}", f"rows = {few}")
    found = twin(hidden_model(1), tmp_path, print, recipe)
    assert passed(found.of_truth)[1] > 100
    assert found.score >= 0.9
    assert found.pulses[2] == pytest.approx(found.pulses[1], rel=0.25)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_recipe_gives_a_twin_as_good_as_the_truth(seed: int, tmp_path: Path) -> None:
    found = twin(hidden_model(seed), tmp_path, print)
    measured, truth, fitted = found.pulses
    print(f"{passed(found.of_truth)}, {passed(found.of_fitted)}; pulses {found.pulses}")
    assert found.score >= 0.97
    assert fitted == pytest.approx(truth, rel=0.1)
    assert np.isfinite(measured)
