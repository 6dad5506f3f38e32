"""What an arm of a study is, and what it is run on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from rram_hil.errors import ConfigError
from rram_hil.networks.mapping import Faults
from rram_hil.plugins import load_class
from rram_hil.studies.devices import Device
from rram_hil.studies.models import Model
from rram_hil.studies.training import Places, Training
from rram_hil.validation import StrictModel, refused

GROUP = "rram_hil.arms"
"""Entry points of arms."""
Step = dict[str, Any]
"""A step of a recipe as its table: name, protocol, and the protocol's keys."""
Teaching = Literal["teacher", "variation-aware", "distilled"]
"""The network that is programmed: the teacher itself; trained with the device's errors; or taught
by the teacher as well.
"""
STUDENT, TEACHER, TRAIN = "student.safetensors", "teacher.safetensors", "train.npz"
"""Files that steps may name: the networks of `Arm.networks`, and images to train words on."""
TAG = "network"
_LEFT_PERMUTED = 1 / 6
"""Of the squared error that stuck cells cause beside a healthy partner, what a permuted mapping
leaves (docs/networks.md): as so many fewer stuck cells would.
"""


@dataclass(frozen=True)
class Case:
    """What an arm is run on: a model and a device; and the usual trainings and steps for both."""

    model: Model
    device: Device

    @property
    def teacher(self) -> Training:
        """The network in floating point."""
        return self.model.teacher

    def student(
        self,
        teaching: Teaching,
        *,
        faults: Faults = "none",
        words: Places | None = None,
        sigma_share: float = 1.0,
    ) -> Training:
        """A network for this device, which begins as the teacher, and knows what the mapping does
        about stuck cells; `sigma_share` of the device's sigma is what it learns with.
        """
        if teaching == "teacher":
            return self.teacher
        noise = self.device.noise
        left = _LEFT_PERMUTED if faults == "permute" else 1.0
        known = {
            "teacher": self.teacher if teaching == "distilled" else None,
            "noise": noise.model_copy(
                update={
                    "sigma": sigma_share * noise.sigma,
                    "stuck_low_resistance": left * noise.stuck_low_resistance,
                    "stuck_high_resistance": left * noise.stuck_high_resistance,
                }
            ),
            "fault_aware": faults != "none",
            "words": words,
        }
        taught = self.teacher
        for round_ in self.model.student:
            taught = round_.model_copy(update={"start": taught, **known})
        return taught

    def program(self, faults: Faults = "none") -> Step:
        """One-shot programming of the student, on all tiles but the first. `faults` says what is
        done about the cells that forming found stuck.
        """
        known = self.device.conditions
        return {
            "name": "program",
            "protocol": "one-shot",
            "tag": TAG,
            "targets": {
                "network": STUDENT,
                "options": {
                    "tiles": list(range(1, self.model.tiles)),
                    "levels": self.device.levels,
                    "clip": "rms",
                    "rms": self.device.clip_rms,
                    "faults": faults,
                    "g_min_s": known.g_min_s,
                    "g_max_s": known.g_max_s,
                },
            },
            "reset": {"sl_v": known.reset_sl_v, "wl_v": 3.5, "width_s": 200e-9},
            "set": {"bl_v": 2.0, "width_s": 100e-9},
        }

    def verify(self, by: Literal["cells", "codes"] = "cells", **more: Any) -> Step:
        """Read-verify-write of all programmed cells, read singly after each pulse or all at once by
        codes; `more` are further keys of write-verify.
        """
        known = self.device.conditions
        return {
            "name": "verify",
            "protocol": "write-verify",
            "tag": TAG,
            "tolerance": 0.05,
            "tolerance_s": 0.5e-6,
            "lowest_s": known.accept_below_s,
            "max_pulses": known.max_pulses,
            "max_reversals": known.max_reversals,
            "verify_by": by,
            # Each cell starts a little below its target, then 20 mV more a pulse.
            "set": {
                "amplitude_v": {"start_v": 2.0, "stop_v": 2.0},
                "width_s": 100e-9,
                "gate_v": _ramp(1.5, 3.2, "set", 0.8),
            },
            "reset": {
                "gate_v": {"start_v": 3.5, "stop_v": 3.5},
                "width_s": 200e-9,
                "amplitude_v": _ramp(0.4, 2.4, "reset", 1.3),
            },
        } | more

    def adapt(self, fraction: float | None = None, **more: Any) -> Step:
        """On-chip words for `fraction` of the weights, by default the model's; `more` are further
        keys of sparse-adaptation.
        """
        own = self.model.adaptation
        return {
            "name": "adapt",
            "protocol": "sparse-adaptation",
            "tag": TAG,
            "data": TRAIN,
            "fraction": self.model.word_fraction if fraction is None else fraction,
            "steps": own.steps,
            "batch": own.batch,
            "learning_rate": own.learning_rate,
            "map_by": "codes",
        } | more


def _ramp(start_v: float, stop_v: float, curve: str, aim: float) -> Step:
    return {"start_v": start_v, "stop_v": stop_v, "step_v": 0.02, "curve": curve, "aim": aim}


class Arm(StrictModel, ABC):
    """One way of bringing a network onto a chip: a row of a study's table. Its fields are its keys
    in a study file; its docstring names the source.

    Third parties add one with an entry point in the group `rram_hil.arms`, or by the path of a
    local file.
    """

    @abstractmethod
    def networks(self, case: Case) -> Mapping[str, Training]:
        """What is to be trained: "student" is programmed, and its accuracy in floating point is
        what the arm is compared with; any other NAME is there for the steps as NAME.safetensors.
        """

    @abstractmethod
    def steps(self, case: Case) -> list[Step]:
        """The steps on a chip that was formed, with its stuck cells and pulse curves known. What
        they leave under the tag "network" is then inferred. No steps: the arm needs no chip.
        """


class StudentArm(Arm):
    """An arm that programs a network taught as `teaching` says, with `sigma_share` of the device's
    sigma, which knows the chip's stuck cells where the mapping does (`faults`); the teacher lies
    beside it, for words to learn from.
    """

    teaching: Teaching = "teacher"
    sigma_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    faults: Faults = "none"

    @model_validator(mode="after")
    def _noisy(self) -> Self:
        if self.teaching == "teacher" and "sigma_share" in self.model_fields_set:
            raise ValueError(
                'sigma_share: the teacher learns no errors; teach it "distilled" or'
                ' "variation-aware"'
            )
        return self

    def networks(self, case: Case) -> Mapping[str, Training]:
        """The student and its teacher."""
        student = case.student(
            self.teaching, faults=self.faults, words=self._known(case), sigma_share=self.sigma_share
        )
        return {"student": student, "teacher": case.teacher}

    def _known(self, case: Case) -> Places | None:
        """Where on-chip words will be, for a student that is trained knowing it."""
        del case
        return None


class PlacedArm(StudentArm):
    """An arm whose words' places follow from its keys. With `places_known` its student is trained
    knowing them.
    """

    places_known: bool = False

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if self.places_known and self.teaching == "teacher":
            raise ValueError('places_known: the teacher knows no places; teach it "distilled"')
        return self

    @abstractmethod
    def places(self, case: Case) -> Places:
        """Where its words will be."""

    def _known(self, case: Case) -> Places | None:
        return self.places(case) if self.places_known else None

    def adapted(self, adapt: Step, case: Case) -> Step:
        """`adapt` with its words where the student knows them to be."""
        return adapt | {"word_seed": self.places(case).seed} if self.places_known else adapt


class ArmChoice(StrictModel):
    """An `[[arm]]` of a study: the name of its row, which arm, and the keys of that arm."""

    model_config = StrictModel.model_config | {"extra": "allow"}

    arm: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=60)]

    def made(self, folder: Path = Path()) -> Arm:
        """The arm. Raises `ConfigError` naming the key that is wrong."""
        kind = load_class(GROUP, self.arm, "arm", Arm, folder)
        try:
            return kind(**(self.model_extra or {}))
        except ValidationError as error:
            raise refused(error, f"arm {self.name!r} ({self.arm})", kind) from None


def checked(arm: Arm, case: Case, name: str) -> Mapping[str, Training]:
    """The networks of an arm. Raises `ConfigError` where none of them is the student."""
    networks = arm.networks(case)
    if "student" not in networks:
        raise ConfigError(
            f"arm {name!r}: its networks are {', '.join(networks) or 'none'}; one must be"
            ' "student", the one that is programmed'
        )
    return networks
