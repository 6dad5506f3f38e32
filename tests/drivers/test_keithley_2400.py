"""Keithley 2400: our driver, PyMeasure's two and QCoDeS's against the simulator, over TCP."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymeasure.instruments.keithley import Keithley2400 as PymeasureKeithley2400
from pymeasure.instruments.keithley import Keithley2400Legacy
from qcodes.instrument_drivers.Keithley import Keithley2400 as QcodesKeithley2400

from rram_hil.array import Status
from rram_hil.drivers.keithley_2400 import Keithley2400
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor, Sensed, Terminal
from rram_hil.drivers.simulated.keithley_2400 import Simulated2400
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import Function, SourceSetup
from rram_hil.simulation.config import Timing
from rram_hil.wire.recording import Recorder

READ = SourceSetup(
    Function.VOLTAGE, 1e-3, source_range=2.0, measure_range=1e-3, aperture_s=1e-3, settle_s=1e-3
)
NAMES = (f"k2400_{n}" for n in count())


class Bench:
    """A simulated 2400 with a load on it, and our driver, not yet connected."""

    def __init__(
        self,
        load: Terminal | None = None,
        timeout_s: float = 2.0,
        traffic: Recorder | None = None,
        model: str = "2400",
        **settings: Any,
    ) -> None:
        self.bus = Bus()
        self.load = load or Resistor(1e4)
        self.sim = Simulated2400(model, Place("smu", self.bus, {"1": self.load}))
        self.server = InstrumentServer(self.sim, Timing())
        self.driver = Keithley2400(
            Keithley2400.Config(resource=self.server.resource, timeout_s=timeout_s, **settings),
            traffic,
        )

    def ready(self, setup: SourceSetup = READ) -> Keithley2400:
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


class Booster(Terminal):
    """Something else drives the node far above what the channel allows."""

    def drive(self, drive: Drive) -> None:
        """Nothing that the channel does matters."""

    def sense(self) -> Sensed:
        return Sensed(5.0, 2e-5, False)


def is_soon_off(bench: Bench) -> bool:
    """A command without an answer needs a moment to arrive."""
    end_s = time.monotonic() + 10.0
    while bench.sim.outputs_on and time.monotonic() < end_s:
        threading.Event().wait(0.002)
    return not bench.sim.outputs_on


# Our driver


def test_a_reading_of_one_conversion_integrates_once(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready(replace(READ, aperture_s=0.02, one_conversion=True))
    assert driver.settings("1").one_conversion
    driver.source("1", 0.5)
    before_s = bench.sim.now_s
    readings = driver.measure("1")
    assert bench.sim.now_s - before_s < 2 * 0.02
    np.testing.assert_allclose(readings.amps, 0.5 / 1e4, rtol=1e-3)
    assert readings.volts[0] == 0.5
    driver.configure("1", READ)
    assert not driver.settings("1").one_conversion


def test_connect_changes_no_output_and_sends_questions_only(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.ready().source("1", 0.5)
    driven = bench.sim.levels["VOLT"]
    bench.driver.close()
    lines = bench.watch()
    other = Keithley2400(Keithley2400.Config(resource=bench.server.resource))
    assert other.connect().model == "2400"
    assert bench.sim.outputs_on
    assert bench.sim.levels["VOLT"] == driven == 0.5
    assert lines[1:] == ["*IDN?"]
    assert {*lines[0].split(";")} == {"*ESE?"}
    assert not other.is_off()
    with pytest.raises(ConfigError, match="not configured"):
        other.measure("1")
    other.safe_off()
    assert not bench.sim.outputs_on
    other.close()


def test_another_model_is_refused_by_name(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.sim.pretends = "MODEL 6430"
    with pytest.raises(ConfigError, match=r"6430.*drives 2400"):
        bench.driver.connect()
    assert not bench.driver.dialog.link.is_open


CORNERS = {
    # Volts and amperes that the model gives together, and a pair just outside.
    "2400-LV": [(20.0, 1.0, True), (200.0, 0.1, False)],
    "2401": [(20.0, 1.0, True), (200.0, 0.1, False)],
    "2410": [(1000.0, 0.02, True), (20.0, 1.0, True), (1000.0, 0.1, False)],
    "2420": [(60.0, 1.0, True), (20.0, 3.0, True), (60.0, 3.0, False)],
    "2425": [(100.0, 1.0, True), (20.0, 3.0, True), (100.0, 3.0, False)],
    "2430": [(100.0, 1.0, True), (20.0, 3.0, True), (20.0, 10.0, False)],
    "2440": [(40.0, 1.0, True), (10.0, 5.0, True), (40.0, 5.0, False)],
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
        assert bench.driver.settings("1").source_range == volts
        bench.driver.output("1", True)
        bench.driver.source("1", 1.04 * volts)
        assert bench.driver.measure("1").volts[0] == pytest.approx(1.04 * volts, rel=1e-3)
    else:
        before = bench.watch()
        with pytest.raises(ConfigError, match=f"{volts:g}|{amps:g}"):
            bench.driver.configure("1", asked)
        assert not before
        # And the instrument itself.
        told = str(bench.sim.message(f":SENS:CURR:PROT {amps};:SOUR:VOLT:RANG {volts};:SYST:ERR?"))
        assert not told.startswith("0,")


def test_a_2410_goes_to_1100_volts_on_its_highest_range(make: Callable[..., Bench]) -> None:
    bench = make(model="2410", load=Resistor(1e6))
    setup = SourceSetup(Function.VOLTAGE, 0.02, source_range=1100.0, aperture_s=1e-3)
    driver = bench.ready(setup)
    assert driver.settings("1").source_range == 1000.0
    driver.source("1", -1100.0)
    assert driver.measure("1").volts[0] == pytest.approx(-1100.0, rel=1e-3)
    with pytest.raises(ConfigError, match="at most 1100"):
        driver.source("1", 1101.0)


def test_a_contact_check_is_part_of_no_models_name(make: Callable[..., Bench]) -> None:
    bench = make(model="2420")
    bench.sim.pretends = "MODEL 2420-C"
    assert bench.driver.connect().model == "2420"


def test_a_near_model_is_refused_with_the_key_that_drives_it_and_then_driven(
    make: Callable[..., Bench],
) -> None:
    bench = make(model="2401")
    bench.sim.pretends = "MODEL 2402"
    with pytest.raises(ConfigError, match=r"does not know it; the nearest is 240\d: treat_as = "):
        bench.driver.connect()
    driver = Keithley2400(
        Keithley2400.Config(resource=bench.server.resource, model="2402", treat_as="2401")
    )
    try:
        assert driver.connect().model == "2402 treated as 2401"
        assert driver.limits("1").max_v == 21.0
    finally:
        driver.close()


def test_a_known_model_is_not_driven_as_another(make: Callable[..., Bench]) -> None:
    bench = make(model="2401", treat_as="2400")
    with pytest.raises(ConfigError, match="its own table is known: leave treat_as = '2400' out"):
        bench.driver.connect()


def test_the_2430_is_told_to_give_no_pulses_and_its_simulator_gives_none(
    make: Callable[..., Bench],
) -> None:
    bench = make(model="2430")
    lines = bench.watch()
    bench.driver.connect()
    bench.driver.arm()
    assert any(":SOUR:FUNC:SHAP DC" in line for line in lines)
    told = bench.sim.message(":SOUR:FUNC:SHAP PULS;:SYST:ERR?")
    assert told == b'-200,"Execution error; not simulated: pulse mode"'
    assert bench.sim.message(":SOUR:FUNC:SHAP?") == b"DC"


@pytest.mark.parametrize("measure_range", [None, 1e-6])
def test_the_smallest_compliance_arrives_exactly(
    make: Callable[..., Bench], measure_range: float | None
) -> None:
    bench = make()
    driver = bench.ready()
    for compliance in (1e-9, 1e-7, 1.05, 1e-9, 0.105, 3e-8):
        setup = SourceSetup(Function.VOLTAGE, compliance, 20.0, measure_range, 2e-3)
        driver.configure("1", setup)
        assert bench.sim.compliance["CURR"] == pytest.approx(compliance, rel=1e-9)
        assert driver.settings("1").compliance == pytest.approx(compliance, rel=1e-6)
    driver.configure("1", SourceSetup(Function.CURRENT, 200e-6, 1e-6))
    assert bench.sim.compliance["VOLT"] == pytest.approx(200e-6, rel=1e-9)
    driver.source("1", 50e-12)
    assert bench.sim.levels["CURR"] == pytest.approx(50e-12, rel=1e-9)
    assert not bench.sim.queue


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Function)),
            st.floats(-9, 0),
            st.sampled_from([None, 0.2, 2.0, 20.0, 200.0]),
            st.sampled_from([None, 1e-6, 1e-4, 1e-2, 1.0]),
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
            compliance = min(210 * 10 ** (exponent / 2), 21.0 if amps == 1.0 else 210.0)
            setup = SourceSetup(
                function, max(compliance, 2e-4), amps, volts, aperture_s, 0.0, is_remote
            )
        bench.driver.configure("1", setup)
        told = bench.driver.settings("1")
        assert told.function is function
        assert told.compliance == pytest.approx(setup.compliance, rel=1e-5)
        assert (told.source_range, told.remote_sense) == (setup.source_range, is_remote)
        assert told.aperture_s == pytest.approx(aperture_s, rel=1e-4)
        assert (told.measure_range is None) == (setup.measure_range is None)
        assert bench.sim.levels == {"VOLT": 0.0, "CURR": 0.0}
        assert bench.sim.outputs_on


@pytest.mark.parametrize(
    "setup",
    [
        SourceSetup(Function.VOLTAGE, 0.5e-9),
        SourceSetup(Function.VOLTAGE, float("nan")),
        SourceSetup(Function.VOLTAGE, 2.0),
        SourceSetup(Function.VOLTAGE, 0.2, source_range=200.0),
        SourceSetup(Function.VOLTAGE, 1e-3, source_range=300.0),
        SourceSetup(Function.VOLTAGE, 1e-3, measure_range=3.0),
        SourceSetup(Function.VOLTAGE, 1e-3, aperture_s=1e-5),
        SourceSetup(Function.VOLTAGE, 1e-3, settle_s=-1.0),
        SourceSetup(Function.CURRENT, 30.0, source_range=1.0),
    ],
)
def test_what_the_channel_cannot_do_is_refused_before_anything_is_sent(
    make: Callable[..., Bench], setup: SourceSetup
) -> None:
    bench = make()
    driver = bench.ready()
    lines = bench.watch()
    with pytest.raises(ConfigError):
        driver.configure("1", setup)
    for level in (2.2, float("nan"), float("inf")):
        with pytest.raises(ConfigError):
            driver.source("1", level)
    with pytest.raises(ConfigError):
        driver.sweep("1", 0.0, 1.0, 2501)
    with pytest.raises(ConfigError):
        driver.list_sweep("1", np.zeros(0))
    assert lines == []


def test_a_reading_is_both_quantities_with_a_status_in_one_message(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    driver = bench.ready()
    driver.source("1", 0.5)
    # Somebody at the front panel or another program asked for other elements meanwhile.
    bench.sim.message(":FORM:ELEM CURR")
    lines, before = bench.watch(), driver.dialog.transactions
    reading = driver.measure("1")
    assert driver.dialog.transactions - before == len(lines) == 1
    assert reading.volts[0] == pytest.approx(0.5, abs=1e-3)
    assert reading.amps[0] == pytest.approx(5e-5, abs=2e-7)
    assert reading.status[0] == Status.OK
    assert reading.time_s[0] > 0


def test_volts_at_compliance_are_the_true_ones(make: Callable[..., Bench]) -> None:
    driver = make().ready(SourceSetup(Function.VOLTAGE, 1e-5, source_range=2.0, aperture_s=1e-3))
    driver.source("1", 1.0)
    reading = driver.measure("1")
    assert reading.status[0] == Status.COMPLIANCE
    assert reading.amps[0] == pytest.approx(1e-5, rel=1e-3)
    assert reading.volts[0] == pytest.approx(0.1, abs=1e-3)


def test_a_fixed_range_below_the_compliance_limits_and_says_so(make: Callable[..., Bench]) -> None:
    driver = make().ready(
        SourceSetup(Function.VOLTAGE, 1e-3, source_range=2.0, measure_range=1e-6, aperture_s=1e-3)
    )
    driver.source("1", 1.0)
    reading = driver.measure("1")
    assert reading.status[0] == Status.COMPLIANCE
    assert reading.amps[0] == pytest.approx(1.05e-6, rel=1e-2)


def test_over_range_is_no_number(make: Callable[..., Bench]) -> None:
    driver = make(Booster()).ready(READ)
    reading = driver.measure("1")
    assert reading.status[0] == Status.OVER_RANGE
    assert np.isnan(reading.volts[0])


def test_a_sweep_is_one_transaction_and_leaves_zero_behind(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    driver.source("1", 1.5)
    before = driver.dialog.transactions
    up = driver.sweep("1", -1.0, 1.0, 101)
    assert driver.dialog.transactions - before == 1
    assert up.volts == pytest.approx(np.linspace(-1, 1, 101), abs=1e-3)
    assert up.amps == pytest.approx(np.linspace(-1e-4, 1e-4, 101), abs=1e-6)
    assert set(up.status) == {Status.OK}
    assert np.all(np.diff(up.time_s) > 0)
    assert (bench.sim.levels["VOLT"], bench.sim.mode["VOLT"]) == (0.0, "FIX")
    assert bench.sim.outputs_on
    assert len(driver.sweep("1", 0.1, 0.1, 1)) == 1


def test_lists_of_many_levels_come_in_pieces_of_a_hundred(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    levels = np.sin(np.arange(2500) / 50)
    lines, before = bench.watch(), driver.dialog.transactions
    got = driver.list_sweep("1", levels)
    assert driver.dialog.transactions - before == 1
    assert got.volts == pytest.approx(levels, abs=1e-3)
    assert max(part.count(",") for part in lines[0].split(";")) == 99
    assert bench.sim.levels["VOLT"] == 0.0


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
    assert set(load.seen) <= {1.5, 0.0, 0.1, 0.2, 0.3}
    assert 1.5 not in load.seen[1:], "the level from before came back"


def test_a_sweep_stuck_at_compliance_ends(make: Callable[..., Bench]) -> None:
    driver = make(Resistor(1.0)).ready(
        SourceSetup(Function.VOLTAGE, 1e-6, source_range=2.0, aperture_s=1e-3)
    )
    got = driver.sweep("1", 0.0, 2.0, 201)
    assert got.status[0] == Status.OK
    assert set(got.status[1:]) == {Status.COMPLIANCE}
    assert np.abs(got.amps[1:]) == pytest.approx(1e-6, rel=1e-2)


def test_a_sweep_that_is_to_end_at_compliance_and_ends_elsewhere_is_no_sweep(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.driver = Keithley2400(
        Keithley2400.Config(resource=bench.server.resource, stop_at_compliance=True)
    )
    driver, act = bench.ready(), bench.sim.message

    def message(line: str) -> str | bytes:
        reply = act(line)
        if ":READ?" not in line:
            return reply
        readings, _, error = bytes(reply).decode().partition(";")
        return ",".join(readings.split(",")[:-5]) + ";" + error

    assert (driver.sweep("1", 0.0, 0.5, 5).status == Status.OK).all()
    bench.sim.message = message  # type: ignore[method-assign]
    with pytest.raises(InstrumentError, match="ended after 4 of 5 points, not at compliance"):
        driver.sweep("1", 0.0, 0.5, 5)


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
    driver.measure("1")
    one_s, before_s = bench.bus.clock.now_s - before_s, bench.bus.clock.now_s
    driver.sweep("1", 0.0, 0.1, 200)
    many_s = bench.bus.clock.now_s - before_s
    assert asked[0] >= one_s > 1.0
    assert asked[1] >= many_s > 200.0
    assert asked[1] < 4 * many_s


def test_readings_of_an_output_that_is_off_are_refused_with_the_instruments_code(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    driver = bench.ready()
    driver.output("1", False)
    for act in (lambda: driver.measure("1"), lambda: driver.sweep("1", 0.0, 1.0, 3)):
        with pytest.raises(InstrumentError, match="Not permitted with OUTPUT off") as caught:
            act()
        assert caught.value.code == 803
        assert ":READ?" in caught.value.command
    assert not bench.sim.outputs_on


def test_errors_come_with_code_text_and_command(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready()
    for command, code, text in (
        (":SOUR:VOLT 300", -222, "Parameter data out of range"),
        (":FOO 1", -113, "Undefined header"),
        (":SENS:CURR:RANG 1", 824, "Cannot exceed compliance range"),
        (":SENS:CURR:RANG 1e-3;PROT 1e-7", 822, "Too small for sense range"),
        (":SENS:VOLT:RANG 2", 823, "Invalid with source read-back on"),
        (":TRIG:COUN 2501", -222, "Parameter data out of range"),
    ):
        with pytest.raises(InstrumentError, match=text) as caught:
            driver.send(command)
        assert (caught.value.code, caught.value.command) == (code, command)
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


def test_terminals_are_chosen_again_after_the_reset(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = Keithley2400(Keithley2400.Config(resource=bench.server.resource, terminals="rear"))
    driver.connect()
    driver.arm()
    assert bench.sim.terminals == "REAR"
    driver.close()


def test_another_line_frequency_is_refused(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = Keithley2400(Keithley2400.Config(resource=bench.server.resource, line_hz=60.0))
    driver.connect()
    with pytest.raises(ConfigError, match="line_hz"):
        driver.arm()
    driver.close()


def test_a_recorded_session_holds_what_was_said(make: Callable[..., Bench], tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "traffic.jsonl")
    bench = make(traffic=recorder)
    bench.ready().measure("1")
    bench.driver.safe_off()
    recorder.close()
    assert ":READ?" in (tmp_path / "traffic.jsonl").read_text(encoding="utf-8")


# The simulator


def test_binary_readings_have_the_header_once_and_the_byte_order_asked_for() -> None:
    sim = Simulated2400("2400", Place(terminals={"1": Resistor(1e4)}))
    sim.message(":OUTP ON;:SOUR:VOLT 1;:TRIG:COUN 2;:FORM:ELEM VOLT,CURR;:FORM:DATA SRE")
    for border, order in (("NORM", ">"), ("SWAP", "<")):
        data = sim.message(f":FORM:BORD {border};:READ?")
        assert isinstance(data, bytes)
        assert data[:2] == b"#0"
        values = struct.unpack(f"{order}4f", data[2:])
        assert values == pytest.approx((1.0, 1e-4, 1.0, 1e-4), rel=1e-2)


def test_what_is_not_measured_is_told_as_source_value_or_nan() -> None:
    sim = Simulated2400("2400", Place(terminals={"1": Resistor(1e4)}))
    sim.message(":OUTP ON;:SENS:FUNC:OFF:ALL;:SENS:FUNC 'VOLT'")
    told = bytes(sim.message(":SOUR:VOLT 1;:READ?")).decode().split(",")
    assert told[1:3] == ["+9.910000E+37", "+9.910000E+37"]
    assert bytes(sim.message(":SENS:FUNC?")) == b'"VOLT:DC"'
    told = bytes(sim.message(":SENS:FUNC:CONC OFF;:SENS:FUNC 'CURR';:READ?")).decode().split(",")
    assert told[0] == "+1.000000E+00"


@pytest.mark.parametrize("command", [":CONF:CURR", ":MEAS:CURR?"])
def test_configuring_a_measurement_puts_its_limit_back(command: str) -> None:
    sim = Simulated2400("2400", Place(terminals={"1": Resistor(1e4)}))
    sim.message(":SENS:CURR:PROT 1e-3")
    assert float(bytes(sim.message(":SENS:CURR:PROT?"))) == pytest.approx(1e-3)
    sim.message(command)
    assert float(bytes(sim.message(":SENS:CURR:PROT?"))) == pytest.approx(1.05e-4)


def test_autozero_is_told_as_a_state() -> None:
    sim = Simulated2400("2400", Place(terminals={"1": Resistor(1e4)}))
    for chosen, told in (
        ("", "1"),
        ("OFF", "0"),
        ("ON", "1"),
        ("0", "0"),
        ("1", "1"),
        ("ONCE", "0"),
    ):
        if chosen:
            sim.message(f":SYST:AZER:STAT {chosen}")
        assert bytes(sim.message(":SYST:AZER:STAT?;:SYST:AZER?")).decode() == f"{told};{told}"


def test_a_sweep_is_aborted_at_compliance_before_or_after_its_reading() -> None:
    sim = Simulated2400("2400", Place(terminals={"1": Resistor(1e4)}))
    sim.message(":SENS:CURR:PROT 5e-5;:SOUR:LIST:VOLT 0.1,1,0.2;:SOUR:VOLT:MODE LIST;:TRIG:COUN 3")
    sim.message(":FORM:ELEM VOLT;:OUTP ON")
    for when, levels in (("NEV", 3), ("EARL", 1), ("LATE", 2)):
        told = bytes(sim.message(f":SOUR:SWE:CAB {when};:READ?")).decode()
        assert len(told.split(",")) == levels


def test_the_trace_buffer_fills_and_sets_its_bits() -> None:
    sim = Simulated2400("2400", Place(terminals={"1": Resistor(1e4)}))
    sim.message(":STAT:PRES;*CLS;*SRE 1;:STAT:MEAS:ENAB 512;:TRAC:CLE;:TRAC:POIN 5;:TRIG:COUN 5")
    sim.message(":TRAC:FEED SENSE;:TRAC:FEED:CONT NEXT;:OUTP ON;:FORM:ELEM TIME;:INIT")
    assert int(sim.message("*STB?")) & 65 == 65
    times = np.array(bytes(sim.message(":TRAC:DATA?")).decode().split(","), dtype=float)
    assert times[0] == 0.0
    assert np.all(np.diff(times) > 0)
    assert bytes(sim.message(":TRAC:POIN 3;:TRAC:POIN:ACT?;:TRAC:FEED:CONT?")) == b"0;NEV"


def test_trigger_link_steps_the_trigger_model_and_answers() -> None:
    bus = Bus()
    sim = Simulated2400("2400", Place("smu", bus, {"1": Resistor(1e4)}))
    pulses: list[int] = []
    bus.wire(("smu", 2), ("matrix", 1))
    bus.wire(("matrix", 2), ("smu", 1))
    bus.listen(("matrix", 1), lambda: pulses.append(1))
    sim.message(
        ":OUTP ON;:TRIG:COUN 3;:TRIG:SOUR TLIN;:TRIG:ILIN 1;:TRIG:OLIN 2;:TRIG:OUTP SENS;:INIT"
    )
    assert sim.samples == []
    for n in range(3):
        bus.pulse(("matrix", 2))
        assert len(sim.samples) == n + 1
    assert len(pulses) == 3
    sim.message(":TRIG:SOUR IMM;:ARM:SOUR BUS;:INIT")
    assert sim.samples == []
    sim.message("*TRG")
    assert len(sim.samples) == 3


def test_readings_are_within_the_stated_accuracy(make: Callable[..., Bench]) -> None:
    bench = make()
    driver = bench.ready(SourceSetup(Function.VOLTAGE, 1e-3, source_range=2.0, aperture_s=2e-3))
    accuracy = {a.range: a for a in driver.limits("1").measures_a}
    for ohm in (2e3, 2e4, 2e5, 2e6):
        bench.load.siemens = 1 / ohm  # type: ignore[attr-defined]
        got = driver.sweep("1", 1.0, 1.0, 50)
        true = 1.0 / ohm
        span = accuracy[10 ** np.ceil(np.log10(true / 1.05))]
        assert np.all(np.abs(got.amps - true) <= span.fraction * true + span.offset)


# Drivers that others wrote


OTHER_MODELS = [m for m in Keithley2400.MODELS if m != "2400"]
MODELS = ["2400", *(pytest.param(m, marks=pytest.mark.long) for m in OTHER_MODELS)]
"""What the drivers of others meet."""


@pytest.fixture(params=MODELS)
def pymeasure(
    make: Callable[..., Bench], request: pytest.FixtureRequest
) -> Iterator[Callable[[type], tuple[Bench, Any]]]:
    opened: list[Any] = []

    def connect(cls: type) -> tuple[Bench, Any]:
        bench = make(model=request.param)
        other = cls(
            bench.server.resource,
            visa_library="@py",
            read_termination="\n",
            write_termination="\n",
            timeout=2000,
        )
        opened.append(other)
        return bench, other

    yield connect
    for other in opened:
        other.adapter.close()


def test_pymeasure_sources_measures_sweeps_and_shuts_down(
    pymeasure: Callable[[type], tuple[Bench, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    bench, smu = pymeasure(PymeasureKeithley2400)
    assert f"MODEL {bench.sim.model}" in smu.id
    smu.reset()
    smu.source_mode = "voltage"
    smu.source_voltage_range = 2
    smu.compliance_current = 1e-3
    smu.current_nplc = 0.1
    smu.source_voltage = 0.5
    smu.source_enabled = True
    assert smu.source_enabled is True
    # A voltage is a voltage and a current is a current, whatever was measured before.
    assert smu.current == pytest.approx(5e-5, rel=1e-2)
    assert smu.voltage == pytest.approx(0.5, rel=1e-2)
    everything = smu.measure_all()
    assert everything["voltage"] == pytest.approx(0.5, rel=1e-2)
    assert everything["current"] == pytest.approx(5e-5, rel=1e-2)
    assert everything["resistance"] == pytest.approx(1e4, rel=1e-2)
    smu.config_buffer(10)
    smu.start_buffer()
    assert smu.is_buffer_full()
    assert smu.buffer_data.shape == (50,)
    assert smu.mean_current == pytest.approx(5e-5, rel=1e-2)
    assert smu.trigger_count == 10
    smu.trigger_count = 1
    smu.ramp_to_voltage(1.0, steps=5, pause=0)
    assert smu.current == pytest.approx(1e-4, rel=1e-2)
    assert smu.resistance == pytest.approx(1e4, rel=1e-2)
    for name, value in (
        ("wires", 4),
        ("front_terminals_enabled", False),
        ("output_off_state", "disconnected"),
        ("auto_zero_enabled", True),
        ("filter_count", 5),
        ("source_delay", 0.01),
        ("display_enabled", True),
        ("arm_source", "immediate"),
        ("trigger_delay", 0.5),
    ):
        setattr(smu, name, value)
        assert getattr(smu, name) == value
    assert smu.line_frequency == 50
    assert smu.check_errors() == []
    smu.shutdown()
    assert is_soon_off(bench)


def test_pymeasure_legacy_sources_measures_sweeps_and_shuts_down(
    pymeasure: Callable[[type], tuple[Bench, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.warns(FutureWarning, match="legacy"):
        bench, smu = pymeasure(Keithley2400Legacy)
    smu.reset()
    smu.apply_voltage(2.0, 1e-3)
    smu.measure_current(nplc=0.1, current=1e-3)
    smu.enable_source()
    smu.source_voltage = 0.5
    assert smu.current == pytest.approx(5e-5, rel=1e-2)
    smu.ramp_to_voltage(1.0, steps=4, pause=0)
    assert smu.current == pytest.approx(1e-4, rel=1e-2)
    smu.disable_source()
    smu.apply_current(1e-3, 10.0)
    smu.measure_voltage(nplc=0.1)
    smu.source_current = 1e-4
    smu.enable_source()
    assert smu.voltage == pytest.approx(1.0, rel=1e-2)
    assert smu.compliance_voltage == 10.0
    # Its sweep touches an attribute that PyMeasure 0.16 no longer has.
    smu.connection = SimpleNamespace()
    voltages = [v for _, v in smu.RvsI(1e-5, 1e-4, 1e-5, 10.0)]
    assert voltages == pytest.approx(np.linspace(0.1, 1.0, 10), rel=2e-2)
    smu.shutdown()
    assert is_soon_off(bench)


@pytest.mark.parametrize("model", MODELS)
def test_qcodes_sources_measures_sweeps_and_shuts_down(
    make: Callable[..., Bench], model: str
) -> None:
    bench = make(model=model)
    smu = QcodesKeithley2400(next(NAMES), bench.server.resource, visalib="@py", timeout=2)
    try:
        assert smu.get_idn()["model"] == model
        smu.reset()
        smu.write(":FORM:ELEM VOLT,CURR")
        smu.mode("VOLT")
        assert smu.mode() == "VOLT"
        smu.rangev(2)
        smu.compliancei(1e-3)
        assert smu.compliancei() == pytest.approx(1e-3)
        smu.nplci(0.1)
        smu.volt(0.5)
        smu.output(True)
        assert smu.output() is True
        assert smu.curr() == pytest.approx(5e-5, rel=1e-2)
        assert smu.volt() == pytest.approx(0.5, rel=1e-2)
        assert smu.resistance() == pytest.approx(1e4, rel=1e-2)
        swept = []
        for volts in np.linspace(0.1, 1.0, 4):
            smu.volt(volts)
            swept.append(smu.curr())
        assert swept == pytest.approx(np.linspace(1e-5, 1e-4, 4), rel=1e-2)
        # Its "%f" makes nothing of 100 nA, which the instrument refuses; the driver does not look.
        smu.compliancei(1e-7)
        assert smu.ask(":SYST:ERR?") == '822,"Too small for sense range"'
        assert smu.compliancei() == pytest.approx(1e-3)
        smu.mode("CURR")
        smu.compliancev(10)
        smu.rangei(1e-3)
        smu.curr(1e-4)
        assert smu.volt() == pytest.approx(1.0, rel=1e-2)
        smu.output(False)
        assert is_soon_off(bench)
        assert not bench.sim.queue
    finally:
        smu.close()


# The simulator's own subsystems, as page and table of the manual say


def told(bench: Bench, message: str) -> str:
    """The reply to one message, without a link."""
    reply = bench.sim.message(message)
    return reply.decode("latin-1") if isinstance(reply, bytes) else reply


def test_an_endless_arm_count_goes_on_until_it_is_aborted(make: Callable[..., Bench]) -> None:
    bench = make()
    assert told(bench, ":ARM:COUN INF;:TRIG:COUN 2500;:ARM:COUN?;:SYST:ERR?") == (
        '9.900000E+37;0,"No error"'
    )
    told(bench, ":TRIG:COUN 1;:SOUR:VOLT 0.5;:OUTP ON")
    for query in (":READ?", ":FETC?", ":MEAS?", ":CALC2:DATA?"):
        assert told(bench, f"{query};:SYST:ERR?").startswith("-221,"), query
    told(bench, ":INIT")
    passes = len(bench.sim.samples)
    # Everything but an abort waits for its end.
    assert told(bench, ":SOUR:VOLT 0.1;:DATA?;:OUTP?") == ""
    assert bench.sim.levels["VOLT"] == 0.5
    assert len(bench.sim.samples) > passes
    reading, output = told(bench, ":ABOR").split(";")
    assert float(reading.split(",")[1]) == pytest.approx(0.5 / 1e4, rel=1e-2)
    assert output == "1"
    assert bench.sim.levels["VOLT"] == 0.1
    assert told(bench, ":OUTP?") == "1"


def test_there_are_no_options(make: Callable[..., Bench]) -> None:
    assert told(make(), "*OPT?") == "0"


def test_the_time_begins_anew_with_each_start_where_that_is_asked_for(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.bus.clock.advance(50.0)
    told(bench, ":SYST:TIME:RES:AUTO ON;:FORM:ELEM TIME;:OUTP ON")
    assert told(bench, ":SYST:TIME:RES:AUTO?") == "1"
    assert float(told(bench, ":READ?")) < 1.0
    told(bench, ":SYST:TIME:RES:AUTO OFF")
    bench.bus.clock.advance(50.0)
    assert float(told(bench, ":READ?")) > 50.0


def test_limit_tests_fail_until_they_are_cleared(make: Callable[..., Bench]) -> None:
    bench = make()
    told(bench, ":SOUR:VOLT 0.5;:OUTP ON;:CALC2:FEED CURR;:CALC2:CLIM:CLE:AUTO OFF")
    told(bench, ":CALC2:LIM2:UPP 40e-6;:CALC2:LIM2:LOW -1;:CALC2:LIM2:STAT ON;:READ?")
    assert told(bench, ":CALC2:LIM2:FAIL?;:CALC2:LIM5:FAIL?") == "1;0"
    assert float(told(bench, ":CALC2:DATA?")) == pytest.approx(50e-6, rel=1e-2)
    assert int(told(bench, ":STAT:MEAS?")) & 0b111111 == 0b100
    told(bench, ":SOUR:VOLT 0.1;:READ?")
    assert told(bench, ":CALC2:LIM2:FAIL?") == "1", "a result stays until it is cleared"
    told(bench, ":CALC2:CLIM:CLE;:READ?")
    assert told(bench, ":CALC2:LIM2:FAIL?") == "0"
    assert int(told(bench, ":STAT:MEAS?")) & 0b111111 == 0b100000
    told(bench, ":CALC2:NULL:OFFS 9e-6;:CALC2:NULL:STAT ON;:READ?")
    assert float(told(bench, ":CALC2:DATA:LAT?")) == pytest.approx(1e-6, rel=0.2)
    # Compliance is test 1, in or out of it.
    told(bench, ":CALC2:LIM1:STAT ON;:CALC2:LIM1:COMP:FAIL OUT;:READ?")
    assert told(bench, ":CALC2:LIM:FAIL?;:SYST:ERR?") == '1;0,"No error"'


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (":CALC2:CLIM:MODE GRAD", -200),
        (":CALC2:LIM2:UPP:SOUR2 3", -200),
        (":CALC2:FEED CALC1", -200),
        (":CALC2:LIM4:STAT ON", -114),
        (":CALC2:LIM1:UPP 1", -113),
        (":CALC2:DATA?", -230),
        (":CALC1:STAT ON", -113),
        (":TRAC:FEED CALC2", -200),
        (":TRIG:INP DEL", -200),
        ("*SAV 5", -222),
        (":FORM:SREG HEX", -200),
        (":SOUR:MEM:SAVE 101", -222),
        (":SOUR2:TTL 1", -113),
    ],
)
def test_what_is_not_simulated_is_refused(
    make: Callable[..., Bench], message: str, code: int
) -> None:
    assert told(make(), f"{message};:SYST:ERR?").startswith(f"{code},")


def test_setups_are_kept_and_taken_back_with_the_output_off(make: Callable[..., Bench]) -> None:
    bench = make()
    told(bench, ":SOUR:FUNC CURR;:SOUR:CURR 1e-5;:SENS:VOLT:PROT 3;:SENS:CURR:NPLC 0.1;*SAV 2")
    told(bench, "*RST;:OUTP ON;*RCL 2")
    assert told(bench, ":SOUR:FUNC?;:SENS:VOLT:PROT?;:SENS:CURR:NPLC?;:OUTP?") == (
        "CURR;3.000000E+00;1.000000E-01;0"
    )
    assert told(bench, "*RCL 3;:SOUR:FUNC?;:SYST:ERR?") == 'VOLT;0,"No error"'


def test_a_source_memory_sweep_runs_setups_of_both_functions(make: Callable[..., Bench]) -> None:
    bench = make()
    told(bench, ":SENS:FUNC:CONC ON;:SENS:FUNC 'VOLT','CURR';:FORM:ELEM VOLT,CURR")
    told(bench, ":SOUR:VOLT 0.5;:SOUR:MEM:SAVE 1;:SOUR:VOLT 0.2;:SOUR:MEM:SAVE 2")
    told(bench, ":SOUR:FUNC CURR;:SOUR:CURR 1e-5;:SENS:VOLT:PROT 5;:SOUR:MEM:SAVE 3")
    told(bench, ":SOUR:FUNC MEM;:SOUR:MEM:POIN 3;:SOUR:MEM:STAR 1;:OUTP ON")
    assert told(bench, ":READ?;:SYST:ERR?").startswith("-221,"), "the trigger count is another"
    told(bench, ":TRIG:COUN 3")
    values = np.array(told(bench, ":READ?").split(","), dtype=float).reshape(3, 2)
    assert values == pytest.approx(np.array([[0.5, 5e-5], [0.2, 2e-5], [0.1, 1e-5]]), rel=2e-2)
    assert told(bench, ":SOUR:FUNC?;:SYST:ERR?") == 'MEM;0,"No error"'


def test_a_source_memory_sweep_branches_where_a_limit_test_passes(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    told(bench, ":FORM:ELEM CURR;:SENS:FUNC 'CURR';:CALC2:FEED CURR")
    told(bench, ":SOUR:VOLT 0.3;:SOUR:MEM:SAVE 2;:SOUR:VOLT 0.7;:SOUR:MEM:SAVE 7")
    told(bench, ":CALC2:LIM2:STAT ON;:CALC2:CLIM:PASS:SML 7;:SOUR:VOLT 0.1;:SOUR:MEM:SAVE 1")
    told(bench, ":SOUR:FUNC MEM;:SOUR:MEM:POIN 2;:TRIG:COUN 2;:OUTP ON")
    assert told(bench, ":CALC2:CLIM:PASS:SML?") == "7"
    amps = [float(word) for word in told(bench, ":READ?").split(",")]
    assert amps == pytest.approx([1e-5, 7e-5], rel=2e-2)


@pytest.mark.parametrize(("setting", "volts"), [("5", 5.0), ("161", 15.0)])
def test_the_overvoltage_protection_holds_the_output(
    make: Callable[..., Bench], setting: str, volts: float
) -> None:
    bench = make()
    told(bench, f":SOUR:VOLT:PROT {setting};:SOUR:VOLT:RANG 20;:SOUR:VOLT 15;:SENS:FUNC 'VOLT'")
    told(bench, ":SENS:CURR:PROT 0.01;:OUTP ON;:FORM:ELEM VOLT")
    assert float(told(bench, ":READ?")) == pytest.approx(volts, rel=1e-3)
