"""What a run file says, for people: who, when, what, steps, maps, results; also of a run that is
under way.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from rram_hil.networks.placement import from_table
from rram_hil.statistics import UNCERTAINTY
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_account import STEP_COLUMNS, facts_of, step_rows, utc_text
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import newest, state_of
from rram_hil.terminal.console import Output
from rram_hil.terminal.screens import show_places
from rram_hil.units import count, figure_text, quantity, scaled

SAVES_SHOWN = 6
"""Of each map only the last so many saves are listed."""
NOTES_SHOWN = 8
NETWORK_TABLES = ("places", "weight_vectors")
"""Results that are shown as tables of their own."""


def show_run(path: Path, output: Output) -> None:
    """Print what the run at `path` is and holds. Raises `DataError` for a missing, foreign or
    damaged file.
    """
    with newest(path) as run:
        _head(run, path, output)
        _steps(run, path, output)
        _maps(run, output)
        _results(run, output)
        _notes(run, output)


def _head(run: RunFile, path: Path, output: Output) -> None:
    output.heading(str(path), state_of(run.status, path))
    output.facts(facts_of(run))


def _steps(run: RunFile, path: Path, output: Output) -> None:
    rows = step_rows(run, path)
    if not rows:
        output.line("No step has begun.")
        return
    output.heading("Steps")
    output.table(STEP_COLUMNS, rows)


def _maps(run: RunFile, output: Output) -> None:
    rows, marks = [], []
    for name in run.map_names:
        stack = run.map(name)
        shown = range(max(0, len(stack.values) - SAVES_SHOWN), len(stack.values))
        for i in shown:
            values, step = stack.values[i], str(stack.step[i])
            if (
                values.dtype.kind in "biu"
                and values.size
                and values.min() >= 0
                and values.max() <= 1
            ):
                marks.append((name, step, f"{count(int(values.sum()))} of {count(values.size)}"))
            else:
                kelvin = "" if stack.temperature_k is None else f"{stack.temperature_k[i]:.3g}"
                rows.append((name, step, *_spread(values, stack.units), kelvin))
    if rows:
        output.heading("Maps", "over the cells with a value")
        columns = ("map", ">step", ">cells", ">min", ">25 %", ">median", ">75 %", ">max", "unit")
        if any(row[-1] for row in rows):
            output.table((*columns, ">K"), rows)
        else:
            output.table(columns, [row[:-1] for row in rows])
    if marks:
        output.heading("Marked cells")
        output.table(("map", ">step", ">cells"), marks)


def _spread(values: AnyArray, units: str) -> tuple[str, ...]:
    known = values[np.isfinite(values)].astype(np.float64)
    if known.size == 0:
        return ("0", *["-"] * 5, "")
    texts, unit = scaled([float(c) for c in np.percentile(known, [0, 25, 50, 75, 100])], units)
    return (count(known.size), *texts, unit)


def _results(run: RunFile, output: Output) -> None:
    numbers, arrays = [], []
    names = run.result_names
    _networks(run, output)
    for step, name in names:
        if name in NETWORK_TABLES:
            continue
        saved = run.result(step, name)
        where = step.replace("_", " ", 1)
        if saved.values.ndim == 0:
            value = saved.values.item()
            sure = saved.attributes.get(UNCERTAINTY)
            if sure is not None and isinstance(value, float):
                text = figure_text(value, float(sure), saved.units)
            else:
                text = (
                    quantity(value, saved.units, 4)
                    if saved.units and isinstance(value, float)
                    else _number(value)
                )
            numbers.append((where, name, text))
        else:
            shape = " x ".join(
                f"{d} {n}" for d, n in zip(saved.dims, saved.values.shape, strict=True)
            )
            arrays.append(
                (
                    where,
                    name,
                    f"{saved.values.dtype}{f', {saved.units}' if saved.units else ''}",
                    shape,
                )
            )
    if numbers:
        output.heading(
            "Results",
            "± half width of the 95 % interval" if any("±" in n[2] for n in numbers) else "",
        )
        output.table(("step", "result", ">value"), numbers)
    if arrays:
        output.heading("Arrays")
        output.table(("step", "array", "type", "shape"), arrays)
    words = run.words()
    if words is not None:
        output.line(
            f"On-chip words at the end: {count(int(np.count_nonzero(words)))} that are not 0."
        )


def _networks(run: RunFile, output: Output) -> None:
    """Where the weights of each network were, and what ran on the array."""
    for step, name in run.result_names:
        where = step.replace("_", " ", 1)
        if name == "places":
            saved = run.result(step, name)
            show_places(where, from_table(saved.values, str(saved.attributes["weights"])), output)
        elif name == "weight_vectors":
            saved = run.result(step, name)
            weights = json.loads(str(saved.attributes["weights"]))
            output.heading("Ran on the array", where)
            rows = [(w, count(int(v))) for w, v in zip(weights, saved.values, strict=True)]
            output.table(("weight", ">vectors"), rows)


def _number(value: object) -> str:
    return figure_text(value, math.nan) if isinstance(value, float) else str(value)


def _notes(run: RunFile, output: Output) -> None:
    total = run.rows("notes")
    if not total:
        return
    notes = run.table("notes", slice(max(0, total - NOTES_SHOWN), total))
    output.heading("Notes")
    for event, text, utc in zip(notes["event"], notes["text"], notes["utc"], strict=True):
        output.line(f"{utc_text(str(utc))}  {event}: {text}", indent=2)
