"""From a study to its jobs: the trainings, formings and runs of arms that its table needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

from rram_hil.errors import ConfigError
from rram_hil.studies.arm import TAG, TRAIN, Arm, Case, Step, checked
from rram_hil.studies.devices import Device
from rram_hil.studies.jobs import FORMED, RESULT, TEST, Form, Input, Job, RunArm, TakeFloat, Train
from rram_hil.studies.models import Images
from rram_hil.studies.study_file import Study
from rram_hil.studies.training import Training

SAMPLE = 16
"""Side of the corner of spare cells on which the pulse curves are measured."""
MODEL_FILE = "device.toml"
"""A device model that is no preset, beside the bench file."""

Place = tuple[str, str, int]
"""Device, arm and chip (its seed) of a cell of the table."""


@dataclass(frozen=True)
class Planned:
    """All jobs of a study, and which of them fills which place of its table."""

    study: Study
    table: Mapping[Place, Job]

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Every job once, those that others need before them."""
        return jobs_of(self.table.values())


def jobs_of(wanted: Iterable[Job]) -> tuple[Job, ...]:
    """Every job once, those that others need before them."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        for needed in job.needs.values():
            add(needed)
        found.setdefault(job.key, job)

    for job in wanted:
        add(job)
    return tuple(found.values())


def plan(study: Study, images: Images, folder: Path = Path()) -> Planned:
    """The jobs of a study on these images; local arms and device models lie in `folder`. Raises
    `ConfigError` for an arm or a device model that there is not.
    """
    return Planned(study, dict(_Planner(study, images, folder).places()))


@dataclass(frozen=True)
class _Planner:
    study: Study
    images: Images
    folder: Path

    def places(self) -> Iterator[tuple[Place, Job]]:
        arms = {choice.name: choice.made(self.folder) for choice in self.study.arm}
        for device in self.study.devices_used:
            case = Case(self.study.model_used, device)
            own = own_model(device, self.folder)
            for chip in self.study.seeds:
                formed = forming(device, chip, _shape(case), own)
                for name, arm in arms.items():
                    job = self._arm(name, arm, case, chip, formed)
                    yield (device.name, name, chip), job

    def _arm(self, name: str, arm: Arm, case: Case, chip: int, formed: Job) -> Job:
        networks, steps = checked(arm, case, name), arm.steps(case)
        needs = {f"{one}.safetensors": self._training(t) for one, t in networks.items()}
        title = f"{case.device.name}, chip {chip}, {name}"
        test = Input(f"{self.images.digest}-test", self.images.test.file)
        if not steps:
            return Job("arm", title, TakeFloat(name), needs, {TEST: test}, name)
        adaptation = self.images.adaptation
        count = len(adaptation.labels)
        train = Input(f"{self.images.digest}-train-{count}", adaptation.file)
        steps, local = with_local_protocols(steps, self.folder)
        recipe = recipe_text(f"{case.device.name}, chip {chip}", chip, [RECALL, *steps, _INFER])
        work = RunArm(title, bench_text(case.device, chip, _shape(case)), recipe)
        inputs = {TEST: test, TRAIN: train, **formed.inputs, **local}
        return Job("arm", title, work, needs | {FORMED: formed}, inputs, name)

    def _training(self, training: Training) -> Job:
        images = self.images
        return Job(
            "training",
            training.title,
            Train(training),
            {name: self._training(needed) for name, needed in training.needs.items()},
            {
                "train.npz": Input(f"{images.digest}-train", images.train.file),
                TEST: Input(f"{images.digest}-test", images.test.file),
            },
        )


RECALL: Step = {"name": "recall", "protocol": "recall", "run_file": "formed.h5"}
_INFER: Step = {
    "name": RESULT,
    "protocol": "infer",
    "tag": TAG,
    "images": TEST,
    "calibration": TRAIN,
}


def own_model(device: Device, folder: Path) -> dict[str, Input]:
    """The file of a device that is no preset. Raises `ConfigError` where it cannot be read."""
    if not device.model.endswith(".toml"):
        return {}
    return {MODEL_FILE: input_file(folder / device.model, f"device {device.name!r}: model")}


def input_file(path: Path, what: str) -> Input:
    """A file of the study's folder. Raises `ConfigError` saying `what` it is where it cannot be
    read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror}") from None
    return Input(hashlib.sha256(content).hexdigest(), content)


def with_local_protocols(steps: list[Step], folder: Path) -> tuple[list[Step], dict[str, Input]]:
    """Steps whose protocols in local files ("./file.py:Class") lie beside the recipe, and those
    files: they travel with the job. Raises `ConfigError` where there is no such file.
    """
    found, files = [], {}
    for step in steps:
        file, is_local, name = str(step.get("protocol", "")).rpartition(":")
        if is_local:
            path = folder / file
            if not path.is_file():
                raise ConfigError(f"protocol {step['protocol']!r}: there is no file {path}")
            files[path.name] = input_file(path, f"protocol {step['protocol']!r}")
            step = step | {"protocol": f"./{path.name}:{name}"}
        found.append(step)
    return found, files


def _shape(case: Case) -> Shape:
    return Shape(case.model.tiles, case.model.rows, case.model.columns)


class Shape(NamedTuple):
    """Size of the chips of a study."""

    tiles: int
    rows: int
    columns: int


def forming(
    device: Device, chip: int, shape: Shape, own: Mapping[str, Input], more: Sequence[Step] = ()
) -> Job:
    """The job that forms a chip and measures its pulse curves, then does `more`; `own` is the file
    of its model where that is no preset.
    """
    known, columns = device.conditions, shape.columns
    steps: list[Step] = [
        {
            "name": "form",
            "protocol": "forming",
            "bl_v": {"start_v": 2.4, "stop_v": 4.0, "step_v": 0.1},
            "wl_v": [2.0, 2.4],
            "width_s": 1e-6,
            "formed_above_s": 30e-6,
        },
        {
            "name": "measure pulse curves",
            "protocol": "pulse-curves",
            "cells": {
                "tiles": [0],
                "rows": [0, SAMPLE - 1],
                "columns": [columns - SAMPLE, columns - 1],
            },
            "set_gate_v": {
                "start_v": known.set_gate_v[0],
                "stop_v": known.set_gate_v[1],
                "points": 31,
            },
            "reset_sl_v": {
                "start_v": known.reset_from_v,
                "stop_v": known.reset_sl_v,
                "points": 31,
            },
        },
    ]
    title = f"{device.name}, chip {chip}, forming"
    work = Form(title, bench_text(device, chip, shape), recipe_text(title, chip, [*steps, *more]))
    return Job("forming", title, work, {}, own)


def recipe_text(title: str, seed: int, steps: list[Step]) -> str:
    """The text of a recipe."""
    return tomlkit.dumps({"title": title, "seed": seed, "log": "summary", "step": steps})


def bench_text(device: Device, chip: int, shape: Shape) -> str:
    """The bench file: a simulated chip in the process, with the limits and the timing of the
    demonstration's.
    """
    tables: dict[str, dict[str, Any]] = {
        "chip": {
            "id": f"{device.name}-{chip}",
            **shape._asdict(),
            "cell": "1T1R",
            "source_lines": "row",
        },
        "driver": {"name": "simulated-array"},
        "limits": {
            "bl_v": 4.5,
            "sl_v": 3.0,
            "wl_v": 4.0,
            "cell_v": 4.5,
            "gate_over_v": 4.0,
            "half_select_v": 0.3,
            "read_v": 0.3,
            "current_a": 1e-3,
            "energy_j": 1e-8,
            "width_s": 1e-5,
            "pulses_per_cell": 1000,
            "conductance_s": [0.0, 300e-6],
        },
        "read": {"bl_v": 0.2, "wl_v": 3.0, "width_s": 1e-6},
        "simulation": {
            "device": MODEL_FILE if device.model.endswith(".toml") else device.model,
            "seed": chip,
            "state": "chip.state",
        },
    }
    return tomlkit.dumps(tables)
