"""What the bench asks of a digitising oscilloscope: one record of a channel, armed before what is
to be seen happens.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from typing_extensions import override

from rram_hil.hardware.instrument import ChannelInstrument
from rram_hil.types import FloatArray

Coupling = Literal["DC", "AC"]


@dataclass(frozen=True)
class ScopeLimits:
    """What one channel can do. Ranges are the volts of the whole screen at a probe of 1:1, `inputs`
    its input resistances (ohm).

    Volts are right within `gain_fraction` of the whole screen, times within `time_fraction` of
    themselves (half-widths). `rise_s` is the channel's own rise from 10 % to 90 %.
    """

    smallest_range_v: float
    largest_range_v: float
    inputs: tuple[float, ...]
    bandwidth_hz: float
    samples_per_s: float
    most_samples: int
    gain_fraction: float
    time_fraction: float

    @property
    def rise_s(self) -> float:
        """0.35 over the bandwidth."""
        return 0.35 / self.bandwidth_hz


@dataclass(frozen=True)
class ScopeSetup:
    """Settings of one channel: volts of the whole screen and at its middle, at the probe's tip
    (`probe` is its attenuation, 10 for 10:1).
    """

    range_v: float
    offset_v: float = 0.0
    coupling: Coupling = "DC"
    input_ohm: float = 1e6
    probe: float = 1.0


@dataclass(frozen=True)
class ScopeTrigger:
    """A record of `span_s` whose middle lies `middle_s` after the moment in which `channel` crosses
    `level_v`, upwards where `rising`.
    """

    channel: str
    level_v: float
    rising: bool
    span_s: float
    middle_s: float


@dataclass(frozen=True, eq=False)
class Waveform:
    """One record: volts, shape (n,), the first sample `start_s` after the trigger, the others
    `step_s` apart. `digit_v` is one step of the converter.
    """

    volts: FloatArray
    start_s: float
    step_s: float
    digit_v: float

    @property
    def time_s(self) -> FloatArray:
        """Seconds after the trigger, shape (n,)."""
        return np.asarray(self.start_s + self.step_s * np.arange(self.volts.size))


class Oscilloscope(ChannelInstrument[ScopeLimits]):
    """Channels that digitise. It drives nothing: it counts as off while it waits for no trigger."""

    @override
    @classmethod
    def extent(cls, model: str) -> tuple[float, ...]:
        limits = cls.all_limits(model)
        most = max((one.most_samples for one in limits), default=0)
        return max((one.bandwidth_hz for one in limits), default=0.0), most, len(limits)

    @abstractmethod
    def configure(self, channel: str, setup: ScopeSetup) -> None:
        """Set a channel up. Raises as `SourceMeter.configure`."""

    @abstractmethod
    def settings(self, channel: str) -> ScopeSetup:
        """The settings in force, read back."""

    @abstractmethod
    def await_trigger(self, trigger: ScopeTrigger) -> None:
        """Arm one record, and return once the trigger is waited for: what happens from now on is
        seen.

        Raises `ConfigError` for what it cannot do, `InstrumentError` where it does not wait then.
        """

    @abstractmethod
    def record(self, channel: str, samples: int, wait_s: float) -> Waveform:
        """The record that was armed, at most `samples` of it where it can be thinned.

        Raises `InstrumentError` where no trigger came within `wait_s`, or where the channel was
        driven beyond its screen.
        """
