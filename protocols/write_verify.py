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

from rram_hil.array import Program, PulseTrain, Status, read
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
    `on_board` whether the bench's own write-verify may, must or must not do it.
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
            result = yield from self.batch(course, todo, setting)
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
        return replace(super().batch(course, at, setting), on_board=self.on_board, verify=verify)

    def _end(
        self, course: Course, at: IntArray, inside: NDArray[np.bool_], ok: NDArray[np.bool_]
    ) -> None:
        """Cells that are accepted, or why they are not."""
        spent = course.pulses[at] >= self.max_pulses
        course.end(
            at,
            np.select(
                [inside, ~ok, spent],
                [Reason.INSIDE, Reason.UNREADABLE, Reason.BUDGET],
                Reason.REVERSALS,
            ).astype(np.int8),
        )
