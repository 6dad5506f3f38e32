"""The study file: chips x arms x devices, on one model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from rram_hil.errors import ConfigError, near
from rram_hil.studies.arm import ArmChoice
from rram_hil.studies.devices import DEVICES, Device
from rram_hil.studies.models import MODELS, Model
from rram_hil.validation import StrictModel, read_toml, refused


class OnChips(StrictModel):
    """What studies of every kind say: `chips` simulated chips of each device, drawn from the seeds
    `seed`, `seed` + 1 ...: the same ones for every row of the table.

    `devices` names devices of the package (`rram_hil.studies.devices`) and those that the file
    itself describes as `[[device]]`.
    """

    title: str = ""
    chips: Annotated[int, Field(ge=1, le=1000)] = 10
    seed: Annotated[int, Field(ge=0)] = 1
    devices: Annotated[list[str], Field(min_length=1)]
    device: list[Device] = Field(default=[])

    @model_validator(mode="after")
    def _devices(self) -> Self:
        self.check_known("devices", self.devices)
        check_once("devices", self.devices)
        return self

    def check_known(self, what: str, names: Iterable[str]) -> None:
        """Raise `ValueError` where a name is that of no device."""
        known = self._known_devices
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{what}: {name!r} is unknown; there is: {', '.join(known)}{near(name, known)}"
                )

    @property
    def _known_devices(self) -> dict[str, Device]:
        return DEVICES | {own.name: own for own in self.device}

    @property
    def seeds(self) -> list[int]:
        """The chips, by their seeds."""
        return list(range(self.seed, self.seed + self.chips))

    @property
    def devices_used(self) -> list[Device]:
        """What `devices` name, in order; one of the file's own before one of the package."""
        known = self._known_devices
        return [known[name] for name in self.devices]


def check_once(what: str, names: list[str]) -> None:
    """Raise `ValueError` where a name stands there twice."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{what}: {twice!r} stands there more than once")


class Study(OnChips):
    """A study of arms on one model: every arm on each of the chips.

    `model` is one of digits, lenet5, vgg; `data` is the folder of its images, relative to the study
    file. `images` says what the arms are tested on: "held-out" are the last training images, which
    nothing then learns from: choose on those.
    """

    model: str
    data: str | None = None
    images: Literal["test", "held-out"] = "test"
    arm: Annotated[list[ArmChoice], Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.model not in MODELS:
            raise ValueError(
                f"model: {self.model!r} is unknown; there is: {', '.join(MODELS)}"
                f"{near(self.model, MODELS)}"
            )
        check_once("arm", [one.name for one in self.arm])
        return self

    @property
    def model_used(self) -> Model:
        """What `model` names."""
        return MODELS[self.model]


def load_study(path: Path) -> Study:
    """Read and validate a study file. Raises `ConfigError` naming file, key, value and what is
    allowed.
    """
    tables, _ = read_toml(path, "a study file")
    study = parse_study(tables, str(path))
    try:
        for choice in study.arm:
            choice.made(path.parent)
    except ConfigError as error:
        error.where = ": ".join(filter(None, (str(path), error.where)))
        raise
    return study


def parse_study(tables: dict[str, object], where: str) -> Study:
    """Validate the tables of a study file. Raises `ConfigError` as `load_study`."""
    try:
        return Study.model_validate(tables)
    except ValidationError as error:
        raise refused(error, where, Study) from None
    except ConfigError as error:
        error.where = where
        raise
