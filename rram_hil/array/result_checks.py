"""A look at what a driver returned, before anyone believes it: the right kind, the right shapes,
and no number that is none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rram_hil.array.operations import (
    Apply,
    CodedRead,
    Multiply,
    Operation,
    Program,
    Status,
    Wait,
    WriteWords,
)
from rram_hil.array.results import (
    ApplyResult,
    CodedReadResult,
    MultiplyResult,
    ProgramResult,
    Result,
    WaitResult,
    WordsResult,
)
from rram_hil.errors import InstrumentError
from rram_hil.types import StatusArray

_KINDS = {
    Apply: ApplyResult,
    Program: ProgramResult,
    Multiply: MultiplyResult,
    CodedRead: CodedReadResult,
    WriteWords: WordsResult,
    Wait: WaitResult,
}
_COUNTS = ("pulses", "reads", "set_pulses", "reset_pulses")


def sound(operation: Operation, result: Result, number: int) -> Result:
    """The result, readings that claim to be OK and are not finite marked as not a number, no cell
    inside without an OK one.

    Raises `InstrumentError` where kind or shapes do not belong to `operation`, or counts are
    negative.
    """
    kind = _KINDS[type(operation)]
    if not isinstance(result, kind):
        raise _unsound(
            number, f"a {type(result).__name__} answers an operation that ends in a {kind.__name__}"
        )
    if isinstance(operation, Apply) and isinstance(result, ApplyResult):
        n, m = len(operation.cells), operation.measurements
        _need(number, result, (n, m), "current_a", "conductance_s", "status", "time_s")
        _need(number, result, (n,), "pulses", "reads")
        if operation.also_gate:
            _need(number, result, (n, m), "gate_a")
        elif result.gate_a is not None:
            raise _unsound(number, "gate currents that nobody asked for")
        measures = [
            s.measure == "current" for s in operation.steps if s.measure != "no"
        ] * operation.repeat
        usable = np.isfinite(result.current_a) & (
            np.isfinite(result.conductance_s) | ~np.array(measures, dtype=np.bool_)
        )
        return replace(result, status=_marked(result.status, usable))
    if isinstance(operation, Program) and isinstance(result, ProgramResult):
        names = ("conductance_s", "status", "inside", "set_pulses", "reset_pulses", "reads")
        _need(number, result, (len(operation.cells),), *names)
        status = _marked(result.status, np.isfinite(result.conductance_s))
        return replace(result, status=status, inside=result.inside & (status == Status.OK))
    if isinstance(operation, Multiply) and isinstance(result, MultiplyResult):
        shape = (len(operation.inputs), operation.columns)
        _need(number, result, shape, "codes", *(["word_sums"] if operation.words else []))
        if not 0 < result.lsb_a < float("inf"):
            raise _unsound(number, f"a code step of {result.lsb_a} A")
    if isinstance(operation, CodedRead) and isinstance(result, CodedReadResult):
        _need(number, result, (len(operation.cells),), "conductance_s", "sigma_s", "status")
        _need(number, result, (len(operation.blocks),), "full_scale_a")
        usable = np.isfinite(result.conductance_s) & (result.sigma_s >= 0)
        return replace(result, status=_marked(result.status, usable))
    return result


def _need(number: int, result: Result, shape: tuple[int, ...], *names: str) -> None:
    for name in names:
        array = getattr(result, name)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise _unsound(
                number, f"{name} must have shape {shape}, not {getattr(array, 'shape', None)}"
            )
        if name in _COUNTS and (array.dtype.kind not in "iu" or bool((array < 0).any())):
            raise _unsound(number, f"{name} must be whole numbers of 0 or more")
        if name == "status" and bool((array > max(Status)).any()):
            raise _unsound(number, f"status {int(array.max())} is none of 0..{int(max(Status))}")


def _marked(status: StatusArray, usable: NDArray[np.bool_]) -> StatusArray:
    wrong = (status == Status.OK) & ~usable
    return np.where(wrong, np.uint8(Status.NOT_A_NUMBER), status) if wrong.any() else status


def _unsound(number: int, text: str) -> InstrumentError:
    return InstrumentError(f"the result of operation {number} does not belong to it: {text}")
