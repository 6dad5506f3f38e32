"""Pictures by matplotlib: the same for the same contents, in the page's colours."""

from __future__ import annotations

import base64
import io
import re
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from rram_hil.errors import ConfigError
from rram_hil.report.drawing import CURVE, DASHED, INK, new_axes, svg, whole_decade
from rram_hil.report.maps import (
    NOT_FORMED,
    STUCK_HIGH,
    STUCK_LOW,
    UNUSED,
    MapCells,
    tile_pictures,
)
from rram_hil.report.model import Account, MapPanel, Report
from rram_hil.report.page import environment, html


def line(alt: str = "a line", log: str = "") -> str:
    with new_axes("x, uS", "y", log) as axes:
        axes.plot([1.0, 1000.0], [1e-5, 1.0], **CURVE)
        axes.plot([1.0, 1000.0], [1e-4, 0.1], **DASHED)
        return str(svg(axes, alt))


def test_a_picture_is_the_same_whatever_the_users_settings_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = line()
    with matplotlib.rc_context({"font.size": 40, "axes.grid": False, "svg.hashsalt": "other"}):
        assert line() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_a_picture_says_what_it_shows_and_follows_the_pages_theme() -> None:
    text = line('a "line" <b>')
    assert text.startswith(
        '<svg viewBox="0 0 400 280" role="img" aria-label="a &quot;line&quot; &lt;b&gt;">'
    )
    assert text.count('<g class="curve">') == 1
    assert "var(--blue)" in text
    assert "var(--goal)" in text
    assert INK not in text


def test_names_of_parts_differ_between_the_pictures_of_a_page() -> None:
    ids = re.findall(r'\bid="([^"]*)"', line("one") + line("two"))
    assert len(ids) == len(set(ids))


def test_text_with_signs_of_formulas_stays_text() -> None:
    with new_axes("$x_1^", r"\frac $") as axes:
        assert "$x_1^" in svg(axes, "a formula")


def test_logarithmic_axes_write_powers_of_ten() -> None:
    text = line(log="y")
    for tick in ("10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"):
        assert f">{tick}</text>" in text


def test_a_logarithmic_axis_has_a_whole_decade_to_read() -> None:
    with new_axes(log="xy") as axes:
        axes.set(xlim=(2.0, 3.0), ylim=(5.0, 5000.0))
        whole_decade(axes, "x")
        whole_decade(axes, "y")
        assert axes.get_xlim() == (1.0, 10.0)
        assert axes.get_ylim() == (5.0, 5000.0)


@pytest.mark.parametrize("name", ["matplotlib", "jinja2"])
def test_a_missing_library_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    environment.cache_clear()  # an environment that an earlier page has made has its library
    panel = MapPanel("map", np.full((2, 2), 1e-5), np.full((2, 2), 1e-5))
    account = Account("chip", "bench", "recipe", "now", "wall")
    with pytest.raises(ConfigError, match=rf'{name}.*pip install "rram-hil\[view\]"') as missing:
        html(Report("title", account, maps=(panel,)))
    assert "\n" not in str(missing.value)


def image_of(text: str) -> np.ndarray:  # type: ignore[type-arg]
    """The first image of a picture, shape (height, width, 3)."""
    data = re.search(r"data:image/png;base64,\s*([^\"]*)", text.replace("&#10;", ""))
    assert data
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB"))


def rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))


def test_cells_that_were_not_formed_have_a_colour_and_a_count_of_their_own() -> None:
    target = np.full((1, 4), 20e-6)
    programmed = np.array([[20e-6, 1e-9, np.nan, 1e-9]])
    unformed, high = np.array([[0, 1, 1, 1]], dtype=bool), np.array([[0, 0, 0, 1]], dtype=bool)
    cells = MapCells.of(MapPanel("m", target, programmed, None, high, not_formed=unformed))
    assert cells.responsive.tolist() == [[[True, False, False, False]]]
    assert {what: n for _, n, what, _ in cells.marks} == {
        "stuck at low resistance": 0,
        "stuck at high resistance": 1,
        "not formed": 2,
        "could not be read": 0,
        "not used": 0,
    }
    pixels = image_of(tile_pictures("m", cells, 0)[1].svg)[0].tolist()
    assert pixels[1:] == [rgb(NOT_FORMED), rgb(NOT_FORMED), rgb(STUCK_HIGH)]


def test_the_pixels_of_a_map_are_its_cells() -> None:
    target = np.array([[1e-6, 10e-6, 20e-6], [20e-6, 20e-6, np.nan]])
    programmed = np.array([[1e-6, 10e-6, 20e-6], [99e-6, 1e-9, 5e-6]])
    low, high = np.zeros((2, 3), dtype=bool), np.zeros((2, 3), dtype=bool)
    low[1, 0], high[1, 1] = True, True
    cells = MapCells.of(MapPanel("m", target, programmed, low, high))
    goal, done, error = (image_of(p.svg) for p in tile_pictures("m", cells, 0))
    assert goal.shape == (2, 3, 3)
    assert goal[0, 0].sum() < goal[0, 1].sum() < goal[0, 2].sum()
    assert goal[1, 0].tolist() == goal[0, 2].tolist()
    assert done[0].tolist() == goal[0].tolist()
    for picture in (done, error):
        assert picture[1].tolist() == [rgb(STUCK_LOW), rgb(STUCK_HIGH), rgb(UNUSED)]
    assert goal[1, 2].tolist() == rgb(UNUSED)
    assert np.ptp(error[0].astype(int)) <= 4
    assert error[0].min() > 230
