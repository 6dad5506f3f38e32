"""Write-verify keeps to its budgets over all the operations that one step takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from methods import CHIP, PULSES, a_setting, follow

from rram_hil.array import Apply, ApplyResult, Operation, Program, ProgramResult, Span, Status
from rram_hil.array.write_verify_rules import Polarity, WriteVerify
from rram_hil.bench.plugins import protocol_class

TARGET = np.array([[[20e-6, 40e-6, 60e-6], [80e-6, 10e-6, np.nan]]])


class Restless:
    """Cells that read at random about their windows, and the pulses (1, -1) that each took; a
    share `cut` of the operations is interrupted, with pulses counted or at their worst.
    """

    def __init__(self, seed: int, cut: float) -> None:
        self.rng, self.cut = np.random.default_rng(seed), cut
        self.given: list[list[int]] = [[] for _ in range(CHIP.size)]

    def reading(self, at: np.ndarray) -> np.ndarray:
        return TARGET.ravel()[at] * self.rng.choice([0.5, 1.0, 1.0, 2.0], at.size)

    def __call__(self, operation: Operation) -> Any:
        at = operation.cells.index(CHIP)  # type: ignore[union-attr]
        if isinstance(operation, Apply):
            table = self.reading(at)[:, None]
            status, zero = np.zeros(table.shape, np.uint8), np.zeros(at.size, np.int64)
            return ApplyResult(table * 0.2, table, status, table, zero, zero + 1)
        assert isinstance(operation, Program)
        rules, polarities = WriteVerify(operation), (1, -1)
        is_cut, rounds = self.rng.random() < self.cut, 0
        while (due := rules.reading()).size and not (is_cut and rounds == 3):
            rules.take(due, self.reading(at[due]), np.zeros(due.size, np.uint8))
            rounds += 1
            polarity: Polarity
            for polarity in polarities:  # type: ignore[assignment]
                pulsed, _ = rules.pulses(polarity)
                rules.given(pulsed, polarity)
                for k in at[pulsed]:
                    self.given[k].append(polarity)
        result = rules.result(Span())
        if not is_cut:
            return result
        n = at.size
        told = result.pulses if self.rng.random() < 0.5 else operation.budget().copy()
        unknown, zero = np.full(n, Status.UNKNOWN, np.uint8), np.zeros(n, np.int64)
        nothing = np.full(n, np.nan)
        inside = np.zeros(n, dtype=bool)
        return ProgramResult(nothing, unknown, inside, told, zero, zero, interrupted=True)


@given(
    seed=st.integers(0, 1 << 20),
    cut=st.sampled_from([0.0, 0.3]),
    most=st.integers(0, 12),
    reverify=st.integers(0, 5),
)
def test_no_cell_is_reversed_or_pulsed_more_often_than_asked(
    seed: int, cut: float, most: int, reverify: int
) -> None:
    cells = Restless(seed, cut)
    keys = {"targets": TARGET, "max_pulses": 25, "max_reversals": most, "reverify": reverify}
    asked = protocol_class("write-verify").model_validate(PULSES | keys | {"confirm": 0})
    summary, saved = follow(asked, a_setting(), cells)
    reversals = [int(np.count_nonzero(np.diff(pulses))) for pulses in cells.given]
    # How often an interrupted operation reversed a cell nobody can tell.
    assert max(reversals) <= most or cut
    counted = (saved["set_pulses"] + saved["reset_pulses"]).ravel()
    taken = [len(pulses) for pulses in cells.given]
    assert np.all(taken <= counted)
    assert counted.max() <= 25
    assert summary.inside + summary.out_of_pulses + summary.out_of_reversals == 5


def test_a_cell_that_left_is_brought_back_with_the_reversals_that_are_left() -> None:
    """Every cell takes a few pulses in the first pass; the second may reverse them once more."""
    cells = Restless(1, 0.0)
    keys = {"targets": TARGET, "max_pulses": 200, "max_reversals": 100, "reverify": 4}
    asked = protocol_class("write-verify").model_validate(PULSES | keys | {"confirm": 0})
    summary, _ = follow(asked, a_setting(), cells)
    assert summary.inside == 5
