"""The pulse generator module of a B1500A: HV-SPGU B1525A, two channels a module, in FLEX.

Documents opened: "Agilent B1500A/B1505A Programming Guide", edition 11: what ends an output,
`SPST?` and the 50 ohm behind it (2-54), `SER` (4-173: 0.1 ohm to 1 Mohm, for which the level is
set), `STGP` (4-189); "Agilent B1500A Semiconductor Device Analyzer Data Sheet", page 19: +-40 V
into an open circuit, +-20 V into 50 ohm, periods to 10 s, from 100 ns where timing is specified,
widths from 50 ns, transitions (10 % to 90 %) from 20 ns at up to 10 V, to 400 ms; overshoot
+-(5 % + 20 mV). `SIM`, `SPRM` (1 to 1000000 pulses), `SPPER`, `SPM`, `SPT`, `SPV`, `SPUPD`, `SRP`,
`SPP` and their queries are as in PyMeasure 0.16 (agilentB1500.py) and QCoDeS 0.58
(message_builder.py, constants.py), `ODSW`, `ALW` and `ALS` as in QCoDeS.

`unverified`: that `SIM` 0 takes channels to 0 V (PyMeasure says so); that `*LRN?` 0 lists channels
as "501"; that `SRP` starts all channels that are on; what `SPT` calls the edges of a pulse; how
edges limit widths and periods (1.25 of one edge, as of a 33500B).

Not used: arbitrary waveforms (`ALW`, `ALS`: tables 2-4 and 2-5 tell their bytes, no document how a
block of them is sent) and the solid-state switch (`ODSW`), which stays off.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import PulseGenerator, PulseLimits, PulseSetup
from rram_hil.wire.dialog import Dialog

from .flex import FlexMainframe, flex_number, packed
from .makers import B1500

SPGU_MODULE = "B1525A"
OUTPUT_OHM = 50.0
LEAST_OHM, MOST_OHM = 0.1, 1e6
"""Of `SER`; an open circuit is told as the largest."""
LIMITS = PulseLimits(
    max_open_v=40.0,
    max_50_ohm_v=20.0,
    shortest_s=50e-9,
    longest_s=10.0 - 1e-7,
    shortest_edge_s=20e-9,
    longest_edge_s=0.4,
    shortest_period_s=100e-9,
    most_pulses=1_000_000,
    overshoot=0.05,
    overshoot_v=0.02,
)
LONGEST_BURST_S = 99.0
"""A command that waits (`PA`) waits no longer."""
EDGE_SHARE = 1.25
"""Of one edge: what a width must have room for."""
RELAY_S = 0.1
PAUSE_S = 0.01
MOST_ASKED = 100
"""How often a burst whose time is over is asked for its end."""


class Spgu(PulseGenerator):
    """Channels of the pulse generator modules ("501", "502": slot 5) of a mainframe, on the
    mainframe's link. The period belongs to all of them; it goes out with each burst.

    While one gives its pulses, others that are on hold their low level.
    """

    MAKER = "Keysight"
    MAKERS = B1500
    MODELS: ClassVar[tuple[str, ...]] = ("B1500A",)
    ZERO: ClassVar[list[str]] = ["SPP", "SIM 0"]
    """Commands after which every channel stands at 0 V."""

    channels: tuple[str, ...] = ()

    def __init__(self, mainframe: FlexMainframe) -> None:
        super().__init__(mainframe.config, mainframe.traffic)
        self._mainframe = mainframe
        self._setups: dict[str, PulseSetup] = {}
        self._on: set[str] = set()
        self._told = ""  # the channel whose mode and period were the last that it was told

    @property
    def dialog(self) -> Dialog:  # type: ignore[override]
        """The mainframe's."""
        return self._mainframe.dialog

    @override
    def connect(self) -> Identity:
        """The mainframe's."""
        return self._mainframe.connect()

    @override
    def arm(self) -> None:
        """The mainframe's: its source-measure channels are reset with it."""
        self._mainframe.arm()

    @override
    def safe_off(self) -> None:
        """The mainframe's: all its channels go off."""
        self._mainframe.safe_off()

    @override
    def is_off(self) -> bool:
        return self._mainframe.is_off()

    @override
    def errors(self) -> list[InstrumentError]:
        return self._mainframe.errors()

    def forget(self) -> None:
        """Every output went off behind its back."""
        self._on.clear()
        self._told = ""

    @override
    def limits(self, channel: str) -> PulseLimits:
        """As the data sheet has them, where its accuracy of timing is stated."""
        if channel not in self.channels:
            there = ", ".join(self.channels)
            raise ConfigError(
                f"{self.name}: channel {channel!r}: "
                + (
                    f"there is {there}"
                    if there
                    else "no pulse generator module is in the mainframe"
                )
            )
        return LIMITS

    @override
    def configure(self, channel: str, setup: PulseSetup) -> None:
        self._check(channel, setup)
        applied = [f"SPUPD {channel}"] if channel in self._on else []
        self._told = channel
        self._mainframe.send(*self._settings(channel, setup), *applied)
        self._setups[channel] = setup

    @override
    def settings(self, channel: str) -> PulseSetup:
        self.limits(channel)
        ask = self._mainframe.dialog.query
        (low, high), (_, width, lead, trail), (period,), (ohm,) = (
            self._numbers(ask(question), count)
            for question, count in (
                (f"SPV? {channel},1", 2),
                (f"SPT? {channel},1", 4),
                ("SPPER?", 1),
                (f"SER? {channel}", 1),
            )
        )
        if lead != trail:
            raise InstrumentError(f"{self.name}: channel {channel} has edges {lead:g}, {trail:g} s")
        return PulseSetup(high, low, width, period, lead, float("inf") if ohm >= MOST_OHM else ohm)

    @override
    def output(self, channel: str, on: bool) -> None:
        """Switch a channel on at its low level, with all that was configured, or off from 0 V."""
        self.limits(channel)
        if not on:
            zero = (f"SPM {channel},0", f"SPV {channel},0,0", f"SPUPD {channel}")
            if channel in self._on:
                self._mainframe.send("SPP", *zero, f"CL {channel}", takes_s=RELAY_S)
            self._on.discard(channel)
            return
        setup = self._configured(channel)
        settings = self._settings(channel, setup)
        self._told = channel
        self._mainframe.send(f"CN {channel}", *settings, f"SPUPD {channel}", takes_s=RELAY_S)
        self._on.add(channel)

    @override
    def fire(self, channel: str, count: int) -> None:
        """Give one burst and ask for its end, then for errors: two transactions if it is short."""
        setup = self._configured(channel)
        lasts_s = count * setup.period_s
        if not 1 <= count <= LIMITS.most_pulses or lasts_s > LONGEST_BURST_S:
            raise ConfigError(
                f"count: {count} pulses: 1 to {LIMITS.most_pulses}, within {LONGEST_BURST_S:g} s"
            )
        if channel not in self._on:
            raise InstrumentError(f"{self.name}: channel {channel}: its output is off")
        mainframe, others = self._mainframe, sorted(self._on - {channel})
        quiet = [
            command
            for other in others
            for command in (
                f"SPM {other},0",
                f"SPV {other},0,{flex_number(self._setups[other].low_v)}",
                f"SPUPD {other}",
            )
        ]
        own = [f"SPM {channel},1", f"SPPER {flex_number(setup.period_s)}", f"SPUPD {channel}"]
        # An earlier burst of another channel, off since, may have left this one quiet, and the
        # period is that of whichever was configured last.
        begin = [*quiet, *(own if self._told != channel else ()), f"SPRM 1,{count}", "SRP"]
        self._told = channel
        *before, message = packed((*begin, "SPST?"))
        with mainframe.dialog.lock:
            for line in before:
                mainframe.dialog.write(line)
            told = mainframe.dialog.query(message, takes_s=lasts_s)
            wait_s = max(PAUSE_S, lasts_s)
            for _ in range(MOST_ASKED):
                if told == "0":
                    break
                told = mainframe.dialog.query(f"PA {flex_number(wait_s)};SPST?", takes_s=wait_s)
                wait_s = PAUSE_S
            if told != "0":
                mainframe.send(*self.ZERO)
            entry = mainframe.dialog.query(mainframe.ERROR_QUERY)
        mainframe.raise_error(entry, ";".join(begin))
        if told != "0":
            raise InstrumentError(f"{self.name}: channel {channel} gives pulses without an end")

    def _configured(self, channel: str) -> PulseSetup:
        self.limits(channel)
        if channel not in self._setups:
            raise ConfigError(f"{self.name}: channel {channel}: configure it first")
        return self._setups[channel]

    @staticmethod
    def _settings(channel: str, setup: PulseSetup) -> list[str]:
        """All settings of a channel, the load first: it says what the levels mean."""
        low, high, period, width, edge = map(
            flex_number, (setup.low_v, setup.high_v, setup.period_s, setup.width_s, setup.edge_s)
        )
        return [
            f"SER {channel},{flex_number(min(setup.load_ohm, MOST_OHM))}",
            f"SPM {channel},1",
            f"SPV {channel},1,{low},{high}",
            f"SPPER {period}",
            f"SPT {channel},1,0,{width},{edge},{edge}",
        ]

    def _numbers(self, reply: str, count: int) -> list[float]:
        words = reply.split(",")
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            self._mainframe.dialog.out_of_step()
            raise LinkError(f"{self.name}: {reply[:60]!r} is no reply of {count} numbers")
        return numbers

    def _check(self, channel: str, setup: PulseSetup) -> None:
        """Raise `ConfigError` for a pulse that the channel does not make."""
        try:
            self._check_pulse(channel, setup)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: channel {channel}: {error}") from None

    def _check_pulse(self, channel: str, setup: PulseSetup) -> None:
        limits, ohm = self.limits(channel), setup.load_ohm
        if not (LEAST_OHM <= ohm <= MOST_OHM or ohm == float("inf")):
            raise ConfigError(f"load_ohm: {ohm:g} is not {LEAST_OHM} to 1e6 ohm or infinite")
        share = 1.0 if ohm == float("inf") else ohm / (ohm + OUTPUT_OHM)
        spans = {
            "high_v": (abs(setup.high_v), 0.0, limits.max_open_v * share, "V"),
            "low_v": (abs(setup.low_v), 0.0, limits.max_open_v * share, "V"),
            "width_s": (setup.width_s, limits.shortest_s, limits.longest_s, "s"),
            "edge_s": (setup.edge_s, limits.shortest_edge_s, limits.longest_edge_s, "s"),
            "period_s": (setup.period_s, limits.shortest_period_s, 10.0, "s"),
        }
        for key, (value, low, high, unit) in spans.items():
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                raise ConfigError(f"{key}: {value:g} {unit} is not {low:g} to {high:g} {unit}")
        edges_s = EDGE_SHARE * setup.edge_s * (1 - 1e-9)
        if not edges_s <= setup.width_s:
            raise ConfigError(
                f"edge_s: edges of {setup.edge_s:g} s do not fit a pulse of {setup.width_s:g} s"
            )
        if not setup.width_s + max(edges_s, 10e-9) <= setup.period_s:
            raise ConfigError(
                f"period_s: {setup.period_s:g} s is too short for pulses of {setup.width_s:g} s"
            )
