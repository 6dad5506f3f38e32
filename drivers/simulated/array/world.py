"""What is behind the terminals of a rack: a simulated chip whose lines hang on a switch matrix, and
its clock.

Lines are ideal wires, relays ideal contacts; a line that is joined to nothing floats. As long as
levels stand, every cell whose gate is open and that has more than the read limit across it takes
one pulse for each interval between two changes of a drive or a relay ("segment"): counted as soon
as time passes, and acting, when something is sensed or the segment ends, as one pulse of the time
that it has lasted. A reading is one event of every cell that carries current, once for all
terminals that look at one time.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from rram_hil.array import Cells
from rram_hil.errors import ConfigError
from rram_hil.simulation.chip import Fault, SimulatedChip, StandingPulse
from rram_hil.types import FloatArray, IntArray

from ...matrix.wiring import BODY, Wiring, columns_of
from .circuit import ENDLESS_A, GATE_THRESHOLD_V, Branches, Network, Solution, Source, Well
from .erring_terminal import ErringTerminal
from .terminals import Drive, Fabric, Sensed, Terminal, VirtualClock

LEAK_S = 1e-15
"""Insulation of one line to ground: what a line that floats alone discharges through."""
MOST_A = 10.0
"""What an output without a current limit gives at most."""
READ_MARGIN_V = 2e-3
"""An output's own error at the read limit makes no pulse of a read."""
OPEN_V = GATE_THRESHOLD_V + 1e-3
"""A gate that a floating line has just closed by following it lets nothing through."""
CARRIES_V = 1e-5
"""Cells with less than this across them see nothing of a reading."""
HOT_A, HOT_V = 1e-6, 10e-3
"""A relay that switches more than one of these is switched hot."""

Point = tuple[str, int]


class ChipClock(VirtualClock):
    """The chip's clock as the rack's: levels that stand while it advances stress the array."""

    def __init__(self, world: ArrayWorld) -> None:
        super().__init__()
        self._world = world

    @property
    @override
    def now_s(self) -> float:
        """Virtual seconds."""
        return self._world.chip.now_s

    @override
    def _pass(self, seconds: float) -> None:
        self._world.advance(seconds)


class ChannelTerminal(Terminal):
    """A channel of an instrument, on a row of the matrix."""

    def __init__(self, world: ArrayWorld, row: str) -> None:
        self._world, self._row = world, row

    @override
    def drive(self, drive: Drive) -> None:
        self._world.drive(self._row, drive)

    @override
    def sense(self) -> Sensed:
        """Volts and amperes; a terminal that is off tells the potential of its row."""
        return self._world.sense(self._row)

    @override
    def was_limited(self) -> bool:
        return self._world.was_limited(self._row)


class MatrixFabric(Fabric):
    """The relays between the rows and the array's lines."""

    def __init__(self, world: ArrayWorld) -> None:
        self._world = world

    @override
    def set_closed(self, points: frozenset[Point]) -> None:
        self._world.set_closed(points)


@dataclass(eq=False)
class _Circuit:
    """The network between two changes: net of each line and row, live cells (flat index), network,
    rows with a source.
    """

    line_net: IntArray
    row_net: dict[str, int]
    live: IntArray
    branches: Branches
    network: Network
    driving: list[str]


class ArrayWorld:
    """The electrical truth behind the terminals of a rack. Not safe for two threads: the bus's lock
    guards it.

    `hot_switches`, `shorts` (a column that joined two rows) and `closures` (of each crosspoint) are
    counts for tests; so is `unsolved`: how often the network had no exact solution, which happens
    only to lines that are joined in senseless ways.
    """

    def __init__(self, chip: SimulatedChip, wiring: Wiring) -> None:
        wiring.check(chip.geometry)
        if chip.geometry.selector != "nmos":
            raise ConfigError(
                "a simulated rack has NMOS selectors: chip.selector must be nmos, not"
                f" {chip.geometry.selector}"
            )
        for name in chip.simulation.errors.source_meters:
            if name not in wiring.channels:
                raise ConfigError(
                    f"simulation.errors.source_meters: {name!r} is no wired channel; there is:"
                    f" {', '.join(wiring.channels)}"
                )
        self.chip = chip
        self.clock = ChipClock(self)
        self.fabric = MatrixFabric(self)
        self.hot_switches = 0
        self.shorts = 0
        self.unsolved = 0
        self.closures: Counter[Point] = Counter()
        self._ground = wiring.ground
        self._channels = {**wiring.channels, **wiring.generators, **wiring.held}
        self._body = wiring.body
        self._drives = {row: Drive() for row in self._channels.values()}
        columns = wiring.columns
        self._line_of = {column: line for line, column in enumerate(columns)}
        self._lines = len(columns)
        self._closed: frozenset[Point] = frozenset()
        self._place_cells()
        self._nets: tuple[IntArray, dict[str, int], int] = self._joined()
        self._circuit: _Circuit | None = None
        self._span = (0.0, 0.0)
        self._seen: tuple[float, Solution] | None = None
        self._pulse: StandingPulse | None = None
        self._is_looked_at = False
        self._limited: set[str] = set()

    def _place_cells(self) -> None:
        """Lines of each cell, by its flat index, and what each line leaks."""
        geometry = self.chip.geometry
        row, column = np.divmod(np.arange(geometry.size, dtype=np.int64), geometry.columns)
        first_sl = geometry.columns
        is_1r = geometry.cell == "1R"
        along = "row" if is_1r else geometry.source_lines
        source = {"row": row, "column": column, "common": np.zeros_like(row)}[along]
        self._bl, self._sl = column, first_sl + source
        first_wl = first_sl + int(source.max()) + 1
        self._wl = self._bl if is_1r else first_wl + row

    def terminals(self, instrument: str) -> dict[str, Terminal]:
        """What hangs on each wired channel of an instrument, behind the channel's errors where it
        has some.
        """
        errors = self.chip.simulation.errors.source_meters
        terminals: dict[str, Terminal] = {}
        for name, row in self._channels.items():
            if name.partition(".")[0] == instrument:
                terminal = ChannelTerminal(self, row)
                terminals[name.partition(".")[2]] = (
                    ErringTerminal(terminal, errors[name]) if name in errors else terminal
                )
        return terminals

    # What the instruments do

    def advance(self, seconds: float) -> None:
        """Let time pass under the levels that stand."""
        if not seconds > 0:
            return
        if not self._is_looked_at:
            self._begin_segment()
        self.chip.advance(seconds)
        self._seen = None
        if self.chip.simulation.pace > 0:
            time.sleep(seconds * self.chip.simulation.pace)

    def drive(self, row: str, drive: Drive) -> None:
        """Force this on a row from now on."""
        if drive != self._drives[row]:
            self._end_segment()
            self._drives[row] = drive
            levels = [0.0, *(_holds_v(d) for d in self._drives.values())]
            self._span = (min(levels), max(levels))
            self._circuit = None

    def set_closed(self, points: frozenset[Point]) -> None:
        """Exactly these crosspoints are closed from now on."""
        changed = points ^ self._closed
        if not changed:
            return
        self._end_segment()
        is_live = self._span != (0.0, 0.0)
        before = self._potentials() if is_live else None
        old, self._closed, self._circuit = self._closed, points, None
        self._nets = self._joined()
        self.closures.update(points - old)
        joined = {column for column, rows in _rows_of(points).items() if len(rows) > 1}
        self.shorts += len(
            joined - {column for column, rows in _rows_of(old).items() if len(rows) > 1}
        )
        if before is None:
            return
        after = self._potentials()
        for row, column in changed:
            opens = (row, column) in old
            with_it, without = (before, after) if opens else (after, before)
            apart = abs(without.at_row(row) - without.at_column(column))
            carried = with_it.through(row, column) if opens else 0.0
            self.hot_switches += bool(apart > HOT_V or carried > HOT_A)

    def sense(self, row: str) -> Sensed:
        """What is at a row now."""
        self._looked()
        return self._at(self._current(), row)

    def _at(self, circuit: _Circuit, row: str) -> Sensed:
        """What the last solution that was looked at has at a row."""
        assert self._seen is not None
        solution, drive = self._seen[1], self._drives[row]
        volts = float(solution.volts[circuit.row_net[row]])
        if drive.function == "off":
            return Sensed(volts, 0.0, False)
        amps = float(solution.amps[circuit.driving.index(row)]) if row in circuit.driving else 0.0
        if drive.function == "voltage":
            return Sensed(volts, amps, abs(volts - drive.level) > 1e-12 * (1 + abs(drive.level)))
        return Sensed(volts, amps, abs(amps - drive.level) > 1e-9 * abs(drive.level))

    def was_limited(self, row: str) -> bool:
        """Whether the source of a row was at its limit when anybody measured, since this was last
        asked.
        """
        limited = row in self._limited
        self._limited.discard(row)
        return limited

    def settle(self) -> None:
        """Let the levels that stand have acted until now: before anybody looks at the chip
        itself.
        """
        if self._pulse is not None:
            self.chip.extend_pulse(self._pulse)

    def damage(self, fault: Fault, cells: Cells) -> None:
        """Give cells a fault (`SimulatedChip.inject`); the segment ends."""
        self._end_segment()
        self.chip.inject(fault, cells)
        self._circuit = None

    # Segments

    def _begin_segment(self) -> None:
        """Count the pulses of the segment that starts to last."""
        self._is_looked_at = True
        most = min(self.chip.acts_from_v, self.chip.counted_v) + READ_MARGIN_V
        if self._span[1] - self._span[0] <= most:
            return
        circuit = self._current()
        if circuit.live.size == 0:
            return
        v = self._solved(circuit, self.chip.conducts(circuit.live)).volts
        drop, gate = circuit.branches.drops(v), circuit.branches.gates(v)
        stressed = np.abs(drop) > most
        if circuit.branches.gated:
            stressed &= gate > OPEN_V
        at = np.flatnonzero(stressed)
        if at.size:
            limit = np.full(circuit.network.size, np.inf)
            for row in circuit.driving:
                drive, net = self._drives[row], circuit.row_net[row]
                most_a = abs(drive.limit if drive.function == "voltage" else drive.level)
                limit[net] = most_a if np.isinf(limit[net]) else limit[net] + most_a
            if self._ground in circuit.row_net:
                limit[circuit.row_net[self._ground]] = np.inf
            ends = np.minimum(limit[circuit.branches.bl[at]], limit[circuit.branches.sl[at]])
            cap = ends / self.chip.model.compliance_v
            self._pulse = self.chip.begin_pulse(
                circuit.live[at], drop[at], gate[at], cap, READ_MARGIN_V
            )

    def _end_segment(self) -> None:
        self.settle()
        self._pulse = None
        self._is_looked_at = False
        self._seen = None

    def _looked(self) -> Solution:
        """The solution as it is read now: one reading's noise on every cell that carries current,
        the same for all who look.
        """
        if self._seen is not None and self._seen[0] == self.chip.now_s:
            return self._seen[1]
        self.settle()
        circuit = self._current()
        g = self.chip.conducts(circuit.live)
        solution = self._solved(circuit, g)
        carries = np.abs(circuit.branches.drops(solution.volts)) > CARRIES_V
        at = np.flatnonzero(carries & (circuit.branches.opened(solution.volts) > 0))
        if at.size:
            seen = g.copy()
            seen[at] = self.chip.as_read(circuit.live[at], g[at])
            if self.chip.simulation.read_noise:
                solution = self._with_noise(circuit, seen, solution)
        self._seen = (self.chip.now_s, solution)
        self._limited.update(row for row in circuit.driving if self._at(circuit, row).limited)
        return solution

    def _with_noise(self, circuit: _Circuit, seen: FloatArray, quiet: Solution) -> Solution:
        """The solution with the conductances that a reading sees.

        Noise may read as less than nothing, as a current the other way, where sources hold both
        ends of a cell; beside a net that floats, or at a limit, it has no physical solution and
        nothing is what is read.
        """
        held = circuit.network.held
        seen = np.where(
            held[circuit.branches.bl] & held[circuit.branches.sl], seen, np.maximum(seen, 0.0)
        )
        if (seen < 0).any():
            solution = circuit.network.solve(
                self._wired(circuit.live, seen), quiet.volts, searches=1
            )
            if solution.is_exact:
                return solution
        return self._solved(circuit, np.maximum(seen, 0.0), quiet.volts)

    # The network

    def _solved(
        self, circuit: _Circuit, g_s: FloatArray, start: FloatArray | None = None
    ) -> Solution:
        """The solution where the live cells themselves conduct `g_s`."""
        solution = circuit.network.solve(self._wired(circuit.live, g_s), start)
        self.unsolved += not solution.is_exact
        return solution

    def _wired(self, index: IntArray, g_s: FloatArray) -> FloatArray:
        """Conductances with what stands in series with the cells, as for single reads
        (`SimulatedChip.behind`).
        """
        return self.chip.behind(index, g_s)

    def _current(self) -> _Circuit:
        if self._circuit is None:
            self._circuit = self._built()
        return self._circuit

    def _built(self) -> _Circuit:
        line_net, row_net, count = self._nets
        driving = [row for row, drive in self._drives.items() if drive.function != "off"]
        sources = [_source(self._drives[row], row_net[row]) for row in driving]
        grounded = row_net[self._ground]
        bl, sl, wl = line_net[self._bl], line_net[self._sl], line_net[self._wl]
        gated = self.chip.geometry.cell == "1T1R"
        reach = np.zeros(count)
        lowest, highest = self._span
        live = bl != sl
        body_v = self._body_v(line_net, row_net)
        if gated:
            for source in sources:
                reach[source.net] = max(reach[source.net], source.volts)
            # A word line on one net with bit or source lines may be pulled anywhere by them.
            reach[bl] = reach[sl] = highest
            # A body above its source lowers the threshold, though never to nothing.
            live &= reach[wl] - lowest > (GATE_THRESHOLD_V if body_v is None else 0.0)
        chosen = np.flatnonzero(live)
        well = None if body_v is None else Well(self.chip.simulation.body, body_v)
        branches = Branches(bl[chosen], sl[chosen], wl[chosen], gated, well)
        leak = np.bincount(line_net, np.full(self._lines, LEAK_S), count) + LEAK_S
        if gated:
            first = int(self._wl[0])
            gates = line_net[first : first + self.chip.geometry.rows]
            leak += np.bincount(gates, self.chip.gate_leak_s()[0], count)
        network = Network(
            np.asarray(leak, dtype=np.float64),
            branches,
            [*sources, Source(grounded, 0.0, -ENDLESS_A, ENDLESS_A)],
        )
        return _Circuit(line_net, row_net, chosen, branches, network, driving)

    def _body_v(self, line_net: IntArray, row_net: dict[str, int]) -> float | None:
        """Where the bodies stand; None where nothing drives them: each is at its source then."""
        if self._body is None:
            return None
        row = self._body.row or BODY
        on = {line_net[self._line_of[column]] for column in columns_of(self._body.columns)}
        if self._body.columns and on == {row_net[self._ground]}:
            return 0.0
        is_joined = not self._body.columns or on == {row_net[row]}
        drive = self._drives[row]
        return drive.level if is_joined and drive.function == "voltage" else None

    def _joined(self) -> tuple[IntArray, dict[str, int], int]:
        """Net of each line, net of each row, number of nets."""
        rows = sorted({self._ground, *self._drives, *(row for row, _ in self._closed)})
        root = {row: row for row in rows}

        def top(row: str) -> str:
            while root[row] != row:
                row = root[row]
            return row

        on: dict[int, str] = {}
        for row, column in self._closed:
            if column in on:
                root[top(row)] = top(on[column])
            on[column] = row
        tops = sorted({top(row) for row in rows})
        number = {row: k for k, row in enumerate(tops)}
        row_net = {row: number[top(row)] for row in rows}
        count = len(tops)
        line_net = np.empty(self._lines, dtype=np.int64)
        for column, line in self._line_of.items():
            if column in on:
                line_net[line] = row_net[on[column]]
            else:
                line_net[line] = count
                count += 1
        return line_net, row_net, count

    def _potentials(self) -> _Potentials:
        """Where every row and line stands now, and what each line carries."""
        circuit = self._current()
        g = self.chip.conducts(circuit.live)
        solution = self._solved(circuit, g)
        current = circuit.branches.currents(self._wired(circuit.live, g), solution.volts)
        carried = np.bincount(self._bl[circuit.live], current, self._lines)
        carried -= np.bincount(self._sl[circuit.live], current, self._lines)
        return _Potentials(solution, np.abs(carried), circuit, self._line_of, self._closed)


@dataclass(frozen=True, eq=False)
class _Potentials:
    """Potentials and currents before or after a change of relays."""

    solution: Solution
    carried: FloatArray
    circuit: _Circuit
    line_of: dict[int, int]
    closed: frozenset[Point]

    def at_row(self, row: str) -> float:
        """Potential of a row (V); 0 for one that nothing is wired to."""
        net = self.circuit.row_net.get(row)
        return 0.0 if net is None else float(self.solution.volts[net])

    def at_column(self, column: int) -> float:
        """Potential of what hangs on a column (V); of a column without a line that of the row it is
        joined to.
        """
        line = self.line_of.get(column)
        if line is not None:
            return float(self.solution.volts[self.circuit.line_net[line]])
        joined = [row for row, other in self.closed if other == column]
        return self.at_row(joined[0]) if joined else 0.0

    def through(self, row: str, column: int) -> float:
        """Largest current that may flow through a closed relay (A)."""
        line = self.line_of.get(column)
        amps = 0.0 if line is None else float(self.carried[line])
        if sum(other == column for _, other in self.closed) > 1:
            net = self.circuit.row_net[row]
            for source, amp in zip(self.circuit.network.sources, self.solution.amps, strict=True):
                amps = max(amps, abs(float(amp)) if source.net == net else 0.0)
        return amps


def _rows_of(points: frozenset[Point]) -> dict[int, set[str]]:
    rows: dict[int, set[str]] = {}
    for row, column in points:
        rows.setdefault(column, set()).add(row)
    return rows


def _holds_v(drive: Drive) -> float:
    """The potential that a channel holds where its other limit lets it (V)."""
    if drive.function == "voltage":
        return drive.level
    return (
        0.0
        if drive.function == "off" or drive.level == 0
        else float(np.copysign(drive.limit, drive.level))
    )


def _source(drive: Drive, net: int) -> Source:
    """A channel as a source that holds a potential within a range of currents.

    A current source pushes its level until its voltage limit holds the terminal; it never takes
    current back there.
    """
    if drive.function == "voltage":
        limit = min(abs(drive.limit), MOST_A)
        return Source(net, drive.level, -limit, limit)
    return Source(net, _holds_v(drive), min(drive.level, 0.0), max(drive.level, 0.0))
