"""A simulated rack: every instrument of a `smu-matrix` bench on a TCP port of its own, before one
simulated chip.

`launch` starts it; `python -m rram_hil.drivers.simulated.rack` is the process. It reads the bench
as one line of JSON from its standard input, prints where it can be reached, and ends when that
input ends, so it never outlives its parent.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from numpy.typing import NDArray
from pydantic import ValidationError
from typing_extensions import override

from rram_hil.array import Cells, Geometry
from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.simulation.chip import Fault, SimulatedChip
from rram_hil.simulation.config import FaultEntry, PulsePathErrors, ScopeErrors, Simulation
from rram_hil.validation import refused
from rram_hil.wire.link_keys import OF_THE_HARDWARE

from ..matrix.wiring import Wiring
from .array.pulse_path import Probe, PulsePath
from .array.terminals import Bus, Fabric, LooseFabric, Place, Resistor, Terminal
from .array.world import ArrayWorld
from .server.control import LinkFault, checked_fault
from .server.far_side import FarSide
from .server.instrument import AFTER, BEFORE, InstrumentServer, SimulatedInstrument
from .server.process import GONE_S, PATIENCE_S, serve, start

FAULTS = BEFORE | AFTER | {LinkFault.WRONG_MODEL}
"""What can go wrong with an instrument's messages."""
FIRST_NODE = 1
"""TSP-Link node of the source-meter that leads."""


def simulated_class(kind: str) -> type[SimulatedInstrument]:
    """The simulated instrument of a kind, by its entry point. Raises `ConfigError` where there is
    none.
    """
    kinds = {e.name: e for e in entry_points(group="rram_hil.simulated_instruments")}
    if kind not in kinds:
        raise ConfigError(
            f"instrument kind {kind!r} has no simulator; those with one: {', '.join(sorted(kinds))}"
        )
    loaded: type[SimulatedInstrument] = kinds[kind].load()
    if not (isinstance(loaded, type) and issubclass(loaded, SimulatedInstrument)):
        raise ConfigError(
            f"instrument kind {kind!r} is no instrument of a rack; it runs alone: rram-hil simulate"
            " --model"
        )
    return loaded


@dataclass(frozen=True)
class _Named:
    """One instrument of the bench file. `pretends` is a model that it tells instead of its own."""

    name: str
    model: str
    made_by: type[SimulatedInstrument]
    pretends: str = ""


def _named(settings: dict[str, Any]) -> list[_Named]:
    """The instruments that the driver's settings list. Raises `ConfigError` naming the key that is
    wrong.
    """
    sections = settings.get("instruments")
    if not isinstance(sections, dict) or not sections:
        raise ConfigError("driver.instruments: missing; it is required")
    instruments = []
    for name, section in sections.items():
        where = f"driver.instruments.{name}"
        if not isinstance(section, dict) or not isinstance(section.get("kind"), str):
            raise ConfigError(f"{where}.kind: missing; it is required")
        try:
            made_by = simulated_class(section["kind"])
        except ConfigError as error:
            raise ConfigError(f"{where}.kind: {error}") from None
        told = section.get("model") or section.get("treat_as") or made_by.MODELS[0]
        # What is driven as another model behaves as that one here.
        model = told if told in made_by.MODELS else section.get("treat_as", told)
        if model not in made_by.MODELS:
            raise ConfigError(
                f"{where}.model: {model!r} is wrong: one of {', '.join(made_by.MODELS)}; another"
                " one needs one of them as treat_as"
            )
        instruments.append(_Named(name, model, made_by, told if told != model else ""))
    return instruments


def _wiring(settings: dict[str, Any], geometry: Geometry) -> Wiring:
    try:
        wiring = Wiring.model_validate(settings.get("wiring", {}))
    except ValidationError as error:
        raise refused(error, "driver.wiring") from None
    wiring.check(geometry)
    return wiring


class Rack(FarSide):
    """Chip, world, bus and instruments with their servers. Raises `ConfigError` for what does not
    fit together.
    """

    def __init__(self, request: FarSideRequest) -> None:
        simulation, geometry = Simulation.model_validate(request.simulation), request.geometry
        named = _named(request.settings)
        wiring = _wiring(request.settings, geometry)
        self._matrix = _matrix(named, wiring)
        for fault in simulation.faults:
            checked_fault(fault, [n.name for n in named], FAULTS)
        chip = SimulatedChip(
            geometry,
            simulation,
            read_v=request.limits.read_v,
            chip_id=request.chip_id,
            folder=request.folder,
        )
        self.world = ArrayWorld(chip, wiring)
        self.bus = Bus(self.world.clock)
        super().__init__(chip, self.bus.lock)
        if wiring.is_direct:
            self.world.fabric.set_closed(frozenset({("bl", 1), ("sl", 2)}))
        self._paths = self._pulse_paths(wiring)
        self._fabric: Fabric = self.world.fabric if simulation.load_ohm is None else LooseFabric()
        self.instruments = {
            n.name: n.made_by(
                n.model,
                Place(
                    n.name,
                    self.bus,
                    self._terminals(n.name, wiring),
                    self._fabric,
                    serial=f"SIM{k:04d}",
                ),
            )
            for k, n in enumerate(named, start=1)
        }
        for n in named:
            self.instruments[n.name].pretends = n.pretends
        self._join(wiring)
        self.servers = {
            n: InstrumentServer(i, simulation.timing) for n, i in self.instruments.items()
        }
        for fault in simulation.faults:
            self.inject(fault)
        self.addresses["instruments"] = [
            [n.name, f"{n.made_by.MAKER} {n.model}", self.servers[n.name].resource] for n in named
        ]

    def _terminals(self, name: str, wiring: Wiring) -> Mapping[str, Terminal]:
        """What the channels of an instrument hang on: the array, or the resistor that stands for
        it, a generator's over its path; a scope's see the end of one.
        """
        probes = {
            channel.partition(".")[2]: Probe(
                self._paths[generator],
                self.chip.simulation.errors.scopes.get(channel, ScopeErrors()),
                channel,
                self.chip.simulation.seed,
            )
            for channel, generator in wiring.probes.items()
            if channel.partition(".")[0] == name
        }
        if probes:
            return probes
        paths = {
            channel.partition(".")[2]: path
            for channel, path in self._paths.items()
            if channel.partition(".")[0] == name
        }
        return {**self._ends(name, wiring), **paths}

    def _pulse_paths(self, wiring: Wiring) -> dict[str, PulsePath]:
        """Of each generator that has a path of its own or is looked at."""
        errors, paths = self.chip.simulation.errors, {}
        for channel in (*errors.pulse_paths, *errors.scopes):
            if channel not in (*wiring.generators, *wiring.probes):
                raise ConfigError(
                    f"simulation.errors: {channel!r} is no wired generator or probe; there is:"
                    f" {', '.join((*wiring.generators, *wiring.probes)) or 'none'}"
                )
        for channel in wiring.generators:
            if channel in errors.pulse_paths or channel in wiring.probes.values():
                name, _, own = channel.partition(".")
                end = self._ends(name, wiring)[own]
                known = errors.pulse_paths.get(channel, PulsePathErrors())
                paths[channel] = PulsePath(end, self.bus.clock, known)
        return paths

    def _ends(self, name: str, wiring: Wiring) -> Mapping[str, Terminal]:
        load_ohm = self.chip.simulation.load_ohm
        if load_ohm is None:
            return self.world.terminals(name)
        wired = [channel.partition(".") for channel in wiring.sources]
        return {own: Resistor(load_ohm) for instrument, _, own in wired if instrument == name}

    def _join(self, wiring: Wiring) -> None:
        """Trigger wires and TSP-Link, as the bench file says."""
        triggers = wiring.triggers
        if triggers is not None:
            if triggers.smu not in self.instruments:
                raise ConfigError(
                    f"driver.wiring.triggers.smu: there is no instrument {triggers.smu!r}"
                )
            for own, other in triggers.pairs:
                self.bus.wire((triggers.smu, own), (self._matrix, other))
        if wiring.tsp_node:
            if wiring.tsp_node == FIRST_NODE:
                raise ConfigError(
                    f"driver.wiring.tsp_node: {FIRST_NODE} is the source-meter's own node"
                )
            leading = next(iter(wiring.channels)).partition(".")[0]
            self.bus.nodes[FIRST_NODE] = self.instruments[leading]
            self.bus.nodes[wiring.tsp_node] = self.instruments[self._matrix]

    @override
    def serve(self) -> None:
        """Wait; each instrument's server has threads of its own."""
        threading.Event().wait()

    @override
    def close(self) -> None:
        """Let the levels that stand act, and bring the chip's state to the disk."""
        with self.bus.lock:
            self.world.settle()
            self.chip.close()

    @override
    def inject(self, entry: FaultEntry | dict[str, Any]) -> None:
        name, faults = checked_fault(entry, list(self.servers), FAULTS)
        for fault in faults:
            self.servers[name].faults.add(fault)

    @override
    def clear_faults(self) -> None:
        for server in self.servers.values():
            server.faults.clear()

    @override
    def control(self, request: dict[str, Any]) -> dict[str, Any]:
        """Also `panel`: what a person does at an instrument's front panel, `answers` to the dialogs
        of scripts and `keys` by name; `reboot` switches one instrument off and on.
        """
        if request["do"] not in ("panel", "reboot"):
            return super().control(request)
        name = request.get("instrument")
        if name not in self.instruments:
            raise ConfigError(f"instrument {name!r} is not one of {', '.join(self.instruments)}")
        if request["do"] == "reboot":
            self.servers[name].power_cycle()
            return {}
        answers, keys = request.get("answers", []), request.get("keys", [])
        if not isinstance(answers, list) or not isinstance(keys, list):
            raise ConfigError("panel: answers and keys are lists")
        with self.bus.lock:
            self.instruments[name].act_at_panel(answers, keys)
        return {}

    @override
    def advance(self, seconds: float) -> float:
        self.bus.clock.advance(seconds)
        return self.bus.clock.now_s

    @override
    def truth(self, name: str) -> NDArray[Any]:
        self.world.settle()
        return super().truth(name)

    @override
    def damage(self, fault: Fault, cells: Cells) -> None:
        self.world.damage(fault, cells)

    @override
    def status(self) -> dict[str, Any]:
        with self.bus.lock:
            on = {name: instrument.outputs_on for name, instrument in self.instruments.items()}
            return {
                "outputs_on": any(on.values()),
                "outputs": on,
                "now_s": self.bus.clock.now_s,
                "transactions": {
                    name: server.transactions for name, server in self.servers.items()
                },
                "hot_switches": self.world.hot_switches,
                "shorts": self.world.shorts,
                "unsolved": self.world.unsolved,
                "closures": sum(self.world.closures.values()),
                "waiting_faults": sum(len(server.faults) for server in self.servers.values()),
            }


def _matrix(named: list[_Named], wiring: Wiring) -> str:
    """Name of the switch matrix: the one instrument that has no channel; empty for a direct
    pair.
    """
    names = [n.name for n in named]
    channels = (*wiring.sources, *wiring.probes)
    for channel in channels:
        if channel.partition(".")[0] not in names:
            raise ConfigError(
                f"driver.wiring.channels: {channel!r}: there is no instrument"
                f" {channel.partition('.')[0]!r}"
            )
    wired = {channel.partition(".")[0] for channel in channels}
    others = [name for name in names if name not in wired]
    if wiring.is_direct and not others:
        return ""
    if wiring.is_direct:
        raise ConfigError(
            f"driver.instruments: {others[0]} has no channel; one cell between two channels has"
            " no matrix"
        )
    if len(others) != 1:
        unwired = ", ".join(others) or "none"
        raise ConfigError(
            "driver.wiring.channels: one instrument, the matrix, must be without channel; now"
            f" {unwired}"
        )
    return others[0]


def launch(request: FarSideRequest) -> SimulatedFarSide:
    """Start a simulated rack; `settings` of the answer reach it, `stop` ends it. Raises
    `ConfigError` if it does not start.
    """
    started = start(__name__, request, "rack")
    control: str = started.answer["control"]
    instruments = copy.deepcopy(request.settings["instruments"])
    lines = tuple((name, model, at) for name, model, at in started.answer["instruments"])
    for name, _, resource in lines:
        kept = {k: v for k, v in instruments[name].items() if k not in OF_THE_HARDWARE}
        patient = {"reconnect_s": GONE_S, "timeout_s": PATIENCE_S}
        instruments[name] = patient | kept | {"resource": resource}
    settings = {"instruments": instruments, "clock": control}
    return SimulatedFarSide(settings, control, started.stop, lines, started.is_running)


if __name__ == "__main__":
    serve(Rack)
