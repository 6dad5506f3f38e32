"""On-chip words for whole small layers."""

from __future__ import annotations

from typing import ClassVar

from rram_hil.studies.arm import Case, PlacedArm, Step
from rram_hil.studies.training import Places

from .chosen_words import ChosenWords


class SmallLayers(ChosenWords, PlacedArm):
    """Words for whole layers, the smallest first, so that their places need no memory: as Yao et
    al., Nature 577 (2020), doi 10.1038/s41586-020-1942-4, train the last layer alone.

    Words do at most `mac_share` of the multiply-accumulates; what is left of `fraction`, by default
    the model's, goes to weights of the next layer. With `places_known` the student is trained
    knowing where its words will be.
    """

    CHOICE: ClassVar[str] = "layers"

    def places(self, case: Case) -> Places:
        """Whole layers, and weights of the next one."""
        return Places(
            choice="layers",
            fraction=self.fraction or case.model.word_fraction,
            mac_share=self.mac_share,
            scales=self.scales,
        )

    def steps(self, case: Case) -> list[Step]:
        """Programming, then words."""
        program, adapt = super().steps(case)
        return [program, self.adapted(adapt, case)]
