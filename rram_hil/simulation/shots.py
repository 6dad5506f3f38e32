"""A simulated chip whose operations are decided outside: a board's own firmware gives shot after
shot, each one step of one cell.

Results are those of `SimulatedChip.execute` for the same operation: where a later shot depends on
a reading, a cell's age is counted from the operation's start, as there. Only what flows through
cells of other rows, where a level of their word lines opens these in a reading, is as those cells
are by then: there all cells of an operation are read together, here one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rram_hil.array import LINES, Scheme, Step
from rram_hil.simulation.chip import Batch, SimulatedChip
from rram_hil.simulation.half_select import Beside, Dose, Exposure
from rram_hil.types import FloatArray, IntArray

FLOATING = np.int32(-2147483648)
"""Of a line: it floats; of bodies and unselected word lines: the step says no level."""
MEASURES = (
    Step(width_s=0.0),
    Step(width_s=0.0, measure="current"),
    Step(width_s=0.0, measure="gate"),
    Step(width_s=0.0, measure="current", also_gate=True),
)
SHOT = np.dtype(
    {
        "names": ["width_ps", "cell", "uv", "body_uv", "idle_uv", "measure"],
        "formats": ["<u8", "<u4", ("<i4", (3,)), "<i4", "<i4", "u1"],
        "offsets": [0, 8, 12, 24, 28, 32],
        "itemsize": 40,
    }
)
READING = np.dtype(
    {
        "names": ["current_a", "time_s", "gate_a", "status"],
        "formats": ["<f8", "<f8", "<f8", "u1"],
        "offsets": [0, 8, 16, 24],
        "itemsize": 32,
    }
)
Records = NDArray[Any]
NOTHING_BESIDE, OTHERS_AT_ZERO = Beside(), Beside(None, 0.0)


@dataclass(eq=False)
class _Visit:
    """A cell whose shots depend on each other: its batch, when the operation and when it began;
    how many shots it has had, and how many of them were readings.
    """

    batch: Batch
    base_s: FloatArray
    from_s: float
    shots: int = 0
    readings: int = 0


class _Rounds(Exposure):
    """What came cell by cell, felt in the order of rounds: what every cell got in its first `turn`,
    then in its second. Of the pulses of a write-verify SETs come first.
    """

    def __init__(self, exposure: Exposure) -> None:
        self.scheme, self.disturbs = exposure.scheme, exposure.disturbs
        self.turn = (0, 0)
        """The second number is 1 for pulses of a write-verify: they follow the readings."""
        self._behind = exposure
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
        is_reset = self.turn[1] == 1 and bool(bl_v[0] < sl_v[0])
        # Closed gates stand at 0 V: so all of a round's pulses are one dose, as in one operation.
        if beside.idle_wl_v is None:
            beside = replace(beside, idle_wl_v=0.0)
        key = (self.turn, is_reset, width_s, cap_s, beside)
        self._notes.setdefault(key, []).append((at, bl_v, sl_v, wl_v))

    @override
    def doses(self) -> Iterator[Dose]:
        for key, notes in sorted(self._notes.items(), key=lambda item: item[0][:4]):
            _, _, width_s, cap_s, beside = key
            at, bl_v, sl_v, wl_v = (np.concatenate(column) for column in zip(*notes, strict=True))
            self._behind.note(at, bl_v, sl_v, wl_v, width_s, cap_s, beside)
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
        self._chip, self._number = chip, number
        self._decides, self._programs = decides, programs
        self._compliance_a, self._scheme = compliance_a, scheme
        self._in_rounds = programs and not decides
        self._index, self._exposure = index, self._felt_by(index)
        if decides:
            self._exposure = _Rounds(self._exposure)
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
            measures = bool(shots["measure"][k])
            if not self._programs:
                self._exposure.turn = (visit.shots, 0)
            elif measures:
                self._exposure.turn = (visit.readings, 0)
            else:
                self._exposure.turn = (visit.readings - 1, 1)
            found = self._turns(visit.batch, shots[k : k + 1], np.zeros(1, dtype=np.int64))
            readings = np.append(readings, found).astype(READING)
            visit.shots, visit.readings = visit.shots + 1, visit.readings + measures
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
        beside_width = np.array([self._chip.step_s(step) for step in MEASURES])
        return np.asarray(beside_width[shots["measure"]] + shots["width_ps"] / 1e12)

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
                    told["gate_a"] = np.nan if found.gate_a is None else found.gate_a
                    readings[slot[given]] = told
        return readings


def _alike(shots: Records) -> list[IntArray]:
    """Positions of shots that are one step: of the same width, measurement, floating lines and
    levels of bodies and unselected word lines.
    """
    if shots.size == 1:
        return [np.zeros(1, dtype=np.int64)]
    floating = (shots["uv"] == FLOATING) @ np.array([1, 2, 4])
    named = [shots[name].astype(np.int64) for name in ("width_ps", "measure", "body_uv", "idle_uv")]
    kinds = np.column_stack([*named, floating])
    if (kinds == kinds[0]).all():
        return [np.arange(len(shots))]
    _, which = np.unique(kinds, axis=0, return_inverse=True)
    return [np.flatnonzero(which.ravel() == k) for k in range(int(which.max()) + 1)]


def _step(shots: Records) -> Step:
    volts = [
        None if shots["uv"][0, line] == FLOATING else shots["uv"][:, line] / 1e6
        for line in range(len(LINES))
    ]
    body_v, idle_v = (
        None if shots[name][0] == FLOATING else int(shots[name][0]) / 1e6
        for name in ("body_uv", "idle_uv")
    )
    return replace(
        MEASURES[shots["measure"][0]],
        bl_v=volts[0],
        sl_v=volts[1],
        wl_v=volts[2],
        width_s=int(shots["width_ps"][0]) / 1e12,
        body_v=body_v,
        unselected_wl_v=idle_v,
    )
