"""Programming by the chip's twin: each pulse is the one of which the device model, as far as the
cell's own answers bear it out, expects the fewest pulses more.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import ndtr, stdtr
from typing_extensions import override

from rram_hil.array import OtherLevels, PulseTrain, Ramp
from rram_hil.engine.protocol import Setting
from rram_hil.simulation.model import FITTED_PRESETS, PRESETS, DeviceModel
from rram_hil.types import FloatArray, IntArray
from rram_hil.validation import FiniteVolts, Fraction, PositiveSeconds, PositiveVolts, StrictModel

from .parts.programming import ByRounds
from .parts.rounds import Course, Move, Plain, Reason
from .parts.twin import Belief, Outcomes, PulseChoice, Table, Twin

UNDER, FAR_LN = 2.0, 1.0
"""What ending below the window costs (pulses): from near it, and one more for each `FAR_LN`."""
OVER = 2.8
"""What ending above the window costs (pulses): a RESET, and the way back."""
BACK = 2.3
"""What a cell costs that was RESET below its window (pulses): the SETs from there."""
LEAST_STEP, MOST_LEAST_LN = 0.5, 0.1
"""A SET is expected to grow ln G by at least this part of the window's width, or by this much: less
hardly tells from no pulse at all.
"""
ANEW = 4.0
"""So many pulses more to a window are worth a RESET and a new filament; each time so many more."""
NEVER = 99.0
"""Above every cost: pulses that are not worth giving."""
LEAST_FALL_LN = 0.05
"""Expected fall of ln G below which a RESET is not worth giving."""
LEAST_MOVE_LN = 0.01
"""Growth of ln G below which a SET has done nothing."""
_LEAST_GROWTH_LN = 1e-4
_AT_ONCE = 1 << 12
STUCK_LN = float(np.log(1e4))
"""Odds (ln) from which a cell that answers to nothing is given up as stuck."""
LEAST_WORTH = 0.01
"""Successes that a doubtful cell's worth of pulses must promise for it to go on."""
MOST_WORTH = 5
"""So many times its worth a doubtful cell gets that is not without hope."""
FEWEST_RESETS, FEWEST_SETS = 3, 15
"""Strongest pulses before a cell is left without hope; SETs may creep on for a while."""
_USUAL_LN, _USUAL_READINGS = 0.03, 4.0
"""Spread of ln G from one strong SET to the next before it is known, and for how many readings that
counts.
"""


class VoltsFromTo(StrictModel):
    """Volts that may be given: from `start_v` to `stop_v`, every `step_v`; a number is itself."""

    start_v: FiniteVolts
    stop_v: FiniteVolts
    step_v: PositiveVolts = 0.05

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"start_v": value, "stop_v": value} if is_number else value

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.stop_v < self.start_v:
            raise ValueError(f"stop_v ({self.stop_v}) must not lie below start_v ({self.start_v})")
        if (self.stop_v - self.start_v) / self.step_v > _MOST_PULSES:
            raise ValueError(f"at most {_MOST_PULSES} steps of step_v from start_v to stop_v")
        return self

    def volts(self) -> FloatArray:
        """All of them, rising."""
        steps = int(np.floor((self.stop_v - self.start_v) / self.step_v + 1e-9))
        return np.asarray(self.start_v + self.step_v * np.arange(steps + 1), dtype=np.float64)

    def ramp(self) -> Ramp:
        """A ramp that reaches both ends and no further."""
        return Ramp(self.start_v, self.stop_v, self.step_v)


_MOST_PULSES = 200


class ChosenPulses(OtherLevels):
    """Pulses of one polarity of which each cell is given what suits it: one of amplitude (BL for
    SET, SL for RESET) and gate is a range, the other stands.
    """

    amplitude_v: VoltsFromTo
    gate_v: VoltsFromTo
    width_s: PositiveSeconds

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        if (self.amplitude_v.volts().size > 1) == (self.gate_v.volts().size > 1):
            raise ValueError("one of amplitude_v and gate_v must be a range, the other a number")
        return self

    def choice(self, *, gated: bool = True) -> PulseChoice:
        """All pulses, weakest first; of cells without a gate (not `gated`) it is wide open."""
        amplitude, gate = np.broadcast_arrays(self.amplitude_v.volts(), self.gate_v.volts())
        return PulseChoice(amplitude, gate if gated else np.full(gate.shape, np.inf), self.width_s)

    def ends(self) -> PulseTrain:
        """A train that reaches both ends of the range and no further."""
        ramps = self.amplitude_v.ramp(), self.gate_v.ramp()
        return PulseTrain(*ramps, self.width_s, self.body_v, self.unselected_wl_v)


class ModelAware(ByRounds):
    """Program by the chip's twin: the pulse after which the fewest more are expected, by `model`
    and by what the cell itself answered so far.

    `model` is a preset or a file that `rram-hil calibrate device-model` fitted to a run of this
    chip or of its like. It is tabulated once on virtual cells; every reading weighs them anew for
    the cell, so that a slow or a strong one is known after a pulse or two. No pulse is given whose
    expected change is below the noise of a reading. A cell whose chance to open (to come below its
    window's upper end), as far as it is known yet, is under `least_chance` a RESET is a doubtful
    one; a map says after how many RESETs it was first thought so. It is worth `doubtful_resets`
    RESETs, which doubtful cells share: one from which so many promise less than `LEAST_WORTH`
    successes is left at once, as never opened, and one with more hope takes up to `MOST_WORTH`
    times as many. So do cells that the strongest SET leaves below their windows again and again,
    by the spread of their own readings; they are left as never closed. One that answers to no pulse
    is left as stuck as soon as the odds of that are 10,000 to 1. How it compares with the other
    methods stands in docs/programming.md.
    """

    model: Annotated[
        str,
        Field(
            min_length=1, description="a preset's name, or a file relative to the recipe's folder"
        ),
    ]
    set: ChosenPulses
    reset: ChosenPulses
    doubtful_resets: Annotated[int, Field(ge=1)] = 20
    least_chance: Fraction = 0.04
    virtual_cells: Annotated[int, Field(ge=4, le=1024)] = Field(
        default=256,
        description="how finely cells are told apart; 8 bytes of memory a cell for each",
    )
    max_pulses: Annotated[int, Field(ge=1)] = 100
    max_reversals: Annotated[int, Field(ge=0)] = 50

    @override
    def input_files(self) -> tuple[str, ...]:
        own = () if self.model in (*PRESETS, *FITTED_PRESETS) else (self.model,)
        return (*super().input_files(), *own)

    @override
    def policy(self, course: Course, setting: Setting) -> ByTwin:
        seed = int(setting.rng("virtual cells").integers(1 << 31))
        gated = setting.geometry.cell == "1T1R"
        twin = Twin(
            DeviceModel.load(self.model, setting.folder),
            self.set.choice(gated=gated),
            self.reset.choice(gated=gated),
            seed,
            self.virtual_cells,
        )
        return ByTwin(twin, course, self.doubtful_resets, self.least_chance)

    @override
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        return self.set.ends(), self.reset.ends()


class ByTwin(Plain):
    """The policy: a belief for each cell of `course`, and of the pulses the one of least cost."""

    def __init__(
        self, twin: Twin, course: Course, doubtful_resets: int, least_chance: float
    ) -> None:
        n = len(course.cells)
        self.twin, self.belief = twin, Belief(twin, n)
        self.doubtful = np.zeros(n, dtype=np.bool_)
        self._doubtful_resets, self._least_chance = doubtful_resets, least_chance
        self._low_ln = np.where(course.low_s > 0, twin.ln(course.low_s), -np.inf)
        self._high_ln = np.where(np.isfinite(course.high_s), twin.ln(course.high_s), np.inf)
        self._pulse = np.zeros(n, dtype=np.int64)
        # Of the pulses since a cell last moved, the strongest: what did nothing is not repeated.
        self._tried = np.full(n, -1, dtype=np.int64)
        self._tried_all = np.zeros(n, dtype=np.bool_)
        self._is_slow = np.zeros(n, dtype=np.bool_)
        self._anew = np.zeros(n, dtype=np.int64)
        self._opens, self._levels = np.ones(n), Levels(n)

    def next(self, course: Course, at: IntArray) -> Move:
        """Below the window the SET, above it the RESET of which the fewest more are expected; the
        strongest RESET where a filament grows too slowly.
        """
        polarity = course.wanted[at].copy()
        for begin in range(0, at.size, _AT_ONCE):
            some = at[begin : begin + _AT_ONCE]
            for sign in (1, -1):
                self._choose(course, some[course.wanted[some] == sign], sign)
        slow = self._is_slow[at] & (polarity > 0)
        polarity[slow] = -1
        self._anew[at] += slow
        self._pulse[at[slow]] = self.twin.reset_pulses.gate_v.size - 1
        sets, resets = self.twin.set_pulses, self.twin.reset_pulses
        is_set, pulse = polarity > 0, self._pulse[at]

        def own(of_set: FloatArray, of_reset: FloatArray) -> FloatArray:
            return np.where(is_set, of_set[pulse * is_set], of_reset[pulse * ~is_set])

        return Move(
            at,
            polarity,
            own(sets.amplitude_v, resets.amplitude_v),
            own(sets.gate_v, resets.gate_v),
            np.where(is_set, sets.width_s, resets.width_s),
        )

    def _choose(self, course: Course, at: IntArray, sign: int) -> None:
        x = self.twin.ln(course.last_s[at])
        noise = self.twin.noise_ln(course.last_s[at])[:, None]
        weight = self.belief.weight(at)
        for here, outcomes in self.belief.outcomes(at, sign):
            if not here.size:
                continue
            k, now = at[here], x[here, None]
            mean, spread = self.twin.expected(outcomes, weight[here], x[here])
            if sign > 0:
                off = self.belief.off_ln(k)[:, None]
                mean += off * np.clip((mean - now) / MOST_LEAST_LN, 0.0, 1.0)
            low, high = self._low_ln[k, None], self._high_ln[k, None]
            same = course.polarity[k] == sign
            tried = np.arange(mean.shape[1]) <= np.where(same, self._tried[k], -1)[:, None]
            under, over = ndtr((low - mean) / spread), ndtr((mean - high) / spread)
            if sign > 0:
                far = np.clip((low - mean) / FAR_LN, 0.0, 1.0)
                cost = under * (UNDER + far) + over * OVER
                least = np.maximum(
                    noise[here], np.minimum(LEAST_STEP * (high - low), MOST_LEAST_LN)
                )
                weak = (mean - now < least) | tried
                to_go = (low - now)[:, 0] / np.maximum((mean - now).max(axis=1), _LEAST_GROWTH_LN)
                self._is_slow[k] = to_go > ANEW * (1 + self._anew[k])
                self._is_slow[k] &= ~self.belief.broken[k] & (self.belief.stuck_ln[k] < 0)
            else:
                cost = under * BACK + over * OVER
                weak = (now - mean < np.maximum(noise[here], LEAST_FALL_LN)) | tried
            # The strongest is always allowed, and must be tried before a cell is called stuck.
            cost[:, :-1][weak[:, :-1]] = NEVER
            cost[self.belief.stuck_ln[k] > STUCK_LN, :-1] = NEVER
            self._pulse[k] = cost.argmin(axis=1)
            if sign < 0:
                self._doubt(course, k, weight[here], outcomes, x[here])

    def _doubt(
        self, course: Course, at: IntArray, weight: Table, outcomes: Outcomes, x: FloatArray
    ) -> None:
        """Which cells the strongest RESET hardly ever brings below the window's upper end."""
        chance = self.twin.chance(outcomes, weight, x, self._high_ln[at])
        self._opens[at] = chance
        never = course.least_s[at] > course.high_s[at]
        self.doubtful[at] = never & (chance < self._least_chance) & (course.resets[at] > 0)
        new = at[self.doubtful[at] & (course.doubted[at] == 0)]
        course.doubted[new] = course.resets[new]

    @override
    def learn(
        self, course: Course, at: IntArray, move: Move, before_s: FloatArray, after_s: FloatArray
    ) -> None:
        """Weigh the virtual cells by what came of each pulse."""
        for sign in (1, -1):
            here = move.polarity == sign
            k = at[here]
            self.belief.learn(k, sign, self._pulse[k], before_s[here], after_s[here])
            choice = self.twin.set_pulses if sign > 0 else self.twin.reset_pulses
            strongest = self._pulse[k] == choice.gate_v.size - 1
            self._tried_all[k] = strongest
            if sign > 0:
                again = k[strongest & (course.in_a_row[k] > 1)]
                self._levels.add(again, self.twin.ln(course.last_s[again]), self._low_ln[again])
            else:
                self._levels.forget(k)
            moved = sign * (self.twin.ln(after_s[here]) - self.twin.ln(before_s[here]))
            still = moved < (LEAST_MOVE_LN if sign > 0 else LEAST_FALL_LN)
            self._tried[k] = np.where(still, self._pulse[k], -1)

    @override
    def gives_up(self, course: Course, at: IntArray) -> NDArray[np.int8]:
        """Cells that answer to nothing, and doubtful ones that are not worth another pulse."""
        stuck = (self.belief.stuck_ln[at] > STUCK_LN) & self._tried_all[at]
        low = course.wanted[at] < 0
        opens, closes = self._opens[at], self._levels.closes[at]
        shut = self.doubtful[at] & (course.least_s[at] > course.high_s[at])
        shut &= self._spent(opens, course.resets[at] >= FEWEST_RESETS, course.resets[at])
        open_ = (closes < self._least_chance) & (course.most_s[at] < course.low_s[at])
        open_ &= self._spent(closes, self._levels.count[at] >= FEWEST_SETS, course.sets[at])
        return np.select(
            [stuck & low, stuck, low & shut, ~low & open_],
            [
                Reason.STUCK_LOW_RESISTANCE,
                Reason.STUCK_HIGH_RESISTANCE,
                Reason.NEVER_OPENED,
                Reason.NEVER_CLOSED,
            ],
            Reason.GO_ON,
        ).astype(np.int8)

    def _spent(
        self, chance: FloatArray, known: NDArray[np.bool_], given: IntArray
    ) -> NDArray[np.bool_]:
        """Whether doubtful cells with this chance a pulse, `known` or not yet, have had with so
        many pulses `given` what they are worth.
        """
        hopeless = known & (chance * self._doubtful_resets < LEAST_WORTH)
        return np.asarray(hopeless | (given >= MOST_WORTH * self._doubtful_resets))


class Levels:
    """Where the strongest SET leaves each of `n` cells again and again, on one filament: how many
    readings `count`, and the chance `closes` that one more such SET brings it into its window.
    """

    def __init__(self, n: int) -> None:
        self.count = np.zeros(n, dtype=np.int64)
        self.closes = np.ones(n)
        self._mean, self._squares = np.zeros(n), np.zeros(n)

    def add(self, at: IntArray, x: FloatArray, low_ln: FloatArray) -> None:
        """One more reading (ln G) of these cells, whose windows begin at `low_ln`."""
        self.count[at] += 1
        n, off = self.count[at], x - self._mean[at]
        self._mean[at] += off / n
        self._squares[at] += off * (x - self._mean[at])
        free = n - 1 + _USUAL_READINGS
        square = (self._squares[at] + _USUAL_READINGS * _USUAL_LN**2) / free
        self.closes[at] = stdtr(free, (self._mean[at] - low_ln) / np.sqrt(square * (1 + 1 / n)))

    def forget(self, at: IntArray) -> None:
        """A new filament, of which nothing is known."""
        self.count[at] = self._mean[at] = self._squares[at] = 0
        self.closes[at] = 1.0
