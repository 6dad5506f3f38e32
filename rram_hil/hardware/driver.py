"""What the core asks of a driver, and what a driver says of its hardware.

A driver turns operations into the commands of one instrument family. It is found by its entry point
in the group `rram_hil.drivers`, or named in a bench file as "./file.py:Class".
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rram_hil.array import (
    LINES,
    Apply,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    Result,
    Scheme,
    Selector,
    Step,
    StepExtra,
)
from rram_hil.array.limits import check_current_limit
from rram_hil.errors import ConfigError
from rram_hil.hardware.arrival import Arrival
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Amperes, Seconds, Unit
from rram_hil.validation import StrictModel
from rram_hil.wire.recording import Traffic


@dataclass(frozen=True)
class Identity:
    """Who answered: model, serial number, firmware, protocol version, and an id that changes with
    every boot.
    """

    model: str
    serial: str
    firmware: str = ""
    protocol: str = ""
    boot: str = ""
    chip: str = ""


@dataclass(frozen=True)
class Span:
    """A range that the hardware covers, ends included, and its smallest step."""

    low: float
    high: float
    step: float = 0.0

    def holds(self, low: float, high: float) -> bool:
        """Whether [low, high] lies inside; False for NaN."""
        return bool(self.low <= low and high <= self.high)


@dataclass(frozen=True)
class Capabilities:
    """What a bench can do, as envelopes. What it has not, the core lowers to what it has, or
    refuses by name.

    `max_cells` and `max_steps` bound one `Apply` (steps counted with repeats); `max_vectors` one
    `Multiply`; `max_words` one `WriteWords`; `max_coded_cells` one `CodedRead`. `program`,
    `multiply` and `coded_read` (with it a `Program` whose verify is coded) say what runs natively.
    `signed_inputs` says that inputs of a multiply may be negative.
    `counters` says that the hardware keeps executed pulses per cell and operation number across a
    loss of the link and its own reboot. `bias_current` says that a current can be measured above
    the read limit too, not only in a read. A current reading is right within `read_fraction` of its
    value and `read_floor_a` together, as the instruments' documents state. `step_extras` are what a
    step may say beside its three lines; their volts lie within `wl_v`. `selectors` are the kinds of
    transistors whose rules the bench keeps.
    """

    bl_v: Annotated[Span, Unit("V")]
    sl_v: Annotated[Span, Unit("V")]
    wl_v: Annotated[Span, Unit("V")]
    width_s: Annotated[Span, Unit("s")]
    schemes: frozenset[Scheme] = frozenset(Scheme)
    max_cells: int = 4096
    max_steps: int = 64
    per_cell_bias: bool = True
    program: bool = False
    multiply: bool = False
    coded_read: bool = False
    max_coded_cells: int = 1 << 20
    signed_inputs: bool = True
    input_bits: int = 8
    adc_bits: int = 12
    max_vectors: int = 1024
    words: int = 0
    word_bits: int = 8
    max_words: int = 4096
    gate_current: bool = False
    step_extras: frozenset[StepExtra] = frozenset()
    selectors: frozenset[Selector] = frozenset({"nmos"})
    read_fraction: float = 0.0
    read_floor_a: Amperes = 0.0
    compliance: bool = False
    bias_current: bool = True
    counters: bool = False
    abort_s: Seconds = 1.0
    clock: Literal["virtual", "wall"] = "wall"
    link: str = ""
    timing: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReadingPath:
    """Through what a step of an `Apply` measures a current, for the calibration of it.

    `asked_v` is BL - SL as asked and `gate_v` the word line, shape (n,). `sources` are what forces
    them: name, sign with which its volts count in BL - SL, volts asked of it, shape (n,); what is
    missing stands at ground. `sense` names what measures, and `sign` turns what that tells into the
    current from BL to SL. Names are "bl", "sl" and "adc" on a board, "smu.a" on a rack.
    """

    asked_v: FloatArray
    gate_v: FloatArray
    sources: tuple[tuple[str, int, FloatArray], ...]
    sense: str = "adc"
    sign: int = 1


def board_paths(operation: Apply) -> list[ReadingPath]:
    """Paths of a board: its converters force bit and source line, its ADC measures at the bit
    line.
    """
    n = len(operation.cells)
    paths = []
    for step in operation.steps:
        if step.measure == "current":
            levels = [step.levels(line, n) for line in LINES]
            bl, sl, wl = (np.zeros(n) if v is None else np.array(v) for v in levels)
            paths.append(ReadingPath(step.cell_v(n), wl, (("bl", 1, bl), ("sl", -1, sl))))
    return paths


def check_extras(operation: Operation, can: Capabilities) -> None:
    """Refuse what steps say beside their three lines and this bench has not. Raises `ConfigError`
    naming it.
    """
    asked: tuple[Step | Multiply | CodedRead, ...] = ()
    if isinstance(operation, Apply):
        asked = operation.steps
    elif isinstance(operation, Program):
        asked = (operation.read, *operation.extremes())
    elif isinstance(operation, Multiply | CodedRead):
        asked = (operation,)
    for step in asked:
        for name in step.extras:
            if name not in can.step_extras:
                has = ", ".join(sorted(can.step_extras)) or "nothing"
                raise ConfigError(
                    f"{name}: {_EXTRAS[name]} is not available on this bench; beside the levels of"
                    f" bit, source and word line a step may say {has} here"
                )
        for line, volts in (("body", step.body_v), ("unselected WL", step.unselected_wl_v)):
            if volts is not None and not can.wl_v.holds(volts, volts):
                raise ConfigError(
                    f"{line} of {volts:g} V is not available on this bench; it has"
                    f" {can.wl_v.low:g} to {can.wl_v.high:g} V"
                )


_EXTRAS: dict[StepExtra, str] = {
    "body_v": "a level of the selectors' bodies",
    "unselected_wl_v": "a level of the unselected word lines",
    "also_gate": "the gate's current beside each reading",
}


class DriverConfig(StrictModel):
    """Base of each driver's section of the bench file: unknown keys and guessing coercions are
    refused.
    """


class Driver(ABC):
    """One bench behind one link (or several). Every method raises the errors of `rram_hil.errors`
    only.

    `cancel` is set, from a signal handler or another thread, to abort: a driver waiting for its
    instrument looks at it at least every 50 ms, tells the instrument to stop, and raises
    `AbortedError` or returns the part that was done. `traffic`, set before `connect`, is what its
    links (`rram_hil.wire.link`) record to or are played back from. `arrivals`, set before `arm`,
    says how pulses of generators arrive, by channel ("pulser.1"): calibrations in force.
    """

    Config: ClassVar[type[DriverConfig]] = DriverConfig
    KEEPS_MODEL_TIMES: ClassVar[bool] = False
    """Whether operations take the times of the device model's own board, as forecasts do."""

    def __init__(self, config: DriverConfig, geometry: Geometry, limits: Limits) -> None:
        self.config = config
        self.geometry = geometry
        self.limits = limits
        self.cancel = threading.Event()
        self.traffic: Traffic | None = None
        self.arrivals: Mapping[str, Arrival] = {}

    @classmethod
    def identify_at(cls, port: str) -> Identity | None:
        """Who answers at a serial port, for `rram-hil devices --probe-serial`; changes no output.

        None where nobody does, or for a driver that cannot tell.
        """
        return None

    @abstractmethod
    def connect(self) -> Identity:
        """Open the link and identify; change no output. Raises `LinkError`, or `ConfigError` for
        the wrong model.
        """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the connected hardware can do."""

    @abstractmethod
    def arm(self) -> None:
        """Make safe: outputs off, reset, limits sent where the hardware keeps limits of its own,
        all read back.
        """

    @abstractmethod
    def execute(self, operation: Operation, number: int) -> Result:
        """Carry out one native operation under its journal number, at most once, whatever the link
        does.

        Raises `ConfigError` or `LimitError` only before anything has moved (the pulses are then not
        counted), and `UnknownOutcomeError` where it may have been carried out in part and the
        hardware cannot tell.
        """

    def executed(self, number: int, cells: Cells) -> IntArray | None:
        """Pulses that operation `number` really gave each cell, shape (n,), from the hardware's own
        counters.

        None where the hardware keeps none, -1 for a cell whose record a later operation has
        replaced; a partly executed operation reports what its cells really took.
        """
        return None

    def last_number(self) -> int:
        """The highest operation number that the hardware has seen; 0 where it keeps none."""
        return 0

    @abstractmethod
    def safe_off(self) -> None:
        """All outputs to zero and off, verified by read-back on the same connection. Raises if not
        verified.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the link back. Never raises; safe to call twice."""

    @abstractmethod
    def now_s(self) -> float:
        """The bench clock: seconds since an arbitrary start, of the far side on a virtual bench."""

    def parts(self) -> Mapping[str, Identity]:
        """The connected instruments that have calibrations of their own, by their names in the
        bench file; none on a board.
        """
        return {}

    @property
    def instruments(self) -> Mapping[str, Any]:
        """The connected instruments (`rram_hil.hardware.instrument`) by their names in the bench
        file; none on a board.
        """
        return {}

    @property
    def generators(self) -> tuple[str, ...]:
        """Channels of pulse generators that give pulses of steps, as the bench file names them
        ("pulser.1"); none on a board.
        """
        return ()

    @property
    def probes(self) -> Mapping[str, str]:
        """Channels of oscilloscopes ("scope.1"), each with the one of `generators` whose pulses it
        sees where they arrive.
        """
        return {}

    def reading_paths(self, operation: Apply) -> list[ReadingPath]:
        """For each step that measures a current, in their order, repeats once: what forces and what
        measures.
        """
        return board_paths(operation)

    def peaks(self, step: Step, n: int) -> Iterable[Step]:
        """What a step puts on the lines of `n` cells for a moment beyond its levels, as steps: the
        overshoot of a generator's pulse, where that is known.
        """
        return ()

    @property
    def transactions(self) -> int:
        """Turns on all its links so far, repeats included; 0 where there is no link."""
        return 0

    def wear(self) -> str:
        """What the hardware counts of its own wear (closures of relays), in one line; empty where
        it counts nothing.
        """
        return ""

    def check_limits(self) -> None:
        """Refuse limits that this bench cannot keep; every `arm` begins with it. Raises
        `ConfigError`.
        """
        can = self.capabilities
        check_current_limit(self.limits, bounds_current=can.compliance, multiplies=can.multiply)
        selector = self.geometry.selector
        if selector not in can.selectors:
            raise self.refuse(
                f"a chip with {selector.upper()} selectors (chip.selector)",
                f"the rules of {' and '.join(sorted(can.selectors)).upper()}",
            )

    def refuse(self, what: str, allowed: str) -> ConfigError:
        """The error for an operation that this hardware has not."""
        return ConfigError(
            f"{type(self).__name__}: {what} is not available on this bench; it has {allowed}"
        )
