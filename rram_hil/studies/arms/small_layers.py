"""On-chip words for whole small layers."""

from __future__ import annotations

from typing import ClassVar

from .chosen_words import ChosenWords


class SmallLayers(ChosenWords):
    """Words for whole layers, the smallest first, so that their places need no memory: as Yao et
    al., Nature 577 (2020), doi 10.1038/s41586-020-1942-4, train the last layer alone.

    Words do at most `mac_share` of the multiply-accumulates; what is left of `fraction`, by default
    the model's, goes to weights of the next layer.
    """

    CHOICE: ClassVar[str] = "layers"
