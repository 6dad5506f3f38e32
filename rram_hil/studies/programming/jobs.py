"""The job of the study: one method on a copy of a formed chip."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.storage.run_reader import read_run
from rram_hil.studies.jobs import RUN, Done, Files, Record, Work, run_on_formed
from rram_hil.studies.programming.figures import PROGRAM, REASONS, Asked, figures_of
from rram_hil.studies.programming.targets import Drawn


class MethodRecord(Record):
    """What a method did on a chip: the `FIGURES` that are numbers there, by name."""

    figures: dict[str, float]


@dataclass(frozen=True)
class RunMethod(Work):
    """Run a method's recipe on a copy of a formed chip, towards the targets that `drawn` says."""

    title: str
    bench: str
    recipe: str
    drawn: Drawn

    @property
    def identity(self) -> Any:
        """All that it is given."""
        return [self.bench, self.recipe, self.drawn.model_dump(mode="json")]

    def run(self, files: Files, folder: Path) -> Done:
        """It leaves a record alone."""
        began = time.perf_counter()
        asked = self.drawn.asked()
        for name, values in targets_of(asked).items():
            np.save(folder / name, values)
        outcome = run_on_formed(files, self.bench, self.recipe, folder)
        summary = dict(outcome.steps)[PROGRAM]
        assert dataclasses.is_dataclass(summary)
        ended = {name: getattr(summary, name, None) for name in REASONS}
        with read_run(folder / RUN) as run:
            figures = figures_of(run, asked, ended)
        known = {name: value for name, value in figures.items() if np.isfinite(value)}
        took_s = time.perf_counter() - began
        return Done(MethodRecord(title=self.title, host_s=took_s, figures=known))


def targets_of(asked: Asked) -> Mapping[str, Any]:
    """The files of a step's `targets`."""
    return {"target.npy": asked.target_s, "low.npy": asked.low_s, "high.npy": asked.high_s}
