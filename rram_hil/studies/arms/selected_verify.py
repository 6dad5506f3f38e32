"""Read-verify-write of the weights that matter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rram_hil.studies.arm import TEACHER, TRAIN, Case, Step, StudentArm


class SelectedVerify(StudentArm):
    """Read-verify-write of the `fraction` of the weights that ranks first: by second derivative of
    the loss (SWIM: Yan et al., DAC 2022, arXiv 2202.08395), by magnitude (the baseline of Charan et
    al., JXCDC 2020, doi 10.1109/JXCDC.2020.2987605), or at random.

    With `words`, a fraction too, random on-chip words are trained afterwards (SWIM + RSA).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    by: Literal["swim", "magnitude", "random"] = "swim"
    words: Annotated[float, Field(gt=0, lt=1)] | None = None
    verify_by: Literal["cells", "codes"] = "cells"

    def steps(self, case: Case) -> list[Step]:
        """Programming, verification of some, and words where they are asked for."""
        select: Step = {"by": self.by, "fraction": self.fraction}
        if self.by == "swim":
            select["data"] = TRAIN
        steps = [case.program(self.faults), case.verify(self.verify_by, select=select)]
        if self.words is not None:
            steps.append(case.adapt(self.words, teacher=TEACHER))
        return steps
