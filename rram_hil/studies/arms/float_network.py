"""The network in floating point, on no chip."""

from __future__ import annotations

from rram_hil.studies.arm import Arm, Case, Step
from rram_hil.studies.training import Training


class FloatNetwork(Arm):
    """The teacher in floating point: the accuracy that the paper begins with (Charan et al., JXCDC
    2020, doi 10.1109/JXCDC.2020.2987605).
    """

    def networks(self, case: Case) -> dict[str, Training]:
        """The teacher alone."""
        return {"student": case.teacher}

    def steps(self, case: Case) -> list[Step]:
        """None: it needs no chip."""
        return []
