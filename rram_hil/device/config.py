"""Section `[simulation]` of a bench file: what stands in for the hardware."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Timing(BaseModel):
    """How long the simulated board takes for things, in seconds; the virtual clock is the sum of them.

    A step of one cell takes 2 `edge_s` + `settle_s` + its width, and `conversion_s` more where it measures: its volts come from
    converters off the chip, which take about 10 us to settle, and a single cell's few uA must be integrated. One vector of
    a multiply takes `multiply_s`: the chip's own drivers and column converters (NeuRRAM: 2.1 us). A transaction on
    the link takes `link_s` + bytes / `bytes_per_s`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    edge_s: Seconds = 20e-9
    settle_s: Seconds = 10e-6
    conversion_s: Seconds = 10e-6
    multiply_s: Seconds = 2e-6
    word_s: Seconds = 10e-9
    link_s: Seconds = 1e-3
    bytes_per_s: Annotated[float, Field(gt=0)] = 10e6


class FaultEntry(BaseModel):
    """An entry of `simulation.faults`: something that goes wrong with a message of an instrument, from the start on.

    `instrument` is its name in the bench file; empty for a bench of one board. `kind` is one of the link faults of
    docs/instruments.md; it happens at the next `count` messages that contain `on`; `seconds` is how long a delay is.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: str
    instrument: str = ""
    on: str = ""
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    seconds: Seconds = 0.0


class Simulation(BaseModel):
    """Section `[simulation]`: the device model, the seed of every draw, the file that holds the chip's state."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    device: str = Field(default="hfo2", description="a preset (hfo2, paper) or the path of a model file (.toml)")
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    state: str | None = Field(default=None, description="file of the chip's state, so that it outlives the process")
    clock: Literal["virtual"] = "virtual"
    read_noise: bool = Field(default=True, description="false: reads return the conductance itself")
    converters: bool = Field(default=True, description="false: DAC and ADC do not quantise single reads and levels")
    line_ohm: Annotated[float, Field(ge=0)] = Field(default=0.0, description="wire resistance of one cell pitch")
    adc_bits: Annotated[int, Field(ge=4, le=24)] = Field(default=12, description="bits of every ADC, sign included")
    word_bits: Annotated[int, Field(ge=2, le=31)] = Field(
        default=8, description="bits of an on-chip word, sign included"
    )
    transport: Literal["pty", "socket"] = Field(default="socket", description="how a simulated board is reached")
    pace: Annotated[float, Field(ge=0)] = Field(default=0.0, description="wall seconds spent per virtual second")
    timing: Timing = Timing()
    faults: list[FaultEntry] = Field(default=[], description="what goes wrong on the link, from the start on")
