"""The state of one run as the page shows it, built from the frames of its journal."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import MAP, ApplyResult, Geometry, ProgramResult, Status
from rram_hil.errors import printable, shortened
from rram_hil.storage.frames import (
    Aside,
    Close,
    Failed,
    Frame,
    Header,
    Intent,
    Note,
    Outcome,
    Resume,
    Saved,
    StepEnd,
    StepStart,
)
from rram_hil.storage.run_layout import EVENTS
from rram_hil.storage.run_state import INTERRUPTED
from rram_hil.storage.run_tables import Execution, note_row
from rram_hil.types import IntArray
from rram_hil.watch.cell_map import MOST_CELLS, CellMap, last_conductance, last_time_s
from rram_hil.watch.planned import PlannedStep, planned_steps
from rram_hil.watch.series import CellEvents, Rates

NOTES_KEPT = 200
MOST_LABELS = 1000
LABELS_KEPT = 16
"""Of one step, the labels of operations whose cells are counted."""
EVENTS_SHOWN = 100


def told(text: object) -> str:
    """Text of a file as it may reach the page."""
    return printable(shortened(str(text)))


@dataclass(frozen=True)
class About:
    """Who, when and what, from a journal's header or the attributes of a run file."""

    title: str
    chip: str
    geometry: Geometry
    clock: str
    started_utc: str
    operator: str
    instrument: str
    package_version: str
    bench: str
    recipe: str


@dataclass
class Reach:
    """How many different cells the operations of one label have reached in a step, of `total` where
    that is known; `visits` counts a cell as often as it was reached.
    """

    label: str
    total: int | None
    seen: NDArray[np.bool_]
    done: int = 0
    visits: int = 0

    def add(self, cell: IntArray) -> None:
        """Cells that operations have reached."""
        self.visits += cell.size
        new = np.sort(cell[~self.seen[cell]])  # np.unique takes ten times as long
        self.seen[new] = True
        self.done += int(np.count_nonzero(np.diff(new, prepend=-1)))


@dataclass
class StepPicture:
    """What is known of a step of the recipe; `number` from 1. Times are of the bench clock (s), NaN
    where it has not begun or not ended.
    """

    number: int
    name: str
    protocol: str
    cells: int | None = None
    started_s: float = math.nan
    ended_s: float = math.nan
    operations: int = 0
    pulses: int = 0
    reads: int = 0
    not_ok: int = 0
    vectors: int = 0
    began: bool = False
    ended: bool = False
    reaches: dict[str, Reach] = field(default_factory=dict)
    reach: Reach | None = None


@dataclass(frozen=True)
class InFlight:
    """An operation that was announced and has no result yet; `wait_s` of a wait, else NaN."""

    operation: int
    step: int
    kind: str
    label: str
    cells: int
    wait_s: float


class Picture:
    """The state of one run, fed with `take`. Map versions go on from `version`.

    `status` is what the journal says: complete, aborted, error, or "interrupted" while it is not
    closed.
    """

    def __init__(self, version: int = 0) -> None:
        self.about: About | None = None
        self.status = INTERRUPTED
        self.ended_utc = ""
        self.resumed = 0
        self.frames = 0
        self.steps: dict[int, StepPicture] = {}
        self.planned: list[PlannedStep] = []
        self.map: CellMap | None = None
        self.events = CellEvents()
        self.rates = Rates()
        self.totals = dict.fromkeys(("operations", "pulses", "reads", "not_ok", "vectors"), 0)
        self.notes: deque[dict[str, Any]] = deque(maxlen=NOTES_KEPT)
        self.note_count = self.errors = 0
        self._labels, self._names = {"": 0}, [""]
        self._pending: list[tuple[NDArray[Any], ...]] = []
        self._intents: dict[int, Intent] = {}
        self._first_version = version

    @property
    def version(self) -> int:
        """The version of the map, also of one that is not there yet."""
        return self._first_version if self.map is None else self.map.version

    def take(self, frames: Iterable[Frame]) -> None:
        """The next frames. Raises what content may lead to that is no run's."""
        for frame in frames:
            self.frames += 1
            self._take(frame)
        self._settle()

    def _take(self, frame: Frame) -> None:
        match frame:
            case Intent():
                self._intents[frame.operation] = frame
            case Outcome(operation, record):
                if (intent := self._intents.pop(operation, None)) is not None:
                    self._executed(Execution(intent, record))
            case Aside():
                nothing = np.zeros(0, dtype=np.int64)
                intent = Intent(frame.operation, frame.step, frame.record, nothing)
                self._executed(Execution(intent, frame.result))
            case Saved():
                self._settle()
                self._saved(frame)
            case StepStart():
                self.step_began(frame.step, frame.name, frame.protocol, frame.time_s)
            case StepEnd():
                self._settle()
                self.step_ended(frame.step, frame.time_s)
            case Header():
                self.begin(about_header(frame))
            case Close():
                self.status, self.ended_utc = frame.status, frame.utc
                self._intents.clear()
            case Failed() | Note() | Resume():
                self._said(frame)

    def _said(self, frame: Failed | Note | Resume) -> None:
        if isinstance(frame, Failed):
            self._intents.pop(frame.operation, None)
        elif isinstance(frame, Resume):
            self.status, self.ended_utc = INTERRUPTED, ""
            self.resumed += 1
        row = note_row(frame)
        assert row is not None
        self.noted(EVENTS[row["event"]], row["text"], row["utc"], row["time_s"])

    def begin(self, about: About) -> None:
        """Who, when and what."""
        self.about = about
        self.planned = planned_steps(about.recipe, about.geometry)
        for number, step in enumerate(self.planned, 1):
            self.steps[number] = StepPicture(number, step.name, step.protocol, step.cells)
        if about.geometry.size <= MOST_CELLS:
            self.map = CellMap(about.geometry, self._first_version)

    def step_began(self, number: int, name: str, protocol: str, time_s: float) -> None:
        """A step began; a resumed run does not begin its steps again."""
        step = self.step(number)
        step.name, step.protocol, step.started_s, step.began = name, protocol, time_s, True

    def step_ended(self, number: int, time_s: float) -> None:
        """A step is over."""
        step = self.step(number)
        step.ended_s, step.ended = time_s, True
        step.reaches.clear()

    def step(self, number: int) -> StepPicture:
        """The step of that number; 0 stands for what is done outside of steps."""
        return self.steps.setdefault(number, StepPicture(number, "", ""))

    def noted(self, event: str, text: str, utc: str, time_s: float) -> None:
        """A remark, an error, an interruption."""
        self.note_count += 1
        self.errors += event == "error"
        self.notes.append(
            {"event": event, "text": told(text), "utc": told(utc), "time_s": number(time_s)}
        )

    def _executed(self, done: Execution) -> None:
        """An operation with its result."""
        intent, record, result = done.intent, done.record, done.result
        assert record is not None
        meta: dict[str, Any] = record.meta
        span = meta["span"]
        not_ok = vectors = 0
        if result is not None:
            ran = result.status[result.status != int(Status.NOT_RUN)]
            not_ok = int(np.count_nonzero(ran != int(Status.OK)))
            vectors = int(getattr(result, "vectors", 0))
        if record.kind == "MultiplyResult":
            vectors = (intent.record.shape("inputs") or (0,))[0]
        counts = {"pulses": done.pulses, "reads": done.reads, "not_ok": not_ok, "vectors": vectors}
        self.counted(intent.step, counts, float(span["started_s"]), float(span["ended_s"]))
        if self.map is None or result is None:
            return
        value, status = last_conductance(result)
        pulses: Any = result.pulses if isinstance(result, ApplyResult | ProgramResult) else 0
        label = str(intent.record.meta.get("label", "")) or record.kind.removesuffix("Result")
        columns = (
            places(done, self.map.geometry),
            intent.step,
            self.number_of(label),
            value,
            status,
            last_time_s(result),
            pulses,
        )
        self._pending.append(np.broadcast_arrays(*columns))

    def _settle(self) -> None:
        """Put what operations since the last time left at cells into the map and the history, all
        at once.
        """
        if not self._pending or self.map is None:
            return
        columns = map(np.concatenate, zip(*self._pending, strict=True))
        cell, step, label, value, status, time_s, pulses = columns
        self._pending.clear()
        self.map.measured(cell, value, status)
        self.map.took(cell, pulses)
        value = np.where(status == int(Status.NOT_RUN), np.nan, value)
        self.events.add(
            cell, step=step, label=label, conductance_s=value, time_s=time_s, pulses=pulses
        )
        kind = step.astype(np.int64) * (MOST_LABELS + 1) + label
        last = kind[-1]
        for one in (*np.unique(kind[kind != last]), last):
            at = kind == one
            self._reached(int(step[at][0]), int(label[at][0]), cell[at])

    def number_of(self, label: str) -> int:
        """The place of a label in `_labels`; the empty one stands for all that are too many."""
        place = self._labels.get(label)
        if place is None:
            place = len(self._names) if len(self._names) < MOST_LABELS else 0
            self._labels[label if place else ""] = place
            self._names += [label] if place else []
        return place

    def _reached(self, number: int, label_number: int, cell: IntArray) -> None:
        assert self.map is not None
        step, label = self.step(number), self._names[label_number]
        if step.ended:
            return
        if label not in step.reaches and len(step.reaches) < LABELS_KEPT:
            seen = np.zeros(self.map.geometry.size, np.bool_)
            step.reaches[label] = Reach(told(label), step.cells, seen)
        step.reach = step.reaches.get(label)
        if step.reach is not None:
            step.reach.add(cell)

    def counted(self, step: int, counts: dict[str, int], started_s: float, ended_s: float) -> None:
        """One operation ended: what it counts by name, and when it began and ended (s)."""
        here = self.step(step)
        here.operations += 1
        self.totals["operations"] += 1
        for name, value in counts.items():
            setattr(here, name, getattr(here, name) + value)
            self.totals[name] += value
        self.rates.add(started_s, ended_s, counts["pulses"], counts["reads"])

    def _saved(self, frame: Saved) -> None:
        if self.map is None or frame.dims != MAP:
            return
        self.saved_map(frame.step, frame.name, frame.values)

    def saved_map(self, step: int, name: str, values: NDArray[Any]) -> None:
        """A map over the whole chip that a step saved: the targets and the conductances are
        shown.
        """
        if self.map is None or values.shape != self.map.geometry.shape:
            return
        if name == "conductance":
            self.map.saved(values)
        elif name == "target":
            self.map.aimed(values)
            here = self.step(step)
            if here.cells is None:
                here.cells = int(np.count_nonzero(np.isfinite(values)))

    @property
    def in_flight(self) -> InFlight | None:
        """The last operation that was announced and has no result."""
        if not self._intents:
            return None
        intent = next(reversed(self._intents.values()))
        record = intent.record
        shape = record.shape("cells.row") or (0,)
        wait_s: Any = record.meta.get("seconds", math.nan) if record.kind == "Wait" else math.nan
        label = told(record.meta.get("label", ""))
        return InFlight(
            intent.operation, intent.step, told(record.kind), label, shape[0], float(wait_s)
        )

    def cell(self, tile: int, row: int, column: int) -> dict[str, Any]:
        """What is known of one cell, with its history: the last `EVENTS_SHOWN` operations that
        reached it.
        """
        assert self.map is not None
        at = int(np.ravel_multi_index((tile, row, column), self.map.geometry.shape))
        events = self.events.of(at)
        shown = slice(-EVENTS_SHOWN, None)
        labels = self._names
        target = self.map.target_s
        return {
            "now_s": reading(self.map.now_s[at]),
            "target_s": None if target is None else number(target[at]),
            "pulses": int(self.map.pulses[at]),
            "operations": len(events["step"]),
            "dropped": self.events.dropped > 0,
            "time_s": [number(t) for t in events["time_s"][shown]],
            "conductance_s": [number(g) for g in events["conductance_s"][shown]],
            "event_pulses": events["pulses"][shown].tolist(),
            "labels": [told(labels[n]) for n in events["label"][shown]],
            "steps": events["step"][shown].tolist(),
        }


def places(done: Execution, geometry: Geometry) -> IntArray:
    """The flat index of each cell that an operation addresses, shape (n,). Raises `ConfigError` for
    a cell off the chip.
    """
    arrays = done.intent.record.arrays
    if "cells.row" in arrays:
        address = tuple(arrays[f"cells.{name}"] for name in MAP)
        with contextlib.suppress(ValueError):
            return np.asarray(np.ravel_multi_index(address, geometry.shape), dtype=np.int64)
    cells = done.cells
    assert cells is not None
    return cells.index(geometry)


def about_header(header: Header) -> About:
    """The same from a journal's header."""
    board = header.instrument
    return About(
        header.run,
        header.chip_id,
        header.geometry,
        header.clock,
        header.started_utc,
        header.operator,
        f"{board.model} {board.serial}".strip(),
        header.package_version,
        header.bench,
        header.recipe,
    )


def number(value: Any) -> float | None:
    """A number as JSON has it; None for one that is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def reading(value: Any) -> float | str | None:
    """The same of a map's value, the marks of `cell_map` as words."""
    value = float(value)
    if math.isinf(value):
        return "over range" if value > 0 else "could not be read"
    return number(value)
