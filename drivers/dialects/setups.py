"""What the drivers of source-meters with several channels share: the setup of each channel, and
what is refused before anything is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from rram_hil.array import Status
from rram_hil.errors import BenchError, ConfigError
from rram_hil.hardware.instrument import (
    Function,
    InstrumentConfig,
    Readings,
    SourceMeter,
    SourceSetup,
)
from rram_hil.types import FloatArray
from rram_hil.wire.recording import Traffic


def until_compliance(
    levels: FloatArray, take: Callable[[float], Readings], rest: Callable[[], None], name: str
) -> Readings:
    """Levels one by one, for an instrument that has no word for ending a sweep at compliance: up to
    the first reading that is not OK, then `rest` (level to zero, also after an error).

    `take` forces a level and measures it once; `name` is the instrument, for messages.
    """
    taken: list[Readings] = []
    try:
        for level in levels:
            taken.append(take(float(level)))
            if taken[-1].status[0] != Status.OK:
                break
    except BenchError:
        with contextlib.suppress(BenchError):
            rest()
        raise
    rest()
    columns = ([getattr(r, f) for r in taken] for f in ("volts", "amps", "status", "time_s"))
    return Readings(*map(np.concatenate, columns)).ended(levels.size, name)


class SetupSourceMeter(SourceMeter):
    """A source-meter that keeps what each channel was configured with."""

    OVERRANGE: ClassVar[float] = 1.0
    """Levels go up to this much of a source range."""
    LONGEST_SETTLE_S: ClassVar[float]

    def __init__(self, config: InstrumentConfig, traffic: Traffic | None = None) -> None:
        super().__init__(config, traffic)
        self._setups: dict[str, SourceSetup] = {}

    def _known(self, channel: str) -> None:
        if channel not in self.channels:
            raise ConfigError(
                f"channel: {channel!r} is none of {', '.join(self.channels)} of {self.name}"
            )

    def _setup(self, channel: str) -> SourceSetup:
        self._known(channel)
        if channel not in self._setups:
            raise ConfigError(f"channel {channel} of {self.name} has not been configured")
        return self._setups[channel]

    def _check(self, channel: str, setup: SourceSetup) -> None:
        """Raise `ConfigError` for settings that the channel cannot have."""
        limits = self.limits(channel)
        ranges, compliances = (
            [limits.voltage_ranges_v, limits.current_ranges_a],
            (
                (limits.smallest_compliance_v, limits.max_v),
                (limits.smallest_compliance_a, limits.max_a),
            ),
        )
        of_volts = setup.function is Function.VOLTAGE
        sourced, sensed = ranges if of_volts else ranges[::-1]
        for key, value, low, high in (
            ("compliance", setup.compliance, *compliances[of_volts]),
            ("source_range", setup.source_range, 0.0, sourced[-1]),
            ("measure_range", setup.measure_range, 0.0, sensed[-1]),
            ("aperture_s", setup.aperture_s, limits.shortest_aperture_s, limits.longest_aperture_s),
            ("settle_s", setup.settle_s, 0.0, self.LONGEST_SETTLE_S),
        ):
            if value is not None and not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                raise ConfigError(
                    f"{key}: {value:g} is not {low:g} to {high:g} for channel {channel} of"
                    f" {self.name}"
                )

    def _check_levels(self, channel: str, levels: FloatArray) -> None:
        """Raise `ConfigError` for a level beyond the range or beyond what the channel gives with
        its compliance.
        """
        setup, limits = self._setup(channel), self.limits(channel)
        of_volts = setup.function is Function.VOLTAGE
        ranges = limits.voltage_ranges_v if of_volts else limits.current_ranges_a
        wanted = ranges[-1] if setup.source_range is None else setup.source_range
        full = next((r for r in ranges if r >= wanted * (1 - 1e-9)), ranges[-1])
        largest = float(np.max(np.abs(levels)))  # NaN, where there is one
        if not largest <= full * self.OVERRANGE:
            raise ConfigError(
                f"level: {largest:g} is beyond the range of {full:g} of channel {channel} of"
                f" {self.name}"
            )
        volts, amps = (largest, setup.compliance) if of_volts else (setup.compliance, largest)
        if not limits.allows(volts, amps):
            raise ConfigError(
                f"level: {volts:g} V with {amps:g} A is beyond what channel {channel} of"
                f" {self.name} gives"
                f" ({'; '.join(f'{a:g} A to {v:g} V' for v, a in limits.envelope)})"
            )
