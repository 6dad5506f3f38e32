"""What tests against the drivers of others share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def soon_off() -> Callable[[Any], bool]:
    """Whether a simulated instrument's outputs are off, or go off within seconds: commands without a reply need a moment."""

    def look(simulated: Any) -> bool:
        end_s = time.monotonic() + 10.0
        while simulated.outputs_on and time.monotonic() < end_s:
            time.sleep(0.005)
        return not simulated.outputs_on

    return look
