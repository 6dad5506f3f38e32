"""Reading a block of cells at once: orthogonal codes on its rows, the columns' currents decoded.

A Hadamard matrix H of order m has entries of 1 and -1, and H^T H = m. Vector j of a code puts
V s_r H[j, p_r] on row r of the block, with the places p of `row_places` and the signs s of
`row_signs`; from the currents I of one column

    G_r = s_r / (m V) sum over j of H[j, p_r] I_j

so that every cell is measured m times and the noise of a vector is divided by sqrt(m). Column 0 of
H, all ones, belongs to no row: the offset of an amplifier falls there and on no cell. Nor do others
between the rows' places: what is decoded there would be zero without noise, and their mean square
is the variance of every cell of that column, whatever makes the noise: reads, telegraph steps,
rounding (but `held_back_s`). The signs keep the currents of all vectors alike and near sqrt(rows)
of a cell's, also where all cells conduct the same, so that one ADC range serves them; it is chosen
from a few vectors first.

Coded verify: HARP, arXiv 2604.12420. Matrices: Sylvester's doubling and Paley's first construction
(quadratic residues). The host and the simulated board both use this.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.array.operations import Block, CodedRead, Multiply, Span, Status
from rram_hil.array.results import CodedReadResult, MultiplyResult
from rram_hil.types import FloatArray, StatusArray

SPARE = 16
"""Columns of the code that belong to no row, at least: so many degrees of freedom has sigma."""
PILOTS = 8
"""Vectors from which the ADC's range is chosen."""
ROOM = 5.0
"""The range leaves room for so many standard deviations of the largest column's currents."""
LEAST_RANGE_A = 1e-9
_FIRST_S = 100e-6
_MOST_TRIES = 16


def code_order(rows: int) -> int:
    """Order of the code for a block of so many rows: the smallest that leaves `SPARE` + 1 columns
    free, of the form 2^k or 2^k (q + 1), q a prime with q mod 4 = 3.
    """
    order = 4 * math.ceil((rows + 1 + SPARE) / 4)
    while _core(order) is None:
        order += 4
    return order


def _core(order: int) -> int | None:
    """The q of Paley's matrix that, doubled, has this order; 0 for a power of two, None for
    neither.
    """
    while order > 2:
        if order % 4 == 0 and _is_prime(order - 1):
            return order - 1
        if order % 2:
            return None
        order //= 2
    return 0


def _is_prime(q: int) -> bool:
    return q > 2 and all(q % d for d in range(2, math.isqrt(q) + 1))


@lru_cache(maxsize=8)
def hadamard(order: int) -> NDArray[np.int8]:
    """A Hadamard matrix of an order that `code_order` gives; its column 0 is all ones."""
    q = _core(order)
    assert q is not None
    if q == 0:
        matrix = np.ones((1, 1), dtype=np.int8)
    else:
        residues = np.full(q, -1, dtype=np.int8)
        residues[np.arange(1, q, dtype=np.int64) ** 2 % q] = 1
        residues[0] = 0
        # Rows below the first with their signs turned: then the first column is all ones.
        matrix = np.ones((q + 1, q + 1), dtype=np.int8)
        matrix[1:, 1:] = -residues[(np.arange(q) - np.arange(q)[:, None]) % q] - np.eye(
            q, dtype=np.int8
        )
    while len(matrix) < order:
        # Each column beside its twin: half a matrix has some of both.
        matrix = np.kron(matrix, np.array([[1, 1], [1, -1]], dtype=np.int8))
    matrix.flags.writeable = False
    return matrix


def row_signs(rows: int) -> NDArray[np.int8]:
    """1 or -1 a row: in which half of its turn a phase is that grows with the square of the row.

    No code adds up such signs: currents of equal cells stay below 4 sqrt(rows) of one cell's, up to
    512 rows.
    """
    turns = np.square(np.arange(1, rows + 1)) * ((math.sqrt(5) - 1) / 2)
    return np.where(turns % 1 < 0.5, 1, -1).astype(np.int8)


def row_places(rows: int) -> NDArray[np.int64]:
    """Columns of the matrix that belong to the rows: the first ones; spread over the matrix where
    they would leave half of it free.

    A few first columns let vectors come twice, and their rounding with them, which then is no
    noise.
    """
    order = code_order(rows)
    last = rows if 2 * rows >= order else order - 1
    return np.linspace(1, last, rows).astype(np.int64)


def code(rows: int) -> NDArray[np.int8]:
    """The code of a block: 1 or -1 on each row, shape (vectors, rows)."""
    matrix = hadamard(code_order(rows))
    signed: NDArray[np.int8] = matrix[:, row_places(rows)] * row_signs(rows)
    return signed


def decode(currents_a: FloatArray, rows: int, read_v: float) -> tuple[FloatArray, FloatArray]:
    """Conductances (S, shape (rows, columns)) and the standard deviation of those of each column
    (S, shape (columns,)), from the currents of a code (A, shape (vectors, columns)).
    """
    matrix = hadamard(code_order(rows)).astype(np.float64)
    found = matrix.T @ (currents_a / (len(matrix) * read_v))
    places = row_places(rows)
    spare = np.delete(found, [0, *places], axis=0)
    conductance = found[places] * row_signs(rows)[:, None]
    return conductance, np.sqrt(np.mean(np.square(spare), axis=0))


def held_back_s(
    conductance_s: FloatArray, sigma_s: FloatArray, step_s: float, roundings: int = 1
) -> FloatArray:
    """What rounding may take from every cell alike and no spare place shows (S, standard deviation,
    shape (columns,)), of decoded conductances and their columns' scatter.

    A step of the ADC is `step_s` of one cell; a code is the sum of so many `roundings`. What shakes
    a cell's current by half a step or more from vector to vector makes of rounding a noise, which
    the spare places show: read noise, or the other cells. A cell has but two currents, so each
    other one leaves half of the mean square, and all of it where those lie whole steps apart. So
    this is the whole rounding error of a single cell without noise, and nothing with a dozen rows
    or with noise of half a step. (At noise s the mean of a rounding error is
    exp(-2 (pi s)^2) sin(2 pi x) / pi: Gray and Stockham, IEEE Trans. Inf. Theory 39, 805 (1993).)
    """
    vectors = code_order(len(conductance_s))
    whole = roundings / 12
    shaken = np.maximum(vectors * np.square(sigma_s / step_s) - whole, 0.0)
    turns = np.pi * conductance_s / step_s
    most = np.maximum((1 + np.exp(-8 * np.square(turns))) / 2, np.square(np.cos(2 * turns)))
    others = np.prod(most, axis=0)
    # One of the cells is the one that is asked for: it does not shake itself.
    left = np.minimum(2 * others, 1.0) * np.exp(-4 * np.pi**2 * shaken)
    return np.asarray(step_s * np.sqrt(whole * left))


@dataclass(frozen=True, eq=False)
class BlockReading:
    """What the codes of one block gave: conductances (S, shape (rows, columns)), the standard
    uncertainty of those of each column (S), status of the same shape as the conductances, the ADC's
    range (A), the vectors that it took, how many of the decoded ADC codes were clipped, and when it
    ran.
    """

    conductance_s: FloatArray
    sigma_s: FloatArray
    status: StatusArray
    full_scale_a: float
    vectors: int
    saturated: int
    span: Span


def coded_result(
    readings: Sequence[BlockReading], way: Literal["board", "multiply"], span: Span
) -> CodedReadResult:
    """The result of a coded read from those of its blocks."""

    def join(columns: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *(c.ravel() for c in columns)])

    return CodedReadResult(
        join(r.conductance_s for r in readings),
        join(np.tile(r.sigma_s, len(r.conductance_s)) for r in readings),
        join(r.status for r in readings).astype(np.uint8),
        np.array([r.full_scale_a for r in readings], dtype=np.float64),
        sum(r.vectors for r in readings),
        way=way,
        span=span,
        saturated=sum(r.saturated for r in readings),
    )


@dataclass(frozen=True)
class Inputs:
    """What a bench's multiply takes and tells: bits of an input and of the ADC, and whether inputs
    may be negative.
    """

    bits: int
    adc_bits: int
    signed: bool = True


def read_block(
    operation: CodedRead, block: Block, inputs: Inputs
) -> Generator[Multiply, Any, BlockReading]:
    """Yield the multiplies that read one block of `operation`: a few to find the range, then the
    code; again in a wider range, should a code have saturated all the same.
    """
    signs = code(block.rows)
    top = (1 << (min(inputs.bits, 8) - 1)) - 1
    whole = Multiply(
        block.tile,
        block.row,
        block.column,
        block.columns,
        signs.astype(np.int16) * np.int16(top),
        min(inputs.bits, 8),
        operation.read_v,
        operation.wl_v,
        operation.read_v * _FIRST_S * math.sqrt(2 * block.rows),
        label=operation.label,
        body_v=operation.body_v,
        unselected_wl_v=operation.unselected_wl_v,
    )
    vectors, spans = 0, []
    pilots = np.linspace(0, len(signs), PILOTS, endpoint=False, dtype=np.int64)
    pilot = replace(whole, inputs=whole.inputs[pilots])
    for _ in range(_MOST_TRIES):
        answer = yield from _multiplied(pilot, inputs)
        vectors += answer.vectors
        spans.append(answer.span)
        wanted = answer.range_a(inputs)
        if answer.saturated:
            wanted = 8 * pilot.full_scale_a
        near = not answer.saturated and wanted >= pilot.full_scale_a / 8
        if near or wanted <= LEAST_RANGE_A:
            break
        pilot = replace(pilot, full_scale_a=max(wanted, LEAST_RANGE_A))
    code_read = replace(whole, full_scale_a=max(wanted, LEAST_RANGE_A))
    sums, scatter = np.zeros((len(signs), block.columns)), np.zeros(block.columns)
    widened, saturated = 0, 0
    for _ in range(operation.repeat):
        while True:
            answer = yield from _multiplied(code_read, inputs)
            vectors += answer.vectors
            spans.append(answer.span)
            if not answer.saturated or widened == _MOST_TRIES:
                break
            widened += 1
            code_read = replace(code_read, full_scale_a=2 * code_read.full_scale_a)
        sums += answer.currents_a
        saturated += answer.saturated
        scatter += np.square(decode(answer.currents_a, block.rows, operation.read_v)[1])
    conductance, sigma = decode(sums / operation.repeat, block.rows, operation.read_v)
    step_s = code_read.full_scale_a / ((1 << (inputs.adc_bits - 1)) - 1) / operation.read_v
    held_back = held_back_s(
        conductance, np.sqrt(scatter / operation.repeat), step_s, 1 if inputs.signed else 2
    )
    bad = np.uint8(Status.OVER_RANGE if saturated else Status.OK)
    return BlockReading(
        conductance,
        np.hypot(sigma, held_back),
        np.full(conductance.shape, bad, dtype=np.uint8),
        code_read.full_scale_a,
        vectors,
        saturated,
        Span(spans[0].started_s, spans[-1].ended_s),
    )


@dataclass(frozen=True, eq=False)
class _Answer:
    """Currents of signed inputs (A, shape (vectors, columns)) and how their ADC codes lay."""

    currents_a: FloatArray
    codes: NDArray[np.int32]
    lsb_a: float
    saturated: int
    span: Span

    @property
    def vectors(self) -> int:
        return len(self.codes)

    def range_a(self, inputs: Inputs) -> float:
        """The full scale that leaves room for what these vectors let expect, at least two steps of
        their own range.
        """
        told = self.codes.astype(np.float64)
        # Positive and negative halves of unsigned inputs have a mean; they are alike otherwise.
        mean, spread = told.mean(axis=0), told.std(axis=0)
        expected = (
            np.abs(mean) + ROOM * spread
            if not inputs.signed
            else ROOM * np.sqrt(np.mean(np.square(told), axis=0))
        )
        most = max(float(expected.max(initial=0.0)), float(np.abs(told).max(initial=0.0)) + 1, 2.0)
        return most * self.lsb_a


def _multiplied(operation: Multiply, inputs: Inputs) -> Generator[Multiply, Any, _Answer]:
    if inputs.signed:
        answer: MultiplyResult = yield operation
        currents = answer.codes * np.float64(answer.lsb_a)
        return _Answer(currents, answer.codes, answer.lsb_a, answer.saturated, answer.span)
    halves = np.concatenate((np.maximum(operation.inputs, 0), np.maximum(-operation.inputs, 0)))
    answer = yield replace(operation, inputs=halves)
    positive, negative = np.split(answer.codes, 2)
    currents = (positive - negative) * np.float64(answer.lsb_a)
    return _Answer(currents, answer.codes, answer.lsb_a, answer.saturated, answer.span)


def unsigned_halves(operation: Multiply) -> Generator[Multiply, Any, MultiplyResult]:
    """A multiply by what takes no negative inputs: positive and negative parts one after the other,
    codes and words' sums subtracted.
    """
    answer: MultiplyResult = yield replace(operation, inputs=np.maximum(operation.inputs, 0))
    if not (operation.inputs < 0).any():
        return answer
    other: MultiplyResult = yield replace(operation, inputs=np.maximum(-operation.inputs, 0))
    sums = (
        None
        if answer.word_sums is None or other.word_sums is None
        else answer.word_sums - other.word_sums
    )
    return replace(
        answer,
        codes=answer.codes - other.codes,
        word_sums=sums,
        saturated=answer.saturated + other.saturated,
        span=replace(answer.span, ended_s=other.span.ended_s),
    )


def in_blocks(blocks: tuple[Block, ...], cells_per_part: int) -> list[slice]:
    """Consecutive blocks in parts of at most so many cells; a larger block stands alone."""
    parts, first, size = [], 0, 0
    for k, block in enumerate(blocks):
        if k > first and size + block.size > cells_per_part:
            parts.append(slice(first, k))
            first, size = k, 0
        size += block.size
    return [*parts, slice(first, len(blocks))]
