"""The simulated 2450 with TSP as its command set, by scripts in the manner of the maker's examples
(github.com/tektronix/keithley, 2450-SMU).
"""

from __future__ import annotations

import numpy as np
import pytest

from rram_hil.drivers.simulated.array.terminals import Bus, Loads, Place
from rram_hil.drivers.simulated.keithley_2450 import Simulated2450

OHM = 1e4


@pytest.fixture
def unit() -> Simulated2450:
    simulated = Simulated2450("2450", Place("smu", Bus(), Loads(OHM)))
    simulated.language = "TSP"
    return simulated


def said(unit: Simulated2450, *messages: str) -> list[str]:
    """What the messages print, line by line; no error came."""
    told: list[str] = []
    for message in messages:
        reply = unit.message(message)
        assert isinstance(reply, bytes)
        told += reply.decode("latin-1").split("\n") if reply else []
    assert not unit.tsp.queue, list(unit.tsp.queue)
    return told


def test_it_sources_and_measures(unit: Simulated2450) -> None:
    said(
        unit,
        "reset() smu.source.func = smu.FUNC_DC_VOLTAGE smu.source.ilimit.level = 1e-3",
        "smu.measure.func = smu.FUNC_DC_CURRENT smu.measure.autorange = smu.ON",
        "smu.measure.nplc = 0.1 smu.measure.terminals = smu.TERMINALS_REAR",
        "smu.source.level = 2 smu.source.output = smu.ON",
    )
    (amps,) = said(unit, "print(smu.measure.read())")
    assert float(amps) == pytest.approx(2 / OHM, rel=1e-3)
    assert said(unit, "print(smu.source.func, smu.terminals, smu.source.output)") == [
        "smu.FUNC_DC_VOLTAGE\tsmu.TERMINALS_REAR\tsmu.ON"
    ]
    assert said(unit, "print(smu.source.level, smu.measure.nplc, smu.source.ilimit.tripped)") == [
        "2\t0.1\tsmu.OFF"
    ]
    assert unit.outputs_on
    assert said(unit, "reset() print(smu.source.level)") == ["0"]
    assert not unit.outputs_on


def test_a_linear_sweep_fills_a_buffer(unit: Simulated2450) -> None:
    said(
        unit,
        "reset() smu.measure.func = smu.FUNC_DC_CURRENT smu.source.func = smu.FUNC_DC_VOLTAGE",
        "smu.measure.sense = smu.SENSE_4WIRE smu.source.range = 2 smu.source.ilimit.level = 1e-2",
        'smu.source.sweeplinear("Cell", 0, 1, 5, 0.01) trigger.model.initiate() waitcomplete()',
    )
    assert said(unit, "print(defbuffer1.n, trigger.model.state())")[0].startswith("5\t")
    (line,) = said(unit, "printbuffer(1, defbuffer1.n, defbuffer1.sourcevalues, defbuffer1)")
    volts, amps = np.fromstring(line, sep=",").reshape(-1, 2).T
    np.testing.assert_allclose(volts, np.linspace(0, 1, 5), atol=1e-3)
    np.testing.assert_allclose(amps, volts / OHM, atol=1e-7)


def test_templates_of_the_trigger_model_measure_into_any_buffer(unit: Simulated2450) -> None:
    said(
        unit,
        "reset() smu.source.level = 1 smu.source.output = smu.ON mine = buffer.make(100)",
        'trigger.model.load("SimpleLoop", 4, 0.1, mine) trigger.model.initiate() waitcomplete()',
    )
    assert said(unit, "print(mine.n, mine.capacity, defbuffer1.n)") == ["4\t100\t0"]
    (times,) = said(unit, "printbuffer(1, 4, mine.relativetimestamps)")
    assert np.all(np.diff(np.fromstring(times, sep=",")) >= 0.1)
    assert said(unit, "mine.clear() print(mine.n)") == ["0"]


def test_blocks_step_through_a_list_of_settings(unit: Simulated2450) -> None:
    said(
        unit,
        "reset() smu.source.configlist.create('steps') smu.source.func = smu.FUNC_DC_VOLTAGE",
        "smu.measure.func = smu.FUNC_DC_CURRENT smu.measure.nplc = 0.1",
        "smu.source.ilimit.level = 1e-2",
        "for v = 1, 3 do smu.source.level = v smu.source.configlist.store('steps') end",
        "local m = trigger.model m.setblock(1, trigger.BLOCK_CONFIG_RECALL, 'steps')"
        " m.setblock(2, trigger.BLOCK_SOURCE_OUTPUT, smu.ON)"
        " m.setblock(3, trigger.BLOCK_DELAY_CONSTANT, 0.01)"
        " m.setblock(4, trigger.BLOCK_MEASURE) m.setblock(5, trigger.BLOCK_CONFIG_NEXT, 'steps')"
        " m.setblock(6, trigger.BLOCK_BRANCH_COUNTER, 3, 3)"
        " m.setblock(7, trigger.BLOCK_SOURCE_OUTPUT, smu.OFF) m.initiate() waitcomplete()",
    )
    assert said(unit, "print(smu.source.configlist.size('steps'), defbuffer1.n)") == ["3\t3"]
    (line,) = said(unit, "printbuffer(1, 3, defbuffer1)")
    np.testing.assert_allclose(np.fromstring(line, sep=","), np.arange(1, 4) / OHM, rtol=1e-3)
    assert not unit.outputs_on


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("smu.source.configlist.query('a', 1)", "not simulated: smu.source.configlist.query()"),
        ("trigger.model.setblock(1, trigger.BLOCK_LOG_EVENT)", "not simulated: trigger.model"),
        ("trigger.model.setblock(1, trigger.BLOCK_WAIT, trigger.EVENT_TSPLINK1)", "EVENT_TSPLINK1"),
        ("print(smu.measure.rel.level)", "not simulated: smu.measure.rel.level"),
        ("smu.source.func = smu.FUNC_RESISTANCE", "Illegal parameter value"),
        ("smu.source.level = 1e4", ""),
        ("smu.nothing = 1", "undefined attribute"),
    ],
)
def test_what_it_cannot_do_is_an_error(unit: Simulated2450, code: str, told: str) -> None:
    unit.message(code)
    (error,) = unit.tsp.queue
    assert told in error.text
    number, text = said_log(unit)
    assert (number, text) == (str(error.code), error.text)


def said_log(unit: Simulated2450) -> list[str]:
    """The oldest event of the log, and its text."""
    reply = unit.message("print(eventlog.next())")
    assert isinstance(reply, bytes)
    return reply.decode("latin-1").split("\t")[:2]
