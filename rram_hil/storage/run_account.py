"""Who, when and what of a run, in words: the same on the terminal, in a notebook and on a page."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import UNDER_WAY, state_of
from rram_hil.units import count, counted, duration, elapsed

STEP_COLUMNS = ("step", "outcome", ">oper.", ">pulses", ">reads", ">not ok", ">bench time")
"""Of the table of steps, ">" before those that align right; `step_rows` gives the rows."""


def facts_of(run: RunFile) -> list[tuple[str, str]]:
    """What is known of a run as (name, text), empty where it is not. Raises `DataError` for damaged
    content.
    """
    a = run.attributes
    tiles, cell = int(a["tiles"]), str(a["cell"])
    size = f"{tiles} tile{'s' if tiles > 1 else ''} of {a['rows']} x {a['columns']}, {cell}"
    more = "".join(f", {name} {a[name]}" for name in ("lot", "die") if a.get(name))
    kelvin = float(a["temperature_k"])
    began, ended = str(a["started_utc"]), str(a["ended_utc"])
    resumed = int(a.get("resumed", 0))
    again = f", resumed {counted(resumed, 'time')}" if resumed else ""
    return [
        ("run", str(a["run"])),
        ("chip", f"{run.chip_id}{more}: {size}"),
        ("operator", str(a["operator"])),
        ("temperature", "" if math.isnan(kelvin) else f"{kelvin:g} K"),
        ("began", f"{utc_text(began)}{again}"),
        ("ended", f"{utc_text(ended)} ({_lasted(began, ended)})" if ended else ""),
        ("instrument", _instrument(run)),
        ("thermostat", str(a.get("thermostat", ""))),
        (
            "calibration",
            "; ".join(
                f"{c.name} ({c.kind} of {c.date}, {c.sha256[:12]}{', EXPIRED' if c.remark else ''})"
                for c in calibrations_of(run)
            ),
        ),
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


def _instrument(run: RunFile) -> str:
    names = ("model", "serial", "firmware")
    values = (str(run.attributes.get(f"instrument_{name}", "")) for name in names)
    return ", ".join(
        v if n == "model" else f"{n} {v}" for n, v in zip(names, values, strict=True) if v
    )


@dataclass(frozen=True)
class InForce:
    """A calibration file that was in force: its name, kind, date, digest and text; `remark` where
    it had expired.
    """

    name: str
    kind: str
    date: str
    sha256: str
    remark: str
    text: str


def calibrations_of(run: RunFile) -> list[InForce]:
    """The calibrations in force during the run."""
    told = []
    for name, text in run.calibrations.items():
        file = tomllib.loads(text)
        digest, remark = (
            str(run.attributes.get(f"calibration_{name}_{what}", ""))
            for what in ("sha256", "remark")
        )
        told.append(
            InForce(name, str(file["kind"]), f"{file['date']:%Y-%m-%d}", digest, remark, text)
        )
    return told


def _short(revision: str) -> str:
    commit, _, dirty = revision.partition("-")
    return commit[:12] + (f"-{dirty}" if dirty else "")


def utc_text(text: str) -> str:
    """A UTC time of a run file for people; as it stands where it is none."""
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


def step_rows(run: RunFile, path: Path) -> list[tuple[str, ...]]:
    """A row of words for each step that has begun (`STEP_COLUMNS`), of the run at `path`."""
    state = state_of(run.status, path)
    steps = run.table("steps")
    operations = run.table("operations", columns=("step", "outcome", "not_ok"))
    rows: list[tuple[str, ...]] = []
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
    return rows
