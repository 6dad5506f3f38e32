"""The B1500A driver against its simulator, and the simulator against the drivers of PyMeasure and
QCoDeS.
"""

import itertools
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import Status
from rram_hil.drivers.dialects.flex import MOST_CHARACTERS, elements, packed
from rram_hil.drivers.keysight_b1500 import KeysightB1500, sre_probe
from rram_hil.drivers.simulated.array.terminals import Place, Resistor
from rram_hil.drivers.simulated.keysight_b1500 import SimulatedB1500
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import Function, InstrumentConfig, SourceSetup
from rram_hil.simulation.config import Timing

OHM_1, OHM_2 = 1e4, 1e5
FORCE_VOLTS = SourceSetup(
    Function.VOLTAGE, compliance=1e-3, source_range=2.0, measure_range=1e-3, aperture_s=1e-3
)


class Analyser(SimulatedB1500):
    """Keeps the messages that came."""

    def message(self, line):
        self.heard = [*getattr(self, "heard", []), line]
        return super().message(line)


class Bench:
    def __init__(self, **kwargs):
        terminals = {"1": Resistor(OHM_1), "2": Resistor(OHM_2)}
        self.sim = Analyser("B1500A", Place(terminals=terminals), **kwargs)
        self.server = InstrumentServer(self.sim, Timing())
        self.driver = KeysightB1500(InstrumentConfig(resource=self.server.resource, timeout_s=0.3))

    def ready(self, setup=FORCE_VOLTS, channel="1"):
        """Connected, armed, one channel configured and on."""
        self.driver.connect()
        self.driver.arm()
        self.driver.configure(channel, setup)
        self.driver.output(channel, True)
        return self

    def fault(self, kind, on="", seconds=0.0):
        self.server.faults.add(Injected(kind, on, seconds))

    def turns(self, action):
        before = self.server.transactions
        result = action()
        return self.server.transactions - before, result


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.driver.close()
    made.server.stop()


def ask(sim, *lines):
    """The replies of a simulator without a link, one string a line."""
    return [sim.message(line).strip() for line in lines]


# Identity and safety


def test_connect_finds_the_modules_and_moves_nothing(bench):
    bench.sim.message("CN 1;DV 1,0,1,1E-3")
    identity = bench.driver.connect()
    assert (identity.model, identity.firmware[:2]) == ("B1500A", "A.")
    assert bench.driver.modules == {"1": "B1517A", "2": "B1517A", "3": "B1511B", "4": "B1511B"}
    assert bench.sim.heard[2:] == ["*IDN?", "UNT?"]
    assert bench.sim.modules[1].output.level == 1


def test_channels_are_the_slots_with_source_measure_modules():
    bench = Bench(modules=("B1520A", "B1510A", "", "B1511A"))
    bench.driver.connect()
    assert bench.driver.channels == ("2", "4")
    assert bench.driver.limits("2").max_v == 200
    assert bench.driver.limits("4").max_v == 100
    with pytest.raises(ConfigError, match="channel '1'"):
        bench.driver.limits("1")
    bench.driver.close()


def test_another_model_and_a_mainframe_without_modules_are_refused_and_the_link_closed(bench):
    bench.fault(LinkFault.WRONG_MODEL)
    with pytest.raises(ConfigError, match="ESPRESSO"):
        bench.driver.connect()
    assert not bench.driver.dialog.link.is_open
    empty = Bench(modules=("B1520A",))
    with pytest.raises(ConfigError, match="B1517A"):
        empty.driver.connect()
    assert not empty.driver.dialog.link.is_open


def test_arm_makes_safe_and_pins_the_format(bench):
    ask(bench.sim, "CN 1,3;DV 1,0,1,1E-3", "FMT 21,2", "NONSENSE")
    bench.driver.connect()
    bench.driver.arm()
    assert not bench.sim.outputs_on
    assert bench.sim.format == (11, 1)
    assert bench.driver.errors() == []


def test_a_reset_that_was_lost_is_told(bench):
    bench.driver.connect()
    bench.fault(LinkFault.DROP_REQUEST, "*RST")
    with pytest.raises(LinkError):
        bench.driver.arm()
    bench.driver.arm()
    assert "FMT 11,1" in next(line for line in bench.sim.heard if "*RST" in line)


def test_safe_off_takes_every_channel_to_zero_before_it_opens_the_switches(bench):
    bench.ready()
    bench.driver.source("1", 1.0)
    ask(bench.sim, "CN 3;DV 3,0,2,1E-3")
    bench.sim.heard.clear()
    bench.driver.safe_off()
    assert bench.sim.heard == ["AB", "*LRN? 0", "DZ 1,3;CL;ERRX?", "*LRN? 0"]
    assert bench.driver.is_off()
    assert not bench.sim.outputs_on
    bench.driver.safe_off()
    assert bench.driver.errors() == []


def test_safe_off_works_after_a_lost_reply_and_after_a_disconnect(bench):
    bench.ready()
    for kind in (
        LinkFault.DROP_REPLY,
        LinkFault.DISCONNECT_REPLY,
        LinkFault.GARBAGE,
        LinkFault.STUCK,
    ):
        bench.driver.configure("1", FORCE_VOLTS)
        bench.driver.output("1", True)
        bench.fault(kind, "TTIV")
        with pytest.raises(LinkError):
            bench.driver.measure("1")
        bench.driver.safe_off()
        assert not bench.sim.outputs_on


def test_a_switch_that_does_not_open_is_told(bench):
    bench.ready()
    # Private: a relay that sticks.
    bench.sim._table["CL"] = (lambda _: None, 0, 15)
    with pytest.raises(InstrumentError, match="still on"):
        bench.driver.safe_off()


def test_a_staircase_that_goes_on_at_compliance_though_told_to_end_is_no_sweep(bench):
    bench.driver = KeysightB1500(
        KeysightB1500.Config(resource=bench.server.resource, timeout_s=0.5, stop_at_compliance=True)
    )
    setup = replace(FORCE_VOLTS, compliance=0.45 / OHM_1)
    driver, act = bench.ready(setup).driver, bench.sim.message
    told = driver.sweep("1", 0.0, 1.0, 5).status
    assert told.tolist() == [Status.OK] * 2 + [Status.COMPLIANCE] + [Status.NOT_RUN] * 2
    bench.sim.message = lambda line: act(line.replace("WM 2,1", "WM 1,1"))
    with pytest.raises(InstrumentError, match="went on at compliance"):
        driver.sweep("1", 0.0, 1.0, 5)


# Settings


def test_settings_are_read_back_from_the_instrument(bench):
    bench.ready()
    assert bench.driver.settings("1") == FORCE_VOLTS
    by_itself = SourceSetup(Function.CURRENT, compliance=5.0, aperture_s=0.04, settle_s=0.01)
    bench.driver.configure("1", by_itself)
    assert bench.driver.settings("1") == by_itself
    bench.sim.modules[1].output.limit = 2.5
    assert bench.driver.settings("1").compliance == 2.5


@pytest.mark.parametrize(
    "change", [("RI1,", "RJ1,"), ("RI1,-17", "RI1,-99"), ("AIT0,3", "AIT0,0"), ("DV1,20", "DV1,x")]
)
def test_settings_that_cannot_be_read_are_an_error(bench, change):
    bench.ready()
    # Private: the simulator spoils one reply.
    sound = bench.sim._learn
    bench.sim._table["*LRN?"] = (lambda call: sound(call).replace(*change), 1, 1)
    with pytest.raises(InstrumentError, match="channel 1"):
        bench.driver.settings("1")
    bench.sim.modules[1].on = False
    bench.sim._table["*LRN?"] = (sound, 1, 1)
    with pytest.raises(InstrumentError, match="CL1"):
        bench.driver.settings("1")


def test_a_channel_that_is_off_gets_its_source_settings_with_its_switch(bench):
    bench.driver.connect()
    bench.driver.arm()
    bench.driver.configure("2", FORCE_VOLTS)
    bench.driver.source("2", 0.7)
    assert not bench.sim.outputs_on
    assert bench.driver.settings("2") == FORCE_VOLTS
    bench.sim.heard.clear()
    bench.driver.output("2", True)
    on = bench.sim.heard[0].split(";")
    assert on[:3] == [
        "CN 2",
        "DV 2,20,0.000000000E+00,1.000000000E-03,0,0",
        "DV 2,20,7.000000000E-01,1.000000000E-03,0,0",
    ]


def test_the_smallest_legal_values_go_out_whole(bench):
    smallest = SourceSetup(
        Function.VOLTAGE,
        compliance=1e-12,
        source_range=0.5,
        measure_range=1e-11,
        aperture_s=2e-6,
        settle_s=1e-4,
    )
    bench.ready(smallest)
    assert bench.driver.settings("1") == smallest
    bench.driver.source("1", 1.23456789e-7)
    assert "1.234567890E-07,1.000000000E-12" in bench.sim.heard[-1]
    assert "PA 1.000000000E-04" in bench.sim.heard[-1]
    assert "AIT 0,3,2.000000000E-06" in "".join(bench.sim.heard)


def test_whole_power_line_cycles_are_asked_for_as_such(bench):
    bench.ready(SourceSetup(Function.VOLTAGE, 1e-3, aperture_s=0.06))
    assert any("AIT 0,2,3;" in line for line in bench.sim.heard)
    assert bench.driver.settings("1").aperture_s == pytest.approx(0.06)


@pytest.mark.parametrize(
    "setup",
    [
        SourceSetup(Function.VOLTAGE, 0.06, source_range=40),
        SourceSetup(Function.VOLTAGE, 1e-13),
        SourceSetup(Function.VOLTAGE, float("nan")),
        SourceSetup(Function.VOLTAGE, 1e-3, source_range=101),
        SourceSetup(Function.CURRENT, 30.0, source_range=0.1),
        SourceSetup(Function.VOLTAGE, 1e-3, measure_range=1.0),
        SourceSetup(Function.VOLTAGE, 1e-3, aperture_s=0.03),
        SourceSetup(Function.VOLTAGE, 1e-3, aperture_s=1e-6),
        SourceSetup(Function.VOLTAGE, 1e-3, settle_s=66),
    ],
)
def test_what_a_module_cannot_do_is_refused_before_anything_is_sent(bench, setup):
    bench.ready()
    bench.sim.heard.clear()
    with pytest.raises(ConfigError):
        bench.driver.configure("1", setup)
    assert bench.sim.heard == []


@pytest.mark.parametrize("level", [2.5, -2.5, float("nan"), float("inf")])
def test_levels_beyond_the_range_are_refused(bench, level):
    bench.ready()
    bench.sim.heard.clear()
    for act in (
        lambda: bench.driver.source("1", level),
        lambda: bench.driver.sweep("1", 0, level, 3),
        lambda: bench.driver.list_sweep("1", np.array([0, level])),
    ):
        with pytest.raises(ConfigError):
            act()
    assert bench.sim.heard == []


# Readings


def test_a_reading_is_current_volts_status_and_time_in_one_transaction(bench):
    bench.ready()
    bench.driver.source("1", 0.5)
    turns, reading = bench.turns(lambda: bench.driver.measure("1"))
    assert turns == 1
    assert reading.volts[0] == pytest.approx(0.5, abs=1e-3)
    assert reading.amps[0] == pytest.approx(0.5 / OHM_1, rel=5e-3)
    assert reading.status[0] == Status.OK
    later = bench.driver.measure("1")
    assert later.time_s[0] > reading.time_s[0]


def test_current_is_forced_and_volts_measured(bench):
    bench.ready(SourceSetup(Function.CURRENT, compliance=2.0, source_range=1e-4, measure_range=2.0))
    bench.driver.source("1", -5e-5)
    reading = bench.driver.measure("1")
    assert reading.amps[0] == pytest.approx(-5e-5, rel=5e-3)
    assert reading.volts[0] == pytest.approx(-0.5, rel=5e-3)


def test_compliance_comes_with_the_reading_and_the_volts_are_those_at_the_terminal(bench):
    bench.ready(SourceSetup(Function.VOLTAGE, compliance=2e-5, source_range=2.0, aperture_s=1e-3))
    bench.driver.source("1", 1.0)
    reading = bench.driver.measure("1")
    assert reading.status[0] == Status.COMPLIANCE
    assert reading.amps[0] == pytest.approx(2e-5, rel=5e-3)
    assert reading.volts[0] == pytest.approx(0.2, rel=5e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_over_range_is_no_number(bench, sign):
    bench.ready(
        SourceSetup(
            Function.VOLTAGE, compliance=1e-3, source_range=2.0, measure_range=1e-6, aperture_s=1e-3
        )
    )
    bench.driver.source("1", sign * 1.0)
    assert bench.sim.message("TI 1,-14").strip() == "VAI+199.9990E+99"
    reading = bench.driver.measure("1")
    assert reading.status[0] == Status.OVER_RANGE
    assert np.isnan(reading.amps[0])


def test_a_limit_of_another_channel_makes_a_reading_doubtful(bench):
    bench.ready()
    bench.driver.source("1", 0.5)
    bench.driver.configure(
        "2", SourceSetup(Function.VOLTAGE, compliance=1e-6, source_range=2.0, aperture_s=1e-3)
    )
    bench.driver.source("2", 1.0)
    bench.driver.output("2", True)
    assert bench.driver.measure("2").status[0] == Status.COMPLIANCE
    assert bench.driver.measure("1").status[0] == Status.UNKNOWN


@pytest.mark.parametrize("letter", "XFGS")
def test_other_letters_are_never_good(bench, letter):
    bench.ready()
    # Private: the simulator spoils its data.
    told = bench.sim._text
    bench.sim._text = lambda element: (
        letter + told(element)[1:] if element.kind != "T" else told(element)
    )
    assert bench.driver.measure("1").status[0] == Status.UNKNOWN


def test_measuring_while_off_is_refused(bench):
    bench.ready()
    bench.driver.output("1", False)
    assert not bench.sim.outputs_on
    for act in (
        lambda: bench.driver.measure("1"),
        lambda: bench.driver.sweep("1", 0, 1, 3),
        lambda: bench.driver.list_sweep("1", np.array([0.1])),
    ):
        with pytest.raises(InstrumentError, match="off"):
            act()


def test_a_measurement_that_the_instrument_refuses_raises_its_error_without_a_timeout(bench):
    bench.ready()
    bench.sim.message("CL 1")
    bench.driver.dialog.timeout_s = 600.0  # a timeout would be one of this test
    with pytest.raises(InstrumentError, match="Channel output switch must be ON") as caught:
        bench.driver.measure("1")
    assert caught.value.code == 200
    assert "TTIV 1" in caught.value.command
    assert bench.driver.errors() == []


@pytest.mark.parametrize("query_first", [True, False])
def test_the_reply_of_the_error_query_may_come_before_or_after_the_data(bench, query_first):
    bench.ready()
    bench.sim.query_first = query_first
    bench.driver.source("1", 0.25)
    assert bench.driver.measure("1").volts[0] == pytest.approx(0.25, abs=1e-3)
    assert len(bench.driver.list_sweep("1", np.linspace(0, 1, 7))) == 7


@pytest.mark.parametrize(
    "line",
    [
        "NAI+1.00000E-06",
        "NAI+1.000000E-06,",
        "NAI+1.000000E-06;NAV+1.000000E-06",
        "AI+1.0000000E-06",
        "NAI 1.000000E-06",
        "NAI+1.000000E-0x",
        "",
    ],
)
def test_a_line_that_is_not_of_the_pinned_format_is_refused(line):
    with pytest.raises(LinkError, match="format 11"):
        elements(line)


@pytest.mark.parametrize("change", [("A", "B"), ("NAV", "NAI"), ("E-0", "E0"), ("NA", "WA")])
def test_data_that_are_not_the_asked_ones_are_an_error_and_the_link_recovers(bench, change):
    bench.ready()
    bench.driver.source("1", 0.5)
    # Private: the simulator spoils its data.
    told = bench.sim._text
    bench.sim._text = lambda element: (
        told(element).replace(*change) if element.channel else told(element)
    )
    with pytest.raises(LinkError):
        bench.driver.measure("1")
    bench.sim._text = told
    assert bench.driver.measure("1").volts[0] == pytest.approx(0.5, abs=1e-3)


def test_after_a_timeout_no_stale_reply_is_believed(bench):
    bench.ready()
    bench.driver.source("1", 0.5)
    bench.fault(LinkFault.DELAY_REPLY, "TTIV", 0.6)
    with pytest.raises(LinkError, match="no reply"):
        bench.driver.measure("1")
    bench.driver.source("1", -0.25)
    assert bench.driver.measure("1").volts[0] == pytest.approx(-0.25, abs=1e-3)


def test_every_probe_differs_from_the_last_and_is_answered_in_kind():
    sim = SimulatedB1500("B1500A", Place())
    replies = []
    for nonce in range(1, 128):
        query, reply = sre_probe(nonce)
        assert ask(sim, query) == [reply]
        replies.append(reply)
    assert len(set(replies)) == 127


def test_two_threads_get_their_own_readings(bench):
    bench.ready()
    bench.driver.source("1", 0.5)
    bench.driver.configure("2", FORCE_VOLTS)
    bench.driver.source("2", -0.25)
    bench.driver.output("2", True)
    wrong = []

    def work(channel, volts):
        for _ in range(60):
            if abs(bench.driver.measure(channel).volts[0] - volts) > 1e-3:
                wrong.append(channel)

    threads = [threading.Thread(target=work, args=a) for a in (("1", 0.5), ("2", -0.25))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Sweeps and lists


def test_a_staircase_runs_on_the_instrument_and_its_data_come_in_one_transaction(bench):
    bench.ready()
    bench.driver.source("1", 1.5)
    turns, readings = bench.turns(lambda: bench.driver.sweep("1", -1.0, 1.0, 101))
    assert turns == 2
    assert bench.sim.heard[-1].startswith("TSR;XE;DV 1,20,0.0")
    np.testing.assert_allclose(readings.volts, np.linspace(-1, 1, 101), atol=1e-3)
    np.testing.assert_allclose(readings.amps, np.linspace(-1, 1, 101) / OHM_1, atol=5e-7)
    assert np.all(readings.status == Status.OK)
    assert np.all(np.diff(readings.time_s) > 0)
    assert bench.sim.modules[1].output.level == 0


def test_a_list_that_is_stored_already_is_only_run(bench):
    bench.ready()
    levels = np.array([0.3])
    first = bench.driver.list_sweep("1", levels)
    turns, again = bench.turns(lambda: bench.driver.list_sweep("1", levels))
    assert turns == 1
    np.testing.assert_allclose(again.amps, first.amps, atol=5e-7)


def test_a_reading_of_one_conversion_tells_the_level_that_was_asked_for(bench):
    bench.ready(replace(FORCE_VOLTS, one_conversion=True))
    levels = np.array([0.3, -1.0])
    readings = bench.driver.list_sweep("1", levels)
    np.testing.assert_array_equal(readings.volts, levels)
    np.testing.assert_allclose(readings.amps, levels / OHM_1, atol=5e-7)
    assert "TTI 1," in ";".join(bench.sim.heard[-2:])


def test_a_staircase_of_current_measures_volts(bench):
    bench.ready(SourceSetup(Function.CURRENT, compliance=2.0, source_range=1e-4, aperture_s=1e-3))
    readings = bench.driver.sweep("1", 0, 1e-4, 11)
    np.testing.assert_allclose(readings.volts, np.linspace(0, 1, 11), atol=1e-3)


def test_a_staircase_goes_on_at_compliance_and_each_reading_says_so(bench):
    bench.ready(SourceSetup(Function.VOLTAGE, compliance=5e-5, source_range=2.0, aperture_s=1e-3))
    readings = bench.driver.sweep("1", 0.0, 1.0, 11)
    assert list(readings.status) == [Status.OK] * 6 + [Status.COMPLIANCE] * 5
    np.testing.assert_allclose(readings.volts[5:], 0.5, atol=2e-3)


def test_a_list_runs_from_program_memory_and_all_data_come_in_one_transaction(bench):
    bench.ready()
    levels = np.array([0.3, -1.0, 0.0, 2.0, 0.05] * 20)
    turns, readings = bench.turns(lambda: bench.driver.list_sweep("1", levels))
    assert turns == 2
    assert bench.sim.heard[-1].endswith("DO 1;TSQ;ERRX?")
    np.testing.assert_allclose(readings.volts, levels, atol=1e-3)
    np.testing.assert_allclose(readings.amps, levels / OHM_1, atol=5e-7)
    assert np.all(np.diff(readings.time_s) > 0)
    assert bench.sim.modules[1].output.level == 0


def test_a_list_and_a_look_at_another_channel_are_one_transaction(bench):
    bench.ready(replace(FORCE_VOLTS, one_conversion=True))
    gate = SourceSetup(Function.VOLTAGE, compliance=1e-6, source_range=5.0, aperture_s=1e-3)
    bench.driver.configure("2", gate)
    bench.driver.output("2", True)
    levels = np.array([0.3])
    bench.driver.list_sweep("1", levels)
    for volts, status in ((2e-3, Status.OK), (3.0, Status.COMPLIANCE)):
        bench.driver.source("2", volts)
        turns, found = bench.turns(lambda: bench.driver.list_sweep_beside("1", levels, ["2"]))
        assert turns == 1
        assert list(found) == ["1", "2"]
        assert [len(readings) for readings in found.values()] == [1, 1]
        assert found["2"].status[0] == status
        assert bench.sim.modules[2].output.level == volts
    assert len(bench.sim.heard[-1]) <= 250
    with pytest.raises(ConfigError, match="configure it first"):
        bench.driver.list_sweep_beside("1", levels, ["3"])


def test_levels_of_a_list_stand_as_long_as_asked(bench):
    bench.ready(
        SourceSetup(
            Function.VOLTAGE,
            1e-3,
            source_range=2.0,
            measure_range=1e-3,
            aperture_s=1e-3,
            settle_s=0.05,
        )
    )
    readings = bench.driver.list_sweep("1", np.array([0.1, 0.2, 0.3]))
    assert np.all(np.diff(readings.time_s) > 0.05)


def test_no_message_is_longer_than_the_input_buffer(bench):
    bench.ready()
    bench.driver.list_sweep("1", np.linspace(-2, 2, 200))
    bench.driver.sweep("1", -1.0, 1.0, 5)
    assert max(len(line) for line in bench.sim.heard) <= MOST_CHARACTERS


def test_more_points_than_the_buffer_holds_are_refused(bench):
    bench.ready()
    for points in (0, 8509):
        with pytest.raises(ConfigError, match="data buffer"):
            bench.driver.sweep("1", 0, 1, points)
    with pytest.raises(ConfigError, match="data buffer"):
        bench.driver.list_sweep("1", np.zeros(8509))
    assert len(bench.driver.sweep("1", 0, 1, 1)) == 1


def test_a_list_of_which_a_message_was_lost_never_passes_for_the_list(bench):
    bench.ready()
    for kind in (LinkFault.DROP_REQUEST, LinkFault.LINE_OVERRUN):
        bench.fault(kind, "1.100000000E+00")
        with pytest.raises((LinkError, InstrumentError)):
            bench.driver.list_sweep("1", np.linspace(0, 2, 21))
    bench.fault(LinkFault.DROP_REQUEST, "ST 1")
    with pytest.raises(LinkError):
        bench.driver.list_sweep("1", np.linspace(0, 2, 21))
    bench.driver.safe_off()
    assert not bench.sim.outputs_on


def test_the_timeout_follows_the_length_of_a_sweep(bench):
    bench.ready(
        SourceSetup(Function.VOLTAGE, 1e-3, source_range=2.0, measure_range=1e-3, aperture_s=0.02)
    )
    bench.fault(LinkFault.DELAY_REPLY, "XE", 0.5)
    assert len(bench.driver.sweep("1", 0, 1, 10)) == 10
    bench.fault(LinkFault.DELAY_REPLY, "XE", 0.5)
    with pytest.raises(LinkError):
        bench.driver.sweep("1", 0, 1, 1)


def test_a_staircase_after_a_disconnect_at_its_reply_is_off_and_works_again(bench):
    bench.ready()
    bench.fault(LinkFault.DISCONNECT_REPLY, "XE")
    with pytest.raises(LinkError):
        bench.driver.sweep("1", 0, 1, 5)
    bench.driver.safe_off()
    assert not bench.sim.outputs_on
    bench.driver.output("1", True)
    assert len(bench.driver.sweep("1", 0, 1, 5)) == 5


# Errors


def test_an_error_is_raised_with_code_text_and_command_and_the_queue_is_empty_after(bench):
    bench.ready()
    with pytest.raises(
        InstrumentError, match=r"Incorrect range value for this channel.*and 1 more: 100"
    ) as caught:
        bench.driver.send("RI 3,-9", "NONSENSE 1")
    assert caught.value.code == 124
    assert caught.value.command == "RI 3,-9;NONSENSE 1"
    assert bench.driver.errors() == []


def test_a_full_queue_is_told_and_emptied(bench):
    bench.ready()
    bench.fault(LinkFault.QUEUE_FULL)
    with pytest.raises(InstrumentError, match="and 29 more"):
        bench.driver.source("1", 0.1)
    bench.driver.source("1", 0.1)


def test_common_commands_of_ieee_488_2_are_unknown_to_flex(bench):
    bench.ready()
    assert ask(bench.sim, "*CLS", "ERRX?") == ["", '+100,"Undefined GPIB command."']
    assert not any("*CLS" in line or "*ESE" in line for line in bench.sim.heard[:-2])


@settings(max_examples=60, deadline=None)
@given(
    volts=st.floats(-2, 2, allow_nan=False),
    log_compliance=st.floats(-12, -1.0),
)
def test_levels_and_compliances_arrive_as_they_were_given(volts, log_compliance):
    sim = SimulatedB1500("B1500A", Place())
    sent = []
    driver = KeysightB1500(InstrumentConfig(resource="TCPIP::none::1::SOCKET"))
    driver.modules = {"1": "B1517A"}
    driver.send = lambda *commands, **_: sent.extend(commands)
    driver.configure("1", SourceSetup(Function.VOLTAGE, compliance=10**log_compliance))
    driver.source("1", volts)
    driver.output("1", True)
    assert ask(sim, *packed(tuple(sent)), "ERRX?")[-1] == '+0,"No Error."'
    output = sim.modules[1].output
    assert output.level == pytest.approx(volts, rel=1e-9, abs=1e-300)
    assert output.limit == pytest.approx(10**log_compliance, rel=1e-9)


@given(st.lists(st.text("AB,1", min_size=1, max_size=MOST_CHARACTERS), max_size=40))
def test_packing_keeps_the_commands_and_their_order(commands):
    messages = packed(tuple(commands))
    assert list(itertools.chain(*(m.split(";") for m in messages))) == commands
    assert all(len(m) <= MOST_CHARACTERS for m in messages)


# The simulator by itself


@pytest.fixture
def sim():
    return SimulatedB1500("B1500A", Place(terminals={"1": Resistor(OHM_1), "2": Resistor(OHM_2)}))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("HELLO", 100),
        ("DV 1,0,abc", 102),
        ("DV 1,0,,1E-3", 102),
        ("DV 1,0", 103),
        ("CMM 1,9", 120),
        ("DV 1,0,101,1E-3", 120),
        ("DV 11,0,1", 121),
        ("DV 9,0,1", 121),
        ("MM 2", 122),
        ("DV 1,0,1,0", 123),
        ("DV 1,0,1,0.2", 123),
        ("DV 1,400,1,0.06", 123),
        ("DV 1,2000,1", 124),
        ("DI 3,9,1E-12,1", 124),
        ("DV 2,0,1", 200),
        ("TI 2,0", 200),
        ("DZ 2", 200),
        ("DV 1,0,50,1E-3", 202),
        ("RZ 1", 205),
        ("XE", 220),
        ("MM 2,1;XE", 222),
        ("FMT 13", 120),
        ("DO 7", 161),
        ("ST 1;ERRX?", 160),
    ],
)
def test_bad_commands_put_the_instruments_own_error_into_the_queue(sim, line, code):
    ask(sim, "CN 1,3", line, "END" if "ST" in line else "AB")
    told = ask(sim, "ERRX?")[0]
    assert int(told.split(",")[0]) == code
    assert ask(sim, f"EMG? {code}")[0] in told


def test_errors_are_read_one_by_one_or_by_codes(sim):
    ask(sim, "HELLO", "DV 1,0,1")
    assert ask(sim, "ERRX? 1", "*STB?") == ["+100", "56"]
    assert ask(sim, "HELLO", "ERR?", "ERR?") == ["", "200,100,0,0", "0,0,0,0"]
    sim.fill_queue()
    assert len(sim.queue) == 30
    assert ask(sim, "*STB?", "*SRE 32;*SRE?", "*STB?") == ["56", "32", "120"]


def test_commands_are_taken_in_any_case_with_or_without_spaces(sim):
    ask(sim, " cn1 ; dv1, 0,1.5 , 1e-3 ;")
    assert ask(sim, "*lrn? 1", "*LRN?0", "ERRX?") == [
        "DV1,0,1.5,0.001,0,0",
        "CN1",
        '+0,"No Error."',
    ]


def test_closing_a_switch_sets_zero_volts_and_100_microamperes(sim):
    assert ask(sim, "*LRN? 0", "*LRN? 1") == ["CL", "CL1"]
    assert ask(sim, "CN 1", "*LRN? 1") == ["", "DV1,200,0,0.0001,0,16"]
    assert ask(sim, "DI 1,0,1E-6,2", "*LRN? 1", "CL", "*LRN? 0") == [
        "",
        "DI1,0,1E-06,2,0,0",
        "",
        "CL",
    ]


def test_dz_and_rz_take_a_channel_to_zero_and_back(sim):
    ask(sim, "CN;DV 1,0,1,1E-3", "DZ")
    assert sim.place.terminal("1").sense().volts == 0
    ask(sim, "RZ")
    assert sim.place.terminal("1").sense().volts == 1


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (1, "NAV+1.00000E+00"),
        (2, "+1.00000E+00"),
        (5, "NAV+1.00000E+00"),
        (11, "NAV+1.000000E+00"),
        (12, "+1.000000E+00"),
        (21, "000AV+1.000000E+00"),
    ],
)
def test_formats_have_their_widths_and_prefixes(sim, style, expected):
    told = ask(sim, f"CN 1;DV 1,0,1,1E-3;FMT {style}", "TV 1,0")[1]
    assert len(told) == len(expected)
    assert told[:-12] == expected[:-12]
    assert float(told[-13:].lstrip("V")) == pytest.approx(1.0, abs=1e-3)


def test_status_digits_and_letters_name_the_limits(sim):
    ask(sim, "CN;FMT 21;DV 1,0,1,1E-5;DV 2,0,1,1E-3")
    assert [ask(sim, f"TI {n}")[0][:5] for n in (1, 2)] == ["008AI", "004BI"]
    ask(sim, "FMT 1")
    assert [ask(sim, f"TI {n}")[0][:3] for n in (1, 2)] == ["CAI", "TBI"]
    assert ask(sim, "TI 2,-11") == ["VBI+199.999E+99"]


def test_a_sweep_that_aborts_fills_up_with_dummies_and_goes_back_to_its_start(sim):
    ask(sim, "CN 1;FMT 1,1;WM 2,2;WT 0,0.01;WV 1,1,0,0,1,5,5E-5;MM 2,1")
    assert ask(sim, "WNU?") == ["5"]
    data = ask(sim, "XE")[0].split(",")
    assert [d[:3] for d in data] == [
        "NAI",
        "WAV",
        "NAI",
        "WAV",
        "NAI",
        "WAV",
        "CAI",
        "WAV",
        "VAI",
        "EAV",
    ]
    assert data[8] == "VAI+199.999E+99"
    assert sim.modules[1].output.level == 0
    ask(sim, "WM 1,2")
    assert "VAI" not in ask(sim, "XE")[0]
    assert sim.modules[1].output.level == 1


@pytest.mark.parametrize(
    ("mode", "volts"),
    [(1, [0.1, 0.55, 1.0]), (2, [0.1, 0.316228, 1.0]), (3, [0.1, 0.55, 1.0, 1.0, 0.55, 0.1])],
)
def test_staircases_are_linear_logarithmic_or_double(sim, mode, volts):
    data = ask(sim, f"CN 1;FMT 11,1;WV 1,{mode},0,0.1,1,3,1E-3;MM 2,1", "XE")[1].split(",")
    assert [float(d[3:]) for d in data[1::2]] == pytest.approx(volts, rel=1e-5)


def test_a_program_runs_as_often_as_asked_and_its_data_are_counted(sim):
    ask(sim, "CN 1", "ST 3;DV 1,0,0.5,1E-3", "PA 0.01;TI 1,0;END")
    assert sim.modules[1].output.level == 0
    before_s = sim.place.bus.clock.now_s
    told = ask(sim, "DO 3,3;NUB?")[0].split()
    assert told[0] == "2"
    assert len(told) == 3
    assert sim.place.bus.clock.now_s - before_s > 0.02


def test_the_clock_takes_apertures_waits_and_settling(sim):
    def takes_s(line):
        before_s = sim.place.bus.clock.now_s
        sim.message(line)
        return sim.place.bus.clock.now_s - before_s

    sim.message("CN 1;DV 1,0,0,1E-3")
    assert takes_s("AIT 0,2,5;TI 1,0") == pytest.approx(0.1, rel=0.01)
    assert takes_s("AIT 0,3,0.01;TI 1,0") == pytest.approx(0.01, rel=0.02)
    assert takes_s("PA 1.5") == pytest.approx(1.5)
    assert takes_s("WT 2,0.1;WV 1,1,0,0,1,10,1E-3;MM 2,1;XE") == pytest.approx(3.1, rel=0.01)
    assert takes_s("DV 1,0,1") > 0


def test_an_hpsmu_gives_200_volts_only_with_the_interlock_closed():
    terminals = {"1": Resistor(1e6)}
    safe = SimulatedB1500(
        "B1500A", Place(terminals=terminals), modules=("B1510A",), is_interlocked=True
    )
    assert ask(safe, "UNT?")[0].startswith("B1510A,0;0,0;")
    ask(safe, "CN 1;DV 1,0,200,0.05")
    assert safe.place.terminal("1").sense().volts == pytest.approx(200)
    assert ask(safe, "DV 1,0,200,0.06", "ERRX?")[1].startswith("+123")
    assert ask(safe, "*STB?") == ["16"]


# Drivers of others


def test_pymeasure_connects_sources_measures_sweeps_and_shuts_down(bench, soon_off: Any):
    agilent = pytest.importorskip("pymeasure.instruments.agilent")
    device = agilent.AgilentB1500(bench.server.resource, visa_library="@py", timeout=2000)
    try:
        assert "B1500A" in device.id
        device.reset()
        device.initialize_all_smus()
        assert device.query_modules() == {1: "HRSMU", 2: "HRSMU", 3: "MPSMU", 4: "MPSMU"}
        device.data_format(21, mode=1)
        device.adc_setup("HRADC", "PLC", 1)
        device.adc_setup("HSADC", "AUTO", 6)
        one, two = device.smu1, device.smu2
        for smu in (one, two):
            smu.enable()
            smu.adc_type = "HRADC"
            smu.meas_op_mode = "COMPLIANCE_SIDE"
            smu.meas_range_current = "1 nA"
        assert str(one.adc_type) == "HRADC"
        one.force("Voltage", "Auto Ranging", 0.5, 1e-3)
        two.force("Voltage", 0, 0, 1e-3)
        assert float(one.status["SMU1"]["Voltage Output (V)"]) == 0.5
        device.meas_mode("SPOT", one, two)
        device.send_trigger()
        spot = device.read_channels(2)
        # It reads by count and leaves the line feed.
        device.read_bytes(1)
        assert spot[0][:2] == ("000", "SMU1")
        assert spot[0][3] == pytest.approx(0.5 / OHM_1, rel=1e-3)

        device.sweep_timing(0, 0.01)
        device.sweep_auto_abort(False, post="STOP")
        one.staircase_sweep_source("VOLTAGE", "LINEAR_SINGLE", "Auto Ranging", 0, 1, 5, 1e-3)
        two.synchronous_sweep_source("VOLTAGE", "Auto Ranging", 0, 0.5, 1e-3)
        device.meas_mode("STAIRCASE_SWEEP", one, two)
        device.time_stamp = True
        assert device.query_staircase_sweep_settings()["SMU1"]["Number of Steps"] == "5"
        assert device.query_meas_settings()["Measurement Channels"] == "SMU1, SMU2"
        device.clear_timer()
        device.send_trigger()
        rows = [device.read_channels(5) for _ in range(5)]
        device.read_bytes(1)
        assert [row[4][2:] for row in rows] == [
            ("Voltage Output (V)", v) for v in (0, 0.25, 0.5, 0.75, 1)
        ]
        assert [row[4][0] for row in rows] == ["000"] * 4 + ["128"]
        np.testing.assert_allclose(
            [row[1][3] for row in rows], np.linspace(0, 1, 5) / OHM_1, atol=1e-8
        )
        np.testing.assert_allclose(
            [row[3][3] for row in rows], np.linspace(0, 0.5, 5) / OHM_2, atol=1e-9
        )

        one.ramp_source("VOLTAGE", 0, 0.02, stepsize=0.01, pause=0)
        device.force_gnd()
        for smu in device.smus.values():
            smu.disable()
        device.check_errors()
        assert soon_off(bench.sim)
        with pytest.raises(OSError, match="Channel output switch must be ON"):
            one.force("Voltage", 0, 1, 1e-3)
    finally:
        device.adapter.connection.close()


def test_qcodes_connects_sources_measures_sweeps_and_shuts_down(bench, soon_off: Any):
    keysight = pytest.importorskip("qcodes.instrument_drivers.Keysight.keysightb1500")
    constants = keysight.constants
    device = keysight.KeysightB1500("analyser", bench.server.resource, visalib="@py")
    try:
        assert device.get_idn()["model"] == "B1500A"
        assert {int(slot): type(m).__name__ for slot, m in device.by_slot.items()} == {
            1: "KeysightB1517A",
            2: "KeysightB1517A",
            3: "KeysightB1511B",
            4: "KeysightB1511B",
        }
        device.reset()
        device.enable_channels([1, 2])
        one = device.smu1
        assert (one.is_enabled(), device.smu3.is_enabled()) == (True, False)
        one.use_high_speed_adc()
        device.use_nplc_for_high_speed_adc(1)
        one.source_config(
            output_range=constants.VOutputRange.MIN_2V,
            compliance=1e-4,
            compl_polarity=constants.CompliancePolarityMode.AUTO,
            min_compliance_range=constants.IMeasRange.FIX_1mA,
        )
        one.v_measure_range_config(constants.VMeasRange.FIX_2V)
        one.i_measure_range_config(constants.IMeasRange.FIX_100uA)
        one.voltage(0.5)
        assert one.voltage() == pytest.approx(0.5, abs=1e-3)
        assert one.current() == pytest.approx(0.5 / OHM_1, rel=5e-3)
        assert one.current.measurement_status is constants.MeasurementStatus.N
        one.voltage(1.5)
        one.current()
        assert one.current.measurement_status is constants.MeasurementStatus.C

        device.smu2.voltage(0)
        one.setup_staircase_sweep(0, 1, 5, i_comp=1e-3, i_meas_range=constants.IMeasRange.FIX_1mA)
        device.set_measurement_mode(mode=constants.MM.Mode.STAIRCASE_SWEEP, channels=(1, 2))
        first, second = device.run_iv_staircase_sweep()
        np.testing.assert_allclose(first, np.linspace(0, 1, 5) / OHM_1, atol=5e-7)
        np.testing.assert_allclose(second, 0, atol=1e-9)
        assert device.run_iv_staircase_sweep.source_voltage.value == [0, 0.25, 0.5, 0.75, 1]
        assert one.iv_sweep.sweep_steps() == 5
        assert one.iv_sweep.current_compliance() == 1e-3

        one.timing_parameters(0, 0.01, 5)
        one.measurement_mode(constants.MM.Mode.SAMPLING)
        assert len(one.sampling_measurement_trace()) == 5
        device.disable_channels()
        assert soon_off(bench.sim)
        assert device.error_message() == '+0,"No Error."'
        with pytest.raises(RuntimeError, match="Channel output switch must be ON"):
            one.voltage(1)
    finally:
        device.close()
