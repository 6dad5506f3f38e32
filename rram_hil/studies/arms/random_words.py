"""Random sparse adaptation: on-chip words at random places."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rram_hil.studies.arm import TEACHER, Case, PlacedArm, Step
from rram_hil.studies.training import Places


class RandomWords(PlacedArm):
    """Random sparse adaptation (RSA) of Mohanty et al., IEDM 2017, and Charan et al., JXCDC 2020,
    doi 10.1109/JXCDC.2020.2987605: after one programming a random `fraction` of the weights gets
    words, which are trained against the chip's map. With a distilled student it is KD + RSA.

    With `places_known` the student is trained knowing where its words will be; with `scales` a
    factor for each output is trained beside words and biases. `fraction` is by default the model's.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    scales: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    def places(self, case: Case) -> Places:
        """Drawn from all weights."""
        fraction = case.model.word_fraction if self.fraction is None else self.fraction
        return Places(fraction=fraction, seed=self.seed, scales=self.scales)

    def steps(self, case: Case) -> list[Step]:
        """Programming, then words."""
        adapt = case.adapt(self.fraction, teacher=TEACHER, scales=self.scales)
        return [case.program(self.faults), self.adapted(adapt, case)]
