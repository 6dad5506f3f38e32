from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.array import Cells, Geometry
from rram_hil.errors import ConfigError

SIZES = st.integers(1, 6)
GEOMETRIES = st.builds(Geometry, SIZES, SIZES, SIZES)


@given(GEOMETRIES, st.data())
def test_index_and_from_index_are_inverse(geometry: Geometry, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, geometry.size - 1), unique=True))
    cells = Cells.from_index(index, geometry)
    assert cells.index(geometry).tolist() == index
    assert [cells.address(k) for k in range(len(cells))] == [
        tuple(int(a) for a in np.unravel_index(i, geometry.shape)) for i in index
    ]


@given(GEOMETRIES, st.integers(1, 50))
def test_batches_cover_every_cell_once_in_order(geometry: Geometry, size: int) -> None:
    every = Cells.all(geometry)
    parts = list(every.batches(size))
    assert all(len(part) <= size for _, part in parts)
    assert all(part == every[place] for place, part in parts)
    assert np.concatenate([part.index(geometry) for _, part in parts]).tolist() == list(
        range(geometry.size)
    )


def test_a_block_is_row_by_row() -> None:
    block = Cells.block(1, [2, 0], [3, 4])
    assert [block.address(k) for k in range(4)] == [(1, 2, 3), (1, 2, 4), (1, 0, 3), (1, 0, 4)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cells.of([(0, 0, 1), (0, 0, 1)]),
        lambda: Cells.of([(0, -1, 0)]),
        lambda: Cells.of([(0, 0.5, 0)]),
        lambda: Cells.block(0, [0.5], [1]),
        lambda: Cells.block(0, [True, False], [1]),
        lambda: Cells(np.array([0, 1]), np.array([0]), np.array([0])),
        lambda: Cells.of([(0, 1 << 20, 0)]),
        lambda: Cells.from_index([4], Geometry(1, 2, 2)),
        lambda: Cells.from_index([-1], Geometry(1, 2, 2)),
        lambda: Cells.from_index([1.5], Geometry(1, 2, 2)),
    ],
)
def test_wrong_addresses_are_refused_and_never_rounded(make) -> None:
    with pytest.raises(ConfigError):
        make()


def test_a_repeated_cell_and_a_cell_off_the_chip_are_named() -> None:
    with pytest.raises(ConfigError, match=r"cell \(1, 2, 3\) stands more than once"):
        Cells.of([(1, 2, 3), (0, 0, 0), (1, 2, 3)])
    with pytest.raises(ConfigError, match=r"cell \(0, 5, 0\): row must lie in 0..1"):
        Cells.of([(0, 0, 0), (0, 5, 0)]).index(Geometry(1, 2, 2))


def test_addresses_cannot_be_changed_behind_an_operation() -> None:
    rows = np.array([0, 1])
    cells = Cells(np.zeros(2, dtype=int), rows, np.zeros(2, dtype=int))
    rows[0] = 7
    assert cells.address(0) == (0, 0, 0)
    with pytest.raises(ValueError, match="read-only"):
        cells.row[0] = 7
