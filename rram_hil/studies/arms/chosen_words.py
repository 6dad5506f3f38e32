"""On-chip words where they matter most."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rram_hil.networks.mapping import Faults
from rram_hil.studies.arm import TEACHER, Case, Step, StudentArm, Teaching


class ChosenWords(StudentArm):
    """Words for the weights whose errors, as the map shows them, would change the loss most: Fisher
    information times squared error, after Charan et al., DAC 2020, doi
    10.1109/DAC18072.2020.9218605.

    The student knows the chip's stuck cells, as the mapping does, and is trained with
    `sigma_share` of the device's sigma: words mend the errors that matter most, and a student that
    was trained with all of them is the worse for it. Words do at most `mac_share` of the
    multiply-accumulates; `scales` are trained beside biases. `fraction` is by default the model's.
    """

    CHOICE: ClassVar[str] = "importance"
    """`choice` of sparse-adaptation."""
    teaching: Teaching = "distilled"
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    mac_share: Annotated[float, Field(gt=0, le=1)] = 0.35
    scales: bool = True
    sigma_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    faults: Faults = "partner"

    def steps(self, case: Case) -> list[Step]:
        """Programming, then words."""
        adapt = case.adapt(
            self.fraction,
            teacher=TEACHER,
            choice=self.CHOICE,
            mac_share=self.mac_share,
            scales=self.scales,
        )
        return [case.program(self.faults), adapt]
