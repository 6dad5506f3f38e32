"""A simulated Keysight InfiniiVision X-Series oscilloscope, as far as single records of its analog
channels go.

Written from pages of the makers' "InfiniiVision X-Series Oscilloscopes Programmer's Guide" (2000
X-Series: arm event register 152, trigger sweep 589, WORD format 633, preamble 644; 3000T: trigger
event register 229; 4000 X-Series: blocks and their special values 1243, settings after a reset
1400, error queue 1570, run bit and `:SINGle` 1603). Unverified: all reset values but those of
`:WAVeform`, how records are thinned, that the codes span the screen's eight divisions, codes of
errors other than -222. Not simulated: sweep AUTO (`:RUN` waits for ever), `:DIGitize`, averages,
other triggers than edges, digital channels, the wave generator.

A channel sees the volts of the probe that hangs on it through the model's bandwidth (one pole) and
its converter. What would come after now is seen as if nothing more happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from rram_hil.types import FloatArray

from .array.pulse_path import Probe
from .array.terminals import Place
from .scpi.instrument import ILLEGAL, Call, Handler, ScpiError, ScpiInstrument, pair

HERTZ = {
    "00": 70e6,
    "01": 100e6,
    "02": 200e6,
    "03": 350e6,
    "05": 500e6,
    "10": 1e9,
    "15": 1.5e9,
}
SERIES = {
    "2A": "002 004 012 014 022 024",
    "3A": "012 014 024 032 034 052 054 102 104",
    "3T": "012 014 022 024 032 034 052 054 102 104",
    "4A": "022 024 032 034 052 054 104 154",
}
SAMPLES = {"2": (2e9, 100_000), "3": (4e9, 4_000_000), "4": (5e9, 4_000_000)}
"""Samples a second and most samples, one channel on."""
STEPS = 65536
FORMATS = {"BYTE": 0, "WORD": 1}
RUNNING = 8
LOOKS = 4000
"""Moments at which an edge is looked for after a change."""


@dataclass
class _Channel:
    """One input at its reset values."""

    is_shown: bool = False
    range_v: float = 40.0
    offset_v: float = 0.0
    probe: float = 1.0
    coupling: str = "DC"
    impedance: str = "ONEM"


class SimulatedInfiniiVision(ScpiInstrument):
    """Two or four inputs, one record of each."""

    MAKER = "Keysight"
    MODELS: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}SOX{series[0]}{number}{series[1]}"
        for series, numbers in SERIES.items()
        for number in numbers.split()
        for kind in "DM"
    )
    QUEUE = 30
    NO_ERROR = '+0,"No error"'
    OVERFLOW = ScpiError(-350, "Queue overflow")

    def __init__(self, model: str, place: Place) -> None:
        self._inputs: dict[int, _Channel] = {}
        self.is_running = False
        super().__init__(model, place)

    @override
    def identification(self) -> str:
        told = self.pretends or f"{self.model[:3]}-X {self.model[4:]}"
        return f"KEYSIGHT TECHNOLOGIES,{told},{self.place.serial},07.30.2019051434"

    @override
    def reset(self) -> None:
        self._inputs = {c: _Channel() for c in range(1, int(self.model[-2]) + 1)}
        self._inputs[1].is_shown = True
        self.is_running = False
        self._span_s, self._position_s = 1e-3, 0.0
        self._reference, self._mode, self._acquire = "CENT", "MAIN", "NORM"
        self._sweep, self._slope, self._trigger_coupling = "AUTO", "POS", "DC"
        self._trigger_mode, self._source, self._level_v = "EDGE", 1, 0.0
        self._format, self._order, self._unsigned = "BYTE", "MSBF", True
        self._points_mode, self._points, self._seen = "NORM", 1000, 1
        self._armed_s = 0.0
        self._was_armed = self._was_triggered = False
        self._records: dict[int, FloatArray] = {}
        self._scales: dict[int, tuple[float, float]] = {}
        self._first_s = self._step_s = 0.0

    @property
    @override
    def outputs_on(self) -> bool:
        return self.is_running

    # Acquisition

    def _single(self, _: Call) -> None:
        self._sweep = "NORM"
        self._records = {}
        self._armed_s = self.place.bus.clock.now_s
        self.is_running = self._was_armed = True

    def _run(self, _: Call) -> None:
        self._records = {}
        self.is_running = True
        self._armed_s = np.inf

    def _stop(self, _: Call) -> None:
        self.is_running = False

    def _probe(self, number: int) -> Probe | None:
        terminal = self.place.terminal(str(number))
        return terminal if isinstance(terminal, Probe) else None

    def _volts(self, number: int, time_s: FloatArray, pole: float) -> FloatArray:
        """What a channel shows at these moments (virtual s), an open one nothing."""
        probe, channel = self._probe(number), self._inputs[number]
        if probe is None:
            return np.zeros(time_s.shape)
        ohm = 50.0 if channel.impedance == "FIFT" else 1e6
        return probe.shown(time_s, ohm, (complex(pole),))

    def _look(self) -> None:
        """Whether the trigger has come meanwhile: then the record is there."""
        probe = self._probe(self._source)
        if not self.is_running or probe is None:
            return
        pole = -2 * np.pi * HERTZ[self.model[5:7]]
        sign = 1.0 if self._slope == "POS" else -1.0
        for changed_s in probe.path.changed_since(self._armed_s):
            after_s = np.linspace(0.0, probe.path.settles_s, LOOKS)
            above = sign * (probe.path.volts(changed_s + after_s, (complex(pole),)) - self._level_v)
            edge = np.flatnonzero((above[:-1] < 0) & (above[1:] >= 0))
            if edge.size:
                k = int(edge[0])
                share = above[k] / (above[k] - above[k + 1])
                self._take(changed_s + after_s[k] + share * (after_s[1] - after_s[0]), probe, pole)
                return

    def _take(self, trigger_s: float, probe: Probe, pole: float) -> None:
        samples_per_s, most = SAMPLES[self.model[4]]
        step_s = max(1 / samples_per_s, self._span_s / most)
        begin_s = (
            self._position_s
            - self._span_s * {"LEFT": 0.1, "CENT": 0.5, "RIGH": 0.9}[self._reference]
        )
        self._step_s, self._first_s = step_s, begin_s + step_s * probe.phase()
        steps = np.arange(round(self._span_s / step_s), dtype=np.float64)
        time_s = self._first_s + step_s * steps
        self._records = {
            number: self._converted(number, self._volts(number, trigger_s + time_s, pole))
            for number, channel in self._inputs.items()
            if channel.is_shown
        }
        self.is_running = False
        self._was_triggered = True

    def _converted(self, number: int, volts: FloatArray) -> FloatArray:
        """Unsigned codes of 16 bits, the lowest of them not used, shape (n,)."""
        channel, probe = self._inputs[number], self._probe(number)
        bits = 8 if probe is None else probe.errors.bits
        self._scales[number] = channel.range_v, channel.offset_v
        finest = 1 << (16 - bits)
        codes = (volts - channel.offset_v) / channel.range_v * STEPS + STEPS / 2
        rounded = np.round(codes / finest) * finest
        clipped = np.where(rounded < finest, 0x0001, np.where(rounded >= 0xFF00, 0xFFFF, rounded))
        return np.asarray(clipped, dtype=np.float64)

    # Waveforms

    def _thinned(self) -> tuple[FloatArray, int]:
        """The record of the chosen channel, every so many of its samples."""
        record = self._records.get(self._seen, np.zeros(0))
        every = max(1, -(-record.size // max(self._points, 1)))
        return record[::every], every

    def _preamble(self, _: Call) -> str:
        record, every = self._thinned()
        range_v, offset_v = self._scales.get(self._seen, (1.0, 0.0))
        steps = STEPS if self._format == "WORD" else 256
        fields = (
            f"{FORMATS[self._format]:+d},+0,{record.size:+d},+1",
            f"{self._step_s * every:+.8E},{self._first_s:+.8E},+0",
            f"{range_v / steps:+.6E},{offset_v:+.6E},{steps // 2:+d}",
        )
        return ",".join(fields)

    def _data(self, _: Call) -> bytes:
        record, _every = self._thinned()
        if self._format == "BYTE":
            data = np.where(record > 1, record // 256, record).astype(np.uint8).tobytes()
        else:
            data = record.astype("<u2" if self._order == "LSBF" else ">u2").tobytes()
        return f"#8{len(data):08d}".encode() + data

    def _put_points(self, call: Call) -> None:
        self._points = int(call.number(0, 100, 8_000_000))

    def _put_seen(self, call: Call) -> None:
        self._seen = self._channel_named(call.text())
        self._inputs[self._seen].is_shown = True

    # Commands

    def _input(self, call: Call) -> _Channel:
        if call.suffixes[0] not in self._inputs:
            raise ScpiError(-114, "Header suffix out of range")
        return self._inputs[call.suffixes[0]]

    def _channel_named(self, text: str) -> int:
        word = text.strip().upper().replace("CHANNEL", "CHAN")
        number = word.removeprefix("CHAN")
        if not word.startswith("CHAN") or not number.isdigit() or int(number) not in self._inputs:
            raise ILLEGAL
        return int(number)

    def _put_range(self, call: Call) -> None:
        channel = self._input(call)
        high = 8.0 if channel.impedance == "FIFT" else 40.0
        channel.range_v = call.number(0, 8e-3 * channel.probe, high * channel.probe)

    def _put_impedance(self, call: Call) -> None:
        channel = self._input(call)
        word = call.choice(0, "ONEMeg", "FIFTy")
        if word == "FIFT" and self.model[4] == "2":
            raise ILLEGAL
        channel.impedance = word

    def _put_probe(self, call: Call) -> None:
        channel = self._input(call)
        probe = call.number(0, 0.1, 1e4)
        share, channel.probe = probe / channel.probe, probe
        channel.range_v *= share
        channel.offset_v *= share

    def _put_source(self, call: Call) -> None:
        self._source = self._channel_named(call.text())

    def _put_level(self, call: Call) -> None:
        self._level_v = call.number(0, -1e3, 1e3)
        if len(call.arguments) > 1:
            self._source = self._channel_named(call.text(1))

    def _asked_status(self, _: Call) -> str:
        self._look()
        return f"{RUNNING if self.is_running else 0:+d}"

    def _armed(self, _: Call) -> str:
        was, self._was_armed = self._was_armed, False
        return f"{was:+d}"

    def _triggered(self, _: Call) -> str:
        self._look()
        was, self._was_triggered = self._was_triggered, False
        return f"{was:+d}"

    @override
    def shown(self, value: object) -> str:
        return f"{value:+.6E}" if isinstance(value, float) else super().shown(value)

    @override
    def commands(self) -> dict[str, Handler]:
        def own(pattern: str, name: str, *words: str) -> dict[str, Handler]:
            return self.kept(pattern, lambda _: self, name, lambda c: c.choice(0, *words))

        def seconds(pattern: str, name: str, low: float, high: float) -> dict[str, Handler]:
            return self.kept(pattern, lambda _: self, name, lambda c: c.number(0, low, high))

        return {
            ":SINGle": self._single,
            ":RUN": self._run,
            ":STOP": self._stop,
            ":AER?": self._armed,
            ":TER?": self._triggered,
            ":OPERegister:CONDition?": self._asked_status,
            **own(":ACQuire:TYPE", "_acquire", "NORMal"),
            **own(":TIMebase:MODE", "_mode", "MAIN"),
            **own(":TIMebase:REFerence", "_reference", "LEFT", "CENTer", "RIGHt"),
            **seconds(":TIMebase:RANGe", "_span_s", 1e-8, 500.0),
            **seconds(":TIMebase:POSition", "_position_s", -500.0, 500.0),
            **own(":TRIGger:MODE", "_trigger_mode", "EDGE"),
            **own(":TRIGger:SWEep", "_sweep", "AUTO", "NORMal"),
            **own(":TRIGger[:EDGE]:SLOPe", "_slope", "POSitive", "NEGative"),
            **own(":TRIGger[:EDGE]:COUPling", "_trigger_coupling", "DC"),
            **pair(":TRIGger[:EDGE]:SOURce", self._put_source, lambda _: f"CHAN{self._source}"),
            **pair(":TRIGger[:EDGE]:LEVel", self._put_level, lambda _: f"{self._level_v:+.6E}"),
            **self._channels(),
            **pair(":WAVeform:SOURce", self._put_seen, lambda _: f"CHAN{self._seen}"),
            **own(":WAVeform:FORMat", "_format", "BYTE", "WORD"),
            **own(":WAVeform:BYTeorder", "_order", "LSBFirst", "MSBFirst"),
            **self.kept(":WAVeform:UNSigned", lambda _: self, "_unsigned", Call.switch),
            **own(":WAVeform:POINts:MODE", "_points_mode", "NORMal", "MAXimum", "RAW"),
            **pair(":WAVeform:POINts", self._put_points, lambda _: f"{self._thinned()[0].size:+d}"),
            ":WAVeform:PREamble?": self._preamble,
            ":WAVeform:DATA?": self._data,
        }

    def _channels(self) -> dict[str, Handler]:
        def of(pattern: str, name: str) -> dict[str, Handler]:
            return self.kept(
                f":CHANnel#:{pattern}", self._input, name, lambda c: c.number(0, -1e6, 1e6)
            )

        return {
            **self.kept(":CHANnel#:DISPlay", self._input, "is_shown", Call.switch),
            **pair(
                ":CHANnel#:RANGe",
                self._put_range,
                lambda call: self.shown(self._input(call).range_v),
            ),
            **of("OFFSet", "offset_v"),
            **pair(
                ":CHANnel#:PROBe",
                self._put_probe,
                lambda call: self.shown(self._input(call).probe),
            ),
            **self.kept(
                ":CHANnel#:COUPling", self._input, "coupling", lambda c: c.choice(0, "AC", "DC")
            ),
            **pair(
                ":CHANnel#:IMPedance",
                self._put_impedance,
                lambda call: self._input(call).impedance,
            ),
        }
