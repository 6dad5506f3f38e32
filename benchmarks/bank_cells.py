"""A bench of nothing but the cells of a device model: what a plan asks of them, without wire,
limits or journal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rram_hil.array import Apply, ApplyResult, Geometry, Operation, Status, Wait, WaitResult
from rram_hil.engine.protocol import Plan
from rram_hil.simulation.bank import CellBank
from rram_hil.types import FloatArray

READ_V = 0.25
"""|BL - SL| (V) up to which a step is no pulse."""


class BankCells:
    """Answers `Apply` and `Wait` for a chip of one row that these cells are in turn."""

    def __init__(self, bank: CellBank) -> None:
        self.bank = bank
        self.geometry = Geometry(1, 1, len(bank))
        self.operations = 0

    def __call__(self, operation: Operation) -> Any:
        """The result of one operation."""
        self.operations += 1
        if isinstance(operation, Wait):
            self.bank.advance(operation.seconds)
            return WaitResult()
        assert isinstance(operation, Apply)
        at, n = operation.cells.index(self.geometry), len(operation.cells)
        readings: list[FloatArray] = []
        pulses = np.zeros(n, dtype=np.int64)
        for step in operation.steps * operation.repeat:
            bl, sl, wl = (step.levels(line, n) for line in ("bl", "sl", "wl"))
            assert bl is not None
            assert sl is not None
            assert wl is not None
            pulsed = np.abs(bl - sl) > READ_V
            if pulsed.any():
                self.bank.apply(bl[pulsed], sl[pulsed], wl[pulsed], step.width_s, at=at[pulsed])
            pulses += pulsed
            if step.measure == "current":
                readings.append(self.bank.read(at=at))
        table = np.stack(readings, axis=1) if readings else np.zeros((n, 0))
        status = np.full(table.shape, Status.OK, dtype=np.uint8)
        reads = np.full(n, table.shape[1], dtype=np.int64)
        return ApplyResult(table * 0.2, table, status, table, pulses, reads)

    def carry_out(self, plan: Plan[Any]) -> Any:
        """Answer all that a plan asks; what it returns."""
        reply: object = None
        try:
            while True:
                message = plan.send(reply)
                reply = self(message) if isinstance(message, Apply | Wait) else None
        except StopIteration as stop:
            return stop.value
