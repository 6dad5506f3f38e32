"""Keithley Series 2600B: our driver, PyMeasure's and QCoDeS's against the simulator, over TCP; rows
over TSP-Link to a 707B.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rram_hil.array import Status
from rram_hil.drivers.keithley_2600b import MOST_POINTS, Keithley2600B
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.keithley_707b import Simulated707B
from rram_hil.drivers.simulated.keithley_2600b import Simulated2600B
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import Function, InstrumentConfig, SourceSetup
from rram_hil.simulation.config import Timing
from rram_hil.wire.dialog import number

READ = SourceSetup(
    Function.VOLTAGE, 1e-3, source_range=2.0, measure_range=1e-4, aperture_s=1e-3, settle_s=2e-4
)
OF_THE_ISSUE = ("2601B", "2602B", "2612B", "2614B", "2636B")


class Watched(Resistor):
    """A resistor that keeps every drive."""

    def __init__(self, ohm: float) -> None:
        super().__init__(ohm)
        self.drives: list[Drive] = []

    def drive(self, drive: Drive) -> None:
        self.drives.append(drive)
        super().drive(drive)


class Bench:
    """A simulated instrument with resistors on its channels; `connect` gives our driver."""

    def __init__(
        self, model: str = "2636B", ohms: tuple[float, float] = (1e4, 1e5), timeout_s: float = 1.0
    ) -> None:
        self.bus = Bus()
        self.loads = {"a": Watched(ohms[0]), "b": Watched(ohms[1])}
        self.sim = Simulated2600B(model, Place("smu", self.bus, self.loads, serial="4012345"))
        self.server = InstrumentServer(self.sim, Timing())
        self.timeout_s = timeout_s
        self.closing: list[Callable[[], None]] = [self.server.stop]

    def connect(self) -> Keithley2600B:
        driver = Keithley2600B(
            InstrumentConfig(resource=self.server.resource, timeout_s=self.timeout_s)
        )
        self.closing.insert(0, driver.close)
        driver.connect()
        return driver

    def ready(self, setup: SourceSetup = READ) -> Keithley2600B:
        driver = self.connect()
        driver.arm()
        for channel in driver.channels:
            driver.configure(channel, setup)
            driver.output(channel, True)
        return driver

    def say(self, code: str) -> list[str]:
        """What the instrument prints, asked behind the link's back."""
        reply = self.sim.message(code)
        assert isinstance(reply, bytes)
        return reply.decode("latin-1").split("\n") if reply else []


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(*arguments: Any, **keywords: Any) -> Bench:
        made.append(Bench(*arguments, **keywords))
        return made[-1]

    yield bench
    for each in made:
        for close in each.closing:
            close()


# Our driver


@pytest.mark.parametrize(
    "model",
    [
        m if m in OF_THE_ISSUE else pytest.param(m, marks=pytest.mark.long)
        for m in Keithley2600B.MODELS
    ],
)
def test_every_model_is_driven_with_its_own_ranges(make: Callable[..., Bench], model: str) -> None:
    bench = make(model)
    driver = bench.ready()
    assert driver.identity.model == model
    assert driver.identity.serial == "4012345"
    assert driver.channels == (("a",) if model[:4] in ("2601", "2611", "2635") else ("a", "b"))
    limits = driver.limits("a")
    # The 10 mA range is there on every model (a public driver's list misprints it).
    assert 0.01 in limits.current_ranges_a
    assert list(limits.current_ranges_a) == sorted(set(limits.current_ranges_a))
    for full in limits.current_ranges_a:
        driver.configure("a", SourceSetup(Function.CURRENT, 1.0, full, 1.0))
        assert driver.settings("a").source_range == pytest.approx(full)
        driver.configure(
            "a", SourceSetup(Function.VOLTAGE, limits.smallest_compliance_a, 1.0, full)
        )
        assert driver.settings("a").measure_range == pytest.approx(full)
    for full in limits.voltage_ranges_v:
        driver.configure("a", SourceSetup(Function.VOLTAGE, 1e-3, full, 1e-3))
        assert driver.settings("a").source_range == pytest.approx(full)
    assert limits.allows(limits.max_v, 0.1)
    assert not limits.allows(limits.max_v, limits.max_a)
    driver.safe_off()
    assert not bench.sim.outputs_on


def test_connect_touches_no_output_and_refuses_another_model(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.say("smua.source.levelv = 0.5 smua.source.output = 1 errorqueue.clear()")
    before = len(bench.loads["a"].drives)
    bench.say("x = = 1")
    bench.connect()
    assert len(bench.loads["a"].drives) == before
    assert bench.sim.outputs_on
    assert bench.sim.queue, "connect emptied the error queue"
    bench.server.faults.add(Injected(LinkFault.WRONG_MODEL))
    with pytest.raises(ConfigError, match="ESPRESSO"):
        bench.connect()


def test_arm_switches_off_resets_and_empties_the_queue(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.say("smua.source.levelv = 0.5 smua.source.output = 1 smub.measure.nplc = 10")
    bench.say("x = = 1")
    driver = bench.connect()
    driver.arm()
    assert not bench.sim.outputs_on
    assert not bench.sim.queue
    assert bench.loads["a"].drives[-1].function == "off"
    assert bench.say("print(smua.source.levelv, smub.measure.nplc)") == ["0.00000e+00\t1.00000e+00"]


def test_the_smallest_legal_value_of_every_setting_arrives(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.connect()
    driver.arm()
    limits = driver.limits("a")
    driver.configure(
        "a",
        SourceSetup(
            Function.VOLTAGE,
            limits.smallest_compliance_a,
            0.2,
            1e-9,
            limits.shortest_aperture_s,
            1e-6,
        ),
    )
    driver.output("a", True)
    driver.source("a", 1e-5)
    drive = bench.loads["a"].drives[-1]
    assert drive.limit == pytest.approx(100e-12)
    assert drive.level == pytest.approx(1e-5, abs=6e-6)  # in steps of 5 uV
    told = driver.settings("a")
    assert told.compliance == pytest.approx(100e-12, rel=1e-6)
    assert told.aperture_s == pytest.approx(20e-6, rel=1e-6)
    assert told.settle_s == pytest.approx(1e-6, rel=1e-6)
    driver.configure("a", SourceSetup(Function.CURRENT, limits.smallest_compliance_v, 1e-9, 0.2))
    driver.source("a", 1.23e-11)
    assert bench.loads["a"].drives[-1].level == pytest.approx(1.23e-11, abs=3e-14)
    assert bench.loads["a"].drives[-1].limit == pytest.approx(0.02)


def test_a_reading_carries_its_status_from_the_instrument(make: Callable[..., Bench]) -> None:
    bench = make(ohms=(1e4, 1e5))
    driver = bench.ready()
    driver.source("a", 0.5)
    reading = driver.measure("a")
    assert reading.status.tolist() == [Status.OK]
    assert reading.amps[0] == pytest.approx(5e-5, rel=1e-3)
    assert reading.volts[0] == pytest.approx(0.5, rel=1e-3)
    driver.source("a", 1.5)
    beyond = driver.measure("a")  # 150 uA on the 100 uA range
    assert beyond.status.tolist() == [Status.OVER_RANGE]
    assert math.isnan(beyond.amps[0])
    driver.configure("a", SourceSetup(Function.VOLTAGE, 2e-5, 2.0, 1e-4, 1e-3))
    driver.source("a", -1.0)
    held = driver.measure("a")
    assert held.status.tolist() == [Status.COMPLIANCE]
    assert held.amps[0] == pytest.approx(-2e-5, rel=1e-3)
    assert held.volts[0] == pytest.approx(-0.2, rel=1e-2)
    driver.output("a", False)
    with pytest.raises(InstrumentError, match="off"):
        driver.measure("a")


def test_readings_stay_inside_the_stated_accuracy(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    for accuracy in driver.limits("a").measures_a:
        if accuracy.range > 0.1:
            continue
        bench.loads["a"].siemens = 0.9 * accuracy.range
        driver.configure("a", SourceSetup(Function.VOLTAGE, 0.1, None, accuracy.range, 0.02))
        driver.source("a", 1.0)
        for _ in range(5):
            reading = driver.measure("a")
            true = bench.loads["a"].sense()
            assert (
                abs(reading.amps[0] - true.amps)
                < accuracy.fraction * abs(true.amps) + accuracy.offset
            )
            assert reading.amps[0] != true.amps


def test_sweeps_and_lists_are_one_transaction_with_statuses_and_times(
    make: Callable[..., Bench],
) -> None:
    bench = make(ohms=(1e4, 1e5))
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 8e-5, 2.0, 1e-4, 1e-3, 2e-4))
    turns, begun_s = bench.server.transactions, bench.bus.clock.now_s
    found = driver.sweep("a", -1.0, 1.0, 201)
    assert bench.server.transactions == turns + 1
    forced = np.linspace(-1, 1, 201)
    assert (found.status[np.abs(forced) > 0.805] == Status.COMPLIANCE).all()
    assert (found.status[np.abs(forced) < 0.795] == Status.OK).all()
    free = np.abs(forced) < 0.795
    np.testing.assert_allclose(found.volts[free], forced[free], atol=1e-3)
    # Each point took its wait and its aperture.
    np.testing.assert_allclose(np.diff(found.time_s), 1.2e-3, rtol=0.05)
    assert bench.bus.clock.now_s - begun_s > 201 * 1.2e-3
    assert bench.loads["a"].drives[-1].level == 0.0
    levels = np.random.default_rng(1).uniform(-0.7, 0.7, 500)
    turns = bench.server.transactions
    listed = driver.list_sweep("b", levels)
    assert bench.server.transactions == turns + 1
    np.testing.assert_allclose(listed.amps, levels / 1e5, atol=3e-8)
    assert listed.time_s[0] > found.time_s[-1]
    with pytest.raises(ConfigError, match=str(MOST_POINTS)):
        driver.sweep("a", 0.0, 1.0, MOST_POINTS + 1)


def test_what_the_channel_cannot_do_is_refused_before_anything_is_sent(
    make: Callable[..., Bench],
) -> None:
    driver = make("2612B").ready()
    sent = driver.dialog.bytes_sent
    for setup in (
        SourceSetup(Function.VOLTAGE, 1e-9),
        SourceSetup(Function.VOLTAGE, 2.0),
        SourceSetup(Function.VOLTAGE, 1e-3, source_range=300.0),
        SourceSetup(Function.VOLTAGE, 1e-3, measure_range=2.0),
        SourceSetup(Function.VOLTAGE, 1e-3, aperture_s=1e-6),
        SourceSetup(Function.VOLTAGE, math.nan),
    ):
        with pytest.raises(ConfigError):
            driver.configure("a", setup)
    for level in (2.1, -2.1, math.nan):
        with pytest.raises(ConfigError, match="level"):
            driver.source("a", level)
    assert driver.dialog.bytes_sent == sent
    driver.configure("a", SourceSetup(Function.VOLTAGE, 1.0))
    with pytest.raises(ConfigError, match="beyond what channel a"):
        driver.source("a", 150.0)


def test_the_instrument_itself_refuses_what_its_manual_forbids(make: Callable[..., Bench]) -> None:
    driver = make("2636B").ready()
    for code, error in (
        ("smua.source.levelv = 300", 1101),
        ("smua.source.rangev = 2 smua.source.levelv = 5", 5005),
        ("smua.source.autorangev = 1 smua.source.limiti = 1 smua.source.levelv = 150", 5007),
        ("smua.source.limiti = 1e-11", 1102),
        ("smua.measure.nplc = 0", 1102),
        ("smua.measure.i(5)", 5033),
        ("print(smua.nvbuffer1[1])", 4900),
        ("smua.trigger.source.action = 1 smua.trigger.initiate()", 5059),
        ("smua.source.levelx = 1", -286),
        ("smuc.reset()", -286),
    ):
        with pytest.raises(InstrumentError) as raised:
            driver.lines(code)
        assert raised.value.code == error
        assert raised.value.command == code
        driver.arm()


def test_safe_off_opens_the_outputs_in_the_middle_of_a_lost_sweep(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    driver = bench.ready()
    driver.source("a", 1.0)
    bench.server.faults.add(Injected(LinkFault.DROP_REPLY))
    with pytest.raises(LinkError):
        driver.sweep("a", 0.0, 1.0, 5)
    driver.safe_off()
    assert not bench.sim.outputs_on
    assert [bench.loads[c].drives[-1].function for c in "ab"] == ["off", "off"]
    driver.configure("a", READ)
    driver.output("a", True)
    assert driver.measure("a").status.tolist() == [Status.OK]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(level=st.floats(-1.9, 1.9), ohm=st.floats(1e3, 1e8), limit=st.floats(1e-9, 1e-3))
def test_no_reading_is_wrong_and_ok(
    make: Callable[..., Bench], level: float, ohm: float, limit: float
) -> None:
    if not hasattr(make, "driver"):
        bench = make()
        make.driver, make.bench = bench.ready(), bench  # type: ignore[attr-defined]
    driver, bench = make.driver, make.bench  # type: ignore[attr-defined]
    bench.loads["a"].siemens = 1.0 / ohm
    driver.configure("a", SourceSetup(Function.VOLTAGE, limit, None, None, 1e-3))
    driver.source("a", level)
    driver.output("a", True)
    reading = driver.measure("a")
    true = bench.loads["a"].sense()
    assert reading.status[0] == (Status.COMPLIANCE if true.limited else Status.OK)
    assert reading.amps[0] == pytest.approx(true.amps, rel=2e-3, abs=1e-12)
    assert reading.volts[0] == pytest.approx(true.volts, rel=2e-3, abs=1e-4)


# The instrument's own ways


def test_factory_sweeps_and_pulses_run_on_the_instrument(make: Callable[..., Bench]) -> None:
    bench = make(ohms=(1e4, 1e5))
    bench.say("SweepVLinMeasureI(smua, -1, 1, 1e-3, 5)")
    amps, volts = bench.say(
        "printbuffer(1, 5, smua.nvbuffer1) printbuffer(1, 5, smua.nvbuffer1.sourcevalues)"
    )
    np.testing.assert_allclose(np.fromstring(amps, sep=","), np.linspace(-1e-4, 1e-4, 5), atol=1e-7)
    np.testing.assert_allclose(np.fromstring(volts, sep=","), np.linspace(-1, 1, 5))
    assert not bench.sim.outputs_on
    bench.say(
        "SweepVListMeasureI(smub, {0.3, 0.1}, 0, 2) SweepILogMeasureV(smua, 1e-6, 1e-4, 0, 3)"
    )
    assert bench.say("print(smub.nvbuffer1.n, smua.nvbuffer1.n)") == ["2.00000e+00\t3.00000e+00"]
    bench.say("smua.measure.nplc = 0.01 smua.measure.delay = 0 smua.source.output = 1")
    told = bench.say(
        "print(ConfigPulseVMeasureI(smua, 0, 1, 0.1, 1e-3, 4e-3, 3, smua.nvbuffer1, 1))"
        " timer.reset() print(InitiatePulseTest(1)) print(timer.measure.t())"
    )
    assert [line.split("\t")[0] for line in told[:2]] == ["true", "true"]
    assert float(told[2]) == pytest.approx(3 * 5e-3, rel=0.02)
    pulses = [d.level for d in bench.loads["a"].drives[-6:]]
    np.testing.assert_allclose(pulses, [1, 0, 1, 0, 1, 0], atol=1e-3)
    assert bench.say("print(InitiatePulseTest(7))")[0].startswith("false")
    assert not bench.sim.queue


def test_the_trigger_model_makes_pulses_timed_by_a_timer(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.say(
        "smua.source.output = 1 smua.trigger.source.listv({1, 2, 3}) smua.trigger.source.action ="
        " smua.ENABLE trigger.timer[1].delay = 1e-3 trigger.timer[1].stimulus ="
        " smua.trigger.SOURCE_COMPLETE_EVENT_ID smua.trigger.endpulse.stimulus ="
        " trigger.timer[1].EVENT_ID smua.trigger.endpulse.action = smua.SOURCE_IDLE"
        " smua.trigger.count = 3 timer.reset() smua.trigger.initiate() waitcomplete()"
    )
    assert float(bench.say("print(timer.measure.t())")[0]) == pytest.approx(3e-3, rel=0.01)
    np.testing.assert_allclose(
        [d.level for d in bench.loads["a"].drives[-6:]], [1, 0, 2, 0, 3, 0], atol=1e-3
    )


def test_a_sweep_that_goes_on_at_compliance_though_told_to_end_is_no_sweep(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    driver = Keithley2600B(
        Keithley2600B.Config(resource=bench.server.resource, stop_at_compliance=True)
    )
    bench.closing.insert(0, driver.close)
    driver.connect()
    driver.arm()
    driver.configure("a", replace(READ, compliance=5e-5))
    driver.output("a", True)
    levels, act = np.array([0.1, 1.0, 0.2]), bench.sim.message
    told = driver.list_sweep("a", levels).status
    assert told.tolist() == [Status.OK, Status.COMPLIANCE, Status.NOT_RUN]

    def lossy(line: str) -> str | bytes:
        return b"" if "bit.test" in line else act(line)

    bench.sim.message = lossy  # type: ignore[method-assign]
    with pytest.raises(InstrumentError, match="went on at compliance"):
        driver.list_sweep("a", levels)


def test_what_the_lines_before_a_sweep_took_is_spent_before_it_begins(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    clock, drive = bench.sim.place.bus.clock, bench.loads["a"].drive
    driven: list[tuple[float, float]] = []

    def told(wanted: Drive) -> None:
        driven.append((clock.now_s, wanted.level))
        drive(wanted)

    bench.loads["a"].drive = told  # type: ignore[method-assign]
    bench.say(
        "smua.source.output = 1 smua.trigger.source.listv({1, 2}) smua.trigger.source.action ="
        " smua.ENABLE trigger.timer[1].delay = 1e-3 trigger.timer[1].stimulus ="
        " smua.trigger.SOURCE_COMPLETE_EVENT_ID smua.trigger.endpulse.stimulus ="
        " trigger.timer[1].EVENT_ID smua.trigger.endpulse.action = smua.SOURCE_IDLE"
        " smua.trigger.count = 2 for k = 1, 10000 do end smua.trigger.initiate() waitcomplete()"
    )
    (on_s, _), *pulses = driven
    # Ten thousand turns take longer than ten pulses; none of it goes into the first one.
    assert pulses[0][0] - on_s > 10e-3
    lasted = [down[0] - up[0] for up, down in zip(pulses[::2], pulses[1::2], strict=True)]
    assert lasted == pytest.approx([1e-3, 1e-3], rel=0.01)


def test_two_channels_step_together_by_events(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.say(
        "smua.source.output = 1 smub.source.output = 1 smua.trigger.source.linearv(0, 1, 3)"
        " smub.trigger.source.linearv(1, 2, 3) smua.trigger.source.action = 1"
        " smub.trigger.source.action = 1 smua.trigger.count = 3 smub.trigger.count = 3"
        " smub.trigger.measure.i(smub.nvbuffer1) smub.trigger.measure.action = 1"
        " smub.trigger.source.stimulus = smua.trigger.SOURCE_COMPLETE_EVENT_ID"
        " smua.trigger.endpulse.stimulus = smub.trigger.MEASURE_COMPLETE_EVENT_ID"
        " smub.trigger.initiate() smua.trigger.initiate() waitcomplete()"
    )
    (line,) = bench.say("printbuffer(1, smub.nvbuffer1.n, smub.nvbuffer1)")
    np.testing.assert_allclose(np.fromstring(line, sep=","), [1e-5, 1.5e-5, 2e-5], rtol=1e-3)
    bench.say(
        "smua.trigger.source.stimulus = digio.trigger[1].EVENT_ID smua.trigger.initiate()"
        " waitcomplete()"
    )
    assert bench.sim.queue[-1].code == -286, "waiting for ever is an error here"


def test_trigger_lines_are_wires_and_a_silent_one_times_out(make: Callable[..., Bench]) -> None:
    bench = make()
    came: list[float] = []
    bench.bus.wire(("smu", 1), ("other", 1))
    bench.bus.wire(("smu", 2), ("other", 2))
    bench.bus.listen(("other", 1), lambda: came.append(bench.bus.clock.now_s))
    bench.say("digio.trigger[2].mode = digio.TRIG_FALLING delay(0.25) digio.trigger[1].assert()")
    assert came == [pytest.approx(0.25, abs=1e-3)]
    bench.bus.pulse(("other", 2))
    before_s = bench.bus.clock.now_s
    assert bench.say("print(digio.trigger[2].wait(1))") == ["true"]
    assert bench.bus.clock.now_s - before_s < 0.01
    assert bench.say("print(digio.trigger[2].wait(1))") == ["false"]
    assert bench.bus.clock.now_s - before_s == pytest.approx(1.0, abs=0.01)
    assert make("2614B").say("print(digio)") == ["nil"]


def test_buffers_collect_what_they_are_told(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.say(
        "smua.source.levelv = 1 smua.source.output = 1 smua.measure.nplc = 0.1 b ="
        " smua.makebuffer(10)"
    )
    bench.say(
        "smua.measure.count = 4 smua.measure.interval = 0.01 b.collectsourcevalues = 1"
        " smua.measure.iv(b)"
    )
    assert bench.say("print(b.n, b.capacity, b.sourcevalues[1])") == [
        "4.00000e+00\t1.00000e+01\t1.00000e+00"
    ]
    (times,) = bench.say("printbuffer(1, 4, b.timestamps)")
    np.testing.assert_allclose(np.diff(np.fromstring(times, sep=",")), 0.01, rtol=0.02)
    bench.say("smua.measure.i(b)")
    assert bench.say("print(b.n)") == ["4.00000e+00"], (
        "without append mode a buffer is emptied first"
    )
    bench.say("b.appendmode = 1")
    assert bench.sim.queue.pop().code == 5032, "only an empty buffer can be told to append"
    bench.say("b.clear() b.appendmode = 1 smua.measure.i(b) smua.measure.i(b)")
    assert bench.say("print(b.n)") == ["8.00000e+00"]
    bench.say("smua.measure.i(b)")
    assert bench.say("print(b.n)") == ["1.00000e+01"], "a full buffer drops what comes"
    bench.say(
        "b.clear() b.fillmode = smua.FILL_WINDOW b.fillcount = 3 smua.measure.count = 1"
        " for k = 1, 4 do smua.source.levelv = k smua.measure.v(b) end"
    )
    assert [float(v) for v in bench.say("printbuffer(1, 3, b)")[0].split(",")] == pytest.approx(
        [4, 2, 3], rel=1e-3
    )
    stats = bench.say("s = smua.buffer.getstats(b) print(s.n, s.mean, s.max.reading, s.stddev)")
    assert [float(v) for v in stats[0].split()] == pytest.approx([3, 3, 4, 1], rel=1e-3)
    bench.say("errorqueue.clear() b.collectsourcevalues = 0")
    assert bench.sim.queue[-1].code == 5032


# A 707B over TSP-Link


def test_a_row_script_commands_a_707b_over_tsp_link(make: Callable[..., Bench]) -> None:
    bench = make(timeout_s=1.0)
    matrix = Simulated707B("707B", Place(name="matrix", bus=bench.bus))
    bench.bus.nodes = {1: bench.sim, 2: matrix}
    driver = bench.ready()
    assert driver.ask("tsplink.reset() print(tsplink.state, node[2].model)") == "online\t707B"
    driver.load(
        "row",
        """
        function read_row(columns, volts)
          for k = 1, table.getn(columns) do
            node[2].channel.exclusiveclose(columns[k])
            smua.source.levelv = volts
            local i, v = smua.measure.iv()
            smua.source.levelv = 0
            print(k, i, v, smua.source.compliance)
          end
          node[2].channel.open("allslots")
        end
        """,
    )
    turns = bench.server.transactions
    columns = ", ".join(f'"1A{n:02d}"' for n in range(1, 13))
    told = driver.lines(f"read_row({{{columns}}}, {number(0.2)})", takes_s=2.0)
    assert bench.server.transactions == turns + 1
    assert len(told) == 12
    for line in told:
        words = line.split("\t")
        assert float(words[1]) == pytest.approx(2e-5, rel=1e-3)
        assert words[3] == "false"
    assert not matrix.outputs_on


# Drivers that others wrote


@pytest.mark.parametrize("model", OF_THE_ISSUE)
def test_pymeasure_sources_measures_ramps_and_shuts_down(
    make: Callable[..., Bench], model: str, soon_off: Any
) -> None:
    from pymeasure.instruments.keithley import Keithley2600

    bench = make(model, ohms=(1e3, 1e4))
    smu = Keithley2600(
        bench.server.resource, visa_library="@py", read_termination="\n", write_termination="\n"
    )
    try:
        for channel, load in ((smu.ChA, 1e3), (smu.ChB, 1e4))[: len(bench.sim.smus)]:
            channel.apply_voltage(compliance_current=0.01)
            channel.measure_current(nplc=0.1)
            channel.source_voltage = 0.5
            channel.source_output = "ON"
            assert channel.current == pytest.approx(0.5 / load, rel=1e-3)
            assert channel.voltage == pytest.approx(0.5, rel=1e-3)
            assert channel.resistance == pytest.approx(load, rel=1e-3)
            assert channel.source_mode == "voltage"
            assert channel.compliance_current == pytest.approx(0.01)
            channel.ramp_to_voltage(-0.5, steps=5, pause=0.0)
            assert channel.current == pytest.approx(-0.5 / load, rel=1e-3)
            channel.ramp_to_voltage(0.0, steps=2, pause=0.0)
            channel.source_output = "OFF"
            channel.apply_current(current_range=1e-3, compliance_voltage=0.1)
            channel.measure_voltage(nplc=0.1, voltage=1.0, auto_range=False)
            channel.source_current = 1e-3
            channel.source_output = "ON"
            assert channel.voltage == pytest.approx(min(0.1, 1e-3 * load), rel=1e-2)
            channel.wires_mode = "4"
            assert channel.wires_mode == "4"
            ramp = channel.ramp_to_current
            channel.ramp_to_current = lambda target, ramp=ramp: ramp(target, steps=3, pause=0.0)
            channel.shutdown()
            assert channel.source_output == "OFF"
        assert smu.next_error == (0, "Queue Is Empty")
        smu.write("smua.source.levelv = 1000")
        assert smu.next_error == (1101, "Parameter Too Big")
    finally:
        smu.adapter.close()
    assert soon_off(bench.sim)


def test_qcodes_drives_every_model_it_has_a_class_for(
    make: Callable[..., Bench], soon_off: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qcodes.dataset import LinSweep

        qcodes_keithley = importlib.import_module("qcodes.instrument_drivers.Keithley")

    names = [
        f"Keithley{model}"
        for model in Simulated2600B.MODELS
        if hasattr(qcodes_keithley, f"Keithley{model}")
    ]
    print("QCoDeS:", ", ".join(names))
    assert set(names) >= {f"Keithley{m}" for m in OF_THE_ISSUE}
    for name in names:
        bench = make(name.removeprefix("Keithley"), ohms=(1e4, 1e5))
        smu = getattr(qcodes_keithley, name)(
            f"q{name}", bench.server.resource, visalib="@py", terminator="\n"
        )
        try:
            assert smu.get_idn()["model"] == name.removeprefix("Keithley")
            channel = smu.smua
            channel.mode("voltage")
            # Private: QCoDeS tells the ranges of a model nowhere else.
            channel.sourcerange_v(smu._vranges[smu.model][1])
            channel.limiti(1e-3)
            channel.nplc(0.1)
            channel.volt(0.5)
            channel.output(True)
            assert channel.curr() == pytest.approx(5e-5, rel=1e-3)
            assert "No error" in str(channel.curr.measurement_status.value)
            assert channel.volt() == pytest.approx(0.5, rel=1e-3)
            assert channel.res() == pytest.approx(1e4, rel=1e-3)
            channel.limiti(1e-5)
            assert channel.curr() == pytest.approx(1e-5, rel=1e-2)
            assert "current compliance" in str(channel.curr.measurement_status.value)
            channel.limiti(1e-3)
            channel.measurerange_i(1e-3)
            assert channel.measurerange_i() == pytest.approx(1e-3)
            channel.setup_fastsweep(LinSweep(channel.volt, 0, 1, 21))
            np.testing.assert_allclose(channel.fastsweep(), np.linspace(0, 1e-4, 21), atol=1e-6)
            if len(bench.sim.smus) == 2:
                channel.setup_fastsweep(
                    LinSweep(channel.volt, 0, 1, 5), LinSweep(smu.smub.volt, 0, 0.5, 3)
                )
                assert channel.fastsweep().shape == (3, 5)
            channel.timetrace_npts(20)
            channel.timetrace_dt(0.005)
            channel.volt(0.1)
            np.testing.assert_allclose(channel.timetrace(), 1e-5, rtol=1e-2, atol=1e-6)
            channel.output(False)
            channel.reset()
            if len(bench.sim.smus) == 2:
                smu.reset()
            assert soon_off(bench.sim)
            assert not bench.sim.queue, list(bench.sim.queue)
        finally:
            smu.close()
