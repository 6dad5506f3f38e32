"""The transistors that select the cells of a simulated 1T1R array: how far a gate is open, whatever
their polarity and wherever their bodies stand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rram_hil.array import Selector
from rram_hil.simulation.config import BodyEffect
from rram_hil.types import FloatArray

THRESHOLD_V, SPAN_V = 0.7, 0.5
"""A gate this far from its source passes something, and everything so much further."""


@dataclass(frozen=True)
class Selectors:
    """All selectors of an array. The source of an NMOS is the lower of BL and SL, that of a PMOS
    the higher.
    """

    kind: Selector
    body: BodyEffect

    def threshold_shift_v(self, reverse_v: FloatArray) -> FloatArray:
        """By how much the threshold grows (V) where the source stands `reverse_v` from the body, in
        the direction that blocks their junction: gamma (sqrt(2 phi_F + V_SB) - sqrt(2 phi_F)).
        """
        surface_v = self.body.surface_v
        root = np.sqrt(np.maximum(surface_v + reverse_v, 0.0))
        return np.asarray(self.body.gamma * (root - math.sqrt(surface_v)), dtype=np.float64)

    def gate_v(
        self, wl_v: FloatArray, bl_v: FloatArray, sl_v: FloatArray, body_v: float | None = None
    ) -> FloatArray:
        """Volts from source to gate in the direction that opens, less what a driven body adds to
        the threshold; arrays of one shape. Without `body_v` the body is tied to the source.
        """
        if self.kind == "pmos":
            source = np.maximum(bl_v, sl_v)
            over = source - wl_v
            reverse = None if body_v is None else body_v - source
        else:
            source = np.minimum(bl_v, sl_v)
            over = wl_v - source
            reverse = None if body_v is None else source - body_v
        return over if reverse is None else over - self.threshold_shift_v(reverse)

    def idle_wl_v(self, asked_v: float | None, *lines: FloatArray) -> float | None:
        """Where word lines that are not selected stand beside bit and source lines at these levels;
        None: their gates are closed.

        At 0 V an NMOS is closed for every line from 0 V up, a PMOS for every line down from it.
        """
        if asked_v is not None:
            return asked_v
        sign = -1.0 if self.kind == "pmos" else 1.0
        return 0.0 if any((sign * volts < 0).any() for volts in lines) else None
