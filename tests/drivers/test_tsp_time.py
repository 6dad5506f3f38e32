"""Time in the Lua of simulated TSP instruments: the run time of a script is charged where it is
spent, and what the instrument does beside a script keeps its own times.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.keithley_2600b import Simulated2600B

TIMED_SWEEP = """
{0} smua.source.output = 1 smua.measure.nplc = 0.001
smua.trigger.source.listv({{1, 2, 3, 4}}) smua.trigger.source.action = smua.ENABLE
smua.trigger.measure.iv(smua.nvbuffer1, smua.nvbuffer2)
smua.trigger.measure.action = smua.ENABLE
smua.trigger.endpulse.action = smua.SOURCE_IDLE smua.trigger.count = 4
trigger.timer[1].delay = 137e-6 trigger.timer[1].count = 3 trigger.timer[1].passthrough = true
trigger.timer[1].stimulus = {arm} smua.trigger.source.stimulus = trigger.timer[1].EVENT_ID
trigger.timer[2].delay = 61e-6 trigger.timer[2].stimulus = smua.trigger.SOURCE_COMPLETE_EVENT_ID
smua.trigger.endpulse.stimulus = trigger.timer[2].EVENT_ID
{1} smua.trigger.initiate() {2} {start} {3} waitcomplete()
"""
STARTS = {
    "by being armed": {"arm": "smua.trigger.ARMED_EVENT_ID", "start": ""},
    "by a command": {
        "arm": "trigger.generator[1].EVENT_ID",
        "start": "trigger.generator[1].assert()",
    },
}


class Timed(Resistor):
    """A resistor that keeps every drive and when it came."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(1e4)
        self._bus = bus
        self.drives: list[tuple[float, Drive]] = []

    @override
    def drive(self, drive: Drive) -> None:
        self.drives.append((self._bus.clock.now_s, drive))
        super().drive(drive)


def loop(turns: int) -> str:
    return f"for k = 1, {turns} do end"


def sweep(turns: tuple[int, ...], start: str) -> tuple[list[float], list[float], str]:
    """When the levels of a timed sweep came and when they were measured, after the first (s); and
    the readings.
    """
    bus = Bus()
    load = Timed(bus)
    unit = Simulated2600B("2602B", Place("smu", bus, {"a": load}))
    unit.message(TIMED_SWEEP.format(*map(loop, turns), **STARTS[start]).replace("\n", " "))
    stamps = unit.message("printbuffer(1, 4, smua.nvbuffer1.timestamps)")
    readings = unit.message("printbuffer(1, 4, smua.nvbuffer2)")
    assert isinstance(stamps, bytes)
    assert isinstance(readings, bytes)
    assert not unit.queue, list(unit.queue)
    pulses = [(at_s, drive.level) for at_s, drive in load.drives[-8:]]
    assert [round(level) for _, level in pulses] == [1, 0, 2, 0, 3, 0, 4, 0]
    return (
        [at_s - pulses[0][0] for at_s, _ in pulses],
        [float(word) for word in stamps.split(b",")],
        readings.decode(),
    )


@pytest.mark.parametrize(
    "start",
    [pytest.param(name, marks=[pytest.mark.long] * (k > 0)) for k, name in enumerate(STARTS)],
)
@given(turns=st.tuples(*[st.integers(0, 3000)] * 4))
def test_a_loop_of_any_length_about_a_timed_sweep_moves_no_point(
    start: str, turns: tuple[int, ...]
) -> None:
    levels_s, stamps_s, readings = sweep(turns, start)
    # 61 us on, every 137 us; each is measured for a thousandth of a cycle of 50 Hz.
    expected = [at_s for k in range(4) for at_s in (k * 137e-6, k * 137e-6 + 61e-6)]
    assert levels_s == pytest.approx(expected, abs=1e-9)
    assert stamps_s == pytest.approx([0, 137e-6, 274e-6, 411e-6], abs=1e-9)
    assert readings == sweep((0, 0, 0, 0), start)[2]


def test_a_sweep_goes_on_while_the_host_does_something_else() -> None:
    bus = Bus()
    load = Timed(bus)
    unit = Simulated2600B("2602B", Place("smu", bus, {"a": load}))
    code = TIMED_SWEEP.format("", "", "", "", **STARTS["by being armed"])
    unit.message(code.replace("\n", " ").replace("waitcomplete()", ""))
    bus.clock.advance(200e-6)
    # Two levels so far, each gone at its time, though nobody asked.
    began_s = load.drives[-4][0]
    assert [at_s - began_s for at_s, _ in load.drives[-4:]] == pytest.approx(
        [0, 61e-6, 137e-6, 198e-6], abs=1e-9
    )
    assert unit.message("print(smua.nvbuffer1.n)") == b"2.00000e+00"
    assert unit.message("waitcomplete() print(smua.nvbuffer1.n)") == b"4.00000e+00"


def test_a_loop_counts_before_what_looks_at_the_clock_sets_or_calls() -> None:
    bus = Bus()
    load = Timed(bus)
    unit = Simulated2600B("2602B", Place("smu", bus, {"a": load}))
    unit.message("smua.source.output = 1")
    unit.message(f"smua.source.levelv = 1 {loop(500)} smua.source.levelv = 2 {loop(250)}")
    (first_s, _), (second_s, _) = load.drives[-2:]
    assert second_s - first_s == pytest.approx(1e-3)
    assert bus.clock.now_s - second_s == pytest.approx(0.5e-3)


def test_overlapped_measurements_of_both_channels_take_the_time_of_one() -> None:
    bus = Bus()
    loads = {"a": Resistor(1e3), "b": Resistor(1e4)}
    unit = Simulated2600B("2602B", Place("smu", bus, loads))
    unit.message(
        "for _, s in {smua, smub} do s.source.levelv = 1 s.source.output = 1 s.measure.nplc = 1"
        " s.measure.count = 5 s.measure.overlappediv(s.nvbuffer1, s.nvbuffer2) end"
    )
    began_s = bus.clock.now_s
    assert unit.message("print(smua.nvbuffer1.n, smub.nvbuffer1.n)") == b"0.00000e+00\t0.00000e+00"
    unit.message("smua.measure.v()")
    assert unit.queue.pop().code == 5042
    assert unit.message("waitcomplete() print(smua.nvbuffer1.n, smub.nvbuffer1.n)") == (
        b"5.00000e+00\t5.00000e+00"
    )
    assert bus.clock.now_s - began_s == pytest.approx(5 / 50, rel=0.01)
    amps = unit.message("print(smua.nvbuffer1[5], smub.nvbuffer1[5])")
    assert isinstance(amps, bytes)
    assert [float(word) for word in amps.split()] == pytest.approx([1e-3, 1e-4], rel=1e-3)


def test_a_sweep_without_end_and_without_time_is_stopped() -> None:
    unit = Simulated2600B("2602B", Place())
    unit.message("smua.trigger.arm.count = 0 smua.trigger.count = 100000 smua.trigger.initiate()")
    (error,) = unit.queue
    assert "does not end" in error.text
