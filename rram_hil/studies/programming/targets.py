"""The targets of a run, drawn from its seed: the same ones for every method."""

from __future__ import annotations

import numpy as np

from rram_hil.studies.programming.figures import Asked, bounds_between
from rram_hil.types import FloatArray
from rram_hil.validation import StrictModel

OPEN_TARGET = 1.1
"""Target of a window without an upper end, over its lower one."""


class Drawn(StrictModel):
    """Targets for the left half of a chip of one tile: levels (`low_s`, `high_s` of each, spread
    evenly; an upper end of None is infinite), or conductances drawn evenly from `range_s`.
    """

    rows: int
    columns: int
    seed: int
    low_s: tuple[float, ...] = ()
    high_s: tuple[float | None, ...] = ()
    range_s: tuple[float, float] = (0.0, 0.0)
    tolerance: float = 0.0
    tolerance_s: float = 0.0

    def asked(self) -> Asked:
        """The maps of targets and windows."""
        rng = np.random.default_rng(self.seed)
        count = self.rows * (self.columns // 2)
        if not self.low_s:
            target = rng.uniform(*self.range_s, count)
            width = np.maximum(self.tolerance * target, self.tolerance_s)
            low, high = np.maximum(target - width, 0.0), target + width
            return Asked(self._map(target), self._map(low), self._map(high))
        low = np.array(self.low_s)
        high = np.array([np.inf if end is None else end for end in self.high_s])
        level = rng.permutation(np.arange(count) % low.size)
        centre = np.where(np.isinf(high), OPEN_TARGET * low, (low + high) / 2)
        target, lowest, highest = (self._map(values[level]) for values in (centre, low, high))
        return Asked(target, lowest, highest, bounds_between(low, high))

    def _map(self, values: FloatArray) -> FloatArray:
        whole = np.full((1, self.rows, self.columns), np.nan)
        whole[0, :, : self.columns // 2] = values.reshape(self.rows, -1)
        return whole
