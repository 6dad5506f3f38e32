"""Read-verify-write: bring every cell into its own conductance window, within a budget of
pulses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rram_hil.array import Program, ProgramResult, PulseTrain, Status, read
from rram_hil.engine.protocol import Plan, Progress, Setting
from rram_hil.types import FloatArray, IntArray

from .parts.programming import Programming
from .parts.pulses import Pulses
from .parts.rounds import Course, Reason


class WriteVerify(Programming):
    """Read, and pulse towards the window until every cell is inside or has spent its budget
    (NeuRRAM, RADAR: ISPP).

    Windows, targets and budgets are those of every programming method. `verify_by` says whether
    each cell is read singly after its pulse, or all cells at once by codes (docs/coded-reads.md);
    `on_board` whether the bench's own write-verify may, must or must not do it. No bench tells how
    often a cell was reversed: with `reverify` as many reversals count as spent as the pulses of
    either polarity may have made, those that an interruption hid as none.
    """

    set: Pulses
    reset: Pulses
    on_board: Literal["never", "allowed", "required"] = "allowed"
    verify_by: Literal["cells", "codes"] = "cells"

    @override
    def reach(self, target_s: FloatArray, setting: Setting) -> tuple[PulseTrain, PulseTrain]:
        return self.set.train(target_s, setting), self.reset.train(target_s, setting)

    @override
    def bringing(self, course: Course, setting: Setting) -> Callable[[], Plan[object]]:
        return partial(self._verified, course, setting)

    def _verified(self, course: Course, setting: Setting) -> Plan[None]:
        """Yields `Program` operations, which the bench may carry out itself; an interrupted one is
        followed by a read and the rest of the budget.
        """
        n = len(course.cells)
        while (todo := course.active).size:
            yield Progress(n - todo.size, n, f"write-verify of {todo.size} cells")
            # An operation has one number of reversals for all its cells.
            left = self._reversals_left(course, todo)
            todo = todo[left == left[0]]
            result = yield from self.batch(course, todo, setting)
            self._reversed(course, todo, result)
            course.sets[todo] += result.set_pulses
            course.resets[todo] += result.reset_pulses
            course.reads[todo] += result.reads
            course.vectors += result.vectors
            known = (result.status != Status.UNKNOWN) | (not result.interrupted)
            here = todo[known]
            course.last_s[here] = result.conductance_s[known]
            self._end(course, here, result.inside[known], result.status[known] == Status.OK)
            lost = todo[~known]
            if lost.size:
                again = yield from read(
                    course.cells[lost], setting.read, label="after interruption"
                )
                course.reads[lost] += again.reads
                course.last_s[lost] = again.last_s
                inside = (again.last_s >= course.low_s[lost]) & (
                    again.last_s <= course.high_s[lost]
                )
                ok = again.last_status == Status.OK
                done = (ok & inside) | (course.pulses[lost] >= self.max_pulses)
                self._end(course, lost[done], (ok & inside)[done], ok[done])

    @override
    def batch(self, course: Course, at: IntArray, setting: Setting) -> Program:
        verify: Literal["single", "coded"] = "coded" if self.verify_by == "codes" else "single"
        left = self._reversals_left(course, at)
        whole = super().batch(course, at, setting)
        return replace(
            whole,
            max_pulses=np.where(left < 0, 0, whole.max_pulses),
            max_reversals=max(int(left[0]), 0),
            on_board=self.on_board,
            verify=verify,
        )

    def _reversals_left(self, course: Course, at: IntArray) -> IntArray:
        """Reversals that each of these cells may make within one more operation; -1 where it may
        take no pulse, as its first one may be a reversal of the last that it took.
        """
        begun = course.pulses[at] > 0
        return np.maximum(self.max_reversals - course.reversals[at] - begun, -1)

    def _reversed(self, course: Course, at: IntArray, result: ProgramResult) -> None:
        """Note the most reversals that these pulses may have made, before they are counted."""
        fewer = np.minimum(result.set_pulses, result.reset_pulses)
        within = np.minimum(2 * fewer, result.pulses - 1)
        left = self._reversals_left(course, at)
        begun = (course.pulses[at] > 0) & (result.pulses > 0)
        course.reversals[at] += np.clip(within, 0, np.maximum(left, 0)) + begun

    def _end(
        self, course: Course, at: IntArray, inside: NDArray[np.bool_], ok: NDArray[np.bool_]
    ) -> None:
        """Cells that are accepted, or why they are not."""
        spent = course.pulses[at] >= self.max_pulses
        course.end(
            at,
            np.select(
                [inside, ~ok, spent],
                [Reason.INSIDE, Reason.UNREADABLE, Reason.OUT_OF_PULSES],
                Reason.OUT_OF_REVERSALS,
            ).astype(np.int8),
        )
