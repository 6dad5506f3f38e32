"""Fuzz the firmware with libFuzzer: `python tests/helpers/firmware_fuzz.py --seconds 30`.

It begins with one sound request of each kind, to NMOS and to PMOS selectors. What it finds is
written to `--keep`, and fails.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from firmware_builds import built

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Multiply,
    Operation,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    Stop,
    Wait,
    WriteWords,
    read_step,
)
from rram_hil.drivers.dialects.board_codec import (
    Kind,
    encode_executed,
    encode_operation,
)

GEOMETRY = Geometry(2, 8, 8)
ALL = Cells.all(GEOMETRY)
POLL, REBOOT = 0x20, 0xD0
"""Bits of a turn's first byte (firmware/fuzz/link.c): carry it out; power is lost."""
LONGEST = 255
NMOS, PMOS = b"\0", b"\2"
"""First byte of an input."""


def operations() -> list[Operation]:
    """One of each kind, small."""
    some = ALL[[1, 9, 70]]
    levels = np.array([1.0, 1.2, 1.4])
    up = PulseTrain(Ramp(levels, 2.0, 0.1), Ramp(2.0, 2.0), 1e-6)
    down = PulseTrain(Ramp(0.8, 2.0, 0.1), Ramp(3.0, 3.0), 1e-6)
    window = np.full(3, 5e-5), np.full(3, 6e-5)
    program = Program(some, *window, up, down, read_step(), 5)
    body = replace(read_step(), body_v=-0.5, unselected_wl_v=0.4, also_gate=True)
    well = replace(up, body_v=-1.0), replace(down, body_v=0.2, unselected_wl_v=0.3)
    other = Program(some, *window, *well, replace(body, also_gate=False), 5)
    coded = Program(some, *window, up, down, read_step(), 5, verify="coded")
    level = replace(read_step(), body_v=-0.5, unselected_wl_v=-0.2)
    by_codes = replace(coded, read=level)
    inputs = np.array([[1, -1, 127, 0]], dtype=np.int16)
    sweep = (Step(levels, 0.0, 2.0, 1e-6), read_step(), Step(0.1, 0.0, 1.0, 1e-6, "gate"))
    return [
        Apply(some, sweep, Scheme.HALF, 1e-4, Stop(6e-5, np.full(3, 1e-6)), 2),
        Apply(some, (body, Step(levels, 0.0, 2.0, 1e-6, body_v=0.5)), Scheme.THIRD, repeat=2),
        program,
        other,
        coded,
        by_codes,
        Multiply(1, 2, 3, 4, inputs, words=True),
        Multiply(1, 2, 3, 4, inputs, body_v=-0.5, unselected_wl_v=-0.2),
        CodedRead((Block(0, 1, 3, 2, 4), Block(1, 0, 1, 0, 1)), repeat=2),
        CodedRead((Block(0, 1, 3, 2, 4),), body_v=-0.5, unselected_wl_v=-0.2),
        WriteWords(some, np.array([1, -2, 3]), clear=True),
        Wait(0.01),
    ]


def seeds() -> list[bytes]:
    """Inputs of `firmware/fuzz/link.c`."""
    made = []
    for number, operation in enumerate(operations(), 1):
        kind, payload = encode_operation(operation, number, GEOMETRY)
        assert len(payload) <= LONGEST
        turn = bytes([kind | POLL, len(payload)]) + payload
        asked = encode_executed(number, ALL[:3], GEOMETRY)
        made.append(turn + turn + bytes([0x0A | POLL, len(asked)]) + asked)
        made.append(turn + bytes([REBOOT, 0]) + turn)
    made.append(bytes([Kind.BODY_LIMITS, 0]) + bytes([Kind.BODY_LIMITS, 16]) + bytes(16))
    return [kind + turns for kind in (NMOS, PMOS) for turns in [*made, b"".join(made)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--keep", type=Path, default=Path("."))
    given = parser.parse_args()
    program = built("fuzz", "fuzz/link")
    with tempfile.TemporaryDirectory() as folder:
        for k, seed in enumerate(seeds()):
            (Path(folder) / f"seed-{k}").write_bytes(seed)
        limits = [f"-max_total_time={given.seconds}", "-max_len=4096", "-timeout=10"]
        quiet = ["-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={given.keep}/"]
        done = subprocess.run(
            [program, *limits, *quiet, folder], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-4000:])
    stats = [line for line in done.stderr.splitlines() if line.startswith("stat::")]
    print(f"firmware: {stats[0].split()[-1]} inputs in {given.seconds} s, none failed")


if __name__ == "__main__":
    main()
