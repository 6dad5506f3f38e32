"""What recipes and bench files say of a pulse or a read beside its lines."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from rram_hil.array.operations import Step
from rram_hil.validation import FiniteVolts, StrictModel


class OtherLevels(StrictModel):
    """Base of what describes a pulse or a read: levels of the selectors' bodies and of unselected
    word lines, where it says any.
    """

    body_v: FiniteVolts | None = Field(
        default=None, description="level of the selectors' bodies; without it as the chip ties them"
    )
    unselected_wl_v: FiniteVolts | None = Field(
        default=None, description="level of the unselected word lines; without it 0 V"
    )

    def onto(self, step: Step) -> Step:
        """The step at these levels."""
        return replace(step, body_v=self.body_v, unselected_wl_v=self.unselected_wl_v)
