"""The section of every step: the protocol's own where it gives one, else what its arrays ask
for.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rram_hil.engine.protocol import Protocol
from rram_hil.errors import ConfigError, DataError, first_line, printable
from rram_hil.plugins import load_class, names
from rram_hil.report.drawing import Picture
from rram_hil.report.plot_drawing import csv_of, draw, draw_grid, grid_csv
from rram_hil.report.plots import charted
from rram_hil.report.section import Grid, Plot, Section, Table
from rram_hil.report.step import RunStep, steps_of
from rram_hil.storage.run_reader import RunFile
from rram_hil.units import count, figure_text, micro, value_text

ROWS_INLINE = 50_000
"""Rows of CSV that a page holds of one plot; of more it holds none, and --csv writes them."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers behind a picture: the name of their CSV file, and what they are of."""

    name: str
    of: Plot | Grid

    @cached_property
    def text(self) -> str:
        """The CSV file."""
        return csv_of(self.of) if isinstance(self.of, Plot) else grid_csv(self.of)

    @property
    def rows(self) -> int:
        """Rows without the head."""
        if isinstance(self.of, Plot):
            return sum(line.x.size for line in self.of.lines)
        return len(self.of.values)

    @property
    def href(self) -> str:
        """The file as an address that holds all of it; empty where it is too long for a page."""
        if self.rows > ROWS_INLINE:
            return ""
        return "data:text/csv;base64," + base64.b64encode(self.text.encode()).decode()


@dataclass(frozen=True)
class StepView:
    """A step's section, drawn; `step` is the name under which the run file keeps it. `problem` says
    why the protocol's own could not be made.
    """

    step: str
    title: str
    protocol: str
    text: str
    figures: tuple[tuple[str, str], ...]
    unknown: str
    pictures: tuple[tuple[Picture, Numbers], ...]
    tables: tuple[Table, ...]
    problem: str = ""


def section_of(step: RunStep) -> tuple[Section, str]:
    """The section of a step, and what was wrong with the protocol's own where another had to do.

    A protocol named as a file beside a recipe is not looked for: a run file does not make this
    process run code.
    """
    problem = ""
    try:
        own = _class_of(step.protocol)
        found = own.section(step) if own is not None else None
        if found is not None:
            return found, ""
    except Exception as error:  # what a third party's section raises is its own affair
        problem = (
            f"The section of {step.protocol} could not be made:"
            f" {type(error).__name__}: {printable(first_line(str(error)))}"
        )
    try:
        return Section(plots=tuple(charted(step))), problem
    except DataError as error:
        return Section(), problem or f"A plot does not fit its arrays: {error.message}"


def _class_of(protocol: str) -> type[Protocol] | None:
    """The installed protocol or calibration of that name; None where there is none."""
    for group in ("rram_hil.protocols", "rram_hil.calibration"):
        if protocol in names(group):
            try:
                return load_class(group, protocol, "protocol", Protocol)
            except ConfigError:
                return None
    return None


def views_of(run: RunFile) -> list[StepView]:
    """The section of every step that has something to show, drawn."""
    views = [_view(step) for step in steps_of(run)]
    return [v for v in views if v.figures or v.pictures or v.tables or v.text or v.problem]


def _view(step: RunStep) -> StepView:
    section, problem = section_of(step)
    title = f"{step.number} {step.name}".strip() if step.name else step.group
    pictures: list[tuple[Picture, Plot | Grid]] = [
        *((draw(plot), plot) for plot in section.plots),
        *((draw_grid(grid), grid) for grid in section.grids),
    ]
    figures = tuple(
        (name.replace("_", " "), micro(figure_words(figure.value, figure.uncertainty, figure.unit)))
        for name, figure in step.figures.items()
        if not math.isnan(figure.value)
    )
    unknown = [n.replace("_", " ") for n, f in step.figures.items() if math.isnan(f.value)]
    return StepView(
        step.group,
        title,
        f"{step.protocol} {step.version}".strip(),
        section.text,
        figures,
        ", ".join(unknown),
        tuple((p, Numbers(file_name(title, p.title), of)) for p, of in pictures),
        section.tables,
        problem,
    )


def figure_words(value: float, uncertainty: float, unit: str) -> str:
    """A number of a run as words, with its half width where it has one."""
    if not math.isnan(uncertainty):
        return figure_text(value, uncertainty, unit)
    if unit in ("", "1") and value.is_integer():
        return count(int(value))
    return value_text(value, "" if unit == "1" else unit)


def file_name(*words: str) -> str:
    """A name of a CSV file that every file system takes."""
    joined = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
    return f"{joined[:80] or 'plot'}.csv"


def unique(all_numbers: Iterable[Numbers]) -> list[Numbers]:
    """The same with names that differ."""
    taken: set[str] = set()
    found = []
    for one in all_numbers:
        name, k = one.name, 2
        while name in taken:
            name, k = f"{one.name.removesuffix('.csv')}-{k}.csv", k + 1
        taken.add(name)
        found.append(replace(one, name=name))
    return found


def write_numbers(views: Iterable[StepView], folder: Path) -> list[Path]:
    """Write the numbers behind every plot as CSV files. Raises `DataError` where the disk
    refuses.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in unique(numbers for view in views for _, numbers in view.pictures):
            path = folder / one.name
            path.write_text(one.text, encoding="utf-8", newline="")
            written.append(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return written
