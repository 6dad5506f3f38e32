"""A chip's twin (its device model) as a programmer asks it: what each pulse would do to a cell, and
what a cell's answers say of it.

The model is carried out once on virtual cells, for every pulse that may be chosen and from
conductances over its whole range; what came of it is a table. A cell on the bench is then a weight
on each virtual cell, which every reading changes by Bayes' rule. Nothing here knows the model's
laws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import ConfigError
from rram_hil.simulation.model import DeviceModel
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import quantity

Table = NDArray[np.float32]

_STARTS, _CYCLES = 24, 2
_DRAWS, _STRONG_DRAWS = 6, 64
_CLOSED = 1.5
"""Conductance, over that of the model's best SET, up to which starts are tabulated."""
_AT_ONCE, _COUNTED_AT_ONCE = 1 << 12, 1 << 7
"""Cells that are judged together, and whose chances are counted: these bound the memory."""
_WORST_LN = -4.0
"""What one reading can tell against a virtual cell, at most: no model knows every outlier."""
_TAILS = 4.0
"""Degrees of freedom of the t distribution by which readings are judged."""
_SURE_LN = 0.015
"""Spread of ln G below which no prediction is believed."""
_KEPT = 0.7
"""Part of what is known of a cell (in ln) that holds beyond the cycle in which it was seen."""
_STUCK = 0.01
"""Chance that a cell answers to nothing, before anything is known of it."""
_MUCH_LN = 0.1
"""Expected change of ln G from which a cell that stays where it is may be stuck."""
_LEAST_SPREAD_LN = 0.005
_SURELY_OFF = 4.0
"""Standard errors by which readings must lie off what is expected before that is taken over."""
_FELL_LN = 0.1
"""Fall of ln G by which a RESET has broken a filament."""


@dataclass(frozen=True, eq=False)
class PulseChoice:
    """The pulses of one polarity that may be given: BL (SET) or SL (RESET), gate, shape (c,) each,
    and width.
    """

    amplitude_v: FloatArray
    gate_v: FloatArray
    width_s: float


@dataclass(frozen=True, eq=False)
class Outcomes:
    """ln G after each pulse of a choice: mean and spread, shape (starts, virtual cells, pulses).

    Of the strongest RESET also draws, shape (starts, virtual cells, draws): a spread does not tell
    of tails.
    """

    mean: Table
    spread: Table
    strongest: Table


class Twin:
    """What a device model expects of `set_pulses` and `reset_pulses`.

    `traits` cells, each in `cycles` cycles, are drawn with `seed`: the first number is how finely
    cells are told apart, the second how finely what holds for one cycle only. Raises `ConfigError`
    where the model knows no SET by these pulses.
    """

    def __init__(
        self,
        model: DeviceModel,
        set_pulses: PulseChoice,
        reset_pulses: PulseChoice,
        seed: int,
        traits: int,
        cycles: int = _CYCLES,
    ) -> None:
        self.model, self.seed = model, seed
        self.traits, self.cycles = traits, cycles
        self.set_pulses, self.reset_pulses = set_pulses, reset_pulses
        self.least_s = max(model.reset.floor_s, model.read.floor_s)
        highest_s = float(self._set_to(set_pulses).max()) * _CLOSED
        if not highest_s > self.least_s:
            raise ConfigError(
                f"model: by {model.name} no SET of these pulses gives more than"
                f" {quantity(self.least_s, 'S')}; set.amplitude_v and set.gate_v must reach further"
            )
        self.start_ln = np.linspace(np.log(self.least_s), np.log(highest_s), _STARTS)
        self.by_set = self._outcomes(set_pulses, 1, 0.0)
        self.by_first_reset = self._outcomes(reset_pulses, -1, 0.0)
        self.by_next_reset = self._outcomes(reset_pulses, -1, highest_s / _CLOSED)

    def _set_to(self, pulses: PulseChoice) -> FloatArray:
        return self.model.nominal_set_s(pulses.gate_v, pulses.amplitude_v, pulses.width_s)

    def _outcomes(self, pulses: PulseChoice, polarity: int, broken_s: float) -> Outcomes:
        drawn = self._drawn(pulses, polarity, broken_s, _DRAWS)
        # Nothing asks for the tails of a SET.
        tails = _STRONG_DRAWS if polarity < 0 else 0
        strongest = PulseChoice(pulses.amplitude_v[-1:], pulses.gate_v[-1:], pulses.width_s)
        return Outcomes(
            drawn.mean(axis=0).astype(np.float32),
            drawn.std(axis=0, ddof=1).astype(np.float32),
            np.moveaxis(self._drawn(strongest, polarity, broken_s, tails)[..., 0], 0, 2).astype(
                np.float32
            ),
        )

    def _drawn(self, pulses: PulseChoice, polarity: int, broken_s: float, draws: int) -> FloatArray:
        """ln G of so many draws of each pulse from each start, shape (draws, starts, virtual cells,
        pulses); `broken_s`: size (S) of the filament that a RESET before broke, 0 for whole ones.
        """
        shape = (draws, self.traits, self.cycles, pulses.gate_v.size)
        draw, cell, cycle, pulse = (part.ravel() for part in np.indices(shape))
        of_cells = self.model.traits(self.seed, np.arange(self.traits))
        of_cells = replace(of_cells, stuck=np.zeros_like(of_cells.stuck)).part(cell)
        formed, settled_s = np.ones(draw.size, dtype=np.bool_), np.full(draw.size, np.nan)
        volts, gate_v = pulses.amplitude_v[pulse], pulses.gate_v[pulse]
        found = np.empty((draws, _STARTS, self.traits * self.cycles, pulses.gate_v.size))
        # Start by start, which bounds the memory.
        for start, begin_s in enumerate(np.exp(self.start_ln)):
            # Every draw of its own: an event number for each draw, start, cycle and pulse.
            event = 1 + pulse + shape[3] * (cycle + self.cycles * (start + _STARTS * draw))
            before_s = np.full(draw.size, begin_s)
            given = (self.seed, of_cells, event, before_s, formed, volts, gate_v, pulses.width_s)
            if polarity > 0:
                after_s, _ = self.model.after_set(*given, settled_s=settled_s, cycle=cycle)
            else:
                broken = np.full(draw.size, broken_s)
                after_s = self.model.after_reset(
                    *given, settled_s=settled_s, cycle=cycle, broken_s=broken
                )
            found[:, start] = self.ln(after_s).reshape(found[:, start].shape)
        return found

    def ln(self, conductance_s: FloatArray) -> FloatArray:
        """ln of readings (S), none below the least that the model tells apart."""
        found: FloatArray = np.log(np.maximum(conductance_s, self.least_s))
        return found

    def noise_ln(self, conductance_s: FloatArray) -> FloatArray:
        """Noise of one reading in ln G."""
        held = np.clip(conductance_s, self.least_s, np.exp(self.start_ln[-1]))
        found: FloatArray = self.model.noise_s(held) / held
        return found

    def _between(self, x: FloatArray) -> tuple[IntArray, FloatArray]:
        """The start below each ln G, and how far it lies towards the next."""
        step = self.start_ln[1] - self.start_ln[0]
        place = np.clip((x - self.start_ln[0]) / step, 0.0, _STARTS - 1.0)
        at = np.minimum(place.astype(np.int64), _STARTS - 2)
        return at, place - at

    def expected(
        self, outcomes: Outcomes, weight: Table, x: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and spread of ln G after each pulse, shape (n, pulses), for cells at ln G `x` with
        these weights on the virtual cells.
        """
        at, part = self._between(x)
        mean, square = (np.zeros((x.size, outcomes.mean.shape[2])) for _ in range(2))
        for start in np.unique(at):
            here = np.flatnonzero(at == start)
            for beside in (0, 1):
                share = (part[here] if beside else 1 - part[here])[:, None]
                level = outcomes.mean[start + beside]
                mean[here] += share * (weight[here] @ level)
                squares = level**2 + outcomes.spread[start + beside] ** 2
                square[here] += share * (weight[here] @ squares)
        spread = np.sqrt(np.maximum(square - mean**2, _LEAST_SPREAD_LN**2))
        return mean, np.asarray(spread, dtype=np.float64)

    def chance(
        self, outcomes: Outcomes, weight: Table, x: FloatArray, below_ln: FloatArray
    ) -> FloatArray:
        """Chance that the strongest pulse brings each cell below `below_ln`, shape (n,)."""
        at, part = self._between(x)
        nearest = at + (part > 0.5)
        found = np.empty(x.size)
        for begin in range(0, x.size, _COUNTED_AT_ONCE):
            some = slice(begin, begin + _COUNTED_AT_ONCE)
            below = outcomes.strongest[nearest[some]] < below_ln[some, None, None]
            found[some] = (weight[some] * below.mean(axis=2)).sum(axis=1)
        return found

    def of(self, outcomes: Outcomes, x: FloatArray, pulse: IntArray) -> tuple[Table, Table]:
        """Mean and spread of ln G of each virtual cell after each cell's `pulse`, shape (n, virtual
        cells).
        """
        at, part = self._between(x)
        share = part[:, None].astype(np.float32)
        mean, spread = (
            (1 - share) * table[at, :, pulse] + share * table[at + 1, :, pulse]
            for table in (outcomes.mean, outcomes.spread)
        )
        return mean, spread


class Belief:
    """What is known of `n` cells: the weight of each virtual cell of the twin, whether a cell's
    filament is broken, and the odds (ln) that it is stuck.
    """

    def __init__(self, twin: Twin, n: int) -> None:
        self.twin = twin
        self.broken = np.zeros(n, dtype=np.bool_)
        self.stuck_ln = np.full(n, np.log(_STUCK / (1 - _STUCK)))
        self._off_sum, self._off_weight = np.zeros(n), np.zeros(n)
        self._ln = np.zeros((n, twin.traits * twin.cycles), dtype=np.float32)

    def weight(self, at: IntArray) -> Table:
        """Weights of the virtual cells, shape (n of `at`, virtual cells)."""
        weight = np.exp(self._ln[at])
        found: Table = weight / weight.sum(axis=1, keepdims=True)
        return found

    def off_ln(self, at: IntArray) -> FloatArray:
        """By how much ln G comes out higher after SETs than any virtual cell has it, shape (n of
        `at`,): none unless the readings are surely off.
        """
        weight = np.maximum(self._off_weight[at], 1e-9)
        mean = self._off_sum[at] / weight
        unsure = _SURELY_OFF**2 / weight
        return np.asarray(
            mean * np.maximum(0.0, 1.0 - unsure / np.maximum(mean**2, 1e-12)), dtype=np.float64
        )

    def outcomes(self, at: IntArray, polarity: int) -> list[tuple[IntArray, Outcomes]]:
        """The tables that tell what pulses of a polarity do to these cells, and to which (places in
        `at`).
        """
        if polarity > 0:
            return [(np.arange(at.size), self.twin.by_set)]
        broken = self.broken[at]
        return [
            (np.flatnonzero(~broken), self.twin.by_first_reset),
            (np.flatnonzero(broken), self.twin.by_next_reset),
        ]

    def learn(
        self,
        at: IntArray,
        polarity: int,
        pulse: IntArray,
        before_s: FloatArray,
        after_s: FloatArray,
    ) -> None:
        """Readings (S) before and after each cell's `pulse` of its choice."""
        for begin in range(0, at.size, _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            for place, outcomes in self.outcomes(at[some], polarity):
                here = place + begin
                self._judge(outcomes, at[here], pulse[here], before_s[here], after_s[here])
        if polarity > 0:
            self.broken[at[after_s > before_s]] = False
            return
        fell = self.twin.ln(after_s) < self.twin.ln(before_s) - _FELL_LN
        self._new_cycle(at[fell & ~self.broken[at]])
        self.broken[at[fell]] = True

    def _judge(
        self,
        outcomes: Outcomes,
        at: IntArray,
        pulse: IntArray,
        before_s: FloatArray,
        after_s: FloatArray,
    ) -> None:
        if not at.size:
            return
        before, after = self.twin.ln(before_s), self.twin.ln(after_s)
        mean, spread = self.twin.of(outcomes, before, pulse)
        noise = np.hypot(self.twin.noise_ln(after_s), _SURE_LN)
        told = _told(after[:, None] - mean, np.hypot(spread, noise[:, None]))
        weight = self.weight(at)
        # Where little is expected, nothing that comes of it tells against a cell.
        middle = (weight * mean).sum(axis=1)
        tells = np.abs(middle - before) > _MUCH_LN
        answers = np.log((weight * np.exp(told)).sum(axis=1))
        if outcomes is self.twin.by_set:
            square = (weight * (spread**2 + mean**2)).sum(axis=1) - middle**2
            much = tells / (square + noise**2)
            self._off_sum[at] += much * (after - middle)
            self._off_weight[at] += much
        self.stuck_ln[at] += np.where(tells, _told(after - before, noise) - answers, 0.0)
        self._ln[at] += told.astype(np.float32)
        self._ln[at] -= self._ln[at].max(axis=1, keepdims=True)

    def _new_cycle(self, at: IntArray) -> None:
        """A filament broke: what was the last cycle's own is forgotten."""
        if not at.size:
            return
        weight = np.exp(self._ln[at]).reshape(at.size, self.twin.traits, self.twin.cycles)
        own = _KEPT * np.log(np.maximum(weight.mean(axis=2, keepdims=True), 1e-30))
        self._ln[at] = np.broadcast_to(own - own.max(axis=1, keepdims=True), weight.shape).reshape(
            at.size, -1
        )


def _told(off: FloatArray | Table, spread: FloatArray | Table) -> FloatArray:
    """ln of the likelihood of what lies `off` the expected, but for a constant."""
    judged = -np.log(spread) - (_TAILS + 1) / 2 * np.log1p((off / spread) ** 2 / _TAILS)
    return np.asarray(np.maximum(judged, _WORST_LN), dtype=np.float64)
