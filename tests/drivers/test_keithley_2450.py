"""Keithley 2450, 2460, 2461, 2470: our driver, PyMeasure's and QCoDeS's against the simulators."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymeasure.instruments.keithley import Keithley2450 as PymeasureKeithley2450
from qcodes.instrument_drivers.Keithley import Keithley2450 as QcodesKeithley2450

from rram_hil.array import Status
from rram_hil.drivers import keithley_2450
from rram_hil.drivers.keithley_2450 import Keithley2450
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor, Terminal
from rram_hil.drivers.simulated.keithley_2450 import Simulated2450
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import Function, SourceSetup
from rram_hil.simulation.config import Timing

READ = SourceSetup(
    Function.VOLTAGE, 1e-3, source_range=2.0, measure_range=1e-3, aperture_s=1e-3, settle_s=1e-3
)
NAMES = (f"k2450_{n}" for n in count())


class Bench:
    """A simulated 2450 with a load on it, and our driver, not yet connected."""

    def __init__(
        self, load: Terminal | None = None, model: str = "2450", timeout_s: float = 2.0
    ) -> None:
        self.bus = Bus()
        self.load = load or Resistor(1e4)
        self.sim = Simulated2450(model, Place("smu", self.bus, {"1": self.load}))
        self.server = InstrumentServer(self.sim, Timing())
        self.driver = Keithley2450(
            Keithley2450.Config(resource=self.server.resource, timeout_s=timeout_s)
        )

    def ready(self, setup: SourceSetup = READ) -> Keithley2450:
        self.driver.connect()
        self.driver.arm()
        self.driver.configure("1", setup)
        self.driver.output("1", True)
        return self.driver

    def watch(self) -> list[str]:
        """Messages that reach the instrument from here on."""
        lines: list[str] = []
        act = self.sim.message

        def message(line: str) -> str | bytes:
            lines.append(line)
            return act(line)

        self.sim.message = message  # type: ignore[method-assign]
        return lines


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(*args: Any, **named: Any) -> Bench:
        made.append(Bench(*args, **named))
        return made[-1]

    yield build
    for bench in made:
        bench.driver.close()
        bench.server.stop()


def is_soon_off(bench: Bench) -> bool:
    """A command without an answer needs a moment to arrive."""
    end_s = time.monotonic() + 10.0
    while bench.sim.outputs_on and time.monotonic() < end_s:
        threading.Event().wait(0.002)
    return not bench.sim.outputs_on


def told(sim: Simulated2450, line: str) -> str:
    """A reply as text."""
    reply = sim.message(line)
    return reply if isinstance(reply, str) else reply.decode("ascii")


# Our driver


def test_a_reading_of_one_conversion_integrates_once(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready(replace(READ, aperture_s=0.02, one_conversion=True))
    assert driver.settings("1").one_conversion
    before_s = bench.sim.now_s
    readings = driver.list_sweep("1", np.array([0.5]))
    assert bench.sim.now_s - before_s < 2 * 0.02
    np.testing.assert_allclose(readings.amps, 0.5 / 1e4, rtol=1e-3)
    assert readings.volts[0] == 0.5
    driver.configure("1", READ)
    assert not driver.settings("1").one_conversion


def test_a_zero_that_was_not_measured_is_measured_by_the_next_settings(
    make: Callable[..., Bench],
) -> None:
    bench = make(timeout_s=0.2)
    driver, once = bench.ready(), replace(READ, one_conversion=True)
    bench.server.faults.add(Injected(LinkFault.DROP_REQUEST, ":SENS:AZER:ONCE"))
    with pytest.raises(LinkError):
        driver.configure("1", once)
    heard = bench.watch()
    driver.configure("1", once)
    assert ":SENS:AZER:ONCE" in ";".join(heard)


def test_lists_with_settings_of_their_own_go_together_once_each_was_verified(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    driver = bench.ready()
    high = replace(READ, source_range=20.0, one_conversion=True)
    runs = [(high, np.array([5.0])), (READ, np.array([0.5]))]
    driver.list_sweeps("1", runs)
    before = driver.dialog.transactions
    pulse, read = driver.list_sweeps("1", runs)
    assert driver.dialog.transactions - before == 1
    np.testing.assert_allclose([pulse.amps[0], read.amps[0]], [5e-4, 5e-5], rtol=2e-3)
    assert bench.sim.levels["VOLT"] == 0
    assert driver.settings("1") == READ


def test_lists_are_refused_before_anything_is_sent(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    lines = bench.watch()
    with pytest.raises(ConfigError):
        driver.list_sweeps("1", [(READ, np.array([0.5])), (READ, np.array([5.0]))])
    assert not lines


def test_connect_changes_no_output_and_sends_questions_only(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.ready().source("1", 0.5)
    bench.driver.close()
    lines = bench.watch()
    other = Keithley2450(Keithley2450.Config(resource=bench.server.resource))
    assert other.connect().model == "2450"
    assert bench.sim.outputs_on
    assert bench.sim.levels["VOLT"] == 0.5
    assert lines[1:] == ["*IDN?", "*LANG?"]
    assert {*lines[0].split(";")} == {"*ESE?"}
    other.safe_off()
    assert not bench.sim.outputs_on
    other.close()


@pytest.mark.parametrize("language", ["TSP", "SCPI2400"])
def test_another_command_set_is_refused_and_left_as_it_is(
    make: Callable[..., Bench], language: str
) -> None:
    bench = make()
    bench.sim.language = language
    lines = bench.watch()
    with pytest.raises(
        ConfigError, match=rf"command set is '{language}', and .* SCPI: send it \*LANG"
    ):
        bench.driver.connect()
    assert lines[1:] == ["*IDN?", "*LANG?"]
    assert {*lines[0].split(";")} == {"*ESE?"}
    assert not bench.driver.dialog.link.is_open
    assert not bench.sim.queue


def test_another_command_set_comes_with_the_next_start_and_goes_with_one(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.ready().output("1", True)
    bench.sim.message("*LANG TSP")
    assert (bench.sim.message("*LANG?"), bench.sim.message(":SOUR:FUNC?")) == (b"SCPI", b"VOLT")
    bench.driver.close()
    bench.server.power_cycle()
    assert not bench.sim.outputs_on
    assert bench.sim.message("*LANG?") == b"TSP"
    assert bench.sim.message("print(smu.source.level)") == b"0"
    bench.sim.message("*LANG SCPI")
    with pytest.raises(ConfigError, match=r"send it \*LANG SCPI .* then switch it off and on"):
        bench.driver.connect()
    bench.server.power_cycle()
    bench.driver.connect()
    bench.driver.safe_off()
    bench.sim.message("*LANG SCPI2400")
    bench.server.power_cycle()
    assert bench.sim.message(":SOUR:FUNC?") == ""
    assert "SCPI2400 is not simulated" in bench.sim.queue[0].text


CORNERS = {
    # Volts and amperes that the model gives together, and a pair just outside.
    "2460": [(100.0, 1.0, True), (7.0, 7.0, True), (100.0, 4.0, False)],
    "2461": [(20.0, 4.0, True), (7.0, 7.0, True), (7.0, 10.0, False)],
    "2470": [(1000.0, 0.02, True), (20.0, 1.0, True), (1000.0, 0.1, False)],
}


@pytest.mark.parametrize(
    ("model", "volts", "amps", "is_given"),
    [(model, *corner) for model, corners in CORNERS.items() for corner in corners],
)
def test_each_model_gives_what_its_manual_says_and_no_more(
    make: Callable[..., Bench], model: str, volts: float, amps: float, is_given: bool
) -> None:
    bench = make(model=model, load=Resistor(1e6))
    bench.driver.connect()
    assert bench.driver.identity.model == model
    bench.driver.arm()
    asked = SourceSetup(Function.VOLTAGE, amps, source_range=volts, aperture_s=1e-3)
    if is_given:
        bench.driver.configure("1", asked)
        bench.driver.output("1", True)
        bench.driver.source("1", 1.04 * volts)
        assert bench.driver.measure("1").volts[0] == pytest.approx(1.04 * volts, rel=1e-3)
    else:
        before = bench.watch()
        with pytest.raises(ConfigError, match=f"{volts:g}|{amps:g}"):
            bench.driver.configure("1", asked)
        assert not before
        limit = f":SOUR:FUNC VOLT;:SOUR:VOLT:RANG {volts};:SOUR:VOLT:ILIM {amps};:SYST:ERR?"
        assert b"-222" in bytes(bench.sim.message(limit))


def test_a_2470_raises_limits_from_a_little_more_of_its_range(make: Callable[..., Bench]) -> None:
    """10.6 %, where the others raise them from 10 % on."""
    close = SourceSetup(Function.VOLTAGE, 1.055e-4, measure_range=1e-3)
    make().ready(close)
    with pytest.raises(ConfigError, match=r"would raise it: at least 0\.000106"):
        make(model="2470").ready(close)


@pytest.mark.parametrize(
    ("model", "smallest"), [("2450", 1e-9), ("2460", 1e-6), ("2461", 1e-6), ("2470", 1.06e-9)]
)
@pytest.mark.parametrize("is_fixed", [False, True])
def test_the_smallest_limit_arrives_exactly(
    make: Callable[..., Bench], model: str, smallest: float, is_fixed: bool
) -> None:
    bench = make(model=model)
    driver = bench.ready()
    for limit in (smallest, 1e-3, 3 * smallest, smallest):
        driver.configure(
            "1", SourceSetup(Function.VOLTAGE, limit, 2.0, limit if is_fixed else None, 1e-3)
        )
        assert bench.sim.limits["CURR"] == pytest.approx(limit, rel=1e-9)
        assert driver.settings("1").compliance == pytest.approx(limit, rel=1e-6)
    with pytest.raises(ConfigError, match="smallest"):
        driver.configure("1", SourceSetup(Function.VOLTAGE, smallest * 0.99, 2.0))
    driver.configure("1", SourceSetup(Function.CURRENT, 0.2, 1e-6))
    driver.source("1", 100e-12)
    assert bench.sim.levels["CURR"] == pytest.approx(100e-12, rel=1e-9)
    assert not bench.sim.queue


def test_a_measuring_range_never_raises_the_limit_in_silence(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    # What the instrument does to a driver that does not look.
    bench.sim.message(":SENS:CURR:RANG:AUTO ON;:SOUR:VOLT:ILIM 1e-6;:SENS:CURR:RANG 1")
    assert told(bench.sim, ":SOUR:VOLT:ILIM?;:SYST:ERR?").startswith('1.000000E-01;0,"No error')
    # Ours sets the limit's own range at most,
    driver.configure("1", SourceSetup(Function.VOLTAGE, 1e-6, 2.0, measure_range=1.0))
    assert bench.sim.limits["CURR"] == 1e-6
    # and reads back what is in force.
    # Private: a fault that no firmware has by default.
    apply = bench.sim._set_sense_range

    def raising(call: Any, q: str) -> None:
        apply(call, q)
        bench.sim.limits[q] = 0.106

    bench.sim._set_sense_range = raising  # type: ignore[method-assign]
    with pytest.raises(InstrumentError, match=r"compliance: 1e-06 asked for, 0\.106 held"):
        driver.configure("1", SourceSetup(Function.VOLTAGE, 1e-6, 2.0, measure_range=1e-6))
    with pytest.raises(ConfigError, match="not configured"):
        driver.source("1", 0.1)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Function)),
            st.floats(-9, 0),
            st.sampled_from([None, 0.02, 2.0, 20.0, 200.0]),
            st.sampled_from([None, 1e-8, 1e-4, 1e-2, 1.0]),
            st.floats(2e-4, 0.2),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_order_of_legal_settings_is_taken_as_asked(
    make: Callable[..., Bench],
    asked: list[tuple[Function, float, float | None, float | None, float, bool]],
) -> None:
    # One bench for all examples: what the last one left must not matter.
    if not hasattr(make, "bench"):
        make.bench = make()  # type: ignore[attr-defined]
        make.bench.ready()  # type: ignore[attr-defined]
    bench = make.bench  # type: ignore[attr-defined]
    for function, exponent, volts, amps, aperture_s, is_remote in asked:
        if function is Function.VOLTAGE:
            compliance = min(10**exponent, 0.105 if volts == 200.0 else 1.05)
            setup = SourceSetup(function, compliance, volts, amps, aperture_s, 0.0, is_remote)
        else:
            compliance = max(0.02, min(210 * 10 ** (exponent / 2), 21.0 if amps == 1.0 else 210.0))
            setup = SourceSetup(function, compliance, amps, volts, aperture_s, 0.0, is_remote)
        bench.driver.configure("1", setup)
        held = bench.driver.settings("1")
        assert held.function is function
        assert held.compliance == pytest.approx(setup.compliance, rel=1e-5)
        assert (held.source_range, held.remote_sense) == (setup.source_range, is_remote)
        assert held.aperture_s == pytest.approx(aperture_s, rel=1e-4)
        assert (held.measure_range is None) == (setup.measure_range is None)
        assert bench.sim.levels == {"VOLT": 0.0, "CURR": 0.0}
        assert bench.sim.outputs_on


def test_a_reading_is_both_quantities_with_a_status_in_one_message(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    driver = bench.ready()
    driver.source("1", 0.5)
    bench.sim.message(":FORM:DATA REAL")
    lines, before = bench.watch(), driver.dialog.transactions
    reading = driver.measure("1")
    assert driver.dialog.transactions - before == len(lines) == 1
    assert reading.volts[0] == pytest.approx(0.5, abs=1e-3)
    assert reading.amps[0] == pytest.approx(5e-5, abs=2e-7)
    assert reading.status[0] == Status.OK
    driver.configure("1", SourceSetup(Function.CURRENT, 2.0, 1e-4, aperture_s=1e-3))
    driver.source("1", 1e-5)
    reading = driver.measure("1")
    assert reading.volts[0] == pytest.approx(0.1, abs=1e-3)
    assert reading.amps[0] == pytest.approx(1e-5, rel=1e-2)


def test_volts_at_the_limit_are_the_true_ones(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-5, source_range=2.0, aperture_s=1e-3))
    driver.source("1", 1.0)
    reading = driver.measure("1")
    assert reading.status[0] == Status.COMPLIANCE
    assert reading.amps[0] == pytest.approx(1e-5, rel=1e-3)
    assert reading.volts[0] == pytest.approx(0.1, abs=1e-3)
    assert driver.ask(":SOUR:VOLT:ILIM:TRIP?") == "1"


def test_over_range_is_no_number_whatever_its_sign(make: Callable[..., Bench]) -> None:
    driver = make().ready(
        SourceSetup(Function.VOLTAGE, 1e-3, 2.0, measure_range=1e-6, aperture_s=1e-3)
    )
    for level in (1.0, -1.0):
        driver.source("1", level)
        reading = driver.measure("1")
        assert reading.status[0] == Status.OVER_RANGE
        assert np.isnan(reading.amps[0])
        assert reading.volts[0] == pytest.approx(level, abs=1e-3)


@pytest.mark.parametrize("model", Keithley2450.MODELS)
def test_sweeps_and_lists_are_one_transaction_and_leave_zero_behind(
    make: Callable[..., Bench], model: str
) -> None:
    bench = make(model=model)
    driver = bench.ready()
    driver.source("1", 1.5)
    before = driver.dialog.transactions
    up = driver.sweep("1", -1.0, 1.0, 101)
    assert driver.dialog.transactions - before == 1
    assert up.volts == pytest.approx(np.linspace(-1, 1, 101), abs=2e-3)
    assert up.amps == pytest.approx(np.linspace(-1e-4, 1e-4, 101), abs=1e-6)
    assert set(up.status) == {Status.OK}
    assert np.all(np.diff(up.time_s) > 0)
    assert (bench.sim.levels["VOLT"], bench.sim.outputs_on) == (0.0, True)
    levels = np.sin(np.arange(2500) / 50)
    lines, before = bench.watch(), driver.dialog.transactions
    got = driver.list_sweep("1", levels)
    assert driver.dialog.transactions - before == 1
    assert got.volts == pytest.approx(levels, abs=2e-3)
    assert max(part.count(",") for part in lines[0].split(";") if ":LIST:" in part) == 99
    assert (bench.sim.levels["VOLT"], bench.sim.outputs_on) == (0.0, True)


def test_never_does_a_level_stand_that_nobody_asked_for(make: Callable[..., Bench]) -> None:
    class Watching(Resistor):
        """Remembers every level."""

        seen: list[float]

        def drive(self, drive: Drive) -> None:
            self.seen = [*getattr(self, "seen", []), drive.level]
            super().drive(drive)

    load = Watching(1e4)
    driver = make(load).ready()
    driver.source("1", 1.5)
    load.seen.clear()
    driver.sweep("1", 0.1, 0.2, 2)
    driver.list_sweep("1", np.array([0.3]))
    driver.configure("1", SourceSetup(Function.CURRENT, 1.0, 1e-6))
    driver.safe_off()
    assert set(load.seen) <= {0.0, 0.1, 0.2, 0.3}


def test_a_sweep_stuck_at_the_limit_ends_with_every_point(make: Callable[..., Bench]) -> None:
    driver = make(Resistor(1.0)).ready(
        SourceSetup(Function.VOLTAGE, 1e-6, source_range=2.0, aperture_s=1e-3)
    )
    got = driver.sweep("1", 0.0, 2.0, 201)
    assert got.status[0] == Status.OK
    assert set(got.status[1:]) == {Status.COMPLIANCE}
    assert np.abs(got.amps[1:]) == pytest.approx(1e-6, rel=1e-2)


def test_the_timeout_follows_nplc_times_points(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-3, aperture_s=0.2, settle_s=0.5))
    asked: list[float] = []
    query = driver.dialog.query

    def remember(command: str, *, takes_s: float = 0.0) -> str:
        asked.append(takes_s)
        return query(command, takes_s=takes_s)

    monkeypatch.setattr(driver.dialog, "query", remember)
    before_s = bench.bus.clock.now_s
    driver.sweep("1", 0.0, 0.1, 200)
    took_s = bench.bus.clock.now_s - before_s
    assert asked[-1] >= took_s > 200.0
    assert asked[-1] < 4 * took_s


def test_a_sweep_never_switches_an_output_on(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keithley_2450, "FRESH_S", 30.0)
    bench = make()
    driver = bench.ready()
    driver.output("1", False)
    for act in (
        lambda: driver.measure("1"),
        lambda: driver.sweep("1", 0.0, 1.0, 3),
        lambda: driver.list_sweep("1", np.array([1.0])),
    ):
        with pytest.raises(InstrumentError, match="output is off"):
            act()
        assert not bench.sim.outputs_on
    # Somebody presses OUTPUT at the front panel; a moment later the driver no longer believes what
    # it saw.
    driver.output("1", True)
    bench.sim.switch(False)
    now_s = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now_s + 100)
        with pytest.raises(InstrumentError, match="output is off"):
            driver.sweep("1", 0.0, 1.0, 3)
    assert not bench.sim.outputs_on
    # In the moment itself it finds out afterwards, and switches off.
    driver.output("1", True)
    bench.sim.switch(False)
    with pytest.raises(InstrumentError, match="switched off meanwhile"):
        driver.sweep("1", 0.0, 1.0, 3)
    assert not bench.sim.outputs_on


def test_errors_come_with_code_text_and_command(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    for command, code, text in (
        (":SOUR:VOLT 300", -222, "'Parameter data out of range'"),
        (":FOO 1", -113, "'Undefined header'"),
        (":SOUR:VOLT", -109, "'Missing parameter'"),
        (':FORM:DATA REAL;:READ? "defbuffer1",STAT', 1133, "expected valid name parameters'"),
    ):
        with pytest.raises(InstrumentError, match=text) as caught:
            driver.send(command)
        assert (caught.value.code, caught.value.command) == (code, command)
    bench.sim.message(":FOO;:BAR;:SOUR:VOLT 300")
    assert [e.code for e in driver.errors()] == [-113, -113, -222]
    bench.sim.fill_queue()
    assert len(driver.errors()) == 32
    assert driver.errors() == []


def test_a_late_reply_is_never_taken_for_the_next_one(make: Callable[..., Bench]) -> None:
    bench = make(timeout_s=0.15)
    driver = bench.ready()
    driver.source("1", 1.0)
    bench.server.faults.add(Injected(LinkFault.DELAY_REPLY, ":READ?", 0.4))
    driver.takes_s = lambda setup, points: 0.0  # type: ignore[method-assign]
    with pytest.raises(LinkError, match="no reply"):
        driver.measure("1")
    driver.source("1", -1.0)
    assert driver.measure("1").volts[0] == pytest.approx(-1.0, abs=1e-3)


def test_a_reply_cut_in_the_middle_is_no_reading(make: Callable[..., Bench]) -> None:
    bench = make(timeout_s=0.1)
    driver = bench.ready()
    bench.server.faults.add(Injected(LinkFault.HALF_REPLY, ":INIT"))
    driver.takes_s = lambda setup, points: 0.0  # type: ignore[method-assign]
    with pytest.raises(LinkError):
        driver.sweep("1", 0.0, 1.0, 5)
    driver.safe_off()
    assert not bench.sim.outputs_on


def test_readings_are_within_the_stated_accuracy(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-3, source_range=2.0, aperture_s=2e-3))
    accuracy = {round(float(np.log10(a.range))): a for a in driver.limits("1").measures_a}
    for ohm in (2e3, 2e4, 2e5, 2e6, 2e7, 2e8):
        bench.load.siemens = 1 / ohm  # type: ignore[attr-defined]
        got = driver.sweep("1", 1.0, 1.0, 50)
        true = 1.0 / ohm
        span = accuracy[int(np.ceil(np.log10(true / 1.05)))]
        assert np.all(np.abs(got.amps - true) <= span.fraction * true + span.offset)


# The simulator


def test_binary_readings_are_double_or_single_in_the_order_asked_for() -> None:
    sim = Simulated2450("2450", Place(terminals={"1": Resistor(1e4)}))
    sim.message(":SOUR:VOLT:ILIM 1e-3;:SOUR:SWE:VOLT:LIN 1,2,2,0;:INIT;*WAI")
    for form, kind in (("REAL", "d"), ("SRE", "f")):
        for border, order in (("SWAP", "<"), ("NORM", ">")):
            data = sim.message(
                f':FORM {form};:FORM:BORD {border};:TRAC:DATA? 1,2,"defbuffer1",SOUR,READ'
            )
            assert isinstance(data, bytes)
            assert data[:2] == b"#0"
            assert struct.unpack(f"{order}4{kind}", data[2:]) == pytest.approx(
                (1, 1e-4, 2, 2e-4), rel=1e-2, abs=1e-4
            )


def test_a_sweep_breaks_off_at_the_limit_unless_told_otherwise() -> None:
    sim = Simulated2450("2450", Place(terminals={"1": Resistor(1e3)}))
    sim.message(":SOUR:VOLT:ILIM 5e-4;:SOUR:SWE:VOLT:LIN 0,1,11;:INIT;*WAI")
    assert told(sim, ":TRAC:ACT?") == "7"
    sim.message(":SOUR:SWE:VOLT:LIN 0,1,11,0,1,BEST,OFF;:INIT;*WAI")
    assert told(sim, ":TRAC:ACT?;:OUTP?") == "11;0"


def test_lists_follow_the_manuals_example() -> None:
    sim = Simulated2450("2450", Place(terminals={"1": Resistor(1e4)}))
    sim.message(
        '*RST;SENS:FUNC "CURR";:SENS:CURR:RANG:AUTO ON;:SENS:CURR:RSEN OFF;:SOUR:FUNC'
        " VOLT;:SOUR:VOLT:RANG 20"
    )
    sim.message(
        "SOUR:VOLT:ILIM 1;:SOUR:LIST:VOLT 1, 5, 1, 5, 1, 5;:SOUR:LIST:VOLT:APP 1, 5, 1, 5, 1, 5"
    )
    before_s = sim.now_s
    sim.message("SOUR:SWE:VOLT:LIST 1, 0.2;:INIT;*WAI")
    values = np.array(
        told(sim, 'TRAC:DATA? 1, 12, "defbuffer1", SOUR, READ').split(","), dtype=float
    ).reshape(12, 2)
    assert values[:, 0] == pytest.approx([1, 5] * 6, abs=0.01)
    assert values[:, 1] == pytest.approx([1e-4, 5e-4] * 6, rel=1e-2)
    assert sim.now_s - before_s >= 12 * 0.2
    assert told(sim, ":SYST:ERR:COUN?") == "0"


def test_loops_of_the_trigger_model_fill_a_buffer_of_ones_own() -> None:
    sim = Simulated2450("2450", Place(terminals={"1": Resistor(1e4)}))
    sim.message(
        ':TRAC:MAKE "buf100", 100;:OUTP ON;:TRIG:LOAD "SimpleLoop", 5, 0, "buf100";:SOUR:VOLT'
        " 0.35;:INIT;*WAI"
    )
    rows = told(sim, 'TRAC:DATA? 1, 5, "buf100", READ, SOUR, REL').split(",")
    assert len(rows) == 15
    assert [float(v) for v in rows[1::3]] == pytest.approx([0.35] * 5, abs=1e-3)
    assert float(rows[2]) == 0.0
    assert told(sim, "TRAC:DATA? 1, 6, 'buf100';:SYST:ERR?").startswith("-222,")


def test_the_event_log_keeps_warnings_apart_from_errors() -> None:
    sim = Simulated2450("2450", Place())
    sim.message(":SOUR:VOLT:ILIM 1;:SOUR:VOLT:RANG 200")
    assert told(sim, ":SYST:ERR:COUN?;:SYST:EVEN:COUN?;:SOUR:VOLT:ILIM?") == "0;1;1.050000E-01"
    assert ";2;2026/01/01 " in told(sim, ":SYST:EVEN:NEXT?")
    sim.message(":FOO;*ESE 32")
    assert int(told(sim, "*STB?")) == 4 + 32
    assert told(sim, ":SYST:ERR?;:SYST:ERR?").endswith('0,"No error;0;0 0"')


# Drivers that others wrote


OTHER_MODELS = [m for m in Keithley2450.MODELS if m != "2450"]
MODELS = ["2450", *(pytest.param(m, marks=pytest.mark.long) for m in OTHER_MODELS)]
"""What the drivers of others meet."""


@pytest.mark.parametrize("model", MODELS)
def test_pymeasure_sources_measures_sweeps_and_shuts_down(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    bench = make(model=model)
    smu = PymeasureKeithley2450(
        bench.server.resource,
        visa_library="@py",
        read_termination="\n",
        write_termination="\n",
        timeout=2000,
    )
    try:
        assert f"MODEL {model}" in smu.id
        smu.reset()
        smu.apply_voltage(2.0, 1e-3)
        smu.measure_current(nplc=0.1, current=1e-3, auto_range=False)
        assert smu.current_range == pytest.approx(1e-3)
        smu.source_voltage = 0.5
        smu.enable_source()
        assert smu.source_enabled is True
        assert smu.current == pytest.approx(5e-5, rel=1e-2)
        smu.compliance_current = 1.2e-4
        assert smu.compliance_current == pytest.approx(1.2e-4)
        swept = []
        for volts in np.linspace(0.1, 0.9, 5):
            smu.ramp_to_voltage(volts, steps=3, pause=0)
            swept.append(smu.current)
        assert swept == pytest.approx(np.linspace(1e-5, 9e-5, 5), rel=1e-2)
        assert smu.means == pytest.approx(smu.maximums, rel=1.0)
        smu.measure_voltage(nplc=0.1)
        assert smu.voltage == pytest.approx(0.9, rel=1e-2)
        smu.measure_resistance(nplc=0.1)
        assert smu.resistance == pytest.approx(1e4, rel=1e-2)
        smu.disable_source()
        smu.apply_current(1e-3, 2.0)
        smu.measure_voltage()
        smu.source_current = 1e-4
        smu.source_current_delay = 0.01
        smu.enable_source()
        assert smu.voltage == pytest.approx(1.0, rel=1e-2)
        for name, value in (
            ("wires", 4),
            ("buffer_points", 100),
            ("current_filter_count", 5),
            ("voltage_output_off_state", "HIMP"),
            ("compliance_voltage", 2.0),
            ("voltage_nplc", 0.5),
            ("source_voltage_delay_auto", True),
        ):
            setattr(smu, name, value)
            assert getattr(smu, name) == value
        smu.use_rear_terminals()
        smu.use_front_terminals()
        smu.beep(440, 0.1)
        assert smu.check_errors() == []
        smu.enable_source()
        smu.shutdown()
        assert is_soon_off(bench)
    finally:
        smu.adapter.close()


@pytest.mark.parametrize("model", MODELS)
def test_qcodes_sources_measures_sweeps_and_shuts_down(
    make: Callable[..., Bench], model: str
) -> None:
    bench = make(model=model)
    smu = QcodesKeithley2450(next(NAMES), bench.server.resource, visalib="@py", timeout=2)
    try:
        assert smu.get_idn()["model"] == model
        smu.reset()
        smu.terminals("rear")
        smu.sense_function("current")
        smu.source_function("voltage")
        smu.source.range(2)
        smu.source.limit(1e-3)
        assert smu.source.limit() == pytest.approx(1e-3)
        smu.sense.range(1e-3)
        smu.sense.nplc(0.1)
        smu.sense.four_wire_measurement(True)
        assert smu.sense.four_wire_measurement() is True
        smu.source.voltage(0.5)
        smu.output_enabled(True)
        assert smu.output_enabled() is True
        assert smu.sense.current() == pytest.approx(5e-5, rel=1e-2)
        assert smu.source.limit_tripped() is False
        smu.source.sweep_setup(0.1, 1.0, 10)
        buffer = smu.buffer("defbuffer1")
        buffer.elements(["source_value", "measurement", "time", "measurement_unit"])
        currents = smu.sense.sweep()
        assert currents == pytest.approx(np.linspace(1e-5, 1e-4, 10), rel=1e-2)
        assert smu.sense.sweep.get_selected()[3] == "Amp DC"
        assert buffer.number_of_readings() == 0
        with smu.buffer("mine", 100) as mine:
            smu.output_enabled(True)
            assert mine.size() == 100
            mine.trigger_start()
            assert mine.number_of_readings() == 1
            mine.elements(["relative_time", "measurement_status"])
            assert len(mine.get_last_reading().split(",")) == 2
        smu.source.user_number(2)
        smu.source.user_delay(0.5)
        assert smu.source.user_delay() == 0.5
        smu.source.read_back_enabled(False)
        assert smu.source.read_back_enabled() is False
        smu.source.auto_delay(True)
        assert smu.line_frequency() == "50"
        smu.sense.auto_zero_once()
        smu.output_enabled(False)
        assert is_soon_off(bench)
        assert bench.sim.queue == type(bench.sim.queue)()
    finally:
        smu.close()


def test_qcodes_sees_another_command_set(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.sim.language = bench.sim.next_language = "TSP"
    smu = QcodesKeithley2450(next(NAMES), bench.server.resource, visalib="@py", timeout=2)
    assert "source_function" not in smu.parameters
    smu.set_correct_language()
    end_s = time.monotonic() + 10.0
    while bench.sim.next_language != "SCPI" and time.monotonic() < end_s:
        threading.Event().wait(0.002)
    assert (bench.sim.language, bench.sim.next_language) == ("TSP", "SCPI")


# The simulator's trigger model, lists of settings and digital lines


@pytest.fixture
def sim() -> Simulated2450:
    made = Simulated2450("2450", Place("smu", Bus(), {"1": Resistor(1e4)}))
    told(made, ':SENS:FUNC "CURR";:SOUR:FUNC VOLT;:SOUR:VOLT 0.5')
    return made


def test_the_blocks_of_the_manuals_example_take_15_readings(sim: Simulated2450) -> None:
    assert told(sim, ":TRIG:STAT?") == "EMPTY;EMPTY;0"
    told(sim, ':TRIG:LOAD "EMPTY";:TRIG:BLOC:BUFF:CLEAR 1;:TRIG:BLOC:MEAS 2')
    told(sim, ":TRIG:BLOC:BRAN:COUN 3, 5, 2;:TRIG:BLOC:DEL:CONS 4, 1;:TRIG:BLOC:BRAN:COUN 5, 3, 2")
    assert told(sim, ":TRIG:STAT?").startswith("BUILDING;")
    start_s = sim.now_s
    told(sim, ":OUTP ON;:INIT")
    assert told(sim, ":TRAC:ACT?;:TRIG:STAT?;:SYST:ERR?") == ('15;IDLE;IDLE;5;0,"No error;0;0 0"')
    assert sim.now_s - start_s > 3.0
    assert told(sim, ":TRIG:BLOC:BRAN:COUN:COUN? 5") == "3"


def test_a_block_waits_for_the_hosts_trigger_beside_other_commands(sim: Simulated2450) -> None:
    told(sim, ":OUTP ON;:TRIG:BLOC:WAIT 1, COMM;:TRIG:BLOC:MEAS 2;:TRIG:BLOC:BRAN:COUN 3, 2, 1")
    told(sim, ":TRAC:CLE;:INIT")
    assert told(sim, ":TRIG:STAT?;:TRAC:ACT?") == "WAITING;WAITING;0;0"
    told(sim, "*TRG")
    assert told(sim, ":TRIG:STAT?;:TRAC:ACT?") == "WAITING;WAITING;3;1"
    assert told(sim, ":INIT;:SYST:ERR?").startswith("-213,")
    told(sim, "*TRG")
    assert told(sim, ":TRIG:STAT?;:TRAC:ACT?") == "IDLE;IDLE;3;2"


def test_a_model_without_an_end_goes_on_until_it_is_aborted(sim: Simulated2450) -> None:
    told(sim, ":TRAC:POIN 10;:OUTP ON;:TRIG:BLOC:DEL:CONS 1, 1;:TRIG:BLOC:BRAN:ALW 2, 1;:INIT")
    assert told(sim, ":TRIG:STAT?").startswith("RUNNING;")
    before_s = sim.now_s
    assert told(sim, ":OUTP?") == "1"
    assert sim.now_s > before_s
    assert told(sim, ":ABOR;:TRIG:STAT?").startswith("ABORTED;")
    before_s = sim.now_s
    assert told(sim, ":OUTP?") == "1"
    assert sim.now_s == before_s


@pytest.mark.parametrize(
    ("branch", "is_taken"),
    [
        ("BRAN:LIM:CONS 3, ABOV, 0, 40e-6, 5", True),
        ("BRAN:LIM:CONS 3, BEL, 40e-6, 0, 5", False),
        ("BRAN:LIM:CONS 3, IN, 60e-6, 40e-6, 5", True),
        ("BRAN:LIM:CONS 3, OUT, 40e-6, 60e-6, 5, 2", False),
        ("BRAN:DELT 3, 1e-6, 5", True),
        ("BRAN:ONCE 3, 5", True),
        ("BRAN:ONCE:EXCL 3, 5", False),
        ("BRAN:EVEN 3, NOT1, 5", True),
        ("BRAN:EVEN 3, NOT2, 5", False),
        ("NOP 3", False),
    ],
)
def test_each_kind_of_branch(sim: Simulated2450, branch: str, is_taken: bool) -> None:
    told(sim, ":OUTP ON;:TRIG:BLOC:NOT 1, 1;:TRIG:BLOC:MEAS 2")
    assert told(sim, f":TRIG:BLOC:{branch};:SYST:ERR?").startswith("0,")
    told(sim, ":TRIG:BLOC:SOUR:STAT 4, 0;:TRIG:BLOC:NOP 5;:INIT")
    assert sim.is_on is is_taken, "block 4 switches off"


def test_lists_of_settings_are_recalled_by_index_and_by_blocks(sim: Simulated2450) -> None:
    told(sim, ':SOUR:CONF:LIST:CRE "levels";:SENS:CONF:LIST:CRE "meters"')
    for level, cycles in ((0.1, 1.0), (0.2, 0.1), (0.3, 0.01)):
        told(sim, f":SOUR:VOLT {level};:SENS:CURR:NPLC {cycles}")
        told(sim, ':SOUR:CONF:LIST:STOR "levels";:SENS:CONF:LIST:STOR "meters"')
    assert told(sim, ':SOUR:CONF:LIST:SIZE? "levels";:SENS:CONF:LIST:CAT?') == '3;"meters"'
    told(sim, ':SOUR:CONF:LIST:REC "levels", 2')
    assert told(sim, ":SOUR:VOLT?;:SENS:CURR:NPLC?") == "2.000000E-01;1.000000E-02"
    told(sim, ':TRIG:LOAD "ConfigList", "meters", "levels", 0.01;:INIT')
    assert told(sim, ":TRIG:STAT?;:OUTP?;:SYST:ERR?") == 'IDLE;IDLE;8;0;0,"No error;0;0 0"'
    amps = [float(word) for word in told(sim, ':TRAC:DATA? 1, 3, "defbuffer1", READ').split(",")]
    assert amps == pytest.approx([1e-5, 2e-5, 3e-5], rel=1e-2)
    told(sim, ':SOUR:CONF:LIST:DEL "levels", 1')
    assert told(sim, ':SOUR:CONF:LIST:SIZE? "levels"') == "2"


def test_next_and_previous_go_round_the_ends_of_a_list(sim: Simulated2450) -> None:
    told(sim, ':SOUR:CONF:LIST:CRE "l"')
    for level in (0.1, 0.2):
        told(sim, f':SOUR:VOLT {level};:SOUR:CONF:LIST:STOR "l"')
    told(sim, ':TRIG:BLOC:CONF:NEXT 1, "l";:TRIG:BLOC:MEAS 2;:TRIG:BLOC:BRAN:COUN 3, 3, 1')
    told(sim, ':TRIG:BLOC:CONF:PREV 4, "l";:TRIG:BLOC:MEAS 5;:OUTP ON;:TRAC:CLE;:INIT')
    amps = [float(word) for word in told(sim, ':TRAC:DATA? 1, 4, "defbuffer1"').split(",")]
    assert amps == pytest.approx([1e-5, 2e-5, 1e-5, 2e-5], rel=1e-2)


def test_two_instruments_hand_each_other_on_over_digital_lines() -> None:
    bus = Bus()
    one, two = (
        Simulated2450("2450", Place(name, bus, {"1": Resistor(1e4)})) for name in ("one", "two")
    )
    bus.wire(("one", 1), ("two", 1))
    bus.wire(("one", 2), ("two", 2))
    told(one, ":OUTP ON;:DIG:LINE1:MODE TRIG, OUT;:DIG:LINE2:MODE TRIG, IN")
    told(one, ":TRIG:DIG1:OUT:STIM NOT1;:TRIG:DIG1:OUT:LOG NEG;:TRIG:DIG2:IN:EDGE FALL")
    told(one, ":TRIG:BLOC:NOT 1, 1;:TRIG:BLOC:WAIT 2, DIG2;:TRIG:BLOC:MEAS 3")
    told(one, ":TRIG:BLOC:BRAN:COUN 4, 3, 1")
    told(two, ":OUTP ON;:DIG:LINE1:MODE TRIG, IN;:DIG:LINE2:MODE TRIG, OUT")
    told(two, ':TRIG:LOAD "LogicTrigger", 1, 2, 3, NEV;:TRAC:CLE;:INIT')
    assert told(two, ":TRIG:STAT?").startswith("WAITING;")
    told(one, ":TRAC:CLE;:INIT")
    for sim in (one, two):
        assert told(sim, ":TRIG:STAT?;:TRAC:ACT?;:SYST:ERR?").startswith("IDLE;IDLE;")
        assert told(sim, ":TRAC:ACT?") == "3"


def test_digital_lines_are_written_and_read(sim: Simulated2450) -> None:
    assert told(sim, ":DIG:READ?;:DIG:LINE1:MODE?") == "63;DIG,IN"
    told(sim, ":DIG:LINE1:MODE DIG, OUT;:DIG:LINE1:STAT 0")
    assert told(sim, ":DIG:READ?;:DIG:LINE1:STAT?;:DIG:LINE2:STAT?") == "62;0;1"
    told(sim, ":TRIG:BLOC:DIG:IO 1, 1, 1;:INIT")
    assert told(sim, ":DIG:READ?") == "63"
    told(sim, ":DIG:LINE2:MODE TRIG, IN")
    assert told(sim, ":DIG:READ?;:SYST:ERR?").startswith("-221,")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (":TRIG:BLOC:LIST?", -200),
        (":TRIG:BLOC:DIG 1", -200),
        (":TRIG:BLOC:WAIT 1, TIM1", -200),
        (":TRIG:BLOC:WAIT 1, DIG7", -224),
        (":TRIG:BLOC:WAIT 1, NONSENSE", -224),
        (':TRIG:BLOC:MEAS 1, "defbuffer1", INF', -200),
        (':TRIG:BLOC:MEAS 1, "nobuffer"', -224),
        (':TRIG:BLOC:CONF:NEXT 1, "nolist"', -224),
        (":TRIG:BLOC:BRAN:LIM:DYN 1, ABOV, 1, 2", -200),
        (':TRIG:LOAD "GradeBinning"', -200),
        (':TRIG:LOAD "Nonsense"', -224),
        (":DIG:LINE1:MODE SYNC, MAST", -200),
        (":DIG:LINE7:MODE DIG, IN", -114),
        (":TRIG:TIM1:STAR:STIM NOT1", -113),
        (':SOUR:CONF:LIST:REC "nolist"', -224),
        (":INIT", -221),
    ],
)
def test_what_is_not_simulated_or_not_there_is_refused(
    sim: Simulated2450, message: str, code: int
) -> None:
    assert told(sim, f"{message};:SYST:ERR?").startswith(f"{code},")


def test_a_block_that_fails_stops_its_model(sim: Simulated2450) -> None:
    told(sim, ":TRIG:BLOC:WAIT 1, COMM;:TRIG:BLOC:BRAN:DELT 2, 1, 1;:INIT;*TRG")
    assert told(sim, ":TRIG:STAT?") == "FAILED;FAILED;1"
    assert told(sim, ":SYST:ERR?").startswith("-221,")


def test_the_overvoltage_protection_holds_the_output(sim: Simulated2450) -> None:
    told(sim, ":SOUR:VOLT:ILIM 0.01;:SOUR:VOLT 8;:OUTP ON;:SENS:FUNC 'VOLT'")
    told(sim, ":SOUR:VOLT:PROT PROT5")
    assert float(told(sim, ":READ?")) == pytest.approx(5.0, rel=1e-3)
    assert told(sim, ":SOUR:VOLT:PROT?;:SOUR:VOLT:PROT:TRIP?") == "PROT5;1"
    told(sim, ":SOUR:VOLT:PROT NONE")
    assert float(told(sim, ":READ?")) == pytest.approx(8.0, rel=1e-3)
    assert told(sim, ":SOUR:VOLT:PROT:TRIP?") == "0"
