"""Factory scripts of the simulated Series 2600B, in Lua: KISweep and the basic part of KIPulse.

Written from their description in the reference manuals (2600S-901-01 Rev. C section 13, pages 13-6
at easymanua.ls; 2600BS-901-01 Rev. C pages 7-36 to 7-48 at manualshive.com): arguments, order of
steps, what is stored where. Unverified: that the output is off after a sweep, the texts that the
pulse functions return.
"""

FACTORY = """
local function prepare(smu, volts)
  smu.nvbuffer1.clear()
  smu.nvbuffer1.appendmode = 1
  smu.nvbuffer1.collectsourcevalues = 1
  smu.nvbuffer1.collecttimestamps = 1
  if volts then smu.source.func = smu.OUTPUT_DCVOLTS else smu.source.func = smu.OUTPUT_DCAMPS end
end

local function sweep(smu, volts, levels, stime, points)
  prepare(smu, volts)
  local biggest = 0
  for n = 1, points do biggest = math.max(biggest, math.abs(levels[n])) end
  if volts then
    smu.source.levelv = 0
    smu.source.rangev = biggest
  else
    smu.source.leveli = 0
    smu.source.rangei = biggest
  end
  smu.source.output = smu.OUTPUT_ON
  for n = 1, points do
    if volts then smu.source.levelv = levels[n] else smu.source.leveli = levels[n] end
    delay(stime)
    if volts then smu.measure.i(smu.nvbuffer1) else smu.measure.v(smu.nvbuffer1) end
  end
  smu.source.output = smu.OUTPUT_OFF
end

local function linear(start, stop, points)
  local levels = {}
  for n = 1, points do levels[n] = start + (n - 1) * (stop - start) / (points - 1) end
  return levels
end

local function logarithmic(start, stop, points)
  local levels = {}
  local first, last = math.log10(start), math.log10(stop)
  for n = 1, points do levels[n] = 10 ^ (first + (n - 1) * (last - first) / (points - 1)) end
  return levels
end

function SweepVLinMeasureI(smu, startv, stopv, stime, points)
  sweep(smu, true, linear(startv, stopv, points), stime, points)
end
function SweepILinMeasureV(smu, starti, stopi, stime, points)
  sweep(smu, false, linear(starti, stopi, points), stime, points)
end
function SweepVLogMeasureI(smu, startv, stopv, stime, points)
  sweep(smu, true, logarithmic(startv, stopv, points), stime, points)
end
function SweepILogMeasureV(smu, starti, stopi, stime, points)
  sweep(smu, false, logarithmic(starti, stopi, points), stime, points)
end
function SweepVListMeasureI(smu, vlist, stime, points)
  sweep(smu, true, vlist, stime, points)
end
function SweepIListMeasureV(smu, ilist, stime, points)
  sweep(smu, false, ilist, stime, points)
end

local pulses = {}

local function configure(smu, volts, bias, levels, limit, ton, toff, points, buffer, tag)
  if points < 1 then return false, "Illegal number of points" end
  if ton <= 0 or toff <= 0 then return false, "Illegal pulse times" end
  if buffer ~= nil and ton < smu.measure.nplc / localnode.linefreq then
    return false, "ton is too short for the measurement time"
  end
  pulses[tag] = {smu = smu, volts = volts, bias = bias, levels = levels, limit = limit,
                 ton = ton, toff = toff, points = points, buffer = buffer}
  return true, "Setup successful"
end

local function run(tag)
  local p = pulses[tag]
  if p == nil then return false, "No pulse test is configured under this tag" end
  local smu = p.smu
  if smu.source.output ~= smu.OUTPUT_ON then return false, "The output is off" end
  if p.volts then
    smu.source.func = smu.OUTPUT_DCVOLTS
    smu.source.limiti = p.limit
  else
    smu.source.func = smu.OUTPUT_DCAMPS
    smu.source.limitv = p.limit
  end
  if p.buffer ~= nil then
    p.buffer.clear()
    p.buffer.appendmode = 1
  end
  local wait = p.ton
  if p.buffer ~= nil then wait = p.ton - smu.measure.nplc / localnode.linefreq end
  for n = 1, p.points do
    if p.volts then smu.source.levelv = p.levels[n] else smu.source.leveli = p.levels[n] end
    delay(wait)
    if p.buffer ~= nil then
      if p.volts then smu.measure.i(p.buffer) else smu.measure.v(p.buffer) end
    end
    if p.volts then smu.source.levelv = p.bias else smu.source.leveli = p.bias end
    delay(p.toff)
  end
  return true, "Test successful"
end

local function same(level, points)
  local levels = {}
  for n = 1, points do levels[n] = level end
  return levels
end

function ConfigPulseVMeasureI(smu, bias, level, limit, ton, toff, points, buffer, tag)
  return configure(smu, true, bias, same(level, points), limit, ton, toff, points, buffer, tag)
end
function ConfigPulseIMeasureV(smu, bias, level, limit, ton, toff, points, buffer, tag)
  return configure(smu, false, bias, same(level, points), limit, ton, toff, points, buffer, tag)
end
function ConfigPulseVMeasureISweepLin(smu, bias, start, stop, limit, ton, toff, points, buffer, tag)
  local levels = linear(start, stop, points)
  return configure(smu, true, bias, levels, limit, ton, toff, points, buffer, tag)
end
function ConfigPulseIMeasureVSweepLin(smu, bias, start, stop, limit, ton, toff, points, buffer, tag)
  local levels = linear(start, stop, points)
  return configure(smu, false, bias, levels, limit, ton, toff, points, buffer, tag)
end
function ConfigPulseVMeasureISweepLog(smu, bias, start, stop, limit, ton, toff, points, buffer, tag)
  local levels = logarithmic(start, stop, points)
  return configure(smu, true, bias, levels, limit, ton, toff, points, buffer, tag)
end
function ConfigPulseIMeasureVSweepLog(smu, bias, start, stop, limit, ton, toff, points, buffer, tag)
  local levels = logarithmic(start, stop, points)
  return configure(smu, false, bias, levels, limit, ton, toff, points, buffer, tag)
end
function InitiatePulseTest(tag)
  return run(tag)
end

local function pulse(smu, volts, bias, level, ton, toff, points)
  prepare(smu, volts)
  if volts then smu.source.levelv = bias else smu.source.leveli = bias end
  smu.source.output = smu.OUTPUT_ON
  for n = 1, points do
    if volts then smu.source.levelv = level else smu.source.leveli = level end
    delay(ton)
    if volts then smu.measure.i(smu.nvbuffer1) else smu.measure.v(smu.nvbuffer1) end
    if volts then smu.source.levelv = bias else smu.source.leveli = bias end
    delay(toff)
  end
  smu.source.output = smu.OUTPUT_OFF
end

function PulseVMeasureI(smu, bias, level, ton, toff, points)
  pulse(smu, true, bias, level, ton, toff, points)
end
function PulseIMeasureV(smu, bias, level, ton, toff, points)
  pulse(smu, false, bias, level, ton, toff, points)
end
"""
