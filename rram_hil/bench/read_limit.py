"""Whether what a bench calls a read changes cells of its device model, for `rram-hil check`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.array import Apply, Cells, Limits, Step, Wait, pulse, read
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import BenchFile, Chip
from rram_hil.bench.paced_model import model_of
from rram_hil.engine.engine import Engine
from rram_hil.types import FloatArray
from rram_hil.units import Seconds, Volts

SIDE = 16
STEPS = 100
CHANGED = 0.02
"""A cell that conducts differently by more than this part has been changed."""
_WIDE = Limits(
    bl_v=10, sl_v=10, wl_v=10, cell_v=10, gate_over_v=10, half_select_v=10, read_v=0.2,
    current_a=1, energy_j=1, width_s=1, pulses_per_cell=1_000_000,
)  # fmt: skip
_IDEAL = {"read_noise": False, "converters": False, "line_ohm": 0.0, "faults": [], "resistors": []}


@dataclass(frozen=True)
class ReadLimitTrial:
    """What `steps` steps at `read_v` (V) of `width_s` each way did to `cells` formed cells: so many
    are `changed`.
    """

    read_v: Volts
    width_s: Seconds
    steps: int
    cells: int
    changed: int


def try_read_limit(file: BenchFile) -> ReadLimitTrial:
    """Repeat the strongest step that the bench calls a read, on a small chip of its device model.

    The chip is made for this, formed and half of it reset, under limits of its own; the bench and
    its simulated chip are not touched. What it is compared with is the same chip left alone for as
    long, so that relaxation is no change.
    """
    stressed, width_s, took_s = _tried(file, None)
    alone, _, _ = _tried(file, took_s)
    changed = np.abs(stressed - alone) > CHANGED * np.abs(alone)
    read_v = file.limits.read_v
    return ReadLimitTrial(read_v, width_s, STEPS, alone.size, int(changed.sum()))


def _tried(file: BenchFile, wait_s: float | None) -> tuple[FloatArray, float, float]:
    """What the chip conducts after the steps, or after `wait_s` without; a step's width and how
    long all took (s).
    """
    limits = file.limits
    chip = Chip(id="read-limit", tiles=1, rows=SIDE, columns=SIDE, cell=file.chip.cell)
    model = model_of(file.model_copy(update={"chip": chip, "limits": _WIDE}), **_IDEAL)
    with Bench.open(model, arm=False) as bench:
        # The engine without a ledger: this chip exists nowhere else.
        bench.driver.arm()
        engine = Engine(bench.driver, bench.geometry, bench.limits, None)
        cells = Cells.all(bench.geometry)
        engine.do(pulse(cells, bl_v=4.5, wl_v=3.0, width_s=1e-5))
        engine.do(pulse(cells[::2], sl_v=2.0, wl_v=4.5, width_s=2e-7))
        width_s = min(limits.read_width_s, bench.capabilities.width_s.high)
        began_s = bench.driver.now_s()
        if wait_s is None:
            gate_v = min(limits.wl_v, limits.gate_over_v)
            for bl_v, sl_v in ((limits.read_v, 0.0), (0.0, limits.read_v)):
                engine.do(Apply(cells, (Step(bl_v, sl_v, gate_v, width_s),), repeat=STEPS))
        else:
            engine.do(Wait(wait_s))
        took_s = bench.driver.now_s() - began_s
        return engine.do(read(cells)).last_s, width_s, took_s
