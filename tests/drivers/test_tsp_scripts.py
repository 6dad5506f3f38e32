"""Scripts in the manner of the maker's public examples for the Series 2600B (github.com/tektronix/
keithley, Instrument_Examples): our own text, the same commands in the same roles.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from typing_extensions import override

from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor
from rram_hil.drivers.simulated.keithley_2600b import Simulated2600B

OHMS = {"a": 1e3, "b": 2e3}


class Timed(Resistor):
    """A resistor that keeps when which level came."""

    def __init__(self, ohm: float, bus: Bus) -> None:
        super().__init__(ohm)
        self._bus = bus
        self.levels: list[tuple[float, float]] = []

    @override
    def drive(self, drive: Drive) -> None:
        self.levels.append((self._bus.clock.now_s, drive.level))
        super().drive(drive)


class Bench:
    def __init__(self, model: str = "2602B") -> None:
        self.bus = Bus()
        self.loads = {name: Timed(ohm, self.bus) for name, ohm in OHMS.items()}
        self.unit = Simulated2600B(model, Place("smu", self.bus, self.loads))

    def load(self, name: str, script: str) -> None:
        """Load a script line by line, as hosts do, and run it once."""
        for line in (f"loadscript {name}", *script.strip().split("\n"), "endscript", f"{name}()"):
            assert self.unit.message(line) == b""
        assert not self.unit.queue, list(self.unit.queue)

    def ask(self, line: str) -> list[list[str]]:
        """Words of the lines that it prints, which come with no error."""
        reply = self.unit.message(line)
        assert isinstance(reply, bytes)
        assert not self.unit.queue, list(self.unit.queue)
        return [each.split("\t") for each in reply.decode("latin-1").split("\n")]


PULSED_SWEEP = """
function pulsed(first, last, points, width, period, limit, nplc, remote)
  reset()
  for _, smu in {smua, smub} do
    smu.reset()
    smu.source.func = smu.OUTPUT_DCVOLTS
    if remote == true then smu.sense = smu.SENSE_REMOTE else smu.sense = smu.SENSE_LOCAL end
    smu.source.autorangev = smu.AUTORANGE_OFF
    smu.source.rangev = math.max(math.abs(first), math.abs(last))
    smu.source.levelv = 0
    smu.source.limiti = 0.1
    smu.measure.autozero = smu.AUTOZERO_ONCE
    smu.measure.autorangei = 0
    smu.measure.rangei = limit
    smu.measure.nplc = nplc
    smu.measure.delay = 0
    smu.nvbuffer1.clear() smu.nvbuffer1.collecttimestamps = 1
    smu.nvbuffer2.clear() smu.nvbuffer2.collecttimestamps = 1
  end
  display.trigger.clear()
  trigger.timer[1].count = points > 1 and points - 1 or 1
  trigger.timer[1].delay = period
  trigger.timer[1].passthrough = true
  trigger.timer[1].stimulus = display.trigger.EVENT_ID
  local after = {[2] = width - 1 / localnode.linefreq * nplc - 60e-6, [3] = width}
  for n, seconds in after do
    trigger.timer[n].count = 1
    trigger.timer[n].delay = seconds
    trigger.timer[n].passthrough = false
    trigger.timer[n].stimulus = trigger.timer[1].EVENT_ID
  end
  for _, smu in {smua, smub} do
    smu.trigger.source.linearv(first, last, points)
    smu.trigger.source.limiti = limit
    smu.trigger.measure.action = smu.ENABLE
    smu.trigger.measure.iv(smu.nvbuffer1, smu.nvbuffer2)
    smu.trigger.endpulse.action = smu.SOURCE_IDLE
    smu.trigger.endsweep.action = smu.SOURCE_IDLE
    smu.trigger.count = points
    smu.trigger.arm.stimulus = 0
    smu.trigger.source.stimulus = trigger.timer[1].EVENT_ID
    smu.trigger.measure.stimulus = trigger.timer[2].EVENT_ID
    smu.trigger.endpulse.stimulus = trigger.timer[3].EVENT_ID
    smu.trigger.source.action = smu.ENABLE
    smu.source.output = smu.OUTPUT_ON
  end
  smua.trigger.initiate()
  smub.trigger.initiate()
  waitcomplete()
  smua.source.output = smua.OUTPUT_OFF
  smub.source.output = smub.OUTPUT_OFF
  print("Time\\tA volts\\tA amps\\tB volts\\tB amps")
  for x = 1, smua.nvbuffer1.n do
    print(smua.nvbuffer1.timestamps[x], smua.nvbuffer2[x], smua.nvbuffer1[x], smub.nvbuffer2[x],
          smub.nvbuffer1[x])
  end
end
"""


def test_two_channels_pulse_together_after_the_trig_key() -> None:
    bench = Bench()
    bench.load("pulsing", PULSED_SWEEP)
    bench.unit.act_at_panel(keys=["TRIG"])
    heading, *rows = bench.ask("pulsed(1, 5, 5, 1e-3, 5e-3, 0.1, 0.001, false)")
    assert heading[0] == "Time"
    table = np.array(rows, dtype=float)
    np.testing.assert_allclose(table[:, 0], np.arange(5) * 5e-3, atol=1e-6)
    np.testing.assert_allclose(table[:, 1], [1, 2, 3, 4, 5], rtol=1e-3)
    np.testing.assert_allclose(table[:, 2], np.arange(1, 6) / OHMS["a"], rtol=1e-3)
    np.testing.assert_allclose(table[:, 4], np.arange(1, 6) / OHMS["b"], rtol=1e-3)
    for load in bench.loads.values():
        ups = [at for at, level in load.levels if abs(level) > 0.5]
        downs = [at for at, level in load.levels if level == 0.0 and at > ups[0]][:5]
        np.testing.assert_allclose(np.diff(ups), 5e-3, rtol=1e-6)
        np.testing.assert_allclose(np.subtract(downs, ups), 1e-3, rtol=1e-6)
    assert bench.ask("print(status.operation.instrument.smua.trigger_overrun.condition)") == [
        ["0.00000e+00"]
    ]


WAVEFORM = """
function waveform(rms, cycles, frequency, limit)
  reset()
  local peak = rms * math.sqrt(2)
  local values, each = {}, 7200 / frequency
  local points = each * cycles
  for i = 1, points do values[i] = peak * math.sin(i * 2 * math.pi / each) end
  smua.source.settling = smua.SETTLE_FAST_POLARITY
  smua.source.rangev = peak
  smua.source.limiti = limit
  smua.measure.autozero = smua.AUTOZERO_OFF
  smua.measure.rangei = limit
  smua.measure.nplc = 0.001
  trigger.timer[1].delay = 1 / 7200
  trigger.timer[1].passthrough = true
  trigger.timer[1].stimulus = smua.trigger.ARMED_EVENT_ID
  trigger.timer[1].count = points - 1
  smua.trigger.source.listv(values)
  smua.trigger.measure.action = smua.ENABLE
  smua.trigger.measure.iv(smua.nvbuffer1, smua.nvbuffer2)
  smua.trigger.endpulse.action = smua.SOURCE_HOLD
  smua.trigger.endsweep.action = smua.SOURCE_IDLE
  smua.trigger.count = points
  smua.trigger.arm.stimulus = 0
  smua.trigger.source.stimulus = trigger.timer[1].EVENT_ID
  smua.trigger.source.action = smua.ENABLE
  smua.source.output = smua.OUTPUT_ON
  smua.trigger.initiate()
  waitcomplete()
  smua.source.output = smua.OUTPUT_OFF
  printbuffer(1, smua.nvbuffer1.n, smua.nvbuffer1.timestamps, smua.nvbuffer2, smua.nvbuffer1)
end
"""


def test_a_sine_wave_is_a_list_sweep_by_a_timer() -> None:
    bench = Bench()
    bench.load("sine", WAVEFORM)
    ((line,),) = bench.ask("waveform(2, 2, 60, 0.1)")
    at_s, volts, amps = np.fromstring(line, sep=",").reshape(-1, 3).T
    phase = 2 * np.pi * np.arange(1, 241) / 120
    np.testing.assert_allclose(np.diff(at_s), 1 / 7200, atol=1.1e-7)
    np.testing.assert_allclose(volts, 2 * math.sqrt(2) * np.sin(phase), atol=2e-3)
    np.testing.assert_allclose(amps, volts / OHMS["a"], atol=2e-5)


OVERRUN = """
function overrun(node)
  local places = {ARM = 2, SRC = 4, MEAS = 8, ENDP = 16}
  local channel = node.status.operation.instrument.smua.trigger_overrun.condition
  for name, weight in pairs(places) do
    if bit.bitand(channel, weight) == weight then return true, "smua " .. name end
  end
  for _, kind in {"trigger_timer", "trigger_blender", "tsplink", "digio", "lan"} do
    local condition = node.status.operation.instrument[kind].trigger_overrun.condition
    if condition > 0 then return true, string.format("%s: 0x%x", kind, condition) end
  end
  return false, "none"
end
"""


def test_overruns_are_found_in_the_status_of_a_node() -> None:
    bench = Bench()
    bench.load("look", OVERRUN)
    assert bench.ask("print(overrun(localnode))") == [["false", "none"]]
    bench.unit.message("trigger.timer[2].stimulus = trigger.generator[1].EVENT_ID delay(1)")
    bench.unit.message(
        "trigger.generator[1].assert() delay(1) trigger.generator[1].assert() delay(1)"
    )
    assert bench.ask("print(overrun(localnode))") == [["true", "trigger_timer: 0x4"]]
    bench.unit.message(
        "trigger.timer[2].reset() smua.trigger.source.stimulus = trigger.generator[2].EVENT_ID"
        " smua.trigger.arm.stimulus = digio.trigger[1].EVENT_ID smua.trigger.initiate()"
        " trigger.generator[2].assert() trigger.generator[2].assert()"
    )
    assert bench.ask("print(overrun(localnode))") == [["true", "smua SRC"]]
    assert bench.ask("print(bit.test(status.operation.trigger_overrun.condition, 2))") == [["true"]]


PARTS = """
function test_parts(count)
  display.clear()
  if count == nil then
    count = display.prompt("0000", " Parts", "How many", 1, 1, 9999)
  end
  local smu, label = smua, display.menu("Source", "amps volts")
  local good = {}
  digio.writeport(0)
  for i = 1, count do
    smu.reset()
    if label == "amps" then smu.source.func = smu.OUTPUT_DCAMPS end
    smu.source.rangei = 0.01 smu.source.limitv = 20 smu.source.leveli = 0.002 * i
    smu.source.output = smu.OUTPUT_ON
    delay(0.01)
    local volts = smu.measure.v()
    display.setcursor(1, 1) display.settext("Part " .. i .. " = " .. tostring(volts) .. "V")
    if volts > 3 then digio.writebit(2, 1) else digio.writebit(8, 1) table.insert(good, volts) end
    smu.source.output = smu.OUTPUT_OFF
  end
  display.setcursor(2, 1) display.settext("Good: " .. table.getn(good))
  print(label, unpack(good))
  print()
end
display.loadmenu.add("Parts", "test_parts()")
"""


def test_an_operator_tests_parts() -> None:
    bench = Bench()
    bench.load("parts", PARTS)
    bench.unit.act_at_panel(answers=["2", "amps"])
    (label, *volts), empty = bench.ask("test_parts()")
    assert (label, empty) == ("amps", [""])
    assert [float(v) for v in volts] == pytest.approx([2.0], rel=1e-3)
    assert bench.unit.panel.text[1] == "Good: 1"
    assert bench.ask("print(digio.readport(), digio.readbit(2), digio.readbit(3))") == [
        ["1.30000e+02", "1.00000e+00", "0.00000e+00"]
    ]
    assert bench.ask("for name, code in display.loadmenu.catalog() do print(name, code) end") == [
        ["Parts", "test_parts()"]
    ]
    bench.unit.message("digio.writeport(0) digio.writeprotect = 2 digio.writeport(7)")
    assert bench.ask("print(digio.readport())") == [["5.00000e+00"]]


def test_errors_are_read_from_the_queue_or_shown_at_once() -> None:
    bench = Bench("2614B")
    unit = bench.unit
    unit.message("localnode.prompts = 1 localnode.showerrors = 0")
    unit.message("for x = 1, 4 do smua.measure.autozero = x end smua.source.rangev = 6e7")
    told = unit.message(
        "print(errorqueue.count) for k = 1, errorqueue.count do local code, text, severity ="
        " errorqueue.next() print(string.format('%d %s %g', code, text, severity)) end"
    )
    assert told == (
        b"3.00000e+00\n1101 Parameter Too Big 20\n1101 Parameter Too Big 20\n"
        b"1101 Parameter Too Big 20\nTSP>"
    )
    unit.message("localnode.showerrors = 1")
    assert unit.message("smua.measure.filter.type = 6") == b"1101, Parameter Too Big\nTSP>"


DIODE = """
function sweep(smux, first, last, step, range, limit, settle, nplc, irange)
  if smux == nil then smux = smua end
  smux.reset()
  if smux == smua then display.screen = display.SMUA elseif smux == smub then display.screen = 1 end
  for _, buffer in {smux.nvbuffer1, smux.nvbuffer2} do
    buffer.clear() buffer.appendmode = 1 buffer.collecttimestamps = 1
  end
  local points = math.ceil(math.abs((last - first) / step) + 1)
  if last < first then step = -math.abs(step) end
  if range == nil then smux.source.autorangev = smux.AUTORANGE_ON
  else smux.source.rangev = range end
  smux.source.limiti = limit
  smux.source.func = smux.OUTPUT_DCVOLTS
  if irange == nil then smux.measure.autorangei = smux.AUTORANGE_ON
  else smux.measure.rangei = irange end
  smux.measure.nplc = nplc
  smux.measure.autozero = smux.AUTOZERO_ONCE
  smux.source.output = smux.OUTPUT_ON
  for i = 1, points do
    smux.source.levelv = first + (i - 1) * step
    delay(settle)
    smux.measure.iv(smux.nvbuffer1, smux.nvbuffer2)
  end
  return smux.nvbuffer1, smux.nvbuffer2
end
"""


@pytest.mark.parametrize("model", ["2602B", "2614B", "2636B"])
def test_a_staircase_in_lua_returns_its_buffers(model: str) -> None:
    bench = Bench(model)
    bench.load("diode", DIODE)
    bench.unit.message("amps, volts = sweep(nil, 0.5, -0.5, 0.25, nil, 0.01, 1e-3, 0.1)")
    ((line,),) = bench.ask("printbuffer(1, amps.n, amps, volts)")
    amps, volts = np.fromstring(line, sep=",").reshape(-1, 2).T
    np.testing.assert_allclose(volts, [0.5, 0.25, 0, -0.25, -0.5], atol=1e-3)
    np.testing.assert_allclose(amps, volts / OHMS["a"], atol=2e-6)
