"""Two runs side by side: the settings that differ, results beside each other, and what changed in
the maps.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.report.drawing import Picture
from rram_hil.report.page import render, write_page
from rram_hil.report.plot_drawing import draw
from rram_hil.report.run_maps import change_of, is_marks, map_pictures, scale_of, spread_of
from rram_hil.report.section import Axis, Plot, cumulative
from rram_hil.report.sections import Numbers, figure_words, file_name, views_of
from rram_hil.report.step import RunStep, steps_of
from rram_hil.storage.run_account import STEP_COLUMNS, calibrations_of, facts_of, step_rows
from rram_hil.storage.run_reader import RunFile
from rram_hil.types import FloatArray
from rram_hil.units import count, micro, quantity

RESULT_COLUMNS = ("step", "figure", ">first", ">second", ">difference", ">in half widths")
MAP_COLUMNS = ("run", ">cells", ">min", ">25 %", ">median", ">75 %", ">max", "unit")


@dataclass(frozen=True, eq=False)
class MapPair:
    """One map of both runs: what each holds, and the difference, second less first."""

    name: str
    text: str
    rows: tuple[tuple[str, ...], ...] = ()
    pictures: tuple[Picture, ...] = ()
    numbers: Numbers | None = None


def write_comparison(runs: tuple[RunFile, RunFile], paths: tuple[Path, Path], target: Path) -> None:
    """Write the page of two runs as one HTML file. Raises `DataError` for damaged content and where
    it cannot be written, `ConfigError` where the extra `view` is missing.
    """
    first, second = runs
    write_page(
        target,
        render(
            "compare.html",
            title=f"{paths[0].name} and {paths[1].name}",
            names=[path.name for path in paths],
            settings=differing_settings(first, second),
            facts=_facts(first, second),
            step_columns=STEP_COLUMNS,
            steps=[step_rows(run, path) for run, path in zip(runs, paths, strict=True)],
            result_columns=RESULT_COLUMNS,
            results=compared_results(first, second),
            maps=compared_maps(first, second),
            map_columns=MAP_COLUMNS,
            sections=_sections(first, second),
        ),
    )


def _facts(first: RunFile, second: RunFile) -> list[tuple[str, str, str]]:
    others = dict(facts_of(second))
    return [(n, text, others[n]) for n, text in facts_of(first) if text or others[n]]


def differing_settings(first: RunFile, second: RunFile) -> list[tuple[str, str, str]]:
    """What is set differently in two runs, as (key, first, second): keys of recipe and bench file,
    digests of calibrations, versions and everything else that a run file says of its circumstances.
    "–" where one of them has no such key.
    """
    # A bench that was made in Python has no text whose keys could be compared.
    texts = [
        name
        for name in ("recipe", "bench")
        if all(str(run.attributes.get(name, "")).strip() for run in (first, second))
    ]
    told = [dict(_settings(run, texts)) for run in (first, second)]
    keys = dict.fromkeys([*told[0], *told[1]])
    return [
        (key, told[0].get(key, "–"), told[1].get(key, "–"))
        for key in keys
        if told[0].get(key) != told[1].get(key)
    ]


def _settings(run: RunFile, texts: list[str]) -> Iterator[tuple[str, str]]:
    for what in texts:
        text = str(run.attributes.get(what, ""))
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            yield what, text
            continue
        yield from _flat(tables, what)
    for calibration in calibrations_of(run):
        yield f"calibration {calibration.name}", f"{calibration.date}, {calibration.sha256[:12]}"
    for name in (
        "package_version",
        "git_revision",
        "seed",
        "clock",
        "chip_id",
        "lot",
        "die",
        "operator",
        "temperature_k",
        "thermostat",
    ):
        value = run.attributes.get(name, "")
        if not (isinstance(value, float) and math.isnan(value)):
            yield name, str(value)
    for name in sorted(run.attributes):
        if name.startswith(("version_", "instrument_")) and name != "instrument_boot":
            yield name, str(run.attributes[name])


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every key of nested tables by its path; steps of a recipe by their names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}")
    elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        for k, inner in enumerate(value, 1):
            own = inner.get("name") or inner.get("protocol")
            of_step = f"{name.removesuffix('step')}{own}" if name == "recipe.step" and own else ""
            yield from _flat(inner, of_step or f"{name} {k}")
    else:
        yield name, str(value)


def paired(first: RunFile, second: RunFile) -> list[tuple[RunStep, RunStep]]:
    """Steps of both runs that belong together: those of one name, in order."""
    others: dict[str, list[RunStep]] = {}
    for step in steps_of(second):
        others.setdefault(step.name, []).append(step)
    return [(step, others[step.name].pop(0)) for step in steps_of(first) if others.get(step.name)]


def compared_results(first: RunFile, second: RunFile) -> list[tuple[str, ...]]:
    """Every number that both runs saved in a step of one name, or that follows from what a
    write-verify saved: both, and second less first, also in
    half widths of the 95 % interval of the difference where both are known.
    """
    rows = []
    for one, two in paired(first, second):
        figures = two.verified | two.figures
        for name, a in (one.verified | one.figures).items():
            b = figures.get(name)
            if b is None or (math.isnan(a.value) and math.isnan(b.value)):
                continue
            unit = "" if a.unit == "1" else a.unit
            difference = b.value - a.value
            sure = math.hypot(a.uncertainty, b.uncertainty)
            widths = f"{difference / sure:+.1f}" if sure > 0 and not math.isnan(difference) else "–"
            texts = (
                figure_words(a.value, a.uncertainty, unit),
                figure_words(b.value, b.uncertainty, unit),
                quantity(difference, unit, 4) if unit else f"{difference:.4g}",
            )
            rows.append((one.name, name.replace("_", " "), *map(micro, texts), widths))
    return rows


def compared_maps(first: RunFile, second: RunFile) -> list[MapPair]:
    """The last save of every map that both runs have, and their difference."""
    shared = [name for name in first.map_names if name in second.map_names]
    return [_pair(name, first, second) for name in shared]


def _pair(name: str, first: RunFile, second: RunFile) -> MapPair:
    stacks = [run.map(name) for run in (first, second)]
    before, after = (stack.values[-1] for stack in stacks)
    units = stacks[0].units
    if before.shape != after.shape or units != stacks[1].units:
        shapes = " and ".join(
            f"{m.shape} {s.units}" for m, s in zip((before, after), stacks, strict=True)
        )
        return MapPair(name, f"The maps cannot be subtracted: their shapes and units are {shapes}.")
    if is_marks(before) and is_marks(after):
        both, one, two = (
            int(np.sum(mask))
            for mask in (
                (before == 1) & (after == 1),
                (before == 1) & (after == 0),
                (before == 0) & (after == 1),
            )
        )
        text = (
            f"Marked in both: {count(both)}; in the first alone: {count(one)}; in the second"
            f" alone: {count(two)}."
        )
        return MapPair(name, text)
    change = change_of(before, after)
    ends = scale_of(np.stack([before, after]).astype(np.float64))
    words = name.replace("_", " ")
    pictures = [
        *map_pictures(f"{words}, first", before, units, ends),
        *map_pictures(f"{words}, second", after, units, ends),
        *map_pictures(f"{words}: second − first", change, units, is_change=True),
    ]
    rows = tuple(
        (what, *spread_of(values, units))
        for what, values in (("first", before), ("second", after), ("difference", change))
    )
    plot = Plot(
        f"{words}: distributions",
        Axis(words, units),
        Axis("share of cells"),
        (cumulative(before, "first"), cumulative(after, "second")),
        "Bands: 95 % interval (Wilson).",
    )
    return MapPair(
        name,
        _statistics(before, after, change, units),
        rows,
        (*pictures, draw(plot)),
        Numbers(file_name(words, "distributions"), plot),
    )


def _statistics(before: FloatArray, after: FloatArray, change: FloatArray, units: str) -> str:
    known = np.isfinite(change)
    moved = change[known]
    if not moved.size:
        return "No cell has a value in both."

    def told(value: float) -> str:
        return micro(quantity(value, units) if units not in ("", "1") else f"{value:.4g}")

    text = (
        f"Over {count(moved.size)} cells: mean difference {told(float(moved.mean()))}, median"
        f" {told(float(np.median(moved)))}, standard deviation {told(float(moved.std()))}, largest"
        f" {told(float(np.abs(moved).max()))}"
    )
    one, two = (values[known].astype(np.float64) for values in (before, after))
    if moved.size > 2 and one.std() > 0 and two.std() > 0:
        shared = float(np.mean((one - one.mean()) * (two - two.mean())))
        text += f"; correlation of the two {shared / float(one.std() * two.std()):.3f}"
    return text + "."


def _sections(
    first: RunFile, second: RunFile
) -> list[tuple[str, list[tuple[tuple[Picture, Numbers] | None, ...]]]]:
    """Pictures of one title in steps that belong together, side by side."""
    views = [{view.step: view for view in views_of(run)} for run in (first, second)]
    found = []
    for one, two in paired(first, second):
        drawn = [
            {p[0].title: p for p in shown[step.group].pictures} if step.group in shown else {}
            for shown, step in zip(views, (one, two), strict=True)
        ]
        titles = dict.fromkeys([*drawn[0], *drawn[1]])
        pairs = [tuple(side.get(title) for side in drawn) for title in titles]
        if pairs:
            found.append((one.name or one.group, pairs))
    return found
