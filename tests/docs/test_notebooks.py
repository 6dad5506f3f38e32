"""The notebooks run from top to bottom, without Jupyter."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_notebooks import page_of, run_notebook

pytest.importorskip("matplotlib")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_and_draws(path: Path) -> None:
    before = Path.cwd()
    cells = run_notebook(path)
    assert Path.cwd() == before
    text, pictures = page_of(cells, path.stem)
    assert text.startswith("# ")
    assert "```text\n" in text
    assert all(picture.startswith(b"<?xml") for picture in pictures.values())
    assert pictures
    assert all(f"]({name})" in text for name in pictures)


def test_the_value_of_a_last_line_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "n.py"
    path.write_text("# %% [markdown]\n# # T\n\n# %%\nx = 3\nprint(x)\nx + 1\n\n# %%\nx = 5\n")
    first, second, third = run_notebook(path)
    assert (first.is_code, first.source) == (False, "# T")
    assert second.printed == "3\n4\n"
    assert third.printed == ""


def test_what_a_cell_raises_is_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "n.py"
    path.write_text("# %%\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        run_notebook(path)
