"""Reading by orthogonal codes: the matrices, decoding, the ADC's range, what sigma says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rram_hil.array import Block, Cells, CodedRead, Geometry, Multiply, MultiplyResult, drive
from rram_hil.array.coded_read import (
    LEAST_RANGE_A,
    PILOTS,
    SPARE,
    BlockReading,
    Inputs,
    code,
    code_order,
    decode,
    hadamard,
    held_back_s,
    in_blocks,
    read_block,
    row_places,
    row_signs,
)
from rram_hil.errors import ConfigError

READ_V = 0.2
FloatArray = NDArray[np.float64]


class Columns:
    """A multiply through known conductances, without noise."""

    def __init__(self, g_s: FloatArray, inputs: Inputs, *, offset_a: float = 0.0) -> None:
        self.g_s, self.inputs, self.offset_a = g_s, inputs, offset_a
        self.asked: list[Multiply] = []
        self.saturated: list[int] = []

    def __call__(self, operation: Multiply) -> MultiplyResult:
        assert self.inputs.signed or (operation.inputs >= 0).all()
        self.asked.append(operation)
        top = (1 << (self.inputs.adc_bits - 1)) - 1
        volts = operation.inputs * (READ_V / ((1 << (operation.input_bits - 1)) - 1))
        lsb_a = operation.full_scale_a / top
        exact = np.rint((volts @ self.g_s + self.offset_a) / lsb_a)
        self.saturated.append(int((np.abs(exact) > top).sum()))
        codes = np.clip(exact, -top, top).astype(np.int32)
        return MultiplyResult(codes, lsb_a, None, self.saturated[-1])

    def read(self, repeat: int = 1) -> BlockReading:
        block = Block(0, 0, self.g_s.shape[0], 0, self.g_s.shape[1])
        operation = CodedRead((block,), READ_V, repeat=repeat)
        return drive(read_block(operation, block, self.inputs), self)


def currents(g_s: FloatArray) -> FloatArray:
    return np.asarray(READ_V * (code(len(g_s)).astype(np.float64) @ g_s))


def test_matrices_of_all_orders_are_orthogonal_and_begin_with_ones() -> None:
    orders = {code_order(rows) for rows in range(1, 1025)}
    assert {20, 24, 32, 40, 84, 128, 152} <= orders
    for order in orders:
        matrix = hadamard(order).astype(np.float64)
        assert np.array_equal(matrix.T @ matrix, order * np.eye(order)), order
        assert (matrix[:, 0] == 1).all()


@pytest.mark.parametrize("rows", [*range(1, 129), 200, 256, 300, 512])
def test_a_code_keeps_places_for_the_noise_and_costs_few_vectors(rows: int) -> None:
    places = row_places(rows)
    order = code_order(rows)
    assert np.unique(places).size == rows
    assert places.min() >= 1
    assert places.max() < order
    assert rows + 1 + SPARE <= order <= 1.15 * rows + 36
    signs = code(rows)
    assert signs.shape == (order, rows)
    assert (np.abs(signs) == 1).all()
    # Twice the same vector is twice the same rounding: none where rows allow it.
    assert rows < 8 or np.unique(signs, axis=0).shape[0] == order


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_any_map_comes_back(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = 10 ** rng.uniform(-9, -3, (rows, columns)) * (rng.uniform(size=(rows, columns)) < 0.9)
    found, sigma = decode(currents(g), rows, READ_V)
    assert sigma.shape == (columns,)
    assert np.abs(found - g).max() <= 1e-13 * np.sqrt(rows) * max(float(g.max()), 1e-9)
    assert sigma.max() <= 1e-13 * np.sqrt(rows) * max(float(g.max()), 1e-9)


@given(st.integers(1, 300), st.floats(-1e-3, 1e-3))
def test_the_offset_of_an_amplifier_falls_on_no_cell(rows: int, offset_a: float) -> None:
    g = np.linspace(1e-6, 1e-4, rows)[:, None]
    found, sigma = decode(currents(g) + offset_a, rows, READ_V)
    assert np.abs(found - g).max() <= 1e-12 * max(abs(offset_a) / READ_V, 1e-4)
    assert sigma[0] <= 1e-12 * max(abs(offset_a) / READ_V, 1e-4)


def test_currents_of_equal_cells_stay_near_the_root_of_their_number() -> None:
    for rows in [*range(1, 129), *range(130, 513, 3)]:
        most = np.abs(code(rows).astype(np.int32).sum(axis=1)).max()
        assert most <= (3.2 if rows <= 128 else 4.0) * np.sqrt(rows), rows


def _low(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    return rng.uniform(1e-9, 3e-9, (rows, columns))


def _high(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    return np.full((rows, columns), 1e-3)


def _spread(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    return np.asarray(10 ** rng.uniform(-8, -4, (rows, columns)))


def _shorts(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    g = _spread(rng, rows, columns)
    g[:, columns // 2] = 1e-2
    return g


def _empty(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    g = _spread(rng, rows, columns)
    g[:, columns // 2] = 0.0
    return g


def _nothing(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    return np.zeros((rows, columns))


def _along_the_signs(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    """High where one vector of the code is positive, another vector in each column."""
    vectors = code(rows)[rng.integers(0, code_order(rows), columns)].T
    return np.where(vectors > 0, 1e-4, 1e-7)


def _one_large(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    g = np.full((rows, columns), 1e-6)
    g[rows // 2] = 1e-3
    return g


MAPS = (_low, _high, _spread, _shorts, _empty, _nothing, _along_the_signs, _one_large)


@settings(max_examples=150, derandomize=True)
@given(
    st.sampled_from(MAPS),
    st.integers(1, 300),
    st.integers(1, 9),
    st.sampled_from([8, 12, 16]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_range_is_found_for_any_map(
    make: object, rows: int, columns: int, adc_bits: int, signed: bool, seed: int
) -> None:
    assert callable(make)
    g = make(np.random.default_rng(seed), rows, columns)
    chip = Columns(g, Inputs(8, adc_bits, signed))
    found = chip.read()
    assert found.status.max() == 0
    assert chip.saturated[-1] == 0
    halves = 1 if signed else 2
    assert found.vectors == sum(len(operation.inputs) for operation in chip.asked)
    # Again where few vectors hide how far others go: one in many has a multiple of their current.
    codes = [len(o.inputs) for o in chip.asked].count(halves * code_order(rows))
    assert codes <= 4
    assert len(chip.asked) <= codes + 7
    assert found.vectors <= halves * (codes * code_order(rows) + 7 * PILOTS)
    # Of the range a good part is used, so that its step is small.
    part = np.abs(currents(g)).max() / found.full_scale_a
    assert 0.1 < part <= 1 + 2.0**-adc_bits or found.full_scale_a <= LEAST_RANGE_A
    step_s = found.full_scale_a / ((1 << (adc_bits - 1)) - 1) / READ_V
    assert np.abs(found.conductance_s - g).max() <= 0.5 * step_s * halves * (1 + 1e-9)


@pytest.mark.parametrize("make", [m for m in MAPS if m is not _along_the_signs])
def test_hardly_a_code_is_wasted(make: object) -> None:
    assert callable(make)
    extra = 0
    for rows in (8, 20, 47, 64, 128, 256):
        for seed in range(4):
            g = make(np.random.default_rng(seed), rows, 16)
            chip = Columns(g, Inputs(8, 12))
            chip.read()
            extra += [len(o.inputs) for o in chip.asked].count(code_order(rows)) - 1
            assert len(chip.asked) <= 8
    assert extra <= 1


@pytest.mark.parametrize("repeat", [1, 20])
def test_a_range_that_saturates_is_widened_and_the_code_repeated(repeat: int) -> None:
    g = np.full((64, 3), 1e-5)
    chip = Columns(g, Inputs(8, 12))

    def brighter(operation: Multiply) -> MultiplyResult:
        if len(operation.inputs) == code_order(64):
            chip.g_s = 8 * g  # after the range was chosen
        return chip(operation)

    block = Block(0, 0, 64, 0, 3)
    found = drive(
        read_block(CodedRead((block,), READ_V, repeat=repeat), block, chip.inputs), brighter
    )
    assert [s > 0 for s in chip.saturated[-repeat - 1 :]] == [True] + [False] * repeat
    assert found.status.max() == 0
    assert found.conductance_s == pytest.approx(8 * g, rel=1e-2)
    assert found.vectors == sum(len(operation.inputs) for operation in chip.asked)


def test_what_saturates_in_every_range_is_over_range() -> None:
    chip = Columns(np.full((8, 2), 1e-5), Inputs(8, 12))

    def hopeless(operation: Multiply) -> MultiplyResult:
        return replace(chip(operation), saturated=1)

    block = Block(0, 0, 8, 0, 2)
    found = drive(read_block(CodedRead((block,), READ_V), block, chip.inputs), hopeless)
    assert (found.status == 2).all()


@settings(max_examples=60)
@given(st.integers(1, 150), st.sampled_from([8, 12]), st.integers(0, 2**32 - 1))
def test_unsigned_inputs_agree_with_signed_ones(rows: int, adc_bits: int, seed: int) -> None:
    g = _spread(np.random.default_rng(seed), rows, 4)
    signed, unsigned = (Columns(g, Inputs(8, adc_bits, s)).read() for s in (True, False))
    together = np.hypot(signed.sigma_s, unsigned.sigma_s)
    assert (np.abs(signed.conductance_s - unsigned.conductance_s) <= 10 * together).all()


@settings(max_examples=100, derandomize=True)
@given(
    st.integers(1, 100),
    st.sampled_from([6, 8, 12, 16]),
    st.booleans(),
    # Cells that are all alike are all rounded alike: nothing to take a mean over.
    st.floats(-7, -4.5),
    st.integers(0, 2**32 - 1),
)
def test_sigma_knows_what_rounding_does_without_any_noise(
    rows: int, adc_bits: int, signed: bool, least: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    g = 10 ** rng.uniform(least, -4, (rows, 200))
    found = Columns(g, Inputs(8, adc_bits, signed)).read()
    z = (found.conductance_s - g) / found.sigma_s
    assert 0.3 < np.sqrt(np.mean(z**2)) < 1.3
    assert np.abs(z).max() < 10


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5, 24, 64])
def test_cells_of_whole_steps_hide_their_rounding_but_not_from_sigma(
    rows: int, signed: bool
) -> None:
    rng = np.random.default_rng(1)
    step_s = 1e-6
    g = step_s * (1 + 0.02 * rng.normal(size=(rows, 300)))
    lsb_a = step_s * READ_V
    found, scatter = decode(np.rint(currents(g) / lsb_a) * lsb_a, rows, READ_V)
    sigma = np.hypot(scatter, held_back_s(found, scatter, step_s, 1 if signed else 2))
    assert np.sqrt(np.mean(((found - g) / sigma) ** 2)) < 1.3


def test_rounding_is_held_back_by_few_rows_and_no_noise_only() -> None:
    step_s = 1e-7
    one, quiet = np.full((1, 1), 1e-5), np.zeros(1)
    assert held_back_s(one, quiet, step_s) == pytest.approx(step_s / np.sqrt(12))
    # Noise of one step in every vector, as the spare places of 20 vectors show it.
    assert held_back_s(one, np.full(1, step_s / np.sqrt(20)), step_s)[0] < 1e-6 * step_s
    many = np.random.default_rng(1).uniform(1e-6, 1e-5, (40, 1))
    assert held_back_s(many, quiet, step_s)[0] < 1e-3 * step_s
    # Where nothing flows, nothing is known but the step.
    assert held_back_s(np.zeros((40, 1)), quiet, step_s) == pytest.approx(step_s / np.sqrt(12))


@st.composite
def _cells(draw: st.DrawFn) -> tuple[Cells, Geometry]:
    geometry = Geometry(draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    index = draw(st.lists(st.integers(0, geometry.size - 1), unique=True, max_size=60))
    return Cells.from_index(index, geometry), geometry


@given(_cells())
def test_blocks_cover_all_cells_once(case: tuple[Cells, Geometry]) -> None:
    cells, geometry = case
    blocks = Block.covering(cells)
    assert sum(block.size for block in blocks) <= geometry.size
    if not blocks:
        assert len(cells) == 0
        return
    reading = CodedRead(blocks)  # refuses blocks that share a cell
    covered = reading.cells.index(geometry)
    assert np.unique(covered).size == covered.size
    assert set(cells.index(geometry)) <= set(covered)
    place = reading.cells.places_of(cells)
    assert reading.cells[place] == cells
    # No block reaches beyond the cells of any of its columns.
    for block in blocks:
        for k in range(block.column, block.column + block.columns):
            rows = cells.row[(cells.tile == block.tile) & (cells.column == k)]
            assert (rows.min(), rows.max()) == (block.row, block.row + block.rows - 1)


@given(_cells())
def test_a_cell_is_found_where_it_stands(case: tuple[Cells, Geometry]) -> None:
    cells, _ = case
    order = np.random.default_rng(len(cells)).permutation(len(cells))
    assert np.array_equal(cells.places_of(cells[order]), order)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 40))
def test_parts_keep_all_blocks_in_order(columns: list[int], most: int) -> None:
    blocks = tuple(Block(0, 0, 4, 10 * k, c) for k, c in enumerate(columns))
    parts = in_blocks(blocks, most)
    assert sum((blocks[part] for part in parts), ()) == blocks
    for part in parts:
        assert len(blocks[part]) == 1 or sum(b.size for b in blocks[part]) <= most


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Block(0, 0, 0, 0, 1), "needs a row and a column"),
        (lambda: Block(0, -1, 1, 0, 1), "none below 0"),
        (lambda: CodedRead((Block(0, 0, 2, 0, 2), Block(0, 1, 2, 1, 1))), "more than once"),
        (lambda: CodedRead((Block(0, 0, 1, 0, 1),), read_v=-0.2), "read_v must be above 0 V"),
        (lambda: CodedRead((Block(0, 0, 1, 0, 1),), repeat=0), "repeat must be 1 or more"),
    ],
)
def test_what_cannot_be_read_is_refused(make: object, told: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=told):
        make()


def test_signs_do_not_depend_on_how_many_rows_follow() -> None:
    assert np.array_equal(row_signs(300)[:64], row_signs(64))
