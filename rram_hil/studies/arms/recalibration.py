"""Biases and scales alone, trained on the chip as it is."""

from __future__ import annotations

from rram_hil.studies.arm import TEACHER, Case, Step, StudentArm, Teaching


class Recalibration(StudentArm):
    """No words: only biases and a factor for each output are trained against the chip's map, the
    cheap rival of words: what calibrating its batch norms anew is to the network of Joshi et al.,
    Nature Communications 11 (2020), doi 10.1038/s41467-020-16108-9.
    """

    teaching: Teaching = "distilled"

    def steps(self, case: Case) -> list[Step]:
        """Programming, then biases and scales."""
        return [case.program(self.faults), case.adapt(teacher=TEACHER, choice="none", scales=True)]
