"""What comes back from the array: one result type an operation, columns over the cells of its
batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rram_hil.array.cells import LATER
from rram_hil.array.operations import Span, Status
from rram_hil.notebook import ShownResult
from rram_hil.types import FloatArray, IntArray, StatusArray

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class ApplyResult(ShownResult):
    """What `Apply` measured: n cells x m values, in the order of the steps.

    `current_a` is the raw value, `conductance_s` the calibrated one (NaN for a gate measurement),
    `status` a `Status`, `time_s` the device's own clock, `pulses` the steps above the read limit
    and `reads` the measurements that each cell really took. `interrupted` is True when a reply was
    lost, or the run cut, while this operation was under way: then what nobody was told of is NaN
    with status UNKNOWN, or NOT_RUN where it surely had not begun, `pulses` counts what may have
    been given (the charge where the bench cannot tell), and `away_s` says for how long the bench
    was alone.

    `gate_a` is the current into the word line, raw, measured beside `current_a` by steps with
    `also_gate`; NaN for the others and where nothing was measured, infinite where it is over range.
    None where no step asks for it.
    """

    current_a: FloatArray
    conductance_s: FloatArray
    status: StatusArray
    time_s: FloatArray
    pulses: IntArray
    reads: IntArray
    span: Span = field(default_factory=Span)
    interrupted: bool = False
    away_s: float = 0.0
    gate_a: FloatArray | None = field(default=None, metadata=LATER)

    @property
    def mean_s(self) -> FloatArray:
        """Mean over each cell's OK readings (S), shape (n,); NaN where it has none."""
        ok = self.status == Status.OK
        count = ok.sum(axis=1)
        total = np.where(ok, self.conductance_s, 0.0).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    @property
    def mean_error_s(self) -> FloatArray:
        """Standard error of `mean_s` (S), shape (n,), from how each cell's OK readings scatter; NaN
        where there are fewer than two.
        """
        ok = self.status == Status.OK
        count = ok.sum(axis=1)
        square = np.where(ok, self.conductance_s - self.mean_s[:, None], 0.0) ** 2
        freedom = np.maximum(count * (count - 1.0), 1.0)
        return np.where(count > 1, np.sqrt(square.sum(axis=1) / freedom), np.nan)

    @property
    def last_s(self) -> FloatArray:
        """Each cell's last measured conductance, shape (n,); NaN where it has none."""
        return self._last(self.conductance_s, np.nan)

    @property
    def last_time_s(self) -> FloatArray:
        """When each cell was measured last (s, bench clock), shape (n,); NaN where it was not."""
        return self._last(self.time_s, np.nan)

    @property
    def last_status(self) -> StatusArray:
        """Status of each cell's last measurement, shape (n,)."""
        return self._last(self.status, np.uint8(Status.NOT_RUN))

    def _last(self, values: NDArray[Number], nothing: Any) -> NDArray[Number]:
        """Of each cell the value of its last measurement; `nothing` where it has none."""
        ran = self.status != Status.NOT_RUN
        n, m = ran.shape
        if m == 0:
            return np.full(n, nothing, dtype=values.dtype)
        last = m - 1 - np.argmax(ran[:, ::-1], axis=1)
        found: NDArray[Number] = np.where(ran.any(axis=1), values[np.arange(n), last], nothing)
        return found


@dataclass(frozen=True, eq=False)
class SoFar:
    """What a driver knows of an `Apply` whose end was lost: `result` with the readings and pulses
    that it was told of, and pulses beside these that each cell may have been given, shape (n,).
    """

    result: ApplyResult
    in_doubt: IntArray


@dataclass(frozen=True, eq=False)
class ProgramResult(ShownResult):
    """What `Program` reached: last conductance and status, pulses of each polarity, reads, all of
    shape (n,).

    `inside` tells which cells were accepted in their windows. `vectors` counts those of coded
    readings. For `interrupted` and `away_s` see `ApplyResult`.
    """

    conductance_s: FloatArray
    status: StatusArray
    inside: NDArray[np.bool_]
    set_pulses: IntArray
    reset_pulses: IntArray
    reads: IntArray
    span: Span = field(default_factory=Span)
    interrupted: bool = False
    away_s: float = 0.0
    vectors: int = 0

    @property
    def pulses(self) -> IntArray:
        """Pulses of both polarities, shape (n,)."""
        return self.set_pulses + self.reset_pulses


@dataclass(frozen=True, eq=False)
class MultiplyResult(ShownResult):
    """ADC codes, shape (vectors, columns), one step worth `lsb_a`; the words' sums of input code x
    word, same shape.

    `saturated` counts clipped codes; `emulated` is True where the bench has no multiply and single
    reads stood in.
    """

    codes: NDArray[np.int32]
    lsb_a: float
    word_sums: NDArray[np.int64] | None = None
    saturated: int = 0
    emulated: bool = False
    span: Span = field(default_factory=Span)


@dataclass(frozen=True, eq=False)
class CodedReadResult(ShownResult):
    """Conductances read by codes and the standard uncertainty of each (S), shape (n,), in the order
    of the operation's cells.

    `sigma_s` is what one reading scatters by: read and telegraph noise of the whole column and what
    the ADC rounds away, as the code's spare places show them. Where `way` is "cells" it is that of
    the mean, with what the instruments state; NaN of one reading. `full_scale_a` is the range that
    was chosen, one a block. `way` says who made the codes: the board, the host over `Multiply`
    operations, or nobody, where cells were read singly. `vectors` counts all multiplied vectors,
    the search for ranges included, `reads` single readings, `saturated` the clipped ADC codes in
    what was decoded.
    """

    conductance_s: FloatArray
    sigma_s: FloatArray
    status: StatusArray
    full_scale_a: FloatArray
    vectors: int
    reads: int = 0
    way: Literal["board", "multiply", "cells"] = "board"
    span: Span = field(default_factory=Span)
    saturated: int = 0


@dataclass(frozen=True, eq=False)
class WordsResult(ShownResult):
    """How many on-chip words were stored."""

    written: int
    span: Span = field(default_factory=Span)


@dataclass(frozen=True, eq=False)
class WaitResult(ShownResult):
    """A wait is over."""

    span: Span = field(default_factory=Span)


Result = ApplyResult | ProgramResult | MultiplyResult | CodedReadResult | WordsResult | WaitResult
