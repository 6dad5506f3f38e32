"""docs/recipes.md names every protocol and every key that a recipe may use."""

import re
from pathlib import Path

import pytest

from rram_hil.bench.plugins import protocol_class
from rram_hil.bench.recipe import load_recipe
from rram_hil.plugins import names

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*names("rram_hil.protocols"), *names("rram_hil.calibration")])
def test_every_protocol_and_its_keys_are_described(name: str) -> None:
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    missing = [key for key in protocol_class(name).model_fields if f"`{key}`" not in section]
    assert not missing


def test_the_first_recipe_of_the_page_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example
    (tmp_path / "recipe.toml").write_text(example[1], encoding="utf-8")
    assert [step.name for step in load_recipe(tmp_path / "recipe.toml").steps] == [
        "forming",
        "map after forming",
    ]
