"""A network that is programmed once and left as it is."""

from __future__ import annotations

from rram_hil.studies.arm import Case, Step, StudentArm


class OneShot(StudentArm):
    """One-shot mapping without repair, of the teacher itself, after variation-aware training, or
    after knowledge distillation through the device's errors (KD), the first step of Charan et al.,
    JXCDC 2020, doi 10.1109/JXCDC.2020.2987605; temperature as in Hinton et al., arXiv 1503.02531.
    """

    def steps(self, case: Case) -> list[Step]:
        """Programming alone."""
        return [case.program(self.faults)]
