"""Let time pass with all outputs at zero: relaxation, retention, a chip that cools."""

from __future__ import annotations

from dataclasses import dataclass

from rram_hil.array import Wait
from rram_hil.engine.protocol import Plan, Progress, Protocol, Setting
from rram_hil.units import Seconds
from rram_hil.validation import PositiveSeconds


@dataclass(frozen=True)
class WaitSummary:
    """How long it took on the bench clock (s)."""

    waited_s: Seconds


class WaitStep(Protocol[WaitSummary]):
    """Wait `seconds` on the bench clock; at most the limit `wait_s` of the bench."""

    seconds: PositiveSeconds

    def run(self, setting: Setting) -> Plan[WaitSummary]:
        """Yields one wait."""
        yield Progress(0, 1, f"waiting {self.seconds:g} s")
        result = yield from Wait(self.seconds, label="wait")
        return WaitSummary(result.span.ended_s - result.span.started_s)
