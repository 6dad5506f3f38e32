"""What `rram-hil plan` computes: a recipe carried out on the device model, to see its worst case
before any output is on.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from rram_hil.array import (
    LINES,
    Apply,
    ApplyResult,
    Cells,
    CodedRead,
    CodedReadResult,
    Multiply,
    Operation,
    Program,
    ProgramResult,
    Request,
    Result,
    Step,
    check,
)
from rram_hil.bench.bench import Bench, checked_driver
from rram_hil.bench.bench_file import BenchFile, load_bench_file
from rram_hil.bench.ledgers import found_ledger
from rram_hil.bench.paced_model import FREE, Pace, PacedModel, model_of, pace_of
from rram_hil.bench.recipe import Recipe, load_recipe
from rram_hil.engine.climate import PlannedClimate
from rram_hil.engine.engine import Engine, Watcher
from rram_hil.errors import AbortedError, BenchError, ConfigError
from rram_hil.networks.programmed_network import Programmed
from rram_hil.storage.ledger import Ledger
from rram_hil.storage.ledger_file import read_ledger
from rram_hil.types import IntArray

R = TypeVar("R", bound=Result)


@dataclass
class Extremes:
    """The worst that the operations of a step do: largest |V| of each line, selected or not, of
    the body and of BL - SL (V), width of pulses (s).
    """

    bl_v: float = 0.0
    sl_v: float = 0.0
    wl_v: float = 0.0
    cell_v: float = 0.0
    body_v: float = 0.0
    pulse_s: tuple[float, float] | None = None

    def include(self, operation: Operation, read_v: float) -> None:
        """Widen by one operation; a step above `read_v` across the cell is a pulse."""
        if isinstance(operation, Multiply | CodedRead):
            self._step(Step(0.0, operation.read_v, operation.wl_v), 1, read_v)
        elif isinstance(operation, Apply):
            for step in operation.steps:
                self._step(step, len(operation.cells), read_v)
        elif isinstance(operation, Program):
            self._step(operation.read, len(operation.cells), read_v)
            for polarity, train in ((1, operation.set_pulses), (-1, operation.reset_pulses)):
                amplitude_v, gate_v = train.amplitude_v.extreme_v(), train.gate_v.extreme_v()
                self._step(train.step(polarity, amplitude_v, gate_v), 1, read_v)

    def _step(self, step: Step, n: int, read_v: float) -> None:
        if n == 0:
            return
        for line in LINES:
            levels = step.levels(line, n)
            if levels is not None:
                name = f"{line}_v"
                setattr(self, name, max(getattr(self, name), float(np.max(np.abs(levels)))))
        self.wl_v = max(self.wl_v, abs(step.unselected_wl_v or 0.0))
        self.body_v = max(self.body_v, abs(step.body_v or 0.0))
        drop = float(np.max(np.abs(step.cell_v(n))))
        self.cell_v = max(self.cell_v, drop)
        if drop > read_v:
            shortest, longest = self.pulse_s or (step.width_s, step.width_s)
            self.pulse_s = (min(shortest, step.width_s), max(longest, step.width_s))


@dataclass
class StepForecast:
    """What one step would do and leave.

    `worst_pulses` is the most that any one cell may take in it (what the ledger is charged
    beforehand), `pulses` and `reads` what the model gave all cells, `bench_s` the model's clock,
    `outcome` what the protocol returned.
    """

    name: str
    protocol: str
    operations: int = 0
    pulses: int = 0
    reads: int = 0
    vectors: int = 0
    worst_pulses: int = 0
    extremes: Extremes = field(default_factory=Extremes)
    bench_s: float = 0.0
    outcome: object = None


@dataclass(frozen=True)
class Forecast:
    """A whole recipe. Ledger numbers are of the most worn cell; `ledger` is None where the chip has
    none yet.

    `most_left` and `least_left` are pulses left before the run; `worst_left` the least left of any
    cell after it in the worst case, below 0 where the run may be refused on the way; `device` names
    the model, and `remembered` says that it started from the simulated chip's own state.
    `keeps_times` says that this bench takes the model's times, `paced_by` names the simulated
    instruments whose times were taken where it does not. `others` are the steps on other chips of
    the model that start in the same state, `ended` the errors that the recipe ended with on further
    ones.
    """

    steps: tuple[StepForecast, ...]
    others: tuple[tuple[StepForecast, ...], ...]
    ended: tuple[str, ...]
    device: str
    keeps_times: bool
    paced_by: str
    remembered: bool
    ledger: Path | None
    limit: int
    most_left: int
    least_left: int
    worst_left: int
    networks: Mapping[str, Programmed]
    """The networks on the array at the end, by their tag."""

    def spread(self, quantity: str, step: int | None = None) -> tuple[float, float] | None:
        """From the 5th to the 95th percentile over the other chips of a quantity of `StepForecast`
        (`pulses`, `reads`, `vectors`, `bench_s`), of the step with this index or of all; None where
        there is no other chip.
        """
        if not self.others:
            return None
        chosen = slice(None) if step is None else slice(step, step + 1)
        sums = [sum(getattr(one, quantity) for one in steps[chosen]) for steps in self.others]
        low, high = np.percentile(sums, (5, 95))
        return float(low), float(high)


class _PlannedLedger(Ledger):
    """The chip's ledger as it stands, counted on in memory: no lock is taken and no file is
    written.
    """

    def __init__(self, file: BenchFile) -> None:
        self.path = found_ledger(file)
        self.geometry = file.chip.geometry
        self.chip_id = file.chip.id
        self.limit = file.limits.pulses_per_cell
        self.created = not self.path.exists()
        self._counts: IntArray = (
            np.zeros(self.geometry.size, dtype=np.int64)
            if self.created
            else read_ledger(self.path, self.chip_id, self.geometry).counts.copy()
        )

    def charge(self, cells: Cells, pulses: ArrayLike) -> None:
        """Count in memory. Raises `LimitError` as the real ledger does."""
        self.check(cells, pulses)
        self._change(cells.index(self.geometry), self._per_cell(pulses, len(cells)), charged=True)

    def _change(self, index: IntArray, more: IntArray, *, charged: bool) -> None:
        self._counts[index] += more


class _PlanningEngine(Engine):
    """An engine that adds up, for the step under way, what is asked of it, in the worst case, and
    what the model did.
    """

    def __init__(
        self, bench: Bench, ledger: Ledger, watcher: Watcher, climate: PlannedClimate | None
    ) -> None:
        super().__init__(
            bench.driver, bench.geometry, bench.limits, ledger, watcher=watcher, climate=climate
        )
        self.forecast = StepForecast("", "")
        self._before, self._given, self._bound = (
            np.zeros(bench.geometry.size, dtype=np.int64) for _ in range(3)
        )

    @property
    def charged(self) -> IntArray:
        """Pulses that each cell may have taken, shape (cells,): of each step what was given, or the
        bounds that it named, if they are more.
        """
        return np.asarray(self._before + np.maximum(self._given, self._bound))

    def begin(self, forecast: StepForecast) -> None:
        """From here on account for another step."""
        self.forecast = forecast
        self._before = self.charged
        self._given[:] = self._bound[:] = 0

    def bound(self, operation: Operation) -> None:
        """A step names what it may give at most."""
        charge = check(operation, self.geometry, self.limits)
        self.forecast.extremes.include(operation, self.limits.read_v)
        if len(charge.cells):
            cells, pulses = charge.everywhere
            at = cells.index(self.geometry)
            self._bound[at] = np.maximum(self._bound[at], pulses)
            self._take_worst()

    def _take_worst(self) -> None:
        self.forecast.worst_pulses = int(np.maximum(self._given, self._bound).max())

    def do(self, operation: Request[R]) -> R:
        """Carry out one operation, and account for it. Raises as `Engine.do`."""
        result = super().do(operation)
        assert isinstance(operation, Operation)
        charge = check(operation, self.geometry, self.limits)
        forecast = self.forecast
        forecast.operations += 1
        forecast.extremes.include(operation, self.limits.read_v)
        if isinstance(result, ApplyResult | ProgramResult):
            forecast.pulses += int(result.pulses.sum())
            forecast.reads += int(result.reads.sum())
        if isinstance(operation, Multiply):
            forecast.vectors += len(operation.inputs)
        if isinstance(result, CodedReadResult | ProgramResult):
            forecast.vectors += result.vectors
        if isinstance(result, CodedReadResult):
            forecast.reads += result.reads
        if len(charge.cells):
            cells, pulses = charge.everywhere
            self._given[cells.index(self.geometry)] += pulses
            self._take_worst()
        return result


def plan_recipe(
    recipe: str | Path | Recipe,
    bench: str | Path | BenchFile,
    watcher: Watcher | None = None,
    *,
    chips: int = 5,
) -> Forecast:
    """Carry a recipe out on the device model with the bench's geometry, limits and read condition;
    touch nothing else.

    The model is that of the bench's `[simulation]` (from its state file as it is, a copy), else a
    pristine chip of preset hfo2-measured; then `chips` others of that model in the same state, for
    what differs from chip to chip. What the bench's instruments can do and how long they take is
    asked of simulated ones where there are some; else the model's board is ideal, and what a real
    one cannot do is refused only by `rram-hil run`. Raises the `BenchError` that the run would end
    with, naming the step.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    file = bench if isinstance(bench, BenchFile) else load_bench_file(bench)
    kind = checked_driver(file)
    watcher = watcher or Watcher()
    with pace_of(file, kind) as pace:
        own = _Rehearsal(recipe, file, 0, pace)
        own.run(watcher)
        others, ended = [], []
        for number in range(1, chips + 1):
            watcher.step("other chip", number, chips)
            other = _Rehearsal(recipe, file, number, pace)
            try:
                other.run(Watcher())
            except AbortedError:
                raise
            except BenchError as error:
                ended.append(str(error))
            else:
                others.append(tuple(other.steps))
    ledger = own.ledger
    left = ledger.limit - own.counts_before
    worst = left.ravel() - own.charged
    return Forecast(
        tuple(own.steps),
        tuple(others),
        tuple(ended),
        own.device,
        kind.KEEPS_MODEL_TIMES,
        "" if pace is None else pace.instruments,
        own.remembered,
        None if ledger.created else ledger.path,
        ledger.limit,
        int(left.max()),
        int(left.min()),
        int(worst.min()),
        {tag: thing for tag, thing in own.shared.items() if isinstance(thing, Programmed)},
    )


class _Rehearsal:
    """A recipe on a model of the bench: on its own chip, or on the other one with the number
    `twin`, whose cells are drawn anew. Operations take what `pace` says, else the model's times.
    """

    def __init__(self, recipe: Recipe, file: BenchFile, twin: int, pace: Pace | None) -> None:
        self._recipe, self._file, self._twin, self._pace = recipe, file, twin, pace
        self.ledger = _PlannedLedger(file)
        self.counts_before = self.ledger.counts
        self.steps: list[StepForecast] = []
        self.remembered = False
        self.device = ""
        self.charged: IntArray = np.zeros(0, dtype=np.int64)
        self.shared: Mapping[str, object] = {}

    def run(self, watcher: Watcher) -> None:
        """Carry it out. Raises the `BenchError` that it ends with."""
        recipe, file = self._recipe, self._file
        with tempfile.TemporaryDirectory(prefix="rram_hil_plan_") as folder:
            state = _remembered(file, Path(folder))
            self.remembered = state is not None
            with self._opened(state) as opened:
                engine = _PlanningEngine(opened, self.ledger, watcher, _climate(file))
                setting = replace(
                    opened.setting,
                    folder=recipe.path.parent,
                    seed=recipe.head.seed,
                    required=engine.bound,
                )
                with engine.abortable():
                    for number, step in enumerate(recipe.steps, 1):
                        forecast = StepForecast(step.name, step.protocol_name)
                        watcher.step(step.name, number, len(recipe.steps))
                        engine.begin(forecast)
                        began_s = opened.driver.now_s()
                        plan = partial(step.protocol.run, replace(setting, step=step.name))
                        forecast.outcome = engine.step(
                            number, step.name, step.protocol_name, step.protocol.version, plan
                        )
                        forecast.bench_s = opened.driver.now_s() - began_s
                        self.steps.append(forecast)
                self.device = opened.identity.model
                self.charged, self.shared = engine.charged, setting.shared

    @contextlib.contextmanager
    def _opened(self, state: str | None) -> Iterator[Bench]:
        changes: dict[str, object] = {"state": state, "twin": self._twin}
        if self._pace is None:
            with Bench.open(model_of(self._file, **changes), arm=False) as opened:
                yield opened
            return
        model = model_of(self._file, **changes, timing=FREE)
        with Bench.open(model, arm=False) as ideal:
            yield Bench(model, PacedModel(ideal.driver, self._pace), ideal.identity, None)


def _climate(file: BenchFile) -> PlannedClimate | None:
    section = file.thermostat
    return None if section is None else PlannedClimate(section.lowest_k, section.highest_k)


def _remembered(file: BenchFile, scratch: Path) -> str | None:
    """A copy, in `scratch`, of the state of the bench's simulated chip; None where it has none."""
    remembered = getattr(file.simulation, "state", None)
    if remembered is None or not (file.folder / remembered).is_file():
        return None
    state = scratch / "chip.state"
    try:
        shutil.copyfile(file.folder / remembered, state)
    except OSError as error:
        raise ConfigError(
            f"{file.path}: simulation.state: {remembered!r} cannot be copied:"
            f" {error.strerror or error}"
        ) from None
    return str(state)
