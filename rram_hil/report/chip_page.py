"""The life of one chip on a page, and the chips of folders as a map of their dies."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from rram_hil.catalogue.entry import CatalogEntry
from rram_hil.errors import DataError
from rram_hil.report.drawing import Picture, svg
from rram_hil.report.model import KeyFigure
from rram_hil.report.page import render, write_page
from rram_hil.report.plot_drawing import draw
from rram_hil.report.run_maps import drawn_map, map_pictures, scale_of
from rram_hil.report.section import Axis, Line, Plot, cumulative
from rram_hil.report.sections import Numbers, file_name
from rram_hil.report.step import steps_of
from rram_hil.statistics import wilson
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import open_newest
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import count, counted, duration, micro, per_cent, quantity

MAPS_SHOWN = 12
"""Of more runs with a map of the conductance only so many, evenly chosen in time, are drawn."""
CONDUCTS_S = 1e-6
"""A cell that conducts less counts as not conducting."""
DIE_DIGITS = 6
RUN_COLUMNS = ("began", "run", "protocols", "status", ">pulses", ">bench time", ">yield", "of what")
DIE_COLUMNS = (
    "chip",
    "lot",
    "die",
    ">runs",
    "formed",
    "last run",
    ">yield",
    ">median conductance",
    ">pulses",
)


@dataclass(frozen=True, eq=False)
class RunOfChip:
    """What the life of a chip keeps of one run. `good` of `of` cells are the yield, `what` says by
    which measure; `conductance_s` is the last map of shape (tiles, rows, columns), None for none.
    """

    entry: CatalogEntry
    began: datetime
    lot: str = ""
    die: str = ""
    budget: int = 0
    formed: bool = False
    good: int = 0
    of: int = 0
    what: str = ""
    conductance_s: FloatArray | None = None
    pulses: int = 0

    @property
    def share(self) -> float:
        """The yield, NaN where the run tells none."""
        return self.good / self.of if self.of else float("nan")


@dataclass(frozen=True, eq=False)
class Wear:
    """Pulses of a chip's life by its ledger: of each cell, and how many a cell may take."""

    counts: IntArray
    limit: int


@dataclass(frozen=True, eq=False)
class Chip:
    """The runs of one chip, oldest first; `unread` says of others why they are left out."""

    chip_id: str
    runs: tuple[RunOfChip, ...]
    unread: tuple[str, ...] = ()
    wear: Wear | None = field(default=None)

    def last(self, name: str) -> str:
        """The last text of an attribute that any run gives."""
        return next((str(v) for r in reversed(self.runs) if (v := getattr(r, name))), "")

    @property
    def formed_on(self) -> str:
        """The day of the first run that formed it; empty where none did."""
        return next((f"{run.began:%Y-%m-%d}" for run in self.runs if run.formed), "")

    @property
    def pulses(self) -> int:
        """Of all runs and cells."""
        return sum(run.pulses for run in self.runs)

    @property
    def latest_yield(self) -> RunOfChip | None:
        """The last run that tells a yield."""
        return next((run for run in reversed(self.runs) if run.of), None)

    @property
    def latest_map(self) -> RunOfChip | None:
        """The last run with a map of the conductance."""
        return next((run for run in reversed(self.runs) if run.conductance_s is not None), None)


def chips_of(entries: Iterable[CatalogEntry]) -> list[Chip]:
    """The chips of a catalogue's runs, by their ids; of copies of a run the furthest that can be
    read. What cannot be read is told, not raised, and a chip of which nothing can has no runs.
    """
    runs: dict[str, list[RunOfChip]] = {}
    unread: dict[str, list[str]] = {}
    known: set[str] = set()
    for entry in sorted(entries, key=lambda entry: -entry.reach):
        if not entry.chip_id or (entry.run_id in known and not entry.reason):
            continue
        own = runs.setdefault(entry.chip_id, [])
        try:
            own.append(_read(entry))
        except DataError as error:
            unread.setdefault(entry.chip_id, []).append(f"{entry.path.name}: {error.message}")
        else:
            known.add(entry.run_id)
    return [
        Chip(chip, tuple(sorted(own, key=lambda run: run.began)), tuple(unread.get(chip, ())))
        for chip, own in sorted(runs.items())
    ]


def _read(entry: CatalogEntry) -> RunOfChip:
    if entry.started is None or entry.reason:
        raise DataError(entry.reason or "it does not say when it began")
    with open_newest(entry.path) as run:
        a = run.attributes
        names = run.map_names
        conductance = run.map("conductance").values[-1] if "conductance" in names else None
        good, of, what = yield_of(run)
        return RunOfChip(
            entry,
            entry.started,
            str(a.get("lot", "")),
            str(a.get("die", "")),
            _budget(str(a.get("bench", ""))),
            "forming_voltage" in names,
            good,
            of,
            what,
            None if conductance is None else np.asarray(conductance, dtype=np.float64),
            int(run.table("steps", columns=("pulses",))["pulses"].sum()),
        )


def _budget(bench: str) -> int:
    """Pulses that a cell may take in its life by the run's bench file; 0 where it says none."""
    try:
        return int(tomllib.loads(bench)["limits"]["pulses_per_cell"])
    except (tomllib.TOMLDecodeError, LookupError, TypeError, ValueError):
        return 0


def yield_of(run: RunFile) -> tuple[int, int, str]:
    """Good cells, cells, and by which measure: those that worked in the last array-statistics,
    formed in the last forming, or else conducted in the last map; zeros where the run tells none.
    """
    names = run.map_names
    for step in reversed(steps_of(run)):
        working = step.map("working")
        if working is not None and step.has("row"):
            return int(working.sum()), len(step.values("row")), "working"
    if {"forming_gate", "pristine", "stuck_low_resistance"} <= set(names):
        gate, pristine = run.map("forming_gate").values[-1], run.map("pristine").values[-1]
        stuck = run.map("stuck_low_resistance").values[-1]
        visited = np.isfinite(gate) | np.isfinite(pristine) | (stuck > 0)
        return int(np.isfinite(gate).sum()), int(visited.sum()), "formed"
    if "conductance" in names:
        last = run.map("conductance").values[-1]
        known = np.isfinite(last)
        return int(np.sum(last[known] >= CONDUCTS_S)), int(known.sum()), "conducting"
    return 0, 0, ""


def write_chip_page(chip: Chip, target: Path) -> None:
    """Write the life of a chip as one HTML file. Raises `DataError` where it cannot be written,
    `ConfigError` where the extra `view` is missing.
    """
    plots = [_yield_plot(chip.runs), _pulse_plot(chip)]
    if chip.wear is not None:
        plots.append(_wear_plot(chip.wear))
    write_page(
        target,
        render(
            "chip.html",
            title=f"Chip {chip.chip_id}",
            key_figures=_key_figures(chip),
            plots=[(draw(p), Numbers(file_name(chip.chip_id, p.title), p)) for p in plots],
            maps=_maps_over_time(chip.runs),
            wear=[]
            if chip.wear is None
            else map_pictures("Pulses of each cell by the ledger", chip.wear.counts, ""),
            columns=RUN_COLUMNS,
            rows=[_run_row(run) for run in chip.runs],
            unread=chip.unread,
        ),
    )


def _key_figures(chip: Chip) -> list[KeyFigure]:
    latest, budget = chip.latest_yield, chip.last("budget")
    told = [
        KeyFigure(chip.formed_on or "not known", "formed on"),
        KeyFigure(
            per_cent(latest.share) if latest is not None else "not known",
            f"yield, cells {latest.what} on {latest.began:%Y-%m-%d}" if latest else "yield",
        ),
        KeyFigure(count(chip.pulses), f"pulses in {counted(len(chip.runs), 'run')}"),
    ]
    if chip.wear is not None:
        most = int(chip.wear.counts.max(initial=0))
        told.append(
            KeyFigure(
                per_cent(most / chip.wear.limit),
                f"of a cell’s budget of {count(chip.wear.limit)} used by the most worn cell",
            )
        )
    elif budget:
        told.append(KeyFigure(count(int(budget)), "pulses that a cell may take in its life"))
    return told


def _days(runs: Sequence[RunOfChip]) -> FloatArray:
    return np.array([(run.began - runs[0].began).total_seconds() / 86400 for run in runs])


def _time_axis(runs: Sequence[RunOfChip]) -> Axis:
    return Axis(f"days since {runs[0].began:%Y-%m-%d %H:%M} UTC")


def _yield_plot(runs: Sequence[RunOfChip]) -> Plot:
    days, lines = _days(runs), []
    for what in dict.fromkeys(run.what for run in runs if run.of):
        at = [k for k, run in enumerate(runs) if run.what == what]
        of = np.array([runs[k].of for k in at])
        good = np.array([runs[k].good for k in at], dtype=np.float64)
        low, high = wilson(good, of)
        lines.append(Line(days[at], good / of, f"cells {what}", low, high, "both"))
    return Plot(
        "Yield over time",
        _time_axis(runs),
        Axis("share of cells"),
        tuple(lines),
        "Bands: 95 % interval (Wilson). Working: array-statistics; formed: forming; conducting:"
        f" {quantity(CONDUCTS_S, 'S')} or more in the run’s last map.",
    )


def _pulse_plot(chip: Chip) -> Plot:
    given = np.cumsum([run.pulses for run in chip.runs]).astype(np.float64)
    line = Line(_days(chip.runs), given, look="both")
    return Plot(
        "Pulses given", _time_axis(chip.runs), Axis("pulses of all runs so far, all cells"), (line,)
    )


def _wear_plot(wear: Wear) -> Plot:
    return Plot(
        "Budget used",
        Axis("share of a cell’s budget used"),
        Axis("share of cells"),
        (cumulative(wear.counts / wear.limit),),
        f"By the ledger; the budget is {count(wear.limit)} pulses a cell.",
    )


def _maps_over_time(runs: Sequence[RunOfChip]) -> list[Picture]:
    """The last map of the conductance of runs, evenly chosen in time, on one scale."""
    having = [run for run in runs if run.conductance_s is not None]
    if not having:
        return []
    days = _days(having)
    wanted = np.linspace(days[0], days[-1], min(MAPS_SHOWN, len(having)))
    at = np.unique([int(np.argmin(np.abs(days - day))) for day in wanted])
    chosen = [having[k] for k in at]
    maps = [run.conductance_s for run in chosen if run.conductance_s is not None]
    ends = scale_of(np.concatenate([m.ravel() for m in maps]))
    pictures = []
    for run, values in zip(chosen, maps, strict=True):
        title = f"{run.began:%Y-%m-%d}: {run.entry.title or run.entry.path.name}"
        pictures += map_pictures(title, values[:1], "S", ends)
    return pictures


def _run_row(run: RunOfChip) -> tuple[str, ...]:
    entry = run.entry
    return (
        f"{run.began:%Y-%m-%d %H:%M}",
        entry.title or entry.path.name,
        ", ".join(entry.protocols),
        entry.status,
        count(run.pulses),
        "–" if entry.bench_s is None else duration(entry.bench_s),
        per_cent(run.share) if run.of else "–",
        run.what,
    )


def write_dies_page(chips: Sequence[Chip], target: Path, unread: Sequence[str] = ()) -> None:
    """Write the page of many chips: a table, and of each lot a map of its dies. `unread` and those
    without a run are told below. Raises as `write_chip_page`.
    """
    left_out = [
        text if chip.runs else f"{text} (no run of chip {chip.chip_id} can be read)"
        for chip in chips
        for text in chip.unread
    ]
    chips = [chip for chip in chips if chip.runs]
    lots = dict.fromkeys(chip.last("lot") for chip in chips)
    write_page(
        target,
        render(
            "dies.html",
            title=counted(len(chips), "chip"),
            lots=[
                (lot, *_die_maps(lot, [c for c in chips if c.last("lot") == lot])) for lot in lots
            ],
            columns=DIE_COLUMNS,
            rows=[_die_row(chip) for chip in chips],
            unread=(*unread, *left_out),
        ),
    )


def _die_row(chip: Chip) -> tuple[str, ...]:
    latest, median = chip.latest_yield, _median_s(chip)
    return (
        chip.chip_id,
        chip.last("lot"),
        chip.last("die"),
        str(len(chip.runs)),
        chip.formed_on,
        f"{chip.runs[-1].began:%Y-%m-%d}",
        f"{per_cent(latest.share)} {latest.what}" if latest else "–",
        micro(quantity(median, "S")),
        count(chip.pulses),
    )


def _median_s(chip: Chip) -> float:
    latest = chip.latest_map
    values = np.zeros(0) if latest is None else latest.conductance_s
    assert values is not None
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def die_place(die: str) -> tuple[int, int] | None:
    """(column, row) of a die whose name holds two whole numbers of `DIE_DIGITS` at most, as "3,4",
    "x3y4" or "R4C3" (row and column by their letters); None for other names.
    """
    numbers = re.findall(r"[+-]?\d+", re.sub(r"(?<=\d)-", " ", die))
    if len(numbers) != 2 or max(map(len, numbers)) > DIE_DIGITS:
        return None
    first, second = (int(n) for n in numbers)
    return (second, first) if re.match(r"\s*r", die, re.IGNORECASE) else (first, second)


def _die_maps(lot: str, chips: Sequence[Chip]) -> tuple[list[Picture], str]:
    """Pictures of a lot's dies where they lie, and what is to be said of chips that they do not
    show: those without a place, and those that share one.
    """
    places = {chip.chip_id: die_place(chip.last("die")) for chip in chips}
    placed = [(chip, place) for chip in chips if (place := places[chip.chip_id]) is not None]
    lost = [chip.chip_id for chip in chips if places[chip.chip_id] is None]
    said = (
        f"Not on the map, as their die names no column and row: {', '.join(lost)}." if lost else ""
    )
    on_dies: dict[tuple[int, int], list[Chip]] = {}
    for chip, place in placed:
        on_dies.setdefault(place, []).append(chip)
    for (column, row), here in on_dies.items():
        if len(here) > 1:
            # The one that was used last tells more of the die.
            here.sort(key=lambda chip: chip.runs[-1].began)
            ids = ", ".join(chip.chip_id for chip in here)
            said += f" Several chips at {column},{row}: {ids}; the map shows {here[-1].chip_id}."
    placed = [(here[-1], place) for place, here in on_dies.items()]
    if not placed:
        return [], said
    columns, rows = (np.array([place[k] for _, place in placed]) for k in (0, 1))
    shape = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    if shape[0] * shape[1] > 1_000_000:
        return [], f"{said} The dies lie too far apart for a map.".strip()
    pictures = []
    for title, unit, values in (
        ("yield", "", [(c.latest_yield.share if c.latest_yield else np.nan) for c, _ in placed]),
        ("median conductance", "S", [_median_s(chip) for chip, _ in placed]),
        ("pulses", "", [float(chip.pulses) for chip, _ in placed]),
    ):
        grid = np.full(shape, np.nan)
        grid[rows - rows.min(), columns - columns.min()] = values
        origin = int(rows.min()), int(columns.min())
        with drawn_map(
            grid, unit, scale_of(grid), origin=origin, labels=("die column", "die row")
        ) as axes:
            pictures.append(Picture(title.capitalize(), svg(axes, f"Lot {lot}: {title} by die")))
    return pictures, said.strip()
