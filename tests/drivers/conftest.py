"""What tests against the drivers of others share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def soon() -> Callable[[Callable[[], bool]], bool]:
    """Whether something holds, or comes to hold within seconds: commands without a reply need a
    moment.
    """

    def look(holds: Callable[[], bool]) -> bool:
        end_s = time.monotonic() + 10.0
        while not (found := holds()) and time.monotonic() < end_s:
            time.sleep(0.005)
        return found

    return look


@pytest.fixture
def soon_off(soon: Callable[[Callable[[], bool]], bool]) -> Callable[[Any], bool]:
    """Whether a simulated instrument's outputs are off, or go off within seconds."""
    return lambda simulated: soon(lambda: not simulated.outputs_on)
