"""Multiplication through the cells of a simulated chip: products, read noise, amplifiers, ADC."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Multiply, MultiplyResult, Span
from rram_hil.errors import ConfigError
from rram_hil.simulation import draws
from rram_hil.simulation.cell_array import CellArray, gate_opening
from rram_hil.simulation.wire_drops import block_transfer
from rram_hil.types import FloatArray, IntArray

_AT_ONCE = 8192
_ONE_GRID, _TWO_PARTS = 1 << 23, 1 << 26
"""Largest rows x input code x ADC code of noisy products in single precision."""


@dataclass(frozen=True, eq=False)
class _Block:
    """A block's cells as their columns weigh input codes, in ADC codes: `matrix`, and the variance
    of each by read noise, `spread`; shape (columns, rows). Where `matrix` has twice the columns,
    the products of the second half are to be added to those of the first.
    """

    matrix: NDArray[np.float32] | FloatArray
    spread: NDArray[np.float32] | None = None


def _top(bits: int) -> int:
    """The largest of signed codes."""
    return (1 << (bits - 1)) - 1


def _on_grid(matrix: FloatArray, top: int) -> NDArray[np.float32]:
    """The matrix in steps of a power of two, one a column, for which products with whole numbers up
    to `top` are exact in single precision, whatever the order of their sums.

    Exact are whole numbers up to 2**24 steps; 0.2 % of them is left for what the rounding adds.
    """
    largest = np.abs(matrix).sum(axis=1, keepdims=True) * (1.002 * top)
    steps = np.ldexp(1.0, np.frexp(largest)[1] - 24)
    return np.asarray(np.rint(matrix / steps) * steps, dtype=np.float32)


class Multiplier:
    """Multiplies with the conductances that a chip's cells have at that time."""

    def __init__(self, cells: CellArray) -> None:
        self.cells = cells
        self._wired: tuple[bytes, FloatArray] | None = None
        self._last: tuple[tuple[float | None, ...], FloatArray, _Block] | None = None
        self._draws: dict[int, draws.VectorNoise] = {}

    def begin(self, operation: Multiply) -> Product:
        """Look up the block's cells. Raises `ConfigError` where it is off the chip."""
        geometry = self.cells.geometry
        rows, columns = operation.row + operation.rows, operation.column + operation.columns
        if not (
            0 <= operation.tile < geometry.tiles
            and 0 <= operation.row < rows <= geometry.rows
            and 0 <= operation.column < columns <= geometry.columns
        ):
            raise ConfigError(
                f"multiply: tile {operation.tile}, rows {operation.row}..{rows - 1}, columns"
                f" {operation.column}..{columns - 1} is off the chip of {geometry.shape} (tiles,"
                " rows, columns)"
            )
        tile = operation.tile
        if tile not in self._draws:
            self._draws[tile] = draws.VectorNoise(self.cells.seed, tile)
        return Product(self.cells, operation, self._block(operation), self._draws[tile])

    def _block(self, operation: Multiply) -> _Block:
        """The operation's block; the last one is kept, for inference asks for the same one again
        and again.
        """
        geometry = self.cells.geometry
        rows = operation.tile * geometry.rows + operation.row + np.arange(operation.rows)
        columns = operation.column + np.arange(operation.columns)
        index = np.add.outer(rows * geometry.columns, columns).ravel()
        g = self.cells.conducts(index).reshape(operation.rows, operation.columns)
        key = (
            *(operation.tile, operation.row, operation.column),
            *(operation.input_bits, operation.read_v, operation.full_scale_a),
            *(operation.wl_v, operation.body_v),
        )
        if self._last is None or self._last[0] != key or not np.array_equal(self._last[1], g):
            self._last = (key, g, self._weighed(operation, *self._seen(operation, index, g)))
        return self._last[2]

    def _weighed(self, operation: Multiply, g_s: FloatArray, variance: FloatArray | None) -> _Block:
        """The block of an operation from what `_seen` says of it."""
        top_in, top_out = _top(operation.input_bits), _top(self.cells.simulation.adc_bits)
        codes_per_s = operation.read_v / top_in * top_out / operation.full_scale_a
        matrix = np.ascontiguousarray(g_s.T * codes_per_s)
        if variance is None:
            return _Block(matrix)
        spread = (variance.T * codes_per_s**2).astype(np.float32)
        # Single precision takes half of the time. The grid of few rows is finer than 1/4000 of the
        # mean cell of a column; that of many would shift the mean of many reads.
        size = operation.rows * top_in * top_out
        if size > _TWO_PARTS:
            return _Block(matrix, spread)
        coarse = _on_grid(matrix, top_in)
        if size <= _ONE_GRID:
            return _Block(coarse, spread)
        return _Block(np.concatenate([coarse, _on_grid(matrix - coarse, top_in)]), spread)

    def _seen(
        self, operation: Multiply, index: IntArray, g: FloatArray
    ) -> tuple[FloatArray, FloatArray | None]:
        """Conductances (S) of a block as the columns see them, and the variance of each by read
        noise; shape (rows, columns) as `g`, what its cells conduct.
        """
        cells = self.cells
        simulation, converters = cells.simulation, cells.converters
        variance = None
        if simulation.read_noise:
            mean, variance = (m.reshape(g.shape) for m in cells.read_moments(index, g.ravel()))
            g = mean
        # At virtual ground; cells of an array without gates always conduct.
        lines = np.array(operation.wl_v), np.zeros(()), np.zeros(())
        opened = gate_opening(cells.gate_v(*lines, operation.body_v))
        g = g * opened
        variance = None if variance is None else variance * opened**2
        if converters.access_ohm > 0:
            left = 1 / (1 + g * converters.access_ohm)
            g = g * left
            variance = None if variance is None else variance * left**4
        if simulation.line_ohm > 0:
            transfer = self._transfer(g, operation)
            # dG_eff/dG = (G_eff/G)^2 for a wire in series; how cells share their wires' drops is
            # second order here, but for cells that conduct less than their neighbours leak: of
            # those no wire makes more than there is.
            seen = np.divide(transfer, g, out=np.ones_like(g), where=g > 0)
            variance = None if variance is None else variance * np.clip(seen, 0.0, 1.0) ** 4
            g = transfer
        return g, variance

    def _transfer(self, g: FloatArray, operation: Multiply) -> FloatArray:
        """The block's effective conductances behind its wires; the last one is kept, for a solve
        takes seconds.
        """
        place = (operation.row, operation.column, g.shape)
        key = hashlib.sha256(g.tobytes() + repr(place).encode()).digest()
        if self._wired is None or self._wired[0] != key:
            geometry, line_ohm = self.cells.geometry, self.cells.simulation.line_ohm
            transfer = block_transfer(g, operation.row, operation.column, geometry, line_ohm)
            self._wired = (key, transfer)
        return self._wired[1]


class Product:
    """One multiplication under way, some of its vectors after the other."""

    def __init__(
        self, cells: CellArray, operation: Multiply, block: _Block, noise: draws.VectorNoise
    ) -> None:
        self._cells = cells
        self._operation = operation
        self._top = _top(cells.simulation.adc_bits)
        self._lsb_a = operation.full_scale_a / self._top
        self._block = block
        self._draws = noise
        self._rows = slice(operation.row, operation.row + operation.rows)
        self._columns = slice(operation.column, operation.column + operation.columns)
        # Kept with all vectors of one column together, as the products give them: no transposed
        # copies.
        shape = (operation.columns, int(operation.inputs.shape[0]))
        self._codes = np.empty(shape, dtype=np.int32)
        # Written anew for every few vectors: fresh memory would cost more than the arithmetic.
        width = min(shape[1], _AT_ONCE)
        self._inputs = np.empty((operation.rows, width), dtype=block.matrix.dtype)
        self._products = np.empty((len(block.matrix), width), dtype=block.matrix.dtype)
        self._noises = np.empty((operation.columns, width), dtype=np.float32)
        self._sums = np.zeros(shape, dtype=np.int64) if operation.words else None
        words = cells.state.word.reshape(cells.geometry.shape)
        held = words[operation.tile, self._rows, self._columns]
        self._wordy = np.flatnonzero(held.any(axis=0))
        self._words = np.ascontiguousarray(held[:, self._wordy].T, dtype=np.float64)
        self._saturated = 0

    def take(self, share: slice) -> None:
        """Multiply these vectors."""
        # A few vectors at a time, so that every pass finds them in the processor's cache.
        for start in range(share.start, share.stop, _AT_ONCE):
            self._take(slice(start, min(start + _AT_ONCE, share.stop)))

    def _take(self, share: slice) -> None:
        top, inputs = self._top, self._operation.inputs[share].T
        # Products on a grid, and in double precision, do not depend on how the vectors are split:
        # codes agree to the last bit.
        x = self._inputs[:, : inputs.shape[1]]
        np.copyto(x, inputs)
        products = np.matmul(self._block.matrix, x, out=self._products[:, : x.shape[1]])
        if len(products) > self._operation.columns:
            products, rest = np.split(products, 2)
            products += rest
        if self._sums is not None and self._wordy.size:
            self._sums[self._wordy, share] = self._words @ x
        if self._block.spread is not None:
            np.multiply(x, x, out=x)
            products += self._noise(self._block.spread, x)
        self._amplify(products)
        np.rint(products, out=products)
        if products.size and max(float(products.max()), -float(products.min())) > top:
            self._saturated += int(np.count_nonzero(np.abs(products) > top))
            np.clip(products, -top, top, out=products)
        self._codes[:, share] = products
        self._cells.state.vectors[self._operation.tile] += share.stop - share.start

    def _noise(self, spread: NDArray[np.float32], squares: NDArray[Any]) -> NDArray[np.float32]:
        """Noise of the products of inputs with these squares (rows, vectors): independent Gaussian
        read noise of the cells, summed.
        """
        squares = squares.astype(np.float32, copy=False)
        noise = np.matmul(spread, squares, out=self._noises[:, : squares.shape[1]])
        np.sqrt(noise, out=noise)
        first = int(self._cells.state.vectors[self._operation.tile])
        noise *= self._draws.draw(self._columns, first, squares.shape[1])
        return noise

    def _amplify(self, products: FloatArray) -> None:
        """Gain and offset errors of the column amplifiers on codes of shape (columns, vectors)."""
        converters = self._cells.converters
        if converters.column_gain is not None:
            products *= 1 + converters.column_gain[self._columns, None]
        if converters.column_offset is not None:
            products += self._top * converters.column_offset[self._columns, None]

    def result(self, span: Span) -> MultiplyResult:
        """All codes, once all vectors have been taken."""
        sums = None if self._sums is None else self._sums.T
        return MultiplyResult(self._codes.T, self._lsb_a, sums, self._saturated, span=span)
