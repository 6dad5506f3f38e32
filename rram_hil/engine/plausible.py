"""Whether what a driver returned can be, held against the operation, the limits and itself.

What cannot be ends the run: an instrument that says it is not to be believed in anything, and the
ledger keeps the worst case. What is merely too regular to be a measurement is marked STUCK.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    CodedRead,
    CodedReadResult,
    Limits,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    Result,
    Status,
    WordsResult,
    WriteWords,
)
from rram_hil.array.limits import pulses_of
from rram_hil.errors import ImpossibleResultError
from rram_hil.hardware.driver import Capabilities
from rram_hil.types import FloatArray, IntArray, StatusArray

MOST_S = 10.0
"""No cell conducts more: a short through leads of a milliohm a square would."""
BELOW_S = 2e-6
"""So far below zero (S) noise and offsets may take the reading of a cell that conducts nothing."""
LEAST_V = 0.1
"""Below this across a cell an instrument's offset weighs as it does here."""
FLOORS = 10
"""In stated errors of the smallest range, how far an offset may be from what is stated."""
SAME_CELLS = 64
"""More cells than these with one reading to the bit, and none beside it, are no measurement."""
SPIKE = 4
NEIGHBOURS = 4
LEAST_STEP_A = 0.5e-9


def plausible(
    operation: Operation,
    result: Result,
    number: int,
    limits: Limits,
    can: Capabilities,
    *,
    is_cut: bool = False,
) -> tuple[Result, str]:
    """The result with readings that cannot be measurements marked STUCK, and what is to be said of
    them; empty for nothing.

    `is_cut` is True where an abort may have left part of the operation undone. Raises
    `ImpossibleResultError` naming the cell and what was told of it.
    """
    looked = _Look(number, limits, can, is_cut)
    if isinstance(operation, Apply) and isinstance(result, ApplyResult):
        if result.interrupted:
            return result, ""
        looked.apply(operation, result)
        return looked.marked(operation, result)
    if isinstance(operation, Program) and isinstance(result, ProgramResult):
        if not result.interrupted:
            looked.program(operation, result)
    elif isinstance(operation, Multiply) and isinstance(result, MultiplyResult):
        looked.multiply(operation, result)
    elif isinstance(operation, CodedRead) and isinstance(result, CodedReadResult):
        looked.conductances(
            operation.cells, result.conductance_s, result.status, 10 * result.sigma_s
        )
        is_stuck = _same_everywhere(result.conductance_s[:, None], result.status[:, None], 1e-9)
        if is_stuck.any():
            status = np.where(is_stuck[:, 0], np.uint8(Status.STUCK), result.status)
            return replace(result, status=status), _said(number, int(is_stuck.sum()))
    elif isinstance(operation, WriteWords) and isinstance(result, WordsResult):
        looked.words(operation, result)
    return result, ""


class _Look:
    """One result under examination."""

    def __init__(self, number: int, limits: Limits, can: Capabilities, is_cut: bool) -> None:
        self.number, self.limits, self.can, self.is_cut = number, limits, can, is_cut

    def no(self, text: str) -> ImpossibleResultError:
        """The error that says it."""
        return ImpossibleResultError(
            f"the result of operation {self.number} cannot be: {text}; whatever answers is not to"
            " be believed, and pulses count at their worst"
        )

    def none_of(self, bad: NDArray[np.bool_], cells: Cells, text: str, *values: object) -> None:
        """Refuse where any cell is bad; `values` has what to tell of each cell, shape (n,)."""
        if bad.any():
            at = int(np.argmax(bad))
            told = [v[at] if isinstance(v, np.ndarray) else v for v in values]
            raise self.no(f"cell {cells.address(at)}: {text.format(*told)}")

    def apply(self, operation: Apply, result: ApplyResult) -> None:
        """Pulses as the steps give them, readings as their volts allow."""
        cells, most = operation.cells, pulses_of(operation, self.limits)
        told = result.pulses
        self.none_of(told > most, cells, "{} pulses, but its steps give {}", told, most)
        m = operation.measurements
        self.none_of(result.reads > m, cells, "{} readings, but its steps take {}", result.reads, m)
        if not self.is_cut:
            least = _least_pulses(operation, result.status, most, self.limits)
            self.none_of(told < least, cells, "{} pulses, but its steps gave {}", told, least)
        self._readings(operation, result)

    def _readings(self, operation: Apply, result: ApplyResult) -> None:
        cells, n = operation.cells, len(operation.cells)
        measured = [s for s in operation.steps if s.measure != "no"]
        if not measured or n == 0:
            return
        is_current = np.array([s.measure == "current" for s in measured] * operation.repeat)
        volts = np.tile(np.stack([s.cell_v(n) for s in measured], axis=1), operation.repeat)
        ok = (result.status == Status.OK) & is_current & (volts != 0)
        amps = np.where(ok, result.current_a, 0.0)
        siemens = np.where(ok, result.conductance_s, 0.0)
        floor_a = FLOORS * self.can.read_floor_a
        most_below = np.maximum(BELOW_S * np.maximum(np.abs(volts), LEAST_V), floor_a)
        wrong = np.abs(siemens * volts - amps) > 0.5 * np.abs(amps) + floor_a + 1e-12
        self._no_reading(wrong, cells, "{:g} S told with {:g} A at {:g} V", siemens, amps, volts)
        self._no_reading(
            amps * np.sign(volts) < -most_below,
            cells,
            "{1:g} A at {2:g} V is a negative conductance",
            siemens, amps, volts,
        )  # fmt: skip
        self._no_reading(
            np.abs(amps) > MOST_S * np.maximum(np.abs(volts), LEAST_V),
            cells,
            "{1:g} A at {2:g} V is more than any cell conducts",
            siemens, amps, volts,
        )  # fmt: skip
        if operation.compliance_a is not None:
            beyond = np.abs(amps) > 1.1 * operation.compliance_a + floor_a + 1e-9
            text = f"{{1:g}} A is beyond the compliance of {operation.compliance_a:g} A"
            self._no_reading(beyond, cells, text, siemens, amps, volts)

    def _no_reading(
        self, bad: NDArray[np.bool_], cells: Cells, text: str, *values: FloatArray
    ) -> None:
        if bad.any():
            column = int(np.argmax(bad.any(axis=0)))
            self.none_of(bad[:, column], cells, text, *(v[:, column] for v in values))

    def marked(self, operation: Apply, result: ApplyResult) -> tuple[Result, str]:
        """Readings that many cells share to the bit, STUCK."""
        is_current = [s.measure == "current" for s in operation.steps if s.measure != "no"]
        columns = np.array(is_current * operation.repeat, dtype=np.bool_)
        rail_a = min(self.limits.current_a, operation.compliance_a or np.inf)
        is_rail = np.abs(result.current_a) >= 0.999 * rail_a
        status = np.where(columns & ~is_rail, result.status, np.uint8(Status.NOT_RUN))
        step_a = max(2 * self.can.read_floor_a, LEAST_STEP_A)
        is_stuck = _same_everywhere(result.current_a, status, 2 * step_a)
        if not is_stuck.any():
            return result, ""
        marked = np.where(is_stuck, np.uint8(Status.STUCK), result.status)
        return replace(result, status=marked), _said(self.number, int(is_stuck.any(1).sum()))

    def program(self, operation: Program, result: ProgramResult) -> None:
        """Pulses within the budgets, inside what lies inside, and none left alone outside."""
        cells, budget, g = operation.cells, operation.budget(), result.conductance_s
        told = result.pulses
        self.none_of(told > budget, cells, "{} pulses on a budget of {}", told, budget)
        low = np.where(operation.low_s > 0, operation.low_s, -operation.high_s)
        slack = 1e-9 * np.abs(g)
        outside = (g < low - slack) | (g > operation.high_s + slack)
        self.none_of(
            result.inside & outside,
            cells,
            "inside its window of {:g} to {:g} S at {:g} S",
            operation.low_s, operation.high_s, g,
        )  # fmt: skip
        self.none_of(result.inside & (result.reads == 0), cells, "inside, but it was never read")
        self.conductances(cells, g, result.status, np.zeros(len(cells)))
        if not self.is_cut:
            idle = outside & (result.status == Status.OK) & (told == 0) & (budget > 0)
            self.none_of(
                idle & ~result.inside, cells, "outside its window at {:g} S, and not one pulse", g
            )

    def conductances(
        self, cells: Cells, g_s: FloatArray, status: StatusArray, below_s: FloatArray
    ) -> None:
        """No OK conductance is far below zero, or beyond what metal conducts."""
        g = np.where(status == Status.OK, g_s, 0.0)
        floor_s = FLOORS * self.can.read_floor_a / LEAST_V
        least = -np.maximum(np.nan_to_num(below_s), max(BELOW_S, floor_s))
        self.none_of(g < least, cells, "a negative conductance of {:g} S", g)
        self.none_of(g > MOST_S, cells, "{:g} S, more than any cell conducts", g)

    def words(self, operation: WriteWords, result: WordsResult) -> None:
        """As many words as were sent."""
        if result.written != len(operation.cells) and not self.is_cut:
            raise self.no(f"{result.written} of {len(operation.cells)} words were stored")

    def multiply(self, operation: Multiply, result: MultiplyResult) -> None:
        """Codes within the converter, its step that of the range asked for."""
        most = 1 << (self.can.adc_bits - 1)
        codes = np.abs(result.codes.astype(np.int64))
        if codes.size and codes.max() > most:
            raise self.no(f"code {int(codes.max())} of a converter of {self.can.adc_bits} bits")
        step_a = operation.full_scale_a / (most - 1)
        if not 0.5 <= result.lsb_a / step_a <= 2:
            raise self.no(
                f"a code is worth {result.lsb_a:g} A, but {operation.full_scale_a:g} A over"
                f" {self.can.adc_bits} bits make {step_a:g} A"
            )
        if not 0 <= result.saturated <= codes.size:
            raise self.no(f"{result.saturated} of {codes.size} codes are at their end")
        if result.word_sums is not None and self.can.words:
            reach = operation.rows << (operation.input_bits - 1 + self.can.word_bits - 1)
            if np.abs(result.word_sums).max(initial=0) > reach:
                raise self.no(f"a sum of words beyond {reach}")


def _least_pulses(
    operation: Apply, status: StatusArray, most: IntArray, limits: Limits
) -> IntArray:
    """Pulses that each cell has taken at least by its last measurement that ran; without a stop
    condition and with all measured, every one: `most`.
    """
    n, m = status.shape
    if m == 0 or n == 0:
        return most
    above = [~(np.abs(s.cell_v(n)) <= limits.read_v) for s in operation.steps]
    until = np.cumsum(np.stack(above), axis=0)
    until = until[[k for k, s in enumerate(operation.steps) if s.measure != "no"]]
    ran = status != Status.NOT_RUN
    last = m - 1 - np.argmax(ran[:, ::-1], axis=1)
    rounds, place = np.divmod(last, len(until))
    by_last = rounds * (most // operation.repeat) + until[place, np.arange(n)]
    whole = ran.all(axis=1) & (operation.stop is None)
    return np.where(whole, most, np.where(ran.any(axis=1), by_last, 0)).astype(np.int64)


def _same_everywhere(values: FloatArray, status: StatusArray, near: float) -> NDArray[np.bool_]:
    """OK readings, shape (n, m), whose value more than `SAME_CELLS` cells share to the bit.

    Not those within `near` of zero, where a converter's last steps are, nor those whose neighbours
    among the values are as frequent: so a converter of few bits tells a large array.
    """
    ok = (status == Status.OK) & (np.abs(values) > near)
    found, counts = np.unique(values[ok], return_counts=True)
    beside = np.zeros(counts.size, dtype=np.int64)
    for shift in range(1, NEIGHBOURS + 1):
        beside[shift:] = np.maximum(beside[shift:], counts[:-shift])
        beside[:-shift] = np.maximum(beside[:-shift], counts[shift:])
    is_stuck = np.zeros(values.shape, dtype=np.bool_)
    for value in found[(counts > SAME_CELLS) & (counts > SPIKE * beside)]:
        same = ok & (values == value)
        if np.count_nonzero(same.any(axis=1)) > SAME_CELLS:
            is_stuck |= same
    return is_stuck


def _said(number: int, cells: int) -> str:
    return (
        f"operation {number}: {cells} cells gave one and the same value to the bit, which no"
        " measurement does; they are marked STUCK"
    )
