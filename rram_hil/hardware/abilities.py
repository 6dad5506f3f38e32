"""What some instruments can do beyond their contract, so that a bench of them is faster than its
host.

A driver of a bench asks for an ability, never for a class: whatever instrument has it is driven the
same way. Who writes a driver says so by subclassing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import (
    ChannelInstrument,
    Crosspoint,
    Instrument,
    PulseGenerator,
    Readings,
    SourceMeter,
    SourceSetup,
    SwitchMatrix,
)
from rram_hil.types import FloatArray

KindT = TypeVar("KindT", bound=ChannelInstrument[Any])


class RunsScripts(Instrument):
    """Runs Lua with the commands of TSP. Each call is one transaction, which raises what the error
    queue holds afterwards; `takes_s` is how long the code works.
    """

    identity: Identity
    told_model: str
    """The model that it says it is."""

    @abstractmethod
    def run(self, code: str, *, takes_s: float = 0.0) -> None:
        """Run code that prints nothing."""

    @abstractmethod
    def ask(self, code: str, *, takes_s: float = 0.0) -> str:
        """Run code that prints one line: that line."""

    @abstractmethod
    def lines(self, code: str, *, takes_s: float = 0.0) -> list[str]:
        """Run code that prints any number of lines: those lines."""

    @abstractmethod
    def load(self, name: str, script: str) -> None:
        """Load a script as the global `name` and run it once, so that what it defines is there."""


class ScriptedSourceMeter(SourceMeter, RunsScripts):
    """A source-meter whose scripts force and measure, and command other nodes of its TSP-Link.

    In Lua each channel is a table with the attributes of the 2600 series (`source.levelv`,
    `source.rangev`, `source.limiti`, `source.output`, `source.compliance`, `measure.iv`,
    `measure.nplc`, `measure.autorangei`).
    """

    @property
    @abstractmethod
    def line_hz(self) -> float:
        """The mains frequency that the instrument counts apertures in."""

    @abstractmethod
    def lua_name(self, channel: str) -> str:
        """What Lua calls a channel, such as "smua"."""


class ScriptedMatrix(SwitchMatrix, RunsScripts):
    """A matrix whose scripts switch relays (`channel.open`, `channel.close`) and pulse and await
    digital lines (`digio.trigger`).
    """

    @property
    @abstractmethod
    def further_settle_s(self) -> float:
        """How long a script must still wait after a change that the instrument says is done."""

    @abstractmethod
    def names(self, points: Iterable[Crosspoint]) -> list[str]:
        """Channel lists for the instrument's commands, cut so that each fits a line. Raises
        `ConfigError` for a crosspoint that it does not have.
        """


class TriggeredSourceMeter(SourceMeter):
    """A source-meter whose lists advance on one digital line, measure on another, and tell on a
    third when a point is measured.
    """

    @property
    @abstractmethod
    def most_points(self) -> int:
        """Levels that one list holds."""

    @abstractmethod
    def arm_list(
        self,
        levels: Mapping[str, FloatArray],
        *,
        trigger_in: int,
        trigger_out: int,
        measure: Iterable[str] | None = None,
        measure_in: int = 0,
        measure_at: NDArray[np.bool_] | None = None,
        setups: Mapping[str, SourceSetup] = {},
    ) -> None:
        """Start lists on one or more channels, V or A, shape (n,) each; return at once. Outputs
        must be on. `setups` are settings of channels to be configured first, in the same turn.

        A pulse on line `trigger_in` takes the next level; one on `measure_in` measures, at the
        points where `measure_at` (shape (n,)) is True (0: each level is measured as it is taken).
        `trigger_out` is pulsed when all channels that `measure` names (None: all) have measured.
        """

    @abstractmethod
    def fetch(self, points: int, *, takes_s: float | None = None) -> Mapping[str, Readings]:
        """The readings of what `arm_list` started, `points` in all, by channel; levels back at
        zero. `takes_s` is how long the triggers may still take (None: as long as the points).
        """


class WithGenerator(SourceMeter):
    """A source-meter whose link also reaches a pulse generator, in the same mainframe."""

    @property
    @abstractmethod
    def generator(self) -> PulseGenerator:
        """Its channels of pulses, named unlike those that source and measure; none where there is
        no such module. Connecting, arming and switching off are those of the whole instrument.
        """


def on_channel(
    instruments: Mapping[str, Instrument], named: str, kind: type[KindT], refusal: str
) -> KindT:
    """The instrument of this kind whose channel is `named` ("smu" of "smu.a"); a pulse generator
    may stand in a mainframe. Raises `ConfigError`: `refusal`, and the channels that there are.
    """
    parts = {name: part for name, i in instruments.items() if (part := _part(i, kind)) is not None}
    name, _, own = named.partition(".")
    if name not in parts or own not in parts[name].channels:
        there = ", ".join(f"{n}.{c}" for n, part in parts.items() for c in part.channels)
        raise ConfigError(f"{refusal}; there is: {there or 'none'}")
    return parts[name]


def _part(instrument: Instrument, kind: type[KindT]) -> KindT | None:
    """What of an instrument is of this kind."""
    if isinstance(instrument, kind):
        return instrument
    generator = instrument.generator if isinstance(instrument, WithGenerator) else None
    return generator if isinstance(generator, kind) else None


class PulsedSourceMeter(SourceMeter):
    """A source-meter that times pulses itself and measures within them, on several channels at
    once. Channels are configured and on; each rests at `base` (V or A, as configured) before and
    after. A reading has the level that was asked for beside what was measured.
    """

    @abstractmethod
    def pulse(
        self,
        levels: Mapping[str, float],
        *,
        width_s: float,
        period_s: float = 0.0,
        base: float = 0.0,
    ) -> Mapping[str, Readings]:
        """One pulse on each of these channels, together (0 as period: the shortest). Raises
        `ConfigError` for a width, period or level that the channels do not make.
        """

    @abstractmethod
    def pulsed_sweep(
        self,
        ends: Mapping[str, tuple[float, float]],
        points: int,
        *,
        width_s: float,
        period_s: float = 0.0,
        base: float = 0.0,
    ) -> Mapping[str, Readings]:
        """Pulses whose tops go linearly from first to last on each of these channels, together."""

    @abstractmethod
    def joint_sweep(
        self, ends: Mapping[str, tuple[float, float]], points: int
    ) -> Mapping[str, Readings]:
        """Linear staircases of several channels, together; levels back at zero after."""
