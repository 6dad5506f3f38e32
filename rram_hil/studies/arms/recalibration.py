"""Biases and scales alone, trained on the chip as it is."""

from __future__ import annotations

from rram_hil.studies.arm import TEACHER, Arm, Case, Faults, Step, Teaching
from rram_hil.studies.training import Training


class Recalibration(Arm):
    """No words: only biases and a factor for each output are trained against the chip's map, the
    cheap rival of words: what calibrating its batch norms anew is to the network of Joshi et al.,
    Nature Communications 11 (2020), doi 10.1038/s41467-020-16108-9.
    """

    teaching: Teaching = "distilled"
    faults: Faults = "none"

    def networks(self, case: Case) -> dict[str, Training]:
        """The student, and the teacher from which biases and scales learn, too."""
        student = case.student(self.teaching, fault_aware=self.faults != "none")
        return {"student": student, "teacher": case.teacher}

    def steps(self, case: Case) -> list[Step]:
        """Programming, then biases and scales."""
        return [case.program(self.faults), case.adapt(teacher=TEACHER, choice="none", scales=True)]
