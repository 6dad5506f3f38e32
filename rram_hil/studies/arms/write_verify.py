"""Read-verify-write of every cell."""

from __future__ import annotations

from typing import Literal

from rram_hil.studies.arm import Case, Step, StudentArm


class WriteVerify(StudentArm):
    """Read-verify-write (R-V-W) of all weights, the baseline of Charan et al., JXCDC 2020, doi
    10.1109/JXCDC.2020.2987605: incremental step pulses, each cell read after its pulse
    (`verify_by` = "cells"), or all cells at once by orthogonal codes (HARP, arXiv 2604.12420).
    """

    verify_by: Literal["cells", "codes"] = "cells"

    def steps(self, case: Case) -> list[Step]:
        """Programming, then verification of what it left."""
        return [case.program(self.faults), case.verify(self.verify_by)]
