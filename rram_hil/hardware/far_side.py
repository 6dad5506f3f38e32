"""What stands in for hardware on the far side of its link, and what it is started with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rram_hil.array import Geometry, Limits


@dataclass(frozen=True)
class SimulatedFarSide:
    """A running simulator: the driver settings that reach it, its control address, and how to stop
    it.

    `instruments` lists what it stands for as (name, model, resource), for `rram-hil simulate`;
    `is_running` tells whether it has not ended by itself.
    """

    settings: dict[str, Any]
    control: str = ""
    stop: Callable[[], None] = field(default=lambda: None)
    instruments: tuple[tuple[str, str, str], ...] = ()
    is_running: Callable[[], bool] = field(default=lambda: True)


@dataclass(frozen=True)
class FarSideRequest:
    """What a simulator is started with: sections of the bench file, and `folder`, where relative
    paths start.

    `simulation` is the section `[simulation]` as its plug-in describes it.

    `settings` are the driver's own, as given: the far side of a rack is wired as they say.
    """

    simulation: BaseModel
    geometry: Geometry
    limits: Limits
    chip_id: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)


Launcher = Callable[[FarSideRequest], SimulatedFarSide]
"""Starts the far side of a driver."""
