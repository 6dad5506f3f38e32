"""What the command line shows: tables, numbers with their units, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from rram_hil.array import ApplyResult, Charge, Operation, ProgramResult, Result
from rram_hil.engine.engine import Watcher
from rram_hil.errors import printable
from rram_hil.statistics import Figure
from rram_hil.units import (
    TOLD,
    count,
    duration,
    figure_text,
    ranges,
    units_of,
    value_text,
    words_of,
)

_PLAIN_EVERY_S = 1.0
_SILENT_S = 5.0
"""After how long, and how often, what is not lasting says without a terminal how far it is."""
_LEAST_WORDS = 10
"""Characters that a column of words keeps, however many numbers stand beside it."""


def outcome_text(outcome: object) -> str:
    """A step's summary in one line, from the names and units of its dataclass; parts that are no
    numbers are left out, but for those that say how they are told (`TOLD`).
    """
    if outcome is None:
        return ""
    if not is_dataclass(outcome):
        return str(outcome)
    units = units_of(type(outcome))
    parts = []
    for entry in fields(outcome):
        value = getattr(outcome, entry.name)
        if TOLD in entry.metadata:
            told = ranges(value) if isinstance(value, tuple) else count(value)
            parts += [entry.metadata[TOLD].format(told)] if value else []
            continue
        unit = units.get(entry.name, "")
        if isinstance(value, Figure):
            unit = value.unit or unit
            text = figure_text(value.value, value.uncertainty, unit)
        elif isinstance(value, bool | str):
            text = str(value)
        elif isinstance(value, int) and not unit:
            parts.append(f"{count(value)} {words_of(entry.name, unit)}")
            continue
        elif isinstance(value, int | float):
            text = value_text(value, unit)
        else:
            continue
        parts.append(f"{words_of(entry.name, unit)} {text}")
    return ", ".join(parts)


def make_console(*, stderr: bool = False) -> Console:
    """The console of one command: wraps at the terminal's width (80 where there is none), no
    highlighting of its own.
    """
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def _text(text: str, style: str = "") -> Text:
    """Plain text that does nothing on a terminal but stand there."""
    return Text(printable(text), style=style)


def _markup(text: str) -> str:
    """The same for what takes markup."""
    return escape(printable(text))


class Output:
    """Everything that a command prints on standard output, in one style."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else make_console()
        self._begun = False

    def heading(self, text: str, after: str = "") -> None:
        """A bold line, with a plain remark behind; an empty line before it, but for the first."""
        if self._begun:
            self.console.print()
        self._begun = True
        whole = Text.assemble((printable(text), "bold"), printable(f"  {after}" if after else ""))
        self.console.print(whole)

    def line(self, text: str, style: str = "", *, indent: int = 0) -> None:
        """One paragraph of plain text."""
        self.console.print(Padding(_text(text, style), (0, 0, 0, indent), expand=False))

    def command(self, text: str) -> None:
        """A command to copy: never wrapped or cut."""
        self.console.print(_text(f"  {text}", "cyan"), soft_wrap=True)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values, two columns; empty values are left out."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            if value:
                grid.add_row(_text(name), _text(value))
        self.console.print(Padding(grid, (0, 0, 0, 2), expand=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: a column whose name starts with ">" stands to the right and is never wrapped."""
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            show_edge=False,
            header_style="bold",
        )
        for k, name in enumerate(columns):
            right = name.startswith(">")
            longest = max(len(text) for text in (name, *(row[k] for row in rows)))
            table.add_column(
                _text(name.removeprefix(">")),
                justify="right" if right else "left",
                no_wrap=right,
                overflow="fold",
                # Where numbers alone fill the line, words fold, but do not vanish.
                min_width=None if right else min(longest, _LEAST_WORDS),
            )
        for row in rows:
            table.add_row(*map(_text, row))
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))


class ProgressWatcher(Watcher):
    """Shows a run on standard error: a bar a step on a terminal, else plain lines, at most one a
    second in a step.

    `step_name` is the step under way ("" before the first). What is not `lasting` vanishes
    at the end on a terminal, and says else only now and then how far it is.
    """

    def __init__(self, console: Console | None = None, *, lasting: bool = True) -> None:
        self.console = console if console is not None else make_console(stderr=True)
        self._lasting = lasting
        self.step_name = ""
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._place = ""
        self._text = ""
        self._began_s = 0.0
        self._told_s = -math.inf
        self._said_s = time.monotonic()
        self._pulses = self._reads = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=24)),
                BarColumn(bar_width=10, table_column=Column(min_width=10)),
                TaskProgressColumn(table_column=Column(min_width=4)),
                TimeElapsedColumn(table_column=Column(min_width=7)),
                TextColumn(
                    "[dim]{task.fields[told]}",
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
                ),
                console=self.console,
                expand=True,
                refresh_per_second=5,
                transient=not self._lasting,
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish_step()
        if self._bars is not None:
            self._bars.stop()

    def step(self, name: str, index: int, total: int) -> None:
        """End the bar of the step before and begin the next one."""
        self._finish_step()
        self.step_name, self._place = name, f"{index}/{total} {name}"
        self._pulses = self._reads = 0
        self._text = ""
        self._began_s = time.monotonic()
        self._told_s = -math.inf
        if self._bars is not None:
            self._task = self._bars.add_task(_markup(self._place), total=None, told="")
        else:
            self._plain(f"step {self._place}")

    def progress(self, done: float, total: float, text: str) -> None:
        """Move the bar, or say so."""
        self._text = text
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total, told=self._told())
        elif time.monotonic() - self._told_s >= _PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            part = f" ({done / total:.0%})" if 0 < done <= total else ""
            self._plain(f"{'  ' if self._lasting else f'step {self._place}: '}{text}{part}")

    def operation(self, operation: Operation, result: Result, charge: Charge) -> None:
        """Count pulses and reads."""
        if isinstance(result, ApplyResult | ProgramResult):
            self._pulses += int(result.pulses.sum())
            self._reads += int(result.reads.sum())
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, told=self._told())

    def note(self, text: str) -> None:
        """A remark above the bars."""
        self._plain(f"  {text}")

    def _told(self) -> str:
        done = f"{count(self._pulses)} pulses, {count(self._reads)} reads"
        return _markup(f"{self._text}; {done}" if self._text else done)

    def _finish_step(self) -> None:
        if not self.step_name:
            return
        self._text = ""
        if self._bars is not None and self._task is not None:
            total = self._bars.tasks[self._bars.task_ids.index(self._task)].total or 1
            self._bars.update(self._task, completed=total, total=total, told=self._told())
        elif self._lasting:
            took = duration(time.monotonic() - self._began_s)
            self._plain(
                f"  done in {took}: {count(self._pulses)} pulses, {count(self._reads)} reads"
            )
        self.step_name = ""

    def _plain(self, text: str) -> None:
        if self._bars is None and not self._lasting:
            if time.monotonic() - self._said_s < _SILENT_S:
                return
            self._said_s = time.monotonic()
        console = self._bars.console if self._bars is not None else self.console
        console.print(_text(text), soft_wrap=True)
