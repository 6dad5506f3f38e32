from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rram_hil.array import (
    Apply,
    Block,
    Cells,
    CodedRead,
    Geometry,
    Limits,
    Multiply,
    Program,
    PulseTrain,
    Ramp,
    Scheme,
    Step,
    Wait,
    WriteWords,
    check,
    half_selected_v,
    pulse,
    read,
    read_step,
    stresses_cells,
)
from rram_hil.array.limits import check_current_limit, pulses_of
from rram_hil.array.write_verify_rules import WriteVerify
from rram_hil.errors import ConfigError, LimitError

LIMITS = Limits(
    bl_v=3.0,
    sl_v=2.8,
    wl_v=3.5,
    cell_v=2.9,
    gate_over_v=3.6,
    half_select_v=0.5,
    read_v=0.25,
    current_a=1e-3,
    energy_j=2e-9,
    width_s=1e-6,
    pulses_per_cell=100,
    conductance_s=[0.0, 2e-4],
    read_width_s=1e-3,
    wait_s=1e4,
    body_v=2.0,
    body_over_v=0.3,
)
GEOMETRY = Geometry(1, 2, 2)
CELLS = Cells.all(GEOMETRY)
CHIPS = st.builds(
    Geometry,
    st.just(1),
    st.just(2),
    st.just(2),
    st.sampled_from(["1T1R", "1R"]),
    st.sampled_from(["row", "column", "common"]),
    st.sampled_from(["nmos", "nmos", "pmos"]),
)
ORDINARY = st.sampled_from([0.0, 0.1, 0.2, -0.2, 0.6, 1.5, 2.5, -1.5, 2.8])
WILD = st.one_of(st.floats(-5, 5), st.sampled_from([math.nan, math.inf, -math.inf, 3.0, -3.0]))
GENTLE = st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 2.4])
VOLTS = st.one_of(ORDINARY, WILD)
BESIDE = st.one_of(
    st.sampled_from([0.0, 0.0, -0.5, -1.0, -2.0, 0.2, 0.5, 1.5, 2.0, 2.4, math.nan]),
    st.floats(-4, 4),
)
"""Levels of bodies and of unselected word lines."""
WIDTHS = st.one_of(st.sampled_from([1e-7, 1e-6, 1e-3]), st.floats(), st.just(0.0))


def _levels(n: int, volts: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.one_of(volts, st.lists(volts, min_size=n, max_size=n).map(np.array), st.none())


def _mostly_gentle(draw: st.DrawFn) -> tuple[st.SearchStrategy[float], st.SearchStrategy[float]]:
    """Volts and widths: in three of four operations such as a bench really gives."""
    return (
        (VOLTS, WIDTHS) if draw(st.integers(0, 3)) == 0 else (GENTLE, st.sampled_from([1e-7, 3e-7]))
    )


@st.composite
def _applies(draw: st.DrawFn) -> Apply:
    cells = Cells.from_index(
        draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)), Geometry(1, 2, 2)
    )
    volts, widths = _mostly_gentle(draw)
    levels = _levels(len(cells), volts)
    others = st.one_of(st.none(), st.none(), st.none(), BESIDE)
    step = st.builds(
        Step, levels, levels, levels, widths, st.sampled_from(["no", "current"]), others, others
    )
    steps = tuple(draw(st.lists(step, min_size=1, max_size=3)))
    compliance = draw(st.sampled_from([None, None, None, 1e-4, 1e-3, 2e-3, 0.0, math.nan]))
    return Apply(
        cells, steps, draw(st.sampled_from(Scheme)), compliance, None, draw(st.integers(1, 3))
    )


@st.composite
def _programs(draw: st.DrawFn) -> Program:
    cells = Cells.from_index(
        draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)), Geometry(1, 2, 2)
    )
    n = len(cells)
    volts, widths = _mostly_gentle(draw)
    start = st.one_of(volts, st.lists(volts, min_size=n, max_size=n).map(np.array))
    ramp = st.builds(Ramp, start, volts, st.sampled_from([0.0, 0.1, 0.3, -0.1, 1e300]))
    others = st.one_of(st.none(), st.none(), st.none(), BESIDE)
    train = st.builds(PulseTrain, ramp, ramp, widths, others, others)
    window = sorted((draw(st.floats(0, 2e-4)), draw(st.floats(0, 2e-4))))
    reading = Step(draw(st.sampled_from([0.1, 0.2, 0.25])), 0.0, draw(volts), 1e-6, "current")
    return Program(
        cells,
        np.full(n, window[0]),
        np.full(n, window[1]),
        draw(train),
        draw(train),
        reading,
        draw(st.integers(0, 20)),
        unselected=draw(st.sampled_from(Scheme)),
    )


def _volt(volts: Any, k: int) -> float | None:
    return (
        None
        if volts is None
        else float(
            np.broadcast_to(
                np.asarray(volts, float), (k + 1,) if np.ndim(volts) == 0 else np.shape(volts)
            )[k]
        )
    )


def _fitting(operation: Any, chip: Geometry) -> Any:
    """The operation as it may be asked of a chip: one without selectors has no levels of theirs."""
    if chip.cell == "1T1R":
        return operation
    nothing = {"body_v": None, "unselected_wl_v": None}
    if isinstance(operation, Apply):
        steps = tuple(dataclasses.replace(s, **nothing) for s in operation.steps)
        return dataclasses.replace(operation, steps=steps)
    trains = {
        name: dataclasses.replace(getattr(operation, name), **nothing)
        for name in ("set_pulses", "reset_pulses")
    }
    return dataclasses.replace(operation, **trains)


def _worst_neighbour(
    bl: float, sl: float, wl: float | None, scheme: Scheme, chip: Geometry, idle: float = 0.0
) -> float:
    """Put the volts on every line of a 2 x 2 array whose cell (0, 0) is selected; the largest |V|
    across another open cell.
    """
    choices = {
        Scheme.INHIBIT: [sl],
        Scheme.GROUNDED: [0.0],
        Scheme.FLOATING: [0.0, sl],
        Scheme.HALF: [(bl + sl) / 2],
        Scheme.THIRD: [sl + (bl - sl) / 3],
    }[scheme]
    worst = 0.0
    if chip.cell == "1R" and scheme is Scheme.FLOATING:
        # Either floating line may still stand at ground, or follow the line that the cell joins it
        # to.
        return max(abs(bl), abs(sl), abs(bl - sl))
    for other_bl in choices:
        if chip.cell == "1R":
            other_sl = {
                Scheme.HALF: other_bl,
                Scheme.THIRD: bl - (bl - sl) / 3,
                Scheme.GROUNDED: 0.0,
            }.get(scheme, sl)
            worst = max(worst, abs(bl - other_sl), abs(other_bl - sl), abs(other_bl - other_sl))
            continue
        if chip.source_lines == "column":
            other_bl = 0.0
        sources = {
            "row": {(0, 1): sl, (1, 0): 0.0, (1, 1): 0.0},
            "common": {(0, 1): sl, (1, 0): sl, (1, 1): sl},
            "column": {(0, 1): 0.0, (1, 0): sl, (1, 1): 0.0},
        }[chip.source_lines]
        for (row, column), source in sources.items():
            bit = bl if column == 0 else other_bl
            gate = wl if row == 0 else idle
            opens = gate is None or (
                gate > min(bit, source) if chip.selector == "nmos" else gate < max(bit, source)
            )
            if opens:
                worst = max(worst, abs(bit - source))
    return worst


def _over(gate: float, ends: list[float], chip: Geometry) -> bool:
    """Whether a gate oxide bears this gate beside these ends."""
    if any(math.isnan(v) for v in (gate, *ends)):
        return False
    most = gate - min(ends) if chip.selector == "nmos" else max(ends) - gate
    return most <= LIMITS.gate_over_v


def _faults_beside(step: Step, lines: list[float], chip: Geometry) -> list[str]:
    """What body and unselected word lines do wrong beside these lines."""
    body, idle = step.body_v, step.unselected_wl_v
    if body is None and idle is None:
        return []
    found = []
    if body is not None:
        forward = body - min(lines) if chip.selector == "nmos" else max(lines) - body
        if not abs(body) <= LIMITS.body_v or not forward <= LIMITS.body_over_v:
            found.append("body")
    if not abs(idle or 0.0) <= LIMITS.wl_v:
        found.append("unselected WL")
    if not _over(idle or 0.0, lines + ([] if body is None else [body]), chip):
        found.append("gate over of unselected WL")
    return found


def _faults(
    step: Step, n: int, scheme: Scheme, chip: Geometry, compliance: float | None
) -> list[str]:
    """What is beyond a limit, cell by cell, in plain Python: written apart from the code under
    test.
    """
    found = []
    reads = []
    for k in range(n):
        bl, sl, wl = (_volt(v, k) for v in (step.bl_v, step.sl_v, step.wl_v))
        for name, volts, most in (
            ("BL", bl, LIMITS.bl_v),
            ("SL", sl, LIMITS.sl_v),
            ("WL", wl, LIMITS.wl_v),
        ):
            if volts is not None and not abs(volts) <= most:
                found.append(name)
        across = 0.0 if bl is None or sl is None else bl - sl
        if not abs(across) <= LIMITS.cell_v:
            found.append("cell")
        if (bl is None) != (sl is None) and not abs(bl or sl or 0.0) <= LIMITS.read_v:
            found.append("beside a floating line")
        ends = [v for v in (bl, sl) if v is not None] or [0.0]
        ends += [] if step.body_v is None else [step.body_v]
        if wl is not None and chip.cell == "1T1R" and not _over(wl, ends, chip):
            found.append("gate over")
        found += _faults_beside(step, [0.0, bl or 0.0, sl or 0.0], chip)
        # Cells beside it are held for as long.
        beside = _worst_neighbour(
            bl or 0.0, sl or 0.0, wl, scheme, chip, step.unselected_wl_v or 0.0
        )
        felt = max(abs(across), beside)
        is_read = felt <= LIMITS.read_v
        reads.append(is_read)
        current = LIMITS.current_a if compliance is None else compliance
        if not is_read and not felt * current * step.width_s <= LIMITS.energy_j:
            found.append("energy")
        if not found and not beside <= LIMITS.half_select_v:
            found.append("half-selected")
    longest = LIMITS.read_width_s if all(reads) else LIMITS.width_s
    if not 0 < step.width_s <= longest:
        found.append("width")
    if compliance is not None and not 0 < compliance <= LIMITS.current_a:
        found.append("compliance")
    return found


@settings(max_examples=200, deadline=None)
@given(_applies(), CHIPS)
def test_check_refuses_an_apply_exactly_where_something_is_beyond_a_limit(
    operation: Apply, chip: Geometry
) -> None:
    operation = _fitting(operation, chip)
    n = len(operation.cells)
    faults = [
        f
        for s in operation.steps
        for f in _faults(s, n, operation.unselected, chip, operation.compliance_a)
    ]
    event("refused" if faults else "passed")
    if faults:
        with pytest.raises(LimitError):
            check(operation, chip, LIMITS)
        return
    charge = check(operation, chip, LIMITS)
    pulses = [
        sum(
            abs((_volt(s.bl_v, k) or 0.0) - (_volt(s.sl_v, k) or 0.0)) > LIMITS.read_v
            for s in operation.steps
            if s.bl_v is not None and s.sl_v is not None
        )
        for k in range(n)
    ]
    assert charge.pulses.tolist() == [p * operation.repeat for p in pulses]


@settings(max_examples=150, deadline=None)
@given(_programs(), CHIPS, st.randoms(use_true_random=False))
def test_no_pulse_of_a_program_that_passes_is_beyond_a_limit(
    operation: Program, chip: Geometry, random: Any
) -> None:
    operation = _fitting(operation, chip)
    try:
        charge = check(operation, chip, LIMITS)
    except LimitError:
        event("refused")
        return
    event("passed")
    n = len(operation.cells)
    rules = WriteVerify(operation)
    given_pulses = np.zeros(n, dtype=np.int64)
    assert not _faults(operation.read, n, operation.unselected, chip, None)
    while (at := rules.reading()).size:
        invented = np.array([random.choice([0.0, 1e-4, 1.0, math.nan]) for _ in at])
        rules.take(at, invented, np.zeros(at.size, np.uint8))
        for polarity in (1, -1):
            due, step = rules.pulses(polarity)  # type: ignore[arg-type]
            if due.size:
                assert not _faults(
                    step, due.size, operation.unselected, chip, operation.compliance_a
                )
                given_pulses[due] += 1
                rules.given(due, polarity)  # type: ignore[arg-type]
    assert np.all(given_pulses <= charge.pulses)


def _turned(value: Any) -> Any:
    """Volts of the other sign; no level stays none."""
    return None if value is None else -value


def _mirrored(operation: Apply | Program) -> Apply | Program:
    """The same with the signs of all volts changed."""

    def step(one: Step) -> Step:
        names = ("bl_v", "sl_v", "wl_v", "body_v", "unselected_wl_v")
        return dataclasses.replace(one, **{name: _turned(getattr(one, name)) for name in names})

    def ramp(one: Ramp) -> Ramp:
        return Ramp(_turned(one.start_v), -one.stop_v, -one.step_v)

    def train(one: PulseTrain) -> PulseTrain:
        others = _turned(one.body_v), _turned(one.unselected_wl_v)
        return PulseTrain(ramp(one.amplitude_v), ramp(one.gate_v), one.width_s, *others)

    if isinstance(operation, Apply):
        return dataclasses.replace(operation, steps=tuple(step(s) for s in operation.steps))
    return dataclasses.replace(
        operation,
        set_pulses=train(operation.set_pulses),
        reset_pulses=train(operation.reset_pulses),
        read=step(operation.read),
    )


def _charge(operation: Apply | Program, chip: Geometry) -> list[int] | None:
    """What it is charged; None where it is refused."""
    try:
        return check(operation, chip, LIMITS).pulses.tolist()
    except LimitError:
        return None


@settings(max_examples=200, deadline=None)
@given(st.one_of(_applies(), _programs()), CHIPS)
def test_pmos_selectors_are_given_exactly_what_nmos_ones_are_with_all_signs_changed(
    operation: Apply | Program, chip: Geometry
) -> None:
    operation = _fitting(operation, chip)
    nmos, pmos = (dataclasses.replace(chip, selector=kind) for kind in ("nmos", "pmos"))
    charged = _charge(operation, nmos)
    event("refused" if charged is None else "passed")
    assert _charge(_mirrored(operation), pmos) == charged
    # And none of the two rules is the other one.
    assert _charge(Apply(CELLS, (Step(0.0, 0.0, -3.5, 1e-7),)), nmos) is not None


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step(0.2, 0.0, 0.5, 1e-7, body_v=-2.5), ["body -2.5 V", "2 V"]),
        (Step(1.0, 0.0, 2.0, 1e-7, body_v=0.5), ["body above the lowest line 0.5 V", "0.3 V"]),
        (Step(1.0, 0.0, 2.5, 1e-7, body_v=-1.5), ["WL above the lower of BL, SL and body", "4 V"]),
        (Step(0.2, 0.0, 3.0, 1e-7, unselected_wl_v=-3.6), ["unselected WL -3.6 V", "3.5 V"]),
        (
            Step(-0.4, 0.0, 0.0, 1e-7, unselected_wl_v=3.3),
            ["unselected WL above the lowest line 3.7 V", "3.6 V"],
        ),
        (Step(1.0, 0.0, 2.0, 1e-7, unselected_wl_v=0.5), ["half-selected", "1 V", "0.5 V"]),
        # A read of the selected cell, but 0.4 V on its neighbours of the column.
        (Step(0.4, 0.4, 2.0, 1e-3, unselected_wl_v=0.5), ["width", "0.001 s", "1e-06 s"]),
    ],
)
def test_a_refusal_names_what_stands_beside_the_lines(step: Step, words: list[str]) -> None:
    with pytest.raises(LimitError) as refusal:
        check(Apply(CELLS, (step,)), GEOMETRY, LIMITS)
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


PMOS = dataclasses.replace(GEOMETRY, selector="pmos")


@pytest.mark.parametrize(
    ("beside", "chip"),
    [
        # 0.4 V on the neighbours of the column, whose gates the step opens: 0.4 V x 1 mA x 1 us.
        (Step(0.4, 0.4, 2.0, 1e-6, "current", unselected_wl_v=0.5), GEOMETRY),
        # The same where they stand at 0 V, and no level of theirs is said.
        (Step(-0.4, -0.4, 2.0, 1e-6, "current"), GEOMETRY),
        (Step(0.4, 0.4, -2.0, 1e-6, "current"), PMOS),
    ],
)
def test_reads_that_stress_other_rows_are_pulses_there(beside: Step, chip: Geometry) -> None:
    limits = LIMITS.model_copy(update={"energy_j": 1e-10})
    check(read(CELLS, beside), chip, LIMITS)
    with pytest.raises(LimitError, match="energy of a pulse 4e-10 J"):
        check(read(CELLS, beside), chip, limits)
    with pytest.raises(LimitError, match=r"width 0\.001 s is beyond the limit of 1e-06 s"):
        check(read(CELLS, dataclasses.replace(beside, width_s=1e-3)), chip, LIMITS)
    closed = 1.2 if chip is PMOS else None
    train = PulseTrain(Ramp(1.0, 1.2, 0.1), Ramp(2.0, 2.0), 1e-9, None, closed)
    window = np.full(len(CELLS), 1e-5), np.full(len(CELLS), 2e-5)
    programmed = Program(CELLS, *window, train, train, beside)
    coded = CodedRead((Block(0, 0, 1, 0, 1),), cell_read=beside)
    for operation in (programmed, coded):
        with pytest.raises(LimitError, match=r"read limit of 0\.25 V: 0\.4 V on a cell"):
            check(operation, chip, LIMITS)


BENT = LIMITS.model_copy(update={"half_select_v": 3.0, "pulses_per_cell": 10_000})
"""Where cells beside the selected ones may take pulses."""


def _left_beside(step: Step, at: int, chip: Geometry, scheme: Scheme, k: int) -> list[int]:
    """The cells of other rows that one step on cell `at` stresses: volts on every line of the
    tile.
    """
    bl, sl = (_volt(v, k) or 0.0 for v in (step.bl_v, step.sl_v))
    idle, (row, column) = step.unselected_wl_v or 0.0, divmod(at, chip.columns)
    choices = {
        Scheme.INHIBIT: [sl], Scheme.GROUNDED: [0.0], Scheme.FLOATING: [0.0, bl, sl],
        Scheme.HALF: [(bl + sl) / 2], Scheme.THIRD: [sl + (bl - sl) / 3],
    }[scheme]  # fmt: skip
    found = []
    for r, c in np.ndindex(chip.rows, chip.columns):
        if r == row:
            continue
        source = 0.0 if chip.source_lines == "row" else sl
        bits = [bl] if c == column else choices
        if chip.source_lines == "column" and c != column:
            bits = [source]
        for bit in bits:
            is_open = (
                idle > min(bit, source) if chip.selector == "nmos" else idle < max(bit, source)
            )
            if is_open and abs(bit - source) > BENT.read_v:
                found.append(r * chip.columns + c)
                break
    return found


@settings(max_examples=200, deadline=None)
@given(_applies(), CHIPS.filter(lambda chip: chip.cell == "1T1R"))
def test_pulses_that_come_to_cells_of_other_rows_are_charged_there(
    operation: Apply, chip: Geometry
) -> None:
    try:
        charge = check(operation, chip, BENT)
    except LimitError:
        event("refused")
        return
    counts = np.zeros(chip.size, dtype=np.int64)
    for k, at in enumerate(operation.cells.index(chip)):
        for step in operation.steps:
            counts[_left_beside(step, int(at), chip, operation.unselected, k)] += operation.repeat
    event("counted" if counts.any() else "nothing beside")
    wanted = counts.copy()
    wanted[operation.cells.index(chip)] += charge.pulses
    cells, pulses = charge.everywhere
    told = np.zeros_like(wanted)
    told[cells.index(chip)] = pulses
    np.testing.assert_array_equal(told, wanted)
    assert charge.stresses == bool(wanted.any())
    assert stresses_cells(operation, chip, BENT) >= charge.stresses


def test_a_write_verify_is_charged_with_what_its_pulses_leave_on_other_rows() -> None:
    cells = Cells.of([(0, 0, 0), (0, 1, 1)])
    train = PulseTrain(Ramp(1.0, 1.2, 0.1), Ramp(0.0, 0.0), 1e-7)
    operation = Program(
        cells, 1e-5, 2e-5, train, train, Step(0.2, 0.0, -2.0, 1e-6, "current"), [7, 3]
    )
    charge = check(operation, PMOS, BENT)
    assert charge.pulses.tolist() == [7, 3]
    # INHIBIT holds the bit line of the other column at the selected source line's level, too.
    felt = {charge.beside.address(k): int(n) for k, n in enumerate(charge.beside_pulses)}
    assert felt == {(0, 0, 0): 3, (0, 0, 1): 3, (0, 1, 0): 7, (0, 1, 1): 7}
    with pytest.raises(LimitError, match=r"cell \(0, 0, 0\): 10 pulses in one operation"):
        check(operation, PMOS, BENT.model_copy(update={"pulses_per_cell": 9}))


def test_a_pmos_array_names_the_other_side() -> None:
    chip = dataclasses.replace(GEOMETRY, selector="pmos")
    with pytest.raises(LimitError, match="WL below the higher of BL and SL 4 V is beyond"):
        check(Apply(CELLS, (Step(2.0, 0.0, -2.0, 1e-7, unselected_wl_v=2.0),)), chip, LIMITS)
    with pytest.raises(LimitError, match="half-selected"):
        check(Apply(CELLS, (Step(2.0, 0.0, 0.0, 1e-7),)), chip, LIMITS)
    check(Apply(CELLS, (Step(2.0, 0.0, 0.0, 1e-7, unselected_wl_v=2.0),)), chip, LIMITS)
    with pytest.raises(LimitError, match="body below the highest line"):
        check(
            Apply(CELLS, (Step(2.0, 0.0, 0.0, 1e-7, body_v=1.5, unselected_wl_v=2.0),)),
            chip,
            LIMITS,
        )


def test_without_limits_of_the_body_none_may_be_driven() -> None:
    limits = LIMITS.model_copy(update={"body_v": 0.0})
    with pytest.raises(LimitError, match=r"body -1 V is beyond the limit of 0 V"):
        check(Apply(CELLS, (Step(0.2, 0.0, 2.0, 1e-7, body_v=-1.0),)), GEOMETRY, limits)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"body_v": -2.5, "wl_v": 0.5}, "body -2.5 V is beyond the limit of 2 V"),
        # Inputs stand down to -0.2 V.
        ({"body_v": 0.2}, "body above the lowest line 0.4 V is beyond the limit of 0.3 V"),
        ({"body_v": -1.0}, "WL above the lower of BL, SL and body 4 V"),
        ({"unselected_wl_v": 3.5}, "unselected WL above the lowest line 3.7 V"),
    ],
)
def test_multiplies_and_coded_reads_keep_the_limits_of_what_they_say(
    levels: dict[str, float], words: str
) -> None:
    inputs = np.ones((1, 2), np.int16)
    for operation in (
        Multiply(0, 0, 0, 2, inputs, **levels),
        CodedRead((Block(0, 0, 2, 0, 2),), **levels),
    ):
        with pytest.raises(LimitError, match=words):
            check(operation, GEOMETRY, LIMITS)
    said = Multiply(0, 0, 0, 2, inputs, body_v=-0.5, unselected_wl_v=-0.5)
    assert not check(said, GEOMETRY, LIMITS).stresses
    with pytest.raises(ConfigError, match="body_v: a 1R array has no selectors"):
        check(said, dataclasses.replace(GEOMETRY, cell="1R"), LIMITS)


@pytest.mark.parametrize("chip", [GEOMETRY, PMOS])
def test_no_limits_let_a_body_open_its_junctions(chip: Geometry) -> None:
    with pytest.raises(ValueError, match="body_over_v"):
        Limits.model_validate(LIMITS.model_dump() | {"body_over_v": 0.41})
    limits = LIMITS.model_copy(update={"body_over_v": 2.0})  # past the model's own look
    sign = chip.polarity
    levels = {"bl_v": 0.0, "sl_v": 0.0, "wl_v": 2.0 * sign, "width_s": 1e-7}
    check(Apply(CELLS, (Step(**levels, body_v=0.4 * sign),)), chip, limits)
    beyond = Apply(CELLS, (Step(**levels, body_v=0.41 * sign),))
    with pytest.raises(LimitError, match=r"body \w+ the \w+ line 0\.41 V is beyond .* of 0\.4 V"):
        check(beyond, chip, limits)


@pytest.mark.parametrize("name", ["body_v", "unselected_wl_v"])
def test_an_array_without_selectors_has_no_levels_of_theirs(name: str) -> None:
    step = dataclasses.replace(read_step(), **{name: 0.0})
    with pytest.raises(ConfigError, match=f"{name}: a 1R array has no selectors"):
        check(read(CELLS, step), Geometry(1, 2, 2, "1R"), LIMITS)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_never_passes(number: float) -> None:
    cells, chip = Cells.of([(0, 0, 0), (0, 1, 1)]), Geometry(1, 2, 2)
    good = Step(2.0, 0.0, 2.0, 1e-7)
    check(Apply(cells, (good,)), chip, LIMITS)
    second = np.array([1.0, number])
    for change in (
        {"bl_v": number},
        {"sl_v": number},
        {"wl_v": number},
        {"width_s": number},
        {"bl_v": second},
        {"sl_v": second},
        {"wl_v": second},
    ):
        with pytest.raises(LimitError):
            check(Apply(cells, (dataclasses.replace(good, **change),)), chip, LIMITS)
    with pytest.raises(LimitError):
        check(Apply(cells, (good,), compliance_a=number), chip, LIMITS)
    fine = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 2.0, 0.0), 1e-7)
    check(Program(cells, np.zeros(2), np.full(2, 1e-4), fine, fine, read_step()), chip, LIMITS)
    for ramp in (Ramp(number, 2.0), Ramp(1.0, number), Ramp(1.0, 2.0, number), Ramp(second, 2.0)):
        for bad in (
            PulseTrain(ramp, fine.gate_v, 1e-7),
            PulseTrain(fine.amplitude_v, ramp, 1e-7),
            PulseTrain(fine.amplitude_v, fine.gate_v, number),
        ):
            for trains in ((bad, fine), (fine, bad)):
                with pytest.raises(LimitError):
                    check(
                        Program(cells, np.zeros(2), np.full(2, 1e-4), *trains, read_step()),
                        chip,
                        LIMITS,
                    )
    inputs = np.array([[1, 2]], np.int16)
    for change in ({"read_v": number}, {"wl_v": number}):
        with pytest.raises(LimitError):
            check(Multiply(0, 0, 0, 2, inputs, **change), chip, LIMITS)


@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("wiring", ["row", "column", "common"])
@pytest.mark.parametrize("cell", ["1T1R", "1R"])
@pytest.mark.parametrize(
    ("bl", "sl", "wl"),
    [
        (2.0, 0.0, 2.5),
        (0.0, 2.0, 2.5),
        (-2.0, 0.0, 0.0),
        (0.0, -2.0, 0.0),
        (1.0, -1.0, 2.0),
        (0.0, 2.0, -1.0),
    ],
)
def test_half_selected_cells_of_every_scheme_and_wiring(
    scheme: Scheme, wiring: Any, cell: Any, bl: float, sl: float, wl: float
) -> None:
    chip = Geometry(1, 2, 2, cell, wiring)
    told = half_selected_v(Step(bl, sl, wl), 1, scheme, chip)
    assert told[0] == pytest.approx(_worst_neighbour(bl, sl, wl, scheme, chip))


def test_volts_beside_a_floating_line_are_no_read() -> None:
    cells = Cells.of([(0, 0, 0)])
    for step in (Step(2.5, None, 2.0, 1e-7), Step(None, 2.5, 2.0, 1e-7)):
        with pytest.raises(LimitError, match="beside a floating line"):
            check(Apply(cells, (step,)), Geometry(1, 2, 2), LIMITS)
    check(
        Apply(cells, (Step(0.2, None, 3.0, 1e-6), Step(None, None, 0.0, 1e-6))),
        Geometry(1, 2, 2),
        LIMITS,
    )


def test_known_half_selected_volts() -> None:
    row, passive = Geometry(1, 2, 2), Geometry(1, 2, 2, "1R")
    reset = Step(0.0, 2.4, 3.0)
    assert half_selected_v(reset, 1, Scheme.INHIBIT, row) == [0.0]
    assert half_selected_v(reset, 1, Scheme.GROUNDED, row) == [2.4]
    assert half_selected_v(Step(2.4, 0.0, 3.0), 1, Scheme.GROUNDED, row) == [0.0]
    assert half_selected_v(reset, 1, Scheme.HALF, passive) == [1.2]
    assert half_selected_v(reset, 1, Scheme.THIRD, passive) == pytest.approx([0.8])
    # A bit line below ground opens the gates of the whole column, which stand at 0 V.
    assert half_selected_v(Step(-2.0, 0.0, 0.0), 1, Scheme.INHIBIT, row) == [2.0]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step(np.array([1.0, 3.2]), 1.0, 2.0, 1e-7), [r"\(0, 1, 1\)", "BL", "3.2 V", "3 V"]),
        (Step(0.0, np.array([1.0, -2.85]), 0.0, 1e-7), [r"\(0, 1, 1\)", "SL", "-2.85 V", "2.8 V"]),
        (Step(0.2, 0.0, 3.55, 1e-7), [r"\(0, 0, 0\)", "WL", "3.55 V", "3.5 V"]),
        (Step(2.0, -1.0, 0.0, 1e-7), ["BL - SL", "3 V", "2.9 V"]),
        (Step(2.0, -0.5, 3.4, 1e-7), ["WL above the lower of BL and SL", "3.9 V", "3.6 V"]),
        (Step(2.0, 0.0, 2.0, 2e-6), ["width", "2e-06 s", "1e-06 s"]),
        (Step(2.5, 0.0, 2.0, 9e-7), ["energy", "2.25e-09 J", "2e-09 J"]),
        (Step(-1.0, 0.0, 0.0, 1e-7), ["half-selected", "1 V", "0.5 V"]),
    ],
)
def test_a_refusal_names_cell_line_value_and_limit(step: Step, words: list[str]) -> None:
    cells = Cells.of([(0, 0, 0), (0, 1, 1)])
    with pytest.raises(LimitError) as refusal:
        check(Apply(cells, (step,)), Geometry(1, 2, 2), LIMITS)
    for word in words:
        assert word.replace("\\", "") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_reads_are_free_and_pulses_are_charged_at_their_worst() -> None:
    cells, chip = Cells.block(0, [0, 1], [0, 1]), Geometry(1, 2, 2)
    assert check(read(cells, repeat=100), chip, LIMITS).pulses.tolist() == [0, 0, 0, 0]
    levels = np.array([0.2, 0.25, 0.26, 2.0])
    twice = dataclasses.replace(
        pulse(cells, bl_v=levels, wl_v=2.0, width_s=1e-7, read=read_step()), repeat=2
    )
    assert check(twice, chip, LIMITS).pulses.tolist() == [0, 0, 2, 2]
    train = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 2.0), 1e-7)
    budget = np.array([0, 1, 2, 30])
    charge = check(Program(cells, 0.0, 1e-4, train, train, read_step(), budget), chip, LIMITS)
    assert charge.pulses.tolist() == budget.tolist()


def test_targets_outside_the_conductance_window_are_refused() -> None:
    cells, chip = Cells.of([(0, 0, 0)]), Geometry(1, 2, 2)
    train = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 2.0), 1e-7)
    with pytest.raises(
        LimitError, match=r"target low_s 0.0003 S is outside the limits of 0 to 0.0002 S"
    ):
        check(Program(cells, 3e-4, math.inf, train, train, read_step()), chip, LIMITS)
    with pytest.raises(LimitError, match="read of a write-verify is above the read limit"):
        check(
            Program(cells, 0.0, 1e-4, train, train, Step(0.3, 0, 2.0, 1e-6, "current")),
            chip,
            LIMITS,
        )
    check(Program(cells, 1e-4, math.inf, train, train, read_step()), chip, LIMITS)


@pytest.mark.parametrize(
    "amplitude_v",
    [Ramp(0.0, 0.0), Ramp(0.1, 2.0, 0.1), Ramp(-0.4, 0.4, 0.1), Ramp(np.array([1.0]), 0.2)],
)
def test_pulses_of_a_program_are_stronger_than_reads(amplitude_v: Ramp) -> None:
    cells, chip = Cells.of([(0, 0, 0)]), Geometry(1, 2, 2)
    good = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 2.0), 1e-7)
    weak = PulseTrain(amplitude_v, Ramp(2.0, 2.0), 1e-7)
    for trains in ((weak, good), (good, weak)):
        with pytest.raises(LimitError, match="must be stronger than the read limit"):
            check(Program(cells, 1e-5, 1e-4, *trains, read_step()), chip, LIMITS)
        only_read = Program(cells, 1e-5, 1e-4, *trains, read_step(), max_pulses=0)
        check(only_read, chip, LIMITS)


def test_a_multiply_is_checked_for_inputs_of_both_signs_and_for_its_place() -> None:
    chip, inputs = Geometry(2, 4, 4), np.ones((1, 2), np.int16)
    check(Multiply(1, 2, 2, 2, inputs), chip, LIMITS)
    with pytest.raises(LimitError, match=r"multiply read voltage 0.3 V"):
        check(Multiply(0, 0, 0, 2, inputs, read_v=0.3), chip, LIMITS)
    with pytest.raises(LimitError, match="WL above the lower"):
        check(Multiply(0, 0, 0, 2, inputs, read_v=0.2, wl_v=3.45), chip, LIMITS)
    for tile, row, column, columns in (
        (2, 0, 0, 1),
        (0, 3, 0, 1),
        (0, 0, 3, 2),
        (0, -1, 0, 1),
        (0, 0, 0, 0),
    ):
        with pytest.raises(LimitError, match="off the chip"):
            check(Multiply(tile, row, column, columns, inputs), chip, LIMITS)


def test_codes_are_checked_as_multiplies_of_both_signs() -> None:
    chip, block = Geometry(2, 4, 4), Block(1, 2, 2, 2, 2)
    check(CodedRead((block, Block(0, 0, 4, 0, 4))), chip, LIMITS)
    with pytest.raises(LimitError, match=r"multiply read voltage 0.3 V"):
        check(CodedRead((block,), read_v=0.3), chip, LIMITS)
    with pytest.raises(LimitError, match="WL above the lower"):
        check(CodedRead((block,), read_v=0.2, wl_v=3.45), chip, LIMITS)
    with pytest.raises(LimitError, match="off the chip"):
        check(CodedRead((block, Block(0, 3, 2, 0, 1))), chip, LIMITS)
    train = PulseTrain(Ramp(1.0, 2.0, 0.1), Ramp(2.0, 2.0), 1e-7)
    single = Program(block.cells, 0.0, 1e-4, train, train, read_step(0.2, 3.45))
    check(single, chip, LIMITS)
    with pytest.raises(LimitError, match="WL above the lower"):
        check(dataclasses.replace(single, verify="coded"), chip, LIMITS)


def test_cells_read_instead_of_codes_are_stressed_no_more() -> None:
    chip, block = Geometry(1, 4, 4), Block(0, 0, 4, 0, 4)
    check(CodedRead((block,), cell_read=read_step(0.2)), chip, LIMITS)
    with pytest.raises(LimitError, match="above the read limit"):
        check(CodedRead((block,), cell_read=read_step(2.0)), chip, LIMITS)
    with pytest.raises(LimitError, match=r"WL 3\.6 V"):
        check(CodedRead((block,), cell_read=read_step(0.2, 3.6)), chip, LIMITS)


def test_words_and_waits() -> None:
    chip = Geometry(1, 2, 2)
    with pytest.raises(ConfigError, match=r"column must lie in 0..1"):
        check(WriteWords(Cells.of([(0, 0, 2)]), np.array([1])), chip, LIMITS)
    with pytest.raises(LimitError, match="wait of 10001 s is beyond the limit of 10000 s"):
        check(Wait(10001.0), chip, LIMITS)
    assert len(check(Wait(10.0), chip, LIMITS).cells) == 0


@given(
    st.dictionaries(
        st.sampled_from(sorted({*Limits.model_fields} - {"read_v_reason"})),  # any text is one
        st.sampled_from([math.nan, -1.0, math.inf, "1", None]),
        min_size=1,
    )
)
def test_limits_that_are_no_limits_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Limits.model_validate(LIMITS.model_dump() | changes)


# What is asked of one operation


def test_no_operation_may_take_more_pulses_than_a_life() -> None:
    step = Step(2.0, 0.0, 2.0, 1e-7)
    life = LIMITS.pulses_per_cell
    check(Apply(CELLS, (step,), repeat=life), GEOMETRY, LIMITS)
    for repeat in (life + 1, (1 << 31) - 1):
        with pytest.raises(LimitError, match="pulses in one operation are beyond the limit"):
            check(Apply(CELLS, (step,), repeat=repeat), GEOMETRY, LIMITS)


def test_pulses_do_not_wrap() -> None:
    """4 steps of 2**62: nothing of 64 bits may make that none."""
    steps = (Step(2.0, 0.0, 2.0, 1e-7),) * 4
    operation = Apply(CELLS, steps)
    object.__setattr__(operation, "repeat", 1 << 62)
    with pytest.raises(LimitError, match="pulses in one operation"):
        pulses_of(operation, LIMITS)


@pytest.mark.parametrize("scale", [1e-300, 1e-16, 1e4, 1e300])
def test_a_full_scale_that_no_converter_has_is_refused(scale: float) -> None:
    inputs = np.ones((1, 2), np.int16)
    with pytest.raises(LimitError, match="full scale") as refused:
        check(Multiply(0, 0, 0, 1, inputs, full_scale_a=scale), GEOMETRY, LIMITS)
    assert "\n" not in str(refused.value)


def test_without_a_compliance_energy_is_what_the_highest_conductance_takes() -> None:
    """0.1 uA of `current_a` does not make 2 V on 1 mS any weaker."""
    limits = LIMITS.model_copy(
        update={"current_a": 1e-7, "energy_j": 1e-10, "conductance_s": [0.0, 1e-3]}
    )
    step = Apply(CELLS, (Step(2.0, 0.0, 2.0, 1e-7),))
    check(step, GEOMETRY, limits)
    with pytest.raises(LimitError, match="energy of a pulse"):
        check(step, GEOMETRY, limits, bounds_current=False)


@pytest.mark.parametrize(
    ("current_a", "bounds_current", "multiplies", "is_kept"),
    [(1e-7, True, False, True), (1e-7, True, True, False), (1e-7, False, False, False),
     (1e-3, True, True, True), (1e-3, False, False, True)],
)  # fmt: skip
def test_a_current_that_nothing_keeps_is_refused(
    current_a: float, bounds_current: bool, multiplies: bool, is_kept: bool
) -> None:
    limits = LIMITS.model_copy(update={"current_a": current_a, "conductance_s": [0.0, 3e-4]})
    if is_kept:
        check_current_limit(limits, bounds_current=bounds_current, multiplies=multiplies)
        return
    with pytest.raises(ConfigError, match="cannot be kept") as refused:
        check_current_limit(limits, bounds_current=bounds_current, multiplies=multiplies)
    assert "\n" not in str(refused.value)
