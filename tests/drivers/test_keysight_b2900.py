"""Keysight B2900: our driver and QCoDeS's B2962A driver against the simulator, over TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rram_hil.array import Status
from rram_hil.drivers.keysight_b2900 import MOST_POINTS, KeysightB2900
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.keysight_b2900 import SimulatedB2900
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import Function, InstrumentConfig, SourceSetup
from rram_hil.simulation.config import Timing
from rram_hil.wire.recording import Recorder

READ = SourceSetup(
    Function.VOLTAGE, 1e-3, source_range=2.0, measure_range=1e-4, aperture_s=1e-3, settle_s=2e-4
)


class Bench:
    """A simulated instrument with resistors on its channels, and the driver connected to it."""

    def __init__(
        self, model: str = "B2902A", ohms: tuple[float, float] = (1e4, 1e5), timeout_s: float = 0.3
    ) -> None:
        self.bus = Bus()
        self.loads = {"1": Resistor(ohms[0]), "2": Resistor(ohms[1])}
        self.sim = SimulatedB2900(model, Place("smu", self.bus, self.loads))
        self.server = InstrumentServer(self.sim, Timing())
        self.driver = KeysightB2900(
            InstrumentConfig(resource=self.server.resource, timeout_s=timeout_s)
        )
        self.driver.connect()

    def ready(self, setup: SourceSetup = READ) -> KeysightB2900:
        self.driver.arm()
        for channel in self.driver.channels:
            self.driver.configure(channel, setup)
            self.driver.output(channel, True)
        return self.driver

    @property
    def now_s(self) -> float:
        return self.bus.clock.now_s


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.driver.close()
    made.server.stop()


class Stepper:
    """Stands for a matrix: a pulse in puts the next load on channel 1, waits for its relays, and
    pulses out.
    """

    def __init__(self, bench: Bench, ohms: list[float], settle_s: float = 1e-3) -> None:
        self._bench, self._ohms, self._settle_s = bench, list(ohms), settle_s
        self.hot = 0
        bench.bus.wire(("matrix", 1), ("smu", 5))
        bench.bus.wire(("smu", 6), ("matrix", 2))
        bench.bus.listen(("matrix", 2), self.step)

    def step(self) -> None:
        if not self._ohms:
            return
        load = self._bench.loads["1"]
        load.siemens = 1.0 / self._ohms.pop(0)
        self._bench.bus.clock.advance(self._settle_s)
        self._bench.bus.pulse(("matrix", 1))


def test_connect_refuses_another_model_and_closes() -> None:
    made = Bench()
    made.server.faults.add(Injected(LinkFault.WRONG_MODEL))
    other = KeysightB2900(InstrumentConfig(resource=made.server.resource, timeout_s=0.3))
    with pytest.raises(ConfigError, match="ESPRESSO"):
        other.connect()
    assert not other.dialog.link.is_open
    named = KeysightB2900(
        InstrumentConfig(resource=made.server.resource, model="B2912A", timeout_s=0.3)
    )
    with pytest.raises(ConfigError, match="B2912A"):
        named.connect()


def test_connect_changes_no_output_and_no_level(bench: Bench) -> None:
    driver = bench.ready()
    driver.source("1", 0.75)
    again = KeysightB2900(InstrumentConfig(resource=bench.server.resource, timeout_s=0.3))
    assert again.connect().model == "B2902A"
    assert bench.sim.outputs_on
    assert bench.loads["1"].sense().volts == 0.75
    again.close()


def test_arm_switches_off_and_no_measurement_switches_on(bench: Bench) -> None:
    driver = bench.ready()
    driver.arm()
    assert not bench.sim.outputs_on
    driver.configure("1", READ)
    with pytest.raises(InstrumentError, match="is off"):
        driver.measure("1")
    with pytest.raises(InstrumentError, match="is off"):
        driver.run_list({"1": np.array([0.1, 0.2])}, 2e-3)
    assert not bench.sim.outputs_on


@pytest.mark.parametrize(("model", "smallest"), [("B2901A", 1e-9), ("B2911A", 1e-10)])
def test_smallest_compliance_arrives_exactly(model: str, smallest: float) -> None:
    made = Bench(model)
    driver = made.driver
    driver.arm()
    assert driver.channels == ("1",)
    assert driver.limits("1").smallest_compliance_a == pytest.approx(smallest, rel=1e-12)
    setup = SourceSetup(
        Function.VOLTAGE, smallest, aperture_s=driver.limits("1").shortest_aperture_s, settle_s=1e-6
    )
    driver.configure("1", setup)
    assert driver.settings("1") == setup
    with pytest.raises(ConfigError, match="compliance"):
        driver.configure("1", SourceSetup(Function.VOLTAGE, 0.9 * smallest))
    driver.close()


def test_limits_are_those_of_the_data_sheet(bench: Bench) -> None:
    limits = bench.driver.limits("2")
    assert limits.allows(6.0, 3.0)
    assert limits.allows(20.0, 1.5)
    assert not limits.allows(20.0, 3.0)
    assert not limits.allows(200.0, 0.2)
    assert limits.current_ranges_a[0] == 1e-7
    assert [a.offset for a in limits.measures_a[:2]] == [100e-12, 500e-12]
    driver = bench.ready()
    for level in (2.2, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="level"):
            driver.source("1", level)
    with pytest.raises(ConfigError, match="channel"):
        driver.limits("3")


def test_sweep_and_list_take_one_transaction_and_end_at_zero(bench: Bench) -> None:
    driver = bench.ready()
    before = driver.dialog.transactions
    swept = driver.sweep("1", 0.0, 1.0, 51)
    listed = driver.list_sweep("2", np.array([0.1, -0.3, 0.2]))
    assert driver.dialog.transactions - before == 2
    assert np.allclose(swept.volts, np.linspace(0, 1, 51), atol=1e-3)
    assert np.allclose(swept.amps, np.linspace(0, 1, 51) / 1e4, atol=2e-7)
    assert np.allclose(listed.volts, [0.1, -0.3, 0.2], atol=1e-3)
    assert (swept.status == Status.OK).all()
    assert np.allclose(np.diff(swept.time_s), READ.aperture_s + READ.settle_s, atol=1e-6)
    assert bench.loads["1"].sense().volts == 0.0
    assert bench.loads["2"].sense().volts == 0.0
    assert bench.sim.outputs_on


def test_readings_are_within_the_stated_accuracy(bench: Bench) -> None:
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-4, 2.0, 1e-5, aperture_s=0.02))
    bench.loads["1"].siemens = 1e-6
    limits = driver.limits("1")
    amps = {a.range: a for a in limits.measures_a}[1e-5]
    found = driver.list_sweep("1", np.full(50, 1.5))
    assert (np.abs(found.amps - 1.5e-6) <= amps.fraction * 1.5e-6 + amps.offset).all()
    assert np.unique(found.amps).size > 1
    assert np.allclose(found.amps / 1e-11, np.round(found.amps / 1e-11), atol=1e-3)


def test_compliance_comes_with_the_reading(bench: Bench) -> None:
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-5, 2.0, 1e-5, aperture_s=1e-3))
    found = driver.list_sweep("1", np.array([0.05, 1.0]))
    assert list(found.status) == [Status.OK, Status.COMPLIANCE]
    assert found.amps[1] == pytest.approx(1e-5, rel=1e-3)
    assert found.volts[1] == pytest.approx(0.1, rel=1e-2)
    driver.source("1", 1.0)
    assert driver.measure("1").status[0] == Status.COMPLIANCE
    assert driver.ask(":SENS1:CURR:PROT:TRIP?") == "1"


def test_over_range_is_never_a_number(bench: Bench) -> None:
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-3, 2.0, 1e-6, aperture_s=1e-3))
    found = driver.list_sweep("1", np.array([0.001, 1.0, -1.0]))
    assert list(found.status) == [Status.OK, Status.OVER_RANGE, Status.OVER_RANGE]
    assert np.isnan(found.amps[1:]).all()
    driver.source("1", -1.0)
    assert (
        driver.ask(":FORM ASC", ":FORM:ELEM:SENS CURR,STAT", ":MEAS? (@1)")
        == "-9.900000E+37,+8.192000E+03"
    )


def test_current_source_limits_its_volts(bench: Bench) -> None:
    driver = bench.driver
    driver.arm()
    driver.configure("1", SourceSetup(Function.CURRENT, 2.0, 1e-3, 2.0, aperture_s=1e-3))
    driver.output("1", True)
    found = driver.list_sweep("1", np.array([1e-4, 1e-3]))
    assert list(found.status) == [Status.OK, Status.COMPLIANCE]
    assert found.volts == pytest.approx([1.0, 2.0], rel=1e-3)
    assert driver.settings("1").function is Function.CURRENT


def test_error_queue_is_read_and_raised(bench: Bench) -> None:
    driver = bench.ready()
    with pytest.raises(InstrumentError, match="Data out of range") as caught:
        driver.send(":SOUR1:VOLT 500")
    assert caught.value.code == -222
    assert ":SOUR1:VOLT 500" in caught.value.command
    with pytest.raises(InstrumentError, match="Header suffix") as caught:
        driver.send(":SOUR3:VOLT 1")
    assert caught.value.code == -114
    assert driver.errors() == []


def test_lists_of_both_channels_make_pulses_of_the_shortest_width(bench: Bench) -> None:
    driver = bench.ready()
    seen: list[tuple[str, float, float]] = []
    for name, load in bench.loads.items():
        watch(bench, name, load, seen)
    before = driver.dialog.transactions
    found = driver.run_list(
        {"1": np.array([1.5, 1.5, 1.5, 0.0]), "2": np.array([0.0, 1.0, 0.0, 0.0])},
        50e-6,
        np.zeros(4, bool),
    )
    assert driver.dialog.transactions - before == 1
    assert len(found["1"]) == 0
    gate = [(t, v) for c, t, v in seen if c == "1"]
    line = [(t, v) for c, t, v in seen if c == "2"]
    up, down = (next(t for t, v in line if v == 1.0), max(t for t, v in line if v == 1.0) + 50e-6)
    assert next(t for t, v in line if t > up and v == 0.0) - up == pytest.approx(50e-6, abs=1e-9)
    assert next(t for t, v in gate if v == 1.5) < up
    assert next(t for t, v in gate if t > up and v == 0.0) > down - 1e-9
    with pytest.raises(ConfigError, match="interval_s"):
        driver.run_list({"1": np.array([1.0])}, 20e-6, np.zeros(1, bool))


def watch(bench: Bench, name: str, load: Resistor, seen: list[tuple[str, float, float]]) -> None:
    """Note every change of level of a load with its time."""
    inner: Callable[[Drive], None] = load.drive

    def drive(d: Drive) -> None:
        seen.append((name, bench.now_s, d.level))
        inner(d)

    load.drive = drive  # type: ignore[method-assign]


def test_measured_list_gives_the_chosen_steps_of_both_channels(bench: Bench) -> None:
    driver = bench.ready()
    mask = np.array([False, True, False, True])
    found = driver.run_list(
        {"2": np.array([0.1, 0.2, 0.3, 0.4]), "1": np.array([0.4, 0.3, 0.2, 0.1])}, 2e-3, mask
    )
    assert found["1"].volts == pytest.approx([0.3, 0.1], abs=1e-3)
    assert found["2"].volts == pytest.approx([0.2, 0.4], abs=1e-3)
    assert found["1"].amps == pytest.approx([3e-5, 1e-5], abs=2e-7)
    assert found["2"].amps == pytest.approx([2e-6, 4e-6], abs=2e-7)
    assert np.diff(found["1"].time_s) == pytest.approx([4e-3], abs=1e-6)
    with pytest.raises(ConfigError, match="interval_s"):
        driver.run_list({"1": np.array([0.1])}, 1e-3)


def test_triggered_row_takes_two_transactions_and_follows_the_matrix(bench: Bench) -> None:
    driver = bench.ready()
    ohms = [5e3 * (k + 1) for k in range(64)]
    stepper = Stepper(bench, ohms)
    before, start_s = driver.dialog.transactions, bench.now_s
    levels = np.full(64, 0.2)
    driver.arm_list({"1": levels, "2": np.full(64, 1.5)}, trigger_in=5, trigger_out=6)
    assert driver.dialog.transactions - before == 1
    assert bench.loads["1"].sense().volts == 0.0
    stepper.step()
    found = driver.fetch(64)
    assert driver.dialog.transactions - before == 2
    assert found["1"].amps == pytest.approx(0.2 / np.array(ohms), abs=1.2e-8)
    assert found["2"].volts == pytest.approx(1.5, abs=1e-3)
    assert (found["1"].status == Status.OK).all()
    every_s = 1e-3 + READ.settle_s + READ.aperture_s
    assert np.diff(found["1"].time_s) == pytest.approx(every_s, abs=1e-6)
    assert bench.now_s - start_s < 64 * every_s + 0.05
    assert bench.loads["1"].sense().volts == 0.0
    assert driver.ask(":STAT:QUES:COND?") == "0"


def test_only_named_channels_of_a_triggered_list_measure(bench: Bench) -> None:
    driver = bench.ready()
    stepper = Stepper(bench, [1e4, 2e4, 3e4])
    driver.arm_list(
        {"1": np.full(3, 0.2), "2": np.full(3, 1.0)}, measure=["1"], trigger_in=5, trigger_out=6
    )
    stepper.step()
    found = driver.fetch(3)
    assert list(found) == ["1"]
    assert found["1"].amps == pytest.approx([2e-5, 1e-5, 2e-5 / 3], rel=3e-2)


def test_list_whose_triggers_do_not_come_times_out_and_can_be_aborted(bench: Bench) -> None:
    driver = bench.ready()
    stepper = Stepper(bench, [1e4, 2e4])
    driver.arm_list({"1": np.full(3, 0.2)}, trigger_in=5, trigger_out=6)
    stepper.step()
    with pytest.raises(LinkError, match="no reply"):
        driver.fetch(3)
    driver.abort()
    assert bench.loads["1"].sense().volts == 0.0
    with pytest.raises(ConfigError, match="no list"):
        driver.fetch(3)
    driver.arm_list({"1": np.full(1, 0.2)}, trigger_in=5, trigger_out=6)
    driver.safe_off()
    assert not bench.sim.outputs_on


def test_a_triggered_list_brings_the_settings_of_its_channels(bench: Bench) -> None:
    driver = bench.ready()
    stepper = Stepper(bench, [1e4, 2e4])
    low = replace(READ, source_range=0.2, aperture_s=2e-3)
    before = driver.dialog.transactions
    driver.arm_list({"1": np.full(2, 0.15)}, trigger_in=5, trigger_out=6, setups={"1": low})
    assert driver.dialog.transactions - before == 1
    stepper.step()
    assert driver.fetch(2)["1"].amps == pytest.approx([1.5e-5, 7.5e-6], abs=1e-7)
    assert driver.settings("1") == low
    with pytest.raises(ConfigError, match=r"range of 0\.2"):
        driver.arm_list({"1": np.full(2, 1.5)}, trigger_in=5, trigger_out=6)
    high = {"1": replace(READ, source_range=20.0)}
    with pytest.raises(ConfigError, match="range of 20"):
        driver.arm_list({"1": np.full(2, 150.0)}, trigger_in=5, trigger_out=6, setups=high)
    # What was refused was never sent: the range is the low one still.
    with pytest.raises(ConfigError, match=r"range of 0\.2"):
        driver.source("1", 1.5)


def test_triggered_list_is_refused_where_an_output_is_off(bench: Bench) -> None:
    driver = bench.ready()
    driver.output("2", False)
    with pytest.raises(InstrumentError, match="output 2 is off"):
        driver.arm_list({"1": np.full(2, 0.2), "2": np.full(2, 0.1)}, trigger_in=5, trigger_out=6)
    stepper = Stepper(bench, [1e4])
    stepper.step()
    assert bench.loads["1"].sense().volts == 0.0
    for wrong in ({"trigger_in": 5, "trigger_out": 5}, {"trigger_in": 0, "trigger_out": 6}):
        with pytest.raises(ConfigError, match="trigger"):
            driver.arm_list({"1": np.full(2, 0.2)}, **wrong)


def test_a_trigger_during_a_measurement_is_lost_and_said_so(bench: Bench) -> None:
    driver = bench.ready()
    bench.bus.wire(("smu", 7), ("smu", 5))
    driver.send(
        ":SOUR:DIG:EXT5:FUNC TINP;:SOUR:DIG:EXT7:FUNC TOUT;:SOUR:DIG:EXT7:TOUT:POS BEF",
        ":SOUR1:TOUT:SIGN EXT7;:SOUR1:TOUT ON;:TRIG1:ALL:SOUR EXT5;:TRIG1:ALL:COUN 5;:INIT (@1)",
    )
    bench.bus.wire(("hand", 1), ("smu", 5))
    bench.bus.pulse(("hand", 1))
    assert int(driver.ask(":STAT:QUES:COND?")) & 4096


def test_levels_that_were_not_forced_are_refused(bench: Bench) -> None:
    driver = bench.ready()
    stepper = Stepper(bench, [1e4, 1e4])
    driver.arm_list({"1": np.array([0.2, 0.3])}, trigger_in=5, trigger_out=6)
    driver.send(":SOUR1:LIST:VOLT 0.2,0.4")
    stepper.step()
    with pytest.raises(InstrumentError, match=r"forced 0\.4 instead of 0\.3 at point 1"):
        driver.fetch(2)


def test_longest_list_goes_out_and_comes_back_whole(bench: Bench) -> None:
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-3, 2.0, 1e-3, aperture_s=2e-5))
    levels = np.linspace(-1.23456789, 1.5, MOST_POINTS)
    assert driver.list_sweep("1", levels).volts == pytest.approx(levels, abs=6e-3)
    held = [float(v) for v in driver.ask(":SOUR1:LIST:VOLT?").split(",")]
    assert held == pytest.approx(levels, abs=1e-8)
    for points in (MOST_POINTS + 1, 0):
        with pytest.raises(ConfigError, match=f"1 to {MOST_POINTS}"):
            driver.sweep("1", 0, 1, points)
    with pytest.raises(ConfigError, match="one length"):
        driver.run_list({"1": np.zeros(2), "2": np.zeros(3)}, 1e-2)


def test_timeouts_follow_points_times_aperture(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = bench.ready()
    waits: list[float] = []
    inner = driver.dialog.query_block_and_line

    def query(command: str, *, takes_s: float = 0.0) -> tuple[bytes, str]:
        waits.append(takes_s)
        return inner(command, takes_s=takes_s)

    monkeypatch.setattr(driver.dialog, "query_block_and_line", query)
    driver.configure(
        "1", SourceSetup(Function.VOLTAGE, 1e-3, 2.0, 1e-3, aperture_s=0.5, settle_s=0.1)
    )
    driver.sweep("1", 0, 1, 100)
    driver.measure("1")
    assert waits[0] >= 60.0
    assert 0.6 <= waits[1] < 1.0


def test_late_reply_is_never_taken_for_the_next(bench: Bench) -> None:
    driver = bench.ready()
    bench.loads["1"].siemens = 1e-4
    bench.server.faults.add(Injected(LinkFault.DELAY_REPLY, "FETC", 0.6))
    with pytest.raises(LinkError):
        driver.sweep("1", 1.0, 1.0, 5)
    found = driver.list_sweep("1", np.array([0.1, 0.2, 0.3]))
    assert found.volts == pytest.approx([0.1, 0.2, 0.3], abs=1e-3)


@pytest.mark.parametrize("kind", [LinkFault.HALF_REPLY, LinkFault.GARBAGE, LinkFault.DROP_REPLY])
def test_broken_block_is_an_error_and_safe_off_works(bench: Bench, kind: LinkFault) -> None:
    driver = bench.ready()
    bench.server.faults.add(Injected(kind, "FETC"))
    with pytest.raises(LinkError):
        driver.sweep("1", 0.0, 1.0, 5)
    driver.safe_off()
    assert not bench.sim.outputs_on
    assert driver.is_off()


def test_trace_buffer_formats_and_scalar_queries(bench: Bench) -> None:
    driver = bench.ready()
    driver.source("1", 1.0)
    driver.send(
        ":TRAC1:CLE;:TRAC1:POIN 3;:TRAC1:FEED SENS;:TRAC1:FEED:CONT NEXT;:TRIG1:ACQ:COUN"
        " 5;:INIT:ACQ (@1)"
    )
    assert driver.ask(":TRAC1:POIN:ACT?") == "3"
    assert int(driver.ask(":STAT:MEAS:COND?")) == 2 + 8 + 16
    assert len(driver.ask(":FORM ASC", ":FORM:ELEM:SENS CURR", ":TRAC1:DATA?").split(",")) == 3
    assert float(driver.ask(":FETC:VOLT? (@1)")) == pytest.approx(1.0, abs=1e-3)
    assert len(driver.ask(":SENS1:DATA? 0,4").split(",")) == 4
    single = np.frombuffer(
        driver.ask_block(":FORM REAL,32", ":FORM:BORD SWAP", ":FETC:ARR:CURR? (@1)"), "<f4"
    )
    assert single == pytest.approx(np.full(5, 1e-4), rel=1e-2)
    # A channel without data pads its places.
    padded = np.frombuffer(
        driver.ask_block(":FORM REAL,64;:FORM:BORD NORM", ":FETC:ARR:VOLT? (@1,2)"), ">f8"
    )
    assert padded.size == 10
    assert np.isnan(padded[1::2]).all()


def test_bus_trigger_pulse_shape_and_idle(bench: Bench) -> None:
    driver = bench.ready()
    seen: list[tuple[str, float, float]] = []
    watch(bench, "1", bench.loads["1"], seen)
    driver.send(
        ":SOUR1:FUNC PULS;:SOUR1:PULS:WIDT 50E-6;:SOUR1:VOLT:TRIG 1.2;:TRIG1:TRAN:SOUR"
        " BUS;:INIT:TRAN (@1)"
    )
    driver.send("*TRG")
    peak = [t for _, t, v in seen if v == 1.2]
    base = [t for _, t, v in seen if v == 0.0]
    assert base[-1] - peak[0] == pytest.approx(50e-6, abs=1e-9)
    assert driver.ask(":IDLE?") == "1"


def test_recorded_traffic_names_what_was_sent(tmp_path: Path) -> None:
    made = Bench()
    made.driver.close()
    recorder = Recorder(tmp_path / "b2900.jsonl")
    driver = KeysightB2900(InstrumentConfig(resource=made.server.resource, timeout_s=0.3), recorder)
    driver.connect()
    driver.arm()
    driver.close()
    recorder.close()
    text = (tmp_path / "b2900.jsonl").read_text()
    assert "*IDN?" in text
    assert "OUTP1:ON:AUTO OFF" in text


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    volts=st.booleans(),
    share=st.floats(0.0, 1.0),
    aperture=st.floats(2e-5, 2.0),
    settle=st.floats(0.0, 10.0),
    remote=st.booleans(),
)
def test_settings_come_back_as_they_were_sent(
    bench: Bench, volts: bool, share: float, aperture: float, settle: float, remote: bool
) -> None:
    driver = bench.driver
    limits = driver.limits("1")
    smallest, most = (
        (limits.smallest_compliance_a, limits.max_a)
        if volts
        else (limits.smallest_compliance_v, limits.max_v)
    )
    setup = SourceSetup(
        Function.VOLTAGE if volts else Function.CURRENT,
        smallest * (most / smallest) ** share,
        aperture_s=aperture,
        settle_s=settle,
        remote_sense=remote,
    )
    driver.configure("1", setup)
    told = driver.settings("1")
    assert told.compliance == pytest.approx(setup.compliance, rel=1e-8)
    assert told.aperture_s == pytest.approx(aperture, rel=1e-8)
    assert told.settle_s == pytest.approx(settle, rel=1e-8, abs=1e-300)
    assert (told.function, told.remote_sense) == (setup.function, remote)
    assert told.source_range is None
    assert told.measure_range is None
    assert not bench.sim.outputs_on


def test_qcodes_b2962a_driver_sources_measures_and_shuts_down(bench: Bench, soon_off: Any) -> None:
    module = pytest.importorskip("qcodes.instrument_drivers.Keysight")
    peer = module.KeysightB2962A(
        "b2902", bench.server.resource, visalib="@py", terminator="\n", timeout=5
    )
    try:
        assert peer.get_idn()["model"] == "B2902A"
        peer.ch1.source_mode("voltage")
        peer.ch1.source_voltage(0.5)
        peer.ch1.current_limit(1e-7)
        assert peer.ch1.current_limit() == 1e-7
        peer.ch1.current_limit(1e-3)
        peer.ch1.enable(True)
        assert peer.ch1.enable() is True
        assert bench.sim.outputs_on
        assert peer.ch1.voltage() == pytest.approx(0.5, abs=1e-3)
        assert peer.ch1.current() == pytest.approx(5e-5, rel=1e-2)
        assert peer.ch1.resistance() == pytest.approx(1e4, rel=1e-2)
        peer.ch1.remote_sensing(True)
        assert peer.ch1.remote_sensing() is True
        peer.ch1.enable(False)
        assert soon_off(bench.sim)
        assert bench.driver.errors() == []
    finally:
        peer.close()
