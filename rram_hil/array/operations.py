"""Operations are data: frozen values that say what to do to a batch of cells, and the results that
come back.

`Apply` carries nearly all of a bench's work: a list of steps (volts on the bit, source and word
line, dwell, whether to measure) applied to every cell of a batch. `read`, `pulse` and `sweep` build
it. Beside it stand `Program` (write-verify to windows), `Multiply`, `CodedRead` (a map read by
multiplies), `WriteWords` and `Wait`. All volts are against ground, all units SI.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.array.cells import LATER, Cells
from rram_hil.errors import ConfigError, short
from rram_hil.types import FloatArray, IntArray

if TYPE_CHECKING:
    from rram_hil.array.results import (  # noqa: F401 - in the strings of the classes' bases
        ApplyResult,
        CodedReadResult,
        MultiplyResult,
        ProgramResult,
        WaitResult,
        WordsResult,
    )

Answer = TypeVar("Answer", covariant=True)
Asked = TypeVar("Asked")
T = TypeVar("T")

Volts = float | FloatArray | None
"""One level for the whole batch, one a cell (shape (n,)), or None: the line floats."""

MOST_REPEATS = (1 << 32) - 1
MOST_CONFIRMS = 1 << 20
MOST_READINGS = 1 << 30
"""What an operation may ask at most; beyond these no hardware and no memory follows."""

Line = Literal["bl", "sl", "wl"]
LINES: tuple[Line, ...] = ("bl", "sl", "wl")

Measured = Literal["no", "current", "gate"]
"""What a step measures: nothing, the bit-line current, or the word-line (gate leakage) current."""

StepExtra = Literal["body_v", "unselected_wl_v", "also_gate"]
STEP_EXTRAS: tuple[StepExtra, ...] = get_args(StepExtra)
"""What a step may say beside its three lines; a driver declares which of it its bench can."""


class Scheme(StrEnum):
    """What the unselected bit lines (and, in a 1R array, source lines) do while a cell is selected.

    INHIBIT drives unselected bit lines to the selected cell's source-line level, so that cells
    sharing its gate see no voltage; GROUNDED, FLOATING, HALF (V/2) and THIRD (V/3) are the usual
    schemes.
    """

    INHIBIT = "inhibit"
    GROUNDED = "grounded"
    FLOATING = "floating"
    HALF = "half"
    THIRD = "third"


class Status(IntEnum):
    """What one reading is worth. Only an OK reading (or COMPLIANCE, as a bound) is a
    conductance.
    """

    OK = 0
    COMPLIANCE = 1
    OVER_RANGE = 2
    NOT_A_NUMBER = 3
    STUCK = 4
    UNKNOWN = 5
    NOT_RUN = 6


def _kept(value: Volts, name: str) -> Volts:
    """A number, or a copy of one value a cell that nobody can change any more. Raises `ConfigError`
    for anything else.
    """
    if value is None:
        return None
    try:
        array = np.array(value)
    except ValueError:
        array = np.array("")
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        raise ConfigError(f"{name}: a number or one number a cell is needed, not {short(value)}")
    if array.ndim == 0:
        return float(array)
    frozen = array.astype(np.float64)
    frozen.flags.writeable = False
    return frozen


def _keep(operation: object, *names: str) -> None:
    for name in names:
        object.__setattr__(operation, name, _kept(getattr(operation, name), name))


def _keep_level(operation: object, *names: str) -> None:
    """One level for the whole array, or None."""
    for name in names:
        if getattr(operation, name) is not None:
            _keep_number(operation, name)


def _keep_number(operation: object, name: str) -> None:
    value = _kept(getattr(operation, name), name)
    if not isinstance(value, float):
        raise ConfigError(f"{name}: one number is needed, not {short(value)}")
    object.__setattr__(operation, name, value)


def _whole(value: object, name: str, low: int, high: int) -> int:
    """A whole number within its range. Raises `ConfigError`."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_whole and low <= value <= high:  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload, no-any-return]
    least = f"be {low} or more, whole" if low <= 1 else f"lie in {low}..{high}"
    allowed = f"lie in {low}..{high}" if is_whole and value > high else least  # type: ignore[operator]
    raise ConfigError(f"{name} must {allowed}, not {short(value)}")


def _keep_whole(operation: object, what: str, **ranges: tuple[int, int]) -> None:
    for name, (low, high) in ranges.items():
        number = _whole(getattr(operation, name), f"{what}: {name}", low, high)
        object.__setattr__(operation, name, number)


def _keep_scheme(operation: Apply | Program, what: str) -> None:
    try:
        object.__setattr__(operation, "unselected", Scheme(operation.unselected))
    except ValueError:
        raise ConfigError(
            f"{what}: unselected must be one of {', '.join(Scheme)}, not"
            f" {short(operation.unselected)}"
        ) from None
    if operation.compliance_a is not None:
        _keep_number(operation, "compliance_a")


def _is_all(values: object, kind: type) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, kind) for value in values)


def _need_cells(cells: object, what: str) -> None:
    if not isinstance(cells, Cells):
        raise ConfigError(
            f"{what}: cells are needed, as bench.cells(...) or Cells.of([(tile, row, column)]) make"
            f" them, not {type(cells).__name__}"
        )


def _cut(value: Volts, which: slice | NDArray[np.bool_] | IntArray) -> Volts:
    """Of one value a cell those of a part of the batch; one for all stays."""
    return value[which] if isinstance(value, np.ndarray) and value.ndim else value


def _per_cell(value: ArrayLike, n: int, name: str) -> FloatArray:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name}: numbers are needed, not {short(value)}") from None
    if array.shape not in ((), (n,)):
        raise ConfigError(
            f"{name}: one value or one for each of the {n} cells, not shape {array.shape}"
        )
    return np.broadcast_to(array, (n,))


@dataclass(frozen=True, eq=False)
class Step:
    """Volts on the three lines of each cell for `width_s`, and what is measured meanwhile.

    The word line rises before and falls after the other two. `width_s` is also the integration time
    of a measurement.

    `body_v` is the level of the bodies (wells) of all selectors; None: each is tied to its
    transistor's source, as the chip has it. `unselected_wl_v` is the level of all other word lines;
    None: 0 V. With `also_gate` the current into the selected word line is measured too, beside the
    bit-line current (`ApplyResult.gate_a`). Not every bench can these (`Capabilities.step_extras`).
    """

    bl_v: Volts = 0.0
    sl_v: Volts = 0.0
    wl_v: Volts = 0.0
    width_s: float = 1e-6
    measure: Measured = "no"
    body_v: float | None = field(default=None, metadata=LATER)
    unselected_wl_v: float | None = field(default=None, metadata=LATER)
    also_gate: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        _keep(self, "bl_v", "sl_v", "wl_v")
        _keep_number(self, "width_s")
        _keep_level(self, "body_v", "unselected_wl_v")
        if self.measure not in get_args(Measured):
            raise ConfigError(
                f"step: measure must be one of {', '.join(get_args(Measured))}, not"
                f" {self.measure!r}"
            )
        if not isinstance(self.also_gate, bool):
            raise ConfigError(f"step: also_gate must be true or false, not {short(self.also_gate)}")
        if self.also_gate and self.measure != "current":
            raise ConfigError(
                "step: also_gate measures the gate beside the bit-line current: measure must be"
                f' "current", not "{self.measure}"'
            )

    @property
    def extras(self) -> tuple[StepExtra, ...]:
        """What this step says beside its three lines."""
        said = _levels_said(self)
        return (*said, "also_gate") if self.also_gate else said

    def without_gate(self) -> Step:
        """The same step, the gate's current not measured beside the bit line's: where nothing could
        be done with it.
        """
        return replace(self, also_gate=False)

    def levels(self, line: Line, n: int) -> FloatArray | None:
        """Volts of one line for each of `n` cells, shape (n,); None where the line floats."""
        volts: Volts = getattr(self, f"{line}_v")
        return None if volts is None else _per_cell(volts, n, f"{line}_v")

    def cell_v(self, n: int) -> FloatArray:
        """Volts across each cell, BL - SL, shape (n,); 0 where either line floats."""
        bl, sl = self.levels("bl", n), self.levels("sl", n)
        return np.zeros(n) if bl is None or sl is None else bl - sl

    def part(self, which: slice | NDArray[np.bool_] | IntArray) -> Step:
        """The same step for a part of the batch."""
        bl, sl, wl = (_cut(volts, which) for volts in (self.bl_v, self.sl_v, self.wl_v))
        return replace(self, bl_v=bl, sl_v=sl, wl_v=wl)


def _levels_said(asked: Step | Multiply | CodedRead) -> tuple[StepExtra, ...]:
    levels: tuple[StepExtra, ...] = ("body_v", "unselected_wl_v")
    return tuple(name for name in levels if getattr(asked, name) is not None)


def _refuse_also_gate(step: Step, what: str) -> None:
    """Raises `ConfigError` where a step asks for currents that its operation does not keep."""
    if step.also_gate:
        raise ConfigError(f"{what} may not say also_gate, for which this operation has no place")


@dataclass(frozen=True, eq=False)
class Stop:
    """A cell takes no further step once a measured conductance is >= `above_s` or <= `below_s`
    (S).
    """

    above_s: float | FloatArray | None = None
    below_s: float | FloatArray | None = None

    def __post_init__(self) -> None:
        _keep(self, "above_s", "below_s")

    def part(self, which: slice | NDArray[np.bool_] | IntArray) -> Stop:
        """The same condition for a part of the batch."""
        return Stop(_cut(self.above_s, which), _cut(self.below_s, which))


class Request(Generic[Answer]):
    """What a protocol yields, answered with an `Answer`.

    `result = yield from read(cells)` is `result = yield read(cells)` with the type of the result.
    """

    def __iter__(self) -> Generator[Self, Any, Answer]:
        answer: Answer = yield self
        return answer


@dataclass(frozen=True, eq=False)
class Apply(Request["ApplyResult"]):
    """Take every cell of the batch through `steps`, `repeat` times, one cell after the other.

    `compliance_a` bounds the bit-line current where the bench can. `stop` ends a cell's steps
    early.
    """

    cells: Cells
    steps: tuple[Step, ...]
    unselected: Scheme = Scheme.INHIBIT
    compliance_a: float | None = None
    stop: Stop | None = None
    repeat: int = 1
    label: str = ""

    def __post_init__(self) -> None:
        _need_cells(self.cells, "apply")
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ConfigError("apply: at least one step is needed")
        if not _is_all(self.steps, Step):
            raise ConfigError("apply: steps must be Steps")
        _keep_whole(self, "apply", repeat=(1, MOST_REPEATS))
        _keep_scheme(self, "apply")
        if self.stop is not None and not isinstance(self.stop, Stop):
            raise ConfigError(f"apply: stop must be a Stop, not {short(self.stop)}")
        readings = len(self.cells) * self.measurements
        if readings > MOST_READINGS:
            raise ConfigError(
                f"apply: {readings} readings; at most {MOST_READINGS} in one operation"
            )
        n = len(self.cells)
        for step in self.steps:
            for line in LINES:
                step.levels(line, n)
        if self.stop is not None:
            if not any(s.measure == "current" for s in self.steps):
                raise ConfigError("apply: a stop condition needs a step that measures the current")
            for name, bound in (("above_s", self.stop.above_s), ("below_s", self.stop.below_s)):
                if bound is not None and np.any(np.isnan(_per_cell(bound, n, name))):
                    raise ConfigError(
                        f"apply: a stop condition's {name} may not be NaN: it would never be met"
                    )

    @property
    def measurements(self) -> int:
        """Measured values a cell that a full execution returns."""
        return self.repeat * sum(s.measure != "no" for s in self.steps)

    @property
    def also_gate(self) -> bool:
        """Whether any of its steps measures the gate's current beside the bit line's."""
        return any(s.also_gate for s in self.steps)

    def part(self, which: slice | NDArray[np.bool_] | IntArray) -> Apply:
        """The same operation on a part of its cells."""
        stop = None if self.stop is None else self.stop.part(which)
        steps = tuple(s.part(which) for s in self.steps)
        return replace(self, cells=self.cells[which], steps=steps, stop=stop)


@dataclass(frozen=True, eq=False)
class Ramp:
    """Volts of the k-th pulse: `start_v` + k `step_v`, held at `stop_v`. `start_v` may differ from
    cell to cell.
    """

    start_v: float | FloatArray
    stop_v: float
    step_v: float = 0.0

    def __post_init__(self) -> None:
        _keep(self, "start_v")
        if self.start_v is None:
            raise ConfigError("start_v: a number or one number a cell is needed")
        _keep_number(self, "stop_v")
        _keep_number(self, "step_v")

    def level(self, k: ArrayLike) -> FloatArray:
        """Volts of pulse number `k` (from 0; any shape that goes with `start_v`)."""
        ramp = (
            np.asarray(self.start_v, dtype=np.float64)
            + np.asarray(k, dtype=np.float64) * self.step_v
        )
        held: FloatArray = (
            np.minimum(ramp, self.stop_v) if self.step_v >= 0 else np.maximum(ramp, self.stop_v)
        )
        return held

    def extreme_v(self) -> float:
        """The largest |V| that the ramp can reach; NaN if any level is NaN."""
        levels = np.append(np.asarray(self.start_v, dtype=np.float64).ravel(), self.stop_v)
        return float(np.max(np.abs(levels)))

    def part(self, which: slice | NDArray[np.bool_] | IntArray) -> Ramp:
        """The same ramp for a part of the batch."""
        start = _cut(self.start_v, which)
        assert start is not None
        return replace(self, start_v=start)


@dataclass(frozen=True, eq=False)
class PulseTrain:
    """The pulses of one polarity: amplitude (on BL for SET, on SL for RESET) and gate, each a ramp,
    and the width. `body_v` and `unselected_wl_v` as in a `Step`.
    """

    amplitude_v: Ramp
    gate_v: Ramp
    width_s: float
    body_v: float | None = field(default=None, metadata=LATER)
    unselected_wl_v: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        _keep_number(self, "width_s")
        _keep_level(self, "body_v", "unselected_wl_v")
        if not (isinstance(self.amplitude_v, Ramp) and isinstance(self.gate_v, Ramp)):
            raise ConfigError("pulse train: amplitude_v and gate_v must be Ramps")

    def step(self, polarity: int, amplitude_v: Volts, gate_v: Volts) -> Step:
        """A pulse of this train: a SET (1) or a RESET (-1) of this amplitude and gate."""
        bl_v, sl_v = (amplitude_v, 0.0) if polarity > 0 else (0.0, amplitude_v)
        idle_v = self.unselected_wl_v
        return Step(bl_v, sl_v, gate_v, self.width_s, "no", self.body_v, idle_v)

    def part(self, which: slice | NDArray[np.bool_] | IntArray) -> PulseTrain:
        """The same pulses for a part of the batch."""
        amplitude, gate = self.amplitude_v.part(which), self.gate_v.part(which)
        return replace(self, amplitude_v=amplitude, gate_v=gate)


def _budget(value: object) -> int | IntArray:
    """Numbers of pulses, whole and held by 32 bits. Raises `ConfigError`."""
    if np.ndim(value) == 0 and not isinstance(value, np.ndarray):  # type: ignore[arg-type]
        return _whole(value, "program: max_pulses", 0, MOST_REPEATS)
    array = np.asarray(value)
    if (
        array.dtype.kind not in "iu"
        or array.ndim > 1
        or (array.size and array.max() > MOST_REPEATS)
    ):
        raise ConfigError(
            f"program: max_pulses must be 0 or more, whole, at most {MOST_REPEATS}, not"
            f" {short(value)}"
        )
    return array.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Program(Request["ProgramResult"]):
    """Bring each cell into its window [`low_s`, `high_s`] by read-verify-write with incremental
    step pulses.

    Read; inside the window `confirm` more reads in a row accept the cell; below it takes the next
    SET pulse, above it the next RESET pulse. A change of polarity is a reversal and restarts the
    new polarity's ramp. A cell fails after `max_pulses` pulses (one number or one a cell, 0
    allowed) or more than `max_reversals` reversals. Where `low_s` is 0, readings down to -`high_s`
    are inside: a cell that hardly conducts reads below 0 by noise. `on_board` says whether the
    bench's own write-verify may, must or must not do it; else the host drives every pulse.

    With `verify` "coded" all cells that wait for a reading are read at once by coded multiplies
    (`CodedRead`, at the volts of `read`), then each takes its pulse; else each is read singly.
    """

    cells: Cells
    low_s: FloatArray
    high_s: FloatArray
    set_pulses: PulseTrain
    reset_pulses: PulseTrain
    read: Step
    max_pulses: int | IntArray = 30
    max_reversals: int = 10
    confirm: int = 1
    unselected: Scheme = Scheme.INHIBIT
    compliance_a: float | None = None
    on_board: Literal["never", "allowed", "required"] = "allowed"
    verify: Literal["single", "coded"] = "single"
    label: str = ""

    def __post_init__(self) -> None:
        _need_cells(self.cells, "program")
        n = len(self.cells)
        object.__setattr__(self, "low_s", _per_cell(self.low_s, n, "low_s"))
        object.__setattr__(self, "high_s", _per_cell(self.high_s, n, "high_s"))
        if not bool(np.all(self.low_s <= self.high_s)):
            raise ConfigError("program: every window needs low_s <= high_s, and neither may be NaN")
        for name, kind in (
            ("set_pulses", PulseTrain),
            ("reset_pulses", PulseTrain),
            ("read", Step),
        ):
            if not isinstance(getattr(self, name), kind):
                found = short(getattr(self, name))
                raise ConfigError(f"program: {name} must be a {kind.__name__}, not {found}")
        if self.read.measure != "current":
            raise ConfigError("program: the read step must measure the current")
        _keep_whole(self, "program", max_reversals=(0, MOST_REPEATS), confirm=(0, MOST_CONFIRMS))
        _keep_scheme(self, "program")
        object.__setattr__(self, "max_pulses", _budget(self.max_pulses))
        if self.budget().size != n or np.any(self.budget() < 0):
            raise ConfigError("program: max_pulses must be 0 or more")
        if self.verify not in ("single", "coded"):
            raise ConfigError(f"program: verify must be single or coded, not {self.verify!r}")
        if self.verify == "coded" and any(np.ndim(getattr(self.read, f"{x}_v")) for x in LINES):
            raise ConfigError("program: a coded verify reads all cells at the same volts")
        _refuse_also_gate(self.read, "program: its read step")

    def extremes(self) -> tuple[Step, ...]:
        """Steps at the ends of all ramps: no pulse of this operation goes further on any line."""
        found = []
        for train, polarity in ((self.set_pulses, 1), (self.reset_pulses, -1)):
            for amplitude in (train.amplitude_v.start_v, train.amplitude_v.stop_v):
                for gate in (train.gate_v.start_v, train.gate_v.stop_v):
                    found.append(train.step(polarity, amplitude, gate))
        return tuple(found)

    def budget(self) -> IntArray:
        """Largest number of pulses that each cell may take, shape (n,)."""
        return np.broadcast_to(np.asarray(self.max_pulses, dtype=np.int64), (len(self.cells),))

    def part(self, which: slice | NDArray[np.bool_] | IntArray) -> Program:
        """The same operation on a part of its cells."""
        return replace(
            self,
            cells=self.cells[which],
            low_s=self.low_s[which],
            high_s=self.high_s[which],
            set_pulses=self.set_pulses.part(which),
            reset_pulses=self.reset_pulses.part(which),
            read=self.read.part(which),
            max_pulses=self.budget()[which],
        )


@dataclass(frozen=True, eq=False)
class Multiply(Request["MultiplyResult"]):
    """Multiply input vectors by a block of one tile: column current = sum over rows of V(input) x
    G.

    `inputs` are signed `input_bits` codes, shape (vectors, rows), applied to the source lines of
    rows `row`, `row` + 1, ... as V = code / (2**(input_bits - 1) - 1) x `read_v`, with the bit
    lines of columns `column` .. `column` + `columns` - 1 at virtual ground and the gates of those
    rows at `wl_v`. Each column current becomes a signed ADC code of full scale `full_scale_a`. With
    `words`, the on-chip words of the block are multiplied too. `body_v` and `unselected_wl_v` (of
    all other rows) as in a `Step`.
    """

    tile: int
    row: int
    column: int
    columns: int
    inputs: NDArray[np.int16]
    input_bits: int = 8
    read_v: float = 0.2
    wl_v: float = 3.0
    full_scale_a: float = 1e-3
    words: bool = False
    label: str = ""
    body_v: float | None = field(default=None, metadata=LATER)
    unselected_wl_v: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        # Whether a place is on the chip is for the limits to say.
        anywhere = dict.fromkeys(("tile", "row", "column", "columns"), (-(1 << 20), 1 << 20))
        _keep_whole(self, "multiply", **anywhere, input_bits=(2, 16))
        for name in ("read_v", "wl_v", "full_scale_a"):
            _keep_number(self, name)
        _keep_level(self, "body_v", "unselected_wl_v")
        try:
            inputs = np.asarray(self.inputs)
        except ValueError:
            inputs = np.asarray("")
        if inputs.ndim != 2 or inputs.dtype.kind not in "iu":
            raise ConfigError("multiply: inputs must be integer codes of shape (vectors, rows)")
        top = (1 << (self.input_bits - 1)) - 1
        if inputs.size and (int(inputs.max()) > top or int(inputs.min()) < -top):
            raise ConfigError(
                f"multiply: {self.input_bits}-bit input codes must lie in -{top}..{top}"
            )
        if not 0 < self.full_scale_a < float("inf"):
            raise ConfigError(
                f"multiply: full_scale_a must be above 0 A and finite, not {self.full_scale_a}"
            )
        object.__setattr__(self, "inputs", inputs.astype(np.int16, copy=False))

    @property
    def extras(self) -> tuple[StepExtra, ...]:
        """What it says beside the lines of its block."""
        return _levels_said(self)

    @property
    def rows(self) -> int:
        """Rows of the block."""
        return int(self.inputs.shape[1])

    @property
    def cells(self) -> Cells:
        """The cells of the block."""
        rows = np.arange(self.row, self.row + self.rows)
        return Cells.block(self.tile, rows, np.arange(self.column, self.column + self.columns))

    def part(self, which: slice) -> Multiply:
        """The same multiplication for some of its vectors."""
        return replace(self, inputs=self.inputs[which])


@dataclass(frozen=True)
class Block:
    """A rectangle of one tile: `rows` rows from `row` on, `columns` columns from `column` on."""

    tile: int
    row: int
    rows: int
    column: int
    columns: int

    def __post_init__(self) -> None:
        for name in ("tile", "row", "rows", "column", "columns"):
            if type(getattr(self, name)) is not int:
                _keep_whole(self, "block", **{name: (-(1 << 62), 1 << 62)})
        if self.rows < 1 or self.columns < 1 or min(self.tile, self.row, self.column) < 0:
            raise ConfigError(f"block {self}: it needs a row and a column, none below 0")

    @property
    def size(self) -> int:
        """Cells of the block."""
        return self.rows * self.columns

    @property
    def cells(self) -> Cells:
        """The cells of the block, row by row."""
        rows = np.arange(self.row, self.row + self.rows)
        return Cells.block(self.tile, rows, np.arange(self.column, self.column + self.columns))

    @classmethod
    def covering(cls, cells: Cells) -> tuple[Block, ...]:
        """Rectangles that hold all of `cells`: columns beside each other whose cells span the same
        rows share one. Each cell lies in one rectangle; a rectangle may hold others as well.
        """
        if len(cells) == 0:
            return ()
        order = np.lexsort((cells.row, cells.column, cells.tile))
        tile, row, column = (a[order] for a in (cells.tile, cells.row, cells.column))
        first = np.flatnonzero(np.diff(tile, prepend=-1) | np.diff(column, prepend=-1))
        low, high = row[first], row[np.append(first[1:], len(row)) - 1]
        tile, column = tile[first], column[first]
        start = np.flatnonzero(
            (np.diff(tile, prepend=-1) != 0)
            | (np.diff(column, prepend=-2) != 1)
            | (np.diff(low, prepend=-1) != 0)
            | (np.diff(high, prepend=-1) != 0)
        )
        widths = np.diff(np.append(start, len(column)))
        return tuple(
            cls(int(tile[k]), int(low[k]), int(high[k] - low[k] + 1), int(column[k]), int(width))
            for k, width in zip(start, widths, strict=True)
        )

    @classmethod
    def around(cls, cells: Cells) -> tuple[Block, ...]:
        """The smallest rectangle around those of `cells` that lie on one tile, for each such
        tile.
        """
        blocks = []
        for tile in np.unique(cells.tile):
            row, column = (a[cells.tile == tile] for a in (cells.row, cells.column))
            corner = int(row.min()), int(column.min())
            rows, columns = int(row.max()) - corner[0] + 1, int(column.max()) - corner[1] + 1
            blocks.append(cls(int(tile), corner[0], rows, corner[1], columns))
        return tuple(blocks)


@dataclass(frozen=True, eq=False)
class CodedRead(Request["CodedReadResult"]):
    """Read every cell of some blocks at once, by multiplying orthogonal codes (`coded_read.py`).

    The codes go onto the rows as in a `Multiply`, at `read_v` with the gates at `wl_v`; the ADC's
    range is chosen from the data so that no code saturates; `repeat` repeats the codes. The ranges
    and the decoding are the board's where it has this operation, else the host's. A bench that
    cannot multiply reads cell by cell under `cell_read`, and is refused where that is None.
    `body_v` and `unselected_wl_v` as in a `Multiply`.
    """

    blocks: tuple[Block, ...]
    read_v: float = 0.2
    wl_v: float = 3.0
    repeat: int = 1
    cell_read: Step | None = None
    label: str = ""
    body_v: float | None = field(default=None, metadata=LATER)
    unselected_wl_v: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if isinstance(self.blocks, Block):
            raise ConfigError("coded read: blocks must be several in a list or tuple, also of one")
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not _is_all(self.blocks, Block):
            raise ConfigError("coded read: blocks must be Blocks")
        _keep_whole(self, "coded read", repeat=(1, MOST_REPEATS))
        for name in ("read_v", "wl_v"):
            _keep_number(self, name)
        _keep_level(self, "body_v", "unselected_wl_v")
        if self.cell_read is not None and not isinstance(self.cell_read, Step):
            raise ConfigError(f"coded read: cell_read must be a Step, not {short(self.cell_read)}")
        if self.cell_read is not None and self.cell_read.measure != "current":
            raise ConfigError("coded read: cell_read must measure the current")
        if self.cell_read is not None:
            _refuse_also_gate(self.cell_read, "coded read: cell_read")
        if not 0 < self.read_v < float("inf"):
            raise ConfigError(f"coded read: read_v must be above 0 V, not {self.read_v}")
        _ = self.cells  # blocks that share a cell are refused

    @property
    def extras(self) -> tuple[StepExtra, ...]:
        """What it says beside the lines of its blocks."""
        return _levels_said(self)

    @property
    def cells(self) -> Cells:
        """The cells of all blocks, one block after the other, each row by row."""
        parts = [block.cells for block in self.blocks] or [Cells.of([])]
        tile, row, column = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("tile", "row", "column")
        )
        return Cells(tile, row, column)

    def part(self, which: slice) -> CodedRead:
        """The same operation for some of its blocks."""
        return replace(self, blocks=self.blocks[which])


@dataclass(frozen=True, eq=False)
class WriteWords(Request["WordsResult"]):
    """Store on-chip words: signed integers, each at the place of a cell, that
    `Multiply(words=True)` also multiplies.

    With `clear`, all words of the chip are erased first.
    """

    cells: Cells
    values: NDArray[np.int32]
    clear: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        _need_cells(self.cells, "write words")
        values = np.asarray(self.values)
        if values.shape != (len(self.cells),) or values.dtype.kind not in "iu":
            raise ConfigError("write words: one integer a cell is needed")
        holds = np.iinfo(np.int32)
        if values.size and not holds.min < int(values.min()) <= int(values.max()) <= holds.max:
            raise ConfigError(f"write words: values must lie in -{holds.max}..{holds.max}")
        object.__setattr__(self, "values", values.astype(np.int32))

    def part(self, which: slice) -> WriteWords:
        """The same operation for some of its words; only the first part clears."""
        clear = self.clear and which.start in (None, 0)
        return replace(self, cells=self.cells[which], values=self.values[which], clear=clear)


@dataclass(frozen=True, eq=False)
class Wait(Request["WaitResult"]):
    """Let `seconds` pass on the bench clock, all outputs at zero (relaxation, retention)."""

    seconds: float
    label: str = ""

    def __post_init__(self) -> None:
        _keep_number(self, "seconds")
        if not 0 <= self.seconds < float("inf"):
            raise ConfigError(f"wait: seconds must be 0 or more and finite, not {self.seconds}")


Operation = Apply | Program | Multiply | CodedRead | WriteWords | Wait


@dataclass(frozen=True)
class Span:
    """When an operation ran, in seconds on the bench clock."""

    started_s: float = 0.0
    ended_s: float = 0.0


def drive(work: Generator[Asked, Any, T], answer: Callable[[Asked], Any]) -> T:
    """Run a generator to its end, each thing that it yields answered by `answer`: a bench's `do`, a
    chip, a `StoredMap`.
    """
    try:
        asked = next(work)
        while True:
            asked = work.send(answer(asked))
    except StopIteration as done:
        value: T = done.value
        return value


def read_step(bl_v: float = 0.2, wl_v: float = 3.0, width_s: float = 1e-6) -> Step:
    """A step that reads: `bl_v` on the bit line, gate open at `wl_v`, current measured."""
    return Step(bl_v=bl_v, sl_v=0.0, wl_v=wl_v, width_s=width_s, measure="current")


def read(cells: Cells, step: Step | None = None, *, repeat: int = 1, label: str = "read") -> Apply:
    """Read every cell `repeat` times under the read condition `step` (default: 0.2 V on BL, 3 V on
    WL, 1 us).
    """
    return Apply(cells, (step if step is not None else read_step(),), repeat=repeat, label=label)


def pulse(
    cells: Cells,
    *,
    bl_v: Volts = 0.0,
    sl_v: Volts = 0.0,
    wl_v: Volts,
    width_s: float,
    read: Step | None = None,
    unselected: Scheme = Scheme.INHIBIT,
    compliance_a: float | None = None,
    body_v: float | None = None,
    unselected_wl_v: float | None = None,
    label: str = "",
) -> Apply:
    """One pulse on every cell, followed by a read where `read` is given."""
    given = Step(bl_v, sl_v, wl_v, width_s, body_v=body_v, unselected_wl_v=unselected_wl_v)
    steps: Sequence[Step] = [given] + ([read] if read is not None else [])
    return Apply(cells, tuple(steps), unselected, compliance_a, label=label)


def sweep(
    cells: Cells,
    line: Line,
    levels_v: Sequence[float],
    *,
    bl_v: float = 0.0,
    sl_v: float = 0.0,
    wl_v: float = 0.0,
    width_s: float,
    read: Step | None = None,
    stop: Stop | None = None,
    unselected: Scheme = Scheme.INHIBIT,
    compliance_a: float | None = None,
    body_v: float | None = None,
    unselected_wl_v: float | None = None,
    label: str = "",
) -> Apply:
    """Step one line through `levels_v`, the others held; with `read`, a read after every level,
    else measure at it.
    """
    if line not in ("bl", "sl", "wl"):
        raise ConfigError(f"sweep: line must be bl, sl or wl, not {line!r}")
    steps: list[Step] = []
    for level in levels_v:
        volts = {"bl": bl_v, "sl": sl_v, "wl": wl_v} | {line: float(level)}
        measure: Measured = "no" if read is not None else "current"
        lines = volts["bl"], volts["sl"], volts["wl"]
        steps.append(Step(*lines, width_s, measure, body_v, unselected_wl_v))
        if read is not None:
            steps.append(read)
    return Apply(cells, tuple(steps), unselected, compliance_a, stop, label=label)
