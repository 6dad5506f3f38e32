"""What the page is told of a run: plain values for JSON."""

from __future__ import annotations

import math
import time
from typing import Any

from rram_hil.array import Limits
from rram_hil.errors import ConfigError, printable
from rram_hil.storage.run_state import INTERRUPTED, UNDER_WAY
from rram_hil.units import duration, elapsed, quantity, units_of, words_of
from rram_hil.validation import parse_toml
from rram_hil.watch.follow import DAMAGED, SILENT, STALLED, RunFollower
from rram_hil.watch.picture import Picture, StepPicture, number, told

ALIVE = (UNDER_WAY, SILENT, STALLED)
BENCH_TEXT = 100_000


def snapshot(run: RunFollower) -> dict[str, Any]:
    """The state of a run now."""
    picture, state = run.picture, run.state()
    now_s = time.monotonic()
    rates = run.pace.rates(now_s) if state in ALIVE else None
    return {
        "name": told(run.path.name),
        "state": state,
        "said": _said(run, state),
        "frames": picture.frames,
        "behind_bytes": run.behind_bytes,
        "about": _about(picture),
        "steps": [
            _step(step, picture, run, state, now_s)
            for step in picture.steps.values()
            if step.number
        ],
        "totals": picture.totals | {"errors": picture.errors},
        "rate": None if rates is None else {"pulses": rates[0], "reads": rates[1]},
        "series": picture.rates.series(),
        "map": _map(picture),
        "notes": list(picture.notes),
        "note_count": picture.note_count,
    }


def _said(run: RunFollower, state: str) -> str:
    """What is to be said of a state that wants attention."""
    silent = duration(round(run.silent_s))
    if state == DAMAGED:
        return told(run.reason)
    if state == INTERRUPTED:
        return "It ended without a word: no process holds its journal. --resume goes on with it."
    flight = run.picture.in_flight
    if state == SILENT and flight is not None:
        cells = f" on {flight.cells} cells" if flight.cells else ""
        what = f"{flight.kind} {flight.label}".strip()
        return (
            f"No news for {silent}: operation {flight.operation} ({what}{cells}) has no result yet."
        )
    if state == STALLED:
        return f"No news for {silent}: nothing was asked of the bench; the host computes, or hangs."
    return ""


def _about(picture: Picture) -> dict[str, Any] | None:
    about = picture.about
    if about is None:
        return None
    g = about.geometry
    return {
        "title": told(about.title),
        "chip": told(about.chip),
        "size": f"{g.tiles} x {g.rows} x {g.columns}" if g.tiles > 1 else f"{g.rows} x {g.columns}",
        "clock": told(about.clock),
        "started_utc": told(about.started_utc),
        "ended_utc": told(picture.ended_utc),
        "resumed": picture.resumed,
        "operator": told(about.operator),
        "instrument": told(about.instrument),
        "version": told(about.package_version),
        "bench_s": _bench_s(picture),
    }


def _step(
    step: StepPicture, picture: Picture, run: RunFollower, state: str, now_s: float
) -> dict[str, Any]:
    is_on = step.began and not step.ended
    reach = step.reach if is_on else None
    word = "done" if step.ended else "to come"
    if is_on:
        word = "under way" if state in ALIVE else "not ended"
    return {
        "number": step.number,
        "name": told(step.name),
        "protocol": told(step.protocol),
        "word": word,
        "counts": {n: getattr(step, n) for n in picture.totals},
        "bench_s": number(_spent_s(step, picture)),
        "label": "" if reach is None else reach.label,
        "done": None if reach is None else reach.done,
        "total": None if reach is None or reach.total is None else max(reach.total, reach.done),
        # How often each of these cells was reached, in the mean.
        "times": None if reach is None or not reach.done else reach.visits / reach.done,
        "left_s": run.pace.left_s(step, now_s) if is_on and state == UNDER_WAY else None,
    }


def _spent_s(step: StepPicture, picture: Picture) -> float:
    """Bench time of a step (s), up to now where it has not ended; NaN where it has not begun, and
    where the clock began anew within it.
    """
    return elapsed(step.started_s, step.ended_s if step.ended else picture.rates.clock_s)


def _bench_s(picture: Picture) -> float | None:
    """The sum over the steps (s), as the report has it; None where nothing is known of any."""
    spent = [_spent_s(step, picture) for step in picture.steps.values() if step.number]
    known = [one for one in spent if math.isfinite(one)]
    return number(sum(known)) if known else None


def _map(picture: Picture) -> dict[str, Any] | None:
    chip = picture.map
    if chip is None:
        return None
    top_s, error_s = chip.scales_s()
    g = chip.geometry
    return {
        "version": chip.version,
        "target_version": None if chip.target_s is None else chip.target_version,
        "tiles": g.tiles,
        "rows": g.rows,
        "columns": g.columns,
        "known": chip.known,
        "top_s": top_s,
        "error_s": error_s,
    }


def bench_of(picture: Picture) -> dict[str, Any]:
    """What the run's bench is and what nothing on it may pass: rows of name and value, and the
    bench file's text.
    """
    about = picture.about
    text = "" if about is None else about.bench
    try:
        tables = parse_toml(text, "bench")
    except ConfigError:
        tables = {}
    limits = tables.get("limits")
    units = units_of(Limits)
    return {
        "facts": [
            [told(f"{section} {key}"), _value(value, "")]
            for section in ("chip", "driver")
            if isinstance(table := tables.get(section), dict)
            for key, value in table.items()
        ],
        "limits": [
            [told(words_of(key, units.get(key, ""))), _value(value, units.get(key, ""))]
            for key, value in (limits.items() if isinstance(limits, dict) else ())
        ],
        "text": printable(text[:BENCH_TEXT]),
    }


def _value(value: object, unit: str) -> str:
    """A value of a bench file, with its unit."""
    if isinstance(value, list):
        return " to ".join(_value(one, unit) for one in value)
    if isinstance(value, int | float) and not isinstance(value, bool) and unit:
        return quantity(float(value), unit) if math.isfinite(value) else str(value)
    return told(value)
