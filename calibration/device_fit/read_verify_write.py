"""Read-verify-write as a file tells it, by the rules of a `Program`, on cells of a model."""

from __future__ import annotations

import numpy as np

from rram_hil.array import LINES, Cells, Program, PulseTrain, Ramp, Status, Step
from rram_hil.array.write_verify_rules import Polarity, WriteVerify
from rram_hil.errors import DataError
from rram_hil.simulation.bank import CellBank
from rram_hil.simulation.model import DeviceModel

from .measured_files import LEAST_S, Measured
from .write_verify_schemes import Outcome

RAMPS = tuple((polarity, line) for polarity in ("set", "reset") for line in ("amplitude", "gate"))
"""The ramps of a scheme; amplitudes stand on BL (SET) and SL (RESET)."""
SCHEME = (
    *(
        f"{polarity}_{line}_{what}_v"
        for polarity, line in RAMPS
        for what in ("start", "stop", "step")
    ),
    *("set_width_ns", "reset_width_ns", "max_pulses", "max_reversals", "confirm"),
)
"""Columns that tell a scheme; the volts at which ramps begin may be each cell's own."""
_READ = Step(0.2, 0.0, 3.0, 1e-6, "current")
_POLARITIES: tuple[Polarity, ...] = (1, -1)


def is_told(file: Measured) -> bool:
    """Whether a file tells its scheme by columns. Raises `DataError` where it tells a part of
    it.
    """
    missing = [name for name in SCHEME if name not in file.columns]
    if 0 < len(missing) < len(SCHEME):
        raise DataError(
            f"{file.name}: of the columns of its scheme are missing: {', '.join(missing)}"
        )
    return not missing


def without_stuck(model: DeviceModel) -> DeviceModel:
    """The same with cells that all respond."""
    none = model.stuck.model_copy(update={"low_resistance": 0.0, "high_resistance": 0.0})
    return model.model_copy(update={"stuck": none})


def program_on_model(model: DeviceModel, file: Measured, seed: int, copies: int) -> Outcome:
    """What the file's scheme does with `copies` cells of the model for each row, in the rows' order
    `copies` times over.

    Cells begin at `g_start_s`, as if pulses had just left them there, and freshly formed where it
    is NaN or not told. `round_s` passes from one pulse to the next.
    """
    n = file.rows * copies
    bank = CellBank(without_stuck(model), n, seed)
    if "g_start_s" in file.columns:
        start_s = np.tile(file["g_start_s"], copies)
        known = np.flatnonzero(np.isfinite(start_s))
        bank.place(np.maximum(start_s[known], LEAST_S), at=known)
    rules = WriteVerify(_program(file, copies))
    while (at := rules.reading()).size:
        rules.take(at, bank.read(at), np.full(at.size, Status.OK, dtype=np.uint8))
        for polarity in _POLARITIES:
            due, pulse = rules.pulses(polarity)
            bl_v, sl_v, wl_v = (np.asarray(getattr(pulse, f"{line}_v")) for line in LINES)
            bank.apply(bl_v, sl_v, wl_v, pulse.width_s, at=due)
            rules.given(due, polarity)
        bank.advance(file.fixed("round_s"))
    return Outcome(rules.set_pulses, rules.reset_pulses, rules.inside.astype(np.int64))


def _program(file: Measured, copies: int) -> Program:
    """The operation of as many cells, one below the other."""
    n = file.rows * copies

    def ramp(name: str) -> Ramp:
        start_v = np.tile(file[f"{name}_start_v"], copies)
        return Ramp(start_v, file.fixed(f"{name}_stop_v"), file.fixed(f"{name}_step_v"))

    set_pulses, reset_pulses = (
        PulseTrain(
            ramp(f"{polarity}_amplitude"),
            ramp(f"{polarity}_gate"),
            file.fixed(f"{polarity}_width_ns") * 1e-9,
        )
        for polarity in ("set", "reset")
    )
    low_s, high_s = (1 / np.tile(file[name], copies) for name in ("r_high_ohm", "r_low_ohm"))
    return Program(
        Cells.block(0, range(n), [0]),
        # As high a resistance as is told of any cell stands for an open one.
        np.where(low_s <= LEAST_S, 0.0, low_s),
        high_s,
        set_pulses,
        reset_pulses,
        _READ,
        np.tile(file["max_pulses"], copies).astype(np.int64),
        int(file.fixed("max_reversals")),
        int(file.fixed("confirm")),
    )
