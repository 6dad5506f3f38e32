"""Answers from the journal of an earlier run of the same recipe, until the operation in flight is
reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import ApplyResult, Operation, ProgramResult, Result
from rram_hil.array.result_checks import sound
from rram_hil.engine.protocol import Arrays
from rram_hil.errors import DataError, InstrumentError
from rram_hil.storage.codec import matches, result_from
from rram_hil.storage.frames import (
    Computed,
    Failed,
    Frame,
    Intent,
    Outcome,
    Resume,
    Saved,
    StepEnd,
    StepStart,
)

F = TypeVar("F", StepStart, StepEnd, Intent, Outcome, Saved, Computed)


@dataclass(frozen=True)
class InFlight:
    """An operation whose intent is in the journal and whose result is not."""

    number: int
    time_s: float


class Replay:
    """The frames of a journal that a fresh run of its protocols must meet again, in order.

    Every method answers None or False once the journal is used up, and raises `DataError` where the
    fresh run asks for something else than the journal holds: then recipe, package or computation
    are not the same.

    `last_number` is the highest operation number in the journal, `last_pulsed` that of the last one
    that surely gave a pulse.
    """

    def __init__(self, journal: Iterable[Frame]) -> None:
        told = (StepStart, StepEnd, Intent, Outcome, Saved, Computed, Failed)
        self._frames: deque[Frame] = deque()
        for frame in journal:
            if isinstance(frame, told):
                self._frames.append(frame)
            elif (
                isinstance(frame, Resume) and self._frames and isinstance(self._frames[-1], Failed)
            ):
                # Nothing was done about the error: the run ended with it, and the resumed one tried
                # again.
                self._frames.pop()
        self._place = 1
        self.last_pulsed = next((n for n in map(_pulsed, reversed(self._frames)) if n), 0)
        self.last_number = max(
            (f.operation for f in self._frames if isinstance(f, Intent)), default=0
        )

    @property
    def is_used_up(self) -> bool:
        """Whether everything that the journal holds was asked for."""
        return not self._frames

    def must_be_empty(self) -> None:
        """Raise `DataError` if the fresh run went on alone although the journal holds more."""
        if self._frames:
            raise self._differs("something that the journal does not hold")

    def step_started(self, step: StepStart) -> bool:
        """Whether the journal has this step's start."""
        frame = self._pop(StepStart, f"the start of step {step.name!r}")
        if frame is not None and replace(frame, time_s=step.time_s) != step:
            raise self._differs(f"step {step.name!r} ({step.protocol}, version {step.version})")
        return frame is not None

    def step_ended(self, number: int) -> bool:
        """Whether the journal has this step's end."""
        return self._pop(StepEnd, f"the end of step {number}") is not None

    def saved(self, name: str, values: NDArray[Any]) -> bool:
        """Whether the journal has this array next, equal but for rounding."""
        frame = self._pop(Saved, f"the array {name!r}")
        if frame is None:
            return False
        same = frame.values.shape == values.shape and np.allclose(
            frame.values, values, 1e-9, 0.0, equal_nan=True
        )
        if frame.name != name or not same:
            raise self._differs(f"another array {name!r}")
        return True

    def computed(self, name: str) -> Arrays | None:
        """The arrays of a finished computation."""
        frame = self._pop(Computed, f"the computation {name!r}")
        if frame is None:
            return None
        if frame.name != name:
            raise self._differs(f"the computation {name!r}")
        return dict(frame.arrays)

    def refusal(self) -> None:
        """Raise the `LimitError` with which the ledger refused the operation that comes next, if it
        did.
        """
        frame = self._frames[0] if self._frames else None
        if isinstance(frame, Failed) and frame.operation == 0:
            self._frames.popleft()
            if self._frames:
                raise frame.restored()

    def operation(self, operation: Operation) -> Result | InFlight | None:
        """The kept result of an operation, or that it was in flight when the journal ends."""
        intent = self._pop(Intent, f"a {type(operation).__name__}")
        if intent is None:
            return None
        if not matches(intent.record, operation):
            raise self._differs(f"another {type(operation).__name__}")
        if not self._frames:
            return InFlight(intent.operation, intent.time_s)
        failed = self._frames[0]
        if isinstance(failed, Failed):
            self._frames.popleft()
            if not self._frames:
                # Nothing was done about it: the run ended there, and now goes on as after any other
                # cut.
                return InFlight(intent.operation, intent.time_s)
            after = self._frames[0]
            if not (isinstance(after, Outcome) and after.operation == intent.operation):
                raise failed.restored()
            # An earlier resume asked the bench and went on.
        outcome = self._pop(Outcome, f"the result of operation {intent.operation}")
        if outcome is None or outcome.operation != intent.operation:
            raise self._differs(f"the result of operation {intent.operation}")
        result = result_from(outcome.record)
        try:
            sound(operation, result, intent.operation)
        except InstrumentError as error:
            raise DataError(f"resume refused: damaged journal: {error}") from None
        return result

    def _pop(self, kind: type[F], wanted: str) -> F | None:
        if not self._frames:
            return None
        frame = self._frames[0]
        if not isinstance(frame, kind):
            raise self._differs(wanted)
        self._frames.popleft()
        self._place += 1
        return frame

    def _differs(self, wanted: str) -> DataError:
        return DataError(
            f"resume refused: at entry {self._place} the run asks for {wanted}, the journal has"
            f" {type(self._frames[0]).__name__ if self._frames else 'something else'}; the recipe,"
            " the data or the package changed"
        )


def _pulsed(frame: Frame) -> int:
    """Number of the operation of which this frame is the result, if it gave a pulse; else 0."""
    if not isinstance(frame, Outcome):
        return 0
    result = result_from(frame.record)
    gave = isinstance(result, ApplyResult | ProgramResult) and result.pulses.any()
    return frame.operation if gave else 0
