"""What a bench cannot do natively, done by what it can: operations turned into generators of native
operations.

Batches are cut to the hardware's sizes, long step lists to its step count (a cell that met its stop
condition takes no further part), write-verify is driven from the host, a multiply without one is
put together from single reads, and codes are multiplied from the host or their cells read singly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    LINES,
    Apply,
    ApplyResult,
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
    Step,
    WordsResult,
    WriteWords,
)
from rram_hil.array import Span as TimeSpan
from rram_hil.array.coded_read import (
    Inputs,
    coded_result,
    in_blocks,
    read_block,
    unsigned_halves,
)
from rram_hil.array.write_verify_rules import Polarity, WriteVerify, coded_verify
from rram_hil.errors import ConfigError, DataError
from rram_hil.hardware.driver import Capabilities, Span, check_extras
from rram_hil.types import FloatArray, IntArray

T = TypeVar("T")
Lowered = Generator[Operation, Any, T]


Freed = Callable[[CodedRead, CodedReadResult], CodedReadResult]
"""Frees a map that the host decoded of its wires, which a calibration knows only as a whole."""


def _as_it_is(_: CodedRead, result: CodedReadResult) -> CodedReadResult:
    return result


def lower(
    operation: Operation, can: Capabilities, limits: Limits, freed: Freed = _as_it_is
) -> Lowered[Result]:
    """Yield native operations that amount to `operation`, and return its result; each map that the
    host decodes from multiplies goes through `freed` first.

    Raises `ConfigError` naming the capability that is missing, before anything is yielded.
    """
    check_available(operation, can, limits)
    if isinstance(operation, Apply):
        return _with_gates((yield from _apply(operation, can)), operation)
    if isinstance(operation, Program):
        return (yield from _program(operation, can, freed))
    if isinstance(operation, Multiply):
        return (yield from _multiply(operation, can))
    if isinstance(operation, CodedRead):
        return (yield from _coded_read(operation, can, freed))
    if isinstance(operation, WriteWords):
        return (yield from _words(operation, can))
    return (yield from operation)


def check_available(operation: Operation, can: Capabilities, limits: Limits) -> None:
    """Raise `ConfigError` naming the capability that an operation on cells lacks on this bench."""
    if isinstance(operation, Apply) and len(operation.cells):
        _check_batch(operation, operation.steps, can)
        for step in () if can.bias_current else operation.steps:
            if step.measure == "current" and np.any(
                np.abs(step.cell_v(len(operation.cells))) > limits.read_v
            ):
                raise ConfigError(
                    f"a current measured above the read limit of {limits.read_v:g} V is not"
                    " available on this bench; read after the pulse instead"
                )
    elif isinstance(operation, Program) and len(operation.cells):
        _check_batch(operation, (operation.read, *operation.extremes()), can)
        if operation.verify == "coded" and not can.multiply:
            raise ConfigError(
                "coded verify needs a multiply, which is not available on this bench; use verify ="
                ' "single"'
            )
    elif isinstance(operation, Multiply | CodedRead):
        check_extras(operation, can)


def _refuse_outside(name: str, low: float, high: float, span: Span, unit: str) -> None:
    if not span.holds(low, high):
        asked = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise ConfigError(
            f"{name} of {asked} {unit} is not available on this bench; "
            f"it has {span.low:g} to {span.high:g} {unit}"
        )


def _check_step(step: Step, n: int, can: Capabilities) -> None:
    for line, span in (("bl", can.bl_v), ("sl", can.sl_v), ("wl", can.wl_v)):
        levels = step.levels(line, n)  # type: ignore[arg-type]
        if levels is not None and n:
            _refuse_outside(f"{line.upper()}", float(levels.min()), float(levels.max()), span, "V")
    _refuse_outside("a width", step.width_s, step.width_s, can.width_s, "s")
    if step.measure == "gate" and not can.gate_current:
        raise ConfigError("gate current is not measured by this bench")


def _check_batch(operation: Apply | Program, steps: tuple[Step, ...], can: Capabilities) -> None:
    check_extras(operation, can)
    for step in steps:
        _check_step(step, len(operation.cells), can)
    if operation.unselected not in can.schemes:
        names = ", ".join(sorted(can.schemes))
        raise ConfigError(
            f"unselected lines {operation.unselected.value!r} are not available on this bench; it"
            f" has {names}"
        )
    if operation.compliance_a is not None and not can.compliance:
        raise ConfigError(
            "a compliance current is not available on this bench; in a 1T1R array the gate limits"
            " the current"
        )


def _apply(operation: Apply, can: Capabilities) -> Lowered[ApplyResult]:
    n = len(operation.cells)
    if n == 0:
        return _spread(None, np.zeros(0, dtype=np.int64), 0, operation.measurements)
    _check_batch(operation, operation.steps, can)
    parts: list[tuple[IntArray, ApplyResult]] = []
    for group in [np.arange(n)] if can.per_cell_bias else _of_one_bias(operation):
        for first in range(0, group.size, can.max_cells):
            at = group[first : first + can.max_cells]
            parts.append(
                (at, (yield from _steps(operation if at.size == n else operation.part(at), can)))
            )
    return parts[0][1] if len(parts) == 1 else _scattered(parts, n)


def _of_one_bias(operation: Apply) -> list[IntArray]:
    """Positions of the cells that take the same volts in every step, group by group."""
    n = len(operation.cells)
    levels = [step.levels(line, n) for step in operation.steps for line in LINES]
    driven = [volts for volts in levels if volts is not None]
    if not driven:
        return [np.arange(n)]
    _, group = np.unique(np.stack(driven, axis=1), axis=0, return_inverse=True)
    return [np.flatnonzero(group.ravel() == g) for g in range(int(group.max()) + 1)]


def _steps(operation: Apply, can: Capabilities) -> Lowered[ApplyResult]:
    """One batch of cells; the step list cut where the hardware takes fewer steps at once."""
    if len(operation.steps) * operation.repeat <= can.max_steps:
        return (yield from operation)
    flat = operation.steps * operation.repeat
    n = len(operation.cells)
    running = np.ones(n, dtype=bool)
    columns: list[ApplyResult] = []
    for first in range(0, len(flat), can.max_steps):
        steps = flat[first : first + can.max_steps]
        here = np.flatnonzero(running)
        measures = any(s.measure == "current" for s in steps)
        stop = operation.stop if measures else None
        chunk = replace(operation, steps=steps, repeat=1, stop=stop).part(here)
        result = (yield from chunk) if here.size else None
        columns.append(_spread(result, here, n, chunk.measurements))
        if result is not None and result.interrupted:
            # What ran is unknown, so nothing further may be assumed: the rest of the steps is not
            # run.
            rest = operation.measurements - sum(c.status.shape[1] for c in columns)
            columns.append(
                replace(_spread(None, here[:0], n, rest), interrupted=True, away_s=result.away_s)
            )
            break
        if result is not None and stop is not None:
            running[here[met(result, chunk)]] = False
    return _in_a_row(columns)


def met(result: ApplyResult, operation: Apply) -> NDArray[np.bool_]:
    """Which cells met the stop condition of an `Apply`, shape (n,); a current over range counts as
    high.
    """
    n, m = result.status.shape
    stop = operation.stop
    if stop is None or m == 0:
        return np.zeros(n, dtype=bool)
    usable = (result.status == Status.OK) | (result.status == Status.COMPLIANCE)
    hit = np.zeros((n, m), dtype=bool)
    if stop.above_s is not None:
        above = np.broadcast_to(stop.above_s, (n,))[:, None]
        hit |= (usable & (result.conductance_s >= above)) | (result.status == Status.OVER_RANGE)
    if stop.below_s is not None:
        hit |= usable & (result.conductance_s <= np.broadcast_to(stop.below_s, (n,))[:, None])
    current = np.tile(
        [s.measure == "current" for s in operation.steps if s.measure != "no"], operation.repeat
    )
    return np.asarray(hit[:, current].any(axis=1))


def _spread(result: ApplyResult | None, here: IntArray, n: int, m: int) -> ApplyResult:
    """A result of some cells as rows of a result of `n`, the others NOT_RUN."""
    current, conductance, time = (np.full((n, m), np.nan) for _ in range(3))
    status = np.full((n, m), Status.NOT_RUN, dtype=np.uint8)
    pulses, reads = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    whole = ApplyResult(current, conductance, status, time, pulses, reads)
    if result is None:
        return whole
    if result.gate_a is not None:
        whole = replace(whole, gate_a=np.full((n, m), np.nan))
    _fill(whole, here, result)
    return replace(whole, span=result.span, interrupted=result.interrupted, away_s=result.away_s)


def _fill(whole: ApplyResult, at: IntArray, part: ApplyResult) -> None:
    """Put a result of some cells into their rows of another."""
    for name in ("current_a", "conductance_s", "status", "time_s", "pulses", "reads", "gate_a"):
        values = getattr(part, name)
        if values is not None:
            getattr(whole, name)[at] = values


def _scattered(parts: list[tuple[IntArray, ApplyResult]], n: int) -> ApplyResult:
    """Results of parts of a batch of `n` cells, each with its positions, as one."""
    whole = _spread(None, parts[0][0][:0], n, parts[0][1].status.shape[1])
    if any(part.gate_a is not None for _, part in parts):
        whole = replace(whole, gate_a=np.full(whole.status.shape, np.nan))
    for at, part in parts:
        _fill(whole, at, part)
    return _summed(whole, [part for _, part in parts])


def _in_a_row(parts: list[ApplyResult]) -> ApplyResult:
    """Results of consecutive steps of the same cells as one."""
    whole = ApplyResult(
        current_a=np.concatenate([p.current_a for p in parts], axis=1),
        conductance_s=np.concatenate([p.conductance_s for p in parts], axis=1),
        status=np.concatenate([p.status for p in parts], axis=1),
        time_s=np.concatenate([p.time_s for p in parts], axis=1),
        pulses=np.sum([p.pulses for p in parts], axis=0),
        reads=np.sum([p.reads for p in parts], axis=0),
        gate_a=_gates_in_a_row(parts),
    )
    return _summed(whole, parts)


def _with_gates(result: ApplyResult, operation: Apply) -> ApplyResult:
    """Gate currents that were asked for where no step ran that measures them."""
    if result.gate_a is not None or not operation.also_gate:
        return result
    return replace(result, gate_a=np.full(result.status.shape, np.nan))


def _gates_in_a_row(parts: list[ApplyResult]) -> FloatArray | None:
    if all(p.gate_a is None for p in parts):
        return None
    nothing = [np.full(p.status.shape, np.nan) if p.gate_a is None else p.gate_a for p in parts]
    return np.concatenate(nothing, axis=1)


def _summed(whole: ApplyResult, parts: list[ApplyResult]) -> ApplyResult:
    ran = [p for p in parts if p.span.ended_s > 0] or parts
    return replace(
        whole,
        span=TimeSpan(ran[0].span.started_s, max(p.span.ended_s for p in ran)),
        interrupted=any(p.interrupted for p in parts),
        away_s=max(p.away_s for p in parts),
    )


def _program(operation: Program, can: Capabilities, freed: Freed) -> Lowered[ProgramResult]:
    on_board = can.program and (operation.verify == "single" or can.coded_read)
    if operation.on_board == "required" and not on_board:
        raise ConfigError(
            "on-board programming is required by this recipe and is not available on this bench"
        )
    # The whole reach of the ramps: a host-driven one must not be refused half way.
    _check_batch(operation, (operation.read, *operation.extremes()), can)
    native = on_board and operation.on_board != "never"
    parts: list[ProgramResult] = []
    for first in range(0, max(len(operation.cells), 1), can.max_cells):
        part = operation.part(slice(first, first + can.max_cells))
        parts.append((yield from part if native else _program_from_host(part, can, freed)))
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(p, name) for p in parts])

    return ProgramResult(
        conductance_s=join("conductance_s"),
        status=join("status"),
        inside=join("inside"),
        set_pulses=join("set_pulses"),
        reset_pulses=join("reset_pulses"),
        reads=join("reads"),
        span=TimeSpan(parts[0].span.started_s, parts[-1].span.ended_s),
        interrupted=any(p.interrupted for p in parts),
        away_s=max(p.away_s for p in parts),
        vectors=sum(p.vectors for p in parts),
    )


def _program_from_host(
    operation: Program, can: Capabilities, freed: Freed
) -> Lowered[ProgramResult]:
    """Write-verify driven from the host: one read and at most two pulse operations a round, over
    the whole batch.
    """
    verify = WriteVerify(operation)
    started = ended = None
    interrupted, away_s, vectors = False, 0.0, 0

    def note(result: ApplyResult) -> ApplyResult:
        nonlocal started, ended, interrupted, away_s
        started = result.span.started_s if started is None else started
        ended = result.span.ended_s
        interrupted, away_s = interrupted or result.interrupted, max(away_s, result.away_s)
        return result

    while (at := verify.reading()).size:
        if operation.verify == "coded":
            reading = coded_verify(operation, at)
            coded = yield from _coded_read(reading, can, freed)
            vectors += coded.vectors
            started = coded.span.started_s if started is None else started
            ended = coded.span.ended_s
            ended = coded.span.ended_s
            place = reading.cells.places_of(operation.cells[at])
            verify.take(at, coded.conductance_s[place], coded.status[place])
            yield from _pulses_due(operation, verify, can, note)
            continue
        cells = operation.cells[at]
        single = Apply(
            cells,
            (operation.read.part(at),),
            operation.unselected,
            operation.compliance_a,
            label=operation.label,
        )
        result = note((yield from _apply(single, can)))
        if not result.interrupted:
            verify.take(at, result.last_s, result.last_status)
        yield from _pulses_due(operation, verify, can, note)
    return replace(
        verify.result(TimeSpan(started or 0.0, ended or 0.0)),
        interrupted=interrupted,
        away_s=away_s,
        vectors=vectors,
    )


def _pulses_due(
    operation: Program,
    verify: WriteVerify,
    can: Capabilities,
    note: Callable[[ApplyResult], ApplyResult],
) -> Lowered[None]:
    """Give the pulses of one round, polarity by polarity."""
    polarities: tuple[Polarity, Polarity] = (1, -1)
    for polarity in polarities:
        due, step = verify.pulses(polarity)
        if due.size:
            pulse = Apply(
                operation.cells[due],
                (step,),
                operation.unselected,
                operation.compliance_a,
                label=operation.label,
            )
            given = note((yield from _apply(pulse, can)))
            # Cells that an interrupted batch did not reach have spent nothing; all are read
            # before anything else.
            reached = given.pulses > 0 if given.interrupted else np.ones(due.size, dtype=bool)
            verify.given(due[reached], polarity)
            verify.missed(due[~reached])


def _multiply(operation: Multiply, can: Capabilities) -> Lowered[MultiplyResult]:
    if operation.words and not can.words:
        raise ConfigError(
            "on-chip words are not available on this bench; multiply with words=False and add them"
            " on the host"
        )
    if not can.multiply:
        if operation.words:
            raise ConfigError(
                "on-chip words need a native multiply, which is not available on this bench"
            )
        return (yield from _multiply_from_reads(operation, can))
    if operation.input_bits > can.input_bits:
        raise ConfigError(
            f"{operation.input_bits}-bit inputs are not available on this bench; it has"
            f" {can.input_bits} bits"
        )
    if not can.signed_inputs and (operation.inputs < 0).any():
        return (yield from _answered(unsigned_halves(operation), can))
    parts: list[MultiplyResult] = []
    for first in range(0, max(len(operation.inputs), 1), can.max_vectors):
        parts.append((yield from operation.part(slice(first, first + can.max_vectors))))
    if len(parts) == 1:
        return parts[0]
    sums = [p.word_sums for p in parts if p.word_sums is not None]
    return MultiplyResult(
        np.concatenate([p.codes for p in parts]),
        parts[0].lsb_a,
        np.concatenate(sums) if sums else None,
        sum(p.saturated for p in parts),
        any(p.emulated for p in parts),
        TimeSpan(parts[0].span.started_s, parts[-1].span.ended_s),
    )


def _answered(work: Generator[Multiply, Any, T], can: Capabilities) -> Lowered[T]:
    """Run a generator of multiplies, each lowered in its turn."""
    try:
        asked = next(work)
        while True:
            asked = work.send((yield from _multiply(asked, can)))
    except StopIteration as done:
        value: T = done.value
        return value


def _coded_read(operation: CodedRead, can: Capabilities, freed: Freed) -> Lowered[CodedReadResult]:
    if not can.multiply:
        return (yield from _read_singly(operation, can))
    parts: list[CodedReadResult] = []
    if can.coded_read and all(b.size <= can.max_coded_cells for b in operation.blocks):
        for which in in_blocks(operation.blocks, can.max_coded_cells):
            parts.append((yield from operation.part(which)))
        return _together(parts)
    inputs = Inputs(can.input_bits, can.adc_bits, can.signed_inputs)
    readings = []
    for block in operation.blocks:
        readings.append((yield from _answered(read_block(operation, block, inputs), can)))
    ends = [r.span for r in readings] or [TimeSpan()]
    span = TimeSpan(ends[0].started_s, ends[-1].ended_s)
    return freed(operation, coded_result(readings, "multiply", span))


def _together(parts: list[CodedReadResult]) -> CodedReadResult:
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *(getattr(p, name) for p in parts)])

    return CodedReadResult(
        join("conductance_s"),
        join("sigma_s"),
        join("status").astype(np.uint8),
        join("full_scale_a"),
        sum(p.vectors for p in parts),
        way=parts[0].way if parts else "board",
        span=TimeSpan(parts[0].span.started_s, parts[-1].span.ended_s) if parts else TimeSpan(),
        saturated=sum(p.saturated for p in parts),
    )


def _read_singly(operation: CodedRead, can: Capabilities) -> Lowered[CodedReadResult]:
    """Cell by cell, where the operation says how. What the instruments state, taken for evenly
    spread within its bounds, is in sigma: readings that all round alike do not scatter.
    """
    if operation.cell_read is None:
        raise ConfigError(
            "a coded read needs a multiply, which is not available on this bench; read cell by cell"
            " instead"
        )
    single = Apply(
        operation.cells, (operation.cell_read,), repeat=operation.repeat, label=operation.label
    )
    result = yield from _apply(single, can)
    mean = result.mean_s
    floor_s = can.read_floor_a / operation.read_v
    stated = (can.read_fraction * np.abs(mean) + floor_s) / math.sqrt(3)
    return CodedReadResult(
        mean,
        np.hypot(result.mean_error_s, stated),
        np.where(np.isnan(mean), result.last_status, np.uint8(Status.OK)),
        np.full(len(operation.blocks), np.nan),
        0,
        int(result.reads.sum()),
        "cells",
        result.span,
    )


def _multiply_from_reads(operation: Multiply, can: Capabilities) -> Lowered[MultiplyResult]:
    """Read every cell of the block once and multiply on the host, with the codes that a
    `can.adc_bits` ADC would give.
    """
    # Shorter steps of a bench with a pulse generator are the generator's, which reads nothing.
    width_s = max(can.width_s.low, can.timing.get("sources_from_s", 0.0), 1e-6)
    levels = operation.body_v, operation.unselected_wl_v
    step = Step(operation.read_v, 0.0, operation.wl_v, width_s, "current", *levels)
    result = yield from _apply(Apply(operation.cells, (step,), label=operation.label), can)
    if np.any(result.last_status != Status.OK):
        bad = int(np.argmax(result.last_status != Status.OK))
        raise DataError(
            f"emulated multiply: cell {operation.cells.address(bad)} has no usable reading "
            f"({Status(int(result.last_status[bad])).name.lower()})"
        )
    conductance: FloatArray = result.last_s.reshape(operation.rows, operation.columns)
    volts = operation.inputs * (operation.read_v / ((1 << (operation.input_bits - 1)) - 1))
    top = (1 << (can.adc_bits - 1)) - 1
    lsb_a = operation.full_scale_a / top
    exact = np.rint(volts @ conductance / lsb_a)
    codes = np.clip(exact, -top, top).astype(np.int32)
    return MultiplyResult(codes, lsb_a, None, int(np.sum(np.abs(exact) > top)), True, result.span)


def _words(operation: WriteWords, can: Capabilities) -> Lowered[WordsResult]:
    top = (1 << (can.word_bits - 1)) - 1
    if len(operation.cells) > can.words:
        raise ConfigError(
            f"{len(operation.cells)} on-chip words are more than the {can.words} of this bench"
        )
    if np.any(np.abs(operation.values.astype(np.int64)) > top):
        raise ConfigError(
            f"on-chip words of this bench have {can.word_bits} bits: values must lie in"
            f" -{top}..{top}"
        )
    written, spans = 0, []
    for first in range(0, max(len(operation.cells), 1), can.max_words):
        result = yield from operation.part(slice(first, first + can.max_words))
        written += result.written
        spans.append(result.span)
    return WordsResult(written, TimeSpan(spans[0].started_s, spans[-1].ended_s))
