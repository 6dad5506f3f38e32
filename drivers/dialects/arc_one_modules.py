"""The ArC ONE board's own measurement modules: their settings as frozen values, their arguments as
lines, and what they stream.

Settings are volts across the cell (bit line minus word line), seconds, amperes and ohm. Each knows
its worst case: `extremes` (steps that no pulse of it passes) for the limits, `most_pulses` for the
ledger, `length_s` for the timeout. Job codes, the order of arguments and who says what when are
those of the maker's host programs arc1_pyqt (whose VirtualArC stands in for the board) and libarc1;
the board's firmware is not public, so how it steps inside a module is inferred from them and from
the manual, arc1_docs (unverified).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rram_hil.array import Cells, Span, Status, Step
from rram_hil.errors import ConfigError
from rram_hil.types import FloatArray, IntArray, StatusArray

LARGEST_V = 12.0
SHORTEST_S = 90e-9
LONGEST_S = 10.0
SERIES_CODES: dict[int, int] = {0: 7, 1_000: 1, 10_000: 2, 100_000: 3, 1_000_000: 4}
"""Series resistor (ohm, 0: none) -> its code."""
LARGEST_CUT_A = 1e-3
SMALLEST_CUT_A = 10e-6
AWKWARD_CUT_A = 10.1e-6
"""Sent for a cut-off of exactly 10 uA, which the board does not take."""
SHORTEST_CUT_S = 30e-6
"""How long the board takes to cut a current off: the shortest pulse with a cut-off (arc1_pyqt,
panel of Endurance; arc1_docs, "CurveTracer").
"""
HOLD_S = 2e-3
"""How much longer than it is told the board may hold a level of a curve tracer.

The panels CurveTracer and CT_LIVE of arc1_pyqt take 2 ms off the width that a person asks for, and
allow no less than 2 ms: the board then adds them, for its reading. CurveTracerCS and ParameterFit
there, and libarc1, send a width as it is; the manual states neither. Limits count the longer one.
"""
MOST_POINTS = 24
"""Points of a waveform, so that lines of zero at the next `connect` fill up what a killed program
has sent of it.
"""
_LAST_LEVEL = 1e-3
"""Part of a step by which the sent end of a ramp lies beyond its last level: a sum of rounded steps
must not miss that one.
"""


def real(value: float) -> str:
    """A number as the board takes it: 90 ns must not become 0.000000."""
    return f"{value:.6e}"


def _levels(name: str, low: float, step: float, high: float) -> int:
    """How many levels a ramp has, both ends included. Raises `ConfigError` for one that would never
    reach its end.
    """
    if not (0 < low <= high <= LARGEST_V):
        raise ConfigError(
            f"{name}: volts must rise from above 0 V to at most {LARGEST_V:g} V, not {low} to"
            f" {high}"
        )
    if low == high:
        return 1
    if not 0 < step <= high - low + 1e-12:
        raise ConfigError(
            f"{name}: v_step must lie above 0 V and at most at {high - low:g} V, not {step}"
        )
    count = (high - low) / step
    if abs(count - round(count)) > _LAST_LEVEL / 2:
        better = (high - low) / max(1, round(count))
        raise ConfigError(
            f"{name}: steps of {step:g} V from {low:g} V never reach {high:g} V; {better:.6g} V"
            " would"
        )
    return round(count) + 1


def _ramp(low: float, step: float, high: float) -> tuple[str, str, str]:
    """Arguments Vmin, Vstep, Vmax of a ramp that ends with `high` however the board rounds its
    sums.
    """
    if low == high:
        # One level: any step leaves the range after it.
        return real(low), real(high), real(high)
    return real(low), real(step), real(high + _LAST_LEVEL * step)


def _width(name: str, *widths: float) -> None:
    for width in widths:
        if not SHORTEST_S <= width <= LONGEST_S:
            raise ConfigError(
                f"{name}: a width of {width} s is outside the board's {SHORTEST_S:g} to"
                f" {LONGEST_S:g} s"
            )


def _seconds(name: str, *waits: float) -> None:
    for wait in waits:
        if not 0 <= wait < math.inf:
            raise ConfigError(f"{name}: interpulse_s must be 0 or more and finite, not {wait}")


def _counts(name: str, **counts: int) -> None:
    for what, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"{name}: {what} must be a whole number of 1 or more, not {count!r}")


def _cut(name: str, current: float) -> float:
    """A cut-off current as it is sent: 0 for none, else 10 uA to 1 mA. Raises `ConfigError` for any
    other.
    """
    if current == 0:
        return 0.0
    if not SMALLEST_CUT_A * (1 - 1e-9) <= current <= LARGEST_CUT_A:
        raise ConfigError(
            f"{name}: a cut-off must be 0 (none) or lie in 10 uA to 1 mA, not {current} A"
        )
    return max(current, AWKWARD_CUT_A)


class Board(Protocol):
    """The board as a module talks with it about one cell. All of it raises `LinkError` where the
    board is silent or says what cannot be.
    """

    def triplets(self) -> FloatArray:
        """Triplets up to the next terminator, shape (k, 3)."""

    def floats(self, count: int) -> FloatArray:
        """That many floats, shape (count,)."""

    def number(self) -> int:
        """A line of text that is a whole number."""

    def send(self, *lines: str | int) -> None:
        """Send lines, whole numbers as the board takes them among arguments."""


class Module(ABC):
    """Settings of one module; immutable, so no call changes those of another."""

    NAME: ClassVar[str]
    TALKS: ClassVar[bool] = False
    """Whether the host sends more after a device's address: such a job is of one device, so that
    what a killed program has left of it takes no more than one question for an answer.
    """

    @abstractmethod
    def lines(self) -> tuple[str, ...]:
        """Job code and arguments, up to the number of devices."""

    @abstractmethod
    def extremes(self) -> tuple[Step, ...]:
        """Steps that no pulse of this module passes in volts or width."""

    @property
    @abstractmethod
    def most_pulses(self) -> int:
        """Pulses that each cell takes at most: the charge to its ledger before the module runs."""

    @property
    @abstractmethod
    def length_s(self) -> float:
        """The longest that one cell keeps the board busy, its reads not counted (s)."""

    @property
    def reads(self) -> int:
        """Reads of one cell at most."""
        return self.most_pulses + 1

    @property
    def terminators(self) -> int:
        """How many terminators the board sends for one cell."""
        return 1

    @property
    def cut_a(self) -> float | None:
        """The largest current that the module lets through (A), or None where nothing cuts it."""
        return None

    def talk(self, board: Board, read_v: float) -> list[FloatArray]:
        """Hear, and answer, what the board says about one cell whose address it has: triplets of
        each cycle, shape (k, 3) each. `read_v` in volts, for readings that come without any.
        """
        return [board.triplets() for _ in range(self.terminators)]

    def pulses(self, cycles: list[FloatArray], read_v: float) -> int:
        """Pulses that one cell took, from its triplets of each cycle, shape (k, 3) each, `read_v`
        in volts. Where triplets are missing, or may be, that is the worst case.
        """
        told = sum(int(np.count_nonzero(np.abs(t[:, 1]) > read_v)) for t in cycles)
        if not all(self.is_whole(triplets) for triplets in cycles):
            return max(told, self.most_pulses)
        return told

    @abstractmethod
    def is_whole(self, triplets: FloatArray) -> bool:
        """Whether the triplets of one cycle of one cell, shape (k, 3), are all that it can have
        streamed.
        """


@dataclass(frozen=True)
class FormFinder(Module):
    """Ramp pulses until the resistance falls below `stop_ohm`, or changes by `stop_percent` (0:
    that test is off).

    At each level the width grows from `width_s` to `longest_s`, by `widen` percent (or by as many
    seconds, `widen_by`), `pulses` pulses each; then the level rises by `v_step`. The last level is
    exactly `v_max`. `series_ohm` is the board's own series resistor: 0 (none), 1e3, 1e4, 1e5 or
    1e6. `negative` turns the ramp's sign (unverified).
    """

    NAME: ClassVar[str] = "form finder"

    v_min: float
    v_step: float
    v_max: float
    width_s: float
    stop_ohm: float
    longest_s: float | None = None
    widen: float = 100.0
    widen_by: Literal["percent", "seconds"] = "percent"
    interpulse_s: float = 1e-3
    stop_percent: float = 0.0
    series_ohm: int = 0
    pulses_each: int = 1
    negative: bool = False

    def __post_init__(self) -> None:
        _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        _width(self.NAME, self.width_s, self._longest_s)
        _seconds(self.NAME, self.interpulse_s)
        _counts(self.NAME, pulses_each=self.pulses_each)
        _widening(self.NAME, self.width_s, self._longest_s, self.widen)
        if self.series_ohm not in SERIES_CODES:
            raise ConfigError(
                f"{self.NAME}: series_ohm must be one of {sorted(SERIES_CODES)}, not"
                f" {self.series_ohm}"
            )
        if not (
            self.stop_ohm >= 0
            and self.stop_percent >= 0
            and math.isfinite(self.stop_ohm + self.stop_percent)
        ):
            raise ConfigError(
                f"{self.NAME}: stop_ohm and stop_percent must be 0 or more and finite"
            )
        if self.stop_ohm == 0 and self.stop_percent == 0:
            raise ConfigError(
                f"{self.NAME}: without stop_ohm or stop_percent nothing would stop the ramp"
            )

    @property
    def _longest_s(self) -> float:
        return self.width_s if self.longest_s is None else self.longest_s

    @property
    def _widths(self) -> FloatArray:
        return _widths_of(self.width_s, self._longest_s, self.widen, self.widen_by)

    @property
    def _count(self) -> int:
        return _levels(self.NAME, self.v_min, self.v_step, self.v_max)

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 14, or 141 where widths grow by seconds."""
        sign = -1.0 if self.negative else 1.0
        ramp = [real(sign * float(v)) for v in _ramp(self.v_min, self.v_step, self.v_max)]
        linear = self.widen_by == "seconds"
        mode = ["1"] if linear else []
        return (
            "141" if linear else "14",
            *ramp,
            *_widening_lines(self.width_s, self._longest_s, self.widen, linear),
            real(self.interpulse_s),
            real(self.stop_ohm),
            real(self.stop_percent),
            *mode,
            str(SERIES_CODES[self.series_ohm]),
            str(self.pulses_each),
        )

    @override
    def extremes(self) -> tuple[Step, ...]:
        top = self.v_max + _LAST_LEVEL * self.v_step * (self.v_min < self.v_max)
        # Rounding must not turn a ramp that ends at the limit into one beyond it.
        return (
            Step(
                math.copysign(min(top, self.v_max), -1 if self.negative else 1),
                0.0,
                0.0,
                self._longest_s,
            ),
        )

    @property
    @override
    def most_pulses(self) -> int:
        return (
            _levels(self.NAME, self.v_min, self.v_step, self.v_max)
            * len(self._widths)
            * self.pulses_each
        )

    @property
    @override
    def length_s(self) -> float:
        levels = _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        return (
            levels
            * self.pulses_each
            * float(self._widths.sum() + self.interpulse_s * len(self._widths))
        )

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        """The first triplet is the initial read; a ramp that ends early has met a stop with its
        last one.
        """
        if len(triplets) == 0 or triplets[0, 2] != 0:
            return False
        plan = _plan(
            np.linspace(self.v_min, self.v_max, self._count), self._widths, self.pulses_each
        )
        if not _begins(plan, np.abs(triplets[1:, 1:])):
            return False
        first, last = triplets[0, 0], triplets[-1, 0]
        fell = bool(self.stop_ohm > 0 and last < self.stop_ohm)
        changed = self.stop_percent > 0 and abs(last - first) > self.stop_percent / 100 * first
        return len(triplets) == 1 + len(plan) or fell or bool(changed)

    @override
    def pulses(self, cycles: list[FloatArray], read_v: float) -> int:
        """All triplets but the first; see `Module.pulses`."""
        count = super().pulses(cycles, read_v)
        first_v = np.abs([t[0, 1] for t in cycles if len(t)])
        return count if count == self.most_pulses else count - int(np.sum(first_v > read_v))


def _plan(levels_v: FloatArray, widths_s: FloatArray, each: int) -> FloatArray:
    """Volts and widths of a ramp's triplets in order, shape (n, 2): every width at one level, then
    the next level.
    """
    pairs = np.stack(np.meshgrid(levels_v, widths_s, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.repeat(pairs, each, axis=0)


def _begins(plan: FloatArray, told: FloatArray) -> bool:
    """Whether the volts and widths told, shape (k, 2), are the first k of the plan."""
    return len(told) <= len(plan) and bool(np.allclose(told, plan[: len(told)], rtol=2e-3, atol=0))


def _widening(name: str, shortest_s: float, longest_s: float, widen: float) -> None:
    if longest_s < shortest_s:
        raise ConfigError(
            f"{name}: longest_s of {longest_s} s lies below width_s of {shortest_s} s"
        )
    if longest_s > shortest_s and not 0 < widen < math.inf:
        raise ConfigError(f"{name}: widen must be above 0 for widths that grow, not {widen}")


def _widening_lines(
    shortest_s: float, longest_s: float, widen: float, linear: bool
) -> tuple[str, str, str]:
    """Arguments wmin, wstep, wmax; a width that is not to grow still needs a step that leaves the
    range.
    """
    if longest_s == shortest_s:
        return real(shortest_s), real(longest_s if linear else 100.0), real(longest_s)
    return real(shortest_s), real(widen), real(longest_s * (1 + 1e-5))


def _widths_of(shortest_s: float, longest_s: float, widen: float, by: str) -> FloatArray:
    """The widths that a widening goes through (s)."""
    if longest_s == shortest_s:
        return np.array([shortest_s])
    if by == "seconds":
        count = int((longest_s - shortest_s) / widen + 1e-4) + 1
        return np.asarray(shortest_s + widen * np.arange(count), dtype=np.float64)
    factor = 1 + widen / 100
    count = int(math.log(longest_s / shortest_s) / math.log(factor) + 1e-4) + 1
    return np.asarray(shortest_s * factor ** np.arange(count), dtype=np.float64)


@dataclass(frozen=True)
class CurveTracer(Module):
    """I-V loops: from `v_start` to `v_pos` and back, and to -`v_neg` and back; the reading is taken
    at the bias.

    `cut_pos_a` and `cut_neg_a` are magnitudes, 0 for none or 10 uA to 1 mA; with `halt` the bias is
    cut within 30 us of passing one. `span`: "positive first", "negative first", "positive" or
    "negative" only. The board ends every cycle with a terminator. It may hold each level for
    `HOLD_S` longer than `width_s`, which is what it is told.
    """

    NAME: ClassVar[str] = "curve tracer"
    SPANS: ClassVar[tuple[str, ...]] = ("positive first", "negative first", "positive", "negative")

    v_pos: float
    v_neg: float
    v_step: float
    width_s: float
    v_start: float = 0.05
    interpulse_s: float = 1e-3
    cut_pos_a: float = 0.0
    cut_neg_a: float = 0.0
    cycles: int = 1
    pulsed: bool = False
    span: str = "positive first"
    halt: bool = False

    def __post_init__(self) -> None:
        if self.span not in self.SPANS:
            raise ConfigError(
                f"{self.NAME}: span must be one of {', '.join(self.SPANS)}, not {self.span!r}"
            )
        for side in self._sides:
            _levels(self.NAME, self.v_start, self.v_step, side)
        for side in (self.v_pos, self.v_neg):
            if not 0 <= side <= LARGEST_V:
                raise ConfigError(
                    f"{self.NAME}: v_pos and v_neg are magnitudes of at most {LARGEST_V:g} V, not"
                    f" {side}"
                )
        _width(self.NAME, self.width_s)
        _seconds(self.NAME, self.interpulse_s)
        _counts(self.NAME, cycles=self.cycles)
        _cut(self.NAME, self.cut_pos_a)
        _cut(self.NAME, self.cut_neg_a)

    @property
    def _sides(self) -> tuple[float, ...]:
        return {"positive": (self.v_pos,), "negative": (self.v_neg,)}.get(
            self.span, (self.v_pos, self.v_neg)
        )

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 201."""
        slack = _LAST_LEVEL * self.v_step
        return (
            "201",
            real(self.v_pos + slack),
            real(self.v_neg + slack),
            real(self.v_start),
            real(self.v_step),
            real(self.width_s),
            real(self.interpulse_s),
            real(_cut(self.NAME, self.cut_pos_a)),
            real(-_cut(self.NAME, self.cut_neg_a)),
            str(self.cycles),
            str(int(self.pulsed)),
            str(self.SPANS.index(self.span)),
            str(int(self.halt)),
        )

    @override
    def extremes(self) -> tuple[Step, ...]:
        steps = (
            Step(self.v_pos, 0.0, 0.0, self.width_s + HOLD_S),
            Step(-self.v_neg, 0.0, 0.0, self.width_s + HOLD_S),
        )
        return {"positive": steps[:1], "negative": steps[1:]}.get(self.span, steps)

    @property
    def _held(self) -> FloatArray:
        """Magnitudes of one cycle's levels: up each side and down again, its last level once
        (arc1_docs, the data set of "Saving data"; VirtualArC).
        """
        sides = []
        for top in self._sides:
            count = _levels(self.NAME, self.v_start, self.v_step, top)
            up = np.linspace(self.v_start, top, count)
            sides += [up, up[-2::-1]]
        return np.concatenate(sides)

    @property
    @override
    def most_pulses(self) -> int:
        return len(self._held) * self.cycles

    @override
    def pulses(self, cycles: list[FloatArray], read_v: float) -> int:
        """By the levels asked for: the board tells the volts that it measured."""
        if all(self.is_whole(triplets) for triplets in cycles):
            return self.cycles * int(np.count_nonzero(self._held > read_v + 1e-9))
        return super().pulses(cycles, read_v)

    @property
    @override
    def length_s(self) -> float:
        return self.most_pulses * (self.width_s + HOLD_S + self.interpulse_s)

    @property
    @override
    def terminators(self) -> int:
        """One a cycle."""
        return self.cycles

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        """Every level up and down; a loop that a cut-off ended early cannot be told from a damaged
        one.
        """
        return len(triplets) * self.cycles == self.most_pulses

    @property
    @override
    def cut_a(self) -> float | None:
        """Only where both sides that are driven have a cut-off."""
        cuts = {"positive": (self.cut_pos_a,), "negative": (self.cut_neg_a,)}.get(
            self.span, (self.cut_pos_a, self.cut_neg_a)
        )
        return max(cuts) if self.halt and all(cuts) else None


@dataclass(frozen=True)
class Endurance(Module):
    """`cycles` times `n_pos` pulses of `v_pos` and `n_neg` of `v_neg` (below 0 V), a read after
    each.
    """

    NAME: ClassVar[str] = "endurance"

    v_pos: float
    v_neg: float
    width_pos_s: float
    width_neg_s: float
    cycles: int
    cut_pos_a: float = 0.0
    cut_neg_a: float = 0.0
    interpulse_s: float = 1e-3
    n_pos: int = 1
    n_neg: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.v_pos <= LARGEST_V and 0 < -self.v_neg <= LARGEST_V):
            raise ConfigError(
                f"{self.NAME}: v_pos must lie above and v_neg below 0 V, both within"
                f" {LARGEST_V:g} V"
            )
        _width(self.NAME, self.width_pos_s, self.width_neg_s)
        _seconds(self.NAME, self.interpulse_s)
        _counts(self.NAME, cycles=self.cycles, n_pos=self.n_pos, n_neg=self.n_neg)
        for cut, width in (
            (self.cut_pos_a, self.width_pos_s),
            (self.cut_neg_a, self.width_neg_s),
        ):
            if _cut(self.NAME, cut) and width < SHORTEST_CUT_S:
                raise ConfigError(
                    f"{self.NAME}: a pulse of {width:g} s with a cut-off ends before that acts; at"
                    f" least {SHORTEST_CUT_S:g} s"
                )

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 191."""
        return (
            "191",
            real(self.v_pos),
            real(self.width_pos_s),
            real(_cut(self.NAME, self.cut_pos_a)),
            real(self.v_neg),
            real(self.width_neg_s),
            real(-_cut(self.NAME, self.cut_neg_a)),
            real(self.interpulse_s),
            str(self.n_pos),
            str(self.n_neg),
            str(self.cycles),
        )

    @override
    def extremes(self) -> tuple[Step, ...]:
        return (
            Step(self.v_pos, 0.0, 0.0, self.width_pos_s),
            Step(self.v_neg, 0.0, 0.0, self.width_neg_s),
        )

    @property
    @override
    def most_pulses(self) -> int:
        return self.cycles * (self.n_pos + self.n_neg)

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        return len(triplets) == self.most_pulses

    @property
    @override
    def length_s(self) -> float:
        pulses = self.n_pos * self.width_pos_s + self.n_neg * self.width_neg_s
        return self.cycles * pulses + self.most_pulses * self.interpulse_s


@dataclass(frozen=True)
class ConvergeToState(Module):
    """Pulse towards `target_ohm`, to within `target_percent` of it.

    The width grows before the amplitude rises; the board infers the polarity from the drift (more
    than `drift_percent`), starts with `polarity` and turns at most 5 times. Other keys as
    `FormFinder`.
    """

    NAME: ClassVar[str] = "converge to state"
    REVERSALS: ClassVar[int] = 5

    v_min: float
    v_step: float
    v_max: float
    width_s: float
    target_ohm: float
    longest_s: float | None = None
    widen: float = 100.0
    interpulse_s: float = 1e-3
    target_percent: float = 5.0
    drift_percent: float = 5.0
    pulses_each: int = 1
    polarity: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        _width(self.NAME, self.width_s, self._longest_s)
        _seconds(self.NAME, self.interpulse_s)
        _counts(self.NAME, pulses_each=self.pulses_each)
        _widening(self.NAME, self.width_s, self._longest_s, self.widen)
        for name in ("target_ohm", "target_percent", "drift_percent"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{self.NAME}: {name} must be above 0 and finite, not {getattr(self, name)}"
                )
        if self.polarity not in (1, -1):
            raise ConfigError(f"{self.NAME}: polarity must be 1 or -1, not {self.polarity!r}")

    @property
    def _longest_s(self) -> float:
        return self.width_s if self.longest_s is None else self.longest_s

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 21."""
        return (
            "21",
            *_ramp(self.v_min, self.v_step, self.v_max),
            *_widening_lines(self.width_s, self._longest_s, self.widen, linear=False),
            real(self.interpulse_s),
            real(self.target_ohm),
            real(self.target_percent),
            real(self.drift_percent),
            str(self.pulses_each),
            str(self.polarity),
        )

    @override
    def extremes(self) -> tuple[Step, ...]:
        return (
            Step(self.v_max, 0.0, 0.0, self._longest_s),
            Step(-self.v_max, 0.0, 0.0, self._longest_s),
        )

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        """Each triplet goes on along the ramp or turns to its beginning; the last one is near the
        target, at the end of the ramp, or before one turn too many.
        """
        levels = np.linspace(
            self.v_min, self.v_max, _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        )
        widths = _widths_of(self.width_s, self._longest_s, self.widen, "percent")
        plan = _plan(levels, widths, 1)
        turns = 1 + np.flatnonzero(np.diff(np.sign(triplets[:, 1])))
        runs = np.split(np.abs(triplets[:, 1:]), turns)
        if len(triplets) == 0 or not all(_begins(plan, run) for run in runs):
            return False
        near = abs(triplets[-1, 0] - self.target_ohm) <= 0.01 * (
            self.target_percent * self.target_ohm
        )
        return bool(near) or len(runs[-1]) == len(plan) or len(turns) == self.REVERSALS

    @override
    def pulses(self, cycles: list[FloatArray], read_v: float) -> int:
        """Every pulse of a triplet. A cell that was near the target from the start streams nothing,
        as one whose only triplet is lost: it is charged that one.
        """
        if not any(map(len, cycles)):
            return self.pulses_each
        count = super().pulses(cycles, read_v)
        return count if count == self.most_pulses else count * self.pulses_each

    @property
    @override
    def most_pulses(self) -> int:
        """The whole ramp once more after each reversal."""
        widths = _widths_of(self.width_s, self._longest_s, self.widen, "percent")
        levels = _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        return (1 + self.REVERSALS) * levels * len(widths) * self.pulses_each

    @property
    @override
    def length_s(self) -> float:
        return self.most_pulses * (self._longest_s + self.interpulse_s)


@dataclass(frozen=True)
class SwitchSeeker(Module):
    """Find the volts at which a cell switches: stage I the polarity, stage II `cycles` of ramps of
    either polarity.

    `stage_two` 0 leaves the polarity to stage I; 1 or -1 skips that. `slow` is job 152, else 15.
    """

    NAME: ClassVar[str] = "switch seeker"

    v_min: float
    v_step: float
    v_max: float
    width_s: float
    threshold_ohm: float
    interpulse_s: float = 1e-3
    reads_each: int = 5
    pulses_each: int = 1
    cycles: int = 5
    tolerance_percent: int = 10
    read_after_pulse: bool = True
    stage_two: Literal[0, 1, -1] = 0
    slow: bool = False

    def __post_init__(self) -> None:
        _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        _width(self.NAME, self.width_s)
        _seconds(self.NAME, self.interpulse_s)
        counts = {
            "reads_each": self.reads_each,
            "pulses_each": self.pulses_each,
            "cycles": self.cycles,
        }
        _counts(self.NAME, tolerance_percent=self.tolerance_percent, **counts)
        if not 0 < self.threshold_ohm < math.inf:
            raise ConfigError(
                f"{self.NAME}: threshold_ohm must be above 0 and finite, not {self.threshold_ohm}"
            )
        if self.stage_two not in (0, 1, -1):
            raise ConfigError(f"{self.NAME}: stage_two must be 0, 1 or -1, not {self.stage_two!r}")

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 15 or 152."""
        return (
            "152" if self.slow else "15",
            real(self.width_s),
            *_ramp(self.v_min, self.v_step, self.v_max),
            real(self.interpulse_s),
            real(self.threshold_ohm),
            str(self.reads_each),
            str(self.pulses_each),
            str(self.cycles),
            str(self.tolerance_percent),
            str(int(self.read_after_pulse)),
            str(self.stage_two),
        )

    @override
    def extremes(self) -> tuple[Step, ...]:
        return (Step(self.v_max, 0.0, 0.0, self.width_s), Step(-self.v_max, 0.0, 0.0, self.width_s))

    @property
    @override
    def most_pulses(self) -> int:
        """As VirtualArC steps: stage I goes up once, each level of either polarity, or (`slow`)
        begins anew for each level; stage II ends with two ramps in a row that move nothing, and
        gives one more for each of them.
        """
        levels = _levels(self.NAME, self.v_min, self.v_step, self.v_max)
        first = 0 if self.stage_two else levels * (levels + 1) if self.slow else 2 * levels
        return (first + 2 * (1 + self.cycles) * levels) * self.pulses_each

    @property
    @override
    def reads(self) -> int:
        return (self.most_pulses + 1) * self.reads_each

    @property
    @override
    def length_s(self) -> float:
        return self.most_pulses * (self.width_s + self.interpulse_s)

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        """Never sure: not every pulse of this module leaves a triplet."""
        return False


@dataclass(frozen=True)
class Chronoamperometry(Module):
    """Hold `bias_v` for `width_s` and read `count` (2 or more) times meanwhile; each reading counts
    as a pulse.
    """

    NAME: ClassVar[str] = "chronoamperometry"

    bias_v: float
    width_s: float
    count: int = 10

    def __post_init__(self) -> None:
        if not 0 < abs(self.bias_v) <= LARGEST_V:
            raise ConfigError(
                f"{self.NAME}: bias_v must not be 0 V and lie within {LARGEST_V:g} V, not"
                f" {self.bias_v}"
            )
        _width(self.NAME, self.width_s)
        _counts(self.NAME, count=self.count)
        if self.count < 2:
            raise ConfigError(f"{self.NAME}: count must be 2 or more, not {self.count}")

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 220."""
        return ("220", real(self.bias_v), real(self.width_s), str(self.count))

    @override
    def extremes(self) -> tuple[Step, ...]:
        return (Step(self.bias_v, 0.0, 0.0, self.width_s),)

    @property
    @override
    def most_pulses(self) -> int:
        return self.count

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        return len(triplets) == self.count

    @property
    @override
    def length_s(self) -> float:
        return self.width_s


@dataclass(frozen=True)
class Volatility(Module):
    """One pulse and a reading, then `batches` of `batch` readings of `averages` samples each while
    the cell falls back, then a last reading.

    The first triplet has the pulse's volts and width, the others `read_v` and the time since the
    pulse (s), NaN for the last, of which the board tells none. `stamp_s` is what a count of its
    time stamps stands for (unverified).
    """

    NAME: ClassVar[str] = "volatility"
    TALKS: ClassVar[bool] = True

    volts_v: float
    width_s: float
    batch: int = 100
    averages: int = 1
    batches: int = 1
    stamp_s: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < abs(self.volts_v) <= LARGEST_V:
            raise ConfigError(
                f"{self.NAME}: volts_v must not be 0 V and lie within {LARGEST_V:g} V"
            )
        _width(self.NAME, self.width_s)
        _counts(self.NAME, batch=self.batch, averages=self.averages, batches=self.batches)
        if not 0 < self.stamp_s < math.inf:
            raise ConfigError(f"{self.NAME}: stamp_s must be above 0 s, not {self.stamp_s}")

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 33."""
        return ("33", real(self.volts_v), real(self.width_s), str(self.batch), str(self.averages))

    @override
    def talk(self, board: Board, read_v: float) -> list[FloatArray]:
        """The board reads a batch, tells it, and waits for 0 (another) or 1 (enough)."""
        rows = [(float(board.floats(1)[0]), self.volts_v, self.width_s)]
        for left in range(self.batches - 1, -1, -1):
            for _ in range(self.batch):
                time_s = board.number() * self.stamp_s
                rows.append((float(board.floats(1)[0]), read_v, time_s))
            board.send(int(left == 0))
        rows.append((float(board.floats(1)[0]), read_v, math.nan))
        return [np.array(rows)]

    @override
    def extremes(self) -> tuple[Step, ...]:
        return (Step(self.volts_v, 0.0, 0.0, self.width_s),)

    @property
    @override
    def most_pulses(self) -> int:
        return 1

    @property
    @override
    def reads(self) -> int:
        return self.batch * self.averages

    @property
    @override
    def length_s(self) -> float:
        return self.width_s

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        return len(triplets) == self.batches * self.batch + 2

    @override
    def pulses(self, cycles: list[FloatArray], read_v: float) -> int:
        """One: its triplets are reads."""
        return 1


@dataclass(frozen=True)
class Waveform(Module):
    """Volts over time across each cell, with a reading before and after: the job of the public
    host's STDP panel. `points` are (s, V), the first at 0 s and the last at 0 V.

    Whether the board ramps from point to point or holds each until the next is unverified: every
    point counts as a pulse, and limits see the whole length at the largest volts of either
    polarity.
    """

    NAME: ClassVar[str] = "waveform"
    TALKS: ClassVar[bool] = True

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.points) <= MOST_POINTS:
            raise ConfigError(
                f"{self.NAME}: 2 to {MOST_POINTS} points are needed, not {len(self.points)}"
            )
        times, volts = np.array(self.points, dtype=np.float64).T
        if times[0] != 0 or volts[-1] != 0:
            raise ConfigError(f"{self.NAME}: points begin at 0 s and end at 0 V")
        if not np.all(np.diff(times) >= SHORTEST_S * (1 - 1e-9)):
            raise ConfigError(f"{self.NAME}: points must lie {SHORTEST_S:g} s or more apart")
        if not (times[-1] <= LONGEST_S and np.all(np.abs(volts) <= LARGEST_V)):
            raise ConfigError(
                f"{self.NAME}: points must lie within {LONGEST_S:g} s and {LARGEST_V:g} V"
            )

    @property
    def _volts(self) -> FloatArray:
        return np.array(self.points, dtype=np.float64)[:, 1]

    @override
    def lines(self) -> tuple[str, ...]:
        """Job 40, whose points follow each device."""
        return ("40",)

    @override
    def talk(self, board: Board, read_v: float) -> list[FloatArray]:
        """A reading; one waveform; readings before and after it; a reading."""
        first = board.floats(3)
        board.send(1, len(self.points), *(real(x) for point in self.points for x in point))
        before, after = board.floats(6).reshape(2, 3)
        last = board.floats(3)
        peak = self._volts[np.argmax(np.abs(self._volts))]
        pulse = (after[0], peak, self.points[-1][0])
        return [
            np.array([(first[0], read_v, 0), (before[0], read_v, 0), pulse, (last[0], read_v, 0)])
        ]

    @override
    def extremes(self) -> tuple[Step, ...]:
        width_s = self.points[-1][0]
        return (
            Step(float(self._volts.max()), 0.0, 0.0, width_s),
            Step(float(self._volts.min()), 0.0, 0.0, width_s),
        )

    @property
    @override
    def most_pulses(self) -> int:
        return int(np.count_nonzero(self._volts))

    @property
    @override
    def reads(self) -> int:
        return 4

    @property
    @override
    def length_s(self) -> float:
        return self.points[-1][0]

    @override
    def is_whole(self, triplets: FloatArray) -> bool:
        return len(triplets) == 4

    @override
    def pulses(self, cycles: list[FloatArray], read_v: float) -> int:
        """Every point beyond `read_v`."""
        return int(np.count_nonzero(np.abs(self._volts) > read_v))


def spike_pair(
    pre: tuple[tuple[float, float], ...], post: tuple[tuple[float, float], ...], delay_s: float
) -> Waveform:
    """What a cell sees of two spikes at its ends, for spike-timing-dependent plasticity: `pre` less
    `post`, with straight lines between their points (s, V); `pre` begins `delay_s` later (earlier
    where that is negative). Raises `ConfigError` for what `Waveform` does not take.
    """
    begin_s = min(delay_s, 0.0)
    spikes = [
        (np.array([t for t, _ in spike]) + start - begin_s, np.array([v for _, v in spike]))
        for spike, start in ((pre, delay_s), (post, 0.0))
    ]
    times = np.unique(np.concatenate([[0.0], *(at for at, _ in spikes)]))
    volts = [np.interp(times, at, v, left=0.0, right=0.0) for at, v in spikes]
    return Waveform(tuple(zip(times.tolist(), (volts[0] - volts[1]).tolist(), strict=True)))


@dataclass(frozen=True, eq=False)
class Triplets:
    """What a module streamed: k triplets of n cells, in order.

    `device` is each triplet's position in `cells`, `cycle` the terminators before it (from 0),
    `resistance_ohm` what the board told, `volts_v` and `width_s` the pulse (or read) before it.
    Only where `status` is OK is it a resistance. `pulses`, shape (n,), is what each cell took, for
    the ledger (`rram_hil.storage.ledger`): modules run beside the engine, so their caller charges
    it.
    """

    cells: Cells
    device: IntArray
    cycle: IntArray
    resistance_ohm: FloatArray
    volts_v: FloatArray
    width_s: FloatArray
    status: StatusArray
    pulses: IntArray
    span: Span = field(default_factory=Span)

    @property
    def conductance_s(self) -> FloatArray:
        """Conductance of each triplet (S), shape (k,); NaN where `status` is not OK."""
        return conductance_of(self.resistance_ohm, self.status)

    @property
    def current_a(self) -> FloatArray:
        """Current at the volts of each triplet (A), shape (k,): the I-V curve of a curve tracer."""
        return self.volts_v * self.conductance_s

    @property
    def last_s(self) -> FloatArray:
        """Conductance of each cell's last triplet (S), shape (n,); NaN for a cell without one."""
        last = np.full(len(self.cells), np.nan)
        last[self.device] = self.conductance_s
        return last

    def of(self, position: int) -> Triplets:
        """The triplets of the cell at one position."""
        here = self.device == position
        one = slice(position, position + 1)
        return Triplets(
            self.cells[one],
            np.zeros(int(here.sum()), dtype=np.int64),
            self.cycle[here],
            self.resistance_ohm[here],
            self.volts_v[here],
            self.width_s[here],
            self.status[here],
            self.pulses[one],
            self.span,
        )


def status_of(
    resistance_ohm: FloatArray, lowest_ohm: float, highest_ohm: float | None
) -> StatusArray:
    """What each resistance is worth.

    Positive ones are OK, but OVER_RANGE at or below `lowest_ohm` (as 0 is). Negative, infinite or
    NaN ones are NOT_A_NUMBER; where the board's `highest_ohm` is known, an infinite one, or a
    negative one beyond it, is OK: no current that can be told.
    """
    status = np.full(resistance_ohm.shape, Status.NOT_A_NUMBER, dtype=np.uint8)
    status[np.isfinite(resistance_ohm) & (resistance_ohm > 0)] = Status.OK
    if highest_ohm is not None:
        status[np.isinf(resistance_ohm) | (resistance_ohm <= -highest_ohm)] = Status.OK
    status[(resistance_ohm >= 0) & (resistance_ohm <= lowest_ohm)] = Status.OVER_RANGE
    return status


def conductance_of(resistance_ohm: FloatArray, status: StatusArray) -> FloatArray:
    """1 / R where `status` is OK, and 0 where that is so for want of a current; else NaN (S)."""
    ok = status == Status.OK
    conductance_s: FloatArray = np.where(ok, 0.0, np.nan)
    np.divide(
        1.0,
        resistance_ohm,
        out=conductance_s,
        where=ok & np.isfinite(resistance_ohm) & (resistance_ohm > 0),
    )
    return conductance_s


def is_terminator(triplet: NDArray[np.floating]) -> bool:
    """Whether three floats end a cell: all of them are 0. A negative or zero resistance alone is a
    reading.
    """
    return bool(np.all(triplet == 0))
