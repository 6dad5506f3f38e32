"""Programming by the error of products."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rram_hil.studies.arm import Case, Step, StudentArm


class GradientProgramming(StudentArm):
    """Gradient-descent programming (GDP): pulses where the error of the products with random
    vectors says, without a reading of any cell. Source: Büchel et al., IEEE JETCAS 2023, arXiv
    2305.16647.
    """

    rounds: Annotated[int, Field(ge=1)] = 60

    def steps(self, case: Case) -> list[Step]:
        """Programming, then rounds of products and pulses."""
        verify = case.verify()
        kept = ("tag", "tolerance", "lowest_s", "max_pulses", "set", "reset")
        own = {key: verify[key] for key in kept}
        rounds = {"name": "gradient", "protocol": "gradient-programming", "rounds": self.rounds}
        return [case.program(self.faults), rounds | own]
