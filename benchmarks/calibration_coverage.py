"""Every calibration on simulated benches with known errors put in: how often its 95 % interval
holds the truth, how wide it is.

Errors, the references' true values (drawn from their stated uncertainty) and all noise differ from
seed to seed. A list counts by each of its values. `python benchmarks/calibration_coverage.py
[SEEDS] [STUDY ...]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rram_hil import Bench
from rram_hil.array import Apply, Geometry, Limits, read_step
from rram_hil.bench.bench_file import BenchFile, parse_bench_file
from rram_hil.calibration.board_converters import BoardConverters
from rram_hil.calibration.leads import Leads
from rram_hil.calibration.lines import Lines
from rram_hil.calibration.pulse_arrival import MeasurePulseArrival
from rram_hil.calibration.source_meter import SourceMeterCalibration
from rram_hil.corrections.calibration_file import Calibrated, Value
from rram_hil.drivers.keysight_33500 import Keysight33500
from rram_hil.drivers.keysight_infiniivision import KeysightInfiniiVision
from rram_hil.drivers.simulated.array.erring_terminal import ErringTerminal
from rram_hil.drivers.simulated.array.pulse_path import Probe, PulsePath
from rram_hil.drivers.simulated.array.terminals import Bus, Drive, Place, Resistor, Sensed, Terminal
from rram_hil.drivers.simulated.keithley_2450 import Simulated2450
from rram_hil.drivers.simulated.keysight_33500 import Simulated33500
from rram_hil.drivers.simulated.keysight_infiniivision import SimulatedInfiniiVision
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.engine.protocol import Compute, Setting
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.hardware.instrument import InstrumentConfig, PulseSetup
from rram_hil.simulation.config import PulsePathErrors, ScopeErrors, SourceMeterErrors, Timing
from rram_hil.simulation.converters import DAC_RANGE_V, Converters

NORMAL = 1.959964
LIMITS = {
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
LADDER_OHM = (1.1e6, 262e3, 187e3, 82e3, 47e3, 25.9e3, 13.3e3, 6.8e3, 3.9e3, 2.67e3, 1.3e3, 620.0)
Found = dict[str, tuple[Value, np.ndarray]]
"""For each value of a calibration what it says and what is true."""


@dataclass(frozen=True)
class Size:
    """The array of a study, and the relative 95 % half-width of its reference resistors."""

    rows: int = 32
    columns: int = 32
    reference: float = 2e-4


def bench_of(
    simulation: dict[str, Any], size: Size = Size(), folder: Path = Path(), **more: Any
) -> BenchFile:
    """A bench of one simulated array."""
    tables: dict[str, Any] = {
        "chip": {
            "id": "cal",
            "tiles": 1,
            "rows": size.rows,
            "columns": size.columns,
            "cell": "1T1R",
        },
        "driver": {"name": "simulated-array"},
        "limits": dict(LIMITS),
        "simulation": {"device": "paper"} | simulation,
        **more,
    }
    return parse_bench_file(tables, path=folder / "bench.toml")


def stated(rng: np.random.Generator, ohm: float, size: Size) -> tuple[float, float]:
    """True resistance of a resistor that is stated as `ohm` and its half-width, drawn from its
    stated uncertainty.
    """
    wide = size.reference * ohm
    return ohm + wide / NORMAL * float(rng.standard_normal()), wide


def ladder(
    rng: np.random.Generator, places: list[tuple[int, int]], ohms: tuple[float, ...], size: Size
) -> Any:
    """Entries of `simulation.resistors` and of a calibration's `references`."""
    true, told = [], []
    for (row, column), ohm in zip(places, ohms, strict=True):
        real, wide = stated(rng, ohm, size)
        true.append({"row": row, "column": column, "ohm": real})
        told.append({"row": row, "column": column, "ohm": ohm, "half_width_ohm": wide})
    return true, told


def line_of(at: np.ndarray, values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Offset and slope of the best straight line, and the deviations."""
    slope, offset = np.polyfit(at, values, 1)
    return offset, slope, values - offset - slope * at


def converters(
    seed: int, size: Size = Size(), folder: Path = Path()
) -> tuple[Calibrated, Found, BenchFile]:
    """DAC, ADC and column amplifiers of a board."""
    rng = np.random.default_rng(seed)
    bend = np.linspace(-1, 1, 65)
    errors = {
        "bl": {
            "offset_v": rng.normal(0, 2e-3),
            "gain": rng.normal(0, 5e-3),
            "inl_v": list(rng.normal(0, 3e-4) * np.sin(np.pi * 20 * bend)),
        },
        "adc": {
            "offset": rng.normal(0, 1e-3),
            "gain": rng.normal(0, 1e-2),
            "inl": list(
                rng.normal(0, 1e-3) * np.sin(np.pi * bend) + rng.normal(0, 1e-3) * (bend**2 - 1)
            ),
        },
        "column_gain": list(rng.normal(0, 2e-2, size.columns)),
        "column_offset": list(rng.normal(0, 2e-3, size.columns)),
    }
    places = [(k, k) for k in range(len(LADDER_OHM))]
    true, told = ladder(rng, places, LADDER_OHM, size)
    # A test row: resistors in all columns, whose values nobody needs to know.
    for row in (size.rows - 2, size.rows - 1):
        true += [
            {"row": row, "column": c, "ohm": float(rng.uniform(8e3, 12e3))}
            for c in range(size.columns)
        ]
    simulation = {"seed": seed, "errors": errors, "resistors": true}
    file = bench_of(simulation, size, folder)
    made = Converters(file.simulation, file.chip.geometry)
    asked = [-0.2, -0.1, 0.1, 0.2]
    meter_u = 2e-5
    read = [
        float(made.level(np.array([v]), "bl")[0]) + meter_u / NORMAL * rng.standard_normal()
        for v in asked
    ]
    # A voltmeter is read at levels that the converter has.
    grid = DAC_RANGE_V / 4096
    asked = [round(v / grid) * grid for v in asked]
    keys = {
        "references": told,
        "voltmeter": {"asked_v": asked, "read_v": read, "half_width_v": meter_u},
        "columns": {"rows": [size.rows - 2, size.rows - 1]},
    }
    with Bench.open(file) as bench:
        found = bench.run(BoardConverters.model_validate(keys))
    assert isinstance(found, Calibrated)
    v = found.values
    at_v, at = v["bl_inl_at"].values, v["adc_inl_at"].values
    dac = line_of(at_v, made.level(at_v, "bl"))
    scale = np.ones(1)
    adc = line_of(at, made._told(at[:, None], scale)[:, 0])
    truth = {
        "bl_offset": dac[0],
        "bl_gain": dac[1] - 1,
        "bl_inl": dac[2],
        "adc_offset": adc[0],
        "adc_gain": adc[1] - 1,
        "adc_inl": adc[2],
        "column_gain": errors["column_gain"],
        "column_offset": errors["column_offset"],
    }
    return found, _paired(found, truth), file


def lines(
    seed: int, size: Size = Size(), folder: Path = Path()
) -> tuple[Calibrated, Found, BenchFile]:
    """Wire and access transistor."""
    rng = np.random.default_rng(seed)
    line, access = float(rng.uniform(0.5, 5.0)), float(rng.uniform(500.0, 3000.0))
    last, right = size.rows - 1, size.columns - 1
    places = [
        (0, right),
        (0, 0),
        (last, right),
        (last, 0),
        (0, right // 2),
        (last // 2, 0),
        (last // 2, right),
        (1, right),
    ]
    true, told = ladder(rng, places, (1e3,) * len(places), size)
    simulation = {
        "seed": seed,
        "errors": {"access_ohm": access},
        "line_ohm": line,
        "resistors": true,
    }
    file = bench_of(simulation, size, folder)
    with Bench.open(file) as bench:
        found = bench.run(Lines.model_validate({"references": told}))
    assert isinstance(found, Calibrated)
    return found, _paired(found, {"line_ohm": line, "access_ohm": access}), file


def leads(
    seed: int, size: Size = Size(), folder: Path = Path()
) -> tuple[Calibrated, Found, BenchFile]:
    """Leads and contacts from a known resistor."""
    rng = np.random.default_rng(seed)
    ohm = float(rng.uniform(1.0, 30.0))
    true, told = ladder(rng, [(0, 0), (1, 1)], (100.0, 300.0), size)
    file = bench_of({"seed": seed, "errors": {"lead_ohm": ohm}, "resistors": true}, size, folder)
    with Bench.open(file) as bench:
        found = bench.run(Leads.model_validate({"references": told}))
    assert isinstance(found, Calibrated)
    return found, _paired(found, {"series_ohm": ohm}), file


class Shared(Terminal):
    """The terminal of a second meter beside the one that forces: it takes no current and sees the
    same volts.
    """

    def __init__(self, other: Terminal) -> None:
        self._other, self._is_on = other, False

    def drive(self, drive: Drive) -> None:
        """Only its own output's state: a voltmeter loads nothing."""
        self._is_on = drive.function != "off"

    def sense(self) -> Sensed:
        """Volts there, no current."""
        return Sensed(self._other.sense().volts, 0.0, False)


class Leaded(Terminal):
    """A resistor behind leads; a channel that senses at the load is asked whether it does."""

    def __init__(self, ohm: float, lead_ohm: float) -> None:
        self._whole, self._ohm, self._lead = Resistor(ohm + lead_ohm), ohm, lead_ohm
        self.is_remote: Callable[[], bool] = lambda: False

    def drive(self, drive: Drive) -> None:
        """A current source, for which sensing at the load changes only what is
        sensed.
        """
        self._whole.drive(drive)

    def sense(self) -> Sensed:
        """See `Terminal`."""
        found = self._whole.sense()
        part = self._ohm / (self._ohm + self._lead) if self.is_remote() else 1.0
        return Sensed(found.volts * part, found.amps, found.limited)


@contextmanager
def two_meters(
    seed: int,
    errors: SourceMeterErrors,
    load: Terminal,
    second: SourceMeterErrors,
    name: str = "dut",
    serial: str = "",
) -> Iterator[Any]:
    """A simulated 2450 with errors on a load, and a second one that senses the same volts:
    instruments and their sections.
    """
    bus = Bus()
    first = Simulated2450(
        "2450", Place(name, bus, {"1": ErringTerminal(load, errors)}, serial=serial or f"DUT{seed}")
    )
    other = Simulated2450(
        "2450", Place("ref", bus, {"1": ErringTerminal(Shared(load), second)}, serial=f"REF{seed}")
    )
    servers = [InstrumentServer(i, Timing()) for i in (first, other)]
    try:
        yield (
            first,
            *({"kind": "keithley-2450", "model": "2450", "resource": s.resource} for s in servers),
        )
    finally:
        for server in servers:
            server.stop()


def zero(seed: int, size: Size = Size(), folder: Path = Path()) -> tuple[Calibrated, Found, None]:
    """Current of every range with open terminals."""
    rng = np.random.default_rng(seed)
    errors = SourceMeterErrors(offset_a=float(rng.normal(0, 1e-9)))
    with two_meters(seed, errors, Resistor(), SourceMeterErrors()) as (simulated, section, _):
        found = _alone({"part": "zero", "instrument": section, "channel": "1"}, folder)
    meter = simulated.meters["CURR"]
    truth = [errors.offset_a * meter._gain[k] + meter._offset[k] for k in range(len(meter.scales))]
    # Of the range, so that one figure can be stated for all.
    value, ranges = found.values["offset_a"], found.values["range_a"].values
    part = Value(
        value=list(value.values / ranges), half_width=list(value.half_widths / ranges), unit="range"
    )
    return found, {"offset_a": (part, np.array(truth) / ranges)}, None


def gain(seed: int, size: Size = Size(), folder: Path = Path()) -> tuple[Calibrated, Found, None]:
    """Gain of current, offset and gain of volts, with a resistor and a second meter."""
    rng = np.random.default_rng(seed)
    errors = SourceMeterErrors(
        offset_v=float(rng.normal(0, 1e-3)),
        gain_v=float(rng.normal(0, 2e-3)),
        offset_a=float(rng.normal(0, 1e-9)),
        gain_a=float(rng.normal(0, 2e-3)),
    )
    true_ohm, wide = stated(rng, 1e4, size)
    fraction, offset = 5e-4, 3e-4
    second = SourceMeterErrors(
        gain_v=-fraction / NORMAL * float(rng.standard_normal()),
        offset_v=offset / NORMAL * float(rng.standard_normal()),
    )
    load = Resistor(float("inf"))
    with two_meters(seed, errors, load, second) as (simulated, section, reference):
        first = _alone({"part": "zero", "instrument": section, "channel": "1"}, folder)
        path = folder / f"zero-{seed}.toml"
        first.complete(first.identity, "", datetime.now(UTC)).write(path, force=True)  # type: ignore[arg-type]
        load.siemens = 1 / true_ohm
        keys = {
            "part": "gain",
            "instrument": section,
            "channel": "1",
            "ohm": 1e4,
            "half_width_ohm": wide,
            "zero": path.name,
            "meter": reference,
            "meter_channel": "1",
            "meter_fraction": fraction,
            "meter_offset_v": offset,
            "most_v": 2.0,
            "most_a": 1e-3,
        }
        found = _alone(keys, folder)
    meter, v = simulated.meters["CURR"], found.values
    reached = np.flatnonzero(v["gain_a"].values != 0)
    used = np.flatnonzero(v["gain_v"].values != 0)
    truth = {
        "gain_a": [(1 + errors.gain_a) * meter._gain[k] - 1 for k in reached],
        "gain_v": [errors.gain_v for _ in used],
        "offset_v": [errors.offset_v for _ in used],
    }
    parts = {"gain_a": reached, "gain_v": used, "offset_v": used}
    return found, {n: (_part(v[n], parts[n]), np.array(t)) for n, t in truth.items()}, None


def four_wire(
    seed: int, size: Size = Size(), folder: Path = Path()
) -> tuple[Calibrated, Found, None]:
    """Leads, two-wire against four-wire."""
    rng = np.random.default_rng(seed)
    lead = float(rng.uniform(0.5, 5.0))
    load = Leaded(float(rng.uniform(50, 150)), lead)
    with two_meters(seed, SourceMeterErrors(), load, SourceMeterErrors()) as (
        simulated,
        section,
        _,
    ):
        load.is_remote = lambda: is_remote(simulated)
        keys = {
            "method": "four-wire",
            "instrument": section,
            "channel": "1",
            "amps": 1e-3,
            "repeat": 24,
        }
        with Bench.open(bench_of({}, size, folder)) as bench:
            found = bench.run(Leads.model_validate(keys))
    assert isinstance(found, Calibrated)
    return found, _paired(found, {"series_ohm": lead}), None


def is_remote(simulated: Simulated2450) -> bool:
    """Whether a simulated 2450 senses volts at the load."""
    return any(bool(v) for k, v in simulated.values.items() if "RSEN" in k.upper())


def _alone(keys: dict[str, Any], folder: Path) -> Calibrated:
    with Bench.open(bench_of({}, folder=folder)) as bench:
        setting = replace(bench.setting, folder=folder)
        found = bench.run(SourceMeterCalibration.model_validate(keys).run(setting))
    assert isinstance(found, Calibrated)
    return found


def _part(value: Value, at: np.ndarray) -> Value:
    return Value(
        value=list(value.values[at]), half_width=list(value.half_widths[at]), unit=value.unit
    )


def _paired(found: Calibrated, truth: dict[str, Any]) -> Found:
    return {
        name: (found.values[name], np.atleast_1d(np.asarray(true, dtype=np.float64)))
        for name, true in truth.items()
    }


@contextmanager
def generator_and_scope(
    path_errors: PulsePathErrors, scope_errors: ScopeErrors, seed: int
) -> Iterator[tuple[Keysight33500, KeysightInfiniiVision]]:
    """A generator whose pulses a scope sees at the end of a path, both connected and armed."""
    bus = Bus()
    path = PulsePath(Resistor(), bus.clock, path_errors)
    probe = Probe(path, scope_errors, "scope.1", seed)
    simulated = (
        Simulated33500("33511B", Place("pulser", bus, {"1": path}, serial="SIM1")),
        SimulatedInfiniiVision("DSOX3054A", Place("scope", bus, {"1": probe}, serial="SIM2")),
    )
    servers = [InstrumentServer(instrument, Timing()) for instrument in simulated]
    generator, scope = (
        driver(InstrumentConfig(resource=server.resource))
        for driver, server in zip((Keysight33500, KeysightInfiniiVision), servers, strict=True)
    )
    try:
        for instrument in (generator, scope):
            instrument.connect()
            instrument.arm()
        yield generator, scope  # type: ignore[misc]
    finally:
        for instrument in (generator, scope):
            instrument.close()
        for server in servers:
            server.stop()


def pulse_arrival(
    seed: int, size: Size = Size(), folder: Path = Path()
) -> tuple[Calibrated, Found, None]:
    """Pulses of a generator at the end of a path, by a scope that errs within its own accuracy."""
    rng = np.random.default_rng(seed)
    errors = PulsePathErrors(
        gain=float(rng.uniform(-0.15, 0.05)),
        rise_s=float(rng.uniform(5e-9, 15e-9)),
        overshoot=float(rng.uniform(0.05, 0.3)),
        delay_s=float(rng.uniform(0, 50e-9)),
        stretch_s=float(rng.uniform(-8e-9, 8e-9)),
    )
    # 2 % of a screen that is twice as high as the pulses.
    scope_gain = 2 * 0.02 / NORMAL * float(rng.standard_normal())
    levels, widths = np.array([0.5, 2.0]), np.array([100e-9, 1e-6])
    keys = MeasurePulseArrival(
        generator="pulser.1",
        scope="scope.1",
        widths_s=widths.tolist(),
        levels_v=levels.tolist(),
        row=0,
        column=0,
        probe=1.0,
    )
    limits = LIMITS | {"half_select_v": 4.0, "width_s": 1e-3}
    span = Span(-10.0, 10.0)
    can = Capabilities(span, span, span, Span(16e-9, 1.0), timing={"sources_from_s": 1e-3})
    with generator_and_scope(errors, ScopeErrors(gain=scope_gain), seed) as (generator, scope):
        setting = Setting(
            Geometry(1, 1, 1, "1R"),
            Limits.model_validate(limits),
            read_step(0.2, 0.0),
            can,
            instruments={"pulser": generator, "scope": scope},
            probes={"scope.1": "pulser.1"},
        )
        plan = keys.run(setting)
        answer: Any = None
        while True:
            try:
                message = plan.send(answer)
            except StopIteration as end:
                found: Calibrated = end.value
                break
            answer = message.function(_no_operation) if isinstance(message, Compute) else None
            if isinstance(message, Apply):
                _shoot(generator, message)
                answer = SimpleNamespace(interrupted=False)
    volts = np.tile(levels, 2) * (1 + errors.gain)
    truth = {
        "amplitude_v": volts,
        "arrived_s": np.repeat(widths, 2) + errors.stretch_s,
        "rise_s": np.full(4, errors.rise_s),
        "fall_s": np.full(4, errors.rise_s),
        "overshoot": np.full(4, errors.overshoot),
        "undershoot": np.full(4, errors.overshoot),
    }
    return found, {name: (found.values[name], true) for name, true in truth.items()}, None


def _shoot(generator: Keysight33500, operation: Apply) -> None:
    """One pulse as a chain gives it."""
    [step] = operation.steps
    assert isinstance(step.bl_v, float)
    setup = PulseSetup(step.bl_v, 0.0, step.width_s, 2 * step.width_s + 50e-9, 8.4e-9)
    generator.configure("1", setup)
    generator.output("1", True)
    generator.fire("1", 1)
    generator.output("1", False)


def _no_operation(_: object) -> Any:
    raise AssertionError("no operation is asked for within a computation")


STUDIES: dict[str, Callable[..., tuple[Calibrated, Found, BenchFile | None]]] = {
    "board-converters": converters,
    "lines": lines,
    "leads (known)": leads,
    "leads (four-wire)": four_wire,
    "source-meter (zero)": zero,
    "source-meter (gain)": gain,
    "pulse-arrival": pulse_arrival,
}
STATED: dict[str, dict[str, float]] = {
    "board-converters": {
        "bl_offset": 20e-6,
        "bl_gain": 2e-4,
        "bl_inl": 80e-6,
        "adc_offset": 1e-4,
        "adc_gain": 2.5e-4,
        "adc_inl": 5e-4,
        "column_gain": 2e-3,
        "column_offset": 3e-5,
    },
    "lines": {"line_ohm": 0.015, "access_ohm": 0.6},
    "leads (known)": {"series_ohm": 0.04},
    "leads (four-wire)": {"series_ohm": 0.009},
    "source-meter (zero)": {"offset_a": 5e-4},
    "source-meter (gain)": {"gain_a": 7e-4, "gain_v": 7e-4, "offset_v": 4e-4},
    "pulse-arrival": {
        "amplitude_v": 0.2,
        "arrived_s": 1.5e-9,
        "rise_s": 1.5e-9,
        "fall_s": 1.5e-9,
        "overshoot": 0.1,
        "undershoot": 0.02,
    },
}
"""Half-widths that docs/calibration.md states for the setups of these studies."""


@dataclass(frozen=True)
class Covered:
    """One value over all seeds: part of the intervals that hold the truth, median and largest
    half-width, unit.
    """

    covered: float
    count: int
    median: float
    largest: float
    unit: str


def coverage(study: str, seeds: int, size: Size = Size()) -> dict[str, Covered]:
    """A study over many seeds."""
    held: dict[str, list[np.ndarray]] = {}
    wide: dict[str, list[np.ndarray]] = {}
    unit: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, seeds + 1):
            _, found, _ = STUDIES[study](seed, size, Path(folder))
            for name, (value, truth) in found.items():
                held.setdefault(name, []).append(np.abs(value.values - truth) <= value.half_widths)
                wide.setdefault(name, []).append(value.half_widths)
                unit[name] = value.unit
            for path in Path(folder).iterdir():
                path.unlink()
    return {
        n: Covered(
            float(np.concatenate(held[n]).mean()),
            sum(map(len, held[n])),
            float(np.median(np.concatenate(wide[n]))),
            float(np.concatenate(wide[n]).max()),
            unit[n],
        )
        for n in held
    }


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    wanted = sys.argv[2:] or list(STUDIES)
    print(
        f"{'calibration':20s} {'value':14s} {'intervals':>9s} {'hold truth':>10s}"
        f" {'half-width':>11s} {'largest':>10s} stated"
    )
    for study in wanted:
        began = time.perf_counter()
        for name, c in coverage(study, seeds).items():
            told = STATED[study][name]
            print(
                f"{study:20s} {name:14s} {c.count:9d} {c.covered:10.1%} {c.median:11.3g}"
                f" {c.largest:10.3g} {told:9.3g} {c.unit}"
            )
        print(f"{'':20s} {time.perf_counter() - began:.0f} s for {seeds} seeds", flush=True)


if __name__ == "__main__":
    main()
