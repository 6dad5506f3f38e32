"""A mapping that knows which cells are stuck."""

from __future__ import annotations

from rram_hil.networks.mapping import Faults
from rram_hil.studies.arm import Case, Step, StudentArm, Teaching


class FaultAware(StudentArm):
    """Fault-aware mapping: the healthy cell of a pair takes over what its stuck partner cannot
    ("partner"); columns of pairs are also swapped where that helps ("flip"); inputs and outputs
    also go on the rows and pairs of columns whose stuck cells suit their weights ("permute").
    Sources: Xia et al., "Stuck-at fault tolerance in RRAM computing systems", IEEE JETCAS 2018, doi
    10.1109/JETCAS.2017.2776980; of "permute" Zhang et al., "Handling stuck-at-faults in memristor
    crossbar arrays using matrix transformations", ASP-DAC 2019, doi 10.1145/3287624.3287707.

    Which cells are stuck is what forming found on the bench. The student is trained with errors of
    which the faults are known.
    """

    teaching: Teaching = "distilled"
    faults: Faults = "partner"

    def steps(self, case: Case) -> list[Step]:
        """Programming alone."""
        return [case.program(self.faults)]
