"""Numbers that grow with a run, in arrays that do not grow without end: what happened to cells, and
how much was done when.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rram_hil.types import IntArray

MOST_EVENTS = 1 << 22
"""Of a run, so many of the last events of cells are kept in memory: 4 million in 150 MB."""
BINS = 240
_FINEST_S = 1e-6
_LONGEST_S = 1e12
"""No bench clock goes further: 30,000 years. Sums of what a damaged file says would overflow."""
_EVENT = (
    ("cell", np.int64),
    ("step", np.int32),
    ("label", np.int32),
    ("conductance_s", np.float32),
    ("time_s", np.float64),
    ("pulses", np.int32),
)


class CellEvents:
    """What operations left at cells: the last `most` events, a column a property.

    `dropped` counts the older ones that made room.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._most = most
        self._size = 0
        self.dropped = 0
        self._columns: dict[str, NDArray[Any]] = {n: np.empty(0, kind) for n, kind in _EVENT}

    def add(self, cell: IntArray, **columns: Any) -> None:
        """Events of one operation: the flat index of each cell (n,); one number for all or one
        each: `step`, a number for its `label`, `conductance_s` (S, NaN for none), `time_s` (s),
        `pulses`.
        """
        given = {"cell": cell} | columns
        surplus = len(cell) - self._most
        if surplus > 0:
            given = {k: v[surplus:] if np.ndim(v) else v for k, v in given.items()}
            self.dropped += surplus
        count = len(given["cell"])
        self._make_room(count)
        here = slice(self._size, self._size + count)
        for name, values in given.items():
            self._columns[name][here] = values
        self._size += count

    def _make_room(self, count: int) -> None:
        capacity = len(self._columns["cell"])
        needed = self._size + count
        if needed <= capacity:
            return
        kept = self._size
        if needed > self._most:
            # Half at once, so that moving the rest stays rare.
            kept = min(kept, self._most - count, self._most // 2)
            self.dropped += self._size - kept
        length = min(max(2 * capacity, needed, 1024), self._most)
        for name, old in self._columns.items():
            grown = np.empty(length, old.dtype)
            grown[:kept] = old[self._size - kept : self._size]
            self._columns[name] = grown
        self._size = kept

    def of(self, cell: int) -> dict[str, NDArray[Any]]:
        """The events of one cell, oldest first: the columns of `add`, each of shape (n,)."""
        at = np.flatnonzero(self._columns["cell"][: self._size] == cell)
        return {n: values[at] for n, values in self._columns.items() if n != "cell"}


class Rates:
    """Pulses and reads by bench time, in `BINS` bins whose width doubles as the run goes on.

    Where the bench clock begins anew (a resumed run), the times before stand still meanwhile in
    `began_s` and `now_s`; `clock_s` is the last time as the clock gave it. NaN where there is none.
    """

    def __init__(self) -> None:
        self.began_s = math.nan
        self.width_s = _FINEST_S
        self.now_s = 0.0
        self.clock_s = math.nan
        self._ahead_s = 0.0
        self._counts = np.zeros((2, BINS))

    def add(self, started_s: float, ended_s: float, pulses: int, reads: int) -> None:
        """What was done between two times of the bench clock (s); a time that can be none is left
        out.
        """
        if not (abs(started_s) < _LONGEST_S and abs(ended_s) < _LONGEST_S):
            return
        self.clock_s = ended_s
        if math.isnan(self.began_s):
            self.began_s = self.now_s = started_s
        if ended_s + self._ahead_s < self.now_s:
            self._ahead_s = self.now_s - started_s
        low = max(started_s + self._ahead_s, self.began_s)
        high = max(ended_s + self._ahead_s, low)
        self.now_s = max(self.now_s, high)
        while (self.now_s - self.began_s) >= BINS * self.width_s:
            self._counts[:, : BINS // 2] = self._counts[:, ::2] + self._counts[:, 1::2]
            self._counts[:, BINS // 2 :] = 0.0
            self.width_s *= 2
        first, last = (int((t - self.began_s) / self.width_s) for t in (low, high))
        given = np.array([[pulses], [reads]], dtype=np.float64)
        if first == last or high <= low:
            self._counts[:, [last]] += given
            return
        edges = self.began_s + self.width_s * np.arange(first, last + 2)
        shares = np.diff(np.clip(edges, low, high)) / (high - low)
        self._counts[:, first : last + 1] += given * shares

    def series(self) -> dict[str, list[float]]:
        """Middle of each bin since the run began (s), and pulses and reads a second in it."""
        if math.isnan(self.began_s):
            return {"time_s": [], "pulses": [], "reads": []}
        spent_s = self.now_s - self.began_s
        count = min(int(spent_s / self.width_s) + 1, BINS)
        begins = self.width_s * np.arange(count)
        widths = np.clip(spent_s - begins, 0.1 * self.width_s, self.width_s)
        pulses, reads = self._counts[:, :count] / widths
        middle = begins + widths / 2
        return {
            n: v.tolist() for n, v in (("time_s", middle), ("pulses", pulses), ("reads", reads))
        }
