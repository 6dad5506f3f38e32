"""What listings print with `--json`: the values of their tables by name, in SI units; what is not
known (NaN) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.forecast import Forecast
from rram_hil.networks.network import Network
from rram_hil.networks.placement import Place, places
from rram_hil.storage.ledger_file import read_ledger
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import state_of


def rows_json(rows: Iterable[Any]) -> str:
    """Objects of a dataclass, such as `Device`, as a list of objects, keys as its fields."""
    return _text(list(rows))


def forecast_json(forecast: Forecast) -> str:
    """A forecast: its steps, and what it leaves of the budget and where."""
    return _text(
        {entry.name: getattr(forecast, entry.name) for entry in fields(forecast)}
        | {"networks": {t: _placed(n.mapping, n.network) for t, n in forecast.networks.items()}}
    )


def network_json(network: Network, placed: Sequence[Place]) -> str:
    """A network's layers and where its weights go."""
    return _text({"layers": network.layers, "places": _rows(placed)})


def run_json(run: RunFile) -> str:
    """A run: who, when and what, its steps, the names of its maps, its results that are numbers,
    its notes.
    """
    steps = run.table("steps")
    results = [(step, name, run.result(step, name)) for step, name in run.result_names]
    return _text(
        {
            "path": run.path,
            "state": state_of(run.status, run.path),
            "attributes": dict(run.attributes),
            "steps": _records(steps),
            "maps": list(run.map_names),
            "results": [
                {"step": step, "name": name, "value": saved.values.item(), "unit": saved.units}
                for step, name, saved in results
                if saved.values.ndim == 0
            ],
            "arrays": [
                {"step": step, "name": name, "shape": saved.values.shape, "unit": saved.units}
                for step, name, saved in results
                if saved.values.ndim
            ],
            "notes": _records(run.table("notes")),
        }
    )


def ledger_json(path: Path, file: BenchFile) -> str:
    """A ledger of this bench's chip. Raises `DataError` for none."""
    held = read_ledger(path, file.chip.id, file.chip.geometry)
    return _text(
        {
            "path": path,
            "chip": held.chip_id,
            "id": held.id,
            "change": held.count,
            "pulses": int(held.counts.sum()),
            "most_pulses_of_a_cell": int(held.counts.max()),
            "limit": file.limits.pulses_per_cell,
            "sessions": held.sessions,
        }
    )


def _placed(mapping: Any, network: Network | None) -> list[dict[str, Any]]:
    return _rows(places(mapping, network))


def _rows(placed: Sequence[Place]) -> list[dict[str, Any]]:
    return [{"name": place.name, "values": place.values, "where": str(place)} for place in placed]


def _records(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _text(value: object) -> str:
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    """Only what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)
