"""Low-rank adapters beside the array."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .chosen_words import ChosenWords


class LowRank(ChosenWords):
    """An adapter of low rank beside each layer, and the array left as it is: Li et al.,
    "Efficient transformer adaptation for analog in-memory computing via low-rank adapters", arXiv
    2411.17367; on RRAM with the adapters in digital memory, Wu et al. (HaLoRA), arXiv 2502.19747.

    Adapters start as the best approximation of what the chip's map lacks, and are trained on it as
    words are. Ranks are the largest that `fraction`, by default the model's, and `mac_share` pay
    for.
    """

    CHOICE: ClassVar[str] = "low-rank"
    # Adapters change all weights a little, and mend none.
    sigma_share: Annotated[float, Field(ge=0, le=1)] = 1.0
