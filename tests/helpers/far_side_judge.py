"""A judge of operations: what stands at every cell of the far side, worked out there and held
against the limits.

It shares no formula with the product. It looks at the simulated chip's own steps, after whatever a
driver and a link made of an operation, lays the volts of every line of the tile out, and takes from
the conductances of that moment what flows. So it also sees what was never counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rram_hil.array import Geometry, Limits, Multiply, Scheme, Step

SLACK = 1e-5
"""Levels go over the link in whole microvolts, widths in whole picoseconds."""
CONDUCTS_V = 0.4
"""Beyond this forward bias a body is no control any more, whatever limits say."""


@dataclass(frozen=True)
class Lines:
    """Volts of every line of a tile while one of its cells is selected; None where a line floats.

    `sl` has one value a source line; `sl_of[row][column]` says which runs to a cell.
    """

    bl: list[float | None]
    sl: list[float | None]
    wl: list[float | None]
    sl_of: list[list[int]]


@dataclass
class Judge:
    """Looks at one chip. `verdicts` are what it found wrong, each beginning with the name of its
    check; `given` are the pulses that cells took, as it counts them, `beside` those that came to
    them while a cell of another row was selected.
    """

    geometry: Geometry
    limits: Limits
    chip: Any
    verdicts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given, self.beside = np.zeros((2, *self.geometry.shape), dtype=np.int64)
        self.steps = 0
        really, multiply = self.chip.step, self.chip._multiplier.begin

        def step(batch: Any, at: Any, levels: Step, compliance_a: float | None) -> Any:
            before = self.chip.conductance_s()
            found = really(batch, at, levels, compliance_a)
            scheme = batch.exposure.scheme
            self._step(batch.index[at], levels, compliance_a, scheme, before)
            return found

        def begin(operation: Multiply) -> Any:
            self._multiply(operation)
            return multiply(operation)

        self.chip.step, self.chip._multiplier.begin = step, begin

    def say(self, check: str, text: str) -> None:
        """Note a verdict."""
        self.verdicts.append(f"{check}: {text}")

    def _step(
        self,
        index: Any,
        levels: Step,
        compliance_a: float | None,
        scheme: Scheme,
        before: Any,
    ) -> None:
        after = self.chip.conductance_s()
        g = np.maximum(before, after)
        read_v = self.limits.read_v + SLACK
        for k, place in enumerate(index):
            tile, row, column = (int(x) for x in np.unravel_index(int(place), self.geometry.shape))
            volts = [
                None if v is None else float(v if np.ndim(v) == 0 else np.asarray(v)[k])
                for v in (levels.bl_v, levels.sl_v, levels.wl_v)
            ]
            self.steps += 1
            self._selected(
                (tile, row, column),
                volts,
                levels.width_s,
                compliance_a,
                float(g[tile, row, column]),
                levels.body_v,
            )
            lines = lines_of(self.geometry, row, column, volts, scheme, levels.unselected_wl_v)
            opened = self._others(row, column, lines)
            self._held(opened, levels.width_s, compliance_a, g[tile])
            for (r, c), across in opened.items():
                # Its word line was to keep it out of this.
                if r != row and self.geometry.cell == "1T1R" and across > read_v:
                    self._wear((tile, r, c), self.beside)
            if levels.body_v is not None or levels.unselected_wl_v is not None:
                self._oxides(lines, row, levels.body_v)

    def _selected(
        self,
        cell: tuple[int, int, int],
        volts: list[float | None],
        width_s: float,
        compliance_a: float | None,
        g_s: float,
        body: float | None = None,
    ) -> None:
        limits = self.limits
        bl, sl, wl = volts
        for name, level in (("bl", bl), ("sl", sl), ("wl", wl)):
            if level is not None and not abs(level) <= getattr(limits, f"{name}_v") + SLACK:
                self.say(f"{name} volts", f"{level} V on {cell}")
        across = 0.0 if bl is None or sl is None else abs(bl - sl)
        if not across <= limits.cell_v + SLACK:
            self.say("cell volts", f"{across} V across {cell}")
        if self.geometry.cell == "1T1R" and wl is not None:
            ends = [level for level in (bl, sl) if level is not None] or [0.0]
            ends += [] if body is None else [body]
            if not self._across_oxide(wl, ends) <= limits.gate_over_v + SLACK:
                self.say("gate volts", f"{wl} V beside {ends} V at {cell}")
        is_pulse = across > limits.read_v + SLACK
        longest = limits.width_s if is_pulse else max(limits.width_s, limits.read_width_s)
        if not 0 < width_s <= longest * (1 + 1e-9):
            self.say("width", f"{width_s} s on {cell}")
        free_a = across * g_s
        flows_a = free_a if compliance_a is None else min(free_a, compliance_a)
        if not flows_a <= limits.current_a * (1 + 1e-6):
            self.say("current", f"{flows_a} A through {cell}")
        if is_pulse:
            self._wear(cell, self.given)
            if not across * flows_a * width_s <= limits.energy_j * (1 + 1e-4):
                self.say("energy", f"{across * flows_a * width_s} J in {cell}")

    def _wear(self, cell: tuple[int, int, int], counts: Any) -> None:
        """Count a pulse of a cell."""
        counts[cell] += 1
        most = self.given[cell] + self.beside[cell]
        if most > self.limits.pulses_per_cell:
            self.say("life", f"{most} pulses on {cell}")

    def _across_oxide(self, gate: float, ends: list[float]) -> float:
        """Volts across a gate's oxide where it opens: a PMOS does below what it stands beside."""
        return max(ends) - gate if self.geometry.selector == "pmos" else gate - min(ends)

    def _oxides(self, lines: Lines, row: int, body: float | None) -> None:
        """The gates of rows that are not selected, and the junctions of the body."""
        driven = [level for level in (*lines.bl, *lines.sl) if level is not None] + [0.0]
        if body is not None:
            if not abs(body) <= self.limits.body_v + SLACK:
                self.say("body volts", f"{body} V")
            forward = body - min(driven)
            if self.geometry.selector == "pmos":
                forward = max(driven) - body
            if not forward <= min(self.limits.body_over_v, CONDUCTS_V) + SLACK:
                self.say("body junction", f"body at {body} V beside {driven} V")
            driven.append(body)
        for other, gate in enumerate(lines.wl):
            if other == row or gate is None:
                continue
            if not abs(gate) <= self.limits.wl_v + SLACK:
                self.say("unselected word line", f"{gate} V")
            if not self._across_oxide(gate, driven) <= self.limits.gate_over_v + SLACK:
                self.say("unselected gate volts", f"{gate} V beside {driven} V")

    def _is_closed(self, gate: float | None, ends: tuple[float, float]) -> bool:
        if self.geometry.cell == "1R" or gate is None:
            return False
        return gate >= max(ends) if self.geometry.selector == "pmos" else gate <= min(ends)

    def _held(
        self,
        opened: dict[tuple[int, int], float],
        width_s: float,
        compliance_a: float | None,
        g_s: Any,
    ) -> None:
        """Cells that a level of the unselected word lines opens: for how long, and what it
        spends in them.
        """
        for place, across in opened.items():
            if across <= self.limits.read_v + SLACK:
                continue
            if not width_s <= self.limits.width_s * (1 + 1e-9):
                self.say("unselected width", f"{across} V for {width_s} s across {place}")
            flows_a = across * float(g_s[place])
            flows_a = flows_a if compliance_a is None else min(flows_a, compliance_a)
            if not across * flows_a * width_s <= self.limits.energy_j * (1 + 1e-4):
                self.say("unselected energy", f"{across * flows_a * width_s} J in {place}")

    def _others(self, row: int, column: int, lines: Lines) -> dict[tuple[int, int], float]:
        """Cells that were not selected: |V| of those whose gate is open, or that have none."""
        opened = {}
        for r in range(self.geometry.rows):
            for c in range(self.geometry.columns):
                bl, sl = lines.bl[c], lines.sl[lines.sl_of[r][c]]
                if (r, c) == (row, column) or bl is None or sl is None:
                    continue
                if self._is_closed(lines.wl[r], (bl, sl)):
                    continue
                across = abs(bl - sl)
                opened[r, c] = across
                if not across <= self.limits.half_select_v + SLACK:
                    self.say("half-selected", f"{across} V across {(r, c)} beside {(row, column)}")
        return opened

    def _multiply(self, operation: Multiply) -> None:
        top = 2 ** (operation.input_bits - 1) - 1
        rows = slice(operation.row, operation.row + operation.rows)
        columns = slice(operation.column, operation.column + operation.columns)
        g = self.chip.conductance_s()[operation.tile, rows, columns]
        if operation.inputs.size == 0:
            return
        most = float(np.abs(operation.inputs).max()) / top * abs(operation.read_v)
        if not most <= self.limits.read_v + SLACK:
            self.say("multiply volts", f"{most} V on inputs")
        if not most * float(g.max()) <= self.limits.current_a * (1 + 1e-6):
            self.say("current", f"{most * float(g.max())} A in a multiply")
        body, idle = operation.body_v, operation.unselected_wl_v
        ends = [-most, most, *([] if body is None else [body])]
        if self.geometry.cell == "1T1R":
            if not self._across_oxide(operation.wl_v, ends) <= self.limits.gate_over_v + SLACK:
                self.say("gate volts", f"{operation.wl_v} V beside {ends} V in a multiply")
            if body is not None or idle is not None:
                gates = [operation.wl_v, idle or 0.0]
                self._oxides(Lines([0.0], [-most, most], gates, []), 0, body)

    def settle(self, ledger: Any, told: Any = None, before: Any = None) -> None:
        """After an operation: the ledger is not below what was given, and the result tells it.

        `told` are the pulses of the result by cell (a map), `before` what had been given before it.
        """
        most = self.given + self.beside
        if (ledger < most).any():
            self.say("ledger", f"{ledger.tolist()} for {most.tolist()}")
        if told is not None and not np.array_equal(told, self.given - before):
            self.say("told pulses", f"{told.tolist()} for {(self.given - before).tolist()}")


def lines_of(
    geometry: Geometry,
    row: int,
    column: int,
    volts: list[float | None],
    scheme: Scheme,
    idle: float | None = None,
) -> Lines:
    """All lines of a tile while the cell at (row, column) stands at these volts (BL, SL, WL)."""
    bl, sl, wl = volts
    is_1r = geometry.cell == "1R"
    by = "row" if is_1r else geometry.source_lines
    sl_of = [
        [{"row": r, "column": c, "common": 0}[by] for c in range(geometry.columns)]
        for r in range(geometry.rows)
    ]
    chosen = sl_of[row][column]
    count = 1 + max(max(line) for line in sl_of)
    floats = bl is None or sl is None
    a, b = bl or 0.0, sl or 0.0
    # What a scheme says of bit lines that are not selected, and of source lines.
    other_bl, other_sl = {
        Scheme.INHIBIT: (b, 0.0),
        Scheme.GROUNDED: (0.0, 0.0),
        Scheme.FLOATING: (None, 0.0),
        Scheme.HALF: ((a + b) / 2, (a + b) / 2 if is_1r else 0.0),
        Scheme.THIRD: (b + (a - b) / 3, b + 2 * (a - b) / 3 if is_1r else 0.0),
    }[scheme]
    if floats or scheme is Scheme.FLOATING or (is_1r and scheme is Scheme.INHIBIT):
        # What nobody drives stands where its cells leave it: not for this judge to say.
        other_bl, other_sl = None, None
    if by == "column" and not is_1r:
        # Bit and source lines run side by side: both of an unselected column stand alike.
        other_sl = other_bl
    return Lines(
        [bl if c == column else other_bl for c in range(geometry.columns)],
        [sl if k == chosen else other_sl for k in range(count)],
        [wl if r == row else idle or 0.0 for r in range(geometry.rows)],
        sl_of,
    )


OUTPUT_V = 2e-3
"""Outputs of instruments are off by so much."""
OPEN_V = 0.05
"""A gate this far above a cell's lower end lets something through."""
LATE = 1.2
"""Instruments hold levels by so much longer than asked: what they do at both ends takes time."""


@dataclass
class MatrixJudge(Judge):
    """The same behind a switch matrix, for 1T1R arrays of one tile with a common source plate: what
    every line hangs on at each moment, from the relays that are closed and what each row is driven
    to.

    `lines` has the matrix columns of "bl", "sl" and "wl" in order, of "body" where there are body
    terminals. Selected is the cell with the
    most volts of those whose gate is open; its pulse lasts as long as these are more than a read's.
    """

    world: Any = None
    ground: str = ""
    lines: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.given, self.beside = np.zeros((2, *self.geometry.shape), dtype=np.int64)
        self.steps = 0
        self._pulsed: tuple[int, int, int] | None = None
        self._lasted_s = self._spent_j = 0.0
        really = self.world.advance

        def advance(seconds: float) -> None:
            before = self.chip.conductance_s()
            really(seconds)
            if seconds > 0:
                self._moment(seconds, np.maximum(before, self.chip.conductance_s()))

        self.world.advance = advance

    def _hangs(self, column: int) -> tuple[float | None, float]:
        """Volts and current limit of the line on a matrix column; None where it floats."""
        found: tuple[float | None, float] = (None, np.inf)
        for row, joined in self.world._closed:
            if joined != column:
                continue
            if row == self.ground:
                at: tuple[float | None, float] = (0.0, np.inf)
            else:
                drive = self.world._drives[row]
                at = (drive.level, drive.limit) if drive.function == "voltage" else (None, np.inf)
            if found[0] is None or (at[0] is not None and abs(at[0]) > abs(found[0])):
                found = at
        return found

    def _moment(self, seconds: float, g_s: Any) -> None:
        limits = self.limits
        hung = {kind: [self._hangs(c) for c in columns] for kind, columns in self.lines.items()}
        for kind, lines in hung.items():
            for k, (volts, _) in enumerate(lines):
                if volts is not None and not abs(volts) <= getattr(limits, f"{kind}_v") + OUTPUT_V:
                    self.say(f"{kind} volts", f"{volts} V on line {k}")
        (plate, plate_a), *_ = hung["sl"]
        body, _ = hung["body"][0] if "body" in hung else (None, 0.0)
        driven = [volts for volts, _ in (*hung["bl"], *hung["sl"]) if volts is not None]
        if body is not None and not body - min(driven or [0.0]) <= limits.body_over_v + OUTPUT_V:
            self.say("body junction", f"body at {body} V beside {driven} V")
        across: dict[tuple[int, int, int], tuple[float, float]] = {}
        for row, (gate, _) in enumerate(hung["wl"]):
            for column, (bl, bl_a) in enumerate(hung["bl"]):
                ends = [v for v in (bl, plate) if v is not None]
                if gate is None or not ends:
                    continue
                over = gate - min(ends)
                lowest = min(ends if body is None else [*ends, body])
                if not gate - lowest <= limits.gate_over_v + OUTPUT_V:
                    self.say("gate volts", f"{gate} V over {lowest} V at {(row, column)}")
                if len(ends) == 2 and over > OPEN_V:
                    across[0, row, column] = abs(ends[0] - ends[1]), min(bl_a, plate_a)
        self._stressed(across, seconds, g_s)

    def _stressed(
        self, across: dict[tuple[int, int, int], tuple[float, float]], seconds: float, g_s: Any
    ) -> None:
        limits = self.limits
        cell = max(across, key=lambda at: across[at][0], default=None)
        if cell is not None and not across[cell][0] > limits.read_v + OUTPUT_V:
            cell = None
        if cell != self._pulsed:
            self.end()
            self._pulsed = cell
            if cell is not None:
                self.given[cell] += 1
                self.steps += 1
        for other, (volts, _) in across.items():
            if other != cell and not volts <= limits.half_select_v + OUTPUT_V:
                self.say("half-selected", f"{volts} V across {other} beside {cell}")
        if cell is None:
            return
        volts, limit_a = across[cell]
        flows_a = min(volts * float(g_s[cell]), limit_a)
        self._lasted_s += seconds
        self._spent_j += volts * flows_a * seconds
        if not volts <= limits.cell_v + OUTPUT_V:
            self.say("cell volts", f"{volts} V across {cell}")
        if not flows_a <= limits.current_a * 1.01:
            self.say("current", f"{flows_a} A through {cell}")
        if self.given[cell] > limits.pulses_per_cell:
            self.say("life", f"{self.given[cell]} pulses on {cell}")

    def end(self) -> None:
        """The pulse under way is over: how long it lasted and what it spent."""
        if self._pulsed is not None:
            if not self._lasted_s <= LATE * self.limits.width_s:
                self.say("width", f"{self._lasted_s} s on {self._pulsed}")
            if not self._spent_j <= LATE * self.limits.energy_j:
                self.say("energy", f"{self._spent_j} J in {self._pulsed}")
        self._pulsed, self._lasted_s, self._spent_j = None, 0.0, 0.0

    def settle(self, ledger: Any, told: Any = None, before: Any = None) -> None:
        """As of any judge; pulses that a closed gate kept from a cell may be told as given."""
        self.end()
        super().settle(ledger)
        if told is not None and (told < self.given - before).any():
            self.say("told pulses", f"{told.tolist()} for {(self.given - before).tolist()}")
