"""Random sparse adaptation: on-chip words at random places."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from rram_hil.studies.arm import TEACHER, Case, Step, StudentArm
from rram_hil.studies.training import Places, Training


class RandomWords(StudentArm):
    """Random sparse adaptation (RSA) of Mohanty et al., IEDM 2017, and Charan et al., JXCDC 2020,
    doi 10.1109/JXCDC.2020.2987605: after one programming a random `fraction` of the weights gets
    words, which are trained against the chip's map. With a distilled student it is KD + RSA.

    With `places_known` the student is trained knowing where its words will be; with `scales` a
    factor for each output is trained beside words and biases. `fraction` is by default the model's.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    places_known: bool = False
    scales: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if self.places_known and self.teaching == "teacher":
            raise ValueError('places_known: the teacher knows no places; teach it "distilled"')
        return self

    def networks(self, case: Case) -> dict[str, Training]:
        """The student, and the teacher from which words learn, too."""
        fraction = case.model.word_fraction if self.fraction is None else self.fraction
        words = (
            Places(fraction=fraction, seed=self.seed, scales=self.scales)
            if self.places_known
            else None
        )
        student = case.student(
            self.teaching, faults=self.faults, words=words, sigma_share=self.sigma_share
        )
        return {"student": student, "teacher": case.teacher}

    def steps(self, case: Case) -> list[Step]:
        """Programming, then words."""
        adapt = case.adapt(self.fraction, teacher=TEACHER, scales=self.scales)
        if self.places_known:
            adapt["word_seed"] = self.seed
        return [case.program(self.faults), adapt]
