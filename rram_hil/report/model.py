"""What a report shows, as plain frozen values: numbers and words, nothing of how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.networks.word_costs import WordCosts
from rram_hil.types import FloatArray

Clock = Literal["virtual", "wall"]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Account:
    """Who, when and what. `started` is a UTC time as text; `versions` are (name, version) pairs."""

    chip: str
    bench: str
    recipe: str
    started: str
    clock: Clock
    operator: str = ""
    seed: int | None = None
    versions: tuple[tuple[str, str], ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class KeyFigure:
    """One number at the head of the report, as text with its unit, and what it is."""

    value: str
    label: str


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def _check_fractions(name: str, values: Iterable[float]) -> None:
    for value in values:
        if value < 0 or value > 1:
            raise DataError(f"report: {name}: an accuracy is a fraction from 0 to 1, not {value:g}")


@dataclass(frozen=True)
class Row:
    """One row of the results: a way of bringing the network onto the chip, what it reaches, what it
    costs.

    `accuracy` has one fraction (0..1) a chip. Costs are of one chip, None where they do not apply;
    `vectors` went through the multiply to read maps, `words` are what it keeps in digital memory.
    `reference` marks what does not run on the chip (the float network). Raises `DataError` for an
    accuracy beyond 0..1.
    """

    name: str
    accuracy: tuple[float, ...]
    pulses: float | None = None
    reads: float | None = None
    vectors: float | None = None
    bench_s: float | None = None
    words: WordCosts | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        _check_fractions(self.name, self.accuracy)


@dataclass(frozen=True)
class ResultTable:
    """Rows measured alike: `images` test images, the same on every chip (0: not said)."""

    title: str
    rows: tuple[Row, ...]
    images: int = 0
    text: str = ""

    @property
    def chips(self) -> int:
        """How many chips were measured."""
        return max((len(row.accuracy) for row in self.rows), default=0)

    @property
    def best(self) -> float:
        """The highest mean accuracy on the chip; NaN where none was measured."""
        means = [mean(row.accuracy) for row in self.rows if not row.reference]
        return max((m for m in means if math.isfinite(m)), default=math.nan)

    @property
    def standard_error(self) -> float:
        """How far the best accuracy would move with other images, as a fraction."""
        return math.sqrt(max(self.best * (1 - self.best), 0.0) / self.images)


@dataclass(frozen=True)
class Bar:
    """One bar: accuracies as fractions (0..1), one a chip; the bar is their mean. `reference`: a
    line instead of a bar.
    """

    name: str
    accuracy: tuple[float, ...]
    reference: bool = False

    def __post_init__(self) -> None:
        _check_fractions(self.name, self.accuracy)


@dataclass(frozen=True)
class BarChart:
    """Accuracy bars, measured over `images` test images (0: not said), which decides the digits."""

    title: str
    bars: tuple[Bar, ...]
    images: int = 0

    @classmethod
    def of(cls, table: ResultTable) -> BarChart:
        """The bars of a table's rows, its reference rows as lines."""
        return cls(
            table.title,
            tuple(Bar(row.name, row.accuracy, row.reference) for row in table.rows),
            table.images,
        )


@dataclass(frozen=True)
class CostPart:
    """A part of a procedure: what was done how many times, and how long all of it took on the bench
    clock (s).
    """

    name: str
    count: int
    seconds: float


@dataclass(frozen=True)
class CostArm:
    """What one way of compensating costs on the bench: its parts on the board, and the link:
    operations sent, the bytes of both directions, and how long they took. `host_s` is what the host
    computed meanwhile, in seconds of its own, which no bench clock counts.
    """

    name: str
    parts: tuple[CostPart, ...]
    operations: int = 0
    link_bytes: int = 0
    link_s: float = 0.0
    host_s: float = 0.0

    @property
    def board_s(self) -> float:
        """All parts on the board (s)."""
        return sum(part.seconds for part in self.parts)

    @property
    def bench_s(self) -> float:
        """Board and link (s)."""
        return self.board_s + self.link_s


@dataclass(frozen=True)
class Cost:
    """What compensation costs on one chip, arm by arm: the baselines, the compensation, and what
    stands apart from both (looks through the array).

    `durations` are the (name, seconds) pairs that the times are made of on a virtual clock.
    """

    title: str
    baselines: tuple[CostArm, ...]
    compensation: CostArm
    apart: tuple[CostArm, ...] = ()
    clock: Clock = "virtual"
    durations: tuple[tuple[str, float], ...] = ()
    text: str = ""

    @property
    def arms(self) -> tuple[CostArm, ...]:
        """All of them."""
        return (*self.baselines, self.compensation, *self.apart)

    @property
    def ratios(self) -> tuple[tuple[str, float, float], ...]:
        """Of every baseline: its name, its bench time over that of the compensation, and the same
        without the link; NaN where the compensation took no time.
        """

        def over(a: float, b: float) -> float:
            return a / b if b > 0 else math.nan

        mine = self.compensation
        return tuple(
            (arm.name, over(arm.bench_s, mine.bench_s), over(arm.board_s, mine.board_s))
            for arm in self.baselines
        )


@dataclass(frozen=True, eq=False)
class MapPanel:
    """Target and programmed conductance of the cells of one chip, in S, shape (tiles, rows,
    columns) or (rows, columns).

    A NaN target is a cell that is not used, a NaN programmed value a cell that could not be read.
    `stuck_low` and `stuck_high` mark cells stuck at low and at high resistance, `not_formed` those
    that never formed and do not count as stuck. Raises `DataError` where the shapes differ.
    """

    title: str
    target_s: FloatArray
    programmed_s: FloatArray
    stuck_low: BoolArray | None = None
    stuck_high: BoolArray | None = None
    text: str = ""
    not_formed: BoolArray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.target_s)
        if len(shape) not in (2, 3) or 0 in shape:
            raise DataError(
                f"report: {self.title}: a map is (tiles, rows, columns) or (rows, columns), not"
                f" {shape}"
            )
        for name in ("programmed_s", "stuck_low", "stuck_high", "not_formed"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise DataError(
                    f"report: {self.title}: {name} has shape {np.shape(value)}, target_s {shape}"
                )


@dataclass(frozen=True)
class Report:
    """All that a report shows, in the order in which it shows it. `notes` say what is simulated and
    what to keep in mind.
    """

    title: str
    account: Account
    key_figures: tuple[KeyFigure, ...] = ()
    results: tuple[ResultTable, ...] = ()
    charts: tuple[BarChart, ...] = ()
    costs: tuple[Cost, ...] = ()
    maps: tuple[MapPanel, ...] = ()
    notes: tuple[str, ...] = ()
