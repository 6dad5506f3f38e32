"""What arrives of a generator's pulses at the pads, seen by an oscilloscope: level, width, edges,
overshoot and what swings through after the pulse.

The pulses are given as those of any recipe: an operation at a place of the array, through limits,
ledger and journal, by the same relays. So a pad structure or a cell that may be spent must be
there; in a 1T1R array its gate stays closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.array import Apply, Cells, Step
from rram_hil.corrections.calibration_file import Calibrated, CalibrationFile, measured_values
from rram_hil.corrections.kind import CalibrationKind, Pieces, Quantity
from rram_hil.engine.calibration import Calibration, saved
from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.abilities import on_channel
from rram_hil.hardware.arrival import Arrival
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import PulseGenerator
from rram_hil.hardware.oscilloscope import Oscilloscope, ScopeLimits, ScopeSetup, ScopeTrigger
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Unit
from rram_hil.validation import FiniteVolts, PositiveOhms, PositiveSeconds

from .metrology.waveforms import Seen, arrival_of, pulse_shapes

Word = Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]
"""instrument.channel."""
Part = Annotated[float, Field(gt=0, lt=1)]
TURNS = 20
"""How often what is to be set is found anew from what then arrives."""
EDGE = 1e-9
TABLES = {
    "amplitude_v": "V",
    "arrived_s": "s",
    "rise_s": "s",
    "fall_s": "s",
    "overshoot_v": "V",
    "undershoot_v": "V",
    "overshoot": "1",
    "undershoot": "1",
}
"""What is found of each pulse, and its unit."""
RANGES = {
    "amplitude_v": (-1e3, 1e3),
    "arrived_s": (1e-12, 1e3),
    "rise_s": (0.0, 1e3),
    "fall_s": (0.0, 1e3),
    "overshoot_v": (-1e3, 1e3),
    "undershoot_v": (-1e3, 1e3),
    "overshoot": (-1.0, 10.0),
    "undershoot": (-1.0, 10.0),
}
"""What such a number may be at all. A slow edge leaves an undershoot a little below 0."""
SHARES = (0.3, 3.0)
"""The part of a level that may arrive: a load that nobody declared takes half, one that is
declared and missing doubles it; a probe's attenuation that is told wrong makes it ten times.
"""


@dataclass(frozen=True, eq=False)
class _Places:
    """Four corners of the grid around each of n points, indices (4, n), and the weight of each."""

    at: IntArray
    weight: FloatArray


@dataclass(frozen=True, eq=False)
class MeasuredArrival(Arrival):
    """What a calibration file tells: straight lines between the pulses that were measured, over
    the logarithm of the width; between them the interval holds what the neighbours differ by.
    """

    file: CalibrationFile

    @cached_property
    def _levels(self) -> FloatArray:
        return self.file.values["level_v"].values

    @cached_property
    def _widths(self) -> FloatArray:
        return self.file.values["width_s"].values

    def _tolerance(self, name: str) -> float:
        return float(self.file.conditions[f"{name}_tolerance"])

    @override
    def to_set(self, volts: FloatArray, width_s: float) -> tuple[FloatArray, FloatArray]:
        """From what was measured: the width within the widths measured, the level by the share
        that arrives.
        """
        self._refuse_unmeasured(volts, width_s)
        low_s, high_s = self._widths[[0, -1]]
        set_v, set_s = volts, np.full(volts.shape, width_s)
        set_widths, set_levels = np.meshgrid(self._widths, self._levels, indexing="ij")
        for _ in range(TURNS):
            places = self._places(set_v, set_s)
            shift, shift_u = self._between("arrived_s", places, less=set_widths)
            share, share_u = self._between("amplitude_v", places, over=set_levels)
            set_v, set_s = volts / share, np.clip(width_s - shift, low_s, high_s)
        arrives_s = set_s + shift
        for what, off in (
            ("width", (np.abs(arrives_s - width_s) + shift_u) / width_s),
            ("level", share_u / share),
        ):
            most = self._tolerance(what)
            bad = ~(off <= most)
            if bad.any():
                k = int(np.argmax(bad))
                raise ConfigError(
                    f"a pulse of {volts[k]:g} V and {width_s:g} s cannot be made to arrive with"
                    f" its {what} within {most:g} of it: set to {set_v[k]:.4g} V and"
                    f" {set_s[k]:.4g} s it arrives for {arrives_s[k]:.4g} s +- {shift_u[k]:.2g},"
                    f" its level known to {share_u[k] / share[k]:.2g} of it; take another pulse, or"
                    " measure finer"
                )
        return set_v, set_s

    @override
    def swings_v(self, volts: FloatArray, width_s: float) -> tuple[FloatArray, FloatArray]:
        """Overshoot and undershoot at the upper ends of their intervals, the larger one of both
        signs: which of them a line sees is the driver's affair.
        """
        beyond, through = np.zeros(volts.shape), np.zeros(volts.shape)
        levels = np.broadcast_to(self._levels, (self._widths.size, self._levels.size))
        for sign in np.unique(np.sign(self._levels)):
            places = self._places(sign * np.abs(volts), np.full(volts.shape, width_s))
            share, share_u = self._between("amplitude_v", places, over=levels)
            over, under = (
                np.abs(volts) * (np.maximum(part, 0.0) + wide)
                for part, wide in (self._between(n, places) for n in ("overshoot", "undershoot"))
            )
            beyond = np.maximum(beyond, over + np.abs(volts) * share_u / share)
            through = np.maximum(through, under)
        return beyond, through

    def _refuse_unmeasured(self, volts: FloatArray, width_s: float) -> None:
        low_s, high_s = self._widths[[0, -1]]
        if not low_s * (1 - EDGE) <= width_s <= high_s * (1 + EDGE):
            raise ConfigError(
                f"a pulse of {width_s:g} s: how pulses arrive was measured from {low_s:g} to"
                f" {high_s:g} s"
            )
        for v in volts:
            alike = np.abs(self._levels[np.sign(self._levels) == np.sign(v)])
            if not (alike.size and alike.min() * (1 - EDGE) <= abs(v) <= alike.max() * (1 + EDGE)):
                there = ", ".join(f"{level:g}" for level in self._levels)
                raise ConfigError(
                    f"a pulse of {v:g} V: how pulses arrive was measured at {there} V, as the"
                    " generator gives them"
                )

    def _places(self, volts: FloatArray, width_s: FloatArray) -> _Places:
        """The neighbours of each point in width, and in level among those of its sign."""
        positive = self._levels > 0
        below = int(np.count_nonzero(~positive))
        low = np.where(volts > 0, below, 0)
        high = np.where(volts > 0, self._levels.size, below) - 1
        i, j, f = _neighbours(self._levels, volts, low, high)
        last = np.full(volts.shape, self._widths.size - 1)
        k, m, g = _neighbours(np.log(self._widths), np.log(width_s), 0 * last, last)
        columns = self._levels.size
        at = np.stack([k * columns + i, k * columns + j, m * columns + i, m * columns + j])
        weight = np.stack([(1 - g) * (1 - f), (1 - g) * f, g * (1 - f), g * f])
        return _Places(at, weight)

    def _between(
        self,
        name: str,
        places: _Places,
        less: FloatArray | float = 0.0,
        over: FloatArray | float = 1.0,
    ) -> tuple[FloatArray, FloatArray]:
        """A table less one grid and over another at these places, and the half-width there."""
        table = self.file.values[name]
        scale = np.broadcast_to(np.ravel(over), table.values.shape)
        corners = ((table.values - np.ravel(less)) / scale)[places.at]
        wide = (table.half_widths / np.abs(scale))[places.at]
        value = np.sum(places.weight * corners, axis=0)
        apart = np.sqrt(np.sum(places.weight * (corners - value) ** 2, axis=0)) / 2
        return value, np.max(np.where(places.weight > 0, wide, 0.0), axis=0) + apart


def _neighbours(
    axis: FloatArray, x: FloatArray, low: IntArray, high: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Places before and after each x within [low, high] of an axis, and how far between."""
    before = np.clip(np.searchsorted(axis, x) - 1, low, np.maximum(high - 1, low))
    after = np.minimum(before + 1, high)
    span = np.where(after > before, axis[after] - axis[before], 1.0)
    return before, after, np.clip((x - axis[before]) / span, 0.0, 1.0)


class PulseArrival(CalibrationKind):
    """Kind `pulse-arrival`: how pulses of one channel of a generator arrive at the pads of this
    bench.
    """

    VALUES: ClassVar[dict[str, Quantity]] = {
        "width_s": Quantity("s", 1e-12, 1e3, needed=True),
        "level_v": Quantity("V", -1e3, 1e3, needed=True),
        **{name: Quantity(unit, *RANGES[name], needed=True) for name, unit in TABLES.items()},
    }

    @override
    def owners(self) -> Iterable[Identity]:
        """Any instrument of the bench."""
        return self.bench.parts.values()

    @override
    def check_owner(self) -> None:
        """That instrument's channel gives pulses here."""
        super().check_owner()
        if not set(self._channels()) & set(self.bench.generators):
            there = ", ".join(self.bench.generators) or "none"
            raise ConfigError(
                f"a calibration of {self.file.instrument}; channels that give pulses here: {there}"
            )

    @override
    def check_values(self) -> None:
        """A whole grid, its axes rising, and levels that arrive with their own sign."""
        super().check_values()
        values, conditions = self.file.values, self.file.conditions
        widths, levels = values["width_s"].values, values["level_v"].values
        for name, axis in (("width_s", widths), ("level_v", levels)):
            if not (np.diff(axis) > 0).all() or (axis == 0).any():
                raise ConfigError(f"values.{name}: must rise, and not be 0")
        for name in TABLES:
            if values[name].values.size != widths.size * levels.size:
                raise ConfigError(
                    f"values.{name}: {values[name].values.size} values; {widths.size} widths and"
                    f" {levels.size} levels need {widths.size * levels.size}"
                )
        asked = np.tile(levels, widths.size)
        if not (values["amplitude_v"].values * asked > 0).all():
            raise ConfigError("values.amplitude_v: a pulse arrives at 0 V or with the other sign")
        share, (least, most) = values["amplitude_v"].values / asked, SHARES
        if (bad := ~((share >= least) & (share <= most))).any():
            raise ConfigError(
                f"values.amplitude_v: {share[bad][0]:.3g} of {asked[bad][0]:g} V arrives; {least:g}"
                f" to {most:g} of it can be: look at the probe's attenuation and at load_ohm"
            )
        for name in ("width_tolerance", "level_tolerance"):
            told = conditions.get(name)
            if not isinstance(told, float | int) or not 0 < told < 1:
                raise ConfigError(f"conditions.{name}: {told!r} is not between 0 and 1")

    def pieces(self) -> Pieces:
        """The channel of every instrument that is this one."""
        return Pieces(arrivals=dict.fromkeys(self._channels(), MeasuredArrival(self.file)))

    def _channels(self) -> list[str]:
        """The channel of each instrument that is this one, as the bench names it."""
        mine = self.file.instrument
        return [
            f"{name}.{mine.channel}"
            for name, identity in self.bench.parts.items()
            if (identity.model, identity.serial) == (mine.model, mine.serial)
        ]


class MeasurePulseArrival(Calibration):
    """What arrives of a generator's pulses at the pads, by a scope.

    `generator` and `scope` are instrument.channel of the bench's own; the scope's `probe` (its
    attenuation, within `probe_fraction`) is on the pad of `line`, "bl" or "sl", of the place `row`,
    `column`. At each of `widths_s` and `levels_v` `repeat` pulses are given there, the gate at
    `wl_v`, which without it keeps the selector closed. The screen leaves room for `headroom` of the
    level above and below; `settle_s` is how long a change rings at most.

    Pulses whose width or level cannot be made to arrive within `width_tolerance` and
    `level_tolerance` are refused once the calibration is in force.
    """

    generator: Word
    scope: Word
    widths_s: Annotated[list[PositiveSeconds], Field(min_length=1, max_length=32)]
    levels_v: Annotated[list[FiniteVolts], Field(min_length=1, max_length=32)]
    tile: Annotated[int, Field(ge=0)] = 0
    row: Annotated[int, Field(ge=0)]
    column: Annotated[int, Field(ge=0)]
    line: Literal["bl", "sl"] = "bl"
    wl_v: FiniteVolts | None = None
    repeat: Annotated[int, Field(ge=4, le=1000)] = 8
    probe: Annotated[float, Field(gt=0)] = 10.0
    probe_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    input_ohm: PositiveOhms = 1e6
    headroom: Annotated[float, Field(gt=0, le=2)] = 0.5
    settle_s: Annotated[float, Unit("s"), Field(gt=0, le=1e-3)] = 100e-9
    wait_s: Annotated[float, Unit("s"), Field(gt=0, le=60)] = 1.0
    width_tolerance: Part = 0.05
    level_tolerance: Part = 0.1

    def run(self, setting: Setting) -> Plan[Calibrated]:
        """Yields for each pulse: a computation that arms the scope, the pulse, a computation that
        takes the record.
        """
        if "pulse-arrival" in setting.correction.kinds:
            raise ConfigError("take the calibration of pulse-arrival out of [calibration] first")
        identity = self._generator(setting)
        scope = self._scope(setting)
        channel = self.scope.partition(".")[2]
        limits = scope.limits(channel)
        widths, levels = np.array(sorted(set(self.widths_s))), np.array(sorted(set(self.levels_v)))
        if (levels == 0).any():
            raise ConfigError("levels_v: 0 V is no pulse")
        shots = {
            (float(w), float(v)): self.shot(float(w), float(v), setting.geometry.selector)
            for w in widths
            for v in levels
        }
        setting.require(*shots.values())
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in TABLES}
        for done, ((width_s, level_v), shot) in enumerate(shots.items()):
            yield Progress(done, len(shots), f"{level_v:g} V, {width_s:g} s")
            told = yield from self._measured(scope, limits, width_s, level_v, shot)
            for name, one in told.items():
                found[name].append(one)
        tables = {name: np.array(rows) for name, rows in found.items()}
        tables["amplitude_v"][:, 0] *= np.tile(np.sign(levels), widths.size)
        told_scope = getattr(scope, "identity", Identity("", ""))
        return (
            yield from saved(
                Calibrated(
                    "pulse-arrival",
                    {
                        "width_s": measured_values(widths, np.zeros(widths.size), "s"),
                        "level_v": measured_values(levels, np.zeros(levels.size), "V"),
                        **{
                            name: measured_values(rows[:, 0], rows[:, 1], TABLES[name])
                            for name, rows in tables.items()
                        },
                    },
                    method=(
                        f"{self.repeat} single pulses at each of {widths.size} widths and"
                        f" {levels.size} levels on {self.line.upper()} of ({self.tile}, {self.row},"
                        f" {self.column})"
                    ),
                    reference=(
                        f"{told_scope.model}, serial {told_scope.serial}, channel {channel}, probe"
                        f" {self.probe:g}:1"
                    ),
                    validity_days=self.validity_days,
                    file=self.file,
                    channel=self.generator.partition(".")[2],
                    identity=identity,
                    conditions={
                        "width_tolerance": self.width_tolerance,
                        "level_tolerance": self.level_tolerance,
                        "input_ohm": self.input_ohm,
                    },
                )
            )
        )

    def _generator(self, setting: Setting) -> Identity:
        """Whose pulses they are. Raises `ConfigError` for a channel that gives none of these."""
        refusal = f"generator: {self.generator!r} is no channel of a pulse generator of this bench"
        on_channel(setting.instruments, self.generator, PulseGenerator, refusal)
        from_s = setting.capabilities.timing.get("sources_from_s")
        longest_s = max(self.widths_s)
        if from_s is None or not longest_s < from_s:
            told = "no generator is wired" if from_s is None else f"{from_s:g} s"
            raise ConfigError(
                f"widths_s: {longest_s:g} s: from {told} on the source-meters of this bench give"
                " the pulses, not the generator"
            )
        identity: Identity = setting.instruments[self.generator.partition(".")[0]].identity
        return identity

    def _scope(self, setting: Setting) -> Oscilloscope:
        refusal = f"scope: {self.scope!r} is no channel of an oscilloscope of this bench"
        scope = on_channel(setting.instruments, self.scope, Oscilloscope, refusal)
        if setting.probes.get(self.scope) != self.generator:
            wired = ", ".join(f"{probe} sees {seen}" for probe, seen in setting.probes.items())
            raise ConfigError(
                f"scope: {self.scope!r} does not see the pulses of {self.generator!r}; by"
                f" driver.wiring.probes {wired or 'no channel sees any'}"
            )
        return scope

    def shot(self, width_s: float, level_v: float, selector: str) -> Apply:
        """One pulse (s, V), without `wl_v` with the gate at the level that closes a selector of
        this kind, "nmos" or "pmos".
        """
        cells = Cells.of([(self.tile, self.row, self.column)])
        bl, sl = (level_v, 0.0) if self.line == "bl" else (0.0, level_v)
        # NMOS opens above the lower of both lines, PMOS below the higher one.
        closed_v = max(level_v, 0.0) if selector == "pmos" else min(level_v, 0.0)
        wl = closed_v if self.wl_v is None else self.wl_v
        return Apply(cells, (Step(bl, sl, wl, width_s, "no"),), label="pulse arrival")

    def _measured(
        self, scope: Oscilloscope, limits: ScopeLimits, width_s: float, level_v: float, shot: Apply
    ) -> Plan[dict[str, tuple[float, float]]]:
        """Figures of one pulse with their half-widths."""
        channel, high_v = self.scope.partition(".")[2], abs(level_v)
        range_v = max((1 + 2 * self.headroom) * high_v, limits.smallest_range_v * self.probe)
        setup = ScopeSetup(range_v, level_v / 2, "DC", self.input_ohm, self.probe)
        before_s, after_s = 0.25 * width_s + self.settle_s, 0.25 * width_s + 2 * self.settle_s
        span_s = before_s + width_s + after_s
        # A quarter of the level: half of it is all that arrives where 50 ohm end the line.
        trigger = ScopeTrigger(channel, level_v / 4, level_v > 0, span_s, span_s / 2 - before_s)
        samples = int(min(limits.most_samples, max(100, np.ceil(span_s * limits.samples_per_s))))

        def wait(_: Do) -> Arrays:
            scope.configure(channel, setup)
            scope.await_trigger(trigger)
            return {}

        def look(_: Do) -> Arrays:
            record = scope.record(channel, samples, self.wait_s + span_s)
            return {
                "volts": record.volts,
                "scale": np.array([record.start_s, record.step_s, record.digit_v]),
            }

        records: list[Arrays] = []
        for k in range(self.repeat):
            name = f"{level_v:g} V, {width_s:g} s, {k + 1}"
            yield from Compute(f"scope waits for {name}", wait)
            result = yield from shot
            if result.interrupted:
                raise ConfigError("the pulse was interrupted and is not given again: start anew")
            records.append((yield from Compute(f"record of {name}", look)))
        size = min(r["volts"].size for r in records)
        scales = np.array([r["scale"] for r in records])
        step_s = float(scales[0, 1])
        shapes = pulse_shapes(
            np.stack([r["volts"][:size] for r in records]),
            scales[:, 0],
            step_s,
            float(np.sign(level_v)),
            width_s,
        )
        gain = float(np.hypot(limits.gain_fraction, self.probe_fraction * high_v / range_v))
        seen = Seen(float(scales[0, 2]), gain, limits.time_fraction, limits.rise_s)
        return arrival_of(shapes, seen, range_v, step_s)
