"""What is done of the study: its figures, in a table and in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import h5py  # type: ignore[import-untyped]
import numpy as np

from rram_hil.storage.hdf5 import variable
from rram_hil.studies.programming.figures import FIGURES
from rram_hil.studies.programming.jobs import MethodRecord
from rram_hil.studies.programming.plan import Place, PlannedProgramming
from rram_hil.studies.results_file import write_anew
from rram_hil.studies.store import Store

FORMAT, FORMAT_VERSION = "rram_hil programming study", 1


@dataclass(frozen=True, eq=False)
class MethodRow:
    """A method on the chips of one device, towards one set of targets: means of the runs that are
    done.
    """

    method: str
    records: tuple[MethodRecord, ...]

    def mean(self, name: str) -> float:
        """Mean of a figure over the runs that have it; NaN where none has."""
        found = [r.figures[name] for r in self.records if name in r.figures]
        return float(np.mean(found)) if found else math.nan


@dataclass(frozen=True, eq=False)
class MethodResults:
    """What is done of a study of methods."""

    planned: PlannedProgramming
    done: dict[Place, MethodRecord]

    def rows(self, device: str, targets: str) -> list[MethodRow]:
        """The rows of a table, in the order of the study; methods of which nothing is done are left
        out.
        """
        found = []
        for choice in self.planned.study.method:
            wanted = (device, targets, choice.name)
            records = tuple(r for place, r in self.done.items() if place[:3] == wanted)
            if records:
                found.append(MethodRow(choice.name, records))
        return found


def collect_methods(planned: PlannedProgramming, store: Store) -> MethodResults:
    """The results of the jobs that are done. Raises `DataError` for a damaged record."""
    return MethodResults(
        planned,
        {
            place: cast(MethodRecord, store.record(job))
            for place, job in planned.table.items()
            if store.has(job)
        },
    )


def write_methods(results: MethodResults, path: Path) -> None:
    """Write the results file anew, HDF5 that is netCDF4 as well; figures that are not known are
    NaN. Raises `DataError` where the disk refuses it.
    """
    write_anew(path, partial(_write, results=results))


def _write(file: h5py.File, results: MethodResults) -> None:
    study = results.planned.study
    file.attrs["file_format"], file.attrs["file_format_version"] = FORMAT, FORMAT_VERSION
    file.attrs["title"], file.attrs["study"] = study.title, study.model_dump_json()
    axes: dict[str, list[str] | list[int]] = {
        "device": study.devices,
        "targets": [one.name for one in study.targets],
        # Not "method", which xarray's `sel` takes for an argument of its own.
        "method_name": [one.name for one in study.method],
        "chip": study.seeds,
        "run": list(range(study.repeats)),
    }
    told = ("device", "set of targets", "method", "seed of the chip", "run on a copy of the chip")
    for (name, values), text in zip(axes.items(), told, strict=True):
        kind = object if isinstance(values[0], str) else np.int64
        variable(file, name, np.array(values, dtype=kind), (name,), text)
    shape = tuple(len(values) for values in axes.values())
    for name, (long_name, units) in FIGURES.items():
        figures = np.full(shape, np.nan)
        for place, record in results.done.items():
            at = tuple([*values].index(v) for values, v in zip(axes.values(), place, strict=True))
            figures[at] = record.figures.get(name, np.nan)
        variable(file, name, figures, tuple(axes), long_name, units)
