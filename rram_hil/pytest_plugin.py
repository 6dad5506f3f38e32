"""A pytest plugin: fixtures of a simulated bench, so that a lab tests its scripts and drivers
without hardware.

pytest finds it by its entry point; see docs/testing-your-lab.md. Nothing heavy is imported before a
fixture is asked for.
"""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rram_hil.bench.bench import Bench
    from rram_hil.simulation.chip import SimulatedChip
    from rram_hil.types import FloatArray, IntArray

LIMITS: dict[str, float | int] = {
    "bl_v": 4.0,
    "sl_v": 4.0,
    "wl_v": 4.0,
    "cell_v": 4.0,
    "gate_over_v": 4.2,
    "half_select_v": 0.5,
    "read_v": 0.25,
    "current_a": 1e-3,
    "energy_j": 1e-7,
    "width_s": 1e-5,
    "pulses_per_cell": 1000,
}
"""Limits of the bench that the fixtures make; the marker's `limits` replaces some."""


@dataclass(frozen=True)
class RramSettings:
    """What `@pytest.mark.rram(...)` may say of the bench: its keywords are these fields."""

    device: str = "paper"
    tiles: int = 1
    rows: int = 16
    columns: int = 16
    cell: str = "1T1R"
    seed: int = 1
    driver: str = "simulated-array"
    read_noise: bool = True
    converters: bool = True
    limits: dict[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class GroundTruth:
    """What the simulated chip behind a bench really is, whatever its driver measures. Arrays of
    shape (tiles, rows, columns).
    """

    bench: Bench

    def pulses(self) -> IntArray:
        """Pulses that each cell has ever taken."""
        return self.named("pulses")

    def conductance_s(self) -> FloatArray:
        """What each cell conducts now (S), without read noise."""
        return self.named("conductance_s")

    def outputs_on(self) -> bool:
        """Whether the simulated bench drives any line now."""
        control = self.bench.far_side.control if self.bench.far_side is not None else ""
        return bool(_ask(control, do="status")["outputs_on"]) if control else False

    def named(self, name: str) -> NDArray[Any]:
        """A truth by its name: "pulses", "conductance_s", "words", "formed" or "stuck"."""
        import numpy as np

        control = self.bench.far_side.control if self.bench.far_side is not None else ""
        if control:
            npy = base64.b64decode(_ask(control, do="truth", name=name)["npy"])
            array: NDArray[Any] = np.load(io.BytesIO(npy), allow_pickle=False)
            return array
        value = getattr(_chip_of(self.bench), name)
        return np.asarray(value() if callable(value) else value)


def _ask(control: str, **request: str) -> dict[str, Any]:
    """One request to the control socket of a simulated bench: a JSON object a line, both ways."""
    from rram_hil.wire.bench_clock import control_of

    place, keys = control_of(control)
    with (
        socket.create_connection(place, timeout=30) as connection,
        connection.makefile("rwb") as stream,
    ):
        stream.write(json.dumps(request | keys).encode() + b"\n")
        stream.flush()
        answer: dict[str, Any] = json.loads(stream.readline())
    if not answer.get("ok"):
        raise RuntimeError(f"the simulated bench refused {request}: {answer.get('error')}")
    return answer


def _chip_of(bench: Bench) -> SimulatedChip:
    from rram_hil.simulation.chip import SimulatedChip

    chip = getattr(bench.driver, "chip", None)
    if not isinstance(chip, SimulatedChip):
        raise pytest.UsageError(
            f"driver {bench.file.driver.name!r} keeps its chip in another process: use"
            " rram_ground_truth instead of rram_chip"
        )
    return chip


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for `--strict-markers`."""
    keywords = ", ".join(f.name for f in fields(RramSettings))
    config.addinivalue_line(
        "markers", f"rram({keywords}): the simulated bench of the rram_ fixtures; keywords only"
    )


def _settings(request: pytest.FixtureRequest) -> RramSettings:
    known = {f.name for f in fields(RramSettings)}
    given: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("rram"))):
        if mark.args or not set(mark.kwargs) <= known:
            wrong = ", ".join([*map(repr, mark.args), *sorted(set(mark.kwargs) - known)])
            raise pytest.UsageError(
                f"@pytest.mark.rram: {wrong}: unknown; keywords are {', '.join(sorted(known))}"
            )
        given |= mark.kwargs
    return RramSettings(**given)


def _toml(settings: RramSettings, folder: Path) -> str:
    """The bench file; a model file (.toml) is looked for beside the test."""
    device = (
        str((folder / settings.device).resolve())
        if settings.device.endswith(".toml")
        else settings.device
    )
    simulation = {"device": device, "seed": settings.seed, "state": "chip.state"}
    simulation |= {"read_noise": settings.read_noise, "converters": settings.converters}
    size = {
        "tiles": settings.tiles,
        "rows": settings.rows,
        "columns": settings.columns,
        "cell": settings.cell,
    }
    sections: dict[str, dict[str, Any]] = {
        "chip": {"id": "simulated"} | size,
        "driver": {"name": settings.driver},
        "limits": LIMITS | settings.limits,
        "simulation": simulation,
    }
    # JSON's text, numbers, lists and booleans are TOML's.
    text = ""
    for name, table in sections.items():
        text += (
            f"[{name}]\n"
            + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
            + "\n"
        )
    return text


@pytest.fixture
def rram_bench_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Path of the bench file of a simulated bench, in the test's own folder; settings by
    `@pytest.mark.rram(...)`.
    """
    path = tmp_path / "bench.toml"
    path.write_text(_toml(_settings(request), request.path.parent), encoding="utf-8")
    return path


@pytest.fixture
def rram_bench(rram_bench_file: Path) -> Iterator[Bench]:
    """An open bench; after the test its outputs are switched off, that they are off is asserted,
    and it is closed.
    """
    from rram_hil.bench.bench import Bench

    with Bench.open(rram_bench_file) as bench:
        yield bench
        if not bench.is_closed:
            bench.safe_off()
            assert not GroundTruth(bench).outputs_on(), (
                "the bench still drives a line after safe_off"
            )


@pytest.fixture
def rram_chip(rram_bench: Bench) -> SimulatedChip:
    """The simulated chip behind `rram_bench`, in this process; for the direct driver
    "simulated-array" only.
    """
    return _chip_of(rram_bench)


@pytest.fixture
def rram_ground_truth(rram_bench: Bench) -> GroundTruth:
    """What the chip behind `rram_bench` really is, for every simulated driver."""
    return GroundTruth(rram_bench)
