"""A study that is done in seconds: the digits, one epoch of training, two chips, and arms in a file
of their own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.errors import DataError
from rram_hil.studies.jobs import Done, Files, Right, TrainingRecord, Work

ARM = '''\
"""Few words for a hardly trained network."""

from rram_hil.studies.arm import Arm, Case, Step
from rram_hil.studies.training import Training


class Quick(Arm):
    """No source: it is a test."""

    fraction: float = 0.05
    words: bool = True

    def networks(self, case: Case) -> dict[str, Training]:
        return {"student": case.teacher.model_copy(update={"epochs": 1})}

    def steps(self, case: Case) -> list[Step]:
        return [case.program(), *([case.adapt(self.fraction, steps=3)] if self.words else [])]


class QuickFloat(Quick):
    """No source: it is a test."""

    def steps(self, case: Case) -> list[Step]:
        return []
'''
STUDY = """\
title = "Small"
model = "digits"
chips = 2
devices = ["A"]

[[arm]]
name = "float"
arm = "./quick.py:QuickFloat"

[[arm]]
name = "once"
arm = "./quick.py:Quick"
words = false

[[arm]]
name = "words, 5 %"
arm = "./quick.py:Quick"

[[arm]]
name = "words, 10 %"
arm = "./quick.py:Quick"
fraction = 0.1
"""
JOBS = 1 + 2 + 1 + 2 * 3
"""Trainings, formings, floats, and arms on chips."""


def write_small_study(folder: Path) -> Path:
    """Write the study and its arm; the path of the study file."""
    (folder / "quick.py").write_text(ARM, encoding="utf-8")
    (folder / "small.toml").write_text(STUDY, encoding="utf-8")
    return folder / "small.toml"


def outcomes(folder: Path) -> dict[str, bytes]:
    """What a study left that does not tell how long the host took: its table, and of every record
    its text without that.
    """
    records = {
        path.name: b"\n".join(
            line for line in path.read_bytes().splitlines() if b'"host_s"' not in line
        )
        for path in (folder / "jobs").glob("*.json")
    }
    return records | {"table": (folder / "table.md").read_bytes()}


@dataclass(frozen=True)
class Note(Work):
    """Work that takes no time: its file is its text after those that it needs. "fails" does, and
    "gone" ends its process.
    """

    text: str

    @property
    def identity(self) -> Any:
        return self.text

    def run(self, files: Files, folder: Path) -> Done:
        if self.text == "fails":
            raise DataError("it fails")
        if self.text == "gone":
            os._exit(9)
        assert not list(folder.iterdir())
        right = Right.of(np.array([True]))
        record = TrainingRecord(
            title=self.text, host_s=1.0, as_trained=1.0, clipped=None, right=right
        )
        return Done(record, b"".join([*files.values(), self.text.encode()]))
