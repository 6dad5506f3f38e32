"""The public driver keithley2600 against simulated 2602B, 2614B, 2636B: values compared with the
load behind.

It learns all commands from the instrument itself: from the global table and from the metatables of
the instrument's own tables.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.keithley_2600b import Simulated2600B
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.simulation.config import Timing

pytest.importorskip("keithley2600", reason="it cannot be installed on Python 3.13 and newer")
pytestmark = pytest.mark.filterwarnings("ignore")
MODELS = ("2602B", "2614B", "2636B")
OHMS = {"a": 1e4, "b": 2e4}
T_INT_S = 0.01


class Watched(Resistor):
    """A resistor that keeps the levels forced on it."""

    def __init__(self, ohm: float) -> None:
        super().__init__(ohm)
        self.levels: list[float] = []

    @override
    def drive(self, drive: Drive) -> None:
        self.levels.append(drive.level)
        super().drive(drive)


class Bench:
    """A simulated instrument with resistors, and keithley2600 connected to it; what the program
    sleeps passes on the bench's clock.
    """

    def __init__(self, model: str, patch: pytest.MonkeyPatch, **keywords: Any) -> None:
        self.bus = Bus()
        self.loads = {name: Watched(ohm) for name, ohm in OHMS.items()}
        self.sim = Simulated2600B(model, Place("smu", self.bus, self.loads))
        self.server = InstrumentServer(self.sim, Timing())
        program = importlib.import_module("keithley2600.keithley_driver")
        patch.setattr(
            program,
            "time",
            SimpleNamespace(sleep=self._sleep, time=time.time, strftime=time.strftime),
        )
        self.program: Any = program.Keithley2600(self.server.resource, timeout=5000, **keywords)
        # It reads the names of a table when it first uses one, which takes longer than a short
        # sweep, whose end it would then wait for in vain, as with the instrument.
        assert self.program.status.operation.sweeping.condition == 0

    def _sleep(self, seconds: float) -> None:
        with self.bus.lock:
            self.bus.clock.advance(seconds)

    def close(self) -> None:
        self.program.disconnect()
        self.server.stop()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(model: str, **keywords: Any) -> Bench:
        made.append(Bench(model, monkeypatch, **keywords))
        return made[-1]

    yield bench
    for each in made:
        each.close()


def test_it_is_the_version_that_was_read() -> None:
    assert version("keithley2600") == "2.1.0"


@pytest.mark.parametrize("model", MODELS)
def test_it_sources_measures_sweeps_and_pulses(make: Callable[..., Bench], model: str) -> None:
    bench = make(model)
    k, a, b = bench.program, bench.program.smua, bench.program.smub
    assert k.connected
    assert k.localnode.model == model
    k.apply_voltage(a, 1.0)
    assert k.measure_voltage(a) == pytest.approx(1.0, rel=1e-3)
    assert k.measure_current(a) == pytest.approx(1.0 / OHMS["a"], rel=1e-3)
    k.apply_current(b, 1e-5)
    assert k.measure_voltage(b) == pytest.approx(1e-5 * OHMS["b"], rel=2e-3)

    levels = [0.25, 0.5, 1.0]
    volts, amps = k.voltage_sweep_single_smu(a, levels, T_INT_S, 0, pulsed=False)
    np.testing.assert_allclose(volts, levels, rtol=1e-3)
    np.testing.assert_allclose(amps, np.array(levels) / OHMS["a"], rtol=1e-3)
    assert a.source.output == 1, "a sweep that holds leaves its last level"

    a.source.levelv = 0
    assert a.source.levelv == 0, "a command has no reply: what is asked behind it shows it done"
    bench.loads["a"].levels.clear()
    volts, amps = k.voltage_sweep_single_smu(a, levels, T_INT_S, -1, pulsed=True)
    np.testing.assert_allclose(amps, np.array(levels) / OHMS["a"], rtol=1e-3)
    np.testing.assert_allclose(bench.loads["a"].levels, [0.25, 0, 0.5, 0, 1, 0], atol=1e-3)
    assert k.read_error_queue() == []


@pytest.mark.parametrize("model", MODELS)
def test_transfer_and_output_curves_are_those_of_the_loads(
    make: Callable[..., Bench], model: str
) -> None:
    bench = make(model)
    k = bench.program
    table = k.transfer_measurement(k.smua, k.smub, 0.5, 1.0, 0.5, [0.2], T_INT_S, 0, pulsed=False)
    gate, source, drain, leak = table.data.T
    np.testing.assert_allclose(gate, [0.5, 1.0, 1.0, 0.5])
    np.testing.assert_allclose(leak, gate / OHMS["a"], rtol=1e-3)
    np.testing.assert_allclose(drain, 0.2 / OHMS["b"], rtol=1e-3)
    np.testing.assert_allclose(source, leak + drain, rtol=1e-6)
    table = k.output_measurement(k.smua, k.smub, 0, 1.0, 1.0, [0.5], T_INT_S, 0, pulsed=True)
    swept, _, drain, leak = table.data.T
    np.testing.assert_allclose(drain, swept / OHMS["b"], rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(leak, 0.5 / OHMS["a"], rtol=1e-3)
    assert not bench.sim.outputs_on, "both end with a reset"
    assert not bench.sim.queue


@pytest.mark.long
def test_lists_ramps_chords_and_errors(make: Callable[..., Bench]) -> None:
    bench = make("2602B", raise_keithley_errors=True)
    k, a = bench.program, bench.program.smua
    k.ramp_to_voltage(a, 3, delay=0.01, step_size=1)
    assert k.measure_voltage(a) == pytest.approx(3.0, rel=1e-3)
    many = np.linspace(0, 1, k.CHUNK_SIZE + 2)  # goes over as a table of its own, number by number
    volts, _ = k.voltage_sweep_single_smu(a, many, T_INT_S, 0, pulsed=False)
    np.testing.assert_allclose(volts, many, atol=1e-3)
    k.play_chord(["C6"], 0.1)
    assert not k.busy
    error = importlib.import_module("keithley2600.keithley_driver").KeithleyError
    with pytest.raises(error, match="Parameter Too Big"):
        a.source.levelv = 1e4
    with pytest.raises(error, match=r"not simulated: smua\.cal\.unlock"):
        a.cal.unlock("KI0026XX")
    with pytest.raises(AttributeError, match="read-only"):
        a.source.compliance = 1
    with pytest.raises(AttributeError):
        _ = a.source.nothing
