"""The resistive crossbar solved exactly: two sets of lines with wires of finite resistance, a conductance at every crossing.

Rows and columns are chains of segments; at either end a line may have a source (a potential behind a resistance: a driver, a
virtual ground, ground) or nothing. A line with nothing at both ends floats. Word and bit lines of a passive array are rows and columns; of a
1T1R array the source and bit lines are, with a conductance of zero where the gate is closed.

Mathematics. With the potentials u of the row nodes, w of the column nodes, the cells' conductances G (diagonal) and the chains with
their ends R and C (tridiagonal in the order of their own lines), Kirchhoff's law is

    (R + G) u - G w = ends of the rows        (C + G) w - G u = ends of the columns.

1. Solved for are the departures from the lines without cells: a driven line then stands on the straight line between its sources, a
   floating one at 0 V. Those lines carry no current into cells, so the departures obey the same equations with the cells' currents between
   those potentials on the right side. Small drops are found as such, not as differences of volts.
2. w is eliminated: S u = b with S = R + G - G (C + G)^-1 G, symmetric and positive. Conjugate gradients, preconditioned by (R + G)^-1: an iteration
   solves every row and every column once as a tridiagonal system, all lines of a set at a time. The eigenvalues of the preconditioned S lie in (0, 1] and near 1
   wherever a wire carries more than its cells do, so few iterations do. Residuals are measured as sqrt(r (R + G)^-1 r), relative to
   the right side's: every current counts by the drop that it makes.
3. The tridiagonal factors are built from sums of positive conductances only, (chain up to here in series with its next segment) + cell: a
   floating line of tiny cells loses no digits.
4. End currents come from the cells' currents: that of a cell divides between a line's two sources as their resistances say.
5. A line of zero resistance has one potential: its chain's inverse is the sum over its nodes. A node at a source without
   resistance is held, and leaves the equations.

When the residual, computed anew from the solution, is not below `RESIDUAL` the sparse direct factorisation solves the vector, and `Solution.note` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.linalg import blas
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import SuperLU, splu

from rram_hil.operations import FloatArray

BoolArray = NDArray[np.bool_]
Scalar = TypeVar("Scalar", np.float64, np.bool_)

RESIDUAL = 1e-10
"""A solution with a larger relative residual is not given out."""
_TARGET = 1e-11
_ITERATIONS = 500
_REFINEMENTS = 4
_GROUP_NODES = 1 << 18
_PAD = 8


@dataclass(frozen=True, eq=False)
class Solution:
    """One solved network for each of n vectors.

    `left_a`, `right_a` of shape (n, rows) and `top_a`, `bottom_a` of shape (n, columns): current from each end's source into the array (A),
    zero where there is none. `row_v`, `column_v` (V) and `cell_a` (A, from row to column) of shape (n, rows, columns); None where
    they were not asked for. `iterations` and `residual` of the worst vector. `note` is empty, or says what had to be done otherwise.
    """

    left_a: FloatArray
    right_a: FloatArray
    top_a: FloatArray
    bottom_a: FloatArray
    row_v: FloatArray | None
    column_v: FloatArray | None
    cell_a: FloatArray | None
    iterations: int
    residual: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class Crossbar:
    """A crossbar of conductances `g_s` (S), shape (rows, columns), and the resistances (ohm) of everything else.

    `row_ohm`, `column_ohm`: one segment between neighbouring cells, a number or one per line; 0 is an ideal wire (then for all lines of the set).
    `left_ohm`, `right_ohm` (rows) and `top_ohm`, `bottom_ohm` (columns): from the source at that end to the outermost cell, driver and lead together, a number
    or one per line; 0 holds the cell's node, infinity is no source. Lines without any source float. Raises `ValueError` for what is not such a network.
    """

    g_s: FloatArray
    row_ohm: ArrayLike
    column_ohm: ArrayLike
    left_ohm: ArrayLike = 0.0
    right_ohm: ArrayLike = np.inf
    top_ohm: ArrayLike = np.inf
    bottom_ohm: ArrayLike = 0.0

    def __post_init__(self) -> None:
        g = np.asarray(self.g_s, dtype=np.float64)
        if g.ndim != 2 or g.size == 0 or not (np.isfinite(g) & (g >= 0)).all():
            raise ValueError("crossbar: g_s must be a matrix of finite conductances of zero or more")
        object.__setattr__(self, "g_s", g)
        for name, size in (("row_ohm", g.shape[0]), ("column_ohm", g.shape[1])):
            ohm = _per_line(name, getattr(self, name), size)
            if not np.isfinite(ohm).all() or ((ohm == 0).any() and (ohm > 0).any()):
                raise ValueError(f"crossbar: {name} must be finite, and zero for all lines of the set or for none")
            object.__setattr__(self, name, ohm)
        for name, size in (
            ("left_ohm", g.shape[0]),
            ("right_ohm", g.shape[0]),
            ("top_ohm", g.shape[1]),
            ("bottom_ohm", g.shape[1]),
        ):
            object.__setattr__(self, name, _per_line(name, getattr(self, name), size))

    def prepare(self) -> Prepared:
        """Factor the lines once, for many vectors."""
        return Prepared(self)

    def solve(
        self,
        *,
        left_v: ArrayLike = 0.0,
        right_v: ArrayLike = 0.0,
        top_v: ArrayLike = 0.0,
        bottom_v: ArrayLike = 0.0,
        nodes: bool = True,
        method: Literal["auto", "direct"] = "auto",
    ) -> Solution:
        """`prepare` and `Prepared.solve` at once."""
        return self.prepare().solve(
            left_v=left_v, right_v=right_v, top_v=top_v, bottom_v=bottom_v, nodes=nodes, method=method
        )


def _per_line(name: str, ohm: ArrayLike, size: int) -> FloatArray:
    found = np.asarray(ohm, dtype=np.float64)
    if found.shape not in ((), (1,), (size,)) or not (found >= 0).all():
        raise ValueError(f"crossbar: {name} must be zero or more, one number or one for each of {size} lines")
    return np.ascontiguousarray(np.broadcast_to(found, (size,)))


def _along(ohm: FloatArray, first_ohm: FloatArray, last_ohm: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """How an empty line's potential, and a cell's current, divide between the first and the last source; both (n, lines)."""
    at = first_ohm + np.arange(n)[:, None] * ohm
    total = first_ohm + (n - 1) * ohm + last_ohm
    both = np.isfinite(total)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(total == 0, 0.5, np.where(both, (total - at) / total, np.isfinite(first_ohm) * 1.0))
        last = np.where(total == 0, 0.5, np.where(both, at / total, np.isfinite(last_ohm) * 1.0))
    return first, last


class _Chains:
    """All lines of one set, along axis 0 of every array; shape (nodes, lines).

    `first`, `last`: how an empty line's potential, and a cell's current, divide between its two sources; `through_s`: conductance (S)
    from source to source along the empty line. `coupled` is False where a node is held: there departures are zero. `own`: conductance of each node
    to anything but its neighbours, `wire`: to the next node, zero beside held nodes (their wire is in `own`).
    """

    def __init__(
        self, g_s: FloatArray, ohm: FloatArray, first_ohm: FloatArray, last_ohm: FloatArray, away: BoolArray
    ) -> None:
        n, lines = g_s.shape
        self.ideal = not ohm.any()
        # A line that no source reaches by any way stands at 0 V like everything that it is joined to.
        first_ohm = np.where(away, 0.0, first_ohm)
        total = first_ohm + (n - 1) * ohm + last_ohm
        self.shorted = total == 0
        self.through_s = np.divide(1.0, total, out=np.zeros(lines), where=np.isfinite(total) & (total > 0))
        self.first, self.last = _along(ohm, first_ohm, last_ohm, n)
        self.first[:, away] = 0.0
        held = np.zeros((n, lines), dtype=np.bool_)
        held[0] = first_ohm == 0
        held[-1] |= last_ohm == 0
        if self.ideal:
            held |= held.any(axis=0)
        self.coupled = ~held
        self.own = np.where(held, 1.0, g_s)
        for at, end_ohm in ((0, first_ohm), (-1, last_ohm)):
            self.own[at] += np.divide(1.0, end_ohm, out=np.zeros(lines), where=(end_ohm > 0) & self.coupled[at])
        self.wire = np.zeros((n - 1, lines))
        if not self.ideal:
            self.wire[:] = 1.0 / ohm
            for at in (0, -1) if n > 1 else ():
                beside = self.wire[at] * held[at]
                # Of two nodes that are both held, neither is an unknown.
                self.own[1 if at == 0 else -2] += beside * self.coupled[1 if at == 0 else -2]
                self.wire[at] -= beside


class _Factors:
    """The chains factored, in folded order: both ends of all lines first, then their neighbours, and so on to the middle.

    Elimination from both ends at once needs half as many steps as lines have nodes, each on two nodes of every line.
    """

    def __init__(self, chains: _Chains) -> None:
        n, lines = chains.own.shape
        self.fold, self.across = _fold(n), _fold(lines)
        self.ideal = chains.ideal
        self.coupled = self.folded(chains.coupled)
        self.first, self.last = self.folded(chains.first), self.folded(chains.last)
        nodes, width = self.coupled.shape
        half = nodes // 2
        own = np.ones((nodes, width))
        own[:n, :lines] = chains.own
        if self.ideal:
            self._sum = 1.0 / np.pad(chains.own.sum(axis=0), (0, width - lines), constant_values=1.0)[self.across]
            self.own = own[np.ix_(self.fold, self.across)]
            return
        wire = np.zeros((nodes - 1, width))
        wire[: n - 1, :lines] = chains.wire
        wire = wire[:, self.across]
        self._wire = np.stack((wire[: half - 1], wire[: half - 1 : -1]), axis=1)
        self._middle = wire[half - 1]
        self.own = own[np.ix_(self.fold, self.across)]
        own = self.own.reshape(half, 2, width)
        pivot = np.empty((half, 2, width))
        self._ratio = np.empty((half - 1, 2, width))
        np.copyto(pivot, own)
        lost = np.empty((2, width))
        # The conductance that a node has but for its next wire is a sum of positive ones: no digits are lost.
        for here, after, ratio, joins in zip(pivot, pivot[1:], self._ratio, self._wire, strict=False):
            np.add(here, joins, lost)
            np.divide(joins, lost, ratio)
            np.multiply(here, ratio, lost)
            np.add(after, lost, after)
        one, other = pivot[-1]
        pivot[:-1] += self._wire
        self._inverse = 1.0 / pivot[:-1]
        joint = one * other + self._middle * (one + other)
        self._last = ((other + self._middle) / joint, self._middle / joint, (one + self._middle) / joint)
        self._steps = list(self._ratio[:, :, None]), list(self._ratio.reshape(half - 1, 2 * width))

    def folded(self, natural: NDArray[Scalar]) -> NDArray[Scalar]:
        """Nodes and lines in folded order; where their number is odd, an empty one is added."""
        full = np.zeros((self.fold.size, self.across.size), dtype=natural.dtype)
        full[: natural.shape[0], : natural.shape[1]] = natural
        return full[np.ix_(self.fold, self.across)]

    def solve(self, x: FloatArray) -> None:
        """x becomes (chain + ends + cells)^-1 x, in place; shape (nodes, vectors, lines), contiguous."""
        if self.ideal:
            x[:] = x.sum(axis=0) * self._sum
            return
        multiply, add = np.multiply, np.add
        half, vectors, width = x.shape[0] // 2, x.shape[1], x.shape[2]
        pairs = x.reshape(half, 2, vectors, width)
        # One vector: arrays of one dimension, which NumPy takes faster.
        steps = self._steps[vectors == 1]
        nodes = list(x.reshape(half, 2 * width) if vectors == 1 else pairs)
        work = np.empty_like(nodes[0])
        before = nodes[0]
        for node, ratio in zip(nodes[1:], steps, strict=True):
            multiply(ratio, before, work)
            add(node, work, node)
            before = node
        one, other = pairs[-1]
        up, joint, down = self._last
        one[:], other[:] = up * one + joint * other, joint * one + down * other
        pairs[:-1] *= self._inverse[:, :, None]
        nodes.reverse()
        before = nodes[0]
        for node, ratio in zip(nodes[1:], reversed(steps), strict=True):
            multiply(ratio, before, work)
            add(node, work, node)
            before = node

    def apply(self, x: FloatArray) -> FloatArray:
        """(chain + ends + cells) x. Of an ideal line only the sum over its nodes has a meaning."""
        found = x * self.own[:, None]
        if not self.ideal:
            pairs, into = (a.reshape(-1, 2, *x.shape[1:]) for a in (x, found))
            flow = (pairs[:-1] - pairs[1:]) * self._wire[:, :, None]
            into[:-1] += flow
            into[1:] -= flow
            across = (pairs[-1, 0] - pairs[-1, 1]) * self._middle
            into[-1, 0] += across
            into[-1, 1] -= across
        return found


def _fold(n: int) -> NDArray[np.int64]:
    """0, last, 1, last but one, ...: where each node or line comes from; an even number, one more than n where n is odd."""
    even = n + n % 2
    order = np.empty(even, dtype=np.int64)
    order[::2] = np.arange(even // 2)
    order[1::2] = np.arange(even - 1, even // 2 - 1, -1)
    return order


def _add_to(y: FloatArray, a: FloatArray, x: FloatArray, work: FloatArray) -> None:
    """y += a x, in place, one `a` per vector; contiguous, shape (nodes, vectors, lines). `work` is lost and may be x."""
    if a.size == 1:
        blas.daxpy(x.reshape(-1), y.reshape(-1), a=float(a[0]))
    else:
        np.multiply(x, a[:, None], out=work)
        np.add(y, work, out=y)


def _dot(x: FloatArray, y: FloatArray) -> FloatArray:
    if x.shape[1] == 1:
        return np.array([np.dot(x.reshape(-1), y.reshape(-1))])
    return np.asarray(np.einsum("nkl,nkl->k", x, y))


class Prepared:
    """A crossbar with its lines factored; `solve` may be called any number of times, from several threads."""

    def __init__(self, crossbar: Crossbar) -> None:
        c = self.crossbar = crossbar
        g = crossbar.g_s
        rows, columns = g.shape
        left, right, top, bottom = (np.asarray(x) for x in (c.left_ohm, c.right_ohm, c.top_ohm, c.bottom_ohm))
        away = self._out_of_reach(np.isfinite(left) | np.isfinite(right), np.isfinite(top) | np.isfinite(bottom))
        self._row_chains = _Chains(g.T, np.asarray(c.row_ohm), left, right, away[:rows])
        self._column_chains = _Chains(g, np.asarray(c.column_ohm), top, bottom, away[rows:])

    @cached_property
    def _rows(self) -> _Factors:
        return _Factors(self._row_chains)

    @cached_property
    def _columns(self) -> _Factors:
        return _Factors(self._column_chains)

    @cached_property
    def _joint(self) -> FloatArray:
        """Conductances (S) between nodes that are both unknown."""
        return np.where(self._row_chains.coupled.T & self._column_chains.coupled, self.crossbar.g_s, 0.0)

    @cached_property
    def _shares(self) -> tuple[FloatArray, ...]:
        """Parts of each cell's current that the left, right, top and bottom source give; shape (rows, columns)."""
        rows, columns = self._row_chains, self._column_chains
        return rows.first.T, rows.last.T, -columns.first, -columns.last

    @cached_property
    def _folded(self) -> tuple[FloatArray, ...]:
        """Folded: all conductances, `_joint` and its transpose, and `_shares`."""
        fold = self._columns.folded
        joint = fold(self._joint)
        return fold(self.crossbar.g_s), joint, np.ascontiguousarray(joint.T), *(fold(s) for s in self._shares)

    def _out_of_reach(self, row_driven: BoolArray, column_driven: BoolArray) -> BoolArray:
        """Lines that no current from any source can reach, rows then columns."""
        driven = np.concatenate((row_driven, column_driven))
        if driven.all():
            return ~driven
        rows, columns = self.crossbar.g_s.shape
        i, j = np.nonzero(self.crossbar.g_s)
        size = rows + columns
        joins = sparse.coo_array((np.ones(i.size, dtype=np.int8), (i, j + rows)), shape=(size, size))
        count, part = connected_components(joins, directed=False)
        reached = np.bincount(part, driven, count) > 0
        return np.asarray(~reached[part], dtype=np.bool_)

    def solve(
        self,
        *,
        left_v: ArrayLike = 0.0,
        right_v: ArrayLike = 0.0,
        top_v: ArrayLike = 0.0,
        bottom_v: ArrayLike = 0.0,
        nodes: bool = True,
        method: Literal["auto", "direct"] = "auto",
    ) -> Solution:
        """Potentials and currents for the sources' volts: a number, (lines,), or (n, lines) for n vectors.

        Volts at an end without a source are ignored. `nodes` keeps the potentials and cell currents. `method` "direct" is the sparse factorisation.
        Raises `ValueError` for volts of a wrong shape, and for two sources of different volts joined without any resistance.
        """
        volts, n = self._volts(left_v, right_v, top_v, bottom_v)
        rows, columns = self.crossbar.g_s.shape
        ends = [np.zeros(v.shape) for v in volts]
        kept = [np.empty((n, rows, columns)) for _ in range(3)] if nodes else None
        group = max(1, _GROUP_NODES // (rows * columns))
        worst, count = np.full(n, np.inf), 0
        if method == "auto":
            for first in range(0, n, group):
                part = slice(first, min(first + group, n))
                into = None if kept is None else [k[part] for k in kept]
                took, worst[part] = self._iterate([v[part] for v in volts], [e[part] for e in ends], into)
                count = max(count, took)
        bad = np.flatnonzero(~(worst <= RESIDUAL))
        for k in bad:
            into = None if kept is None else [a[k] for a in kept]
            self._solve_directly([v[k] for v in volts], [e[k] for e in ends], into)
        for chains, k in ((self._row_chains, 0), (self._column_chains, 2)):
            through = (volts[k] - volts[k + 1]) * chains.through_s
            ends[k] += through
            ends[k + 1] -= through
        note = ""
        if bad.size and method == "auto":
            note = f"{bad.size} of {n} vectors did not converge and were solved by the sparse factorisation"
        row_v, column_v, cell_a = (None, None, None) if kept is None else kept
        return Solution(*ends, row_v, column_v, cell_a, count, float(np.delete(worst, bad).max(initial=0.0)), note)

    def _volts(self, *given: ArrayLike) -> tuple[list[FloatArray], int]:
        """Volts of the four ends, (vectors, lines) each, and the number of vectors."""
        rows, columns = self.crossbar.g_s.shape
        arrays = [np.asarray(v, dtype=np.float64) for v in given]
        n = max([1, *(v.shape[0] for v in arrays if v.ndim == 2)])
        sizes = (rows, rows, columns, columns)
        for name, v, size in zip(("left_v", "right_v", "top_v", "bottom_v"), arrays, sizes, strict=True):
            if v.shape not in ((), (size,), (n, size), (1, size)) or not np.isfinite(v).all():
                raise ValueError(f"crossbar: {name} must be finite volts: a number, ({size},) or (vectors, {size})")
        volts = [np.broadcast_to(v, (n, size)) for v, size in zip(arrays, sizes, strict=True)]
        for chains, k in ((self._row_chains, 0), (self._column_chains, 2)):
            if (volts[k] != volts[k + 1])[:, chains.shorted].any():
                raise ValueError("crossbar: two sources of different volts are joined without resistance")
        return volts, n

    def _iterate(
        self, volts: list[FloatArray], ends: list[FloatArray], kept: list[FloatArray] | None
    ) -> tuple[int, FloatArray]:
        """Conjugate gradients, into `ends` and `kept`; returns the iterations and each vector's residual."""
        rows, columns = self._rows, self._columns
        cells, joint, joint_t = (c[:, None] for c in self._folded[:3])
        vectors = volts[0].shape[0]
        left, right, top, bottom = (
            np.pad(v, ((0, 0), (0, v.shape[1] % 2)))[:, (rows if k < 2 else columns).across] for k, v in enumerate(volts)
        )
        # Along the lines: (columns, vectors, rows) of the rows' nodes, (rows, vectors, columns) of the columns'.
        u0 = rows.first[:, None] * left + rows.last[:, None] * right
        w0 = columns.first[:, None] * top + columns.last[:, None] * bottom
        # Padded, so that reading across does not hit one cache set again and again.
        wide, wide_t = (np.empty((*a.shape[:2], a.shape[2] + _PAD))[..., : a.shape[2]] for a in (w0, u0))
        seen, seen_t = wide.transpose(2, 1, 0), wide_t.transpose(2, 1, 0)
        w = np.empty_like(w0)

        def reflect(x: FloatArray) -> None:
            """(C + G)^-1 G x into w, and G times that into `seen`."""
            np.multiply(joint_t, x, out=wide_t)
            np.copyto(w, seen_t)
            columns.solve(w)
            np.multiply(joint, w, out=wide)

        np.subtract(u0.transpose(2, 1, 0), w0, out=wide)
        np.multiply(wide, cells, out=wide)
        source_u = np.where(rows.coupled[:, None], -seen, 0.0)
        base_w = np.where(columns.coupled[:, None], wide, 0.0)
        columns.solve(base_w)
        np.multiply(joint, base_w, out=wide)
        source_u += seen
        r, u, z = source_u.copy(), np.zeros_like(u0), source_u.copy()
        p, q, s = np.empty_like(u0), np.empty_like(u0), np.empty_like(u0)
        rows.solve(z)
        now = size = _dot(r, z)
        goal = _TARGET**2 * size
        count = 0
        for _ in range(_REFINEMENTS):
            again = np.zeros(vectors)
            p[:] = q[:] = 0.0
            while count < _ITERATIONS and (now > goal).any():
                count += 1
                # S z is r less what the columns reflect, for (R + G) z is r; and so S p from the S p before.
                reflect(z)
                np.subtract(r, seen, out=s)
                _add_to(z, again, p, work=p)
                _add_to(s, again, q, work=q)
                p, q, z, s = z, s, p, q
                curve = _dot(p, q)
                far = np.divide(now, curve, out=np.zeros(vectors), where=(curve > 0) & (now > goal))
                _add_to(u, far, p, work=z)
                _add_to(r, -far, q, work=z)
                np.copyto(z, r)
                rows.solve(z)
                before, now = now, _dot(r, z)
                again = np.divide(now, before, out=np.zeros(vectors), where=before > 0)
            reflect(u)
            np.add(source_u, seen, out=r)
            r -= rows.apply(u)
            np.copyto(z, r)
            rows.solve(z)
            now = _dot(r, z)
            worst = np.sqrt(np.divide(np.maximum(now, 0.0), size, out=np.zeros(vectors), where=size > 0))
            if (worst <= 2 * _TARGET).all() or count >= _ITERATIONS:
                break
        w += base_w
        u += u0
        w += w0
        np.subtract(u.transpose(2, 1, 0), w, out=wide)
        np.multiply(wide, cells, out=wide)
        row_at, column_at = np.argsort(columns.fold)[: ends[0].shape[1]], np.argsort(rows.fold)[: ends[2].shape[1]]
        for k, at in enumerate((row_at, row_at, column_at, column_at)):
            ends[k][:] = _collected(wide, self._folded[3 + k], k)[:, at]
        if kept is not None:
            kept[0][:] = u.transpose(1, 2, 0)[:, row_at[:, None], column_at]
            kept[1][:] = w.transpose(1, 0, 2)[:, row_at[:, None], column_at]
            kept[2][:] = wide.transpose(1, 0, 2)[:, row_at[:, None], column_at]
        return count, worst

    @cached_property
    def _direct(self) -> tuple[SuperLU | None, NDArray[np.int64], NDArray[np.int64], int]:
        """Sparse factors, each row node's and column node's unknown (the one past the last: none), and their count."""
        chains = (self._row_chains, self._column_chains)
        count = 0
        number = []
        for c in chains:
            if c.ideal:
                free = c.coupled[0]
                lines = np.where(free, count + np.cumsum(free) - 1, -1)
                number.append(np.broadcast_to(lines, c.coupled.shape))
            else:
                free = c.coupled.ravel()
                number.append(np.where(free, count + np.cumsum(free) - 1, -1).reshape(c.coupled.shape))
            count += int(np.count_nonzero(free))
        row, column = (np.where(n < 0, count, n) for n in number)
        if count == 0:
            return None, row.T, column, 0
        a = [row.ravel(), column.ravel()]
        b = [row.ravel(), column.ravel()]
        g = [chains[0].own.ravel(), chains[1].own.ravel()]
        pairs = [(row.T, column, self._joint)]
        pairs += [(n[:-1], n[1:], c.wire) for n, c in zip((row, column), chains, strict=True) if not c.ideal]
        for k, (i, j, s) in enumerate(pairs):
            one, other, joins = i[s > 0], j[s > 0], s[s > 0]
            # `own` of a node holds its cell already, not its wires.
            a += [one, other] if k == 0 else [one, other, one, other]
            b += [other, one] if k == 0 else [other, one, one, other]
            g += [-joins, -joins] if k == 0 else [-joins, -joins, joins, joins]
        matrix = sparse.coo_array(
            (np.concatenate(g), (np.concatenate(a), np.concatenate(b))), shape=(count + 1, count + 1)
        ).tocsc()[:count, :count]
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        return factors, row.T, column, count

    def _solve_directly(self, volts: list[FloatArray], ends: list[FloatArray], kept: list[FloatArray] | None) -> None:
        """One vector by the sparse factorisation, into `ends` and `kept`."""
        factors, row, column, count = self._direct
        rows, columns, g = self._row_chains, self._column_chains, self.crossbar.g_s
        u = (rows.first * volts[0] + rows.last * volts[1]).T
        w = columns.first * volts[2] + columns.last * volts[3]
        if factors is not None:
            current = (g * (u - w)).ravel()
            source = np.bincount(column.ravel(), current, count + 1) - np.bincount(row.ravel(), current, count + 1)
            found = np.append(factors.solve(source[:count]), 0.0)
            u = u + found[row]
            w = w + found[column]
        current = g * (u - w)
        for k, share in enumerate(self._shares):
            ends[k][:] = _collected(current[:, None], share, k)[0]
        if kept is not None:
            for into, a in zip(kept, (u, w, current), strict=True):
                into[:] = a


def _collected(current: FloatArray, share: FloatArray, end: int) -> FloatArray:
    """Cell currents (rows, vectors, columns) times the shares of one set of sources, summed along the lines: (vectors, lines)."""
    if not share.any():
        return np.zeros((current.shape[1], share.shape[end // 2]))
    return np.asarray(np.einsum("rc,rkc->kr" if end < 2 else "rc,rkc->kc", share, current))
