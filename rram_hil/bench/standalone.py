"""`rram-hil simulate`: the instruments of a simulated bench, or one alone, for other programs to
connect to.
"""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from rram_hil.bench.bench_file import ThermostatSection, load_bench_file
from rram_hil.bench.far_side import launcher, request_of
from rram_hil.bench.thermostats import check_thermostat, start_thermostat
from rram_hil.errors import ConfigError, LinkError, near
from rram_hil.hardware.far_side import SimulatedFarSide
from rram_hil.hardware.undriven import why_undriven
from rram_hil.plugins import load, working
from rram_hil.wire.bench_clock import FarClock

GROUP = "rram_hil.simulated_instruments"
"""Entry points of what can be started alone."""
LOOK_S = 0.5


class Alone(Protocol):
    """What an entry point of `GROUP` is: the models it stands for, and how to start one by
    itself.
    """

    MAKER: str
    MODELS: tuple[str, ...]

    def start_alone(
        self,
        model: str,
        load_ohm: float = math.inf,
        port: int = 0,
        modules: Sequence[str] | None = None,
    ) -> SimulatedFarSide:
        """Start one of the models; a resistor of `load_ohm` behind every channel, `modules` in its
        slots (it need not take that argument). Raises `ConfigError` if it cannot.
        """


def start_bench(path: Path, load_ohm: float | None = None) -> SimulatedFarSide:
    """Start every instrument of a simulated bench, its thermostat too; with `load_ohm` a resistor
    stands for the array behind each source-meter.

    Raises `ConfigError` where the bench file describes none, or has no source-meters to put a
    resistor behind.
    """
    file = load_bench_file(path)
    check_thermostat(file)
    request = request_of(file)
    if load_ohm is not None:
        if "instruments" not in request.settings:
            raise ConfigError(
                f"--load: driver {file.driver.name!r} has no source-meters to put a resistor behind"
            )
        if not load_ohm > 0:
            raise ConfigError(f"--load {load_ohm:g}: the resistance must be above 0 ohm")
        request = replace(
            request, simulation=request.simulation.model_copy(update={"load_ohm": load_ohm})
        )
    far_side = launcher(file.driver.name)(request)
    if not far_side.instruments:
        far_side.stop()
        raise ConfigError(
            f"{path}: driver {file.driver.name!r} has its array in the bench's own process: nothing"
            " to connect to"
        )
    return far_side if file.thermostat is None else _with_thermostat(far_side, file.thermostat)


def _with_thermostat(far_side: SimulatedFarSide, section: ThermostatSection) -> SimulatedFarSide:
    """The far side of a bench and its thermostat, which lives on the clock of that far side."""
    clock = None
    try:
        clock = FarClock(far_side.control) if far_side.control else None
        beside = start_thermostat(section, time.monotonic if clock is None else clock.now_s)
    except BaseException:
        if clock is not None:
            clock.close()
        far_side.stop()
        raise
    ((_, model, resource),) = beside.instruments

    def stop() -> None:
        beside.stop()
        if clock is not None:
            clock.close()
        far_side.stop()

    instruments = (*far_side.instruments, ("thermostat", model, resource))
    return replace(far_side, stop=stop, instruments=instruments)


def start_model(
    model: str, load_ohm: float = math.inf, port: int = 0, modules: Sequence[str] | None = None
) -> SimulatedFarSide:
    """Start one instrument, named "MODEL" or "MAKER MODEL" in any case, with `modules` in its slots
    (None: its usual ones). Raises `ConfigError` listing what there is.
    """
    if not load_ohm > 0:
        raise ConfigError(f"--load {load_ohm:g}: the resistance must be above 0 ohm")
    wanted = " ".join(model.split()).casefold()
    known: dict[str, list[str]] = {}
    for _, found in working(GROUP, _alone):
        for name in found.MODELS:
            if wanted in (name.casefold(), f"{found.MAKER} {name}".casefold()):
                if modules is None:
                    return found.start_alone(name, load_ohm, port)
                if "modules" not in inspect.signature(found.start_alone).parameters:
                    raise ConfigError(f"--modules: {name} has no slots for modules")
                return found.start_alone(name, load_ohm, port, modules)
        known.setdefault(found.MAKER, []).extend(found.MODELS)
    name = model.upper().split()[-1] if model.split() else ""
    if why := why_undriven(name):
        raise ConfigError(f"--model {model!r}: there is no such simulator; {why}")
    meant = near(name, [one for models in known.values() for one in models])
    there = "; ".join(f"{maker} {', '.join(models)}" for maker, models in known.items())
    raise ConfigError(f"--model {model!r}: there is no such simulator{meant}; there are {there}")


def _alone(name: str) -> Alone:
    return cast(Alone, load(GROUP, name, "simulated instrument"))


def serve(far_side: SimulatedFarSide, is_stopped: Callable[[], bool]) -> None:
    """Print one line for each instrument (name, model, resource, separated by tabs) and stay until
    the far side has ended.

    Where it can be controlled, the address is told on standard error. Raises `KeyboardInterrupt`
    where `is_stopped` says that Ctrl-C came before, `LinkError` where the far side ends by itself.
    """
    for line in far_side.instruments:
        print(*line, sep="\t", flush=True)
    if far_side.control:
        print(f"control socket: {far_side.control}", file=sys.stderr, flush=True)
    while far_side.is_running():
        if is_stopped():
            raise KeyboardInterrupt
        time.sleep(LOOK_S)
    raise LinkError("the simulated bench has ended by itself")
