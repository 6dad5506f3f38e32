"""Progress bars of the demonstration: one for each training, one for each chip; plain lines where
there is no terminal.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rram_hil.demo.chips import Step
from rram_hil.terminal.console import make_console

TRAINING = "training "


class Bars:
    """Shows how far training and chips are, on standard error."""

    def __init__(self) -> None:
        self._console = make_console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[told]}"),
            console=self._console,
            refresh_per_second=5,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._complete()
        self._progress.stop()

    def training(self, fraction: float, text: str) -> None:
        """A training is at this fraction; its text begins with what is trained."""
        name = TRAINING + text.split(",")[0].split(" ")[0]
        self._show(name, fraction, 1.0, text, say=name)

    def step(self, step: Step) -> None:
        """A chip begins a step."""
        done = step.index - 1 if step.name else step.total
        self._show(
            step.chip,
            done,
            step.total,
            step.name or "done",
            say=f"{step.chip}: {step.name or 'done'}",
        )

    def _complete(self, start: str = "") -> None:
        """Fill the bars whose names start so: a training that ends early tells nobody."""
        for name, task in self._tasks.items():
            if name.startswith(start):
                self._progress.update(task, completed=self._totals[name])

    def _show(self, name: str, done: float, total: float, told: str, *, say: str) -> None:
        if self._progress.disable:
            if self._said.get(name) != say:
                self._said[name] = say
                self._console.print(say, soft_wrap=True)
            return
        if name not in self._tasks:
            if name.startswith(TRAINING):
                self._complete(TRAINING)
            self._tasks[name] = self._progress.add_task(name, total=total, told="")
        self._totals[name] = total
        self._progress.update(self._tasks[name], completed=done, total=total, told=told)
