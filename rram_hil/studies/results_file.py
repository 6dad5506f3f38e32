"""The results file of a study: HDF5 that is netCDF4 as well, so that xarray opens it with named
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from rram_hil import __version__
from rram_hil.storage.hdf5 import DiskFile, variable
from rram_hil.storage.safe_files import disk, remove, replace
from rram_hil.studies.plan import Place
from rram_hil.studies.results import FIGURES, Cell, Results

FORMAT, FORMAT_VERSION = "rram-hil study", 1
DIMS = ("device", "arm", "chip")
NOT_DONE = -1
"""Of an image in `right` where the arm is not done on that chip; figures are NaN there."""


def write_results(results: Results, path: Path) -> None:
    """Write the file anew, whole or not at all. Raises `DataError` where the disk refuses it."""
    write_anew(path, partial(_write, results=results))


def write_anew(path: Path, write: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file whole or not at all. Raises `DataError` where the disk refuses it."""
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with disk(str(path)):
            raw = DiskFile(temporary)
        try:
            with h5py.File(raw, "w") as file:
                file.attrs["package_version"] = __version__
                write(file)
            raw.sync()
        finally:
            raw.close()
        replace(temporary, path)
    finally:
        remove(temporary)


def _write(file: h5py.File, results: Results) -> None:
    study = results.planned.study
    file.attrs["file_format"], file.attrs["file_format_version"] = FORMAT, FORMAT_VERSION
    file.attrs["title"], file.attrs["model"], file.attrs["images"] = (
        study.title,
        study.model,
        study.images,
    )
    file.attrs["study"] = study.model_dump_json()
    devices = [device.name for device in study.devices_used]
    arms = [choice.name for choice in study.arm]
    places = [[[(d, a, c) for c in study.seeds] for a in arms] for d in devices]
    for name, values, told in (
        ("device", np.array(devices, dtype=object), "device"),
        ("arm", np.array(arms, dtype=object), "arm, a row of the table"),
        ("chip", np.array(study.seeds), "seed of the chip"),
    ):
        variable(file, name, values, (name,), told)
    for name, figure in FIGURES.items():
        variable(
            file, name, _taken(results, places, figure.of), DIMS, figure.long_name, figure.units
        )
    if not results.cells:
        return
    for name, right in (
        ("right", lambda cell: cell.arm.right.values()),
        ("float_right", lambda cell: cell.network.right.values()),
    ):
        told = "1: classified as labelled, 0: not, -1: not done"
        variable(file, name, _images(results, places, right), (*DIMS, "image"), told)


Places = list[list[list[Place]]]


def _taken(results: Results, places: Places, of: Callable[[Cell], float]) -> NDArray[np.float64]:
    """A figure of each cell of the table, shape (devices, arms, chips); NaN where not done."""
    cells = results.cells
    return np.array(
        [
            [[of(cells[at]) if at in cells else np.nan for at in chips] for chips in arms]
            for arms in places
        ],
        dtype=np.float64,
    )


def _images(
    results: Results, places: Places, of: Callable[[Cell], NDArray[np.bool_]]
) -> NDArray[np.int8]:
    """What is said of each image, shape (devices, arms, chips, images)."""
    cells = results.cells
    count = next(iter(cells.values())).arm.right.images
    shape = (len(places), len(places[0]), len(places[0][0]), count)
    found = np.full(shape, NOT_DONE, dtype=np.int8)
    flat = [at for arms in places for chips in arms for at in chips]
    for row, at in zip(found.reshape(-1, count), flat, strict=True):
        if at in cells:
            row[:] = of(cells[at])
    return found
