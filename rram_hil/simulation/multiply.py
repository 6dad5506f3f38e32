"""Multiplication through the cells of a simulated chip: products, read noise, amplifiers, ADC."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Multiply, MultiplyResult, Span
from rram_hil.errors import ConfigError
from rram_hil.simulation import draws
from rram_hil.simulation.cell_array import CellArray, gate_opening
from rram_hil.simulation.wire_drops import block_transfer
from rram_hil.types import FloatArray

_AT_ONCE = 8192


class Multiplier:
    """Multiplies with the conductances that a chip's cells have at that time."""

    def __init__(self, cells: CellArray) -> None:
        self.cells = cells
        self._wired: tuple[bytes, FloatArray] | None = None

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
        return Product(self.cells, operation, *self._block(operation))

    def _block(self, operation: Multiply) -> tuple[FloatArray, FloatArray | None]:
        """Conductances (S) of a block as the columns see them, and the variance of each by read
        noise; shape (rows, columns).
        """
        cells = self.cells
        simulation, converters = cells.simulation, cells.converters
        geometry = cells.geometry
        rows = operation.tile * geometry.rows + operation.row + np.arange(operation.rows)
        columns = operation.column + np.arange(operation.columns)
        index = np.add.outer(rows * geometry.columns, columns).ravel()
        g = cells.conducts(index).reshape(operation.rows, operation.columns)
        variance = None
        if simulation.read_noise:
            mean, variance = (m.reshape(g.shape) for m in cells.read_moments(index, g.ravel()))
            g = mean
        # At virtual ground; cells of an array without gates always conduct.
        opened = gate_opening(cells.gate_v(np.array(operation.wl_v), np.zeros(())))
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
    """One multiplication under way, some of its vectors after the other.

    `g_s` and `variance` are those of the block's cells, shape (rows, columns).
    """

    def __init__(
        self, cells: CellArray, operation: Multiply, g_s: FloatArray, variance: FloatArray | None
    ) -> None:
        self._cells = cells
        self._operation = operation
        self._top = (1 << (cells.simulation.adc_bits - 1)) - 1
        self._lsb_a = operation.full_scale_a / self._top
        volts = operation.read_v / ((1 << (operation.input_bits - 1)) - 1)
        self._matrix = np.ascontiguousarray(g_s.T * (volts / self._lsb_a))
        self._spread = (
            None
            if variance is None
            else (variance.T * (volts / self._lsb_a) ** 2).astype(np.float32)
        )
        self._rows = slice(operation.row, operation.row + operation.rows)
        self._columns = slice(operation.column, operation.column + operation.columns)
        # Kept with all vectors of one column together, as the products give them: no transposed
        # copies.
        shape = (operation.columns, int(operation.inputs.shape[0]))
        self._codes = np.empty(shape, dtype=np.int32)
        # Written anew for every few vectors: fresh memory would cost more than the arithmetic.
        width = min(shape[1], _AT_ONCE)
        self._inputs = np.empty((operation.rows, width))
        self._products = np.empty((operation.columns, width))
        if self._spread is not None:
            self._squares = np.empty((operation.rows, width), dtype=np.float32)
            self._noises = np.empty((operation.columns, width), dtype=np.float32)
            self._draws = draws.VectorNoise(cells.seed, operation.tile)
        self._sums = np.zeros(shape, dtype=np.int64) if operation.words else None
        words = cells.state.word.reshape(cells.geometry.shape)
        block = words[operation.tile, self._rows, self._columns]
        self._wordy = np.flatnonzero(block.any(axis=0))
        self._words = np.ascontiguousarray(block[:, self._wordy].T, dtype=np.float64)
        self._saturated = 0

    def take(self, share: slice) -> None:
        """Multiply these vectors."""
        # A few vectors at a time, so that every pass finds them in the processor's cache.
        for start in range(share.start, share.stop, _AT_ONCE):
            self._take(slice(start, min(start + _AT_ONCE, share.stop)))

    def _take(self, share: slice) -> None:
        top, inputs = self._top, self._operation.inputs[share].T
        # Products in double precision do not depend on how the vectors are split: codes agree to
        # the last bit.
        x = self._inputs[:, : inputs.shape[1]]
        np.copyto(x, inputs)
        products = np.matmul(self._matrix, x, out=self._products[:, : x.shape[1]])
        if self._spread is not None:
            products += self._noise(self._spread, inputs)
        self._amplify(products)
        np.rint(products, out=products)
        if products.size and max(float(products.max()), -float(products.min())) > top:
            self._saturated += int(np.count_nonzero(np.abs(products) > top))
            np.clip(products, -top, top, out=products)
        self._codes[:, share] = products
        if self._sums is not None and self._wordy.size:
            self._sums[self._wordy, share] = self._words @ x
        self._cells.state.vectors[self._operation.tile] += share.stop - share.start

    def _noise(self, spread: NDArray[np.float32], inputs: NDArray[np.int16]) -> NDArray[np.float32]:
        """Noise of the products of `inputs` (rows, vectors): independent Gaussian read noise of the
        cells, summed.
        """
        squares = self._squares[:, : inputs.shape[1]]
        np.copyto(squares, inputs)
        np.multiply(squares, squares, out=squares)
        noise = np.matmul(spread, squares, out=self._noises[:, : inputs.shape[1]])
        np.sqrt(noise, out=noise)
        first = int(self._cells.state.vectors[self._operation.tile])
        noise *= self._draws.draw(self._columns, first, inputs.shape[1])
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
