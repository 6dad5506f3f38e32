"""On-chip words for whole small layers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rram_hil.studies.arm import TEACHER, Case, Faults, Step, StudentArm, Teaching


class SmallLayers(StudentArm):
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
