"""The digital port of a simulated TSP instrument: `digio.trigger[N]` on the wires of the rack, and the lines as bits.

After the command documentation of `digio.*` in the TSP toolkit (70xB): a pulse is kept by the event detector until `wait` or
`clear`; one that comes before that is an overrun; `wait` returns at once where one is kept. Unverified: the number of lines, the
numbers of the modes but TRIG_RISING = 2, that a line in bypass mode detects nothing. A pulse on a wire has both edges, so every
other mode detects it.
"""

from __future__ import annotations

from ._tsp import LuaTable, TspInstrument, Value, number

MODES = {
    "TRIG_BYPASS": 0.0,
    "TRIG_FALLING": 1.0,
    "TRIG_RISING": 2.0,
    "TRIG_EITHER": 3.0,
    "TRIG_SYNCHRONOUSA": 4.0,
    "TRIG_SYNCHRONOUS": 5.0,
    "TRIG_SYNCHRONOUSM": 6.0,
    "TRIG_RISINGA": 7.0,
    "TRIG_RISINGM": 8.0,
}


class Line:
    """One digital line: its trigger mode, its event detector, its bit."""

    def __init__(self, instrument: TspInstrument, index: int) -> None:
        self.instrument = instrument
        self.pin = (instrument.place.name, index)
        self.reset()
        instrument.place.bus.listen(self.pin, self.pulsed)

    def reset(self) -> None:
        """Trigger settings at their defaults."""
        self.mode = 0.0
        self.pulse_s = 10e-6
        self.stimulus = 0.0
        self.is_detected = False
        self.overrun = False
        self.bit = 1.0

    def pulsed(self) -> None:
        """A pulse came over the wire."""
        if self.mode != MODES["TRIG_BYPASS"]:
            self.overrun = self.overrun or self.is_detected
            self.is_detected = True

    def clear(self) -> None:
        """`clear()`."""
        self.is_detected = self.overrun = False

    def wait(self, timeout: Value) -> bool:
        """`wait(timeout)`: whether a pulse was there; a silence takes the whole timeout."""
        timeout_s = number(timeout, 0.0)
        if not self.is_detected:
            self.instrument.elapse(timeout_s)
        found, self.is_detected = self.is_detected, False
        return found

    def pulse(self) -> None:
        """`assert()`."""
        self.instrument.elapse(0.0)
        self.instrument.place.bus.pulse(self.pin)

    def table(self) -> LuaTable:
        """`digio.trigger[N]`."""

        def set_mode(value: Value) -> None:
            self.mode = float(int(number(value, 0, 8)))

        def set_pulse(value: Value) -> None:
            self.pulse_s = number(value, 0.0)

        def set_stimulus(value: Value) -> None:
            self.stimulus = number(value, 0.0)

        table = LuaTable({"assert": self.pulse, "clear": self.clear, "wait": self.wait, "reset": self.reset})
        table.set("release", lambda: None)
        table.define("mode", lambda: self.mode, set_mode)
        table.define("pulsewidth", lambda: self.pulse_s, set_pulse)
        table.define("stimulus", lambda: self.stimulus, set_stimulus)
        table.define("overrun", lambda: self.overrun)
        table.sealed = True
        return table


class DigitalPort:
    """`digio`: `count` lines from 1."""

    def __init__(self, instrument: TspInstrument, count: int = 14) -> None:
        self.lines = [Line(instrument, index) for index in range(1, count + 1)]

    def reset(self) -> None:
        """All lines at their defaults."""
        for line in self.lines:
            line.reset()

    def table(self) -> LuaTable:
        """`digio`."""
        lines = self.lines

        def line_at(index: Value) -> Line:
            return lines[int(number(index, 1, len(lines))) - 1]

        def write_bit(index: Value, value: Value) -> None:
            line_at(index).bit = float(number(value, 0, 1))

        def read_port() -> float:
            return float(sum(int(line.bit) << at for at, line in enumerate(lines)))

        def write_port(value: Value) -> None:
            bits = int(number(value, 0, (1 << len(lines)) - 1))
            for at, line in enumerate(lines):
                line.bit = float(bits >> at & 1)

        triggers = LuaTable({float(at): line.table() for at, line in enumerate(lines, 1)})
        triggers.sealed = True
        table = LuaTable(MODES | {"trigger": triggers})
        table.set("readbit", lambda index: line_at(index).bit)
        table.set("writebit", write_bit)
        table.set("readport", read_port)
        table.set("writeport", write_port)
        table.sealed = True
        return table
