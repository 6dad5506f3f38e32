"""A run file as a notebook shows it: plain, self-contained HTML, everything escaped."""

from __future__ import annotations

import base64
import io
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rram_hil.notebook import html_table, html_text, spread_words
from rram_hil.units import count, duration, elapsed

if TYPE_CHECKING:
    from rram_hil.storage.run_reader import MapStack, RunFile, SavedData

SAVES_SHOWN = 12
"""Of each map only the last so many saves are listed."""


def run_html(run: RunFile) -> str:
    """Who, when and what of a run, its steps, and the names of its maps and results. Raises
    `DataError` for damaged content.
    """
    a = run.attributes
    facts = [
        ("chip", run.chip_id),
        ("began", str(a["started_utc"])),
        ("ended", str(a["ended_utc"]) or "-"),
        ("operator", str(a["operator"]) or "-"),
        ("file", str(run.path)),
    ]
    steps = run.table("steps")
    rows = [
        (
            f"{steps['step'][i]} {steps['name'][i]}",
            str(steps["protocol"][i]),
            count(int(steps["pulses"][i])),
            count(int(steps["reads"][i])),
            duration(elapsed(float(steps["started_s"][i]), float(steps["ended_s"][i]))),
        )
        for i in range(run.rows("steps"))
    ]
    named = [("maps", ", ".join(run.map_names) or "none")]
    named += [("results", ", ".join(f"{s}/{n}" for s, n in run.result_names) or "none")]
    return "".join(
        (
            f"<div><strong>{html_text(str(a['run']))}</strong> {html_text(run.status)}",
            html_table((), facts),
            html_table(("step", "protocol", "pulses", "reads", "bench time"), rows),
            html_table((), named),
            "</div>",
        )
    )


def map_html(stack: MapStack) -> str:
    """The last save of a map as a picture, where matplotlib is there to draw it, and the numbers of
    the last saves.
    """
    first = max(0, len(stack.values) - SAVES_SHOWN)
    rows = [
        (
            str(k + 1),
            str(stack.step[k]),
            duration(float(stack.time_s[k])),
            *spread_words(stack.values[k], stack.units),
        )
        for k in range(first, len(stack.values))
    ]
    head = ("save", "step", "saved at", "known", "lowest", "median", "highest")
    name = html_text(stack.name)
    return f"<div><strong>{name}</strong>{_picture(stack)}{html_table(head, rows)}</div>"


def _picture(stack: MapStack) -> str:
    if find_spec("matplotlib") is None or not stack.values.size:
        return ""
    from matplotlib.figure import Figure

    figure, written = Figure(figsize=(5, 4), layout="constrained"), io.BytesIO()
    stack.plot(axes=figure.subplots())
    figure.savefig(written, format="png", dpi=80)
    data = base64.b64encode(written.getvalue()).decode("ascii")
    alt = html_text(f"map of {stack.name}, last save")
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def saved_html(saved: SavedData) -> str:
    """Dimensions, type and unit of a saved array, and the spread of its numbers."""
    sizes = zip(saved.dims, saved.values.shape, strict=True)
    facts = [
        ("dimensions", ", ".join(f"{name} {size}" for name, size in sizes) or "a single number"),
        ("type", str(saved.values.dtype)),
        ("units", saved.units or "-"),
        *((name, str(value)) for name, value in saved.attributes.items()),
    ]
    head = ("known", "lowest", "median", "highest")
    rows = [spread_words(saved.values, saved.units)]
    return f"<div>{html_table((), facts)}{html_table(head, rows)}</div>"
