"""Writes the files of this folder: `python write.py FOLDER`, with the version that is to be kept.

It was commit 74e9328, the last one whose steps said the volts of three lines and nothing more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Span,
    Step,
    Stop,
    Wait,
    read_step,
)
from rram_hil.drivers.dialects import board_codec as host
from rram_hil.drivers.simulated.board import codec as far
from rram_hil.hardware.driver import Identity
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import Close, Header, Intent, Outcome, StepEnd, StepStart
from rram_hil.storage.journal import Journal

UTC = "2026-01-02T03:04:05Z"
GEOMETRY = Geometry(1, 4, 5)
CELLS = Cells.block(0, [0, 1, 3], [0, 2, 4])
EACH = np.linspace(1.9, 2.3, len(CELLS))
LIMITS = Limits(
    bl_v=4.0, sl_v=4.0, wl_v=4.0, cell_v=4.0, gate_over_v=4.2, half_select_v=0.5, read_v=0.25,
    current_a=1e-3, energy_j=1e-6, width_s=1e-5, pulses_per_cell=1000,
)  # fmt: skip


def operations() -> dict[str, Operation]:
    """One of each kind that holds a step, and a few more."""
    train = PulseTrain(Ramp(EACH, 2.4, 0.1), Ramp(2.2, 3.0, 0.1), 1e-7)
    reset = PulseTrain(Ramp(1.0, 2.4, 0.1), Ramp(3.5, 3.5), 2e-7)
    form = Step(3.6, 0.0, 2.0, 1e-6)
    return {
        "read": Apply(CELLS, (read_step(),), repeat=2, label="read"),
        "form": Apply(Cells.all(GEOMETRY), (form, read_step()), label="form"),
        "pulse": Apply(
            CELLS,
            (Step(0.0, EACH, 3.5, 1e-6), Step(None, 0.0, None, 2e-6, "current"), read_step()),
            Scheme.GROUNDED,
            1e-4,
            Stop(above_s=1e-4, below_s=np.full(len(CELLS), 1e-6)),
            3,
            "pulse",
        ),
        "set": Apply(CELLS, (Step(EACH, 0.0, 2.4, 1e-6), read_step()), Scheme.HALF, label="set"),
        "gates": Apply(CELLS, (Step(0.0, 0.0, 3.0, 1e-6, "gate"),), label="gates"),
        "program": Program(
            CELLS,
            np.full(len(CELLS), 4e-5),
            np.full(len(CELLS), 6e-5),
            train,
            reset,
            read_step(),
            12,
            label="program",
        ),
        "multiply": Multiply(0, 0, 0, 5, np.arange(-10, 10, dtype=np.int16).reshape(5, 4)),
        "codes": CodedRead((Block(0, 0, 4, 0, 5),), cell_read=read_step()),
        "wait": Wait(1.5),
    }


def chip() -> SimulatedChip:
    """The chip that carries them out."""
    return SimulatedChip(GEOMETRY, Simulation(seed=5), read_v=0.25, chip_id="kept")


def invented() -> ApplyResult:
    """A result."""
    values = np.arange(18.0).reshape(9, 2) * 1e-6
    counts = np.arange(9)
    status = np.zeros((9, 2), np.uint8)
    return ApplyResult(values, values / 0.2, status, values, counts, counts, Span(0.0, 1.0))


def frames() -> dict[str, str]:
    """Payloads of the board's link, hexadecimal: requests, a reply, the limits, an identity."""
    asked = operations()
    told = {
        f"request {name}": host.encode_operation(operation, 7, GEOMETRY)[1]
        for name, operation in asked.items()
    }
    told["reply read"] = far.result_reply(7, asked["read"], invented(), 12)
    told["limits"] = host.encode_limits(LIMITS)
    told["identity"] = far.identify_reply(
        chip().capabilities, GEOMETRY, ("m", "s", "f", "c"), max_message=1 << 20, rate=1e6, pace=0.0
    )
    return {name: payload.hex() for name, payload in told.items()}


def records() -> dict[str, str]:
    """Records as journals keep them, hexadecimal."""
    told = {name: operation_record(op).to_bytes().hex() for name, op in operations().items()}
    return told | {"result": result_record(invented()).to_bytes().hex()}


def carried_out() -> dict[str, Any]:
    """What the chip tells and is after these operations, hexadecimal."""
    bench, told = chip(), {}
    for number, (name, operation) in enumerate(
        [*operations().items(), ("again", operations()["read"])], start=1
    ):
        told[name] = result_record(bench.execute(operation, number)).to_bytes().hex()
    told["conductance"] = bench.conductance_s().tobytes().hex()
    return told


def write_journal(path: Path) -> None:
    """A journal of a read and a pulse."""
    board = Identity("board", "7", "1.0", "1", "boot-1", "kept")
    header = Header(
        "r1", "kept", GEOMETRY, "[chip]\n", "", UTC, "virtual", board, "0.1.0", {"read-map": "1"}
    )
    asked = operations()
    with Journal.create(path, header) as journal:
        journal.append(StepStart(1, "map", "read-map", "1"))
        journal.append(
            Intent(1, 1, operation_record(asked["read"]), np.zeros(len(CELLS), dtype=np.int64))
        )
        journal.append(Outcome(1, result_record(invented())))
        journal.append(
            Intent(2, 1, operation_record(asked["pulse"]), np.full(len(CELLS), 3, dtype=np.int64))
        )
        journal.append(StepEnd(1, 2.0))
        journal.append(Close("complete", UTC, 2.0))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, content in (("frames", frames()), ("records", records()), ("chip", carried_out())):
        text = json.dumps(content, indent=0)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    write_journal(folder / "journal")
