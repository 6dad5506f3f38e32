"""The campaign of benchmarks/kill_campaign.py, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "kill_campaign.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 12])
def test_nothing_committed_is_lost_no_budget_passed_and_no_history_forked(
    crash_shim: Any, seed: int
) -> None:
    command = [sys.executable, str(CAMPAIGN), "--kills", "25", "--seed", str(seed), "--json"]
    done = subprocess.run(
        command, env=crash_shim.environment(""), capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    assert [tally["wrong"] for tally in found.values()] == [[], []]
    assert all(tally["killed"] >= 25 for tally in found.values())
