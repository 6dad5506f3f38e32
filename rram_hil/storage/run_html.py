"""A run file as a notebook shows it: plain, self-contained HTML, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from rram_hil.errors import printable
from rram_hil.units import count, duration, elapsed

if TYPE_CHECKING:
    from rram_hil.storage.run_reader import RunFile


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its words escaped; text as `printable` gives it."""

    def cells(tag: str, words: Sequence[str]) -> str:
        return "".join(f'<{tag} style="text-align:left">{html_text(w)}</{tag}>' for w in words)

    head = f"<thead><tr>{cells('th', columns)}</tr></thead>" if columns else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def html_text(text: str) -> str:
    """Text of a file as it may stand in a page."""
    return escape(printable(text))


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
