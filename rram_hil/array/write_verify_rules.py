"""The decisions of a write-verify, apart from who carries it out.

One batch of cells, one `WriteVerify`: it is fed readings and says which cells take which pulse
next. A simulated board uses it for an on-board `Program`, the core for a `Program` that it lowers
to `Apply`, so both decide alike.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.array.operations import Block, CodedRead, Program, Span, Status, Step
from rram_hil.array.results import ProgramResult
from rram_hil.types import FloatArray, IntArray, StatusArray

Polarity = Literal[1, -1]
"""1 is SET (amplitude on BL), -1 is RESET (amplitude on SL)."""


class WriteVerify:
    """Where each cell of a `Program` stands. Arrays have shape (n,), in the order of the
    operation's cells.

    Use: read every cell that `reading()` names and `take` the readings; give the pulses of
    `pulses(1)` and of `pulses(-1)` and note each as `given`; again, until `reading()` is empty. An
    over-range reading counts as above the window (the cell gets a RESET pulse), and so does one at
    compliance whose bound is above it; any other that is not OK ends the cell's programming as a
    failure: it says neither that the cell is inside nor which pulse it needs.
    """

    def __init__(self, operation: Program) -> None:
        n = len(operation.cells)
        self.operation = operation
        self.inside: NDArray[np.bool_] = np.zeros(n, dtype=np.bool_)
        self.set_pulses: IntArray = np.zeros(n, dtype=np.int64)
        self.reset_pulses: IntArray = np.zeros(n, dtype=np.int64)
        self.reads: IntArray = np.zeros(n, dtype=np.int64)
        self.conductance_s: FloatArray = np.full(n, np.nan)
        self.status: StatusArray = np.full(n, Status.NOT_RUN, dtype=np.uint8)
        self._budget = operation.budget()
        self._active: NDArray[np.bool_] = np.ones(n, dtype=np.bool_)
        self._confirmed: IntArray = np.zeros(n, dtype=np.int64)
        self._reversals: IntArray = np.zeros(n, dtype=np.int64)
        self._ramp: IntArray = np.zeros(n, dtype=np.int64)
        self._polarity: NDArray[np.int8] = np.zeros(n, dtype=np.int8)
        self._next: NDArray[np.int8] = np.zeros(n, dtype=np.int8)

    def reading(self) -> IntArray:
        """Positions of the cells that are to be read now; none while pulses are due, or when all
        are finished.
        """
        return np.flatnonzero(self._active & (self._next == 0))

    def take(self, at: IntArray, conductance_s: FloatArray, status: StatusArray) -> None:
        """Note one reading (S) of the cells at positions `at` and decide what each does next."""
        operation = self.operation
        self.reads[at] += 1
        self.conductance_s[at] = conductance_s
        self.status[at] = status
        over = status == Status.OVER_RANGE
        ok = (status == Status.OK) & np.isfinite(conductance_s)
        above = over | (
            (ok | (status == Status.COMPLIANCE)) & (conductance_s > operation.high_s[at])
        )
        # A cell that hardly conducts reads below 0 as often as above: no SET mends its noise.
        low, high = operation.low_s[at], operation.high_s[at]
        below = ok & (conductance_s < np.where(low > 0, low, -high))
        unusable = ~(ok | above)
        inside = ~(above | below | unusable)
        self._confirmed[at] = np.where(inside, self._confirmed[at] + 1, 0)
        accepted = inside & (self._confirmed[at] > operation.confirm)
        wanted = above.astype(np.int8) * np.int8(-1) + below.astype(np.int8)
        reversal = (wanted != 0) & (self._polarity[at] != 0) & (wanted != self._polarity[at])
        self._reversals[at] += reversal
        spent = self.set_pulses[at] + self.reset_pulses[at] >= self._budget[at]
        failed = unusable | (
            (wanted != 0) & (spent | (self._reversals[at] > operation.max_reversals))
        )
        self._ramp[at] = np.where(reversal, 0, self._ramp[at])
        self._polarity[at] = np.where(wanted != 0, wanted, self._polarity[at])
        self._next[at] = np.where(failed, 0, wanted)
        self._active[at] = ~(accepted | failed)
        self.inside[at] = accepted

    def pulses(self, polarity: Polarity) -> tuple[IntArray, Step]:
        """Positions of the cells that take a pulse of this polarity now, and the pulse, with one
        level a cell.
        """
        at = np.flatnonzero(self._next == polarity)
        train = self.operation.set_pulses if polarity > 0 else self.operation.reset_pulses
        train = train.part(at)
        amplitude = np.broadcast_to(train.amplitude_v.level(self._ramp[at]), at.shape)
        gate = np.broadcast_to(train.gate_v.level(self._ramp[at]), at.shape)
        return at, train.step(polarity, amplitude, gate)

    def given(self, at: IntArray, polarity: Polarity) -> None:
        """Note that the cells at positions `at` took their pulse; they are to be read next."""
        counter = self.set_pulses if polarity > 0 else self.reset_pulses
        counter[at] += 1
        self._ramp[at] += 1
        self._next[at] = 0

    def missed(self, at: IntArray) -> None:
        """Note that the cells at positions `at` were due for a pulse and did not get it; they are
        to be read next.
        """
        self._next[at] = 0

    def result(self, span: Span) -> ProgramResult:
        """What was reached."""
        return ProgramResult(
            self.conductance_s,
            self.status,
            self.inside,
            self.set_pulses,
            self.reset_pulses,
            self.reads,
            span,
        )


def coded_verify(operation: Program, at: IntArray) -> CodedRead:
    """The reading of a coded verify: rectangles around the cells at positions `at`, at the volts of
    the operation's read step.
    """
    read = operation.read
    gate = read.levels("wl", 1)
    return CodedRead(
        Block.around(operation.cells[at]),
        float(np.abs(read.cell_v(1)[0])),
        0.0 if gate is None else float(gate[0]),
        label=operation.label,
        body_v=read.body_v,
        unselected_wl_v=read.unselected_wl_v,
    )
