"""Keysight (Agilent) 33500A, 33500B and 33600A waveform generators as pulse generators (SCPI).

Times, terminations and triggers of the 33500A and 33500B are from the "Agilent 33500 Series
Operating and Service Guide": "Pulse Waveforms" (page 69: width 16 ns and more, 20 ns for edges
above 8.4 ns), "Output Termination" (page 61: 1 ohm to 10 kohm or infinite; 10 Vpp into 50 ohm are
20 Vpp open), "BURSt Subsystem" (page 177), "TRIGger Subsystem" (page 318: `*OPC?` answers when the
burst is complete). Shortest period 33 ns, longest edge 1 us, burst count and DAC codes -32767 to
32767 (8 to 65536 points) are as in PyMeasure 0.16.0 (agilent33500.py). `SHEETS` has what each
model stands on. Unverified: the smallest amplitude (1 mVpp into 50 ohm), how edges limit width and
period (0.625 of both edges), `TRIGger[1|2]` as the trigger of one channel, that inversion is about
the offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.instrument import (
    NOT_A_READING,
    InstrumentConfig,
    ModelSheet,
    PulseGenerator,
    PulseLimits,
    PulseSetup,
)
from rram_hil.wire.dialog import number
from rram_hil.wire.recording import Traffic

from .dialects.makers import SERIES_33500
from .dialects.scpi import ScpiInstrument, floats

OUTPUT_OHM = 50.0
MOST_OPEN_V = 10.0
SMALLEST_OPEN_V = 2e-3
EDGE_SHARE = 0.625
"""Of the two edges together: what width and period must leave room for (10 % to 90 % edges, widths
from half to half).
"""
FINE_EDGE_WIDTH_S = 20e-9
"""Below this width a 33500B has its shortest edges only."""
HERTZ = {
    "33509B": 20e6,
    "33510B": 20e6,
    "33511B": 20e6,
    "33512B": 20e6,
    "33519B": 30e6,
    "33520B": 30e6,
    "33521A": 30e6,
    "33522A": 30e6,
    "33521B": 30e6,
    "33522B": 30e6,
    "33611A": 80e6,
    "33612A": 80e6,
    "33621A": 120e6,
    "33622A": 120e6,
}
TWO_CHANNELS = ("33510B", "33512B", "33520B", "33522A", "33522B", "33612A", "33622A")
NO_ARBITRARY = ("33509B", "33510B", "33519B", "33520B")
MOST_SAMPLES = 65536
_TABLE = "channels, highest frequency, arbitrary waveforms: source of gotmc/ivi (kt33000)"
_GUIDE = (
    "widths, edges, terminations, bursts, triggers: Agilent 33500 Series Operating and Service"
    " Guide, pages 61, 69, 177, 318"
)
_QCODES = "channels, highest frequency: source of QCoDeS 0.58"
_UNVERIFIED = (
    "smallest amplitude",
    "how edges limit widths",
    "TRIGger1 and TRIGger2 as the triggers of single channels",
    "inversion about the offset",
)
_IN_QCODES = ("33510B", "33511B", "33512B", "33522B", "33611A", "33622A")


def _sheet(model: str) -> ModelSheet:
    """What a model stands on."""
    fast = model.startswith("336")
    documents = (
        *(() if fast else (_GUIDE,)),
        "shortest period, longest edge, counts, codes: source of PyMeasure 0.16",
        _TABLE,
        *((_QCODES,) if model in _IN_QCODES else ()),
        *(
            ("highest frequency: source of PyMeasure 0.16.0 (agilent33521A.py)",)
            if model == "33521A"
            else ()
        ),
    )
    own = (
        ("shortest width (5 ns) and edge (2.9 ns)", "commands (those of the 33500)")
        if fast
        else ("that it has every command of a B model",)
        if model.endswith("A")
        else ()
    )
    return ModelSheet(documents, (*own, *_UNVERIFIED))


class Keysight33500(ScpiInstrument, PulseGenerator):
    """One or two channels "1", "2". Each waits in a triggered burst for `fire`; between pulses it
    rests at the low level.

    A pulse below its rest level (`high_v` < `low_v`) is given by inverting the output.
    """

    MAKER = "Keysight"
    MAKERS = SERIES_33500
    MODELS: ClassVar[tuple[str, ...]] = tuple(HERTZ)
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {model: _sheet(model) for model in HERTZ}
    NEAR = r"33(?:50[4-9]|5[1-3]\d|6[1-3]\d)[A-Z]"

    def __init__(self, config: InstrumentConfig, traffic: Traffic | None = None) -> None:
        super().__init__(config, traffic)
        self._cycle_s: dict[str, float] = {}

    @property
    @override
    def channels(self) -> tuple[str, ...]:
        return ("1", "2") if self.model in TWO_CHANNELS else ("1",)

    @override
    def limits(self, channel: str) -> PulseLimits:
        self._known(channel)
        fast = self.model.startswith("336")
        shortest_period_s = 1.0 / HERTZ[self.model]
        return PulseLimits(
            max_open_v=MOST_OPEN_V,
            max_50_ohm_v=MOST_OPEN_V / 2,
            shortest_s=5e-9 if fast else 16e-9,
            longest_s=1e6 - 1.0,
            shortest_edge_s=2.9e-9 if fast else 8.4e-9,
            longest_edge_s=1e-6,
            shortest_period_s=shortest_period_s,
            most_pulses=100_000,
        )

    @override
    def arm(self) -> None:
        self._cycle_s = {}
        self.send("*CLS", *(f":OUTP{c} OFF" for c in self.channels), ":ABOR")
        self.send("*RST", *(f":OUTP{c} OFF" for c in self.channels), takes_s=2.0)
        if not self.is_off():
            raise InstrumentError(f"{self.name}: an output is on after a reset")

    @override
    def switch_off(self) -> None:
        """Outputs off first, then bursts given up."""
        self.send(*(f":OUTP{c} OFF" for c in self.channels), ":ABOR")

    @override
    def is_off(self) -> bool:
        reply = self.ask(*(f":OUTP{c}?" for c in self.channels))
        return all(word.strip() == "0" for word in reply.split(";"))

    @override
    def configure(self, channel: str, setup: PulseSetup) -> None:
        """Set the channel up. Levels are those at a load of `load_ohm`: into another load they are
        others.
        """
        self._check(channel, setup)
        c = channel
        self._cycle_s.pop(c, None)
        self.send(
            f":SOUR{c}:FUNC PULS",
            *self._waiting(c),
            *self._levels(c, setup.high_v, setup.low_v, setup.load_ohm),
            f":SOUR{c}:FUNC:PULS:HOLD WIDT",
            # From the shortest pulse, so that no intermediate setting is in the way of another.
            f":SOUR{c}:FUNC:PULS:TRAN:BOTH MIN",
            f":SOUR{c}:FUNC:PULS:WIDT MIN",
            f":SOUR{c}:FUNC:PULS:PER {number(setup.period_s)}",
            f":SOUR{c}:FUNC:PULS:WIDT {number(setup.width_s)}",
            f":SOUR{c}:FUNC:PULS:TRAN:LEAD {number(setup.edge_s)}",
            f":SOUR{c}:FUNC:PULS:TRAN:TRA {number(setup.edge_s)}",
        )
        self._cycle_s[c] = setup.period_s

    def configure_arbitrary(
        self,
        channel: str,
        name: str,
        samples: ArrayLike,
        *,
        rate_hz: float,
        high_v: float,
        low_v: float,
        load_ohm: float,
    ) -> None:
        """Send a waveform and make it what `fire` plays: one transaction, samples as a binary block
        of DAC codes.

        `samples` (8 to 65536 numbers, -1 to 1) are levels from `low_v` to `high_v`, `rate_hz` of
        them a second. Other waveforms of the channel are forgotten. It rests at its first sample.
        Raises `ConfigError` for what the channel cannot do.
        """
        self._known(channel)
        if self.model in NO_ARBITRARY:
            raise ConfigError(f"samples: a {self.model} has no arbitrary waveforms")
        if not (
            name.isascii()
            and name.replace("_", "").isalnum()
            and name[0].isalpha()
            and len(name) <= 12
        ):
            raise ConfigError(
                f"name: {name!r} is not 1 to 12 letters, digits and underscores, a letter first"
            )
        values = np.array(samples, dtype=np.float64)
        if (
            values.ndim != 1
            or not 8 <= values.size <= MOST_SAMPLES
            or not (np.abs(values) <= 1).all()
        ):
            raise ConfigError(
                f"samples: 8 to {MOST_SAMPLES} numbers from -1 to 1 are needed, not shape"
                f" {values.shape}"
            )
        if not 1e-6 <= rate_hz <= 250e6:
            raise ConfigError(f"rate_hz: {rate_hz:g} is not 1e-6 to 250e6")
        if not high_v > low_v:
            raise ConfigError(f"high_v: {high_v:g} V is not above low_v, {low_v:g} V")
        self._check_levels(high_v, low_v, load_ohm)
        data = np.round(values * 32767).astype(">i2").tobytes()
        size = str(len(data))
        c = channel
        self._cycle_s.pop(c, None)
        self.send(
            f":SOUR{c}:DATA:VOL:CLE",
            ":FORM:BORD NORM",
            f":SOUR{c}:DATA:ARB:DAC {name},#{len(size)}{size}{data.decode('latin-1')}",
            f":SOUR{c}:FUNC:ARB {name}",
            f":SOUR{c}:FUNC:ARB:FILT OFF",
            f":SOUR{c}:FUNC:ARB:SRAT {number(rate_hz)}",
            f":SOUR{c}:FUNC ARB",
            *self._waiting(c),
            *self._levels(c, high_v, low_v, load_ohm),
            takes_s=len(data) / 1e5,
        )
        self._cycle_s[c] = values.size / rate_hz

    @override
    def settings(self, channel: str) -> PulseSetup:
        self._known(channel)
        c = channel
        polarity, *words = self.ask(
            f":OUTP{c}:POL?",
            f":OUTP{c}:LOAD?",
            *(f":SOUR{c}:{q}" for q in ("VOLT:HIGH?", "VOLT:LOW?")),
            *(f":SOUR{c}:FUNC:PULS:{q}" for q in ("WIDT?", "PER?", "TRAN:LEAD?", "TRAN:TRA?")),
        ).split(";")
        if len(words) != 7 or polarity not in ("NORM", "INV"):
            raise LinkError(
                f"{self.name}: {polarity!r}, {words!r} are not the settings that were asked for"
            )
        load, high, low, width, period, lead, trail = (float(v) for v in floats(",".join(words)))
        if lead != trail:
            raise InstrumentError(
                f"{self.name}: channel {c} has edges of {lead:g} s and {trail:g} s"
            )
        if polarity == "INV":
            high, low = low, high
        return PulseSetup(
            high, low, width, period, lead, float("inf") if load >= NOT_A_READING else load
        )

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch the output; verified by read-back in the same message."""
        self._known(channel)
        if on and channel not in self._cycle_s:
            raise ConfigError(f"channel {channel} of {self.name} has not been configured")
        reply = self.ask(f":OUTP{channel} {'ON' if on else 'OFF'}", f":OUTP{channel}?")
        if reply.strip() != ("1" if on else "0"):
            raise InstrumentError(
                f"{self.name}: output {channel} did not go {'on' if on else 'off'}: {reply!r}"
            )

    @override
    def fire(self, channel: str, count: int) -> None:
        """Give one burst in one transaction, which ends when the burst is complete."""
        most = self.limits(channel).most_pulses
        if not 1 <= count <= most:
            raise ConfigError(f"count: {count} is not 1 to {most} pulses of {self.name}")
        if channel not in self._cycle_s:
            raise ConfigError(f"channel {channel} of {self.name} has not been configured")
        # *TRG would give pulses on both channels.
        trigger = "*TRG" if len(self.channels) == 1 else f":TRIG{channel}"
        reply = self.ask(
            f":SOUR{channel}:BURS:NCYC {count}",
            trigger,
            "*OPC?",
            f":OUTP{channel}?",
            takes_s=count * self._cycle_s[channel],
        )
        if reply.split(";") != ["1", "1"]:
            raise InstrumentError(f"{self.name}: output {channel} is off; its pulses went nowhere")

    def _waiting(self, channel: str) -> Iterable[str]:
        """Commands after which the channel rests until it is triggered."""
        head = f":SOUR{channel}:BURS"
        return (
            f":TRIG{channel}:SOUR BUS",
            f":TRIG{channel}:DEL 0",
            f"{head}:MODE TRIG",
            f"{head}:NCYC 1",
            f"{head}:PHAS 0",
            f"{head}:STAT ON",
        )

    def _levels(self, channel: str, high_v: float, low_v: float, load_ohm: float) -> list[str]:
        """Commands for load and levels, in an order in which the high level is always above the low
        one.
        """
        top, bottom = max(high_v, low_v), min(high_v, low_v)
        head = f":SOUR{channel}:VOLT"
        high, low = f"{head}:HIGH {number(top)}", f"{head}:LOW {number(bottom)}"
        share = _share(load_ohm)
        return [
            # The load comes first: it changes what all levels mean.
            f":OUTP{channel}:LOAD {'INF' if load_ohm == float('inf') else number(load_ohm)}",
            f":OUTP{channel}:POL {'NORM' if high_v > low_v else 'INV'}",
            f"{head}:UNIT VPP",
            f"{head} MIN",
            f"{head}:OFFS 0",
            *((high, low) if top >= SMALLEST_OPEN_V * share / 2 else (low, high)),
        ]

    def _known(self, channel: str) -> None:
        if channel not in self.channels:
            raise ConfigError(
                f"channel: {channel!r} is none of {', '.join(self.channels)} of the {self.model}"
            )

    def _check_levels(self, high_v: float, low_v: float, load_ohm: float) -> None:
        """Raise `ConfigError` for levels that the output does not give into a load."""
        if not (1.0 <= load_ohm <= 1e4 or load_ohm == float("inf")):
            raise ConfigError(f"load_ohm: {load_ohm:g} is not 1 to 1e4 ohm or infinite")
        share = _share(load_ohm)
        for key, value in (("high_v", high_v), ("low_v", low_v)):
            if not abs(value) <= MOST_OPEN_V * share * (1 + 1e-9):
                raise ConfigError(
                    f"{key}: {value:g} V is beyond {MOST_OPEN_V * share:g} V into {load_ohm:g} ohm"
                )
        if not abs(high_v - low_v) >= SMALLEST_OPEN_V * share * (1 - 1e-9):
            raise ConfigError(
                f"high_v: {high_v:g} V and {low_v:g} V are closer than"
                f" {SMALLEST_OPEN_V * share:g} V"
            )

    def _check(self, channel: str, setup: PulseSetup) -> None:
        """Raise `ConfigError` for a pulse that the channel does not make."""
        try:
            self._check_pulse(channel, setup)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: channel {channel}: {error}") from None

    def _check_pulse(self, channel: str, setup: PulseSetup) -> None:
        limits = self.limits(channel)
        self._check_levels(setup.high_v, setup.low_v, setup.load_ohm)
        for key, value, low, high in (
            ("width_s", setup.width_s, limits.shortest_s, limits.longest_s),
            ("edge_s", setup.edge_s, limits.shortest_edge_s, limits.longest_edge_s),
            ("period_s", setup.period_s, limits.shortest_period_s, 1e6),
        ):
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                raise ConfigError(f"{key}: {value:g} s is not {low:g} to {high:g} s ({self.model})")
        edges_s = 2 * EDGE_SHARE * setup.edge_s
        too_fine = limits.shortest_s == 16e-9 and setup.width_s < FINE_EDGE_WIDTH_S * (1 - 1e-9)
        if edges_s > setup.width_s * (1 + 1e-9) or (
            too_fine and setup.edge_s > limits.shortest_edge_s * (1 + 1e-9)
        ):
            raise ConfigError(
                f"edge_s: edges of {setup.edge_s:g} s do not fit a pulse of {setup.width_s:g} s"
            )
        if setup.width_s + max(edges_s, limits.shortest_s) > setup.period_s * (1 + 1e-9):
            raise ConfigError(
                f"period_s: {setup.period_s:g} s is too short for pulses of {setup.width_s:g} s"
            )


def _share(load_ohm: float) -> float:
    """What a load sees of the open-circuit voltage."""
    return 1.0 if load_ohm == float("inf") else load_ohm / (load_ohm + OUTPUT_OHM)
