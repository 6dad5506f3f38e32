"""Keysight (Agilent) InfiniiVision X-Series oscilloscopes: DSOX and MSOX of the 2000, 3000, 3000T
and 4000 series (SCPI).

Pages that were opened of the makers' "InfiniiVision X-Series Oscilloscopes Programmer's Guide".
2000 X-Series: `:AER?` (page 152), sweep NORMal and AUTO (589), WORD data left-shifted to 16 bits
(633), the ten fields of `:WAVeform:PREamble?` and 65536 steps of WORD data (644). 3000 X-Series:
`:AER?` (192). 3000T: `:TER?` (229). 4000 X-Series: `:TER?` (296), `:WAVeform:DATA?` as a
definite-length block whose values 0, 1 and 0xFFFF say hole, clipped low and clipped high (1243),
settings after `*RST` (1400), error queue (1570), bit 3 of `:OPERegister:CONDition?` while an
acquisition runs, and that `:SINGle` makes the sweep NORMal (1603). "4000 X-Series Oscilloscopes
Service Guide", page 52: time base to 10 ppm. Data sheet of a DSOX2024A (public copy): 200 MHz, 1
GSa/s and 100 kpts a channel, 1 Mohm, 1 mV to 5 V a division. Coupling, offset, probe (0.1 to
10000), range (8 mV to 40 V at 1:1), time base (reference, position, range) and points mode are as
in PyMeasure 0.16.0 (keysightDSOX1102G.py).

`SHEETS` has what each model stands on. `unverified`: `:CHANnel:IMPedance ONEMeg|FIFTy`, at 50 ohm
8 V of screen at most; `:TRIGger[:EDGE]` source, slope, level; accuracy of volts (2 % of the whole
screen; 4 % of a 2000) and, of other series than the 4000, of times (50 ppm); bandwidths, by the
two digits of the name (00 to 15: 70 MHz to 1.5 GHz), sampling rates and memories of the 3000 and
4000 series (programs that use them say 4 and 5 GSa/s, 4 Mpts; half of both is taken, as two
channels may be on); that a block is followed by the reply of `:SYSTem:ERRor?` behind ";".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar, get_args

import numpy as np
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import ModelSheet
from rram_hil.hardware.oscilloscope import (
    Coupling,
    Oscilloscope,
    ScopeLimits,
    ScopeSetup,
    ScopeTrigger,
    Waveform,
)
from rram_hil.types import FloatArray
from rram_hil.wire.dialog import number

from .dialects.makers import INFINIIVISION
from .dialects.scpi import ScpiInstrument, floats
from .dialects.text import number_in

HERTZ = {
    "00": 70e6,
    "01": 100e6,
    "02": 200e6,
    "03": 350e6,
    "05": 500e6,
    "10": 1e9,
    "15": 1.5e9,
}
"""Bandwidth by the two digits after the series'."""
CODES = {
    "2A": ("00", "01", "02"),
    "3A": ("01", "02", "03", "05", "10"),
    "3T": ("01", "02", "03", "05", "10"),
    "4A": ("02", "03", "05", "10", "15"),
}
SAMPLES = {"2": (1e9, 100_000), "3": (2e9, 2_000_000), "4": (2.5e9, 2_000_000)}
"""Samples a second and most samples of one channel while others are on, by series."""
NOT_MADE = {"3022A", "4102A", "4152A"}
MODELS = tuple(
    f"{kind}SOX{name}"
    for series, codes in CODES.items()
    for name in (f"{series[0]}{code}{channels}{series[1]}" for code in codes for channels in "24")
    if name not in NOT_MADE
    for kind in "DM"
)
SMALLEST_RANGE_V, LARGEST_RANGE_V = 8e-3, 40.0
LARGEST_50_OHM_V = 8.0
HIGH_OHM, LOW_OHM = 1e6, 50.0
LEAST_SAMPLES = 100
PROBES = (0.1, 1e4)
RUNNING = 8
"""Bit of the operation status condition register while an acquisition runs."""
HOLE, CLIPPED_LOW, CLIPPED_HIGH = 0x0000, 0x0001, 0xFF00
"""What 16-bit values say that are no volts: the last of them and all above it, where 8 bits end."""
PAUSE_S = 0.01
MOST_ASKED = 100
"""How often it is asked whether it waits for its trigger."""

_GUIDE = "commands: InfiniiVision X-Series Programmer's Guides (pages in the driver's docstring)"
_NAMES = "models: list of Keysight's IVI driver for 2000, 3000 and 4000 X-Series"
_SETTINGS = "channel and time base: source of PyMeasure 0.16.0 (keysightDSOX1102G.py)"
_UNVERIFIED = (
    "input impedance and its ranges",
    "trigger source, slope and level",
    "accuracy of volts",
    "that the error entry follows a block",
)


def _sheet(model: str) -> ModelSheet:
    """What a model stands on."""
    own, doubtful = {
        "2": (
            ("sampling, memory, ranges, 1 Mohm: data sheet of the DSOX2024A",),
            ("bandwidths other than 200 MHz", "accuracy of times"),
        ),
        "3": ((), ("bandwidth, sampling, memory", "accuracy of times")),
        "4": (
            ("time base: 4000 X-Series Service Guide, page 52",),
            ("bandwidth, sampling, memory",),
        ),
    }[model[4]]
    return ModelSheet((_GUIDE, _NAMES, _SETTINGS, *own), (*_UNVERIFIED, *doubtful))


class KeysightInfiniiVision(ScpiInstrument, Oscilloscope):
    """Two or four channels "1" to "4". One record at a time, armed and looked for by polling, so
    that a trigger that never comes ends in a word, not in a timeout.
    """

    MAKER = "Keysight"
    MAKERS = INFINIIVISION
    MODELS: ClassVar[tuple[str, ...]] = MODELS
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {model: _sheet(model) for model in MODELS}
    NEAR = r"[DM]SOX[234]\d\d[24][A-Z]"

    @override
    def plain_model(self, told: str) -> str:
        """As `MODELS` has it: "DSO-X 3054A" is DSOX3054A."""
        return super().plain_model(told).replace("-", "").replace(" ", "")

    @property
    @override
    def channels(self) -> tuple[str, ...]:
        return ("1", "2", "3", "4")[: int(self.model[-2])]

    @override
    def limits(self, channel: str) -> ScopeLimits:
        self._known(channel)
        series = self.model[4]
        samples_per_s, most_samples = SAMPLES[series]
        return ScopeLimits(
            smallest_range_v=SMALLEST_RANGE_V,
            largest_range_v=LARGEST_RANGE_V,
            inputs=(HIGH_OHM,) if series == "2" else (HIGH_OHM, LOW_OHM),
            bandwidth_hz=HERTZ[self.model[5:7]],
            samples_per_s=samples_per_s,
            most_samples=most_samples,
            gain_fraction=0.04 if series == "2" else 0.02,
            time_fraction=1e-5 if series == "4" else 5e-5,
        )

    @override
    def arm(self) -> None:
        """Reset and stopped."""
        self.send("*CLS")
        self.send("*RST", ":STOP", takes_s=2.0)
        self.send(":ACQ:TYPE NORM", ":TIM:MODE MAIN", ":TIM:REF CENT", ":TRIG:MODE EDGE")
        if not self.is_off():
            raise InstrumentError(f"{self.name}: it acquires after a reset and a stop")

    @override
    def switch_off(self) -> None:
        """Wait for no trigger any more."""
        self.send(":STOP")

    @override
    def is_off(self) -> bool:
        return not self._status() & RUNNING

    @override
    def configure(self, channel: str, setup: ScopeSetup) -> None:
        self._check(channel, setup)
        head = f":CHAN{channel}"
        self.send(
            f"{head}:DISP ON",
            # The probe comes first: it changes what all volts mean.
            f"{head}:PROB {number(setup.probe)}",
            f"{head}:COUP {setup.coupling}",
            *(
                ()
                if len(self.limits(channel).inputs) == 1
                else (f"{head}:IMP {'FIFT' if setup.input_ohm == LOW_OHM else 'ONEM'}",)
            ),
            f"{head}:RANG {number(setup.range_v)}",
            f"{head}:OFFS {number(setup.offset_v)}",
        )

    @override
    def settings(self, channel: str) -> ScopeSetup:
        self._known(channel)
        questions = ["RANG?", "OFFS?", "PROB?", "COUP?"]
        questions += ["IMP?"] if len(self.limits(channel).inputs) > 1 else []
        words = self.ask(*(f":CHAN{channel}:{q}" for q in questions)).split(";")
        inputs = {"ONEM": HIGH_OHM, "FIFT": LOW_OHM}
        if (
            len(words) != len(questions)
            or words[3] not in get_args(Coupling)
            or words[-1] not in (*inputs, words[3])
        ):
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {words!r} are not the settings that were asked for")
        range_v, offset_v, probe = (number_in(word, self.name) for word in words[:3])
        coupling: Coupling = "DC" if words[3] == "DC" else "AC"
        return ScopeSetup(range_v, offset_v, coupling, inputs.get(words[-1], HIGH_OHM), probe)

    @override
    def await_trigger(self, trigger: ScopeTrigger) -> None:
        self._known(trigger.channel)
        if not trigger.span_s > 0:
            raise ConfigError(f"span_s: {trigger.span_s:g} s is no time")
        source = f"CHAN{trigger.channel}"
        self.send(
            ":STOP",
            f":TIM:RANG {number(trigger.span_s)}",
            f":TIM:POS {number(trigger.middle_s)}",
            ":TRIG:SWE NORM",
            f":TRIG:EDGE:SOUR {source}",
            ":TRIG:EDGE:COUP DC",
            f":TRIG:EDGE:SLOP {'POS' if trigger.rising else 'NEG'}",
            f":TRIG:EDGE:LEV {number(trigger.level_v)},{source}",
        )
        # Both registers are cleared by reading them: what they tell later is of this record.
        *_, is_waiting = self.ask(":TER?", ":AER?", ":SING", ":AER?").split(";")
        for _ in range(MOST_ASKED):
            if number_in(is_waiting, self.name):
                return
            time.sleep(PAUSE_S)
            is_waiting = self.ask(":AER?")
        self.send(":STOP")
        raise InstrumentError(f"{self.name}: it does not come to wait for a trigger after :SINGle")

    @override
    def record(self, channel: str, samples: int, wait_s: float) -> Waveform:
        """The record, in one block of 16-bit values; asked for once more where the reply is lost,
        for it stays in the scope's memory.
        """
        self._known(channel)
        if not samples >= LEAST_SAMPLES:
            raise ConfigError(f"samples: {samples} is below {LEAST_SAMPLES}")
        for _ in range(1 + int(wait_s / PAUSE_S)):
            if not self._status() & RUNNING:
                break
            time.sleep(PAUSE_S)
        else:
            is_triggered = number_in(self.ask(":TER?"), self.name)
            self.send(":STOP")
            raise InstrumentError(
                f"{self.name}: channel {channel}: "
                + (
                    f"its record did not end within {wait_s:g} s after a trigger"
                    if is_triggered
                    else f"never triggered: no edge came within {wait_s:g} s"
                )
            )
        try:
            return self._fetched(channel, samples)
        except LinkError:
            return self._fetched(channel, samples)

    def _fetched(self, channel: str, samples: int) -> Waveform:
        asked = self.ask(
            f":WAV:SOUR CHAN{channel}",
            ":WAV:FORM WORD",
            ":WAV:BYT LSBF",
            ":WAV:UNS ON",
            ":WAV:POIN:MODE RAW",
            f":WAV:POIN {samples}",
            ":WAV:PRE?",
        )
        told = floats(asked)
        if told.size != 10 or told[0] != 1:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {asked[:60]!r} is no preamble of 16-bit values")
        count, (step_s, origin_s, at, digit_v, origin_v, middle) = int(told[2]), told[4:]
        data = self.ask_block(":WAV:DATA?")
        if len(data) != 2 * count:
            self.dialog.out_of_step()
            raise LinkError(f"{self.name}: {len(data)} bytes are no {count} values of 16 bits")
        codes = np.frombuffer(data, "<u2")
        self._refuse_what_is_no_volts(channel, codes)
        volts: FloatArray = (codes.astype(np.float64) - middle) * digit_v + origin_v
        # Eight bits are left-shifted to sixteen: what is 0 in all values is no digit.
        unused = np.bitwise_or.reduce(codes, initial=0)
        finest = float(digit_v * max(1, int(unused) & -int(unused)))
        return Waveform(volts, float(origin_s - at * step_s), float(step_s), finest)

    def _refuse_what_is_no_volts(self, channel: str, codes: np.ndarray) -> None:
        """Raise `InstrumentError` for holes and for what is beyond the screen."""
        for what, wrong in (
            ("has no data in", codes == HOLE),
            ("is clipped at the bottom of the screen in", codes == CLIPPED_LOW),
            ("is clipped at the top of the screen in", codes >= CLIPPED_HIGH),
        ):
            if wrong.any() or not codes.size:
                raise InstrumentError(
                    f"{self.name}: channel {channel} {what} {int(wrong.sum())} of {codes.size}"
                    " samples"
                )

    def _status(self) -> int:
        return int(number_in(self.ask(":OPER:COND?"), self.name))

    def _known(self, channel: str) -> None:
        if channel not in self.channels:
            raise ConfigError(
                f"channel: {channel!r} is none of {', '.join(self.channels)} of the {self.model}"
            )

    def _check(self, channel: str, setup: ScopeSetup) -> None:
        """Raise `ConfigError` for settings that the channel has not."""
        limits = self.limits(channel)
        if setup.input_ohm not in limits.inputs:
            there = " or ".join(f"{ohm:g}" for ohm in limits.inputs)
            raise ConfigError(f"input_ohm: {setup.input_ohm:g} ohm: a {self.model} has {there} ohm")
        if setup.coupling not in get_args(Coupling):
            raise ConfigError(f"coupling: {setup.coupling!r} is neither DC nor AC")
        if not PROBES[0] <= setup.probe <= PROBES[1]:
            raise ConfigError(f"probe: {setup.probe:g} is not {PROBES[0]:g} to {PROBES[1]:g}")
        largest_v = LARGEST_50_OHM_V if setup.input_ohm == LOW_OHM else limits.largest_range_v
        low, high = limits.smallest_range_v * setup.probe, largest_v * setup.probe
        if not low * (1 - 1e-9) <= setup.range_v <= high * (1 + 1e-9):
            raise ConfigError(f"range_v: {setup.range_v:g} V is not {low:g} to {high:g} V")
        if not abs(setup.offset_v) <= high:
            raise ConfigError(f"offset_v: {setup.offset_v:g} V is beyond {high:g} V")
