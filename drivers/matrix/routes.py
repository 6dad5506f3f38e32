"""Routes of a matrix bench: which relays and channel levels carry out the steps of an `Apply`, cell
after cell of one row.

Pure computation. The last channel of a 1T1R bench drives word lines, the others bit and source
lines; lines at 0 V hang on the ground row. A 1R array needs two channels: bit line and source line,
so that the current is measured at a line that only the selected cell feeds.

In a 1R array only the difference BL - SL reaches the cell, so the pair is shifted to where the
unselected lines can stand at ground: INHIBIT keeps SL at 0 V, HALF puts both lines at half the
volts. Steps that measure at or below the read limit ground all unselected lines whatever the
scheme: the sneak currents of half-selected cells would else pass for the cell's own.

Steps above the read limit that are shorter than the source-meters time go to a pulse generator,
where there is one: on a row of its own in place of the one line that is driven. It bounds no
current, so a compliance is refused there, and it measures nothing.

`rram_hil.array.limits` looks at levels as they stand. What it cannot see is refused here: levels on
their way (the gate is up before the lines, and one line before the other), and what a shifted pair
puts on a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rram_hil.array import (
    Apply,
    Geometry,
    Limits,
    Scheme,
    Step,
    StepExtra,
    check_levels,
    stressed_v,
)
from rram_hil.errors import ConfigError, LimitError
from rram_hil.hardware.instrument import Crosspoint
from rram_hil.types import FloatArray, IntArray

from .wiring import BL, SL, Wiring

VISIT_S = 5e-3
"""Allowance in timeouts for one step of one cell: commands on their way, changes of measuring
ranges.
"""
FLOATING = ""
"""Stands for a matrix row where a line hangs on nothing."""

Relays = frozenset[Crosspoint]


@dataclass(frozen=True, eq=False)
class Route:
    """How one step is carried out: matrix rows of the lines, levels of the channels.

    `bl`, `sl`, `wl` are the rows of the selected cell's lines, `other_bl`, `other_sl` those of all
    others of the kind. `other_wl` and `body` are those of all other word lines and of the bodies;
    `held` are the levels (V) of the channels that hold them. `levels` holds each channel's volts,
    one a cell, shape (n,), in the order in which they rise (gate first); `most_v` is the largest
    |level| of each in the whole batch, which chooses its range. `sense` is the channel that
    measures, empty for none; `sign` turns its current into that of the cell from BL to SL (0 where
    the gate's is measured). `drop_v` is BL - SL as asked, shape (n,); `is_read` says that no cell
    of the batch has more than the read limit. `generator` is the channel that gives the step
    instead of a source-meter (empty: none) and `pulse_v` its volts, shape (n,).
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
    is_read: bool
    most_v: dict[str, float]
    generator: str = ""
    pulse_v: FloatArray | None = None
    other_wl: str = FLOATING
    body: str = FLOATING
    held: Mapping[str, float] = field(default_factory=dict)

    @property
    def joins(self) -> tuple[str, ...]:
        """The rows of all lines."""
        return self.bl, self.sl, self.wl, self.other_bl, self.other_sl, self.other_wl, self.body

    def tells(self, cell: int) -> bool:
        """Whether what is measured there is a conductance: not at the gate, and not at 0 V."""
        return bool(self.sense and self.sign and self.drop_v[cell] != 0)


@dataclass(frozen=True, eq=False)
class Visit:
    """One step on one cell: relays to open, then to close, and what the channels then do. Sources
    stand at zero meanwhile.
    """

    cell: int
    step: int
    opened: tuple[Crosspoint, ...]
    closed: tuple[Crosspoint, ...]


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A part of an `Apply`: n cells of one row, one after the other, each through all routes.

    `at` are the cells' positions in the batch, shape (n,). `after` are the relays closed at the
    end. `limit_a` is the current limit of each channel. `above_s` and `below_s` (n,) are the stop
    condition, None for none; `at_compliance` says that a reading at compliance ends a cell's steps.
    """

    at: IntArray
    routes: tuple[Route, ...]
    visits: tuple[Visit, ...]
    after: Relays
    limit_a: Mapping[str, float]
    above_s: FloatArray | None
    below_s: FloatArray | None
    at_compliance: bool = False

    @property
    def measuring(self) -> tuple[int, ...]:
        """The routes that measure."""
        return tuple(k for k, route in enumerate(self.routes) if route.sense)

    @property
    def has_stop(self) -> bool:
        """Whether a reading can end a cell's steps."""
        return self.at_compliance or self.above_s is not None or self.below_s is not None

    def takes_s(self, settle_s: float, source_s: float) -> float:
        """How long it takes at most: relays, levels (each needs `source_s` to settle), widths, work
        between.
        """
        moves = sum(bool(v.opened) + bool(v.closed) for v in self.visits)
        levels = sum(2 * len(r.levels) * source_s + r.width_s for r in self.routes) * self.at.size
        return moves * settle_s + levels + len(self.visits) * VISIT_S


class Router:
    """Makes the routes of one bench. Raises `ConfigError` for what its channels cannot do."""

    def __init__(
        self, wiring: Wiring, geometry: Geometry, limits: Limits, shortest_s: float = 0.0
    ) -> None:
        """`shortest_s` is the shortest step of the source-meters."""
        self._wiring, self._geometry, self._limits = wiring, geometry, limits
        self._shortest_s = shortest_s
        channels = tuple(wiring.channels)
        self._is_1r = geometry.cell == "1R"
        if not channels:
            raise ConfigError("driver.wiring.channels: one source-meter channel is needed to read")
        if len(channels) < 2 and not wiring.is_direct:
            need = (
                "one for the bit line and one for the source line"
                if self._is_1r
                else "the last drives the word line"
            )
            raise ConfigError(
                f"driver.wiring.channels: a {geometry.cell} array needs at least two channels:"
                f" {need}"
            )
        self.gate = "" if self._is_1r else channels[-1]
        self.forces = channels if self._is_1r else channels[:-1]

    @property
    def schemes(self) -> frozenset[Scheme]:
        """Schemes for unselected lines that these channels can give."""
        if self._is_1r:
            return frozenset({Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING, Scheme.HALF})
        return frozenset({Scheme.INHIBIT, Scheme.GROUNDED, Scheme.FLOATING})

    def routes(self, operation: Apply) -> tuple[Route, ...]:
        """The steps of an operation, repeats spelled out. Raises `ConfigError` naming the step that
        cannot be done.
        """
        n = len(operation.cells)
        routes = tuple(
            replace(self._any(step, n, operation), **self._beside(step, n, operation))
            for step in operation.steps
        )
        return routes * operation.repeat

    @property
    def extras(self) -> frozenset[StepExtra]:
        """What a step may say beside its lines."""
        wired: dict[StepExtra, object] = {
            "body_v": self._wiring.body,
            "unselected_wl_v": self._wiring.unselected_wl,
        }
        return frozenset(name for name, source in wired.items() if source is not None)

    def as_wired(self, operation: Apply) -> Apply:
        """The operation with the level that bodies have where it says none: 0 V, if they are
        wired.
        """
        if self._wiring.body is None:
            return operation
        steps = tuple(
            replace(step, body_v=0.0) if step.body_v is None else step for step in operation.steps
        )
        return replace(operation, steps=steps)

    def _beside(self, step: Step, n: int, operation: Apply) -> dict[str, Any]:
        """What a route has beside bit, source and selected word line: rows, levels, and whether
        cells of other rows may see more than a read's volts.
        """
        wiring, held = self._wiring, {}
        if self._is_1r:
            return {}
        felt = stressed_v(step, n, operation.unselected, self._geometry)
        other_wl = body = wiring.ground
        if wiring.unselected_wl is not None and step.unselected_wl_v is not None:
            other_wl = wiring.unselected_wl.row
            held[wiring.unselected_wl.channel] = step.unselected_wl_v
        if wiring.body is not None and (step.body_v or not wiring.body.row):
            body = wiring.body.row
            held = {wiring.body.channel: step.body_v or 0.0} | held
        is_read = bool(np.all(felt <= self._limits.read_v))
        return {"other_wl": other_wl, "body": body, "held": held, "is_read": is_read}

    def _any(self, step: Step, n: int, operation: Apply) -> Route:
        if step.width_s >= self._shortest_s * (1 - 1e-9) or not self._wiring.generators:
            if self._wiring.is_direct:
                return self._route_direct(step, n)
            return (self._route_1r if self._is_1r else self._route_1t1r)(step, n, operation)
        why = ""
        if np.all(np.abs(step.cell_v(n)) <= self._limits.read_v):
            why = "is a read, which a generator does not take: give it more volts"
        elif step.measure != "no":
            why = "measures at its level; read after it"
        elif operation.compliance_a is not None:
            why = "asks for a compliance, which a generator has not; leave it out"
        if why:
            raise ConfigError(
                f"smu-matrix: a step of {step.width_s:g} s {why}, or let it last"
                f" {self._shortest_s:g} s or more, which the source-meters time"
            )
        return self._route_pulse(step, n, operation)

    def plan(
        self,
        operation: Apply,
        routes: tuple[Route, ...],
        at: IntArray,
        before: Relays,
        limit_a: Mapping[str, float],
    ) -> RowPlan:
        """The plan of the cells at positions `at` of the batch, all in one row; `routes` are those
        of the whole batch.
        """
        mine = tuple(
            replace(
                r,
                levels={c: v[at] for c, v in r.levels.items()},
                drop_v=r.drop_v[at],
                pulse_v=None if r.pulse_v is None else r.pulse_v[at],
            )
            for r in routes
        )
        visits, now = self._visits(mine, operation, at, before)
        stop = operation.stop
        above, below = (
            (
                None
                if bound is None
                else np.broadcast_to(np.asarray(bound, dtype=np.float64), (len(operation.cells),))[
                    at
                ]
            )
            for bound in ((None, None) if stop is None else (stop.above_s, stop.below_s))
        )
        return RowPlan(at, mine, tuple(visits), now, limit_a, above, below)

    def _visits(
        self, routes: Sequence[Route], operation: Apply, at: IntArray, before: Relays
    ) -> tuple[list[Visit], Relays]:
        visits, now = [], before
        for cell, position in enumerate(at):
            row, column = int(operation.cells.row[position]), int(operation.cells.column[position])
            for step, route in enumerate(routes):
                wanted = self._relays(route, row, column)
                visits.append(
                    Visit(cell, step, tuple(sorted(now - wanted)), tuple(sorted(wanted - now)))
                )
                now = wanted
        return visits, now

    def _relays(self, route: Route, row: int, column: int) -> Relays:
        """The crosspoints closed while this cell is selected."""
        wiring, geometry = self._wiring, self._geometry
        points: set[Crosspoint] = set()

        def join(columns: tuple[int, ...], chosen: int, selected: str, other: str) -> None:
            points.update(
                (selected if k == chosen else other, line) for k, line in enumerate(columns)
            )

        along = {"row": row, "column": column, "common": 0}[geometry.source_lines]
        join(wiring.bl_columns, column, route.bl, route.other_bl)
        join(wiring.sl_columns, row if self._is_1r else along, route.sl, route.other_sl)
        join(wiring.wl_columns, row, route.wl, route.other_wl)
        join(wiring.body_columns, -1, FLOATING, route.body)
        return frozenset(point for point in points if point[0] != FLOATING)

    def _route(
        self,
        rows: dict[str, str],
        others: tuple[str, str],
        levels: dict[str, FloatArray],
        step: Step,
        sense: str,
        sign: int,
    ) -> Route:
        """A route of the rows of the selected cell's lines and of all other bit and source
        lines.
        """
        n = next(iter(levels.values())).size
        drop = step.cell_v(n)
        most = {c: float(np.max(np.abs(v), initial=0.0)) for c, v in levels.items()}
        is_read = bool(np.all(np.abs(drop) <= self._limits.read_v))
        bl, sl, wl = rows["bl"], rows["sl"], rows["wl"]
        return Route(bl, sl, wl, *others, levels, step.width_s, sense, sign, drop, is_read, most)

    def _refuse_transients(self, bl: FloatArray, sl: FloatArray) -> None:
        """The source line is up alone before the bit line rises and after it has fallen: wrong
        where both go one way.
        """
        alone = np.where(bl * sl > 0, np.abs(sl), 0.0)
        if not np.all(alone <= self._limits.read_v):
            raise ConfigError(
                "smu-matrix: bit line and source line rise one after the other: at"
                f" {bl[np.argmax(alone)]:g} V and {sl[np.argmax(alone)]:g} V the cell would see"
                " more on the way than their difference; take less from both"
            )

    def _route_pulse(self, step: Step, n: int, operation: Apply) -> Route:
        """A step of the generator, on the one line that is driven; other lines at 0 V on ground."""
        wiring, name = self._wiring, self._wiring.generator
        row, scheme = wiring.generators[name], operation.unselected
        volts = {"bl": step.levels("bl", n), "sl": step.levels("sl", n)}
        if self._is_1r and (scheme is Scheme.INHIBIT or wiring.is_direct):
            # Only the difference reaches the cell.
            line, sign = ("sl", -1.0) if row == SL else ("bl", 1.0)
            volts = {"bl": np.zeros(n), "sl": np.zeros(n), line: sign * step.cell_v(n)}
        driven = [line for line, v in volts.items() if v is not None and np.any(v != 0)]
        halves = scheme in (Scheme.HALF, Scheme.THIRD) and not wiring.is_direct
        if len(driven) != 1 or halves:
            raise ConfigError(
                f"smu-matrix: a step of {step.width_s:g} s is the generator's, {name}, which drives"
                f" one line: bit or source line must be at 0 V, and no line at {scheme.value}"
            )
        [line] = driven
        level = np.array(volts[line])
        self._refuse_open(name, line, level)
        self._refuse_open_others(name, step, volts, operation)
        levels = {channel: np.zeros(n) for channel in wiring.channels}
        if wiring.is_direct:
            rows = {"bl": BL, "sl": SL, "wl": FLOATING}
            others = (FLOATING, FLOATING)
        else:
            rows = {k: FLOATING if v is None else wiring.ground for k, v in volts.items()}
            rows |= {line: row, "wl": FLOATING}
            if self._is_1r:
                other = FLOATING if scheme is Scheme.FLOATING else wiring.ground
                others = (other, other)
            else:
                gate = self._gate_v(step, n)
                if gate is not None:
                    rows["wl"], levels[self.gate] = wiring.channels[self.gate], np.array(gate)
                others = self._others_1t1r(rows["sl"], scheme)
        route = self._route(rows, others, levels, step, "", 1)
        return replace(route, generator=name, pulse_v=level)

    def _refuse_open(self, name: str, line: str, level: FloatArray) -> None:
        """A moved pair's line must keep its own limit; and the output's 50 ohm hold a part of the
        level back only as long as the load is there.
        """
        limit = min(getattr(self._limits, f"{line}_v"), self._limits.cell_v)
        most_v = float(np.max(np.abs(level)))
        open_v = self._wiring.open_v(most_v) if name in self._wiring.generators else most_v
        if not open_v <= limit * (1 + 1e-9):
            lost = f" if its load of {self._wiring.load_ohm:g} ohm came off"
            raise ConfigError(
                f"smu-matrix: {name} would put {open_v:g} V on {line.upper()}"
                f"{lost if open_v > most_v else ''}, beyond the limit of {limit:g} V"
            )

    def _refuse_open_others(
        self, name: str, step: Step, volts: Mapping[str, FloatArray | None], operation: Apply
    ) -> None:
        """Gates and half-selected cells keep their limits too where the load is missing."""
        times = self._wiring.open_v(1.0)
        bl, sl = (None if v is None else times * v for v in (volts["bl"], volts["sl"]))
        whole, scheme = replace(step, bl_v=bl, sl_v=sl), operation.unselected
        try:
            check_levels(whole, operation.cells, scheme, self._geometry, self._limits)
        except LimitError as error:
            lost = f"if its load of {self._wiring.load_ohm:g} ohm came off: " if times > 1 else ""
            raise ConfigError(f"smu-matrix: {name}: {lost}{error}") from None

    def _route_direct(self, step: Step, n: int) -> Route:
        """A step of the one or two source-meters of a direct pair: a single one sees the negative
        of the cell's volts where it holds the source line.
        """
        if step.measure == "gate":
            raise ConfigError("smu-matrix: a 1R array has no gate current")
        drop, on = step.cell_v(n), {row: c for c, row in self._wiring.channels.items()}
        sense, sign = (on[SL], -1) if SL in on else (on[BL], 1)
        levels = {c: np.zeros(n) for c in self._wiring.channels}
        forces = on.get(BL, sense)
        levels[forces] = drop if BL in on else -drop
        self._refuse_open(forces, "bl" if BL in on else "sl", levels[forces])
        sense = sense if step.measure == "current" else ""
        rows = {"bl": BL, "sl": SL, "wl": FLOATING}
        return self._route(rows, (FLOATING, FLOATING), levels, step, sense, sign)

    def _gate_v(self, step: Step, n: int) -> FloatArray | None:
        """The gate's volts; it is up while bit and source line are still at 0 V."""
        gate = step.levels("wl", n)
        if gate is not None and not np.all(gate <= self._limits.gate_over_v):
            raise ConfigError(
                "smu-matrix: the gate rises first, while bit and source line are at 0 V:"
                f" {np.max(gate):g} V is beyond the limit gate_over_v of"
                f" {self._limits.gate_over_v:g} V"
            )
        return gate

    def _route_1t1r(self, step: Step, n: int, operation: Apply) -> Route:
        wiring = self._wiring
        gate = self._gate_v(step, n)
        if gate is None and step.measure == "gate":
            raise ConfigError("smu-matrix: the current of a gate that floats cannot be measured")
        volts = {"bl": step.levels("bl", n), "sl": step.levels("sl", n)}
        on = self._driven(volts, step.measure)
        rows = {
            "bl": wiring.ground,
            "sl": wiring.ground,
            "wl": wiring.channels[self.gate] if gate is not None else FLOATING,
        }
        levels = {self.gate: np.zeros(n) if gate is None else np.array(gate)}
        for line in ("sl", "bl"):
            level = volts[line]
            if level is None:
                rows[line] = FLOATING
            elif line in on:
                rows[line] = wiring.channels[on[line]]
                levels[on[line]] = np.array(level)
        levels |= {channel: np.zeros(n) for channel in self.forces if channel not in levels}
        if len(on) == 2:
            self._refuse_transients(levels[on["bl"]], levels[on["sl"]])
        others = self._others_1t1r(rows["sl"], operation.unselected)
        sense, sign = self._sense_1t1r(step, on, others[0])
        return self._route(rows, others, levels, step, sense, sign)

    def _driven(self, volts: Mapping[str, FloatArray | None], measure: str) -> dict[str, str]:
        """Which channel drives the bit line, which the source line; lines at 0 V need none where
        there is one channel.
        """
        forced = [
            line
            for line, v in volts.items()
            if v is not None and (len(self.forces) > 1 or np.any(v != 0))
        ]
        if measure == "current" and not forced:
            forced = [line for line, v in volts.items() if v is not None][:1]
        if len(forced) > len(self.forces):
            channels = self._wiring.channels
            raise ConfigError(
                "smu-matrix: a step with volts on bit line and source line at once needs three"
                f" channels; this bench has {len(channels)} ({', '.join(channels)})"
            )
        return dict(zip(forced, self.forces, strict=False))

    def _others_1t1r(self, sl: str, scheme: Scheme) -> tuple[str, str]:
        """Rows of the unselected bit and source lines."""
        rows = {Scheme.INHIBIT: sl, Scheme.GROUNDED: self._wiring.ground, Scheme.FLOATING: FLOATING}
        if scheme not in rows:
            raise ConfigError(
                f"smu-matrix: no channel is left for unselected bit lines at {scheme.value}"
            )
        return rows[scheme], (
            rows[scheme] if self._geometry.source_lines == "column" else self._wiring.ground
        )

    def _sense_1t1r(self, step: Step, on: dict[str, str], other_bl: str) -> tuple[str, int]:
        """The channel that measures and the sign of its current."""
        if step.measure == "no":
            return "", 1
        if step.measure == "gate":
            return self.gate, 0
        if "bl" in on:
            return on["bl"], 1
        if "sl" not in on:
            raise ConfigError(
                "smu-matrix: a current is measured where neither bit nor source line is driven"
            )
        if other_bl == self._wiring.ground:
            raise ConfigError(
                "smu-matrix: with unselected bit lines grounded, the current of a driven source"
                " line is that of the whole row; use the scheme inhibit, or read after the pulse"
            )
        return on["sl"], -1

    def _route_1r(self, step: Step, n: int, operation: Apply) -> Route:
        bl, sl = step.levels("bl", n), step.levels("sl", n)
        if bl is None or sl is None:
            raise ConfigError(
                "smu-matrix: a floating line of the selected cell of a 1R array is not available"
            )
        if step.measure == "gate":
            raise ConfigError("smu-matrix: a 1R array has no gate current")
        drop, scheme = bl - sl, operation.unselected
        if np.all(np.abs(drop) <= self._limits.read_v):
            scheme = Scheme.INHIBIT if step.measure == "current" else scheme
        else:
            self._refuse_1r(step, sl, operation)
        pairs = {
            Scheme.INHIBIT: (drop, np.zeros(n)),
            Scheme.HALF: (drop / 2, -drop / 2),
            Scheme.GROUNDED: (np.array(bl), np.array(sl)),
            Scheme.FLOATING: (np.array(bl), np.array(sl)),
        }
        if scheme not in pairs:
            raise ConfigError(
                f"smu-matrix: no channels are left for unselected lines at {scheme.value}"
            )
        pair = pairs[scheme]
        self._refuse_transients(*pair)
        for name, level, limit in zip(
            ("BL", "SL"), pair, (self._limits.bl_v, self._limits.sl_v), strict=True
        ):
            if not np.all(np.abs(level) <= limit):
                raise ConfigError(
                    f"smu-matrix: {scheme.value} puts {name} at {np.max(np.abs(level)):g} V, beyond"
                    f" its limit of {limit:g} V"
                )
        channels = self._wiring.channels
        bl_channel, sl_channel = self.forces[:2]
        other = FLOATING if scheme is Scheme.FLOATING else self._wiring.ground
        rows = {"bl": channels[bl_channel], "sl": channels[sl_channel], "wl": FLOATING}
        sense = sl_channel if step.measure == "current" else ""
        levels = {sl_channel: pair[1], bl_channel: pair[0]}
        return self._route(rows, (other, other), levels, step, sense, -1)

    @staticmethod
    def _refuse_1r(step: Step, sl: FloatArray, operation: Apply) -> None:
        """Refuse what is the whole line's business above the read limit: a measurement, a
        compliance.
        """
        scheme = operation.unselected
        if scheme not in (Scheme.HALF, Scheme.FLOATING) and not (
            scheme is Scheme.GROUNDED and np.any(sl != 0)
        ):
            return
        if step.measure == "current":
            raise ConfigError(
                f"smu-matrix: with unselected lines {scheme.value} a current above the read limit"
                " is that of the whole row, half-selected cells and all; read after the pulse"
                " instead"
            )
        if operation.compliance_a is not None:
            raise ConfigError(
                "smu-matrix: a compliance current does not bound one cell with lines"
                f" {scheme.value}"
            )
