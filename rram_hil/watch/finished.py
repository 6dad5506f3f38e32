"""The picture of a run whose journal is gone: from its run file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rram_hil.array import MAP, Geometry, Status
from rram_hil.storage.codec import AnyArray
from rram_hil.storage.run_reader import RunFile
from rram_hil.watch.picture import About, Picture

ROWS = 1 << 18
"""Of a table, taken at once."""


def pictured(run: RunFile, picture: Picture) -> Iterator[None]:
    """Fill a new picture from a run file, part by part: it may be shown after each."""
    a = run.attributes
    geometry = Geometry(int(a["tiles"]), int(a["rows"]), int(a["columns"]))
    picture.begin(
        About(
            str(a["run"]),
            run.chip_id,
            geometry,
            str(a["clock"]),
            str(a["started_utc"]),
            str(a["operator"]),
            f"{a.get('instrument_model', '')} {a.get('instrument_serial', '')}".strip(),
            str(a["package_version"]),
            str(a["bench"]),
            str(a["recipe"]),
        )
    )
    picture.status = run.status
    picture.ended_utc, picture.resumed = str(a["ended_utc"]), int(a.get("resumed", 0))
    picture.frames = int(a.get("journal_frames", 0))
    notes = run.table("notes")
    for event, text, utc, time_s in zip(
        notes["event"], notes["text"], notes["utc"], notes["time_s"], strict=True
    ):
        picture.noted(str(event), str(text), str(utc), float(time_s))
    _steps(run, picture)
    yield
    labels = _operations(run, picture)
    yield
    if picture.map is None:
        return
    read_s = np.full(geometry.shape, -np.inf)
    if "cells" in run.tables:
        for first in range(0, run.rows("cells"), ROWS):
            rows = run.table("cells", slice(first, first + ROWS))
            _cells(rows, labels, picture)
            read_s[tuple(rows[name] for name in MAP)] = rows["time_s"]
            yield
    for name in ("target", "conductance"):
        if name in run.map_names and len((stack := run.map(name)).values):
            values = stack.values[-1]
            if name == "conductance":  # what was read after it was saved is newer
                values = np.where(read_s > stack.time_s[-1], np.nan, values)
            picture.saved_map(int(stack.step[-1]), name, values)


def _steps(run: RunFile, picture: Picture) -> None:
    steps = run.table("steps", columns=("step", "name", "protocol", "started_s", "ended_s"))
    for number, name, protocol, started_s, ended_s in zip(*steps.values(), strict=True):
        picture.step_began(int(number), str(name), str(protocol), float(started_s))
        if not np.isnan(ended_s):
            picture.step_ended(int(number), float(ended_s))


def _operations(run: RunFile, picture: Picture) -> dict[str, AnyArray]:
    """Count the operations; returns number, step and label of each, sorted by number."""
    names = ("operation", "step", "label", "pulses", "reads", "not_ok", "vectors")
    table = run.table("operations", columns=(*names, "started_s", "ended_s", "outcome"))
    came = table["outcome"] != "no_result"
    table = {name: values[came] for name, values in table.items()}
    for i in range(int(np.count_nonzero(came))):
        counts = {name: int(table[name][i]) for name in names[3:]}
        picture.counted(
            int(table["step"][i]), counts, float(table["started_s"][i]), float(table["ended_s"][i])
        )
    order = np.argsort(table["operation"], kind="stable")
    return {name: table[name][order] for name in names[:3]}


def _cells(rows: dict[str, AnyArray], labels: dict[str, AnyArray], picture: Picture) -> None:
    """Take rows of the table of cells: of each cell in each operation the last reading and all
    pulses.
    """
    chip = picture.map
    if chip is None or not len(rows["operation"]):
        return
    place = np.searchsorted(labels["operation"], rows["operation"])
    address = [rows[name].astype(np.int64) for name in MAP]
    cell = np.ravel_multi_index(address, chip.geometry.shape)
    is_last = np.append((np.diff(rows["operation"]) != 0) | (np.diff(cell) != 0), True)
    begins = np.append(0, np.flatnonzero(is_last)[:-1] + 1)
    pulses = np.add.reduceat(rows["pulses"].astype(np.int64), begins)
    words, number = np.unique(rows["status"][is_last], return_inverse=True)
    status = np.array([Status[str(word).upper()] for word in words], np.uint8)[number]
    value, cell, place = rows["conductance_s"][is_last], cell[is_last], place[is_last]
    chip.measured(cell, value, status)
    chip.took(cell, pulses)
    kinds, number = np.unique(labels["label"][place], return_inverse=True)
    picture.events.add(
        cell,
        step=labels["step"][place],
        label=np.array([picture.number_of(str(kind)) for kind in kinds])[number],
        conductance_s=np.where(status == Status.NOT_RUN, np.nan, value),
        time_s=rows["time_s"][is_last],
        pulses=pulses,
    )
