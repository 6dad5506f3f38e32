"""On-chip words for whole small layers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rram_hil.studies.arm import TEACHER, Arm, Case, Faults, Step, Teaching
from rram_hil.studies.training import Training


class SmallLayers(Arm):
    """Words for whole layers, the smallest first, so that their places need no memory: as Yao et
    al., Nature 577 (2020), doi 10.1038/s41586-020-1942-4, train the last layer alone.

    Words do at most `mac_share` of the multiply-accumulates; what is left of `fraction`, by default
    the model's, goes to weights of the next layer.
    """

    teaching: Teaching = "distilled"
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    mac_share: Annotated[float, Field(gt=0, le=1)] = 0.35
    scales: bool = True
    faults: Faults = "partner"

    def networks(self, case: Case) -> dict[str, Training]:
        """The student, and the teacher from which words learn, too."""
        student = case.student(self.teaching, fault_aware=self.faults != "none")
        return {"student": student, "teacher": case.teacher}

    def steps(self, case: Case) -> list[Step]:
        """Programming, then words."""
        adapt = case.adapt(
            self.fraction,
            teacher=TEACHER,
            choice="layers",
            mac_share=self.mac_share,
            scales=self.scales,
        )
        return [case.program(self.faults), adapt]
