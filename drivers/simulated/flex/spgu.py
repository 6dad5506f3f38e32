"""The pulse generator modules (SPGU, B1525A) of a simulated analyser, on the virtual clock.

After the "Agilent B1500A/B1505A Programming Guide", edition 11 (status and 50 ohm 2-54, `SER`
4-173, `STGP` 4-189), the B1500A's data sheet (page 19: +-40 V behind 50 ohm) and the parameters in
PyMeasure 0.16 and QCoDeS 0.58. `unverified`: initial settings other than `SER` and `STGP`, which
settings are refused together and with which code, what three-level pulses add up to. Not
simulated: arbitrary waveforms (`SIM` 1), the solid-state switch, measurement of the load
(`CORRSER?`), endless output (`SPRM` 0: the base level stands until `SPP`). Edges take no time of
their own: a pulse stands for its width. A counted output is over when the next command is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field

from ..array.terminals import Drive, Place
from .instrument import Call, FlexError, Handler

MODULE = "B1525A"
OUTPUT_OHM = 50.0
MOST_EMF_V = 40.0
MOST_A = 0.8
SWITCH_S = 100e-6


@dataclass
class Setup:
    """What `SPUPD` applies to one channel: `SPM`, `SPV` and `SPT` by source, `SER`."""

    mode: int = 1
    levels: dict[int, tuple[float, float]] = field(
        default_factory=lambda: dict.fromkeys((0, 1, 2), (0.0, 0.0))
    )
    times: dict[int, tuple[float, ...]] = field(
        default_factory=lambda: dict.fromkeys((1, 2), (0.0, 1e-7, 2e-8, 2e-8))
    )
    load_ohm: float = 50.0

    @property
    def sources(self) -> tuple[int, ...]:
        """The pulse sources that the mode uses."""
        return {0: (), 1: (1,), 2: (2,), 3: (1, 2)}[self.mode]

    @property
    def base_v(self) -> float:
        """What stands between pulses."""
        return self.levels[min(self.mode, 2) if self.mode != 3 else 1][0]

    def emf_v(self, volts: float) -> float:
        """What must stand behind the 50 ohm for `volts` at the load that was told."""
        return volts * (self.load_ohm + OUTPUT_OHM) / self.load_ohm

    def steps(self, stretch_s: float) -> Iterable[tuple[float, float]]:
        """Times and changes (V) of one period, whose pulses end `stretch_s` later."""
        for source in self.sources:
            base, peak = self.levels[source]
            delay, width, *_ = self.times[source]
            yield delay, peak - base
            yield delay + width + stretch_s, base - peak


@dataclass
class Channel:
    """One output: whether its switch is closed, what is set, what `SPUPD` has applied."""

    number: int
    is_on: bool = False
    setup: Setup = field(default_factory=Setup)
    applied: Setup = field(default_factory=Setup)
    trigger: int = 0


class SpguModules:
    """All channels of the modules in these slots, by number (501, 502: slot 5)."""

    def __init__(self, place: Place, slots: Iterable[int]) -> None:
        self._place = place
        self._numbers = [100 * slot + k for slot in slots for k in (1, 2)]
        self.reset()

    def reset(self) -> None:
        """What `*RST` does: switches open, all settings initial."""
        self.channels = {n: Channel(n) for n in self._numbers}
        self.period_s = 1e-6
        self.run = (1, 1.0)
        self.is_running = False
        for channel in self.channels.values():
            self._stand(channel)

    def number(self, value: float) -> int | None:
        """The channel that a command's number names (5 is 501); None for another module's."""
        number = int(value) * 100 + 1 if 1 <= value <= 10 else int(value)
        return number if number in self.channels and value == int(value) else None

    def switch(self, number: int, on: bool) -> None:
        """Close or open a channel's switch (`CN`, `CL`); it closes at what is applied."""
        channel = self.channels[number]
        if not on:
            channel.applied = Setup()
        channel.is_on = on
        self._stand(channel)
        self._place.bus.clock.advance(SWITCH_S)

    def commands(self) -> dict[str, tuple[Handler, int, int]]:
        """Headers with their handlers and numbers of parameters."""
        return {
            "SIM": (self._set_mode, 1, 1),
            "SIM?": (lambda _: "0", 0, 0),
            "SPRM": (self._set_run, 1, 2),
            "SPRM?": (lambda _: ",".join(f"{v:.10G}" for v in self.run), 0, 0),
            "SPPER": (self._set_period, 1, 1),
            "SPPER?": (lambda _: f"{self.period_s:.10G}", 0, 0),
            "SPM": (self._set_output, 2, 2),
            "SPM?": (lambda call: str(self._chosen(call).setup.mode), 1, 1),
            "SPV": (self._set_levels, 3, 4),
            "SPV?": (self._levels, 2, 2),
            "SPT": (self._set_times, 5, 6),
            "SPT?": (self._times, 2, 2),
            "SER": (self._set_load, 2, 2),
            "SER?": (lambda call: f"{self._chosen(call).setup.load_ohm:.10G}", 1, 1),
            "STGP": (self._set_trigger, 2, 2),
            "STGP?": (lambda call: str(self._chosen(call).trigger), 1, 1),
            "SPUPD": (self._apply, 0, 10),
            "SRP": (self._start, 0, 0),
            "SPP": (self._stop, 0, 0),
            "SPST?": (lambda _: str(int(self.is_running)), 0, 0),
        }

    def _chosen(self, call: Call) -> Channel:
        number = self.number(call.numbers[0])
        if number is None:
            raise FlexError(121)
        return self.channels[number]

    def _set_mode(self, call: Call) -> None:
        call.integer(0, 0, 0)
        for channel in self.channels.values():
            if channel.is_on:
                channel.applied = Setup()
                self._stand(channel)

    def _set_run(self, call: Call) -> None:
        mode = call.integer(0, 0, 2)
        if mode and len(call.numbers) < 2:
            raise FlexError(103)
        spans = {0: (0.0, 0.0), 1: (1.0, 1e6), 2: (1e-6, 31_556_926.0)}
        condition = call.number(1, *spans[mode]) if mode else 0.0
        if mode == 1:
            call.integer(1, 1, 1_000_000)
        self.run, self.is_running = (mode, condition), False

    def _set_period(self, call: Call) -> None:
        self.period_s = call.number(0, 20e-9, 10.0)

    def _set_output(self, call: Call) -> None:
        self._chosen(call).setup.mode = call.integer(1, 0, 3)

    def _set_levels(self, call: Call) -> None:
        setup, source = self._chosen(call).setup, call.integer(1, 0, 2)
        base = call.number(2, -MOST_EMF_V, MOST_EMF_V)
        peak = call.number(3, -MOST_EMF_V, MOST_EMF_V) if len(call.numbers) > 3 else base
        setup.levels[source] = (base, peak)

    def _levels(self, call: Call) -> str:
        return ",".join(f"{v:.10G}" for v in self._chosen(call).setup.levels[call.integer(1, 0, 2)])

    def _set_times(self, call: Call) -> None:
        setup, source = self._chosen(call).setup, call.integer(1, 1, 2)
        lead = call.number(4, 8e-9, 0.4)
        trail = call.number(5, 8e-9, 0.4) if len(call.numbers) > 5 else lead
        setup.times[source] = (call.number(2, 0, 10.0), call.number(3, 10e-9, 10.0), lead, trail)

    def _times(self, call: Call) -> str:
        return ",".join(f"{v:.10G}" for v in self._chosen(call).setup.times[call.integer(1, 1, 2)])

    def _set_load(self, call: Call) -> None:
        self._chosen(call).setup.load_ohm = call.number(1, 0.1, 1e6)

    def _set_trigger(self, call: Call) -> None:
        self._chosen(call).trigger = call.integer(1, 0, 3)

    def _apply(self, call: Call) -> None:
        numbers = [self.number(n) for n in call.numbers] or list(self.channels)
        for number in numbers:
            if number is None:
                raise FlexError(121)
            channel, setup = self.channels[number], self.channels[number].setup
            if not channel.is_on:
                if call.numbers:
                    raise FlexError(200)
                continue
            ends = [setup.times[s][0] + setup.times[s][1] for s in setup.sources]
            volts = [abs(v) for s in setup.sources or (0,) for v in setup.levels[s]]
            if any(end > self.period_s for end in ends) or setup.emf_v(max(volts)) > MOST_EMF_V * (
                1 + 1e-3
            ):
                raise FlexError(120)
            channel.applied = deepcopy(setup)
            self._stand(channel)

    def _start(self, _: Call) -> None:
        mode, condition = self.run
        if mode == 0:
            self.is_running = True
            return
        count = int(condition) if mode == 1 else int(condition // self.period_s)
        playing = [c for c in self.channels.values() if c.is_on and c.applied.mode]
        clock, period_s = self._place.bus.clock, self.period_s
        stretch_s = [self._place.terminal(str(channel.number)).stretch_s for channel in playing]
        for _period in range(count if playing else 0):
            steps = sorted(
                (at_s, n, change)
                for n, channel in enumerate(playing)
                for at_s, change in channel.applied.steps(stretch_s[n])
            )
            volts = [channel.applied.base_v for channel in playing]
            passed_s = 0.0
            for at_s, n, change in steps:
                clock.advance(at_s - passed_s)
                passed_s = at_s
                volts[n] += change
                self._force(playing[n], volts[n])
            for channel in playing:
                self._stand(channel)
            clock.advance(period_s - passed_s)

    def _stop(self, _: Call) -> None:
        self.is_running = False

    def _stand(self, channel: Channel) -> None:
        """The base level, as between pulses."""
        self._force(channel, channel.applied.base_v)

    def _force(self, channel: Channel, volts: float) -> None:
        """Put onto the terminal what a level comes to there: 50 ohm stand before it."""
        terminal = self._place.terminal(str(channel.number))
        if not channel.is_on:
            terminal.drive(Drive())
            return
        emf_v = channel.applied.emf_v(volts)
        terminal.drive(Drive("voltage", emf_v, MOST_A))
        sensed = terminal.sense() if emf_v else None
        if sensed is not None and sensed.amps:
            ohm = abs(sensed.volts / sensed.amps)
            terminal.drive(Drive("voltage", emf_v * ohm / (ohm + OUTPUT_OHM), MOST_A))
