"""How the instruments of a matrix bench carry out a row plan: one Lua script, a triggered pair, or one transaction a cell.

A chain gets a `RowPlan` and returns what was measured. Every chain keeps the order that spares the cells: sources at zero
before a relay moves, gate up first and down last, outputs off at the end of the row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.instrument import Function, Readings, SourceMeter, SourceSetup, SwitchMatrix
from rram_hil.link import number
from rram_hil.operations import FloatArray, Status, StatusArray

from ._smu_routes import RowPlan
from ._wiring import Triggers, Wiring
from .keithley_707b import Keithley707B
from .keithley_2600b import Keithley2600B
from .keysight_b2900 import KeysightB2900

GATE_LIMIT_A = 1e-4
"""Compliance of the channel on a word line: a healthy gate takes pA."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a row gave: amperes of the sensing channels, status, seconds since the row began; shape (n, measuring routes).

    `ran` says which steps each cell took, shape (n, routes).
    """

    amps: FloatArray
    status: StatusArray
    time_s: FloatArray
    ran: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

    @classmethod
    def nothing(cls, plan: RowPlan) -> Measured:
        """A row of which nothing has run."""
        n, m = plan.at.size, len(plan.measuring)
        return cls(
            np.full((n, m), np.nan),
            np.full((n, m), Status.NOT_RUN, dtype=np.uint8),
            np.full((n, m), np.nan),
            np.zeros((n, len(plan.routes)), dtype=np.bool_),
        )


def stops(plan: RowPlan, cell: int, siemens: float, status: int) -> bool:
    """Whether a reading ends a cell's steps; a current over range counts as high."""
    above = plan.above_s is not None and (siemens >= plan.above_s[cell] or status == Status.OVER_RANGE)
    return bool(above or (plan.below_s is not None and siemens <= plan.below_s[cell]))


class Chain(ABC):
    """Source-meter channels and a matrix. `channels` are "instrument.channel" in the order of the wiring."""

    NAME = ""
    can_stop = True
    """Whether a cell's steps can end in the middle of a row; else the driver cuts the steps at every measurement."""
    one_aperture = False
    """Whether all measurements of a row have one width."""

    def __init__(
        self,
        meters: Mapping[str, SourceMeter],
        matrix: SwitchMatrix,
        wiring: Wiring,
        gate: str,
        now_s: Callable[[], float],
    ) -> None:
        self.meters, self.matrix, self.wiring, self.gate, self.now_s = meters, matrix, wiring, gate, now_s
        self._on: dict[str, SourceSetup] = {}

    @property
    @abstractmethod
    def shortest_s(self) -> float:
        """The shortest step."""

    @property
    def source_s(self) -> float:
        """How long a level needs to settle."""
        return max(self.meter(c).limits(self.channel(c)).settle_s for c in self.wiring.channels)

    @abstractmethod
    def arm(self) -> None:
        """Load scripts and set trigger lines; outputs stay off."""

    @abstractmethod
    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        """Carry out a row. Raises `LinkError` or `InstrumentError`; outputs may then be on until `safe_off`."""

    def finish(self) -> None:
        """The rows of an operation are over: switch off what was left on between them, at zero. Raises as `run`."""
        for channel in self._on:
            self.meter(channel).output(self.channel(channel), False)
        self._on = {}

    def forget(self) -> None:
        """All outputs were switched off and reset behind the chain's back."""
        self._on = {}

    def _ready(self, channel: str, setup: SourceSetup) -> None:
        """Configure a channel where its settings are others, and switch it on."""
        meter, own = self.meter(channel), self.channel(channel)
        if self._on.get(channel) == setup:
            return
        meter.configure(own, setup)
        if channel not in self._on:
            meter.output(own, True)
        self._on[channel] = setup

    def meter(self, channel: str) -> SourceMeter:
        """The instrument of a channel "smu.a"."""
        return self.meters[channel.partition(".")[0]]

    @staticmethod
    def channel(channel: str) -> str:
        """The channel's own name, "a" of "smu.a"."""
        return channel.partition(".")[2]

    def range_v(self, channel: str, plan: RowPlan) -> float:
        """The voltage range that holds all levels of a channel."""
        volts = plan.most_v[channel]
        return next(
            (r for r in self.meter(channel).limits(self.channel(channel)).voltage_ranges_v if r >= volts), volts
        )

    def compliance_a(self, channel: str, plan: RowPlan) -> float:
        """The current limit of a channel: the gate's, the cell's where only one cell hangs on it, else that of a whole line.

        Raises `ConfigError` where the channel cannot give a limit that was asked for at these volts.
        """
        limits = self.meter(channel).limits(self.channel(channel))
        volts = plan.most_v[channel]
        most = max((a for v, a in limits.envelope if volts <= v), default=0.0)
        if most == 0.0:
            raise ConfigError(f"{channel}: {volts:g} V is beyond its {limits.max_v:g} V")
        if channel == self.gate:
            return max(min(GATE_LIMIT_A, plan.compliance_a), limits.smallest_compliance_a)
        source_line = not self.gate and channel == list(self.wiring.channels)[1]
        if self.gate or (source_line and plan.is_bounded):
            if plan.is_bounded and not limits.smallest_compliance_a <= plan.compliance_a <= most:
                raise ConfigError(
                    f"{channel}: a compliance of {plan.compliance_a:g} A is not available at {volts:g} V; it has "
                    f"{limits.smallest_compliance_a:g} to {most:g} A"
                )
            return max(min(plan.compliance_a, most), limits.smallest_compliance_a)
        line = len(self.wiring.bl_columns) if source_line else len(self.wiring.sl_columns)
        return max(min(plan.compliance_a * line, most), limits.smallest_compliance_a)


TSP_SCRIPT = """
rram = { up = {}, matrix = nil, ok = true, stopped = -1 }
function rram.begin()
  rram.ok = errorqueue.count == 0
  rram.stopped = -1
  timer.reset()
  if not rram.ok then return end
  for k = 1, table.getn(rram.up) do rram.up[k].source.levelv = 0 end
  for k = 1, table.getn(rram.up) do rram.up[k].source.output = 1 end
end
function rram.visit(cell, step, opened, closed, levels, width, sense, above, below, drop, sign)
  if not rram.ok then return end
  if opened ~= "" then rram.matrix.open(opened) end
  if closed ~= "" and errorqueue.count == 0 then rram.matrix.close(closed) end
  if errorqueue.count > 0 then rram.ok = false return end
  if rram.settle > 0 and (opened ~= "" or closed ~= "") then delay(rram.settle) end
  if rram.stopped == cell then return end
  local n = table.getn(rram.up)
  for k = 1, n do rram.up[k].source.levelv = levels[k] end
  if sense == nil then
    delay(width)
    for k = n, 1, -1 do rram.up[k].source.levelv = 0 end
    print(cell, step)
  else
    local amps, volts = sense.measure.iv()
    local held = sense.source.compliance
    for k = n, 1, -1 do rram.up[k].source.levelv = 0 end
    print(cell, step, volts, amps, held, timer.measure.t())
    local g = sign * amps / drop
    if above and (g >= above or math.abs(amps) > 9e36) then rram.stopped = cell end
    if below and g <= below then rram.stopped = cell end
  end
  if errorqueue.count > 0 then rram.ok = false end
end
function rram.finish()
  for k = table.getn(rram.up), 1, -1 do rram.up[k].source.levelv = 0 end
  for k = 1, table.getn(rram.up) do rram.up[k].source.output = 0 end
end
"""
"""What a row calls. Errors do not end a script on these instruments, so each visit looks at the error queue before it goes on."""


class TspChain(Chain):
    """A 2600B that also commands a TSP-linked 707B: a row is one transaction, decisions included."""

    NAME = "TSP script over TSP-Link"
    shortest_s = 1e-3
    """Lua's `delay` between two commands (unverified how exact a shorter one is)."""

    @property
    def _meter(self) -> Keithley2600B:
        meter = self.meter(next(iter(self.wiring.channels)))
        assert isinstance(meter, Keithley2600B)
        return meter

    def _up(self) -> tuple[str, ...]:
        """Channels in the order in which they rise: the gate, then from the last to the first."""
        forces = [c for c in self.wiring.channels if c != self.gate]
        return (self.gate, *reversed(forces)) if self.gate else tuple(reversed(forces))

    def arm(self) -> None:
        """See `Chain.arm`."""
        meter, matrix = self._meter, self.matrix
        assert isinstance(matrix, Keithley707B)
        node = self.wiring.tsp_node
        told = meter.ask(f"tsplink.reset() print(tsplink.state, node[{node}].model)")
        state, _, model = told.partition("\t")
        if state != "online" or model.strip().upper().removeprefix("MODEL").strip() != matrix.identity.model:
            raise ConfigError(
                f"driver.wiring.tsp_node: TSP-Link is {state!r} and node {node} is {model!r}, not a {matrix.identity.model}; "
                "check cable and node number"
            )
        meter.load("rram_row", TSP_SCRIPT)
        up = ", ".join(f"smu{self.channel(c)}" for c in self._up())
        meter.run(
            f"format.asciiprecision = 10\nrram.up = {{ {up} }}\nrram.matrix = node[{node}].channel\n"
            f"rram.settle = {number(matrix.config.settle_s)}"
        )

    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        """See `Chain.run`."""
        matrix, up = self.matrix, self._up()
        assert isinstance(matrix, Keithley707B)
        names = {c: f"smu{self.channel(c)}" for c in up}
        code = [line for channel in up for line in self._setup(channel, names[channel], plan)]
        code.append("rram.begin()")
        nplc: dict[str, float] = {}
        for visit in plan.visits:
            route = plan.routes[visit.step]
            opened, closed = ("".join(matrix.names(points)) for points in (visit.opened, visit.closed))
            levels = ", ".join(number(float(route.levels[c][visit.cell])) for c in up)
            if route.sense and nplc.get(route.sense) != route.width_s:
                code.append(f"{names[route.sense]}.measure.nplc = {number(route.width_s * self._meter.config.line_hz)}")
                nplc[route.sense] = route.width_s
            call = [str(visit.cell), str(visit.step), f'"{opened}"', f'"{closed}"', f"{{{levels}}}"]
            if route.sense:
                call += ["0", names[route.sense], _bound(plan.above_s, visit.cell), _bound(plan.below_s, visit.cell)]
                call += [number(float(route.drop_v[visit.cell])), str(route.sign)]
            else:
                call.append(number(route.width_s))
            code.append(f"rram.visit({', '.join(call)})")
        code.append("rram.finish()")
        return self._parsed(self._meter.lines("\n".join(code), takes_s=takes_s), plan)

    def _setup(self, channel: str, smu: str, plan: RowPlan) -> list[str]:
        limit_a = self.compliance_a(channel, plan)
        return [
            f"{smu}.source.func = {smu}.OUTPUT_DCVOLTS",
            f"{smu}.source.rangev = {number(self.range_v(channel, plan))}",
            f"{smu}.source.limiti = {number(limit_a)}",
            f"{smu}.measure.autorangei = {smu}.AUTORANGE_ON",
        ]

    def _parsed(self, lines: list[str], plan: RowPlan) -> Measured:
        found = Measured.nothing(plan)
        place = {step: k for k, step in enumerate(plan.measuring)}
        for line in lines:
            words = line.split("\t")
            try:
                cell, step = int(float(words[0])), int(float(words[1]))
                found.ran[cell, step] = True
                if len(words) == 2:
                    continue
                volts, amps, at_s = float(words[2]), float(words[3]), float(words[5])
                reading = Readings.of(
                    np.array([volts]), np.array([amps]), np.array([words[4] == "true"]), np.array([at_s])
                )
                m = place[step]
                found.amps[cell, m], found.status[cell, m] = reading.amps[0], reading.status[0]
                found.time_s[cell, m] = at_s
            except (ValueError, IndexError, KeyError):
                self._meter.dialog.out_of_step()
                raise LinkError(f"{self._meter.name}: {line[:60]!r} is no line of a row") from None
        if not found.ran.any():
            raise InstrumentError(f"{self._meter.name}: the row script has run no step")
        return found


def _bound(bound: FloatArray | None, cell: int) -> str:
    return "nil" if bound is None else number(float(bound[cell]))


TRIGGERED_SCRIPT = """
rram_row = { ok = true, done = 0 }
function rram_row.begin(step, measure, done, timeout, settle, source)
  rram_row.step = digio.trigger[step]
  rram_row.measure = digio.trigger[measure]
  rram_row.over = digio.trigger[done]
  rram_row.timeout = timeout
  rram_row.settle = settle
  rram_row.source = source
  rram_row.done = 0
  rram_row.over.clear()
  rram_row.ok = errorqueue.count == 0
end
function rram_row.visit(opened, closed, width)
  if not rram_row.ok then return end
  if opened ~= "" then channel.open(opened) end
  if closed ~= "" and errorqueue.count == 0 then channel.close(closed) end
  if errorqueue.count > 0 then rram_row.ok = false return end
  if rram_row.settle > 0 and (opened ~= "" or closed ~= "") then delay(rram_row.settle) end
  rram_row.step.assert()
  delay(rram_row.source)
  rram_row.step.assert()
  if width == nil then
    rram_row.measure.assert()
    rram_row.ok = rram_row.over.wait(rram_row.timeout)
  else
    delay(width)
  end
  rram_row.step.assert()
  rram_row.step.assert()
  delay(rram_row.source)
  if rram_row.ok then rram_row.done = rram_row.done + 1 end
end
"""
"""What the matrix calls: at each visit four steps of the source-meter's lists (gate up, force up, force down, gate down)."""
POINTS = 4
"""Points of a list that one visit takes."""


class TriggeredChain(Chain):
    """A B2900 and a 707B that advance each other over digital lines: three transactions a row."""

    NAME = "lists and relays on each other's triggers"
    can_stop = False
    one_aperture = True
    shortest_s = 1e-3
    """Lua's `delay` in the matrix (unverified how exact a shorter one is)."""

    @property
    def _meter(self) -> KeysightB2900:
        meter = self.meter(next(iter(self.wiring.channels)))
        assert isinstance(meter, KeysightB2900)
        return meter

    @property
    def _switch(self) -> Keithley707B:
        assert isinstance(self.matrix, Keithley707B)
        return self.matrix

    @property
    def _lines(self) -> Triggers:
        assert self.wiring.triggers is not None
        return self.wiring.triggers

    def arm(self) -> None:
        """See `Chain.arm`."""
        lines = self._lines
        pulses = [lines.matrix_out, lines.matrix_measure, lines.matrix_in]
        code = [f"digio.trigger[{line}].mode = digio.TRIG_FALLING" for line in pulses]
        code += [f"digio.trigger[{line}].clear()" for line in pulses]
        self._switch.run("\n".join(code))
        self._switch.load("rram_rows", TRIGGERED_SCRIPT)

    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        """See `Chain.run`: set up and arm the lists, let the matrix run the row, fetch."""
        meter, lines = self._meter, self._lines
        apertures = {plan.routes[k].width_s for k in plan.measuring} or {1e-3}
        assert len(apertures) == 1
        limits = meter.limits(self.channel(next(iter(self.wiring.channels))))
        aperture_s = float(np.clip(apertures.pop(), limits.shortest_aperture_s, limits.longest_aperture_s))
        levels = {c: self._points(plan, c) for c in self.wiring.channels}
        at = np.zeros(POINTS * len(plan.visits), dtype=np.bool_)
        at[1::POINTS] = [bool(plan.routes[v.step].sense) for v in plan.visits]
        channels = {self.channel(c): values for c, values in levels.items()}
        measured = sorted({self.channel(r.sense) for r in plan.routes if r.sense}) or [min(channels)]
        blind = not at.any()
        at[-1] |= blind  # a list needs one measurement to tell its end by; at zero, where nothing is measured
        for c in levels:
            setup = SourceSetup(Function.VOLTAGE, self.compliance_a(c, plan), self.range_v(c, plan), None, aperture_s)
            self._ready(c, setup)
        meter.arm_list(
            channels,
            trigger_in=lines.smu_in,
            trigger_out=lines.smu_out,
            measure=measured,
            measure_in=lines.smu_measure,
            measure_at=at,
        )
        printed = self._switch.ask("\n".join(self._row_code(plan, blind)), takes_s=takes_s)
        if printed != str(len(plan.visits)):
            raise InstrumentError(
                f"{self._switch.name}: visit {printed} of {len(plan.visits)} was the last whose measurement came on digital line "
                f"{lines.matrix_in}"
            )
        return self._measured(plan, meter.fetch(int(at.sum()), takes_s=0.0), blind)

    def _points(self, plan: RowPlan, channel: str) -> FloatArray:
        """Levels of a channel at every point: the gate stands for two points more than the others, which rise after it."""
        levels = np.array([plan.routes[v.step].levels[channel][v.cell] for v in plan.visits])
        shape = (1.0, 1.0, 1.0, 0.0) if channel == self.gate else (0.0, 1.0, 0.0, 0.0)
        return np.asarray((levels[:, None] * np.array(shape)).ravel(), dtype=np.float64)

    def _row_code(self, plan: RowPlan, blind: bool) -> list[str]:
        lines, source_s = self._lines, self.source_s
        longest_s = max((r.width_s for r in plan.routes if r.sense), default=0.0)
        begin = [lines.matrix_out, lines.matrix_measure, lines.matrix_in]
        times = [number(longest_s + 1.0), number(self._switch.config.settle_s), number(source_s)]
        code = [f"rram_row.begin({', '.join([*map(str, begin), *times])})"]
        for visit in plan.visits:
            route = plan.routes[visit.step]
            opened, closed = ("".join(self._switch.names(points)) for points in (visit.opened, visit.closed))
            width = "nil" if route.sense else number(route.width_s)
            code.append(f'rram_row.visit("{opened}", "{closed}", {width})')
        if blind:
            code.append("rram_row.measure.assert() rram_row.ok = rram_row.over.wait(rram_row.timeout)")
        code.append('print(string.format("%d", rram_row.done))')
        return code

    def _measured(self, plan: RowPlan, readings: Mapping[str, Readings], blind: bool) -> Measured:
        found = Measured.nothing(plan)
        found.ran[:] = True
        if blind:
            return found
        place = {step: k for k, step in enumerate(plan.measuring)}
        visits = [v for v in plan.visits if plan.routes[v.step].sense]
        cells = np.array([v.cell for v in visits])
        columns = np.array([place[v.step] for v in visits])
        senses = np.array([self.channel(plan.routes[v.step].sense) for v in visits])
        for own, reading in readings.items():
            mine = senses == own
            where = (cells[mine], columns[mine])
            found.amps[where], found.status[where] = reading.amps[mine], reading.status[mine]
            found.time_s[where] = reading.time_s[mine] - float(reading.time_s[0])
        return found


class PlainChain(Chain):
    """Any source-meters and any matrix, the host between: several transactions a cell, where nothing better is there."""

    NAME = "host-driven, transactions for every cell"

    @property
    def shortest_s(self) -> float:
        """See `Chain.shortest_s`: a level lasts at least one settling and one integration of the forcing channel."""
        found = [self.meter(c).limits(self.channel(c)) for c in self.wiring.channels if c != self.gate]
        return max(limits.settle_s + limits.shortest_aperture_s for limits in found)

    def arm(self) -> None:
        """See `Chain.arm`: nothing to load."""

    def run(self, plan: RowPlan, takes_s: float) -> Measured:
        """See `Chain.run`. The pulsing channel runs a list of one point, so that the instrument times it, not the host."""
        found = Measured.nothing(plan)
        place = {step: k for k, step in enumerate(plan.measuring)}
        stopped: set[int] = set()
        started_s = self.now_s()
        for visit in plan.visits:
            if visit.opened or visit.closed:
                self.matrix.switch(open=visit.opened, close=visit.closed)
            if visit.cell in stopped:
                continue
            route = plan.routes[visit.step]
            timed = self._timed(plan, visit.step, visit.cell)
            for channel in route.levels:
                self._configure(channel, plan, route.width_s if channel == timed else None)
            held = [c for c in route.levels if c != timed]
            for channel in held:
                self.meter(channel).source(self.channel(channel), float(route.levels[channel][visit.cell]))
            reading = self.meter(timed).list_sweep(
                self.channel(timed), np.array([float(route.levels[timed][visit.cell])])
            )
            other = None
            if route.sense and route.sense != timed:
                other = self.meter(route.sense).measure(self.channel(route.sense))
            for channel in reversed(held):
                self.meter(channel).source(self.channel(channel), 0.0)
            found.ran[visit.cell, visit.step] = True
            if route.sense:
                seen, m = other if other is not None else reading, place[visit.step]
                found.amps[visit.cell, m], found.status[visit.cell, m] = seen.amps[-1], seen.status[-1]
                found.time_s[visit.cell, m] = self.now_s() - started_s
                siemens = route.sign * float(seen.amps[-1]) / float(route.drop_v[visit.cell] or np.nan)
                if stops(plan, visit.cell, siemens, int(seen.status[-1])):
                    stopped.add(visit.cell)
        return found

    def _timed(self, plan: RowPlan, step: int, cell: int) -> str:
        """The channel whose level lasts for the width: the one that senses, else the largest that is no gate."""
        route = plan.routes[step]
        if route.sense and route.sense != self.gate:
            return route.sense
        forces = [c for c in route.levels if c != self.gate]
        return max(forces, key=lambda c: abs(float(route.levels[c][cell])))

    def _configure(self, channel: str, plan: RowPlan, width_s: float | None) -> None:
        limits = self.meter(channel).limits(self.channel(channel))
        most_v, limit_a = self.range_v(channel, plan), self.compliance_a(channel, plan)
        aperture_s = limits.shortest_aperture_s
        if width_s is not None:
            aperture_s = min(max(width_s - limits.settle_s, limits.shortest_aperture_s), limits.longest_aperture_s)
        elif channel in self._on:
            return
        self._ready(
            channel,
            SourceSetup(Function.VOLTAGE, limit_a, most_v, None, aperture_s, (width_s or aperture_s) - aperture_s),
        )
