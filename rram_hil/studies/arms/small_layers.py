"""On-chip words for whole small layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import model_validator

from rram_hil.studies.arm import Case, Step
from rram_hil.studies.training import Places, Training

from .chosen_words import ChosenWords

_SEED = 0
"""Of the words in a layer that has only some."""


class SmallLayers(ChosenWords):
    """Words for whole layers, the smallest first, so that their places need no memory: as Yao et
    al., Nature 577 (2020), doi 10.1038/s41586-020-1942-4, train the last layer alone.

    Words do at most `mac_share` of the multiply-accumulates; what is left of `fraction`, by default
    the model's, goes to weights of the next layer. With `places_known` the student is trained
    knowing where its words will be.
    """

    CHOICE: ClassVar[str] = "layers"
    places_known: bool = False

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if self.places_known and self.teaching == "teacher":
            raise ValueError('places_known: the teacher knows no places; teach it "distilled"')
        return self

    def networks(self, case: Case) -> Mapping[str, Training]:
        """The student, and the teacher from which words learn, too."""
        if not self.places_known:
            return super().networks(case)
        words = Places(
            choice="layers",
            fraction=self.fraction or case.model.word_fraction,
            mac_share=self.mac_share,
            seed=_SEED,
            scales=self.scales,
        )
        student = case.student(
            self.teaching, faults=self.faults, words=words, sigma_share=self.sigma_share
        )
        return {"student": student, "teacher": case.teacher}

    def steps(self, case: Case) -> list[Step]:
        """Programming, then words where the student knows them to be."""
        program, adapt = super().steps(case)
        return [program, adapt | {"word_seed": _SEED} if self.places_known else adapt]
