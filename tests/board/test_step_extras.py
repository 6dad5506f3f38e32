"""What a step says beside its three lines, over the board's link: only to a board that has it."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from boards import GEOMETRY, LIMITS

from rram_hil.array import (
    STEP_EXTRAS,
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
    Step,
    read,
    read_step,
)
from rram_hil.drivers.dialects import board_codec as host
from rram_hil.drivers.simulated.board import codec as far
from rram_hil.errors import BenchError, ConfigError, LimitError
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

BODY = LIMITS.model_copy(update={"body_v": 2.0, "body_over_v": 0.2})
SOME = Cells.block(1, [0, 3], [2, 5, 7])
TRAIN = PulseTrain(Ramp(1.6, 2.4, 0.1), Ramp(2.0, 2.6, 0.1), 1e-7, -1.0)
ASKED: dict[str, Operation] = {
    "body_v": read(SOME, replace(read_step(), body_v=-1.5)),
    "unselected_wl_v": read(SOME, replace(read_step(), unselected_wl_v=1.0)),
    "also_gate": read(SOME, replace(read_step(), also_gate=True), repeat=2),
}
MULTIPLY = Multiply(
    *(1, 1, 2, 3, np.full((2, 3), 127, np.int16)), wl_v=1.2, body_v=-1.0, unselected_wl_v=-0.5
)
CODED = CodedRead((Block(1, 0, 4, 1, 3),), wl_v=1.2, body_v=-1.0)
BY_CODES = Program(
    *(SOME, 2e-5, 4e-5, TRAIN, TRAIN, replace(read_step(), body_v=-0.5, unselected_wl_v=-0.2), 5),
    verify="coded",
)
PROGRAM = Program(
    SOME, 2e-5, 4e-5, TRAIN, replace(TRAIN, body_v=None, unselected_wl_v=-0.5), read_step(), 5
)


def identity(extras: frozenset[Any], geometry: Geometry = GEOMETRY) -> bytes:
    chip = SimulatedChip(geometry, Simulation(), read_v=0.3, chip_id="c1")
    can = replace(chip.capabilities, step_extras=extras)
    return far.identify_reply(
        can, geometry, ("m", "s", "f", "c"), max_message=1 << 20, rate=1e6, pace=0.0
    )


def test_every_set_of_bits_is_told_and_understood() -> None:
    sets = [frozenset(c) for k in range(4) for c in combinations(STEP_EXTRAS, k)]
    assert len(sets) == 8
    for extras in sets:
        told = host.decode_identify(identity(extras), 1, "port")
        assert told.capabilities.step_extras == extras
        assert told.geometry == GEOMETRY


def test_without_bits_the_identity_is_that_of_the_version_before() -> None:
    with_bits, without = (identity(e) for e in (frozenset(STEP_EXTRAS), frozenset()))
    (flags,) = struct.unpack_from("<I", with_bits, 88)
    assert with_bits[:88] + struct.pack("<I", flags & 0x1FF) + with_bits[92:] == without


def test_pmos_selectors_are_a_kind_of_cell() -> None:
    chip = Geometry(1, 3, 4, selector="pmos")
    told = identity(frozenset(), chip)
    assert told[10] == 2
    envelope = host.decode_identify(told, 1, "port")
    assert envelope.geometry == chip
    assert envelope.capabilities.selectors == {"pmos"}


def test_a_board_that_has_them_does_as_the_chip_itself(start: Any) -> None:
    wire = start(limits=BODY).driver(limits=BODY)
    direct = SimulatedChip(GEOMETRY, Simulation(), read_v=LIMITS.read_v, chip_id="c1")
    form = Apply(Cells.all(GEOMETRY), (Step(3.6, 0.0, 2.0, 1e-6),), compliance_a=1e-3)
    for number, operation in enumerate([form, *ASKED.values(), PROGRAM], start=1):
        told, wanted = wire.execute(operation, number), direct.execute(operation, number)
        np.testing.assert_array_equal(told.conductance_s, wanted.conductance_s)
        if operation is ASKED["also_gate"]:
            np.testing.assert_array_equal(told.gate_a, wanted.gate_a)
            assert told.gate_a == pytest.approx(3e-12, rel=1e-3)


def test_a_board_multiplies_and_reads_by_codes_at_such_levels(start: Any) -> None:
    wire = start(limits=BODY).driver(limits=BODY)
    direct = SimulatedChip(GEOMETRY, Simulation(), read_v=LIMITS.read_v, chip_id="c1")
    form = Apply(Cells.all(GEOMETRY), (Step(3.6, 0.0, 2.0, 1e-6),), compliance_a=1e-3)
    for number, operation in enumerate([form, MULTIPLY, CODED, BY_CODES], start=1):
        told, wanted = wire.execute(operation, number), direct.execute(operation, number)
        name = "codes" if operation is MULTIPLY else "conductance_s"
        # Coded readings go over the link as 16-bit codes.
        np.testing.assert_allclose(getattr(told, name), getattr(wanted, name), rtol=1e-4)


def test_a_board_lets_nobody_open_the_junctions_of_a_body(start: Any) -> None:
    with pytest.raises(BenchError, match=r"body_over_v 0\.5 V: beyond 0\.4 V a body's junctions"):
        start(limits=BODY).driver(limits=BODY.model_copy(update={"body_over_v": 0.5}))


def test_levels_of_a_multiply_that_make_no_sense_are_refused(start: Any) -> None:
    wire = start(limits=BODY).driver(limits=BODY)
    kind, payload = host.encode_operation(CODED, 1, GEOMETRY)
    for end in (struct.pack("<I", 4), payload[-8:-2]):
        with pytest.raises(BenchError, match=r"others 4 is none of [01] to 3|ends.* too early"):
            wire._transact(kind, payload[:-8] + end)  # past the driver's own look
    for operation, at in ((MULTIPLY, 38), (ASKED["body_v"], 54)):
        kind, payload = host.encode_operation(operation, 1, GEOMETRY)
        unknown = payload[:at] + bytes([payload[at] | 4]) + payload[at + 1 :]
        with pytest.raises(BenchError, match=r"others|makes no sense"):
            wire._transact(kind, unknown)  # past the driver's own look
    too_far = replace(MULTIPLY, body_v=-2.5)
    kind, payload = host.encode_operation(too_far, 1, GEOMETRY)
    with pytest.raises(BenchError, match=r"body -2\.5 V is beyond"):
        wire._transact(kind, payload)  # past the driver's own look


def test_a_board_without_them_is_sent_none_of_it(start: Any) -> None:
    """It knows no BODY LIMITS either, so that it arms shows that none were sent."""
    wire = start(limits=BODY, step_extras=[]).driver(limits=BODY)
    before = wire.transactions
    for name, operation in [
        *ASKED.items(),
        *(("body_v", asked) for asked in (PROGRAM, MULTIPLY, CODED, BY_CODES)),
    ]:
        with pytest.raises(ConfigError, match=f"^{name}: .* is not available") as refused:
            wire.execute(operation, 1)
        assert "\n" not in str(refused.value)
    assert wire.transactions == before
    wire.execute(read(SOME), 1)


def test_a_board_refuses_what_it_has_not_whoever_asks(start: Any) -> None:
    wire = start(limits=BODY, step_extras=[]).driver(limits=BODY)
    for number, operation in enumerate(ASKED.values(), start=1):
        kind, payload = host.encode_operation(operation, number, GEOMETRY)
        with pytest.raises(BenchError, match="is not available on this b"):
            wire._transact(kind, payload)  # past the driver's own look


def test_the_body_has_limits_of_its_own_which_the_board_keeps(start: Any) -> None:
    bench = start(limits=BODY)
    wire = bench.driver(limits=BODY)
    for volts, what in ((-2.5, "body -2.5 V is beyond the limit of 2 V"), (0.3, "body above")):
        operation = read(SOME, replace(read_step(), body_v=volts, wl_v=1.0))
        with pytest.raises(LimitError, match=what):
            wire.execute(operation, 1)
        kind, payload = host.encode_operation(operation, 1, GEOMETRY)
        with pytest.raises(BenchError, match=what):
            wire._transact(kind, payload)  # past the driver's own look
    with pytest.raises(LimitError, match=r"body_v 3(\.0)? is beyond this board's own 2"):
        bench.driver(limits=BODY.model_copy(update={"body_v": 3.0}))


def test_a_board_with_pmos_selectors_keeps_their_rules(start: Any) -> None:
    chip = Geometry(1, 3, 4, selector="pmos")
    limits = LIMITS.model_copy(update={"gate_over_v": 3.0})
    wire = start(geometry=chip, limits=limits).driver(geometry=chip, limits=limits)
    cells = Cells.all(chip)
    wire.execute(read(cells, Step(0.2, 0.0, -2.5, 1e-6, "current")), 1)
    too_low = read(cells, Step(0.2, 0.0, -3.0, 1e-6, "current"))
    with pytest.raises(LimitError, match=r"WL below the higher of BL and SL 3\.2 V"):
        wire.execute(too_low, 2)
    kind, payload = host.encode_operation(too_low, 2, chip)
    with pytest.raises(BenchError, match=r"WL below the higher of BL and SL 3\.2 V"):
        wire._transact(kind, payload)  # past the driver's own look
    with pytest.raises(ConfigError, match=r"selectors: pmos\); \[chip\] of the bench file says"):
        start(geometry=chip).driver(geometry=replace(chip, selector="nmos"))
