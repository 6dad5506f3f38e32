"""What a protocol is: a generator of messages that one engine answers.

A protocol yields an operation and receives its result, decides, and yields the next; it does no I/O
and knows no clock. Its class is a pydantic model whose fields are its section of a recipe; `run` is
the generator. Third parties add one with an entry point in the group `rram_hil.protocols`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal
from typing import Protocol as Signature

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from typing_extensions import TypeVar

from rram_hil.array import Apply, Cells, Geometry, Limits, Operation, Request, Result, Step, check
from rram_hil.array.limits import Peaks, no_peaks
from rram_hil.corrections.correction import Correction
from rram_hil.engine.lowering import check_available
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, ReadingPath, board_paths
from rram_hil.types import FloatArray
from rram_hil.validation import StrictModel, refused

if TYPE_CHECKING:
    from rram_hil.report.section import Section
    from rram_hil.report.step import RunStep

Arrays = dict[str, NDArray[Any]]
R = TypeVar("R", bound=Result)
T = TypeVar("T")
Summary = TypeVar("Summary", covariant=True, default=object)
Shared = TypeVar("Shared")


class Do(Signature):
    """What carries out one operation and gives its result."""

    def __call__(self, operation: Request[R], /) -> R:
        """The result of `operation`."""


@dataclass(frozen=True, eq=False)
class Save(Request[None]):
    """Keep an array in the run file under /results/<step>/<name>, with named dimensions. Answered
    with None.

    An array of dims ("tile", "row", "column") named "conductance" is a map: successive ones stack
    over time.
    """

    name: str
    values: NDArray[Any]
    dims: tuple[str, ...] = ()
    units: str = ""
    attrs: Mapping[str, str | float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress(Request[None]):
    """How far the step is. Answered with None."""

    done: float
    total: float
    text: str = ""


@dataclass(frozen=True)
class Remark(Request[None]):
    """Something that the operator should know: told, and kept as a note of the run. Answered with
    None.
    """

    text: str


@dataclass(frozen=True, eq=False)
class Compute(Request[Arrays]):
    """Run `function` once and keep its arrays: a resumed run takes them from the journal. Answered
    with the arrays.

    The function may call `do` for operations that stress no cell (reads, multiplications, on-chip
    words, waits); they may be repeated if the run is cut before the function ends.
    """

    name: str
    function: Callable[[Do], Arrays]


@dataclass(frozen=True, eq=False)
class TemperatureCourse:
    """How a thermostat came to a temperature: readings (K) and when they were taken, seconds since
    the set point was given; shape (n,) each.
    """

    time_s: FloatArray
    temperature_k: FloatArray


@dataclass(frozen=True)
class HoldTemperature(Request[TemperatureCourse]):
    """Bring the bench's thermostat to `kelvin` and go on when it has stayed within `tolerance_k` of
    it for `steady_s`; it stays there until another temperature is asked for or the run ends. An
    error after `at_most_s`. Answered with the course.
    """

    kelvin: float
    tolerance_k: float = 0.5
    steady_s: float = 60.0
    at_most_s: float = 3600.0


@dataclass(frozen=True)
class ReadTemperature(Request[float]):
    """Read the bench's thermostat. Answered with the temperature (K), NaN on a bench without
    one.
    """


Message = Operation | Save | Progress | Remark | Compute | HoldTemperature | ReadTemperature
Plan = Generator[Message, Any, T]


@dataclass(frozen=True, eq=False)
class Setting:
    """What a protocol may know of the bench it runs on.

    `correction` is the calibration in force, `paths` what the bench measures through; `instruments`
    are its single instruments by name (none on a board). `shared` holds what earlier steps of the
    run left for later ones (`share`, `shared_by`); `folder` is where relative paths of the recipe
    start; `seed` is the run's; `threads` is how many its computations may use (none: as many as
    the work is worth). `required` is told each operation that the protocol holds against the limits
    before it begins: what a plan takes as the bounds of the step. `peaks` tells the overshoot of
    pulses (`Driver.peaks`), `probes` which scope sees which generator (`Driver.probes`).
    """

    geometry: Geometry
    limits: Limits
    read: Step
    capabilities: Capabilities
    folder: Path = Path()
    seed: int = 0
    step: str = "step"
    shared: dict[str, object] = field(default_factory=dict)
    correction: Correction = field(default_factory=Correction)
    paths: Callable[[Apply], list[ReadingPath]] = board_paths
    instruments: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    required: Callable[[Operation], None] | None = None
    peaks: Peaks = no_peaks
    probes: Mapping[str, str] = field(default_factory=dict)

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: the same for the same seed, step and purpose."""
        entropy = [self.seed, *f"{self.step}/{purpose}".encode()]
        return np.random.default_rng(np.random.SeedSequence(entropy))

    def require(self, *operations: Operation) -> None:
        """Refuse now what the engine would refuse on the way, so that nothing has moved by then.

        Raises `LimitError` naming cell, line, value and limit, `ConfigError` naming the capability
        that this bench lacks.
        """
        for operation in operations:
            check(operation, self.geometry, self.limits, peaks=self.peaks)
            check_available(operation, self.capabilities, self.limits)
            if self.required is not None:
                self.required(operation)

    def share(self, name: str, thing: object) -> None:
        """Leave something for later steps of this run."""
        self.shared[name] = thing

    def shared_by(self, name: str, kind: type[Shared]) -> Shared:
        """What an earlier step left under `name`. Raises `ConfigError` naming what there is."""
        thing = self.shared.get(name)
        if not isinstance(thing, kind):
            names = ", ".join(k for k, v in self.shared.items() if isinstance(v, kind)) or "none"
            raise ConfigError(
                f"{name!r} was not made by an earlier step of this run; there is: {names}"
            )
        return thing


Unselected = Literal["inhibit", "grounded", "floating", "half", "third"]
"""What unselected lines do during pulses: a `rram_hil.array.operations.Scheme` by its name in a
recipe.
"""


class CellChoice(StrictModel):
    """Which cells a step works on: everything, or the crossing of some tiles, rows and columns
    ([first, last]).
    """

    tiles: Annotated[list[int], Field(min_length=1)] | None = None
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: tuple(v) if k != "tiles" and isinstance(v, list) else v for k, v in value.items()
            }
        return value

    def cells(self, geometry: Geometry) -> Cells:
        """The cells. Raises `ConfigError` for a range off the chip."""
        tiles = list(range(geometry.tiles)) if self.tiles is None else self.tiles
        spans = {}
        for name, span, size in (
            ("rows", self.rows, geometry.rows),
            ("columns", self.columns, geometry.columns),
        ):
            first, last = (0, size - 1) if span is None else span
            if not 0 <= first <= last < size:
                raise ConfigError(
                    f"cells.{name}: [{first}, {last}] must be [first, last] within 0..{size - 1}"
                )
            spans[name] = np.arange(first, last + 1)
        for tile in tiles:
            if not 0 <= tile < geometry.tiles:
                raise ConfigError(f"cells.tiles: {tile} must lie in 0..{geometry.tiles - 1}")
        blocks = [Cells.block(tile, spans["rows"], spans["columns"]) for tile in tiles]
        parts = [np.concatenate([getattr(b, a) for b in blocks]) for a in ("tile", "row", "column")]
        return Cells(*parts)


class Protocol(StrictModel, ABC, Generic[Summary]):
    """Base of every protocol: its fields are the keys of its step in a recipe, checked strictly.

    `class Forming(Protocol[FormingSummary])` says what `run` returns, and so what `bench.run` does.
    """

    version: ClassVar[int] = 1

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise refused(error, type(self).__name__, type(self)) from None

    @abstractmethod
    def run(self, setting: Setting) -> Plan[Summary]:
        """The procedure: yields messages, returns a small frozen dataclass that sums up the
        step.
        """

    def input_files(self) -> tuple[str, ...]:
        """The files that `run` reads, as the recipe names them: a run is refused before its first
        step where one of them cannot be read. None by default.
        """
        return ()

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """What a report shows of a step that this protocol carried out, made of what the step
        saved. None: the plots that its arrays ask for (`rram_hil.report.plots.Chart`).
        """
        return None


def map_of(
    cells: Cells, values: NDArray[Any], geometry: Geometry, fill: float = np.nan
) -> NDArray[Any]:
    """Spread a value a cell over the whole chip, shape `geometry.shape`, `fill` elsewhere."""
    whole = np.full(geometry.size, fill, dtype=np.result_type(values, type(fill)))
    whole[cells.index(geometry)] = values
    return whole.reshape(geometry.shape)
