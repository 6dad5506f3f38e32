"""The report of a run: one HTML file that holds everything it shows and needs nothing else to be
read. Its shell and tables are templates, filled by jinja2 (extra `view`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rram_hil.errors import DataError, printable
from rram_hil.report.charts import ErrorSummary, bar_chart
from rram_hil.report.drawing import view_extra
from rram_hil.report.maps import TILES_OPEN, TILES_SHOWN, MapCells, tile_pictures
from rram_hil.report.model import MapPanel, Report, mean
from rram_hil.storage.safe_files import remove, replace
from rram_hil.units import duration, minus, number, per_cent, points

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write_report(path: Path, report: Report) -> None:
    """Write the report as one HTML file, whole or not at all. Raises `DataError` where it cannot be
    written, `ConfigError` where the extra `view` is missing.
    """
    write_page(path, html(report))


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all; control characters of names and texts stand as their
    escapes. Raises `DataError` where it cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(printable(text), encoding="utf-8", newline="\n")
    except OSError as error:
        remove(temporary)
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    replace(temporary, path)


def html(report: Report) -> str:
    """The report as HTML text. Raises `ConfigError` where the extra `view` is missing."""
    return render(
        "report.html",
        title=report.title,
        report=report,
        charts=[bar_chart(chart) for chart in report.charts],
        maps=[map_values(panel) for panel in report.maps],
    )


def render(template: str, folder: Path = TEMPLATES, **values: object) -> str:
    """A page from a template in `folder`, which may extend and include those of this package.

    Filters: `number`, `duration`, `per_cent`, `points`, `share`, `minus`, `mean`, `spread`,
    `capitalize_first`. Raises `ConfigError` where the extra `view` is missing.
    """
    return environment(folder).get_template(template).render(values)


@cache
def environment(folder: Path) -> Environment:
    """Kept, as it keeps the templates that it has compiled."""
    with view_extra():
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    made = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": lambda value: "–" if value is None else number(value),
        "duration": _duration,
        "per_cent": per_cent,
        "points": points,
        "share": _share,
        "minus": minus,
        "mean": mean,
        "spread": _spread,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    return made


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return duration(seconds) if math.isfinite(seconds) else "not known"


def _share(fraction: float | None) -> str:
    if fraction is None:
        return "–"
    return "under 0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


def map_values(panel: MapPanel) -> dict[str, object]:
    """What the template says of a map."""
    cells = MapCells.of(panel)
    tiles = len(cells.target_s)
    above, beyond = cells.off_scale
    return {
        "panel": panel,
        "used": int(cells.used.sum()),
        "size": cells.used.size,
        "marks": cells.marks,
        "tiles": [tile_pictures(panel.title, cells, k) for k in range(min(tiles, TILES_SHOWN))],
        "open_tiles": tiles if tiles <= TILES_OPEN else 1,
        "tile_count": tiles,
        "block": cells.block,
        "above": above,
        "beyond": beyond,
        "error": ErrorSummary.of(cells),
    }
