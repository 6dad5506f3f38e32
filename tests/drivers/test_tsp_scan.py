"""`scan` of the simulated switch mainframes, and mainframes as nodes of TSP-Link."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.drivers.keithley_707b import Keithley707B
from rram_hil.drivers.keysight_b2900 import KeysightB2900
from rram_hil.drivers.simulated.array.terminals import Bus, Fabric, Loads, Place
from rram_hil.drivers.simulated.keithley_707b import Simulated707B
from rram_hil.drivers.simulated.keithley_2600b import Simulated2600B
from rram_hil.drivers.simulated.keithley_3706a import Simulated3706A
from rram_hil.drivers.simulated.keysight_b2900 import SimulatedB2900
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.drivers.simulated.tsp.instrument import TspInstrument
from rram_hil.hardware.instrument import Function, SourceSetup
from rram_hil.simulation.config import Timing

SETTLE_S = 2e-3
SUCCESS, RUNNING, ABORTED = "6.00000e+00", "2.00000e+00", "3.00000e+00"


class Seen(Fabric):
    """Every state of the relays with its time."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.states: list[tuple[float, set[tuple[str, int]]]] = []

    def set_closed(self, points: frozenset[tuple[str, int]]) -> None:
        self.states.append((self.bus.clock.now_s, set(points)))

    def closures(self) -> list[tuple[str, int]]:
        """The crosspoints in the order in which they closed."""
        closed, before = [], set[tuple[str, int]]()
        for _, now in self.states:
            closed += sorted(now - before)
            before = now
        return closed


class Bench:
    """A simulated mainframe that is spoken to directly."""

    def __init__(self, kind: type[Any] = Simulated707B, model: str = "707B") -> None:
        self.bus = Bus()
        self.fabric = Seen(self.bus)
        self.sim = kind(model, Place(name="matrix", bus=self.bus, fabric=self.fabric))
        self.fabric.states.clear()

    def say(self, code: str) -> list[str]:
        return say(self.sim, code)


def say(instrument: TspInstrument, code: str) -> list[str]:
    reply = instrument.message(code)
    assert isinstance(reply, bytes)
    return reply.decode().split("\n") if reply else []


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_list_of_the_manual_s_example(bench: Bench) -> None:
    bench.say('scan.create("1A05, 1B05, 1C05")')
    assert [line.strip() for line in bench.say("print(scan.list())")] == [
        "Init) OPEN...",
        "1) STEP: 1A05",
        "CLOSE: 1A05",
        "2) STEP: 1B05",
        "OPEN: 1A05",
        "CLOSE: 1B05",
        "3) STEP: 1C05",
        "OPEN: 1B05",
        "CLOSE: 1C05",
    ]
    assert bench.say("print(scan.stepcount, scan.scancount)") == ["3.00000e+00\t1.00000e+00"]


@pytest.mark.parametrize("scans", [1, 2, 3])
def test_a_scan_closes_each_step_once_a_scan_and_leaves_the_last_one_closed(
    bench: Bench, scans: int
) -> None:
    bench.say('scan.create("1A05, 1B05, 1C05")')
    bench.say(f"scan.scancount = {scans}")
    told = bench.say("print(scan.execute())")
    assert told == [f"{SUCCESS}\t{scans:.5e}\t3.00000e+00"]
    assert bench.fabric.closures() == [("A", 5), ("B", 5), ("C", 5)] * scans
    assert bench.say('print(channel.getclose("allslots"))') == ["1C05"]
    counts = bench.say('print(channel.getcount("1A05,1B05,1C05"))')
    assert counts == [",".join([str(scans)] * 3)]


def test_lists_are_appended_to_in_order_and_a_step_may_be_an_image(bench: Bench) -> None:
    bench.say('scan.create("1A01:1A03") scan.add("1A10") scan.add("1A09")')
    assert bench.say("print(scan.stepcount)") == ["5.00000e+00"]
    bench.say('scan.create() scan.addimagestep("1A01,1B02") scan.addimagestep("1B02,1C03")')
    bench.say("scan.execute()")
    assert bench.fabric.closures() == [("A", 1), ("B", 2), ("C", 3)]
    assert bench.say('print(channel.getcount("1B02"))') == ["1"]
    assert bench.say('print(channel.getclose("allslots"))') == ["1B02;1C03"]


def test_the_mode_says_what_is_opened_first(bench: Bench) -> None:
    bench.say('channel.close("1H12,1A01") scan.create("1A01,1A02")')
    bench.say("scan.mode = scan.MODE_OPEN_SELECTIVE scan.execute()")
    assert bench.say('print(channel.getclose("allslots"))') == ["1A02;1H12"]
    bench.say("scan.mode = scan.MODE_OPEN_ALL scan.execute()")
    assert bench.say('print(channel.getclose("allslots"))') == ["1A02"]


def test_a_background_scan_goes_on_while_time_passes(bench: Bench) -> None:
    bench.say('scan.create("1A01:1A04") scan.background()')
    assert bench.say("print(scan.state())")[0].startswith(RUNNING)
    bench.say(f"delay({3.5 * SETTLE_S})")
    assert bench.say("print(scan.state())") == [f"{RUNNING}\t1.00000e+00\t2.00000e+00"]
    assert bench.say("waitcomplete() print(scan.state())") == [
        f"{SUCCESS}\t1.00000e+00\t4.00000e+00"
    ]
    steps = np.diff([at for at, now in bench.fabric.states if now])
    assert steps.max() >= SETTLE_S


def test_an_aborted_scan_stops_where_it_is(bench: Bench) -> None:
    bench.say(f'scan.create("1A01:1A04") scan.background() delay({1.5 * SETTLE_S}) scan.abort()')
    assert bench.say("print(scan.state())") == [f"{ABORTED}\t1.00000e+00\t1.00000e+00"]
    bench.say("delay(1)")
    assert bench.fabric.closures() == [("A", 1)]
    assert not bench.sim.outputs_on


def test_a_start_trigger_and_a_trigger_for_each_step(bench: Bench) -> None:
    bench.say('scan.create("1A01,1A02,1A03") scan.scancount = 2 scan.bypass = scan.OFF')
    bench.say("scan.trigger.arm.stimulus = trigger.EVENT_ID")
    bench.say("scan.trigger.channel.stimulus = trigger.generator[1].EVENT_ID")
    bench.say("scan.background() delay(1)")
    assert bench.fabric.closures() == []
    for _ in range(2):
        bench.say("*TRG")
        for _ in range(3):
            bench.say("trigger.generator[1].assert() delay(0.1)")
    assert bench.fabric.closures() == [("A", 1), ("A", 2), ("A", 3)] * 2
    assert bench.say("print(scan.state())") == [f"{SUCCESS}\t2.00000e+00\t3.00000e+00"]


def test_events_have_the_numbers_that_programs_use(bench: Bench) -> None:
    told = bench.say("print(digio.trigger[3].EVENT_ID, trigger.EVENT_ID)")
    assert told == ["3.00000e+00\t4.00000e+01"]
    bench.say('scan.create("1A01") scan.trigger.arm.stimulus = 40 scan.background() delay(1)')
    assert bench.fabric.closures() == []
    bench.say("*TRG")
    bench.say("delay(1)")
    assert bench.fabric.closures() == [("A", 1)]


def test_a_bypassed_first_step_waits_for_nothing(bench: Bench) -> None:
    bench.say('scan.create("1A01,1A02")')
    bench.say("scan.trigger.channel.stimulus = trigger.generator[1].EVENT_ID")
    bench.say("scan.background() delay(1)")
    assert bench.fabric.closures() == [("A", 1)]
    bench.say("scan.trigger.channel.set() delay(1)")
    assert bench.fabric.closures() == [("A", 1), ("A", 2)]


def test_what_waits_for_ever_says_so(bench: Bench) -> None:
    bench.say('scan.create("1A01,1A02") scan.trigger.arm.stimulus = digio.trigger[3].EVENT_ID')
    bench.say("scan.execute()")
    assert "trigger that never comes" in bench.sim.queue[-1].text


def test_pulses_on_a_line_pace_the_steps_and_each_is_answered(bench: Bench) -> None:
    """What a source-meter's list needs: a pulse in moves the relays, a pulse out says settled."""
    answered: list[float] = []
    bench.bus.wire(("meter", 1), ("matrix", 3))
    bench.bus.wire(("meter", 2), ("matrix", 5))
    bench.bus.listen(("meter", 2), lambda: answered.append(bench.bus.clock.now_s))
    bench.say("digio.trigger[3].mode = digio.TRIG_FALLING")
    bench.say("digio.trigger[5].mode = digio.TRIG_FALLING")
    bench.say("digio.trigger[5].stimulus = scan.trigger.EVENT_CHANNEL_READY")
    bench.say("scan.trigger.channel.stimulus = digio.trigger[3].EVENT_ID")
    bench.say('scan.create("1A01:1A05") scan.bypass = scan.OFF scan.background()')
    for at in range(1, 6):
        began_s = bench.bus.clock.now_s
        bench.bus.pulse(("meter", 1))
        bench.bus.clock.advance(0.1)
        assert len(answered) == at
        assert answered[-1] - began_s >= SETTLE_S
        assert bench.fabric.states[-1][1] == {("A", at)}
    assert bench.say("print(scan.state())")[0].startswith(SUCCESS)


def test_a_list_that_answers_at_once_is_followed_to_its_end(bench: Bench) -> None:
    bench.bus.wire(("meter", 1), ("matrix", 3))
    bench.bus.wire(("meter", 2), ("matrix", 5))
    bench.bus.listen(("meter", 2), lambda: bench.bus.pulse(("meter", 1)))
    for line in (3, 5):
        bench.say(f"digio.trigger[{line}].mode = digio.TRIG_FALLING")
    bench.say("digio.trigger[5].stimulus = scan.trigger.EVENT_CHANNEL_READY")
    bench.say("scan.trigger.channel.stimulus = digio.trigger[3].EVENT_ID")
    bench.say('scan.create("1A01:6H12") scan.scancount = 3 scan.background()')
    bench.bus.clock.advance(1e3)
    assert bench.say("print(scan.state())")[0].startswith(SUCCESS)
    assert len(bench.fabric.closures()) == 3 * 6 * 96


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ('scan.create("9Z99")', 1107),
        ('scan.add("")', 1114),
        ("scan.scancount = 0", 1102),
        ("scan.trigger.arm.stimulus = 4711", -224),
        ('channel.setforbidden("1A02") scan.create("1A01:1A03")', 1116),
        ('scan.create("1A01,1A02") scan.background() scan.add("1A03")', -221),
    ],
)
def test_what_a_scan_refuses(bench: Bench, code: str, error: int) -> None:
    bench.say(code)
    assert bench.sim.queue[-1].code == error


def test_a_forbidden_channel_ends_the_list_there(bench: Bench) -> None:
    bench.say('channel.setforbidden("1A02") scan.create("1A01:1A03")')
    assert bench.say("print(scan.stepcount)") == ["1.00000e+00"]


def test_a_reset_forgets_list_and_settings(bench: Bench) -> None:
    bench.say(
        'scan.create("1A01:1A03") scan.scancount = 4 scan.bypass = scan.OFF scan.background()'
    )
    bench.say("reset()")
    told = bench.say("print(scan.stepcount, scan.scancount, scan.bypass, scan.state())")
    assert told == ["\t".join(f"{n:.5e}" for n in (0, 1, 1, 0, 0, 0))]
    assert not bench.sim.outputs_on


def test_a_3706a_scans_with_the_backplane_relays_of_its_channels() -> None:
    bench = Bench(Simulated3706A, "3706A")
    bench.say('channel.setbackplane("1101", "1911") scan.create("1101:1103") scan.execute()')
    assert bench.say('print(channel.getcount("1911"))') == ["1"]
    assert bench.say('print(channel.getclose("allslots"))') == ["1103"]
    bench.say('scan.create("1911")')
    assert bench.sim.queue[-1].code == 1115


def test_steps_and_scans_are_as_many_as_asked_for(bench: Bench) -> None:
    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 3))
    def law(columns: list[int], scans: int) -> None:
        bench.say("reset()")
        names = ",".join(f"1A{c:02d}" for c in columns)
        bench.say(f'scan.create("{names}") scan.scancount = {scans}')
        different = len(set(columns))
        told = bench.say("print(scan.execute())")
        assert told == [f"{SUCCESS}\t{scans:.5e}\t{different:.5e}"]
        assert bench.say('print(channel.getclose("allslots"))') != ["nil"]
        assert not bench.sim.queue

    law()


# Nodes of TSP-Link


def linked() -> tuple[Bench, Simulated2600B]:
    bench = Bench()
    meter = Simulated2600B("2636B", Place(name="smu", bus=bench.bus, terminals=Loads(1e4)))
    bench.bus.nodes = {1: bench.sim, 2: meter}
    return bench, meter


def test_a_mainframe_commands_a_source_meter_as_its_second_node() -> None:
    bench, meter = linked()
    assert bench.say("print(tsplink.reset(), tsplink.state, node[2].model)") == [
        "2.00000e+00\tonline\t2636B"
    ]
    bench.say("node[2].smua.source.limiti = 1e-3 node[2].smua.source.levelv = 0.2")
    bench.say("node[2].smua.source.output = 1")
    (told,) = bench.say("print(node[2].smua.measure.i())")
    assert float(told) == pytest.approx(2e-5, rel=1e-3)
    bench.say('node[2].execute("smua.source.output = 0")')
    assert not meter.outputs_on


def test_a_card_of_the_second_node_tells_its_model() -> None:
    _, meter = linked()
    assert say(meter, "print(node[1].slot[1].idn)")[0].startswith("7174A,")


def test_a_line_of_tsp_link_paces_the_scan_of_the_other_node() -> None:
    bench, meter = linked()
    for each in (bench.sim, meter):
        say(each, "tsplink.trigger[1].mode = tsplink.TRIG_FALLING")
    bench.say("scan.trigger.channel.stimulus = tsplink.trigger[1].EVENT_ID")
    bench.say('scan.create("1A01:1A03") scan.bypass = scan.OFF scan.background()')
    for at in (1, 2, 3):
        say(meter, "tsplink.trigger[1].assert() delay(0.1)")
        assert bench.fabric.states[-1][1] == {("A", at)}
    assert say(meter, "print(node[1].scan.state())")[0].startswith(SUCCESS)


def test_a_scan_over_a_real_link() -> None:
    simulated = Simulated707B("708B", Place())
    server = InstrumentServer(simulated, Timing())
    driver = Keithley707B(Keithley707B.Config(resource=server.resource, timeout_s=1.0))
    try:
        driver.connect()
        driver.arm()
        driver.run('scan.create("1A01:1A12")')
        assert driver.ask("print(scan.execute())", takes_s=1.0).startswith(SUCCESS)
        assert driver.closed() == {("A", 12)}
        driver.safe_off()
    finally:
        driver.close()
        server.stop()


def test_a_list_of_a_b2900_and_a_scan_advance_each_other() -> None:
    """One transaction starts the scan, one brings all readings: no script in the matrix."""
    bus, points = Bus(), 12
    fabric = Seen(bus)
    matrix = Simulated707B("708B", Place(name="matrix", bus=bus, fabric=fabric))
    meter = SimulatedB2900("B2902A", Place(name="smu", bus=bus, terminals=Loads(1e4)))
    bus.wire(("matrix", 5), ("smu", 1))
    bus.wire(("smu", 2), ("matrix", 3))
    servers = [InstrumentServer(each, Timing()) for each in (matrix, meter)]
    switch = Keithley707B(Keithley707B.Config(resource=servers[0].resource, timeout_s=1.0))
    source = KeysightB2900(KeysightB2900.Config(resource=servers[1].resource, timeout_s=1.0))
    try:
        for each in (switch, source):
            each.connect()
            each.arm()
        source.configure("1", SourceSetup(Function.VOLTAGE, 1e-3, 2.0, 1e-3, 1e-3))
        source.output("1", True)
        levels = np.linspace(0.1, 0.2, points)
        source.arm_list({"1": levels}, trigger_in=1, trigger_out=2)
        fabric.states.clear()
        switch.run(
            "digio.trigger[3].mode = digio.TRIG_FALLING\n"
            "digio.trigger[5].mode = digio.TRIG_FALLING\n"
            "digio.trigger[5].stimulus = scan.trigger.EVENT_CHANNEL_READY\n"
            "scan.trigger.channel.stimulus = digio.trigger[3].EVENT_ID\n"
            'scan.create("1A01:1A12")\n'
            "scan.background()"
        )
        readings = source.fetch(points, takes_s=5.0)["1"]
        np.testing.assert_allclose(readings.amps, levels / 1e4, rtol=1e-2)
        assert fabric.closures() == [("A", k) for k in range(1, points + 1)]
        assert switch.ask("print(scan.state())").startswith(SUCCESS)
        for each in (source, switch):
            each.safe_off()
    finally:
        for each in (source, switch):
            each.close()
        for server in servers:
            server.stop()
