"""What a run file says, for people: who, when, what, steps, maps, results; also of a run that is
under way.
"""

from __future__ import annotations

import json
import math
import tomllib
from datetime import datetime
from pathlib import Path

import numpy as np

from rram_hil.networks.placement import from_table
from rram_hil.statistics import UNCERTAINTY
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import UNDER_WAY, newest, state_of
from rram_hil.terminal.console import Output
from rram_hil.terminal.screens import show_places
from rram_hil.units import count, duration, elapsed, figure_text, quantity, scaled

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
        _steps(run, state_of(run.status, path), output)
        _maps(run, output)
        _results(run, output)
        _notes(run, output)


def _head(run: RunFile, path: Path, output: Output) -> None:
    a = run.attributes
    output.heading(str(path), state_of(run.status, path))
    tiles, cell = int(a["tiles"]), str(a["cell"])
    size = f"{tiles} tile{'s' if tiles > 1 else ''} of {a['rows']} x {a['columns']}, {cell}"
    more = "".join(f", {name} {a[name]}" for name in ("lot", "die") if a.get(name))
    kelvin = float(a["temperature_k"])
    began, ended = str(a["started_utc"]), str(a["ended_utc"])
    resumed = int(a.get("resumed", 0))
    output.facts(
        [
            ("run", str(a["run"])),
            ("chip", f"{run.chip_id}{more}: {size}"),
            ("operator", str(a["operator"])),
            ("temperature", "" if math.isnan(kelvin) else f"{kelvin:g} K"),
            ("began", f"{_utc(began)}{f', resumed {resumed} times' if resumed else ''}"),
            ("ended", f"{_utc(ended)} ({_lasted(began, ended)})" if ended else ""),
            ("instrument", _instrument(run)),
            ("calibration", _calibration(run)),
            ("protocols", str(a["protocols"])),
            ("seed", str(a.get("seed", ""))),
            (
                "software",
                f"rram_hil {a['package_version']} {_short(str(a['git_revision']))}".strip(),
            ),
            (
                "clock",
                "virtual: bench times are the model's"
                if a["clock"] == "virtual"
                else "wall: as measured",
            ),
        ]
    )


def _instrument(run: RunFile) -> str:
    names = ("model", "serial", "firmware")
    values = (str(run.attributes.get(f"instrument_{name}", "")) for name in names)
    return ", ".join(
        v if n == "model" else f"{n} {v}" for n, v in zip(names, values, strict=True) if v
    )


def _calibration(run: RunFile) -> str:
    """Files in force with kind, date and the start of their digest."""
    told = []
    for name, text in run.calibrations.items():
        file = tomllib.loads(text)
        digest = str(run.attributes.get(f"calibration_{name}_sha256", ""))
        expired = ", EXPIRED" if run.attributes.get(f"calibration_{name}_remark") else ""
        told.append(f"{name} ({file['kind']} of {file['date']:%Y-%m-%d}, {digest[:12]}{expired})")
    return "; ".join(told)


def _short(revision: str) -> str:
    commit, _, dirty = revision.partition("-")
    return commit[:12] + (f"-{dirty}" if dirty else "")


def _utc(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return text


def _lasted(began: str, ended: str) -> str:
    """How long a run lasted by the computer's clock, which may have been set meanwhile."""
    try:
        seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    except (ValueError, TypeError):  # no time, or one without its zone
        return duration(math.nan)
    if seconds < 0:
        return "how long is not known: the computer's clock was set back meanwhile"
    return duration(seconds)


def _steps(run: RunFile, state: str, output: Output) -> None:
    steps = run.table("steps")
    if len(steps["step"]) == 0:
        output.line("No step has begun.")
        return
    operations = run.table("operations", columns=("step", "outcome", "not_ok"))
    rows = []
    for i, number in enumerate(steps["step"]):
        here = operations["step"] == number
        ended = not math.isnan(steps["ended_s"][i])
        odd = int(np.sum(operations["outcome"][here] != "done"))
        if not ended and state == UNDER_WAY:
            outcome = state
        else:
            outcome = ("done" if ended else "not ended") + (f", {odd} cut" if odd else "")
        rows.append(
            (
                f"{number} {steps['name'][i]}",
                outcome,
                count(int(steps["operations"][i])),
                count(int(steps["pulses"][i])),
                count(int(steps["reads"][i])),
                count(int(operations["not_ok"][here].sum())),
                duration(elapsed(steps["started_s"][i], steps["ended_s"][i])),
            )
        )
    output.heading("Steps")
    output.table(("step", "outcome", ">oper.", ">pulses", ">reads", ">not ok", ">bench time"), rows)


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
                rows.append((name, step, *_spread(values, stack.units)))
    if rows:
        output.heading("Maps", "over the cells with a value")
        output.table(
            ("map", ">step", ">cells", ">min", ">25 %", ">median", ">75 %", ">max", "unit"), rows
        )
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
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _notes(run: RunFile, output: Output) -> None:
    total = run.rows("notes")
    if not total:
        return
    notes = run.table("notes", slice(max(0, total - NOTES_SHOWN), total))
    output.heading("Notes")
    for event, text, utc in zip(notes["event"], notes["text"], notes["utc"], strict=True):
        output.line(f"{_utc(str(utc))}  {event}: {text}", indent=2)
