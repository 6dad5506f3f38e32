"""What the bench asks of single instruments: source-meters, switch matrices, pulse generators.

A class of a family is found by its entry point in the group `rram_hil.instruments`. It speaks its
own dialect over one link; how instruments make up an array bench is a driver's business
(`rram_hil.hardware.driver`). All values are SI.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from typing_extensions import override

from rram_hil.array import Status
from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.undriven import undriven_kinds, why_undriven
from rram_hil.plugins import load_class
from rram_hil.types import FloatArray, IntArray, StatusArray
from rram_hil.units import Unit
from rram_hil.validation import refused
from rram_hil.wire.dialog import Dialog
from rram_hil.wire.link_keys import LinkKeys
from rram_hil.wire.recording import Traffic

NOT_A_READING = 9.0e37
"""At or above this |value| a SCPI or TSP reading says "over range" (9.9E37, 9.91E37), never a
quantity.
"""


OutputOff = Literal["normal", "zero", "high-impedance"]


class InstrumentConfig(LinkKeys):
    """How one instrument is reached (`LinkKeys`), and which it is; base of each family's own
    settings. Unknown keys and guessing coercions are refused.
    """

    kind: str = Field(default="", description="entry point of the family, such as keithley-2600b")
    model: str = Field(default="", description="model expected; empty: any of the family")
    treat_as: str = Field(
        default="",
        description=(
            "a model of the family by whose table one that is near but unknown is driven, at your"
            " own risk"
        ),
    )
    serial: str = Field(
        default="",
        description=(
            "serial number expected, as rram-hil devices prints it: instruments of one model that"
            " have changed places are refused; empty: any"
        ),
    )
    line_hz: Annotated[float, Unit("Hz"), Field(ge=45, le=65)] = Field(
        default=50.0, description="mains, for NPLC"
    )


class SourceMeterConfig(InstrumentConfig):
    """The same of a source-meter."""

    output_off: OutputOff = Field(
        default="high-impedance",
        description=(
            "what an output that is off does: opens its relay, holds zero volts, or what the"
            " instrument calls normal (zero volts, little current)"
        ),
    )
    stop_at_compliance: bool = Field(
        default=False,
        description=(
            "whether a sweep or list ends at its first reading at compliance; else it goes on, as"
            " forming needs it to"
        ),
    )


@dataclass(frozen=True)
class ModelSheet:
    """What of a model was checked against which document, and what no document confirmed.

    An entry of `documents` names what, document and section; `unverified` what the driver takes
    for granted. `rram-hil devices --models` prints them.
    """

    documents: tuple[str, ...]
    unverified: tuple[str, ...] = ()


LimitsT = TypeVar("LimitsT")


class Instrument(ABC):
    """One instrument on one link. Use: `connect`, `arm`, work, `safe_off`, `close`. Errors are
    those of `rram_hil.errors`.

    A subclass opens `self.dialog` in `connect`. Every method that changes something reads the error
    queue afterwards and raises `InstrumentError` with code, text and command.
    """

    MAKER: ClassVar[str] = ""
    """What people call the maker: "Keithley"."""
    MAKERS: ClassVar[Mapping[str, str]] = {}
    """Names under which the family's instruments tell their maker in their identification -> the
    document and section that shows it. Capitals and punctuation do not count. Without any, a name
    with `MAKER` in it is believed.
    """
    MODELS: ClassVar[tuple[str, ...]] = ()
    """Models of the family, as the instrument tells them in its identification without prefix or
    suffix ("2636B").
    """
    SHEETS: ClassVar[Mapping[str, ModelSheet]] = {}
    """What was checked of each model of `MODELS`; empty where nothing is stated."""
    NEAR: ClassVar[str] = ""
    """Regular expression of names of models that speak the family's dialect, known or not. One that
    gives less than every known table allows, or far more, is no model to be treated as another: it
    is left out, or told of in the group `rram_hil.undriven`.
    """
    Config: ClassVar[type[InstrumentConfig]] = InstrumentConfig
    dialog: Dialog
    model: str
    """The model by whose table it is driven, once that is known."""

    def __init__(self, config: InstrumentConfig, traffic: Traffic | None = None) -> None:
        self.config = config
        self.traffic = traffic

    @property
    def name(self) -> str:
        """How messages name this instrument."""
        return f"{type(self).__name__} {self.config.resource}"

    @abstractmethod
    def connect(self) -> Identity:
        """Open the link and identify; change nothing, outputs least of all.

        Raises `LinkError` where nothing answers, `ConfigError` for another model; the link is
        closed then.
        """

    @abstractmethod
    def arm(self) -> None:
        """Outputs off, reset to known settings, error queue emptied, all verified by read-back."""

    @abstractmethod
    def safe_off(self) -> None:
        """Outputs to zero and off (a matrix: all relays open), verified by read-back on the same
        connection.

        Works after any failure: brings the link back into step first. Raises `LinkError` or
        `InstrumentError` if not verified.
        """

    @abstractmethod
    def is_off(self) -> bool:
        """Whether all outputs are off, or all relays open, as the instrument itself says now."""

    @abstractmethod
    def errors(self) -> list[InstrumentError]:
        """Empty the error queue: its entries, oldest first."""

    def close(self) -> None:
        """Give the link back. Never raises; safe to call twice. Switches nothing: `safe_off`
        does.
        """
        if hasattr(self, "dialog"):
            self.dialog.close()

    def plain_model(self, told: str) -> str:
        """The model as `MODELS` has it, from the second field of `*IDN?` or from a bench file
        ("MODEL 2450" -> "2450").
        """
        return told.strip("\0 \t\r\n").upper().removeprefix("MODEL").strip()

    @classmethod
    def extent(cls, model: str) -> tuple[float, ...]:
        """How much a known model gives, in the order in which it matters; the less, the tighter its
        table. Empty where all tables of a family are alike.
        """
        return ()

    @classmethod
    def is_made_by(cls, maker: str) -> bool:
        """Whether a maker, as an instrument tells it, makes the family's instruments."""
        if not cls.MAKERS:
            return cls.MAKER.casefold() in maker.casefold()
        return _plain_name(maker) in map(_plain_name, cls.MAKERS)

    @classmethod
    def offer(cls, model: str) -> str:
        """How an unknown model that speaks the family's dialect (`NEAR`) could be driven: by the
        table of the known one whose name is most like its own, of several the tightest (`extent`).
        Empty for any other model.
        """
        if not model or model in cls.MODELS or not re.fullmatch(cls.NEAR, model):
            return ""
        nearest = min(cls.MODELS, key=lambda known: (_unlike(known, model), cls.extent(known)))
        return f"the nearest is {nearest}: {_treated_as(nearest)}"

    def accept(self, maker: str, model: str) -> str:
        """The model by whose table the instrument is driven, from maker and model as it tells them:
        its own, or the `treat_as` of the bench file for one that is near but unknown, or another
        maker's.

        Raises `ConfigError` for an instrument of another family or maker, for another model than
        the bench file names, and for a `treat_as` that is no model of the family, or another one
        where the model is known.
        """
        asked, instead = self.plain_model(self.config.model), self.config.treat_as
        family, own = type(self).__name__, self.is_made_by(maker)
        makers = " or ".join(self.MAKERS or (self.MAKER,))
        problem = f"{self.config.resource}: this is a {f'{maker} {model}'.strip()!r}; "
        if asked and model != asked:
            raise ConfigError(f"{problem}{family} is to drive a {asked}")
        if own and model in self.MODELS:
            if instead not in ("", model):
                raise ConfigError(
                    f"{problem}its own table is known: leave treat_as = {instead!r} out"
                )
            return model
        if why := why_undriven(model):
            raise ConfigError(f"{problem}{why}")
        offer = _treated_as(model) if model in self.MODELS else self.offer(model)
        if not offer:
            raise ConfigError(f"{problem}{family} drives {', '.join(self.MODELS)} of {makers}")
        if instead not in self.MODELS:
            why = "does not know it" if own else f"drives those of {makers}"
            raise ConfigError(f"{problem}{family} {why}; {offer}")
        return instead


def _treated_as(model: str) -> str:
    return f'treat_as = "{model}" drives it by the table of that model, at your own risk'


def _plain_name(maker: str) -> str:
    """A maker's name in small letters, its words apart by one space."""
    return " ".join(re.findall(r"\w+", maker.casefold()))


def _unlike(known: str, model: str) -> tuple[int, int]:
    """How far two names of models are apart: places that differ, then characters left over."""
    differ = sum(one != other for one, other in zip(known, model, strict=False))
    return differ, abs(len(known) - len(model))


@dataclass(frozen=True)
class Accuracy:
    """Of one range: `range` (A or V), error at most `fraction` x |reading| + `offset` (same
    unit).
    """

    range: float
    fraction: float
    offset: float


@dataclass(frozen=True)
class ChannelLimits:
    """What one source-meter channel can do. Ranges are full scales, ascending.

    `envelope` holds (volts, amperes) pairs: at up to that many volts it gives up to that many
    amperes (DC). `measures_a` and `measures_v` give the accuracy of each measuring range (one
    year); empty where no document was opened. `shortest_s` is the shortest level that the channel
    can hold in a timed sequence of its own, `shortest_aperture_s` the shortest integration.
    `settle_s` is how long the source needs after a change of level.
    """

    voltage_ranges_v: tuple[float, ...]
    current_ranges_a: tuple[float, ...]
    envelope: tuple[tuple[float, float], ...]
    shortest_s: float
    shortest_aperture_s: float
    longest_aperture_s: float
    smallest_compliance_a: float
    smallest_compliance_v: float
    settle_s: float
    measures_a: tuple[Accuracy, ...] = ()
    measures_v: tuple[Accuracy, ...] = ()

    @property
    def max_v(self) -> float:
        """Largest |V| of the channel."""
        return max(v for v, _ in self.envelope)

    @property
    def max_a(self) -> float:
        """Largest |I| of the channel."""
        return max(a for _, a in self.envelope)

    def allows(self, volts: float, amps: float) -> bool:
        """Whether the channel can give `volts` with `amps` together; False for NaN."""
        return any(abs(volts) <= v and abs(amps) <= a for v, a in self.envelope)


class Function(StrEnum):
    """What a channel forces."""

    VOLTAGE = "voltage"
    CURRENT = "current"


@dataclass(frozen=True)
class SourceSetup:
    """Settings of one source-meter channel.

    `compliance` is amperes for a voltage source, volts for a current source. `source_range` and
    `measure_range` are the largest values that must fit; None lets the instrument choose by itself.
    `aperture_s` is the integration time of one measurement, `settle_s` the wait between a change of
    level and the measurement. `remote_sense` is four-wire. `one_conversion` asks for readings that
    integrate once: zero and reference are measured when the channel is configured and not again
    with each reading, and the level that it tells is the one asked for. An instrument that has no
    such setting leaves it out.
    """

    function: Function
    compliance: float
    source_range: float | None = None
    measure_range: float | None = None
    aperture_s: float = 0.02
    settle_s: float = 0.0
    remote_sense: bool = False
    one_conversion: bool = False


@dataclass(frozen=True, eq=False)
class Readings:
    """n readings of one channel: what it forced and measured, shape (n,) each; `time_s` is the
    instrument's own clock.

    A reading is one value (v, i, status): a value over range is NaN with status OVER_RANGE, one
    taken at compliance COMPLIANCE.
    """

    volts: FloatArray
    amps: FloatArray
    status: StatusArray
    time_s: FloatArray

    def __len__(self) -> int:
        return int(self.volts.size)

    @classmethod
    def of(
        cls,
        volts: FloatArray,
        amps: FloatArray,
        limited: FloatArray | np.ndarray,
        time_s: FloatArray,
    ) -> Readings:
        """From raw values: 9.9E37 of either sign becomes NaN and OVER_RANGE, `limited` (bool, shape
        (n,)) COMPLIANCE.
        """
        volts, amps = np.array(volts, dtype=np.float64), np.array(amps, dtype=np.float64)
        status = np.zeros(volts.shape, dtype=np.uint8)  # OK
        # Counting costs a tenth of `any` and `all`, which is felt where a reading comes alone.
        if np.count_nonzero(limited):
            status[np.asarray(limited, dtype=np.bool_)] = Status.COMPLIANCE
        fits = np.maximum(np.abs(volts), np.abs(amps)) < NOT_A_READING
        if np.count_nonzero(fits) < fits.size:
            status[~fits] = Status.OVER_RANGE
            status[np.isnan(volts) | np.isnan(amps)] = Status.NOT_A_NUMBER
            for value in (volts, amps):
                value[~(np.abs(value) < NOT_A_READING)] = np.nan
        return cls(volts, amps, status, np.asarray(time_s, dtype=np.float64))

    def part(self, chosen: slice | NDArray[np.bool_]) -> Readings:
        """The readings that a slice or mask (bool, shape (n,)) chooses."""
        return Readings(
            self.volts[chosen], self.amps[chosen], self.status[chosen], self.time_s[chosen]
        )

    def ended(self, points: int, name: str) -> Readings:
        """These readings of a sweep of `points`, made up to its length: points that were not taken
        are NaN with status NOT_RUN. `name` is the instrument, for the message.

        Raises `InstrumentError` where readings are missing after one that gives no reason to end.
        """
        missing = points - len(self)
        if missing <= 0:
            return self
        if not len(self) or self.status[-1] == Status.OK:
            raise InstrumentError(
                f"{name}: a sweep ended after {len(self)} of {points} points, not at compliance"
            )
        nothing = np.full(missing, np.nan)
        return Readings(
            np.append(self.volts, nothing),
            np.append(self.amps, nothing),
            np.append(self.status, np.full(missing, Status.NOT_RUN, dtype=np.uint8)),
            np.append(self.time_s, nothing),
        )


class ChannelInstrument(Instrument, Generic[LimitsT]):
    """An instrument with channels of one kind, each with limits of its own."""

    @property
    @abstractmethod
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of the connected model."""

    @abstractmethod
    def limits(self, channel: str) -> LimitsT:
        """What a channel of the connected model can do."""

    @classmethod
    def all_limits(cls, model: str) -> list[LimitsT]:
        """What each channel of a known model can do, without an instrument."""
        known = cls(cls.Config())
        known.model = model
        return [known.limits(channel) for channel in known.channels]


class SourceMeter(ChannelInstrument[ChannelLimits]):
    """Source-measure channels. `channels` names them as the front panel does ("a", "b"; "1",
    "2").
    """

    Config: ClassVar[type[InstrumentConfig]] = SourceMeterConfig

    @property
    def output_off(self) -> OutputOff:
        """What an output that is off does, as the bench file says."""
        config = self.config if isinstance(self.config, SourceMeterConfig) else SourceMeterConfig()
        return config.output_off

    @property
    def stop_at_compliance(self) -> bool:
        """Whether a sweep or list ends at its first reading at compliance, as the bench file
        says.
        """
        config = self.config if isinstance(self.config, SourceMeterConfig) else SourceMeterConfig()
        return config.stop_at_compliance

    @override
    @classmethod
    def extent(cls, model: str) -> tuple[float, ...]:
        limits = cls.all_limits(model)
        most_v = max((one.max_v for one in limits), default=0.0)
        return most_v, max((one.max_a for one in limits), default=0.0), len(limits)

    @abstractmethod
    def configure(self, channel: str, setup: SourceSetup) -> None:
        """Send all settings, with the level at zero; the output stays as it is.

        Raises `ConfigError` for what the channel cannot do (nothing is sent then),
        `InstrumentError` for what it refuses.
        """

    @abstractmethod
    def settings(self, channel: str) -> SourceSetup:
        """The settings in force, read back from the instrument; ranges are the full scales in use
        (None: automatic).
        """

    @abstractmethod
    def source(self, channel: str, level: float) -> None:
        """Set the level (V or A, as configured). Raises `ConfigError` beyond the range."""

    @abstractmethod
    def output(self, channel: str, on: bool) -> None:
        """Switch the output relay. On only after `configure`; the level is as last set."""

    @abstractmethod
    def measure(self, channel: str) -> Readings:
        """One reading of an output that is on. Raises `InstrumentError` where it is off."""

    def held(self, channel: str) -> Readings:
        """One reading of an output that has held its level while another instrument worked. An
        instrument that remembers says COMPLIANCE too where it was at its limit at any moment since
        the level was set or last read so. Raises as `measure`.
        """
        return self.measure(channel)

    @abstractmethod
    def sweep(self, channel: str, start: float, stop: float, points: int) -> Readings:
        """A linear staircase, run on the instrument and fetched from its buffer in one transaction,
        level back at zero after.

        With `stop_at_compliance` it ends at the first reading at compliance, taken one by
        one where the instrument cannot do that; there are as many readings as points
        (`Readings.ended`).
        The output must be on. Raises `ConfigError` for more points than the instrument's buffer
        holds.
        """

    @abstractmethod
    def list_sweep(self, channel: str, levels: FloatArray) -> Readings:
        """Any sequence of levels, run on the instrument and fetched from its buffer in one
        transaction, zero after; ends as `sweep` does.
        """

    def list_sweep_beside(
        self, channel: str, levels: FloatArray, others: Sequence[str]
    ) -> dict[str, Readings]:
        """`list_sweep`, and after it `measure` of other channels, whose levels stand all the while;
        as one transaction where the instrument can. Readings by channel. Raises as those do.
        """
        return {channel: self.list_sweep(channel, levels)} | {c: self.measure(c) for c in others}

    def list_sweeps(
        self, channel: str, runs: Sequence[tuple[SourceSetup, FloatArray]]
    ) -> list[Readings]:
        """Lists one after the other, each with settings of its own; as one transaction where the
        instrument can. The output must be on. Raises as `configure` and `list_sweep` do.
        """
        found = []
        for setup, levels in runs:
            self.configure(channel, setup)
            found.append(self.list_sweep(channel, levels))
        return found


Crosspoint = tuple[str, int]
"""A matrix row (letter) and a matrix column, numbered from 1 over all slots."""


class SwitchMatrix(Instrument):
    """A relay matrix of rows (letters, where channels hang) and columns (numbers, where the array's
    lines hang).
    """

    @property
    @abstractmethod
    def rows(self) -> tuple[str, ...]:
        """Row letters."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """Columns of all slots together."""

    @property
    @abstractmethod
    def settle_s(self) -> float:
        """How long relays need to settle after a command."""

    @abstractmethod
    def switch(self, *, close: Iterable[Crosspoint] = (), open: Iterable[Crosspoint] = ()) -> None:  # noqa: A002
        """Open, wait, then close (break before make), wait until settled: one transaction. Sources
        must be at zero.
        """

    @abstractmethod
    def open_all(self) -> None:
        """Open every relay."""

    @abstractmethod
    def closed(self) -> frozenset[Crosspoint]:
        """What is closed, read back."""

    @abstractmethod
    def counts(self, points: Iterable[Crosspoint]) -> IntArray:
        """How often each relay has closed in its life, as the instrument counts, in the order
        given; shape (n,).
        """


@dataclass(frozen=True)
class PulseSetup:
    """A pulse train of one generator channel, levels at the terminals of `load_ohm` (infinite: open
    circuit).
    """

    high_v: float
    low_v: float
    width_s: float
    period_s: float
    edge_s: float
    load_ohm: float = float("inf")


@dataclass(frozen=True)
class PulseLimits:
    """What one generator channel can do: largest |V| into an open circuit and into 50 ohm, times in
    s. Its documents say that a pulse overshoots by at most `overshoot` of its level and
    `overshoot_v` more; 0 where no document was opened.
    """

    max_open_v: float
    max_50_ohm_v: float
    shortest_s: float
    longest_s: float
    shortest_edge_s: float
    longest_edge_s: float
    shortest_period_s: float
    most_pulses: int
    overshoot: float = 0.0
    overshoot_v: float = 0.0


class PulseGenerator(ChannelInstrument[PulseLimits]):
    """Pulses shorter than a source-meter can make, a counted number at a time."""

    @override
    @classmethod
    def extent(cls, model: str) -> tuple[float, ...]:
        limits = cls.all_limits(model)
        most_v = max((one.max_open_v for one in limits), default=0.0)
        fastest = max((1.0 / one.shortest_period_s for one in limits), default=0.0)
        return most_v, fastest, len(limits)

    @abstractmethod
    def configure(self, channel: str, setup: PulseSetup) -> None:
        """Send all settings; the output stays as it is and no pulse is given. Raises as
        `SourceMeter.configure`.
        """

    @abstractmethod
    def settings(self, channel: str) -> PulseSetup:
        """The settings in force, read back."""

    @abstractmethod
    def output(self, channel: str, on: bool) -> None:
        """Switch the output; it then rests at the low level."""

    @abstractmethod
    def fire(self, channel: str, count: int) -> None:
        """Give `count` pulses and return when the last is over. The output must be on."""


def instrument_class(kind: str) -> type[Instrument]:
    """The family of an entry point. Raises `ConfigError` listing what there is, or saying why a
    kind that is known has no driver.
    """
    if (known := undriven_kinds().get(kind)) is not None:
        raise ConfigError(f"instrument kind {kind!r}: {known.why}")
    return load_class("rram_hil.instruments", kind, "instrument kind", Instrument)


def make_instrument(
    settings: Mapping[str, object], where: str, traffic: Traffic | None = None
) -> Instrument:
    """An instrument from its section of a bench file (`kind`, `resource`, ...), not yet connected.

    `where` names the section in messages. Raises `ConfigError` naming key, value and what is
    allowed.
    """
    family, config = checked_instrument(settings, where)
    return family(config, traffic)


def checked_instrument(
    settings: Mapping[str, object], where: str
) -> tuple[type[Instrument], InstrumentConfig]:
    """The family of an instrument and its section, checked; arguments and errors as of
    `make_instrument`.
    """
    kind = settings.get("kind", "")
    if not kind or not isinstance(kind, str):
        raise ConfigError(f"{where}.kind: missing; rram-hil list prints what there is")
    try:
        family = instrument_class(kind)
    except ConfigError as error:
        raise ConfigError(f"{where}.kind: {error}") from None
    try:
        config = family.Config.model_validate(dict(settings))
    except ValidationError as error:
        raise refused(error, where, family.Config) from None
    if config.model not in family.MODELS and (why := why_undriven(config.model)):
        raise ConfigError(f"{where}.model: {why}")
    if config.treat_as and config.treat_as not in family.MODELS:
        raise ConfigError(
            f"{where}.treat_as: {config.treat_as!r} is wrong: one of {', '.join(family.MODELS)}"
        )
    model = family(config).plain_model(config.model)
    if model not in ("", *family.MODELS) and not (config.treat_as and family.offer(model)):
        offer = family.offer(model) or f"one of {', '.join(family.MODELS)}"
        raise ConfigError(f"{where}.model: {config.model!r} is not known to {config.kind}; {offer}")
    return family, config
