"""What lies between a pulse generator and the pads, and a probe that looks at what arrives there.

The path is linear: a step of the generator arrives as the step response of a pair of poles, whose
damping the overshoot gives, and a probe's input adds poles of its own.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from rram_hil.simulation.config import PulsePathErrors, ScopeErrors
from rram_hil.types import FloatArray

from .terminals import Drive, Sensed, Terminal, VirtualClock

SOURCE_OHM = 50.0
"""Behind every generator's output."""
MOST_CHANGES = 4096
APART = 1.3
"""Two real poles that do not overshoot are so far apart: equal ones have no simple response."""


def poles_of(rise_s: float, overshoot: float) -> tuple[complex, complex]:
    """The pair of poles (1/s) whose step response rises from 10 % to 90 % in `rise_s` and
    overshoots by this part.
    """
    if overshoot > 0:
        log = np.log(overshoot)
        damping = -log / np.hypot(np.pi, log)
        one = complex(-damping, np.sqrt(1 - damping**2))
        pair = one, one.conjugate()
    else:
        pair = complex(-1.0), complex(-APART)
    grid = np.linspace(0.0, 20.0, 20001)
    seen = stepped(pair, grid)
    first, last = (grid[int(np.argmax(seen >= part))] for part in (0.1, 0.9))
    scale = float(last - first) / rise_s
    return pair[0] * scale, pair[1] * scale


def stepped(poles: Sequence[complex], time_s: FloatArray) -> FloatArray:
    """Step response of these poles (1/s, all different), shape of `time_s`; 0 before the step."""
    found = np.ones(time_s.shape)
    later = np.maximum(time_s, 0.0)
    whole = np.prod([-p for p in poles])
    for k, pole in enumerate(poles):
        others = np.prod([pole - p for j, p in enumerate(poles) if j != k])
        found = found + np.real(whole / (pole * others) * np.exp(pole * later))
    return np.where(time_s > 0, found, 0.0)


class PulsePath(Terminal):
    """A generator's terminal as the array sees it: attenuated, ends of pulses shifted. It remembers
    the levels, for probes.
    """

    def __init__(self, terminal: Terminal, clock: VirtualClock, errors: PulsePathErrors) -> None:
        self._terminal, self._clock, self._errors = terminal, clock, errors
        self._poles = poles_of(errors.rise_s, errors.overshoot)
        self._changes: deque[tuple[float, float]] = deque([(-np.inf, 0.0)])
        self.stretch_s = errors.stretch_s

    @override
    def drive(self, drive: Drive) -> None:
        """Pass on what arrives of a level, and remember the level and when it began."""
        level = drive.level if drive.function == "voltage" else 0.0
        if self._changes[-1][0] == self._clock.now_s:
            self._changes.pop()
        if level != self._changes[-1][1]:
            self._changes.append((self._clock.now_s, level))
        while len(self._changes) > MOST_CHANGES:
            self._changes.popleft()
        if drive.function == "voltage":
            drive = replace(drive, level=level * (1 + self._errors.gain))
        self._terminal.drive(drive)

    @override
    def sense(self) -> Sensed:
        """At the far end."""
        return self._terminal.sense()

    def changed_since(self, time_s: float) -> list[float]:
        """When the level at the pads began to change after a moment (virtual s), in order."""
        return [at_s + self._errors.delay_s for at_s, _ in self._changes if at_s >= time_s]

    @property
    def settles_s(self) -> float:
        """How long a change takes to ring out."""
        return 25.0 / min(abs(p.real) for p in self._poles)

    def volts(self, time_s: FloatArray, poles: Sequence[complex]) -> FloatArray:
        """Volts at the pads at these moments (virtual s), seen through further poles (1/s)."""
        delay_s, found = self._errors.delay_s, np.zeros(time_s.shape)
        settled_s, last_s = time_s.min() - self.settles_s, time_s.max()
        before = 0.0
        for at_s, level in self._changes:
            if at_s + delay_s <= settled_s:
                found[:] = level
            elif at_s + delay_s < last_s:
                seen = stepped((*self._poles, *poles), time_s - at_s - delay_s)
                found += (level - before) * seen
            before = level
        return found * (1 + self._errors.gain)


class Probe(Terminal):
    """A scope's input on the pads. It drives nothing, whatever is asked of it."""

    def __init__(self, path: PulsePath, errors: ScopeErrors, name: str, seed: int) -> None:
        self.path, self.errors = path, errors
        self._rng = np.random.default_rng([seed, zlib.crc32(name.encode())])

    @override
    def drive(self, drive: Drive) -> None:
        """An input forces nothing."""

    @override
    def sense(self) -> Sensed:
        return Sensed(self.path.sense().volts, 0.0, False)

    def phase(self) -> float:
        """Where the next sample lies between two of the scope's own clock: 0 to 1."""
        return float(self._rng.uniform())

    def shown(self, time_s: FloatArray, input_ohm: float, poles: Sequence[complex]) -> FloatArray:
        """What the channel takes for volts at these moments (virtual s)."""
        share = input_ohm / (input_ohm + SOURCE_OHM)
        volts = self.path.volts(time_s, poles) * share * (1 + self.errors.gain)
        return (
            volts + self.errors.offset_v + self._rng.normal(0.0, self.errors.noise_v, volts.shape)
        )
