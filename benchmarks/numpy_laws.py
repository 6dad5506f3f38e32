"""The laws and draws of cells in plain NumPy, as `rram_hil.simulation` had them before they were
compiled: the yardstick of `cell_pulses.py`, and what a test holds the compiled laws against.

    cells = NumpyBank(numpy_model("hfo2-measured"), 1000, seed=7)

A model's numbers and its curves are those of `DeviceModel`; everything that happens to a cell is
done here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from rram_hil.simulation.bank import CellBank
from rram_hil.simulation.draws import Purpose
from rram_hil.simulation.model import (
    Creep,
    DeviceModel,
    Drift,
    Forming,
    Grow,
    Redraw,
    Relaxation,
    Shallow,
    Traits,
)
from rram_hil.types import FloatArray, IntArray

_LEAST_OHM, _STIRRED = 1.0, 1.1
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def numpy_model(name: str) -> NumpyModel:
    """A preset whose cells obey the laws of this file."""
    return NumpyModel.model_validate(DeviceModel.load(name).model_dump())


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _key(seed: int, purpose: Purpose) -> np.uint64:
    start = np.array(
        [(seed * _GOLDEN + int(purpose) * 0xD1342543DE82EF95) & _MASK], dtype=np.uint64
    )
    return np.uint64(_mix(start)[0])


def uniform(seed: int, purpose: Purpose, cell: IntArray, event: IntArray | int = 0) -> FloatArray:
    """Uniform draws, 0 < u < 1, one a cell, for the cells' flat indices and event numbers."""
    x = np.asarray(cell).astype(np.uint64) * np.uint64(_GOLDEN)
    x += _key(seed, purpose)
    x = _mix(x)
    x += np.asarray(event).astype(np.uint64) * np.uint64(0xDA942042E4DD58B5)
    x = _mix(x)
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, purpose: Purpose, cell: IntArray, event: IntArray | int = 0) -> FloatArray:
    """Standard normal draws, one a cell, for the cells' flat indices and event numbers."""
    return np.asarray(ndtri(uniform(seed, purpose, cell, event)), dtype=np.float64)


def _skewed(z: ArrayLike, part: float) -> FloatArray:
    """Of standard normal draws, draws of mean 0 of which `part` is exponential: an end below, a
    tail above.
    """
    normal = np.asarray(z, dtype=np.float64)
    return np.asarray((1 - part) * normal + part * (-np.log(ndtr(-normal)) - 1.0), dtype=np.float64)


def _with_ohm(g_s: FloatArray, more_ohm: FloatArray) -> FloatArray:
    """Conductances (S) with `more_ohm` in series, or without it where that is below zero."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.maximum(1.0 / g_s + more_ohm, _LEAST_OHM), dtype=np.float64)


def _beyond_eighth(chance: FloatArray) -> FloatArray:
    """Of uniform draws: 0 for seven in eight, for the others exponential draws of mean 1."""
    return np.asarray(np.maximum(-np.log(chance) - np.log(8.0), 0.0), dtype=np.float64)


def thresholds(forming: Forming, z: FloatArray) -> FloatArray:
    """Thresholds (V) of cells, from standard normal draws."""
    if forming.quantile_v is None:
        return forming.threshold_v + forming.threshold_sd_v * z
    even = np.linspace(0, 1, len(forming.quantile_v))
    return np.asarray(np.interp(ndtr(z), even, forming.quantile_v), dtype=np.float64)


def creep_ohm(creep: Creep, chance: FloatArray) -> FloatArray:
    """What cells have more in series (ohm), from uniform draws; the low ones have most."""
    return np.asarray(creep.most_ohm * np.maximum(1.0 - chance / creep.part, 0.0), dtype=np.float64)


def own_ohm(grow: Grow, g_s: FloatArray) -> FloatArray:
    """Resistance (ohm) of the filaments alone of cells that read `g_s`."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(1.0 / g_s - grow.series_ohm, _LEAST_OHM), dtype=np.float64)


def grown_s(
    grow: Grow, before_s: FloatArray, single_s: FloatArray, widths: float | FloatArray
) -> FloatArray:
    """Conductance (S) of cells at `before_s` after a pulse that gives `single_s` to one from
    the high-resistance state.

    `widths`: the pulse's width in reference widths. Never below `before_s`, but that what a
    stir has put a little above 1 / `series_ohm` is not kept.
    """
    inverse = -1.0 / grow.power
    both = own_ohm(grow, before_s) ** inverse + widths * own_ohm(grow, single_s) ** inverse
    after = 1.0 / (grow.series_ohm + both ** (-grow.power))
    return np.asarray(
        np.where(before_s > _STIRRED / grow.series_ohm, before_s, after), dtype=np.float64
    )


def least_ln(shallow: Shallow, z: FloatArray) -> FloatArray:
    """The least ln G that a cell's RESETs draw around, -inf where it opens, from standard
    normal draws; the low ones are most shallow.
    """
    place = np.clip(ndtr(z) / shallow.part, 0.0, 1.0)
    floor = np.log(shallow.floor_s) - shallow.spread_ln * ndtri(np.clip(place, 1e-9, 1 - 1e-9))
    return np.asarray(np.where(place < 1, floor, -np.inf), dtype=np.float64)


def threshold_v(law: Redraw, filament_s: ArrayLike) -> FloatArray:
    """Volts at which a filament of `filament_s` breaks."""
    return np.asarray(np.interp(np.log(filament_s), np.log(law.on_s), law.on_v), dtype=np.float64)


def relaxation_at(law: Relaxation, age_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Body, tail and shift (S) at an age in seconds."""
    x = np.log10(np.maximum(age_s, 1e-12))
    beyond = np.maximum(x - law.log10_s[-1], 0.0)
    run = law.log10_s[-1] - law.log10_s[-2]

    def column(values: list[float]) -> FloatArray:
        slope = (values[-1] - values[-2]) / run
        return np.asarray(np.interp(x, law.log10_s, values) + slope * beyond, dtype=np.float64)

    return column(law.body_s), column(law.tail_s), column(law.shift_s)


def drift_change(
    drift: Drift, chance: FloatArray, g_s: FloatArray, age_s: FloatArray
) -> FloatArray:
    """Change (S) of cells programmed to `g_s` after `age_s` seconds, each at its place `chance`
    in the distribution.
    """
    times, table = np.asarray(drift.log10_s), np.asarray(drift.change_s)
    x = np.log10(np.maximum(age_s, 1e-12))
    i = np.clip(np.searchsorted(times, x) - 1, 0, times.size - 2)
    part_t = (x - times[i]) / (times[i + 1] - times[i])
    early = np.clip(1 + (x - times[0]) / drift.onset_decades, 0.0, 1.0)
    part_t = np.where(x < times[0], 0.0, part_t)
    places = np.asarray(drift.g_s)
    held = np.clip(g_s, places[0], places[-1])
    j = np.clip(np.searchsorted(places, held) - 1, 0, places.size - 2)
    part_g = (held - places[j]) / (places[j + 1] - places[j])
    p = np.asarray(drift.probability)
    k = np.clip(np.searchsorted(p, chance) - 1, 0, p.size - 2)
    part_p = np.clip((chance - p[k]) / (p[k + 1] - p[k]), 0.0, 1.0)
    found = np.zeros(np.shape(chance))
    for dt in (0, 1):
        for dg in (0, 1):
            for dp in (0, 1):
                weight = (
                    (part_t if dt else 1 - part_t)
                    * (part_g if dg else 1 - part_g)
                    * (part_p if dp else 1 - part_p)
                )
                found += weight * table[i + dt, j + dg, k + dp]
    return np.asarray(found * early * np.minimum(g_s / places[0], 1.0), dtype=np.float64)


class NumpyModel(DeviceModel):
    """A device model whose laws are those of this file."""

    def _set_ln(self, gate_v: ArrayLike, bl_v: ArrayLike, width_s: float) -> FloatArray:
        """ln of the conductance that a SET allows; -inf where there is no SET."""
        gate = np.asarray(gate_v, dtype=np.float64) + self._width_v(self.set, width_s)
        volts = np.asarray(bl_v, dtype=np.float64)
        level = np.interp(gate, *self._set_curve) + np.log(
            np.interp(volts, self.set.bl_v, self.set.bl_ratio)
        )
        works = (volts >= self.set.bl_v[0]) & (gate >= self.set.gate_v[0])
        return np.asarray(np.where(works, level, -np.inf), dtype=np.float64)

    def _reset_v(self, sl_v: ArrayLike, gate_v: ArrayLike, width_s: float) -> FloatArray:
        """Volts that reach the cell in a RESET, as the gate lets through, at the reference
        width.
        """
        if (law := self.reset.redraw) is not None:
            through = np.interp(np.asarray(gate_v, dtype=np.float64), law.gate_v, law.through_v)
        else:
            through = self.reset.gate_slope * (
                np.asarray(gate_v, dtype=np.float64) - self.reset.gate_threshold_v
            )
        limited = np.minimum(np.asarray(sl_v, dtype=np.float64), through)
        return np.asarray(limited + self._width_v(self.reset, width_s), dtype=np.float64)

    def traits(self, seed: int, index: IntArray) -> Traits:
        """The device-to-device draws of cells, by their flat indices."""

        def z(purpose: Purpose) -> FloatArray:
            return normal(seed, purpose, index)

        chance = uniform(seed, Purpose.STUCK, index)
        low = chance < self.stuck.low_resistance
        high = ~low & (chance < self.stuck.low_resistance + self.stuck.high_resistance)
        virgin = self.virgin.conductance_s * np.exp(self.virgin.spread_ln * z(Purpose.VIRGIN))
        short = self.stuck.low_resistance_s * np.exp(
            self.stuck.low_resistance_spread_ln * z(Purpose.STUCK_LEVEL)
        )
        creep_ohm, floor_ln = self._hard_to_move(seed, index)
        single = np.float32
        return Traits(
            index=np.asarray(index, dtype=np.int64),
            stuck=low.astype(np.int8) - high.astype(np.int8),
            fixed_s=np.where(low, short, virgin).astype(single),
            form_threshold_v=thresholds(self.forming, z(Purpose.FORM_THRESHOLD)).astype(single),
            gate_offset_v=(self.set.offset_sd_v * z(Purpose.GATE_OFFSET)).astype(single),
            set_gain_ln=(self.set.gain_sd_ln * z(Purpose.SET_GAIN)).astype(single),
            set_shift_s=(self.set.shift_sd_s * z(Purpose.SET_SHIFT)).astype(single),
            reset_offset_v=self._reset_offsets(z(Purpose.RESET_OFFSET)).astype(single),
            reset_z=z(Purpose.RESET_GAIN).astype(single),
            creep_ohm=creep_ohm.astype(single),
            floor_ln=floor_ln.astype(single),
            telegraph=uniform(seed, Purpose.TELEGRAPH_CELL, index) < self.read.telegraph_cells,
        )

    def _hard_to_move(self, seed: int, index: IntArray) -> tuple[FloatArray, FloatArray]:
        """What each cell has more in series (ohm), and the least ln G that its RESETs draw
        around.
        """
        creep = None if self.set.grow is None else self.set.grow.creep
        shallow = None if self.reset.redraw is None else self.reset.redraw.shallow
        more_ohm, floor_ln = np.zeros(index.shape), np.full(index.shape, -np.inf)
        if creep is not None or shallow is not None:
            chance = uniform(seed, Purpose.CREEP, index)
            if creep is not None:
                more_ohm = creep_ohm(creep, chance)
            if shallow is not None:
                z = normal(seed, Purpose.DEPTH, index)
                own = np.sqrt(1 - shallow.link**2) * z
                floor_ln = least_ln(shallow, shallow.link * ndtri(chance) + own)
        return more_ohm, floor_ln

    def _reset_offsets(self, z: FloatArray) -> FloatArray:
        """Volts by which RESET is easier for each cell, from standard normal draws."""
        skew = 0.0 if self.reset.redraw is None else self.reset.redraw.offset_skew
        if skew == 0:
            return self.reset.offset_sd_v * z
        return -self.reset.offset_sd_v * _skewed(-z, skew)

    def after_set(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        g_s: FloatArray,
        formed: NDArray[np.bool_],
        bl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: float | FloatArray = np.inf,
        settled_s: FloatArray | None = None,
        cycle: IntArray | None = None,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Conductance (S) and formed flag after a pulse with BL - SL = `bl_v` > 0 and the gate
        `gate_v` above SL.

        Never below `g_s` (but for what `Grow` stirs and `Overdrive` rearranges). `cap_s` is what a
        compliance current allows, one for all cells or one each. `settled_s` says of which cells
        the filament is settled, and how large it is (S; NaN: grown by these pulses), `cycle` which
        RESET it grows from (any number that changes with each; without it, each pulse counts as
        one). Stuck cells stay.
        """
        threshold = traits.form_threshold_v - self._width_v(self.forming, width_s)
        forms = (
            ~formed
            & (bl_v >= threshold)
            & (gate_v >= self.forming.gate_min_v)
            & (traits.stuck == 0)
        )
        after = np.array(g_s, dtype=np.float64)
        cap = np.broadcast_to(np.asarray(cap_s, dtype=np.float64), after.shape)
        if (at := np.flatnonzero(forms)).size:
            z = normal(seed, Purpose.FORM_LEVEL, traits.index[at], event[at])
            level_s = self.forming.conductance_s * np.exp(self.forming.spread_ln * z)
            after[at] = np.maximum(after[at], np.minimum(level_s, cap[at]))
        if (at := np.flatnonzero(formed)).size:
            settled = np.full(at.size, np.nan) if settled_s is None else settled_s[at]
            when = event[at] if cycle is None else cycle[at]
            mine = (seed, traits.part(at), event[at])
            if self.set.grow is None:
                level_ln = self._set_level_ln(*mine, bl_v[at], gate_v[at], width_s)
                level_s = np.exp(level_ln + traits.set_gain_ln[at])
                if self.set.shifts:
                    shift = self._shift_s(seed, traits.part(at), when)
                    level_s = np.where(np.isfinite(level_ln), level_s + shift, level_s)
                after[at] = np.maximum(after[at], np.minimum(level_s, cap[at]))
            else:
                after[at] = self._grown(
                    *mine,
                    when,
                    after[at],
                    np.isnan(settled),
                    bl_v[at],
                    gate_v[at],
                    width_s,
                    cap[at],
                )
        return after, formed | forms

    def _shift_s(self, seed: int, traits: Traits, cycle: IntArray) -> FloatArray:
        """By how many siemens cells are off in a cycle, whatever they are programmed to."""
        z = normal(seed, Purpose.CYCLE_SHIFT, traits.index, cycle)
        return np.asarray(traits.set_shift_s + self.set.spread_sd_s * z, dtype=np.float64)

    def _set_level_ln(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        bl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
    ) -> FloatArray:
        """ln G of a SET from the high-resistance state, with all but the cell's own gain."""
        gate = gate_v + traits.gate_offset_v
        if self.set.jitter_sd_v > 0:
            gate = gate + self.set.jitter_sd_v * normal(
                seed, Purpose.SET_JITTER, traits.index, event
            )
        level = self._set_ln(gate, bl_v, width_s)
        if self.set.spread_sd_ln > 0:
            level = level + self.set.spread_sd_ln * normal(
                seed, Purpose.SET_SPREAD, traits.index, event
            )
        return level

    def _grown(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        cycle: IntArray,
        before_s: FloatArray,
        grown: NDArray[np.bool_],
        bl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        cap_s: FloatArray,
    ) -> FloatArray:
        """What one SET pulse makes of `before_s` (S) where filaments grow; `grown`: by these
        pulses, else a settled one.
        """
        grow = self.set.grow
        assert grow is not None
        index = traits.index
        own_v = grow.cycle_sd_v * normal(seed, Purpose.CYCLE_OFFSET, index, cycle)
        own_ln = grow.cycle_sd_ln * normal(seed, Purpose.CYCLE_GAIN, index, cycle)
        if grow.cycle_slow_ln > 0:
            own_ln = own_ln - grow.cycle_slow_ln * _beyond_eighth(
                uniform(seed, Purpose.CYCLE_TAIL, index, cycle)
            )
        own_gate = gate_v + np.where(grown, own_v, self.set.settled_gain_v)
        single = np.exp(self._set_level_ln(seed, traits, event, bl_v, own_gate, width_s))
        strength = np.exp(
            (traits.set_gain_ln.astype(np.float64) + np.where(grown, own_ln, 0.0)) / grow.power
        )
        widths = strength * width_s / self.set.reference_width_s
        # What creeping cells have more in series is taken off, and put back below.
        more_ohm = np.where(grown, traits.creep_ohm, np.float32(0)).astype(np.float64)
        inner = before_s if grow.creep is None else _with_ohm(before_s, -more_ohm)
        after = grown_s(grow, inner, single, widths)
        if (law := grow.overdrive) is not None:
            chance = uniform(seed, Purpose.OVERDRIVE, index, cycle)
            beyond = grown & (bl_v >= law.bl_v) & (chance < np.interp(gate_v, law.gate_v, law.part))
            once = own_ohm(grow, single) * widths ** (-grow.power)
            r = np.log(np.minimum(own_ohm(grow, inner), once) / law.own_ohm)
            z = normal(seed, Purpose.OVERDRIVE_STEP, index, event)
            again = 1.0 / (
                grow.series_ohm + law.own_ohm * np.exp(law.memory * r + law.spread_ln * z)
            )
            after = np.where(beyond, again, after)
        if grow.creep is not None:
            after = np.where(after == inner, before_s, _with_ohm(after, more_ohm))
        capped = np.where(after > before_s, np.maximum(before_s, np.minimum(after, cap_s)), after)
        z = normal(seed, Purpose.SET_STIR, index, event)
        sd = np.interp(np.log(capped), np.log(grow.stir_s), grow.stir_ln)
        stirred = np.minimum(capped * np.exp(sd * z), np.maximum(cap_s, before_s))
        return np.asarray(
            np.where((traits.stuck == 0) & (bl_v >= self.set.bl_v[0]), stirred, before_s),
            dtype=np.float64,
        )

    def after_reset(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        g_s: FloatArray,
        formed: NDArray[np.bool_],
        sl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
        settled_s: FloatArray | None = None,
        cycle: IntArray | None = None,
        broken_s: FloatArray | None = None,
        cycles_done: IntArray | None = None,
    ) -> FloatArray:
        """Conductance (S) after a pulse with SL - BL = `sl_v` > 0 and the gate `gate_v` above BL.

        Never above `g_s` but where the model has a `Redraw`. `settled_s` and `cycle` as in
        `after_set`; `broken_s` is how large (S) the filament was that a RESET of this cycle broke,
        0 for one that is whole (see `broken_after`); `cycles_done` is how many such cycles the cell
        has behind it (`Wear`; without it, none).
        """
        if self.reset.redraw is not None:
            whole_s = g_s if settled_s is None else self._whole(g_s, settled_s)
            broken = np.zeros(g_s.shape) if broken_s is None else broken_s
            when = event if cycle is None else cycle
            worn = self._worn(seed, traits.index, broken, cycles_done)
            moved = self._redrawn(
                seed, traits, event, when, g_s, whole_s, broken, worn, sl_v, gate_v, width_s
            )
            return np.asarray(
                np.where(formed & (traits.stuck == 0) & (sl_v > 0), moved, g_s), dtype=np.float64
            )
        z = np.sqrt(self.reset.device_share) * traits.reset_z
        z = z + np.sqrt(1 - self.reset.device_share) * normal(
            seed, Purpose.RESET_SPREAD, traits.index, event
        )
        volts = self._reset_v(sl_v, gate_v, width_s)
        works = volts >= self.reset.sl_v[0]
        volts = volts + traits.reset_offset_v
        if self.reset.jitter_sd_v > 0:
            volts = volts + self.reset.jitter_sd_v * normal(
                seed, Purpose.RESET_JITTER, traits.index, event
            )
        grid, level, spread = self._reset_curve
        reached = np.exp(np.interp(volts, grid, level) + np.interp(volts, grid, spread) * z)
        if self.set.shifts:
            # Its event is the number of the cycle that it begins: the next SET is off by as much.
            left = np.maximum(self._shift_s(seed, traits, event), 0.0)
            whole = np.ones(g_s.shape) if broken_s is None else broken_s == 0
            reached = reached + np.where(whole, left, 0.0)
        after = np.minimum(g_s, np.maximum(reached, self.reset.floor_s))
        return np.asarray(np.where(works & formed, after, g_s), dtype=np.float64)

    def _redrawn(
        self,
        seed: int,
        traits: Traits,
        event: IntArray,
        cycle: IntArray,
        g_s: FloatArray,
        whole_s: FloatArray,
        broken_s: FloatArray,
        worn_ln: float | FloatArray,
        sl_v: FloatArray,
        gate_v: FloatArray,
        width_s: float,
    ) -> FloatArray:
        law = self.reset.redraw
        assert law is not None
        volts = self._reset_v(sl_v, gate_v, width_s) + traits.reset_offset_v
        volts = volts + law.cycle_sd_v * normal(seed, Purpose.RESET_CYCLE, traits.index, cycle)
        broken = broken_s > 0
        filament = np.where(broken, broken_s, np.maximum(whole_s, 1e-12))
        on = threshold_v(law, filament)
        beyond = volts - law.lag * (on - threshold_v(law, law.intact_s))
        w = _skewed(normal(seed, Purpose.RESET_SPREAD, traits.index, event), law.skew)
        own = np.interp(beyond, law.volts, law.device_ln) * _skewed(traits.reset_z, law.device_skew)
        grid, level, _ = self._reset_curve
        around = np.interp(beyond, grid, level) + own + np.where(broken, worn_ln, 0.0)
        around = np.maximum(around, traits.floor_ln)
        white = np.interp(beyond, law.volts, law.white_ln) * w
        drawn = around + white
        x = np.log(np.maximum(g_s, 1e-12))
        above = volts - on
        hard = np.clip(above / max(law.break_v, 1e-6), 0.0, 1.0) * (filament >= law.intact_s)
        z = normal(seed, Purpose.RESET_BREAK, traits.index, event)
        drawn = np.where(
            broken, drawn, drawn + hard * (law.break_ln * z - law.break_more_ln + worn_ln)
        )
        drawn = np.maximum(drawn, traits.floor_ln + white)
        healed = x + np.where(volts >= law.heal_from_v, law.heal, 0.0) * np.maximum(
            np.log(filament) - x, 0.0
        )
        first = np.where(above >= 0, np.minimum(drawn, x), healed)
        again = np.where(
            around - x <= law.reach_ln, np.minimum(drawn, np.maximum(np.log(filament), x)), x
        )
        moved = np.where(broken, again, first)
        # A state that is left as it is must come back as the same number.
        after = np.where(moved == x, g_s, np.exp(np.maximum(moved, np.log(self.reset.floor_s))))
        return np.asarray(after, dtype=np.float64)

    def _worn(
        self, seed: int, index: IntArray, broken_s: FloatArray, cycles_done: IntArray | None
    ) -> float | FloatArray:
        """By how much (ln G) wear lets each cell's filament break less, or, where it is broken,
        lets a pulse open less.
        """
        law = self.reset.wear
        if law is None or cycles_done is None:
            return 0.0
        own = law.less_ln * -np.log(uniform(seed, Purpose.WEAR, index))
        part = -np.expm1(-cycles_done / law.cycles)
        return np.asarray(np.where(broken_s > 0, law.again_ln, own) * part, dtype=np.float64)

    @staticmethod
    def _whole(g_s: FloatArray, settled_s: FloatArray) -> FloatArray:
        """Size (S) of filaments that are whole: the settled one's, else what the cell reads."""
        return np.where(np.isnan(settled_s), g_s, settled_s)

    def broken_after(
        self,
        polarity: int,
        before_s: FloatArray,
        after_s: FloatArray,
        broken_s: FloatArray,
        settled_s: FloatArray | None = None,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """How large (S) the filaments were that are broken after a pulse of a polarity (1: SET), 0
        where they are whole.

        Also, of which a cycle begins: with the first RESET that lowers a cell or, where a cycle's
        error is in siemens, with every RESET. A SET that raises one grows a new filament.
        `broken_s` and `settled_s` as in `after_reset`.
        """
        if polarity > 0:
            return np.where(after_s > before_s, 0.0, broken_s), np.zeros(
                before_s.shape, dtype=np.bool_
            )
        broke = (broken_s == 0) & (after_s < before_s)
        whole_s = before_s if settled_s is None else self._whole(before_s, settled_s)
        begins = np.ones(broke.shape, dtype=np.bool_) if self.set.shifts else broke
        return np.where(broke, whole_s, broken_s), begins

    def relaxed(
        self, seed: int, index: IntArray, event: IntArray, g_s: FloatArray, age_s: FloatArray
    ) -> FloatArray:
        """Conductance (S) `age_s` seconds after a programming to `g_s` that was event number
        `event` of each cell.
        """
        if self.drift is not None:
            if np.max(age_s, initial=0.0) <= 10.0 ** (
                self.drift.log10_s[0] - self.drift.onset_decades
            ):
                return np.array(g_s, dtype=np.float64)
            chance = uniform(seed, Purpose.RELAX_PLACE, index, event)
            change = drift_change(
                self.drift,
                chance,
                np.asarray(g_s, dtype=np.float64),
                np.asarray(age_s, dtype=np.float64),
            )
            return np.asarray(np.maximum(g_s + change, 0.05 * g_s), dtype=np.float64)
        law = self.relaxation
        if law is None:
            return g_s
        body, tail, shift = relaxation_at(law, age_s)
        z1 = normal(seed, Purpose.RELAX_BODY, index, event)
        z2 = normal(seed, Purpose.RELAX_TAIL, index, event)
        weight = np.interp(g_s / law.g_max_s, law.g_ratio, law.weight)
        change = weight * (body * z1 + tail * z2**3 / np.sqrt(15.0) + shift)
        return np.asarray(np.maximum(g_s + change, 0.05 * g_s), dtype=np.float64)

    def noise_s(self, g_s: FloatArray) -> FloatArray:
        """Standard deviation (S) of the Gaussian noise of one read."""
        return np.asarray(np.hypot(self.read.fraction * g_s, self.read.floor_s), dtype=np.float64)

    def as_read(self, seed: int, traits: Traits, event: IntArray, g_s: FloatArray) -> FloatArray:
        """What one read sees of a conductance (S): noise and telegraph steps."""
        seen = g_s + self.noise_s(g_s) * normal(seed, Purpose.READ, traits.index, event)
        if self.read.telegraph_cells > 0:
            trapped = (
                uniform(seed, Purpose.TELEGRAPH, traits.index, event)
                < self.read.telegraph_occupancy
            )
            seen = seen - np.where(
                trapped & traits.telegraph, self.read.telegraph_amplitude * g_s, 0.0
            )
        return np.asarray(seen, dtype=np.float64)


class NumpyBank(CellBank):
    """Cells whose pulses and readings go the way that they went before."""

    def apply(
        self,
        bl_v: ArrayLike,
        sl_v: ArrayLike,
        wl_v: ArrayLike,
        width_s: ArrayLike = 200e-9,
        at: ArrayLike | None = None,
    ) -> None:
        """One pulse a cell: volts on BL, SL and WL and its width, each one value or one a cell.

        BL above SL is a SET (or forms), SL above BL a RESET; where they are equal nothing happens.
        """
        chosen = self._chosen(at)
        bl, sl, wl, width = (
            np.broadcast_to(np.asarray(v, dtype=np.float64), chosen.shape)
            for v in (bl_v, sl_v, wl_v, width_s)
        )
        drop, gate = bl - sl, wl - np.minimum(bl, sl)
        self._event[chosen] += drop != 0
        for one in np.unique(width):
            for sign in (1.0, -1.0):
                now = np.flatnonzero((drop * sign > 0) & (width == one))
                if now.size:
                    self._pulse(chosen[now], sign, np.abs(drop[now]), gate[now], float(one))
        self.now_s += float(width.max(initial=0.0))

    def _pulse(
        self, k: IntArray, sign: float, volts: FloatArray, gate: FloatArray, width_s: float
    ) -> None:
        before, formed, traits = self._now(k), self._formed[k], self._traits.part(k)
        event, settled, cycle = self._event[k], self._settled_s[k], self._cycle[k]
        pulse = (self.seed, traits, event, before, formed, volts, gate, width_s)
        if sign > 0:
            after, formed = self.model.after_set(*pulse, settled_s=settled, cycle=cycle)
        else:
            after = self.model.after_reset(
                *pulse,
                settled_s=settled,
                cycle=cycle,
                broken_s=self._broken_s[k],
                cycles_done=self._cycles_done[k],
            )
        self._broken_s[k], broke = self.model.broken_after(
            int(sign), before, after, self._broken_s[k], settled
        )
        self._cycle[k[broke]], self._settled_s[k[broke]] = event[broke], np.nan
        self._cycles_done[k[broke]] += 1
        moved = after != before
        to = k[moved]
        self._g[to], self._programmed_s[to], self._programming[to] = (
            after[moved],
            self.now_s + width_s,
            event[moved],
        )
        self._formed[k] = formed

    def read(self, at: ArrayLike | None = None) -> FloatArray:
        """One reading of each cell (S), with its noise."""
        chosen = self._chosen(at)
        self._event[chosen] += 1
        return self.model.as_read(
            self.seed, self._traits.part(chosen), self._event[chosen], self._now(chosen)
        )

    def _now(self, k: IntArray) -> FloatArray:
        g = self._g[k]
        if not self.model.relaxes:
            return g
        moved = np.flatnonzero(self._programming[k] > 0)
        old = k[moved]
        age = self.now_s - self._programmed_s[old]
        g[moved] = self.model.relaxed(
            self.seed, old, self._programming[old], g[moved], np.maximum(age, 0.0)
        )
        return g
