"""Biases and scales alone, measured on the chip as it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rram_hil.networks.mapping import Faults
from rram_hil.studies.arm import TAG, TRAIN, Case, Step, StudentArm, Teaching


class NormRecalibration(StudentArm):
    """No words and no training: a bias and a factor for each output give it the mean and the spread
    that it has in floating point, as Joshi et al., Nature Communications 11 (2020), doi
    10.1038/s41467-020-16108-9, measure batch norms anew on the chip, over 2,600 images.

    `spread` is the standard deviation ("l2"), or as in the L1 and TopK batch norms of Hoffer et
    al., arXiv 1803.01814, the mean of all absolute deviations or of the share `largest` of them.
    The images go through the chip's map or, with `forward` = "array", through the chip.
    """

    teaching: Teaching = "distilled"
    faults: Faults = "partner"
    spread: Literal["l2", "l1", "topk"] = "l2"
    largest: Annotated[float, Field(gt=0, le=1)] = 0.1
    images: Annotated[int, Field(ge=2)] = 2600
    forward: Literal["map", "array"] = "map"

    def steps(self, case: Case) -> list[Step]:
        """Programming, then biases and scales."""
        recalibrate: Step = {
            "name": "recalibrate",
            "protocol": "norm-recalibration",
            "tag": TAG,
            "data": TRAIN,
            "images": self.images,
            # A student is trained with its weights clipped, a teacher is not.
            "aim": "trained" if self.teaching == "teacher" else "clipped",
            "spread": self.spread,
            "map_by": "codes",
            "forward": self.forward,
        }
        if self.spread == "topk":
            recalibrate["largest"] = self.largest
        return [case.program(self.faults), recalibrate]
