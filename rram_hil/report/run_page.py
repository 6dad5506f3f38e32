"""The page of a run: what was done, what came of it, with which calibrations, at what cost, and
what was refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rram_hil.report.model import KeyFigure
from rram_hil.report.page import map_values, render, write_page
from rram_hil.report.run_maps import COLUMNS, map_views, panels_of
from rram_hil.report.sections import StepView, views_of
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_account import (
    STEP_COLUMNS,
    calibrations_of,
    facts_of,
    step_rows,
    utc_text,
)
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import UNDER_WAY, state_of
from rram_hil.units import count, duration, elapsed

COST_COLUMNS = (
    "step",
    "what",
    ">oper.",
    ">pulses",
    ">reads",
    ">vectors",
    ">bench time",
    ">of all",
)
NOTE_COLUMNS = ("when", "bench time", "what", "text")
NOTES_SHOWN = 500


@dataclass(frozen=True)
class Notes:
    """What was refused, cut or remarked in a run, and whether something was refused."""

    rows: tuple[tuple[str, ...], ...]
    left_out: int
    words: str


def write_run_page(run: RunFile, path: Path, target: Path) -> list[StepView]:
    """Write the page of the run at `path` as one HTML file, and return the sections that it has.
    Raises `DataError` for damaged content and where it cannot be written, `ConfigError` where the
    extra `view` is missing.
    """
    views = views_of(run)
    write_page(target, run_page(run, path, views))
    return views


def run_page(run: RunFile, path: Path, views: list[StepView]) -> str:
    """The page as HTML text; `path` is where the run file or its journal lies."""
    a = run.attributes
    state = state_of(run.status, path)
    texts = [(name, str(a.get(name, ""))) for name in ("recipe", "bench")]
    return render(
        "run.html",
        title=str(a["run"]),
        state=state,
        lead=_lead(run, state),
        key_figures=_key_figures(run, state),
        facts=[fact for fact in facts_of(run) if fact[1]] + [("file", path.name)],
        step_columns=STEP_COLUMNS,
        steps=step_rows(run, path),
        sections=views,
        panels=[map_values(panel) for panel in panels_of(run)],
        maps=map_views(run),
        map_columns=COLUMNS,
        cost_columns=COST_COLUMNS,
        costs=cost_rows(run),
        clock="virtual" if a["clock"] == "virtual" else "wall",
        notes=notes_of(run),
        note_columns=NOTE_COLUMNS,
        calibrations=calibrations_of(run),
        texts=[text for text in texts if text[1].strip()],
    )


def _lead(run: RunFile, state: str) -> str:
    if state == UNDER_WAY:
        return "This run is under way: the page shows what its journal held when it was made."
    if state != "complete":
        return f"This run is not complete ({state}): the page shows what was done up to then."
    return ""


def _key_figures(run: RunFile, state: str) -> list[KeyFigure]:
    steps = run.table("steps", columns=("started_s", "ended_s", "pulses", "reads"))
    took = [elapsed(*ends) for ends in zip(steps["started_s"], steps["ended_s"], strict=True)]
    return [
        KeyFigure(state, "state"),
        KeyFigure(count(len(took)), "steps begun"),
        KeyFigure(count(int(steps["pulses"].sum())), "pulses"),
        KeyFigure(count(int(steps["reads"].sum())), "reads"),
        KeyFigure(duration(float(np.nansum(took))) if took else "–", "bench time"),
    ]


def cost_rows(run: RunFile) -> list[tuple[str, ...]]:
    """What each kind of operation of each step cost."""
    names = ("step", "kind", "label", "pulses", "reads", "vectors", "started_s", "ended_s")
    table = run.table("operations", columns=names)
    if not len(table["step"]):
        return []
    took = table["ended_s"] - table["started_s"]
    took = np.where(took >= 0, took, 0.0)  # where the clock began anew, nothing is known
    whole = float(took.sum())
    kinds: dict[tuple[int, str], list[int]] = {}
    for k, (step, kind, label) in enumerate(
        zip(table["step"], table["kind"], table["label"], strict=True)
    ):
        kinds.setdefault((int(step), str(label) or str(kind)), []).append(k)
    rows: list[tuple[str, ...]] = []
    for (step, what), at in kinds.items():
        seconds = float(took[at].sum())

        def total(name: str, at: list[int] = at) -> str:
            return count(int(np.maximum(table[name][at], 0).sum()))

        rows.append(
            (
                str(step),
                what,
                count(len(at)),
                total("pulses"),
                total("reads"),
                total("vectors"),
                duration(seconds),
                f"{100 * seconds / whole:.1f} %" if whole > 0 else "–",
            )
        )
    return rows


def notes_of(run: RunFile) -> Notes:
    """What was refused, cut or remarked, in order."""
    total = run.rows("notes")
    table = run.table("notes", slice(max(0, total - NOTES_SHOWN), total))
    rows = tuple(
        (utc_text(str(utc)), _at(time_s), str(event), str(text))
        for utc, time_s, event, text in zip(
            *(table[name] for name in ("utc", "time_s", "event", "text")), strict=True
        )
    )
    operations = run.table("operations", columns=("outcome", "not_ok"))
    cut = int(np.sum(operations["outcome"] != "done"))
    odd = int(operations["not_ok"].sum())
    refused = sum(row[2] == "error" for row in rows)
    words = (
        f"{_number(refused, 'refusal or error', 'refusals or errors')}; "
        f"{_number(cut, 'operation was', 'operations were')} cut;"
        f" {_number(odd, 'value is', 'values are')} not “ok” (over range, in compliance, stuck,"
        " unknown)."
    )
    return Notes(rows, total - len(rows), words)


def _number(n: int, one: str, many: str) -> str:
    return f"{count(n) if n else 'no'} {one if n == 1 else many}"


def _at(time_s: AnyArray) -> str:
    return duration(float(time_s)) if math.isfinite(float(time_s)) else "–"
