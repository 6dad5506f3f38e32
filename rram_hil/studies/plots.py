"""The plots of a study, as PNG files: what arms reach on each device, and for how many words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from rram_hil.report.drawing import new_axes, view_extra
from rram_hil.storage.safe_files import disk
from rram_hil.studies.results import Results, Row
from rram_hil.studies.tables import rows_of
from rram_hil.studies.words_needed import Series, series_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart; each arm has a mark of its own as well."""
MARKS = "osD^vP*X"


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw accuracies and, where arms keep words, accuracy by words; one file a device and plot.
    Plots of other devices in the folder, of an earlier table, go away. Raises `DataError` where the
    disk refuses it.
    """
    clear(folder, "accuracy", "words")
    drawn = []
    for device in results.planned.study.devices_used:
        rows = rows_of(results, device.name)
        if rows:
            drawn.append(_bars(rows, device.title, folder / f"accuracy-{device.name}.png"))
        series = series_of(results.planned.study, rows)
        if series:
            drawn.append(_words(series, device.title, folder / f"words-{device.name}.png"))
    return drawn


def clear(folder: Path, *kinds: str) -> None:
    """Remove the plots of these kinds, "KIND-*.png". Raises `DataError` where the disk refuses
    it.
    """
    for kind in kinds:
        for path in folder.glob(f"{kind}-*.png"):
            with disk(str(path)):
                path.unlink(missing_ok=True)


def _bars(rows: list[Row], title: str, path: Path) -> Path:
    """Every chip as a point, the mean as a mark, one line an arm."""
    size = (640.0, 86.0 + 26.0 * len(rows))
    with new_axes("accuracy (% of the test images)", size=size, margins=(180, 20, 40, 46)) as axes:
        for place, row in enumerate(rows):
            chips = [100 * cell.arm.accuracy for cell in row.cells]
            axes.plot(chips, [place] * len(chips), "o", color="#7a8288", markersize=4, alpha=0.7)
            axes.plot(
                100 * row.accuracy, place, "|", color=COLOURS[0], markersize=16, markeredgewidth=3
            )
        axes.set_yticks(range(len(rows)), [row.arm for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=True, axis="x")
        return save(axes, path, f"{title}; points: chips, bars: their mean")


def _words(series: list[Series], title: str, path: Path) -> Path:
    """Accuracy of the arms that keep words by their share of the weights, and of floating point."""
    labels = "words and digital parameters (% of the weights)", "accuracy (%)"
    with new_axes(*labels, size=(640, 380), margins=(66, 210, 40, 46)) as axes:
        for place, one in enumerate(series):
            axes.errorbar(
                [100 * fraction for fraction in one.fractions],
                [100 * row.accuracy for row in one.rows],
                yerr=[
                    [100 * (row.accuracy - row.least) for row in one.rows],
                    [0.0] * len(one.rows),
                ],
                fmt=f"{MARKS[place % len(MARKS)]}-",
                color=COLOURS[place % len(COLOURS)],
                capsize=3,
                label=one.name,
            )
        best = max(row.float_accuracy for one in series for row in one.rows)
        axes.axhline(100 * best, color="#59626d", linestyle=":", label="floating point, best")
        axes.set_xlim(left=0)
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.2))
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=10)
        return save(axes, path, f"{title}; lower bars: the worst chip")


def save(axes: Axes, path: Path, title: str) -> Path:
    """Write the picture of these axes. Raises `DataError` where the disk refuses it."""
    with view_extra():
        from matplotlib.figure import Figure
    figure, picture = axes.figure, io.BytesIO()
    assert isinstance(figure, Figure)
    height = 72 * figure.get_figheight()
    figure.suptitle(title, y=1 - 8 / height, fontsize=9, wrap=True)
    figure.savefig(picture, format="png", dpi=144, facecolor="white", bbox_inches="tight")
    with disk(str(path)):
        path.write_bytes(picture.getvalue())
    return path
