"""The study of programming methods, as its file says it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from rram_hil.bench.plugins import protocol_class
from rram_hil.engine.protocol import Protocol
from rram_hil.errors import ConfigError, near
from rram_hil.studies.arm import Step
from rram_hil.studies.devices import Device
from rram_hil.studies.plan import MODEL_FILE, Shape
from rram_hil.studies.programming.targets import Drawn
from rram_hil.studies.study_file import OnChips, check_once
from rram_hil.units import Siemens
from rram_hil.validation import NotNegative, Positive, StrictModel, parse_toml, refused

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
OWN_MODEL = "device.model"
"""As the value of a method's key: the model of the device that it is run on."""
_OF_THE_STUDY = ("targets", "tolerance", "tolerance_s", "select")
"""Keys of protocols that say what is programmed, which is the same for all methods."""


_Span = Annotated[tuple[float, float], Field(strict=False)]


class TargetSet(StrictModel):
    """What cells are programmed to: `windows_ohm`, each the lowest and highest resistance of a
    level, spread evenly over the cells; or conductances drawn evenly from `range_s` (by default
    that of the device), each with a window of the larger of `tolerance` x target and `tolerance_s`
    to both sides.

    `scale` multiplies the resistances, for devices whose window lies elsewhere: by device.
    """

    name: Annotated[str, Field(pattern=NAME)]
    windows_ohm: Annotated[list[_Span], Field(min_length=2)] | None = None
    scale: dict[str, Positive] = Field(default={})
    range_s: _Span | None = None
    tolerance: NotNegative = 0.05
    tolerance_s: Annotated[Siemens, Field(ge=0)] = 2e-6

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.windows_ohm is None:
            if self.range_s is not None and not 0 <= self.range_s[0] < self.range_s[1]:
                raise ValueError("range_s must be [lowest, highest] conductance (S)")
            if self.tolerance == 0 and self.tolerance_s == 0:
                raise ValueError("tolerance and tolerance_s may not both be 0: nothing lies inside")
            return self
        if self.range_s is not None:
            raise ValueError("give either windows_ohm or range_s")
        if any(not 0 <= low < high for low, high in self.windows_ohm):
            raise ValueError("windows_ohm must be [lowest, highest] resistances, 0 <= low < high")
        if any(below[1] >= above[0] for below, above in pairwise(self.windows_ohm)):
            raise ValueError("windows_ohm must rise and may not overlap")
        return self

    def drawn(self, device: Device, shape: Shape, seed: int) -> Drawn:
        """The targets of the left half of a chip of this device."""
        drawn = Drawn(rows=shape.rows, columns=shape.columns, seed=seed)
        if self.windows_ohm is None:
            conditions = device.conditions
            spread = {
                "range_s": self.range_s or (conditions.g_min_s, conditions.g_max_s),
                "tolerance": self.tolerance,
                "tolerance_s": self.tolerance_s,
            }
            return drawn.model_copy(update=spread)
        scale = self.scale.get(device.name, 1.0)
        levels = {
            "low_s": tuple(1 / (scale * high) for _, high in self.windows_ohm),
            "high_s": tuple(1 / (scale * low) if low else None for low, _ in self.windows_ohm),
        }
        return drawn.model_copy(update=levels)


class MethodChoice(StrictModel):
    """A `[[method]]` of a study: the name of its row, the protocol that programs, and the keys of
    that protocol. "device.model" stands for the model of the device.
    """

    model_config = StrictModel.model_config | {"extra": "allow"}

    name: Annotated[str, Field(min_length=1, max_length=60)]
    protocol: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _towards_the_same(self) -> Self:
        own = next((key for key in _OF_THE_STUDY if key in (self.model_extra or {})), None)
        if own is not None:
            raise ValueError(
                f"{own} is no key of a method: [[targets]] of the study say what all of them"
                " program"
            )
        return self

    def step(self, study: ProgrammingStudy, device: Device) -> Step:
        """The step of a recipe, its budgets those of the study where it has no own."""
        own_model = MODEL_FILE if device.model.endswith(".toml") else device.model
        keys = _replaced(self.model_extra or {}, OWN_MODEL, own_model)
        targets = {"map": "target.npy", "low": "low.npy", "high": "high.npy"}
        budgets = {
            "max_pulses": study.max_pulses,
            "max_reversals": study.max_reversals,
            "confirm": study.confirm,
        }
        return {"name": "program", "protocol": self.protocol, "targets": targets} | budgets | keys

    def made(self, step: Step, folder: Path) -> Protocol[Any]:
        """The protocol of this step. Raises `ConfigError` naming the key that is wrong."""
        kind = protocol_class(self.protocol, folder)
        try:
            return kind(**{k: v for k, v in step.items() if k not in ("name", "protocol")})
        except ConfigError as error:
            error.where = f"method {self.name!r} ({self.protocol})"
            raise


def _replaced(keys: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {key: new if value == old else value for key, value in keys.items()}


class ProgrammingStudy(OnChips):
    """A study of programming methods: every method on each of the chips, with the same cells, the
    same targets and the same budgets.

    A chip has one tile of `rows` x `columns`; the cells of the left half of the columns are
    programmed, the others are left alone and read before and after. Each of `repeats` runs of a
    method on a copy of the formed chip has other targets and other random numbers of the method.
    """

    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    rows: Annotated[int, Field(ge=16, le=4096)] = 64
    columns: Annotated[int, Field(ge=32, le=4096)] = 64
    max_pulses: Annotated[int, Field(ge=1)] = 200
    max_reversals: Annotated[int, Field(ge=0)] = 1000
    confirm: Annotated[int, Field(ge=0)] = 0
    targets: Annotated[list[TargetSet], Field(min_length=1)]
    method: Annotated[list[MethodChoice], Field(min_length=1)]

    @model_validator(mode="after")
    def _once(self) -> Self:
        check_once("targets", [one.name for one in self.targets])
        check_once("method", [one.name for one in self.method])
        for targets in self.targets:
            self.check_known(f"targets {targets.name}, scale", targets.scale)
        return self


def usual_study(
    methods: Sequence[str] = (), devices: Sequence[str] = (), chips: int | None = None
) -> ProgrammingStudy:
    """The study of the package, `programming.toml`. `methods` are names of its rows, all of them by
    default. Raises `ConfigError` for what there is not.
    """
    own = files(__package__) / "programming.toml"
    tables = parse_toml(own.read_text(encoding="utf-8"), "study programming")
    known = [str(method["name"]) for method in tables["method"]]
    missing = next((name for name in methods if name not in known), None)
    if missing is not None:
        raise ConfigError(
            f"--methods: {missing!r} is unknown; there is: {', '.join(known)}{near(missing, known)}"
        )
    if methods:
        tables["method"] = [method for method in tables["method"] if method["name"] in methods]
    if devices:
        tables["devices"] = list(devices)
    if chips is not None:
        tables["chips"] = chips
    return parse_programming(tables, "study programming")


def parse_programming(tables: dict[str, Any], where: str) -> ProgrammingStudy:
    """Validate the tables of a study. Raises `ConfigError` naming key, value and what is
    allowed.
    """
    try:
        return ProgrammingStudy.model_validate(tables)
    except ValidationError as error:
        raise refused(error, where, ProgrammingStudy) from None
