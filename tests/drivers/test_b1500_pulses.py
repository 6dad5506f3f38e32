"""Pulses of a B1500A: its pulse generator module beside its source-measure units on one link,
pulsed measurements, and PyMeasure's driver of the generator against the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Status
from rram_hil.drivers.dialects.b1500_spgu import Spgu
from rram_hil.drivers.keysight_b1500 import KeysightB1500
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.conformance import Check, checks_of
from rram_hil.drivers.simulated.conformance.station import Family
from rram_hil.drivers.simulated.keysight_b1500 import SimulatedB1500
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import BenchError, ConfigError, InstrumentError
from rram_hil.hardware.instrument import Function, InstrumentConfig, PulseSetup, SourceSetup
from rram_hil.simulation.config import Timing
from rram_hil.wire import link

MODULES = ("B1517A", "B1511B", "B1530A", "", "B1525A")
OHM = 1e4
OPEN = float("inf")
FORCE_VOLTS = SourceSetup(
    Function.VOLTAGE, compliance=1e-3, source_range=2.0, measure_range=1e-3, aperture_s=1e-4
)
SHOT = PulseSetup(2.0, 0.0, 1e-6, 10e-6, 20e-9)


class Scope(Resistor):
    """A load that notes every level with the virtual time at which it came."""

    def __init__(self, ohm: float, bus: Bus) -> None:
        super().__init__(ohm)
        self.bus, self.seen = bus, [(0.0, 0.0)]

    def drive(self, drive: Drive) -> None:
        super().drive(drive)
        level = drive.level if drive.function == "voltage" else 0.0
        if self.seen[-1][0] == self.bus.clock.now_s:
            self.seen.pop()
        self.seen.append((self.bus.clock.now_s, level))

    def stretches(self) -> list[tuple[float, float]]:
        """(level, seconds) of every stretch that is not at zero."""
        ends = [at_s for at_s, _ in self.seen[1:]] + [self.bus.clock.now_s]
        return [
            (level, end_s - at_s)
            for (at_s, level), end_s in zip(self.seen, ends, strict=True)
            if level and end_s > at_s
        ]


class Bench:
    def __init__(self, ohm: float = 1e6, modules: tuple[str, ...] = MODULES) -> None:
        self.bus = Bus()
        self.scopes = {c: Scope(ohm, self.bus) for c in ("501", "502")}
        self.loads = {c: Scope(OHM, self.bus) for c in ("1", "2")}
        place = Place("analyser", self.bus, {**self.scopes, **self.loads})
        self.sim = SimulatedB1500("B1500A", place, modules)
        self.server = InstrumentServer(self.sim, Timing())
        config = InstrumentConfig(resource=self.server.resource, timeout_s=0.3)
        self.driver = KeysightB1500(config)
        self.spgu = self.driver.generator
        self.driver.connect()
        self.driver.arm()

    def source(self, *channels: str, setup: SourceSetup = FORCE_VOLTS) -> KeysightB1500:
        """Source-measure channels that are on."""
        for channel in channels:
            self.driver.configure(channel, setup)
            self.driver.output(channel, True)
        return self.driver


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.driver.close()
    made.server.stop()


# Conformance of the generator, as an instrument of its own


class Alone(Spgu):
    """The generator (after the programming guide) without the rest, as the checks make a driver."""

    SHEETS = KeysightB1500.SHEETS

    def __init__(self, config: InstrumentConfig, traffic: Any = None) -> None:
        super().__init__(KeysightB1500(config, traffic))
        self._mainframe.generator.forget()
        self._mainframe._spgu = self  # type: ignore[attr-defined]


class WithSpgu(SimulatedB1500):
    """A mainframe with one pulse generator module in slot 5."""

    def __init__(self, model: str, place: Place) -> None:
        super().__init__(model, place, MODULES)


FAMILY = Family("keysight-b1500", Alone, WithSpgu)


@pytest.mark.parametrize("check", checks_of(FAMILY), ids=str)
def test_the_generator_conforms(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUIET_S", 0.02)
    check()


# Generator and source-meter on one link


def test_channels_of_both_kinds_are_told_apart_and_a_wgfmu_is_refused_by_name(bench):
    assert bench.driver.channels == ("1", "2")
    assert bench.spgu.channels == ("501", "502")
    with pytest.raises(ConfigError, match=r"B1530A.*WGFMU.*wgfmu\.dll"):
        bench.driver.configure("3", FORCE_VOLTS)
    with pytest.raises(ConfigError, match="generator"):
        bench.driver.limits("5")
    with pytest.raises(ConfigError, match="501, 502"):
        bench.spgu.limits("1")


def test_a_mainframe_without_the_module_has_no_channel_of_pulses():
    bench = Bench(modules=("B1517A",))
    assert bench.spgu.channels == ()
    with pytest.raises(ConfigError, match="no pulse generator module"):
        bench.spgu.configure("501", SHOT)
    bench.driver.close()


def test_counted_pulses_have_their_width_and_level_and_rest_at_the_low_level(bench):
    bench.spgu.configure("501", SHOT)
    bench.spgu.output("501", True)
    assert bench.scopes["501"].stretches() == []
    bench.spgu.fire("501", 3)
    seen = bench.scopes["501"].stretches()
    assert len(seen) == 3
    assert np.allclose([v for v, _ in seen], 2.0, rtol=1e-3)
    assert np.allclose([s for _, s in seen], 1e-6, rtol=1e-6)
    assert bench.scopes["502"].stretches() == []


@pytest.mark.parametrize("setup_ohm", [50.0, OPEN])
def test_levels_are_those_at_the_load_that_was_told_and_an_open_circuit_doubles_them(setup_ohm):
    bench = Bench(ohm=1e9)
    setup = PulseSetup(1.0, 0.0, 1e-6, 10e-6, 20e-9, setup_ohm)
    bench.spgu.configure("501", setup)
    assert bench.spgu.settings("501") == setup
    bench.spgu.output("501", True)
    bench.spgu.fire("501", 1)
    [(level, _)] = bench.scopes["501"].stretches()
    assert level == pytest.approx(2.0 if setup_ohm == 50.0 else 1.0, rel=1e-3)
    bench.driver.close()


def test_one_channel_pulses_while_another_that_is_on_holds_its_level(bench):
    for channel in ("501", "502"):
        bench.spgu.configure(channel, SHOT)
        bench.spgu.output(channel, True)
    bench.spgu.fire("501", 2)
    assert len(bench.scopes["501"].stretches()) == 2
    assert bench.scopes["502"].stretches() == []
    bench.spgu.fire("502", 1)
    assert len(bench.scopes["501"].stretches()) == 2
    assert len(bench.scopes["502"].stretches()) == 1


def test_a_source_meter_channel_stands_through_the_pulses_of_the_generator(bench):
    bench.source("1")
    bench.driver.source("1", 0.5)
    bench.spgu.configure("501", SHOT)
    bench.spgu.output("501", True)
    bench.spgu.fire("501", 1)
    assert bench.driver.measure("1").amps[0] == pytest.approx(0.5 / OHM, rel=0.01)


def test_one_safe_off_takes_both_kinds_to_zero_before_their_switches_open(bench):
    bench.source("1")
    bench.driver.source("1", 1.0)
    bench.spgu.configure("502", PulseSetup(2.0, 0.5, 1e-6, 10e-6, 20e-9))
    bench.spgu.output("502", True)
    assert not bench.driver.is_off()
    assert not bench.spgu.is_off()
    heard: list[str] = []
    act = bench.sim.message
    bench.sim.message = lambda line: heard.append(line) or act(line)
    bench.driver.safe_off()
    assert heard == ["AB", "*LRN? 0", "SPP;SIM 0", "ERRX?", "DZ 1;CL;ERRX?", "*LRN? 0"]
    assert not bench.sim.outputs_on
    assert bench.spgu.is_off()
    with pytest.raises(InstrumentError, match="off"):
        bench.spgu.fire("502", 1)


def test_safe_off_stops_generators_that_the_list_of_outputs_does_not_name(bench):
    bench.spgu.configure("501", PulseSetup(2.0, 0.5, 1e-6, 10e-6, 20e-9))
    bench.spgu.output("501", True)
    act = bench.sim.message
    bench.sim.message = lambda line: "CL" if line == "*LRN? 0" else act(line)
    bench.driver.safe_off()
    assert not bench.sim.outputs_on


def test_a_channel_gives_its_pulses_after_another_has_given_some_and_gone_off(bench):
    for channel in ("501", "502"):
        bench.spgu.configure(channel, SHOT)
        bench.spgu.output(channel, True)
    bench.spgu.fire("501", 1)
    bench.spgu.output("501", False)
    bench.spgu.fire("502", 2)
    assert len(bench.scopes["502"].stretches()) == 2


def test_a_burst_has_its_own_period_whichever_channel_was_configured_last(bench):
    bench.spgu.configure("501", SHOT)
    bench.spgu.output("501", True)
    bench.spgu.configure("502", PulseSetup(2.0, 0.0, 1e-6, 10e-3, 20e-9))
    began_s = bench.bus.clock.now_s
    bench.spgu.fire("501", 3)
    times = [at_s for at_s, level in bench.scopes["501"].seen if level and at_s >= began_s]
    assert np.allclose(np.diff(times), SHOT.period_s, rtol=1e-3)


def test_a_burst_that_does_not_end_is_stopped_and_told(bench):
    bench.spgu.configure("501", SHOT)
    bench.spgu.output("501", True)
    act = bench.sim.message
    bench.sim.message = lambda line: "1" if line.endswith("SPST?") else act(line)
    with pytest.raises(InstrumentError, match="without an end"):
        bench.spgu.fire("501", 1)


def test_a_selector_is_read_back(bench):
    bench.driver.select(2, "generator")
    assert bench.sim.selected == [0, 2, 0, 0]
    bench.server.faults.add(Injected(LinkFault.DROP_REQUEST, "ERSSP 1", 0.0))
    with pytest.raises(BenchError):
        bench.driver.select(2, "source-meter")
    with pytest.raises(ConfigError, match="1 to 4"):
        bench.driver.select(5, "open")


# Pulsed measurement


def test_a_pulsed_spot_measures_at_its_top_and_rests_at_its_base(bench):
    driver = bench.source("1")
    found = driver.pulse({"1": 1.0}, width_s=1e-3)["1"]
    assert found.amps[0] == pytest.approx(1.0 / OHM, rel=0.01)
    assert (found.volts[0], found.status[0]) == (1.0, Status.OK)
    [(level, seconds)] = bench.loads["1"].stretches()
    assert level == pytest.approx(1.0)
    assert seconds == pytest.approx(1e-3, rel=0.01)
    assert driver.measure("1").amps[0] == pytest.approx(0.0, abs=1e-6)


def test_a_pulsed_sweep_gives_one_pulse_a_point(bench):
    driver = bench.source("1")
    found = driver.pulsed_sweep({"1": (0.2, 1.0)}, 5, width_s=1e-3, period_s=10e-3)["1"]
    levels = np.linspace(0.2, 1.0, 5)
    assert np.allclose(found.volts, levels)
    assert np.allclose(found.amps, levels / OHM, rtol=0.02, atol=1e-6)
    assert np.allclose(np.diff(found.time_s), 10e-3, rtol=0.05)
    assert np.allclose([s for _, s in bench.loads["1"].stretches()], 1e-3, rtol=0.01)


def test_several_channels_pulse_and_sweep_together(bench):
    driver = bench.source("1", "2")
    spot = driver.pulse({"1": 1.0, "2": -0.5}, width_s=1e-3)
    assert spot["1"].amps[0] == pytest.approx(1.0 / OHM, rel=0.01)
    assert spot["2"].amps[0] == pytest.approx(-0.5 / OHM, rel=0.01)
    pulsed = driver.pulsed_sweep({"1": (0.1, 0.5), "2": (0.5, 0.1)}, 3, width_s=1e-3)
    joint = driver.joint_sweep({"1": (0.1, 0.5), "2": (0.5, 0.1)}, 3)
    for found in (pulsed, joint):
        assert np.allclose(found["1"].amps, np.array([0.1, 0.3, 0.5]) / OHM, rtol=0.02, atol=1e-6)
        assert np.allclose(found["2"].amps, np.array([0.5, 0.3, 0.1]) / OHM, rtol=0.02, atol=1e-6)
    assert bench.sim.modules[1].output.level == bench.sim.modules[2].output.level == 0


def test_a_pulse_at_compliance_says_so(bench):
    driver = bench.source("1", setup=SourceSetup(Function.VOLTAGE, 50e-6, 2.0, 1e-4, 1e-4))
    found = driver.pulse({"1": 1.0}, width_s=1e-3)["1"]
    assert found.status[0] == Status.COMPLIANCE
    swept = driver.pulsed_sweep({"1": (0.1, 1.0)}, 4, width_s=1e-3)["1"]
    assert list(swept.status) == [Status.OK, Status.OK, Status.COMPLIANCE, Status.COMPLIANCE]


@pytest.mark.parametrize(
    ("width_s", "period_s", "level", "words"),
    [
        (1e-6, 0.0, 1.0, "pulse generator"),
        (3.0, 0.0, 1.0, "width_s"),
        (4e-3, 5e-3, 1.0, "period_s"),
        (1e-3, 0.0, 50.0, "level"),
        (float("nan"), 0.0, 1.0, "width_s"),
    ],
)
def test_pulses_that_a_module_does_not_make_are_refused_before_anything_is_sent(
    bench, width_s, period_s, level, words
):
    driver = bench.source("1")
    before = driver.dialog.bytes_sent
    with pytest.raises(ConfigError, match=words):
        driver.pulse({"1": level}, width_s=width_s, period_s=period_s)
    with pytest.raises(ConfigError):
        driver.pulsed_sweep({}, 3, width_s=1e-3)
    assert driver.dialog.bytes_sent == before


def test_a_mode_without_its_source_is_refused_by_the_instrument(bench):
    ask = bench.sim.message
    for mode in ("3,1", "4,1", "16,1", "27,1", "28,1"):
        assert ask(f"CN 1;MM {mode};XE;ERRX?").strip().startswith("+222")
    assert ask("MM 3,1,2;ERRX?").startswith("+122")
    assert ask("PT 0,1E-4;ERRX?").startswith("+120")
    assert ask("MCPNX 1,1,1,0,0,1,1E-3;ERRX?").startswith("+120")
    assert ask("ERSSP 0,1;ERRX?").startswith("+120")
    assert ask("SIM 1;ERRX?").startswith("+120")
    assert ask("SPV 101,1,0,1;ERRX?").startswith("+121")
    assert ask("SPUPD 501;ERRX?").startswith("+200")


@settings(max_examples=25, deadline=None)
@given(
    volts=st.floats(0.01, 20.0),
    sign=st.sampled_from([1, -1]),
    width_s=st.floats(50e-9, 1e-3),
    count=st.integers(1, 5),
)
def test_every_pulse_that_is_taken_arrives(volts, sign, width_s, count):
    bench = Bench(ohm=1e9)
    setup = PulseSetup(sign * volts, 0.0, width_s, 2 * width_s + 1e-6, 20e-9)
    bench.spgu.configure("501", setup)
    bench.spgu.output("501", True)
    bench.spgu.fire("501", count)
    seen = bench.scopes["501"].stretches()
    assert len(seen) == count
    assert np.allclose([v for v, _ in seen], sign * volts, rtol=1e-3)
    assert np.allclose([s for _, s in seen], width_s, rtol=1e-3)
    bench.driver.safe_off()
    bench.driver.close()
    bench.server.stop()


HEADERS = [
    *("SIM", "SPRM", "SPPER", "SPM", "SPV", "SPT", "SER", "STGP", "SPUPD", "SRP", "SPP", "SPV?"),
    *("PT", "PV", "PWV", "MCPT", "MCPNT", "MCPNX", "MCPWS", "MCPWNX", "WNX", "MM", "XE", "ERSSP"),
]
NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 27, 501, 502, 1e-6, 1e-3, 0.5, -1, 40, 1e9])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(HEADERS), st.lists(NUMBERS, max_size=8)), min_size=1, max_size=12
    )
)
def test_whatever_is_sent_is_taken_or_refused_with_a_code(commands):
    sim = SimulatedB1500("B1500A", Place(), MODULES)
    sim.message("CN 1,2,501;SPRM 1,1")
    for header, numbers in commands:
        # Of a burst that is asked for no more is given than a test has time for.
        sim.spgu.run = (sim.spgu.run[0], min(sim.spgu.run[1], 3.0))
        sim.pulse_steps = sim.joint_steps = (1, 1)
        sim.message(f"{header} {','.join(map(str, numbers))}")
        assert sim.message("ERRX? 1").strip().lstrip("+-").isdigit()


def test_pymeasures_driver_of_the_generator_pulses():
    agilent = pytest.importorskip("pymeasure.instruments.agilent")
    bench = Bench()
    bench.driver.close()
    other = agilent.AgilentB1500(bench.server.resource)
    other.initialize_all_spgus()
    [unit] = other.spgus.values()
    channel = unit.ch1
    unit.operation_mode = agilent.agilentB1500.SPGUOperationMode.PG
    channel.enabled = True
    unit.period = 10e-6
    unit.set_output_mode(agilent.agilentB1500.SPGUOutputMode.COUNT, 4)
    channel.load_impedance = 1e6
    channel.output_mode = agilent.agilentB1500.SPGUChannelOutputMode.SIGNAL_SOURCE_1
    channel.set_output_voltage(source=1, base_voltage=0, peak_voltage=1.5)
    channel.set_pulse_timings(source=1, delay=0, width=2e-6, rise_time=2e-8, fall_time=2e-8)
    channel.apply_setup()
    unit.output = True
    # Its writes wait for nothing; a query is answered after them.
    assert channel.get_pulse_timings(source=1) == (0.0, 2e-6, 2e-8, 2e-8)
    seen = bench.scopes["501"].stretches()
    assert [round(v, 2) for v, _ in seen] == [1.5] * 4
    assert np.allclose([s for _, s in seen], 2e-6, rtol=1e-3)
    channel.enabled = False
    assert channel.get_output_voltage(source=1) == (0.0, 1.5)
    assert not bench.sim.outputs_on
    other.adapter.connection.close()
    bench.server.stop()
