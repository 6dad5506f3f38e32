"""Sources that hold bodies and unselected word lines while cells are worked on.

They rise once the relays of a row stand and before any gate does, bodies first, and fall after it,
bodies last. While they stand, only relays of bit and source lines move, which they are not on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from rram_hil.array import Status
from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.hardware.instrument import Function, SourceMeter, SourceSetup

HELD_LIMIT_A = 1e-4
"""Compliance: gates and junctions that block take pA each."""


class HeldLevels:
    """The held channels of a bench, "instrument.channel", in the order in which they rise."""

    def __init__(self, meters: Mapping[str, SourceMeter]) -> None:
        self._meters = meters
        self._on: dict[str, SourceSetup] = {}
        self._up: dict[str, float] = {}

    @property
    def settle_s(self) -> float:
        """How long levels need to rise and fall again."""
        times = (m.limits(_own(c)).settle_s for c, m in self._meters.items())
        return 2 * sum(times)

    def check(self, levels: Mapping[str, float]) -> None:
        """Refuse a level beyond a channel's reach. Raises `ConfigError`."""
        for channel, volts in levels.items():
            most_v = self._meters[channel].limits(_own(channel)).max_v
            if not abs(volts) <= most_v:
                raise ConfigError(f"{channel}: {volts:g} V is beyond its {most_v:g} V")

    def rise(self, levels: Mapping[str, float]) -> None:
        """Bring these channels to their levels (V); the others stay where they are, at zero.

        Raises `InstrumentError` for one that does not reach it.
        """
        for channel, meter in self._meters.items():
            if channel not in levels:
                continue
            volts, own = levels[channel], _own(channel)
            self._ready(channel, volts)
            self._up[channel] = volts
            meter.source(own, volts)
            time.sleep(meter.limits(own).settle_s)
            if volts and meter.measure(own).status[-1] != Status.OK:
                raise InstrumentError(
                    f"{channel}: {volts:g} V is not reached within {HELD_LIMIT_A:g} A: something"
                    " on its line conducts"
                )

    def fall(self) -> None:
        """All back to zero, the last that rose first. Raises as the instruments do."""
        for channel in reversed(self._up):
            meter, own = self._meters[channel], _own(channel)
            meter.source(own, 0.0)
            time.sleep(meter.limits(own).settle_s)
        self._up = {}

    def finish(self) -> None:
        """Outputs off, at zero. Raises as the instruments do."""
        self.fall()
        for channel in reversed(self._on):
            self._meters[channel].output(_own(channel), False)
        self.forget()

    def forget(self) -> None:
        """All outputs were switched off and reset behind this object's back."""
        self._on, self._up = {}, {}

    def _ready(self, channel: str, volts: float) -> None:
        """Configure a channel, at zero, where its settings are others, and switch it on."""
        meter, own = self._meters[channel], _own(channel)
        limits = meter.limits(own)
        range_v = next(r for r in (*limits.voltage_ranges_v, limits.max_v) if r >= abs(volts))
        limit_a = max(HELD_LIMIT_A, limits.smallest_compliance_a)
        times = limits.shortest_aperture_s, limits.settle_s
        setup = SourceSetup(Function.VOLTAGE, limit_a, range_v, None, *times)
        if self._on.get(channel) != setup:
            meter.configure(own, setup)
            if channel not in self._on:
                meter.output(own, True)
            self._on[channel] = setup


def _own(channel: str) -> str:
    """The channel's own name, "a" of "smu.a"."""
    return channel.partition(".")[2]
