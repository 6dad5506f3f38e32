"""Section `[simulation]` of a bench file: what stands in for the hardware."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rram_hil.array import STEP_EXTRAS, StepExtra
from rram_hil.simulation.model import DEFAULT_PRESET
from rram_hil.units import Ohms, Unit
from rram_hil.validation import (
    Finite,
    FiniteVolts,
    NotNegativeOhms,
    NotNegativeSeconds,
    PositiveOhms,
    PositiveVolts,
    StrictModel,
)


class Timing(StrictModel):
    """How long the simulated board takes for things, in seconds; the virtual clock is the sum of
    them.

    A step of one cell takes 2 `edge_s` + `settle_s` + its width, and `conversion_s` more where it
    measures: its volts come from converters off the chip, which take about 10 us to settle, and a
    single cell's few uA must be integrated. One vector of a multiply takes `multiply_s`: the chip's
    own drivers and column converters (NeuRRAM: 2.1 us). A transaction on the link takes `link_s` +
    bytes / `bytes_per_s`, also where the board is simulated in the process and has no link; 0 and
    infinity make it free.
    """

    edge_s: NotNegativeSeconds = 20e-9
    settle_s: NotNegativeSeconds = 10e-6
    conversion_s: NotNegativeSeconds = 10e-6
    multiply_s: NotNegativeSeconds = 2e-6
    word_s: NotNegativeSeconds = 10e-9
    link_s: NotNegativeSeconds = 1e-3
    bytes_per_s: Annotated[float, Unit("B/s"), Field(gt=0)] = 10e6


class FaultEntry(StrictModel):
    """An entry of `simulation.faults`: something that goes wrong with a message of an instrument,
    from the start on.

    `instrument` is its name in the bench file; empty for a bench of one board. `kind` is one of the
    link faults of docs/instruments.md; it happens at the next `count` messages that contain `on`;
    `seconds` is how long a delay is.
    """

    kind: str
    instrument: str = ""
    on: str = ""
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    seconds: Annotated[NotNegativeSeconds, Field(le=3600)] = 0.0


Gain = Annotated[float, Field(gt=-0.5, lt=0.5)]
"""A gain error: what is given or told is 1 + this times what it should be."""


class DacErrors(StrictModel):
    """Errors of one line's converter: gives (1 + `gain`) x level + `offset_v` + deviation.

    `inl_v` is the deviation (V) at evenly spaced levels from the lowest to the highest, straight in
    between; empty for none.
    """

    offset_v: FiniteVolts = 0.0
    gain: Gain = 0.0
    inl_v: list[FiniteVolts] = Field(default=[])

    @property
    def any(self) -> bool:
        """Whether there is an error at all."""
        return self != DacErrors()


class AdcErrors(StrictModel):
    """Errors of the converter of single readings; `offset` and `inl` in units of the full scale,
    the same in every range.

    It tells (1 + `gain`) x current + full scale x (`offset` + deviation); `inl` is the deviation at
    evenly spaced currents from minus to plus full scale, straight in between.
    """

    offset: Annotated[float, Field(gt=-0.1, lt=0.1)] = 0.0
    gain: Gain = 0.0
    inl: list[Annotated[float, Field(gt=-0.1, lt=0.1)]] = Field(default=[])

    @property
    def any(self) -> bool:
        """Whether there is an error at all."""
        return self != AdcErrors()


class SourceMeterErrors(StrictModel):
    """Errors of one channel: the terminal has (1 + `gain_v`) x what it says in volts + `offset_v`,
    and it tells (1 + `gain_a`) x current + `offset_a`.
    """

    offset_v: FiniteVolts = 0.0
    gain_v: Gain = 0.0
    offset_a: Annotated[Finite, Unit("A")] = 0.0
    gain_a: Gain = 0.0


class PulsePathErrors(StrictModel):
    """What cables, contacts and pads do to the pulses of one channel of a generator.

    Of each level 1 + `gain` arrives, `delay_s` later, over a second-order step response that rises
    from 10 % to 90 % in `rise_s` and overshoots by the part `overshoot` of the step; edges down
    come `stretch_s` later than edges up. The cells see gain and stretch, a scope all of it.
    """

    gain: Gain = 0.0
    rise_s: Annotated[NotNegativeSeconds, Field(gt=0, le=1e-3)] = 5e-9
    overshoot: Annotated[float, Field(ge=0, lt=0.9)] = 0.0
    delay_s: Annotated[NotNegativeSeconds, Field(le=1e-3)] = 0.0
    stretch_s: Annotated[Finite, Unit("s"), Field(ge=-1e-3, le=1e-3)] = 0.0


class ScopeErrors(StrictModel):
    """Errors of one channel of an oscilloscope: it shows (1 + `gain`) x volts + `offset_v`, with
    noise of the standard deviation `noise_v`, in steps of a converter of so many `bits`.
    """

    gain: Gain = 0.0
    offset_v: FiniteVolts = 0.0
    noise_v: Annotated[float, Unit("V"), Field(ge=0, le=1)] = 2e-3
    bits: Annotated[int, Field(ge=4, le=14)] = 8


class Errors(StrictModel):
    """Section `[simulation.errors]`: what the simulated instruments do wrong, for calibrations to
    find; none by default.

    `bl`, `sl` and `wl` are a board's converters of these lines, `adc` that of its single readings.
    `column_gain` and `column_offset` (in units of the full scale) are the column amplifiers of a
    multiply, one value a column or none. `access_ohm` is the open transistor in series with every
    cell when it is read or multiplied, `lead_ohm` leads and contacts in series with single
    readings. `source_meters` are channels of a rack as its wiring names them ("smu.a"), so are
    `pulse_paths` ("pulser.1") and `scopes` ("scope.1").
    """

    bl: DacErrors = DacErrors()
    sl: DacErrors = DacErrors()
    wl: DacErrors = DacErrors()
    adc: AdcErrors = AdcErrors()
    column_gain: list[Gain] = Field(default=[])
    column_offset: list[Finite] = Field(default=[])
    access_ohm: NotNegativeOhms = 0.0
    lead_ohm: NotNegativeOhms = 0.0
    source_meters: dict[str, SourceMeterErrors] = Field(default={})
    pulse_paths: dict[str, PulsePathErrors] = Field(default={})
    scopes: dict[str, ScopeErrors] = Field(default={})


class BodyEffect(StrictModel):
    """Section `[simulation.body]`: by how much a driven body shifts the selectors' threshold.

    dV_T = `gamma` (sqrt(`surface_v` + V_SB) - sqrt(`surface_v`)), `surface_v` = 2 phi_F, signs
    changed for PMOS. The values are of no process in particular.
    """

    gamma: Annotated[float, Unit("V^0.5"), Field(ge=0, le=0.6)] = 0.4
    surface_v: Annotated[PositiveVolts, Field(le=1.0)] = 0.7


class FixedResistor(StrictModel):
    """An entry of `simulation.resistors`: a plain resistor in the place of a cell, as test
    structures have them.
    """

    tile: Annotated[int, Field(ge=0)] = 0
    row: Annotated[int, Field(ge=0)]
    column: Annotated[int, Field(ge=0)]
    ohm: PositiveOhms


class Simulation(StrictModel):
    """Section `[simulation]`: the device model, the seed of every draw, the file that holds the
    chip's state.
    """

    device: str = Field(
        default=DEFAULT_PRESET,
        description="a preset (`rram-hil list` names them) or the path of a model file (.toml)",
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    state: str | None = Field(
        default=None, description="file of the chip's state, so that it outlives the process"
    )
    twin: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="not 0: another chip of the model in this one's state, for forecasts",
    )
    clock: Literal["virtual"] = "virtual"
    read_noise: bool = Field(default=True, description="false: reads return the conductance itself")
    converters: bool = Field(
        default=True, description="false: DAC and ADC do not quantise single reads and levels"
    )
    line_ohm: Annotated[Ohms, Field(ge=0)] = Field(
        default=0.0, description="wire resistance of one cell pitch (ohm)"
    )
    adc_bits: Annotated[int, Field(ge=4, le=24)] = Field(
        default=12, description="bits of every ADC, sign included"
    )
    signed_inputs: bool = Field(
        default=True, description="false: a multiply takes no negative inputs"
    )
    word_bits: Annotated[int, Field(ge=2, le=31)] = Field(
        default=8, description="bits of an on-chip word, sign included"
    )
    transport: Literal["pty", "socket"] = Field(
        default="socket", description="how a simulated board is reached"
    )
    firmware: str | None = Field(
        default=None,
        description=(
            "a program that is the board: firmware/ of the repository, built for this machine"
        ),
    )
    load_ohm: Annotated[Ohms, Field(gt=0)] | None = Field(
        default=None,
        description="a resistor in place of the array behind every source-meter channel",
    )
    body: BodyEffect = BodyEffect()
    step_extras: list[StepExtra] = Field(
        default=list(STEP_EXTRAS),
        description="what a step may say beside its three lines; the bench refuses the rest",
    )
    pace: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="wall seconds spent per virtual second"
    )
    timing: Timing = Timing()
    faults: list[FaultEntry] = Field(
        default=[], description="what goes wrong on the link, from the start on"
    )
    errors: Errors = Errors()
    resistors: list[FixedResistor] = Field(default=[], description="cells that are plain resistors")
