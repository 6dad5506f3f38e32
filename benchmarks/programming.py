"""Pulses that programming by the chip's twin takes, beside the published methods, in the four
windows of 2 bit/cell (Levy et al., IEEE TED 2021); which cells it calls doubtful, and which never
open.

    python benchmarks/programming.py [CHIP [TWIN]] [--wide 1.5] [--cells 1024] [--seeds 5,6]

CHIP is the device model of the cells, TWIN the one that the method knows (else the same). Cells
start after one full cycle; every pulse counts, those of failed cells too. With `--wide` the cells'
gains, thresholds of RESET and series resistances spread so many times as far as CHIP says.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from bank_cells import BankCells

from rram_hil.array import Cells, Limits, read_step
from rram_hil.bench.plugins import protocol_class
from rram_hil.engine.protocol import Setting
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.protocols.parts.programming import ByRounds
from rram_hil.protocols.parts.rounds import Course, Reason
from rram_hil.simulation.bank import CellBank
from rram_hil.simulation.model import DEFAULT_PRESET, DeviceModel
from rram_hil.types import FloatArray

WIDTH_S = 200e-9
FULL_RESET, FULL_SET = (3.0, 4.0), (2.0, 2.7)
WINDOWS_OHM = ((0.0, 5000.0), (5770.0, 6010.0), (8510.0, 9310.0), (80000.0, np.inf))
BUDGET = 200
HOPELESS, HOPEFUL = 0.01, 0.05
"""Chances to open a RESET below which a cell is hopeless, and from which it is not."""
RESET: dict[str, Any] = {
    "amplitude_v": {"start_v": 0.8, "stop_v": 3.0, "step_v": 0.1},
    "gate_v": 4.0,
    "width_s": WIDTH_S,
}
SET: dict[str, Any] = {
    "amplitude_v": 2.0,
    "gate_v": {"start_v": 1.8, "stop_v": 3.5, "step_v": 0.025},
    "width_s": WIDTH_S,
}


def setting_of(cells: BankCells) -> Setting:
    """What a method may know of a bench."""
    limits = Limits(
        bl_v=4.0, sl_v=4.0, wl_v=4.5, cell_v=4.0, gate_over_v=4.5, half_select_v=0.5, read_v=0.25,
        current_a=1e-2, energy_j=1e-6, width_s=1e-5, pulses_per_cell=1000,
    )  # fmt: skip
    wide = Span(-5.0, 5.0)
    can = Capabilities(wide, wide, wide, Span(1e-8, 1.0))
    return Setting(cells.geometry, limits, read_step(), can)


def widened(model: DeviceModel, wide: float) -> DeviceModel:
    """The same device with spreads between cells `wide` times as wide."""
    content = model.model_dump()
    for part, key in (("set", "gain_sd_ln"), ("set", "offset_sd_v"), ("reset", "offset_sd_v")):
        content[part][key] *= wide
    redraw, grow = content["reset"]["redraw"], content["set"]["grow"]
    if redraw is not None:
        redraw["device_ln"] = [wide * value for value in redraw["device_ln"]]
    if grow is not None and grow["creep"] is not None:
        grow["creep"]["most_ohm"] *= wide
    return DeviceModel.model_validate(content)


def after_one_cycle(model: DeviceModel, n: int, seed: int) -> CellBank:
    """Cells as they are after a full cycle."""
    bank = CellBank(model, n, seed)
    bank.apply(0.0, *FULL_RESET, WIDTH_S)
    bank.apply(FULL_SET[0], 0.0, FULL_SET[1], WIDTH_S)
    return bank


def course_of(cells: BankCells) -> Course:
    """All cells, the four windows evenly among them."""
    level = np.arange(len(cells.bank)) * len(WINDOWS_OHM) // len(cells.bank)
    low_ohm, high_ohm = np.array(WINDOWS_OHM)[level].T
    with np.errstate(divide="ignore"):
        low_s, high_s = 1.0 / high_ohm, 1.0 / low_ohm
    target_s = np.where(np.isfinite(high_s), (low_s + high_s) / 2, low_s)
    everything = np.arange(cells.geometry.size)
    return Course.of(Cells.block(0, np.array([0]), everything), low_s, high_s, target_s)


def chances(model: DeviceModel, n: int, seed: int, below_s: float, times: int = 500) -> FloatArray:
    """Of each cell of a chip that a RESET opened or not, the part of RESETs after which it is
    open.
    """
    bank = after_one_cycle(model, n, seed)
    bank.read()
    open_ = np.zeros(n)
    for k in range(times + 1):
        bank.apply(0.0, *FULL_RESET, WIDTH_S)
        open_ += (bank.conductance_s < below_s) & (k > 0)
        bank.read()
    return open_ / times


def table(title: str, course: Course) -> None:
    """Pulses by level."""
    pulses, inside = course.pulses, course.inside
    level = np.arange(pulses.size) * len(WINDOWS_OHM) // pulses.size
    print(f"{title}\n  window (kohm)     mean  inside  p99   SET  RESET  not inside")
    means = []
    for k, (low, high) in enumerate(WINDOWS_OHM):
        here = level == k
        good = here & inside
        means.append(pulses[here].mean())
        why = {
            Reason(r).name.lower(): int((course.reason[here] == r).sum())
            for r in np.unique(course.reason[here & ~inside])
        }
        print(
            f"  {low / 1e3:5.2f} to {high / 1e3:6.2f} {means[-1]:7.2f} {pulses[good].mean():7.2f}"
            f" {np.percentile(pulses[good], 99):4.0f} {course.sets[here].mean():5.2f}"
            f" {course.resets[here].mean():6.2f}  {why}"
        )
    print(
        f"  all             {np.mean(means):7.2f} {pulses[inside].mean():7.2f}"
        f" {np.percentile(pulses[inside], 99):4.0f}   reads {course.reads.mean():.2f}"
        f"   not inside {(~inside).mean():.2%}"
    )


def published(twin: DeviceModel) -> dict[str, ByRounds]:
    """The methods that are compared, with the volts of the published study."""
    amplitude = {"start_v": 2.0, "stop_v": 2.0}
    volts, conductance = twin.nominal_set_table(2.0, WIDTH_S)
    rising = np.flatnonzero(np.diff(conductance, prepend=0.0) > 0)
    curve = {
        "volts_v": [float(v) for v in volts[rising]],
        "conductance_s": [float(g) for g in conductance[rising]],
    }
    full = {"amplitude_v": FULL_RESET[0], "gate_v": FULL_RESET[1], "width_s": WIDTH_S}
    ramped = {"start_v": FULL_RESET[0], "stop_v": FULL_RESET[0]}
    by_curve = {
        "set": {
            "amplitude_v": amplitude,
            "gate_v": {"start_v": 1.8, "stop_v": 3.5, "curve": curve},
            "width_s": WIDTH_S,
        },
        "reset": {
            "amplitude_v": ramped,
            "gate_v": {"start_v": FULL_RESET[1], "stop_v": FULL_RESET[1]},
            "width_s": WIDTH_S,
        },
    }
    fine_set = {**by_curve["set"], "amplitude_v": {"start_v": 1.2, "stop_v": 3.0, "step_v": 0.02}}
    fine_reset = {
        **by_curve["reset"],
        "amplitude_v": {"start_v": 1.6, "stop_v": 3.0, "step_v": 0.18},
    }
    steps = {"least_step_v": 0.02, "most_step_v": 0.3}
    keys: dict[str, dict[str, Any]] = {
        "ispp": {
            "set": {
                "amplitude_v": 2.0, "gate_v": 1.8, "width_s": WIDTH_S, "step_v": 0.1, "stop_v": 3.5,
            },
            "reset": full,
        },
        "fixed-pulses": by_curve,
        "coarse-fine": {
            "coarse": by_curve, "fine": {"set": fine_set, "reset": fine_reset}, "lowest_s": 20e-6,
        },
        "adaptive-step": {
            "set": {
                "amplitude_v": 2.0, "gate_v": 1.9, "varied": "gate", "stop_v": 3.5,
                "width_s": WIDTH_S, **steps,
            },
            "reset": {
                "amplitude_v": 1.5, "gate_v": 4.0, "varied": "amplitude", "stop_v": 3.0,
                "width_s": WIDTH_S, **steps,
            },
        },
    }  # fmt: skip
    made = {}
    for name, own in keys.items():
        found = protocol_class(name).model_validate({**own, "max_pulses": BUDGET, "confirm": 0})
        assert isinstance(found, ByRounds)
        made[name] = found
    return made


def named(course: Course, bank: CellBank, chance: FloatArray) -> str:
    """How early hopeless cells of the top window are called doubtful, and how many others are."""
    top = (course.low_s == 0) & bank.responsive
    hopeless, hopeful = top & (chance < HOPELESS), top & (chance >= HOPEFUL)
    after = np.where(course.doubted > 0, course.doubted, 10**6)
    return (
        f"  of {int(hopeless.sum())} cells that open in less than {HOPELESS:.0%} of RESETs"
        f" {(after[hopeless] <= 3).mean():.0%} are doubtful after 3, the median after"
        f" {np.median(after[hopeless]):.0f}; of {int(hopeful.sum())} that open in {HOPEFUL:.0%} or"
        f" more {(course.doubted[hopeful] > 0).mean():.2%} are called so"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chip", nargs="?", default=DEFAULT_PRESET)
    parser.add_argument("twin", nargs="?")
    parser.add_argument("--wide", type=float, default=1.0)
    parser.add_argument("--cells", type=int, default=1024, help="cells a window")
    parser.add_argument("--seeds", default="5,6")
    given = parser.parse_args()
    chip = widened(DeviceModel.load(given.chip), given.wide)
    n = len(WINDOWS_OHM) * given.cells
    method = protocol_class("model-aware").model_validate(
        {
            "model": given.twin or given.chip,
            "set": SET,
            "reset": RESET,
            "confirm": 0,
            "max_pulses": BUDGET,
        }
    )
    twin = DeviceModel.load(method.model)
    for seed in map(int, given.seeds.split(",")):
        cells = BankCells(after_one_cycle(chip, n, seed))
        course, setting = course_of(cells), setting_of(cells)
        cells.carry_out(method.program(course, setting))
        table(f"model-aware, chip {seed}", course)
        below_s = 1.0 / WINDOWS_OHM[-1][0]
        print(named(course, cells.bank, chances(chip, n, seed, below_s)))
        union = np.zeros(n, dtype=np.bool_)
        for name, other in published(twin).items():
            cells = BankCells(after_one_cycle(chip, n, seed))
            theirs = course_of(cells)
            cells.carry_out(other.program(theirs, setting))
            table(f"{name}, chip {seed}", theirs)
            union |= theirs.inside
        print(
            f"  inside: model-aware {course.inside.mean():.2%}, any other method {union.mean():.2%}"
        )


if __name__ == "__main__":
    main()
