"""The 1R array in the socket of the simulated ArC ONE: what its pulses and reads do to a
`SimulatedChip`, and which cells they expose.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Apply, ApplyResult, Cells, Scheme, Status, Step
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.half_select import across
from rram_hil.types import FloatArray, IntArray

SHORTEST_S = 90e-9


class Array:
    """The 1R array in the socket, or a plain resistor of `load_ohm` at each of its places."""

    def __init__(self, chip: SimulatedChip, load_ohm: float | None, read_noise: bool) -> None:
        self.chip = chip
        self.geometry = chip.geometry
        self.cancel = threading.Event()
        """Ends what is under way where the bench is paced."""
        self.half_selected: IntArray = np.zeros(chip.geometry.shape[1:], dtype=np.int64)
        self._load_ohm = load_ohm
        self._noise = read_noise and load_ohm is None
        self._seed = chip.simulation.seed
        self._number = chip.last_number
        self._reads: IntArray = np.zeros(chip.geometry.size, dtype=np.int64)

    def pulse_and_read(
        self,
        index: IntArray,
        volts: FloatArray | None,
        width_s: float,
        read_v: float,
        cycles: int,
        scheme: Scheme,
    ) -> FloatArray:
        """Resistances (ohm) of different cells, one after the other, each read after its pulse
        where there is one.
        """
        # A read lasts as long as its samples, the last of which is the chip's own conversion.
        read_s = max(SHORTEST_S, (cycles - 1) * self.chip.simulation.timing.conversion_s)
        steps: tuple[Step, ...] = (Step(read_v, 0.0, 0.0, read_s, "current"),)
        if volts is not None:
            steps = (Step(volts, 0.0, 0.0, width_s), *steps)
            self._expose(index, volts, scheme)
        result = self._applied(index, steps, scheme)
        current = result.current_a[:, 0]
        if self._load_ohm is not None:
            current = np.full(index.size, read_v / self._load_ohm)
        elif self._noise:
            g = current / read_v
            self._reads[index] += 1
            traits = self.chip.model.traits(self._seed, index)
            seen = self.chip.model.as_read(self._seed, traits, self._reads[index], g)
            current = current + read_v * (seen - g) / math.sqrt(cycles)
        return _resistance(read_v, current, result.status[:, 0])

    def hold(
        self, at: int, volts: float, width_s: float, cut_a: float, scheme: Scheme
    ) -> tuple[float, bool]:
        """Resistance (ohm) of one cell at the end of a bias, and whether the current passed `cut_a`
        (0: no cut-off).
        """
        index = np.array([at], dtype=np.int64)
        self._expose(index, np.array([volts]), scheme)
        result = self._applied(
            index, (Step(volts, 0.0, 0.0, width_s, "current"),), scheme, cut_a or None
        )
        current, is_cut = result.current_a[:, 0], bool(result.status[0, 0] == Status.COMPLIANCE)
        if self._load_ohm is not None:
            current = np.array([volts / self._load_ohm])
            is_cut = bool(cut_a) and abs(current[0]) > cut_a
            current = np.clip(current, -cut_a, cut_a) if is_cut else current
        return float(_resistance(volts, current, result.status[:, 0])[0]), is_cut

    def pulse(self, at: int, volts: float, width_s: float, most_a: float, scheme: Scheme) -> None:
        """One pulse on one cell, its current limited to `most_a` (0: not)."""
        index = np.array([at], dtype=np.int64)
        self._expose(index, np.array([volts]), scheme)
        self._applied(index, (Step(volts, 0.0, 0.0, width_s),), scheme, most_a or None)

    def pulse_bit_line(self, index: IntArray, volts: float, width_s: float) -> None:
        """The same pulse on different cells of one bit line at once; every other line stands at
        V/2.
        """
        word, bit = np.divmod(index, self.geometry.columns)
        if abs(volts) / 2 > self.chip.counted_v:
            self.half_selected[word] += 1
            self.half_selected[:, bit[:1]] += 1
            self.half_selected[word, bit] -= 2
        self._applied(index, (Step(volts, 0.0, 0.0, width_s),), Scheme.HALF)

    def _applied(
        self,
        index: IntArray,
        steps: tuple[Step, ...],
        scheme: Scheme,
        compliance_a: float | None = None,
    ) -> ApplyResult:
        self._number += 1
        operation = Apply(Cells.from_index(index, self.geometry), steps, scheme, compliance_a)
        result = self.chip.execute(operation, self._number, self.cancel)
        assert isinstance(result, ApplyResult)
        return result

    def _expose(self, index: IntArray, volts: FloatArray, scheme: Scheme) -> None:
        share = across(1.0, 0.0, 0.0, scheme, self.geometry).row_v
        counted = index[np.abs(volts) * share > self.chip.counted_v]
        word, bit = np.divmod(counted, self.geometry.columns)
        words = np.bincount(word, minlength=self.geometry.rows)
        bits = np.bincount(bit, minlength=self.geometry.columns)
        self.half_selected += words[:, None] + bits[None, :]
        np.subtract.at(self.half_selected, (word, bit), 2)


def _resistance(volts: float, current: FloatArray, status: NDArray[np.uint8]) -> FloatArray:
    ohms = np.full(current.shape, np.inf)
    np.divide(volts, current, out=ohms, where=current != 0)
    return np.where(status == Status.OVER_RANGE, 0.0, ohms)
