"""The crossbar solver: the laws of resistive networks, and agreement with dense and sparse
solutions of the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rram_hil.crossbar import solver as crossbar
from rram_hil.crossbar.solver import Crossbar, Solution

FloatArray = NDArray[np.float64]
INF = float("inf")
END_OHM = st.sampled_from([0.0, 1e-3, 1.0, 50.0, INF])


@st.composite
def networks(draw: st.DrawFn, largest: int = 6) -> Crossbar:
    """Small networks of every kind: opens, shorts, ideal wires, held and floating lines."""
    rows, columns = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    g = np.exp(rng.uniform(np.log(1e-7), np.log(3e-4), (rows, columns)))
    g[rng.random(g.shape) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = 0.0
    g[rng.random(g.shape) < draw(st.sampled_from([0.0, 0.1]))] = 1e-2
    wires = st.sampled_from([0.0, 1e-2, 1.0, 10.0])

    def ends(size: int) -> FloatArray:
        return np.array(draw(st.lists(END_OHM, min_size=size, max_size=size)))

    row_ohm, column_ohm = draw(wires), draw(wires)
    left, right, top, bottom = ends(rows), ends(rows), ends(columns), ends(columns)
    # A line held at both ends without any resistance has no one solution.
    right[(left == 0) & (right == 0)] = 1.0
    bottom[(top == 0) & (bottom == 0)] = INF
    return Crossbar(g, row_ohm, column_ohm, left, right, top, bottom)


def some_volts(network: Crossbar, seed: int, vectors: int = 1) -> dict[str, FloatArray]:
    rows, columns = network.g_s.shape
    rng = np.random.default_rng(seed)
    sizes = {"left_v": rows, "right_v": rows, "top_v": columns, "bottom_v": columns}
    return {name: rng.uniform(-0.5, 0.5, (vectors, size)) for name, size in sizes.items()}


def textbook(network: Crossbar, volts: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Modified nodal analysis, dense: one equation per node and per wire (v - v' = R i), which also
    holds for R = 0.
    """
    g = network.g_s
    rows, columns = g.shape
    row, column = (
        np.arange(g.size).reshape(rows, columns),
        g.size + np.arange(g.size).reshape(rows, columns),
    )
    wires: list[tuple[int, int | None, float, float]] = []
    for lines, ohms in ((row, network.row_ohm), (column.T, network.column_ohm)):
        for line, ohm in zip(lines, np.asarray(ohms), strict=True):
            wires += [(int(a), int(b), ohm, 0.0) for a, b in pairwise(line)]
    ends: dict[str, list[tuple[int, int]]] = {"left": [], "right": [], "top": [], "bottom": []}
    for name, nodes in (
        ("left", row[:, 0]),
        ("right", row[:, -1]),
        ("top", column[0]),
        ("bottom", column[-1]),
    ):
        for k, node in enumerate(nodes):
            ohm = getattr(network, f"{name}_ohm")[k]
            if np.isfinite(ohm):
                ends[name].append((k, len(wires)))
                wires.append((int(node), None, ohm, volts[f"{name}_v"][0, k]))
    n = 2 * g.size
    found = solved_nodes(g, row, column, wires)
    result = {
        "row_v": found[: g.size].reshape(g.shape),
        "column_v": found[g.size : n].reshape(g.shape),
    }
    for name, of in ends.items():
        result[f"{name}_a"] = np.zeros(rows if name in ("left", "right") else columns)
        for k, at in of:
            result[f"{name}_a"][k] = found[n + at]
    return result


def solved_nodes(
    g: FloatArray,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    wires: list[tuple[int, int | None, float, float]],
) -> FloatArray:
    """Potentials of all nodes, then the current of every wire."""
    n = 2 * g.size
    matrix, right = np.zeros((n + len(wires), n + len(wires))), np.zeros(n + len(wires))
    for a, b, s in zip(row.ravel(), column.ravel(), g.ravel(), strict=True):
        for x, y, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            matrix[x, y] += sign * s
    for k, (a, b, ohm, volt) in enumerate(wires):
        # Current from the other side into node a.
        matrix[a, n + k] -= 1.0
        matrix[n + k, a] += 1.0
        if b is not None:
            matrix[b, n + k] += 1.0
            matrix[n + k, b] -= 1.0
        matrix[n + k, n + k] = ohm
        right[n + k] = volt
    # The least solution: what no source reaches is at 0 V.
    found = np.zeros(right.size)
    for _ in range(3):
        # A line that hangs on one weak cell is found to 1e-6 V only at the first attempt.
        found += np.linalg.lstsq(matrix, right - matrix @ found, rcond=1e-13)[0]
    return found


def nodes(solution: Solution) -> tuple[FloatArray, FloatArray, FloatArray]:
    assert solution.row_v is not None
    assert solution.column_v is not None
    assert solution.cell_a is not None
    return solution.row_v[0], solution.column_v[0], solution.cell_a[0]


@settings(max_examples=150, deadline=None)
@given(network=networks(), seed=st.integers(0, 1000))
def test_small_networks_are_solved_as_by_the_textbook(network: Crossbar, seed: int) -> None:
    volts = some_volts(network, seed)
    expected = textbook(network, volts)
    for method in ("auto", "direct"):
        found = network.solve(**volts, method=method)  # type: ignore[arg-type]
        assert found.note == ""
        row_v, column_v, _ = nodes(found)
        np.testing.assert_allclose(row_v, expected["row_v"], atol=1e-6)
        np.testing.assert_allclose(column_v, expected["column_v"], atol=1e-6)
        largest = max(
            np.abs(expected[f"{end}_a"]).max() for end in ("left", "right", "top", "bottom")
        )
        for end in ("left_a", "right_a", "top_a", "bottom_a"):
            np.testing.assert_allclose(
                getattr(found, end)[0], expected[end], atol=1e-7 * largest + 1e-13
            )


@settings(max_examples=100, deadline=None)
@given(network=networks(largest=12), seed=st.integers(0, 1000))
def test_iterations_agree_with_the_sparse_factorisation(network: Crossbar, seed: int) -> None:
    volts = some_volts(network, seed)
    prepared = network.prepare()
    found, direct = prepared.solve(**volts), prepared.solve(**volts, method="direct")
    current, expected = nodes(found)[2], nodes(direct)[2]
    # Currents that are zero (floating lines) are rounding in the factorisation: lines of 100 S,
    # volts to 1e-16.
    assert np.abs(current - expected).max() <= 1e-8 * np.abs(expected).max() + 1e-13
    # So are the last digits of a floating line that hangs on one cell of 1e-7 S.
    assert np.abs(nodes(found)[0] - nodes(direct)[0]).max() <= 1e-6


@settings(max_examples=100, deadline=None)
@given(network=networks(largest=8), seed=st.integers(0, 1000))
def test_no_current_is_lost_at_any_node(network: Crossbar, seed: int) -> None:
    found = network.solve(**some_volts(network, seed))
    row_v, column_v, cell = nodes(found)
    np.testing.assert_allclose(
        cell, network.g_s * (row_v - column_v), atol=1e-12 * np.abs(cell).max() + 1e-18
    )
    scale = np.abs(cell).max() + np.abs(found.left_a).max() + np.abs(found.top_a).max()
    ends = [
        found.left_a[0] + found.right_a[0] - cell.sum(axis=1),
        found.top_a[0] + found.bottom_a[0] + cell.sum(axis=0),
    ]
    for lines in ends:
        np.testing.assert_allclose(lines, 0, atol=1e-9 * scale + 1e-15 * network.g_s.max() + 1e-18)
    for volts, into, ohm, first, last in (
        (row_v, -cell, network.row_ohm, found.left_a, found.right_a),
        (column_v.T, cell.T, network.column_ohm, found.top_a, found.bottom_a),
    ):
        ohms = np.asarray(ohm)[:, None]
        if volts.shape[1] < 2 or not ohms.any():
            continue
        along = (volts[:, :-1] - volts[:, 1:]) / ohms
        balance = into.copy()
        balance[:, 0] += first[0]
        balance[:, -1] += last[0]
        balance[:, :-1] -= along
        balance[:, 1:] += along
        # A wire's current is a difference of potentials, which are known to about 1e-15 of a volt.
        np.testing.assert_allclose(balance, 0, atol=1e-8 * scale + 1e-14 / ohms.min())


@settings(max_examples=50, deadline=None)
@given(network=networks(), seed=st.integers(0, 1000))
def test_vectors_add_up(network: Crossbar, seed: int) -> None:
    prepared = network.prepare()
    one, two = some_volts(network, seed), some_volts(network, seed + 1)
    both = {name: np.concatenate((one[name], two[name], 2 * one[name] - two[name])) for name in one}
    found = prepared.solve(**both)
    scale = max(
        float(np.abs(getattr(found, end)).max())
        for end in ("left_a", "right_a", "top_a", "bottom_a")
    )
    for end in ("left_a", "right_a", "top_a", "bottom_a"):
        a = getattr(found, end)
        # Where nothing flows, what is left is the rounding of volts, times the cells.
        np.testing.assert_allclose(
            a[2], 2 * a[0] - a[1], atol=1e-9 * scale + 1e-15 * network.g_s.max() + 1e-18
        )
        np.testing.assert_allclose(
            getattr(prepared.solve(**one), end)[0], a[0], atol=1e-9 * scale + 1e-18
        )


@settings(max_examples=50, deadline=None)
@given(network=networks())
def test_what_a_row_gives_a_column_the_column_gives_the_row(network: Crossbar) -> None:
    prepared = network.prepare()
    rows, columns = network.g_s.shape
    forth = -prepared.solve(left_v=np.eye(rows), nodes=False).bottom_a
    back = -prepared.solve(bottom_v=np.eye(columns), nodes=False).left_a
    np.testing.assert_allclose(forth, back.T, atol=1e-9 * np.abs(forth).max() + 1e-18)
    own = prepared.solve(left_v=np.eye(rows), nodes=False).left_a
    np.testing.assert_allclose(own, own.T, atol=1e-9 * np.abs(own).max() + 1e-18)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    less=st.sampled_from([0.0, 1e-9, 0.1, 1.0, 5.0]),
    more=st.floats(1e-2, 20.0),
)
def test_the_power_taken_falls_as_wires_get_worse(seed: int, less: float, more: float) -> None:
    rng = np.random.default_rng(seed)
    g, volts = rng.uniform(1e-6, 1e-4, (9, 7)), rng.uniform(-0.3, 0.3, 9)
    taken = []
    for ohm in (less, less + more):
        found = Crossbar(g, ohm, ohm, left_ohm=ohm, bottom_ohm=ohm).solve(left_v=volts)
        taken.append(float(volts @ found.left_a[0]))
    assert 0 < taken[1] < taken[0]


def test_ideal_lines_multiply_exactly() -> None:
    rng = np.random.default_rng(3)
    g, volts = rng.uniform(0, 1e-4, (6, 5)), rng.uniform(-0.2, 0.2, (4, 6))
    found = Crossbar(g, 0.0, 0.0).solve(left_v=volts)
    np.testing.assert_allclose(-found.bottom_a, volts @ g, rtol=1e-13)
    np.testing.assert_allclose(found.left_a, volts * g.sum(axis=1), rtol=1e-13, atol=1e-20)


def test_a_line_fed_from_both_ends_shares_its_current_as_its_resistances_say() -> None:
    g = np.zeros((1, 4))
    g[0, 1] = 1e-3
    found = Crossbar(g, 10.0, 0.0, left_ohm=5.0, right_ohm=15.0).solve(left_v=1.0, right_v=1.0)
    # 15 ohm to the left of the cell, 35 ohm to the right: 10.5 ohm together.
    total = 1.0 / (1e3 + 10.5)
    assert -found.bottom_a[0, 1] == pytest.approx(total, rel=1e-12)
    assert found.left_a[0, 0] == pytest.approx(total * 35 / 50, rel=1e-12)
    assert found.right_a[0, 0] == pytest.approx(total * 15 / 50, rel=1e-12)


def test_a_line_between_two_sources_carries_current_of_its_own() -> None:
    found = Crossbar(np.zeros((1, 3)), 10.0, 1.0, left_ohm=5.0, right_ohm=15.0).solve(
        left_v=1.0, right_v=0.2
    )
    assert found.left_a[0, 0] == pytest.approx(0.8 / 40)
    assert found.right_a[0, 0] == pytest.approx(-0.8 / 40)
    np.testing.assert_allclose(nodes(found)[0], [[0.9, 0.7, 0.5]], rtol=1e-12)


def test_sneak_paths_run_through_floating_lines() -> None:
    # The selected cell beside three others in series: row 0 - column 1 - row 1 - column 0.
    g = np.array([[1e-6, 30e-6], [30e-6, 30e-6]])
    found = Crossbar(g, 0.0, 0.0, left_ohm=[0.0, INF], bottom_ohm=[0.0, INF]).solve(
        left_v=[0.3, 9.0]
    )
    assert found.left_a[0, 0] == pytest.approx(0.3 * (1e-6 + 10e-6), rel=1e-10)
    row_v, column_v, _ = nodes(found)
    assert column_v[0, 1] == pytest.approx(0.2, rel=1e-9)
    assert row_v[1, 0] == pytest.approx(0.1, rel=1e-9)


def test_floating_lines_of_tiny_cells_keep_their_digits() -> None:
    g = np.full((3, 3), 1e-12)
    found = Crossbar(g, 1e-3, 1e-3, left_ohm=[1.0, INF, INF], bottom_ohm=[1.0, INF, INF]).solve(
        left_v=1.0
    )
    # Bridges: the cell itself, and the others as 1/2 + 1/4 + 1/2 in series.
    assert found.left_a[0, 0] == pytest.approx(1e-12 + 1e-12 / 1.25, rel=1e-6)
    assert found.note == ""


def test_what_no_source_reaches_stands_at_zero() -> None:
    g = np.zeros((4, 4))
    g[0, 0] = 1e-5
    g[2, 3] = 1e-2
    found = Crossbar(
        g, 1.0, 1.0, left_ohm=[1.0, INF, INF, INF], bottom_ohm=[1.0, INF, INF, INF]
    ).solve(left_v=0.5)
    row_v, column_v, cell = nodes(found)
    assert found.left_a[0, 0] == pytest.approx(0.5 / (1e5 + 1 + 3 + 1))
    assert not row_v[1:].any()
    assert not column_v[:, 1:].any()
    assert cell[2, 3] == 0


@pytest.mark.parametrize("shape", [(64, 64), (65, 40), (1, 200), (200, 1)])
@pytest.mark.parametrize("scheme", ["driven", "both ends", "held", "one selected"])
def test_arrays_with_shorts_agree_with_the_sparse_factorisation(
    shape: tuple[int, int], scheme: str
) -> None:
    rng = np.random.default_rng(7)
    g = np.exp(rng.uniform(np.log(1e-8), np.log(1e-4), shape))
    g[rng.random(shape) < 0.01] = 1e-2
    g[rng.random(shape) < 0.05] = 0.0
    one_row, one_column = np.full(shape[0], INF), np.full(shape[1], INF)
    one_row[shape[0] // 2], one_column[shape[1] // 3] = 30.0, 20.0
    ends: dict[str, dict[str, Any]] = {
        "driven": {"left_ohm": 5.0, "bottom_ohm": 5.0},
        "both ends": {"left_ohm": 5.0, "right_ohm": 7.0, "top_ohm": 3.0, "bottom_ohm": 1.0},
        "held": {},
        "one selected": {"left_ohm": one_row, "bottom_ohm": one_column},
    }
    prepared = Crossbar(g, 2.0, 1.0, **ends[scheme]).prepare()
    volts = {"left_v": rng.uniform(0, 0.3, (3, shape[0])), "right_v": 0.1}
    found, direct = prepared.solve(**volts), prepared.solve(**volts, method="direct")
    assert found.note == ""
    assert found.residual <= crossbar.RESIDUAL
    for name in ("left_a", "right_a", "top_a", "bottom_a", "cell_a"):
        a, b = getattr(found, name), getattr(direct, name)
        assert np.abs(a - b).max() <= 1e-8 * np.abs(b).max() + 1e-16, name


def test_what_does_not_converge_is_solved_directly_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    g = rng.uniform(1e-5, 1e-3, (30, 30))
    prepared = Crossbar(g, 10.0, 10.0, left_ohm=10.0, bottom_ohm=10.0).prepare()
    volts = rng.uniform(0, 0.3, (2, 30))
    direct = prepared.solve(left_v=volts, method="direct")
    monkeypatch.setattr(crossbar, "_ITERATIONS", 2)
    found = prepared.solve(left_v=volts)
    assert (
        found.note == "2 of 2 vectors did not converge and were solved by the sparse factorisation"
    )
    np.testing.assert_array_equal(found.bottom_a, direct.bottom_a)
    np.testing.assert_array_equal(nodes(found)[0], nodes(direct)[0])


def test_a_prepared_network_gives_the_same_for_one_vector_and_for_many() -> None:
    rng = np.random.default_rng(4)
    prepared = Crossbar(
        rng.uniform(1e-6, 1e-4, (20, 31)), 2.0, 2.0, left_ohm=3.0, bottom_ohm=4.0
    ).prepare()
    volts = rng.uniform(0, 0.3, (150, 20))
    many = prepared.solve(left_v=volts)
    for k in (0, 70, 149):
        one = prepared.solve(left_v=volts[k])
        np.testing.assert_allclose(many.bottom_a[k], one.bottom_a[0], rtol=1e-9)
    assert prepared.solve(left_v=volts, nodes=False).row_v is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"g_s": np.array([[-1e-6]])}, "zero or more"),
        ({"g_s": np.array([1e-6])}, "matrix"),
        ({"g_s": np.array([[np.nan]])}, "finite"),
        ({"row_ohm": INF}, "finite"),
        ({"row_ohm": [0.0, 1.0]}, "for all lines of the set or for none"),
        ({"left_ohm": -1.0}, "zero or more"),
        ({"top_ohm": [1.0, 2.0, 3.0]}, "one for each of 2 lines"),
    ],
)
def test_what_is_no_network_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Crossbar(**({"g_s": np.ones((2, 2)), "row_ohm": 1.0, "column_ohm": 1.0} | wrong))


def test_wrong_volts_are_refused() -> None:
    network = Crossbar(np.ones((2, 3)), 0.0, 1.0, left_ohm=0.0, right_ohm=0.0)
    with pytest.raises(ValueError, match="left_v"):
        network.solve(left_v=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="bottom_v"):
        network.solve(bottom_v=np.nan)
    with pytest.raises(ValueError, match="joined without resistance"):
        network.solve(left_v=1.0, right_v=0.5)
    assert network.solve(left_v=1.0, right_v=1.0).left_a.sum() > 0
