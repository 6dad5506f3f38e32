"""Routes of a matrix bench: which relays and channel levels carry out the steps of an `Apply`, cell after cell of one row.

Pure computation. The last channel of a 1T1R bench drives word lines, the others bit and source lines; lines at 0 V hang on the
ground row. A 1R array needs two channels: bit line and source line, so that the current is measured at a line that only the
selected cell feeds.

In a 1R array only the difference BL - SL reaches the cell, so the pair is shifted to where the unselected lines can stand at
ground: INHIBIT keeps SL at 0 V, HALF puts both lines at half the volts. Steps that measure at or below the read limit ground all
unselected lines whatever the scheme: the sneak currents of half-selected cells would else pass for the cell's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rram_hil.cells import Geometry, IntArray
from rram_hil.errors import ConfigError
from rram_hil.instrument import Crosspoint
from rram_hil.limits import Limits
from rram_hil.operations import Apply, FloatArray, Scheme, Step

from ._wiring import Wiring

FLOATING = ""
"""Stands for a matrix row where a line hangs on nothing."""

Relays = frozenset[Crosspoint]


@dataclass(frozen=True, eq=False)
class Route:
    """How one step is carried out: matrix rows of the lines, levels of the channels.

    `bl`, `sl`, `wl` are the rows of the selected cell's lines, `other_bl`, `other_sl` those of all others of the kind (other word
    lines are always on ground). `levels` holds each channel's volts, one a cell, shape (n,), in the order in which they rise
    (gate first). `sense` is the channel that measures, empty for none; `sign` turns its current into that of the cell from BL to
    SL (0 where the gate's is measured). `drop_v` is BL - SL as asked, shape (n,).
    """

    bl: str
    sl: str
    wl: str
    other_bl: str
    other_sl: str
    levels: dict[str, FloatArray]
    width_s: float
    sense: str
    sign: int
    drop_v: FloatArray


@dataclass(frozen=True, eq=False)
class Visit:
    """One step on one cell: relays to open, then to close, and what the channels then do. Sources stand at zero meanwhile."""

    cell: int
    step: int
    opened: tuple[Crosspoint, ...]
    closed: tuple[Crosspoint, ...]


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A part of an `Apply`: n cells of one row, one after the other, each through all routes.

    `at` are the cells' positions in the batch, shape (n,). `after` are the relays closed at the end. `most_v` is the largest
    |level| of each channel in the whole batch, so that ranges need not change from row to row.
    `above_s` and `below_s` (n,) are the stop condition, None for none. `compliance_a` bounds the cell's current: as asked where
    `is_bounded`, else by the bench's limit.
    """

    at: IntArray
    routes: tuple[Route, ...]
    visits: tuple[Visit, ...]
    after: Relays
    most_v: dict[str, float]
    compliance_a: float
    is_bounded: bool
    above_s: FloatArray | None
    below_s: FloatArray | None

    @property
    def measuring(self) -> tuple[int, ...]:
        """The routes that measure."""
        return tuple(k for k, route in enumerate(self.routes) if route.sense)

    def takes_s(self, settle_s: float, source_s: float) -> float:
        """How long it takes: relays, levels (each needs `source_s` to settle), widths."""
        moves = sum(bool(v.opened) + bool(v.closed) for v in self.visits)
        levels = sum((len(r.levels) + 1) * source_s + r.width_s for r in self.routes) * self.at.size
        return moves * settle_s + levels


class Router:
    """Makes the routes of one bench. Raises `ConfigError` for what its channels cannot do."""

    def __init__(self, wiring: Wiring, geometry: Geometry, limits: Limits) -> None:
        self._wiring, self._geometry, self._limits = wiring, geometry, limits
        channels = tuple(wiring.channels)
        self._is_1r = geometry.cell == "1R"
        if len(channels) < 2:
            need = (
                "one for the bit line and one for the source line" if self._is_1r else "the last drives the word line"
            )
            raise ConfigError(f"driver.wiring.channels: a {geometry.cell} array needs at least two channels: {need}")
        self.gate = "" if self._is_1r else channels[-1]
        self.forces = channels if self._is_1r else channels[:-1]

    @property
    def schemes(self) -> frozenset[Scheme]:
        """Schemes for unselected lines that these channels can give."""
        if self._is_1r:
            return frozenset({Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING, Scheme.HALF})
        return frozenset({Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING})

    def routes(self, operation: Apply) -> tuple[Route, ...]:
        """The steps of an operation, repeats spelled out. Raises `ConfigError` naming the step that cannot be done."""
        n = len(operation.cells)
        one = self._route_1r if self._is_1r else self._route_1t1r
        routes = tuple(one(step, n, operation) for step in operation.steps)
        return routes * operation.repeat

    def plan(
        self, operation: Apply, routes: tuple[Route, ...], at: IntArray, before: Relays, default_compliance_a: float
    ) -> RowPlan:
        """The plan of the cells at positions `at` of the batch, all in one row; `routes` are those of the whole batch."""
        mine = tuple(replace(r, levels={c: v[at] for c, v in r.levels.items()}, drop_v=r.drop_v[at]) for r in routes)
        visits, now = self._visits(mine, operation, at, before)
        stop = None if operation.stop is None else operation.stop.part(at)
        bounds = [
            None if bound is None else np.broadcast_to(np.asarray(bound, dtype=np.float64), at.shape)
            for bound in (None if stop is None else stop.above_s, None if stop is None else stop.below_s)
        ]
        compliance = default_compliance_a if operation.compliance_a is None else operation.compliance_a
        is_bounded = operation.compliance_a is not None
        most_v = {
            c: max(float(np.max(np.abs(r.levels[c]), initial=0.0)) for r in routes) for c in self._wiring.channels
        }
        return RowPlan(at, mine, tuple(visits), now, most_v, compliance, is_bounded, bounds[0], bounds[1])

    def _visits(
        self, routes: Sequence[Route], operation: Apply, at: IntArray, before: Relays
    ) -> tuple[list[Visit], Relays]:
        visits, now = [], before
        for cell, position in enumerate(at):
            row, column = int(operation.cells.row[position]), int(operation.cells.column[position])
            for step, route in enumerate(routes):
                wanted = self._relays(route, row, column)
                visits.append(Visit(cell, step, tuple(sorted(now - wanted)), tuple(sorted(wanted - now))))
                now = wanted
        return visits, now

    def _relays(self, route: Route, row: int, column: int) -> Relays:
        """The crosspoints closed while this cell is selected."""
        wiring, geometry = self._wiring, self._geometry
        points: set[Crosspoint] = set()

        def join(columns: tuple[int, ...], chosen: int, selected: str, other: str) -> None:
            points.update((selected if k == chosen else other, line) for k, line in enumerate(columns))

        along = {"row": row, "column": column, "common": 0}[geometry.source_lines]
        join(wiring.bl_columns, column, route.bl, route.other_bl)
        join(wiring.sl_columns, row if self._is_1r else along, route.sl, route.other_sl)
        join(wiring.wl_columns, row, route.wl, wiring.ground)
        return frozenset(point for point in points if point[0] != FLOATING)

    def _route_1t1r(self, step: Step, n: int, operation: Apply) -> Route:
        wiring = self._wiring
        rows = {"bl": wiring.ground, "sl": wiring.ground, "wl": wiring.channels[self.gate]}
        levels: dict[str, FloatArray] = {}
        gate = step.levels("wl", n)
        if gate is None:
            rows["wl"] = FLOATING
        levels[self.gate] = np.zeros(n) if gate is None else np.array(gate)
        volts = {line: step.levels(line, n) for line in ("bl", "sl")}
        forced = [line for line, v in volts.items() if v is not None and (len(self.forces) > 1 or np.any(v != 0))]
        if step.measure == "current" and not forced:
            forced = [line for line, v in volts.items() if v is not None][:1]
        if len(forced) > len(self.forces):
            raise ConfigError(
                "smu-matrix: a step with volts on bit line and source line at once needs three channels; this bench has "
                f"{len(wiring.channels)} ({', '.join(wiring.channels)})"
            )
        on = dict(zip(forced, self.forces, strict=False))
        # The source line rises before the bit line, so that a cell that is to see their difference never sees more.
        for line in ("sl", "bl"):
            level = volts[line]
            if level is None:
                rows[line] = FLOATING
            elif line in on:
                rows[line] = wiring.channels[on[line]]
                levels[on[line]] = np.array(level)
        for channel in self.forces:
            levels.setdefault(channel, np.zeros(n))
        other_bl = {Scheme.INHIBIT: rows["sl"], Scheme.GROUNDED: wiring.ground, Scheme.FLOATING: FLOATING}
        if operation.unselected not in other_bl:
            raise ConfigError(
                f"smu-matrix: no channel is left for unselected bit lines at {operation.unselected.value}"
            )
        others = other_bl[operation.unselected]
        other_sl = others if self._geometry.source_lines == "column" else wiring.ground
        sense, sign = "", 1
        if step.measure == "gate":
            sense, sign = self.gate, 0
        elif step.measure == "current":
            line = "bl" if "bl" in on else "sl"
            sense, sign = on.get(line, ""), 1 if line == "bl" else -1
            if not sense:
                raise ConfigError("smu-matrix: a current is measured where neither bit nor source line is driven")
        if sign < 0 and others == wiring.ground:
            raise ConfigError(
                "smu-matrix: with unselected bit lines grounded, the current of a driven source line is that of the whole row; "
                "use the scheme inhibit, or read after the pulse"
            )
        return Route(
            rows["bl"], rows["sl"], rows["wl"], others, other_sl, levels, step.width_s, sense, sign, step.cell_v(n)
        )

    def _route_1r(self, step: Step, n: int, operation: Apply) -> Route:
        wiring = self._wiring
        bl_channel, sl_channel = self.forces[:2]
        bl, sl = step.levels("bl", n), step.levels("sl", n)
        if bl is None or sl is None:
            raise ConfigError("smu-matrix: a floating line of the selected cell of a 1R array is not available")
        if step.measure == "gate":
            raise ConfigError("smu-matrix: a 1R array has no gate current")
        drop = bl - sl
        scheme = operation.unselected
        is_read = bool(np.all(np.abs(drop) <= self._limits.read_v))
        if step.measure == "current":
            if not is_read and scheme in (Scheme.HALF, Scheme.FLOATING):
                raise ConfigError(
                    "smu-matrix: a current above the read limit cannot be told from those of half-selected cells with unselected"
                    f" lines {scheme.value}; read after the pulse instead"
                )
            scheme = Scheme.INHIBIT if is_read else scheme
        if operation.compliance_a is not None and not is_read and scheme in (Scheme.HALF, Scheme.FLOATING):
            raise ConfigError(f"smu-matrix: a compliance current does not bound one cell with lines {scheme.value}")
        pair = {
            Scheme.INHIBIT: (drop, np.zeros(n)),
            Scheme.HALF: (drop / 2, -drop / 2),
            Scheme.GROUNDED: (np.array(bl), np.array(sl)),
            Scheme.FLOATING: (np.array(bl), np.array(sl)),
        }
        if scheme not in pair:
            raise ConfigError(f"smu-matrix: no channels are left for unselected lines at {scheme.value}")
        other = FLOATING if scheme is Scheme.FLOATING else wiring.ground
        levels = {sl_channel: pair[scheme][1], bl_channel: pair[scheme][0]}
        sense = sl_channel if step.measure == "current" else ""
        rows = wiring.channels
        return Route(rows[bl_channel], rows[sl_channel], FLOATING, other, other, levels, step.width_s, sense, -1, drop)
