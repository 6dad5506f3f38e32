"""A simulated chip whose operations are decided outside: a board's own firmware gives shot after
shot, each one step of one cell.

Results are those of `SimulatedChip.execute` for the same operation: where a later shot depends on
a reading, a cell's age is counted from the operation's start, as there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rram_hil.array import LINES, Measured, Scheme, Step
from rram_hil.simulation.chip import Batch, SimulatedChip
from rram_hil.simulation.half_select import Beside, Dose, Exposure
from rram_hil.types import FloatArray, IntArray

FLOATING = np.int32(-2147483648)
MEASURES: tuple[Measured, ...] = ("no", "current", "gate")
SHOT = np.dtype(
    {
        "names": ["width_ps", "cell", "uv", "measure"],
        "formats": ["<u8", "<u4", ("<i4", (3,)), "u1"],
        "offsets": [0, 8, 12, 24],
        "itemsize": 32,
    }
)
READING = np.dtype(
    {
        "names": ["current_a", "time_s", "status"],
        "formats": ["<f8", "<f8", "u1"],
        "offsets": [0, 8, 16],
        "itemsize": 24,
    }
)
Records = NDArray[Any]
NOTHING_BESIDE, OTHERS_AT_ZERO = Beside(), Beside(None, 0.0)


@dataclass(eq=False)
class _Visit:
    """A cell whose shots depend on each other: its batch, when the operation and when it began;
    how many readings it has had, and shots since the last one.
    """

    batch: Batch
    base_s: FloatArray
    from_s: float
    turn: tuple[int, int] = (0, 0)


class _Rounds(Exposure):
    """Pulses that came cell by cell, felt in the order of rounds: first what every cell got before
    its first reading, then what it got before the second. Of a round SETs come first where
    `sets_first`.
    """

    def __init__(self, exposure: Exposure, *, sets_first: bool) -> None:
        self.scheme, self.disturbs = exposure.scheme, exposure.disturbs
        self.turn = (0, 0)
        self._behind, self._sets_first = exposure, sets_first
        self._notes: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}

    @override
    def note(
        self,
        at: IntArray,
        bl_v: FloatArray,
        sl_v: FloatArray,
        wl_v: FloatArray,
        width_s: float,
        cap_s: float,
        beside: Beside = NOTHING_BESIDE,
    ) -> None:
        is_reset = self._sets_first and bool(bl_v[0] < sl_v[0])
        key = (self.turn, is_reset, width_s, cap_s)
        # A firmware has no levels but those of its three lines: other word lines are at 0 V.
        assert beside in (NOTHING_BESIDE, OTHERS_AT_ZERO)
        self._notes.setdefault(key, []).append((at, bl_v, sl_v, wl_v))

    @override
    def doses(self) -> Iterator[Dose]:
        for (_, _, width_s, cap_s), notes in sorted(self._notes.items()):
            at, bl_v, sl_v, wl_v = (np.concatenate(column) for column in zip(*notes, strict=True))
            self._behind.note(at, bl_v, sl_v, wl_v, width_s, cap_s, OTHERS_AT_ZERO)
        self._notes.clear()
        return self._behind.doses()


class Shots:
    """One operation of a firmware on cells `index` (flat, in their order), under its number.

    `decides` says whether shots depend on readings, `programs` whether it is a write-verify.
    `take` carries out shots, `end` what the others felt of them.
    """

    def __init__(
        self,
        chip: SimulatedChip,
        number: int,
        index: IntArray,
        scheme: Scheme,
        compliance_a: float | None,
        *,
        decides: bool,
        programs: bool,
    ) -> None:
        self._chip, self._number, self._decides = chip, number, decides
        self._compliance_a, self._scheme = compliance_a, scheme
        self._in_rounds = programs and not decides
        self._index, self._exposure = index, self._felt_by(index)
        if decides:
            self._exposure = _Rounds(self._exposure, sets_first=programs)
        self._started_s = chip.now_s
        self._visit: _Visit | None = None

    def take(self, shots: Records) -> Records:
        """Carry out shots (`SHOT`) in their order; readings (`READING`) of those that measure."""
        cells = shots["cell"].astype(np.int64)
        first = np.flatnonzero(np.diff(cells, prepend=-1))
        readings = np.zeros(int((shots["measure"] > 0).sum()), dtype=READING)
        done = 0
        for here, end in self._cuts(cells[first], first, shots.size):
            part = shots[here:end]
            found = self._decided(part) if self._decides else self._listed(part)
            readings[done : done + found.size] = found
            done += found.size
        return readings

    def end(self) -> None:
        """The last shot has been given."""
        self._leave()
        self._chip.cells.half_select(self._exposure)

    def _felt_by(self, index: IntArray) -> Exposure:
        return self._chip.exposure(index, self._scheme)

    def _cuts(self, cells: IntArray, first: IntArray, size: int) -> list[tuple[int, int]]:
        """Where to cut shots so that no cell comes twice in a part, nor, where they depend on each
        other, another cell.
        """
        starts, seen = [0], set[int]()
        for cell, place in zip(cells.tolist(), first.tolist(), strict=True):
            if cell in seen or (self._decides and seen):
                starts.append(place)
                seen.clear()
            seen.add(cell)
        return [(a, b) for a, b in zip(starts, [*starts[1:], size], strict=True) if a < b]

    def _begin(self, cells: IntArray, time_s: FloatArray) -> Batch:
        order = np.argsort(self._index, kind="stable")
        places = order[np.searchsorted(self._index[order], cells)]
        return self._chip.begin_batch(cells, self._number, time_s, self._exposure, places)

    def _leave(self) -> None:
        if self._visit is not None:
            self._chip.end_batch(self._visit.batch, self._visit.base_s, self._visit.from_s)
            self._visit = None

    def _decided(self, shots: Records) -> Records:
        """Shots of one cell, which it may have had some of before."""
        cells = shots["cell"][:1].astype(np.int64)
        visit = self._visit
        if visit is None or visit.batch.index[0] != cells[0]:
            self._leave()
            base_s = np.array([self._started_s])
            visit = _Visit(self._begin(cells, base_s.copy()), base_s, self._chip.now_s)
            self._visit = visit
        readings = np.zeros(0, dtype=READING)
        for k in range(shots.size):
            assert isinstance(self._exposure, _Rounds)
            self._exposure.turn = visit.turn
            found = self._turns(visit.batch, shots[k : k + 1], np.zeros(1, dtype=np.int64))
            readings = np.append(readings, found).astype(READING)
            read, since = visit.turn
            visit.turn = (read + 1, 0) if shots["measure"][k] else (read, since + 1)
        readings["time_s"] += visit.from_s - visit.base_s[0]
        self._go_on(visit.from_s + float(visit.batch.time_s[0] - visit.base_s[0]))
        return readings

    def _listed(self, shots: Records) -> Records:
        """Shots of several cells, those of one behind each other."""
        cells = shots["cell"].astype(np.int64)
        first = np.flatnonzero(np.diff(cells, prepend=-1))
        if self._in_rounds:
            self._index, self._exposure = cells, self._felt_by(cells)
        from_s = self._chip.now_s
        took_s = np.add.reduceat(self._durations(shots), first)
        base_s = from_s + np.cumsum(took_s) - took_s
        batch = self._begin(cells[first], base_s.copy())
        readings = self._turns(batch, shots, first)
        _, took = self._chip.end_batch(batch, base_s, from_s)
        self._go_on(from_s + took)
        if self._in_rounds:
            # A round of a write-verify by codes: the next one reads what this one did to others.
            self._chip.cells.half_select(self._exposure)
            self._exposure = self._felt_by(cells)
        return readings

    def _go_on(self, until_s: float) -> None:
        passed_s = until_s - self._chip.now_s
        self._chip.spend(passed_s, threading.Event())
        self._chip.advance(passed_s)

    def _durations(self, shots: Records) -> FloatArray:
        quiet, measuring = (self._chip.step_s(Step(width_s=0.0, measure=m)) for m in MEASURES[:2])
        return np.where(shots["measure"] > 0, measuring, quiet) + shots["width_ps"] / 1e12

    def _turns(self, batch: Batch, shots: Records, first: IntArray) -> Records:
        """The first shot of every cell at once, then the second of those that have one, and so
        on.
        """
        counts = np.diff(first, append=shots.size)
        slot = np.cumsum(shots["measure"] > 0) - 1
        readings = np.zeros(int(slot[-1]) + 1, dtype=READING)
        for turn in range(int(counts.max(initial=0))):
            at = np.flatnonzero(counts > turn)
            for place in _alike(shots[first[at] + turn]):
                where = at[place]
                given = first[where] + turn
                found = self._chip.step(batch, where, _step(shots[given]), self._compliance_a)
                if found is not None:
                    told = readings[slot[given]]
                    told["current_a"], told["status"] = found.current_a, found.status
                    told["time_s"] = batch.time_s[where]
                    readings[slot[given]] = told
        return readings


def _alike(shots: Records) -> list[IntArray]:
    """Positions of shots of the same width, measurement and floating lines."""
    kinds = np.column_stack(
        [shots["width_ps"], shots["measure"], (shots["uv"] == FLOATING) @ np.array([1, 2, 4])]
    )
    if (kinds == kinds[0]).all():
        return [np.arange(len(shots))]
    _, which = np.unique(kinds, axis=0, return_inverse=True)
    return [np.flatnonzero(which.ravel() == k) for k in range(int(which.max()) + 1)]


def _step(shots: Records) -> Step:
    volts = [
        None if shots["uv"][0, line] == FLOATING else shots["uv"][:, line] / 1e6
        for line in range(len(LINES))
    ]
    width_s = int(shots["width_ps"][0]) / 1e12
    return Step(volts[0], volts[1], volts[2], width_s, MEASURES[shots["measure"][0]])
