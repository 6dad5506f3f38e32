"""Pictures by matplotlib, as SVG text that a page holds and whose colours follow the page's theme.

Matplotlib is an extra: it is imported where something is drawn, through its object interface, with
a style of its own whatever the user's settings are.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from rram_hil.errors import ConfigError

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

INK, SOFT, LINE, BLUE, GOAL, CARD = (
    "#1b2026",
    "#59626d",
    "#dfe2e6",
    "#3c6bc5",
    "#b84a0e",
    "#ffffff",
)
"""Colours of the light theme: in a page they become the variables of its style sheet."""
HUES = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of lines that stand beside each other: all but the first those of Okabe and Ito, which
people who see fewer colours tell apart.
"""
CURVE: dict[str, Any] = {"color": BLUE, "linewidth": 2, "gid": "curve"}
DASHED: dict[str, Any] = {"color": GOAL, "linewidth": 2, "linestyle": (0, (2.5, 2)), "gid": "goal"}
"""What the curve is compared with: a law, a goal, a measurement."""

RASTER_DPI = 200
"""Resolution of what a picture holds as an image, many dots for one, where 72 is that of a page."""

_THEME = {INK: "ink", SOFT: "soft", LINE: "line", BLUE: "blue", GOAL: "goal", CARD: "card"}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 1,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-5, 6),
    "grid.color": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Picture:
    """A drawing with its title and a line of explanation."""

    title: str
    svg: str
    note: str = ""


@contextmanager
def view_extra() -> Iterator[None]:
    """For imports of what only pages need. Raises `ConfigError` that says how to install it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f'pages and pictures need {error.name}: pip install "rram-hil[view]"'
        ) from None


@contextmanager
def new_axes(
    x_label: str = "",
    y_label: str = "",
    log: str = "",
    size: tuple[float, float] = (400, 280),
    margins: tuple[float, float, float, float] = (66, 14, 12, 46),
) -> Iterator[Axes]:
    """Empty axes in a picture of `size` (width, height) with `margins` (left, right, top, bottom),
    all in units of which text is 12 high; what is drawn inside has the pages' style.

    `log` names the logarithmic axes: "", "x", "y" or "xy".
    """
    with view_extra():
        from matplotlib.figure import Figure
    (width, height), (left, right, top, bottom) = size, margins
    with _style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        box = (
            left / width,
            bottom / height,
            1 - (left + right) / width,
            1 - (top + bottom) / height,
        )
        axes = figure.add_axes(box)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for name in log:
            _make_log(axes, "x" if name == "x" else "y")
        yield axes


def _make_log(axes: Axes, name: Literal["x", "y"]) -> None:
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, place: _power_text(value))
    axis.set_minor_formatter(lambda value, place: "")


def _power_text(value: float) -> str:
    if 1e-2 <= value <= 1e4:
        return f"{value:,g}"
    return "10" + f"{math.log10(value):.0f}".translate(_RAISED)


def whole_decade(axes: Axes, name: Literal["x", "y"]) -> None:
    """Widen a logarithmic axis to whole decades where it has no tick to read."""
    low, high = axes.get_xlim() if name == "x" else axes.get_ylim()
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if math.floor(math.log10(high)) < math.ceil(math.log10(low)) + 1:
        axes.set(**{f"{name}lim": (10.0**first, 10.0**last)})


def svg(axes: Axes, alt: str) -> Markup:
    """The picture of the axes as an SVG element that fills the width it is given, read out as
    `alt`; the same for the same contents.
    """
    with view_extra():
        from markupsafe import Markup
        from matplotlib.figure import Figure
    figure, text = axes.figure, io.StringIO()
    assert isinstance(figure, Figure)
    with _style({"svg.hashsalt": alt}):  # names of parts differ from picture to picture of a page
        figure.savefig(
            text,
            format="svg",
            dpi=RASTER_DPI,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    drawn = text.getvalue().partition("<svg")[2].partition(">")[2]
    drawn = re.sub(r'<g id="([a-z0-9.]+?)(_\d+)?"', r'<g class="\1"', drawn)
    for colour, variable in _THEME.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">'
    return Markup(head + drawn)


def _style(more: dict[str, str] | None = None) -> AbstractContextManager[None]:
    from matplotlib import style

    return style.context(["default", _STYLE | (more or {})])
