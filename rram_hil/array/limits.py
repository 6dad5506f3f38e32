"""The limits of a bench, checked over the whole envelope of an operation before any output moves.

Every comparison is written so that NaN fails it. A refusal names the cell, the line, the value and
the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from rram_hil.array.cells import MAP, Cells, Geometry
from rram_hil.array.operations import (
    Apply,
    Block,
    CodedRead,
    Multiply,
    Operation,
    Program,
    Ramp,
    Scheme,
    Step,
)
from rram_hil.array.write_verify_rules import coded_verify
from rram_hil.errors import ConfigError, LimitError
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Unit
from rram_hil.validation import (
    NotNegativeSiemens,
    NotNegativeVolts,
    Positive,
    PositiveAmperes,
    PositiveSeconds,
    PositiveVolts,
    StrictModel,
)

FORWARD_V = 0.4
"""Forward bias of a body (V) that no limits may allow more than: beyond it the junctions of the
selectors begin to conduct (rules of thumb say 0.5 V; unverified for any process), and thresholds
have fallen so far that gates which count as closed here may not be.
"""


class Limits(StrictModel):
    """Section `[limits]` of a bench file: no operation may pass any of these. All are required but
    those with a default.
    """

    bl_v: PositiveVolts = Field(description="largest |V| on a bit line")
    sl_v: PositiveVolts = Field(description="largest |V| on a source line")
    wl_v: PositiveVolts = Field(description="largest |V| on a word line")
    cell_v: PositiveVolts = Field(description="largest |BL - SL| across a selected cell")
    gate_over_v: PositiveVolts = Field(
        description=(
            "largest WL above the lower of BL and SL (gate oxide), of PMOS selectors below the"
            " higher"
        )
    )
    half_select_v: NotNegativeVolts = Field(
        description="largest |V| across a cell that shares the gate or a line"
    )
    read_v: PositiveVolts = Field(
        description="at or below this |BL - SL| a step is a read and uses up no pulse budget"
    )
    read_v_reason: str = Field(
        default="", description="why read_v may lie above 0.5 V or [chip] switch_v; required there"
    )
    current_a: PositiveAmperes = Field(
        description="largest current that a cell may carry (compliance)"
    )
    energy_j: Annotated[Positive, Unit("J")] = Field(
        description="largest energy of one pulse, |BL - SL| x current_a x width"
    )
    width_s: PositiveSeconds = Field(description="longest pulse")
    pulses_per_cell: Annotated[int, Field(ge=1, lt=1 << 63)] = Field(
        description="pulses a cell may take in its life (ledger)"
    )
    conductance_s: Annotated[list[NotNegativeSiemens], Field(min_length=2, max_length=2)] = Field(
        default=[0.0, 1e-3], description="lowest and highest conductance that may be a target"
    )
    read_width_s: PositiveSeconds = Field(
        default=1e-2, description="longest step at or below read_v"
    )
    wait_s: PositiveSeconds = Field(default=1e7, description="longest wait")
    body_v: NotNegativeVolts = Field(
        default=0.0,
        description="largest |V| on the bodies (wells) of the selectors; 0: none may be driven",
    )
    body_over_v: NotNegativeVolts = Field(
        default=0.0,
        le=FORWARD_V,
        description=(
            "largest forward bias of a body: above the lowest line (0 V counts), of PMOS selectors"
            " below the highest; its junctions conduct beyond"
        ),
    )

    @model_validator(mode="after")
    def _window(self) -> Self:
        if not self.conductance_s[0] < self.conductance_s[1]:
            raise ValueError("conductance_s must be [lowest, highest]")
        return self


Peaks = Callable[[Step, int], Iterable[Step]]
"""What a step puts on the lines of so many cells for a moment, beyond what it says: the overshoot
of a pulse as it arrives, told as steps.
"""


def no_peaks(step: Step, n: int) -> Iterable[Step]:
    """Steps put on the lines what they say."""
    return ()


_MOST_PULSES = 1 << 62
_LEAST_SCALE_A, _MOST_SCALE_A = 1e-15, 1e3


def check_current_limit(limits: Limits, *, bounds_current: bool, multiplies: bool) -> None:
    """Refuse a `current_a` that nothing keeps: below what the highest conductance in the limits
    carries at a read, on a bench that cannot limit the current, or that multiplies (many cells at
    once share what could).

    Raises `ConfigError` saying what to write instead.
    """
    flows_a = limits.read_v * limits.conductance_s[1]
    if (multiplies or not bounds_current) and flows_a > limits.current_a:
        why = "a multiply reads" if bounds_current else "this bench reads"
        raise ConfigError(
            f"limits.current_a of {limits.current_a:g} A cannot be kept: {why} without a"
            f" compliance, and at read_v of {limits.read_v:g} V a cell of"
            f" {limits.conductance_s[1]:g} S, the highest in limits.conductance_s, carries"
            f" {flows_a:g} A; raise current_a, or lower"
            " read_v or conductance_s"
        )


@dataclass(frozen=True)
class Charge:
    """The worst that an operation can do, for the ledger: pulses of its cells (shape (n,)), and of
    cells of other rows whose gates let more than the read limit through (shape (m,); selected ones
    may be among them).
    """

    cells: Cells
    pulses: IntArray
    beside: Cells = field(default_factory=lambda: Cells.of([]))
    beside_pulses: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def stresses(self) -> bool:
        """Whether any cell may take a pulse."""
        return bool(self.pulses.any() or self.beside_pulses.any())

    @property
    def everywhere(self) -> tuple[Cells, IntArray]:
        """All these cells, each once, with all its pulses."""
        if len(self.beside) == 0:
            return self.cells, self.pulses
        both = (self.cells, self.beside)
        places = np.stack([np.concatenate([getattr(c, axis) for c in both]) for axis in MAP])
        places, at = np.unique(places, axis=1, return_inverse=True)
        pulses = np.zeros(places.shape[1], dtype=np.int64)
        np.add.at(pulses, at.ravel(), np.concatenate([self.pulses, self.beside_pulses]))
        return Cells(*places), pulses


def _check(cells: Cells, values: FloatArray, limit: float, what: str, unit: str) -> None:
    good = np.abs(values) <= limit
    if not np.all(good):
        at = int(np.argmin(good))
        raise LimitError(
            f"cell {cells.address(at)}: {what} {values[at]:g} {unit} is beyond the limit of"
            f" {limit:g} {unit}",
            cell=cells.address(at),
            line=what,
            value=float(values[at]),
            allowed=(-limit, limit),
        )


def half_selected_v(step: Step, n: int, scheme: Scheme, geometry: Geometry) -> FloatArray:
    """Largest |V| across a half-selected cell that can conduct, for each of `n` selected cells,
    shape (n,).

    In a 1T1R array these are the cells of the same row where their gates are open, and those of
    other rows where a line below the level of their gates (0 V where the step says none) opens
    them; of PMOS selectors a line above it. In a 1R array it is every cell that shares a line.
    Source lines of other rows stand at 0 V, those of other columns at the level of their bit line.
    A floating line is taken at its worst. Gates that are not beyond a cell's lower end count as
    closed wherever the body stands: its forward bias has a limit of its own, `FORWARD_V` at most.
    """
    if geometry.cell == "1R":
        levels = (step.levels("bl", n), step.levels("sl", n))
        bl, sl = (np.zeros(n) if volts is None else volts for volts in levels)
        drop = np.abs(bl - sl)
        ends = np.maximum(np.abs(bl), np.abs(sl))
        by_scheme = {
            Scheme.HALF: drop / 2,
            Scheme.THIRD: drop / 3,
            Scheme.GROUNDED: ends,
            Scheme.FLOATING: np.maximum(ends, drop),
            Scheme.INHIBIT: drop,
        }
        return np.asarray(by_scheme[scheme], dtype=np.float64)
    return np.asarray(np.maximum.reduce(_open_v(step, n, scheme, geometry)), dtype=np.float64)


def _open_v(
    step: Step, n: int, scheme: Scheme, geometry: Geometry
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """|V| across cells of a 1T1R array that can conduct beside each of `n` selected ones, shape
    (n,): those of the same row; of other rows, those of the same column and all others.
    """
    bl, sl = (np.zeros(n) if v is None else v for v in (step.levels("bl", n), step.levels("sl", n)))
    # PMOS selectors follow the rules of NMOS ones with all signs changed.
    sign = geometry.polarity
    others, gate = sign * unselected_bl_v(step, n, scheme), step.levels("wl", n)
    bl, sl, closed = sign * bl, sign * sl, sign * (step.unselected_wl_v or 0.0)
    nothing = np.zeros(n)

    def across(line: FloatArray, source: FloatArray) -> FloatArray:
        return np.where(np.minimum(line, source) < closed, np.abs(line - source), nothing)

    if geometry.source_lines == "column":
        return nothing, across(bl, sl), nothing
    is_open = np.ones(n, dtype=np.bool_) if gate is None else sign * gate > np.minimum(others, sl)
    source = sl if geometry.source_lines == "common" else nothing
    apart = across(others, source)
    if scheme is Scheme.FLOATING:
        apart = np.maximum.reduce([apart, across(bl, source), across(sl, source)])
    return np.where(is_open, np.abs(others - sl), nothing), across(bl, source), apart


def stressed_v(step: Step, n: int, scheme: Scheme, geometry: Geometry) -> FloatArray:
    """|V| (V) by which width and energy of a step are bounded, for each of `n` selected cells,
    shape (n,): the most that stands across the cell itself or across half-selected ones.
    """
    own = np.abs(step.cell_v(n))
    return np.maximum(own, half_selected_v(step, n, scheme, geometry))


def stresses_cells(operation: Apply, geometry: Geometry, limits: Limits) -> bool:
    """Whether any cell, selected or not, may see more than the read limit."""
    n, scheme = len(operation.cells), operation.unselected
    felt = (stressed_v(step, n, scheme, geometry) for step in operation.steps)
    return not all(np.all(volts <= limits.read_v) for volts in felt)


def unselected_bl_v(step: Step, n: int, scheme: Scheme) -> FloatArray:
    """Level of the unselected bit lines while each of `n` cells of a 1T1R array is selected, shape
    (n,); 0 where they float.
    """
    bl, sl = step.levels("bl", n), step.levels("sl", n)
    zero = np.zeros(n)
    bl, sl = zero if bl is None else bl, zero if sl is None else sl
    levels = {
        Scheme.INHIBIT: sl,
        Scheme.GROUNDED: zero,
        Scheme.FLOATING: zero,
        Scheme.HALF: (bl + sl) / 2,
        Scheme.THIRD: sl + (bl - sl) / 3,
    }
    return np.asarray(levels[scheme], dtype=np.float64)


def _check_selected(step: Step, cells: Cells, geometry: Geometry, limits: Limits) -> None:
    """The lines of the selected cells, and what stands across them."""
    n = len(cells)
    for line, limit in (("bl", limits.bl_v), ("sl", limits.sl_v), ("wl", limits.wl_v)):
        levels = step.levels(line, n)  # type: ignore[arg-type]
        if levels is not None:
            _check(cells, levels, limit, line.upper(), "V")
    for line, partner, told in (("bl", "sl", "BL"), ("sl", "bl", "SL")):
        driven = step.levels(line, n)  # type: ignore[arg-type]
        if driven is not None and step.levels(partner, n) is None:  # type: ignore[arg-type]
            # A floating line is pulled towards the unselected ones: the cell may see all of it,
            # uncounted.
            _check(cells, driven, limits.read_v, f"{told} beside a floating line", "V")
    _check(cells, step.cell_v(n), limits.cell_v, "BL - SL", "V")
    gate = step.levels("wl", n)
    if gate is not None and geometry.cell == "1T1R":
        ends = [e for e in (step.levels("bl", n), step.levels("sl", n)) if e is not None]
        ends = ends or [np.zeros(n)]
        told = "BL and SL"
        if step.body_v is not None:
            ends, told = [*ends, np.full(n, step.body_v)], "BL, SL and body"
        _check_gate(cells, gate, ends, f"WL {{}} the {{}} of {told}", geometry, limits)


def _check_gate(
    cells: Cells,
    gate: FloatArray,
    ends: list[FloatArray],
    what: str,
    geometry: Geometry,
    limits: Limits,
) -> None:
    """The gate oxide: a gate above the lowest of `ends` (NMOS) or below the highest (PMOS)."""
    sign = geometry.polarity
    over = sign * gate - np.minimum.reduce([sign * end for end in ends])
    words = ("above", "lower") if sign > 0 else ("below", "higher")
    _check(cells, np.maximum(over, 0.0), limits.gate_over_v, what.format(*words), "V")


def _check_extras(
    step: Step, cells: Cells, scheme: Scheme, geometry: Geometry, limits: Limits
) -> None:
    """The body of all selectors and the word lines that are not selected: nothing where the step
    says neither.
    """
    if step.extras and geometry.cell == "1R":
        raise ConfigError(f"{step.extras[0]}: a 1R array has no selectors")
    if step.body_v is None and step.unselected_wl_v is None:
        return
    n, sign = len(cells), geometry.polarity
    levels = [step.levels("bl", n), step.levels("sl", n), unselected_bl_v(step, n, scheme)]
    # Lines that no cell of the batch is on stand at 0 V.
    ends = [e for e in levels if e is not None] + [np.zeros(n)]
    if step.body_v is not None:
        body = np.full(n, step.body_v)
        _check(cells, body, limits.body_v, "body", "V")
        forward = np.maximum(sign * body - np.minimum.reduce([sign * e for e in ends]), 0.0)
        words = "above the lowest" if sign > 0 else "below the highest"
        most_v = min(limits.body_over_v, FORWARD_V)
        _check(cells, forward, most_v, f"body {words} line", "V")
        ends.append(body)
    idle = np.full(n, step.unselected_wl_v or 0.0)
    _check(cells, idle, limits.wl_v, "unselected WL", "V")
    what = f"unselected WL {{}} the {'lowest' if sign > 0 else 'highest'} line"
    _check_gate(cells, idle, ends, what, geometry, limits)


def check_levels(
    step: Step, cells: Cells, scheme: Scheme, geometry: Geometry, limits: Limits
) -> FloatArray:
    """Refuse what a step puts on lines, selected cells and others, however long; |V| that bounds
    how long (`stressed_v`). Raises as `check`.
    """
    n = len(cells)
    _check_selected(step, cells, geometry, limits)
    _check_extras(step, cells, scheme, geometry, limits)
    if geometry.cell == "1T1R" and geometry.source_lines != "column":
        _check(cells, unselected_bl_v(step, n, scheme), limits.bl_v, "unselected BL", "V")
    half_selected = half_selected_v(step, n, scheme, geometry)
    _check(cells, half_selected, limits.half_select_v, "a half-selected cell's", "V")
    return np.maximum(np.abs(step.cell_v(n)), half_selected)


def _check_peaks(
    step: Step, cells: Cells, scheme: Scheme, geometry: Geometry, limits: Limits, peaks: Peaks
) -> None:
    for worst in peaks(step, len(cells)):
        try:
            check_levels(worst, cells, scheme, geometry, limits)
        except LimitError as error:
            error.message += ", counting the overshoot of the pulse"
            raise


def _check_step(
    step: Step,
    operation: Apply | Program | CodedRead,
    geometry: Geometry,
    limits: Limits,
    bounds_current: bool,
    peaks: Peaks = no_peaks,
) -> FloatArray:
    """Levels, width and energy of a step of an operation; |V| that these were held against."""
    cells, n = operation.cells, len(operation.cells)
    # A coded read is read cell by cell under no other.
    scheme, compliance_a = Scheme.INHIBIT, None
    if not isinstance(operation, CodedRead):
        scheme, compliance_a = operation.unselected, operation.compliance_a
    drop = check_levels(step, cells, scheme, geometry, limits)
    _check_peaks(step, cells, scheme, geometry, limits, peaks)
    longest = limits.read_width_s if np.all(drop <= limits.read_v) else limits.width_s
    _check(cells, np.full(n, step.width_s), longest, "width", "s")
    if not step.width_s > 0:
        raise LimitError(
            f"cell {cells.address(0) if n else '-'}: width {step.width_s:g} s must be above 0 s",
            line="width",
            value=step.width_s,
            allowed=(0.0, longest),
        )
    _check_energy(cells, drop, step.width_s, compliance_a, limits, bounds_current)
    return drop


def _check_energy(
    cells: Cells,
    drop: FloatArray,
    width_s: float,
    compliance_a: float | None,
    limits: Limits,
    bounds_current: bool,
) -> None:
    if compliance_a is not None and not 0 < compliance_a <= limits.current_a:
        raise LimitError(
            f"compliance {compliance_a:g} A must lie above 0 and at most at the limit of"
            f" {limits.current_a:g} A",
            line="compliance",
            value=compliance_a,
            allowed=(0.0, limits.current_a),
        )
    current: FloatArray = np.full(
        drop.shape, limits.current_a if compliance_a is None else compliance_a
    )
    if not bounds_current:
        # Nothing holds the current back but the cell itself.
        current = np.maximum(current, np.abs(drop) * limits.conductance_s[1])
    stress = np.where(np.abs(drop) <= limits.read_v, 0.0, np.abs(drop))
    _check(cells, stress * current * width_s, limits.energy_j, "energy of a pulse", "J")


def pulses_of(operation: Apply, limits: Limits) -> IntArray:
    """Steps above the read limit that each cell takes at most, shape (n,). Raises `LimitError`
    where no 64 bits hold them.
    """
    n = len(operation.cells)
    count = np.zeros(n, dtype=np.int64)
    for step in operation.steps:
        count += ~(np.abs(step.cell_v(n)) <= limits.read_v)
    if int(count.max(initial=0)) * operation.repeat > _MOST_PULSES:
        _check_life(operation.cells, count.astype(np.float64) * operation.repeat, limits)
    return count * operation.repeat


def _check_life(cells: Cells, pulses: FloatArray | IntArray, limits: Limits) -> None:
    """No operation may take more of a cell than its whole life, whatever a ledger says."""
    good = pulses <= limits.pulses_per_cell
    if not np.all(good):
        at = int(np.argmin(good))
        raise LimitError(
            f"cell {cells.address(at)}: {pulses[at]:g} pulses in one operation are beyond the limit"
            f" pulses_per_cell of {limits.pulses_per_cell}",
            cell=cells.address(at),
            line="pulses",
            value=float(pulses[at]),
            allowed=(0.0, float(limits.pulses_per_cell)),
        )


def _opens_rows(step: Step, geometry: Geometry) -> bool:
    """Whether any line lies where gates at the level of unselected word lines may be open."""
    lines = [0.0, *(v for v in (step.bl_v, step.sl_v) if v is not None)]
    lowest = min(float(np.min(geometry.polarity * np.asarray(v))) for v in lines)
    return not geometry.polarity * (step.unselected_wl_v or 0.0) <= lowest


def _beside(operation: Apply | Program, geometry: Geometry, limits: Limits) -> Charge:
    """The charge of cells of other rows whose gates a step opens, all else left out."""
    cells, n = operation.cells, len(operation.cells)
    is_apply = isinstance(operation, Apply)
    steps = operation.steps if isinstance(operation, Apply) else operation.extremes()
    # How often a selected cell leaves a pulse on the others of its column, and on those beyond.
    left = np.zeros((2, n))
    if geometry.cell == "1T1R":
        for step in steps if n else ():
            if not _opens_rows(step, geometry):
                continue
            opened = np.stack(_open_v(step, n, operation.unselected, geometry)[1:])
            taken = ~(opened <= limits.read_v)
            left = left + taken if is_apply else np.maximum(left, taken)
    if not left.any():
        return Charge(cells, np.zeros(n, dtype=np.int64))
    left *= operation.repeat if isinstance(operation, Apply) else operation.budget()
    column, apart = np.zeros((2, *geometry.shape))
    column[cells.tile, cells.row, cells.column], apart[cells.tile, cells.row, cells.column] = left
    felt = column.sum(axis=1, keepdims=True) - column
    in_row, in_column = apart.sum(axis=2, keepdims=True), apart.sum(axis=1, keepdims=True)
    felt += apart.sum(axis=(1, 2), keepdims=True) - in_row - in_column + apart
    at = np.flatnonzero(felt)
    beside, pulses = Cells.from_index(at, geometry), felt.ravel()[at]
    _check_life(beside, pulses, limits)
    none = np.zeros(n, dtype=np.int64)
    return Charge(cells, none, beside, np.minimum(pulses, _MOST_PULSES).astype(np.int64))


def _check_apply(
    operation: Apply, geometry: Geometry, limits: Limits, bounds_current: bool, peaks: Peaks
) -> IntArray:
    for step in operation.steps:
        _check_step(step, operation, geometry, limits, bounds_current, peaks)
    return pulses_of(operation, limits)


def _check_program(
    operation: Program, geometry: Geometry, limits: Limits, bounds_current: bool, peaks: Peaks
) -> IntArray:
    cells, n = operation.cells, len(operation.cells)
    low, high = limits.conductance_s
    for name, window in (("low_s", operation.low_s), ("high_s", operation.high_s)):
        inside = (window >= low) & (window <= high) | (
            np.isposinf(window) if name == "high_s" else False
        )
        if not np.all(inside):
            at = int(np.argmin(inside))
            raise LimitError(
                f"cell {cells.address(at)}: target {name} {window[at]:g} S is outside the limits of"
                f" {low:g} to {high:g} S (limits.conductance_s); low_s and high_s are a target"
                " less and plus its tolerance",
                cell=cells.address(at),
                line=name,
                value=float(window[at]),
                allowed=(low, high),
            )
    for train in (operation.set_pulses, operation.reset_pulses):
        for name, ramp in (("amplitude", train.amplitude_v), ("gate", train.gate_v)):
            if not np.isfinite(ramp.step_v):
                raise LimitError(
                    f"the {name} of write-verify pulses has a step of {ramp.step_v} V; it must be"
                    " finite"
                )
        _check_stronger_than_reads(train.amplitude_v, operation, limits)
    for step in operation.extremes():
        _check_step(step, operation, geometry, limits, bounds_current, peaks)
        # Between the ends of the ramps a gate may open that is closed at each of them.
        for moment in (step, *peaks(step, n)):
            worst = half_selected_v(replace(moment, wl_v=None), n, operation.unselected, geometry)
            _check(cells, worst, limits.half_select_v, "a half-selected cell's", "V")
    drop = _check_step(operation.read, operation, geometry, limits, bounds_current)
    if not np.all(drop <= limits.read_v):
        raise LimitError(
            f"the read of a write-verify is above the read limit of {limits.read_v:g} V:"
            f" {np.max(drop):g} V on a cell, selected or not"
        )
    if operation.verify == "coded" and n:
        reading = coded_verify(operation, np.arange(n))
        for block in reading.blocks:
            _check_multiply(reading, block, geometry, limits)
    return np.array(operation.budget())


def _check_stronger_than_reads(amplitude_v: Ramp, operation: Program, limits: Limits) -> None:
    """A pulse within the read limit is none: write-verify would count it, chip and ledger not."""
    if not np.any(operation.budget()):
        return
    levels = np.append(np.ravel(amplitude_v.start_v), amplitude_v.stop_v)
    if not (np.all(levels > limits.read_v) or np.all(levels < -limits.read_v)):
        weakest = float(levels[np.argmin(np.abs(levels))])
        raise LimitError(
            f"write-verify pulses from {levels[0]:g} V to {levels[-1]:g} V: one of {weakest:g} V"
            f" would be a read; each must be stronger than the read limit of {limits.read_v:g} V",
            line="amplitude",
            value=weakest,
            allowed=(limits.read_v, limits.cell_v),
        )


def _check_multiply(
    operation: Multiply | CodedRead, block: Block | Multiply, geometry: Geometry, limits: Limits
) -> None:
    last_row, last_column = block.row + block.rows, block.column + block.columns
    inside = (
        0 <= block.tile < geometry.tiles
        and 0 <= block.row < last_row <= geometry.rows
        and 0 <= block.column < last_column <= geometry.columns
    )
    if not inside:
        raise LimitError(
            f"multiply on tile {block.tile}, rows {block.row}..{last_row - 1}, columns"
            f" {block.column}..{last_column - 1} is off the chip of {geometry.tiles} x"
            f" {geometry.rows} x {geometry.columns}"
        )
    if isinstance(operation, Multiply):
        scale = operation.full_scale_a
        if not _LEAST_SCALE_A <= scale <= _MOST_SCALE_A:
            raise LimitError(
                f"multiply full scale {scale:g} A must lie in {_LEAST_SCALE_A:g}"
                f"..{_MOST_SCALE_A:g} A",
                line="full_scale_a",
                value=scale,
                allowed=(_LEAST_SCALE_A, _MOST_SCALE_A),
            )
    corner = Cells.of([(block.tile, block.row, block.column)])
    _check(corner, np.array([operation.read_v]), limits.read_v, "multiply read voltage", "V")
    beside = operation.body_v, operation.unselected_wl_v
    for sl_v in (operation.read_v, -operation.read_v):
        # All cells of the block are selected; every other sees no more than these, which are reads.
        step = Step(0.0, sl_v, operation.wl_v, 1e-6, "no", *beside)
        _check_selected(step, corner, geometry, limits)
        _check_extras(step, corner, Scheme.INHIBIT, geometry, limits)


def check(
    operation: Operation,
    geometry: Geometry,
    limits: Limits,
    *,
    bounds_current: bool = True,
    peaks: Peaks = no_peaks,
) -> Charge:
    """Refuse an operation that could pass a limit; else the worst-case charge to each cell's pulse
    budget.

    `bounds_current` is False on a bench that cannot limit the current: the energy of a pulse is
    then that of a cell of the highest conductance in the limits. `peaks` tells what steps put on
    lines beyond their levels. Raises `LimitError` naming cell, line, value and limit, `ConfigError`
    for a cell off the chip.
    """
    if isinstance(operation, Apply | Program):
        operation.cells.index(geometry)
        pulses = (
            _check_apply(operation, geometry, limits, bounds_current, peaks)
            if isinstance(operation, Apply)
            else _check_program(operation, geometry, limits, bounds_current, peaks)
        )
        _check_life(operation.cells, pulses, limits)
        charge = replace(_beside(operation, geometry, limits), pulses=pulses)
        _check_life(*charge.everywhere, limits)
        return charge
    if isinstance(operation, Multiply):
        _check_multiply(operation, operation, geometry, limits)
    elif isinstance(operation, CodedRead):
        for block in operation.blocks:
            _check_multiply(operation, block, geometry, limits)
        if operation.cell_read is not None:
            # A coded read stresses no cell, whichever way a bench goes.
            step = operation.cell_read
            drop = _check_step(step, operation, geometry, limits, bounds_current)
            if not np.all(drop <= limits.read_v):
                raise LimitError(
                    f"the cell_read of a coded read is above the read limit of {limits.read_v:g} V:"
                    f" {np.max(drop):g} V on a cell, selected or not"
                )
    elif hasattr(operation, "cells"):
        operation.cells.index(geometry)
    elif not operation.seconds <= limits.wait_s:
        raise LimitError(
            f"wait of {operation.seconds:g} s is beyond the limit of {limits.wait_s:g} s",
            line="wait",
            value=operation.seconds,
            allowed=(0.0, limits.wait_s),
        )
    return Charge(Cells.of([]), np.zeros(0, dtype=np.int64))
