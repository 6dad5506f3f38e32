import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr

from rram_hil.simulation import draws
from rram_hil.simulation.draws import Purpose

CELLS = np.arange(200_000)
EXPECTED_UNIFORM = [0.9361725973544672, 0.046638381988569566, 0.5655645241931941]


def test_uniform_draws_are_uniform_and_inside_the_open_interval() -> None:
    u = draws.uniform(1, Purpose.READ, CELLS, 3)
    assert u.min() > 0
    assert u.max() < 1
    counts = np.histogram(u, 20, (0, 1))[0]
    assert np.sum((counts - 10_000) ** 2 / 10_000) < 50


def test_normal_draws_have_unit_variance_and_do_not_correlate() -> None:
    sets = [
        draws.normal(1, Purpose.READ, CELLS, 3),
        draws.normal(1, Purpose.READ, CELLS, 4),
        draws.normal(1, Purpose.RELAX_BODY, CELLS, 3),
        draws.normal(2, Purpose.READ, CELLS, 3),
        draws.normal(1, Purpose.READ, CELLS + 1, 3),
    ]
    for z in sets:
        assert abs(z.mean()) < 0.01
        assert abs(z.std() - 1) < 0.01
    correlation = np.corrcoef(sets) - np.eye(len(sets))
    assert np.abs(correlation).max() < 0.01


def test_a_draw_is_the_same_whoever_asks_for_it() -> None:
    """Numbers fixed here belong to chips that people have: they must not change between
    versions.
    """
    found = draws.uniform(7, Purpose.STUCK, np.array([0, 1, 2**33]), 5)
    alone = [
        float(draws.uniform(7, Purpose.STUCK, np.array([cell]), 5)[0]) for cell in (0, 1, 2**33)
    ]
    assert found.tolist() == alone
    np.testing.assert_allclose(found, EXPECTED_UNIFORM, rtol=0, atol=1e-12)


def noise(seed: int, tile: int, columns: slice, first: int, count: int) -> NDArray[np.float32]:
    return draws.VectorNoise(seed, tile).draw(columns, first, count)


@given(first=st.integers(0, 10**7), cut=st.integers(1, 99), at=st.integers(6, 17))
def test_vector_noise_does_not_depend_on_the_split(first: int, cut: int, at: int) -> None:
    whole = noise(3, 1, slice(5, 18), first, 100)
    parts = [
        noise(3, 1, slice(5, 18), first, cut),
        noise(3, 1, slice(5, 18), first + cut, 100 - cut),
    ]
    assert np.array_equal(whole, np.concatenate(parts, axis=1))
    by_columns = [noise(3, 1, slice(5, at), first, 100), noise(3, 1, slice(at, 18), first, 100)]
    assert np.array_equal(whole, np.concatenate(by_columns))


def test_vector_noise_is_standard_normal_and_differs_between_columns_tiles_and_seeds() -> None:
    places = ((3, 1, 17), (3, 1, 18), (3, 1, 30), (3, 2, 17), (4, 1, 17))
    sets = [
        noise(seed, tile, slice(column, column + 1), 5, 200_000)[0] for seed, tile, column in places
    ]
    for z in sets:
        assert abs(z.mean()) < 0.01
        assert abs(z.var() - 1) < 0.02
        assert abs((z**4).mean() - 3) < 0.1
    assert np.abs(np.corrcoef(sets) - np.eye(5)).max() < 0.01


def test_vector_noise_of_neighbouring_vectors_is_independent() -> None:
    z = noise(3, 1, slice(17, 18), 6, 400_000)[0].astype(np.float64)
    for apart in (1, 2, 128):
        for one, other in ((z, z), (z**2, z**2), (z**3, z)):
            assert abs(np.corrcoef(one[:-apart], other[apart:])[0, 1]) < 0.01
    pairs = ndtr(z.reshape(-1, 2)) * 128
    counts = np.histogram2d(*pairs.T, bins=(np.arange(129), np.arange(129)))[0]
    assert counts.min() > 0
