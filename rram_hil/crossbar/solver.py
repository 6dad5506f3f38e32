"""The resistive crossbar solved exactly: rows and columns of wire with resistance, a conductance at
every crossing.

Rows and columns are chains of segments. At either end a line may have a source (a potential behind
a resistance: a driver, a virtual ground, ground) or nothing; with nothing at both ends it floats.
In a passive array word and bit lines are the rows and columns, in a 1T1R array source and bit
lines, with a conductance of zero where the gate is closed.

Mathematics. With the potentials u of the rows' nodes and w of the columns', the cells' conductances
G (diagonal), and the chains with their ends R and C (tridiagonal along their own lines),
Kirchhoff's law is

    (R + G) u - G w = sources of the rows        (C + G) w - G u = sources of the columns.

1. Solved for are departures from lines without cells: a driven line then stands on the straight
  line between its sources, a
   floating one at 0 V. The departures obey the same equations with the cells' currents at those
   potentials on the right side: small drops are found as such, not as differences of volts.
2. w is eliminated: S u = b with S = R + G - G (C + G)^-1 G, symmetric and positive. Conjugate
  gradients, preconditioned by
   (R + G)^-1: an iteration solves all rows and all columns once, as tridiagonal systems, all lines
   of a set at a time. The preconditioned S has its eigenvalues in (0, 1], near 1 wherever wires
   carry more than cells do, so few iterations do. The residual is measured as sqrt(r (R + G)^-1 r),
   relative to the right side's: each current counts by the drop that it makes.
3. Tridiagonal pivots are sums of positive conductances (what the chain up to here is in series with
  its next segment, and
   the cell), so a floating line of tiny cells loses no digits. Elimination goes from both ends to
   the middle, half as many steps as a line has nodes, and unknowns are scaled by the pivots' roots,
   which leaves two products a node.
4. End currents are sums of the cells' currents: each divides between its line's two sources as
  their resistances say.
5. A line of zero resistance has one potential, and the inverse of its chain is a sum over its
  nodes. A node at a source
   without resistance is held: its departure is zero, it leaves the equations.

Where the residual, computed anew from the solution, is above `RESIDUAL` (and above what the
potentials' last digits make of it, in arrays whose wires conduct 10^12 times what the cells do),
the sparse direct factorisation solves that vector, and `Solution.note` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rram_hil.types import FloatArray

if TYPE_CHECKING:
    from scipy.sparse.linalg import SuperLU

BoolArray = NDArray[np.bool_]

RESIDUAL = 1e-10
"""A solution of a larger relative residual is not given out."""
_TARGET = 1e-11
_ITERATIONS = 500
_REFINEMENTS = 4
_GROUP_NODES = 1 << 15
"""Vectors of small arrays are solved together up to so many nodes: fewer cost Python's time, more
leave the cache.
"""
_EPSILON = float(np.finfo(np.float64).eps)
_PAD = 8
"""Empty lines added to each set, so that reading across the lines does not hit one cache set again
and again.
"""


@dataclass(frozen=True, eq=False)
class Solution:
    """One solved network for each of n vectors.

    `left_a`, `right_a` (n, rows), `top_a`, `bottom_a` (n, columns): current from each end's source
    into the array (A), zero where there is none. `row_v`, `column_v` (V) and `cell_a` (A, from row
    to column), shape (n, rows, columns); None where they were not asked for. `iterations` and
    `residual` of the worst vector. `note` is empty, or says what had to be done otherwise.
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
    """A crossbar of conductances `g_s` (S), shape (rows, columns), and the resistances (ohm) of
    everything else.

    `row_ohm`, `column_ohm`: one segment between neighbouring cells, one number or one per line; 0
    is an ideal wire (then for all lines of the set). `left_ohm`, `right_ohm` (rows) and `top_ohm`,
    `bottom_ohm` (columns): from the source at that end to the outermost cell, driver and lead
    together, one number or one per line; 0 holds that cell's node, infinity is no source. Raises
    `ValueError` for what is not such a network.
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
            raise ValueError(
                "crossbar: g_s must be a matrix of finite conductances of zero or more"
            )
        object.__setattr__(self, "g_s", g)
        rows, columns = g.shape
        for name, size in (("row_ohm", rows), ("column_ohm", columns)):
            ohm = _per_line(name, getattr(self, name), size)
            if not np.isfinite(ohm).all() or ((ohm == 0).any() and (ohm > 0).any()):
                raise ValueError(
                    f"crossbar: {name} must be finite, and zero for all lines of the set or for"
                    " none"
                )
            object.__setattr__(self, name, ohm)
        for name, size in (
            ("left_ohm", rows),
            ("right_ohm", rows),
            ("top_ohm", columns),
            ("bottom_ohm", columns),
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
        prepared = self.prepare()
        return prepared.solve(
            left_v=left_v,
            right_v=right_v,
            top_v=top_v,
            bottom_v=bottom_v,
            nodes=nodes,
            method=method,
        )


def _per_line(name: str, ohm: ArrayLike, size: int) -> FloatArray:
    found = np.asarray(ohm, dtype=np.float64)
    if found.shape not in ((), (1,), (size,)) or not (found >= 0).all():
        raise ValueError(
            f"crossbar: {name} must be zero or more, one number or one for each of {size} lines"
        )
    return np.ascontiguousarray(np.broadcast_to(found, (size,)))


def _along(
    ohm: FloatArray, first_ohm: FloatArray, last_ohm: FloatArray, n: int
) -> tuple[FloatArray, FloatArray]:
    """How an empty line's potential, and a cell's current, divide between the first and the last
    source.

    Both of shape (nodes, lines), or (1, lines) where no line has two sources.
    """
    total = first_ohm + (n - 1) * ohm + last_ohm
    both = np.isfinite(total)
    nodes = np.arange(n)[:, None] if both.any() else np.zeros((1, 1))
    at = first_ohm + nodes * ohm
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(both, (total - at) / total, np.isfinite(first_ohm))
        last = np.where(both, at / total, np.isfinite(last_ohm))
    return np.where(total == 0, 0.5, first), np.where(total == 0, 0.5, last)


class _Block:
    """One piece of memory cut into arrays: the system gives large ones in large pages, many small
    ones page by page.
    """

    def __init__(self, size: int) -> None:
        self._flat = np.empty(size)
        self._at = 0

    def take(self, *shape: int) -> FloatArray:
        """The next piece, not initialised; of its own where the block has no more."""
        size = int(np.prod(shape))
        if self._at + size > self._flat.size:
            return np.empty(shape)
        self._at += size
        return self._flat[self._at - size : self._at].reshape(shape)


class _Chains:
    """All lines of one set, along axis 0 of every array; shape (nodes, lines).

    `first`, `last`: see `_along`; `through_s`: conductance (S) from source to source along the
    empty line. `coupled` is False where a node is held: there departures are zero. `own`:
    conductance of each node to anything but its neighbours; a wire to the next node is zero beside
    a held one (it is in `own`).
    """

    def __init__(
        self,
        g_s: FloatArray,
        ohm: FloatArray,
        first_ohm: FloatArray,
        last_ohm: FloatArray,
        away: BoolArray,
        block: _Block,
    ) -> None:
        n, lines = g_s.shape
        self.ideal = not ohm.any()
        # A line that no source reaches by any way stands at 0 V like everything that it is joined
        # to.
        first_ohm = np.where(away, 0.0, first_ohm)
        total = first_ohm + (n - 1) * ohm + last_ohm
        self.shorted = total == 0
        self.through_s = np.divide(
            1.0, total, out=np.zeros(lines), where=np.isfinite(total) & (total > 0)
        )
        self.first, self.last = _along(ohm, first_ohm, last_ohm, n)
        self.first[:, away] = 0.0
        self.coupled = np.ones((n, lines), dtype=np.bool_)
        self.coupled[0] = first_ohm > 0
        self.coupled[-1] &= last_ohm > 0
        if self.ideal:
            self.coupled &= self.coupled.all(axis=0)
        self.own = block.take(n, lines)
        np.copyto(self.own, g_s)
        if not self.coupled.all():
            self.own[~self.coupled] = 1.0
        for at, end_ohm in ((0, first_ohm), (-1, last_ohm)):
            self.own[at] += np.divide(
                1.0, end_ohm, out=np.zeros(lines), where=(end_ohm > 0) & self.coupled[at]
            )
        self._inner_s = np.zeros(lines) if self.ideal else 1.0 / ohm
        self._outer_s = {}
        if not self.ideal and n > 1:
            for segment, end, inner in ((0, 0, 1), (n - 2, -1, -2)):
                wire = self.wire(segment)
                beside = np.where(self.coupled[end], 0.0, wire)
                self.own[inner] += np.where(self.coupled[inner], beside, 0.0)
                self._outer_s[segment] = wire - beside

    def wire(self, segment: int) -> FloatArray:
        """Conductance (S) of one segment of every line; of one beyond the last, zero."""
        if not 0 <= segment < len(self.own) - 1:
            return np.zeros(self.own.shape[1])
        return self._outer_s.get(segment, self._inner_s)

    @property
    def wires(self) -> FloatArray:
        """Those of all segments, (nodes - 1, lines)."""
        return np.array([self.wire(k) for k in range(len(self.own) - 1)]).reshape(
            -1, self.own.shape[1]
        )


class _Factors:
    """The chains factored, in folded order: both ends of all lines first, then their neighbours,
    and so on to the middle.

    Right sides and unknowns have shape (nodes, vectors, lines), here with `_PAD` empty lines at the
    end. Unknowns are those of the network over `scale`, right sides are multiplied by it: the
    pivots are then 1.
    """

    def __init__(self, chains: _Chains, block: _Block) -> None:
        self.ideal = chains.ideal
        own = _folded(chains.own, 0.0 if chains.ideal else 1.0, block)
        nodes, width = own.shape
        half = nodes // 2
        self.size = chains.own.shape
        self.shape = nodes, width - _PAD
        self.coupled = None if chains.coupled.all() else _folded(chains.coupled, 0.0, block)
        self.first, self.last = (
            _folded(a, 0.0, block) if len(a) > 1 else _folded_lines(a)
            for a in (chains.first, chains.last)
        )
        self._own = own
        if self.ideal:
            sums = _folded_lines(chains.own.sum(axis=0), fill=1.0)
            self.scale = np.broadcast_to(1.0 / np.sqrt(sums), own.shape)
            return
        # Two segments a step, from either end; all steps but the first two have the same.
        self._middle = _folded_lines(chains.wire(half - 1))
        pairs = [(chains.wire(k), chains.wire(nodes - 2 - k)) for k in range(min(3, half - 1))]
        self._wires = _folded_lines(np.array(pairs).reshape(-1, 2, chains.own.shape[1]))
        steps = [*self._wires.reshape(-1, 2 * width)]
        steps += steps[2:] * (half - 4)
        state, pivot, ratio = (block.take(k, 2 * width) for k in (half, half, half - 1))
        np.copyto(state, own.reshape(half, 2 * width))
        lost = np.empty(2 * width)
        for here, after, total, part, joins in zip(
            state, state[1:], pivot, ratio, steps, strict=False
        ):
            np.add(here, joins, total)
            np.divide(joins, total, part)
            np.multiply(here, part, lost)
            np.add(after, lost, after)
        one, other = state[-1].reshape(2, width)
        ends = pivot[-1].reshape(2, width)
        np.add((one, other), self._middle, out=ends)
        alone, join = np.stack((one, other)) / ends, self._middle / ends
        root = np.sqrt(pivot, out=pivot)
        ratio *= root[:-1]
        joint = self._middle / (root[-1, :width] * root[-1, width:])
        scale = np.divide(1.0, root, out=state)
        ratio *= scale[1:]
        self.scale = scale.reshape(nodes, width)
        # The two nodes that meet in the middle, scaled: ((1, -m), (-m, 1)), with 1 - m^2 as a sum.
        left = alone[0] * alone[1] + alone[0] * join[1] + join[0] * alone[1]
        self._meet = 1.0 / left, joint / left
        self._steps = list(ratio.reshape(half - 1, 2, 1, width)), list(ratio)

    def solve(self, x: FloatArray) -> None:
        """x becomes (chain + ends + cells)^-1 x, both scaled, in place; contiguous."""
        if self.ideal:
            x[:] = x.sum(axis=0)
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
        alone, joint = self._meet
        one[:], other[:] = alone * one + joint * other, joint * one + alone * other
        nodes.reverse()
        before = nodes[0]
        for node, ratio in zip(nodes[1:], reversed(steps), strict=True):
            multiply(ratio, before, work)
            add(node, work, node)
            before = node

    def apply(self, x: FloatArray, out: FloatArray, work: FloatArray) -> None:
        """(chain + ends + cells) x, neither of them scaled. Of an ideal line only the sum over its
        nodes has a meaning.
        """
        np.multiply(x, self._own[:, None], out=out)
        if self.ideal:
            return
        pairs, into, flow = (a.reshape(-1, 2, *x.shape[1:]) for a in (x, out, work))
        flow = flow[:-1]
        np.subtract(pairs[:-1], pairs[1:], out=flow)
        flow[:2] *= self._wires[:2, :, None]
        flow[2:] *= self._wires[2:, :, None]
        into[:-1] += flow
        into[1:] -= flow
        across = (pairs[-1, 0] - pairs[-1, 1]) * self._middle
        into[-1, 0] += across
        into[-1, 1] -= across


def _even(n: int) -> int:
    return n + n % 2


def _folded_lines(natural: NDArray[Any], fill: float = 0.0) -> NDArray[Any]:
    """The last axis in the order 0, last, 1, last but one, ..., an empty one added where it is odd,
    and `_PAD` empty ones.
    """
    n = natural.shape[-1]
    half = _even(n) // 2
    found = np.full((*natural.shape[:-1], _even(n) + _PAD), fill, dtype=natural.dtype)
    found[..., 0 : 2 * half : 2] = natural[..., :half]
    found[..., 1 + 2 * (n % 2) : 2 * half : 2] = natural[..., : half - 1 : -1]
    return found


def _folded(natural: NDArray[Any], fill: float, block: _Block) -> FloatArray:
    """Both nodes and lines in that order; nodes without the padding."""
    n, m = natural.shape
    found = block.take(_even(n), _even(m) + _PAD)
    found[:, _even(m) :] = fill
    if m % 2:
        found[:, 1] = fill
    if n % 2:
        found[1] = fill
    for row, folded_row in _natural(n):
        for column, folded_column in _natural(m):
            found[folded_row, folded_column] = natural[row, column]
    return found


def _natural(n: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the first half of n nodes or lines stands in natural and in folded order, and the
    second half.
    """
    half = _even(n) // 2
    first = slice(0, half), slice(0, 2 * half, 2)
    return first, (slice(half, n), slice(2 * half - 1, 1 if n % 2 else None, -2))


def _add_to(y: FloatArray, a: FloatArray, x: FloatArray, work: FloatArray) -> None:
    """y += a x, in place, one `a` per vector; shape (nodes, vectors, lines). `work` is lost and may
    be x.
    """
    np.multiply(x, a[:, None], out=work)
    np.add(y, work, out=y)


def _dot(x: FloatArray, y: FloatArray) -> FloatArray:
    """One product per vector. Not by BLAS, whose threads cost more than they save here, a hundred
    times so on busy cores.
    """
    return np.asarray(np.einsum("nkl,nkl->k", x, y))


def _collected(share: FloatArray, current: FloatArray) -> FloatArray:
    """Currents into the nodes (nodes, vectors, lines), times a source's share, summed along the
    lines: (vectors, lines).
    """
    if not share.any():
        return np.zeros(current.shape[1:])
    if len(share) == 1:
        return np.asarray(current.sum(axis=0) * share[0])
    return np.asarray(np.einsum("nl,nkl->kl", share, current))


class Prepared:
    """A crossbar with its lines factored; `solve` may be called any number of times, from several
    threads.
    """

    def __init__(self, crossbar: Crossbar) -> None:
        c = self.crossbar = crossbar
        rows = crossbar.g_s.shape[0]
        left, right, top, bottom = (
            np.asarray(x) for x in (c.left_ohm, c.right_ohm, c.top_ohm, c.bottom_ohm)
        )
        away = self._out_of_reach(
            np.isfinite(left) | np.isfinite(right), np.isfinite(top) | np.isfinite(bottom)
        )
        nodes = (_even(c.g_s.shape[0]) + _PAD) * (_even(c.g_s.shape[1]) + _PAD)
        block = _Block(12 * nodes)
        self._row_chains = _Chains(c.g_s.T, np.asarray(c.row_ohm), left, right, away[:rows], block)
        self._column_chains = _Chains(
            c.g_s, np.asarray(c.column_ohm), top, bottom, away[rows:], block
        )
        self._rows, self._columns = (
            _Factors(self._row_chains, block),
            _Factors(self._column_chains, block),
        )
        self._cells = _folded(c.g_s, 0.0, block)
        # Conductances between nodes that are both unknown, scaled as these are.
        both = self._row_chains.coupled.T & self._column_chains.coupled
        self._joint = c.g_s if both.all() else np.where(both, c.g_s, 0.0)
        inner = self._columns.shape
        self._coupling = self._cells if both.all() else _folded(self._joint, 0.0, block)
        self._coupling = np.multiply(
            self._coupling, self._columns.scale, out=block.take(*self._cells.shape)
        )
        self._coupling[:, : inner[1]] *= self._rows.scale[:, : inner[0]].T

    def _out_of_reach(self, row_driven: BoolArray, column_driven: BoolArray) -> BoolArray:
        """Lines that no current from any source can reach, rows then columns."""
        driven = np.concatenate((row_driven, column_driven))
        if driven.all():
            return ~driven
        rows, columns = self.crossbar.g_s.shape
        # 0.25 s to load, which every simulator would pay and few arrays need; so below.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        i, j = np.nonzero(self.crossbar.g_s)
        size = rows + columns
        joins = coo_array((np.ones(i.size, dtype=np.int8), (i, j + rows)), shape=(size, size))
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
        """Potentials and currents for the sources' volts: one number, (lines,), or (n, lines) for n
        vectors.

        Volts at an end without a source are ignored. `nodes`: keep the potentials and cell
        currents. `method` "direct" is the sparse factorisation. Raises `ValueError` for volts of a
        wrong shape, and for two sources of different volts joined without resistance.
        """
        volts, n = self._volts(left_v, right_v, top_v, bottom_v)
        rows, columns = self.crossbar.g_s.shape
        ends = [np.zeros(v.shape) for v in volts]
        kept = [np.empty((n, rows, columns)) for _ in range(3)] if nodes else []
        worst, good, count = np.full(n, np.inf), np.zeros(n, dtype=np.bool_), 0
        group = max(1, _GROUP_NODES // (rows * columns))
        group = group if group > 2 else 1
        space = self._space(min(group, n))
        for first in range(0, n if method == "auto" else 0, group):
            part = slice(first, min(first + group, n))
            if first > 0:
                # Of what the vectors before left, these count; empty lines are zero in all and stay
                # so.
                space[0][:3] = 0.0
            took, worst[part], good[part] = self._iterate(
                [v[part] for v in volts], [e[part] for e in ends], [k[part] for k in kept], space
            )
            count = max(count, took)
        bad = np.flatnonzero(~good)
        for k in bad.tolist():
            self._solve_directly([v[k] for v in volts], [e[k] for e in ends], [a[k] for a in kept])
        for chains, k in ((self._row_chains, 0), (self._column_chains, 2)):
            through = (volts[k] - volts[k + 1]) * chains.through_s
            ends[k] += through
            ends[k + 1] -= through
        note = ""
        if bad.size and method == "auto":
            note = (
                f"{bad.size} of {n} vectors did not converge and were solved by the sparse"
                " factorisation"
            )
        residual = float(np.delete(worst, bad).max(initial=0.0))
        row_v, column_v, cell_a = kept or (None, None, None)
        return Solution(
            ends[0], ends[1], ends[2], ends[3], row_v, column_v, cell_a, count, residual, note
        )

    def _volts(self, *given: ArrayLike) -> tuple[list[FloatArray], int]:
        """Volts of the four ends, (vectors, lines) each, and the number of vectors."""
        rows, columns = self.crossbar.g_s.shape
        arrays = [np.asarray(v, dtype=np.float64) for v in given]
        n = max([1, *(v.shape[0] for v in arrays if v.ndim == 2)])
        sizes = (rows, rows, columns, columns)
        for name, v, size in zip(
            ("left_v", "right_v", "top_v", "bottom_v"), arrays, sizes, strict=True
        ):
            if v.shape not in ((), (size,), (n, size), (1, size)) or not np.isfinite(v).all():
                raise ValueError(
                    f"crossbar: {name} must be finite volts: one number, ({size},) or (vectors,"
                    f" {size})"
                )
        volts = [np.broadcast_to(v, (n, size)) for v, size in zip(arrays, sizes, strict=True)]
        for chains, k in ((self._row_chains, 0), (self._column_chains, 2)):
            if (volts[k] != volts[k + 1])[:, chains.shorted].any():
                raise ValueError(
                    "crossbar: two sources of different volts are joined without resistance"
                )
        return volts, n

    def _space(self, vectors: int) -> tuple[FloatArray, FloatArray]:
        """Working memory, arrays of the rows' nodes and of the columns': one block, for which the
        system has large pages.
        """
        (m, wide), (n, wide_too) = self._rows.scale.shape, self._columns.scale.shape
        split = 7 * m * vectors * wide
        block = np.zeros(split + 3 * n * vectors * wide_too)
        return block[:split].reshape(7, m, vectors, wide), block[split:].reshape(
            3, n, vectors, wide_too
        )

    def _iterate(
        self,
        volts: list[FloatArray],
        ends: list[FloatArray],
        kept: list[FloatArray],
        space: tuple[FloatArray, FloatArray],
    ) -> tuple[int, FloatArray, BoolArray]:
        """Conjugate gradients, into `ends` and `kept`; returns the iterations, each vector's
        residual, and which are good.
        """
        rows, columns = self._rows, self._columns
        n, m = columns.shape
        vectors = volts[0].shape[0]
        cells, coupling = self._cells[:, None], self._coupling[:, None]
        scale_u, scale_w = rows.scale[:, None], columns.scale[:, None]
        left, right, top, bottom = (_folded_lines(v) for v in volts)
        # Along the lines: (columns, vectors, rows) of the rows' nodes, (rows, vectors, columns) of
        # the columns'.
        u0 = rows.first[:, None] * left + rows.last[:, None] * right
        w0 = columns.first[:, None] * top + columns.last[:, None] * bottom
        u0, w0 = np.broadcast_to(u0, (m, *u0.shape[1:])), np.broadcast_to(w0, (n, *w0.shape[1:]))
        if space[0].shape[2] != vectors:
            space = self._space(vectors)
        u, p, q, r, z, s, source_u = space[0]
        w, reflected, base_w = space[1]

        def reflect(x: FloatArray, out: FloatArray) -> FloatArray:
            """G (C + G)^-1 G x as the rows see it, a view of `out`; (C + G)^-1 G x is left in w,
            unless that is `out`.
            """
            np.multiply(x.transpose(2, 1, 0)[:n], coupling[..., :m], out=w[..., :m])
            columns.solve(w)
            np.multiply(w, coupling, out=out)
            return out.transpose(2, 1, 0)[:m]

        np.subtract(u0.transpose(2, 1, 0)[:n], w0[..., :m], out=base_w[..., :m])
        base_w *= cells
        np.negative(base_w.transpose(2, 1, 0)[:m], out=source_u[..., :n])
        if rows.coupled is not None:
            source_u *= rows.coupled[:, None]
        if columns.coupled is not None:
            base_w *= columns.coupled[:, None]
        source_u *= scale_u
        base_w *= scale_w
        columns.solve(base_w)
        np.multiply(base_w, coupling, out=w)
        source_u[..., :n] += w.transpose(2, 1, 0)[:m]
        np.copyto(r, source_u)
        np.copyto(z, r)
        rows.solve(z)
        now = size = _dot(r, z)
        goal = _TARGET**2 * size
        count = 0
        for _ in range(_REFINEMENTS):
            again = np.zeros(vectors)
            while count < _ITERATIONS and (now > goal).any():
                count += 1
                # S z is r less what the columns reflect, for (R + G) z is r; S p follows from the S
                # p before.
                np.subtract(r[..., :n], reflect(z, out=w), out=s[..., :n])
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
            # The residual of the solution itself: what conjugate gradients carry along drifts.
            np.multiply(u, scale_u, out=z)
            rows.apply(z, out=s, work=p)
            s *= scale_u
            np.subtract(source_u, s, out=r)
            r[..., :n] += reflect(u, out=reflected)
            p[:] = 0.0
            np.copyto(z, r)
            rows.solve(z)
            now = _dot(r, z)
            worst = np.sqrt(
                np.divide(np.maximum(now, 0.0), size, out=np.zeros(vectors), where=size > 0)
            )
            # The residual of the potentials' own last digits: wires of much conductance between
            # cells of little.
            digits = (
                8
                * _EPSILON
                * np.sqrt(np.divide(_dot(u, u), size, out=np.zeros(vectors), where=size > 0))
            )
            if (worst <= np.maximum(2 * _TARGET, digits)).all() or count >= _ITERATIONS:
                break
        good = worst <= np.maximum(RESIDUAL, digits)
        w += base_w
        w *= scale_w
        w += w0
        u *= scale_u
        u += u0
        current = reflected
        np.subtract(u.transpose(2, 1, 0)[:n], w[..., :m], out=current[..., :m])
        current *= cells
        self._unfold(u, w, current, ends, kept)
        return count, worst, good

    def _unfold(
        self,
        u: FloatArray,
        w: FloatArray,
        current: FloatArray,
        ends: list[FloatArray],
        kept: list[FloatArray],
    ) -> None:
        """The ends' currents from the cells', into `ends`, and all nodes into `kept`, in the
        crossbar's own order; `u` lies along the rows, `w` and `current` along the columns.
        """
        rows, columns = self._rows, self._columns
        n, m = columns.shape
        orders = _natural(self._row_chains.own.shape[1]), _natural(self._column_chains.own.shape[1])
        along_rows = current.transpose(2, 1, 0)[:m]
        collected = (
            _collected(rows.first[:, :n], along_rows),
            _collected(rows.last[:, :n], along_rows),
            -_collected(columns.first, current),
            -_collected(columns.last, current),
        )
        for k, line_a in enumerate(collected):
            for natural, folded in orders[k // 2]:
                ends[k][:, natural] = line_a[:, folded]
        nodes = (u.transpose(1, 2, 0), w.transpose(1, 0, 2), current.transpose(1, 0, 2))
        for into, values in zip(kept, nodes, strict=False):
            for row, folded_row in orders[0]:
                for column, folded_column in orders[1]:
                    into[:, row, column] = values[:, folded_row, folded_column]

    @cached_property
    def _direct(self) -> tuple[SuperLU | None, NDArray[np.int64], NDArray[np.int64], int]:
        """Sparse factors, the unknown of each row node and column node (those of held ones: the
        count), and their count.
        """
        chains = (self._row_chains, self._column_chains)
        count = 0
        numbers = []
        for c in chains:
            # All nodes of an ideal line are one unknown.
            free = c.coupled[:1] if c.ideal else c.coupled
            number = np.where(free, count + np.cumsum(free).reshape(free.shape) - 1, -1)
            numbers.append(np.broadcast_to(number, c.coupled.shape))
            count += int(np.count_nonzero(free))
        row, column = (np.where(n < 0, count, n) for n in numbers)
        if count == 0:
            return None, row.T, column, 0
        a, b = [row.ravel(), column.ravel()], [row.ravel(), column.ravel()]
        g = [c.own.ravel() for c in chains]
        pairs = [(row.T, column, self._joint)]
        pairs += [
            (n[:-1], n[1:], c.wires)
            for n, c in zip((row, column), chains, strict=True)
            if not c.ideal
        ]
        for k, (i, j, s) in enumerate(pairs):
            one, other, joins = i[s > 0], j[s > 0], s[s > 0]
            # `own` of a node holds its cell already, but not its wires.
            a += [one, other] if k == 0 else [one, other, one, other]
            b += [other, one] if k == 0 else [other, one, one, other]
            g += [-joins, -joins] if k == 0 else [-joins, -joins, joins, joins]
        from scipy.sparse import coo_array
        from scipy.sparse.linalg import splu

        matrix = coo_array(
            (np.concatenate(g), (np.concatenate(a), np.concatenate(b))),
            shape=(count + 1, count + 1),
        ).tocsc()[:count, :count]
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        return factors, row.T, column, count

    def _solve_directly(
        self, volts: list[FloatArray], ends: list[FloatArray], kept: list[FloatArray]
    ) -> None:
        """One vector by the sparse factorisation, into `ends` and `kept`."""
        factors, row, column, count = self._direct
        rows, columns, g = self._row_chains, self._column_chains, self.crossbar.g_s
        u = np.broadcast_to((rows.first * volts[0] + rows.last * volts[1]).T, g.shape)
        w = np.broadcast_to(columns.first * volts[2] + columns.last * volts[3], g.shape)
        if factors is not None:
            current = (g * (u - w)).ravel()
            source = np.bincount(column.ravel(), current, count + 1) - np.bincount(
                row.ravel(), current, count + 1
            )
            found = np.append(factors.solve(source[:count]), 0.0)
            u, w = u + found[row], w + found[column]
        current = g * (u - w)
        for k, share in enumerate((rows.first, rows.last, columns.first, columns.last)):
            ends[k][:] = _collected(share, (current.T if k < 2 else -current)[:, None])[0]
        for into, a in zip(kept, (u, w, current), strict=False):
            into[:] = a
