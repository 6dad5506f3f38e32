"""From the study to its jobs: each chip formed once, and every method on copies of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rram_hil.studies.arm import Step
from rram_hil.studies.devices import Device
from rram_hil.studies.jobs import FORMED, Input, Job
from rram_hil.studies.plan import (
    RECALL,
    Shape,
    bench_text,
    forming,
    input_file,
    jobs_of,
    own_model,
    recipe_text,
    with_local_protocols,
)
from rram_hil.studies.programming.figures import AFTER, BEFORE
from rram_hil.studies.programming.jobs import RunMethod
from rram_hil.studies.programming.study import MethodChoice, ProgrammingStudy

FULL_SET = {"bl_v": 2.0, "wl_v": 2.7, "width_s": 200e-9}
FULL_RESET = {"sl_v": 3.0, "wl_v": 4.0, "width_s": 200e-9}
"""Pulses of a full cycle, as on the published chips (docs/device-model.md)."""
DAY_S = 86400.0
RESTS_S = (0.0, 1.0, DAY_S)
"""What is waited before each of the maps `AFTER` programming."""


class Place(NamedTuple):
    """Where a figure stands in the results: device, targets and method by name, the chip by its
    seed, and which run on it.
    """

    device: str
    targets: str
    method: str
    chip: int
    run: int


@dataclass(frozen=True)
class PlannedProgramming:
    """All jobs of the study, and which of them fills which place."""

    study: ProgrammingStudy
    table: Mapping[Place, Job]

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Every job once, formings before what needs them."""
        return jobs_of(self.table.values())


def plan_programming(study: ProgrammingStudy, folder: Path = Path()) -> PlannedProgramming:
    """The jobs of the study; local protocols, their files and device models lie in `folder`. Raises
    `ConfigError` for a method whose keys are wrong, and for a file that there is not.
    """
    return PlannedProgramming(study, dict(_places(study, folder)))


def _places(study: ProgrammingStudy, folder: Path) -> Iterator[tuple[Place, Job]]:
    shape = Shape(1, study.rows, study.columns)
    for device in study.devices_used:
        own = own_model(device, folder)
        methods = {one.name: _Method.of(one, study, device, folder) for one in study.method}
        for chip in study.seeds:
            formed = forming(device, chip, shape, own, [_cycle("cycle"), _wait("rest", DAY_S)])
            bench = bench_text(device, chip, shape)
            for targets in study.targets:
                for run in range(study.repeats):
                    # Other targets on every chip and in every run; the same ones for all methods.
                    drawn = targets.drawn(device, shape, seed=study.repeats * chip + run)
                    for name, method in methods.items():
                        title = f"{device.name}, chip {chip}, {targets.name}, run {run}, {name}"
                        recipe = recipe_text(title, drawn.seed, _steps(method.step, shape))
                        work = RunMethod(title, bench, recipe, drawn)
                        inputs = {**own, **method.files}
                        row = f"{name}, {targets.name}"
                        job = Job("method", title, work, {FORMED: formed}, inputs, row)
                        yield Place(device.name, targets.name, name, chip, run), job


@dataclass(frozen=True)
class _Method:
    """The step of a method on a device, and the files that it needs."""

    step: Step
    files: Mapping[str, Input]

    @classmethod
    def of(
        cls, choice: MethodChoice, study: ProgrammingStudy, device: Device, folder: Path
    ) -> _Method:
        step = choice.step(study, device)
        protocol = choice.made(step, folder)
        (step,), files = with_local_protocols([step], folder)
        brought = {*step["targets"].values(), *own_model(device, folder)}
        for name in protocol.input_files():
            if name not in brought:
                files[name] = input_file(folder / name, f"method {choice.name!r}")
        return cls(step, files)


def _steps(program: Step, shape: Shape) -> list[Step]:
    """A run: what forming knows, a full cycle of the cells that are programmed, a map, the method,
    and maps at once and after each rest.
    """
    steps = [RECALL, _cycle("cycle", shape.columns // 2), _read(BEFORE), program]
    for name, rest_s in zip(AFTER.values(), RESTS_S, strict=True):
        if rest_s:
            steps.append(_wait(f"rest {rest_s:g} s", rest_s))
        steps.append(_read(name))
    return steps


def _cycle(name: str, columns: int | None = None) -> Step:
    """A full cycle of all cells, or of those of the first columns."""
    cells = {} if columns is None else {"cells": {"columns": [0, columns - 1]}}
    pulses = {"set": FULL_SET, "reset": FULL_RESET, "cycles": 1, "confirm": 0}
    return {"name": name, "protocol": "endurance", **pulses, **cells}


def _wait(name: str, seconds: float) -> Step:
    return {"name": name, "protocol": "wait", "seconds": seconds}


def _read(name: str) -> Step:
    return {"name": name, "protocol": "read-map"}
