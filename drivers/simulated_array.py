"""A simulated chip in the same process, with no wire between: for long studies and for tests.

It answers as the simulated test-chip board does and takes as much at once, and its virtual clock is
that board's: every operation costs `Timing.link_s` and the bytes that its request and its reply
would be on the link. Volts and widths reach the chip as they are asked, not in whole microvolts and
picoseconds.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from rram_hil.array import (
    Apply,
    Cells,
    Geometry,
    Limits,
    Operation,
    Program,
    Result,
    check,
    stresses_cells,
)
from rram_hil.errors import LinkError
from rram_hil.hardware.driver import Capabilities, Driver, DriverConfig, Identity, check_extras
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.simulation.board_envelope import board_envelope
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.types import IntArray

from .dialects.board_codec import (
    MAX_PAYLOAD,
    encode_operation,
    frame_bytes,
    message_bytes,
    result_bytes,
)


class SimulatedArrayConfig(DriverConfig):
    """Section `[driver]` of a bench whose array is simulated in the process; `launch` fills it from
    `[simulation]`.
    """

    simulation: Simulation = Simulation()
    chip: str = Field(default="", description="chip id")
    folder: str = Field(default=".", description="where relative paths start")


class SimulatedArray(Driver):
    """The direct driver of a `SimulatedChip`, which is there as `.chip` between `connect` and
    `close`.
    """

    Config: ClassVar[type[DriverConfig]] = SimulatedArrayConfig
    KEEPS_MODEL_TIMES: ClassVar[bool] = True

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        super().__init__(config, geometry, limits)
        self._chip: SimulatedChip | None = None

    @property
    def chip(self) -> SimulatedChip:
        """The chip, with its ground truth. Raises `LinkError` before `connect` and after
        `close`.
        """
        if self._chip is None:
            raise LinkError("simulated array: not connected")
        return self._chip

    @override
    def connect(self) -> Identity:
        """Make the chip, or open its state file. Raises `ConfigError` or `DataError` where it does
        not fit.
        """
        config = self.config
        assert isinstance(config, SimulatedArrayConfig)
        if self._chip is None:
            self._chip = SimulatedChip(
                self.geometry,
                config.simulation,
                read_v=self.limits.read_v,
                chip_id=config.chip or "simulated",
                folder=Path(config.folder),
            )
        model = self._chip.model
        return Identity(
            model=f"simulated array ({model.name})",
            serial=f"seed-{config.simulation.seed}",
            firmware=model.digest,
            boot=f"{os.getpid()}-{id(self._chip):x}",
            chip=config.chip,
        )

    @property
    @override
    def capabilities(self) -> Capabilities:
        """What the simulated chip can do behind a simulated board."""
        return replace(
            board_envelope(self.chip.capabilities, self.geometry),
            link="in this process, timed as the simulated board's",
        )

    @override
    def arm(self) -> None:
        """Nothing to make safe: the outputs of a simulated chip are at zero between operations."""
        self.check_limits()

    @override
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out one operation; when cancelled, return the part that was done (a multiply raises
        `AbortedError`, and has cost its request only).

        Raises `LimitError` for what the limits refuse, `ConfigError` for what a request to the
        board cannot hold.
        """
        chip = self.chip
        check_extras(operation, self.capabilities)
        check(operation, self.geometry, self.limits)
        operation = self._bounded(operation)
        _, request = encode_operation(operation, number, self.geometry)
        chip.advance(self._message_s(len(request)) + chip.simulation.timing.link_s)
        result = chip.execute(operation, number, self.cancel)
        chip.advance(self._message_s(result_bytes(operation, result, chip.simulation.adc_bits)))
        return result

    def _bounded(self, operation: Operation) -> Operation:
        """The operation under the limit's current where it gives pulses and asks for no compliance
        of its own. Of reads `check_limits` sees to that: a short shows as what it is.
        """
        if isinstance(operation, Apply) and not stresses_cells(
            operation, self.geometry, self.limits
        ):
            return operation
        if isinstance(operation, Apply | Program) and operation.compliance_a is None:
            return replace(operation, compliance_a=self.limits.current_a)
        return operation

    def _message_s(self, length: int) -> float:
        """How long a message of `length` bytes, with its frames, is on the link (s)."""
        bytes_per_s = self.chip.simulation.timing.bytes_per_s
        return message_bytes(length, frame_bytes(MAX_PAYLOAD, bytes_per_s)) / bytes_per_s

    @override
    def executed(self, number: int, cells: Cells) -> IntArray | None:
        """Pulses that operation `number` really gave each cell, shape (n,); -1 where a later
        operation has reached it.
        """
        return np.where(
            self.chip.last_numbers(cells) > number, -1, self.chip.executed(number, cells)
        )

    @override
    def last_number(self) -> int:
        """The highest operation number that the chip has seen."""
        return self.chip.last_number

    @override
    def safe_off(self) -> None:
        """Outputs are at zero between operations already."""

    @override
    def close(self) -> None:
        """Bring the state to its file and let the chip go. Safe to call twice."""
        if self._chip is not None:
            self._chip.close()
            self._chip = None

    @override
    def now_s(self) -> float:
        """The chip's virtual clock (s)."""
        return self.chip.now_s


def launch(request: FarSideRequest) -> SimulatedFarSide:
    """Nothing to start: the settings that make `SimulatedArray` simulate this chip itself."""
    settings: dict[str, Any] = {
        "simulation": request.simulation.model_dump(),
        "chip": request.chip_id,
        "folder": str(request.folder),
    }
    return SimulatedFarSide(settings=settings)
