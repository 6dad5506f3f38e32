"""Keysight 33500B/33600A: our driver, PyMeasure's and QCoDeS's against the simulator, over TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rram_hil.drivers.keysight_33500 import Keysight33500
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.keysight_33500 import Simulated33500
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import InstrumentConfig, PulseSetup
from rram_hil.simulation.config import Timing

OPEN = float("inf")
PULSE = PulseSetup(2.0, 0.0, 20e-9, 200e-9, 8.4e-9)
QCODES_MODELS = ("33510B", "33511B", "33512B", "33522B", "33611A", "33622A")


class Scope(Resistor):
    """A load that notes every level with the virtual time at which it came."""

    def __init__(self, ohm: float, now_s: Callable[[], float]) -> None:
        super().__init__(ohm)
        self.seen: list[tuple[float, float]] = []
        self._now_s = now_s

    def drive(self, drive: Drive) -> None:
        super().drive(drive)
        if drive.function == "voltage":
            self.seen.append((self._now_s(), drive.level))

    def pulses(self, volts: float) -> list[float]:
        """Widths of all stretches at a level (s)."""
        found = []
        for (at_s, level), (until_s, after) in zip(self.seen, self.seen[1:], strict=False):
            if (
                level == pytest.approx(volts, rel=1e-9, abs=1e-12)
                and until_s > at_s
                and after != level
            ):
                found.append(until_s - at_s)
        return found


class Bench:
    """A simulated generator with a scope on each output, and the driver connected to it."""

    def __init__(self, model: str = "33522B", ohm: float = OPEN, timeout_s: float = 0.3) -> None:
        self.bus = Bus()
        self.scopes = {c: Scope(ohm, lambda: self.bus.clock.now_s) for c in ("1", "2")}
        self.sim = Simulated33500(model, Place("generator", self.bus, self.scopes))
        self.server = InstrumentServer(self.sim, Timing())
        self.driver = Keysight33500(
            InstrumentConfig(resource=self.server.resource, timeout_s=timeout_s)
        )
        self.driver.connect()

    def ready(self, setup: PulseSetup = PULSE) -> Keysight33500:
        self.driver.arm()
        self.driver.configure("1", setup)
        self.driver.output("1", True)
        return self.driver

    def close(self) -> None:
        self.driver.close()
        self.server.stop()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_connect_identifies_and_changes_nothing(bench: Bench) -> None:
    bench.ready()
    again = Keysight33500(
        InstrumentConfig(resource=bench.server.resource, model="33522B", timeout_s=0.3)
    )
    assert again.connect().model == "33522B"
    assert bench.sim.outputs_on
    again.close()
    bench.server.faults.add(Injected(LinkFault.WRONG_MODEL))
    with pytest.raises(ConfigError, match="ESPRESSO"):
        again.connect()
    assert not again.dialog.link.is_open


def test_pulses_of_20_ns_come_counted_and_whole(bench: Bench) -> None:
    driver = bench.ready()
    scope = bench.scopes["1"]
    scope.seen.clear()
    before, start_s = driver.dialog.transactions, bench.bus.clock.now_s
    driver.fire("1", 7)
    assert driver.dialog.transactions - before == 1
    assert scope.pulses(2.0) == pytest.approx([20e-9] * 7, abs=1e-12)
    assert scope.seen[-1][1] == 0.0
    assert bench.bus.clock.now_s - start_s >= 7 * 200e-9
    assert driver.settings("1") == PULSE


@pytest.mark.parametrize(
    ("model", "width", "edge"), [("33511B", 16e-9, 8.4e-9), ("33622A", 5e-9, 2.9e-9)]
)
def test_shortest_pulse_arrives_exactly(model: str, width: float, edge: float) -> None:
    made = Bench(model)
    setup = PulseSetup(0.5, 0.0, width, 1e-6, edge)
    driver = made.ready(setup)
    assert driver.settings("1") == setup
    made.scopes["1"].seen.clear()
    driver.fire("1", 1)
    assert made.scopes["1"].pulses(0.5) == pytest.approx([width], abs=1e-13)
    assert driver.limits("1").shortest_s == width
    with pytest.raises(ConfigError, match="width_s"):
        driver.configure("1", PulseSetup(0.5, 0.0, width * 0.99, 1e-6, edge))
    made.close()


@pytest.mark.parametrize(
    ("load", "ohm"), [(OPEN, OPEN), (50.0, 50.0), (1000.0, 1000.0), (1.0, 1.0)]
)
def test_levels_are_those_at_the_load(load: float, ohm: float) -> None:
    made = Bench("33511B", ohm)
    share = 1.0 if load == OPEN else load / (load + 50)
    setup = PulseSetup(8.0 * share, -1.5 * share, 1e-6, 5e-6, 1e-8, load)
    driver = made.ready(setup)
    told = driver.settings("1")
    assert (told.high_v, told.low_v) == pytest.approx((setup.high_v, setup.low_v), rel=1e-9)
    assert told.load_ohm == load
    made.scopes["1"].seen.clear()
    driver.fire("1", 1)
    assert made.scopes["1"].pulses(setup.high_v) == pytest.approx([1e-6])
    assert made.scopes["1"].sense().volts == pytest.approx(setup.low_v)
    with pytest.raises(ConfigError, match="high_v"):
        driver.configure("1", PulseSetup(10.5 * share, 0.0, 1e-6, 5e-6, 1e-8, load))
    made.close()


def test_wrong_load_setting_doubles_the_true_level_but_not_the_told_one() -> None:
    made = Bench("33511B", OPEN)
    driver = made.ready(PulseSetup(2.0, 0.0, 1e-6, 5e-6, 1e-8, 50.0))
    made.scopes["1"].seen.clear()
    driver.fire("1", 1)
    assert made.scopes["1"].pulses(4.0) == pytest.approx([1e-6])
    assert float(driver.ask(":SOUR1:VOLT:HIGH?")) == pytest.approx(2.0)
    driver.send(":OUTP1:LOAD INF")
    assert float(driver.ask(":SOUR1:VOLT:HIGH?")) == pytest.approx(4.0)
    driver.send(":OUTP1:LOAD 50")
    assert float(driver.ask(":SOUR1:VOLT:HIGH?")) == pytest.approx(2.0)
    made.close()


def test_negative_pulse_rests_at_its_own_level(bench: Bench) -> None:
    driver = bench.ready(PulseSetup(-1.5, 0.0, 1e-7, 1e-6, 1e-8))
    assert driver.settings("1") == PulseSetup(-1.5, 0.0, 1e-7, 1e-6, 1e-8)
    bench.scopes["1"].seen.clear()
    driver.fire("1", 3)
    assert bench.scopes["1"].pulses(-1.5) == pytest.approx([1e-7] * 3)
    assert bench.scopes["1"].sense().volts == 0.0


def test_one_channel_fires_alone(bench: Bench) -> None:
    driver = bench.ready()
    driver.configure("2", PULSE)
    driver.output("2", True)
    for scope in bench.scopes.values():
        scope.seen.clear()
    driver.fire("2", 2)
    assert bench.scopes["1"].seen == []
    assert len(bench.scopes["2"].pulses(2.0)) == 2


def test_output_that_is_off_is_an_error_and_gives_no_pulse(bench: Bench) -> None:
    driver = bench.driver
    driver.arm()
    with pytest.raises(ConfigError, match="not been configured"):
        driver.output("1", True)
    driver.configure("1", PULSE)
    assert not bench.sim.outputs_on
    bench.scopes["1"].seen.clear()
    with pytest.raises(InstrumentError, match="is off"):
        driver.fire("1", 1)
    assert bench.scopes["1"].seen == []
    for count in (0, 100_001):
        with pytest.raises(ConfigError, match="count"):
            driver.fire("1", count)


def test_impossible_pulses_are_refused_before_anything_is_sent(bench: Bench) -> None:
    driver = bench.ready()
    before = driver.dialog.transactions
    for key, setup in {
        "high_v": PulseSetup(1.0, 1.0, 1e-6, 5e-6, 1e-8),
        "edge_s": PulseSetup(1.0, 0.0, 1e-8 * 1.6, 5e-6, 1e-8),
        "period_s": PulseSetup(1.0, 0.0, 1e-6, 1.001e-6, 1e-8),
        "load_ohm": PulseSetup(1.0, 0.0, 1e-6, 5e-6, 1e-8, 0.5),
        "width_s": PulseSetup(1.0, 0.0, float("nan"), 5e-6, 1e-8),
        "low_v": PulseSetup(1.0, float("nan"), 1e-6, 5e-6, 1e-8),
    }.items():
        with pytest.raises(ConfigError, match=key):
            driver.configure("1", setup)
    assert driver.dialog.transactions == before


def test_clipping_by_the_instrument_is_raised(bench: Bench) -> None:
    driver = bench.ready()
    with pytest.raises(InstrumentError, match="clipped to lower limit") as caught:
        driver.send(":SOUR1:FUNC:PULS:WIDT 0.000000")
    assert caught.value.code == -222
    with pytest.raises(InstrumentError, match="Trigger ignored"):
        driver.send(":TRIG1:SOUR EXT", "*TRG")
    with pytest.raises(InstrumentError, match="pulse width decreased") as caught:
        driver.send(":SOUR1:FUNC:PULS:WIDT 1")
    assert caught.value.code == -221


def test_timeout_follows_the_burst(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = bench.ready(PulseSetup(1.0, 0.0, 1e-3, 1e-2, 1e-6))
    waits: list[float] = []
    inner = driver.dialog.query

    def query(command: str, *, takes_s: float = 0.0) -> str:
        waits.append(takes_s)
        return inner(command, takes_s=takes_s)

    monkeypatch.setattr(driver.dialog, "query", query)
    driver.fire("1", 500)
    assert waits == [pytest.approx(5.0)]


def test_lost_reply_is_an_error_and_the_next_answer_is_in_step(bench: Bench) -> None:
    driver = bench.ready()
    bench.server.faults.add(Injected(LinkFault.DELAY_REPLY, "OPC", 0.5))
    with pytest.raises(LinkError):
        driver.fire("1", 1)
    assert driver.settings("1") == PULSE
    bench.server.faults.add(Injected(LinkFault.HALF_REPLY, "VOLT:HIGH"))
    with pytest.raises(LinkError):
        driver.settings("1")
    driver.safe_off()
    assert not bench.sim.outputs_on
    assert driver.is_off()


def test_arbitrary_waveform_goes_as_a_block_and_is_played(bench: Bench) -> None:
    driver = bench.driver
    driver.arm()
    # Codes 0x0A0A, 0x0D0A and 0x233B hold a line feed, a carriage return, "#" and ";".
    codes = np.array([0, 0x0A0A, 0x0D0A, 0x233B, 32767, -32767, 0x2231, 0], dtype=np.float64)
    driver.configure_arbitrary(
        "1", "bump", codes / 32767, rate_hz=1e6, high_v=3.2767, low_v=-3.2767, load_ohm=OPEN
    )
    driver.output("1", True)
    scope = bench.scopes["1"]
    scope.seen.clear()
    driver.fire("1", 1)
    assert [v for _, v in scope.seen][: codes.size] == pytest.approx(codes * 1e-4, abs=1e-9)
    assert np.diff([t for t, _ in scope.seen[: codes.size]]) == pytest.approx(1e-6)
    driver.configure_arbitrary(
        "1", "long", np.linspace(-1, 1, 65536), rate_hz=1e6, high_v=1, low_v=0, load_ohm=50.0
    )
    assert driver.ask(":SOUR1:DATA:ATTR:POIN?") == "65536"
    with pytest.raises(ConfigError, match="samples"):
        driver.configure_arbitrary(
            "1", "few", [0.0] * 7, rate_hz=1e6, high_v=1, low_v=0, load_ohm=50.0
        )
    plain = Bench("33509B")
    plain.driver.arm()
    with pytest.raises(ConfigError, match="no arbitrary"):
        plain.driver.configure_arbitrary(
            "1", "b", codes / 32767, rate_hz=1e6, high_v=1, low_v=0, load_ohm=50.0
        )
    plain.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    high=st.floats(-10, 10),
    low=st.floats(-10, 10),
    width=st.floats(-7.6989, 1),
    period=st.floats(0.1, 3),
    edge=st.floats(0, 1),
)
def test_legal_pulses_come_back_as_they_were_sent(
    bench: Bench, high: float, low: float, width: float, period: float, edge: float
) -> None:
    assume(abs(high - low) >= 2e-3)
    width_s = 10**width
    edge_s = float(np.clip(edge * width_s / 1.25, 8.4e-9, 1e-6))
    setup = PulseSetup(high, low, width_s, (width_s + 1.25 * edge_s + 16e-9) * (1 + period), edge_s)
    driver = bench.driver
    driver.configure("1", setup)
    told = driver.settings("1")
    assert (told.high_v, told.low_v) == pytest.approx((high, low), rel=1e-9, abs=1e-9)
    assert (told.width_s, told.period_s, told.edge_s) == pytest.approx(
        (setup.width_s, setup.period_s, setup.edge_s), rel=1e-9
    )
    assert not bench.sim.outputs_on


def test_pymeasure_agilent33500_drives_the_simulator(bench: Bench, soon_off: Any) -> None:
    module = pytest.importorskip("pymeasure.instruments.agilent")
    peer = module.Agilent33500(
        bench.server.resource,
        visa_library="@py",
        read_termination="\n",
        write_termination="\n",
        timeout=5000,
    )
    try:
        assert "33522B" in peer.id
        peer.shape = "PULS"
        assert peer.shape == "PULS"
        peer.output_load = "INF"
        assert float(peer.output_load) == 9.9e37
        peer.amplitude_unit = "VPP"
        peer.amplitude, peer.offset = 2.0, 1.0
        peer.voltage_high, peer.voltage_low = 2.5, 0.5
        assert (peer.amplitude, peer.offset) == pytest.approx((2.0, 1.5))
        peer.pulse_hold = "WIDT"
        peer.pulse_width = 2e-8
        peer.pulse_period = 1e-6
        peer.pulse_transition = 1e-8
        assert (peer.pulse_width, peer.pulse_transition, peer.pulse_period) == pytest.approx(
            (2e-8, 1e-8, 1e-6)
        )
        assert peer.frequency == pytest.approx(1e6)
        assert peer.pulse_dutycycle == pytest.approx(2.0)
        peer.burst_mode, peer.burst_ncycles, peer.burst_state = "TRIG", 3, True
        assert (peer.burst_mode, peer.burst_ncycles, peer.burst_state) == ("TRIG", 3, True)
        peer.burst_period = 1e-3
        peer.trigger_source = "BUS"
        peer.ext_trig_out = True
        peer.output = True
        assert peer.output is True
        bench.scopes["1"].seen.clear()
        peer.trigger()
        peer.wait_for_trigger(timeout=2)
        assert bench.scopes["1"].pulses(2.5) == pytest.approx([2e-8] * 3)
        peer.ch_2.shape = "SQU"
        peer.ch_2.square_dutycycle = 25
        peer.ch_2.ramp_symmetry = 10
        peer.ch_2.phase = -90
        assert (peer.ch_2.shape, peer.ch_2.square_dutycycle, peer.ch_2.phase) == ("SQU", 25, -90)
        peer.ch_2.data_volatile_clear()
        peer.ch_2.data_arb("test", range(-10000, 10000, 200), data_format="DAC")
        peer.ch_2.arb_file = "test"
        peer.ch_2.shape = "ARB"
        peer.ch_2.arb_srate = 1e6
        peer.ch_2.arb_filter, peer.ch_2.arb_advance = "STEP", "SRAT"
        assert (peer.ch_2.arb_srate, peer.ch_2.arb_filter) == (1e6, "STEP")
        peer.phase_sync()
        peer.beep()
        peer.display = "hello"
        peer.clear_display()
        peer.output = False
        assert peer.output is False
        assert soon_off(bench.sim)
        assert peer.check_errors() == []
    finally:
        peer.adapter.close()


@pytest.mark.parametrize("model", QCODES_MODELS)
def test_qcodes_driver_of_the_model_drives_the_simulator(model: str, soon_off: Any) -> None:
    module = pytest.importorskip(f"qcodes.instrument_drivers.Keysight.Keysight_{model.lower()}")
    made = Bench(model)
    kind: Any = getattr(module, f"Keysight{model}")
    peer = kind(
        f"g{model.lower()}", made.server.resource, visalib="@py", terminator="\n", silent=True
    )
    try:
        assert peer.IDN()["model"] == model
        channel = peer.ch1
        channel.function_type("PULS")
        channel.amplitude_unit("VPP")
        channel.amplitude(2.0)
        channel.offset(1.0)
        channel.pulse_width(3e-7)
        channel.frequency(1e5)
        assert (channel.pulse_width(), channel.frequency()) == pytest.approx((3e-7, 1e5))
        channel.burst_mode("N Cycle")
        channel.burst_ncycles(2)
        channel.burst_phase(0)
        channel.burst_int_period(1e-3)
        channel.burst_polarity("NORM")
        channel.trigger_source("BUS")
        channel.trigger_slope("POS")
        channel.trigger_delay(0)
        channel.trigger_count(1)
        channel.trigger_timer(1e-3)
        channel.output_polarity("NORM")
        channel.burst_state("ON")
        channel.output("ON")
        assert (channel.output(), channel.burst_state(), channel.burst_ncycles()) == ("ON", "ON", 2)
        peer.sync.output("OFF")
        assert peer.sync.output() == "OFF"
        if peer.num_channels == 2:
            peer.sync.source(2)
            assert peer.sync.source() == 2
            assert peer.ch2.function_type() == "SIN"
            peer.sync_channel_phases()
        made.scopes["1"].seen.clear()
        peer.force_trigger()
        assert peer.ask("*OPC?") == "1"
        # Set for 50 ohm, an open output gives twice the level.
        assert made.scopes["1"].pulses(4.0) == pytest.approx([3e-7] * 2)
        peer.snapshot(update=True)
        channel.output("OFF")
        assert channel.output() == "OFF"
        assert soon_off(made.sim)
        assert peer.error()[0] == 0
    finally:
        peer.close()
        made.close()
